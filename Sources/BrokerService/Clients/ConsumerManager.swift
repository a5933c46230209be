import RemotingProtocol

/// What one group wants from one topic, as its clients stated it in a heartbeat, with the filter made of it.
final class Subscription {
    private(set) var data: SubscriptionData
    private(set) var filter: SubscriptionFilter

    init(_ data: SubscriptionData, filter: SubscriptionFilter) {
        self.data = data
        self.filter = filter
    }

    var topic: String { data.topic }
    /// The client's clock when it subscribed; a newer one replaces an older one.
    var subVersion: Int64 { data.subVersion }

    /// The same messages are wanted of the same topic.
    func selectsTheSame(as other: Subscription) -> Bool {
        topic == other.topic && data.subString == other.data.subString
            && (data.expressionType == other.data.expressionType
                || SubscriptionFilter.isTagType(data.expressionType)
                    && SubscriptionFilter.isTagType(other.data.expressionType))
    }

    /// The same was received again, later: one object serves all clients that agree. An expression that found no room
    /// before may have some now.
    func renew(by other: Subscription) {
        if other.subVersion > subVersion { data.subVersion = other.subVersion }
        filter = other.filter
    }
}

/// One consumer group with at least one client connected.
///
/// RocketMQ asks that all clients of a group subscribe to the same, and keeps one table for the group. With clients
/// that differ, each heartbeat replaces the other side's expression. Messages are then filtered by the wrong one and
/// silently lost to the group. Here each client keeps its own. The group's table is their union. It serves those that
/// ask about the group, and pulls as long as all agree.
final class ConsumerGroup {
    let name: String
    /// `CONSUME_PASSIVELY` (push) or `CONSUME_ACTIVELY` (pull).
    var consumeType: String
    /// `CLUSTERING` or `BROADCASTING`.
    var messageModel: String
    var consumeFromWhere: String
    /// What any of the clients wants; of several expressions for a topic the newest.
    private(set) var subscriptions = BytesKeyedTable<Subscription>()
    fileprivate(set) var clients: [ClientChannelInfo] = []
    /// What the clients want of each topic: one subscription, which all share, unless they disagree.
    private var wishes = BytesKeyedTable<Wishes>()
    /// Each of ten thousand members asks for all of them.
    private var knownList: [UInt8]?
    /// The answer to GET_CONSUMER_LIST_BY_GROUP.
    /// - Returns: `nil` when it would have more bytes.
    func clientList(atMost bytes: Int) -> [UInt8]? {
        if let knownList { return knownList }
        guard clients.reduce(0, { $0 + $1.clientID.utf8.count + 3 }) <= bytes else { return nil }
        let list = GetConsumerListByGroupResponseBody(consumerIDList: clients.map(\.clientID)).encoded()
        knownList = list
        return list
    }
    /// A subscription, and how many clients have it.
    private struct Wish {
        let subscription: Subscription
        var clients = 1
    }

    /// The subscriptions to one topic.
    private final class Wishes {
        /// Those that are told apart, `expressionsMax` at most.
        var told: [Wish] = []
        /// Clients with others: each has an object of its own, which takes a place in `told` with a later heartbeat.
        var beyond = 0

        var isEmpty: Bool { told.isEmpty && beyond == 0 }
    }

    /// Expressions for one topic that are told apart in a group. A client with a further one is served by it as well.
    /// It is only missing in what the others may want.
    static let expressionsMax = 64

    /// All clients want the same.
    private(set) var isConsistent = true
    private var reported: Set<SubscriptionConflict.Key> = []
    /// Messages that lay in a queue of a client that does not want them while another client of the group does.
    var skipped: Int64 = 0
    /// When that was logged last, and how many there were by then.
    var skippedLog: (milliseconds: Int64, count: Int64) = (0, 0)

    init(name: String, consumeType: String, messageModel: String, consumeFromWhere: String) {
        self.name = name
        self.consumeType = consumeType
        self.messageModel = messageModel
        self.consumeFromWhere = consumeFromWhere
    }

    func client(_ clientID: String) -> ClientChannelInfo? { clients.first { $0.clientID == clientID } }

    /// What a pull of this client selects by: its own subscription if the clients differ. It is the group's if the
    /// client has sent none (its heartbeats come on another connection).
    func subscription(_ topic: UnsafeRawBufferPointer, of client: ClientContext) -> Subscription? {
        if isConsistent { return subscriptions[topic] }
        guard let own = clients.first(where: { $0.client === client }) else { return subscriptions[topic] }
        return own.subscriptions.first { $0.topic.utf8.elementsEqual(topic) }
    }

    func messageModel(of client: ClientContext) -> String {
        isConsistent ? messageModel : clients.first { $0.client === client }?.messageModel ?? messageModel
    }

    /// What the other clients want of a topic, where that is not what this one wants.
    func others(than client: ClientContext, topic: String) -> [Subscription] {
        guard !isConsistent, let own = clients.first(where: { $0.client === client }) else { return [] }
        let mine = own.subscriptions.first { $0.topic == topic }
        return (wishes[topic]?.told ?? []).map(\.subscription).filter { $0 !== mine }
    }

    fileprivate func add(_ info: ClientChannelInfo) {
        clients.append(info)
        knownList = nil
    }

    /// The same client again; what it wants is `update`'s to change.
    fileprivate func renew(_ info: ClientChannelInfo, at index: Int) {
        if clients[index].clientID != info.clientID { knownList = nil }
        let subscriptions = clients[index].subscriptions
        clients[index] = info
        clients[index].subscriptions = subscriptions
    }

    /// Takes what a client's heartbeat contains now. Costs what this client wants, and not what all others do.
    /// - Returns: whether the group's set of topics changed, and a disagreement not reported yet.
    fileprivate func update(
        _ index: Int, _ latest: [Subscription], isNew: Bool
    ) -> (changed: Bool, conflict: SubscriptionConflict?) {
        let before = clients[index].subscriptions
        var topics: Set<String> = []
        let now = latest.filter { topics.insert($0.topic).inserted }.map { said in
            guard let all = wishes[said.topic],
                let wish = all.told.first(where: { $0.subscription.selectsTheSame(as: said) })
            else { return said }
            wish.subscription.renew(by: said)
            // It may be the newest now.
            if all.told.count + all.beyond > 1 { noteNewest(wish.subscription) }
            return wish.subscription
        }
        guard isNew || now.count != before.count || !zip(now, before).allSatisfy({ $0 === $1 }) else {
            return (false, nil)
        }
        clients[index].subscriptions = now
        let count = subscriptions.count
        for subscription in now { add(subscription) }
        let added = subscriptions.count > count
        let removed = before.reduce(false) { remove($1) || $0 }
        return (added || removed, checkConsistency(of: index))
    }

    private func add(_ subscription: Subscription) {
        let all = wishes[subscription.topic] ?? Wishes()
        if all.isEmpty { wishes[subscription.topic] = all }
        if let known = all.told.firstIndex(where: { $0.subscription === subscription }) {
            all.told[known].clients += 1
        } else if all.told.count < Self.expressionsMax {
            all.told.append(Wish(subscription: subscription))
        } else {
            all.beyond += 1
        }
        noteNewest(subscription)
    }

    /// One that is newer than the topic's takes its place.
    private func noteNewest(_ subscription: Subscription) {
        let newest = subscriptions[subscription.topic]
        if newest.map({ $0.subVersion < subscription.subVersion }) ?? true {
            subscriptions[subscription.topic] = subscription
        }
    }

    /// `true` when no client wants the topic any more.
    private func remove(_ subscription: Subscription) -> Bool {
        let topic = subscription.topic
        guard let all = wishes[topic] else { return false }
        let isGone: Bool
        if let known = all.told.firstIndex(where: { $0.subscription === subscription }) {
            all.told[known].clients -= 1
            isGone = all.told[known].clients == 0
            if isGone { all.told.remove(at: known) }
        } else {
            all.beyond -= 1
            isGone = true
        }
        if all.isEmpty {
            wishes[topic] = nil
            subscriptions[topic] = nil
        } else if isGone, subscriptions[topic] === subscription,
            let newest = all.told.map(\.subscription).max(by: { $0.subVersion < $1.subVersion })
        {
            subscriptions[topic] = newest
        }
        return all.isEmpty
    }

    /// Clients one is compared with for a line of the log.
    private static let comparedMax = 4

    private func checkConsistency(of index: Int) -> SubscriptionConflict? {
        isConsistent = allAgree
        guard !isConsistent else {
            // Should they differ again, that is news.
            reported = []
            return nil
        }
        guard reported.count < SubscriptionConflict.reportedMax else { return nil }
        let others = clients.indices.lazy.filter { $0 != index }.prefix(Self.comparedMax)
        let conflict = others.compactMap { SubscriptionConflict(self.clients[$0], self.clients[index]) }.first
        return conflict.flatMap { reported.insert($0.key).inserted ? $0 : nil }
    }

    /// Whether all clients want the same: of each topic one subscription, which every client has, but for retry topics.
    private var allAgree: Bool {
        guard let first = clients.first, clients.count > 1 else { return true }
        guard clients.allSatisfy({ $0.messageModel == first.messageModel }) else { return false }
        for place in 0..<wishes.count {
            let all = wishes.value(at: place)
            guard let wish = all.told.first, all.told.count == 1, all.beyond == 0 else { return false }
            if wish.clients < clients.count, !wish.subscription.topic.hasPrefix(TopicNames.retryPrefix) { return false }
        }
        return true
    }

    fileprivate func remove(_ client: ClientContext) {
        guard let index = clients.firstIndex(where: { $0.client === client }) else { return }
        let leaving = clients.remove(at: index)
        knownList = nil
        for subscription in leaving.subscriptions { _ = remove(subscription) }
        guard !isConsistent else { return }
        isConsistent = allAgree
        if isConsistent { reported = [] }
    }
}

/// What happens to groups of consumers.
protocol ConsumerGroupObserver: AnyObject {
    /// The set of clients or topics has changed: members are to be notified (NOTIFY_CONSUMER_IDS_CHANGED), so that they
    /// rebalance at once.
    func changed(_ group: String)
    /// A client has left a group, of which so many remain.
    func left(_ group: String, _ client: ClientChannelInfo, remaining: Int)
    /// Two clients of a group subscribe to different things; each disagreement is reported once.
    func disagreed(_ group: ConsumerGroup, _ conflict: SubscriptionConflict)
}

/// The consumers connected to this broker, by group.
final class ConsumerManager {
    /// A client not heard of for this long is dropped and its connection closed; clients beat every 30 s.
    static let channelExpiredMilliseconds: Int64 = 120_000

    private var groups = BytesKeyedTable<ConsumerGroup>()
    private let observer: any ConsumerGroupObserver
    /// Groups whose clients want different things.
    private(set) var inconsistentCount = 0

    init(_ observer: any ConsumerGroupObserver) { self.observer = observer }

    subscript(name: UnsafeRawBufferPointer) -> ConsumerGroup? { groups[name] }
    subscript(name: String) -> ConsumerGroup? { groups[name] }

    var all: [ConsumerGroup] { groups.values }

    /// Looks at all groups, in slices.
    func groups(subscribedTo topic: String, in slices: SlicedWork, then: @escaping ([String]) -> Void) {
        copy({ $0.subscriptions[topic] != nil ? $0.name : nil }, in: slices) { then($0.compactMap { $0 }) }
    }

    /// Copies something of each group, in slices.
    func copy<Copy>(
        _ copy: @escaping (ConsumerGroup) -> Copy, in slices: SlicedWork, then: @escaping ([Copy]) -> Void
    ) {
        TableCopy.make(in: slices, table: { self.groups }, copy, then: then)
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
        var info = info
        info.messageModel = registration.messageModel
        let index: Int
        if let known = group.clients.firstIndex(where: { $0.client === info.client }) {
            index = known
            group.renew(info, at: known)
        } else {
            index = group.clients.count
            group.add(info)
            info.client.consumerGroups.insert(group.name)
            isNew = true
        }
        let wasConsistent = group.isConsistent
        let update = group.update(index, registration.subscriptions, isNew: isNew)
        note(group, wasConsistent)
        if let conflict = update.conflict { observer.disagreed(group, conflict) }
        let changed = update.changed || isNew
        if changed && notifyChange { observer.changed(group.name) }
        return changed
    }

    private func note(_ group: ConsumerGroup, _ wasConsistent: Bool) {
        if wasConsistent != group.isConsistent { inconsistentCount += wasConsistent ? 1 : -1 }
    }

    func unregister(_ client: ClientContext, from name: String, notifyChange: Bool) {
        guard let group = groups[name] else { return }
        let wasConsistent = group.isConsistent
        let leaving = group.clients.first { $0.client === client }
        group.remove(client)
        note(group, wasConsistent)
        if let leaving { observer.left(name, leaving, remaining: group.clients.count) }
        client.consumerGroups.remove(name)
        if group.clients.isEmpty { groups[name] = nil }
        if notifyChange { observer.changed(name) }
    }

    /// A closed connection leaves some of its groups; `true` when there are more.
    func leaveSome(_ client: ClientContext, atMost limit: Int, notifyChange: (String) -> Bool) -> Bool {
        for name in client.consumerGroups.prefix(limit) {
            unregister(client, from: name, notifyChange: notifyChange(name))
            client.consumerGroups.remove(name)
        }
        return !client.consumerGroups.isEmpty
    }

    /// Clients whose heartbeats have stopped; the caller closes their connections, which unregisters them.
    func expired(now: Int64) -> [ClientChannelInfo] {
        groups.values.flatMap { group in
            group.clients.filter { now - $0.lastUpdateMilliseconds > Self.channelExpiredMilliseconds }
        }
    }
}

/// The producers connected to this broker, by group.
final class ProducerManager {
    private var groups: [String: [ClientChannelInfo]] = [:]
    /// Usually one; several instances may have one client identifier.
    private var byClientID: [String: [ClientChannelInfo]] = [:]

    /// The connections of a client, whatever its groups: where a reply to its request goes. Several when instances
    /// share the identifier.
    func clients(withID clientID: String) -> [ClientChannelInfo] { byClientID[clientID] ?? [] }

    /// - Returns: whether the client is new in the group: what waits for a member of it can go on.
    func register(_ info: ClientChannelInfo, in group: String) -> Bool {
        var isNew = false
        if let index = groups[group]?.firstIndex(where: { $0.client === info.client }) {
            groups[group]?[index] = info
        } else {
            groups[group, default: []].append(info)
            info.client.producerGroups.insert(group)
            isNew = true
        }
        if let former = info.client.producerID, former != info.clientID { forget(info.client, former) }
        info.client.producerID = info.clientID
        if let index = byClientID[info.clientID]?.firstIndex(where: { $0.client === info.client }) {
            byClientID[info.clientID]?[index] = info
        } else {
            byClientID[info.clientID, default: []].append(info)
        }
        return isNew
    }

    func unregister(_ client: ClientContext, from group: String) {
        groups[group]?.removeAll { $0.client === client }
        if groups[group]?.isEmpty == true { groups[group] = nil }
        client.producerGroups.remove(group)
        if client.producerGroups.isEmpty, let id = client.producerID { forget(client, id) }
    }

    private func forget(_ client: ClientContext, _ clientID: String) {
        byClientID[clientID]?.removeAll { $0.client === client }
        if byClientID[clientID]?.isEmpty == true { byClientID[clientID] = nil }
        client.producerID = nil
    }

    /// As `ConsumerManager.leaveSome`.
    func leaveSome(_ client: ClientContext, atMost limit: Int) -> Bool {
        for group in client.producerGroups.prefix(limit) { unregister(client, from: group) }
        return !client.producerGroups.isEmpty
    }

    func clients(of group: String) -> [ClientChannelInfo]? { groups[group] }

    /// Of all groups, in no order.
    var all: [(group: String, clients: [ClientChannelInfo])] { groups.map { ($0.key, $0.value) } }

    func expired(now: Int64) -> [ClientChannelInfo] {
        groups.values.flatMap { clients in
            clients.filter { now - $0.lastUpdateMilliseconds > ConsumerManager.channelExpiredMilliseconds }
        }
    }
}
