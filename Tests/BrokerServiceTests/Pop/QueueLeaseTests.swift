import FastJSON
import Foundation
import NIOCore
import NIOEmbedded
import RemotingProtocol
import TestFolders
import Testing

@testable import BrokerService

/// One consumer at a time for a queue, in simulated time.
@Suite("queues that have one consumer at a time") struct QueueLeaseTests {
    /// A broker with topic T, and consumers by name.
    private final class Stage {
        let clock = SimulatedClock()
        let folder: URL
        private(set) var broker: SimulatedBroker
        private(set) var producer: SimulatedClient

        init() async throws {
            folder = try TestFolder.make("leases")
            broker = try await SimulatedBroker([], folder: folder, clock: clock)
            producer = try await broker.connect()
        }

        func begin(_ attributes: String, queues: Int, messages: Int) async throws {
            let answer = try await producer.invoke(
                .updateAndCreateTopic,
                [
                    "topic": "T", "defaultTopic": "TBW102", "readQueueNums": String(queues),
                    "writeQueueNums": String(queues), "perm": "6", "topicFilterType": "SINGLE_TAG",
                    "topicSysFlag": "0", "order": "false", "attributes": attributes,
                ])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
            for index in 0..<messages { try await send("m\(index)") }
        }

        func send(_ body: String, queue: Int32 = 0) async throws {
            #expect(try await producer.send("T", queue: queue, body: body, [:]).code == 0)
        }

        func delete(_ offset: Int64) async throws {
            let answer = try await producer.invokeSliced(
                .editMessage,
                [
                    "topic": "T", "queueId": "0", "queueOffset": String(offset), "operation": "delete",
                    "by": "operator",
                ])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
        }

        func consumer(_ name: String) async throws -> Person {
            let person = Person(name: name, client: try await broker.connect(), stage: self)
            try await person.beat()
            return person
        }

        func pass(_ milliseconds: Int64) async { await broker.loop.advanceTime(by: .milliseconds(milliseconds)) }

        func restart() async throws {
            try await broker.end(cleanly: true)
            broker = try await SimulatedBroker([], folder: folder, clock: clock)
            producer = try await broker.connect()
        }

        func end() async throws {
            try await broker.end(cleanly: true)
            try FileManager.default.removeItem(at: folder)
        }

        var leases: [String: String] {
            get async throws {
                let answer = try await producer.invoke(.getBrokerRuntimeInfo)
                let table = try answer.json()["table"]?.object?.members ?? []
                return Dictionary(
                    table.filter { $0.key.hasPrefix("lease_") }.map { ($0.key, $0.value.string ?? "") },
                    uniquingKeysWith: { $1 })
            }
        }
    }

    private final class Person {
        let name: String
        let client: SimulatedClient
        private unowned let stage: Stage
        private var waiting: Int32?
        var isWaiting: Bool { waiting != nil }
        var inHand: [PoppedMessage] = []

        init(name: String, client: SimulatedClient, stage: Stage) {
            self.name = name
            self.client = client
            self.stage = stage
        }

        /// A client that sends none for two minutes is sent away.
        func beat() async throws {
            let heartbeat =
                #"{"clientID":""# + name + #"","consumerDataSet":[{"groupName":"G","consumeType":"CONSUME_PASSIVELY","#
                + #""messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","#
                + #""subscriptionDataSet":[],"unitMode":false}],"producerDataSet":[]}"#
            #expect(try await client.invoke(.heartBeat, body: Array(heartbeat.utf8)).code == 0)
        }

        /// Pops, and waits so long.
        func pop(poll: Int64 = 0, count: Int = 1, queue: Int32 = -1) async throws -> [String] {
            waiting = try await client.post(.popMessage, Self.popFields(poll: poll, count: count, queue: queue))
            return try await got() ?? []
        }

        static func popFields(poll: Int64, count: Int, queue: Int32) -> [String: String] {
            [
                "consumerGroup": "G", "topic": "T", "queueId": String(queue), "maxMsgNums": String(count),
                "invisibleTime": "-1", "pollTime": String(poll), "bornTime": "0", "initMode": "0",
            ]
        }

        /// What the pop that waits has brought; nil while it waits.
        func got() async throws -> [String]? {
            let answers = try await client.takeAnswers()
            guard let number = waiting, let answer = answers[number] else { return nil }
            waiting = nil
            guard answer.code == 0 else { return [] }
            let popped = try PopReply(answer).messages
            inHand += popped
            return popped.map(\.body)
        }

        func acknowledge() async throws {
            let message = inHand.removeFirst()
            let fields = [
                "consumerGroup": "G", "topic": "T", "queueId": String(message.queueID),
                "offset": String(message.offset), "extraInfo": message.handle,
            ]
            #expect(try await client.invoke(.ackMessage, fields).code == 0)
        }

        /// The message comes again by the strategy of its topic.
        func fail() async throws {
            let message = inHand.removeFirst()
            let answer = try await client.invoke(
                .changeMessageInvisibleTime,
                [
                    "consumerGroup": "G", "topic": "T", "queueId": String(message.queueID),
                    "offset": String(message.offset), "extraInfo": message.handle, "invisibleTime": "-1",
                ])
            #expect(answer.code == 0)
        }

        /// In one read: the message behind is there when it leaves.
        func acknowledgeAndLeave() async throws {
            let message = inHand.removeFirst()
            _ = try await client.post(
                .ackMessage,
                [
                    "consumerGroup": "G", "topic": "T", "queueId": String(message.queueID),
                    "offset": String(message.offset), "extraInfo": message.handle,
                ])
            try await leave()
        }

        func renew(_ message: PoppedMessage, milliseconds: Int) async throws -> [String: String] {
            let answer = try await client.invoke(
                .changeMessageInvisibleTime,
                [
                    "consumerGroup": "G", "topic": "T", "queueId": String(message.queueID),
                    "offset": String(message.offset), "extraInfo": message.handle,
                    "invisibleTime": String(milliseconds),
                ])
            #expect(answer.code == 0)
            return answer.extFields
        }

        func leave() async throws {
            _ = try await client.invoke(.unregisterClient, ["clientID": name, "consumerGroup": "G"])
        }
    }

    /// A broker that ends whatever the test throws: what it left unanswered would end the test's process.
    private func withStage(
        _ attributes: String, queues: Int = 1, messages: Int = 0, _ body: (Stage) async throws -> Void
    ) async throws {
        let stage = try await Stage()
        do {
            try await stage.begin(attributes, queues: queues, messages: messages)
            try await body(stage)
        } catch {
            try? await stage.end()
            throw error
        }
        try await stage.end()
    }

    private static let serial = "+apus.mode=SERIAL_QUEUE,+apus.timeout=8"

    @Test("it stays with its consumer, and goes to the next when that dies, in order")
    func dies() async throws {
        try await withStage(Self.serial, messages: 3) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop() == ["m0"])
            #expect(try await second.pop(poll: 60_000).isEmpty)
            try await first.acknowledge()
            #expect(try await first.pop() == ["m1"])
            #expect(try await stage.leases["lease_T@G"]?.hasPrefix("0 first since 18000") == true)
            await first.client.close()
            await stage.pass(7900)
            // It may still be at work with what it had.
            #expect(try await second.got() == nil)
            await stage.pass(200)
            #expect(try await second.got() == ["m1"])
            #expect(second.inHand.map(\.reconsumeTimes) == [1])
            #expect(try await stage.leases["lease_T@G"]?.hasPrefix("0 second") == true)
            try await second.acknowledge()
            #expect(try await second.pop() == ["m2"])
        }
    }

    @Test("a message goes to the holder that waits, not to one that waits longer")
    func wakesTheHolder() async throws {
        try await withStage(Self.serial, messages: 1) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop() == ["m0"])
            #expect(try await second.pop(poll: 60_000).isEmpty)
            try await first.acknowledge()
            #expect(try await first.pop(poll: 60_000).isEmpty)
            try await stage.send("m1")
            #expect(try await first.got() == ["m1"])
            #expect(try await second.got() == nil)
            try await first.acknowledge()
            try await first.leave()
            try await stage.send("m2")
            #expect(try await second.got() == ["m2"])
        }
    }

    @Test("one of which nothing is heard loses it when there are messages; a message that times out costs it, too")
    func deaf() async throws {
        try await withStage(Self.serial, messages: 1) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop() == ["m0"])
            #expect(try await second.pop(poll: 100_000).isEmpty)
            try await first.acknowledge()
            await stage.pass(60_000)
            #expect(try await stage.leases["lease_T@G"]?.hasPrefix("0 first") == true)
            // There is something now, and it was not heard for long.
            try await stage.send("m1")
            #expect(try await second.got() == ["m1"])
            try await second.acknowledge()
            #expect(try await first.pop(poll: 110_000).isEmpty)
            try await stage.send("m2")
            // Its poll time and five seconds are the patience with it.
            for _ in 0..<2 {
                await stage.pass(52_450)
                for consumer in [first, second] { try await consumer.beat() }
            }
            #expect(try await first.got() == nil)
            await stage.pass(200)
            #expect(try await first.got() == ["m2"])
            #expect(try await second.pop(poll: 30_000).isEmpty)
            await stage.pass(8100)
            #expect(try await second.got() == ["m2"])
        }
    }

    @Test("a failed message comes again to the same consumer, and nothing before it")
    func fails() async throws {
        try await withStage(Self.serial + ",+apus.retry.interval=10", messages: 2) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop() == ["m0"])
            #expect(try await second.pop(poll: 60_000).isEmpty)
            try await first.fail()
            #expect(try await first.pop(poll: 60_000).isEmpty)
            await stage.pass(9900)
            #expect(try await first.got() == nil)
            await stage.pass(200)
            #expect(try await first.got() == ["m0"])
            #expect(try await second.got() == nil)
        }
    }

    @Test("a failed message that is deleted does not keep the queue until it would have come again")
    func failedAndDeleted() async throws {
        try await withStage(Self.serial + ",+apus.retry.interval=60", messages: 3) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop(count: 2) == ["m0", "m1"])
            try await first.fail()
            try await first.fail()
            #expect(try await second.pop(poll: 60_000).isEmpty)
            #expect(try await first.pop(poll: 60_000).isEmpty)
            try await stage.delete(0)
            // The other one that failed still comes before what is behind it.
            #expect(try await first.got() == nil)
            try await stage.delete(1)
            #expect(try await first.got() == ["m2"])
            #expect(try await second.got() == nil)
        }
    }

    @Test("after a restart it belongs to the one that has its messages")
    func restart() async throws {
        try await withStage(Self.serial, messages: 2) { stage in
            let before = try await stage.consumer("first")
            #expect(try await before.pop() == ["m0"])
            try await stage.restart()
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await second.pop(poll: 60_000).isEmpty)
            #expect(try await first.pop(poll: 60_000).isEmpty)
            first.inHand = before.inHand
            try await first.acknowledge()
            #expect(try await first.got() == ["m1"])
            #expect(try await second.got() == nil)
            // The same consumer on another connection is no other consumer.
            try await first.acknowledge()
            let again = try await stage.consumer("first")
            try await stage.send("m2")
            #expect(try await again.pop() == ["m2"])
        }
    }

    @Test("queues of shards are shared by those that wait; one alone has all of them")
    func shares() async throws {
        try await withStage("+apus.mode=QUEUE,+apus.shard=true,+apus.timeout=8", queues: 4) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            for queue in 0..<4 { try await stage.send("a\(queue)", queue: Int32(queue)) }
            #expect(try await first.pop(count: 32).sorted() == ["a0", "a1", "a2", "a3"])
            for _ in 0..<4 { try await first.acknowledge() }
            #expect(try await second.pop(poll: 60_000, count: 32).isEmpty)
            for round in 0..<3 {
                for queue in 0..<4 { try await stage.send("\(round)-\(queue)", queue: Int32(queue)) }
                var seen: [String: [String]] = [:]
                for _ in 0..<8 {
                    for consumer in [first, second] {
                        let some: [String]
                        if let got = try await consumer.got() { some = got } else { some = [] }
                        seen[consumer.name, default: []] += some
                        while !consumer.inHand.isEmpty { try await consumer.acknowledge() }
                        if !consumer.isWaiting {
                            seen[consumer.name, default: []] += try await consumer.pop(poll: 60_000, count: 32)
                        }
                    }
                }
                #expect(seen["first"]?.count == 2 && seen["second"]?.count == 2, "\(round): \(seen)")
            }
            await second.client.close()
            try await stage.send("last", queue: 0)
            try await stage.send("last", queue: 1)
            try await stage.send("last", queue: 2)
            try await stage.send("last", queue: 3)
            await stage.pass(9000)
            var count = try await first.got()?.count ?? 0
            for _ in 0..<4 {
                while !first.inHand.isEmpty { try await first.acknowledge() }
                count += try await first.pop(count: 32).count
            }
            #expect(count == 4)
        }
    }

    @Test("one of which nothing is heard after its poll has five seconds, whatever the broker has told it")
    func deafAfterPoll() async throws {
        try await withStage(Self.serial, messages: 1) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop() == ["m0"])
            try await first.acknowledge()
            #expect(try await first.pop(poll: 20_000).isEmpty)
            #expect(try await second.pop(poll: 100_000).isEmpty)
            await stage.pass(20_000)
            #expect(try await first.got() == [])
            try await stage.send("m1")
            await stage.pass(4900)
            #expect(try await second.got() == nil)
            await stage.pass(200)
            #expect(try await second.got() == ["m1"])
        }
    }

    @Test("a consumer that leaves the group takes no wake-up with it: the next one goes on at once")
    func leaves() async throws {
        try await withStage(Self.serial, messages: 1) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop() == ["m0"])
            #expect(try await first.pop(poll: 60_000).isEmpty)
            #expect(try await second.pop(poll: 60_000).isEmpty)
            try await stage.send("m1")
            try await first.acknowledgeAndLeave()
            #expect(try await first.got() == [])
            #expect(try await second.got() == ["m1"])
        }
    }

    @Test("who names queues and asks for one no longer loses it, though it is well and asks for others")
    func assignedOthers() async throws {
        try await withStage("+apus.mode=QUEUE,+apus.shard=true,+apus.timeout=8", queues: 2) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            try await stage.send("a", queue: 1)
            #expect(try await first.pop(queue: 1) == ["a"])
            try await first.acknowledge()
            #expect(try await second.pop(poll: 100_000, queue: 1).isEmpty)
            #expect(try await first.pop(poll: 20_000, queue: 0).isEmpty)
            try await stage.send("b", queue: 1)
            await stage.pass(20_000)
            #expect(try await first.got() == [])
            #expect(try await first.pop(poll: 20_000, queue: 0).isEmpty)
            await stage.pass(4900)
            #expect(try await second.got() == nil)
            await stage.pass(200)
            #expect(try await second.got() == ["b"])
            // One that goes on asking for it keeps it.
            try await second.acknowledge()
            #expect(try await second.pop(poll: 20_000, queue: 1).isEmpty)
            #expect(try await first.pop(poll: 100_000, queue: 1).isEmpty)
            await stage.pass(19_000)
            try await stage.send("c", queue: 1)
            #expect(try await second.got() == ["c"])
            #expect(try await first.got() == nil)
        }
    }

    @Test("a queue that becomes serial with a message in hands goes on when that is acknowledged")
    func becomesSerialInHands() async throws {
        try await withStage("+apus.mode=QUEUE", messages: 2) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop() == ["m0"])
            try await stage.begin(Self.serial, queues: 1, messages: 0)
            #expect(try await second.pop(poll: 60_000).isEmpty)
            try await first.acknowledge()
            #expect(try await second.got() == ["m1"])
        }
    }

    @Test("who held queues the topic has no longer gets its share of the others")
    func fewerQueues() async throws {
        let attributes = "+apus.mode=QUEUE,+apus.shard=true,+apus.timeout=8"
        try await withStage(attributes, queues: 4) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            for queue in 0..<4 { try await stage.send("m\(queue)", queue: Int32(queue)) }
            for queue in 0..<4 {
                let consumer = queue < 2 ? first : second
                #expect(try await consumer.pop(queue: Int32(queue)) == ["m\(queue)"])
            }
            for consumer in [first, second] { for _ in 0..<2 { try await consumer.acknowledge() } }
            try await stage.begin(attributes, queues: 2, messages: 0)
            #expect(try await stage.leases.isEmpty)
            for consumer in [first, second] { #expect(try await consumer.pop(poll: 60_000, count: 32).isEmpty) }
            for queue in 0..<2 { try await stage.send("n\(queue)", queue: Int32(queue)) }
            #expect(try await first.got() == ["n0"])
            #expect(try await second.got() == ["n1"])
        }
    }

    @Test("pops that wait when a topic becomes SERIAL_QUEUE have none of its messages, however many they are")
    func becomesSerial() async throws {
        try await withStage("+apus.mode=QUEUE") { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            for _ in 0..<300 {
                _ = try await first.client.post(.popMessage, Person.popFields(poll: 60_000, count: 1, queue: -1))
            }
            try await stage.begin(Self.serial, queues: 1, messages: 3)
            await stage.pass(100)
            let answers = try await first.client.takeAnswers().values
            #expect(answers.count == 300 && answers.allSatisfy { $0.code != 0 })
            #expect(try await second.pop() == ["m0"])
            #expect(try await first.pop().isEmpty)
        }
    }

    @Test("an answer that nothing was written of gives its messages back at once, uncounted")
    func unseen() async throws {
        try await withStage(Self.serial, messages: 2) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            try await first.client.postAndClose(.popMessage, Person.popFields(poll: 0, count: 1, queue: -1))
            #expect(try await second.pop(poll: 1000) == ["m0"])
            #expect(second.inHand.map(\.reconsumeTimes) == [0])
        }
    }

    @Test("who has lost the queue cannot renew a message whose time is over, but acknowledge it")
    func renewsTooLate() async throws {
        try await withStage(Self.serial, messages: 4) { stage in
            let (first, second) = (try await stage.consumer("first"), try await stage.consumer("second"))
            #expect(try await first.pop(count: 3) == ["m0", "m1", "m2"])
            #expect(try await second.pop(poll: 60_000).isEmpty)
            await stage.pass(8100)
            #expect(try await second.got() == ["m0"])
            #expect(try await first.renew(first.inHand[2], milliseconds: 9000).isEmpty)
            #expect(try await second.renew(second.inHand[0], milliseconds: 9000)["popTime"] != nil)
            #expect(try await stage.leases["lease_T@G"]?.hasPrefix("0 second") == true)
            first.inHand.removeFirst()
            try await first.acknowledge()
            try await second.acknowledge()
            #expect(try await second.pop(count: 3) == ["m2", "m3"])
        }
    }
}
