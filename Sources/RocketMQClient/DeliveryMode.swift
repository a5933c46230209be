/// Who gets a message of a topic. Apus's brokers keep it as the topic's attribute `apus.mode`.
public enum DeliveryMode: String, Sendable, Hashable, CaseIterable {
    /// Each consumer that is online gets each message; nothing is kept for one that is not.
    case topic = "TOPIC"
    /// Each message goes to one consumer of a group, several at the same time.
    case queue = "QUEUE"
    /// Each message goes to one consumer of a group, one after the other, in order.
    case serial = "SERIAL_QUEUE"
}

/// How brokers deliver the messages of a topic. The values are the topic's attributes `apus.…`, which Apus's brokers
/// keep and others refuse. nil: the broker's default, and no change of an existing topic.
public struct DeliveryPolicy: Sendable, Hashable {
    /// How pauses between the deliveries of a message that fails grow.
    public enum RetryStrategy: String, Sendable, Hashable, CaseIterable {
        /// The interval each time.
        case fixed
        /// The interval times the number of failures.
        case linear
        /// Twice as long each time, an hour at most.
        case exponential
    }

    /// How long messages are kept.
    public enum Archive: Sendable, Hashable {
        /// Until all groups have consumed them.
        case consumed
        /// As long as the disk has room.
        case forever
        /// So many days, 1 to 3650.
        case days(Int)
    }

    /// Who gets a message.
    public var mode: DeliveryMode?
    /// How long a message stays with its consumer: whole seconds, 1 s to 24 h. Default: 60 s.
    public var timeout: Duration?
    /// Deliveries after the first, 0 to 1000; then the message becomes a dead letter. Default: that of the group.
    public var retryCount: Int?
    /// How pauses before further deliveries grow. Default: fixed.
    public var retryStrategy: RetryStrategy?
    /// The pause before a message that failed is delivered again: whole seconds, 0 to 24 h. Default: 3 s.
    public var retryInterval: Duration?
    /// By how much pauses may differ by chance, in percent of them, 0 to 100.
    public var retryJitter: Int?
    /// Whether messages of one shard key go to one consumer at a time, in order. Default: false.
    public var isSharded: Bool?
    /// Which of a subscriber's topics comes first: 0 to 9, the highest first. Default: 5.
    public var priority: Int?
    /// How long messages are kept. Default: as the broker's other ones.
    public var archive: Archive?
    /// Who is responsible for the topic: visible characters, 128 bytes at most, no comma.
    public var owner: String?
    /// Whom to alarm: visible characters, 512 bytes at most, no comma.
    public var alarm: String?

    /// A policy that leaves everything to the broker.
    public init() {}

    /// A policy of a mode.
    public init(mode: DeliveryMode, timeout: Duration? = nil) {
        self.mode = mode
        self.timeout = timeout
    }

    /// The policy of a topic with these attributes. What cannot be read counts as absent.
    package init(attributes: [String: String]) {
        func number(_ name: String) -> Int? { attributes[name].flatMap { Int($0) } }
        func seconds(_ name: String) -> Duration? {
            number(name).flatMap { 0...Self.secondsMax ~= $0 ? .seconds($0) : nil }
        }
        mode = attributes[Attribute.mode].flatMap { DeliveryMode(rawValue: $0.uppercased()) }
        timeout = seconds(Attribute.timeout)
        retryCount = number(Attribute.retryCount)
        retryStrategy = attributes[Attribute.retryStrategy].flatMap { RetryStrategy(rawValue: $0.lowercased()) }
        retryInterval = seconds(Attribute.retryInterval)
        retryJitter = number(Attribute.retryJitter)
        isSharded = attributes[Attribute.shard].flatMap { Bool($0.lowercased()) }
        priority = number(Attribute.priority)
        archive = attributes[Attribute.archive].flatMap(Archive.init)
        owner = attributes[Attribute.owner]
        alarm = attributes[Attribute.alarm]
    }

    private static let secondsMax = 86_400

    private enum Attribute {
        static let mode = "apus.mode"
        static let timeout = "apus.timeout"
        static let retryCount = "apus.retry.count"
        static let retryStrategy = "apus.retry.strategy"
        static let retryInterval = "apus.retry.interval"
        static let retryJitter = "apus.retry.jitter"
        static let shard = "apus.shard"
        static let priority = "apus.priority"
        static let archive = "apus.archive"
        static let owner = "apus.owner"
        static let alarm = "apus.alarm"
    }

    /// The attributes that are given, by name.
    ///
    /// - Throws: `invalidArgument` for a value out of its bounds; brokers would refuse it, too.
    package func attributes() throws(RocketMQClientError) -> [String: String] {
        var attributes: [String: String] = [:]
        attributes[Attribute.mode] = mode?.rawValue
        attributes[Attribute.timeout] = try Self.seconds(timeout, "timeout", 1...Self.secondsMax)
        attributes[Attribute.retryCount] = try Self.number(retryCount, "retryCount", 0...1000)
        attributes[Attribute.retryStrategy] = retryStrategy?.rawValue
        attributes[Attribute.retryInterval] = try Self.seconds(retryInterval, "retryInterval", 0...Self.secondsMax)
        attributes[Attribute.retryJitter] = try Self.number(retryJitter, "retryJitter", 0...100)
        attributes[Attribute.shard] = isSharded.map { String($0) }
        attributes[Attribute.priority] = try Self.number(priority, "priority", 0...9)
        if case .days(let days)? = archive, !(1...3650 ~= days) {
            throw .invalidArgument("archive is 1 to 3650 days, not \(days)")
        }
        attributes[Attribute.archive] = archive?.text
        attributes[Attribute.owner] = try Self.text(owner, "owner", 128)
        attributes[Attribute.alarm] = try Self.text(alarm, "alarm", 512)
        return attributes
    }

    private static func number(
        _ value: Int?, _ name: String, _ bounds: ClosedRange<Int>
    ) throws(RocketMQClientError) -> String? {
        guard let value else { return nil }
        guard bounds.contains(value) else {
            throw .invalidArgument("\(name) is \(bounds.lowerBound) to \(bounds.upperBound), not \(value)")
        }
        return String(value)
    }

    private static func seconds(
        _ value: Duration?, _ name: String, _ bounds: ClosedRange<Int>
    ) throws(RocketMQClientError) -> String? {
        guard let value else { return nil }
        let (seconds, attoseconds) = value.components
        guard attoseconds == 0, let whole = Int(exactly: seconds), bounds.contains(whole) else {
            throw .invalidArgument(
                "\(name) is whole seconds from \(bounds.lowerBound) to \(bounds.upperBound), not \(value)")
        }
        return String(whole)
    }

    private static func text(
        _ value: String?, _ name: String, _ bytesMax: Int
    ) throws(RocketMQClientError) -> String? {
        guard let value else { return nil }
        let isVisible = value.unicodeScalars.allSatisfy { $0.properties.generalCategory != .control && $0 != "," }
        guard isVisible, 1...bytesMax ~= value.utf8.count else {
            throw .invalidArgument(
                "\(name) is 1 to \(bytesMax) bytes of visible characters without a comma, which separates attributes")
        }
        return value
    }
}

extension DeliveryPolicy.Archive {
    fileprivate init?(_ text: String) {
        switch text {
        case "consumed": self = .consumed
        case "forever": self = .forever
        default:
            guard text.hasSuffix("d"), let days = Int(text.dropLast()), days > 0 else { return nil }
            self = .days(days)
        }
    }

    fileprivate var text: String {
        switch self {
        case .consumed: "consumed"
        case .forever: "forever"
        case .days(let days): "\(days)d"
        }
    }
}
