import FastJSON
import Logging
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat
import WorkerProtocol

/// PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361): checks the request, reads a range of the consume queue, and answers,
/// holds the pull, or asks the filter worker.
final class PullMessageProcessor {
    static let passedOverLogMillis: Int64 = 60_000

    /// Held pulls of one connection; a client has one for each queue it consumes. More are answered "nothing found".
    static let heldPerConnectionMax = 16_384

    /// `Tests/Scripts/pull-benchmark` measures both ways.
    static let sendfileBytesMin = FileSending.bytesMin

    // The broker owns this and outlives it.
    unowned(unsafe) let broker: Broker
    var ranges: [LogRange] = []

    let transfer: LogFileTransfer
    /// Runs of the log of at least so many bytes leave by `sendfile`; shorter ones are copied.
    private let sendfileBytesMin: Int

    init(_ broker: Broker) {
        self.broker = broker
        transfer = LogFileTransfer(broker.store)
        sendfileBytesMin = broker.configuration.integer("sendfileBytesMin").map { Int($0) } ?? Self.sendfileBytesMin
    }

    func process(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let header = try PullMessageRequestHeader(frame)
        let address = frame.returnAddress
        let configuration = broker.configuration
        func refuse(_ code: ResponseCode, _ remark: String) { client.answer(address, code, remark: remark) }

        guard configuration.brokerPermission & Permission.read != 0 else {
            return refuse(
                .noPermission,
                "the broker[\(configuration.brokerIP1)] pulling message is forbidden"
                    + " (brokerPermission has no read; mqadmin updateBrokerConfig)")
        }
        guard let group = broker.groups.find(header.consumerGroup) else {
            let name = String(decoding: header.consumerGroup, as: UTF8.self)
            return refuse(
                .subscriptionGroupNotExist,
                "subscription group [\(name)] does not exist, " + SendMessageProcessor.faq
                    + broker.groups.remedy(for: name))
        }
        guard group.config.consumeEnable else {
            return refuse(
                .noPermission,
                "subscription group no permission, \(group.name) (consumeEnable=false; mqadmin updateSubGroup -s true)")
        }
        guard let topic = broker.topics[header.topic] else {
            let name = String(decoding: header.topic, as: UTF8.self)
            return refuse(
                .topicNotExist,
                "topic[\(name)] not exist, apply first please! " + SendMessageProcessor.faq
                    + "\nCreate it (mqadmin updateTopic), or send to it first.")
        }
        guard topic.config.perm & Permission.read != 0 else {
            return refuse(
                .noPermission,
                "the topic[\(topic.name)] pulling message is forbidden (its perm is "
                    + "\(Permission.text(topic.config.perm)); mqadmin updateTopicPerm)")
        }
        guard header.queueID >= 0, header.queueID < topic.config.readQueueNums else {
            return refuse(
                .systemError,
                "queueId[\(header.queueID)] is illegal, topic:[\(topic.name)] topicConfig.readQueueNums:"
                    + "[\(topic.config.readQueueNums)] consumer:[\(client.address)]"
                    + " (queues are numbered from 0; the consumer's route may be old)")
        }
        guard let filter = subscribe(header, client, group, topic, refuse) else { return }

        if header.hasCommitOffset, !configuration.isSlave {
            broker.offsets.commit(
                topic: topic, group: group, queueId: header.queueID, offset: header.commitOffset)
        }
        let suspend =
            configuration.longPollingEnable ? header.suspendTimeoutMillis : configuration.shortPollingTimeMills
        let pull = PullRequest(
            client: client, address: address, topic: topic, group: group, header: header,
            suspendTimeoutMillis: suspend, filter: filter)
        if broker.consumers.inconsistentCount > 0, let consumers = broker.consumers[header.consumerGroup] {
            pull.others = consumers.others(than: client, topic: topic.name)
        }
        run(pull, expired: false)
    }

    /// What the pull selects by: from its own header, or from what its client said in heartbeats.
    private func subscribe(
        _ header: PullMessageRequestHeader, _ client: ClientContext, _ group: SubscriptionGroupEntry,
        _ topic: TopicEntry, _ refuse: (ResponseCode, String) -> Void
    ) -> SubscriptionFilter? {
        if header.hasSubscription {
            // What was found here was accepted when it was put here, and whatever changes since is looked at in `run`.
            if broker.configuration.enablePropertyFilter != false, let expression = header.subscription,
                let known = broker.filters.recentSubscription(type: header.expressionType, expression: expression)
            {
                return .compiled(known)
            }
            let type = header.expressionType.map { String(decoding: $0, as: UTF8.self) } ?? "TAG"
            let expression = header.subscription.map { String(decoding: $0, as: UTF8.self) } ?? ""
            guard accepts(type, refuse) else { return nil }
            if expression.isEmpty, !Subscription.isTagType(type) {
                refuse(.subscriptionParseFailed, "parse the consumer's subscription failed: the expression is empty")
                return nil
            }
            let filter = broker.filter(type: type, expression: expression)
            if case .compiled(let subscription) = filter, let bytes = header.subscription {
                broker.filters.remember(subscription, type: header.expressionType, expression: bytes)
            }
            return filter
        }
        guard let consumers = broker.consumers[header.consumerGroup] else {
            refuse(
                .subscriptionNotExist,
                "the consumer's group info not exist" + SendMessageProcessor.faq
                    + "\nNo client of the group is known here yet: pull after a heartbeat.")
            return nil
        }
        if !group.config.consumeBroadcastEnable, consumers.messageModel(of: client) == "BROADCASTING" {
            refuse(
                .noPermission,
                "the consumer group[\(group.name)] can not consume by broadcast way"
                    + " (consumeBroadcastEnable=false; mqadmin updateSubGroup -d true)")
            return nil
        }
        guard let subscription = consumers.subscription(header.topic, of: client) else {
            refuse(
                .subscriptionNotExist,
                "the consumer's subscription not exist" + SendMessageProcessor.faq
                    + "\nIts last heartbeat does not name the topic: all clients of a group must subscribe to the same."
            )
            return nil
        }
        if subscription.subVersion < header.subVersion {
            refuse(.subscriptionNotLatest, "the consumer's subscription not latest")
            return nil
        }
        guard accepts(subscription.data.expressionType, refuse) else { return nil }
        return subscription.filter
    }

    private func accepts(_ type: String, _ refuse: (ResponseCode, String) -> Void) -> Bool {
        if Subscription.isTagType(type) || broker.configuration.enablePropertyFilter != false { return true }
        refuse(.systemError, "The broker does not support consumer to filter message by \(type)")
        return false
    }

    // MARK: Running

    /// Answers the pull, or sees to it that it runs again. `expired`: it must be answered now.
    func run(_ pull: PullRequest, expired: Bool) {
        guard !pull.client.connection.isClosed else { return }
        // Held when its topic was deleted: there is nothing to read any more, and nowhere else to begin.
        if expired, broker.topics[pull.topic.name] == nil { return answerNothingYet(pull) }
        guard case .compiled(let subscription) = pull.filter else { return read(pull, nil, expired) }
        broker.filters.prepare(subscription)
        switch subscription.state {
        case .everything: read(pull, nil, expired)
        case .tagsCodes(let codes): read(pull, codes, expired)
        case .program(let program): readFiltered(pull, subscription, program, expired)
        case .unknown, .compiling: awaitCompilation(pull, subscription, expired)
        case .refused(let position, let reason):
            let place = position >= 0 ? " at position \(position)" : ""
            pull.client.answer(
                pull.address, .subscriptionParseFailed,
                remark: "parse the consumer's subscription failed: \(subscription.type) \(subscription.expression)"
                    + "\(place): \(reason)")
        case .unavailable(let reason, _):
            pull.client.answer(
                pull.address, .systemError,
                remark: "The broker does not support consumer to filter message by \(subscription.type): \(reason)")
        }
    }

    private func read(_ pull: PullRequest, _ codes: [Int64]?, _ expired: Bool) {
        let result = pull.topic.nameBytes.withUnsafeBytes { topic in
            broker.store.selectMessages(
                topic: topic, queueId: pull.queueId, from: QueueOffset(pull.queueOffset),
                maxCount: max(1, pull.maxMessageNums), maxBytes: pull.maxMessageBytes ?? Int.max, tagsCodes: codes,
                into: &ranges)
        }
        finish(pull, result, expired)
    }

    /// The state of the queue as a read at the pull's offset sees it.
    func look(_ pull: PullRequest) -> GetMessageResult {
        pull.topic.nameBytes.withUnsafeBytes { topic in
            broker.store.selectMessages(
                topic: topic, queueId: pull.queueId, from: QueueOffset(pull.queueOffset), maxCount: 1, into: &ranges)
        }
    }

    func finish(_ pull: PullRequest, _ result: GetMessageResult, _ expired: Bool) {
        let code = responseCode(result.status, pull)
        if code == .pullNotFound, !expired, pull.maySuspend, pull.client.held.count < Self.heldPerConnectionMax,
            broker.hold.mayHold
        {
            return broker.hold.hold(pull)
        }
        if code == .pullOffsetMoved, broker.configuration.isSlave, !broker.configuration.offsetCheckInSlave {
            return answer(pull, .pullRetryImmediately, result, suggest: pull.group.config.brokerID)
        }
        if !pull.others.isEmpty, result.status == .found || result.status == .noMatchedMessage {
            passOver(pull, to: result.nextBeginOffset.rawValue) { pull.filter.wants(tagsCode: $1.tagsCode) }
        }
        answer(pull, code, result, suggest: suggestion(pull, result))
        if code == .pullOffsetMoved { offsetMoved(pull, result) }
    }

    private func responseCode(_ status: GetMessageStatus, _ pull: PullRequest) -> ResponseCode {
        switch status {
        case .found: .success
        case .messageWasRemoving, .noMatchedMessage: .pullRetryImmediately
        case .noMatchedLogicQueue, .noMessageInQueue: pull.queueOffset != 0 ? .pullOffsetMoved : .pullNotFound
        case .offsetFoundNull, .offsetOverflowOne: .pullNotFound
        case .offsetOverflowBadly, .offsetTooSmall: .pullOffsetMoved
        }
    }

    func suggestion(_ pull: PullRequest, _ result: GetMessageResult) -> Int64 {
        guard broker.configuration.slaveReadEnable else { return 0 }
        return result.suggestPullingFromSlave
            ? pull.group.config.whichBrokerWhenConsumeSlowly : pull.group.config.brokerID
    }

    func answer(_ pull: PullRequest, _ code: ResponseCode, _ result: GetMessageResult, suggest: Int64) {
        guard !pull.address.isOneway else { return }
        if code == .success, ranges.contains(where: { $0.length >= sendfileBytesMin }) {
            answerBySendfile(pull, result, suggest)
        } else {
            pull.client.connection.write { buffer in
                let frame = begin(pull, code, result, suggest, &buffer)
                if code == .success {
                    for range in ranges {
                        _ = broker.store.withBytes(range) { buffer.writeBytes($0) }
                    }
                }
                ResponseEncoder.finish(frame, in: &buffer)
            }
        }
        if code == .success {
            broker.statistics.get(messages: result.messageCount)
            pull.group.count(result.messageCount, bytes: result.bytes, of: pull.topic, in: broker.stats)
        } else {
            broker.statistics.missed()
        }
    }

    private func begin(
        _ pull: PullRequest, _ code: ResponseCode, _ result: GetMessageResult, _ suggest: Int64,
        _ buffer: inout ByteBuffer
    ) -> ResponseEncoder.OpenFrame {
        ResponseEncoder.beginPullResponse(
            into: &buffer, pull.address, code, remark: result.status.remark,
            nextBeginOffset: result.nextBeginOffset.rawValue, minOffset: result.minOffset.rawValue,
            maxOffset: result.maxOffset.rawValue, suggestWhichBrokerID: suggest)
    }

    /// Header and short runs through the buffer, long runs from the log file's pages. All of it is written and lies below the log's end, so none of it
    /// changes; the file lives as long as the transfer.
    private func answerBySendfile(_ pull: PullRequest, _ result: GetMessageResult, _ suggest: Int64) {
        let connection = pull.client.connection
        let total = ranges.reduce(0) { $0 + $1.length }
        connection.write { buffer in
            let frame = begin(pull, .success, result, suggest, &buffer)
            ResponseEncoder.finish(frame, in: &buffer, bytesElsewhere: total)
        }
        send(ranges, on: connection)
    }

    /// Runs of the log behind a header that has promised them: long ones by `sendfile`, short ones through the buffer.
    private func send(_ ranges: [LogRange], on connection: RemotingConnection) {
        for range in ranges {
            if range.length >= sendfileBytesMin, let run = transfer.find(range) {
                let file = NIOLoopBound(run.file, eventLoop: broker.eventLoop)
                connection.write(file: run.region).whenComplete { _ in withExtendedLifetime(file.value) {} }
                continue
            }
            var isThere = false
            connection.write { buffer in
                isThere = broker.store.withBytes(range) { _ = buffer.writeBytes($0) } != nil
            }
            // Its length has been promised already.
            guard isThere else { return connection.close(reason: "the log could not be read at \(range.start)") }
        }
    }

    /// Answers a request that is no pull with messages.
    func answer(
        with ranges: [LogRange], _ address: ReturnAddress, _ client: ClientContext, fields: [(String, String)] = []
    ) {
        guard !address.isOneway else { return }
        let total = ranges.reduce(0) { $0 + $1.length }
        client.connection.write { buffer in
            ResponseEncoder.encode(
                into: &buffer, address, ResponseCode.success.rawValue, remark: nil, fields: fields, bodyCount: total)
        }
        send(ranges, on: client.connection)
    }

    /// A pull that cannot be filtered now and may not wait: its offset stays as it is.
    func answerNothingYet(_ pull: PullRequest) {
        var result = look(pull)
        result.status = .noMatchedMessage
        result.nextBeginOffset = QueueOffset(pull.queueOffset)
        answer(pull, .pullNotFound, result, suggest: suggestion(pull, result))
    }

    // MARK: Clients that disagree

    /// The group's offset moves over messages that this client does not want and another of its group does: counted, and
    /// said once a minute.
    func passOver(_ pull: PullRequest, to end: Int64, _ isMine: (Int, ConsumeQueueEntry) -> Bool) {
        guard end > pull.queueOffset, let consumers = broker.consumers[pull.group.name],
            let queue = broker.store.consumeQueue(topic: pull.topic.name, queueId: pull.queueId)
        else { return }
        let entries = broker.store.entries(
            queue, from: QueueOffset(pull.queueOffset), maxCount: Int(end - pull.queueOffset))
        var count: Int64 = 0
        for (index, entry) in entries.enumerated() where !isMine(index, entry) {
            if pull.others.contains(where: { $0.filter.wants(tagsCode: entry.tagsCode) }) { count += 1 }
        }
        guard count > 0 else { return }
        consumers.passedOver += count
        let now = broker.now()
        guard now - consumers.passedOverLog.millis >= Self.passedOverLogMillis else { return }
        let since = consumers.passedOver - consumers.passedOverLog.count
        consumers.passedOverLog = (now, consumers.passedOver)
        let expressions = pull.others.map { "\"\($0.data.subString)\"" }.joined(separator: ", ")
        broker.logger.warning(
            "consumer group \(consumers.name) has passed over \(since) messages of topic \(pull.topic.name), the last in queue \(pull.queueId): another of its clients may want them (\(expressions)), but the queue is assigned to \(pull.client.address), which does not; let all clients of a group subscribe to the same",
            metadata: ["consumerGroup": "\(consumers.name)", "topic": "\(pull.topic.name)"])
    }

    // MARK: OFFSET_MOVED_EVENT

    /// RocketMQ leaves a message for monitors whenever a consumer's offset had to be corrected.
    private func offsetMoved(_ pull: PullRequest, _ result: GetMessageResult) {
        guard broker.admission.takesMessages else { return }
        let event = JSONValue.fields([
            ("consumerGroup", .string(pull.group.name)),
            (
                "messageQueue",
                .fields([
                    ("brokerName", .string(broker.configuration.brokerName)), ("queueId", .integer(pull.queueId)),
                    ("topic", .string(pull.topic.name)),
                ])
            ),
            ("offsetNew", .integer(result.nextBeginOffset.rawValue)), ("offsetRequest", .integer(pull.queueOffset)),
        ])
        var properties = PropertyList()
        properties[PropertyName.keys] = pull.group.name
        properties[PropertyName.tags] = pull.group.name
        broker.storeOwn(topic: TopicNames.offsetMovedEvent, queueId: 0, properties: properties, body: event.bytes())
    }
}

extension GetMessageStatus {
    /// RocketMQ's name, which it sends as the remark of a pull.
    var remark: StaticString {
        switch self {
        case .found: "FOUND"
        case .noMatchedMessage: "NO_MATCHED_MESSAGE"
        case .messageWasRemoving: "MESSAGE_WAS_REMOVING"
        case .offsetFoundNull: "OFFSET_FOUND_NULL"
        case .offsetOverflowBadly: "OFFSET_OVERFLOW_BADLY"
        case .offsetOverflowOne: "OFFSET_OVERFLOW_ONE"
        case .offsetTooSmall: "OFFSET_TOO_SMALL"
        // RocketMQ makes a queue by looking at it: it never says NO_MATCHED_LOGIC_QUEUE.
        case .noMatchedLogicQueue, .noMessageInQueue: "NO_MESSAGE_IN_QUEUE"
        }
    }
}
