import Claims
import Logging
import MessageModel
import MessageStore
import NIOCore
import StoreFormat

/// Which messages of which queue are in whose hands: the broker's side of `ClaimStore`. Ties claims to the table of
/// offsets, which has each group's floor, and to the queues of the store. Confined to the broker's event loop.
final class GroupClaims {
    /// Claims that become due in one turn of the loop, at most.
    static let expiriesPerSlice = 2048
    /// Messages that become a claim at once when a store is taken over: what is due in one go.
    static let claimsOfARun = 1024

    private let environment: BrokerEnvironment
    private let offsets: ConsumerOffsetManager
    private let messages: MessageStore
    private let waiters: PopWaiters
    private(set) lazy var leases = QueueLeases(environment, store, waiters)
    let store: ClaimStore
    /// Answers slaves.
    let feed: ClaimFeed
    /// Where slaves' files are read: what is synchronized and written meanwhile delays none.
    let feedWork: any BackgroundWork
    /// Apart from the others: reading a trail may take a second.
    private let trailWork: any BackgroundWork
    private let files: any BackgroundWork
    private var timer: Scheduled<Void>?
    private var timerAtSteady = Int64.max
    private var isExpiring = false
    private var trailQuestions = 0
    /// Whether `open` has found offsets that were ahead of claims or log.
    private(set) var hasLowered = false

    /// What is known of a claim table besides its claims; hangs at `ClaimTable.context`.
    private final class Link {
        var offsets: ConsumerOffsetManager.Table
        /// The offset that was committed here last. Another one in the table of offsets has another source:
        /// a reset, a pull of the same group, an operator.
        var committed: Int64

        init(_ offsets: ConsumerOffsetManager.Table, committed: Int64) {
            self.offsets = offsets
            self.committed = committed
        }
    }

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ messages: MessageStore, _ waiters: PopWaiters
    ) {
        self.environment = environment
        self.messages = messages
        self.waiters = waiters
        offsets = tables.offsets
        files = environment.makeWork()
        feedWork = environment.makeWork()
        trailWork = environment.makeWork()
        store = ClaimStore(
            folder: Self.folder(messages.configuration), disk: environment.disk, logger: environment.logger,
            trailBytesMax: environment.configuration.messageTrailBytesMax)
        feed = ClaimFeed(store, disk: environment.disk)
        waiters.leases = leases
    }

    static func folder(_ store: StoreConfiguration) -> String { store.storePathRootDir + "/popState" }

    var time: ClaimTime { ClaimTime(wall: environment.now(), steady: environment.steady()) }

    /// Reads what was claimed before the last stop. Not on a slave, which claims nothing and copies its master's files
    /// (`ClaimsReplica`). The message store is open, the tables are loaded. Claims of a group
    /// that is not known stay: one that a client has made is kept on disk only within a second.
    /// - Parameter places: what RocketMQ has handed out; its claims are on disk when this returns.
    /// - Throws: the files cannot be read, or new claims not be written.
    func open(
        takingOver places: [PopTakeover.Place] = [], isKnown: (_ topic: String) -> Bool
    ) throws(ClaimError) {
        try store.open(at: time, observer: self) { table in
            guard isKnown(table.topic.text) else { return nil }
            let queue = messages.consumeQueue(topic: table.topic.text, queueID: table.queueID)
            return (queue?.minOffset.rawValue ?? 0, queue?.maxOffset.rawValue ?? 0)
        }
        var lowest: [RevivedPops.Queue: Int64] = [:]
        for place in places {
            let queue = RevivedPops.Queue(
                group: place.group.text, topic: place.topic.text, queueID: place.queue.queueID)
            lowest[queue] = place.messages.first?.offset
        }
        for table in store.tables {
            let stored = offsets.offset(
                topic: table.topic.text, group: table.group.text, queueID: table.queueID)
            // The table of offsets may know more: the journal's last moments were lost, or RocketMQ ran meanwhile. Not
            // more than there is: the log may have lost its end, and new messages take those offsets. Nor where a slave
            // has copied the claims: its table of offsets is older than they are.
            let queue = messages.consumeQueue(topic: table.topic.text, queueID: table.queueID)
            let inHand = lowest[.init(group: table.group.text, topic: table.topic.text, queueID: table.queueID)]
            let known = store.isMirrored ? table.floor : stored ?? table.floor
            let begin = min(known, inHand ?? .max, queue?.maxOffset.rawValue ?? 0)
            if begin > table.floor { store.retain(table, from: begin) }
            if let stored, stored > table.floor { hasLowered = true }
            commit(table)
        }
        for place in places { takeOver(place) }
        if !places.isEmpty {
            try store.commitTick()
            store.backgroundWork()?()
        }
        arm()
    }

    // MARK: - Tables

    func find(group: SubscriptionGroupEntry, topic: TopicEntry, queueID: Int32) -> ClaimTable? {
        store.table(group: group.name, topic: topic.name, queueID: queueID)
    }

    /// The claims of a group in a queue; begun where the group's offset is, or where it wants to begin.
    /// - Parameter beginsAtEnd: a group without an offset begins with the last message.
    func table(
        group: SubscriptionGroupEntry, topic: TopicEntry, _ queue: ConsumeQueue, beginsAtEnd: Bool
    ) -> ClaimTable {
        if let table = store.table(group: group.name, topic: topic.name, queueID: queue.queueID) {
            // Not while a pop reads: it claims what it has found as of the offset it began with.
            // A negative one is none: the claims know better.
            if !table.isBeingRead, let link = table.context as? Link,
                let stored = stored(link, of: table), stored >= 0, link.committed != stored
            {
                table.reset(to: min(stored, queue.maxOffset.rawValue))
                commit(table)
            }
            return table
        }
        let table = store.makeTable(
            group: group.groupName, topic: topic.topicName, queueID: queue.queueID,
            at: start(group: group, topic: topic, queue, beginsAtEnd: beginsAtEnd))
        commit(table)
        return table
    }

    private func stored(_ link: Link, of table: ClaimTable) -> Int64? {
        guard link.offsets.isGone else { return link.offsets.offsets[table.queueID] }
        return offsets.offset(topic: table.topic.text, group: table.group.text, queueID: table.queueID)
    }

    /// A tool has set the group's offset in a queue. Its claims begin there at once: an acknowledgement of what is in
    /// hands would put its own offset over it before the next pop.
    func offsetWasSet(group: SubscriptionGroupEntry, topic: TopicEntry, queueID: Int32) {
        guard let known = find(group: group, topic: topic, queueID: queueID),
            let queue = topic.nameBytes.withUnsafeBytes({ messages.consumeQueue(topic: $0, queueID: queueID) })
        else { return }
        let before = known.next
        guard table(group: group, topic: topic, queue, beginsAtEnd: false).next != before else { return }
        waiters.stir(topic: topic.name, group: group.name, queueID: queueID)
        environment.scheduleTick()
    }

    /// Where a group that has popped nothing of a queue begins.
    func start(
        group: SubscriptionGroupEntry, topic: TopicEntry, _ queue: ConsumeQueue, beginsAtEnd: Bool = false
    ) -> Int64 {
        let stored = offsets.offset(topic: topic.name, group: group.name, queueID: queue.queueID)
        // At most what there is: new messages must not be taken for finished ones.
        if let stored, stored >= 0 { return min(stored, queue.maxOffset.rawValue) }
        let minimum = queue.minOffset.rawValue
        // RocketMQ's rule (initMode 1), which leaves a new group one message.
        return beginsAtEnd && !topic.isRetryTopic ? max(minimum, queue.maxOffset.rawValue - 1) : minimum
    }

    /// How many messages of a queue the group could have now.
    func available(group: SubscriptionGroupEntry, topic: TopicEntry, queueID: Int32) -> Int64 {
        guard
            let queue = topic.nameBytes.withUnsafeBytes({ messages.consumeQueue(topic: $0, queueID: queueID) })
        else { return 0 }
        let end = queue.maxOffset.rawValue
        guard let table = find(group: group, topic: topic, queueID: queueID) else {
            return max(0, end - start(group: group, topic: topic, queue))
        }
        return max(0, end - table.next) + Int64(table.dueCount)
    }

    /// An edit has taken a message out of its queue, and that is in the log: no group waits for it. The
    /// pause after a failure would keep what is behind it in a queue with one batch at a time.
    func withdraw(topic: String, queueID: Int32, offset: Int64) {
        for table in store.tables(of: topic, queueID: queueID)
        where table.drop(waiting: offset) && table.isOrdered && table.claimedCount == 0 {
            waiters.stir(topic: topic, group: table.group.text, queueID: queueID)
        }
    }

    /// The topic was deleted: so are claims of its messages.
    func forget(topic: String) {
        leases.forget(topic: topic)
        store.removeTables(topic: topic)
    }

    func forget(group: String) {
        leases.forget(group: group)
        store.removeTables(group: group)
    }

    // MARK: - The tick

    /// Writes what the tick has claimed and acknowledged.
    /// - Throws: the disk refused; nothing that was claimed in this tick may be answered.
    func commitTick() throws(ClaimError) {
        if store.hasUncommitted { try store.commitTick(at: time) }
        arm()
    }

    /// Has what was written survive power loss, and the journal become a snapshot when it is long. Called each second:
    /// what a power cut takes is delivered again.
    func synchronize() {
        if let work = feed.secondPassed() { feedWork.submit(work) {} }
        guard let work = store.backgroundWork() else { return }
        files.submit(work) {}
    }

    /// Waits until no other thread works on the files; then `close` may follow.
    func synchronizationDone() -> EventLoopFuture<Void> {
        let done = environment.eventLoop.makePromise(of: Void.self)
        files.submit({}) { done.succeed() }
        return done.futureResult
    }

    /// Written, flushed and closed; a start finds a snapshot.
    /// - Throws: something was not written.
    func close() throws(ClaimError) {
        timer?.cancel()
        files.stop()
        feedWork.stop()
        trailWork.stop()
        try store.close()
    }

    // MARK: - Trails

    /// Questions for trails that wait or are being answered.
    private static let trailQuestionsMax = 16

    /// What a message has been through, as far as journals are kept; read in the background.
    /// - Returns: false when too many questions wait; `then` is not called.
    func trail(
        of topic: String, _ groups: [String], _ queueID: Int32, _ offset: Int64,
        then: @escaping (ClaimTrail) -> Void
    ) -> Bool {
        guard trailQuestions < Self.trailQuestionsMax else { return false }
        trailQuestions += 1
        let work = store.trail(
            of: topic, groups: groups, queueID: queueID, offset: offset, at: environment.now())
        trailWork.submit(work) { [self] in
            trailQuestions -= 1
            then($0)
        }
        return true
    }

    // MARK: - Deadlines

    private func arm() {
        guard !isExpiring, let deadline = store.nextDeadline, deadline < timerAtSteady else { return }
        timer?.cancel()
        timerAtSteady = deadline
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        let delay = max(1, deadline - environment.steady())
        timer = environment.eventLoop.scheduleTask(in: .milliseconds(delay)) { this.value.expire() }
    }

    private func expire() {
        timer = nil
        timerAtSteady = .max
        let slice = { [unowned self] () -> Bool in
            isExpiring = store.expire(at: time, limit: Self.expiriesPerSlice)
            // Who waits for what is due now is woken by the tick.
            environment.scheduleTick()
            if !isExpiring { arm() }
            return isExpiring
        }
        if slice() { environment.slices.add(slice) }
    }

    func commit(_ table: ClaimTable) {
        let link: Link
        if let known = table.context as? Link, !known.offsets.isGone {
            link = known
        } else {
            link = Link(
                offsets.table(topic: table.topic, group: table.group), committed: table.floor)
            table.context = link
        }
        link.committed = table.floor
        offsets.commit(link.offsets, table.queueID, table.floor)
    }
}

extension GroupClaims: ClaimObserver {
    func messagesDue(in table: ClaimTable) {
        let (topic, group) = (table.topic.text, table.group.text)
        leases.messagesDue(in: table)
        waiters.stir(topic: topic, group: group, queueID: table.queueID)
        guard topic.hasPrefix(TopicNames.retryPrefix),
            let origin = PopRetryTopics.origin(of: topic, group: group)
        else { return }
        waiters.stir(topic: origin, group: group)
    }

    func floorMoved(of table: ClaimTable) { commit(table) }
}
