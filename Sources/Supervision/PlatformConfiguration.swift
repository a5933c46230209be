import SettingTable
package import WorkerProtocol

/// A complete description of one platform: what every worker is told. Made from an operator's settings by filling in
/// RocketMQ's defaults; ports may still be 0 (any free one) until the listeners are bound.
package struct PlatformConfiguration: Hashable, Sendable {
    package var dataDirectory: String
    /// nil: the platform has no name server of its own and registers with `namesrvAddr`.
    package var nameserver: Settings?
    package var brokers: [Settings]
    /// The number of each broker's workers: with `disks` it belongs to the disk, else it is the place among the tables.
    /// Ascending, not always without gaps.
    package var brokerIndexes: [Int] = []
    package var filter: Settings
    /// Filter workers: `count` of `[filter]`, 0 to 64; none on a platform without brokers.
    package var filterCount: Int
    /// Filter workers for operators' plugins, besides the one for plugins with a record: 0 while there are no plugins.
    package var pluginWorkers = 0
    package var logLevel: String?
    /// What workers may use.
    package var limits: WorkerLimits
    /// Settings without effect, and what to do about them. They are passed on to the workers all the same.
    package private(set) var notes: [ConfigurationNote] = []
    /// How other machines reach this one, if they do.
    private let machineAddress: String?

    /// Keys neither this platform nor its workers read, with their tables.
    package var unknownKeys: [String] { notes.filter { SettingTable.setting($0.key) == nil }.map(\.name) }

    /// What the machine and the command line add to the file.
    package struct Surroundings: Sendable {
        package var dataDirectory: String
        /// Where the executables lie: default for plug-ins.
        package var executables: String
        /// Where filter plugins lie when the settings do not say.
        package var plugins: String
        /// The address other machines reach this one by, if there is one.
        package var machineAddress: String?
        package var withNameserver = true
        package var withBroker = true
        /// The brokers of the setting `disks`, in its order.
        package var disks: [DiskRegister.Entry] = []
        /// By storePathRootDir: stores of `[[broker]]` tables that lie on disks of their own.
        package var guarded: [String: DiskRegister.Entry] = [:]

        package init(dataDirectory: String, executables: String, plugins: String? = nil, machineAddress: String? = nil)
        {
            self.dataDirectory = dataDirectory
            self.executables = executables
            self.plugins =
                plugins ?? PluginPlaces.standard(executables: executables, dataDirectory: dataDirectory)
            self.machineAddress = machineAddress
        }
    }

    static let pluginWorkersDefault = 4
    /// The most there may be: `pluginWorkers` of `[filter]`.
    package var pluginWorkersMax = 0

    /// Which of them has which plugin file.
    var pluginShares = PluginShares()

    /// There are these plugin files: each gets a worker of its own, while there are enough. Workers that are there stay, and so does what they
    /// have.
    /// - Returns: the files that no worker takes, for there are too many.
    @discardableResult
    package mutating func setPlugins(_ names: Set<String>) -> [String] {
        pluginWorkers = max(pluginWorkers, min(names.count, pluginWorkersMax))
        let omitted = pluginShares.share(names, among: pluginWorkers)
        describePluginsToFilters()
        return omitted
    }

    mutating func describePluginsToFilters() {
        filter["filterBuiltIns"] = String(filterCount)
        filter[PluginShares.setting] = pluginShares.text
    }

    /// RocketMQ's default ports.
    package static let nameserverPort = 9876
    package static let brokerPort = 10911
    /// Between brokers of one platform: leaves room for the VIP port below and the HA port above each.
    package static let brokerPortStep = 10

    /// - Throws: everything that contradicts itself or has no meaning, in words for the operator.
    package init(_ raw: RawConfiguration, _ surroundings: Surroundings) throws(ConfigurationError) {
        let (draft, problems) = Self.draft(raw, surroundings)
        guard problems.isEmpty else { throw ConfigurationError(problems) }
        self = draft
    }

    /// What a configuration comes to with everything left out that cannot be, and all of that: nothing can be started with it while there are
    /// problems, but ports and folders can be looked at.
    package static func draft(
        _ raw: RawConfiguration, _ surroundings: Surroundings
    ) -> (PlatformConfiguration, [ConfigurationProblem]) {
        var problems: [ConfigurationProblem] = []
        let draft = PlatformConfiguration(raw, surroundings, problems: &problems)
        return (draft, problems)
    }

    private init(_ given: RawConfiguration, _ surroundings: Surroundings, problems: inout [ConfigurationProblem]) {
        var raw = given
        raw.spellRoles()
        let review = SettingReview(raw)
        problems += review.problems
        notes = review.notes.enumerated()
            .sorted { ($0.element.line ?? .max, $0.offset) < ($1.element.line ?? .max, $1.offset) }.map(\.element)
        dataDirectory = surroundings.dataDirectory
        machineAddress = surroundings.machineAddress
        logLevel = raw.common["logLevel"].flatMap { PlatformConfiguration.canonical(["logLevel": $0])["logLevel"] }
        do throws(ConfigurationError) {
            limits = try WorkerLimits(raw.limits)
        } catch {
            problems += error.problems
            limits = WorkerLimits()
        }
        filter = Settings()
        filterCount = 0
        let wantsNameserver = surroundings.withNameserver && !raw.withoutNameserver
        let wantsBroker = surroundings.withBroker && !raw.withoutBroker
        let bindAddress = PlatformConfiguration.bindAddress(raw)

        if wantsNameserver {
            var settings = PlatformConfiguration.canonical(raw.nameserver)
            settings.setDefault("listenPort", String(PlatformConfiguration.nameserverPort))
            settings.setDefault("bindAddress", bindAddress)
            settings.setDefault("kvConfigPath", "\(dataDirectory)/config/kvConfig.json")
            settings["logLevel"] = logLevel
            nameserver = Settings(settings)
        } else {
            if !wantsBroker {
                problems.append(ConfigurationProblem("neither a name server nor a broker: nothing to run"))
            }
            nameserver = nil
        }

        brokers = []
        var places: [Place] = []
        do throws(ConfigurationError) {
            places = try PlatformConfiguration.places(raw, surroundings, wantsBroker: wantsBroker)
        } catch {
            problems += error.problems
        }
        for (number, place) in places.enumerated() {
            let merged = raw.common.merging(place.table, uniquingKeysWith: { $1 })
            let builder = BrokerBuilder(
                raw: raw, number: number, index: place.index, isOfMany: raw.disks != nil || places.count > 1,
                own: PlatformConfiguration.canonical(place.table), bindAddress: bindAddress)
            brokers.append(
                builder.settings(PlatformConfiguration.canonical(merged), surroundings, problems: &problems))
            brokerIndexes.append(place.index)
        }
        if wantsBroker, !wantsNameserver, !brokers.allSatisfy({ $0["namesrvAddr"]?.isEmpty == false }) {
            problems.append(
                ConfigurationProblem(
                    "without a name server of its own every broker needs one to register with: set namesrvAddr "
                        + "(--namesrv-addr HOST:PORT)"))
        }
        problems += contradictions(raw)

        // Filter workers work for brokers.
        let ofFilters = PlatformConfiguration.canonical(raw.filter)
        filterCount = wantsBroker ? Settings(ofFilters).int("count", default: 1) : 0
        var filter = (brokers.first?.values ?? [:]).merging(ofFilters, uniquingKeysWith: { $1 })
        filter["count"] = nil
        let most = Settings(ofFilters).int("pluginWorkers", default: PlatformConfiguration.pluginWorkersDefault)
        pluginWorkersMax = filterCount == 0 ? 0 : most
        self.filter = Settings(filter)
        describeStoresToFilters()
    }

    /// As workers take them. What is not usable is a problem already and left out, like a text without letters, which means not set.
    static func canonical(_ values: [String: String]) -> [String: String] {
        var canonical: [String: String] = [:]
        for (key, value) in values {
            guard let text = try? SettingTable.canonical(key, value) else { continue }
            if text.isEmpty, SettingTable.setting(key) != nil { continue }
            canonical[key] = text
        }
        return canonical
    }

    /// RocketMQ listens everywhere, and so does a `broker.conf` taken over, or one that announces an address of the
    /// network; an Apus configuration listens on the loopback address unless it says otherwise.
    private static func bindAddress(_ raw: RawConfiguration) -> String {
        if let given = canonical(raw.common)["bindAddress"] { return given }
        if raw.isProperties { return "0.0.0.0" }
        if let announced = raw.common["brokerIP1"], !announced.isEmpty, !AddressText.isLoopback(announced) {
            return "0.0.0.0"
        }
        return "127.0.0.1"
    }

    static func absolute(_ path: String, in folder: String) -> String {
        path.hasPrefix("/") ? path : "\(folder)/\(path)"
    }

    /// Every setting of every worker as `key=value` lines, below the worker's name as a comment.
    package var listing: String {
        workers.filter { $0.kind != .replication }.map { worker in
            let lines = settings(of: worker).values.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            return (["# \(worker)"] + lines).joined(separator: "\n")
        }.joined(separator: "\n\n")
    }

    // MARK: per worker

    /// What `setup` and `reload` tell it.
    package func settings(of worker: WorkerID) -> Settings {
        var settings =
            switch worker.kind {
            case .nameserver: nameserver ?? Settings()
            case .brokerStore, .replication: position(of: worker.index).map { brokers[$0] } ?? Settings()
            case .filter: filter
            }
        // The filter worker puts itself under its limit, and can say which plugin hit it.
        if worker.kind == .filter, let memory = limits[.filter].memory {
            let megabytes = Int(memory >> 20)
            settings["filterMemoryMegabytes"] = String(
                min(megabytes, settings.int("filterMemoryMegabytes", default: megabytes)))
        }
        // Whom a broker believes to serve the plugins that come with Apus.
        if worker.isBroker { settings["filterBuiltIns"] = String(filterCount) }
        if let logLevel { settings["logLevel"] = logLevel }
        return settings
    }

    /// For one worker; used for ports once they are bound.
    package mutating func set(_ key: String, _ value: String, for worker: WorkerID) {
        switch worker.kind {
        case .nameserver: nameserver?[key] = value
        case .brokerStore, .replication: if let position = position(of: worker.index) { brokers[position][key] = value }
        case .filter: filter[key] = value
        }
    }

    private func position(of index: Int) -> Int? { brokerIndexes.firstIndex(of: index) }

    /// The numbers its workers have, ascending.
    package func indexes(_ count: WorkerRow.Count) -> [Int] {
        switch count {
        case .nameservers: nameserver == nil ? [] : [0]
        case .brokers: brokerIndexes
        // The number after the built-in plugins' is for those with a record, so that numbers stay when more plugins come.
        case .filters:
            Array(0..<filterCount) + (pluginWorkers > 0 ? Array(filterCount...filterCount + pluginWorkers) : [])
        }
    }

    /// All of the platform, in the order they are shown.
    package var workers: [WorkerID] { WorkerTable.workers(indexes: indexes) }

    /// Where this machine finds our name server, also when it listens everywhere.
    package var nameserverAddress: String? { nameserverAddress(everywhere: "127.0.0.1") }

    /// Where others find it: what is shown to people. One that listens everywhere is at this machine's address in the network.
    package var announcedNameserver: String? { nameserverAddress(everywhere: machineAddress ?? "127.0.0.1") }

    private func nameserverAddress(everywhere: String) -> String? {
        guard let nameserver else { return nil }
        let bind = nameserver.string("bindAddress", default: "127.0.0.1")
        let host = AddressText.isEverywhere(bind) ? everywhere : bind
        let shown = host.contains(":") ? "[\(host)]" : host
        return "\(shown):\(nameserver.string("listenPort", default: ""))"
    }

    /// Where others find each broker: what its clients are told.
    package var announcedBrokers: [String] {
        brokers.map { broker in
            let bind = broker.string("bindAddress", default: "127.0.0.1")
            let host = AddressText.isEverywhere(bind) ? broker.string("brokerIP1", default: bind) : bind
            return "\(host):\(broker.string("listenPort", default: ""))"
        }
    }

    /// Once the ports are known: brokers register with our own name server and with those configured.
    package mutating func introduceNameserver() {
        guard let own = nameserverAddress else { return }
        for index in brokers.indices {
            var addresses = (brokers[index]["namesrvAddr"] ?? "").split(separator: ";").map(String.init)
            addresses.removeAll { $0 == own }
            brokers[index]["namesrvAddr"] = ([own] + addresses).joined(separator: ";")
            brokers[index]["ownNamesrvAddr"] = own
        }
    }
}

extension RawConfiguration {
    /// `async-master` on a command line is `ASYNC_MASTER` in a file.
    mutating func spellRoles() {
        func spelled(_ values: inout [String: String]) {
            if let role = values["brokerRole"] {
                values["brokerRole"] = String(role.uppercased().map { $0 == "-" ? "_" : $0 })
            }
        }
        spelled(&common)
        for index in brokers.indices { spelled(&brokers[index]) }
    }
}

extension [String: String] {
    mutating func setDefault(_ key: String, _ value: String) { if self[key] == nil { self[key] = value } }
}
