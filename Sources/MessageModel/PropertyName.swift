/// RocketMQ's names of message properties (`MessageConst`), in the form in which records and requests are searched for
/// them. Every name that code reads or writes stands here and nowhere else.
package enum PropertyName {
    /// Keys a message is found by, separated by blanks.
    package static let keys: StaticString = "KEYS"
    /// What tag filters select by.
    package static let tags: StaticString = "TAGS"
    /// The identifier its producer gave the message.
    package static let uniqueKey: StaticString = "UNIQ_KEY"
    /// Begins `realTopic` and `realQueueID`.
    package static let realPrefix: StaticString = "REAL_"
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
    /// RocketMQ 5: the region a message was sent in, for traces. Each answer to a send has it, so it is inlined.
    @inlinable package static var region: StaticString { "MSG_REGION" }
    /// RocketMQ 5: whether clients trace this message. Inlined as above.
    @inlinable package static var traceSwitch: StaticString { "TRACE_ON" }
    /// A CRC of the whole record (RocketMQ from 5.2 on).
    package static let recordCRC: StaticString = "__CRC32#"
    /// When the message was sent, milliseconds since 1970, as a recall states it.
    package static let bornTimestamp: StaticString = "BORN_TIMESTAMP"
    /// RocketMQ's namespace of the producer.
    package static let instanceID: StaticString = "INSTANCE_ID"
    /// RocketMQ's clients add it to what they have pulled: the queue's first offset.
    package static let minOffset: StaticString = "MIN_OFFSET"
    /// As above: behind the queue's last offset.
    package static let maxOffset: StaticString = "MAX_OFFSET"

    // MARK: - Deliveries

    /// How often a consumer has sent the message back.
    package static let reconsumeTime: StaticString = "RECONSUME_TIME"
    /// How often its group may.
    package static let maxReconsumeTimes: StaticString = "MAX_RECONSUME_TIMES"
    /// When a client began with the message, milliseconds since 1970.
    package static let consumeStartTime: StaticString = "CONSUME_START_TIME"
    /// The handle of a popped message.
    package static let popHandle: StaticString = "POP_CK"
    /// When RocketMQ handed the message out first; each of its copies has it.
    package static let firstPopTime: StaticString = "1ST_POP_TIME"
    /// Begins what RocketMQ 5 notes on dead letters.
    package static let deadLetterOriginPrefix: StaticString = "DLQ_ORIGIN_"
    /// Apus's own: why a popped message became a dead letter.
    package static let deadLetterReason: StaticString = "DEAD_LETTER_REASON"
    /// Apus's own: why a message cannot be delivered.
    package static let undeliverableReason: StaticString = "UNDELIVERABLE_REASON"

    // MARK: - Several in one

    /// Further queues a message is in, separated by commas.
    package static let innerMultiDispatch: StaticString = "INNER_MULTI_DISPATCH"
    /// Its offsets there.
    package static let innerMultiQueueOffset: StaticString = "INNER_MULTI_QUEUE_OFFSET"
    /// Messages in a batch of RocketMQ 5 that is stored as one.
    package static let innerNum: StaticString = "INNER_NUM"

    // MARK: - Time of delivery

    /// Begins all names of this section.
    package static let timerPrefix: StaticString = "TIMER_"
    /// Begins those by which a message asks for a time, and that of a cancellation.
    package static let timerRequestPrefix: StaticString = "TIMER_DEL"
    /// Seconds from now.
    package static let timerDelaySeconds: StaticString = "TIMER_DELAY_SEC"
    /// Milliseconds from now.
    package static let timerDelayMilliseconds: StaticString = "TIMER_DELAY_MS"
    /// Milliseconds since 1970.
    package static let timerDeliverMilliseconds: StaticString = "TIMER_DELIVER_MS"
    /// The time the broker has worked out, milliseconds since 1970; only the broker writes it.
    package static let timerOutMilliseconds: StaticString = "TIMER_OUT_MS"
    /// A cancellation: topic and unique key of the message to stop, joined by `+`.
    package static let timerDeleteUniqueKey: StaticString = "TIMER_DEL_UNIQKEY"
    /// When the message began to wait, milliseconds since 1970.
    package static let timerEnqueueMilliseconds: StaticString = "TIMER_ENQUEUE_MS"
    /// When its wait ended, milliseconds since 1970.
    package static let timerDequeueMilliseconds: StaticString = "TIMER_DEQUEUE_MS"
    /// How often RocketMQ 5 has stored a message again because its wheel is too short for the delay.
    package static let timerRollTimes: StaticString = "TIMER_ROLL_TIMES"

    // MARK: - Requests and replies

    /// The client a reply is for.
    package static let replyToClient: StaticString = "REPLY_TO_CLIENT"
    /// When the reply was pushed, milliseconds since 1970.
    package static let pushReplyTime: StaticString = "PUSH_REPLY_TIME"

    // MARK: - Transactions

    /// How often the producers of a half message were asked.
    package static let transactionCheckTimes: StaticString = "TRANSACTION_CHECK_TIMES"
    /// Seconds after the send in which they are not asked.
    package static let checkImmunityTime: StaticString = "CHECK_IMMUNITY_TIME_IN_SECONDS"
    /// On copies Apache makes for messages that are immune against checks: the queue offset of the original.
    package static let preparedQueueOffset: StaticString = "TRAN_PREPARED_QUEUE_OFFSET"
    /// The client's identifier of a transaction.
    package static let transactionID: StaticString = "__transactionId__"

    // MARK: - Apus's own

    /// Begins all names of this section.
    package static let apusPrefix: StaticString = "APUS_"
    /// What a newer version of a message states of itself (`EditNote`).
    package static let edit: StaticString = "APUS_EDIT"
    /// The cancellation of an edit: which timer messages it stops.
    package static let cancels: StaticString = "APUS_CANCELS"
    /// On copies of half messages, and on what was parked: the queue offset of the transaction's first copy.
    package static let halfOffset: StaticString = "APUS_HALF_OFFSET"
    /// On messages that were sent anew: the ID of the message they are copies of.
    package static let resentFrom: StaticString = "APUS_RESENT_FROM"
    /// On messages that were sent anew: who sent them.
    package static let resentBy: StaticString = "APUS_RESENT_BY"
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
    /// What clients write of each message for message traces, unless it is set otherwise (`msgTraceTopicName`).
    package static let trace: StaticString = "RMQ_SYS_TRACE_TOPIC"
    /// RocketMQ's benchmarks send to it.
    package static let benchmark: StaticString = "BenchmarkTest"
    /// RocketMQ's brokers send to themselves through it.
    package static let selfTest: StaticString = "SELF_TEST_TOPIC"
    /// Notes on consumers whose offset was outside their queue.
    package static let offsetMovedEvent: StaticString = "OFFSET_MOVED_EVENT"
    /// Begins the names of RocketMQ 5's own topics.
    package static let systemPrefix: StaticString = "rmq_sys_"
    /// Begins the name of RocketMQ's log of pops and acknowledgements; the cluster's name ends it.
    package static let revivePrefix: StaticString = "rmq_sys_REVIVE_LOG_"
    /// Ends the name of a cluster's topic for replies.
    package static let replySuffix: StaticString = "REPLY_TOPIC"
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
