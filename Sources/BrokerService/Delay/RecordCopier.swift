import MessageStore
import StoreFormat

/// Stores a waiting message again under the topic and queue it was sent to (`REAL_TOPIC`, `REAL_QID`): the common end of
/// delayed, timed and transactional messages. The properties go along as they are: what RocketMQ 4.9.8 delivers still
/// carries them all, DELAY among them.
struct RecordCopier {
    enum Outcome {
        case appended(AppendResult)
        /// The store does not take it now; later it may.
        case refused(AppendRefusal)
        /// It can never be delivered: its record is gone, or it names no topic. The text says which.
        case undeliverable(String)
    }

    /// Room for the properties that are added, kept from message to message.
    private final class Suffix {
        var bytes: [UInt8] = []
    }

    /// A copy: the draft must not point into the log while the log is written. Lives as long as its owner.
    private var scratch: [UInt8] = []
    private let suffix = Suffix()
    // The broker owns whoever has this.
    private unowned let broker: Broker

    init(_ broker: Broker) { self.broker = broker }

    private var store: MessageStore { broker.store }

    /// - Parameters:
    ///   - dequeued: milliseconds since 1970, of a timer message: it gets TIMER_ENQUEUE_MS and TIMER_DEQUEUE_MS, if they fit.
    ///   - isWanted: looks at the record first.
    mutating func deliver(
        _ range: LogRange, dequeued: Int64? = nil, isWanted: (CommitLogRecordView) -> Bool = { _ in true }
    ) -> Outcome? {
        scratch.removeAll(keepingCapacity: true)
        // Stored again, a damaged body would have a CRC that says it is good.
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
        guard let topic = record.property("REAL_TOPIC"), !topic.isEmpty,
            let queueId = record.property("REAL_QID").flatMap({ Int32(String(decoding: $0, as: UTF8.self)) })
        else { return .undeliverable("it does not say for which topic and queue it is") }
        guard !topic.matches("RMQ_SYS_TRANS_HALF_TOPIC") else {
            return .undeliverable("it is for the topic of half messages, which are not delayed")
        }
        suffix.bytes.removeAll(keepingCapacity: true)
        if let dequeued { addTimes(enqueued: record.storeTimestamp, dequeued: dequeued) }
        return suffix.bytes.withUnsafeBytes { suffix in
            var draft = MessageDraft(copyOf: record, topic: topic, queueId: queueId, properties: record.properties)
            draft.preparedTransactionOffset = record.preparedTransactionOffset
            draft.mayUseReserve = true
            if record.properties.count + suffix.count < Int(Int16.max) { draft.propertiesSuffix = suffix }
            switch store.append(draft) {
            case .appended(let result):
                broker.topics[topic]?.count(1, bytes: result.size, in: broker.stats)
                return .appended(result)
            case .refused(let refusal):
                switch refusal {
                case .diskFull, .notWritable: return .refused(refusal)
                case .messageTooLarge, .propertiesTooLarge, .topicLength, .topicName, .queueId, .malformedBatch:
                    return .undeliverable("\(refusal)")
                }
            }
        }
    }

    /// RocketMQ 5's note of when the message was taken into the wheel and when it left. Here that is when it was stored in the timer
    /// topic, to the next turn of the loop.
    private func addTimes(enqueued: Int64, dequeued: Int64) {
        func add(_ name: StaticString, _ value: Int64) {
            name.withUTF8Buffer { suffix.bytes.append(contentsOf: $0) }
            suffix.bytes.append(StoredProperties.nameEnd)
            suffix.bytes.append(contentsOf: String(value).utf8)
            suffix.bytes.append(StoredProperties.propertyEnd)
        }
        add(TimerProperties.enqueueMilliseconds, enqueued)
        add(TimerProperties.dequeueMilliseconds, dequeued)
    }
}
