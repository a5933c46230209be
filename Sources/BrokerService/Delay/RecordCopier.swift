import MessageModel
import MessageStore
import StoreFormat

/// Stores a waiting message again under the topic and queue it was sent to (`REAL_TOPIC`, `REAL_QID`): the common end
/// of delayed, timed and transactional messages. The properties go along as they are: what RocketMQ 4.9.8 delivers
/// still carries them all, DELAY among them. What has no such queue any more is stored as undeliverable
/// (`UndeliverableMessages`).
struct RecordCopier {
    /// Milliseconds between two tries of a delivery that could not be made.
    static let retryMilliseconds: Int64 = 100

    enum Outcome {
        case appended(AppendResult)
        /// It cannot be delivered and lies among the undeliverable messages.
        case putAside(AppendResult)
        /// The store does not take it now; later it may.
        case refused(AppendRefusal)
        /// It is lost: its record is deleted or damaged, or there is no room for it anywhere. The text states which.
        case undeliverable(String)
    }

    /// Room for the properties that are added, kept from message to message.
    private final class Suffix {
        var bytes: [UInt8] = []
    }

    /// A copy: the draft must not point into the log while the log is written. Lives as long as its owner.
    private var scratch: [UInt8] = []
    private let suffix = Suffix()
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let undeliverable: UndeliverableMessages

    init(_ tables: BrokerTables, _ storage: StoreAccess, _ undeliverable: UndeliverableMessages) {
        self.tables = tables
        self.storage = storage
        self.undeliverable = undeliverable
    }

    private var store: MessageStore { storage.store }

    /// - Parameters:
    ///   - dequeued: milliseconds since 1970, of a timer message: it gets TIMER_ENQUEUE_MS and TIMER_DEQUEUE_MS, if
    ///     they fit.
    ///   - isWanted: looks at the record first.
    mutating func deliver(
        _ range: LogRange, dequeued: Int64? = nil, isWanted: (CommitLogRecordView) -> Bool = { _ in true }
    ) -> Outcome? {
        scratch.removeAll(keepingCapacity: true)
        // Stored again, a damaged body would have a CRC that matches it.
        guard store.holdsMessage(range) else { return .undeliverable("the log does not hold it (any more)") }
        let isThere: Void? = store.withBytes(range) { scratch.append(contentsOf: $0) }
        guard isThere != nil else { return .undeliverable("the log does not hold it any more") }
        return scratch.withUnsafeBytes { deliver($0, dequeued: dequeued, isWanted: isWanted) }
    }

    /// The same for a record that lies somewhere else; `nil` when it is not wanted.
    func deliver(
        _ bytes: UnsafeRawBufferPointer, dequeued: Int64? = nil,
        isWanted: (CommitLogRecordView) -> Bool = { _ in true }
    ) -> Outcome? {
        guard case .record(let record) = CommitLogRecord.parse(bytes) else {
            return .undeliverable("no record begins there")
        }
        guard isWanted(record) else { return nil }
        guard let name = record.property(PropertyName.realTopic),
            let queueID = record.property(PropertyName.realQueueID).flatMap({
                Int32(String(decoding: $0, as: UTF8.self))
            })
        else { return putAside(record, "it does not say for which topic and queue it is") }
        switch tables.deliveryPlace(topic: name, queueID: queueID) {
        case .nowhere(let reason): return putAside(record, reason)
        case .queue(let topic, let queueID): return append(record, topic, queueID, dequeued: dequeued)
        }
    }

    private func append(
        _ record: CommitLogRecordView, _ topic: TopicEntry, _ queueID: Int32, dequeued: Int64?
    ) -> Outcome {
        suffix.bytes.removeAll(keepingCapacity: true)
        if let dequeued { addTimes(enqueued: record.storeTimestamp, dequeued: dequeued) }
        let outcome = topic.nameBytes.withUnsafeBytes { name in
            suffix.bytes.withUnsafeBytes { suffix in
                var draft = MessageDraft(copyOf: record, topic: name, queueID: queueID, properties: record.properties)
                draft.preparedTransactionOffset = record.preparedTransactionOffset
                draft.mayUseReserve = true
                if record.properties.count + suffix.count < Int(Int16.max) { draft.propertiesSuffix = suffix }
                return store.append(draft)
            }
        }
        switch outcome {
        case .appended(let result):
            topic.count(1, bytes: result.size, in: storage.stats)
            return .appended(result)
        case .refused(let refusal):
            if refusal.isPassing { return .refused(refusal) }
            // What is only added must not be what makes it too large.
            return dequeued == nil ? putAside(record, "\(refusal)") : append(record, topic, queueID, dequeued: nil)
        }
    }

    /// RocketMQ 5's note of when the message was taken into the wheel and when it left. Here that is when it was stored
    /// in the timer topic, to the next turn of the loop.
    private func addTimes(enqueued: Int64, dequeued: Int64) {
        func add(_ name: StaticString, _ value: Int64) {
            name.withUTF8Buffer { suffix.bytes.append(contentsOf: $0) }
            suffix.bytes.append(StoredProperties.nameEnd)
            suffix.bytes.append(contentsOf: String(value).utf8)
            suffix.bytes.append(StoredProperties.propertyEnd)
        }
        add(PropertyName.timerEnqueueMilliseconds, enqueued)
        add(PropertyName.timerDequeueMilliseconds, dequeued)
    }

    private func putAside(_ record: CommitLogRecordView, _ reason: String) -> Outcome {
        switch undeliverable.putAside(record, because: reason) {
        case .appended(let result): .putAside(result)
        case .refused(let refusal) where refusal.isPassing: .refused(refusal)
        case .refused(let refusal):
            .undeliverable("\(reason); nor can it be kept among the undeliverable messages: \(refusal)")
        }
    }
}

extension AppendRefusal {
    /// The store does not take it now; later it may.
    var isPassing: Bool {
        switch self {
        case .diskFull, .notWritable: true
        case .messageTooLarge, .propertiesTooLarge, .topicLength, .topicName, .queueID, .malformedBatch, .unreadable,
            .noSuchMessage, .editedMeanwhile, .tooManyEdits:
            false
        }
    }
}
