import ArgumentParser
import FastJSON
import RocketMQClient

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

    func execute(_ client: AdminClient) async throws {
        try await client.cloneOffsets(from: source, to: destination, topic: topic.name)
        print(
            "clone group offset success. srcGroup[\(source)], destGroup=[\(destination)], topic[\(topic.name)]")
    }
}

struct ResetOffsetByTime: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "resetOffsetByTime", abstract: "Set a group's offsets of a topic to a time.",
        discussion: AdminOutput.help(
            OffsetReset.jsonKeys,
            after: """
                Consumers that are online go on there at once, without a restart. A group without consumers gets the \
                offsets set in the broker.
                """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
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

    /// Milliseconds since 1970; nil: the end of every queue.
    private var timestamp: Int64? { time == "now" ? nil : AdminTime.parse(time).flatMap { $0 == -1 ? nil : $0 } }

    func ask(_ client: AdminClient) async throws -> OffsetReset {
        try await client.resetOffsets(
            of: group.name, topic: topic.name, to: timestamp, isForced: force, forCPlusPlus: isCPlus)
    }

    func lines(_ value: OffsetReset) -> [String] {
        let what = "[\(group.name)], topic[\(topic.name)], force[\(force)], timestamp(string)[\(time)], "
        let kind = value.isOnline ? "group" : "consumerGroup"
        return ["rollback consumer offset by specified \(kind)\(what)timestamp(long)[\(timestamp ?? -1)]"]
            + value.lines
    }

    func json(_ value: OffsetReset) -> JSONValue { value.json }
}

struct SkipAccumulatedMessage: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "skipAccumulatedMessage",
        abstract: "Set a group's offsets to the end: skip what it has not consumed.",
        discussion: AdminOutput.help(OffsetReset.jsonKeys))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var group: GroupOption
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("f"), .customLong("force")], parsing: .unconditional,
        help: "Taken for RocketMQ's sake; the end is forward.")
    var force = true

    func ask(_ client: AdminClient) async throws -> OffsetReset {
        try await client.resetOffsets(of: group.name, topic: topic.name, to: nil, isForced: force)
    }

    func lines(_ value: OffsetReset) -> [String] { value.lines }

    func json(_ value: OffsetReset) -> JSONValue { value.json }
}

extension OffsetReset {
    static let jsonKeys = """
        an object: online (whether consumers were notified), and queues, a list of topic, brokerName, queueId, offset \
        (where the group goes on) and, when no consumer was online, brokerOffset, consumerOffset, timestampOffset.
        """

    /// As RocketMQ's tool prints them: another table when consumers were online.
    var lines: [String] {
        if isOnline {
            let columns = Columns("%-40s  %-40s  %-40s")
            return [columns.line("#brokerName", "#queueId", "#offset")]
                + notified.map {
                    columns.line(front($0.queue.brokerName, 32), String($0.queue.queueID), String($0.offset))
                }
        }
        let columns = Columns("%-20s  %-20s  %-20s  %-20s  %-20s  %-20s")
        return [
            columns.line(
                "#brokerName", "#queueId", "#brokerOffset", "#consumerOffset", "#timestampOffset", "#rollbackOffset")
        ]
            + rows.map { row in
                columns.line(
                    front(row.queue.brokerName, 32), String(row.queue.queueID), String(row.brokerOffset),
                    String(row.consumerOffset), String(row.timestampOffset), String(row.rollbackOffset))
            }
    }

    var json: JSONValue {
        let online = notified.map { $0.queue.json(with: [("offset", .integer($0.offset))]) }
        let set = rows.map { row in
            row.queue.json(with: [
                ("offset", .integer(row.rollbackOffset)), ("brokerOffset", .integer(row.brokerOffset)),
                ("consumerOffset", .integer(row.consumerOffset)),
                ("timestampOffset", .integer(row.timestampOffset)),
            ])
        }
        return .fields([("online", .bool(isOnline)), ("queues", .array(online + set))])
    }
}
