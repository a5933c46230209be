import SettingTable
import WorkerProtocol

/// Fills one broker's settings up with RocketMQ's defaults, and notes everything in them that cannot be.
struct BrokerBuilder {
    let raw: RawConfiguration
    /// Its position among the `[[broker]]` tables.
    let number: Int
    /// The number of its workers.
    let index: Int
    let isOfMany: Bool
    /// The settings of its own table.
    let own: [String: String]
    /// Of the platform.
    let bindAddress: String

    /// - Parameter given: settings of file and command line, as workers take them.
    func settings(
        _ given: [String: String], _ surroundings: PlatformConfiguration.Surroundings,
        problems: inout [ConfigurationProblem]
    ) -> Settings {
        var values = given
        if isOfMany && own["brokerName"] == nil {
            values["brokerName"] = PlatformConfiguration.brokerName(given["brokerName"], index: index)
        }
        values.setDefault("brokerName", PlatformConfiguration.brokerName(nil, index: index))
        values.setDefault("brokerClusterName", "DefaultCluster")
        values.setDefault("brokerRole", BrokerRole.asyncMaster.name)
        values.setDefault("brokerId", "0")
        checkRole(values, &problems)
        values.setDefault("bindAddress", bindAddress)
        setPorts(given, &values, &problems)

        let bind = values["bindAddress"] ?? bindAddress
        values.setDefault(
            "brokerIP1", AddressText.isEverywhere(bind) ? surroundings.machineAddress ?? "127.0.0.1" : bind)
        values.setDefault("brokerIP2", values["brokerIP1"] ?? bind)

        values.setDefault("storePathRootDir", index == 0 ? "store" : "store-\(index)")
        let root = PlatformConfiguration.absolute(values["storePathRootDir"] ?? "", in: surroundings.dataDirectory)
        values["storePathRootDir"] = root
        values.setDefault("diskPath", root)
        if let entry = surroundings.guarded[root] { values.merge(entry.settings, uniquingKeysWith: { $1 }) }
        values["storePathCommitLog"] = PlatformConfiguration.absolute(
            values["storePathCommitLog"] ?? "commitlog", in: root)
        values.setDefault("pluginDirectory", surroundings.plugins)
        return Settings(values)
    }

    private func checkRole(_ values: [String: String], _ problems: inout [ConfigurationProblem]) {
        guard let role = BrokerRole(name: values["brokerRole"] ?? ""), let id = Int(values["brokerId"] ?? "") else {
            return
        }
        if role == .slave && id == 0 {
            problems.append(
                problem("brokerRole", "a slave needs a brokerId above 0 (0 is the master's): --broker-id 1"))
        }
        if role != .slave && id != 0 {
            problems.append(problem("brokerId", "brokerId \(id) belongs to a slave; brokerRole is \(role.name)"))
        }
    }

    private func setPorts(
        _ given: [String: String], _ values: inout [String: String], _ problems: inout [ConfigurationProblem]
    ) {
        for key in ["listenPort", "fastListenPort", "haListenPort"] where isOfMany && own[key] == nil {
            let standard = key == "listenPort" ? PlatformConfiguration.brokerPort : nil
            guard let base = given[key].flatMap({ Int($0) }) ?? standard else { continue }
            values[key] = String(base == 0 ? 0 : base + index * PlatformConfiguration.brokerPortStep)
        }
        values.setDefault("listenPort", String(PlatformConfiguration.brokerPort))
        let port = Int(values["listenPort"] ?? "") ?? 0
        // Ports for one broker are not ports for all of them: neighbours of their own.
        for key in ["fastListenPort", "haListenPort"] where isOfMany && own[key] == nil { values[key] = nil }
        // Port 0: the neighbours follow when the port is known (`Listeners`).
        if port > 2 { values.setDefault("fastListenPort", String(port - 2)) }
        if port > 0 { values.setDefault("haListenPort", String(port + 1)) }
        for key in ["listenPort", "fastListenPort", "haListenPort"] {
            guard let text = values[key], let port = Int(text), port > 65535 else { continue }
            problems.append(
                problem(key, "\(key) of \(values["brokerName"] ?? "") would be \(port): there are ports up to 65535"))
        }
    }

    private func problem(_ key: String, _ text: String) -> ConfigurationProblem {
        ConfigurationProblem(text, line: raw.line(of: key, in: .broker(number)) ?? raw.line(of: key, in: .common))
    }
}
