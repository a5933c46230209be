/// Settings of RocketMQ 4.9.8 and 5.x that Apus does not have, and what an operator who brings them along must know.
/// `apus config check`, the start, `apus config import` and request 25 take their texts from here.
package enum RocketMQSettings {
    /// What becomes of such a setting.
    package enum Consequence: Sendable {
        /// Nothing is lost without it.
        case harmless
        /// Something is different; the operator should act, and the platform starts.
        case act
        /// It promises protection, copies, or messages that would be missing: the platform does not start with it,
        /// unless `startWithout` names it.
        case refused
    }

    /// What an operator must know of such a setting with its value.
    package struct Verdict: Sendable {
        /// Decides whether the platform starts with it.
        package let consequence: Consequence
        /// Text for the operator: why, and what to do.
        package let reason: String
    }

    /// nil: RocketMQ does not know the setting either.
    package static func verdict(_ key: String, _ value: String) -> Verdict? {
        if let promise = promises.first(where: { $0.keys.contains(key) }) {
            return promise.isMade(value)
                ? Verdict(consequence: .refused, reason: promise.reason)
                : Verdict(consequence: .harmless, reason: "it is off, and Apus has no such thing")
        }
        if key.hasPrefix("tls.") {
            return isOff(value)
                ? Verdict(consequence: .harmless, reason: "it is off") : Verdict(consequence: .refused, reason: noTLS)
        }
        if let group = groups.first(where: { $0.keys.contains(key) }) {
            return Verdict(consequence: group.consequence, reason: group.reason)
        }
        return patterns.first { key.hasPrefix($0.prefix) && key.hasSuffix($0.suffix) && key != $0.prefix + $0.suffix }
            .map { Verdict(consequence: .harmless, reason: $0.reason) }
    }

    /// Whether Apus or RocketMQ has a setting of this name.
    package static func isKnown(_ key: String) -> Bool {
        SettingTable.setting(key) != nil || verdict(key, "") != nil
    }

    /// Of RocketMQ's name server alone: a file with these is a name server's.
    package static let ofNameServers: Set<String> = [
        "kvConfigPath", "orderMessageEnable", "clusterTest", "productEnvName", "clientRequestThreadPoolNums",
        "clientRequestThreadPoolQueueCapacity", "defaultThreadPoolNums", "defaultThreadPoolQueueCapacity",
        "scanNotActiveBrokerInterval", "unRegisterBrokerQueueCapacity", "supportActingMaster", "enableAllTopicList",
        "enableTopicList", "notifyMinBrokerIdChanged", "enableControllerInNamesrv", "needWaitForService",
        "waitSecondsForService", "deleteTopicWithBrokerRegistration", "returnOrderTopicConfigToBroker",
    ]

    // MARK: - Promises

    private struct Promise {
        let reason: String
        let keys: Set<String>
        let isMade: @Sendable (String) -> Bool
    }

    private static func isOff(_ value: String) -> Bool {
        ["", "false", "disabled", "none"].contains(SettingType.trimmed(value).lowercased())
    }

    private static let noTLS = "Apus has no TLS: everything is sent in the clear; keep its ports to a network you trust"

    private static let promises = [
        Promise(
            reason:
                "Apus has no access control: every client that reaches its ports may do "
                + "everything; keep them to a network you trust",
            keys: ["aclEnable", "authenticationEnabled", "authorizationEnabled", "migrateAuthFromV1Enabled"],
            isMade: { !isOff($0) }),
        Promise(reason: noTLS, keys: ["useTLS", "tlsEnable", "tlsTestModeEnable"], isMade: { !isOff($0) }),
        Promise(
            reason: "Apus has no DLedger: no second copy would be made, and DLedger's log is one Apus cannot read; "
                + "replicate with brokerRole=SYNC_MASTER and a SLAVE",
            keys: ["enableDLegerCommitLog"], isMade: { !isOff($0) }),
        Promise(
            reason: "Apus has no controller: no slave becomes master when the master is lost; "
                + "replicate with brokerRole=SYNC_MASTER and a SLAVE",
            keys: [
                "enableControllerMode", "enableControllerInNamesrv", "controllerAddr", "controllerDLegerGroup",
                "controllerDLegerPeers", "controllerType", "jRaftGroupId", "jRaftServerId",
            ],
            isMade: { !isOff($0) }),
        Promise(
            reason:
                """
                Apus waits for one slave at most (brokerRole=SYNC_MASTER): fewer copies would be made than this asks \
                for
                """,
            keys: ["inSyncReplicas", "minInSyncReplicas", "totalReplicas"],
            isMade: { (SettingType.integer($0) ?? 0) > 1 }),
        Promise(
            reason:
                """
                Apus waits for one slave at most (brokerRole=SYNC_MASTER): fewer copies would be made than this asks \
                for
                """,
            keys: ["allAckInSyncStateSet"], isMade: { !isOff($0) }),
        Promise(
            reason: "a slave of Apus does not take the master's place, not even for reading what is delayed",
            keys: ["enableSlaveActingMaster", "supportActingMaster", "enableRemoteEscape"], isMade: { !isOff($0) }),
        Promise(
            reason: "Apus keeps its queues in files: what RocksDB holds (queues, offsets, topics) would be missing",
            keys: ["storeType", "configManagerVersion", "rocksdbCQDoubleWriteEnable"],
            isMade: { !isOff($0) && !["default", "v1"].contains(SettingType.trimmed($0).lowercased()) }),
        Promise(
            reason: "part of the log lies in these folders, and Apus reads one folder: those messages would be missing",
            keys: ["readOnlyCommitLogStorePaths"], isMade: { !isOff($0) }),
        Promise(
            reason: "a store of another kind: what it keeps elsewhere would be missing",
            keys: ["messageStorePlugIn", "tieredBackendServiceProvider", "tieredStorageLevel"], isMade: { !isOff($0) }),
    ]

    // MARK: - Without effect

    private static let groups: [(consequence: Consequence, reason: String, keys: Set<String>)] = [
        (
            .harmless, "Java: folders of its installation",
            ["rocketmqHome", "configStorePath", "brokerConfigPath"]
        ),
        (
            .harmless, "Java: memory and page cache; Apus writes with pwrite and keeps the hot end in memory",
            [
                "transientStorePoolEnable", "transientStorePoolSize", "fastFailIfNoBufferInStorePool",
                "warmMapedFileEnable", "flushLeastPagesWhenWarmMapedFile", "osPageCacheBusyTimeOutMills",
                "commitIntervalCommitLog", "commitCommitLogLeastPages", "commitCommitLogThoroughInterval",
                "transferMsgByHeap", "useReentrantLockWhenPutMessage", "flushCommitLogTimed", "debugLockEnable",
                "destroyMapedFileIntervalForcibly", "redeleteHangedFileInterval", "putMsgIndexHightWater",
                "highSpeedMode", "messageIndexSafe", "diskFallRecorded", "isEnableBatchPush", "writeWithoutMmap",
                "bgWriteMappedFileEnable", "coldDataFlowControlEnable", "dataReadAheadEnable", "mappedFileSwapEnable",
                "topicQueueLockNum", "maxTopicQueueLockNum", "useABSLock",
            ]
        ),
        (
            .harmless, "Apus looks after its files at intervals of its own",
            [
                "deleteCommitLogFilesInterval", "deleteConsumeQueueFilesInterval", "flushConsumeQueueLeastPages",
                "flushConsumerOffsetHistoryInterval", "flushDelayOffsetInterval", "enableScheduleMessageStats",
                "enableScheduleAsyncDeliver", "scheduleAsyncDeliverMaxPendingLimit",
                "scheduleAsyncDeliverMaxResendNum2Blocked", "filterDataCleanTimeSpan", "deleteFileBatchMax",
                "cleanRocksDBDirtyCQIntervalMin",
            ]
        ),
        (
            .harmless, "filters run in workers of their own: see [filter]",
            [
                "enableConsumeQueueExt", "mappedFileSizeConsumeQueueExt", "bitMapLengthConsumeQueueExt",
                "enableCalcFilterBitMap", "expectConsumerNumUseFilter", "maxErrorRateOfBloomFilter",
                "filterSupportRetry", "filterServerNums",
            ]
        ),
        (
            .harmless, "part of DLedger, which enableDLegerCommitLog switches on",
            [
                "dLegerGroup", "dLegerPeers", "dLegerSelfId", "preferredLeaderId", "storePathDLedgerCommitLog",
                "isEnableBatchPush", "dledgerGroup", "dledgerPeers", "dledgerSelfId",
            ]
        ),
        (
            .harmless, "part of access control, which authenticationEnabled or aclEnable switches on",
            [
                "authenticationProvider", "authenticationStrategy", "authenticationWhitelist", "authorizationProvider",
                "authorizationStrategy", "authorizationWhitelist", "initAuthenticationUser",
                "innerClientAuthenticationCredentials", "authConfigPath",
            ]
        ),
        (
            .harmless, "sends and pulls do not wait in queues here that could grow too long",
            [
                "waitTimeMillsInSendQueue", "waitTimeMillsInPullQueue", "waitTimeMillsInHeartbeatQueue",
                "waitTimeMillsInTransactionQueue", "waitTimeMillsInLitePullQueue", "waitTimeMillsInAckQueue",
                "waitTimeMillsInAdminBrokerQueue", "disableConsumeIfConsumerReadSlowly", "consumerFallbehindThreshold",
            ]
        ),
        (
            .act, "many queues in one (LMQ, MQTT) are not supported: clients that need them get nothing",
            ["enableLmq", "enableMultiDispatch", "maxLmqConsumeQueueNum"]
        ),
        (
            .harmless, "who has which popped message is kept in a journal of its own here (popState)",
            [
                "popConsumerKVServiceEnable", "popConsumerFSServiceInit", "enablePopBufferMerge", "popPollingSize",
                "reviveQueueNum", "enablePopLog", "popCkStayBufferTime",
            ]
        ),
        (
            .act, "compacted topics (cleanup.policy) are kept whole here",
            ["enableCompaction", "compactionThreadNum", "compactionScheduleInternal", "offsetMapSize"]
        ),
        (
            .act, "Apus keeps no second name for a broker in a container: write each broker as a [[broker]] table",
            ["brokerConfigPaths", "isInBrokerContainer"]
        ),
        (
            .act, "Apus exports no metrics of its own: read the journal, apus status, or mqadmin",
            [
                "metricsExporterType", "metricsGrpcExporterTarget", "metricsPromExporterPort",
                "metricsPromExporterHost",
                "metricsLabel", "traceExporterType",
            ]
        ),
        (
            .harmless, "timer messages are always on; their files are looked after by Apus",
            [
                "timerWheelEnable", "timerPrecisionMs", "timerStopEnqueue", "timerStopDequeue",
                "timerEnableCheckMetrics",
                "timerInterceptDelayLevel", "timerFlushIntervalMs", "timerRollWindowSlot", "timerWarmEnable",
                "mappedFileSizeTimerLog", "timerGetMessageThreadNum", "timerPutMessageThreadNum",
                "timerProgressLogIntervalMs", "timerCongestNumEachSlot", "timerMaxMessageSize",
            ]
        ),
        (
            .harmless, "figures and logs are kept as they are: journald, apus status, mqadmin",
            [
                "enableDetailStat", "autoDeleteUnusedStats", "isolateLogEnable", "accountStatsEnable",
                "metricsInDelta", "commercialEnable",
            ]
        ),
        (.harmless, "of no use in RocketMQ 4.9.8 either", ["duplicationEnable", "maxDelayTime"]),
        (
            .harmless, "Apus registers in the form the name server understands",
            [
                "compressedRegister", "forceRegister", "enableSplitRegistration", "splitRegistrationSize",
                "brokerHeartbeatInterval", "brokerNotActiveTimeoutMillis", "skipPreOnline",
            ]
        ),
        (
            .harmless, "the client inside the Java broker", ["connectTimeoutMillis", "channelNotActiveInterval"]
        ),
        (
            .harmless, "Netty: buffers of Java's network library",
            [
                "useEpollNativeSelector", "writeBufferHighWaterMark", "writeBufferLowWaterMark",
                "enableShutdownGracefully", "shutdownWaitTimeSeconds",
            ]
        ),
        (
            .harmless,
            "settings of the name server's threads and scans; Apus has one loop and finds lost brokers itself",
            ofNameServers.subtracting(["kvConfigPath", "orderMessageEnable", "clusterTest", "productEnvName"])
        ),
        (
            .harmless, "of RocketMQ 5, with a meaning only for parts Apus does not have",
            [
                "enableMixedMessageType", "enableBroadcastOffsetStore", "broadcastOffsetExpireSecond",
                "useServerSideResetOffset", "enableStaticTopic", "autoMessageVersionOnTopicLen",
                "traceTopicEnableV2", "litePullMessageEnable", "slaveNoReadPermission", "maxFallbehindMemorySize",
                "haFlowControlEnable", "maxHaTransferByteInSecond", "syncMasterFlushOffsetWhenStartup",
                "syncBrokerMemberGroupPeriod", "syncControllerMetadataPeriod", "checkSyncStateSetPeriod",
                "brokerElectionPriority", "fetchNameSrvAddrByDnsLookup", "fetchNamesrvAddrByDnsLookup",
                "enableTransactionMetrics", "transactionMetricFlushInterval", "sendHeartbeatTimeoutMillis",
                "enableSingleTopicRegister", "asyncSendEnable", "realTimeNotifyConsumerChange",
                "validateSystemTopicWhenUpdateTopic",
                "appendAckAsync", "estimateAccumulation", "transactionOpMsgMaxSize", "transactionOpBatchInterval",
            ]
        ),
    ]

    private static let patterns: [(prefix: String, suffix: String, reason: String)] = [
        ("", "ThreadPoolNums", "one event loop serves all requests: there are no thread pools"),
        ("", "ThreadPoolCoreNums", "one event loop serves all requests: there are no thread pools"),
        ("", "QueueCapacity", "one event loop serves all requests: there are no thread pools"),
        ("commercial", "", "figures for billing"),
        ("server", "", "Netty: threads and buffers of Java's network library"),
        ("client", "", "the client inside the Java broker"),
    ]
}
