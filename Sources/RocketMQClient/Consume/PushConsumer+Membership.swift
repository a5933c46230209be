import RemotingProtocol

extension PushConsumer {
    func routes(
        _ topics: [String]
    ) async throws(RocketMQClientError) -> [(topic: String, route: QueueRoute)] {
        var routes: [(String, QueueRoute)] = []
        for topic in topics {
            if let route = try await connections.route(of: topic) { routes.append((topic, route)) }
        }
        return routes
    }

    func brokers() async throws(RocketMQClientError) -> Set<String> {
        try await routes(subscriptions.map(\.topic)).reduce(into: []) { $0.formUnion($1.route.brokers) }
    }

    func heartbeatQuietly() async {
        do throws(RocketMQClientError) {
            try await heartbeat()
        } catch {
            warn("heartbeat: \(error)")
        }
    }

    func heartbeat() async throws(RocketMQClientError) {
        let data = ConsumerData(
            groupName: group, messageModel: options.model.rawValue,
            consumeFromWhere: (options.start ?? .first).rocketMQName, subscriptionDataSet: subscriptions.map(\.wire))
        let body = HeartbeatData(clientID: clientID, consumerDataSet: [data]).encoded()
        var failures: [(address: String, error: RocketMQClientError)] = []
        let addresses = try await brokers()
        for address in addresses {
            do throws(RocketMQClientError) {
                _ = try await connections.demand(address, RemotingCommand(.heartBeat, body: body))
            } catch {
                // One that is away must not keep this member from the others.
                guard hasStarted || error.responseCode == nil else { throw error }
                failures.append((address, error))
            }
        }
        if !hasStarted, let first = failures.first, failures.count == addresses.count { throw first.error }
        for (address, error) in failures { warn("broker \(address): \(error)") }
    }

    /// Takes and gives up queues so that this member has its share. One at a time; a call meanwhile makes one more.
    func rebalance() async {
        mustRebalanceAgain = true
        guard !isRebalancing else { return }
        isRebalancing = true
        defer { isRebalancing = false }
        while mustRebalanceAgain, !isClosing {
            mustRebalanceAgain = false
            do throws(RocketMQClientError) {
                try await takeShare()
            } catch {
                warn("rebalancing: \(error)")
            }
        }
    }

    func takeShare() async throws(RocketMQClientError) {
        let routes = try await routes(subscriptions.map(\.topic))
        guard !routes.isEmpty else { return }
        let members = isBroadcasting ? [clientID] : try await self.members()
        guard members.contains(clientID) else {
            // The broker does not know this member (it was restarted): a heartbeat, and its notice, rebalance again.
            try await heartbeat()
            if hasStarted { return }
            throw .notFound("the broker does not list this consumer in group '\(group)'")
        }
        let share = Set(
            routes.flatMap { route in
                isBroadcasting
                    ? route.route.readable
                    : QueueAllocation.averagely(route.route.readable, among: members, for: clientID)
            })
        let before = Set(possessions.keys)
        for possession in possessions.values where !share.contains(possession.queue) { await giveUp(possession) }
        let new = share.filter { possessions[$0] == nil && !releasing.contains($0) }.sorted()
        let locked = isOrdered ? try await lock(new) : [:]
        for queue in new where !isClosing && (!isOrdered || locked[queue] != nil) {
            take(queue, locked[queue], afterPause: hasStarted || members.count > 1)
        }
        let after = Set(possessions.keys)
        if after != before { onEvent(.assigned(after.sorted())) }
        if isOrdered, new.count > locked.count {
            // Another member still has the lock on a queue of ours.
            rebalance(after: .seconds(1))
        } else if !isBroadcasting, !routes.contains(where: { $0.topic == retryTopic }) {
            let pause = retryTopicBackOff.next()
            if pause < options.rebalanceInterval { rebalance(after: pause) }
        }
    }

    func rebalance(after pause: Duration) {
        Task { [notice] in
            try? await Task.sleep(for: pause)
            notice.yield(.membersChanged)
        }
    }

    func members() async throws(RocketMQClientError) -> [String] {
        var failure = RocketMQClientError.notFound("no broker is registered for the topics of group '\(group)'")
        for address in try await brokers().sorted() {
            do throws(RocketMQClientError) {
                let reply = try await connections.demand(
                    address, RemotingCommand(.getConsumerListByGroup, extFields: ["consumerGroup": group]))
                return try decoded(address) { () throws(RemotingDecodeError) in
                    try GetConsumerListByGroupResponseBody(body: reply.body).consumerIDList
                }
            } catch {
                failure = error
            }
        }
        throw failure
    }

    func take(_ queue: MessageQueue, _ lock: (until: ContinuousClock.Instant, epoch: Int)?, afterPause: Bool) {
        let possession = Possession(queue, subscriptions.first { $0.topic == queue.topic })
        possession.lockedUntil = lock?.until
        possession.lockEpoch = lock?.epoch ?? -1
        possessions[queue] = possession
        possession.task = Task {
            if afterPause { try? await Task.sleep(for: options.takeOverPause) }
            await pullLoop(possession)
        }
    }

    func giveUp(_ possession: Possession, commits: Bool = true) async {
        guard possessions[possession.queue] === possession else { return }
        possessions[possession.queue] = nil
        possession.isDropped = true
        possession.task?.cancel()
        resume(&possession.whenRoom)
        runningInfo.released(possession.queue)
        guard isOrdered else {
            if commits { await commit(possession) }
            return
        }
        releasing.insert(possession.queue)
        Task {
            // Another member may begin only when no message of the queue is being consumed here.
            if possession.running > 0 { await withCheckedContinuation { possession.whenIdle = $0 } }
            if commits { await commit(possession) }
            await unlock([possession.queue])
            releasing.remove(possession.queue)
            if !isClosing { await rebalance() }
        }
    }

    func owns(_ possession: Possession) -> Bool { !isClosing && !possession.isDropped }
}
