/// What broker and supervisor both must know of a broker's settings.
package enum BrokerSettings {
    /// Settings that are read once, when the broker starts or earlier: a change needs a restart of its worker.
    package static let readAtStart: Set<String> = [
        "allocateAheadBytes", "bindAddress", "brokerClusterName", "brokerId", "brokerIP1", "brokerIP2", "brokerName",
        "brokerTopicEnable", "checkCRCOnRecover", "clusterTopicEnable", "connectionsMax", "connectionsPerAddressMax", "enabledAppendPropCRC", "fastListenPort",
        "flushConsumerOffsetInterval", "forceVerifyPropCRC",
        "haHousekeepingInterval", "haListenPort", "haMasterAddress", "haSendHeartbeatInterval", "haTransferBatchSize",
        "listenPort", "mappedFileSizeCommitLog", "mappedFileSizeConsumeQueue", "maxHashSlotNum", "maxIndexNum",
        "messageDelayLevel", "messageIndexEnable", "msgTraceTopicName", "namesrvAddr", "rebalanceLockMaxLiveTime",
        "recallMessageEnable", "recordSumEnable", "regionId", "registerNameServerPeriod", "sendfileBytesMin",
        "serverChannelMaxIdleTimeSeconds", "storePathCommitLog", "storePathRootDir", "storeReplyMessageEnable",
        "timerMaxDelaySec", "traceOn", "traceTopicEnable",
    ]
}
