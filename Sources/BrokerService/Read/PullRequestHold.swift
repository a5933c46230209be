import MessageStore
import NIOCore
import StoreFormat

/// Long polling: pulls that found nothing wait here. A pull is woken by the arrival of a message in its queue whose
/// tags code it may want, or by its deadline. There is no polling tick. One timer stands at the earliest deadline.
///
/// Held pulls hang in the lists of their queue (woken in order of arrival) and of their time-out. Pulls with the same
/// time-out expire in the order they came. So each such list is sorted by itself, and the earliest deadline is at one
/// of a few heads. They leave all their lists in constant time, and what concerns many of them is done in slices.
final class PullRequestHold {
    /// Deadlines are rounded down to this; clients suspend for 15 to 30 s.
    static let granularityMilliseconds: Int64 = 100
    /// A client asking for longer is answered "nothing found" after this and asks again.
    static let suspendMaxMilliseconds: Int64 = 60_000
    /// Held pulls of all connections; RocketMQ has no bound. One takes some 500 bytes. More are answered "nothing
    /// found".
    static let heldMax = 500_000
    /// Pulls a slice runs at most: each reads its queue and may write an answer.
    static let runsPerSlice = 128
    /// Pulls a slice looks at or drops at most.
    static let looksPerSlice = 2048

    private struct DeadlineList {
        var head: ReadRequest?
        var tail: ReadRequest?
    }

    /// By time-out in units of `granularityMilliseconds`.
    private var lists: [Int64: DeadlineList] = [:]
    private let eventLoop: any EventLoop
    private let slices: SlicedWork
    private var timer: Scheduled<Void>?
    private var timerAtMilliseconds = Int64.max
    private var isExpiring = false
    /// Queues in which messages have arrived for which no read has been woken yet.
    private var stirred: [QueueWatch] = []
    private var isWaking = false
    private(set) var count = 0
    private let now: () -> Int64

    private let environment: BrokerEnvironment
    private let store: MessageStore

    init(_ environment: BrokerEnvironment, _ store: MessageStore) {
        self.environment = environment
        eventLoop = environment.eventLoop
        slices = environment.slices
        now = environment.now
        self.store = store
    }

    deinit {
        // One after the other: a chain that releases itself would take a stack as long as it is.
        for list in lists.values {
            var next = list.head
            while let pull = next {
                next = pull.nextByDeadline
                pull.nextByDeadline = nil
            }
        }
    }

    /// Whether there is room for one more.
    var mayHold: Bool { count < Self.heldMax }

    /// Holds a pull until something arrives or its time is over.
    func hold(_ pull: ReadRequest) {
        precondition(!pull.isHeld, "a pull is held once")
        let time = now()
        if pull.deadlineMilliseconds == 0 {
            pull.deadlineMilliseconds = time + min(max(pull.suspendTimeoutMilliseconds, 0), Self.suspendMaxMilliseconds)
        }
        pull.isHeld = true
        count += 1
        // Held again after a wake-up it keeps its first deadline, and so goes into the list of the time that is left.
        let key = max(1, (pull.deadlineMilliseconds - time) / Self.granularityMilliseconds)
        pull.listDeadlineMilliseconds = time + key * Self.granularityMilliseconds
        link(pull, key: key)
        // Made (in memory) if nothing was ever stored in it.
        let queue = store.findConsumeQueue(topic: pull.topic.topicName, queueID: pull.queueID)
        pull.queue = queue
        QueueWatch.of(queue).pulls.append(pull)
        queue.wantsArrival = true
        SuspendedReads.of(pull.client).insert(pull)
        arm(at: pull.listDeadlineMilliseconds)
    }

    // MARK: - Arrival

    /// A message has become readable in a queue at which a read waits. Called during dispatch, so it only takes note.
    func arrived(_ queue: ConsumeQueue, _ arrival: MessageArrival) {
        guard let watch = queue.context as? QueueWatch else { return }
        if !watch.pulls.isEmpty || watch.batch != nil { watch.note(arrival.tagsCode) }
        if !watch.isStirred, !watch.arrivals.isEmpty {
            watch.isStirred = true
            stirred.append(watch)
        }
        for observer in watch.observers { observer.messageArrived(in: queue.queueID) }
        watch.waiting?.waitingArrived(in: queue.queueID, arrival)
    }

    /// Runs what the tick has woken: a first slice now, the rest in slices of later turns.
    func runWoken() {
        guard !stirred.isEmpty, wakeSome(), !isWaking else { return }
        isWaking = true
        slices.add { [unowned self] in
            isWaking = wakeSome()
            return isWaking
        }
    }

    /// Wakes a bounded number of pulls; `true` when there are more. A pull woken for a message its filter then refuses
    /// is held again by `run`.
    private func wakeSome() -> Bool {
        var runs = Self.runsPerSlice
        var looks = Self.looksPerSlice
        while let watch = stirred.last {
            guard let batch = watch.batch ?? watch.beginBatch() else {
                watch.isStirred = false
                stirred.removeLast()
                continue
            }
            var queue: ConsumeQueue?
            while let pull = batch.pulls.first {
                guard runs > 0, looks > 0 else {
                    // The next slice begins with another queue.
                    stirred.swapAt(0, stirred.count - 1)
                    return true
                }
                looks -= 1
                guard batch.arrivals.mayWake(pull.filter) else {
                    batch.pulls.remove(pull)
                    watch.pulls.append(pull)
                    continue
                }
                runs -= 1
                queue = pull.queue
                release(pull)
                pull.resume(expired: false)
            }
            watch.batch = nil
            if watch.isIdle { queue?.wantsArrival = false }
        }
        return false
    }

    /// Answers pulls held at these queues as at their deadlines: their topic goes away.
    func expire(at queues: [ConsumeQueue]) {
        var watches = queues.compactMap { $0.context as? QueueWatch }[...]
        guard !watches.isEmpty else { return }
        let slice = { [unowned self] () -> Bool in
            var runs = Self.runsPerSlice
            while runs > 0, let watch = watches.first {
                guard let pull = watch.batch?.pulls.first ?? watch.pulls.first else {
                    watches.removeFirst()
                    continue
                }
                runs -= 1
                release(pull)
                pull.resume(expired: true)
            }
            return !watches.isEmpty
        }
        if slice() { slices.add(slice) }
    }

    /// Wakes everything that waits for the filter worker.
    func wakeAll(where condition: @escaping (ReadRequest) -> Bool) {
        var all = everyPull()[...]
        let slice = { [unowned self] () -> Bool in
            var runs = Self.runsPerSlice
            var looks = Self.looksPerSlice
            while runs > 0, looks > 0, let pull = all.popFirst() {
                looks -= 1
                guard pull.isHeld, condition(pull) else { continue }
                runs -= 1
                release(pull)
                pull.resume(expired: false)
            }
            return !all.isEmpty
        }
        if slice() { slices.add(slice) }
    }

    /// Answers all held pulls at once: the broker goes away.
    func expireAllNow() {
        for pull in everyPull() where pull.isHeld {
            release(pull)
            pull.resume(expired: true)
        }
    }

    private func everyPull() -> [ReadRequest] {
        var all: [ReadRequest] = []
        all.reserveCapacity(count)
        for list in lists.values {
            var next = list.head
            while let pull = next {
                all.append(pull)
                next = pull.nextByDeadline
            }
        }
        return all
    }

    // MARK: - Letting go

    func release(_ pull: ReadRequest) {
        guard pull.isHeld else { return }
        pull.isHeld = false
        count -= 1
        unlink(pull)
        pull.list?.remove(pull)
        if let queue = pull.queue {
            if let watch = queue.context as? QueueWatch, watch.isIdle { queue.wantsArrival = false }
            pull.queue = nil
        }
        SuspendedReads.of(pull.client).remove(pull)
    }

    /// Its pulls are dropped in slices. One that is run meanwhile is not answered: its connection is closed.
    func connectionClosed(_ client: ClientContext) {
        guard let reads = client.suspended as? SuspendedReads else { return }
        func letGo() -> Bool {
            for _ in 0..<Self.looksPerSlice {
                guard let pull = reads.last else { return false }
                release(pull)
            }
            return reads.count > 0
        }
        if letGo() { slices.add(letGo) }
    }

    /// Lets go of what a client waits for in some queues; the caller answers. A client with more pulls than a slice may
    /// look at keeps them until their deadlines.
    func takeHeld(by client: ClientContext, where condition: (ReadRequest) -> Bool) -> [ReadRequest] {
        guard let reads = client.suspended as? SuspendedReads, reads.count <= Self.looksPerSlice else { return [] }
        let taken = reads.filter(condition)
        for pull in taken { release(pull) }
        return taken
    }

    // MARK: - Deadlines

    private func link(_ pull: ReadRequest, key: Int64) {
        var list = lists[key] ?? DeadlineList()
        pull.listKey = key
        pull.previousByDeadline = list.tail
        if let tail = list.tail { tail.nextByDeadline = pull } else { list.head = pull }
        list.tail = pull
        lists[key] = list
    }

    private func unlink(_ pull: ReadRequest) {
        guard var list = lists[pull.listKey] else { return }
        let previous = pull.previousByDeadline
        let next = pull.nextByDeadline
        if let previous { previous.nextByDeadline = next } else { list.head = next }
        if let next { next.previousByDeadline = previous } else { list.tail = previous }
        pull.previousByDeadline = nil
        pull.nextByDeadline = nil
        // The list itself stays (its key is one of a few hundred possible time-outs).
        lists[pull.listKey] = list
    }

    private func arm(at deadline: Int64) {
        guard !isExpiring, deadline < timerAtMilliseconds else { return }
        timer?.cancel()
        timerAtMilliseconds = deadline
        let delay = max(1, deadline - now())
        let hold = NIOLoopBound(self, eventLoop: eventLoop)
        timer = eventLoop.scheduleTask(in: .milliseconds(delay)) { hold.value.expire() }
    }

    private func expire() {
        timer = nil
        timerAtMilliseconds = Int64.max
        guard expireSome() else { return armAtEarliest() }
        isExpiring = true
        slices.add { [unowned self] in
            if expireSome() { return true }
            isExpiring = false
            armAtEarliest()
            return false
        }
    }

    /// Answers a bounded number of pulls whose time is over; `true` when there are more.
    private func expireSome() -> Bool {
        let time = now()
        var runs = Self.runsPerSlice
        for key in Array(lists.keys) {
            while let pull = lists[key]?.head, pull.listDeadlineMilliseconds <= time {
                guard runs > 0 else { return true }
                runs -= 1
                release(pull)
                pull.resume(expired: true)
            }
        }
        return false
    }

    private func armAtEarliest() {
        var earliest = Int64.max
        for list in lists.values {
            if let head = list.head { earliest = min(earliest, head.listDeadlineMilliseconds) }
        }
        if earliest < Int64.max { arm(at: earliest) }
    }
}

extension PullRequestHold: FilterLinkObserver {
    /// Pulls that wait for more than tags go on with the new worker.
    func filterWorkerIsAvailable() {
        wakeAll { pull in
            guard case .compiled(let subscription) = pull.filter else { return false }
            switch subscription.state {
            case .everything, .tagsCodes: return false
            default: return true
            }
        }
        environment.scheduleTick()
    }
}
