import ArgumentParser
import FastJSON
import RemotingProtocol

struct CloneGroupOffset: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "cloneGroupOffset", abstract: "Set a group's offsets of a topic to those of another group.")

    @OptionGroup var server: NameServerOption
    @Option(
        name: [.customShort("s"), .customLong("srcGroup")], parsing: .unconditional,
        help: ArgumentHelp("From.", valueName: "GROUP"), completion: Completions.group)
    var source: String
    @Option(
        name: [.customShort("d"), .customLong("destGroup")], parsing: .unconditional,
        help: ArgumentHelp("To.", valueName: "GROUP"), completion: Completions.group)
    var destination: String
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("o"), .customLong("offline")], parsing: .unconditional,
        help: "Taken for RocketMQ's sake; without effect.")
    var offline = false

    func execute(_ session: AdminSession) async throws {
        let route = try await session.route(topic.name)
        for row in try await session.consumeStats(source, topic: topic.name).rows where row.consumerOffset >= 0 {
            try await session.set(
                row.queue, of: destination, to: row.consumerOffset,
                at: try session.address(of: row.queue, in: route))
        }
        print(
            "clone group offset success. srcGroup[\(source)], destGroup=[\(destination)], topic[\(topic.name)]")
    }
}

struct ResetOffsetByTime: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "resetOffsetByTime", abstract: "Set a group's offsets of a topic to a time.",
        discussion: """
            Consumers that are online go on there at once, without a restart. A group without consumers gets the offsets set \
            in the broker.
            """)

    @OptionGroup var server: NameServerOption
    @OptionGroup var group: GroupOption
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("s"), .customLong("timestamp")], parsing: .unconditional,
        help: ArgumentHelp("now, milliseconds since 1970, or yyyy-MM-dd#HH:mm:ss:SSS.", valueName: "TIME"))
    var time: String
    @Option(
        name: [.customShort("f"), .customLong("force")], parsing: .unconditional,
        help: "Also forward; with false only back (true or false).")
    var force = true
    @Flag(name: [.customShort("c"), .customLong("cplus")], help: "The consumers are of the C++ client.")
    var isCPlus = false

    func validate() throws {
        guard AdminTime.parse(time) != nil else {
            throw ValidationError("-s '\(time)' is no time: now, milliseconds since 1970, or yyyy-MM-dd#HH:mm:ss:SSS")
        }
    }

    func execute(_ session: AdminSession) async throws {
        // RocketMQ's -1 means the end of every queue.
        let timestamp = time == "now" ? -1 : AdminTime.parse(time) ?? -1
        let what = "[\(group.name)], topic[\(topic.name)], force[\(force)], timestamp(string)[\(time)], "
        let outcome = try await session.reset(
            group.name, topic: topic.name, to: timestamp, force: force, isCPlus: isCPlus)
        let word = outcome.isOnline ? "group" : "consumerGroup"
        print("rollback consumer offset by specified \(word)\(what)timestamp(long)[\(timestamp)]")
        outcome.show()
    }
}

struct SkipAccumulatedMessage: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "skipAccumulatedMessage",
        abstract: "Set a group's offsets to the end: skip what it has not consumed.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var group: GroupOption
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("f"), .customLong("force")], parsing: .unconditional,
        help: "Taken for RocketMQ's sake; the end is forward.")
    var force = true

    func execute(_ session: AdminSession) async throws {
        try await session.reset(group.name, topic: topic.name, to: -1, force: force, isCPlus: false).show()
    }
}

/// What was set.
struct ResetOutcome {
    struct Row {
        let queue: MessageQueue
        let brokerOffset: Int64
        let consumerOffset: Int64
        let timestampOffset: Int64
        let rollbackOffset: Int64
    }

    /// Consumers were told; else the broker's table was changed.
    var isOnline = true
    var told: [(queue: MessageQueue, offset: Int64)] = []
    var set: [Row] = []

    func show() {
        if isOnline {
            let columns = Columns("%-40s  %-40s  %-40s")
            columns.show("#brokerName", "#queueId", "#offset")
            for (queue, offset) in told.sorted(by: { $0.queue < $1.queue }) {
                columns.show(front(queue.brokerName, 32), String(queue.queueId), String(offset))
            }
            return
        }
        let columns = Columns("%-20s  %-20s  %-20s  %-20s  %-20s  %-20s")
        columns.show(
            "#brokerName", "#queueId", "#brokerOffset", "#consumerOffset", "#timestampOffset", "#rollbackOffset")
        for row in set {
            columns.show(
                front(row.queue.brokerName, 32), String(row.queue.queueId), String(row.brokerOffset),
                String(row.consumerOffset), String(row.timestampOffset), String(row.rollbackOffset))
        }
    }
}

extension AdminSession {
    func set(_ queue: MessageQueue, of group: String, to offset: Int64, at address: String) async throws {
        _ = try await demand(
            address, .updateConsumerOffset,
            [
                "consumerGroup": group, "topic": queue.topic, "queueId": String(queue.queueId),
                "commitOffset": String(offset), "bname": queue.brokerName,
            ])
    }

    /// Lets the group's consumers go on at a time; without consumers sets the offsets in the brokers.
    ///
    /// - Parameter timestamp: milliseconds since 1970; -1: the end of every queue.
    func reset(
        _ group: String, topic: String, to timestamp: Int64, force: Bool, isCPlus: Bool
    ) async throws -> ResetOutcome {
        let route = try await route(topic)
        var outcome = ResetOutcome()
        for broker in route.brokerDatas.sorted(by: { $0.brokerName < $1.brokerName }) {
            guard let address = broker.preferredAddress else { continue }
            let fields = [
                "topic": topic, "group": group, "timestamp": String(timestamp), "isForce": String(force),
            ]
            // Apache's broker tells from the language of the request in which form C++ consumers want the offsets.
            let reply = try await ask(
                address, .invokeBrokerToResetOffset, fields, language: isCPlus ? .cpp : .other)
            switch reply.responseCode {
            case .success:
                for member in try reply.json()["offsetTable"]?.object?.members ?? [] {
                    if let queue = MessageQueue(key: member.key), let offset = member.value.integer {
                        outcome.told.append((queue, offset))
                    }
                }
            case .consumerNotOnline:
                outcome.isOnline = false
                outcome.set += try await resetOffline(
                    group, topic, broker, route, at: address, timestamp, force)
            default:
                throw Refusal(address: address, reply: reply)
            }
        }
        return outcome
    }

    private func resetOffline(
        _ group: String, _ topic: String, _ broker: BrokerData, _ route: TopicRouteData, at address: String,
        _ timestamp: Int64, _ force: Bool
    ) async throws -> [ResetOutcome.Row] {
        var stats = GroupStats()
        try await add(group, topic, at: address, to: &stats)
        var rows: [ResetOutcome.Row] = []
        for queue in queues(topic, in: route) where queue.brokerName == broker.brokerName {
            let end = try await offset(.getMaxOffset, queue, at: address)
            let known = stats.rows.first { $0.queue == queue }?.consumerOffset
            var consumed = known ?? 0
            if known == nil { consumed = try await offset(.getMinOffset, queue, at: address) }
            let target =
                timestamp == -1
                ? end : try await offset(.searchOffsetByTimestamp, queue, at: address, timestamp: timestamp)
            let isSet = force || target <= consumed
            if isSet { try await set(queue, of: group, to: target, at: address) }
            rows.append(
                ResetOutcome.Row(
                    queue: queue, brokerOffset: end, consumerOffset: consumed, timestampOffset: target,
                    rollbackOffset: isSet ? target : consumed))
        }
        return rows
    }
}
