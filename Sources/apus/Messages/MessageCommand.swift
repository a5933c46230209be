import ArgumentParser
import FastJSON
import LinuxSystem
import RocketMQClient

/// `apus message …`: one message.
struct MessageCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "message", abstract: "Look at one message, or change it.",
        subcommands: [
            MessageShow.self, MessageEditCommand.self, MessageCancel.self, MessageReschedule.self, MessageRetries.self,
            MessageResend.self, MessageDelete.self,
        ])
}

/// `apus message show ID [--topic T]`: what has become of a message for each group.
struct MessageShow: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Say what has become of a message for each group.",
        discussion: """
            NEW: not handed out. WAITING: its delay, timer or transaction is not over. ING: in the hands of a client. \
            SUCCESS. FAIL: to be delivered again, or a dead letter. EXPIRED. DELETED: before the group had it. For \
            groups that pop, every step is known as far back as the broker keeps it (messageTrailBytesMax); for others \
            it is read from offsets, locks, retries and dead letters.

              apus message show 7F00000100002A9F0000000000000000
              apus message show 0A2B…01 --topic orders --group billing
            """)

    @OptionGroup var server: ServerOption
    @Argument(help: "Its id: of its position, or with --topic the one its producer made.") var id: String
    @Option(
        name: .shortAndLong, parsing: .unconditional, help: ArgumentHelp("Its topic.", valueName: "NAME"),
        completion: Completions.topic)
    var topic: String?
    @Option(
        name: .shortAndLong, parsing: .unconditional, help: ArgumentHelp("This group only.", valueName: "NAME"),
        completion: Completions.group)
    var group: String?
    @Flag(help: "As a JSON object.")
    var json = false

    func run() async throws {
        try await AdminClient.using(server.addresses) { client in
            let status = try await client.status(ofMessage: id, topic: topic, group: group)
            print(json ? Self.json(status).text() : Self.lines(status).joined(separator: "\n"))
        }
    }

    /// Each fit for a terminal: names in them are what clients send.
    static func lines(_ status: MessageStatus) -> [String] {
        plainLines(status).map { PlainText.escaped($0) }
    }

    private static func plainLines(_ status: MessageStatus) -> [String] {
        let place = status.place
        var lines = ["message \(status.uniqueID ?? status.offsetMessageID)"]
        lines.append(
            "  \(place.queue.topic) queue \(place.queue.queueID) offset \(place.offset), stored "
                + AdminTime.milliseconds(status.storeTimestamp))
        if let topic = status.waitsFor {
            let until = status.waitsUntil.map { "until \(AdminTime.milliseconds($0))" } ?? "for its transaction"
            lines.append("  waits \(until), then goes to \(topic)")
        }
        if let mode = status.topicMode { lines.append("  mode of the topic: \(mode.rawValue)") }
        if status.isDeleted {
            switch status.edits.last?.action {
            case "reschedule":
                lines.append(
                    "  rescheduled: not delivered from here; it waits for its new time, or has come, under the same id")
            case "cancel": lines.append("  withdrawn: it will not be delivered")
            default: lines.append("  deleted: it is not delivered any more")
            }
        }
        for edit in status.edits { lines.append("  \(AdminTime.milliseconds(edit.at))  \(text(edit))") }
        if status.groups.isEmpty { lines.append("  no group consumes its topic") }
        for group in status.groups {
            lines.append("")
            lines.append("\(group.name) (\(group.mode)): \(state(group))")
            for step in group.trail { lines.append("  \(AdminTime.milliseconds(step.at))  \(text(step))") }
            if group.stepsLeftOut > 0 { lines.append("  \(group.stepsLeftOut) steps in between are left out") }
        }
        if status.groupsLeftOut > 0 { lines += ["", "\(status.groupsLeftOut) more groups: name one with --group"] }
        if let begins = status.trailBegins, begins > status.storeTimestamp {
            lines += ["", "steps before \(AdminTime.milliseconds(begins)) are not kept any more"]
        }
        return lines
    }

    private static func state(_ group: MessageStatus.Group) -> String {
        var text = group.state
        let until = group.until.map { AdminTime.milliseconds($0) }
        let attempts = group.attempts.map { "\($0)" } ?? "?"
        switch group.state {
        case "ING":
            text += " \(group.client ?? "a client") has it"
            if let since = group.since { text += " since \(AdminTime.milliseconds(since))" }
            if let until { text += ", until \(until)" }
            text += " (delivery \(attempts))"
        case "NEW": if let client = group.client { text += " (the queue is locked by \(client))" }
        case "UNKNOWN" where group.mode != "BROADCASTING":
            text += " (deleted, and the group is past it: which came first is not known)"
        case "WAITING": if let until { text += " until \(until)" }
        case "FAIL":
            if let letter = group.deadLetter {
                text += " dead letter \(letter.queue.topic) queue \(letter.queue.queueID) offset \(letter.offset)"
            } else if group.attempts == nil {
                text += " given up: it is not delivered to this group any more"
            } else {
                text += " retry \(attempts)"
                if let most = group.attemptsMax { text += " of \(most)" }
                text += ", due \(until ?? "now")"
            }
        default: break
        }
        return text
    }

    private static func text(_ edit: MessageStatus.Edit) -> String {
        let what =
            switch edit.action {
            case "edit": "edited"
            case "delete": "deleted"
            case "cancel": "withdrawn"
            case "reschedule": "rescheduled"
            case "retries": "deliveries set"
            default: edit.action
            }
        let changed = edit.changed.isEmpty ? "" : " (\(edit.changed.joined(separator: ", ")))"
        return "\(what) by \(edit.by)\(changed)"
    }

    private static func text(_ step: MessageStatus.Step) -> String {
        let until = step.until.map { AdminTime.milliseconds($0) } ?? "?"
        let client = step.client ?? "a client"
        return switch step.event {
        case "DELIVERED": "delivered to \(client), until \(until)"
        case "DELIVERED_AGAIN": "delivered to \(client) once more (its answer was lost), until \(until)"
        case "TAKEN_BACK": "the delivery does not count: given back, or its answer could not leave"
        case "FAILED": "\(client) has reported a failure, it comes again at \(until)"
        case "RESCHEDULED": "\(client) has it come again at \(until)"
        case "TIMED_OUT": "\(client) has not acknowledged it in time"
        case "ACKNOWLEDGED": "acknowledged by \(client)"
        case "WITHDRAWN": "taken out by the broker"
        case "FILTERED": "not wanted by the group's filter"
        case "SKIPPED": "skipped: the group's offset was set past it"
        case "RESET": "the group's offset was set back to it or before it"
        case "EXPIRED": "deleted with its log file"
        case "SENT_BACK": "sent back by a consumer, due \(until)"
        case "RETRIED": "to be pulled again"
        case "DEAD_LETTER": "became a dead letter"
        default: step.event
        }
    }

    static func json(_ status: MessageStatus) -> JSONValue {
        .fields([
            ("topic", .string(status.place.queue.topic)), ("queueId", .integer(status.place.queue.queueID)),
            ("queueOffset", .integer(status.place.offset)), ("msgId", .string(status.offsetMessageID)),
            ("uniqueKey", status.uniqueID.map { .string($0) }), ("storeTimestamp", .integer(status.storeTimestamp)),
            ("waitsFor", status.waitsFor.map { .string($0) }), ("waitsUntil", status.waitsUntil.map { .integer($0) }),
            ("topicMode", status.topicMode.map { .string($0.rawValue) }), ("version", .integer(status.version)),
            ("deleted", .bool(status.isDeleted)),
            (
                "edits",
                .array(
                    status.edits.map { edit in
                        .fields([
                            ("version", .integer(edit.version)), ("action", .string(edit.action)),
                            ("at", .integer(edit.at)), ("by", .string(edit.by)),
                            ("changed", .array(edit.changed.map { .string($0) })),
                        ])
                    })
            ),
            ("trailBegins", status.trailBegins.map { .integer($0) }), ("groups", .array(status.groups.map(json))),
        ])
    }

    private static func json(_ group: MessageStatus.Group) -> JSONValue {
        let letter = group.deadLetter.map { letter in
            JSONValue.fields([
                ("topic", .string(letter.queue.topic)), ("queueId", .integer(letter.queue.queueID)),
                ("queueOffset", .integer(letter.offset)),
            ])
        }
        return .fields([
            ("group", .string(group.name)), ("mode", .string(group.mode)), ("status", .string(group.state)),
            ("client", group.client.map { .string($0) }), ("since", group.since.map { .integer($0) }),
            ("until", group.until.map { .integer($0) }), ("attempts", group.attempts.map { .integer($0) }),
            ("attemptsMax", group.attemptsMax.map { .integer($0) }), ("deadLetter", letter),
            ("trail", .array(group.trail.map(json))), ("stepsLeftOut", .integer(group.stepsLeftOut)),
        ])
    }

    private static func json(_ step: MessageStatus.Step) -> JSONValue {
        .fields([
            ("at", .integer(step.at)), ("event", .string(step.event)), ("client", step.client.map { .string($0) }),
            ("until", step.until.map { .integer($0) }),
        ])
    }
}
