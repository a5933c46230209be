import ArgumentParser
import FastJSON
import Glibc
import LinuxSystem
import RocketMQClient

/// The message that is to be edited, and who asks.
struct EditedMessageOptions: ParsableArguments {
    @OptionGroup var server: ServerOption
    @Argument(help: "Its id: of its position, or with --topic the one its producer made.") var id: String
    @Option(
        name: .shortAndLong, parsing: .unconditional, help: ArgumentHelp("Its topic.", valueName: "NAME"),
        completion: Completions.topic)
    var topic: String?
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Who asks, for the message's trail; at most 64 bytes.", valueName: "NAME"))
    var by: String = EditedMessageOptions.user
    @Option(
        name: .customLong("if-version"), parsing: .unconditional,
        help: ArgumentHelp("Refuse if another version stands for it (apus message show).", valueName: "N"))
    var version: Int64?
    @Flag(help: "As a JSON object.")
    var json = false

    /// Who is logged in.
    static var user: String {
        let name = getenv("USER").map { String(cString: $0) } ?? ""
        return name.isEmpty ? "uid \(getuid())" : name
    }

    func carryOut(_ operation: MessageEdit.Operation, _ adjust: (inout MessageEdit) -> Void = { _ in }) async throws {
        var edit = MessageEdit(operation, by: by)
        edit.version = version
        adjust(&edit)
        let wanted = edit
        try await AdminClient.using(server.addresses) { client in
            let edited = try await client.edit(message: id, topic: topic, wanted)
            print(json ? Self.json(edited).text() : Self.lines(wanted, edited).joined(separator: "\n"))
        }
    }

    /// Each fit for a terminal.
    static func lines(_ edit: MessageEdit, _ edited: EditedMessage) -> [String] {
        let place = "\(edited.place.queue.topic) queue \(edited.place.queue.queueID) offset \(edited.place.offset)"
        let until = edited.deliverAt.map { "; it waits until \(AdminTime.milliseconds($0))" } ?? ""
        var lines: [String]
        switch edit.operation {
        case .edit: lines = ["edited: version \(edited.version) at \(place)\(until)"]
        case .retries(let count): lines = ["\(count) deliveries count as made: version \(edited.version) at \(place)"]
        case .cancel: lines = ["withdrawn: it will not be delivered"]
        case .delete: lines = ["deleted: it will not be delivered"]
        case .reschedule: lines = ["rescheduled\(until)"]
        case .resend: lines = ["sent once more, as \(edited.uniqueID ?? edited.offsetMessageID) to \(place)"]
        }
        if !edited.consumedBy.isEmpty {
            lines.append(
                "consumed already by \(edited.consumedBy.joined(separator: ", "))"
                    + (edited.consumedByLeftOut > 0 ? " and \(edited.consumedByLeftOut) more" : "")
                    + ": these groups notice nothing of it")
        }
        switch edited.status {
        case .ok: break
        case .flushDiskTimeout: lines.append("it is stored, and not confirmed on disk: a power cut could undo it")
        case .flushSlaveTimeout, .slaveNotAvailable:
            lines.append("it is stored, and not confirmed by a slave (\(edited.status.rawValue))")
        }
        return lines.map { PlainText.escaped($0) }
    }

    static func json(_ edited: EditedMessage) -> JSONValue {
        .fields([
            ("version", .integer(edited.version)), ("topic", .string(edited.place.queue.topic)),
            ("queueId", .integer(edited.place.queue.queueID)), ("queueOffset", .integer(edited.place.offset)),
            ("msgId", .string(edited.offsetMessageID)), ("uniqueKey", edited.uniqueID.map { .string($0) }),
            ("deliverAt", edited.deliverAt.map { .integer($0) }),
            ("consumedBy", .array(edited.consumedBy.map { .string($0) })),
            ("consumedByLeftOut", edited.consumedByLeftOut > 0 ? .integer(edited.consumedByLeftOut) : nil),
            ("status", .string(edited.status.rawValue)),
        ])
    }
}

/// Other content.
struct EditedContentOptions: ParsableArguments {
    @Option(parsing: .unconditional, help: ArgumentHelp("Its new body.", valueName: "TEXT"))
    var body: String?
    @Option(parsing: .unconditional, help: ArgumentHelp("Its new tag; '' for none.", valueName: "TAG"))
    var tags: String?
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Its new keys, separated by blanks; '' for none.", valueName: "KEYS"))
    var keys: String?
    @Option(help: ArgumentHelp("A property that is set; several times.", valueName: "NAME=VALUE"))
    var property: [MessagePropertyOption] = []

    var isEmpty: Bool { body == nil && tags == nil && keys == nil && property.isEmpty }

    func put(into edit: inout MessageEdit) {
        edit.body = body.map { Array($0.utf8) }
        edit.tags = tags
        edit.keys = keys
        for property in property { edit.properties[property.name] = property.value }
    }
}

/// `apus message edit ID …`
struct MessageEditCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "edit", abstract: "Give a message other content.",
        discussion: """
            Groups that have not consumed it get the new version, under the same id and at the same place; those that \
            have, notice nothing. Refused while a client has it. Waiting messages are edited where they wait. Brokers \
            of RocketMQ deliver what was first sent.

              apus message edit 0A2B…01 --topic orders --body '{"amount": 12}'
              apus message edit 0A2B…01 --topic orders --tags paid --property region=eu --by alice
            """)

    @OptionGroup var message: EditedMessageOptions
    @OptionGroup var content: EditedContentOptions

    func validate() throws {
        guard !content.isEmpty else {
            throw ValidationError("say what is to be changed: --body, --tags, --keys or --property NAME=VALUE")
        }
    }

    func run() async throws { try await message.carryOut(.edit) { content.put(into: &$0) } }
}

/// `apus message cancel ID …`
struct MessageCancel: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Withdraw a message that waits for its time or its transaction.",
        discussion: """
            A delayed, timer or prepared message is not delivered then. A transaction counts as rolled back.

              apus message cancel 0A2B…01 --topic orders
            """)

    @OptionGroup var message: EditedMessageOptions

    func run() async throws { try await message.carryOut(.cancel) }
}

/// `apus message delete ID …`
struct MessageDelete: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Have a message not delivered any more.",
        discussion: """
            For groups that have not consumed it. Refused while a client has it. Brokers of RocketMQ that take the \
            store over would deliver it.

              apus message delete 0A2B…01 --topic orders
            """)

    @OptionGroup var message: EditedMessageOptions

    func run() async throws { try await message.carryOut(.delete) }
}

/// `apus message reschedule ID …`
struct MessageReschedule: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reschedule", abstract: "Have a message delivered at another time.",
        discussion: """
            It is withdrawn where it is and waits as a timer message, with the same id (UNIQ_KEY). A stored message \
            goes to the end of its queue when its time has come.

              apus message reschedule 0A2B…01 --topic orders --in 2h
              apus message reschedule 0A2B…01 --topic orders --at 2026-12-24#18:00:00:000
            """)

    @OptionGroup var message: EditedMessageOptions
    @Option(
        name: .customLong("in"), parsing: .unconditional,
        help: ArgumentHelp("So long from now on: 30s, 5m, 2h, 1d.", valueName: "TIME"))
    var delay: MessageDelay?
    @Option(
        name: .customLong("at"), parsing: .unconditional,
        help: ArgumentHelp(
            "At that local time, 2026-12-24#18:00:00:000, or milliseconds since 1970.", valueName: "TIME"))
    var time: String?

    func validate() throws {
        guard (delay == nil) != (time == nil) else { throw ValidationError("say when: either --in or --at") }
        if let time, AdminTime.parse(time) == nil {
            throw ValidationError(
                "'\(time)' is no time: write 2026-12-24#18:00:00:000, or milliseconds since 1970")
        }
    }

    func run() async throws {
        let at = time.flatMap { AdminTime.parse($0) } ?? WallClock.milliseconds + (delay?.milliseconds ?? 0)
        try await message.carryOut(.reschedule(at: at))
    }
}

/// `apus message retries ID …`
struct MessageRetries: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retries", abstract: "Set how many deliveries of a message count as made.",
        discussion: """
            A group that pulls gives a message up after its retryMaxTimes: 0 allows all of them again. Name the copy \
            that waits in the retry topic, as apus message show lists it. Refused for groups that pop: they count in \
            their claims.

              apus message retries 7F00000100002A9F0000000000000000 --count 0
            """)

    @OptionGroup var message: EditedMessageOptions
    @Option(parsing: .unconditional, help: ArgumentHelp("From 0 on.", valueName: "N"))
    var count: Int32

    func validate() throws {
        guard count >= 0 else { throw ValidationError("--count begins at 0") }
    }

    func run() async throws { try await message.carryOut(.retries(count)) }
}

/// `apus message resend ID …`
struct MessageResend: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resend", abstract: "Send a message once more, with a new id.",
        discussion: """
            Any stored message, also a consumed one, but no prepared one. A dead letter goes to the topic it came \
            from. The property APUS_RESENT_FROM names the first one; --body and others change the new one.

              apus message resend 0A2B…01 --topic orders
              apus message resend 7F00000100002A9F0000000000000000 --body fixed
            """)

    @OptionGroup var message: EditedMessageOptions
    @OptionGroup var content: EditedContentOptions

    func run() async throws { try await message.carryOut(.resend) { content.put(into: &$0) } }
}
