import FastJSON
import RemotingProtocol

extension AdminClient {
    /// The names of all topics, sorted.
    ///
    /// - Throws: `noNameServer`, `refused`, `malformedAnswer`.
    public func topics() async throws(RocketMQClientError) -> [String] {
        let (address, reply) = try await askNameServer(.getAllTopicListFromNameServer)
        return try decoded(address) { () throws(RemotingDecodeError) in
            try TopicList(body: reply.body).topicList.sorted()
        }
    }

    /// Where a topic is.
    ///
    /// - Throws: `refused` with code 17 for a topic that does not exist.
    public func route(of topic: String) async throws(RocketMQClientError) -> TopicRoute {
        let (address, reply) = try await askNameServer(.getRouteInfoByTopic, ["topic": topic])
        let data = try decoded(address) { () throws(RemotingDecodeError) in try TopicRouteData(body: reply.body) }
        return TopicRoute(data, topic: topic)
    }

    /// The first and last offsets of a topic's queues, sorted by queue.
    ///
    /// - Throws: `refused` with code 17 for a topic that does not exist, failures of the connection to any of its
    ///   brokers.
    public func queueStatus(of topic: String) async throws(RocketMQClientError) -> [QueueStatus] {
        var rows: [QueueStatus] = []
        for address in try await route(of: topic).brokers.compactMap(\.preferredAddress) {
            let json = try await json(address, .getTopicStatsInfo, ["topic": topic])
            for member in json["offsetTable"]?.object?.members ?? [] {
                guard let queue = MessageQueue(key: member.key) else { continue }
                rows.append(
                    QueueStatus(
                        queue: queue, minOffset: member.value["minOffset"]?.integer ?? 0,
                        maxOffset: member.value["maxOffset"]?.integer ?? 0,
                        lastUpdated: member.value["lastUpdateTimestamp"]?.integer ?? 0))
            }
        }
        return rows.sorted { $0.queue < $1.queue }
    }

    /// A topic's settings at a broker; nil when the broker does not have it.
    ///
    /// - Throws: `refused` by the broker, `malformedAnswer`, failures of the connection.
    public func settings(
        of topic: String, at address: String
    ) async throws(RocketMQClientError) -> TopicSettings? {
        let reply = try await demand(address, .getAllTopicConfig)
        let all = try decoded(address) { () throws(RemotingDecodeError) in
            try TopicConfigSerializeWrapper(body: reply.body).topicConfigTable
        }
        return all.first { $0.topicName == topic }.map { config in
            TopicSettings(
                topic: topic, readQueues: Int(config.readQueueNums), writeQueues: Int(config.writeQueueNums),
                permission: Int(config.perm), systemFlag: Int(config.topicSysFlag), isOrdered: config.order,
                filterType: config.topicFilterType)
        }
    }

    /// Deletes a topic from the masters of a cluster. The name servers keep its route until `unregister`.
    ///
    /// - Throws: `notFound` for a cluster no broker belongs to; `refused` and failures of the connection, at the first
    ///   master that fails.
    public func deleteTopic(_ topic: String, fromCluster cluster: String) async throws(RocketMQClientError) {
        for master in try await brokers(ofCluster: cluster).compactMap(\.master) {
            _ = try await demand(master, .deleteTopicInBroker, ["topic": topic])
        }
    }

    /// Deletes a topic's route of a cluster from all name servers.
    ///
    /// - Throws: `partlyDone`.
    public func unregisterTopic(_ topic: String, ofCluster cluster: String) async throws(RocketMQClientError) {
        try await atEveryNameServer { address throws(RocketMQClientError) in
            _ = try await demand(address, .deleteTopicInNamesrv, ["topic": topic, "clusterName": cluster])
        }
    }

    /// The order configuration of an ordered topic: `BROKER:QUEUES;…`.
    ///
    /// - Throws: `refused` for a topic without one.
    public func orderConfiguration(of topic: String) async throws(RocketMQClientError) -> String {
        try await value(of: topic, namespace: WireNames.orderNamespace)
    }

    /// Sets it at all name servers.
    ///
    /// - Throws: `partlyDone`.
    public func setOrderConfiguration(_ value: String, of topic: String) async throws(RocketMQClientError) {
        try await setValue(value, of: topic, namespace: WireNames.orderNamespace)
    }

    /// Deletes it at all name servers.
    ///
    /// - Throws: `partlyDone`.
    public func deleteOrderConfiguration(of topic: String) async throws(RocketMQClientError) {
        try await deleteValue(of: topic, namespace: WireNames.orderNamespace)
    }

    /// The groups that consume a topic, as the first of its brokers that answers knows them, sorted; empty when none
    /// does.
    public func groups(consuming topic: String, route: TopicRoute?) async -> [String] {
        for address in route?.brokers.compactMap(\.preferredAddress) ?? [] {
            guard let json = try? await json(address, .queryTopicConsumeByWho, ["topic": topic]) else { continue }
            return (json["groupList"]?.array ?? []).compactMap(\.string).sorted()
        }
        return []
    }

    /// Entries of a consume queue.
    ///
    /// - Parameters:
    ///   - address: the broker; nil: the first of the topic.
    ///   - group: its filter is applied to the entries.
    /// - Throws: `notFound` when nothing lies at the index.
    public func consumeQueueEntries(
        of topic: String, queueID: Int, index: Int64, count: Int, group: String? = nil, at address: String? = nil
    ) async throws(RocketMQClientError) -> ConsumeQueueEntries {
        var server = address
        if server == nil { server = try await route(of: topic).brokers.first?.preferredAddress }
        guard let server else { throw .brokerNotFound("topic '\(topic)' has no broker") }
        var fields = [
            "topic": topic, "queueId": String(queueID), "index": String(index), "count": String(count),
        ]
        fields["consumerGroup"] = group
        let reply = try await demand(server, .queryConsumeQueue, fields)
        // A queue that has nothing at the index is no error to brokers.
        guard !reply.body.isEmpty else { throw .notFound(reply.remark ?? "nothing is there") }
        return ConsumeQueueEntries(
            json: try decoded(server) { () throws(RemotingDecodeError) in try reply.json() })
    }
}
