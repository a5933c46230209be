import LinuxSystem
import MessageModel
import StoreFormat

/// Which records stand for edited messages: `consumequeue/.apus-edits`, replaced as a whole and synchronized before a
/// recovery point counts on it. Deleting the queues' folder deletes this file too, and all is built anew.
///
///     magic 8 | sequence 4 | covered 8 | queues 4
///     | per queue: topic length 2, topic, queue id 4, versions 4
///     |     | per version: queue offset 8, physical offset 8, size 4, tags code 8, deleted 1
///     | CRC-32 of all that 4                                             big-endian
struct EditFile {
    /// In the consume queues' folder, where RocketMQ looks at folders only.
    static let fileName = ".apus-edits"
    /// Sequences count modulo 2^24, and leave out 0 and `noFile`.
    static let sequenceMask: Int32 = 0xFF_FFFF
    /// In place of a sequence: there is no file, and the log has no edits. 0 is what a release writes that knows none.
    static let noFile: Int32 = 0xFF_FFFF
    private static let magic: UInt64 = 0x4150_5553_4544_5431  // "APUSEDT1"
    private static let headerSize = 24
    private static let versionSize = 29

    /// A version of one message, as it lies in the file.
    struct Row: Equatable {
        var offset: QueueOffset
        var version: QueueEdits.Version
    }

    /// The versions of one queue; of one message in the order of the log.
    struct Queue {
        var topic: [UInt8]
        var queueID: Int32
        var rows: [Row]
    }

    struct Table {
        var sequence: Int32
        /// All edits below are in the file.
        var covered: PhysicalOffset
        var queues: [Queue]
    }

    enum Loaded {
        case absent
        case damaged(reason: String)
        case table(Table)
    }

    let path: String
    let disk: any Disk

    /// Bytes at most: no file that was written has so many.
    var sizeMax = 64 << 20

    /// A file that cannot be read is as good as a damaged one: the log has everything.
    /// - Throws: it is not known whether there is one.
    func load() throws(SystemError) -> Loaded {
        guard try disk.information(path) != nil else { return .absent }
        do throws(SystemError) {
            return try read()
        } catch {
            return .damaged(reason: "\(path) cannot be read: \(error)")
        }
    }

    private func read() throws(SystemError) -> Loaded {
        let file = try disk.open(path, .read)
        let size = Int(clamping: try file.size())
        guard size <= sizeMax else { return .damaged(reason: "\(path) has \(size) bytes") }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(size, 1), alignment: 16)
        defer { buffer.deallocate() }
        let got = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[0..<size]), at: 0)
        let table = Self.decode(UnsafeRawBufferPointer(rebasing: buffer[0..<got]))
        return table.map { .table($0) } ?? .damaged(reason: "\(path) is not what was written to it")
    }

    /// Replaces the file. After a power cut either the old or the new one is there, whole.
    /// - Throws: the disk is full or fails; the old file is there then.
    func save(_ table: Table) throws(SystemError) {
        let bytes = Self.encode(table)
        let file = try disk.open(temporaryPath, .replace)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
        defer { buffer.deallocate() }
        buffer.copyBytes(from: bytes)
        try file.write(UnsafeRawBufferPointer(buffer), at: 0)
        try file.synchronize()
        try disk.rename(temporaryPath, to: path)
        try disk.synchronizeDirectory(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
    }

    private var temporaryPath: String { path + ".tmp" }

    /// What a kill has left of a write that did not come to its end.
    /// - Throws: the folder may not be changed.
    func removeLeftover() throws(SystemError) {
        if try disk.information(temporaryPath) != nil { try disk.remove(temporaryPath) }
    }

    /// - Throws: the folder may not be changed.
    func remove() throws(SystemError) { try disk.remove(path) }

    // MARK: - Layout

    static func encode(_ table: Table) -> [UInt8] {
        var bytes: [UInt8] = []
        func put(_ value: some FixedWidthInteger) {
            withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
        }
        bytes.reserveCapacity(headerSize + table.queues.reduce(4) { $0 + 64 + $1.rows.count * versionSize })
        put(magic)
        put(table.sequence)
        put(table.covered.rawValue)
        put(Int32(table.queues.count))
        for queue in table.queues {
            put(UInt16(queue.topic.count))
            bytes.append(contentsOf: queue.topic)
            put(queue.queueID)
            put(Int32(queue.rows.count))
            for row in queue.rows {
                put(row.offset.rawValue)
                put(row.version.physicalOffset.rawValue)
                put(row.version.recordSize)
                put(row.version.tagsCode)
                put(UInt8(row.version.isDeleted ? 1 : 0))
            }
        }
        put(bytes.withUnsafeBytes { CommitLogRecord.bodyCRC($0) })
        return bytes
    }

    /// Nil when the bytes are not what `encode` makes; whatever they are.
    static func decode(_ bytes: UnsafeRawBufferPointer) -> Table? {
        guard bytes.count >= headerSize + 4, let base = bytes.baseAddress,
            BigEndian.load(base, 0, as: UInt64.self) == magic,
            BigEndian.load(base, bytes.count - 4, as: Int32.self)
                == CommitLogRecord.bodyCRC(UnsafeRawBufferPointer(rebasing: bytes.dropLast(4)))
        else { return nil }
        var position = headerSize
        let end = bytes.count - 4
        func take<T: FixedWidthInteger>(_ type: T.Type) -> T? {
            guard end - position >= MemoryLayout<T>.size else { return nil }
            defer { position += MemoryLayout<T>.size }
            return BigEndian.load(base, position, as: T.self)
        }
        var table = Table(
            sequence: BigEndian.load(base, 8, as: Int32.self) & sequenceMask,
            covered: PhysicalOffset(BigEndian.load(base, 12, as: Int64.self)), queues: [])
        for _ in 0..<max(0, BigEndian.load(base, 20, as: Int32.self)) {
            guard let length = take(UInt16.self), Int(length) <= end - position else { return nil }
            let topic = Array(bytes[position..<position + Int(length)])
            position += Int(length)
            guard let queueID = take(Int32.self), let count = take(Int32.self), count >= 0,
                Int(count) <= (end - position) / versionSize
            else { return nil }
            var rows: [Row] = []
            rows.reserveCapacity(Int(count))
            for _ in 0..<count {
                guard let offset = take(Int64.self), let physical = take(Int64.self), let size = take(Int32.self),
                    let tagsCode = take(Int64.self), let deleted = take(UInt8.self), offset >= 0, physical >= 0,
                    size > 0, physical <= LogPosition.maximum.rawValue
                else { return nil }
                rows.append(
                    Row(
                        offset: QueueOffset(offset),
                        version: QueueEdits.Version(
                            physicalOffset: PhysicalOffset(physical), recordSize: size, tagsCode: tagsCode,
                            isDeleted: deleted != 0)))
            }
            table.queues.append(Queue(topic: topic, queueID: queueID, rows: rows))
        }
        return position == end ? table : nil
    }
}

/// Writes the file of edits, on the `writeBehind` thread.
final class EditsWork: JoinableWork, @unchecked Sendable {
    let file: EditFile
    let sequence: Int32
    /// Of `EditTotal.changes`, when this was made.
    let changes: Int64
    private let covered: PhysicalOffset
    private let queues: [(topic: String, queueID: Int32, blocks: QueueEdits.Blocks)]
    /// Read after `join`.
    private(set) var failure: SystemError?

    init(
        _ file: EditFile, sequence: Int32, changes: Int64, covered: PhysicalOffset,
        queues: [(topic: String, queueID: Int32, blocks: QueueEdits.Blocks)]
    ) {
        self.file = file
        self.sequence = sequence
        self.changes = changes
        self.covered = covered
        self.queues = queues
    }

    override func work() {
        let table = EditFile.Table(
            sequence: sequence, covered: covered,
            queues: queues.map { queue in
                EditFile.Queue(
                    topic: Array(queue.topic.utf8), queueID: queue.queueID,
                    rows: QueueEdits.messages(queue.blocks).flatMap { message in
                        (message.former + [message.present]).map { EditFile.Row(offset: message.offset, version: $0) }
                    })
            })
        do throws(SystemError) {
            try file.save(table)
        } catch {
            failure = error
        }
    }
}
