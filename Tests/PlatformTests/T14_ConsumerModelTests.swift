import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// Groups as the official C++ client forms them: where they begin, how they are moved, what happens when their
    /// members differ, and orderly ones that change hands. (It has no trace hooks and no begin at a moment: those are
    /// replayed in BrokerServiceTests.)
    @Suite("T14 consumer models", .serialized, needsOfficialClient)
    struct T14_ConsumerModels {
        typealias Outgoing = OfficialClient.Outgoing

        private static func messages(
            _ numbers: Range<Int>, topic: String, tags: String? = nil, key: String = "key"
        ) -> [Outgoing] {
            numbers.map {
                Outgoing(n: $0, topic: topic, body: "message \($0)", tags: tags, keys: "\(key)-\($0)", order: $0 % 8)
            }
        }

        private static func produce(_ platform: Platform, _ messages: [Outgoing], mode: String = "orderly") async throws
        {
            let answers = try await OfficialClient.produce(platform, messages, mode: mode)
            #expect(answers.filter(\.ok).count == messages.count, "\(answers.first { !$0.ok }?.error ?? "")")
        }

        @Test("a new group begins at the first message or at the end, as its client wants", .timeLimit(.minutes(2)))
        func fromWhere() async throws {
            // Otherwise a young topic is always read from its beginning, as with RocketMQ.
            let platform = try await Platform.start(["--set", "accessMessageInMemoryMaxRatio=0"])
            let topic = "Begins"
            try await Self.produce(platform, Self.messages(0..<40, topic: topic))
            let first = try await OfficialClient.push(platform, topic: topic, group: "first", ["--from", "first"])
            let last = try await OfficialClient.push(platform, topic: topic, group: "last", ["--from", "last"])
            _ = try await first.receive(40)
            // Time passes, in which old messages could come to it.
            try await Task.sleep(for: .seconds(3))
            #expect(last.deliveries.isEmpty)
            try await Self.produce(platform, Self.messages(40..<60, topic: topic))
            _ = try await last.receive(20)
            _ = try await first.receive(60)
            #expect(Set(last.deliveries.map(\.keys)) == Set((40..<60).map { "key-\($0)" }))
            #expect(first.deliveries.count == 60)
            try await first.stop()
            try await last.stop()
            try await platform.stop()
        }

        @Test(
            "two members with different tags: each gets its own from its queues, and the log names both once",
            .timeLimit(.minutes(2)))
        func differentTags() async throws {
            let platform = try await Platform.start()
            let topic = "Tagged"
            try await Self.produce(platform, Self.messages(0..<8, topic: topic, tags: "A", key: "early"))
            let a = try await OfficialClient.push(
                platform, topic: topic, group: "mixed", ["--instance", "one", "--tags", "A"])
            let b = try await OfficialClient.push(
                platform, topic: topic, group: "mixed", ["--instance", "two", "--tags", "B"])
            // Time passes: nothing shows that they have shared the queues.
            try await Task.sleep(for: .seconds(3))
            try await Self.produce(platform, Self.messages(0..<80, topic: topic, tags: "A", key: "a"))
            try await Self.produce(platform, Self.messages(0..<80, topic: topic, tags: "B", key: "b"))
            let all = try await OfficialClient.pull(platform, topic: topic, group: "auditor").filter {
                !$0.keys.hasPrefix("early")
            }
            #expect(all.count == 160)
            try await eventually("each has what is its own", within: .seconds(30)) {
                let (queuesOfA, queuesOfB) = (Set(a.deliveries.map(\.queue)), Set(b.deliveries.map(\.queue)))
                return queuesOfA.count >= 2 && queuesOfB.count == 2
                    && Set(a.deliveries.map(\.keys)).isSuperset(
                        of: all.filter { $0.tags == "A" && !queuesOfB.contains($0.queue) }.map(\.keys))
                    && Set(b.deliveries.map(\.keys)).isSuperset(
                        of: all.filter { $0.tags == "B" && queuesOfB.contains($0.queue) }.map(\.keys))
            }
            #expect(a.deliveries.allSatisfy { $0.tags == "A" } && b.deliveries.allSatisfy { $0.tags == "B" })
            let lines = platform.log.split(separator: "\n").filter {
                $0.contains("consumer group mixed is inconsistent")
            }
            #expect(lines.count == 1, "\(lines)")
            #expect(lines.first?.contains("one") == true && lines.first?.contains("two") == true, "\(lines)")
            #expect(platform.log.contains("has skipped"))
            try await a.stop()
            try await b.stop()
            try await platform.stop()
        }

        @Test(
            "orderly members come and go in the middle of traffic: nothing is overtaken, nothing lost",
            .timeLimit(.minutes(3)))
        func orderlyHandover() async throws {
            let platform = try await Platform.start()
            let topic = "Handed"
            try await Self.produce(platform, Self.messages(0..<8, topic: topic))
            let first = try await OfficialClient.push(
                platform, topic: topic, group: "orderlies", ["--orderly", "--instance", "one"])
            _ = try await first.receive(8)
            let producer = try await OfficialClient.producer(platform, mode: "orderly")
            func send(_ numbers: Range<Int>) async throws {
                producer.write(OfficialClient.text(Self.messages(numbers, topic: topic)))
                try await eventually("\(numbers) acknowledged", within: .seconds(30)) {
                    OfficialClient.answers(of: producer).filter(\.ok).count >= numbers.upperBound - 8
                }
            }
            try await send(8..<200)
            let second = try await OfficialClient.push(
                platform, topic: topic, group: "orderlies", ["--orderly", "--instance", "two"])
            try await send(200..<400)
            try await eventually("the newcomer has queues", within: .seconds(60)) { !second.deliveries.isEmpty }
            try await send(400..<600)
            try await first.stop()
            try await send(600..<800)
            let all = Set((0..<800).map { "key-\($0)" })
            try await eventually("all 800", within: .seconds(60)) {
                Set((first.deliveries + second.deliveries).map(\.keys)).isSuperset(of: all)
            }
            producer.closeInput()
            try await second.stop()
            // In the order in which they were handed out: the first time a message comes, all before it in its queue
            // have been.
            let inTime = (first.deliveries + second.deliveries).sorted { ($0.at ?? 0) < ($1.at ?? 0) }
            for (queue, deliveries) in Dictionary(grouping: inTime, by: \.queue) {
                var next: Int64 = 0
                for delivery in deliveries where delivery.offset >= next {
                    #expect(delivery.offset == next, "queue \(queue): \(delivery.offset) before \(next)")
                    next = delivery.offset + 1
                }
            }
            try await platform.stop()
        }

        @Test(
            "an operator rewinds the group online, and its members consume again", .timeLimit(.minutes(3)))
        func rewind() async throws {
            let platform = try await Platform.start()
            let topic = "Rewound"
            try await Self.produce(platform, Self.messages(0..<40, topic: topic))
            // Time passes: the moment lies clearly between the messages.
            try await Task.sleep(for: .seconds(1))
            let middle = Int64(Date().timeIntervalSince1970 * 1000)
            try await Task.sleep(for: .milliseconds(200))
            try await Self.produce(platform, Self.messages(40..<60, topic: topic))
            let consumer = try await OfficialClient.push(platform, topic: topic, group: "rewound")
            _ = try await consumer.receive(60)
            func isAtEnd() async throws -> Bool {
                let stats = try await platform.ask(
                    platform.broker,
                    RemotingCommand(.getConsumeStats, extFields: ["consumerGroup": "rewound", "topic": topic]))
                let queues = try stats.json()["offsetTable"]?.object?.members.map(\.value) ?? []
                return queues.count == 4 && queues.allSatisfy { $0["brokerOffset"] == $0["consumerOffset"] }
            }
            try await eventually("the client has committed", within: .seconds(30)) { (try? await isAtEnd()) == true }
            func reset(_ time: Int64) async throws {
                let answer = try await platform.ask(
                    platform.broker,
                    RemotingCommand(
                        .invokeBrokerToResetOffset,
                        extFields: ["topic": topic, "group": "rewound", "timestamp": String(time), "isForce": "true"]))
                #expect(answer.code == 0, "\(answer.remark ?? "")")
            }
            try await reset(middle)
            try await eventually("the second part again", within: .seconds(60)) { consumer.deliveries.count >= 80 }
            let again = consumer.deliveries.dropFirst(60).map(\.keys)
            #expect(Set(again) == Set((40..<60).map { "key-\($0)" }))
            try await consumer.stop()
            try await platform.stop()
        }

        @Test("the trace topic under its own name: made at the start, written and read", .timeLimit(.minutes(1)))
        func traceTopic() async throws {
            let platform = try await Platform.start([
                "--set", "traceTopicEnable=true", "--set", "msgTraceTopicName=OUR_TRACES",
            ])
            for topic in ["OUR_TRACES", "RMQ_SYS_TRACE_TOPIC"] {
                try await Self.produce(platform, Self.messages(0..<4, topic: topic), mode: "sync")
                let consumer = try await OfficialClient.push(platform, topic: topic, group: "tracers-\(topic)")
                _ = try await consumer.receive(4)
                try await consumer.stop()
            }
            #expect(try await platform.queueSizes(topic: "OUR_TRACES", queues: 1) == [4])
            try await platform.stop()
        }
    }
}
