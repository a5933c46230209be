import Foundation
import ModelClients
import RemotingProtocol
import Synchronization

/// Knows every message the model sent and what must become of it, and looks at every delivery as it happens.
final class ModelOracle: ModelConsumerObserver {
    enum Kind: String, Sendable {
        case plain, batch, keyed, level, timer, transaction
    }

    enum State: Equatable, Sendable {
        case sending, acknowledged, refused, unknown
    }

    /// One send; a message that is sent again is another one.
    struct Attempt: Sendable {
        var id: Int
        var kind: Kind
        var topic: String
        var queue: Int32
        var body: [UInt8]
        var key: Int?
        var sequence = 0
        /// Milliseconds since 1970; must not be in its topic earlier.
        var earliest: Int64
        var hasDelay = false
        /// Of a transaction: what becomes of it in the end; nil: nothing is ever said.
        var outcome: ModelTransactionOutcome?
        /// How many check-backs are answered "unknown" first.
        var unknowns = 0
        var checks = 0
        var state = State.sending
        var queueOffset: Int64 = -1
        var messageID = ""

        var mayBeDelivered: Bool { kind != .transaction || outcome == .commit }
    }

    struct Received: Sendable {
        var count = 0
        var isDone = false
        var retries: Int32 = 0
        /// By number of retries: when it was first sent back.
        var sentBack: [Int32: Int64] = [:]
    }

    private struct InOrder {
        var last: Int64 = -1
        var working: (member: String, since: Int64, disturbances: Int)?
    }

    private struct Memory {
        var attempts: [Int: Attempt] = [:]
        var received: [String: [Int: Received]] = [:]
        /// By member.
        var broadcast: [String: Set<Int>] = [:]
        var orderly: [String: InOrder] = [:]
        var commits: [String: [(offset: Int64, at: Int64)]] = [:]
        var violations: [String] = []
        var excused = 0
        var lateMilliseconds: [Int64] = []
        /// Disturbances after which two may think they hold a queue: counted, and when the last was.
        var disturbances = 0
        var lastDisturbance: Int64 = 0
        var nextID = 0
    }

    let seed: UInt64
    private let memory = Mutex(Memory())
    private let began = ModelClock.nowMilliseconds

    init(seed: UInt64) { self.seed = seed }

    static let violationsMax = 200

    private func violate(_ memory: inout Memory, _ words: String) {
        guard memory.violations.count < Self.violationsMax else { return }
        memory.violations.append("\(ModelClock.nowMilliseconds - began) ms: \(words)")
    }

    func violate(_ words: String) { memory.withLock { violate(&$0, words) } }

    var violations: [String] { memory.withLock { $0.violations } }
    var excused: Int { memory.withLock { $0.excused } }
    var attempts: [Attempt] { memory.withLock { Array($0.attempts.values) } }
    func received(_ group: String) -> [Int: Received] { memory.withLock { $0.received[group] ?? [:] } }
    func broadcast(_ member: String) -> Set<Int> { memory.withLock { $0.broadcast[member] ?? [] } }
    var lateness: [Int64] { memory.withLock { $0.lateMilliseconds.sorted() } }

    /// The broker was killed or stopped, or a client's connection was cut: for a moment locks and offsets may be older
    /// than clients believe.
    func disturbed() {
        memory.withLock { memory in
            memory.disturbances += 1
            memory.lastDisturbance = ModelClock.nowMilliseconds
        }
    }

    // MARK: - Sending

    func body(_ id: Int) -> [UInt8] {
        var random = ModelRandom(seed &+ UInt64(id))
        let size = random.once(in: 50) ? 20_000 : random.below(300)
        var bytes = Array("\(id)|".utf8)
        while bytes.count < size { bytes.append(UInt8(truncatingIfNeeded: random.next())) }
        return bytes
    }

    func begin(_ make: (Int) -> Attempt) -> Attempt {
        memory.withLock { memory in
            let attempt = make(memory.nextID)
            memory.nextID += 1
            memory.attempts[attempt.id] = attempt
            return attempt
        }
    }

    func finish(_ id: Int, _ outcome: ModelSendOutcome, batchIndex: Int64 = 0) {
        memory.withLock { memory in
            switch outcome {
            case .acknowledged(let offset, let messageID):
                memory.attempts[id]?.state = .acknowledged
                memory.attempts[id]?.queueOffset = offset + batchIndex
                memory.attempts[id]?.messageID = messageID
            case .refused: memory.attempts[id]?.state = .refused
            case .unknown: memory.attempts[id]?.state = .unknown
            }
        }
    }

    static func id(of message: MessageExt) -> Int? {
        let digits = message.body.prefix { $0 != UInt8(ascii: "|") }
        return Int(String(decoding: digits, as: UTF8.self))
    }

    /// The broker asks what became of a prepared message.
    func decide(_ message: MessageExt) -> ModelTransactionOutcome? {
        memory.withLock { memory in
            guard let id = Self.id(of: message), let attempt = memory.attempts[id], attempt.kind == .transaction else {
                violate(&memory, "a check-back for a message that is no transaction: \(message.topic)")
                return nil
            }
            if message.body != attempt.body || message.topic != attempt.topic || message.queueID != attempt.queue {
                violate(&memory, "the check-back of message \(id) differs from what was sent")
            }
            memory.attempts[id]?.checks += 1
            guard let outcome = attempt.outcome else { return nil }
            return attempt.checks < attempt.unknowns ? .unknown : outcome
        }
    }

    // MARK: - Consuming

    func consume(_ delivery: ModelDelivery) async -> Bool {
        let (isDone, milliseconds) = begin(delivery)
        if milliseconds > 0 { try? await Task.sleep(for: .milliseconds(milliseconds)) }
        end(delivery)
        return isDone
    }

    private func begin(_ delivery: ModelDelivery) -> (isDone: Bool, milliseconds: Int) {
        let now = ModelClock.nowMilliseconds
        let message = delivery.message
        return memory.withLock { memory in
            let name = "\(delivery.group): \(message.topic) \(message.queueID) @\(message.queueOffset)"
            guard let group = ModelPlan.group(delivery.group), let id = Self.id(of: message),
                let attempt = memory.attempts[id]
            else {
                violate(&memory, "\(name): a message that was never sent")
                return (true, 0)
            }
            look(&memory, delivery, attempt, group, "\(name), message \(id) (\(attempt.kind.rawValue))", now)
            if group.mode == .orderly { order(&memory, delivery, name, now) }
            if group.mode == .broadcast { memory.broadcast[delivery.member, default: []].insert(id) }
            var received = memory.received[group.name]?[id] ?? Received()
            let failed = group.mode == .orderly ? Int32(clamping: received.count) : message.reconsumeTimes
            let isDone = failed >= ModelPlan.failures(seed, group: group, id: id)
            received.count += 1
            received.isDone = received.isDone || isDone
            received.retries = max(received.retries, message.reconsumeTimes)
            memory.received[group.name, default: [:]][id] = received
            let milliseconds = ModelRandom.number(seed, "\(group.name) \(id) \(received.count)") % 40
            return (isDone, milliseconds < 30 ? 0 : Int(milliseconds) - 30)
        }
    }

    private func look(
        _ memory: inout Memory, _ delivery: ModelDelivery, _ attempt: Attempt, _ group: ModelPlan.Group,
        _ name: String, _ now: Int64
    ) {
        let message = delivery.message
        if message.body != attempt.body { violate(&memory, "\(name): another body") }
        if message.keys != "k\(attempt.id)" { violate(&memory, "\(name): another key, \(message.keys ?? "none")") }
        if attempt.state == .refused { violate(&memory, "\(name): its send was refused") }
        if !attempt.mayBeDelivered {
            violate(&memory, "\(name): its transaction ended with \(attempt.outcome.map { "\($0)" } ?? "no word")")
        }
        let retries = message.reconsumeTimes
        if retries == 0 {
            if message.topic != attempt.topic || message.queueID != attempt.queue {
                violate(&memory, "\(name): sent to \(attempt.topic) \(attempt.queue)")
            }
            if message.storeTimestamp < attempt.earliest {
                violate(&memory, "\(name): \(attempt.earliest - message.storeTimestamp) ms early")
            }
            if attempt.hasDelay { memory.lateMilliseconds.append(message.storeTimestamp - attempt.earliest) }
            let isDirect = [.plain, .batch, .keyed].contains(attempt.kind)
            if isDirect, attempt.state == .acknowledged, attempt.queueOffset != message.queueOffset {
                violate(&memory, "\(name): acknowledged at \(attempt.queueOffset)")
            }
            return
        }
        if retries > group.maxRetries { violate(&memory, "\(name): retry \(retries) of \(group.maxRetries)") }
        if message.topic != "%RETRY%" + group.name || message.properties["RETRY_TOPIC"] != attempt.topic {
            violate(&memory, "\(name): retry of \(message.properties["RETRY_TOPIC"] ?? "nothing")")
        }
        guard let sentBack = memory.received[group.name]?[attempt.id]?.sentBack[retries - 1] else {
            return violate(&memory, "\(name): retry \(retries) although it was never sent back")
        }
        let early = sentBack + ModelPlan.retryMilliseconds - message.storeTimestamp
        if early > 0 { violate(&memory, "\(name): retry \(retries) comes \(early) ms early") }
    }

    private func order(_ memory: inout Memory, _ delivery: ModelDelivery, _ name: String, _ now: Int64) {
        guard !delivery.queue.topic.hasPrefix("%RETRY%") else { return }
        let place = "\(delivery.group) \(delivery.queue.topic) \(delivery.queue.queueID)"
        var state = memory.orderly[place] ?? InOrder()
        let isDisturbed = now - memory.lastDisturbance < 1000
        if let other = state.working, other.member != delivery.member {
            if isDisturbed || other.disturbances != memory.disturbances {
                memory.excused += 1
            } else {
                violate(&memory, "\(name): \(delivery.member) begins while \(other.member) works on that queue")
            }
        }
        if delivery.message.queueOffset > state.last + 1 {
            if isDisturbed {
                memory.excused += 1
            } else {
                violate(&memory, "\(name): comes after \(state.last), by \(delivery.member)")
            }
        }
        state.last = delivery.message.queueOffset
        state.working = (delivery.member, now, memory.disturbances)
        memory.orderly[place] = state
    }

    private func end(_ delivery: ModelDelivery) {
        let place = "\(delivery.group) \(delivery.queue.topic) \(delivery.queue.queueID)"
        memory.withLock { memory in
            if memory.orderly[place]?.working?.member == delivery.member { memory.orderly[place]?.working = nil }
        }
    }

    func sendingBack(_ delivery: ModelDelivery) {
        guard let id = Self.id(of: delivery.message) else { return }
        let now = ModelClock.nowMilliseconds
        let retries = delivery.message.reconsumeTimes
        memory.withLock { memory in
            var received = memory.received[delivery.group]?[id] ?? Received()
            if received.sentBack[retries] == nil { received.sentBack[retries] = now }
            memory.received[delivery.group, default: [:]][id] = received
        }
    }

    func wrong(_ words: String) { violate(words) }

    func owns(member: String, group: String, queues: Set<MessageQueue>) {}

    // MARK: - Offsets

    func committing(group: String, queue: MessageQueue, offset: Int64) {
        let now = ModelClock.nowMilliseconds
        memory.withLock { memory in
            let place = "\(group) \(queue.topic) \(queue.queueID)"
            if let last = memory.commits[place]?.last, last.offset == offset, now - last.at < 100 { return }
            memory.commits[place, default: []].append((offset, now))
        }
    }

    /// A client committed this very offset since then.
    func wasCommitted(_ place: String, offset: Int64, since: Int64) -> Bool {
        memory.withLock { memory in
            memory.commits[place]?.contains { $0.offset == offset && $0.at >= since } ?? false
        }
    }
}
