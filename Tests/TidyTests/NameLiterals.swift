import Foundation

/// The string literals of a Swift source.
struct StringLiteral {
    /// Of the literal's first character.
    let line: Int
    /// As written, with `\()` for each interpolation; literals inside of those are found for themselves.
    let text: String

    /// All in a source; comments have none.
    static func all(in source: String) -> [StringLiteral] {
        var scan = Scan(Array(source.utf8))
        scan.code(untilParenthesis: false)
        return scan.found
    }

    private struct Scan {
        let bytes: [UInt8]
        var index = 0
        var line = 1
        var found: [StringLiteral] = []

        init(_ bytes: [UInt8]) { self.bytes = bytes }

        private func isAt(_ text: String) -> Bool { bytes[index...].starts(with: text.utf8) }

        private mutating func step(_ count: Int = 1) {
            for _ in 0..<count where index < bytes.count {
                if bytes[index] == 10 { line += 1 }
                index += 1
            }
        }

        /// - Parameter untilParenthesis: it is an interpolation, and the index behind its opening parenthesis.
        mutating func code(untilParenthesis: Bool) {
            var depth = 1
            while index < bytes.count {
                // By the byte first: a source has many.
                switch bytes[index] {
                case UInt8(ascii: "/") where isAt("//"): while index < bytes.count, bytes[index] != 10 { step() }
                case UInt8(ascii: "/") where isAt("/*"):
                    while index < bytes.count, !isAt("*/") { step() }
                    step(2)
                case UInt8(ascii: "\""): literal()
                case UInt8(ascii: "#") where isAt("#\""): literal()
                case UInt8(ascii: "("):
                    depth += 1
                    step()
                case UInt8(ascii: ")"):
                    depth -= 1
                    step()
                    if untilParenthesis, depth == 0 { return }
                default: step()
                }
            }
        }

        private mutating func literal() {
            let start = line
            let isRaw = isAt("#")
            if isRaw { step() }
            let quotes = isAt("\"\"\"") ? "\"\"\"" : "\""
            step(quotes.count)
            var text: [UInt8] = []
            while index < bytes.count, !isAt(quotes + (isRaw ? "#" : "")) {
                if !isRaw, isAt("\\(") {
                    step(2)
                    code(untilParenthesis: true)
                    text += Array("\\()".utf8)
                    continue
                }
                let count = !isRaw && isAt("\\") ? 2 : 1
                text += bytes[index..<min(index + count, bytes.count)]
                step(count)
            }
            step(quotes.count + (isRaw ? 1 : 0))
            found.append(StringLiteral(line: start, text: String(decoding: text, as: UTF8.self)))
        }
    }
}

/// RocketMQ's names of properties and topics, which only `MessageModel` spells.
struct ProtocolNames {
    /// Each constant of `PropertyName`, `KnownTopic` and `TopicName`.
    let names: Set<String>

    /// - Parameter sources: those that declare the constants.
    init(_ sources: [String]) {
        let constant = #"static (?:let|var) \w+(?:: StaticString)? (?:= |\{ )"([^"\\]+)""#
        names = Set(sources.flatMap { Manifest.matches(constant, $0).map { $0[1] } })
    }

    /// The name a literal spells. In a sentence for people names of properties and topics may stand, but none that is
    /// the beginning of a group's own topics: code puts those together.
    func name(in literal: String) -> String? {
        let literal = literal.trimmingCharacters(in: .whitespacesAndNewlines)
        if let prefix = names.first(where: { $0.hasPrefix("%") && literal.contains($0) }) { return prefix }
        guard !literal.contains(" ") else { return nil }
        if let prefix = ["rmq_sys_", "RMQ_SYS_"].first(where: literal.hasPrefix) { return prefix }
        let separated = literal.replacing("\\u{1}", with: " ").replacing("\\u{2}", with: " ").replacing(
            "\\()", with: " ")
        return separated.split { !$0.isLetter && !$0.isNumber && !"_#%".contains($0) }.map(String.init)
            .first(where: names.contains)
    }

    /// Lines that declare a name of their own, whether it is known or not.
    static func declared(in source: String) -> [String] {
        Manifest.matches(#": StaticString = "([A-Z0-9_%#]{3,})""#, source).map { $0[1] }
    }
}
