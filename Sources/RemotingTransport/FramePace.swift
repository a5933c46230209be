import NIOCore

/// Times a frame that has memory reserved while others wait for memory.
struct FramePace {
    /// Bytes of the connection and the time, as of the last look.
    private var progress = (at: NIODeadline.now(), bytes: 0)
    /// Since when the frame is timed, bytes of the connection then, and bytes of the frame that were to come.
    private var schedule = (from: NIODeadline.now(), bytes: 0, rest: 0)

    var isTimedFrom: NIODeadline { schedule.from }

    /// What has come until now does not count.
    ///
    /// - Parameters:
    ///   - bytes: that have come over the connection.
    ///   - rest: bytes of the frame that have not.
    mutating func restart(at now: NIODeadline, bytes: Int, rest: Int) {
        progress = (now, bytes)
        schedule = (now, bytes, max(0, rest))
    }

    /// Less than the least has come since the last look, or the frame will not be complete in time.
    mutating func isTooSlow(at now: NIODeadline, bytes: Int, _ configuration: RemotingServerConfiguration) -> Bool {
        let late = (now - schedule.from - configuration.trickleTime).seconds
        let due = Double(schedule.rest) * late / configuration.contendedFrameTime.seconds
        if Double(bytes - schedule.bytes) < due { return true }
        let watched = now - progress.at
        guard watched >= configuration.trickleTime else { return false }
        let came = bytes - progress.bytes
        progress = (now, bytes)
        return Double(came) < Double(configuration.trickleBytesPerSecond) * watched.seconds
    }
}

extension TimeAmount {
    fileprivate var seconds: Double { Double(nanoseconds) / 1e9 }
}
