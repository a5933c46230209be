import MessageStore
import RemotingProtocol
package import SettingTable
package import WorkerProtocol

/// The settings of one broker, under RocketMQ's key names with RocketMQ's meanings and defaults; types and bounds are
/// those of `SettingTable`. The pairs are kept: GET_BROKER_CONFIG answers with them, unknown keys included.
package struct BrokerConfiguration {
    /// Master and slaves share it; clients see it in every route.
    package var brokerName = "broker-a"
    /// Also the name of a topic this broker has (`clusterTopicEnable`).
    package var brokerClusterName = "DefaultCluster"
    /// 0 is the master; slaves have positive identifiers.
    package var brokerID: Int64 = 0
    /// What an acknowledgement waits for besides the disk.
    package var brokerRole = BrokerRole.asyncMaster
    /// The address clients are to use, and the host in every message identifier.
    package var brokerIP1 = "127.0.0.1"
    /// The address slaves reach the master at.
    package var brokerIP2 = "127.0.0.1"
    /// The VIP port is 2 below it.
    package var listenPort = 10911
    /// The port slaves connect to for the log.
    package var haListenPort = 10912
    /// Name servers, separated by `;` as RocketMQ does.
    package var namesrvAddr: [String] = []
    /// The store's folder.
    package var storePathRootDir = ""

    /// Bits of `Permission`: what this broker offers of every topic.
    package var brokerPermission = Permission.read | Permission.write
    /// Whether a send to an unknown topic makes it.
    package var autoCreateTopicEnable = true
    /// Whether an unknown group is made when it shows up.
    package var autoCreateSubscriptionGroup = true
    /// Queues of a topic made by a send, unless its client wants fewer.
    package var defaultTopicQueueNums = 8
    /// Whether the topic of the cluster's name can be used.
    package var clusterTopicEnable = true
    /// Whether the topic of the broker's name can be used.
    package var brokerTopicEnable = true
    /// Whether this broker takes traces.
    package var traceTopicEnable = false
    /// The topic traces go to.
    package var msgTraceTopicName = TopicNames.trace
    /// Whether clients are to trace: `TRACE_ON` of stored messages and of answers to sends.
    package var traceOn = true
    /// `MSG_REGION` of stored messages, and of answers to sends and recalls.
    package var regionID = "DefaultRegion"
    /// Half messages are refused.
    package var rejectTransactionMessage = false
    /// Whether a pull without messages is held; else it is looked at again after `shortPollingTimeMills`
    /// milliseconds.
    package var longPollingEnable = true
    /// Milliseconds a pull waits where long polling is off.
    package var shortPollingTimeMills: Int64 = 1000
    /// `PULL` or `POP`: how groups read that have no mode of their own.
    package var defaultMessageRequestMode = "PULL"
    /// Queues of other members a popping client reads besides its own; below 1: all.
    package var defaultPopShareQueueNum: Int32 = -1
    /// Bytes of journals of claims that are kept for the trail; 0: none.
    package var messageTrailBytesMax: Int64 = 64 << 20
    /// Whether messages popped more often than their group may try become dead letters.
    package var popDeadLetterEnable = false
    /// Whether the broker divides queues among clients that ask for it.
    package var serverLoadBalancerEnable = true
    /// Whether consumers far behind are sent to a slave.
    package var slaveReadEnable = false
    /// Whether a group's consumers are notified at once when one comes or goes.
    package var notifyConsumerIdsChangedEnable = true
    /// Milliseconds.
    package var flushConsumerOffsetInterval: Int64 = 5000
    /// Milliseconds a queue lock holds that is not renewed.
    package var rebalanceLockMaxLiveTime: Int64 = 60_000
    /// Milliseconds between registrations; 10 000 to 60 000 hold.
    package var registerNameServerPeriod: Int64 = 30_000
    /// Sends are refused before this time, milliseconds since 1970.
    package var startAcceptSendRequestTimeStamp: Int64 = 0
    /// `nil`, the default, lets the filter worker decide by the plugins it has loaded. RocketMQ's own default is
    /// `false` because there the expression runs inside the broker; here it cannot harm it. An explicit `false`
    /// refuses.
    package var enablePropertyFilter: Bool?
    /// Keys request 25 refuses.
    package var configBlackList = ["configBlackList", "brokerConfigPath"]

    /// `sendThreadPoolQueueCapacity`: messages that may wait for disk or slave before more are refused. RocketMQ's is
    /// 10 000 requests waiting for a thread; here what waits is stored already and costs a few hundred bytes.
    package var sendsWaitingMax = 100_000
    /// Bytes of body.
    package var maxMessageSize = 4 * 1024 * 1024
    /// `flushDiskType=SYNC_FLUSH`: a send waits for the disk.
    package var syncFlush = false
    /// Milliseconds a send waits for the disk; then FLUSH_DISK_TIMEOUT says that it may be lost.
    package var syncFlushTimeoutMilliseconds: Int64 = 5000
    /// Milliseconds a send waits for a slave; then FLUSH_SLAVE_TIMEOUT says that it may be lost.
    package var slaveTimeoutMilliseconds: Int64 = 3000
    /// Bytes: no send waits for a slave that is further behind. The answer is SLAVE_NOT_AVAILABLE.
    package var haSlaveFallbehindMax: Int64 = 256 * 1024 * 1024
    /// The delay of each level from 1 on; a text that is no list of delays is not taken.
    package private(set) var messageDelayLevel = DelayLevels.standardText
    /// Most bytes of one pull.
    package var maxTransferBytesOnMessageInMemory = 256 * 1024
    /// Most messages of one pull.
    package var maxTransferCountOnMessageInMemory = 32
    /// Most messages of a query by key.
    package var defaultQueryMaxNum = 32
    /// Whether a slave corrects consumers' offsets, too.
    package var offsetCheckInSlave = false

    /// Everything as it came, in order, later pairs winning.
    package private(set) var pairs: [(key: String, value: String)] = []

    /// Everything at its default.
    package init() {}

    /// - Throws: the first pair whose value is not usable.
    package init(_ pairs: [(String, String)]) throws(SettingRefusal) {
        for (key, value) in pairs { try set(key, value) }
    }

    /// The `ip:port` clients reach this broker at.
    package var address: String { "\(brokerIP1):\(listenPort)" }
    /// The `ip:port` slaves reach it at.
    package var haServerAddress: String { "\(brokerIP2):\(haListenPort)" }
    /// By `brokerRole`; `brokerID` does not count.
    package var isSlave: Bool { brokerRole == .slave }

    /// As it was written; nil when it was not.
    package func raw(_ key: String) -> String? { pairs.last { $0.key == key }?.value }

    /// A whole number as it was written; nil when it was not.
    func integer(_ key: String) -> Int64? { raw(key).flatMap { SettingType.integer($0) } }

    /// `true` or `false` as it was written; nil when it was not.
    func flag(_ key: String) -> Bool? { raw(key).flatMap { SettingType.boolean($0) } }

    /// Takes one pair; of one key the later counts.
    /// - Throws: why the value is not usable; then nothing has changed.
    package mutating func set(_ key: String, _ text: String) throws(SettingRefusal) {
        let value = try SettingTable.canonical(key, text.trimmedBlanks)
        if let index = pairs.firstIndex(where: { $0.key == key }) {
            pairs[index].value = value
        } else {
            pairs.append((key, value))
        }
        // A text without letters is as if it were not set.
        guard !value.isEmpty else { return takeStandard(key) }
        if let path = Self.flags[key], let flag = SettingType.boolean(value) {
            self[keyPath: path] = flag
        } else if let number = SettingType.integer(value) {
            take(key, number)
        }
        take(key, value)
    }

    private static let flags: [String: any WritableKeyPath<BrokerConfiguration, Bool> & Sendable] = [
        "autoCreateTopicEnable": \.autoCreateTopicEnable,
        "autoCreateSubscriptionGroup": \.autoCreateSubscriptionGroup,
        "clusterTopicEnable": \.clusterTopicEnable,
        "brokerTopicEnable": \.brokerTopicEnable,
        "traceTopicEnable": \.traceTopicEnable,
        "traceOn": \.traceOn,
        "rejectTransactionMessage": \.rejectTransactionMessage,
        "longPollingEnable": \.longPollingEnable,
        "slaveReadEnable": \.slaveReadEnable,
        "notifyConsumerIdsChangedEnable": \.notifyConsumerIdsChangedEnable,
        "offsetCheckInSlave": \.offsetCheckInSlave,
        "serverLoadBalancerEnable": \.serverLoadBalancerEnable,
        "popDeadLetterEnable": \.popDeadLetterEnable,
    ]

    /// The bounds of the table make every conversion exact.
    private mutating func take(_ key: String, _ number: Int64) {
        switch key {
        case "brokerId": brokerID = number
        case "listenPort": listenPort = Int(number)
        case "haListenPort": haListenPort = Int(number)
        case "brokerPermission": brokerPermission = Int32(truncatingIfNeeded: number)
        case "defaultTopicQueueNums": defaultTopicQueueNums = Int(number)
        case "shortPollingTimeMills": shortPollingTimeMills = number
        case "defaultPopShareQueueNum": defaultPopShareQueueNum = Int32(clamping: number)
        case "messageTrailBytesMax": messageTrailBytesMax = number
        case "flushConsumerOffsetInterval": flushConsumerOffsetInterval = number
        case "rebalanceLockMaxLiveTime": rebalanceLockMaxLiveTime = number
        // RocketMQ's own bounds.
        case "registerNameServerPeriod": registerNameServerPeriod = min(max(number, 10_000), 60_000)
        case "startAcceptSendRequestTimeStamp": startAcceptSendRequestTimeStamp = number
        case "sendThreadPoolQueueCapacity": sendsWaitingMax = Int(number)
        case "maxMessageSize": maxMessageSize = Int(number)
        case "syncFlushTimeout": syncFlushTimeoutMilliseconds = number
        case "slaveTimeout": slaveTimeoutMilliseconds = number
        case "haSlaveFallbehindMax": haSlaveFallbehindMax = number
        case "maxTransferBytesOnMessageInMemory": maxTransferBytesOnMessageInMemory = Int(number)
        case "maxTransferCountOnMessageInMemory": maxTransferCountOnMessageInMemory = Int(number)
        case "defaultQueryMaxNum": defaultQueryMaxNum = Int(number)
        default: break
        }
    }

    private mutating func take(_ key: String, _ value: String) {
        switch key {
        case "brokerName": brokerName = value
        case "brokerClusterName": brokerClusterName = value
        case "brokerRole": brokerRole = BrokerRole(name: value) ?? brokerRole
        case "brokerIP1": brokerIP1 = value
        case "brokerIP2": brokerIP2 = value
        case "namesrvAddr": namesrvAddr = value.split(separator: ";").map(String.init)
        case "storePathRootDir": storePathRootDir = value
        case "msgTraceTopicName": msgTraceTopicName = value
        case "regionId": regionID = value
        case "configBlackList": configBlackList = value.split(separator: ";").map(String.init)
        case "flushDiskType": syncFlush = value == "SYNC_FLUSH"
        case "messageDelayLevel": messageDelayLevel = value
        case "defaultMessageRequestMode": defaultMessageRequestMode = value
        case "enablePropertyFilter": enablePropertyFilter = SettingType.boolean(value)
        default: break
        }
    }

    private mutating func takeStandard(_ key: String) {
        switch key {
        case "namesrvAddr": namesrvAddr = []
        case "configBlackList": configBlackList = BrokerConfiguration().configBlackList
        default: break
        }
    }

    /// Delays of `messageDelayLevel` in milliseconds; index 0 is level 1. Never empty.
    package var delayLevels: [Int64] { SettingType.delays(messageDelayLevel) ?? DelayLevels.standard.delays }
}

extension Permission {
    /// RocketMQ's three-letter text: `RW-`, `RWX` …
    static func text(_ permission: Int32) -> String {
        (permission & read != 0 ? "R" : "-") + (permission & write != 0 ? "W" : "-")
            + (permission & inherit != 0 ? "X" : "-")
    }
}

extension String {
    var trimmedBlanks: String {
        var view = Substring(self)
        while let first = view.first, first.isWhitespace { view.removeFirst() }
        while let last = view.last, last.isWhitespace { view.removeLast() }
        return String(view)
    }
}
