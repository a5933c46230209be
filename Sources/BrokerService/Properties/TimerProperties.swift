import MessageModel
import StoreFormat

/// What a message states about the time of its delivery (RocketMQ 5's properties) and what the broker makes of it.
enum TimerProperties {
    /// By which a message asks for a time.
    static let requests = [
        PropertyName.timerDelaySeconds, PropertyName.timerDelayMilliseconds, PropertyName.timerDeliverMilliseconds,
    ]

    /// What the broker adds on the way in and out must still fit into 32 767 bytes of properties.
    static let reservedBytes = 512

    enum Delivery: Equatable {
        /// An ordinary message: nothing about time, or its time is over.
        case now
        /// Milliseconds since 1970.
        case at(Int64)
        /// No number, or further away than the broker allows.
        case illegal
    }

    /// - Parameters:
    ///   - properties: as they will be stored, without a delay level: that one wins.
    ///   - maxDelay: milliseconds.
    static func request(_ properties: UnsafeRawBufferPointer, now: Int64, maxDelay: Int64) -> Delivery {
        if MessageProperties.value(of: PropertyName.timerOutMilliseconds, in: properties) != nil { return .now }
        let due: Int64?
        if let text = MessageProperties.value(of: PropertyName.timerDelaySeconds, in: properties) {
            due = integer(text).flatMap { checked($0.multipliedReportingOverflow(by: 1000)) }
                .flatMap { checked(now.addingReportingOverflow($0)) }
        } else if let text = MessageProperties.value(of: PropertyName.timerDelayMilliseconds, in: properties) {
            due = integer(text).flatMap { checked(now.addingReportingOverflow($0)) }
        } else if let text = MessageProperties.value(of: PropertyName.timerDeliverMilliseconds, in: properties) {
            due = integer(text)
        } else {
            return .now
        }
        guard let due else { return .illegal }
        guard due > now else {
            return MessageProperties.value(of: PropertyName.timerDeleteUniqueKey, in: properties) == nil
                ? .now : .illegal
        }
        return due - now > maxDelay ? .illegal : .at(due)
    }

    private static func checked(_ result: (partialValue: Int64, overflow: Bool)) -> Int64? {
        result.overflow ? nil : result.partialValue
    }

    static func integer(_ text: UnsafeRawBufferPointer) -> Int64? {
        text.count > 20 ? nil : Int64(String(decoding: text, as: UTF8.self))
    }

    /// By which a cancellation finds its message.
    static func deleteKey(topic: UnsafeRawBufferPointer, uniqueKey: UnsafeRawBufferPointer) -> String {
        String(decoding: topic, as: UTF8.self) + "+" + String(decoding: uniqueKey, as: UTF8.self)
    }

    /// Links a copy RocketMQ 5 has rolled to what it is a copy of, together with their due time. Rolling leaves that
    /// time as it is.
    static func copyKey(_ record: CommitLogRecordView) -> String {
        let topic = String(decoding: record.property(PropertyName.realTopic) ?? record.topic, as: UTF8.self)
        if let unique = record.property(PropertyName.uniqueKey) {
            return topic + "+" + String(decoding: unique, as: UTF8.self)
        }
        return topic + "@\(record.bornTimestamp)@\(record.bornHost)@\(record.storedBodyCRC)"
    }

    static func isRolled(_ record: CommitLogRecordView) -> Bool { record.property(PropertyName.timerRollTimes) != nil }

    static func illegalRemark(maxDelay: Int64) -> String {
        "timer message illegal, the delay time should not be bigger than the max delay \(maxDelay)ms; "
            + "or if set del msg, the delay time should be bigger than the current time"
    }
}

/// What a producer gets for a timer message and gives back to cancel it (RocketMQ 5.3's `RecallMessageHandle`). The
/// text is `v1 topic brokerName timestamp uniqueKey` in URL-safe base 64. The time is the millisecond of delivery.
struct RecallHandle: Equatable {
    static let version = "v1"

    var topic: String
    var brokerName: String
    var timestamp: String
    var uniqueKey: String

    var text: String {
        Base64.urlSafe.encode([Self.version, topic, brokerName, timestamp, uniqueKey].joined(separator: " ").utf8)
    }

    init(topic: String, brokerName: String, timestamp: String, uniqueKey: String) {
        self.topic = topic
        self.brokerName = brokerName
        self.timestamp = timestamp
        self.uniqueKey = uniqueKey
    }

    /// `nil` when the text is no handle.
    init?(_ text: String) {
        guard let bytes = Base64.urlSafe.decode(text.utf8) else { return nil }
        let parts = String(decoding: bytes, as: UTF8.self).split(separator: " ", omittingEmptySubsequences: false)
        guard parts.count >= 5, parts[0] == Self.version else { return nil }
        self.init(
            topic: String(parts[1]), brokerName: String(parts[2]), timestamp: String(parts[3]),
            uniqueKey: String(parts[4]))
    }
}
