import Logging
import RemotingProtocol
import RemotingTransport

/// What clients say about themselves: HEART_BEAT (34), UNREGISTER_CLIENT (35), CHECK_CLIENT_CONFIG (46),
/// GET_CONSUMER_LIST_BY_GROUP (38), LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42).
final class ClientManageProcessor {
    private unowned let broker: Broker

    init(_ broker: Broker) { self.broker = broker }

    func process(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        switch RequestCode(rawValue: frame.code) {
        case .heartBeat: try heartBeat(frame, client)
        case .unregisterClient: try unregister(frame, client)
        case .checkClientConfig: try checkClientConfig(frame, client)
        case .getConsumerListByGroup: try consumerList(frame, client)
        case .lockBatchMQ: try lock(frame, client)
        case .unlockBatchMQ: try unlock(frame, client)
        default: preconditionFailure("not a request of clients: \(frame.code)")
        }
    }

    private func heartBeat(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let said = ClientContext.Heartbeat(language: frame.language, version: frame.version, body: Array(frame.body))
        try register(said, client, notifies: true)
        client.answer(frame.returnAddress, .success)
    }

    /// - Parameter notifies: tells the other members of its groups, unless they do not want it.
    func register(
        _ said: ClientContext.Heartbeat, _ client: ClientContext, notifies: Bool
    ) throws(RemotingDecodeError) {
        let data = try said.data
        client.said = said
        let info = ClientChannelInfo(
            client: client, clientId: data.clientID, language: said.language, version: said.version,
            lastUpdateMillis: broker.now())
        for consumer in data.consumerDataSet {
            let group = broker.groups.find(consumer.groupName)
            if group != nil, !broker.configuration.isSlave {
                _ = broker.retryTopic(
                    of: consumer.groupName, unitFlag: consumer.unitMode ? 2 : 0, mayWait: true)
            }
            let changed = broker.consumers.register(
                ConsumerManager.Registration(
                    group: consumer.groupName, consumeType: consumer.consumeType, messageModel: consumer.messageModel,
                    consumeFromWhere: consumer.consumeFromWhere,
                    subscriptions: consumer.subscriptionDataSet.map { data in
                        Subscription(data, filter: broker.filter(type: data.expressionType, expression: data.subString))
                    }),
                info, notifyChange: notifies && group?.config.notifyConsumerIDsChangedEnable ?? true)
            if changed {
                broker.logger.info("consumer \(data.clientID) at \(client.address) in group \(consumer.groupName)")
                if let refusal = TopicNames.retryRefusal(of: consumer.groupName) {
                    broker.logger.warning(
                        "consumer group \(consumer.groupName) consumes, but nothing it sends back is taken: \(refusal)")
                }
            }
        }
        for group in data.producerGroups { broker.producers.register(info, in: group) }
    }

    private func unregister(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        client.said = nil  // It is not true any more; the next heartbeat is.
        if let group = frame.extFields.string("producerGroup") { broker.producers.unregister(client, from: group) }
        if let group = frame.extFields.string("consumerGroup") {
            let notify = broker.groups[group]?.config.notifyConsumerIDsChangedEnable ?? true
            // A client has given back its locks when it says this, or meant to: the C++ client forgets the first queue of each
            // broker, which nobody could consume for a minute. Who is told that it left asks for the locks at once.
            if let clientId = frame.extFields.string("clientID") {
                broker.locks.unlockAll(group: group, by: asker(clientId, client, group))
            }
            broker.consumers.unregister(client, from: group, notifyChange: notify)
        }
        client.answer(frame.returnAddress, .success)
    }

    /// A client asks before it subscribes whether its expression is understood; the filter worker knows.
    private func checkClientConfig(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let address = frame.returnAddress
        let body = try CheckClientRequestBody(body: frame.body)
        let subscription = body.subscriptionData
        guard !Subscription.isTagType(subscription.expressionType) else { return client.answer(address, .success) }
        guard broker.configuration.enablePropertyFilter != false else {
            return client.answer(
                address, .systemError,
                remark: "The broker does not support consumer to filter message by \(subscription.expressionType)")
        }
        guard broker.filters.isConnected else {
            return client.answer(address, .systemBusy, remark: broker.filters.absence)
        }
        let compiled = broker.filters.subscription(
            type: subscription.expressionType, expression: subscription.subString)
        broker.filters.whenCompiled(compiled) { [unowned broker] in
            switch compiled.state {
            case .everything, .tagsCodes, .program: client.answer(address, .success)
            case .refused(let position, let reason):
                let place = position >= 0 ? " at position \(position)" : ""
                client.answer(
                    address, .subscriptionParseFailed,
                    remark: "\(subscription.expressionType) \(subscription.subString)\(place): \(reason)")
            case .unavailable(let reason, _):
                client.answer(
                    address, .systemError,
                    remark: "The broker does not support consumer to filter message by "
                        + "\(subscription.expressionType): \(reason)")
            case .unknown, .compiling:
                client.answer(address, .systemBusy, remark: broker.filters.absence)
            }
        }
    }

    private func consumerList(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let name = try frame.extFields.required("consumerGroup")
        guard let group = broker.consumers[name] else {
            return client.answer(
                frame.returnAddress, .systemError, remark: "no consumer for this group, \(name)")
        }
        client.answer(
            frame.returnAddress, .success,
            body: GetConsumerListByGroupResponseBody(consumerIDList: group.clients.map(\.clientId)).encoded())
    }

    /// Another connection with the same client identifier is another instance when both are members of the group, or when the other
    /// one was still there while this one was. A client that comes back on a new connection, or that locks on another one than its
    /// heartbeats come on, is the same.
    private func asker(_ clientId: String, _ client: ClientContext, _ group: String) -> RebalanceLockManager.Asker {
        RebalanceLockManager.Asker(clientId: clientId, instance: client) { other in
            if other === client { return false }
            if let end = other.closedBefore { return client.number < end }
            return other.consumerGroups.contains(group) && client.consumerGroups.contains(group)
        }
    }

    private func lock(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let body = try LockBatchRequestBody(body: frame.body)
        let held = broker.locks.tryLock(
            group: body.consumerGroup, queues: body.mqSet, by: asker(body.clientID, client, body.consumerGroup),
            now: broker.now())
        client.answer(
            frame.returnAddress, .success, body: LockBatchResponseBody(lockOKMQSet: held).encoded())
    }

    private func unlock(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let body = try UnlockBatchRequestBody(body: frame.body)
        let asker = asker(body.clientID, client, body.consumerGroup)
        if broker.locks.unlock(group: body.consumerGroup, queues: body.mqSet, by: asker) {
            broker.rebalance(body.consumerGroup)
        }
        client.answer(frame.returnAddress, .success)
    }
}
