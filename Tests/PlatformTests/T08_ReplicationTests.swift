import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// A master and a slave platform on one machine.
    @Suite("T08 replication", .serialized)
    struct T08_Replication {
        static let fileSize = 1 << 20

        static func startMaster() async throws -> Platform {
            try await Platform.start(["--set", "mappedFileSizeCommitLog=\(fileSize)"])
        }

        static func startSlave(of master: Platform) async throws -> Platform {
            try await Platform.start([
                "--no-nameserver", "--namesrv-addr", master.nameServer, "--broker-role", "slave", "--broker-id", "1",
                "--ha-master-address", try haAddress(master), "--set", "mappedFileSizeCommitLog=\(fileSize)",
            ])
        }

        /// One port above the broker's, as RocketMQ has it.
        static func haAddress(_ platform: Platform) throws -> String {
            let colon = try #require(platform.broker.lastIndex(of: ":"))
            let port = try #require(Int(platform.broker[platform.broker.index(after: colon)...]))
            return "\(platform.broker[..<colon]):\(port + 1)"
        }

        static func runtime(_ platform: Platform, _ key: String) async throws -> Int64 {
            let reply = try await platform.ask(platform.broker, RemotingCommand(.getBrokerRuntimeInfo))
            let json = try reply.body.withUnsafeBytes { try JSONReader.read($0) }
            return try #require(json["table"]?[key]?.string.flatMap { Int64($0) }, "\(key) in the runtime information")
        }

        /// The commit log of a platform from its beginning to `end`.
        static func log(_ platform: Platform, to end: Int64) throws -> Data {
            var bytes = Data()
            while bytes.count < end {
                let digits = String(bytes.count)
                let name = String(repeating: "0", count: 20 - digits.count) + digits
                bytes += try Data(contentsOf: URL(fileURLWithPath: "\(platform.data)/store/commitlog/\(name)"))
            }
            return bytes.prefix(Int(end))
        }

        static func caughtUp(_ slave: Platform, with master: Platform) async throws {
            try await eventually("the slave has the master's whole log", within: .seconds(20)) {
                // Either may be restarting.
                guard let there = try? await runtime(master, "commitLogMaxOffset"),
                    let here = try? await runtime(slave, "commitLogMaxOffset")
                else { return false }
                return there > 0 && there == here
            }
        }

        static func expectIdentical(_ master: Platform, _ slave: Platform) async throws {
            try await caughtUp(slave, with: master)
            let end = try await runtime(master, "commitLogMaxOffset")
            let same = try log(master, to: end) == log(slave, to: end)
            #expect(same, "the two commit logs differ below \(end)")
        }

        @Test("a slave that joins a master with messages becomes byte-identical and follows", .timeLimit(.minutes(2)))
        func follows() async throws {
            let master = try await Self.startMaster()
            let before = (0..<2000).map { "before \($0)" }.joined(separator: "\n")
            let file = master.folder.file("before")
            try before.write(toFile: file, atomically: false, encoding: .utf8)
            let sent = try await master.apus(["send", "--topic", "Followed", "--tag", "t", file])
            #expect(sent.status == 0, "\(sent.errorText)")
            // Metadata travels as well: a group's offset, by the slave's first round.
            let place = ["consumerGroup": "readers", "topic": "Followed", "queueId": "2"]
            _ = try await master.ask(
                master.broker,
                RemotingCommand(.updateConsumerOffset, extFields: place.merging(["commitOffset": "321"]) { $1 }))
            let slave = try await Self.startSlave(of: master)
            try await Self.expectIdentical(master, slave)
            try await eventually("the slave knows the group's offset", within: .seconds(20)) {
                let reply = try? await slave.ask(
                    slave.broker, RemotingCommand(.queryConsumerOffset, extFields: place))
                return reply?.extFields["offset"] == "321"
            }
            let again = try await master.apus(["send", "--topic", "Followed", "--tag", "u", file])
            #expect(again.status == 0, "\(again.errorText)")
            try await Self.expectIdentical(master, slave)
            // The slave can be read: same topic, same messages in the same places.
            try await eventually("the topic's queues are the same on the slave", within: .seconds(20)) {
                let there = try? await master.queueSizes(topic: "Followed", queues: 4)
                let here = try? await slave.queueSizes(topic: "Followed", queues: 4)
                return there != nil && there?.reduce(0, +) == 4000 && here == there
            }
            // The master goes on alone, and the slave comes back to it.
            try await slave.stop()
            _ = try await master.apus(["send", "--topic", "Followed", "--tag", "v", file])
            let back = try await Platform.start(
                in: slave.folder,
                [
                    "--no-nameserver", "--namesrv-addr", master.nameServer, "--broker-role", "slave", "--broker-id",
                    "1", "--ha-master-address", try Self.haAddress(master), "--set",
                    "mappedFileSizeCommitLog=\(Self.fileSize)",
                ])
            try await Self.expectIdentical(master, back)
            try await back.stop()
            try await master.stop()
        }

        @Test(
            "kill -9 of each replication worker and of the slave's broker-store under load: byte-identical, nothing lost",
            .timeLimit(.minutes(3)))
        func kills() async throws {
            let master = try await Self.startMaster()
            let slave = try await Self.startSlave(of: master)
            let topic = "UnderFire"
            let oracle = Oracle(broker: master.broker, topic: topic)
            try await eventually("traffic") { oracle.acknowledged.count > 500 }
            for round in 0..<9 {
                let (platform, kind) = [(master, "replication"), (slave, "replication"), (slave, "broker-store")][
                    round % 3]
                let old = try #require(platform.pid(of: kind))
                let before = oracle.acknowledged.count
                Glibc.kill(old, SIGKILL)
                _ = try await platform.newPid(of: kind, after: old)
                try await eventually("sends go on after \(kind) was killed") {
                    oracle.acknowledged.count > before + 100
                }
                // Time passes under load before the next is killed.
                try await Task.sleep(for: .milliseconds(300))
            }
            await oracle.stop()
            #expect(oracle.refusals.isEmpty, "\(oracle.refusals.prefix(3))")
            try await Self.expectIdentical(master, slave)
            let stored = try await Oracle.stored(broker: master.broker, topic: topic, queues: 4)
            #expect(oracle.acknowledged.subtracting(stored).isEmpty)
            for platform in [slave, master] { try await platform.stop() }
        }

        @Test("a slave with messages the master never had is refused and keeps them", .timeLimit(.minutes(2)))
        func ahead() async throws {
            let master = try await Self.startMaster()
            // A platform that was a master of its own before it is made a slave.
            let other = try await Self.startMaster()
            let file = other.folder.file("lines")
            try (0..<100).map { "own \($0)" }.joined(separator: "\n").write(
                toFile: file, atomically: false, encoding: .utf8)
            let sent = try await other.apus(["send", "--topic", "Own", file])
            #expect(sent.status == 0, "\(sent.errorText)")
            let end = try await Self.runtime(other, "commitLogMaxOffset")
            let own = try Self.log(other, to: end)
            try await other.stop()
            let slave = try await Platform.start(
                in: other.folder,
                [
                    "--no-nameserver", "--namesrv-addr", master.nameServer, "--broker-role", "slave", "--broker-id",
                    "1", "--ha-master-address", try Self.haAddress(master), "--set",
                    "mappedFileSizeCommitLog=\(Self.fileSize)",
                ])
            try await eventually("both sides say why") {
                master.log.contains("holds messages the master does not have")
                    && slave.log.contains("why it refuses this slave's position")
            }
            #expect(try Self.log(slave, to: end) == own)
            #expect(try await Self.runtime(slave, "commitLogMaxOffset") == end)
            for platform in [slave, master] { try await platform.stop() }
        }
    }
}
