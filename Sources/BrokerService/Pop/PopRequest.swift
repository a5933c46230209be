import Claims
import MessageStore
import RemotingProtocol

/// One POP_MESSAGE while it is worked on: its fields, resolved to the broker's own objects, and what it has found so
/// far. Confined to the broker's event loop.
final class PopRequest: PopWaiter {
    private unowned(unsafe) let processor: PopMessageProcessor
    let address: ReturnAddress
    let messagesMax: Int
    let invisibleMilliseconds: Int64
    /// A group without offsets begins with the last message.
    let beginsAtEnd: Bool
    let isOrdered: Bool
    let attemptID: [UInt8]?
    let filter: SubscriptionFilter
    /// The client's name in the journal of claims.
    let claimClient: ClaimClient
    /// The topic's when it came.
    let mode: TopicMode
    /// It looks because something may be had.
    private(set) var wasWoken = false
    /// `consumer` counts it among those that wait.
    var isCounted = false

    // MARK: - One look at the queues

    /// Queues still to be looked at, the next one last.
    var placesLeft: [(source: PopSource, queueID: Int32)] = []
    /// Messages that still fit into the answer.
    var left = 0
    /// Messages that remain in the queues.
    var rest: Int64 = 0
    var parts: [PopPart] = []
    /// A queue in which nothing was found has more than one look may go through.
    var hasLookedShort = false
    /// This look is one after its deadline.
    var isExpired = false
    /// What came of the read that is under way (`isReading`: it has not come back yet).
    var step = PopStep.done
    var isReading = false
    /// The pop time of messages handed out again to a client that repeats its request.
    var reopenedAt: Int64?

    init(
        by processor: PopMessageProcessor, client: ClientContext, address: ReturnAddress, topic: TopicEntry,
        group: SubscriptionGroupEntry, header: PopMessageRequestHeader, deadlineSteady: Int64,
        filter: SubscriptionFilter, claimClient: ClaimClient, consumer: QueueLeases.Consumer?
    ) {
        self.processor = processor
        self.address = address
        messagesMax = max(1, Int(header.maxMessageNums))
        invisibleMilliseconds = topic.policy.invisibleMilliseconds(wanted: header.invisibleTime)
        beginsAtEnd = header.initMode != 0
        isOrdered = header.isOrdered || topic.policy.hasLeases
        attemptID = header.attemptID.map { [UInt8]($0) }
        self.filter = filter
        self.claimClient = claimClient
        mode = topic.policy.mode
        super.init(
            client: client, topic: topic, group: group, queueID: header.queueID, deadlineSteady: deadlineSteady,
            consumer: consumer)
    }

    override func resume(expired: Bool) {
        wasWoken = !expired
        processor.run(self, expired: expired)
    }

    override func end() { processor.end(self) }

    /// The topic or the group is another one now, or its messages are handed out by other rules than this request
    /// knows. What it has found is not to be claimed.
    var isOutdated: Bool {
        topic.isGone || group.isGone || mode != topic.policy.mode || (consumer != nil) != topic.policy.hasLeases
    }

    /// Begins to look at the queues.
    /// - Parameters:
    ///   - first: where in the ring of queues, if any will do.
    ///   - copies: retry topics, which come first.
    func begin(from first: Int32, copies: [PopSource], expired: Bool) {
        isExpired = expired
        hasLookedShort = false
        left = messagesMax
        rest = 0
        let range = queues
        let start = range.isEmpty ? 0 : first % Int32(range.count)
        let source = PopSource(kind: .normal, topic: topic)
        placesLeft.removeAll(keepingCapacity: true)
        // The ring from `start` on, backwards.
        for queueID in range.prefix(Int(start)).reversed() { placesLeft.append((source, queueID)) }
        for queueID in range.dropFirst(Int(start)).reversed() { placesLeft.append((source, queueID)) }
        for copy in copies.reversed() {
            for queueID in PopWaiter.queues(of: copy.topic, -1).reversed() { placesLeft.append((copy, queueID)) }
        }
    }

    /// Queues are free for other pops.
    func release() {
        for part in parts { part.table.isBeingRead = false }
        parts.removeAll()
    }

    var messageCount: Int { parts.reduce(0) { $0 + $1.count } }
}

/// What came of the look at one queue.
enum PopStep {
    case done
    /// The filter worker is asked: `PopMessageProcessor.readFiltered` goes on.
    case waits
    case refused(ResponseCode, String)
}

/// What a pop takes from one queue.
struct PopPart {
    /// A message that was delivered before.
    struct Again {
        let offset: Int64
        /// Deliveries before this one.
        let attempts: Int32
        let record: LogRange
    }

    let source: PopSource
    let table: ClaimTable
    let queue: ConsumeQueue
    /// Messages it may take of those that fit into the answer.
    var room = Int.max
    /// Messages of the same attempt, handed out again.
    var reopened: [Again] = []
    /// Messages whose earlier claims have ended.
    var due: [Again] = []
    /// Messages never handed out, ascending, and their records.
    var fresh: [Int64] = []
    var freshRecords: [LogRange] = []
    /// Behind the last message looked at.
    var next: Int64

    var isEmpty: Bool { reopened.isEmpty && due.isEmpty && fresh.isEmpty }

    var count: Int { reopened.count + due.count + fresh.count }

    /// In the order of the answer.
    func addRecords(to records: inout [PopRecords]) {
        for message in reopened { records.append(.redelivered(message.record, attempts: message.attempts)) }
        for message in due { records.append(.redelivered(message.record, attempts: message.attempts)) }
        for range in freshRecords { records.append(.asStored(range)) }
    }

    /// Messages that were due may have been acknowledged, or given more time, while the filter worker was asked.
    mutating func keepDue(at now: ClaimTime) {
        due.removeAll { message in
            if case .due = table.state(of: message.offset, at: now) { return false }
            return true
        }
    }
}

/// Records of an answer to a pop.
enum PopRecords {
    case asStored(LogRange)
    /// One record, delivered so many times before.
    case redelivered(LogRange, attempts: Int32)
    /// A record of a retry topic, made anew for the client.
    case copy([UInt8])

    var length: Int {
        switch self {
        case .asStored(let range), .redelivered(let range, _): range.length
        case .copy(let bytes): bytes.count
        }
    }
}

/// A read of one queue for a pop whose filter needs the filter worker.
final class PopRead: ReadRequest {
    private unowned(unsafe) let processor: PopMessageProcessor
    private let pop: PopRequest
    private let part: PopPart

    init(by processor: PopMessageProcessor, reader: MessageReader, _ pop: PopRequest, _ part: PopPart) {
        self.processor = processor
        self.pop = pop
        self.part = part
        super.init(
            by: reader, client: pop.client, topic: part.source.topic, group: pop.group, queueID: part.queue.queueID,
            queueOffset: part.next, maxMessageNums: min(pop.left, part.room), maxMessageBytes: nil, maySuspend: false,
            suspendTimeoutMilliseconds: 0, filter: pop.filter)
    }

    override func answer(_ outcome: ReadOutcome, _ found: [LogRange]) {
        processor.readFiltered(pop, part, outcome, found)
    }

    override func abandoned() {
        part.table.isBeingRead = false
        processor.giveBack(pop)
    }
}
