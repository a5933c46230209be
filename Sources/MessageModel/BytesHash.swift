/// Hashes names that clients choose. The seed is random for each value, so that no client can make names that collide.
/// A few nanoseconds for a topic; not for anything that is stored.
///
/// Public although only this package uses it: hash tables call it for each message, and it is to be inlined there.
public struct BytesHash: Sendable {
    @usableFromInline let seed: UInt64

    /// With a seed of its own.
    public init() {
        seed = UInt64.random(in: .min ... .max) | 1
    }

    /// Of `bytes` and a number, which need no alignment.
    @inlinable @inline(__always)
    public func hash(_ bytes: UnsafeRawBufferPointer, and number: UInt64 = 0) -> UInt64 {
        var state = seed ^ UInt64(truncatingIfNeeded: bytes.count) ^ number &* 0x9E37_79B9_7F4A_7C15
        var index = 0
        while index + 8 <= bytes.count {
            state = (state ^ bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)) &* 0xBF58_476D_1CE4_E5B9
            state ^= state >> 32
            index += 8
        }
        var rest: UInt64 = 0
        while index < bytes.count {
            rest = rest << 8 | UInt64(bytes[index])
            index += 1
        }
        state = (state ^ rest) &* 0x94D0_49BB_1331_11EB
        return state ^ state >> 31
    }
}
