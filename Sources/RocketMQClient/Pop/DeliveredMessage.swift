/// A message in the hands of a subscriber, until it is acknowledged, fails, or its time is over. Reads like the
/// message: `delivered.text`, `delivered.tag`.
@dynamicMemberLookup
public struct DeliveredMessage: Sendable {
    /// The message.
    public let message: ReceivedMessage
    /// Deliveries to the group, this one included: 1 the first time.
    public let attempt: Int
    /// Its number in the consumer that holds it; nil: no broker waits for an acknowledgement.
    let number: Int?
    private let consumer: PopConsumer?

    init(_ message: ReceivedMessage, attempt: Int, number: Int?, of consumer: PopConsumer?) {
        self.message = message
        self.attempt = attempt
        self.number = number
        self.consumer = consumer
    }

    /// A member of the message.
    public subscript<Value>(dynamicMember path: KeyPath<ReceivedMessage, Value>) -> Value { message[keyPath: path] }

    /// The message is consumed: its group does not get it again. In mode `.topic` there is nothing to do.
    ///
    /// - Returns: false when its time was over, or it was acknowledged, failed or given back before: if its time was
    ///   over, it comes again.
    /// - Throws: why the broker has not confirmed it; the message comes again then, unless only the answer was lost.
    @discardableResult
    public func acknowledge() async throws(RocketMQClientError) -> Bool {
        guard let consumer, let number else { return true }
        return try await consumer.acknowledge(number)
    }

    /// Consuming the message failed: the group gets it again, and after too many times it becomes a dead letter. In
    /// mode `.topic` there is nothing to do.
    ///
    /// - Parameters:
    ///   - pause: when it comes again, 0 to 3 days; nil: as the topic's policy says; without one as RocketMQ's
    ///     consumers have it, 10 s the first time.
    ///   - reason: kept with a dead letter that the message becomes; brokers keep 512 bytes.
    /// - Returns: as `acknowledge`.
    /// - Throws: `invalidArgument` for a pause out of bounds, and why the broker has not confirmed it. Then the message
    ///   comes again when its time is over.
    @discardableResult
    public func fail(
        retryAfter pause: Duration? = nil, reason: String? = nil
    ) async throws(RocketMQClientError) -> Bool {
        guard let consumer, let number else { return true }
        return try await consumer.fail(number, after: pause, reason: reason)
    }

    /// Other members get the message at once; it has not failed.
    package func giveBack() async {
        if let consumer, let number { await consumer.giveBack(number) }
    }

    /// The message stays here for longer.
    ///
    /// - Parameter time: from now on, 1 ms to 3 days; nil: as long as at its delivery.
    /// - Returns: as `acknowledge`.
    /// - Throws: `invalidArgument` for a time out of bounds, and why the broker has not confirmed it.
    @discardableResult
    public func renew(for time: Duration? = nil) async throws(RocketMQClientError) -> Bool {
        guard let consumer, let number else { return true }
        return try await consumer.renew(number, for: time)
    }
}
