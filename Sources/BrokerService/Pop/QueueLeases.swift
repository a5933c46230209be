import Claims
import Logging
import MessageModel
import MessageStore
import NIOCore
import StoreFormat

/// One consumer of a group at a time for a queue: of SERIAL_QUEUE topics, and of QUEUE topics with `apus.shard`.
///
/// A consumer is a connection that pops. It takes the lease of a free queue with its pop. It keeps the lease as long as
/// it is heard or has messages of the queue. The lease is free when its connection ends, when it leaves the group, and
/// when the time of a message is over in its hands. It is free as well when the consumer is deaf. That is so when
/// another one waits, there are messages, and nothing was heard for five seconds after its poll time. Messages in the
/// hands of one that lost its lease stay with it until they are acknowledged or their time is over. Only then does the
/// next consumer get any. Of several queues a consumer has its share while others wait.
///
/// Kept in memory only. After a restart a queue belongs to the one that has messages of it by the journal of claims.
/// Where there is none, it belongs to the first that pops. Confined to the broker's event loop.
final class QueueLeases {
    /// A consumer that was not heard for so long may lose a queue, milliseconds; after its poll time.
    static let patienceMilliseconds: Int64 = 5000
    /// Groups of topics whose leases are shown in the runtime information, and that are looked at for that.
    static let shownMax = 256
    private static let looksMax = 2048
    /// Groups of a client that are remembered although it holds and awaits nothing in them.
    private static let idleMax = 256
    /// Of those beyond, how many are looked at with each further one.
    private static let idleLooks = 8
    /// Consumers and leases a slice looks at when a connection has closed.
    static let looksPerSlice = 256

    /// A connection that pops a topic for a group.
    final class Consumer {
        let client: ClientContext
        fileprivate let place: Place
        /// Where it is among those of its client.
        fileprivate var indexOfClient = 0
        fileprivate var heardAtSteady: Int64 = 0
        fileprivate var patience = QueueLeases.patienceMilliseconds
        /// Whether it lets the broker choose the queue. Else each of its queues is judged by itself: it may have been
        /// assigned others since.
        fileprivate var wantsAny = true
        /// Its pops that wait.
        fileprivate var waiting = 0 {
            didSet { if isCounted, (oldValue > 0) != (waiting > 0) { place.countWaiting(held, waiting > 0 ? 1 : -1) } }
        }
        /// Queues it has.
        fileprivate var held = 0 {
            didSet {
                guard isCounted, waiting > 0, oldValue != held else { return }
                place.countWaiting(oldValue, -1)
                place.countWaiting(held, 1)
            }
        }
        /// It is one of its place's consumers.
        private var isCounted = true

        fileprivate init(_ client: ClientContext, _ place: Place) {
            self.client = client
            self.place = place
        }

        /// It is none of its place's consumers any more.
        fileprivate func leave() {
            if isCounted, waiting > 0 { place.countWaiting(held, -1) }
            isCounted = false
        }

        fileprivate var deafAt: Int64 { heardAtSteady +| patience }

        /// Whether it is known to be there.
        fileprivate func isPresent(at steady: Int64) -> Bool { waiting > 0 || steady < deafAt }

        /// The same consumer on another connection, or the same connection.
        fileprivate func isSame(as other: Consumer) -> Bool {
            self === other || client.name.utf8.elementsEqual(other.client.name.utf8)
        }
    }

    fileprivate struct Lease {
        let table: ClaimTable
        let queue: ConsumeQueue
        var holder: Consumer?
        /// Milliseconds since 1970.
        var since: Int64 = 0
        /// When the holder has asked for this queue last, or reported something of it, steady milliseconds.
        var askedAtSteady: Int64 = 0
        /// Of the table, when it was taken.
        var timeouts: UInt32 = 0

        /// Whether there is something to hand out.
        var hasMessages: Bool { table.dueCount > 0 || table.next < queue.maxOffset.rawValue }
        /// Messages that are with a client.
        var inHands: Int { table.claimedCount - table.failedCount }
    }

    /// A group in a topic.
    fileprivate final class Place {
        let key: PopPlace.Key
        var leases: [Int32: Lease] = [:]
        /// By connection.
        var consumers: [ObjectIdentifier: Consumer] = [:]
        /// Queues another consumer wants.
        var contested: Set<Int32> = []
        /// The share of each consumer, of so many queues at that time (steady milliseconds): it is asked for often in
        /// one turn of the loop.
        var knownShare: (queues: Int, atSteady: Int64, share: Int)?

        /// How many consumers that wait have so many queues; none of them is zero. Whether one has too few is asked for
        /// each queue in turn, and there may be a thousand of both.
        private var waitingByHeld: [Int: Int] = [:]

        init(_ key: PopPlace.Key) { self.key = key }

        func countWaiting(_ held: Int, _ change: Int) {
            let count = (waitingByHeld[held] ?? 0) + change
            waitingByHeld[held] = count == 0 ? nil : count
        }

        /// Whether another consumer than this one waits with less than a share.
        func othersWait(below share: Int, than consumer: Consumer) -> Bool {
            waitingByHeld.contains { held, count in
                held < share && (held != consumer.held || consumer.waiting == 0 || count > 1)
            }
        }
    }

    private let environment: BrokerEnvironment
    private let claims: ClaimStore
    private unowned let waiters: PopWaiters
    private var places: [PopPlace.Key: Place] = [:]
    private var contested: Set<PopPlace.Key> = []
    private var timer: Scheduled<Void>?
    private var timerAtSteady = Int64.max
    private var isStopped = false

    init(_ environment: BrokerEnvironment, _ claims: ClaimStore, _ waiters: PopWaiters) {
        self.environment = environment
        self.claims = claims
        self.waiters = waiters
    }

    /// Groups of topics consumers are remembered of.
    var count: Int { places.count }

    // MARK: - What is heard of consumers

    /// A pop has come.
    /// - Parameters:
    ///   - queueID: which queue it names; below 0: any.
    ///   - poll: how long the client lets it wait, milliseconds.
    func popped(
        _ client: ClientContext, topic: TopicEntry, group: SubscriptionGroupEntry, queueID: Int32, poll: Int64
    ) -> Consumer {
        let key = PopPlace.Key(topic: topic.name, group: group.name)
        let place = places[key] ?? Place(key)
        places[key] = place
        let consumer: Consumer
        if let known = place.consumers[ObjectIdentifier(client)] {
            consumer = known
        } else {
            consumer = Consumer(client, place)
            place.consumers[ObjectIdentifier(client)] = consumer
            place.knownShare = nil
            let consumers = ConsumersOfClient.of(client)
            if consumers.count > Self.idleMax { forgetIdle(consumers) }
            consumers.add(consumer)
        }
        if !consumer.isPresent(at: environment.steady()) { place.knownShare = nil }
        consumer.patience = Self.patienceMilliseconds + max(0, min(poll, PopMessageProcessor.pollMaxMilliseconds))
        consumer.heardAtSteady = environment.steady()
        consumer.wantsAny = queueID < 0
        return consumer
    }

    /// Its pop waits from now on.
    func waits(_ consumer: Consumer) { consumer.waiting += 1 }

    /// It does not wait any more: the broker answers. That is nothing it was heard by.
    func goesOn(_ consumer: Consumer) { consumer.waiting -= 1 }

    /// The client has reported something of a message.
    func heard(_ client: ClientContext, _ table: ClaimTable) {
        let key = PopPlace.Key(topic: table.topic.text, group: table.group.text)
        guard let place = places[key], let consumer = place.consumers[ObjectIdentifier(client)] else { return }
        consumer.heardAtSteady = environment.steady()
        if place.leases[table.queueID]?.holder === consumer {
            place.leases[table.queueID]?.askedAtSteady = environment.steady()
        }
    }

    /// Whether another client has the lease of the table's queue.
    func isAnothers(_ table: ClaimTable, than client: ClientContext) -> Bool {
        let key = PopPlace.Key(topic: table.topic.text, group: table.group.text)
        guard let lease = places[key]?.leases[table.queueID], lease.table === table, let holder = lease.holder else {
            return false
        }
        return holder.client !== client && !holder.client.name.utf8.elementsEqual(client.name.utf8)
    }

    /// The client has left the group. Its pops of any topic are answered: those that wait must not take what it cannot
    /// have.
    func left(_ client: ClientContext, group: String) {
        for consumer in ConsumersOfClient.known(client)?.of(group: group) ?? [] { remove(consumer) }
        waiters.end(of: client, group: group)
    }

    /// The connection has ended: what it has is free, in slices where that is much.
    func closed(_ client: ClientContext) {
        guard let consumers = ConsumersOfClient.known(client) else { return }
        let slice = { [self] () -> Bool in
            var looks = 0
            while !isStopped, looks < Self.looksPerSlice, let consumer = consumers.last {
                looks += 1 + (consumer.held > 0 ? consumer.place.leases.count : 0)
                remove(consumer)
            }
            return !isStopped && consumers.count > 0
        }
        if slice() { environment.slices.add(slice) }
    }

    private func remove(_ consumer: Consumer) {
        let place = consumer.place
        consumer.leave()
        place.consumers[ObjectIdentifier(consumer.client)] = nil
        place.knownShare = nil
        ConsumersOfClient.known(consumer.client)?.remove(consumer)
        if consumer.held > 0 {
            for (queueID, lease) in place.leases where lease.holder === consumer { free(queueID, of: place) }
        }
        if place.consumers.isEmpty { forget(place) }
    }

    private func forgetIdle(_ consumers: ConsumersOfClient) {
        let steady = environment.steady()
        for consumer in consumers.next(Self.idleLooks) where consumer.held == 0 && !consumer.isPresent(at: steady) {
            remove(consumer)
        }
    }

    /// The topic was deleted, or is another one now.
    func forget(topic: String) {
        for place in places.values where place.key.topic == topic { drop(place) }
    }

    func forget(group: String) {
        for place in places.values where place.key.group == group { drop(place) }
    }

    private func drop(_ place: Place) {
        for consumer in place.consumers.values {
            consumer.leave()
            consumer.held = 0
            ConsumersOfClient.known(consumer.client)?.remove(consumer)
        }
        // They refer to the place.
        place.consumers = [:]
        place.leases = [:]
        place.contested = []
        forget(place)
    }

    private func forget(_ place: Place) {
        places[place.key] = nil
        contested.remove(place.key)
    }

    // MARK: - Taking

    /// Whether the consumer may look for messages in a queue; it has its lease then. False, too, when there is nothing.
    /// - Parameters:
    ///   - queues: of the topic.
    ///   - isChosen: it was woken for the queue: no other one that waits can have it.
    func take(
        _ consumer: Consumer, _ table: ClaimTable, _ queue: ConsumeQueue, queues: Int32, isChosen: Bool
    ) -> Bool {
        let place = consumer.place
        guard isThere(consumer) else { return false }
        let queueID = table.queueID
        var lease = place.leases[queueID] ?? Lease(table: table, queue: queue)
        if lease.table !== table || lease.queue !== queue {
            lease.holder?.held -= 1
            lease = Lease(table: table, queue: queue)
        }
        if lease.holder === consumer { lease.askedAtSteady = environment.steady() }
        place.leases[queueID] = lease
        guard lease.hasMessages || table.claimedCount > 0 else { return false }
        if let holder = lease.holder {
            if holder === consumer {
                guard !isChosen, mustShare(consumer, lease, queues) else { return true }
                free(queueID, of: place)
                return false
            }
            guard holder.isSame(as: consumer) || isDeaf(lease, place) else {
                contest(queueID, of: place)
                return false
            }
            free(queueID, of: place)
        }
        // Who has its messages goes on with it; after a restart, too.
        guard lease.inHands == 0 || owner(of: table)?.utf8.elementsEqual(consumer.client.name.utf8) == true else {
            return false
        }
        if !isChosen, consumer.held >= share(place, queues), othersWant(place, than: consumer, queues) {
            waiters.stir(topic: place.key.topic, group: place.key.group, queueID: queueID)
            return false
        }
        lease.holder = consumer
        lease.since = environment.now()
        lease.askedAtSteady = environment.steady()
        lease.timeouts = table.timeouts
        place.leases[queueID] = lease
        consumer.held += 1
        return true
    }

    /// The name of the client that has the lowest message that is not finished.
    private func owner(of table: ClaimTable) -> String? {
        let time = ClaimTime(wall: environment.now(), steady: environment.steady())
        guard case .claimed(let client, _, _, _) = table.state(of: table.floor, at: time) else { return nil }
        return claims.name(of: client)
    }

    /// Another one waits, there are messages, and nothing is heard of the holder, which has none of them.
    private func isDeaf(_ lease: Lease, _ place: Place) -> Bool {
        guard let holder = lease.holder else { return true }
        return lease.inHands == 0 && lease.hasMessages && environment.steady() >= deafAt(lease, holder)
            && !isAwaited(lease, holder, place)
    }

    /// When the holder of a queue is deaf if nothing more is heard, steady milliseconds.
    private func deafAt(_ lease: Lease, _ holder: Consumer) -> Int64 {
        holder.wantsAny ? holder.deafAt : lease.askedAtSteady +| holder.patience
    }

    /// Whether a pop of the holder waits that would take messages of the queue.
    private func isAwaited(_ lease: Lease, _ holder: Consumer, _ place: Place) -> Bool {
        guard holder.waiting > 0 else { return false }
        return holder.wantsAny || waiters.isWaiting(holder.client, place.key, queueID: lease.table.queueID)
    }

    /// Queues each of the consumers that are there has.
    private func share(_ place: Place, _ queues: Int32) -> Int {
        let queues = max(1, Int(queues))
        let steady = environment.steady()
        if let known = place.knownShare, known.queues == queues, known.atSteady == steady { return known.share }
        var present = 0
        for consumer in place.consumers.values where consumer.isPresent(at: steady) {
            present += 1
            if present >= queues { break }
        }
        let share = (queues + max(1, present) - 1) / max(1, present)
        place.knownShare = (queues, steady, share)
        return share
    }

    /// Whether a consumer that waits has less than its share.
    private func othersWant(_ place: Place, than consumer: Consumer, _ queues: Int32) -> Bool {
        place.othersWait(below: share(place, queues), than: consumer)
    }

    /// Whether the holder of an idle queue has more than its share while another one waits with less.
    private func mustShare(_ consumer: Consumer, _ lease: Lease, _ queues: Int32) -> Bool {
        guard queues > 1, lease.table.claimedCount + lease.table.dueCount == 0 else { return false }
        return consumer.held > share(consumer.place, queues) && othersWant(consumer.place, than: consumer, queues)
    }

    private func free(_ queueID: Int32, of place: Place) {
        place.leases[queueID]?.holder?.held -= 1
        place.leases[queueID]?.holder = nil
        place.contested.remove(queueID)
        waiters.stir(topic: place.key.topic, group: place.key.group, queueID: queueID)
        environment.scheduleTick()
    }

    // MARK: - Who is woken

    enum Standing {
        case free
        case held(by: ClientContext)
    }

    /// Whose a queue is, as something may be had in it: one that is deaf has it no longer.
    func standing(_ key: PopPlace.Key, _ queueID: Int32) -> Standing {
        guard let place = places[key], let lease = place.leases[queueID], let holder = lease.holder else {
            return .free
        }
        guard isDeaf(lease, place) else { return .held(by: holder.client) }
        free(queueID, of: place)
        return .free
    }

    /// The holder does not wait for a message of the queue, others do.
    func othersWait(_ key: PopPlace.Key, _ queueID: Int32) {
        if let place = places[key] { contest(queueID, of: place) }
    }

    /// Whether a consumer may take queues: not one that has left, or of a group or topic that was deleted or changed.
    /// True for nil, where leases do not matter.
    func isThere(_ consumer: Consumer?) -> Bool {
        guard let consumer else { return true }
        let place = consumer.place
        return places[place.key] === place && place.consumers[ObjectIdentifier(consumer.client)] === consumer
    }

    /// Whether there may be something to hand out in a queue.
    func mayHaveMessages(_ key: PopPlace.Key, _ queueID: Int32) -> Bool {
        guard let lease = places[key]?.leases[queueID], !lease.table.isRemoved, !lease.queue.isRemoved else {
            return true
        }
        return lease.hasMessages
    }

    /// Whether a client that waits would get a free queue before others.
    func mayHaveMore(_ client: ClientContext, _ key: PopPlace.Key, queues: Int32) -> Bool {
        guard let place = places[key], let consumer = place.consumers[ObjectIdentifier(client)] else { return true }
        return consumer.held < share(place, queues)
    }

    /// Whether messages of the queue are for this client, for one that asks without taking any.
    func isFree(for client: ClientContext, _ key: PopPlace.Key, _ queueID: Int32) -> Bool {
        guard case .held(let holder) = standing(key, queueID) else { return true }
        return holder === client || holder.name.utf8.elementsEqual(client.name.utf8)
    }

    /// Messages of the table have become due.
    func messagesDue(in table: ClaimTable) {
        guard table.isOrdered else { return }
        let key = PopPlace.Key(topic: table.topic.text, group: table.group.text)
        guard let place = places[key], let lease = place.leases[table.queueID], let holder = lease.holder,
            lease.table === table, lease.timeouts != table.timeouts
        else { return }
        environment.logger.info(
            """
            consumer \(holder.client.name) has not acknowledged messages of topic \(key.topic), queue \
            \(table.queueID), in time: the next one of group \(key.group) goes on
            """)
        free(table.queueID, of: place)
    }

    private func contest(_ queueID: Int32, of place: Place) {
        guard let lease = place.leases[queueID], let holder = lease.holder else { return }
        place.contested.insert(queueID)
        contested.insert(place.key)
        arm(at: deafAt(lease, holder))
    }

    private func arm(at steady: Int64) {
        guard steady < timerAtSteady, !isStopped else { return }
        timer?.cancel()
        timerAtSteady = steady
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        let delay = max(1, steady - environment.steady())
        timer = environment.eventLoop.scheduleTask(in: .milliseconds(delay)) { this.value.lookAtContested() }
    }

    /// The broker ends: no consumer is looked for any more.
    func stop() {
        isStopped = true
        timer?.cancel()
    }

    /// Frees what deaf consumers have. A queue without messages, or whose holder has some of them or waits for them, is
    /// looked at again when something happens to it.
    private func lookAtContested() {
        timer = nil
        timerAtSteady = .max
        var next = Int64.max
        for key in contested {
            guard let place = places[key] else { continue }
            for queueID in place.contested {
                guard let lease = place.leases[queueID], let holder = lease.holder, lease.hasMessages,
                    lease.inHands == 0, !isAwaited(lease, holder, place)
                else {
                    place.contested.remove(queueID)
                    continue
                }
                if isDeaf(lease, place) {
                    environment.logger.info(
                        """
                        nothing is heard of consumer \(holder.client.name) of topic \(key.topic), queue \(queueID): \
                        the next one of group \(key.group) goes on
                        """)
                    free(queueID, of: place)
                } else {
                    next = min(next, deafAt(lease, holder))
                }
            }
            if place.contested.isEmpty { contested.remove(key) }
        }
        if next != .max { arm(at: next) }
    }

    // MARK: - For operators

    /// Of each group of a topic that has leases, up to `shownMax`: `TOPIC@GROUP`, and who has which queue since when.
    var listing: [(place: String, text: String)] {
        var rows: [(place: String, text: String)] = []
        for (key, place) in places.prefix(Self.looksMax) {
            guard rows.count < Self.shownMax else { break }
            let held = place.leases.filter { $0.value.holder != nil }.sorted { $0.key < $1.key }
            guard !held.isEmpty else { continue }
            let text = held.prefix(64).map { queueID, lease in
                "\(queueID) \(lease.holder?.client.name ?? "") since \(lease.since)"
            }
            let more = held.count > 64 ? ["and \(held.count - 64) more"] : []
            rows.append(("\(key.topic)@\(key.group)", (text + more).joined(separator: ", ")))
        }
        return rows
    }
}

/// The consumers one connection is. Hangs at `ClientContext.consumers`.
private final class ConsumersOfClient {
    typealias Consumer = QueueLeases.Consumer

    /// In no order.
    private var all: [Consumer] = []
    private var byGroup: [String: [ObjectIdentifier: Consumer]] = [:]
    /// Where the next look for idle ones begins.
    private var cursor = 0

    var count: Int { all.count }
    var last: Consumer? { all.last }

    static func of(_ client: ClientContext) -> ConsumersOfClient {
        if let known = known(client) { return known }
        let made = ConsumersOfClient()
        client.consumers = made
        return made
    }

    static func known(_ client: ClientContext) -> ConsumersOfClient? {
        client.consumers.map { unsafeDowncast($0, to: ConsumersOfClient.self) }
    }

    func of(group: String) -> [Consumer] { byGroup[group].map { Array($0.values) } ?? [] }

    /// Some of them: with each call the next ones.
    func next(_ count: Int) -> [Consumer] {
        if cursor >= all.count { cursor = 0 }
        let some = all[cursor...].prefix(count)
        cursor += some.count
        return Array(some)
    }

    func add(_ consumer: Consumer) {
        consumer.indexOfClient = all.count
        all.append(consumer)
        byGroup[consumer.place.key.group, default: [:]][ObjectIdentifier(consumer)] = consumer
    }

    /// The last one takes its place.
    func remove(_ consumer: Consumer) {
        let index = consumer.indexOfClient
        guard index < all.count, all[index] === consumer, let last = all.popLast() else { return }
        if last !== consumer {
            all[index] = last
            last.indexOfClient = index
        }
        let group = consumer.place.key.group
        byGroup[group]?[ObjectIdentifier(consumer)] = nil
        if byGroup[group]?.isEmpty == true { byGroup[group] = nil }
    }
}
