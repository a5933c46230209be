import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Sending a message once more.
extension MessageEditor {
    /// What belongs to the first message alone.
    private static let dropped = [
        PropertyName.delayLevel, PropertyName.waitStoreMsgOK, PropertyName.realTopic, PropertyName.realQueueID,
        PropertyName.retryTopic, PropertyName.originMessageID, PropertyName.isPrepared, PropertyName.producerGroup,
        PropertyName.reconsumeTime, PropertyName.maxReconsumeTimes, PropertyName.consumeStartTime,
        PropertyName.popHandle, PropertyName.firstPopTime, PropertyName.edit, PropertyName.timerDelaySeconds,
        PropertyName.timerDelayMilliseconds, PropertyName.timerDeliverMilliseconds, PropertyName.timerOutMilliseconds,
        PropertyName.timerEnqueueMilliseconds, PropertyName.timerDequeueMilliseconds, PropertyName.timerRollTimes,
        PropertyName.deadLetterReason, PropertyName.undeliverableReason, PropertyName.halfOffset,
        PropertyName.transactionCheckTimes, PropertyName.preparedQueueOffset,
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
        properties[PropertyName.resentFrom] = message.uniqueKey ?? message.messageID
        properties[PropertyName.resentBy] = edit.by
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
