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
        text = scratch.text
        fields = FieldCollector(scratch)
    }

    private func bad() -> RemotingDecodeError { .badHeader(offset: cursor - start) }

    private mutating func parse(into frame: inout RemotingFrame) throws(RemotingDecodeError) {
        var sawCode = false
        var hasMore = try openObject()
        while hasMore {
            let name = try string()
            try expect(UInt8(ascii: ":"))
            switch name.count {
            case 4 where name.equals("code"):
                frame.code = try int32()
                sawCode = true
            case 4 where name.equals("flag"): frame.flag = try int32()
            case 6 where name.equals("opaque"): frame.opaque = try int32()
            case 6 where name.equals("remark"): frame.remarkBytes = try scalar()
            case 7 where name.equals("version"): frame.version = try int32()
            case 8 where name.equals("language"): frame.language = try language()
            case 9 where name.equals("extFields"): try extFields()
            default: try skipValue()
            }
            hasMore = try nextMember()
        }
        skipSpace()
        guard cursor == end, sawCode else { throw bad() }
        frame.extFields = fields.result
    }

    private mutating func extFields() throws(RemotingDecodeError) {
        skipSpace()
        guard cursor < end else { throw bad() }
        guard cursor.pointee == UInt8(ascii: "{") else {
            guard try scalar() == nil else { throw bad() }
            return
        }
        // A second "extFields" replaces the first, as in Java's map of the header.
        fields.removeAll()
        var hasMore = try openObject()
        while hasMore {
            let name = try string()
            try expect(UInt8(ascii: ":"))
            if let value = try scalar(), let nameStart = name.baseAddress, let valueStart = value.baseAddress {
                try fields.append(nameStart, name.count, valueStart, value.count)
            }
            hasMore = try nextMember()
        }
    }

    // MARK: - Structure

    @inline(__always)
    private mutating func skipSpace() {
        while cursor < end, cursor.pointee <= 0x20 {
            cursor += 1
        }
    }

    @inline(__always)
    private mutating func expect(_ byte: UInt8) throws(RemotingDecodeError) {
        skipSpace()
        guard cursor < end, cursor.pointee == byte else { throw bad() }
        cursor += 1
    }

    /// Steps into an object; false when it is empty.
    private mutating func openObject() throws(RemotingDecodeError) -> Bool {
        try expect(UInt8(ascii: "{"))
        skipSpace()
        guard cursor < end else { throw bad() }
        if cursor.pointee == UInt8(ascii: "}") {
            cursor += 1
            return false
        }
        return true
    }

    /// Steps over `,` (true) or `}` (false).
    @inline(__always)
    private mutating func nextMember() throws(RemotingDecodeError) -> Bool {
        skipSpace()
        guard cursor < end else { throw bad() }
        let byte = cursor.pointee
        guard byte == UInt8(ascii: ",") || byte == UInt8(ascii: "}") else { throw bad() }
        cursor += 1
        return byte == UInt8(ascii: ",")
    }

    // MARK: - Values

    private mutating func int32() throws(RemotingDecodeError) -> Int32 {
        guard let text = try scalar(), let value = text.decimal, let narrow = Int32(exactly: value) else {
            throw bad()
        }
        return narrow
    }

    private mutating func language() throws(RemotingDecodeError) -> LanguageCode {
        guard let text = try scalar() else { return .other }
        if let code = text.decimal {
            return UInt8(exactly: code).flatMap { LanguageCode(rawValue: $0) } ?? .other
        }
        return LanguageCode(name: text)
    }

    /// The text of a string, or of a number or boolean as it stands; nil for null.
    @inline(__always)
    private mutating func scalar() throws(RemotingDecodeError) -> UnsafeRawBufferPointer? {
        skipSpace()
        guard cursor < end else { throw bad() }
        switch cursor.pointee {
        case UInt8(ascii: "\""):
            return try string()
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            throw bad()
        default:
            let word = try bareWord()
            return word.equals("null") ? nil : word
        }
    }

    private mutating func bareWord() throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
        let first = cursor
        scan: while cursor < end {
            switch cursor.pointee {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
                cursor += 1
            default: break scan
            }
        }
        guard cursor > first else { throw bad() }
        return UnsafeRawBufferPointer(start: first, count: cursor - first)
    }

    @inline(__always)
    private mutating func string() throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
        try expect(UInt8(ascii: "\""))
        let first = cursor
        // Eight bytes at a time up to the first quote or backslash.
        while end - cursor >= 8 {
            let word = UnsafeRawPointer(cursor).loadUnaligned(as: UInt64.self)
            let hit = Self.zeroBytes(word ^ 0x2222_2222_2222_2222) | Self.zeroBytes(word ^ 0x5c5c_5c5c_5c5c_5c5c)
            if hit == 0 {
                cursor += 8
            } else {
                cursor += UInt64(littleEndian: hit).trailingZeroBitCount >> 3
                break
            }
        }
        while cursor < end {
            let byte = cursor.pointee
            if byte == UInt8(ascii: "\"") {
                defer { cursor += 1 }
                return UnsafeRawBufferPointer(start: first, count: cursor - first)
            }
            if byte == UInt8(ascii: "\\") {
                return try escapedString(from: first)
            }
            cursor += 1
        }
        throw bad()
    }

    /// Sets the high bit of each zero byte up to the first (bytes after it may be set wrongly: only the lowest
    /// counts).
    @inline(__always)
    private static func zeroBytes(_ word: UInt64) -> UInt64 {
        (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
    }

    /// The rest of a string that has escapes, resolved into the scratch after what is there already.
    @inline(never)
    private mutating func escapedString(
        from first: UnsafePointer<UInt8>
    ) throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
        let result = text
        var output = result
        let head = cursor - first
        output.update(from: first, count: head)
        output += head
        while cursor < end {
            let byte = cursor.pointee
            cursor += 1
            if byte == UInt8(ascii: "\"") {
                text = output
                return UnsafeRawBufferPointer(start: result, count: output - result)
            }
            guard byte == UInt8(ascii: "\\") else {
                output.pointee = byte
                output += 1
                continue
            }
            guard cursor < end else { throw bad() }
            let escape = cursor.pointee
            cursor += 1
            switch escape {
            case UInt8(ascii: "u"):
                output += try unicodeEscape(into: output)
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
                output.pointee = UInt8(truncatingIfNeeded: try hex(2))
                if output.pointee >= 0x80 { throw bad() }
            default: throw bad()
            }
            output += 1
        }
        throw bad()
    }

    /// Writes the UTF-8 of `\uXXXX` (cursor after the `u`), joining surrogate pairs; returns its bytes (1 to 4).
    @inline(__always)
    private mutating func unicodeEscape(into output: UnsafeMutablePointer<UInt8>) throws(RemotingDecodeError) -> Int {
        var scalar = try hex(4)
        if scalar < 0x80 {
            output[0] = UInt8(truncatingIfNeeded: scalar)
            return 1
        }
        if scalar & 0xf800 == 0xd800 {
            scalar = try joinSurrogate(high: scalar)
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
        guard high < 0xdc00, end - cursor >= 6, cursor[0] == UInt8(ascii: "\\"),
            cursor[1] == UInt8(ascii: "u")
        else { return 0x3f }
        let mark = cursor
        cursor += 2
        let low = try hex(4)
        guard low & 0xfc00 == 0xdc00 else {
            cursor = mark
            return 0x3f
        }
        return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
    }

    @inline(__always)
    private mutating func hex(_ digits: Int) throws(RemotingDecodeError) -> UInt32 {
        guard end - cursor >= digits else { throw bad() }
        var value: UInt32 = 0
        for _ in 0..<digits {
            let byte = cursor.pointee
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte &- UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte &- UInt8(ascii: "a") &+ 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte &- UInt8(ascii: "A") &+ 10
            default: throw bad()
            }
            value = value << 4 | UInt32(digit)
            cursor += 1
        }
        return value
    }

    /// Steps over a value no field asks for, nested ones included (without recursion, so its depth needs no bound).
    private mutating func skipValue() throws(RemotingDecodeError) {
        var depth = 0
        repeat {
            skipSpace()
            guard cursor < end else { throw bad() }
            switch cursor.pointee {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                cursor += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                guard depth > 0 else { throw bad() }
                depth -= 1
                cursor += 1
            case UInt8(ascii: ","), UInt8(ascii: ":"):
                guard depth > 0 else { throw bad() }
                cursor += 1
            case UInt8(ascii: "\""):
                _ = try string()
            default:
                _ = try bareWord()
            }
        } while depth > 0
    }
}
