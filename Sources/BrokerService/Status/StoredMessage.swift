import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// What the answer says of a record, copied out of the log.
struct StoredMessage {
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
        timerDue = properties[TimerProperties.outMilliseconds].flatMap { Int64($0) }
    }
}

extension MessageStore {
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
