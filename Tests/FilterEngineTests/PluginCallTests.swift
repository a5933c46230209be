import Foundation
import TestTools
import Testing

@testable import FilterEngine

/// `PLUGIN('TYPE', 'expression')` inside SQL92.
@Suite("SQL92 calls plugins: three-valued with AND, OR and NOT, with their places in refusals and their failures")
struct PluginCallTests {
    let workshop: PluginWorkshop
    let catalogue = FilterCatalogue(logger: LogBook().logger)
    let programs: FilterPrograms

    /// Type HAS: the expression is a property that must be there; `fail…` fails, `!` is refused at its place, `all`
    /// matches all, `tag:x` is answered with a tags code, `only:x` with a prefilter.
    init() throws {
        workshop = try PluginWorkshop()
        let folder = URL(fileURLWithPath: PluginWorkshop.tagPlugin).deletingLastPathComponent()
        try catalogue.load(path: PluginWorkshop.tagPlugin)
        try catalogue.load(path: folder.appendingPathComponent("libApusSQL92Filter.so").path)
        try catalogue.load(
            path: try workshop.plugin(
                "has", type: "HAS", capabilities: "APUS_FILTER_NEEDS_PROPERTIES",
                compile: """
                    const char *bad = length ? memchr(expression, '!', length) : 0;
                    if (bad) { return apus_filter_refuse(compiled, (size_t)(bad - expression), "what is !", 9); }
                    struct has *has = calloc(1, sizeof *has);
                    memcpy(has->name, expression, length < 63 ? length : 63);
                    has->length = length < 63 ? length : 63;
                    compiled->program = has;
                    if (length == 3 && memcmp(expression, "all", 3) == 0) compiled->tags_codes_kind = APUS_FILTER_MATCHES_EVERYTHING;
                    if (length > 4 && (memcmp(expression, "tag:", 4) == 0 || memcmp(expression, "only", 4) == 0)) {
                        int exact = expression[0] == 't';
                        has->code = apus_filter_tags_code((const uint8_t *)expression + (exact ? 4 : 5), length - (exact ? 4 : 5));
                        compiled->tags_codes_kind = exact ? APUS_FILTER_TAGS_CODES_EXACT : APUS_FILTER_TAGS_CODES_PREFILTER;
                        compiled->tags_codes = &has->code;
                        compiled->tags_code_count = 1;
                    }
                    return APUS_FILTER_OK;
                    """,
                match: """
                    const struct has *has = program;
                    if (has->length > 3 && memcmp(has->name, "fail", 4) == 0) return APUS_FILTER_FAILED;
                    for (uint32_t i = 0; i < count; i++) {
                        size_t size;
                        if (has->code || apus_filter_property(&units[i], has->name, has->length, &size)) apus_filter_set(bitmap, i);
                    }
                    return APUS_FILTER_OK;
                    """,
                before: "struct has { char name[64]; size_t length; int64_t code; };"))
        programs = FilterPrograms(catalogue: catalogue)
    }

    func matches(_ expression: String, _ properties: [String: String]) throws -> Bool {
        guard case .program(let id, _) = programs.compile(type: "SQL92", expression: expression) else {
            Issue.record("\(expression): \(programs.compile(type: "SQL92", expression: expression))")
            return false
        }
        let program = try #require(programs.program(id))
        let text = properties.map { "\($0.key)\u{1}\($0.value)" }.joined(separator: "\u{2}")
        let code = properties["TAGS"].map(FilterProbe.tagsCode) ?? 0
        // A few hundred of them, so that every bit of a batch is carried over.
        return try FilterProbe(program).ask(properties: Array(text.utf8), tagsCode: code, copies: 300).matches
    }

    /// Every combination of a call that says yes or no with a side that is true, false or unknown.
    @Test("against SQL's tables: the call is true or false, never unknown")
    func truth() throws {
        for (present, sides) in [(true, [true, false, nil]), (false, [true, false, nil] as [Bool?])] {
            for side in sides {
                var message: [String: String] = present ? ["x": "1"] : [:]
                if let side { message["n"] = side ? "7" : "3" }
                let (call, other) = ("PLUGIN('HAS', 'x')", "n > 5")
                func and(_ a: Bool?, _ b: Bool?) -> Bool? {
                    a == false || b == false ? false : a == nil || b == nil ? nil : true
                }
                func or(_ a: Bool?, _ b: Bool?) -> Bool? {
                    a == true || b == true ? true : a == nil || b == nil ? nil : false
                }
                func not(_ a: Bool?) -> Bool? { a.map { !$0 } }
                let cases: [(String, Bool?)] = [
                    (call, present), ("NOT \(call)", !present), ("NOT (NOT \(call))", present),
                    ("\(call) AND \(other)", and(present, side)), ("\(other) AND \(call)", and(present, side)),
                    ("\(call) OR \(other)", or(present, side)), ("\(other) OR NOT \(call)", or(side, !present)),
                    ("NOT (\(call) AND \(other))", not(and(present, side))),
                    ("NOT (\(call) OR \(other))", not(or(present, side))),
                    (
                        "(\(call) OR n = 3) AND (n < 100 OR NOT \(call))",
                        and(or(present, side.map { !$0 }), or(side.map { _ in true }, !present))
                    ),
                    ("\(call) = TRUE", present), ("\(call) IS NULL", false), ("plugin('HAS','x') AND x = '1'", present),
                ]
                for (text, expected) in cases {
                    #expect(try matches(text, message) == (expected == true), "\(text) of \(message)")
                }
            }
        }
    }

    @Test("two plugins, one call twice, every kind of answer about tags, and properties called PLUGIN")
    func kinds() throws {
        #expect(try matches("PLUGIN('HAS', 'x') AND PLUGIN('TAG', 'a || b')", ["x": "1", "TAGS": "b"]))
        #expect(try !matches("PLUGIN('HAS', 'x') AND PLUGIN('TAG', 'a || b')", ["x": "1", "TAGS": "c"]))
        #expect(try matches("PLUGIN('HAS', 'x') OR PLUGIN('HAS', 'y') AND PLUGIN('HAS', 'x')", ["x": "1"]))
        #expect(try matches("PLUGIN('HAS', 'all') AND a = '1'", ["a": "1"]))
        #expect(try matches("PLUGIN('HAS', 'tag:t')", ["TAGS": "t"]))
        #expect(try !matches("PLUGIN('HAS', 'tag:t')", ["TAGS": "u"]))
        #expect(try matches("PLUGIN('HAS', 'only:t')", ["TAGS": "t"]))
        #expect(try !matches("PLUGIN('HAS', 'only:t') AND a = '1'", ["TAGS": "u", "a": "1"]))
        #expect(try matches("NOT PLUGIN('HAS', 'only:t') AND a = '1'", ["TAGS": "u", "a": "1"]))
        #expect(try matches("PLUGIN = 'x' AND PLUGIN('HAS', 'it''s')", ["PLUGIN": "x", "it's": "1"]))
        #expect(
            programs.compile(type: "SQL92", expression: "TAGS = 't' AND PLUGIN('HAS', 'x')").prefilter
                == [FilterProbe.tagsCode("t")])
    }

    @Test(
        "refusals name the place in the whole expression",
        arguments: [
            ("a = 1 AND PLUGIN('HAS', 'ab!')", 27, "HAS: what is !"),
            ("PLUGIN('HAS', 'a''b!')", 19, "HAS: what is !"),
            ("PLUGIN('SQL92', 'a = 1')", 8, "SQL92 inside SQL92: write the condition itself"),
            ("PLUGIN('HAS')", 12, "expected , and the plugin's expression: PLUGIN('TYPE', 'expression'), found )"),
            (
                "PLUGIN(HAS, 'x')", 7,
                "expected the plugin's type as a string: PLUGIN('TYPE', 'expression'), found \"HAS\""
            ),
            ("PLUGIN('HAS', 'x'", 17, "expected ) after the plugin's expression, found the expression ends"),
            ("PLUGIN('', 'x')", 8, "a plugin's type has 1 to 64 bytes"),
            ("PLUGIN('HAS', 'x') > 5", 0, "a truth value has no order"),
        ])
    func refusals(text: String, position: Int32, reason: String) {
        #expect(programs.compile(type: "SQL92", expression: text) == .refused(position: position, reason: reason))
    }

    @Test("a plugin that is not here is asked for elsewhere, with all of them; one that fails, fails the batch by name")
    func others() throws {
        #expect(
            programs.compile(
                type: "SQL92", expression: "PLUGIN('HAS', 'x') OR PLUGIN('GONE', 'y') AND PLUGIN('TAG', 'z')")
                == .elsewhere(
                    types: ["GONE", "HAS"],
                    reason: "no filter plugin serves expressions of the type GONE, which this one calls"))
        guard case .program(let id, _) = programs.compile(type: "SQL92", expression: "a = 1 OR PLUGIN('HAS', 'fails')"),
            let program = programs.program(id)
        else {
            Issue.record("refused")
            return
        }
        #expect(throws: FilterProbe.Failed.self) { try FilterProbe(program).ask(properties: []) }
        #expect(program.culprit?.name == "has")
        for _ in 0..<3 { _ = try? FilterProbe(program).ask(properties: []) }
        #expect(
            program.culprit?.failing == "plugin has failed its last 4 calls for \"fails\": its consumers get nothing")
        // What works in between hides nothing, and what works again is no failure any more.
        guard case .program(let good, _) = programs.compile(type: "HAS", expression: "x"),
            let other = programs.program(good)
        else {
            Issue.record("refused")
            return
        }
        _ = try FilterProbe(other).ask(properties: [])
        programs.release(good)
        #expect(program.culprit?.failing?.contains("its last 4 calls") == true)
        #expect(programs.inUse.map(\.plugins) == [["sql92", "has"]])
        let many = (0..<65).map { "PLUGIN('HAS', 'p\($0)')" }.joined(separator: " OR ")
        guard
            case .refused(_, "more than 64 different calls of plugins") = programs.compile(
                type: "SQL92", expression: many)
        else {
            Issue.record("65 calls were taken")
            return
        }
    }
}

extension FilterPrograms.Answer {
    var prefilter: [Int64]? { if case .program(_, let codes) = self { codes } else { nil } }
}
