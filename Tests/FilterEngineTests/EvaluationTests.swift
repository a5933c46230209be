import Foundation
import LinuxSystem
import StoreFormat
import StoreReader
import TestFolders
import TestTools
import Testing

@testable import FilterEngine

/// A commit log of real records in a folder of its own.
final class TestLog {
    let folder: URL
    let fileSize: Int
    private(set) var written: Int64 = 0
    private(set) var records: [ConsumeQueueEntry] = []

    init(fileSize: Int = 1 << 20) throws {
        folder = try TestFolder.make("log")
        self.fileSize = fileSize
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    func path(_ offset: Int64) -> String {
        folder.appendingPathComponent(StoreFileName.of(offset: offset - offset % Int64(fileSize))).path
    }

    @discardableResult
    func append(_ properties: [(String, String)] = [], body: [UInt8] = [], tagsCode: Int64 = 0) -> ConsumeQueueEntry {
        let text = properties.map { "\($0.0)\u{1}\($0.1)" }.joined(separator: "\u{2}")
        var bytes: [UInt8] = []
        func number<N: FixedWidthInteger>(_ value: N) { withUnsafeBytes(of: value.bigEndian) { bytes += $0 } }
        let size = CommitLogRecord.size(sysFlag: 0, body: body.count, topic: 5, properties: text.utf8.count)
        if Int(written) % fileSize + size + CommitLogRecord.blankSize > fileSize {
            written += Int64(fileSize) - written % Int64(fileSize)
        }
        for value in [Int32(size), CommitLogRecord.magicV1, 0, 0, 0] { number(value) }
        for value in [Int64(records.count), written] { number(value) }
        number(Int32(0))
        for value in [Int64(111), 0, 222, 0] { number(value) }
        number(Int32(0))
        number(Int64(0))
        number(Int32(body.count))
        bytes += body
        bytes.append(5)
        bytes += Array("topic".utf8)
        number(Int16(text.utf8.count))
        bytes += Array(text.utf8)
        precondition(bytes.count == size)
        let fd = open(path(written), O_RDWR | O_CREAT, 0o644)
        precondition(fd >= 0)
        precondition(ftruncate(fd, off_t(fileSize)) == 0)
        precondition(pwrite(fd, bytes, size, off_t(written) % off_t(fileSize)) == size)
        close(fd)
        let record = ConsumeQueueEntry(written, Int32(size), tagsCode: tagsCode)
        records.append(record)
        written += Int64(size)
        return record
    }

    func view() -> CommitLogView { CommitLogView(directory: folder.path, fileSize: fileSize, disk: RealDisk()) }
}

extension ConsumeQueueEntry {
    init(_ physicalOffset: Int64, _ size: Int32, tagsCode: Int64 = 0) {
        self.init(physicalOffset: PhysicalOffset(physicalOffset), recordSize: size, tagsCode: tagsCode)
    }
}

extension [ConsumeQueueEntry] {
    /// As they stand in a consume queue.
    var stored: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count * ConsumeQueueEntry.size)
        bytes.withUnsafeMutableBytes { bytes in
            for (index, entry) in enumerated() {
                bytes.baseAddress.map { entry.encode($0 + index * ConsumeQueueEntry.size) }
            }
        }
        return bytes
    }
}

extension FilterEvaluator {
    func match(
        _ program: FilterProgram, _ records: [ConsumeQueueEntry], in log: CommitLogView, written: PhysicalOffset
    ) -> Outcome {
        records.stored.withUnsafeBytes { match(program, $0, in: log, written: written) }
    }
}

@Suite("batches are evaluated where the records lie")
struct EvaluationTests {
    let workshop: PluginWorkshop
    let book = LogBook()
    let catalogue: FilterCatalogue
    let programs: FilterPrograms
    let evaluator: FilterEvaluator

    /// `NAME=VALUE`: the property has this value.
    static let equals = """
        for (uint32_t i = 0; i < count; i++) {
            const char *text = program, *sign = strchr(text, '=');
            size_t length;
            const uint8_t *value = apus_filter_property(&units[i], text, (size_t)(sign - text), &length);
            if (value && length == strlen(sign + 1) && memcmp(value, sign + 1, length) == 0) apus_filter_set(bitmap, i);
        }
        return APUS_FILTER_OK;
        """
    static let keepText = """
        char *text = malloc(length + 1);
        memcpy(text, expression, length);
        text[length] = 0;
        compiled->program = text;
        return APUS_FILTER_OK;
        """

    init() throws {
        workshop = try PluginWorkshop()
        catalogue = FilterCatalogue(logger: book.logger)
        programs = FilterPrograms(catalogue: catalogue)
        evaluator = FilterEvaluator(logger: book.logger)
    }

    func program(_ type: String, _ expression: String) throws -> FilterProgram {
        guard case .program(let id, _) = programs.compile(type: type, expression: expression) else {
            throw PluginFailure()
        }
        return try #require(programs.program(id))
    }

    struct PluginFailure: Error {}

    func bits(_ outcome: FilterEvaluator.Outcome, _ count: Int) throws -> [Int] {
        guard case .bitmap(let bitmap) = outcome else { throw PluginFailure() }
        #expect(bitmap.count == (count + 7) / 8)
        let set: [Int] = bitmap.enumerated().flatMap { (byte: (offset: Int, element: UInt8)) -> [Int] in
            (0..<8).filter { byte.element & (1 << UInt8($0)) != 0 }.map { byte.offset * 8 + $0 }
        }
        #expect(set.allSatisfy { $0 < count })
        return set
    }

    @Test("properties, over files, gaps and more than one batch byte")
    func properties() throws {
        try catalogue.load(
            path: try workshop.plugin(
                "equals", type: "EQ", capabilities: "APUS_FILTER_NEEDS_PROPERTIES", compile: Self.keepText,
                match: Self.equals))
        let log = try TestLog(fileSize: 4096)
        for number in 0..<300 {
            log.append([("TAGS", "t"), ("n", "\(number % 7)"), ("long", String(repeating: "x", count: number))])
        }
        #expect(log.written > 10 * 4096)
        let view = log.view()
        for value in 0..<8 {
            let outcome = evaluator.match(
                try program("EQ", "n=\(value)"), log.records, in: view, written: PhysicalOffset(log.written))
            #expect(try bits(outcome, 300) == (0..<300).filter { $0 % 7 == value })
        }
        // A sparse choice, in an order of its own.
        let chosen = [250, 3, 10, 11, 299, 0]
        let outcome = evaluator.match(
            try program("EQ", "n=3"), chosen.map { log.records[$0] }, in: view, written: PhysicalOffset(log.written))
        #expect(try bits(outcome, 6) == chosen.indices.filter { chosen[$0] % 7 == 3 })
        #expect(evaluator.match(try program("EQ", "n=3"), [], in: view, written: PhysicalOffset(0)) == .bitmap([]))
    }

    @Test("bodies and times are seen when asked for, and only then")
    func bodies() throws {
        let match = """
            for (uint32_t i = 0; i < count; i++)
                if (units[i].body_size == 3 && memcmp(units[i].body, "abc", 3) == 0 && !units[i].properties
                    && units[i].store_timestamp == 222 && units[i].born_timestamp == 111) apus_filter_set(bitmap, i);
            return APUS_FILTER_OK;
            """
        try catalogue.load(
            path: try workshop.plugin("body", type: "BODY", capabilities: "APUS_FILTER_NEEDS_BODY", match: match))
        let log = try TestLog()
        for body in ["abc", "abd", "", "abc"] { log.append([("a", "b")], body: Array(body.utf8)) }
        let outcome = evaluator.match(
            try program("BODY", ""), log.records, in: log.view(), written: PhysicalOffset(log.written))
        #expect(try bits(outcome, 4) == [0, 3])
    }

    @Test("a program that needs the tags code alone reads no log; a prefilter spares the plugin the rest")
    func codesOnly() throws {
        let match = """
            for (uint32_t i = 0; i < count; i++) if (units[i].tags_code > 5) apus_filter_set(bitmap, i);
            return APUS_FILTER_OK;
            """
        try catalogue.load(path: try workshop.plugin("codes", type: "CODES", match: match))
        let compile = """
            static const int64_t codes[] = {7, 3};
            compiled->tags_codes_kind = APUS_FILTER_TAGS_CODES_PREFILTER;
            compiled->tags_codes = codes; compiled->tags_code_count = 2;
            return APUS_FILTER_OK;
            """
        try catalogue.load(path: try workshop.plugin("pre", type: "PRE", compile: compile, match: match))
        let records = (0..<20).map { ConsumeQueueEntry(-1, 0, tagsCode: $0 % 10) }
        let nowhere = CommitLogView(directory: "/nowhere", fileSize: 4096, disk: RealDisk())
        let all = evaluator.match(try program("CODES", ""), records, in: nowhere, written: PhysicalOffset(0))
        #expect(try bits(all, 20) == [6, 7, 8, 9, 16, 17, 18, 19])
        // The broker-store leaves out what the prefilter excludes, also when the program is in the cache already.
        for _ in 0..<2 {
            guard case .program(_, let prefilter) = programs.compile(type: "PRE", expression: "") else {
                throw PluginFailure()
            }
            #expect(prefilter == [3, 7])
        }
    }

    @Test("beyond the end of the log nothing is evaluated; what was deleted does not match; damage is told")
    func oddPlaces() throws {
        try catalogue.load(
            path: try workshop.plugin("any", type: "ANY", capabilities: "APUS_FILTER_NEEDS_PROPERTIES"))
        let log = try TestLog(fileSize: 4096)
        for _ in 0..<60 { log.append([("a", "b")]) }
        let any = try program("ANY", "")
        let view = log.view()
        // Entries before the end are answered, in whole bytes; when there are none the batch fails.
        let most = evaluator.match(any, log.records, in: view, written: PhysicalOffset(log.written - 1))
        #expect(try bits(most, 56) == Array(0..<56))
        guard
            case .failed(let reason) = evaluator.match(
                any, log.records.suffix(1), in: view, written: PhysicalOffset(log.written - 1))
        else {
            Issue.record("bytes beyond the watermark were read")
            return
        }
        #expect(reason.contains("not below the end of the log"))
        // Places of a queue without a record match nothing and hold up no read.
        let blanks = [ConsumeQueueEntry.preBlank, ConsumeQueueEntry(0, 0), ConsumeQueueEntry(-5, 100)]
        let mixed = evaluator.match(
            any, blanks + log.records.prefix(2) + blanks, in: view, written: PhysicalOffset(log.written))
        #expect(try bits(mixed, 8) == [3, 4])
        let far = ConsumeQueueEntry(.max - 3, 100)
        guard case .failed = evaluator.match(any, [far], in: view, written: PhysicalOffset(log.written)) else {
            Issue.record("an impossible offset was read")
            return
        }
        let first = log.records.filter { $0.physicalOffset.rawValue < 4096 }
        try FileManager.default.removeItem(atPath: log.path(0))
        let outcome = evaluator.match(any, log.records, in: log.view(), written: PhysicalOffset(log.written))
        #expect(try bits(outcome, 60) == Array(first.count..<60))
        let shifted = log.records.suffix(2).map {
            ConsumeQueueEntry($0.physicalOffset.rawValue - 1, $0.recordSize)
        }
        let damaged = evaluator.match(any, shifted, in: view, written: PhysicalOffset(log.written))
        #expect(try bits(damaged, 2) == [])
        #expect(book.lines.contains { $0.contains("is damaged") })
    }

    @Test("a plugin that fails fails the batch; bits beyond the last record are dropped")
    func failures() throws {
        try catalogue.load(path: try workshop.plugin("fails", type: "FAILS", match: "return APUS_FILTER_FAILED;"))
        try catalogue.load(
            path: try workshop.plugin("more", type: "MORE", match: "bitmap[0] = 0xFF; return APUS_FILTER_OK;"))
        let records = [ConsumeQueueEntry(0, 10)]
        let nowhere = CommitLogView(directory: "/nowhere", fileSize: 4096, disk: RealDisk())
        guard
            case .failed(let reason) = evaluator.match(
                try program("FAILS", "x > 5"), records, in: nowhere, written: PhysicalOffset(0))
        else {
            Issue.record("a failing plugin was believed")
            return
        }
        #expect(reason.contains("fails") && reason.contains("x > 5"))
        let more = evaluator.match(try program("MORE", ""), records, in: nowhere, written: PhysicalOffset(0))
        #expect(more == .bitmap([1]))
        let tooMany = [ConsumeQueueEntry](repeating: records[0], count: FilterEvaluator.maximumEntries + 1)
        guard
            case .failed = evaluator.match(try program("MORE", ""), tooMany, in: nowhere, written: PhysicalOffset(0))
        else {
            Issue.record("a batch without bounds was taken")
            return
        }
    }

    @Test("a slow program is answered as far as it has come, and one that fails in the middle up to there")
    func slices() throws {
        let sleepy =
            "usleep(140000); for (uint32_t i = 0; i < count; i++) apus_filter_set(bitmap, i); return APUS_FILTER_OK;"
        try catalogue.load(
            path: try workshop.plugin("sleepy", type: "SLEEPY", match: sleepy, before: "extern int usleep(unsigned);"))
        let third = "static int calls; return ++calls == 3 ? APUS_FILTER_FAILED : APUS_FILTER_OK;"
        try catalogue.load(path: try workshop.plugin("third", type: "THIRD", match: third))
        let records = [ConsumeQueueEntry](repeating: ConsumeQueueEntry(0, 10), count: 2000)
        let nowhere = CommitLogView(directory: "/nowhere", fileSize: 4096, disk: RealDisk())
        for (type, most) in [("SLEEPY", 2), ("THIRD", 2)] {
            let outcome = evaluator.match(try program(type, ""), records, in: nowhere, written: PhysicalOffset(0))
            guard case .bitmap(let bitmap) = outcome else { throw PluginFailure() }
            #expect(bitmap.count == most * FilterEvaluator.maximumUnits / 8, "\(type): \(bitmap.count)")
        }
    }

    @Test("a plugin that writes past the bitmap dies at the first byte")
    func overrun() async throws {
        await #expect(processExitsWith: .signal(SIGSEGV)) {
            let workshop = try PluginWorkshop()
            let catalogue = FilterCatalogue(logger: LogBook().logger)
            let path = try workshop.plugin(
                "overrun", type: "OVER", match: "bitmap[(count + 7) / 8] = 1; return APUS_FILTER_OK;")
            try catalogue.load(path: path)
            let programs = FilterPrograms(catalogue: catalogue)
            guard case .program(let id, _) = programs.compile(type: "OVER", expression: ""),
                let program = programs.program(id)
            else { return }
            _ = FilterEvaluator(logger: LogBook().logger).match(
                program, [ConsumeQueueEntry](repeating: ConsumeQueueEntry(0, 10), count: 13),
                in: CommitLogView(directory: "/nowhere", fileSize: 4096, disk: RealDisk()), written: PhysicalOffset(0))
        }
    }
}
