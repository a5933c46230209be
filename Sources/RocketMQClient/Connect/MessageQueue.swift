/// One queue of a topic on one broker. Queues sort as RocketMQ's clients sort them: topic, broker name, queue ID.
public struct MessageQueue: Hashable, Comparable, CustomStringConvertible, Sendable {
    /// The topic.
    public let topic: String
    /// The broker's name, which its master and its slaves share.
    public let brokerName: String
    /// 0 and up.
    public let queueID: Int

    /// A queue by its three names. Nothing is asked of a server.
    public init(topic: String, brokerName: String, queueID: Int) {
        self.topic = topic
        self.brokerName = brokerName
        self.queueID = queueID
    }

    /// By topic, broker name and queue ID.
    public static func < (left: MessageQueue, right: MessageQueue) -> Bool {
        (left.topic, left.brokerName, left.queueID) < (right.topic, right.brokerName, right.queueID)
    }

    /// `TOPIC BROKER/ID`
    public var description: String { "\(topic) \(brokerName)/\(queueID)" }
}

/// How the members of a consumer group share queues.
public enum QueueAllocation {
    /// The share of one member (`AllocateMessageQueueAveragely`). Each member of the sorted group takes a contiguous
    /// range of the sorted queues; the first `queues % members` members take one queue more.
    ///
    /// - Returns: the share in order; empty when `member` is not among `members`.
    public static func averagely(
        _ queues: [MessageQueue], among members: [String], for member: String
    ) -> [MessageQueue] {
        let members = members.sorted()
        let queues = queues.sorted()
        guard let index = members.firstIndex(of: member), !queues.isEmpty else { return [] }
        let remainder = queues.count % members.count
        let hasMore = remainder > 0 && index < remainder
        let size = queues.count <= members.count ? 1 : queues.count / members.count + (hasMore ? 1 : 0)
        let start = hasMore ? index * size : index * size + remainder
        guard start < queues.count else { return [] }
        return Array(queues[start..<min(queues.count, start + size)])
    }
}

/// How a producer chooses one of a topic's writable queues.
public enum QueueSelector: Sendable {
    /// All queues in turn. After a failure queues of other brokers come first.
    case roundRobin
    /// The queues of this ID in turn, one on each broker.
    case queueID(Int)
    /// This queue only.
    case queue(MessageQueue)
    /// The same queue for the same key, as long as the topic's queues do not change (Java's
    /// `SelectMessageQueueByHash`). Messages of one key, sent one after the other, are consumed in that order by an
    /// ordered consumer.
    case orderingKey(String)
    /// The caller's choice. Gets the writable queues, sorted and never empty; the result is taken modulo their count.
    case custom(@Sendable ([MessageQueue]) -> Int)

    /// The queues a message may go to, of those that can be written; the first attempt goes to one of them.
    func candidates(_ queues: [MessageQueue]) -> [MessageQueue] {
        guard !queues.isEmpty else { return [] }
        switch self {
        case .roundRobin: return queues
        case .queueID(let id): return queues.filter { $0.queueID == id }
        case .queue(let queue): return queues.filter { $0 == queue }
        case .orderingKey(let key): return [queues[Self.index(javaHash(key), count: queues.count)]]
        case .custom(let choose):
            let index = choose(queues) % queues.count
            return [queues[index < 0 ? index + queues.count : index]]
        }
    }

    /// Java's `Math.abs(hash) % count`; `Int32.min` has no absolute value there and counts as 0.
    static func index(_ hash: Int32, count: Int) -> Int { hash == .min ? 0 : Int(abs(hash)) % count }
}

/// Java's `String.hashCode`: what brokers select tags by, and Java's producers queues.
func javaHash(_ text: String) -> Int32 {
    text.utf16.reduce(0) { $0 &* 31 &+ Int32($1) }
}
