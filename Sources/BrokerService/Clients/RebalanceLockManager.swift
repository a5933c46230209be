import RemotingProtocol

/// Which client holds the lock of a queue for orderly consumption. A lock not renewed for 60 s is free (setting
/// `rebalanceLockMaxLiveTime`; RocketMQ's system property `rocketmq.broker.rebalance.lockMaxLiveTime`); clients renew every
/// 20 s.
struct RebalanceLockManager {
    private struct Lock {
        var clientId: String
        var lastUpdateMillis: Int64
    }

    /// RocketMQ's default; longer than its clients use a lock they could not renew (30 s).
    static let lockMaxLiveMillis: Int64 = 60_000

    let maxLiveMillis: Int64
    private var locks: [String: [MessageQueue: Lock]] = [:]

    /// - Parameter maxLiveMillis: `rebalanceLockMaxLiveTime`.
    init(maxLiveMillis: Int64 = lockMaxLiveMillis) { self.maxLiveMillis = maxLiveMillis }

    /// Locks what is free, expired or already the client's; returns the queues it now holds of those asked for.
    mutating func tryLock(group: String, queues: [MessageQueue], clientId: String, now: Int64) -> [MessageQueue] {
        var held: [MessageQueue] = []
        for queue in queues {
            if let lock = locks[group]?[queue], lock.clientId != clientId,
                now - lock.lastUpdateMillis <= maxLiveMillis
            {
                continue
            }
            locks[group, default: [:]][queue] = Lock(clientId: clientId, lastUpdateMillis: now)
            held.append(queue)
        }
        return held
    }

    /// Frees those queues the client holds; somebody else's locks stay.
    mutating func unlock(group: String, queues: [MessageQueue], clientId: String) {
        for queue in queues where locks[group]?[queue]?.clientId == clientId {
            locks[group]?[queue] = nil
        }
        if locks[group]?.isEmpty == true { locks[group] = nil }
    }

    /// Drops what has expired, so that groups that are gone cost nothing.
    mutating func removeExpired(now: Int64) {
        locks = locks.compactMapValues { table in
            let live = table.filter { now - $0.value.lastUpdateMillis <= maxLiveMillis }
            return live.isEmpty ? nil : live
        }
    }
}
