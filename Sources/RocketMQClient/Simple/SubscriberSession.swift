import RemotingProtocol

/// What a subscriber does: by a consumer that pops, or by one that pulls every queue for itself.
actor SubscriberSession {
    enum Source: Sendable {
        case pops(PopConsumer, DeliveryMode, workers: Int)
        case pulls(PushConsumer, BroadcastInbox, workers: Int)

        var mode: DeliveryMode {
            switch self {
            case .pops(_, let mode, _): mode
            case .pulls: .topic
            }
        }

        var workers: Int {
            switch self {
            case .pops(_, _, let workers), .pulls(_, _, let workers): workers
            }
        }
    }

    /// Of messages that wait, in mode `.topic`, all queues together; each queue may bring one pull more.
    private static let pulledBytesMax = 64 << 20

    private let settings: ClientSettings
    private let subscription: Subscription
    private let mode: DeliveryMode?
    private let group: String?
    private let options: Subscriber.Options
    private var starting: Task<Result<Source, RocketMQClientError>, Never>?
    private var isClosed = false

    init(
        _ settings: ClientSettings, _ subscription: Subscription, mode: DeliveryMode?, group: String?,
        options: Subscriber.Options
    ) {
        self.settings = settings
        self.subscription = subscription
        self.mode = mode
        self.group = group
        self.options = options
    }

    /// Starts at the first call.
    func source() async throws(RocketMQClientError) -> Source {
        if let starting { return try await starting.value.get() }
        guard !isClosed else { throw .closed }
        // Not of the caller's task: its cancellation must not end the other loops.
        let task = Task.detached { [self] in
            do throws(RocketMQClientError) {
                return Result<Source, RocketMQClientError>.success(try await start())
            } catch {
                return .failure(error)
            }
        }
        starting = task
        return try await task.value.get()
    }

    func next() async throws(RocketMQClientError) -> DeliveredMessage? {
        guard !isClosed else { return nil }
        switch try await source() {
        case .pops(let consumer, _, _): return try await consumer.next()
        case .pulls(_, let inbox, _):
            return try await inbox.next().map { DeliveredMessage($0, attempt: 1, number: nil, of: nil) }
        }
    }

    func close() async {
        isClosed = true
        guard let starting, case .success(let source) = await starting.value else { return }
        switch source {
        case .pops(let consumer, _, _): await consumer.close()
        case .pulls(let consumer, let inbox, _):
            await inbox.close()
            await consumer.close()
        }
    }

    /// The task of the handlers was cancelled: nothing is to come here any more, while some may still run.
    func stop() async {
        guard let starting, case .success(.pops(let consumer, _, _)) = await starting.value else { return }
        await consumer.stop()
    }

    /// One call of a handler.
    nonisolated func handle(
        _ message: DeliveredMessage, _ handler: @Sendable (DeliveredMessage) async throws -> Void
    ) async {
        let consumer: PopConsumer? =
            if case .pops(let consumer, _, _)? = try? await source() { consumer } else { nil }
        let number = message.number ?? -1
        await consumer?.handlerBegins(number, renewsUpTo: options.renewsUpTo)
        var isConsumed = false
        do {
            try await handler(message)
            do throws(RocketMQClientError) {
                try await message.acknowledge()
                isConsumed = true
            } catch {
                options.onEvent(.warning("message \(message.messageID) not acknowledged, it comes again: \(error)"))
            }
        } catch {
            await failed(message, error, consumer)
        }
        if await consumer?.handlerEnds(number) ?? false, isConsumed {
            options.onEvent(
                .warning("message \(message.messageID) was consumed when its time was over: it comes again"))
        }
    }

    private nonisolated func failed(_ message: DeliveredMessage, _ cause: any Error, _ consumer: PopConsumer?) async {
        if Task.isCancelled, cause is CancellationError {
            // It has not failed: who takes it over begins at once.
            await consumer?.stop()
            await message.giveBack()
            return
        }
        options.onEvent(.warning("message \(message.messageID) not consumed: \(cause)"))
        do throws(RocketMQClientError) {
            try await message.fail(reason: "\(cause)")
        } catch {
            options.onEvent(.warning("message \(message.messageID) comes again when its time is over: \(error)"))
        }
    }

    // MARK: - Starting

    private func start() async throws(RocketMQClientError) -> Source {
        let (mode, queues) = try await self.mode(of: subscription.topic)
        guard mode != .topic else { return try await startPulling(queues: queues) }
        var popping = PopConsumer.Options()
        popping.timeout = options.timeout
        popping.heldMax = mode == .serial ? 1 : options.heldMax
        popping.isOrdered = mode == .serial
        popping.start = options.start
        popping.renewsUpTo = options.renewsUpTo ?? .zero
        popping.closeTimeout = options.closeTimeout
        let consumer = try PopConsumer(
            settings, group: group ?? subscription.topic, subscriptions: [subscription], options: popping,
            onEvent: options.onEvent)
        do throws(RocketMQClientError) {
            try await consumer.start()
        } catch {
            await consumer.close()
            throw error
        }
        return .pops(consumer, mode, workers: popping.heldMax)
    }

    private func startPulling(queues: Int) async throws(RocketMQClientError) -> Source {
        guard 1...4096 ~= options.heldMax else {
            throw .invalidArgument("heldMax is 1 to 4096, not \(options.heldMax)")
        }
        let inbox = BroadcastInbox()
        var pulling = PushConsumer.Options()
        pulling.model = .broadcasting
        // One after the other to the loops, in the order of each queue.
        pulling.order = .concurrent(1)
        pulling.start = options.start ?? .last
        pulling.pullBatchSize = min(pulling.pullBatchSize, options.heldMax)
        pulling.waitingMessagesMax = options.heldMax
        pulling.waitingBytesMax = Self.pulledBytesMax / max(1, queues)
        pulling.closeTimeout = options.closeTimeout
        let onEvent = options.onEvent
        let consumer = try PushConsumer(
            settings, group: group ?? subscription.topic + "_broadcast", subscriptions: [subscription],
            options: pulling,
            onEvent: { event in
                onEvent(event)
                guard case .failed(_, let error) = event, error.refusal == .subscriptionParseFailed else { return }
                Task { await inbox.fail(error) }
            },
            handler: { messages in
                var taken = 0
                for message in messages {
                    guard await inbox.offer(message) else { return .stop(consumed: taken) }
                    taken += 1
                }
                return .success
            })
        do throws(RocketMQClientError) {
            try await consumer.start()
        } catch {
            await inbox.close()
            await consumer.close()
            throw error
        }
        return .pulls(consumer, inbox, workers: options.heldMax)
    }

    /// The mode wanted, if the topic has no other; the topic's. And how many queues it has.
    private func mode(of topic: String) async throws(RocketMQClientError) -> (DeliveryMode, queues: Int) {
        let connections = try ServerConnections(settings)
        do throws(RocketMQClientError) {
            let mode = try await connections.mode(of: topic, wanted: mode)
            let queues = try await connections.route(of: topic)?.readable.count ?? 0
            await connections.close()
            return (mode, queues)
        } catch {
            await connections.close()
            throw error
        }
    }
}

extension ServerConnections {
    /// The mode a topic is to be consumed by: its own, the one wanted if it has none, without both `.queue`.
    ///
    /// - Throws: `noNameServer`, `topicNotFound`; `invalidArgument` for a mode the topic does not have, with the
    ///   remedy.
    package func mode(of topic: String, wanted: DeliveryMode?) async throws(RocketMQClientError) -> DeliveryMode {
        guard let policy = try await policy(of: topic), let route = try await route(of: topic) else {
            throw .topicNotFound(topic: topic, nameServers: nameServers)
        }
        if let wanted, let known = policy.mode, wanted != known {
            throw .invalidArgument(
                "topic '\(topic)' has the mode \(known.rawValue), not \(wanted.rawValue): subscribe with its mode, or "
                    + "change the topic's")
        }
        let mode = wanted ?? policy.mode ?? .queue
        let queues = route.readable.count
        if mode == .serial, queues > 1 {
            throw .invalidArgument(
                "topic '\(topic)' has \(queues) queues, and only messages of one queue are in order: create a topic of "
                    + "mode \(DeliveryMode.serial.rawValue), or subscribe with mode \(DeliveryMode.queue.rawValue)")
        }
        return mode
    }
}
