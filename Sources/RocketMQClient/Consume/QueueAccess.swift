import NIOCore
package import RemotingProtocol

/// What a pull brought.
public struct PullResult: Sendable {
    /// Why there are messages or none.
    public enum Status: Sendable, Hashable {
        case found
        /// Nothing lies at the offset yet.
        case noNewMessage
        /// Messages were there, and the expression selects none of them.
        case noMatch
        /// The offset lies outside the queue; `nextOffset` is the nearest that does not.
        case offsetMoved
    }

    /// Why there are messages or none.
    public let status: Status
    /// In order.
    public let messages: [ReceivedMessage]
    /// Where to pull next.
    public let nextOffset: Int64
    /// The broker ID (0: master) the broker wants to be asked next.
    public let suggestedBrokerID: Int64
}

/// Requests about single queues on behalf of one group.
package struct QueueAccess: Sendable {
    let connections: ServerConnections
    let group: String

    package init(_ connections: ServerConnections, group: String) {
        self.connections = connections
        self.group = group
    }

    /// The server to ask about a queue: the one of the ID, else the master, else a slave.
    ///
    /// - Throws: `topicNotFound`, `brokerNotFound`, `noNameServer`.
    func server(of queue: MessageQueue, preferredID: Int64 = 0) async throws(RocketMQClientError) -> String {
        guard let route = try await connections.route(of: queue.topic) else {
            throw .topicNotFound(topic: queue.topic, nameServers: connections.nameServers)
        }
        guard let address = route.server(of: queue.brokerName, preferredID: preferredID) else {
            throw .brokerNotFound("topic '\(queue.topic)' has no broker '\(queue.brokerName)'")
        }
        return address
    }

    private static func fields(_ queue: MessageQueue) -> [String: String] {
        ["topic": queue.topic, "queueId": String(queue.queueID)]
    }

    /// One offset of a queue: its first, its end, or that of a time.
    ///
    /// - Parameter server: `host:port`; nil: the queue's master.
    func offset(
        _ position: StartPosition, of queue: MessageQueue, at server: String? = nil
    ) async throws(RocketMQClientError) -> Int64 {
        var fields = Self.fields(queue)
        let code: RequestCode
        switch position {
        case .first: code = .getMinOffset
        case .last: code = .getMaxOffset
        case .time(let milliseconds):
            code = .searchOffsetByTimestamp
            fields["timestamp"] = String(milliseconds)
        }
        var address = server
        if address == nil { address = try await self.server(of: queue) }
        let reply = try await connections.demand(address ?? "", RemotingCommand(code, extFields: fields))
        return try decoded(address ?? "") { () throws(RemotingDecodeError) in try reply.integer("offset") }
    }

    /// The group's offset in a queue; nil when it has none.
    func committedOffset(of queue: MessageQueue) async throws(RocketMQClientError) -> Int64? {
        let address = try await server(of: queue)
        let fields = Self.fields(queue).merging(["consumerGroup": group]) { $1 }
        let reply = try await connections.invoke(address, RemotingCommand(.queryConsumerOffset, extFields: fields))
        switch reply.responseCode {
        case .success: return try decoded(address) { () throws(RemotingDecodeError) in try reply.integer("offset") }
        case .queryNotFound: return nil
        default: throw .refused(ServerRefusal(address: address, reply: reply))
        }
    }

    /// Sets the group's offset in a queue.
    ///
    /// - Parameter server: `host:port`; nil: the queue's master.
    func commit(
        _ offset: Int64, of queue: MessageQueue, at server: String? = nil, timeout: Duration? = nil
    ) async throws(RocketMQClientError) {
        var address = server
        if address == nil { address = try await self.server(of: queue) }
        let fields = Self.fields(queue).merging([
            "consumerGroup": group, "commitOffset": String(offset), "bname": queue.brokerName,
        ]) { $1 }
        _ = try await connections.demand(
            address ?? "", RemotingCommand(.updateConsumerOffset, extFields: fields), timeout: timeout)
    }

    /// A pull.
    package struct Query: Sendable {
        /// The one queue that is read.
        package var queue: MessageQueue
        /// Queue offset of the first message wanted.
        package var offset: Int64
        /// Messages wanted at most; brokers bound it themselves.
        package var messagesMax = 32
        /// Tags with `||` between, `*` for all, or what `expressionType` says.
        package var expression = "*"
        /// `TAG`, `SQL92` or the type of a plugin.
        package var expressionType = "TAG"
        /// Milliseconds since 1970.
        package var version: Int64 = 0
        /// How long the broker may wait for a message; zero: it answers at once.
        package var wait: Duration = .zero
        /// An offset to commit on the way.
        package var commit: Int64?
        /// The server to ask, if there is one of this ID.
        package var brokerID: Int64 = 0

        package init(_ queue: MessageQueue, offset: Int64) {
            self.queue = queue
            self.offset = offset
        }

        /// As on the wire. Slaves take no offsets.
        package func command(group: String) -> RemotingCommand {
            let commit = brokerID == 0 ? commit : nil
            // 1: with an offset to commit; 2: the broker may suspend the pull; 4: with the subscription.
            let flags = (commit == nil ? 0 : 1) | (wait > .zero ? 2 : 0) | 4
            return RemotingCommand(
                .pullMessage,
                extFields: [
                    "consumerGroup": group, "topic": queue.topic, "queueId": String(queue.queueID),
                    "queueOffset": String(offset), "maxMsgNums": String(messagesMax), "sysFlag": String(flags),
                    "commitOffset": String(commit ?? 0), "suspendTimeoutMillis": String(wait.milliseconds),
                    "subscription": expression, "subVersion": String(version), "expressionType": expressionType,
                ])
        }
    }

    /// Pulls once.
    ///
    /// - Throws: `refused` for answers other than RocketMQ's four of a pull, and as `server(of:)`.
    func pull(_ query: Query, at server: String? = nil) async throws(RocketMQClientError) -> PullResult {
        var address = server
        if address == nil { address = try await self.server(of: query.queue, preferredID: query.brokerID) }
        let server = address ?? ""
        let reply = try await connections.invoke(
            server, query.command(group: group), timeout: connections.requestTimeout + query.wait + .seconds(7))
        let status: PullResult.Status
        switch reply.responseCode {
        case .success: status = .found
        case .pullNotFound: status = .noNewMessage
        case .pullRetryImmediately: status = .noMatch
        case .pullOffsetMoved: status = .offsetMoved
        default: throw .refused(ServerRefusal(address: server, reply: reply))
        }
        let next = try decoded(server) { () throws(RemotingDecodeError) in try reply.integer("nextBeginOffset") }
        return PullResult(
            status: status,
            messages: status == .found
                ? try ReceivedMessage.decode(reply.body, brokerName: query.queue.brokerName) : [],
            nextOffset: next, suggestedBrokerID: reply.extFields["suggestWhichBrokerId"].flatMap { Int64($0) } ?? 0)
    }

    /// Sends a message back to its broker (36), which delivers it to the group later or, after too many times, to its
    /// dead letter queue.
    ///
    /// - Parameters:
    ///   - delayLevel: 0: longer each time; below 0: to the dead letter queue at once.
    ///   - reconsumeTimesMax: nil: the group's configuration decides.
    func sendBack(
        _ message: ReceivedMessage, delayLevel: Int, reconsumeTimesMax: Int?
    ) async throws(RocketMQClientError) {
        _ = try await connections.demand(
            try await server(of: message.queue),
            SendBack(
                group: group, commitLogOffset: message.commitLogOffset, topic: message.topic,
                messageID: message.messageID, delayLevel: delayLevel, reconsumeTimesMax: reconsumeTimesMax
            ).command)
    }
}

/// Sends a message back (36).
package struct SendBack: Sendable {
    /// The group that could not consume the message.
    package var group: String
    /// Physical offset of the message at its broker (`offset` on the wire).
    package var commitLogOffset: Int64
    /// Where the message was read from (`originTopic`).
    package var topic: String
    /// `originMsgId` on the wire.
    package var messageID: String
    /// 0: longer each time; below 0: to the dead letter queue at once.
    package var delayLevel: Int
    /// nil: the group's settings at the broker decide.
    package var reconsumeTimesMax: Int?

    package init(
        group: String, commitLogOffset: Int64, topic: String, messageID: String, delayLevel: Int,
        reconsumeTimesMax: Int?
    ) {
        self.group = group
        self.commitLogOffset = commitLogOffset
        self.topic = topic
        self.messageID = messageID
        self.delayLevel = delayLevel
        self.reconsumeTimesMax = reconsumeTimesMax
    }

    /// `CONSUMER_SEND_MSG_BACK`.
    package var command: RemotingCommand {
        var fields = [
            "offset": String(commitLogOffset), "group": group, "delayLevel": String(delayLevel),
            "originMsgId": messageID, "originTopic": topic, "unitMode": "false",
        ]
        if let reconsumeTimesMax { fields["maxReconsumeTimes"] = String(reconsumeTimesMax) }
        return RemotingCommand(.consumerSendMessageBack, extFields: fields)
    }
}

extension Duration {
    /// Whole milliseconds, clamped.
    var milliseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1000)
        return overflow ? (seconds < 0 ? .min : .max) : product &+ attoseconds / 1_000_000_000_000_000
    }
}
