import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// Consumers that pop, over the loss of their master.
    @Suite("T32 popping, with a slave", .serialized)
    struct T32_ClaimMirror {
        static let topic = "Handed"
        static let invisible = Duration.seconds(15)

        private static func pop(_ platform: Platform) async throws -> [PopLoad.Message] {
            let answer = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .popMessage,
                    extFields: [
                        "consumerGroup": PopLoad.group, "topic": topic, "queueId": "-1", "maxMsgNums": "32",
                        "invisibleTime": String(invisible.components.seconds * 1000), "pollTime": "200",
                        "bornTime": "0", "initMode": "0", "expType": "TAG", "exp": "*", "order": "false",
                    ]))
            return answer.code == 0 ? try PopLoad.messages(answer) : []
        }

        private static func acknowledge(_ message: PopLoad.Message, _ platform: Platform) async throws {
            let answer = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .ackMessage,
                    extFields: [
                        "consumerGroup": PopLoad.group, "topic": topic, "queueId": String(message.queueID),
                        "offset": String(message.offset), "extraInfo": message.handle,
                    ]))
            #expect(answer.code == 0)
        }

        private static func claims(_ platform: Platform) -> Data? {
            try? Data(contentsOf: URL(fileURLWithPath: "\(platform.data)/store/popState/journal-00000001"))
        }

        @Test(
            "kill -9 of the master, the slave becomes one: acknowledged never comes again, in hand once and in time",
            .timeLimit(.minutes(2)))
        func promotion() async throws {
            let master = try await T08_Replication.startMaster()
            let file = master.folder.file("lines")
            try (0..<100).map { "line \($0)" }.joined(separator: "\n").write(
                toFile: file, atomically: false, encoding: .utf8)
            let sent = try await master.apus(["send", "--topic", Self.topic, file])
            #expect(sent.status == 0, "\(sent.errorText)")
            let slave = try await T08_Replication.startSlave(of: master)
            try await T08_Replication.caughtUp(slave, with: master)
            try await eventually("the slave has the topic", within: .seconds(20)) {
                let here = try? await slave.queueSizes(topic: Self.topic, queues: 4)
                return here?.reduce(0, +) == 100
            }
            let began = ContinuousClock.now
            var popped: [PopLoad.Message] = []
            while popped.count < 100 {
                let more = try await Self.pop(master)
                guard !more.isEmpty else { break }
                popped += more
            }
            #expect(Set(popped.map(\.body)).count == 100)
            let acknowledged = popped.enumerated().filter { $0.offset % 3 != 0 }.map(\.element)
            for message in acknowledged { try await Self.acknowledge(message, master) }
            try await eventually("the slave has the master's claims", within: .seconds(10)) {
                let there = Self.claims(master)
                return there != nil && Self.claims(slave) == there
            }
            #expect(ContinuousClock.now < began + .seconds(6), "it took too long for what follows")
            let workers = Platform.children(of: master.supervisorPid)
            Glibc.kill(master.supervisorPid, SIGKILL)
            for worker in workers { Glibc.kill(worker, SIGKILL) }
            try await slave.stop()
            let promoted = try await Platform.start(
                in: slave.folder, ["--set", "mappedFileSizeCommitLog=\(T08_Replication.fileSize)"])
            var again: [(message: PopLoad.Message, at: ContinuousClock.Instant)] = []
            while ContinuousClock.now < began + Self.invisible + .seconds(6) {
                for message in try await Self.pop(promoted) {
                    again.append((message, .now))
                    try await Self.acknowledge(message, promoted)
                }
            }
            let inHand = Set(popped.map(\.body)).subtracting(acknowledged.map(\.body))
            #expect(again.count == inHand.count && Set(again.map(\.message.body)) == inHand)
            #expect(again.allSatisfy { $0.message.attempt == 1 && $0.at >= began + Self.invisible })
            #expect(!promoted.log.contains("the journal of claims is damaged"))
            let first = again.map { began.duration(to: $0.at) }.min() ?? .zero
            print(
                "T32: \(again.count) of 100 in hand came again, the first \(first) after its pop of \(Self.invisible)")
            try await promoted.stop()
        }

        /// All files of claims.
        private static func files(_ platform: Platform, in folder: String = "popState") -> [String: Data] {
            let folder = "\(platform.data)/store/\(folder)"
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            var files: [String: Data] = [:]
            // A slave keeps no trail, and marks what it has copied.
            for name in names where !name.hasPrefix("trail-") && name != "mirrored" {
                files[name] = try? Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(name)"))
            }
            return files
        }

        @Test(
            "kill -9 of each worker that has a part in it, under load: the slave has the master's claims again",
            .timeLimit(.minutes(3)))
        func kills() async throws {
            let master = try await T08_Replication.startMaster()
            let slave = try await T08_Replication.startSlave(of: master)
            let topic = "UnderFire"
            let producers = Oracle(broker: master.broker, topic: topic)
            try await eventually("the first messages are stored") { producers.acknowledged.count > 50 }
            let load = PopLoad(broker: master.broker, topic: topic, clients: 4)
            for (platform, kind) in [
                (master, "replication"), (slave, "replication"), (slave, "broker-store"), (master, "broker-store"),
                (slave, "broker-store"),
            ] {
                let before = load.finished.count
                try await eventually("clients pop", within: .seconds(10)) { load.finished.count > before + 100 }
                // The slave has a state, or is just about to.
                try await eventually("the slave has claims", within: .seconds(20)) { !Self.files(slave).isEmpty }
                let old = try #require(platform.pid(of: kind))
                Glibc.kill(old, SIGKILL)
                _ = try await platform.newPid(of: kind, after: old)
                // It may be just being replaced.
                #expect(
                    !Self.files(slave).isEmpty || !Self.files(slave, in: "popState.old").isEmpty
                        || !Self.files(slave).isEmpty, "after \(kind) was killed")
            }
            await producers.stop()
            let sent = producers.acknowledged
            try await eventually("every message is acknowledged", within: .seconds(30)) {
                load.unfinished(of: sent).isEmpty
            }
            await load.stop()
            try await eventually("the slave has the master's claims", within: .seconds(20)) {
                let there = Self.files(master)
                return !there.isEmpty && Self.files(slave) == there
            }
            #expect(!slave.log.contains("are not copied; if this slave"), "\(slave.log.suffix(2000))")
            for platform in [slave, master] { try await platform.stop() }
        }
    }
}
