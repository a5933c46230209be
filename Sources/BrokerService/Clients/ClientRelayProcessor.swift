import FastJSON
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// Requests of tools that the broker hands on to a consumer, or carries out with its help:
/// INVOKE_BROKER_TO_RESET_OFFSET (222), INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223), GET_CONSUMER_RUNNING_INFO (307),
/// CONSUME_MESSAGE_DIRECTLY (309).
final class ClientRelayProcessor {
    static let answerTimeout = TimeAmount.seconds(10)

    private unowned let broker: Broker

    init(_ broker: Broker) { self.broker = broker }

    // MARK: 307, 309

    func runningInfo(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        try relay(frame, client, body: [])
    }

    func consumeDirectly(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let id = try frame.extFields.required("msgId")
        guard let (_, offset) = OffsetMessageID.parse(id),
            let range = broker.store.lookMessage(at: PhysicalOffset(offset)),
            let body = broker.store.withBytes(range, { Array($0) })
        else {
            return client.answer(
                frame.returnAddress, .systemError, remark: "can not find message by the id, \(id)")
        }
        try relay(frame, client, body: body)
    }

    private func relay(_ frame: RemotingFrame, _ client: ClientContext, body: [UInt8]) throws(RemotingDecodeError) {
        let group = try frame.extFields.required("consumerGroup")
        let clientId = frame.extFields.string("clientId") ?? ""
        guard let target = broker.consumers[group]?.client(clientId) else {
            return client.answer(
                frame.returnAddress, .systemError, remark: "The Consumer <\(group)> <\(clientId)> not online")
        }
        var fields = frame.extFields.dictionary()
        // Only who is to consume the message is told where it comes from.
        if !body.isEmpty { fields["brokerName"] = broker.configuration.brokerName }
        let request = RemotingCommand(code: frame.code, extFields: fields, body: body)
        let address = frame.returnAddress
        target.client.connection.request(request, serialization: address.serialization, timeout: Self.answerTimeout)
            .assumeIsolated().whenComplete { [broker] result in
                switch result {
                case .success(let answer):
                    client.connection.write { buffer in
                        ResponseEncoder.encode(
                            into: &buffer, address, answer.code, remark: answer.remark,
                            fields: answer.extFields.map { ($0.key, $0.value) }, bodyCount: answer.body.count)
                        buffer.writeBytes(answer.body)
                    }
                case .failure(let error):
                    let code: ResponseCode
                    if case RemotingError.timedOut = error {
                        code = .consumeMessageTimeout
                    } else {
                        code = .systemError
                    }
                    client.answer(
                        address, code, remark: "consumer <\(group)> <\(clientId)> did not answer: \(error)")
                }
                broker.scheduleTick()
            }
    }

    // MARK: 222

    func resetOffset(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let topic = try frame.extFields.required("topic")
        let group = try frame.extFields.required("group")
        let timestamp = try frame.extFields.requiredInt64("timestamp")
        let isForce = frame.extFields.bool("isForce") ?? false
        let address = frame.returnAddress
        guard let entry = broker.topics[topic] else {
            return client.answer(
                address, .systemError,
                remark: "[reset-offset] reset offset failed, no topic in this broker. topic=\(topic)")
        }
        var table: [(queue: MessageQueue, offset: Int64)] = []
        // RocketMQ leaves out the queues that are only read: a group would go on there as if nobody had reset it.
        for queueId in 0..<entry.queueNums {
            guard let consumed = broker.offsets.offset(topic: topic, group: group, queueId: queueId) else {
                // In a queue that is only read, or not read, a group may never have begun.
                if queueId >= min(entry.config.writeQueueNums, entry.config.readQueueNums) { continue }
                return client.answer(address, .systemError, remark: "THe consumer group <\(group)> not exist")
            }
            let queue = broker.store.consumeQueue(topic: topic, queueId: queueId)
            let wanted =
                timestamp == -1
                ? queue?.maxOffset.rawValue ?? 0
                : max(0, broker.store.offset(topic: topic, queueId: queueId, byTimestamp: timestamp).rawValue)
            table.append(
                (
                    MessageQueue(topic: topic, brokerName: broker.configuration.brokerName, queueID: queueId),
                    isForce || wanted < consumed ? wanted : consumed
                ))
        }
        guard let consumers = broker.consumers[group], !consumers.clients.isEmpty else {
            return client.answer(
                address, .consumerNotOnline,
                remark: "Consumer not online, so can not reset offset, Group: \(group) Topic: \(topic) "
                    + "Timestamp: \(timestamp)")
        }
        var offsets = JSONObject()
        for (queue, offset) in table { offsets.append(rawKey: queue.json.text(), .integer(offset)) }
        let body = JSONValue.fields([("offsetTable", .object(offsets))]).bytes()
        for member in consumers.clients {
            // The C++ client cannot read objects as keys and has its own form (ResetOffsetBodyForC).
            let memberBody = member.language == .cpp ? listForm(table) : body
            member.client.connection.oneway(
                RemotingCommand(
                    .resetConsumerClientOffset,
                    extFields: [
                        // The offsets are final: RocketMQ never forwards isForce.
                        "topic": topic, "group": group, "timestamp": String(timestamp), "isForce": "false",
                    ], body: memberBody))
        }
        client.answer(address, .success, body: body)
    }

    private func listForm(_ table: [(queue: MessageQueue, offset: Int64)]) -> [UInt8] {
        JSONValue.fields([
            (
                "offsetTable",
                .array(
                    table.map { queue, offset in
                        .fields([
                            ("brokerName", .string(queue.brokerName)), ("offset", .integer(offset)),
                            ("queueId", .integer(queue.queueID)), ("topic", .string(queue.topic)),
                        ])
                    })
            )
        ]).bytes()
    }

    // MARK: 223

    /// Asks the group's clients (or one) where they are, with GET_CONSUMER_STATUS_FROM_CLIENT (221).
    func consumerStatus(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let topic = try frame.extFields.required("topic")
        let group = try frame.extFields.required("group")
        let wanted = frame.extFields.string("clientAddr") ?? ""
        let address = frame.returnAddress
        let members = (broker.consumers[group]?.clients ?? []).filter { wanted.isEmpty || $0.clientId == wanted }
        guard !members.isEmpty else {
            return client.answer(
                address, .systemError, remark: "No Any Consumer online in the consumer group: [\(group)]")
        }
        let request = RemotingCommand(
            .getConsumerStatusFromClient, extFields: ["topic": topic, "group": group])
        var statuses: [(id: String, table: JSONObject)] = []
        var left = members.count
        for member in members {
            member.client.connection.request(request, timeout: .seconds(5)).assumeIsolated()
                .whenComplete { [broker] result in
                    if case .success(let answer) = result, answer.responseCode == .success,
                        let table = try? answer.json()["messageQueueTable"]?.object
                    {
                        // Instances that share an identifier are one to whoever asks.
                        if let index = statuses.firstIndex(where: { $0.id == member.clientId }) {
                            statuses[index].table.members += table.members
                        } else {
                            statuses.append((member.clientId, table))
                        }
                    }
                    left -= 1
                    guard left == 0 else { return }
                    let body = JSONValue.fields([
                        ("consumerTable", .fields(statuses.map { ($0.id, .object($0.table)) }))
                    ])
                    client.answer(address, .success, body: body.bytes())
                    broker.scheduleTick()
                }
        }
    }
}
