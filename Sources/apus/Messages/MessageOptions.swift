import ArgumentParser

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
