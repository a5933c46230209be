import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// Messages that wait, come back or are put aside, as the official C++ client meets them.
    @Suite("T11 delay, timers, retries, dead letters", .serialized, needsOfficialClient)
    struct T11_MessageKinds {
        typealias Outgoing = OfficialClient.Outgoing

        /// Retries come after a second instead of ten.
        static let quickLevels = ["--set", "messageDelayLevel=1s 1s 1s 1s 1s 1s"]

        private static func delays(_ deliveries: [OfficialClient.Delivery], since start: Double) -> [Double] {
            deliveries.compactMap { $0.at.map { $0 - start } }.sorted()
        }

        @Test("delay level 1 and a timer of 1.5 s: not early, and hardly late", .timeLimit(.minutes(1)))
        func delayed() async throws {
            let platform = try await Platform.start()
            let topic = "Delayed"
            _ = try await OfficialClient.produce(platform, [Outgoing(n: -1, topic: topic, body: "first")])
            let consumer = try await OfficialClient.push(platform, topic: topic, group: "waiters")
            _ = try await consumer.receive(1)
            let producer = try await OfficialClient.producer(platform)
            let start = Date().timeIntervalSince1970
            producer.write(
                OfficialClient.text(
                    (0..<20).map { Outgoing(n: $0, topic: topic, body: "level", keys: "level-\($0)", delay: 1) }
                        + (0..<20).map {
                            Outgoing(
                                n: $0, topic: topic, body: "timer", keys: "timer-\($0)",
                                properties: ["TIMER_DELAY_MS": "1500"])
                        }))
            try await eventually("all acknowledged") { OfficialClient.answers(of: producer).count == 40 }
            let sent = Date().timeIntervalSince1970
            let all = try await consumer.receive(41).filter { !$0.keys.isEmpty }
            #expect(Set(all.map(\.keys)).count == 40)
            let levels = Self.delays(all.filter { $0.body == "level" }, since: start)
            let timers = Self.delays(all.filter { $0.body == "timer" }, since: start)
            let sending = sent - start
            #expect(try #require(levels.first) >= 1.0)
            #expect(try #require(levels.last) < 1.1 + sending + 0.4, "\(levels) sending took \(sending) s")
            #expect(try #require(timers.first) >= 1.5)
            #expect(try #require(timers.last) < 1.6 + sending + 0.4, "\(timers) sending took \(sending) s")
            producer.closeInput()
            try await consumer.stop()
            try await platform.stop()
        }

        @Test("a message the consumer refuses comes again after its delay, counted", .timeLimit(.minutes(1)))
        func retry() async throws {
            let platform = try await Platform.start(Self.quickLevels)
            let topic = "Retried"
            // One message only: with one that fails the client sends back what it had pulled with it.
            _ = try await OfficialClient.produce(
                platform, [Outgoing(n: 1, topic: topic, body: "again", tags: "TagA", keys: "key")])
            let consumer = try await OfficialClient.push(
                platform, topic: topic, group: "refusers", ["--fail-first", "2"])
            let all = try await consumer.receive(3, within: .seconds(50))
            #expect(all.map(\.reconsumed) == [0, 1, 2])
            #expect(all.map(\.failed) == [true, true, nil])
            #expect(all.allSatisfy { $0.body == "again" && $0.keys == "key" && $0.tags == "TagA" && $0.topic == topic })
            for (one, next) in zip(all, all.dropFirst()) { #expect((next.at ?? 0) - (one.at ?? 0) >= 1.0) }
            try await consumer.stop()
            try await platform.stop()
        }

        @Test("after the last retry a message lies in the dead-letter topic, whole", .timeLimit(.minutes(1)))
        func deadLetter() async throws {
            let platform = try await Platform.start(Self.quickLevels)
            let topic = "Dead"
            var config = SubscriptionGroupConfig(groupName: "buriers")
            config.retryMaxTimes = 1
            let made = try await platform.ask(
                platform.broker, RemotingCommand(.updateAndCreateSubscriptionGroup, body: config.encoded()))
            #expect(made.code == 0)
            _ = try await OfficialClient.produce(
                platform, [Outgoing(n: 1, topic: topic, body: "poison", tags: "TagA", keys: "key")])
            let consumer = try await OfficialClient.push(
                platform, topic: topic, group: "buriers", ["--fail-first", "2"])
            let deliveries = try await consumer.receive(2, within: .seconds(50))
            #expect(deliveries.map(\.reconsumed) == [0, 1])
            try await eventually("the dead-letter topic has it", within: .seconds(10)) {
                (try? await platform.queueSizes(topic: "%DLQ%buriers", queues: 1)) == [1]
            }
            let reply = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .pullMessage,
                    extFields: [
                        "consumerGroup": "undertaker", "topic": "%DLQ%buriers", "queueId": "0", "queueOffset": "0",
                        "maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                        "subscription": "*", "subVersion": "0", "expressionType": "TAG",
                    ]))
            let text = String(decoding: reply.body, as: UTF8.self)
            #expect(reply.code == 0)
            for part in ["poison", "RETRY_TOPIC\u{1}Dead", "ORIGIN_MESSAGE_ID\u{1}", "TAGS\u{1}TagA", "KEYS\u{1}key"] {
                #expect(text.contains(part), "\(part)")
            }
            // Time passes, in which more could come.
            try await Task.sleep(for: .seconds(2))
            #expect(consumer.deliveries.count == 2)
            try await consumer.stop()
            try await platform.stop()
        }

        @Test("kill -9 of the broker while messages wait: each is delivered once, none early", .timeLimit(.minutes(1)))
        func waitingOverKill() async throws {
            let platform = try await Platform.start(["--set", "messageDelayLevel=4s"])
            let topic = "Surviving"
            _ = try await OfficialClient.produce(platform, [Outgoing(n: -1, topic: topic, body: "first")])
            let messages =
                (0..<40).map { Outgoing(n: $0, topic: topic, body: "level", keys: "level-\($0)", delay: 1) }
                + (0..<40).map {
                    Outgoing(
                        n: $0, topic: topic, body: "timer", keys: "timer-\($0)",
                        properties: ["TIMER_DELAY_MS": String(3000 + $0 * 50)])
                }
            let start = Date().timeIntervalSince1970
            let answers = try await OfficialClient.produce(platform, messages)
            #expect(answers.count == 80 && answers.allSatisfy { $0.ok })
            // While some have been delivered and some have not.
            for pause in [3.4, 0.6] {
                try await Task.sleep(for: .seconds(max(0, start + pause - Date().timeIntervalSince1970)))
                let old = try #require(platform.pid(of: "broker-store"))
                kill(old, SIGKILL)
                _ = try await platform.newPid(of: "broker-store", after: old)
            }
            try await eventually("all of them", within: .seconds(20)) {
                ((try? await platform.queueSizes(topic: topic, queues: 4)) ?? []).reduce(0, +) >= 81
            }
            // Time passes, in which one could come twice.
            try await Task.sleep(for: .seconds(1))
            #expect(try await platform.queueSizes(topic: topic, queues: 4).reduce(0, +) == 81)
            let found = try await OfficialClient.pull(platform, topic: topic, group: "counters")
            #expect(Set(found.map(\.keys)).subtracting([""]) == Set(messages.compactMap(\.keys)))
            try await platform.stop()
        }
    }
}
