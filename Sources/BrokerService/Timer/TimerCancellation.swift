import MessageModel
import StoreFormat

/// Which timer messages one cancellation stops: those of a key that are due at its time and were stored early enough.
///
/// RECALL_MESSAGE and clients name the message in `TIMER_DEL_UNIQKEY`, as in RocketMQ. An edit that stores the message
/// anew names it in `APUS_CANCELS`, because RocketMQ would stop the new message as well. RocketMQ knows no order, and
/// takes a whole second for one time. To RocketMQ such a cancellation names nothing.
struct TimerCancellation: Equatable, Sendable {
    /// `topic+unique key` of the message.
    var key: String
    /// Messages stored before this one are stopped: an offset in queue 0 of `rmq_sys_wheel_timer`.
    var before: Int64
    /// What was stored later is stopped, too, unless an edit has stored it. A producer sends again what it takes for
    /// lost, and recalls it once.
    var isRecall: Bool

    /// What `TIMER_DEL_UNIQKEY` contains then. No message of RocketMQ's has that key.
    static let namesNothing = "\(PropertyName.edit)"

    /// A producer's, or the withdrawal of a message that is not stored anew.
    /// - Parameter sequence: its own.
    init(recalling key: String, sequence: Int64) {
        self.init(key: key, before: sequence, isRecall: true)
    }

    init(key: String, before: Int64, isRecall: Bool) {
        self.key = key
        self.before = before
        self.isRecall = isRecall
    }

    /// Nil when the record is no cancellation.
    /// - Parameter sequence: its own.
    init?(_ record: CommitLogRecordView, sequence: Int64) {
        guard let named = record.property(PropertyName.timerDeleteUniqueKey) else { return nil }
        if let text = record.property(PropertyName.cancels) {
            // What no edit has written stops nothing.
            guard let split = text.firstIndex(of: UInt8(ascii: "+")),
                let before = TimerProperties.integer(UnsafeRawBufferPointer(rebasing: text[..<split]))
            else { return nil }
            let key = String(decoding: text[(split + 1)...], as: UTF8.self)
            // Nor what follows it.
            self.init(key: key, before: min(before, sequence), isRecall: false)
        } else {
            self.init(recalling: String(decoding: named, as: UTF8.self), sequence: sequence)
        }
    }

    /// The value of `APUS_CANCELS`.
    var text: String { "\(before)+\(key)" }

    /// - Parameters:
    ///   - sequence: the message's.
    ///   - isEdited: an edit has stored the message.
    func stops(_ sequence: Int64, isEdited: Bool) -> Bool { sequence < before || (isRecall && !isEdited) }

    /// Several of one key and time.
    mutating func merge(_ other: TimerCancellation) {
        before = max(before, other.before)
        isRecall = isRecall || other.isRecall
    }
}

/// A message and when it is due, as a cancellation finds it.
struct TimerTarget {
    /// `topic+unique key`.
    var key: String
    var due: Int64
    var sequence: Int64
    /// An edit has stored it.
    var isEdited: Bool
}
