import Foundation
import LinuxSystem
import TestTools
import Testing
import WorkerProtocol

@testable import FilterEngine

@Suite("compiled expressions and the messages about them")
struct ProgramsTests {
    let workshop: PluginWorkshop
    let book = LogBook()
    let catalogue: FilterCatalogue

    /// Refuses expressions with a `!` at its place; counts compiles and releases in the log.
    static let compile = """
        host_log("compile");
        if (length >= 4 && memcmp(expression, "fail", 4) == 0) {
            snprintf(compiled->error_text, compiled->error_capacity, "no memory");
            return APUS_FILTER_FAILED;
        }
        const char *bad = length ? memchr(expression, '!', length) : 0;
        if (bad) {
            compiled->error_position = (uint32_t)(bad - expression);
            snprintf(compiled->error_text, compiled->error_capacity, "what is !");
            return APUS_FILTER_REFUSED;
        }
        compiled->program = malloc(1);
        return APUS_FILTER_OK;
        """

    init() throws {
        workshop = try PluginWorkshop()
        catalogue = FilterCatalogue(logger: book.logger)
        try catalogue.load(
            path: try workshop.plugin(
                "counted", type: "C", compile: Self.compile,
                before: """
                    static const apus_filter_host *the_host;
                    static void host_log(const char *text) { the_host->log(the_host->context, 0, text, strlen(text)); }
                    """, entry: "the_host = host; return &table;"))
    }

    var compiles: Int { book.lines.filter { $0.hasSuffix("plugin: compile") }.count }

    @Test("one compile for any number of subscribers, kept while idle, released when too many idle")
    func cache() throws {
        let programs = FilterPrograms(catalogue: catalogue, idleMaximum: 2, firstID: 5)
        #expect(programs.compile(type: "C", expression: "a") == .program(5))
        #expect(programs.compile(type: "C", expression: "a") == .program(5))
        #expect(compiles == 1)
        programs.release(5)
        programs.release(5)
        programs.release(5)  // One too many: not counted.
        #expect(programs.compile(type: "C", expression: "a") == .program(5))
        #expect(compiles == 1)
        programs.release(5)
        for expression in ["b", "c"] {
            guard case .program(let id, _) = programs.compile(type: "C", expression: expression) else {
                Issue.record("\(expression)")
                return
            }
            programs.release(id)
        }
        // "a" was idle longest and made room.
        #expect(programs.count == 2)
        #expect(programs.program(5) == nil)
        #expect(programs.compile(type: "C", expression: "a") == .program(8))
        #expect(compiles == 4)
    }

    @Test("numbers never clash, also around the end of the range")
    func numbers() {
        let programs = FilterPrograms(catalogue: catalogue, firstID: .max)
        #expect(programs.compile(type: "C", expression: "a") == .program(.max))
        #expect(programs.compile(type: "C", expression: "b") == .program(1))
    }

    @Test("refusals keep their place and are remembered; failures are tried again; unknown types say so")
    func refusals() {
        let programs = FilterPrograms(catalogue: catalogue)
        #expect(programs.compile(type: "C", expression: "ab!") == .refused(position: 2, reason: "what is !"))
        #expect(programs.compile(type: "C", expression: "ab!") == .refused(position: 2, reason: "what is !"))
        #expect(compiles == 1)
        for _ in 0..<2 {
            #expect(
                programs.compile(type: "C", expression: "fail") == .unavailable(reason: "plugin counted: no memory"))
        }
        #expect(compiles == 3)
        #expect(
            programs.compile(type: "SQL93", expression: "a")
                == .unavailable(reason: "no filter plugin serves expressions of the type SQL93"))
    }

    @Test("a plugin that answers nonsense is not believed")
    func nonsense() throws {
        for (name, compile, what) in [
            ("kind", "compiled->tags_codes_kind = 9; return 0;", "tags_codes_kind this host does not know"),
            ("needs", "compiled->needs = 2; return 0;", "more than the plugin's capabilities"),
            (
                "many", "compiled->tags_codes_kind = 1; compiled->tags_code_count = 0x7FFFFFFF; return 0;",
                "tags codes"
            ),
            ("null", "compiled->tags_codes_kind = 1; compiled->tags_code_count = 2; return 0;", "no pointer to them"),
            ("status", "return 77;", "no reason given"),
            (
                "unterminated", "memset(compiled->error_text, 'x', compiled->error_capacity); return 2;",
                "xxxxx"
            ),
        ] {
            try catalogue.load(path: try workshop.plugin(name, type: name, compile: compile))
            guard
                case .unavailable(let reason) = FilterPrograms(catalogue: catalogue).compile(type: name, expression: "")
            else {
                Issue.record("\(name) was believed")
                continue
            }
            #expect(reason.contains(what))
        }
    }

    @Test("the service answers a broker-store's messages, and forgets with it")
    func service() throws {
        let service = FilterService(catalogue: catalogue, disk: RealDisk(), logger: book.logger)
        let watermarks = try SharedSegment.create(name: "watermarks", bytes: WatermarkSlot.count * 8)
        let log = try TestLog()
        log.append([("a", "b")])
        log.append([("a", "c")])
        service.addStore(index: 0, directory: log.folder.path, watermarks: watermarks)
        guard
            case .filterCompiled(1, .program(let id, _)) = service.answer(
                .filterCompile(request: 1, type: "C", expression: "x"), store: 0)
        else {
            Issue.record("not compiled")
            return
        }
        let batch = WorkerMessage.filterBatch(request: 2, program: id, entries: log.records.stored)
        guard case .filterFailed(2, false, let reason) = service.answer(batch, store: 0) else {
            Issue.record("a store that is not open was read")
            return
        }
        #expect(reason.contains("not open yet"))
        watermarks.atomicStore(slot: WatermarkSlot.fileSize, UInt64(log.fileSize))
        watermarks.atomicStore(slot: WatermarkSlot.written, UInt64(log.written))
        watermarks.atomicStore(slot: WatermarkSlot.ready, 1)
        #expect(service.answer(batch, store: 0) == .filterMatched(request: 2, bitmap: [0b11]))
        #expect(service.answer(.filterRelease(program: id), store: 1) == nil)
        #expect(service.answer(.filterRelease(program: id &+ 7), store: 0) == nil)
        guard
            case .filterFailed(3, true, _) = service.answer(
                .filterBatch(request: 3, program: id &+ 1, entries: []), store: 0)
        else {
            Issue.record("an unknown program was run")
            return
        }
        #expect(service.answer(.ping(1), store: 0) == nil)
        service.storeReplaced(index: 0)
        service.releaseWindows()
        #expect(service.status.contains("C by counted"))
        #expect(service.status.contains("1 batch of 2 records"))
    }
}
