import FastJSON
import NIOCore
package import RemotingProtocol

/// What a handler says of the messages it was given.
public enum ConsumeResult: Sendable, Hashable {
    /// All are consumed.
    case success
    /// Consuming failed. A concurrent consumer sends all of them back to the broker, which delivers them to the group
    /// later, each time after a longer pause (`delayLevel` 0) or after that of a delay level, and after too many times
    /// to the group's dead letter queue (`delayLevel` below 0: at once). An ordered consumer gets the same messages
    /// again after `orderedRetryPause`. A broadcasting consumer goes on without them.
    case retry(delayLevel: Int = 0)
    /// The first `consumed` messages are consumed; the consumer takes no more of this queue. For a handler whose
    /// consumer is about to be closed: the next consumer of the group begins with the rest.
    case stop(consumed: Int)
}

/// What happens to a consumer beside its messages.
public enum ConsumerEvent: Sendable {
    /// Something failed that is tried again.
    case warning(String)
    /// A queue cannot be pulled because of the broker's configuration or the subscription: its expression does not
    /// compile, reading is not permitted, the topic was deleted. It is tried again every few seconds.
    case failed(MessageQueue, RocketMQClientError)
    /// The queues this member has from now on, sorted.
    case assigned([MessageQueue])
}

/// A member of a consumer group: takes its share of the queues, pulls them with long polling, hands the messages to the
/// handler and commits what was consumed. Every message is handed out at least once.
public actor PushConsumer {
    /// How a consumer works.
    public struct Options: Sendable {
        /// Who gets a message.
        public enum Model: String, Sendable {
            /// One member of the group.
            case clustering = "CLUSTERING"
            /// Every member.
            case broadcasting = "BROADCASTING"
        }

        /// Which messages are handed out at the same time.
        public enum Order: Sendable, Hashable {
            /// Up to so many calls of the handler run at once, whatever their queues. With 1 the messages of a queue
            /// come in order, but after a failure or a change of members some may come again, and later.
            case concurrent(Int)
            /// One call at a time for each queue, in the queue's order, under the broker's lock on the queue: no other
            /// member consumes it meanwhile.
            case ordered
        }

        /// Who gets a message.
        public var model = Model.clustering
        /// Which messages are handed out at the same time.
        public var order = Order.concurrent(20)
        /// Where to begin without an offset; nil: at the first message, or where the broker says. A given position also
        /// counts for a queue whose committed offset is 0: brokers answer that for new groups, too.
        public var start: StartPosition?
        /// Messages asked for in one pull.
        public var pullBatchSize = 32
        /// Messages handed out in one call at most.
        public var consumeBatchSize = 1
        /// A queue is not pulled while so many of its messages wait to be consumed, or so many bytes of bodies.
        public var waitingMessagesMax = 1000
        /// See `waitingMessagesMax`; bytes.
        public var waitingBytesMax = 100 << 20
        /// How often a message may be sent back before it goes to the dead letter queue; nil: the group's configuration
        /// decides; for an ordered consumer: without end.
        public var reconsumeTimesMax: Int?
        /// How long a broker may wait for a message before it answers a pull without one.
        public var pullWait: Duration = .seconds(15)
        /// Time between heartbeats; brokers take a member off after 120 s without one.
        public var heartbeatInterval: Duration = .seconds(10)
        /// Time between looks at the group's members and the topics' queues; a broker's notice is followed at once.
        public var rebalanceInterval: Duration = .seconds(20)
        /// Time between commits of what was consumed.
        public var commitInterval: Duration = .seconds(5)
        /// A queue taken over from another member is pulled after this pause, so that its last commit has arrived.
        public var takeOverPause: Duration = .milliseconds(300)
        /// How long an ordered consumer waits before it hands failed messages out again.
        public var orderedRetryPause: Duration = .seconds(1)
        /// How long `close` waits for handlers that run.
        public var closeTimeout: Duration = .seconds(2)
        /// Where a broadcasting consumer keeps its offsets; nil: in memory only, so that each process begins at
        /// `start`.
        public var broadcastOffsetsFile: String?

        /// The defaults.
        public init() {}
    }

    /// Consumes messages of one queue, in order, one at least. Called in tasks of the consumer's own.
    public typealias Handler = @Sendable ([ReceivedMessage]) async -> ConsumeResult

    /// How long a broker's lock on a queue is trusted; the broker itself gives it away after twice the time.
    private static let lockValidity = Duration.seconds(30)
    private static let lockInterval = Duration.seconds(20)
    private static let pauseAfterRefusal = Duration.seconds(5)
    private static let pauseBeforeNewAttempt = Duration.seconds(5)

    /// The consumer group.
    public nonisolated let group: String
    /// What brokers call this member.
    public nonisolated let clientID: String
    private let options: Options
    private let handler: Handler
    private let onEvent: @Sendable (ConsumerEvent) -> Void
    private let connections: ServerConnections
    private let access: QueueAccess
    private let retryTopic: String
    private let runningInfo: ConsumerRunningInfo
    private let notices: AsyncStream<Notice>
    private let notice: AsyncStream<Notice>.Continuation

    private var subscriptions: [Subscription]
    private var possessions: [MessageQueue: Possession] = [:]
    /// Ordered queues given up whose handler still runs.
    private var releasing: Set<MessageQueue> = []
    private var work = WorkQueue()
    private var running = 0
    private var whenIdle: CheckedContinuation<Void, Never>?
    private var tasks: [Task<Void, Never>] = []
    private var isClosing = false
    private var hasStarted = false
    private var isRebalancing = false
    private var mustRebalanceAgain = false
    private var broadcastOffsets = BroadcastOffsets()
    /// Pauses between questions for the retry topic, which a broker creates at a new group's first heartbeat.
    private var retryTopicBackOff = BackOff(first: .seconds(1), longest: .seconds(60))

    private enum Notice: Sendable {
        case membersChanged
        case reset([MessageQueue: Int64])
    }

    /// A queue of this member's, from taking it to giving it up.
    private final class Possession {
        let queue: MessageQueue
        let subscription: Subscription?
        var window: OffsetWindow?
        var committed: Int64?
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
    private struct WorkQueue {
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

    private var isBroadcasting: Bool { options.model == .broadcasting }
    private var isOrdered: Bool { options.order == .ordered }

    // MARK: - Life cycle

    /// Joins the group and begins to pull. Call it once.
    ///
    /// - Throws: `topicNotFound` when none of the topics exists, `queueNotFound` when none can be read,
    ///   `noNameServer`, and why a broker does not take this member. `close()` is needed then, too.
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
        try await heartbeat()
        await rebalance()
        hasStarted = true
        let notices = notices
        tasks.append(
            Task {
                for await notice in notices {
                    if case .reset(let offsets) = notice { await self.reset(offsets) }
                    await self.rebalance()
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
        if isOrdered { await unlock(Array(possessions.keys)) }
        possessions = [:]
        let command = RemotingCommand(
            .unregisterClient, extFields: ["clientID": clientID, "consumerGroup": group])
        for address in await connections.knownBrokers {
            _ = try? await connections.invoke(address, command, timeout: .seconds(2))
        }
        await connections.close()
    }

    private func handlersToEnd() async {
        guard running > 0 else { return }
        let limit = Task {
            try? await Task.sleep(for: options.closeTimeout)
            resume(&whenIdle)
        }
        await withCheckedContinuation { whenIdle = $0 }
        limit.cancel()
    }

    private func resume(_ continuation: inout CheckedContinuation<Void, Never>?) {
        continuation?.resume()
        continuation = nil
    }

    private func every(_ interval: Duration, _ action: @escaping @Sendable (PushConsumer) async -> Void) {
        tasks.append(
            Task {
                while (try? await Task.sleep(for: interval)) != nil { await action(self) }
            })
    }

    private func warn(_ text: String) {
        if !isClosing { onEvent(.warning(text)) }
    }

    // MARK: - Membership

    private func routes(
        _ topics: [String]
    ) async throws(RocketMQClientError) -> [(topic: String, route: QueueRoute)] {
        var routes: [(String, QueueRoute)] = []
        for topic in topics {
            if let route = try await connections.route(of: topic) { routes.append((topic, route)) }
        }
        return routes
    }

    private func brokers() async throws(RocketMQClientError) -> Set<String> {
        try await routes(subscriptions.map(\.topic)).reduce(into: []) { $0.formUnion($1.route.brokers) }
    }

    private func heartbeatQuietly() async {
        do throws(RocketMQClientError) {
            try await heartbeat()
        } catch {
            warn("heartbeat: \(error)")
        }
    }

    private func heartbeat() async throws(RocketMQClientError) {
        let data = ConsumerData(
            groupName: group, messageModel: options.model.rawValue,
            consumeFromWhere: (options.start ?? .first).rocketMQName, subscriptionDataSet: subscriptions.map(\.wire))
        let body = HeartbeatData(clientID: clientID, consumerDataSet: [data]).encoded()
        for address in try await brokers() {
            do throws(RocketMQClientError) {
                _ = try await connections.demand(address, RemotingCommand(.heartBeat, body: body))
            } catch {
                guard hasStarted else { throw error }
                warn("broker \(address): \(error)")
            }
        }
    }

    /// Takes and gives up queues so that this member has its share. One at a time; a call meanwhile makes one more.
    private func rebalance() async {
        mustRebalanceAgain = true
        guard !isRebalancing else { return }
        isRebalancing = true
        defer { isRebalancing = false }
        while mustRebalanceAgain, !isClosing {
            mustRebalanceAgain = false
            do throws(RocketMQClientError) {
                try await takeShare()
            } catch {
                warn("rebalancing: \(error)")
            }
        }
    }

    private func takeShare() async throws(RocketMQClientError) {
        let routes = try await routes(subscriptions.map(\.topic))
        guard !routes.isEmpty else { return }
        let members = isBroadcasting ? [clientID] : try await self.members()
        guard members.contains(clientID) else {
            // The broker does not know this member (it was restarted): a heartbeat, and its notice, rebalance again.
            try await heartbeat()
            if hasStarted { return }
            throw .notFound("the broker does not list this consumer in group '\(group)'")
        }
        let share = Set(
            routes.flatMap { route in
                isBroadcasting
                    ? route.route.readable
                    : QueueAllocation.averagely(route.route.readable, among: members, for: clientID)
            })
        let before = Set(possessions.keys)
        for possession in possessions.values where !share.contains(possession.queue) { await giveUp(possession) }
        let new = share.filter { possessions[$0] == nil && !releasing.contains($0) }.sorted()
        let locked = isOrdered ? try await lock(new) : [:]
        for queue in new where !isClosing && (!isOrdered || locked[queue] != nil) {
            take(queue, locked[queue], afterPause: hasStarted || members.count > 1)
        }
        let after = Set(possessions.keys)
        if after != before { onEvent(.assigned(after.sorted())) }
        if isOrdered, new.count > locked.count {
            // Another member still has the lock on a queue of ours.
            rebalance(after: .seconds(1))
        } else if !isBroadcasting, !routes.contains(where: { $0.topic == retryTopic }) {
            let pause = retryTopicBackOff.next()
            if pause < options.rebalanceInterval { rebalance(after: pause) }
        }
    }

    private func rebalance(after pause: Duration) {
        Task { [notice] in
            try? await Task.sleep(for: pause)
            notice.yield(.membersChanged)
        }
    }

    private func members() async throws(RocketMQClientError) -> [String] {
        var failure = RocketMQClientError.notFound("no broker is registered for the topics of group '\(group)'")
        for address in try await brokers().sorted() {
            do throws(RocketMQClientError) {
                let reply = try await connections.demand(
                    address, RemotingCommand(.getConsumerListByGroup, extFields: ["consumerGroup": group]))
                return try decoded(address) { () throws(RemotingDecodeError) in
                    try GetConsumerListByGroupResponseBody(body: reply.body).consumerIDList
                }
            } catch {
                failure = error
            }
        }
        throw failure
    }

    private func take(_ queue: MessageQueue, _ lock: (until: ContinuousClock.Instant, epoch: Int)?, afterPause: Bool) {
        let possession = Possession(queue, subscriptions.first { $0.topic == queue.topic })
        possession.lockedUntil = lock?.until
        possession.lockEpoch = lock?.epoch ?? -1
        possessions[queue] = possession
        possession.task = Task {
            if afterPause { try? await Task.sleep(for: options.takeOverPause) }
            await pullLoop(possession)
        }
    }

    private func giveUp(_ possession: Possession, commits: Bool = true) async {
        guard possessions[possession.queue] === possession else { return }
        possessions[possession.queue] = nil
        possession.isDropped = true
        possession.task?.cancel()
        resume(&possession.whenRoom)
        runningInfo.released(possession.queue)
        guard isOrdered else {
            if commits { await commit(possession) }
            return
        }
        releasing.insert(possession.queue)
        Task {
            // Another member may begin only when no message of the queue is being consumed here.
            if possession.running > 0 { await withCheckedContinuation { possession.whenIdle = $0 } }
            if commits { await commit(possession) }
            await unlock([possession.queue])
            releasing.remove(possession.queue)
            if !isClosing { await rebalance() }
        }
    }

    private func owns(_ possession: Possession) -> Bool { !isClosing && !possession.isDropped }

    // MARK: - Offsets

    private func commitAll() async {
        for possession in possessions.values { await commit(possession) }
        if isBroadcasting, let path = options.broadcastOffsetsFile {
            do throws(RocketMQClientError) {
                try broadcastOffsets.write(to: path)
            } catch {
                warn("offsets of the group are not kept, messages may come again: \(error)")
            }
        }
    }

    private func commit(_ possession: Possession) async {
        guard let offset = possession.window?.committable, offset != possession.committed else { return }
        guard !isBroadcasting else {
            broadcastOffsets[possession.queue] = offset
            possession.committed = offset
            return
        }
        do throws(RocketMQClientError) {
            try await access.commit(offset, of: possession.queue, timeout: .seconds(2))
            possession.committed = offset
        } catch {
            warn("offset \(offset) of \(possession.queue) not committed, messages may come again: \(error)")
        }
    }

    private func firstOffset(_ queue: MessageQueue) async throws(RocketMQClientError) -> Int64 {
        let isRetry = queue.topic == retryTopic
        if isBroadcasting {
            if let known = broadcastOffsets[queue] { return known }
        } else if let known = try await access.committedOffset(of: queue) {
            // Brokers also answer 0 for a new group on a young queue; then an explicit wish counts.
            if known > 0 || options.start == nil || isRetry { return known }
        }
        return try await access.offset(isRetry ? .first : options.start ?? .first, of: queue)
    }

    /// An operator sets the group's offsets (220).
    private func reset(_ offsets: [MessageQueue: Int64]) async {
        for (queue, offset) in offsets {
            guard let possession = possessions[queue] else { continue }
            await giveUp(possession, commits: false)
            if isBroadcasting {
                broadcastOffsets[queue] = offset
                continue
            }
            do throws(RocketMQClientError) {
                try await access.commit(offset, of: queue)
            } catch {
                warn("offset \(offset) of \(queue), as an operator wants it, not committed: \(error)")
            }
        }
    }

    private static func offsets(in request: RemotingCommand) -> [MessageQueue: Int64] {
        var offsets: [MessageQueue: Int64] = [:]
        guard let table = (try? request.json())?["offsetTable"] else { return [:] }
        for member in table.object?.members ?? [] {
            if let queue = MessageQueue(key: member.key), let offset = member.value.integer { offsets[queue] = offset }
        }
        return offsets
    }

    // MARK: - Pulling

    private func pullLoop(_ possession: Possession) async {
        var backOff = BackOff(first: .milliseconds(20), longest: .seconds(1))
        while owns(possession), !possession.isStopped {
            do throws(RocketMQClientError) {
                if possession.window == nil {
                    let offset = try await firstOffset(possession.queue)
                    guard owns(possession) else { return }
                    possession.window = OffsetWindow(start: offset)
                    possession.committed = offset
                    runningInfo.reached(offset, of: possession.queue)
                }
                guard hasRoom(possession) else {
                    await withCheckedContinuation { possession.whenRoom = $0 }
                    continue
                }
                let asked = ContinuousClock.now
                let result = try await access.pull(query(possession))
                guard owns(possession) else { return }
                possession.brokerID = result.suggestedBrokerID
                if !result.messages.isEmpty {
                    runningInfo.pulled(
                        result.messages.count, from: possession.queue, in: asked.duration(to: .now))
                }
                received(result, possession)
                backOff.reset()
            } catch {
                guard owns(possession) else { return }
                possession.brokerID = 0
                switch error.refusal {
                case .subscriptionParseFailed, .noPermission, .topicNotExist:
                    onEvent(.failed(possession.queue, error))
                    try? await Task.sleep(for: Self.pauseAfterRefusal)
                default:
                    warn("\(possession.queue): \(error)")
                    try? await Task.sleep(for: backOff.next())
                }
                guard owns(possession) else { return }
                // The broker may be a new process that knows nothing of this member.
                await heartbeatQuietly()
            }
        }
    }

    private func hasRoom(_ possession: Possession) -> Bool {
        (possession.window?.outstanding ?? 0) < options.waitingMessagesMax
            && possession.waitingBytes < options.waitingBytesMax
    }

    private func query(_ possession: Possession) -> QueueAccess.Query {
        var query = QueueAccess.Query(possession.queue, offset: possession.window?.nextPull ?? 0)
        query.messagesMax = options.pullBatchSize
        query.wait = options.pullWait
        query.commit = isBroadcasting ? nil : possession.window?.committable
        query.brokerID = possession.brokerID
        if let subscription = possession.subscription {
            query.expression = subscription.expression
            query.expressionType = subscription.expressionType
            query.version = subscription.version
        }
        return query
    }

    private func received(_ result: PullResult, _ possession: Possession) {
        if result.status == .offsetMoved {
            warn("\(possession.queue): the broker moved the offset to \(result.nextOffset)")
        }
        let messages = result.messages.filter { possession.subscription?.selects($0) ?? true }
        possession.window?.pulled(messages.map(\.queueOffset), next: result.nextOffset)
        possession.waitingBytes += messages.reduce(0) { $0 + $1.body.count }
        noteReached(possession)
        guard !messages.isEmpty else { return }
        if isOrdered {
            possession.waiting += messages
            if !possession.isConsumed {
                possession.isConsumed = true
                Task { await consumeInOrder(possession) }
            }
        } else {
            enqueue(messages, possession)
        }
    }

    private func noteReached(_ possession: Possession) {
        guard !possession.isDropped, let window = possession.window else { return }
        runningInfo.reached(window.committable, of: possession.queue)
    }

    // MARK: - Consuming

    private func enqueue(_ messages: [ReceivedMessage], _ possession: Possession) {
        var rest = messages[...]
        while !rest.isEmpty {
            work.append(possession, Array(rest.prefix(options.consumeBatchSize)))
            rest = rest.dropFirst(options.consumeBatchSize)
        }
        startWork()
    }

    private func startWork() {
        guard case .concurrent(let calls) = options.order else { return }
        while running < calls, !isClosing, let (possession, messages) = work.next() {
            guard owns(possession), !possession.isStopped else { continue }
            began(possession)
            Task {
                let start = ContinuousClock.now
                let result = await handler(messages)
                await finished(messages, result, in: start.duration(to: .now), possession)
                ended(possession)
                startWork()
            }
        }
    }

    private func began(_ possession: Possession) {
        running += 1
        possession.running += 1
    }

    private func ended(_ possession: Possession) {
        running -= 1
        possession.running -= 1
        if possession.running == 0 { resume(&possession.whenIdle) }
        if running == 0 { resume(&whenIdle) }
    }

    /// Notes what a handler said.
    private func finished(
        _ messages: [ReceivedMessage], _ result: ConsumeResult, in time: Duration, _ possession: Possession
    ) async {
        switch result {
        case .success:
            runningInfo.consumed(messages.count, from: possession.queue, in: time)
            finish(messages, possession)
        case .stop(let consumed):
            possession.isStopped = true
            runningInfo.consumed(min(consumed, messages.count), from: possession.queue, in: time)
            finish(messages.prefix(max(0, consumed)), possession)
        case .retry(let delayLevel):
            runningInfo.failed(messages.count, from: possession.queue, in: time)
            guard !isBroadcasting else {
                warn(
                    "\(possession.queue): \(messages.count) messages were not consumed; a broadcasting consumer goes on"
                )
                finish(messages, possession)
                break
            }
            let left = await sendBack(messages, delayLevel: delayLevel, possession)
            guard !left.isEmpty, owns(possession) else { break }
            Task {
                try? await Task.sleep(for: Self.pauseBeforeNewAttempt)
                if owns(possession) { enqueue(left, possession) }
            }
        }
        // Consumed although the queue was given up meanwhile: what is done must not be done again.
        if possession.isDropped, !isClosing, !isOrdered { await commit(possession) }
    }

    private func finish(_ messages: some Sequence<ReceivedMessage>, _ possession: Possession) {
        for message in messages {
            possession.window?.finish(message.queueOffset)
            possession.waitingBytes -= message.body.count
        }
        noteReached(possession)
        if possession.whenRoom != nil, hasRoom(possession) { resume(&possession.whenRoom) }
    }

    /// Sends messages back; returns those that could not be.
    private func sendBack(
        _ messages: [ReceivedMessage], delayLevel: Int, _ possession: Possession
    ) async -> [ReceivedMessage] {
        var left: [ReceivedMessage] = []
        for message in messages {
            do throws(RocketMQClientError) {
                try await access.sendBack(
                    message, delayLevel: delayLevel, reconsumeTimesMax: options.reconsumeTimesMax)
                finish([message], possession)
            } catch {
                warn("\(possession.queue): message \(message.messageID) not sent back, consumed here again: \(error)")
                left.append(message)
            }
        }
        return left
    }

    private func consumeInOrder(_ possession: Possession) async {
        while owns(possession), !possession.isStopped, !possession.waiting.isEmpty {
            guard await hasLock(possession) else {
                try? await Task.sleep(for: .milliseconds(100))
                continue
            }
            guard owns(possession) else { break }
            let messages = Array(possession.waiting.prefix(options.consumeBatchSize))
            began(possession)
            let start = ContinuousClock.now
            let result = await handler(messages)
            let time = start.duration(to: .now)
            if case .retry = result {
                runningInfo.failed(messages.count, from: possession.queue, in: time)
                possession.attempts += 1
                if let most = options.reconsumeTimesMax, possession.attempts > most {
                    // Not for ever: the queue goes on without them.
                    let left = await sendBack(messages, delayLevel: -1, possession)
                    possession.waiting.removeFirst(messages.count)
                    possession.waiting.insert(contentsOf: left, at: 0)
                    possession.attempts = 0
                }
                ended(possession)
                try? await Task.sleep(for: options.orderedRetryPause)
                continue
            }
            await finished(messages, result, in: time, possession)
            possession.attempts = 0
            possession.waiting.removeFirst(messages.count)
            ended(possession)
        }
        possession.isConsumed = false
    }

    // MARK: - Locks

    /// The broker's lock holds, and the connection it was got on is the same: a new broker process knows no locks.
    private func hasLock(_ possession: Possession) async -> Bool {
        guard let until = possession.lockedUntil, until > .now,
            let address = try? await access.server(of: possession.queue)
        else { return false }
        return await connections.epoch(of: address) == possession.lockEpoch
    }

    private func byServer(_ queues: [MessageQueue]) async -> [String: [MessageQueue]] {
        var servers: [String: [MessageQueue]] = [:]
        for queue in queues {
            if let address = try? await access.server(of: queue) { servers[address, default: []].append(queue) }
        }
        return servers
    }

    /// The queues that are locked for this member now.
    private func lock(
        _ queues: [MessageQueue]
    ) async throws(RocketMQClientError) -> [MessageQueue: (until: ContinuousClock.Instant, epoch: Int)] {
        var locked: [MessageQueue: (until: ContinuousClock.Instant, epoch: Int)] = [:]
        for (address, queues) in await byServer(queues) {
            let asked = ContinuousClock.now
            let command = LockRequest(group: group, clientID: clientID, queues: queues).command(.lockBatchMQ)
            let reply = try await connections.demand(address, command)
            let granted = try decoded(address) { () throws(RemotingDecodeError) in
                try LockBatchResponseBody(body: reply.body).lockOKMQSet
            }
            guard let epoch = await connections.epoch(of: address) else { continue }
            for queue in granted { locked[MessageQueue(queue)] = (asked + Self.lockValidity, epoch) }
        }
        return locked
    }

    private func unlock(_ queues: [MessageQueue]) async {
        for (address, queues) in await byServer(queues) {
            let command = LockRequest(group: group, clientID: clientID, queues: queues).command(.unlockBatchMQ)
            // A lock that is not released ends by itself.
            _ = try? await connections.invoke(address, command, timeout: .seconds(2))
        }
    }

    private func renewLocks() async {
        do throws(RocketMQClientError) {
            let mine = Array(possessions.values)
            let locked = try await lock(mine.map(\.queue))
            for possession in mine where owns(possession) {
                guard let lock = locked[possession.queue], lock.epoch == possession.lockEpoch else {
                    // Another member may have consumed meanwhile: what this one knows of the queue is old.
                    await giveUp(possession)
                    continue
                }
                possession.lockedUntil = lock.until
            }
            await rebalance()
        } catch {
            warn("locks of ordered queues not renewed: \(error)")
        }
    }
}

/// Locks queues of a group for a member (41), or unlocks them (42).
package struct LockRequest: Sendable {
    package var group: String
    package var clientID: String
    package var queues: [MessageQueue]

    package init(group: String, clientID: String, queues: [MessageQueue]) {
        self.group = group
        self.clientID = clientID
        self.queues = queues
    }

    package func command(_ code: RequestCode) -> RemotingCommand {
        let body = LockBatchRequestBody(consumerGroup: group, clientID: clientID, mqSet: queues.map(\.wire))
        return RemotingCommand(code, body: body.encoded())
    }
}
