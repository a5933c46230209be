import BrokerService
import FastJSON
import MessageModel
import WorkerProtocol

/// What `apus migrate check` shows of a store: lines for a terminal of 100 columns, or JSON.
struct MigratePage {
    /// Columns of a terminal.
    static let width = 100

    let report: StoreReport
    let targets: [StoreTarget]
    private let findings: [StoreFinding]

    init(_ report: StoreReport, _ targets: [StoreTarget]) {
        self.report = report
        self.targets = targets
        findings = StoreFindings(report).concerning(targets)
    }

    /// Nothing has to be decided first.
    var canMove: Bool { !findings.contains { $0.weight == .decide } }

    // MARK: - Lines

    func lines(byQueue: Bool) -> [String] {
        heading + topics(byQueue: byQueue) + groups + waiting + verdicts
    }

    private var heading: [String] {
        let log = report.log
        let writer =
            switch report.writer {
            case .noBroker: "no broker"
            case .apus: StoreTarget.apus.name
            case .rocketMQ4: StoreTarget.rocketMQ4.name
            case .rocketMQ5: StoreTarget.rocketMQ5.name
            }
        let content =
            log.isEmpty
            ? "no message"
            : "offsets \(log.first) to \(log.end), newest message \(AdminTime.seconds(log.newestMilliseconds))"
        var lines = ["store \(report.folder)"]
        lines += Self.wrapped("  last run by  ", "\(writer) (\(report.writerSign))")
        lines.append("  stopped      " + (report.isClean ? "in order" : "not in order (there is a file abort)"))
        lines += Self.wrapped("  log          ", "\(content); \(counted(log.files, "file")) of \(log.fileSize) bytes")
        if log.unqueued > 0 { lines.append("               \(counted(log.unqueued, "message")) in no queue yet") }
        return lines
    }

    private func topics(byQueue: Bool) -> [String] {
        let shown = report.topics.filter { $0.messages > 0 }
        let empty = report.topics.filter { $0.messages == 0 && !StoreFindings.isSystem($0.name) }.count
        guard !shown.isEmpty else { return ["", "no message in \(counted(empty, "topic"))"] }
        let columns = Columns("%-44s %8s %12s %14s %14s")
        var lines = ["", columns.line("TOPIC", byQueue ? "QUEUE" : "QUEUES", "MESSAGES", "FIRST", "END")]
        for topic in shown {
            if byQueue {
                for queue in topic.queues {
                    lines.append(
                        columns.line(
                            topic.name, String(queue.queueID), String(max(0, queue.end - queue.first)),
                            String(queue.first), String(queue.end)))
                }
            } else {
                lines.append(
                    columns.line(
                        topic.name, String(topic.queues.count), String(topic.messages),
                        topic.queues.map(\.first).min().map { String($0) } ?? "-",
                        topic.queues.map(\.end).max().map { String($0) } ?? "-"))
            }
        }
        if empty > 0 { lines.append("and \(counted(empty, "topic")) without a message") }
        return lines
    }

    private var groups: [String] {
        var lines: [String] = []
        let shown = report.progress.filter { !$0.topic.hasPrefix(TopicName.retryPrefix) }
        if !shown.isEmpty {
            let columns = Columns("%-36s %-36s %12s %12s")
            lines += ["", columns.line("GROUP", "TOPIC", "LAG", "NO OFFSET")]
            for group in shown {
                lines.append(
                    columns.line(
                        group.group, group.topic, String(group.lag),
                        group.queuesWithout == 0 ? "-" : counted(group.queuesWithout, "queue")))
            }
        }
        if !report.returned.isEmpty {
            let columns = Columns("%-73s %12s %12s")
            lines += ["", columns.line("GROUP", "RETRIES", "DEAD LETTERS")]
            for group in report.returned {
                lines.append(columns.line(group.group, String(group.retries), String(group.deadLetters)))
            }
        }
        return lines
    }

    private var waiting: [String] {
        var lines = [""]
        let delays = report.delays.filter { $0.pending > 0 }
        lines += Self.wrapped(
            "delayed       ",
            delays.isEmpty
                ? "none waits"
                : delays.map { "\($0.pending) in level \($0.level)\(Self.shown($0.delayMilliseconds))" }
                    .joined(separator: ", "))
        let timers = report.timers
        lines += Self.wrapped(
            "timers        ",
            timers.pending == 0
                ? "none waits"
                : "\(timers.pending) wait, due \(AdminTime.seconds(timers.firstDueMilliseconds)) to "
                    + AdminTime.seconds(timers.lastDueMilliseconds))
        let edits = report.edits
        let editedCount = edits.changed + edits.deleted + edits.behind
        if editedCount > 0 {
            lines += Self.wrapped(
                "edited        ",
                "\(counted(editedCount, "message")), \(edits.behind) of them consumed by all groups")
        }
        lines.append(
            "transactions  " + (report.openTransactions == 0 ? "none is open" : "\(report.openTransactions) are open"))
        if !report.settings.isEmpty {
            lines += Self.wrapped(
                "set online    ", report.settings.map { "\($0.key)=\($0.value)" }.joined(separator: ", "))
        }
        return lines
    }

    private static func shown(_ milliseconds: Int64?) -> String {
        guard let seconds = milliseconds.map({ $0 / 1000 }) else { return "" }
        if seconds % 3600 == 0 { return " (\(seconds / 3600) h)" }
        return seconds % 60 == 0 ? " (\(seconds / 60) min)" : " (\(seconds) s)"
    }

    private var verdicts: [String] {
        let names = targets.map(\.name).joined(separator: " or ")
        var lines = [""]
        for finding in findings {
            let whom = finding.targets.filter { targets.contains($0) }
            // What concerns one of two only names it.
            let isNamed = whom.count != 1 || finding.text.contains(whom[0].name)
            let prefix = targets.count > 1 && !isNamed ? "\(whom[0].name): " : ""
            lines += Self.wrapped(finding.weight == .decide ? "! " : "- ", prefix + finding.text)
            if let remedy = finding.remedy { lines += Self.wrapped("    → ", remedy) }
        }
        let count = findings.count { $0.weight == .decide }
        lines.append(
            count == 0
                ? "to \(names): all of it can move"
                : "to \(names): \(counted(count, "thing")) to decide first, marked with !")
        return lines
    }

    /// Broken at blanks; the lines that follow are indented like the first one's text.
    static func wrapped(_ heading: String, _ text: String) -> [String] {
        let indent = String(repeating: " ", count: heading.count)
        var lines: [String] = []
        var line = heading
        var isEmpty = true
        for word in text.split(separator: " ") {
            if !isEmpty, line.count + 1 + word.count > width {
                lines.append(line)
                line = indent
                isEmpty = true
            }
            line += (isEmpty ? "" : " ") + word
            isEmpty = false
        }
        return lines + [line]
    }

    // MARK: - JSON

    var json: JSONValue {
        .fields([
            ("store", .string(report.folder)),
            (
                "lastRunBy",
                .fields([
                    ("writer", .string(report.writer.rawValue)), ("sign", .string(report.writerSign)),
                    ("stoppedInOrder", .bool(report.isClean)),
                ])
            ),
            ("log", log), ("topics", .array(report.topics.map(Self.json))),
            ("groups", .array(report.progress.map(Self.json))),
            (
                "returned",
                .array(
                    report.returned.map {
                        .fields([
                            ("group", .string($0.group)), ("retries", .integer($0.retries)),
                            ("deadLetters", .integer($0.deadLetters)),
                        ])
                    })
            ),
            (
                "delays",
                .array(
                    report.delays.map {
                        .fields([("level", .integer($0.level)), ("pending", .integer($0.pending))])
                    })
            ),
            ("timers", timers),
            (
                "edits",
                .fields([
                    ("changed", .integer(report.edits.changed)), ("deleted", .integer(report.edits.deleted)),
                    ("behind", .integer(report.edits.behind)), ("topics", .strings(report.edits.topics)),
                ])
            ), ("openTransactions", .integer(report.openTransactions)),
            (
                "settings",
                .array(
                    report.settings.map {
                        .fields([
                            ("key", .string($0.key)), ("value", .string($0.value)),
                            ("file", $0.file.map { .string($0) }),
                        ])
                    })
            ),
            (
                "ownFiles",
                .array(
                    report.ownFiles.map {
                        .fields([
                            ("name", .string($0.name)), ("bytes", .integer($0.bytes)), ("meaning", .string($0.meaning)),
                        ])
                    })
            ),
            ("to", .strings(targets.map(\.rawValue))), ("findings", .array(findings.map(Self.json))),
            ("canMove", .bool(canMove)),
        ])
    }

    private var log: JSONValue {
        .fields([
            ("folder", .string(report.log.folder)), ("files", .integer(report.log.files)),
            ("fileSize", .integer(report.log.fileSize)), ("first", .integer(report.log.first)),
            ("end", .integer(report.log.end)), ("newest", .integer(report.log.newestMilliseconds)),
            ("unqueued", .integer(report.log.unqueued)), ("isEmpty", .bool(report.log.isEmpty)),
        ])
    }

    private var timers: JSONValue {
        .fields([
            ("pending", .integer(report.timers.pending)), ("firstDue", .integer(report.timers.firstDueMilliseconds)),
            ("lastDue", .integer(report.timers.lastDueMilliseconds)),
            ("onlyInApus", .integer(report.timers.onlyInApus)),
            ("deliveredAgain", .integer(report.timers.deliveredAgain)),
            ("restored", .integer(report.timers.restored)),
        ])
    }

    private static func json(_ topic: StoreReport.Topic) -> JSONValue {
        .fields([
            ("topic", .string(topic.name)), ("messages", .integer(topic.messages)), ("isKnown", .bool(topic.isKnown)),
            (
                "queues",
                .array(
                    topic.queues.map {
                        .fields([
                            ("queue", .integer($0.queueID)), ("first", .integer($0.first)), ("end", .integer($0.end)),
                        ])
                    })
            ),
        ])
    }

    private static func json(_ group: StoreReport.Progress) -> JSONValue {
        var offsets = JSONObject()
        for (queue, offset) in group.offsets.sorted(by: { $0.key < $1.key }) {
            offsets.append(String(queue), .integer(offset))
        }
        return .fields([
            ("group", .string(group.group)), ("topic", .string(group.topic)), ("lag", .integer(group.lag)),
            ("queuesWithoutOffset", .integer(group.queuesWithout)), ("offsets", .object(offsets)),
        ])
    }

    private static func json(_ finding: StoreFinding) -> JSONValue {
        .fields([
            ("weight", .string(finding.weight.rawValue)), ("for", .strings(finding.targets.map(\.rawValue))),
            ("text", .string(finding.text)), ("remedy", finding.remedy.map { .string($0) }),
        ])
    }
}
