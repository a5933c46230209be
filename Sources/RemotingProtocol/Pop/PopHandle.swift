import MessageModel

/// Names one delivery of one message to a popping consumer: property `POP_CK` of the message, field `extraInfo` of its
/// acknowledgement. RocketMQ's `ExtraInfoUtil`: eight parts with a blank between,
///
///     start offset, pop time, invisible time, revive queue, kind of topic, broker name, queue, queue offset
///
/// and for gRPC a ninth, the physical offset. Offsets count messages of the queue, times are milliseconds.
package struct PopHandle: Equatable, Sendable {
    /// The revive queue that marks handles of ordered groups.
    package static let orderedReviveQueue: Int64 = 999

    /// The first offset the same pop took from the queue.
    package var startOffset: Int64
    /// When it was handed out, milliseconds since 1970.
    package var popTime: Int64
    /// For how long no other client gets it, from `popTime` on.
    package var invisibleTime: Int64
    /// Queue of RocketMQ's revive topic; `orderedReviveQueue` for ordered groups.
    package var reviveQueue: Int64
    /// Which of the group's topics the message lies in.
    package var kind: PopTopicKind
    /// Of the broker the message was popped from.
    package var brokerName: String
    /// From 0, in the topic that `kind` says.
    package var queueID: Int32
    /// Of the message itself.
    package var queueOffset: Int64

    /// The handle with these parts.
    package init(
        startOffset: Int64, popTime: Int64, invisibleTime: Int64, reviveQueue: Int64, kind: PopTopicKind,
        brokerName: String, queueID: Int32, queueOffset: Int64
    ) {
        self.startOffset = startOffset
        self.popTime = popTime
        self.invisibleTime = invisibleTime
        self.reviveQueue = reviveQueue
        self.kind = kind
        self.brokerName = brokerName
        self.queueID = queueID
        self.queueOffset = queueOffset
    }

    /// nil when it is none: fewer than eight parts, or a number that is none.
    package init?(_ text: UnsafeRawBufferPointer) {
        var parts = PartsOfText(text)
        guard let start = parts.number(), let popTime = parts.number(), let invisible = parts.number(),
            let revive = parts.number(), let kind = parts.next().flatMap(PopTopicKind.init),
            let broker = parts.next(), let queue = parts.number().flatMap(Int32.init(exactly:)),
            let offset = parts.number()
        else { return nil }
        self.init(
            startOffset: start, popTime: popTime, invisibleTime: invisible, reviveQueue: revive, kind: kind,
            brokerName: String(decoding: broker, as: UTF8.self), queueID: queue, queueOffset: offset)
    }

    /// As above.
    package init?(_ text: String) {
        guard let handle = Array(text.utf8).withUnsafeBytes({ PopHandle($0) }) else { return nil }
        self = handle
    }

    /// The eight parts, which `init(_:)` reads.
    package var text: String {
        "\(startOffset) \(popTime) \(invisibleTime) \(reviveQueue) \(kind.rawValue) \(brokerName) \(queueID) "
            + "\(queueOffset)"
    }
}

/// Which of a group's topics a popped message lies in. Its raw value is the first part of the three strings of an
/// answer, and the fifth of a handle.
package enum PopTopicKind: String, Sendable {
    case normal = "0"
    /// `%RETRY%group_topic`.
    case retryV1 = "1"
    /// `%RETRY%group+topic`.
    case retryV2 = "2"

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == 1 else { return nil }
        switch bytes[0] {
        case UInt8(ascii: "0"): self = .normal
        case UInt8(ascii: "1"): self = .retryV1
        case UInt8(ascii: "2"): self = .retryV2
        default: return nil
        }
    }

    /// The topic that messages of `topic` given back by `group` are read from.
    package func topic(of topic: String, group: String) -> String {
        switch self {
        case .normal: topic
        case .retryV1: TopicName.retryPrefix + group + "_" + topic
        case .retryV2: TopicName.retryPrefix + group + "+" + topic
        }
    }
}

/// The parts of a text with one blank between each two.
private struct PartsOfText {
    private var rest: UnsafeRawBufferPointer.SubSequence?

    init(_ text: UnsafeRawBufferPointer) { rest = text[...] }

    mutating func next() -> UnsafeRawBufferPointer? {
        guard let text = rest else { return nil }
        let blank = text.firstIndex(of: UInt8(ascii: " "))
        rest = blank.map { text[text.index(after: $0)...] }
        return UnsafeRawBufferPointer(rebasing: text[..<(blank ?? text.endIndex)])
    }

    mutating func number() -> Int64? { next()?.decimal }
}
