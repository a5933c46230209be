import FastJSON
import Foundation
import RemotingProtocol
import RocketMQClient
import TestTools
import Testing

extension PlatformTests {
    /// Consumers that pop, over kills of the broker.
    @Suite("T31 popping", .serialized)
    struct T31_Pop {
        @Test(
            "kill -9 while clients pop: none lost, none in two hands, none again after its acknowledgement",
            .timeLimit(.minutes(2)))
        func kills() async throws {
            let platform = try await Platform.start()
            let topic = "Popped"
            let producers = Oracle(broker: platform.broker, topic: topic)
            try await eventually("the first messages are stored") { producers.acknowledged.count > 50 }
            let load = PopLoad(broker: platform.broker, topic: topic, clients: 6)
            try await eventually("messages are popped and acknowledged") { load.finished.count > 100 }
            for _ in 1...4 {
                let old = try #require(platform.pid(of: "broker-store"))
                Glibc.kill(old, SIGKILL)
                _ = try await platform.newPid(of: "broker-store", after: old)
                let before = load.finished.count
                try await eventually("clients pop on", within: .seconds(10)) { load.finished.count > before + 100 }
                // Time passes under load before the next is killed.
                try await Task.sleep(for: .milliseconds(700))
            }
            await producers.stop()
            let sent = producers.acknowledged
            do {
                try await eventually("every message is acknowledged", within: .seconds(30)) {
                    load.unfinished(of: sent).isEmpty
                }
            } catch {
                await load.stop()
                Issue.record("\(error): \(load.judge(sent: sent).prefix(5))\n\(platform.log.suffix(3000))")
                return
            }
            // Time passes until whatever is claimed would come again.
            try await Task.sleep(for: PopLoad.invisible + .milliseconds(500))
            await load.stop()
            let faults = load.judge(sent: sent)
            #expect(faults.isEmpty, "\(faults.count) faults, such as \(faults.prefix(3))")
            let again = load.deliveries.filter { $0.attempt > 1 }.count
            #expect(again > 0)
            print("T31 popped: \(sent.count) sent, \(load.deliveries.count) deliveries, \(again) again, 4 kills")
            try await platform.stop()
        }

        @Test("apus message show: every step of a message, also after a restart", .timeLimit(.minutes(1)))
        func message() async throws {
            let platform = try await Platform.start()
            let (topic, group) = ("Shown", "Billing")
            let sent = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .sendMessageV2,
                    extFields: [
                        "a": "P", "b": topic, "c": "TBW102", "d": "1", "e": "0", "f": "0", "g": "1", "h": "0",
                        "i": "UNIQ_KEY\u{1}order-1", "j": "0", "k": "false", "m": "false",
                    ], body: Array("order 1".utf8)))
            #expect(sent.code == 0, "\(sent.remark ?? "")")
            try await eventually("the route is registered") { try await platform.route(of: topic) == ["broker-a"] }
            func pop(_ invisible: Int) async throws -> RemotingCommand {
                try await platform.ask(
                    platform.broker,
                    RemotingCommand(
                        .popMessage,
                        extFields: [
                            "consumerGroup": group, "topic": topic, "queueId": "-1", "maxMsgNums": "1",
                            "invisibleTime": String(invisible), "pollTime": "5000", "bornTime": "0", "initMode": "0",
                            "expType": "TAG", "exp": "*", "order": "false",
                        ]))
            }
            #expect(try await pop(300).code == 0)
            // Nothing comes until the first delivery is over.
            let again = try await pop(60_000)
            #expect(again.code == 0)
            let message = try #require(try ReceivedMessage.decode(again.body, brokerName: "broker-a").first)
            func show(_ words: String...) async throws -> [String] {
                let outcome = try await Program.run(
                    Binaries.apus, ["message", "show", "-n", platform.nameServer] + words, within: .seconds(20))
                #expect(outcome.status == 0, "\(outcome)")
                return outcome.lines
            }
            let id = try #require(message.uniqueID)
            let lines = try await show(id, "--topic", topic)
            #expect(lines.contains { $0.hasPrefix("Billing (POP): ING") && $0.hasSuffix("(delivery 2)") }, "\(lines)")
            #expect(lines.count { $0.contains("delivered to") } == 2, "\(lines)")
            #expect(lines.contains { $0.contains("has not acknowledged it in time") }, "\(lines)")

            let handle = again.extFields
            let start = try #require(handle["startOffsetInfo"]?.split(separator: " ").last)
            let acknowledged = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .ackMessage,
                    extFields: [
                        "consumerGroup": group, "topic": topic, "queueId": String(message.queue.queueID),
                        "offset": String(message.queueOffset),
                        "extraInfo": "\(start) \(handle["popTime"] ?? "") 60000 0 0 broker-a "
                            + "\(message.queue.queueID) \(message.queueOffset)",
                    ]))
            #expect(acknowledged.code == 0)
            try await eventually("the acknowledgement is written") {
                try await show(message.offsetMessageID).contains { $0.hasPrefix("Billing (POP): SUCCESS") }
            }
            let old = try #require(platform.pid(of: "broker-store"))
            Glibc.kill(old, SIGKILL)
            _ = try await platform.newPid(of: "broker-store", after: old)
            let json = try JSONValue(
                parsing: Array(try await show(id, "--topic", topic, "--group", group, "--json").joined().utf8))
            let found = try #require(json["groups"]?.array?.first)
            #expect(found["status"]?.string == "SUCCESS")
            #expect(
                (found["trail"]?.array ?? []).compactMap { $0["event"]?.string }
                    == ["DELIVERED", "TIMED_OUT", "DELIVERED", "ACKNOWLEDGED"])
            let absent = try await Program.run(
                Binaries.apus, ["message", "show", "-n", platform.nameServer, "none", "--topic", topic],
                within: .seconds(20))
            #expect(absent.status != 0 && absent.errorText.contains("the id 'none'"), "\(absent)")
            try await platform.stop()
        }
    }
}
