import FastJSON
package import LinuxSystem
import MessageModel
import MessageStore
import MetadataStore
import RemotingProtocol
import StoreFormat

/// Reads the directory of a store no broker has open, of RocketMQ 4.x or 5.x or of Apus, and changes nothing in it.
///
/// It reads tables, the ends of queues, the messages that wait for a time or an outcome, and the log's newest records.
/// It does not read the whole log.
package struct StoreSurvey {
    /// Why a directory cannot be looked at.
    package enum Refusal: Error, CustomStringConvertible {
        /// Nothing there is a store's; the text states what to name instead, if that can be seen.
        case noStore(String)
        /// A broker has it open.
        case inUse(folder: String, holder: FileLock.Holder)
        /// Something in it cannot be read.
        case unreadable(SystemError)

        package var description: String {
            switch self {
            case .noStore(let text): text
            case .inUse(let folder, let holder):
                "\(folder) is open: \(Self.shown(holder)) holds its lock; a broker writes there all the time, so stop "
                    + "it in order first: \(Self.remedy(holder))"
            case .unreadable(let error): "\(error)"
            }
        }

        private static func shown(_ holder: FileLock.Holder) -> String {
            guard let pid = holder.pid else { return "a process of another user (root sees which)" }
            return "process \(pid)" + (holder.program.map { " (\($0))" } ?? "")
        }

        private static func remedy(_ holder: FileLock.Holder) -> String {
            switch holder.program {
            case .some("java"): "mqshutdown broker"
            case .some(let name) where name.hasPrefix("apus"): "systemctl stop apus, or apus down"
            default: "systemctl stop apus, apus down, or mqshutdown broker"
            }
        }
    }

    let configuration: StoreConfiguration
    let disk: any Disk
    let log: LogFolder
    var report: StoreReport
    /// Offsets by topic, then group; system groups are among them.
    var offsets: [String: [String: [Int32: Int64]]] = [:]
    /// How far the delay levels' queues were delivered, by queue.
    var delayed: [Int32: Int64] = [:]

    private var folder: String { configuration.storePathRootDir }

    /// - Parameters:
    ///   - folder: the store's directory (`storePathRootDir`).
    ///   - commitLog: where its log lies, when that is not `commitlog` in it (`storePathCommitLog`).
    /// - Throws: `noStore`, `inUse` when a process holds the lock before or after, `unreadable` with the file.
    package static func read(
        _ folder: String, commitLog: String? = nil, disk: any Disk = RealDisk()
    ) throws(Refusal) -> StoreReport {
        var folder = folder
        while folder.count > 1, folder.hasSuffix("/") { folder.removeLast() }
        var configuration = StoreConfiguration(storePathRootDir: folder)
        configuration.storePathCommitLog = commitLog
        if let text = try readable({ () throws(SystemError) in try missing(configuration, disk) }) {
            throw .noStore(text)
        }
        if let holder = try lockHolder(folder) { throw .inUse(folder: folder, holder: holder) }
        let report = try readable { () throws(SystemError) in
            var survey = try StoreSurvey(configuration, disk)
            try survey.readAll()
            return survey.report
        }
        // Nor may one have been started meanwhile.
        if let holder = try lockHolder(folder) { throw .inUse(folder: folder, holder: holder) }
        return report
    }

    private static func lockHolder(_ folder: String) throws(Refusal) -> FileLock.Holder? {
        try readable { () throws(SystemError) in try FileLock.holder(of: folder + "/lock") }
    }

    private static func readable<R>(_ read: () throws(SystemError) -> R) throws(Refusal) -> R {
        do throws(SystemError) {
            return try read()
        } catch {
            throw .unreadable(error)
        }
    }

    private init(_ configuration: StoreConfiguration, _ disk: any Disk) throws(SystemError) {
        self.configuration = configuration
        self.disk = disk
        log = try LogFolder(configuration.commitLogPath, disk)
        report = StoreReport(folder: configuration.storePathRootDir, log: StoreReport.Log(folder: log.path))
    }

    /// Why there is nothing to read; nil when there is.
    private static func missing(_ configuration: StoreConfiguration, _ disk: any Disk) throws(SystemError) -> String? {
        let folder = configuration.storePathRootDir
        guard let information = try disk.information(folder) else { return "there is no folder \(folder)" }
        guard information.isDirectory else { return "\(folder) is a file: name the store's folder (storePathRootDir)" }
        if let log = configuration.storePathCommitLog, try disk.information(log)?.isDirectory != true {
            return "there is no folder \(log): name the one of the commit log (storePathCommitLog)"
        }
        if try isStore(folder, disk) { return nil }
        if try isStore(folder + "/store", disk) {
            return "\(folder) is no store, but \(folder)/store is one: name that"
        }
        return
            "\(folder) is no store of RocketMQ or Apus: it has neither commitlog nor consumequeue nor "
            + "config/topics.json; name the folder of storePathRootDir"
    }

    private static func isStore(_ folder: String, _ disk: any Disk) throws(SystemError) -> Bool {
        for part in ["commitlog", "consumequeue"] {
            if try disk.information("\(folder)/\(part)")?.isDirectory == true { return true }
        }
        if try disk.information(folder + "/config/topics.json") != nil { return true }
        return try disk.list(folder).contains { $0.hasPrefix("dledger-") }
    }

    private mutating func readAll() throws(SystemError) {
        try readQueues()
        try readLog()
        try readTables()
        try readWriter()
        try readDelays()
        try readTimers()
        try readTransactions()
        try readEdits()
        try readForeignParts()
        try readOwnFiles()
        report.brokerName = try brokerName()
    }

    /// A mark that cannot be read is its disk's affair.
    private func brokerName() throws(SystemError) -> String? {
        guard let slash = folder.lastIndex(of: "/"), slash > folder.startIndex else { return nil }
        return try? DiskMark.read(in: String(folder[..<slash]))?.brokerName
    }

    // MARK: - Log and queues

    private mutating func readQueues() throws(SystemError) {
        let root = configuration.consumeQueuePath
        var topics: [StoreReport.Topic] = []
        var sizes: [Int64: Int] = [:]
        var found: [(name: String, size: Int64, isDamaged: Bool)] = []
        for topic in try disk.list(root).sorted() where !topic.hasPrefix(".") {
            var queues: [StoreReport.Queue] = []
            for name in try disk.list("\(root)/\(topic)") {
                guard let queueID = Int32(name), queueID >= 0,
                    var queue = try QueueFolder("\(root)/\(topic)/\(name)", disk)
                else { continue }
                sizes[queue.fileSize, default: 0] += 1
                found.append(("\(topic)/\(name)", queue.fileSize, queue.isDamaged))
                let end = try queue.end()
                let last = try queue.entry(end - 1).flatMap { $0 == .preBlank ? nil : $0 }
                queues.append(
                    StoreReport.Queue(
                        topic: topic, queueID: queueID, first: try queue.first(in: log.first, end: end), end: end,
                        logEnd: last.map { $0.physicalOffset.rawValue +| Int64($0.recordSize) } ?? 0))
            }
            queues.sort { $0.queueID < $1.queueID }
            if !queues.isEmpty { topics.append(StoreReport.Topic(name: topic, queues: queues, isKnown: false)) }
        }
        report.topics = topics
        report.queueFileSize = sizes.max { ($0.value, $0.key) < ($1.value, $1.key) }?.key ?? 0
        report.damagedQueues = found.filter { $0.isDamaged || $0.size != report.queueFileSize }.map(\.name)
    }

    private mutating func readLog() throws(SystemError) {
        report.log.files = log.bases.count
        report.log.fileSize = log.fileSize
        report.log.first = log.first
        report.log.damage = log.damage
        report.log.emptyBeside = try EmptyLogEvidence(configuration: configuration, disk: disk).find()
        let ends = report.topics.flatMap(\.queues).map(\.logEnd)
        let known = ends.max() ?? 0
        var newest: Int64 = 0
        var unqueued: Int64 = 0
        var found = false
        let start = try log.beginning(newest: try newestRecord(endingAt: known))
        let walked = try log.walk(from: start) { record in
            found = true
            newest = max(newest, record.storeTimestamp)
            if record.physicalOffset.rawValue >= known, SysFlag.entersConsumeQueue(record.sysFlag) { unqueued += 1 }
        }
        report.log.end = walked.end
        report.log.newestMilliseconds = newest
        report.log.unqueued = unqueued
        report.log.isEmpty = !found
        if let damage = walked.damage {
            report.log.damage.append("it ends at \(walked.end) because \(damage)")
        }
    }

    /// Where the record begins that the newest queue entry points at; -1 for none.
    private func newestRecord(endingAt end: Int64) throws(SystemError) -> Int64 {
        for queue in report.topics.flatMap(\.queues) where queue.logEnd == end && end > 0 {
            let path = "\(configuration.consumeQueuePath)/\(queue.topic)/\(queue.queueID)"
            guard var folder = try QueueFolder(path, disk) else { continue }
            return try folder.entry(queue.end - 1)?.physicalOffset.rawValue ?? -1
        }
        return -1
    }

    // MARK: - The broker that wrote it

    private mutating func readWriter() throws(SystemError) {
        let marks = try StoreMarks(configuration, disk: disk)
        report.isClean = marks.abort == .none
        var ours = marks.abort == .apus
        var sign = ours ? "the file abort is Apus's" : ""
        if marks.abort == .none, let noted = marks.notedEnd {
            ours = noted == report.log.end
            sign = ours ? "its recovery point has the log's end" : "the log goes on behind Apus's recovery point"
            // The one that runs without storing a message writes its tables all the same.
            for name in ["consumerOffset.json", "topics.json"] where ours {
                let table = MetadataFile(path: "\(configuration.configPath)/\(name)", disk: disk)
                guard try table.isOurs() == false else { continue }
                ours = false
                sign = "Apus wrote the log, and \(name) is another's"
            }
        }
        if ours {
            report.writer = .apus
        } else if report.log.isEmpty, report.topics.isEmpty, marks.notedEnd == nil, marks.abort == .none {
            report.writer = .noBroker
            sign = "there is no message and no queue"
        } else {
            let isFive = try isFive()
            report.writer = isFive.answer ? .rocketMQ5 : .rocketMQ4
            sign += (sign.isEmpty ? "" : "; ") + isFive.sign
        }
        report.writerSign = sign
    }

    /// RocketMQ 5 gives its tables' versions a member 4.x does not know.
    private func isFive() throws(SystemError) -> (answer: Bool, sign: String) {
        for name in ["consumerOffset.json", "topics.json"] {
            guard let version = try json(name)?["dataVersion"] else { continue }
            let has = version["stateVersion"] != nil
            return (has, "\(name) \(has ? "has" : "has no") stateVersion")
        }
        let has = try disk.information(configuration.configPath + "/timercheck") != nil
        return (has, "there is \(has ? "a" : "no") config/timercheck")
    }

    /// A file below config that is no table of Apus's; nil when there is none, or no JSON.
    func json(_ name: String) throws(SystemError) -> JSONValue? {
        let path = "\(configuration.configPath)/\(name)"
        let limits = JSONReader.Limits.tables
        guard let size = try disk.information(path)?.size, size > 0, size <= Int64(limits.bytes) else { return nil }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(size), alignment: 8)
        defer { buffer.deallocate() }
        let count = try disk.open(path, .read).read(into: buffer, at: 0)
        return try? JSONValue(parsing: UnsafeRawBufferPointer(rebasing: buffer[0..<count]), limits: limits)
    }
}
