/// Why a text is not JSON, with the position (bytes from its start).
package struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What is wrong.
    package enum Reason: String, Sendable {
        case unexpectedEnd = "the text ends inside a value"
        case unexpectedByte = "a value, key, comma or bracket was expected here"
        case badEscape = "unknown escape in a string"
        case badNumber = "not a number"
        case tooDeep = "nested too deeply"
        case tooLarge = "the text is too large"
        case trailingBytes = "bytes after the value"
    }

    /// Which rule the text breaks at `offset`.
    package var reason: Reason
    /// Bytes from the text's start.
    package var offset: Int

    package init(reason: Reason, offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    package var description: String { "bad JSON at byte \(offset): \(reason.rawValue)" }
}

/// Reads JSON text, standard or in fastjson's dialect. Object keys may be in single or double quotes, bare words,
/// numbers or objects. Strings may be in single quotes, and any string may carry `\xNN` and `\'` escapes. Commas may
/// repeat or trail.
package struct JSONReader {
    /// How deep and how large a text may be, so that a hostile one can exhaust neither stack nor memory.
    package struct Limits: Equatable, Sendable {
        /// How many arrays and objects may stand in each other.
        package var depth: Int
        /// Of one text.
        package var bytes: Int

        package init(depth: Int, bytes: Int) {
            self.depth = depth
            self.bytes = bytes
        }

        /// Of a text from outside: far above anything RocketMQ writes (its deepest body nests 7 levels).
        package static let foreign = Self(depth: 64, bytes: 64 << 20)
        /// Of our own tables. Whatever came in a text from outside stands a few levels deeper there, and a table is as
        /// large as its broker made it. The writer keeps them, too (`JSONValue.bytes(_:within:)`).
        package static let tables = Self(depth: foreign.depth + 8, bytes: 1 << 30)
    }

    private let bytes: UnsafeRawBufferPointer
    private var offset = 0
    private var depth = 0
    private let limits: Limits
    /// Of the objects and arrays that are open: each becomes an array of exactly its size when it ends.
    private var members: [JSONObject.Member] = []
    private var elements: [JSONValue] = []

    private init(_ bytes: UnsafeRawBufferPointer, _ limits: Limits) {
        self.bytes = bytes
        self.limits = limits
    }

    /// The one value the bytes hold; white space may surround it.
    /// - Throws: the first byte that does not fit, and why; a text beyond `limits`.
    package static func read(
        _ bytes: UnsafeRawBufferPointer, limits: Limits = .foreign
    ) throws(JSONError) -> JSONValue {
        guard bytes.count <= limits.bytes else { throw JSONError(reason: .tooLarge, offset: limits.bytes) }
        var reader = JSONReader(bytes, limits)
        let value = try reader.value()
        reader.skipSpace()
        guard reader.offset == bytes.count else { throw reader.error(.trailingBytes) }
        return value
    }

    private func error(_ reason: JSONError.Reason) -> JSONError {
        JSONError(reason: reason, offset: offset)
    }

    private var isAtEnd: Bool { offset >= bytes.count }

    private func peek() throws(JSONError) -> UInt8 {
        guard offset < bytes.count else { throw error(.unexpectedEnd) }
        return bytes[offset]
    }

    private mutating func skipSpace() {
        while offset < bytes.count {
            switch bytes[offset] {
            case 0x20, 0x09, 0x0a, 0x0d, 0x0c, 0x08: offset += 1
            default: return
            }
        }
    }

    private mutating func value() throws(JSONError) -> JSONValue {
        skipSpace()
        switch try peek() {
        case UInt8(ascii: "{"): return .object(try object())
        case UInt8(ascii: "["): return .array(try array())
        case UInt8(ascii: "\""), UInt8(ascii: "'"): return .string(try string())
        case UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "."), UInt8(ascii: "0")...UInt8(ascii: "9"):
            return try number()
        default: return try word()
        }
    }

    private mutating func object() throws(JSONError) -> JSONObject {
        try descend()
        let first = members.count
        while true {
            skipSpace()
            switch try peek() {
            case UInt8(ascii: "}"):
                offset += 1
                depth -= 1
                let object = JSONObject(members: Array(members[first...]))
                members.removeSubrange(first...)
                return object
            case UInt8(ascii: ","):
                offset += 1
                continue
            default: break
            }
            let (key, isRaw) = try self.key()
            skipSpace()
            guard try peek() == UInt8(ascii: ":") else { throw error(.unexpectedByte) }
            offset += 1
            let value = try value()
            members.append(JSONObject.Member(key: key, isRaw: isRaw, value: value))
            skipSpace()
            let next = try peek()
            guard next == UInt8(ascii: ",") || next == UInt8(ascii: "}") else { throw error(.unexpectedByte) }
        }
    }

    private mutating func array() throws(JSONError) -> [JSONValue] {
        try descend()
        let first = elements.count
        while true {
            skipSpace()
            switch try peek() {
            case UInt8(ascii: "]"):
                offset += 1
                depth -= 1
                let array = Array(elements[first...])
                elements.removeSubrange(first...)
                return array
            case UInt8(ascii: ","):
                offset += 1
                continue
            default: break
            }
            let value = try value()
            elements.append(value)
            skipSpace()
            let next = try peek()
            guard next == UInt8(ascii: ",") || next == UInt8(ascii: "]") else { throw error(.unexpectedByte) }
        }
    }

    /// Steps over an opening bracket.
    private mutating func descend() throws(JSONError) {
        guard depth < limits.depth else { throw error(.tooDeep) }
        depth += 1
        offset += 1
    }

    private mutating func key() throws(JSONError) -> (String, isRaw: Bool) {
        let start = offset
        switch try peek() {
        case UInt8(ascii: "\""), UInt8(ascii: "'"):
            return (try string(), false)
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            // The key's own text is what a writer must put back.
            _ = try value()
            return (String(decoding: bytes[start..<offset], as: UTF8.self), true)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            _ = try number()
            return (String(decoding: bytes[start..<offset], as: UTF8.self), true)
        default:
            let name = bareWord()
            guard !name.isEmpty else { throw error(.unexpectedByte) }
            return (name, name == "null" || name == "true" || name == "false")
        }
    }

    private mutating func bareWord() -> String {
        let start = offset
        while offset < bytes.count {
            switch bytes[offset] {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "$"), UInt8(ascii: "."),
                UInt8(ascii: "-"), 0x80...0xff:
                offset += 1
            default: return String(decoding: bytes[start..<offset], as: UTF8.self)
            }
        }
        return String(decoding: bytes[start..<offset], as: UTF8.self)
    }

    private mutating func word() throws(JSONError) -> JSONValue {
        let start = offset
        switch bareWord() {
        case "null", "undefined": return .null
        case "true": return .bool(true)
        case "false": return .bool(false)
        default:
            offset = start
            throw error(.unexpectedByte)
        }
    }

    private mutating func number() throws(JSONError) -> JSONValue {
        let start = offset
        var isWhole = true
        scan: while offset < bytes.count {
            switch bytes[offset] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): break
            case UInt8(ascii: "-"), UInt8(ascii: "+"):
                // A sign inside a number belongs to its exponent.
                if offset > start { isWhole = false }
            case UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"): isWhole = false
            default: break scan
            }
            offset += 1
        }
        let digits = bytes[start..<offset]
        // fastjson writes the type of a long or short after it when asked to (`1L`).
        if offset < bytes.count, bytes[offset] == UInt8(ascii: "L") {
            offset += 1
        }
        if isWhole, let value = Self.integer(digits) {
            return .integer(value)
        }
        let text = String(decoding: digits, as: UTF8.self)
        guard let value = Double(text), value.isFinite else {
            offset = start
            throw error(.badNumber)
        }
        return .number(value)
    }

    /// A sign and digits; nil for other texts, and for numbers that need more than 64 bits.
    private static func integer(_ text: Slice<UnsafeRawBufferPointer>) -> Int64? {
        guard text.count < 19 else { return Int64(String(decoding: text, as: UTF8.self)) }
        let isSigned = text.first == UInt8(ascii: "-") || text.first == UInt8(ascii: "+")
        let digits = isSigned ? text.dropFirst() : text
        guard !digits.isEmpty else { return nil }
        var value: Int64 = 0
        // At most 18 digits: it fits.
        for digit in digits { value = value &* 10 &+ Int64(digit &- UInt8(ascii: "0")) }
        return text.first == UInt8(ascii: "-") ? -value : value
    }

    private mutating func string() throws(JSONError) -> String {
        let quote = bytes[offset]
        offset += 1
        let start = offset
        while offset < bytes.count {
            let byte = bytes[offset]
            if byte == quote {
                let text = String(decoding: bytes[start..<offset], as: UTF8.self)
                offset += 1
                return text
            }
            if byte == UInt8(ascii: "\\") {
                return try escapedString(from: start, quote: quote)
            }
            offset += 1
        }
        throw error(.unexpectedEnd)
    }

    private mutating func escapedString(from start: Int, quote: UInt8) throws(JSONError) -> String {
        var text = [UInt8](bytes[start..<offset])
        while offset < bytes.count {
            let byte = bytes[offset]
            offset += 1
            if byte == quote {
                return String(decoding: text, as: UTF8.self)
            }
            guard byte == UInt8(ascii: "\\") else {
                text.append(byte)
                continue
            }
            let escape = try peek()
            offset += 1
            switch escape {
            case UInt8(ascii: "n"): text.append(0x0a)
            case UInt8(ascii: "t"): text.append(0x09)
            case UInt8(ascii: "r"): text.append(0x0d)
            case UInt8(ascii: "b"): text.append(0x08)
            case UInt8(ascii: "f"), UInt8(ascii: "F"): text.append(0x0c)
            case UInt8(ascii: "v"): text.append(0x0b)
            case UInt8(ascii: "0")...UInt8(ascii: "7"): text.append(escape - UInt8(ascii: "0"))
            case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(escape)
            case UInt8(ascii: "x"):
                try append(scalar: UInt32(try hex(digits: 2)), to: &text)
            case UInt8(ascii: "u"):
                try append(scalar: try unicodeEscape(), to: &text)
            default: throw error(.badEscape)
            }
        }
        throw error(.unexpectedEnd)
    }

    /// The scalar of `\uXXXX`, joining a surrogate pair; a lone surrogate becomes U+FFFD as in Java's UTF-8 encoder.
    private mutating func unicodeEscape() throws(JSONError) -> UInt32 {
        let unit = try hex(digits: 4)
        guard (0xd800...0xdfff).contains(unit) else { return UInt32(unit) }
        guard unit < 0xdc00, offset + 6 <= bytes.count, bytes[offset] == UInt8(ascii: "\\"),
            bytes[offset + 1] == UInt8(ascii: "u")
        else { return 0xfffd }
        let mark = offset
        offset += 2
        let low = try hex(digits: 4)
        guard (0xdc00...0xdfff).contains(low) else {
            offset = mark
            return 0xfffd
        }
        return 0x10000 + ((UInt32(unit) - 0xd800) << 10) + (UInt32(low) - 0xdc00)
    }

    private mutating func hex(digits: Int) throws(JSONError) -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<digits {
            let byte = try peek()
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
            default: throw error(.badEscape)
            }
            value = value << 4 | UInt16(digit)
            offset += 1
        }
        return value
    }

    private func append(scalar value: UInt32, to text: inout [UInt8]) throws(JSONError) {
        guard let scalar = Unicode.Scalar(value) else { throw error(.badEscape) }
        text.append(contentsOf: UTF8.encode(scalar).map { Array($0) } ?? [])
    }
}

extension JSONValue {
    /// Reads one JSON value that fills the bytes.
    /// - Throws: as `JSONReader.read`.
    package init(
        parsing bytes: UnsafeRawBufferPointer, limits: JSONReader.Limits = .foreign
    ) throws(JSONError) {
        self = try JSONReader.read(bytes, limits: limits)
    }

    /// - Throws: as `JSONReader.read`.
    package init(parsing bytes: [UInt8], limits: JSONReader.Limits = .foreign) throws(JSONError) {
        let result = bytes.withUnsafeBytes { buffer in
            Result { () throws(JSONError) in try JSONReader.read(buffer, limits: limits) }
        }
        self = try result.get()
    }

    /// - Throws: as `JSONReader.read`.
    package init(parsing text: String) throws(JSONError) {
        self = try JSONValue(parsing: Array(text.utf8))
    }
}
