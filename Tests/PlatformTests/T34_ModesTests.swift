import FastJSON
import Foundation
import RemotingProtocol
import RocketMQClient
import TestTools
import Testing

extension PlatformTests {
    /// Modes of topics with consumers that are processes, over kills of them and of the broker.
    @Suite("T34 modes of topics", .serialized)
    struct T34_Modes {
        static let topic = "Moded"
        static let group = "Movers"

        /// A line of a consumer: `got BODY ATTEMPT QUEUE OFFSET`, `done BODY` or `failed BODY`.
        struct Line {
            let consumer: String
            let verb: String
            let body: String
            let attempt: Int
        }

        final class Stage {
            let platform: Platform
            var consumers: [(name: String, program: Program)] = []

            init(_ attributes: String, queues: Int, settings: [String] = []) async throws {
                platform = try await Platform.start(settings.flatMap { ["--set", $0] })
                let outcome = try await admin([
                    "updateTopic", "-b", platform.broker, "-t", T34_Modes.topic, "-r", String(queues), "-w",
                    String(queues), "-a", attributes,
                ])
                #expect(outcome.status == 0, "\(outcome.errorText)")
            }

            func admin(_ arguments: [String]) async throws -> (
                status: Int32, lines: [String], errorText: String
            ) {
                try await Program.run(
                    Binaries.apus, ["admin"] + arguments + ["-n", platform.nameServer], within: .seconds(20))
            }

            func consumer(_ name: String, _ options: String...) throws {
                let script = Binaries.packageRoot + "/Tests/Clients/popper.py"
                let program = try Program(
                    "/usr/bin/python3",
                    [script, platform.broker, T34_Modes.topic, T34_Modes.group, name] + options)
                consumers.append((name, program))
            }

            func kill(_ name: String) {
                for consumer in consumers where consumer.name == name { consumer.program.send(signal: SIGKILL) }
            }

            func lines(of name: String) -> [Line] {
                consumers.filter { $0.name == name }.flatMap { consumer in
                    consumer.program.lines.compactMap { line in
                        let words = line.split(separator: " ").map(String.init)
                        guard words.count >= 2 else { return nil }
                        return Line(
                            consumer: name, verb: words[0], body: words[1],
                            attempt: words.count > 2 ? Int(words[2]) ?? -1 : 0)
                    }
                }
            }

            func bodies(_ verb: String, of name: String? = nil) -> [String] {
                Set(consumers.map(\.name)).sorted().filter { name == nil || $0 == name }.flatMap { lines(of: $0) }
                    .filter { $0.verb == verb }.map(\.body)
            }

            func send(_ bodies: [String]) async throws {
                for (index, body) in bodies.enumerated() {
                    let sent = try await platform.ask(
                        platform.broker,
                        RemotingCommand(
                            .sendMessageV2,
                            extFields: [
                                "a": "P", "b": T34_Modes.topic, "c": "TBW102", "d": "1", "e": "-1", "f": "0", "g": "1",
                                "h": "0", "i": "UNIQ_KEY\u{1}id-\(body)", "j": "0", "k": "false", "m": "false",
                            ], body: Array(body.utf8)))
                    #expect(sent.code == 0, "message \(index): \(sent.remark ?? "")")
                }
            }

            func killBroker() async throws {
                let old = try #require(platform.pid(of: "broker-store"))
                Glibc.kill(old, SIGKILL)
                _ = try await platform.newPid(of: "broker-store", after: old)
            }

            /// Events of a message, as `apus message show` has them.
            func trail(of body: String) async throws -> [String] {
                (try await status(of: body)["groups"]?.array?.first?["trail"]?.array ?? [])
                    .compactMap { $0["event"]?.string }
            }

            /// What `apus message show` has of a message.
            func status(of body: String) async throws -> JSONValue {
                let outcome = try await Program.run(
                    Binaries.apus,
                    [
                        "message", "show", "-n", platform.nameServer, "id-\(body)", "--topic", T34_Modes.topic,
                        "--group", T34_Modes.group, "--json",
                    ], within: .seconds(20))
                return try JSONValue(parsing: Array(outcome.lines.joined().utf8))
            }

            func end() async throws {
                for consumer in consumers { consumer.program.send(signal: SIGKILL) }
                try await platform.stop()
            }
        }

        @Test(
            "QUEUE: each message to one of two consumers, none lost or in two hands over kills",
            .timeLimit(.minutes(2)))
        func queue() async throws {
            let stage = try await Stage("+apus.mode=QUEUE,+apus.timeout=4", queues: 4)
            try stage.consumer("a", "--think", "5")
            try stage.consumer("b", "--think", "5")
            let first = (0..<100).map { "first-\($0)" }
            try await stage.send(first)
            try await eventually("all are consumed", within: .seconds(30)) { Set(stage.bodies("done")).count == 100 }
            #expect(stage.bodies("got").count == 100, "each message once")
            #expect(stage.bodies("got", of: "a").count > 10 && stage.bodies("got", of: "b").count > 10)

            // One dies with a message, then the broker.
            try stage.consumer("dying", "--hold", "3")
            var second: [String] = []
            try await eventually("the third message is held", within: .seconds(30)) {
                let more = (second.count..<second.count + 10).map { "second-\($0)" }
                second += more
                try await stage.send(more)
                return stage.bodies("got", of: "dying").count == 3
            }
            stage.kill("dying")
            try await stage.killBroker()
            let last = (0..<30).map { "last-\($0)" }
            second += last
            try await stage.send(last)
            try await eventually("all are consumed, what was in dead hands too", within: .seconds(30)) {
                Set(stage.bodies("done")).isSuperset(of: second)
            }
            // Each that came twice says why in its trail.
            let counts = Dictionary(grouping: stage.bodies("got"), by: { $0 }).mapValues(\.count)
            #expect(counts.values.contains { $0 > 1 }, "what the dead one held came again")
            for (body, count) in counts where count > 1 {
                let trail = try await stage.trail(of: body)
                #expect(
                    trail.filter { $0 == "TIMED_OUT" || $0 == "DELIVERED_AGAIN" }.count >= count - 1,
                    "\(body) was delivered \(count) times: \(trail)")
            }
            let refused = try await stage.platform.ask(
                stage.platform.broker,
                RemotingCommand(
                    .pullMessage,
                    extFields: [
                        "consumerGroup": "Pullers", "topic": Self.topic, "queueId": "0", "queueOffset": "0",
                        "maxMsgNums": "1", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                        "subscription": "*", "subVersion": "0",
                    ]))
            #expect(refused.code == ResponseCode.noPermission.rawValue)
            try await stage.end()
        }

        @Test(
            "SERIAL_QUEUE: one of two consumers gets all in order, the other takes over when it or the broker is killed",
            .timeLimit(.minutes(2)))
        func serial() async throws {
            let stage = try await Stage("+apus.mode=SERIAL_QUEUE,+apus.timeout=5", queues: 1)
            try stage.consumer("a")
            try stage.consumer("b")
            let first = (0..<50).map { "first-\($0)" }
            try await stage.send(first)
            try await eventually("all are consumed", within: .seconds(30)) { stage.bodies("done").count == 50 }
            let holder = stage.bodies("done", of: "a").isEmpty ? "b" : "a"
            #expect(stage.bodies("done", of: holder) == first, "in order, all at one")
            let shown = try await stage.admin(["topicMode", "-t", Self.topic])
            #expect(shown.lines.contains("  apus.mode: SERIAL_QUEUE"), "\(shown)")
            // An attribute is changed without a word of the queues: there is one still.
            let changed = try await stage.admin([
                "updateTopic", "-b", stage.platform.broker, "-t", Self.topic, "-a", "+apus.owner=Ann",
            ])
            #expect(changed.status == 0 && changed.lines.contains { $0.contains("readQueueNums=1") }, "\(changed)")
            #expect(shown.lines.contains { $0.hasPrefix("  group Movers: queue 0 \(holder) since") }, "\(shown.lines)")

            try await stage.killBroker()
            let second = (0..<20).map { "second-\($0)" }
            try await stage.send(second)
            try await eventually("all are consumed over the kill", within: .seconds(30)) {
                Set(stage.bodies("done")).isSuperset(of: second)
            }
            stage.kill(holder)
            let third = (0..<20).map { "third-\($0)" }
            try await stage.send(third)
            let other = holder == "a" ? "b" : "a"
            try await eventually("the other one takes over", within: .seconds(30)) {
                Set(stage.bodies("done")).isSuperset(of: third)
            }
            #expect(stage.bodies("done", of: other).filter { $0.hasPrefix("third") } == third, "in order")
            try await stage.end()
        }

        @Test(
            "SERIAL_QUEUE: what is in dead hands comes to the next after its time, in order, and the trail says so",
            .timeLimit(.minutes(1)))
        func dead() async throws {
            let stage = try await Stage("+apus.mode=SERIAL_QUEUE,+apus.timeout=2,+apus.retry.interval=1", queues: 1)
            try stage.consumer("dying", "--hold", "3")
            let bodies = (0..<8).map { "m-\($0)" }
            try await stage.send(bodies)
            try await eventually("the third message is held", within: .seconds(20)) {
                stage.bodies("got", of: "dying") == ["m-0", "m-1", "m-2"]
            }
            try stage.consumer("next", "--fail", "m-4")
            stage.kill("dying")
            try await eventually("the next one goes on", within: .seconds(30)) {
                stage.bodies("got", of: "next").filter { $0 == "m-4" }.count >= 2
            }
            let got = stage.bodies("got", of: "next")
            #expect(Array(got.prefix(4)) == ["m-2", "m-3", "m-4", "m-4"], "\(got)")
            #expect(try await stage.trail(of: "m-2") == ["DELIVERED", "TIMED_OUT", "DELIVERED", "ACKNOWLEDGED"])
            #expect(try await stage.status(of: "m-4")["topicMode"]?.string == "SERIAL_QUEUE")
            #expect(try await stage.trail(of: "m-4").prefix(3) == ["DELIVERED", "FAILED", "DELIVERED"])
            try await stage.end()
        }

        @Test("apus.archive=consumed: the log stays until the group has its messages", .timeLimit(.minutes(1)))
        func archive() async throws {
            let stage = try await Stage(
                "+apus.mode=QUEUE,+apus.archive=consumed", queues: 2,
                settings: ["mappedFileSizeCommitLog=1048576", "fileReservedTime=0"])
            let bodies = (0..<10).map { "m-\($0)" }
            try await stage.send(bodies)
            let filler = stage.platform.folder.file("filler")
            try String(repeating: String(repeating: "f", count: 60_000) + "\n", count: 60)
                .write(toFile: filler, atomically: true, encoding: .utf8)
            #expect(try await stage.platform.apus(["send", "--topic", "Filler", filler]).status == 0)
            let first = stage.platform.data + "/store/commitlog/00000000000000000000"
            func delete() async throws -> Bool {
                let outcome = try await stage.admin(["deleteExpiredCommitLog", "-b", stage.platform.broker])
                #expect(outcome.status == 0, "\(outcome.errorText)")
                return !FileManager.default.fileExists(atPath: first)
            }
            // What is not flushed yet is not looked at.
            try await eventually("the log says what holds it", within: .seconds(20)) {
                let isGone = try await delete()
                #expect(!isGone)
                return stage.platform.log.contains("messages of topics with apus.archive at 0 and behind are still")
            }
            try stage.consumer("a")
            try await eventually("all are consumed", within: .seconds(20)) { stage.bodies("done").count == 10 }
            try await eventually("the log goes", within: .seconds(20)) { try await delete() }
            try await stage.end()
        }

        @Test("TOPIC: each of two groups of one has every message", .timeLimit(.minutes(1)))
        func topic() async throws {
            let stage = try await Stage("+apus.mode=TOPIC", queues: 2)
            let bodies = (0..<20).map { "m-\($0)" }
            try await stage.send(bodies)
            for group in ["one", "two"] {
                var seen: Set<String> = []
                for queue in 0..<2 {
                    let answer = try await stage.platform.ask(
                        stage.platform.broker,
                        RemotingCommand(
                            .pullMessage,
                            extFields: [
                                "consumerGroup": group, "topic": Self.topic, "queueId": String(queue),
                                "queueOffset": "0", "maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0",
                                "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
                            ]))
                    if answer.code == 0 {
                        for message in try ReceivedMessage.decode(answer.body, brokerName: "broker-a") {
                            seen.insert(String(decoding: message.body, as: UTF8.self))
                        }
                    }
                }
                #expect(seen == Set(bodies))
            }
            try await stage.end()
        }
    }
}
