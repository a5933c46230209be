import Logging
import RemotingProtocol
import StoreFormat

/// Where a message that has waited is stored when its time or its outcome has come.
enum DeliveryPlace {
    case queue(TopicEntry, Int32)
    /// No consumer could read it anywhere; why, in words for operators.
    case nowhere(String)
}

extension Broker {
    /// Looks at topic and queue as they are now. A topic that was deleted meanwhile is made again where a send would make it; a
    /// queue the topic no longer has is replaced by one it has.
    ///
    /// RocketMQ stores the message in the named queue whatever became of the topic, where nobody reads it.
    func deliveryPlace(topic name: UnsafeRawBufferPointer, queueId: Int32) -> DeliveryPlace {
        guard let topic = topics[name] ?? makeAgain(name, queueId: queueId) else {
            return .nowhere(reasonForNoTopic(name))
        }
        guard topic.mayBeSentTo else { return .nowhere("topic \(topic.name) takes only what the broker itself writes") }
        let queues = topic.queueNums
        guard queues > 0 else { return .nowhere("topic \(topic.name) has no queues") }
        if queueId >= 0, queueId < queues { return .queue(topic, queueId) }
        return .queue(topic, Int32(UInt32(bitPattern: queueId) % UInt32(queues)))
    }

    private func reasonForNoTopic(_ name: UnsafeRawBufferPointer) -> String {
        if let refusal = TopicNames.refusal(of: name) { return refusal }
        return "topic \(String(decoding: name, as: UTF8.self)) is not there and may not be made (autoCreateTopicEnable)"
    }

    private func makeAgain(_ bytes: UnsafeRawBufferPointer, queueId: Int32) -> TopicEntry? {
        guard TopicNames.refusal(of: bytes) == nil else { return nil }
        let name = String(decoding: bytes, as: UTF8.self)
        guard !TopicNames.notAllowedToSend.contains(name) else { return nil }
        if name.hasPrefix(TopicNames.retryPrefix) {
            return retryTopic(of: String(name.dropFirst(TopicNames.retryPrefix.count)))
        }
        if name.hasPrefix(TopicNames.deadLetterPrefix) {
            return topics.findOrCreate(
                name, queueNums: SendMessageProcessor.deadLetterQueues, perm: Permission.read | Permission.write)
        }
        let wanted = min(max(queueId, 0), Int32.max - 1) + 1
        guard
            let made = topics.createForSend(
                name, defaultTopic: TopicNames.autoCreateKey, clientQueueNums: max(wanted, Self.clientQueueNums),
                topicSysFlag: 0)
        else { return nil }
        autoCreated(made.config)
        logger.notice("topic \(name) was made again for messages that have waited for their time or their outcome")
        return made
    }

    /// What RocketMQ's clients ask for when they have a topic made (`defaultTopicQueueNums`).
    private static let clientQueueNums: Int32 = 4

    /// The group's retry topic with all the queues its group has (`retryQueueNums`), made or enlarged on the way; `nil` for a group
    /// whose name is too long to have one.
    ///
    /// RocketMQ never enlarges it: after `retryQueueNums` was raised it stores into queues no consumer knows.
    func retryTopic(of group: String, unitFlag: Int32 = 0, mayWait: Bool = false) -> TopicEntry? {
        guard TopicNames.retryRefusal(of: group) == nil else { return nil }
        let queues = max(1, groups[group]?.config.retryQueueNums ?? 1)
        let topic = topics.findOrCreate(
            TopicNames.retry(group), queueNums: queues, perm: Permission.read | Permission.write,
            topicSysFlag: unitFlag, mayWait: mayWait)
        topics.enlarge(topic, to: queues)
        return topic
    }
}
