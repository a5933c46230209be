import Foundation
import TestTools
import Testing

@testable import FilterEngine

@Suite("the tag plugin")
struct TagPluginTests {
    let programs: FilterPrograms
    let catalogue: FilterCatalogue

    init() throws {
        catalogue = FilterCatalogue(logger: LogBook().logger)
        try catalogue.load(path: PluginWorkshop.tagPlugin)
        programs = FilterPrograms(catalogue: catalogue)
    }

    /// Java's `String.hashCode`, written down a second time.
    static func javaHash(_ text: String) -> Int64 {
        Int64(text.utf16.reduce(Int32(0)) { $0 &* 31 &+ Int32($1) })
    }

    func compile(_ expression: String) -> FilterPrograms.Answer {
        programs.compile(type: "TAG", expression: expression)
    }

    @Test("it says what it is")
    func identity() throws {
        let plugin = try #require(catalogue.plugin(forType: "TAG"))
        #expect(plugin.name == "tag")
        #expect(plugin.capabilities == 0)
        #expect(!plugin.release.isEmpty)
    }

    @Test("* matches everything", arguments: ["*", " * ", "", "  "])
    func everything(expression: String) {
        #expect(compile(expression) == .everything)
    }

    @Test(
        "tags become Java's hash codes, and nothing else is needed",
        arguments: [
            ("TagA", ["TagA"]), ("TagA || TagB", ["TagA", "TagB"]), ("TagA||TagB||TagC", ["TagA", "TagB", "TagC"]),
            ("TagA||", ["TagA"]), ("||TagA", ["TagA"]), ("A|B", ["A|B"]), ("TagA || TagA", ["TagA"]),
            ("a tag", ["a tag"]), ("订单||支付", ["订单", "支付"]), ("🐦", ["🐦"]), ("é||e\u{301}", ["é", "e\u{301}"]),
            ("* || TagA", ["*", "TagA"]), ("|||x", ["|x"]), ("\u{1}TagA\t", ["TagA"]), ("\u{a0}x", ["\u{a0}x"]),
        ])
    func codes(expression: String, tags: [String]) {
        #expect(compile(expression) == .tagsCodes(Set(tags.map(Self.javaHash)).sorted()))
    }

    @Test("tags with one hash have one code")
    func equalHash() {
        #expect(compile("Aa") == compile("BB"))
        #expect(compile("Aa||BB") == .tagsCodes([2112]))
    }

    @Test("codes are widened with their sign")
    func negative() {
        #expect(Self.javaHash("polygenelubricants") == Int64(Int32.min))
        #expect(compile("polygenelubricants") == .tagsCodes([Int64(Int32.min)]))
    }

    @Test("an expression without a tag is refused with its place", arguments: ["||", " || ", "||||"])
    func noTag(expression: String) {
        guard case .refused(0, let reason) = compile(expression) else {
            Issue.record("\(expression) was taken")
            return
        }
        #expect(reason.contains("no tag in the expression"))
    }

    @Test("as many tags as fit, and no more")
    func manyTags() {
        func expression(_ count: Int) -> String { (0..<count).map { "t\($0)" }.joined(separator: "||") }
        guard case .tagsCodes(let codes) = compile(expression(4096)) else {
            Issue.record("4096 tags were not taken")
            return
        }
        #expect(codes.count == 4096)
        guard case .refused(let position, let reason) = compile(expression(5000)) else {
            Issue.record("5000 tags were taken")
            return
        }
        #expect(position > 0)
        #expect(reason.contains("more than 4096 tags"))
        guard case .refused = compile(String(repeating: "x", count: FilterPrograms.maximumExpression + 1)) else {
            Issue.record("an endless expression was taken")
            return
        }
    }

    @Test("any text compiles or is refused")
    func fuzz() {
        var random = SystemRandomNumberGenerator()
        let alphabet: [Character] = ["|", "*", "a", " ", "\u{0}", "é", "🐦", "\u{301}", "|", "\t"]
        for _ in 0..<2000 {
            let text = String((0..<Int.random(in: 0...12, using: &random)).compactMap { _ in alphabet.randomElement() })
            switch compile(text) {
            case .everything, .tagsCodes, .refused: break
            case .program, .unavailable, .elsewhere: Issue.record("\(text.debugDescription)")
            }
        }
    }
}
