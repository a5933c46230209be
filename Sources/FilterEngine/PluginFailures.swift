/// The expressions a plugin reported it cannot serve, each with how often in a row: an expression that works hides none
/// that fails.
struct PluginFailures {
    private struct Failure {
        var count: Int
        /// Nanoseconds of the machine's monotonic clock.
        var last: UInt64
    }

    /// From so many failures in a row on it is worth telling.
    private static let tellFrom = 3
    /// Consumers ask again each second or so: after half a minute of silence no consumer wants the expression any more.
    private static let forgetNanoseconds: UInt64 = 30_000_000_000
    private static let expressionsMax = 64

    private var failures: [String: Failure] = [:]

    /// - Parameter now: nanoseconds of the machine's monotonic clock; asked for only when there is something to note.
    mutating func note(_ expression: String, succeeded: Bool, now: () -> UInt64) {
        if succeeded {
            if !failures.isEmpty { failures[expression] = nil }
            return
        }
        let time = now()
        if failures[expression] == nil, failures.count >= Self.expressionsMax,
            let oldest = failures.min(by: { $0.value.last < $1.value.last })
        {
            failures[oldest.key] = nil
        }
        let count = failures[expression]?.count ?? 0
        failures[expression] = Failure(count: count + 1, last: time)
    }

    /// The expression that fails most, and how often in a row; nil: none fails at present.
    func worst(now: UInt64) -> (expression: String, count: Int)? {
        failures.filter { $0.value.count >= Self.tellFrom && now &- $0.value.last < Self.forgetNanoseconds }
            .max { ($0.value.count, $1.key) < ($1.value.count, $0.key) }.map { ($0.key, $0.value.count) }
    }
}
