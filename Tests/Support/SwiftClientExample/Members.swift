import RocketMQClient

/// A member of a group of RocketMQ's, whose queues are divided among the members.
func greet(_ settings: ClientSettings) async throws {
    let producer = try Producer(settings, group: "greeters")
    try await producer.send(Message(topic: "Greetings", text: "hello", tag: "en"), selector: .orderingKey("Ann"))
    let consumer = try PushConsumer(
        settings, group: "readers", subscriptions: [Subscription(topic: "Greetings", tags: "en || de")]
    ) { messages in
        for message in messages { print(message.text) }
        return .success
    }
    try await consumer.start()
    try await Task.sleep(for: .seconds(60))
    await consumer.close()
    await producer.close()
}
