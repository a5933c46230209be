import MessageStore
import RemotingProtocol
package import WorkerProtocol

/// The settings of one broker, under RocketMQ's key names with RocketMQ's meanings and defaults. The raw pairs are
/// kept: GET_BROKER_CONFIG answers with them, unknown keys included.
package struct BrokerConfiguration {
    /// Master and slaves share it; clients see it in every route.
    package var brokerName = "broker-a"
    package var brokerClusterName = "DefaultCluster"
    /// 0 is the master; slaves have positive identifiers.
    package var brokerId: Int64 = 0
    /// What an acknowledgement waits for besides the disk.
    package var brokerRole = BrokerRole.asyncMaster
    /// The address clients are told to use, and the host in every message identifier.
    package var brokerIP1 = "127.0.0.1"
    /// The address slaves reach the master at.
    package var brokerIP2 = "127.0.0.1"
    /// The VIP port is 2 below it.
    package var listenPort = 10911
    package var haListenPort = 10912
    /// Name servers, separated by `;` as RocketMQ does.
    package var namesrvAddr: [String] = []
    /// The store's folder.
    package var storePathRootDir = ""

    /// Bits of `Permission`: what this broker offers of every topic.
    package var brokerPermission = Permission.read | Permission.write
    /// Whether a send to an unknown topic makes it, like a pull an unknown group.
    package var autoCreateTopicEnable = true
    package var autoCreateSubscriptionGroup = true
    /// Queues of a topic made by a send, unless its client wants fewer.
    package var defaultTopicQueueNums = 8
    /// Whether topics of the cluster's and of the broker's name can be used.
    package var clusterTopicEnable = true
    package var brokerTopicEnable = true
    /// Whether this broker takes traces, and in which topic.
    package var traceTopicEnable = false
    package var msgTraceTopicName = "RMQ_SYS_TRACE_TOPIC"
    /// Told to clients in answers, with the region's name.
    package var traceOn = true
    package var regionId = "DefaultRegion"
    /// Half messages are refused.
    package var rejectTransactionMessage = false
    /// Whether a pull without messages is held; else it is looked at again after `shortPollingTimeMills`
    /// milliseconds.
    package var longPollingEnable = true
    package var shortPollingTimeMills: Int64 = 1000
    /// Whether consumers far behind are sent to a slave.
    package var slaveReadEnable = false
    /// Whether a group's consumers are told at once when one comes or goes.
    package var notifyConsumerIdsChangedEnable = true
    /// Milliseconds.
    package var flushConsumerOffsetInterval: Int64 = 5000
    /// Milliseconds a queue lock lives that is not renewed.
    package var rebalanceLockMaxLiveTime: Int64 = 60_000
    /// Milliseconds between registrations; 10 000 to 60 000 hold.
    package var registerNameServerPeriod: Int64 = 30_000
    /// Sends are refused before this time, milliseconds since 1970.
    package var startAcceptSendRequestTimeStamp: Int64 = 0
    /// `nil`, the default, lets the filter worker decide by the plugins it has loaded. RocketMQ's own default is
    /// `false` because there the expression runs inside the broker; here it cannot harm it. An explicit `false` refuses.
    package var enablePropertyFilter: Bool?
    /// Keys request 25 refuses.
    package var configBlackList = ["configBlackList", "brokerConfigPath"]

    /// `sendThreadPoolQueueCapacity`: messages that may wait for disk or slave before more are refused. RocketMQ's is 10 000
    /// requests waiting for a thread; here what waits is stored already and costs a few hundred bytes.
    package var sendsWaitingMax = 100_000
    /// Bytes of body.
    package var maxMessageSize = 4 * 1024 * 1024
    /// `flushDiskType=SYNC_FLUSH`, and how many milliseconds a send waits for disk or slave before it is answered
    /// that it may be lost.
    package var syncFlush = false
    package var syncFlushTimeout: Int64 = 5000
    package var slaveTimeout: Int64 = 3000
    package var haSlaveFallbehindMax: Int64 = 256 * 1024 * 1024
    /// The delay of each level from 1 on; a text that is no list of delays is not taken.
    package private(set) var messageDelayLevel = DelayLevels.standardText
    /// Most bytes and messages of one pull.
    package var maxTransferBytesOnMessageInMemory = 256 * 1024
    package var maxTransferCountOnMessageInMemory = 32
    /// Most messages of a query by key.
    package var defaultQueryMaxNum = 32
    /// Whether a slave corrects consumers' offsets, too.
    package var offsetCheckInSlave = false

    /// Everything as it came, in order, later pairs winning.
    package private(set) var pairs: [(key: String, value: String)] = []

    package init(_ pairs: [(String, String)] = []) {
        for (key, value) in pairs { set(key, value) }
    }

    /// The `ip:port` clients reach this broker at.
    package var address: String { "\(brokerIP1):\(listenPort)" }
    /// The `ip:port` slaves reach it at.
    package var haServerAddress: String { "\(brokerIP2):\(haListenPort)" }
    package var isSlave: Bool { brokerRole == .slave }

    /// As it was written; nil when it was not.
    package func raw(_ key: String) -> String? { pairs.last { $0.key == key }?.value }

    /// Takes one pair; a value that does not parse leaves the setting as it was and is reported by returning false.
    @discardableResult
    package mutating func set(_ key: String, _ text: String) -> Bool {
        let value = text.trimmedBlanks
        if let index = pairs.firstIndex(where: { $0.key == key }) {
            pairs[index].value = value
        } else {
            pairs.append((key, value))
        }
        switch key {
        case "brokerName": return take(value, \.brokerName)
        case "brokerClusterName": return take(value, \.brokerClusterName)
        case "brokerId": return take(Int64(value), \.brokerId)
        case "brokerRole": return take(BrokerRole(name: value), \.brokerRole)
        case "brokerIP1": return take(value, \.brokerIP1)
        case "brokerIP2": return take(value, \.brokerIP2)
        case "listenPort": return take(Int(value), \.listenPort)
        case "haListenPort": return take(Int(value), \.haListenPort)
        case "namesrvAddr":
            return take(value.split(whereSeparator: { $0 == ";" || $0 == "," }).map(String.init), \.namesrvAddr)
        case "storePathRootDir": return take(value, \.storePathRootDir)
        case "brokerPermission": return take(Int32(value), \.brokerPermission)
        case "defaultTopicQueueNums": return take(Int(value), \.defaultTopicQueueNums)
        case "msgTraceTopicName": return take(value, \.msgTraceTopicName)
        case "regionId": return take(value, \.regionId)
        case "shortPollingTimeMills": return take(Int64(value), \.shortPollingTimeMills)
        case "flushConsumerOffsetInterval": return take(Int64(value), \.flushConsumerOffsetInterval)
        case "rebalanceLockMaxLiveTime":
            return take(Int64(value).flatMap { $0 > 0 ? $0 : nil }, \.rebalanceLockMaxLiveTime)
        case "registerNameServerPeriod":
            // RocketMQ's own bounds.
            return take(Int64(value).map { min(max($0, 10_000), 60_000) }, \.registerNameServerPeriod)
        case "startAcceptSendRequestTimeStamp": return take(Int64(value), \.startAcceptSendRequestTimeStamp)
        case "configBlackList":
            return take(value.split(separator: ";").map(String.init), \.configBlackList)
        case "sendThreadPoolQueueCapacity": return take(Int(value).flatMap { $0 > 0 ? $0 : nil }, \.sendsWaitingMax)
        case "maxMessageSize": return take(Int(value), \.maxMessageSize)
        case "flushDiskType": return take(value == "SYNC_FLUSH", \.syncFlush)
        case "syncFlushTimeout": return take(Int64(value), \.syncFlushTimeout)
        case "haSlaveFallbehindMax":
            return take(Int64(value).flatMap { $0 >= 0 ? $0 : nil }, \.haSlaveFallbehindMax)
        case "slaveTimeout": return take(Int64(value), \.slaveTimeout)
        case "messageDelayLevel": return take(DelayLevels(value) == nil ? nil : value, \.messageDelayLevel)
        case "maxTransferBytesOnMessageInMemory": return take(Int(value), \.maxTransferBytesOnMessageInMemory)
        case "maxTransferCountOnMessageInMemory": return take(Int(value), \.maxTransferCountOnMessageInMemory)
        case "defaultQueryMaxNum": return take(Int(value), \.defaultQueryMaxNum)
        default: return setSwitch(key, value)
        }
    }

    private mutating func setSwitch(_ key: String, _ value: String) -> Bool {
        let on = value == "true" ? true : value == "false" ? false : nil
        switch key {
        case "autoCreateTopicEnable": return take(on, \.autoCreateTopicEnable)
        case "autoCreateSubscriptionGroup": return take(on, \.autoCreateSubscriptionGroup)
        case "clusterTopicEnable": return take(on, \.clusterTopicEnable)
        case "brokerTopicEnable": return take(on, \.brokerTopicEnable)
        case "traceTopicEnable": return take(on, \.traceTopicEnable)
        case "traceOn": return take(on, \.traceOn)
        case "rejectTransactionMessage": return take(on, \.rejectTransactionMessage)
        case "longPollingEnable": return take(on, \.longPollingEnable)
        case "slaveReadEnable": return take(on, \.slaveReadEnable)
        case "notifyConsumerIdsChangedEnable": return take(on, \.notifyConsumerIdsChangedEnable)
        case "offsetCheckInSlave": return take(on, \.offsetCheckInSlave)
        case "enablePropertyFilter":
            enablePropertyFilter = on
            return on != nil
        default: return true
        }
    }

    private mutating func take<Value>(_ value: Value?, _ path: WritableKeyPath<Self, Value>) -> Bool {
        guard let value else { return false }
        self[keyPath: path] = value
        return true
    }

    /// Delays of `messageDelayLevel` in milliseconds; index 0 is level 1. Never empty.
    package var delayLevels: [Int64] { (DelayLevels(messageDelayLevel) ?? .standard).delays }
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
