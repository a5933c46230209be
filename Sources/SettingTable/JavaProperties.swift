/// Java properties, one `key=value` a line: RocketMQ's configuration files and the bodies of requests 25 and 318.
package enum JavaProperties {
    /// One key and value, escapes resolved.
    package struct Entry: Hashable, Sendable {
        /// Never empty.
        package var key: String
        /// May be empty; without blanks at the end.
        package var value: String
        /// Where the entry begins, from 1 on.
        package var line: Int
    }

    /// Why a text is no properties.
    package struct Malformed: Error, Hashable, Sendable, CustomStringConvertible {
        /// From 1 on.
        package var line: Int
        /// What is wrong with the line, without its number.
        package var reason: String
        package var description: String { "line \(line): \(reason)" }
    }

    /// Handles comments (`#`, `!`), and `=` or `:` or blanks between key and value. Handles line continuation by a
    /// final backslash and the escapes \\ \t \n \r \f \: \= \# \uXXXX. Blanks at the end of a value are left out, which
    /// Java keeps. Entries in their order, repeated keys included.
    /// - Throws: the line of the first entry that is malformed, and what is wrong with it.
    package static func parse(_ text: String) throws(Malformed) -> [Entry] {
        var entries: [Entry] = []
        var logical = ""
        var start = 1
        for (number, raw) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let line = raw.drop { $0 == " " || $0 == "\t" }
            if logical.isEmpty {
                if line.isEmpty || line.hasPrefix("#") || line.hasPrefix("!") { continue }
                start = number + 1
            }
            let backslashes = line.reversed().prefix { $0 == "\\" }.count
            if backslashes % 2 == 1 {
                logical += line.dropLast()
                continue
            }
            logical += line
            if !logical.isEmpty { entries.append(try entry(logical, line: start)) }
            logical = ""
        }
        if !logical.isEmpty { entries.append(try entry(logical, line: start)) }
        return entries
    }

    /// The same as a table; of several values of one key the last counts.
    /// - Throws: as `parse`.
    package static func table(_ text: String) throws(Malformed) -> [String: String] {
        Dictionary(try parse(text).map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
    }

    private static func entry(_ line: String, line number: Int) throws(Malformed) -> Entry {
        var key = ""
        var characters = Array(line)[...]
        while let character = characters.first, character != "=", character != ":", character != " ", character != "\t"
        {
            key.append(try unescaped(&characters, line: number))
        }
        characters = characters.drop { $0 == " " || $0 == "\t" }
        if let separator = characters.first, separator == "=" || separator == ":" {
            characters = characters.dropFirst().drop { $0 == " " || $0 == "\t" }
        }
        var value = ""
        while !characters.isEmpty { value.append(try unescaped(&characters, line: number)) }
        guard !key.isEmpty else { throw Malformed(line: number, reason: "no key before '='") }
        while value.last == " " || value.last == "\t" { value.removeLast() }
        return Entry(key: key, value: value, line: number)
    }

    private static func unescaped(
        _ characters: inout ArraySlice<Character>, line: Int
    ) throws(Malformed) -> Character {
        let first = characters.removeFirst()
        guard first == "\\", let escaped = characters.popFirst() else { return first }
        switch escaped {
        case "t": return "\t"
        case "n": return "\n"
        case "r": return "\r"
        case "f": return "\u{c}"
        case "u":
            let digits = String(characters.prefix(4))
            guard digits.count == 4, let code = UInt32(digits, radix: 16), let scalar = Unicode.Scalar(code) else {
                throw Malformed(line: line, reason: "\\u needs four hexadecimal digits")
            }
            characters = characters.dropFirst(4)
            return Character(scalar)
        default: return escaped
        }
    }
}
