import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// Long polling of pops: requests that found nothing wait here for a message, or for a claim that ends. One message
/// wakes one of them; it wakes the next if it leaves something. Confined to the broker's event loop.
final class PopWaiters {
    /// Waiting requests for one queue of one group (or for any of them), at most, and in all. RocketMQ has 1024 and
    /// 100 000 (`popPollingSize`, `maxPopPollingSize`); here one message wakes one, however many wait.
    static let perQueueMax = 16_384
    static let totalMax = 100_000
    /// Deadlines are looked at so often, milliseconds.
    static let granularityMilliseconds: Int64 = 50
    /// Requests a slice wakes or drops at most: each reads queues and may write an answer.
    static let runsPerSlice = 128

    private let environment: BrokerEnvironment
    private let messages: MessageStore
    /// Who may have messages of queues with one consumer; set once.
    weak var leases: QueueLeases?
    private var places: [PopPlace.Key: PopPlace] = [:]
    /// Places where something may be had.
    private var stirred: [PopPlace] = []
    private var isWaking = false
    /// By the end of their wait in steady milliseconds, rounded up to the granularity.
    private var bins: [Int64: [PopWaiter]] = [:]
    private var timer: Scheduled<Void>?
    private(set) var count = 0

    init(_ environment: BrokerEnvironment, _ messages: MessageStore) {
        self.environment = environment
        self.messages = messages
    }

    // MARK: - Waiting

    /// Has the request wait; false when too many do.
    func wait(_ waiter: PopWaiter) -> Bool {
        precondition(waiter.place == nil, "a request waits once")
        guard count < Self.totalMax else { return false }
        let key = PopPlace.Key(topic: waiter.topic.name, group: waiter.group.name)
        let place = places[key] ?? PopPlace(key, self)
        guard place.count(of: waiter.queueID) < Self.perQueueMax else { return false }
        places[key] = place
        place.append(waiter)
        for queueID in waiter.queues where place.watched[queueID] == nil {
            // Made (in memory) if nothing was ever stored in it.
            let queue = messages.findConsumeQueue(topic: waiter.topic.topicName, queueID: queueID)
            place.watched[queueID] = queue
            QueueWatch.of(queue).add(place)
            queue.wantsArrival = true
        }
        count += 1
        let bin = waiter.deadlineSteady / Self.granularityMilliseconds + 1
        waiter.bin = bin
        waiter.indexInBin = bins[bin]?.count ?? 0
        bins[bin, default: []].append(waiter)
        PopsOfClient.of(waiter.client).insert(waiter)
        arm()
        return true
    }

    /// How many wait for a queue of a group; below 0: for any of its queues.
    func count(topic: String, group: String, queueID: Int32) -> Int {
        places[PopPlace.Key(topic: topic, group: group)]?.count(of: queueID) ?? 0
    }

    /// Whether one of a client's waiting pops would take messages of a queue.
    func isWaiting(_ client: ClientContext, _ key: PopPlace.Key, queueID: Int32) -> Bool {
        guard let place = places[key], let pops = client.suspendedPops as? PopsOfClient else { return false }
        return pops.first { $0.place === place && $0.queues.contains(queueID) } != nil
    }

    private func release(_ waiter: PopWaiter) {
        guard let place = waiter.place else { return }
        count -= 1
        place.remove(waiter)
        PopsOfClient.of(waiter.client).remove(waiter)
        if var bin = bins.removeValue(forKey: waiter.bin) {
            let last = bin.removeLast()
            if last !== waiter {
                last.indexInBin = waiter.indexInBin
                bin[waiter.indexInBin] = last
            }
            if !bin.isEmpty { bins[waiter.bin] = bin }
        }
        guard place.isEmpty else { return }
        for queue in place.watched.values {
            guard let watch = queue.context as? QueueWatch else { continue }
            watch.remove(place)
            if watch.isIdle { queue.wantsArrival = false }
        }
        place.watched = [:]
        places[place.key] = nil
    }

    // MARK: - Waking

    /// Something may be had in a queue of a group.
    func stir(topic: String, group: String, queueID: Int32) {
        places[PopPlace.Key(topic: topic, group: group)]?.messageArrived(in: queueID)
    }

    /// A pop has left messages: whichever queues they are in.
    func stir(topic: String, group: String) { places[PopPlace.Key(topic: topic, group: group)]?.messagesLeft() }

    fileprivate func noteStirred(_ place: PopPlace) { stirred.append(place) }

    /// Runs what the tick has woken: some now, the rest in later turns of the loop.
    func runWoken() {
        guard !stirred.isEmpty, wakeSome(), !isWaking else { return }
        isWaking = true
        environment.slices.add { [unowned self] in
            isWaking = wakeSome()
            environment.scheduleTick()
            return isWaking
        }
    }

    private func wakeSome() -> Bool {
        var runs = Self.runsPerSlice
        while let place = stirred.popLast() {
            for waiter in place.takeWoken() {
                runs -= 1
                release(waiter)
                waiter.resume(expired: false)
            }
            if runs <= 0 { return !stirred.isEmpty }
        }
        return false
    }

    // MARK: - Ending

    private func arm() {
        guard timer == nil, !bins.isEmpty else { return }
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        timer = environment.eventLoop.scheduleTask(in: .milliseconds(Self.granularityMilliseconds)) {
            this.value.expire()
        }
    }

    private func expire() {
        timer = nil
        let now = environment.steady() / Self.granularityMilliseconds
        let over = bins.keys.filter { $0 <= now }.sorted()
        end(over.flatMap { bins[$0] ?? [] })
        arm()
    }

    /// Answers requests as at the end of their wait, in slices.
    /// - Parameter hasNothing: they may not have messages any more, and do not look for some.
    private func end(_ waiters: [PopWaiter], hasNothing: Bool = false) {
        var left = waiters[...]
        let slice = { [unowned self] () -> Bool in
            for _ in 0..<Self.runsPerSlice {
                guard let waiter = left.popFirst() else { return false }
                guard waiter.place != nil else { continue }
                release(waiter)
                if hasNothing { waiter.end() } else { waiter.resume(expired: true) }
            }
            environment.scheduleTick()
            return !left.isEmpty
        }
        if !waiters.isEmpty, slice() { environment.slices.add(slice) }
        environment.scheduleTick()
    }

    /// The topic goes away, or is another one now: no waiting request has any of its messages.
    func end(topic: String) {
        end(places.values.filter { $0.key.topic == topic }.flatMap(\.all), hasNothing: true)
    }

    /// The group goes away.
    func end(group: String) {
        end(places.values.filter { $0.key.group == group }.flatMap(\.all), hasNothing: true)
    }

    /// The client has left the group: messages are for others.
    func end(of client: ClientContext, group: String) {
        guard let pops = client.suspendedPops as? PopsOfClient else { return }
        end(pops.all.filter { $0.group.name == group }, hasNothing: true)
    }

    /// The broker goes away: all are answered now.
    func expireAllNow() {
        for waiter in places.values.flatMap(\.all) where waiter.place != nil {
            release(waiter)
            waiter.resume(expired: true)
        }
    }

    /// Its requests are dropped in slices, without answers.
    func connectionClosed(_ client: ClientContext) {
        guard let pops = client.suspendedPops as? PopsOfClient else { return }
        let slice = { [unowned self] () -> Bool in
            for _ in 0..<Self.runsPerSlice {
                guard let waiter = pops.last else { return false }
                release(waiter)
            }
            return true
        }
        if slice() { environment.slices.add(slice) }
    }
}

/// A request that can wait for messages of a group: a pop, or the question whether there is something to pop.
class PopWaiter {
    let client: ClientContext
    let topic: TopicEntry
    let group: SubscriptionGroupEntry
    /// Below 0: any.
    let queueID: Int32
    /// Until when it may wait, steady milliseconds.
    let deadlineSteady: Int64
    /// Queues a message of which may be wanted. Of a topic with more than `queuesMax` it is a part, chosen at random:
    /// one request must not keep the loop.
    let queues: Range<Int32>

    static let queuesMax: Int32 = 1024
    /// Who it is where a queue has one consumer at a time; nil elsewhere, and for one that takes nothing.
    let consumer: QueueLeases.Consumer?

    // Of `PopWaiters`.
    fileprivate(set) var place: PopPlace?
    fileprivate var bin: Int64 = 0
    fileprivate var indexInBin = 0
    fileprivate var indexInClient = 0
    fileprivate var nextInList: PopWaiter?
    fileprivate unowned(unsafe) var previousInList: PopWaiter?

    init(
        client: ClientContext, topic: TopicEntry, group: SubscriptionGroupEntry, queueID: Int32, deadlineSteady: Int64,
        consumer: QueueLeases.Consumer? = nil
    ) {
        self.consumer = consumer
        self.client = client
        self.topic = topic
        self.group = group
        self.queueID = max(-1, queueID)
        self.deadlineSteady = deadlineSteady
        queues = Self.queues(of: topic, queueID)
    }

    static func queues(of topic: TopicEntry, _ queueID: Int32) -> Range<Int32> {
        guard queueID < 0 else { return queueID..<queueID + 1 }
        let count = max(0, topic.config.readQueueNums)
        guard count > queuesMax else { return 0..<count }
        let first = Int32.random(in: 0...count - queuesMax)
        return first..<first + queuesMax
    }

    /// Looks again; after its deadline it is answered, it does not wait any more.
    func resume(expired: Bool) { preconditionFailure("a kind of waiting request that cannot go on") }

    /// Whether it takes messages: one of those is woken before one that only asks.
    var takes: Bool { true }

    /// Is answered that there is nothing, without a look.
    func end() { resume(expired: true) }
}

/// Where the requests of one group for one topic wait.
final class PopPlace: ArrivalObserver {
    struct Key: Hashable {
        let topic: String
        let group: String
    }

    let key: Key
    private unowned let waiters: PopWaiters
    /// By queue; -1: for any queue.
    private var lists: [Int32: List] = [:]
    fileprivate var watched: [Int32: ConsumeQueue] = [:]
    /// Queues something may be had in.
    private var stirred: [Int32] = []

    private struct List {
        var first: PopWaiter?
        unowned(unsafe) var last: PopWaiter?
        var count = 0
    }

    fileprivate init(_ key: Key, _ waiters: PopWaiters) {
        self.key = key
        self.waiters = waiters
    }

    deinit {
        // One after the other: a chain that releases itself would take a stack as long as it is.
        for list in lists.values {
            var next = list.first
            while let waiter = next {
                next = waiter.nextInList
                waiter.nextInList = nil
            }
        }
    }

    var isEmpty: Bool { lists.isEmpty }

    func count(of queueID: Int32) -> Int { lists[max(-1, queueID)]?.count ?? 0 }

    fileprivate var all: [PopWaiter] {
        var all: [PopWaiter] = []
        for list in lists.values {
            var next = list.first
            while let waiter = next {
                all.append(waiter)
                next = waiter.nextInList
            }
        }
        return all
    }

    func messageArrived(in queueID: Int32) {
        if stirred.isEmpty { waiters.noteStirred(self) }
        if !stirred.contains(queueID) { stirred.append(queueID) }
    }

    fileprivate func messagesLeft() {
        if stirred.isEmpty { waiters.noteStirred(self) }
        for queueID in lists.keys where !stirred.contains(queueID) { stirred.append(queueID) }
    }

    /// One that takes any queue, and one of each queue in which something may be had.
    fileprivate func takeWoken() -> [PopWaiter] {
        defer { stirred.removeAll(keepingCapacity: true) }
        if let leases = waiters.leases, let some = lists.values.first?.first, some.topic.policy.hasLeases {
            return takeWoken(leases, queues: some.topic.config.readQueueNums)
        }
        var woken: [PopWaiter] = []
        if let any = first(of: -1) { woken.append(any) }
        for queueID in stirred where queueID >= 0 {
            if let waiter = first(of: queueID) { woken.append(waiter) }
        }
        return woken
    }

    /// Who waits longest, of those that take messages if there are any.
    private func first(of queueID: Int32) -> PopWaiter? {
        let first = lists[queueID]?.first
        var next = first
        for _ in 0..<Self.looksMax {
            guard let waiter = next else { break }
            if waiter.takes { return waiter }
            next = waiter.nextInList
        }
        return first
    }

    /// Of each queue in which something may be had the one that has its lease, or the first that may have it.
    private func takeWoken(_ leases: QueueLeases, queues: Int32) -> [PopWaiter] {
        var woken: [PopWaiter] = []
        let isAny = stirred.contains(-1)
        for queueID in isAny ? watched.keys.sorted() : stirred {
            // Some pop has left something somewhere: most queues have nothing.
            if isAny, !stirred.contains(queueID), !leases.mayHaveMessages(key, queueID) { continue }
            let chosen: PopWaiter?
            switch leases.standing(key, queueID) {
            case .free: chosen = first(for: queueID, leases, queues)
            case .held(let client):
                let isFor = { (waiter: PopWaiter) in
                    waiter.place === self && waiter.queues.contains(queueID) && leases.isThere(waiter.consumer)
                }
                let pops = PopsOfClient.of(client)
                chosen = pops.first { $0.takes && isFor($0) } ?? pops.first(where: isFor)
                if chosen == nil { leases.othersWait(key, queueID) }
            }
            if let chosen, !woken.contains(where: { $0 === chosen }) { woken.append(chosen) }
        }
        return woken
    }

    /// Of so many that wait one with less than its share is looked for.
    private static let looksMax = 128

    /// Who waits longest for a queue that is free, of those with less than their share if there are any. One that only
    /// asks comes last.
    private func first(for queueID: Int32, _ leases: QueueLeases, _ queues: Int32) -> PopWaiter? {
        var any: PopWaiter?
        var looks = 0
        for list in [lists[-1], lists[queueID]] {
            var next = list?.first
            while let waiter = next, looks < Self.looksMax {
                next = waiter.nextInList
                // One that is gone would take nothing, and wake no other one.
                guard !waiter.client.connection.isClosed, leases.isThere(waiter.consumer) else { continue }
                looks += 1
                if waiter.takes, leases.mayHaveMore(waiter.client, key, queues: queues) { return waiter }
                if any == nil || waiter.takes && any?.takes == false { any = waiter }
            }
        }
        return any
    }

    fileprivate func append(_ waiter: PopWaiter) {
        waiter.place = self
        var list = lists[waiter.queueID] ?? List()
        waiter.previousInList = list.last
        if let last = list.last { last.nextInList = waiter } else { list.first = waiter }
        list.last = waiter
        list.count += 1
        lists[waiter.queueID] = list
    }

    fileprivate func remove(_ waiter: PopWaiter) {
        guard var list = lists[waiter.queueID] else { return }
        let next = waiter.nextInList
        let previous = waiter.previousInList
        if let next { next.previousInList = previous } else { list.last = previous }
        if let previous { previous.nextInList = next } else { list.first = next }
        waiter.nextInList = nil
        waiter.previousInList = nil
        waiter.place = nil
        list.count -= 1
        lists[waiter.queueID] = list.count > 0 ? list : nil
    }
}

/// The waiting pops of one connection, in no order. Hangs at `ClientContext.suspendedPops`.
private final class PopsOfClient {
    static func of(_ client: ClientContext) -> PopsOfClient {
        if let pops = client.suspendedPops { return unsafeDowncast(pops, to: PopsOfClient.self) }
        let pops = PopsOfClient()
        client.suspendedPops = pops
        return pops
    }

    private var waiters: [PopWaiter] = []

    var last: PopWaiter? { waiters.last }
    var all: [PopWaiter] { waiters }

    func first(where isWanted: (PopWaiter) -> Bool) -> PopWaiter? { waiters.first(where: isWanted) }

    func insert(_ waiter: PopWaiter) {
        waiter.indexInClient = waiters.count
        waiters.append(waiter)
    }

    func remove(_ waiter: PopWaiter) {
        let last = waiters.removeLast()
        guard last !== waiter else { return }
        last.indexInClient = waiter.indexInClient
        waiters[waiter.indexInClient] = last
    }
}
