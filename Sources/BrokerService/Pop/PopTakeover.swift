import Claims
import Logging
import MessageModel
import MessageStore
import StoreFormat

/// Pops in flight in a store RocketMQ has written: messages its clients had in hand become claims. They are in its
/// revive log (topic `rmq_sys_REVIVE_LOG_cluster`), and for as long as their time is not over among the timer messages.
/// How far both were read is in the table of offsets, under RocketMQ's group of the revive log. So it is done once, and
/// goes on from there when RocketMQ has had the store back. Blocks; used while the broker opens.
final class PopTakeover {
    /// Entries read from a queue at once.
    static let batch = 512
    /// Entries from which on the log is told before they are read.
    static let longEntries: Int64 = 100_000
    private static let tags = Set(["ck", "ack", "bAck"].map { TagsCode.of($0) })

    /// Messages of a queue a group has in hand.
    struct Place {
        let group: GroupName
        let topic: TopicName
        let queue: ConsumeQueue
        /// Ascending, inside the queue, all below `end`.
        let messages: [RevivedPops.Message]
        /// The first offset that was never handed out.
        let end: Int64
    }

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let messages: MessageStore
    private var pops: RevivedPops
    /// What the group of the revive log has read.
    private var marks: [(topic: TopicName, queueID: Int32, offset: Int64)] = []
    private(set) var places: [Place] = []
    private var unreadable = 0
    private var firstUnreadable = ""

    init(_ environment: BrokerEnvironment, _ tables: BrokerTables, _ messages: MessageStore) {
        self.environment = environment
        self.tables = tables
        self.messages = messages
        pops = RevivedPops(brokerName: environment.configuration.brokerName)
    }

    /// Something was read that must not be read again.
    var hasRead: Bool { pops.count + unreadable > 0 }

    // MARK: - Reading

    /// Reads what is new. The message store is open, the tables are loaded.
    /// - Parameter delivered: which timer messages are in the revive log by now.
    func read(delivered: TimerWheel.Progress?) {
        let queues = messages.consumeQueues.filter { TopicNames.isRevive($0.topic) }
        guard !queues.isEmpty || tables.topics.names.contains(where: TopicNames.isRevive) else { return }
        for queue in queues { readRevived(queue) }
        readWaiting(delivered)
        guard hasRead else { return }
        sort()
    }

    private func committed(_ topic: String, _ queueID: Int32) -> Int64? {
        tables.offsets.offset(topic: topic, group: TopicNames.reviveGroup.text, queueID: queueID)
    }

    /// RocketMQ commits the last record it has worked off, and begins behind it.
    private func readRevived(_ queue: ConsumeQueue) {
        guard let topic = try? TopicName(existing: queue.topic) else { return }
        let last = queue.maxOffset.rawValue - 1
        let known = committed(queue.topic, queue.queueID) ?? -1
        guard known != last else { return }
        marks.append((topic, queue.queueID, last))
        read(queue, from: known +| 1)
    }

    /// Records that wait for their time. They are not stored in the revive log any more: `TimerMessageStore` knows.
    private func readWaiting(_ delivered: TimerWheel.Progress?) {
        guard let queue = messages.consumeQueue(topic: TopicNames.timer, queueID: 0) else { return }
        let end = queue.maxOffset.rawValue
        let known = committed(TopicNames.timer, 0) ?? 0
        guard known != end else { return }
        marks.append((.timer, 0, end))
        // A log that has come back shorter has other records there.
        var from = known < end ? known : 0
        if let due = delivered?.watermark.due, due > 0 {
            // What waits for a time behind that one was stored so long before it at most.
            let stored = messages.offset(
                topic: TopicNames.timer, queueID: 0, byTimestamp: due -| .claimInvisibleMax, boundary: .lower)
            from = max(from, stored.rawValue)
        }
        read(queue, from: from, tags: Self.tags) { record, offset in
            guard let topic = record.property(PropertyName.realTopic), TopicNames.isRevive(topic) else { return false }
            let due = record.property(PropertyName.timerOutMilliseconds).flatMap(TimerProperties.integer) ?? 0
            guard let delivered else { return true }
            return TimerKey(due: due, sequence: offset) > delivered.watermark || offset >= delivered.ingested
        }
    }

    /// - Parameters:
    ///   - tags: codes of the entries that are looked at; nil: all.
    ///   - isWanted: asked before the record's checksums are; nearly all timer messages are delivered.
    private func read(
        _ queue: ConsumeQueue, from start: Int64, tags: Set<Int64>? = nil,
        isWanted: (CommitLogRecordView, Int64) -> Bool = { _, _ in true }
    ) {
        let end = queue.maxOffset.rawValue
        var offset = max(start, queue.minOffset.rawValue)
        if end - offset >= Self.longEntries {
            environment.logger.notice(
                "\(end - offset) entries of topic \(queue.topic), queue \(queue.queueID), are read for popped messages")
        }
        while offset < end {
            let entries = messages.entries(queue, from: QueueOffset(offset), maxCount: Self.batch)
            // Said by the store.
            guard !entries.isEmpty else { return note("the queue \(queue.topic)-\(queue.queueID) ends at \(offset)") }
            for entry in entries {
                defer { offset += 1 }
                guard !entry.isEmpty, entry != .preBlank, entry != .deleted, tags?.contains(entry.tagsCode) ?? true
                else { continue }
                let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
                guard look(range, { isWanted($0, offset) }) ?? true else { continue }
                guard messages.holdsMessage(range), look(range, add) != nil else {
                    note("\(queue.topic)-\(queue.queueID) offset \(offset): the log does not hold it")
                    continue
                }
            }
        }
    }

    /// What `body` makes of the record; nil when there is none.
    private func look<R>(_ range: LogRange, _ body: (CommitLogRecordView) -> R) -> R? {
        let result: R?? = messages.withBytes(range) { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return nil }
            return body(record)
        }
        return result ?? nil
    }

    private func add(_ record: CommitLogRecordView) {
        let tag = record.property(PropertyName.tags).map { String(decoding: $0, as: UTF8.self) } ?? ""
        do throws(RevivedPops.Unreadable) {
            try pops.add(tag: tag, record.body)
        } catch {
            note("the record at \(record.physicalOffset.rawValue) of the log: \(error)")
        }
    }

    private func note(_ reason: String) {
        if unreadable == 0 { firstUnreadable = reason }
        unreadable += 1
    }

    // MARK: - What it means

    private func sort() {
        var gone = 0
        for (key, left) in pops.left() where !left.messages.isEmpty {
            guard let topic = tables.topics[key.topic], let group = tables.groups[key.group],
                let queue = messages.consumeQueue(topic: key.topic, queueID: key.queueID)
            else {
                gone += left.messages.count
                continue
            }
            // RocketMQ's offset of a popping group is the next one never handed out. What lies behind comes anyway.
            let stored = tables.offsets.offset(topic: key.topic, group: key.group, queueID: key.queueID) ?? -1
            let end = min(stored >= 0 ? stored : left.end, queue.maxOffset.rawValue)
            let inside = left.messages.filter { $0.offset < end }
            let kept = inside.filter { $0.offset >= queue.minOffset.rawValue }
            gone += inside.count - kept.count
            guard !kept.isEmpty else { continue }
            places.append(
                Place(group: group.groupName, topic: topic.topicName, queue: queue, messages: kept, end: end))
        }
        let count = places.reduce(0) { $0 + $1.messages.count }
        environment.logger.notice(
            """
            \(pops.count) records of RocketMQ's revive log were read: \(count) popped messages were not acknowledged \
            and come again when their time is over; \(gone) more are gone with their topic, group or log file
            """
        )
        guard unreadable > 0 else { return }
        environment.logger.warning(
            """
            \(unreadable) records of RocketMQ's revive log are not readable and left out, the first one because \
            \(firstUnreadable); messages they tell of may not come again: reset the offsets of popping groups to where \
            they were before the move, should any be missing
            """
        )
    }

    /// Notes in the table of offsets what was read.
    func commit() {
        for mark in marks {
            tables.offsets.commit(
                topic: mark.topic, group: TopicNames.reviveGroup, queueID: mark.queueID, offset: mark.offset)
        }
    }
}
