import CSystemd
import Glibc
package import Logging

/// Log lines as journal entries with fields: metadata `topic` becomes APUS_TOPIC, `consumerGroup` APUS_CONSUMER_GROUP.
/// Every entry has APUS_WORKER, so `journalctl APUS_WORKER=broker-store-0` is that worker's log over all its restarts.
package struct JournalLogHandler: LogHandler {
    /// Less important lines are not written. `Logger` compares before it calls.
    package var logLevel: Logger.Level
    /// Fields of every line of this handler.
    package var metadata: Logger.Metadata = [:]
    private let worker: String

    package init(worker: String, level: Logger.Level) {
        self.worker = worker
        logLevel = level
    }

    /// One field of `metadata`.
    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Sends one entry, which a journal that does not listen loses. See `LogEdge` for what is escaped or suppressed.
    /// Any thread.
    package func log(event: LogEvent) {
        guard let line = LogEdge.shared.pass(event, metadata) else { return }
        var fields = [
            "MESSAGE=\(JournalLogHandler.text("\(line.message)", line.metadata))", "PRIORITY=\(event.level.priority)",
            "SYSLOG_IDENTIFIER=apus",
            "APUS_WORKER=\(worker)", "CODE_FILE=\(event.file)", "CODE_LINE=\(event.line)",
            "CODE_FUNC=\(event.function)",
        ]
        for (key, value) in line.metadata {
            fields.append("\(JournalLogHandler.fieldName(key))=\(value)")
        }
        JournalLogHandler.send(fields)
    }

    /// Also in the text, for readers of the journal without its fields. The worker a line is about is named in it
    /// anyway.
    static func text(_ message: Logger.Message, _ metadata: Logger.Metadata) -> String {
        metadata.sorted { $0.key < $1.key }.filter { $0.key != "about" }
            .reduce("\(message)") { "\($0) \($1.key)=\($1.value)" }
    }

    /// `consumerGroup` → `APUS_CONSUMER_GROUP`: capitals, digits and underscores are what the journal allows; at most
    /// 64.
    package static func fieldName(_ key: String) -> String {
        var name = "APUS_"
        var previousIsLower = false
        for character in key.unicodeScalars {
            let isUpper = ("A"..."Z").contains(character)
            if isUpper && previousIsLower { name += "_" }
            previousIsLower = ("a"..."z").contains(character) || ("0"..."9").contains(character)
            name += isUpper || previousIsLower ? String(character).uppercased() : "_"
        }
        return String(name.prefix(64))
    }

    /// A journal that does not listen (it restarts) loses the line: blocking the event loop for it would be worse.
    private static func send(_ fields: [String]) {
        let bytes = fields.map { Array($0.utf8) }
        let joined = Array(bytes.joined())
        joined.withUnsafeBytes { all in
            var vectors: [iovec] = []
            var at = 0
            for field in bytes {
                let start = all.baseAddress.map { UnsafeMutableRawPointer(mutating: $0 + at) }
                vectors.append(iovec(iov_base: start, iov_len: field.count))
                at += field.count
            }
            _ = sd_journal_sendv(vectors, Int32(vectors.count))
        }
    }

    /// Whether stderr is the journal's: then the journal is there and its reader reads us.
    package static var isAvailable: Bool {
        guard let stream = getenv("JOURNAL_STREAM") else { return false }
        var status = stat()
        guard fstat(2, &status) == 0 else { return false }
        return String(cString: stream) == "\(status.st_dev):\(status.st_ino)"
    }
}

extension Logger.Level {
    /// syslog(3).
    var priority: Int {
        switch self {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}
