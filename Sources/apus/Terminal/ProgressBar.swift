import Glibc

/// A line on a terminal's standard error that shows the progress of a command; nothing when standard error is no
/// terminal.
struct ProgressBar {
    private static let interval = Duration.milliseconds(100)
    private static let width = 30

    private let isShown = isatty(STDERR_FILENO) == 1
    private let start = ContinuousClock.now
    private var lastDrawn: ContinuousClock.Instant?

    /// Whether enough time has passed to draw again: ask before computing what to draw.
    var isDue: Bool { isShown && lastDrawn.map { $0.duration(to: .now) >= Self.interval } ?? true }

    /// - Parameter fraction: 0…1, or nil when the end is not known.
    mutating func draw(fraction: Double?, messages: Int, note: String = "") {
        guard isDue else { return }
        lastDrawn = .now
        let seconds = max(start.duration(to: .now).seconds, 0.001)
        let rate = grouped(Int((Double(messages) / seconds).rounded()))
        var line = "\r\u{1B}[K"
        if let fraction {
            let filled = Int((min(1, max(0, fraction)) * Double(Self.width)).rounded())
            line += "[" + String(repeating: "█", count: filled)
            line += String(repeating: "·", count: Self.width - filled) + "] \(Int(fraction * 100)) %  "
        }
        writeToStandardError(line + "\(grouped(messages)) messages  \(rate)/s\(note)")
    }

    /// Removes the line.
    func finish() {
        if isShown, lastDrawn != nil { writeToStandardError("\r\u{1B}[K") }
    }
}

extension Duration {
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }
}

/// 1234567 → 1 234 567
func grouped(_ value: Int) -> String {
    var digits = String(value)
    var groups: [Substring] = []
    while digits.count > 3 {
        groups.insert(digits.suffix(3), at: 0)
        digits = String(digits.dropLast(3))
    }
    return ([Substring(digits)] + groups).joined(separator: " ")
}

/// What was moved in what time, in one sentence part: `104 334 messages, 985 084 bytes in 1.20 s (86 945/s, 0.8 MB/s)`.
func throughput(messages: Int, bytes: Int, in elapsed: Duration) -> String {
    let seconds = max(elapsed.seconds, 0.000_001)
    let rate = grouped(Int((Double(messages) / seconds).rounded()))
    let megabytes = (Double(bytes) / seconds / 1e5).rounded() / 10
    let shown = (seconds * 100).rounded() / 100
    let count =
        "\(grouped(messages)) message\(messages == 1 ? "" : "s"), \(grouped(bytes)) byte\(bytes == 1 ? "" : "s")"
    return "\(count) in \(shown) s (\(rate)/s, \(megabytes) MB/s)"
}
