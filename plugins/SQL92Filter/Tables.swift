internal import Glibc

/// Texts of up to seven bytes as one word each, which is compared at once.
enum ShortText {
    /// The bytes, the first one lowest, and their number in the highest byte; nil: none, or more than fit.
    /// - Parameter floor: what may be read before the text begins there.
    @inline(__always)
    static func word(of text: Bytes, _ floor: UnsafePointer<UInt8>?) -> UInt64? {
        guard let start = text.baseAddress, let floor, text.count &- 1 < 7, text.count > 0 else { return nil }
        let count = text.count
        let bits = UInt64(truncatingIfNeeded: 8 &* count)
        let end = UnsafeRawPointer(start) + count
        guard end - 8 >= UnsafeRawPointer(floor) else { return slowWord(of: text) }
        let bytes = UInt64(littleEndian: (end - 8).loadUnaligned(as: UInt64.self)) &>> (64 &- bits)
        return bytes | UInt64(truncatingIfNeeded: count) &<< 56
    }

    @inline(never)
    private static func slowWord(of text: Bytes) -> UInt64 {
        var word = UInt64(text.count) << 56
        for (place, byte) in text.enumerated() { word |= UInt64(byte) << UInt64(8 * place) }
        return word
    }
}

/// The strings of an IN: an open-addressed hash table, at most half full.
struct StringSet {
    private let slots: UnsafeMutableBufferPointer<Bytes>
    /// All of them as words, when they are few and short; else empty.
    private let words: UnsafeMutableBufferPointer<UInt64>
    /// The length excludes most texts; hashing pays off with many strings only.
    private static let few = 8

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
        let words =
            strings.count <= Self.few
            ? strings.map { $0.withUnsafeBufferPointer { ShortText.word(of: $0, $0.baseAddress) } } : []
        self.words = .copy(words.contains(nil) ? [] : words.compactMap { $0 })
    }

    func deallocate() {
        for bytes in slots { bytes.deallocate() }
        slots.deallocate()
        words.deallocate()
    }

    /// - Parameter floor: what may be read before `value` begins there.
    @inline(__always)
    func contains(_ value: Bytes, _ floor: UnsafePointer<UInt8>?) -> Bool {
        guard words.count > 0 else { return contains(value) }
        guard let word = ShortText.word(of: value, floor) else { return false }
        for known in words where known == word { return true }
        return false
    }

    @inline(never)
    private func contains(_ value: Bytes) -> Bool {
        if slots.count <= 2 * Self.few {
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
