import NIOCore
import RemotingProtocol
import Synchronization
import TestTools
import Testing

@testable import RocketMQClient

/// Lines that consumers tell.
private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])

    func add(_ line: String) { lines.withLock { $0.append(line) } }

    func contain(_ text: String) -> Bool { lines.withLock { $0.contains { $0.contains(text) } } }

    var all: [String] { lines.withLock { $0 } }
}

@Suite("RocketMQClient: popping when brokers, clocks and handlers are not as they should be")
struct PopConsumerFaultTests {
    private let subscription = Subscription(topic: "T")

    private func texts(_ count: Int) -> [String] { (0..<count).map { "\($0)" } }

    @Test("pops bear the time; 0 for brokers that need none, when clocks differ; wrong clocks are told")
    func clocks() async throws {
        // A broker of Apache's, by the same clock, and one of Apus whose clock is a minute ahead.
        for script in [
            BrokerDouble.Script(messages: ["a"]),
            BrokerDouble.Script(messages: ["a"], clockAhead: 60_000, takesNoTime: true),
        ] {
            let serving = try await ServingDouble(script)
            let consumer = try await serving.consumer()
            #expect(try await serving.take(1, of: consumer).map(\.text) == ["a"])
            await consumer.close()
            try await serving.close()
        }
        let serving = try await ServingDouble(.init(messages: ["a"], clockAhead: 60_000))
        let lines = Lines()
        let consumer = try await serving.consumer({ $0.pollWait = .seconds(1) }, onEvent: lines.add)
        let waiting = Task { try await consumer.next() }
        try await eventually("the clock is suspected") { lines.contain("the clock of this machine may be behind") }
        await consumer.close()
        #expect(try await waiting.value == nil)
        try await serving.close()
    }

    @Test("no more is asked for than is taken: by those that wait, by the pace, by the number wanted")
    func prefetch() async throws {
        let serving = try await ServingDouble(.init(messages: texts(50)))
        let slow = try await serving.consumer()
        _ = try await serving.take(1, of: slow)
        // Time passes, in which more could be popped: one more may be, at this pace.
        try await Task.sleep(for: .milliseconds(200))
        #expect(serving.seen.handedOut <= 2)
        await slow.close()

        let first = serving.seen.handedOut
        let counting = try await serving.consumer { $0.takenMax = 7 }
        for message in try await serving.take(7, of: counting) { #expect(try await message.acknowledge()) }
        // As above.
        try await Task.sleep(for: .milliseconds(200))
        #expect(serving.seen.handedOut == first + 7)
        await counting.close()

        let quick = try await serving.consumer()
        for _ in 0..<30 {
            for message in try await serving.take(1, of: quick) { #expect(try await message.acknowledge()) }
        }
        try await eventually("by this pace more wait here") { serving.seen.handedOut > first + 7 + 30 + 3 }
        await quick.close()
        try await serving.close()
    }

    @Test("a dead letter of an ordered group is no sign of a broker without strategies", arguments: [true, false])
    func deadLetter(isOrdered: Bool) async throws {
        let serving = try await ServingDouble(.init(messages: texts(3), knowsStrategies: true, givesUp: true))
        let consumer = try await serving.consumer { $0.isOrdered = isOrdered }
        for _ in 0..<3 {
            for message in try await serving.take(1, of: consumer) { #expect(try await message.fail(reason: "no")) }
        }
        #expect(serving.seen.changes == (0..<3).map { .init(offset: $0, time: -1) })
        await consumer.close()
        try await serving.close()
    }

    @Test("a sharded topic is popped in order: one message of a queue after the other")
    func shards() async throws {
        let serving = try await ServingDouble(
            .init(messages: texts(6), attributes: ["apus.mode": "QUEUE", "apus.shard": "true"]))
        let seen = Mutex<[String]>([])
        let work = Task { [settings = serving.settings, subscription] in
            try await Subscriber(settings, subscription, group: "g").forEach { message in
                seen.withLock { $0.append(message.text) }
            }
        }
        try await eventually("all came") { seen.withLock { $0.count } == 6 }
        work.cancel()
        try await work.value
        let pops = serving.seen.pops
        #expect(pops.allSatisfy { $0["order"] == "true" && $0["maxMsgNums"] == "1" && $0["attemptId"] != "" })
        // One ID for each pop that was answered.
        #expect(Set(pops.map { $0["attemptId"] }).count == pops.count)
        try await serving.close()
    }

    @Test("while a broker is away, the end of a consumer waits as long as it says, whatever is in hand")
    func endWithoutBroker() async throws {
        struct Bad: Error {}
        let serving = try await ServingDouble(.init(messages: texts(8), invisibleTime: 3_600_000))
        let lines = Lines()
        let begun = Mutex(0)
        var options = Subscriber.Options()
        options.heldMax = 4
        options.closeTimeout = .milliseconds(200)
        options.onEvent = { lines.add("\($0)") }
        let work = Task { [options, settings = serving.settings, subscription] in
            try await Subscriber(settings, subscription, mode: .queue, group: "g", options: options).forEach {
                message in
                let number = begun.withLock { number in
                    number += 1
                    return number
                }
                while !Task.isCancelled { await Pause.whatever(.milliseconds(5)) }
                switch number {
                case 1: throw Bad()
                case 2: return
                default: throw CancellationError()
                }
            }
        }
        try await eventually("four are in hand") { begun.withLock { $0 } == 4 }
        try await serving.close()
        let began = ContinuousClock.now
        work.cancel()
        try await work.value
        // Their time is an hour.
        #expect(began.duration(to: .now) < .seconds(60))
        #expect(lines.contain("comes again"), "\(lines.all)")
    }

    @Test("a pause is one in a cancelled task, too")
    func pauses() async {
        let began = ContinuousClock.now
        let task = Task { await Pause.whatever(.milliseconds(100)) }
        task.cancel()
        await task.value
        #expect(began.duration(to: .now) >= .milliseconds(100))
    }

    @Test("nothing more is asked for when the handlers' task is cancelled, though they take their time to end")
    func cancelledHandlers() async throws {
        let serving = try await ServingDouble(.init(messages: texts(12)))
        let mayEnd = Mutex(false)
        let begun = Mutex(0)
        let work = Task { [settings = serving.settings, subscription] in
            var options = Subscriber.Options()
            options.heldMax = 6
            try await Subscriber(settings, subscription, mode: .queue, group: "g", options: options).forEach {
                message in
                if begun.withLock({ begun in
                    begun += 1
                    return begun
                }) < 6 {
                    return
                }
                // Not by the task's cancellation.
                while !mayEnd.withLock({ $0 }) { await Pause.whatever(.milliseconds(5)) }
            }
        }
        try await eventually("handlers hang") { serving.seen.handedOut >= 11 && begun.withLock { $0 } >= 6 }
        work.cancel()
        // Time passes, in which more could be popped.
        try await Task.sleep(for: .milliseconds(200))
        serving.change { $0.messages += ["late"] }
        try await Task.sleep(for: .milliseconds(200))
        #expect(serving.seen.messages.last == "late" && serving.seen.acknowledged.count < 12)
        mayEnd.withLock { $0 = true }
        try await work.value
        #expect(serving.seen.acknowledged.count + serving.seen.changes.count == serving.seen.handedOut)
        try await serving.close()
    }

    @Test("a broker that cannot be reached keeps no consumer from the others", arguments: DeliveryMode.allCases)
    func unreachable(mode: DeliveryMode) async throws {
        let serving = try await ServingDouble(
            .init(messages: ["a"], others: ["broker-b": "127.0.0.1:1"], pullable: [0: [.init(text: "0", stored: 1)]]))
        let lines = Lines()
        if mode == .serial {
            // Its one queue is the one of a broker: nothing else can be had.
            serving.change { $0.others = [:] }
        }
        var options = Subscriber.Options()
        options.onEvent = { lines.add("\($0)") }
        options.closeTimeout = .milliseconds(200)
        let subscriber = Subscriber(serving.settings, subscription, mode: mode, group: "g", options: options)
        #expect(try await subscriber.start() == mode)
        serving.change { $0.pullable[0]?.append(.init(text: "a", stored: 2)) }
        for try await message in subscriber {
            #expect(message.text == "a")
            try await message.acknowledge()
            break
        }
        #expect(mode == .serial || lines.contain("127.0.0.1:1"), "\(lines.all)")
        await subscriber.close()
        try await serving.close()
    }

    @Test("none that can be reached: the subscriber says so")
    func allUnreachable() async throws {
        let serving = try await ServingDouble(.init(movedTo: "127.0.0.1:1"))
        for mode in [DeliveryMode.queue, .topic] {
            let subscriber = Subscriber(serving.settings, subscription, mode: mode, group: "g")
            let error = await #expect(throws: RocketMQClientError.self) { try await subscriber.start() }
            guard case .connectionFailed? = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            await subscriber.close()
        }
        try await serving.close()
    }

    @Test("mode topic: a queue that is seen later is delivered from the start of the subscriber on; memory has bounds")
    func lateQueue() async throws {
        let serving = try await ServingDouble(.init())
        let now = WallClock.milliseconds
        var settings = serving.settings
        settings.routeLifetime = .milliseconds(50)
        var options = PushConsumer.Options()
        options.model = .broadcasting
        options.order = .concurrent(1)
        options.start = .last
        options.rebalanceInterval = .milliseconds(50)
        options.takeOverPause = .zero
        options.closeTimeout = .milliseconds(200)
        let lines = Lines()
        let consumer = try PushConsumer(settings, group: "g", subscriptions: [subscription], options: options) {
            messages in
            for message in messages { lines.add(message.text) }
            return .success
        }
        try await consumer.start()
        // Sent before the consumer was started, and since, to a queue it does not know yet.
        serving.change { script in
            script.pullable[1] = [
                .init(text: "old", stored: now - 60_000), .init(text: "new", stored: now + 3_600_000),
            ]
            script.queues = 2
        }
        try await eventually("the message of the new queue came") { !lines.all.isEmpty }
        #expect(lines.all == ["new"])
        #expect(
            serving.seen.searches[1].map { now - 5000...now + 600_000 ~= $0 } == true && serving.seen.searches[0] == nil
        )
        await consumer.close()

        var few = Subscriber.Options()
        few.heldMax = 2
        let subscriber = Subscriber(serving.settings, subscription, mode: .topic, group: "g", options: few)
        let before = serving.seen.pulls.count
        try await subscriber.start()
        try await eventually("it pulls") { serving.seen.pulls.count > before }
        #expect(serving.seen.pulls.last?["maxMsgNums"] == "2")
        await subscriber.close()
        try await serving.close()
    }

    @Test("a name server that knows nothing takes no route away: others are asked, and the last one is kept")
    func nameServers() async throws {
        let (first, second) = (try await ServingDouble(.init(knowsTopic: false)), try await ServingDouble(.init()))
        var settings = ClientSettings(nameServers: first.address + ";" + second.address)
        settings.routeLifetime = .zero
        let connections = try ServerConnections(settings)
        #expect(try await connections.route(of: "T")?.readable.count == 1)
        second.change { $0.knowsTopic = false }
        for _ in 0..<3 { #expect(try await connections.route(of: "T")?.readable.count == 1) }
        #expect(try await connections.route(of: "U") == nil)
        await connections.close()
        settings.missingRouteLifetime = .zero
        second.change { $0.knowsTopic = true }
        let forgetful = try ServerConnections(settings)
        #expect(try await forgetful.route(of: "T") != nil)
        second.change { $0.knowsTopic = false }
        #expect(try await forgetful.route(of: "T") == nil)
        await forgetful.close()
        try await first.close()
        try await second.close()
    }

    @Test("a broker that comes back at another address is found at once")
    func moved() async throws {
        let (old, new) = (try await ServingDouble(.init(messages: texts(2))), try await ServingDouble(.init()))
        let names = try await ServingDouble(.init(movedTo: old.address))
        let consumer = try PopConsumer(names.settings, group: "g", subscriptions: [subscription])
        try await consumer.start()
        let messages = try await old.take(2, of: consumer)
        try await old.close()
        let address = new.address
        names.change { $0.movedTo = address }
        // Routes are asked for every 30 s otherwise.
        let began = ContinuousClock.now
        #expect(try await messages[0].acknowledge())
        #expect(try await messages[1].renew())
        #expect(began.duration(to: .now) < .seconds(20))
        #expect(new.seen.acknowledged == [0] && new.seen.changes == [.init(offset: 1, time: 60_000)])
        await consumer.close()
        try await new.close()
        try await names.close()
    }

    @Test("a handler that takes long: its message is renewed; what is too long is told", arguments: [true, false])
    func longHandlers(isRenewed: Bool) async throws {
        let serving = try await ServingDouble(.init(messages: ["a"], invisibleTime: 3000))
        let lines = Lines()
        var options = Subscriber.Options()
        if !isRenewed { options.renewsUpTo = .zero }
        options.onEvent = { lines.add("\($0)") }
        let subscriber = Subscriber(serving.settings, subscription, mode: .queue, group: "g", options: options)
        let isDone = Mutex(false)
        let work = Task {
            try await subscriber.forEach { _ in
                // Time passes, more than the message has.
                await Pause.whatever(.milliseconds(4500))
                isDone.withLock { $0 = true }
            }
        }
        try await eventually("the handler has ended") { isDone.withLock { $0 } }
        try await eventually("its end is noted") {
            isRenewed ? serving.seen.acknowledged == [0] : lines.contain("was consumed when its time was over")
        }
        #expect(serving.seen.changes.isEmpty == !isRenewed)
        #expect(lines.contain("takes longer than the message stays here") == !isRenewed, "\(lines.all)")
        work.cancel()
        try await work.value
        try await serving.close()
    }

    @Test("a broker of RocketMQ 4 among others is told of, and ends nothing; modes cannot be made there")
    func oldBroker() async throws {
        let old = try await ServingDouble(.init(attributes: nil, knowsPops: false))
        let serving = try await ServingDouble(.init(messages: ["a"], others: ["broker-b": old.address]))
        let lines = Lines()
        let consumer = try await serving.consumer(onEvent: lines.add)
        #expect(try await serving.take(1, of: consumer).map(\.text) == ["a"])
        let waiting = Task { try await consumer.next() }
        try await eventually("it is told") { lines.contain("broker-b") && lines.contain("is of RocketMQ 4") }
        serving.change { $0.messages = ["b"] }
        #expect(try await waiting.value?.text == "b")
        await consumer.close()
        let admin = try AdminClient(old.settings)
        let error = await #expect(throws: RocketMQClientError.self) {
            try await admin.createTopic("T", mode: .serial, at: .address(old.address))
        }
        #expect(error?.description.contains("does not keep apus.mode") == true, "\(String(describing: error))")
        await admin.close()
        try await serving.close()
        try await old.close()
    }

    @Test("close waits for a message a loop works on, and gives it back when that takes too long")
    func closeWaits() async throws {
        let serving = try await ServingDouble(.init(messages: texts(2)))
        let patient = try await serving.consumer { $0.closeTimeout = .seconds(60) }
        let messages = try await serving.take(1, of: patient)
        let closing = Task { await patient.close() }
        try await eventually("it closes") { await patient.isClosing }
        // Time passes, in which it could be given back.
        try await Task.sleep(for: .milliseconds(100))
        #expect(serving.seen.changes.allSatisfy { $0.offset != 0 })
        #expect(try await messages[0].acknowledge())
        await closing.value
        #expect(serving.seen.acknowledged == [0])
        try await serving.close()
        // Not started when it was closed: it does not begin to work then.
        let early = try PopConsumer(serving.settings, group: "g", subscriptions: [subscription])
        await early.close()
        await #expect(throws: RocketMQClientError.self) { try await early.start() }
    }

    @Test("an idle broker does not take the room from a busy one")
    func idleBroker() async throws {
        let idle = try await ServingDouble(.init())
        let serving = try await ServingDouble(.init(messages: texts(64), others: ["broker-b": idle.address]))
        let seen = Mutex(0)
        let work = Task { [settings = serving.settings, subscription] in
            try await Subscriber(settings, subscription, mode: .queue, group: "g").forEach { _ in
                seen.withLock { $0 += 1 }
                await Pause.whatever(.milliseconds(5))
            }
        }
        try await eventually("all came") { seen.withLock { $0 } == 64 }
        work.cancel()
        try await work.value
        let pops = serving.seen.pops
        #expect(pops.contains { (Int($0["maxMsgNums"] ?? "") ?? 0) > 4 }, "\(pops)")
        // Only those that are answered at once.
        #expect(pops.allSatisfy { $0["maxMsgNums"] == "1" || $0["pollTime"] == "0" })
        #expect(idle.seen.pops.allSatisfy { $0["maxMsgNums"] == "1" })
        try await serving.close()
        try await idle.close()
    }
}
