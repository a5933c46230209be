import RemotingProtocol

/// A member of a consumer group that pops: its brokers know which message is in whose hands. So members share queues
/// without dividing them. A message that is not acknowledged in time goes to another member. Needs brokers of Apus or
/// RocketMQ 5.
///
/// `RocketMQ.subscribe` and `Subscriber` sit on it; by itself it is for several topics at once.
public actor PopConsumer {
    /// How a consumer works.
    public struct Options: Sendable {
        /// How long a message stays with this consumer: 1 s to 24 h. nil: as its topic says (`DeliveryPolicy.timeout`),
        /// else 60 s.
        public var timeout: Duration?
        /// Messages in hand at most: handed out and neither acknowledged nor failed, or waiting to be handed out. With
        /// several brokers each may bring one more. 1 to 4096. No more wait here than calls of `next` do, or than were
        /// handed out in a second.
        public var heldMax = 16
        /// Messages the consumer will take altogether: more are not asked for. nil: any number.
        public var takenMax: Int?
        /// One message of a queue after the other: the next one comes when the one before is acknowledged.
        public var isOrdered = false
        /// Where a group without offsets begins; nil: at the first message. Brokers know no times here.
        public var start: StartPosition?
        /// A message that was handed out is renewed again and again until so long after its delivery. Zero: it stays
        /// for its time only, which a hanging task cannot prolong. One that waits to be handed out is renewed as long
        /// as others are handed out.
        public var renewsUpTo: Duration = .zero
        /// How long a broker may wait for a message before it answers without one: 10 ms to 100 s.
        public var pollWait: Duration = .seconds(15)
        /// Time between heartbeats; brokers take a member off after 120 s without one.
        public var heartbeatInterval: Duration = .seconds(10)
        /// Time between looks at the topics' brokers and policies.
        public var routeInterval: Duration = .seconds(20)
        /// How long `close` waits for messages that were handed out and are neither acknowledged nor failed. As long a
        /// broker that is away is tried then.
        public var closeTimeout: Duration = .seconds(2)

        /// The defaults.
        public init() {}
    }

    /// Bounds of a time that brokers take, milliseconds.
    static let invisibleBounds: ClosedRange<Int64> = 0...3 * 86_400_000
    static let standardTimeout: Int64 = 60_000
    /// RocketMQ's bound.
    private static let messagesPerPop = 32
    /// A pop that does not wait may have been sent so much later than by this machine's clock, milliseconds. Nothing
    /// counts from there, but RocketMQ refuses what was sent 500 ms ago.
    static let clockSlack: Int64 = 60_000
    static let pauseAfterRefusal = Duration.seconds(5)
    static let pauseAfterError = Duration.seconds(1)
    private static let waitForPops = Duration.milliseconds(300)
    /// `close` takes so much longer than `closeTimeout` at most, whatever brokers do.
    private static let waitForBrokers = Duration.seconds(3)

    /// The consumer group.
    public nonisolated let group: String
    /// What brokers call this member.
    public nonisolated let clientID: String
    let options: Options
    let onEvent: @Sendable (ConsumerEvent) -> Void
    let connections: ServerConnections
    let acknowledger: Acknowledger
    let subscriptions: [String: Subscription]
    let runningInfo: ConsumerRunningInfo

    /// A topic on a broker: polled by one task.
    struct Source: Hashable {
        let topic: String
        let broker: String
    }

    /// A message in hand.
    final class Held {
        var claim: PopClaim
        let message: ReceivedMessage
        let attempt: Int
        let since = ContinuousClock.now
        var deadline: ContinuousClock.Instant
        /// As long as it was given to this consumer at first, milliseconds.
        let time: Int64
        var handedOut: ContinuousClock.Instant?
        /// Since it was handed out.
        var renewsUpTo = Duration.zero
        /// By a handler, whose end settles it.
        var isHandled = false
        /// A request about it is under way; others wait for it.
        var isBusy = false
        var whenFree: [CheckedContinuation<Void, Never>] = []

        init(
            _ delivery: PopDelivery, _ claim: PopClaim, time: Int64, until deadline: ContinuousClock.Instant
        ) {
            self.claim = claim
            message = delivery.message
            attempt = delivery.attempt
            self.time = time
            self.deadline = deadline
        }

        /// Whether more than half of its time is over.
        var isHalfOver: Bool { ContinuousClock.now.duration(to: deadline) < .milliseconds(time) / 2 }
    }

    var held: [Int: Held] = [:]
    private var numbers = 0
    /// Handled messages that have run out.
    var ranOut: Set<Int> = []
    /// Messages to be handed out: those of the topic of highest priority first, then as they came.
    var arrived: [Int] = []
    /// Messages that are asked for.
    private var reserved = 0
    private var whenRoom: [CheckedContinuation<Void, Never>] = []
    /// Calls of `next` under way.
    private var callers = 0
    private var taken = 0
    private var takingRate = TakingRate()
    var lastTaken = ContinuousClock.now
    var takers: [(number: Int, continuation: CheckedContinuation<Void, Never>)] = []
    var policies: [String: DeliveryPolicy] = [:]
    private var polls: [Source: Task<Void, Never>] = [:]
    /// Connections on which a heartbeat was sent.
    var announced: [String: Int] = [:]
    /// Addresses of brokers that do not know that a message failed, only when it is to come again. The value is the
    /// epoch of the connection on which they have shown it: another one may lead to another version.
    var withoutStrategies: [String: Int] = [:]
    /// Brokers that do not know pops.
    private var withoutPops: Set<String> = []
    private var pollClocks: [String: PollClock] = [:]
    private var tasks: [Task<Void, Never>] = []
    var hasStarted = false
    var isClosing = false
    var isStopping = false
    /// Set when the consumer ends.
    var haste: Haste?
    private var closed = false
    /// Why there will be no more messages.
    private var failure: RocketMQClientError?
    var handlers = 0

    /// A consumer; nothing is connected before `start()`.
    ///
    /// - Parameter onEvent: called on any thread, quickly.
    /// - Throws: `invalidArgument` for settings and options that cannot work.
    public init(
        _ settings: ClientSettings, group: String, subscriptions: [Subscription], options: Options = Options(),
        onEvent: @escaping @Sendable (ConsumerEvent) -> Void = { _ in }
    ) throws(RocketMQClientError) {
        guard !group.isEmpty else { throw .invalidArgument("a consumer needs a group") }
        guard !subscriptions.isEmpty else { throw .invalidArgument("a consumer needs a subscription") }
        guard Set(subscriptions.map(\.topic)).count == subscriptions.count else {
            throw .invalidArgument("a consumer has one subscription of a topic")
        }
        try options.check()
        let runningInfo = ConsumerRunningInfo(
            group: group, subscriptions: subscriptions, nameServers: settings.nameServers.joined(separator: ";"),
            isOrdered: options.isOrdered, parallelism: options.heldMax, clientVersion: settings.clientVersion,
            properties: [("messageModel", "CLUSTERING"), ("messageRequestMode", "POP")])
        connections = try ServerConnections(settings) { _, request in
            switch request.requestCode {
            // Brokers keep the offsets of those that pop, and choose what each of them gets.
            case .notifyConsumerIDsChanged: return nil
            case .resetConsumerClientOffset: return .response(.success)
            case .getConsumerRunningInfo, .getConsumerStatusFromClient: return runningInfo.answer(request)
            default:
                return .response(
                    .requestCodeNotSupported, remark: "this client does not answer request \(request.code)")
            }
        }
        self.runningInfo = runningInfo
        self.group = group
        self.options = options
        self.onEvent = onEvent
        self.subscriptions = Dictionary(uniqueKeysWithValues: subscriptions.map { ($0.topic, $0) })
        clientID = settings.clientID ?? ClientIdentity.make()
        acknowledger = Acknowledger(connections)
    }

    // MARK: - Life cycle

    /// Joins the group and begins to pop. Call it once.
    ///
    /// - Throws: `topicNotFound` when none of the topics exists, `queueNotFound` when none can be read. `noNameServer`,
    ///   `closed`, and why a broker refuses this member or none can be reached. `close()` is needed then, too.
    public func start() async throws(RocketMQClientError) {
        guard !isClosing else { throw .closed }
        let routes = try await routes()
        guard !routes.isEmpty else {
            throw .topicNotFound(
                topic: subscriptions.keys.sorted().joined(separator: ", "), nameServers: connections.nameServers)
        }
        guard routes.contains(where: { !$0.route.readable.isEmpty }) else {
            throw .queueNotFound(
                topic: routes[0].topic,
                reason: "exists, and none of its queues may be read (its perm, or brokerPermission, has no 4)")
        }
        try await announce(toAll: Set(routes.flatMap { $0.route.brokers }))
        await readPolicies()
        // `close` may have come meanwhile.
        guard !isClosing else { throw .closed }
        hasStarted = true
        pollAll(routes)
        every(options.heartbeatInterval) { await $0.heartbeat() }
        every(options.routeInterval) { await $0.refresh() }
        every(.milliseconds(200)) { $0.lookAfterHeld() }
    }

    /// Gives back what waits to be handed out, so that other members get it at once. Waits for what is in use
    /// (`closeTimeout`) and gives it back, too. Leaves the group and closes all connections.
    public func close() async {
        guard !isClosing else { return await whenClosed() }
        isClosing = true
        await hurry()
        for task in tasks { task.cancel() }
        wakeAll()
        let connections = connections
        let bound = Task.detached { [time = options.closeTimeout + Self.waitForBrokers] in
            // What waits for a broker then fails.
            if (try? await Task.sleep(for: time)) != nil { await connections.close() }
        }
        defer { bound.cancel() }
        let waiting = Task { await giveBackWaiting() }
        let limit = ContinuousClock.now + options.closeTimeout
        while isInUse, ContinuousClock.now < limit { await Pause.whatever(.milliseconds(10)) }
        await waiting.value
        await giveBackAll()
        let command = RemotingCommand(.unregisterClient, extFields: ["clientID": clientID, "consumerGroup": group])
        for address in await connections.knownBrokers {
            _ = try? await connections.invoke(address, command, timeout: .seconds(2))
        }
        // Pops under way may bring messages, while some come. One that waits in vain ends with its connection.
        let waitLimit = ContinuousClock.now + Self.waitForPops
        while reserved > 0, ContinuousClock.now < waitLimit { await Pause.whatever(.milliseconds(5)) }
        await giveBackAll()
        await connections.close()
        closed = true
    }

    private func whenClosed() async {
        while !closed { await Pause.whatever(.milliseconds(10)) }
    }

    private var isInUse: Bool { handlers > 0 || held.values.contains { $0.handedOut != nil } }

    /// Asks for no more messages, and gives back those that wait: nothing is to come here again. `close` is about to be
    /// called.
    package func stop() async {
        guard !isStopping, !isClosing else { return }
        isStopping = true
        await hurry()
        wakeAll()
        await giveBackWaiting()
    }

    private func hurry() async {
        guard haste == nil else { return }
        let haste = Haste(options.closeTimeout)
        self.haste = haste
        await acknowledger.hurry(haste)
    }

    /// Ends the consumer's work for a reason that waiting does not mend.
    func fail(with error: RocketMQClientError) {
        guard failure == nil, !isClosing else { return }
        failure = error
        wakeAll()
    }

    private func wakeAll() {
        wakeTakers()
        freed()
    }

    func wakeTakers() {
        let waiting = takers
        takers = []
        for taker in waiting { taker.continuation.resume() }
    }

    private func every(_ interval: Duration, _ action: @escaping @Sendable (isolated PopConsumer) async -> Void) {
        tasks.append(
            Task {
                while (try? await Task.sleep(for: interval)) != nil { await action(self) }
            })
    }

    func warn(_ text: String) {
        if !isClosing { onEvent(.warning(text)) }
    }

    // MARK: - Taking

    /// The next message; waits for one. nil when the consumer was closed or the task cancelled.
    ///
    /// - Throws: what waiting does not mend: the filter's expression does not compile, the broker does not pop.
    public func next() async throws(RocketMQClientError) -> DeliveredMessage? {
        callers += 1
        defer { callers -= 1 }
        while true {
            if let failure { throw failure }
            if isClosing || isStopping || Task.isCancelled { return nil }
            if let number = arrived.first, let one = held[number] {
                arrived.removeFirst()
                if one.isHalfOver {
                    // It has waited here for long: the time of who consumes it begins now.
                    guard (try? await renew(number, for: nil)) ?? false else {
                        drop(number)
                        continue
                    }
                    guard !isClosing, !isStopping, !Task.isCancelled else {
                        // `close` gives back what is in hand; a cancelled task leaves it to others.
                        if held[number] != nil { arrived.insert(number, at: 0) }
                        wakeTakers()
                        return nil
                    }
                }
                let now = ContinuousClock.now
                one.handedOut = now
                one.renewsUpTo = options.renewsUpTo
                lastTaken = now
                taken += 1
                takingRate.note(at: now)
                freed()
                return DeliveredMessage(one.message, attempt: one.attempt, number: number, of: self)
            }
            await waitForMessage()
        }
    }

    private func waitForMessage() async {
        numbers += 1
        let number = numbers
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard !Task.isCancelled else { return continuation.resume() }
                takers.append((number, continuation))
                // What was not asked for, because none waited for it, is now.
                freed()
            }
        } onCancel: {
            Task { await self.wakeTaker(number) }
        }
    }

    private func wakeTaker(_ number: Int) {
        guard let index = takers.firstIndex(where: { $0.number == number }) else { return }
        takers.remove(at: index).continuation.resume()
    }

    // MARK: - Popping

    private func pollAll(_ routes: [(topic: String, route: QueueRoute)]) {
        let sources = Set(
            routes.flatMap { topic, route in
                Set(route.readable.map(\.brokerName)).map { Source(topic: topic, broker: $0) }
            })
        for (source, task) in polls where !sources.contains(source) {
            polls[source] = nil
            task.cancel()
        }
        for source in sources where polls[source] == nil && !isClosing {
            polls[source] = Task { await poll(source) }
        }
        // Those that were taken off and wait for room end.
        freed()
    }

    private func refresh() async {
        do throws(RocketMQClientError) {
            let routes = try await routes()
            await readPolicies()
            if !routes.isEmpty { pollAll(routes) }
        } catch {
            warn("routes: \(error)")
        }
    }

    private func poll(_ source: Source) async {
        var backOff = BackOff(first: .milliseconds(20), longest: .seconds(1))
        var attemptID: String?
        var isHot = false
        var routeAge: Duration?
        while true {
            guard let request = await request(to: source, isHot: isHot) else { return }
            let began = ContinuousClock.now
            do throws(RocketMQClientError) {
                if request.isOrdered, attemptID == nil {
                    attemptID = "\(clientID)#\(UInt64.random(in: .min ... .max))"
                }
                let count = try await pop(source, request, attemptID: attemptID, routeAge)
                attemptID = nil
                routeAge = nil
                isHot = count == request.messagesMax
                if count == 0, request.waits, began.duration(to: .now) < .milliseconds(20) {
                    // Not waited at all: the broker has too many that wait.
                    try? await Task.sleep(for: backOff.next())
                } else {
                    backOff.reset()
                }
            } catch {
                isHot = false
                switch error {
                case .closed: break
                case .refused(let refusal):
                    await refused(error, refusal, source)
                default:
                    // It may be back elsewhere.
                    routeAge = ServerConnections.routeAgeAfterFailure
                    warn("\(source.topic) at broker \(source.broker): \(error)")
                    try? await Task.sleep(for: backOff.next())
                }
            }
            reserved -= request.messagesMax
            freed()
        }
    }

    private func refused(_ error: RocketMQClientError, _ refusal: ServerRefusal, _ source: Source) async {
        switch refusal.responseCode {
        case .subscriptionParseFailed, .invalidParameter: fail(with: error)
        case .requestCodeNotSupported:
            let error = RocketMQClientError.notSupported(
                """
                broker \(source.broker) (\(refusal.address)) does not hand out single messages (POP): it is of \
                RocketMQ 4. Consume by queues (PushConsumer; apus consume without --mode), by mode topic, or upgrade \
                the broker
                """)
            withoutPops.insert(source.broker)
            guard polls.keys.contains(where: { !withoutPops.contains($0.broker) }) else { return fail(with: error) }
            if !isClosing {
                onEvent(.failed(MessageQueue(topic: source.topic, brokerName: source.broker, queueID: -1), error))
            }
            try? await Task.sleep(for: Self.pauseAfterRefusal)
        case .noPermission, .topicNotExist, .subscriptionGroupNotExist:
            if !isClosing {
                onEvent(.failed(MessageQueue(topic: source.topic, brokerName: source.broker, queueID: -1), error))
            }
            try? await Task.sleep(for: Self.pauseAfterRefusal)
        default:
            warn("\(source.topic) at broker \(source.broker): \(error)")
            try? await Task.sleep(for: Self.pauseAfterError)
        }
    }

    /// What a pop asks for.
    private struct Request {
        let messagesMax: Int
        /// The broker may wait for a message.
        let waits: Bool
        /// One message of a queue after the other.
        let isOrdered: Bool
    }

    /// Waits until there is room, and reserves it.
    ///
    /// - Parameter isHot: the last pop has brought all that it asked for.
    /// - Returns: nil when the consumer does not poll the topic at this broker any more.
    private func request(to source: Source, isHot: Bool) async -> Request? {
        while !isClosing, !isStopping, failure == nil, polls[source] != nil, !Task.isCancelled {
            if let request = possibleRequest(to: source, isHot: isHot) {
                reserved += request.messagesMax
                return request
            }
            await withCheckedContinuation { whenRoom.append($0) }
        }
        return nil
    }

    /// nil: there is no room, or no wish for more messages.
    private func possibleRequest(to source: Source, isHot: Bool) -> Request? {
        guard held.count < options.heldMax, !isPreceded(source.topic) else { return nil }
        // What waits here for long would be missed elsewhere.
        var wanted = max(callers, takingRate.count(at: .now)) - arrived.count
        if let most = options.takenMax { wanted = min(wanted, most - taken - arrived.count) }
        guard wanted > 0 else { return nil }
        let free = min(options.heldMax - held.count, wanted) - reserved
        guard !isOrdered(source.topic) else { return Request(messagesMax: 1, waits: true, isOrdered: true) }
        if polls.count == 1 {
            return Request(messagesMax: min(Self.messagesPerPop, max(1, free)), waits: true, isOrdered: false)
        }
        // A pop that waits would keep others from the room it asks for. Only one that is answered at once asks for more
        // than a message.
        let isQuick = isHot && free > 1
        return Request(
            messagesMax: isQuick ? min(Self.messagesPerPop, free) : 1, waits: !isQuick, isOrdered: false)
    }

    /// Brokers of Apus order a topic's shards by themselves; then a client asks as one of an ordered group does.
    private func isOrdered(_ topic: String) -> Bool {
        options.isOrdered || policies[topic].map { $0.mode == .queue && $0.isSharded == true } ?? false
    }

    /// Messages of a topic with a higher priority wait to be handed out.
    private func isPreceded(_ topic: String) -> Bool {
        guard subscriptions.count > 1, let first = arrived.first, let message = held[first] else { return false }
        return priority(of: message.claim.topic) > priority(of: topic)
    }

    func priority(of topic: String) -> Int { policies[topic]?.priority ?? 5 }

    func freed() {
        let waiting = whenRoom
        whenRoom = []
        for continuation in waiting { continuation.resume() }
    }

    private func pop(
        _ source: Source, _ request: Request, attemptID: String?, _ routeAge: Duration?
    ) async throws(RocketMQClientError) -> Int {
        let address = try await connections.master(of: source.broker, topic: source.topic, maxAge: routeAge)
        try await announce(to: address)
        let wait = request.waits ? options.pollWait : .zero
        var query = PopQuery(group: group, topic: source.topic)
        query.messagesMax = request.messagesMax
        query.invisibleMilliseconds = timeout(of: source.topic)
        query.wait = wait
        query.beginsAtEnd = options.start == .last
        query.isOrdered = request.isOrdered
        query.attemptID = attemptID
        if pollClocks[address, default: PollClock()].isSent {
            query.bornTime = WallClock.milliseconds + (request.waits ? 0 : Self.clockSlack)
        }
        if let subscription = subscriptions[source.topic] {
            query.expression = subscription.expression
            query.expressionType = subscription.expressionType
        }
        let asked = ContinuousClock.now
        let reply = try await connections.invoke(
            address, query.command, timeout: connections.requestTimeout + wait + .seconds(7))
        if request.waits {
            let isEarly = reply.responseCode == .pollingTimeout && asked.duration(to: .now) < wait / 2
            if pollClocks[address, default: PollClock()].answered(isEarly: isEarly), wait >= .seconds(1) {
                warn(
                    """
                    broker \(source.broker) (\(address)) answers that pops were under way for too long: the clock of \
                    this machine may be behind; compare it (date) with the broker's
                    """)
            }
        }
        if reply.responseCode != .requestCodeNotSupported { withoutPops.remove(source.broker) }
        switch reply.responseCode {
        case .success: break
        case .pollingTimeout, .pollingFull, .pullNotFound: return 0
        default: throw .refused(ServerRefusal(address: address, reply: reply))
        }
        let deliveries = try PopDelivery.decode(reply, group: group, brokerName: source.broker, address: address)
        received(deliveries, of: source, since: asked)
        return deliveries.count
    }

    private func received(_ deliveries: [PopDelivery], of source: Source, since asked: ContinuousClock.Instant) {
        if let first = deliveries.first {
            runningInfo.pulled(deliveries.count, from: first.message.queue, in: asked.duration(to: .now))
        }
        for delivery in deliveries {
            let claim = PopClaim(group: group, topic: source.topic, handle: delivery.handle)
            let time = min(max(1, delivery.handle.invisibleTime), Self.invisibleBounds.upperBound)
            numbers += 1
            let number = numbers
            held[number] = Held(delivery, claim, time: time, until: .now + .milliseconds(time))
            if let subscription = subscriptions[source.topic], !subscription.selects(delivery.message) {
                // Brokers select by the tag's hash: another tag has the same.
                held[number]?.handedOut = .now
                Task { _ = try? await acknowledge(number) }
                continue
            }
            if isStopping || isClosing {
                Task { await giveBack(number) }
                continue
            }
            let rank = priority(of: source.topic)
            let index =
                subscriptions.count == 1
                ? nil : arrived.firstIndex { held[$0].map { priority(of: $0.claim.topic) < rank } ?? false }
            arrived.insert(number, at: index ?? arrived.count)
        }
        wakeTakers()
    }
}

extension PopConsumer.Options {
    /// - Throws: `invalidArgument`, with the bounds.
    func check() throws(RocketMQClientError) {
        if let timeout, !(.seconds(1) ... .seconds(86_400)).contains(timeout) {
            throw .invalidArgument("timeout is 1 s to 24 h, not \(timeout)")
        }
        guard 1...4096 ~= heldMax else { throw .invalidArgument("heldMax is 1 to 4096, not \(heldMax)") }
        if let takenMax, takenMax < 1 { throw .invalidArgument("takenMax is 1 or more, not \(takenMax)") }
        guard (.milliseconds(10) ... .seconds(100)).contains(pollWait) else {
            throw .invalidArgument("pollWait is 10 ms to 100 s, not \(pollWait)")
        }
        if case .time? = start {
            throw .invalidArgument(
                "a group that pops begins at the first message or at the last; set its offsets by a time with "
                    + "apus admin resetOffsetByTime")
        }
    }
}

/// Which time pops to a broker bear. RocketMQ's need this machine's; to those of Apus 0 says that clocks may differ.
struct PollClock {
    /// Answers that came too early, in a row.
    private var early = 0
    private(set) var isSent = true

    /// - Returns: whether neither form does.
    mutating func answered(isEarly: Bool) -> Bool {
        guard isEarly else {
            early = 0
            return false
        }
        early += 1
        isSent.toggle()
        return early == 6
    }
}

/// Messages handed out in a second, about.
private struct TakingRate {
    private var begin = ContinuousClock.now
    private var before = 0
    private var current = 0

    mutating func note(at now: ContinuousClock.Instant) {
        roll(to: now)
        current += 1
    }

    mutating func count(at now: ContinuousClock.Instant) -> Int {
        roll(to: now)
        return max(before, current)
    }

    private mutating func roll(to now: ContinuousClock.Instant) {
        let passed = begin.duration(to: now)
        guard passed >= .seconds(1) else { return }
        (before, current) = (passed < .seconds(2) ? current : 0, 0)
        begin = now
    }
}
