/// What a pull selects by.
enum SubscriptionFilter {
    case all
    case compiled(CompiledSubscription)

    /// Whether an expression type of a subscription is RocketMQ's tags.
    static func isTagType(_ type: String) -> Bool { type.isEmpty || type == "TAG" }

    @inline(__always)
    func mayMatch(tagsCode: Int64) -> Bool {
        switch self {
        case .all: true
        case .compiled(let subscription): subscription.mayMatch(tagsCode: tagsCode)
        }
    }
}

extension SubscriptionFilter {
    /// Whether a message with these tags is selected, as far as is known here: an expression that looks at more than
    /// tags may select it.
    func wants(tagsCode: Int64) -> Bool {
        guard case .compiled(let subscription) = self else { return true }
        switch subscription.state {
        case .tagsCodes(let codes): return codes.contains(tagsCode)
        case .refused, .unavailable: return false
        case .everything, .unknown, .compiling, .program: return true
        }
    }
}
