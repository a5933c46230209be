import CFilterPlugin
import Foundation
import Testing

@testable import FilterEngine

/// An expression that a test made itself, what it is spelled like, and what it is worth: written from SQL's rules, slow
/// and simple, sharing nothing with the plugin. Numbers are decimals of 38 digits.
indirect enum ReferenceExpression {
    enum Value: Equatable { case yes, no, unknown }

    enum Number {
        case literal(String)
        case property(String, negative: Bool)
    }

    case compare(String, Number, Number)
    case equalText(String, String, not: Bool)
    case between(String, String, String, not: Bool)
    case member(String, [String], not: Bool)
    case isNull(String, not: Bool)
    case text(String, String, String, not: Bool)
    case truth(String)
    case constant(Value)
    case not(ReferenceExpression)
    case and(ReferenceExpression, ReferenceExpression)
    case or(ReferenceExpression, ReferenceExpression)
    case same(ReferenceExpression, ReferenceExpression, not: Bool)

    // MARK: - Worth

    static func number(_ text: String) -> Decimal? {
        var text = text.trimmingCharacters(in: CharacterSet(charactersIn: "\u{0}"..."\u{20}"))
        guard text.wholeMatch(of: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?/) != nil else { return nil }
        if text.hasPrefix("+") { text.removeFirst() }
        return Decimal(string: text, locale: Locale(identifier: "en_US_POSIX"))
    }

    private static func negated(_ value: Value) -> Value { value == .unknown ? .unknown : value == .yes ? .no : .yes }

    private static func of(_ truth: Bool, not: Bool) -> Value { truth != not ? .yes : .no }

    func value(_ message: [String: String]) -> Value {
        // An empty value is none.
        func property(_ name: String) -> String? { message[name].flatMap { $0.isEmpty ? nil : $0 } }
        func number(_ side: Number) -> Decimal? {
            switch side {
            case .literal(let text): Self.number(text)
            case .property(let name, let negative):
                property(name).flatMap { Self.number($0) }.map { negative ? -$0 : $0 }
            }
        }
        switch self {
        case .compare(let sign, let left, let right):
            if case .property(let a, false) = left, case .property(let b, false) = right, sign == "=" || sign == "<>" {
                guard let x = property(a), let y = property(b) else { return .unknown }
                var same = Array(x.utf8) == Array(y.utf8)
                if let n = Self.number(x), let m = Self.number(y), n == m { same = true }
                return Self.of(same, not: sign == "<>")
            }
            guard let x = number(left), let y = number(right) else { return .unknown }
            let holds =
                switch sign {
                case "=": x == y
                case "<>": x != y
                case "<": x < y
                case "<=": x <= y
                case ">": x > y
                default: x >= y
                }
            return holds ? .yes : .no
        case .equalText(let name, let text, let not):
            return property(name).map { Self.of($0 == text, not: not) } ?? .unknown
        case .between(let name, let low, let high, let not):
            guard let x = property(name).flatMap({ Self.number($0) }), let low = Self.number(low),
                let high = Self.number(high)
            else { return .unknown }
            return Self.of(low <= x && x <= high, not: not)
        case .member(let name, let texts, let not):
            return property(name).map { Self.of(texts.contains($0), not: not) } ?? .unknown
        case .isNull(let name, let not): return Self.of(property(name) == nil, not: not)
        case .text(let test, let name, let search, let not):
            guard let text = property(name) else { return .unknown }
            let found =
                switch test {
                case "CONTAINS": text.range(of: search, options: .literal) != nil
                case "STARTSWITH": Array(text.utf8).starts(with: Array(search.utf8))
                default: Array(text.utf8.reversed()).starts(with: Array(search.utf8.reversed()))
                }
            return Self.of(found, not: not)
        case .truth(let name): return property(name).map { $0.lowercased() == "true" ? .yes : .no } ?? .unknown
        case .constant(let value): return value
        case .not(let inner): return Self.negated(inner.value(message))
        case .and(let left, let right):
            let (a, b) = (left.value(message), right.value(message))
            return a == .no || b == .no ? .no : a == .unknown || b == .unknown ? .unknown : .yes
        case .or(let left, let right):
            let (a, b) = (left.value(message), right.value(message))
            return a == .yes || b == .yes ? .yes : a == .unknown || b == .unknown ? .unknown : .no
        case .same(let left, let right, let not):
            let (a, b) = (left.value(message), right.value(message))
            return a == .unknown || b == .unknown ? .unknown : Self.of(a == b, not: not)
        }
    }

    // MARK: - Spelling

    func spelled(_ random: inout SeededRandom) -> String {
        func word(_ text: String) -> String {
            switch Int.random(in: 0...2, using: &random) {
            case 0: text
            case 1: text.lowercased()
            default: String(text.map { Bool.random(using: &random) ? Character($0.lowercased()) : $0 })
            }
        }
        func gap() -> String {
            [" ", "  ", "\n", "\t ", " /* so */ ", " -- so\n"].randomElement(using: &random) ?? " "
        }
        func quoted(_ text: String) -> String { "'" + text.replacing("'", with: "''") + "'" }
        func number(_ side: Number) -> String {
            switch side {
            case .literal(let text): text
            case .property(let name, let negative):
                negative ? "-\(name)" : Bool.random(using: &random) ? name : "(\(name))"
            }
        }
        func no(_ not: Bool) -> String { not ? word("NOT") + gap() : "" }
        func inner(_ expression: ReferenceExpression) -> String { "(" + expression.spelled(&random) + ")" }
        switch self {
        case .compare(let sign, let left, let right): return number(left) + gap() + sign + gap() + number(right)
        case .equalText(let name, let text, let not):
            return Bool.random(using: &random)
                ? name + gap() + (not ? "<>" : "=") + gap() + quoted(text)
                : quoted(text) + gap() + (not ? "<>" : "=") + gap() + name
        case .between(let name, let low, let high, let not):
            return name + gap() + no(not) + word("BETWEEN") + gap() + low + gap() + word("AND") + gap() + high
        case .member(let name, let texts, let not):
            return name + gap() + no(not) + word("IN") + gap() + "(" + texts.map(quoted).joined(separator: ", ") + ")"
        case .isNull(let name, let not): return name + gap() + word("IS") + gap() + no(not) + word("NULL")
        case .text(let test, let name, let search, let not):
            return name + gap() + no(not) + word(test) + gap() + quoted(search)
        case .truth(let name): return name
        case .constant(let value): return word(value == .yes ? "TRUE" : value == .no ? "FALSE" : "NULL")
        case .not(let expression): return word("NOT") + gap() + inner(expression)
        case .and(let left, let right): return inner(left) + gap() + word("AND") + gap() + inner(right)
        case .or(let left, let right): return inner(left) + gap() + word("OR") + gap() + inner(right)
        case .same(let left, let right, let not): return inner(left) + gap() + (not ? "<>" : "=") + gap() + inner(right)
        }
    }

    // MARK: - Making

    static let names = ["a", "b", "c", "TAGS", "long_name_1", "$x"]
    static let texts = ["x", "y", "it's", "订单", "hangzhou", "true", "TRUE", "5", "5.0", "-", "1e", ".", "0x10", "nan"]
    /// Numbers that are near each other, or the same, however they are spelled.
    static let numbers = [
        "0", "0.0", "1", "1.0", "1e0", "0.1e1", "10e-1", "5", "5.", "5.00", "5e0", "50e-1", "4.999", "5.001", "-5",
        "-5.0",
        "2147483648", "9007199254740992", "9007199254740993", "9007199254740993.0", "9007199254740992.0",
        "9223372036854775807", "9223372036854775806", "9223372036854775807.0", "922337203685477580.6e1", "1e18",
        "1000000000000000000", "1000000000000000001", ".5", "0.5", "5e-1", "123456.789", "123456789e-3",
    ]

    static func value(_ random: inout SeededRandom) -> String {
        switch Int.random(in: 0...9, using: &random) {
        case 0: ""
        case 1...3: texts.randomElement(using: &random) ?? ""
        case 4: "+" + (numbers.filter { !$0.hasPrefix("-") }.randomElement(using: &random) ?? "1")
        case 5: "000" + (numbers.filter { $0.first?.isNumber == true }.randomElement(using: &random) ?? "1")
        case 6: " " + (numbers.randomElement(using: &random) ?? "1") + " "
        default: numbers.randomElement(using: &random) ?? "1"
        }
    }

    static func random(_ depth: Int, _ random: inout SeededRandom) -> ReferenceExpression {
        func name() -> String { names.randomElement(using: &random) ?? "a" }
        func literal() -> String { numbers.randomElement(using: &random) ?? "1" }
        func text() -> String { texts.randomElement(using: &random) ?? "x" }
        func not() -> Bool { Bool.random(using: &random) }
        func inner() -> ReferenceExpression { Self.random(depth - 1, &random) }
        switch Int.random(in: depth > 0 ? 0...15 : 6...15, using: &random) {
        case 0, 1: return .and(inner(), inner())
        case 2, 3: return .or(inner(), inner())
        case 4: return .not(inner())
        // Two properties would be compared as what they hold, and NULL by itself is refused.
        case 5: return .same(.not(inner()), .not(inner()), not: not())
        case 6, 7, 8:
            let sign = ["=", "<>", "<", "<=", ">", ">="].randomElement(using: &random) ?? "="
            let property = Number.property(name(), negative: Int.random(in: 0...5, using: &random) == 0)
            switch Int.random(in: 0...3, using: &random) {
            case 0: return .compare(sign, .literal(literal()), property)
            case 1: return .compare(sign, property, .property(name(), negative: false))
            default: return .compare(sign, property, .literal(literal()))
            }
        case 9: return .equalText(name(), text(), not: not())
        case 10:
            let bounds = [literal(), literal()].sorted { (number($0) ?? 0) < (number($1) ?? 0) }
            return .between(name(), bounds[0], bounds[1], not: not())
        case 11: return .member(name(), (0...Int.random(in: 0...12, using: &random)).map { _ in text() }, not: not())
        case 12: return .isNull(name(), not: not())
        case 13:
            let test = ["CONTAINS", "STARTSWITH", "ENDSWITH"].randomElement(using: &random) ?? "CONTAINS"
            return .text(test, name(), String(text().prefix(3)), not: not())
        case 14: return .truth(name())
        default: return .constant([.yes, .no, .unknown].randomElement(using: &random) ?? .yes)
        }
    }
}

/// Repeatable randomness.
struct SeededRandom: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

@Suite("the SQL92 plugin against a slow evaluator of its own")
struct SQL92ReferenceTests {
    let sql: SQL92

    init() throws { sql = try SQL92() }

    /// Longer with APUS_SQL_ROUNDS.
    @Test("random expressions over random messages: the same three-valued answer")
    func agree() {
        let seed = ProcessInfo.processInfo.environment["APUS_SQL_SEED"].flatMap { UInt64($0) } ?? 92
        let rounds = ProcessInfo.processInfo.environment["APUS_SQL_ROUNDS"].flatMap { Int($0) } ?? 1500
        var random = SeededRandom(state: seed)
        var seen: [ReferenceExpression.Value] = []
        for _ in 0..<rounds {
            let expression = ReferenceExpression.random(3, &random)
            let text = expression.spelled(&random)
            for _ in 0..<4 {
                var message: [String: String] = [:]
                for name in ReferenceExpression.names where Int.random(in: 0...4, using: &random) > 0 {
                    message[name] = ReferenceExpression.value(&random)
                }
                let expected = expression.value(message)
                seen.append(expected)
                let answer: ReferenceExpression.Value? =
                    switch sql.truth(text, message) {
                    case "T": .yes
                    case "F": .no
                    case "U": .unknown
                    default: nil
                    }
                #expect(answer == expected, "seed \(seed): \(text) over \(message)")
            }
        }
        for value in [ReferenceExpression.Value.yes, .no, .unknown] {
            #expect(seen.filter { $0 == value }.count > rounds / 4, "too few answers were \(value)")
        }
    }

    @Test("every pair of spellings compares as the numbers they are, as literal and as property")
    func spellings() {
        let extra = ["+5", "0005", "00.5", " 5 ", "5e+0", "-0", "0", "1e-400", "18446744073709551616", "1e400"]
        for left in ReferenceExpression.numbers + extra {
            for right in ReferenceExpression.numbers {
                guard let x = ReferenceExpression.number(left), let y = ReferenceExpression.number(right) else {
                    continue
                }
                // Beyond Decimal's range the order is known all the same.
                let order = left == "1e400" ? 1 : left == "1e-400" ? (y > 0 ? -1 : 1) : x < y ? -1 : x == y ? 0 : 1
                for (sign, holds) in [
                    ("=", order == 0), ("<>", order != 0), ("<", order < 0), ("<=", order <= 0), (">", order > 0),
                    (">=", order >= 0),
                ] where left != "1e-400" || y != 0 {
                    #expect(sql.matches("a \(sign) \(right)", ["a": left]) == holds, "\(left) \(sign) \(right)")
                    #expect(sql.matches("a \(sign) b", ["a": left, "b": right]) == holds, "\(left) \(sign) b=\(right)")
                }
            }
        }
    }
}

@Suite("SQL92: three-valued truth tables, complete")
struct SQL92TruthTableTests {
    let sql: SQL92
    /// Conditions of each worth over the message `a=5 b=x`.
    static let words: [Character: [String]] = [
        "T": ["a = 5", "b IN ('x')", "c IS NULL", "TRUE"], "F": ["a = 6", "b NOT IN ('x')", "a IS NULL", "FALSE"],
        "U": ["c = 5", "c IN ('x')", "b > 1", "NULL"],
    ]
    static let message = ["a": "5", "b": "x"]

    init() throws { sql = try SQL92() }

    func value(_ text: String) -> Character? { sql.truth(text, Self.message) }

    static let and = [
        "TT": "T", "TF": "F", "TU": "U", "FT": "F", "FF": "F", "FU": "F", "UT": "U", "UF": "F", "UU": "U",
    ]
    static let or = ["TT": "T", "TF": "T", "TU": "T", "FT": "T", "FF": "F", "FU": "U", "UT": "T", "UF": "U", "UU": "U"]
    static let same = [
        "TT": "T", "TF": "F", "TU": "U", "FT": "F", "FF": "T", "FU": "U", "UT": "U", "UF": "U", "UU": "U",
    ]

    @Test(
        "AND, OR, NOT, equality of conditions, IS NULL of a condition: every value with every value, however it came about"
    )
    func connectives() {
        for (x, lefts) in Self.words {
            for left in lefts {
                #expect(value("NOT (\(left))") == (x == "T" ? "F" : x == "F" ? "T" : "U"), "\(left)")
                #expect(value("NOT (NOT (\(left)))") == x)
                #expect(value("(\(left)) IS NULL") == (x == "U" ? "T" : "F"), "\(left)")
                #expect(value("(\(left)) IS NOT NULL") == (x == "U" ? "F" : "T"), "\(left)")
                for (y, rights) in Self.words {
                    for right in rights {
                        let key = "\(x)\(y)"
                        #expect(
                            value("(\(left)) AND (\(right))").map(String.init) == Self.and[key], "\(left), \(right)")
                        #expect(value("(\(left)) OR (\(right))").map(String.init) == Self.or[key], "\(left), \(right)")
                        guard left != "NULL", right != "NULL" else { continue }
                        #expect(value("(\(left)) = (\(right))").map(String.init) == Self.same[key], "\(left), \(right)")
                    }
                }
            }
        }
    }

    @Test("three deep: (x AND y) OR NOT z, for all 27")
    func deep() {
        for x in "TFU" {
            for y in "TFU" {
                for z in "TFU" {
                    guard let a = Self.words[x]?[0], let b = Self.words[y]?[1], let c = Self.words[z]?[2],
                        let both = Self.and["\(x)\(y)"]
                    else { continue }
                    let not = z == "T" ? "F" : z == "F" ? "T" : "U"
                    #expect(value("(\(a) AND \(b)) OR NOT (\(c))").map(String.init) == Self.or["\(both)\(not)"])
                }
            }
        }
    }

    @Test("BETWEEN: value below, at, between, above, missing, no number; bounds known, missing, no number; with NOT")
    func between() {
        // Properties: low 10, high 20, gone missing, word no number.
        let message = [
            "low": "10", "high": "20", "word": "x", "v9": "9", "v10": "10", "v15": "15", "v20": "20", "v21": "21",
        ]
        let values: [(String, Int?)] = [
            ("v9", 9), ("v10", 10), ("v15", 15), ("v20", 20), ("v21", 21), ("gone", nil), ("word", nil),
        ]
        let bounds: [(String, Int?)] = [
            ("10", 10), ("20", 20), ("low", 10), ("high", 20), ("gone", nil), ("word", nil),
        ]
        func atLeast(_ a: Int?, _ b: Int?) -> String { a.flatMap { a in b.map { a >= $0 ? "T" : "F" } } ?? "U" }
        for (name, value) in values {
            for (low, lowValue) in bounds {
                for (high, highValue) in bounds where !(low == "20" && high == "10") {
                    let expected = Self.and[atLeast(value, lowValue) + atLeast(highValue, value)]
                    let text = "\(name) BETWEEN \(low) AND \(high)"
                    #expect(sql.truth(text, message).map(String.init) == expected, "\(text)")
                    let opposite = expected == "U" ? "U" : expected == "T" ? "F" : "T"
                    #expect(
                        sql.truth("\(name) NOT BETWEEN \(low) AND \(high)", message).map(String.init) == opposite,
                        "NOT \(text)")
                }
            }
        }
    }

    @Test("IN and IS NULL, with NOT: among, not among, missing, empty")
    func membership() {
        for count in [1, 2, 8, 9, 40] {
            let list = (0..<count).map { "'v\($0)'" }.joined(separator: ",")
            for (message, expected) in [
                (["a": "v0"], "T"), (["a": "v\(count - 1)"], "T"), (["a": "v\(count)"], "F"), (["a": "V0"], "F"),
                (["a": ""], "U"), ([:], "U"),
            ] as [([String: String], Character)] {
                #expect(sql.truth("a IN (\(list))", message) == expected, "\(message) in \(count)")
                let opposite: Character = expected == "U" ? "U" : expected == "T" ? "F" : "T"
                #expect(sql.truth("a NOT IN (\(list))", message) == opposite)
                #expect(sql.truth("a IS NULL", message) == (expected == "U" ? "T" : "F"))
                #expect(sql.truth("a IS NOT NULL", message) == (expected == "U" ? "F" : "T"))
            }
        }
    }
}
