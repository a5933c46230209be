import ArgumentParser
import FastJSON
import MessageModel
import NIOCore
import RemotingProtocol

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
    var brokerId: Int64 = 0
    @Option(
        name: [.customShort("w"), .customLong("whichBrokerWhenConsumeSlowly")], parsing: .unconditional,
        help: "Broker id for consumers that are far behind.")
    var whichBrokerWhenConsumeSlowly: Int64 = 1
    @Option(
        name: [.customShort("a"), .customLong("notifyConsumerIdsChanged")], parsing: .unconditional,
        help: "Consumers are told when one comes or goes (true or false).")
    var notifyConsumerIdsChanged = true

    func validate() throws { try place.requireOne() }

    func execute(_ session: AdminSession) async throws {
        var config = SubscriptionGroupConfig(groupName: group.name)
        config.consumeEnable = consumeEnable
        config.consumeFromMinEnable = consumeFromMinEnable
        config.consumeBroadcastEnable = consumeBroadcastEnable
        config.retryQueueNums = retryQueueNums
        config.retryMaxTimes = retryMaxTimes
        config.brokerID = brokerId
        config.whichBrokerWhenConsumeSlowly = whichBrokerWhenConsumeSlowly
        config.notifyConsumerIDsChangedEnable = notifyConsumerIdsChanged
        for address in try await session.masters(place) {
            _ = try await session.demand(address, .updateAndCreateSubscriptionGroup, body: config.encoded())
            print("create subscription group to \(address) success.")
        }
        print(
            "SubscriptionGroupConfig [groupName=\(group.name), consumeEnable=\(consumeEnable), "
                + "consumeFromMinEnable=\(consumeFromMinEnable), consumeBroadcastEnable=\(consumeBroadcastEnable), "
                + "retryQueueNums=\(retryQueueNums), retryMaxTimes=\(retryMaxTimes), brokerId=\(brokerId), "
                + "whichBrokerWhenConsumeSlowly=\(whichBrokerWhenConsumeSlowly), "
                + "notifyConsumerIdsChangedEnable=\(notifyConsumerIdsChanged)]")
    }
}

struct DeleteSubGroup: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "deleteSubGroup", abstract: "Delete a consumer group.",
        discussion: "With -c its retry and dead letter topics go as well.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
    @OptionGroup var group: GroupOption
    @Option(
        name: [.customShort("r"), .customLong("removeOffset")], parsing: .unconditional,
        help: "Forget its offsets, too (true or false).")
    var removeOffset = false

    func validate() throws { try place.requireOne() }

    func execute(_ session: AdminSession) async throws {
        let cluster = place.cluster.map { " in cluster [\($0)]" } ?? ""
        for address in try await session.masters(place) {
            _ = try await session.demand(
                address, .deleteSubscriptionGroup,
                ["groupName": group.name, "removeOffset": String(removeOffset), "cleanOffset": String(removeOffset)])
            print("delete subscription group [\(group.name)] from broker [\(address)]\(cluster) success.")
        }
        guard let cluster = place.cluster else { return }
        for topic in ["%RETRY%\(group.name)", "%DLQ%\(group.name)"] {
            try await session.delete(topic: topic, in: cluster)
        }
    }
}

struct GetConsumerConfig: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "getConsumerConfig", abstract: "Show what a consumer group may do, broker by broker.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var group: GroupOption

    func execute(_ session: AdminSession) async throws {
        let columns = Columns("%-40s=  %s")
        var isKnown = false
        for broker in try await session.clusterInfo().brokerAddrTable.values
            .sorted(by: { $0.brokerName < $1.brokerName })
        {
            guard let address = broker.preferredAddress else { continue }
            let table = try await session.demand(address, .getAllSubscriptionGroupConfig).json()
            guard let config = table["subscriptionGroupTable"]?[group.name]?.object else { continue }
            isKnown = true
            let rule = "============================="
            print("\(rule)\(broker.cluster):\(broker.brokerName)\(rule)")
            for member in config.members {
                columns.show(member.key, member.value.string ?? member.value.text())
            }
        }
        guard isKnown else { throw CommandFailure("no broker knows the consumer group '\(group.name)'") }
    }
}

struct ConsumerProgress: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "consumerProgress", abstract: "Show how far consumer groups are behind.",
        discussion: "Without -g all groups in short.")

    @OptionGroup var server: NameServerOption
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

    func execute(_ session: AdminSession) async throws {
        if let group { try await show(group, session) } else { try await showAll(session) }
    }

    private func show(_ group: String, _ session: AdminSession) async throws {
        let stats = try await session.consumeStats(group, topic: topic)
        let owners = showClientIP ? await session.queueOwners(group) : [:]
        let address = showClientIP ? "  %-20s %-20s" : "  %-20s"
        let columns = Columns("%-64s  %-32s  %-4s  %-20s  %-20s\(address)  %s")
        let head = ["#Topic", "#Broker Name", "#QID", "#Broker Offset", "#Consumer Offset"]
        print(columns.line(head + (showClientIP ? ["#Client IP"] : []) + ["#Diff", "#LastTime"]))
        for row in stats.rows {
            let cells = [
                front(row.queue.topic, 64), front(row.queue.brokerName, 32), String(row.queue.queueId),
                String(row.brokerOffset), String(row.consumerOffset),
            ]
            let owner = showClientIP ? [owners[row.queue] ?? "N/A"] : []
            let time = row.lastTimestamp == 0 ? "N/A" : AdminTime.seconds(row.lastTimestamp)
            print(columns.line(cells + owner + [String(row.difference), time]))
        }
        print("\nConsume TPS: \(fixed(stats.tps, 2))\nDiff Total: \(stats.difference)")
    }

    private func showAll(_ session: AdminSession) async throws {
        let columns = Columns("%-64s  %-6s  %-24s %-5s  %-14s  %-7s  %s")
        columns.show("#Group", "#Count", "#Version", "#Type", "#Model", "#TPS", "#Diff Total")
        for topic in try await session.topics() where topic.hasPrefix("%RETRY%") {
            let group = String(topic.dropFirst("%RETRY%".count))
            let stats = try? await session.consumeStats(group)
            let connection = try? await session.consumers(of: group)
            let isPull = connection?.json["consumeType"]?.string == "CONSUME_ACTIVELY"
            columns.show(
                front(group, 64), String(connection?.clients.count ?? 0),
                connection?.clients.map(\.version).min().map(versionName) ?? "OFFLINE",
                connection == nil ? "" : isPull ? "PULL" : "PUSH",
                connection == nil || isPull ? "" : connection?.json["messageModel"]?.string ?? "",
                String(Int(stats?.tps ?? 0)), String(stats?.difference ?? 0))
        }
    }
}

struct ConsumerConnection: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "consumerConnection", abstract: "Show the consumers of a group and what they subscribe to.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var group: GroupOption
    @Option(
        name: [.customShort("b"), .customLong("brokerAddr")], parsing: .unconditional,
        help: ArgumentHelp("Ask this broker.", valueName: "HOST:PORT"))
    var broker: String?

    func execute(_ session: AdminSession) async throws {
        let connection = try await session.consumers(of: group.name, broker: broker)
        let columns = Columns("%-36s %-22s %-10s %s")
        columns.show("#ClientId", "#ClientAddr", "#Language", "#Version")
        for client in connection.clients {
            columns.show(client.id, client.address, client.language, versionName(client.version))
        }
        print("\nBelow is subscription:")
        let topics = Columns("%-20s %s")
        topics.show("#Topic", "#SubExpression")
        for member in connection.json["subscriptionTable"]?.object?.members.sorted(by: { $0.key < $1.key }) ?? [] {
            topics.show(member.value["topic"]?.string ?? member.key, member.value["subString"]?.string ?? "")
        }
        print("\nConsumeType: \(connection.json["consumeType"]?.string ?? "")")
        print("MessageModel: \(connection.json["messageModel"]?.string ?? "")")
        print("ConsumeFromWhere: \(connection.json["consumeFromWhere"]?.string ?? "")")
    }
}

struct ProducerConnection: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "producerConnection", abstract: "Show the producers of a group.")

    @OptionGroup var server: NameServerOption
    @Option(
        name: [.customShort("g"), .customLong("producerGroup")], parsing: .unconditional,
        help: ArgumentHelp("Producer group.", valueName: "GROUP"))
    var group: String
    @OptionGroup var topic: TopicOption

    func execute(_ session: AdminSession) async throws {
        guard let address = try await session.route(topic.name).brokerDatas.compactMap(\.preferredAddress).first else {
            throw CommandFailure("topic '\(topic.name)' has no broker")
        }
        let json = try await session.demand(address, .getProducerConnectionList, ["producerGroup": group]).json()
        let columns = Columns("%s  %-32s %-22s %-8s %s")
        for (index, client) in (json["connectionSet"]?.array ?? []).map(ClientConnection.init).enumerated() {
            let number = String(10_000 + index + 1).dropFirst()
            columns.show(String(number), client.id, client.address, client.language, versionName(client.version))
        }
    }
}

struct ProducerCommand: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "producer", abstract: "Show all producers of a broker.")

    @OptionGroup var server: NameServerOption
    @Option(
        name: [.customShort("b"), .customLong("broker")], parsing: .unconditional,
        help: ArgumentHelp("The broker.", valueName: "HOST:PORT"))
    var broker: String

    func execute(_ session: AdminSession) async throws {
        let json = try await session.demand(broker, .getAllProducerInfo).json()
        for group in json["data"]?.object?.members.sorted(by: { $0.key < $1.key }) ?? [] {
            for producer in group.value.array ?? [] {
                func text(_ key: String) -> String { producer[key]?.string ?? "" }
                print(
                    "producer group (\(group.key)) instance : clientId=\(text("clientId")),remoteIP=\(text("remoteIP")), "
                        + "language=\(text("language")), version=\(text("version")), "
                        + "lastUpdateTimestamp=\(text("lastUpdateTimestamp"))")
            }
        }
    }
}

/// A client as 203 and 204 describe it.
struct ClientConnection {
    let id: String
    let address: String
    let language: String
    let version: Int

    init(_ json: JSONValue) {
        id = json["clientId"]?.string ?? ""
        address = json["clientAddr"]?.string ?? ""
        language = json["language"]?.string ?? ""
        version = Int(json["version"]?.integer ?? 0)
    }
}

/// A group's place in its queues.
struct GroupStats {
    struct Row {
        let queue: MessageQueue
        let brokerOffset: Int64
        let consumerOffset: Int64
        /// Milliseconds since 1970; 0: not known.
        let lastTimestamp: Int64

        var difference: Int64 { brokerOffset -| consumerOffset }
    }

    var rows: [Row] = []
    var tps = 0.0

    var difference: Int64 { rows.reduce(0) { $0 +| $1.difference } }

    /// Adds a table as 208 and 317 answer it.
    mutating func add(_ json: JSONValue) {
        tps += json["consumeTps"]?.double ?? 0
        for member in json["offsetTable"]?.object?.members ?? [] {
            guard let queue = MessageQueue(key: member.key) else { continue }
            rows.append(
                Row(
                    queue: queue, brokerOffset: member.value["brokerOffset"]?.integer ?? 0,
                    consumerOffset: member.value["consumerOffset"]?.integer ?? 0,
                    lastTimestamp: member.value["lastTimestamp"]?.integer ?? 0))
        }
    }
}

extension AdminSession {
    func consumeStats(_ group: String, topic: String? = nil) async throws -> GroupStats {
        var stats = GroupStats()
        for broker in try await brokers(ofGroup: group) {
            guard let address = broker.preferredAddress else { continue }
            try await add(group, topic, at: address, to: &stats)
        }
        guard !stats.rows.isEmpty else {
            throw CommandFailure("group '\(group)' has consumed nothing\(topic.map { " of topic '\($0)'" } ?? "") yet")
        }
        stats.rows.sort { $0.queue < $1.queue }
        return stats
    }

    /// One broker's part of it.
    func add(_ group: String, _ topic: String?, at address: String, to stats: inout GroupStats) async throws {
        var fields = ["consumerGroup": group]
        fields["topic"] = topic
        stats.add(try await demand(address, .getConsumeStats, fields).json())
    }

    /// The consumers of a group, as the first broker that has some knows them.
    func consumers(
        of group: String, broker: String? = nil
    ) async throws -> (clients: [ClientConnection], json: JSONValue) {
        var failure: any Error = CommandFailure("no broker is registered")
        let addresses =
            if let broker { [broker] } else { try await brokers(ofGroup: group).compactMap(\.preferredAddress) }
        for address in addresses {
            do {
                let json = try await demand(address, .getConsumerConnectionList, ["consumerGroup": group]).json()
                return ((json["connectionSet"]?.array ?? []).map(ClientConnection.init), json)
            } catch {
                failure = error
            }
        }
        throw failure
    }

    /// What a consumer tells of itself through its broker.
    func runningInfo(_ group: String, _ client: String, stacks: Bool = false) async throws -> JSONValue {
        var failure: any Error = CommandFailure("no broker is registered")
        for address in try await brokers(ofGroup: group).compactMap(\.preferredAddress) {
            do {
                return try await demand(
                    address, .getConsumerRunningInfo,
                    ["consumerGroup": group, "clientId": client, "jstackEnable": String(stacks)],
                    timeout: .seconds(30)
                ).json()
            } catch {
                failure = error
            }
        }
        throw failure
    }

    /// Queue → address of the consumer that has it; what cannot be found out is missing.
    func queueOwners(_ group: String) async -> [MessageQueue: String] {
        var owners: [MessageQueue: String] = [:]
        guard let clients = try? await consumers(of: group).clients else { return [:] }
        for client in clients {
            guard let info = try? await runningInfo(group, client.id) else { continue }
            for member in info["mqTable"]?.object?.members ?? [] {
                guard let queue = MessageQueue(key: member.key) else { continue }
                owners[queue] = client.id.split(separator: "@").first.map(String.init)
            }
        }
        return owners
    }
}
