/// Settings with RocketMQ's key names, as the supervisor hands them to a worker. A value that does not parse as the
/// asked type is refused by the supervisor's configuration check where the key is known to it; the getters fall back to
/// the default.
package struct Settings: Hashable, Sendable {
    /// As an operator or the supervisor wrote them.
    package private(set) var values: [String: String]

    package init(_ values: [String: String] = [:]) { self.values = values }

    /// Of several with one key the last counts.
    package init(_ pairs: [(String, String)]) { values = Dictionary(pairs, uniquingKeysWith: { $1 }) }

    package subscript(key: String) -> String? {
        get { values[key] }
        set { values[key] = newValue }
    }

    package func string(_ key: String, default fallback: String) -> String { values[key] ?? fallback }

    /// The fallback also where the text is no whole number.
    package func int(_ key: String, default fallback: Int) -> Int {
        guard let text = values[key] else { return fallback }
        return Settings.parseInt(text) ?? fallback
    }

    /// The fallback also where the text is neither `true` nor `false`.
    package func bool(_ key: String, default fallback: Bool) -> Bool {
        guard let text = values[key] else { return fallback }
        return Settings.parseBool(text) ?? fallback
    }

    /// `other`'s values win.
    package func merging(_ other: Settings) -> Settings {
        Settings(values.merging(other.values, uniquingKeysWith: { $1 }))
    }

    /// Sorted by key, so that encodings and reports are stable.
    package var sorted: [(key: String, value: String)] { values.sorted { $0.key < $1.key } }

    /// A whole number, `_` and blanks passed over.
    package static func parseInt(_ text: String) -> Int? {
        let digits = text.filter { $0 != "_" && $0 != " " }
        // RocketMQ's own files write products such as 1024 * 1024 * 1024 only in Java; properties hold plain numbers.
        return Int(digits)
    }

    /// `true`, `yes`, `on`, `1` or their opposites, in any case.
    package static func parseBool(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "yes", "on", "1": true
        case "false", "no", "off", "0": false
        default: nil
        }
    }
}
