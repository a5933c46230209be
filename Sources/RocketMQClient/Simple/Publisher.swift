/// Publishes messages, over connections that stay. For transactions, batches and chosen queues there is `Producer`.
public final class Publisher: Sendable {
    private let producer: Producer

    /// A publisher; no connection is made before the first message.
    ///
    /// - Parameter nameServers: addresses separated by `;`.
    /// - Throws: `invalidArgument`.
    public convenience init(at nameServers: String) throws(RocketMQClientError) {
        try self.init(ClientSettings(nameServers: nameServers))
    }

    /// A publisher; no connection is made before the first message.
    ///
    /// - Throws: `invalidArgument`.
    public init(
        _ settings: ClientSettings, options: Producer.Options = Producer.Options()
    ) throws(RocketMQClientError) {
        producer = try Producer(settings, group: "PUBLISHERS", options: options)
    }

    /// Closes all connections. Messages under way fail.
    public func close() async { await producer.close() }

    /// Sends a message and waits until it is stored.
    ///
    /// - Parameters:
    ///   - key: what operators find it by.
    ///   - tag: what subscribers select by.
    ///   - delay: consumers get it so long after it was stored.
    ///   - shard: messages of one shard key go to the same queue, as long as the topic's queues do not change. Sent one
    ///     after the other, they are delivered in that order where the topic's policy is sharded.
    /// - Throws: as `Producer.send`.
    @discardableResult
    public func publish(
        _ topic: String, _ text: String, key: String? = nil, tag: String? = nil, delay: Duration? = nil,
        shard: String? = nil
    ) async throws(RocketMQClientError) -> SendResult {
        try await publish(topic, body: Array(text.utf8), key: key, tag: tag, delay: delay, shard: shard)
    }

    /// The same for a body of any bytes.
    ///
    /// - Throws: as `Producer.send`.
    @discardableResult
    public func publish(
        _ topic: String, body: [UInt8], key: String? = nil, tag: String? = nil, delay: Duration? = nil,
        shard: String? = nil
    ) async throws(RocketMQClientError) -> SendResult {
        var message = Message(topic: topic, body: body, tag: tag, keys: key.map { [$0] } ?? [])
        if let delay { message.delivery = .after(delay) }
        message.shardKey = shard
        return try await publish(message)
    }

    /// The same for a message with properties, or one that is due at a time.
    ///
    /// - Throws: as `Producer.send`.
    @discardableResult
    public func publish(_ message: Message) async throws(RocketMQClientError) -> SendResult {
        try await producer.send(message, selector: message.queueSelector)
    }
}

extension Message {
    /// Its shard's queue; any queue for a message without a shard key.
    public var queueSelector: QueueSelector { shardKey.map { .orderingKey($0) } ?? .roundRobin }
}
