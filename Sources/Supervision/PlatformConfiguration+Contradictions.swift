import SettingTable
import WorkerProtocol

/// Settings that exclude each other.
extension PlatformConfiguration {
    /// All of them, in words, where known with the line of the setting to change.
    func contradictions(_ raw: RawConfiguration) -> [ConfigurationProblem] {
        roleContradictions(raw) + twins + samePorts(raw)
    }

    private func roleContradictions(_ raw: RawConfiguration) -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        func problem(_ text: String, _ key: String? = nil) {
            problems.append(ConfigurationProblem(text, line: key.flatMap { raw.line(of: $0, in: .common) }))
        }
        if raw.withoutNameserver && !raw.nameserver.isEmpty {
            problem("nameserver = false and settings of [nameserver]: keep one of them", "nameserver")
        }
        if brokers.isEmpty {
            let asked =
                raw.brokers.isEmpty
                ? ["brokerRole", "brokerId", "haMasterAddress"].first { raw.common[$0] != nil } : "[[broker]]"
            if let asked {
                problem("\(asked) is a broker's, and this platform is without (broker = false, --no-broker)", asked)
            }
        }
        let slaves = brokers.filter { $0["brokerRole"] == BrokerRole.slave.name }
        if nameserver == nil,
            slaves.contains(where: { ($0["namesrvAddr"] ?? "").isEmpty && $0["haMasterAddress"] == nil })
        {
            problem("a slave finds its master by haMasterAddress or a name server: set one of them", "brokerRole")
        }
        let followed = slaves.compactMap { $0["haMasterAddress"] }
        if Set(followed).count != followed.count {
            problem(
                "two slaves of this platform follow the same haMasterAddress: a master's log belongs into one store each"
            )
        }
        return problems
    }

    private var twins: [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        let names = Set(brokers.map { "\($0["brokerName"] ?? "")/\($0["brokerId"] ?? "")" })
        if names.count != brokers.count {
            problems.append(ConfigurationProblem("two [[broker]] tables have the same brokerName and brokerId"))
        }
        let roots = Set(brokers.map { $0["storePathRootDir"] ?? "" })
        if roots.count != brokers.count {
            problems.append(
                ConfigurationProblem("two [[broker]] tables have the same storePathRootDir: a store has one writer"))
        }
        return problems
    }

    // MARK: ports

    /// One port this platform listens on.
    struct Port: Hashable {
        /// `name server`, or the broker's name.
        var owner: String
        var key: String
        var address: String
        /// 0: any free one.
        var number: Int
        /// Where the setting stands that says so.
        var line: Int?
    }

    /// All that are known before they are bound.
    func ports(_ raw: RawConfiguration = RawConfiguration()) -> [Port] {
        func port(_ settings: Settings, _ key: String, _ owner: String, _ table: RawConfiguration.Table) -> Port? {
            guard let text = settings[key], let number = Int(text) else { return nil }
            return Port(
                owner: owner, key: key, address: settings.string("bindAddress", default: "127.0.0.1"), number: number,
                line: raw.line(of: key, in: table)
                    ?? (table == .nameserver ? nil : raw.line(of: key, in: .common)))
        }
        let ofNameserver = nameserver.flatMap { port($0, "listenPort", "the name server", .nameserver) }
        return (ofNameserver.map { [$0] } ?? [])
            + brokers.enumerated().flatMap { number, broker in
                ["listenPort", "fastListenPort", "haListenPort"].compactMap {
                    port(broker, $0, broker["brokerName"] ?? "the broker", .broker(number))
                }
            }
    }

    private func samePorts(_ raw: RawConfiguration) -> [ConfigurationProblem] {
        let all = ports(raw).filter { $0.number > 0 }
        return all.enumerated().compactMap { position, port in
            let earlier = all[..<position].first { other in
                other.number == port.number
                    && (other.address == port.address || AddressText.isEverywhere(other.address)
                        || AddressText.isEverywhere(port.address))
            }
            guard let earlier else { return nil }
            return ConfigurationProblem(
                "\(earlier.owner) (\(earlier.key)) and \(port.owner) (\(port.key)) both listen on port \(port.number): "
                    + "give one of them another",
                line: port.line ?? earlier.line)
        }
    }
}
