import Foundation

/// A `package` or `public` declaration that throws, found line by line: a text that is formatted needs no parser.
struct ThrowingDeclaration {
    /// From 1.
    let line: Int
    /// From its keyword (or `static`) to its body, on one line.
    let signature: String
    let isRequirement: Bool
    let isDocumented: Bool

    private static let start = regex(
        #"^\s*(?:@\w+(?:\([^)]*\))?\s+)*((?:\w+(?:\(set\))?\s+)*)(func|init|subscript|var)\b"#)
    private static let accessor = regex(#"\bget\s+(?:async\s+)?throws\b"#)
    private static let string = regex(#""(?:[^"\\]|\\.)*""#)

    /// All of a source, but for those that throw just what a closure throws which they are given.
    static func all(in source: String) -> [ThrowingDeclaration] {
        let lines = source.components(separatedBy: "\n").map { line -> String in
            if line.trimmingCharacters(in: .whitespaces).hasPrefix("//") { return line }
            let all = NSRange(line.startIndex..., in: line)
            return string.stringByReplacingMatches(in: line, range: all, withTemplate: #""""#)
        }
        var found: [ThrowingDeclaration] = []
        // How deep an open protocol is indented whose end has not come.
        var inProtocol: Int?
        for (index, line) in lines.enumerated() {
            let indent = line.prefix { $0 == " " }.count
            if line.firstMatch(regex(#"^\s*(?:package|public) protocol "#)) != nil, !line.hasSuffix("}") {
                inProtocol = indent
            } else if let depth = inProtocol, line.hasPrefix(String(repeating: " ", count: depth) + "}") {
                inProtocol = nil
            }
            guard let match = line.firstMatch(start) else { continue }
            let modifiers = match[1].split(separator: " ")
            guard inProtocol != nil || modifiers.contains("package") || modifiers.contains("public") else { continue }
            let (head, body) = parts(lines[index...])
            guard throwsItself(head, body, keyword: match[2]) else { continue }
            let keyword = (modifiers.contains("static") ? "static " : "") + match[2]
            let rest = head.range(of: match[2]).map { head[$0.upperBound...] } ?? ""
            found.append(
                ThrowingDeclaration(
                    line: index + 1, signature: (keyword + rest).trimmingCharacters(in: .whitespaces),
                    isRequirement: inProtocol != nil, isDocumented: documents(lines[..<index])))
        }
        return found
    }

    /// The signature on one line, and what is between the braces that follow; nil without braces.
    private static func parts(_ lines: ArraySlice<String>) -> (head: String, body: String?) {
        var head = ""
        var body: String?
        var parentheses = 0
        var braces = 0
        for (index, line) in zip(lines.indices, lines) {
            for character in line {
                switch character {
                case "(", "[": parentheses += 1
                case ")", "]": parentheses -= 1
                case "{" where parentheses == 0:
                    braces += 1
                    if braces == 1 { body = "" }
                case "}" where parentheses == 0:
                    braces -= 1
                    if braces == 0 { return (collapsed(head), body) }
                default: break
                }
                if body == nil { head.append(character) } else { body?.append(character) }
            }
            head += body == nil ? " " : ""
            body? += "\n"
            let next = index + 1 < lines.endIndex ? lines[index + 1].trimmingCharacters(in: .whitespaces) : ""
            let goesOn = ["->", "async", "throws", "where", "{", ")"].contains(where: next.hasPrefix)
            if body == nil, parentheses == 0, !goesOn { break }
        }
        return (collapsed(head), body)
    }

    private static func throwsItself(_ head: String, _ body: String?, keyword: String) -> Bool {
        if keyword == "var" || keyword == "subscript" { return body?.firstMatch(accessor) != nil }
        var depth = 0
        guard
            let end = head.indices.first(where: { index in
                depth += head[index] == "(" ? 1 : head[index] == ")" ? -1 : 0
                return head[index] == ")" && depth == 0
            })
        else { return false }
        let effects = String(head[head.index(after: end)...]).components(separatedBy: "->")[0]
        guard let match = effects.firstMatch(regex(#"\bthrows\b(?:\((\w+)\))?"#)) else { return false }
        let generics = head.firstMatch(regex(#"(?:func \w+|init)<([^>]*)>"#))?[1] ?? ""
        return match[1].isEmpty || !generics.split { !$0.isLetter }.contains { $0 == match[1] }
    }

    /// Whether the comment that ends these lines says what is thrown.
    private static func documents(_ lines: ArraySlice<String>) -> Bool {
        for line in lines.reversed().map({ $0.trimmingCharacters(in: .whitespaces) }) {
            if line.hasPrefix("/// - Throws:") { return true }
            guard line.hasPrefix("///") || line.hasPrefix("@") else { return false }
        }
        return false
    }

    private static func collapsed(_ text: String) -> String {
        text.split(separator: " ").joined(separator: " ")
            .replacingOccurrences(of: "( ", with: "(").replacingOccurrences(of: " )", with: ")")
    }
}

private func regex(_ pattern: String) -> NSRegularExpression {
    do { return try NSRegularExpression(pattern: pattern) } catch { preconditionFailure("\(pattern): \(error)") }
}

extension String {
    /// The whole match and its groups; a group that took no part is empty.
    fileprivate func firstMatch(_ expression: NSRegularExpression) -> [String]? {
        expression.firstMatch(in: self, range: NSRange(startIndex..., in: self)).map { match in
            (0..<match.numberOfRanges).map { Range(match.range(at: $0), in: self).map { String(self[$0]) } ?? "" }
        }
    }
}
