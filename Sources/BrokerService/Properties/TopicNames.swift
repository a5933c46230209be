import MessageModel

/// Names RocketMQ gives a meaning to.
enum TopicNames {
    static let autoCreateKey = TopicName.autoCreateKey.text
    static let schedule = TopicName.schedule.text
    static let benchmark = "BenchmarkTest"
    static let half = TopicName.half.text
    static let opHalf = TopicName.opHalf.text
    static let trace = "RMQ_SYS_TRACE_TOPIC"
    static let transactionCheckMaxTime = TopicName.transactionCheckMaxTime.text
    static let selfTest = "SELF_TEST_TOPIC"
    static let offsetMovedEvent = "OFFSET_MOVED_EVENT"
    static let timer = TopicName.timer.text
    /// Apus's own (`UndeliverableMessages`).
    static let undeliverable = TopicName.undeliverable.text
    static let systemPrefix = "rmq_sys_"
    static let retryPrefix = TopicName.retryPrefix
    static let replySuffix = "REPLY_TOPIC"

    static let alwaysSystem: Set<String> = [
        autoCreateKey, schedule, benchmark, half, trace, opHalf, transactionCheckMaxTime, selfTest, offsetMovedEvent,
    ]
    /// Topics only the broker itself may write.
    static let notAllowedToSend: Set<String> = [
        schedule, half, opHalf, transactionCheckMaxTime, selfTest, offsetMovedEvent, TopicNames.timer,
        undeliverable,
    ]
}

extension TopicName {
    static let autoCreateKey = TopicName(constant: "TBW102")
    static let schedule = TopicName(constant: "SCHEDULE_TOPIC_XXXX")
    static let half = TopicName(constant: "RMQ_SYS_TRANS_HALF_TOPIC")
    static let opHalf = TopicName(constant: "RMQ_SYS_TRANS_OP_HALF_TOPIC")
    static let transactionCheckMaxTime = TopicName(constant: "TRANS_CHECK_MAX_TIME_TOPIC")
    static let timer = TopicName(constant: "rmq_sys_wheel_timer")
    static let undeliverable = TopicName(constant: "rmq_sys_UNDELIVERABLE")
}
