/// A message of the commit log, read by RocketMQ's description of it alone: no code of the broker's is used here, or an
/// error in it would be found right by itself.
package struct LogRecord: Equatable, Sendable {
    package var size = 0
    package var version = 1
    package var storedCRC: UInt32 = 0
    package var queueID = 0
    package var flag = 0
    package var queueOffset = 0
    package var physicalOffset = 0
    package var sysFlag = 0
    /// Milliseconds since 1970.
    package var bornTime = 0
    package var bornHost: [UInt8] = []
    /// Milliseconds since 1970.
    package var storeTime = 0
    package var storeHost: [UInt8] = []
    package var reconsumeTimes = 0
    package var preparedTransactionOffset = 0
    package var body: [UInt8] = []
    package var topic = ""
    /// In their order, with what a Java map would drop.
    package var properties: [(name: String, value: String)] { Self.split(propertyText) }
    package var propertyText = ""

    /// It ends with RocketMQ 5's checksum of the whole record, and that is right.
    package var hasChecksum = false

    package var text: String { String(decoding: body, as: UTF8.self) }

    /// As in Java's map, the last of a name counts.
    package func property(_ name: String) -> String? { properties.last { $0.name == name }?.value }

    /// `MessageSysFlag.getTransactionValue`: 0 none, 4 prepared, 8 commit, 12 rollback.
    package var transaction: Int { sysFlag & 12 }
    package var entersQueue: Bool { transaction == 0 || transaction == 8 }

    static let versions: [UInt32: Int] = [0xDAA3_20A7: 1, 0xDAA3_20AB: 2]
    static let blank: UInt32 = 0xCBD4_3194

    private static func split(_ text: String) -> [(name: String, value: String)] {
        text.unicodeScalars.split(separator: "\u{2}").compactMap { piece in
            guard let at = piece.firstIndex(of: "\u{1}"), at > piece.startIndex else { return nil }
            let value = piece[piece.index(after: at)...]
            return value.isEmpty ? nil : (String(piece[..<at]), String(value))
        }
    }

    /// All records that lie one behind the other in the answer to a pull.
    package static func all(_ bytes: [UInt8]) throws -> [LogRecord] {
        var found: [LogRecord] = []
        var position = 0
        while position < bytes.count {
            let record = try LogRecord(bytes, at: position)
            found.append(record)
            position += record.size
        }
        return found
    }

    /// Reads the record at a place of a file or an answer.
    /// - Throws: `Fault` with what is wrong: lengths that do not add up, a CRC that does not match.
    package init(_ bytes: [UInt8], at start: Int) throws {
        var cursor = Cursor(bytes: bytes, position: start)
        size = try cursor.number(4)
        guard let version = Self.versions[UInt32(truncatingIfNeeded: try cursor.number(4))] else {
            throw Fault("no record begins at \(start)")
        }
        self.version = version
        storedCRC = UInt32(truncatingIfNeeded: try cursor.number(4))
        queueID = try cursor.number(4)
        flag = try cursor.number(4)
        queueOffset = try cursor.number(8)
        physicalOffset = try cursor.number(8)
        sysFlag = try cursor.number(4)
        bornTime = try cursor.number(8)
        bornHost = try cursor.take(sysFlag & 0x10 == 0 ? 8 : 20)
        storeTime = try cursor.number(8)
        storeHost = try cursor.take(sysFlag & 0x20 == 0 ? 8 : 20)
        reconsumeTimes = try cursor.number(4)
        preparedTransactionOffset = try cursor.number(8)
        body = try cursor.take(try cursor.number(4))
        topic = String(decoding: try cursor.take(try cursor.number(version == 1 ? 1 : 2)), as: UTF8.self)
        propertyText = String(decoding: try cursor.take(try cursor.number(2)), as: UTF8.self)
        guard cursor.position - start == size else {
            throw Fault("the parts of the record at \(start) make \(cursor.position - start) bytes, it says \(size)")
        }
        guard CRC32.of(body) & 0x7FFF_FFFF == storedCRC else { throw Fault("the body at \(start) has another CRC") }
        if let stated = Self.statedChecksum(propertyText) {
            guard CRC32.of(Array(bytes[start..<(start + size - 20)])) & 0x7FFF_FFFF == stated else {
                throw Fault("the record at \(start) has another checksum")
            }
            hasChecksum = true
        }
    }

    /// Of the last 20 bytes, when they are `__CRC32#` 1, ten digits with the lowest first, 2.
    private static func statedChecksum(_ properties: String) -> UInt32? {
        let tail = String(decoding: properties.utf8.suffix(20), as: UTF8.self)
        guard tail.utf8.count == 20, tail.hasPrefix("__CRC32#\u{1}"), tail.hasSuffix("\u{2}") else { return nil }
        return UInt32(String(tail.dropFirst(9).dropLast().reversed()))
    }

    package struct Fault: Error, CustomStringConvertible {
        package let description: String

        init(_ description: String) {
            self.description = description
        }
    }

    struct Cursor {
        let bytes: [UInt8]
        var position: Int

        /// Signed, big-endian.
        mutating func number(_ count: Int) throws -> Int {
            guard position + count <= bytes.count else { throw Fault("the bytes end at \(bytes.count)") }
            defer { position += count }
            return BigEndianNumber.read(bytes, position, count)
        }

        mutating func take(_ count: Int) throws -> [UInt8] {
            guard count >= 0, position + count <= bytes.count else {
                throw Fault("a length of \(count) at \(position)")
            }
            defer { position += count }
            return Array(bytes[position..<(position + count)])
        }
    }
}

enum BigEndianNumber {
    /// Signed.
    static func read(_ bytes: [UInt8], _ position: Int, _ count: Int) -> Int {
        var value = bytes[position] & 0x80 == 0 ? 0 : -1
        for byte in bytes[position..<(position + count)] { value = value << 8 | Int(byte) }
        return value
    }
}

/// CRC-32 as in zip, byte by byte from a table of its own.
package enum CRC32 {
    private static let table: [UInt32] = (0..<256).map { start in
        (0..<8).reduce(UInt32(start)) { value, _ in value & 1 == 0 ? value >> 1 : value >> 1 ^ 0xEDB8_8320 }
    }

    package static func of(_ bytes: [UInt8]) -> UInt32 {
        ~bytes.reduce(~UInt32(0)) { $0 >> 8 ^ table[Int(UInt8(truncatingIfNeeded: $0) ^ $1)] }
    }
}

/// `java.lang.String.hashCode`.
package enum JavaString {
    package static func hash(_ text: String) -> Int {
        Int(text.utf16.reduce(Int32(0)) { $0 &* 31 &+ Int32($1) })
    }
}
