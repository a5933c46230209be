package import FastJSON
import MessageModel

/// BATCH_ACK_MESSAGE (200151): acknowledgements of several pops.
package struct BatchAckBody {
    /// Those of one pop of one queue. Keys on the wire have one letter each.
    package struct Entry: Equatable {
        /// `c` on the wire.
        package let group: String
        /// As the pop named it; `t` on the wire.
        package let topic: String
        /// Which of the group's topics the messages lie in; `r` on the wire.
        package let kind: PopTopicKind
        /// Queue offset of the first message the pop took; `so` on the wire.
        package let startOffset: Int64
        /// `q` on the wire; -1 when it is missing.
        package let queueID: Int32
        /// Milliseconds since 1970; `pt` on the wire.
        package let popTime: Int64
        /// `PopHandle.reviveQueue`; `rq` on the wire.
        package let reviveQueue: Int64
        /// Milliseconds from `popTime` on; `it` on the wire.
        package let invisibleTime: Int64
        /// Offsets after `startOffset`, a bit each; the lowest bit of the first byte is `startOffset` itself.
        package let bits: [UInt8]

        init(
            group: String, topic: String, kind: PopTopicKind, startOffset: Int64, queueID: Int32, popTime: Int64,
            reviveQueue: Int64, invisibleTime: Int64, bits: [UInt8]
        ) {
            self.group = group
            self.topic = topic
            self.kind = kind
            self.startOffset = startOffset
            self.queueID = queueID
            self.popTime = popTime
            self.reviveQueue = reviveQueue
            self.invisibleTime = invisibleTime
            self.bits = bits
        }

        /// Messages of one pop of one queue.
        ///
        /// - Parameters:
        ///   - topic: as the pop named it, also for copies in a retry topic.
        ///   - handle: that of any of the messages.
        ///   - offsets: each `handle.startOffset` or behind it, by less than `offsetsMax`.
        package init(group: String, topic: String, handle: PopHandle, offsets: some Sequence<Int64>) {
            var bits: [UInt8] = []
            for offset in offsets {
                let index = Int(offset - handle.startOffset)
                precondition(0..<BatchAckBody.offsetsMax ~= index, "offset \(offset) has no bit")
                if bits.count <= index / 8 {
                    bits += repeatElement(0, count: index / 8 + 1 - bits.count)
                }
                bits[index / 8] |= 1 << UInt8(index % 8)
            }
            self.init(
                group: group, topic: topic, kind: handle.kind, startOffset: handle.startOffset,
                queueID: handle.queueID, popTime: handle.popTime, reviveQueue: handle.reviveQueue,
                invisibleTime: handle.invisibleTime, bits: bits)
        }

        fileprivate var json: JSONValue {
            .fields([
                ("b", .string(Base64.standard.encode(bits))), ("c", .string(group)), ("it", .integer(invisibleTime)),
                ("pt", .integer(popTime)), ("q", .integer(queueID)), ("r", .string(kind.rawValue)),
                ("rq", .integer(reviveQueue)), ("so", .integer(startOffset)), ("t", .string(topic)),
            ])
        }
    }

    /// Bytes of a bit set, at most: as many messages as a pop may bring, far apart.
    package static let bitBytesMax = 8192
    /// Offsets an entry can name, from its start offset on.
    package static let offsetsMax = bitBytesMax * 8

    /// `acks` on the wire, in its order.
    package let entries: [Entry]

    /// A body to be sent to the broker of this name.
    package static func encoded(_ entries: [Entry], brokerName: String) -> [UInt8] {
        JSONValue.fields([("acks", .array(entries.map(\.json))), ("brokerName", .string(brokerName))]).bytes()
    }

    /// - Throws: it is no such body.
    package init(_ body: UnsafeRawBufferPointer) throws(RemotingDecodeError) {
        if let entries = BatchAckScanner.entries(body) {
            self.init(entries: entries)
        } else {
            try self.init(anyJSON: body)
        }
    }

    /// In any form that JSON allows.
    init(anyJSON body: UnsafeRawBufferPointer) throws(RemotingDecodeError) {
        let json: JSONValue
        do {
            json = try JSONValue(parsing: body)
        } catch {
            throw .badBody(error.description)
        }
        var entries: [Entry] = []
        for entry in try (json["acks"] ?? .null).elements("acks") {
            guard let kind = PopTopicKind(rawValue: entry["r"]?.string ?? "0") else {
                throw .badBody("r of an acknowledgement is none of 0, 1, 2")
            }
            guard let bits = Base64.standard.decode(try entry.text("b").utf8), bits.count <= Self.bitBytesMax else {
                throw .badBody("b of an acknowledgement is not base 64 of at most \(Self.bitBytesMax) bytes")
            }
            entries.append(
                Entry(
                    group: try entry.text("c"), topic: try entry.text("t"), kind: kind,
                    startOffset: try entry.int64("so", default: 0), queueID: try entry.int32("q", default: -1),
                    popTime: try entry.int64("pt", default: 0), reviveQueue: try entry.int64("rq", default: 0),
                    invisibleTime: try entry.int64("it", default: 0), bits: bits))
        }
        self.init(entries: entries)
    }

    private init(entries: [Entry]) { self.entries = entries }
}

/// QUERY_ASSIGNMENT (400): which queues of a topic a member of a group is to read, and how.
package struct QueryAssignmentRequestBody: JSONBody {
    /// Not checked yet.
    package let topic: String
    /// Not checked yet.
    package let consumerGroup: String
    /// The member that asks; `clientId` on the wire.
    package let clientID: String
    /// `AVG` or `AVG_BY_CIRCLE`.
    package let strategyName: String
    /// `CLUSTERING` or `BROADCASTING`.
    package let messageModel: String

    package init(json: JSONValue) throws(RemotingDecodeError) {
        topic = try json.text("topic")
        consumerGroup = try json.text("consumerGroup")
        clientID = try json.text("clientId")
        strategyName = json["strategyName"]?.string ?? "AVG"
        messageModel = json["messageModel"]?.string ?? "CLUSTERING"
    }

    package var json: JSONValue {
        .fields([
            ("clientId", .string(clientID)), ("consumerGroup", .string(consumerGroup)),
            ("messageModel", .string(messageModel)), ("strategyName", .string(strategyName)),
            ("topic", .string(topic)),
        ])
    }
}

/// How members of a group get the messages of a topic.
package enum MessageRequestMode: String, Sendable {
    case pull = "PULL"
    case pop = "POP"
}

/// SET_MESSAGE_REQUEST_MODE (401).
package struct SetMessageRequestModeBody: JSONBody {
    /// Not checked yet.
    package var topic: String
    /// Not checked yet.
    package var consumerGroup: String
    /// `PULL` when the request has none.
    package var mode: MessageRequestMode
    /// Queues of other members a popping one reads besides its own; not positive: all of them.
    package var popShareQueueNum: Int32

    /// The mode of a group in a topic.
    package init(topic: String, consumerGroup: String, mode: MessageRequestMode, popShareQueueNum: Int32) {
        self.topic = topic
        self.consumerGroup = consumerGroup
        self.mode = mode
        self.popShareQueueNum = popShareQueueNum
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        topic = try json.text("topic")
        consumerGroup = try json.text("consumerGroup")
        guard let mode = MessageRequestMode(rawValue: json["mode"]?.string ?? "PULL") else {
            throw .badBody("mode is neither PULL nor POP")
        }
        self.mode = mode
        popShareQueueNum = try json.int32("popShareQueueNum", default: 0)
    }

    package var json: JSONValue {
        .fields([
            ("consumerGroup", .string(consumerGroup)), ("mode", .string(mode.rawValue)),
            ("popShareQueueNum", .integer(popShareQueueNum)), ("topic", .string(topic)),
        ])
    }
}
