import MessageStore
import WorkerProtocol

extension BrokerConfiguration {
    /// What holds, whether it was set or not, under RocketMQ's names: what GET_BROKER_CONFIG (26) answers besides
    /// the pairs as they were set.
    var listing: [(key: String, value: String)] {
        let texts = [
            ("brokerName", brokerName), ("brokerClusterName", brokerClusterName), ("brokerIP1", brokerIP1),
            ("brokerIP2", brokerIP2), ("brokerRole", brokerRole.name),
            ("namesrvAddr", namesrvAddr.joined(separator: ";")),
            ("msgTraceTopicName", msgTraceTopicName), ("regionId", regionID),
            ("configBlackList", configBlackList.joined(separator: ";")), ("messageDelayLevel", messageDelayLevel),
            ("defaultMessageRequestMode", defaultMessageRequestMode),
        ]
        let numbers: [(String, Int64)] = [
            ("brokerId", brokerID), ("listenPort", Int64(listenPort)), ("haListenPort", Int64(haListenPort)),
            ("brokerPermission", Int64(brokerPermission)), ("defaultTopicQueueNums", Int64(defaultTopicQueueNums)),
            ("shortPollingTimeMills", shortPollingTimeMills),
            ("defaultPopShareQueueNum", Int64(defaultPopShareQueueNum)),
            ("messageTrailBytesMax", messageTrailBytesMax),
            ("flushConsumerOffsetInterval", flushConsumerOffsetInterval),
            ("rebalanceLockMaxLiveTime", rebalanceLockMaxLiveTime),
            ("registerNameServerPeriod", registerNameServerPeriod),
            ("startAcceptSendRequestTimeStamp", startAcceptSendRequestTimeStamp),
            ("sendThreadPoolQueueCapacity", Int64(sendsWaitingMax)), ("syncFlushTimeout", syncFlushTimeoutMilliseconds),
            ("slaveTimeout", slaveTimeoutMilliseconds), ("haSlaveFallbehindMax", haSlaveFallbehindMax),
            ("defaultQueryMaxNum", Int64(defaultQueryMaxNum)),
            // There are no filter servers; mqadmin exportConfigs of 4.9 fails without the key.
            ("filterServerNums", 0),
        ]
        let switches = [
            ("autoCreateTopicEnable", autoCreateTopicEnable),
            ("autoCreateSubscriptionGroup", autoCreateSubscriptionGroup), ("clusterTopicEnable", clusterTopicEnable),
            ("brokerTopicEnable", brokerTopicEnable), ("traceTopicEnable", traceTopicEnable), ("traceOn", traceOn),
            ("rejectTransactionMessage", rejectTransactionMessage), ("longPollingEnable", longPollingEnable),
            ("serverLoadBalancerEnable", serverLoadBalancerEnable), ("popDeadLetterEnable", popDeadLetterEnable),
            ("slaveReadEnable", slaveReadEnable), ("notifyConsumerIdsChangedEnable", notifyConsumerIdsChangedEnable),
            // There is no TLS; the same command needs the key.
            ("useTLS", false),
        ]
        return texts + numbers.map { ($0.0, String($0.1)) } + switches.map { ($0.0, String($0.1)) }
    }
}

extension StoreConfiguration {
    /// As `BrokerConfiguration.listing`, for the store.
    var listing: [(key: String, value: String)] {
        let numbers: [(String, Int)] = [
            ("mappedFileSizeCommitLog", mappedFileSizeCommitLog),
            ("mappedFileSizeConsumeQueue", mappedFileSizeConsumeQueue), ("maxHashSlotNum", maxHashSlotNum),
            ("maxIndexNum", maxIndexNum), ("maxMsgsNumBatch", maxMsgsNumBatch),
            ("flushIntervalCommitLog", flushIntervalCommitLog), ("flushCommitLogLeastPages", flushCommitLogLeastPages),
            ("flushCommitLogThoroughInterval", flushCommitLogThoroughInterval),
            ("flushIntervalConsumeQueue", flushIntervalConsumeQueue),
            ("flushConsumeQueueThoroughInterval", flushConsumeQueueThoroughInterval),
            ("maxMessageSize", maxMessageSize),
            ("maxTransferBytesOnMessageInMemory", maxTransferBytesOnMessageInMemory),
            ("maxTransferCountOnMessageInMemory", maxTransferCountOnMessageInMemory),
            ("maxTransferBytesOnMessageInDisk", maxTransferBytesOnMessageInDisk),
            ("maxTransferCountOnMessageInDisk", maxTransferCountOnMessageInDisk),
            ("accessMessageInMemoryMaxRatio", accessMessageInMemoryMaxRatio), ("fileReservedTime", fileReservedTime),
            ("diskMaxUsedSpaceRatio", diskMaxUsedSpaceRatio), ("cleanResourceInterval", cleanResourceInterval),
            ("diskReservedBytes", Int(diskReservedBytes)),
            ("backgroundCheckBytesPerSecond", backgroundCheckBytesPerSecond),
        ]
        let switches = [
            ("messageIndexEnable", messageIndexEnable), ("checkCRCOnRecover", checkCRCOnRecover),
            ("offsetCheckInSlave", offsetCheckInSlave), ("recordSumEnable", recordSumEnable),
            ("cleanFileForciblyEnable", cleanFileForciblyEnable),
        ]
        return numbers.map { ($0.0, String($0.1)) } + switches.map { ($0.0, String($0.1)) } + [
            ("storePathRootDir", storePathRootDir), ("storePathCommitLog", commitLogPath), ("deleteWhen", deleteWhen),
            ("flushDiskType", flushDiskType == .syncFlush ? "SYNC_FLUSH" : "ASYNC_FLUSH"),
        ]
    }
}
