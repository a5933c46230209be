import FastJSON
import RemotingProtocol

/// One consumer group's configuration, found by the bytes of its name.
final class SubscriptionGroupEntry {
    fileprivate(set) var config: SubscriptionGroupConfig
    let name: String
    let nameBytes: [UInt8]
    /// GROUP_GET_NUMS and GROUP_GET_SIZE by topic, which is kept so that no other can have its identity.
    private var gets: [ObjectIdentifier: (topic: TopicEntry, item: StatsItem)] = [:]

    init(_ config: SubscriptionGroupConfig) {
        self.config = config
        name = config.groupName
        nameBytes = Array(config.groupName.utf8)
    }

    /// One pull has brought so many messages.
    func count(_ messages: Int, bytes: Int, of topic: TopicEntry, in table: StatsTable) {
        table.brokerGets.add(messages, times: 0)
        if let known = gets[ObjectIdentifier(topic)] { return known.item.add(messages, bytes: bytes) }
        let item = table.makeItem()
        gets[ObjectIdentifier(topic)] = (topic, item)
        item.add(messages, bytes: bytes)
    }

    func gets(of topic: TopicEntry) -> StatsItem? { gets[ObjectIdentifier(topic)]?.item }

    func forget(topic: TopicEntry) { gets[ObjectIdentifier(topic)] = nil }
}

/// The consumer groups this broker knows: RocketMQ's own ones, those operators made, and with
/// `autoCreateSubscriptionGroup` every group that shows up. Persisted in `config/subscriptionGroup.json`.
final class SubscriptionGroupManager {
    /// Groups RocketMQ has from the start; those marked consume in broadcast by design.
    static let systemGroups = [
        "TOOLS_CONSUMER", "FILTERSRV_CONSUMER", "SELF_TEST_C_GROUP", "CID_ONS-HTTP-PROXY", "CID_ONSAPI_PULL",
        "CID_ONSAPI_PERMISSION", "CID_ONSAPI_OWNER",
    ]
    /// RocketMQ's CHARACTER_MAX_LENGTH of a group name.
    static let nameLengthMax = 255

    private(set) var table = BytesKeyedTable<SubscriptionGroupEntry>()
    private(set) var dataVersion: DataVersion
    private(set) var isDirty = false
    /// Groups showed up, which they do again when they are lost: written within a second.
    private(set) var isDirtyLater = false
    /// `autoCreateSubscriptionGroup` as it is now.
    var autoCreate: Bool
    private let now: () -> Int64
    /// Asked before a group is made because a client named it.
    var mayCreate: () -> Bool = { true }

    init(_ configuration: BrokerConfiguration, now: @escaping () -> Int64) {
        self.now = now
        autoCreate = configuration.autoCreateSubscriptionGroup
        dataVersion = DataVersion(timestamp: now(), counter: 0)
        for name in Self.systemGroups { insert(SubscriptionGroupConfig(groupName: name)) }
    }

    @discardableResult
    private func insert(_ config: SubscriptionGroupConfig) -> SubscriptionGroupEntry {
        if let entry = table[config.groupName] {
            entry.config = config
            return entry
        }
        let entry = SubscriptionGroupEntry(config)
        table[config.groupName] = entry
        return entry
    }

    /// The group, made on the way if that is allowed and its name is good.
    func find(_ name: UnsafeRawBufferPointer) -> SubscriptionGroupEntry? {
        if let entry = table[name] { return entry }
        return create(String(decoding: name, as: UTF8.self))
    }

    func find(_ name: String) -> SubscriptionGroupEntry? { table[name] ?? create(name) }

    /// Without making it.
    subscript(name: String) -> SubscriptionGroupEntry? { table[name] }

    /// What to do about a group that `find` does not give, for the end of a remark.
    func remedy(for name: String) -> String {
        if autoCreate, Self.isGood(name) {
            return "\nThis address has made more groups than \(CreationRates.groups.words): try again in a moment."
        }
        return Self.isGood(name)
            ? "\nCreate it (mqadmin updateSubGroup), or set autoCreateSubscriptionGroup=true."
            : "\nA group's name has 1 to \(Self.nameLengthMax) bytes and no blanks: choose another."
    }

    /// RocketMQ's clients allow less than its broker, which takes any name; blanks and control characters cannot be meant.
    static func isGood(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= nameLengthMax && name.utf8.allSatisfy { $0 > 32 && $0 != 127 }
    }

    private func create(_ name: String) -> SubscriptionGroupEntry? {
        let isSystem = name.hasPrefix("CID_RMQ_SYS_")
        guard autoCreate || isSystem, Self.isGood(name), mayCreate() else { return nil }
        let entry = insert(SubscriptionGroupConfig(groupName: name))
        dataVersion.next(now: now())
        isDirtyLater = true
        return entry
    }

    var all: [SubscriptionGroupEntry] { table.values }

    @discardableResult
    func update(_ config: SubscriptionGroupConfig) -> SubscriptionGroupEntry {
        let entry = insert(config)
        bump()
        return entry
    }

    @discardableResult
    func delete(_ name: String) -> Bool {
        guard table[name] != nil else { return false }
        table[name] = nil
        bump()
        return true
    }

    private func bump() {
        dataVersion.next(now: now())
        isDirty = true
    }

    // MARK: config/subscriptionGroup.json

    var json: JSONValue {
        SubscriptionGroupWrapper(subscriptionGroupTable: table.values.map(\.config), dataVersion: dataVersion).json
    }

    func markWritten() {
        isDirty = false
        isDirtyLater = false
    }

    var count: Int { table.count }

    /// What is to be made a text of; at once for a table of ordinary size.
    func copied(in slices: SlicedWork, then: @escaping (SubscriptionGroupWrapper) -> Void) {
        let version = dataVersion
        TableCopy.make(in: slices, table: { self.table }, { $0.config }) { configs in
            then(SubscriptionGroupWrapper(subscriptionGroupTable: configs, dataVersion: version))
        }
    }

    func load(_ json: JSONValue) throws(RemotingDecodeError) {
        let wrapper = try SubscriptionGroupWrapper(json: json)
        for config in wrapper.subscriptionGroupTable { insert(config) }
        dataVersion = wrapper.dataVersion
    }

    /// A slave takes its master's table as it is.
    func replace(_ json: JSONValue) throws(RemotingDecodeError) {
        let wrapper = try SubscriptionGroupWrapper(json: json)
        guard wrapper.dataVersion != dataVersion else { return }
        let kept = Set(wrapper.subscriptionGroupTable.map(\.groupName))
        for entry in table.values where !kept.contains(entry.name) && !Self.systemGroups.contains(entry.name) {
            table[entry.name] = nil
        }
        for config in wrapper.subscriptionGroupTable { insert(config) }
        dataVersion = wrapper.dataVersion
        isDirty = true
    }
}
