import Foundation
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
            do {
                raw = try ConfigurationSource.parse(TextFile.read(path), path: path)
            } catch let error as ConfigurationError {
                throw ConfigurationError("\(path): \(error)")
            }
        }
        apply(options, to: &raw)
        var surroundings = PlatformConfiguration.Surroundings(
            dataDirectory: dataDirectory, executables: executables, plugins: PluginFolder.standard(beside: executables),
            machineAddress: MachineAddress.firstIPv4())
        surroundings.withNameserver = !options.withoutNameserver
        surroundings.withBroker = !options.withoutBroker
        return try PlatformConfiguration(raw, surroundings)
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
            case ("broker", .table): raw.brokers = [try scalars(value.table, in: key)]
            case ("broker", .array):
                raw.brokers = try (value.array.map { Array($0) } ?? []).map { try scalars($0.table, in: key) }
            default: raw.common[key] = try scalar(value, key)
            }
        }
        return raw
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
