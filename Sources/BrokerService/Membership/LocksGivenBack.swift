import RemotingProtocol

/// Queues whose locks clients have given back as they do when they leave: before their last offsets.
///
/// RocketMQ's clients shut down in this order: all locks back, offsets committed, group left (35). The one that gets
/// such a queue in between begins at an old offset, and consumes again what is done. So these locks stay for a moment,
/// or until the client has left. Apache frees them at once, and there only a rebalance in that very moment is in time.
struct LocksGivenBack {
    /// Longer than a client's next requests are in coming, and nothing against the 20 s until its heirs would ask
    /// again.
    static let graceMilliseconds: Int64 = 250

    private struct Key: Hashable {
        var group: String
        var connection: ObjectIdentifier
    }

    private struct Entry {
        /// Kept, so that no other object gets its identity.
        var client: ClientContext
        var owner: RebalanceLockManager.Owner
        var queues: Set<MessageQueue>
    }

    private var entries: [Key: Entry] = [:]
    /// In the order they are due; those left or locked again meanwhile are in it as well.
    private var order: [(key: Key, dueMilliseconds: Int64)] = []

    private static func key(_ group: String, _ client: ClientContext) -> Key {
        Key(group: group, connection: ObjectIdentifier(client))
    }

    mutating func add(
        group: String, queues: [MessageQueue], owner: RebalanceLockManager.Owner, client: ClientContext, now: Int64
    ) {
        let key = Self.key(group, client)
        entries[key, default: Entry(client: client, owner: owner, queues: [])].queues.formUnion(queues)
        order.append((key, now + Self.graceMilliseconds))
    }

    /// The client has left, or its connection has another use for them.
    mutating func forget(group: String, client: ClientContext) {
        if !entries.isEmpty { entries[Self.key(group, client)] = nil }
    }

    /// It has changed its mind about these: it holds them again.
    mutating func lockedAgain(group: String, queues: [MessageQueue], client: ClientContext) {
        guard !entries.isEmpty else { return }
        entries[Self.key(group, client)]?.queues.subtract(queues)
    }

    /// When `take` is to be called next; `nil`: nothing waits.
    var nextMilliseconds: Int64? { order.first?.dueMilliseconds }

    /// What is to be freed now.
    mutating func take(now: Int64) -> [(group: String, owner: RebalanceLockManager.Owner, queues: [MessageQueue])] {
        // A clock that was set back frees them as well.
        let due = order.prefix { $0.dueMilliseconds <= now || $0.dueMilliseconds > now + Self.graceMilliseconds }
        order.removeFirst(due.count)
        return due.compactMap { next in
            entries.removeValue(forKey: next.key).map { (next.key.group, $0.owner, $0.queues.sorted()) }
        }
    }
}
