/// One entry of a consume queue file (`ConsumeQueue.CQ_STORE_UNIT_SIZE`):
///
///     +--------------------+-----------+--------------------+
///     | physical offset 8  | size 4    | tags code 8        |   big-endian
///     +--------------------+-----------+--------------------+
///
/// Public for the reason `BigEndian` is: entries are read by the thousand.
public struct ConsumeQueueEntry: Equatable, Sendable {
    /// Bytes of an entry.
    @inlinable public static var size: Int { 20 }
    /// Queue offsets lie below: 30 000 years of a million messages a second, and no position in a file overflows. What
    /// differs is damaged.
    package static let queueOffsetLimit: Int64 = 1 << 55

    /// Where the record begins in the commit log.
    public var physicalOffset: PhysicalOffset
    /// Bytes of the record in the commit log.
    public var recordSize: Int32
    /// `TagsCode` of the message's tag; in the schedule topic's queues the time it is due, milliseconds since 1970.
    public var tagsCode: Int64

    /// An entry of these fields.
    @inlinable
    public init(physicalOffset: PhysicalOffset, recordSize: Int32, tagsCode: Int64) {
        self.physicalOffset = physicalOffset
        self.recordSize = recordSize
        self.tagsCode = tagsCode
    }

    /// Reads `size` bytes; they need no alignment.
    @inlinable @inline(__always)
    public init(_ pointer: UnsafeRawPointer) {
        physicalOffset = PhysicalOffset(BigEndian.load(pointer, 0, as: Int64.self))
        recordSize = BigEndian.load(pointer, 8, as: Int32.self)
        tagsCode = BigEndian.load(pointer, 12, as: Int64.self)
    }

    /// Writes `size` bytes.
    @inlinable @inline(__always)
    public func encode(_ pointer: UnsafeMutableRawPointer) {
        BigEndian.store(physicalOffset.rawValue, pointer, 0)
        BigEndian.store(recordSize, pointer, 8)
        BigEndian.store(tagsCode, pointer, 12)
    }

    /// An entry that was never written holds zeros: no entry has size 0.
    public var isEmpty: Bool { recordSize <= 0 || physicalOffset.rawValue < 0 }

    /// What RocketMQ writes before the first entry of a queue that does not start at 0
    /// (`ConsumeQueue.fillPreBlank`): looks taken, points at nothing.
    package static let preBlank = ConsumeQueueEntry(
        physicalOffset: PhysicalOffset(0), recordSize: Int32.max, tagsCode: 0)

    /// What readers get for a deleted message; in no file. Points at nothing, and no tag has this code.
    package static let deleted = ConsumeQueueEntry(
        physicalOffset: PhysicalOffset(0), recordSize: Int32.max, tagsCode: Int64.min)
}
