import Foundation
import Logging
import TestFolders
import Testing

@testable import FilterEngine

/// Builds small plugins with the C compiler, in a folder of its own that goes when the test ends.
final class PluginWorkshop {
    let folder: URL

    init() throws {
        folder = try TestFolder.make("filter")
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    static let repository: URL = {
        var folder = URL(fileURLWithPath: #filePath)
        while !FileManager.default.fileExists(atPath: folder.appendingPathComponent("Package.swift").path) {
            folder.deleteLastPathComponent()
        }
        return folder
    }()

    static let include = repository.appendingPathComponent("plugins/CFilterPlugin/include").path

    /// The tag plugin of this build: SwiftPM puts it beside the test executable.
    static let tagPlugin = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        .deletingLastPathComponent().appendingPathComponent("libApusTagFilter.so").path

    func path(_ name: String) -> String { folder.appendingPathComponent("lib\(name).so").path }

    /// Compiles C source into `lib<name>.so` with the flags `plugins/README.md` gives to authors.
    @discardableResult
    func build(_ name: String, _ source: String) throws -> String {
        let file = folder.appendingPathComponent("\(name).c")
        try source.write(to: file, atomically: true, encoding: .utf8)
        return try build(name, file: file.path)
    }

    @discardableResult
    func build(_ name: String, file: String) throws -> String {
        let compiler = Process()
        compiler.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        compiler.arguments = [
            "cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-I", Self.include, file, "-o",
            path(name),
        ]
        let complaints = Pipe()
        compiler.standardError = complaints
        try compiler.run()
        let text = complaints.fileHandleForReading.readDataToEndOfFile()
        compiler.waitUntilExit()
        try #require(compiler.terminationStatus == 0, "cc: \(String(decoding: text, as: UTF8.self))")
        return path(name)
    }

    /// A whole plugin in C. `match` and `compile` are function bodies; `table` overrides fields of the table.
    @discardableResult
    func plugin(
        _ name: String, type: String = "TEST", capabilities: String = "0",
        compile: String = "compiled->program = 0; return APUS_FILTER_OK;",
        match: String = "for (uint32_t i = 0; i < count; i++) { apus_filter_set(bitmap, i); } return APUS_FILTER_OK;",
        table: String = "", before: String = "", entry: String = "return &table;"
    ) throws -> String {
        try build(
            name,
            """
            #include "apus_filter_sdk.h"
            #include <stdio.h>
            #include <stdlib.h>
            #include <unistd.h>
            \(before)
            static int32_t compile(const char *expression, size_t length, apus_filter_compiled *compiled) {
                (void)expression; (void)length; (void)compiled;
                \(compile)
            }
            static int32_t match(void *program, const apus_filter_unit *units, uint32_t count, uint8_t *bitmap) {
                (void)program; (void)units; (void)count; (void)bitmap;
                \(match)
            }
            static void release(void *program) { free(program); }
            static apus_filter_plugin table = {
                .struct_size = sizeof(apus_filter_plugin), .abi_version = APUS_FILTER_ABI_VERSION,
                .name = "\(name)", .type = "\(type)", .capabilities = \(capabilities),
                .compile = compile, .match_batch = match, .release = release,
            };
            const apus_filter_plugin *apus_filter_plugin_entry(const apus_filter_host *host) {
                (void)host; (void)table;
                \(table.isEmpty ? "" : table.split(separator: ",").map { "table\($0.drop { $0 == " " });" }.joined())
                \(entry)
            }
            """)
    }
}
