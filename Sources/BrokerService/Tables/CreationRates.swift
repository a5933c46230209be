import MessageModel
import RemotingProtocol
import RemotingTransport

/// How fast one address may have topics and consumer groups made by naming them. Each stays for good, costs memory, a
/// place in every table that is written or sent, and queues. Confined to the broker's event loop.
final class CreationRates {
    static let topics = TokenBuckets.Rate(burst: 2000, perSecond: 50)
    static let groups = TokenBuckets.Rate(burst: 20_000, perSecond: 500)

    /// Whose request is handled; it is there as long as that.
    var requester: HostAddress?
    private let topicBuckets: TokenBuckets
    private let groupBuckets: TokenBuckets

    init(now: @escaping () -> Int64) {
        topicBuckets = TokenBuckets(Self.topics, now: now)
        groupBuckets = TokenBuckets(Self.groups, now: now)
    }

    func mayMakeTopic(_ address: HostAddress) -> Bool { topicBuckets.take(address) }
    /// For the client whose request is handled; for the broker's own work always.
    var requesterMayMakeGroup: Bool { requester.map { mayMakeGroup($0) } ?? true }

    func mayMakeGroup(_ address: HostAddress) -> Bool { groupBuckets.take(address) }
}

/// A token bucket for each address, whatever its port.
final class TokenBuckets {
    /// So many at once, and so many a second in the long run.
    struct Rate {
        let burst: Double
        let perSecond: Double

        var words: String { "\(Int(burst)) at once and \(Int(perSecond)) a second" }
    }

    /// Addresses remembered at most; those that have their full burst again are forgotten first.
    static let addressesMax = 4096

    private struct Address: Hashable {
        let high: UInt64
        let low: UInt64
        let isIPv6: Bool
    }

    private struct Bucket {
        var tokens: Double
        var milliseconds: Int64

        /// A clock that was set back fills nothing.
        mutating func fill(_ rate: Rate, _ now: Int64) {
            let seconds = Double(min(max(0, now - milliseconds), 3_600_000)) / 1000
            tokens = min(rate.burst, tokens + seconds * rate.perSecond)
            milliseconds = now
        }
    }

    private let rate: Rate
    private let now: () -> Int64
    private var buckets: [Address: Bucket] = [:]

    /// - Parameter now: milliseconds.
    init(_ rate: Rate, now: @escaping () -> Int64) {
        self.rate = rate
        self.now = now
    }

    /// Addresses it remembers.
    var count: Int { buckets.count }

    func take(_ address: HostAddress) -> Bool {
        let time = now()
        let key = Address(high: address.high, low: address.low, isIPv6: address.isIPv6)
        if buckets[key] == nil, buckets.count >= Self.addressesMax {
            forgetFull(time)
            // All of them are at it: a new client waits until one is done.
            guard buckets.count < Self.addressesMax else { return false }
        }
        var bucket = buckets[key] ?? Bucket(tokens: rate.burst, milliseconds: time)
        defer { buckets[key] = bucket }
        bucket.fill(rate, time)
        guard bucket.tokens >= 1 else { return false }
        bucket.tokens -= 1
        return true
    }

    private func forgetFull(_ time: Int64) {
        for address in buckets.keys { buckets[address]?.fill(rate, time) }
        buckets = buckets.filter { $0.value.tokens < rate.burst }
    }
}
