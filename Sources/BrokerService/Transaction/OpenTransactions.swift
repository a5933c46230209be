import MessageModel

/// The prepared messages whose outcome is not known, and when their producers are asked for it. Time comes as an
/// argument.
///
/// A half message is open from its arrival until an op message names its offset. Each time its producer is asked, it is
/// stored again with its count of checks, as Apache does. The older copy gets its op message in the same write. Apache
/// leaves the older copy to its offset file, and delivers twice when a crash comes before that is written.
struct OpenTransactions {
    struct Settings: Equatable {
        /// Milliseconds from storing to the first check (`transactionTimeOut`).
        var timeout: Int64 = 6000
        /// Between checks (`transactionCheckInterval`).
        var interval: Int64 = 60_000
        /// Checks after which no producer is asked any more (`transactionCheckMax`).
        var checkMax = 15
        /// Age at which no producer is asked any more: the log is about to forget the message (`fileReservedTime`).
        var keep: Int64 = 72 * 3_600_000
    }

    struct Entry: Equatable {
        var half: HalfMessage
        /// When the first copy was stored, as far as is known.
        var since: Int64
        var nextCheck: Int64
    }

    enum Due: Equatable {
        case check(HalfMessage)
        case giveUp(HalfMessage)
    }

    private(set) var settings: Settings
    private var open: [Int64: Entry] = [:]
    /// The open copy of each transaction, by the offset of its first copy.
    private var byOrigin: [Int64: Int64] = [:]
    /// While the queues are read at the start: prepared messages by their likeness, for copies of unknown origin.
    private var alike: [Int: [HalfMessage]]? = [:]
    /// Origins found that way, by the offset of the copy.
    private var guessed: [Int64: Int64] = [:]
    /// Their op messages are in the log's buffer.
    private var ending: [Int64: Entry] = [:]
    /// (time, half offset), some of them no longer true.
    private var checks = TimerHeap()

    /// All half offsets since the first open one, from `firstKnown` on.
    private var known: [Int64] = []
    private var firstKnown = 0
    /// Behind the last half message seen.
    private var halfEnd: Int64
    /// The half offsets op messages name, in the order of their queue, the first at `opStart`.
    private var ops: [Int64] = []
    private var firstOp = 0
    private var opStart: Int64

    /// - Parameters:
    ///   - halfOffset: everything before it in the half queue is done with.
    ///   - opOffset: every op message for what is not lies after it.
    init(settings: Settings, halfOffset: Int64, opOffset: Int64) {
        self.settings = settings
        halfEnd = halfOffset
        opStart = opOffset
    }

    var count: Int { open.count }

    /// The operator has changed them: what waits waits by the new ones.
    mutating func apply(_ settings: Settings) {
        guard settings != self.settings else { return }
        self.settings = settings
        for (offset, var entry) in open {
            // Without a producer it waits for one, however long.
            if entry.nextCheck != .max { entry.nextCheck = entry.half.storeTimestamp +| wait(entry.half) }
            open[offset] = entry
            schedule(entry)
        }
    }

    private func wait(_ half: HalfMessage) -> Int64 {
        half.checks > 0 ? settings.interval : half.immunity ?? settings.timeout
    }

    // MARK: - What happens

    /// A half message has become readable. An older copy of the same transaction is open no longer.
    /// - Returns: whether its producer is to be asked now: the copy was made for that.
    @discardableResult
    mutating func arrived(_ half: HalfMessage, isEnded: Bool = false) -> Bool {
        guard half.queueOffset >= halfEnd else { return false }
        halfEnd = half.queueOffset + 1
        known.append(half.queueOffset)
        let half = linked(half)
        guard !isEnded else { return false }
        var entry = Entry(half: half, since: half.storeTimestamp, nextCheck: half.storeTimestamp +| wait(half))
        var isCheck = half.checks > 0
        if let older = byOrigin[half.origin], let before = open.removeValue(forKey: older) ?? ending[older] {
            entry.since = before.since
            isCheck = half.checks > before.half.checks
            // Only moved to another offset of the log: that postpones nothing. What waits for a producer begins to wait
            // anew.
            if half.checks == before.half.checks, before.nextCheck != .max { entry.nextCheck = before.nextCheck }
        }
        open[half.queueOffset] = entry
        byOrigin[half.origin] = half.queueOffset
        schedule(entry)
        return isCheck
    }

    /// A copy of unknown origin belongs to the oldest message that looks like it, was checked once less and has no copy
    /// yet. RocketMQ's broker makes them in this order.
    private mutating func linked(_ half: HalfMessage) -> HalfMessage {
        guard alike != nil, let likeness = half.likeness else { return half }
        var half = half
        if !half.isOriginKnown,
            let index = alike?[likeness]?.firstIndex(where: { $0.checks == half.checks - 1 }),
            let original = alike?[likeness]?.remove(at: index)
        {
            half.origin = original.origin
            guessed[half.queueOffset] = half.origin
        }
        alike?[likeness, default: []].append(half)
        return half
    }

    /// The queues have been read: from now on every copy is made here.
    mutating func rebuilt() { alike = nil }

    /// The open ones whose records lie before an offset of the log, oldest first.
    func lying(before physicalOffset: Int64) -> [HalfMessage] {
        var found: [HalfMessage] = []
        for offset in known[firstKnown...] {
            guard let half = open[offset]?.half else { continue }
            guard half.physicalOffset < physicalOffset else { break }
            found.append(half)
        }
        return found
    }

    /// An offset in the half queue that holds nothing readable.
    mutating func skipped(_ queueOffset: Int64) { halfEnd = max(halfEnd, queueOffset + 1) }

    private mutating func schedule(_ entry: Entry) {
        let due = min(entry.nextCheck, entry.since +| settings.keep)
        checks.push(
            TimerEntry(due: due, sequence: entry.half.queueOffset, position: entry.nextCheck, size: 0, source: 0))
    }

    /// An op message has become readable.
    mutating func opArrived(naming halfOffsets: [Int64]) {
        // One entry per op message, so that an entry's index gives the op message's offset.
        ops.append(halfOffsets.max() ?? -1)
    }

    func find(_ halfOffset: Int64) -> HalfMessage? { open[halfOffset]?.half }

    /// The open copy of the transaction this is a copy of.
    func find(copyOf half: HalfMessage) -> HalfMessage? {
        byOrigin[guessed[half.queueOffset] ?? half.origin].flatMap { open[$0]?.half }
    }

    /// Its op message is in the log's buffer.
    mutating func end(_ halfOffset: Int64) {
        guard let entry = open.removeValue(forKey: halfOffset) else { return }
        ending[halfOffset] = entry
    }

    /// What was in the buffer is in the log.
    mutating func commit() {
        for (offset, entry) in ending where byOrigin[entry.half.origin] == offset {
            byOrigin[entry.half.origin] = nil
        }
        ending.removeAll(keepingCapacity: true)
        while firstKnown < known.count, open[known[firstKnown]] == nil { firstKnown += 1 }
        if firstKnown > 4096, firstKnown * 2 > known.count {
            known.removeFirst(firstKnown)
            firstKnown = 0
        }
        let done = halfOffset
        while firstOp < ops.count, ops[firstOp] < done { firstOp += 1 }
        if firstOp > 4096, firstOp * 2 > ops.count {
            ops.removeFirst(firstOp)
            opStart += Int64(firstOp)
            firstOp = 0
        }
    }

    /// It is not: those transactions are still open.
    mutating func rollBack(now: Int64) {
        for (offset, var entry) in ending {
            entry.nextCheck = max(entry.nextCheck, now + 100)
            open[offset] = entry
            byOrigin[entry.half.origin] = offset
            schedule(entry)
        }
        ending.removeAll(keepingCapacity: true)
    }

    // MARK: - Checks

    /// The next one whose time has come. The caller ends or postpones it.
    mutating func nextDue(now: Int64) -> Due? {
        while let top = checks.top, top.due <= now {
            checks.pop()
            guard let entry = open[top.sequence], entry.nextCheck == top.position else { continue }
            if entry.half.checks >= settings.checkMax || now -| entry.since >= settings.keep {
                return .giveUp(entry.half)
            }
            return .check(entry.half)
        }
        return nil
    }

    /// No producer could be asked: the check is not counted.
    mutating func postpone(_ halfOffset: Int64, until time: Int64) {
        guard var entry = open[halfOffset] else { return }
        entry.nextCheck = time
        open[halfOffset] = entry
        schedule(entry)
    }

    /// When something is due next.
    var nextWake: Int64? { checks.top?.due }

    // MARK: - What must survive

    /// The half queue is done with up to here.
    var halfOffset: Int64 { firstKnown < known.count ? known[firstKnown] : halfEnd }
    /// Every op message for half messages from `halfOffset` on lies after this offset.
    var opOffset: Int64 { opStart + Int64(firstOp) }
}

extension OpenTransactions.Settings {
    /// RocketMQ's keys and defaults; what is no positive number counts as not set.
    init(_ configuration: BrokerConfiguration) {
        self.init()
        func set(_ key: String, _ path: WritableKeyPath<Self, Int64>, unit: Int64 = 1) {
            guard let value = configuration.integer(key), value > 0, value < Int64.max / unit else {
                return
            }
            self[keyPath: path] = value * unit
        }
        set("transactionTimeOut", \.timeout)
        set("transactionCheckInterval", \.interval)
        set("fileReservedTime", \.keep, unit: 3_600_000)
        var checks = Int64(checkMax)
        if let value = configuration.integer("transactionCheckMax"), value > 0 { checks = value }
        checkMax = Int(clamping: checks)
    }
}
