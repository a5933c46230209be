import ArgumentParser
import FastJSON
import MessageModel
import RocketMQClient

/// `-s`/`-b` and `-e`: a span of store times.
enum TimeArgument {
    static func parse(_ text: String?, _ option: String) throws -> Int64? {
        guard let text else { return nil }
        guard let time = AdminTime.parse(text) else {
            throw ValidationError(
                "\(option) '\(text)' is no time: milliseconds since 1970, or yyyy-MM-dd#HH:mm:ss:SSS")
        }
        return time
    }
}

/// `-s`, `-b`, `-e`: which messages of a queue.
struct ChosenMessages: ParsableArguments {
    @Option(
        name: [.customShort("c"), .customLong("charsetName")], parsing: .unconditional,
        help: "Accepted for compatibility; bodies are UTF-8.")
    var charset = "UTF-8"
    @Option(
        name: [.customShort("s"), .customLong("subExpression")], parsing: .unconditional, help: "Tags: 'TagA || TagB'.")
    var expression = "*"
    @Option(
        name: [.customShort("b"), .customLong("beginTimestamp")], parsing: .unconditional,
        help: ArgumentHelp("Stored from this time on.", valueName: "TIME"))
    var begin: String?
    @Option(
        name: [.customShort("e"), .customLong("endTimestamp")], parsing: .unconditional,
        help: ArgumentHelp("Stored before this time.", valueName: "TIME"))
    var end: String?

    /// The span of store times, milliseconds since 1970; nil is open.
    func span() throws -> (begin: Int64?, end: Int64?) {
        (try TimeArgument.parse(begin, "-b"), try TimeArgument.parse(end, "-e"))
    }
}

struct PrintMsg: StreamingCommand {
    static let configuration = CommandConfiguration(
        commandName: "printMsg", abstract: "Print the messages of a topic, consuming nothing.",
        discussion: AdminOutput.help("a line for each message: \(ReceivedMessage.jsonKeys)."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @OptionGroup var chosen: ChosenMessages
    @Option(
        name: [.customShort("d"), .customLong("printBody")], parsing: .unconditional,
        help: "Bodies, too (true or false).")
    var printBody = true
    @Option(name: [.customShort("l"), .customLong("lmqParentTopic")], parsing: .unconditional, help: .hidden)
    var parentTopic: String?

    enum Part {
        case queue(MessageQueue, first: Int64, end: Int64)
        case message(ReceivedMessage)
        case queueEnds
    }

    func ask(_ client: AdminClient, _ show: (Part) -> Void) async throws {
        let (begin, end) = try chosen.span()
        let route = try await client.route(of: topic.name)
        for queue in route.readableQueues {
            let address = try route.address(of: queue)
            let (first, last) = try await client.offsets(of: queue, at: address, begin: begin, end: end)
            show(.queue(queue, first: first, end: last))
            try await client.read(queue, at: address, from: first, to: last, tags: chosen.expression) { messages in
                for message in messages { show(.message(message)) }
            }
            show(.queueEnds)
        }
    }

    func lines(_ part: Part) -> [String] {
        switch part {
        case .queue(let queue, let first, let end): ["minOffset=\(first), maxOffset=\(end), \(queue.javaText)"]
        case .message(let message): [message.line(withBody: printBody)]
        case .queueEnds: ["--------------------------------------------------------"]
        }
    }

    func json(_ part: Part) -> [JSONValue] {
        guard case .message(let message) = part else { return [] }
        return [message.json]
    }
}

struct PrintMsgByQueue: StreamingCommand {
    static let configuration = CommandConfiguration(
        commandName: "printMsgByQueue", abstract: "Print or count the messages of one queue, consuming nothing.",
        discussion: AdminOutput.help(
            "with -p a line for each message: \(ReceivedMessage.jsonKeys); with -f a line for each tag: tag, count."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(name: [.customShort("a"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var broker: String
    @Option(name: [.customShort("i"), .customLong("queueId")], parsing: .unconditional, help: "Queue id.") var queue:
        Int
    @OptionGroup var chosen: ChosenMessages
    @Option(
        name: [.customShort("p"), .customLong("printMsg")], parsing: .unconditional, help: "Print them (true or false)."
    )
    var printMsg = false
    @Option(
        name: [.customShort("d"), .customLong("printBody")], parsing: .unconditional,
        help: "Bodies, too (true or false).")
    var printBody = false
    @Option(
        name: [.customShort("f"), .customLong("calculate")], parsing: .unconditional,
        help: "Count them by tag (true or false).")
    var calculate = false

    enum Part {
        case message(ReceivedMessage)
        case count(tag: String, Int)
    }

    func ask(_ client: AdminClient, _ show: (Part) -> Void) async throws {
        let (begin, end) = try chosen.span()
        let queue = MessageQueue(topic: topic.name, brokerName: broker, queueID: queue)
        let address = try await client.route(of: topic.name).address(of: queue)
        let (first, last) = try await client.offsets(of: queue, at: address, begin: begin, end: end)
        var counts: [String: Int] = [:]
        try await client.read(queue, at: address, from: first, to: last, tags: chosen.expression) { messages in
            for message in messages {
                if calculate, let tag = message.tag { counts[tag, default: 0] += 1 }
                if printMsg { show(.message(message)) }
            }
        }
        for (tag, count) in counts.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
            show(.count(tag: tag, count))
        }
    }

    func lines(_ part: Part) -> [String] {
        switch part {
        case .message(let message): [message.line(withBody: printBody)]
        case .count(let tag, let count): [Columns("Tag: %-30s Count: %s").line(tag, String(count))]
        }
    }

    func json(_ part: Part) -> [JSONValue] {
        switch part {
        case .message(let message): [message.json]
        case .count(let tag, let count): [.fields([("tag", .string(tag)), ("count", .integer(count))])]
        }
    }
}

struct ConsumeMessage: StreamingCommand {
    static let configuration = CommandConfiguration(
        commandName: "consumeMessage", abstract: "Read the oldest messages of a topic, committing nothing.",
        discussion: AdminOutput.help("a line for each message: \(ReceivedMessage.jsonKeys)."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "One broker's queues.")
    var broker: String?
    @Option(name: [.customShort("i"), .customLong("queueId")], parsing: .unconditional, help: "With -b: one queue.")
    var queue: Int?
    @Option(
        name: [.customShort("o"), .customLong("offset")], parsing: .unconditional, help: "With -i: from this offset on."
    ) var offset: Int64?
    @Option(
        name: [.customShort("g"), .customLong("consumerGroup")], parsing: .unconditional,
        help: "Consumer group to pull as.", completion: Completions.group)
    var group = WireNames.toolsGroup
    @Option(
        name: [.customShort("s"), .customLong("beginTimestamp")], parsing: .unconditional,
        help: ArgumentHelp("Stored from this time on.", valueName: "TIME"))
    var begin: String?
    @Option(
        name: [.customShort("e"), .customLong("endTimestamp")], parsing: .unconditional,
        help: ArgumentHelp("Stored before this time.", valueName: "TIME"))
    var end: String?
    @Option(
        name: [.customShort("c"), .customLong("MessageNumber")], parsing: .unconditional, help: "How many at most.")
    var count: Int64 = 128

    func validate() throws {
        guard count > 0 else { throw ValidationError("-c must be above 0") }
        guard queue == nil || broker != nil else { throw ValidationError("-i needs the broker: -b NAME") }
        guard offset == nil || queue != nil else { throw ValidationError("-o needs the queue: -i N") }
    }

    func ask(_ client: AdminClient, _ show: ([ReceivedMessage]) -> Void) async throws {
        let (begin, end) = (try TimeArgument.parse(begin, "-s"), try TimeArgument.parse(end, "-e"))
        let route = try await client.route(of: topic.name)
        let queues = route.readableQueues.filter {
            (broker.map { [name = $0.brokerName] in $0 == name } ?? true) && (queue == nil || $0.queueID == queue)
        }
        guard !queues.isEmpty else { throw CommandFailure("topic '\(topic.name)' has no such queue") }
        var left = count
        for queue in queues where left > 0 {
            let address = try route.address(of: queue)
            let (first, last) = try await client.offsets(of: queue, at: address, begin: begin, end: end)
            let start = max(first, offset ?? first)
            try await client.read(
                queue, at: address, from: start, to: min(last, start +| left), group: group
            ) { messages in
                guard !messages.isEmpty else { return }
                show(messages)
                left -= Int64(messages.count)
            }
        }
    }

    func lines(_ part: [ReceivedMessage]) -> [String] { ["Consume ok"] + part.map { $0.line(withBody: true) } }

    func json(_ part: [ReceivedMessage]) -> [JSONValue] { part.map(\.json) }
}

extension ReceivedMessage {
    /// As RocketMQ's tool prints it.
    func line(withBody: Bool) -> String {
        "MSGID: \(messageID) \(javaText) BODY: \(withBody ? text : "NOT PRINT BODY")"
    }
}
