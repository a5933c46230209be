/// What a handler returns for the messages it was given.
public enum ConsumeResult: Sendable, Hashable {
    /// All are consumed.
    case success
    /// Consuming failed. A concurrent consumer sends all of them back to the broker, which delivers them to the group
    /// later. The pause is longer each time (`delayLevel` 0), or that of a delay level. After too many times they go to
    /// the group's dead letter queue (`delayLevel` below 0: at once). An ordered consumer gets the same messages again
    /// after `orderedRetryPause`. A broadcasting consumer goes on without them.
    case retry(delayLevel: Int = 0)
    /// The first `consumed` messages are consumed; the consumer takes no more of this queue. For a handler whose
    /// consumer is about to be closed: the next consumer of the group begins with the rest.
    case stop(consumed: Int)
}

/// What happens to a consumer beside its messages.
public enum ConsumerEvent: Sendable {
    /// Something failed that is tried again.
    case warning(String)
    /// A queue cannot be pulled because of the broker's configuration or the subscription. The expression does not
    /// compile, reading is not permitted, or the topic was deleted. It is tried again every few seconds.
    case failed(MessageQueue, RocketMQClientError)
    /// The queues this member has from now on, sorted.
    case assigned([MessageQueue])
}

extension PushConsumer {
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
        /// Where to begin without an offset; nil: at the first message, or where the broker decides. A given position
        /// also counts for a queue whose committed offset is 0: brokers answer that for new groups, too. A broadcasting
        /// consumer with `.last` begins at the end of the queues that are there when it is started. Of one that is seen
        /// later it misses nothing that was sent since.
        public var start: StartPosition?
        /// Messages asked for in one pull.
        public var pullBatchSize = 32
        /// Messages handed out in one call at most.
        public var consumeBatchSize = 1
        /// A queue is not pulled while so many of its messages wait to be consumed, or so many bytes of bodies.
        public var waitingMessagesMax = 1000
        /// See `waitingMessagesMax`; bytes.
        public var waitingBytesMax = 100 << 20
        /// How often a message may be sent back before it goes to the dead letter queue. Nil: the group's configuration
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
}
