package import FastJSON
import MessageModel
package import RemotingProtocol

/// What has become of a message, for each group that consumes its topic. Only Apus's brokers know.
public struct MessageStatus: Sendable, Hashable {
    /// A step of its way.
    public struct Step: Sendable, Hashable {
        /// Milliseconds since 1970; of an acknowledgement to the millisecond in which the broker wrote it.
        public let at: Int64
        /// DELIVERED, DELIVERED_AGAIN, TAKEN_BACK, RESCHEDULED, FAILED, TIMED_OUT, ACKNOWLEDGED, WITHDRAWN, FILTERED,
        /// SKIPPED, RESET, EXPIRED; of groups that pull SENT_BACK, RETRIED, DEAD_LETTER.
        public let event: String
        /// The client, where one had it.
        public let client: String?
        /// Milliseconds since 1970: until when the client has it, or when it comes again.
        public let until: Int64?
    }

    /// A group's view.
    public struct Group: Sendable, Hashable {
        /// The group.
        public let name: String
        /// POP, PULL or BROADCASTING.
        public let mode: String
        /// NEW, WAITING, ING, SUCCESS, FAIL, EXPIRED or DELETED (before the group had it). UNKNOWN of groups whose
        /// members keep their own offsets, and of deleted messages that a group's offset has passed.
        public let state: String
        /// In whose hands it is (ING); the owner of its queue's lock (NEW).
        public let client: String?
        /// Since when the client has it; milliseconds since 1970.
        public let since: Int64?
        /// Until when the client has it (ING), or when it comes again (FAIL, WAITING); milliseconds since 1970.
        public let until: Int64?
        /// Deliveries so far.
        public let attempts: Int?
        /// Retries the group allows.
        public let attemptsMax: Int?
        /// Where its dead letter lies; the broker's name is empty.
        public let deadLetter: MessagePlace?
        /// What it has been through, oldest first.
        public let trail: [Step]
        /// Steps that are not in the list, in the middle: there are very many.
        public let stepsLeftOut: Int
    }

    /// A place in a queue.
    public struct MessagePlace: Sendable, Hashable {
        /// The queue.
        public let queue: MessageQueue
        /// The offset in it.
        public let offset: Int64

        package init(queue: MessageQueue, offset: Int64) {
            self.queue = queue
            self.offset = offset
        }
    }

    /// What was done to it.
    public struct Edit: Sendable, Hashable {
        /// The version that was made, from 2 on.
        public let version: Int64
        /// edit, cancel, reschedule, retries or delete.
        public let action: String
        /// Milliseconds since 1970.
        public let at: Int64
        /// Who asked for it.
        public let by: String
        /// What differs from the version before: body, tags, keys, retries, names of properties. Empty where that is
        /// not known.
        public let changed: [String]
    }

    /// Where it lies; while it waits, a topic of the broker's own.
    public let place: MessagePlace
    /// The ID of its position.
    public let offsetMessageID: String
    /// The ID its producer made.
    public let uniqueID: String?
    /// Milliseconds since 1970, by the broker's clock.
    public let storeTimestamp: Int64
    /// The topic it waits for: its delay, timer or transaction is not over. Nil when it is there.
    public let waitsFor: String?
    /// Until when it waits, milliseconds since 1970; nil when that is not known.
    public let waitsUntil: Int64?
    /// How its topic's messages reach consumers; nil when the topic is gone, or the broker does not say.
    public let topicMode: DeliveryMode?
    /// The version that stands for it; 1: as it was sent.
    public let version: Int64
    /// It is not delivered any more.
    public let isDeleted: Bool
    /// Oldest first, as far as the log goes back.
    public let edits: [Edit]
    /// Sorted by name.
    public let groups: [Group]
    /// Groups that are not in the list, because there are very many.
    public let groupsLeftOut: Int
    /// What happened to popped messages before is not kept any more; milliseconds since 1970.
    public let trailBegins: Int64?

    /// - Throws: members are missing.
    package init(json: JSONValue, brokerName: String) throws(RemotingDecodeError) {
        func integer(_ name: String) throws(RemotingDecodeError) -> Int64 {
            guard let value = json[name]?.integer else { throw .badBody("\(name) is missing") }
            return value
        }
        func text(_ name: String) throws(RemotingDecodeError) -> String {
            guard let value = json[name]?.string else { throw .badBody("\(name) is missing") }
            return value
        }
        place = MessagePlace(
            queue: MessageQueue(
                topic: try text("topic"), brokerName: brokerName, queueID: Int(try integer("queueId"))),
            offset: try integer("queueOffset"))
        offsetMessageID = try text("msgId")
        uniqueID = json["uniqueKey"]?.string
        storeTimestamp = try integer("storeTimestamp")
        waitsFor = json["realTopic"]?.string
        waitsUntil = json["until"]?.integer
        topicMode = json["topicMode"]?.string.flatMap { DeliveryMode(rawValue: $0) }
        version = json["version"]?.integer ?? 1
        isDeleted = json["deleted"]?.bool ?? false
        edits = (json["edits"]?.array ?? []).map { edit in
            Edit(
                version: edit["version"]?.integer ?? 0, action: edit["action"]?.string ?? "",
                at: edit["at"]?.integer ?? 0, by: edit["by"]?.string ?? "",
                changed: (edit["changed"]?.array ?? []).compactMap(\.string))
        }
        groupsLeftOut = Int(json["groupsLeftOut"]?.integer ?? 0)
        trailBegins = json["trailBegins"]?.integer
        groups = (json["groups"]?.array ?? []).map(Group.init)
    }
}

extension MessageStatus.Group {
    fileprivate init(_ json: JSONValue) {
        name = json["group"]?.string ?? ""
        mode = json["mode"]?.string ?? ""
        state = json["status"]?.string ?? ""
        client = json["client"]?.string
        since = json["since"]?.integer
        until = json["until"]?.integer
        attempts = json["attempts"]?.integer.map { Int($0) }
        attemptsMax = json["attemptsMax"]?.integer.map { Int($0) }
        deadLetter = json["deadLetter"].flatMap { place in
            guard let topic = place["topic"]?.string, let offset = place["queueOffset"]?.integer else { return nil }
            let queueID = Int(place["queueId"]?.integer ?? 0)
            return MessageStatus.MessagePlace(
                queue: MessageQueue(topic: topic, brokerName: "", queueID: queueID), offset: offset)
        }
        stepsLeftOut = Int(clamping: json["stepsLeftOut"]?.integer ?? 0)
        trail = (json["trail"]?.array ?? []).map { step in
            MessageStatus.Step(
                at: step["at"]?.integer ?? 0, event: step["event"]?.string ?? "", client: step["client"]?.string,
                until: step["until"]?.integer)
        }
    }
}

extension AdminClient {
    /// What has become of a message, and what it has been through.
    ///
    /// - Parameters:
    ///   - id: the ID of its position, or with a topic the one its producer made.
    ///   - group: this group only.
    /// - Throws: `invalidArgument` for text that is no ID; `notFound`; `refused` by a broker that is not of Apus (code
    ///   3).
    public func status(
        ofMessage id: String, topic: String? = nil, group: String? = nil
    ) async throws(RocketMQClientError) -> MessageStatus {
        var fields: [String: String] = [:]
        if let group { fields["group"] = group }
        if let topic {
            fields["topic"] = topic
            fields["msgId"] = id
            let wanted = fields
            let found = try await first(try await brokers(of: topic)) {
                (address, name) async throws(RocketMQClientError) in
                try await self.status(wanted, at: address, name)
            }
            if let found { return found }
        }
        // A producer's ID looks like one of a position, with another number in the place of the port.
        guard let (host, offset) = OffsetMessageID.parse(id), 1...65_535 ~= host.port else {
            guard topic != nil else {
                throw .invalidArgument("'\(id)' is no message id of a position; if a client made it, give its topic")
            }
            throw .notFound("no broker of topic '\(topic ?? "")' has a message with the id '\(id)'")
        }
        fields["msgId"] = nil
        fields["offset"] = String(offset)
        guard let status = try await status(fields, at: host.text, "") else {
            throw .notFound(
                "broker \(host.text) has no message at \(offset) of its log: it has expired, or was never there")
        }
        return status
    }

    func status(
        _ fields: [String: String], at address: String, _ brokerName: String
    ) async throws(RocketMQClientError) -> MessageStatus? {
        let reply = try await ask(address, .getMessageStatus, fields)
        switch reply.responseCode {
        case .success: break
        case .queryNotFound: return nil
        default: throw .refused(ServerRefusal(address: address, reply: reply))
        }
        return try decoded(address) { () throws(RemotingDecodeError) in
            try MessageStatus(json: try reply.json(), brokerName: brokerName)
        }
    }
}
