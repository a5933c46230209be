import SettingTable
import WorkerProtocol

/// Brokers by disk, and what of freshly read settings can hold for a platform that runs.
extension PlatformConfiguration {
    /// One broker: its number and the settings of its own.
    struct Place {
        var index: Int
        var table: [String: String]
    }

    static func places(
        _ raw: RawConfiguration, _ surroundings: Surroundings, wantsBroker: Bool
    ) throws(ConfigurationError) -> [Place] {
        guard let disks = raw.disks else {
            let tables = !wantsBroker ? [] : raw.brokers.isEmpty ? [[:]] : raw.brokers
            return tables.enumerated().map { Place(index: $0.offset, table: $0.element) }
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
                return Place(index: position, table: ["diskPath": path, "storePathRootDir": storeFolder(path)])
            }
            var table = entry.settings
            table["storePathRootDir"] = storeFolder(path)
            return Place(index: entry.slot ?? position, table: table)
        }.sorted { $0.index < $1.index }
    }

    private static func storeFolder(_ disk: String) -> String { "\(disk)/store" }

    /// An absolute path without `/` at its end.
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

    /// Filter workers read every broker's log: `KEY#NUMBER` says where it is.
    mutating func describeStoresToFilters() {
        for (index, broker) in zip(brokerIndexes, brokers) {
            for key in ["storePathRootDir", "storePathCommitLog"] { filter["\(key)#\(index)"] = broker[key] }
        }
    }

    // MARK: reload

    /// Settings that are fixed once a broker runs: what is bound, and where files lie.
    static let fixedKeys = [
        "bindAddress", "listenPort", "fastListenPort", "haListenPort", "storePathRootDir", "storePathCommitLog",
        "mappedFileSizeCommitLog", "brokerName", "brokerClusterName", "brokerId", "brokerRole",
    ]

    /// Settings that differ from those of the same brokers before and are read when a broker starts, with the command to type.
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

    /// What a reload makes of the platform besides new values.
    struct Changes {
        var added: [Int] = []
        var removed: [Int] = []
        /// What was asked for in vain, in words.
        var kept: [String] = []
    }

    /// Turns freshly read settings into what can hold for the running platform: brokers whose store is new are added, those
    /// whose store is not named any more removed; fixed settings and the other workers stay.
    mutating func keepRunning(_ running: PlatformConfiguration) -> Changes {
        var changes = Changes()
        if (nameserver == nil) != (running.nameserver == nil) {
            changes.kept.append("whether there is a name server")
            nameserver = running.nameserver
        }
        if filterCount != running.filterCount {
            changes.kept.append("the number of filter workers")
            filterCount = running.filterCount
        }
        pluginWorkers = running.pluginWorkers
        pluginWorkersMax = running.pluginWorkersMax
        pluginShares = running.pluginShares
        describePluginsToFilters()
        if brokers.isEmpty != running.brokers.isEmpty {
            changes.kept.append("whether there are brokers")
            (brokers, brokerIndexes) = (running.brokers, running.brokerIndexes)
        }
        func keep(_ fresh: inout Settings, _ old: Settings, _ name: String) {
            for key in PlatformConfiguration.fixedKeys where fresh[key] != old[key] {
                // Port 0 asked for any port and got one.
                if fresh[key] != "0" && fresh[key] != nil { changes.kept.append("\(name)\(key)") }
                fresh[key] = old[key]
            }
        }
        if var fresh = nameserver, let old = running.nameserver {
            keep(&fresh, old, "nameserver.")
            nameserver = fresh
        }
        let former = Dictionary(
            zip(running.brokerIndexes, running.brokers).map {
                ($1["storePathRootDir"] ?? "", (index: $0, settings: $1))
            },
            uniquingKeysWith: { $1 })
        // A single broker stays the broker it is, whatever its folder is called now; that changes only by a restart.
        let isSame = brokers.count == 1 && running.brokers.count == 1 && brokers[0]["diskSlot"] == nil
        var used = Set(running.brokerIndexes)
        var next: [(index: Int, settings: Settings)] = []
        for (index, broker) in zip(brokerIndexes, brokers) {
            let known =
                isSame ? (running.brokerIndexes[0], running.brokers[0]) : former[broker["storePathRootDir"] ?? ""]
            if let known {
                var fresh = broker
                keep(&fresh, known.1, running.brokers.count > 1 ? "\(known.1["brokerName"] ?? "")." : "")
                next.append((known.0, fresh))
            } else {
                // With disks the number is the disk's own; else the lowest that is free.
                let own =
                    broker["diskSlot"] != nil && !used.contains(index) ? index : (0...).first { !used.contains($0) }
                let number = own ?? index
                used.insert(number)
                changes.added.append(number)
                next.append((number, broker))
            }
        }
        next.sort { $0.index < $1.index }
        (brokerIndexes, brokers) = (next.map(\.index), next.map(\.settings))
        changes.removed = running.brokerIndexes.filter { !brokerIndexes.contains($0) }
        describeStoresToFilters()
        introduceNameserver()
        return changes
    }

    /// A broker that cannot be added after all.
    mutating func remove(broker index: Int) {
        guard let position = brokerIndexes.firstIndex(of: index) else { return }
        brokerIndexes.remove(at: position)
        brokers.remove(at: position)
    }
}

extension DiskRegister.Entry {
    /// What the broker is told of its disk.
    var settings: [String: String] {
        var settings = [
            "diskPath": path, "diskIdentity": identity, "diskServed": String(served), "brokerName": brokerName,
        ]
        if let slot { settings["diskSlot"] = String(slot) } else { settings["brokerName"] = nil }
        return settings
    }
}
