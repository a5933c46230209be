import FastJSON
import MessageModel
import RemotingProtocol

/// One topic as the hot path needs it: found by the bytes of its name, then held by reference. The one that changes
/// `config` goes through `TopicConfigManager`, which counts the version and persists.
final class TopicEntry {
    fileprivate(set) var config: TopicConfig {
        didSet {
            (isMultiTag, queueNums) = Self.derived(from: config)
            if config.attributes != oldValue.attributes { policy = TopicPolicy(attributes: config.attributes) }
        }
    }
    /// Mode, retries and the like, as its attributes have them.
    private(set) var policy: TopicPolicy
    /// What each message asks of `config`.
    private(set) var isMultiTag: Bool
    /// Queues that are written or read: those messages may lie in.
    private(set) var queueNums: Int32
    /// Checked: files may be named after it.
    let topicName: TopicName
    let name: String
    let nameBytes: [UInt8]
    let mayBeSentTo: Bool
    let isRetryTopic: Bool
    /// Which of all topics made in this process it is; it is on disk when `TopicConfigManager.kept` has come so far.
    fileprivate(set) var madeAt: Int64 = 0
    let isDeadLetterTopic: Bool
    /// It was deleted: a topic of its name is another one.
    fileprivate(set) var isGone = false
    /// TOPIC_PUT_NUMS and TOPIC_PUT_SIZE; made by the first message.
    private(set) var puts: StatsItem?

    /// Timer messages for this topic that wait for their time.
    struct WaitingTimers {
        var count: Int64 = 0
        /// Milliseconds since 1970; 0: never.
        var changedMilliseconds: Int64 = 0
    }
    var waitingTimers = WaitingTimers()

    fileprivate init(_ topicName: TopicName, _ config: TopicConfig) {
        self.config = config
        self.topicName = topicName
        policy = TopicPolicy(attributes: config.attributes)
        (isMultiTag, queueNums) = Self.derived(from: config)
        name = topicName.text
        nameBytes = Array(name.utf8)
        mayBeSentTo = !TopicNames.notAllowedToSend.contains(name)
        isRetryTopic = name.hasPrefix(TopicNames.retryPrefix)
        isDeadLetterTopic = name.hasPrefix(TopicName.deadLetterPrefix)
    }

    private static func derived(from config: TopicConfig) -> (isMultiTag: Bool, queueNums: Int32) {
        (config.topicFilterType == "MULTI_TAG", max(0, config.readQueueNums, config.writeQueueNums))
    }

    /// One of the queues that are both written and read, chosen at random; of those that are written if none is read.
    var anyReadableQueue: Int32 {
        let read = config.readQueueNums > 0 ? config.readQueueNums : config.writeQueueNums
        return Int32.random(in: 0..<max(1, min(read, config.writeQueueNums)))
    }

    /// One request has stored so many messages here.
    @inline(__always)
    func count(_ messages: Int, bytes: Int, in table: StatsTable) {
        if puts == nil { puts = table.makeItem() }
        puts?.add(messages, bytes: bytes)
        table.brokerPuts.add(messages, times: 0)
    }
}

/// The topics of this broker: RocketMQ's system topics, those clients had created for them and those operators
/// made. Persisted in `config/topics.json` in RocketMQ's format; every change counts the data version and asks for
/// a registration with the name servers.
final class TopicConfigManager {
    static let scheduleQueueNums: Int32 = 18
    static let benchmarkQueueNums: Int32 = 1024

    private var table = BytesKeyedTable<TopicEntry>()
    private let traceTopic: String
    /// Clients trace here, or the operator wants it (`traceTopicEnable`).
    private(set) var traceEntry: TopicEntry?
    /// Those with `apus.archive`, by name.
    private(set) var archived: [String: TopicEntry] = [:]
    /// Changes so far of topics that have `apus.archive`, or had it.
    private(set) var archiveChanges: Int64 = 0
    /// Topics made so far, and how many of them are on disk.
    private(set) var made: Int64 = 0
    private(set) var kept: Int64 = 0
    private(set) var systemTopics = TopicNames.alwaysSystem
    private(set) var dataVersion: DataVersion
    private(set) var isDirty = false
    /// Topics were made that clients have made again when they are lost: written within a second.
    private(set) var isDirtyLater = false
    /// Changes so far: name servers are to be notified of each (`NameserverRegistration`).
    private(set) var changes: Int64 = 0
    private let now: () -> Int64
    /// Replacements by a master's table that were begun.
    private var replacements = 0
    /// `autoCreateTopicEnable` as it is now; `TBW102` stays in the table when that is switched off.
    private var isAutoCreateEnabled: Bool

    /// - Throws: a setting names a topic that cannot be one.
    init(_ configuration: BrokerConfiguration, now: @escaping () -> Int64) throws(BrokerError) {
        self.now = now
        traceTopic = configuration.msgTraceTopicName
        isAutoCreateEnabled = configuration.autoCreateTopicEnable
        dataVersion = DataVersion(timestamp: now(), counter: 0)
        try addSystemTopics(configuration)
        kept = made
    }

    private func addSystemTopics(_ configuration: BrokerConfiguration) throws(BrokerError) {
        let readWrite = Permission.read | Permission.write
        func add(
            _ name: String, _ queues: Int32, _ perm: Int32, setting: String = "a system topic"
        ) throws(BrokerError) {
            do throws(NameError) {
                let topicName = try TopicName(existing: name)
                systemTopics.insert(name)
                insert(
                    TopicConfig(topicName: name, readQueueNums: queues, writeQueueNums: queues, perm: perm), topicName)
            } catch {
                throw .configuration("\(setting)=\(name) cannot name a topic, as RocketMQ's brokers have it: \(error)")
            }
        }
        try add(TopicNames.selfTest, 1, readWrite)
        systemTopics.insert(TopicNames.autoCreateKey)
        if configuration.autoCreateTopicEnable { insert(Self.autoCreateTemplate(configuration), .autoCreateKey) }
        try add(TopicNames.benchmark, Self.benchmarkQueueNums, readWrite)
        // RocketMQ's TopicConfig has 16 queues by default.
        try add(
            configuration.brokerClusterName, 16,
            Permission.inherit | (configuration.clusterTopicEnable ? readWrite : 0), setting: "brokerClusterName")
        try add(
            configuration.brokerName, 1, Permission.inherit | (configuration.brokerTopicEnable ? readWrite : 0),
            setting: "brokerName")
        try add(TopicNames.offsetMovedEvent, 1, readWrite)
        try add(TopicNames.schedule, Self.scheduleQueueNums, readWrite)
        if configuration.traceTopicEnable {
            try add(configuration.msgTraceTopicName, 1, readWrite, setting: "msgTraceTopicName")
        }
        try add(
            configuration.brokerClusterName + "_" + TopicNames.replySuffix, 1, readWrite, setting: "brokerClusterName")
    }

    private static func autoCreateTemplate(_ configuration: BrokerConfiguration) -> TopicConfig {
        let queues = Int32(clamping: configuration.defaultTopicQueueNums)
        return TopicConfig(
            topicName: TopicNames.autoCreateKey, readQueueNums: queues, writeQueueNums: queues,
            perm: Permission.read | Permission.write | Permission.inherit)
    }

    /// `autoCreateTopicEnable` or `defaultTopicQueueNums` may have changed: clients need the route of `TBW102`.
    func autoCreateChanged(_ configuration: BrokerConfiguration) {
        isAutoCreateEnabled = configuration.autoCreateTopicEnable
        let template = Self.autoCreateTemplate(configuration)
        if isAutoCreateEnabled, table[TopicNames.autoCreateKey]?.config != template { update(template, .autoCreateKey) }
    }

    /// - Parameter name: the topic's, checked.
    @discardableResult
    private func insert(_ config: TopicConfig, _ name: TopicName) -> TopicEntry {
        if let entry = table[name.text] {
            entry.config = config
            noteArchive(entry)
            return entry
        }
        let entry = TopicEntry(name, config)
        noteArchive(entry)
        made += 1
        entry.madeAt = made
        table[name.text] = entry
        if name.text == traceTopic { traceEntry = entry }
        return entry
    }

    private func noteArchive(_ entry: TopicEntry) {
        let isArchived = entry.policy.archive != nil
        guard isArchived || archived[entry.name] != nil else { return }
        archived[entry.name] = isArchived ? entry : nil
        archiveChanges += 1
    }

    subscript(name: UnsafeRawBufferPointer) -> TopicEntry? { table[name] }
    subscript(name: String) -> TopicEntry? { table[name] }
    var all: [TopicEntry] { table.values }
    var names: [String] { table.values.map(\.name) }

    func isSystemTopic(_ name: String) -> Bool {
        systemTopics.contains(name) || name.hasPrefix(TopicNames.systemPrefix)
    }

    /// A client sends to a topic that is not there: made after the default topic it names, if that one may be
    /// inherited. It gets as many queues as the client wants: one at least, and at most as many as the default topic
    /// has. For a client that wants 0, RocketMQ makes a topic without queues, and refuses this message and all others.
    func createForSend(_ name: TopicName, defaultTopic: String, clientQueueNums: Int32, topicSysFlag: Int32)
        -> TopicEntry?
    {
        guard isAutoCreateEnabled || defaultTopic != TopicNames.autoCreateKey,
            let template = table[defaultTopic]?.config, template.perm & Permission.inherit != 0
        else { return nil }
        let queues = max(1, min(clientQueueNums, template.writeQueueNums))
        var config = TopicConfig(
            topicName: name.text, readQueueNums: queues, writeQueueNums: queues,
            perm: template.perm & ~Permission.inherit)
        config.topicSysFlag = topicSysFlag
        config.topicFilterType = template.topicFilterType
        return update(config, name)
    }

    /// A topic the broker itself needs (`%RETRY%group`, `%DLQ%group`, …), made if it is not there.
    /// - Parameter mayWait: nothing is stored in it yet, and the one that wants it asks again. Otherwise the table
    ///   is on disk before the end of the tick, and so before anything stored in the topic is acknowledged.
    func findOrCreate(
        _ name: TopicName, queueNums: Int32, perm: Int32, topicSysFlag: Int32 = 0, mayWait: Bool = false
    ) -> TopicEntry {
        if let entry = table[name.text] {
            if isDirtyLater, !mayWait { isDirty = true }
            return entry
        }
        var config = TopicConfig(topicName: name.text, readQueueNums: queueNums, writeQueueNums: queueNums, perm: perm)
        config.topicSysFlag = topicSysFlag
        guard mayWait else { return update(config, name) }
        let entry = insert(config, name)
        dataVersion.next(now: now())
        isDirtyLater = true
        changes += 1
        return entry
    }

    /// Gives a topic that many queues if it has fewer.
    func enlarge(_ entry: TopicEntry, to queues: Int32) {
        guard min(entry.config.readQueueNums, entry.config.writeQueueNums) < queues else { return }
        var config = entry.config
        config.readQueueNums = max(config.readQueueNums, queues)
        config.writeQueueNums = max(config.writeQueueNums, queues)
        update(config, entry.topicName)
    }

    /// Makes or changes a topic.
    /// - Throws: there is none of its name, and none can be made.
    @discardableResult
    func update(_ config: TopicConfig) throws(NameError) -> TopicEntry {
        if let known = table[config.topicName] { return update(config, known.topicName) }
        return update(config, try TopicName(config.topicName))
    }

    @discardableResult
    private func update(_ config: TopicConfig, _ name: TopicName) -> TopicEntry {
        let entry = insert(config, name)
        bump(config.topicName)
        return entry
    }

    /// `false` if there was no such topic.
    @discardableResult
    func delete(_ name: String) -> Bool {
        guard table[name] != nil else { return false }
        remove(name)
        bump(nil)
        return true
    }

    private func remove(_ name: String) {
        table[name]?.isGone = true
        table[name] = nil
        if archived.removeValue(forKey: name) != nil { archiveChanges += 1 }
        if name == traceTopic { traceEntry = nil }
    }

    /// Counts a new version without a change of a topic: the broker's own permission changed.
    func bump(_ name: String?) {
        dataVersion.next(now: now())
        isDirty = true
        changes += 1
    }

    // MARK: - config/topics.json

    var json: JSONValue {
        TopicConfigSerializeWrapper(topicConfigTable: table.values.map(\.config), dataVersion: dataVersion).json
    }

    func markWritten() {
        isDirty = false
        isDirtyLater = false
    }

    /// Adds what the file holds over the system topics. `TBW102` is as the settings have it now. In RocketMQ
    /// `defaultTopicQueueNums` has no effect any more once the topic is in the file, and clients may not change it
    /// there.
    /// - Returns: the entries that are none, which are left out.
    /// - Throws: it is no such table.
    func load(_ json: JSONValue) throws(TableError) -> [RefusedEntry] {
        let read = try Self.read(json)
        for (config, name) in read.entries where name != .autoCreateKey { insert(config, name) }
        dataVersion = read.version ?? dataVersion
        kept = made
        return read.refused
    }

    /// What is to be made a text of; at once for a table of ordinary size.
    func copied(in slices: SlicedWork, then: @escaping (TopicConfigSerializeWrapper) -> Void) {
        // The version of the beginning: the one that reads the copy asks again if something changed meanwhile.
        let version = dataVersion
        TableCopy.make(in: slices, table: { self.table }, { $0.config }) { configs in
            then(TopicConfigSerializeWrapper(topicConfigTable: configs, dataVersion: version))
        }
    }

    /// The first so many topics are on disk.
    func keptOnDisk(_ count: Int64) { kept = max(kept, count) }

    var count: Int { table.count }

    /// A table that was read.
    struct Entries: Sendable {
        let entries: [(config: TopicConfig, name: TopicName)]
        let refused: [RefusedEntry]
        let names: Set<String>
        let version: DataVersion?
    }

    /// Any thread.
    /// - Throws: it is no such table.
    static func read(_ json: JSONValue) throws(TableError) -> Entries {
        let read = try TableEntries<(config: TopicConfig, name: TopicName)>(json, "topicConfigTable", entry)
        return Entries(
            entries: read.entries, refused: read.refused, names: Set(read.entries.map(\.name.text)),
            version: json.dataVersion)
    }

    /// A slave takes its master's table as it is, in slices: topics the master no longer has go.
    func replace(by read: Entries, in slices: SlicedWork, then: @escaping () -> Void) {
        guard read.version != dataVersion else { return }
        replacements += 1
        let mine = replacements
        let target = TableReplacement.Target<(config: TopicConfig, name: TopicName)>(
            put: { [self] entry in insert(entry.config, entry.name) },
            count: { [self] in table.count },
            removeUnlessKept: { [self] place in
                let name = table.value(at: place).name
                if !read.names.contains(name), !isSystemTopic(name) { remove(name) }
            })
        TableReplacement.run(read.entries, into: target, in: slices, while: { [self] in replacements == mine }) {
            [self] in
            dataVersion = read.version ?? dataVersion
            isDirty = true
            changes += 1
            then()
        }
    }

    static func entry(_ member: JSONObject.Member) throws -> (config: TopicConfig, name: TopicName) {
        let config = try TopicConfig(json: member.value)
        guard config.topicName == member.key else {
            throw TableError("it calls itself \(config.topicName)")
        }
        let queues = 0...QueueLimits.queuesPerTopic
        guard queues.contains(config.readQueueNums), queues.contains(config.writeQueueNums) else {
            throw TableError("its number of queues is not within 0 to \(QueueLimits.queuesPerTopic)")
        }
        if let problem = config.problem(bytesMax: EntryBounds.keptBytesMax) { throw TableError(problem) }
        return (config, try TopicName(existing: member.key))
    }
}

extension JSONValue {
    /// Of a table; `nil`: it has none that can be read.
    var dataVersion: DataVersion? { self["dataVersion"].flatMap { try? DataVersion(json: $0) } }
}
