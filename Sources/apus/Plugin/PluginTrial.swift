import ArgumentParser
import FastJSON
import FilterEngine
import Glibc
import LinuxSystem
import Logging
import MessageModel
import Supervision
import WorkerProtocol

/// The process of `apus plugin test` in which the plugin runs: shut in like a filter worker before the plugin's first
/// instruction.
struct PluginTrial {
    static let descriptor: Int32 = 3
    static let segmentBytes = 4096

    private let options: PluginTest
    private let segment: SharedSegment

    init(_ options: PluginTest) throws {
        guard SharedSegment.isSegment(Self.descriptor, bytes: Self.segmentBytes) else {
            throw ValidationError("--inside is what apus plugin test calls itself with")
        }
        self.options = options
        segment = try SharedSegment(adopting: Self.descriptor, writable: true)
    }

    func run() throws {
        let cases = try readCases()
        let files = ([options.file] + options.with).map { $0.contains("/") ? $0 : "./\($0)" }
        for file in files where access(file, R_OK) != 0 {
            finish(2, error: "\(file) cannot be read: \(SystemError.text(errno))")
        }
        let builtIns = BuiltInPlugins.find(beside: try OwnProgram.folder()).paths
        try shutIn(files + builtIns)
        let conduct = try PluginConduct(segment: segment, limits: limits, logger: Self.logger) { 0 }
        let catalogue = FilterCatalogue(logger: Self.logger, conduct: conduct)
        let plugin: FilterPlugin
        do throws(FilterPluginError) {
            plugin = try catalogue.load(path: files[0])
            for file in files.dropFirst() { try catalogue.load(path: file) }
        } catch {
            finish(2, error: "\(error)")
        }
        let release = plugin.release.isEmpty ? "" : " \(plugin.release)"
        print("\(plugin.name)\(release), expressions of the type \(plugin.type)")
        if options.brief { finish(0) }
        let programs = FilterPrograms(catalogue: catalogue)
        if let cases { finish(judge(cases, programs, plugin.type)) }
        guard let expression = options.expression else { finish(0) }
        finish(ask(expression, programs, plugin.type))
    }

    private static var logger: Logger {
        var logger = Logger(label: "plugin") { StreamLogHandler.standardError(label: $0) }
        logger.logLevel = .critical
        return logger
    }

    private var limits: PluginConduct.Limits {
        var limits = PluginConduct.Limits()
        limits.budgetMilliseconds = UInt32(options.timeBudget)
        limits.memory = UInt64(options.memory) << 20 / 8 * 7
        return limits
    }

    /// As a filter worker does it (`FilterSandbox`).
    private func shutIn(_ files: [String]) throws {
        let libraries = Sandbox.foldersOfLibraries().union([
            "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache",
        ])
        let folders = files.map { file in file.lastIndex(of: "/").map { String(file[..<$0]) } ?? "." }
        _ = try Sandbox.memoryInUse()
        _ = try Sandbox.restrictReading(to: libraries.union(folders.map { $0.isEmpty ? "/" : $0 }).sorted())
        try Sandbox.enter(memory: UInt64(options.memory) << 20)
    }

    /// Ends with the message to print; a plugin that runs code at exit changes nothing any more.
    private func finish(_ code: Int32, error: String? = nil) -> Never {
        if let error { StandardError.write("\(error)\n") }
        fflush(nil)
        PluginConduct.finish(code, in: segment)
        _exit(code)
    }

    // MARK: - Messages and cases

    private func readCases() throws -> [PluginCase]? {
        if let path = options.cases { return try PluginCase.read(path) }
        guard let path = options.message, let expression = options.expression else { return nil }
        return try PluginCase.read(path).map { line in
            var line = line
            line.expression = expression
            line.expected = nil
            return line
        }
    }

    private func judge(_ cases: [PluginCase], _ programs: FilterPrograms, _ type: String) -> Int32 {
        var wrong = 0
        var matched = 0
        for line in cases {
            let found: PluginCase.Outcome
            switch compile(line.expression ?? options.expression ?? "", programs, type) {
            case .refused(let text): found = .refused(text)
            case .compiled(let answer):
                do throws(FilterProbe.Failed) {
                    found = try answer(line, 1, 1).matches ? .matches : .differs
                } catch {
                    found = .failed
                }
            }
            if found == .matches { matched += 1 }
            guard let expected = line.expected else {
                print("line \(line.number): \(found.text)")
                if case .refused = found { return 2 }
                continue
            }
            if !found.isAs(expected) {
                wrong += 1
                print("line \(line.number): \(found.text), not: \(expected.text)")
            }
        }
        guard options.cases != nil else { return matched == cases.count ? 0 : 1 }
        print("\(cases.count - wrong) of \(cases.count) cases as they should be")
        return wrong == 0 ? 0 : 1
    }

    // MARK: - Asking

    private enum Compiled {
        case refused(String)
        case compiled(
            (PluginCase, _ copies: Int, _ batches: Int) throws(FilterProbe.Failed) -> (
                matches: Bool, nanoseconds: Double
            ))
    }

    private func compile(_ expression: String, _ programs: FilterPrograms, _ type: String) -> Compiled {
        switch programs.compile(type: type, expression: expression) {
        case .unavailable(let reason), .elsewhere(_, let reason):
            return .refused("\(reason) (--with FILE loads another plugin)")
        case .refused(let position, let reason):
            let before = String(decoding: expression.utf8.prefix(Int(position)), as: UTF8.self).count
            let spaces = String(repeating: " ", count: before)
            return .refused("\(expression)\n\(spaces)^\nat byte \(position): \(reason)")
        case .everything:
            return .compiled { (_, _, _) throws(FilterProbe.Failed) in (true, 0) }
        case .tagsCodes(let codes):
            return .compiled { (line, _, _) throws(FilterProbe.Failed) in (codes.contains(line.tagsCode), 0) }
        case .program(let id, _):
            guard let program = programs.program(id) else { preconditionFailure("a program that was just compiled") }
            let probe = FilterProbe(program)
            return .compiled { (line, copies, batches) throws(FilterProbe.Failed) in
                try probe.ask(
                    properties: line.stored, body: line.body, tagsCode: line.tagsCode, born: line.born,
                    stored: line.storedAt, copies: copies, batches: batches)
            }
        }
    }

    private func ask(_ expression: String, _ programs: FilterPrograms, _ type: String) -> Int32 {
        let line = PluginCase(
            properties: options.property.map { pair in
                let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                return (parts[0], parts[1])
            }, tag: options.tag, body: Array(options.body.utf8), born: options.born, storedAt: options.stored)
        switch compile(expression, programs, type) {
        case .refused(let text): finish(2, error: text)
        case .compiled(let answer):
            do throws(FilterProbe.Failed) {
                let (matches, nanoseconds) = try answer(
                    line, options.benchmark ? 1000 : 1, options.benchmark ? 1000 : 1)
                let time = options.benchmark && nanoseconds > 0 ? ": \(fixed(nanoseconds, 1)) ns a message" : ""
                print("\(matches ? "matches" : "does not match")\(time)")
                return matches ? 0 : 1
            } catch {
                finish(2, error: "the plugin failed to evaluate the expression")
            }
        }
    }
}

/// A message, and what should come of asking about it.
struct PluginCase {
    enum Outcome: Equatable {
        case matches
        case differs
        case refused(String)
        case failed

        var text: String {
            switch self {
            case .matches: "matches"
            case .differs: "does not match"
            case .refused(let text): text.isEmpty ? "refused" : "refused: \(text)"
            case .failed: "the plugin failed"
            }
        }

        func isAs(_ expected: Outcome) -> Bool {
            if case .refused = self, case .refused = expected { return true }
            return self == expected
        }
    }

    var number = 1
    var expression: String?
    var expected: Outcome?
    var properties: [(name: String, value: String)]
    var tag: String?
    var body: [UInt8]
    /// Milliseconds since 1970.
    var born: Int64
    var storedAt: Int64

    var tagsCode: Int64 { tag.map(FilterProbe.tagsCode) ?? 0 }

    /// As in the log.
    var stored: [UInt8] {
        var all = properties
        if let tag, !all.contains(where: { $0.name == Self.tags }) { all.append((Self.tags, tag)) }
        return Array(all.map { "\($0.name)\u{1}\($0.value)" }.joined(separator: "\u{2}").utf8)
    }

    /// One JSON object a line; lines that are empty or begin with # do not count.
    static func read(_ path: String) throws -> [PluginCase] {
        try TextFile.read(path).split(separator: "\n", omittingEmptySubsequences: false).enumerated()
            .compactMap { index, text in
                guard let first = text.first(where: { $0 != " " }), first != "#" else { return nil }
                do {
                    return try PluginCase(JSONValue(parsing: String(text)), number: index + 1)
                } catch {
                    throw CommandFailure("\(path), line \(index + 1): \(error)")
                }
            }
    }

    init(
        properties: [(name: String, value: String)], tag: String?, body: [UInt8], born: Int64, storedAt: Int64
    ) {
        self.properties = properties
        self.tag = tag
        self.body = body
        self.born = born
        self.storedAt = storedAt
    }

    private static let tags = "\(PropertyName.tags)"

    private static let known: Set<String> = [
        "expression", "matches", "refused", "properties", "tag", "body", "bornTime", "time", "topic", "key", "id",
        "broker", "queue", "offset", "retries",
    ]

    private init(_ json: JSONValue, number: Int) throws {
        guard let object = json.object else { throw CommandFailure("a case is a JSON object: {\"expression\": …}") }
        if let stranger = object.members.first(where: { !Self.known.contains($0.key) }) {
            throw CommandFailure(
                "\"\(stranger.key)\" means nothing here; known: \(Self.known.sorted().joined(separator: ", "))")
        }
        self.init(
            properties: (json["properties"]?.object?.members ?? []).map { ($0.key, $0.value.string ?? "") },
            tag: json["tag"]?.string, body: Array((json["body"]?.string ?? "").utf8),
            born: json["bornTime"]?.integer ?? 0, storedAt: json["time"]?.integer ?? 0)
        self.number = number
        expression = json["expression"]?.string
        if tag == nil { tag = properties.first { $0.name == Self.tags }?.value }
        if let matches = json["matches"]?.bool { expected = matches ? .matches : .differs }
        if json["refused"]?.bool == true { expected = .refused("") }
    }
}
