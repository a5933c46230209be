import FastJSON
import RemotingProtocol

/// One topic as the hot path needs it: found by the bytes of its name, then held by reference. Whoever changes
/// `config` goes through `TopicConfigManager`, which counts the version and persists.
final class TopicEntry {
    fileprivate(set) var config: TopicConfig {
        didSet { isMultiTag = config.topicFilterType == "MULTI_TAG" }
    }
    private(set) var isMultiTag: Bool
    let name: String
    let nameBytes: [UInt8]
    let mayBeSentTo: Bool
    let isRetryTopic: Bool
    let isDeadLetterTopic: Bool
    /// TOPIC_PUT_NUMS and TOPIC_PUT_SIZE; made by the first message.
    private(set) var puts: StatsItem?

    /// Timer messages for this topic that wait for their time.
    struct WaitingTimers {
        var count: Int64 = 0
        /// Milliseconds since 1970; 0: never.
        var changedMillis: Int64 = 0
    }
    var waitingTimers = WaitingTimers()

    init(_ config: TopicConfig) {
        self.config = config
        isMultiTag = config.topicFilterType == "MULTI_TAG"
        name = config.topicName
        nameBytes = Array(config.topicName.utf8)
        mayBeSentTo = !TopicNames.notAllowedToSend.contains(config.topicName)
        isRetryTopic = config.topicName.hasPrefix(TopicNames.retryPrefix)
        isDeadLetterTopic = config.topicName.hasPrefix(TopicNames.deadLetterPrefix)
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
    /// Somebody traces here, or the operator wants it (`traceTopicEnable`).
    private(set) var traceEntry: TopicEntry?
    private(set) var systemTopics = TopicNames.alwaysSystem
    private(set) var dataVersion: DataVersion
    private(set) var isDirty = false
    /// Topics were made that clients have made again when they are lost: written within a second.
    private(set) var isDirtyLater = false
    /// Called after every change, with the changed topic's name if there is one: persist and register.
    var changed: ((String?) -> Void)?
    private let now: () -> Int64
    /// `autoCreateTopicEnable` as it is now; `TBW102` stays in the table when that is switched off.
    private var isAutoCreateEnabled: Bool

    init(_ configuration: BrokerConfiguration, now: @escaping () -> Int64) {
        self.now = now
        traceTopic = configuration.msgTraceTopicName
        isAutoCreateEnabled = configuration.autoCreateTopicEnable
        dataVersion = DataVersion(timestamp: now(), counter: 0)
        addSystemTopics(configuration)
    }

    private func addSystemTopics(_ configuration: BrokerConfiguration) {
        let readWrite = Permission.read | Permission.write
        func add(_ name: String, _ queues: Int32, _ perm: Int32) {
            systemTopics.insert(name)
            insert(TopicConfig(topicName: name, readQueueNums: queues, writeQueueNums: queues, perm: perm))
        }
        add(TopicNames.selfTest, 1, readWrite)
        systemTopics.insert(TopicNames.autoCreateKey)
        if configuration.autoCreateTopicEnable { insert(Self.autoCreateTemplate(configuration)) }
        add(TopicNames.benchmark, Self.benchmarkQueueNums, readWrite)
        // RocketMQ's TopicConfig has 16 queues unless told otherwise.
        add(
            configuration.brokerClusterName, 16,
            Permission.inherit | (configuration.clusterTopicEnable ? readWrite : 0))
        add(configuration.brokerName, 1, Permission.inherit | (configuration.brokerTopicEnable ? readWrite : 0))
        add(TopicNames.offsetMovedEvent, 1, readWrite)
        add(TopicNames.schedule, Self.scheduleQueueNums, readWrite)
        if configuration.traceTopicEnable { add(configuration.msgTraceTopicName, 1, readWrite) }
        add(configuration.brokerClusterName + "_" + TopicNames.replySuffix, 1, readWrite)
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
        if isAutoCreateEnabled, table[TopicNames.autoCreateKey]?.config != template { update(template) }
    }

    @discardableResult
    private func insert(_ config: TopicConfig) -> TopicEntry {
        if let entry = table[config.topicName] {
            entry.config = config
            return entry
        }
        let entry = TopicEntry(config)
        table[config.topicName] = entry
        if config.topicName == traceTopic { traceEntry = entry }
        return entry
    }

    subscript(name: UnsafeRawBufferPointer) -> TopicEntry? { table[name] }
    subscript(name: String) -> TopicEntry? { table[name] }
    var all: [TopicEntry] { table.values }
    var names: [String] { table.values.map(\.name) }

    func isSystemTopic(_ name: String) -> Bool {
        systemTopics.contains(name) || name.hasPrefix(TopicNames.systemPrefix)
    }

    /// A client sends to a topic that is not there: made after the default topic it names, if that one may be
    /// inherited, with as many queues as the client wants and the default topic has at most.
    func createForSend(_ name: String, defaultTopic: String, clientQueueNums: Int32, topicSysFlag: Int32)
        -> TopicEntry?
    {
        guard isAutoCreateEnabled || defaultTopic != TopicNames.autoCreateKey,
            let template = table[defaultTopic]?.config, template.perm & Permission.inherit != 0
        else { return nil }
        let queues = max(0, min(clientQueueNums, template.writeQueueNums))
        var config = TopicConfig(
            topicName: name, readQueueNums: queues, writeQueueNums: queues, perm: template.perm & ~Permission.inherit)
        config.topicSysFlag = topicSysFlag
        config.topicFilterType = template.topicFilterType
        return update(config)
    }

    /// A topic the broker itself needs (`%RETRY%group`, `%DLQ%group`, …), made if it is not there.
    /// - Parameter mayWait: nothing is stored in it yet, and whoever wants it says so again. Otherwise the table is on disk
    ///   before the end of the tick, and so before anything stored in the topic is acknowledged.
    func findOrCreate(
        _ name: String, queueNums: Int32, perm: Int32, topicSysFlag: Int32 = 0, mayWait: Bool = false
    ) -> TopicEntry {
        if let entry = table[name] {
            if isDirtyLater, !mayWait { isDirty = true }
            return entry
        }
        var config = TopicConfig(topicName: name, readQueueNums: queueNums, writeQueueNums: queueNums, perm: perm)
        config.topicSysFlag = topicSysFlag
        guard mayWait else { return update(config) }
        let entry = insert(config)
        dataVersion.next(now: now())
        isDirtyLater = true
        changed?(name)
        return entry
    }

    /// Something is about to be stored in a topic: it must be on disk before that is acknowledged.
    func writeSoon() {
        if isDirtyLater { isDirty = true }
    }

    @discardableResult
    func update(_ config: TopicConfig) -> TopicEntry {
        let entry = insert(config)
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
        table[name] = nil
        if name == traceTopic { traceEntry = nil }
    }

    /// Counts a new version without a change of a topic: the broker's own permission changed.
    func bump(_ name: String?) {
        dataVersion.next(now: now())
        isDirty = true
        changed?(name)
    }

    // MARK: config/topics.json

    var json: JSONValue {
        TopicConfigSerializeWrapper(topicConfigTable: table.values.map(\.config), dataVersion: dataVersion).json
    }

    func markWritten() {
        isDirty = false
        isDirtyLater = false
    }

    /// Adds what the file holds over the system topics. `TBW102` is as the settings have it now: RocketMQ's `defaultTopicQueueNums`
    /// has no effect any more once the topic is in the file, and nobody may change it there.
    func load(_ json: JSONValue) throws(RemotingDecodeError) {
        let wrapper = try TopicConfigSerializeWrapper(json: json)
        for config in wrapper.topicConfigTable where config.topicName != TopicNames.autoCreateKey { insert(config) }
        dataVersion = wrapper.dataVersion
    }

    /// A slave takes its master's table as it is: topics the master no longer has go.
    func replace(_ json: JSONValue) throws(RemotingDecodeError) {
        let wrapper = try TopicConfigSerializeWrapper(json: json)
        guard wrapper.dataVersion != dataVersion else { return }
        let kept = Set(wrapper.topicConfigTable.map(\.topicName))
        for name in names where !kept.contains(name) && !isSystemTopic(name) { remove(name) }
        for config in wrapper.topicConfigTable { insert(config) }
        dataVersion = wrapper.dataVersion
        isDirty = true
        changed?(nil)
    }
}
