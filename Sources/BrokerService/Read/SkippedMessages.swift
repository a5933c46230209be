import Logging
import MessageStore
import RemotingProtocol
import StoreFormat

/// Counts messages a group skips because its clients subscribe to different things. On the broker's event loop.
struct SkippedMessages {
    /// Milliseconds between two lines of the log for one group.
    static let logMilliseconds: Int64 = 60_000

    let environment: BrokerEnvironment
    let tables: BrokerTables
    let store: MessageStore

    /// The group's offset moves over messages that this client does not want and another of its group does: counted,
    /// and logged once a minute.
    func note(_ request: ReadRequest, to end: Int64, _ isMine: (Int, ConsumeQueueEntry) -> Bool) {
        guard end > request.queueOffset, let consumers = tables.consumers[request.group.name],
            let queue = store.consumeQueue(topic: request.topic.name, queueID: request.queueID)
        else { return }
        let entries = store.entries(
            queue, from: QueueOffset(request.queueOffset), maxCount: Int(end - request.queueOffset))
        var count: Int64 = 0
        for (index, entry) in entries.enumerated() where !isMine(index, entry) {
            if request.others.contains(where: { $0.filter.wants(tagsCode: entry.tagsCode) }) { count += 1 }
        }
        guard count > 0 else { return }
        consumers.skipped += count
        let now = environment.now()
        guard now - consumers.skippedLog.milliseconds >= Self.logMilliseconds else { return }
        let since = consumers.skipped - consumers.skippedLog.count
        consumers.skippedLog = (now, consumers.skipped)
        let expressions = request.others.map { "\"\($0.data.subString)\"" }.joined(separator: ", ")
        environment.logger.warning(
            """
            consumer group \(consumers.name) has skipped \(since) messages of topic \(request.topic.name), the last in \
            queue \(request.queueID): another of its clients may want them (\(expressions)), but the queue is assigned \
            to \(request.client.address), which does not; let all clients of a group subscribe to the same
            """,
            metadata: ["consumerGroup": "\(consumers.name)", "topic": "\(request.topic.name)"])
    }
}
