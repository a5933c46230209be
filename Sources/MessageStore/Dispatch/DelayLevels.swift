import MessageModel

/// The setting `messageDelayLevel`, "1s 5s … 2h": how long messages of each delay level wait. There is at least one
/// level.
package struct DelayLevels: Equatable, Sendable {
    /// Milliseconds per level, 0 or more; index 0 is level 1. Never empty.
    package let delays: [Int64]

    /// RocketMQ's default.
    package static let standardText = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"

    /// What a text must look like, for messages to operators.
    package static let form = "at least one delay such as 1s 5m 2h 1d, separated by blanks"

    /// The longest delay that is taken: ten years, in milliseconds.
    static let delayMax: Int64 = 3653 * 86_400_000

    /// `nil` when the text is no list of delays. RocketMQ does not start with such a text either.
    package init?(_ text: String) {
        var delays: [Int64] = []
        for part in text.split(separator: " ") {
            guard let unit = part.last.flatMap(Self.milliseconds), let number = Int64(part.dropLast()), number >= 0,
                number <= Self.delayMax / unit
            else { return nil }
            delays.append(number * unit)
        }
        guard !delays.isEmpty else { return nil }
        self.delays = delays
    }

    /// RocketMQ's 18 levels.
    package static let standard: DelayLevels = {
        guard let levels = DelayLevels(standardText) else { preconditionFailure("the standard levels do not parse") }
        return levels
    }()

    private static func milliseconds(_ unit: Character) -> Int64? {
        switch unit {
        case "s": 1000
        case "m": 60_000
        case "h": 3_600_000
        case "d": 86_400_000
        default: nil
        }
    }

    /// When a message of the level that was stored at `storeTimestamp` is due (`computeDeliverTimestamp`).
    func deliverTimestamp(level: Int, storeTimestamp: Int64) -> Int64 {
        storeTimestamp +| delays[min(max(level, 1), delays.count) - 1]
    }
}
