import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320): everything that must be refused is refused here,
/// the rest goes into the store's write buffer and waits in the ack gate for the end of the tick. Nothing on this
/// path allocates per message.
final class SendMessageProcessor {
    /// DLQ_NUMS_PER_GROUP.
    static let deadLetterQueues: Int32 = 1
    /// V3_4_9: clients from here on may say how often they want a retry.
    static let maxReconsumeTimesVersion: Int32 = 121
    /// V5_0_0: what producers from here on send is stored with region and trace switch, as RocketMQ 5 does.
    static let regionVersion: Int32 = 414
    static let faq = "\nSee http://rocketmq.apache.org/docs/faq/ for further details."

    // The broker owns this and outlives it.
    private unowned(unsafe) let broker: Broker
    private var properties = StoredProperties()
    private let own: StoredProperties.Own
    private let ownWithRegion: StoredProperties.Own
    private let scheduleTopic = Array(TopicNames.schedule.utf8)
    private let halfTopic = Array(TopicNames.half.utf8)
    private let timerTopic = Array(TimerMessageStore.topic.utf8)

    init(_ broker: Broker) {
        self.broker = broker
        let configuration = broker.configuration
        own = StoredProperties.Own(cluster: configuration.brokerClusterName)
        ownWithRegion = StoredProperties.Own(
            cluster: configuration.brokerClusterName, region: configuration.regionId, traceOn: configuration.traceOn)
    }

    /// Where a message goes: usually the topic it names, sometimes a dead-letter topic or the schedule topic.
    struct Target {
        var topic: TopicEntry
        var queueId: Int32
        var sysFlag: Int32
    }

    func process(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let header = try SendMessageRequestHeader(frame)
        guard let target = admit(header, frame, client) else { return }
        if frame.code == RequestCode.sendBatchMessage.rawValue || header.batch {
            storeBatch(header, frame, client, target)
        } else {
            store(header, frame, client, target)
        }
    }

    private func refuse(
        _ frame: RemotingFrame, _ client: ClientContext, _ code: ResponseCode, _ remark: String
    ) -> Target? {
        client.answer(frame.returnAddress, code, remark: remark, fields: broker.sendResponseFields)
        return nil
    }

    // MARK: Checks

    private static func forbidden(_ topic: String) -> String {
        "Sending message to topic[\(topic)] is forbidden. Only the broker itself writes there; choose another topic."
    }

    func admit(_ header: SendMessageRequestHeader, _ frame: RemotingFrame, _ client: ClientContext) -> Target? {
        if let reason = broker.reasonNotToTakeMessages {
            return refuse(frame, client, .serviceNotAvailable, reason)
        }
        if let reason = broker.reasonToBeEarly { return refuse(frame, client, .systemError, reason) }
        if let reason = broker.reasonToBeBusy { return refuse(frame, client, .systemBusy, reason) }
        guard let topic = broker.topics[header.topic] ?? createTopic(header, frame, client) else { return nil }
        if topic.madeAt > broker.topics.kept, let failure = broker.keeper.failure(.topics) {
            return refuse(
                frame, client, .serviceNotAvailable,
                "service not available now. the topic[\(topic.name)] is new and could not be put on disk: \(failure)")
        }
        let configuration = broker.configuration
        if configuration.brokerPermission & Permission.write == 0, topic.config.order {
            return refuse(
                frame, client, .noPermission,
                "the broker[\(configuration.brokerIP1)] sending message is forbidden"
                    + " (brokerPermission has no write; mqadmin updateBrokerConfig)")
        }
        guard topic.mayBeSentTo else {
            return refuse(frame, client, .noPermission, Self.forbidden(topic.name))
        }
        var queueId = header.queueID
        if queueId >= max(topic.config.writeQueueNums, topic.config.readQueueNums) {
            return refuse(
                frame, client, .systemError,
                "request queueId[\(queueId)] is illegal, \(topic.description) Producer: \(client.address)"
                    + " (queues are numbered from 0; the producer's route may be old)")
        }
        if queueId < 0 {
            guard topic.config.writeQueueNums > 0 else {
                return refuse(
                    frame, client, .systemError,
                    "topic[\(topic.name)] has no queue to write to; give it writeQueueNums > 0 (mqadmin updateTopic)")
            }
            queueId = Int32.random(in: 0..<topic.config.writeQueueNums)
        }
        var sysFlag = header.sysFlag
        if topic.isMultiTag { sysFlag |= SysFlag.multiTags }
        let target = Target(topic: topic, queueId: queueId, sysFlag: sysFlag)
        return topic.isRetryTopic ? redirectRetry(target, header, frame, client) : target
    }

    private func createTopic(
        _ header: SendMessageRequestHeader, _ frame: RemotingFrame, _ client: ClientContext
    ) -> TopicEntry? {
        func refuse(_ code: ResponseCode, _ remark: String) -> TopicEntry? {
            _ = self.refuse(frame, client, code, remark)
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
        guard broker.creations.mayMakeTopic(client) else {
            return refuse(
                .systemBusy,
                "[OVERLOAD]system busy, start flow control for a while: topic[\(name)] was not made, this address has made more "
                    + "than \(CreationRates.topics.words); send again in a moment")
        }
        let isRetry = name.hasPrefix(TopicNames.retryPrefix)
        // TopicSysFlag: 1 unit, 2 unit subscription.
        let topicSysFlag: Int32 = header.unitMode ? (isRetry ? 2 : 1) : 0
        if let entry = broker.topics.createForSend(
            topicName, defaultTopic: String(decoding: header.defaultTopic, as: UTF8.self),
            clientQueueNums: header.defaultTopicQueueNums, topicSysFlag: topicSysFlag)
        {
            broker.autoCreated(entry.config)
            broker.logger.info(
                "topic \(name) created with \(entry.config.writeQueueNums) queues for producer \(client.address)")
            return entry
        }
        if isRetry {
            return broker.topics.findOrCreate(
                topicName, queueNums: 1, perm: Permission.read | Permission.write, topicSysFlag: topicSysFlag)
        }
        return refuse(
            .topicNotExist,
            "topic[\(name)] not exist, apply first please!" + Self.faq
                + "\nCreate it (mqadmin updateTopic), or set autoCreateTopicEnable=true.")
    }

    /// A consumer sends to its own retry topic: after too many retries the message goes to the dead-letter topic.
    private func redirectRetry(
        _ target: Target, _ header: SendMessageRequestHeader, _ frame: RemotingFrame, _ client: ClientContext
    ) -> Target? {
        broker.topics.writeSoon()
        let groupName = String(target.topic.name.dropFirst(TopicNames.retryPrefix.count))
        guard let group = broker.groups.find(groupName) else {
            return refuse(
                frame, client, .subscriptionGroupNotExist,
                "subscription group not exist, \(groupName) " + Self.faq + broker.groups.remedy(for: groupName))
        }
        var maxReconsumeTimes = group.config.retryMaxTimes
        if frame.version >= Self.maxReconsumeTimesVersion, let wanted = header.maxReconsumeTimes {
            maxReconsumeTimes = wanted
        }
        guard header.reconsumeTimes >= maxReconsumeTimes else { return target }
        // The retry topic's name is longer, and fits.
        guard let deadLetterTopic = group.groupName.deadLetterTopic else { return target }
        let topic = broker.topics.findOrCreate(
            deadLetterTopic, queueNums: Self.deadLetterQueues,
            perm: Permission.read | Permission.write)
        return Target(
            topic: topic, queueId: Int32.random(in: 0..<Self.deadLetterQueues), sysFlag: target.sysFlag)
    }

    // MARK: Storing

    private func store(
        _ header: SendMessageRequestHeader, _ frame: RemotingFrame, _ client: ClientContext, _ target: Target
    ) {
        properties.take(header.properties, own: own(for: frame, target.topic))
        guard let place = place(target, frame, client) else { return }
        let outcome = place.topic.withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { properties in
                var draft = MessageDraft(
                    topic: topic, queueId: place.queueId, bornHost: client.bornHost, storeHost: broker.storeHost,
                    body: frame.body)
                draft.flag = header.flag
                draft.sysFlag = place.sysFlag
                draft.bornTimestamp = header.bornTimestamp
                draft.reconsumeTimes = header.reconsumeTimes
                draft.properties = properties
                return broker.store.append(draft)
            }
        }
        switch outcome {
        case .appended(let result):
            broker.statistics.put(messages: 1)
            (place.waitsIn ?? target.topic).count(1, bytes: result.size, in: broker.stats)
            if let waitsIn = place.waitsIn, waitsIn.name == TopicNames.schedule {
                broker.stats.delayed(queueId: place.queueId, bytes: result.size)
            }
            broker.gate.add(
                PendingAck(
                    client: client, address: frame.returnAddress, kind: place.acknowledgement, queueId: target.queueId,
                    queueOffset: result.queueOffset.rawValue, physicalOffset: result.physicalOffset.rawValue,
                    end: result.end.rawValue, waits: properties.waitStoreMsgOK,
                    topicMadeAt: max(target.topic.madeAt, place.waitsIn?.madeAt ?? 0)))
        case .refused(let refusal): refuse(frame, client, refusal)
        }
    }

    /// Consumers of 5.x need region and switch to trace (RocketMQ 5 stores them always, 39 bytes; 4.9 never). Messages of older
    /// producers get them once somebody traces here, so that nobody else pays for it.
    @inline(__always)
    private func own(for frame: RemotingFrame, _ topic: TopicEntry) -> StoredProperties.Own {
        if frame.version >= Self.regionVersion { return ownWithRegion }
        guard let trace = broker.topics.traceEntry, trace !== topic else { return own }
        return ownWithRegion
    }

    // MARK: Messages that wait

    /// Where a message is stored: under its own topic, or where it waits for its time or its outcome.
    private struct Place {
        var topic: [UInt8]
        var queueId: Int32
        var sysFlag: Int32
        var acknowledgement = PendingAck.Kind.send
        /// The topic of messages that wait, if it is one of them.
        var waitsIn: TopicEntry?
    }

    /// Looks at `properties`; `nil` when the message was refused.
    @inline(__always)
    private func place(_ target: Target, _ frame: RemotingFrame, _ client: ClientContext) -> Place? {
        if properties.isPreparedTransaction || properties.delayLevel > 0 || properties.hasTimer {
            return waitingPlace(target, frame, client)
        }
        return Place(topic: target.topic.nameBytes, queueId: target.queueId, sysFlag: target.sysFlag)
    }

    private func waitingPlace(_ target: Target, _ frame: RemotingFrame, _ client: ClientContext) -> Place? {
        var place = Place(topic: target.topic.nameBytes, queueId: target.queueId, sysFlag: target.sysFlag)
        if properties.isPreparedTransaction {
            guard !broker.configuration.rejectTransactionMessage else {
                _ = refuse(
                    frame, client, .noPermission,
                    "the broker[\(broker.configuration.brokerIP1)] sending transaction message is forbidden")
                return nil
            }
            broker.transactions.makeTopics()
            place.topic = halfTopic
            place.queueId = 0
            // It must enter its queue, to be found there.
            place.sysFlag &= ~SysFlag.transactionRollbackType
        } else if properties.delayLevel > 0 {
            let levels = Int32(clamping: broker.delayLevels.count)
            if properties.delayLevel > levels { properties.cutDelayLevel(to: levels) }
            place.topic = scheduleTopic
            place.queueId = properties.delayLevel - 1
        } else {
            let maxDelay = broker.timerSettings.maxDelay
            let request = properties.bytes.withUnsafeBytes {
                TimerProperties.request($0, now: broker.now(), maxDelay: maxDelay)
            }
            switch request {
            case .now: return place
            case .illegal:
                _ = refuse(frame, client, .messageIllegal, TimerProperties.illegalRemark(maxDelay: maxDelay))
                return nil
            case .at(let due):
                guard properties.bytes.count + TimerProperties.reservedBytes <= Int(Int16.max) else {
                    refuse(frame, client, AppendRefusal.propertiesTooLarge)
                    return nil
                }
                if let handle = recallHandle(target.topic, due) {
                    place.acknowledgement = .sendWith(broker.sendResponseFields + [("recallHandle", handle)])
                }
                broker.timerMessages.makeTopic()
                properties.append(TimerProperties.outMilliseconds, String(due).utf8)
                place.topic = timerTopic
                place.queueId = 0
            }
        }
        place.waitsIn = place.topic.withUnsafeBytes { broker.topics[$0] }
        properties.append("REAL_TOPIC", target.topic.nameBytes)
        properties.append("REAL_QID", String(target.queueId).utf8)
        return place
    }

    /// With it the producer can cancel the message; a retry has none.
    private func recallHandle(_ topic: TopicEntry, _ due: Int64) -> String? {
        guard broker.timerSettings.isRecallEnabled, !topic.isRetryTopic else { return nil }
        let uniqueKey = properties.bytes.withUnsafeBytes { bytes in
            StoreFormat.MessageProperties.value(of: StoreFormat.MessageProperties.uniqueKey, in: bytes).map {
                String(decoding: $0, as: UTF8.self)
            }
        }
        guard let uniqueKey else { return nil }
        return RecallHandle(
            topic: topic.name, brokerName: broker.configuration.brokerName, timestamp: String(due),
            uniqueKey: uniqueKey
        ).text
    }

    private func storeBatch(
        _ header: SendMessageRequestHeader, _ frame: RemotingFrame, _ client: ClientContext, _ target: Target
    ) {
        properties.take(header.properties, own: own(for: frame, target.topic))
        guard properties.delayLevel <= 0, !properties.hasTimer, !properties.isPreparedTransaction else {
            return refuse(
                frame, client, AppendRefusal.malformedBatch("a batch can be neither delayed nor transactional"))
        }
        // The batch's own properties and CLUSTER go behind those of each of its messages.
        let suffix = properties.bytes
        let batch = target.topic.nameBytes.withUnsafeBytes { topic in
            suffix.withUnsafeBytes { suffix in
                var draft = MessageDraft(
                    topic: topic, queueId: target.queueId, bornHost: client.bornHost, storeHost: broker.storeHost,
                    body: frame.body)
                draft.flag = header.flag
                draft.sysFlag = target.sysFlag
                draft.bornTimestamp = header.bornTimestamp
                draft.reconsumeTimes = header.reconsumeTimes
                draft.properties = suffix
                return broker.store.appendBatch(draft, physicalOffsets: &broker.gate.batchOffsets)
            }
        }
        switch batch {
        case .appended(let result):
            broker.statistics.put(messages: result.count)
            target.topic.count(result.count, bytes: result.size, in: broker.stats)
            broker.gate.add(
                PendingAck(
                    client: client, address: frame.returnAddress, kind: .send, queueId: target.queueId,
                    queueOffset: result.queueOffset.rawValue, physicalOffset: result.physicalOffset.rawValue,
                    end: result.end.rawValue, waits: properties.waitStoreMsgOK, topicMadeAt: target.topic.madeAt,
                    batchCount: Int32(result.count)))
        case .refused(let refusal): refuse(frame, client, refusal)
        }
    }

    private func refuse(_ frame: RemotingFrame, _ client: ClientContext, _ refusal: AppendRefusal) {
        let code: ResponseCode
        let remark: String
        switch refusal {
        case .messageTooLarge, .propertiesTooLarge, .topicLength, .topicName, .queueId, .malformedBatch:
            code = .messageIllegal
            remark =
                "the message is illegal, maybe msg body or properties length not matched. "
                + "msg body length limit \(broker.configuration.maxMessageSize)B, msg properties length limit 32KB."
                + " Here: \(refusal)"
        case .diskFull, .notWritable:
            code = .serviceNotAvailable
            remark = "service not available now. \(refusal)"
        }
        client.answer(frame.returnAddress, code, remark: remark, fields: broker.sendResponseFields)
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
