import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// Plugins as their authors and operators meet them. What a consumer must get is known of each message
    /// (`T09_Filters.fill`).
    @Suite("T18 plugins", .serialized)
    struct T18_Plugins {
        typealias Filters = T09_Filters

        static func build(_ source: String, _ output: String) async throws {
            let built = try await Program.run(
                "/usr/bin/cc",
                [
                    "-O1", "-fPIC", "-shared", "-D_GNU_SOURCE", "-I",
                    "\(Binaries.packageRoot)/plugins/CFilterPlugin/include", source, "-o", output,
                ])
            guard built.status == 0 else { throw ScenarioFailure("cc: \(built.errorText)") }
        }

        /// The example in C as a version of its own, at `output`.
        static func range(_ version: String, type: String = "RANGE", _ output: String) async throws {
            let example = try String(
                contentsOfFile: "\(Binaries.packageRoot)/plugins/Examples/PriceRange/price_range.c", encoding: .utf8)
            let source = example.replacingOccurrences(of: "\"1.0\"", with: "\"\(version)\"")
                .replacingOccurrences(of: "\"RANGE\"", with: "\"\(type)\"")
                .replacingOccurrences(of: "\"price-range\"", with: "\"\(type.lowercased())\"")
            try source.write(toFile: output + ".c", atomically: false, encoding: .utf8)
            try await build(output + ".c", output)
        }

        static func plugin(_ arguments: [String]) async throws -> (status: Int32, lines: [String], errorText: String) {
            try await Program.run(Binaries.apus, ["plugin"] + arguments)
        }

        static func folder(_ temporary: TemporaryFolder) throws -> String {
            let plugins = temporary.file("plugins")
            try FileManager.default.createDirectory(atPath: plugins, withIntermediateDirectories: true)
            return plugins
        }

        /// Their reasons did not fit a control message: the worker trapped, and SQL92 was blamed for it.
        @Test("hundreds of files that are no plugins cost no worker", .timeLimit(.minutes(1)))
        func manyFiles() async throws {
            let temporary = try TemporaryFolder()
            let folder = try Self.folder(temporary)
            for number in 0..<400 {
                try "no library".write(
                    toFile: "\(folder)/libNoPluginWithARatherLongName\(number).so", atomically: false, encoding: .utf8)
            }
            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(folder)"])
            try await eventually("they are refused", within: .seconds(20)) {
                platform.log.split(separator: "\n").filter { $0.contains("filter plugin refused") }.count > 100
            }
            // Time passes, in which a worker could be killed.
            try await Task.sleep(for: .seconds(3))
            #expect(!platform.log.contains("killed by") && !platform.log.contains("its last end is explained"))
            let listed = try await Self.plugin(["status", "--data-dir", platform.data])
            #expect(listed.status == 0 || listed.status == 1, "\(listed.errorText)")
            #expect(listed.lines.contains { $0.contains("libNoPluginWithARatherLongName") }, "\(listed.lines)")
            try await platform.stop()
        }

        @Test("without a built-in plugin the service does not start, and says which and where", .timeLimit(.minutes(1)))
        func builtIns() async throws {
            let folder = try TemporaryFolder()
            let programs = folder.file("programs")
            try FileManager.default.createDirectory(atPath: programs, withIntermediateDirectories: true)
            let names = [
                "apus", "apusd", "apus-nameserver", "apus-broker-store", "apus-replication", "apus-filter",
                "apus-gateway",
            ]
            for name in names + ["libApusTagFilter.so"] {
                let file = "\(Binaries.folder)/\(name)"
                // /proc/self/exe must lead into this folder.
                do {
                    try FileManager.default.linkItem(atPath: file, toPath: "\(programs)/\(name)")
                } catch {
                    try FileManager.default.copyItem(atPath: file, toPath: "\(programs)/\(name)")
                }
            }
            let up = try Program(
                "\(programs)/apus",
                ["up", "--data-dir", folder.file("data"), "--nameserver-port", "0", "--broker-port", "0"])
            #expect(try await up.finish(within: .seconds(30)) == 78, "\(up.errorText)")
            #expect(
                up.errorText.contains("without libApusSQL92Filter.so there are no subscriptions by tag or by SQL92"))
            let places = "looked for in \(programs)/plugins, \(programs), /usr/lib/apus/plugins"
            #expect(up.errorText.contains(places))
            // Before it is started, the check says the same.
            try "".write(toFile: folder.file("apus.toml"), atomically: true, encoding: .utf8)
            let checked = try await Program.run("\(programs)/apus", ["config", "check", folder.file("apus.toml")])
            #expect(checked.status == 78, "\(checked)")
            #expect(
                checked.errorText.contains("without libApusSQL92Filter.so there are no")
                    && checked.errorText.contains(places),
                "\(checked)")
            try FileManager.default.copyItem(
                atPath: "\(Binaries.folder)/libApusSQL92Filter.so", toPath: "\(programs)/libApusSQL92Filter.so")
            let whole = try await Program.run("\(programs)/apus", ["config", "check", folder.file("apus.toml")])
            #expect(!whole.errorText.contains("there are no subscriptions"), "\(whole)")
        }

        @Test(
            "cp over a loaded plugin under traffic, slowly: nothing lost, nothing doubled, no plugin blamed",
            .timeLimit(.minutes(2)))
        func copiedOver() async throws {
            let folder = try TemporaryFolder()
            let plugins = try Self.folder(folder)
            let target = "\(plugins)/libPriceRange.so"
            try await Self.range("1.0", folder.file("libPriceRange.so"))
            try FileManager.default.copyItem(atPath: folder.file("libPriceRange.so"), toPath: target)
            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(plugins)"])
            try await Filters.fill(platform, 0..<200)
            let ends = try await platform.queueSizes(topic: Filters.topic, queues: Filters.queues)
            try await Filters.served(platform, "RANGE")
            let consumer = Task {
                var rounds = 0
                while !Task.isCancelled {
                    // An expression of its own, so that the plugin is asked about everything.
                    let (bodies, _) = try await Filters.consume(
                        platform, type: "RANGE", "n \(rounds % 50) 150", upTo: ends)
                    #expect(bodies.sorted() == Filters.names(rounds % 50...150))
                    rounds += 1
                }
                return rounds
            }
            for version in 2...3 {
                try await Self.range("\(version).0", folder.file("new.so"))
                let bytes = try Data(contentsOf: URL(fileURLWithPath: folder.file("new.so")))
                let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: target))
                try handle.truncate(atOffset: 0)
                // In pieces with pauses, as over a slow network.
                for start in stride(from: 0, to: bytes.count, by: 4096) {
                    try handle.write(contentsOf: bytes[start..<min(bytes.count, start + 4096)])
                    try await Task.sleep(for: .milliseconds(120))
                }
                try handle.close()
                try await eventually("version \(version) is loaded", within: .seconds(10)) {
                    let status = try await Self.plugin(["status", "RANGE", "--data-dir", platform.data])
                    return status.lines.contains {
                        $0.contains("range \(version).0") && $0.contains("loaded by filter-2")
                    }
                }
            }
            consumer.cancel()
            #expect(try await consumer.value > 1)
            #expect(try await Filters.restarts(platform) == [0, 0, 0])
            #expect(
                !platform.log.contains("SIGBUS") && !platform.log.contains("points"), "\(platform.log.suffix(3000))")
            try await platform.stop()
        }

        @Test(
            "one plugin's stalls cost neither tags nor SQL92 nor another plugin anything; a mended version starts clean",
            .timeLimit(.minutes(2)))
        func neighbours() async throws {
            let folder = try TemporaryFolder()
            let plugins = try await Filters.buildHostile(in: folder)
            try await Self.range("1.0", "\(plugins)/libRange.so")
            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(plugins)"])
            try await Filters.fill(platform, 0..<200)
            let ends = try await platform.queueSizes(topic: Filters.topic, queues: Filters.queues)
            for type in ["HOSTILE", "RANGE"] { try await Filters.served(platform, type) }
            let provoking = Task {
                var got = 0
                while !Task.isCancelled { got += (try? await Filters.provoke(platform, "spin").bytes) ?? 0 }
                return got
            }
            var rounds = 0
            try await eventually("the looping plugin is out of use", within: .seconds(40)) {
                let (sql, _) = try await Filters.consume(platform, type: "SQL92", "n > \(rounds % 100)", upTo: ends)
                #expect(sql.sorted() == Filters.names(rounds % 100 + 1..<200))
                let last = 50 + rounds % 100
                let (range, _) = try await Filters.consume(platform, type: "RANGE", "n 5 \(last)", upTo: ends)
                #expect(range.sorted() == Filters.names(5...last))
                rounds += 1
                let status = try await Self.plugin(["status", "--data-dir", platform.data])
                return status.status == 1
                    && status.lines.contains { $0.contains("hostile") && $0.contains("out of use for") }
            }
            // The workers of those that did nothing are the processes they were.
            let restarts = try await Filters.restarts(platform)
            #expect(restarts.count == 4 && restarts[0] == 0 && restarts[1] > 0, "\(restarts)")
            #expect(restarts[2] + restarts[3] == 1, "\(restarts)")
            #expect(!platform.log.contains("throttled"), "\(platform.log.suffix(2000))")
            provoking.cancel()
            #expect(await provoking.value == 0)

            // Pardoned it is called again; with other bytes it never was guilty.
            let pardoned = try await Self.plugin(["pardon", "hostile", "--data-dir", platform.data])
            #expect(pardoned.status == 0 && pardoned.lines.first?.contains("a call took longer than 1000 ms") == true)
            try await eventually("it is called again") { try await Filters.provoke(platform, "proof").bytes > 0 }
            let stranger = try await Self.plugin(["pardon", "nobody", "--data-dir", platform.data])
            #expect(stranger.status == 1 && stranger.errorText.contains("knows no plugin nobody"), "\(stranger)")
            try await platform.stop()
        }

        /// How long the neighbours wait meanwhile is measured by `Tests/Scripts/stall-benchmark`.
        @Test(
            "neighbours get all they want and nothing else, from the same processes, while one plugin loops, crashes, is replaced, and others come and go",
            .timeLimit(.minutes(2)))
        func beside() async throws {
            let folder = try TemporaryFolder()
            let plugins = try await Filters.buildHostile(in: folder)
            try await Self.range("1.0", "\(plugins)/libRange.so")
            try await Self.range("1.0", type: "ANOTHER", folder.file("libAnother.so"))
            let platform = try await Platform.start([
                "--set", "filter.pluginDirectory=\(plugins)", "--set", "filter.filterTimeBudgetMillis=200",
            ])
            try await Filters.fill(platform, 0..<200)
            let ends = try await platform.queueSizes(topic: Filters.topic, queues: Filters.queues)
            for type in ["HOSTILE", "RANGE"] { try await Filters.served(platform, type) }
            /// The process that serves RANGE, and the one for SQL92.
            func servers() async throws -> [pid_t] {
                let rows = try await platform.status().workers.filter { $0.kind == "filter" && $0.state == "ready" }
                let range = rows.filter { $0.status.hasPrefix("plugins: ") && $0.status.contains("RANGE by") }
                return (rows.prefix(1) + range).map { pid_t($0.pid) }
            }
            try await eventually("both have said what they serve") { try await servers().count == 2 }
            let before = try await servers()
            let hostile = try Data(contentsOf: URL(fileURLWithPath: "\(plugins)/libHostile.so"))
            func replaceHostile(_ round: Int) throws {
                // Other bytes behind its headers: another version that behaves alike.
                try (hostile + Data(repeating: UInt8(round), count: 64)).write(
                    to: URL(fileURLWithPath: "\(plugins)/.new"))
                guard rename("\(plugins)/.new", "\(plugins)/libHostile.so") == 0 else {
                    throw ScenarioFailure("rename: \(errno)")
                }
            }
            let another = "\(plugins)/libAnother.so"
            for (deed, happening) in [
                ("spin", "nothing"), ("crash", "nothing"), ("spin", "replaced"), ("spin", "others"),
            ] {
                let provoking = Task {
                    var got = 0
                    while !Task.isCancelled {
                        got += (try? await Filters.provoke(platform, deed).bytes) ?? 0
                        try? await Task.sleep(for: .milliseconds(20))
                    }
                    return got
                }
                let restarts = try await Filters.restarts(platform).reduce(0, +)
                var rounds = 0
                try await eventually("\(deed), \(happening)", within: .seconds(30)) {
                    rounds += 1
                    // Called again and again, not put out of use for good.
                    _ = try await Self.plugin(["pardon", "HOSTILE", "--data-dir", platform.data])
                    if happening == "replaced" { try replaceHostile(rounds) }
                    if happening == "others" {
                        if rounds % 2 == 1 {
                            try FileManager.default.copyItem(atPath: folder.file("libAnother.so"), toPath: another)
                        } else {
                            try FileManager.default.removeItem(atPath: another)
                        }
                    }
                    // Expressions of their own, so that each is asked about everything.
                    let last = 100 + rounds
                    for (type, expression, wanted) in [
                        ("SQL92", "n > \(last)", Array(last + 1..<200)), ("RANGE", "n 5 \(last)", Array(5...last)),
                        ("SQL92", "n > 50 AND PLUGIN('RANGE', 'n 5 \(last)')", Array(51...last)),
                    ] {
                        let (bodies, _) = try await Filters.consume(platform, type: type, expression, upTo: ends)
                        #expect(bodies.sorted() == Filters.names(wanted), "\(deed), \(happening): \(expression)")
                    }
                    try await Task.sleep(for: .milliseconds(300))
                    return try await Filters.restarts(platform).reduce(0, +) >= restarts + 3 && rounds >= 6
                }
                provoking.cancel()
                #expect(await provoking.value == 0)
                #expect(try await servers() == before, "\(deed), \(happening): \(platform.log.suffix(2000))")
            }
            try await platform.stop()
        }

        @Test(
            "PLUGIN() inside SQL92 reaches a plugin from every client, with what each message must get",
            .timeLimit(.minutes(2)))
        func calls() async throws {
            let folder = try TemporaryFolder()
            let plugins = try Self.folder(folder)
            try await Self.range("1.0", "\(plugins)/libRange.so")
            try await Self.range("1.0", type: "OTHER", "\(plugins)/libOther.so")
            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(plugins)"])
            try await Filters.fill(platform, 0..<200)
            let ends = try await platform.queueSizes(topic: Filters.topic, queues: Filters.queues)
            for type in ["RANGE", "OTHER"] { try await Filters.served(platform, type) }
            let cases: [(String, (Int) -> Bool)] = [
                ("PLUGIN('RANGE', 'n 10 90')", { (10...90).contains($0) }),
                ("color = 'red' AND PLUGIN('RANGE', 'n 10 90')", { $0 % 3 == 0 && (10...90).contains($0) }),
                (
                    "NOT PLUGIN('RANGE', 'n 10 90') AND n < 120 OR n = 50",
                    { !(10...90).contains($0) && $0 < 120 || $0 == 50 }
                ),
                // Two plugins in one expression: a worker that has both.
                (
                    "PLUGIN('RANGE', 'n 10 90') AND NOT PLUGIN('OTHER', 'n 20 30')",
                    { (10...90).contains($0) && !(20...30).contains($0) }
                ),
                // A missing property is unknown, and stays so under NOT; the call is never unknown.
                ("NOT (missing > 5 AND PLUGIN('RANGE', 'n 10 90'))", { !(10...90).contains($0) }),
            ]
            for (expression, wanted) in cases {
                let (bodies, _) = try await Filters.consume(platform, type: "SQL92", expression, upTo: ends)
                #expect(bodies.sorted() == Filters.names((0..<200).filter(wanted)), "\(expression)")
            }
            let refused = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .checkClientConfig,
                    body: Array(
                        """
                        {"clientId":"c","group":"T09","subscriptionData":{"classFilterMode":false,"codeSet":[],\
                        "expressionType":"SQL92","subString":"n = 1 AND PLUGIN('RANGE', 'n 5')","subVersion":1,"tagsSet":[],\
                        "topic":"\(Filters.topic)"}}
                        """.utf8)))
            #expect(refused.responseCode == .subscriptionParseFailed)
            #expect(
                refused.remark?.contains("30") == true
                    && refused.remark?.contains("RANGE: a number, the upper end") == true, "\(refused)")

            // The tools: properties sent, types and calls asked for.
            func lines(_ text: String) throws -> Program.Input {
                try text.write(toFile: folder.file("lines"), atomically: true, encoding: .utf8)
                return .file(folder.file("lines"))
            }
            let sent = try await platform.apus(
                ["send", "--topic", "Prices", "--property", "price=15", "-p", "region=hangzhou"],
                input: lines("fifteen\n"))
            #expect(sent.status == 0, "\(sent.errorText)")
            let other = try await platform.apus(
                ["send", "--topic", "Prices", "--property", "price=25"], input: lines("twenty-five\n"))
            #expect(other.status == 0, "\(other.errorText)")
            for (type, text) in [
                ("RANGE", "price 10 20"), ("SQL92", "region = 'hangzhou' AND PLUGIN('RANGE', 'price 10 20')"),
            ] {
                let got = try await platform.apus(
                    [
                        "consume", "--topic", "Prices", "--group", type, "--from", "first", "--timeout", "2",
                        "--expression", type, text,
                    ])
                #expect(got.lines == ["fifteen"], "\(type): \(got)")
            }
            let late = try await platform.apus(
                ["send", "--topic", "Prices", "--key", "k1", "--property", "price=11", "--delay", "600ms"],
                input: lines("later\n"))
            #expect(late.status == 0, "\(late.errorText)")
            let delayed = try await platform.apus(
                [
                    "consume", "--topic", "Prices", "--group", "RANGE", "--timeout", "3", "--expression", "RANGE",
                    "price 10 12", "--json",
                ])
            let message = try #require(delayed.lines.first.map { try JSONValue(parsing: $0) })
            let waited = (message["time"]?.integer ?? 0) - (message["bornTime"]?.integer ?? 0)
            #expect(delayed.lines.count == 1 && waited >= 600, "\(delayed.lines)")
            let wrong = try await platform.apus(["consume", "--topic", "Prices", "--expression", "SQL92"])
            #expect(wrong.status == 64 && wrong.errorText.contains("--expression takes the type and the text"))

            // Those messages are cases for a test of the plugin by itself.
            try delayed.lines[0].write(toFile: folder.file("messages.jsonl"), atomically: true, encoding: .utf8)
            let tested = try await Self.plugin(
                ["test", "\(plugins)/libRange.so", "price 10 12", "--message", folder.file("messages.jsonl")])
            #expect(tested.status == 0 && tested.lines.last == "line 1: matches", "\(tested)")
            try await platform.stop()
        }

        @Test(
            "apus plugin test: what a plugin does in it is said in words, and never ends it as if all were well",
            .timeLimit(.minutes(1)),
            arguments: [
                ("exit", "it called exit in match_batch"), ("crash", "crashed in match_batch or after (SIGSEGV)"),
                ("crash in compile", "crashed in compile or after (SIGABRT)"),
                ("spin", "a call took longer than 300 ms in match_batch"),
                ("deaf spin", "it did not come to an end within 3 s"), ("leak", "it used up the memory in match_batch"),
            ])
        func verdicts(deed: String, words: String) async throws {
            let folder = try TemporaryFolder()
            let plugins = try await Filters.buildHostile(in: folder)
            let tested = try await Self.plugin(
                ["test", "\(plugins)/libHostile.so", deed, "--time-budget", "300", "--timeout", "3", "--memory", "128"])
            let isSaid =
                tested.errorText.contains(words) || deed == "deaf spin" && tested.errorText.contains("longer than")
            #expect(tested.status == 3 && isSaid, "\(tested)")
            // What it may not do it may not do here either.
            for deed in ["write", "connect", "exec", "kill", "remove"] {
                let tried = try await Self.plugin(["test", "\(plugins)/libHostile.so", deed])
                #expect(tried.status == 1 && tried.lines.last == "does not match", "\(deed): \(tried)")
            }
            #expect(try await Self.plugin(["test", "\(plugins)/libHostile.so", "proof"]).status == 0)
        }

        @Test("apus plugin test: many cases in one file, with what should come of each", .timeLimit(.minutes(1)))
        func cases() async throws {
            let folder = try TemporaryFolder()
            try await Self.range("1.0", folder.file("libRange.so"))
            try """
            # the ends belong to the range
            {"expression": "price 10 20", "properties": {"price": "10"}, "matches": true}
            {"expression": "price 10 20", "properties": {"price": "20.5"}, "matches": false}
            {"expression": "price 10", "refused": true}
            {"expression": "price 10 20", "properties": {"price": "dear"}, "matches": true}
            """.write(toFile: folder.file("cases.jsonl"), atomically: true, encoding: .utf8)
            let tested = try await Self.plugin([
                "test", folder.file("libRange.so"), "--cases", folder.file("cases.jsonl"),
            ])
            #expect(tested.status == 1, "\(tested)")
            #expect(
                tested.lines.suffix(2) == ["line 5: does not match, not: matches", "3 of 4 cases as they should be"],
                "\(tested)")
            let sql = "\(Binaries.folder)/libApusSQL92Filter.so"
            let called = try await Self.plugin(
                [
                    "test", sql, "a = 1 AND PLUGIN('RANGE', 'price 10 20')", "--with", folder.file("libRange.so"), "-p",
                    "price=15", "-p", "a=1",
                ])
            #expect(called.status == 0 && called.lines.last == "matches", "\(called)")
            let alone = try await Self.plugin(["test", sql, "PLUGIN('RANGE', 'price 10 20')"])
            #expect(
                alone.status == 2 && alone.errorText.contains("no filter plugin serves expressions of the type RANGE"))
        }

        @Test("add, status and remove speak with the running platform", .timeLimit(.minutes(1)))
        func operators() async throws {
            let folder = try TemporaryFolder()
            let platform = try await Platform.start(in: folder)
            try await Filters.fill(platform, 0..<40)
            let ends = try await platform.queueSizes(topic: Filters.topic, queues: Filters.queues)
            let running = ["--data-dir", platform.data]
            #expect(try await Filters.restarts(platform) == [0], "one worker while there are no plugins")
            try await Self.range("1.0", folder.file("libRange.so"))
            let added = try await Self.plugin(["add", folder.file("libRange.so")] + running)
            #expect(added.status == 0 && added.lines.last == "loaded by filter-2", "\(added)")
            #expect(added.lines.first?.contains("\(platform.data)/plugins/libRange.so") == true, "\(added)")
            // The same type again: refused by the platform, and the command says so.
            try await Self.range("1.0", folder.file("libTwin.so"))
            let twin = try await Self.plugin(["add", folder.file("libTwin.so")] + running)
            #expect(twin.status == 2 && twin.errorText.contains("RANGE are served by libRange.so"), "\(twin)")
            try FileManager.default.copyItem(
                atPath: folder.file("libTwin.so"), toPath: "\(platform.data)/plugins/libTwin.so")
            try await eventually("the twin is refused") {
                let status = try await Self.plugin(["status", "libTwin.so"] + running)
                return status.status == 1 && status.lines.contains { $0.contains("refused because") }
            }
            #expect(try await Self.plugin(["remove", "libTwin.so"] + running).status == 0)
            _ = try await Filters.consume(platform, type: "RANGE", "n 1 5", upTo: ends)
            var shown: [String] = []
            do {
                try await eventually("what depends on it is shown") {
                    let status = try await Self.plugin(["status"] + running)
                    shown = status.lines
                    return status.status == 0 && status.lines.contains("  in use: RANGE \"n 1 5\"")
                        && status.lines.contains {
                            $0.hasPrefix("libApusSQL92Filter.so: sql92") && $0.hasSuffix("loaded by filter-0")
                        }
                }
            } catch {
                throw ScenarioFailure("\(error): \(shown)")
            }
            for (name, words) in [
                ("libRange.so", "libRange.so is needed by 1 subscription:\n  in use: RANGE \"n 1 5\"\n"),
                ("libApusSQL92Filter.so", "comes with Apus"),
            ] {
                let asked = try await Self.plugin(["remove", name] + running)
                #expect(asked.status == 1 && asked.errorText.contains(words), "\(asked)")
                #expect(asked.errorText.contains("there is no terminal to ask at; --yes says so"), "\(asked)")
            }
            #expect(try await Self.plugin(["remove", "libRange.so", "--yes"] + running).status == 0)
            try await eventually("it is gone") {
                try await Self.plugin(["status", "RANGE"] + running).errorText.contains("knows no plugin RANGE")
            }
            #expect(try await Filters.restarts(platform).allSatisfy { $0 == 0 })
            try await platform.stop()
            #expect(try await Self.plugin(["status"] + running).status == 3)
        }

        @Test("status, list and remove name the consumer groups and topics that need a plugin", .timeLimit(.minutes(1)))
        func dependents() async throws {
            let folder = try TemporaryFolder()
            let plugins = try Self.folder(folder)
            try await Self.range("1.0", "\(plugins)/libRange.so")
            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(plugins)"])
            let running = ["--data-dir", platform.data]
            try await Filters.served(platform, "RANGE")
            try await Filters.fill(platform, 0..<8)
            let call = "n = 1 AND PLUGIN('RANGE', 'n 1 5')"
            let consumers = try [
                ("direct", "RANGE", "n 1 5"), ("called", "SQL92", call), ("condition", "SQL92", "n > 5"),
                ("tags", "", "red"),
            ].map { group, type, expression in
                try Program(
                    Binaries.apus,
                    ["consume", "--topic", Filters.topic, "--group", group, "--name-server", platform.nameServer]
                        + (type.isEmpty ? ["--tag", expression] : ["--expression", type, expression]))
            }
            let direct = "  group direct, topic Filtered: RANGE \"n 1 5\""
            let called = "  group called, topic Filtered: SQL92 \"\(call)\""
            let condition = "  group condition, topic Filtered: SQL92 \"n > 5\""
            var shown: (status: Int32, lines: [String], errorText: String)?
            do {
                try await eventually("all of them are named", within: .seconds(20)) {
                    let status = try await Self.plugin(["status"] + running)
                    shown = status
                    guard let range = status.lines.firstIndex(where: { $0.hasPrefix("libRange.so: ") }),
                        let sql = status.lines.firstIndex(where: { $0.hasPrefix("libApusSQL92Filter.so: ") })
                    else { return false }
                    // Sorted by file: SQL92's lines end where the next plugin's begin.
                    return status.lines[(range + 1)...].prefix(2) == [called, direct]
                        && status.lines[(sql + 1)...].prefix(3) == [called, condition, status.lines[sql + 3]]
                        && status.lines[sql + 3].hasPrefix("lib") && status.status == 0
                        && !status.lines.contains { $0.contains("group tags") || $0.contains("in use: ") }
                }
            } catch {
                throw ScenarioFailure("\(error): \(String(describing: shown))")
            }
            let list = try await Self.plugin(["list"] + running).lines
            #expect(list.suffix(2) == [called, direct], "\(list)")
            let asked = try await Self.plugin(["remove", "libRange.so"] + running)
            #expect(
                asked.status == 1
                    && asked.errorText.hasPrefix(
                        "libRange.so is needed by 2 subscriptions:\n\(called)\n\(direct)\nRemove it?"),
                "\(asked)")
            // The broker's next process hears of them again from the clients.
            let old = try #require(platform.pid(of: "broker-store"))
            kill(old, SIGKILL)
            _ = try await platform.newPid(of: "broker-store", after: old)
            try await eventually("named again", within: .seconds(40)) {
                try await Self.plugin(["status", "RANGE"] + running).lines.suffix(2) == [called, direct]
            }
            // Without it they are named all the same.
            #expect(try await Self.plugin(["remove", "libRange.so", "--yes"] + running).status == 0)
            try await eventually("what no worker serves is named") {
                let status = try await Self.plugin(["status"] + running)
                return status.status == 1
                    && status.lines.suffix(2) == [called, direct].map { "no plugin serves RANGE:\($0.dropFirst())" }
            }
            for consumer in consumers { consumer.send(signal: SIGINT) }
            for consumer in consumers { try await consumer.finish() }
            try await eventually("they have gone") {
                try await Self.plugin(["status"] + running).lines.allSatisfy { !$0.contains("group ") }
            }
            try await platform.stop()
        }

        @Test(
            "a plugin that fails each call is named by apus status with the count, until it answers again",
            .timeLimit(.minutes(1)))
        func failing() async throws {
            let folder = try TemporaryFolder()
            let plugins = try Self.folder(folder)
            // Answers an error to every batch of the expression "fail": no crash, nothing to be held against it.
            let example = try String(
                contentsOfFile: "\(Binaries.packageRoot)/plugins/Examples/PriceRange/price_range.c", encoding: .utf8)
            let line = "const struct range *range = program;"
            let source = example.replacingOccurrences(
                of: line, with: "\(line) if (range->low == 666) return APUS_FILTER_FAILED;")
            #expect(source != example)
            try source.write(toFile: folder.file("failing.c"), atomically: false, encoding: .utf8)
            try await Self.build(folder.file("failing.c"), "\(plugins)/libFailing.so")
            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(plugins)"])
            try await Filters.served(platform, "RANGE")
            try await Filters.fill(platform, 0..<40)
            let ends = try await platform.queueSizes(topic: Filters.topic, queues: Filters.queues)
            func status() async throws -> (status: Int32, lines: [String], errorText: String) {
                try await Program.run(Binaries.apus, ["status", "--data-dir", platform.data])
            }
            #expect(try await status().status == 0)
            let pulling = Task {
                var bodies: [String] = []
                while !Task.isCancelled {
                    let reply = try await platform.ask(
                        platform.broker, Filters.pull("RANGE", "n 666 667"))
                    bodies += Filters.bodies(reply.body)
                    try? await Task.sleep(for: .milliseconds(20))
                }
                return bodies
            }
            let words = #/plugin price-range failed its last (\d+) calls for "n 666 667": its consumers get nothing/#
            var counts: [Int] = []
            try await eventually("the count is told, and grows", within: .seconds(20)) {
                let shown = try await status()
                // What another expression gets is no reason to say that all is well.
                let (bodies, _) = try await Filters.consume(platform, type: "RANGE", "n 5 9", upTo: ends)
                #expect(bodies.sorted() == Filters.names(5...9))
                guard let row = shown.lines.first(where: { $0.hasPrefix("filter-2") }),
                    let match = row.firstMatch(of: words), let count = Int(match.1)
                else { return false }
                #expect(shown.status == 1, "\(shown)")
                counts.append(count)
                return count > counts[0]
            }
            let report = try await platform.status()
            #expect(report["filter-2"]?.state == "ready" && report["filter-2"]?.restarts == 0, "\(report)")
            #expect(
                report.statusLine.contains("; filter-2 plugin price-range failed its last "), "\(report.statusLine)")
            let ofPlugins = try await Self.plugin(["status", "RANGE", "--data-dir", platform.data])
            #expect(ofPlugins.status == 1 && ofPlugins.lines.contains { $0.contains(words) }, "\(ofPlugins)")
            pulling.cancel()
            #expect(try await pulling.value == [], "nothing is delivered unfiltered")
            // Replaced by one that answers it is well at once.
            try await Self.build(
                "\(Binaries.packageRoot)/plugins/Examples/PriceRange/price_range.c", folder.file("libFailing.so"))
            let added = try await Self.plugin(["add", folder.file("libFailing.so"), "--data-dir", platform.data])
            #expect(added.status == 0, "\(added)")
            try await eventually("all is well") { try await status().status == 0 }
            try await platform.stop()
        }

        @Test("every command of plugins/README.md does what the page says", .timeLimit(.minutes(3)))
        func readme() async throws {
            let page = try String(contentsOfFile: "\(Binaries.packageRoot)/plugins/README.md", encoding: .utf8)
            let lines = page.split(separator: "\n").filter { $0.hasPrefix("    ") }.map { String($0.dropFirst(4)) }
            let commands = lines.filter { line in
                ["cc ", "swiftc ", "apus ", "echo "].contains { line.hasPrefix($0) }
            }
            #expect(commands.count == 12, "\(commands)")
            let folder = try TemporaryFolder()
            let home = folder.file("home")
            try FileManager.default.createDirectory(atPath: "\(home)/apus", withIntermediateDirectories: true)
            try FileManager.default.createSymbolicLink(
                atPath: folder.file("plugins"), withDestinationPath: "\(Binaries.packageRoot)/plugins")
            try lines.filter { $0.hasPrefix("{") }.joined(separator: "\n").write(
                toFile: folder.file("cases.jsonl"), atomically: true, encoding: .utf8)
            try #"{"topic":"Orders","properties":{"price":"15"},"body":"chair"}"#.write(
                toFile: folder.file("orders.jsonl"), atomically: true, encoding: .utf8)
            // As the one who reads it has it: a platform of one's own in the usual place.
            let up = try Program(
                "/bin/sh",
                [
                    "-c",
                    "XDG_STATE_HOME=\(home) exec \(Binaries.apus) up --nameserver-port 0 --broker-port 0",
                ])
            let ready = try await up.line(within: .seconds(30)) { $0.hasPrefix("ready ") }
            let server = try #require(ready.split(separator: " ").first { $0.hasPrefix("nameserver=") }?.dropFirst(11))
            var printed: [String: [String]] = [:]
            for command in commands {
                let done = try await Program.run(
                    "/bin/sh",
                    [
                        "-c",
                        "cd \(folder.path) && export XDG_STATE_HOME=\(home) NAMESRV_ADDR=\(server) PATH=\(Binaries.folder):$PATH && "
                            + command,
                    ], within: .seconds(120))
                #expect(done.status == 0, "\(command): \(done)")
                printed[command] = done.lines
            }
            func output(_ beginning: String) -> [String] { printed.first { $0.key.hasPrefix(beginning) }?.value ?? [] }
            #expect(output("apus plugin add").last == "loaded by filter-2")
            #expect(
                output("apus plugin list").contains {
                    $0.hasPrefix("libPriceRange.so\t") && $0.hasSuffix("\tloaded by filter-2")
                })
            #expect(output("apus plugin list").count == 3)
            #expect(output("apus consume --topic Orders --group a") == ["chair"])
            #expect(output("apus consume --topic Orders --group b") == ["chair"])
            #expect(output("apus plugin test ./libPriceRange.so --cases").last == "2 of 2 cases as they should be")
            up.send(signal: SIGTERM)
            #expect(try await up.finish(within: .seconds(30)) == 0)
        }
    }
}
