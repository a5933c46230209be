import Glibc
import LinuxSystem
import Logging
import MessageModel
import StoreFormat

@testable import MessageStore

extension MessageStore {
    /// Without an owner to report to.
    func open() throws(StoreError) { try open(.ignored) }
}

/// A whole store directory, damaged as the input says, is opened, read to the end in every way, written to, closed and
/// opened again. It must never trap, never deliver a record whose CRC is wrong, and whatever opens must take messages
/// and keep them.
enum StoreTarget {
    static let root = "/s"

    /// Background work done at once.
    private final class Inline: StoreBackground {
        func submit(_ thread: StoreBackgroundThread, _ work: @escaping @Sendable () -> Void) { work() }
        func stop() {}
    }

    private nonisolated(unsafe) static var posted: [@Sendable () -> Void] = []
    private nonisolated(unsafe) static var time: Int64 = 1_800_000_000_000

    struct Base {
        var files: [(path: String, bytes: [UInt8])]
        var configuration: StoreConfiguration
    }

    /// Made by the store itself; and Apache's, when its folder is given.
    static let bases: [Base] = {
        var found = [made(closed: true), made(closed: false)]
        if let folder = getenv("APUS_FUZZ_GOLDEN").map({ String(cString: $0) }) {
            found.append(Base(files: read(folder), configuration: configuration(log: 1 << 20, queue: 2000, 500, 2000)))
        }
        return found
    }()

    static func configuration(log: Int, queue: Int, _ slots: Int, _ entries: Int) -> StoreConfiguration {
        var configuration = StoreConfiguration(storePathRootDir: root)
        configuration.mappedFileSizeCommitLog = log
        configuration.mappedFileSizeConsumeQueue = queue
        configuration.maxHashSlotNum = slots
        configuration.maxIndexNum = entries
        configuration.maxMessageSize = 2048
        configuration.allocateAheadBytes = 0
        configuration.fileReservedTime = 1_000_000
        return configuration
    }

    /// `APUS_FUZZ_EXPLAIN` shows what an input damages and what the store says of it.
    private static let explains = getenv("APUS_FUZZ_EXPLAIN") != nil
    private static func explain(_ text: @autoclosure () -> String) {
        if explains { fatalOutput(text()) }
    }

    /// Unbuffered: the next thing may be a crash.
    private static func fatalOutput(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        _ = write(2, bytes, bytes.count)
    }

    private static let logger = Logger(label: "store") {
        explains ? StreamLogHandler.standardError(label: $0) as any LogHandler : SwiftLogNoOpLogHandler()
    }

    static func store(_ configuration: StoreConfiguration, _ disk: FuzzDisk, boot: UInt8) -> MessageStore {
        posted = []
        return MessageStore(
            configuration: configuration, disk: disk, logger: logger,
            background: Inline(), clock: { time }, bootIdentity: Array(repeating: boot, count: 16),
            executor: { posted.append($0) })
    }

    static func maintain(_ store: MessageStore, seconds: Int) {
        for _ in 0..<(seconds * 4) {
            time += 250
            store.runMaintenance()
            while !posted.isEmpty { posted.removeFirst()() }
        }
    }

    static func append(
        _ store: MessageStore, _ topic: String, _ queueID: Int32, body: String, properties: String = "",
        ipv6: Bool = false
    ) -> AppendOutcome {
        let host =
            ipv6 ? HostAddress(ipv6High: 1, low: 2, port: 3) : HostAddress(ipv4: 1, port: 2)
        return Array(topic.utf8).withUnsafeBytes { topic in
            Array(body.utf8).withUnsafeBytes { body in
                Array(properties.utf8).withUnsafeBytes { properties in
                    var draft = MessageDraft(
                        topic: topic, queueID: queueID, bornHost: host,
                        storeHost: HostAddress(ipv4: 5, port: 6),
                        body: body)
                    draft.properties = properties
                    return store.append(draft)
                }
            }
        }
    }

    private static func made(closed: Bool) -> Base {
        let configuration = configuration(log: 8192, queue: 400, 16, 40)
        let disk = FuzzDisk(files: [:])
        let store = store(configuration, disk, boot: 1)
        do {
            try store.open()
            for number in 0..<90 {
                _ = append(
                    store, number % 9 == 0 ? "SCHEDULE_TOPIC_XXXX" : "T", Int32(number % 2),
                    body: "\(number)" + String(repeating: "b", count: number * 3 % 200),
                    properties: "UNIQ_KEY\u{1}U\(number)\u{2}KEYS\u{1}k\(number % 5)\u{2}TAGS\u{1}t\u{2}DELAY\u{1}2",
                    ipv6: number % 4 == 0)
                if number % 5 == 0 { try store.commitTick() }
                if number % 30 == 29 { maintain(store, seconds: 2) }
                time += 300
            }
            try store.commitTick()
            if closed { try store.close() } else { store.abandon() }
        } catch {
            fatalError("the base store could not be made: \(error)")
        }
        return Base(
            files: disk.image.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }, configuration: configuration)
    }

    private static func read(_ folder: String) -> [(path: String, bytes: [UInt8])] {
        let real = RealDisk()
        var found: [(path: String, bytes: [UInt8])] = []
        func walk(_ path: String) {
            do {
                for name in try real.list(path).sorted() {
                    let below = path + "/" + name
                    guard let information = try real.information(below) else { continue }
                    if information.isDirectory {
                        walk(below)
                        continue
                    }
                    var bytes = [UInt8](repeating: 0, count: Int(information.size))
                    let file = try real.open(below, .read)
                    _ = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: 0) }
                    found.append((root + below.dropFirst(folder.count), bytes))
                }
            } catch {
                fatalError("\(error)")
            }
        }
        walk(folder)
        return found
    }

    // MARK: - One input

    /// Takes numbers off the input; zeros behind its end.
    struct Input {
        let bytes: UnsafeRawBufferPointer
        var position = 0

        var isAtEnd: Bool { position >= bytes.count }

        mutating func byte() -> UInt8 {
            defer { position += 1 }
            return isAtEnd ? 0 : bytes[position]
        }

        mutating func number(_ count: Int) -> UInt64 {
            (0..<count).reduce(UInt64(0)) { value, _ in value << 8 | UInt64(byte()) }
        }
    }

    static func run(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= 2 else { return }
        var input = Input(bytes: bytes)
        let choice = input.byte()
        let base = bases[choice & 0xF0 == 0xF0 ? bases.count - 1 : Int(choice) % 2]
        let flags = input.byte()
        var files = Dictionary(uniqueKeysWithValues: base.files.map { ($0.path, $0.bytes) })
        let paths = base.files.map { $0.path }.filter { !$0.contains("/config/") }
        while !input.isAtEnd { damage(&files, paths, &input) }
        explain("flags \(flags & 15), golden: \(choice & 0xF0 == 0xF0), base \(choice % 2)")
        if flags & 1 != 0 { files[root + "/abort"] = [] }
        if flags & 2 != 0 { files[root + "/abort"] = nil }
        if flags & 4 != 0 { files[root + "/consumequeue/.apus-recovery"] = nil }
        let disk = FuzzDisk(files: files)
        let boot: UInt8 = flags & 8 != 0 ? 2 : 1
        if choice & 0x0F == 0x0E {
            replicate(bytes, base.configuration)
            return
        }
        exercise(disk, base.configuration, boot)
    }

    private static func damage(_ files: inout [String: [UInt8]], _ paths: [String], _ input: inout Input) {
        let path = paths[Int(input.byte()) % paths.count]
        guard var bytes = files[path] else {
            input.position += 1
            return
        }
        let kind = input.byte() % 8
        let place = bytes.isEmpty ? 0 : Int(input.number(3)) % bytes.count
        explain("damage \(path), \(bytes.count) bytes, at \(place): kind \(kind)")
        switch kind {
        case 0 where !bytes.isEmpty: bytes[place] ^= max(1, input.byte())
        case 1, 2:
            // A number of 4 or 8 bytes, as most fields are.
            for (index, byte) in (0..<Int(kind) * 4).map({ ($0, input.byte()) }) where place + index < bytes.count {
                bytes[place + index] = byte
            }
        case 3: bytes.removeLast(bytes.count - place)
        case 4: for index in place..<min(place / 512 * 512 + 512, bytes.count) { bytes[index] = 0 }
        case 5 where !bytes.isEmpty:
            let from = Int(input.number(2)) % bytes.count
            let count = min(Int(input.byte()), bytes.count - max(from, place))
            bytes.replaceSubrange(place..<(place + count), with: Array(bytes[from..<(from + count)]))
        case 6:
            files[path] = nil
            return
        case 7 where path.hasSuffix(".apus-recovery") && bytes.count >= 4096 * (place % 3) + 128:
            // A recovery point that passes its own check.
            let start = 4096 * (place % 3)
            let field = start + 8 * (Int(input.byte()) % 15)
            for index in 0..<8 where field + index < start + 124 { bytes[field + index] = input.byte() }
            let crc = crc32(Array(bytes[start..<(start + 124)])) & 0x7FFF_FFFF
            for index in 0..<4 {
                bytes[start + 124 + index] = UInt8(truncatingIfNeeded: crc >> (24 - 8 * UInt32(index)))
            }
        default: break
        }
        files[path] = bytes
    }

    static func exercise(_ disk: FuzzDisk, _ configuration: StoreConfiguration, _ boot: UInt8) {
        let first = store(configuration, disk, boot: boot)
        do {
            try first.open()
        } catch {
            // Refused with words: nothing else may have happened.
            return
        }
        readEverything(first)
        if first.notWritable != nil { maintain(first, seconds: 4) }
        demand(
            first.notWritable == nil, "it opened and takes no messages: \(String(describing: first.notWritable))")
        let fresh = [("T", Int32(0)), ("T", 1), ("New", 7)]
        var places: [AppendResult] = []
        for (topic, queueID) in fresh {
            guard
                case .appended(let result) = append(first, topic, queueID, body: "fresh", properties: "UNIQ_KEY\u{1}F")
            else {
                fatalError("a message was refused")
            }
            places.append(result)
        }
        do {
            try first.commitTick()
            maintain(first, seconds: 2)
            demand(
                first.notWritable == nil, "maintenance closed the gate: \(String(describing: first.notWritable))")
            readEverything(first)
            expect(fresh, places, first)
            try first.close()
        } catch {
            fatalError("an opened store failed: \(error)")
        }
        let second = store(configuration, disk, boot: boot)
        do {
            try second.open()
            readEverything(second)
            expect(fresh, places, second)
            try second.close()
        } catch {
            fatalError("a closed store does not open: \(error)")
        }
    }

    private static func expect(_ fresh: [(String, Int32)], _ places: [AppendResult], _ store: MessageStore) {
        for ((topic, queueID), place) in zip(fresh, places) {
            guard let queue = store.consumeQueue(topic: topic, queueID: queueID) else { fatalError("\(topic) is gone") }
            let entry = store.entries(queue, from: place.queueOffset, maxCount: 1).first
            demand(entry?.physicalOffset == place.physicalOffset, "\(topic)-\(queueID) lost its newest message")
            let found = store.queryMessage(topic: topic, key: "F", maxCount: 9, begin: 0, end: .max)
            demand(
                found.records.contains { $0.start == place.physicalOffset }, "\(topic)-\(queueID): not found by its key"
            )
        }
    }

    /// By queue, by key, by time, by place.
    private static func readEverything(_ store: MessageStore) {
        var ranges: [LogRange] = []
        for queue in store.consumeQueues {
            var offset = queue.minOffset
            var steps = 0
            while offset < queue.maxOffset, steps < 3000 {
                steps += 1
                let answer = store.selectMessages(queue, from: offset, maxCount: 32, into: &ranges)
                for range in ranges { store.withBytes(range) { checkRecords($0, range.count) } }
                if answer.nextBeginOffset <= offset { break }
                offset = answer.nextBeginOffset
            }
            demand(offset >= queue.maxOffset || steps == 3000, "a consumer stands still at \(offset)")
            for boundary in [MessageStore.TimeBoundary.nearest, .lower, .upper] {
                let found = store.offset(
                    topic: queue.topic, queueID: queue.queueID, byTimestamp: time - 5000, boundary: boundary)
                demand(queue.isEmpty || (found >= queue.minOffset && found <= queue.maxOffset))
            }
        }
        for key in ["U7", "U80", "k3", "F"] {
            for range in store.queryMessage(topic: "T", key: key, maxCount: 32, begin: 0, end: .max).records {
                store.withBytes(range) { checkRecords($0, 1) }
            }
        }
        for offset in stride(from: Int64(0), to: min(store.writtenOffset.rawValue, 40_000), by: 37) {
            guard let range = store.lookMessage(at: PhysicalOffset(offset)) else { continue }
            store.withBytes(range) { checkRecords($0, 1) }
        }
        _ = store.earliestMessageTime
    }

    /// Whole records whose bodies have the CRC they say, by this file's own reading of the format.
    private static func checkRecords(_ bytes: UnsafeRawBufferPointer, _ count: Int) {
        var position = 0
        func number(_ at: Int) -> Int {
            Int(Int32(bitPattern: (0..<4).reduce(UInt32(0)) { $0 << 8 | UInt32(bytes[position + at + $1]) }))
        }
        for _ in 0..<count {
            let total = number(0)
            demand(total >= 91 && position + total <= bytes.count, "what was delivered is no record")
            let flag = number(36)
            let at = 80 + (flag & 0x10 == 0 ? 0 : 12) + (flag & 0x20 == 0 ? 0 : 12) + 4
            let length = number(at)
            demand(length >= 0 && at + 4 + length <= total, "a delivered body does not lie in its record")
            let body = Array(bytes[(position + at + 4)..<(position + at + 4 + length)])
            demand(
                body.isEmpty || Int(crc32(body) & 0x7FFF_FFFF) == number(8), "a body was delivered whose CRC is wrong")
            position += total
        }
        demand(position == bytes.count, "more was delivered than the records")
    }

    private static let table: [UInt32] = (0..<256).map { start in
        (0..<8).reduce(UInt32(start)) { value, _ in value & 1 == 0 ? value >> 1 : value >> 1 ^ 0xEDB8_8320 }
    }

    private static func crc32(_ bytes: [UInt8]) -> UInt32 {
        ~bytes.reduce(~UInt32(0)) { $0 >> 8 ^ table[Int(UInt8(truncatingIfNeeded: $0) ^ $1)] }
    }

    /// A slave whose master sends anything.
    private static func replicate(_ bytes: UnsafeRawBufferPointer, _ configuration: StoreConfiguration) {
        var configuration = configuration
        configuration.isSlave = true
        let disk = FuzzDisk(files: [:])
        let slave = store(configuration, disk, boot: 1)
        do {
            try slave.open()
            // Behind good records of the base, so that they are met in the middle of a log.
            let log = bases[0].files.first { $0.path.hasSuffix("commitlog/00000000000000000000") }?.bytes ?? []
            var position = 0
            let good = Int(bytes[1]) * 16
            for piece in [Array(log.prefix(good)), Array(bytes.dropFirst(2))] {
                let outcome = piece.withUnsafeBytes { slave.appendReplicated(at: PhysicalOffset(Int64(position)), $0) }
                guard case .appended(let next) = outcome else { return }
                position = Int(next.rawValue)
                try slave.commitTick()
            }
            readEverything(slave)
            maintain(slave, seconds: 2)
            try slave.close()
        } catch {
            fatalError("a slave failed on its master's bytes: \(error)")
        }
        exercise(disk, configuration, 1)
    }
}
