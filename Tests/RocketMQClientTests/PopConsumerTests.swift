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

/// A name server and a broker with one topic, which answer as a broker of some version would.
private final class BrokerDouble: RemotingService, Sendable {
    struct Script: Sendable {
        /// Messages of the one queue that were not handed out yet.
        var messages: [String] = []
        var handedOut = 0
        /// Of the topic; nil: the request is not known.
        var attributes: [String: String]? = [:]
        var knowsBatches = true
        /// How a change to -1 is answered: as a time, as Apache does; refused; or by a pause.
        var pauseAfterFailure: Int64? = -1
        /// Pops refused before the first that is answered.
        var refusals: [ResponseCode] = []
        var invisibleTime: Int64?
        var heartbeats = 0
        var pops: [[String: String]] = []
        var acknowledged: [Int64] = []
        var batches: [Int] = []
        var changes: [Change] = []
        /// Acknowledgements wait for their answer.
        var holdsAcknowledgements = false
        var left: [String] = []
    }

    struct Change: Sendable, Equatable {
        let offset: Int64
        let time: Int64
    }

    let script: Mutex<Script>
    let address = Mutex("")
    private let held = Mutex<[@Sendable () -> Void]>([])

    init(_ script: Script) { self.script = Mutex(script) }

    func connectionOpened(_ connection: RemotingConnection) {}
    func connectionClosed(_ connection: RemotingConnection) {}

    func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        let fields = frame.extFields
        func text(_ name: StaticString) -> String { fields.string(name) ?? "" }
        let to = frame.returnAddress
        switch RequestCode(rawValue: frame.code) {
        case .getRouteInfoByTopic:
            let route = TopicRouteData(
                queueDatas: [
                    QueueData(
                        brokerName: "broker-a", readQueueNums: 1, writeQueueNums: 1, perm: 6, topicSysFlag: 0)
                ],
                brokerDatas: [
                    BrokerData(cluster: "c", brokerName: "broker-a", brokerAddrs: [0: address.withLock { $0 }])
                ])
            connection.respond(to: to, .success, body: route.encoded())
        case .heartBeat:
            script.withLock { $0.heartbeats += 1 }
            connection.respond(to: to, .success)
        case .unregisterClient:
            script.withLock { $0.left.append(text("consumerGroup")) }
            connection.respond(to: to, .success)
        case .getTopicConfig:
            guard let attributes = script.withLock({ $0.attributes }) else {
                return connection.respondNotSupported(to: frame)
            }
            let config = TopicConfig(topicName: "T", readQueueNums: 1, writeQueueNums: 1, attributes: attributes)
            connection.respond(to: to, .success, body: config.encoded())
        case .popMessage: pop(frame, connection)
        case .ackMessage:
            let offset = Int64(text("offset")) ?? -1
            answerAcknowledgement(connection, to, [offset])
        case .batchAckMessage:
            guard script.withLock({ $0.knowsBatches }) else { return connection.respondNotSupported(to: frame) }
            guard let body = try? BatchAckBody(frame.body) else { return connection.respond(to: to, .systemError) }
            var offsets: [Int64] = []
            for entry in body.entries {
                for (index, byte) in entry.bits.enumerated() {
                    for bit in 0..<8 where byte & (1 << UInt8(bit)) != 0 {
                        offsets.append(entry.startOffset + Int64(index * 8 + bit))
                    }
                }
            }
            script.withLock { [offsets] in $0.batches.append(offsets.count) }
            answerAcknowledgement(connection, to, offsets)
        case .changeMessageInvisibleTime:
            let time = Int64(text("invisibleTime")) ?? 0
            let pause = script.withLock { script -> Int64? in
                script.changes.append(Change(offset: Int64(text("offset")) ?? -1, time: time))
                return time == -1 ? script.pauseAfterFailure : time
            }
            guard let pause else { return connection.respond(to: to, .invalidParameter) }
            connection.respond(
                to: to, .success,
                fields: [("popTime", "2000"), ("invisibleTime", String(pause)), ("reviveQid", "0")])
        default: connection.respondNotSupported(to: frame)
        }
    }

    private func pop(_ frame: RemotingFrame, _ connection: RemotingConnection) {
        let fields = frame.extFields
        let most = Int(fields.string("maxMsgNums") ?? "") ?? 0
        let asked = fields.string("invisibleTime") ?? ""
        let order = fields.string("order") ?? ""
        let found = script.withLock { script -> (code: ResponseCode, first: Int, texts: [String], time: String) in
            script.pops.append(["maxMsgNums": String(most), "invisibleTime": asked, "order": order])
            if !script.refusals.isEmpty { return (script.refusals.removeFirst(), 0, [], "") }
            let texts = Array(script.messages.prefix(most))
            let first = script.handedOut
            script.messages.removeFirst(texts.count)
            script.handedOut += texts.count
            return (
                texts.isEmpty ? .pollingTimeout : .success, first, texts,
                script.invisibleTime.map { String($0) } ?? asked
            )
        }
        let body = found.texts.enumerated().flatMap { index, text in
            TestRecord.bytes(offset: Int64(found.first + index), body: text)
        }
        connection.respond(
            to: frame.returnAddress, found.code,
            fields: [
                ("popTime", "1000"), ("invisibleTime", found.time), ("reviveQid", "0"), ("restNum", "0"),
                ("startOffsetInfo", found.texts.isEmpty ? "" : "0 0 \(found.first)"),
            ], body: body)
    }

    private func answerAcknowledgement(_ connection: RemotingConnection, _ to: ReturnAddress, _ offsets: [Int64]) {
        let holds = script.withLock { script in
            script.acknowledged += offsets
            return script.holdsAcknowledgements
        }
        let answer = NIOLoopBound((connection, to), eventLoop: connection.eventLoop)
        let respond: @Sendable () -> Void = {
            answer.value.0.respond(to: answer.value.1, .success)
        }
        if holds { held.withLock { $0.append(respond) } } else { respond() }
    }

    /// Answers the acknowledgements that wait, and later ones at once. On the event loop.
    func answerHeld() {
        script.withLock { $0.holdsAcknowledgements = false }
        let waiting = held.withLock { held in
            defer { held = [] }
            return held
        }
        for respond in waiting { respond() }
    }
}

/// A broker double that serves, on a loop of the process.
private struct ServingDouble {
    let double: BrokerDouble
    let loop: any EventLoop
    let server: NIOLoopBound<RemotingServer>
    let settings: ClientSettings

    init(_ script: BrokerDouble.Script) async throws {
        let double = BrokerDouble(script)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let server = try await loop.submit {
            NIOLoopBound(
                RemotingServer(eventLoop: loop, service: double, logger: LogBook().logger, endOfTick: {}),
                eventLoop: loop)
        }.get()
        let port = try await loop.flatSubmit {
            server.value.bind(host: "127.0.0.1", port: 0).map { server.value.localAddresses.first?.port ?? 0 }
        }.get()
        double.address.withLock { $0 = "127.0.0.1:\(port)" }
        self.double = double
        self.loop = loop
        self.server = server
        settings = ClientSettings(nameServers: "127.0.0.1:\(port)")
    }

    var seen: BrokerDouble.Script { double.script.withLock { $0 } }

    func close() async throws { try await loop.flatSubmit { server.value.close() }.get() }

    func consumer(_ change: (inout PopConsumer.Options) -> Void = { _ in }) async throws -> PopConsumer {
        var options = PopConsumer.Options()
        options.pollWait = .milliseconds(10)
        change(&options)
        let consumer = try PopConsumer(
            settings, group: "g", subscriptions: [Subscription(topic: "T")], options: options)
        try await consumer.start()
        return consumer
    }

    func take(_ count: Int, of consumer: PopConsumer) async throws -> [DeliveredMessage] {
        var messages: [DeliveredMessage] = []
        while messages.count < count, let message = try await consumer.next() { messages.append(message) }
        return messages
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
        #expect(serving.seen.pops.first == ["maxMsgNums": "3", "invisibleTime": "60000", "order": "false"])
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
            // Time passes until all of them wait in the consumer.
            try await Task.sleep(for: .milliseconds(100))
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
        let apus = try await ServingDouble(.init(messages: ["a", "b", "c"], pauseAfterFailure: 3000))
        let third = try await apus.consumer()
        let messages = try await apus.take(3, of: third)
        for message in messages.prefix(2) { #expect(try await message.fail()) }
        #expect(try await messages[2].fail(retryAfter: .seconds(5)))
        #expect(
            apus.seen.changes == [
                .init(offset: 0, time: -1), .init(offset: 1, time: -1), .init(offset: 2, time: 5000),
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

    @Test("what waits to be handed out is renewed; what was handed out is not, and its time passes")
    func renewals() async throws {
        let serving = try await ServingDouble(.init(messages: ["a", "b"], invisibleTime: 800))
        let consumer = try await serving.consumer()
        let taken = try await serving.take(1, of: consumer)
        try await eventually("the one that waits is renewed twice") {
            serving.seen.changes.count { $0 == .init(offset: 1, time: 800) } >= 2
        }
        #expect(serving.seen.changes.allSatisfy { $0.offset == 1 })
        try await eventually("the other's time is over") { await consumer.heldCount == 1 }
        #expect(try await !taken[0].acknowledge())
        #expect(serving.seen.acknowledged.isEmpty)
        #expect(try await serving.take(1, of: consumer).map(\.text) == ["b"])
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
        #expect(error?.responseCode == 3)
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
        let serving = try await ServingDouble(.init(messages: ["bad", "slow"], pauseAfterFailure: 3000))
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
