import MessageStore
import RemotingProtocol

/// One pull while it is worked on.
final class PullRequest: ReadRequest {
    private unowned(unsafe) let processor: PullMessageProcessor
    let address: ReturnAddress

    init(
        by processor: PullMessageProcessor, client: ClientContext, address: ReturnAddress, topic: TopicEntry,
        group: SubscriptionGroupEntry, header: PullMessageRequestHeader, suspendTimeoutMilliseconds: Int64,
        filter: SubscriptionFilter
    ) {
        self.processor = processor
        self.address = address
        super.init(
            by: processor.reader, client: client, topic: topic, group: group, queueID: header.queueID,
            queueOffset: header.queueOffset, maxMessageNums: Int(header.maxMessageNums),
            maxMessageBytes: header.maxMessageBytes.map(Int.init), maySuspend: header.hasSuspend,
            suspendTimeoutMilliseconds: suspendTimeoutMilliseconds, filter: filter)
    }

    override func answer(_ outcome: ReadOutcome, _ found: [LogRange]) { processor.answer(self, outcome, found) }
}
