import FastJSON

/// A topic and the tag expression a consumer wants of it: `*`, `TagA` or `TagA || TagB`.
struct Subscription: Sendable {
    let topic: String
    let expression: String
    /// Nil for all.
    let tags: Set<String>?
    let version = Clock.milliseconds

    init(topic: String, expression: String) {
        self.topic = topic
        let tags = expression.split(separator: "||").map { $0.trimmed }.filter { !$0.isEmpty }
        if tags.isEmpty || tags == ["*"] {
            self.expression = "*"
            self.tags = nil
        } else {
            self.expression = tags.joined(separator: " || ")
            self.tags = Set(tags)
        }
    }

    /// As heartbeats and RocketMQ's tools have it (`SubscriptionData`).
    var json: JSONValue {
        let tags = (tags ?? []).sorted()
        return .fields([
            ("classFilterMode", false), ("codeSet", .array(tags.map { .integer(javaHash($0)) })),
            ("expressionType", "TAG"), ("subString", .string(expression)), ("subVersion", .integer(version)),
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
