/// A topic's messages as a sequence: `for try await message in subscriber`. Connects at the first message. Several
/// loops share the messages.
///
/// The loop ends when the subscriber is closed or its task cancelled. It throws what waiting does not mend:
/// `topicNotFound`, `noNameServer` and what a broker refuses at the beginning. It throws `invalidArgument` for options
/// out of bounds, and for a mode other than the topic's. While it runs, brokers may go and come: `Options.onEvent`
/// hears of it.
///
/// A subscriber that is released closes by itself. `close()` returns when it is done.
public final class Subscriber: AsyncSequence, Sendable {
    /// What a loop gets.
    public typealias Element = DeliveredMessage
    /// What a loop throws.
    public typealias Failure = RocketMQClientError

    /// How a subscriber works.
    public struct Options: Sendable {
        /// How long a message stays with this subscriber, which must acknowledge it meanwhile: 1 s to 24 h. Nil: as the
        /// topic says, else 60 s. The time begins when the loop or handler gets it.
        public var timeout: Duration?
        /// Messages in hand at most, 1 to 4096, and so many handlers at the same time. Mode `.serial` has one. Mode
        /// `.topic` has so many of each queue, and about 64 MiB altogether.
        public var heldMax = 16
        /// Where a group without offsets begins, `.first` or `.last`; nil: at the first message. Mode `.topic` begins
        /// at the end.
        public var start: StartPosition?
        /// A message in use is renewed again and again until so long after its delivery. Nil: a handler's until ten
        /// times `timeout`, a loop's not at all.
        public var renewsUpTo: Duration?
        /// How long `close` waits for handlers that run, and for messages a loop has not acknowledged. As long a broker
        /// that is away is tried then.
        public var closeTimeout: Duration = .seconds(2)
        /// Hears of what goes wrong and is tried again, and of handlers that threw. Called on any thread, quickly.
        public var onEvent: @Sendable (ConsumerEvent) -> Void = { _ in }

        /// The defaults.
        public init() {}
    }

    private let session: SubscriberSession

    /// A subscriber; nothing is connected and nothing checked before the first message.
    ///
    /// - Parameters:
    ///   - mode: who gets a message; nil: as the topic's attribute says, without one as `.queue`.
    ///   - group: who shares messages; nil: a group named like the topic.
    public init(
        _ settings: ClientSettings, _ subscription: Subscription, mode: DeliveryMode? = nil, group: String? = nil,
        options: Options = Options()
    ) {
        session = SubscriberSession(settings, subscription, mode: mode, group: group, options: options)
    }

    deinit {
        let session = session
        Task { await session.close() }
    }

    /// Connects and joins the group now instead of at the first message: in mode `.topic` messages that are published
    /// when it has returned are delivered.
    ///
    /// - Returns: the mode, which may be the topic's.
    /// - Throws: as the loop.
    @discardableResult
    public func start() async throws(RocketMQClientError) -> DeliveryMode { try await session.source().mode }

    /// Waits for handlers that run, gives back the messages in hand, so that others get them at once, and leaves the
    /// group. Loops end.
    public func close() async { await session.close() }

    /// What a loop asks for messages.
    public struct Iterator: AsyncIteratorProtocol {
        fileprivate let subscriber: Subscriber

        /// The next message; nil at the end.
        ///
        /// - Throws: see `Subscriber`.
        public mutating func next(
            isolation actor: isolated (any Actor)? = #isolation
        ) async throws(RocketMQClientError) -> DeliveredMessage? {
            try await subscriber.session.next()
        }

        /// The next message; nil at the end.
        ///
        /// - Throws: see `Subscriber`.
        public mutating func next() async throws(RocketMQClientError) -> DeliveredMessage? {
            try await subscriber.session.next()
        }
    }

    /// A loop's questions.
    public func makeAsyncIterator() -> Iterator { Iterator(subscriber: self) }

    /// Hands each message to `handler`, several at a time. One that returns has consumed its message, one that throws
    /// has failed, and the message comes again (in mode `.topic` it does not). Then the subscriber is closed.
    ///
    /// - Returns: when the task is cancelled or the subscriber closed, after handlers that run have ended. Messages of
    ///   handlers that end by the cancellation are given back.
    /// - Throws: as the loop.
    public func forEach(
        _ handler: @escaping @Sendable (DeliveredMessage) async throws -> Void
    ) async throws(RocketMQClientError) {
        let session = session
        do throws(RocketMQClientError) {
            let workers = try await session.source().workers
            let failures = await withTaskCancellationHandler {
                await withTaskGroup(of: RocketMQClientError?.self) { tasks in
                    for _ in 0..<workers {
                        tasks.addTask {
                            do throws(RocketMQClientError) {
                                while let message = try await session.next() { await session.handle(message, handler) }
                                return nil
                            } catch {
                                return error
                            }
                        }
                    }
                    return await tasks.reduce(into: [RocketMQClientError]()) { failures, one in
                        if let one { failures.append(one) }
                    }
                }
            } onCancel: {
                // Handlers may take their time to end: what waits is not to wait for them.
                Task { await session.stop() }
            }
            if let first = failures.first { throw first }
        } catch {
            await session.close()
            throw error
        }
        await session.close()
    }
}
