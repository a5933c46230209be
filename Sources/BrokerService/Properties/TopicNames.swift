import MessageModel

/// Names RocketMQ gives a meaning to.
enum TopicNames {
    static let autoCreateKey = TopicName.autoCreateKey.text
    static let schedule = TopicName.schedule.text
    static let benchmark = "\(KnownTopic.benchmark)"
    static let half = TopicName.half.text
    static let opHalf = TopicName.opHalf.text
    static let trace = "\(KnownTopic.trace)"
    static let transactionCheckMaxTime = TopicName.transactionCheckMaxTime.text
    static let selfTest = "\(KnownTopic.selfTest)"
    static let offsetMovedEvent = "\(KnownTopic.offsetMovedEvent)"
    static let timer = TopicName.timer.text
    /// Apus's own (`UndeliverableMessages`).
    static let undeliverable = TopicName.undeliverable.text
    static let systemPrefix = "\(KnownTopic.systemPrefix)"
    static let retryPrefix = TopicName.retryPrefix
    static let replySuffix = "\(KnownTopic.replySuffix)"
    /// RocketMQ's log of pops and acknowledgements: this, and the cluster's name.
    static let revivePrefix = "\(KnownTopic.revivePrefix)"
    /// How far that log was worked off.
    static let reviveGroup = GroupName(constant: "CID_RMQ_SYS_REVIVE_GROUP")

    static let alwaysSystem: Set<String> = [
        autoCreateKey, schedule, benchmark, half, trace, opHalf, transactionCheckMaxTime, selfTest, offsetMovedEvent,
    ]
    /// Topics only the broker itself may write.
    static let notAllowedToSend: Set<String> = [
        schedule, half, opHalf, transactionCheckMaxTime, selfTest, offsetMovedEvent, TopicNames.timer,
        undeliverable,
    ]

    static func isRevive(_ topic: String) -> Bool { topic.utf8.starts(with: revivePrefix.utf8) }

    static func isRevive(_ topic: UnsafeRawBufferPointer) -> Bool { topic.starts(with: revivePrefix.utf8) }
}
