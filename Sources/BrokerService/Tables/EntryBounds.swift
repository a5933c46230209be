import FastJSON
import RemotingProtocol

/// What one entry of the tables of topics and groups may hold besides its numbers. The whole table is written for each
/// change and read by each start. An entry is one request and must not make the table too deep or too large for that.
enum EntryBounds {
    /// Bytes of a group's fields of later versions, as the file has them, and of a topic's attributes.
    static let bytesMax = 16 << 10
    /// The same of an entry from disk or from a master: RocketMQ has no bound, and what is there is not lost.
    static let keptBytesMax = 1 << 20
    /// Arrays and objects in each other in those fields. RocketMQ 5 has 3.
    static let depthMax = 16
    /// Bytes of a topic's filter type; RocketMQ's are `SINGLE_TAG` and `MULTI_TAG`.
    static let filterTypeMax = 64
}

extension SubscriptionGroupConfig {
    /// What is wrong with its fields of later versions; nil: nothing.
    func problem(bytesMax: Int = EntryBounds.bytesMax) -> String? {
        guard !otherFields.isEmpty else { return nil }
        let json = JSONValue.object(JSONObject(members: otherFields))
        let depth = json.depth - 1
        guard depth <= EntryBounds.depthMax else {
            return
                "fields this broker does not know nest \(depth) deep, at most \(EntryBounds.depthMax): leave them out"
        }
        let bytes = json.bytes(.pretty).count
        guard bytes <= bytesMax else {
            return
                "fields this broker does not know have \(bytes) bytes, at most \(bytesMax): leave them out"
        }
        return nil
    }
}

extension TopicConfig {
    /// What is wrong with its texts; nil: nothing.
    func problem(bytesMax: Int = EntryBounds.bytesMax) -> String? {
        let type = topicFilterType.utf8.count
        guard type <= EntryBounds.filterTypeMax else {
            return "topicFilterType has \(type) bytes: it is SINGLE_TAG or MULTI_TAG"
        }
        let bytes = (attributes ?? [:]).reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count }
        guard bytes <= bytesMax else {
            return "the attributes have \(bytes) bytes, at most \(bytesMax): leave some out"
        }
        return nil
    }
}
