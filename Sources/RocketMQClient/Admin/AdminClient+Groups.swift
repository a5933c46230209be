import FastJSON
import RemotingProtocol

extension AdminClient {
    /// The brokers a consumer group is known to: those of its retry topic, or all while it has none. Sorted by name.
    ///
    /// - Throws: `noNameServer`, `refused`, failures of the connection.
    public func brokers(ofGroup group: String) async throws(RocketMQClientError) -> [BrokerDescription] {
        do throws(RocketMQClientError) {
            return try await route(of: WireNames.retryTopic(group)).brokers.sorted { $0.name < $1.name }
        } catch {
            guard error.refusal == .topicNotExist else { throw error }
            return try await clusters().brokers
        }
    }

    /// The consumer groups that have consumed something: those with a retry topic, sorted.
    ///
    /// - Throws: `noNameServer`, `refused`, failures of the connection.
    public func groups() async throws(RocketMQClientError) -> [String] {
        let prefix = WireNames.retryTopic("")
        return try await topics().filter { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
    }

    /// Creates a consumer group at a broker, or changes it.
    ///
    /// - Throws: `refused` by the broker, failures of the connection.
    public func create(_ settings: GroupSettings, at address: String) async throws(RocketMQClientError) {
        var config = SubscriptionGroupConfig(groupName: settings.group)
        config.consumeEnable = settings.mayConsume
        config.consumeFromMinEnable = settings.startsAtMinOffset
        config.consumeBroadcastEnable = settings.mayBroadcast
        config.retryQueueNums = Int32(clamping: settings.retryQueues)
        config.retryMaxTimes = Int32(clamping: settings.retriesMax)
        config.brokerID = settings.brokerID
        config.whichBrokerWhenConsumeSlowly = settings.brokerIDWhenSlow
        config.notifyConsumerIDsChangedEnable = settings.notifiesMembers
        _ = try await demand(address, .updateAndCreateSubscriptionGroup, body: config.encoded())
    }

    /// Deletes a consumer group at a broker.
    ///
    /// - Parameter removesOffsets: its offsets, too.
    /// - Throws: `refused` by the broker, failures of the connection.
    public func deleteGroup(
        _ group: String, removesOffsets: Bool, at address: String
    ) async throws(RocketMQClientError) {
        _ = try await demand(
            address, .deleteSubscriptionGroup,
            ["groupName": group, "removeOffset": String(removesOffsets), "cleanOffset": String(removesOffsets)])
    }

    /// Has the push consumers of a group pull or pop a topic at a broker.
    ///
    /// - Throws: `refused` by the broker, also for a topic or group it does not know; failures of the connection.
    public func setConsumeMode(
        _ mode: ConsumeMode, of group: String, topic: String, at address: String
    ) async throws(RocketMQClientError) {
        let body =
            switch mode {
            case .pull:
                SetMessageRequestModeBody(topic: topic, consumerGroup: group, mode: .pull, popShareQueueNum: 0)
            case .pop(let shared):
                SetMessageRequestModeBody(
                    topic: topic, consumerGroup: group, mode: .pop, popShareQueueNum: Int32(clamping: shared))
            }
        _ = try await demand(address, .setMessageRequestMode, body: body.encoded())
    }

    /// A group's settings at each broker that knows it, sorted by broker name; empty when none does.
    ///
    /// - Throws: `noNameServer`, `refused`, failures of the connection to any of the brokers.
    public func groupSettings(of group: String) async throws(RocketMQClientError) -> [GroupSettingsAtBroker] {
        var found: [GroupSettingsAtBroker] = []
        for broker in try await clusters().brokers {
            guard let address = broker.preferredAddress else { continue }
            let table = try await json(address, .getAllSubscriptionGroupConfig)
            guard let config = table["subscriptionGroupTable"]?[group], config.object != nil else { continue }
            found.append(
                try decoded(address) { () throws(RemotingDecodeError) in
                    try GroupSettingsAtBroker(broker: broker, json: config)
                })
        }
        return found
    }

    /// A group's settings at one broker; nil when the broker does not know it.
    ///
    /// - Throws: `refused` by the broker, `malformedAnswer`, failures of the connection.
    public func settings(ofGroup group: String, at address: String) async throws(RocketMQClientError) -> GroupSettings?
    {
        let table = try await json(address, .getAllSubscriptionGroupConfig)
        guard let config = table["subscriptionGroupTable"]?[group], config.object != nil else { return nil }
        let broker = BrokerDescription(cluster: "", name: "", addresses: [0: address])
        return try decoded(address) { () throws(RemotingDecodeError) in
            try GroupSettingsAtBroker(broker: broker, json: config).settings
        }
    }

    /// The consumers of a group, as the first broker that has some knows them.
    ///
    /// - Parameter broker: ask this one only.
    /// - Throws: `refused` with code 206 when no consumer is online.
    public func consumers(
        of group: String, at broker: String? = nil
    ) async throws(RocketMQClientError) -> ConsumerConnections {
        var failure = RocketMQClientError.notFound("no broker is registered")
        let addresses =
            if let broker { [broker] } else { try await brokers(ofGroup: group).compactMap(\.preferredAddress) }
        for address in addresses {
            do throws(RocketMQClientError) {
                return ConsumerConnections(
                    try await json(address, .getConsumerConnectionList, ["consumerGroup": group]))
            } catch {
                failure = error
            }
        }
        throw failure
    }

    /// The producers of a group, as the first broker of a topic knows them.
    ///
    /// - Throws: `brokerNotFound` when the topic has no broker, `refused`, failures of the connection.
    public func producers(
        of group: String, topic: String
    ) async throws(RocketMQClientError) -> [ClientConnection] {
        guard let address = try await route(of: topic).brokers.compactMap(\.preferredAddress).first else {
            throw .brokerNotFound("topic '\(topic)' has no broker")
        }
        let json = try await json(address, .getProducerConnectionList, ["producerGroup": group])
        return (json["connectionSet"]?.array ?? []).map { ClientConnection($0) }
    }

    /// All producers of a broker, sorted by group.
    ///
    /// - Throws: `refused` by the broker, failures of the connection.
    public func producers(at broker: String) async throws(RocketMQClientError) -> [ProducerInstance] {
        let json = try await json(broker, .getAllProducerInfo)
        return (json["data"]?.object?.members ?? []).sorted { $0.key < $1.key }.flatMap { member in
            (member.value.array ?? []).map { producer in
                func text(_ key: String) -> String { producer[key]?.string ?? "" }
                return ProducerInstance(
                    group: member.key, clientID: text("clientId"), address: text("remoteIP"),
                    language: text("language"), version: text("version"), lastUpdated: text("lastUpdateTimestamp"))
            }
        }
    }

    /// What a consumer reports of itself through its broker.
    ///
    /// - Parameters:
    ///   - stacks: the stacks of its threads, too.
    ///   - broker: ask this one only.
    /// - Throws: the last broker's failure, `refused` with code 206 when the client is not connected; `notFound`
    ///   without brokers.
    public func report(
        of client: String, group: String, stacks: Bool = false, at broker: String? = nil,
        timeout: Duration = .seconds(30)
    ) async throws(RocketMQClientError) -> ConsumerReport {
        var failure = RocketMQClientError.notFound("no broker is registered")
        let addresses =
            if let broker { [broker] } else { try await brokers(ofGroup: group).compactMap(\.preferredAddress) }
        for address in addresses {
            do throws(RocketMQClientError) {
                return ConsumerReport(
                    json: try await json(
                        address, .getConsumerRunningInfo,
                        ["consumerGroup": group, "clientId": client, "jstackEnable": String(stacks)],
                        timeout: timeout))
            } catch {
                failure = error
            }
        }
        throw failure
    }

    /// Queue → address of the consumer that has it. What cannot be found out is missing.
    public func queueOwners(of group: String) async -> [MessageQueue: String] {
        var owners: [MessageQueue: String] = [:]
        guard let clients = try? await consumers(of: group).clients else { return [:] }
        for client in clients {
            guard let report = try? await report(of: client.clientID, group: group) else { continue }
            for queue in report.queues {
                owners[queue] = client.clientID.split(separator: "@").first.map(String.init)
            }
        }
        return owners
    }

    // MARK: - Offsets

    /// How far a group is.
    ///
    /// - Parameter topic: this topic only.
    /// - Throws: `notFound` for a group that has consumed nothing yet.
    public func progress(
        of group: String, topic: String? = nil
    ) async throws(RocketMQClientError) -> ConsumerProgressReport {
        var report = ConsumerProgressReport()
        for address in try await brokers(ofGroup: group).compactMap(\.preferredAddress) {
            try await add(group, topic, at: address, to: &report)
        }
        guard !report.rows.isEmpty else {
            throw .notFound(
                "group '\(group)' has consumed nothing\(topic.map { " of topic '\($0)'" } ?? "") yet")
        }
        return report
    }

    /// One broker's part of it.
    private func add(
        _ group: String, _ topic: String?, at address: String, to report: inout ConsumerProgressReport
    ) async throws(RocketMQClientError) {
        var fields = ["consumerGroup": group]
        fields["topic"] = topic
        report.add(try await json(address, .getConsumeStats, fields))
    }

    /// Sets a group's offset in a queue.
    ///
    /// - Parameter address: the queue's broker.
    /// - Throws: `refused` by the broker, failures of the connection.
    public func setOffset(
        _ offset: Int64, of group: String, in queue: MessageQueue, at address: String
    ) async throws(RocketMQClientError) {
        try await QueueAccess(connections, group: group).commit(offset, of: queue, at: address)
    }

    /// Sets a group's offsets of a topic to those of another group.
    ///
    /// - Throws: `refused` and failures of the connection, at the first queue that fails; those before are set.
    public func cloneOffsets(
        from source: String, to destination: String, topic: String
    ) async throws(RocketMQClientError) {
        let route = try await route(of: topic)
        for row in try await progress(of: source, topic: topic).rows where row.consumerOffset >= 0 {
            try await setOffset(
                row.consumerOffset, of: destination, in: row.queue, at: try route.address(of: row.queue))
        }
    }

    /// Lets a group's consumers go on at a time; without consumers sets the offsets in the brokers.
    ///
    /// - Parameters:
    ///   - time: milliseconds since 1970; nil: the end of every queue.
    ///   - isForced: also forward.
    ///   - forCPlusPlus: the consumers are of the C++ client, which wants another form.
    /// - Throws: `refused` and failures of the connection, at the first broker that fails; those before have done it.
    public func resetOffsets(
        of group: String, topic: String, to time: Int64?, isForced: Bool = true, forCPlusPlus: Bool = false
    ) async throws(RocketMQClientError) -> OffsetReset {
        let route = try await route(of: topic)
        var outcome = OffsetReset()
        for broker in route.brokers.sorted(by: { $0.name < $1.name }) {
            guard let address = broker.preferredAddress else { continue }
            // RocketMQ's -1 means the end of every queue.
            let fields = [
                "topic": topic, "group": group, "timestamp": String(time ?? -1), "isForce": String(isForced),
            ]
            // Apache's broker chooses the form of the offsets by the language of the request.
            let reply = try await ask(
                address, .invokeBrokerToResetOffset, fields, language: forCPlusPlus ? .cpp : .other)
            switch reply.responseCode {
            case .success:
                let json = try decoded(address) { () throws(RemotingDecodeError) in try reply.json() }
                for member in json["offsetTable"]?.object?.members ?? [] {
                    if let queue = MessageQueue(key: member.key), let offset = member.value.integer {
                        outcome.notified.append(OffsetReset.Notified(queue: queue, offset: offset))
                    }
                }
            case .consumerNotOnline:
                outcome.isOnline = false
                let queues = route.readableQueues.filter { $0.brokerName == broker.name }
                outcome.rows += try await resetOffline(group, queues, topic: topic, at: address, time, isForced)
            default: throw .refused(ServerRefusal(address: address, reply: reply))
            }
        }
        outcome.notified.sort { $0.queue < $1.queue }
        return outcome
    }

    private func resetOffline(
        _ group: String, _ queues: [MessageQueue], topic: String, at address: String, _ time: Int64?,
        _ isForced: Bool
    ) async throws(RocketMQClientError) -> [OffsetReset.Row] {
        var report = ConsumerProgressReport()
        try await add(group, topic, at: address, to: &report)
        let access = QueueAccess(connections, group: group)
        var rows: [OffsetReset.Row] = []
        for queue in queues {
            let end = try await access.offset(.last, of: queue, at: address)
            let known = report.rows.first { $0.queue == queue }?.consumerOffset
            var consumed = known ?? 0
            if known == nil { consumed = try await access.offset(.first, of: queue, at: address) }
            var target = end
            if let time { target = try await access.offset(.time(milliseconds: time), of: queue, at: address) }
            let isSet = isForced || target <= consumed
            if isSet { try await access.commit(target, of: queue, at: address) }
            rows.append(
                OffsetReset.Row(
                    queue: queue, brokerOffset: end, consumerOffset: consumed, timestampOffset: target,
                    rollbackOffset: isSet ? target : consumed))
        }
        return rows
    }
}
