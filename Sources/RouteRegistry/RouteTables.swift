import MessageModel
package import RemotingProtocol

/// What a broker reports of itself when it registers.
package struct BrokerRegistration: Equatable, Sendable {
    /// RocketMQ's `brokerClusterName`.
    package var clusterName: String
    /// `ip:port` for clients.
    package var brokerAddr: String
    /// What master and slaves share.
    package var brokerName: String
    /// 0 is the master.
    package var brokerID: Int64
    /// `ip:port` for slaves.
    package var haServerAddr: String
    /// All topics of the broker and the version of their table.
    package var topics: TopicConfigSerializeWrapper
    /// nil from brokers older than 3.0.11, which have none.
    package var filterServers: [String]?

    package init(
        clusterName: String, brokerAddr: String, brokerName: String, brokerID: Int64, haServerAddr: String,
        topics: TopicConfigSerializeWrapper = TopicConfigSerializeWrapper(), filterServers: [String]? = []
    ) {
        self.clusterName = clusterName
        self.brokerAddr = brokerAddr
        self.brokerName = brokerName
        self.brokerID = brokerID
        self.haServerAddr = haServerAddr
        self.topics = topics
        self.filterServers = filterServers
    }
}

/// What a name server knows (`RouteInfoManager`): which brokers live, and which topics they have. A value: time and
/// connections are arguments, so that every case can be tested without waiting.
///
/// A broker's entry is kept 120 s from its last registration. When its connection closes it has `graceMilliseconds` to
/// come back by another before it goes; when it unregisters it goes at once.
package struct RouteTables: Sendable {
    /// `BROKER_CHANNEL_EXPIRED_TIME`.
    package static let expiryMilliseconds: Int64 = 120_000
    /// How long the routes of a broker stay after its connection has closed. A broker that crashed and is started
    /// again, or that lost a connection, is back sooner. No client that asks meanwhile is answered that its topics do
    /// not exist. A consumer of the official C++ client that is told so at its start pulls only after its next poll of
    /// routes, 30 s later. RocketMQ's name server waits no time at all, and its brokers come back with their next
    /// period.
    package static let graceMilliseconds: Int64 = 2_000

    /// Bytes of a broker's or a cluster's name or an address, at most. RocketMQ checks none of this, and
    /// each peer that reaches the port may register.
    package static let nameBytesMax = 255
    /// Bytes of a topic's name, at most: RocketMQ's brokers make none longer than a group's retry topic.
    package static let topicBytesMax = 512
    /// Broker names, at most. What leaves, comes or asks costs a look at all of them.
    package static let brokersMax = 4096
    /// Addresses of all brokers, slaves included, at most.
    package static let addressesMax = 8192
    /// Clusters, at most.
    package static let clustersMax = 1024
    /// Filter servers of one broker, at most.
    package static let filterServersMax = 64
    /// Topics of one broker, at most.
    package static let topicsOfBrokerMax = 100_000
    /// Topics of all brokers together, at most: one that two brokers have counts twice.
    package static let topicsMax = 2_000_000
    /// More topics than these are taken from a broker that has left in several turns of the loop.
    package static let forgottenAtOnce = 500

    /// One broker process, by its address.
    package struct LiveBroker: Equatable, Sendable {
        /// When it registered last, and how long that holds: milliseconds.
        package var lastUpdateMilliseconds: Int64
        /// How long the registration holds, from `lastUpdateMilliseconds` on.
        package var expiresAfterMilliseconds: Int64
        /// Of the topics the broker registered last: another one means they changed.
        package var dataVersion: DataVersion
        /// The connection it registered by.
        package var connection: UInt64
        /// `ip:port` for slaves.
        package var haServerAddr: String
        /// When that connection closed.
        package var closedAt: Int64?
        /// Some of its topics found no room: each of its registrations tries again, as there may be some now.
        package var isPartial = false
    }

    /// Why and what changed, for the log.
    package enum Event: Equatable, Sendable {
        case brokerRegistered(address: String, name: String)
        case masterChanged(name: String, from: String?, to: String)
        case topicRegistered(topic: String, broker: String)
        case topicChanged(topic: String, broker: String)
        case brokerRemoved(address: String, name: String, reason: Removal)
        case topicRemoved(topic: String)
        /// More than the name server takes, or names that are too long.
        case topicsRefused(broker: String, count: Int)
    }

    /// Why a broker went.
    package enum Removal: String, Sendable {
        case unregistered = "it unregistered"
        case expired = "it did not register for 120 s"
        case connectionClosed = "its connection closed and it did not come back"
    }

    /// topic → broker name → its queues there
    private var topicQueueTable: [String: [String: QueueData]] = [:]
    /// broker name → the topics it has queues of: a broker that goes or comes costs what it has, not what all have.
    private var topicsOfBroker: [String: Set<String>] = [:]
    private var brokerAddrTable: [String: BrokerData] = [:]
    private var clusterAddrTable: [String: Set<String>] = [:]
    private var liveTable: [String: LiveBroker] = [:]
    private var filterServerTable: [String: [String]] = [:]
    private var events: [Event] = []
    /// Topics in all sets of `topicsOfBroker`.
    private var entryCount = 0
    /// Topics of brokers that have left, which `forgetSome` takes out.
    private var leaving: [String: Set<String>] = [:]

    package init() {}

    /// Hands over what happened since the last call.
    package mutating func takeEvents() -> [Event] {
        defer { events = [] }
        return events
    }

    /// Broker processes, slaves included; then topics, then whether `takeEvents` has something.
    package var brokerCount: Int { liveTable.count }
    /// Topics with a queue at any broker.
    package var topicCount: Int { topicQueueTable.count }
    /// Whether `takeEvents` has something.
    package var hasEvents: Bool { !events.isEmpty }

    // MARK: - Registration

    /// Registers a broker, or renews it. For a slave the result names its master and where that serves replication;
    /// nil until the master is here.
    package mutating func register(
        _ broker: BrokerRegistration, connection: UInt64, now: Int64, expiresAfter: Int64 = Self.expiryMilliseconds
    ) -> (haServerAddr: String, masterAddr: String)? {
        var (master, topics) = beginRegistration(
            broker, connection: connection, now: now, expiresAfter: expiresAfter)
        apply(&topics, atMost: .max)
        return master
    }

    /// What a registration contains of topics, as far as it has not been entered yet.
    package struct PendingTopics: Sendable {
        let brokerName: String
        let brokerAddr: String
        let version: DataVersion
        /// The process was not known before.
        let isNew: Bool
        var gone: ArraySlice<String> = []
        var topics: ArraySlice<TopicConfig> = []
        /// Only what is missing is entered: what an operator has changed here stays, such as a wiped permission.
        fileprivate var addsOnly = false
        /// How many were not taken.
        package fileprivate(set) var refused = 0
        /// Some of these for want of room.
        fileprivate var mayFitLater = false

        /// Everything is entered.
        package fileprivate(set) var isDone = false
    }

    /// Why a broker is not registered; nil: it may be.
    package func refusal(of broker: BrokerRegistration) -> String? {
        for (what, text) in [
            ("brokerName", broker.brokerName), ("clusterName", broker.clusterName), ("brokerAddr", broker.brokerAddr),
            ("haServerAddr", broker.haServerAddr),
        ] where text.utf8.count > Self.nameBytesMax {
            return "\(what) has \(text.utf8.count) bytes, and may have \(Self.nameBytesMax): nothing was registered"
        }
        func full(_ what: String, _ count: Int) -> String {
            """
            this name server knows \(count) \(what) already, as many as it takes: nothing was registered; stop brokers \
            that are not needed, or use another name server
            """
        }
        if clusterAddrTable[broker.clusterName] == nil, clusterAddrTable.count >= Self.clustersMax {
            return full("clusters", clusterAddrTable.count)
        }
        guard let known = brokerAddrTable[broker.brokerName] else {
            return brokerAddrTable.count < Self.brokersMax ? nil : full("brokers", brokerAddrTable.count)
        }
        guard known.brokerAddrs[broker.brokerID] == nil else { return nil }
        let addresses = brokerAddrTable.values.reduce(0) { $0 + $1.brokerAddrs.count }
        return addresses < Self.addressesMax ? nil : full("addresses of brokers", addresses)
    }

    /// As `register`, all but the topics: those are for `apply`. Only what `refusal` has no objection to.
    package mutating func beginRegistration(
        _ broker: BrokerRegistration, connection: UInt64, now: Int64, expiresAfter: Int64
    ) -> (master: (haServerAddr: String, masterAddr: String)?, topics: PendingTopics) {
        clusterAddrTable[broker.clusterName, default: []].insert(broker.brokerName)
        // It comes back before what it had is forgotten.
        let isEarly = leaving[broker.brokerName] != nil
        if let topics = leaving.removeValue(forKey: broker.brokerName) {
            topicsOfBroker[broker.brokerName] = topics
            entryCount += topics.count
        }
        var isFirst = false
        var data: BrokerData
        if let known = brokerAddrTable[broker.brokerName] {
            data = known
        } else {
            isFirst = true
            data = BrokerData(cluster: broker.clusterName, brokerName: broker.brokerName, brokerAddrs: [:])
        }
        // A slave that became master: an address has one id only.
        data.brokerAddrs = data.brokerAddrs.filter {
            $0.value != broker.brokerAddr || $0.key == broker.brokerID
        }
        let former = data.brokerAddrs.updateValue(broker.brokerAddr, forKey: broker.brokerID)
        isFirst = isFirst || former == nil
        brokerAddrTable[broker.brokerName] = data
        if broker.brokerID == 0, former != broker.brokerAddr {
            events.append(.masterChanged(name: broker.brokerName, from: former, to: broker.brokerAddr))
        }
        // One that comes back may be another process of it: what it does not name any more goes.
        let isBack = isEarly || liveTable[broker.brokerAddr]?.closedAt != nil
        var topics = PendingTopics(
            brokerName: broker.brokerName, brokerAddr: broker.brokerAddr, version: broker.topics.dataVersion,
            isNew: liveTable[broker.brokerAddr] == nil)
        if broker.brokerID == 0, isBack { topics.gone = self.topics(of: broker.brokerName, notIn: broker.topics)[...] }
        if broker.brokerID == 0 {
            if isFirst || isBack || dataVersion(of: broker.brokerAddr) != broker.topics.dataVersion {
                topics.topics = broker.topics.topicConfigTable[...]
            } else if liveTable[broker.brokerAddr]?.isPartial == true {
                topics.topics = broker.topics.topicConfigTable[...]
                topics.addsOnly = true
            }
        }
        liveTable.updateValue(
            LiveBroker(
                lastUpdateMilliseconds: now, expiresAfterMilliseconds: expiresAfter,
                dataVersion: broker.topics.dataVersion,
                connection: connection, haServerAddr: broker.haServerAddr),
            forKey: broker.brokerAddr)
        if let filterServers = broker.filterServers {
            let taken = filterServers.filter { $0.utf8.count <= Self.nameBytesMax }.prefix(Self.filterServersMax)
            filterServerTable[broker.brokerAddr] = taken.isEmpty ? nil : Array(taken)
        }
        guard broker.brokerID != 0, let masterAddr = data.brokerAddrs[0], let master = liveTable[masterAddr] else {
            return (nil, topics)
        }
        return ((master.haServerAddr, masterAddr), topics)
    }

    /// Enters so many of the topics; a registration is dropped when its broker has left or has sent a newer one
    /// meanwhile.
    package mutating func apply(_ pending: inout PendingTopics, atMost limit: Int) {
        guard !pending.isDone else { return }
        var left = limit
        if liveTable[pending.brokerAddr]?.dataVersion == pending.version {
            while left > 0, let topic = pending.gone.popFirst() {
                remove(topic, of: pending.brokerName)
                left -= 1
            }
            while left > 0, let topic = pending.topics.popFirst() {
                left -= 1
                if pending.addsOnly, topicQueueTable[topic.topicName]?[pending.brokerName] != nil { continue }
                if !update(topic, on: pending.brokerName) {
                    pending.refused += 1
                    if topic.topicName.utf8.count <= Self.topicBytesMax { pending.mayFitLater = true }
                }
            }
            guard pending.gone.isEmpty, pending.topics.isEmpty else { return }
        }
        if pending.isNew, liveTable[pending.brokerAddr] != nil {
            events.append(.brokerRegistered(address: pending.brokerAddr, name: pending.brokerName))
        }
        if pending.refused > 0 {
            if pending.mayFitLater { liveTable[pending.brokerAddr]?.isPartial = true }
            events.append(.topicsRefused(broker: pending.brokerName, count: pending.refused))
        }
        pending.isDone = true
    }

    /// True when the name server has not this version of the broker's topics, or not all of them.
    package func hasChanged(_ brokerAddr: String, dataVersion: DataVersion) -> Bool {
        guard let live = liveTable[brokerAddr], !live.isPartial else { return true }
        return live.dataVersion != dataVersion
    }

    /// Of the topics it registered last; nil when it is not registered.
    package func dataVersion(of brokerAddr: String) -> DataVersion? {
        liveTable[brokerAddr]?.dataVersion
    }

    /// Renews a broker whose topics have not changed. One that was without a connection goes on with this one.
    package mutating func touch(_ brokerAddr: String, connection: UInt64, now: Int64) {
        guard liveTable[brokerAddr] != nil else { return }
        liveTable[brokerAddr]?.lastUpdateMilliseconds = now
        guard liveTable[brokerAddr]?.closedAt != nil else { return }
        liveTable[brokerAddr]?.connection = connection
        liveTable[brokerAddr]?.closedAt = nil
    }

    private func topics(of brokerName: String, notIn kept: TopicConfigSerializeWrapper) -> [String] {
        guard var gone = topicsOfBroker[brokerName] else { return [] }
        for topic in kept.topicConfigTable { gone.remove(topic.topicName) }
        return Array(gone)
    }

    private mutating func remove(_ topic: String, of brokerName: String) {
        topicQueueTable[topic]?[brokerName] = nil
        removeName(topic, of: brokerName)
        dropIfEmpty(topic)
    }

    private mutating func removeName(_ topic: String, of brokerName: String) {
        if topicsOfBroker[brokerName]?.remove(topic) != nil { entryCount -= 1 }
    }

    /// False: it is refused.
    private mutating func update(_ topic: TopicConfig, on brokerName: String) -> Bool {
        let queues = QueueData(
            brokerName: brokerName, readQueueNums: topic.readQueueNums, writeQueueNums: topic.writeQueueNums,
            perm: topic.perm, topicSysFlag: topic.topicSysFlag)
        return update(topic.topicName, queues)
    }

    private mutating func update(_ topic: String, _ queues: QueueData) -> Bool {
        let brokerName = queues.brokerName
        guard let former = topicQueueTable[topic]?[brokerName] else {
            guard topic.utf8.count <= Self.topicBytesMax, entryCount < Self.topicsMax,
                topicsOfBroker[brokerName, default: []].count < Self.topicsOfBrokerMax
            else { return false }
            topicQueueTable[topic, default: [:]][brokerName] = queues
            if topicsOfBroker[brokerName, default: []].insert(topic).inserted { entryCount += 1 }
            events.append(.topicRegistered(topic: topic, broker: brokerName))
            return true
        }
        guard former != queues else { return true }
        topicQueueTable[topic]?[brokerName] = queues
        events.append(.topicChanged(topic: topic, broker: brokerName))
        return true
    }

    /// 217: adds one topic with queues a broker's registration has not named (yet).
    package mutating func register(topic: String, queues: [QueueData]) {
        for data in queues where brokerAddrTable[data.brokerName] != nil {
            if !update(topic, data) { events.append(.topicsRefused(broker: data.brokerName, count: 1)) }
        }
    }

    // MARK: - Leaving

    /// Takes the broker out at once, and with the last address of a name its topics.
    package mutating func unregister(clusterName: String, brokerAddr: String, brokerName: String, brokerID: Int64) {
        remove(brokerAddr, reason: .unregistered)
        guard var data = brokerAddrTable[brokerName], data.brokerAddrs.removeValue(forKey: brokerID) != nil else {
            return
        }
        brokerAddrTable[brokerName] = data
        removeNameIfEmpty(brokerName)
    }

    /// From now on the brokers that registered by this connection have `graceMilliseconds`. True when there are any:
    /// call `expire` when the time is over.
    package mutating func connectionClosed(_ connection: UInt64, now: Int64) -> Bool {
        var isBroker = false
        for (address, live) in liveTable where live.connection == connection && live.closedAt == nil {
            liveTable[address]?.closedAt = now
            isBroker = true
        }
        return isBroker
    }

    /// Removes the brokers that have not registered in time, or did not come back; the result names the connections of
    /// the former, to be closed. Call again while `hasExpired`: each takes its topics along, which may be thousands.
    package mutating func expire(now: Int64, atMost brokers: Int = .max) -> [UInt64] {
        var connections: [UInt64] = []
        for (address, live) in liveTable.filter({ Self.isOver($0.value, now) }).prefix(brokers) {
            if live.closedAt != nil {
                remove(address, reason: .connectionClosed)
            } else {
                connections.append(live.connection)
                remove(address, reason: .expired)
            }
        }
        return connections
    }

    /// Whether `expire` has something to remove.
    package func hasExpired(now: Int64) -> Bool { liveTable.values.contains { Self.isOver($0, now) } }

    private static func isOver(_ live: LiveBroker, _ now: Int64) -> Bool {
        // What a broker asks for is a number of its own.
        if let closedAt = live.closedAt { return closedAt + Self.graceMilliseconds <= now }
        let (until, overflows) = live.lastUpdateMilliseconds.addingReportingOverflow(live.expiresAfterMilliseconds)
        return !overflows && until < now
    }

    /// Whether a broker registered by this connection.
    package func isBroker(_ connection: UInt64) -> Bool {
        liveTable.values.contains { $0.connection == connection }
    }

    /// The brokers that are registered, `NAME/ID` each: the same wherever they listen.
    package var brokers: Set<String> {
        Set(brokerAddrTable.flatMap { entry in entry.value.brokerAddrs.keys.map { Self.identity(entry.key, $0) } })
    }

    /// `NAME/ID`: names a broker wherever it listens.
    package static func identity(_ brokerName: String, _ brokerID: Int64) -> String { "\(brokerName)/\(brokerID)" }

    private mutating func remove(_ address: String, reason: Removal) {
        guard liveTable.removeValue(forKey: address) != nil else { return }
        filterServerTable[address] = nil
        var name = ""
        for (brokerName, data) in brokerAddrTable where data.brokerAddrs.values.contains(address) {
            name = brokerName
            brokerAddrTable[brokerName]?.brokerAddrs = data.brokerAddrs.filter { $0.value != address }
            removeNameIfEmpty(brokerName)
        }
        events.append(.brokerRemoved(address: address, name: name, reason: reason))
    }

    /// A name without addresses goes, and its topics and its place in the cluster with it.
    private mutating func removeNameIfEmpty(_ brokerName: String) {
        guard let data = brokerAddrTable[brokerName], data.brokerAddrs.isEmpty else { return }
        brokerAddrTable[brokerName] = nil
        for (cluster, names) in clusterAddrTable where names.contains(brokerName) {
            clusterAddrTable[cluster] = names.count == 1 ? nil : names.subtracting([brokerName])
        }
        guard let topics = topicsOfBroker.removeValue(forKey: brokerName) else { return }
        entryCount -= topics.count
        leaving[brokerName] = topics
        if topics.count <= Self.forgottenAtOnce { forgetSome() }
    }

    /// Topics of brokers that have left are still to be taken out: call `forgetSome`. No route leads to them meanwhile.
    package var isForgetting: Bool { !leaving.isEmpty }

    /// Takes some of them out, `forgottenAtOnce` or as many as one call of `unregister` or `expire` has left.
    package mutating func forgetSome() {
        guard let brokerName = leaving.keys.first, var topics = leaving.removeValue(forKey: brokerName) else { return }
        for _ in 0..<Self.forgottenAtOnce {
            guard let topic = topics.popFirst() else { return }
            topicQueueTable[topic]?[brokerName] = nil
            dropIfEmpty(topic)
        }
        if !topics.isEmpty { leaving[brokerName] = topics }
    }

    private mutating func dropIfEmpty(_ topic: String) {
        guard topicQueueTable[topic]?.isEmpty == true else { return }
        topicQueueTable[topic] = nil
        events.append(.topicRemoved(topic: topic))
    }

    /// Deletes a topic at all brokers. A broker that still has it registers it again.
    package mutating func delete(topic: String) {
        if let queues = topicQueueTable.removeValue(forKey: topic) {
            for brokerName in queues.keys { removeName(topic, of: brokerName) }
            events.append(.topicRemoved(topic: topic))
        }
    }

    /// Deletes a topic on the brokers of one cluster.
    package mutating func delete(topic: String, in cluster: String) {
        guard let names = clusterAddrTable[cluster], topicQueueTable[topic] != nil else { return }
        for name in names {
            topicQueueTable[topic]?[name] = nil
            removeName(topic, of: name)
        }
        dropIfEmpty(topic)
    }

    // MARK: - Permission

    /// Takes the write permission from all topics of a broker; returns how many it has.
    package mutating func wipeWritePermission(of brokerName: String) -> Int {
        changePermission(of: brokerName) { $0 & ~Permission.write }
    }

    /// Gives it back. RocketMQ sets exactly read and write, which takes the inherit bit from `TBW102`. That ends the
    /// creation of topics until the broker registers anew. Here that bit stays.
    package mutating func addWritePermission(of brokerName: String) -> Int {
        changePermission(of: brokerName) { $0 | Permission.read | Permission.write }
    }

    private mutating func changePermission(of brokerName: String, _ change: (Int32) -> Int32) -> Int {
        let topics = topicsOfBroker[brokerName] ?? []
        for topic in topics {
            guard let perm = topicQueueTable[topic]?[brokerName]?.perm else { continue }
            topicQueueTable[topic]?[brokerName]?.perm = change(perm)
        }
        return topics.count
    }

    // MARK: - Questions

    /// Where a topic is; nil when no broker here has it. Ordered by broker name.
    package func route(of topic: String) -> TopicRouteData? {
        guard let queues = topicQueueTable[topic] else { return nil }
        // One that has left is no longer named.
        let names = queues.keys.filter { brokerAddrTable[$0] != nil }.sorted()
        let brokers = names.compactMap { brokerAddrTable[$0] }
        guard !brokers.isEmpty else { return nil }
        var filterServers: [String: [String]] = [:]
        if !filterServerTable.isEmpty {
            for address in brokers.flatMap({ $0.brokerAddrs.values }) {
                filterServers[address] = filterServerTable[address]
            }
        }
        return TopicRouteData(
            queueDatas: names.compactMap { queues[$0] }, brokerDatas: brokers, filterServerTable: filterServers)
    }

    /// All brokers by name, and the names by cluster (106).
    package var clusterInfo: ClusterInfo {
        ClusterInfo(brokerAddrTable: brokerAddrTable, clusterAddrTable: clusterAddrTable)
    }

    /// Names of all topics, sorted.
    package var topics: [String] { topicQueueTable.keys.sorted() }

    /// Names of the topics that brokers of this cluster have, sorted.
    package func topics(of cluster: String) -> [String] {
        let names = clusterAddrTable[cluster] ?? []
        return names.reduce(into: Set<String>()) { $0.formUnion(topicsOfBroker[$1] ?? []) }.sorted()
    }

    /// The topics named after clusters and brokers, and the address of one broker to ask for more.
    package var systemTopics: TopicList {
        TopicList(
            topicList: clusterAddrTable.sorted { $0.key < $1.key }.flatMap { [$0.key] + $0.value.sorted() },
            brokerAddr: brokerAddrTable.min { $0.key < $1.key }?.value.preferredAddress)
    }

    /// Topics by the flags of their queues (`TopicSysFlag`: 1 unit, 2 unit subscription).
    package func topics(where matches: (Int32) -> Bool) -> [String] {
        topicQueueTable.filter { entry in
            entry.value.min { $0.key < $1.key }.map { matches($0.value.topicSysFlag) } ?? false
        }.keys.sorted()
    }

    /// The addresses of a broker's servers; nil when none is registered.
    package func brokerData(_ brokerName: String) -> BrokerData? { brokerAddrTable[brokerName] }
    /// The process that serves this address, slaves included; nil when none is registered.
    package func live(_ brokerAddr: String) -> LiveBroker? { liveTable[brokerAddr] }
}
