import CLinux
import CZlib
import Testing

/// zlib is the oracle; RocketMQ's is java.util.zip.CRC32, which is zlib's.
@Suite struct CRC32Tests {
    static let bytes: [UInt8] = {
        var state: UInt64 = 88_172_645_463_325_252
        return (0..<70_000).map { _ in
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return UInt8(truncatingIfNeeded: state)
        }
    }()

    /// Every short length at every alignment, then long ones around the folding widths.
    @Test func agreesWithZlib() {
        let lengths = Array(0...300) + [511, 512, 513, 1023, 1024, 1040, 4095, 4096, 65_535, 65_536]
        Self.bytes.withUnsafeBytes { bytes in
            for length in lengths {
                for offset in 0..<17 {
                    let at = bytes.baseAddress.map { $0 + offset }
                    let expected = UInt32(crc32(0, at?.assumingMemoryBound(to: UInt8.self), UInt32(length)))
                    #expect(apus_crc32(at, length) == expected, "\(length) bytes at \(offset)")
                    #expect(apus_crc32_portable(0, at, length) == expected)
                }
            }
        }
    }

    @Test func goesOnInPieces() {
        Self.bytes.withUnsafeBytes { bytes in
            let whole = apus_crc32(bytes.baseAddress, 5000)
            for cut in [0, 1, 15, 16, 63, 64, 100, 4999, 5000] {
                let first = apus_crc32(bytes.baseAddress, cut)
                #expect(apus_crc32_continue(first, bytes.baseAddress.map { $0 + cut }, 5000 - cut) == whole)
            }
        }
    }

    @Test func nothing() { #expect(apus_crc32(nil, 0) == 0) }
}
