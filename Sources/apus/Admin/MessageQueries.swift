import ArgumentParser
import FastJSON
import MessageModel
import RocketMQClient

/// A message, and which groups have consumed it.
struct FoundMessage {
    let message: ReceivedMessage
    let tracks: [MessageTrack]

    static let jsonKeys = "\(ReceivedMessage.jsonKeys), tracks (a list of consumerGroup, trackType, exceptionDesc)"

    init(_ message: ReceivedMessage, _ client: AdminClient) async {
        self.message = message
        tracks = await client.tracks(of: message)
    }

    /// Everything about it.
    var lines: [String] {
        let columns = Columns("%-20s %s")
        var lines = [
            columns.line("OffsetID:", message.offsetMessageID), columns.line("Topic:", message.queue.topic),
            columns.line("Tags:", "[\(message.tag ?? "null")]"), columns.line("Keys:", "[\(message.keys ?? "null")]"),
            columns.line("Queue ID:", String(message.queue.queueID)),
            columns.line("Queue Offset:", String(message.queueOffset)),
            columns.line("CommitLog Offset:", String(message.commitLogOffset)),
            columns.line("Reconsume Times:", String(message.reconsumeTimes)),
            columns.line("Born Timestamp:", AdminTime.milliseconds(message.bornTimestamp)),
            columns.line("Store Timestamp:", AdminTime.milliseconds(message.storeTimestamp)),
            columns.line("Born Host:", message.bornHost), columns.line("Store Host:", message.storeHost),
            columns.line("System Flag:", String(message.systemFlag)),
            columns.line("Properties:", message.javaProperties),
            // RocketMQ's tool writes the body into a folder that others may prepare for it; here it is shown.
            columns.line("Message Body:", message.text), "",
        ]
        if tracks.isEmpty { lines.append("WARN: No Consumer") }
        return lines
            + tracks.map {
                "MessageTrack [consumerGroup=\($0.group), trackType=\($0.type), exceptionDesc=\($0.reason ?? "null")]"
            }
    }

    var json: JSONValue {
        let tracks = tracks.map { track in
            JSONValue.fields([
                ("consumerGroup", .string(track.group)), ("trackType", .string(track.type)),
                ("exceptionDesc", track.reason.map { .string($0) }),
            ])
        }
        let members = message.json.object?.members ?? []
        return .object(JSONObject(members: members + [JSONObject.Member(key: "tracks", value: .array(tracks))]))
    }
}

extension DirectConsumption {
    static let jsonKeys = "order, autoCommit, consumeResult, remark, spentTimeMills"

    /// As Java prints it.
    var javaText: String {
        let fields = ["order", "autoCommit", "consumeResult", "remark", "spentTimeMills"]
        let text = fields.map { "\($0)=\(self[$0] ?? "null")" }.joined(separator: ", ")
        return "ConsumeMessageDirectlyResult [\(text)]"
    }
}

/// `-g` and `-d`: the consumer that is to consume what was found.
struct DirectConsumer: ParsableArguments {
    @Option(
        name: [.customShort("g"), .customLong("consumerGroup")], parsing: .unconditional,
        help: ArgumentHelp("With -d: have this group's consumer consume it.", valueName: "GROUP"),
        completion: Completions.group)
    var group: String?
    @Option(
        name: [.customShort("d"), .customLong("clientId")], parsing: .unconditional,
        help: ArgumentHelp("That consumer.", valueName: "ID"))
    var client: String?

    func validate() throws {
        guard (group == nil) == (client == nil) else { throw ValidationError("-g and -d go together") }
    }

    /// nil: none was named, and the message is shown.
    var named: (group: String, client: String)? {
        guard let group, let client else { return nil }
        return (group, client)
    }
}

struct QueryMsgByID: StreamingCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgById", abstract: "Show messages by their ids.",
        discussion: AdminOutput.help(
            """
            a line for each message: \(FoundMessage.jsonKeys); with -d: \(DirectConsumption.jsonKeys); with -s: \
            \(SendResult.jsonKeys).
            """,
            after: """
                An id is the one a send was answered with: it holds the broker's address and the offset in its log. \
                With -t also ids that clients make (UNIQ_KEY).
                """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Option(
        name: [.customShort("i"), .customLong("msgId")], parsing: .unconditional,
        help: ArgumentHelp("Message ids, separated by ','.", valueName: "ID,…"))
    var ids: String
    @Option(
        name: [.customShort("t"), .customLong("topic")], parsing: .unconditional,
        help: ArgumentHelp("Topic of ids that clients made.", valueName: "TOPIC"), completion: Completions.topic)
    var topic: String?
    @OptionGroup var consumer: DirectConsumer
    @Option(
        name: [.customShort("s"), .customLong("sendMessage")], parsing: .unconditional,
        help: "Send it again (true or false).")
    var sendMessage = false

    enum Part {
        case found(FoundMessage)
        case consumed(DirectConsumption)
        case resent(original: String, SendResult)

        var lines: [String] {
            switch self {
            case .found(let found): found.lines
            case .consumed(let result): [result.javaText]
            case .resent(let original, let result): ["resent msg. originalMsgId=\(original) \(result.javaText)"]
            }
        }

        var json: JSONValue {
            switch self {
            case .found(let found): found.json
            case .consumed(let result): result.json
            case .resent(_, let result): result.json
            }
        }
    }

    func ask(_ client: AdminClient, _ show: (Part) -> Void) async throws {
        var messages: [ReceivedMessage] = []
        for id in ids.split(separator: ",").map(String.init) {
            messages.append(try await client.message(id: id, topic: topic))
        }
        for message in messages {
            if let named = consumer.named {
                show(
                    .consumed(
                        try await client.consumeDirectly(message, group: named.group, client: named.client)))
            } else if sendMessage {
                show(.resent(original: message.offsetMessageID, try await client.send(message.copy)))
            } else {
                show(.found(await FoundMessage(message, client)))
            }
        }
    }

    func lines(_ part: Part) -> [String] { part.lines }

    func json(_ part: Part) -> [JSONValue] { [part.json] }
}

struct QueryMsgByUniqueKey: StreamingCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgByUniqueKey", abstract: "Show a message by the id its client made.",
        discussion: AdminOutput.help(
            "a line for each message: \(FoundMessage.jsonKeys); with -d: \(DirectConsumption.jsonKeys)."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("i"), .customLong("msgId")], parsing: .unconditional,
        help: ArgumentHelp("Message id (UNIQ_KEY).", valueName: "ID"))
    var id: String
    @OptionGroup var consumer: DirectConsumer
    @Flag(name: [.customShort("a"), .customLong("showAll")], help: "All copies, at most 32.")
    var showAll = false

    func ask(_ client: AdminClient, _ show: (QueryMsgByID.Part) -> Void) async throws {
        let all = try await client.messages(in: topic.name, uniqueID: id).sorted {
            $0.storeTimestamp < $1.storeTimestamp
        }
        guard let first = all.first else {
            throw CommandFailure("no message with the id '\(id)' in topic '\(topic.name)'")
        }
        if let named = consumer.named {
            show(.consumed(try await client.consumeDirectly(first, group: named.group, client: named.client)))
            return
        }
        for message in showAll ? all : [first] { show(.found(await FoundMessage(message, client))) }
    }

    func lines(_ part: QueryMsgByID.Part) -> [String] { part.lines }

    func json(_ part: QueryMsgByID.Part) -> [JSONValue] { [part.json] }
}

struct QueryMsgByKey: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgByKey", abstract: "List the messages with a key, at most 64.",
        discussion: AdminOutput.help("a list of messages: \(ReceivedMessage.jsonKeys)."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("k"), .customLong("msgKey")], parsing: .unconditional,
        help: ArgumentHelp("Key.", valueName: "KEY"))
    var key: String

    func ask(_ client: AdminClient) async throws -> [ReceivedMessage] {
        try await client.messages(in: topic.name, key: key)
    }

    func lines(_ value: [ReceivedMessage]) -> [String] {
        let columns = Columns("%-50s %4s %40s")
        return [columns.line("#Message ID", "#QID", "#Offset")]
            + value.map { columns.line($0.messageID, String($0.queue.queueID), String($0.queueOffset)) }
    }

    func json(_ value: [ReceivedMessage]) -> JSONValue { .array(value.map(\.json)) }

    func check(_ value: [ReceivedMessage]) throws {
        guard !value.isEmpty else {
            throw CommandFailure(
                "no message with the key '\(key)' in topic '\(topic.name)' (keys are compared as they are written)")
        }
    }
}

struct QueryMsgByOffset: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgByOffset", abstract: "Show the message at an offset of a queue.",
        discussion: AdminOutput.help("an object: \(FoundMessage.jsonKeys)."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var broker: String
    @Option(name: [.customShort("i"), .customLong("queueId")], parsing: .unconditional, help: "Queue id.") var queue:
        Int
    @Option(name: [.customShort("o"), .customLong("offset")], parsing: .unconditional, help: "Offset in the queue.")
    var offset: Int64

    func ask(_ client: AdminClient) async throws -> FoundMessage {
        let queue = MessageQueue(topic: topic.name, brokerName: broker, queueID: queue)
        guard let message = try await client.message(at: offset, of: queue) else {
            throw CommandFailure("no such message")
        }
        return await FoundMessage(message, client)
    }

    func lines(_ value: FoundMessage) -> [String] { value.lines }

    func json(_ value: FoundMessage) -> JSONValue { value.json }
}

struct QueryMsgTraceByID: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgTraceById", abstract: "Show what trace messages say about a message.",
        discussion: AdminOutput.help(
            "a list of type (Pub or Sub), group, clientHost, time (milliseconds since 1970), cost, success.",
            after: "Producers and consumers write them when their message trace is switched on."),
        aliases: ["QueryMsgTraceById"])

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Option(
        name: [.customShort("i"), .customLong("msgId")], parsing: .unconditional,
        help: ArgumentHelp("Message id.", valueName: "ID"))
    var id: String
    @Option(
        name: [.customShort("t"), .customLong("traceTopic")], parsing: .unconditional,
        help: "Topic of the trace messages.")
    var traceTopic = AdminClient.standardTraceTopic

    func ask(_ client: AdminClient) async throws -> [MessageTraceRecord] {
        try await client.traces(of: id, traceTopic: traceTopic)
    }

    func lines(_ value: [MessageTraceRecord]) -> [String] {
        let columns = Columns("%-10s %-20s %-20s %-20s %-10s %-10s")
        return value.flatMap { record in
            let (who, when) =
                record.isConsumption ? ("#ConsumerGroup", "#ConsumerTime") : ("#ProducerGroup", "#SendTime")
            return [
                columns.line("#Type", who, "#ClientHost", when, "#CostTimes", "#Status"),
                columns.line(
                    record.isConsumption ? "Sub" : "Pub", record.group, record.clientHost,
                    record.timestamp.map(AdminTime.seconds) ?? "", "\(record.cost)ms",
                    record.isSuccess ? "success" : "failed"),
                "",
            ]
        }
    }

    func json(_ value: [MessageTraceRecord]) -> JSONValue {
        .array(
            value.map { record in
                .fields([
                    ("type", .string(record.isConsumption ? "Sub" : "Pub")), ("group", .string(record.group)),
                    ("clientHost", .string(record.clientHost)),
                    ("time", record.timestamp.map { .integer($0) }), ("cost", .string(record.cost)),
                    ("success", .bool(record.isSuccess)),
                ])
            })
    }
}

extension ReceivedMessage {
    private static let ofOneSend = ["\(PropertyName.uniqueKey)", "\(PropertyName.waitStoreMsgOK)"]

    /// The same message to be sent again, with an ID of its own.
    var copy: Message {
        Message(
            topic: queue.topic, body: body, properties: properties.filter { !Self.ofOneSend.contains($0.key) })
    }

    var javaProperties: String {
        "{\(properties.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ", "))}"
    }

    /// As Java prints it, but for the body, which the commands print as text.
    var javaText: String {
        "MessageExt [brokerName=\(queue.brokerName), queueId=\(queue.queueID), storeSize=\(storedBytes), "
            + "queueOffset=\(queueOffset), sysFlag=\(systemFlag), bornTimestamp=\(bornTimestamp), "
            + "bornHost=/\(bornHost), storeTimestamp=\(storeTimestamp), storeHost=/\(storeHost), "
            + "msgId=\(offsetMessageID), commitLogOffset=\(commitLogOffset), bodyCRC=\(bodyChecksum), "
            + "reconsumeTimes=\(reconsumeTimes), preparedTransactionOffset=\(preparedTransactionOffset), "
            + "toString()=Message{topic='\(queue.topic)', flag=\(flag), properties=\(javaProperties)}]"
    }
}
