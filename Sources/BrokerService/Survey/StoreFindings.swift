import MessageModel
import WorkerProtocol

/// Whose broker is to run on the store next.
package enum StoreTarget: String, CaseIterable, Sendable {
    case apus
    case rocketMQ4 = "rocketmq4"
    case rocketMQ5 = "rocketmq5"

    /// As a person calls it.
    package var name: String {
        switch self {
        case .apus: "Apus"
        case .rocketMQ4: "RocketMQ 4.x"
        case .rocketMQ5: "RocketMQ 5.x"
        }
    }
}

/// One thing to know before a broker runs on the store.
package struct StoreFinding: Equatable, Sendable {
    /// Whether the operator has to act.
    package enum Weight: String, Sendable {
        /// Something would be lost, come twice or not start; or the operator has to decide.
        case decide
        /// Different, and nothing is lost.
        case note
    }

    /// Those to decide come first in `StoreFindings.all`.
    package let weight: Weight
    /// The brokers it concerns; at least one.
    package let targets: [StoreTarget]
    /// What was found and what follows of it, for the operator.
    package let text: String
    /// What to do, or to type, next; nil: nothing.
    package let remedy: String?
}

/// What the facts of a store mean for the broker that is to run on it. Pure.
package struct StoreFindings {
    private let report: StoreReport
    /// In the order of their weight.
    package private(set) var all: [StoreFinding] = []

    static let allTargets = StoreTarget.allCases
    private static let rocketMQ: [StoreTarget] = [.rocketMQ4, .rocketMQ5]

    package init(_ report: StoreReport) {
        self.report = report
        damage()
        tables()
        order()
        toApus()
        timers()
        edits()
        back()
        sizes()
        all = all.filter { $0.weight == .decide } + all.filter { $0.weight == .note }
    }

    /// Where the store may go from here: to Apus when RocketMQ ran on it last, back to RocketMQ when Apus did.
    package static func usualTargets(_ writer: StoreReport.Writer) -> [StoreTarget] {
        writer == .apus ? rocketMQ : [.apus]
    }

    /// Those that concern one of these.
    package func concerning(_ targets: [StoreTarget]) -> [StoreFinding] {
        all.filter { !Set($0.targets).isDisjoint(with: targets) }
    }

    mutating func decide(_ text: String, for targets: [StoreTarget] = allTargets, _ remedy: String) {
        all.append(StoreFinding(weight: .decide, targets: targets, text: text, remedy: remedy))
    }

    mutating func note(_ text: String, for targets: [StoreTarget] = allTargets, _ remedy: String? = nil) {
        all.append(StoreFinding(weight: .note, targets: targets, text: text, remedy: remedy))
    }

    // MARK: - What is not as it should be

    private mutating func damage() {
        if let evidence = report.log.emptyBeside {
            decide(
                "the log \(report.log.folder) has no message, but \(evidence): its disk is not mounted, or it lies "
                    + "elsewhere. Apus would refuse to start, RocketMQ would delete queues and index and begin at 0",
                "mount it, or name it (storePathCommitLog): apus migrate check \(report.folder) --commit-log DIR"
            )
        }
        for damage in report.log.damage {
            decide(
                "the log is damaged or not all here (of several folders in storePathCommitLog Apus reads one): "
                    + damage,
                "put the missing files into one folder, or restore them; a start reads what is whole")
        }
        if let first = report.damagedQueues.first {
            decide(
                "files of \(counted(report.damagedQueues.count, "queue")) (\(first)) do not have the size of the "
                    + "others: they are cut off, and what is missing is not counted here",
                "while nothing runs, move \(report.folder)/consumequeue away: a start builds it anew from the log")
        }
        guard !report.log.isEmpty else { return }
        let beyond = report.topics.flatMap(\.queues).filter { $0.logEnd > report.log.end }
        if let first = beyond.first {
            decide(
                "entries of \(counted(beyond.count, "queue")) point behind the log's end at \(report.log.end) "
                    + "(\(first.topic)/\(first.queueID) up to \(first.logEnd)): the newest part of the log is missing, "
                    + "and a start drops those entries",
                "restore the log's last files from where they are")
        }
    }

    private mutating func tables() {
        for table in report.tables {
            switch table.consequence {
            case .backupUsed:
                decide(
                    "config/\(table.name): \(table.problem); its .bak would be used, and what was changed after that "
                        + "is lost",
                    "look at both files, put the right one in place")
            case .entriesLeftOut:
                decide("config/\(table.name): \(table.problem)", "put them right in the file; Apus starts without them")
            case .nothingUsed:
                decide(
                    "config/\(table.name) cannot be used: \(table.problem)",
                    "restore it from a backup; without it \(Self.lost(with: table.name))")
            }
        }
        let unknown = report.topics.filter { !$0.isKnown && !Self.isSystem($0.name) && $0.messages > 0 }
        if !unknown.isEmpty {
            decide(
                "config/topics.json lacks \(counted(unknown.count, "topic")) with messages "
                    + "(\(Self.some(unknown.map(\.name)))): no client can consume them, and RocketMQ deletes their "
                    + "queues",
                "restore it, or make the topics again: mqadmin updateTopic -t \(unknown[0].name) -b BROKER"
            )
        }
    }

    private static func lost(with table: String) -> String {
        switch table {
        case "topics.json": "no client can consume the topics until they are made again"
        case "consumerOffset.json": "groups begin anew where their consumers say (consumeFromWhere)"
        case "delayOffset.json": "delayed messages come again from the log's beginning on"
        case "subscriptionGroup.json": "groups have the standard settings"
        default: "what it held is lost"
        }
    }

    /// Topics a broker keeps for itself, also without an entry in its table.
    package static func isSystem(_ topic: String) -> Bool {
        TopicNames.alwaysSystem.contains(topic) || topic.hasPrefix(TopicNames.systemPrefix)
            || topic.hasPrefix(TopicName.retryPrefix) || topic.hasPrefix(TopicName.deadLetterPrefix)
            || topic.hasSuffix("_" + TopicNames.replySuffix)
    }

    /// Whether the last broker ended in order.
    private mutating func order() {
        guard !report.isClean else { return }
        if report.writer == .apus {
            decide(
                "Apus was not stopped in order (there is a file abort): queues and offsets in the files are some "
                    + "seconds old, and what was delivered since comes twice",
                for: Self.rocketMQ,
                "start and stop it once: systemctl start apus && systemctl stop apus")
            note("Apus was not stopped in order; it recovers at its next start", for: [.apus])
        } else {
            decide(
                "RocketMQ was not stopped in order (there is a file abort): its offsets of consumers and delays are up "
                    + "to 10 s old, and what was delivered since comes twice",
                "start it and stop it in order: mqshutdown broker; or go on: Apus recovers the rest from the log")
        }
    }

    // MARK: - To Apus

    private mutating func toApus() {
        for part in report.foreign { note(part) }
        let levels = report.delays.filter { $0.delayMilliseconds == nil && $0.pending > 0 }
        if !levels.isEmpty {
            decide(
                "\(levels.reduce(0) { $0 +| $1.pending }) messages wait in delay levels beyond the standard 18 "
                    + "(\(levels.map { String($0.level) }.joined(separator: ", ")))",
                "the next broker needs the same messageDelayLevel as before; apus config import takes it over")
        }
    }

    // MARK: - Timers

    private mutating func timers() {
        let timers = report.timers
        if timers.pending > 0 {
            decide(
                "waiting for their time: \(counted(timers.pending, "timer message")); RocketMQ 4.x delivers none",
                for: [.rocketMQ4],
                "go back when the last one is delivered, or to RocketMQ 5.x")
            note(
                "waiting for their time: \(counted(timers.pending, "timer message")); Apus delivers them", for: [.apus])
        }
        if timers.onlyInApus > 0 {
            decide(
                """
                \(timers.onlyInApus) of the timer messages lie in Apus's own files alone, which RocketMQ does not read
                """,
                for: Self.rocketMQ, "let Apus deliver them first")
        }
        let inLog = timers.pending - timers.onlyInApus
        if inLog > 0 {
            note(
                "waiting for their time: \(counted(inLog, "timer message")); RocketMQ 5.x delivers them",
                for: [.rocketMQ5], "in broker.conf: timerWheelEnable=true, which is the default")
        }
        if timers.deliveredAgain > 0 {
            let remedy =
                "cd \(report.folder) && rm -rf timerwheel timerlog config/timercheck consumequeue/\(TopicNames.timer)"
            decide(
                "RocketMQ 5.x does not know which timer messages Apus has delivered: it would deliver "
                    + "\(timers.deliveredAgain) of them once more", for: [.rocketMQ5],
                timers.pending > 0
                    ? "when none wait any more, stop Apus, then: \(remedy)" : "while nothing runs: \(remedy)")
        }
    }

    // MARK: - Edits

    private mutating func edits() {
        let edits = report.edits
        if let problem = edits.problem {
            decide(
                "it is not known which messages were edited (\(problem)): RocketMQ would deliver each as it was first "
                    + "sent, also deleted ones",
                for: Self.rocketMQ,
                "start and stop Apus once, which reads it from the log: systemctl start apus && systemctl stop apus")
        }
        let outstanding = edits.changed + edits.deleted
        if outstanding > 0 {
            decide(
                "not consumed by all groups yet: \(counted(edits.changed, "edited message")), "
                    + "\(counted(edits.deleted, "deleted or withdrawn one")) (\(Self.some(edits.topics))). RocketMQ "
                    + "delivers each as it was first sent, also the deleted ones and, twice, those that were given "
                    + "another time",
                for: Self.rocketMQ,
                "let the groups consume them with Apus first (mqadmin consumerProgress -g GROUP), and delayed "
                    + "and prepared ones be delivered; or see to it that consumers take them as they were")
        }
        if edits.behind > 0 {
            note(
                "consumed by all groups: \(counted(edits.behind, "edited or deleted message")); who reads them again "
                    + "with RocketMQ (resetOffsetByTime, a new group) gets them as they were first sent",
                for: Self.rocketMQ)
        }
        if report.timers.restored > 0 {
            decide(
                "edited or given another time: \(counted(report.timers.restored, "timer message")); RocketMQ 5.x "
                    + "delivers the former ones as well, at their own times", for: [.rocketMQ5],
                "let Apus deliver them first; or see to it that consumers take them twice")
        }
    }

    // MARK: - Back to RocketMQ

    private mutating func back() {
        let uncounted = report.delays.reduce(0) { $0 +| $1.uncounted }
        if uncounted > 0 {
            decide(
                "config/delayOffset.json does not count \(counted(uncounted, "delayed message")) Apus has delivered: "
                    + "RocketMQ would deliver them again", for: Self.rocketMQ,
                "start and stop Apus once in order: systemctl start apus && systemctl stop apus")
        }
        if !report.settings.isEmpty {
            decide(
                """
                changed while Apus ran, and not in RocketMQ's broker.conf: \(counted(report.settings.count, "setting"))
                """,
                for: Self.rocketMQ,
                "write into broker.conf what shall go on: "
                    + report.settings.map { "\($0.key)=\($0.value)" }.joined(separator: ", "))
        }
        let aside = report.topics.first { $0.name == TopicNames.undeliverable }?.messages ?? 0
        if aside > 0 {
            note(
                "in \(TopicNames.undeliverable), and RocketMQ leaves it there: \(counted(aside, "message")) that could "
                    + "not be delivered",
                for: Self.rocketMQ,
                "mqadmin consumeMessage -t \(TopicNames.undeliverable) shows them, with the reason")
        }
        if report.openTransactions > 0 {
            note(
                "open: \(counted(report.openTransactions, "transaction")); the next broker asks the producers",
                "keep the producers running")
        }
        let attributes = report.topics.filter { !$0.attributes.isEmpty }.count
        if attributes > 0, report.writer != .rocketMQ4 {
            note("RocketMQ 4.x forgets the attributes of \(counted(attributes, "topic"))", for: [.rocketMQ4])
        }
        if report.ownFiles.contains(where: { $0.name == "config/deletedTopics.json" && $0.bytes > 2 }) {
            note(
                "topics were deleted whose messages lie in the log still: RocketMQ enters them again if it has to "
                    + "build queues anew",
                for: Self.rocketMQ)
        }
        if !report.ownFiles.isEmpty {
            note(
                "RocketMQ does not look at "
                    + "\(counted(report.ownFiles.count, "file or folder", plural: "files and folders")) of Apus's "
                    + "(\(Self.some(report.ownFiles.map(\.name)))); they may stay",
                for: Self.rocketMQ)
        }
        if let name = report.brokerName {
            note("the store is the one of broker \(name)", for: Self.rocketMQ, "in broker.conf: brokerName=\(name)")
        }
    }

    /// A store is only usable with the file sizes it was made with.
    private mutating func sizes() {
        var lines: [String] = []
        if report.log.fileSize > 0, report.log.fileSize != 1 << 30 {
            lines.append("mappedFileSizeCommitLog=\(report.log.fileSize)")
        }
        if report.queueFileSize > 0, report.queueFileSize != 6_000_000 {
            lines.append("mappedFileSizeConsumeQueue=\(report.queueFileSize)")
        }
        guard !lines.isEmpty else { return }
        note("the files do not have the standard sizes", "the settings need \(lines.joined(separator: ", "))")
    }

    static func some(_ names: [String]) -> String {
        names.prefix(3).joined(separator: ", ") + (names.count > 3 ? " and \(names.count - 3) more" : "")
    }
}
