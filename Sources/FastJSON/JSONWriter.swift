/// Writes JSON text the way fastjson writes it.
package struct JSONWriter {
    /// How to write; as fastjson by default.
    package struct Options: OptionSet, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// Tabs and line feeds as fastjson's `PrettyFormat`: what `config/*.json` files look like.
        package static let pretty = Options(rawValue: 1)
        /// Standard JSON only: number and object keys in quotes, characters above U+007F as `\uXXXX`
        /// (fastjson's `BrowserCompatible`, asked for by `acceptStandardJsonOnly`).
        package static let standard = Options(rawValue: 2)
        /// Members sorted by key (fastjson's `MapSortField`).
        package static let sorted = Options(rawValue: 4)
    }

    private var output: [UInt8] = []
    private let options: Options
    /// Beyond it nothing more is written.
    private let bytesMax: Int
    private var depth = 0
    /// How many arrays and objects stand in each other where they are most.
    private var deepest = 0

    private init(_ options: Options, bytesMax: Int = .max) {
        self.options = options
        self.bytesMax = bytesMax
    }

    private var isFull: Bool { output.count > bytesMax }

    /// UTF-8 without white space, unless an option changes that.
    package static func write(_ value: JSONValue, _ options: Options = []) -> [UInt8] {
        var writer = JSONWriter(options)
        writer.value(value)
        return writer.output
    }

    /// The same for a text that a reader with these limits is to take.
    /// - Throws: the text would be deeper or larger; `offset` is where it ends, or where writing ended at that size.
    package static func write(
        _ value: JSONValue, _ options: Options, within limits: JSONReader.Limits
    ) throws(JSONError) -> [UInt8] {
        var writer = JSONWriter(options, bytesMax: limits.bytes)
        writer.value(value)
        let count = writer.output.count
        guard writer.deepest <= limits.depth else { throw JSONError(reason: .tooDeep, offset: count) }
        guard count <= limits.bytes else { throw JSONError(reason: .tooLarge, offset: count) }
        return writer.output
    }

    private mutating func descend() {
        depth += 1
        deepest = max(deepest, depth)
    }

    private mutating func value(_ value: JSONValue) {
        switch value {
        case .null: ascii("null")
        case .bool(let flag): ascii(flag ? "true" : "false")
        case .integer(let number): self.text(String(number))
        case .number(let number): self.text(number.isFinite ? String(number) : "null")
        case .string(let text): string(text)
        case .array(let elements): array(elements)
        case .object(let object): self.object(object)
        }
    }

    private mutating func array(_ elements: [JSONValue]) {
        // fastjson breaks lines only inside lists of objects; lists of strings and numbers stay on one line.
        let breaks =
            options.contains(.pretty)
            && elements.contains {
                if case .object = $0 { true } else { false }
            }
        output.append(UInt8(ascii: "["))
        descend()
        for (index, element) in elements.enumerated() where !isFull {
            if index > 0 {
                output.append(UInt8(ascii: ","))
            }
            if breaks {
                newLine()
            }
            value(element)
        }
        depth -= 1
        if breaks {
            newLine()
        }
        output.append(UInt8(ascii: "]"))
    }

    private mutating func object(_ object: JSONObject) {
        let pretty = options.contains(.pretty)
        let members = options.contains(.sorted) ? object.members.sorted { $0.key < $1.key } : object.members
        output.append(UInt8(ascii: "{"))
        descend()
        for (index, member) in members.enumerated() where !isFull {
            if index > 0 {
                output.append(UInt8(ascii: ","))
            }
            // fastjson keeps number keys on the line of their brace: {0:25,1:24⏎}.
            if pretty && !member.isRaw {
                newLine()
            }
            if member.isRaw && !options.contains(.standard) {
                text(member.key)
                deepest = max(deepest, depth + member.keyDepth)
            } else {
                string(member.key)
            }
            output.append(UInt8(ascii: ":"))
            value(member.value)
        }
        depth -= 1
        if pretty && !members.isEmpty {
            newLine()
        }
        output.append(UInt8(ascii: "}"))
    }

    private mutating func newLine() {
        output.append(UInt8(ascii: "\n"))
        for _ in 0..<depth {
            output.append(UInt8(ascii: "\t"))
        }
    }

    private mutating func string(_ text: String) {
        output.append(UInt8(ascii: "\""))
        if options.contains(.standard) {
            for unit in text.utf16 {
                if unit < 0x80 {
                    escaped(UInt8(truncatingIfNeeded: unit))
                } else {
                    unicodeEscape(unit)
                }
            }
        } else {
            for byte in text.utf8 {
                escaped(byte)
            }
        }
        output.append(UInt8(ascii: "\""))
    }

    private mutating func escaped(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""): ascii("\\\"")
        case UInt8(ascii: "\\"): ascii("\\\\")
        case 0x08: ascii("\\b")
        case 0x09: ascii("\\t")
        case 0x0a: ascii("\\n")
        case 0x0c: ascii("\\f")
        case 0x0d: ascii("\\r")
        case 0x00...0x1f, 0x7f: unicodeEscape(UInt16(byte))
        default: output.append(byte)
        }
    }

    private mutating func unicodeEscape(_ unit: UInt16) {
        ascii("\\u")
        for shift in [12, 8, 4, 0] as [UInt16] {
            let digit = UInt8(truncatingIfNeeded: (unit >> shift) & 0xf)
            output.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "A") + digit - 10)
        }
    }

    private mutating func ascii(_ text: StaticString) {
        text.withUTF8Buffer { output.append(contentsOf: $0) }
    }

    private mutating func text(_ text: String) {
        output.append(contentsOf: text.utf8)
    }
}

extension JSONValue {
    /// The value as JSON text in UTF-8.
    package func bytes(_ options: JSONWriter.Options = []) -> [UInt8] {
        JSONWriter.write(self, options)
    }

    /// The same, for a reader with these limits.
    /// - Throws: as `JSONWriter.write(_:_:within:)`.
    package func bytes(
        _ options: JSONWriter.Options, within limits: JSONReader.Limits
    ) throws(JSONError) -> [UInt8] {
        try JSONWriter.write(self, options, within: limits)
    }

    /// The value as JSON text.
    package func text(_ options: JSONWriter.Options = []) -> String {
        String(decoding: JSONWriter.write(self, options), as: UTF8.self)
    }
}
