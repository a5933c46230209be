import Glibc
import LinuxSystem
import MessageModel
import StoreFormat

/// What a slice of the check found.
struct LogCheckFindings: Sendable {
    /// Where the next slice begins.
    var next: PhysicalOffset
    var records = 0
    /// The first of them, and how many there were.
    var damages: [(offset: PhysicalOffset, damage: CommitLogDamage)] = []
    var damagedCount = 0
    /// Queue entries that contradict the log. Many may belong to deleted topics, which only the owner knows: none is
    /// left out.
    var wrongEntries: [WrongEntry] = []
    /// Newer versions of messages, and deletions, whether or not the owner knows them.
    var edits: [Edit] = []
    /// Records some key of which is not in the index.
    var unindexedCount = 0
    var firstUnindexed: PhysicalOffset?
    /// Reading failed; the slice is tried again.
    var failure: SystemError?

    static let keptMax = 100
    /// A slice with more than these ends after the buffer it is in, so that the owner's part of it stays short.
    static let wrongEntriesMax = 100
    /// The same for edits.
    static let editsMax = 256

    /// A version as it lies in the log.
    struct Edit: Sendable {
        var topic: [UInt8]
        var queueID: Int32
        var offset: QueueOffset
        var version: QueueEdits.Version
        var replaced: PhysicalOffset
    }

    /// A queue's entry as the log wants it.
    struct WrongEntry: Sendable {
        var topic: String
        var queueID: Int32
        var queueOffset: QueueOffset
        var entry: ConsumeQueueEntry
    }
}

/// Walks over the part of the log a start has trusted, on the `check` thread. It compares records with their CRC, their
/// checksum and their offset, and queue entries and index with the records. It only reads, through handles of its own
/// for queues and index. What it finds is checked again by the owner.
///
/// Used by one job at a time (`MessageStoreCheck`), so nothing here is locked.
final class LogCheck: @unchecked Sendable {
    private let disk: any Disk
    private let fileSize: Int64
    private let queueDirectory: String
    private let entriesPerFile: Int64
    private let recordCheck: RecordCheck
    private let checksums: RecordChecksumReader?
    private let walk: LogWalk
    private var index: IndexCursor?
    private var blocks: [Block?]

    /// A range of a queue's file, as read.
    private struct Block {
        var topic: [UInt8]
        var queueID: Int32
        /// The entries `start ..< end` were asked for; those that are not there are missing from `entries`.
        var start: QueueOffset
        var end: QueueOffset
        var entries: [ConsumeQueueEntry]
    }

    /// Entries read at once: one block of the disk.
    private static let blockEntries: Int64 = 204

    /// - Parameters:
    ///   - checksums: the check's own reader; nil when there are none.
    ///   - index: the index files as they are when the check begins, oldest first; nil when there is no index.
    init(
        disk: any Disk, fileSize: Int64, queueDirectory: String, entriesPerFile: Int, recordCheck: RecordCheck,
        checksums: RecordChecksumReader?,
        index: (layout: IndexLayout, files: [(file: any DiskFile, count: Int32)])?
    ) {
        self.disk = disk
        self.fileSize = fileSize
        self.checksums = checksums
        walk = LogWalk(fileSize: fileSize)
        self.queueDirectory = queueDirectory
        self.entriesPerFile = Int64(entriesPerFile)
        self.recordCheck = recordCheck
        self.index = index.map { IndexCursor(layout: $0.layout, files: $0.files) }
        blocks = Array(repeating: nil, count: 256)
    }

    /// Looks at the log from `start`, which is the beginning of a record, to `end` or until `budget` bytes are done.
    /// - Parameter files: all log files, in order.
    func run(
        from start: PhysicalOffset, to end: PhysicalOffset, budget: Int64,
        files: [(base: PhysicalOffset, file: any DiskFile)]
    ) -> LogCheckFindings {
        var findings = LogCheckFindings(next: start)
        do throws(SystemError) {
            while findings.next < end, findings.next - start < budget,
                findings.wrongEntries.count <= LogCheckFindings.wrongEntriesMax,
                findings.edits.count <= LogCheckFindings.editsMax
            {
                guard try step(&findings, end: end, files) else { break }
            }
        } catch {
            findings.failure = error
        }
        return findings
    }

    /// One buffer's worth; false when the log file was deleted. What fails is done again from its beginning, and counts
    /// nothing twice.
    private func step(
        _ findings: inout LogCheckFindings, end: PhysicalOffset, _ files: [(base: PhysicalOffset, file: any DiskFile)]
    ) throws(SystemError) -> Bool {
        let (before, indexBefore) = (findings, index)
        do throws(SystemError) {
            return try walkOn(&findings, end: end, files)
        } catch {
            (findings, index) = (before, indexBefore)
            throw error
        }
    }

    private func walkOn(
        _ findings: inout LogCheckFindings, end: PhysicalOffset, _ files: [(base: PhysicalOffset, file: any DiskFile)]
    ) throws(SystemError) -> Bool {
        let next = try walk.step(from: findings.next, to: end, files) { found throws(SystemError) in
            switch found {
            case .record(let record):
                findings.records += 1
                var damage = record.damage(by: recordCheck)
                if damage == nil { damage = try checksums?.damage(of: record) }
                if let damage {
                    note(damage, at: record.physicalOffset, &findings)
                } else {
                    try compare(record, &findings, files)
                }
            case .damage(let damage, let offset): note(damage, at: offset, &findings)
            }
        }
        guard let next else { return false }
        findings.next = next
        return true
    }

    private func note(_ damage: CommitLogDamage, at offset: PhysicalOffset, _ findings: inout LogCheckFindings) {
        // One damage may be met in several parts.
        findings.damagedCount += 1
        if findings.damages.count < LogCheckFindings.keptMax { findings.damages.append((offset, damage)) }
    }

    // MARK: - Queues and index

    private func compare(
        _ record: CommitLogRecordView, _ findings: inout LogCheckFindings,
        _ files: [(base: PhysicalOffset, file: any DiskFile)]
    ) throws(SystemError) {
        if SysFlag.entersConsumeQueue(record.sysFlag), record.queueID >= 0, TopicName.canExist(record.topic) {
            try compareQueue(record, &findings, files)
        }
        let deletes = record.deletesMessage
        if let deletes {
            findings.edits.append(
                LogCheckFindings.Edit(
                    topic: Array(record.topic), queueID: record.queueID, offset: record.queueOffset,
                    version: QueueEdits.Version(
                        physicalOffset: record.physicalOffset, recordSize: Int32(truncatingIfNeeded: record.totalSize),
                        tagsCode: Self.tagsCode(record), isDeleted: deletes),
                    replaced: PhysicalOffset(record.preparedTransactionOffset)))
        }
        // As `dispatch` does it.
        guard var cursor = index,
            deletes != nil || SysFlag.transactionValue(record.sysFlag) != SysFlag.transactionRollbackType
        else { return }
        let isIndexed = try cursor.holdsKeys(of: record)
        index = cursor
        if !isIndexed {
            findings.unindexedCount += 1
            if findings.firstUnindexed == nil { findings.firstUnindexed = record.physicalOffset }
        }
    }

    private func compareQueue(
        _ record: CommitLogRecordView, _ findings: inout LogCheckFindings,
        _ files: [(base: PhysicalOffset, file: any DiskFile)]
    ) throws(SystemError) {
        // What is in no queue because of its offset was reported when it was dispatched.
        guard (0..<ConsumeQueueEntry.queueOffsetLimit).contains(record.queueOffset.rawValue) else { return }
        let found = try entry(record.topic, record.queueID, record.queueOffset)
        let isSchedule = record.topic.elementsEqual(TopicName.schedule.text.utf8)
        if let found, found.physicalOffset == record.physicalOffset, Int(found.recordSize) == record.totalSize {
            // Delay levels may have other times by now; codes that small are addresses in RocketMQ's extension files.
            if isSchedule || found.tagsCode <= Int64(Int32.min) - 1 || found.tagsCode == Self.tagsCode(record) {
                return
            }
        } else if let found, found.physicalOffset > record.physicalOffset,
            try isRecord(found.physicalOffset, of: record, files)
        {
            // The topic was deleted and made again: the queue offset belongs to a newer message.
            return
        }
        let code = isSchedule ? found?.tagsCode ?? 0 : Self.tagsCode(record)
        findings.wrongEntries.append(
            LogCheckFindings.WrongEntry(
                topic: String(decoding: record.topic, as: UTF8.self), queueID: record.queueID,
                queueOffset: record.queueOffset,
                entry: ConsumeQueueEntry(
                    physicalOffset: record.physicalOffset, recordSize: Int32(truncatingIfNeeded: record.totalSize),
                    tagsCode: code)))
    }

    private static func tagsCode(_ record: CommitLogRecordView) -> Int64 {
        record.property(PropertyName.tags).map { TagsCode.of($0) } ?? 0
    }

    /// Whether a whole record lies at `offset` that has the same offset in the same queue.
    private func isRecord(
        _ offset: PhysicalOffset, of other: CommitLogRecordView, _ files: [(base: PhysicalOffset, file: any DiskFile)]
    ) throws(SystemError) -> Bool {
        guard let (base, file) = walk.file(at: offset, files) else { return false }
        var size = 1024
        while true {
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 16)
            defer { bytes.deallocate() }
            let got = try file.read(into: bytes, at: offset - base)
            let parsed = CommitLogRecord.parse(
                UnsafeRawBufferPointer(rebasing: bytes[0..<got]), maximumSize: Int(base + fileSize - offset))
            switch parsed {
            case .record(let record):
                return record.physicalOffset == offset && record.queueID == other.queueID
                    && record.queueOffset == other.queueOffset && MessageProperties.equal(record.topic, other.topic)
            case .incomplete(let needed) where needed > size: size = needed
            case .incomplete, .blank, .invalid: return false
            }
        }
    }

    private func entry(_ topic: UnsafeRawBufferPointer, _ queueID: Int32, _ offset: QueueOffset) throws(SystemError)
        -> ConsumeQueueEntry?
    {
        var hash = UInt32(bitPattern: JavaHash.hash(topic, continuing: queueID))
        hash ^= hash >> 16
        let slot = Int(hash % UInt32(blocks.count))
        if let block = blocks[slot], block.queueID == queueID, offset >= block.start,
            offset < block.end, topic.elementsEqual(block.topic)
        {
            let index = Int(offset - block.start)
            return index < block.entries.count ? block.entries[index] : nil
        }
        let block = try read(topic, queueID, from: offset)
        blocks[slot] = block
        return block.entries.first
    }

    private func read(_ topic: UnsafeRawBufferPointer, _ queueID: Int32, from start: QueueOffset) throws(SystemError)
        -> Block
    {
        let size = ConsumeQueueEntry.size
        let offset = start.rawValue
        let name = String(decoding: topic, as: UTF8.self)
        let number = offset / entriesPerFile
        let path =
            "\(queueDirectory)/\(name)/\(queueID)/"
            + StoreFileName.of(offset: number * entriesPerFile * Int64(size))
        let count = Int(min(Self.blockEntries, (number + 1) * entriesPerFile - offset))
        var block = Block(
            topic: Array(topic), queueID: queueID, start: start, end: start + count, entries: [])
        let file: any DiskFile
        do throws(SystemError) {
            file = try disk.open(path, .read)
        } catch {
            // Never written, or moved away a moment ago with its topic: the owner of the queues knows.
            guard error.errno == ENOENT else { throw error }
            return block
        }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count * size, alignment: 8)
        defer { bytes.deallocate() }
        let got = try file.read(into: bytes, at: (offset - number * entriesPerFile) * Int64(size))
        guard let base = bytes.baseAddress else { return block }
        for place in 0..<(got / size) { block.entries.append(ConsumeQueueEntry(base + place * size)) }
        return block
    }
}

/// Reads the index files' entries in their order, which is that of the log, beside the records.
private struct IndexCursor {
    private let layout: IndexLayout
    private let files: [(file: any DiskFile, count: Int32)]
    private var fileNumber = 0
    private var entryNumber = 1
    private var chunk: [IndexEntry] = []
    private var chunkPosition = 0
    /// The index begins here: older records' files were deleted.
    private var begin: PhysicalOffset?

    init(layout: IndexLayout, files: [(file: any DiskFile, count: Int32)]) {
        self.layout = layout
        self.files = files
    }

    private mutating func peek() throws(SystemError) -> IndexEntry? {
        if chunkPosition < chunk.count { return chunk[chunkPosition] }
        chunk.removeAll(keepingCapacity: true)
        chunkPosition = 0
        while fileNumber < files.count {
            let (file, total) = files[fileNumber]
            let count = min(3000, Int(total) - entryNumber)
            guard count > 0 else {
                fileNumber += 1
                entryNumber = 1
                continue
            }
            let bytes = UnsafeMutableRawBufferPointer.allocate(
                byteCount: count * IndexLayout.entrySize, alignment: 8)
            defer { bytes.deallocate() }
            let got = try file.read(into: bytes, at: layout.entryPosition(entryNumber))
            guard let base = bytes.baseAddress, got >= IndexLayout.entrySize else {
                fileNumber += 1
                entryNumber = 1
                continue
            }
            for place in 0..<(got / IndexLayout.entrySize) {
                chunk.append(IndexEntry(UnsafeRawPointer(base) + place * IndexLayout.entrySize))
            }
            entryNumber += chunk.count
            return chunk.first
        }
        return nil
    }

    /// Whether all keys of the record are in the index, or the record is older than the index.
    mutating func holdsKeys(of record: CommitLogRecordView) throws(SystemError) -> Bool {
        let offset = record.physicalOffset
        if begin == nil { begin = try peek()?.physicalOffset ?? .max }
        var hashes: [Int32] = []
        while let entry = try peek(), entry.physicalOffset <= offset {
            if entry.physicalOffset == offset { hashes.append(entry.keyHash) }
            chunkPosition += 1
        }
        guard offset >= begin ?? .max else { return true }
        let prefix = JavaHash.hash(record.topic, continuing: 0) &* 31 &+ 35
        func isThere(_ key: UnsafeRawBufferPointer) -> Bool {
            hashes.contains(IndexLayout.keyHash(JavaHash.hash(key, continuing: prefix)))
        }
        if let unique = record.property(PropertyName.uniqueKey), !isThere(unique) { return false }
        var all = true
        if let keys = record.property(PropertyName.keys) {
            MessageProperties.forEachKey(in: keys) { key in
                if !isThere(key) { all = false }
            }
        }
        return all
    }
}
