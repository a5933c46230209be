package import FastJSON
import MessageModel
package import RemotingProtocol

/// The servers of one broker name.
public struct BrokerDescription: Sendable, Hashable {
    /// The cluster.
    public let cluster: String
    /// The broker's name.
    public let name: String
    /// Broker ID → `host:port`; 0 is the master's ID.
    public let addresses: [Int64: String]

    /// nil while no master is registered.
    public var master: String? { addresses[0] }
    /// The master's address, else that of the slave of the lowest ID.
    public var preferredAddress: String? { addresses[0] ?? addresses.min { $0.key < $1.key }?.value }

    package init(cluster: String, name: String, addresses: [Int64: String]) {
        self.cluster = cluster
        self.name = name
        self.addresses = addresses
    }

    init(_ data: BrokerData) { self.init(cluster: data.cluster, name: data.brokerName, addresses: data.brokerAddrs) }
}

/// All brokers the name servers know.
public struct ClusterDescription: Sendable, Hashable {
    /// Cluster name → its brokers, sorted by name.
    public let clusters: [String: [BrokerDescription]]
    /// All brokers, sorted by name.
    public let brokers: [BrokerDescription]

    package init(clusters: [String: [BrokerDescription]], brokers: [BrokerDescription]) {
        self.clusters = clusters
        self.brokers = brokers
    }

    init(_ info: ClusterInfo) {
        let known = info.brokerAddrTable.mapValues { BrokerDescription($0) }
        clusters = info.clusterAddrTable.mapValues { names in names.sorted().compactMap { known[$0] } }
        brokers = known.values.sorted { $0.name < $1.name }
    }
}

/// A topic's queues on one broker.
public struct TopicQueues: Sendable, Hashable {
    /// The broker's name.
    public let brokerName: String
    /// Queues consumers read.
    public let readQueues: Int
    /// Queues producers write to.
    public let writeQueues: Int
    /// 2: writing, 4: reading, 6: both.
    public let permission: Int
    /// RocketMQ's topic flags; 0 for most.
    public let systemFlag: Int

    package init(brokerName: String, readQueues: Int, writeQueues: Int, permission: Int, systemFlag: Int = 0) {
        self.brokerName = brokerName
        self.readQueues = readQueues
        self.writeQueues = writeQueues
        self.permission = permission
        self.systemFlag = systemFlag
    }
}

/// Where a topic is.
public struct TopicRoute: Sendable, Hashable {
    /// The topic.
    public let topic: String
    /// As the name server lists them.
    public let brokers: [BrokerDescription]
    /// Its queues, by broker.
    public let queues: [TopicQueues]
    /// `BROKER:QUEUES;…` of an ordered topic.
    public let orderConfiguration: String?
    /// Broker address → its filter servers, which old versions had.
    public let filterServers: [String: [String]]

    package init(
        topic: String, brokers: [BrokerDescription], queues: [TopicQueues], orderConfiguration: String? = nil,
        filterServers: [String: [String]] = [:]
    ) {
        self.topic = topic
        self.brokers = brokers
        self.queues = queues
        self.orderConfiguration = orderConfiguration
        self.filterServers = filterServers
    }

    init(_ data: TopicRouteData, topic: String) {
        self.init(
            topic: topic, brokers: data.brokerDatas.map { BrokerDescription($0) },
            queues: data.queueDatas.map {
                TopicQueues(
                    brokerName: $0.brokerName, readQueues: Int($0.readQueueNums), writeQueues: Int($0.writeQueueNums),
                    permission: Int($0.perm), systemFlag: Int($0.topicSysFlag))
            }, orderConfiguration: data.orderTopicConf, filterServers: data.filterServerTable)
    }

    /// The readable queues, sorted.
    public var readableQueues: [MessageQueue] {
        var seen: Set<String> = []
        return queues.filter { seen.insert($0.brokerName).inserted }.flatMap { entry in
            (0..<min(max(0, entry.readQueues), Int(QueueLimits.queuesPerTopic))).map {
                MessageQueue(topic: topic, brokerName: entry.brokerName, queueID: $0)
            }
        }.sorted()
    }

    /// The server to ask about a queue: its master, else a slave.
    ///
    /// - Throws: `brokerNotFound`.
    public func address(of queue: MessageQueue) throws(RocketMQClientError) -> String {
        guard let address = brokers.first(where: { $0.name == queue.brokerName })?.preferredAddress else {
            throw .brokerNotFound("topic '\(queue.topic)' has no broker '\(queue.brokerName)'")
        }
        return address
    }
}

/// What a broker keeps of a topic.
public struct TopicSettings: Sendable, Hashable {
    /// The topic.
    public var topic: String
    /// Queues consumers read, on each broker.
    public var readQueues: Int
    /// Queues producers write to, on each broker.
    public var writeQueues: Int
    /// 2: writing, 4: reading, 6: both.
    public var permission: Int
    /// RocketMQ's topic flags: 1 unit topic, 2 with unit subscriptions.
    public var systemFlag: Int
    /// Whether it is an ordered topic.
    public var isOrdered: Bool
    /// RocketMQ's `topicFilterType`.
    public var filterType: String

    /// A topic to be created or changed.
    public init(
        topic: String, readQueues: Int = 8, writeQueues: Int = 8, permission: Int = 6, systemFlag: Int = 0,
        isOrdered: Bool = false, filterType: String = "SINGLE_TAG"
    ) {
        self.topic = topic
        self.readQueues = readQueues
        self.writeQueues = writeQueues
        self.permission = permission
        self.systemFlag = systemFlag
        self.isOrdered = isOrdered
        self.filterType = filterType
    }
}

/// The bounds of one queue.
public struct QueueStatus: Sendable, Hashable {
    /// The queue.
    public let queue: MessageQueue
    /// The first offset there is.
    public let minOffset: Int64
    /// The offset the next message gets.
    public let maxOffset: Int64
    /// Milliseconds since 1970 of the last message; 0: none.
    public let lastUpdated: Int64

    package init(queue: MessageQueue, minOffset: Int64, maxOffset: Int64, lastUpdated: Int64) {
        self.queue = queue
        self.minOffset = minOffset
        self.maxOffset = maxOffset
        self.lastUpdated = lastUpdated
    }
}

/// What a consumer group may do on a broker.
public struct GroupSettings: Sendable, Hashable {
    /// The group.
    public var group: String
    /// Whether it may consume.
    public var mayConsume = true
    /// Whether it begins at the first offset when it has none.
    public var startsAtMinOffset = false
    /// Whether its members may broadcast.
    public var mayBroadcast = false
    /// Queues of its retry topic.
    public var retryQueues = 1
    /// Attempts before the dead letter queue.
    public var retriesMax = 16
    /// Consumers read from this broker ID.
    public var brokerID: Int64 = 0
    /// Broker ID for consumers that are far behind.
    public var brokerIDWhenSlow: Int64 = 1
    /// Whether members are notified of changes of the group.
    public var notifiesMembers = true

    /// A group to be created or changed.
    public init(group: String) { self.group = group }
}

/// How the push consumers of a group get the messages of a topic.
public enum ConsumeMode: Sendable, Hashable {
    /// Each member reads the queues that are its own.
    case pull
    /// The broker hands out messages of many queues. `sharedQueues`: how many other members' queues a member reads
    /// besides its own; 0: all queues.
    case pop(sharedQueues: Int)
}

/// A group's settings at one broker, with all fields of the broker's version.
public struct GroupSettingsAtBroker: Sendable {
    /// The broker.
    public let broker: BrokerDescription
    /// The settings this library knows.
    public let settings: GroupSettings
    /// RocketMQ's field names and values, in the broker's order.
    public var fields: [(name: String, value: String)] {
        (json.object?.members ?? []).map { ($0.key, $0.value.string ?? $0.value.text()) }
    }

    /// One group of the answer to `GET_ALL_SUBSCRIPTIONGROUP_CONFIG`.
    package let json: JSONValue

    /// - Throws: `badBody`: `json` holds no settings of a group.
    package init(broker: BrokerDescription, json: JSONValue) throws(RemotingDecodeError) {
        let config = try SubscriptionGroupConfig(json: json)
        var settings = GroupSettings(group: config.groupName)
        settings.mayConsume = config.consumeEnable
        settings.startsAtMinOffset = config.consumeFromMinEnable
        settings.mayBroadcast = config.consumeBroadcastEnable
        settings.retryQueues = Int(config.retryQueueNums)
        settings.retriesMax = Int(config.retryMaxTimes)
        settings.brokerID = config.brokerID
        settings.brokerIDWhenSlow = config.whichBrokerWhenConsumeSlowly
        settings.notifiesMembers = config.notifyConsumerIDsChangedEnable
        self.broker = broker
        self.settings = settings
        self.json = json
    }
}

/// A client as a broker knows it.
public struct ClientConnection: Sendable, Hashable {
    /// What the client calls itself.
    public let clientID: String
    /// `host:port`
    public let address: String
    /// RocketMQ's name, such as `JAVA`.
    public let language: String
    /// RocketMQ's number (`MQVersion`).
    public let version: Int

    package init(clientID: String, address: String, language: String, version: Int) {
        self.clientID = clientID
        self.address = address
        self.language = language
        self.version = version
    }

    init(_ json: JSONValue) {
        self.init(
            clientID: json["clientId"]?.string ?? "", address: json["clientAddr"]?.string ?? "",
            language: json["language"]?.string ?? "", version: Int(clamping: json["version"]?.integer ?? 0))
    }
}

/// The consumers of a group, as one broker knows them.
public struct ConsumerConnections: Sendable {
    /// One subscription of the group.
    public struct Subscribed: Sendable, Hashable {
        /// The topic.
        public let topic: String
        /// `TAG`, `SQL92`, or a plugin's type.
        public let expressionType: String
        /// The expression as the client gave it.
        public let expression: String
        /// The tags of a tag expression.
        public let tags: [String]

        package init(topic: String, expressionType: String = "TAG", expression: String, tags: [String] = []) {
            self.topic = topic
            self.expressionType = expressionType
            self.expression = expression
            self.tags = tags
        }

        init(_ json: JSONValue, topic: String) {
            self.init(
                topic: json["topic"]?.string ?? topic, expressionType: json["expressionType"]?.string ?? "TAG",
                expression: json["subString"]?.string ?? "",
                tags: json["tagsSet"]?.array?.compactMap(\.string) ?? [])
        }
    }

    /// The clients, in the broker's order.
    public let clients: [ClientConnection]
    /// Sorted by topic.
    public let subscriptions: [Subscribed]
    /// `CONSUME_PASSIVELY` (push) or `CONSUME_ACTIVELY` (pull).
    public let consumeType: String
    /// `CLUSTERING` or `BROADCASTING`.
    public let messageModel: String
    /// RocketMQ's `ConsumeFromWhere`.
    public let consumeFromWhere: String

    /// Whether the group pulls by itself.
    public var isPull: Bool { consumeType == "CONSUME_ACTIVELY" }

    package init(
        clients: [ClientConnection], subscriptions: [Subscribed], consumeType: String, messageModel: String,
        consumeFromWhere: String
    ) {
        self.clients = clients
        self.subscriptions = subscriptions
        self.consumeType = consumeType
        self.messageModel = messageModel
        self.consumeFromWhere = consumeFromWhere
    }

    init(_ json: JSONValue) {
        func text(_ key: String) -> String { json[key]?.string ?? "" }
        self.init(
            clients: (json["connectionSet"]?.array ?? []).map { ClientConnection($0) },
            subscriptions: (json["subscriptionTable"]?.object?.members ?? []).sorted { $0.key < $1.key }.map {
                Subscribed($0.value, topic: $0.key)
            }, consumeType: text("consumeType"), messageModel: text("messageModel"),
            consumeFromWhere: text("consumeFromWhere"))
    }
}

/// A producer as a broker lists it (328).
public struct ProducerInstance: Sendable, Hashable {
    /// The producer group.
    public let group: String
    /// What the client calls itself.
    public let clientID: String
    /// `host:port`
    public let address: String
    /// RocketMQ's name of the language, such as `JAVA`.
    public let language: String
    /// The client's version, as the broker has it.
    public let version: String
    /// Milliseconds since 1970, as text.
    public let lastUpdated: String

    package init(
        group: String, clientID: String, address: String, language: String, version: String, lastUpdated: String
    ) {
        self.group = group
        self.clientID = clientID
        self.address = address
        self.language = language
        self.version = version
        self.lastUpdated = lastUpdated
    }
}

/// A group's offsets in its queues.
public struct ConsumerProgressReport: Sendable, Hashable {
    /// One queue.
    public struct Row: Sendable, Hashable {
        /// The queue.
        public let queue: MessageQueue
        /// The end of the queue.
        public let brokerOffset: Int64
        /// What the group consumes next.
        public let consumerOffset: Int64
        /// Milliseconds since 1970 of the message consumed last; 0: not known.
        public let lastTimestamp: Int64

        /// Messages the group has not consumed.
        public var difference: Int64 { brokerOffset -| consumerOffset }

        package init(queue: MessageQueue, brokerOffset: Int64, consumerOffset: Int64, lastTimestamp: Int64) {
            self.queue = queue
            self.brokerOffset = brokerOffset
            self.consumerOffset = consumerOffset
            self.lastTimestamp = lastTimestamp
        }
    }

    /// Sorted by queue.
    public internal(set) var rows: [Row] = []
    /// Messages a second, all queues together.
    public internal(set) var messagesPerSecond = 0.0

    /// Messages the group has not consumed.
    public var difference: Int64 { rows.reduce(0) { $0 +| $1.difference } }

    package init(rows: [Row] = [], messagesPerSecond: Double = 0) {
        self.rows = rows
        self.messagesPerSecond = messagesPerSecond
    }

    /// Adds a table as 208 and 317 answer it.
    mutating func add(_ json: JSONValue) {
        messagesPerSecond += json["consumeTps"]?.double ?? 0
        for member in json["offsetTable"]?.object?.members ?? [] {
            guard let queue = MessageQueue(key: member.key) else { continue }
            rows.append(
                Row(
                    queue: queue, brokerOffset: member.value["brokerOffset"]?.integer ?? 0,
                    consumerOffset: member.value["consumerOffset"]?.integer ?? 0,
                    lastTimestamp: member.value["lastTimestamp"]?.integer ?? 0))
        }
        rows.sort { $0.queue < $1.queue }
    }
}

/// How far the groups of a broker are (317).
public struct BrokerProgress: Sendable {
    /// A topic's table of a group, in the broker's order.
    public let groups: [(group: String, report: ConsumerProgressReport)]
    /// Messages no group has consumed, by the broker's own count.
    public let difference: Int64

    package init(groups: [(group: String, report: ConsumerProgressReport)], difference: Int64) {
        self.groups = groups
        self.difference = difference
    }
}

/// What a consumer reports of itself (307).
public struct ConsumerReport: Sendable {
    /// Settings by name, sorted.
    public var properties: [(name: String, value: String)] {
        (json["properties"]?.object?.members ?? []).sorted { $0.key < $1.key }
            .map { ($0.key, $0.value.string ?? $0.value.text()) }
    }
    /// Its queues, sorted.
    public var queues: [MessageQueue] {
        (json["mqTable"]?.object?.members ?? []).compactMap { MessageQueue(key: $0.key) }.sorted()
    }
    /// Its subscriptions, in its own order.
    public var subscriptions: [ConsumerConnections.Subscribed] {
        (json["subscriptionSet"]?.array ?? []).map { ConsumerConnections.Subscribed($0, topic: "") }
    }
    /// Messages it has pulled and not consumed.
    public var waitingMessages: Int64 {
        (json["mqTable"]?.object?.members ?? []).reduce(0) { $0 +| ($1.value["cachedMsgCount"]?.integer ?? 0) }
    }
    /// Messages it failed to consume within the last hour.
    public var failedMessages: Int64 {
        (json["statusTable"]?.object?.members ?? []).reduce(0) { $0 +| ($1.value["consumeFailedMsgs"]?.integer ?? 0) }
    }
    /// The stacks of its threads, when they were asked for.
    public var stacks: String? { json["jstack"]?.string }

    /// The body of the answer to 307 (`ConsumerRunningInfo`).
    package let json: JSONValue

    package init(json: JSONValue) { self.json = json }
}

/// Offsets that were set.
public struct OffsetReset: Sendable, Hashable {
    /// One queue of a group without consumers online.
    public struct Row: Sendable, Hashable {
        /// The queue.
        public let queue: MessageQueue
        /// The end of the queue.
        public let brokerOffset: Int64
        /// The group's offset before.
        public let consumerOffset: Int64
        /// The offset of the time asked for.
        public let timestampOffset: Int64
        /// The group's offset now.
        public let rollbackOffset: Int64

        package init(
            queue: MessageQueue, brokerOffset: Int64, consumerOffset: Int64, timestampOffset: Int64,
            rollbackOffset: Int64
        ) {
            self.queue = queue
            self.brokerOffset = brokerOffset
            self.consumerOffset = consumerOffset
            self.timestampOffset = timestampOffset
            self.rollbackOffset = rollbackOffset
        }
    }

    /// One queue of a consumer that is online.
    public struct Notified: Sendable, Hashable {
        /// The queue.
        public let queue: MessageQueue
        /// Where the consumer goes on.
        public let offset: Int64

        package init(queue: MessageQueue, offset: Int64) {
            self.queue = queue
            self.offset = offset
        }
    }

    /// Consumers were online and were notified; else the brokers' tables were changed.
    public internal(set) var isOnline = true
    /// Where consumers go on, when they were online.
    public internal(set) var notified: [Notified] = []
    /// What was set in the brokers, when they were not.
    public internal(set) var rows: [Row] = []

    package init(isOnline: Bool = true, notified: [Notified] = [], rows: [Row] = []) {
        self.isOnline = isOnline
        self.notified = notified
        self.rows = rows
    }
}

/// Whether a group has consumed a message.
public struct MessageTrack: Sendable, Hashable {
    /// The consumer group.
    public let group: String
    /// RocketMQ's `TrackType`: `CONSUMED`, `CONSUMED_BUT_FILTERED`, `PULL`, `NOT_CONSUME_YET`, `NOT_ONLINE`, `UNKNOWN`.
    public let type: String
    /// Why it is not known.
    public let reason: String?

    package init(group: String, type: String, reason: String? = nil) {
        self.group = group
        self.type = type
        self.reason = reason
    }
}

/// What a consumer made of a message it was given by an operator (309).
public struct DirectConsumption: Sendable {
    /// RocketMQ's field by name; nil when the client left it out.
    public subscript(field: String) -> String? { json[field]?.string }

    /// The body of the answer to 309 (`ConsumeMessageDirectlyResult`).
    package let json: JSONValue
}

/// Entries of a consume queue (321).
public struct ConsumeQueueEntries: Sendable {
    /// The first entry there is, and the end.
    public var minIndex: Int64 { json["minQueueIndex"]?.integer ?? 0 }
    /// The end.
    public var maxIndex: Int64 { json["maxQueueIndex"]?.integer ?? 0 }
    /// Each entry's fields by RocketMQ's names, in order.
    public var entries: [[(name: String, value: String)]] {
        (json["queueData"]?.array ?? []).map { entry in
            (entry.object?.members ?? []).map { ($0.key, $0.value.string ?? $0.value.text()) }
        }
    }

    /// The body of the answer to 321 (`QueryConsumeQueueResponseBody`).
    package let json: JSONValue
}

/// Messages a topic or group moved.
public struct MessageFlow: Sendable, Hashable {
    /// Of the last minute.
    public internal(set) var messagesPerSecond = 0.0
    /// Of the longest time the brokers have figures for: a day, an hour or a minute.
    public internal(set) var messages: Int64 = 0

    package init(messagesPerSecond: Double = 0, messages: Int64 = 0) {
        self.messagesPerSecond = messagesPerSecond
        self.messages = messages
    }
}

/// What trace messages hold of one message's way.
public struct MessageTraceRecord: Sendable, Hashable {
    /// Whether it was consumed; else it was sent.
    public let isConsumption: Bool
    /// The producer or consumer group.
    public let group: String
    /// `host:port` of the client.
    public let clientHost: String
    /// Milliseconds since 1970; nil when the record has none that can be read.
    public let timestamp: Int64?
    /// Milliseconds, as text.
    public let cost: String
    /// Whether it succeeded.
    public let isSuccess: Bool

    package init(
        isConsumption: Bool, group: String, clientHost: String, timestamp: Int64?, cost: String, isSuccess: Bool
    ) {
        self.isConsumption = isConsumption
        self.group = group
        self.clientHost = clientHost
        self.timestamp = timestamp
        self.cost = cost
        self.isSuccess = isSuccess
    }
}

/// Brokers a change or a question is for.
public enum BrokerChoice: Sendable, Hashable {
    /// One by `host:port`.
    case address(String)
    /// The masters of a cluster.
    case cluster(String)
    /// All masters.
    case all
}
