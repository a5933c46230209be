import MessageStore
import RemotingProtocol
import RemotingTransport

/// One pull while it is being worked on: what the request said, resolved to the broker's own objects, so that it can
/// wait (long polling, filter worker) after the frame is gone.
final class PullRequest {
    private unowned(unsafe) let processor: PullMessageProcessor
    let client: ClientContext
    let address: ReturnAddress
    let topic: TopicEntry
    let group: SubscriptionGroupEntry
    let queueId: Int32
    /// Moves forward while the pull is held and its filter refuses what arrives.
    var queueOffset: Int64
    let maxMessageNums: Int
    /// Bytes of messages wanted at most, if the client said so.
    let maxMessageBytes: Int?
    /// The client lets the broker hold the pull.
    let maySuspend: Bool
    let suspendTimeoutMillis: Int64
    let filter: SubscriptionFilter
    /// What other clients of the group want of the topic, if that is something else.
    var others: [Subscription] = []

    // Long polling (PullRequestHold).
    var queue: ConsumeQueue?
    /// Is told when its expression is compiled.
    var awaitsCompilation = false
    /// How often it was told without there being a result.
    var compilationsAwaited = 0
    /// Until when it reads on behind filtered messages that did not match; nil: it has not begun to.
    var scanUntilMillis: Int64?
    var isHeld = false
    /// The list of its queue it waits in.
    var list: PullList?
    var nextInList: PullRequest?
    unowned(unsafe) var previousInList: PullRequest?
    /// Among the held pulls of its connection.
    var placeInClient = 0
    /// Milliseconds since 1970; 0 until first held.
    var deadlineMillis: Int64 = 0
    var listDeadlineMillis: Int64 = 0
    var listKey: Int64 = 0
    var nextByDeadline: PullRequest?
    unowned(unsafe) var previousByDeadline: PullRequest?

    init(
        by processor: PullMessageProcessor, client: ClientContext, address: ReturnAddress, topic: TopicEntry,
        group: SubscriptionGroupEntry, header: PullMessageRequestHeader, suspendTimeoutMillis: Int64,
        filter: SubscriptionFilter
    ) {
        self.processor = processor
        self.client = client
        self.address = address
        self.topic = topic
        self.group = group
        self.filter = filter
        queueId = header.queueID
        queueOffset = header.queueOffset
        maxMessageNums = Int(header.maxMessageNums)
        maxMessageBytes = header.maxMessageBytes.map(Int.init)
        maySuspend = header.hasSuspend
        self.suspendTimeoutMillis = suspendTimeoutMillis
    }

    /// Runs it again; after its deadline it must be answered, not suspended.
    func resume(expired: Bool) { processor.run(self, expired: expired) }
}
