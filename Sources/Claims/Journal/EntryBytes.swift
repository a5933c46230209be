/// Writes numbers as an entry's bytes.
struct EntryBytes {
    private(set) var bytes: [UInt8] = []

    var count: Int { bytes.count }
    var isEmpty: Bool { bytes.isEmpty }

    mutating func byte(_ value: UInt8) { bytes.append(value) }

    /// 7 bits a byte, the lowest first; the highest bit means that another follows. 1 to 10 bytes.
    mutating func number(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    mutating func number(_ value: UInt32) { number(UInt64(value)) }

    /// A number that may be negative, small ones short: the sign is bit 0.
    mutating func signed(_ value: Int64) { number(UInt64(bitPattern: (value << 1) ^ (value >> 63))) }

    /// The length, then the bytes.
    mutating func text(_ text: String) {
        number(UInt64(text.utf8.count))
        bytes.append(contentsOf: text.utf8)
    }

    /// The length, then the bytes.
    mutating func block(_ block: [UInt8]) {
        number(UInt64(block.count))
        bytes.append(contentsOf: block)
    }

    mutating func fixed32(_ value: UInt32) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func fixed64(_ value: Int64) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func append(_ other: EntryBytes) { bytes.append(contentsOf: other.bytes) }

    /// Keeps its memory for the next tick, unless it is very much.
    mutating func removeAll() { bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 20) }

    /// The checksum of the bytes from `start` to `end` goes to `position`.
    mutating func setChecksum(at position: Int, from start: Int, to end: Int) {
        let checksum = bytes.withUnsafeBytes {
            ClaimFile.checksum(UnsafeRawBufferPointer(rebasing: $0[start..<end]))
        }
        withUnsafeBytes(of: checksum.littleEndian) { bytes.replaceSubrange(position..<position + 4, with: $0) }
    }
}

/// Bytes of a file are not what this program writes.
struct JournalDamage: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Reads what `EntryBytes` wrote. The bytes are foreign: everything is checked.
struct EntryReader {
    private let bytes: UnsafeRawBufferPointer
    /// Of the next byte.
    private(set) var position = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { position == bytes.count }
    var remaining: Int { bytes.count - position }

    mutating func byte() throws(JournalDamage) -> UInt8 {
        guard position < bytes.count else { throw JournalDamage("an entry is cut off") }
        position += 1
        return bytes[position - 1]
    }

    mutating func number() throws(JournalDamage) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let next = try byte()
            guard shift < 63 || (shift == 63 && next <= 1) else { throw JournalDamage("a number has too many bytes") }
            value |= UInt64(next & 0x7F) << shift
            if next < 0x80 { return value }
            shift += 7
        }
    }

    mutating func number32() throws(JournalDamage) -> UInt32 {
        guard let value = UInt32(exactly: try number()) else { throw JournalDamage("a number is too large") }
        return value
    }

    mutating func signed() throws(JournalDamage) -> Int64 {
        let value = try number()
        return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1)
    }

    /// A length and so many bytes.
    mutating func block() throws(JournalDamage) -> UnsafeRawBufferPointer {
        let count = try number()
        guard count <= UInt64(remaining) else { throw JournalDamage("a text is cut off") }
        return try take(Int(count))
    }

    mutating func take(_ count: Int) throws(JournalDamage) -> UnsafeRawBufferPointer {
        guard count >= 0, count <= remaining else { throw JournalDamage("the file is cut off") }
        position += count
        return UnsafeRawBufferPointer(rebasing: bytes[position - count..<position])
    }

    mutating func fixed32() throws(JournalDamage) -> UInt32 {
        UInt32(littleEndian: try take(4).loadUnaligned(as: UInt32.self))
    }

    mutating func fixed64() throws(JournalDamage) -> Int64 {
        Int64(littleEndian: try take(8).loadUnaligned(as: Int64.self))
    }
}
