/// Whether the store takes messages, and if not, why.
///
/// It closes when the disk is full, when a write failed and when a synchronization failed. A failed write leaves the
/// log's tail dirty: then the gate stays closed, for waiting messages too, until those bytes are zeros again.
/// Confined to the store's thread.
struct WriteGate {
    /// Why nothing is accepted; nil while the gate is open.
    private(set) var refusal: AppendRefusal?
    /// It is closed because of a threshold, while the disk still takes bytes.
    private var isThreshold = false
    /// Bytes of a failed write may lie after the log's written end: they must be zeros before anything is written.
    private(set) var tailIsDirty = false
    /// When reopening was tried last, milliseconds since 1970.
    private var lastRetryMilliseconds: Int64 = 0

    private static let retryIntervalMilliseconds: Int64 = 1000

    var isOpen: Bool { refusal == nil }

    /// Why a message is not taken, or nil.
    /// - Parameter mayUseReserve: the message may use the room beyond the disk's thresholds.
    @inline(__always)
    func refusal(mayUseReserve: Bool) -> AppendRefusal? {
        guard let refusal, !(isThreshold && mayUseReserve) else { return nil }
        assert(!(isThreshold && tailIsDirty), "nothing is written behind a dirty tail")
        return refusal
    }

    /// Takes nothing from here on.
    mutating func close(_ refusal: AppendRefusal) {
        self.refusal = refusal
        isThreshold = false
    }

    /// Takes only waiting messages from here on: the disk is fuller than a threshold but not full.
    mutating func closeAtThreshold(remark: String) {
        precondition(!tailIsDirty, "a dirty tail closes the gate for waiting messages as well")
        refusal = .diskFull(remark: remark)
        isThreshold = true
    }

    /// Takes all messages again.
    mutating func open() {
        precondition(!tailIsDirty, "nothing is taken before the log's tail is clean")
        refusal = nil
        isThreshold = false
    }

    /// A write failed, or a part of it; `close` follows.
    mutating func noteDirtyTail() {
        tailIsDirty = true
        isThreshold = false
    }

    /// Zeros follow the log's written end again.
    mutating func noteCleanTail() { tailIsDirty = false }

    /// Reopening is not tried before an interval has passed.
    mutating func begin(now: Int64) { lastRetryMilliseconds = now }

    /// Whether it is time to try reopening; once for each interval.
    mutating func isRetryDue(now: Int64) -> Bool {
        guard now - lastRetryMilliseconds >= Self.retryIntervalMilliseconds else { return false }
        lastRetryMilliseconds = now
        return true
    }
}
