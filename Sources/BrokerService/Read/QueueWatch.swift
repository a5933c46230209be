import MessageStore

/// Pulls in the order they came, each of which leaves in constant time.
final class PullList {
    private(set) var first: ReadRequest?
    private unowned(unsafe) var last: ReadRequest?

    var isEmpty: Bool { first == nil }

    deinit {
        // One after the other: a chain that releases itself would take a stack as long as it is.
        while let pull = first { remove(pull) }
    }

    func append(_ pull: ReadRequest) {
        pull.list = self
        pull.previousInList = last
        if let last { last.nextInList = pull } else { first = pull }
        last = pull
    }

    func remove(_ pull: ReadRequest) {
        let next = pull.nextInList
        let previous = pull.previousInList
        if let next { next.previousInList = previous } else { last = previous }
        pull.nextInList = nil
        pull.previousInList = nil
        pull.list = nil
        // Last of all: this may be what keeps the pull alive.
        if let previous { previous.nextInList = next } else { first = next }
    }
}

/// The suspended reads of one connection, in no order; each is found by its index. Hangs at `ClientContext.suspended`.
final class SuspendedReads {
    static func of(_ client: ClientContext) -> SuspendedReads {
        if let suspended = client.suspended { return unsafeDowncast(suspended, to: SuspendedReads.self) }
        let reads = SuspendedReads()
        client.suspended = reads
        return reads
    }

    private var pulls: [ReadRequest] = []

    var count: Int { pulls.count }
    var last: ReadRequest? { pulls.last }

    func filter(_ condition: (ReadRequest) -> Bool) -> [ReadRequest] { pulls.filter(condition) }

    func insert(_ pull: ReadRequest) {
        pull.placeInClient = pulls.count
        pulls.append(pull)
    }

    func remove(_ pull: ReadRequest) {
        let place = pull.placeInClient
        let moved = pulls.removeLast()
        guard moved !== pull else { return }
        moved.placeInClient = place
        pulls[place] = moved
    }
}

/// What has arrived in a queue, as far as it matters to what waits: the tags codes, or "many".
struct ArrivedTags {
    /// So many different codes are remembered; more wake all reads.
    private static let codesMax = 16

    private var codes: [Int64] = []
    private var isMany = false

    var isEmpty: Bool { codes.isEmpty && !isMany }

    mutating func insert(_ code: Int64) {
        if isMany || codes.last == code || codes.contains(code) { return }
        if codes.count == Self.codesMax {
            codes = []
            isMany = true
        } else {
            codes.append(code)
        }
    }

    func mayWake(_ filter: SubscriptionFilter) -> Bool {
        isMany || codes.contains { filter.mayMatch(tagsCode: $0) }
    }
}

/// Waits for messages of queues without a read of its own: pops, which read whichever queue has some.
protocol ArrivalObserver: AnyObject {
    /// A message of the queue has become readable. Called during dispatch: it only takes note.
    func messageArrived(in queueID: Int32)
}

/// Takes in what waits in a queue of the broker's own: delay levels, timer messages, half messages.
protocol WaitingObserver: AnyObject {
    /// A message of the queue has become readable. Called during dispatch: it only takes note.
    func waitingArrived(in queueID: Int32, _ arrival: MessageArrival)
}

/// What waits at one queue; hangs at `ConsumeQueue.context`.
final class QueueWatch {
    /// Pulls to be looked at for what has arrived; those that came after that are not among them.
    struct Batch {
        let pulls: PullList
        var arrivals: ArrivedTags
    }

    var pulls = PullList()
    /// Arrived, and not yet looked at by those in `pulls`.
    private(set) var arrivals = ArrivedTags()
    var batch: Batch?
    /// It stands in the list of queues at which reads are to be woken.
    var isStirred = false
    /// Notified of each message.
    private(set) var observers: [any ArrivalObserver] = []
    /// Of a queue of the broker's own. It lives as long as the store.
    private(set) unowned var waiting: (any WaitingObserver)?

    static func of(_ queue: ConsumeQueue) -> QueueWatch {
        if let watch = queue.context as? QueueWatch { return watch }
        let watch = QueueWatch()
        queue.context = watch
        return watch
    }

    /// No read waits for messages.
    var isIdle: Bool { pulls.isEmpty && batch == nil && waiting == nil && observers.isEmpty }

    /// The queue is one of the broker's own.
    static func observe(_ queue: ConsumeQueue, by observer: any WaitingObserver) {
        of(queue).waiting = observer
        queue.wantsArrival = true
    }

    func add(_ observer: any ArrivalObserver) { observers.append(observer) }

    func remove(_ observer: any ArrivalObserver) { observers.removeAll { $0 === observer } }

    func note(_ tagsCode: Int64) {
        arrivals.insert(tagsCode)
        batch?.arrivals.insert(tagsCode)
    }

    /// Takes all pulls that wait, in constant time; nil when nothing arrived for them.
    func beginBatch() -> Batch? {
        defer { arrivals = ArrivedTags() }
        guard !arrivals.isEmpty, !pulls.isEmpty else { return nil }
        let batch = Batch(pulls: pulls, arrivals: arrivals)
        pulls = PullList()
        self.batch = batch
        return batch
    }
}
