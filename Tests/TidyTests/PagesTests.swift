import Foundation
import Testing

/// The targets of `Package.swift` that ship, without plugins, as its text declares them.
struct Manifest {
    /// The modules each may import, by name.
    let targets: [String: Set<String>]

    /// - Parameter text: of `Package.swift`; what only tests use, after its first `if`, does not ship.
    init(_ text: String) {
        let shipped = text.components(separatedBy: "\nif Context")[0]
        let products = Dictionary(
            Self.matches(#"let (\w+) = Target\.Dependency\.product\(name: "(\w+)""#, shipped).map { ($0[1], $0[2]) },
            uniquingKeysWith: { $1 })
        var targets: [String: Set<String>] = [:]
        let declaration =
            #"(?:\broom|\bworker|\.target|\.systemLibrary)\(\s*(?:name: )?"([\w-]+)"(?:,\s*\[([^\]]*)\])?"#
        for match in Self.matches(declaration, shipped) {
            let modules = Self.matches(#""(\w+)""#, match[2]).map { $0[1] }
            let words = Self.matches(#"\b\w+\b"#, match[2]).compactMap { products[$0[0]] }
            targets[match[1]] = Set(modules + words)
        }
        self.targets = targets
    }

    /// What is not as in the table of rooms; each in words.
    func differences(from table: RoomTable) -> [String] {
        var found: [String] = []
        let missing = Set(targets.keys).symmetricDifference(table.rooms.keys)
        if !missing.isEmpty { found.append("only in one of the two: \(missing.sorted())") }
        for (name, modules) in targets.sorted(by: { $0.key < $1.key }) {
            guard let room = table.rooms[name] else { continue }
            for module in modules.sorted() {
                guard let other = table.rooms[module], other.floor >= room.floor else { continue }
                found.append("\(name) depends on \(module), which does not lie lower")
            }
            // The executables' row names no modules.
            guard room.floor < 5, modules != room.mayImport else { continue }
            found.append("\(name): \(modules.symmetricDifference(room.mayImport).sorted())")
        }
        return found
    }

    /// The groups of each match; a group that took no part is empty.
    static func matches(_ pattern: String, _ text: String) -> [[String]] {
        guard let expression = try? NSRegularExpression(pattern: pattern) else {
            Issue.record("not a pattern: \(pattern)")
            return []
        }
        return expression.matches(in: text, range: NSRange(text.startIndex..., in: text)).map { match in
            (0..<match.numberOfRanges).map { Range(match.range(at: $0), in: text).map { String(text[$0]) } ?? "" }
        }
    }
}

/// The walks of `Sources/README.md` and the files they lead through.
struct Walks {
    /// Each name in back quotes that is a file's, a folder's or a type's.
    let names: [String]

    init(_ page: String) {
        let text = page.components(separatedBy: "\n## Six walks").dropFirst().joined()
        names = Manifest.matches("`([^`\n]+)`", text).map { $0[1] }.filter { name in
            // The others are functions, settings, states and commands.
            name.range(of: #"^([\w-]+/)*[A-Z]\w*(\+\w+)?(\.\w+)?$"#, options: .regularExpression) != nil
        }
    }

    /// Those that no file or folder has. Folders between the parts of a name may be left out.
    ///
    /// - Parameter paths: of Swift files.
    static func unknown(_ names: [String], _ paths: [String]) -> [String] {
        let parts = paths.map { $0.replacing(".swift", with: "").split(separator: "/") }
        return names.filter { name in
            let wanted = name.split(separator: ".")[0].split(separator: "/")
            return !parts.contains { path in
                var left = wanted[...]
                // The last part met is the file, or a folder it lies in.
                for part in path where part == left.first { left = left.dropFirst() }
                return left.isEmpty
            }
        }
    }
}

@Suite("pages say what is there")
struct PagesTests {
    @Test("Package.swift has the rooms of Sources/README.md, and gives each what its row names")
    func manifest() throws {
        let table = RoomTable(markdown: try Repository.text("Sources/README.md"))
        let manifest = Manifest(try Repository.text("Package.swift"))
        #expect(manifest.targets.count > 25, "the scan finds nothing any more")
        for difference in manifest.differences(from: table) { Issue.record("\(difference)") }
    }

    @Test("the comparison with Package.swift finds each kind of difference")
    func manifestCanDiffer() {
        let table = RoomTable(
            markdown: """
                | 1 | `Low` | ground | `Logging` |
                | 2 | `Middle` | words | `Low` |
                | 3 | `High` | engine | `Low` `Middle` |
                | 5 | `one` `two` | executables | any room |
                """)
        let good = Manifest(
            """
            let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
            room("Low", [logging]),
            room("Middle", ["Low"], exclude: ["README.md"]),
            room(
                "High",
                [
                    "Low",
                    "Middle",
                ], exclude: ["README.md"]),
            worker("one", ["High", logging]),
            worker("two", []),
            if Context.environment["X"] != "" { tests("LowTests", ["Low"]) }
            """)
        #expect(good.targets["Low"] == ["Logging"] && good.targets["High"] == ["Low", "Middle"])
        #expect(good.differences(from: table).isEmpty)
        let bad = Manifest(
            """
            room("Low", ["Middle"]),
            room("Middle", ["Low"]),
            room("High", ["Low"]),
            worker("one", ["two"]),
            room("Other"),
            """)
        #expect(
            bad.differences(from: table) == [
                #"only in one of the two: ["Other", "two"]"#, #"High: ["Middle"]"#,
                "Low depends on Middle, which does not lie lower", #"Low: ["Logging", "Middle"]"#,
                "one depends on two, which does not lie lower",
            ])
    }

    @Test("the walks lead through files that exist")
    func walks() throws {
        let walks = Walks(try Repository.text("Sources/README.md"))
        #expect(walks.names.count > 60, "the scan finds nothing any more")
        #expect(Walks.unknown(walks.names, Repository.files(below: "Sources", endings: [".swift"])) == [])
    }

    @Test("a name that no file has is found in a walk")
    func walksCanBeWrong() {
        let page = """
            `Before/NotLookedAt`
            ## Six walks
            1. `Room/File` → `Folder/File+Part` [`Room/Folder`, `File.member`]: one `pwrite`, `limits.*`, `failed(cause: x)`
            2. `Room/Gone` → `File+Gone`, `Folder/Room`
            """
        let names = Walks(page).names
        #expect(
            names == [
                "Room/File", "Folder/File+Part", "Room/Folder", "File.member", "Room/Gone", "File+Gone", "Folder/Room",
            ])
        let files = ["Sources/Room/File.swift", "Sources/Room/Folder/File+Part.swift"]
        #expect(Walks.unknown(names, files) == ["Room/Gone", "File+Gone", "Folder/Room"])
    }
}
