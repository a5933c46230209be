import Foundation
import TestTools
import Testing

@testable import FilterEngine

@Suite("loading a plugin: refusals in a fixed order, with clear texts")
struct LoadingTests {
    let workshop: PluginWorkshop
    let book = LogBook()
    let catalogue: FilterCatalogue

    init() throws {
        workshop = try PluginWorkshop()
        catalogue = FilterCatalogue(logger: book.logger)
    }

    func refusal(_ path: String) -> FilterPluginError? {
        do throws(FilterPluginError) {
            try catalogue.load(path: path)
            return nil
        } catch {
            return error
        }
    }

    @Test("a good plugin in C is taken")
    func goodPlugin() throws {
        let plugin = try catalogue.load(path: try workshop.plugin("good", type: "GOOD"))
        #expect(plugin.name == "good")
        #expect(catalogue.plugin(forType: "GOOD") === plugin)
        #expect(catalogue.plugin(forType: "good") == nil)
    }

    @Test("1. a file that is no library")
    func notALibrary() throws {
        let path = workshop.path("text")
        try "not ELF at all".write(toFile: path, atomically: true, encoding: .utf8)
        guard case .notALibrary(path, let reason) = refusal(path) else {
            Issue.record("not refused as no library")
            return
        }
        #expect(!reason.isEmpty)
        #expect(refusal(path)?.description.contains("is not a library that can be loaded here") == true)
        guard case .notALibrary = refusal(workshop.path("missing")) else {
            Issue.record("a file that is not there was not refused")
            return
        }
    }

    @Test("1. a library that needs a symbol that is nowhere")
    func unresolvedSymbol() throws {
        let path = try workshop.plugin(
            "unresolved", match: "nobody_has_this(); return 0;", before: "void nobody_has_this(void);")
        guard case .notALibrary(_, let reason) = refusal(path) else {
            Issue.record("not refused")
            return
        }
        #expect(reason.contains("nobody_has_this"))
    }

    @Test("2. no entry")
    func noEntry() throws {
        let path = try workshop.build("noentry", "int something_else(void) { return 1; }")
        #expect(refusal(path) == .noEntry(path: path))
        #expect(refusal(path)?.description.contains("apus_filter_plugin_entry") == true)
    }

    @Test("3. no table")
    func noTable() throws {
        let path = try workshop.plugin("notable", entry: "return NULL;")
        #expect(refusal(path) == .noTable(path: path))
    }

    @Test("4. wrong version, before the size is looked at")
    func wrongVersion() throws {
        let path = try workshop.plugin("future", table: ".abi_version = 2, .struct_size = 1")
        #expect(refusal(path) == .wrongVersion(path: path, found: 2, expected: 1))
        #expect(refusal(path)?.description.contains("version 2") == true)
    }

    @Test("5. wrong struct size, before the fields are looked at", arguments: [0, 16, 71, 4097])
    func wrongStructSize(size: Int) throws {
        let path = try workshop.plugin("size\(size)", table: ".struct_size = \(size), .name = NULL")
        #expect(refusal(path) == .wrongStructSize(path: path, found: UInt32(size), expected: 72))
    }

    @Test("5. a table that grew is taken: fields are only appended")
    func largerTable() throws {
        let path = try workshop.plugin("larger", entry: "table.struct_size = 80; return &table;")
        #expect(refusal(path) == nil)
    }

    @Test(
        "6. a table with holes",
        arguments: [
            (".name = NULL", "name is NULL"), (".type = NULL", "type is NULL"),
            (".name = \"\"", "name must have 1 to 64 bytes"),
            (
                ".type = \"0123456789012345678901234567890123456789012345678901234567890123456789\"",
                "type must have 1 to 64 bytes"
            ),
            (".compile = NULL", "compile is NULL"), (".match_batch = NULL", "match_batch is NULL"),
            (".release = NULL", "release is NULL"),
            (".capabilities = 4", "it needs capabilities this host does not know (bits 4)"),
        ])
    func incompleteTable(override: String, what: String) throws {
        let name = "hole\(abs(override.hashValue))"
        let path = try workshop.plugin(name, entry: "table\(override); return &table;")
        #expect(refusal(path) == .incompleteTable(path: path, what: what))
    }

    @Test("7. a name or a type that is taken, and who has it")
    func duplicates() throws {
        let first = try workshop.plugin("one", type: "A")
        try catalogue.load(path: first)
        let sameName = try workshop.plugin("two", type: "B", entry: "table.name = \"one\"; return &table;")
        #expect(refusal(sameName) == .duplicateName(path: sameName, name: "one", takenBy: first))
        let sameType = try workshop.plugin("three", type: "A")
        #expect(refusal(sameType) == .duplicateType(path: sameType, type: "A", takenBy: first))
        #expect(catalogue.plugins.count == 1)
    }

    @Test("8. a failed self-test, asked for last")
    func failedSelfTest() throws {
        let test = """
            static int32_t sick(char *reason, size_t capacity) {
                snprintf(reason, capacity, "no unicorn on this machine"); return APUS_FILTER_FAILED;
            }
            """
        let path = try workshop.plugin("sick", table: ".self_test = sick", before: test)
        #expect(refusal(path) == .failedSelfTest(path: path, reason: "no unicorn on this machine"))
        let noText = "static int32_t sick(char *reason, size_t n) { (void)reason; (void)n; return 7; }"
        let silent = try workshop.plugin("silent", table: ".self_test = sick", before: noText)
        #expect(refusal(silent) == .failedSelfTest(path: silent, reason: "no reason given"))
    }

    @Test("a folder: good ones are taken in the order of their names, bad ones do not stop them")
    func folder() throws {
        try workshop.plugin("a_good", type: "A")
        try workshop.build("b_noentry", "int nothing;")
        try workshop.plugin("c_good", type: "C")
        try workshop.plugin("d_same_type", type: "A")
        try "readme".write(
            toFile: workshop.folder.appendingPathComponent("README").path, atomically: true, encoding: .utf8)
        let folders = PluginFolders([workshop.folder.path, "\(workshop.folder.path)/none"], catalogue: catalogue)
        for step in 0..<6 { _ = folders.look(now: Int64(step) * 100_000_000) }
        #expect(catalogue.plugins.map(\.name) == ["a_good", "c_good"])
        #expect(catalogue.refusals.count == 2)
        #expect(book.lines.contains { $0.contains("error: filter plugin refused") && $0.contains("b_noentry") })
    }

    @Test("a plugin's words reach the log with their level")
    func pluginLogs() throws {
        let path = try workshop.plugin(
            "talker", entry: "host->log(host->context, APUS_FILTER_LOG_WARNING, \"hello host\", 10); return &table;")
        try catalogue.load(path: path)
        #expect(book.lines.contains("warning: plugin: hello host"))
    }
}
