/// One entry of a consume queue file (`ConsumeQueue.CQ_STORE_UNIT_SIZE`):
///
///     +--------------------+-----------+--------------------+
///     | physical offset 8  | size 4    | tags code 8        |   big-endian
///     +--------------------+-----------+--------------------+
package struct ConsumeQueueEntry: Equatable, Sendable {
    /// Bytes of an entry.
    package static let size = 20
    /// Queue offsets lie below: 30 000 years of a million messages a second, and no position in a file overflows. What says otherwise
    /// is damaged.
    package static let queueOffsetLimit: Int64 = 1 << 55

    /// Where the record begins in the commit log.
    package var physicalOffset: PhysicalOffset
    /// Bytes of the record in the commit log.
    package var recordSize: Int32
    /// `TagsCode` of the message's tag; in the schedule topic's queues the time it is due, milliseconds since 1970.
    package var tagsCode: Int64

    @inlinable
    package init(physicalOffset: PhysicalOffset, recordSize: Int32, tagsCode: Int64) {
        self.physicalOffset = physicalOffset
        self.recordSize = recordSize
        self.tagsCode = tagsCode
    }

    /// Reads `size` bytes; they need no alignment.
    @inlinable @inline(__always)
    package init(_ pointer: UnsafeRawPointer) {
        physicalOffset = PhysicalOffset(BigEndian.load(pointer, 0, as: Int64.self))
        recordSize = BigEndian.load(pointer, 8, as: Int32.self)
        tagsCode = BigEndian.load(pointer, 12, as: Int64.self)
    }

    /// Writes `size` bytes.
    @inlinable @inline(__always)
    package func encode(_ pointer: UnsafeMutableRawPointer) {
        BigEndian.store(physicalOffset.rawValue, pointer, 0)
        BigEndian.store(recordSize, pointer, 8)
        BigEndian.store(tagsCode, pointer, 12)
    }

    /// A place that was never written holds zeros: no entry has size 0.
    package var isEmpty: Bool { recordSize <= 0 || physicalOffset.rawValue < 0 }

    /// What RocketMQ writes into the places before the first entry of a queue that does not start at 0
    /// (`ConsumeQueue.fillPreBlank`): looks taken, points at nothing.
    package static let preBlank = ConsumeQueueEntry(
        physicalOffset: PhysicalOffset(0), recordSize: Int32.max, tagsCode: 0)
}
