import SettingTable
package import WorkerProtocol

/// What a kind of worker does with its settings beyond its row: RocketMQ's rules for brokers, shares of plugins, and so
/// on. Every rule has a default, which `PlainSettings` shows.
package protocol SettingsRules: SendableMetatype {
    /// Fills `configuration.settings[row.kind]` in from what the operator wrote.
    static func configure(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ sources: ConfigurationSources,
        problems: inout [ConfigurationProblem])
    /// Settings that exclude each other.
    static func contradictions(
        _ configuration: PlatformConfiguration, _ raw: RawConfiguration
    ) -> [ConfigurationProblem]
    /// Turns freshly read settings into what can hold for the platform that runs.
    static func keepRunning(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ running: PlatformConfiguration,
        _ changes: inout PlatformConfiguration.Changes)
    /// Adds to what `setup` and `reload` pass to one worker.
    static func refine(_ settings: inout Settings, of worker: WorkerID, _ configuration: PlatformConfiguration)
    /// Folders its workers write to.
    /// - Parameter disksToo: also those on disks that may be away.
    static func folders(_ configuration: PlatformConfiguration, disksToo: Bool) -> [FolderUse]
}

/// A folder a worker writes to.
package struct FolderUse: Sendable {
    /// Absolute.
    package var path: String
    /// The setting that names it, and the table the setting stands in.
    package var key: String
    /// The configuration file's table with `key`.
    package var table: RawConfiguration.Table
    /// Nothing makes it: it must be there.
    package var mustExist = false
}

/// What an operator and the machine provide, for `SettingsRules.configure`.
package struct ConfigurationSources: Sendable {
    /// File and command line.
    package let raw: RawConfiguration
    /// The machine, and options that are no settings.
    package let surroundings: PlatformConfiguration.Surroundings
    /// Where everything listens that has no address of its own.
    package let bindAddress: String

    /// Whether the platform has workers of this kind.
    package func wants(_ row: WorkerRow) -> Bool {
        guard let table = row.table else { return true }
        return !raw.absent.contains(table) && !surroundings.absent.contains(table)
    }
}

/// A kind whose settings are the keys of its table.
package enum PlainSettings: SettingsRules {}

extension SettingsRules {
    /// Takes the keys of the row's table, with the row's defaults under them. `count` says how many workers there are.
    package static func configure(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ sources: ConfigurationSources,
        problems: inout [ConfigurationProblem]
    ) {
        guard let table = row.table, sources.wants(row) else { return }
        var values = PlatformConfiguration.canonical(sources.raw.tables[table] ?? [:])
        for (key, value) in row.defaults(sources.surroundings) { values.setDefault(key, value) }
        values.setDefault("bindAddress", sources.bindAddress)
        values["logLevel"] = configuration.logLevel
        let count =
            switch row.count {
            case .one, .perBroker: 1
            case .configured(let standard): max(0, Settings(values).int("count", default: standard))
            }
        configuration.settings[row.kind] = [
            WorkerSettings(indexes: Array(0..<count), settings: Settings(values))
        ]
    }

    /// None: the bounds of each setting are enough.
    package static func contradictions(
        _ configuration: PlatformConfiguration, _ raw: RawConfiguration
    ) -> [ConfigurationProblem] { [] }

    /// Keeps the number of workers and the keys that are fixed once a worker runs.
    package static func keepRunning(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ running: PlatformConfiguration,
        _ changes: inout PlatformConfiguration.Changes
    ) {
        guard let table = row.table else { return }
        let former = running.settings[row.kind] ?? []
        if (configuration.settings[row.kind] ?? []).map(\.indexes) != former.map(\.indexes) {
            changes.kept.append(
                row.count == .one ? "whether there is a \(row.title)" : "the number of \(row.title)s")
            configuration.settings[row.kind] = former
        }
        for position in former.indices {
            configuration.settings[row.kind]?[position].settings.keepFixed(
                former[position].settings, name: "\(table).", &changes)
        }
    }

    /// Adds nothing.
    package static func refine(
        _ settings: inout Settings, of worker: WorkerID, _ configuration: PlatformConfiguration
    ) {}

    /// None.
    package static func folders(_ configuration: PlatformConfiguration, disksToo: Bool) -> [FolderUse] { [] }
}

extension Settings {
    /// Settings that are fixed once a worker runs keep their former values; those that were to change are noted.
    mutating func keepFixed(_ former: Settings, name: String, _ changes: inout PlatformConfiguration.Changes) {
        for key in PlatformConfiguration.fixedKeys where self[key] != former[key] {
            // Port 0 asked for any port and got one.
            if self[key] != "0" && self[key] != nil { changes.kept.append("\(name)\(key)") }
            self[key] = former[key]
        }
    }
}
