import MessageModel
package import RemotingProtocol

/// POP_MESSAGE (200050).
package struct PopQuery: Sendable {
    /// The consumer group.
    package var group: String
    /// As the consumer subscribed it; the broker adds the retry topics.
    package var topic: String
    /// 1 to 32.
    package var messagesMax = 1
    /// How long no other client gets the messages, milliseconds.
    package var invisibleMilliseconds: Int64 = 60_000
    /// How long the broker may wait for a message.
    package var wait: Duration = .zero
    /// A group without offsets begins with the last message instead of the first.
    package var beginsAtEnd = false
    /// Tags with `||` between, `*` for all, or what `expressionType` says.
    package var expression = "*"
    /// `TAG`, `SQL92` or the type of a plugin.
    package var expressionType = "TAG"
    /// One message of a queue after the other.
    package var isOrdered = false
    /// The same for repetitions of one request whose answer was lost; ordered groups.
    package var attemptID: String?
    /// When it is sent by this machine's clock, milliseconds since 1970. RocketMQ counts `wait` from there, and answers
    /// POLLING_TIMEOUT at once when it was over 500 ms ago, which 0 always is. Brokers of Apus take 0 for "not known".
    package var bornTime: Int64 = 0

    package init(group: String, topic: String) {
        self.group = group
        self.topic = topic
    }

    /// Of any queue of the broker.
    package var command: RemotingCommand {
        var fields = [
            "consumerGroup": group, "topic": topic, "queueId": "-1", "maxMsgNums": String(messagesMax),
            "invisibleTime": String(invisibleMilliseconds), "pollTime": String(wait.milliseconds),
            "bornTime": String(bornTime), "initMode": beginsAtEnd ? "1" : "0", "expType": expressionType,
            "exp": expression, "order": String(isOrdered),
        ]
        if let attemptID { fields["attemptId"] = attemptID }
        return RemotingCommand(.popMessage, extFields: fields)
    }
}

/// A message as an answer to a pop brought it.
package struct PopDelivery: Sendable {
    /// As the broker sent it; may lie in a retry topic.
    package let message: ReceivedMessage
    /// Names this delivery in its acknowledgement.
    package let handle: PopHandle
    /// Deliveries to the group, this one included.
    package let attempt: Int

    /// The messages of an answer. Clients make the handles themselves, of the answer's strings; only copies that lie in
    /// a retry topic bring theirs along.
    ///
    /// - Throws: `malformedAnswer` for records that are none, and for strings that do not fit them.
    package static func decode(
        _ reply: RemotingCommand, group: String, brokerName: String, address: String
    ) throws(RocketMQClientError) -> [PopDelivery] {
        let strings = try decoded(address) { () throws(RemotingDecodeError) in try PopStrings(reply) }
        var deliveries: [PopDelivery] = []
        for message in try ReceivedMessage.decode(reply.body, brokerName: brokerName) {
            guard let handle = strings.handle(of: message, group: group) else {
                throw .malformedAnswer(
                    address: address,
                    reason: "startOffsetInfo '\(reply.extFields["startOffsetInfo"] ?? "")' does not name queue "
                        + "\(message.queue.queueID) of topic \(message.queue.topic)")
            }
            let before = max(message.reconsumeTimes, strings.deliveries(before: handle))
            deliveries.append(PopDelivery(message: message, handle: handle, attempt: max(0, min(before, 1 << 30)) + 1))
        }
        return deliveries
    }
}

/// The strings of an answer to a pop: parts separated by `;`, each of two numbers that name the queue and a value.
private struct PopStrings {
    private struct Key: Hashable {
        let kind: String
        let queue: String
    }

    private let popTime: Int64
    private let invisibleTime: Int64
    private let reviveQueue: Int64
    /// The first offset the pop has taken from a queue.
    private let starts: [Key: Int64]
    /// Deliveries before this one, of ordered groups; by queue, or by queue and offset (`qo0%17`).
    private let counts: [Key: Int64]

    init(_ reply: RemotingCommand) throws(RemotingDecodeError) {
        popTime = try reply.integer("popTime")
        invisibleTime = try reply.integer("invisibleTime")
        reviveQueue = try reply.integer("reviveQid")
        starts = Self.table(reply.extFields["startOffsetInfo"])
        counts = Self.table(reply.extFields["orderCountInfo"])
    }

    private static func table(_ text: String?) -> [Key: Int64] {
        var table: [Key: Int64] = [:]
        for part in (text ?? "").split(separator: ";") {
            let words = part.split(separator: " ")
            guard words.count == 3, let value = Int64(words[2]) else { continue }
            table[Key(kind: String(words[0]), queue: String(words[1]))] = value
        }
        return table
    }

    func handle(of message: ReceivedMessage, group: String) -> PopHandle? {
        if let own = Self.ownHandle(of: message) { return own }
        let kind: PopTopicKind
        if !message.queue.topic.hasPrefix(TopicName.retryPrefix) {
            kind = .normal
        } else if message.queue.topic.hasPrefix(PopTopicKind.retryV2.topic(of: "", group: group)) {
            kind = .retryV2
        } else {
            kind = .retryV1
        }
        guard let start = starts[Key(kind: kind.rawValue, queue: String(message.queue.queueID))] else { return nil }
        return PopHandle(
            startOffset: start, popTime: popTime, invisibleTime: invisibleTime, reviveQueue: reviveQueue, kind: kind,
            brokerName: message.queue.brokerName, queueID: Int32(clamping: message.queue.queueID),
            queueOffset: message.queueOffset)
    }

    /// RocketMQ's brokers write the handle into a copy that comes from a retry topic. Any other message may have one
    /// that its producer has copied from another message.
    private static func ownHandle(of message: ReceivedMessage) -> PopHandle? {
        guard let own = message.properties[WireNames.Property.popHandle].flatMap({ PopHandle($0) }),
            own.kind != .normal, own.brokerName == message.queue.brokerName,
            Int(own.queueID) == message.queue.queueID, own.queueOffset == message.queueOffset
        else { return nil }
        return own
    }

    func deliveries(before handle: PopHandle) -> Int {
        let kind = handle.kind.rawValue
        let count =
            counts[Key(kind: kind, queue: "qo\(handle.queueID)%\(handle.queueOffset)")]
            ?? counts[Key(kind: kind, queue: String(handle.queueID))]
        return Int(clamping: count ?? 0)
    }
}

/// A popped message as its acknowledgement names it.
package struct PopClaim: Sendable {
    /// The group that popped it.
    package let group: String
    /// As the pop named it.
    package let topic: String
    /// Each change of the invisible time makes a new one.
    package var handle: PopHandle

    package init(group: String, topic: String, handle: PopHandle) {
        self.group = group
        self.topic = topic
        self.handle = handle
    }

    private var fields: [String: String] {
        [
            "consumerGroup": group, "topic": handle.kind.topic(of: topic, group: group),
            "queueId": String(handle.queueID), "offset": String(handle.queueOffset), "extraInfo": handle.text,
        ]
    }

    /// ACK_MESSAGE (200051).
    package var acknowledgement: RemotingCommand { RemotingCommand(.ackMessage, extFields: fields) }

    /// CHANGE_MESSAGE_INVISIBLETIME (200053).
    ///
    /// - Parameters:
    ///   - milliseconds: when the message comes again, from now on; 0: at once; -1: it failed, and the topic's strategy
    ///     says when.
    ///   - reason: why it failed.
    package func change(to milliseconds: Int64, reason: String? = nil) -> RemotingCommand {
        var fields = fields
        fields["invisibleTime"] = String(milliseconds)
        fields["reason"] = reason
        return RemotingCommand(.changeMessageInvisibleTime, extFields: fields)
    }

    /// The handle after a change, from its answer; nil: the delivery was over, nothing was changed.
    package func handle(after reply: RemotingCommand) -> PopHandle? {
        guard let popTime = try? reply.integer("popTime"), let invisible = try? reply.integer("invisibleTime"),
            let revive = try? reply.integer("reviveQid")
        else { return nil }
        var changed = handle
        changed.startOffset = handle.queueOffset
        changed.popTime = popTime
        changed.invisibleTime = invisible
        changed.reviveQueue = revive
        return changed
    }

    /// Whether the broker says that a message that failed comes again by its topic's strategy, or is a dead letter.
    /// Then it has not taken -1 for a time.
    package static func isByStrategy(_ reply: RemotingCommand) -> Bool {
        ["strategy", "deadLetter"].contains { reply.extFields[$0] == "true" }
    }

    /// BATCH_ACK_MESSAGE (200151) for messages of one broker.
    package static func batch(_ claims: [PopClaim], brokerName: String) -> RemotingCommand {
        struct Pop: Hashable {
            let group: String
            let topic: String
            let kind: PopTopicKind
            let queueID: Int32
            let startOffset: Int64
            let popTime: Int64
        }
        var pops: [Pop: [PopHandle]] = [:]
        var order: [Pop] = []
        for claim in claims {
            let handle = claim.handle
            let pop = Pop(
                group: claim.group, topic: claim.topic, kind: handle.kind, queueID: handle.queueID,
                startOffset: handle.startOffset, popTime: handle.popTime)
            if pops[pop] == nil { order.append(pop) }
            pops[pop, default: []].append(handle)
        }
        let entries = order.compactMap { pop in
            pops[pop].flatMap { handles in
                handles.first.map { first in
                    BatchAckBody.Entry(
                        group: pop.group, topic: pop.topic, handle: first, offsets: handles.map(\.queueOffset))
                }
            }
        }
        return RemotingCommand(
            .batchAckMessage, body: BatchAckBody.encoded(entries, brokerName: brokerName))
    }

    /// Whether a batch can name it: its bit lies within bounds.
    package var fitsBatch: Bool {
        let (index, overflow) = handle.queueOffset.subtractingReportingOverflow(handle.startOffset)
        return !overflow && 0..<Int64(BatchAckBody.offsetsMax) ~= index
    }
}

/// RocketMQ's pauses before a popped message that failed comes again: of consumers whose broker does not know the
/// topic's own.
package enum PopRetryPause {
    private static let seconds: [Int64] = [
        10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
    ]

    /// Milliseconds. Attempts begin with 1.
    package static func milliseconds(afterAttempt attempt: Int) -> Int64 {
        seconds[min(max(attempt, 1), seconds.count) - 1] * 1000
    }
}
