import MessageStore
import RemotingProtocol
import StoreFormat

/// Questions about one queue: QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15), SEARCH_OFFSET_BY_TIMESTAMP (29),
/// GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
final class QueueProcessor {
    // The broker owns this and outlives it.
    private unowned(unsafe) let broker: Broker

    init(_ broker: Broker) { self.broker = broker }

    func process(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let fields = frame.extFields
        guard let topic = fields.bytes("topic") else { throw .missingField("topic") }
        let queueId = try fields.required(.queueID)
        func answer(_ name: String, _ value: Int64) {
            client.answer(frame.returnAddress, .success, fields: [(name, String(value))])
        }
        let queue = broker.store.consumeQueue(topic: topic, queueId: queueId)
        switch RequestCode(rawValue: frame.code) {
        case .queryConsumerOffset: try queryConsumerOffset(frame, client, topic, queueId, queue)
        case .updateConsumerOffset: try commit(frame, client, topic, queueId, queue)
        case .searchOffsetByTimestamp:
            let timestamp = try fields.requiredInt64("timestamp")
            let name = String(decoding: topic, as: UTF8.self)
            answer("offset", broker.store.offset(topic: name, queueId: queueId, byTimestamp: timestamp).rawValue)
        case .getMaxOffset: answer("offset", queue?.maxOffset.rawValue ?? 0)
        case .getMinOffset: answer("offset", queue?.minOffset.rawValue ?? 0)
        case .getEarliestMessageStoreTime:
            answer("timestamp", queue.map { broker.store.storeTimestamp($0, at: $0.minOffset) } ?? -1)
        default: preconditionFailure("not a request about a queue: \(frame.code)")
        }
    }

    /// Offsets are kept of topics and groups there are (as RocketMQ 5 has it; 4.9 keeps whatever it is told), and of queues
    /// the topic has or had.
    private func commit(
        _ frame: RemotingFrame, _ client: ClientContext, _ name: UnsafeRawBufferPointer, _ queueId: Int32,
        _ queue: ConsumeQueue?
    ) throws(RemotingDecodeError) {
        guard let groupName = frame.extFields.bytes("consumerGroup") else { throw .missingField("consumerGroup") }
        let offset = try frame.extFields.required(.commitOffset)
        guard let topic = broker.topics[name] else {
            return client.answer(
                frame.returnAddress, .topicNotExist,
                remark: "Topic \(String(decoding: name, as: UTF8.self)) not exist! Its offsets cannot be kept.")
        }
        guard let group = broker.groups.find(groupName) else {
            let name = String(decoding: groupName, as: UTF8.self)
            return client.answer(
                frame.returnAddress, .subscriptionGroupNotExist,
                remark: "Group \(name) not exist!" + broker.groups.remedy(for: name))
        }
        guard queueId < max(topic.config.readQueueNums, topic.config.writeQueueNums) || queue != nil else {
            return client.answer(
                frame.returnAddress, .systemError,
                remark: "queueId[\(queueId)] is illegal, \(topic.description): it has no such queue")
        }
        broker.offsets.commit(topic: topic, group: group, queueId: queueId, offset: offset)
        client.answer(frame.returnAddress, .success)
    }

    /// A group that never committed here begins at 0 while the queue's first message is still there and in memory;
    /// otherwise the client decides by its consumeFromWhere.
    private func queryConsumerOffset(
        _ frame: RemotingFrame, _ client: ClientContext, _ topic: UnsafeRawBufferPointer, _ queueId: Int32,
        _ queue: ConsumeQueue?
    ) throws(RemotingDecodeError) {
        let group = try frame.extFields.required("consumerGroup")
        let name = String(decoding: topic, as: UTF8.self)
        if let offset = broker.offsets.offset(topic: name, group: group, queueId: queueId), offset >= 0 {
            return client.answer(frame.returnAddress, .success, fields: [("offset", String(offset))])
        }
        if (queue?.minOffset.rawValue ?? 0) <= 0, !broker.isFirstMessageOnDisk(queue) {
            return client.answer(frame.returnAddress, .success, fields: [("offset", "0")])
        }
        client.answer(
            frame.returnAddress, .queryNotFound,
            remark: "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
    }
}
