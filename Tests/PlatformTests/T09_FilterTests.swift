import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import StoreFormat
import TestTools
import Testing

extension PlatformTests {
    /// Subscriptions that need the filter worker for every batch.
    @Suite("T09 filters", .serialized)
    struct T09_Filters {
        static let topic = "Filtered"
        static let queues = 4

        /// Message n has the properties `n` and `color` (red, green, blue in turn) and the body `message-n`.
        static func fill(_ platform: Platform, _ numbers: Range<Int>, broker: String? = nil) async throws {
            let client = try await RemotingClient.connect(
                to: broker ?? platform.broker, group: MultiThreadedEventLoopGroup.singleton)
            for number in numbers {
                let color = ["red", "green", "blue"][number % 3]
                let properties = "n\u{1}\(number)\u{2}color\u{1}\(color)\u{2}TAGS\u{1}\(color)\u{2}WAIT\u{1}true"
                let reply = try await client.invoke(
                    RemotingCommand(
                        .sendMessageV2,
                        extFields: [
                            "a": "T09", "b": topic, "c": "TBW102", "d": String(queues), "e": String(number % queues),
                            "f": "0", "g": "1", "h": "0", "i": properties, "j": "0", "k": "false", "m": "false",
                        ], body: Array("message-\(number)".utf8)))
                guard reply.code == 0 else {
                    throw ScenarioFailure("send \(number): \(reply.code) \(reply.remark ?? "")")
                }
            }
            await client.close()
        }

        /// Reads every queue once with an expression, as an official client pulls: asks again after "busy", goes on at
        /// `nextBeginOffset` after "nothing matched". Returns the bodies and how often it was told to come back.
        static func consume(
            _ platform: Platform, type: String, _ expression: String, upTo ends: [Int64], broker: String? = nil,
            between: () async throws -> Void = {}
        ) async throws -> (bodies: [String], retries: Int) {
            var client: RemotingClient?
            var bodies: [String] = []
            var retries = 0
            let deadline = ContinuousClock.now + .seconds(60)
            for queue in 0..<queues {
                var offset: Int64 = 0
                while offset < ends[queue] {
                    guard ContinuousClock.now < deadline else {
                        throw ScenarioFailure("queue \(queue) is stuck at \(offset) after \(retries) retries")
                    }
                    try await between()
                    do {
                        if client?.isActive != true {
                            client = try await RemotingClient.connect(
                                to: broker ?? platform.broker, group: MultiThreadedEventLoopGroup.singleton)
                        }
                        guard let connection = client else { continue }
                        let reply = try await connection.invoke(
                            RemotingCommand(
                                .pullMessage,
                                extFields: [
                                    "consumerGroup": "T09", "topic": topic, "queueId": String(queue),
                                    "queueOffset": String(offset), "maxMsgNums": "8", "sysFlag": "4",
                                    "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": expression,
                                    "subVersion": "0", "expressionType": type,
                                ]), timeout: .seconds(5))
                        switch reply.responseCode {
                        case .success?, .pullRetryImmediately?, .pullOffsetMoved?:
                            let next = try #require(reply.extFields["nextBeginOffset"].flatMap { Int64($0) })
                            #expect(next >= offset, "the offset went back from \(offset) to \(next)")
                            offset = next
                            bodies += Self.bodies(reply.body)
                        case .systemBusy?, .pullNotFound?:
                            retries += 1
                            try await Task.sleep(for: .milliseconds(20))
                        default:
                            throw ScenarioFailure("pull: \(reply.code) \(reply.remark ?? "")")
                        }
                    } catch let failure as ScenarioFailure {
                        throw failure
                    } catch {
                        retries += 1
                        client?.closeNow()
                        client = nil
                    }
                }
            }
            await client?.close()
            return (bodies, retries)
        }

        static func bodies(_ bytes: [UInt8]) -> [String] {
            var found: [String] = []
            bytes.withUnsafeBytes { all in
                var rest = UnsafeRawBufferPointer(rebasing: all[...])
                while case .record(let view) = CommitLogRecord.parse(rest) {
                    found.append(String(decoding: view.body, as: UTF8.self))
                    rest = UnsafeRawBufferPointer(rebasing: rest[view.totalSize...])
                }
            }
            return found
        }

        static func names(_ numbers: some Sequence<Int>) -> [String] { numbers.map { "message-\($0)" }.sorted() }

        @Test("SQL92 through the wire: what matches and nothing else, none twice", .timeLimit(.minutes(2)))
        func sql92() async throws {
            let platform = try await Platform.start()
            try await Self.fill(platform, 0..<600)
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            #expect(ends.reduce(0, +) == 600)
            let cases: [(String, (Int) -> Bool)] = [
                ("n >= 100 AND color = 'red'", { $0 >= 100 && $0 % 3 == 0 }),
                (
                    "n BETWEEN 17 AND 29.5 OR color IN ('blue') AND n < 50",
                    { (17...29).contains($0) || $0 % 3 == 2 && $0 < 50 }
                ),
                ("TAGS = 'green'", { $0 % 3 == 1 }), ("missing IS NOT NULL", { _ in false }), ("n >= 0", { _ in true }),
            ]
            for (expression, wanted) in cases {
                let (bodies, _) = try await Self.consume(platform, type: "SQL92", expression, upTo: ends)
                #expect(bodies.sorted() == Self.names((0..<600).filter(wanted)), "\(expression)")
            }
            // A wrong expression is refused with its place, at the pull and at the client's own check.
            let reply = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .checkClientConfig,
                    body: Array(
                        """
                        {"clientId":"c","group":"T09","subscriptionData":{"classFilterMode":false,"codeSet":[],\
                        "expressionType":"SQL92","subString":"a >> 3 bogus (","subVersion":1,"tagsSet":[],\
                        "topic":"\(Self.topic)"}}
                        """.utf8)))
            #expect(reply.responseCode == .subscriptionParseFailed)
            #expect(reply.remark?.contains("3") == true && reply.remark?.contains("expected") == true, "\(reply)")
            try await platform.stop()
        }

        @Test(
            "kill -9 of the filter worker during filtered consumption: none skipped, none unfiltered, none doubled",
            .timeLimit(.minutes(2)))
        func kills() async throws {
            let platform = try await Platform.start()
            try await Self.fill(platform, 0..<600)
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            var pulls = 0
            var kills = 0
            let (bodies, retries) = try await Self.consume(
                platform, type: "SQL92", "color = 'red' AND n > 10", upTo: ends
            ) {
                pulls += 1
                if pulls % 12 == 5, kills < 5, let pid = platform.pid(of: "filter") {
                    kills += 1
                    kill(pid, SIGKILL)
                }
            }
            #expect(kills >= 3)
            #expect(retries > 0, "the kills were never noticed")
            #expect(bodies.sorted() == Self.names((11..<600).filter { $0 % 3 == 0 }))
            try await platform.stop()
        }

        /// A plugin whose expression says what harm it does.
        static let hostile = """
            #include "apus_filter_sdk.h"
            #include <fcntl.h>
            #include <signal.h>
            #include <stdio.h>
            #include <stdlib.h>
            #include <sys/ptrace.h>
            #include <sys/resource.h>
            #include <sys/socket.h>
            #include <sys/uio.h>
            #include <unistd.h>
            static char deed[64];
            static int is(const char *name) { return strcmp(deed, name) == 0; }
            static int32_t compile(const char *expression, size_t length, apus_filter_compiled *compiled) {
                memset(deed, 0, sizeof deed);
                memcpy(deed, expression, length < 63 ? length : 63);
                if (is("crash in compile")) abort();
                compiled->program = NULL;
                return APUS_FILTER_OK;
            }
            static int32_t match(void *program, const apus_filter_unit *units, uint32_t count, uint8_t *bitmap) {
                (void)program;
                int allowed = 0;
                if (is("crash")) { *(volatile char *)8 = 1; }
                if (is("spin")) { for (volatile int on = 1; on;) { } }
                if (is("sleep")) { for (;;) pause(); }
                if (is("deaf spin")) {
                    sigset_t all;
                    sigfillset(&all);
                    sigprocmask(SIG_BLOCK, &all, NULL);
                    for (int i = 1; i < 65; i++) signal(i, SIG_IGN);
                    for (volatile int on = 1; on;) { }
                }
                if (is("overrun")) { for (size_t i = 0;; i++) { bitmap[i] = 0xFF; } }
                if (is("scribble")) { *(volatile uint8_t *)units[0].properties = 0; }
                if (is("exit")) exit(0);
                if (is("leak")) { for (char *p; (p = malloc(1 << 20));) { memset(p, 1, 1 << 20); } }
                if (is("fork")) { int child = fork(); if (child == 0) { for (;;) pause(); } allowed = child > 0; }
                if (is("write")) allowed = open(FORBIDDEN, O_CREAT | O_WRONLY, 0600) >= 0;
                if (is("connect")) allowed = socket(AF_INET, SOCK_STREAM, 0) >= 0;
                if (is("local socket")) allowed = socket(AF_UNIX, SOCK_DGRAM, 0) >= 0;
                if (is("exec")) { char *words[] = {"/bin/true", NULL}; allowed = execv(words[0], words) == 0; }
                if (is("kill")) allowed = kill(getppid(), 0) == 0;
                if (is("trace")) allowed = ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0;
                if (is("peek")) {
                    char byte;
                    struct iovec here = {&byte, 1}, there = {(void *)(size_t)0x400000, 1};
                    allowed = process_vm_readv(getppid(), &here, 1, &there, 1, 0) >= 0;
                }
                if (is("read")) allowed = open(SECRET, O_RDONLY) >= 0;
                if (is("read passwords")) allowed = open("/etc/passwd", O_RDONLY) >= 0;
                if (is("remove")) allowed = unlink(SECRET) == 0 || rename(SECRET, FORBIDDEN) == 0;
                if (is("raise")) {
                    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
                    allowed = setrlimit(RLIMIT_DATA, &limit) == 0 || setpriority(PRIO_PROCESS, 0, -20) == 0;
                }
                if (is("proof")) allowed = 1;
                if (allowed) { for (uint32_t i = 0; i < count; i++) { apus_filter_set(bitmap, i); } }
                return APUS_FILTER_OK;
            }
            static void release(void *program) { (void)program; }
            static const apus_filter_plugin table = {
                .struct_size = sizeof table, .abi_version = APUS_FILTER_ABI_VERSION, .name = "hostile", .type = "HOSTILE",
                .capabilities = APUS_FILTER_NEEDS_PROPERTIES, .compile = compile, .match_batch = match, .release = release,
            };
            const apus_filter_plugin *apus_filter_plugin_entry(const apus_filter_host *host) { (void)host; return &table; }
            """

        static func buildHostile(in folder: TemporaryFolder) async throws -> String {
            let plugins = folder.file("plugins")
            try FileManager.default.createDirectory(atPath: plugins, withIntermediateDirectories: true)
            let source = folder.file("hostile.c")
            try hostile.write(toFile: source, atomically: false, encoding: .utf8)
            let built = try await Program.run(
                "/usr/bin/cc",
                [
                    "-O1", "-fPIC", "-shared", "-D_GNU_SOURCE", "-DFORBIDDEN=\"\(folder.file("forbidden"))\"",
                    "-DSECRET=\"\(folder.file("secret"))\"", "-I",
                    "\(Binaries.packageRoot)/plugins/CFilterPlugin/include", source,
                    "-o",
                    "\(plugins)/libHostile.so",
                ])
            guard built.status == 0 else { throw ScenarioFailure("cc: \(built.errorText)") }
            return plugins
        }

        /// One pull of queue 0 with a hostile expression; the answer's code and whether messages came.
        static func provoke(_ platform: Platform, _ deed: String) async throws -> (code: Int32, bytes: Int) {
            let reply = try await platform.ask(platform.broker, pull("HOSTILE", deed))
            return (reply.code, reply.body.count)
        }

        /// A pull of queue 0 from its beginning, with a subscription of its own.
        static func pull(_ type: String, _ expression: String) -> RemotingCommand {
            RemotingCommand(
                .pullMessage,
                extFields: [
                    "consumerGroup": "T09", "topic": topic, "queueId": "0", "queueOffset": "0", "maxMsgNums": "8",
                    "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": expression,
                    "subVersion": "0", "expressionType": type,
                ])
        }

        static let forbiddenDeeds = [
            "write", "connect", "local socket", "fork", "exec", "kill", "trace", "peek", "remove", "raise", "read",
            "read passwords",
        ]

        /// The process of filter worker `index`: 0 has the built-in plugins, 1 plugins with a record, from 2 on are the
        /// others'.
        static func filter(_ platform: Platform, _ index: Int) async throws -> pid_t? {
            try await platform.status().workers.first {
                $0.kind == "filter" && $0.index == index && $0.state == "ready"
            }
            .map { pid_t($0.pid) }
        }

        /// Until the type is served: what a client is told before that is not what is tested.
        static func served(_ platform: Platform, _ type: String) async throws {
            try await eventually("\(type) is served") {
                let status = try await Program.run(Binaries.apus, ["status", "--data-dir", platform.data])
                return status.lines.contains { $0.contains("filter-") && $0.contains("\(type) by ") }
            }
        }

        @Test("what a plugin may not do is refused to it", .timeLimit(.minutes(2)))
        func forbidden() async throws {
            let folder = try TemporaryFolder()
            let plugins = try await Self.buildHostile(in: folder)
            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(plugins)"])
            try await Self.fill(platform, 0..<8)
            try "secret".write(toFile: folder.file("secret"), atomically: false, encoding: .utf8)
            try await Self.served(platform, "HOSTILE")
            let worker = try await Self.filter(platform, 2)
            // A deed that is allowed shows in the answer.
            try await eventually("the proof") { try await Self.provoke(platform, "proof").bytes > 0 }
            let readingIsLimited = platform.log.contains("nothing else (Landlock, version")
            #expect(readingIsLimited || platform.log.contains("this kernel has no Landlock"))
            for deed in Self.forbiddenDeeds where readingIsLimited || !deed.hasPrefix("read") {
                let answer = try await Self.provoke(platform, deed)
                // Asked once and found nothing: the deed failed, and the plugin lives.
                #expect(
                    answer.code == ResponseCode.pullRetryImmediately.rawValue && answer.bytes == 0, "\(deed): \(answer)"
                )
            }
            #expect(!FileManager.default.fileExists(atPath: folder.file("forbidden")))
            #expect(FileManager.default.fileExists(atPath: folder.file("secret")))
            #expect(try await Self.filter(platform, 2) == worker, "no deed cost the worker")
            try await platform.stop()
        }

        @Test(
            "a plugin that does harm costs its own subscriptions only, and is put out of use with the reason",
            .timeLimit(.minutes(3)),
            arguments: [
                "crash", "crash in compile", "spin", "deaf spin", "sleep", "overrun", "scribble", "exit", "leak",
            ])
        func harm(deed: String) async throws {
            let folder = try TemporaryFolder()
            let plugins = try await Self.buildHostile(in: folder)
            let platform = try await Platform.start([
                "--set", "filter.pluginDirectory=\(plugins)", "--set", "filter.filterTimeBudgetMillis=200", "--set",
                "filter.filterMemoryMegabytes=128",
            ])
            try await Self.fill(platform, 0..<200)
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            let store = platform.pid(of: "broker-store")
            try await Self.served(platform, "HOSTILE")
            let builtIns = try await Self.filter(platform, 0)
            let answers = Task {
                // Someone keeps asking, as a client does.
                var got = 0
                while !Task.isCancelled {
                    got += (try? await Self.provoke(platform, deed).bytes) ?? 0
                    try? await Task.sleep(for: .milliseconds(30))
                }
                return got
            }
            var told = ""
            do {
                try await eventually("status tells that the plugin is out of use", within: .seconds(40)) {
                    let status = try await Program.run(Binaries.apus, ["status", "--data-dir", platform.data])
                    told = status.lines.joined(separator: "\n")
                    return told.contains("plugin hostile is not used for")
                }
            } catch {
                throw ScenarioFailure("\(error); status: \(told); log: \(platform.log.suffix(3000))")
            }
            // The others never noticed more than a retry.
            let (bodies, _) = try await Self.consume(platform, type: "SQL92", "color = 'red'", upTo: ends)
            #expect(bodies.sorted() == Self.names((0..<200).filter { $0 % 3 == 0 }))
            answers.cancel()
            #expect(await answers.value == 0, "messages were delivered unfiltered")
            #expect(platform.log.contains("filter plugin hostile"), "the journal names the guilty one")
            #expect(platform.pid(of: "broker-store") == store, "the store was not touched")
            #expect(try await Self.filter(platform, 0) == builtIns, "tags and SQL92 have a worker of their own")
            #expect(!platform.log.contains("crash loop"), "what is explained is not throttled")
            try await platform.stop()
        }

        @Test("the recorded exchange of an official SQL92 consumer gets the same answers", .timeLimit(.minutes(1)))
        func recorded() async throws {
            let platform = try await Platform.start()
            let text = try String(
                contentsOfFile: "\(Binaries.packageRoot)/Tests/Fixtures/filter-wire/client-sql.txt", encoding: .utf8)
            func command(_ hex: Substring) throws -> RemotingCommand {
                let digits = Array(hex.utf8).map { $0 < 0x3A ? $0 - 0x30 : ($0 | 0x20) - 0x61 + 10 }
                let bytes = stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
                return try bytes.withUnsafeBytes { try RemotingCommand(decoding: $0) }
            }
            let client = try await RemotingClient.connect(
                to: platform.broker, group: MultiThreadedEventLoopGroup.singleton)
            var delivered: [String] = []
            var pulls = 0
            for line in text.split(separator: "\n") {
                let halves = line.split(separator: " ", omittingEmptySubsequences: false)
                // A pull without an answer was held until the recording ended.
                guard halves.count == 2, !halves[1].isEmpty else { continue }
                var request = try command(halves[0])
                if request.requestCode == .pullMessage, let flags = request.extFields["sysFlag"].flatMap({ Int($0) }) {
                    // A pull that may be held waits behind what did not match; Apache sends the client round once more.
                    request.extFields["sysFlag"] = String(flags & ~2)
                }
                let expected = try command(halves[1])
                let answer = try await client.invoke(request, timeout: .seconds(10))
                #expect(answer.code == expected.code, "\(request): \(answer.remark ?? "")")
                guard request.requestCode == .pullMessage else { continue }
                pulls += 1
                for field in ["nextBeginOffset", "maxOffset", "minOffset"] {
                    #expect(answer.extFields[field] == expected.extFields[field], "\(field) of \(request.extFields)")
                }
                #expect(Self.bodies(answer.body) == Self.bodies(expected.body))
                delivered += Self.bodies(answer.body)
            }
            #expect(pulls >= 4)
            #expect(!delivered.isEmpty)
            await client.close()
            try await platform.stop()
        }

        /// Restarts of each filter worker.
        static func restarts(_ platform: Platform) async throws -> [Int] {
            try await platform.status().workers.filter { $0.kind == "filter" }.map(\.restarts)
        }

        @Test(
            "three filter workers share the expressions, and a deadly one never leaves its worker",
            .timeLimit(.minutes(2)))
        func sharing() async throws {
            let folder = try TemporaryFolder()
            let plugins = try await Self.buildHostile(in: folder)
            let platform = try await Platform.start([
                "--set", "filter.pluginDirectory=\(plugins)", "--set", "filter.count=3",
            ])
            try await Self.fill(platform, 0..<120)
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            for number in 0..<12 {
                let (bodies, _) = try await Self.consume(platform, type: "SQL92", "n >= \(number * 10)", upTo: ends)
                #expect(bodies.sorted() == Self.names(number * 10..<120))
            }
            try await eventually("all three had work") {
                let status = try await Program.run(Binaries.apus, ["status", "--data-dir", platform.data])
                return status.lines.filter { $0.hasPrefix("filter-") && $0.contains("built-in: ") }
                    .allSatisfy { !$0.contains(" 0 batches") }
            }
            try await Self.served(platform, "HOSTILE")
            #expect(try await Self.restarts(platform) == [0, 0, 0, 0, 0])
            try await eventually("the deadly expression is out of use", within: .seconds(20)) {
                _ = try? await Self.provoke(platform, "crash")
                let status = try await Program.run(Binaries.apus, ["status", "--data-dir", platform.data])
                return status.lines.contains { $0.contains("plugin hostile is not used for") }
            }
            // Once in the worker for plugins, then in the one for those with a record; never in those for tags and
            // SQL92.
            let restarts = try await Self.restarts(platform)
            #expect(restarts.prefix(3) == [0, 0, 0] && restarts[3] >= 2 && restarts[4] == 1, "\(restarts)")
            try await platform.stop()
        }

        /// The example in C as `version`, whose every batch takes a few milliseconds: whenever it is replaced, batches
        /// are under way.
        static func buildSlowRange(version: String, in folder: TemporaryFolder) async throws -> String {
            let place = folder.file(version)
            try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
            let example = try String(
                contentsOfFile: "\(Binaries.packageRoot)/plugins/Examples/PriceRange/price_range.c", encoding: .utf8)
            let source = example.replacingOccurrences(of: "\"1.0\"", with: "\"\(version)\"").replacingOccurrences(
                of: "const struct range *range = program;",
                with: "const struct range *range = program; usleep(5000);")
            #expect(source.contains("\"\(version)\"") && source.contains("usleep"))
            try source.write(toFile: "\(place)/range.c", atomically: false, encoding: .utf8)
            let built = try await Program.run(
                "/usr/bin/cc",
                [
                    "-O1", "-fPIC", "-shared", "-D_GNU_SOURCE", "-include", "unistd.h", "-I",
                    "\(Binaries.packageRoot)/plugins/CFilterPlugin/include", "\(place)/range.c", "-o",
                    "\(place)/libPriceRange.so",
                ])
            guard built.status == 0 else { throw ScenarioFailure("cc: \(built.errorText)") }
            return "\(place)/libPriceRange.so"
        }

        @Test(
            "a plugin replaced again and again under load: batches under way are asked again, none skipped, none unfiltered",
            .timeLimit(.minutes(2)))
        func replacedUnderLoad() async throws {
            let folder = try TemporaryFolder()
            let plugins = folder.file("plugins")
            try FileManager.default.createDirectory(atPath: plugins, withIntermediateDirectories: true)
            func add(_ version: String) async throws {
                let file = try await Self.buildSlowRange(version: version, in: folder)
                let added = try await Program.run(Binaries.apus, ["plugin", "add", file, "--directory", plugins])
                #expect(added.status == 0, "\(added.errorText)")
            }
            try await add("1.0")
            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(plugins)"])
            try await Self.fill(platform, 0..<400)
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            let others = ["nameserver", "broker-store", "replication"].map { platform.pid(of: $0) }
            try await Self.served(platform, "RANGE")
            // Each round has an expression of its own, so that each has to ask about everything.
            let consumers = (0..<3).map { consumer in
                Task {
                    var rounds = 0
                    var retries = 0
                    while !Task.isCancelled {
                        let low = rounds % 40 + consumer
                        let (bodies, again) = try await Self.consume(
                            platform, type: "RANGE", "n \(low) \(300 + rounds % 90)", upTo: ends)
                        #expect(bodies.sorted() == Self.names(low...300 + rounds % 90))
                        rounds += 1
                        retries += again
                    }
                    return (rounds: rounds, retries: retries)
                }
            }
            for version in 2...5 {
                // Time passes under load before the next version comes.
                try await Task.sleep(for: .milliseconds(400))
                let old = try await Self.filter(platform, 2)
                try await add("\(version).0")
                try await eventually("a fresh filter worker", within: .seconds(10)) {
                    let now = try await Self.filter(platform, 2)
                    return now != nil && now != old
                }
            }
            // Time passes under load with the last version.
            try await Task.sleep(for: .milliseconds(400))
            var rounds = 0
            for consumer in consumers {
                consumer.cancel()
                let done = try await consumer.value
                print("T09 replaced under load: \(done.rounds) rounds, \(done.retries) pulls sent again")
                rounds += done.rounds
            }
            #expect(rounds >= 6)
            let listed = try await Program.run(Binaries.apus, ["plugin", "list", "--directory", plugins])
            #expect(listed.lines == ["libPriceRange.so\tprice-range 5.0, expressions of the type RANGE"])
            #expect(["nameserver", "broker-store", "replication"].map { platform.pid(of: $0) } == others)
            // To be replaced is no crime, and no restart.
            #expect(!platform.log.contains("not used for"))
            #expect(try await Self.restarts(platform) == [0, 0, 0])
            let errors = platform.log.split(separator: "\n").filter {
                $0.contains(" error ") || $0.contains(" critical ")
            }
            #expect(errors.isEmpty, "\(errors)")
            try await platform.stop()
        }

        /// Makes the kernel look as one without Landlock to everything it starts.
        static func withoutLandlock(in folder: TemporaryFolder) async throws -> String {
            let source = """
                #include <errno.h>
                #include <linux/filter.h>
                #include <linux/seccomp.h>
                #include <stddef.h>
                #include <sys/prctl.h>
                #include <unistd.h>
                int main(int count, char **words) {
                    struct sock_filter code[] = {
                        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 444, 0, 1),
                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
                    };
                    struct sock_fprog program = {sizeof code / sizeof *code, code};
                    if (count < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 2;
                    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 3;
                    execv(words[1], words + 1);
                    return 4;
                }
                """
            try source.write(toFile: folder.file("launcher.c"), atomically: false, encoding: .utf8)
            let built = try await Program.run(
                "/usr/bin/cc", [folder.file("launcher.c"), "-o", folder.file("launcher")])
            guard built.status == 0 else { throw ScenarioFailure("cc: \(built.errorText)") }
            return folder.file("launcher")
        }

        @Test(
            "a kernel without Landlock: said at the start; filters work, all else stays forbidden",
            .timeLimit(.minutes(1)))
        func noLandlock() async throws {
            let folder = try TemporaryFolder()
            let plugins = try await Self.buildHostile(in: folder)
            let launcher = try await Self.withoutLandlock(in: folder)
            let platform = try await Platform.start(
                launcher: [launcher], ["--set", "filter.pluginDirectory=\(plugins)"])
            try await Self.fill(platform, 0..<40)
            #expect(
                platform.log.contains(
                    "this kernel has no Landlock (Linux 5.13, lsm=landlock): plugins can read every file that this user can"
                ))
            #expect(!platform.log.contains("nothing else (Landlock"))
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            let (bodies, _) = try await Self.consume(platform, type: "SQL92", "n < 20", upTo: ends)
            #expect(bodies.sorted() == Self.names(0..<20))
            try await Self.served(platform, "HOSTILE")
            let worker = try await Self.filter(platform, 2)
            try await eventually("it is as the journal says") {
                try await Self.provoke(platform, "read passwords").bytes > 0
            }
            for deed in Self.forbiddenDeeds where !deed.hasPrefix("read") {
                let answer = try await Self.provoke(platform, deed)
                #expect(
                    answer.code == ResponseCode.pullRetryImmediately.rawValue && answer.bytes == 0, "\(deed): \(answer)"
                )
            }
            #expect(try await Self.filter(platform, 2) == worker, "no deed cost the worker")
            try await platform.stop()
        }

        @Test("a plugin dropped in, replaced and removed while everything runs", .timeLimit(.minutes(2)))
        func dropIn() async throws {
            let folder = try TemporaryFolder()
            let plugins = folder.file("plugins")
            try FileManager.default.createDirectory(atPath: plugins, withIntermediateDirectories: true)
            let file = folder.file("libPriceRange.so")
            let built = try await Program.run(
                "/usr/bin/cc",
                [
                    "-O1", "-fPIC", "-shared", "-I", "\(Binaries.packageRoot)/plugins/CFilterPlugin/include",
                    "\(Binaries.packageRoot)/plugins/Examples/PriceRange/price_range.c", "-o", file,
                ])
            #expect(built.status == 0, "\(built.errorText)")
            func plugin(_ arguments: [String]) async throws -> (status: Int32, lines: [String], errorText: String) {
                try await Program.run(Binaries.apus, ["plugin"] + arguments)
            }
            // Tried before it is used.
            let yes = try await plugin(["test", file, "n 5 6", "--property", "n=5.5"])
            #expect(yes.status == 0 && yes.lines.last == "matches", "\(yes)")
            let no = try await plugin(["test", file, "n 5 6", "--property", "n=7"])
            #expect(no.status == 1 && no.lines.last == "does not match", "\(no)")
            let wrong = try await plugin(["test", file, "n 5"])
            #expect(wrong.status == 2 && wrong.errorText.contains("at byte 3"), "\(wrong)")

            let platform = try await Platform.start(["--set", "filter.pluginDirectory=\(plugins)"])
            try await Self.fill(platform, 0..<80)
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            let others = ["nameserver", "broker-store", "replication"].map { platform.pid(of: $0) }
            let filter = try #require(platform.pid(of: "filter"))

            let added = try await plugin(["add", file, "--directory", plugins])
            #expect(added.status == 0, "\(added.errorText)")
            try await Self.served(platform, "RANGE")
            let (bodies, _) = try await Self.consume(platform, type: "RANGE", "n 10 19", upTo: ends)
            #expect(bodies.sorted() == Self.names(10...19))
            #expect(try await Self.filter(platform, 0) == filter, "a new plugin touches no worker that is there")
            let second = try #require(try await Self.filter(platform, 2))
            let listed = try await plugin(["list", "--directory", plugins])
            #expect(listed.lines == ["libPriceRange.so\tprice-range 1.0, expressions of the type RANGE"])

            // Replaced while a consumer reads: a fresh worker takes over, and the subscription goes on.
            let next = folder.file("next")
            try FileManager.default.createDirectory(atPath: next, withIntermediateDirectories: true)
            try await T18_Plugins.range("2.0", "\(next)/libPriceRange.so")
            var pulls = 0
            let (more, _) = try await Self.consume(platform, type: "RANGE", "n 10 69", upTo: ends) {
                pulls += 1
                guard pulls == 3 else { return }
                let again = try await plugin(["add", "\(next)/libPriceRange.so", "--directory", plugins])
                #expect(again.status == 0, "\(again.errorText)")
            }
            #expect(pulls > 4)
            #expect(more.sorted() == Self.names(10...69))
            try await eventually("a fresh worker") {
                let now = try await Self.filter(platform, 2)
                return now != nil && now != second
            }
            #expect(platform.log.contains("was replaced: a fresh filter worker takes over"))

            let text = folder.file("libText.so")
            try "no library".write(toFile: text, atomically: false, encoding: .utf8)
            let refused = try await plugin(["add", text, "--directory", plugins])
            #expect(refused.status == 2 && refused.errorText.contains("is not a library"), "\(refused)")

            let removed = try await plugin(["remove", "libPriceRange.so", "--directory", plugins])
            #expect(removed.status == 0, "\(removed.errorText)")
            try await eventually("the type is gone") {
                let reply = try await platform.ask(
                    platform.broker,
                    RemotingCommand(
                        .pullMessage,
                        extFields: [
                            "consumerGroup": "T09", "topic": Self.topic, "queueId": "0", "queueOffset": "0",
                            "maxMsgNums": "8", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                            "subscription": "n 1 2", "subVersion": "0", "expressionType": "RANGE",
                        ]))
                return reply.remark?.contains("no filter plugin serves expressions of the type RANGE") == true
            }
            #expect(["nameserver", "broker-store", "replication"].map { platform.pid(of: $0) } == others)
            try await platform.stop()
        }
    }
}
