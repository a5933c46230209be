import Logging
import MessageModel
import NIOCore
import RemotingProtocol
import RemotingTransport

/// What clients report about themselves: HEART_BEAT (34), UNREGISTER_CLIENT (35), CHECK_CLIENT_CONFIG (46),
/// GET_CONSUMER_LIST_BY_GROUP (38), LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42).
final class ClientManageProcessor {
    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let hold: PullRequestHold
    private let filters: FilterLink
    private let reader: MessageReader
    private let transactions: TransactionalMessageService
    private let notifier: GroupNotifier
    private let leases: QueueLeases
    let heartbeats = KeptHeartbeats()
    private var givenBack = LocksGivenBack()
    private var isArmed = false
    private var saidNotKept = false

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ hold: PullRequestHold,
        _ filters: FilterLink,
        _ reader: MessageReader, _ transactions: TransactionalMessageService, _ notifier: GroupNotifier,
        _ leases: QueueLeases
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.hold = hold
        self.filters = filters
        self.reader = reader
        self.transactions = transactions
        self.notifier = notifier
        self.leases = leases
    }

    // MARK: - HEART_BEAT

    /// Bytes of a heartbeat; RocketMQ's frame limit is its only one. A subscription takes some 200 bytes.
    static let heartbeatBytesMax = 1 << 20
    /// Groups, consumers' and producers', of one connection.
    static let groupsMax = 2048
    /// Topics one group of one client may subscribe to.
    static let subscriptionsMax = 1024
    /// A heartbeat that is larger is read on another thread.
    static let bytesAtOnce = 32 << 10
    /// What a slice registers: groups, and subscriptions of them.
    static let groupsPerSlice = 64
    static let subscriptionsPerSlice = 512

    func heartBeat(_ request: borrowing Request) throws(RemotingDecodeError) {
        let asker = request.asker
        guard request.body.count <= Self.heartbeatBytesMax else {
            return asker.answer(
                .systemError,
                remark: "a heartbeat of \(request.body.count) bytes is not taken, at most \(Self.heartbeatBytesMax): "
                    + "let one client take part in fewer groups")
        }
        let said = ClientContext.Heartbeat(
            language: request.frame.language, version: request.frame.version, body: Array(request.body))
        guard said.body.count > Self.bytesAtOnce else { return take(try said.data, said, asker) }
        request.client.connection.awaitsAnswer = true
        environment.textWork.submit({ said.parsed }) { [self] parsed in
            switch parsed {
            case .success(let data): take(data, said, asker)
            case .failure(let error):
                asker.client.connection.awaitsAnswer = false
                asker.answer(.systemError, remark: "\(error)")
            }
        }
    }

    private func take(
        _ data: HeartbeatData, _ said: ClientContext.Heartbeat, _ asker: Asker
    ) {
        if let refusal = refusal(data, asker.client) {
            asker.client.connection.awaitsAnswer = false
            return asker.answer(.systemError, remark: refusal)
        }
        do throws(RemotingDecodeError) {
            try checkNames(data)
        } catch {
            asker.client.connection.awaitsAnswer = false
            return asker.answer(.systemError, remark: "\(error)")
        }
        register(data, said, asker.client, notifies: true) {
            asker.client.connection.awaitsAnswer = false
            asker.answer(.success)
        }
    }

    /// Why a heartbeat asks for too much. What a connection has named before stays until it closes, and counts.
    private func refusal(_ data: HeartbeatData, _ client: ClientContext) -> String? {
        if let group = data.consumerDataSet.first(where: { $0.subscriptionDataSet.count > Self.subscriptionsMax }) {
            return
                "group [\(group.groupName.prefix(64))] subscribes to \(group.subscriptionDataSet.count) topics, at "
                + "most \(Self.subscriptionsMax): divide them among several groups"
        }
        var groups = data.consumerDataSet.count + data.producerGroups.count
        if groups + client.consumerGroups.count + client.producerGroups.count > Self.groupsMax {
            groups =
                client.consumerGroups.union(data.consumerDataSet.map(\.groupName)).count
                + client.producerGroups.union(data.producerGroups).count
        }
        guard groups <= Self.groupsMax else {
            return
                "this connection names \(groups) groups, at most \(Self.groupsMax): divide them among several clients"
        }
        return nil
    }

    /// All or nothing: a client is not a member of half its groups.
    private func checkNames(_ data: HeartbeatData) throws(RemotingDecodeError) {
        try Self.checkID(data.clientID)
        for consumer in data.consumerDataSet { _ = try tables.groups.checked(consumer.groupName) }
        for producer in data.producerGroups { try Self.checkProducer(producer) }
    }

    /// A client whose connection was handed over has sent this before the restart; the other members need not be
    /// notified.
    func takeOver(_ said: ClientContext.Heartbeat, _ client: ClientContext) throws(RemotingDecodeError) {
        let data = try said.data
        try checkNames(data)
        register(data, said, client, notifies: false) {}
    }

    /// Registers a client in its groups, in slices if they are many.
    /// - Parameters:
    ///   - notifies: the other members of its groups are notified, unless they do not want it.
    ///   - then: called when it is done; not when the connection closes before.
    private func register(
        _ data: HeartbeatData, _ said: ClientContext.Heartbeat, _ client: ClientContext, notifies: Bool,
        then: @escaping () -> Void
    ) {
        if !heartbeats.keep(said, of: client), !saidNotKept, !client.connection.isClosed {
            saidNotKept = true
            environment.logger.warning(
                """
                the heartbeats of all clients have more than \(heartbeats.bytesMax) bytes: after a restart a client \
                whose heartbeat is not kept, such as \(data.clientID), is a member again with its next one, within 30 s
                """)
        }
        // It goes into the journal of claims, where it stays longer than the connection.
        if !data.consumerDataSet.isEmpty { client.consumerID = data.clientID }
        let info = ClientChannelInfo(
            client: client, clientID: data.clientID, language: said.language, version: said.version,
            lastUpdateMilliseconds: environment.now())
        var consumers = data.consumerDataSet[...]
        var producers = data.producerGroups[...]
        let slice = { [self] () -> Bool in
            // A client that has left must not come back.
            guard !client.connection.isClosed else { return false }
            tables.creations.requester = client.connection.remoteAddress
            defer { tables.creations.requester = nil }
            var groups = Self.groupsPerSlice
            var subscriptions = Self.subscriptionsPerSlice
            while groups > 0, subscriptions > 0, let consumer = consumers.popFirst() {
                groups -= 1
                subscriptions -= consumer.subscriptionDataSet.count
                register(consumer, info, notifies: notifies)
            }
            while groups > 0, consumers.isEmpty, let group = producers.popFirst() {
                groups -= 1
                if tables.producers.register(info, in: group) { transactions.producerJoined(group) }
            }
            guard consumers.isEmpty, producers.isEmpty else { return true }
            then()
            return false
        }
        if slice() {
            client.connection.awaitsAnswer = true
            environment.slices.add(slice)
        }
    }

    private func register(_ consumer: ConsumerData, _ info: ClientChannelInfo, notifies: Bool) {
        let client = info.client
        let group = tables.groups.find(consumer.groupName)
        if let group, !environment.configuration.isSlave {
            _ = tables.retryTopic(of: group.groupName, unitFlag: consumer.unitMode ? 2 : 0, mayWait: true)
        }
        let changed = tables.consumers.register(
            ConsumerManager.Registration(
                group: consumer.groupName, consumeType: consumer.consumeType, messageModel: consumer.messageModel,
                consumeFromWhere: consumer.consumeFromWhere,
                subscriptions: consumer.subscriptionDataSet.map(subscription)),
            info, notifyChange: notifies && group?.config.notifyConsumerIDsChangedEnable ?? true)
        if changed {
            environment.logger.info("consumer \(info.clientID) at \(client.address) in group \(consumer.groupName)")
            if let refusal = group?.groupName.retryRefusal {
                environment.logger.warning(
                    """
                    what consumer group \(consumer.groupName) sends back is refused, so nothing that failed is \
                    delivered to it again: \(refusal)
                    """
                )
            }
        }
    }

    /// What a heartbeat says. An expression that is too long is refused when it is read by: the client's other groups
    /// are served. Nothing of its text is kept.
    private func subscription(_ data: SubscriptionData) -> Subscription {
        let filter = filters.filter(type: data.expressionType, expression: data.subString)
        guard case .compiled(let compiled) = filter,
            FilterLink.refusal(type: data.expressionType, expression: data.subString) != nil
        else { return Subscription(data, filter: filter) }
        let short = SubscriptionData(
            topic: data.topic, subString: compiled.expression, subVersion: data.subVersion,
            expressionType: compiled.type)
        return Subscription(short, filter: filter)
    }

    /// Nothing is named after a group of producers: RocketMQ takes any name, and here it is one line of text.
    private static func checkProducer(_ name: String) throws(RemotingDecodeError) {
        do throws(NameError) {
            _ = try GroupName(existing: name)
        } catch {
            throw .badName("\(error) Choose another name for the group of producers.")
        }
    }

    private static func checkID(_ clientID: String) throws(RemotingDecodeError) {
        let count = clientID.utf8.count
        guard count > ClientContext.idBytesMax else { return }
        throw .badName(
            "the client identifier [\(clientID.prefix(64))...] has \(count) bytes, at most "
                + "\(ClientContext.idBytesMax): choose a shorter instance name")
    }

    func unregister(_ request: borrowing Request) throws(RemotingDecodeError) {
        heartbeats.keep(nil, of: request.client)  // It is not true any more; the next heartbeat is.
        if let group = request.extFields.string("producerGroup") {
            tables.producers.unregister(request.client, from: group)
        }
        if let group = request.extFields.string("consumerGroup") {
            let notify = tables.groups[group]?.config.notifyConsumerIDsChangedEnable ?? true
            // A client has given back its locks when it sends this, or meant to. The C++ client forgets the first queue
            // of each broker, which no client could consume for a minute. A member that is notified that it left asks
            // for the locks at once.
            if let clientID = request.extFields.string("clientID") {
                let (locks, owner) = (tables.locks, lockOwner(clientID, request.client, group))
                let slice = { locks.unlockSome(group: group, by: owner) }
                if slice() { environment.slices.add(slice) }
                givenBack.forget(group: group, client: request.client)
            }
            tables.consumers.unregister(request.client, from: group, notifyChange: notify)
            leases.left(request.client, group: group)
        }
        request.answer(.success)
    }

    /// A client asks before it subscribes whether its expression is understood; the filter worker knows.
    func checkClientConfig(_ request: borrowing Request) throws(RemotingDecodeError) {
        let asker = request.asker
        let body = try CheckClientRequestBody(body: request.body)
        let subscription = body.subscriptionData
        guard !SubscriptionFilter.isTagType(subscription.expressionType) else { return asker.answer(.success) }
        guard environment.configuration.enablePropertyFilter != false else {
            return asker.answer(
                .systemError,
                remark: "The broker does not support consumer to filter message by \(subscription.expressionType)")
        }
        guard filters.isConnected else {
            return asker.answer(.systemBusy, remark: filters.absence)
        }
        let compiled = filters.subscription(
            type: subscription.expressionType, expression: subscription.subString)
        filters.whenCompiled(compiled) { [self] in
            switch compiled.state {
            case .everything, .tagsCodes, .program: asker.answer(.success)
            case .refused(let position, let reason):
                let place = position >= 0 ? " at position \(position)" : ""
                asker.answer(
                    .subscriptionParseFailed,
                    remark: "\(compiled.type) \(compiled.expression)\(place): \(reason)")
            case .unavailable(let reason, _):
                asker.answer(
                    .systemError,
                    remark: "The broker does not support consumer to filter message by "
                        + "\(compiled.type): \(reason)")
            case .unknown, .compiling:
                asker.answer(.systemBusy, remark: filters.absence)
            }
        }
    }

    func consumerList(_ request: borrowing Request) throws(RemotingDecodeError) {
        let name = try request.extFields.required("consumerGroup")
        guard let group = tables.consumers[name] else {
            return request.answer(.systemError, remark: "no consumer for this group, \(name)")
        }
        guard let list = group.clientList(atMost: TableAnswers.bytesMax) else {
            return TableAnswers.refuse(request.asker, atMost: TableAnswers.bytesMax)
        }
        request.answer(.success, body: list)
    }

    /// Another connection with the same client identifier is another instance in two cases. Both are members of the
    /// group, or the other one was still there while this one was. A client that comes back on a new connection, or
    /// that locks on another one than its heartbeats come on, is the same.
    private func lockOwner(_ clientID: String, _ client: ClientContext, _ group: String) -> RebalanceLockManager.Owner {
        RebalanceLockManager.Owner(clientID: clientID, instance: client) { other in
            if other === client { return false }
            if let end = other.closedBefore { return client.number < end }
            return other.consumerGroups.contains(group) && client.consumerGroups.contains(group)
        }
    }

    func lock(_ request: borrowing Request) throws(RemotingDecodeError) {
        let asker = request.asker
        let body = try LockBatchRequestBody(body: request.body)
        try Self.checkID(body.clientID)
        guard tables.groups.find(body.consumerGroup) != nil else {
            return asker.answer(
                .subscriptionGroupNotExist,
                remark: "subscription group not exist, \(body.consumerGroup)"
                    + tables.groups.remedy(for: body.consumerGroup))
        }
        let held = tables.locks.tryLock(
            group: body.consumerGroup, queues: body.mqSet,
            by: lockOwner(body.clientID, request.client, body.consumerGroup),
            now: environment.now())
        givenBack.lockedAgain(group: body.consumerGroup, queues: held, client: request.client)
        asker.answer(.success, body: LockBatchResponseBody(lockOKMQSet: held).encoded())
    }

    func unlock(_ request: borrowing Request) throws(RemotingDecodeError) {
        let body = try UnlockBatchRequestBody(body: request.body)
        try Self.checkID(body.clientID)
        let owner = lockOwner(body.clientID, request.client, body.consumerGroup)
        endPulls(of: request.client, group: body.consumerGroup, queues: body.mqSet)
        let held = tables.locks.heldCount(group: body.consumerGroup, by: owner)
        let given = tables.locks.held(group: body.consumerGroup, of: body.mqSet, by: owner)
        // One by one a client gives back what others are to have; all at once when it leaves, the C++ client all but
        // one.
        let seemsToLeave = given.count == held || given.count > 1 && held - given.count == 1
        if !given.isEmpty, seemsToLeave {
            givenBack.add(
                group: body.consumerGroup, queues: Array(given), owner: owner, client: request.client,
                now: environment.now())
            armGivenBack()
        } else if tables.locks.unlock(group: body.consumerGroup, queues: body.mqSet, by: owner) {
            notifier.rebalance(body.consumerGroup, tables.groups)
        }
        request.answer(.success)
    }

    /// A client pulls no more from queues whose locks it gives back: what it waits for there is answered at once.
    ///
    /// The official C++ client (PyPI `rocketmq` 0.4.4) may stand still, and its queues with it. That happens when it
    /// gets such a queue again before that answer has come.
    private func endPulls(of client: ClientContext, group: String, queues: [MessageQueue]) {
        guard client.suspended != nil else { return }
        let brokerName = environment.configuration.brokerName
        let given = Set(queues)
        let ended = hold.takeHeld(by: client) { pull in
            pull.group.name == group
                && given.contains(
                    MessageQueue(topic: pull.topic.name, brokerName: brokerName, queueID: pull.queueID))
        }
        for pull in ended { reader.answerNothingYet(pull) }
    }

    private func armGivenBack() {
        guard !isArmed, let next = givenBack.nextMilliseconds else { return }
        isArmed = true
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        let sleep = min(max(1, next - environment.now()), LocksGivenBack.graceMilliseconds)
        environment.eventLoop.scheduleTask(in: .milliseconds(sleep)) { this.value.freeGivenBack() }
    }

    /// The clients that gave them back have not left: what they had still to send has come by now.
    private func freeGivenBack() {
        isArmed = false
        for given in givenBack.take(now: environment.now())
        where tables.locks.unlock(group: given.group, queues: given.queues, by: given.owner) {
            notifier.rebalance(given.group, tables.groups)
        }
        armGivenBack()
    }
}
