import ArgumentParser
import FastJSON
import MessageModel
import RocketMQClient

/// `-t`, which most commands about topics need.
struct TopicOption: ParsableArguments {
    @Option(
        name: [.customShort("t"), .customLong("topic")], parsing: .unconditional,
        help: ArgumentHelp("Topic.", valueName: "TOPIC"), completion: Completions.topic)
    var name: String
}

struct TopicListCommand: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicList", abstract: "List all topics, with -c also their clusters and consumer groups.",
        discussion: AdminOutput.help("a list of names; with -c a list of topic, cluster, groups (a list)."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Flag(name: [.customShort("c"), .customLong("clusterModel")], help: "Clusters and consumer groups, too.")
    var clusterModel = false

    struct Topic {
        let name: String
        /// Empty without `-c`, and for a topic that was deleted meanwhile.
        var cluster = ""
        var groups: [String] = []
    }

    func ask(_ client: AdminClient) async throws -> [Topic] {
        let names = try await client.topics()
        guard clusterModel else { return names.map { Topic(name: $0) } }
        var topics: [Topic] = []
        for name in names where !name.hasPrefix(TopicName.retryPrefix) && !name.hasPrefix(TopicName.deadLetterPrefix) {
            let route = try? await client.route(of: name)
            topics.append(
                Topic(
                    name: name, cluster: route?.brokers.first?.cluster ?? "",
                    groups: await client.groups(consuming: name, route: route)))
        }
        return topics
    }

    func lines(_ value: [Topic]) -> [String] {
        guard clusterModel else { return value.map(\.name) }
        let columns = Columns("%-20s  %-64s  %-64s")
        return [Columns("%-20s  %-48s  %-48s").line("#Cluster Name", "#Topic", "#Consumer Group")]
            + value.flatMap { topic in
                (topic.groups.isEmpty ? [""] : topic.groups).map { group in
                    columns.line(front(topic.cluster, 20), front(topic.name, 64), front(group, 64))
                }
            }
    }

    func json(_ value: [Topic]) -> JSONValue {
        guard clusterModel else { return .strings(value.map(\.name)) }
        return .array(
            value.map {
                .fields([
                    ("topic", .string($0.name)), ("cluster", .string($0.cluster)), ("groups", .strings($0.groups)),
                ])
            })
    }
}

struct TopicRouteCommand: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicRoute", abstract: "Show a topic's brokers and queues.",
        discussion: AdminOutput.help(
            """
            as without -l, in one line: brokerDatas (a list of brokerAddrs, brokerName, cluster), queueDatas (a list \
            of brokerName, perm, readQueueNums, topicSysFlag, writeQueueNums), filterServerTable, orderTopicConf.
            """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Flag(name: [.customShort("l"), .customLong("list")], help: "As a table instead of JSON.")
    var list = false

    func ask(_ client: AdminClient) async throws -> TopicRoute { try await client.route(of: topic.name) }

    func lines(_ value: TopicRoute) -> [String] {
        guard list else { return [value.json.text([.pretty, .sorted])] }
        let columns = Columns("%-45s %-32s %-50s %-10s %-11s %-5s")
        var lines = [
            columns.line("#ClusterName", "#BrokerName", "#BrokerAddrs", "#ReadQueue", "#WriteQueue", "#Perm")
        ]
        var (brokers, reading, writing) = (0, 0, 0)
        for broker in value.brokers.sorted(by: { $0.name < $1.name }) {
            guard let queues = value.queues.first(where: { $0.brokerName == broker.name }) else { continue }
            brokers += 1
            reading += queues.readQueues
            writing += queues.writeQueues
            let addresses = broker.addresses.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            lines.append(
                columns.line(
                    broker.cluster, broker.name, "{\(addresses.joined(separator: ", "))}",
                    String(queues.readQueues), String(queues.writeQueues), String(queues.permission)))
        }
        lines.append(String(repeating: "-", count: 158))
        lines.append(columns.line("Total:", String(brokers), "", String(reading), String(writing), ""))
        return lines
    }

    func json(_ value: TopicRoute) -> JSONValue { value.json }
}

struct TopicStatus: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicStatus", abstract: "Show first and last offset of each queue of a topic.",
        discussion: AdminOutput.help(
            """
            a list of topic, brokerName, queueId, minOffset, maxOffset, lastUpdateTimestamp (milliseconds since 1970, \
            0: no message).
            """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption

    func ask(_ client: AdminClient) async throws -> [QueueStatus] { try await client.queueStatus(of: topic.name) }

    func lines(_ value: [QueueStatus]) -> [String] {
        let columns = Columns("%-32s  %-4s  %-20s  %-20s    %s")
        return [columns.line("#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated")]
            + value.map { row in
                columns.line(
                    front(row.queue.brokerName, 32), String(row.queue.queueID), String(row.minOffset),
                    String(row.maxOffset), row.lastUpdated > 0 ? AdminTime.milliseconds(row.lastUpdated) : "")
            }
    }

    func json(_ value: [QueueStatus]) -> JSONValue {
        .array(
            value.map { row in
                row.queue.json(with: [
                    ("minOffset", .integer(row.minOffset)), ("maxOffset", .integer(row.maxOffset)),
                    ("lastUpdateTimestamp", .integer(row.lastUpdated)),
                ])
            })
    }
}

struct TopicClusterList: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicClusterList", abstract: "Show the clusters a topic is in.",
        discussion: AdminOutput.help("a list of names."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption

    func ask(_ client: AdminClient) async throws -> [String] {
        let names = Set(try await client.route(of: topic.name).brokers.map(\.name))
        return try await client.clusters().clusters
            .filter { !names.isDisjoint(with: $0.value.map(\.name)) }.keys.sorted()
    }

    func lines(_ value: [String]) -> [String] { value }

    func json(_ value: [String]) -> JSONValue { .strings(value) }
}

struct UpdateTopic: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateTopic", abstract: "Create a topic, or change its queues, permission and attributes.",
        discussion: """
            As with mqadmin, what is not named gets its default, also where the topic exists: 8 queues, permission 6, \
            no flags. With -a what is not named stays as it is.
            """)

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("r"), .customLong("readQueueNums")], parsing: .unconditional,
        help: "Queues to read from (default: 8).")
    var readQueueNums: Int32?
    @Option(
        name: [.customShort("w"), .customLong("writeQueueNums")], parsing: .unconditional,
        help: "Queues to write to (default: 8).")
    var writeQueueNums: Int32?
    @Option(
        name: [.customShort("p"), .customLong("perm")], parsing: .unconditional,
        help: "2: write, 4: read, 6: both (default: 6).")
    var perm: Int32?
    @Option(
        name: [.customShort("o"), .customLong("order")], parsing: .unconditional,
        help: "Ordered topic (true or false; default: false).")
    var order: Bool?
    @Option(
        name: [.customShort("u"), .customLong("unit")], parsing: .unconditional,
        help: "Unit topic (true or false; default: false).")
    var unit: Bool?
    @Option(
        name: [.customShort("s"), .customLong("hasUnitSub")], parsing: .unconditional,
        help: "Has unit subscriptions (true or false; default: false).")
    var hasUnitSub: Bool?
    @Option(
        name: [.customShort("a"), .customLong("attributes")], parsing: .unconditional,
        help: ArgumentHelp(
            """
            Attributes: +key=value sets one, -key takes it away, with commas between, such as \
            +apus.mode=QUEUE,+apus.timeout=30 (see topicMode).
            """, valueName: "CHANGES"))
    var attributes: String?

    func validate() throws { try place.requireOne() }

    func execute(_ client: AdminClient) async throws {
        var settings = changed(nil)
        for address in try await client.masters(place.choice) {
            if let attributes {
                settings = changed(try await client.settings(of: topic.name, at: address))
                try await client.create(settings, attributes: attributes, at: address)
            } else {
                try await client.create(settings, at: address)
            }
            print("create topic to \(address) success.")
        }
        if order == true {
            let names = try await brokerNames(client)
            let value = names.map { "\($0):\(settings.writeQueues)" }.joined(separator: ";")
            try await client.setOrderConfiguration(value, of: topic.name)
            print("set \(place.broker == nil ? "cluster" : "broker") orderConf. isOrder=true, orderConf=[\(value)]")
        }
        print(settings.javaText)
    }

    /// The topic as it is to be.
    /// - Parameter known: what stays where nothing is named; nil: the defaults.
    func changed(_ known: TopicSettings?) -> TopicSettings {
        var settings = known ?? TopicSettings(topic: topic.name)
        settings.readQueues = readQueueNums.map { Int($0) } ?? settings.readQueues
        settings.writeQueues = writeQueueNums.map { Int($0) } ?? settings.writeQueues
        settings.permission = perm.map { Int($0) } ?? settings.permission
        if let unit { settings.systemFlag = settings.systemFlag & ~1 | (unit ? 1 : 0) }
        if let hasUnitSub { settings.systemFlag = settings.systemFlag & ~2 | (hasUnitSub ? 2 : 0) }
        settings.isOrdered = order ?? settings.isOrdered
        return settings
    }

    private func brokerNames(_ client: AdminClient) async throws -> [String] {
        if let cluster = place.cluster { return try await client.brokers(ofCluster: cluster).map(\.name) }
        return try await client.clusters().brokers
            .filter { $0.addresses.values.contains(place.broker ?? "") }.map(\.name)
    }
}

struct DeleteTopic: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "deleteTopic", abstract: "Delete a topic from the brokers of a cluster and the name servers.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("c"), .customLong("clusterName")], parsing: .unconditional,
        help: ArgumentHelp("The cluster.", valueName: "NAME"))
    var cluster: String

    func execute(_ client: AdminClient) async throws {
        try await client.deleteShowing(topic.name, in: cluster)
    }
}

struct UpdateTopicPerm: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateTopicPerm", abstract: "Change who may write to and read from a topic.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("p"), .customLong("perm")], parsing: .unconditional, help: "2: write, 4: read, 6: both.")
    var perm: Int32

    func validate() throws { try place.requireOne() }

    func execute(_ client: AdminClient) async throws {
        let route = try await client.route(of: topic.name)
        for address in try await client.masters(place.choice) {
            guard let broker = route.brokers.first(where: { $0.master == address }),
                let queues = route.queues.first(where: { $0.brokerName == broker.name })
            else {
                throw CommandFailure("\(address) is no master of topic '\(topic.name)'")
            }
            guard queues.permission != Int(perm) else {
                print("new perm equals to the old one!")
                continue
            }
            var settings = TopicSettings(
                topic: topic.name, readQueues: queues.readQueues, writeQueues: queues.writeQueues,
                permission: Int(perm), systemFlag: queues.systemFlag)
            // The route does not contain whether the topic is ordered; the broker does.
            if let known = try await client.settings(of: topic.name, at: address) {
                settings.isOrdered = known.isOrdered
            }
            try await client.create(settings, at: address)
            print("update topic perm from \(queues.permission) to \(perm) in \(address) success.")
            if place.broker != nil { print("\(settings.javaText).") }
        }
    }
}

struct AllocateMQ: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "allocateMQ", abstract: "Show how a topic's queues are shared by consumers.",
        discussion: AdminOutput.help("as without --json: result, by consumer a list of brokerName, queueId, topic."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("i"), .customLong("ipList")], parsing: .unconditional,
        help: ArgumentHelp("The consumers, separated by ','.", valueName: "IP,…"))
    var consumers: String

    func ask(_ client: AdminClient) async throws -> [MessageQueue] {
        try await client.route(of: topic.name).readableQueues
    }

    func lines(_ value: [MessageQueue]) -> [String] { [json(value).text()] }

    func json(_ value: [MessageQueue]) -> JSONValue {
        let members = consumers.split(separator: ",").map(String.init)
        let shares = members.map { member in
            let share = QueueAllocation.averagely(value, among: members, for: member).map(\.json)
            return (member, Optional(JSONValue.array(share)))
        }
        return .fields([("result", .fields(shares))])
    }
}

struct UpdateOrderConf: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateOrderConf", abstract: "Read, set or delete a topic's order configuration.",
        discussion: AdminOutput.help("for get: topic, orderConf."))

    enum Method: String, ExpressibleByArgument, CaseIterable { case get, put, delete }

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(name: [.customShort("m"), .customLong("method")], parsing: .unconditional, help: "What to do.")
    var method: Method
    @Option(
        name: [.customShort("v"), .customLong("orderConf")], parsing: .unconditional,
        help: ArgumentHelp("Queues of each broker, for put.", valueName: "BROKER:N;…"))
    var value: String?

    func validate() throws {
        if method == .put, value?.isEmpty ?? true { throw ValidationError("put needs the value: -v BROKER:N;…") }
    }

    func execute(_ client: AdminClient) async throws {
        switch method {
        case .get:
            let value = try await client.orderConfiguration(of: topic.name)
            output.show(
                json: { .fields([("topic", .string(topic.name)), ("orderConf", .string(value))]) },
                lines: { ["get orderConf success. topic=[\(topic.name)], orderConf=[\(value)]"] })
        case .put:
            try await client.setOrderConfiguration(value ?? "", of: topic.name)
            print("update orderConf success. topic=[\(topic.name)], orderConf=[\(value ?? "")]")
        case .delete:
            try await client.deleteOrderConfiguration(of: topic.name)
            print("delete orderConf success. topic=[\(topic.name)]")
        }
    }
}

extension AdminClient {
    /// Deletes a topic and prints each step, as RocketMQ's tool does.
    func deleteShowing(_ topic: String, in cluster: String) async throws {
        try await deleteTopic(topic, fromCluster: cluster)
        print("delete topic [\(topic)] from cluster [\(cluster)] success.")
        try await unregisterTopic(topic, ofCluster: cluster)
        print("delete topic [\(topic)] from NameServer success.")
    }
}

extension TopicSettings {
    /// As Java prints it.
    var javaText: String {
        let permission =
            "\(permission & 4 != 0 ? "R" : "-")\(permission & 2 != 0 ? "W" : "-")\(permission & 1 != 0 ? "X" : "-")"
        return "TopicConfig [topicName=\(topic), readQueueNums=\(readQueues), writeQueueNums=\(writeQueues), "
            + "perm=\(permission), topicFilterType=\(filterType), topicSysFlag=\(systemFlag), order=\(isOrdered)]"
    }
}
