import RemotingProtocol

/// What one group wants from one topic, as its clients said it in a heartbeat, with the filter made of it.
final class Subscription {
    let data: SubscriptionData
    let filter: SubscriptionFilter

    init(_ data: SubscriptionData, filter: SubscriptionFilter) {
        self.data = data
        self.filter = filter
    }

    var topic: String { data.topic }
    /// The client's clock when it subscribed; a newer one replaces an older one.
    var subVersion: Int64 { data.subVersion }

    static func isTagType(_ type: String) -> Bool { type.isEmpty || type == "TAG" }
}

/// One consumer group with at least one client connected.
final class ConsumerGroup {
    let name: String
    /// `CONSUME_PASSIVELY` (push) or `CONSUME_ACTIVELY` (pull).
    var consumeType: String
    /// `CLUSTERING` or `BROADCASTING`.
    var messageModel: String
    var consumeFromWhere: String
    private(set) var subscriptions = BytesKeyedTable<Subscription>()
    fileprivate(set) var clients: [ClientChannelInfo] = []

    init(name: String, consumeType: String, messageModel: String, consumeFromWhere: String) {
        self.name = name
        self.consumeType = consumeType
        self.messageModel = messageModel
        self.consumeFromWhere = consumeFromWhere
    }

    func client(_ clientId: String) -> ClientChannelInfo? { clients.first { $0.clientId == clientId } }

    /// `true` if a topic was added or went away; a newer version of a known one is taken silently, as RocketMQ does.
    fileprivate func update(_ latest: [Subscription]) -> Bool {
        var changed = false
        for subscription in latest {
            if let old = subscriptions[subscription.topic] {
                if subscription.subVersion > old.subVersion { subscriptions[subscription.topic] = subscription }
            } else {
                subscriptions[subscription.topic] = subscription
                changed = true
            }
        }
        let wanted = Set(latest.map(\.topic))
        for old in subscriptions.values where !wanted.contains(old.topic) {
            subscriptions[old.topic] = nil
            changed = true
        }
        return changed
    }
}

/// The consumers connected to this broker, by group. Whoever must be told of a change (NOTIFY_CONSUMER_IDS_CHANGED,
/// so that clients rebalance at once) is handed to `notify`.
final class ConsumerManager {
    /// A client not heard of for this long is dropped and its connection closed; clients beat every 30 s.
    static let channelExpiredMillis: Int64 = 120_000

    private var groups = BytesKeyedTable<ConsumerGroup>()
    var notify: ((_ group: String, _ clients: [ClientChannelInfo]) -> Void)?

    subscript(name: UnsafeRawBufferPointer) -> ConsumerGroup? { groups[name] }
    subscript(name: String) -> ConsumerGroup? { groups[name] }

    var all: [ConsumerGroup] { groups.values }

    func groups(subscribedTo topic: String) -> [String] {
        groups.values.filter { $0.subscriptions[topic] != nil }.map(\.name)
    }

    struct Registration {
        var group: String
        var consumeType: String
        var messageModel: String
        var consumeFromWhere: String
        var subscriptions: [Subscription]
    }

    /// `true` if the set of clients or of topics changed.
    @discardableResult
    func register(_ registration: Registration, _ info: ClientChannelInfo, notifyChange: Bool) -> Bool {
        let group: ConsumerGroup
        if let known = groups[registration.group] {
            group = known
        } else {
            group = ConsumerGroup(
                name: registration.group, consumeType: registration.consumeType,
                messageModel: registration.messageModel, consumeFromWhere: registration.consumeFromWhere)
            groups[registration.group] = group
        }
        group.consumeType = registration.consumeType
        group.messageModel = registration.messageModel
        group.consumeFromWhere = registration.consumeFromWhere
        var isNew = false
        if let index = group.clients.firstIndex(where: { $0.client === info.client }) {
            group.clients[index] = info
        } else {
            group.clients.append(info)
            info.client.consumerGroups.insert(group.name)
            isNew = true
        }
        let changed = group.update(registration.subscriptions) || isNew
        if changed && notifyChange { notify?(group.name, group.clients) }
        return changed
    }

    func unregister(_ client: ClientContext, from name: String, notifyChange: Bool) {
        guard let group = groups[name] else { return }
        group.clients.removeAll { $0.client === client }
        client.consumerGroups.remove(name)
        if group.clients.isEmpty { groups[name] = nil }
        if notifyChange { notify?(name, group.clients) }
    }

    func connectionClosed(_ client: ClientContext, notifyChange: (String) -> Bool) {
        for name in client.consumerGroups { unregister(client, from: name, notifyChange: notifyChange(name)) }
    }

    /// Clients whose heartbeats have stopped; the caller closes their connections, which unregisters them.
    func expired(now: Int64) -> [ClientChannelInfo] {
        groups.values.flatMap { group in
            group.clients.filter { now - $0.lastUpdateMillis > Self.channelExpiredMillis }
        }
    }
}

/// The producers connected to this broker, by group.
final class ProducerManager {
    private var groups: [String: [ClientChannelInfo]] = [:]
    private var byClientId: [String: ClientChannelInfo] = [:]
    /// A client has become a member of the group: whoever waits for one can go on.
    var joined: ((_ group: String) -> Void)?

    /// The connection of a client, whatever its groups: where a reply to its request goes.
    func client(_ clientId: String) -> ClientChannelInfo? { byClientId[clientId] }

    func register(_ info: ClientChannelInfo, in group: String) {
        if let index = groups[group]?.firstIndex(where: { $0.client === info.client }) {
            groups[group]?[index] = info
        } else {
            groups[group, default: []].append(info)
            info.client.producerGroups.insert(group)
            joined?(group)
        }
        byClientId[info.clientId] = info
    }

    func unregister(_ client: ClientContext, from group: String) {
        let leaving = groups[group]?.first { $0.client === client }
        groups[group]?.removeAll { $0.client === client }
        if groups[group]?.isEmpty == true { groups[group] = nil }
        client.producerGroups.remove(group)
        if let leaving, client.producerGroups.isEmpty, byClientId[leaving.clientId]?.client === client {
            byClientId[leaving.clientId] = nil
        }
    }

    func connectionClosed(_ client: ClientContext) {
        for group in client.producerGroups { unregister(client, from: group) }
    }

    func clients(of group: String) -> [ClientChannelInfo]? { groups[group] }

    /// Of all groups, by name.
    var all: [(group: String, clients: [ClientChannelInfo])] {
        groups.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    func expired(now: Int64) -> [ClientChannelInfo] {
        groups.values.flatMap { clients in
            clients.filter { now - $0.lastUpdateMillis > ConsumerManager.channelExpiredMillis }
        }
    }
}
