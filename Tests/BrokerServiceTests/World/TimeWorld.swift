import Foundation
import MessageStore
import NIOCore
import NIOEmbedded
import RemotingProtocol
import TestTools

@testable import BrokerService

/// Everything that depends on time, at random, in simulated time: delay levels, timers and their cancellation,
/// transactions and check-backs, queue locks; clocks that jump, producers that come and go, clean restarts and kills. A
/// plain model beside it says what must be true after every step.
///
/// The files of the log are small, and by the world's time old as soon as they are full (files have the machine's time,
/// which is behind): what is not held is deleted within seconds.
final class TimeWorld {
    static let levels: [Int64] = [1000, 5000, 30_000, 3_600_000]
    static let timeout: Int64 = 6000
    static let interval: Int64 = 10_000
    static let checkMax = 5
    static let settings = [
        ("messageDelayLevel", "1s 5s 30s 1h"), ("transactionTimeOut", "6000"), ("transactionCheckInterval", "10000"),
        ("transactionCheckMax", "5"), ("fileReservedTime", "72"), ("mappedFileSizeCommitLog", "16384"),
        ("maxMessageSize", "4096"), ("cleanResourceInterval", "1000"), ("maxHashSlotNum", "1000"),
        ("maxIndexNum", "4000"), ("mappedFileSizeConsumeQueue", "20000"),
        ("deleteWhen", (0..<24).map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: ";")),
    ]
    /// `fileReservedTime` in milliseconds.
    static let keep: Int64 = 72 * 3_600_000
    /// Producers say that often that they are there.
    static let beatMilliseconds: Int64 = 30_000
    static let topic = "Time"
    static let lockQueues = 6

    /// A message that waits for its time.
    struct Waiting {
        var due: Int64
        var handle: String?
        var isRecalled = false
    }

    struct Transaction {
        var place: Int64
        var queueOffset: Int64
        /// When it was prepared.
        let since: Int64
        /// A check before this is too early.
        var notBefore: Int64
        var checks = 0
        /// What its producer says when it is asked; nil: nothing.
        var says: Int?
        var outcome: Int?
    }

    let seed: UInt64
    private var random: SplitMix
    private let clock = SimulatedClock()
    private var broker: SimulatedBroker
    private var client: SimulatedClient
    private var producers: [SimulatedClient] = []
    private var lastBeat: Int64 = 0
    private let base: URL
    private var generation = 0
    private var nextID = 0
    private var waiting: [String: Waiting] = [:]
    private var transactions: [String: Transaction] = [:]
    private var delivered: [String: Int64] = [:]
    private var readTo: Int64 = 0
    /// A producer that was asked since was asked after this.
    private var lastAnswers: Int64 = 0
    private var locks: [Int: (client: String, at: Int64)] = [:]
    private(set) var wrong: [String] = []
    private(set) var steps: [String] = []
    private var deletedLog: Int64 = 0

    init(seed: UInt64) async throws {
        self.seed = seed
        random = SplitMix(state: seed)
        // In memory if that is possible: days of flushes pass in seconds.
        let memory = URL(fileURLWithPath: "/dev/shm")
        let parent =
            FileManager.default.isWritableFile(atPath: memory.path)
            ? memory : FileManager.default.temporaryDirectory
        base = parent.appendingPathComponent("apus-world-\(UUID().uuidString)")
        broker = try await SimulatedBroker(Self.settings, folder: base.appendingPathComponent("0"), clock: clock)
        client = try await broker.connect()
        _ = try await client.send(Self.topic, body: "first", [:])
        readTo = 1
    }

    private func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &random) }

    private func violate(_ words: String) {
        wrong.append("step \(steps.count), at \(clock.now - SimulatedClock.start) ms: \(words)")
    }

    func end() async throws {
        defer { try? FileManager.default.removeItem(at: base) }
        for producer in producers { await producer.close() }
        await client.close()
        try await broker.end(cleanly: true)
    }

    /// How much has happened.
    var summary: String {
        let lost = transactions.values.filter { $0.outcome == nil }.count
        return "\(delivered.count) delivered, \(waiting.values.filter(\.isRecalled).count) recalled, "
            + "\(transactions.count) transactions (\(lost) put aside), \(deletedLog) bytes of log deleted"
    }

    // MARK: - Steps

    func step() async throws {
        switch below(100) {
        case 0..<14: try await sendLevel()
        case 14..<32: try await sendTimer()
        case 32..<40: try await recall()
        case 40..<54: try await prepare()
        case 54..<60: try await endTransaction()
        case 60..<66: try await comeOrGo()
        case 66..<76: try await lock()
        case 76..<94: try await pass()
        case 94..<97: try await jump()
        default: try await restart(killed: below(2) == 0)
        }
        try await look()
    }

    private func name(_ kind: String) -> String {
        nextID += 1
        return "\(kind)-\(nextID)"
    }

    private func sendLevel() async throws {
        let level = 1 + below(Self.levels.count)
        let id = name("level\(level)")
        steps.append(id)
        let due = clock.now + Self.levels[level - 1]
        let answer = try await client.send(Self.topic, body: id, ["DELAY": String(level), "UNIQ_KEY": id])
        guard answer.code == 0 else { return violate("\(id) was refused: \(answer.code) \(answer.remark ?? "")") }
        waiting[id] = Waiting(due: due)
    }

    private func sendTimer() async throws {
        let id = name("timer")
        // From milliseconds to more than half a year.
        let delay = Int64(1) << Int64(below(35))
        let milliseconds = delay + Int64(below(1000))
        steps.append("\(id) +\(milliseconds)")
        let due = clock.now + milliseconds
        let property = below(2) == 0 ? ["TIMER_DELAY_MS": String(milliseconds)] : ["TIMER_DELIVER_MS": String(due)]
        let answer = try await client.send(Self.topic, body: id, property.merging(["UNIQ_KEY": id]) { $1 })
        guard answer.code == 0 else { return violate("\(id) was refused: \(answer.code) \(answer.remark ?? "")") }
        waiting[id] = Waiting(due: due, handle: answer.extFields["recallHandle"])
        if answer.extFields["recallHandle"] == nil { violate("\(id) has no recall handle") }
    }

    private func recall() async throws {
        let open = waiting.filter { $0.value.handle != nil && !$0.value.isRecalled }.keys.sorted()
        guard let id = open.randomElement(using: &random), let known = waiting[id] else { return }
        steps.append("recall \(id)")
        let answer = try await client.invoke(
            .recallMessage, ["topic": Self.topic, "recallHandle": known.handle ?? "", "producerGroup": "P"])
        if answer.code == 0 {
            if known.due <= clock.now { violate("\(id) was recalled after its time") }
            waiting[id]?.isRecalled = true
        } else if known.due > clock.now {
            violate("\(id) was not recalled: \(answer.code) \(answer.remark ?? "")")
        }
    }

    private func prepare() async throws {
        let id = name("tx")
        let immunity = below(4) == 0 ? Int64(below(30)) : nil
        var properties = ["TRAN_MSG": "true", "PGROUP": "PG", "UNIQ_KEY": id]
        if let immunity { properties["CHECK_IMMUNITY_TIME_IN_SECONDS"] = String(immunity) }
        let says = [8, 8, 12, 0, nil].randomElement(using: &random) ?? nil
        steps.append("\(id) says \(says ?? -1)\(immunity.map { " immune \($0) s" } ?? "")")
        let now = clock.now
        let answer = try await client.send(Self.topic, body: id, properties, group: "PG")
        guard answer.code == 0, let place = OffsetMessageID.parse(answer.extFields["msgId"] ?? "")?.physicalOffset
        else {
            return violate("\(id) was refused: \(answer.code) \(answer.remark ?? "")")
        }
        transactions[id] = Transaction(
            place: place, queueOffset: try answer.integer("queueOffset"), since: now,
            notBefore: now + (immunity.map { $0 * 1000 } ?? Self.timeout), says: says)
    }

    private func endTransaction() async throws {
        guard let id = transactions.keys.sorted().randomElement(using: &random), let known = transactions[id] else {
            return
        }
        let outcome = [8, 12, 0].randomElement(using: &random) ?? 0
        steps.append("end \(id) \(outcome)")
        let answer = try await client.invoke(
            .endTransaction,
            [
                "producerGroup": "PG", "tranStateTableOffset": String(known.queueOffset),
                "commitLogOffset": String(known.place), "commitOrRollback": String(outcome),
                "fromTransactionCheck": "false",
            ])
        if answer.code == 0 { return decided(id, outcome) }
        // Decided, or put aside after the last check or by its age, it holds the log no longer.
        if known.outcome == nil, known.checks < Self.checkMax, clock.now - known.since < Self.keep {
            violate("the end of \(id) was refused: \(answer.code) \(answer.remark ?? "")")
        }
    }

    /// The broker has said that this is its outcome; the first one counts.
    private func decided(_ id: String, _ outcome: Int) {
        guard outcome != 0, let known = transactions[id], known.outcome == nil else { return }
        transactions[id]?.outcome = outcome
        if outcome == 8 { waiting[id] = Waiting(due: clock.now) }
    }

    private func comeOrGo() async throws {
        if producers.count < 2 {
            steps.append("producer comes")
            try await addProducer()
        } else {
            steps.append("producer goes")
            await producers.remove(at: below(producers.count)).close()
        }
    }

    private func addProducer() async throws {
        let producer = try await broker.connect()
        try await beat(producer)
        producers.append(producer)
    }

    private func beat(_ producer: SimulatedClient) async throws {
        let beat = HeartbeatData(clientID: "p\(steps.count)", producerGroups: ["PG"], consumerDataSet: [])
        _ = try await producer.invoke(.heartBeat, body: beat.encoded())
    }

    /// Those whose connection the broker has ended (it takes them for dead when the clock jumps) connect anew, as
    /// clients do.
    private func keepProducers() async throws {
        for (index, producer) in producers.enumerated() where !producer.isOpen {
            producers[index] = try await broker.connect()
            try await beat(producers[index])
        }
        guard clock.now - lastBeat >= Self.beatMilliseconds else { return }
        lastBeat = clock.now
        for producer in producers { try await beat(producer) }
    }

    private func lock() async throws {
        let owner = "locker-\(below(3))"
        let wanted = (0..<Self.lockQueues).filter { _ in below(2) == 0 }
        let queues = wanted.map { MessageQueue(topic: Self.topic, brokerName: "broker-a", queueID: Int32($0)) }
        let body = LockBatchRequestBody(consumerGroup: "LG", clientID: owner, mqSet: queues).encoded()
        let now = clock.now
        if below(4) == 0 {
            steps.append("\(owner) unlocks \(wanted)")
            _ = try await client.invoke(.unlockBatchMQ, body: body)
            for queue in wanted where locks[queue]?.client == owner { locks[queue] = nil }
            // A client that gives all of them back may still commit: they are free after that.
            try await advance(LocksGivenBack.graceMilliseconds)
            return
        }
        steps.append("\(owner) locks \(wanted)")
        let answer = try await client.invoke(.lockBatchMQ, body: body)
        let held = Set(try LockBatchResponseBody(body: answer.body).lockOKMQSet.map { Int($0.queueID) })
        var expected: Set<Int> = []
        for queue in wanted {
            if let lock = locks[queue], lock.client != owner, now - lock.at <= 60_000 { continue }
            expected.insert(queue)
            locks[queue] = (owner, now)
        }
        if held != expected { violate("\(owner) holds \(held.sorted()) of \(wanted), not \(expected.sorted())") }
    }

    private func pass() async throws {
        let milliseconds = Int64(1) << Int64(below(17))
        steps.append("pass \(milliseconds)")
        // The loop stops where something is due, so that lateness is seen to the millisecond.
        try await advance(milliseconds)
    }

    /// Producers answer between pieces: none waits half a minute with that.
    private func advance(_ milliseconds: Int64) async throws {
        var left = milliseconds
        while left > 0 {
            let piece = min(left, 500)
            left -= piece
            lastAnswers = clock.now
            await broker.loop.advanceTime(by: .milliseconds(piece))
            try await answerChecks()
            try await keepProducers()
            try await read()
        }
    }

    /// The wall clock is set forward by up to 45 days: what became due meanwhile comes within half a minute.
    private func jump() async throws {
        let milliseconds = Int64(1) << Int64(below(32))
        steps.append("jump \(milliseconds)")
        clock.jump(milliseconds)
        try await advance(31_000)
    }

    private func restart(killed: Bool) async throws {
        steps.append(killed ? "kill" : "restart")
        generation += 1
        let old = broker
        let next = base.appendingPathComponent(String(generation))
        for producer in producers { await producer.close() }
        await client.close()
        if killed {
            // On its loop, so that it does nothing meanwhile.
            let folder = old.folder
            try await old.onLoop { _ in try FileManager.default.copyItem(at: folder, to: next) }
            try await old.end(cleanly: false)
        } else {
            try await old.end(cleanly: true)
            try FileManager.default.copyItem(at: old.folder, to: next)
        }
        try FileManager.default.removeItem(at: old.folder)
        broker = try await SimulatedBroker(Self.settings, folder: next, clock: clock)
        client = try await broker.connect()
        locks = [:]
        let count = producers.count
        producers = []
        for _ in 0..<count { try await addProducer() }
    }

    // MARK: - What must be true

    private func look() async throws {
        await broker.settle()
        try await answerChecks()
        // What the answers committed is stored by now.
        for attempt in 0..<400 {
            try await read()
            let missing = waiting.filter {
                !$0.value.isRecalled && $0.value.due <= clock.now && delivered[$0.key] == nil
            }
            if missing.isEmpty { return }
            // Timer files are read by a thread; a kill lets deliveries begin again a moment later.
            if attempt == 399 { violate("due, and not delivered: \(missing.keys.sorted().prefix(5))") }
            if attempt > 20 { await broker.loop.advanceTime(by: .milliseconds(5)) }
            await broker.settle()
        }
    }

    private func answerChecks() async throws {
        for producer in producers {
            for request in try await producer.takeRequests() where request.requestCode == .checkTransactionState {
                try await answer(request, producer)
            }
        }
    }

    private func answer(_ request: RemotingCommand, _ producer: SimulatedClient) async throws {
        let id = request.extFields["msgId"] ?? "?"
        guard var known = transactions[id] else { return violate("a check of \(id), which was never prepared") }
        if known.outcome != nil { violate("a check of \(id), which ended with \(known.outcome ?? 0)") }
        if clock.now < known.notBefore { violate("\(id) is asked for \(known.notBefore - clock.now) ms early") }
        known.checks += 1
        if known.checks > Self.checkMax { violate("\(id) is asked for the \(known.checks)th time") }
        known.notBefore = min(clock.now, lastAnswers) + Self.interval
        known.place = try request.integer("commitLogOffset")
        known.queueOffset = try request.integer("tranStateTableOffset")
        transactions[id] = known
        // The broker may have ended the connection right after asking: then what is said is not heard.
        guard let says = known.says, producer.isOpen else { return }
        try await producer.oneway(
            .endTransaction,
            [
                "producerGroup": "PG", "tranStateTableOffset": request.extFields["tranStateTableOffset"] ?? "",
                "commitLogOffset": request.extFields["commitLogOffset"] ?? "", "commitOrRollback": String(says),
                "fromTransactionCheck": "true",
            ])
        if says != 0 { decided(id, says) }
    }

    private func read() async throws {
        while true {
            let messages = try await client.pull(Self.topic, from: readTo)
            guard !messages.isEmpty else { return }
            for message in messages {
                readTo = message.queueOffset + 1
                let id = String(decoding: message.body, as: UTF8.self)
                guard let known = waiting[id] else {
                    violate(
                        "\(id) is delivered, \(transactions[id].map { "which ended with \($0.outcome ?? 0)" } ?? "")")
                    continue
                }
                if known.isRecalled { violate("\(id) is delivered although it was recalled") }
                if message.storeTimestamp < known.due {
                    violate("\(id) comes \(known.due - message.storeTimestamp) ms early")
                }
                if delivered[id] != nil { violate("\(id) is delivered twice") }
                delivered[id] = message.storeTimestamp
            }
        }
    }

    /// At the end time passes until nothing can be outstanding.
    func finish() async throws {
        steps.append("finish")
        if producers.isEmpty { try await addProducer() }
        for _ in 0..<(Self.checkMax + 2) {
            try await advance(Self.interval + 1)
            try await look()
        }
        let asked = clock.now
        clock.jump(400 * 86_400_000)
        try await advance(31_000)
        try await look()
        for (id, known) in transactions
        where known.outcome == nil && known.checks < Self.checkMax && asked - known.since < Self.keep {
            violate("\(id) was asked for only \(known.checks) times and has no outcome")
        }
        deletedLog = try await broker.onLoop { $0.store.runtimeInformation.commitLogMinOffset }
        let open = try await broker.onLoop { $0.kinds.transactions.openCount }
        if open > 0 { violate("\(open) transactions are still open") }
    }
}
