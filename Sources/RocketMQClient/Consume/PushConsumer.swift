import FastJSON
import RemotingProtocol

/// A member of a consumer group. It takes its share of the queues and pulls them with long polling. It hands the
/// messages to the handler and commits what was consumed. Every message is handed out at least once.
public actor PushConsumer {
    /// Consumes messages of one queue, in order, one at least. Called in tasks of the consumer's own.
    public typealias Handler = @Sendable ([ReceivedMessage]) async -> ConsumeResult

    /// How long a broker's lock on a queue is trusted; the broker itself gives it away after twice the time.
    static let lockValidity = Duration.seconds(30)
    static let lockInterval = Duration.seconds(20)
    static let pauseAfterRefusal = Duration.seconds(5)
    static let pauseBeforeNewAttempt = Duration.seconds(5)
    /// By how much a broker's clock may be behind, milliseconds.
    static let clockSlack: Int64 = 5000

    /// The consumer group.
    public nonisolated let group: String
    /// What brokers call this member.
    public nonisolated let clientID: String
    let options: Options
    let handler: Handler
    let onEvent: @Sendable (ConsumerEvent) -> Void
    let connections: ServerConnections
    let access: QueueAccess
    let retryTopic: String
    let runningInfo: ConsumerRunningInfo
    let notices: AsyncStream<Notice>
    let notice: AsyncStream<Notice>.Continuation

    var subscriptions: [Subscription]
    var possessions: [MessageQueue: Possession] = [:]
    /// Ordered queues given up whose handler still runs.
    var releasing: Set<MessageQueue> = []
    var work = WorkQueue()
    var running = 0
    var whenIdle: CheckedContinuation<Void, Never>?
    var tasks: [Task<Void, Never>] = []
    var isClosing = false
    var hasStarted = false
    /// Milliseconds since 1970, by this machine's clock.
    var startedAt: Int64 = 0
    var isRebalancing = false
    var mustRebalanceAgain = false
    var broadcastOffsets = BroadcastOffsets()
    /// Pauses between questions for the retry topic, which a broker creates at a new group's first heartbeat.
    var retryTopicBackOff = BackOff(first: .seconds(1), longest: .seconds(60))

    enum Notice: Sendable {
        case membersChanged
        case reset([MessageQueue: Int64])
    }

    /// A queue of this member's, from taking it to giving it up.
    final class Possession {
        let queue: MessageQueue
        let subscription: Subscription?
        var window: OffsetWindow?
        var committed: Int64?
        /// The offset that the last pull has brought along.
        var committedByPull: Int64?
        var isDropped = false
        /// The handler takes no more of this queue.
        var isStopped = false
        var waitingBytes = 0
        /// The handler's calls that run.
        var running = 0
        var task: Task<Void, Never>?
        var whenRoom: CheckedContinuation<Void, Never>?
        /// The server to pull from.
        var brokerID: Int64 = 0
        /// Messages stored before are not handed out; milliseconds since 1970.
        var notBefore = Int64.min
        // Of an ordered consumer.
        var waiting: [ReceivedMessage] = []
        var isConsumed = false
        var attempts = 0
        var lockedUntil: ContinuousClock.Instant?
        var lockEpoch = -1
        var whenIdle: CheckedContinuation<Void, Never>?

        init(_ queue: MessageQueue, _ subscription: Subscription?) {
            self.queue = queue
            self.subscription = subscription
        }
    }

    /// Batches that wait for a free call of the handler.
    struct WorkQueue {
        private var batches: [(possession: Possession, messages: [ReceivedMessage])] = []
        private var head = 0

        mutating func append(_ possession: Possession, _ messages: [ReceivedMessage]) {
            batches.append((possession, messages))
        }

        mutating func next() -> (possession: Possession, messages: [ReceivedMessage])? {
            guard head < batches.count else { return nil }
            defer {
                head += 1
                if head == batches.count || head >= 1024 {
                    batches.removeFirst(head)
                    head = 0
                }
            }
            return batches[head]
        }
    }

    /// A consumer; nothing is connected before `start()`.
    ///
    /// - Parameters:
    ///   - onEvent: called on any thread, quickly.
    ///   - handler: what consumes.
    /// - Throws: `invalidArgument` for settings and options that cannot work.
    public init(
        _ settings: ClientSettings, group: String, subscriptions: [Subscription], options: Options = Options(),
        onEvent: @escaping @Sendable (ConsumerEvent) -> Void = { _ in }, handler: @escaping Handler
    ) throws(RocketMQClientError) {
        guard !group.isEmpty else { throw .invalidArgument("a consumer needs a group") }
        guard !subscriptions.isEmpty else { throw .invalidArgument("a consumer needs a subscription") }
        guard Set(subscriptions.map(\.topic)).count == subscriptions.count else {
            throw .invalidArgument("a consumer has one subscription of a topic")
        }
        guard 1...1024 ~= options.pullBatchSize, 1...1024 ~= options.consumeBatchSize else {
            throw .invalidArgument("pullBatchSize and consumeBatchSize are 1 to 1024")
        }
        if case .concurrent(let calls) = options.order, calls < 1 {
            throw .invalidArgument("at least one call of the handler must be allowed")
        }
        let (notices, notice) = AsyncStream.makeStream(of: Notice.self, bufferingPolicy: .bufferingNewest(64))
        let retryTopic = WireNames.retryTopic(group)
        let all = subscriptions + (options.model == .broadcasting ? [] : [Subscription(topic: retryTopic)])
        let parallelism = if case .concurrent(let calls) = options.order { calls } else { 1 }
        let runningInfo = ConsumerRunningInfo(
            group: group, subscriptions: all, nameServers: settings.nameServers.joined(separator: ";"),
            isOrdered: options.order == .ordered, parallelism: parallelism, clientVersion: settings.clientVersion,
            properties: [
                ("messageModel", options.model.rawValue),
                ("consumeFromWhere", (options.start ?? .first).rocketMQName),
                ("pullBatchSize", String(options.pullBatchSize)),
            ])
        let connections = try ServerConnections(settings) { _, request in
            switch request.requestCode {
            case .notifyConsumerIDsChanged:
                notice.yield(.membersChanged)
                return nil
            case .resetConsumerClientOffset:
                notice.yield(.reset(Self.offsets(in: request)))
                return .response(.success)
            case .getConsumerRunningInfo, .getConsumerStatusFromClient: return runningInfo.answer(request)
            default:
                return .response(
                    .requestCodeNotSupported, remark: "this client does not answer request \(request.code)")
            }
        }
        self.notices = notices
        self.notice = notice
        self.retryTopic = retryTopic
        self.runningInfo = runningInfo
        self.connections = connections
        self.group = group
        self.subscriptions = all
        self.options = options
        self.onEvent = onEvent
        self.handler = handler
        clientID = settings.clientID ?? ClientIdentity.make()
        access = QueueAccess(connections, group: group)
    }

    var isBroadcasting: Bool { options.model == .broadcasting }
    var isOrdered: Bool { options.order == .ordered }

    // MARK: - Life cycle

    /// Joins the group and begins to pull. Call it once.
    ///
    /// - Throws: `topicNotFound` when none of the topics exists, `queueNotFound` when none can be read. `noNameServer`,
    ///   `closed`, and why a broker refuses this member or none can be reached. `close()` is needed then, too.
    public func start() async throws(RocketMQClientError) {
        guard !isClosing else { throw .closed }
        let wanted = subscriptions.filter { $0.topic != retryTopic }
        let routes = try await self.routes(wanted.map(\.topic))
        guard !routes.isEmpty else {
            throw .topicNotFound(topic: wanted[0].topic, nameServers: connections.nameServers)
        }
        guard routes.contains(where: { !$0.route.readable.isEmpty }) else {
            throw .queueNotFound(
                topic: routes[0].topic,
                reason: "exists, and none of its queues may be read (its perm, or brokerPermission, has no 4)")
        }
        if isBroadcasting, let path = options.broadcastOffsetsFile {
            broadcastOffsets = try BroadcastOffsets(file: path)
        }
        startedAt = WallClock.milliseconds
        try await heartbeat()
        if isBroadcasting, options.start == .last { try await noteEnds(routes.flatMap(\.route.readable)) }
        await rebalance()
        // `close` may have come meanwhile.
        guard !isClosing else { throw .closed }
        hasStarted = true
        let notices = notices
        tasks.append(
            Task {
                for await notice in notices {
                    if case .reset(let offsets) = notice { await reset(offsets) }
                    await rebalance()
                }
            })
        every(options.rebalanceInterval) { await $0.rebalance() }
        every(options.commitInterval) { await $0.commitAll() }
        every(options.heartbeatInterval) { await $0.heartbeatQuietly() }
        if isOrdered { every(Self.lockInterval) { await $0.renewLocks() } }
    }

    /// Replaces the subscription of a topic, or adds one, while the consumer runs. All members of a group must have
    /// the same subscriptions; brokers use the newest.
    public func subscribe(_ subscription: Subscription) async {
        subscriptions.removeAll { $0.topic == subscription.topic }
        subscriptions.insert(subscription, at: 0)
        runningInfo.subscribed(subscriptions)
        guard hasStarted, !isClosing else { return }
        for possession in possessions.values where possession.queue.topic == subscription.topic {
            await giveUp(possession)
        }
        await heartbeatQuietly()
        await rebalance()
    }

    /// Waits for the handlers that run (`closeTimeout`), commits, leaves the group and closes all connections.
    /// Messages that were handed out and not finished come again, to this group's next member.
    public func close() async {
        guard !isClosing else { return }
        isClosing = true
        notice.finish()
        for task in tasks { task.cancel() }
        for possession in possessions.values {
            possession.task?.cancel()
            resume(&possession.whenRoom)
        }
        await handlersToEnd()
        await commitAll()
        await confirmCommits()
        if isOrdered { await unlock(Array(possessions.keys)) }
        possessions = [:]
        let command = RemotingCommand(
            .unregisterClient, extFields: ["clientID": clientID, "consumerGroup": group])
        for address in await connections.knownBrokers {
            _ = try? await connections.invoke(address, command, timeout: .seconds(2))
        }
        await connections.close()
    }

    func handlersToEnd() async {
        guard running > 0 else { return }
        let limit = Task {
            try? await Task.sleep(for: options.closeTimeout)
            resume(&whenIdle)
        }
        await withCheckedContinuation { whenIdle = $0 }
        limit.cancel()
    }

    func resume(_ continuation: inout CheckedContinuation<Void, Never>?) {
        continuation?.resume()
        continuation = nil
    }

    func every(_ interval: Duration, _ action: @escaping @Sendable (PushConsumer) async -> Void) {
        tasks.append(
            Task {
                while (try? await Task.sleep(for: interval)) != nil { await action(self) }
            })
    }

    func warn(_ text: String) {
        if !isClosing { onEvent(.warning(text)) }
    }
}
