import Foundation
import TestTools
import Testing

extension PlatformTests {
    /// Consumer groups: sharing, leaving, coming back.
    @Suite("T03 consumer groups", .serialized, needsOfficialClient)
    struct T03_Groups {
        typealias Outgoing = OfficialClient.Outgoing

        private static func message(_ number: Int, topic: String) -> Outgoing {
            Outgoing(n: number, topic: topic, body: "message \(number)", keys: "key-\(number)", order: number)
        }

        @Test(
            "two consumers share the queues; when one leaves the other takes over and nothing is lost",
            .timeLimit(.minutes(2)))
        func rebalance() async throws {
            let platform = try await Platform.start()
            let topic = "Shared"
            _ = try await OfficialClient.produce(platform, [Self.message(0, topic: topic)])
            let first = try await OfficialClient.push(platform, topic: topic, group: "sharers", ["--instance", "one"])
            let second = try await OfficialClient.push(platform, topic: topic, group: "sharers", ["--instance", "two"])
            _ = try await first.receive(0)
            // The first member learns of the second by the broker's notice (40) and gives half its queues up. Time
            // passes: nothing shows that it has.
            try await Task.sleep(for: .seconds(2))
            let producer = try await OfficialClient.producer(platform, mode: "orderly")
            func send(_ numbers: Range<Int>) async throws {
                producer.write(OfficialClient.text(numbers.map { Self.message($0, topic: topic) }))
                try await eventually("\(numbers) acknowledged", within: .seconds(20)) {
                    OfficialClient.answers(of: producer).filter { $0.ok }.count >= numbers.upperBound - 1
                }
            }
            func keys(_ consumer: OfficialClient.Consumer) -> Set<String> { Set(consumer.deliveries.map(\.keys)) }

            try await send(1..<401)
            try await eventually("all of the first part", within: .seconds(20)) {
                keys(first).union(keys(second)).count >= 401
            }
            let queuesOfFirst = Set(first.deliveries.filter { $0.offset > 0 }.map(\.queue))
            let queuesOfSecond = Set(second.deliveries.filter { $0.offset > 0 }.map(\.queue))
            #expect(queuesOfFirst.count == 2 && queuesOfSecond.count == 2, "\(queuesOfFirst) \(queuesOfSecond)")
            #expect(queuesOfFirst.isDisjoint(with: queuesOfSecond))

            // One leaves in the middle of traffic.
            producer.write(OfficialClient.text((401..<601).map { Self.message($0, topic: topic) }))
            try await second.leave()
            try await send(601..<801)
            let all = Set((0..<801).map { "key-\($0)" })
            try await eventually("everything, although one consumer has left", within: .seconds(30)) {
                keys(first).union(keys(second)).isSuperset(of: all)
            }
            let late = first.deliveries.filter { (Int($0.keys.dropFirst(4)) ?? 0) >= 700 }
            #expect(Set(late.map(\.queue)).count == 4, "the one that stayed reads all queues")
            producer.closeInput()
            try await first.stop()
            try await platform.stop()
        }

        @Test("offsets survive a restart of the consumer and of the platform", .timeLimit(.minutes(2)))
        func offsetsSurviveRestarts() async throws {
            let folder = try TemporaryFolder()
            let topic = "Kept"
            var platform = try await Platform.start(in: folder)
            func produce(_ numbers: Range<Int>) async throws {
                let answers = try await OfficialClient.produce(platform, numbers.map { Self.message($0, topic: topic) })
                #expect(answers.allSatisfy { $0.ok } && answers.count == numbers.count)
            }
            func consume(expecting numbers: Range<Int>, _ situation: String) async throws {
                let consumer = try await OfficialClient.push(platform, topic: topic, group: "keepers")
                let deliveries = try await consumer.receive(numbers.count)
                // Time passes, in which more could come.
                try await Task.sleep(for: .milliseconds(500))
                try await consumer.stop()
                let got = consumer.deliveries.compactMap { Int($0.keys.dropFirst(4)) }.sorted()
                #expect(got == Array(numbers), "\(situation): \(deliveries.count) deliveries")
            }
            try await produce(0..<100)
            try await consume(expecting: 0..<100, "a new group")
            try await produce(100..<150)
            try await consume(expecting: 100..<150, "after a restart of the consumer")
            try await platform.stop()

            platform = try await Platform.start(in: folder)
            try await produce(150..<180)
            try await consume(expecting: 150..<180, "after a restart of the platform")
            let everything = try await OfficialClient.pull(platform, topic: topic, group: "other")
            #expect(everything.count == 180, "the store kept all messages")
            try await platform.stop()
        }
    }
}
