import SettingTable

/// Problems and notes of each setting of a configuration, before anything is made of it.
struct SettingReview {
    /// What keeps the platform from starting.
    private(set) var problems: [ConfigurationProblem] = []
    /// What an operator should know.
    private(set) var notes: [ConfigurationNote] = []
    private let raw: RawConfiguration
    private let kinds: WorkerTable

    init(_ raw: RawConfiguration, _ kinds: WorkerTable) {
        self.raw = raw
        self.kinds = kinds
        problems = raw.problems
        let common = kinds.rows.filter(\.readsCommonSettings).reduce(Setting.Readers.platform) { $0.union($1.readers) }
        review(raw.common, .common, common)
        for row in kinds.rows {
            guard let name = row.table else { continue }
            if row.count == .perBroker {
                for (number, table) in raw.brokers.enumerated() { review(table, .broker(number), row.readers) }
            } else {
                review(raw.tables[name] ?? [:], .named(name), row.readers)
            }
        }
        for name in raw.startWithout where RocketMQSettings.verdict(name, "true") == nil {
            problems.append(
                ConfigurationProblem(
                    """
                    startWithout names \(SettingRefusal.shown(name)), which is no setting of RocketMQ's that Apus lacks
                    """,
                    line: raw.line(of: "startWithout", in: .common)))
        }
    }

    private mutating func review(
        _ values: [String: String], _ table: RawConfiguration.Table, _ readers: Setting.Readers
    ) {
        for (key, value) in values.sorted(by: { $0.key < $1.key }) {
            guard let setting = SettingTable.setting(key) else {
                unknown(key, value, table)
                continue
            }
            do throws(SettingRefusal) {
                _ = try setting.canonical(value)
            } catch {
                problem(key, table, "\(error)")
                continue
            }
            if setting.readers == .platform, table != .common {
                problem(key, table, "\(key) is the whole platform's: \(Self.example(of: key)) above all tables")
            } else if setting.readers.isDisjoint(with: readers) {
                note(key, table, .attention("it is a setting of \(owner(of: setting)), and no worker reads it here"))
            } else if case .none(let reason) = setting.effect {
                let isAsked = key == "fetchNamesrvAddrByAddressServer" && SettingType.boolean(value) == true
                note(key, table, isAsked ? .attention(reason) : .harmless(reason))
            }
        }
    }

    /// Where the setting belongs: the table of the kind that alone reads it, else a broker.
    private func owner(of setting: Setting) -> String {
        let row = kinds.rows.first {
            $0.count != .perBroker && !$0.readers.isEmpty
                && ($0.readsCommonSettings ? setting.readers == $0.readers : setting.readers.isSuperset(of: $0.readers))
        }
        return row?.table.map { "[\($0)]" } ?? "a broker"
    }

    private static func example(of key: String) -> String {
        switch key {
        case "disks": "write disks = [\"/data0\", \"/data1\"]"
        case "startWithout": "write startWithout = [\"aclEnable\"]"
        default: "write it"
        }
    }

    private mutating func unknown(_ key: String, _ value: String, _ table: RawConfiguration.Table) {
        if SettingTable.told.contains(key) {
            return problem(
                key, table,
                "\(key) is what the supervisor tells a broker: take it out (disks = [\"/data0\", …] names disks)")
        }
        guard let verdict = RocketMQSettings.verdict(key, value) else {
            return note(key, table, .unknown(meant: SettingTable.meant(by: key)))
        }
        switch verdict.consequence {
        case .harmless: note(key, table, .harmless(verdict.reason))
        case .act: note(key, table, .attention(verdict.reason))
        case .refused where raw.startWithout.contains(key): note(key, table, .attention(verdict.reason))
        case .refused:
            problem(
                key, table,
                "\(key) = \(SettingRefusal.shown(value)) promises what Apus does not have. \(verdict.reason). To start "
                    + "without it, remove it, or say so: startWithout = [\"\(key)\"]"
                    + (raw.isProperties ? " (in this file: startWithout=\(key))" : ""))
        }
    }

    private mutating func problem(_ key: String, _ table: RawConfiguration.Table, _ text: String) {
        problems.append(
            ConfigurationProblem(
                (table.title.map { "\($0) " } ?? "") + text, line: raw.line(of: key, in: table)))
    }

    private mutating func note(_ key: String, _ table: RawConfiguration.Table, _ kind: ConfigurationNote.Kind) {
        notes.append(ConfigurationNote(key: key, table: table, kind: kind, line: raw.line(of: key, in: table)))
    }
}

/// A setting without effect in Apus, and whether an operator should act.
package struct ConfigurationNote: Hashable, Sendable, CustomStringConvertible {
    /// What the note means for an operator.
    package enum Kind: Hashable, Sendable {
        /// Nothing is lost without it.
        case harmless(String)
        /// Something is different from what the setting asks for.
        case attention(String)
        /// Neither Apus nor RocketMQ has it; the setting that was probably meant.
        case unknown(meant: String?)
    }

    /// The setting.
    package var key: String
    /// The table the setting is in.
    package var table: RawConfiguration.Table
    /// What the note means for an operator.
    package var kind: Kind
    /// Of the file, from 1 on; nil: the command line.
    package var line: Int?

    /// Whether an operator should act.
    package var isHarmless: Bool { if case .harmless = kind { true } else { false } }

    /// With its table: `nameserver.KEY`.
    package var name: String {
        switch table {
        case .common, .broker: SettingRefusal.shown(key)
        default: SettingRefusal.shown(RawConfiguration.path(of: key, in: table))
        }
    }

    package var description: String {
        let position = line.map { "line \($0): " } ?? ""
        return switch kind {
        case .harmless(let reason): "\(position)without effect in Apus, harmless: \(name): \(reason)"
        case .attention(let reason): "\(position)ACT NOW: \(name): \(reason)"
        case .unknown(let meant):
            "\(position)without effect in Apus: \(name)"
                + (meant.map { " (is \($0) meant?)" }
                    ?? ": neither Apus nor RocketMQ has such a setting; is it spelled right?")
        }
    }
}
