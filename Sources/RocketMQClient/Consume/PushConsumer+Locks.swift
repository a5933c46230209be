package import RemotingProtocol

extension PushConsumer {
    /// The broker's lock holds, and the connection it was got on is the same: a new broker process knows no locks.
    func hasLock(_ possession: Possession) async -> Bool {
        guard let until = possession.lockedUntil, until > .now,
            let address = try? await access.server(of: possession.queue)
        else { return false }
        return await connections.epoch(of: address) == possession.lockEpoch
    }

    func byServer(_ queues: [MessageQueue]) async -> [String: [MessageQueue]] {
        var servers: [String: [MessageQueue]] = [:]
        for queue in queues {
            if let address = try? await access.server(of: queue) { servers[address, default: []].append(queue) }
        }
        return servers
    }

    /// The queues that are locked for this member now.
    func lock(
        _ queues: [MessageQueue]
    ) async throws(RocketMQClientError) -> [MessageQueue: (until: ContinuousClock.Instant, epoch: Int)] {
        var locked: [MessageQueue: (until: ContinuousClock.Instant, epoch: Int)] = [:]
        for (address, queues) in await byServer(queues) {
            let asked = ContinuousClock.now
            let command = LockRequest(group: group, clientID: clientID, queues: queues).command(.lockBatchMQ)
            let reply = try await connections.demand(address, command)
            let granted = try decoded(address) { () throws(RemotingDecodeError) in
                try LockBatchResponseBody(body: reply.body).lockOKMQSet
            }
            guard let epoch = await connections.epoch(of: address) else { continue }
            for queue in granted { locked[MessageQueue(queue)] = (asked + Self.lockValidity, epoch) }
        }
        return locked
    }

    func unlock(_ queues: [MessageQueue]) async {
        for (address, queues) in await byServer(queues) {
            let command = LockRequest(group: group, clientID: clientID, queues: queues).command(.unlockBatchMQ)
            // A lock that is not released ends by itself.
            _ = try? await connections.invoke(address, command, timeout: .seconds(2))
        }
    }

    func renewLocks() async {
        do throws(RocketMQClientError) {
            let mine = Array(possessions.values)
            let locked = try await lock(mine.map(\.queue))
            for possession in mine where owns(possession) {
                guard let lock = locked[possession.queue], lock.epoch == possession.lockEpoch else {
                    // Another member may have consumed meanwhile: what this one knows of the queue is old.
                    await giveUp(possession)
                    continue
                }
                possession.lockedUntil = lock.until
            }
            await rebalance()
        } catch {
            warn("locks of ordered queues not renewed: \(error)")
        }
    }
}

/// Locks queues of a group for a member (41), or unlocks them (42).
package struct LockRequest: Sendable {
    /// The consumer group.
    package var group: String
    /// The member that locks.
    package var clientID: String
    /// All of the broker that is asked.
    package var queues: [MessageQueue]

    package init(group: String, clientID: String, queues: [MessageQueue]) {
        self.group = group
        self.clientID = clientID
        self.queues = queues
    }

    /// `lockBatchMQ` (41) or `unlockBatchMQ` (42).
    package func command(_ code: RequestCode) -> RemotingCommand {
        let body = LockBatchRequestBody(consumerGroup: group, clientID: clientID, mqSet: queues.map(\.wire))
        return RemotingCommand(code, body: body.encoded())
    }
}
