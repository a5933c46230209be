import LinuxSystem
import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Messages that topics with `apus.archive` keep longer than `fileReservedTime`: until their groups have consumed them,
/// for some days, or for ever. They hold the log file they lie in and all after it, with the messages of all other
/// topics. When the disk is full new messages are refused: nothing that was to be kept is deleted.
///
/// What is needed is looked for in slices when a file is to be deleted, and not before: it takes many reads. Until it
/// is known all is kept. Confined to the broker's event loop.
final class ArchivedMessages {
    /// What ends the hold, for operators.
    static let until = """
        their time is over or their groups have consumed them (apus admin topicMode shows both; apus.archive can be \
        changed, groups that are not used any more can be deleted)
        """
    /// What was found holds so long, milliseconds. What is needed moves towards the log's end, so what was found before
    /// is too low rather than too high. The exception is a group that was set back meanwhile to what it had consumed.
    static let ageMax: Int64 = 5000
    /// What a slice may take: about so many queues looked at, or reads of one.
    private static let costPerSlice = 64
    /// Of a search in a queue by time, in such units.
    private static let costOfSearch = 24
    /// Queues of other topics that cost as much as one read.
    private static let othersPerUnit = 32

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private var known: Known?
    private var isLooking = false

    private struct Known {
        let offset: PhysicalOffset?
        /// Of `TopicConfigManager.archiveChanges`.
        let changes: Int64
        let atSteady: Int64
    }

    /// What is being looked for.
    private struct Look {
        let changes: Int64
        var queues: ArraySlice<ConsumeQueue>
        /// A record before that is in the oldest log file: nothing may be deleted then.
        let enough: PhysicalOffset
        let now: Int64
        var groups: [String: [ConsumerOffsetManager.Table]] = [:]
        var lowest: PhysicalOffset?
    }

    init(_ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
    }

    /// Whether `neededFrom` has an answer; if not it is looked for from now on.
    var isKnown: Bool {
        guard !tables.topics.archived.isEmpty else { return true }
        if let known, known.changes == tables.topics.archiveChanges,
            environment.steady() -| known.atSteady < Self.ageMax
        {
            return true
        }
        if !isLooking { look() }
        return false
    }

    /// A record that is needed and before which none is, or one of the oldest log file; nil when none is needed. The
    /// log's beginning while it is not known.
    var neededFrom: PhysicalOffset? {
        guard !tables.topics.archived.isEmpty else { return nil }
        guard isKnown, let known else { return storage.store.minPhysicalOffset }
        return known.offset
    }

    // MARK: - Looking

    private func look() {
        isLooking = true
        let store = storage.store
        var look = Look(
            changes: tables.topics.archiveChanges, queues: store.consumeQueues[...],
            enough: store.minPhysicalOffset + Int64(store.configuration.mappedFileSizeCommitLog),
            now: environment.now())
        environment.slices.add { [unowned self] in
            if lookOn(&look) { return true }
            isLooking = false
            known = Known(offset: look.lowest, changes: look.changes, atSteady: environment.steady())
            return false
        }
    }

    /// - Returns: whether there is more to look at.
    private func lookOn(_ look: inout Look) -> Bool {
        var budget = Self.costPerSlice * Self.othersPerUnit
        while budget > 0 {
            guard let queue = look.queues.popFirst() else { return false }
            budget -= 1
            guard !queue.isRemoved, let topic = tables.topics.archived[queue.topic], let archive = topic.policy.archive
            else { continue }
            do throws(SystemError) {
                budget -= Self.othersPerUnit
                let needed = max(try neededOffset(archive, topic, queue, &look, &budget), queue.minOffset)
                guard needed < queue.maxOffset else { continue }
                // An entry that is none: what it was is not known.
                let place = try storage.store.enteredAt(queue, needed) ?? storage.store.minPhysicalOffset
                look.lowest = min(look.lowest ?? place, place)
            } catch {
                environment.logger.error(
                    """
                    what apus.archive keeps of topic \(queue.topic), queue \(queue.queueID), cannot be read, and all \
                    of the log is kept meanwhile: \(error)
                    """)
                look.lowest = storage.store.minPhysicalOffset
            }
            if let lowest = look.lowest, lowest < look.enough { return false }
        }
        return true
    }

    /// The first message of a queue that is to be kept; the queue's end: none.
    private func neededOffset(
        _ archive: TopicArchive, _ topic: TopicEntry, _ queue: ConsumeQueue, _ look: inout Look, _ budget: inout Int
    ) throws(SystemError) -> QueueOffset {
        switch archive {
        case .forever: return queue.minOffset
        case .days(let days):
            budget -= Self.costOfSearch * Self.othersPerUnit
            return try storage.store.firstOffset(queue, storedSince: look.now -| days * 86_400_000)
        case .consumed:
            let groups = look.groups[topic.name] ?? groupsOf(topic)
            look.groups[topic.name] = groups
            budget -= groups.count
            // A group without an offset in this queue has consumed nothing of it; nor has any when there is no group.
            guard !groups.isEmpty else { return queue.minOffset }
            return groups.reduce(queue.maxOffset) { min($0, QueueOffset($1.offsets[queue.queueID] ?? 0)) }
        }
    }

    /// Groups that have offsets in a topic. A group that was deleted consumes nothing any more, also when its offsets
    /// were left (RocketMQ's `deleteSubGroup` does that).
    private func groupsOf(_ topic: TopicEntry) -> [ConsumerOffsetManager.Table] {
        tables.offsets.tables(of: topic.name).filter {
            tables.groups[$0.group] != nil && !SubscriptionGroupManager.isOfTools($0.group)
        }
    }
}
