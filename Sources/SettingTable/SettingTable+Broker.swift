import MessageModel

/// Rows of the table: name, section, readers, type, default, when a change holds, and what it means.
extension SettingTable {
    static let topics: [Setting] = [
        Setting(
            "autoCreateTopicEnable", .topics, .broker, .boolean, "true", .running,
            "a send to an unknown topic creates it"),
        Setting(
            "autoCreateSubscriptionGroup", .topics, .broker, .boolean, "true", .running,
            "an unknown consumer group is created when it comes"),
        Setting(
            "defaultTopicQueueNums", .topics, .broker, .integer(1...65535), "8", .running,
            "most queues of a topic created that way"),
        Setting(
            "clusterTopicEnable", .topics, .broker, .boolean, "true", .start, "a topic with the cluster's name exists"),
        Setting(
            "brokerTopicEnable", .topics, .broker, .boolean, "true", .start, "a topic with the broker's name exists"),
        Setting("traceTopicEnable", .topics, .broker, .boolean, "false", .start, "the topic for message traces exists"),
        Setting("msgTraceTopicName", .topics, .broker, .name, "\(KnownTopic.trace)", .start, "its name"),
        Setting("traceOn", .topics, .broker, .boolean, "true", .start, "clients are told that traces are wanted"),
        Setting(
            "flushConsumerOffsetInterval", .topics, .broker, .integer(1...3_600_000), "5000", .start,
            "milliseconds between writes of consumer offsets"),
        Setting(
            "rebalanceLockMaxLiveTime", .topics, .broker, .integer(1...3_600_000), "60000", .start,
            "milliseconds an orderly consumer's queue lock lasts (Apus)"),
        Setting(
            "notifyConsumerIdsChangedEnable", .topics, .broker, .boolean, "true", .running,
            "consumers are told when one comes or goes"),
    ]

    static let replication: [Setting] = [
        Setting(
            "haMasterAddress", .replication, .broker, .hostAndPort, "", .start,
            "a slave's master, HOST:PORT of its haListenPort"),
        Setting(
            "haSendHeartbeatInterval", .replication, .broker, .integer(1...3_600_000), "5000", .start, "milliseconds"),
        Setting(
            "haHousekeepingInterval", .replication, .broker, .integer(1...3_600_000), "20000", .start,
            "a silent connection ends after it"),
        Setting(
            "haTransferBatchSize", .replication, .broker, .integer(1...1_073_741_824), "32768", .start,
            "bytes sent to a slave at a time"),
        Setting(
            "haSlaveFallbehindMax", .replication, .broker, .integer(0...Int64.max), "268435456", .running,
            "bytes behind which no ack waits for"),
        Setting(
            "slaveTimeout", .replication, .broker, .integer(1...3_600_000), "3000", .running,
            "milliseconds a SYNC_MASTER waits for a slave"),
        Setting(
            "slaveReadEnable", .replication, .broker, .boolean, "false", .running,
            "consumers far behind are sent to a slave"),
        Setting(
            "offsetCheckInSlave", .replication, .broker, .boolean, "false", .running,
            "a slave corrects consumers' offsets"),
    ]

    static let messages: [Setting] = [
        Setting(
            "maxMessageSize", .messages, .broker, .integer(1...1_073_741_824), "4194304", .running,
            "most bytes of a body"),
        Setting(
            "messageDelayLevel", .messages, .broker, .delays,
            "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h", .start, "the delays of levels 1, 2, …"),
        Setting(
            "timerMaxDelaySec", .messages, .broker, .integer(0...316_224_000), "31622400", .start,
            "longest delay of a timer message (5.x)"),
        Setting(
            "recallMessageEnable", .messages, .broker, .boolean, "true", .start,
            "timer messages can be taken back (5.x)"),
        Setting(
            "rejectTransactionMessage", .messages, .broker, .boolean, "false", .running, "transactions are refused"),
        Setting(
            "transactionTimeOut", .messages, .broker, .integer(1...2_147_483_647), "6000", .running,
            "milliseconds until a producer is asked"),
        Setting(
            "transactionCheckInterval", .messages, .broker, .integer(1...2_147_483_647), "60000", .running,
            "milliseconds between questions"),
        Setting(
            "transactionCheckMax", .messages, .broker, .integer(1...2_147_483_647), "15", .running,
            "questions before a message is given up"),
        Setting(
            "storeReplyMessageEnable", .messages, .broker, .boolean, "true", .start,
            "replies of request-reply are stored"),
        Setting("longPollingEnable", .messages, .broker, .boolean, "true", .running, "a pull waits for messages"),
        Setting(
            "shortPollingTimeMills", .messages, .broker, .integer(1...3_600_000), "1000", .running,
            "the wait when long polling is off"),
        Setting(
            "defaultMessageRequestMode", .messages, .broker, .choice(["PULL", "POP"]), "PULL", .running,
            "how groups read that no operator has set a mode for (5.x)"),
        Setting(
            "defaultPopShareQueueNum", .messages, .broker, .integer(-1...100_000), "-1", .running,
            "other members' queues a popping client reads; -1: all (5.x)"),
        Setting(
            "popDeadLetterEnable", .messages, .broker, .boolean, "false", .running,
            "what is popped more than retryMaxTimes again becomes a dead letter (Apus)"),
        Setting(
            "serverLoadBalancerEnable", .messages, .broker, .boolean, "true", .running,
            "the broker divides queues among those who ask it to (5.x)"),
        Setting(
            "messageTrailBytesMax", .messages, .broker, .integer(0...1_099_511_627_776), "67108864", .start,
            "bytes that are kept of what popped messages went through (apus message show); 0: none"),
        Setting(
            "sendThreadPoolQueueCapacity", .messages, .broker, .integer(1...2_147_483_647), "100000", .running,
            "sends that may wait for disk or slave; more are refused"),
        Setting(
            "brokerFastFailureEnable", .messages, .broker, .boolean, "true", .start, "taken for RocketMQ's sake",
            .none("sends do not wait in queues here that could grow too long")),
        Setting(
            "maxTransferBytesOnMessageInMemory", .messages, .broker, .integer(1...1_073_741_824), "262144", .running,
            "most bytes of a pull"),
        Setting(
            "maxTransferCountOnMessageInMemory", .messages, .broker, .integer(1...1_000_000), "32", .running,
            "most messages of a pull"),
        Setting(
            "maxTransferBytesOnMessageInDisk", .messages, .broker, .integer(1...1_073_741_824), "65536", .running,
            "the same far behind"),
        Setting(
            "maxTransferCountOnMessageInDisk", .messages, .broker, .integer(1...1_000_000), "8", .running,
            "the same far behind"),
        Setting(
            "accessMessageInMemoryMaxRatio", .messages, .broker, .integer(0...100), "40", .running,
            "per cent of memory that is not far"),
        Setting(
            "defaultQueryMaxNum", .messages, .broker, .integer(1...1_000_000), "32", .running,
            "most messages with one client-made id"),
        Setting(
            "sendfileBytesMin", .messages, .broker, .integer(0...Int64.max), "8192", .start,
            "bytes from which on what a pull gets leaves the log file by sendfile(2) (Apus)"),
    ]
}
