import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// RECALL_MESSAGE (370, RocketMQ 5.3): cancels a timer message by the handle its producer got. The cancellation is
/// stored like a timer message, due when the message is, and so reaches it wherever it waits. When the answer has left,
/// the message will not be delivered.
final class RecallMessageProcessor {
    static let tag = "_RECALL_TAG_"

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let timers: TimerMessageStore

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ timers: TimerMessageStore
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.timers = timers
    }

    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let topic = try request.extFields.required("topic")
        let text = try request.extFields.required("recallHandle")
        let group = request.extFields.string("producerGroup") ?? ""
        let region = [("\(PropertyName.region)", environment.configuration.regionID)]
        func refuse(_ code: ResponseCode, _ remark: String) {
            request.answer(code, remark: remark, fields: region)
        }
        guard environment.timerSettings.isRecallEnabled else {
            return refuse(.noPermission, "recall failed, operation is forbidden")
        }
        guard tables.topics[topic] != nil else {
            return refuse(.topicNotExist, "recall failed, the topic[\(topic)] not exist")
        }
        guard let handle = RecallHandle(text) else { return refuse(.illegalOperation, "recall handle is invalid") }
        guard handle.topic == topic else { return refuse(.illegalOperation, "recall failed, topic not match") }
        guard handle.brokerName == environment.configuration.brokerName else {
            return refuse(.illegalOperation, "recall failed, broker service not available")
        }
        let now = environment.now()
        guard let due = Int64(handle.timestamp), due > now, due - now <= environment.timerSettings.maxDelay else {
            return refuse(.illegalOperation, "recall failed, timestamp invalid")
        }
        switch store(handle, due: due, group: group, bornHost: request.client.bornHost, now: now) {
        case .appended(let result):
            let key = handle.topic + "+" + handle.uniqueKey
            timers.obey(TimerCancellation(recalling: key, sequence: result.queueOffset.rawValue), due: due)
            let fields = [("msgId", handle.uniqueKey)] + region
            storage.gate.add(
                PendingAck(
                    client: request.client, address: request.returnAddress, kind: .fields(fields), queueID: 0,
                    queueOffset: result.queueOffset.rawValue, physicalOffset: result.physicalOffset.rawValue,
                    end: result.end.rawValue, waits: true))
        case .refused(let refusal): refuse(.systemError, "recall failed, execute error: \(refusal)")
        }
    }

    private func store(
        _ handle: RecallHandle, due: Int64, group: String, bornHost: HostAddress, now: Int64
    ) -> AppendOutcome {
        var properties = PropertyList()
        properties[PropertyName.timerDeleteUniqueKey] = handle.topic + "+" + handle.uniqueKey
        properties[PropertyName.uniqueKey] = handle.uniqueKey
        properties[PropertyName.timerDeliverMilliseconds] = handle.timestamp
        properties[PropertyName.timerOutMilliseconds] = String(due)
        properties[PropertyName.bornTimestamp] = String(now)
        if !group.isEmpty { properties[PropertyName.producerGroup] = group }
        properties[PropertyName.tags] = Self.tag
        properties[PropertyName.realTopic] = handle.topic
        properties[PropertyName.realQueueID] = "0"
        return Array(TopicNames.timer.utf8).withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { properties in
                Array("0".utf8).withUnsafeBytes { body in
                    var draft = MessageDraft(
                        topic: topic, queueID: 0, bornHost: bornHost, storeHost: environment.storeHost, body: body)
                    draft.bornTimestamp = now
                    draft.properties = properties
                    return storage.store.append(draft)
                }
            }
        }
    }
}
