import CLinux
import Glibc

/// What the generator needs of an answer, read in place: number, code, single header fields, body.
///
/// Valid only while its frame is. The JSON header is searched, not parsed: `"opaque":` cannot occur inside a value
/// without its quotes being escaped.
struct ResponseView {
    private let isJSON: Bool
    private let header: UnsafeRawBufferPointer
    let body: UnsafeRawBufferPointer
    let opaque: UInt32
    let code: Int
    /// A request of the server (a notification), not an answer.
    let isRequest: Bool

    /// - Parameter frame: without its length field.
    init(_ frame: UnsafeRawBufferPointer) throws(BenchError) {
        let word = UInt32(bigEndian: frame.loadUnaligned(as: UInt32.self))
        let headerLength = Int(word & 0xFF_FFFF)
        guard headerLength <= frame.count - 4 else {
            throw BenchError("a frame of \(frame.count) bytes announces a header of \(headerLength)")
        }
        isJSON = word >> 24 == 0
        header = UnsafeRawBufferPointer(rebasing: frame[4..<(4 + headerLength)])
        body = UnsafeRawBufferPointer(rebasing: frame[(4 + headerLength)...])
        if isJSON {
            code = Int(truncatingIfNeeded: Self.number(in: header, after: "\"code\":") ?? -1)
            opaque = UInt32(truncatingIfNeeded: Self.number(in: header, after: "\"opaque\":") ?? -1)
            isRequest = (Self.number(in: header, after: "\"flag\":") ?? 1) & 1 == 0
        } else {
            guard headerLength >= 21 else { throw BenchError("a binary header of \(headerLength) bytes is too short") }
            code = Int(Int16(bigEndian: header.loadUnaligned(fromByteOffset: 0, as: Int16.self)))
            opaque = UInt32(bigEndian: header.loadUnaligned(fromByteOffset: 5, as: UInt32.self))
            isRequest = UInt32(bigEndian: header.loadUnaligned(fromByteOffset: 9, as: UInt32.self)) & 1 == 0
        }
    }

    /// The server's remark, for reports: not on the hot path.
    var remark: String {
        if isJSON {
            guard let start = Self.position(in: header, after: "\"remark\":\"") else { return "" }
            var end = start
            while end < header.count, header[end] != 0x22 {
                end += header[end] == 0x5C ? 2 : 1
            }
            return String(decoding: header[start..<min(end, header.count)], as: UTF8.self)
        }
        let length = Int(UInt32(bigEndian: header.loadUnaligned(fromByteOffset: 13, as: UInt32.self)))
        guard length <= header.count - 21 else { return "" }
        return String(decoding: header[17..<(17 + length)], as: UTF8.self)
    }

    /// A numeric header field, such as `nextBeginOffset`.
    func number(_ name: StaticString) -> Int64? {
        if isJSON {
            guard var position = Self.position(in: header, afterQuoted: name) else { return nil }
            while position < header.count, header[position] == 0x22 || header[position] == 0x3A { position += 1 }
            return Self.digits(in: header, at: position)
        }
        var position = 13
        func length32() -> Int {
            guard position + 4 <= header.count else { return Int.max / 2 }
            defer { position += 4 }
            return Int(UInt32(bigEndian: header.loadUnaligned(fromByteOffset: position, as: UInt32.self)))
        }
        position += length32()
        _ = length32()
        while position + 2 <= header.count {
            let nameLength = Int(UInt16(bigEndian: header.loadUnaligned(fromByteOffset: position, as: UInt16.self)))
            position += 2
            guard position + nameLength + 4 <= header.count else { return nil }
            let matches =
                nameLength == name.utf8CodeUnitCount
                && UnsafeRawBufferPointer(start: name.utf8Start, count: nameLength)
                    .elementsEqual(header[position..<(position + nameLength)])
            position += nameLength
            let valueLength = length32()
            guard valueLength <= header.count - position else { return nil }
            if matches { return Self.digits(in: header, at: position) }
            position += valueLength
        }
        return nil
    }

    private static func number(in header: UnsafeRawBufferPointer, after key: StaticString) -> Int64? {
        position(in: header, after: key).flatMap { digits(in: header, at: $0) }
    }

    private static func position(in header: UnsafeRawBufferPointer, after key: StaticString) -> Int? {
        guard let base = header.baseAddress,
            let found = apus_find(base, header.count, key.utf8Start, key.utf8CodeUnitCount)
        else { return nil }
        return found - base + key.utf8CodeUnitCount
    }

    private static func position(in header: UnsafeRawBufferPointer, afterQuoted name: StaticString) -> Int? {
        // The name without its quotes is enough: the header fields asked for are no part of other names.
        position(in: header, after: name)
    }

    private static func digits(in header: UnsafeRawBufferPointer, at position: Int) -> Int64? {
        var index = position
        var value: Int64 = 0
        let negative = index < header.count && header[index] == 0x2D
        if negative { index += 1 }
        let first = index
        while index < header.count, case 0x30...0x39 = header[index] {
            value = value &* 10 &+ Int64(header[index] - 0x30)
            index += 1
        }
        return index > first ? (negative ? -value : value) : nil
    }
}
