import ArgumentParser
import FastJSON
import LinuxSystem
import WorkerProtocol

/// What the filter workers of a running platform report of their plugins.
struct PluginReport {
    /// One plugin file in one worker.
    struct Row {
        var worker: Int64
        var role: String
        var path: String
        var name: String?
        var type: String?
        var release: String
        var refusal: String?
        var history: String?
        var failing: String?
        var pauseSeconds: Int64?
        /// Nanoseconds since 1970.
        var modified: Int64
        var isPending: Bool
        var isMine: Bool
        var isBuiltIn: Bool

        var file: String { path.split(separator: "/").last.map(String.init) ?? path }

        init(_ json: JSONValue, worker: Int64, role: String) {
            self.worker = worker
            self.role = role
            path = json["path"]?.string ?? ""
            name = json["name"]?.string
            type = json["type"]?.string
            release = json["release"]?.string ?? ""
            refusal = json["refusal"]?.string
            history = json["history"]?.string
            failing = json["failing"]?.string
            pauseSeconds = json["pauseSeconds"]?.integer
            modified = json["modified"]?.integer ?? 0
            isPending = json["pending"]?.bool ?? false
            isMine = json["mine"]?.bool ?? false
            isBuiltIn = json["builtIn"]?.bool ?? false
        }
    }

    struct Expression {
        var type: String
        var expression: String
        var plugins: [String]
    }

    /// What a connected consumer group wants of a topic.
    struct Subscription: Hashable {
        var group: String
        var topic: String
        var type: String
        /// Its beginning, where it is long.
        var expression: String
        /// The types of the plugins it calls: `PLUGIN('TYPE', …)`.
        var calls: [String]

        init(_ json: JSONValue) {
            func text(_ key: String) -> String { json[key]?.string ?? "" }
            group = text("group")
            topic = text("topic")
            type = text("type")
            expression = text("expression")
            calls = json["calls"]?.array?.compactMap(\.string) ?? []
        }

        func needs(_ types: Set<String>) -> Bool { types.contains(type) || !types.isDisjoint(with: calls) }

        var text: String { "group \(group), topic \(topic): \(type) \"\(expression)\"" }
    }

    let folder: String
    let folders: [String]
    let rows: [Row]
    let expressions: [Expression]
    /// Of all brokers, each once, sorted.
    let subscriptions: [Subscription]
    /// Subscriptions that did not fit the brokers' reports.
    let unnamedSubscriptions: Int
    /// Filter workers that do not serve, with the reason.
    let absent: [String]

    init(_ json: JSONValue) {
        folder = json["folder"]?.string ?? ""
        folders = json["folders"]?.array?.compactMap(\.string) ?? []
        var rows: [Row] = []
        var expressions: [Expression] = []
        var absent: [String] = []
        for worker in json["workers"]?.array ?? [] {
            let index = worker["index"]?.integer ?? 0
            let report = Self.report(of: worker)
            if worker["state"]?.string != "ready" {
                absent.append(
                    "filter-\(index) is \(worker["state"]?.string ?? "gone"): \(worker["lastFailure"]?.string ?? "")")
            }
            let role = report?["role"]?.string ?? ""
            rows += (report?["plugins"]?.array ?? []).map { Row($0, worker: index, role: role) }
            expressions += (report?["expressions"]?.array ?? []).map {
                Expression(
                    type: $0["type"]?.string ?? "", expression: $0["expression"]?.string ?? "",
                    plugins: $0["plugins"]?.array?.compactMap(\.string) ?? [])
            }
        }
        self.rows = rows
        self.expressions = expressions
        self.absent = absent
        let reports = (json["brokers"]?.array ?? []).compactMap(Self.report)
        let named = reports.map { $0["subscriptions"]?.array?.map(Subscription.init) ?? [] }
        subscriptions = Set(named.joined()).sorted { ($0.group, $0.topic) < ($1.group, $1.topic) }
        unnamedSubscriptions = zip(reports, named).reduce(0) { total, broker in
            total + max(0, Int(clamping: broker.0["subscriptionCount"]?.integer ?? 0) - broker.1.count)
        }
    }

    /// What a worker reported of itself; nil: nothing, or nothing that can be read.
    private static func report(of worker: JSONValue) -> JSONValue? {
        guard let text = worker["report"]?.string, let report = try? JSONValue(parsing: text), report.object != nil
        else { return nil }
        return report
    }

    /// nil: no platform runs there, or it does not answer.
    static func running(_ platform: ControlClient.DataDirectory) -> PluginReport? {
        guard platform.runningPid != nil, let json = try? ControlClient(platform).answer(to: "plugins") else {
            return nil
        }
        return PluginReport(json)
    }

    func rows(of file: String) -> [Row] { rows.filter { $0.file == file } }

    /// By file, by that without `lib` and `.so`, by name or by type.
    func rows(called name: String) -> [Row] {
        rows.filter { $0.file == name || $0.file == "lib\(name).so" || $0.name == name || $0.type == name }
    }

    func use(of file: String) -> String { Self.use(rows(of: file)) }

    /// What the platform does with a plugin, for people.
    static func use(_ rows: [Row]) -> String {
        if let row = rows.first(where: { $0.refusal != nil }) { return "refused because \(row.refusal ?? "")" }
        if let row = rows.first(where: { $0.pauseSeconds != nil }) {
            return "out of use for \(row.pauseSeconds ?? 0) s more because \(row.history ?? "")"
        }
        if let row = rows.first(where: { $0.failing != nil }), let failing = row.failing { return failing }
        let serving =
            rows.filter { $0.isMine && $0.name != nil }.sorted {
                ($0.history != nil ? 1 : 0, $0.role) < ($1.history != nil ? 1 : 0, $1.role)
            }
        guard let row = serving.first else { return rows.contains(where: \.isPending) ? "being read" : "not loaded" }
        let record = row.history.map { ", with a record: \($0)" } ?? ""
        return "loaded by filter-\(row.worker)\(record)"
    }

    /// What needs a plugin file, as people write it. The subscriptions of connected consumer groups come first, then
    /// expressions in use without one (of clients that pull and do not subscribe).
    func dependents(of file: String) -> [String] {
        let rows = rows(of: file)
        let types = Set(rows.compactMap(\.type))
        let needing = subscriptions.filter { $0.needs(types) }
        let named = Set(needing.map { "\($0.type) \"\($0.expression)\"" })
        let names = Set(rows.compactMap(\.name))
        let used = Set(
            expressions.filter { !names.isDisjoint(with: $0.plugins) }.map { "\($0.type) \"\($0.expression)\"" })
        return needing.map(\.text) + used.subtracting(named).sorted().map { "in use: \($0)" }
    }

    /// Subscriptions that name a type which no plugin of the platform has.
    var unserved: [(type: String, subscription: Subscription)] {
        let known = Set(rows.compactMap(\.type))
        return subscriptions.flatMap { subscription in
            Set(subscription.calls + [subscription.type]).subtracting(known).sorted().map { ($0, subscription) }
        }
    }
}

/// `apus plugin status`.
struct PluginStatus: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the plugins of a running platform and what depends on them.",
        discussion: """
            Below each plugin stand the connected consumer groups that need it, with topic and expression; \
            PLUGIN('TYPE', …) inside SQL92 counts. Tags need no plugin once they are compiled, so that groups that \
            select by tags are not listed.
            Ends with 0 when all of them are in use, 1 when one is not or a group names a type no plugin serves, 3 \
            when nothing runs.
            """)

    @Argument(help: "One plugin: its file, its name or its type.", completion: Completions.plugin) var name: String?
    @OptionGroup var platform: ControlClient.DataDirectory

    func run() throws {
        guard platform.runningPid != nil else {
            print(platform.nothingRuns)
            throw ExitCode(3)
        }
        guard let report = PluginReport.running(platform) else {
            throw CommandFailure("the platform on \(platform.path) does not answer")
        }
        print("your plugins lie in \(report.folder)")
        for text in report.absent { print(text) }
        let shown = name.map { report.rows(called: $0) } ?? report.rows
        if let name, shown.isEmpty { throw CommandFailure("the platform knows no plugin \(name)") }
        var isGood = report.absent.isEmpty
        for file in Set(shown.map(\.file)).sorted() {
            let rows = shown.filter { $0.file == file }
            let use = PluginReport.use(rows)
            let row = rows.first { $0.name != nil } ?? rows[0]
            let type = row.type.map { ", expressions of the type \($0)" } ?? ""
            print("\(file): \(row.name.map { "\($0) \(row.release)" } ?? "no plugin")\(type): \(use)")
            for dependent in report.dependents(of: file) { print("  \(PlainText.escaped(dependent))") }
            if !use.hasPrefix("loaded by") { isGood = false }
        }
        if report.unnamedSubscriptions > 0 {
            print(
                """
                \(report.unnamedSubscriptions) more subscriptions are not named: apus why --group G says what a group \
                needs
                """
            )
        }
        if name == nil {
            for (type, subscription) in report.unserved {
                print("no plugin serves \(PlainText.escaped(type)): \(PlainText.escaped(subscription.text))")
                isGood = false
            }
        }
        if !isGood { throw ExitCode(1) }
    }
}
