import MessageModel
import RemotingProtocol
import StoreFormat

/// What the broker must know of a prepared message, read from its record in `RMQ_SYS_TRANS_HALF_TOPIC`.
struct HalfMessage: Equatable {
    /// What no producer may set.
    static let brokersOwn = [
        PropertyName.transactionCheckTimes, PropertyName.preparedQueueOffset, PropertyName.halfOffset,
    ]
    /// Bytes of properties that are added at most until the outcome: those above, and those of a time.
    static let growth = 512

    /// In queue 0 of the half topic.
    var queueOffset: Int64
    var physicalOffset: Int64
    var size: Int32
    /// Milliseconds since 1970.
    var storeTimestamp: Int64
    /// How often its producers have been asked already.
    var checks: Int
    /// Milliseconds the message brings along in place of `transactionTimeOut`.
    var immunity: Int64?
    var preparedQueueOffset: Int64?
    /// Which transaction it is: the offset of its first copy in the half queue. However alike two prepared messages
    /// look, their offsets differ.
    var origin: Int64
    /// `origin` is known, not guessed: it is no copy made by RocketMQ's broker or by Apus before it noted origins.
    var isOriginKnown: Bool
    /// The same for all copies of one transaction. For copies of unknown origin only; `nil` without a unique key, where
    /// different transactions may look alike.
    var likeness: Int?

    /// - Parameter place: its offset by the queue that led to it; nil to believe the record, whose number no checksum
    ///   covers.
    init(_ record: CommitLogRecordView, at place: Int64? = nil) {
        queueOffset = place ?? record.queueOffset.rawValue
        physicalOffset = record.physicalOffset.rawValue
        size = Int32(truncatingIfNeeded: record.totalSize)
        storeTimestamp = record.storeTimestamp
        let asked = record.property(PropertyName.transactionCheckTimes).flatMap(TimerProperties.integer) ?? 0
        checks = Int(min(max(0, asked), Int64(Int32.max)))
        immunity = record.property(PropertyName.checkImmunityTime).flatMap(TimerProperties.integer)
            .flatMap { $0 >= 0 && $0 < 1 << 40 ? $0 * 1000 : nil }
        preparedQueueOffset = record.property(PropertyName.preparedQueueOffset).flatMap(TimerProperties.integer)
        let first = record.property(PropertyName.halfOffset).flatMap(TimerProperties.integer) ?? preparedQueueOffset
        origin = first ?? queueOffset
        let isOriginal = checks == 0 && record.topic.matches(KnownTopic.half)
        isOriginKnown = first != nil || isOriginal
        likeness = Self.likeness(record)
    }

    private static func likeness(_ record: CommitLogRecordView) -> Int? {
        guard let uniqueKey = record.property(PropertyName.uniqueKey) else { return nil }
        var hasher = Hasher()
        hasher.combine(bytes: uniqueKey)
        hasher.combine(0)
        if let group = record.property(PropertyName.producerGroup) { hasher.combine(bytes: group) }
        hasher.combine(record.bornTimestamp)
        hasher.combine(record.bornHost)
        hasher.combine(record.storedBodyCRC)
        return hasher.finalize()
    }

    init(
        queueOffset: Int64, physicalOffset: Int64 = 0, storeTimestamp: Int64, checks: Int = 0, immunity: Int64? = nil,
        preparedQueueOffset: Int64? = nil, origin: Int64? = nil, isOriginKnown: Bool = true, likeness: Int? = nil
    ) {
        self.queueOffset = queueOffset
        self.physicalOffset = physicalOffset
        size = 0
        self.storeTimestamp = storeTimestamp
        self.checks = checks
        self.immunity = immunity
        self.preparedQueueOffset = preparedQueueOffset
        self.origin = origin ?? queueOffset
        self.isOriginKnown = isOriginKnown
        self.likeness = likeness
    }

    /// Both are of one transaction.
    func isCopy(of other: HalfMessage) -> Bool {
        if isOriginKnown, other.isOriginKnown { return origin == other.origin }
        return likeness != nil && likeness == other.likeness
    }
}

/// The messages by which the outcome of a prepared message is remembered: `RMQ_SYS_TRANS_OP_HALF_TOPIC`, tags `d`, the
/// body being the half message's queue offset in decimal. RocketMQ 5 writes several of them, separated by commas.
enum OpMessage {
    static let removeTag = "d"
    static let properties = "\(PropertyName.waitStoreMsgOK)\u{1}true\u{2}\(PropertyName.tags)\u{1}\(removeTag)"

    static func body(_ halfOffset: Int64) -> [UInt8] { Array(String(halfOffset).utf8) }

    static func halfOffsets(_ body: UnsafeRawBufferPointer) -> [Int64] {
        body.split(separator: UInt8(ascii: ",")).compactMap { Int64(String(decoding: $0, as: UTF8.self)) }
    }
}

/// What a producer is asked with (39): the half message as it was sent, under its real topic and queue.
enum CheckMessage {
    /// `nil` when the record does not state where it belongs.
    static func body(_ record: CommitLogRecordView) -> [UInt8]? {
        guard let topic = record.property(PropertyName.realTopic), !topic.isEmpty, topic.count <= Int(Int8.max),
            let queueID = record.property(PropertyName.realQueueID).flatMap({
                Int32(String(decoding: $0, as: UTF8.self))
            })
        else { return nil }
        // Everything up to the body stays as it lies there, but for size, magic (a short topic is version 1) and queue.
        let headCount =
            CommitLogRecord.bornHostPosition + record.bornHost.encodedSize + 8 + record.storeHost.encodedSize + 4 + 8
            + 4
        var bytes = [UInt8](record.bytes.prefix(headCount))
        bytes.append(contentsOf: record.body)
        bytes.append(UInt8(topic.count))
        bytes.append(contentsOf: topic)
        let properties = properties(record)
        bytes.append(UInt8(truncatingIfNeeded: properties.count >> 8))
        bytes.append(UInt8(truncatingIfNeeded: properties.count))
        bytes.append(contentsOf: properties)
        bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            BigEndian.store(Int32(buffer.count), base, 0)
            BigEndian.store(CommitLogRecord.magicV1, base, CommitLogRecord.magicPosition)
            BigEndian.store(queueID, base, CommitLogRecord.queueIDPosition)
        }
        return bytes
    }

    /// Without what is the broker's alone.
    private static func properties(_ record: CommitLogRecordView) -> [UInt8] {
        guard record.property(PropertyName.halfOffset) != nil else { return [UInt8](record.properties) }
        var properties = PropertyList(record.properties)
        properties[PropertyName.halfOffset] = nil
        return properties.bytes
    }
}
