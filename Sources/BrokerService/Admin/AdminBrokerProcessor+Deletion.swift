import MessageStore
import RemotingProtocol

extension AdminBrokerProcessor {
    /// Removes a topic with its offsets and queues; what is suspended at them is answered.
    func delete(topic: String) {
        if let entry = tables.topics[topic] {
            // Statistics of a topic that is not there any more are not asked for; they may go later.
            TableCopy.make(
                in: environment.slices, table: { [tables] in tables.groups.table }, { $0.forget(topic: entry) },
                then: { _ in })
            storage.stats.forget(topic: topic)
        }
        tables.topics.delete(topic)
        tables.autoCreated.remove(topic)
        tables.offsets.remove(topic: topic, in: environment.slices)
        tables.requestModes.forget(topic: topic)
        let removed = storage.store.removeTopic(topic)
        claims.forget(topic: topic)
        waiters.end(topic: topic)
        hold.expire(at: removed)
    }

    /// Topics looked at, and queues removed, in one slice.
    private static let unusedPerSlice = 1024

    /// Removes queues of topics that do not exist any more, in slices.
    func removeUnusedTopics(for client: ClientContext, then: @escaping () -> Void) {
        var names = storage.store.topicsWithQueues[...]
        environment.slices.work(for: client) { [tables, storage, hold] in
            var budget = Self.unusedPerSlice
            while budget > 0, let name = names.popFirst() {
                budget -= 1
                guard tables.topics[name] == nil, !tables.topics.isSystemTopic(name) else { continue }
                let removed = storage.store.removeTopic(name)
                budget -= removed.count
                hold.expire(at: removed)
            }
            return !names.isEmpty
        } then: { [storage] in
            storage.store.whenRemoved(then)
        }
    }
}
