import SettingTable
package import WorkerProtocol

/// The name server: its settings are those of `[nameserver]`.
enum NameserverSettings: SettingsRules {
    static func folders(_ configuration: PlatformConfiguration, disksToo: Bool) -> [FolderUse] {
        guard let path = configuration.nameserver?["kvConfigPath"] else { return [] }
        return [FolderUse(path: PlatformTrial.parent(of: path), key: "kvConfigPath", table: .nameserver)]
    }
}

extension PlatformConfiguration {
    /// RocketMQ's default port.
    package static let nameserverPort = 9876

    /// nil: the platform has no name server of its own and registers with `namesrvAddr`.
    package var nameserver: Settings? { settings[.nameserver]?.first?.settings }

    /// Where this machine finds our name server, also when it listens everywhere.
    package var nameserverAddress: String? { nameserverAddress(everywhere: "127.0.0.1") }

    /// Where others find it: what is shown to people. One that listens everywhere is at this machine's address in the
    /// network.
    package var announcedNameserver: String? { nameserverAddress(everywhere: machineAddress ?? "127.0.0.1") }

    private func nameserverAddress(everywhere: String) -> String? {
        guard let nameserver else { return nil }
        let bind = nameserver.string("bindAddress", default: "127.0.0.1")
        let host = AddressText.isEverywhere(bind) ? everywhere : bind
        let shown = host.contains(":") ? "[\(host)]" : host
        return "\(shown):\(nameserver.string("listenPort", default: ""))"
    }

    /// Once the ports are known: brokers register with our own name server and with those configured.
    package mutating func introduceNameserver() {
        guard let own = nameserverAddress else { return }
        updateBrokers { broker in
            var addresses = (broker["namesrvAddr"] ?? "").split(separator: ";").map(String.init)
            addresses.removeAll { $0 == own }
            broker["namesrvAddr"] = ([own] + addresses).joined(separator: ";")
            broker["ownNamesrvAddr"] = own
        }
        introduceGateway(nameserver: own)
    }
}

extension PlatformConfiguration.Surroundings {
    /// False with `--no-nameserver`.
    package var withNameserver: Bool {
        get { !absent.contains("nameserver") }
        set { absent.set("nameserver", !newValue) }
    }
}

extension RawConfiguration {
    /// The keys of `[nameserver]`.
    package var nameserver: [String: String] {
        get { tables["nameserver"] ?? [:] }
        set { tables["nameserver"] = newValue }
    }

    /// `nameserver = false`.
    package var withoutNameserver: Bool {
        get { absent.contains("nameserver") }
        set { absent.set("nameserver", newValue) }
    }

    /// A `namesrv.conf`: what a name server reads belongs into its table.
    package mutating func giveToNameserver() {
        for (key, value) in common where key != "logLevel" && key != "bindAddress" {
            let setting = SettingTable.setting(key)
            guard setting == nil || setting?.readers.contains(.nameserver) == true else { continue }
            if nameserver[key] == nil { nameserver[key] = value }
            if let line = lines[key] { lines[Self.path(of: key, in: .nameserver)] = line }
            common[key] = nil
        }
    }
}

extension RawConfiguration.Table {
    /// `[nameserver]`.
    package static let nameserver = RawConfiguration.Table.named("nameserver")
}
