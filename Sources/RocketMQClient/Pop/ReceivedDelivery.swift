import MessageModel
import RemotingProtocol

/// What a call of `MessageReceiver.receive` asks for.
public struct ReceiveRequest: Sendable, Hashable {
    /// The topic.
    public var topic: String
    /// The consumer group.
    public var group: String
    /// 1 to 32.
    public var messagesMax = 1
    /// How long to wait for a message when there is none: 0 to 60 s.
    public var wait: Duration = .zero
    /// How long no other consumer gets the messages: 1 s to 24 h. nil: as the topic says (`DeliveryPolicy.timeout`),
    /// else 60 s.
    public var timeout: Duration?
    /// Which messages: tags with `||` between, `*` for all, or what `expressionType` says.
    public var expression = "*"
    /// `TAG`, `SQL92`, or the type a filter plugin serves.
    public var expressionType = "TAG"

    /// One message of any kind, without waiting.
    public init(topic: String, group: String) {
        self.topic = topic
        self.group = group
    }

    /// - Throws: `invalidArgument`.
    func check() throws(RocketMQClientError) {
        guard !topic.isEmpty, !group.isEmpty else { throw .invalidArgument("receiving needs a topic and a group") }
        guard 1...32 ~= messagesMax else { throw .invalidArgument("messagesMax is 1 to 32, not \(messagesMax)") }
        guard .zero ... .seconds(60) ~= wait else { throw .invalidArgument("wait is 0 to 60 s, not \(wait)") }
        guard timeout.map({ .seconds(1) ... .seconds(86_400) ~= $0 }) ?? true else {
            throw .invalidArgument("timeout is 1 s to 24 h")
        }
    }
}

/// A message that was received: the group's until it is acknowledged or its time is over.
public struct ReceivedDelivery: Sendable {
    /// The message.
    public let message: ReceivedMessage
    /// Deliveries to the group, this one included: 1 the first time.
    public let attempt: Int
    /// Names this delivery in `acknowledge`, `fail` and `renew`.
    public let handle: DeliveryHandle
}

/// Names one delivery of a message. A text of it may be kept anywhere: the broker alone knows what it stands for.
public struct DeliveryHandle: Sendable, Equatable {
    /// As the message was received.
    public let topic: String
    /// The consumer group.
    public let group: String
    let attempt: Int
    var pop: PopHandle

    /// Longer texts are no handles.
    private static let bytesMax = 1024

    init(topic: String, group: String, attempt: Int, pop: PopHandle) {
        self.topic = topic
        self.group = group
        self.attempt = attempt
        self.pop = pop
    }

    /// Letters, digits, `-` and `_`.
    public var text: String {
        let padded = Base64.urlSafe.encode("\(attempt) \(pop.text)".utf8)
        return String(padded.prefix { $0 != "=" })
    }

    /// nil when the text is none that `text` made. That the delivery exists is not known.
    public init?(_ text: String, topic: String, group: String) {
        guard text.utf8.count <= Self.bytesMax, let bytes = Base64.urlSafe.decode(text.utf8),
            let blank = bytes.firstIndex(of: UInt8(ascii: " ")),
            let attempt = Int32(String(decoding: bytes[..<blank], as: UTF8.self)), attempt > 0,
            let pop = Array(bytes[(blank + 1)...]).withUnsafeBytes({ PopHandle($0) })
        else { return nil }
        self.init(topic: topic, group: group, attempt: Int(attempt), pop: pop)
    }

    var claim: PopClaim { PopClaim(group: group, topic: topic, handle: pop) }
}
