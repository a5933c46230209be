internal import Glibc

/// The strings of an IN: an open-addressed hash table, at most half full.
struct StringSet {
    private let slots: UnsafeMutableBufferPointer<Bytes>

    init(_ strings: [[UInt8]]) {
        var size = 4
        while size < strings.count * 2 { size *= 2 }
        slots = .copy([Bytes](repeating: Bytes(start: nil, count: 0), count: size))
        for string in strings {
            let copy = Bytes.copyBytes(string)
            var at = Self.hash(copy) & (size - 1)
            var known = false
            while slots[at].baseAddress != nil {
                if sameBytes(slots[at], copy) { known = true }
                at = (at + 1) & (size - 1)
            }
            if known { copy.deallocate() } else { slots[at] = copy }
        }
    }

    func deallocate() {
        for bytes in slots { bytes.deallocate() }
        slots.deallocate()
    }

    func contains(_ value: Bytes) -> Bool {
        // The length of most texts says no; hashing pays off with many strings only.
        if slots.count <= 16 {
            for slot in slots where sameBytes(slot, value) { return true }
            return false
        }
        let mask = slots.count - 1
        var at = Self.hash(value) & mask
        while slots[at].baseAddress != nil {
            if sameBytes(slots[at], value) { return true }
            at = (at + 1) & mask
        }
        return false
    }

    /// FNV-1a.
    private static func hash(_ bytes: Bytes) -> Int {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return Int(truncatingIfNeeded: hash ^ hash >> 32)
    }
}

extension UnsafeMutableBufferPointer {
    static func copy(_ elements: [Element]) -> Self {
        let buffer = Self.allocate(capacity: elements.count)
        _ = buffer.initialize(from: elements)
        return buffer
    }
}

extension Bytes {
    /// A copy that is never nil, so that an empty text differs from none.
    static func copyBytes(_ bytes: [UInt8]) -> Bytes {
        let start = UnsafeMutablePointer<UInt8>.allocate(capacity: Swift.max(bytes.count, 1))
        start.initialize(repeating: 0, count: Swift.max(bytes.count, 1))
        for (index, byte) in bytes.enumerated() { start[index] = byte }
        return Bytes(start: start, count: bytes.count)
    }
}
