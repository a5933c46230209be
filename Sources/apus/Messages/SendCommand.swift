import ArgumentParser
import Glibc
import RocketMQClient

/// `apus send`: one message a line.
struct SendCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "send",
        abstract: "Send messages, one a line, from a file or standard input.",
        discussion: """
            The whole line is the body unless --columns says where topic, tag and key stand in it.

              echo hello | apus send --topic Greetings
              apus send --topic Words --tag en /usr/share/dict/words
              apus send --columns topic,tag,key,body orders.tsv
              apus send --columns tag,_,body --separator , --topic Log log.csv
              echo chair | apus send --topic Orders --key 4711 --property price=15 --property region=east --delay 30s
              echo chair | apus send --topic Orders --mode serial --at 2026-11-21T17:30
              apus send --topic Carts --mode queue --columns shard,body carts.tsv

            --mode creates the topic with that mode where it does not exist, and ends with an error where it has \
            another one. topic: each consumer that is online gets each message; queue: each message goes to one \
            consumer of a group; serial: the same, one message after the other, in one queue on one broker. Messages \
            with the same --shard go to the same queue.

            A message whose broker does not answer or is busy is tried again on another queue until --timeout; one \
            that was stored although its answer got lost may then be stored twice (with the same UNIQ_KEY property). \
            Messages travel in parallel, but with --mode serial and with shards one after the other, as their order \
            counts. Use --in-flight 1 --queue N where the order of other lines must be kept.

            Ends with 0 when every line was acknowledged, 1 when not, 130 after Ctrl-C. While no broker takes \
            messages (a full disk, say) it ends after one --timeout instead of trying line after line.
            """)

    @Argument(help: "File to read; standard input without it.")
    var file: String?

    @OptionGroup var server: ServerOption

    @Option(name: [.long, .short], help: "Topic of the messages.", completion: Completions.topic)
    var topic: String?

    @Option(help: "Tag of the messages.")
    var tag: String?

    @Option(help: "Key of the messages.")
    var key: String?

    @Option(name: .shortAndLong, help: ArgumentHelp("A property of the messages.", valueName: "NAME=VALUE"))
    var property: [MessagePropertyOption] = []

    @Option(help: "Deliver them only after so long: 500ms, 30s, 5m, 2h, or a number of seconds.")
    var delay: MessageDelay?

    @Option(help: "Deliver them at a time: 2026-11-21T17:30, local, or milliseconds since 1970.")
    var at: MessageTime?

    @Option(help: "Who gets a message: topic, queue or serial; creates the topic so.")
    var mode: ModeOption?

    @Option(help: "What stays together: messages of one shard go to the same queue.")
    var shard: String?

    @Option(
        help:
            """
            What the columns of a line are: topic, tag, key, shard, body, or _ to skip one. The last takes the rest of \
            the line.
            """
    )
    var columns: String?

    @OptionGroup var separated: SeparatorOption

    @Option(help: "Producer group.")
    var group = "APUS_SEND"

    @Option(help: "Send to this queue id only.")
    var queue: Int?

    @Option(help: "Queues a new topic gets.")
    var queues = 4

    @Option(help: "Messages under way at once (default: 256; 1 with --mode serial and with shards).")
    var inFlight: Int?

    @Option(help: "Seconds to go on trying a message.")
    var timeout = 10.0

    @Flag(help: "Print for each acknowledged line: line number, message id, broker, queue, offset (tab-separated).")
    var acknowledgements = false

    func validate() throws {
        guard 1...65_536 ~= inFlight ?? 1 else { throw ValidationError("--in-flight must be 1 to 65536") }
        guard timeout > 0 && timeout <= 86_400 else {
            throw ValidationError("--timeout must be above 0 and at most a day, 86400")
        }
        guard 1...1024 ~= queues else { throw ValidationError("--queues must be 1 to 1024") }
        guard !separated.text.isEmpty else { throw ValidationError("--separator must not be empty") }
        let layout = try LineLayout(columns: columns, separator: separated.text)
        guard topic != nil || layout.hasTopic else {
            throw ValidationError("give --topic, or name a topic column with --columns")
        }
        guard delay == nil || at == nil else { throw ValidationError("--delay and --at: a message has one of them") }
        guard mode == nil || topic != nil && !layout.hasTopic else {
            throw ValidationError("--mode needs one topic, given by --topic")
        }
        guard queue == nil || shard == nil && !layout.hasShard else {
            throw ValidationError("--queue and --shard: a message's shard says which queue it goes to")
        }
    }

    func run() async throws {
        let interrupt = Interrupt()
        let layout = try LineLayout(columns: columns, separator: separated.text)
        let isOrdered = mode == .serial || shard != nil || layout.hasShard
        let underWayMax = inFlight ?? (isOrdered ? 1 : 256)
        var options = Producer.Options()
        options.sendTimeout = .seconds(timeout)
        options.newTopicQueues = queues
        let selector = queue.map { QueueSelector.queueID($0) }
        let producer = try ClientFailure.ofSend(server) { () throws(RocketMQClientError) in
            try Producer(ClientSettings(nameServers: server.addresses), group: group, options: options)
        }
        if let topic, let mode {
            try await TopicMode.ensure(mode.mode, of: topic, queues: mode == .serial ? nil : queues, server)
        }
        if let topic {
            try await ClientFailure.ofSend(server) { () async throws(RocketMQClientError) in
                try await producer.checkReachable(topic: topic, selector: selector ?? .roundRobin)
            }
        }
        var lines = try LineReader(path: file)
        var progress = ProgressBar()
        var tally = SendTally(printsAcknowledgements: acknowledgements)
        let properties = Dictionary(property.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
        let delivery =
            delay.map { Message.Delivery.after(.milliseconds($0.milliseconds)) }
            ?? at.map { .at(milliseconds: $0.milliseconds) } ?? .immediate
        let start = ContinuousClock.now
        try await withThrowingTaskGroup(of: SendOutcome.self) { group in
            var underWay = 0
            var number = 0
            while let line = try lines.next(unless: interrupt) {
                number += 1
                guard var message = layout.message(line, topic: topic, tag: tag, key: key) else {
                    tally.add(.failed(line: number, reason: "the line has fewer columns than --columns names"))
                    continue
                }
                message.properties.merge(properties) { $1 }
                message.shardKey = message.shardKey ?? shard
                message.delivery = delivery
                if underWay == underWayMax, let outcome = try await group.next() {
                    tally.add(outcome)
                    underWay -= 1
                }
                // Every line that is still to come would fare the same, each after its own time.
                guard !tally.isRefused else { break }
                let (line, sent) = (number, message)
                group.addTask { await SendOutcome(of: sent, line: line, by: producer, selector, server) }
                underWay += 1
                if progress.isDue {
                    let fraction = lines.size.map { $0 == 0 ? 1 : Double(lines.consumed) / Double($0) }
                    progress.draw(
                        fraction: fraction, messages: tally.messages,
                        note: tally.failures == 0 ? "" : "  \(tally.failures) failed")
                }
            }
            while let outcome = try await group.next() {
                tally.add(outcome)
                if tally.isRefused { group.cancelAll() }
            }
        }
        progress.finish()
        tally.flush()
        let elapsed = start.duration(to: .now)
        await producer.close()
        writeToStandardError(
            "sent \(throughput(messages: tally.messages, bytes: tally.bytes, in: elapsed)), failed \(tally.failures)\n")
        if let reason = tally.refusal {
            writeToStandardError("ended before the rest was tried: no broker takes messages at present: \(reason)\n")
        }
        if interrupt.isRaised { throw ExitCode(130) }
        if tally.failures > 0 { throw ExitCode(1) }
    }
}

enum SendOutcome: Sendable {
    case stored(line: Int, size: Int, SendResult)
    /// - Parameter refusedSince: when all answers to a message stated that no broker takes any (14), the time of its
    ///   first attempt.
    case failed(line: Int, reason: String, refusedSince: ContinuousClock.Instant? = nil)

    init(
        of message: Message, line: Int, by producer: Producer, _ selector: QueueSelector?, _ server: ServerOption
    ) async {
        let start = ContinuousClock.now
        do {
            self = .stored(
                line: line, size: message.body.count,
                try await producer.send(message, selector: selector ?? message.queueSelector))
        } catch .sendAbandoned(let failure) {
            self = .failed(
                line: line, reason: ClientFailure.sendText(failure.last, server),
                refusedSince: failure.allUnavailable ? start : nil)
        } catch {
            self = .failed(line: line, reason: ClientFailure.sendText(error, server))
        }
    }
}

/// Counts and reports of the messages sent.
struct SendTally {
    private static let failuresShown = 10

    private(set) var messages = 0
    private(set) var bytes = 0
    private(set) var failures = 0
    private let printsAcknowledgements: Bool
    private var output: [UInt8] = []
    private var lastStored: ContinuousClock.Instant?
    /// Why no broker takes messages: what a message was answered that found none for all of its time, while no other
    /// message was taken either.
    private(set) var refusal: String?
    var isRefused: Bool { refusal != nil }

    init(printsAcknowledgements: Bool) {
        self.printsAcknowledgements = printsAcknowledgements
    }

    mutating func add(_ outcome: SendOutcome) {
        switch outcome {
        case .stored(let line, let size, let result):
            messages += 1
            bytes += size
            lastStored = .now
            guard printsAcknowledgements else { return }
            let queue = result.queue
            let columns =
                "\(line)\t\(result.offsetMessageID)\t\(queue.brokerName)\t\(queue.queueID)\t\(result.queueOffset)\n"
            output += Array(columns.utf8)
            // A program that reads these lines may act on them while the command runs.
            if output.count > 16 << 10 { flush() }
        case .failed(let line, let reason, let refusedSince):
            failures += 1
            if let refusedSince, lastStored.map({ $0 < refusedSince }) ?? true { refusal = refusal ?? reason }
            if failures <= Self.failuresShown {
                writeToStandardError(
                    "\(isatty(STDERR_FILENO) == 1 ? "\r\u{1B}[K" : "")line \(line) not sent: \(reason)\n")
            } else if failures == Self.failuresShown + 1 {
                writeToStandardError("more failures are only counted\n")
            }
        }
    }

    mutating func flush() {
        writeAll(output, to: STDOUT_FILENO)
        output.removeAll()
    }
}
