package import Logging
package import NIOCore
package import NIOPosix

/// How long the event loop's turns take: whatever runs in one keeps all other connections waiting. A turn is what lies
/// between two looks at the kernel. It lasts from the first read of a round (`began`), or the first task, to the last
/// task. Two readings of the clock a turn.
///
/// `note` names what took long inside a turn. One line in ten seconds warns of turns above `warningAbove`, with their
/// number. Confined to the event loop that calls it: there is one in a worker.
package final class LoopTurns: NIOEventLoopMetricsDelegate, @unchecked Sendable {
    /// A turn that takes longer deserves a line.
    package static let warningAbove = TimeAmount.milliseconds(100)
    private static let warningInterval = TimeAmount.seconds(10)
    /// The last minute, in parts.
    private static let parts = 6
    private static let partLength = TimeAmount.seconds(10)

    private let logger: Logger
    private var start: NIODeadline?
    private var piece: (name: String, took: TimeAmount)?
    private var maxima = [TimeAmount](repeating: .zero, count: LoopTurns.parts)
    private var part = 0
    private var partEnds = NIODeadline.now() + LoopTurns.partLength
    private var lastWarning: NIODeadline?
    private var suppressed = 0
    private enum Phase {
        case opening
        /// The turn in which the worker began to serve, and which opened it.
        case opened
        case serving
    }

    private var phase = Phase.opening

    /// The longest turn since the start.
    package private(set) var longest = TimeAmount.zero

    /// - Parameter logger: for turns that took too long.
    package init(logger: Logger) { self.logger = logger }

    /// The longest turn of the last minute.
    package var longestOfLastMinute: TimeAmount { maxima.max() ?? .zero }

    /// For `apus status`; empty before there was a turn of a millisecond.
    package var summary: String {
        let (ever, recent) = (Self.milliseconds(longest), Self.milliseconds(longestOfLastMinute))
        return ever == 0 ? "" : "loop max \(ever) ms (\(recent) in the last minute)"
    }

    /// Rounded up from half of one.
    package static func milliseconds(_ time: TimeAmount) -> Int64 { (time.nanoseconds + 500_000) / 1_000_000 }

    /// Turns after this one count: opening a store keeps no client waiting.
    package func serve() { if phase == .opening { phase = .opened } }

    /// The first read of a round: its turn began now at the latest.
    package func began(_ time: NIODeadline) { if start == nil { start = time } }

    /// A part of this turn took so long; the longest one is named if the turn took too long.
    package func note(_ took: TimeAmount, _ name: @autoclosure () -> String) {
        if let piece = self.piece, piece.took >= took { return }
        self.piece = (name(), took)
    }

    /// NIO calls it at the end of each turn, on the event loop.
    package func processedTick(info: NIOEventLoopTickInfo) {
        turn(from: min(start ?? info.startTime, info.startTime), to: info.endTime)
    }

    func turn(from start: NIODeadline, to end: NIODeadline) {
        defer {
            self.start = nil
            piece = nil
        }
        guard phase == .serving else {
            if phase == .opened { phase = .serving }
            return
        }
        while end >= partEnds {
            part = (part + 1) % Self.parts
            maxima[part] = .zero
            // After a long sleep the parts in between are over, too.
            let isFarBehind = end - partEnds > Self.partLength * Self.parts
            if isFarBehind { maxima = [TimeAmount](repeating: .zero, count: Self.parts) }
            partEnds = isFarBehind ? end + Self.partLength : partEnds + Self.partLength
        }
        let took = end - start
        if took > maxima[part] { maxima[part] = took }
        if took > longest { longest = took }
        if took > Self.warningAbove { warn(took, end) }
    }

    private func warn(_ took: TimeAmount, _ now: NIODeadline) {
        if let lastWarning, now - lastWarning < Self.warningInterval {
            suppressed += 1
            return
        }
        let what =
            piece.map { "\($0.name) took \(Self.milliseconds($0.took)) ms of it" }
            ?? "nothing in it took long alone"
        logger.warning(
            "one turn of the event loop took \(Self.milliseconds(took)) ms, all connections waited: \(what)",
            metadata: ["suppressed": "\(suppressed)"])
        suppressed = 0
        self.lastWarning = now
    }
}
