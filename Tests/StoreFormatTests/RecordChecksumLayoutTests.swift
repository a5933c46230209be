import StoreFormat
import Testing

@Suite struct RecordChecksumLayoutTests {
    @Test func eachRecordHasASlotOfItsOwn() {
        #expect(RecordChecksum.position(0) == 0 && RecordChecksum.position(63) == 0)
        #expect(RecordChecksum.position(64) == 4 && RecordChecksum.position(1 << 30) == 1 << 26)
        // The smallest record is larger than what shares a slot.
        #expect(Int64(CommitLogRecord.minimumSize) > RecordChecksum.stride)
    }

    /// 0 stands for none, so no checksum is 0: these four bytes have the CRC-32 0.
    @Test func noChecksumIsZero() {
        let bytes: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF]
        #expect(bytes.withUnsafeBytes { RecordChecksum.of($0) } == 0xFFFF_FFFF)
        let zero: [UInt8] = [0x9D, 0x0A, 0xD9, 0x6D]
        #expect(zero.withUnsafeBytes { RecordChecksum.of($0) } == 1)
        #expect([UInt8]("123456789".utf8).withUnsafeBytes { RecordChecksum.of($0) } == 0xCBF4_3926)
    }
}
