import FastJSON
import MessageModel
import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// Tables of offsets for operators: GET_TOPIC_STATS_INFO (202), GET_CONSUME_STATS (208), QUERY_TOPIC_CONSUME_BY_WHO
/// (300), QUERY_CONSUME_TIME_SPAN (303), GET_BROKER_CONSUME_STATS (317), QUERY_CONSUME_QUEUE (321), VIEW_BROKER_STATS_DATA (315), and of
/// 5.x tools QUERY_TOPICS_BY_CONSUMER (343) and QUERY_SUBSCRIPTION_BY_CONSUMER (345).
final class ConsumeStatsProcessor {
    /// Suspended pulls of one queue that are looked at for one request.
    private static let heldPullsMax = 256

    private unowned let broker: Broker

    init(_ broker: Broker) { self.broker = broker }

    func topics(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let topics = broker.offsets.topics(of: try frame.extFields.required("group"))
        client.answer(frame.returnAddress, .success, body: TopicList(topicList: topics).encoded())
    }

    private func key(_ topic: String, _ queueId: Int32) -> String {
        MessageQueue(topic: topic, brokerName: broker.configuration.brokerName, queueID: queueId).json.text()
    }

    private func storeTime(_ queue: ConsumeQueue?, _ offset: Int64) -> Int64 {
        guard let queue, offset >= 0 else { return 0 }
        return max(0, broker.store.storeTimestamp(queue, at: QueueOffset(offset)))
    }

    /// The topic, or the answer that there is none.
    private func topic(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) -> TopicEntry? {
        let name = try frame.extFields.required("topic")
        if let entry = broker.topics[name] { return entry }
        client.answer(frame.returnAddress, .topicNotExist, remark: "topic[\(name)] not exist")
        return nil
    }

    func topicStats(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        guard let entry = try topic(frame, client) else { return }
        var table = JSONObject()
        for queueId in 0..<entry.queueNums {
            let queue = broker.store.consumeQueue(topic: entry.name, queueId: queueId)
            let end = queue?.maxOffset.rawValue ?? 0
            let start = max(0, queue?.minOffset.rawValue ?? 0)
            let updated = end > 0 ? storeTime(queue, end - 1) : 0
            table.append(
                rawKey: key(entry.name, queueId),
                JSONValue.fields([
                    ("lastUpdateTimestamp", .integer(updated)), ("maxOffset", .integer(end)),
                    ("minOffset", .integer(start)),
                ]))
        }
        let tps = entry.puts?.snapshot(.minute, .count).tps ?? 0
        let body = JSONValue.fields([("offsetTable", .object(table)), ("topicPutTps", .number(tps))])
        client.answer(frame.returnAddress, .success, body: body.bytes())
    }

    /// One group's place in one topic, queue by queue; `difference` is what it has not consumed.
    private func offsetTable(_ group: String, _ entry: TopicEntry, queues: Int32) -> (JSONObject, difference: Int64) {
        var table = JSONObject()
        var difference: Int64 = 0
        for queueId in 0..<max(0, queues) {
            let queue = broker.store.consumeQueue(topic: entry.name, queueId: queueId)
            let end = queue?.maxOffset.rawValue ?? 0
            let consumed = max(0, broker.offsets.offset(topic: entry.name, group: group, queueId: queueId) ?? 0)
            let pulled = max(consumed, heldOffset(group, queue))
            difference = difference +| (end -| consumed)
            table.append(
                rawKey: key(entry.name, queueId),
                .fields([
                    ("brokerOffset", .integer(end)), ("consumerOffset", .integer(consumed)),
                    ("lastTimestamp", .integer(storeTime(queue, consumed - 1))),
                    ("pullOffset", .integer(pulled)),
                ]))
        }
        return (table, difference)
    }

    /// The largest queue offset of the group's pulls that are suspended at a queue; 0 when there is none among the first
    /// `heldPullsMax`, which bounds the time on the loop. Apache 5 notes the offset with each pull.
    private func heldOffset(_ group: String, _ queue: ConsumeQueue?) -> Int64 {
        guard let watch = queue?.context as? QueueWatch else { return 0 }
        var largest: Int64 = 0
        var next = watch.pulls.first
        for _ in 0..<Self.heldPullsMax {
            guard let pull = next else { break }
            if pull.group.name == group { largest = max(largest, pull.queueOffset) }
            next = pull.nextInList
        }
        return largest
    }

    /// RocketMQ leaves out topics an online group no longer subscribes to.
    private func isRelevant(_ topic: String, to group: String) -> Bool {
        guard let consumers = broker.consumers[group], consumers.subscriptions.count > 0 else { return true }
        return consumers.subscriptions[topic] != nil
    }

    /// Messages a second the group has pulled of the topic within the last minute.
    private func consumeTps(_ group: String, _ topic: TopicEntry) -> Double {
        broker.groups[group]?.gets(of: topic)?.snapshot(.minute, .count).tps ?? 0
    }

    // MARK: VIEW_BROKER_STATS_DATA

    func stats(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let name = try frame.extFields.required("statsName")
        let key = try frame.extFields.required("statsKey")
        guard let (item, measure) = statsItem(name, key) else {
            return client.answer(
                frame.returnAddress, .systemError, remark: "The stats <\(name)> <\(key)> not exist")
        }
        func window(_ window: StatsItem.Window) -> JSONValue {
            let snapshot = item.snapshot(window, measure)
            return .fields([
                ("avgpt", .number(snapshot.average)), ("sum", .integer(snapshot.sum)), ("tps", .number(snapshot.tps)),
            ])
        }
        let body = JSONValue.fields([
            ("statsDay", window(.day)), ("statsHour", window(.hour)), ("statsMinute", window(.minute)),
        ])
        client.answer(frame.returnAddress, .success, body: body.bytes())
    }

    /// By RocketMQ's names and keys. Not kept: GROUP_GET_LATENCY (a pull is answered within the tick that reads it), and what
    /// RocketMQ 4.9 lists but never counts (GROUP_GET_FROM_DISK_NUMS and the like).
    private func statsItem(_ name: String, _ key: String) -> (StatsItem, StatsItem.Measure)? {
        func ofGroup() -> StatsItem? {
            guard let at = key.firstIndex(of: "@"), let topic = broker.topics[String(key[..<at])] else { return nil }
            return broker.groups[String(key[key.index(after: at)...])]?.gets(of: topic)
        }
        func ofBroker(_ item: StatsItem) -> StatsItem? {
            key == broker.configuration.brokerClusterName ? item : nil
        }
        func ofLevel(_ items: [Int32: StatsItem], _ suffix: String) -> StatsItem? {
            let parts = key.split(separator: "@", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count >= 2, parts[0] == TopicNames.schedule, (parts.count == 3 ? parts[2] : "") == suffix
            else { return nil }
            return Int32(parts[1]).flatMap { items[$0] }
        }
        if name == "GROUP_GET_NUMS" || name == "GROUP_GET_SIZE",
            key == "\(TopicNames.schedule)@\(ScheduleMessageService.group)"
        {
            return broker.stats.deliveredInAll.map { ($0, name == "GROUP_GET_NUMS" ? .count : .bytes) }
        }
        switch name {
        case "QUEUE_PUT_NUMS": return ofLevel(broker.stats.delayed, "").map { ($0, .count) }
        case "QUEUE_PUT_SIZE": return ofLevel(broker.stats.delayed, "").map { ($0, .bytes) }
        case "QUEUE_GET_NUMS": return ofLevel(broker.stats.delivered, ScheduleMessageService.group).map { ($0, .count) }
        case "QUEUE_GET_SIZE": return ofLevel(broker.stats.delivered, ScheduleMessageService.group).map { ($0, .bytes) }
        case "TOPIC_PUT_NUMS": return broker.topics[key]?.puts.map { ($0, .count) }
        case "TOPIC_PUT_SIZE": return broker.topics[key]?.puts.map { ($0, .bytes) }
        case "GROUP_GET_NUMS": return ofGroup().map { ($0, .count) }
        case "GROUP_GET_SIZE": return ofGroup().map { ($0, .bytes) }
        case "SNDBCK_PUT_NUMS": return broker.stats.sendBacks[key].map { ($0, .count) }
        case "BROKER_PUT_NUMS": return ofBroker(broker.stats.brokerPuts).map { ($0, .count) }
        case "BROKER_GET_NUMS": return ofBroker(broker.stats.brokerGets).map { ($0, .count) }
        default: return nil
        }
    }

    /// Queues a slice looks at before it stops: each costs a look into the log.
    static let queuesPerSlice = 256

    /// Goes through topics of groups in slices; `each` returns the number of queues it has looked at.
    private func walk(
        _ pairs: [(group: String, topic: TopicEntry)], _ client: ClientContext,
        _ each: @escaping (String, TopicEntry) -> Int, then: @escaping () -> Void
    ) {
        var left = pairs[...]
        let slice = { () -> Bool in
            guard !client.connection.isClosed else { return false }
            var queues = 0
            while queues < Self.queuesPerSlice, let (group, topic) = left.popFirst() {
                queues += max(1, each(group, topic))
            }
            guard left.isEmpty else { return true }
            then()
            return false
        }
        if slice() {
            client.connection.awaitsAnswer = true
            broker.slices.add(slice)
        }
    }

    func consumeStats(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let group = try frame.extFields.required("consumerGroup")
        let wanted = frame.extFields.string("topic") ?? ""
        let address = frame.returnAddress
        var table = JSONObject()
        var tps = 0.0
        let pairs = (wanted.isEmpty ? broker.offsets.topics(of: group) : [wanted]).compactMap { topic in
            isRelevant(topic, to: group) ? broker.topics[topic].map { (group, $0) } : nil
        }
        walk(pairs, client) { [self] group, entry in
            let members = offsetTable(group, entry, queues: entry.config.readQueueNums).0.members
            table.members.append(contentsOf: members)
            tps += consumeTps(group, entry)
            return members.count
        } then: { [self] in
            let body = JSONValue.fields([("consumeTps", .number(tps)), ("offsetTable", .object(table))])
            broker.answer(with: body, entries: table.count, address, client)
        }
    }

    func brokerConsumeStats(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let onlyOrdered = frame.extFields.bool("isOrder") ?? false
        let address = frame.returnAddress
        let groups = broker.groups.all.map(\.name)
        let pairs = groups.flatMap { group in
            broker.offsets.topics(of: group).compactMap { topic in broker.topics[topic].map { (group, $0) } }
        }
        var stats: [String: [JSONValue]] = [:]
        var total: Int64 = 0
        var entries = groups.count
        walk(pairs, client) { [self] group, entry in
            guard !onlyOrdered || entry.config.order, isRelevant(entry.name, to: group) else { return 1 }
            let (table, difference) = offsetTable(group, entry, queues: entry.queueNums)
            total = total +| difference
            entries += table.count
            stats[group, default: []].append(
                .fields([("consumeTps", .number(consumeTps(group, entry))), ("offsetTable", .object(table))]))
            return table.count
        } then: { [self] in
            let list = groups.map { JSONValue.fields([($0, .array(stats[$0] ?? []))]) }
            let body = JSONValue.fields([
                ("brokerAddr", .string(broker.configuration.address)), ("consumeStatsList", .array(list)),
                ("totalDiff", .integer(total)),
            ])
            broker.answer(with: body, entries: entries, address, client)
        }
    }

    func consumedByWhom(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let topic = try frame.extFields.required("topic")
        let address = frame.returnAddress
        client.connection.awaitsAnswer = true
        broker.consumers.groups(subscribedTo: topic, in: broker.slices) { [broker] online in
            let groups = Set(online + broker.offsets.groups(of: topic))
            client.connection.awaitsAnswer = false
            client.answer(
                address, .success, body: JSONValue.fields([("groupList", .strings(groups.sorted()))]).bytes())
        }
    }

    func timeSpan(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        guard let entry = try topic(frame, client) else { return }
        let group = try frame.extFields.required("group")
        let now = broker.now()
        let spans = (0..<entry.queueNums).map { queueId -> JSONValue in
            let queue = broker.store.consumeQueue(topic: entry.name, queueId: queueId)
            let end = queue?.maxOffset.rawValue ?? 0
            let consumed = broker.offsets.offset(topic: entry.name, group: group, queueId: queueId) ?? -1
            let first = queue.map { broker.store.storeTimestamp($0, at: $0.minOffset) } ?? -1
            let consumeTime = consumed > 0 ? storeTime(queue, consumed - 1) : first
            let delay = consumed < end ? now -| storeTime(queue, max(0, consumed)) : 0
            let last = storeTime(queue, end - 1)
            let name = MessageQueue(
                topic: entry.name, brokerName: broker.configuration.brokerName, queueID: queueId)
            return JSONValue.fields([
                ("consumeTimeStamp", .integer(consumeTime)), ("delayTime", .integer(delay)),
                ("maxTimeStamp", .integer(last)), ("messageQueue", name.json), ("minTimeStamp", .integer(first)),
            ])
        }
        client.answer(
            frame.returnAddress, .success,
            body: JSONValue.fields([("consumeTimeSpanSet", .array(spans))]).bytes())
    }

    func subscription(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let group = try frame.extFields.required("group")
        let topic = frame.extFields.string("topic") ?? ""
        let all = broker.consumers[group]?.subscriptions.values ?? []
        let wanted = all.filter { topic.isEmpty || $0.topic == topic }.map(\.data.json)
        let body = JSONValue.fields([
            ("group", .string(group)), ("subscriptionData", .array(wanted)), ("topic", .string(topic)),
        ])
        client.answer(frame.returnAddress, .success, body: body.bytes())
    }

    func consumeQueue(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let fields = frame.extFields
        let topic = try fields.required("topic")
        let queueId = try fields.required(.queueID)
        guard let queue = broker.store.consumeQueue(topic: topic, queueId: queueId) else {
            return client.answer(
                frame.returnAddress, .systemError, remark: "\(queueId)@\(topic) is not exist!")
        }
        let count = min(max(0, try fields.requiredInt32("count")), 10_000)
        let group = fields.string("consumerGroup")
        let subscription = group.flatMap { broker.consumers[$0]?.subscriptions[topic] }
        let index = try fields.requiredInt64("index")
        guard index >= queue.minOffset.rawValue, index < queue.maxOffset.rawValue else {
            return client.answer(
                frame.returnAddress, .success, remark: "Index \(index) of \(queueId)@\(topic) is not exist!")
        }
        let entries = broker.store.entries(queue, from: QueueOffset(index), maxCount: Int(count))
        let body = JSONValue.fields([
            // RocketMQ's compiled expressions are not ours; its tools print the word.
            ("filterData", group.map { .string(subscription == nil ? "\($0)@\(topic) is not online!" : "null") }),
            ("maxQueueIndex", .integer(queue.maxOffset.rawValue)),
            ("minQueueIndex", .integer(queue.minOffset.rawValue)),
            (
                "queueData",
                .array(
                    entries.map { entry in
                        .fields([
                            ("eval", .bool(false)), ("physicOffset", .integer(entry.physicalOffset.rawValue)),
                            ("physicSize", .integer(entry.recordSize)), ("tagsCode", .integer(entry.tagsCode)),
                        ])
                    })
            ), ("subscriptionData", subscription?.data.json),
        ])
        broker.answer(with: body, entries: entries.count, frame.returnAddress, client)
    }
}
