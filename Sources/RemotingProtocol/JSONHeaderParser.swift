/// Reads a JSON header in one pass, in any order of its members and with any white space:
///
///     {"code":310,"extFields":{"a":"group",…},"flag":0,"language":"JAVA","opaque":17,…,"version":409}
///
/// Strings without escapes stay where they are; strings with escapes (properties always have them, their separators
/// are U+0001 and U+0002) are resolved into the scratch. Nothing is allocated.
struct JSONHeaderParser {
    private let start: UnsafePointer<UInt8>
    private let end: UnsafePointer<UInt8>
    private var cursor: UnsafePointer<UInt8>
    /// Where the next string with escapes is resolved to.
    private var text: UnsafeMutablePointer<UInt8>
    private var fields: FieldCollector

    static func parse(into frame: inout RemotingFrame, scratch: HeaderScratch) throws(RemotingDecodeError) {
        guard let base = frame.header.baseAddress, frame.header.count >= 2 else { throw .badHeader(offset: 0) }
        let bytes = base.assumingMemoryBound(to: UInt8.self)
        var parser = JSONHeaderParser(
            start: bytes, end: bytes + frame.header.count, cursor: bytes, scratch: scratch)
        try parser.parse(into: &frame)
    }

    private init(
        start: UnsafePointer<UInt8>, end: UnsafePointer<UInt8>, cursor: UnsafePointer<UInt8>, scratch: HeaderScratch
    ) {
        self.start = start
        self.end = end
        self.cursor = cursor
        self.text = scratch.text
        self.fields = FieldCollector(scratch)
    }

    private func bad() -> RemotingDecodeError { .badHeader(offset: self.cursor - self.start) }

    private mutating func parse(into frame: inout RemotingFrame) throws(RemotingDecodeError) {
        var sawCode = false
        var hasMore = try self.openObject()
        while hasMore {
            let name = try self.string()
            try self.expect(UInt8(ascii: ":"))
            switch name.count {
            case 4 where name.equals("code"):
                frame.code = try self.int32()
                sawCode = true
            case 4 where name.equals("flag"): frame.flag = try self.int32()
            case 6 where name.equals("opaque"): frame.opaque = try self.int32()
            case 6 where name.equals("remark"): frame.remarkBytes = try self.scalar()
            case 7 where name.equals("version"): frame.version = try self.int32()
            case 8 where name.equals("language"): frame.language = try self.language()
            case 9 where name.equals("extFields"): try self.extFields()
            default: try self.skipValue()
            }
            hasMore = try self.nextMember()
        }
        self.skipSpace()
        guard self.cursor == self.end, sawCode else { throw self.bad() }
        frame.extFields = self.fields.result
    }

    private mutating func extFields() throws(RemotingDecodeError) {
        self.skipSpace()
        guard self.cursor < self.end else { throw self.bad() }
        guard self.cursor.pointee == UInt8(ascii: "{") else {
            guard try self.scalar() == nil else { throw self.bad() }
            return
        }
        // A second "extFields" replaces the first, as in Java's map of the header.
        self.fields.removeAll()
        var hasMore = try self.openObject()
        while hasMore {
            let name = try self.string()
            try self.expect(UInt8(ascii: ":"))
            if let value = try self.scalar(), let nameStart = name.baseAddress, let valueStart = value.baseAddress {
                try self.fields.append(nameStart, name.count, valueStart, value.count)
            }
            hasMore = try self.nextMember()
        }
    }

    // MARK: structure

    @inline(__always)
    private mutating func skipSpace() {
        while self.cursor < self.end, self.cursor.pointee <= 0x20 {
            self.cursor += 1
        }
    }

    @inline(__always)
    private mutating func expect(_ byte: UInt8) throws(RemotingDecodeError) {
        self.skipSpace()
        guard self.cursor < self.end, self.cursor.pointee == byte else { throw self.bad() }
        self.cursor += 1
    }

    /// Steps into an object; false when it is empty.
    private mutating func openObject() throws(RemotingDecodeError) -> Bool {
        try self.expect(UInt8(ascii: "{"))
        self.skipSpace()
        guard self.cursor < self.end else { throw self.bad() }
        if self.cursor.pointee == UInt8(ascii: "}") {
            self.cursor += 1
            return false
        }
        return true
    }

    /// Steps over `,` (true) or `}` (false).
    @inline(__always)
    private mutating func nextMember() throws(RemotingDecodeError) -> Bool {
        self.skipSpace()
        guard self.cursor < self.end else { throw self.bad() }
        let byte = self.cursor.pointee
        guard byte == UInt8(ascii: ",") || byte == UInt8(ascii: "}") else { throw self.bad() }
        self.cursor += 1
        return byte == UInt8(ascii: ",")
    }

    // MARK: values

    private mutating func int32() throws(RemotingDecodeError) -> Int32 {
        guard let text = try self.scalar(), let value = text.decimal, let narrow = Int32(exactly: value) else {
            throw self.bad()
        }
        return narrow
    }

    private mutating func language() throws(RemotingDecodeError) -> LanguageCode {
        guard let text = try self.scalar() else { return .other }
        if let code = text.decimal {
            return UInt8(exactly: code).flatMap { LanguageCode(rawValue: $0) } ?? .other
        }
        return LanguageCode(name: text)
    }

    /// The text of a string, or of a number or boolean as it stands; nil for null.
    @inline(__always)
    private mutating func scalar() throws(RemotingDecodeError) -> UnsafeRawBufferPointer? {
        self.skipSpace()
        guard self.cursor < self.end else { throw self.bad() }
        switch self.cursor.pointee {
        case UInt8(ascii: "\""):
            return try self.string()
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            throw self.bad()
        default:
            let word = try self.bareWord()
            return word.equals("null") ? nil : word
        }
    }

    private mutating func bareWord() throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
        let first = self.cursor
        scan: while self.cursor < self.end {
            switch self.cursor.pointee {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
                self.cursor += 1
            default: break scan
            }
        }
        guard self.cursor > first else { throw self.bad() }
        return UnsafeRawBufferPointer(start: first, count: self.cursor - first)
    }

    @inline(__always)
    private mutating func string() throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
        try self.expect(UInt8(ascii: "\""))
        let first = self.cursor
        // Eight bytes at a time up to the first quote or backslash.
        while self.end - self.cursor >= 8 {
            let word = UnsafeRawPointer(self.cursor).loadUnaligned(as: UInt64.self)
            let hit = Self.zeroBytes(word ^ 0x2222_2222_2222_2222) | Self.zeroBytes(word ^ 0x5c5c_5c5c_5c5c_5c5c)
            if hit == 0 {
                self.cursor += 8
            } else {
                self.cursor += UInt64(littleEndian: hit).trailingZeroBitCount >> 3
                break
            }
        }
        while self.cursor < self.end {
            let byte = self.cursor.pointee
            if byte == UInt8(ascii: "\"") {
                defer { self.cursor += 1 }
                return UnsafeRawBufferPointer(start: first, count: self.cursor - first)
            }
            if byte == UInt8(ascii: "\\") {
                return try self.escapedString(from: first)
            }
            self.cursor += 1
        }
        throw self.bad()
    }

    /// Sets the high bit of each zero byte up to the first (bytes behind it may be set wrongly: only the lowest
    /// counts).
    @inline(__always)
    private static func zeroBytes(_ word: UInt64) -> UInt64 {
        (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
    }

    /// The rest of a string that has escapes, resolved into the scratch behind what is there already.
    @inline(never)
    private mutating func escapedString(
        from first: UnsafePointer<UInt8>
    ) throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
        let result = self.text
        var output = result
        let head = self.cursor - first
        output.update(from: first, count: head)
        output += head
        while self.cursor < self.end {
            let byte = self.cursor.pointee
            self.cursor += 1
            if byte == UInt8(ascii: "\"") {
                self.text = output
                return UnsafeRawBufferPointer(start: result, count: output - result)
            }
            guard byte == UInt8(ascii: "\\") else {
                output.pointee = byte
                output += 1
                continue
            }
            guard self.cursor < self.end else { throw self.bad() }
            let escape = self.cursor.pointee
            self.cursor += 1
            switch escape {
            case UInt8(ascii: "u"):
                output += try self.unicodeEscape(into: output)
                continue
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "'"): output.pointee = escape
            case UInt8(ascii: "n"): output.pointee = 0x0a
            case UInt8(ascii: "t"): output.pointee = 0x09
            case UInt8(ascii: "r"): output.pointee = 0x0d
            case UInt8(ascii: "b"): output.pointee = 0x08
            case UInt8(ascii: "f"): output.pointee = 0x0c
            case UInt8(ascii: "v"): output.pointee = 0x0b
            case UInt8(ascii: "0")...UInt8(ascii: "7"): output.pointee = escape - UInt8(ascii: "0")
            case UInt8(ascii: "x"):
                output.pointee = UInt8(truncatingIfNeeded: try self.hex(2))
                if output.pointee >= 0x80 { throw self.bad() }
            default: throw self.bad()
            }
            output += 1
        }
        throw self.bad()
    }

    /// Writes the UTF-8 of `\uXXXX` (cursor behind the `u`), joining surrogate pairs; returns its bytes (1 to 4).
    @inline(__always)
    private mutating func unicodeEscape(into output: UnsafeMutablePointer<UInt8>) throws(RemotingDecodeError) -> Int {
        var scalar = try self.hex(4)
        if scalar < 0x80 {
            output[0] = UInt8(truncatingIfNeeded: scalar)
            return 1
        }
        if scalar & 0xf800 == 0xd800 {
            scalar = try self.joinSurrogate(high: scalar)
        }
        if scalar < 0x800 {
            output[0] = UInt8(truncatingIfNeeded: 0xc0 | scalar >> 6)
            output[1] = UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3f)
            return 2
        }
        if scalar < 0x10000 {
            output[0] = UInt8(truncatingIfNeeded: 0xe0 | scalar >> 12)
            output[1] = UInt8(truncatingIfNeeded: 0x80 | scalar >> 6 & 0x3f)
            output[2] = UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3f)
            return 3
        }
        output[0] = UInt8(truncatingIfNeeded: 0xf0 | scalar >> 18)
        output[1] = UInt8(truncatingIfNeeded: 0x80 | scalar >> 12 & 0x3f)
        output[2] = UInt8(truncatingIfNeeded: 0x80 | scalar >> 6 & 0x3f)
        output[3] = UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3f)
        return 4
    }

    /// A lone surrogate becomes `?`, as Java encodes it.
    private mutating func joinSurrogate(high: UInt32) throws(RemotingDecodeError) -> UInt32 {
        guard high < 0xdc00, self.end - self.cursor >= 6, self.cursor[0] == UInt8(ascii: "\\"),
            self.cursor[1] == UInt8(ascii: "u")
        else { return 0x3f }
        let mark = self.cursor
        self.cursor += 2
        let low = try self.hex(4)
        guard low & 0xfc00 == 0xdc00 else {
            self.cursor = mark
            return 0x3f
        }
        return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
    }

    @inline(__always)
    private mutating func hex(_ digits: Int) throws(RemotingDecodeError) -> UInt32 {
        guard self.end - self.cursor >= digits else { throw self.bad() }
        var value: UInt32 = 0
        for _ in 0..<digits {
            let byte = self.cursor.pointee
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte &- UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte &- UInt8(ascii: "a") &+ 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte &- UInt8(ascii: "A") &+ 10
            default: throw self.bad()
            }
            value = value << 4 | UInt32(digit)
            self.cursor += 1
        }
        return value
    }

    /// Steps over a value nobody asks for, nested ones included (without recursion, so its depth needs no bound).
    private mutating func skipValue() throws(RemotingDecodeError) {
        var depth = 0
        repeat {
            self.skipSpace()
            guard self.cursor < self.end else { throw self.bad() }
            switch self.cursor.pointee {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                self.cursor += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                guard depth > 0 else { throw self.bad() }
                depth -= 1
                self.cursor += 1
            case UInt8(ascii: ","), UInt8(ascii: ":"):
                guard depth > 0 else { throw self.bad() }
                self.cursor += 1
            case UInt8(ascii: "\""):
                _ = try self.string()
            default:
                _ = try self.bareWord()
            }
        } while depth > 0
    }
}
