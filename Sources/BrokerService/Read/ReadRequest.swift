import MessageStore
import RemotingProtocol

/// One request for messages of a queue while it is worked on: its fields, resolved to the broker's own objects. So it
/// can wait (long polling, filter worker) after its frame was freed. A subclass answers it. Confined to the broker's
/// event loop.
class ReadRequest {
    // The broker owns it.
    private unowned(unsafe) let reader: MessageReader
    let client: ClientContext
    let topic: TopicEntry
    let group: SubscriptionGroupEntry
    let queueID: Int32
    /// Moves forward while the request is suspended and its filter refuses what arrives.
    var queueOffset: Int64
    /// Messages wanted at most, at least 1.
    let maxMessageNums: Int
    /// Bytes of messages wanted at most, if the client names a bound.
    let maxMessageBytes: Int?
    /// The client lets the broker suspend the request, for so long.
    let maySuspend: Bool
    let suspendTimeoutMilliseconds: Int64
    let filter: SubscriptionFilter
    /// What other clients of the group want of the topic, if that is something else.
    var others: [Subscription] = []

    // MARK: - While it waits (PullRequestHold)

    var queue: ConsumeQueue?
    /// It is resumed when its expression is compiled.
    var awaitsCompilation = false
    /// How often it was resumed without there being a result.
    var compilationsAwaited = 0
    /// Until when it reads on after filtered messages that did not match; `nil`: it has not begun to.
    var scanUntilMilliseconds: Int64?
    var isHeld = false
    /// The list of its queue it waits in.
    var list: PullList?
    var nextInList: ReadRequest?
    unowned(unsafe) var previousInList: ReadRequest?
    /// Its index among the suspended requests of its connection.
    var placeInClient = 0
    /// Milliseconds since 1970; 0 until first suspended.
    var deadlineMilliseconds: Int64 = 0
    var listDeadlineMilliseconds: Int64 = 0
    var listKey: Int64 = 0
    var nextByDeadline: ReadRequest?
    unowned(unsafe) var previousByDeadline: ReadRequest?

    init(
        by reader: MessageReader, client: ClientContext, topic: TopicEntry, group: SubscriptionGroupEntry,
        queueID: Int32, queueOffset: Int64, maxMessageNums: Int, maxMessageBytes: Int?, maySuspend: Bool,
        suspendTimeoutMilliseconds: Int64, filter: SubscriptionFilter
    ) {
        self.reader = reader
        self.client = client
        self.topic = topic
        self.group = group
        self.queueID = queueID
        self.queueOffset = queueOffset
        self.maxMessageNums = max(1, maxMessageNums)
        self.maxMessageBytes = maxMessageBytes
        self.maySuspend = maySuspend
        self.suspendTimeoutMilliseconds = suspendTimeoutMilliseconds
        self.filter = filter
    }

    /// Reads again; after its deadline it is answered, not suspended.
    final func resume(expired: Bool) { reader.read(self, expired: expired) }

    /// Its connection has closed: it is not answered.
    func abandoned() {}

    /// Answers it, once.
    /// - Parameter found: ranges of the log with what was found; valid inside this call.
    func answer(_ outcome: ReadOutcome, _ found: [LogRange]) {
        preconditionFailure("a kind of read request has no answer")
    }
}

extension ReadRequest: FilterWaiter {
    final func filterAnswered(_ hasVerdicts: Bool, expired: Bool) {
        if hasVerdicts { reader.read(self, expired: expired) } else { reader.notFiltered(self, expired) }
    }
}

/// What came of a read.
enum ReadOutcome {
    /// The queue was read: messages were found, or the result states why not.
    case read(GetMessageResult)
    /// As much as one read may look at was looked at without a message that is wanted: the next one begins at
    /// `nextBeginOffset`.
    case noMatch(GetMessageResult)
    /// Nothing can be answered now; `nextBeginOffset` is the request's own offset.
    case nothingYet(GetMessageResult)
    case refused(ResponseCode, remark: String)
}
