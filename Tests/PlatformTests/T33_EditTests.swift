import FastJSON
import Foundation
import RemotingProtocol
import RocketMQClient
import TestTools
import Testing

extension PlatformTests {
    /// Editing messages from the command line.
    @Suite("T33 edits", .serialized)
    struct T33_Edits {
        private static let topic = "Orders"

        /// A message with an ID of its producer's.
        private func send(
            _ platform: Platform, _ key: String, _ properties: String = "", topic: String = Self.topic
        ) async throws -> RemotingCommand {
            let sent = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .sendMessageV2,
                    extFields: [
                        "a": "P", "b": topic, "c": "TBW102", "d": "1", "e": "0", "f": "0", "g": "1", "h": "0",
                        "i": "UNIQ_KEY\u{1}\(key)\u{2}" + properties, "j": "0", "k": "false", "m": "false",
                    ], body: Array(key.utf8)))
            #expect(sent.code == 0, "\(sent.remark ?? "")")
            return sent
        }

        private func pull(_ address: String, _ platform: Platform) async throws -> [ReceivedMessage] {
            let answer = try await platform.ask(
                address,
                RemotingCommand(
                    .pullMessage,
                    extFields: [
                        "consumerGroup": "Pulling", "topic": Self.topic, "queueId": "0", "queueOffset": "0",
                        "maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                        "subscription": "*", "subVersion": "0", "expressionType": "TAG",
                    ]))
            return answer.code == 0 ? try ReceivedMessage.decode(answer.body, brokerName: "broker-a") : []
        }

        private func pop(_ platform: Platform) async throws -> [ReceivedMessage] {
            let answer = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .popMessage,
                    extFields: [
                        "consumerGroup": "Popping", "topic": Self.topic, "queueId": "0", "maxMsgNums": "32",
                        "invisibleTime": "60000", "pollTime": "0", "bornTime": "0", "initMode": "0",
                        "expType": "TAG", "exp": "*", "order": "false",
                    ]))
            return answer.code == 0 ? try ReceivedMessage.decode(answer.body, brokerName: "broker-a") : []
        }

        @Test(
            "edit, delete, cancel, reschedule and resend: groups that pull and pop, a slave and kill -9 agree",
            .timeLimit(.minutes(3)))
        func edits() async throws {
            let platform = try await Platform.start(["--set", "mappedFileSizeCommitLog=\(T08_Replication.fileSize)"])
            let slave = try await T08_Replication.startSlave(of: platform)
            for number in 0..<5 { _ = try await send(platform, "order-\(number)") }
            try await eventually("the route is registered") {
                try await platform.route(of: Self.topic) == ["broker-a"]
            }
            let later = Int64(Date().timeIntervalSince1970 * 1000) + 3_600_000
            _ = try await send(platform, "delayed", "DELAY\u{1}18\u{2}")
            _ = try await send(platform, "timed", "TIMER_DELIVER_MS\u{1}\(later)\u{2}")
            let half = try await send(platform, "half", "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}P\u{2}")
            func message(_ words: String...) async throws -> (status: Int32, text: String) {
                let outcome = try await platform.apus(["message"] + words + ["--topic", Self.topic])
                return (outcome.status, outcome.lines.joined(separator: "\n") + outcome.errorText)
            }
            func done(_ words: String..., saying text: String) async throws {
                let outcome = try await platform.apus(
                    ["message"] + words + ["--topic", Self.topic, "--by", "alice"])
                #expect(
                    outcome.status == 0 && outcome.lines.joined().contains(text), "\(words): \(outcome)")
            }
            try await done("edit", "order-1", "--body", "changed", "--tags", "paid", saying: "version 2")
            try await done("delete", "order-2", saying: "deleted")
            try await done("edit", "half", "--body", "half changed", saying: "edited")
            try await done("cancel", "delayed", saying: "withdrawn")
            try await done("reschedule", "timed", "--in", "2s", saying: "rescheduled")
            try await done("resend", "order-0", "--body", "again", saying: "sent once more")
            let place = try #require(OffsetMessageID.parse(half.extFields["msgId"] ?? "")?.physicalOffset)
            let committed = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .endTransaction,
                    extFields: [
                        "producerGroup": "P", "tranStateTableOffset": half.extFields["queueOffset"] ?? "",
                        "commitLogOffset": String(place), "commitOrRollback": "8", "fromTransactionCheck": "false",
                    ]))
            #expect(committed.code == 0, "\(committed.remark ?? "")")
            let wanted: Set = [
                "order-0", "changed", "order-3", "order-4", "again", "half changed", "timed",
            ]
            try await eventually("everything is there", within: .seconds(20)) {
                try await Set(pull(platform.broker, platform).map(\.text)) == wanted
            }
            try await T08_Replication.caughtUp(slave, with: platform)
            try await eventually("the slave serves the same", within: .seconds(20)) {
                try await Set(pull(slave.broker, platform).map(\.text)) == wanted
            }
            // No slave takes an edit.
            let refused = try await platform.ask(
                slave.broker,
                RemotingCommand(
                    .editMessage,
                    extFields: [
                        "topic": Self.topic, "queueId": "0", "queueOffset": "0", "operation": "delete", "by": "bob",
                    ]))
            #expect(refused.code != 0 && refused.remark?.contains("slave") == true, "\(refused)")

            let old = try #require(platform.pid(of: "broker-store"))
            Glibc.kill(old, SIGKILL)
            _ = try await platform.newPid(of: "broker-store", after: old)
            try await eventually("after kill -9 all is as it was", within: .seconds(20)) {
                try await Set(pull(platform.broker, platform).map(\.text)) == wanted
            }
            let show = try await message("show", "order-1")
            #expect(show.text.contains("edited by alice (body, tags)"), "\(show)")
            #expect(try await message("show", "order-2").text.contains("deleted by alice"))
            #expect(try await message("show", "timed").text.contains("rescheduled by alice"))
            let popped = try await pop(platform)
            #expect(Set(popped.map(\.text)) == wanted)
            let held = try await message("edit", "order-3", "--body", "too late")
            #expect(held.status != 0 && held.text.contains("group Popping consumes it at the moment"), "\(held)")
            let unknown = try await message("delete", "none")
            #expect(unknown.status != 0 && unknown.text.contains("the id 'none'"), "\(unknown)")
            let empty = try await message("edit", "order-3")
            #expect(empty.status != 0 && empty.text.contains("--body"), "\(empty)")
            print("T33 edits: \(wanted.count) messages agree on master, slave, after kill -9, pulled and popped")
            for one in [slave, platform] { try await one.stop() }
        }
    }
}
