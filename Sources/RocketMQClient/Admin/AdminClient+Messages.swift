import FastJSON
import MessageModel
import RemotingProtocol

extension AdminClient {
    /// A message by the ID of its position, or with a topic by the ID its producer made.
    ///
    /// - Throws: `invalidArgument` for text that is no ID; `notFound`.
    public func message(id: String, topic: String? = nil) async throws(RocketMQClientError) -> ReceivedMessage {
        if let topic, let found = try await messages(in: topic, uniqueID: id).first { return found }
        guard let (host, offset) = OffsetMessageID.parse(id) else {
            throw .invalidArgument("'\(id)' is no message id: 32 or 56 hexadecimal digits")
        }
        let reply: RemotingCommand
        do throws(RocketMQClientError) {
            reply = try await demand(host.text, .viewMessageByID, ["offset": String(offset)])
        } catch {
            throw .notFound(
                "\(error)\nThe id says the message is at \(host.text), offset \(offset)."
                    + (topic == nil ? " If a client made this id, give its topic with -t." : ""))
        }
        guard let message = try ReceivedMessage.decode(reply.body, brokerName: "").first else {
            throw .notFound("no such message")
        }
        return message
    }

    /// The messages with a key, as the brokers' indexes have them.
    ///
    /// - Parameter limit: how many at most.
    /// - Throws: `refused` by a broker, `malformedAnswer`, failures of the connection.
    public func messages(
        in topic: String, key: String, limit: Int = 64
    ) async throws(RocketMQClientError) -> [ReceivedMessage] {
        try await query(topic, key: key, isUnique: false, limit: limit)
    }

    /// The copies of the message with an ID that its producer made; retries may have made several. Oldest first.
    ///
    /// - Throws: `refused` by a broker, `malformedAnswer`, failures of the connection.
    public func messages(
        in topic: String, uniqueID: String, limit: Int = 32
    ) async throws(RocketMQClientError) -> [ReceivedMessage] {
        try await query(topic, key: uniqueID, isUnique: true, limit: limit)
    }

    private func query(
        _ topic: String, key: String, isUnique: Bool, limit: Int
    ) async throws(RocketMQClientError) -> [ReceivedMessage] {
        let fields = [
            "topic": topic, "key": key, "maxNum": String(limit), "beginTimestamp": "0",
            "endTimestamp": String(Int64.max), "_UNIQUE_KEY_QUERY": isUnique ? "true" : "false",
        ]
        var found: [ReceivedMessage] = []
        for broker in try await route(of: topic).brokers.sorted(by: { $0.name < $1.name }) {
            guard let address = broker.preferredAddress else { continue }
            let reply = try await ask(address, .queryMessage, fields)
            switch reply.responseCode {
            // The index goes by hashes: others may have the same.
            case .success:
                found += try ReceivedMessage.decode(reply.body, brokerName: broker.name)
                    .filter { $0.hasKey(key, isUnique: isUnique) }
            case .queryNotFound: break
            default: throw .refused(ServerRefusal(address: address, reply: reply))
            }
        }
        return Array(found.prefix(limit))
    }

    /// The message at an offset of a queue; nil when none lies there.
    ///
    /// - Throws: `refused`, `brokerNotFound` for a queue whose broker is not in the route, failures of the connection.
    public func message(
        at offset: Int64, of queue: MessageQueue
    ) async throws(RocketMQClientError) -> ReceivedMessage? {
        let address = try await route(of: queue.topic).address(of: queue)
        var query = QueueAccess.Query(queue, offset: offset)
        query.messagesMax = 1
        return try await toolAccess.pull(query, at: address).messages.first { $0.queueOffset == offset }
    }

    /// A queue's first offset, its end, or that of a time.
    ///
    /// - Parameter address: the queue's broker.
    /// - Throws: `refused` by the broker, failures of the connection.
    public func offset(
        _ position: StartPosition, of queue: MessageQueue, at address: String
    ) async throws(RocketMQClientError) -> Int64 {
        try await toolAccess.offset(position, of: queue, at: address)
    }

    /// Pulls once as the group of RocketMQ's tools, without waiting. The broker selects; tags are not compared here.
    ///
    /// - Throws: `refused` by the broker, `malformedAnswer`, failures of the connection.
    public func pull(
        _ queue: MessageQueue, at address: String, offset: Int64, messagesMax: Int = 32, type: String = "TAG",
        expression: String = "*"
    ) async throws(RocketMQClientError) -> PullResult {
        var query = QueueAccess.Query(queue, offset: offset)
        query.messagesMax = messagesMax
        query.expressionType = type
        query.expression = expression
        return try await toolAccess.pull(query, at: address)
    }

    /// The first offset and the end of a queue, or of the part that was stored in a span of time.
    ///
    /// - Parameters:
    ///   - begin: milliseconds since 1970, included; nil: from the first message on.
    ///   - end: milliseconds since 1970, excluded; nil: to the end.
    /// - Throws: `refused` by the broker, failures of the connection.
    public func offsets(
        of queue: MessageQueue, at address: String, begin: Int64? = nil, end: Int64? = nil
    ) async throws(RocketMQClientError) -> (first: Int64, end: Int64) {
        func position(_ time: Int64?, else other: StartPosition) -> StartPosition {
            time.map { .time(milliseconds: $0) } ?? other
        }
        return (
            try await toolAccess.offset(position(begin, else: .first), of: queue, at: address),
            try await toolAccess.offset(position(end, else: .last), of: queue, at: address)
        )
    }

    /// Reads the messages of a range of offsets, its end excluded, and hands them out pull by pull. Commits nothing.
    ///
    /// - Parameters:
    ///   - tags: a tag expression.
    ///   - group: the group to pull as; nil: that of RocketMQ's tools.
    /// - Throws: `refused` and failures of the connection, at the first pull that fails; what came before was handed
    ///   out.
    public func read(
        _ queue: MessageQueue, at address: String, from first: Int64, to end: Int64, tags: String = "*",
        group: String? = nil, _ handle: ([ReceivedMessage]) -> Void
    ) async throws(RocketMQClientError) {
        var offset = first
        let wanted = Subscription(topic: queue.topic, tags: tags)
        let access = group.map { QueueAccess(connections, group: $0) } ?? toolAccess
        while offset < end {
            var query = QueueAccess.Query(queue, offset: offset)
            query.messagesMax = Int(min(32, end -| offset))
            query.expression = tags
            let result: PullResult = try await access.pull(query, at: address)
            // Brokers choose by the tag's hash; the tag itself is compared here.
            handle(result.messages.filter { $0.queueOffset < end && wanted.selects($0) })
            guard result.status != .noNewMessage, result.nextOffset > offset else { return }
            offset = result.nextOffset
        }
    }

    /// Which of the groups that consume a message's topic have consumed it.
    public func tracks(of message: ReceivedMessage) async -> [MessageTrack] {
        let topic = message.queue.topic
        var tracks: [MessageTrack] = []
        for group in await groups(consuming: topic, route: try? route(of: topic)) {
            tracks.append(await track(message, group))
        }
        return tracks
    }

    private func track(_ message: ReceivedMessage, _ group: String) async -> MessageTrack {
        let topic = message.queue.topic
        do throws(RocketMQClientError) {
            let consumers = try await consumers(of: group)
            if consumers.isPull { return MessageTrack(group: group, type: "PULL") }
            let isConsumed = try await progress(of: group, topic: topic).rows.contains { row in
                row.queue.queueID == message.queue.queueID && row.consumerOffset > message.queueOffset
            }
            guard isConsumed else { return MessageTrack(group: group, type: "NOT_CONSUME_YET") }
            let tags = consumers.subscriptions.first { $0.topic == topic }?.tags ?? []
            let isFiltered = !tags.isEmpty && !tags.contains("*") && !tags.contains(message.tag ?? "")
            return MessageTrack(group: group, type: isFiltered ? "CONSUMED_BUT_FILTERED" : "CONSUMED")
        } catch {
            let isOffline = error.refusal == .consumerNotOnline
            return MessageTrack(
                group: group, type: isOffline ? "NOT_ONLINE" : "UNKNOWN", reason: error.description)
        }
    }

    /// Has one consumer consume a message now, besides its own reading.
    ///
    /// - Throws: `brokerNotFound` when the topic has no broker, `refused` when the client is not connected, failures of
    ///   the connection.
    public func consumeDirectly(
        _ message: ReceivedMessage, group: String, client: String
    ) async throws(RocketMQClientError) -> DirectConsumption {
        let topic = message.queue.topic
        let route = try await route(of: topic)
        guard
            let broker = route.brokers.first(where: { $0.addresses.values.contains(message.storeHost) })
                ?? route.brokers.first, let address = broker.preferredAddress
        else { throw .brokerNotFound("topic '\(topic)' has no broker") }
        return DirectConsumption(
            json: try await json(
                address, .consumeMessageDirectly,
                [
                    "consumerGroup": group, "clientId": client, "msgId": message.offsetMessageID,
                    "brokerName": broker.name,
                ], timeout: .seconds(30)))
    }

    /// Where clients trace unless a cluster has another topic for it.
    public static let standardTraceTopic = "\(KnownTopic.trace)"

    /// What trace messages hold of a message, in the order of the index.
    ///
    /// - Throws: `refused` by a broker, `malformedAnswer`, failures of the connection.
    public func traces(
        of id: String, traceTopic: String = AdminClient.standardTraceTopic
    ) async throws(RocketMQClientError) -> [MessageTraceRecord] {
        try await messages(in: traceTopic, key: id).flatMap { MessageTraceRecord.records(in: $0, of: id) }
    }
}

extension MessageTraceRecord {
    /// A trace message holds several records. Their fields are:
    ///
    /// * Pub: 1 time, 3 group, 5 ID, 10 cost, 13 (or the last) success
    /// * SubBefore: 1 time, 3 group, 4 request, 5 ID
    /// * SubAfter: 1 request, 2 ID, 3 cost, 4 success, 7 time, 8 group
    static func records(in message: ReceivedMessage, of id: String) -> [MessageTraceRecord] {
        message.text.split(separator: "\u{2}").compactMap { record in
            let fields = record.split(separator: "\u{1}", omittingEmptySubsequences: false).map(String.init)
            func field(_ index: Int) -> String { index < fields.count ? fields[index] : "" }
            switch fields.first {
            case "Pub" where field(5) == id:
                return MessageTraceRecord(
                    isConsumption: false, group: field(3), clientHost: message.bornHost, timestamp: Int64(field(1)),
                    cost: field(10), isSuccess: fields.count >= 14 ? field(13) == "true" : fields.last == "true")
            case "SubAfter" where field(2) == id:
                return MessageTraceRecord(
                    isConsumption: true, group: field(8), clientHost: message.bornHost, timestamp: Int64(field(7)),
                    cost: field(3), isSuccess: field(4) == "true")
            default: return nil
            }
        }
    }
}

extension ReceivedMessage {
    /// Whether it was found by one of its own keys: an index has hashes only.
    func hasKey(_ key: String, isUnique: Bool) -> Bool {
        if isUnique || uniqueID == key { return messageID == key }
        return keys?.split(separator: " ").contains { $0 == key } ?? false
    }
}
