import FastJSON
import RemotingProtocol

extension AdminClient {
    /// A topic's attributes at a broker by name, RocketMQ's (`message.type`, …) and Apus's (`apus.mode`, …); empty for
    /// a topic without any.
    ///
    /// - Throws: `refused` by a broker that does not have the topic (code 17), or does not know the request (code 3,
    ///   RocketMQ 4). `malformedAnswer`, failures of the connection.
    public func attributes(
        ofTopic topic: String, at address: String
    ) async throws(RocketMQClientError) -> [String: String] {
        let json = try await json(address, .getTopicConfig, ["topic": topic])
        let members = json["attributes"]?.object?.members ?? []
        return Dictionary(members.map { ($0.key, $0.value.string ?? "") }, uniquingKeysWith: { $1 })
    }

    /// Creates a topic at a broker, or changes it, with its attributes.
    ///
    /// - Parameter attributes: changes in RocketMQ's form: `+key=value` sets, `-key` takes away, with commas between.
    ///   Empty: they stay as they are.
    /// - Throws: `refused` by the broker with what is wrong, failures of the connection.
    public func create(
        _ settings: TopicSettings, attributes: String = "", at address: String
    ) async throws(RocketMQClientError) {
        var fields = [
            "topic": settings.topic, "defaultTopic": WireNames.templateTopic,
            "readQueueNums": String(settings.readQueues), "writeQueueNums": String(settings.writeQueues),
            "perm": String(settings.permission), "topicFilterType": settings.filterType,
            "topicSysFlag": String(settings.systemFlag), "order": String(settings.isOrdered),
        ]
        if !attributes.isEmpty { fields["attributes"] = attributes }
        _ = try await demand(address, .updateAndCreateTopic, fields)
    }
}
