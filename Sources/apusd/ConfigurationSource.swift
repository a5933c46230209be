import LinuxSystem
import Supervision
import TOMLKit

/// File, then command line on top of it. Read at the start and again at each SIGHUP.
struct ConfigurationSource {
    let options: PlatformOptions
    let dataDirectory: String
    let executables: String

    /// - Throws: everything that is wrong, each with its file and line.
    func read() throws -> PlatformConfiguration {
        let (draft, problems, raw) = try self.draft()
        guard problems.isEmpty else { throw ConfigurationError(problems).located(in: raw.path) }
        return draft
    }

    /// What the settings come to, what is wrong with them, and what they were.
    /// - Throws: when the file cannot be read.
    func draft() throws -> (PlatformConfiguration, [ConfigurationProblem], RawConfiguration) {
        var raw = RawConfiguration()
        if let path = options.configurationPath {
            raw = ConfigurationSource.parse(try TextFile.read(path), path: path)
            raw.path = path
        }
        apply(options, to: &raw)
        raw.sortOut()
        if options.withoutBroker, raw.isProperties { raw.giveToNameserver() }
        var surroundings = PlatformConfiguration.Surroundings(
            dataDirectory: dataDirectory, executables: executables, machineAddress: MachineAddress.firstIPv4())
        surroundings.withNameserver = !options.withoutNameserver
        surroundings.withBroker = !options.withoutBroker
        surroundings.withGateway = !options.withoutGateway
        do {
            try findDisks(raw, &surroundings)
        } catch let error as ConfigurationError {
            raw.problems += error.problems
        }
        let (draft, problems) = PlatformConfiguration.draft(raw, surroundings)
        return (draft, problems, raw)
    }

    /// Which disk is which broker, as DATA/disks remembers it.
    private func findDisks(
        _ raw: RawConfiguration, _ surroundings: inout PlatformConfiguration.Surroundings
    ) throws {
        if let disks = raw.disks {
            var register = try DiskRegister(dataDirectory: dataDirectory, isReadOnly: options.onlyLooks)
            surroundings.disks = try register.entries(for: disks.map { try PlatformConfiguration.cleanDisk($0) }) {
                PlatformConfiguration.brokerName(raw.common["brokerName"], index: $0)
            }
            return
        }
        // A store whose folder was given and that lies on a disk of its own is known by its mark, too.
        let tables = raw.brokers.isEmpty ? [[:]] : raw.brokers
        let given = tables.map { ($0, $0["storePathRootDir"] ?? raw.common["storePathRootDir"] ?? "") }
        let stores = given.filter { $0.1.hasPrefix("/") }
        guard let own = MountPoint.device(of: "/"), !stores.isEmpty else { return }
        var register = try DiskRegister(dataDirectory: dataDirectory, isReadOnly: options.onlyLooks)
        for (table, root) in stores {
            let isKnown = register.entries.contains { $0.path == root && $0.slot == nil }
            let device = MountPoint.device(of: root) ?? MountPoint.device(of: "\(root)/..")
            guard isKnown || (device != nil && device != own && device != MountPoint.device(of: dataDirectory)) else {
                continue
            }
            let name = table["brokerName"] ?? raw.common["brokerName"] ?? "broker"
            surroundings.guarded[root] = try register.guarded(root, brokerName: name)
        }
    }

    private func apply(_ options: PlatformOptions, to raw: inout RawConfiguration) {
        /// The command line wins over every table.
        func set(_ key: String, _ value: String?) {
            guard let value else { return }
            raw.common[key] = value
            for index in raw.brokers.indices { raw.brokers[index][key] = nil }
        }
        set("listenPort", options.brokerPort.map(String.init))
        set("namesrvAddr", options.namesrvAddr)
        set("bindAddress", options.bindAddress)
        set("brokerRole", options.brokerRole)
        set("brokerId", options.brokerID.map(String.init))
        set("brokerName", options.brokerName)
        set("haMasterAddress", options.haMasterAddress)
        set("logLevel", options.logLevel)
        if let port = options.nameserverPort { raw.nameserver["listenPort"] = String(port) }
        if let port = options.consolePort { raw.gateway["listenPort"] = String(port) }
        for setting in options.settings {
            let parts = setting.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            if let table = WorkerTable.standard.tables.first(where: { parts[0].hasPrefix("\($0).") }) {
                raw.tables[table, default: [:]][String(parts[0].dropFirst(table.count + 1))] = parts[1]
            } else {
                set(parts[0], parts[1])
            }
        }
    }

    /// TOML by the ending `.toml`, RocketMQ's properties otherwise. What is wrong stands in `problems`.
    static func parse(_ text: String, path: String) -> RawConfiguration {
        var raw = RawConfiguration()
        guard path.hasSuffix(".toml") else {
            raw.read(properties: text)
            return raw
        }
        do {
            var reader = TOMLReader(lines: TOMLLines.lines(of: text))
            reader.read(try TOMLTable(string: text))
            raw = reader.raw
        } catch let error as TOMLParseError {
            raw.problems.append(ConfigurationProblem(error.debugDescription))
        } catch {
            raw.problems.append(ConfigurationProblem("\(error)"))
        }
        return raw
    }
}
