import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320): everything that must be refused is refused here.
/// The rest goes into the store's write buffer and waits in the ack gate for the end of the tick. Nothing on this path
/// allocates per message.
final class SendMessageProcessor {
    /// V3_4_9: clients from here on may state how often they want a retry.
    static let maxReconsumeTimesVersion: Int32 = 121
    /// V5_0_0: what producers from here on send is stored with region and trace switch, as RocketMQ 5 does.
    static let regionVersion: Int32 = 414

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let keeper: TableKeeper
    private let kinds: MessageKinds
    private let notifier: GroupNotifier
    private var properties: StoredProperties

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ keeper: TableKeeper,
        _ kinds: MessageKinds, _ notifier: GroupNotifier
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.keeper = keeper
        self.kinds = kinds
        self.notifier = notifier
        let configuration = environment.configuration
        properties = StoredProperties(
            cluster: configuration.brokerClusterName, region: configuration.regionID, traceOn: configuration.traceOn)
    }

    /// Where a message goes: usually the topic it names, sometimes a dead-letter topic or the schedule topic.
    struct Target {
        var topic: TopicEntry
        var queueID: Int32
        var sysFlag: Int32
        /// A retry too many: it waits for nothing any more.
        var isDeadLetter = false
    }

    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let header = try SendMessageRequestHeader(request.frame)
        guard let target = admit(header, request) else { return }
        if request.frame.code == RequestCode.sendBatchMessage.rawValue || header.batch {
            storeBatch(header, request, target)
        } else {
            store(header, request, target)
        }
    }

    private func refuse(
        _ request: borrowing Request, _ code: ResponseCode, _ remark: String
    ) -> Target? {
        request.answer(code, remark: remark, fields: environment.sendResponseFields)
        return nil
    }

    // MARK: - Checks

    private static func forbidden(_ topic: String) -> String {
        "Sending message to topic[\(topic)] is forbidden. Only the broker itself writes there; choose another topic."
    }

    func admit(_ header: SendMessageRequestHeader, _ request: borrowing Request) -> Target? {
        guard let topic = tables.topics[header.topic] ?? createTopic(header, request) else { return nil }
        if environment.configuration.brokerPermission & Permission.write == 0,
            topic.config.order || storage.admission.refusesWrites
        {
            return refuse(
                request, .noPermission,
                "the broker[\(environment.configuration.brokerIP1)] sending message is forbidden"
                    + " (brokerPermission has no write; mqadmin updateBrokerConfig)")
        }
        guard topic.mayBeSentTo else {
            return refuse(request, .noPermission, Self.forbidden(topic.name))
        }
        var queueID = header.queueID
        if queueID >= topic.queueNums {
            return refuse(
                request, .systemError,
                "request queueId[\(queueID)] is illegal, \(topic.description) Producer: \(request.client.address)"
                    + " (queues are numbered from 0; the producer's route may be old)")
        }
        if queueID < 0 {
            guard topic.config.writeQueueNums > 0 else {
                return refuse(
                    request, .systemError,
                    "topic[\(topic.name)] has no queue to write to; give it writeQueueNums > 0 (mqadmin updateTopic)")
            }
            queueID = Int32.random(in: 0..<topic.config.writeQueueNums)
        }
        if topic.policy.isSharded,
            let key = MessageProperties.value(of: PropertyName.shardingKey, in: header.properties)
        {
            queueID = TopicPolicy.queue(ofShardKey: key, queues: topic.config.writeQueueNums)
        }
        var sysFlag = header.sysFlag
        if topic.isMultiTag { sysFlag |= SysFlag.multiTags }
        var target = Target(topic: topic, queueID: queueID, sysFlag: sysFlag)
        if topic.isRetryTopic {
            guard let redirected = redirectRetry(target, header, request) else { return nil }
            target = redirected
        }
        if target.topic.madeAt > tables.topics.kept, let reason = keeper.reasonNotKept(target.topic) {
            return refuse(request, .serviceNotAvailable, "service not available now. \(reason)")
        }
        return target
    }

    private func createTopic(
        _ header: SendMessageRequestHeader, _ request: borrowing Request
    ) -> TopicEntry? {
        func refuse(_ code: ResponseCode, _ remark: String) -> TopicEntry? {
            _ = self.refuse(request, code, remark)
            return nil
        }
        let name = String(decoding: header.topic, as: UTF8.self)
        let topicName: TopicName
        do throws(NameError) {
            topicName = try TopicName(name)
        } catch {
            return refuse(.systemError, "\(error)")
        }
        if TopicNames.notAllowedToSend.contains(name) {
            return refuse(.noPermission, Self.forbidden(name))
        }
        guard tables.creations.mayMakeTopic(request.client.connection.remoteAddress) else {
            return refuse(
                .systemBusy,
                "[OVERLOAD]system busy, start flow control for a while: topic[\(name)] was not made, this address has "
                    + "made more than \(CreationRates.topics.words); send again in a moment")
        }
        let isRetry = name.hasPrefix(TopicNames.retryPrefix)
        // TopicSysFlag: 1 unit, 2 unit subscription.
        let topicSysFlag: Int32 = header.unitMode ? (isRetry ? 2 : 1) : 0
        if let entry = tables.topics.createForSend(
            topicName, defaultTopic: String(decoding: header.defaultTopic, as: UTF8.self),
            clientQueueNums: header.defaultTopicQueueNums, topicSysFlag: topicSysFlag)
        {
            tables.clientMade(entry.config)
            environment.logger.info(
                """
                topic \(name) created with \(entry.config.writeQueueNums) queues for producer \(request.client.address)
                """
            )
            return entry
        }
        if isRetry {
            return tables.topics.findOrCreate(
                topicName, queueNums: 1, perm: Permission.read | Permission.write, topicSysFlag: topicSysFlag)
        }
        return refuse(
            .topicNotExist,
            "topic[\(name)] not exist, apply first please!" + Remarks.faq
                + "\nCreate it (mqadmin updateTopic), or set autoCreateTopicEnable=true.")
    }

    /// A consumer sends to its own retry topic: after too many retries the message goes to the dead-letter topic.
    private func redirectRetry(
        _ target: Target, _ header: SendMessageRequestHeader, _ request: borrowing Request
    ) -> Target? {
        let groupName = String(target.topic.name.dropFirst(TopicNames.retryPrefix.count))
        guard let group = tables.groups.find(groupName) else {
            return refuse(
                request, .subscriptionGroupNotExist,
                "subscription group not exist, \(groupName) " + Remarks.faq + tables.groups.remedy(for: groupName))
        }
        var maxReconsumeTimes = group.config.retryMaxTimes
        if request.frame.version >= Self.maxReconsumeTimesVersion, let wanted = header.maxReconsumeTimes {
            maxReconsumeTimes = wanted
        }
        guard header.reconsumeTimes >= maxReconsumeTimes else { return target }
        // The retry topic's name is longer, and fits.
        guard let deadLetterTopic = group.groupName.deadLetterTopic else { return target }
        return Target(
            topic: tables.deadLetterTopic(deadLetterTopic), queueID: Int32.random(in: 0..<QueueCounts.deadLetter),
            sysFlag: target.sysFlag,
            isDeadLetter: true)
    }

    // MARK: - Storing

    private func store(
        _ header: SendMessageRequestHeader, _ request: borrowing Request, _ target: Target
    ) {
        properties.take(header.properties, region: storesRegion(request.frame, target.topic))
        if mayWait(target) { return storeWaiting(header, request, target) }
        let outcome = append(
            header, request, topic: target.topic, queueID: target.queueID, sysFlag: target.sysFlag)
        switch outcome {
        case .appended(let result): stored(result, in: target.topic, .send, header, request, target)
        case .refused(let refusal): refuse(request, refusal)
        }
    }

    /// Counts a message and has its sender's answer wait for what it promises. `topic`: the one it lies in.
    @inline(__always)
    private func stored(
        _ result: AppendResult, in topic: TopicEntry, _ acknowledgement: PendingAck.Kind,
        _ header: SendMessageRequestHeader, _ request: borrowing Request, _ target: Target
    ) {
        storage.statistics.put(messages: 1)
        if target.topic.isDeadLetterTopic {
            notifier.deadLetter(in: target.topic, target.queueID, result, tries: header.reconsumeTimes)
        }
        topic.count(1, bytes: result.size, in: storage.stats)
        storage.gate.add(
            PendingAck(
                client: request.client, address: request.returnAddress, kind: acknowledgement, queueID: target.queueID,
                queueOffset: result.queueOffset.rawValue, physicalOffset: result.physicalOffset.rawValue,
                end: result.end.rawValue, waits: properties.waitStoreMsgOK,
                topicMadeAt: max(target.topic.madeAt, topic.madeAt)))
    }

    @inline(__always)
    private func append(
        _ header: SendMessageRequestHeader, _ request: borrowing Request, topic: TopicEntry,
        queueID: Int32, sysFlag: Int32, growth: Int? = nil
    ) -> AppendOutcome {
        topic.nameBytes.withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { properties in
                var draft = MessageDraft(
                    topic: topic, queueID: queueID, bornHost: request.client.bornHost, storeHost: environment.storeHost,
                    body: request.body)
                draft.flag = header.flag
                draft.sysFlag = sysFlag
                draft.bornTimestamp = header.bornTimestamp
                draft.reconsumeTimes = header.reconsumeTimes
                draft.properties = properties
                draft.growth = growth
                return storage.store.append(draft)
            }
        }
    }

    /// A message that may have to wait for its time or its outcome, or must not wait any more.
    private func storeWaiting(
        _ header: SendMessageRequestHeader, _ request: borrowing Request, _ target: Target
    ) {
        guard let place = waitingPlace(target, header, request) else { return }
        let outcome = append(
            header, request, topic: place.topic, queueID: place.queueID, sysFlag: place.sysFlag,
            growth: place.growth)
        switch outcome {
        case .appended(let result):
            if place.topic.name == TopicNames.schedule {
                storage.stats.delayed(queueID: place.queueID, bytes: result.size)
            }
            stored(result, in: place.topic, place.acknowledgement, header, request, target)
        case .refused(let refusal): refuse(request, refusal)
        }
    }

    /// Consumers of 5.x need region and switch to trace (RocketMQ 5 stores them always, 39 bytes; 4.9 never). Messages
    /// of older producers get them once clients trace here, so that without tracing no message pays for it.
    @inline(__always)
    private func storesRegion(_ frame: RemotingFrame, _ topic: TopicEntry) -> Bool {
        if frame.version >= Self.regionVersion { return true }
        guard let trace = tables.topics.traceEntry else { return false }
        return trace !== topic
    }

    // MARK: - Messages that wait

    /// Where a message is stored: under its own topic, or where it waits for its time or its outcome.
    private struct Place {
        var topic: TopicEntry
        var queueID: Int32
        var sysFlag: Int32
        var acknowledgement = PendingAck.Kind.send
        /// Bytes of properties that may be added before it is delivered; `nil` for what does not wait.
        var growth: Int?
    }

    /// Whether `properties` or flags state that the message is not one of the usual kind, which is delivered at once.
    @inline(__always)
    private func mayWait(_ target: Target) -> Bool {
        properties.isPreparedTransaction || properties.delayLevel > 0 || properties.hasTimer
            || properties.hasIllegalDelay || !SysFlag.entersConsumeQueue(target.sysFlag)
    }

    /// RocketMQ's broker fails at a DELAY that is no number, and answers 1.
    private func refuseIllegalDelay(_ request: borrowing Request) {
        _ = refuse(
            request, .systemError,
            "the message's property DELAY is no number; it is a delay level from 1 to \(environment.delayLevels.count),"
                + " or 0 for none")
    }

    /// Looks at `properties`; `nil` when the message was refused.
    private func waitingPlace(
        _ target: Target, _ header: SendMessageRequestHeader, _ request: borrowing Request
    ) -> Place? {
        var place = Place(topic: target.topic, queueID: target.queueID, sysFlag: target.sysFlag)
        if target.isDeadLetter {
            properties.removeWaiting()
            place.sysFlag &= ~SysFlag.transactionRollbackType
            return place
        }
        guard !properties.hasIllegalDelay else {
            refuseIllegalDelay(request)
            return nil
        }
        // Clients before 4.6.1 send a committed message back with the mark of its transaction.
        let isRetry = header.reconsumeTimes > 0 && properties.delayLevel > 0
        let isPrepared = properties.isPreparedTransaction && !isRetry
        if !isPrepared, !SysFlag.entersConsumeQueue(place.sysFlag) {
            guard isRetry else {
                refuse(request, AppendRefusal.unreadable)
                return nil
            }
            place.sysFlag &= ~SysFlag.transactionRollbackType
        }
        if isPrepared {
            guard !environment.configuration.rejectTransactionMessage else {
                _ = refuse(
                    request, .noPermission,
                    "the broker[\(environment.configuration.brokerIP1)] sending transaction message is forbidden")
                return nil
            }
            properties.remove(HalfMessage.brokersOwn)
            place.topic = kinds.transactions.makeTopics()
            place.queueID = 0
            place.growth = HalfMessage.growth
            // It must enter its queue, to be found there.
            place.sysFlag &= ~SysFlag.transactionRollbackType
        } else if properties.delayLevel > 0 {
            properties.normalizeDelay(largest: Int32(clamping: environment.delayLevels.count))
            if properties.hasTimer { properties.removeTimer() }
            place.topic = tables.topics.findOrCreate(
                .schedule, queueNums: TopicConfigManager.scheduleQueueNums, perm: Permission.read | Permission.write)
            place.queueID = properties.delayLevel - 1
            place.growth = 0
        } else if properties.hasTimer {
            let maxDelay = environment.timerSettings.maxDelay
            let delivery = properties.bytes.withUnsafeBytes {
                TimerProperties.request($0, now: environment.now(), maxDelay: maxDelay)
            }
            switch delivery {
            case .now: return place
            case .illegal:
                _ = refuse(request, .messageIllegal, TimerProperties.illegalRemark(maxDelay: maxDelay))
                return nil
            case .at(let due):
                guard properties.bytes.count + TimerProperties.reservedBytes <= Int(Int16.max) else {
                    refuse(request, AppendRefusal.propertiesTooLarge)
                    return nil
                }
                if let handle = recallHandle(target.topic, due) {
                    place.acknowledgement = .sendWith(environment.sendResponseFields + [("recallHandle", handle)])
                }
                properties.append(PropertyName.timerOutMilliseconds, String(due).utf8)
                place.topic = kinds.timers.makeTopic()
                place.queueID = 0
                place.growth = 0
            }
        } else {
            return place
        }
        properties.append(PropertyName.realTopic, target.topic.nameBytes)
        properties.append(PropertyName.realQueueID, String(target.queueID).utf8)
        return place
    }

    /// With it the producer can cancel the message; a retry has none.
    private func recallHandle(_ topic: TopicEntry, _ due: Int64) -> String? {
        guard environment.timerSettings.isRecallEnabled, !topic.isRetryTopic else { return nil }
        let uniqueKey = properties.bytes.withUnsafeBytes { bytes in
            MessageProperties.value(of: PropertyName.uniqueKey, in: bytes).map {
                String(decoding: $0, as: UTF8.self)
            }
        }
        guard let uniqueKey else { return nil }
        return RecallHandle(
            topic: topic.name, brokerName: environment.configuration.brokerName, timestamp: String(due),
            uniqueKey: uniqueKey
        ).text
    }

    private func storeBatch(
        _ header: SendMessageRequestHeader, _ request: borrowing Request, _ target: Target
    ) {
        guard !target.topic.policy.isSharded else {
            return refuse(
                request,
                AppendRefusal.malformedBatch(
                    "topic \(target.topic.name) has apus.shard=true: messages of a batch may belong into different "
                        + "queues; send them one by one"))
        }
        properties.take(header.properties, region: storesRegion(request.frame, target.topic))
        guard !properties.hasIllegalDelay else { return refuseIllegalDelay(request) }
        guard properties.delayLevel <= 0, !properties.hasTimer, !properties.isPreparedTransaction else {
            return refuse(
                request, AppendRefusal.malformedBatch("a batch can be neither delayed nor transactional"))
        }
        let body = BatchBody(
            request.body, sysFlag: target.sysFlag, bytesMax: environment.configuration.maxMessageSize)
        let batch: AppendOutcome
        switch body {
        case .plain: batch = append(batch: request.body, sysFlag: target.sysFlag, header, request.client, target)
        case .inflated(let bytes):
            let sysFlag = target.sysFlag & ~(SysFlag.compressed | SysFlag.compressionTypeMask)
            batch = bytes.withUnsafeBytes { append(batch: $0, sysFlag: sysFlag, header, request.client, target) }
        case .refused(let reason): return refuse(request, AppendRefusal.malformedBatch(reason))
        }
        switch batch {
        case .appended(let result):
            storage.statistics.put(messages: result.count)
            target.topic.count(result.count, bytes: result.size, in: storage.stats)
            storage.gate.add(
                PendingAck(
                    client: request.client, address: request.returnAddress, kind: .send, queueID: target.queueID,
                    queueOffset: result.queueOffset.rawValue, physicalOffset: result.physicalOffset.rawValue,
                    end: result.end.rawValue, waits: properties.waitStoreMsgOK, topicMadeAt: target.topic.madeAt,
                    batchCount: Int32(result.count)))
        case .refused(let refusal): refuse(request, refusal)
        }
    }

    /// The batch's own properties and CLUSTER, which lie in `properties`, go after those of each of its messages.
    private func append(
        batch: UnsafeRawBufferPointer, sysFlag: Int32, _ header: SendMessageRequestHeader, _ client: ClientContext,
        _ target: Target
    ) -> AppendOutcome {
        target.topic.nameBytes.withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { suffix in
                var draft = MessageDraft(
                    topic: topic, queueID: target.queueID, bornHost: client.bornHost, storeHost: environment.storeHost,
                    body: batch)
                draft.flag = header.flag
                draft.sysFlag = sysFlag
                draft.bornTimestamp = header.bornTimestamp
                draft.reconsumeTimes = header.reconsumeTimes
                draft.properties = suffix
                return storage.store.appendBatch(draft, physicalOffsets: &storage.gate.batchOffsets)
            }
        }
    }

    private func refuse(_ request: borrowing Request, _ refusal: AppendRefusal) {
        let code: ResponseCode
        let remark: String
        switch refusal {
        case .messageTooLarge, .propertiesTooLarge, .topicLength, .topicName, .queueID, .malformedBatch, .unreadable,
            .noSuchMessage, .editedMeanwhile, .tooManyEdits:
            code = .messageIllegal
            remark =
                "the message is illegal, maybe msg body or properties length not matched. msg body length limit "
                + "\(environment.configuration.maxMessageSize)B, msg properties length limit 32KB. Here: \(refusal)"
        case .diskFull, .notWritable:
            code = .serviceNotAvailable
            remark = "service not available now. \(refusal)"
        }
        request.answer(code, remark: remark, fields: environment.sendResponseFields)
    }
}

extension TopicEntry {
    /// As RocketMQ prints a topic in its remarks.
    var description: String {
        "TopicConfig [topicName=\(name), readQueueNums=\(config.readQueueNums), "
            + "writeQueueNums=\(config.writeQueueNums), perm=\(Permission.text(config.perm)), "
            + "topicFilterType=\(config.topicFilterType), topicSysFlag=\(config.topicSysFlag), "
            + "order=\(config.order)]"
    }
}
