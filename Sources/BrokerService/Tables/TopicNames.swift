/// Names RocketMQ gives a meaning to, and its rules for the names clients choose.
enum TopicNames {
    static let autoCreateKey = "TBW102"
    static let schedule = "SCHEDULE_TOPIC_XXXX"
    static let benchmark = "BenchmarkTest"
    static let half = "RMQ_SYS_TRANS_HALF_TOPIC"
    static let opHalf = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
    static let trace = "RMQ_SYS_TRACE_TOPIC"
    static let transactionCheckMaxTime = "TRANS_CHECK_MAX_TIME_TOPIC"
    static let selfTest = "SELF_TEST_TOPIC"
    static let offsetMovedEvent = "OFFSET_MOVED_EVENT"
    /// Apus's own (`UndeliverableMessages`).
    static let undeliverable = "rmq_sys_UNDELIVERABLE"
    static let systemPrefix = "rmq_sys_"
    static let retryPrefix = "%RETRY%"
    static let deadLetterPrefix = "%DLQ%"
    static let replySuffix = "REPLY_TOPIC"
    static let lengthMax = 127

    static let alwaysSystem: Set<String> = [
        autoCreateKey, schedule, benchmark, half, trace, opHalf, transactionCheckMaxTime, selfTest, offsetMovedEvent,
    ]
    /// Topics only the broker itself may write.
    static let notAllowedToSend: Set<String> = [
        schedule, half, opHalf, transactionCheckMaxTime, selfTest, offsetMovedEvent, TimerMessageStore.topic,
        undeliverable,
    ]

    static func retry(_ group: String) -> String { retryPrefix + group }
    static func deadLetter(_ group: String) -> String { deadLetterPrefix + group }

    /// Why a group can have no retry topic, with the remedy; `nil` when it can. Such a group may consume: a group's name may
    /// be longer than a topic's.
    static func retryRefusal(of group: String) -> String? {
        guard let refusal = refusal(of: retry(group)) else { return nil }
        return "the consumer group can have no retry topic: \(refusal) Give the group a name of at most "
            + "\(lengthMax - retryPrefix.utf8.count) letters, digits, %, |, - and _."
    }

    /// `nil` if the name is good, otherwise RocketMQ's remark.
    static func refusal(of topic: UnsafeRawBufferPointer) -> String? {
        if topic.allSatisfy({ $0 == 32 || ($0 >= 9 && $0 <= 13) }) { return "The specified topic is blank." }
        for byte in topic where !isAllowed(byte) {
            return "The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
        }
        return topic.count > lengthMax
            ? "The specified topic is longer than topic max length. (\(topic.count) bytes, at most \(lengthMax))" : nil
    }

    static func refusal(of topic: String) -> String? {
        var topic = topic
        return topic.withUTF8 { refusal(of: UnsafeRawBufferPointer($0)) }
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"):
            true
        case UInt8(ascii: "%"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "|"): true
        default: false
        }
    }
}
