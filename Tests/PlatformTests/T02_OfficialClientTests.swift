import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// The official C++ client, unchanged, against a fresh platform.
    @Suite("T02 official C++ client", .serialized, needsOfficialClient)
    struct T02_OfficialClient {
        typealias Outgoing = OfficialClient.Outgoing

        static func messages(_ count: Int, topic: String, tags: [String] = ["TagA"]) -> [Outgoing] {
            (0..<count).map { number in
                Outgoing(
                    n: number, topic: topic, body: "message \(number) häßlich ☂", tags: tags[number % tags.count],
                    keys: "key-\(number)", order: number % 7)
            }
        }

        @Test(
            "every way of sending: what is acknowledged is there, with tags, keys and bytes", .timeLimit(.minutes(1)),
            arguments: ["sync", "async", "oneway", "orderly", "oneway-orderly"])
        func sends(mode: String) async throws {
            let platform = try await Platform.start()
            let topic = "Sends"
            // One-way sends go nowhere while the topic has no route: make it first.
            _ = try await OfficialClient.produce(platform, [Outgoing(n: -1, topic: topic, body: "first", order: 0)])
            let sent = Self.messages(200, topic: topic)
            let answers = try await OfficialClient.produce(platform, sent, mode: mode)
            #expect(answers.count == 200)
            #expect(answers.allSatisfy { $0.ok }, "\(answers.first { !$0.ok }?.error ?? "")")
            try await eventually("the broker has all 201 messages") {
                try await platform.queueSizes(topic: topic, queues: 4).reduce(0, +) == 201
            }
            let found = try await OfficialClient.pull(platform, topic: topic, group: "pullers").filter {
                !$0.keys.isEmpty
            }
            #expect(Set(found.map(\.keys)) == Set(sent.compactMap(\.keys)))
            #expect(found.count == 200)
            let bodies = Dictionary(found.map { ($0.keys, $0.body) }, uniquingKeysWith: { first, _ in first })
            #expect(sent.allSatisfy { bodies[$0.keys ?? ""] == $0.body })
            #expect(found.allSatisfy { $0.tags == "TagA" })
            if mode == "orderly" || mode == "oneway-orderly" {
                for (order, group) in Dictionary(grouping: found, by: { (Int($0.keys.dropFirst(4)) ?? 0) % 7 }) {
                    #expect(Set(group.map(\.queue)).count == 1, "order \(order) is in one queue")
                    let numbers = group.sorted { $0.offset < $1.offset }.compactMap { Int($0.keys.dropFirst(4)) }
                    #expect(numbers == numbers.sorted(), "order \(order) keeps its sequence")
                }
            }
            try await platform.stop()
        }

        @Test("a batch of the official client arrives as its messages", .timeLimit(.minutes(1)))
        func batches() async throws {
            let platform = try await Platform.start()
            let sent = Self.messages(64, topic: "Batches")
            let answers = try await OfficialClient.produce(platform, sent, mode: "batch", ["--batch", "16"])
            #expect(answers.compactMap(\.count) == [16, 16, 16, 16], "\(answers)")
            let found = try await OfficialClient.pull(platform, topic: "Batches", group: "pullers")
            #expect(found.compactMap(\.body).sorted() == sent.compactMap(\.body).sorted())
            try await platform.stop()
        }

        @Test("a batch the official client compresses, from 4 KiB on, arrives as its messages", .timeLimit(.minutes(1)))
        func compressedBatches() async throws {
            let platform = try await Platform.start()
            // 100 small ones are enough.
            let sent = Self.messages(200, topic: "Batches", tags: ["TagA", "TagB", "TagC"])
            let answers = try await OfficialClient.produce(platform, sent, mode: "batch", ["--batch", "100"])
            #expect(answers.compactMap(\.count) == [100, 100], "\(answers)")
            let found = try await OfficialClient.pull(platform, topic: "Batches", group: "pullers")
            let bodies = Dictionary(found.map { ($0.keys, $0) }, uniquingKeysWith: { first, _ in first })
            #expect(found.count == 200)
            #expect(
                sent.allSatisfy {
                    bodies[$0.keys ?? ""]?.body == $0.body && bodies[$0.keys ?? ""]?.tags == $0.tags
                })
            try await platform.stop()
        }

        @Test("push, concurrent: messages that come while it listens, and those from before", .timeLimit(.minutes(1)))
        func pushConcurrent() async throws {
            let platform = try await Platform.start()
            let before = Self.messages(50, topic: "Push")
            _ = try await OfficialClient.produce(platform, before)
            let consumer = try await OfficialClient.push(platform, topic: "Push", group: "pushers")
            _ = try await consumer.receive(50)
            let live = (50..<150).map { Outgoing(n: $0, topic: "Push", body: "live \($0)", keys: "key-\($0)") }
            let answers = try await OfficialClient.produce(platform, live)
            #expect(answers.allSatisfy { $0.ok })
            let deliveries = try await consumer.receive(150)
            try await consumer.stop()
            #expect(deliveries.compactMap(\.body).sorted() == (before + live).compactMap(\.body).sorted())
            try await platform.stop()
        }

        @Test("long polling: a message reaches a waiting consumer at once", .timeLimit(.minutes(1)))
        func deliveryIsPrompt() async throws {
            let platform = try await Platform.start()
            _ = try await OfficialClient.produce(platform, Self.messages(4, topic: "Prompt"))
            let consumer = try await OfficialClient.push(platform, topic: "Prompt", group: "prompt")
            _ = try await consumer.receive(4)
            try await eventually("its pulls wait, one for each queue") {
                let status = try await platform.status()["broker-store-0"]?.status ?? ""
                return status.firstMatch(of: #/held pulls (\d+)/#).flatMap { Int($0.1) } ?? 0 >= 4
            }
            var delays: [Double] = []
            for number in 0..<20 {
                let sent = Date().timeIntervalSince1970
                let result = try await platform.apus(
                    ["send", "--topic", "Prompt", "--key", "prompt-\(number)"], input: .file("/etc/hostname"))
                #expect(result.status == 0, "\(result.errorText)")
                _ = try await consumer.receive(5 + number)
                let arrival = consumer.deliveries.first { $0.keys == "prompt-\(number)" }?.at ?? .infinity
                delays.append(arrival - sent)
            }
            // Includes the start of the `apus send` process; a poll tick of a second would show.
            #expect((delays.max() ?? 1) < 0.9, "slowest delivery \(delays.max() ?? 0) s")
            try await consumer.stop()
            try await platform.stop()
        }

        @Test("push, orderly: each key's messages one after the other, also after a failure", .timeLimit(.minutes(1)))
        func pushOrderly() async throws {
            let platform = try await Platform.start()
            let sent = Self.messages(210, topic: "Orderly")
            let answers = try await OfficialClient.produce(platform, sent, mode: "orderly")
            #expect(answers.allSatisfy { $0.ok }, "\(answers.first { !$0.ok }?.error ?? "")")
            let consumer = try await OfficialClient.push(platform, topic: "Orderly", group: "orderlies", ["--orderly"])
            let deliveries = try await consumer.receive(210, within: .seconds(45))
            try await consumer.stop()
            for order in 0..<7 {
                let numbers = deliveries.compactMap { Int($0.keys.dropFirst(4)) }.filter { $0 % 7 == order }
                #expect(numbers == Array(stride(from: order, to: 210, by: 7)), "key group \(order)")
            }
            try await platform.stop()
        }

        @Test("broadcasting: every consumer gets every message", .timeLimit(.minutes(1)))
        func broadcasting() async throws {
            let platform = try await Platform.start()
            _ = try await OfficialClient.produce(platform, [Outgoing(n: 0, topic: "Broadcast", body: "first")])
            let consumers = [
                try await OfficialClient.push(
                    platform, topic: "Broadcast", group: "all", ["--broadcasting", "--instance", "one"]),
                try await OfficialClient.push(
                    platform, topic: "Broadcast", group: "all", ["--broadcasting", "--instance", "two"]),
            ]
            try await eventually("both are members of the group") {
                let reply = try await platform.ask(
                    platform.broker, RemotingCommand(.getConsumerListByGroup, extFields: ["consumerGroup": "all"]))
                return try reply.code == 0 && reply.json()["consumerIdList"]?.array?.count == 2
            }
            let sent = Self.messages(100, topic: "Broadcast")
            _ = try await OfficialClient.produce(platform, sent)
            for consumer in consumers {
                try await eventually("all 100 messages at one consumer", within: .seconds(20)) {
                    Set(consumer.deliveries.map(\.keys)).isSuperset(of: sent.compactMap(\.keys))
                }
                try await consumer.stop()
            }
            try await platform.stop()
        }

        @Test("tags: one, two joined by ||, and two tags with the same hash", .timeLimit(.minutes(1)))
        func tags() async throws {
            let platform = try await Platform.start()
            // "Aa" and "BB" have the same Java hash code, by which brokers select.
            let tags = ["TagA", "TagB", "TagC", "Aa", "BB"]
            let sent = Self.messages(250, topic: "Tagged", tags: tags)
            _ = try await OfficialClient.produce(platform, sent)
            for (expression, wanted) in [
                ("TagA", ["TagA"]), ("TagA || TagC", ["TagA", "TagC"]), ("Aa", ["Aa"]), ("BB", ["BB"]),
            ] {
                let consumer = try await OfficialClient.push(
                    platform, topic: "Tagged", group: "g-\(wanted.joined())", ["--tags", expression])
                let deliveries = try await consumer.receive(50 * wanted.count)
                // Time passes, in which more could come.
                try await Task.sleep(for: .milliseconds(300))
                #expect(consumer.deliveries.count == 50 * wanted.count, "\(expression)")
                #expect(Set(deliveries.map(\.tags)) == Set(wanted), "\(expression)")
                try await consumer.stop()
            }
            let pulled = try await OfficialClient.pull(
                platform, topic: "Tagged", group: "tag-pull", ["--tags", "TagB"])
            #expect(pulled.count == 50 && pulled.allSatisfy { $0.tags == "TagB" }, "pull with a tag: \(pulled.count)")
            try await platform.stop()
        }

        @Test("a message that failed comes again later", .timeLimit(.minutes(1)))
        func redelivery() async throws {
            let platform = try await Platform.start()
            _ = try await OfficialClient.produce(platform, Self.messages(10, topic: "Again"))
            let consumer = try await OfficialClient.push(
                platform, topic: "Again", group: "again", ["--fail-first", "3"])
            // What failed comes back through %RETRY%again after 10 s (delay level 3). With a message that fails the
            // client also sends back what it had pulled with it.
            try await eventually("all ten were taken in the end", within: .seconds(55)) {
                Set(consumer.deliveries.filter { $0.failed != true }.map(\.keys)).count == 10
            }
            try await consumer.stop()
            let deliveries = consumer.deliveries
            let failed = deliveries.filter { $0.failed == true }
            #expect(failed.count == 3)
            for first in failed {
                let again = deliveries.filter { $0.keys == first.keys && $0.reconsumed == 1 }
                #expect(again.count == 1, "\(first.keys)")
                let wait = (again.first?.at ?? 0) - (first.at ?? 0)
                #expect(wait > 9.5 && wait < 25, "\(first.keys) came again after \(wait) s")
            }
            #expect(deliveries.count == 10 + failed.count, "nothing else came twice")
            try await platform.stop()
        }
    }
}
