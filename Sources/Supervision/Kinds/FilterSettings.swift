package import WorkerProtocol

/// Filter workers share one set of settings. They work for brokers: without brokers there are none. After those for the
/// plugins that come with Apus follow those for operators' plugins, while there are such plugins.
enum FilterSettings: SettingsRules {
    static func configure(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ sources: ConfigurationSources,
        problems: inout [ConfigurationProblem]
    ) {
        let own = PlatformConfiguration.canonical(sources.raw.filter)
        let hasBrokers = !sources.raw.withoutBroker && sources.surroundings.withBroker
        var values = (configuration.brokers.first?.values ?? [:]).merging(own, uniquingKeysWith: { $1 })
        values["count"] = nil
        configuration.filterWorkers.builtIn = hasBrokers ? Settings(own).int("count", default: 1) : 0
        let most = Settings(own).int("pluginWorkers", default: FilterWorkers.pluginsDefault)
        configuration.filterWorkers.pluginsMax = configuration.filterWorkers.builtIn == 0 ? 0 : most
        configuration.settings[row.kind] = [WorkerSettings(indexes: [], settings: Settings(values))]
        configuration.numberFilterWorkers()
        configuration.describeStoresToFilters()
    }

    static func keepRunning(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ running: PlatformConfiguration,
        _ changes: inout PlatformConfiguration.Changes
    ) {
        if configuration.filterWorkers.builtIn != running.filterWorkers.builtIn {
            changes.kept.append("the number of \(row.title)s")
        }
        configuration.filterWorkers = running.filterWorkers
        configuration.numberFilterWorkers()
        configuration.describePluginsToFilters()
        configuration.describeStoresToFilters()
    }
}

/// How many filter workers there are, and which of them has which plugin file.
package struct FilterWorkers: Hashable, Sendable {
    static let pluginsDefault = 4

    /// For the plugins that come with Apus: `count` of `[filter]`, 0 to 64.
    var builtIn = 0
    /// For operators' plugins, besides the one for plugins with a record: 0 while there are no plugins.
    var plugins = 0
    /// The most there may be of those: `pluginWorkers` of `[filter]`.
    var pluginsMax = 0
    var shares = PluginShares()
}

extension PlatformConfiguration {
    /// What all filter workers read.
    package var filter: Settings { settings[.filter]?.first?.settings ?? Settings() }

    private mutating func updateFilter(_ body: (inout Settings) -> Void) {
        guard settings[.filter]?.isEmpty == false else { return }
        body(&settings[.filter, default: []][0].settings)
    }

    /// These plugin files exist now: each gets a worker of its own, while there are enough. Workers stay, and so does
    /// what they have.
    /// - Returns: the files that no worker takes, for there are too many.
    @discardableResult
    package mutating func setPlugins(_ names: Set<String>) -> [String] {
        filterWorkers.plugins = max(filterWorkers.plugins, min(names.count, filterWorkers.pluginsMax))
        let omitted = filterWorkers.shares.share(names, among: filterWorkers.plugins)
        numberFilterWorkers()
        describePluginsToFilters()
        return omitted
    }

    /// The number after the built-in plugins' is for those with a record, so that numbers stay when more plugins come.
    fileprivate mutating func numberFilterWorkers() {
        guard settings[.filter]?.isEmpty == false else { return }
        let (builtIn, plugins) = (filterWorkers.builtIn, filterWorkers.plugins)
        settings[.filter, default: []][0].indexes =
            Array(0..<builtIn) + (plugins > 0 ? Array(builtIn...builtIn + plugins) : [])
    }

    fileprivate mutating func describePluginsToFilters() {
        let workers = filterWorkers
        updateFilter {
            $0["filterBuiltIns"] = String(workers.builtIn)
            $0[PluginShares.setting] = workers.shares.text
        }
    }

    /// Filter workers read every broker's log: `KEY#NUMBER` contains where it is.
    fileprivate mutating func describeStoresToFilters() {
        let brokers = zip(brokerIndexes, brokers)
        updateFilter {
            for (index, broker) in brokers {
                for key in ["storePathRootDir", "storePathCommitLog"] { $0["\(key)#\(index)"] = broker[key] }
            }
        }
    }

    /// Operators' plugins, by their names in the folders.
    /// - Parameter executables: the folder of the worker executables.
    package func pluginFolder(executables: String) -> PluginFolder { PluginFolder(filter, executables: executables) }
}

extension RawConfiguration {
    /// The keys of `[filter]`.
    package var filter: [String: String] {
        get { tables["filter"] ?? [:] }
        set { tables["filter"] = newValue }
    }
}
