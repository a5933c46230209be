import FastJSON
import MessageModel
import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// Tables of offsets for operators. The requests are GET_TOPIC_STATS_INFO (202), GET_CONSUME_STATS (208),
/// QUERY_TOPIC_CONSUME_BY_WHO (300), QUERY_CONSUME_TIME_SPAN (303), GET_BROKER_CONSUME_STATS (317), QUERY_CONSUME_QUEUE
/// (321) and VIEW_BROKER_STATS_DATA (315). Tools of 5.x send QUERY_TOPICS_BY_CONSUMER (343) and
/// QUERY_SUBSCRIPTION_BY_CONSUMER (345).
final class ConsumeStatsProcessor {
    /// Suspended pulls of one queue that are looked at for one request.
    private static let heldPullsMax = 256

    let environment: BrokerEnvironment
    let tables: BrokerTables
    let storage: StoreAccess
    let answers: TableAnswers

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ answers: TableAnswers
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.answers = answers
    }

    func topics(_ request: borrowing Request) throws(RemotingDecodeError) {
        let topics = tables.offsets.topics(of: try request.extFields.required("group"))
        answers.answer(entries: topics.count, request.asker) { TopicList(topicList: topics).json }
    }

    private func storeTime(_ queue: ConsumeQueue?, _ offset: Int64) -> Int64 {
        guard let queue, offset >= 0 else { return 0 }
        return max(0, storage.store.storeTimestamp(queue, at: QueueOffset(offset)))
    }

    /// The topic, or the answer that there is none.
    private func topic(_ request: borrowing Request) throws(RemotingDecodeError) -> TopicEntry? {
        let name = try request.extFields.required("topic")
        if let entry = tables.topics[name] { return entry }
        request.answer(.topicNotExist, remark: "topic[\(name)] not exist")
        return nil
    }

    func topicStats(_ request: borrowing Request) throws(RemotingDecodeError) {
        guard let entry = try topic(request) else { return }
        let asker = request.asker
        var rows: [TopicRow] = []
        forEachQueue(of: entry, for: request.client, atMost: Self.queuesPerSlice) { [self] queueID in
            let queue = storage.store.consumeQueue(topic: entry.name, queueID: queueID)
            let end = queue?.maxOffset.rawValue ?? 0
            rows.append(
                TopicRow(
                    queueID: queueID, start: max(0, queue?.minOffset.rawValue ?? 0), end: end,
                    updated: end > 0 ? storeTime(queue, end - 1) : 0))
        } then: { [self] in
            let tps = entry.puts?.snapshot(.minute, .count).tps ?? 0
            let (topic, brokerName, made) = (entry.name, environment.configuration.brokerName, rows)
            rows = []
            answers.answer(entries: made.count, asker) {
                var table = JSONObject()
                for row in made { table.append(rawKey: Self.key(topic, brokerName, row.queueID), row.json) }
                return .fields([("offsetTable", .object(table)), ("topicPutTps", .number(tps))])
            }
        }
    }

    /// Goes through the queues of one topic, so many in a slice.
    private func forEachQueue(
        of topic: TopicEntry, for client: ClientContext, atMost limit: Int, _ each: @escaping (Int32) -> Void,
        then: @escaping () -> Void
    ) {
        var next: Int32 = 0
        environment.slices.work(for: client) {
            for _ in 0..<limit where next < topic.queueNums {
                each(next)
                next += 1
            }
            return next < topic.queueNums
        } then: {
            then()
        }
    }

    private func row(_ group: String, _ entry: TopicEntry, _ queueID: Int32) -> GroupRow {
        let queue = storage.store.consumeQueue(topic: entry.name, queueID: queueID)
        let consumed = max(0, tables.offsets.offset(topic: entry.name, group: group, queueID: queueID) ?? 0)
        return GroupRow(
            topic: entry.name, queueID: queueID, end: queue?.maxOffset.rawValue ?? 0, consumed: consumed,
            pulled: max(consumed, heldOffset(group, queue)), lastMilliseconds: storeTime(queue, consumed - 1))
    }

    /// The largest queue offset of the group's pulls that are suspended at a queue. It is 0 when there is none among
    /// the first `heldPullsMax`, which bounds the time on the loop. Apache 5 notes the offset with each pull.
    private func heldOffset(_ group: String, _ queue: ConsumeQueue?) -> Int64 {
        guard let watch = queue?.context as? QueueWatch, let group = tables.groups[group] else { return 0 }
        var largest: Int64 = 0
        var next = watch.pulls.first
        for _ in 0..<Self.heldPullsMax {
            guard let pull = next else { break }
            if pull.group === group { largest = max(largest, pull.queueOffset) }
            next = pull.nextInList
        }
        return largest
    }

    /// RocketMQ leaves out topics an online group no longer subscribes to.
    private func isRelevant(_ topic: String, to group: String) -> Bool {
        guard let consumers = tables.consumers[group], consumers.subscriptions.count > 0 else { return true }
        return consumers.subscriptions[topic] != nil
    }

    /// Messages a second the group has pulled of the topic within the last minute.
    private func consumeTps(_ group: String, _ topic: TopicEntry) -> Double {
        tables.groups[group]?.gets(of: topic)?.snapshot(.minute, .count).tps ?? 0
    }

    /// Queues, or topics, a slice looks at: each queue costs a look into the log …
    private static let queuesPerSlice = 128
    /// … or three of them.
    private static let timeSpansPerSlice = 48

    /// Goes through queues of groups in slices, and ends early with more rows than an answer may have.
    /// - Parameters:
    ///   - rows: what is noted.
    ///   - next: the next group and topic; nil after the last one.
    ///   - queues: how many of the topic's queues count.
    ///   - each: looks at one queue.
    ///   - begins: a group and a topic before its queues.
    private func walk(
        for client: ClientContext, noting rows: RowBounds.Rows, next: @escaping () -> (group: String, topic: String)?,
        queues: @escaping (TopicEntry) -> Int32, begins: @escaping (String, TopicEntry) -> Bool,
        each: @escaping (String, TopicEntry, Int32) -> Void,
        then: @escaping (_ refusal: (ResponseCode, String)?) -> Void
    ) {
        var refusal: (ResponseCode, String)?
        var present: (group: String, topic: TopicEntry, queueID: Int32)?
        environment.slices.work(for: client) { [self] in
            for _ in 0..<Self.queuesPerSlice {
                if let (group, topic, queueID) = present, queueID < queues(topic) {
                    present?.queueID += 1
                    rows.note()
                    each(group, topic, queueID)
                    continue
                }
                present = nil
                guard let (group, name) = next() else { return false }
                guard let topic = tables.topics[name], begins(group, topic) else { continue }
                rows.note()
                present = (group, topic, 0)
            }
            refusal = answers.rows.refusal(of: rows)
            return refusal == nil
        } then: { [self] in
            if refusal != nil { answers.rows.end(rows) }
            then(refusal)
        }
    }

    /// What is to be noted for one answer; or the answer that others are under way.
    private func beginRows(_ request: borrowing Request) -> RowBounds.Rows? {
        let client = request.client
        if let rows = answers.rows.begin(isGone: { client.connection.isClosed }) { return rows }
        request.answer(.systemBusy, remark: RowBounds.busy)
        return nil
    }

    func consumeStats(_ request: borrowing Request) throws(RemotingDecodeError) {
        let group = try request.extFields.required("consumerGroup")
        let wanted = request.extFields.string("topic") ?? ""
        let asker = request.asker
        guard let noted = beginRows(request) else { return }
        var rows: [GroupRow] = []
        var tps = 0.0
        var topics = (wanted.isEmpty ? tables.offsets.topics(of: group) : [wanted])[...]
        walk(for: request.client, noting: noted) {
            topics.popFirst().map { (group, $0) }
        } queues: { topic in
            topic.config.readQueueNums
        } begins: { [self] group, topic in
            guard isRelevant(topic.name, to: group) else { return false }
            tps += consumeTps(group, topic)
            return true
        } each: { [self] group, topic, queueID in
            rows.append(row(group, topic, queueID))
        } then: { [self] refusal in
            let (made, rate, brokerName) = (rows, tps, environment.configuration.brokerName)
            rows = []
            if let (code, remark) = refusal { return asker.answer(code, remark: remark) }
            answers.answer(entries: made.count, asker, of: noted) {
                .fields([("consumeTps", .number(rate)), ("offsetTable", .object(Self.table(made[...], brokerName)))])
            }
        }
    }

    func brokerConsumeStats(_ request: borrowing Request) throws(RemotingDecodeError) {
        let onlyOrdered = request.extFields.bool("isOrder") ?? false
        let asker = request.asker
        guard let noted = beginRows(request) else { return }
        let groups = tables.groups.all
        var left = groups[...]
        var topics: ArraySlice<String> = []
        var group = ""
        var stats: [GroupStats] = []
        var rows: [GroupRow] = []
        var total: Int64 = 0
        walk(for: request.client, noting: noted) { [self] in
            if let topic = topics.popFirst() { return (group, topic) }
            guard let entry = left.popFirst() else { return nil }
            group = entry.name
            topics = tables.offsets.topics(of: group)[...]
            // No topic has this name: the group alone is one look.
            return topics.popFirst().map { (group, $0) } ?? (group, "")
        } queues: { topic in
            topic.queueNums
        } begins: { [self] group, topic in
            guard !onlyOrdered || topic.config.order, isRelevant(topic.name, to: group) else { return false }
            stats.append(
                GroupStats(group: group, tps: consumeTps(group, topic), rows: rows.endIndex..<rows.endIndex))
            return true
        } each: { [self] group, topic, queueID in
            let row = row(group, topic, queueID)
            total = total +| (row.end -| row.consumed)
            rows.append(row)
            stats[stats.endIndex - 1].rows = stats[stats.endIndex - 1].rows.lowerBound..<rows.endIndex
        } then: { [self] refusal in
            let (made, found, difference) = (rows, stats, total)
            (rows, stats) = ([], [])
            if let (code, remark) = refusal { return asker.answer(code, remark: remark) }
            let (brokerName, brokerAddress) = (environment.configuration.brokerName, environment.configuration.address)
            let names = groups.map(\.name)
            answers.answer(entries: names.count + made.count, asker, of: noted) {
                let byGroup = Dictionary(grouping: found, by: \.group)
                let list = names.map { name in
                    let topics = (byGroup[name] ?? []).map { topic in
                        JSONValue.fields([
                            ("consumeTps", .number(topic.tps)),
                            ("offsetTable", .object(Self.table(made[topic.rows], brokerName))),
                        ])
                    }
                    return JSONValue.fields([(name, .array(topics))])
                }
                return .fields([
                    ("brokerAddr", .string(brokerAddress)), ("consumeStatsList", .array(list)),
                    ("totalDiff", .integer(difference)),
                ])
            }
        }
    }

    /// An `offsetTable`; any thread.
    private static func table(_ rows: ArraySlice<GroupRow>, _ brokerName: String) -> JSONObject {
        var table = JSONObject()
        for row in rows { table.append(rawKey: key(row.topic, brokerName, row.queueID), row.json) }
        return table
    }

    /// The key of a queue in such a table; any thread.
    private static func key(_ topic: String, _ brokerName: String, _ queueID: Int32) -> String {
        MessageQueue(topic: topic, brokerName: brokerName, queueID: queueID).json.text()
    }

    func consumedByWhom(_ request: borrowing Request) throws(RemotingDecodeError) {
        let topic = try request.extFields.required("topic")
        let asker = request.asker
        request.client.connection.awaitsAnswer = true
        tables.consumers.groups(subscribedTo: topic, in: environment.slices) { [self] online in
            let committed = tables.offsets.groups(of: topic)
            answers.answer(entries: online.count + committed.count, asker) {
                .fields([("groupList", .strings(Set(online + committed).sorted()))])
            }
        }
    }

    func timeSpan(_ request: borrowing Request) throws(RemotingDecodeError) {
        guard let entry = try topic(request) else { return }
        let group = try request.extFields.required("group")
        let asker = request.asker
        let now = environment.now()
        var rows: [TimeSpanRow] = []
        forEachQueue(of: entry, for: request.client, atMost: Self.timeSpansPerSlice) { [self] queueID in
            let queue = storage.store.consumeQueue(topic: entry.name, queueID: queueID)
            let end = queue?.maxOffset.rawValue ?? 0
            let consumed = tables.offsets.offset(topic: entry.name, group: group, queueID: queueID) ?? -1
            let first = queue.map { storage.store.storeTimestamp($0, at: $0.minOffset) } ?? -1
            rows.append(
                TimeSpanRow(
                    queueID: queueID, first: first, last: storeTime(queue, end - 1),
                    consumed: consumed > 0 ? storeTime(queue, consumed - 1) : first,
                    delay: consumed < end ? now -| storeTime(queue, max(0, consumed)) : 0))
        } then: { [self] in
            let (topic, brokerName, made) = (entry.name, environment.configuration.brokerName, rows)
            rows = []
            answers.answer(entries: made.count, asker) {
                .fields([("consumeTimeSpanSet", .array(made.map { $0.json(topic, brokerName) }))])
            }
        }
    }

    func subscription(_ request: borrowing Request) throws(RemotingDecodeError) {
        let group = try request.extFields.required("group")
        let topic = request.extFields.string("topic") ?? ""
        let subscriptions = tables.consumers[group]?.subscriptions
        let wanted = topic.isEmpty ? subscriptions?.values ?? [] : [subscriptions?[topic]].compactMap { $0 }
        let found = wanted.map(\.data)
        answers.answer(entries: found.count, request.asker) {
            .fields([
                ("group", .string(group)), ("subscriptionData", .array(found.map(\.json))), ("topic", .string(topic)),
            ])
        }
    }

    func consumeQueue(_ request: borrowing Request) throws(RemotingDecodeError) {
        let fields = request.extFields
        let topic = try fields.required("topic")
        let queueID = try fields.required(.queueID)
        guard let queue = storage.store.consumeQueue(topic: topic, queueID: queueID) else {
            return request.answer(.systemError, remark: "\(queueID)@\(topic) is not exist!")
        }
        let count = min(max(0, try fields.requiredInt32("count")), 10_000)
        let group = fields.string("consumerGroup")
        let subscription = group.flatMap { tables.consumers[$0]?.subscriptions[topic] }
        let index = try fields.requiredInt64("index")
        guard index >= queue.minOffset.rawValue, index < queue.maxOffset.rawValue else {
            return request.answer(.success, remark: "Index \(index) of \(queueID)@\(topic) is not exist!")
        }
        let entries = storage.store.entries(queue, from: QueueOffset(index), maxCount: Int(count))
        let (start, end) = (queue.minOffset.rawValue, queue.maxOffset.rawValue)
        // RocketMQ's compiled expressions are not ours; its tools print the word.
        let filter = group.map { JSONValue.string(subscription == nil ? "\($0)@\(topic) is not online!" : "null") }
        let wanted = subscription?.data.json
        // Where a deleted message was stored first: readers get an entry that points at nothing.
        var deleted: [Int: Int64] = [:]
        for (position, entry) in entries.enumerated() where entry == .deleted {
            deleted[position] = storage.store.firstPlace(queue, at: QueueOffset(index) + position)?.rawValue ?? 0
        }
        let places = deleted
        answers.answer(entries: entries.count, request.asker) {
            let data = entries.enumerated().map { (position, entry) -> JSONValue in
                if let place = places[position] {
                    return .fields([
                        ("eval", .bool(false)), ("physicOffset", .integer(place)), ("physicSize", .integer(0)),
                        ("tagsCode", .integer(0)), ("msg", .string("the message is deleted")),
                    ])
                }
                return .fields([
                    ("eval", .bool(false)), ("physicOffset", .integer(entry.physicalOffset.rawValue)),
                    ("physicSize", .integer(entry.recordSize)), ("tagsCode", .integer(entry.tagsCode)),
                ])
            }
            return .fields([
                ("filterData", filter), ("maxQueueIndex", .integer(end)), ("minQueueIndex", .integer(start)),
                ("queueData", .array(data)), ("subscriptionData", wanted),
            ])
        }
    }
}
