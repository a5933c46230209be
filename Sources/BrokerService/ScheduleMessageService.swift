import FastJSON
import Logging
import MessageStore
import NIOCore
import StoreFormat

/// Delivers delayed messages. They lie in `SCHEDULE_TOPIC_XXXX`, one queue per delay level, so each queue is in order of
/// delivery; the tags code of an entry is the time it is due. One timer stands at the earliest due entry of all levels;
/// an arrival in a level that was empty sets it. What was delivered is remembered in `config/delayOffset.json`, written
/// every 10 s: after a crash the messages of the last seconds may be delivered again.
final class ScheduleMessageService {
    /// Delivered at once before other work gets its turn.
    static let batchMax = 256
    static let retryMillis: Int64 = 100

    private struct Level {
        /// Milliseconds.
        var delay: Int64
        var nextOffset: Int64
        /// When the next entry is due; max when there is none.
        var dueMillis = Int64.max
    }

    private unowned let broker: Broker
    private var levels: [Level]
    private var timer: Scheduled<Void>?
    private var timerAtMillis = Int64.max
    private(set) var isDirty = false
    private var isRunning = false

    init(_ broker: Broker) {
        self.broker = broker
        levels = broker.delayLevels.map { Level(delay: $0, nextOffset: 0) }
    }

    /// Begins to deliver; a slave does not, its master's log holds the deliveries.
    func start() {
        guard !isRunning else { return }
        isRunning = true
        for index in levels.indices {
            let queue = broker.store.findConsumeQueue(topic: TopicNames.schedule, queueId: Int32(index))
            QueueWatch.of(queue).arrivalOfDelayed = { [unowned self] arrival in
                guard levels[index].dueMillis == Int64.max else { return }
                levels[index].dueMillis = due(index, arrival.tagsCode)
                arm()
            }
            queue.wantsArrival = true
            look(index)
        }
        arm()
    }

    func stop() {
        isRunning = false
        timer?.cancel()
        timer = nil
    }

    /// RocketMQ never waits longer than the level's delay, whatever the entry says.
    private func due(_ index: Int, _ deliverMillis: Int64) -> Int64 {
        let now = broker.now()
        return deliverMillis > now + levels[index].delay ? now : deliverMillis
    }

    private func queue(_ index: Int) -> ConsumeQueue? {
        broker.store.consumeQueue(topic: TopicNames.schedule, queueId: Int32(index))
    }

    /// Finds out when the level's next entry is due; corrects an offset that left the queue.
    private func look(_ index: Int) {
        levels[index].dueMillis = Int64.max
        guard let queue = queue(index) else { return }
        let offset = levels[index].nextOffset
        if offset < queue.minOffset.rawValue || offset > queue.maxOffset.rawValue {
            let corrected = offset < queue.minOffset.rawValue ? queue.minOffset : queue.maxOffset
            broker.logger.error(
                "delay level \(index + 1): offset \(offset) is outside of its queue; going on at \(corrected)")
            levels[index].nextOffset = corrected.rawValue
        }
        let next = broker.store.entries(queue, from: QueueOffset(levels[index].nextOffset), maxCount: 1)
        if let entry = next.first { levels[index].dueMillis = due(index, entry.tagsCode) }
    }

    private func arm() {
        let earliest = levels.map(\.dueMillis).min() ?? Int64.max
        guard isRunning, earliest < timerAtMillis || timer == nil, earliest < Int64.max else { return }
        timer?.cancel()
        timerAtMillis = earliest
        let service = NIOLoopBound(self, eventLoop: broker.eventLoop)
        timer = broker.eventLoop.scheduleTask(in: .milliseconds(max(1, earliest - broker.now()))) {
            service.value.deliver()
        }
    }

    private func deliver() {
        timer = nil
        timerAtMillis = Int64.max
        guard isRunning else { return }
        let now = broker.now()
        for index in levels.indices where levels[index].dueMillis <= now { deliver(index, now) }
        broker.scheduleTick()
        arm()
    }

    private func deliver(_ index: Int, _ now: Int64) {
        guard let queue = queue(index) else { return }
        let entries = broker.store.entries(
            queue, from: QueueOffset(levels[index].nextOffset), maxCount: Self.batchMax)
        for entry in entries {
            let due = due(index, entry.tagsCode)
            if due > now {
                levels[index].dueMillis = due
                return
            }
            guard redeliver(entry) else {
                // Disk full or so: the message stays where it is and is tried again.
                levels[index].dueMillis = now + Self.retryMillis
                return
            }
            levels[index].nextOffset += 1
            isDirty = true
        }
        look(index)
    }

    /// `false` when the store did not take it. An entry whose record is gone or names no topic is passed over.
    private func redeliver(_ entry: ConsumeQueueEntry) -> Bool {
        let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
        guard let bytes = broker.store.withBytes(range, { Array($0) }) else { return true }
        return bytes.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return true }
            var properties = PropertyList(record.properties)
            guard let topic = properties[PropertyName.realTopic],
                let queueId = properties[PropertyName.realQueueId].flatMap({ Int32($0) })
            else { return true }
            properties[PropertyName.delayLevel] = nil
            properties[PropertyName.waitStoreMsgOK] = "false"
            let outcome = broker.append(record, to: topic, queueId: queueId, properties: properties) { _ in }
            if case .appended = outcome { return true }
            return false
        }
    }

    // MARK: config/delayOffset.json

    var json: JSONValue {
        var offsets = JSONObject()
        for (index, level) in levels.enumerated() where level.nextOffset > 0 {
            offsets.append(rawKey: String(index + 1), .integer(level.nextOffset))
        }
        return .fields([("offsetTable", .object(offsets))])
    }

    func markWritten() { isDirty = false }

    func load(_ json: JSONValue) {
        for member in json["offsetTable"]?.object?.members ?? [] {
            guard let level = Int(member.key), level >= 1, level <= levels.count, let offset = member.value.integer
            else { continue }
            levels[level - 1].nextOffset = offset
        }
        isDirty = true
    }
}
