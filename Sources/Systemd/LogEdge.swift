import LinuxSystem
package import Logging
import Synchronization

/// What every line passes on its way out, whichever handler writes it. Control characters are escaped and lengths
/// bounded. A source line that logs too often is suppressed, with a count. So no peer that reaches this process over
/// the network can forge a line, steer the operator's terminal or flood the journal. Any thread.
package final class LogEdge: Sendable {
    /// The one of this process.
    package static let shared = LogEdge()

    /// Bytes of a message, and of one value beside it.
    package static let messageBytesMax = 8 << 10
    /// Bytes of a metadata value at most; longer ones are cut.
    package static let valueBytesMax = 1 << 10
    /// Lines of one source line that pass in a window; debug lines are not counted.
    package static let linesMax = 100
    /// Lines are counted in windows of this length.
    package static let windowMilliseconds: Int64 = 10_000
    /// The value beside a line that counts how many like it were not written before it.
    package static let countKey = "heldBack"

    /// A line fit to be written.
    package struct Line: Sendable {
        /// Escaped; at most `messageBytesMax`.
        package var message: String
        /// Values escaped, each at most `valueBytesMax`.
        package var metadata: Logger.Metadata
    }

    /// What was suppressed of one source line.
    package struct Suppressed: Sendable {
        /// Lines since the last one that was written.
        package var count: Int
        /// The last of them.
        package var line: Line
        /// Of the last of them.
        package var level: Logger.Level
        /// Where the lines come from: file and line of this program's source.
        package var source: (file: String, line: UInt)
    }

    private struct Place: Hashable {
        let file: String
        let line: UInt
        /// The worker a line of the supervisor's is about: all its lines about workers come from one source line.
        let about: String
    }

    private struct Account {
        var windowStart: Int64
        var passed = 0
        var suppressed: Suppressed?
    }

    private let accounts = Mutex<[Place: Account]>([:])

    package init() {}

    /// The line to write for an event; nil: suppressed. A line after some that were suppressed counts them.
    package func pass(
        _ event: LogEvent, _ metadata: Logger.Metadata, now: Int64 = MonotonicClock.milliseconds
    ) -> Line? {
        let all = metadata.merging(event.metadata ?? [:], uniquingKeysWith: { $1 })
        var line = Line(
            message: PlainText.escaped("\(event.message)", bytesMax: Self.messageBytesMax),
            metadata: all.mapValues { .string(PlainText.escaped("\($0)", bytesMax: Self.valueBytesMax)) })
        guard event.level > .debug else { return line }
        return accounts.withLock { accounts -> Line? in
            let place = Place(file: event.file, line: event.line, about: all["about"].map { "\($0)" } ?? "")
            var account = accounts[place] ?? Account(windowStart: now)
            defer { accounts[place] = account }
            if now - account.windowStart >= Self.windowMilliseconds {
                account.windowStart = now
                account.passed = 0
            }
            guard account.passed < Self.linesMax else {
                let before = account.suppressed?.count ?? 0
                account.suppressed = Suppressed(
                    count: before + 1, line: line, level: event.level, source: (event.file, event.line))
                return nil
            }
            account.passed += 1
            if let suppressed = account.suppressed {
                account.suppressed = nil
                line.metadata[Self.countKey] = "\(suppressed.count)"
            }
            return line
        }
    }

    /// What was held back at places that have been silent since; to be written out and called now and then.
    package func takeSuppressed(now: Int64 = MonotonicClock.milliseconds) -> [Suppressed] {
        accounts.withLock { accounts in
            var all: [Suppressed] = []
            for (place, account) in accounts where now - account.windowStart >= Self.windowMilliseconds {
                if let suppressed = account.suppressed { all.append(suppressed) }
                accounts[place] = nil
            }
            return all
        }
    }
}
