import FastJSON

/// A topic and what a consumer wants of it: a tag expression, `*`, `TagA` or `TagA || TagB`, or one of another type.
struct Subscription: Sendable {
    let topic: String
    /// `TAG`, `SQL92`, or that of a plugin.
    let type: String
    let expression: String
    /// Nil for all.
    let tags: Set<String>?
    let version = Clock.milliseconds

    /// What a plugin understands; brokers alone select.
    init(topic: String, type: String, expression: String) {
        guard type != "TAG" else {
            self.init(topic: topic, expression: expression)
            return
        }
        self.init(topic: topic, type: type, expression: expression, tags: nil)
    }

    private init(topic: String, type: String, expression: String, tags: Set<String>?) {
        self.topic = topic
        self.type = type
        self.expression = expression
        self.tags = tags
    }

    init(topic: String, expression: String) {
        let tags = expression.split(separator: "||").map { $0.trimmed }.filter { !$0.isEmpty }
        if tags.isEmpty || tags == ["*"] {
            self.init(topic: topic, type: "TAG", expression: "*", tags: nil)
        } else {
            self.init(topic: topic, type: "TAG", expression: tags.joined(separator: " || "), tags: Set(tags))
        }
    }

    /// As heartbeats and RocketMQ's tools have it (`SubscriptionData`).
    var json: JSONValue {
        let tags = (tags ?? []).sorted()
        return .fields([
            ("classFilterMode", false), ("codeSet", .array(tags.map { .integer(javaHash($0)) })),
            ("expressionType", .string(type)), ("subString", .string(expression)), ("subVersion", .integer(version)),
            ("tagsSet", .strings(tags)), ("topic", .string(topic)),
        ])
    }

    /// Brokers select by the tag's hash; the tag itself is compared here, as RocketMQ's clients do.
    func wants(_ message: ConsumedMessage) -> Bool {
        guard let tags else { return true }
        return message.tag.map(tags.contains) ?? false
    }
}

extension Substring {
    fileprivate var trimmed: String {
        String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
}

/// Averagely allocated queues (`AllocateMessageQueueAveragely`): each member of the sorted group takes a run of the sorted
/// queues; the first `queues % members` members take one more.
func allocateAveragely(_ queues: [MessageQueue], among members: [String], for member: String) -> [MessageQueue] {
    let members = members.sorted()
    let queues = queues.sorted()
    guard let index = members.firstIndex(of: member), !queues.isEmpty else { return [] }
    let remainder = queues.count % members.count
    let average =
        queues.count <= members.count ? 1 : queues.count / members.count + (remainder > 0 && index < remainder ? 1 : 0)
    let start = remainder > 0 && index < remainder ? index * average : index * average + remainder
    guard start < queues.count else { return [] }
    return Array(queues[start..<min(queues.count, start + average)])
}

/// Java's `String.hashCode`: what brokers select tags by.
private func javaHash(_ text: String) -> Int32 {
    text.utf16.reduce(0) { $0 &* 31 &+ Int32($1) }
}
