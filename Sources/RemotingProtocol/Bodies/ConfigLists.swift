package import FastJSON

/// Several topics at once (UPDATE_AND_CREATE_TOPIC_LIST, 18; RocketMQ 5).
package struct CreateTopicListRequestBody: JSONBody {
    /// Keys of attributes begin with `+` or `-`.
    package var topicConfigList: [TopicConfig]

    package init(topicConfigList: [TopicConfig]) { self.topicConfigList = topicConfigList }

    /// - Throws: `badBody` when the list is missing or an element is no topic.
    package init(json: JSONValue) throws(RemotingDecodeError) {
        topicConfigList = []
        for element in try json.list("topicConfigList") { topicConfigList.append(try TopicConfig(json: element)) }
    }

    package var json: JSONValue { .fields([("topicConfigList", .array(topicConfigList.map(\.json)))]) }
}

/// Several consumer groups at once (UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, 225; RocketMQ 5).
package struct SubscriptionGroupList: JSONBody {
    /// In the order of the request.
    package var groupConfigList: [SubscriptionGroupConfig]

    package init(groupConfigList: [SubscriptionGroupConfig]) { self.groupConfigList = groupConfigList }

    /// - Throws: `badBody` when the list is missing or an element is no group.
    package init(json: JSONValue) throws(RemotingDecodeError) {
        groupConfigList = []
        for element in try json.list("groupConfigList") {
            groupConfigList.append(try SubscriptionGroupConfig(json: element))
        }
    }

    package var json: JSONValue { .fields([("groupConfigList", .array(groupConfigList.map(\.json)))]) }
}

extension JSONValue {
    fileprivate func list(_ name: StaticString) throws(RemotingDecodeError) -> [JSONValue] {
        guard let field = self["\(name)"], !field.isNull else { throw .badBody("\(name) is missing") }
        return try field.elements(name)
    }
}
