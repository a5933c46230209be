import RemotingProtocol

/// Which client holds the lock of a queue for orderly consumption. Two instances may have one client identifier
/// (containers with the same process number behind one address). Each has its own locks, and the connection tells them
/// apart. A lock not renewed for 60 s is free (setting `rebalanceLockMaxLiveTime`; RocketMQ's system property
/// `rocketmq.broker.rebalance.lockMaxLiveTime`); clients renew every 20 s.
struct RebalanceLockManager {
    fileprivate struct Lock {
        var clientID: String
        /// The connection it was asked for on; `nil` where that is not known.
        var instance: ClientContext?
        var lastUpdateMilliseconds: Int64
        /// Another client has asked for it meanwhile. Clients of 4.9 ask again at their next rebalance only, 20 s
        /// later, unless they are notified of a change.
        var isWanted = false
    }

    /// RocketMQ's default; longer than its clients use a lock they could not renew (30 s).
    static let lockMaxLiveMilliseconds: Int64 = 60_000

    let maxLiveMilliseconds: Int64
    private var locks: [String: [MessageQueue: Lock]] = [:]
    /// Locks that are held, or were not given back and have not been looked at since they expired.
    private(set) var count = 0
    /// More are refused as if another client held them: RocketMQ has no bound, and a lock names any queue.
    let locksMax: Int
    /// Groups looked at in one slice.
    static let groupsPerSlice = 64

    /// - Parameter maxLiveMilliseconds: `rebalanceLockMaxLiveTime`.
    init(maxLiveMilliseconds: Int64 = lockMaxLiveMilliseconds, locksMax: Int = 500_000) {
        self.maxLiveMilliseconds = maxLiveMilliseconds
        self.locksMax = locksMax
    }

    /// No client holds any.
    var isEmpty: Bool { locks.isEmpty }

    /// The client that asks for locks or gives them back.
    struct Owner {
        var clientID: String
        var instance: ClientContext?
        /// Whether that connection belongs to another instance with the same client identifier.
        var isOther: (ClientContext) -> Bool = { _ in false }

        fileprivate func holds(_ lock: Lock) -> Bool {
            lock.clientID == clientID && lock.instance.map { !isOther($0) } ?? true
        }
    }

    /// Locks what is free, expired or already the client's; returns the queues it now holds of those asked for.
    mutating func tryLock(group: String, queues: [MessageQueue], by owner: Owner, now: Int64) -> [MessageQueue] {
        var held: [MessageQueue] = []
        for queue in queues {
            let lock = locks[group]?[queue]
            let isMine = lock.map { owner.holds($0) } ?? false
            if let lock, !isMine, now - lock.lastUpdateMilliseconds <= maxLiveMilliseconds {
                locks[group]?[queue]?.isWanted = true
                continue
            }
            guard lock != nil || count < locksMax else { continue }
            if lock == nil { count += 1 }
            locks[group, default: [:]][queue] = Lock(
                clientID: owner.clientID, instance: owner.instance, lastUpdateMilliseconds: now,
                isWanted: isMine && lock?.isWanted == true)
            held.append(queue)
        }
        return held
    }

    /// Frees those queues the client holds; other clients' locks stay. `true` if another client waits for one of them.
    mutating func unlock(group: String, queues: [MessageQueue], by owner: Owner) -> Bool {
        var isWanted = false
        for queue in queues {
            guard let lock = locks[group]?[queue], owner.holds(lock) else { continue }
            count -= 1
            if locks[group]?.removeValue(forKey: queue)?.isWanted == true { isWanted = true }
        }
        if locks[group]?.isEmpty == true { locks[group] = nil }
        return isWanted
    }

    /// Frees whatever the client still holds in the group.
    mutating func unlockAll(group: String, by owner: Owner) {
        guard let table = locks[group] else { return }
        let others = table.filter { !owner.holds($0.value) }
        count -= table.count - others.count
        locks[group] = others.isEmpty ? nil : others
    }

    /// Groups of which locks are held.
    var groups: [String] { Array(locks.keys) }

    /// Drops what has expired, so that groups without clients cost nothing. Returns those of the groups in which a
    /// client waits for a queue that is free now.
    mutating func removeExpired(in groups: some Sequence<String>, now: Int64) -> [String] {
        var waiting: [String] = []
        for group in groups {
            guard let table = locks[group] else { continue }
            let live = table.filter { now - $0.value.lastUpdateMilliseconds <= maxLiveMilliseconds }
            guard live.count < table.count else { continue }
            if table.contains(where: { $0.value.isWanted && live[$0.key] == nil }) { waiting.append(group) }
            count -= table.count - live.count
            locks[group] = live.isEmpty ? nil : live
        }
        return waiting
    }
}

extension RebalanceLockManager {
    /// The client that has a queue's lock; nil when it is free.
    /// - Parameter now: milliseconds since 1970.
    func owner(group: String, queue: MessageQueue, now: Int64) -> String? {
        guard let lock = locks[group]?[queue], now - lock.lastUpdateMilliseconds <= maxLiveMilliseconds else {
            return nil
        }
        return lock.clientID
    }

    /// The queues of a group whose locks a client has.
    func held(group: String, by owner: Owner) -> Set<MessageQueue> {
        Set((locks[group] ?? [:]).lazy.filter { owner.holds($0.value) }.map(\.key))
    }
}
