import FastJSON
import Foundation
import NIOCore
import NIOEmbedded
import RemotingProtocol
import TestFolders
import TestTools
import Testing

@testable import BrokerService

/// A broker with a topic of one mode, consumers that come, go, die and stand still, all in simulated time and played by
/// chance; and what should be so, which shares no code with the broker.
final class ModesWorld {
    enum Kind: String, CaseIterable {
        case queue
        case serial
        case shards

        var attributes: String {
            switch self {
            case .queue: "+apus.mode=QUEUE"
            case .serial: "+apus.mode=SERIAL_QUEUE"
            case .shards: "+apus.mode=QUEUE,+apus.shard=true"
            }
        }
        var queues: Int { self == .serial ? 1 : 3 }
        var isOrdered: Bool { self != .queue }
    }

    /// A consumer's process.
    struct Consumer {
        let name: String
        let client: SimulatedClient
        /// The number of its pop that waits, and its poll time.
        var pending: (number: Int32, poll: Int64)?
        /// It does nothing until then, steady milliseconds.
        var standsStillUntil: Int64 = 0
        /// When the broker heard of it last (an answer is nothing it hears), steady milliseconds, and for how long it
        /// must believe it is there.
        var heard: Int64 = 0
        var patience: Int64 = 5000
        /// Its last heartbeat, steady milliseconds.
        var beatAt: Int64
        var inHand: [Delivery] = []
    }

    struct Delivery {
        let body: String
        let queue: Int32
        let offset: Int64
        var handle: String
        let attempt: Int32
        let consumer: String
        /// When another consumer may have it, steady milliseconds.
        var until: Int64
    }

    /// A message as it should be.
    struct Message {
        let queue: Int32
        let offset: Int64
        /// What it says now; its name and, once edited, a number.
        var text: String
        var deliveries = 0
        /// With a consumer; nil after it has failed or its time was over.
        var last: Delivery?
        var isFinished = false
        /// Its consumer has reported a failure: it comes again not before, steady milliseconds.
        var notBefore: Int64 = 0
        /// And can be had from then on.
        var readyAt: Int64 = 0
    }

    static let topic = "Modes"
    static let group = "G"
    static let retryCount = 6
    static let timeout: Int64 = 8000
    static let interval: Int64 = 2000
    /// Small files: a kill copies them.
    static let settings = [("mappedFileSizeCommitLog", "1048576"), ("mappedFileSizeConsumeQueue", "20000")]
    /// Time passes in parts of at most so many milliseconds.
    static let part: Int64 = 400

    let kind: Kind
    /// When what failed comes again.
    let strategy: String
    let jitterPercent: Int64
    let clock = SimulatedClock()
    /// Another one after each kill.
    private var folder: URL
    var random: RetryJitter
    var broker: SimulatedBroker
    var consumers: [Consumer] = []
    var producer: SimulatedClient
    var sent = 0
    var faults: [String] = []
    var made = 0
    /// By what they said at first, their names.
    var messages: [String: Message] = [:]
    /// By queue and offset.
    var bodies: [Int32: [Int64: String]] = [:]
    /// Since when something may have been handed out that is collected now, steady milliseconds.
    var began: Int64 = 0
    var hasJumped = false
    var lettersRead: Int64 = 0
    /// Who got the last messages of a queue, and whether it may lose the queue for another reason than silence.
    var holders: [Int32: (name: String, mayLose: Bool)] = [:]
    var takeovers = 0
    /// Since when a queue has something to be had while a consumer waits, steady milliseconds.
    private var stuckSince: [Int32: Int64] = [:]
    /// After a jump of the wall clock and a restart claims last at most as long as they were given out for.
    private var promptFrom: Int64 = 0
    var again = 0
    private var edits = 0

    init(_ kind: Kind, seed: UInt64) async throws {
        self.kind = kind
        random = RetryJitter(seed: seed)
        strategy = ["fixed", "linear", "exponential"].randomElement(using: &random) ?? "fixed"
        jitterPercent = [0, 0, 20, 50].randomElement(using: &random) ?? 0
        folder = try TestFolder.make("modes")
        broker = try await SimulatedBroker(Self.settings, folder: folder, clock: clock)
        producer = try await broker.connect()
        try await takeChances()
        let answer = try await producer.invoke(
            .updateAndCreateTopic,
            [
                "topic": Self.topic, "defaultTopic": "TBW102", "readQueueNums": String(kind.queues),
                "writeQueueNums": String(kind.queues), "perm": "6", "topicFilterType": "SINGLE_TAG",
                "topicSysFlag": "0", "order": "false",
                "attributes": kind.attributes + ",+apus.timeout=\(Self.timeout / 1000)"
                    + ",+apus.retry.count=\(Self.retryCount),+apus.retry.interval=\(Self.interval / 1000)"
                    + ",+apus.retry.strategy=\(strategy),+apus.retry.jitter=\(jitterPercent)",
            ])
        expect(answer.code == 0, "the topic is not made: \(answer.remark ?? "")")
        try await hire()
        try await hire()
    }

    /// What the broker leaves to chance comes from the seed, too.
    private func takeChances() async throws {
        let ring = Int32.random(in: 0..<1024, using: &random)
        let seed = UInt64.random(in: .min ... .max, using: &random)
        try await broker.onLoop { broker in
            broker.processors.pop.ring = ring
            broker.processors.popped.jitter = RetryJitter(seed: seed)
        }
    }

    func expect(_ truth: Bool, _ text: @autoclosure () -> String) {
        if !truth { faults.append("\(clock.steady - SimulatedClock.start) ms: \(text())") }
    }

    /// What has happened of late, for a report.
    private(set) var recent: [String] = []

    func note(_ text: String) {
        recent.append("  \(clock.steady - SimulatedClock.start) ms: \(text)")
        if recent.count > 60 { recent.removeFirst(20) }
    }

    // MARK: - What happens

    /// Ends its broker whatever comes: what that left unanswered would end the test's process.
    func play(steps: Int) async throws {
        do {
            try await act(steps)
        } catch {
            try? await end()
            throw error
        }
        try await end()
        try FileManager.default.removeItem(at: folder)
    }

    private func act(_ steps: Int) async throws {
        for _ in 0..<steps where faults.isEmpty {
            switch Int.random(in: 0..<100, using: &random) {
            case ..<19: try await send()
            case ..<22: try await edit()
            case ..<50: try await work()
            case ..<78: try await pass(Int64.random(in: 1...1500, using: &random))
            case ..<82: standStill()
            case ..<85: try await pass(Int64.random(in: 5000...12_000, using: &random))
            case ..<88: try await jump()
            case ..<93: if consumers.count < 5 { try await hire() }
            case ..<97: try await fire()
            case ..<99: try await leave()
            default: try await restart()
            }
            try await collect()
        }
        if faults.isEmpty { try await finish() }
    }

    func jump() async throws {
        note("the wall clock jumps")
        clock.jump(Int64.random(in: -3_000_000...3_000_000, using: &random))
        hasJumped = true
        // A client that seems to be silent for very long is sent away.
        for index in consumers.indices { try await beat(index) }
    }

    func send() async throws {
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            let body = "m\(sent)"
            sent += 1
            let key = kind == .shards ? ["__SHARDINGKEY": "key-\(Int.random(in: 0..<6, using: &random))"] : [:]
            let queue = Int32.random(in: 0..<Int32(kind.queues), using: &random)
            let answer = try await producer.send(Self.topic, queue: queue, body: body, key)
            expect(answer.code == 0, "\(body) is refused: \(answer.remark ?? "")")
            guard let queue = Int32(answer.extFields["queueId"] ?? ""),
                let offset = Int64(answer.extFields["queueOffset"] ?? "")
            else { return }
            note("\(body) to queue \(queue)")
            messages[body] = Message(queue: queue, offset: offset, text: body)
            bodies[queue, default: [:]][offset] = body
        }
    }

    private static func name(_ text: String) -> String { String(text.prefix { $0 != "." }) }

    /// An operator edits a message or deletes it: refused if a client has it.
    func edit() async throws {
        guard let name = messages.keys.sorted().randomElement(using: &random), let message = messages[name] else {
            return
        }
        let isDeletion = Int.random(in: 0..<4, using: &random) == 0
        edits += 1
        let text = "\(name).\(edits)"
        let answer = try await producer.invokeSliced(
            .editMessage,
            [
                "topic": Self.topic, "queueId": String(message.queue), "queueOffset": String(message.offset),
                "operation": isDeletion ? "delete" : "edit", "by": "operator",
            ].merging(isDeletion ? [:] : ["hasBody": "true"]) { $1 }, body: isDeletion ? [] : Array(text.utf8))
        note("\(name) is \(isDeletion ? "deleted" : "edited to \(text)"): \(answer.code) \(answer.remark ?? "")")
        if answer.code == 0 {
            expect(!message.isFinished, "\(name) is edited after its end")
            let holder = message.last.flatMap { $0.until > clock.steady ? $0.consumer : nil }
            expect(holder == nil, "\(name) is edited while \(holder ?? "") has it")
            if isDeletion { messages[name]?.isFinished = true } else { messages[name]?.text = text }
        } else {
            // What has just been handed out is not known yet.
            try await collect()
            expect(
                message.isFinished || messages[name]?.deliveries != 0,
                "\(name), which no client has had, is not edited: \(answer.remark ?? "")")
        }
    }

    func hire() async throws {
        made += 1
        let client = try await broker.connect()
        let name = "consumer-\(made)"
        consumers.append(Consumer(name: name, client: client, beatAt: clock.steady))
        try await beat(consumers.count - 1)
    }

    func beat(_ index: Int) async throws {
        let heartbeat =
            #"{"clientID":""# + consumers[index].name + #"","consumerDataSet":[{"groupName":""# + Self.group
            + #"","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","#
            + #""consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[],"unitMode":false}],"#
            + #""producerDataSet":[]}"#
        consumers[index].beatAt = clock.steady
        let answer = try await consumers[index].client.invoke(.heartBeat, body: Array(heartbeat.utf8))
        expect(answer.code == 0, "no heartbeat: \(answer.remark ?? "")")
    }

    /// kill -9: what it has in hand stays with it until its time is over.
    func fire() async throws {
        try await collect()
        guard let index = consumers.indices.randomElement(using: &random) else { return }
        note("\(consumers[index].name) dies")
        await consumers[index].client.close()
        gone(consumers.remove(at: index).name)
        await broker.loop.run()
    }

    func leave() async throws {
        try await collect()
        let idle = consumers.indices.filter { consumers[$0].pending == nil }
        guard let index = idle.randomElement(using: &random) else { return }
        while !consumers[index].inHand.isEmpty {
            try await collect()
            heard(index)
            try await fail(consumers[index].inHand.removeFirst(), of: consumers[index])
        }
        let consumer = consumers.remove(at: index)
        _ = try await consumer.client.invoke(
            .unregisterClient, ["clientID": consumer.name, "consumerGroup": Self.group])
        note("\(consumer.name) leaves")
        gone(consumer.name)
        await consumer.client.close()
        await broker.loop.run()
    }

    func gone(_ name: String) {
        for (queue, holder) in holders where holder.name == name { holders[queue]?.mayLose = true }
    }

    func standStill() {
        guard let index = consumers.indices.randomElement(using: &random) else { return }
        note("\(consumers[index].name) stands still")
        consumers[index].standsStillUntil = clock.steady + Int64.random(in: 1000...15_000, using: &random)
    }

    func restart() async throws {
        if Bool.random(using: &random) {
            note("the broker stops")
            try await end()
        } else {
            try await kill()
        }
        broker = try await SimulatedBroker(Self.settings, folder: folder, clock: clock)
        producer = try await broker.connect()
        try await takeChances()
        for queue in holders.keys { holders[queue]?.mayLose = true }
        // Across a restart the wall clock decides.
        if hasJumped {
            for body in messages.keys {
                messages[body]?.last = nil
                messages[body]?.notBefore = 0
            }
            // The longest pause: 2 s, doubled five times, and half of it by chance.
            promptFrom = clock.steady + 100_000
            hasJumped = false
        }
        try await hire()
        try await hire()
    }

    /// What a process leaves that is killed: what its files had at that moment. What it hands out afterwards, as its
    /// clients go, has never been.
    private func kill() async throws {
        try await collect()
        note("the broker is killed")
        let copy = try TestFolder.make("modes")
        // Not by a program: between fork and exec it would have the locks of all brokers of this process.
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
            try FileManager.default.copyItem(
                at: folder.appendingPathComponent(name), to: copy.appendingPathComponent(name))
        }
        for consumer in consumers { await consumer.client.close() }
        consumers = []
        try await end()
        try FileManager.default.removeItem(at: folder)
        folder = copy
    }

    /// Its clients' connections end before the broker does, and with it the loop they are on.
    private func end() async throws {
        while let consumer = consumers.last {
            // What the one before has left may be with this one by now.
            try await collect()
            consumers.removeLast()
            gone(consumer.name)
            await consumer.client.close()
        }
        await producer.close()
        await broker.settle()
        try await broker.end(cleanly: true)
        await broker.settle()
    }

    func pass(_ milliseconds: Int64) async throws {
        // In parts: consumers are served meanwhile.
        var left = milliseconds
        while left > 0 {
            let part = min(left, Self.part)
            began = clock.steady
            await broker.loop.advanceTime(by: .milliseconds(part))
            left -= part
            try await collect()
            began = clock.steady
            for index in consumers.indices where clock.steady - consumers[index].beatAt > 20_000 {
                try await beat(index)
            }
        }
    }

    /// Each consumer that does not stand still reports something or pops.
    func work() async throws {
        for index in consumers.indices where consumers[index].standsStillUntil <= clock.steady {
            // What others got since is known first: a report of a delivery that is over changes nothing.
            try await collect()
            if !consumers[index].inHand.isEmpty {
                let delivery = consumers[index].inHand.removeFirst()
                heard(index)
                switch Int.random(in: 0..<100, using: &random) {
                case ..<70: try await acknowledge(delivery, of: consumers[index])
                case ..<85: try await fail(delivery, of: consumers[index])
                case ..<95:
                    if let longer = try await renew(delivery, of: consumers[index]) {
                        consumers[index].inHand.insert(longer, at: 0)
                    }
                // Forgotten: its time runs out.
                default: note("\(consumers[index].name) forgets \(delivery.body)")
                }
                continue
            }
            if consumers[index].pending == nil { try await pop(index) }
        }
    }

    func heard(_ index: Int) { consumers[index].heard = clock.steady }

    func pop(_ index: Int) async throws {
        let poll = Int64.random(in: 0...9000, using: &random)
        let number = try await consumers[index].client.post(
            .popMessage,
            [
                "consumerGroup": Self.group, "topic": Self.topic, "queueId": "-1",
                "maxMsgNums": String(Int.random(in: 1...4, using: &random)), "invisibleTime": "-1",
                "pollTime": String(poll), "bornTime": "0", "initMode": "0",
            ])
        note("\(consumers[index].name) pops for \(poll)")
        consumers[index].pending = (number, poll)
        consumers[index].patience = 5000 + poll
        heard(index)
    }

    // MARK: - What consumers say

    private func fields(_ delivery: Delivery) -> [String: String] {
        [
            "consumerGroup": Self.group, "topic": Self.topic, "queueId": String(delivery.queue),
            "offset": String(delivery.offset), "extraInfo": delivery.handle,
        ]
    }

    /// Whether it is the present delivery of its message, as far as a consumer may know.
    private func isCurrent(_ delivery: Delivery) -> Bool {
        guard let message = messages[delivery.body], !message.isFinished else { return false }
        return message.last?.handle == delivery.handle || message.deliveries == Int(delivery.attempt) + 1
    }

    func acknowledge(_ delivery: Delivery, of consumer: Consumer) async throws {
        note("\(consumer.name) acknowledges \(delivery.body)")
        let answer = try await consumer.client.invoke(.ackMessage, fields(delivery))
        expect(answer.code == 0, "an acknowledgement is refused: \(answer.remark ?? "")")
        guard isCurrent(delivery) else { return }
        messages[delivery.body]?.isFinished = true
        messages[delivery.body]?.last = nil
    }

    func fail(_ delivery: Delivery, of consumer: Consumer) async throws {
        var named = fields(delivery)
        named["invisibleTime"] = "-1"
        named["reason"] = "by chance"
        note("\(consumer.name) fails at \(delivery.body)")
        let answer = try await consumer.client.invoke(.changeMessageInvisibleTime, named)
        expect(answer.code == 0, "a failure is refused: \(answer.remark ?? "")")
        guard isCurrent(delivery) else { return }
        let isOver = Int(delivery.attempt) >= Self.retryCount
        expect((answer.extFields["deadLetter"] == "true") == isOver, "\(delivery.body), \(delivery.attempt + 1) times")
        messages[delivery.body]?.last = nil
        messages[delivery.body]?.isFinished = isOver
        guard !isOver else { return }
        let allowed = delays(after: Int64(delivery.attempt) + 1)
        messages[delivery.body]?.notBefore = clock.steady + allowed.lowerBound
        messages[delivery.body]?.readyAt = clock.steady + allowed.upperBound
        let popTime = Int64(answer.extFields["popTime"] ?? "") ?? .max
        // After a jump pop times may be ahead of the clock, and nothing can be said relative to them.
        guard popTime <= clock.now else { return }
        let pause = popTime + (Int64(answer.extFields["invisibleTime"] ?? "") ?? 0) - clock.now
        expect(allowed.contains(pause), "\(delivery.body) comes again in \(pause), not \(allowed)")
    }

    /// The pauses a message may have that failed after so many deliveries, milliseconds.
    private func delays(after deliveries: Int64) -> ClosedRange<Int64> {
        var delay = Self.interval
        switch strategy {
        case "linear": delay *= deliveries
        case "exponential": for _ in 1..<deliveries { delay = min(delay * 2, 3_600_000) }
        default: break
        }
        let spread = delay * jitterPercent / 100
        return delay - spread...delay + spread
    }

    func renew(_ delivery: Delivery, of consumer: Consumer) async throws -> Delivery? {
        var named = fields(delivery)
        named["invisibleTime"] = "9000"
        note("\(consumer.name) renews \(delivery.body)")
        let answer = try await consumer.client.invoke(.changeMessageInvisibleTime, named)
        guard isCurrent(delivery), let popTime = answer.extFields["popTime"] else { return nil }
        var parts = delivery.handle.split(separator: " ").map(String.init)
        (parts[1], parts[2]) = (popTime, answer.extFields["invisibleTime"] ?? "")
        var longer = delivery
        longer.handle = parts.joined(separator: " ")
        longer.until = clock.steady + 9000
        messages[delivery.body]?.last = longer
        return longer
    }

    // MARK: - What they get

    func collect() async throws {
        defer { began = clock.steady }
        await broker.settle()
        // What ran out of time did so before what is handed out now.
        noteTimeouts()
        for index in consumers.indices {
            for (number, answer) in try await consumers[index].client.takeAnswers()
            where number == consumers[index].pending?.number {
                consumers[index].pending = nil
                guard answer.code == 0 else {
                    note("\(consumers[index].name) gets nothing")
                    continue
                }
                let popped = try PopReply(answer)
                let handedOut = popped.messages.map { message in
                    let name = Self.name(message.body)
                    expect(
                        messages[name]?.text == message.body,
                        "\(name) says \(message.body), and was edited to \(messages[name]?.text ?? "")")
                    return Delivery(
                        body: name, queue: message.queueID, offset: message.offset, handle: message.handle,
                        attempt: message.reconsumeTimes, consumer: consumers[index].name,
                        until: min(began, clock.steady) + Self.timeout)
                }
                note("\(consumers[index].name) gets \(handedOut.map(\.body).joined(separator: " "))")
                try await readDeadLetters()
                judge(handedOut, index)
                consumers[index].inHand += handedOut
                for delivery in handedOut { stuckSince[delivery.queue] = nil }
            }
        }
        noteTimeouts()
        try await judgeWaits()
    }

    /// While a consumer waits nothing that can be had lies about; with one consumer for a queue, not longer than the
    /// one that the broker says has it must be believed to be there.
    private func judgeWaits() async throws {
        let steady = clock.steady
        guard steady >= promptFrom, consumers.contains(where: { $0.pending != nil }) else {
            stuckSince = [:]
            return
        }
        for queue in bodies.keys {
            guard canBeHad(queue) else {
                stuckSince[queue] = nil
                continue
            }
            let since = stuckSince[queue] ?? steady
            stuckSince[queue] = since
            guard steady > since + 3 * Self.part else { continue }
            var patience: Int64 = 0
            let name = kind.isOrdered ? try await holder(of: queue) : nil
            if let holder = consumers.first(where: { $0.name == name }), holder.pending == nil {
                patience = holder.heard + holder.patience
            }
            expect(
                steady <= max(since, patience) + 3 * Self.part,
                "queue \(queue) of \(name ?? "none"): messages lie about for \(steady - since) ms, a consumer waits")
        }
    }

    /// The consumer that has a queue, as operators are shown it.
    private func holder(of queue: Int32) async throws -> String? {
        let answer = try await producer.invoke(.getBrokerRuntimeInfo)
        let rows = try answer.json()["table"]?["lease_\(Self.topic)@\(Self.group)"]?.string ?? ""
        return rows.components(separatedBy: ", ").map { $0.split(separator: " ") }
            .first { $0.first == Substring(String(queue)) && $0.count > 1 }.map { String($0[1]) }
    }

    /// Whether a queue has a message for a consumer that waits.
    private func canBeHad(_ queue: Int32) -> Bool {
        let left = messages.values.filter { $0.queue == queue && !$0.isFinished }
        let delivered = left.filter { $0.deliveries > 0 }
        let ready = delivered.filter { $0.last == nil && $0.readyAt <= clock.steady }
        // What waits to be given up is not had.
        guard !delivered.contains(where: { $0.deliveries > Self.retryCount }) else { return false }
        guard kind.isOrdered else { return !ready.isEmpty || left.count > delivered.count }
        return ready.count == delivered.count && !left.isEmpty
    }

    /// What runs out of time in a consumer's hands may cost it the queue, and silence.
    func noteTimeouts() {
        for (queue, holder) in holders {
            if let consumer = consumers.first(where: { $0.name == holder.name }), isSilent(consumer) {
                holders[queue]?.mayLose = true
            }
        }
        for (body, message) in messages {
            guard let last = message.last, last.until <= clock.steady else { continue }
            messages[body]?.last = nil
            if holders[last.queue]?.name == last.consumer { holders[last.queue]?.mayLose = true }
        }
    }

    func judge(_ handedOut: [Delivery], _ index: Int) {
        let steady = clock.steady
        for delivery in handedOut {
            guard let message = messages[delivery.body] else {
                expect(false, "\(delivery.body) was never sent")
                continue
            }
            let text = "\(delivery.body) of queue \(delivery.queue) to \(delivery.consumer)"
            expect(message.queue == delivery.queue && message.offset == delivery.offset, "\(text): it lies elsewhere")
            expect(!message.isFinished, "\(text) again after its end")
            expect(
                message.last.map { $0.until <= steady } ?? true,
                "\(text) while \(message.last?.consumer ?? "") has it")
            expect(message.notBefore <= steady, "\(text) before its retry")
            expect(Int(delivery.attempt) == message.deliveries, "\(text): attempt \(delivery.attempt + 1)")
            expect(message.deliveries <= Self.retryCount, "\(text): delivered too often")
            if message.deliveries > 0 { again += 1 }
        }
        if kind.isOrdered {
            for (queue, batch) in Dictionary(grouping: handedOut, by: \.queue) {
                let offsets = batch.map(\.offset)
                expect(offsets == offsets.sorted(), "queue \(queue) out of order: \(offsets)")
                let wanted = Set(offsets)
                let skipped = (bodies[queue] ?? [:]).filter { offset, body in
                    offset < (offsets.max() ?? 0) && !wanted.contains(offset) && messages[body]?.isFinished == false
                }
                expect(
                    skipped.isEmpty,
                    "queue \(queue): \(offsets) before \(skipped.keys.sorted()) are finished")
                let others = messages.values.compactMap(\.last).filter {
                    $0.queue == queue && $0.until > steady && $0.consumer != consumers[index].name
                }
                expect(others.isEmpty, "queue \(queue) has two consumers: \(others.map(\.consumer))")
                judgeHolder(queue, index)
            }
        }
        for delivery in handedOut {
            messages[delivery.body]?.deliveries += 1
            messages[delivery.body]?.last = delivery
        }
    }

    /// The broker may have heard of it up to a part earlier.
    private func isSilent(_ consumer: Consumer) -> Bool {
        consumer.pending == nil && clock.steady + Self.part >= consumer.heard + consumer.patience
    }

    /// A serial queue stays with its consumer while that is heard.
    private func judgeHolder(_ queue: Int32, _ index: Int) {
        let name = consumers[index].name
        if let holder = holders[queue], holder.name != name {
            takeovers += 1
            if kind == .serial, !holder.mayLose, let before = consumers.first(where: { $0.name == holder.name }) {
                expect(
                    isSilent(before),
                    "\(name) took queue \(queue) from \(holder.name), heard \(clock.steady - before.heard) ms ago")
            }
        }
        holders[queue] = (name, false)
    }

    // MARK: - The end

    /// Nothing is stuck: one consumer that works gets everything that is left, in bounded time.
    func finish() async throws {
        for _ in 0..<consumers.count { try await fire() }
        try await hire()
        let last = consumers.count - 1
        for _ in 0..<4000 where faults.isEmpty && messages.values.contains(where: { !$0.isFinished }) {
            if consumers[last].pending == nil { try await pop(last) }
            try await pass(300)
            while let delivery = consumers[last].inHand.popLast() {
                heard(last)
                try await acknowledge(delivery, of: consumers[last])
            }
            try await readDeadLetters()
        }
        let left = messages.filter { !$0.value.isFinished }.keys.sorted()
        expect(left.isEmpty, "never finished: \(left.prefix(5)), \(left.count) of \(messages.count)")
        try await readTrails()
    }

    /// Each message that came more than once has a reason in its trail for each time.
    private func readTrails() async throws {
        for (body, message) in messages.sorted(by: { $0.key < $1.key }) where message.deliveries > 1 {
            let answer = try await producer.invokeSliced(
                .getMessageStatus,
                [
                    "topic": Self.topic, "queueId": String(message.queue), "queueOffset": String(message.offset),
                    "group": Self.group,
                ])
            let group = try answer.json()["groups"]?.array?.first
            let events = (group?["trail"]?.array ?? []).compactMap { $0["event"]?.string }
            let deliveries = events.indices.filter { events[$0] == "DELIVERED" }
            expect(deliveries.count == message.deliveries, "the trail of \(body), \(message.deliveries): \(events)")
            for again in deliveries.dropFirst() {
                let reasons = ["TIMED_OUT", "FAILED", "RESCHEDULED"]
                expect(reasons.contains(events[again - 1]), "\(body) came again without a reason: \(events)")
            }
        }
    }

    /// What was not reported as failed, but ran out of time too often, is given up as well.
    func readDeadLetters() async throws {
        guard messages.values.contains(where: { $0.deliveries > Self.retryCount && !$0.isFinished }) else { return }
        for letter in try await producer.pull("%DLQ%" + Self.group, from: lettersRead) {
            lettersRead += 1
            let text = String(decoding: letter.body, as: UTF8.self)
            let body = Self.name(text)
            expect(messages[body]?.text == text, "the dead letter of \(body) says \(text)")
            expect(messages[body]?.deliveries == Self.retryCount + 1, "\(body) was given up early")
            messages[body]?.isFinished = true
        }
    }
}

@Suite("modes of topics against an oracle, in simulated time") struct ModesWorldTests {
    /// Worlds at the same time, of each kind: each has its files open.
    private static let lanesMax: UInt64 = 7

    /// Seeds that are played one after the other.
    static let lanes: [[UInt64]] = {
        let environment = ProcessInfo.processInfo.environment
        if let seed = environment["APUS_SEED"].flatMap({ UInt64($0) }) { return [[seed]] }
        // The suite plays the same worlds each time: a new finding belongs to a run that looks for one.
        let wanted = environment["APUS_MODE_SEEDS"].flatMap { UInt64($0) }
        let count = wanted ?? lanesMax
        let first = wanted == nil ? 20_261_130 : UInt64(Date().timeIntervalSince1970 * 1000)
        return (0..<min(count, lanesMax)).map { lane in
            stride(from: lane, to: count, by: Int(lanesMax)).map { first &+ $0 &* 7919 }
        }
    }()

    @Test(
        "never in two hands, none lost, none stuck, in order where it is promised, take-over only for a reason",
        arguments: lanes, ModesWorld.Kind.allCases)
    func model(seeds: [UInt64], kind: ModesWorld.Kind) async throws {
        for seed in seeds {
            let world = try await ModesWorld(kind, seed: seed)
            do {
                try await world.play(steps: 250)
            } catch {
                Issue.record("APUS_SEED=\(seed) \(kind): \(error)")
            }
            if !world.faults.isEmpty {
                let recent = world.recent.suffix(40).joined(separator: "\n")
                Issue.record(
                    "APUS_SEED=\(seed) \(kind): \(world.faults.prefix(3).joined(separator: "\n")) after\n\(recent)")
            }
            #expect(world.again > 0)
        }
    }
}
