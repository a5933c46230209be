import StoreFormat
import Testing

@Suite struct OffsetsTests {
    @Test func offsetsAreComparedAndMoved() {
        let physical = PhysicalOffset(1000)
        #expect(physical + 24 == PhysicalOffset(1024) && physical + Int64(24) == PhysicalOffset(1024))
        #expect(PhysicalOffset(1024) - physical == 24 && PhysicalOffset(1024) - Int64(24) == physical)
        #expect(physical < PhysicalOffset(1001) && PhysicalOffset(-1) < physical && physical.description == "1000")
        var entry = QueueOffset(5)
        entry += 3
        #expect(entry == QueueOffset(8) && entry - QueueOffset(5) == 3 && entry - Int64(8) == QueueOffset(0))
    }

    /// They cost what a number costs.
    @Test func offsetsAreNumbers() {
        #expect(MemoryLayout<PhysicalOffset>.size == 8 && MemoryLayout<QueueOffset>.size == 8)
        #expect(MemoryLayout<PhysicalOffset>.stride == 8 && MemoryLayout<QueueOffset>.stride == 8)
    }
}
