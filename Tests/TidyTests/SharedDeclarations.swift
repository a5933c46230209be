import Foundation

/// A `package` or `public` declaration, found line by line: a text that is formatted needs no parser.
struct SharedDeclaration {
    /// From 1.
    let line: Int
    /// What is declared: `func`, `struct`, `var` and so on.
    let keyword: String
    /// Empty for `init` and `subscript`.
    let name: String
    /// From its keyword (or `static`) to its body, on one line.
    let signature: String
    /// The protocol that asks for it.
    let requirementOf: String?
    let isOverride: Bool
    /// Not for what throws just what a closure throws which it is given.
    let throwsItself: Bool
    /// Whether a comment with three slashes stands above it.
    let isDocumented: Bool
    /// Whether that comment says what is thrown.
    let saysWhatItThrows: Bool

    /// What a requirement and its witness share: a stored property meets the requirement of a computed one.
    var contract: String {
        guard keyword == "var" || keyword == "let" else { return signature }
        return signature.components(separatedBy: " = ")[0].replacingOccurrences(of: "let ", with: "var ")
    }

    private static let start = regex(
        #"^\s*(?:@\w+(?:\([^)]*\))?\s+)*((?:\w+(?:\(\w+\))?\s+)*)"#
            + #"(func|init|subscript|var|let|struct|class|enum|actor|protocol|typealias|associatedtype)\b"#
            + #"\s*([^\s(:<{=]+|[=<]+)?"#)
    private static let accessor = regex(#"\bget\s+(?:async\s+)?throws\b"#)
    private static let string = regex(#""(?:[^"\\]|\\.)*""#)

    static func all(in source: String) -> [SharedDeclaration] {
        let lines = source.components(separatedBy: "\n").map { line -> String in
            if line.trimmingCharacters(in: .whitespaces).hasPrefix("//") { return line }
            let all = NSRange(line.startIndex..., in: line)
            return string.stringByReplacingMatches(in: line, range: all, withTemplate: #""""#)
        }
        var found: [SharedDeclaration] = []
        // An open protocol whose end has not come, and how deep it is indented.
        var open: (name: String, indent: Int)?
        for (index, line) in lines.enumerated() {
            let indent = line.prefix { $0 == " " }.count
            if let begin = line.firstMatch(regex(#"^\s*(?:package|public) protocol (\w+)"#)), !line.hasSuffix("}") {
                open = (begin[1], indent)
            } else if let depth = open?.indent, line.hasPrefix(String(repeating: " ", count: depth) + "}") {
                open = nil
            }
            guard let match = line.firstMatch(start) else { continue }
            let modifiers = match[1].split(separator: " ")
            guard open != nil || modifiers.contains("package") || modifiers.contains("public") else { continue }
            // `package import struct` declares none.
            guard !modifiers.contains("import") else { continue }
            let (head, body) = parts(lines[index...])
            let keyword = (modifiers.contains("static") ? "static " : "") + match[2]
            let comment = comment(above: lines[..<index])
            let rest = head.range(of: match[2]).map { head[$0.upperBound...] } ?? ""
            found.append(
                SharedDeclaration(
                    line: index + 1, keyword: match[2], name: match[3],
                    signature: (keyword + rest).trimmingCharacters(in: .whitespaces),
                    requirementOf: open.flatMap { $0.indent < indent ? $0.name : nil },
                    isOverride: modifiers.contains("override"),
                    throwsItself: throwsItself(head, body, keyword: match[2]), isDocumented: !comment.isEmpty,
                    saysWhatItThrows: comment.contains { $0.hasPrefix("/// - Throws:") }))
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
        guard keyword == "func" || keyword == "init" else { return false }
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

    /// The lines of the comment that ends these lines, trimmed; attributes may follow it.
    private static func comment(above lines: ArraySlice<String>) -> [String] {
        let trimmed = lines.reversed().lazy.map { $0.trimmingCharacters(in: .whitespaces) }
        return Array(trimmed.drop { $0.hasPrefix("@") }.prefix { $0.hasPrefix("///") })
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
