import RemotingProtocol

extension PopConsumer {
    /// Of the topics that exist, sorted.
    func routes() async throws(RocketMQClientError) -> [(topic: String, route: QueueRoute)] {
        var routes: [(String, QueueRoute)] = []
        for topic in subscriptions.keys.sorted() {
            if let route = try await connections.route(of: topic) { routes.append((topic, route)) }
        }
        return routes
    }

    /// How long a message of a topic stays here, milliseconds.
    func timeout(of topic: String) -> Int64 {
        (options.timeout ?? policies[topic]?.timeout)?.milliseconds ?? Self.standardTimeout
    }

    func readPolicies() async {
        for topic in subscriptions.keys {
            // Without an answer the last one counts.
            if let policy = try? await connections.policy(of: topic) { policies[topic] = policy }
        }
    }

    private var heartbeatBody: [UInt8] {
        let data = ConsumerData(
            groupName: group, consumeFromWhere: (options.start ?? .first).rocketMQName,
            subscriptionDataSet: subscriptions.values.map(\.wire).sorted { $0.topic < $1.topic })
        return HeartbeatData(clientID: clientID, consumerDataSet: [data]).encoded()
    }

    /// A broker knows a client by the connection that brought its heartbeat: it comes before the first pop.
    func announce(to address: String) async throws(RocketMQClientError) {
        if let known = announced[address], await connections.epoch(of: address) == known { return }
        _ = try await connections.demand(address, RemotingCommand(.heartBeat, body: heartbeatBody))
        announced[address] = await connections.epoch(of: address)
    }

    /// To several brokers at once: one that is away must not keep this member from the others.
    ///
    /// - Throws: a refusal; why none could be reached.
    func announce(toAll addresses: Set<String>) async throws(RocketMQClientError) {
        let failures = await withTaskGroup(of: (String, RocketMQClientError)?.self) { tasks in
            for address in addresses {
                tasks.addTask {
                    do throws(RocketMQClientError) {
                        try await self.announce(to: address)
                        return nil
                    } catch {
                        return (address, error)
                    }
                }
            }
            var failures: [(String, RocketMQClientError)] = []
            for await one in tasks {
                if let one { failures.append(one) }
            }
            return failures
        }
        for (_, error) in failures where error.responseCode != nil { throw error }
        if let (_, error) = failures.first, failures.count == addresses.count { throw error }
        for (address, error) in failures { warn("broker \(address): \(error)") }
    }

    func heartbeat() async {
        do throws(RocketMQClientError) {
            for address in Set(try await routes().flatMap { $0.route.brokers }) {
                do throws(RocketMQClientError) {
                    _ = try await connections.demand(address, RemotingCommand(.heartBeat, body: heartbeatBody))
                } catch {
                    warn("broker \(address): \(error)")
                }
            }
        } catch {
            warn("heartbeat: \(error)")
        }
    }
}

extension ServerConnections {
    /// How a topic's messages are delivered, as the first of its brokers that answers has it. The policy has no mode
    /// where the topic has none, or its broker knows no attributes. nil: no name server knows the topic.
    ///
    /// - Throws: `noNameServer`; why no broker has answered.
    func policy(of topic: String) async throws(RocketMQClientError) -> DeliveryPolicy? {
        guard let route = try await route(of: topic) else { return nil }
        var failure: RocketMQClientError?
        for address in route.brokers.sorted() {
            do throws(RocketMQClientError) {
                let reply = try await demand(
                    address, RemotingCommand(.getTopicConfig, extFields: ["topic": topic]))
                let config = try decoded(address) { () throws(RemotingDecodeError) in
                    try TopicConfig(body: reply.body)
                }
                return DeliveryPolicy(attributes: config.attributes ?? [:])
            } catch {
                // RocketMQ 4 does not know the request.
                if error.refusal == .requestCodeNotSupported { return DeliveryPolicy() }
                failure = error
            }
        }
        if let failure { throw failure }
        return DeliveryPolicy()
    }
}
