import FastJSON
import Logging
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
    /// Requests a member has not answered, and bytes it has not taken; beyond them it is asked nothing more.
    static let unansweredMax = 16
    static let unsentBytesMax = 4 << 20
    /// Requests of one asker that wait for members, at most: no further request of it is read meanwhile. A tool may
    /// share its connection with consumers, which must not wait for a client that hangs.
    static let waitingMax = 16
    /// Members one request for their status (223) asks, and bytes of what one of them answers.
    static let membersMax = 256
    static let statusBytesMax = 256 << 10

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let answers: TableAnswers
    private let notifier: GroupNotifier
    private let claims: GroupClaims
    private let waiting = WaitingAskers(max: waitingMax)

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
        guard Self.takesRequests(target) else {
            return request.answer(
                .systemBusy,
                remark: "consumer <\(group)> <\(clientID)> has \(Self.unansweredMax) requests it has not answered, or "
                    + "more than \(Self.unsentBytesMax) bytes it has not taken: ask again in a moment")
        }
        var fields = request.extFields.dictionary()
        // Only the client that is to consume the message learns where it comes from.
        if !body.isEmpty { fields["brokerName"] = environment.configuration.brokerName }
        let forwarded = RemotingCommand(code: request.frame.code, extFields: fields, body: body)
        let asker = request.asker
        let isCounted = begin(asker, asking: [target])
        target.client.connection.request(
            forwarded, serialization: asker.address.serialization, timeout: Self.answerTimeout
        )
        .assumeIsolated().whenComplete { [self] result in
            if isCounted { waiting.end(asker.client.connection) }
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

    private static func takesRequests(_ member: ClientChannelInfo) -> Bool {
        let connection = member.client.connection
        return connection.unansweredRequests < unansweredMax && connection.outboundBytes <= unsentBytesMax
    }

    /// The asker's request waits for these. One that is asked itself goes on: its answer comes on the same connection.
    /// - Parameter weight: 307 and 309 ask one member, 223 may ask all of a group.
    /// - Returns: whether it counts, and is to be ended.
    private func begin(_ asker: Asker, asking members: [ClientChannelInfo], weight: Int = 1) -> Bool {
        guard !members.contains(where: { $0.client === asker.client }) else { return false }
        waiting.begin(asker.client.connection, weight: weight)
        return true
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

    /// Asks the group's clients (or one) where they are, with GET_CONSUMER_STATUS_FROM_CLIENT (221). One that has too
    /// much to answer is not asked, and is absent from the answer like one that does not answer in time.
    func consumerStatus(_ request: borrowing Request) throws(RemotingDecodeError) {
        let topic = try request.extFields.required("topic")
        let group = try request.extFields.required("group")
        let wanted = request.extFields.string("clientAddr") ?? ""
        let asker = request.asker
        let members = (tables.consumers[group]?.clients ?? []).filter { wanted.isEmpty || $0.clientID == wanted }
        guard !members.isEmpty else {
            return asker.answer(.systemError, remark: "No Any Consumer online in the consumer group: [\(group)]")
        }
        guard members.count <= Self.membersMax else {
            return asker.answer(
                .systemError,
                remark: "consumer group [\(group)] has \(members.count) members, and at most \(Self.membersMax) are "
                    + "asked: name one (mqadmin getConsumerStatus -i clientId)")
        }
        let asked = members.filter(Self.takesRequests)
        guard !asked.isEmpty else {
            return asker.answer(
                .systemBusy,
                remark: "no member of consumer group [\(group)] takes requests: each has \(Self.unansweredMax) it has "
                    + "not answered, or more than \(Self.unsentBytesMax) bytes it has not taken; ask again in a moment")
        }
        let request = RemotingCommand(
            .getConsumerStatusFromClient, extFields: ["topic": topic, "group": group])
        var statuses: [(clientID: String, body: [UInt8])] = []
        var bytes = 0
        var left = asked.count
        var toAsk = asked[...]
        let isCounted = begin(asker, asking: asked, weight: Self.waitingMax)
        let ask = { [answers, storage, waiting, logger = environment.logger] (member: ClientChannelInfo) in
            member.client.connection.request(request, timeout: .seconds(5)).assumeIsolated().whenComplete { result in
                if case .success(let answer) = result, answer.responseCode == .success {
                    bytes += answer.body.count
                    if answer.body.count > Self.statusBytesMax {
                        logger.warning(
                            """
                            the status of consumer \(member.clientID) at \(member.client.address) is left out: \
                            \(answer.body.count) bytes, at most \(Self.statusBytesMax) are taken
                            """)
                    } else if bytes <= TableAnswers.bytesMax {
                        statuses.append((member.clientID, answer.body))
                    }
                }
                left -= 1
                guard left == 0 else { return }
                let found = statuses
                statuses = []
                storage.scheduleTick()
                if isCounted { waiting.end(asker.client.connection, weight: Self.waitingMax) }
                guard bytes <= TableAnswers.bytesMax else {
                    return TableAnswers.refuse(asker, atMost: TableAnswers.bytesMax)
                }
                // Few entries of a few bytes are read at once; the others on the thread that makes the answer.
                answers.answer(entries: found.count + bytes / Self.bytesOfQueue, asker) { Self.table(found) }
            }
        }
        let slice = { () -> Bool in
            for member in toAsk.prefix(Self.membersPerSlice) { ask(member) }
            toAsk = toAsk.dropFirst(Self.membersPerSlice)
            return !toAsk.isEmpty
        }
        if slice() { environment.slices.add(slice) }
    }

    /// What members have answered; any thread.
    private static func table(_ answers: [(clientID: String, body: [UInt8])]) -> JSONValue {
        // Instances that share an identifier are one to the client that asks.
        var statuses: [String: JSONObject] = [:]
        for (clientID, body) in answers {
            guard let table = (try? JSONValue(parsing: body))?["messageQueueTable"]?.object else { continue }
            statuses[clientID, default: JSONObject()].members += table.members
        }
        let sorted = statuses.sorted { $0.key < $1.key }
        return .fields([("consumerTable", .fields(sorted.map { ($0.key, Optional(.object($0.value))) }))])
    }

    /// Members asked in one slice.
    private static let membersPerSlice = 128
    /// Bytes of a queue in a member's answer, about.
    private static let bytesOfQueue = 64
}
