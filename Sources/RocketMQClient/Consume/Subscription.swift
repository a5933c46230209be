package import RemotingProtocol

/// A topic and what a consumer wants of it.
public struct Subscription: Sendable, Hashable {
    /// The topic.
    public let topic: String
    /// `TAG`, `SQL92`, or the type a filter plugin serves.
    public let expressionType: String
    /// The expression in its canonical form; `*` is everything.
    public let expression: String
    /// The tags of a tag expression; nil for everything and for other types.
    public let tags: Set<String>?
    /// Milliseconds since 1970 when it was made. Brokers keep the newest version of a group's subscription.
    public let version: Int64

    /// By tags.
    ///
    /// - Parameter tags: `*` for everything, `TagA`, or `TagA || TagB`.
    public init(topic: String, tags: String = "*") {
        let names = tags.split(separator: "||").map { $0.trimmed }.filter { !$0.isEmpty }
        if names.isEmpty || names == ["*"] {
            self.init(topic, "TAG", "*", nil)
        } else {
            self.init(topic, "TAG", names.joined(separator: " || "), Set(names))
        }
    }

    /// By an SQL92 expression over properties, such as `price > 10 AND region = 'hangzhou'`.
    public init(topic: String, sql92: String) { self.init(topic, "SQL92", sql92, nil) }

    /// By an expression of any type; brokers answer types they do not serve with an error.
    public init(topic: String, type: String, expression: String) {
        if type == "TAG" {
            self.init(topic: topic, tags: expression)
        } else {
            self.init(topic, type, expression, nil)
        }
    }

    private init(_ topic: String, _ type: String, _ expression: String, _ tags: Set<String>?) {
        self.topic = topic
        expressionType = type
        self.expression = expression
        self.tags = tags
        version = WallClock.milliseconds
    }

    /// Brokers select by the tag's hash; the tag itself is compared here, as RocketMQ's clients do.
    public func selects(_ message: ReceivedMessage) -> Bool {
        guard let tags else { return true }
        return message.tag.map(tags.contains) ?? false
    }

    /// As heartbeats and RocketMQ's tools have it (`SubscriptionData`).
    package var wire: SubscriptionData {
        let tags = (tags ?? []).sorted()
        return SubscriptionData(
            topic: topic, subString: expression, tagsSet: tags, codeSet: tags.map(javaHash), subVersion: version,
            expressionType: expressionType)
    }
}

extension Substring {
    fileprivate var trimmed: String {
        String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
}

/// Where a consumer begins that has no offset yet.
public enum StartPosition: Sendable, Hashable {
    /// The oldest message there is.
    case first
    /// The end: only messages that come from now on.
    case last
    /// The first message stored at a time or later, milliseconds since 1970.
    case time(milliseconds: Int64)

    /// RocketMQ's name (`ConsumeFromWhere`).
    package var rocketMQName: String {
        switch self {
        case .first: "CONSUME_FROM_FIRST_OFFSET"
        case .last: "CONSUME_FROM_LAST_OFFSET"
        case .time: "CONSUME_FROM_TIMESTAMP"
        }
    }
}
