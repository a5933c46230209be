/// The settings Apus reads, by RocketMQ's names where RocketMQ has the setting. Others are kept, passed on to the workers
/// and reported once at start-up. Tests/SupervisionTests compares this list with what the sources ask for.
package enum KnownKeys {
    package static let integers = [
        "brokerId", "clientManageThreadPoolNums", "count", "defaultTopicQueueNums",
        "diskMaxUsedSpaceRatio", "filterMemoryMegabytes", "filterTimeBudgetMillis", "fastListenPort",
        "fileReservedTime", "flushConsumerOffsetInterval",
        "flushIntervalCommitLog",
        "haListenPort", "haSlaveFallbehindMax", "haTransferBatchSize", "haHousekeepingInterval", "listenPort",
        "haSendHeartbeatInterval", "longPollingMillis", "mappedFileSizeCommitLog", "mappedFileSizeConsumeQueue",
        "maxHashSlotNum", "maxIndexNum",
        "maxMessageSize", "maxTransferBytesOnMessageInMemory", "maxTransferCountOnMessageInMemory",
        "registerBrokerTimeoutMills",
        "registerNameServerPeriod", "serverChannelMaxIdleTimeSeconds", "syncFlushTimeout",
    ]

    package static let booleans = [
        "autoCreateSubscriptionGroup", "autoCreateTopicEnable", "brokerFastFailureEnable", "clusterTopicEnable",
        "brokerTopicEnable", "enablePropertyFilter", "filterSandbox", "fetchNamesrvAddrByAddressServer",
        "longPollingEnable",
        "messageIndexEnable", "rejectTransactionMessage", "slaveReadEnable", "traceTopicEnable",
    ]

    package static let texts = [
        "bindAddress", "brokerClusterName", "brokerIP1", "brokerIP2", "brokerName", "brokerPermission", "brokerRole",
        "deleteWhen", "flushDiskType", "haMasterAddress", "kvConfigPath", "logLevel", "messageDelayLevel",
        "msgTraceTopicName",
        "namesrvAddr", "pluginDirectory", "storePathCommitLog", "storePathRootDir",
    ]

    static let all = Set(integers + booleans + texts)

    static func unknown(in raw: RawConfiguration) -> [String] {
        var found = Set(raw.common.keys)
        for broker in raw.brokers { found.formUnion(broker.keys) }
        var unknown = found.subtracting(all).sorted()
        unknown += Set(raw.nameserver.keys).subtracting(all).sorted().map { "nameserver.\($0)" }
        unknown += Set(raw.filter.keys).subtracting(all).sorted().map { "filter.\($0)" }
        return unknown
    }
}
