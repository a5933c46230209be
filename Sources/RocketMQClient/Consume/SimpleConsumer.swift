import RemotingProtocol

/// Reads queues when the caller asks: no group membership, no heartbeats, no threads of its own. The caller chooses
/// which queues it reads and commits offsets when it wants to.
public actor SimpleConsumer {
    /// Whose offsets are read and committed.
    public nonisolated let group: String
    private let connections: ServerConnections
    private let access: QueueAccess
    private var positions: [MessageQueue: Int64] = [:]
    private var filters: [MessageQueue: Subscription] = [:]
    private var turn = 0

    /// A consumer; nothing is connected before the first call.
    ///
    /// - Throws: `invalidArgument`.
    public init(_ settings: ClientSettings, group: String) throws(RocketMQClientError) {
        guard !group.isEmpty else { throw .invalidArgument("a consumer needs a group") }
        connections = try ServerConnections(settings)
        access = QueueAccess(connections, group: group)
        self.group = group
    }

    /// Closes all connections.
    public func close() async { await connections.close() }

    // MARK: - Assigned queues

    /// The readable queues of a topic, sorted.
    ///
    /// - Throws: `topicNotFound`, `noNameServer`.
    public func queues(of topic: String) async throws(RocketMQClientError) -> [MessageQueue] {
        guard let route = try await connections.route(of: topic) else {
            throw .topicNotFound(topic: topic, nameServers: connections.nameServers)
        }
        return route.readable
    }

    /// Reads these queues from now on, and no others. A queue begins at the group's committed offset, else at `start`;
    /// one that was assigned before goes on.
    ///
    /// - Throws: why a broker did not answer with an offset; nothing is changed then.
    public func assign(
        _ queues: [MessageQueue], filter: Subscription? = nil, start: StartPosition = .first
    ) async throws(RocketMQClientError) {
        var new: [MessageQueue: Int64] = [:]
        for queue in queues {
            if let known = positions[queue] {
                new[queue] = known
            } else if let committed = try await access.committedOffset(of: queue) {
                new[queue] = committed
            } else {
                new[queue] = try await access.offset(start, of: queue)
            }
        }
        positions = new
        filters = Dictionary(uniqueKeysWithValues: new.keys.compactMap { queue in filter.map { (queue, $0) } })
    }

    /// The assigned queues, sorted.
    public var assigned: [MessageQueue] { positions.keys.sorted() }

    /// The messages of the first assigned queue that has some, in turn; empty when none came.
    ///
    /// - Parameters:
    ///   - messagesMax: 1 to 1024.
    ///   - wait: how long to wait when no queue has a message, spread over the queues.
    /// - Throws: why a broker could not be pulled; positions stay.
    public func receive(
        messagesMax: Int = 32, wait: Duration = .seconds(5)
    ) async throws(RocketMQClientError) -> [ReceivedMessage] {
        let queues = assigned
        guard !queues.isEmpty else { throw .invalidArgument("no queue is assigned") }
        let deadline = ContinuousClock.now + wait
        var waits = Duration.zero
        while true {
            for step in 0..<queues.count {
                let queue = queues[(turn + step) % queues.count]
                guard let offset = positions[queue] else { continue }
                let result = try await pull(
                    queue, offset: offset, messagesMax: messagesMax, filter: filters[queue], wait: waits)
                guard positions[queue] == offset else { continue }
                positions[queue] = result.nextOffset
                if !result.messages.isEmpty {
                    turn = (turn + step + 1) % queues.count
                    return result.messages
                }
            }
            let left = ContinuousClock.now.duration(to: deadline)
            guard left > .zero, !Task.isCancelled else { return [] }
            // One pull waits at a time; the others must not wait for it long.
            waits = queues.count == 1 ? left : min(left, .milliseconds(200))
        }
    }

    /// The offset `receive` reads next in a queue; nil for a queue that is not assigned.
    public func position(of queue: MessageQueue) -> Int64? { positions[queue] }

    /// Goes on at an offset.
    ///
    /// - Throws: `invalidArgument` for a queue that is not assigned.
    public func seek(_ queue: MessageQueue, to offset: Int64) throws(RocketMQClientError) {
        guard positions[queue] != nil else { throw .invalidArgument("\(queue) is not assigned") }
        positions[queue] = offset
    }

    /// Goes on at the first message, the end, or a time.
    ///
    /// - Throws: `invalidArgument` for a queue that is not assigned, and why the broker did not answer with the offset.
    public func seek(_ queue: MessageQueue, to position: StartPosition) async throws(RocketMQClientError) {
        try seek(queue, to: try await access.offset(position, of: queue))
    }

    /// Commits the positions of all assigned queues for the group.
    ///
    /// - Throws: the first failure; queues before it are committed.
    public func commit() async throws(RocketMQClientError) {
        for queue in assigned {
            if let offset = positions[queue] { try await access.commit(offset, of: queue) }
        }
    }

    // MARK: - Any queue

    /// Pulls once, whether the queue is assigned or not.
    ///
    /// - Parameters:
    ///   - messagesMax: 1 to 1024.
    ///   - filter: what to select; nil: everything.
    ///   - wait: how long the broker may wait for a message.
    /// - Throws: `refused`, `topicNotFound`, `brokerNotFound`, and failures of the connection.
    public func pull(
        _ queue: MessageQueue, offset: Int64, messagesMax: Int = 32, filter: Subscription? = nil,
        wait: Duration = .zero
    ) async throws(RocketMQClientError) -> PullResult {
        guard 1...1024 ~= messagesMax else { throw .invalidArgument("messagesMax is 1 to 1024") }
        var query = QueueAccess.Query(queue, offset: offset)
        query.messagesMax = messagesMax
        query.wait = wait
        if let filter {
            query.expression = filter.expression
            query.expressionType = filter.expressionType
            query.version = filter.version
        }
        let result = try await access.pull(query)
        guard let filter else { return result }
        return PullResult(
            status: result.status, messages: result.messages.filter(filter.selects), nextOffset: result.nextOffset,
            suggestedBrokerID: result.suggestedBrokerID)
    }

    /// A queue's first offset, its end, or that of a time.
    ///
    /// - Throws: why the broker did not answer with it.
    public func offset(
        _ position: StartPosition, of queue: MessageQueue
    ) async throws(RocketMQClientError) -> Int64 { try await access.offset(position, of: queue) }

    /// The group's committed offset; nil when it has none.
    ///
    /// - Throws: why the broker did not answer with it.
    public func committedOffset(of queue: MessageQueue) async throws(RocketMQClientError) -> Int64? {
        try await access.committedOffset(of: queue)
    }

    /// Commits an offset for the group.
    ///
    /// - Throws: why the broker did not take it.
    public func commit(_ offset: Int64, of queue: MessageQueue) async throws(RocketMQClientError) {
        try await access.commit(offset, of: queue)
    }
}
