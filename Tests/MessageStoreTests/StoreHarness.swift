import Foundation
import LinuxSystem
import Logging
import MessageModel
import StoreFormat
import Synchronization

@testable import MessageStore

/// Work of the background threads, done when the test says so, on the test's own thread.
final class ManualBackground: StoreBackground {
    private let work = Mutex<[@Sendable () -> Void]>([])
    /// Runs everything at once when it is submitted.
    let isImmediate: Bool

    init(immediate: Bool = true) {
        isImmediate = immediate
    }

    func submit(_ thread: StoreBackgroundThread, _ item: @escaping @Sendable () -> Void) {
        if isImmediate { item() } else { work.withLock { $0.append(item) } }
    }

    func run() {
        while true {
            let items = work.withLock { queue in
                defer { queue = [] }
                return queue
            }
            if items.isEmpty { return }
            for item in items { item() }
        }
    }

    /// What was submitted until now, and nothing that follows from it.
    func runOnce() {
        let items = work.withLock { queue in
            defer { queue = [] }
            return queue
        }
        for item in items { item() }
    }

    func stop() { run() }
}

/// What would run on the owner's loop.
final class OwnerLoop: Sendable {
    fileprivate let work = Mutex<[@Sendable () -> Void]>([])

    func post(_ item: @escaping @Sendable () -> Void) {
        work.withLock { $0.append(item) }
    }

    func run() {
        while true {
            let items = work.withLock { queue in
                defer { queue = [] }
                return queue
            }
            if items.isEmpty { return }
            for item in items { item() }
        }
    }
}

extension OwnerLoop {
    /// What was posted until now, and nothing that follows from it.
    func runOnce() {
        let items = work.withLock { queue in
            defer { queue = [] }
            return queue
        }
        for item in items { item() }
    }
}

/// A clock tests move.
final class TestClock: Sendable {
    private let value: Mutex<Int64>

    init(_ start: Int64 = 1_800_000_000_000) {
        value = Mutex(start)
    }

    var now: Int64 { value.withLock { $0 } }
    func advance(_ milliseconds: Int64) { value.withLock { $0 += milliseconds } }
}

/// What the store said of importance: warnings and worse.
final class LogLines: LogHandler, Sendable {
    private let stored = Mutex<[String]>([])
    private let errorsStored = Mutex<[(line: String, metadata: Logger.Metadata)]>([])

    var lines: [String] { stored.withLock { $0 } }
    /// Those of level error and above.
    var errors: [(line: String, metadata: Logger.Metadata)] { errorsStored.withLock { $0 } }
    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    var logLevel: Logger.Level {
        get { .warning }
        set {}
    }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }

    func log(event: LogEvent) {
        if event.level >= .warning { stored.withLock { $0.append("\(event.message)") } }
        if event.level >= .error {
            errorsStored.withLock { $0.append(("\(event.message)", event.metadata ?? [:])) }
        }
    }
}

extension MessageStore {
    /// Without an owner to report to.
    func open() throws(StoreError) { try open(.ignored) }
}

/// A store with everything around it that a test needs.
final class Harness {
    let store: MessageStore
    let loop = OwnerLoop()
    let clock: TestClock
    let background: ManualBackground

    init(
        _ configuration: StoreConfiguration, disk: any Disk = RealDisk(), clock: TestClock = TestClock(),
        background: ManualBackground = ManualBackground(), boot: UInt8 = 1, machineStart: Int64 = 0,
        log: LogLines? = nil
    ) {
        self.clock = clock
        self.background = background
        let loop = loop
        var logger = Logger(label: "store") { _ in SwiftLogNoOpLogHandler() }
        if ProcessInfo.processInfo.environment["APUS_TEST_LOG"] != nil { logger = Logger(label: "store") }
        if let log { logger = Logger(label: "store") { _ in log } }
        store = MessageStore(
            configuration: configuration, disk: disk, logger: logger, background: background,
            clock: { clock.now }, bootIdentity: Array(repeating: boot, count: 16),
            machineStart: machineStart, executor: { loop.post($0) })
    }

    /// Background and loop until nothing is left.
    func settle() {
        background.run()
        loop.run()
    }

    /// Maintenance with time passing, long enough for a pass, a checkpoint and cleaning.
    func maintain(_ milliseconds: Int64 = 2000) {
        var passed: Int64 = 0
        while passed < milliseconds {
            clock.advance(100)
            passed += 100
            store.runMaintenance()
            settle()
        }
    }

    @discardableResult
    func send(
        _ topic: String, _ queueID: Int32 = 0, body: String, tags: String? = nil, keys: String? = nil,
        unique: String? = nil, sysFlag: Int32 = 0, ipv6: Bool = false, extra: String = ""
    ) -> AppendOutcome {
        var properties = ""
        if let keys { properties += "KEYS\u{1}\(keys)\u{2}" }
        if let tags { properties += "TAGS\u{1}\(tags)\u{2}" }
        if let unique { properties += "UNIQ_KEY\u{1}\(unique)\u{2}" }
        properties += extra
        return send(
            topic, queueID, body: Array(body.utf8), properties: Array(properties.utf8), sysFlag: sysFlag, ipv6: ipv6)
    }

    func send(
        _ topic: String, _ queueID: Int32, body: [UInt8], properties: [UInt8], suffix: [UInt8] = [], sysFlag: Int32 = 0,
        ipv6: Bool = false
    ) -> AppendOutcome {
        let host =
            ipv6
            ? HostAddress(ipv6High: 0x2001_0db8 << 32, low: 7, port: 999) : HostAddress(ipv4: 0x7F00_0001, port: 10911)
        return Array(topic.utf8).withUnsafeBytes { topic in
            body.withUnsafeBytes { body in
                properties.withUnsafeBytes { properties in
                    suffix.withUnsafeBytes { suffix in
                        var draft = MessageDraft(
                            topic: topic, queueID: queueID, bornHost: host, storeHost: host, body: body)
                        draft.properties = properties
                        draft.propertiesSuffix = suffix
                        draft.bornTimestamp = clock.now - 5
                        draft.sysFlag = sysFlag
                        draft.flag = 7
                        return store.append(draft)
                    }
                }
            }
        }
    }

    /// Replaces a message by a newer version, or deletes it when there is no body.
    @discardableResult
    func edit(
        _ topic: String, _ queueID: Int32 = 0, at offset: Int64, replacing current: Int64? = nil, body: String?,
        properties: String = "", version: Int64 = 2, growth: Int? = nil
    ) -> AppendOutcome {
        let queue = store.consumeQueue(topic: topic, queueID: queueID)
        let present = queue.flatMap { store.currentVersion($0, at: QueueOffset(offset)) }
        let current = current.map { PhysicalOffset($0) } ?? present?.physicalOffset ?? PhysicalOffset(0)
        let note = EditNote(
            version: version, deletes: body == nil, action: body == nil ? .delete : .edit, at: clock.now, by: "tester")
        let properties = Array("\(properties)APUS_EDIT\u{1}\(note.text)\u{2}".utf8)
        let host = HostAddress(ipv4: 0x7F00_0001, port: 10911)
        return Array(topic.utf8).withUnsafeBytes { topic in
            Array((body ?? "").utf8).withUnsafeBytes { bytes in
                properties.withUnsafeBytes { properties in
                    var draft = MessageDraft(
                        topic: topic, queueID: queueID, bornHost: host, storeHost: host, body: bytes)
                    draft.properties = properties
                    draft.bornTimestamp = clock.now - 5
                    draft.growth = growth
                    return store.replace(draft, at: QueueOffset(offset), replacing: current, deletes: body == nil)
                }
            }
        }
    }

    /// Bodies of a whole queue, read as a consumer would.
    func bodies(_ topic: String, _ queueID: Int32 = 0, from: Int64? = nil, tagsCodes: [Int64]? = nil) -> [String] {
        records(topic, queueID, from: from, tagsCodes: tagsCodes).map { String(decoding: $0.body, as: UTF8.self) }
    }

    func records(_ topic: String, _ queueID: Int32 = 0, from: Int64? = nil, tagsCodes: [Int64]? = nil) -> [Record] {
        var found: [Record] = []
        guard let queue = store.consumeQueue(topic: topic, queueID: queueID) else { return [] }
        var offset = QueueOffset(from ?? queue.minOffset.rawValue)
        while true {
            let result = Array(topic.utf8).withUnsafeBytes { topic in
                store.getMessages(topic: topic, queueID: queueID, from: offset, maxCount: 32, tagsCodes: tagsCodes) {
                    bytes in
                    found += Record.all(Array(bytes))
                }
            }
            if result.nextBeginOffset <= offset { return found }
            offset = result.nextBeginOffset
        }
    }
}

/// An independent reading of a record: written from the format's description with none of the store's code.
struct Record: Equatable {
    var total: Int
    var magic: UInt32
    var crc: UInt32
    var queueID: Int
    var flag: Int
    var queueOffset: Int
    var physicalOffset: Int
    var sysFlag: Int
    var storeTime: Int
    var topic: String
    var body: [UInt8]
    var properties: [String: String]

    static func all(_ bytes: [UInt8]) -> [Record] {
        var found: [Record] = []
        var rest = bytes[...]
        while let record = Record(rest) {
            found.append(record)
            rest = rest.dropFirst(record.total)
        }
        return found
    }

    init?(_ slice: ArraySlice<UInt8>) {
        var bytes = slice
        func number(_ count: Int) -> Int? {
            guard bytes.count >= count else { return nil }
            var value: UInt64 = bytes.first.map { $0 & 0x80 != 0 } == true ? .max : 0
            for byte in bytes.prefix(count) { value = value << 8 | UInt64(byte) }
            bytes = bytes.dropFirst(count)
            return Int(Int64(bitPattern: value))
        }
        guard let total = number(4), let magic = number(4), let crc = number(4), let queueID = number(4),
            let flag = number(4),
            let queueOffset = number(8), let physicalOffset = number(8), let sysFlag = number(4), number(8) != nil
        else { return nil }
        bytes = bytes.dropFirst(sysFlag & 16 == 0 ? 8 : 20)
        guard let storeTime = number(8) else { return nil }
        bytes = bytes.dropFirst(sysFlag & 32 == 0 ? 8 : 20)
        guard number(4) != nil, number(8) != nil, let bodyLength = number(4) else { return nil }
        self.body = Array(bytes.prefix(bodyLength))
        bytes = bytes.dropFirst(bodyLength)
        guard let topicLength = number(magic == -626_843_477 ? 2 : 1) else { return nil }
        self.topic = String(decoding: bytes.prefix(topicLength), as: UTF8.self)
        bytes = bytes.dropFirst(topicLength)
        guard let propertiesLength = number(2) else { return nil }
        var properties: [String: String] = [:]
        for piece in bytes.prefix(propertiesLength).split(separator: 2) {
            let parts = piece.split(separator: 1, maxSplits: 1)
            if parts.count == 2 {
                properties[String(decoding: parts[0], as: UTF8.self)] = String(decoding: parts[1], as: UTF8.self)
            }
        }
        bytes = bytes.dropFirst(propertiesLength)
        guard slice.count - bytes.count == total else { return nil }
        self.total = total
        self.magic = UInt32(truncatingIfNeeded: magic)
        self.crc = UInt32(truncatingIfNeeded: crc)
        self.queueID = queueID
        self.flag = flag
        self.queueOffset = queueOffset
        self.physicalOffset = physicalOffset
        self.sysFlag = sysFlag
        self.storeTime = storeTime
        self.properties = properties
    }
}

/// A folder that goes away with the test.
final class TemporaryFolder {
    let path: String

    init() throws {
        var template = Array("/tmp/apus-store-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw CocoaError(.fileWriteUnknown) }
        path = template.withUnsafeBufferPointer {
            String(decoding: $0.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// Unpacks a store Apache RocketMQ wrote; returns its folder.
    func unpack(_ fixture: String, folder: String) throws -> String {
        let archive = Fixture.path(fixture)
        try Fixture.run("/usr/bin/tar", ["-xzf", archive, "-C", path])
        return path + "/" + folder
    }
}

enum Fixture {
    static func path(_ name: String, file: String = #filePath) -> String {
        URL(fileURLWithPath: file).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/store/\(name)").path
    }

    static func run(_ command: String, _ arguments: [String]) throws {
        _ = try output(command, arguments)
    }

    @discardableResult
    static func output(_ command: String, _ arguments: [String]) throws -> Data {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: command)
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw CocoaError(.executableRuntimeMismatch) }
        return data
    }

    static func manifest(_ name: String) throws -> [ManifestMessage] {
        try JSONDecoder().decode([ManifestMessage].self, from: output("/usr/bin/gzip", ["-dc", path(name)]))
    }
}

/// A message a Java client sent to Apache RocketMQ when the fixtures were made.
struct ManifestMessage: Decodable {
    var kind: String
    var topic: String
    var body: String?
    var tags: String?
    var keys: String?
    var flag: Int
    var queueID: Int
    var queueOffset: Int
    var msgID: String
    var offsetMsgID: String?
    var commitLogOffset: Int?

    /// The fixtures have RocketMQ's spelling.
    private enum CodingKeys: String, CodingKey {
        case kind, topic, body, tags, keys, flag, queueOffset, commitLogOffset
        case queueID = "queueId"
        case msgID = "msgId"
        case offsetMsgID = "offsetMsgId"
    }
}

extension StoreConfiguration {
    /// Small files, so that tests meet their ends.
    static func small(_ path: String) -> StoreConfiguration {
        var configuration = StoreConfiguration(storePathRootDir: path)
        configuration.mappedFileSizeCommitLog = 64 * 1024
        configuration.mappedFileSizeConsumeQueue = 2000
        configuration.maxHashSlotNum = 500
        configuration.maxIndexNum = 2000
        configuration.maxMessageSize = 32 * 1024
        configuration.allocateAheadBytes = 0
        configuration.diskReservedBytes = 0
        configuration.diskSpaceWarningLevelRatio = 1
        configuration.diskSpaceCleanForciblyRatio = 1
        configuration.diskMaxUsedSpaceRatio = 100
        return configuration
    }

    static func golden(_ path: String) -> StoreConfiguration {
        var configuration = small(path)
        configuration.mappedFileSizeCommitLog = 1_048_576
        configuration.fileReservedTime = 1_000_000
        return configuration
    }

    static func golden5(_ path: String) -> StoreConfiguration {
        var configuration = golden(path)
        configuration.mappedFileSizeCommitLog = 67_108_864
        configuration.mappedFileSizeConsumeQueue = 60_000
        configuration.maxHashSlotNum = 5000
        configuration.maxIndexNum = 20_000
        return configuration
    }
}
