import ArgumentParser
import FastJSON
import MessageModel
import RocketMQClient

struct StatsAll: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "statsAll",
        abstract: "Show the messages in and out of every topic, and how far groups are behind.",
        discussion: AdminOutput.help(
            """
            a list of topic, group (none: no consumer), accumulation, inTps, outTps, inToday, outToday (messages of \
            the longest time the broker has figures for: a day, an hour, a minute).
            """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Flag(name: [.customShort("a"), .customLong("activeTopic")], help: "Only topics with messages today.")
    var activeOnly = false
    @Option(
        name: [.customShort("t"), .customLong("topic")], parsing: .unconditional,
        help: ArgumentHelp("This topic only.", valueName: "TOPIC"), completion: Completions.topic)
    var topic: String?

    struct Row {
        let topic: String
        let put: MessageFlow
        /// nil: the topic has no consumer.
        var group: String?
        var got = MessageFlow()
        var behind: Int64 = 0
    }

    func ask(_ client: AdminClient) async throws -> [Row] {
        var rows: [Row] = []
        for name in try await client.topics()
        where !name.hasPrefix(TopicName.retryPrefix) && !name.hasPrefix(TopicName.deadLetterPrefix)
            && (topic ?? name) == name
        {
            // A topic that was deleted meanwhile has no line.
            guard let route = try? await client.route(of: name) else { continue }
            rows += await self.rows(name, route, client)
        }
        return rows
    }

    private func rows(_ topic: String, _ route: TopicRoute, _ client: AdminClient) async -> [Row] {
        let put = await client.flow("TOPIC_PUT_NUMS", key: topic, in: route)
        let groups = await client.groups(consuming: topic, route: route)
        guard !groups.isEmpty else { return !activeOnly || put.messages > 0 ? [Row(topic: topic, put: put)] : [] }
        var rows: [Row] = []
        for group in groups {
            let got = await client.flow("GROUP_GET_NUMS", key: "\(topic)@\(group)", in: route)
            guard !activeOnly || put.messages > 0 || got.messages > 0 else { continue }
            let behind = max(0, (try? await client.progress(of: group, topic: topic).difference) ?? 0)
            rows.append(Row(topic: topic, put: put, group: group, got: got, behind: behind))
        }
        return rows
    }

    func lines(_ value: [Row]) -> [String] {
        let columns = Columns("%-64s  %-64s %12s %11s %11s %14s %14s")
        return [
            columns.line(
                "#Topic", "#Consumer Group", "#Accumulation", "#InTPS", "#OutTPS", "#InMsg24Hour", "#OutMsg24Hour")
        ]
            + value.map { row in
                let rate = fixed(row.put.messagesPerSecond, 2)
                guard let group = row.group else {
                    return columns.line(
                        front(row.topic, 64), "", "0", rate, "", String(row.put.messages), "NO_CONSUMER")
                }
                return columns.line(
                    front(row.topic, 64), front(group, 64), String(row.behind), rate,
                    fixed(row.got.messagesPerSecond, 2), String(row.put.messages), String(row.got.messages))
            }
    }

    func json(_ value: [Row]) -> JSONValue {
        .array(
            value.map { row in
                .fields([
                    ("topic", .string(row.topic)), ("group", row.group.map { .string($0) }),
                    ("accumulation", .integer(row.behind)), ("inTps", .number(row.put.messagesPerSecond)),
                    ("outTps", .number(row.got.messagesPerSecond)), ("inToday", .integer(row.put.messages)),
                    ("outToday", .integer(row.got.messages)),
                ])
            })
    }
}
