import ArgumentParser
import FastJSON
import RemotingProtocol

struct StatsAll: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "statsAll", abstract: "Show what goes in and out of every topic, and how far groups are behind.")

    @OptionGroup var server: NameServerOption
    @Flag(name: [.customShort("a"), .customLong("activeTopic")], help: "Only topics with messages today.")
    var activeOnly = false
    @Option(
        name: [.customShort("t"), .customLong("topic")], parsing: .unconditional,
        help: ArgumentHelp("This topic only.", valueName: "TOPIC"), completion: Completions.topic)
    var topic: String?

    private static let columns = Columns("%-64s  %-64s %12s %11s %11s %14s %14s")

    func execute(_ session: AdminSession) async throws {
        Self.columns.show(
            "#Topic", "#Consumer Group", "#Accumulation", "#InTPS", "#OutTPS", "#InMsg24Hour", "#OutMsg24Hour")
        for name in try await session.topics()
        where !name.hasPrefix("%RETRY%") && !name.hasPrefix("%DLQ%") && (topic ?? name) == name {
            // A topic that is gone meanwhile has no line.
            guard let route = try? await session.route(name) else { continue }
            await show(name, route, session)
        }
    }

    private func show(_ topic: String, _ route: TopicRouteData, _ session: AdminSession) async {
        let put = await session.flow("TOPIC_PUT_NUMS", topic, route)
        let groups = await TopicListCommand.groups(topic, route, session)
        for group in groups {
            let got = await session.flow("GROUP_GET_NUMS", "\(topic)@\(group)", route)
            guard !activeOnly || put.today > 0 || got.today > 0 else { continue }
            let behind = max(0, (try? await session.consumeStats(group, topic: topic).difference) ?? 0)
            Self.columns.show(
                front(topic, 64), front(group, 64), String(behind), fixed(put.tps, 2), fixed(got.tps, 2),
                String(put.today), String(got.today))
        }
        if groups.isEmpty, !activeOnly || put.today > 0 {
            Self.columns.show(front(topic, 64), "", "0", fixed(put.tps, 2), "", String(put.today), "NO_CONSUMER")
        }
    }
}

extension AdminSession {
    /// A statistic of all masters together: messages a second of the last minute, and messages of the longest time the
    /// broker has figures for (a day, an hour, a minute). A broker that keeps no such figure counts as none.
    func flow(_ name: String, _ key: String, _ route: TopicRouteData) async -> (tps: Double, today: Int64) {
        var sum = (tps: 0.0, today: Int64(0))
        for broker in route.brokerDatas {
            guard let address = broker.brokerAddrs[0],
                let reply = try? await demand(
                    address, .viewBrokerStatsData, ["statsName": name, "statsKey": key]),
                let json = try? reply.json()
            else { continue }
            sum.tps += json["statsMinute"]?["tps"]?.double ?? 0
            sum.today +=
                ["statsDay", "statsHour", "statsMinute"].lazy.compactMap { json[$0]?["sum"]?.integer }
                .first { $0 != 0 } ?? 0
        }
        return sum
    }
}
