import Glibc
package import Logging

/// Where log lines go: the journal with fields when this process' stderr is connected to it, readable lines on stderr
/// otherwise. Called once per process, before its first logger.
package enum Logs {
    /// What ends a program before it serves: an error in the journal (sd-daemon(3): `<3>`), plain text elsewhere; and
    /// the status of the unit, so that `systemctl status` has the reason.
    package static func fatal(_ text: String) {
        Notifier.send([.status("Failed: \(text)")])
        let mark = JournalLogHandler.isAvailable ? "<3>" : ""
        var lines = text.split(separator: "\n").map { "\(mark)\($0)\n" }.joined()
        lines.withUTF8 { _ = Glibc.write(2, $0.baseAddress, $0.count) }
    }

    /// Once in a process, before its first `Logger`: the journal under systemd, standard error elsewhere.
    package static func bootstrap(worker: String, level: Logger.Level?) {
        let level = level ?? .info
        if JournalLogHandler.isAvailable {
            LoggingSystem.bootstrap { _ in JournalLogHandler(worker: worker, level: level) }
        } else {
            LoggingSystem.bootstrap { _ in StderrLogHandler(worker: worker, level: level) }
        }
    }
    /// Logs how many lines were suppressed at source lines that log too often (`LogEdge`). To be called every second or
    /// so.
    package static func reportSuppressed(_ logger: Logger) {
        for suppressed in LogEdge.shared.takeSuppressed() {
            var metadata = suppressed.line.metadata
            metadata[LogEdge.countKey] = "\(suppressed.count)"
            logger.log(level: suppressed.level, "\(suppressed.line.message)", metadata: metadata)
        }
    }
}
