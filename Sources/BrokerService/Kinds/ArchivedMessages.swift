import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Messages that topics with `apus.archive` keep longer than `fileReservedTime`: until their groups have consumed them,
/// for some days, or for ever. They hold the log file they lie in and all after it, with the messages of all other
/// topics. When the disk is full new messages are refused: nothing that was to be kept is deleted. Confined to the
/// broker's event loop.
final class ArchivedMessages {
    /// What ends the hold, for operators.
    static let until = """
        their time is over or their groups have consumed them (apus admin topicMode shows both; apus.archive can be \
        changed, groups that are not used any more can be deleted)
        """
    /// An answer holds so long, milliseconds: several files may be looked at in a round.
    private static let ageMax: Int64 = 1000

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private var topics: [TopicEntry] = []
    /// Their queues that are no longer queues of the topic, because it has fewer now: nothing new comes there.
    private var formerQueues: [String: [Int32]] = [:]
    /// Of `TopicConfigManager.changes`, when `topics` was right.
    private var changes: Int64 = -1
    private var known: (offset: PhysicalOffset?, atSteady: Int64)?

    init(_ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
    }

    /// A record that is needed and before which none is, or one of the oldest log file; nil when none is needed.
    var neededFrom: PhysicalOffset? {
        if changes != tables.topics.changes {
            topics = tables.topics.all.filter { $0.policy.archive != nil }
            formerQueues = findFormerQueues()
            changes = tables.topics.changes
            known = nil
        }
        guard !topics.isEmpty else { return nil }
        let steady = environment.steady()
        if let known, steady - known.atSteady < Self.ageMax { return known.offset }
        let lowest = lookForLowest()
        known = (lowest, steady)
        return lowest
    }

    private func findFormerQueues() -> [String: [Int32]] {
        guard !topics.isEmpty else { return [:] }
        let queueNums = Dictionary(topics.map { ($0.name, $0.queueNums) }, uniquingKeysWith: { $1 })
        var former: [String: [Int32]] = [:]
        for queue in storage.store.consumeQueues {
            guard let count = queueNums[queue.topic], queue.queueID >= count else { continue }
            former[queue.topic, default: []].append(queue.queueID)
        }
        return former
    }

    private func lookForLowest() -> PhysicalOffset? {
        let store = storage.store
        let enough = store.minPhysicalOffset + Int64(store.configuration.mappedFileSizeCommitLog)
        var lowest: PhysicalOffset?
        for topic in topics {
            guard let archive = topic.policy.archive else { continue }
            for queueID in Array(0..<topic.queueNums) + (formerQueues[topic.name] ?? []) {
                guard let queue = store.consumeQueue(topic: topic.name, queueID: queueID),
                    let needed = neededOffset(archive, topic, queue), needed < queue.maxOffset,
                    let entry = store.entries(queue, from: max(needed, queue.minOffset), maxCount: 1).first
                else { continue }
                lowest = min(lowest ?? entry.physicalOffset, entry.physicalOffset)
                if entry.physicalOffset < enough { return lowest }
            }
        }
        return lowest
    }

    /// The first message of a queue that is to be kept; nil: none.
    private func neededOffset(_ archive: TopicArchive, _ topic: TopicEntry, _ queue: ConsumeQueue) -> QueueOffset? {
        switch archive {
        case .forever: return queue.minOffset
        case .days(let days):
            let begin = environment.now() -| days * 86_400_000
            return storage.store.offset(topic: topic.name, queueID: queue.queueID, byTimestamp: begin, boundary: .lower)
        case .consumed:
            // A group without an offset in this queue has consumed nothing of it; nor has any when there is no group.
            let groups = tables.offsets.tables(of: topic.name).filter {
                !SubscriptionGroupManager.isOfTools($0.group)
            }
            guard !groups.isEmpty else { return queue.minOffset }
            return groups.map { QueueOffset($0.offsets[queue.queueID] ?? 0) }.min()
        }
    }
}
