import Foundation

/// Judges a whole store directory by RocketMQ's rules (4.9.8: `CommitLog`, `ConsumeQueue`, `IndexFile`,
/// `StoreCheckpoint`), byte by byte, with a reader that shares no code with the broker: each file's name and size, each
/// record, each queue entry, each chain of the index, and that log, queues and index say the same.
package final class StoreJudge {
    /// The settings the store was made with, under RocketMQ's names.
    package struct Rules: Sendable {
        package var mappedFileSizeCommitLog: Int
        /// Of each consume queue file.
        package var mappedFileSizeConsumeQueue: Int
        package var maxHashSlotNum: Int
        package var maxIndexNum: Int
        /// Milliseconds per delay level, level 1 first.
        package var delayLevels: [Int]
        /// The store was closed in order: queues and index have everything, no `abort`.
        package var isClean = true
        /// Indexes were there from the log's beginning.
        package var isIndexed = true
        /// All was written with `enabledAppendPropCRC`.
        package var everyRecordHasChecksum = false
        /// All was written by Apus with `recordSumEnable`, and closed in order.
        package var everyRecordHasSum = false
        /// Queues that were deleted on purpose, as TOPIC/QUEUE.
        package var deletedQueues: Set<String> = []

        package init(log: Int, queue: Int, slots: Int, entries: Int) {
            mappedFileSizeCommitLog = log
            mappedFileSizeConsumeQueue = queue
            maxHashSlotNum = slots
            maxIndexNum = entries
            delayLevels =
                [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200].map {
                    $0 * 1000
                }
        }
    }

    package struct QueueName: Hashable, Sendable, CustomStringConvertible {
        package var topic: String
        package var queueID: Int

        package init(topic: String, queueID: Int) {
            self.topic = topic
            self.queueID = queueID
        }

        package var description: String { "\(topic)/\(queueID)" }
    }

    package struct QueueEntry: Equatable, Sendable {
        package var physicalOffset: Int
        package var size: Int
        package var tagsCode: Int
    }

    /// Relative paths and what the files hold.
    private let files: [String: [UInt8]]
    private let rules: Rules
    /// What RocketMQ would not accept; empty when all is well.
    package private(set) var problems: [String] = []
    /// All records, in the order of the log.
    package private(set) var records: [LogRecord] = []
    /// Ends of log files that were marked as unused.
    package private(set) var blanks = 0
    /// Where the log ends.
    package private(set) var logEnd = 0
    package private(set) var firstPhysicalOffset = 0
    package private(set) var queues: [QueueName: [Int: QueueEntry]] = [:]
    /// (hash, physical offset) of every index entry, in order.
    package private(set) var keys: [[Int]] = []

    package init(files: [String: [UInt8]], rules: Rules) {
        self.files = files
        self.rules = rules
    }

    /// Reads a directory.
    package convenience init(_ root: String, rules: Rules) throws {
        var files: [String: [UInt8]] = [:]
        for name in try FileManager.default.subpathsOfDirectory(atPath: root) {
            var isDirectory: ObjCBool = false
            let path = root + "/" + name
            guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), !isDirectory.boolValue else {
                continue
            }
            files[name] = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        }
        self.init(files: files, rules: rules)
    }

    /// Judges everything; the result is in the properties.
    @discardableResult
    package func judge() -> [String] {
        judgeLog()
        judgeQueues()
        judgeIndex()
        judgeSums()
        judgeSmallFiles()
        return problems
    }

    private func object(_ text: String) { problems.append(text) }

    private func names(in folder: String) -> [String] {
        Set(
            files.keys.filter { $0.hasPrefix(folder + "/") }.map {
                String($0.dropFirst(folder.count + 1).prefix { $0 != "/" })
            }
        ).sorted()
    }

    /// Whether all bytes of a file from a place on are zero.
    private func isZero(_ bytes: [UInt8], from start: Int) -> Bool {
        bytes.withUnsafeBytes { raw in raw[min(start, raw.count)...].allSatisfy { $0 == 0 } }
    }

    // MARK: - The log

    private func judgeLog() {
        let size = rules.mappedFileSizeCommitLog
        var expected: Int?
        var hasEnded = false
        for name in names(in: "commitlog") {
            let path = "commitlog/" + name
            guard name.count == 20, let base = Int(name), base % size == 0, let bytes = files[path] else {
                object("\(path) has no name of a log file")
                continue
            }
            if let expected, base != expected { object("\(path) follows a gap: \(expected) was next") }
            if expected == nil { firstPhysicalOffset = base }
            expected = base + size
            guard bytes.count == size else {
                object("\(path) has \(bytes.count) bytes instead of \(size)")
                continue
            }
            if hasEnded {
                if !isZero(bytes, from: 0) { object("\(path) holds something behind the log's end") }
            } else {
                hasEnded = judgeLogFile(path, base, bytes)
            }
        }
        if !hasEnded, let expected { logEnd = expected }
        judgeQueueOffsets()
    }

    /// True when the log ends inside the file.
    private func judgeLogFile(_ path: String, _ base: Int, _ bytes: [UInt8]) -> Bool {
        var position = 0
        while position + 8 <= bytes.count {
            let total = BigEndianNumber.read(bytes, position, 4)
            let magic = UInt32(truncatingIfNeeded: BigEndianNumber.read(bytes, position + 4, 4))
            if magic == LogRecord.blank {
                if position + total != bytes.count { object("\(path): the blank at \(position) does not end the file") }
                if !isZero(bytes, from: position + 8) { object("\(path): bytes in the blank at \(position)") }
                blanks += 1
                return false
            }
            if LogRecord.versions[magic] == nil {
                if !isZero(bytes, from: position) { object("\(path): no record at \(position), and no end either") }
                logEnd = base + position
                return true
            }
            do {
                let record = try LogRecord(bytes, at: position)
                if record.physicalOffset != base + position {
                    object("\(path): the record at \(position) says it lies at \(record.physicalOffset)")
                }
                if rules.everyRecordHasChecksum, !record.hasChecksum {
                    object("\(path): the record at \(position) has no checksum")
                }
                if record.topic.isEmpty { object("\(path): the record at \(position) has no topic") }
                records.append(record)
                position += record.size
                // A blank must always fit behind the last record (`END_FILE_MIN_BLANK_LENGTH`).
                if position + 8 > bytes.count {
                    object("\(path): the record before \(position) leaves no room for a blank")
                }
            } catch {
                object("\(path): \(error)")
                logEnd = base + position
                return true
            }
        }
        return false
    }

    /// Offsets of a queue follow one another without gap.
    private func judgeQueueOffsets() {
        var next: [QueueName: Int] = [:]
        for record in records {
            guard record.entersQueue else {
                if record.queueOffset != 0 {
                    object("the prepared message at \(record.physicalOffset) has queue offset \(record.queueOffset)")
                }
                continue
            }
            let name = QueueName(topic: record.topic, queueID: record.queueID)
            if let wanted = next[name], record.queueOffset != wanted, !rules.deletedQueues.contains(name.description) {
                object("\(name): \(record.queueOffset) follows \(wanted - 1) at \(record.physicalOffset)")
            }
            next[name] = record.queueOffset + 1
        }
    }

    // MARK: - Queues

    private func judgeQueues() {
        for topic in names(in: "consumequeue") where !topic.hasPrefix(".") {
            for name in names(in: "consumequeue/" + topic) {
                guard let queueID = Int(name) else {
                    object("consumequeue/\(topic)/\(name) is no queue")
                    continue
                }
                judgeQueueFiles(QueueName(topic: topic, queueID: queueID))
            }
        }
        guard rules.isClean else { return }
        for record in records where record.entersQueue {
            let name = QueueName(topic: record.topic, queueID: record.queueID)
            if rules.deletedQueues.contains(name.description) { continue }
            if queues[name]?[record.queueOffset]?.physicalOffset != record.physicalOffset {
                object("\(name) has no entry \(record.queueOffset) for the record at \(record.physicalOffset)")
            }
        }
    }

    private func judgeQueueFiles(_ name: QueueName) {
        let folder = "consumequeue/\(name)"
        let size = rules.mappedFileSizeConsumeQueue
        var found: [Int: QueueEntry] = [:]
        var expected: Int?
        var hasEnded = false
        for file in names(in: folder) {
            let path = folder + "/" + file
            guard file.count == 20, let base = Int(file), base % size == 0, let bytes = files[path] else {
                object("\(path) has no name of a queue file")
                continue
            }
            if let expected, expected != base { object("\(path) follows a gap") }
            expected = base + size
            if bytes.count != size { object("\(path) has \(bytes.count) bytes instead of \(size)") }
            if hasEnded, !isZero(bytes, from: 0) { object("\(path) holds something behind the queue's end") }
            for place in stride(from: 0, to: bytes.count - 19, by: 20) where !hasEnded {
                let entry = QueueEntry(
                    physicalOffset: BigEndianNumber.read(bytes, place, 8),
                    size: BigEndianNumber.read(bytes, place + 8, 4),
                    tagsCode: BigEndianNumber.read(bytes, place + 12, 8))
                if entry.size == 0 {
                    hasEnded = true
                    if !isZero(bytes, from: place) { object("\(path): a hole at \(place)") }
                } else if entry != QueueEntry(physicalOffset: 0, size: Int(Int32.max), tagsCode: 0) {
                    found[(base + place) / 20] = entry
                }
            }
        }
        queues[name] = found
        let byPlace = recordsByPlace
        for (offset, entry) in found {
            // What the log has deleted stays in the queue's file until the file goes.
            if entry.physicalOffset < firstPhysicalOffset { continue }
            guard let index = byPlace[entry.physicalOffset] else {
                object("\(name): entry \(offset) points at \(entry.physicalOffset), where no record lies")
                continue
            }
            judge(entry, offset, name, records[index])
        }
    }

    private lazy var recordsByPlace: [Int: Int] = Dictionary(
        records.enumerated().map { ($0.element.physicalOffset, $0.offset) }, uniquingKeysWith: { $1 })

    private func judge(_ entry: QueueEntry, _ offset: Int, _ name: QueueName, _ record: LogRecord) {
        if record.topic != name.topic || record.queueID != name.queueID || record.queueOffset != offset {
            object("\(name): entry \(offset) points at \(record.topic)/\(record.queueID) \(record.queueOffset)")
        }
        if record.size != entry.size {
            object("\(name): entry \(offset) says \(entry.size) bytes, it has \(record.size)")
        }
        if !record.entersQueue { object("\(name): entry \(offset) is a prepared message") }
        var tagsCode = JavaString.hash(record.property("TAGS") ?? "")
        if name.topic == "SCHEDULE_TOPIC_XXXX", let level = record.property("DELAY").flatMap({ Int($0) }), level > 0 {
            tagsCode = record.storeTime + rules.delayLevels[min(level, rules.delayLevels.count) - 1]
        }
        if entry.tagsCode != tagsCode {
            object("\(name): entry \(offset) has code \(entry.tagsCode), wanted \(tagsCode)")
        }
    }

    // MARK: - Sums

    /// Apus's own: what is there must be the CRC-32 of the record that begins in these 64 bytes.
    private func judgeSums() {
        let size = rules.mappedFileSizeCommitLog
        var wanted: [String: [Int: Int]] = [:]
        for record in records {
            let base = record.physicalOffset / size * size
            let path = "commitlog/" + String(repeating: "0", count: 20 - String(base).count) + String(base)
            let start = record.physicalOffset - base
            guard let bytes = files[path]?[start..<(start + record.size)] else { continue }
            let crc = Int(CRC32.of(Array(bytes)))
            wanted[path.replacing("commitlog", with: "recordsums"), default: [:]][start / 64] = crc == 0 ? 1 : crc
        }
        for (path, bytes) in files where path.hasPrefix("recordsums/") {
            for place in stride(from: 0, to: bytes.count - 3, by: 4) {
                let sum = BigEndianNumber.read(bytes, place, 4) & 0xFFFF_FFFF
                if sum != 0, wanted[path]?[place / 4] != sum {
                    object("\(path): place \(place / 4) has a sum of no record that lies there")
                }
            }
        }
        guard rules.everyRecordHasSum else { return }
        for (path, sums) in wanted {
            for place in sums.keys.sorted() {
                guard let bytes = files[path], place * 4 + 4 <= bytes.count,
                    BigEndianNumber.read(bytes, place * 4, 4) != 0
                else {
                    object("\(path): place \(place) lacks the sum of the record that lies there")
                    continue
                }
            }
        }
    }

    // MARK: - Index

    /// The hash an entry keeps: that of `topic#key` without its sign (`IndexFile.indexKeyHashMethod`).
    package static func indexHash(topic: String, key: String) -> Int {
        let hash = JavaString.hash(topic + "#" + key)
        return hash == Int(Int32.min) ? 0 : abs(hash)
    }

    /// (hash, physical offset) of every key of a record: the unique key, then the words of KEYS.
    private func wantedKeys(_ record: LogRecord) -> [[Int]] {
        if record.transaction == 12 { return [] }
        let words = (record.property("KEYS") ?? "").split(separator: " ").map(String.init)
        return ([record.property("UNIQ_KEY")].compactMap { $0 } + words).map {
            [Self.indexHash(topic: record.topic, key: $0), record.physicalOffset]
        }
    }

    private func judgeIndex() {
        let all = names(in: "index")
        for name in all {
            guard name.count == 17, Int(name) != nil, let bytes = files["index/" + name] else {
                object("index/\(name) has no name of an index file")
                continue
            }
            judgeIndexFile("index/" + name, bytes, isLast: name == all.last)
        }
        guard rules.isIndexed else { return }
        let wanted = records.flatMap(wantedKeys)
        let present = keys.filter { $0[1] >= firstPhysicalOffset }
        if rules.isClean ? present != wanted : !wanted.starts(with: present) {
            let at = zip(present, wanted).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? -1
            object("the index has \(present.count) keys, the log \(wanted.count); they differ first at \(at)")
        }
    }

    private func judgeIndexFile(_ path: String, _ bytes: [UInt8], isLast: Bool) {
        let slots = rules.maxHashSlotNum
        let start = 40 + 4 * slots
        guard bytes.count == start + 20 * rules.maxIndexNum else {
            return object("\(path) has \(bytes.count) bytes")
        }
        func number(_ position: Int, _ count: Int) -> Int { BigEndianNumber.read(bytes, position, count) }
        let beginTime = number(0, 8)
        let endTime = number(8, 8)
        let count = max(1, number(36, 4))
        if count > rules.maxIndexNum { return object("\(path): \(count) entries") }
        if !isLast, count < rules.maxIndexNum { object("\(path) is not full and not the newest") }
        var used = 0
        var reached = Set<Int>()
        for slot in 0..<slots {
            var entry = number(40 + 4 * slot, 4)
            if entry == 0 { continue }
            used += 1
            while entry != 0 {
                guard entry > 0, entry < count else {
                    // After a kill the header may lag behind the slots; RocketMQ ignores such entries.
                    if rules.isClean { object("\(path): slot \(slot) leads to entry \(entry) of \(count)") }
                    break
                }
                let at = start + 20 * entry
                if number(at, 4) % slots != slot { object("\(path): entry \(entry) is in the chain of slot \(slot)") }
                if !reached.insert(entry).inserted { object("\(path): entry \(entry) is in two chains") }
                let previous = number(at + 16, 4)
                if previous >= entry {
                    object("\(path): entry \(entry) is followed by \(previous), which is not older")
                    break
                }
                entry = previous
            }
        }
        if rules.isClean, number(32, 4) != used {
            object("\(path) counts \(number(32, 4)) used slots, there are \(used)")
        }
        if rules.isClean, reached.count != count - 1 {
            object("\(path): \(reached.count) of \(count - 1) entries are reachable")
        }
        let byPlace = recordsByPlace
        for entry in 1..<max(1, count) {
            let at = start + 20 * entry
            let physical = number(at + 4, 8)
            keys.append([number(at, 4), physical])
            if physical < firstPhysicalOffset { continue }
            guard let record = byPlace[physical].map({ records[$0] }) else {
                object("\(path): entry \(entry) points at \(physical), where no record lies")
                continue
            }
            let seconds = number(at + 12, 4)
            // The first entry of a follow-up file counts from the file before.
            if entry > 1, seconds != max(0, (record.storeTime - beginTime) / 1000) {
                object(
                    "\(path): entry \(entry) says \(seconds) s behind \(beginTime), it was stored at \(record.storeTime)"
                )
            }
            if entry == count - 1, rules.isClean, number(24, 8) != physical || endTime != record.storeTime {
                object("\(path): its header does not end with its last entry")
            }
            if entry == 1, number(16, 8) != physical || beginTime != record.storeTime {
                object("\(path): its header does not begin with its first entry")
            }
        }
        if rules.isClean, !isZero(bytes, from: start + 20 * count) {
            object("\(path): something behind its last entry")
        }
    }

    // MARK: - Small files

    private func judgeSmallFiles() {
        if rules.isClean, files["abort"] != nil { object("abort is there after a clean stop") }
        if !rules.isClean, files["abort"] == nil { object("abort is missing while the store is open") }
        if let lock = files["lock"], String(decoding: lock, as: UTF8.self) != "lock" {
            object("lock says something else")
        }
        guard let checkpoint = files["checkpoint"] else {
            if rules.isClean { object("there is no checkpoint") }
            return
        }
        guard checkpoint.count == 4096 else { return object("checkpoint has \(checkpoint.count) bytes") }
        if !isZero(checkpoint, from: 24) { object("checkpoint: bytes behind its three times") }
        let newest = records.map { $0.storeTime }.max() ?? 0
        for (place, what) in ["physicMsgTimestamp", "logicsMsgTimestamp", "indexMsgTimestamp"].enumerated() {
            let time = BigEndianNumber.read(checkpoint, 8 * place, 8)
            if time < 0 || time > newest {
                object("checkpoint: \(what) is \(time), the newest message is of \(newest)")
            }
        }
    }
}
