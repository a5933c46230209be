import RocketMQClient

let settings = ClientSettings(nameServers: CommandLine.arguments.dropFirst().first ?? "127.0.0.1:9876")
let producer = try Producer(settings, group: "greeters")
try await producer.send(Message(topic: "Greetings", text: "hello", tag: "en", keys: ["greeting-1"]))

let (texts, text) = AsyncStream.makeStream(of: String.self)
let consumer = try PushConsumer(
    settings, group: "readers", subscriptions: [Subscription(topic: "Greetings", tags: "en || de")]
) { messages in
    for message in messages { text.yield(message.text) }
    return .success
}
try await consumer.start()
for await text in texts {
    print(text)
    break
}
await consumer.close()
await producer.close()
