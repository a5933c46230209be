import MessageModel
import SettingTable

/// How messages of a topic reach its consumers: attribute `apus.mode`, XXL-MQ's three modes.
enum TopicMode: String, CaseIterable {
    /// As RocketMQ: groups pull or pop; every consumer of a broadcasting group gets each message.
    case topic = "TOPIC"
    /// Each message goes to one consumer of a group at a time, and is claimed by it: the topic is popped only.
    case queue = "QUEUE"
    /// One consumer of a group is active, and gets the messages in their order; the topic has one queue.
    case serial = "SERIAL_QUEUE"
}

/// When a message whose consumer has reported a failure comes again.
struct RetryStrategy: Equatable {
    enum Kind: String, CaseIterable {
        case fixed
        case linear
        case exponential
    }

    var kind = Kind.fixed
    /// Before the second delivery.
    var intervalMilliseconds: Int64 = 3000
    /// By how many percent a delay is longer or shorter at most; nil: 20 for `exponential`, otherwise 0.
    var jitterPercent: Int64?

    /// An exponential delay is no longer, milliseconds, unless the interval itself is.
    static let exponentialMax: Int64 = 3_600_000

    /// Milliseconds until the next delivery: 0 to three days.
    /// - Parameter attempt: deliveries so far, from 1 on.
    func delay(after attempt: Int32, using random: inout some RandomNumberGenerator) -> Int64 {
        let attempt = Int64(max(1, attempt))
        let most = kind == .exponential ? max(Self.exponentialMax, intervalMilliseconds) : .retryDelayMax
        let delay: Int64
        switch kind {
        case .fixed: delay = intervalMilliseconds
        case .linear: delay = intervalMilliseconds *| attempt
        case .exponential: delay = intervalMilliseconds *| (1 << min(attempt - 1, 40))
        }
        let bounded = min(max(delay, 0), most)
        let spread = bounded * (jitterPercent ?? (kind == .exponential ? 20 : 0)) / 100
        guard spread > 0 else { return bounded }
        return min(bounded + Int64.random(in: -spread...spread, using: &random), most)
    }
}

extension Int64 {
    /// Milliseconds, three days: what a claim may last.
    fileprivate static var retryDelayMax: Int64 { 3 * 24 * 3_600_000 }
}

/// How long messages of a topic are kept besides `fileReservedTime`: attribute `apus.archive`.
enum TopicArchive: Equatable {
    /// Until each group that has an offset in the topic has consumed them.
    case consumed
    case forever
    case days(Int64)

    static let daysMax: Int64 = 3650

    init?(_ text: String) {
        switch text {
        case "consumed": self = .consumed
        case "forever": self = .forever
        default:
            guard text.hasSuffix("d"), let days = TopicPolicy.number(text.dropLast()), 1...Self.daysMax ~= days else {
                return nil
            }
            self = .days(days)
        }
    }
}

/// What the attributes `apus.…` of a topic say of the delivery of its messages. Read once for each change of the topic.
struct TopicPolicy: Equatable {
    var mode = TopicMode.topic
    /// How long a message stays with its consumer if the pop does not say; nil: not set.
    var timeoutMilliseconds: Int64?
    /// Deliveries after the first, then a message is a dead letter; nil: the group's `retryMaxTimes`.
    var retryCount: Int32?
    var retry = RetryStrategy()
    /// Messages of one shard key stay in one queue, and a queue of a QUEUE topic has one consumer at a time.
    var isSharded = false
    /// Which of a subscriber's topics comes first, 0 to 9. The subscriber's concern: a pop names one topic.
    var priority: Int64 = 5
    var archive: TopicArchive?

    /// Of topics without such attributes.
    static let standard = Self()
    /// Milliseconds a message stays with its consumer where nothing is set.
    static let standardTimeoutMilliseconds: Int64 = 60_000

    /// One consumer of a group at a time reads a queue.
    var hasLeases: Bool { mode == .serial || mode == .queue && isSharded }
    /// Consumers cannot pull.
    var isPoppedOnly: Bool { mode != .topic }
    /// Messages that were delivered too often become dead letters, whatever `popDeadLetterEnable` is.
    var givesUp: Bool { isPoppedOnly || retryCount != nil }

    /// Milliseconds a message is invisible for a pop that asks for `wanted`. -1 means the topic's time; so does 0 where
    /// the topic has one.
    func invisibleMilliseconds(wanted: Int64) -> Int64 {
        let isOpen = wanted < 0 || wanted == 0 && (isPoppedOnly || timeoutMilliseconds != nil)
        return isOpen ? timeoutMilliseconds ?? Self.standardTimeoutMilliseconds : wanted
    }
}

extension TopicEntry {
    /// What a group is told that pulls a topic with a mode, or commits offsets of it.
    func refusal(ofPuller group: String) -> String {
        "topic \(name) has apus.mode=\(policy.mode.rawValue): its messages are claimed one by one and cannot be "
            + "pulled. Let group \(group) pop it (RocketMQ 5: clientRebalance=false; apus consume), or set "
            + "apus.mode=TOPIC (mqadmin updateTopic -a +apus.mode=TOPIC)"
    }
}

// MARK: - Shards

extension TopicPolicy {
    /// The queue messages of a shard key (`__SHARDINGKEY`) are stored in; the same as long as the topic has as many
    /// queues. FNV-1a.
    static func queue(ofShardKey key: UnsafeRawBufferPointer, queues: Int32) -> Int32 {
        var hash: UInt32 = 2_166_136_261
        for byte in key { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        return Int32((hash ^ hash >> 16) % UInt32(max(1, queues)))
    }
}

// MARK: - Attributes

extension TopicPolicy {
    static let prefix = "apus."

    /// An attribute: what its value may be, and what it sets. `apply` returns false for values that are none.
    private struct Attribute: Sendable {
        let bounds: String
        let apply: @Sendable (String, inout TopicPolicy) -> Bool
    }

    private static let attributes: [String: Attribute] = [
        "apus.mode": Attribute(bounds: "TOPIC, QUEUE or SERIAL_QUEUE") { text, policy in
            guard let mode = TopicMode(rawValue: text) else { return false }
            policy.mode = mode
            return true
        },
        "apus.timeout": seconds(1...86_400) { $1.timeoutMilliseconds = $0 },
        "apus.retry.count": whole(0...1000, "") { $1.retryCount = Int32($0) },
        "apus.retry.strategy": Attribute(bounds: "fixed, linear or exponential") { text, policy in
            guard let kind = RetryStrategy.Kind(rawValue: text) else { return false }
            policy.retry.kind = kind
            return true
        },
        "apus.retry.interval": seconds(0...86_400) { $1.retry.intervalMilliseconds = $0 },
        "apus.retry.jitter": whole(0...100, " percent") { $1.retry.jitterPercent = $0 },
        "apus.shard": Attribute(bounds: "true or false") { text, policy in
            guard ["true", "false"].contains(text) else { return false }
            policy.isSharded = text == "true"
            return true
        },
        "apus.priority": whole(0...9, "") { $1.priority = $0 },
        "apus.archive": Attribute(bounds: "consumed, forever, or days such as 7d, at most \(TopicArchive.daysMax)d") {
            text, policy in
            guard let archive = TopicArchive(text) else { return false }
            policy.archive = archive
            return true
        },
        "apus.owner": words(128), "apus.alarm": words(512),
    ]

    private static func whole(
        _ range: ClosedRange<Int64>, _ unit: String, _ set: @escaping @Sendable (Int64, inout TopicPolicy) -> Void
    ) -> Attribute {
        Attribute(bounds: "a whole number, \(range.lowerBound) to \(range.upperBound)\(unit)") { text, policy in
            guard let number = number(text[...]), range.contains(number) else { return false }
            set(number, &policy)
            return true
        }
    }

    /// - Parameter set: is given milliseconds.
    private static func seconds(
        _ range: ClosedRange<Int64>, _ set: @escaping @Sendable (Int64, inout TopicPolicy) -> Void
    ) -> Attribute {
        whole(range, " seconds") { set($0 * 1000, &$1) }
    }

    /// What the broker keeps for others.
    private static func words(_ bytesMax: Int) -> Attribute {
        Attribute(bounds: "at most \(bytesMax) visible characters without commas") { text, _ in
            text.utf8.count <= bytesMax
                && text.unicodeScalars.allSatisfy { $0 != "," && $0.properties.generalCategory != .control }
        }
    }

    /// Decimal digits alone.
    fileprivate static func number(_ text: Substring) -> Int64? {
        guard !text.isEmpty, text.utf8.allSatisfy({ UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }) else { return nil }
        return Int64(text)
    }

    /// In their order.
    static let attributeNames: [String] = attributes.keys.sorted()

    /// What is wrong with an attribute, with its bounds; nil for a good one.
    static func problem(_ key: String, _ value: String) -> String? {
        guard let attribute = attributes[key] else { return "unsupported key: \(key)" }
        var policy = Self()
        return attribute.apply(value, &policy)
            ? nil : "\(key)=\(SettingRefusal.shown(value)): it is \(attribute.bounds)."
    }

    /// The policy of a topic; values that are none count as not set.
    init(attributes: [String: String]?) {
        self.init()
        for (key, value) in attributes ?? [:] where key.hasPrefix(Self.prefix) {
            _ = Self.attributes[key]?.apply(value, &self)
        }
    }

    /// Attributes of a table that was read whose values are none, for the log.
    static func problems(in attributes: [String: String]?) -> [String] {
        (attributes ?? [:]).filter { $0.key.hasPrefix(prefix) }.sorted { $0.key < $1.key }
            .compactMap { problem($0.key, $0.value) }
    }
}

/// Spreads retries: SplitMix64, so that a run can be repeated with its seed.
struct RetryJitter: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64 = .random(in: .min ... .max)) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
