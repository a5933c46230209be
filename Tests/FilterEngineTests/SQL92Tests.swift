import CFilterPlugin
import Foundation
import TestTools
import Testing

@testable import FilterEngine

/// The plugin behind `match_batch`, one message at a time: `nil` properties are missing ones.
struct SQL92 {
    let programs: FilterPrograms

    init() throws {
        let catalogue = FilterCatalogue(logger: LogBook().logger)
        let path = URL(fileURLWithPath: PluginWorkshop.tagPlugin).deletingLastPathComponent()
            .appendingPathComponent("libApusSQL92Filter.so").path
        try catalogue.load(path: path)
        programs = FilterPrograms(catalogue: catalogue)
    }

    func compile(_ expression: String) -> FilterPrograms.Answer {
        programs.compile(type: "SQL92", expression: expression)
    }

    /// Nil: refused.
    func matches(_ expression: String, _ properties: [String: String]) -> Bool? {
        guard case .program(let id, _) = compile(expression), let program = programs.program(id) else { return nil }
        defer { programs.release(id) }
        let text = Array(properties.map { "\($0.key)\u{1}\($0.value)" }.joined(separator: "\u{2}").utf8)
        return text.withUnsafeBufferPointer { bytes in
            var unit = apus_filter_unit()
            unit.properties = bytes.baseAddress
            unit.properties_size = UInt32(bytes.count)
            var bitmap: UInt8 = 0
            return program.match(&unit, 1, &bitmap) ? bitmap == 1 : nil
        }
    }

    /// The three-valued answer: `U` is what neither the expression nor its negation delivers.
    func truth(_ expression: String, _ properties: [String: String]) -> Character? {
        guard let yes = matches(expression, properties), let no = matches("NOT (\(expression))", properties) else {
            return nil
        }
        return yes ? "T" : no ? "F" : "U"
    }
}

@Suite("the SQL92 plugin")
struct SQL92Tests {
    let sql: SQL92
    /// t, f and u are conditions of each truth value.
    static let message = [
        "a": "5", "b": "x", "text": "hangzhou", "n": "-2.50", "big": "9007199254740993", "yes": "TRUE", "no": "false",
        "quote": "it's", "e": "1e3", "TAGS": "TagA", "cn": "订单", "five": "5.0",
    ]

    static let conditions: [(String, String)] = [
        // Numbers as numbers, whatever their spelling.
        ("a = 5", "T"), ("a = 5.0", "T"), ("a = 5e0", "T"), ("a = 5L", "T"), ("five = 5", "T"), ("a <> 5.00", "F"),
        ("a > 4.99", "T"), ("a >= 5", "T"), ("a < 5", "F"), ("a <= 5", "T"), ("5 = a", "T"), ("4 < a", "T"),
        ("6 <= a", "F"), ("n = -2.5", "T"), ("n < -2.49", "T"), ("n = - 2.5", "T"), ("n > -3", "T"),
        ("-n = 2.5", "T"), ("- -n = -2.5", "T"), ("+a = 5", "T"), ("e = 1000", "T"), ("e > 999.5", "T"),
        ("big = 9007199254740993", "T"), ("big = 9007199254740992", "F"), ("big > 9007199254740992.0", "T"),
        ("a = five", "T"), ("a <> five", "F"), ("a <= five", "T"), ("a < n", "F"), ("a = .5", "F"), ("a = 5.", "T"),
        ("a = 0.0", "F"),
        // A number and what is none.
        ("b = 5", "U"), ("b <> 5", "U"), ("b > 5", "U"), ("b < a", "U"), ("a > b", "U"), ("-b = 1", "U"),
        ("b between 1 and 2", "U"), ("'x' = 5", "U"), ("'5' = 5", "T"), ("a = '5'", "T"), ("a = '5.0'", "F"),
        // Strings.
        ("b = 'x'", "T"), ("b = 'X'", "F"), ("b <> 'y'", "T"), ("'x' = b", "T"), ("quote = 'it''s'", "T"),
        ("cn = '订单'", "T"), ("b = ''", "F"), ("b = text", "F"), ("'a' = 'a'", "T"), ("'a' <> 'b'", "T"),
        // Missing properties.
        ("missing = 'x'", "U"), ("missing <> 'x'", "U"), ("missing > 1", "U"), ("missing = b", "U"),
        ("b = missing", "U"), ("missing IS NULL", "T"), ("missing IS NOT NULL", "F"), ("a IS NULL", "F"),
        ("a is not null", "T"), ("(missing = 1) IS NULL", "T"), ("(a = 5) IS NULL", "F"), ("-b IS NULL", "T"),
        ("'x' IS NULL", "F"), ("NULL IS NULL", "T"), ("NULL", "U"), ("missing", "U"),
        // BETWEEN and IN.
        ("a BETWEEN 5 AND 5", "T"), ("a between 6 and 7", "F"), ("a NOT BETWEEN 6 AND 7", "T"),
        ("a NOT BETWEEN 1 AND 9", "F"), ("missing BETWEEN 1 AND 2", "U"), ("missing NOT BETWEEN 1 AND 2", "U"),
        ("a BETWEEN -1 AND 1e1", "T"), ("a BETWEEN missing AND 4", "F"), ("a BETWEEN missing AND 9", "U"),
        ("a BETWEEN n AND five", "T"), ("7 BETWEEN a AND 9", "T"), ("a = 5 AND a BETWEEN 1 AND 9 AND b = 'x'", "T"),
        ("b IN ('w','x','y')", "T"), ("b IN ('w')", "F"), ("b NOT IN ('w')", "T"), ("b not in ('x')", "F"),
        ("missing IN ('x')", "U"), ("missing NOT IN ('x')", "U"), ("a IN ('5')", "T"), ("a IN ('5.0')", "F"),
        ("b IN ('1','2','3','4','5','6','7','8','9','x','x')", "T"), ("b IN ('')", "F"),
        // Texts.
        ("text CONTAINS 'gz'", "T"), ("text contains 'zg'", "F"), ("text NOT CONTAINS 'gz'", "F"),
        ("text STARTSWITH 'hang'", "T"), ("text STARTSWITH 'ang'", "F"), ("text NOT STARTSWITH 'ang'", "T"),
        ("text ENDSWITH 'zhou'", "T"), ("text ENDSWITH 'zho'", "F"), ("text NOT ENDSWITH 'x'", "T"),
        ("text CONTAINS 'hangzhou'", "T"), ("text CONTAINS 'hangzhous'", "F"), ("text ENDSWITH 'hangzhou'", "T"),
        ("missing CONTAINS 'x'", "U"), ("missing NOT CONTAINS 'x'", "U"), ("text CONTAINS ''", "F"),
        ("text NOT STARTSWITH ''", "F"), ("'abc' CONTAINS 'bc'", "T"), ("'abc' NOT ENDSWITH 'bc'", "F"),
        ("cn CONTAINS '单'", "T"), ("5 CONTAINS '5'", "F"),
        // Truth values.
        ("TRUE", "T"), ("false", "F"), ("yes = TRUE", "T"), ("yes = FALSE", "F"), ("no = FALSE", "T"),
        ("TRUE = yes", "T"), ("b = TRUE", "F"), ("yes", "T"), ("no", "F"), ("NOT no", "T"), ("yes AND NOT no", "T"),
        ("missing = TRUE", "U"), ("(a = 5) = TRUE", "T"), ("(a = 5) = (b = 'x')", "T"),
        ("(a = 5) <> (b = 'x')", "F"),
        ("(a = 5) = (missing = 1)", "U"), ("a = 5 = TRUE", "T"), ("(a > 4) = yes", "T"),
        // Names, blanks, comments.
        ("TAGS = 'TagA'", "T"), ("TAGS IN ('TagB','TagA')", "T"), ("a=5and b='x'", "T"), ("a\n=\t5\r", "T"),
        ("a = 5 -- five\n AND b = 'x'", "T"), ("a = /* not 6 */ 5", "T"), ("a > --3", "T"), ("/***/a = 5", "T"),
        ("contains IS NULL", "T"), ("a = 5 and ((((b = 'x'))))", "T"), ("$a IS NULL and _b1 IS NULL", "T"),
        // Precedence.
        ("a = 6 AND a = 6 OR b = 'x'", "T"), ("b = 'x' OR a = 6 AND a = 6", "T"),
        ("(b = 'x' OR a = 6) AND a = 6", "F"),
        ("NOT a = 6 OR b = 'x'", "T"),
    ]

    static let refused: [(String, Int, String)] = [
        ("", 0, "the expression ends"), ("a >> 3 bogus (", 3, "expected a property"),
        ("a = ", 4, "the expression ends"),
        ("a = 5 b = 6", 6, "an operator or the end"), ("a > '5'", 4, "strings have no order"),
        ("'5' < a", 0, "strings have no order"), ("a > TRUE", 4, "truth value has no order"),
        ("(a = 5) > 3", 0, "truth value has no order"), ("a = NULL", 4, "IS NULL"), ("NULL <> a", 0, "IS NULL"),
        ("5", 0, "not a condition"), ("'x' AND a = 5", 0, "not a condition"), ("a = 5 OR 6", 9, "not a condition"),
        ("NOT 5", 4, "not a condition"), ("-a", 0, "not a condition"), ("a BETWEEN 9 AND 1", 10, "lower bound"),
        ("a BETWEEN 1", 11, "AND and the upper bound"), ("a BETWEEN 'a' AND 'b'", 10, "no order"),
        ("a IN (5)", 6, "values of IN are strings"), ("a IN ('x'", 9, ", or )"), ("a IN ()", 6, "a string"),
        ("5 IN ('5')", 0, "a property"), ("a = 'x", 4, "does not end"), ("a != 5", 2, "<>"),
        ("a # 5", 2, "character #"),
        ("a = 99999999999999999999", 4, "whole number"), ("a = 007", 4, "start with 0"),
        ("a = 1e999", 4, "too large"),
        ("a IS 5", 5, "NULL or NOT NULL"), ("a IS NOT 5", 9, "NULL"), ("a NOT 5", 6, "after NOT"),
        ("a CONTAINS b", 11, "a string"), ("(a = 5", 6, ")"), ("a = 5)", 5, "an operator or the end"),
        ("TRUE = 5", 5, "truth value"), ("a = 5 /* x", 6, "comment"), ("a = .", 4, "unexpected ."),
        ("AND", 0, "found AND"),
        ("a = \u{e9}", 4, "byte 195"),
    ]

    init() throws { sql = try SQL92() }

    @Test("AND, OR and NOT of three values")
    func connectives() {
        let words = ["T": "a = 5", "F": "a = 6", "U": "missing = 1"]
        let and = ["TT": "T", "TF": "F", "TU": "U", "FT": "F", "FF": "F", "FU": "F", "UT": "U", "UF": "F", "UU": "U"]
        let or = ["TT": "T", "TF": "T", "TU": "T", "FT": "T", "FF": "F", "FU": "U", "UT": "T", "UF": "U", "UU": "U"]
        for (x, left) in words {
            for (y, right) in words {
                #expect(sql.truth("\(left) AND \(right)", Self.message).map(String.init) == and[x + y])
                #expect(sql.truth("\(left) OR \(right)", Self.message).map(String.init) == or[x + y])
            }
        }
        #expect(sql.truth("NOT (a = 5)", Self.message) == "F")
        #expect(sql.truth("NOT (a = 6)", Self.message) == "T")
        #expect(sql.truth("NOT (missing = 1)", Self.message) == "U")
    }

    @Test(
        "one condition each",
        arguments: Self.conditions)
    func condition(expression: String, expected: String) {
        #expect(sql.truth(expression, Self.message).map(String.init) == expected, "\(expression)")
    }

    @Test(
        "what RocketMQ refuses is refused, with the place",
        arguments: Self.refused)
    func refusals(expression: String, position: Int, reason: String) {
        guard case .refused(let at, let text) = sql.compile(expression) else {
            Issue.record("\(expression) was taken")
            return
        }
        #expect(at == position, "\(expression): \(text)")
        #expect(text.contains(reason), "\(expression): \(text)")
    }

    @Test("bounds: depth, operands, properties")
    func bounds() {
        func refusal(_ expression: String) -> String? {
            if case .refused(_, let reason) = sql.compile(expression) { reason } else { nil }
        }
        func nested(_ depth: Int) -> String {
            String(repeating: "(", count: depth) + "a = 5" + String(repeating: ")", count: depth)
        }
        #expect(sql.matches(nested(150), Self.message) == true)
        #expect(refusal(nested(250))?.contains("deep") == true)
        #expect(refusal(String(repeating: "NOT ", count: 5000) + "a")?.contains("deep") == true)
        let many = (0..<900).map { "a = \($0)" }.joined(separator: " OR ")
        #expect(sql.matches(many, Self.message) == true)
        #expect(refusal((0..<1100).map { "a = \($0)" }.joined(separator: " OR "))?.contains("operands") == true)
        #expect(sql.matches((0..<256).map { "p\($0) IS NULL" }.joined(separator: " AND "), Self.message) == true)
        let wide = (0..<300).map { "p\($0) IS NULL" }.joined(separator: " AND ")
        #expect(refusal(wide)?.contains("different properties") == true)
    }

    /// Texts that make a search by places take 10^9 steps, in the expression and in a message.
    @Test("long texts are searched in no time, and rightly")
    func longTexts() {
        let many = String(repeating: "a", count: 43_000)
        let half = String(repeating: "a", count: 21_000)
        // By the test, which of these a text and another one meet: CONTAINS, STARTSWITH, ENDSWITH.
        let cases: [(value: String, search: String, found: [Bool])] = [
            (many, half + "b", [false, false, false]), (many + "b", half + "b", [true, false, true]),
            (many, half, [true, true, true]), ("b" + many, "b" + half, [true, true, false]),
            (half, many, [false, false, false]), (half + "bc" + half, half + "b", [true, true, false]),
            (half + "bc" + half, "bd", [false, false, false]), (half + "bc" + half, "bc", [true, false, false]),
        ]
        func ask(_ operand: (String) -> String, _ properties: (String) -> [String: String]) {
            for (value, search, found) in cases {
                for (test, expected) in zip(["CONTAINS", "STARTSWITH", "ENDSWITH"], found) {
                    let (left, right) = (operand(value), "\(test) '\(search)'")
                    let what = "\(value.count) \(test) \(search.count)"
                    let yes = sql.matches("\(left) \(right)", properties(value)) == expected
                    #expect(yes, "\(what)")
                    let no = sql.matches("\(left) NOT \(right)", properties(value)) == !expected
                    #expect(no, "NOT: \(what)")
                }
            }
        }
        let clock = ContinuousClock()
        let took = clock.measure {
            ask({ "'\($0)'" }, { _ in [:] })
            for _ in 0..<2 { ask({ _ in "text" }, { ["text": $0] }) }
        }
        #expect(took < .seconds(20))
    }

    @Test("an empty value is none, the last of two counts, odd property texts do no harm")
    func propertyTexts() throws {
        func matches(_ expression: String, _ properties: String) throws -> Bool {
            guard case .program(let id, _) = sql.compile(expression) else { throw SyntaxProblem() }
            let program = try #require(sql.programs.program(id))
            return Array(properties.utf8).withUnsafeBufferPointer { bytes in
                var unit = apus_filter_unit()
                unit.properties = bytes.baseAddress
                unit.properties_size = UInt32(bytes.count)
                var bitmap: UInt8 = 0
                return program.match(&unit, 1, &bitmap) && bitmap == 1
            }
        }
        #expect(try matches("a IS NULL", "a\u{1}\u{2}b\u{1}c"))
        #expect(try matches("a = 'y'", "a\u{1}x\u{2}a\u{1}y\u{2}"))
        #expect(try matches("b = 'c'", "\u{2}\u{2}junk\u{2}\u{1}\u{2}b\u{1}c"))
        #expect(try matches("ab IS NULL AND a = 'x\u{1}y'", "a\u{1}x\u{1}y"))
        #expect(try matches("a IS NULL", ""))
        #expect(try matches("a = '1'", "aa\u{1}2\u{2}a\u{1}1"))
    }

    struct SyntaxProblem: Error {}

    @Test("tags that a match must have become the prefilter")
    func prefilter() throws {
        func codes(_ expression: String) throws -> Set<Int64>? {
            guard case .program(let id, _) = sql.compile(expression) else { throw SyntaxProblem() }
            guard case .prefilter(let codes) = try #require(sql.programs.program(id)).tagsCodes else { return nil }
            return codes
        }
        let hash = TagPluginTests.javaHash
        #expect(try codes("TAGS = 'TagA' AND a > 5") == [hash("TagA")])
        #expect(
            try codes(
                "(TAGS is not null and TAGS in ('TagA','TagB')) and (a is not null and a between 3 and 20) and color = 'red'"
            )
                == [hash("TagA"), hash("TagB")])
        #expect(try codes("TAGS = 'x' OR TAGS = 'y'") == [hash("x"), hash("y")])
        #expect(try codes("TAGS = 'x' OR a = 5") == nil)
        #expect(try codes("NOT (TAGS = 'x')") == nil)
        #expect(try codes("TAGS NOT IN ('x')") == nil)
        #expect(try codes("a = 5") == nil)
    }

    @Test("any text compiles or is refused, and what compiles can be run")
    func fuzz() {
        let words = [
            "a", "b", "missing", "n", "5", "-", "1.5e3", "'x'", "''", "(", ")", "=", "<>", "<", ">=", "AND", "OR",
            "NOT",
            "BETWEEN", "IN", "IS", "NULL", "TRUE", "CONTAINS", "STARTSWITH", ",", "+", "/*", "*/", "--", "\n", "'",
            "TAGS",
            "9223372036854775807", "é", "\u{0}", ".", "$",
        ]
        var compiled = 0
        for _ in 0..<20_000 {
            let text = (0..<Int.random(in: 0...12)).compactMap { _ in words.randomElement() }.joined(separator: " ")
            switch sql.compile(text) {
            case .program:
                compiled += 1
                _ = sql.matches(text, Self.message)
            case .refused(let position, let reason):
                #expect(position >= 0 && Int(position) <= text.utf8.count && !reason.isEmpty, "\(text)")
            case .everything, .tagsCodes, .unavailable, .elsewhere:
                Issue.record("\(text)")
            }
        }
        #expect(compiled > 10, "the words never made an expression")
    }

    @Test("random conditions agree with a plain evaluator")
    func differential() {
        for _ in 0..<3000 {
            let (text, expected) = Self.randomCondition(depth: 4)
            #expect(sql.truth(text, Self.message) == expected, "\(text)")
        }
    }

    /// A condition and its truth value for `message`, made together.
    static func randomCondition(depth: Int) -> (String, Character) {
        switch depth > 0 ? Int.random(in: 0...6) : Int.random(in: 4...6) {
        case 0, 1:
            let (x, a) = randomCondition(depth: depth - 1)
            let (y, b) = randomCondition(depth: depth - 1)
            return ("(\(x)) AND (\(y))", a == "F" || b == "F" ? "F" : a == "U" || b == "U" ? "U" : "T")
        case 2:
            let (x, a) = randomCondition(depth: depth - 1)
            let (y, b) = randomCondition(depth: depth - 1)
            return ("(\(x)) OR (\(y))", a == "T" || b == "T" ? "T" : a == "U" || b == "U" ? "U" : "F")
        case 3:
            let (x, a) = randomCondition(depth: depth - 1)
            return ("NOT (\(x))", a == "T" ? "F" : a == "F" ? "T" : "U")
        case 4:
            let number = Int.random(in: 3...7)
            switch Int.random(in: 0...3) {
            case 0: return ("a = \(number)", number == 5 ? "T" : "F")
            case 1: return ("a <> \(number)", number != 5 ? "T" : "F")
            case 2: return ("a < \(number)", 5 < number ? "T" : "F")
            default: return ("a >= \(number)", 5 >= number ? "T" : "F")
            }
        case 5: return ("missing > \(Int.random(in: 0...9))", "U")
        default:
            let value = ["x", "y"].randomElement() ?? "x"
            return ("b = '\(value)'", value == "x" ? "T" : "F")
        }
    }
}
