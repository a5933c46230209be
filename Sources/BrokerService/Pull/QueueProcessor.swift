import MessageStore
import RemotingProtocol
import StoreFormat

/// Questions about one queue: QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15), SEARCH_OFFSET_BY_TIMESTAMP (29),
/// GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
final class QueueProcessor {
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let claims: GroupClaims

    init(_ tables: BrokerTables, _ storage: StoreAccess, _ claims: GroupClaims) {
        self.tables = tables
        self.storage = storage
        self.claims = claims
    }

    /// The queue a request is about.
    private struct Asked {
        let topic: UnsafeRawBufferPointer
        let queueID: Int32
        /// `nil`: nothing was ever stored in it.
        let queue: ConsumeQueue?

        var topicName: String { String(decoding: topic, as: UTF8.self) }
    }

    private func asked(_ frame: RemotingFrame) throws(RemotingDecodeError) -> Asked {
        guard let topic = frame.extFields.bytes("topic") else { throw .missingField("topic") }
        let queueID = try frame.extFields.required(.queueID)
        return Asked(
            topic: topic, queueID: queueID, queue: storage.store.consumeQueue(topic: topic, queueID: queueID))
    }

    private func answer(_ request: borrowing Request, _ name: String, _ value: Int64) {
        request.answer(.success, fields: [(name, String(value))])
    }

    func searchOffset(_ request: borrowing Request) throws(RemotingDecodeError) {
        let asked = try asked(request.frame)
        let timestamp = try request.extFields.requiredInt64("timestamp")
        let offset = storage.store.offset(topic: asked.topicName, queueID: asked.queueID, byTimestamp: timestamp)
        answer(request, "offset", offset.rawValue)
    }

    func maxOffset(_ request: borrowing Request) throws(RemotingDecodeError) {
        answer(request, "offset", try asked(request.frame).queue?.maxOffset.rawValue ?? 0)
    }

    func minOffset(_ request: borrowing Request) throws(RemotingDecodeError) {
        answer(request, "offset", try asked(request.frame).queue?.minOffset.rawValue ?? 0)
    }

    func earliestTime(_ request: borrowing Request) throws(RemotingDecodeError) {
        let time = try asked(request.frame).queue.map { storage.store.storeTimestamp($0, at: $0.minOffset) }
        answer(request, "timestamp", time ?? -1)
    }

    /// Offsets are kept of topics and groups there are, and of queues the topic has or had. RocketMQ 5 does the same;
    /// 4.9 keeps whatever it receives.
    func commit(_ request: borrowing Request) throws(RemotingDecodeError) {
        let asked = try asked(request.frame)
        let queueID = asked.queueID
        guard let groupName = request.extFields.bytes("consumerGroup") else { throw .missingField("consumerGroup") }
        let offset = try request.extFields.required(.commitOffset)
        guard let topic = tables.topics[asked.topic] else {
            return request.answer(
                .topicNotExist,
                remark: "Topic \(asked.topicName) not exist! Its offsets cannot be kept.")
        }
        guard let group = tables.groups.find(groupName) else {
            let name = String(decoding: groupName, as: UTF8.self)
            return request.answer(
                .subscriptionGroupNotExist,
                remark: "Group \(name) not exist!" + tables.groups.remedy(for: name))
        }
        guard queueID < max(topic.config.readQueueNums, topic.config.writeQueueNums) || asked.queue != nil else {
            return request.answer(
                .systemError,
                remark: "queueId[\(queueID)] is illegal, \(topic.description): it has no such queue")
        }
        // A member that has pulled before the topic had a mode commits what it knew then, every few seconds. That would
        // be a reset, for a group whose claims say what is finished. Tools are no members.
        guard !topic.policy.isPoppedOnly || !request.client.consumerGroups.contains(group.name) else {
            return request.answer(.noPermission, remark: topic.refusal(ofPuller: group.name))
        }
        tables.offsets.commit(topic: topic, group: group, queueID: queueID, offset: offset)
        if !request.client.consumerGroups.contains(group.name) {
            claims.offsetWasSet(group: group, topic: topic, queueID: queueID)
        }
        request.answer(.success)
    }

    /// A group that never committed here begins at 0 while the queue's first message is still there and in memory.
    /// Otherwise the client decides by its consumeFromWhere.
    func consumerOffset(_ request: borrowing Request) throws(RemotingDecodeError) {
        let asked = try asked(request.frame)
        let group = try request.extFields.required("consumerGroup")
        if let offset = tables.offsets.offset(topic: asked.topicName, group: group, queueID: asked.queueID), offset >= 0
        {
            return answer(request, "offset", offset)
        }
        if (asked.queue?.minOffset.rawValue ?? 0) <= 0, !storage.isFirstMessageOnDisk(asked.queue) {
            return answer(request, "offset", 0)
        }
        request.answer(
            .queryNotFound,
            remark: "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
    }
}
