import Glibc
package import Logging

/// Log lines for a person at a terminal: date, time, level where it matters, worker, message, then key=value pairs.
package struct StderrLogHandler: LogHandler {
    /// Less important lines are not written. `Logger` compares before it calls.
    package var logLevel: Logger.Level
    /// Pairs behind every line of this handler.
    package var metadata: Logger.Metadata = [:]
    private let worker: String
    private let colour: Bool

    package init(worker: String, level: Logger.Level, colour: Bool = isatty(2) == 1 && getenv("NO_COLOR") == nil) {
        self.worker = worker
        self.colour = colour
        logLevel = level
    }

    /// One pair of `metadata`.
    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes one line with one write(2); see `LogEdge` for what is escaped or suppressed. Any thread.
    package func log(event: LogEvent) {
        guard let passed = LogEdge.shared.pass(event, metadata) else { return }
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let text = line(
            level: event.level, message: passed.message, metadata: passed.metadata, seconds: now.tv_sec,
            milliseconds: now.tv_nsec / 1_000_000)
        write(text)
    }

    func line(
        level: Logger.Level, message: String, metadata: Logger.Metadata, seconds: Int, milliseconds: Int
    ) -> String {
        var seconds = seconds
        var local = tm()
        localtime_r(&seconds, &local)
        let clock = [Int(local.tm_hour), Int(local.tm_min), Int(local.tm_sec)].map { padded($0, 2) }.joined(
            separator: ":")
        let date = [Int(local.tm_year) + 1900, Int(local.tm_mon) + 1, Int(local.tm_mday)].map { padded($0, 2) }
            .joined(separator: "-")
        var line = paint("\(date) \(clock).\(padded(milliseconds, 3))", dim) + " "
        line += paint(worker + String(repeating: " ", count: max(0, 14 - worker.utf8.count)), dim) + " "
        switch level {
        case .trace, .debug: line += paint("\(level) ", dim)
        case .info, .notice: break
        case .warning: line += paint("warning: ", yellow)
        case .error, .critical: line += paint("\(level): ", red)
        }
        line += message
        // The supervisor names the worker it means in its message; the key is for the journal.
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) where key != "about" {
            line += paint(" \(key)=\(value)", dim)
        }
        return line + "\n"
    }

    private var dim: String { "2" }
    private var yellow: String { "33" }
    private var red: String { "31;1" }

    private func paint(_ text: String, _ code: String) -> String { colour ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text }

    private func padded(_ number: Int, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    /// One write a line, so that lines of several processes do not mix. Without stderr there is nowhere to report it.
    private func write(_ text: String) {
        var text = text
        text.withUTF8 { _ = Glibc.write(2, $0.baseAddress, $0.count) }
    }
}
