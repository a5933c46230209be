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
    /// Keys nobody here reads; they are passed on all the same.
    package var unknownKeys: [String]

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

    /// There are so many plugin files: each gets a worker of its own, while there are enough. Workers that are there stay.
    package mutating func setPlugins(_ count: Int) {
        pluginWorkers = max(pluginWorkers, min(count, pluginWorkersMax))
        filter["filterBuiltIns"] = String(filterCount)
        filter["filterPlugins"] = String(pluginWorkers)
    }

    /// RocketMQ's default ports.
    package static let nameserverPort = 9876
    package static let brokerPort = 10911
    /// Between brokers of one platform: leaves room for the VIP port below and the HA port above each.
    package static let brokerPortStep = 10

    /// Throws, in words for the operator, for what contradicts itself or has no meaning.
    package init(_ raw: RawConfiguration, _ surroundings: Surroundings) throws(ConfigurationError) {
        dataDirectory = surroundings.dataDirectory
        logLevel = raw.common["logLevel"]
        limits = try WorkerLimits(raw.limits)
        unknownKeys = KnownKeys.unknown(in: raw)
        if let key = unknownKeys.first(where: KnownKeys.told.contains) {
            throw ConfigurationError(
                "\(key) is what the supervisor tells a broker: take it out (disks = [\"/data0\", …] names disks)")
        }
        filter = Settings()
        filterCount = 0
        let wantsNameserver = surroundings.withNameserver && !raw.withoutNameserver
        let wantsBroker = surroundings.withBroker && !raw.withoutBroker
        let bindAddress = PlatformConfiguration.bindAddress(raw)

        if wantsNameserver {
            var settings = raw.nameserver
            settings.setDefault("listenPort", String(PlatformConfiguration.nameserverPort))
            settings.setDefault("bindAddress", bindAddress)
            settings.setDefault("kvConfigPath", "\(dataDirectory)/config/kvConfig.json")
            settings["logLevel"] = logLevel
            nameserver = Settings(settings)
            if let refusal = SettingForms.refusal(of: Settings(settings)) {
                throw ConfigurationError("[nameserver] \(refusal)")
            }
        } else {
            guard wantsBroker else { throw ConfigurationError("neither a name server nor a broker: nothing to run") }
            nameserver = nil
        }

        brokers = []
        let places = try PlatformConfiguration.places(raw, surroundings, wantsBroker: wantsBroker)
        for place in places {
            let merged = raw.common.merging(place.table, uniquingKeysWith: { $1 })
            brokers.append(
                try PlatformConfiguration.broker(
                    merged, index: place.index, ofMany: raw.disks != nil || places.count > 1, own: place.table,
                    bindAddress: bindAddress, surroundings))
            brokerIndexes.append(place.index)
        }
        if !wantsNameserver {
            guard brokers.allSatisfy({ $0["namesrvAddr"]?.isEmpty == false }) else {
                throw ConfigurationError(
                    "without a name server of its own every broker needs one to register with: set namesrvAddr "
                        + "(--namesrv-addr HOST:PORT)")
            }
        }
        try refuseContradictions(raw)
        let names = Set(brokers.map { "\($0["brokerName"] ?? "")/\($0["brokerId"] ?? "")" })
        guard names.count == brokers.count else {
            throw ConfigurationError("two [[broker]] tables have the same brokerName and brokerId")
        }
        let roots = Set(brokers.map { $0["storePathRootDir"] ?? "" })
        guard roots.count == brokers.count else {
            throw ConfigurationError("two [[broker]] tables have the same storePathRootDir: a store has one writer")
        }

        // Filter workers work for brokers.
        filterCount = wantsBroker ? Settings(raw.filter).int("count", default: 1) : 0
        guard (0...64).contains(filterCount) else { throw ConfigurationError("[filter] count must be 0 to 64") }
        var filter = (brokers.first?.values ?? [:]).merging(raw.filter, uniquingKeysWith: { $1 })
        filter["count"] = nil
        let most = Settings(raw.filter).int("pluginWorkers", default: PlatformConfiguration.pluginWorkersDefault)
        guard (1...32).contains(most) else { throw ConfigurationError("[filter] pluginWorkers must be 1 to 32") }
        pluginWorkersMax = filterCount == 0 ? 0 : most
        self.filter = Settings(filter)
        if let refusal = SettingForms.refusal(of: self.filter) { throw ConfigurationError("[filter] \(refusal)") }
        describeStoresToFilters()
    }

    private static func broker(
        _ given: [String: String], index: Int, ofMany: Bool, own: [String: String], bindAddress: String,
        _ surroundings: Surroundings
    ) throws(ConfigurationError) -> Settings {
        var values = given
        if ofMany && own["brokerName"] == nil {
            values["brokerName"] = brokerName(given["brokerName"], index: index)
        }
        values.setDefault("brokerName", brokerName(nil, index: index))
        values.setDefault("brokerClusterName", "DefaultCluster")
        values.setDefault("brokerRole", "ASYNC_MASTER")
        values["brokerRole"] = values["brokerRole"]?.uppercased().replacingDash()
        guard let role = BrokerRole(name: values["brokerRole"] ?? "") else {
            throw ConfigurationError(
                "brokerRole must be ASYNC_MASTER, SYNC_MASTER or SLAVE, not \(given["brokerRole"] ?? "")")
        }
        values.setDefault("brokerId", "0")
        guard let id = Int(values["brokerId"] ?? ""), id >= 0 else {
            throw ConfigurationError("brokerId must be a number")
        }
        if role == .slave && id == 0 {
            throw ConfigurationError("a slave needs a brokerId above 0 (0 is the master's): --broker-id 1")
        }
        if role != .slave && id != 0 {
            throw ConfigurationError("brokerId \(id) belongs to a slave; brokerRole is \(role.name)")
        }

        values.setDefault("bindAddress", bindAddress)
        for key in ["listenPort", "fastListenPort", "haListenPort"] where ofMany && own[key] == nil {
            guard let base = given[key].flatMap({ Int($0) }) ?? (key == "listenPort" ? brokerPort : nil) else {
                continue
            }
            values[key] = String(base == 0 ? 0 : base + index * brokerPortStep)
        }
        values.setDefault("listenPort", String(brokerPort))
        guard let port = Int(values["listenPort"] ?? ""), (0...65535).contains(port) else {
            throw ConfigurationError("listenPort must be 0 to 65535, not \(values["listenPort"] ?? "")")
        }
        // Ports for one broker are not ports for all of them: neighbours of their own.
        for key in ["fastListenPort", "haListenPort"] where ofMany && own[key] == nil { values[key] = nil }
        // Port 0: the neighbours follow when the port is known (`Listeners`).
        if port > 2 { values.setDefault("fastListenPort", String(port - 2)) }
        if port > 0 { values.setDefault("haListenPort", String(port + 1)) }
        let bind = values["bindAddress"] ?? bindAddress
        values.setDefault(
            "brokerIP1", bind == "0.0.0.0" || bind == "::" ? surroundings.machineAddress ?? "127.0.0.1" : bind)
        values.setDefault("brokerIP2", values["brokerIP1"] ?? bind)

        values.setDefault("storePathRootDir", index == 0 ? "store" : "store-\(index)")
        let root = absolute(values["storePathRootDir"] ?? "", in: surroundings.dataDirectory)
        values["storePathRootDir"] = root
        values.setDefault("diskPath", root)
        if let entry = surroundings.guarded[root] { values.merge(entry.settings, uniquingKeysWith: { $1 }) }
        values["storePathCommitLog"] = absolute(values["storePathCommitLog"] ?? "commitlog", in: root)
        values.setDefault("pluginDirectory", surroundings.plugins)

        // As they were written: paths are from / on by now.
        if let refusal = SettingForms.refusal(of: Settings(given)) { throw ConfigurationError(refusal) }
        return Settings(values)
    }

    /// RocketMQ listens everywhere, and so does a `broker.conf` taken over, or one that announces an address of the
    /// network; an Apus configuration listens on the loopback address unless it says otherwise.
    private static func bindAddress(_ raw: RawConfiguration) -> String {
        if let given = raw.common["bindAddress"] { return given }
        if raw.isProperties { return "0.0.0.0" }
        if let announced = raw.common["brokerIP1"], !announced.hasPrefix("127."), announced != "::1" {
            return "0.0.0.0"
        }
        return "127.0.0.1"
    }

    private static func absolute(_ path: String, in folder: String) -> String {
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

    /// Where clients find our name server: an address they can connect to, also when it listens everywhere.
    package var nameserverAddress: String? {
        guard let nameserver else { return nil }
        let bind = nameserver.string("bindAddress", default: "127.0.0.1")
        let host = bind == "0.0.0.0" || bind == "::" ? "127.0.0.1" : bind
        return "\(host):\(nameserver.string("listenPort", default: ""))"
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

extension [String: String] {
    mutating func setDefault(_ key: String, _ value: String) { if self[key] == nil { self[key] = value } }
}

extension String {
    /// `async-master` on a command line is `ASYNC_MASTER` in a file.
    func replacingDash() -> String { String(map { $0 == "-" ? "_" : $0 }) }
}
