import MessageModel
import RemotingProtocol

/// What is to be done to one message. Only Apus's brokers do it.
public struct MessageEdit: Sendable, Hashable {
    /// What is done.
    public enum Operation: Sendable, Hashable {
        /// It gets other content.
        case edit
        /// A message that waits for its time or its transaction is withdrawn.
        case cancel
        /// It is delivered at another time, milliseconds since 1970.
        case reschedule(at: Int64)
        /// So many deliveries count as made; a group gives it up after its `retryMaxTimes`.
        case retries(Int32)
        /// It is sent once more, as a new message with an ID of its own.
        case resend
        /// It is not delivered any more.
        case delete

        fileprivate var name: String {
            switch self {
            case .edit: "edit"
            case .cancel: "cancel"
            case .reschedule: "reschedule"
            case .retries: "retries"
            case .resend: "resend"
            case .delete: "delete"
            }
        }
    }

    /// What is done.
    public var operation: Operation
    /// Who asks for it: 1 to 64 bytes of visible characters. It stands in the message's trail.
    public var by: String
    /// Refused when another version stands for the message; nil: whichever stands.
    public var version: Int64?
    /// Nil: as it is.
    public var body: [UInt8]?
    /// Nil: as they are; empty: none.
    public var tags: String?
    /// Separated by blanks. Nil: as they are; empty: none.
    public var keys: String?
    /// Properties that are set; others stay as they are.
    public var properties: [String: String] = [:]

    /// Does nothing yet.
    public init(_ operation: Operation, by: String) {
        self.operation = operation
        self.by = by
    }

    fileprivate var fields: [String: String] {
        var fields = ["operation": operation.name, "by": by]
        switch operation {
        case .reschedule(let at): fields["deliverAt"] = String(at)
        case .retries(let count): fields["retries"] = String(count)
        case .edit, .cancel, .resend, .delete: break
        }
        if let version { fields["version"] = String(version) }
        if body != nil { fields["hasBody"] = "true" }
        fields["tags"] = tags
        fields["keys"] = keys
        if !properties.isEmpty {
            fields["properties"] = String(
                decoding: MessageProperties.encode(properties.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }),
                as: UTF8.self)
        }
        return fields
    }
}

/// The version of a message that an edit has made.
public struct EditedMessage: Sendable, Hashable {
    /// From 2 on; 1 of a message that was sent once more.
    public let version: Int64
    /// Where it lies; while it waits, a topic of the broker's own. The broker's name is empty where it is not known.
    public let place: MessageStatus.MessagePlace
    /// The ID of its position.
    public let offsetMessageID: String
    /// The ID its producer made; of a message that was sent once more a new one.
    public let uniqueID: String?
    /// When it is delivered, milliseconds since 1970, if it waits for that.
    public let deliverAt: Int64?
    /// Groups that have consumed the version before: they do not get this one.
    public let consumedBy: [String]
    /// Such groups that are not in the list, because there are very many.
    public let consumedByLeftOut: Int
    /// How safely it is stored; whatever it is, the edit is made.
    public let status: SendStatus

    package init(
        version: Int64, place: MessageStatus.MessagePlace, offsetMessageID: String, uniqueID: String? = nil,
        deliverAt: Int64? = nil, consumedBy: [String] = [], consumedByLeftOut: Int = 0, status: SendStatus = .ok
    ) {
        self.version = version
        self.place = place
        self.offsetMessageID = offsetMessageID
        self.uniqueID = uniqueID
        self.deliverAt = deliverAt
        self.consumedBy = consumedBy
        self.consumedByLeftOut = consumedByLeftOut
        self.status = status
    }
}

extension AdminClient {
    /// Changes, withdraws, postpones or repeats a message.
    ///
    /// - Parameters:
    ///   - id: the ID of its position, or with a topic the one its producer made.
    ///   - edit: what is to be done, and who asks.
    /// - Throws: `invalidArgument` for text that is no ID, or an ID of messages at several brokers. `notFound`.
    ///   `refused` with the reason: a client has it, all groups have consumed it, another version stands for it, or the
    ///   broker is a slave. `refused` with code 3: no broker of the topic is one of Apus.
    public func edit(
        message id: String, topic: String? = nil, _ edit: MessageEdit
    ) async throws(RocketMQClientError) -> EditedMessage {
        var fields = edit.fields
        if let topic {
            fields["topic"] = topic
            fields["msgId"] = id
            let wanted = fields
            var brokers = try await brokers(of: topic)
            if brokers.count > 1, edit.operation != .resend {
                brokers = try await holders(of: id, topic, brokers) ?? brokers
            }
            let edited = try await first(brokers) { (address, name) async throws(RocketMQClientError) in
                try await self.carryOut(edit, wanted, at: address, name)
            }
            if let edited { return edited }
        }
        // A producer's ID looks like one of a position, with another number in the place of the port.
        guard let (host, offset) = OffsetMessageID.parse(id), 1...65_535 ~= host.port else {
            guard let topic else {
                throw .invalidArgument("'\(id)' is no message id of a position; if a client made it, give its topic")
            }
            throw .notFound("no broker of topic '\(topic)' has a message with the id '\(id)'")
        }
        fields["msgId"] = nil
        fields["offset"] = String(offset)
        guard let edited = try await carryOut(edit, fields, at: host.text, "") else {
            throw .notFound(
                "broker \(host.text) has no message at \(offset) of its log: it has expired, or was never there")
        }
        return edited
    }

    /// A broker of a topic that can be asked.
    typealias Holder = (address: String, name: String)

    func brokers(of topic: String) async throws(RocketMQClientError) -> [Holder] {
        try await route(of: topic).brokers.sorted { $0.name < $1.name }.compactMap { broker in
            broker.preferredAddress.map { ($0, broker.name) }
        }
    }

    /// The first that has it. A broker that does not know the request, or is away, is skipped while others may have it.
    /// - Throws: `refused` and failures of the connection; of one that was skipped, when no broker has it.
    func first<Found>(
        _ brokers: [Holder], _ ask: (String, String) async throws(RocketMQClientError) -> Found?
    ) async throws(RocketMQClientError) -> Found? {
        var failure: RocketMQClientError?
        for broker in brokers {
            do throws(RocketMQClientError) {
                if let found = try await ask(broker.address, broker.name) { return found }
            } catch {
                switch error {
                case .connectionFailed: break
                case .refused(let refusal) where refusal.responseCode == .requestCodeNotSupported: break
                default: throw error
                }
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
        return nil
    }

    /// Where the message lies: a producer that had no answer in time may have sent it to two brokers. Nil: at none of
    /// those that could be asked, or it is deleted.
    private func holders(
        of id: String, _ topic: String, _ brokers: [Holder]
    ) async throws(RocketMQClientError) -> [Holder]? {
        var found: [(broker: Holder, id: String)] = []
        for broker in brokers {
            do throws(RocketMQClientError) {
                let fields = ["topic": topic, "msgId": id, "group": "TOOLS_CONSUMER"]
                guard let status = try await status(fields, at: broker.address, broker.name), !status.isDeleted else {
                    continue
                }
                found.append((broker, status.offsetMessageID))
            } catch {
                // It says why when it is asked for the edit itself.
                continue
            }
        }
        guard found.count < 2 else {
            let places = found.map { "\($0.broker.name) (\($0.id))" }.joined(separator: ", ")
            throw .invalidArgument(
                "\(found.count) brokers have a message with the id '\(id)': \(places); name one by its position "
                    + "(the id in parentheses)")
        }
        return found.isEmpty ? nil : found.map(\.broker)
    }

    private func carryOut(
        _ edit: MessageEdit, _ fields: [String: String], at address: String, _ brokerName: String
    ) async throws(RocketMQClientError) -> EditedMessage? {
        let reply = try await ask(address, .editMessage, fields, body: edit.body ?? [])
        if reply.responseCode == .queryNotFound { return nil }
        // Where disk or slave are late it is made all the same.
        guard let status = SendStatus(reply.responseCode) else {
            throw .refused(ServerRefusal(address: address, reply: reply))
        }
        return try decoded(address) { () throws(RemotingDecodeError) in
            func number(_ name: String) throws(RemotingDecodeError) -> Int64 {
                guard let value = reply.extFields[name].flatMap({ Int64($0) }) else {
                    throw .badBody("the field \(name) is missing")
                }
                return value
            }
            return EditedMessage(
                version: try number("version"),
                place: MessageStatus.MessagePlace(
                    queue: MessageQueue(
                        topic: reply.extFields["topic"] ?? "", brokerName: brokerName,
                        queueID: Int(clamping: try number("queueId"))),
                    offset: try number("queueOffset")),
                offsetMessageID: reply.extFields["msgId"] ?? "", uniqueID: reply.extFields["uniqueKey"],
                deliverAt: reply.extFields["deliverAt"].flatMap { Int64($0) },
                consumedBy: (reply.extFields["consumedBy"] ?? "").split(separator: ",").map(String.init),
                consumedByLeftOut: reply.extFields["consumedByLeftOut"].flatMap { Int($0) } ?? 0, status: status)
        }
    }
}
