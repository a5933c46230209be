import FastJSON
import Logging
import RemotingProtocol

/// What tools of RocketMQ 5 ask about one topic or group (351, 352), and change of many at once (18, 225).
extension AdminBrokerProcessor {
    /// GET_TOPIC_CONFIG (351). Static topics, whose `mappingDetail` would stand here, do not exist in Apus: the member is
    /// absent, as Apache leaves it out.
    func topicConfig(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let name = try frame.extFields.required("topic")
        guard var config = broker.topics[name]?.config else {
            return client.answer(
                frame.returnAddress, .topicNotExist, remark: "No topic in this broker. topic: \(name)")
        }
        config.attributes = config.attributes ?? [:]
        client.answer(frame.returnAddress, .success, body: config.encoded())
    }

    /// GET_SUBSCRIPTIONGROUP_CONFIG (352). With `autoCreateSubscriptionGroup` Apache makes the group when it is asked for; here
    /// it answers the same, and a misspelt name leaves no group.
    func groupConfig(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let name = try frame.extFields.required("group")
        guard let config = broker.groups[name]?.config ?? broker.groups.configIfCreated(name) else {
            return client.answer(frame.returnAddress, .subscriptionGroupNotExist, remark: "No group in this broker")
        }
        client.answer(frame.returnAddress, .success, body: config.jsonOfVersion5.bytes())
    }

    /// UPDATE_AND_CREATE_TOPIC_LIST (18): all are checked before the first is changed. Apache answers "success" without a
    /// change when one of them is as it was before; here the others are changed.
    func updateTopics(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        if refusedBySlave(frame, client) { return }
        let list = try CreateTopicListRequestBody(body: frame.body).topicConfigList
        var accepted: [TopicConfig] = []
        for var config in list {
            if let remark = refusal(ofTopic: config.topicName) ?? refusal(of: config) {
                return client.answer(frame.returnAddress, .invalidParameter, remark: remark)
            }
            do throws(TopicAttributes.Refusal) {
                let current = broker.topics[config.topicName].map { $0.config.attributes ?? [:] }
                config.attributes = try TopicAttributes.altered(current, by: config.attributes ?? [:])
            } catch {
                return client.answer(frame.returnAddress, .systemError, remark: "\(config.topicName): \(error)")
            }
            accepted.append(config)
        }
        for config in accepted { broker.topics.update(config) }
        broker.logger.info("\(accepted.count) topics updated by \(client.address)")
        let address = frame.returnAddress
        broker.registration.whenRegistered { client.answer(address, .success) }
    }

    /// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST (225): all are checked before the first is changed.
    func updateGroups(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        if refusedBySlave(frame, client) { return }
        let list = try SubscriptionGroupList(body: frame.body).groupConfigList
        for config in list {
            if let remark = refusal(ofGroup: config.groupName) {
                return client.answer(frame.returnAddress, .invalidParameter, remark: remark)
            }
        }
        for config in list { broker.groups.update(config) }
        broker.logger.info("\(list.count) consumer groups updated by \(client.address)")
        client.answer(frame.returnAddress, .success)
    }

    // MARK: Refusals

    func refusal(ofTopic name: String) -> String? {
        if let problem = TopicName.problem(name) { return "\(problem)" }
        return broker.topics.isSystemTopic(name) ? "The topic[\(name)] is conflict with system topic." : nil
    }

    func refusal(of config: TopicConfig) -> String? {
        guard config.readQueueNums >= 0, config.writeQueueNums >= 0 else {
            return "topic \(config.topicName): readQueueNums=\(config.readQueueNums) "
                + "writeQueueNums=\(config.writeQueueNums); neither may be negative"
        }
        return nil
    }

    func refusal(ofGroup name: String) -> String? {
        GroupName.problem(name).map { "\($0)" }
    }
}

extension SubscriptionGroupConfig {
    /// With RocketMQ 5.3's defaults for the members only that version has.
    var jsonOfVersion5: JSONValue {
        let later: [(String, JSONValue)] = [
            ("attributes", .fields([])), ("consumeMessageOrderly", .bool(false)),
            ("consumeTimeoutMinute", .integer(15)),
            ("groupRetryPolicy", .fields([("type", .string("CUSTOMIZED"))])), ("groupSysFlag", .integer(0)),
        ]
        let members = json.object?.members ?? []
        let known = Set(members.map(\.key))
        let missing = later.filter { !known.contains($0.0) }
        return .fields(
            (members.map { ($0.key, $0.value) } + missing).sorted { $0.0 < $1.0 }.map { ($0.0, Optional($0.1)) })
    }
}
