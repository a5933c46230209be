import SettingTable
import WorkerProtocol

/// Settings that exclude each other.
extension PlatformConfiguration {
    /// All of them, as text for the operator, where known with the line of the setting to change.
    func contradictions(_ raw: RawConfiguration) -> [ConfigurationProblem] {
        let denied = table.tables.filter { raw.absent.contains($0) && raw.tables[$0]?.isEmpty == false }
        return denied.map {
            ConfigurationProblem(
                "\($0) = false and settings of [\($0)]: keep one of them", line: raw.line(of: $0, in: .common))
        } + table.rows.flatMap { $0.rules.contradictions(self, raw) } + samePorts(raw)
    }

    // MARK: - Ports

    /// One port this platform listens on.
    struct Port: Hashable {
        /// `name server`, or the broker's name.
        var owner: String
        /// Without it the platform does not start.
        var isNeeded = true
        var key: String
        var address: String
        /// 0: any free one.
        var number: Int
        /// Where the setting stands that causes it.
        var line: Int?
    }

    /// All that are known before they are bound.
    func ports(_ raw: RawConfiguration = RawConfiguration()) -> [Port] {
        table.rows.flatMap { row in
            let keys = table.rows.filter { ($0.settingsOf ?? $0.kind) == row.kind }.flatMap(\.listeners).map(\.portKey)
            return (settings[row.kind] ?? []).enumerated().flatMap { number, entry in
                keys.compactMap { port(entry.settings, $0, row, number, raw) }
            }
        }
    }

    private func port(
        _ settings: Settings, _ key: String, _ row: WorkerRow, _ number: Int, _ raw: RawConfiguration
    ) -> Port? {
        guard let text = settings[key], let port = Int(text) else { return nil }
        let table = row.count == .perBroker ? RawConfiguration.Table.broker(number) : .named(row.table ?? "")
        return Port(
            owner: row.nameKey.flatMap { settings[$0] } ?? "the \(row.title)", isNeeded: !row.startsWithoutPort,
            key: key,
            address: settings.string("bindAddress", default: "127.0.0.1"), number: port,
            line: raw.line(of: key, in: table)
                ?? (row.readsCommonSettings ? raw.line(of: key, in: .common) : nil))
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
