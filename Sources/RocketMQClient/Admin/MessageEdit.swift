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
}

extension AdminClient {
    /// Changes, withdraws, postpones or repeats a message.
    ///
    /// - Parameters:
    ///   - id: the ID of its position, or with a topic the one its producer made.
    ///   - edit: what is to be done, and who asks.
    /// - Throws: `invalidArgument` for text that is no ID; `notFound`; `refused` with the reason: a client has it, all
    ///   groups have consumed it, another version stands for it, the broker is a slave or not of Apus (code 3).
    public func edit(
        message id: String, topic: String? = nil, _ edit: MessageEdit
    ) async throws(RocketMQClientError) -> EditedMessage {
        var fields = edit.fields
        if let topic {
            fields["topic"] = topic
            fields["msgId"] = id
            for broker in try await route(of: topic).brokers.sorted(by: { $0.name < $1.name }) {
                guard let address = broker.preferredAddress else { continue }
                if let edited = try await carryOut(edit, fields, at: address, broker.name) { return edited }
            }
        }
        // A producer's ID looks like one of a position, with another number in the place of the port.
        guard let (host, offset) = OffsetMessageID.parse(id), 1...65_535 ~= host.port else {
            guard let topic else {
                throw .invalidArgument("'\(id)' is no message id of a position; if a client made it, give its topic")
            }
            throw .notFound("no broker of topic '\(topic)' has a message with the id '\(id)'")
        }
        fields["topic"] = nil
        fields["msgId"] = nil
        fields["offset"] = String(offset)
        guard let edited = try await carryOut(edit, fields, at: host.text, "") else {
            throw .notFound(
                "broker \(host.text) has no message at \(offset) of its log: it has expired, or was never there")
        }
        return edited
    }

    private func carryOut(
        _ edit: MessageEdit, _ fields: [String: String], at address: String, _ brokerName: String
    ) async throws(RocketMQClientError) -> EditedMessage? {
        let reply = try await ask(address, .editMessage, fields, body: edit.body ?? [])
        switch reply.responseCode {
        case .success: break
        case .queryNotFound: return nil
        default: throw .refused(ServerRefusal(address: address, reply: reply))
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
                consumedBy: (reply.extFields["consumedBy"] ?? "").split(separator: ",").map(String.init))
        }
    }
}
