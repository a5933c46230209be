/// Rows of the table: name, section, readers, type, default, when a change holds, and what it means.
extension SettingTable {
    static let platform: [Setting] = [
        Setting(
            "logLevel", .platform, [.platform, .broker, .nameserver, .filter, .gateway],
            .choice(["trace", "debug", "info", "notice", "warning", "error", "critical"]), "info", .start,
            "how much is written to the journal: trace, debug, info, notice, warning, error or critical"),
        Setting(
            "namesrvAddr", .platform, [.platform, .broker, .gateway], .addresses, "", .running,
            "name servers to register with besides the platform's own; in [gateway] those whose brokers it serves"),
        Setting(
            "fetchNamesrvAddrByAddressServer", .platform, .broker, .boolean, "false", .start,
            "RocketMQ's address server", .none("name servers are named by namesrvAddr; there is no address server")),
        Setting(
            "pluginDirectory", .platform, [.platform, .broker, .filter], .path, "plugins in the data directory", .start,
            "where your filter plugins lie; /usr/local/lib/apus/plugins in an installed Apus (Apus)"),
        Setting(
            "disks", .platform, .platform, .text, "", .start,
            """
            a list of folders, one disk each: a broker for every one of them, with its store in DISK/store; number, \
            name and port stay with a disk (Apus)
            """
        ),
        Setting(
            "startWithout", .platform, .platform, .text, "", .start,
            """
            a list of settings, such as aclEnable, that promise what Apus does not have and that it starts without all \
            the same (Apus)
            """
        ),
    ]

    static let network: [Setting] = [
        Setting(
            "bindAddress", .network, [.platform, .broker, .nameserver, .gateway], .numericAddress, "127.0.0.1", .start,
            "address to listen on; 0.0.0.0 with a broker.conf or a brokerIP1 of the network, not for [gateway] (Apus)"
        ),
        Setting(
            "listenPort", .network, [.broker, .nameserver, .gateway], .integer(0...65535), "10911", .start,
            "port of the broker; [nameserver] has its own, 9876, and [gateway], 8080; 0 picks a free one"),
        Setting(
            "fastListenPort", .network, .broker, .integer(0...65535), "listenPort - 2", .start,
            "port clients use for the VIP channel"),
        Setting("haListenPort", .network, .broker, .integer(0...65535), "listenPort + 1", .start, "port for slaves"),
        Setting(
            "brokerIP1", .network, .broker, .host, "the machine's first address", .start,
            "address clients are told; a host name is looked up when the broker starts, and clients are told the name"),
        Setting("brokerIP2", .network, .broker, .host, "brokerIP1", .start, "address slaves are told"),
        Setting(
            "connectionsMax", .network, [.broker, .nameserver, .gateway], .integer(1...2_147_483_647), "10000", .start,
            "connections of a broker, name server or gateway at a time (Apus)"),
        Setting(
            "connectionsPerAddressMax", .network, [.broker, .nameserver, .gateway], .integer(1...2_147_483_647),
            "connectionsMax / 4", .start,
            "of those, from one remote address; the loopback addresses are not bounded (Apus)"),
        Setting(
            "serverChannelMaxIdleTimeSeconds", .network, [.broker, .nameserver], .integer(1...2_147_483_647), "120",
            .start, "connections silent for so long are closed"),
        Setting(
            "clientManageThreadPoolNums", .network, .broker, .integer(0...2_147_483_647), "", .start,
            "taken for RocketMQ's sake", .none("one event loop serves all requests: there are no thread pools")),
    ]

    static let identity: [Setting] = [
        Setting("brokerClusterName", .identity, .broker, .name, "DefaultCluster", .start, "the cluster"),
        Setting("brokerName", .identity, .broker, .name, "broker-a", .start, "a master and its slaves share it"),
        Setting(
            "brokerId", .identity, .broker, .integer(0...2_147_483_647), "0", .start, "0 is the master, above 0 a slave"
        ),
        Setting(
            "brokerRole", .identity, .broker, .choice(["ASYNC_MASTER", "SYNC_MASTER", "SLAVE"]), "ASYNC_MASTER",
            .running, "ASYNC_MASTER, SYNC_MASTER or SLAVE; a running master changes between the first two"),
        Setting("brokerPermission", .identity, .broker, .integer(0...7), "6", .running, "2 writes, 4 reads, 6 both"),
        Setting("regionId", .identity, .broker, .text, "DefaultRegion", .start, "a word in message traces"),
        Setting(
            "registerNameServerPeriod", .identity, .broker, .integer(1...2_147_483_647), "30000", .start,
            "milliseconds between registrations; 10000 to 60000 hold, as in RocketMQ"),
        Setting(
            "registerBrokerTimeoutMills", .identity, .broker, .integer(0...2_147_483_647), "24000", .start,
            "taken for RocketMQ's sake", .none("a name server has 6 s to answer and is tried again until it does")),
        Setting(
            "startAcceptSendRequestTimeStamp", .identity, .broker, .integer(0...Int64.max), "0", .running,
            "no sends before this time (milliseconds since 1970)"),
        Setting(
            "configBlackList", .identity, [.broker, .nameserver], .names, "configBlackList;brokerConfigPath", .start,
            "settings that updateBrokerConfig or updateNamesrvConfig may not change"),
    ]

    static let filter: [Setting] = [
        Setting(
            "count", .filter, .filter, .integer(0...64), "1", .start,
            "filter workers for tags and SQL92, 0 to 64 (Apus)"
        ),
        Setting(
            "pluginWorkers", .filter, .filter, .integer(1...32), "4", .start,
            """
            most workers for your plugins, started as there are plugins: each has one of its own while they last (Apus)
            """
        ),
        Setting(
            "filterMemoryMegabytes", .filter, .filter, .integer(64...1_048_576), "512", .start, "memory of one (Apus)"),
        Setting(
            "filterTimeBudgetMillis", .filter, .filter, .integer(1...3_600_000), "1000", .start,
            "time for one batch (Apus)"),
        Setting(
            "filterSandbox", .filter, .filter, .boolean, "true", .start, "no network, no writes for plugins (Apus)"),
        Setting(
            "filterReadable", .filter, .filter, .text, "", .start,
            "folders plugins may read besides libraries and the log, separated by : (Apus)"),
        Setting(
            "enablePropertyFilter", .filter, [.broker, .filter], .boolean, "as plugins allow", .running,
            "SQL92; RocketMQ's default is false"),
    ]

    static let nameserver: [Setting] = [
        Setting(
            "kvConfigPath", .nameserver, .nameserver, .path, "config/kvConfig.json", .start,
            "file of the key-value tables"),
        Setting(
            "orderMessageEnable", .nameserver, .nameserver, .boolean, "false", .running,
            "routes carry updateOrderConf's values"),
        Setting(
            "clusterTest", .nameserver, .nameserver, .boolean, "false", .start, "taken for RocketMQ's sake",
            .none("a name server answers from its own tables alone")),
        Setting(
            "productEnvName", .nameserver, .nameserver, .text, "center", .start, "taken for RocketMQ's sake",
            .none("it names the name servers that clusterTest asks")),
    ]

    static let gateway: [Setting] = [
        Setting(
            "accessTokens", .gateway, .gateway, .names, "", .running,
            """
            tokens of which each request needs one (Authorization: Bearer TOKEN), 16 to 256 visible characters each, \
            separated by ;; needed to listen beyond the loopback addresses (Apus)
            """
        )
    ]
}
