import FastJSON
import Logging
import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat
import WorkerProtocol

/// PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361). It checks the request and reads a range of the consume queue. Then it
/// answers, suspends the pull, or asks the filter worker (`MessageReader`).
final class PullMessageProcessor {
    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let filters: FilterLink
    let reader: MessageReader
    private let sender: RecordSender
    private let access: ReadAccess

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ filters: FilterLink,
        _ reader: MessageReader, _ sender: RecordSender
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.filters = filters
        self.reader = reader
        self.sender = sender
        access = ReadAccess(environment: environment, tables: tables, verb: "pulling")
    }

    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let header = try PullMessageRequestHeader(request.frame)
        let asker = request.asker
        let configuration = environment.configuration
        func refuse(_ code: ResponseCode, _ remark: String) { asker.answer(code, remark: remark) }

        let group: SubscriptionGroupEntry
        let topic: TopicEntry
        switch access.check(group: header.consumerGroup, topic: header.topic) {
        case .granted(let knownGroup, let knownTopic): (group, topic) = (knownGroup, knownTopic)
        case .refused(let code, let remark): return refuse(code, remark)
        }
        if topic.policy.isPoppedOnly, !SubscriptionGroupManager.isOfTools(group.name) {
            return refuse(.noPermission, topic.refusal(ofPuller: group.name))
        }
        guard header.queueID >= 0, header.queueID < topic.config.readQueueNums else {
            return refuse(
                .systemError,
                "queueId[\(header.queueID)] is illegal, topic:[\(topic.name)] topicConfig.readQueueNums:"
                    + "[\(topic.config.readQueueNums)] consumer:[\(request.client.address)]"
                    + " (queues are numbered from 0; the consumer's route may be old)")
        }
        guard let filter = subscribe(header, request.client, group, topic, refuse) else { return }

        if header.hasCommitOffset, !configuration.isSlave {
            tables.offsets.commit(
                topic: topic, group: group, queueID: header.queueID, offset: header.commitOffset)
        }
        let suspend =
            configuration.longPollingEnable ? header.suspendTimeoutMilliseconds : configuration.shortPollingTimeMills
        let pull = PullRequest(
            by: self, client: request.client, address: request.returnAddress, topic: topic, group: group,
            header: header,
            suspendTimeoutMilliseconds: suspend, filter: filter)
        if tables.consumers.inconsistentCount > 0, let consumers = tables.consumers[header.consumerGroup] {
            pull.others = consumers.others(than: request.client, topic: topic.name)
        }
        reader.read(pull, expired: false)
    }

    /// What the pull selects by: from its own header, or from its client's heartbeats.
    private func subscribe(
        _ header: PullMessageRequestHeader, _ client: ClientContext, _ group: SubscriptionGroupEntry,
        _ topic: TopicEntry, _ refuse: (ResponseCode, String) -> Void
    ) -> SubscriptionFilter? {
        if header.hasSubscription {
            // What was found here was accepted when it was put here, and whatever changes since is looked at in `run`.
            if environment.configuration.enablePropertyFilter != false, let expression = header.subscription,
                let known = filters.recentSubscription(type: header.expressionType, expression: expression)
            {
                return .compiled(known)
            }
            let type = header.expressionType.map { String(decoding: $0, as: UTF8.self) } ?? "TAG"
            let expression = header.subscription.map { String(decoding: $0, as: UTF8.self) } ?? ""
            guard accepts(type, refuse) else { return nil }
            if expression.isEmpty, !SubscriptionFilter.isTagType(type) {
                refuse(.subscriptionParseFailed, "parse the consumer's subscription failed: the expression is empty")
                return nil
            }
            let filter = filters.filter(type: type, expression: expression)
            if case .compiled(let subscription) = filter, let bytes = header.subscription {
                filters.remember(subscription, type: header.expressionType, expression: bytes)
            }
            return filter
        }
        guard let consumers = tables.consumers[header.consumerGroup] else {
            refuse(
                .subscriptionNotExist,
                "the consumer's group info not exist" + Remarks.faq
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
                "the consumer's subscription not exist" + Remarks.faq
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
        guard let (code, remark) = access.refusal(ofType: type) else { return true }
        refuse(code, remark)
        return false
    }

    // MARK: - Answers

    /// - Parameter found: ranges of the log, for `.read` alone.
    func answer(_ pull: PullRequest, _ outcome: ReadOutcome, _ found: [LogRange]) {
        switch outcome {
        case .read(let result):
            let code = responseCode(result.status, pull)
            let configuration = environment.configuration
            if code == .pullOffsetMoved, configuration.isSlave, !configuration.offsetCheckInSlave {
                return answer(pull, .pullRetryImmediately, result, found, suggest: pull.group.config.brokerID)
            }
            answer(pull, code, result, found, suggest: suggestion(pull, result))
            if code == .pullOffsetMoved { offsetMoved(pull, result) }
        case .noMatch(let result):
            answer(pull, .pullRetryImmediately, result, [], suggest: suggestion(pull, result))
        case .nothingYet(let result):
            answer(pull, .pullNotFound, result, [], suggest: suggestion(pull, result))
        case .refused(let code, let remark): pull.client.answer(pull.address, code, remark: remark)
        }
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

    private func suggestion(_ pull: PullRequest, _ result: GetMessageResult) -> Int64 {
        guard environment.configuration.slaveReadEnable else { return 0 }
        return result.suggestPullingFromSlave
            ? pull.group.config.whichBrokerWhenConsumeSlowly : pull.group.config.brokerID
    }

    private func answer(
        _ pull: PullRequest, _ code: ResponseCode, _ result: GetMessageResult, _ found: [LogRange], suggest: Int64
    ) {
        guard !pull.address.isOneway else { return }
        let connection = pull.client.connection
        if code == .success, sender.needsSendfile(found) {
            let total = found.reduce(0) { $0 + $1.length }
            connection.write { buffer in
                let frame = begin(pull, .success, result, suggest, &buffer)
                ResponseEncoder.finish(frame, in: &buffer, bytesElsewhere: total)
            }
            sender.send(found, on: connection)
        } else {
            connection.write { buffer in
                let frame = begin(pull, code, result, suggest, &buffer)
                if code == .success { sender.copy(found, into: &buffer) }
                ResponseEncoder.finish(frame, in: &buffer)
            }
        }
        if code == .success {
            storage.statistics.get(messages: result.messageCount)
            pull.group.count(result.messageCount, bytes: result.bytes, of: pull.topic, in: storage.stats)
        } else {
            storage.statistics.missed()
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

    // MARK: - OFFSET_MOVED_EVENT

    /// RocketMQ leaves a message for monitors whenever a consumer's offset had to be corrected.
    private func offsetMoved(_ pull: PullRequest, _ result: GetMessageResult) {
        guard storage.admission.takesMessages else { return }
        let event = JSONValue.fields([
            ("consumerGroup", .string(pull.group.name)),
            (
                "messageQueue",
                .fields([
                    ("brokerName", .string(environment.configuration.brokerName)), ("queueId", .integer(pull.queueID)),
                    ("topic", .string(pull.topic.name)),
                ])
            ),
            ("offsetNew", .integer(result.nextBeginOffset.rawValue)), ("offsetRequest", .integer(pull.queueOffset)),
        ])
        var properties = PropertyList()
        properties[PropertyName.keys] = pull.group.name
        properties[PropertyName.tags] = pull.group.name
        storage.storeOwn(topic: TopicNames.offsetMovedEvent, queueID: 0, properties: properties, body: event.bytes())
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
        // RocketMQ makes a queue by looking at it: it never answers NO_MATCHED_LOGIC_QUEUE.
        case .noMatchedLogicQueue, .noMessageInQueue: "NO_MESSAGE_IN_QUEUE"
        }
    }
}
