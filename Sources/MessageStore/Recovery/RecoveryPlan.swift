import StoreFormat

/// What recovery starts from.
struct RecoveryPlan {
    /// Queue entries of records below are trusted, and dispatch begins here.
    var trusted: PhysicalOffset
    /// Dispatch begins earlier than that because the index lags.
    var dispatchFrom: PhysicalOffset
    /// The last process ended in order.
    var wasClean = false
    /// Unsynchronized writes may be missing, in any order.
    var afterPowerLoss: Bool
    /// RocketMQ was killed and the machine has run on: all it had written exists, but for what a kill cuts in two.
    var afterRocketMQKill = false
    /// Killed in a checkpoint, which may have failed: of queues and index only what was synchronized before it counts.
    var checkpointWasUnderWay = false
    /// The last process was ours and this start of the machine's. It may have been killed after a synchronization had
    /// failed and before it could note that.
    var logIsUnverified = false
    /// We have written here, whether or not a point counts: in the first second of a store nothing of it was
    /// synchronized.
    var isOurs = false
    var point: RecoveryPoint?
    /// Below this the log was synchronized.
    var synchronized: PhysicalOffset
    /// The recovery point belongs to another log: the index is made anew, too.
    var indexIsStale = false
    /// Messages lay everywhere below this: what cannot be read there is damage, never the log's end.
    var known = PhysicalOffset(0)

    var queuesMayHaveHoles: Bool { afterPowerLoss || checkpointWasUnderWay }
}
