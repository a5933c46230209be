/// Raw settings as an operator wrote them, before defaults: RocketMQ's key names everywhere.
package struct RawConfiguration: Hashable, Sendable {
    /// Keys outside any table; they hold for every broker.
    package var common: [String: String] = [:]
    package var nameserver: [String: String] = [:]
    /// One per broker-store, on top of `common`. Empty: one without anything of its own.
    package var brokers: [[String: String]] = []
    package var filter: [String: String] = [:]
    /// `nameserver = false` and `broker = false` in place of those tables: what this platform is without.
    package var withoutNameserver = false
    package var withoutBroker = false
    /// Folders, one disk each; a broker for each of them. nil: not set.
    package var disks: [String]?
    /// What workers may use: `filter.memory` and so on, for `limits.filter.memory`.
    package var limits: [String: String] = [:]
    /// Came from a RocketMQ `broker.conf`.
    package var isProperties = false

    package init() {}

    /// Takes the settings that are no worker's out of `common`: lists are separated by `,` there.
    package mutating func sortOut() {
        func list(_ text: String) -> [String] {
            text.split { $0 == "," || $0 == ";" || $0 == " " }.map(String.init)
        }
        if let text = common.removeValue(forKey: "disks") { disks = list(text) }
        for (key, value) in common where key.hasPrefix("limits.") {
            limits[String(key.dropFirst("limits.".count))] = value
            common[key] = nil
        }
    }
}

/// Why a configuration cannot be used, with file and line where known.
package struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}

/// RocketMQ's `broker.conf`: Java properties, one `key=value` a line.
package enum PropertiesFile {
    /// Handles comments (`#`, `!`), `=` or `:` or blanks between key and value, line continuation by a final backslash
    /// and the escapes \\ \t \n \r \: \= \# \uXXXX.
    package static func parse(_ text: String) throws(ConfigurationError) -> [String: String] {
        var values: [String: String] = [:]
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
            let (key, value) = try pair(logical, line: start)
            values[key] = value
            logical = ""
        }
        if !logical.isEmpty {
            let (key, value) = try pair(logical, line: start)
            values[key] = value
        }
        return values
    }

    private static func pair(_ line: String, line number: Int) throws(ConfigurationError) -> (String, String) {
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
        guard !key.isEmpty else { throw ConfigurationError("line \(number): no key before '='") }
        while value.last == " " || value.last == "\t" { value.removeLast() }
        return (key, value)
    }

    private static func unescaped(
        _ characters: inout ArraySlice<Character>, line: Int
    ) throws(ConfigurationError) -> Character {
        let first = characters.removeFirst()
        guard first == "\\", let escaped = characters.popFirst() else { return first }
        switch escaped {
        case "t": return "\t"
        case "n": return "\n"
        case "r": return "\r"
        case "u":
            let digits = String(characters.prefix(4))
            guard digits.count == 4, let code = UInt32(digits, radix: 16), let scalar = Unicode.Scalar(code) else {
                throw ConfigurationError("line \(line): \\u needs four hexadecimal digits")
            }
            characters = characters.dropFirst(4)
            return Character(scalar)
        default: return escaped
        }
    }
}
