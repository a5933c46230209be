import CFilterPlugin
import Foundation
import TestTools
import Testing

@testable import FilterEngine

@Suite("what plugins/README.md tells authors works as written")
struct ExamplesTests {
    let workshop: PluginWorkshop
    let catalogue = FilterCatalogue(logger: LogBook().logger)

    init() throws { workshop = try PluginWorkshop() }

    /// Runs the README's build command that names `source`, with its output in the workshop.
    func build(_ source: String) throws -> String {
        let readme = try String(
            contentsOf: PluginWorkshop.repository.appendingPathComponent("plugins/README.md"), encoding: .utf8)
        let line = try #require(readme.split(separator: "\n").first { $0.hasPrefix("    ") && $0.contains(source) })
        var words = line.split(separator: " ").map(String.init)
        let output = try #require(words.last)
        words[words.count - 1] = workshop.folder.appendingPathComponent(output).path
        try run(words)
        return words[words.count - 1]
    }

    func run(_ words: [String]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = words
        process.currentDirectoryURL = PluginWorkshop.repository
        let complaints = Pipe()
        process.standardError = complaints
        process.standardOutput = complaints
        try process.run()
        let text = complaints.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0, "\(words): \(String(decoding: text, as: UTF8.self))")
    }

    func matches(_ type: String, _ expression: String, _ properties: [[String: String]]) throws -> [Bool] {
        let programs = FilterPrograms(catalogue: catalogue)
        guard case .program(let id, _) = programs.compile(type: type, expression: expression) else {
            Issue.record("\(expression): \(programs.compile(type: type, expression: expression))")
            return []
        }
        let program = try #require(programs.program(id))
        let texts = properties.map { message in
            Array(message.map { "\($0.key)\u{1}\($0.value)" }.joined(separator: "\u{2}").utf8)
        }
        let all = texts.flatMap { $0 }
        return all.withUnsafeBufferPointer { bytes in
            var start = 0
            var units: [apus_filter_unit] = []
            for text in texts {
                var unit = apus_filter_unit()
                unit.properties = bytes.baseAddress.map { $0 + start }
                unit.properties_size = UInt32(text.count)
                units.append(unit)
                start += text.count
            }
            var bitmap = [UInt8](repeating: 0, count: (units.count + 7) / 8)
            #expect(program.match(units, units.count, &bitmap))
            return units.indices.map { bitmap[$0 / 8] & (1 << UInt8($0 % 8)) != 0 }
        }
    }

    func refusal(_ type: String, _ expression: String) -> Int32? {
        guard
            case .refused(let position, _) = FilterPrograms(catalogue: catalogue).compile(
                type: type, expression: expression)
        else { return nil }
        return position
    }

    @Test("the example in C: a property in a range")
    func priceRange() throws {
        try catalogue.load(path: try build("price_range.c"))
        let answers = try matches(
            "RANGE", "price 10 20.5",
            [
                ["price": "10"], ["price": "20.51"], ["a": "b", "price": "2e1"], ["price": "cheap"], [:],
                ["prices": "15"],
            ])
        #expect(answers == [true, false, true, false, false, false])
        #expect(refusal("RANGE", "") == 0)
        #expect(refusal("RANGE", "price") == 5)
        #expect(refusal("RANGE", "price 10 x") == 8)
        #expect(refusal("RANGE", "price 10 20 30") == 12)
        #expect(refusal("RANGE", String(repeating: "x", count: 300)) == 256)
    }

    @Test("the example in Swift: within so many metres of a place, with a runtime of its own")
    func geofence() throws {
        try catalogue.load(path: try build("Geofence.swift"))
        let answers = try matches(
            "GEOFENCE", "30.27 120.15 5000",
            [
                ["lat": "30.27", "lon": "120.15"], ["lat": "30.30", "lon": "120.16"],
                ["lat": "31.23", "lon": "121.47"],
                ["lat": "30.27"], ["lat": "here", "lon": "120.15"],
            ])
        #expect(answers == [true, true, false, false, false])
        #expect(refusal("GEOFENCE", "nowhere") == 0)
        #expect(refusal("GEOFENCE", "91 0 5") == 0)
    }

    @Test("the fake host loads, compiles and asks as the real one does")
    func fakeHost() throws {
        let plugin = try build("price_range.c")
        let test = workshop.folder.appendingPathComponent("author_test.c")
        try """
        #include "apus_filter_fake_host.h"
        #include <assert.h>
        int main(int argc, char **argv) {
            apus_fake_host fake;
            assert(argc == 3);
            assert(apus_fake_load(&fake, "/nowhere.so") == -1 && strstr(fake.error, "not a library"));
            assert(apus_fake_load(&fake, argv[1]) == 0);
            assert(apus_fake_compile(&fake, "price") == APUS_FILTER_REFUSED && fake.error_position == 5);
            assert(apus_fake_matches(&fake, "price\\1" "15", "", 0, 0) == -1);
            assert(apus_fake_compile(&fake, "price 10 20") == APUS_FILTER_OK);
            assert(apus_fake_matches(&fake, "price\\1" "15\\2" "TAGS\\1" "a", "", 0, 0) == 1);
            assert(apus_fake_matches(&fake, "price\\1" "25", "", 0, 0) == 0);
            apus_fake_release(&fake);
            assert(apus_fake_load(&fake, argv[2]) == 0);
            assert(apus_fake_compile(&fake, "Aa") == APUS_FILTER_OK);
            assert(apus_fake_matches(&fake, "", "", 0, 2112) == 1 && apus_fake_matches(&fake, "", "", 0, 1) == 0);
            assert(apus_fake_compile(&fake, "*") == APUS_FILTER_OK && apus_fake_matches(&fake, "", "", 0, 1) == 1);
            apus_fake_release(&fake);
            return 0;
        }
        """.write(to: test, atomically: true, encoding: .utf8)
        let program = workshop.folder.appendingPathComponent("author_test").path
        try run([
            "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", PluginWorkshop.include, test.path, "-o", program,
            "-ldl",
        ])
        try run([program, plugin, PluginWorkshop.tagPlugin])
    }

    @Test("the headers are C and C++ without a warning")
    func headers() throws {
        for (compiler, standard, ending) in [("cc", "c11", "c"), ("c++", "c++17", "cpp")] {
            let file = workshop.folder.appendingPathComponent("headers.\(ending)")
            try "#include \"apus_filter.h\"\n#include \"apus_filter_sdk.h\"\nint use;\n".write(
                to: file, atomically: true, encoding: .utf8)
            try run([
                compiler, "-std=\(standard)", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I",
                PluginWorkshop.include, file.path,
            ])
        }
    }

    @Test("each plugin that comes with Apus exports the entry, and no C function besides")
    func exports() throws {
        for name in ["libApusTagFilter.so", "libApusSQL92Filter.so"] {
            let path = URL(fileURLWithPath: PluginWorkshop.tagPlugin).deletingLastPathComponent()
                .appendingPathComponent(name).path
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments = ["nm", "-D", "--defined-only", path]
            let output = Pipe()
            process.standardOutput = output
            try process.run()
            let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            let own = text.split(separator: "\n").compactMap { $0.split(separator: " ").last.map(String.init) }
                .filter { $0.hasPrefix("apus_") }
            #expect(own == ["apus_filter_plugin_entry"])
        }
    }
}
