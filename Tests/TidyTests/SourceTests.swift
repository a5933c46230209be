import Foundation
import Testing

@Suite("what the house does not allow in its sources")
struct SourceTests {
    static let shipped =
        Repository.files(below: "Sources", endings: [".swift"])
        + Repository.files(below: "plugins", endings: [".swift"])

    /// (what, why it is banned)
    static let banned: [(pattern: String, reason: String)] = [
        (#"\btry!"#, "an error of the world would become a crash without words"),
        (#"\bas!"#, "a wrong type would become a crash without words"),
        (#"\b(TODO|FIXME|XXX)\b"#, "unfinished work belongs in an issue"),
        (#"\bfatalError\(\)"#, "a trap must say which rule was broken"),
        (#"\bpreconditionFailure\(\)"#, "a trap must say which rule was broken"),
        (#"catch\s*\{\s*\}"#, "nothing is swallowed"),
        (#"(?<!Task\.)\bsleep\("#, "a thread never sleeps: waits are events or deadlines"),
        (#"//\s*MARK:(?! - \S)"#, "sections have one form: // MARK: - Title"),
        (
            #"\b(?:(?:let|var|func|case) (?:\w*(?:Milli|Micro|Nano)|milli|micro|nano)s\b|"#
                + #"(?:\w*(?:Milli|Micro|Nano)|milli|micro|nano)s: [A-Z])"#,
            "units have one spelling: milliseconds, microseconds, nanoseconds"
        ),
    ]

    @Test("no banned call", arguments: banned.map(\.pattern))
    func noBannedCall(pattern: String) throws {
        let reason = Self.banned.first { $0.pattern == pattern }?.reason ?? ""
        let expression = try NSRegularExpression(pattern: pattern)
        for file in Self.shipped {
            let text = try Repository.text(file)
            for (index, line) in text.components(separatedBy: "\n").enumerated() {
                let hit = expression.firstMatch(in: line, range: NSRange(line.startIndex..., in: line))
                #expect(hit == nil, "\(file):\(index + 1): \(pattern): \(reason)")
            }
        }
    }

    @Test("the patterns find what they are for")
    func patternsWork() throws {
        let samples = [
            "let x = try! f()", "x as! Int", "// TODO later", "fatalError()", "preconditionFailure()", "catch {}",
            "sleep(1)", "// MARK: title", "package let dueMillis = 5", "func nanos() -> Int {}",
            "case late(millis: Int64)",
        ]
        #expect(samples.count >= Self.banned.count)
        for (sample, rule) in zip(samples, Self.banned + [Self.banned[8], Self.banned[8]]) {
            let expression = try NSRegularExpression(pattern: rule.pattern)
            #expect(
                expression.firstMatch(in: sample, range: NSRange(sample.startIndex..., in: sample)) != nil,
                "\(rule.pattern)")
        }
    }

    @Test("the top level holds what the mission names, nothing else")
    func topLevel() throws {
        let allowed: Set<String> = [
            "Package.swift", "Package.resolved", "Sources", "Tests", "units", "plugins", "findings", "README.md",
            "LICENSE",
        ]
        func extra(_ names: [String]) -> Set<String> { Set(names).subtracting(allowed) }
        #expect(extra(["Sources", "scratch"]) == ["scratch"])
        let found = extra(try Repository.topLevel())
        #expect(found.isEmpty, "\(found.sorted())")
    }

    @Test("programs do without Foundation, whose tables for all languages alone are 35 MB")
    func withoutFoundation() throws {
        func imports(_ source: String) -> [String] {
            importedModules(source).filter { $0.hasPrefix("Foundation") }
        }
        #expect(imports("import Glibc\nimport FoundationEssentials\n// import Foundation") == ["FoundationEssentials"])
        for file in Self.shipped {
            let foundation = imports(try Repository.text(file))
            #expect(foundation.isEmpty, "\(file) imports \(foundation)")
        }
    }

    @Test("the broker is handed to nobody: only its own files name it")
    func brokerIsNotHandedOut() throws {
        let name = try NSRegularExpression(pattern: #"\bBroker\b"#)
        func names(_ line: String) -> Bool {
            let code = line.components(separatedBy: "//")[0].components(separatedBy: "\"")[0]
            return name.firstMatch(in: code, range: NSRange(code.startIndex..., in: code)) != nil
        }
        #expect(["init(_ broker: Broker) {", "    unowned let home: Broker"].allSatisfy(names))
        #expect(!["import BrokerService", "/// Made by `Broker`.", "log(\"Broker\")"].contains(where: names))
        var own = 0
        for file in Repository.files(below: "Sources/BrokerService", endings: [".swift"]) {
            let isOwn = file.hasPrefix("Sources/BrokerService/Broker")
            for (index, line) in try Repository.text(file).components(separatedBy: "\n").enumerated() {
                guard names(line) else { continue }
                if isOwn { own += 1 }
                #expect(isOwn, "\(file):\(index + 1) names Broker: give it the bundle it needs")
            }
        }
        #expect(own > 0, "the pattern finds nothing any more")
    }

    /// How a kind of worker is named in Swift; `.filter` of sequences is another one.
    static let kindName = #"\.(nameserver|brokerStore|replication)\b|\.filter\b(?!\s*[({])|WorkerKind\(rawValue:"#

    @Test("only the table of workers names their kinds: a new kind is a row")
    func kindsAreRows() throws {
        let expression = try NSRegularExpression(pattern: Self.kindName)
        func hits(_ text: String) -> Int {
            expression.numberOfMatches(in: text, range: NSRange(text.startIndex..., in: text))
        }
        #expect(["id.kind == .filter", "case .brokerStore:", "configuration.nameserver?"].allSatisfy { hits($0) == 1 })
        #expect(["names.filter { $0 }", "names.filter(isOld)", "nameserverAddress"].allSatisfy { hits($0) == 0 })
        for file in Repository.files(below: "Sources/Supervision", endings: [".swift"])
        where !file.hasPrefix("Sources/Supervision/Kinds/") {
            for (index, line) in try Repository.text(file).components(separatedBy: "\n").enumerated() {
                #expect(hits(line) == 0, "\(file):\(index + 1) names a kind of worker: make it data of WorkerRow")
            }
        }
    }

    /// (what, what the glossary of Sources/README.md has instead)
    static let houseWords: [(pattern: String, instead: String)] = [
        (#"\b(next|former|last) life\b"#, "process, restart"), (#"\b[Ww]hoever\b"#, "the subject by its name"),
        (#"\bbelieved\b"#, "trusted, counts"), (#"\b[Pp]assed over\b"#, "skipped"), (#"\bput right\b"#, "repaired"),
        (#"\bvouch"#, "is covered by"), (#"\bsums\b"#, "checksums"),
        (#"\b([Nn]o|[Ss]ome|[Aa]ny|[Ee]very)body\b"#, "which client, process, thread or read"),
    ]

    /// The comment of a line, if it has one. Texts that contain slashes are none.
    static func comment(_ line: String) -> String? {
        guard let slashes = line.range(of: "//") else { return nil }
        let quotes = line[..<slashes.lowerBound].filter { $0 == "\"" }.count
        return quotes % 2 == 0 ? String(line[slashes.lowerBound...]) : nil
    }

    @Test("comments use the glossary's words", arguments: houseWords.map(\.pattern))
    func glossary(pattern: String) throws {
        let instead = Self.houseWords.first { $0.pattern == pattern }?.instead ?? ""
        let expression = try NSRegularExpression(pattern: pattern)
        func hits(_ line: String) -> Bool {
            guard let comment = Self.comment(line) else { return false }
            return expression.firstMatch(in: comment, range: NSRange(comment.startIndex..., in: comment)) != nil
        }
        for file in Self.shipped {
            for (index, line) in try Repository.text(file).components(separatedBy: "\n").enumerated() {
                #expect(!hits(line), "\(file):\(index + 1): say \(instead)")
            }
        }
    }

    @Test("the glossary's patterns find what they are for")
    func glossaryWorks() throws {
        let samples = [
            "/// its next life", "// whoever", "// believed", "// passed over", "// put right", "// vouches", "// sums",
            "/// Nobody waits",
        ]
        #expect(samples.count == Self.houseWords.count)
        for (sample, rule) in zip(samples, Self.houseWords) {
            let expression = try NSRegularExpression(pattern: rule.pattern)
            let comment = try #require(Self.comment(sample))
            #expect(expression.firstMatch(in: comment, range: NSRange(comment.startIndex..., in: comment)) != nil)
        }
        #expect(Self.comment("let url = \"http://whoever\"") == nil)
    }

    /// What the sources declare for other modules, by file.
    static let declarations = Result {
        try shipped.map { file in
            let text = try Repository.text(file)
            return (file: file, text: text, found: SharedDeclaration.all(in: text))
        }
    }

    @Test("what a declaration for other modules throws is in its comment, or in that of the requirement it meets")
    func throwsAreDocumented() throws {
        let all = try Self.declarations.get().map { ($0.file, $0.found.filter(\.throwsItself)) }
        let requirements = Set(
            all.flatMap { $0.1 }.filter { $0.requirementOf != nil && $0.saysWhatItThrows }.map(\.signature))
        #expect(!requirements.isEmpty && all.flatMap { $0.1 }.count > 200, "the scan finds nothing any more")
        for (file, declarations) in all {
            for one in declarations where !one.saysWhatItThrows && !requirements.contains(one.signature) {
                Issue.record("\(file):\(one.line): - Throws: which error, when? \(one.signature)")
            }
        }
    }

    @Test("the scan for what throws finds each form of it")
    func throwsAreFound() {
        let planted = """
            package protocol Reader {
                /// - Throws: the file ends.
                func read() throws(ReadError) -> Int
                static func check() async throws
            }
            package struct File: Reader {
                package func read() throws(ReadError) -> Int { 1 }
                public init(path: String = "{", name: (Int) -> Bool = { _ in true }) throws {}
                package static func open(
                    _ path: String, mode: Int = 0
                ) async throws(ReadError)
                    -> File
                {
                    File()
                }
                package var size: Int {
                    get throws(ReadError) { 0 }
                }
                public subscript(index: Int) -> Int { get throws { 0 } }
                /// - Throws: EIO.
                @discardableResult
                package func close() throws -> Int { 0 }
                // None of these throws by itself, or for others.
                func inner() throws {}
                package func each<E: Error>(_ body: () throws(E) -> Void) throws(E) { try body() }
                package func all(_ body: () throws -> Void) rethrows { try body() }
                package func later(_ body: @escaping () throws -> Void) -> () throws -> Void { body }
                package var count: Int { items.filter { try read() }.count }
            }
            """
        let found = SharedDeclaration.all(in: planted).filter(\.throwsItself)
        #expect(found.map(\.line) == [3, 4, 7, 8, 9, 16, 19, 22])
        #expect(found.filter(\.saysWhatItThrows).map(\.line) == [3, 22])
        #expect(found.filter { $0.requirementOf == "Reader" }.map(\.line) == [3, 4])
        #expect(found[0].signature == found[2].signature)
        #expect(found[4].signature == "static func open(_ path: String, mode: Int = 0) async throws(ReadError) -> File")
    }

    /// What Swift's own protocols ask for: its name says the same everywhere.
    static let namedBySwift: Set<String> = [
        "description", "debugDescription", "errorDescription", "==", "<", "hash", "encode", "rawValue", "id",
        "makeIterator", "next", "startIndex", "endIndex",
    ]

    /// The declarations that need a comment and have none. An initializer needs none: it sets what its type's comment
    /// and properties explain, and `throwsAreDocumented` asks for the errors. Nor does an override, or what meets one of
    /// `requirements` in a source that names the protocol.
    static func undocumented(
        _ found: [SharedDeclaration], in text: String, requirements: [String: Set<String>]
    ) -> [SharedDeclaration] {
        let words = Set(text.split { !$0.isLetter && !$0.isNumber }.map(String.init))
        return found.filter { one in
            !one.isDocumented && !one.isOverride && one.keyword != "init" && !namedBySwift.contains(one.name)
                && (one.requirementOf != nil || requirements[one.contract]?.isDisjoint(with: words) ?? true)
        }
    }

    /// What protocols ask for with a comment, and which protocols do.
    static func requirements(_ all: [SharedDeclaration]) -> [String: Set<String>] {
        let pairs = all.filter(\.isDocumented).compactMap { one in one.requirementOf.map { (one.contract, Set([$0])) } }
        return Dictionary(pairs) { $0.union($1) }
    }

    @Test("each declaration for other modules has a comment: units, bounds, errors, thread, or what it is for")
    func declarationsAreDocumented() throws {
        let all = try Self.declarations.get()
        let everything = all.flatMap(\.found)
        let requirements = Self.requirements(everything)
        #expect(requirements.count > 20 && everything.count > 2000, "the scan finds nothing any more")
        for (file, text, found) in all {
            for one in Self.undocumented(found, in: text, requirements: requirements) {
                Issue.record("\(file):\(one.line): a comment with three slashes: \(one.signature)")
            }
        }
    }

    @Test("the scan for comments finds each form of a declaration without one")
    func declarationsAreFound() {
        let planted = """
            package import struct Low.Level
            package protocol Reader {
                /// Bytes.
                var size: Int { get }
                var path: String { get }
                func read() -> Int
            }
            /// A file.
            @frozen
            package struct File: Reader, CustomStringConvertible {
                package let size: Int = 1
                package private(set) var path = ""
                package nonisolated(unsafe) static let none = 0

                // Two slashes are a remark.
                @inlinable package func close(_ name: String = "{") {}
                package var description: String { "" }
                package static func < (left: File, right: File) -> Bool { false }
                package init(_ size: Int) {}
                package subscript(index: Int) -> Int { 0 }
                /// Bytes of both.
                package static func + (left: File, right: File) -> Int { 2 }
                func inner() { var size = 1 }
                public typealias Size = Int
                package indirect enum Kind { case one }
            }
            public final class Box: Other {
                package override func open() {}
                public class func make() {}
            }
            extension File {
                /// Detached.

                package func far() {}
                package static var size: Int { 1 }
            }
            package actor Keeper {}
            """
        let found = SharedDeclaration.all(in: planted)
        let requirements = Self.requirements(found)
        #expect(requirements == ["var size: Int": ["Reader"]])
        let missing = Self.undocumented(found, in: planted, requirements: requirements)
        #expect(missing.map(\.line) == [2, 5, 6, 12, 13, 16, 20, 24, 25, 27, 29, 34, 35, 37])
        #expect(missing.prefix(6).map(\.name) == ["Reader", "path", "read", "path", "none", "close"])
        // A type that meets no protocol explains its property itself.
        let alone = SharedDeclaration.all(in: "package struct Box {\n    package let size: Int\n}")
        #expect(Self.undocumented(alone, in: "struct Box", requirements: requirements).map(\.line) == [1, 2])
    }

    /// A line that shows where bytes lie: one of the drawings in comments, which may be wider.
    static func isLayout(_ line: String) -> Bool {
        let text = line.trimmingCharacters(in: CharacterSet(charactersIn: " /"))
        let isComment = line.trimmingCharacters(in: .whitespaces).hasPrefix("//")
        return isComment && (line.contains("///     ") || text.hasPrefix("|"))
    }

    @Test("lines end before column 121, texts and comments too, but for layouts of bytes")
    func lineWidth() throws {
        func isTooLong(_ line: String) -> Bool { line.count > 120 && !Self.isLayout(line) }
        for file in Self.shipped {
            for (index, line) in try Repository.text(file).components(separatedBy: "\n").enumerated() {
                #expect(!isTooLong(line), "\(file):\(index + 1) has \(line.count) characters")
            }
        }
        let long = String(repeating: "x", count: 118)
        #expect(isTooLong("// " + long) && !isTooLong("//" + long) && !isTooLong("/// | " + long))
        #expect(Self.isLayout("///     magic 4 | size 4") && Self.isLayout("/// | magic 4 | size 4 |"))
        #expect(!Self.isLayout("    // Too long.") && !Self.isLayout("let text = \"///     none\""))
    }

    @Test("each scenario has a number of its own")
    func scenarioNumbers() throws {
        let files = Repository.files(below: "Tests/PlatformTests", endings: ["Tests.swift"])
            .compactMap { $0.split(separator: "/").last }.filter { $0.firstMatch(of: /^T\d\d_/) != nil }
        #expect(files.count > 20)
        func repeated(_ files: [Substring]) -> [[Substring]] {
            Dictionary(grouping: files) { $0.prefix(3) }.values.filter { $0.count > 1 }
        }
        #expect(repeated(["T01_ATests.swift", "T02_BTests.swift", "T02_CTests.swift"]).map(\.count) == [2])
        #expect(repeated(files).isEmpty, "\(repeated(files))")
    }
}
