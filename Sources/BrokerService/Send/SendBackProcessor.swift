import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// CONSUMER_SEND_MSG_BACK (36): a consumer could not process a message. It is stored again for its group's retry topic,
/// delayed by its retry count, or after the last retry for the dead-letter topic.
final class SendBackProcessor {
    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let keeper: TableKeeper
    private let notifier: GroupNotifier

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ keeper: TableKeeper,
        _ notifier: GroupNotifier
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.keeper = keeper
        self.notifier = notifier
    }

    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let groupName = try request.extFields.required("group")
        let offset = try request.extFields.requiredInt64("offset")
        let delayLevel = try request.extFields.requiredInt32("delayLevel")
        func refuse(_ code: ResponseCode, _ remark: String) {
            request.answer(code, remark: remark)
        }
        guard let group = tables.groups.find(groupName) else {
            return refuse(
                .subscriptionGroupNotExist,
                "subscription group not exist, \(groupName) " + Remarks.faq
                    + tables.groups.remedy(for: groupName))
        }
        guard environment.configuration.brokerPermission & Permission.write != 0 else {
            return refuse(
                .noPermission, "the broker[\(environment.configuration.brokerIP1)] sending message is forbidden")
        }
        guard group.config.retryQueueNums > 0 else { return request.answer(.success) }
        let unitFlag: Int32 = request.extFields.bool("unitMode") == true ? 2 : 0
        guard let deadLetterTopic = group.groupName.deadLetterTopic,
            var topic = tables.retryTopic(of: group.groupName, unitFlag: unitFlag)
        else {
            return refuse(.messageIllegal, group.groupName.retryRefusal ?? "")
        }
        guard topic.config.perm & Permission.write != 0 else {
            return refuse(.noPermission, "the topic[\(topic.name)] sending message is forbidden")
        }
        guard let range = storage.store.lookMessage(at: PhysicalOffset(offset)) else {
            return refuse(.systemError, "look message by offset failed, \(offset)")
        }
        var maxReconsumeTimes = group.config.retryMaxTimes
        if request.frame.version >= SendMessageProcessor.maxReconsumeTimesVersion,
            let wanted = try request.extFields.int32("maxReconsumeTimes")
        {
            maxReconsumeTimes = wanted
        }
        if let reason = keeper.reasonNotKept(topic) {
            return refuse(.serviceNotAvailable, "service not available now. \(reason)")
        }
        // A copy: the draft must not point into the log while the log is written.
        guard let bytes = storage.store.withBytes(range, { Array($0) }) else {
            return refuse(.systemError, "look message by offset failed, \(offset)")
        }
        var origin = ""
        var deadLetterQueue: Int32 = 0
        var tries: Int32 = 0
        let outcome: AppendOutcome? = bytes.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return nil }
            var properties = PropertyList(sentBack: record, from: String(decoding: record.topic, as: UTF8.self))
            origin = properties[PropertyName.retryTopic] ?? ""
            var queueID: Int32
            if record.reconsumeTimes >= maxReconsumeTimes || delayLevel < 0 {
                topic = tables.deadLetterTopic(deadLetterTopic)
                queueID = Int32.random(in: 0..<QueueCounts.deadLetter)
                properties.waitForNothing()
                deadLetterQueue = queueID
                tries = record.reconsumeTimes +| 1
            } else {
                queueID = topic.anyReadableQueue
                let level = delayLevel == 0 ? 3 +| record.reconsumeTimes : delayLevel
                properties[PropertyName.delayLevel] = String(level)
            }
            return storage.append(record, to: topic.name, queueID: queueID, properties: properties) { draft in
                draft.reconsumeTimes = record.reconsumeTimes +| 1
            }
        }
        switch outcome {
        case .appended(let result):
            storage.statistics.put(messages: 1)
            if topic.isDeadLetterTopic { notifier.deadLetter(in: topic, deadLetterQueue, result, tries: tries) }
            // The name is what the message contains: only topics that are there are counted.
            if tables.topics[origin] != nil { storage.stats.sentBack(topic: origin, group: groupName) }
            storage.gate.add(
                PendingAck(
                    client: request.client, address: request.returnAddress, kind: .sendBack, queueID: 0,
                    queueOffset: result.queueOffset.rawValue, physicalOffset: result.physicalOffset.rawValue,
                    end: result.end.rawValue, waits: false, topicMadeAt: topic.madeAt))
        case .refused(let refusal): refuse(.systemError, "\(refusal)")
        case nil: refuse(.systemError, "look message by offset failed, \(offset): no record begins there")
        }
    }
}
