import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// A topic a pop reads: the one it names, or one in which RocketMQ has stored copies of popped messages for the group.
struct PopSource {
    let kind: PopTopicKind
    let topic: TopicEntry
}

/// Retry topics of RocketMQ's popping groups, where they exist. RocketMQ stores a copy in one of them when a message
/// was not acknowledged in time. Apus never does, but a store taken over may hold some. Confined to the broker's event
/// loop.
final class PopRetryTopics {
    /// Pairs of group and topic that are remembered; with more it begins anew.
    static let rememberedMax = 16_384

    private struct Key: Hashable {
        let group: String
        let topic: String
    }

    private let topics: TopicConfigManager
    private let groups: SubscriptionGroupManager
    private var known: [Key: [PopSource]] = [:]
    /// Of `TopicConfigManager.changes`, when `known` was right.
    private var changes: Int64 = -1

    init(_ tables: BrokerTables) {
        topics = tables.topics
        groups = tables.groups
    }

    /// Where copies of a topic's messages may lie for a group; empty nearly always.
    func sources(group: SubscriptionGroupEntry, topic: TopicEntry) -> [PopSource] {
        guard !topic.isRetryTopic else { return [] }
        if changes != topics.changes || known.count >= Self.rememberedMax {
            known.removeAll(keepingCapacity: true)
            changes = topics.changes
        }
        let key = Key(group: group.name, topic: topic.name)
        if let sources = known[key] { return sources }
        let sources = [PopTopicKind.retryV1, .retryV2].compactMap { kind -> PopSource? in
            topics[kind.topic(of: topic.name, group: group.name)].map { PopSource(kind: kind, topic: $0) }
        }
        known[key] = sources
        return sources
    }

    /// The topic whose messages a retry topic holds for a group; nil when it is none of that group's.
    static func origin(of topic: String, group: String) -> String? {
        for kind in [PopTopicKind.retryV1, .retryV2] {
            let prefix = kind.topic(of: "", group: group)
            if topic.hasPrefix(prefix), topic.utf8.count > prefix.utf8.count {
                return String(topic.dropFirst(prefix.count))
            }
        }
        return nil
    }

    /// Whether the retry topic of popped messages is that of another group's pulled ones, too. `%RETRY%a_b` is that of
    /// group a for topic b, and that of group a_b.
    func isShared(_ source: PopSource) -> Bool {
        source.kind == .retryV1 && groups[String(source.topic.name.dropFirst(TopicName.retryPrefix.count))] != nil
    }
}

/// A record of a retry topic as a popping client gets it.
enum PopCopy {
    /// The record under the topic the client has asked for, and with its handle. Clients make the handles of all others
    /// themselves, and the topic of this one is not theirs.
    /// - Parameter attempts: deliveries by this broker before this one.
    static func record(
        _ record: CommitLogRecordView, topic: [UInt8], handle: PopHandle, attempts: Int32
    ) -> [UInt8] {
        var list = PropertyList(record.properties)
        list[PropertyName.popHandle] = handle.text
        let properties = list.bytes
        var bytes: [UInt8] = []
        // As it is, where the handle has no room: clients make one of the name of the retry topic.
        let fits = properties.count <= Int(Int16.max) && topic.count <= Int(Int8.max)
        if fits, let start = record.bytes.baseAddress, let body = record.body.baseAddress {
            let end = body - start + record.body.count
            bytes.reserveCapacity(end + 3 + topic.count + properties.count)
            bytes += record.bytes[..<end]
            bytes.append(UInt8(topic.count))
            bytes += topic
            bytes += [UInt8(properties.count >> 8), UInt8(properties.count & 0xFF)]
            bytes += properties
            put(Int32(bytes.count), at: 0, in: &bytes)
            put(CommitLogRecord.magicV1, at: CommitLogRecord.magicPosition, in: &bytes)
        } else {
            bytes += record.bytes
        }
        put(record.reconsumeTimes +| attempts, at: record.reconsumeTimesPosition, in: &bytes)
        return bytes
    }

    private static func put(_ value: Int32, at place: Int, in bytes: inout [UInt8]) {
        bytes.withUnsafeMutableBytes { $0.storeBytes(of: value.bigEndian, toByteOffset: place, as: Int32.self) }
    }
}
