/// Java-properties text, as the requests that change configurations carry it.
package enum JavaProperties {
    /// Comments, `=`, `:` or white space between key and value, `\` escapes and continued lines.
    package static func parse(_ text: String) -> [String: String] {
        var properties: [String: String] = [:]
        var line = ""
        for piece in text.split(omittingEmptySubsequences: false, whereSeparator: { $0.isNewline }) {
            let trimmed = piece.drop { $0 == " " || $0 == "\t" }
            if line.isEmpty, trimmed.isEmpty || trimmed.first == "#" || trimmed.first == "!" { continue }
            line += trimmed
            if trimmed.reversed().prefix(while: { $0 == "\\" }).count % 2 == 1 {
                line.removeLast()
                continue
            }
            let (key, value) = Self.keyAndValue(line)
            properties[key] = value
            line = ""
        }
        if !line.isEmpty {
            let (key, value) = Self.keyAndValue(line)
            properties[key] = value
        }
        return properties
    }

    private static func keyAndValue(_ line: String) -> (String, String) {
        var key = ""
        var rest = Substring(line)
        while let character = rest.popFirst() {
            if character == "\\" {
                key.append(Self.unescaped(&rest))
            } else if character == "=" || character == ":" || character == " " || character == "\t" {
                rest = rest.drop { $0 == " " || $0 == "\t" }
                if character == " " || character == "\t", rest.first == "=" || rest.first == ":" {
                    rest = rest.dropFirst().drop { $0 == " " || $0 == "\t" }
                }
                break
            } else {
                key.append(character)
            }
        }
        var value = ""
        while let character = rest.popFirst() {
            value.append(character == "\\" ? Self.unescaped(&rest) : character)
        }
        return (key, value)
    }

    private static func unescaped(_ rest: inout Substring) -> Character {
        guard let character = rest.popFirst() else { return "\\" }
        switch character {
        case "n": return "\n"
        case "t": return "\t"
        case "r": return "\r"
        case "f": return "\u{c}"
        case "u":
            let digits = rest.prefix(4)
            guard digits.count == 4, let code = UInt32(digits, radix: 16), let scalar = Unicode.Scalar(code) else {
                return "u"
            }
            rest = rest.dropFirst(4)
            return Character(scalar)
        default: return character
        }
    }
}
