import LinuxSystem
import MessageModel

/// How far timer messages had come when the last writer of the folder ended, as its files show. Only reads.
struct TimerStanding {
    /// Which broker delivers what lies in the folder.
    enum Follower {
        /// This broker, and it always has.
        case never
        /// Until now a master elsewhere.
        case wasOne
        /// A master elsewhere.
        case isOne
    }

    /// Another broker is taken to have delivered what was due this long before the last message was stored.
    static let deliveryLagMilliseconds: Int64 = 60_000

    let progress: TimerWheel.Progress
    /// From where in the queue messages are taken in again.
    let replayFrom: Int64
    /// Apus's own; nil before the first one.
    let checkpoint: TimerFiles.Checkpoint?

    /// - Parameters:
    ///   - progress: what was delivered, if that is known exactly.
    ///   - first: the timer queue's first offset.
    ///   - end: the one after its last.
    ///   - lastStored: when the last message of the log was stored.
    ///   - now: milliseconds since 1970. Nothing due later can have been delivered: neither a record's time nor
    ///     RocketMQ's note has a checksum. A clock that is behind has messages delivered twice; a time to come would
    ///     lose those that wait, and deliver new ones early.
    init(
        _ files: TimerFiles, progress: TimerWheel.Progress?, first: Int64, end: Int64, follower: Follower,
        lastStored: () -> Int64, now: Int64
    ) throws(SystemError) {
        checkpoint = try files.loadCheckpoint()
        var known =
            progress ?? checkpoint?.progress ?? TimerWheel.Progress(ingested: first, watermark: .lowest)
        if let floor = checkpoint?.progress, floor.watermark > known.watermark { known = floor }
        // The log may have come back shorter (power loss) or have forgotten its beginning.
        replayFrom = min(max(checkpoint?.replayFrom ?? first, first), end)
        known.ingested = min(known.ingested, end)
        if follower != .isOne {
            let apache = try files.apacheNote().map { min($0.delivered, now) }
            var elsewhere: Int64?
            if follower == .wasOne || (checkpoint == nil && progress == nil) {
                // Until now another broker has delivered: the master, or Apache in whose folder this is.
                elsewhere = apache ?? min(lastStored(), now) -| Self.deliveryLagMilliseconds
            } else if let apache, apache > known.watermark.due {
                // RocketMQ 5 has had the folder back since: it delivered what was due, and notes every second that
                // passes.
                elsewhere = apache
            }
            if let elsewhere {
                known.watermark = max(known.watermark, TimerKey(due: elsewhere, sequence: Int64.max))
                known.ingested = end
            }
        }
        self.progress = known
    }
}
