import Foundation
import LinuxSystem
import TestTools
import Testing

@testable import FilterEngine

@Suite("the folders of plugins: what is whole is taken, what is on its way waits, blame belongs to contents")
struct PluginFoldersTests {
    let workshop: PluginWorkshop
    let book = LogBook()
    let catalogue: FilterCatalogue
    let folders: PluginFolders
    let folder: String
    /// Nanoseconds; a test moves it on.
    final class Time: @unchecked Sendable {
        var now: Int64 = 1_000_000_000_000
    }
    let time = Time()

    init() throws {
        workshop = try PluginWorkshop()
        folder = workshop.folder.appendingPathComponent("plugins").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        catalogue = FilterCatalogue(logger: book.logger, supply: try FrozenFile.Supply())
        folders = PluginFolders([folder], catalogue: catalogue)
    }

    var file: String { folder + "/libOne.so" }

    func version(_ text: String, type: String = "ONE") throws -> Data {
        let path = try workshop.plugin("one", type: type, entry: "table.release_text = \"\(text)\"; return &table;")
        return try Data(contentsOf: URL(fileURLWithPath: path))
    }

    /// Looks again and again, as a worker does, for so many milliseconds; `today` is before every change, so that none
    /// is old.
    @discardableResult
    func look(for milliseconds: Int64 = 600, _ share: PluginFolders.Share = .init()) -> PluginFolders.Look {
        var last = folders.look(share, now: time.now, today: 0)
        var new = last.new
        for _ in 0..<milliseconds / 100 where last.stale == nil {
            time.now += 100_000_000
            last = folders.look(share, now: time.now, today: 0)
            new += last.new
        }
        last.new = new
        return last
    }

    /// `cp` into the same file.
    func overwrite(_ bytes: Data) throws {
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: file))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: bytes)
        try handle.close()
    }

    @Test("a file is looked at when it is whole and quiet; one of last week at once")
    func whole() throws {
        let bytes = try version("1")
        try PluginFoldersTests.put(file, bytes.prefix(bytes.count / 2))
        #expect(folders.look(now: time.now, today: 0) == .init(isPending: true))
        #expect(look(for: 1500).isPending, "half a library is not tried")
        #expect(catalogue.plugins.isEmpty && catalogue.refusals.isEmpty)
        try overwrite(bytes)
        #expect(folders.look(now: time.now, today: 0).isPending)
        #expect(look() == .init(new: 1))
        #expect(catalogue.plugins.map(\.release) == ["1"])
        let old = folder + "/libTwo.so"
        try FileManager.default.copyItem(atPath: try workshop.plugin("two", type: "TWO"), toPath: old)
        try FileManager.default.setAttributes(
            [.modificationDate: Date(timeIntervalSinceNow: -600_000)], ofItemAtPath: old)
        #expect(folders.look(now: time.now) == .init(new: 1))
        #expect(folders.types(.init()) == ["ONE", "TWO"])
    }

    @Test("half a library that is not written on is refused without being loaded; the rest of it mends that")
    func abandoned() throws {
        let bytes = try version("1")
        try PluginFoldersTests.put(file, bytes.prefix(bytes.count - 1))
        #expect(look(for: 2500).new == 1)
        #expect(catalogue.refusals[file] == .truncated(path: file, bytes: Int64(bytes.count)))
        try overwrite(bytes)
        #expect(look().new == 1)
        #expect(catalogue.refusals.isEmpty && catalogue.plugins.count == 1)
    }

    @Test(
        "cp over a loaded plugin: the loaded one is untouched, and a fresh process is asked for when the new one is whole"
    )
    func overwritten() throws {
        try PluginFoldersTests.put(file, try version("1"))
        look()
        let plugin = try #require(catalogue.plugins.first)
        let next = try version("2")
        // Empty, then half: every page of a mapping of the file itself would be gone.
        try overwrite(Data())
        guard case .program(let program) = plugin.compile("x") else {
            Issue.record("the loaded plugin does not compile any more")
            return
        }
        #expect(try FilterProbe(program).ask(properties: []).matches)
        try overwrite(next.prefix(next.count / 2))
        #expect(look(for: 3000).stale == nil, "half a library replaces no plugin")
        #expect(try FilterProbe(program).ask(properties: []).matches)
        try overwrite(next)
        #expect(look().stale == "\(file) was replaced")
    }

    @Test(
        "the same bytes again are no other plugin; a removed file is noticed, one renamed over it in a moment is a replacement"
    )
    func replaced() throws {
        let bytes = try version("1")
        try PluginFoldersTests.put(file, bytes)
        look()
        try overwrite(bytes)
        #expect(look() == .init())
        try FileManager.default.removeItem(atPath: file)
        #expect(folders.look(now: time.now, today: 0) == .init(isPending: true))
        try PluginFoldersTests.put(file, bytes)
        #expect(look() == .init(), "gone for a moment")
        try FileManager.default.removeItem(atPath: file)
        #expect(look().stale == "\(file) was removed")
    }

    @Test("after a file that was refused the next one is itself: the loader knows libraries by their paths")
    func afterRefusal() throws {
        for number in 0..<4 {
            let sick = try workshop.plugin("sick\(number)", type: "SICK\(number)", entry: "return NULL;")
            try FileManager.default.copyItem(atPath: sick, toPath: folder + "/libA\(number).so")
            look()
            try FileManager.default.copyItem(
                atPath: try workshop.plugin("well\(number)", type: "WELL\(number)"),
                toPath: folder + "/libB\(number).so")
            look()
            #expect(catalogue.plugin(forType: "WELL\(number)")?.name == "well\(number)")
        }
        #expect(catalogue.refusals.count == 4)
    }

    @Test("a folder within a folder's name is another folder, and built-in plugins are no operator's")
    func names() throws {
        // The folder of the programs begins like that of the plugins, as in an installed Apus.
        let inner = folder + "/plugins"
        try FileManager.default.createDirectory(atPath: inner, withIntermediateDirectories: true)
        try PluginFoldersTests.put(inner + "/libInner.so", try version("1"))
        try FileManager.default.copyItem(atPath: PluginWorkshop.tagPlugin, toPath: folder + "/libApusTagFilter.so")
        let both = PluginFolders([folder, inner], catalogue: catalogue)
        for _ in 0..<6 {
            time.now += 100_000_000
            #expect(both.look(now: time.now, today: 0).stale == nil)
        }
        #expect(catalogue.plugins.map(\.path) == [inner + "/libInner.so"])
        try PluginFoldersTests.put(folder + "/other", Data())
        try PluginFoldersTests.put(file, try version("1", type: "OTHER"))
        for _ in 0..<6 {
            time.now += 100_000_000
            #expect(
                both.look(now: time.now, today: 0).stale == nil, "a file in one folder takes nothing from the other")
        }
    }

    @Test("each worker takes its share of the files")
    func shares() throws {
        for name in ["A", "B", "C"] {
            try FileManager.default.copyItem(
                atPath: try workshop.plugin("p\(name)", type: name), toPath: folder + "/lib\(name).so")
        }
        let second = PluginFolders.Share(takesRecorded: false) { $0 == "libB.so" }
        #expect(look(second).new == 1)
        #expect(folders.types(second) == ["B"])
        // A file of another program is nothing here, wherever it stands.
        try PluginFoldersTests.put(folder + "/libAa.so", try version("1"))
        #expect(look(second) == PluginFolders.Look())
        #expect(folders.types(second) == ["B"])
        // Its share is another one now: what is loaded stays loaded and is another's business.
        let other = PluginFolders.Share(takesRecorded: false) { $0 == "libAa.so" || $0 == "libC.so" }
        look(other)
        #expect(folders.types(other) == ["ONE", "C"])
    }

    @Test("what a plugin did is held against its contents: new bytes start clean, and a pardon forgets")
    func contents() async throws {
        let (folder, old, new) = (folder, try version("1"), try version("2"))
        await #expect(processExitsWith: .success) { [folder = folder as String, old = old as Data, new = new as Data] in
            let file = folder + "/libOne.so"
            let (mine, another) = (
                try SharedSegment.create(name: "a", bytes: 4096), try SharedSegment.create(name: "b", bytes: 4096)
            )
            let clock = TestClock()
            let guilty = PluginFile(path: file, checksum: try Self.checksum(old, folder))
            let innocent = PluginFile(path: file, checksum: try Self.checksum(new, folder))
            #expect(guilty != innocent)
            // Two crashes in another worker and one here are three.
            _ = try PluginConduct(segment: another, logger: LogBook().logger) { clock.now }
            for _ in 0..<2 {
                IsolationTests.die(another, guilty, .match, cause: UInt64(SIGSEGV))
                _ = try PluginConduct(segment: another, logger: LogBook().logger) { clock.now }
            }
            _ = try PluginConduct(segment: mine, logger: LogBook().logger) { clock.now }
            IsolationTests.die(mine, guilty, .match, cause: UInt64(SIGSEGV))
            let conduct = try PluginConduct(segment: mine, others: [another], logger: LogBook().logger) { clock.now }
            #expect(conduct.explanation == "a filter worker crashed in match_batch or after (SIGSEGV)")
            #expect(conduct.refusal(guilty)?.hasPrefix("not used for 30 s") == true)
            #expect(conduct.history(guilty)?.hasSuffix("12 of 12 points") == true)
            #expect(conduct.refusal(innocent) == nil && conduct.history(innocent) == nil)

            let catalogue = FilterCatalogue(
                logger: LogBook().logger, conduct: conduct, supply: try FrozenFile.Supply())
            let folders = PluginFolders([folder], catalogue: catalogue)
            try PluginFoldersTests.put(file, old)
            func look(_ share: PluginFolders.Share) {
                for step in 0..<6 { _ = folders.look(share, now: clock.now * 1_000_000 + Int64(step) * 100_000_000) }
            }
            let clean = PluginFolders.Share(takesRecorded: false)
            look(clean)
            #expect(catalogue.plugins.isEmpty, "one with a record is another worker's")
            // Only this worker's part is forgotten by its pardon; the other forgets its own.
            #expect(folders.pardon("One"))
            #expect(conduct.refusal(guilty) == nil && conduct.history(guilty)?.hasSuffix("8 of 12 points") == true)
            conduct.others = []
            clock.now += 10_000
            look(clean)
            #expect(catalogue.plugins.count == 1)
            #expect(folders.types(clean) == ["ONE"])
        }
    }

    /// It came and went in the list with each look, and was looked at ten times a second.
    @Test("a file that cannot be read is refused once and stays in the list; readable, it is taken")
    func unreadable() throws {
        try PluginFoldersTests.put(file, Data("no library".utf8))
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: file))
        try handle.truncate(atOffset: UInt64(FrozenFile.bytesMax) + 1)
        try handle.close()
        look()
        for _ in 0..<5 {
            let one = look(for: 100)
            #expect(!one.isPending && one.new == 0)
            #expect(folders.entries.map(\.path) == [file])
            #expect(folders.entries.first?.refusal?.contains("cannot be read: File too large") == true)
        }
        try overwrite(try version("1"))
        look()
        #expect(folders.entries.first?.plugin?.type == "ONE" && folders.entries.first?.refusal == nil)
    }

    /// A plugin that runs in another filter worker writes its segment: SQL92 must not be refused everywhere for it.
    @Test("what other workers hold against a plugin that comes with Apus does not count")
    func slander() async {
        await #expect(processExitsWith: .success) {
            let (mine, another) = (
                try SharedSegment.create(name: "a", bytes: 4096), try SharedSegment.create(name: "b", bytes: 4096)
            )
            let clock = TestClock()
            let builtIn = PluginFile(path: "/usr/lib/apus/plugins/libApusSQL92Filter.so", checksum: 7)
            let foreign = PluginFile(path: "/usr/local/lib/apus/plugins/libForeign.so", checksum: 7)
            _ = try PluginConduct(segment: another, logger: LogBook().logger) { clock.now }
            for file in [builtIn, foreign] {
                for _ in 0..<3 {
                    IsolationTests.die(another, file, .load, cause: UInt64(SIGSEGV))
                    _ = try PluginConduct(segment: another, logger: LogBook().logger) { clock.now }
                }
            }
            let conduct = try PluginConduct(segment: mine, others: [another], logger: LogBook().logger) { clock.now }
            #expect(conduct.refusal(foreign) != nil && conduct.diesWhenLoaded(foreign))
            #expect(conduct.refusal(builtIn) == nil && !conduct.diesWhenLoaded(builtIn))
            #expect(conduct.history(builtIn) == nil)
            // What it did here counts.
            for _ in 0..<3 {
                IsolationTests.die(mine, builtIn, .match, cause: UInt64(SIGSEGV))
                _ = try PluginConduct(segment: mine, logger: LogBook().logger) { clock.now }
            }
            #expect(conduct.refusal(builtIn) != nil)
        }
    }

    static func put(_ path: String, _ bytes: Data) throws {
        try bytes.write(to: URL(fileURLWithPath: path))
    }

    static func checksum(_ data: Data, _ folder: String) throws -> UInt32 {
        let path = folder + "/bytes"
        try PluginFoldersTests.put(path, data)
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try FrozenFile.checksum(of: path)
    }

    @Test("the headers of a library say whether it is all there", arguments: [0, 1, 63, 64, 500])
    func shapes(size: Int) throws {
        let bytes = try version("1")
        try PluginFoldersTests.put(file, bytes.prefix(size))
        guard case .truncated = LibraryShape.of(file) else {
            Issue.record("\(size) bytes are \(LibraryShape.of(file))")
            return
        }
        try PluginFoldersTests.put(file, bytes)
        #expect(LibraryShape.of(file) == .whole)
        var strange = bytes
        for place in 40..<48 { strange[place] = 0xFF }
        try PluginFoldersTests.put(file, strange)
        #expect(LibraryShape.of(file) == .other)
        try PluginFoldersTests.put(file, Data("no library, but long enough to be looked at: \(bytes)".utf8) + bytes)
        #expect(LibraryShape.of(file) == .other)
    }
}
