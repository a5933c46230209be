/// What each setting means, for `apus config import` and the page apus.toml(5). Names and meanings are RocketMQ's;
/// settings of Apus alone say so. Tests/ApusTests compares the names with `KnownKeys`.
struct SettingDescription {
    enum Table: String, CaseIterable {
        case platform = "The platform"
        case network = "Addresses and ports"
        case identity = "Broker: identity and role"
        case topics = "Broker: topics and groups"
        case store = "Broker: store and flushing"
        case retention = "Broker: retention and full disks"
        case replication = "Broker: replication"
        case messages = "Broker: messages and pulls"
        case filter = "Filter workers, in [filter] or for all"
        case nameserver = "Name server, in [nameserver]"
    }

    let key: String
    let table: Table
    /// The value when nothing is said, as one writes it; empty: none.
    let standard: String
    let meaning: String

    private init(_ key: String, _ table: Table, _ standard: String, _ meaning: String) {
        self.key = key
        self.table = table
        self.standard = standard
        self.meaning = meaning
    }

    static func of(_ key: String) -> SettingDescription? { all.first { $0.key == key } }

    static let all: [SettingDescription] =
        platform + network + identity + topics + store + retention + replication + messages + filter + nameserver

    private static let platform = [
        SettingDescription("logLevel", .platform, "info", "trace, debug, info, notice, warning, error or critical"),
        SettingDescription(
            "namesrvAddr", .platform, "", "name servers to register with besides the platform's own, separated by ;"),
        SettingDescription(
            "fetchNamesrvAddrByAddressServer", .platform, "false", "RocketMQ's address server; always off here"),
        SettingDescription(
            "pluginDirectory", .platform, "plugins in the data directory",
            "where your filter plugins lie; /usr/local/lib/apus/plugins in an installed Apus (Apus)"),
        SettingDescription(
            "disks", .platform, "",
            "a list of folders, one disk each: a broker for every one of them, with its store in DISK/store; number, name and "
                + "port stay with a disk (Apus)"),
    ]

    private static let network = [
        SettingDescription(
            "bindAddress", .network, "127.0.0.1",
            "address to listen on; 0.0.0.0 with a broker.conf or a brokerIP1 of the network (Apus)"),
        SettingDescription(
            "listenPort", .network, "10911", "port of the broker; [nameserver] has its own, 9876; 0 picks a free one"),
        SettingDescription("fastListenPort", .network, "listenPort - 2", "port clients use for the VIP channel"),
        SettingDescription("haListenPort", .network, "listenPort + 1", "port for slaves"),
        SettingDescription("brokerIP1", .network, "the machine's first address", "address clients are told"),
        SettingDescription("brokerIP2", .network, "brokerIP1", "address slaves are told"),
        SettingDescription(
            "connectionsMax", .network, "10000", "connections of a broker or name server at a time (Apus)"),
        SettingDescription(
            "connectionsPerAddressMax", .network, "connectionsMax / 4",
            "of those, from one remote address; this machine's own are not counted (Apus)"),
        SettingDescription(
            "serverChannelMaxIdleTimeSeconds", .network, "120", "connections silent for so long are closed"),
        SettingDescription(
            "clientManageThreadPoolNums", .network, "", "taken for RocketMQ's sake; there is one loop, no pool"),
    ]

    private static let identity = [
        SettingDescription("brokerClusterName", .identity, "DefaultCluster", "the cluster"),
        SettingDescription("brokerName", .identity, "broker-a", "a master and its slaves share it"),
        SettingDescription("brokerId", .identity, "0", "0 is the master, above 0 a slave"),
        SettingDescription("brokerRole", .identity, "ASYNC_MASTER", "ASYNC_MASTER, SYNC_MASTER or SLAVE"),
        SettingDescription("brokerPermission", .identity, "6", "2 writes, 4 reads, 6 both"),
        SettingDescription("regionId", .identity, "DefaultRegion", "a word in message traces"),
        SettingDescription(
            "registerNameServerPeriod", .identity, "30000", "milliseconds between registrations, 10000 to 60000"),
        SettingDescription("registerBrokerTimeoutMills", .identity, "24000", "patience with a name server"),
        SettingDescription(
            "startAcceptSendRequestTimeStamp", .identity, "0", "no sends before this time (milliseconds since 1970)"),
        SettingDescription(
            "configBlackList", .identity, "configBlackList;brokerConfigPath",
            "settings that updateBrokerConfig may not change"),
    ]

    private static let topics = [
        SettingDescription(
            "autoCreateTopicEnable", .topics, "true", "a send to an unknown topic creates it"),
        SettingDescription(
            "autoCreateSubscriptionGroup", .topics, "true", "an unknown consumer group is created when it comes"),
        SettingDescription("defaultTopicQueueNums", .topics, "8", "most queues of a topic created that way"),
        SettingDescription("clusterTopicEnable", .topics, "true", "a topic with the cluster's name exists"),
        SettingDescription("brokerTopicEnable", .topics, "true", "a topic with the broker's name exists"),
        SettingDescription("traceTopicEnable", .topics, "false", "the topic for message traces exists"),
        SettingDescription("msgTraceTopicName", .topics, "RMQ_SYS_TRACE_TOPIC", "its name"),
        SettingDescription("traceOn", .topics, "true", "clients are told that traces are wanted"),
        SettingDescription(
            "flushConsumerOffsetInterval", .topics, "5000", "milliseconds between writes of consumer offsets"),
        SettingDescription(
            "rebalanceLockMaxLiveTime", .topics, "60000", "milliseconds an orderly consumer's queue lock lasts (Apus)"),
        SettingDescription(
            "notifyConsumerIdsChangedEnable", .topics, "true", "consumers are told when one comes or goes"),
    ]

    private static let store = [
        SettingDescription("storePathRootDir", .store, "store", "the store's folder, below the data directory"),
        SettingDescription("storePathCommitLog", .store, "commitlog", "the log's folder, below storePathRootDir"),
        SettingDescription(
            "mappedFileSizeCommitLog", .store, "1073741824", "bytes of a log file; fixed with the store"),
        SettingDescription("mappedFileSizeConsumeQueue", .store, "6000000", "bytes of a queue file; fixed as well"),
        SettingDescription("flushDiskType", .store, "ASYNC_FLUSH", "SYNC_FLUSH answers when the disk has it"),
        SettingDescription("syncFlushTimeout", .store, "5000", "milliseconds to wait for that"),
        SettingDescription("flushIntervalCommitLog", .store, "500", "milliseconds between asynchronous flushes"),
        SettingDescription("flushCommitLogLeastPages", .store, "4", "pages of 4 KiB worth a flush"),
        SettingDescription("flushCommitLogThoroughInterval", .store, "10000", "a flush however little waits"),
        SettingDescription("flushIntervalConsumeQueue", .store, "1000", "milliseconds between writes of queues"),
        SettingDescription("flushConsumeQueueThoroughInterval", .store, "60000", "milliseconds between checkpoints"),
        SettingDescription("messageIndexEnable", .store, "true", "messages can be found by key"),
        SettingDescription(
            "recordSumEnable", .store, "true",
            "a sum of each whole message beside the log, so that no flipped bit is delivered"),
        SettingDescription("maxHashSlotNum", .store, "5000000", "slots of an index file"),
        SettingDescription("maxIndexNum", .store, "20000000", "entries of an index file"),
        SettingDescription("maxMsgsNumBatch", .store, "64", "most messages a key query returns"),
        SettingDescription("checkCRCOnRecover", .store, "true", "recovery checks message bodies"),
        SettingDescription(
            "enabledAppendPropCRC", .store, "false", "records carry a checksum of every field, 20 bytes (5.x)"),
        SettingDescription(
            "forceVerifyPropCRC", .store, "false", "records without one are not delivered (5.x)"),
        SettingDescription("allocateAheadBytes", .store, "", "bytes of the log prepared ahead (Apus)"),
    ]

    private static let retention = [
        SettingDescription("fileReservedTime", .retention, "72", "hours a log file is kept"),
        SettingDescription("deleteWhen", .retention, "04", "hours of the day at which old files go, separated by ;"),
        SettingDescription("diskMaxUsedSpaceRatio", .retention, "75", "per cent used above which the oldest files go"),
        SettingDescription("cleanFileForciblyEnable", .retention, "true", "on a nearly full disk also younger ones"),
        SettingDescription("cleanResourceInterval", .retention, "10000", "milliseconds between looks"),
        SettingDescription("diskReservedBytes", .retention, "", "bytes never filled with messages (Apus)"),
    ]

    private static let replication = [
        SettingDescription("haMasterAddress", .replication, "", "a slave's master, HOST:PORT of its haListenPort"),
        SettingDescription("haSendHeartbeatInterval", .replication, "5000", "milliseconds"),
        SettingDescription("haHousekeepingInterval", .replication, "20000", "a silent connection ends after it"),
        SettingDescription("haTransferBatchSize", .replication, "32768", "bytes sent to a slave at a time"),
        SettingDescription("haSlaveFallbehindMax", .replication, "268435456", "bytes behind which no ack waits for"),
        SettingDescription("slaveTimeout", .replication, "3000", "milliseconds a SYNC_MASTER waits for a slave"),
        SettingDescription("slaveReadEnable", .replication, "false", "consumers far behind are sent to a slave"),
        SettingDescription("offsetCheckInSlave", .replication, "false", "a slave corrects consumers' offsets"),
    ]

    private static let messages = [
        SettingDescription("maxMessageSize", .messages, "4194304", "most bytes of a body"),
        SettingDescription(
            "messageDelayLevel", .messages, "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",
            "the delays of levels 1, 2, …"),
        SettingDescription("timerMaxDelaySec", .messages, "31622400", "longest delay of a timer message (5.x)"),
        SettingDescription("recallMessageEnable", .messages, "true", "timer messages can be taken back (5.x)"),
        SettingDescription("rejectTransactionMessage", .messages, "false", "transactions are refused"),
        SettingDescription("transactionTimeOut", .messages, "6000", "milliseconds until a producer is asked"),
        SettingDescription("transactionCheckInterval", .messages, "60000", "milliseconds between questions"),
        SettingDescription("transactionCheckMax", .messages, "15", "questions before a message is given up"),
        SettingDescription("storeReplyMessageEnable", .messages, "true", "replies of request-reply are stored"),
        SettingDescription("longPollingEnable", .messages, "true", "a pull waits for messages"),
        SettingDescription("shortPollingTimeMills", .messages, "1000", "the wait when long polling is off"),
        SettingDescription(
            "sendThreadPoolQueueCapacity", .messages, "100000",
            "sends that may wait for disk or slave; more are refused"
        ),
        SettingDescription("brokerFastFailureEnable", .messages, "true", "taken for RocketMQ's sake"),
        SettingDescription("maxTransferBytesOnMessageInMemory", .messages, "262144", "most bytes of a pull"),
        SettingDescription("maxTransferCountOnMessageInMemory", .messages, "32", "most messages of a pull"),
        SettingDescription("maxTransferBytesOnMessageInDisk", .messages, "65536", "the same far behind"),
        SettingDescription("maxTransferCountOnMessageInDisk", .messages, "8", "the same far behind"),
        SettingDescription("accessMessageInMemoryMaxRatio", .messages, "40", "per cent of memory that is not far"),
        SettingDescription("defaultQueryMaxNum", .messages, "32", "most messages with one client-made id"),
    ]

    private static let filter = [
        SettingDescription("count", .filter, "1", "filter workers for tags and SQL92, 0 to 64 (Apus)"),
        SettingDescription(
            "pluginWorkers", .filter, "4",
            "most workers for your plugins, started as there are plugins: each has one of its own while they last (Apus)"
        ),
        SettingDescription("filterMemoryMegabytes", .filter, "512", "memory of one (Apus)"),
        SettingDescription("filterTimeBudgetMillis", .filter, "1000", "time for one batch (Apus)"),
        SettingDescription("filterSandbox", .filter, "true", "no network, no writes for plugins (Apus)"),
        SettingDescription("enablePropertyFilter", .filter, "as plugins allow", "SQL92; RocketMQ's default is false"),
    ]

    private static let nameserver = [
        SettingDescription("kvConfigPath", .nameserver, "config/kvConfig.json", "file of the key-value tables"),
        SettingDescription("orderMessageEnable", .nameserver, "false", "routes carry updateOrderConf's values"),
        SettingDescription("clusterTest", .nameserver, "false", "taken for RocketMQ's sake"),
        SettingDescription("productEnvName", .nameserver, "center", "taken for RocketMQ's sake"),
    ]
}
