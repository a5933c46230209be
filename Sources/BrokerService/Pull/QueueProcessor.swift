import MessageStore
import RemotingProtocol
import StoreFormat

/// Questions about one queue: QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15), SEARCH_OFFSET_BY_TIMESTAMP (29),
/// GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
final class QueueProcessor {
    private let tables: BrokerTables
    private let storage: StoreAccess

    init(_ tables: BrokerTables, _ storage: StoreAccess) {
        self.tables = tables
        self.storage = storage
    }

    /// The queue a request is about.
    private struct Asked {
        let topic: UnsafeRawBufferPointer
        let queueId: Int32
        /// `nil`: nothing was ever stored in it.
        let queue: ConsumeQueue?

        var topicName: String { String(decoding: topic, as: UTF8.self) }
    }

    private func asked(_ frame: RemotingFrame) throws(RemotingDecodeError) -> Asked {
        guard let topic = frame.extFields.bytes("topic") else { throw .missingField("topic") }
        let queueId = try frame.extFields.required(.queueID)
        return Asked(
            topic: topic, queueId: queueId, queue: storage.store.consumeQueue(topic: topic, queueId: queueId))
    }

    private func answer(_ frame: RemotingFrame, _ client: ClientContext, _ name: String, _ value: Int64) {
        client.answer(frame.returnAddress, .success, fields: [(name, String(value))])
    }

    func searchOffset(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let asked = try asked(frame)
        let timestamp = try frame.extFields.requiredInt64("timestamp")
        let offset = storage.store.offset(topic: asked.topicName, queueId: asked.queueId, byTimestamp: timestamp)
        answer(frame, client, "offset", offset.rawValue)
    }

    func maxOffset(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        answer(frame, client, "offset", try asked(frame).queue?.maxOffset.rawValue ?? 0)
    }

    func minOffset(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        answer(frame, client, "offset", try asked(frame).queue?.minOffset.rawValue ?? 0)
    }

    func earliestTime(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let time = try asked(frame).queue.map { storage.store.storeTimestamp($0, at: $0.minOffset) }
        answer(frame, client, "timestamp", time ?? -1)
    }

    /// Offsets are kept of topics and groups there are (as RocketMQ 5 has it; 4.9 keeps whatever it is told), and of queues
    /// the topic has or had.
    func commit(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let asked = try asked(frame)
        let queueId = asked.queueId
        guard let groupName = frame.extFields.bytes("consumerGroup") else { throw .missingField("consumerGroup") }
        let offset = try frame.extFields.required(.commitOffset)
        guard let topic = tables.topics[asked.topic] else {
            return client.answer(
                frame.returnAddress, .topicNotExist,
                remark: "Topic \(asked.topicName) not exist! Its offsets cannot be kept.")
        }
        guard let group = tables.groups.find(groupName) else {
            let name = String(decoding: groupName, as: UTF8.self)
            return client.answer(
                frame.returnAddress, .subscriptionGroupNotExist,
                remark: "Group \(name) not exist!" + tables.groups.remedy(for: name))
        }
        guard queueId < max(topic.config.readQueueNums, topic.config.writeQueueNums) || asked.queue != nil else {
            return client.answer(
                frame.returnAddress, .systemError,
                remark: "queueId[\(queueId)] is illegal, \(topic.description): it has no such queue")
        }
        tables.offsets.commit(topic: topic, group: group, queueId: queueId, offset: offset)
        client.answer(frame.returnAddress, .success)
    }

    /// A group that never committed here begins at 0 while the queue's first message is still there and in memory;
    /// otherwise the client decides by its consumeFromWhere.
    func consumerOffset(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let asked = try asked(frame)
        let group = try frame.extFields.required("consumerGroup")
        if let offset = tables.offsets.offset(topic: asked.topicName, group: group, queueId: asked.queueId), offset >= 0
        {
            return answer(frame, client, "offset", offset)
        }
        if (asked.queue?.minOffset.rawValue ?? 0) <= 0, !storage.isFirstMessageOnDisk(asked.queue) {
            return answer(frame, client, "offset", 0)
        }
        client.answer(
            frame.returnAddress, .queryNotFound,
            remark: "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
    }
}
