import MessageModel
import NIOCore
import RemotingProtocol

/// Connections that are closed for others: see `GivingWay`.
extension RemotingServer {
    /// Half of the idle time-out: a client that keeps to that is never so silent.
    private var idleEnough: TimeAmount { .nanoseconds(configuration.idleTimeout.nanoseconds / 2) }

    /// With each sweep: remembers one that has been silent for long.
    func noticeIdle(_ connection: RemotingConnection, now: NIODeadline) {
        guard connection.hasSpoken, !connection.isListedIdle, isIdle(connection, now: now) else { return }
        connection.isListedIdle = true
        givingWay.becameIdle(connection.id) { connections[$0] == nil }
    }

    private func isIdle(_ connection: RemotingConnection, now: NIODeadline) -> Bool {
        now - connection.lastRead > idleEnough
    }

    /// Closes the connection that is missed least. False: every one is in use.
    func closeOne(_ reason: String) -> Bool {
        let now = NIODeadline.now()
        let id = givingWay.next(
            stranger: { judge(stranger: $0, now: now) }, idle: { judge(idle: $0, now: now) })
        guard let id, let connection = connections[id] else { return false }
        let silence = (now - connection.lastRead).nanoseconds / 1_000_000_000
        let did = connection.hasSpoken ? "has said nothing for \(silence) s" : "has not completed a request"
        refused("\(reason), and it \(did)", connection.remoteAddress.text)
        connection.abandon()
        return true
    }

    private func judge(stranger id: UInt64, now: NIODeadline) -> GivingWay.Verdict {
        guard let connection = connections[id], !connection.isClosed, !connection.hasSpoken else { return .gone }
        let grace = connection.hasBegun ? GivingWay.begunGrace : GivingWay.silentGrace
        guard now - connection.opened >= grace else { return .spared }
        return .candidate(connectionsOfItsAddress: admission.count(of: connection.remoteAddress))
    }

    private func judge(idle id: UInt64, now: NIODeadline) -> GivingWay.Verdict {
        guard let connection = connections[id], !connection.isClosed else { return .gone }
        guard isIdle(connection, now: now) else {
            connection.isListedIdle = false
            return .gone
        }
        return .candidate(connectionsOfItsAddress: admission.count(of: connection.remoteAddress))
    }

    /// Files need descriptors more than connections do. When all are in use, those that have been silent longest go.
    func freeDescriptors(_ count: Int) {
        let reason = "its descriptor is needed for a file of this worker"
        var left = count
        while left > 0, closeOne(reason) { left -= 1 }
        guard left > 0 else { return }
        for connection in connections.values.sorted(by: { $0.lastRead < $1.lastRead }).prefix(left) {
            refused(reason, connection.remoteAddress.text)
            connection.abandon()
        }
    }
}
