/// The one table of settings. Configuration file, command line, requests 25 and 318, the workers, `apus config` and
/// apus.toml(5) read it.
package enum SettingTable {
    /// In the order of apus.toml(5).
    package static let all: [Setting] =
        platform + network + identity + topics + store + retention + replication + messages + filter + nameserver
        + gateway

    private static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

    /// What the supervisor sends a broker about its disk and the platform; operators do not set them.
    package static let told: Set<String> = [
        "diskIdentity", "diskPath", "diskServed", "diskSlot", "filterBuiltIns", "filterShares", "ownNamesrvAddr",
    ]

    /// Values that give access: pages, logs and listings do not have them.
    private static let secrets: Set<String> = ["accessTokens"]

    /// A value as an operator's screen shows it: a secret is not shown.
    package static func shown(_ name: String, _ value: String) -> String {
        secrets.contains(name) && !value.isEmpty ? "(set, not shown)" : value
    }

    /// nil: Apus has no such setting.
    package static func setting(_ name: String) -> Setting? { byName[name] }

    /// The value as workers take it; a key Apus does not have keeps its text.
    /// - Throws: why the value is not usable.
    package static func canonical(_ name: String, _ value: String) throws(SettingRefusal) -> String {
        guard let setting = byName[name] else { return value }
        return try setting.canonical(value)
    }

    /// Why these cannot be used, sorted by key; empty when all can.
    package static func refusals(_ values: [String: String]) -> [SettingRefusal] {
        values.sorted { $0.key < $1.key }.compactMap { name, value in
            do throws(SettingRefusal) {
                _ = try canonical(name, value)
                return nil
            } catch {
                return error
            }
        }
    }

    /// The setting that was meant by one no worker reads (with its table: `nameserver.KEY`). nil: none is near.
    package static func meant(by unknown: String) -> String? {
        let parts = unknown.split(separator: ".", maxSplits: 1).map(String.init)
        guard let key = parts.last, let name = Spelling.nearest(to: key, among: byName.keys) else { return nil }
        return parts.count == 2 ? "\(parts[0]).\(name)" : name
    }

    // MARK: - Changes while running

    /// Settings of a worker that hold with its next start only.
    package static func readAtStart(by reader: Setting.Readers) -> Set<String> {
        Set(all.filter { $0.readers.contains(reader) && $0.change == .start }.map(\.name))
    }

    /// Bytes of a key and of a value in a request. No setting has a longer name, and each value is kept, listed and
    /// written.
    package static let keyBytesMax = 255
    /// As above.
    package static let valueBytesMax = 4096

    /// Why an operator cannot change a setting while its worker runs; nil when it can be.
    /// - Parameters:
    ///   - reader: whose request it is: `.broker` for 25, `.nameserver` for 318.
    ///   - restart: how the worker is restarted, for the text.
    package static func refusal(
        ofChange name: String, to value: String, by reader: Setting.Readers, restart: String
    ) -> String? {
        let shown = SettingRefusal.shown(name)
        let kind = reader == .nameserver ? "name server" : "broker"
        guard name.utf8.count <= keyBytesMax else {
            return "there is no setting \(shown): its name has \(name.utf8.count) bytes"
        }
        guard value.utf8.count <= valueBytesMax else {
            return
                "the value for \(shown) has \(value.utf8.count) bytes, a request may set \(valueBytesMax): a longer "
                + "one belongs into the configuration file"
        }
        guard let setting = byName[name] else {
            if told.contains(name) { return "\(shown) is what the supervisor tells a broker" }
            if let foreign = RocketMQSettings.verdict(name, value) {
                return "\(shown) has no effect in Apus: \(foreign.reason)"
            }
            let meant = Spelling.nearest(to: name, among: all.filter { $0.readers.contains(reader) }.map(\.name))
            return "there is no setting \(shown)" + (meant.map { "; is \($0) meant?" } ?? "")
        }
        guard setting.readers.contains(reader) else {
            return "\(shown) is no setting of a \(kind): set it in the configuration file"
        }
        if case .none(let reason) = setting.effect { return "\(shown) has no effect in Apus: \(reason)" }
        if let refusal = refusals([name: value]).first { return refusal.description }
        guard setting.change == .running else {
            return
                "\(shown) is read when the \(kind) starts: set it in the configuration file, then restart the worker "
                + "(\(restart))"
        }
        return nil
    }
}
