import FastJSON
import LinuxSystem
import MessageModel
import MessageStore
import MetadataStore
import RemotingProtocol
import SettingTable

/// The tables below `config`, read as the broker reads them.
extension StoreSurvey {
    mutating func readTables() throws(SystemError) {
        if let json = try table(.topics) { readTopics(json) }
        if let json = try table(.subscriptionGroups) {
            report.groupCount =
                entries(json, "subscriptionGroupTable", .subscriptionGroups) {
                    try SubscriptionGroupManager.entry($0)
                }.count
        }
        if let json = try table(.consumerOffsets) {
            var queues: [RefusedEntry] = []
            for table in entries(
                json, "offsetTable", .consumerOffsets, { try ConsumerOffsetManager.entry($0, &queues) })
            {
                offsets[table.topic.text, default: [:]][table.group.text] = table.offsets
            }
            note(queues, of: .consumerOffsets)
        }
        if let json = try table(.changedSettings) {
            report.settings = ChangedSettings.listed(json).map {
                StoreReport.Setting(key: $0.key, value: $0.change.value, file: $0.change.file)
            }
        }
        readProgress()
        readReturned()
    }

    /// Nil when the table is absent or not usable; the report has why.
    func table(_ file: ConfigurationFile, _ noted: inout [StoreReport.Table]) throws(SystemError) -> JSONValue? {
        let metadata = MetadataFile(path: "\(configuration.configPath)/\(file.rawValue)", disk: disk)
        do throws(MetadataError) {
            switch try metadata.load(quality: { file.quality(of: $0) }) {
            case .absent: return nil
            case .empty(let reason):
                noted.append(.init(name: file.rawValue, problem: reason, consequence: .nothingUsed))
                return nil
            case .current(let bytes): return try? JSONValue(parsing: bytes, limits: .tables)
            case .backup(let bytes, let reason):
                noted.append(.init(name: file.rawValue, problem: reason, consequence: .backupUsed))
                return try? JSONValue(parsing: bytes, limits: .tables)
            }
        } catch {
            if case .disk(let error) = error { throw error }
            noted.append(.init(name: file.rawValue, problem: "\(error)", consequence: .nothingUsed))
            return nil
        }
    }

    mutating func table(_ file: ConfigurationFile) throws(SystemError) -> JSONValue? {
        var noted: [StoreReport.Table] = []
        defer { report.tables += noted }
        return try table(file, &noted)
    }

    /// The good entries; the others are noted.
    mutating func entries<Entry>(
        _ json: JSONValue, _ name: String, _ file: ConfigurationFile,
        _ read: (JSONObject.Member) throws -> Entry
    ) -> [Entry] {
        // A table without its member is none, and was not loaded.
        guard let table = try? TableEntries<Entry>(json, name, read) else { return [] }
        note(table.refused, of: file)
        return table.entries
    }

    private mutating func note(_ refused: [RefusedEntry], of file: ConfigurationFile) {
        guard !refused.isEmpty else { return }
        report.tables.append(
            .init(
                name: file.rawValue, problem: "\(refused.count) of its entries are none: \(refused.summary)",
                consequence: .entriesLeftOut))
    }

    private mutating func readTopics(_ json: JSONValue) {
        let read = entries(json, "topicConfigTable", .topics) { try TopicConfigManager.entry($0).0 }
        let configs = Dictionary(read.map { ($0.topicName, $0) }, uniquingKeysWith: { $1 })
        for index in report.topics.indices {
            guard let config = configs[report.topics[index].name] else { continue }
            report.topics[index].isKnown = true
            report.topics[index].attributes = config.attributes ?? [:]
        }
        // Those without a message have no queue yet.
        let withQueues = Set(report.topics.map(\.name))
        // The table may name a topic twice.
        for config in configs.values where !withQueues.contains(config.topicName) {
            report.topics.append(
                StoreReport.Topic(
                    name: config.topicName, queues: [], isKnown: true, attributes: config.attributes ?? [:]))
        }
        report.topics.sort { $0.name < $1.name }
    }

    // MARK: - Groups

    /// Groups that are the broker's own: how far it has come with delays, transactions and POP.
    static let ownGroups: Set<String> = [
        TransactionalMessageService.group.text, ScheduleMessageService.group, TopicNames.reviveGroup.text,
    ]

    func offsets(of group: String, in topic: String) -> [Int32: Int64] {
        offsets[topic]?[group] ?? [:]
    }

    private mutating func readProgress() {
        let queues = Dictionary(report.topics.map { ($0.name, $0.queues) }, uniquingKeysWith: +)
        for (topic, groups) in offsets {
            for (group, offsets) in groups where !Self.ownGroups.contains(group) {
                var lag: Int64 = 0
                var without = 0
                for queue in queues[topic] ?? [] {
                    if let offset = offsets[queue.queueID] {
                        lag = lag +| queue.lag(at: offset)
                    } else if queue.end > queue.first {
                        without += 1
                    }
                }
                report.progress.append(
                    StoreReport.Progress(
                        group: group, topic: topic, lag: lag, queues: offsets.count, queuesWithout: without,
                        offsets: offsets))
            }
        }
        report.progress.sort { ($0.group, $0.topic) < ($1.group, $1.topic) }
    }

    private mutating func readReturned() {
        var found: [String: StoreReport.Returned] = [:]
        for topic in report.topics {
            if topic.name.hasPrefix(TopicName.retryPrefix) {
                let group = String(topic.name.dropFirst(TopicName.retryPrefix.count))
                let read = offsets(of: group, in: topic.name)
                let waiting = topic.queues.reduce(0) { $0 +| $1.lag(at: read[$1.queueID] ?? 0) }
                found[group, default: .init(group: group, retries: 0, deadLetters: 0)].retries = waiting
            } else if topic.name.hasPrefix(TopicName.deadLetterPrefix) {
                let group = String(topic.name.dropFirst(TopicName.deadLetterPrefix.count))
                found[group, default: .init(group: group, retries: 0, deadLetters: 0)].deadLetters = topic.messages
            }
        }
        report.returned = found.values.filter { $0.retries > 0 || $0.deadLetters > 0 }.sorted { $0.group < $1.group }
    }
}

extension StoreReport.Queue {
    /// Messages from an offset on that are still in the log.
    func lag(at offset: Int64) -> Int64 { max(0, end - max(first, offset)) }
}
