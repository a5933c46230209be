import Foundation

/// The checkout these tests were compiled from, read as text.
enum Repository {
    static let root: URL = {
        var folder = URL(fileURLWithPath: #filePath)
        while !FileManager.default.fileExists(atPath: folder.appendingPathComponent("Package.swift").path) {
            precondition(folder.path != "/", "no Package.swift above \(#filePath)")
            folder.deleteLastPathComponent()
        }
        return folder
    }()

    static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    }

    /// Paths relative to the root of every file below `folder` whose name ends in one of `endings`.
    static func files(below folder: String, endings: [String]) -> [String] {
        let base = root.appendingPathComponent(folder)
        guard let walker = FileManager.default.enumerator(atPath: base.path) else { return [] }
        var found: [String] = []
        for case let path as String in walker where endings.contains(where: path.hasSuffix) {
            found.append(folder + "/" + path)
        }
        return found.sorted()
    }

    static func topLevel() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: root.path).filter { !$0.hasPrefix(".") }
    }
}

struct Room {
    let floor: Double
    let name: String
    let mayImport: Set<String>
}

/// The table of `Sources/README.md`: `| floor | room | purpose | may import |`.
struct RoomTable {
    let rooms: [String: Room]

    init(markdown: String) {
        var rooms: [String: Room] = [:]
        for line in markdown.split(separator: "\n") where line.hasPrefix("| ") {
            let cells = line.split(separator: "|", omittingEmptySubsequences: false).map {
                $0.trimmingCharacters(in: .whitespaces)
            }
            guard cells.count >= 6, let floor = Double(cells[1]) else { continue }
            for name in Self.names(cells[2]) {
                rooms[name] = Room(floor: floor, name: name, mayImport: Set(Self.names(cells[4])))
            }
        }
        self.rooms = rooms
    }

    private static func names(_ cell: String) -> [String] {
        cell.split(separator: "`").enumerated().compactMap { index, part in
            // Odd parts are inside back quotes when the cell does not start with one.
            let quoted = cell.hasPrefix("`") ? index % 2 == 0 : index % 2 == 1
            return quoted ? String(part) : nil
        }
    }
}

/// The modules that the `import` lines of a Swift source name.
func importedModules(_ source: String) -> [String] {
    var modules: [String] = []
    for line in source.split(separator: "\n") {
        var words = line.split(separator: " ").map(String.init)
        if let first = words.first, ["package", "public", "internal", "fileprivate", "private"].contains(first) {
            words.removeFirst()
        }
        while let first = words.first, first.hasPrefix("@") { words.removeFirst() }
        guard words.first == "import", words.count >= 2 else { continue }
        let kinds: Set<String> = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
        let name = kinds.contains(words[1]) && words.count >= 3 ? words[2] : words[1]
        if let module = name.split(separator: ".").first { modules.append(String(module)) }
    }
    return modules
}
