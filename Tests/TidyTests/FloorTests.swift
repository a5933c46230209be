import Foundation
import Testing

/// Holds every `import` line to the table in `Sources/README.md`.
@Suite("imports only go down, and only where the table says")
struct FloorTests {
    /// Modules any room may use: the language and the C library.
    static let everywhere: Set<String> = ["Glibc", "Swift", "Synchronization", "_Concurrency"]
    /// The executables' floor may import any room and these.
    static let onTopFloor: Set<String> = [
        "Foundation", "Dispatch", "ArgumentParser", "TOMLKit", "Logging", "NIOCore", "NIOPosix", "Histogram",
        "HummingbirdCore", "HTTPTypes",
    ]

    let table: RoomTable

    init() throws {
        table = RoomTable(markdown: try Repository.text("Sources/README.md"))
    }

    /// A folder of pages, and no room.
    private static let pages = "Decisions"

    static func roomFolders() throws -> [String] {
        try FileManager.default.contentsOfDirectory(
            atPath: Repository.root.appendingPathComponent("Sources").path
        ).filter { !$0.hasSuffix(".md") && !$0.hasPrefix(".") && $0 != pages }.sorted()
    }

    @Test("every folder in Sources has a row, and every row a folder")
    func rowsAndFoldersAgree() throws {
        let folders = Set(try Self.roomFolders())
        #expect(folders.count > 10)
        let rows = Set(table.rooms.keys).subtracting(["CFilterPlugin"])
        #expect(folders == rows, "rows and folders differ in \(folders.symmetricDifference(rows).sorted())")
    }

    /// Pairs of a room and one it names that does not lie lower.
    static func upward(in table: RoomTable) -> [String] {
        table.rooms.values.flatMap { room in
            room.mayImport.filter { name in table.rooms[name].map { $0.floor >= room.floor } ?? false }
                .map { "\(room.name) may not name \($0)" }
        }.sorted()
    }

    @Test("the rooms a row names lie on a lower floor")
    func rowsPointDown() {
        #expect(Self.upward(in: table) == [])
        let planted = RoomTable(
            markdown: """
                | 1 | `Low` | ground | `High` |
                | 2 | `High` | engine | `Low` `Side` |
                | 2 | `Side` | engine | `Logging` |
                """)
        #expect(Self.upward(in: planted) == ["High may not name Side", "Low may not name High"])
    }

    @Test("every import line is allowed by the room's row")
    func importsAreAllowed() throws {
        for folder in try Self.roomFolders() {
            guard let room = table.rooms[folder] else { continue }
            for file in Repository.files(below: "Sources/\(folder)", endings: [".swift"]) {
                for module in importedModules(try Repository.text(file)) {
                    #expect(allowed(module, in: room), "\(file) imports \(module): not in its row of Sources/README.md")
                }
            }
        }
    }

    func allowed(_ module: String, in room: Room) -> Bool {
        if Self.everywhere.contains(module) || room.mayImport.contains(module) { return true }
        guard room.floor >= 5 else { return false }
        return table.rooms[module] != nil || Self.onTopFloor.contains(module)
    }

    @Test("the check itself refuses what it must refuse")
    func theCheckCanFail() throws {
        let store = try #require(table.rooms["MessageStore"])
        #expect(!allowed("BrokerService", in: store))
        #expect(!allowed("Foundation", in: store))
        #expect(allowed("StoreFormat", in: store))
        #expect(
            importedModules("package import NIOCore\nimport struct Foundation.URL\n@preconcurrency import Glibc\n") == [
                "NIOCore", "Foundation", "Glibc",
            ])
    }
}
