import FastJSON
import MessageModel
import RemotingProtocol

/// One consumer group's configuration, found by the bytes of its name.
final class SubscriptionGroupEntry {
    fileprivate(set) var config: SubscriptionGroupConfig
    /// Checked: topics may be named after it.
    let groupName: GroupName
    let name: String
    let nameBytes: [UInt8]
    /// It was deleted: a group of its name is another one.
    fileprivate(set) var isGone = false
    /// GROUP_GET_NUMS and GROUP_GET_SIZE by topic, which is kept so that no other can have its identity.
    private var gets: [ObjectIdentifier: (topic: TopicEntry, item: StatsItem)] = [:]

    fileprivate init(_ groupName: GroupName, _ config: SubscriptionGroupConfig) {
        self.config = config
        self.groupName = groupName
        name = groupName.text
        nameBytes = Array(name.utf8)
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
        GroupName(constant: "TOOLS_CONSUMER"), GroupName(constant: "FILTERSRV_CONSUMER"),
        GroupName(constant: "SELF_TEST_C_GROUP"), GroupName(constant: "CID_ONS-HTTP-PROXY"),
        GroupName(constant: "CID_ONSAPI_PULL"), GroupName(constant: "CID_ONSAPI_PERMISSION"),
        GroupName(constant: "CID_ONSAPI_OWNER"),
    ]

    private(set) var table = BytesKeyedTable<SubscriptionGroupEntry>()
    private(set) var dataVersion: DataVersion
    private(set) var isDirty = false
    /// Groups showed up, which they do again when they are lost: written within a second.
    private(set) var isDirtyLater = false
    /// `autoCreateSubscriptionGroup` as it is now.
    var autoCreate: Bool
    private let now: () -> Int64
    /// Replacements by a master's table that were begun.
    private var replacements = 0
    /// Asked before a group is made because a client named it.
    private let rates: CreationRates

    /// Whether it is one of RocketMQ's own groups, by which tools and the broker look at messages.
    static func isOfTools(_ group: String) -> Bool {
        group.hasPrefix("CID_RMQ_SYS_") || toolGroups.contains(group)
    }

    private static let toolGroups: Set<String> = Set(systemGroups.map(\.text)).union(["__MONITOR_CONSUMER"])

    init(_ configuration: BrokerConfiguration, rates: CreationRates, now: @escaping () -> Int64) {
        self.now = now
        self.rates = rates
        autoCreate = configuration.autoCreateSubscriptionGroup
        dataVersion = DataVersion(timestamp: now(), counter: 0)
        for name in Self.systemGroups { insert(SubscriptionGroupConfig(groupName: name.text), name) }
    }

    /// - Parameter name: the group's, checked.
    @discardableResult
    private func insert(_ config: SubscriptionGroupConfig, _ name: GroupName) -> SubscriptionGroupEntry {
        if let entry = table[name.text] {
            entry.config = config
            return entry
        }
        let entry = SubscriptionGroupEntry(name, config)
        table[name.text] = entry
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

    private static let rule = "A group's name has 1 to \(GroupName.bytesMax) bytes and no blanks: choose another."

    /// What to do about a group that `find` does not give, for the end of a remark.
    func remedy(for name: String) -> String {
        if let problem = GroupName.problem(name) { return "\n\(problem) \(Self.rule)" }
        return autoCreate
            ? "\nThis address has made more groups than \(CreationRates.groups.words): try again in a moment."
            : "\nCreate it (mqadmin updateSubGroup), or set autoCreateSubscriptionGroup=true."
    }

    /// The name of a group that a request names: one that is known, or could be made.
    /// - Throws: `badName`, the text naming what is wrong with it. RocketMQ's clients refuse such names, its broker
    ///   does not.
    func checked(_ name: String) throws(RemotingDecodeError) -> GroupName {
        if let known = table[name] { return known.groupName }
        do throws(NameError) {
            return try GroupName(name)
        } catch {
            throw .badName("\(error) \(Self.rule)")
        }
    }

    private func create(_ name: String) -> SubscriptionGroupEntry? {
        guard let config = configIfCreated(name), let groupName = try? GroupName(name), rates.requesterMayMakeGroup
        else {
            return nil
        }
        let entry = insert(config, groupName)
        dataVersion.next(now: now())
        isDirtyLater = true
        return entry
    }

    /// What a group that is not there would be if it showed up; nil when it would not be made.
    func configIfCreated(_ name: String) -> SubscriptionGroupConfig? {
        let isSystem = name.hasPrefix("CID_RMQ_SYS_")
        return (autoCreate || isSystem) && GroupName.problem(name) == nil
            ? SubscriptionGroupConfig(groupName: name) : nil
    }

    var all: [SubscriptionGroupEntry] { table.values }

    /// Makes or changes a group.
    /// - Throws: there is none of its name, and none can be made.
    @discardableResult
    func update(_ config: SubscriptionGroupConfig) throws(RemotingDecodeError) -> SubscriptionGroupEntry {
        let entry = insert(config, try checked(config.groupName))
        bump()
        return entry
    }

    @discardableResult
    func delete(_ name: String) -> Bool {
        guard let entry = table[name] else { return false }
        entry.isGone = true
        table[name] = nil
        bump()
        return true
    }

    private func bump() {
        dataVersion.next(now: now())
        isDirty = true
    }

    // MARK: - config/subscriptionGroup.json

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

    /// - Returns: the entries that are none, which are left out.
    /// - Throws: it is no such table.
    func load(_ json: JSONValue) throws(TableError) -> [RefusedEntry] {
        let read = try Self.read(json)
        for (config, name) in read.entries { insert(config, name) }
        dataVersion = read.version ?? dataVersion
        return read.refused
    }

    /// A table that was read.
    struct Entries: Sendable {
        let entries: [(config: SubscriptionGroupConfig, name: GroupName)]
        let refused: [RefusedEntry]
        let names: Set<GroupName>
        let version: DataVersion?
    }

    /// Any thread.
    /// - Throws: it is no such table.
    static func read(_ json: JSONValue) throws(TableError) -> Entries {
        let read = try TableEntries<(config: SubscriptionGroupConfig, name: GroupName)>(
            json, "subscriptionGroupTable", entry)
        return Entries(
            entries: read.entries, refused: read.refused, names: Set(read.entries.map(\.name)).union(systemGroups),
            version: json.dataVersion)
    }

    /// A slave takes its master's table as it is, in slices.
    func replace(by read: Entries, in slices: SlicedWork, then: @escaping () -> Void) {
        guard read.version != dataVersion else { return }
        replacements += 1
        let mine = replacements
        let target = TableReplacement.Target<(config: SubscriptionGroupConfig, name: GroupName)>(
            put: { [self] entry in insert(entry.config, entry.name) },
            count: { [self] in table.count },
            removeUnlessKept: { [self] place in
                let entry = table.value(at: place)
                guard !read.names.contains(entry.groupName) else { return }
                entry.isGone = true
                table[entry.name] = nil
            })
        TableReplacement.run(read.entries, into: target, in: slices, while: { [self] in replacements == mine }) {
            [self] in
            dataVersion = read.version ?? dataVersion
            isDirty = true
            then()
        }
    }

    static func entry(_ member: JSONObject.Member) throws -> (config: SubscriptionGroupConfig, name: GroupName) {
        let config = try SubscriptionGroupConfig(json: member.value)
        guard config.groupName == member.key else {
            throw TableError("it calls itself \(config.groupName)")
        }
        if let problem = config.problem(bytesMax: EntryBounds.keptBytesMax) { throw TableError(problem) }
        return (config, try GroupName(existing: member.key))
    }
}
