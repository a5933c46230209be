import MessageStore
import NIOCore
import StoreFormat

/// What waits at one queue; hangs at `ConsumeQueue.context`.
final class QueueWatch {
    var pulls: [PullRequest] = []
    /// The delay level whose messages the queue holds, for queues of `SCHEDULE_TOPIC_XXXX`.
    var arrivalOfDelayed: ((MessageArrival) -> Void)?

    static func of(_ queue: ConsumeQueue) -> QueueWatch {
        if let watch = queue.context as? QueueWatch { return watch }
        let watch = QueueWatch()
        queue.context = watch
        return watch
    }
}

/// Long polling: pulls that found nothing wait here. A pull is woken by the arrival of a message in its queue whose
/// tags code it may want, or by its deadline; there is no polling tick. One timer stands at the earliest deadline.
///
/// Held pulls hang in the lists of their queue (woken in order of arrival) and of their time-out: pulls with the same
/// time-out expire in the order they came, so each such list is sorted by itself and the earliest deadline is at one
/// of a few heads.
final class PullRequestHold {
    /// Deadlines are rounded down to this; clients suspend for 15 to 30 s.
    static let granularityMillis: Int64 = 100
    /// A client asking for longer is answered "nothing found" after this and asks again.
    static let suspendMaxMillis: Int64 = 60_000

    private struct DeadlineList {
        var head: PullRequest?
        var tail: PullRequest?
    }

    /// By time-out in units of `granularityMillis`.
    private var lists: [Int64: DeadlineList] = [:]
    private let eventLoop: any EventLoop
    private var timer: Scheduled<Void>?
    private var timerAtMillis = Int64.max
    /// Queues with something to run at the end of the tick.
    private var woken: [PullRequest] = []
    private(set) var count = 0
    private let now: () -> Int64

    /// Runs a pull again; after its deadline it must be answered, not held.
    var run: ((_ pull: PullRequest, _ expired: Bool) -> Void)?

    init(eventLoop: any EventLoop, now: @escaping () -> Int64) {
        self.eventLoop = eventLoop
        self.now = now
    }

    /// The queue a pull waits at, made (in memory) if nothing was ever stored in it.
    var findQueue: ((PullRequest) -> ConsumeQueue)?

    /// Holds a pull until something arrives or its time is over.
    func hold(_ pull: PullRequest) {
        precondition(!pull.isHeld, "a pull is held once")
        let time = now()
        if pull.deadlineMillis == 0 {
            pull.deadlineMillis = time + min(max(pull.suspendTimeoutMillis, 0), Self.suspendMaxMillis)
        }
        pull.isHeld = true
        count += 1
        // Held again after a wake-up it keeps its first deadline, and so goes into the list of the time that is left.
        let key = max(1, (pull.deadlineMillis - time) / Self.granularityMillis)
        pull.listDeadlineMillis = time + key * Self.granularityMillis
        link(pull, key: key)
        if let queue = findQueue?(pull) {
            pull.queue = queue
            QueueWatch.of(queue).pulls.append(pull)
            queue.wantsArrival = true
        }
        pull.client.held[ObjectIdentifier(pull)] = pull
        arm(at: pull.listDeadlineMillis)
    }

    /// A message has become readable in a queue somebody waits at. Called during dispatch, so it only takes note.
    func arrived(_ queue: ConsumeQueue, _ arrival: MessageArrival) {
        guard let watch = queue.context as? QueueWatch else { return }
        for pull in watch.pulls where !pull.isWoken && pull.filter.mayMatch(tagsCode: arrival.tagsCode) {
            pull.isWoken = true
            woken.append(pull)
        }
        watch.arrivalOfDelayed?(arrival)
    }

    /// Wakes everything that waits for the filter worker or in a topic that went away.
    func wakeAll(where condition: (PullRequest) -> Bool) {
        for list in lists.values {
            var next = list.head
            while let pull = next {
                next = pull.nextByDeadline
                if !pull.isWoken, condition(pull) {
                    pull.isWoken = true
                    woken.append(pull)
                }
            }
        }
    }

    /// Runs what the tick has woken. A pull woken for a message its filter then refuses is held again by `run`.
    func runWoken() {
        guard !woken.isEmpty else { return }
        let batch = woken
        woken.removeAll(keepingCapacity: true)
        for pull in batch where pull.isHeld {
            release(pull)
            run?(pull, false)
        }
    }

    func release(_ pull: PullRequest) {
        guard pull.isHeld else { return }
        pull.isHeld = false
        pull.isWoken = false
        count -= 1
        unlink(pull)
        if let queue = pull.queue {
            let watch = QueueWatch.of(queue)
            watch.pulls.removeAll { $0 === pull }
            if watch.pulls.isEmpty, watch.arrivalOfDelayed == nil { queue.wantsArrival = false }
            pull.queue = nil
        }
        pull.client.held[ObjectIdentifier(pull)] = nil
    }

    func connectionClosed(_ client: ClientContext) {
        for pull in client.held.values { release(pull) }
    }

    /// Answers held pulls now, as at their deadlines: their topic or the broker goes away.
    func expireAll(where condition: (PullRequest) -> Bool) {
        var all: [PullRequest] = []
        for list in lists.values {
            var next = list.head
            while let pull = next {
                if condition(pull) { all.append(pull) }
                next = pull.nextByDeadline
            }
        }
        for pull in all where pull.isHeld {
            release(pull)
            run?(pull, true)
        }
    }

    // MARK: Deadlines

    private func link(_ pull: PullRequest, key: Int64) {
        var list = lists[key] ?? DeadlineList()
        pull.listKey = key
        pull.previousByDeadline = list.tail
        if let tail = list.tail { tail.nextByDeadline = pull } else { list.head = pull }
        list.tail = pull
        lists[key] = list
    }

    private func unlink(_ pull: PullRequest) {
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
        guard deadline < timerAtMillis else { return }
        timer?.cancel()
        timerAtMillis = deadline
        let delay = max(1, deadline - now())
        let hold = NIOLoopBound(self, eventLoop: eventLoop)
        timer = eventLoop.scheduleTask(in: .milliseconds(delay)) { hold.value.expire() }
    }

    private func expire() {
        timer = nil
        timerAtMillis = Int64.max
        let time = now()
        for list in Array(lists.values) {
            var next = list.head
            while let pull = next, pull.isHeld, pull.listDeadlineMillis <= time {
                next = pull.nextByDeadline
                release(pull)
                run?(pull, true)
            }
        }
        var earliest = Int64.max
        for list in lists.values {
            if let head = list.head { earliest = min(earliest, head.listDeadlineMillis) }
        }
        if earliest < Int64.max { arm(at: earliest) }
    }
}
