package import MessageModel

/// Which messages of a queue are in whose hands, for one group. It holds what is between `floor` and `next`; below is
/// finished, above was never handed out.
///
/// Deadlines lie on the axis of the steady clock, but in the copies that are replayed from files on that of the wall
/// clock.
package final class ClaimTable {
    /// Whose consumers pop; has a table for each queue it reads.
    package let group: GroupName
    /// The topic of the queue, which may be the group's retry topic.
    package let topic: TopicName
    /// The queue in `topic`.
    package let queueID: Int32
    /// In journals and snapshots; not given twice while there are others.
    let number: UInt32

    /// The lowest queue offset that is not finished; `next` when there is none.
    package private(set) var floor: Int64
    /// The first queue offset that was never handed out.
    package internal(set) var next: Int64
    /// Messages in the hands of a client, or waiting after a failure (`failedCount`).
    package internal(set) var claimedCount = 0
    /// Those of them whose client has reported a failure: until their deadlines they are in no client's hands.
    package internal(set) var failedCount = 0
    /// Messages whose deadline has passed without an acknowledgement.
    package internal(set) var dueCount = 0
    /// Messages whose client's time was over, since the table was made or read. Wraps.
    package internal(set) var timeouts: UInt32 = 0
    /// The caller is reading for a pop and has not claimed yet; others skip the queue. The engine does not look at it.
    package var isBeingRead = false
    /// The caller's; the engine does not look at it.
    package var context: AnyObject?
    /// One batch at a time, and due messages in the order of their offsets. The caller sets it at each pop.
    package var isOrdered = false
    /// Whether the store has removed it (`removeTables`). Calls then change this object alone, and no journal.
    package var isRemoved: Bool { registry == nil }

    /// Nil when nothing is open.
    var open: OpenClaims?
    /// Of the open batch of an ordered table.
    var attemptID: [UInt8]?
    /// The greatest pop time of any delivery of this table, milliseconds since 1970.
    var popTimeMax: Int64
    /// Above the pop times of all messages that ever were due, and of what a reset has forgotten.
    var popTimeMinUnordered: Int64
    /// What the journal's entries of this table are relative to.
    var journalled = JournalReference()
    unowned var registry: ClaimRegistry?

    var heapKey = Run.due
    var heapIndex: Int32 = -1

    init(
        number: UInt32, group: GroupName, topic: TopicName, queueID: Int32, at offset: Int64, popTimeMin: Int64,
        registry: ClaimRegistry
    ) {
        self.number = number
        self.group = group
        self.topic = topic
        self.queueID = queueID
        floor = offset
        next = offset
        popTimeMax = popTimeMin -| 1
        popTimeMinUnordered = popTimeMin
        self.registry = registry
    }

    /// The smallest pop time a new delivery may have (milliseconds since 1970), so that a handle (pop time, offset)
    /// names one delivery. It is above those of all messages that were ever due here. For an ordered table above all
    /// its pop times, so that a batch can be opened again.
    package var popTimeMin: Int64 {
        isOrdered ? max(popTimeMinUnordered, popTimeMax +| 1) : popTimeMinUnordered
    }

    /// What is known of a message.
    package enum MessageState: Equatable, Sendable {
        /// Never handed out.
        case new
        /// In a client's hands; times are milliseconds since 1970, `attempt` 1 is the first delivery.
        case claimed(client: ClaimClient, since: Int64, until: Int64, attempt: Int32)
        /// Its client has reported a failure; to be handed out again at `until`, after so many deliveries.
        case failed(until: Int64, attempts: Int32)
        /// To be handed out again, after so many deliveries.
        case due(attempts: Int32)
        /// Acknowledged, filtered out, or skipped.
        case finished

        /// Deliveries so far of a message that is not finished; nil for others.
        package var attempts: Int32? {
            switch self {
            case .claimed(_, _, _, let attempts), .failed(_, let attempts), .due(let attempts): attempts
            case .new, .finished: nil
            }
        }
    }

    /// What is known of the message at a queue offset.
    package func state(of offset: Int64, at now: ClaimTime) -> MessageState {
        if offset >= next { return .new }
        guard let single = inHand(offset) else { return .finished }
        if single.isDue { return .due(attempts: single.attempt) }
        if single.waits {
            return .failed(until: now.wall +| (single.deadline -| now.steady), attempts: single.attempt)
        }
        return .claimed(
            client: ClaimClient(number: single.client), since: single.popTime,
            until: now.wall +| (single.deadline -| now.steady), attempt: single.attempt)
    }

    // MARK: - What is in hand

    /// A message that is claimed or due.
    func inHand(_ offset: Int64) -> Single? {
        guard let open else { return nil }
        if !open.singles.isEmpty, let single = open.singles[offset] { return single }
        guard let run = open.runs.find(offset)?.run else { return nil }
        return Single(
            popTime: run.popTime, deadline: run.deadline, dueNumber: run.isDue ? .max : 0, attempt: 1,
            invisible: 0, client: run.client)
    }

    /// Takes a message that is claimed or due out of the table; `settle` must follow.
    func take(_ offset: Int64) -> Single? {
        guard let open, let single = inHand(offset) else { return nil }
        if let position = open.runs.find(offset) {
            open.runs.finish(offset, at: position)
        } else {
            open.singles.remove(offset)
        }
        if single.isDue { count(claimed: 0, due: -1) } else { count(claimed: -1, due: 0) }
        if single.waits { failedCount -= 1 }
        return single
    }

    /// Enters a message that is in no run, as claimed or, with the deadline `Run.due`, as due; `settle` must follow.
    func put(_ offset: Int64, _ single: Single) {
        let open = openClaims()
        var single = single
        if single.deadline == Run.due {
            single.hasFailed = false
            single.dueNumber = open.due.append(offset)
            noteDue(single.popTime)
            count(claimed: 0, due: 1)
        } else {
            single.dueNumber = 0
            count(claimed: 1, due: 0)
            if single.hasFailed { failedCount += 1 }
        }
        popTimeMax = max(popTimeMax, single.popTime)
        open.singles.set(offset, to: single)
    }

    /// A delivery with this pop time has become due: later ones of the message need a greater one.
    func noteDue(_ popTime: Int64) {
        guard popTime >= popTimeMinUnordered else { return }
        popTimeMinUnordered = popTime +| 1
        registry?.noteDue(popTime)
    }

    func openClaims() -> OpenClaims {
        if let open { return open }
        let made = OpenClaims()
        open = made
        return made
    }

    func count(claimed: Int, due: Int) {
        claimedCount += claimed
        dueCount += due
        registry?.statistics.claimed += claimed
        registry?.statistics.due += due
    }

    /// Ends a call that took messages out of the table or entered them.
    func settle() {
        if let open {
            if claimedCount + dueCount == 0 {
                self.open = nil
                attemptID = nil
            } else {
                open.due.clean(messages: dueCount) { isValid($0, in: open) }
            }
        }
        registry?.deadlineChanged(of: self, to: open?.earliest ?? Run.due)
        let lowest = open?.lowest() ?? next
        guard lowest != floor else { return }
        floor = lowest
        registry?.observer?.floorMoved(of: self)
    }

    /// Whether an entry of the due queue still stands for messages that are due.
    func isValid(_ entry: DueQueue.Entry, in open: OpenClaims) -> Bool {
        if entry.number != 0 { return open.singles[entry.offset]?.dueNumber == entry.number }
        return open.runs.run(startingAt: entry.offset)?.run.isDue == true
    }

    /// Forgets everything in hand. `settle` must follow.
    func forgetAll() {
        count(claimed: -claimedCount, due: -dueCount)
        failedCount = 0
        open = nil
        attemptID = nil
    }
}

extension ClaimTable: HeapElement {}

/// What a table holds while messages of it are claimed or due.
final class OpenClaims {
    var runs = RunList()
    var singles = SingleClaims()
    var due = DueQueue()

    /// At most the earliest deadline; `Run.due` when nothing is claimed.
    var earliest: Int64 { min(runs.earliest, singles.earliest) }

    /// The lowest offset that is claimed or due.
    func lowest() -> Int64? {
        guard let single = singles.lowest() else { return runs.lowest() }
        return min(single, runs.lowest() ?? .max)
    }
}
