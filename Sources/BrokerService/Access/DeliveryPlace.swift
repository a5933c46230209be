import Logging
import MessageModel
import RemotingProtocol
import StoreFormat

/// Where a message that has waited is stored when its time or its outcome has come.
enum DeliveryPlace {
    case queue(TopicEntry, Int32)
    /// No consumer could read it anywhere; why, as a text for operators.
    case nowhere(String)
}

extension BrokerTables {
    /// Looks at topic and queue as they are now. A topic that was deleted meanwhile is made again where a send would
    /// make it. A queue the topic no longer has is replaced by one it has.
    ///
    /// RocketMQ stores the message in the named queue whatever became of the topic, where no consumer reads it.
    func deliveryPlace(topic name: UnsafeRawBufferPointer, queueID: Int32) -> DeliveryPlace {
        guard let topic = topics[name] ?? makeAgain(name, queueID: queueID) else {
            return .nowhere(reasonForNoTopic(name))
        }
        guard topic.mayBeSentTo else { return .nowhere("topic \(topic.name) takes only what the broker itself writes") }
        let queues = topic.queueNums
        guard queues > 0 else { return .nowhere("topic \(topic.name) has no queues") }
        if queueID >= 0, queueID < queues { return .queue(topic, queueID) }
        return .queue(topic, Int32(UInt32(bitPattern: queueID) % UInt32(queues)))
    }

    private func reasonForNoTopic(_ name: UnsafeRawBufferPointer) -> String {
        if let problem = TopicName.problem(name) { return "\(problem)" }
        return "topic \(String(decoding: name, as: UTF8.self)) is not there and may not be made (autoCreateTopicEnable)"
    }

    private func makeAgain(_ bytes: UnsafeRawBufferPointer, queueID: Int32) -> TopicEntry? {
        guard let topicName = try? TopicName(String(decoding: bytes, as: UTF8.self)) else { return nil }
        let name = topicName.text
        guard !TopicNames.notAllowedToSend.contains(name) else { return nil }
        if name.hasPrefix(TopicNames.retryPrefix) {
            let group = String(name.dropFirst(TopicNames.retryPrefix.count))
            return (try? GroupName(existing: group)).flatMap { retryTopic(of: $0) }
        }
        if name.hasPrefix(TopicName.deadLetterPrefix) { return deadLetterTopic(topicName) }
        let wanted = min(max(queueID, 0), Int32.max - 1) + 1
        guard
            let made = topics.createForSend(
                topicName, defaultTopic: TopicNames.autoCreateKey, clientQueueNums: max(wanted, Self.clientQueueNums),
                topicSysFlag: 0)
        else { return nil }
        clientMade(made.config)
        environment.logger.notice(
            """
            topic \(name) was not there any more and is created again for delayed, timer or transactional messages \
            that are due
            """
        )
        return made
    }

    /// What RocketMQ's clients ask for when they have a topic made (`defaultTopicQueueNums`).
    private static let clientQueueNums: Int32 = 4

    /// The group's retry topic with all the queues its group has (`retryQueueNums`), made or enlarged on the way. Nil
    /// for a group whose name is too long to have one.
    ///
    /// RocketMQ never enlarges it: after `retryQueueNums` was raised it stores into queues no consumer knows.
    func retryTopic(of group: GroupName, unitFlag: Int32 = 0, mayWait: Bool = false) -> TopicEntry? {
        guard let name = group.retryTopic else { return nil }
        let queues = min(max(1, groups[group.text]?.config.retryQueueNums ?? 1), QueueCounts.maximum)
        let topic = topics.findOrCreate(
            name, queueNums: queues, perm: Permission.read | Permission.write, topicSysFlag: unitFlag, mayWait: mayWait)
        topics.enlarge(topic, to: queues)
        return topic
    }

    /// A group's dead-letter topic with the one queue the broker stores into, made or enlarged on the way.
    ///
    /// RocketMQ never enlarges it: one that a client or an operator has made without queues takes dead letters that no
    /// consumer can read.
    func deadLetterTopic(_ name: TopicName) -> TopicEntry {
        let topic = topics.findOrCreate(
            name, queueNums: QueueCounts.deadLetter, perm: Permission.read | Permission.write)
        topics.enlarge(topic, to: QueueCounts.deadLetter)
        return topic
    }
}

extension GroupName {
    /// Why the group can have no retry topic, with the remedy; `nil` when it can. Such a group may consume: a group's
    /// name may be longer than a topic's.
    var retryRefusal: String? {
        guard retryTopic == nil || deadLetterTopic == nil else { return nil }
        return
            "the group's name has \(text.utf8.count) bytes, and \(TopicName.retryPrefix) with it is longer than a "
            + "topic can be (\(TopicName.bytesMax) bytes): give the group a name of at most "
            + "\(TopicName.bytesMax - TopicName.retryPrefix.utf8.count) bytes"
    }
}
