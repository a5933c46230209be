import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// What the answer says of a record, copied out of the log.
struct StoredMessage {
    /// In whose queue it is, whatever version stands for it.
    struct Place: Hashable {
        let topic: String
        let queueID: Int32
        let queueOffset: Int64
    }

    let topic: String
    let queueID: Int32
    let queueOffset: Int64
    let physicalOffset: Int64
    let messageID: String
    let uniqueKey: String?
    let storeTimestamp: Int64
    let reconsumeTimes: Int32
    /// Of a copy that a consumer sent back: the first record's message ID.
    let originID: String?
    /// Of a record that waits: where to.
    let realTopic: String?
    /// Of a timer message: when, milliseconds since 1970.
    let timerDue: Int64?
    /// It stops a timer message.
    let isCancellation: Bool
    /// Its producer has recalled it: a cancellation for it is in the log. Only known of what was looked for by its ID.
    var isRecalled = false
    /// RocketMQ has stored it again, because its wheel is too short for the delay.
    let isRolled: Bool
    /// Who edited it last; nil: it is as it was sent.
    let note: EditNote?
    /// Of an edited message: where the version before lies.
    let previous: Int64
    /// What versions differ in.
    let parts: [String: String]
    /// A hash of the body.
    let bodyHash: Int32

    var place: Place { Place(topic: topic, queueID: queueID, queueOffset: queueOffset) }

    init(_ record: CommitLogRecordView) {
        let properties = PropertyList(record.properties)
        topic = String(decoding: record.topic, as: UTF8.self)
        queueID = record.queueID
        queueOffset = record.queueOffset.rawValue
        physicalOffset = record.physicalOffset.rawValue
        messageID = OffsetMessageID.text(host: record.storeHost, physicalOffset: record.physicalOffset.rawValue)
        uniqueKey = properties[PropertyName.uniqueKey]
        storeTimestamp = record.storeTimestamp
        reconsumeTimes = record.reconsumeTimes
        originID = properties[PropertyName.originMessageID]
        realTopic = properties[PropertyName.realTopic]
        timerDue = properties[PropertyName.timerOutMilliseconds].flatMap { Int64($0) }
        isCancellation = properties[PropertyName.timerDeleteUniqueKey] != nil
        isRolled = properties[PropertyName.timerRollTimes] != nil
        note = record.editNote
        previous = record.preparedTransactionOffset
        bodyHash = record.storedBodyCRC
        parts =
            note == nil && record.properties.isEmpty
            ? [:] : Dictionary(properties.pairs.map { ($0.name, $0.value) }) { _, last in last }
    }
}

extension MessageStore {
    /// What stands for a message now: itself, unless it was edited or deleted.
    func present(_ message: StoredMessage) -> StoredMessage {
        let offset = QueueOffset(message.queueOffset)
        guard let queue = consumeQueue(topic: message.topic, queueID: message.queueID),
            let first = firstPlace(queue, at: offset), first.rawValue <= message.physicalOffset,
            let version = currentVersion(queue, at: offset), version.physicalOffset.rawValue != message.physicalOffset
        else { return message }
        return storedMessage(at: version.physicalOffset.rawValue) ?? message
    }

    /// The record that begins at an offset of the log; nil when none does, or it is damaged.
    func storedMessage(at offset: Int64) -> StoredMessage? {
        lookMessage(at: PhysicalOffset(offset)).flatMap { storedMessage($0) }
    }

    /// One record.
    func storedMessage(_ range: LogRange) -> StoredMessage? {
        withBytes(range) { bytes -> StoredMessage? in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return nil }
            return StoredMessage(record)
        } ?? nil
    }
}
