import ArgumentParser
import MessageModel
import RemotingProtocol

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
        help: "Taken for RocketMQ's sake; bodies are UTF-8.")
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

struct PrintMsg: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "printMsg", abstract: "Print the messages of a topic, consuming nothing.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption
    @OptionGroup var chosen: ChosenMessages
    @Option(
        name: [.customShort("d"), .customLong("printBody")], parsing: .unconditional,
        help: "Bodies, too (true or false).")
    var printBody = true
    @Option(name: [.customShort("l"), .customLong("lmqParentTopic")], parsing: .unconditional, help: .hidden)
    var parentTopic: String?

    func execute(_ session: AdminSession) async throws {
        let (begin, end) = try chosen.span()
        let route = try await session.route(topic.name)
        for queue in session.queues(topic.name, in: route) {
            let address = try session.address(of: queue, in: route)
            let (first, last) = try await session.span(queue, at: address, begin, end)
            print("minOffset=\(first), maxOffset=\(last), \(queue.javaText)")
            try await session.read(queue, at: address, from: first, to: last, chosen.expression) { messages in
                for message in messages { message.printLine(brokerName: queue.brokerName, withBody: printBody) }
            }
            print("--------------------------------------------------------")
        }
    }
}

struct PrintMsgByQueue: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "printMsgByQueue", abstract: "Print or count the messages of one queue, consuming nothing.")

    @OptionGroup var server: NameServerOption
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

    func execute(_ session: AdminSession) async throws {
        let (begin, end) = try chosen.span()
        let place = MessageQueue(topic: topic.name, brokerName: broker, queueId: queue)
        let address = try session.address(of: place, in: try await session.route(topic.name))
        let (first, last) = try await session.span(place, at: address, begin, end)
        var counts: [String: Int] = [:]
        try await session.read(place, at: address, from: first, to: last, chosen.expression) { messages in
            for message in messages {
                if calculate, let tag = message.tags { counts[tag, default: 0] += 1 }
                if printMsg { message.printLine(brokerName: broker, withBody: printBody) }
            }
        }
        let columns = Columns("Tag: %-30s Count: %s")
        for (tag, count) in counts.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
            columns.show(tag, String(count))
        }
    }
}

struct ConsumeMessage: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "consumeMessage", abstract: "Read the oldest messages of a topic, committing nothing.")

    @OptionGroup var server: NameServerOption
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
    var group = AdminSession.toolsGroup
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

    func execute(_ session: AdminSession) async throws {
        let (begin, end) = (try TimeArgument.parse(begin, "-s"), try TimeArgument.parse(end, "-e"))
        let route = try await session.route(topic.name)
        let queues = session.queues(topic.name, in: route).filter {
            (broker.map { [name = $0.brokerName] in $0 == name } ?? true) && (queue == nil || $0.queueId == queue)
        }
        guard !queues.isEmpty else { throw CommandFailure("topic '\(topic.name)' has no such queue") }
        var left = count
        for queue in queues where left > 0 {
            let address = try session.address(of: queue, in: route)
            let (first, last) = try await session.span(queue, at: address, begin, end)
            let start = max(first, offset ?? first)
            try await session.read(
                queue, at: address, from: start, to: min(last, start +| left), group: group
            ) { messages in
                guard !messages.isEmpty else { return }
                print("Consume ok")
                for message in messages { message.printLine(brokerName: queue.brokerName, withBody: true) }
                left -= Int64(messages.count)
            }
        }
    }
}

/// What one pull brought.
struct Pulled {
    var messages: [MessageExt] = []
    var next: Int64
    /// There is nothing more up to the end of the queue.
    var hasEnded = false
}

extension AdminSession {
    /// The group RocketMQ's tool pulls as.
    static let toolsGroup = "TOOLS_CONSUMER"

    /// One pull without waiting.
    func pull(
        _ queue: MessageQueue, at address: String, offset: Int64, count: Int, _ expression: String = "*",
        type: String = "TAG", group: String = AdminSession.toolsGroup
    ) async throws -> Pulled {
        // subscription 4
        let reply = try await ask(
            address, .pullMessage,
            [
                "consumerGroup": group, "topic": queue.topic, "queueId": String(queue.queueId),
                "queueOffset": String(offset), "maxMsgNums": String(count), "sysFlag": "4", "commitOffset": "0",
                "suspendTimeoutMillis": "0", "subscription": expression, "subVersion": "0", "expressionType": type,
            ])
        switch reply.responseCode {
        case .success:
            return Pulled(messages: try MessageExt.decodeAll(reply.body), next: try reply.integer("nextBeginOffset"))
        case .pullRetryImmediately: return Pulled(next: try reply.integer("nextBeginOffset"))
        case .pullNotFound: return Pulled(next: offset, hasEnded: true)
        case .pullOffsetMoved:
            let next = try reply.integer("nextBeginOffset")
            return Pulled(next: next, hasEnded: next <= offset)
        default: throw Refusal(address: address, reply: reply)
        }
    }

    /// Hands out the messages of a range of offsets, its end excluded.
    func read(
        _ queue: MessageQueue, at address: String, from first: Int64, to end: Int64, _ expression: String = "*",
        group: String = AdminSession.toolsGroup, _ take: ([MessageExt]) -> Void
    ) async throws {
        var offset = first
        // Brokers choose by the tag's hash; the tag itself is compared here.
        let wanted = Subscription(topic: queue.topic, expression: expression).tags
        while offset < end {
            let pulled = try await pull(
                queue, at: address, offset: offset, count: Int(min(32, end -| offset)), expression, group: group)
            take(
                pulled.messages.filter { message in
                    message.queueOffset < end && (wanted.map { $0.contains(message.tags ?? "") } ?? true)
                })
            guard !pulled.hasEnded, pulled.next > offset else { return }
            offset = pulled.next
        }
    }

    /// First offset and end of a queue, or of the part that was stored in a span of time.
    func span(
        _ queue: MessageQueue, at address: String, _ begin: Int64?, _ end: Int64?
    ) async throws -> (first: Int64, end: Int64) {
        let first =
            if let begin { try await offset(.searchOffsetByTimestamp, queue, at: address, timestamp: begin) } else {
                try await offset(.getMinOffset, queue, at: address)
            }
        let last =
            if let end { try await offset(.searchOffsetByTimestamp, queue, at: address, timestamp: end) } else {
                try await offset(.getMaxOffset, queue, at: address)
            }
        return (first, last)
    }
}

extension MessageExt {
    func printLine(brokerName: String, withBody: Bool) {
        let body = withBody ? String(decoding: body, as: UTF8.self) : "NOT PRINT BODY"
        print("MSGID: \(messageID) \(javaText(brokerName: brokerName)) BODY: \(body)")
    }
}
