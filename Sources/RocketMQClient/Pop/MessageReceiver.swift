import RemotingProtocol

/// Receives messages call by call, for any number of topics and groups: for servers that pass messages on and keep
/// none, such as a gateway for HTTP. A program that consumes by itself has `Subscriber` and `PopConsumer`.
///
/// Calls that wait for the same share their requests to brokers: one waits at each broker, however many calls there
/// are. Brokers are asked in turn. What comes when no call waits any more is given back at once. Needs brokers of Apus
/// or RocketMQ 5. Any thread.
public actor MessageReceiver {
    /// A request waits so long at a broker.
    private static let pollMax = Duration.seconds(15)
    /// Deadlines are looked at so much later at most.
    private static let granularity = Duration.milliseconds(20)
    private static let pauseAfterFailure = Duration.seconds(1)
    /// Between two announcements of a group to a broker; brokers take a member off after 120 s without one.
    private static let announcementAge = Duration.seconds(30)
    private static let announcementsMax = 10_000
    /// From so many on those in which no call waits are forgotten.
    private static let idleFeedsMax = 4096
    private static let policyAge = Duration.seconds(20)
    /// So long an acknowledgement is tried.
    private static let acknowledgementTime = Duration.seconds(3)
    static let standardTimeout: Int64 = 60_000

    /// What brokers call this client.
    public nonisolated let clientID: String
    let connections: ServerConnections
    private let acknowledger: Acknowledger
    private var feeds: [ReceiverFeed.Key: ReceiverFeed] = [:]
    private var numbers = 0
    private var isStopped = false
    private var clocks: [String: PollClock] = [:]
    private var policies: [String: (policy: DeliveryPolicy, at: ContinuousClock.Instant)] = [:]
    private var announcements: [Announcement: (epoch: Int?, at: ContinuousClock.Instant)] = [:]

    private struct Announcement: Hashable {
        let address: String
        let group: String
    }

    /// A receiver; no connection is made before the first call.
    ///
    /// - Throws: `invalidArgument`.
    public init(_ settings: ClientSettings) throws(RocketMQClientError) {
        connections = try ServerConnections(settings) { _, request in
            switch request.requestCode {
            case .notifyConsumerIDsChanged: nil
            case .resetConsumerClientOffset: .response(.success)
            default:
                .response(.requestCodeNotSupported, remark: "this client does not answer request \(request.code)")
            }
        }
        acknowledger = Acknowledger(connections)
        clientID = settings.clientID ?? ClientIdentity.make()
    }

    /// Receives up to `messagesMax` messages. Waits for the first one as long as `wait` says.
    ///
    /// - Returns: none when the time was over, the task was cancelled, or `stop` was called. A task that was cancelled
    ///   may get messages all the same: it gives them back (`giveBack`).
    /// - Throws: `topicNotFound`, `queueNotFound`; why no broker of the topic can be asked; why one refuses, as for an
    ///   expression that does not compile.
    public func receive(_ request: ReceiveRequest) async throws(RocketMQClientError) -> [ReceivedDelivery] {
        try request.check()
        guard !isStopped else { return [] }
        let key = ReceiverFeed.Key(
            topic: request.topic, group: request.group, expressionType: request.expressionType,
            expression: request.expression, timeout: request.timeout)
        numbers += 1
        let number = numbers
        let outcome: ReceiverFeed.Outcome = await withTaskCancellationHandler {
            await withCheckedContinuation { done in
                guard !Task.isCancelled else { return done.resume(returning: .success([])) }
                let feed = feed(key)
                feed.add(
                    number,
                    .init(messagesMax: request.messagesMax, deadline: .now + request.wait, done: done))
                feed.stir()
                guard !feed.isServed else { return }
                feed.isServed = true
                Task { await serve(feed) }
            }
        } onCancel: {
            Task { await self.leave(key, number) }
        }
        return try outcome.get()
    }

    /// One that no call waits in stays: it knows whose turn it is among the brokers.
    private func feed(_ key: ReceiverFeed.Key) -> ReceiverFeed {
        if let known = feeds[key] { return known }
        if feeds.count >= Self.idleFeedsMax { feeds = feeds.filter { !$0.value.isIdle } }
        let feed = ReceiverFeed(key)
        feeds[key] = feed
        return feed
    }

    private func leave(_ key: ReceiverFeed.Key, _ number: Int) {
        feeds[key]?.leave(number)
        feeds[key]?.stir()
    }

    /// No more messages are received: every call of `receive` returns.
    public func stop() {
        isStopped = true
        for feed in feeds.values {
            feed.end(with: .success([]))
            feed.stir()
        }
    }

    /// Stops and closes all connections. Requests under way fail.
    public func close() async {
        stop()
        await connections.close()
    }

    // MARK: - Feeds

    /// Asks the brokers while calls wait.
    private func serve(_ feed: ReceiverFeed) async {
        while !feed.isEmpty {
            do throws(RocketMQClientError) {
                let brokers = try await brokers(of: feed.key.topic)
                guard await !look(feed, at: brokers) else { continue }
                if let failure = brokers.lazy.compactMap({ feed.failures[$0] }).last,
                    brokers.allSatisfy({ feed.failures[$0] != nil })
                {
                    throw failure
                }
                expire(feed)
                guard !feed.isEmpty else { break }
                for broker in brokers where feed.busy.insert(broker).inserted {
                    Task { await wait(feed, at: broker) }
                }
                await feed.untilStirred()
            } catch {
                feed.failures = [:]
                feed.end(with: .failure(error))
            }
        }
        feed.isServed = false
    }

    /// Names of the brokers that have queues to read.
    private func brokers(of topic: String) async throws(RocketMQClientError) -> [String] {
        guard let route = try await connections.route(of: topic) else {
            throw .topicNotFound(topic: topic, nameServers: connections.nameServers)
        }
        let names = Set(route.readable.map(\.brokerName)).sorted()
        guard !names.isEmpty else {
            throw .queueNotFound(topic: topic, reason: "exists, and none of its queues may be read (its perm has no 4)")
        }
        return names
    }

    /// Asks the brokers in turn, each without waiting. Those that are waited for have nothing.
    ///
    /// - Returns: whether one had messages.
    private func look(_ feed: ReceiverFeed, at brokers: [String]) async -> Bool {
        let unseen = feed.unseen
        feed.turn &+= 1
        let start = Int(UInt(bitPattern: feed.turn) % UInt(brokers.count))
        var hasFound = false
        for broker in brokers[start...] + brokers[..<start] where !feed.isEmpty && !feed.busy.contains(broker) {
            let count = await ask(feed, broker, wait: .zero)
            hasFound = hasFound || count > 0
        }
        feed.note(seen: unseen)
        return hasFound
    }

    /// Asks a broker and lets it wait.
    private func wait(_ feed: ReceiverFeed, at broker: String) async {
        let began = ContinuousClock.now
        let wait = feed.longestWait(at: began, atMost: Self.pollMax)
        if feed.failures[broker] != nil {
            try? await Task.sleep(for: Self.pauseAfterFailure)
        } else if wait > .zero {
            let count = await ask(feed, broker, wait: wait)
            let isEarly = count == 0 && began.duration(to: .now) < .milliseconds(20)
            // Not waited at all: the broker has too many that wait, or is away.
            if isEarly { try? await Task.sleep(for: .milliseconds(200)) }
        }
        feed.busy.remove(broker)
        feed.stir()
    }

    private func expire(_ feed: ReceiverFeed) {
        let key = feed.key
        guard let next = feed.expire(at: .now) else { return }
        feed.wake(at: next + Self.granularity) { await self.timeIsOver(key) }
    }

    private func timeIsOver(_ key: ReceiverFeed.Key) {
        guard let feed = feeds[key] else { return }
        feed.timerIsOver()
        expire(feed)
        if feed.isEmpty { feed.stir() }
    }

    /// - Returns: how many messages came; a failure is noted in the feed.
    private func ask(_ feed: ReceiverFeed, _ broker: String, wait: Duration) async -> Int {
        do throws(RocketMQClientError) {
            let deliveries = try await pop(feed, broker, wait: wait)
            feed.failures[broker] = nil
            let rest = feed.deliver(deliveries)
            if !rest.isEmpty {
                let handles = rest.map(\.handle)
                Task { await giveBack(handles) }
            }
            return deliveries.count
        } catch {
            feed.failures[broker] = error
            return 0
        }
    }

    private func pop(
        _ feed: ReceiverFeed, _ broker: String, wait: Duration
    ) async throws(RocketMQClientError) -> [ReceivedDelivery] {
        let key = feed.key
        let address = try await connections.master(
            of: broker, topic: key.topic,
            maxAge: feed.failures[broker] == nil ? nil : ServerConnections.routeAgeAfterFailure)
        try await announce(key, to: address)
        let policy = await policy(of: key.topic)
        var query = PopQuery(group: key.group, topic: key.topic)
        query.isOrdered = policy.mode == .serial || policy.mode == .queue && policy.isSharded == true
        query.messagesMax = query.isOrdered ? 1 : feed.wanted
        query.invisibleMilliseconds = (key.timeout ?? policy.timeout)?.milliseconds ?? Self.standardTimeout
        query.wait = wait
        query.expression = key.expression
        query.expressionType = key.expressionType
        let waits = wait > .zero
        if clocks[address, default: PollClock()].isSent {
            query.bornTime = WallClock.milliseconds + (waits ? 0 : PopConsumer.clockSlack)
        }
        let asked = ContinuousClock.now
        let reply = try await connections.invoke(
            address, query.command, timeout: connections.requestTimeout + wait + .seconds(7))
        if waits {
            let isEarly = reply.responseCode == .pollingTimeout && asked.duration(to: .now) < wait / 2
            _ = clocks[address, default: PollClock()].answered(isEarly: isEarly)
        }
        switch reply.responseCode {
        case .success: break
        case .pollingTimeout, .pollingFull, .pullNotFound: return []
        case .requestCodeNotSupported:
            throw .notSupported(
                "broker \(broker) (\(address)) does not hand out single messages (POP): it is of RocketMQ 4; upgrade it"
            )
        default: throw .refused(ServerRefusal(address: address, reply: reply))
        }
        return try PopDelivery.decode(reply, group: key.group, brokerName: broker, address: address).map {
            ReceivedDelivery(
                message: $0.message, attempt: $0.attempt,
                handle: DeliveryHandle(topic: key.topic, group: key.group, attempt: $0.attempt, pop: $0.handle))
        }
    }

    private func policy(of topic: String) async -> DeliveryPolicy {
        if let known = policies[topic], known.at.duration(to: .now) < Self.policyAge { return known.policy }
        let found = (try? await connections.policy(of: topic)) ?? policies[topic]?.policy ?? DeliveryPolicy()
        if policies.count > Self.announcementsMax { policies = [:] }
        policies[topic] = (found, .now)
        return found
    }

    /// A broker lists the group's members by their heartbeats.
    private func announce(_ key: ReceiverFeed.Key, to address: String) async throws(RocketMQClientError) {
        let announcement = Announcement(address: address, group: key.group)
        let epoch = await connections.epoch(of: address)
        if let known = announcements[announcement], epoch != nil, known.epoch == epoch,
            known.at.duration(to: .now) < Self.announcementAge
        {
            return
        }
        let subscription = Subscription(topic: key.topic, type: key.expressionType, expression: key.expression)
        let data = ConsumerData(
            groupName: key.group, consumeFromWhere: StartPosition.first.rocketMQName,
            subscriptionDataSet: [subscription.wire])
        let body = HeartbeatData(clientID: clientID, consumerDataSet: [data]).encoded()
        _ = try await connections.demand(address, RemotingCommand(.heartBeat, body: body))
        if announcements.count > Self.announcementsMax { announcements = [:] }
        announcements[announcement] = (await connections.epoch(of: address), .now)
    }

    // MARK: - Deliveries

    /// The message is consumed: its group does not get it again. Several at once travel together. A delivery whose time
    /// was over is confirmed as well, as RocketMQ does, and its message comes again.
    ///
    /// - Throws: `topicNotFound`, `brokerNotFound`, `noNameServer`; `refused` for a handle the broker does not know; or
    ///   why it has not confirmed. The message comes again then, unless only the answer was lost.
    public func acknowledge(_ handle: DeliveryHandle) async throws(RocketMQClientError) {
        _ = try await master(of: handle)
        try await acknowledger.acknowledge(handle.claim, until: .now + Self.acknowledgementTime)
    }

    /// Consuming the message failed: the group gets it again, and after too many times it becomes a dead letter.
    ///
    /// - Parameters:
    ///   - pause: when it comes again, 1 ms to 3 days; nil: as the topic's policy says; without one as RocketMQ's
    ///     consumers have it, 10 s the first time.
    ///   - reason: kept with a dead letter that the message becomes; brokers keep 512 bytes.
    /// - Returns: false when its time was over: nothing was changed.
    /// - Throws: `invalidArgument`; as `acknowledge`.
    public func fail(
        _ handle: DeliveryHandle, retryAfter pause: Duration? = nil, reason: String? = nil
    ) async throws(RocketMQClientError) -> Bool {
        let address = try await master(of: handle)
        if let pause {
            return try await change(handle, at: address, to: try Self.milliseconds(pause)) != nil
        }
        let claim = handle.claim
        let reply: RemotingCommand
        do throws(RocketMQClientError) {
            reply = try await connections.demand(
                address, claim.change(to: -1, reason: reason.map { String($0.prefix(512)) }))
        } catch {
            guard error.refusal == .invalidParameter else { throw error }
            return try await change(
                handle, at: address, to: PopRetryPause.milliseconds(afterAttempt: handle.attempt)) != nil
        }
        guard let changed = claim.handle(after: reply) else { return false }
        guard !PopClaim.isByStrategy(reply) else { return true }
        // It took -1 for a time, and the message comes again at once: the pause is told it.
        let next = DeliveryHandle(topic: handle.topic, group: handle.group, attempt: handle.attempt, pop: changed)
        return try await change(next, at: address, to: PopRetryPause.milliseconds(afterAttempt: handle.attempt)) != nil
    }

    /// The message stays with its consumer for longer.
    ///
    /// - Parameter time: from now on, 1 ms to 3 days.
    /// - Returns: the handle from now on; nil when its time was over.
    /// - Throws: `invalidArgument`; as `acknowledge`.
    public func renew(
        _ handle: DeliveryHandle, for time: Duration
    ) async throws(RocketMQClientError) -> DeliveryHandle? {
        let milliseconds = try Self.milliseconds(time)
        return try await change(handle, at: try await master(of: handle), to: milliseconds)
    }

    /// Other consumers get the messages at once; they have not failed. A broker that is away does so when their time is
    /// over.
    public func giveBack(_ handles: [DeliveryHandle]) async {
        await withTaskGroup(of: Void.self) { tasks in
            for handle in handles {
                tasks.addTask {
                    guard let address = try? await self.master(of: handle) else { return }
                    _ = try? await self.change(handle, at: address, to: 0)
                }
            }
        }
    }

    private func master(of handle: DeliveryHandle) async throws(RocketMQClientError) -> String {
        try await connections.master(of: handle.pop.brokerName, topic: handle.topic)
    }

    private func change(
        _ handle: DeliveryHandle, at address: String, to milliseconds: Int64
    ) async throws(RocketMQClientError) -> DeliveryHandle? {
        let reply = try await connections.demand(address, handle.claim.change(to: milliseconds))
        guard let changed = handle.claim.handle(after: reply) else { return nil }
        return DeliveryHandle(topic: handle.topic, group: handle.group, attempt: handle.attempt, pop: changed)
    }

    private static func milliseconds(_ time: Duration) throws(RocketMQClientError) -> Int64 {
        guard 1...PopConsumer.invisibleBounds.upperBound ~= time.milliseconds else {
            throw .invalidArgument("a message stays or comes again after 1 ms to 3 days, not after \(time)")
        }
        return time.milliseconds
    }
}
