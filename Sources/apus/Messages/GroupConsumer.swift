import FastJSON
import Glibc
import NIOCore
import RemotingProtocol
import RemotingTransport

/// One member of a consumer group: announces itself, takes its share of the queues, pulls them with long polling and commits
/// what was written out. The protocol of RocketMQ's push consumer, in one actor.
actor GroupConsumer {
    private static let heartbeatInterval = Duration.seconds(10)
    private static let rebalanceInterval = Duration.seconds(20)
    private static let commitInterval = Duration.seconds(5)
    private static let suspendMilliseconds = 15_000
    /// A queue taken over from another member is pulled after this pause, so that its last commit has arrived.
    private static let takeOverPause = Duration.milliseconds(300)

    private let cluster: Cluster
    private let group: String
    private let subscription: Subscription
    private let startPosition: StartPosition?
    private let isBroadcasting: Bool
    private let pullSize: Int
    nonisolated let output: MessageOutput
    private let clientId: String
    private let events: AsyncStream<Void>.Continuation
    private let eventStream: AsyncStream<Void>

    private nonisolated let retryTopic: String
    /// What this consumer announces: its topic, and the group's own for messages sent back.
    private let subscriptions: [Subscription]
    private let runningInfo: ConsumerRunningInfo

    private struct Assignment {
        /// Tells one possession of a queue from the next.
        let generation: Int
        var offset: Int64?
        var committed: Int64?
        let task: Task<Void, Never>
    }

    private var assignments: [MessageQueue: Assignment] = [:]
    private var generation = 0
    private var tasks: [Task<Void, Never>] = []
    private var isStopping = false
    /// Pulls whose messages are on their way out: their offsets are not known yet.
    private var beingWritten = 0
    private var hasStarted = false
    private var onFailure: @Sendable () -> Void = {}
    private var warned: Set<String> = []
    private(set) var failure: CommandFailure?

    init(
        nameServers: String, group: String, subscription: Subscription, start: StartPosition?, isBroadcasting: Bool,
        pullSize: Int, output: MessageOutput
    ) throws {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        eventStream = stream
        events = continuation
        let retryTopic = "%RETRY%\(group)"
        let subscriptions =
            [subscription] + (isBroadcasting ? [] : [Subscription(topic: retryTopic, expression: "*")])
        let runningInfo = ConsumerRunningInfo(
            group: group, subscriptions: subscriptions, nameServers: nameServers,
            properties: [
                ("messageModel", Self.model(isBroadcasting)), ("consumeFromWhere", start.rocketMQName),
                ("pullBatchSize", String(pullSize)),
            ])
        cluster = try Cluster(nameServers: nameServers) { request in
            switch request.requestCode {
            case .notifyConsumerIDsChanged:
                continuation.yield()
                return nil
            case .getConsumerRunningInfo: return runningInfo.answer(request)
            default:
                return .response(
                    .requestCodeNotSupported, remark: "apus consume does not answer request \(request.code)")
            }
        }
        self.retryTopic = retryTopic
        self.subscriptions = subscriptions
        self.runningInfo = runningInfo
        self.group = group
        self.subscription = subscription
        startPosition = start
        self.isBroadcasting = isBroadcasting
        self.pullSize = pullSize
        self.output = output
        clientId = "127.0.0.1@\(getpid())#\(Clock.milliseconds)"
    }

    /// Joins the group and begins to pull. Throws, in words, when there is no name server or no such topic.
    ///
    /// - Parameter onFailure: called when consuming cannot go on; `failure` then says why.
    func start(onFailure: @escaping @Sendable () -> Void) async throws {
        self.onFailure = onFailure
        guard let route = try await cluster.route(of: subscription.topic) else {
            throw CommandFailure(
                "topic '\(subscription.topic)' does not exist at name server \(cluster.nameServers.joined(separator: ", ")); "
                    + "check its name, or send to it first: apus send --topic \(subscription.topic)")
        }
        guard !route.readable.isEmpty else {
            throw CommandFailure(
                "topic '\(subscription.topic)' exists, and none of its queues may be read (its perm, or brokerPermission, has no "
                    + "4): apus admin updateTopicPerm -t \(subscription.topic) -p 6")
        }
        try await heartbeat(route)
        await rebalance()
        hasStarted = true
        tasks.append(
            Task { [eventStream] in
                for await _ in eventStream { await self.rebalance() }
            })
        every(Self.rebalanceInterval) { await $0.rebalance() }
        every(Self.commitInterval) { await $0.commitAll() }
        every(Self.heartbeatInterval) { await $0.heartbeatQuietly() }
    }

    /// Commits, leaves the group, closes.
    func stop() async {
        isStopping = true
        events.finish()
        for task in tasks { task.cancel() }
        for assignment in assignments.values { assignment.task.cancel() }
        // What is being written out has no offset yet. A reader of our output that stands still is not waited for.
        let patience = ContinuousClock.now + .seconds(2)
        while beingWritten > 0, ContinuousClock.now < patience { try? await Task.sleep(for: .milliseconds(2)) }
        await commitAll()
        assignments = [:]
        if let route = try? await cluster.route(of: subscription.topic) {
            for address in Set(route.masters.values) {
                _ = try? await cluster.connection(to: address).invoke(
                    RemotingCommand(.unregisterClient, extFields: ["clientID": clientId, "consumerGroup": group]),
                    timeout: .seconds(2))
            }
        }
        await cluster.close()
    }

    private func every(_ interval: Duration, _ action: @escaping @Sendable (GroupConsumer) async -> Void) {
        tasks.append(
            Task {
                while (try? await Task.sleep(for: interval)) != nil { await action(self) }
            })
    }

    // MARK: Membership

    private func heartbeatQuietly() async {
        guard let route = try? await cluster.route(of: subscription.topic) else { return }
        try? await heartbeat(route)
    }

    private func heartbeat(_ route: TopicRoute) async throws {
        let body = JSONValue.fields([
            ("clientID", .string(clientId)),
            (
                "consumerDataSet",
                .array([
                    .fields([
                        ("consumeFromWhere", .string(startPosition.rocketMQName)),
                        ("consumeType", .string("CONSUME_PASSIVELY")),
                        ("groupName", .string(group)),
                        ("messageModel", .string(Self.model(isBroadcasting))),
                        ("subscriptionDataSet", .array(subscriptions.map(\.json))), ("unitMode", .bool(false)),
                    ])
                ])
            ),
            ("producerDataSet", .array([])),
        ]).bytes()
        for address in Set(route.masters.values) {
            do {
                _ = try await cluster.connection(to: address).invokeSuccessfully(
                    RemotingCommand(.heartBeat, body: body), timeout: .seconds(3))
            } catch {
                guard hasStarted else {
                    throw CommandFailure(
                        "broker \(address) of topic '\(subscription.topic)' does not take part: \(error)")
                }
                warn("broker \(address): \(error)")
            }
        }
    }

    private var isRebalancing = false
    private var mustRebalanceAgain = false

    /// Takes and gives up queues so that this member has its share. One run at a time; calls meanwhile make one more.
    private func rebalance() async {
        mustRebalanceAgain = true
        guard !isRebalancing else { return }
        isRebalancing = true
        defer { isRebalancing = false }
        while mustRebalanceAgain, !isStopping {
            mustRebalanceAgain = false
            do {
                guard let route = try await cluster.route(of: subscription.topic) else { continue }
                var queues = [route.readable]
                // What a member of the group sent back comes again through the group's own topic, once it exists.
                if !isBroadcasting, let retries = try await cluster.route(of: retryTopic) {
                    queues.append(retries.readable)
                }
                let members = isBroadcasting ? [clientId] : try await self.members(route)
                guard members.contains(clientId) else {
                    // The broker does not know this member (it was restarted): say who we are; its notice rebalances.
                    try await heartbeat(route)
                    if hasStarted { continue }
                    throw CommandFailure("the broker does not list this consumer in group '\(group)'")
                }
                let share = Set(queues.flatMap { allocateAveragely($0, among: members, for: clientId) })
                for queue in assignments.keys where !share.contains(queue) { await giveUp(queue) }
                for queue in share where assignments[queue] == nil && !isStopping {
                    take(queue, afterPause: hasStarted || members.count > 1)
                }
            } catch {
                warn("rebalancing: \(error)")
            }
        }
    }

    private func members(_ route: TopicRoute) async throws -> [String] {
        var failure: any Error = CommandFailure("topic '\(subscription.topic)' has no broker")
        for address in Set(route.masters.values) {
            do {
                let reply = try await cluster.connection(to: address).invokeSuccessfully(
                    RemotingCommand(.getConsumerListByGroup, extFields: ["consumerGroup": group]), timeout: .seconds(3))
                return try reply.json()["consumerIdList"]?.array?.compactMap(\.string) ?? []
            } catch {
                failure = error
            }
        }
        throw failure
    }

    private func take(_ queue: MessageQueue, afterPause: Bool) {
        generation += 1
        let mine = generation
        let task = Task {
            if afterPause { try? await Task.sleep(for: Self.takeOverPause) }
            await self.pullLoop(queue, mine)
        }
        assignments[queue] = Assignment(generation: mine, task: task)
    }

    private func giveUp(_ queue: MessageQueue) async {
        guard let assignment = assignments.removeValue(forKey: queue) else { return }
        runningInfo.gaveUp(queue)
        assignment.task.cancel()
        await commit(queue, assignment)
    }

    // MARK: Offsets

    private func commitAll() async {
        for (queue, assignment) in assignments where assignment.offset != assignment.committed {
            await commit(queue, assignment)
            if assignments[queue]?.generation == assignment.generation {
                assignments[queue]?.committed = assignment.offset
            }
        }
    }

    private func commit(_ queue: MessageQueue, _ assignment: Assignment) async {
        guard !isBroadcasting, let offset = assignment.offset, offset != assignment.committed else { return }
        do {
            _ = try await broker(of: queue).invokeSuccessfully(
                RemotingCommand(
                    .updateConsumerOffset,
                    extFields: [
                        "consumerGroup": group, "topic": queue.topic, "queueId": String(queue.queueId),
                        "commitOffset": String(offset),
                    ]),
                timeout: .seconds(2))
        } catch {
            warn("offset \(offset) of \(queue) not committed, messages may come again: \(error)")
        }
    }

    private func firstOffset(_ queue: MessageQueue) async throws -> Int64 {
        let broker = try await broker(of: queue)
        let place = ["topic": queue.topic, "queueId": String(queue.queueId)]
        func offset(_ code: RequestCode, _ more: [String: String] = [:]) async throws -> Int64 {
            let reply = try await broker.invokeSuccessfully(
                RemotingCommand(code, extFields: place.merging(more) { $1 }), timeout: .seconds(3))
            return try reply.integer("offset")
        }
        if !isBroadcasting {
            let reply = try await broker.invoke(
                RemotingCommand(.queryConsumerOffset, extFields: place.merging(["consumerGroup": group]) { $1 }),
                timeout: .seconds(3))
            switch reply.responseCode {
            case .success:
                // Brokers also answer 0 for a new group on a young queue; then an explicit wish counts.
                let known = try reply.integer("offset")
                if known > 0 || startPosition == nil || queue.topic == retryTopic { return known }
            case .queryNotFound: break
            default: throw RemotingError.refused(request: 14, code: reply.code, remark: reply.remark)
            }
        }
        switch queue.topic == retryTopic ? .first : startPosition {
        case .first, nil: return try await offset(.getMinOffset)
        case .last: return try await offset(.getMaxOffset)
        case .time(let milliseconds):
            return try await offset(.searchOffsetByTimestamp, ["timestamp": String(milliseconds)])
        }
    }

    // MARK: Pulling

    private func broker(of queue: MessageQueue) async throws -> RemotingClient {
        guard let address = try await cluster.route(of: queue.topic)?.masters[queue.brokerName] else {
            throw RemotingError.connectFailed(address: queue.brokerName, cause: "it has no master at present")
        }
        return try await cluster.connection(to: address)
    }

    private func owns(_ queue: MessageQueue, _ generation: Int) -> Bool {
        !isStopping && assignments[queue]?.generation == generation
    }

    private func pullLoop(_ queue: MessageQueue, _ generation: Int) async {
        var pause = Duration.milliseconds(20)
        while owns(queue, generation) {
            do {
                let offset: Int64
                if let known = assignments[queue]?.offset {
                    offset = known
                } else {
                    offset = try await firstOffset(queue)
                    guard owns(queue, generation) else { return }
                    assignments[queue]?.offset = offset
                    assignments[queue]?.committed = offset
                    runningInfo.reached(offset, of: queue)
                }
                let asked = ContinuousClock.now
                let reply = try await broker(of: queue).invoke(
                    pullRequest(queue, offset: offset), timeout: .milliseconds(Int64(Self.suspendMilliseconds) + 10_000)
                )
                guard owns(queue, generation) else { return }
                try await take(reply, from: queue, generation, in: asked.duration(to: .now))
                pause = .milliseconds(20)
            } catch let error as CommandFailure {
                fail(error)
                return
            } catch {
                guard owns(queue, generation) else { return }
                warn("\(queue): \(error)")
                try? await Task.sleep(for: pause)
                pause = min(pause * 2, .seconds(1))
                // The broker may be a new process that knows nothing of this member.
                await heartbeatQuietly()
            }
        }
    }

    private func pullRequest(_ queue: MessageQueue, offset: Int64) -> RemotingCommand {
        // suspend 2 | subscription 4 | commit 1
        RemotingCommand(
            .pullMessage,
            extFields: [
                "consumerGroup": group, "topic": queue.topic, "queueId": String(queue.queueId),
                "queueOffset": String(offset), "maxMsgNums": String(pullSize), "sysFlag": isBroadcasting ? "6" : "7",
                "commitOffset": isBroadcasting ? "0" : String(offset),
                "suspendTimeoutMillis": String(Self.suspendMilliseconds),
                "subscription": queue.topic == retryTopic ? "*" : subscription.expression,
                "subVersion": String(subscription.version),
                "expressionType": queue.topic == retryTopic ? "TAG" : subscription.type,
            ])
    }

    private func take(
        _ reply: RemotingCommand, from queue: MessageQueue, _ generation: Int, in time: Duration
    ) async throws {
        switch reply.responseCode {
        case .success:
            let next = try reply.integer("nextBeginOffset")
            let messages = try ConsumedMessage.decode(reply.body, brokerName: queue.brokerName)
            beingWritten += 1
            defer { beingWritten -= 1 }
            runningInfo.pulled(messages.count, from: queue, in: time)
            let wanted = queue.topic == retryTopic ? messages : messages.filter(subscription.wants)
            let start = ContinuousClock.now
            let written = await output.write(wanted)
            runningInfo.consumed(written, from: queue, in: start.duration(to: .now))
            // Given up while writing: the lines are out, so the offset must still be committed.
            let reached = written == wanted.count ? next : wanted[written].queueOffset
            if assignments[queue]?.generation == generation {
                assignments[queue]?.offset = reached
                runningInfo.reached(reached, of: queue)
            } else if !isStopping {
                await commit(queue, Assignment(generation: generation, offset: reached, committed: nil, task: Task {}))
            }
        case .pullNotFound, .pullRetryImmediately, .pullOffsetMoved:
            let next = try reply.integer("nextBeginOffset")
            if reply.responseCode == .pullOffsetMoved { warn("\(queue): the broker moved the offset to \(next)") }
            assignments[queue]?.offset = next
            runningInfo.reached(next, of: queue)
        case .subscriptionParseFailed, .noPermission, .topicNotExist:
            throw CommandFailure("\(queue) cannot be consumed: \(words(of: reply))")
        default:
            throw RemotingError.refused(request: 11, code: reply.code, remark: reply.remark)
        }
    }

    private static func model(_ isBroadcasting: Bool) -> String { isBroadcasting ? "BROADCASTING" : "CLUSTERING" }

    private func fail(_ failure: CommandFailure) {
        if self.failure == nil { self.failure = failure }
        onFailure()
    }

    /// Tells each trouble once.
    private func warn(_ text: String) {
        guard !isStopping, warned.count < 20, warned.insert(text).inserted else { return }
        writeToStandardError("\(isatty(STDERR_FILENO) == 1 ? "\r\u{1B}[K" : "")\(text)\n")
    }
}
