import NIOCore
import RemotingProtocol
import Synchronization

/// Sends messages: one and many, ordered by key, delayed, without an answer, in transactions.
///
/// Any number of calls may be under way at once, from any task. `close()` ends the connections.
public final class Producer: Sendable {
    /// How a producer works.
    public struct Options: Sendable {
        /// How long one message is tried, all attempts together.
        public var sendTimeout: Duration = .seconds(10)
        /// How long one attempt may take, 1 ms at least.
        public var attemptTimeout: Duration = .seconds(3)
        /// Attempts at most; nil: as many as `sendTimeout` allows.
        public var attemptsMax: Int?
        /// Queues a topic gets that the broker creates at its first message, on each broker.
        public var newTopicQueues = 4
        /// Bodies of so many bytes and more are compressed with zlib; nil: none.
        public var compressBodiesFrom: Int?
        /// Time between heartbeats, from `start()` or the first transaction on.
        public var heartbeatInterval: Duration = .seconds(30)

        /// The defaults.
        public init() {}
    }

    /// Answers a broker that asks what became of a transaction. Called in a task of its own.
    public typealias CheckBack = @Sendable (ReceivedMessage) async -> TransactionState

    private static let firstPause = Duration.milliseconds(20)
    private static let longestPause = Duration.milliseconds(500)

    /// The producer group. Brokers ask any member of it about open transactions.
    public let group: String
    /// What brokers call this client.
    public let clientID: String
    private let options: Options
    private let connections: ServerConnections
    private let turn = Atomic<Int>(0)
    private let keys = UniqueKeys()
    private let heartbeats = Mutex<Task<Void, Never>?>(nil)

    /// A producer; no connection is made before the first call.
    ///
    /// - Parameters:
    ///   - group: a name of the application's; needed for transactions.
    ///   - checkBack: returns what became of transactions this process or another of the group left open.
    /// - Throws: `invalidArgument`.
    public convenience init(
        _ settings: ClientSettings, group: String, options: Options = Options(), checkBack: CheckBack? = nil
    ) throws(RocketMQClientError) {
        let answers = CheckBackAnswers(group: group, checkBack: checkBack)
        let connections = try ServerConnections(settings) { address, request in answers.received(address, request) }
        answers.attach(connections)
        self.init(connections, group: group, clientID: settings.clientID ?? ClientIdentity.make(), options: options)
    }

    init(_ connections: ServerConnections, group: String, clientID: String, options: Options) {
        self.connections = connections
        self.group = group
        self.clientID = clientID
        self.options = options
    }

    /// Fails at once when there is no name server, no broker for the topic or no queue to write to.
    ///
    /// - Throws: `noNameServer`, `topicNotFound`, `queueNotFound`.
    public func checkReachable(topic: String, selector: QueueSelector = .roundRobin) async throws(RocketMQClientError) {
        _ = try await candidates(topic, selector, maxAge: nil)
    }

    /// The queues of a topic that can be written, sorted; for a topic that does not exist yet those it will get.
    ///
    /// - Throws: `noNameServer`, `topicNotFound`, `queueNotFound`.
    public func writableQueues(of topic: String) async throws(RocketMQClientError) -> [MessageQueue] {
        try await candidates(topic, .roundRobin, maxAge: nil).queues
    }

    /// Announces the producer group to the brokers of a topic and goes on doing so, so that they list it and can ask
    /// about transactions. Other messages do not need it.
    ///
    /// - Throws: `noNameServer`, `topicNotFound`, `queueNotFound`, or why no broker took the heartbeat.
    public func start(topic: String) async throws(RocketMQClientError) {
        _ = try await candidates(topic, .roundRobin, maxAge: nil)
        try await beat()
        let interval = options.heartbeatInterval
        heartbeats.withLock { task in
            guard task == nil else { return }
            task = Task { [weak self] in
                while (try? await Task.sleep(for: interval)) != nil, let self { try? await beat() }
            }
        }
    }

    /// Leaves the group and closes all connections. Sends under way fail.
    public func close() async {
        let beats = heartbeats.withLock { task in
            defer { task = nil }
            return task
        }
        if let beats {
            beats.cancel()
            let command = RemotingCommand(
                .unregisterClient, extFields: ["clientID": clientID, "producerGroup": group])
            for address in await connections.knownBrokers {
                _ = try? await connections.invoke(address, command, timeout: .seconds(2))
            }
        }
        await connections.close()
    }

    // MARK: - Sending

    /// Sends a message and waits until it is stored. A broker that fails or is busy is tried again, other queues
    /// first, until `sendTimeout`. A message whose answer got lost may then be stored twice, with the same
    /// `messageID`.
    ///
    /// - Throws: `sendAbandoned` at the end of `sendTimeout`, with the last failure: a missing topic, queue or broker
    ///   may appear meanwhile. At once: `refused` for answers that no further attempt can change, and
    ///   `invalidArgument`.
    @discardableResult
    public func send(
        _ message: Message, selector: QueueSelector = .roundRobin
    ) async throws(RocketMQClientError) -> SendResult {
        let id = keys.next()
        let properties = try message.encodedProperties(id: id)
        let (body, systemFlag) = compressed(message.body)
        let stored = try await deliver(message.topic, selector) { queue in
            SendRequest(
                group: group, queue: queue, properties: properties, systemFlag: systemFlag,
                newTopicQueues: options.newTopicQueues
            ).command(body: body)
        }
        return stored.result(messageID: id)
    }

    /// Sends several messages of one topic in one request: all are stored, in order, or none.
    ///
    /// - Returns: a result for each message, in order.
    /// - Throws: as `send`; `invalidArgument` without messages, with several topics, and for delayed messages.
    @discardableResult
    public func send(
        _ messages: [Message], selector: QueueSelector = .roundRobin
    ) async throws(RocketMQClientError) -> [SendResult] {
        guard let topic = messages.first?.topic else { throw .invalidArgument("a batch needs a message") }
        var body: [UInt8] = []
        var ids: [String] = []
        for message in messages {
            guard message.topic == topic, message.delivery == .immediate else {
                throw .invalidArgument("messages of a batch have one topic and are not delayed")
            }
            let id = keys.next()
            let properties = Array(try message.encodedProperties(id: id).utf8)
            guard properties.count <= UInt16.max else { throw .invalidArgument("properties of more than 65535 bytes") }
            ids.append(id)
            MessageBatch.append(body: message.body, properties: properties, to: &body)
        }
        let encoded = body
        let stored = try await deliver(topic, selector) { queue in
            SendRequest(
                group: group, queue: queue, properties: "", isBatch: true,
                newTopicQueues: options.newTopicQueues
            ).command(body: encoded)
        }
        let offsetIDs = stored.offsetMessageID.utf8.split(separator: UInt8(ascii: ",")).map { String(Substring($0)) }
        return ids.enumerated().map { index, id in
            SendResult(
                status: stored.status, messageID: id, offsetMessageID: index < offsetIDs.count ? offsetIDs[index] : "",
                queue: stored.queue, queueOffset: stored.queueOffset < 0 ? -1 : stored.queueOffset &+ Int64(index))
        }
    }

    /// Sends a message without an answer; returns when the kernel has it. It may get lost.
    ///
    /// - Returns: the ID this client made for it.
    /// - Throws: `invalidArgument`, `topicNotFound`, `queueNotFound`, or why no connection could be made.
    @discardableResult
    public func sendOneway(
        _ message: Message, selector: QueueSelector = .roundRobin
    ) async throws(RocketMQClientError) -> String {
        let id = keys.next()
        let (body, systemFlag) = compressed(message.body)
        let (queues, route) = try await candidates(message.topic, selector, maxAge: nil)
        let queue = queues[next(queues.count)]
        let request = SendRequest(
            group: group, queue: queue, properties: try message.encodedProperties(id: id), systemFlag: systemFlag,
            newTopicQueues: options.newTopicQueues)
        guard let address = route.master(of: queue.brokerName) else { throw noMaster(queue.brokerName) }
        try await connections.oneway(address, request.command(body: body))
        return id
    }

    /// Sends a message in a transaction: it is stored where no consumer sees it. `execute` does the producer's own
    /// part, and its result makes the message visible or removes it. With `.unknown`, or when this process dies, the
    /// broker asks the group's `checkBack` later.
    ///
    /// - Returns: the result of the send and what `execute` returned.
    /// - Throws: as `send`; the message is not visible then, and `execute` was not called.
    public func sendInTransaction(
        _ message: Message, execute: @Sendable (SendResult) async -> TransactionState
    ) async throws(RocketMQClientError) -> (result: SendResult, state: TransactionState) {
        guard message.delivery == .immediate else { throw .invalidArgument("a transaction's message is not delayed") }
        try await start(topic: message.topic)
        let id = keys.next()
        let properties = try message.encodedProperties(
            id: id, more: [(WireNames.Property.isTransaction, "true"), (WireNames.Property.producerGroup, group)])
        let (body, systemFlag) = compressed(message.body)
        let stored = try await deliver(message.topic, .roundRobin) { queue in
            SendRequest(
                group: group, queue: queue, properties: properties,
                systemFlag: systemFlag | SendRequest.preparedFlag, newTopicQueues: options.newTopicQueues
            ).command(body: body)
        }
        let result = stored.result(messageID: id)
        let state = await execute(result)
        if let position = OffsetMessageID.parse(result.offsetMessageID)?.physicalOffset {
            let end = TransactionEnd(
                group: group, queueOffset: result.queueOffset, commitLogOffset: position, state: state, messageID: id,
                transactionID: result.transactionID ?? id, isCheckBack: false)
            // The broker asks again when this gets lost.
            try? await connections.oneway(stored.address, end.command)
        }
        return (result, state)
    }

    // MARK: - Parts

    private func beat() async throws(RocketMQClientError) {
        let body = HeartbeatData(clientID: clientID, producerGroups: [group]).encoded()
        var failure: RocketMQClientError?
        var taken = 0
        for address in await connections.knownBrokers {
            do throws(RocketMQClientError) {
                _ = try await connections.demand(address, RemotingCommand(.heartBeat, body: body))
                taken += 1
            } catch {
                failure = error
            }
        }
        if taken == 0, let failure { throw failure }
    }

    private func compressed(_ body: [UInt8]) -> (body: [UInt8], systemFlag: Int32) {
        guard let least = options.compressBodiesFrom, body.count >= least else { return (body, 0) }
        return (Zlib.deflate(body, level: 5), MessageExt.compressedFlag)
    }

    private func next(_ count: Int) -> Int {
        Int(UInt(bitPattern: turn.wrappingAdd(1, ordering: .relaxed).oldValue) % UInt(count))
    }

    private func noMaster(_ broker: String) -> RocketMQClientError {
        .brokerNotFound("broker \(broker) has no master at present")
    }

    private struct Stored {
        let status: SendStatus
        /// Where it lies: the broker chooses the queue of a message with a shard key (`apus.shard`).
        let queue: MessageQueue
        let address: String
        let reply: RemotingCommand

        /// - Parameter asked: the queue this client has named.
        init(_ status: SendStatus, asked: MessageQueue, address: String, reply: RemotingCommand) {
            self.status = status
            let said = reply.extFields["queueId"].flatMap { Int32($0) }
            queue = MessageQueue(
                topic: asked.topic, brokerName: asked.brokerName, queueID: said.map { Int($0) } ?? asked.queueID)
            self.address = address
            self.reply = reply
        }

        var offsetMessageID: String { reply.extFields["msgId"] ?? "" }
        var queueOffset: Int64 { reply.extFields["queueOffset"].flatMap { Int64($0) } ?? -1 }

        func result(messageID: String) -> SendResult {
            SendResult(
                status: status, messageID: messageID, offsetMessageID: offsetMessageID, queue: queue,
                queueOffset: queueOffset, transactionID: reply.extFields["transactionId"])
        }
    }

    /// The attempts of one request.
    private func deliver(
        _ topic: String, _ selector: QueueSelector, _ command: @Sendable (MessageQueue) -> RemotingCommand
    ) async throws(RocketMQClientError) -> Stored {
        let deadline = ContinuousClock.now + options.sendTimeout
        var allUnavailable = true
        var pause = Self.firstPause
        var failedBroker: String?
        var attempts = 0
        while true {
            let failure: RocketMQClientError
            attempts += 1
            var chosen: MessageQueue?
            do throws(RocketMQClientError) {
                let (all, route) = try await candidates(
                    topic, selector, maxAge: failedBroker == nil ? nil : ServerConnections.routeAgeAfterFailure)
                var queues = all
                if let failedBroker {
                    let others = all.filter { $0.brokerName != failedBroker }
                    if !others.isEmpty { queues = others }
                }
                let queue = queues[next(queues.count)]
                chosen = queue
                guard let address = route.master(of: queue.brokerName) else { throw noMaster(queue.brokerName) }
                let left = ContinuousClock.now.duration(to: deadline)
                let reply = try await connections.invoke(
                    address, command(queue), timeout: max(.milliseconds(1), min(options.attemptTimeout, left)))
                if let status = SendStatus(reply.responseCode) {
                    return Stored(status, asked: queue, address: address, reply: reply)
                }
                let refusal = ServerRefusal(address: address, reply: reply)
                switch reply.responseCode {
                case .systemError, .systemBusy: allUnavailable = false
                case .serviceNotAvailable: break
                default: throw .refused(refusal)
                }
                failure = .refused(refusal)
            } catch {
                switch error {
                case .refused, .invalidArgument, .closed: throw error
                default: break
                }
                allUnavailable = false
                failure = error
            }
            failedBroker = chosen?.brokerName
            guard ContinuousClock.now + pause < deadline, !Task.isCancelled,
                options.attemptsMax.map({ attempts < $0 }) ?? true
            else {
                throw .sendAbandoned(
                    SendFailure(attempts: attempts, allUnavailable: allUnavailable, last: failure))
            }
            try? await Task.sleep(for: pause)
            pause = min(pause * 2, Self.longestPause)
        }
    }

    /// The queues a message may go to; for a topic that does not exist yet, those it will get.
    private func candidates(
        _ topic: String, _ selector: QueueSelector, maxAge: Duration?
    ) async throws(RocketMQClientError) -> (queues: [MessageQueue], route: QueueRoute) {
        let known = try await connections.route(of: topic, maxAge: maxAge)
        var route: QueueRoute
        if let known {
            route = known
        } else {
            guard let template = try await connections.route(of: WireNames.templateTopic), !template.writable.isEmpty
            else { throw .topicNotFound(topic: topic, nameServers: connections.nameServers) }
            route = template
            route.writable = template.writable.filter { $0.queueID < options.newTopicQueues }
                .map { MessageQueue(topic: topic, brokerName: $0.brokerName, queueID: $0.queueID) }
        }
        let queues = selector.candidates(route.writable)
        guard !queues.isEmpty else {
            var reason = "has no writable queue"
            if case .queueID(let id) = selector { reason += " \(id)" }
            if case .queue(let queue) = selector { reason += " \(queue.brokerName)/\(queue.queueID)" }
            throw .queueNotFound(topic: topic, reason: reason)
        }
        return (queues, route)
    }
}

extension SendStatus {
    /// nil: the message was not stored, as far as the answer shows.
    init?(_ code: ResponseCode?) {
        switch code {
        case .success: self = .ok
        case .flushDiskTimeout: self = .flushDiskTimeout
        case .flushSlaveTimeout: self = .flushSlaveTimeout
        case .slaveNotAvailable: self = .slaveNotAvailable
        default: return nil
        }
    }
}
