/// The settings Apus reads, by RocketMQ's names where RocketMQ has the setting. Others are kept, passed on to the workers
/// and reported once at start-up. Tests/SupervisionTests compares this list with what the sources ask for.
package enum KnownKeys {
    package static let integers = [
        "accessMessageInMemoryMaxRatio", "allocateAheadBytes", "backgroundCheckBytesPerSecond", "brokerId",
        "cleanResourceInterval",
        "clientManageThreadPoolNums", "connectionsMax", "connectionsPerAddressMax", "count", "defaultQueryMaxNum",
        "defaultTopicQueueNums",
        "diskMaxUsedSpaceRatio", "diskReservedBytes", "fastListenPort", "fileReservedTime",
        "filterMemoryMegabytes", "filterTimeBudgetMillis", "flushCommitLogLeastPages",
        "flushCommitLogThoroughInterval", "flushConsumeQueueThoroughInterval", "flushConsumerOffsetInterval",
        "flushIntervalCommitLog", "flushIntervalConsumeQueue", "haHousekeepingInterval", "haListenPort",
        "haSendHeartbeatInterval", "haSlaveFallbehindMax", "haTransferBatchSize", "listenPort",
        "mappedFileSizeCommitLog", "mappedFileSizeConsumeQueue", "maxHashSlotNum",
        "maxIndexNum", "maxMessageSize", "maxMsgsNumBatch", "maxTransferBytesOnMessageInDisk",
        "maxTransferBytesOnMessageInMemory", "maxTransferCountOnMessageInDisk",
        "maxTransferCountOnMessageInMemory", "pluginWorkers", "rebalanceLockMaxLiveTime", "registerBrokerTimeoutMills",
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
    package static let told = [
        "diskIdentity", "diskPath", "diskServed", "diskSlot", "filterBuiltIns", "filterPlugins", "ownNamesrvAddr",
    ]

    static let all = Set(integers + booleans + texts)

    /// With their tables: `nameserver.KEY`, `filter.KEY`.
    static func unknown(in raw: RawConfiguration) -> [String] {
        let ofBrokers = raw.brokers.reduce(into: Set(raw.common.keys)) { $0.formUnion($1.keys) }
        return [("", ofBrokers), ("nameserver.", Set(raw.nameserver.keys)), ("filter.", Set(raw.filter.keys))]
            .flatMap { table, keys in keys.subtracting(all).sorted().map { table + $0 } }
    }

    /// The setting somebody meant who wrote one that nobody reads (with its table: `nameserver.KEY`). nil: none is near.
    package static func meant(by unknown: String) -> String? {
        let parts = unknown.split(separator: ".", maxSplits: 1).map(String.init)
        guard let key = parts.last, let name = Spelling.nearest(to: key, among: all) else { return nil }
        return parts.count == 2 ? "\(parts[0]).\(name)" : name
    }
}
