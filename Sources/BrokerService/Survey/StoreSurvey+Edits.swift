import LinuxSystem
import MessageModel
import MessageStore
import StoreFormat

/// Edited and deleted messages: RocketMQ serves each as it was first sent.
extension StoreSurvey {
    mutating func readEdits() throws(SystemError) {
        let found = try EditedMessages.read(configuration, disk: disk)
        report.edits.problem = found.problem
        let queues = Dictionary(
            report.topics.flatMap(\.queues).map { (QueueName(topic: $0.topic, queueID: $0.queueID), $0) },
            uniquingKeysWith: { $1 })
        for message in found.messages where message.physicalOffset.rawValue >= log.first {
            let name = QueueName(topic: message.topic, queueID: message.queueID)
            let offset = message.offset.rawValue
            // Timer messages are told from their own queue. A prepared one that was withdrawn has had its outcome,
            // which RocketMQ reads.
            guard message.topic != TopicNames.timer, !(message.isDeleted && message.topic == TopicNames.half),
                let queue = queues[name], offset >= queue.first, offset < queue.end
            else { continue }
            switch (message.isDeleted, isOutstanding(name, offset)) {
            case (true, true): report.edits.deleted += 1
            case (false, true): report.edits.changed += 1
            case (_, false): report.edits.behind += 1
            }
            if !report.edits.topics.contains(message.topic), report.edits.topics.count < 100 {
                report.edits.topics.append(message.topic)
            }
        }
        report.edits.topics.sort()
    }

    private struct QueueName: Hashable {
        let topic: String
        let queueID: Int32
    }

    /// Whether RocketMQ would still deliver the message: to a group, or, of one that waits, to its topic.
    private func isOutstanding(_ queue: QueueName, _ offset: Int64) -> Bool {
        switch queue.topic {
        case TopicNames.schedule: return offset >= delayed[queue.queueID] ?? 0
        case TopicNames.half:
            return offset >= offsets(of: TransactionalMessageService.group.text, in: queue.topic)[queue.queueID] ?? 0
        default:
            let groups = (offsets[queue.topic] ?? [:]).filter { !Self.ownGroups.contains($0.key) }
            // A group without an offset in this queue, or one that comes later, may read it from the beginning.
            return groups.isEmpty || groups.contains { offset >= $0.value[queue.queueID] ?? 0 }
        }
    }
}
