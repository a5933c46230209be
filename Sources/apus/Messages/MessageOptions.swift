import ArgumentParser
import Glibc
import RocketMQClient

/// `NAME=VALUE` of `apus send --property`.
struct MessagePropertyOption: ExpressibleByArgument, Sendable {
    let name: String
    let value: String

    init?(argument: String) {
        guard let at = argument.firstIndex(of: "="), at > argument.startIndex else { return nil }
        name = String(argument[..<at])
        value = String(argument[argument.index(after: at)...])
        // What separates properties in the log.
        guard !argument.unicodeScalars.contains(where: { $0.value == 1 || $0.value == 2 }) else { return nil }
    }
}

/// How long a message waits before it is delivered: `500ms`, `30s`, `5m`, `2h`, `1d`, or a number of seconds.
struct MessageDelay: ExpressibleByArgument, Sendable {
    let milliseconds: Int64

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && $0.isNumber }
        let units: [String: Int64] = [
            "": 1000, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000,
        ]
        guard let number = Int64(digits), let unit = units[String(argument.dropFirst(digits.count))] else { return nil }
        let (product, overflow) = number.multipliedReportingOverflow(by: unit)
        guard !overflow, product > 0 else { return nil }
        milliseconds = product
    }
}

/// A time: `2026-11-21T17:30`, with seconds if wanted, of this machine's time zone, or milliseconds since 1970.
struct MessageTime: ExpressibleByArgument, Sendable {
    let milliseconds: Int64

    init?(argument: String) {
        if let number = Int64(argument) {
            guard number > 0 else { return nil }
            milliseconds = number
            return
        }
        let parts = argument.split(separator: "T", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        func numbers(_ text: Substring, _ separator: Character) -> [Int32] {
            let all = text.split(separator: separator, omittingEmptySubsequences: false).map { Int32($0) }
            return all.contains(nil) ? [] : all.compactMap { $0 }
        }
        let (date, clock) = (numbers(parts[0], "-"), numbers(parts[1], ":"))
        guard date.count == 3, 2...3 ~= clock.count, 1970...9999 ~= date[0] else { return nil }
        var time = tm()
        time.tm_year = date[0] - 1900
        time.tm_mon = date[1] - 1
        time.tm_mday = date[2]
        time.tm_hour = clock[0]
        time.tm_min = clock[1]
        time.tm_sec = clock.count > 2 ? clock[2] : 0
        time.tm_isdst = -1
        let wanted = [time.tm_mon, time.tm_mday, time.tm_hour, time.tm_min, time.tm_sec]
        let seconds = mktime(&time)
        // It turns what is no time, such as the 31st of June, into another one.
        guard seconds > 0, [time.tm_mon, time.tm_mday, time.tm_hour, time.tm_min, time.tm_sec] == wanted else {
            return nil
        }
        milliseconds = Int64(seconds) * 1000
    }
}

/// `--mode`: who gets a message.
enum ModeOption: String, ExpressibleByArgument, CaseIterable {
    case topic
    case queue
    case serial

    var mode: DeliveryMode {
        switch self {
        case .topic: .topic
        case .queue: .queue
        case .serial: .serial
        }
    }

    /// The option's word for a mode.
    static func word(_ mode: DeliveryMode) -> String { allCases.first { $0.mode == mode }?.rawValue ?? mode.rawValue }
}
