import SettingTable
package import WorkerProtocol

/// Brokers: RocketMQ's rules for roles and ports, one broker for each disk, and brokers that join and leave.
/// Replication workers read the same settings.
enum BrokerSettings: SettingsRules {
    static func configure(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ sources: ConfigurationSources,
        problems: inout [ConfigurationProblem]
    ) {
        let (raw, surroundings) = (sources.raw, sources.surroundings)
        let wantsBroker = sources.wants(row)
        var tables: [PlatformConfiguration.BrokerTable] = []
        do throws(ConfigurationError) {
            tables = try PlatformConfiguration.brokerTables(raw, surroundings, wantsBroker: wantsBroker)
        } catch {
            problems += error.problems
        }
        configuration.settings[row.kind] = tables.enumerated().map { number, broker in
            let merged = raw.common.merging(broker.table, uniquingKeysWith: { $1 })
            let builder = BrokerBuilder(
                raw: raw, number: number, index: broker.index, isOfMany: raw.disks != nil || tables.count > 1,
                own: PlatformConfiguration.canonical(broker.table), bindAddress: sources.bindAddress)
            return WorkerSettings(
                indexes: [broker.index],
                settings: builder.settings(PlatformConfiguration.canonical(merged), surroundings, problems: &problems))
        }
        let isRegistered = configuration.brokers.allSatisfy { $0["namesrvAddr"]?.isEmpty == false }
        if wantsBroker, configuration.nameserver == nil, !isRegistered {
            problems.append(
                ConfigurationProblem(
                    "without a name server of its own every broker needs one to register with: set namesrvAddr "
                        + "(--namesrv-addr HOST:PORT)"))
        }
    }

    /// Of roles, and of brokers that are the same twice.
    static func contradictions(
        _ configuration: PlatformConfiguration, _ raw: RawConfiguration
    ) -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        func problem(_ text: String, _ key: String? = nil) {
            problems.append(ConfigurationProblem(text, line: key.flatMap { raw.line(of: $0, in: .common) }))
        }
        if configuration.brokers.isEmpty {
            let asked =
                raw.brokers.isEmpty
                ? ["brokerRole", "brokerId", "haMasterAddress"].first { raw.common[$0] != nil } : "[[broker]]"
            if let asked {
                problem("\(asked) is a broker's, and this platform is without (broker = false, --no-broker)", asked)
            }
        }
        let slaves = configuration.brokers.filter { $0["brokerRole"] == BrokerRole.slave.name }
        if configuration.nameserver == nil,
            slaves.contains(where: { ($0["namesrvAddr"] ?? "").isEmpty && $0["haMasterAddress"] == nil })
        {
            problem("a slave finds its master by haMasterAddress or a name server: set one of them", "brokerRole")
        }
        let followed = slaves.compactMap { $0["haMasterAddress"] }
        if Set(followed).count != followed.count {
            problem(
                """
                two slaves of this platform follow the same haMasterAddress: a master's log belongs into one store each
                """
            )
        }
        let names = Set(configuration.brokers.map { "\($0["brokerName"] ?? "")/\($0["brokerID"] ?? "")" })
        if names.count != configuration.brokers.count {
            problems.append(ConfigurationProblem("two [[broker]] tables have the same brokerName and brokerId"))
        }
        let roots = Set(configuration.brokers.map { $0["storePathRootDir"] ?? "" })
        if roots.count != configuration.brokers.count {
            problems.append(
                ConfigurationProblem("two [[broker]] tables have the same storePathRootDir: a store has one writer"))
        }
        return problems
    }

    static func keepRunning(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ running: PlatformConfiguration,
        _ changes: inout PlatformConfiguration.Changes
    ) {
        if configuration.brokers.isEmpty != running.brokers.isEmpty {
            changes.kept.append("whether there are brokers")
            configuration.settings[row.kind] = running.settings[row.kind]
        }
        let (brokers, former) = (configuration.brokers, running.brokers)
        let byStore = Dictionary(
            zip(running.brokerIndexes, former).map { ($1["storePathRootDir"] ?? "", (index: $0, settings: $1)) },
            uniquingKeysWith: { $1 })
        // A single broker stays the broker it is, whatever its folder is called now; that changes only by a restart.
        let isSame = brokers.count == 1 && former.count == 1 && brokers[0]["diskSlot"] == nil
        var used = Set(running.brokerIndexes)
        var next: [WorkerSettings] = []
        for (index, broker) in zip(configuration.brokerIndexes, brokers) {
            let known = isSame ? (running.brokerIndexes[0], former[0]) : byStore[broker["storePathRootDir"] ?? ""]
            if let (number, settings) = known {
                var fresh = broker
                fresh.keepFixed(settings, name: former.count > 1 ? "\(settings["brokerName"] ?? "")." : "", &changes)
                next.append(WorkerSettings(indexes: [number], settings: fresh))
            } else {
                // With disks the number is the disk's own; else the lowest that is free.
                let own =
                    broker["diskSlot"] != nil && !used.contains(index) ? index : (0...).first { !used.contains($0) }
                let number = own ?? index
                used.insert(number)
                changes.added.append(number)
                next.append(WorkerSettings(indexes: [number], settings: broker))
            }
        }
        configuration.settings[row.kind] = next.sorted { $0.indexes[0] < $1.indexes[0] }
        changes.removed = running.brokerIndexes.filter { !configuration.brokerIndexes.contains($0) }
    }

    /// A broker trusts filter workers of these numbers to serve the plugins that come with Apus.
    static func refine(_ settings: inout Settings, of worker: WorkerID, _ configuration: PlatformConfiguration) {
        settings["filterBuiltIns"] = String(configuration.filterWorkers.builtIn)
    }

    static func folders(_ configuration: PlatformConfiguration, disksToo: Bool) -> [FolderUse] {
        configuration.brokers.enumerated().flatMap { number, broker -> [FolderUse] in
            let isGuarded = broker["diskIdentity"] != nil
            if isGuarded && !disksToo { return [] }
            let root = broker["storePathRootDir"] ?? ""
            var folders: [FolderUse] = []
            if isGuarded, let disk = broker["diskPath"], disk != root {
                folders.append(FolderUse(path: disk, key: "disks", table: .common, mustExist: true))
            } else {
                folders.append(FolderUse(path: root, key: "storePathRootDir", table: .broker(number)))
            }
            if let log = broker["storePathCommitLog"], !log.hasPrefix("\(root)/") {
                folders.append(FolderUse(path: log, key: "storePathCommitLog", table: .broker(number)))
            }
            return folders
        }
    }
}

extension PlatformConfiguration {
    /// RocketMQ's default port.
    package static let brokerPort = 10911
    /// Between brokers of one platform: leaves the VIP port below and the HA port above each free.
    package static let brokerPortStep = 10

    /// In the order of `brokerIndexes`.
    package var brokers: [Settings] { (settings[.brokerStore] ?? []).map(\.settings) }

    /// The number of each broker's workers: with `disks` it belongs to the disk, else it is the position among the
    /// tables. Ascending, not always without gaps.
    package var brokerIndexes: [Int] { (settings[.brokerStore] ?? []).flatMap(\.indexes) }

    mutating func updateBrokers(_ body: (inout Settings) -> Void) {
        guard let count = settings[.brokerStore]?.count else { return }
        for position in 0..<count { body(&settings[.brokerStore, default: []][position].settings) }
    }

    /// A broker that cannot be added after all.
    mutating func remove(broker index: Int) { settings[.brokerStore]?.removeAll { $0.indexes == [index] } }

    /// Where others find each broker: what name servers report to clients.
    package var announcedBrokers: [String] {
        brokers.map { broker in
            let bind = broker.string("bindAddress", default: "127.0.0.1")
            let host = AddressText.isEverywhere(bind) ? broker.string("brokerIP1", default: bind) : bind
            return "\(host):\(broker.string("listenPort", default: ""))"
        }
    }

    /// RocketMQ listens everywhere, and so does a `broker.conf` taken over, or one that announces an address of the
    /// network. An Apus configuration listens on the loopback address unless it names another one.
    static func bindAddress(_ raw: RawConfiguration) -> String {
        if let given = canonical(raw.common)["bindAddress"] { return given }
        if raw.isProperties { return "0.0.0.0" }
        if let announced = raw.common["brokerIP1"], !announced.isEmpty, !AddressText.isLoopback(announced) {
            return "0.0.0.0"
        }
        return "127.0.0.1"
    }

    // MARK: - Disks

    /// One broker: its number and the settings of its own.
    struct BrokerTable {
        var index: Int
        var table: [String: String]
    }

    static func brokerTables(
        _ raw: RawConfiguration, _ surroundings: Surroundings, wantsBroker: Bool
    ) throws(ConfigurationError) -> [BrokerTable] {
        guard let disks = raw.disks else {
            let tables = !wantsBroker ? [] : raw.brokers.isEmpty ? [[:]] : raw.brokers
            return tables.enumerated().map { BrokerTable(index: $0.offset, table: $0.element) }
        }
        guard wantsBroker else { throw ConfigurationError("disks are a broker's, and this platform has none") }
        guard raw.brokers.isEmpty else {
            throw ConfigurationError("disks and [[broker]] both say which brokers there are: keep one of them")
        }
        guard !disks.isEmpty else { throw ConfigurationError("disks is empty: name a folder for each disk") }
        for key in ["storePathRootDir", "storePathCommitLog", "haMasterAddress"] where raw.common[key] != nil {
            let reason =
                key == "haMasterAddress"
                ? "each broker follows the master of its own name, found by the name server"
                : "each disk has its own, DISK/store"
            throw ConfigurationError("\(key) cannot hold for all of disks (\(reason)): remove it")
        }
        let clean = try disks.map { disk throws(ConfigurationError) in try cleanDisk(disk) }
        guard Set(clean).count == clean.count else {
            throw ConfigurationError("disks names a folder twice: \(disks.joined(separator: ", "))")
        }
        let known = Dictionary(surroundings.disks.map { ($0.path, $0) }, uniquingKeysWith: { $1 })
        return clean.enumerated().map { position, path in
            guard let entry = known[path] else {
                return BrokerTable(index: position, table: ["diskPath": path, "storePathRootDir": storeFolder(path)])
            }
            var table = entry.settings
            table["storePathRootDir"] = storeFolder(path)
            return BrokerTable(index: entry.slot ?? position, table: table)
        }.sorted { $0.index < $1.index }
    }

    private static func storeFolder(_ disk: String) -> String { "\(disk)/store" }

    /// An absolute path without `/` at its end.
    /// - Throws: the path is not absolute, or `/`.
    package static func cleanDisk(_ path: String) throws(ConfigurationError) -> String {
        var path = path
        while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
        guard path.hasPrefix("/"), path.count > 1 else {
            throw ConfigurationError("disks must be absolute paths of folders, not \"\(path)\"")
        }
        return path
    }

    /// `broker-a`, `broker-b`, …; of a given name `NAME-0`, `NAME-1`, ….
    package static func brokerName(_ given: String?, index: Int) -> String {
        if let given { return "\(given)-\(index)" }
        return index < 26 ? "broker-\(UnicodeScalar(UInt8(97 + index)))" : "broker-\(index)"
    }

    // MARK: - Reload

    /// Settings that differ from those of the same brokers before and are read when a broker starts, with the command
    /// to type.
    func readAtStart(since former: PlatformConfiguration) -> [String] {
        zip(brokerIndexes, brokers).flatMap { index, broker -> [String] in
            guard let position = former.brokerIndexes.firstIndex(of: index) else { return [] }
            let old = former.brokers[position]
            let keys = SettingTable.readAtStart(by: .broker).subtracting(PlatformConfiguration.fixedKeys)
                .filter { broker[$0] != old[$0] }.sorted()
            return keys.map {
                "\(broker["brokerName"] ?? "broker \(index)").\($0): apus restart broker-store@\(index)"
            }
        }
    }
}

extension PlatformConfiguration.Surroundings {
    /// False with `--no-broker`.
    package var withBroker: Bool {
        get { !absent.contains("broker") }
        set { absent.set("broker", !newValue) }
    }
}

extension RawConfiguration {
    /// `broker = false`.
    package var withoutBroker: Bool {
        get { absent.contains("broker") }
        set { absent.set("broker", newValue) }
    }

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

extension DiskRegister.Entry {
    /// What `setup` sends the broker about its disk.
    var settings: [String: String] {
        var settings = [
            "diskPath": path, "diskIdentity": identity, "diskServed": String(served), "brokerName": brokerName,
        ]
        if let slot { settings["diskSlot"] = String(slot) } else { settings["brokerName"] = nil }
        return settings
    }
}
