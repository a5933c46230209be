import ArgumentParser
import FastJSON
import RocketMQClient
import SettingTable

/// `apus config diff --running`: where each setting of the running brokers comes from.
struct ConfigDiff: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff",
        abstract: "Show the settings of running brokers that are not the default, and who set them.",
        discussion: """
            Source is `file` for the configuration file or command line, `online` for a change while running (apus \
            admin updateBrokerConfig), which holds over restarts until the file says something else. apus config \
            revert KEY takes an online change back.
            """)

    @OptionGroup var place: RunningBrokers
    @Flag(name: .customLong("running"), help: "Compare with what runs (there is nothing else to compare with yet).")
    var isRunning = false
    @Flag(help: "Settings that have their default, too.") var all = false

    func run() async throws {
        try await place.each { client, name, address in
            let rows = Self.rows(try await RunningSettings(client, address), all: all)
            print("\(name) \(address)")
            let columns = Columns("  %-40s %-24s %-8s %s")
            columns.show("SETTING", "VALUE", "SOURCE", "INSTEAD OF")
            for row in rows { columns.show(row.key, row.value, row.source, row.instead) }
        }
    }

    struct Row: Equatable {
        let key: String
        let value: String
        let source: String
        let instead: String
    }

    static func rows(_ settings: RunningSettings, all: Bool) -> [Row] {
        settings.values.sorted { $0.key < $1.key }.compactMap { key, value in
            if let change = settings.online[key] {
                return Row(key: key, value: value, source: "online", instead: change)
            }
            guard let standard = SettingTable.setting(key)?.standard else { return nil }
            // A default that is described, such as "the machine's first address", is compared with nothing.
            guard value != standard, !value.isEmpty, !standard.contains(" ") else {
                return all ? Row(key: key, value: value, source: "default", instead: "") : nil
            }
            return Row(key: key, value: value, source: "file", instead: standard.isEmpty ? "nothing" : standard)
        }
    }
}

/// `apus config revert KEY`: an online change is taken back.
struct ConfigRevert: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revert", abstract: "Take back settings that were changed while brokers run.",
        discussion: "The value of the configuration file holds again, or the default where it says nothing.")

    @OptionGroup var place: RunningBrokers
    @Argument(
        help: ArgumentHelp("Settings; none is every changed one.", valueName: "KEY"),
        completion: Completions.setting)
    var keys: [String] = []

    func run() async throws {
        try await place.each { client, name, address in
            let settings = try await RunningSettings(client, address)
            for key in keys where settings.online[key] == nil {
                throw CommandFailure("\(key) was not changed on \(name) (\(address)) while it runs")
            }
            for key in (keys.isEmpty ? settings.online.keys.sorted() : keys) {
                guard let value = settings.original(key) else {
                    throw CommandFailure(
                        "the default of \(key) is not known; set it with apus admin updateBrokerConfig")
                }
                try await client.setBrokerSetting(key, to: value, at: address)
                print("\(name): \(key) is \(value) again")
            }
        }
    }
}

/// What a broker reports of its settings (26, and of Apus 28).
struct RunningSettings {
    var values: [String: String] = [:]
    /// Changed while it runs: what the file contains, for people.
    var online: [String: String] = [:]

    init(values: [String: String], runtime: [String: String]) {
        self.values = values
        for (name, text) in runtime where name.hasPrefix(Self.prefix) {
            let key = String(name.dropFirst(Self.prefix.count))
            guard let start = text.lastIndex(of: "(") else { continue }
            online[key] = String(text[text.index(after: start)...].dropLast())
        }
    }

    init(_ client: AdminClient, _ address: String) async throws {
        let settings = try await client.brokerSettings(of: address)
        self.init(
            values: Dictionary(settings.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 }),
            runtime: try await client.runtimeFigures(of: address))
    }

    private static let prefix = "changedSetting_"
    private static let inFile = "file: "

    /// The value that holds without the change; nil when it is not known here.
    func original(_ key: String) -> String? {
        guard let text = online[key] else { return nil }
        if text.hasPrefix(Self.inFile) { return String(text.dropFirst(Self.inFile.count)) }
        return SettingTable.setting(key).map(\.standard).flatMap { $0.isEmpty || $0.contains(" ") ? nil : $0 }
    }
}

/// One broker with `-b`, else all that the name server knows.
struct RunningBrokers: ParsableArguments {
    @OptionGroup var server: ServerOption
    @Option(
        name: [.customShort("b"), .customLong("broker")], parsing: .unconditional,
        help: ArgumentHelp("One broker (default: all the name server knows).", valueName: "HOST:PORT"))
    var broker: String?

    func each(_ work: (AdminClient, String, String) async throws -> Void) async throws {
        try await AdminClient.using(server.addresses) { client in
            if let broker { return try await work(client, "broker", broker) }
            for broker in try await client.clusters().brokers {
                for (_, address) in broker.addresses.sorted(by: { $0.key < $1.key }) {
                    try await work(client, broker.name, address)
                }
            }
        }
    }
}
