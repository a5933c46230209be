import LinuxSystem
import StoreFormat
import WorkerProtocol

/// The segment `watermarks`: how far the log may be read by the workers that map it. This process is its only writer.
final class Watermarks {
    private let segment: SharedSegment
    private let replication: SharedSegment
    private let event: Int32

    /// - Parameter replication: the segment of that name, which has whether a slave waits for the log.
    init(segment: SharedSegment, replication: SharedSegment, event: Int32, fileSize: Int) {
        self.segment = segment
        self.replication = replication
        self.event = event
        // What an earlier process left is not true before the store is open again.
        segment.atomicStore(slot: WatermarkSlot.ready, 0)
        segment.atomicStore(slot: WatermarkSlot.magic, WatermarkSlot.magicValue)
        segment.atomicStore(slot: WatermarkSlot.fileSize, UInt64(fileSize))
        let generation = segment.atomicLoad(slot: WatermarkSlot.generation)
        segment.atomicStore(slot: WatermarkSlot.generation, generation + 1)
        EventFD.signal(event)
    }

    func open(written: PhysicalOffset, flushed: PhysicalOffset, minimum: PhysicalOffset) {
        publish(minimum: minimum)
        publish(flushed: flushed)
        set(WatermarkSlot.written, written)
        segment.atomicStore(slot: WatermarkSlot.ready, 1)
        EventFD.signal(event)
    }

    /// Once at the end of a tick that wrote. To wake a replication worker that has no slave would cost an eighth of a
    /// tick.
    func publish(written: PhysicalOffset) {
        set(WatermarkSlot.written, written)
        SharedSegment.fence()
        if replication.atomicLoad(slot: ReplicationSlot.connectedSlaves) > 0 { EventFD.signal(event) }
    }

    func publish(flushed: PhysicalOffset) { set(WatermarkSlot.flushed, flushed) }
    func publish(minimum: PhysicalOffset) { set(WatermarkSlot.minimum, minimum) }

    /// Connected slaves, and the physical offset the best of them has acknowledged: as the replication worker reports
    /// it.
    var slaves: (count: UInt64, ackOffset: Int64) {
        (
            replication.atomicLoad(slot: ReplicationSlot.connectedSlaves),
            Int64(bitPattern: replication.atomicLoad(slot: ReplicationSlot.slaveAckOffset))
        )
    }

    func close() {
        segment.atomicStore(slot: WatermarkSlot.ready, 0)
        EventFD.signal(event)
    }

    private func set(_ slot: Int, _ offset: PhysicalOffset) {
        // -1, "no file yet", reads as 0: nothing is kept below it either.
        segment.atomicStore(slot: slot, UInt64(max(0, offset.rawValue)))
    }
}
