import Glibc
import RocketMQClient

/// Standard output as the consumer's sink: whole lines in the order of delivery, and the count.
actor MessageOutput {
    private let format: MessageFormat
    private let limit: Int?
    private let onFull: @Sendable () -> Void
    private var progress = ProgressBar()
    private var lastChange = ContinuousClock.now
    private(set) var messages = 0
    private(set) var bytes = 0
    private(set) var lastMessage: ContinuousClock.Instant?
    private var isClosed = false

    /// - Parameters:
    ///   - limit: messages to write at most.
    ///   - onFull: called when the limit is reached or the reader has closed its end.
    init(format: MessageFormat, limit: Int?, onFull: @escaping @Sendable () -> Void) {
        self.format = format
        self.limit = limit
        self.onFull = onFull
    }

    /// Time without a message.
    var idle: Duration { lastChange.duration(to: .now) }

    /// Writes messages and returns how many it took: fewer than given once the limit is reached.
    func write(_ batch: [ReceivedMessage]) -> Int {
        guard !isClosed else { return 0 }
        let taken = limit.map { batch.prefix($0 - messages) } ?? batch[...]
        var lines: [UInt8] = []
        for message in taken {
            format.write(message, to: &lines)
            bytes += message.body.count
        }
        if !taken.isEmpty {
            guard writeAll(lines, to: STDOUT_FILENO) else {
                isClosed = true
                onFull()
                return 0
            }
            messages += taken.count
            lastChange = .now
            lastMessage = .now
        }
        if let limit, messages >= limit {
            isClosed = true
            onFull()
        }
        return taken.count
    }

    func drawProgress() {
        // On a terminal the messages themselves show the progress.
        guard isatty(STDOUT_FILENO) == 0 else { return }
        progress.draw(fraction: limit.map { Double(messages) / Double($0) }, messages: messages)
    }

    func finishProgress() {
        progress.finish()
    }
}
