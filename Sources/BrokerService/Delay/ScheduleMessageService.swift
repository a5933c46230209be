import FastJSON
import Logging
import MessageModel
import MessageStore
import NIOCore
import StoreFormat

/// Delivers delayed messages. They lie in `SCHEDULE_TOPIC_XXXX`, one queue per delay level, so each queue is in order
/// of delivery. The tags code of an entry is the time it is due. One timer stands at the earliest due entry of all
/// levels; an arrival in a level that was empty sets it.
///
/// How far each level has come is known exactly over `kill -9` (`DeliveryProgress`). RocketMQ's own file
/// `config/delayOffset.json` is written every 10 s and counts only deliveries that survive power loss.
final class ScheduleMessageService: WaitingObserver {
    /// Delivered in one slice, all levels together, and bytes after which it ends.
    static let deliverBatch = 256
    static let deliverBytes = 4 << 20
    /// A timer further away is set again on the way, so that a clock that is set forward is noticed.
    static let sleepMaxMilliseconds: Int64 = 30_000

    /// The group that takes messages out of the schedule topic, by RocketMQ's statistics.
    static let group = "SCHEDULE_CONSUMER"

    private let environment: BrokerEnvironment
    let storage: StoreAccess
    private var levels: [DelayLevel]
    private var copier: RecordCopier
    private var timer: Scheduled<Void>?
    private var timerAtMilliseconds = Int64.max
    private(set) var isDirty = false
    private var isRunning = false
    private var hasAppended = false
    private let catchUp = CatchUp()
    /// The level the next slice begins with: a busy one keeps no other waiting.
    private var firstLevel = 0

    /// Offsets that wait for the log to be flushed up to there, and those that no longer do.
    private var candidate: (logEnd: Int64, offsets: [Int64])?
    private var durable: [Int64]

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess,
        _ undeliverable: UndeliverableMessages
    ) {
        self.environment = environment
        self.storage = storage
        levels = environment.delayLevels.map { DelayLevel(delay: $0) }
        copier = RecordCopier(tables, storage, undeliverable)
        durable = levels.map(\.committed)
    }

    /// Begins to deliver; a slave does not, its master's log holds the deliveries.
    /// - Parameter offsets: what `DeliveryProgress` knows; may be further than the file.
    func start(offsets: [Int64] = []) {
        guard !isRunning else { return }
        isRunning = true
        for (index, offset) in offsets.enumerated() where index < levels.count && offset > levels[index].next {
            levels[index].moveTo(offset)
        }
        for index in levels.indices {
            let queue = storage.store.findConsumeQueue(topic: .schedule, queueID: Int32(index))
            QueueWatch.observe(queue, by: self)
            look(index)
        }
        durable = levels.map(\.committed)
        arm()
    }

    func waitingArrived(in queueID: Int32, _ arrival: MessageArrival) {
        let index = Int(queueID)
        guard levels[index].dueMilliseconds == Int64.max else { return }
        levels[index].dueMilliseconds = levels[index].due(
            arrival.tagsCode, at: levels[index].next, queueEnd: arrival.maxOffset.rawValue, now: environment.now())
        arm()
    }

    func stop() {
        isRunning = false
        timer?.cancel()
        timer = nil
    }

    /// Per level the offset to deliver next, everything before it being in the log.
    var committedOffsets: [Int64] { levels.map(\.committed) }

    /// Whether a message of a level has been delivered, this tick included.
    func hasDelivered(queueID: Int32, offset: Int64) -> Bool {
        guard let level = Int(exactly: queueID), levels.indices.contains(level) else { return false }
        return offset < levels[level].next
    }

    /// Where the oldest message lies that has not been delivered for good: power loss may take back what is not counted
    /// in the file.
    var neededFrom: PhysicalOffset? {
        guard isRunning else { return nil }
        var oldest: PhysicalOffset?
        for index in levels.indices {
            guard let queue = queue(index) else { continue }
            let from = QueueOffset(max(min(durable[index], levels[index].committed), queue.minOffset.rawValue))
            guard let place = storage.store.firstPlace(queue, at: from) else { continue }
            oldest = min(oldest ?? place, place)
        }
        return oldest
    }

    private func queue(_ index: Int) -> ConsumeQueue? {
        storage.store.consumeQueue(topic: TopicNames.schedule, queueID: Int32(index))
    }

    /// Finds out when the level's next entry is due; corrects an offset that left the queue.
    private func look(_ index: Int) {
        levels[index].dueMilliseconds = Int64.max
        guard let queue = queue(index) else { return }
        let offset = levels[index].next
        if offset < queue.minOffset.rawValue || offset > queue.maxOffset.rawValue {
            let corrected = offset < queue.minOffset.rawValue ? queue.minOffset : queue.maxOffset
            environment.logger.error(
                """
                delay level \(index + 1): the offset \(offset) is outside of its queue; delivery goes on at \
                \(corrected)
                """
            )
            levels[index].moveTo(corrected.rawValue)
            isDirty = true
        }
        let next = storage.store.entries(queue, from: QueueOffset(levels[index].next), maxCount: 1)
        if let entry = next.first { levels[index].dueMilliseconds = due(index, entry, queue) }
    }

    private func due(_ index: Int, _ entry: ConsumeQueueEntry, _ queue: ConsumeQueue) -> Int64 {
        levels[index].due(
            entry.tagsCode, at: levels[index].next, queueEnd: queue.maxOffset.rawValue, now: environment.now())
    }

    private func arm() {
        let earliest = levels.map(\.dueMilliseconds).min() ?? Int64.max
        guard isRunning, earliest < timerAtMilliseconds || timer == nil, earliest < Int64.max else { return }
        timer?.cancel()
        timerAtMilliseconds = earliest
        let service = NIOLoopBound(self, eventLoop: environment.eventLoop)
        let sleep = min(max(0, earliest -| environment.now()), Self.sleepMaxMilliseconds)
        timer = environment.eventLoop.scheduleTask(in: .milliseconds(sleep)) { service.value.deliver() }
    }

    private func deliver() {
        timer = nil
        timerAtMilliseconds = Int64.max
        catchUp.run(in: environment.slices) { [unowned self] in
            deliverSome()
        } then: { [unowned self] in
            arm()
        }
    }

    /// Delivers what is due, no more than a slice; `true` when there is more.
    private func deliverSome() -> Bool {
        guard isRunning else { return false }
        let now = environment.now()
        var budget = Budget()
        for step in levels.indices where !budget.isSpent {
            let index = (firstLevel + step) % levels.count
            if levels[index].dueMilliseconds <= now { deliver(index, now, &budget) }
            if budget.isSpent { firstLevel = (index + 1) % levels.count }
        }
        if hasAppended { storage.scheduleTick() }
        return budget.isSpent
    }

    /// What a slice may still deliver.
    private struct Budget {
        var messages = ScheduleMessageService.deliverBatch
        var bytes = ScheduleMessageService.deliverBytes
        var isSpent: Bool { messages <= 0 || bytes <= 0 }
    }

    private func deliver(_ index: Int, _ now: Int64, _ budget: inout Budget) {
        guard let queue = queue(index) else { return }
        let entries = storage.store.entries(
            queue, from: QueueOffset(levels[index].next), maxCount: budget.messages)
        for entry in entries {
            // What is left of the level is due as before.
            guard !budget.isSpent else { return }
            let due = due(index, entry, queue)
            if due > now {
                levels[index].dueMilliseconds = due
                return
            }
            budget.messages -= 1
            if entry == .deleted {
                levels[index].advance()
                hasAppended = true
                isDirty = true
                continue
            }
            budget.bytes -= Int(entry.recordSize)
            let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
            switch copier.deliver(range) {
            case .appended(let result):
                hasAppended = true
                storage.stats.delivered(queueID: Int32(index), bytes: result.size)
            case .putAside, nil: hasAppended = true
            case .refused:
                // Disk full or so: the message stays where it is and is tried again.
                levels[index].dueMilliseconds = now + RecordCopier.retryMilliseconds
                return
            case .undeliverable(let reason):
                environment.logger.error(
                    "the delayed message at \(entry.physicalOffset) is skipped, it will not be delivered: \(reason)")
            }
            levels[index].advance()
            isDirty = true
        }
        look(index)
    }

    // MARK: - End of a tick

    /// The tick's bytes are in the log. `true` if deliveries were among them.
    func committed() -> Bool {
        guard hasAppended else { return false }
        hasAppended = false
        for index in levels.indices { levels[index].commit() }
        return true
    }

    /// They are not.
    func failed() {
        guard hasAppended else { return }
        hasAppended = false
        for index in levels.indices where levels[index].next != levels[index].committed { levels[index].rollBack() }
        let service = NIOLoopBound(self, eventLoop: environment.eventLoop)
        environment.eventLoop.scheduleTask(in: .milliseconds(RecordCopier.retryMilliseconds)) { service.value.arm() }
    }

    // MARK: - config/delayOffset.json

    private func json(_ all: [Int64]) -> JSONValue {
        var offsets = JSONObject()
        for (index, offset) in all.enumerated() where offset > 0 {
            offsets.append(rawKey: String(index + 1), .integer(offset))
        }
        return .fields([("offsetTable", .object(offsets))])
    }

    /// As a slave gets it.
    var json: JSONValue { json(committedOffsets) }

    /// For the file: a delivery that power loss may take back is not counted yet.
    /// - Parameter flushed: this much of the log survives power loss.
    func durableJSON(flushed: Int64, logEnd: Int64) -> JSONValue {
        guard isRunning else { return json }
        if let candidate, candidate.logEnd <= flushed {
            durable = candidate.offsets
            self.candidate = nil
        }
        if candidate == nil, durable != committedOffsets {
            if logEnd <= flushed {
                durable = committedOffsets
            } else {
                candidate = (logEnd, committedOffsets)
            }
        }
        return json(durable)
    }

    func markWritten() { isDirty = candidate != nil || (isRunning && durable != committedOffsets) }

    static func entry(_ member: JSONObject.Member) throws -> (level: Int, offset: Int64) {
        guard let level = Int(member.key), level >= 1, let offset = member.value.integer,
            offset >= 0, QueueLimits.offsets.contains(offset)
        else { throw TableError("it is not a delay level and the offset of a queue") }
        return (level, offset)
    }

    /// - Returns: the entries that are none, which are left out. Levels the broker does not have (any more) are
    ///   skipped.
    /// - Throws: it is no such table.
    func load(_ json: JSONValue) throws(TableError) -> [RefusedEntry] {
        let read = try TableEntries<(level: Int, offset: Int64)>(json, "offsetTable", Self.entry)
        for (level, offset) in read.entries where level <= levels.count { levels[level - 1].moveTo(offset) }
        durable = committedOffsets
        isDirty = true
        return read.refused
    }
}

extension ScheduleMessageService: PersistentTable {
    /// Only what survives a power cut counts as delivered.
    var fileJSON: JSONValue {
        defer { markWritten() }
        return durableJSON(
            flushed: storage.store.flushedOffset.rawValue, logEnd: storage.store.writtenOffset.rawValue)
    }
    func load(file json: JSONValue) throws -> [RefusedEntry] {
        let refused = try load(json)
        markWritten()
        return refused
    }
}
