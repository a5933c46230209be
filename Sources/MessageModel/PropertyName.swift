/// RocketMQ's names of message properties (`MessageConst`), in the form in which records and requests are searched for
/// them. Every name that code reads or writes stands here and nowhere else.
package enum PropertyName {
    /// Keys a message is found by, separated by blanks.
    package static let keys: StaticString = "KEYS"
    /// What tag filters select by.
    package static let tags: StaticString = "TAGS"
    /// The identifier its producer gave the message.
    package static let uniqueKey: StaticString = "UNIQ_KEY"
    /// A delay level, from 1.
    package static let delayLevel: StaticString = "DELAY"
    /// The acknowledgement waits for disk and slave.
    package static let waitStoreMsgOK: StaticString = "WAIT"
    /// The topic a waiting message was sent to.
    package static let realTopic: StaticString = "REAL_TOPIC"
    /// The queue a waiting message was sent to.
    package static let realQueueID: StaticString = "REAL_QID"
    /// The topic a message was sent to before it was sent back.
    package static let retryTopic: StaticString = "RETRY_TOPIC"
    /// The offset message id the message had before it was first sent back.
    package static let originMessageID: StaticString = "ORIGIN_MESSAGE_ID"
    /// `true`: a half message.
    package static let isPrepared: StaticString = "TRAN_MSG"
    /// The business identifier by which messages are divided among queues.
    package static let shardingKey: StaticString = "__SHARDINGKEY"
    /// The producer group of a half message: which clients are asked what became of it.
    package static let producerGroup: StaticString = "PGROUP"
    /// Name of the broker's cluster; the broker sets it, whatever the producer sent.
    package static let cluster: StaticString = "CLUSTER"
    /// RocketMQ 5: the region a message was sent in, for traces.
    package static let region: StaticString = "MSG_REGION"
    /// RocketMQ 5: whether clients trace this message.
    package static let traceSwitch: StaticString = "TRACE_ON"
    /// A CRC of the whole record (RocketMQ from 5.2 on).
    package static let recordCRC: StaticString = "__CRC32#"
}

/// RocketMQ's names of topics with a meaning.
package enum KnownTopic {
    /// New topics take their queues and permission from it.
    package static let autoCreateKey: StaticString = "TBW102"
    /// Messages that wait for a delay level, a queue for each level.
    package static let schedule: StaticString = "SCHEDULE_TOPIC_XXXX"
    /// Half messages: sent in transactions, not committed yet.
    package static let half: StaticString = "RMQ_SYS_TRANS_HALF_TOPIC"
    /// Notes on which half messages are committed or rolled back.
    package static let opHalf: StaticString = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
    /// Half messages whose producers were asked too often.
    package static let transactionCheckMaxTime: StaticString = "TRANS_CHECK_MAX_TIME_TOPIC"
    /// Messages that wait for a point in time.
    package static let timer: StaticString = "rmq_sys_wheel_timer"
    /// Apus's own: what has waited and cannot be delivered.
    package static let undeliverable: StaticString = "rmq_sys_UNDELIVERABLE"
}

extension TopicName {
    /// `KnownTopic.autoCreateKey`, checked.
    package static let autoCreateKey = TopicName(constant: KnownTopic.autoCreateKey)
    /// `KnownTopic.schedule`, checked.
    package static let schedule = TopicName(constant: KnownTopic.schedule)
    /// `KnownTopic.half`, checked.
    package static let half = TopicName(constant: KnownTopic.half)
    /// `KnownTopic.opHalf`, checked.
    package static let opHalf = TopicName(constant: KnownTopic.opHalf)
    /// `KnownTopic.transactionCheckMaxTime`, checked.
    package static let transactionCheckMaxTime = TopicName(constant: KnownTopic.transactionCheckMaxTime)
    /// `KnownTopic.timer`, checked.
    package static let timer = TopicName(constant: KnownTopic.timer)
    /// `KnownTopic.undeliverable`, checked.
    package static let undeliverable = TopicName(constant: KnownTopic.undeliverable)
}
