/// The settings Apus reads, by RocketMQ's names where RocketMQ has the setting. Others are kept, passed on to the workers
/// and reported once at start-up. Tests/SupervisionTests compares this list with what the sources ask for.
package enum KnownKeys {
    package static let integers = [
        "accessMessageInMemoryMaxRatio", "allocateAheadBytes", "backgroundCheckBytesPerSecond", "brokerId",
        "cleanResourceInterval",
        "clientManageThreadPoolNums", "count", "defaultQueryMaxNum", "defaultTopicQueueNums",
        "diskMaxUsedSpaceRatio", "diskReservedBytes", "fastListenPort", "fileReservedTime",
        "filterMemoryMegabytes", "filterTimeBudgetMillis", "flushCommitLogLeastPages",
        "flushCommitLogThoroughInterval", "flushConsumeQueueThoroughInterval", "flushConsumerOffsetInterval",
        "flushIntervalCommitLog", "flushIntervalConsumeQueue", "haHousekeepingInterval", "haListenPort",
        "haSendHeartbeatInterval", "haSlaveFallbehindMax", "haTransferBatchSize", "listenPort",
        "mappedFileSizeCommitLog", "mappedFileSizeConsumeQueue", "maxHashSlotNum",
        "maxIndexNum", "maxMessageSize", "maxMsgsNumBatch", "maxTransferBytesOnMessageInDisk",
        "maxTransferBytesOnMessageInMemory", "maxTransferCountOnMessageInDisk",
        "maxTransferCountOnMessageInMemory", "rebalanceLockMaxLiveTime", "registerBrokerTimeoutMills",
        "registerNameServerPeriod",
        "sendThreadPoolQueueCapacity", "sendfileBytesMin", "serverChannelMaxIdleTimeSeconds", "shortPollingTimeMills",
        "slaveTimeout", "startAcceptSendRequestTimeStamp", "syncFlushTimeout", "timerMaxDelaySec",
        "transactionCheckInterval", "transactionCheckMax", "transactionTimeOut",
    ]

    package static let booleans = [
        "autoCreateSubscriptionGroup", "autoCreateTopicEnable", "brokerFastFailureEnable", "brokerTopicEnable",
        "checkCRCOnRecover", "cleanFileForciblyEnable", "clusterTest", "clusterTopicEnable",
        "enablePropertyFilter", "enabledAppendPropCRC",
        "fetchNamesrvAddrByAddressServer", "filterSandbox", "forceVerifyPropCRC", "longPollingEnable",
        "messageIndexEnable",
        "notifyConsumerIdsChangedEnable", "offsetCheckInSlave", "orderMessageEnable", "recallMessageEnable",
        "recordSumEnable", "rejectTransactionMessage", "slaveReadEnable", "storeReplyMessageEnable", "traceOn",
        "traceTopicEnable",
    ]

    package static let texts = [
        "bindAddress", "brokerClusterName", "brokerIP1", "brokerIP2", "brokerName", "brokerPermission",
        "brokerRole", "configBlackList", "deleteWhen", "disks", "filterReadable", "flushDiskType",
        "haMasterAddress", "kvConfigPath", "logLevel", "messageDelayLevel", "msgTraceTopicName", "namesrvAddr",
        "pluginDirectory", "productEnvName", "regionId",
        "storePathCommitLog", "storePathRootDir",
    ]

    /// What the supervisor tells a broker of its disk and of the platform; nobody sets them.
    package static let told = ["diskIdentity", "diskPath", "diskServed", "diskSlot", "ownNamesrvAddr"]

    static let all = Set(integers + booleans + texts + told)

    static func unknown(in raw: RawConfiguration) -> [String] {
        var found = Set(raw.common.keys)
        for broker in raw.brokers { found.formUnion(broker.keys) }
        var unknown = found.subtracting(all).sorted()
        unknown += Set(raw.nameserver.keys).subtracting(all).sorted().map { "nameserver.\($0)" }
        unknown += Set(raw.filter.keys).subtracting(all).sorted().map { "filter.\($0)" }
        return unknown
    }
}
