import FastJSON
import RemotingProtocol
import RemotingTransport

/// VIEW_BROKER_STATS_DATA (315).
extension ConsumeStatsProcessor {
    func stats(_ request: borrowing Request) throws(RemotingDecodeError) {
        let name = try request.extFields.required("statsName")
        let key = try request.extFields.required("statsKey")
        guard let (item, measure) = statsItem(name, key) else {
            return request.answer(.systemError, remark: "The stats <\(name)> <\(key)> not exist")
        }
        func window(_ window: StatsItem.Window) -> JSONValue {
            let snapshot = item.snapshot(window, measure)
            return .fields([
                ("avgpt", .number(snapshot.average)), ("sum", .integer(snapshot.sum)), ("tps", .number(snapshot.tps)),
            ])
        }
        let body = JSONValue.fields([
            ("statsDay", window(.day)), ("statsHour", window(.hour)), ("statsMinute", window(.minute)),
        ])
        request.answer(.success, body: body.bytes())
    }

    /// By RocketMQ's names and keys. Not kept: GROUP_GET_LATENCY (a pull is answered within the tick that reads it),
    /// and what RocketMQ 4.9 lists but never counts (GROUP_GET_FROM_DISK_NUMS and the like).
    private func statsItem(_ name: String, _ key: String) -> (StatsItem, StatsItem.Measure)? {
        func ofGroup() -> StatsItem? {
            guard let at = key.firstIndex(of: "@"), let topic = tables.topics[String(key[..<at])] else { return nil }
            return tables.groups[String(key[key.index(after: at)...])]?.gets(of: topic)
        }
        func ofBroker(_ item: StatsItem) -> StatsItem? {
            key == environment.configuration.brokerClusterName ? item : nil
        }
        func ofLevel(_ items: [Int32: StatsItem], _ suffix: String) -> StatsItem? {
            let parts = key.split(separator: "@", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count >= 2, parts[0] == TopicNames.schedule, (parts.count == 3 ? parts[2] : "") == suffix
            else { return nil }
            return Int32(parts[1]).flatMap { items[$0] }
        }
        if name == "GROUP_GET_NUMS" || name == "GROUP_GET_SIZE",
            key == "\(TopicNames.schedule)@\(ScheduleMessageService.group)"
        {
            return storage.stats.deliveredInAll.map { ($0, name == "GROUP_GET_NUMS" ? .count : .bytes) }
        }
        switch name {
        case "QUEUE_PUT_NUMS": return ofLevel(storage.stats.delayed, "").map { ($0, .count) }
        case "QUEUE_PUT_SIZE": return ofLevel(storage.stats.delayed, "").map { ($0, .bytes) }
        case "QUEUE_GET_NUMS":
            return ofLevel(storage.stats.delivered, ScheduleMessageService.group).map { ($0, .count) }
        case "QUEUE_GET_SIZE":
            return ofLevel(storage.stats.delivered, ScheduleMessageService.group).map { ($0, .bytes) }
        case "TOPIC_PUT_NUMS": return tables.topics[key]?.puts.map { ($0, .count) }
        case "TOPIC_PUT_SIZE": return tables.topics[key]?.puts.map { ($0, .bytes) }
        case "GROUP_GET_NUMS": return ofGroup().map { ($0, .count) }
        case "GROUP_GET_SIZE": return ofGroup().map { ($0, .bytes) }
        case "SNDBCK_PUT_NUMS": return storage.stats.sendBacks(key: key).map { ($0, .count) }
        case "BROKER_PUT_NUMS": return ofBroker(storage.stats.brokerPuts).map { ($0, .count) }
        case "BROKER_GET_NUMS": return ofBroker(storage.stats.brokerGets).map { ($0, .count) }
        default: return nil
        }
    }
}
