import StoreFormat

/// Edits on their way: those of the tick, those a replay cannot enter yet, and what of them all is in the file.
/// Confined to the store's thread.
struct EditsState {
    /// A version met in a replay before its message's entry.
    struct Waiting {
        let queue: ConsumeQueue
        let offset: QueueOffset
        let version: QueueEdits.Version
        /// Where the version lies that it replaced.
        let replaced: PhysicalOffset
    }

    private struct Place: Hashable {
        let queue: ObjectIdentifier
        let offset: QueueOffset
    }

    let total = EditTotal()
    /// Versions this tick has appended, by message: they stand for it when the tick is written.
    private var appended: [Place: (physicalOffset: PhysicalOffset, isDeleted: Bool)] = [:]
    /// Until the replay has come to its end, or the queue can be read.
    private(set) var waiting: [Waiting] = []
    /// There were more than can wait: a start has to read them from the log again.
    private var hasLeftOut = false
    /// Versions the log holds and the overlays do not.
    var isIncomplete: Bool { hasLeftOut || !waiting.isEmpty }
    /// False from the first entry that could not be read, which is reported once, until all that waited are entered.
    var queuesAreReadable = true
    /// A release that knows no edits, or RocketMQ, has copied this log from its master: it may hold edits that no file
    /// names. Until the background check has been through it, the recovery points say so.
    private(set) var isUnknown = false

    /// Modulo 2^24, of the file that was written last; 0: there is none.
    var sequence: Int32 = 0
    /// Of `EditTotal.changes`: what is in the file, and what was there when the pass began.
    private var writtenChanges: Int64 = 0
    private var passChanges: Int64 = 0

    // MARK: - The tick

    /// The version this tick has appended last; nil when it has appended none.
    func appended(_ queue: ConsumeQueue, _ offset: QueueOffset) -> (physicalOffset: PhysicalOffset, isDeleted: Bool)? {
        appended.isEmpty ? nil : appended[Place(queue: ObjectIdentifier(queue), offset: offset)]
    }

    mutating func noteAppended(
        _ queue: ConsumeQueue, _ offset: QueueOffset, at physical: PhysicalOffset, deletes: Bool
    ) {
        appended[Place(queue: ObjectIdentifier(queue), offset: offset)] = (physical, deletes)
    }

    /// The tick is written, or has failed.
    mutating func endTick() {
        if !appended.isEmpty { appended.removeAll(keepingCapacity: true) }
    }

    /// Versions appended in this tick.
    var appendedCount: Int { appended.count }

    // MARK: - A replay

    mutating func wait(_ edit: Waiting) {
        if waiting.count < EditTotal.versionsMax { waiting.append(edit) } else { hasLeftOut = true }
    }

    /// The first of them that wait, at most so many.
    mutating func takeWaiting(_ count: Int) -> ArraySlice<Waiting> {
        defer { waiting.removeFirst(min(count, waiting.count)) }
        return waiting.prefix(count)
    }

    mutating func noteUnknown() { isUnknown = true }

    /// The background check has met all edits of the log.
    mutating func noteSearched() { isUnknown = false }

    // MARK: - The file

    mutating func beginPass() { passChanges = total.changes }

    /// What the pass covers is not in the file.
    var isWriteDue: Bool { writtenChanges < passChanges }

    var nextSequence: Int32 {
        let next = (sequence + 1) & EditFile.sequenceMask
        return next == EditFile.noFile || next == 0 ? 1 : next
    }

    /// What a recovery point says of the file.
    var pointSequence: Int32 { isUnknown ? 0 : sequence == 0 ? EditFile.noFile : sequence }

    /// The file holds all that there was at that many changes.
    mutating func noteWritten(_ sequence: Int32, changes: Int64) {
        self.sequence = sequence
        writtenChanges = changes
    }

    /// As found at the start, complete.
    mutating func noteLoaded(_ sequence: Int32) {
        self.sequence = sequence
        writtenChanges = total.changes
    }
}
