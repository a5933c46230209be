import LinuxSystem
import Supervision
import TOMLKit

/// File, then command line on top of it. Read at the start and again at each SIGHUP.
struct ConfigurationSource {
    let options: PlatformOptions
    let dataDirectory: String
    let executables: String

    func read() throws -> PlatformConfiguration {
        var raw = RawConfiguration()
        if let path = options.configurationPath {
            let text = try TextFile.read(path)
            do {
                raw = try ConfigurationSource.parse(text, path: path)
            } catch let error as ConfigurationError {
                throw ConfigurationError("\(path): \(error)")
            }
        }
        apply(options, to: &raw)
        raw.sortOut()
        var surroundings = PlatformConfiguration.Surroundings(
            dataDirectory: dataDirectory, executables: executables, machineAddress: MachineAddress.firstIPv4())
        surroundings.withNameserver = !options.withoutNameserver
        surroundings.withBroker = !options.withoutBroker
        try findDisks(raw, &surroundings)
        return try PlatformConfiguration(raw, surroundings)
    }

    /// Which disk is which broker, as DATA/disks remembers it.
    private func findDisks(
        _ raw: RawConfiguration, _ surroundings: inout PlatformConfiguration.Surroundings
    ) throws {
        if let disks = raw.disks {
            var register = try DiskRegister(dataDirectory: dataDirectory, isReadOnly: options.onlyLooks)
            surroundings.disks = try register.places(for: disks.map { try PlatformConfiguration.cleanDisk($0) }) {
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
        set("brokerId", options.brokerId.map(String.init))
        set("brokerName", options.brokerName)
        set("haMasterAddress", options.haMasterAddress)
        set("logLevel", options.logLevel)
        if let port = options.nameserverPort { raw.nameserver["listenPort"] = String(port) }
        for setting in options.settings {
            let parts = setting.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            if parts[0].hasPrefix("nameserver.") {
                raw.nameserver[String(parts[0].dropFirst("nameserver.".count))] = parts[1]
            } else if parts[0].hasPrefix("filter.") {
                raw.filter[String(parts[0].dropFirst("filter.".count))] = parts[1]
            } else {
                set(parts[0], parts[1])
            }
        }
    }

    /// TOML by the ending `.toml`, RocketMQ's properties otherwise.
    static func parse(_ text: String, path: String) throws -> RawConfiguration {
        guard path.hasSuffix(".toml") else {
            var raw = RawConfiguration()
            raw.common = try PropertiesFile.parse(text)
            raw.isProperties = true
            return raw
        }
        do {
            return try raw(from: TOMLTable(string: text))
        } catch let error as TOMLParseError {
            throw ConfigurationError(error.debugDescription)
        }
    }

    private static func raw(from table: TOMLTable) throws -> RawConfiguration {
        var raw = RawConfiguration()
        for (key, value) in table {
            switch (key, value.type) {
            case ("nameserver", .table): raw.nameserver = try scalars(value.table, in: key)
            case ("nameserver", .bool): raw.withoutNameserver = value.bool == false
            case ("broker", .bool): raw.withoutBroker = value.bool == false
            case ("filter", .table): raw.filter = try scalars(value.table, in: key)
            case ("limits", .table): raw.limits = try limits(value.table)
            case ("disks", .array):
                raw.disks = try (value.array.map { Array($0) } ?? []).map { try scalar($0, key) }
            case ("broker", .table): raw.brokers = [try scalars(value.table, in: key)]
            case ("broker", .array):
                raw.brokers = try (value.array.map { Array($0) } ?? []).map { try scalars($0.table, in: key) }
            case (_, .table):
                throw ConfigurationError(
                    "there is no table [\(key)]: there are [nameserver], [filter], [limits.KIND], and [[broker]] for each of several brokers"
                )
            default: raw.common[key] = try scalar(value, key)
            }
        }
        return raw
    }

    /// `[limits.filter]` and `limits.filter.memory = …`, as `filter.memory`.
    private static func limits(_ table: TOMLTable?) throws -> [String: String] {
        var limits: [String: String] = [:]
        for (kind, values) in table ?? TOMLTable() {
            for (key, value) in try scalars(values.table, in: "limits.\(kind)") { limits["\(kind).\(key)"] = value }
        }
        return limits
    }

    private static func scalars(_ table: TOMLTable?, in name: String) throws -> [String: String] {
        guard let table else { throw ConfigurationError("[\(name)] must be a table") }
        var values: [String: String] = [:]
        for (key, value) in table { values[key] = try scalar(value, "\(name).\(key)") }
        return values
    }

    private static func scalar(_ value: any TOMLValueConvertible, _ key: String) throws -> String {
        if let text = value.string { return text }
        if let number = value.int { return String(number) }
        if let flag = value.bool { return String(flag) }
        if let number = value.double { return String(number) }
        throw ConfigurationError("\(key) must be a text, a number or true/false")
    }
}
