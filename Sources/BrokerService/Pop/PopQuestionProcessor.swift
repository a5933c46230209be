import Claims
import MessageModel
import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// Questions about what may be popped, which claim nothing: PEEK_MESSAGE (200052), NOTIFICATION (200054), POLLING_INFO
/// (200055). Confined to the broker's event loop.
final class PopQuestionProcessor {
    private let environment: BrokerEnvironment
    private let storage: StoreAccess
    private let access: ReadAccess
    private let sender: RecordSender
    private let claims: GroupClaims
    private let waiters: PopWaiters
    private let retries: PopRetryTopics

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ sender: RecordSender,
        _ claims: GroupClaims, _ waiters: PopWaiters, _ retries: PopRetryTopics
    ) {
        self.environment = environment
        self.storage = storage
        self.sender = sender
        self.claims = claims
        self.waiters = waiters
        self.retries = retries
        access = ReadAccess(environment: environment, tables: tables, verb: "peeking")
    }

    private struct Asked {
        let group: SubscriptionGroupEntry
        let topic: TopicEntry
        let queueID: Int32
        /// A pop in order does not look into retry topics, nor one of a topic whose queues have one consumer.
        let isOrdered: Bool

        let queues: Range<Int32>

        init(group: SubscriptionGroupEntry, topic: TopicEntry, queueID: Int32, isOrdered: Bool) {
            self.group = group
            self.topic = topic
            self.queueID = queueID
            self.isOrdered = isOrdered || topic.policy.hasLeases
            queues = PopWaiter.queues(of: topic, queueID)
        }
    }

    /// nil when it was refused.
    private func asked(_ request: borrowing Request) throws(RemotingDecodeError) -> Asked? {
        let header = try PopQueueHeader(request.frame)
        switch access.check(group: header.consumerGroup, topic: header.topic) {
        case .granted(let group, let topic):
            guard header.queueID < topic.config.readQueueNums else {
                request.answer(
                    .invalidParameter,
                    remark: "queueId[\(header.queueID)] is illegal, topic:[\(topic.name)] "
                        + "topicConfig.readQueueNums:[\(topic.config.readQueueNums)]")
                return nil
            }
            return Asked(
                group: group, topic: topic, queueID: header.queueID,
                isOrdered: request.extFields.bool("order") == true)
        case .refused(let code, let remark):
            request.answer(code, remark: remark)
            return nil
        }
    }

    /// How many messages of a queue the group could have, and where the first of them is.
    private func available(
        _ group: SubscriptionGroupEntry, _ topic: TopicEntry, _ queueID: Int32, _ client: ClientContext
    ) -> (queue: ConsumeQueue, first: Int64, count: Int64)? {
        // Another consumer's queue has nothing for this one.
        guard
            !topic.policy.hasLeases
                || claims.leases.isFree(for: client, .init(topic: topic.name, group: group.name), queueID)
        else { return nil }
        guard let queue = storage.store.consumeQueue(topic: topic.name, queueID: queueID) else { return nil }
        let end = queue.maxOffset.rawValue
        guard let table = claims.find(group: group, topic: topic, queueID: queueID) else {
            let first = claims.start(group: group, topic: topic, queue)
            return (queue, first, max(0, end - first))
        }
        if table.isOrdered, table.blockedUntil(attemptID: nil, at: claims.time) != nil { return nil }
        let due = table.due(limit: 1).first?.offset
        return (queue, due ?? table.next, Int64(table.dueCount) + max(0, end - table.next))
    }

    /// Queues that are looked at: those of retry topics first.
    private func places(_ asked: Asked) -> [(topic: TopicEntry, queueID: Int32)] {
        let sources = asked.isOrdered ? [] : retries.sources(group: asked.group, topic: asked.topic)
        let copies = sources.flatMap { copy in
            PopWaiter.queues(of: copy.topic, -1).map { (copy.topic, $0) }
        }
        return copies + asked.queues.map { (asked.topic, $0) }
    }

    // MARK: - Requests

    /// The next messages, without any being handed out and without a filter.
    func peek(_ request: borrowing Request) throws(RemotingDecodeError) {
        let messagesMax = try request.extFields.requiredInt32("maxMsgNums")
        guard let asked = try asked(request) else { return }
        var found: [LogRange] = []
        var left = Int(min(max(messagesMax, 1), PopMessageProcessor.messagesMax))
        var rest: Int64 = 0
        for (topic, queueID) in places(asked) {
            guard let (queue, first, count) = available(asked.group, topic, queueID, request.client), count > 0 else {
                continue
            }
            guard left > 0 else {
                rest += count
                continue
            }
            var ranges: [LogRange] = []
            let result = storage.store.selectMessages(queue, from: QueueOffset(first), maxCount: left, into: &ranges)
            found += ranges
            left -= result.messageCount
            rest += max(0, count - Int64(result.messageCount))
        }
        let fields = [
            ("popTime", String(environment.now())), ("invisibleTime", "0"), ("reviveQid", "0"),
            ("restNum", String(rest)),
        ]
        guard !found.isEmpty else {
            return request.answer(
                .pullNotFound, remark: "\(GetMessageStatus.noMessageInQueue.remark)", fields: fields)
        }
        sender.answer(with: found, request.asker, fields: fields)
    }

    /// Whether there is something to pop: answered when there is, or when the client waits no longer.
    func notify(_ request: borrowing Request) throws(RemotingDecodeError) {
        let pollTime = try request.extFields.requiredInt64("pollTime")
        let bornTime = try request.extFields.requiredInt64("bornTime")
        guard let asked = try asked(request) else { return }
        let wait = PopMessageProcessor.wait(pollTime: pollTime, bornTime: bornTime, now: environment.now())
        let question = PopNotification(
            by: self, client: request.client, address: request.returnAddress, topic: asked.topic, group: asked.group,
            queueID: asked.queueID, deadlineSteady: environment.steady() + wait, isOrdered: asked.isOrdered)
        answer(question, expired: wait <= 0)
    }

    func answer(_ question: PopNotification, expired: Bool) {
        guard !question.client.connection.isClosed else {
            // What it was woken for is for another one.
            waiters.stir(topic: question.topic.name, group: question.group.name)
            return environment.scheduleTick()
        }
        let asked = Asked(
            group: question.group, topic: question.topic, queueID: question.queueID, isOrdered: question.isOrdered)
        let hasMessage = places(asked).contains {
            (available(asked.group, $0.topic, $0.queueID, question.client)?.count ?? 0) > 0
        }
        var isFull = false
        if !hasMessage, !expired {
            if waiters.wait(question) { return }
            isFull = true
        }
        question.client.answer(
            question.address, .success,
            fields: [("hasMsg", hasMessage ? "true" : "false"), ("pollingFull", isFull ? "true" : "false")])
    }

    /// How many requests wait for this queue.
    func pollingInfo(_ request: borrowing Request) throws(RemotingDecodeError) {
        guard let asked = try asked(request) else { return }
        let count = waiters.count(topic: asked.topic.name, group: asked.group.name, queueID: asked.queueID)
        request.answer(.success, fields: [("pollingNum", String(count))])
    }
}

/// A client that waits until there is something to pop.
final class PopNotification: PopWaiter {
    private unowned(unsafe) let processor: PopQuestionProcessor
    let address: ReturnAddress
    let isOrdered: Bool

    init(
        by processor: PopQuestionProcessor, client: ClientContext, address: ReturnAddress, topic: TopicEntry,
        group: SubscriptionGroupEntry, queueID: Int32, deadlineSteady: Int64, isOrdered: Bool
    ) {
        self.isOrdered = isOrdered
        self.processor = processor
        self.address = address
        super.init(client: client, topic: topic, group: group, queueID: queueID, deadlineSteady: deadlineSteady)
    }

    override var takes: Bool { false }

    override func resume(expired: Bool) { processor.answer(self, expired: expired) }
}
