import ArgumentParser
import FastJSON
import RemotingProtocol

/// `-t`, which most commands about topics need.
struct TopicOption: ParsableArguments {
    @Option(
        name: [.customShort("t"), .customLong("topic")], parsing: .unconditional,
        help: ArgumentHelp("Topic.", valueName: "TOPIC"), completion: Completions.topic)
    var name: String
}

struct TopicListCommand: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicList", abstract: "List all topics, with -c also their clusters and consumer groups.")

    @OptionGroup var server: NameServerOption
    @Flag(name: [.customShort("c"), .customLong("clusterModel")], help: "Clusters and consumer groups, too.")
    var clusterModel = false

    func execute(_ session: AdminSession) async throws {
        let topics = try await session.topics()
        guard clusterModel else { return topics.forEach { print($0) } }
        Columns("%-20s  %-48s  %-48s").show("#Cluster Name", "#Topic", "#Consumer Group")
        let columns = Columns("%-20s  %-64s  %-64s")
        for topic in topics where !topic.hasPrefix("%RETRY%") && !topic.hasPrefix("%DLQ%") {
            // A topic that goes away meanwhile is shown without the rest.
            let route = try? await session.route(topic)
            let groups = await Self.groups(topic, route, session)
            for group in groups.isEmpty ? [""] : groups {
                columns.show(
                    front(route?.brokerDatas.first?.cluster ?? "", 20), front(topic, 64), front(group, 64))
            }
        }
    }

    /// The groups that consume a topic, as its brokers know them.
    static func groups(_ topic: String, _ route: TopicRouteData?, _ session: AdminSession) async -> [String] {
        for broker in route?.brokerDatas ?? [] {
            guard let address = broker.preferredAddress,
                let reply = try? await session.demand(address, .queryTopicConsumeByWho, ["topic": topic]),
                let json = try? reply.json()
            else { continue }
            return (json["groupList"]?.array ?? []).compactMap(\.string).sorted()
        }
        return []
    }
}

struct TopicRouteCommand: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicRoute", abstract: "Show a topic's brokers and queues.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption
    @Flag(name: [.customShort("l"), .customLong("list")], help: "As a table instead of JSON.")
    var list = false

    func execute(_ session: AdminSession) async throws {
        let route = try await session.route(topic.name)
        guard list else { return print(route.json.text([.pretty, .sorted])) }
        let columns = Columns("%-45s %-32s %-50s %-10s %-11s %-5s")
        columns.show("#ClusterName", "#BrokerName", "#BrokerAddrs", "#ReadQueue", "#WriteQueue", "#Perm")
        var (brokers, reading, writing) = (0, 0, 0)
        for broker in route.brokerDatas.sorted(by: { $0.brokerName < $1.brokerName }) {
            guard let queues = route.queueDatas.first(where: { $0.brokerName == broker.brokerName }) else { continue }
            brokers += 1
            reading += Int(queues.readQueueNums)
            writing += Int(queues.writeQueueNums)
            let addresses = broker.brokerAddrs.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            columns.show(
                broker.cluster, broker.brokerName, "{\(addresses.joined(separator: ", "))}",
                String(queues.readQueueNums), String(queues.writeQueueNums), String(queues.perm))
        }
        print(String(repeating: "-", count: 158))
        columns.show("Total:", String(brokers), "", String(reading), String(writing), "")
    }
}

struct TopicStatus: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicStatus", abstract: "Show first and last offset of each queue of a topic.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption

    func execute(_ session: AdminSession) async throws {
        let route = try await session.route(topic.name)
        var rows: [(MessageQueue, JSONValue)] = []
        for broker in route.brokerDatas {
            guard let address = broker.preferredAddress else { continue }
            let reply = try await session.demand(address, .getTopicStatsInfo, ["topic": topic.name])
            for member in try reply.json()["offsetTable"]?.object?.members ?? [] {
                if let queue = MessageQueue(key: member.key) { rows.append((queue, member.value)) }
            }
        }
        let columns = Columns("%-32s  %-4s  %-20s  %-20s    %s")
        columns.show("#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated")
        for (queue, offsets) in rows.sorted(by: { $0.0 < $1.0 }) {
            let updated = offsets["lastUpdateTimestamp"]?.integer ?? 0
            columns.show(
                front(queue.brokerName, 32), String(queue.queueId), String(offsets["minOffset"]?.integer ?? 0),
                String(offsets["maxOffset"]?.integer ?? 0), updated > 0 ? AdminTime.millis(updated) : "")
        }
    }
}

struct TopicClusterList: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicClusterList", abstract: "Show the clusters a topic is in.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption

    func execute(_ session: AdminSession) async throws {
        let names = Set(try await session.route(topic.name).brokerDatas.map(\.brokerName))
        for (cluster, brokers) in try await session.clusterInfo().clusterAddrTable.sorted(by: { $0.key < $1.key })
        where !brokers.isDisjoint(with: names) {
            print(cluster)
        }
    }
}

struct UpdateTopic: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateTopic", abstract: "Create a topic, or change its queues and permission.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("r"), .customLong("readQueueNums")], parsing: .unconditional, help: "Queues to read from.")
    var readQueueNums: Int32 = 8
    @Option(
        name: [.customShort("w"), .customLong("writeQueueNums")], parsing: .unconditional, help: "Queues to write to.")
    var writeQueueNums: Int32 = 8
    @Option(
        name: [.customShort("p"), .customLong("perm")], parsing: .unconditional, help: "2: write, 4: read, 6: both.")
    var perm: Int32 = 6
    @Option(
        name: [.customShort("o"), .customLong("order")], parsing: .unconditional, help: "Ordered topic (true or false)."
    )
    var order = false
    @Option(
        name: [.customShort("u"), .customLong("unit")], parsing: .unconditional, help: "Unit topic (true or false).")
    var unit = false
    @Option(
        name: [.customShort("s"), .customLong("hasUnitSub")], parsing: .unconditional,
        help: "Has unit subscriptions (true or false).")
    var hasUnitSub = false

    func validate() throws { try place.requireOne() }

    func execute(_ session: AdminSession) async throws {
        var config = TopicConfig(
            topicName: topic.name, readQueueNums: readQueueNums, writeQueueNums: writeQueueNums, perm: perm)
        config.topicSysFlag = (unit ? 1 : 0) | (hasUnitSub ? 2 : 0)
        config.order = order
        for address in try await session.masters(place) {
            try await session.create(config, at: address)
            print("create topic to \(address) success.")
        }
        if order {
            let names = try await brokerNames(session)
            let value = names.map { "\($0):\(writeQueueNums)" }.joined(separator: ";")
            try await session.putOrder(topic.name, value)
            print("set \(place.broker == nil ? "cluster" : "broker") orderConf. isOrder=true, orderConf=[\(value)]")
        }
        print(config.javaText)
    }

    private func brokerNames(_ session: AdminSession) async throws -> [String] {
        if let cluster = place.cluster { return try await session.brokers(of: cluster).map(\.brokerName) }
        return try await session.clusterInfo().brokerAddrTable.values
            .filter { $0.brokerAddrs.values.contains(place.broker ?? "") }.map(\.brokerName)
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

    func execute(_ session: AdminSession) async throws {
        try await session.delete(topic: topic.name, in: cluster)
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

    func execute(_ session: AdminSession) async throws {
        let route = try await session.route(topic.name)
        for address in try await session.masters(place) {
            guard let broker = route.brokerDatas.first(where: { $0.brokerAddrs[0] == address }),
                let queues = route.queueDatas.first(where: { $0.brokerName == broker.brokerName })
            else {
                throw CommandFailure("\(address) is no master of topic '\(topic.name)'")
            }
            guard queues.perm != perm else {
                print("new perm equals to the old one!")
                continue
            }
            var config = TopicConfig(
                topicName: topic.name, readQueueNums: queues.readQueueNums, writeQueueNums: queues.writeQueueNums,
                perm: perm)
            config.topicSysFlag = queues.topicSysFlag
            // The route does not tell whether the topic is ordered; the broker does.
            if let known = try await session.config(of: topic.name, at: address) { config.order = known.order }
            try await session.create(config, at: address)
            print("update topic perm from \(queues.perm) to \(perm) in \(address) success.")
            if place.broker != nil { print("\(config.javaText).") }
        }
    }
}

struct AllocateMQ: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "allocateMQ", abstract: "Show how a topic's queues are shared by consumers.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("i"), .customLong("ipList")], parsing: .unconditional,
        help: ArgumentHelp("The consumers, separated by ','.", valueName: "IP,…"))
    var consumers: String

    func execute(_ session: AdminSession) async throws {
        let queues = session.queues(topic.name, in: try await session.route(topic.name))
        let members = consumers.split(separator: ",").map(String.init)
        let shares = members.map { member in
            let share = allocateAveragely(queues, among: members, for: member).map(\.json)
            return (member, Optional(JSONValue.array(share)))
        }
        print(JSONValue.fields([("result", .fields(shares))]).text())
    }
}

struct UpdateOrderConf: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateOrderConf", abstract: "Read, set or delete a topic's order configuration.")

    enum Method: String, ExpressibleByArgument, CaseIterable { case get, put, delete }

    @OptionGroup var server: NameServerOption
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

    func execute(_ session: AdminSession) async throws {
        switch method {
        case .get:
            let reply = try await session.askNameServer(
                .getKVConfig, ["namespace": AdminSession.orderNamespace, "key": topic.name])
            print("get orderConf success. topic=[\(topic.name)], orderConf=[\(try reply.field("value"))]")
        case .put:
            try await session.putOrder(topic.name, value ?? "")
            print("update orderConf success. topic=[\(topic.name)], orderConf=[\(value ?? "")]")
        case .delete:
            try await session.everyNameServer { address in
                _ = try await session.demand(
                    address, .deleteKVConfig, ["namespace": AdminSession.orderNamespace, "key": topic.name])
            }
            print("delete orderConf success. topic=[\(topic.name)]")
        }
    }
}

extension AdminSession {
    static let orderNamespace = "ORDER_TOPIC_CONFIG"

    func create(_ config: TopicConfig, at address: String) async throws {
        _ = try await demand(
            address, .updateAndCreateTopic,
            [
                "topic": config.topicName, "defaultTopic": "TBW102", "readQueueNums": String(config.readQueueNums),
                "writeQueueNums": String(config.writeQueueNums), "perm": String(config.perm),
                "topicFilterType": config.topicFilterType, "topicSysFlag": String(config.topicSysFlag),
                "order": String(config.order),
            ])
    }

    /// A topic as one broker knows it.
    func config(of topic: String, at address: String) async throws -> TopicConfig? {
        try TopicConfigSerializeWrapper(body: await demand(address, .getAllTopicConfig).body).topicConfigTable
            .first { $0.topicName == topic }
    }

    func putOrder(_ topic: String, _ value: String) async throws {
        try await everyNameServer { address in
            _ = try await demand(
                address, .putKVConfig, ["namespace": Self.orderNamespace, "key": topic, "value": value])
        }
    }

    func delete(topic: String, in cluster: String) async throws {
        for broker in try await brokers(of: cluster) {
            guard let master = broker.brokerAddrs[0] else { continue }
            _ = try await demand(master, .deleteTopicInBroker, ["topic": topic])
        }
        print("delete topic [\(topic)] from cluster [\(cluster)] success.")
        try await everyNameServer { address in
            _ = try await demand(address, .deleteTopicInNamesrv, ["topic": topic, "clusterName": cluster])
        }
        print("delete topic [\(topic)] from NameServer success.")
    }
}

extension TopicConfig {
    /// As Java prints it.
    var javaText: String {
        let permission = "\(perm & 4 != 0 ? "R" : "-")\(perm & 2 != 0 ? "W" : "-")\(perm & 1 != 0 ? "X" : "-")"
        return "TopicConfig [topicName=\(topicName), readQueueNums=\(readQueueNums), writeQueueNums=\(writeQueueNums), "
            + "perm=\(permission), topicFilterType=\(topicFilterType), topicSysFlag=\(topicSysFlag), order=\(order)]"
    }
}
