import FastJSON
import MessageModel
import RemotingProtocol
import RemotingTransport

/// The broker divides a topic's queues among a group's members: QUERY_ASSIGNMENT (400), and SET_MESSAGE_REQUEST_MODE
/// (401), by which an operator has a group pop. Confined to the broker's event loop.
final class QueryAssignmentProcessor {
    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let keeper: TableKeeper
    private let routes: any TopicRoutes
    /// Questions of one connection that wait for a name server, at most: no further request of it is read meanwhile.
    static let waitingMax = 16
    private let waiting = WaitingAskers(max: waitingMax)

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ keeper: TableKeeper, _ routes: any TopicRoutes
    ) {
        self.environment = environment
        self.tables = tables
        self.keeper = keeper
        self.routes = routes
    }

    // MARK: - 401

    func setMode(_ request: borrowing Request) throws(RemotingDecodeError) {
        let mode = try SetMessageRequestModeBody(body: request.body)
        guard !mode.topic.hasPrefix(TopicNames.retryPrefix) else {
            return request.answer(.noPermission, remark: "retry topic is not allowed to set mode")
        }
        guard tables.topics[mode.topic] != nil else {
            return request.answer(
                .topicNotExist, remark: "topic[\(mode.topic)] not exist: create it first (mqadmin updateTopic)")
        }
        guard tables.groups[mode.consumerGroup] != nil else {
            return request.answer(
                .subscriptionGroupNotExist,
                remark: "subscription group [\(mode.consumerGroup)] does not exist: create it first "
                    + "(mqadmin updateSubGroup)")
        }
        guard tables.requestModes.set(mode) else {
            return request.answer(
                .systemError, remark: "there are \(MessageRequestModes.countMax) modes already: delete unused topics")
        }
        let asker = request.asker
        keeper.answerWhenKept(asker) { asker.answer(.success) }
    }

    // MARK: - 400

    func assign(_ request: borrowing Request) throws(RemotingDecodeError) {
        let body = try QueryAssignmentRequestBody(body: request.body)
        let asker = request.asker
        let connection = asker.client.connection
        var isAnswered = false
        var waits = false
        routes.readableQueues(of: body.topic) { [unowned self] queues in
            isAnswered = true
            if waits { waiting.end(connection) }
            guard !connection.isClosed else { return }
            guard case .all(let queues) = queues else {
                return asker.answer(
                    .systemError,
                    remark: "topic \(body.topic) has more than \(KnownRoutes.dividedMax) queues, the broker divides no "
                        + "more: let clients divide them (clientRebalance)")
            }
            asker.answer(.success, body: answer(body, queues))
        }
        guard !isAnswered else { return }
        waits = true
        waiting.begin(connection)
    }

    private func answer(_ body: QueryAssignmentRequestBody, _ queues: [MessageQueue]) -> [UInt8] {
        let isRetry = body.topic.hasPrefix(TopicNames.retryPrefix)
        let stored = isRetry ? nil : tables.requestModes.mode(topic: body.topic, group: body.consumerGroup)
        let configuration = environment.configuration
        let standard = MessageRequestMode(rawValue: configuration.defaultMessageRequestMode)
        // Pulls of such a topic are refused.
        let isPoppedOnly = tables.topics[body.topic]?.policy.isPoppedOnly ?? false
        let mode = isRetry ? .pull : stored?.mode ?? (isPoppedOnly ? .pop : standard) ?? .pull
        let assigned: [MessageQueue]?
        if body.messageModel == "BROADCASTING" || !configuration.serverLoadBalancerEnable {
            assigned = queues
        } else if let members = tables.consumers[body.consumerGroup]?.clients.map(\.clientID), !members.isEmpty {
            let share = stored?.popShareQueueNum ?? configuration.defaultPopShareQueueNum
            assigned = QueueAssignment(queues: queues, members: members, isCircle: body.strategyName == "AVG_BY_CIRCLE")
                .queues(of: body.clientID, mode: mode, popShare: Int(share))
        } else {
            // No member of the group is known here yet: the client keeps what it has.
            assigned = nil
        }
        guard let assigned else { return JSONValue.object(JSONObject()).bytes() }
        let entries = assigned.map { queue in
            JSONValue.fields([("messageQueue", queue.json), ("mode", .string(mode.rawValue))])
        }
        return JSONValue.fields([("messageQueueAssignments", .array(entries))]).bytes()
    }
}

/// RocketMQ's rules by which members share queues. Members and queues are sorted, so that every broker answers the
/// same.
struct QueueAssignment {
    private let queues: [MessageQueue]
    private let members: [String]
    /// `AVG_BY_CIRCLE`: dealt out one by one. Otherwise `AVG`: contiguous shares, the first ones larger by one.
    private let isCircle: Bool

    init(queues: [MessageQueue], members: [String], isCircle: Bool) {
        self.queues = queues.sorted()
        self.members = Set(members).sorted()
        self.isCircle = isCircle
    }

    /// Empty for a client that is none of the members.
    func queues(of client: String, mode: MessageRequestMode, popShare: Int) -> [MessageQueue] {
        guard let index = members.firstIndex(of: client), !queues.isEmpty else { return [] }
        guard mode == .pop else { return share(index) }
        if popShare <= 0 || popShare >= members.count - 1 {
            // Each member reads all queues of every broker: the broker chooses.
            var seen: Set<String> = []
            return queues.filter { seen.insert($0.brokerName).inserted }.map {
                MessageQueue(topic: $0.topic, brokerName: $0.brokerName, queueID: -1)
            }
        }
        guard members.count <= queues.count else { return [queues[index % queues.count]] }
        var all: [MessageQueue] = []
        for step in 0...popShare { all += share((index + step) % members.count) }
        return all
    }

    private func share(_ index: Int) -> [MessageQueue] {
        if isCircle { return stride(from: index, to: queues.count, by: members.count).map { queues[$0] } }
        let (size, larger) = queues.count.quotientAndRemainder(dividingBy: members.count)
        let start = index * size + min(index, larger)
        let count = size + (index < larger ? 1 : 0)
        guard start < queues.count else { return [] }
        return Array(queues[start..<min(start + count, queues.count)])
    }
}
