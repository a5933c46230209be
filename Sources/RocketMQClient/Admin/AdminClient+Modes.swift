import RemotingProtocol

extension AdminClient {
    /// Creates a topic with a mode and a policy at the masters of a choice, or changes those of a topic that exists.
    /// Needs brokers of Apus: those of RocketMQ 5 refuse attributes they do not know, those of RocketMQ 4 ignore them,
    /// which is found out.
    ///
    /// - Parameters:
    ///   - policy: values that are nil stay as they are.
    ///   - queues: on each broker, 1 to 65535; nil: 8. Mode `.serial` has one queue, on the first broker by name.
    /// - Throws: `invalidArgument` for values out of bounds. `notFound` and `brokerNotFound` without a master.
    ///   `refused` by a broker, in words. `notSupported` by one that has made the topic without its mode or policy.
    ///   Failures of the connection. Masters before the first that fails have the topic.
    public func createTopic(
        _ topic: String, mode: DeliveryMode? = nil, policy: DeliveryPolicy = DeliveryPolicy(), queues: Int? = nil,
        at choice: BrokerChoice = .all
    ) async throws(RocketMQClientError) {
        var policy = policy
        policy.mode = mode ?? policy.mode
        let attributes = try policy.attributes()
        let isSerial = policy.mode == .serial
        if isSerial, let queues, queues != 1 {
            throw .invalidArgument("a topic of mode \(DeliveryMode.serial.rawValue) has one queue, not \(queues)")
        }
        let count = queues ?? (isSerial ? 1 : 8)
        guard 1...65_535 ~= count else { throw .invalidArgument("a topic has 1 to 65535 queues, not \(count)") }
        let masters = try await masters(choice)
        guard let first = masters.first else { throw .brokerNotFound("no master is registered") }
        let settings = TopicSettings(topic: topic, readQueues: count, writeQueues: count)
        let changes = attributes.sorted { $0.key < $1.key }.map { "+\($0.key)=\($0.value)" }.joined(separator: ",")
        for address in isSerial ? [first] : masters {
            try await create(settings, attributes: changes, at: address)
            if !attributes.isEmpty { try await check(attributes, ofTopic: topic, at: address) }
        }
    }

    private func check(
        _ wanted: [String: String], ofTopic topic: String, at address: String
    ) async throws(RocketMQClientError) {
        var known: [String: String] = [:]
        do throws(RocketMQClientError) {
            known = try await self.attributes(ofTopic: topic, at: address)
        } catch {
            guard error.refusal == .requestCodeNotSupported else { throw error }
        }
        guard let missing = wanted.keys.sorted().first(where: { known[$0] == nil }) else { return }
        throw .notSupported(
            """
            broker \(address) does not keep \(missing): topic '\(topic)' exists there now without it. Only brokers of \
            Apus have modes; delete the topic there (deleteTopic), or use it as one of RocketMQ's
            """)
    }

    /// How a topic's messages are delivered, as the first of its brokers that answers has it. There is no mode where
    /// none was set, or the broker knows no modes.
    ///
    /// - Returns: nil when no name server knows the topic.
    /// - Throws: `noNameServer`; why no broker has answered.
    public func policy(of topic: String) async throws(RocketMQClientError) -> DeliveryPolicy? {
        try await connections.policy(of: topic)
    }
}
