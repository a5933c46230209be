import FastJSON
import LinuxSystem
import MessageModel
import MessageStore

/// Parts of the folder only one of the two looks at.
extension StoreSurvey {
    // MARK: - RocketMQ's

    mutating func readForeignParts() throws(SystemError) {
        let root = configuration.storePathRootDir
        let names = try disk.list(root).sorted()
        func note(_ part: ForeignPart, if found: Bool) { if found { report.foreign.append(part) } }

        var ledgers: [String] = []
        for name in names where name.hasPrefix("dledger-") {
            if try holdsSomething("\(root)/\(name)") { ledgers.append(name) }
        }
        note(.dledger(folders: ledgers), if: !ledgers.isEmpty)

        var databases: [String] = []
        for name in names + (try disk.list(root + "/config").sorted().map { "config/" + $0 }) {
            // What every RocksDB has.
            if try disk.information("\(root)/\(name)/CURRENT") != nil { databases.append(name) }
        }
        note(.rocksDB(folders: databases), if: !databases.isEmpty)

        func topics(_ key: String, _ value: String) -> [String] {
            report.topics.filter { $0.attributes[key]?.uppercased() == value }.map(\.name)
        }
        let compacted = topics("cleanup.policy", "COMPACTION")
        note(.compaction(topics: compacted), if: !compacted.isEmpty)
        var batches = topics("queue.type", "BATCHCQ")
        for name in try disk.list(root + "/batchconsumequeue").sorted() where !batches.contains(name) {
            if try holdsSomething("\(root)/batchconsumequeue/\(name)") { batches.append(name) }
        }
        note(.batchQueues(topics: batches), if: !batches.isEmpty)
        let mapped =
            try foreignTable("topicQueueMapping.json")?["topicQueueMappingInfoMap"]?.object?.members.map(\.key) ?? []
        note(.staticTopics(mapped.sorted()), if: !mapped.isEmpty)
        try notePop()
        note(.queueExtensions, if: try holdsSomething(root + "/consumequeue_ext"))
        note(.tieredStore, if: try disk.information(root + "/config/tieredStoreMetadata.json") != nil)
        let long = report.topics.map(\.name).filter { $0.utf8.count > TopicName.bytesMax }
        note(.longTopics(long), if: !long.isEmpty)
    }

    private mutating func notePop() throws(SystemError) {
        var groups: Set<String> = []
        for topic in try foreignTable("messageRequestMode.json")?["messageRequestModeMap"]?.object?.members ?? [] {
            for group in topic.value.object?.members ?? [] where group.value["mode"]?.string == "POP" {
                groups.insert(group.key)
            }
        }
        var unrevived: Int64 = 0
        for topic in report.topics where TopicNames.isRevive(topic.name) {
            // The last record that was worked off.
            let read = offsets(of: TopicNames.reviveGroup.text, in: topic.name)
            unrevived = topic.queues.reduce(unrevived) { $0 +| $1.lag(at: (read[$1.queueID] ?? -1) +| 1) }
        }
        guard !groups.isEmpty || unrevived > 0 else { return }
        report.foreign.append(.pop(groups: groups.sorted(), unrevived: unrevived))
    }

    /// A table only RocketMQ 5 has; nil when there is none, or when it is not readable, which is noted.
    private mutating func foreignTable(_ name: String) throws(SystemError) -> JSONValue? {
        let table = try json(name)
        if table == nil, try holdsSomething("\(configuration.configPath)/\(name)") {
            report.tables.append(
                .init(name: name, problem: "it is not readable as JSON", consequence: .nothingUsed))
        }
        return table
    }

    /// A file that is not empty, here or in a folder below.
    private func holdsSomething(_ path: String) throws(SystemError) -> Bool {
        try bytes(path) > 0
    }

    /// Of all files there and below.
    private func bytes(_ path: String) throws(SystemError) -> Int64 {
        guard let information = try disk.information(path) else { return 0 }
        guard information.isDirectory else { return information.size }
        var sum: Int64 = 0
        for name in try disk.list(path) { sum = sum +| (try bytes("\(path)/\(name)")) }
        return sum
    }

    // MARK: - Apus's

    private static let own: [(name: String, meaning: String)] = [
        ("recordsums", "checksums of whole records"),
        (TimerFiles.folder, "timer messages, and how far deliveries have come"),
        ("consumequeue/.apus-recovery", "from where a start reads the log again"),
        ("consumequeue/.apus-edits", "which records stand for edited messages"),
        ("config/changedSettings.json", "settings changed online"),
        ("config/autoCreatedTopics.json", "topics made by a client's first message"),
        ("config/deletedTopics.json", "messages of deleted topics that lie in the log still"),
        ("begin-anew", "an operator's word that an empty log is meant"),
    ]

    mutating func readOwnFiles() throws(SystemError) {
        let root = configuration.storePathRootDir
        for part in Self.own where try disk.information("\(root)/\(part.name)") != nil {
            report.ownFiles.append(
                StoreReport.OwnFile(
                    name: part.name, bytes: try bytes("\(root)/\(part.name)"), meaning: part.meaning))
        }
        for name in try disk.list(root + "/config").sorted() {
            let meaning: String
            if name.hasPrefix("."), name.hasSuffix(".apus") {
                meaning = "checksums of a table"
            } else if name.hasSuffix(".damaged") || name.hasSuffix(".refused") {
                meaning = "kept apart for an operator to look at"
            } else {
                continue
            }
            report.ownFiles.append(
                StoreReport.OwnFile(
                    name: "config/" + name, bytes: try bytes("\(root)/config/\(name)"), meaning: meaning))
        }
    }
}
