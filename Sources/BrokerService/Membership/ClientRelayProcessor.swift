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

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let answers: TableAnswers
    private let notifier: GroupNotifier
    private let claims: GroupClaims

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ answers: TableAnswers,
        _ notifier: GroupNotifier, _ claims: GroupClaims
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.answers = answers
        self.notifier = notifier
        self.claims = claims
    }

    // MARK: - 307, 309

    func runningInfo(_ request: borrowing Request) throws(RemotingDecodeError) {
        try relay(request, body: [])
    }

    func consumeDirectly(_ request: borrowing Request) throws(RemotingDecodeError) {
        let id = try request.extFields.required("msgId")
        guard let (_, offset) = OffsetMessageID.parse(id),
            let range = storage.store.lookMessage(at: PhysicalOffset(offset)),
            let body = storage.store.withBytes(range, { Array($0) })
        else {
            return request.answer(.systemError, remark: "can not find message by the id, \(id)")
        }
        try relay(request, body: body)
    }

    private func relay(_ request: borrowing Request, body: [UInt8]) throws(RemotingDecodeError) {
        let group = try request.extFields.required("consumerGroup")
        let clientID = request.extFields.string("clientId") ?? ""
        guard let target = tables.consumers[group]?.client(clientID) else {
            return request.answer(.systemError, remark: "The Consumer <\(group)> <\(clientID)> not online")
        }
        var fields = request.extFields.dictionary()
        // Only the client that is to consume the message learns where it comes from.
        if !body.isEmpty { fields["brokerName"] = environment.configuration.brokerName }
        let forwarded = RemotingCommand(code: request.frame.code, extFields: fields, body: body)
        let asker = request.asker
        target.client.connection.request(
            forwarded, serialization: asker.address.serialization, timeout: Self.answerTimeout
        )
        .assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let answer):
                asker.client.connection.write { buffer in
                    ResponseEncoder.encode(
                        into: &buffer, asker.address, answer.code, remark: answer.remark,
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
                asker.answer(code, remark: "consumer <\(group)> <\(clientID)> did not answer: \(error)")
            }
            storage.scheduleTick()
        }
    }

    // MARK: - 222

    func resetOffset(_ request: borrowing Request) throws(RemotingDecodeError) {
        let topic = try request.extFields.required("topic")
        let group = try request.extFields.required("group")
        let timestamp = try request.extFields.requiredInt64("timestamp")
        let isForce = request.extFields.bool("isForce") ?? false
        let asker = request.asker
        guard let entry = tables.topics[topic] else {
            return asker.answer(
                .systemError,
                remark: "[reset-offset] reset offset failed, no topic in this broker. topic=\(topic)")
        }
        var offsets: [Int64?] = []
        var refusal: String?
        // RocketMQ leaves out the queues that are only read: a group would go on there as if it had not been reset.
        environment.slices.work(for: request.client) { [self] in
            let end = min(Int(entry.queueNums), offsets.count + Self.queuesPerSlice)
            for queueID in Int32(offsets.count)..<max(Int32(offsets.count), Int32(end)) {
                guard let consumed = tables.offsets.offset(topic: topic, group: group, queueID: queueID) else {
                    // In a queue that is only read, or not read, a group may never have begun.
                    guard queueID >= min(entry.config.writeQueueNums, entry.config.readQueueNums) else {
                        refusal = "THe consumer group <\(group)> not exist"
                        return false
                    }
                    offsets.append(nil)
                    continue
                }
                let queue = storage.store.consumeQueue(topic: topic, queueID: queueID)
                let wanted =
                    timestamp == -1
                    ? queue?.maxOffset.rawValue ?? 0
                    : max(0, storage.store.offset(topic: topic, queueID: queueID, byTimestamp: timestamp).rawValue)
                offsets.append(isForce || wanted < consumed ? wanted : consumed)
            }
            return end < Int(entry.queueNums)
        } then: { [self] in
            if let refusal { return asker.answer(.systemError, remark: refusal) }
            let table = offsets.enumerated().compactMap { queueID, offset in
                offset.map {
                    (
                        MessageQueue(
                            topic: topic, brokerName: environment.configuration.brokerName, queueID: Int32(queueID)), $0
                    )
                }
            }
            guard let members = tables.consumers[group]?.clients, !members.isEmpty else {
                return asker.answer(
                    .consumerNotOnline,
                    remark: "Consumer not online, so can not reset offset, Group: \(group) Topic: \(topic) "
                        + "Timestamp: \(timestamp)")
            }
            let body = Self.mapForm(table)
            reset(members, table, body: body, ["topic": topic, "group": group, "timestamp": String(timestamp)])
            resetClaims(of: group, entry, table, asker) { asker.answer(.success, body: body) }
        }
    }

    /// Of queues the group pops: its members have no offsets they could set.
    private func resetClaims(
        of group: String, _ topic: TopicEntry, _ offsets: [(queue: MessageQueue, offset: Int64)], _ asker: Asker,
        then: @escaping () -> Void
    ) {
        guard let group = tables.groups[group] else { return then() }
        var left = offsets[...]
        environment.slices.work(for: asker.client) { [self] in
            for (queue, offset) in left.prefix(Self.queuesPerSlice)
            where claims.find(group: group, topic: topic, queueID: queue.queueID) != nil {
                tables.offsets.commit(topic: topic, group: group, queueID: queue.queueID, offset: offset)
                claims.offsetWasSet(group: group, topic: topic, queueID: queue.queueID)
            }
            left = left.dropFirst(Self.queuesPerSlice)
            return !left.isEmpty
        } then: {
            then()
        }
    }

    /// Queues a slice searches for a time: each search reads some twenty messages of the log.
    private static let queuesPerSlice = 24

    /// Orders the members to begin there: RESET_CONSUMER_CLIENT_OFFSET (220).
    private func reset(
        _ members: [ClientChannelInfo], _ table: [(queue: MessageQueue, offset: Int64)], body: [UInt8],
        _ fields: [String: String]
    ) {
        // The offsets are final: RocketMQ never forwards isForce.
        let fields = fields.merging(["isForce": "false"]) { $1 }
        func frame(_ body: [UInt8]) -> ByteBuffer {
            // The same bytes for all clients: none answers, so that the number of the request means nothing.
            var request = RemotingCommand(.resetConsumerClientOffset, extFields: fields, body: body)
            request.flag = RemotingFrame.onewayFlag
            var frame = ByteBuffer()
            request.encode(into: &frame)
            return frame
        }
        // The C++ client cannot read objects as keys and has its own form (ResetOffsetBodyForC).
        let others = members.filter { $0.language == .cpp }
        if others.count < members.count { notifier.tell(members.filter { $0.language != .cpp }, frame(body)) }
        if !others.isEmpty { notifier.tell(others, frame(Self.listForm(table))) }
    }

    private static func mapForm(_ table: [(queue: MessageQueue, offset: Int64)]) -> [UInt8] {
        var offsets = JSONObject()
        for (queue, offset) in table { offsets.append(rawKey: queue.json.text(), .integer(offset)) }
        return JSONValue.fields([("offsetTable", .object(offsets))]).bytes()
    }

    private static func listForm(_ table: [(queue: MessageQueue, offset: Int64)]) -> [UInt8] {
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

    // MARK: - 223

    /// Asks the group's clients (or one) where they are, with GET_CONSUMER_STATUS_FROM_CLIENT (221).
    func consumerStatus(_ request: borrowing Request) throws(RemotingDecodeError) {
        let topic = try request.extFields.required("topic")
        let group = try request.extFields.required("group")
        let wanted = request.extFields.string("clientAddr") ?? ""
        let asker = request.asker
        let members = (tables.consumers[group]?.clients ?? []).filter { wanted.isEmpty || $0.clientID == wanted }
        guard !members.isEmpty else {
            return asker.answer(.systemError, remark: "No Any Consumer online in the consumer group: [\(group)]")
        }
        let request = RemotingCommand(
            .getConsumerStatusFromClient, extFields: ["topic": topic, "group": group])
        // Instances that share an identifier are one to the client that asks.
        var statuses: [String: JSONObject] = [:]
        var left = members.count
        var toAsk = members[...]
        let ask = { [answers, storage] (member: ClientChannelInfo) in
            member.client.connection.request(request, timeout: .seconds(5)).assumeIsolated().whenComplete { result in
                if case .success(let answer) = result, answer.responseCode == .success,
                    let table = try? answer.json()["messageQueueTable"]?.object
                {
                    statuses[member.clientID, default: JSONObject()].members += table.members
                }
                left -= 1
                guard left == 0 else { return }
                let found = statuses
                answers.answer(entries: found.count, asker) {
                    .fields([
                        (
                            "consumerTable",
                            .fields(found.sorted { $0.key < $1.key }.map { ($0.key, Optional(.object($0.value))) })
                        )
                    ])
                }
                storage.scheduleTick()
            }
        }
        let slice = { () -> Bool in
            for member in toAsk.prefix(Self.membersPerSlice) { ask(member) }
            toAsk = toAsk.dropFirst(Self.membersPerSlice)
            return !toAsk.isEmpty
        }
        if slice() { environment.slices.add(slice) }
    }

    /// Members asked in one slice.
    private static let membersPerSlice = 128
}
