import RocketMQClient

let servers = CommandLine.arguments.dropFirst().first ?? "127.0.0.1:9876"

// One line to publish …
try await RocketMQ.publish("greetings", "hello", key: "greeting-1", tag: "en", at: servers)

// … one to subscribe: each message goes to one reader of the group, until it is acknowledged or its time is over.
let greetings = RocketMQ.subscribe("greetings", mode: .queue, group: "readers", tags: "en || de", at: servers)
for try await message in greetings {
    print(message.text)
    try await message.acknowledge()
    break
}
await greetings.close()
