import MessageModel
import RemotingProtocol

/// A message to be sent.
public struct Message: Sendable, Hashable {
    /// When consumers get a message.
    public enum Delivery: Sendable, Hashable {
        /// As soon as it is stored.
        case immediate
        /// After the time of one of the broker's delay levels: 1 and up, 1 s to 2 h by default.
        case delayLevel(Int)
        /// So long after the broker stored it, to the millisecond. Needs a broker with timer messages (Apus, RocketMQ
        /// 5).
        case after(Duration)
        /// At a time, milliseconds since 1970. Needs a broker with timer messages.
        case at(milliseconds: Int64)
    }

    /// The topic.
    public var topic: String
    /// The content; brokers take 4 MiB unless configured otherwise.
    public var body: [UInt8]
    /// What consumers select by; at most one.
    public var tag: String?
    /// What operators find messages by.
    public var keys: [String]
    /// Further properties. Names and values must not contain U+0001 or U+0002; SQL92 expressions read them.
    public var properties: [String: String]
    /// When consumers get it.
    public var delivery: Delivery

    /// A message; nothing is checked before it is sent.
    public init(
        topic: String, body: [UInt8], tag: String? = nil, keys: [String] = [], properties: [String: String] = [:],
        delivery: Delivery = .immediate
    ) {
        self.topic = topic
        self.body = body
        self.tag = tag
        self.keys = keys
        self.properties = properties
        self.delivery = delivery
    }

    /// A message whose body is text in UTF-8.
    public init(topic: String, text: String, tag: String? = nil, keys: [String] = []) {
        self.init(topic: topic, body: Array(text.utf8), tag: tag, keys: keys)
    }

    /// What must stay together: messages of one shard key go to the same queue (`Publisher`, `QueueSelector`). Where
    /// the topic's policy says so, they go to one consumer at a time, in order. Kept as RocketMQ's property
    /// `__SHARDINGKEY`.
    public var shardKey: String? {
        get { properties[WireNames.Property.shardingKey] }
        set { properties[WireNames.Property.shardingKey] = newValue }
    }

    /// All properties in the form of the log, with `NAME U+0001 VALUE` separated by U+0002.
    ///
    /// - Throws: `invalidArgument` for text that would break the form, and for delays out of bounds.
    func encodedProperties(id: String, more: [(String, String)] = []) throws(RocketMQClientError) -> String {
        guard !topic.isEmpty else { throw .invalidArgument("a message needs a topic") }
        var text = "\(PropertyName.uniqueKey)\u{1}\(id)\u{2}\(WireNames.Property.waitsForStore)\u{1}true"
        func append(_ name: String, _ value: String) throws(RocketMQClientError) {
            guard !name.isEmpty, !Self.breaksForm(name), !Self.breaksForm(value) else {
                throw .invalidArgument("property '\(name)' is empty or contains U+0001 or U+0002")
            }
            text += "\u{2}"
            text += name
            text += "\u{1}"
            text += value
        }
        if let tag { try append("\(PropertyName.tags)", tag) }
        if !keys.isEmpty { try append("\(PropertyName.keys)", keys.joined(separator: " ")) }
        if !properties.isEmpty {
            // The handle of a message that was popped names that one only.
            for (name, value) in properties.sorted(by: { $0.key < $1.key }) where name != WireNames.Property.popHandle {
                try append(name, value)
            }
        }
        switch delivery {
        case .immediate: break
        case .delayLevel(let level):
            guard 1...1024 ~= level else { throw .invalidArgument("delay level \(level) is not 1 or more") }
            try append(WireNames.Property.delayLevel, String(level))
        case .after(let delay):
            let (seconds, attoseconds) = delay.components
            let (milliseconds, overflow) = seconds.multipliedReportingOverflow(by: 1000)
            guard !overflow, milliseconds >= 0, attoseconds >= 0 else {
                throw .invalidArgument("a delay of \(delay) is out of bounds")
            }
            try append(WireNames.Property.timerDelay, String(milliseconds &+ attoseconds / 1_000_000_000_000_000))
        case .at(let milliseconds): try append(WireNames.Property.timerDelivery, String(milliseconds))
        }
        for (name, value) in more { try append(name, value) }
        return text
    }

    private static func breaksForm(_ text: String) -> Bool { text.utf8.contains { $0 == 1 || $0 == 2 } }
}

/// A message as a broker delivered it, its body decompressed.
public struct ReceivedMessage: Sendable, Hashable {
    /// The topic it was sent to. For a message that was sent back, `queue.topic` is the group's retry topic.
    public let topic: String
    /// The queue it lies in.
    public let queue: MessageQueue
    /// Its position in the queue.
    public let queueOffset: Int64
    /// The content.
    public let body: [UInt8]
    /// All properties.
    public let properties: [String: String]
    /// Milliseconds since 1970, by the producer's clock.
    public let bornTimestamp: Int64
    /// Milliseconds since 1970, by the broker's clock.
    public let storeTimestamp: Int64
    /// `address:port` of the producer.
    public var bornHost: String { born.text }
    /// `address:port` of the broker that stored it.
    public var storeHost: String { store.text }
    /// How often it was sent back before.
    public let reconsumeTimes: Int
    /// Its byte position in the broker's log.
    public let commitLogOffset: Int64
    /// RocketMQ's system flag; bit 0, a compressed body, is cleared.
    public let systemFlag: Int32
    /// The producer's flag.
    public let flag: Int32
    /// Bytes of its record in the log.
    public let storedBytes: Int
    /// CRC-32 of the body as it was stored.
    public let bodyChecksum: Int32
    /// Where the prepared message of its transaction lies; 0 without one.
    public let preparedTransactionOffset: Int64

    /// What consumers select by.
    public var tag: String? { properties["\(PropertyName.tags)"] }
    /// The keys as they were written, separated by blanks.
    public var keys: String? { properties["\(PropertyName.keys)"] }
    /// The ID the producer made; nil when it made none.
    public var uniqueID: String? { properties["\(PropertyName.uniqueKey)"] }
    /// The ID the producer made, else `offsetMessageID`.
    public var messageID: String { uniqueID ?? offsetMessageID }
    /// The ID of its position: broker address and log offset in hexadecimal digits.
    public var offsetMessageID: String { OffsetMessageID.text(host: store, physicalOffset: commitLogOffset) }
    private let born: HostAddress
    private let store: HostAddress
    /// The body as text; what is not UTF-8 becomes U+FFFD.
    public var text: String { String(decoding: body, as: UTF8.self) }

    /// A message that no broker stored: hosts, log offset and CRC are 0.
    package init(
        topic: String, queue: MessageQueue, queueOffset: Int64 = 0, body: [UInt8], properties: [String: String] = [:],
        bornTimestamp: Int64 = 0, storeTimestamp: Int64 = 0, reconsumeTimes: Int = 0
    ) {
        var message = MessageExt()
        message.topic = topic
        message.body = body
        message.properties = properties
        message.queueOffset = queueOffset
        message.bornTimestamp = bornTimestamp
        message.storeTimestamp = storeTimestamp
        message.reconsumeTimes = Int32(clamping: reconsumeTimes)
        message.queueID = Int32(clamping: queue.queueID)
        self.init(message, brokerName: queue.brokerName)
    }

    init(_ message: MessageExt, brokerName: String) {
        topic = message.properties[WireNames.Property.retryTopic] ?? message.topic
        queue = MessageQueue(topic: message.topic, brokerName: brokerName, queueID: Int(message.queueID))
        queueOffset = message.queueOffset
        body = message.body
        properties = message.properties
        bornTimestamp = message.bornTimestamp
        storeTimestamp = message.storeTimestamp
        born = message.bornHost
        store = message.storeHost
        reconsumeTimes = Int(message.reconsumeTimes)
        commitLogOffset = message.physicalOffset
        systemFlag = message.sysFlag
        flag = message.flag
        storedBytes = Int(message.storeSize)
        bodyChecksum = message.bodyCRC
        preparedTransactionOffset = message.preparedTransactionOffset
    }

    /// Bodies of one answer may inflate to so many bytes together.
    private static let inflatedBytesMax = 256 << 20

    /// The records of a pull's answer, in order.
    ///
    /// - Throws: `malformedAnswer` for bytes that are no messages, bodies compressed otherwise than by zlib, and bodies
    ///   that inflate to more than 256 MiB together.
    package static func decode(
        _ bytes: [UInt8], brokerName: String
    ) throws(RocketMQClientError) -> [ReceivedMessage] {
        let result = bytes.withUnsafeBytes { buffer in
            Result { () throws(RocketMQClientError) in try decode(buffer, brokerName: brokerName) }
        }
        return try result.get()
    }

    private static func decode(
        _ bytes: UnsafeRawBufferPointer, brokerName: String
    ) throws(RocketMQClientError) -> [ReceivedMessage] {
        func malformed(_ reason: String) -> RocketMQClientError {
            .malformedAnswer(address: "broker \(brokerName)", reason: reason)
        }
        var messages: [ReceivedMessage] = []
        var offset = 0
        var inflated = 0
        while offset < bytes.count {
            let left = bytes.count - offset
            let size =
                left < 8 ? 0 : Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
            guard size >= 8, size <= left else {
                throw malformed("the bytes at \(offset) of \(bytes.count) are no message")
            }
            let message: MessageExt
            do {
                message = try MessageExt(record: UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + size)]))
            } catch {
                throw malformed("the bytes at \(offset) of \(bytes.count) are no message: \(error)")
            }
            guard message.sysFlag & MessageExt.compressedFlag == 0 else {
                throw malformed(
                    "the body of queue \(message.queueID) offset \(message.queueOffset) is compressed in a way "
                        + "this client cannot read (only zlib)")
            }
            inflated += message.body.count
            guard inflated <= inflatedBytesMax else {
                throw malformed("the bodies of one answer inflate to more than \(inflatedBytesMax >> 20) MiB")
            }
            messages.append(ReceivedMessage(message, brokerName: brokerName))
            offset += size
        }
        return messages
    }
}
