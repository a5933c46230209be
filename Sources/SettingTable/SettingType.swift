/// What a setting's text must look like. There is one reading of each type: what is refused here no worker sees, and
/// what is taken here every worker takes.
package enum SettingType: Sendable {
    /// A whole number within bounds.
    case integer(ClosedRange<Int64>)
    /// `true` or `false` in any case, as `Boolean.parseBoolean` reads them. Java takes every other word for false; here
    /// it is refused.
    case boolean
    /// Any text without control characters; empty means not set.
    case text
    /// A name that is announced and stands in paths and log lines: 1 to 127 characters, no blanks, slashes or control
    /// characters.
    case name
    /// One of these words, exactly.
    case choice([String])
    /// Hours of the day, separated by `;` (`deleteWhen`).
    case hours
    /// Delays such as `1s 5m 2h 1d`, separated by blanks.
    case delays
    /// A numeric IPv4 or IPv6 address to listen on.
    case numericAddress
    /// An IPv4 address or a host name.
    case host
    /// `HOST:PORT`.
    case hostAndPort
    /// `HOST:PORT`, several separated by `;` or `,`.
    case addresses
    /// The path of one file or folder.
    case path
    /// The path of one folder, where RocketMQ takes several separated by `,` (its multi-path commit log).
    case oneFolder
    /// Names separated by `;`.
    case names

    /// Why a text is not of a type.
    struct Mismatch: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }

    /// What is expected, as a text.
    package var expectation: String {
        switch self {
        case .integer(let range) where range.upperBound == .max: "a whole number, \(range.lowerBound) or more"
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .boolean: "true or false"
        case .text: "a text without control characters"
        case .name: "a name of 1 to 127 characters without blanks, slashes and control characters"
        case .choice(let words): words.count == 2 ? words.joined(separator: " or ") : words.joined(separator: ", ")
        case .hours: "hours from 00 to 23, separated by ;"
        case .delays: "delays like 1s 5m 2h 1d, separated by blanks"
        case .numericAddress: "an address in numbers, such as 127.0.0.1 or 0.0.0.0"
        case .host: "an IPv4 address or a host name"
        case .hostAndPort: "HOST:PORT"
        case .addresses: "HOST:PORT, several separated by ;"
        case .path: "a path; ~ stands for nothing there"
        case .oneFolder: "the path of one folder; ~ stands for nothing there"
        case .names: "names separated by ;"
        }
    }

    func canonical(_ given: String) throws(Mismatch) -> String {
        let text = SettingType.trimmed(given)
        if text.isEmpty {
            switch self {
            case .integer, .boolean, .name, .choice, .hours, .delays:
                throw Mismatch("\(expectation), and it is empty")
            default: return ""
            }
        }
        switch self {
        case .integer(let range):
            guard let number = Int64(text) else { throw Mismatch(expectation + SettingType.detail(ofNumber: text)) }
            guard range.contains(number) else { throw Mismatch(expectation) }
            return String(number)
        case .boolean:
            guard let flag = SettingType.boolean(text) else {
                throw Mismatch(expectation + SettingType.detail(ofBoolean: text))
            }
            return flag ? "true" : "false"
        case .text: return try printable(text)
        case .name:
            guard text.unicodeScalars.count <= 127, !text.contains(where: { "/\\ \t".contains($0) }),
                text != ".", text != ".."
            else { throw Mismatch(expectation) }
            return try printable(text)
        case .choice(let words):
            guard words.contains(text) else {
                let near =
                    Spelling.nearest(to: text, among: words) ?? words.first { $0.lowercased() == text.lowercased() }
                throw Mismatch(expectation + (near.map { "; is \($0) meant?" } ?? ""))
            }
            return text
        case .hours:
            guard let hours = SettingType.hours(text) else { throw Mismatch(expectation) }
            return hours.map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: ";")
        case .delays:
            guard SettingType.delays(text) != nil else { throw Mismatch(expectation) }
            return text.split(separator: " ").joined(separator: " ")
        case .numericAddress:
            guard AddressText.isNumeric(text) else { throw Mismatch(expectation) }
            return text
        case .host:
            guard AddressText.isHost(text), !text.contains(":") else { throw Mismatch(expectation) }
            return text
        case .hostAndPort:
            guard AddressText.isHostAndPort(text) else { throw Mismatch(expectation) }
            return text
        case .addresses:
            let parts = text.split { $0 == ";" || $0 == "," }.map { SettingType.trimmed(String($0)) }
            if let wrong = parts.first(where: { !AddressText.isHostAndPort($0) }) {
                throw Mismatch("\(expectation); \(SettingRefusal.shown(wrong)) is none")
            }
            return parts.joined(separator: ";")
        case .path:
            guard text != "~", !text.hasPrefix("~/") else { throw Mismatch(expectation) }
            return try printable(text)
        case .oneFolder:
            guard !text.contains(",") else {
                throw Mismatch(
                    "one folder. RocketMQ spreads its log over several (separated by ,); Apus has no such log and "
                        + "would find none of those messages: move the files of all of them into one folder, or keep "
                        + "RocketMQ for this store"
                )
            }
            return try SettingType.path.canonical(text)
        case .names: return try printable(text)
        }
    }

    private func printable(_ text: String) throws(Mismatch) -> String {
        guard text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) }) else {
            throw Mismatch("\(expectation); it has control characters")
        }
        return text
    }

    // MARK: - Values

    /// A whole number, blanks around it left out; nil when it is none.
    package static func integer(_ text: String) -> Int64? { Int64(trimmed(text)) }

    /// `true` or `false` in any case, blanks around it left out; nil for every other word.
    package static func boolean(_ text: String) -> Bool? {
        switch trimmed(text).lowercased() {
        case "true": true
        case "false": false
        default: nil
        }
    }

    /// Hours of the day, 0 to 23, of `04;16`; nil when one of them is none.
    package static func hours(_ text: String) -> [Int]? {
        let parts = text.split(separator: ";").map { trimmed(String($0)) }
        let hours = parts.compactMap { part -> Int? in
            guard (1...2).contains(part.utf8.count), let hour = Int(part), (0...23).contains(hour) else { return nil }
            return hour
        }
        return hours.count == parts.count && !hours.isEmpty ? hours : nil
    }

    /// Delays in milliseconds of `1s 5m 2h 1d`, in their order; nil when one of them is none, or too long for the unit.
    package static func delays(_ text: String) -> [Int64]? {
        let parts = text.split(separator: " ")
        let delays = parts.compactMap { part -> Int64? in
            guard let unit = part.last.flatMap({ units[$0] }), let number = Int64(part.dropLast()), number > 0 else {
                return nil
            }
            let (product, overflow) = number.multipliedReportingOverflow(by: unit)
            return overflow ? nil : product
        }
        return delays.count == parts.count && !delays.isEmpty ? delays : nil
    }

    private static let units: [Character: Int64] = ["s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000]

    static func trimmed(_ text: String) -> String {
        var view = Substring(text)
        while let first = view.first, first.isWhitespace { view.removeFirst() }
        while let last = view.last, last.isWhitespace { view.removeLast() }
        return String(view)
    }

    // MARK: - What was meant

    /// Where a number ends to be one, and what its writer probably meant.
    private static func detail(ofNumber text: String) -> String {
        // The digits stand in the answer.
        guard text.utf8.count <= 64 else { return "; the text is too long" }
        let sign = text.hasPrefix("-") || text.hasPrefix("+") ? 1 : 0
        let digits = text.dropFirst(sign).prefix { $0.isASCII && $0.isNumber }
        let rest = text.dropFirst(sign + digits.count)
        guard let other = rest.first else { return "; the number is too long" }
        guard !digits.isEmpty else { return "" }
        let place = "; \"\(SettingRefusal.shown(String(other)))\" at position \(sign + digits.count + 1) is no digit"
        let number = String(text.prefix(sign)) + digits
        let tail = trimmed(String(rest))
        if tail.hasPrefix("#") || tail.hasPrefix("//") || tail.hasPrefix("!") {
            return place + ": a remark needs a line of its own; is \(number) meant?"
        }
        let unit = tail.uppercased()
        if let shift = ["K": 10, "KB": 10, "M": 20, "MB": 20, "G": 30, "GB": 30][unit], let bytes = Int64(number),
            bytes <= Int64.max >> shift
        {
            return place + ": write the bytes; is \(bytes << shift) meant?"
        }
        if let product = product(text) { return place + ": write the result; is \(product) meant?" }
        let joined = text.filter { $0 != "_" && $0 != "," && $0 != " " && $0 != "'" }
        if let whole = Int64(joined) { return place + "; is \(whole) meant?" }
        if ["L", "l"].contains(tail) { return place + "; is \(number) meant?" }
        return place
    }

    /// `1024 * 1024`, as Java sources write it.
    private static func product(_ text: String) -> Int64? {
        let factors = text.split(separator: "*").map { Int64(trimmed(String($0))) }
        guard factors.count > 1 else { return nil }
        return factors.reduce(Optional(Int64(1))) { result, factor in
            guard let result, let factor else { return nil }
            let (product, overflow) = result.multipliedReportingOverflow(by: factor)
            return overflow ? nil : product
        }
    }

    private static func detail(ofBoolean text: String) -> String {
        switch text.lowercased() {
        case "yes", "on", "1", "y": "; RocketMQ takes \(text) for false: write true or false"
        case "no", "off", "0", "n": "; is false meant?"
        default: Spelling.nearest(to: text, among: ["true", "false"]).map { "; is \($0) meant?" } ?? ""
        }
    }
}
