import FastJSON
import MessageModel
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import Synchronization
import TestTools
import Testing

@testable import RocketMQClient

extension Acknowledger {
    /// Acknowledgements that are not on their way, seen by reflection: only a test asks.
    fileprivate var waitingCount: Int {
        let waiting = Mirror(reflecting: self).children.first { $0.label == "waiting" }?.value as? [String: [Any]]
        return waiting?.values.reduce(0) { $0 + $1.count } ?? 0
    }
}

@Suite("RocketMQClient: a popping consumer against brokers of several kinds")
struct PopConsumerTests {
    @Test("a heartbeat comes before the first pop; what is in hand is bounded, and given back by close")
    func bounds() async throws {
        let serving = try await ServingDouble(.init(messages: (0..<10).map { "\($0)" }))
        let consumer = try await serving.consumer { $0.heldMax = 3 }
        let messages = try await serving.take(3, of: consumer)
        #expect(messages.map(\.text) == ["0", "1", "2"] && messages.map(\.attempt) == [1, 1, 1])
        #expect(serving.seen.heartbeats >= 1)
        // Time passes, in which more could be popped.
        try await Task.sleep(for: .milliseconds(100))
        #expect(serving.seen.handedOut == 3)
        let first = try #require(serving.seen.pops.first)
        #expect(first["maxMsgNums"] == "1" && first["invisibleTime"] == "60000" && first["order"] == "false")
        #expect(try await messages[1].acknowledge())
        #expect(try await serving.take(1, of: consumer).map(\.text) == ["3"])
        #expect(serving.seen.acknowledged == [1])
        await consumer.close()
        #expect(Set(serving.seen.changes.map(\.offset)) == [0, 2, 3])
        #expect(serving.seen.changes.allSatisfy { $0.time == 0 } && serving.seen.left == ["g"])
        #expect(try await consumer.next() == nil)
        #expect(try await !messages[0].acknowledge())
        try await serving.close()
    }

    @Test("acknowledgements that come while one is on its way travel together", arguments: [true, false])
    func batches(knowsBatches: Bool) async throws {
        var script = BrokerDouble.Script(messages: (0..<8).map { "\($0)" }, knowsBatches: knowsBatches)
        script.holdsAcknowledgements = true
        let serving = try await ServingDouble(script)
        let consumer = try await serving.consumer()
        let messages = try await serving.take(8, of: consumer)
        try await withThrowingTaskGroup(of: Bool.self) { tasks in
            tasks.addTask { try await messages[0].acknowledge() }
            try await eventually("the first is on its way") { serving.seen.acknowledged == [0] }
            for message in messages.dropFirst() { tasks.addTask { try await message.acknowledge() } }
            try await eventually("the others wait") { await consumer.acknowledger.waitingCount == 7 }
            try await serving.loop.submit { serving.double.answerHeld() }.get()
            for try await isDone in tasks { #expect(isDone) }
        }
        #expect(serving.seen.acknowledged.sorted() == Array(0..<8))
        #expect(serving.seen.batches == (knowsBatches ? [7] : []))
        await consumer.close()
        #expect(serving.seen.changes.isEmpty)
        try await serving.close()
    }

    @Test("a message that failed: by the topic's strategy where the broker knows one, else by RocketMQ's pauses")
    func failing() async throws {
        // Refused by a broker without strategies: another request says when it comes again.
        let old = try await ServingDouble(.init(messages: ["a", "b"], pauseAfterFailure: nil))
        let first = try await old.consumer()
        for message in try await old.take(2, of: first) { #expect(try await message.fail()) }
        #expect(
            old.seen.changes == [
                .init(offset: 0, time: -1), .init(offset: 0, time: 10_000), .init(offset: 1, time: 10_000),
            ])
        await first.close()
        try await old.close()
        // Taken for a time by Apache: once.
        let apache = try await ServingDouble(.init(messages: ["a", "b"], pauseAfterFailure: -1))
        let second = try await apache.consumer()
        for message in try await apache.take(2, of: second) { #expect(try await message.fail()) }
        #expect(apache.seen.changes == [.init(offset: 0, time: -1), .init(offset: 1, time: 10_000)])
        await second.close()
        try await apache.close()
        let apus = try await ServingDouble(
            .init(messages: ["a", "b", "c", "d"], pauseAfterFailure: 3000, knowsStrategies: true))
        let third = try await apus.consumer()
        let messages = try await apus.take(4, of: third)
        for message in messages.prefix(2) { #expect(try await message.fail()) }
        #expect(try await messages[2].fail(retryAfter: .seconds(5)))
        // At once, and not as one that is given back.
        #expect(try await messages[3].fail(retryAfter: .zero))
        #expect(
            apus.seen.changes == [
                .init(offset: 0, time: -1), .init(offset: 1, time: -1), .init(offset: 2, time: 5000),
                .init(offset: 3, time: 1),
            ])
        await #expect(throws: RocketMQClientError.self) { try await messages[0].fail(retryAfter: .seconds(-1)) }
        await third.close()
        try await apus.close()
    }

    @Test("how long a message stays here: as the options say, else as the topic does, else a minute")
    func timeouts() async throws {
        func asked(_ attributes: [String: String]?, _ timeout: Duration?) async throws -> String? {
            let serving = try await ServingDouble(.init(messages: ["a"], attributes: attributes))
            let consumer = try await serving.consumer { $0.timeout = timeout }
            _ = try await serving.take(1, of: consumer)
            await consumer.close()
            try await serving.close()
            return serving.seen.pops.first?["invisibleTime"]
        }
        #expect(try await asked(["apus.timeout": "7"], nil) == "7000")
        #expect(try await asked(["apus.timeout": "7"], .seconds(9)) == "9000")
        #expect(try await asked([:], nil) == "60000")
        // RocketMQ 4 does not know the question.
        #expect(try await asked(nil, nil) == "60000")
    }

    @Test("what waits is renewed while others are handed out, then given back; what was handed out has its time")
    func renewals() async throws {
        // A time in which every step comes in time.
        let serving = try await ServingDouble(.init(messages: ["a", "b"], invisibleTime: 2000))
        let consumer = try await serving.consumer()
        let taken = try await serving.take(1, of: consumer)
        try await eventually("the one that waits is renewed") {
            serving.seen.changes.contains(.init(offset: 1, time: 2000))
        }
        try await eventually("none was taken for its time") { serving.seen.changes.contains(.init(offset: 1, time: 0)) }
        #expect(serving.seen.changes.allSatisfy { $0.offset == 1 })
        try await eventually("the other's time is over") { await consumer.heldCount == 0 }
        #expect(try await !taken[0].acknowledge())
        #expect(serving.seen.acknowledged.isEmpty)
        // Nothing is asked for while none waits for it.
        serving.change { $0.messages = ["c"] }
        let pops = serving.seen.pops.count
        // Time passes, in which it could be.
        try await Task.sleep(for: .milliseconds(200))
        #expect(serving.seen.pops.count == pops && serving.seen.handedOut == 2)
        #expect(try await serving.take(1, of: consumer).map(\.text) == ["c"])
        await consumer.close()
        try await serving.close()
    }

    @Test("a broker that is busy is asked again; one that does not pop ends the consumer in words")
    func refusals() async throws {
        let busy = try await ServingDouble(.init(messages: ["a"], refusals: [.pollingFull, .systemError]))
        let first = try await busy.consumer()
        #expect(try await busy.take(1, of: first).map(\.text) == ["a"])
        await first.close()
        try await busy.close()
        let other = try await ServingDouble(.init(refusals: [.requestCodeNotSupported]))
        let second = try await other.consumer()
        let error = await #expect(throws: RocketMQClientError.self) { try await second.next() }
        #expect(
            error?.description.contains("is of RocketMQ 4. Consume by queues") == true, "\(String(describing: error))")
        await second.close()
        try await other.close()
    }

    @Test("a subscriber takes the topic's mode, and refuses another")
    func modes() async throws {
        let serving = try await ServingDouble(
            .init(messages: ["a", "b"], attributes: ["apus.mode": "SERIAL_QUEUE"]))
        let subscription = Subscription(topic: "T")
        let serial = Subscriber(serving.settings, subscription, group: "g")
        #expect(try await serial.start() == .serial)
        var texts: [String] = []
        for try await message in serial {
            texts.append(message.text)
            try await message.acknowledge()
            if texts.count == 2 { break }
        }
        #expect(texts == ["a", "b"])
        await serial.close()
        #expect(serving.seen.pops.allSatisfy { $0["order"] == "true" && $0["maxMsgNums"] == "1" })
        let wrong = Subscriber(serving.settings, subscription, mode: .queue, group: "g")
        let error = await #expect(throws: RocketMQClientError.self) { try await wrong.start() }
        #expect(error?.description.contains("has the mode SERIAL_QUEUE, not QUEUE") == true)
        await wrong.close()
        try await serving.close()
    }

    @Test("a handler that ends by its task's cancellation gives its message back; one that throws has failed")
    func handlers() async throws {
        let serving = try await ServingDouble(
            .init(messages: ["bad", "slow"], pauseAfterFailure: 3000, knowsStrategies: true))
        let settings = serving.settings
        let events = Mutex<[String]>([])
        var options = Subscriber.Options()
        options.heldMax = 2
        options.onEvent = { event in
            if case .warning(let text) = event { events.withLock { $0.append(text) } }
        }
        let work = Task { [options] in
            try await Subscriber(settings, Subscription(topic: "T"), mode: .queue, group: "g", options: options)
                .forEach { message in
                    struct Bad: Error {}
                    if message.text == "bad" { throw Bad() }
                    try await Task.sleep(for: .seconds(60))
                }
        }
        try await eventually("one has failed") { serving.seen.changes == [.init(offset: 0, time: -1)] }
        work.cancel()
        try await work.value
        #expect(serving.seen.changes == [.init(offset: 0, time: -1), .init(offset: 1, time: 0)])
        #expect(serving.seen.acknowledged.isEmpty && serving.seen.left == ["g"])
        #expect(events.withLock { $0.contains { $0.contains("not consumed: Bad()") } }, "\(events.withLock { $0 })")
        try await serving.close()
    }
}

extension PopConsumer {
    fileprivate var heldCount: Int { held.count }
}
