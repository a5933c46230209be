import SettingTable
package import WorkerProtocol

/// The gateway: its settings are those of `[gateway]`. It serves the platform's brokers, or those of the name servers
/// in its own `namesrvAddr`. Without brokers and without a table of its own there is none.
enum GatewaySettings: SettingsRules {
    static func configure(
        _ configuration: inout PlatformConfiguration, _ row: WorkerRow, _ sources: ConfigurationSources,
        problems: inout [ConfigurationProblem]
    ) {
        guard sources.wants(row) else { return }
        let table = sources.raw.tables["gateway"] ?? [:]
        guard !configuration.brokers.isEmpty || !table.isEmpty else { return }
        var values = PlatformConfiguration.canonical(table)
        for (key, value) in row.defaults(sources.surroundings) { values.setDefault(key, value) }
        // The platform's own address does not count: HTTP is not opened to a network by the way.
        values.setDefault("bindAddress", "127.0.0.1")
        values["logLevel"] = configuration.logLevel
        if values["namesrvAddr"] == nil, configuration.nameserver == nil {
            values["namesrvAddr"] = PlatformConfiguration.canonical(sources.raw.common)["namesrvAddr"]
        }
        configuration.settings[row.kind] = [WorkerSettings(indexes: [0], settings: Settings(values))]
    }

    static func contradictions(
        _ configuration: PlatformConfiguration, _ raw: RawConfiguration
    ) -> [ConfigurationProblem] {
        guard let gateway = configuration.gateway else { return [] }
        let address = gateway.string("bindAddress", default: "127.0.0.1")
        guard !AddressText.isLoopback(address), gateway.string("accessTokens", default: "").isEmpty else { return [] }
        return [
            ConfigurationProblem(
                """
                [gateway] bindAddress = \(address) opens the gateway to other machines, and it has no access token: \
                set accessTokens in [gateway] (openssl rand -hex 16 makes one), or leave bindAddress at 127.0.0.1
                """, line: raw.line(of: "bindAddress", in: .named("gateway")))
        ]
    }
}

extension PlatformConfiguration {
    /// Of HTTP, by default.
    package static let gatewayPort = 8080

    /// nil: the platform has no gateway.
    package var gateway: Settings? { settings[.gateway]?.first?.settings }

    /// Where people find the gateway, as they type it: `http://127.0.0.1:8080`. One that listens everywhere is at this
    /// machine's address in the network. nil: there is no gateway.
    package var consoleAddress: String? {
        guard let gateway else { return nil }
        let bind = gateway.string("bindAddress", default: "127.0.0.1")
        let host = AddressText.isEverywhere(bind) ? machineAddress ?? "127.0.0.1" : bind
        let shown = host.contains(":") ? "[\(host)]" : host
        return "http://\(shown):\(gateway.string("listenPort", default: ""))"
    }

    /// Once the ports are known: the gateway serves this platform's brokers unless its settings say otherwise.
    mutating func introduceGateway(nameserver: String) {
        guard let gateway, gateway["namesrvAddr"] == nil else { return }
        settings[.gateway]?[0].settings["namesrvAddr"] = nameserver
    }

    /// Workers whose port is taken by another process and that the platform starts without.
    mutating func remove(_ kind: WorkerKind) { settings[kind] = nil }
}

extension PlatformConfiguration.Surroundings {
    /// False with `--no-console`.
    package var withGateway: Bool {
        get { !absent.contains("gateway") }
        set { absent.set("gateway", !newValue) }
    }
}

extension RawConfiguration {
    /// The keys of `[gateway]`.
    package var gateway: [String: String] {
        get { tables["gateway"] ?? [:] }
        set { tables["gateway"] = newValue }
    }
}
