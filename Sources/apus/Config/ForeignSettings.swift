/// Settings of RocketMQ 4.9.8 that have no meaning in Apus, and why; an operator who takes a file over is told.
enum ForeignSettings {
    /// Nil: RocketMQ does not know the setting either.
    static func reason(_ key: String) -> String? {
        if let group = groups.first(where: { $0.keys.contains(key) }) { return group.reason }
        return patterns.first { key.hasPrefix($0.prefix) || key.hasSuffix($0.suffix) }?.reason
    }

    private static let groups: [(reason: String, keys: Set<String>)] = [
        (
            "Java: folders of its installation",
            ["rocketmqHome", "configStorePath", "brokerConfigPath", "messageStorePlugIn"]
        ),
        (
            "Java: memory and page cache; Apus writes with pwrite and keeps the hot end in memory",
            [
                "transientStorePoolEnable", "transientStorePoolSize", "fastFailIfNoBufferInStorePool",
                "warmMapedFileEnable", "flushLeastPagesWhenWarmMapedFile", "osPageCacheBusyTimeOutMills",
                "commitIntervalCommitLog", "commitCommitLogLeastPages", "commitCommitLogThoroughInterval",
                "transferMsgByHeap", "useReentrantLockWhenPutMessage", "flushCommitLogTimed", "debugLockEnable",
                "destroyMapedFileIntervalForcibly", "redeleteHangedFileInterval", "putMsgIndexHightWater",
                "highSpeedMode", "messageIndexSafe", "diskFallRecorded", "isEnableBatchPush",
            ]
        ),
        (
            "Apus looks after its files at intervals of its own",
            [
                "deleteCommitLogFilesInterval", "deleteConsumeQueueFilesInterval", "flushConsumeQueueLeastPages",
                "flushConsumerOffsetHistoryInterval", "flushDelayOffsetInterval", "enableScheduleMessageStats",
                "enableScheduleAsyncDeliver", "scheduleAsyncDeliverMaxPendingLimit",
                "scheduleAsyncDeliverMaxResendNum2Blocked", "filterDataCleanTimeSpan",
            ]
        ),
        (
            "filters run in workers of their own: see [filter]",
            [
                "enableConsumeQueueExt", "mappedFileSizeConsumeQueueExt", "bitMapLengthConsumeQueueExt",
                "enableCalcFilterBitMap", "expectConsumerNumUseFilter", "maxErrorRateOfBloomFilter",
                "filterSupportRetry", "filterServerNums",
            ]
        ),
        (
            "DLedger: Apus replicates from master to slaves",
            [
                "enableDLegerCommitLog", "dLegerGroup", "dLegerPeers", "dLegerSelfId", "preferredLeaderId",
                "storePathDLedgerCommitLog",
            ]
        ),
        (
            "Apus has no access control yet: mind who can reach its ports", ["aclEnable"]
        ),
        (
            "Apus has no TLS yet: mind who can reach its ports", ["useTLS", "tlsEnable"]
        ),
        (
            "sends and pulls do not wait in queues here that could grow too long",
            [
                "waitTimeMillsInSendQueue", "waitTimeMillsInPullQueue", "waitTimeMillsInHeartbeatQueue",
                "waitTimeMillsInTransactionQueue", "disableConsumeIfConsumerReadSlowly",
                "consumerFallbehindThreshold",
            ]
        ),
        (
            "many queues in one (LMQ) are not supported",
            ["enableLmq", "enableMultiDispatch", "maxLmqConsumeQueueNum", "readOnlyCommitLogStorePaths"]
        ),
        (
            "figures and logs are kept as they are: journald, apus status, mqadmin",
            ["enableDetailStat", "autoDeleteUnusedStats", "isolateLogEnable"]
        ),
        ("of no use in RocketMQ 4.9.8 either", ["duplicationEnable", "maxDelayTime"]),
        (
            "Apus registers in the form the name server understands", ["compressedRegister", "forceRegister"]
        ),
        (
            "the client inside the Java broker", ["connectTimeoutMillis", "channelNotActiveInterval"]
        ),
        (
            "Netty: buffers of Java's network library",
            ["useEpollNativeSelector", "writeBufferHighWaterMark", "writeBufferLowWaterMark"]
        ),
    ]

    private static let patterns: [(prefix: String, suffix: String, reason: String)] = [
        ("\u{0}", "ThreadPoolNums", "one event loop serves all requests: there are no thread pools"),
        ("\u{0}", "QueueCapacity", "one event loop serves all requests: there are no thread pools"),
        ("commercial", "\u{0}", "figures for billing"),
        ("server", "\u{0}", "Netty: threads and buffers of Java's network library"),
        ("client", "\u{0}", "the client inside the Java broker"),
        ("tls.", "\u{0}", "Apus has no TLS yet: mind who can reach its ports"),
    ]
}
