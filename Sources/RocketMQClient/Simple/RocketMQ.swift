/// One line to publish, one to subscribe. `at` names the name servers, separated by `;`, as in RocketMQ's
/// `NAMESRV_ADDR`.
public enum RocketMQ {
    /// Sends one message and waits until it is stored. Each call connects anew: for many messages there is `Publisher`.
    ///
    /// - Parameters:
    ///   - key: what operators find it by.
    ///   - tag: what subscribers select by.
    ///   - delay: consumers get it so long after it was stored.
    ///   - shard: messages of one shard key go to the same queue.
    /// - Throws: as `Publisher.publish`.
    @discardableResult
    public static func publish(
        _ topic: String, _ text: String, key: String? = nil, tag: String? = nil, delay: Duration? = nil,
        shard: String? = nil, at nameServers: String
    ) async throws(RocketMQClientError) -> SendResult {
        try await publish(
            topic, body: Array(text.utf8), key: key, tag: tag, delay: delay, shard: shard, at: nameServers)
    }

    /// The same for a body of any bytes.
    ///
    /// - Throws: as `Publisher.publish`.
    @discardableResult
    public static func publish(
        _ topic: String, body: [UInt8], key: String? = nil, tag: String? = nil, delay: Duration? = nil,
        shard: String? = nil, at nameServers: String
    ) async throws(RocketMQClientError) -> SendResult {
        let publisher = try Publisher(at: nameServers)
        do throws(RocketMQClientError) {
            let result = try await publisher.publish(
                topic, body: body, key: key, tag: tag, delay: delay, shard: shard)
            await publisher.close()
            return result
        } catch {
            await publisher.close()
            throw error
        }
    }

    /// The messages of a topic, for a loop that acknowledges each:
    ///
    ///     for try await message in RocketMQ.subscribe("orders", mode: .queue, group: "billing", at: servers) {
    ///         bill(message.text)
    ///         try await message.acknowledge()
    ///     }
    ///
    /// - Parameters:
    ///   - mode: who gets a message; nil: as the topic's attribute says, without one as `.queue`.
    ///   - group: who shares messages (`.queue`, `.serial`); nil: a group named like the topic.
    ///   - tags: `*` for everything, `TagA`, or `TagA || TagB`.
    /// - Returns: a sequence that connects at its first message, and ends when it is closed, released, or the task
    ///   cancelled. What was wrong is thrown by the loop: see `Subscriber`.
    public static func subscribe(
        _ topic: String, mode: DeliveryMode? = nil, group: String? = nil, tags: String = "*",
        options: Subscriber.Options = Subscriber.Options(), at nameServers: String
    ) -> Subscriber {
        Subscriber(
            ClientSettings(nameServers: nameServers), Subscription(topic: topic, tags: tags), mode: mode, group: group,
            options: options)
    }

    /// Hands the messages of a topic to `handler`, several at a time (`Subscriber.Options.heldMax`). One that returns
    /// has consumed its message. One that throws has failed, and the message comes again.
    ///
    /// - Parameters: as above.
    /// - Returns: when the task is cancelled, after handlers that run have ended.
    /// - Throws: as `Subscriber.forEach`.
    public static func subscribe(
        _ topic: String, mode: DeliveryMode? = nil, group: String? = nil, tags: String = "*",
        options: Subscriber.Options = Subscriber.Options(), at nameServers: String,
        handler: @escaping @Sendable (DeliveredMessage) async throws -> Void
    ) async throws(RocketMQClientError) {
        let subscriber = subscribe(
            topic, mode: mode, group: group, tags: tags, options: options, at: nameServers)
        try await subscriber.forEach(handler)
    }
}
