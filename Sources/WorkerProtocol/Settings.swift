import SettingTable

/// Settings with RocketMQ's key names, as the supervisor hands them to a worker. Both supervisor and worker refuse
/// values the table of settings does not take before they are read. The getters' defaults are for what is not set.
package struct Settings: Hashable, Sendable {
    /// As an operator or the supervisor wrote them.
    package private(set) var values: [String: String]

    package init(_ values: [String: String] = [:]) { self.values = values }

    /// Of several with one key the last counts.
    package init(_ pairs: [(String, String)]) { values = Dictionary(pairs, uniquingKeysWith: { $1 }) }

    /// nil: not set.
    package subscript(key: String) -> String? {
        get { values[key] }
        set { values[key] = newValue }
    }

    /// A text; `fallback` where it is not set.
    package func string(_ key: String, default fallback: String) -> String { values[key] ?? fallback }

    /// Where a broker's commit log lies: `storePathCommitLog`, by default `commitlog` below `storePathRootDir`.
    /// - Parameter suffix: `#N` for the broker of number N, as filter workers have it.
    package func commitLogFolder(suffix: String = "") -> String {
        if let path = self["storePathCommitLog\(suffix)"], !path.isEmpty { return path }
        return string("storePathRootDir\(suffix)", default: "store") + "/commitlog"
    }

    /// A whole number; `fallback` where it is not set.
    package func int(_ key: String, default fallback: Int) -> Int {
        guard let text = values[key] else { return fallback }
        return SettingType.integer(text).map { Int($0) } ?? fallback
    }

    /// `true` or `false`; `fallback` where it is not set.
    package func bool(_ key: String, default fallback: Bool) -> Bool {
        guard let text = values[key] else { return fallback }
        return SettingType.boolean(text) ?? fallback
    }

    /// `other`'s values win.
    package func merging(_ other: Settings) -> Settings {
        Settings(values.merging(other.values, uniquingKeysWith: { $1 }))
    }

    /// Sorted by key, so that encodings and reports are stable.
    package var sorted: [(key: String, value: String)] { values.sorted { $0.key < $1.key } }
}
