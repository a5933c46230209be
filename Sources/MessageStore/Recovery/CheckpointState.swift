import LinuxSystem
import StoreFormat

/// When checkpoints are made, the one that is under way, and the files whose synchronization failed.
///
/// Confined to the store's thread; the checkpoint itself runs on the `flush` thread.
struct CheckpointState {
    /// A checkpoint is under way, or is being prepared.
    private(set) var isRunning = false
    private var running: (work: Checkpoint, outcome: FlushOutcome<Checkpoint.Failure>)?
    /// A soft recovery point a pass made while a checkpoint was running. It is written when that has ended: until then
    /// the soft point states that a checkpoint is under way.
    private var deferredPoint: RecoveryPoint?
    /// A pass and a checkpoint are due without waiting for their time.
    private(set) var isRequested = false
    /// What lay below was covered by the checkpoint that was tried last.
    private(set) var dispatched = PhysicalOffset(0)
    /// When that was, milliseconds since 1970.
    private var lastMilliseconds: Int64 = 0
    /// Their synchronization failed: the next checkpoint writes them again first.
    private var unverifiedFiles: [any DiskFile] = []
    /// A synchronization of the whole filesystem failed: no checkpoint of this process covers anything any more.
    private(set) var anyFileIsUnverified = false

    /// What was dispatched since the last checkpoint is dispatched again after a power cut: at most this many bytes,
    /// and what is written meanwhile.
    private static let bytesMax: Int64 = 512 << 20

    /// A synchronization has failed and what it was for has not been written again yet.
    var filesMayBeLost: Bool { anyFileIsUnverified || !unverifiedFiles.isEmpty }

    // MARK: - When

    /// The store has been opened.
    mutating func open(now: Int64, dispatched: PhysicalOffset) {
        lastMilliseconds = now
        self.dispatched = dispatched
        request()
    }

    /// The next pass begins at once, and a checkpoint follows it.
    mutating func request() { isRequested = true }

    /// Whether one is due after a pass that covered everything below `end`.
    func isDue(now: Int64, dispatched end: PhysicalOffset, _ configuration: StoreConfiguration) -> Bool {
        isRequested || now - lastMilliseconds >= Int64(configuration.flushConsumeQueueThoroughInterval)
            || end - dispatched >= Self.bytesMax
    }

    /// One is tried: the next one waits for its time.
    mutating func noteAttempt(now: Int64, dispatched end: PhysicalOffset) {
        isRequested = false
        lastMilliseconds = now
        dispatched = end
    }

    // MARK: - Running

    mutating func begin() {
        precondition(!isRunning, "one checkpoint at a time")
        isRunning = true
    }

    /// It is on its way to the `flush` thread.
    mutating func submit(_ work: Checkpoint, _ outcome: FlushOutcome<Checkpoint.Failure>) {
        precondition(isRunning && running == nil, "a checkpoint is submitted once")
        running = (work, outcome)
    }

    /// It could not be prepared, so what was synchronized and what not is not known.
    mutating func abandon() {
        precondition(running == nil, "a submitted checkpoint ends by itself")
        isRunning = false
        anyFileIsUnverified = true
    }

    /// It has ended, or its thread has.
    /// - Returns: what it was and how it ended; nil when there was none.
    mutating func end() -> (work: Checkpoint, failure: Checkpoint.Failure?)? {
        guard let (work, outcome) = running else { return nil }
        running = nil
        isRunning = false
        return (work, outcome.failure)
    }

    // MARK: - Recovery points

    /// Keeps a pass's point until the checkpoint has ended.
    mutating func deferPoint(_ point: RecoveryPoint) {
        precondition(isRunning, "a point is deferred by a checkpoint")
        deferredPoint = point
    }

    mutating func takeDeferredPoint() -> RecoveryPoint? {
        defer { deferredPoint = nil }
        return deferredPoint
    }

    // MARK: - Files

    /// The checkpoint failed: these files are written again by the next one.
    /// - Parameter files: nil when they are too many to name.
    mutating func noteUnverified(_ files: [any DiskFile]?) {
        if let files { unverifiedFiles = files } else { anyFileIsUnverified = true }
    }

    /// - Returns: what the next checkpoint writes again first.
    mutating func takeUnverified() -> [any DiskFile] {
        defer { unverifiedFiles = [] }
        return unverifiedFiles
    }
}
