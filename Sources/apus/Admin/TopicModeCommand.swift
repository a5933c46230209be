import ArgumentParser
import FastJSON
import RocketMQClient

/// How a topic's messages reach consumers, and who has its queues; `mqadmin` has no such command.
struct TopicModeCommand: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "topicMode",
        abstract: "Show the mode of a topic, its retries, archive and owner, and which consumers have its queues.",
        discussion: AdminOutput.help(
            """
            a list of address, attributes (by name), leases (a list of group, queues).
            They are set with updateTopic -a, such as -a +apus.mode=QUEUE,+apus.timeout=30: apus.mode (TOPIC, QUEUE, \
            SERIAL_QUEUE), apus.timeout, apus.retry.count, apus.retry.strategy (fixed, linear, exponential), \
            apus.retry.interval, apus.retry.jitter, apus.shard, apus.priority, apus.archive (consumed, forever, 7d), \
            apus.owner, apus.alarm.
            """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption

    /// At one broker.
    struct Row {
        let address: String
        let attributes: [String: String]
        /// Group, and its queues with their consumers.
        let leases: [(group: String, queues: String)]
    }

    /// In this order, with what holds where nothing is set.
    static let names: [(name: String, standard: String)] = [
        ("apus.mode", "TOPIC"), ("apus.timeout", "60 (seconds)"), ("apus.retry.count", "retryMaxTimes of the group"),
        ("apus.retry.strategy", "fixed"), ("apus.retry.interval", "3 (seconds)"),
        ("apus.retry.jitter", "0, exponential 20 (percent)"), ("apus.shard", "false"), ("apus.priority", "5"),
        ("apus.archive", "by fileReservedTime"), ("apus.owner", ""), ("apus.alarm", ""),
    ]

    func ask(_ client: AdminClient) async throws -> [Row] {
        var rows: [Row] = []
        for broker in try await client.route(of: topic.name).brokers.sorted(by: { $0.name < $1.name }) {
            guard let address = broker.preferredAddress else { continue }
            let attributes = try await client.attributes(ofTopic: topic.name, at: address)
            let prefix = "lease_\(topic.name)@"
            let leases = try await client.runtimeFigures(of: address).filter { $0.key.hasPrefix(prefix) }
                .map { (group: String($0.key.dropFirst(prefix.count)), queues: $0.value) }
            rows.append(
                Row(address: address, attributes: attributes, leases: leases.sorted { $0.group < $1.group }))
        }
        return rows
    }

    func lines(_ value: [Row]) -> [String] {
        value.flatMap { row in
            let known = Self.names.map(\.name)
            let others = row.attributes.keys.filter { !known.contains($0) }.sorted()
            return ["\(topic.name) at \(row.address)"]
                + Self.names.map { name, standard in
                    "  \(name): \(row.attributes[name] ?? (standard.isEmpty ? "-" : "\(standard), not set"))"
                } + others.map { "  \($0): \(row.attributes[$0] ?? "")" }
                + row.leases.map { "  group \($0.group): queue \($0.queues)" }
        }
    }

    func json(_ value: [Row]) -> JSONValue {
        .array(
            value.map { row in
                .fields([
                    ("address", .string(row.address)),
                    (
                        "attributes",
                        .fields(row.attributes.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })
                    ),
                    (
                        "leases",
                        .array(
                            row.leases.map {
                                .fields([("group", .string($0.group)), ("queues", .string($0.queues))])
                            })
                    ),
                ])
            })
    }
}
