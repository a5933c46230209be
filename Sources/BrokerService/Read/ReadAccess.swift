import RemotingProtocol

/// Whether a group may read a topic: what pulls and pops are refused for. On the broker's event loop.
struct ReadAccess {
    let environment: BrokerEnvironment
    let tables: BrokerTables
    /// What the request does, in RocketMQ's remarks: "pulling", "popping".
    let verb: String

    enum Outcome {
        case granted(SubscriptionGroupEntry, TopicEntry)
        case refused(ResponseCode, remark: String)
    }

    /// The group, made on the way if that is allowed, and the topic. Names as the frame has them.
    func check(group groupName: UnsafeRawBufferPointer, topic topicName: UnsafeRawBufferPointer) -> Outcome {
        let configuration = environment.configuration
        guard configuration.brokerPermission & Permission.read != 0 else {
            return .refused(
                .noPermission,
                remark: "the broker[\(configuration.brokerIP1)] \(verb) message is forbidden"
                    + " (brokerPermission has no read; mqadmin updateBrokerConfig)")
        }
        guard let group = tables.groups.find(groupName) else {
            let name = String(decoding: groupName, as: UTF8.self)
            return .refused(
                .subscriptionGroupNotExist,
                remark: "subscription group [\(name)] does not exist, " + Remarks.faq
                    + tables.groups.remedy(for: name))
        }
        guard group.config.consumeEnable else {
            return .refused(
                .noPermission,
                remark: "subscription group no permission, \(group.name) "
                    + "(consumeEnable=false; mqadmin updateSubGroup -s true)")
        }
        guard let topic = tables.topics[topicName] else {
            let name = String(decoding: topicName, as: UTF8.self)
            return .refused(
                .topicNotExist,
                remark: "topic[\(name)] not exist, apply first please! " + Remarks.faq
                    + "\nCreate it (mqadmin updateTopic), or send to it first.")
        }
        guard topic.config.perm & Permission.read != 0 else {
            return .refused(
                .noPermission,
                remark: "the topic[\(topic.name)] \(verb) message is forbidden (its perm is "
                    + "\(Permission.text(topic.config.perm)); mqadmin updateTopicPerm)")
        }
        return .granted(group, topic)
    }

    /// Whether expressions of this type may be used; nil, or why not.
    func refusal(ofType type: String) -> (ResponseCode, String)? {
        if SubscriptionFilter.isTagType(type) || environment.configuration.enablePropertyFilter != false { return nil }
        return (.systemError, "The broker does not support consumer to filter message by \(type)")
    }
}
