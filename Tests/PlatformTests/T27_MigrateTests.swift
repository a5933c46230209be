import Foundation
import StoreJudge
import TestTools
import Testing

extension PlatformTests {
    /// A store of Apache's moves to Apus and back: what `apus migrate check` says, what clients meet, and what Apache
    /// would find.
    @Suite("T27 moving from RocketMQ, and back", .serialized)
    struct T27_Migrate {
        typealias Golden = T24_GoldenStores.Golden

        /// What `apus migrate check --json` says.
        private struct Report: Decodable {
            struct Topic: Decodable {
                var topic: String
                var messages: Int
            }
            struct Group: Decodable {
                var group: String
                var topic: String
                var lag: Int
            }
            struct Delay: Decodable {
                var level: Int
                var pending: Int
            }
            struct Timers: Decodable {
                var pending: Int
                var onlyInApus: Int
                var deliveredAgain: Int
            }
            struct Setting: Decodable {
                var key: String
                var value: String
            }
            struct Finding: Decodable {
                var weight: String
                var text: String
                var remedy: String?
            }
            struct LastRun: Decodable {
                var writer: String
                var stoppedInOrder: Bool
            }
            var lastRunBy: LastRun
            var topics: [Topic]
            var groups: [Group]
            var delays: [Delay]
            var timers: Timers
            var openTransactions: Int
            var settings: [Setting]
            var to: [String]
            var findings: [Finding]
            var canMove: Bool

            func messages(_ topic: String) -> Int { topics.first { $0.topic == topic }?.messages ?? 0 }
            func lag(_ group: String, _ topic: String) -> Int? {
                groups.first { $0.group == group && $0.topic == topic }?.lag
            }
            var decisions: [Finding] { findings.filter { $0.weight == "decide" } }
        }

        private func check(
            _ store: String, _ arguments: [String] = []
        ) async throws -> (status: Int32, lines: [String], errorText: String) {
            try await Program.run(
                Binaries.apus, ["migrate", "check", store] + arguments, within: .seconds(30))
        }

        private func report(_ store: String, _ arguments: [String] = []) async throws -> (status: Int32, Report) {
            let outcome = try await check(store, arguments + ["--json"])
            let text = outcome.lines.joined()
            do {
                return (outcome.status, try JSONDecoder().decode(Report.self, from: Data(text.utf8)))
            } catch {
                throw ScenarioFailure("\(error): \(text) \(outcome.errorText)")
            }
        }

        /// A table of offsets as RocketMQ writes it, with numbers for keys.
        private func offsets(_ store: String, _ name: String) throws -> [String: Any] {
            let text = try String(contentsOfFile: "\(store)/config/\(name)", encoding: .utf8)
            let quoted = text.replacing(/([{,]\s*)(\d+):/) { "\($0.1)\"\($0.2)\":" }
            let json = try JSONSerialization.jsonObject(with: Data(quoted.utf8)) as? [String: Any]
            return try #require(json?["offsetTable"] as? [String: Any])
        }

        private func send(
            _ platform: Platform, _ bodies: [String], _ options: [String] = []
        ) async throws {
            let file = platform.folder.file("lines-\(bodies.first ?? "")")
            try bodies.map { $0 + "\n" }.joined().write(toFile: file, atomically: false, encoding: .utf8)
            let sent = try await platform.apus(["send", "--topic", "GoldenNormal"] + options + [file])
            #expect(sent.status == 0, "\(sent.errorText)")
        }

        // MARK: - The journey

        @Test(
            "Apache's store, served by Apus over the wire, as Apache would read it again: 0 missing, 0 doubled",
            .timeLimit(.minutes(4)))
        func journey() async throws {
            let folder = try TemporaryFolder()
            let store = folder.file("data/store")
            try await Golden.clean.unpack(into: store)
            let before = try StoreJudge(store, rules: Golden.clean.rules)
            try #require(before.judge() == [])

            // Before the move.
            let (status, first) = try await report(store)
            #expect(status == 0 && first.canMove && first.to == ["apus"] && first.lastRunBy.writer == "rocketmq4")
            for (topic, queues) in Dictionary(grouping: before.queues, by: { $0.key.topic }) {
                #expect(first.messages(topic) == queues.reduce(0) { $0 + $1.value.count }, "\(topic)")
            }
            #expect(first.lag("G_GOLDEN_TagA", "GoldenNormal") == 6 && first.openTransactions == 4)

            let queues = try await check(store, ["--queues"]).lines.filter { $0.hasPrefix("GoldenNormal ") }
            #expect(
                queues.map { $0.split(separator: " ").dropFirst().joined(separator: " ") }
                    == (0..<4).map { "\($0) 25 0 25" })

            // Apus serves it.
            var platform = try await Platform.start(in: folder, Golden.clean.settings)
            let running = try await check(store)
            let owner = try #require(platform.pid(of: "broker-store"))
            #expect(running.status == 1 && running.lines.isEmpty)
            #expect(
                running.errorText.contains("process \(owner) (apus-broker-sto) holds its lock")
                    && running.errorText.contains("systemctl stop apus, or apus down"), "\(running.errorText)")
            try await groupGoesOn(platform, store)
            let now = (0..<200).map { "now-\($0)" }
            let level = (0..<20).map { "level-\($0)" }
            let soon = (0..<10).map { "soon-\($0)" }
            let later = (0..<5).map { "later-\($0)" }
            let hours = (0..<3).map { "hours-\($0)" }
            try await send(platform, now)
            try await send(platform, level, ["--property", "DELAY=1"])
            try await send(platform, soon, ["--delay", "700ms"])
            try await send(platform, later, ["--property", "DELAY=18"])
            try await send(platform, hours, ["--delay", "2h"])
            let consumed = try await platform.apus([
                "consume", "--topic", "GoldenNormal", "--group", "journey", "--from", "first", "--count", "330",
                "--timeout", "20",
            ])
            #expect(consumed.status == 0 && consumed.lines.count == 330, "\(consumed.lines.count)")
            let arrived = consumed.lines.filter { !$0.hasPrefix("normal-") }
            #expect(arrived.sorted() == (now + level + soon).sorted())
            let changed = try await Program.run(
                Binaries.apus,
                [
                    "admin", "updateBrokerConfig", "-b", platform.broker, "-k", "fileReservedTime", "-v", "999999",
                    "-n", platform.nameServer,
                ])
            #expect(changed.status == 0, "\(changed.errorText)")
            try await platform.stop()

            // For the way back.
            let (back, second) = try await report(store)
            #expect(back == 1 && !second.canMove && second.to == ["rocketmq4", "rocketmq5"])
            #expect(second.lastRunBy.writer == "apus" && second.lastRunBy.stoppedInOrder)
            #expect(second.messages("GoldenNormal") == 330 && second.lag("journey", "GoldenNormal") == 0)
            #expect(second.lag("G_GOLDEN_TagA", "GoldenNormal") == 230)
            #expect(second.delays.map { [$0.level, $0.pending] } == [[18, 5]])
            #expect(second.timers.pending == 3 && second.timers.deliveredAgain == 10 && second.timers.onlyInApus == 0)
            #expect(second.settings.map { "\($0.key)=\($0.value)" } == ["fileReservedTime=999999"])
            let four = try await report(store, ["--to", "rocketmq4"]).1.decisions.map(\.text)
            #expect(four.count == 2 && four.contains { $0.contains("3 timer messages; RocketMQ 4.x delivers none") })
            let (after, home) = try await report(store, ["--to", "apus"])
            #expect(after == 0 && home.canMove && home.decisions.isEmpty)
            for topic in first.topics where !["GoldenNormal", "SCHEDULE_TOPIC_XXXX"].contains(topic.topic) {
                #expect(second.messages(topic.topic) == Self.expected(topic), "\(topic.topic)")
            }
            try judge(store, before, delivered: now + level + soon, delayed: later, timed: hours)

            // And Apus goes on with it, without saying anything twice.
            platform = try await Platform.start(in: folder, Golden.clean.settings)
            let again = try await platform.apus([
                "consume", "--topic", "GoldenNormal", "--group", "journey", "--timeout", "2",
            ])
            #expect(again.lines.isEmpty, "\(again.lines)")
            try await platform.stop()
        }

        /// The two messages that waited for two hours in 2026 are delivered when Apus starts.
        private static func expected(_ topic: Report.Topic) -> Int {
            topic.messages + (topic.topic == "GoldenDelay" ? 2 : 0)
        }

        /// The group's consumer gets exactly what it had not got from Apache.
        private func groupGoesOn(_ platform: Platform, _ store: String) async throws {
            let old = try #require(
                try offsets(store, "consumerOffset.json")["GoldenNormal@G_GOLDEN_TagA"] as? [String: Int])
            let rest = old.flatMap { queue, offset in (offset..<25).map { "\(queue)\t\($0)" } }
            let consumed = try await platform.apus([
                "consume", "--topic", "GoldenNormal", "--group", "G_GOLDEN_TagA", "--count", "6", "--timeout", "10",
                "--columns", "queue,offset",
            ])
            #expect(consumed.status == 0 && consumed.lines.sorted() == rest.sorted(), "\(consumed)")
        }

        /// As Apache would read the folder: by its rules, and by its tables alone.
        private func judge(
            _ store: String, _ before: StoreJudge, delivered: [String], delayed: [String], timed: [String]
        ) throws {
            let judge = try StoreJudge(store, rules: Golden.clean.rules)
            #expect(judge.judge() == [])
            #expect(Array(judge.records.prefix(before.records.count)) == before.records)
            for (name, entries) in before.queues {
                #expect(entries.allSatisfy { judge.queues[name]?[$0.key] == $0.value }, "\(name)")
            }
            let records = Dictionary(judge.records.map { ($0.physicalOffset, $0.text) }, uniquingKeysWith: { $1 })
            func bodies(_ topic: String, queue: Int? = nil, from: Int = 0) -> [String] {
                judge.queues.filter { $0.key.topic == topic && queue ?? $0.key.queueID == $0.key.queueID }
                    .flatMap { $0.value.filter { $0.key >= from }.compactMap { records[$0.value.physicalOffset] } }
            }
            let golden = bodies("GoldenNormal").filter { $0.hasPrefix("normal-") }
            #expect(golden.count == 100 && Set(golden).count == 100)
            let found = bodies("GoldenNormal").filter { !$0.hasPrefix("normal-") }
            #expect(found.sorted() == delivered.sorted(), "missing or doubled")
            // What Apache would still deliver of the delay levels: only what was sent to level 18.
            let levels = try offsets(store, "delayOffset.json")
            for level in 1...18 {
                let next = levels[String(level)] as? Int ?? 0
                let pending = bodies("SCHEDULE_TOPIC_XXXX", queue: level - 1, from: next)
                #expect(pending.filter { $0.hasPrefix("later-") }.sorted() == (level == 18 ? delayed.sorted() : []))
                #expect(pending.count == (level == 18 ? 5 : 0), "level \(level)")
            }
            #expect(bodies("rmq_sys_wheel_timer").filter { $0.hasPrefix("hours-") }.sorted() == timed.sorted())
            // And where its consumers would go on.
            let table = try offsets(store, "consumerOffset.json")
            let journey = try #require(table["GoldenNormal@journey"] as? [String: Int])
            for queue in 0..<4 {
                let name = StoreJudge.QueueName(topic: "GoldenNormal", queueID: queue)
                #expect(journey[String(queue)] == (judge.queues[name]?.keys.max() ?? -1) + 1, "queue \(queue)")
            }
        }

        @Test(
            "a 5.3.3 store: timers Apus has delivered are named, and the printed remedy keeps them from coming again",
            .timeLimit(.minutes(2)))
        func timers() async throws {
            let folder = try TemporaryFolder()
            let store = folder.file("data/store")
            try await Golden.store5.unpack(into: store)
            let (status, first) = try await report(store)
            #expect(status == 1 && first.lastRunBy.writer == "rocketmq5" && first.timers.deliveredAgain == 0)
            #expect(first.decisions.count == 1 && first.decisions.allSatisfy { $0.remedy != nil })
            // What RocketMQ's clients have in hand is taken over: nothing to decide.
            #expect(first.findings.contains { $0.weight != "decide" && $0.text.contains("revive log") })
            var platform = try await Platform.start(in: folder, Golden.store5.settings)
            let file = folder.file("timer")
            try "soon\n".write(toFile: file, atomically: false, encoding: .utf8)
            let sent = try await platform.apus(["send", "--topic", "BgTopic", "--delay", "500ms", file])
            #expect(sent.status == 0, "\(sent.errorText)")
            try await eventually("delivered") {
                try await platform.queueSizes(topic: "BgTopic", queues: 4).reduce(0, +) == 151
            }
            try await platform.stop()
            let (_, second) = try await report(store, ["--to", "rocketmq5"])
            #expect(second.timers.deliveredAgain == 1 && second.timers.pending == 0)
            let remedy = try #require(second.decisions.first { $0.text.contains("once more") }?.remedy)
            let command = try #require(remedy.split(separator: ": ").last)
            let removed = try await Program.run("/bin/sh", ["-c", String(command)])
            #expect(removed.status == 0 && command.hasPrefix("cd \(store) && rm -rf "), "\(command)")
            let (done, third) = try await report(store, ["--to", "rocketmq5"])
            #expect(done == 0 && third.timers.deliveredAgain == 0, "\(third.decisions)")
            // It harms no broker that stays.
            platform = try await Platform.start(in: folder, Golden.store5.settings)
            // Time passes, in which one could come twice.
            try await Task.sleep(for: .milliseconds(700))
            #expect(try await platform.queueSizes(topic: "BgTopic", queues: 4).reduce(0, +) == 151)
            try await platform.stop()
        }

        // MARK: - The page and the command line

        /// Lines of the page that are indented: commands.
        private static func page() throws -> (commands: [String], output: [String]) {
            let text = try String(contentsOfFile: "\(Binaries.packageRoot)/units/MIGRATING.md", encoding: .utf8)
            let commands = text.split(separator: "\n").filter { $0.hasPrefix("    ") && !$0.hasPrefix("    →") }
            let blocks = text.components(separatedBy: "```\n")
            return (
                commands.map { String($0.dropFirst(4)) },
                blocks.count > 1 ? blocks[1].components(separatedBy: "\n") : []
            )
        }

        /// Two free ports, with room for the one two below the first.
        private static func freePorts() throws -> (broker: Int, others: [Int]) {
            func bound(_ port: Int) -> (descriptor: Int32, port: Int)? {
                let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
                var address = sockaddr_in()
                address.sin_family = sa_family_t(AF_INET)
                address.sin_port = in_port_t(port).bigEndian
                var length = socklen_t(MemoryLayout<sockaddr_in>.size)
                let result = withUnsafeMutablePointer(to: &address) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                        bind(descriptor, address, length) == 0 ? getsockname(descriptor, address, &length) : -1
                    }
                }
                guard result == 0 else {
                    close(descriptor)
                    return nil
                }
                return (descriptor, Int(address.sin_port.bigEndian))
            }
            for _ in 0..<50 {
                guard let first = bound(0) else { continue }
                let below = bound(first.port - 2)
                let others = [bound(0), bound(0)].compactMap { $0 }
                defer { for one in [first, below].compactMap({ $0 }) + others { close(one.descriptor) } }
                if below != nil, others.count == 2 { return (first.port, others.map(\.port)) }
            }
            throw ScenarioFailure("no free ports")
        }

        @Test("every command of units/MIGRATING.md does what the page says", .timeLimit(.minutes(3)))
        func everyCommand() async throws {
            let (commands, shown) = try Self.page()
            #expect(commands.count == 13, "\(commands)")
            let folder = try TemporaryFolder()
            let store = folder.file("store")
            try await Golden.clean.unpack(into: store)
            let rocketMQ = try await standIn(folder, store)
            let environment = [
                "STORE=\(store)", "XDG_STATE_HOME=\(folder.file("home"))", "TZ=UTC",
                "PATH=\(Binaries.folder):$PATH",
            ].joined(separator: " ")
            func run(_ command: String) async throws -> (status: Int32, lines: [String], errorText: String) {
                try await Program.run(
                    "/bin/sh", ["-c", "cd \(folder.path) && export \(environment) && " + command],
                    within: .seconds(60))
            }
            let open = try await run("apus migrate check $STORE")
            #expect(
                open.status == 1 && open.errorText.contains("process \(rocketMQ.pid) "), "\(open.errorText)")
            var platform: Program?
            for command in commands {
                if command == "apus up --config apus.toml" {
                    let up = try Program(
                        "/bin/sh", ["-c", "cd \(folder.path) && export \(environment) && exec " + command])
                    _ = try await up.line(within: .seconds(30)) { $0.hasPrefix("ready ") }
                    platform = up
                    let read = try await run(
                        "NAMESRV_ADDR=$(cat conf/address) apus consume --topic GoldenNormal --group billing --count 1 --timeout 10"
                    )
                    #expect(read.status == 0, "\(read.errorText)")
                    continue
                }
                let done = try await run("NAMESRV_ADDR=$(cat conf/address) && export NAMESRV_ADDR && " + command)
                #expect(done.status == 0, "\(command): \(done)")
                switch command {
                case "sh bin/mqshutdown broker": _ = try await rocketMQ.finish(within: .seconds(10))
                case "apus migrate check $STORE":
                    let expected = shown.map { $0.replacing("/data/rocketmq/store", with: store) }.filter { $0 != "" }
                    #expect(done.lines.filter { $0 != "" } == expected)
                    #expect(done.lines.allSatisfy { $0.count <= 100 || $0.contains(store) })
                case "apus admin topicList": #expect(done.lines.contains("GoldenNormal"))
                case "apus admin consumerProgress -g billing":
                    #expect(done.lines.contains { $0.contains("GoldenNormal") })
                case "apus migrate check $STORE --to rocketmq4", "apus migrate check $STORE --to rocketmq5":
                    #expect(done.lines.last?.hasSuffix("all of it can move") == true, "\(done.lines)")
                default: break
                }
            }
            #expect(try await platform?.finish(within: .seconds(30)) == 0)
            let before = try JSONDecoder().decode(
                Report.self, from: Data(contentsOf: URL(fileURLWithPath: folder.file("before.json"))))
            let after = try await report(store).1
            for topic in before.topics where topic.topic.hasPrefix("Golden") {
                #expect(after.messages(topic.topic) == Self.expected(topic), "\(topic.topic)")
            }
            #expect(before.delays.map { [$0.level, $0.pending] } == [[18, 2]] && after.delays.isEmpty)
            #expect(after.to == ["rocketmq4", "rocketmq5"])
        }

        /// Something that holds the store's lock as Java does, and RocketMQ's folders `bin` and `conf`.
        private func standIn(_ folder: TemporaryFolder, _ store: String) async throws -> Program {
            for name in ["bin", "conf", "home/apus"] {
                try FileManager.default.createDirectory(atPath: folder.file(name), withIntermediateDirectories: true)
            }
            let ports = try Self.freePorts()
            let rules = Golden.clean.rules
            func write(_ name: String, _ text: String) throws {
                try text.write(toFile: folder.file(name), atomically: false, encoding: .utf8)
            }
            try write(
                "conf/broker.conf",
                """
                brokerName=golden-a
                brokerIP1=127.0.0.1
                namesrvAddr=127.0.0.1:\(ports.others[0])
                listenPort=\(ports.broker)
                haListenPort=\(ports.others[1])
                storePathRootDir=\(store)
                mappedFileSizeCommitLog=\(rules.mappedFileSizeCommitLog)
                mappedFileSizeConsumeQueue=\(rules.mappedFileSizeConsumeQueue)
                maxHashSlotNum=\(rules.maxHashSlotNum)
                maxIndexNum=\(rules.maxIndexNum)
                fileReservedTime=1000000
                diskMaxUsedSpaceRatio=99
                cleanFileForciblyEnable=false

                """)
            try write("conf/namesrv.conf", "listenPort=\(ports.others[0])\n")
            try write("conf/address", "127.0.0.1:\(ports.others[0])")
            let program = try Program(
                "/usr/bin/env",
                [
                    "python3", "-c",
                    "import fcntl, signal, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0); "
                        + "print('locked', flush=True); signal.sigwait([signal.SIGTERM]); sys.exit(0)",
                    store + "/lock",
                ])
            _ = try await program.line(within: .seconds(10)) { $0 == "locked" }
            try write("bin/mqshutdown", "test \"$1\" = broker && kill \(program.pid)\n")
            return program
        }

        @Test("exit codes, help, completion and man page", .timeLimit(.minutes(1)))
        func commandLine() async throws {
            let folder = try TemporaryFolder()
            #expect(try await check(folder.file("none")).status == 66)
            #expect(try await check(folder.path).errorText.contains("is no store of RocketMQ or Apus"))
            #expect(try await check("").status == 64)
            #expect(try await check(folder.path, ["--to", "kafka"]).status == 64)
            #expect(try await check(folder.path, ["--commit-log", "/data0/log,/data1/log"]).status == 64)
            let help = try await Program.run(Binaries.apus, ["migrate", "check", "--help"])
            // Wrapped for the terminal.
            let text = help.lines.joined(separator: " ").split(separator: " ").joined(separator: " ")
            for words in ["apus, rocketmq4 or rocketmq5", "Ends with 0 when all of it can move"] {
                #expect(text.contains(words), "\(text)")
            }
            for shell in ["bash", "zsh", "fish"] {
                let script = try await Program.run(Binaries.apus, ["--generate-completion-script", shell])
                #expect(script.lines.contains { $0.contains("migrate") }, "\(shell)")
                #expect(script.lines.contains { $0.contains("rocketmq4") }, "\(shell)")
            }
            let made = try await Program.run(
                "/bin/sh",
                [
                    "-c",
                    "'\(Binaries.apus)' --experimental-dump-help | '\(Binaries.packageRoot)/units/debian/manual' \(folder.path) apus 1 0",
                ])
            #expect(made.status == 0, "\(made.errorText)")
            let page = try String(contentsOfFile: folder.file("apus-migrate.1"), encoding: .utf8)
            #expect(page.contains("There is no such store.") && page.contains(".SS \"apus migrate check\""))
        }
    }
}
