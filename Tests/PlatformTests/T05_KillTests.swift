import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// `kill -9` of each kind of worker while clients work.
    @Suite("T05 killed workers", .serialized)
    struct T05_Kills {
        /// Between the kill and the first answer afterwards.
        static let limit = Duration.seconds(1)

        private static func routeIsThere(_ platform: Platform, topic: String) async -> Bool {
            let reply = try? await platform.ask(
                platform.nameServer, RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic]))
            return reply?.code == 0
        }

        @Test(
            "kill -9 under load: back in under a second, clients go on, nothing acknowledged is lost, the log tells",
            .timeLimit(.minutes(2)), arguments: ["broker-store", "nameserver", "replication", "filter"])
        func kill(kind: String) async throws {
            let platform = try await Platform.start()
            let topic = "UnderFire"
            let first = try await platform.apus(
                ["send", "--topic", topic, "--tag", "t"], input: .file("/etc/hostname"))
            #expect(first.status == 0, "\(first.errorText)")
            // A consumer with a tag: it needs broker-store and, to compile its subscription, the filter.
            let consumer = try Program(
                Binaries.apus,
                [
                    "consume", "--name-server", platform.nameServer, "--topic", topic, "--group", "survivors", "--tag",
                    "t",
                    "--timeout", "60",
                ])
            _ = try await consumer.line { _ in true }
            let oracle = Oracle(broker: platform.broker, topic: topic)
            try await eventually("traffic") { oracle.acknowledged.count > 500 }

            for round in 1...3 {
                let old = try #require(platform.pid(of: kind))
                oracle.forgetGap()
                let before = oracle.acknowledged.count
                let killedAt = ContinuousClock.now
                Glibc.kill(old, SIGKILL)
                _ = try await platform.newPid(of: kind, after: old)
                switch kind {
                case "nameserver":
                    // Its routes were in memory only: the brokers must have registered again.
                    try await eventually("the route is known again", within: .seconds(10)) {
                        await Self.routeIsThere(platform, topic: topic)
                    }
                default:
                    try await eventually("sends are acknowledged again", within: .seconds(10)) {
                        oracle.acknowledged.count > before + 50
                    }
                }
                let back = killedAt.duration(to: .now)
                #expect(back < Self.limit, "round \(round): \(kind) served again after \(back)")
                if kind == "broker-store" {
                    #expect(
                        oracle.longestGap < Self.limit, "round \(round): no acknowledgement for \(oracle.longestGap)")
                } else {
                    #expect(
                        oracle.longestGap < .milliseconds(500), "round \(round): sends paused for \(oracle.longestGap)")
                }
                print(
                    "T05 kill -9 \(kind), round \(round): back after \(back), longest pause of sends \(oracle.longestGap)"
                )
                // Tagged messages still get through to the consumer.
                let probe = "probe-\(round)"
                let file = platform.folder.file(probe)
                try probe.write(toFile: file, atomically: false, encoding: .utf8)
                let sent = try await platform.apus(["send", "--topic", topic, "--tag", "t", file])
                #expect(sent.status == 0, "round \(round): apus send after the kill: \(sent.errorText)")
                do {
                    _ = try await consumer.line(within: .seconds(10)) { $0 == probe }
                } catch {
                    Issue.record("round \(round): the consumer does not go on: \(error)")
                }
                // Time passes under load before the next is killed.
                try await Task.sleep(for: .milliseconds(300))
            }
            await oracle.stop()
            consumer.send(signal: SIGINT)
            try await consumer.finish()

            let acknowledged = oracle.acknowledged
            let stored = try await Oracle.stored(broker: platform.broker, topic: topic, queues: 4)
            let lost = acknowledged.subtracting(stored)
            #expect(lost.isEmpty, "\(lost.count) of \(acknowledged.count) acknowledged messages are lost")
            let log = platform.log
            #expect(
                log.contains(kind) && (log.contains("signal 9") || log.contains("SIGKILL")), "the log tells of the kill"
            )
            try await platform.stop()
        }

        @Test("the official client goes on through kill -9 of the broker", .timeLimit(.minutes(2)), needsOfficialClient)
        func officialClientGoesOn() async throws {
            let platform = try await Platform.start()
            let topic = "Official"
            let producer = try await OfficialClient.producer(platform, mode: "sync", ["--retry", "15"])
            producer.write(OfficialClient.text([.init(n: 0, topic: topic, body: "0", keys: "key-0")]))
            _ = try await producer.line { $0.contains("\"ok\": true") }
            let consumer = try await OfficialClient.push(platform, topic: topic, group: "official")
            for number in 1..<600 {
                producer.write(
                    OfficialClient.text([.init(n: number, topic: topic, body: "\(number)", keys: "key-\(number)")]))
                if number == 200 || number == 400 {
                    let old = try #require(platform.pid(of: "broker-store"))
                    Glibc.kill(old, SIGKILL)
                    _ = try await platform.newPid(of: "broker-store", after: old)
                }
                // Time passes: a producer with pauses, as users have.
                try await Task.sleep(for: .milliseconds(3))
            }
            producer.closeInput()
            try await producer.finish(within: .seconds(60))
            let answers = OfficialClient.answers(of: producer).filter { $0.ok }
            #expect(Set(answers.map(\.n)).count == 600, "acknowledged \(Set(answers.map(\.n)).count) of 600")
            let wanted = Set(answers.map { "key-\($0.n)" })
            do {
                try await eventually("the consumer has every acknowledged message", within: .seconds(60)) {
                    Set(consumer.deliveries.map(\.keys)).isSuperset(of: wanted)
                }
            } catch {
                let missing = wanted.subtracting(consumer.deliveries.map(\.keys))
                Issue.record("\(error); \(missing.count) missing, such as \(missing.prefix(3))")
            }
            try await consumer.stop()
            try await platform.stop()
        }
    }
}
