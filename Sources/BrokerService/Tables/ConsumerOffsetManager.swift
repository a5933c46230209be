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

        init(_ topic: TopicName, _ group: GroupName) {
            self.topic = topic.text
            self.group = group.text
        }
    }

    /// One group's offsets in one topic, for a text that another thread makes.
    struct Copy: Sendable {
        let key: String
        let offsets: [Int32: Int64]
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

    init() { scratch.reserveCapacity(512) }

    /// Pairs of topic and group.
    var count: Int { tables.count }

    func find(_ topic: UnsafeRawBufferPointer, _ group: UnsafeRawBufferPointer) -> Table? {
        scratch.removeAll(keepingCapacity: true)
        scratch.append(contentsOf: topic)
        scratch.append(UInt8(ascii: "@"))
        scratch.append(contentsOf: group)
        return scratch.withUnsafeBytes { tables[$0] }
    }

    private func find(_ topic: String, _ group: String) -> Table? { tables[topic + Self.separator + group] }

    private func insert(_ table: Table) {
        tables[table.topic + Self.separator + table.group] = table
        byTopic[table.topic, default: [:]][table.group] = table
        byGroup[table.group, default: [:]][table.topic] = table
    }

    private func remove(topic: String, group: String) {
        tables[topic + Self.separator + group] = nil
        byTopic[topic]?[group] = nil
        if byTopic[topic]?.isEmpty == true { byTopic[topic] = nil }
        byGroup[group]?[topic] = nil
        if byGroup[group]?.isEmpty == true { byGroup[group] = nil }
    }

    /// Takes what the consumer says, also an offset smaller than the stored one: a reset does exactly that. An offset outside
    /// of `bounds` becomes the nearest inside; `queueId` is not negative.
    func commit(topic: TopicName, group: GroupName, queueId: Int32, offset: Int64) {
        commit(find(topic.text, group.text) ?? make(topic, group), queueId, offset)
    }

    func commit(_ table: Table, _ queueId: Int32, _ offset: Int64) {
        precondition(queueId >= 0, "queues are numbered from 0")
        table.offsets[queueId] = min(max(offset, Self.bounds.lowerBound), Self.bounds.upperBound)
        isDirty = true
    }

    func make(_ topic: TopicName, _ group: GroupName) -> Table {
        let table = Table(topic, group)
        insert(table)
        return table
    }

    /// The committed offset, or `nil` for a group that never committed in this queue.
    func offset(topic: String, group: String, queueId: Int32) -> Int64? {
        find(topic, group)?.offsets[queueId]
    }

    func offsets(topic: String, group: String) -> [Int32: Int64]? { find(topic, group)?.offsets }

    /// In the order of the alphabet; so is the next.
    func topics(of group: String) -> [String] { byGroup[group]?.keys.sorted() ?? [] }

    func groups(of topic: String) -> [String] { byTopic[topic]?.keys.sorted() ?? [] }

    func clone(from source: String, to destination: GroupName, topic: TopicName) {
        guard let table = find(topic.text, source) else { return }
        make(topic, destination).offsets = table.offsets
        isDirty = true
    }

    func remove(group: String) {
        for topic in topics(of: group) { remove(topic: topic, group: group) }
        isDirty = true
    }

    /// The topic is gone: a new one of its name begins at offset 0, and nobody must skip its first messages (RocketMQ 5's
    /// `cleanOffsetByTopic`; 4.9 keeps the offsets).
    func remove(topic: String) {
        for group in groups(of: topic) { remove(topic: topic, group: group) }
        isDirty = true
    }

    /// The smallest offset of each queue over all groups but the filtered ones. An offset below the queue's begin does not count.
    func minimumOffsets(
        topic: String, excluding groups: Set<String>, begin: (_ queueId: Int32) -> Int64
    ) -> [Int32: Int64] {
        var result: [Int32: Int64] = [:]
        for (group, table) in byTopic[topic] ?? [:] where !groups.contains(group) {
            result.merge(table.offsets.filter { $0.value >= begin($0.key) }, uniquingKeysWith: min)
        }
        return result
    }

    // MARK: config/consumerOffset.json

    /// What the file and GET_ALL_CONSUMER_OFFSET hold.
    var json: JSONValue { Self.json(tables.values.map(Self.copy)) }

    /// As `json`; any thread.
    static func json(_ copies: [Copy]) -> JSONValue {
        var all = JSONObject()
        all.members.reserveCapacity(copies.count)
        for table in copies {
            var queues = JSONObject()
            for (queueId, offset) in table.offsets.sorted(by: { $0.key < $1.key }) {
                queues.append(rawKey: String(queueId), .integer(offset))
            }
            all.append(table.key, .object(queues))
        }
        return .fields([("offsetTable", .object(all))])
    }

    static func copy(_ table: Table) -> Copy {
        Copy(key: table.topic + separator + table.group, offsets: table.offsets)
    }

    func markWritten() { isDirty = false }

    /// Replaces the whole table, as a slave does with its master's.
    /// - Returns: the entries that are none, which are left out: whole ones, and single queues of others.
    /// - Throws: it is no such table; then nothing has changed.
    func load(_ json: JSONValue) throws(TableError) -> [RefusedEntry] {
        var queues: [RefusedEntry] = []
        let read = try TableEntries<Table>(json, "offsetTable") { try Self.entry($0, &queues) }
        tables.removeAll()
        byTopic = [:]
        byGroup = [:]
        for table in read.entries { insert(table) }
        isDirty = true
        return read.refused + queues
    }

    static func entry(_ member: JSONObject.Member, _ refused: inout [RefusedEntry]) throws -> Table {
        guard let at = member.key.firstIndex(of: "@"), let queues = member.value.object else {
            throw TableError("it is not topic@group with queues and offsets")
        }
        let table = Table(
            try TopicName(existing: String(member.key[..<at])),
            try GroupName(existing: String(member.key[member.key.index(after: at)...])))
        for queue in queues.members {
            if let queueId = Int32(queue.key), queueId >= 0, let offset = queue.value.integer, bounds.contains(offset) {
                table.offsets[queueId] = offset
            } else {
                refused.append(
                    RefusedEntry(
                        key: "\(member.key) queue \(queue.key)", value: queue.value,
                        reason: "no queue has this number, or none this offset"))
            }
        }
        return table
    }
}
