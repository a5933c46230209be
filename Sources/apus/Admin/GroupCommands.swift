import ArgumentParser
import FastJSON
import MessageModel
import RocketMQClient

/// `-g`, which most commands about consumers need.
struct GroupOption: ParsableArguments {
    @Option(
        name: [.customShort("g"), .customLong("groupName"), .customLong("consumerGroup"), .customLong("group")],
        parsing: .unconditional,
        help: ArgumentHelp("Consumer group.", valueName: "GROUP"), completion: Completions.group)
    var name: String
}

struct UpdateSubGroup: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateSubGroup", abstract: "Create a consumer group, or change what it may do.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
    @OptionGroup var group: GroupOption
    @Option(
        name: [.customShort("s"), .customLong("consumeEnable")], parsing: .unconditional,
        help: "May consume (true or false).")
    var consumeEnable = true
    @Option(
        name: [.customShort("m"), .customLong("consumeFromMinEnable")], parsing: .unconditional,
        help: "Starts at the first offset.")
    var consumeFromMinEnable = false
    @Option(
        name: [.customShort("d"), .customLong("consumeBroadcastEnable")], parsing: .unconditional,
        help: "May broadcast (true or false).")
    var consumeBroadcastEnable = false
    @Option(
        name: [.customShort("q"), .customLong("retryQueueNums")], parsing: .unconditional,
        help: "Queues of its retry topic.")
    var retryQueueNums: Int32 = 1
    @Option(
        name: [.customShort("r"), .customLong("retryMaxTimes")], parsing: .unconditional,
        help: "Attempts before the dead letter queue.")
    var retryMaxTimes: Int32 = 16
    @Option(
        name: [.customShort("i"), .customLong("brokerId")], parsing: .unconditional,
        help: "Consumes from this broker id.")
    var brokerID: Int64 = 0
    @Option(
        name: [.customShort("w"), .customLong("whichBrokerWhenConsumeSlowly")], parsing: .unconditional,
        help: "Broker id for consumers that are far behind.")
    var whichBrokerWhenConsumeSlowly: Int64 = 1
    @Option(
        name: [.customShort("a"), .customLong("notifyConsumerIdsChanged")], parsing: .unconditional,
        help: "Consumers are notified when one joins or leaves (true or false).")
    var notifyConsumerIdsChanged = true

    func validate() throws { try place.requireOne() }

    func execute(_ client: AdminClient) async throws {
        var settings = GroupSettings(group: group.name)
        settings.mayConsume = consumeEnable
        settings.startsAtMinOffset = consumeFromMinEnable
        settings.mayBroadcast = consumeBroadcastEnable
        settings.retryQueues = Int(retryQueueNums)
        settings.retriesMax = Int(retryMaxTimes)
        settings.brokerID = brokerID
        settings.brokerIDWhenSlow = whichBrokerWhenConsumeSlowly
        settings.notifiesMembers = notifyConsumerIdsChanged
        for address in try await client.masters(place.choice) {
            try await client.create(settings, at: address)
            print("create subscription group to \(address) success.")
        }
        print(
            "SubscriptionGroupConfig [groupName=\(group.name), consumeEnable=\(consumeEnable), "
                + "consumeFromMinEnable=\(consumeFromMinEnable), consumeBroadcastEnable=\(consumeBroadcastEnable), "
                + "retryQueueNums=\(retryQueueNums), retryMaxTimes=\(retryMaxTimes), brokerId=\(brokerID), "
                + "whichBrokerWhenConsumeSlowly=\(whichBrokerWhenConsumeSlowly), "
                + "notifyConsumerIdsChangedEnable=\(notifyConsumerIdsChanged)]")
    }
}

struct SetConsumeMode: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "setConsumeMode", abstract: "Have a consumer group pull or pop a topic.",
        discussion: """
            Brokers that know modes (Apus, RocketMQ 5) hand it to the group's push consumers, which follow it with \
            their next rebalance.
            """)

    @Option(
        name: [.customShort("n"), .customLong("namesrvAddr")], parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            """
            Name servers, separated by ';' (default: $NAMESRV_ADDR, else 127.0.0.1:9876). A mere number is \
            --popShareQueueNum, as in RocketMQ's tool.
            """, valueName: "HOST:PORT;…"))
    var serversAndNumbers: [String] = []
    @OptionGroup var place: BrokerOrCluster
    @Option(
        name: [.customShort("t"), .customLong("topicName"), .customLong("topic")], parsing: .unconditional,
        help: ArgumentHelp("Topic.", valueName: "TOPIC"), completion: Completions.topic)
    var topic: String
    @OptionGroup var group: GroupOption
    @Option(
        name: [.customShort("m"), .customLong("mode")], parsing: .unconditional,
        help: ArgumentHelp("PULL or POP.", valueName: "MODE"), completion: .list(["PULL", "POP"]))
    var mode: String
    @Option(
        name: .customLong("popShareQueueNum"), parsing: .unconditional,
        help: ArgumentHelp(
            "How many other members' queues a popping member reads besides its own; 0: all queues.",
            valueName: "NUMBER"))
    var popShareQueueNum: Int32?

    var server: NameServerOption {
        var option = NameServerOption()
        option.namesrvAddr = serversAndNumbers.last { Int32($0) == nil }
        return option
    }

    /// As the brokers are told.
    var settings: ConsumeMode {
        let shared = popShareQueueNum ?? serversAndNumbers.compactMap { Int32($0) }.last ?? 0
        return mode.uppercased() == "POP" ? .pop(sharedQueues: Int(shared)) : .pull
    }

    func validate() throws {
        try place.requireOne()
        guard ["PULL", "POP"].contains(mode.uppercased()) else {
            throw ValidationError("'\(mode)' is no mode: say PULL or POP with -m")
        }
    }

    func execute(_ client: AdminClient) async throws {
        for address in try await client.masters(place.choice) {
            try await client.setConsumeMode(settings, of: group.name, topic: topic, at: address)
            print("set consume mode to \(address) success.")
        }
        let shared = if case .pop(let shared) = settings { shared } else { 0 }
        print("topic[\(topic)] group[\(group.name)] consume mode[\(mode.uppercased())] popShareQueueNum[\(shared)]")
    }
}

struct DeleteSubGroup: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "deleteSubGroup", abstract: "Delete a consumer group.",
        discussion: "With -c its retry and dead letter topics are deleted as well.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
    @OptionGroup var group: GroupOption
    @Option(
        name: [.customShort("r"), .customLong("removeOffset")], parsing: .unconditional,
        help: "Delete its offsets, too (true or false).")
    var removeOffset = false

    func validate() throws { try place.requireOne() }

    func execute(_ client: AdminClient) async throws {
        let cluster = place.cluster.map { " in cluster [\($0)]" } ?? ""
        for address in try await client.masters(place.choice) {
            try await client.deleteGroup(group.name, removesOffsets: removeOffset, at: address)
            print("delete subscription group [\(group.name)] from broker [\(address)]\(cluster) success.")
        }
        guard let cluster = place.cluster else { return }
        for topic in [TopicName.retryPrefix + group.name, TopicName.deadLetterPrefix + group.name] {
            try await client.deleteShowing(topic, in: cluster)
        }
    }
}

struct GetConsumerConfig: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "getConsumerConfig", abstract: "Show what a consumer group may do, broker by broker.",
        discussion: AdminOutput.help(
            "a list of cluster, brokerName, config (an object with the broker's fields by RocketMQ's names)."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var group: GroupOption

    func ask(_ client: AdminClient) async throws -> [GroupSettingsAtBroker] {
        try await client.groupSettings(of: group.name)
    }

    func lines(_ value: [GroupSettingsAtBroker]) -> [String] {
        let columns = Columns("%-40s=  %s")
        let rule = "============================="
        return value.flatMap { entry in
            ["\(rule)\(entry.broker.cluster):\(entry.broker.name)\(rule)"]
                + entry.fields.map { columns.line($0.name, $0.value) }
        }
    }

    func json(_ value: [GroupSettingsAtBroker]) -> JSONValue {
        .array(
            value.map {
                .fields([
                    ("cluster", .string($0.broker.cluster)), ("brokerName", .string($0.broker.name)),
                    ("config", $0.json),
                ])
            })
    }

    func check(_ value: [GroupSettingsAtBroker]) throws {
        guard !value.isEmpty else { throw CommandFailure("no broker knows the consumer group '\(group.name)'") }
    }
}

struct ConsumerProgress: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "consumerProgress", abstract: "Show how far consumer groups are behind.",
        discussion: AdminOutput.help(
            """
            with -g an object: consumeTps, diffTotal, and queues, a list of topic, brokerName, queueId, brokerOffset, \
            consumerOffset, diff, lastTimestamp (milliseconds since 1970), clientIP. Without -g a list of group, \
            count, version, type, model, consumeTps, diffTotal.
            """, after: "Without -g all groups in short."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Option(
        name: [.customShort("g"), .customLong("groupName")], parsing: .unconditional,
        help: ArgumentHelp("One consumer group, queue by queue.", valueName: "GROUP"), completion: Completions.group)
    var group: String?
    @Option(
        name: [.customShort("t"), .customLong("topicName")], parsing: .unconditional, help: "With -g: this topic only.")
    var topic: String?
    @Option(
        name: [.customShort("s"), .customLong("showClientIP")], parsing: .unconditional,
        help: "With -g: the consumer each queue belongs to (true or false).")
    var showClientIP = false

    enum Value {
        /// - Parameter owners: queue → address of its consumer; nil: not asked for.
        case group(ConsumerProgressReport, owners: [MessageQueue: String]?)
        case all([Summary])
    }

    /// One group in short. What could not be asked is nil.
    struct Summary {
        let group: String
        let report: ConsumerProgressReport?
        let consumers: ConsumerConnections?

        var version: String? { consumers?.clients.map(\.version).min().map(versionName) }
        var type: String? { consumers.map { $0.isPull ? "PULL" : "PUSH" } }
        var model: String? { consumers.flatMap { $0.isPull ? nil : $0.messageModel } }
    }

    func ask(_ client: AdminClient) async throws -> Value {
        if let group {
            let report = try await client.progress(of: group, topic: topic)
            return .group(report, owners: showClientIP ? await client.queueOwners(of: group) : nil)
        }
        var summaries: [Summary] = []
        for group in try await client.groups() {
            summaries.append(
                Summary(
                    group: group, report: try? await client.progress(of: group),
                    consumers: try? await client.consumers(of: group)))
        }
        return .all(summaries)
    }

    func lines(_ value: Value) -> [String] {
        switch value {
        case .group(let report, let owners): Self.lines(report, owners)
        case .all(let summaries): Self.lines(summaries)
        }
    }

    private static func lines(_ report: ConsumerProgressReport, _ owners: [MessageQueue: String]?) -> [String] {
        let address = owners == nil ? "  %-20s" : "  %-20s %-20s"
        let columns = Columns("%-64s  %-32s  %-4s  %-20s  %-20s\(address)  %s")
        let head = ["#Topic", "#Broker Name", "#QID", "#Broker Offset", "#Consumer Offset"]
        let rows = report.rows.map { row in
            let cells = [
                front(row.queue.topic, 64), front(row.queue.brokerName, 32), String(row.queue.queueID),
                String(row.brokerOffset), String(row.consumerOffset),
            ]
            let owner = owners.map { [$0[row.queue] ?? "N/A"] } ?? []
            let time = row.lastTimestamp == 0 ? "N/A" : AdminTime.seconds(row.lastTimestamp)
            return columns.line(cells + owner + [String(row.difference), time])
        }
        return [columns.line(head + (owners == nil ? [] : ["#Client IP"]) + ["#Diff", "#LastTime"])] + rows
            + ["\nConsume TPS: \(fixed(report.messagesPerSecond, 2))\nDiff Total: \(report.difference)"]
    }

    private static func lines(_ summaries: [Summary]) -> [String] {
        let columns = Columns("%-64s  %-6s  %-24s %-5s  %-14s  %-7s  %s")
        return [columns.line("#Group", "#Count", "#Version", "#Type", "#Model", "#TPS", "#Diff Total")]
            + summaries.map { summary in
                columns.line(
                    front(summary.group, 64), String(summary.consumers?.clients.count ?? 0),
                    summary.version ?? "OFFLINE", summary.type ?? "", summary.model ?? "",
                    String(Int(summary.report?.messagesPerSecond ?? 0)), String(summary.report?.difference ?? 0))
            }
    }

    func json(_ value: Value) -> JSONValue {
        switch value {
        case .group(let report, let owners): Self.json(report, owners)
        case .all(let summaries): .array(summaries.map(\.json))
        }
    }

    private static func json(_ report: ConsumerProgressReport, _ owners: [MessageQueue: String]?) -> JSONValue {
        let rows = report.rows.map { row -> JSONValue in
            let owner = owners?[row.queue].map { [JSONObject.Member(key: "clientIP", value: .string($0))] } ?? []
            return .object(JSONObject(members: (row.json.object?.members ?? []) + owner))
        }
        return .fields([
            ("consumeTps", .number(report.messagesPerSecond)), ("diffTotal", .integer(report.difference)),
            ("queues", .array(rows)),
        ])
    }
}

extension ConsumerProgress.Summary {
    var json: JSONValue {
        func text(_ text: String?) -> JSONValue? { text.map { .string($0) } }
        let count = consumers?.clients.count ?? 0
        let rate = report?.messagesPerSecond ?? 0
        let difference = report?.difference ?? 0
        return .fields([
            ("group", .string(group)), ("count", .integer(count)), ("version", text(version)), ("type", text(type)),
            ("model", text(model)), ("consumeTps", .number(rate)), ("diffTotal", .integer(difference)),
        ])
    }
}

struct ConsumerConnection: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "consumerConnection", abstract: "Show the consumers of a group and what they subscribe to.",
        discussion: AdminOutput.help(
            """
            an object: connections (a list of clientId, clientAddr, language, version), subscriptions (a list of \
            topic, type, expression), consumeType, messageModel, consumeFromWhere.
            """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var group: GroupOption
    @Option(
        name: [.customShort("b"), .customLong("brokerAddr")], parsing: .unconditional,
        help: ArgumentHelp("Ask this broker.", valueName: "HOST:PORT"))
    var broker: String?

    func ask(_ client: AdminClient) async throws -> ConsumerConnections {
        try await client.consumers(of: group.name, at: broker)
    }

    func lines(_ value: ConsumerConnections) -> [String] {
        let columns = Columns("%-36s %-22s %-10s %s")
        let topics = Columns("%-20s %s")
        var lines = [columns.line("#ClientId", "#ClientAddr", "#Language", "#Version")]
        lines += value.clients.map { columns.line($0.clientID, $0.address, $0.language, versionName($0.version)) }
        lines += ["\nBelow is subscription:", topics.line("#Topic", "#SubExpression")]
        lines += value.subscriptions.map { topics.line($0.topic, $0.expression) }
        return lines + [
            "\nConsumeType: \(value.consumeType)", "MessageModel: \(value.messageModel)",
            "ConsumeFromWhere: \(value.consumeFromWhere)",
        ]
    }

    func json(_ value: ConsumerConnections) -> JSONValue {
        .fields([
            ("connections", .array(value.clients.map(\.json))),
            (
                "subscriptions",
                .array(
                    value.subscriptions.map {
                        .fields([
                            ("topic", .string($0.topic)), ("type", .string($0.expressionType)),
                            ("expression", .string($0.expression)),
                        ])
                    })
            ),
            ("consumeType", .string(value.consumeType)), ("messageModel", .string(value.messageModel)),
            ("consumeFromWhere", .string(value.consumeFromWhere)),
        ])
    }
}

struct ProducerConnection: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "producerConnection", abstract: "Show the producers of a group.",
        discussion: AdminOutput.help("a list of clientId, clientAddr, language, version."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Option(
        name: [.customShort("g"), .customLong("producerGroup")], parsing: .unconditional,
        help: ArgumentHelp("Producer group.", valueName: "GROUP"))
    var group: String
    @OptionGroup var topic: TopicOption

    func ask(_ client: AdminClient) async throws -> [ClientConnection] {
        try await client.producers(of: group, topic: topic.name)
    }

    func lines(_ value: [ClientConnection]) -> [String] {
        let columns = Columns("%s  %-32s %-22s %-8s %s")
        return value.enumerated().map { index, client in
            let number = String(10_000 + index + 1).dropFirst()
            return columns.line(
                String(number), client.clientID, client.address, client.language, versionName(client.version))
        }
    }

    func json(_ value: [ClientConnection]) -> JSONValue { .array(value.map(\.json)) }
}

struct ProducerCommand: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "producer", abstract: "Show all producers of a broker.",
        discussion: AdminOutput.help(
            "a list of producerGroup, clientId, remoteIP, language, version, lastUpdateTimestamp."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Option(
        name: [.customShort("b"), .customLong("broker")], parsing: .unconditional,
        help: ArgumentHelp("The broker.", valueName: "HOST:PORT"))
    var broker: String

    func ask(_ client: AdminClient) async throws -> [ProducerInstance] { try await client.producers(at: broker) }

    func lines(_ value: [ProducerInstance]) -> [String] {
        value.map {
            "producer group (\($0.group)) instance : clientId=\($0.clientID),remoteIP=\($0.address), "
                + "language=\($0.language), version=\($0.version), lastUpdateTimestamp=\($0.lastUpdated)"
        }
    }

    func json(_ value: [ProducerInstance]) -> JSONValue {
        .array(
            value.map {
                .fields([
                    ("producerGroup", .string($0.group)), ("clientId", .string($0.clientID)),
                    ("remoteIP", .string($0.address)), ("language", .string($0.language)),
                    ("version", .string($0.version)), ("lastUpdateTimestamp", .string($0.lastUpdated)),
                ])
            })
    }
}
