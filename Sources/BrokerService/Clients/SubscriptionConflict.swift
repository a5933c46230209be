import RemotingProtocol

/// Two clients of one consumer group that do not subscribe to the same.
///
/// The clients divide a topic's queues among all members of their group. What only one side wants is lost to the group
/// where it lies in a queue of the other side. A topic only one side knows is not read in the queues meant for the
/// other. No broker can repair that: it is for the operator, and so it is logged, with both sides named.
struct SubscriptionConflict: CustomStringConvertible {
    /// Disagreements logged of one group at most, until it agrees again.
    static let reportedMax = 32

    struct Key: Hashable {
        var topic: String
        /// What the two want, in the order of the alphabet: which of them sent it first does not matter.
        var first: String
        var second: String
    }

    /// `nil` where they disagree on the message model.
    let topic: String?
    let left: (client: String, wants: String)
    let right: (client: String, wants: String)

    /// `nil` when the two agree.
    init?(_ left: ClientChannelInfo, _ right: ClientChannelInfo) {
        func of(_ info: ClientChannelInfo, _ words: String) -> (client: String, wants: String) {
            ("\(info.clientID) at \(info.client.address)", words)
        }
        guard left.messageModel == right.messageModel else {
            topic = nil
            self.left = of(left, left.messageModel)
            self.right = of(right, right.messageModel)
            return
        }
        let missing = "nothing of it"
        let theirsByTopic = SubscriptionsByTopic(right.subscriptions)
        for mine in left.subscriptions {
            let other = theirsByTopic[mine.topic]
            if other === mine || other?.selectsTheSame(as: mine) == true { continue }
            if other == nil, mine.topic.hasPrefix(TopicNames.retryPrefix) { continue }
            topic = mine.topic
            self.left = of(left, mine.words)
            self.right = of(right, other?.words ?? missing)
            return
        }
        let mineByTopic = SubscriptionsByTopic(left.subscriptions)
        for theirs in right.subscriptions where !theirs.topic.hasPrefix(TopicNames.retryPrefix) {
            if mineByTopic[theirs.topic] != nil { continue }
            topic = theirs.topic
            self.left = of(left, missing)
            self.right = of(right, theirs.words)
            return
        }
        return nil
    }

    var key: Key {
        Key(topic: topic ?? "", first: min(left.wants, right.wants), second: max(left.wants, right.wants))
    }

    var description: String {
        let subject = topic.map { "of topic \($0) " } ?? ""
        return "client \(left.client) wants \(subject)\(left.wants), client \(right.client) wants \(right.wants)"
    }
}

/// One client's subscriptions, found by topic: few by looking at each, many by hash, since a client may name a
/// thousand.
struct SubscriptionsByTopic {
    private static let few = 16

    let all: [Subscription]
    private var table: [String: Subscription] = [:]

    init(_ all: [Subscription]) {
        self.all = all
        if all.count > Self.few {
            table = Dictionary(all.map { ($0.topic, $0) }, uniquingKeysWith: { first, _ in first })
        }
    }

    subscript(topic: String) -> Subscription? {
        all.count > Self.few ? table[topic] : all.first { $0.topic == topic }
    }
}

extension Subscription {
    /// As a line of the log states it.
    fileprivate var words: String {
        SubscriptionFilter.isTagType(data.expressionType)
            ? "tags \"\(data.subString)\"" : "\(data.expressionType) \"\(data.subString)\""
    }
}
