import StoreFormat

/// What retention remembers between its rounds. Confined to the store's thread.
struct RetentionState {
    /// When the disk was looked at last, milliseconds since 1970.
    private var lastRoundMilliseconds: Int64 = 0
    /// An operator wants expired files deleted at this hour too.
    private(set) var isRequested = false
    /// Base of the log file that would have been deleted if no hold had needed it; of the last round.
    private(set) var heldAt: PhysicalOffset?
    /// What needs it.
    private(set) var heldBy: RetentionHold?
    /// The file whose hold was reported last.
    private var reportedHold: PhysicalOffset?
    /// Queues that are still to be shortened to what the log holds.
    private var expiring: [ConsumeQueue] = []
    /// The log has moved meanwhile: all queues once more.
    private var expiresAgain = false
    /// Unexpired messages that a full disk has cost; reported when all queues have been shortened.
    private(set) var forced: ForcedDeletion?

    // MARK: - Rounds

    /// Expired files go at any hour until a round has nothing left to delete.
    mutating func request() { isRequested = true }

    /// Whether a round is due; then it begins.
    mutating func beginRoundIfDue(now: Int64, intervalMilliseconds: Int64) -> Bool {
        guard isRequested || now - lastRoundMilliseconds >= intervalMilliseconds else { return false }
        lastRoundMilliseconds = now
        return true
    }

    /// The disk has been looked at: what was held counts no more.
    mutating func beginDeleting() {
        heldAt = nil
        heldBy = nil
    }

    /// - Parameters:
    ///   - isComplete: no file is left to delete.
    ///   - comesAgain: it has looked at nothing yet: the next one is due at once.
    mutating func endRound(isComplete: Bool, comesAgain: Bool = false) {
        if isComplete { isRequested = false }
        if comesAgain { lastRoundMilliseconds = 0 }
    }

    /// The file at `base` stays because of a hold.
    /// - Returns: whether that is to be reported.
    mutating func noteHeld(_ base: PhysicalOffset, by hold: RetentionHold) -> Bool {
        heldAt = base
        heldBy = hold
        guard reportedHold != base else { return false }
        reportedHold = base
        return true
    }

    /// The unexpired file at `base` was deleted because the disk is full.
    mutating func noteForced(_ base: PhysicalOffset) {
        if forced == nil { forced = ForcedDeletion(from: base) }
        forced?.files += 1
    }

    // MARK: - Queues

    /// All queues are to follow the log. Queues that are being shortened go on first and begin once more after that. If
    /// they began anew each time, many queues would never come to the last one.
    mutating func expire(_ queues: [ConsumeQueue]) {
        if expiring.isEmpty { expiring = queues } else { expiresAgain = true }
    }

    var isExpiring: Bool { !expiring.isEmpty }

    mutating func nextQueue() -> ConsumeQueue? { expiring.popLast() }

    /// The queue has no entries of unexpired messages below `entry`.
    mutating func beginShortening(at entry: QueueOffset) { forced?.begin(at: entry) }

    /// The queue begins later now.
    mutating func noteShortened(_ queue: ConsumeQueue) { forced?.shortened(to: queue) }

    /// All queues have been shortened.
    /// - Parameter queues: all there are.
    /// - Returns: what is to be reported as lost.
    mutating func endShortening(_ queues: [ConsumeQueue]) -> ForcedDeletion? {
        assert(expiring.isEmpty, "queues are still to be shortened")
        let ended = forced
        forced = nil
        if expiresAgain {
            expiresAgain = false
            expiring = queues
            forced = ended.map { ForcedDeletion(from: $0.from) }
        }
        return ended
    }
}
