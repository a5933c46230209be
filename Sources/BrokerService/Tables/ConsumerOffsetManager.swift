import FastJSON
import MessageModel

/// How far each consumer group has come in each queue: `topic@group` → queue → offset. Kept in memory, written to
/// `config/consumerOffset.json` in RocketMQ's format whenever something has changed since the last write.
///
/// Takes what it is given: whether topic, group and queue exist is for the caller to know (`QueueProcessor.refusal`).
final class ConsumerOffsetManager {
    final class Table {
        let topic: String
        let group: String
        var offsets: [Int32: Int64] = [:]
        /// Its topic or group was deleted, or another table has its place: it counts no more.
        fileprivate(set) var isGone = false

        init(_ topic: TopicName, _ group: GroupName) {
            self.topic = topic.text
            self.group = group.text
        }

        /// Makes offsets those of this group where they are smaller. An offset below the queue's begin does not count.
        func lower(_ smallest: inout [Int32: Int64], begin: (_ queueID: Int32) -> Int64) {
            for (queueID, offset) in offsets where offset < smallest[queueID] ?? .max && offset >= begin(queueID) {
                smallest[queueID] = offset
            }
        }
    }

    /// One group's offsets in one topic, for a text that another thread makes.
    struct Copy: Sendable {
        let key: String
        let offsets: [Int32: Int64]
    }

    /// One entry of a table that was read; any thread may read it.
    struct Entry: Sendable {
        let topic: TopicName
        let group: GroupName
        fileprivate(set) var offsets: [Int32: Int64] = [:]

        var key: String { topic.text + separator + group.text }
    }

    /// A table that was read.
    struct Entries: Sendable {
        let entries: [Entry]
        /// What is none: whole entries, and single queues of others.
        let refused: [RefusedEntry]
        let keys: Set<String>
    }

    static let separator = "@"
    /// What may be stored. -1 is RocketMQ's "none".
    static let bounds = QueueLimits.offsets

    private(set) var tables = BytesKeyedTable<Table>()
    /// The same tables, found without looking at all of them.
    private var byTopic: [String: [String: Table]] = [:]
    private var byGroup: [String: [String: Table]] = [:]
    /// Reused to join topic and group without allocating.
    private var scratch: [UInt8] = []
    private(set) var isDirty = false
    /// Replacements by a master's table that were begun.
    var replacements = 0

    init() { scratch.reserveCapacity(512) }

    /// Pairs of topic and group.
    var count: Int { tables.count }

    func find(_ topic: UnsafeRawBufferPointer, _ group: UnsafeRawBufferPointer) -> Table? {
        scratch.removeAll(keepingCapacity: true)
        scratch.append(contentsOf: topic)
        scratch.append(UInt8(ascii: "@"))
        scratch.append(contentsOf: group)
        return present(scratch.withUnsafeBytes { tables[$0] })
    }

    private func find(_ topic: String, _ group: String) -> Table? { present(tables[topic + Self.separator + group]) }

    private func present(_ table: Table?) -> Table? { table?.isGone == false ? table : nil }

    private func insert(_ table: Table) {
        let key = table.topic + Self.separator + table.group
        tables[key]?.isGone = true
        tables[key] = table
        byTopic[table.topic, default: [:]][table.group] = table
        byGroup[table.group, default: [:]][table.topic] = table
    }

    /// Takes it out, unless another one has its place by now.
    func remove(_ table: Table) {
        let (topic, group) = (table.topic, table.group)
        let key = topic + Self.separator + group
        if tables[key] === table { tables[key] = nil }
        if byTopic[topic]?[group] === table { byTopic[topic]?[group] = nil }
        if byTopic[topic]?.isEmpty == true { byTopic[topic] = nil }
        if byGroup[group]?[topic] === table { byGroup[group]?[topic] = nil }
        if byGroup[group]?.isEmpty == true { byGroup[group] = nil }
    }

    /// They count no more from now on. The caller has `remove` take them out.
    private func forget(_ tables: [String: Table]?) -> [Table] {
        isDirty = true
        let gone = Array((tables ?? [:]).values)
        for table in gone { table.isGone = true }
        return gone
    }

    /// Takes what the consumer sends, also an offset smaller than the stored one: a reset does exactly that. An offset
    /// outside of `bounds` becomes the nearest inside; `queueID` is not negative.
    func commit(topic: TopicName, group: GroupName, queueID: Int32, offset: Int64) {
        commit(find(topic.text, group.text) ?? make(topic, group), queueID, offset)
    }

    func commit(_ table: Table, _ queueID: Int32, _ offset: Int64) {
        precondition(queueID >= 0, "queues are numbered from 0")
        table.offsets[queueID] = min(max(offset, Self.bounds.lowerBound), Self.bounds.upperBound)
        isDirty = true
    }

    /// The table of a group in a topic, made when there is none.
    func table(topic: TopicName, group: GroupName) -> Table { find(topic.text, group.text) ?? make(topic, group) }

    func make(_ topic: TopicName, _ group: GroupName) -> Table {
        let table = Table(topic, group)
        insert(table)
        return table
    }

    /// The committed offset, or `nil` for a group that never committed in this queue.
    func offset(topic: String, group: String, queueID: Int32) -> Int64? {
        find(topic, group)?.offsets[queueID]
    }

    func offsets(topic: String, group: String) -> [Int32: Int64]? { find(topic, group)?.offsets }

    /// In the order of the alphabet, unless they are so many that sorting them would take long; so is the next.
    func topics(of group: String) -> [String] { Self.names(byGroup[group]) }

    func groups(of topic: String) -> [String] { Self.names(byTopic[topic]) }

    private static let sortedMax = 1024

    private static func names(_ tables: [String: Table]?) -> [String] {
        let names = (tables ?? [:]).compactMap { $0.value.isGone ? nil : $0.key }
        return names.count <= sortedMax ? names.sorted() : names
    }

    /// Gives a group another one's offsets in a topic. Its table stays the same object: claims hold it.
    /// - Returns: the queues whose offsets were set.
    @discardableResult
    func clone(from source: String, to destination: GroupName, topic: TopicName) -> [Int32] {
        guard let offsets = find(topic.text, source)?.offsets else { return [] }
        table(topic: topic, group: destination).offsets = offsets
        isDirty = true
        return Array(offsets.keys)
    }

    /// - Returns: what `remove` is to take out.
    func forget(group: String) -> [Table] { forget(byGroup.removeValue(forKey: group)) }

    /// The topic was deleted (RocketMQ 5's `cleanOffsetByTopic`; 4.9 keeps the offsets). A new one of its name begins
    /// at offset 0, and no group may skip its first messages.
    /// - Returns: what `remove` is to take out.
    func forget(topic: String) -> [Table] { forget(byTopic.removeValue(forKey: topic)) }

    /// Of all groups that have committed in the topic, in no order.
    func tables(of topic: String) -> [Table] { (byTopic[topic] ?? [:]).values.filter { !$0.isGone } }

    // MARK: - config/consumerOffset.json

    /// What the file and GET_ALL_CONSUMER_OFFSET hold.
    var json: JSONValue { Self.json(tables.values.map(Self.copy)) }

    /// As `json`; any thread.
    static func json(_ copies: [Copy?]) -> JSONValue {
        var all = JSONObject()
        all.members.reserveCapacity(copies.count)
        for case let table? in copies {
            var queues = JSONObject()
            for (queueID, offset) in table.offsets.sorted(by: { $0.key < $1.key }) {
                queues.append(rawKey: String(queueID), .integer(offset))
            }
            all.append(table.key, .object(queues))
        }
        return .fields([("offsetTable", .object(all))])
    }

    /// `nil` for what is on its way out.
    static func copy(_ table: Table) -> Copy? {
        table.isGone ? nil : Copy(key: table.topic + separator + table.group, offsets: table.offsets)
    }

    func markChanged() { isDirty = true }

    func markWritten() { isDirty = false }

    /// Takes the whole table over at the start.
    /// - Returns: the entries that are none, which are left out.
    /// - Throws: it is no such table; then nothing has changed.
    func load(_ json: JSONValue) throws(TableError) -> [RefusedEntry] {
        let read = try Self.read(json)
        tables.removeAll()
        byTopic = [:]
        byGroup = [:]
        for entry in read.entries { set(entry) }
        isDirty = true
        return read.refused
    }

    /// Takes over what a table holds of one group and topic.
    func set(_ entry: Entry) {
        (find(entry.topic.text, entry.group.text) ?? make(entry.topic, entry.group)).offsets = entry.offsets
    }

    /// Any thread.
    /// - Throws: it is no such table.
    static func read(_ json: JSONValue) throws(TableError) -> Entries {
        var queues: [RefusedEntry] = []
        let read = try TableEntries<Entry>(json, "offsetTable") { try entry($0, &queues) }
        return Entries(entries: read.entries, refused: read.refused + queues, keys: Set(read.entries.map(\.key)))
    }

    static func entry(_ member: JSONObject.Member, _ refused: inout [RefusedEntry]) throws -> Entry {
        guard let at = member.key.firstIndex(of: "@"), let queues = member.value.object else {
            throw TableError("it is not topic@group with queues and offsets")
        }
        var entry = Entry(
            topic: try TopicName(existing: String(member.key[..<at])),
            group: try GroupName(existing: String(member.key[member.key.index(after: at)...])))
        for queue in queues.members {
            if let queueID = Int32(queue.key), queueID >= 0, let offset = queue.value.integer, bounds.contains(offset) {
                entry.offsets[queueID] = offset
            } else {
                refused.append(
                    RefusedEntry(
                        key: "\(member.key) queue \(queue.key)", value: queue.value,
                        reason: "no queue has this number, or none this offset"))
            }
        }
        return entry
    }
}
