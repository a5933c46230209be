import MessageModel

/// One delay level's queue of `SCHEDULE_TOPIC_XXXX`, seen by the clock: which entry is next and when it is due. Time
/// and entries come as arguments.
struct DelayLevel {
    /// Milliseconds.
    let delay: Int64
    /// The queue offset to deliver next; what is after it has been appended.
    private(set) var next: Int64
    /// The same as of the last write of the log that succeeded.
    private(set) var committed: Int64
    /// When the entry at `next` is due; max while none is known.
    var dueMilliseconds = Int64.max

    /// For entries that are due later than their level's delay from now on: the clock was set back, or an operator has
    /// shortened the level. Those that were there when it was noticed go one delay after that; never early, and not
    /// hours late either.
    private var anchor: (through: Int64, due: Int64)?

    init(delay: Int64, offset: Int64 = 0) {
        self.delay = delay
        next = offset
        committed = offset
    }

    /// When an entry may be delivered.
    /// - Parameters:
    ///   - deliverMilliseconds: what the entry contains: the time it was stored plus the delay.
    ///   - queueEnd: after the queue's last entry.
    mutating func due(_ deliverMilliseconds: Int64, at offset: Int64, queueEnd: Int64, now: Int64) -> Int64 {
        guard deliverMilliseconds > now +| delay else { return deliverMilliseconds }
        if let anchor, offset < anchor.through { return min(deliverMilliseconds, anchor.due) }
        anchor = (max(queueEnd, offset +| 1), now +| delay)
        return now +| delay
    }

    /// The entry at `next` is in the log's buffer, or skipped.
    mutating func advance() { next += 1 }

    mutating func moveTo(_ offset: Int64) {
        next = offset
        committed = offset
    }

    /// What was appended is in the log.
    mutating func commit() { committed = next }

    /// It is not: it goes again.
    mutating func rollBack() {
        next = committed
        dueMilliseconds = 0
    }
}
