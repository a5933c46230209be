import LinuxSystem
import StoreFormat

/// What the `flush` thread does for the log, and whether its last synchronization can be trusted.
///
/// One job at a time: a flush, or the verification after a flush that failed. After a failure the kernel may call pages
/// clean that never reached the disk, so `isBroken` stays set. It is unset when everything after the flushed end has
/// been read back, written again and synchronized. Confined to the store's thread.
struct FlushState {
    /// A flush or a verification is under way.
    private(set) var isRunning = false
    /// How the flush that is under way ended; nil during a verification.
    private var outcome: FlushOutcome<SystemError>?
    /// A synchronization failed: what lies between the log's flushed and written ends is to be verified and written
    /// again.
    private(set) var isBroken = false
    /// What lies between the log's flushed end and here is written again before any synchronization counts. A
    /// synchronization of it failed, or the process that wrote it was killed before it could report that.
    private(set) var unverifiedEnd = PhysicalOffset(0)
    /// The disk has been asked to write up to here.
    private var writebackEnd = PhysicalOffset(0)
    private var isWritingBack = false
    /// When the last flush began that no producer waited for, milliseconds since 1970.
    private var lastFlushMilliseconds: Int64 = 0

    /// Bytes handed to the disk at once, without waiting for it. What a later synchronization, or the kernel at a
    /// moment of its own, has to write stays small however large the flush settings are.
    private static let writebackBytes: Int64 = 8 << 20

    // MARK: - Flushing

    /// - Parameter outcome: where a flush leaves its outcome; nil for a verification.
    mutating func begin(_ outcome: FlushOutcome<SystemError>?) {
        precondition(!isRunning, "the flush thread has one job at a time")
        isRunning = true
        self.outcome = outcome
    }

    /// The job has ended, or its thread has.
    /// - Returns: why the flush failed; nil when it did not, or when it was a verification.
    @discardableResult
    mutating func end() -> SystemError? {
        defer {
            isRunning = false
            outcome = nil
        }
        return outcome?.failure
    }

    /// A synchronization failed.
    mutating func fail() { isBroken = true }

    /// What lies below `end` is written again by the next synchronization.
    mutating func markUnverified(upTo end: PhysicalOffset) { unverifiedEnd = end }

    /// All that was unverified has been written again, synchronized and read.
    mutating func noteVerified() {
        precondition(isBroken && !isRunning, "nothing was to be verified, or it still is")
        isBroken = false
    }

    // MARK: - Time

    mutating func begin(now: Int64) { lastFlushMilliseconds = now }

    /// Whether an asynchronous flush of so many bytes is due by RocketMQ's rules.
    func isDue(now: Int64, bytes: Int64, _ configuration: StoreConfiguration) -> Bool {
        let waited = now - lastFlushMilliseconds
        let isWorthIt = bytes / 4096 >= Int64(configuration.flushCommitLogLeastPages)
        return (waited >= Int64(configuration.flushIntervalCommitLog) && isWorthIt)
            || waited >= Int64(configuration.flushCommitLogThoroughInterval)
    }

    // MARK: - Write-back

    /// The range the disk is to be asked to write; nil when it is too small or another request is under way.
    mutating func beginWriteback(flushed: PhysicalOffset, written: PhysicalOffset) -> Range<PhysicalOffset>? {
        let start = max(writebackEnd, flushed)
        guard !isWritingBack, written - start >= Self.writebackBytes else { return nil }
        isWritingBack = true
        writebackEnd = written
        return start..<written
    }

    mutating func endWriteback() { isWritingBack = false }
}
