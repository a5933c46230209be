import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Sending a message once more.
extension MessageEditor {
    /// On messages that were sent anew: the ID of the message they are copies of, and who sent them.
    static let resentFrom = "APUS_RESENT_FROM"
    static let resentBy = "APUS_RESENT_BY"

    /// What belongs to the first message alone.
    private static let dropped = [
        "DELAY", "WAIT", "REAL_TOPIC", "REAL_QID", "RETRY_TOPIC", "ORIGIN_MESSAGE_ID", "TRAN_MSG", "PGROUP",
        "RECONSUME_TIME", "MAX_RECONSUME_TIMES", "CONSUME_START_TIME", "POP_CK", "1ST_POP_TIME", "APUS_EDIT",
        "TIMER_DELAY_SEC", "TIMER_DELAY_MS", "TIMER_DELIVER_MS", "TIMER_OUT_MS", "TIMER_ENQUEUE_MS",
        "TIMER_DEQUEUE_MS", "TIMER_ROLL_TIMES", "DEAD_LETTER_REASON", "UNDELIVERABLE_REASON", "APUS_HALF_OFFSET",
        "TRANSACTION_CHECK_TIMES", "TRAN_PREPARED_QUEUE_OFFSET",
    ]

    /// In these, REAL_TOPIC is the broker's word; elsewhere clients may have written it.
    private static let brokersWord: Set<String> = [
        TopicNames.schedule, TopicNames.timer, TopicNames.transactionCheckMaxTime, TopicNames.undeliverable,
    ]

    /// Where a message was sent to first, and its queue there. Properties count only where a broker has written them: a
    /// client could lead its message into a topic it may not send to.
    private func origin(_ message: StoredMessage, _ record: CommitLogRecordView) -> (topic: String, queueID: Int32) {
        var place = (topic: message.topic, queueID: record.queueID)
        if Self.brokersWord.contains(place.topic), let real = message.realTopic {
            place = (real, realQueueID(record) ?? 0)
        }
        // Of a dead letter or a retry.
        if place.topic.hasPrefix(TopicName.retryPrefix) || place.topic.hasPrefix(TopicName.deadLetterPrefix),
            let first = record.property(PropertyName.retryTopic)
        {
            place = (String(decoding: first, as: UTF8.self), 0)
        }
        return place
    }

    func resend(_ edit: EditRequest, _ message: StoredMessage, _ record: CommitLogRecordView) -> Outcome {
        guard !message.isCancellation else { return refused("the record stops a timer message, and is none") }
        guard message.topic != TopicNames.half, message.topic != TopicNames.opHalf else {
            return refused("it waits for the outcome of its transaction: only its producer knows whether it is to be")
        }
        let origin = origin(message, record)
        guard !TopicNames.notAllowedToSend.contains(origin.topic), !TopicNames.isRevive(origin.topic) else {
            return refused("topic \(origin.topic) takes only what the broker itself writes")
        }
        let place = Array(origin.topic.utf8).withUnsafeBytes {
            tables.deliveryPlace(topic: $0, queueID: origin.queueID)
        }
        let topic: TopicEntry
        let queueID: Int32
        switch place {
        case .nowhere(let reason): return refused("it cannot be sent anew: \(reason)")
        case .queue(let found, let number): (topic, queueID) = (found, number)
        }
        var properties = PropertyList(record.properties)
        for name in Self.dropped { properties[name] = nil }
        edit.apply(to: &properties)
        let key = UniqueKey.make(at: environment.now())
        properties[PropertyName.uniqueKey] = key
        properties[Self.resentFrom] = message.uniqueKey ?? message.messageID
        properties[Self.resentBy] = edit.by
        let outcome = topic.nameBytes.withUnsafeBytes { name in
            properties.bytes.withUnsafeBytes { properties in
                (edit.body ?? []).withUnsafeBytes { body in
                    var draft = MessageDraft(copyOf: record, topic: name, queueID: queueID, properties: properties)
                    Self.put(edit.body == nil ? nil : body, into: &draft)
                    draft.sysFlag &= ~SysFlag.transactionRollbackType
                    draft.bornTimestamp = environment.now()
                    draft.storeHost = environment.storeHost
                    draft.reconsumeTimes = 0
                    return storage.store.append(draft)
                }
            }
        }
        switch outcome {
        case .refused(let refusal): return refused(refusal)
        case .appended(let result):
            storage.statistics.put(messages: 1)
            topic.count(1, bytes: result.size, in: storage.stats)
            return .done(
                Done(
                    version: 1, topic: topic.name, queueID: queueID, queueOffset: result.queueOffset.rawValue,
                    physicalOffset: result.physicalOffset.rawValue, end: result.end.rawValue, uniqueKey: key,
                    topicMadeAt: topic.madeAt))
        }
    }
}
