import MessageModel
import RemotingProtocol

/// Which client holds the lock of a queue for orderly consumption. Two instances may have one client identifier
/// (containers with the same process number behind one address). Each has its own locks, and the connection tells them
/// apart. A lock not renewed for 60 s is free (setting `rebalanceLockMaxLiveTime`; RocketMQ's system property
/// `rocketmq.broker.rebalance.lockMaxLiveTime`); clients renew every 20 s.
///
/// Confined to the broker's event loop. What a client does costs what it names, however many locks others hold.
final class RebalanceLockManager {
    /// The locks one client holds in a group, on one connection.
    fileprivate final class Holding {
        let clientID: String
        /// The connection they were asked for on; `nil` where that is not known.
        let instance: ClientContext?
        var queues: Set<MessageQueue> = []

        init(clientID: String, instance: ClientContext?) {
            self.clientID = clientID
            self.instance = instance
        }
    }

    fileprivate struct Lock {
        let holding: Holding
        /// Of its names.
        let bytes: Int
        var lastUpdateMilliseconds: Int64
        /// Another client has asked for it meanwhile. Clients of 4.9 ask again at their next rebalance only, 20 s
        /// later, unless they are notified of a change.
        var isWanted = false
    }

    fileprivate final class Group {
        var locks: [MessageQueue: Lock] = [:]
        /// By client identifier, then by connection.
        var holdings: [String: [ObjectIdentifier?: Holding]] = [:]
    }

    /// How many locks are held; more are refused as if another client held them. RocketMQ has no bound, and a lock
    /// names any queue.
    struct Bounds {
        var locks = 500_000
        var locksOfGroup = 65_536
        /// Of the names of all locks: topics, brokers, clients.
        var nameBytes = 64 << 20
    }

    /// RocketMQ's default; longer than its clients use a lock they could not renew (30 s).
    static let lockMaxLiveMilliseconds: Int64 = 60_000
    /// A queue whose broker has a longer name is not locked.
    static let brokerNameBytesMax = 255
    /// Groups looked at in one slice, and locks: looked at or freed.
    static let groupsPerSlice = 64
    static let locksPerSlice = 4096
    /// Connections with one client identifier whose locks in a group are looked at, besides the asker's.
    private static let instancesMax = 64

    let maxLiveMilliseconds: Int64
    let bounds: Bounds
    private var table: [String: Group] = [:]
    /// Locks that are held, or were not given back and have not been looked at since they expired.
    private(set) var count = 0
    /// Of their names.
    private(set) var nameBytes = 0

    /// - Parameter maxLiveMilliseconds: `rebalanceLockMaxLiveTime`.
    init(maxLiveMilliseconds: Int64 = lockMaxLiveMilliseconds, bounds: Bounds = Bounds()) {
        self.maxLiveMilliseconds = maxLiveMilliseconds
        self.bounds = bounds
    }

    /// No client holds any.
    var isEmpty: Bool { table.isEmpty }

    /// The client that asks for locks or gives them back.
    struct Owner {
        var clientID: String
        var instance: ClientContext?
        /// Whether that connection belongs to another instance with the same client identifier.
        var isOther: (ClientContext) -> Bool = { _ in false }

        fileprivate func has(_ holding: Holding) -> Bool {
            holding.clientID == clientID && holding.instance.map { !isOther($0) } ?? true
        }

        fileprivate var key: ObjectIdentifier? { instance.map { ObjectIdentifier($0) } }
    }

    /// Locks what is free, expired or already the client's; returns the queues it now holds of those asked for.
    func tryLock(group name: String, queues: [MessageQueue], by owner: Owner, now: Int64) -> [MessageQueue] {
        let group = table[name] ?? Group()
        var held: [MessageQueue] = []
        for queue in queues {
            let lock = group.locks[queue]
            let isMine = lock.map { owner.has($0.holding) } ?? false
            if let lock, !isMine, now - lock.lastUpdateMilliseconds <= maxLiveMilliseconds {
                group.locks[queue]?.isWanted = true
                continue
            }
            if let lock, isMine, lock.holding.instance === owner.instance {
                group.locks[queue]?.lastUpdateMilliseconds = now
                held.append(queue)
                continue
            }
            if let lock { remove(queue, lock, from: group) }
            if add(queue, to: group, owner, now: now, isWanted: isMine && lock?.isWanted == true) { held.append(queue) }
        }
        table[name] = group.locks.isEmpty ? nil : group
        return held
    }

    /// Frees those queues the client holds; other clients' locks stay. `true` if another client waits for one of them.
    func unlock(group name: String, queues: [MessageQueue], by owner: Owner) -> Bool {
        guard let group = table[name] else { return false }
        var isWanted = false
        for queue in queues {
            guard let lock = group.locks[queue], owner.has(lock.holding) else { continue }
            remove(queue, lock, from: group)
            if lock.isWanted { isWanted = true }
        }
        if group.locks.isEmpty { table[name] = nil }
        return isWanted
    }

    /// Frees what the client still holds in the group, `locksPerSlice` of them at most; `true` when it holds more.
    func unlockSome(group name: String, by owner: Owner) -> Bool {
        guard let group = table[name] else { return false }
        var left = Self.locksPerSlice
        for holding in holdings(of: owner, in: group) {
            for queue in Array(holding.queues.prefix(left)) {
                guard let lock = group.locks[queue] else { continue }
                remove(queue, lock, from: group)
                left -= 1
            }
        }
        if group.locks.isEmpty { table[name] = nil }
        return left == 0 && heldCount(group: name, by: owner) > 0
    }

    /// Groups of which locks are held.
    var groups: [String] { Array(table.keys) }

    /// A slice of dropping what has expired, so that groups without clients cost nothing. Returns the groups in which
    /// a client waits for a queue that is free now.
    /// - Parameter left: groups to look at; those that are done are taken out.
    func removeExpired(in left: inout ArraySlice<String>, now: Int64) -> [String] {
        var waiting: [String] = []
        var looks = 0
        for _ in 0..<Self.groupsPerSlice {
            guard looks < Self.locksPerSlice, let name = left.first else { break }
            guard let group = table[name] else {
                left.removeFirst()
                continue
            }
            looks += group.locks.count
            let expired = Array(
                group.locks.lazy
                    .filter { [maxLiveMilliseconds] in now - $0.value.lastUpdateMilliseconds > maxLiveMilliseconds }
                    .prefix(Self.locksPerSlice))
            for (queue, lock) in expired { remove(queue, lock, from: group) }
            if expired.contains(where: { $0.value.isWanted }) { waiting.append(name) }
            if group.locks.isEmpty { table[name] = nil }
            if expired.count < Self.locksPerSlice { left.removeFirst() }
        }
        return waiting
    }

    // MARK: - One lock

    /// - Returns: `false` where a bound forbids it, or no queue can have that name.
    private func add(
        _ queue: MessageQueue, to group: Group, _ owner: Owner, now: Int64, isWanted: Bool
    ) -> Bool {
        let bytes = queue.topic.utf8.count + queue.brokerName.utf8.count + owner.clientID.utf8.count
        guard count < bounds.locks, group.locks.count < bounds.locksOfGroup, nameBytes + bytes <= bounds.nameBytes,
            queue.canExist
        else { return false }
        count += 1
        nameBytes += bytes
        let holding: Holding
        if let known = group.holdings[owner.clientID]?[owner.key] {
            holding = known
        } else {
            holding = Holding(clientID: owner.clientID, instance: owner.instance)
            group.holdings[owner.clientID, default: [:]][owner.key] = holding
        }
        holding.queues.insert(queue)
        group.locks[queue] = Lock(holding: holding, bytes: bytes, lastUpdateMilliseconds: now, isWanted: isWanted)
        return true
    }

    private func remove(_ queue: MessageQueue, _ lock: Lock, from group: Group) {
        group.locks[queue] = nil
        count -= 1
        nameBytes -= lock.bytes
        let holding = lock.holding
        holding.queues.remove(queue)
        if holding.queues.isEmpty {
            group.holdings[holding.clientID]?[holding.instance.map { ObjectIdentifier($0) }] = nil
            if group.holdings[holding.clientID]?.isEmpty == true { group.holdings[holding.clientID] = nil }
        }
        // Dictionaries and sets keep their memory when they become empty.
        if group.locks.isMostlyUnused {
            var some: [MessageQueue: Lock] = Dictionary(minimumCapacity: 2 * group.locks.count)
            for (queue, lock) in group.locks { some[queue] = lock }
            group.locks = some
        }
        if holding.queues.isMostlyUnused {
            var some = Set<MessageQueue>(minimumCapacity: 2 * holding.queues.count)
            for queue in holding.queues { some.insert(queue) }
            holding.queues = some
        }
    }

    private func holdings(of owner: Owner, in group: Group) -> [Holding] {
        guard let instances = group.holdings[owner.clientID] else { return [] }
        let own = instances[owner.key]
        let others = instances.values.prefix(Self.instancesMax).filter { $0 !== own && owner.has($0) }
        return (own.map { [$0] } ?? []) + others
    }
}

extension RebalanceLockManager {
    /// The client that has a queue's lock; nil when it is free.
    /// - Parameter now: milliseconds since 1970.
    func owner(group: String, queue: MessageQueue, now: Int64) -> String? {
        guard let lock = table[group]?.locks[queue], now - lock.lastUpdateMilliseconds <= maxLiveMilliseconds else {
            return nil
        }
        return lock.holding.clientID
    }

    /// How many locks of a group the client has.
    func heldCount(group: String, by owner: Owner) -> Int {
        table[group].map { holdings(of: owner, in: $0).reduce(0) { $0 + $1.queues.count } } ?? 0
    }

    /// Those of the queues, each once, whose locks the client has.
    func held(group name: String, of queues: [MessageQueue], by owner: Owner) -> Set<MessageQueue> {
        guard let group = table[name] else { return [] }
        return Set(queues.lazy.filter { group.locks[$0].map { owner.has($0.holding) } ?? false })
    }
}

extension MessageQueue {
    /// Whether there may be such a queue on a broker, by its names.
    fileprivate var canExist: Bool {
        var topic = topic
        return brokerName.utf8.count <= RebalanceLockManager.brokerNameBytesMax
            && topic.withUTF8 { TopicName.canExist(UnsafeRawBufferPointer($0)) }
    }
}

extension Dictionary {
    fileprivate var isMostlyUnused: Bool { capacity > 64 && count < capacity / 8 }
}

extension Set {
    fileprivate var isMostlyUnused: Bool { capacity > 64 && count < capacity / 8 }
}
