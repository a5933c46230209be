import ArgumentParser
import Glibc
import RocketMQClient
import Supervision
import Synchronization

/// `first`, `last`, or milliseconds since 1970.
struct StartOption: ExpressibleByArgument {
    let position: StartPosition

    init?(argument: String) {
        switch argument {
        case "first": position = .first
        case "last": position = .last
        default:
            guard let milliseconds = Int64(argument), milliseconds >= 0 else { return nil }
            position = .time(milliseconds: milliseconds)
        }
    }
}

/// `apus consume`: messages to standard output, one a line.
struct ConsumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "consume",
        abstract: "Consume messages to standard output, one a line.",
        discussion: """
            Consumers of one group share the queues of the topic; when one comes or goes the others take over. \
            Offsets are committed for what was written, so the group goes on where it stopped.

            A topic with a mode (see apus send --mode) is consumed by it, and --mode does the same with any topic. \
            queue: the broker hands each message to one consumer of the group, which acknowledges it when its line \
            was written; what is not acknowledged within --hold goes to another consumer, at once after Ctrl-C. \
            serial: the same, one message after the other. topic: each consumer gets each message that is sent while \
            it is online.

              apus consume --topic Greetings
              apus consume --topic Words --tag 'en || de' --group readers --count 1000
              apus consume --topic Orders --columns tag,key,queue,offset,body --timeout 5
              apus consume --topic Orders --broadcast --from last --json
              apus consume --topic Orders --mode queue --group billing --hold 5m
              apus consume --topic Orders --expression SQL92 "price > 10 AND PLUGIN('DENYLIST', 'customer 4711')"
            """)

    @OptionGroup var server: ServerOption

    @Option(name: [.long, .short], help: "Topic.", completion: Completions.topic)
    var topic: String

    @Option(name: [.long, .short], help: "Consumer group.", completion: Completions.group)
    var group = "APUS_CONSUME"

    @Option(name: [.customLong("tag"), .customLong("filter")], help: "Tags wanted: '*', 'TagA' or 'TagA || TagB'.")
    var tag = "*"

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp(
            "Messages wanted, in the language of a filter plugin: SQL92 \"a > 5\", or a type of your own.",
            valueName: "TYPE TEXT"))
    var expression: [String] = []

    @Option(
        help: """
            Where a group without offsets starts: first, last, or milliseconds since 1970. Without this option: \
            first, or where the broker says.
            """)
    var from: StartOption?

    @Option(help: "End after so many messages.")
    var count: Int?

    @Option(help: "End when no message came for so many seconds.")
    var timeout: Double?

    @Flag(help: "Read every queue whatever other consumers do, and commit nothing.")
    var broadcast = false

    @Option(help: "Who gets a message: topic, queue or serial. Without it: as the topic says.")
    var mode: ModeOption?

    @Option(
        help: "How long a message stays with this consumer (queue, serial): 30s, 5m. Without it: as the topic says.")
    var hold: MessageDelay?

    @Option(help: "What to print: topic, tag, key, id, broker, queue, offset, time, retries, body.")
    var columns = "body"

    @OptionGroup var separated: SeparatorOption

    @Flag(help: "Print each message as a JSON object.")
    var json = false

    @Option(help: "Messages asked for in one pull.")
    var pullSize = 32

    func validate() throws {
        guard count.map({ $0 > 0 }) ?? true else { throw ValidationError("--count must be above 0") }
        guard timeout.map({ $0 > 0 && $0 <= 86_400 }) ?? true else {
            throw ValidationError("--timeout must be above 0 and at most a day, 86400")
        }
        guard [0, 2].contains(expression.count) else {
            throw ValidationError("--expression takes the type and the text: --expression SQL92 \"a > 5\"")
        }
        guard expression.isEmpty || tag == "*" else {
            throw ValidationError("--tag and --expression: a consumer has one of them; in SQL92 the tag is called TAGS")
        }
        guard 1...1024 ~= pullSize else { throw ValidationError("--pull-size must be 1 to 1024") }
        guard mode == nil || !broadcast else {
            throw ValidationError("--mode and --broadcast: --mode topic is a broadcast that begins at the end")
        }
        guard hold == nil || mode != .topic && !broadcast else {
            throw ValidationError("--hold: each consumer of a broadcast gets all messages, and holds none back")
        }
        guard hold.map({ 1000...86_400_000 ~= $0.milliseconds }) ?? true else {
            throw ValidationError("--hold must be 1s to 24h")
        }
    }

    func run() async throws {
        let format = try MessageFormat(columns: columns, separator: separated.text, json: json)
        let subscription =
            expression.isEmpty
            ? Subscription(topic: topic, tags: tag)
            : Subscription(topic: topic, type: expression[0], expression: expression[1])
        let (stops, stop) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let interrupt = Interrupt { stop.yield() }
        let output = MessageOutput(format: format, limit: count) { stop.yield() }
        let trouble = ConsumeTrouble { stop.yield() }
        let mode = try await topicMode()
        guard hold == nil || mode == .queue || mode == .serial else {
            throw CommandFailure(
                "--hold: topic '\(topic)' has \(mode == nil ? "no mode" : "mode topic"), and its consumers hold "
                    + "no message back from others; consume it with --mode queue, or without --hold")
        }
        let consumer: any LineConsumer = try ClientFailure.ofConsume(topic, server) { () throws(RocketMQClientError) in
            if mode == .queue || mode == .serial {
                return PopLoop(
                    try PopConsumer(
                        settings, group: group, subscriptions: [subscription], options: popOptions(mode),
                        onEvent: { trouble.note($0) }), of: topic, output, trouble)
            }
            return try PushConsumer(
                settings, group: group, subscriptions: [subscription], options: options(mode),
                onEvent: { trouble.note($0) },
                handler: { messages in
                    let written = await output.write(messages)
                    return written == messages.count ? .success : .stop(consumed: written)
                })
        }
        let start = ContinuousClock.now
        try await ClientFailure.ofConsume(topic, server) { () async throws(RocketMQClientError) in
            try await consumer.start()
        }
        let idle = timeout
        let watch = Task {
            while !Task.isCancelled {
                try await Task.sleep(for: .milliseconds(50))
                if let idle, await output.idle > .seconds(idle) {
                    stop.yield()
                    return
                }
                await output.drawProgress()
            }
        }
        for await _ in stops { break }
        watch.cancel()
        trouble.ends()
        await consumer.close()
        await output.finishProgress()
        let (messages, bytes) = await (output.messages, output.bytes)
        if isatty(STDOUT_FILENO) == 0 || isatty(STDERR_FILENO) == 1 {
            let time = start.duration(to: await output.lastMessage ?? .now)
            writeToStandardError("consumed \(throughput(messages: messages, bytes: bytes, in: time))\n")
        }
        if let failure = trouble.failure { throw failure }
        if interrupt.isRaised { throw ExitCode(130) }
        if let count, messages < count { throw ExitCode(1) }
    }
}

extension ConsumeCommand {
    /// The client's settings: `apus admin consumerStatus` shows the version.
    fileprivate var settings: ClientSettings {
        var settings = ClientSettings(nameServers: server.addresses)
        settings.clientID = "127.0.0.1@\(getpid())#\(WallClock.milliseconds)"
        settings.clientVersion = "apus \(ApusRelease.version)"
        return settings
    }

    /// The mode wanted, or the topic's; nil: it has none, and is pulled.
    fileprivate func topicMode() async throws(CommandFailure) -> DeliveryMode? {
        guard !broadcast else { return nil }
        return try await ClientFailure.ofConsume(topic, server) { () async throws(RocketMQClientError) in
            let client = try AdminClient(settings)
            do throws(RocketMQClientError) {
                let found: DeliveryMode?
                if let mode {
                    found = try await client.connections.mode(of: topic, wanted: mode.mode)
                } else {
                    // Who cannot be asked is asked again by the consumer.
                    found = (try? await client.policy(of: topic))?.mode
                }
                await client.close()
                return found
            } catch {
                await client.close()
                throw error
            }
        }
    }

    fileprivate func popOptions(_ mode: DeliveryMode?) -> PopConsumer.Options {
        var options = PopConsumer.Options()
        options.isOrdered = mode == .serial
        options.heldMax = mode == .serial ? 1 : pullSize
        options.takenMax = count
        options.timeout = hold.map { .milliseconds($0.milliseconds) }
        options.start = from?.position
        return options
    }

    /// One message after the other, in the order of each queue: lines are written by one writer.
    fileprivate func options(_ mode: DeliveryMode?) -> PushConsumer.Options {
        var options = PushConsumer.Options()
        options.model = broadcast || mode == .topic ? .broadcasting : .clustering
        options.order = .concurrent(1)
        options.start = from?.position ?? (mode == .topic ? .last : nil)
        options.pullBatchSize = pullSize
        options.consumeBatchSize = pullSize
        options.waitingMessagesMax = pullSize
        return options
    }
}

/// What went wrong while consuming: each trouble is shown once, a lasting one ends the command.
final class ConsumeTrouble: Sendable {
    private struct State {
        var shown: Set<String> = []
        var failure: CommandFailure?
        var isEnding = false
    }

    private let state = Mutex(State())
    private let onFailure: @Sendable () -> Void

    init(onFailure: @escaping @Sendable () -> Void) { self.onFailure = onFailure }

    var failure: CommandFailure? { state.withLock { $0.failure } }

    /// Connections close from now on; that is no trouble.
    func ends() { state.withLock { $0.isEnding = true } }

    func note(_ event: ConsumerEvent) {
        switch event {
        case .assigned: break
        case .warning(let text):
            let isNew = state.withLock { state in
                !state.isEnding && state.shown.count < 20 && state.shown.insert(text).inserted
            }
            guard isNew else { return }
            writeToStandardError("\(isatty(STDERR_FILENO) == 1 ? "\r\u{1B}[K" : "")\(text)\n")
        // One broker of several: where none can do it, the consumer ends by itself.
        case .failed(_, .notSupported(let text)): note(.warning(text))
        case .failed(let queue, let error):
            let place = queue.queueID < 0 ? "topic '\(queue.topic)' of broker \(queue.brokerName)" : "\(queue)"
            fail("\(place) cannot be consumed: \(error.reason)")
        }
    }

    /// The command ends.
    func fail(_ text: String) {
        state.withLock { $0.failure = $0.failure ?? CommandFailure(text) }
        onFailure()
    }
}
