import SettingTable
package import WorkerProtocol

/// A complete description of one platform: the settings of every worker. Made from an operator's settings by filling in
/// RocketMQ's defaults; ports may still be 0 (any free one) until the listeners are bound.
package struct PlatformConfiguration: Hashable, Sendable {
    /// Absolute.
    package var dataDirectory: String
    /// The kinds of workers there can be.
    package let table: WorkerTable
    /// By kind, what `setup` sends its workers. Kinds that read another kind's settings have no entry.
    package internal(set) var settings: [WorkerKind: [WorkerSettings]] = [:]
    /// Which filter workers there are for plugins.
    package internal(set) var filterWorkers = FilterWorkers()
    /// `debug`, `info` and so on; nil: the default of each worker.
    package var logLevel: String?
    /// What workers may use.
    package var limits: WorkerLimits
    /// Settings without effect, and what to do about them. They are passed on to the workers all the same.
    package private(set) var notes: [ConfigurationNote] = []
    /// How other machines reach this one, if they do.
    let machineAddress: String?

    /// Keys neither this platform nor its workers read, with their tables.
    package var unknownKeys: [String] { notes.filter { SettingTable.setting($0.key) == nil }.map(\.name) }

    /// What the machine and the command line add to the file.
    package struct Surroundings: Sendable {
        /// Absolute.
        package var dataDirectory: String
        /// Where the executables lie: default for plug-ins.
        package var executables: String
        /// Where filter plugins lie unless the settings name a folder.
        package var plugins: String
        /// The address other machines reach this one by, if there is one.
        package var machineAddress: String?
        /// The kinds of workers there can be.
        package var table = WorkerTable.standard
        /// Tables whose kinds this platform does without.
        package var absent: Set<String> = []
        /// The brokers of the setting `disks`, in its order.
        package var disks: [DiskRegister.Entry] = []
        /// By storePathRootDir: stores of `[[broker]]` tables that lie on disks of their own.
        package var guarded: [String: DiskRegister.Entry] = [:]

        package init(dataDirectory: String, executables: String, plugins: String? = nil, machineAddress: String? = nil)
        {
            self.dataDirectory = dataDirectory
            self.executables = executables
            self.plugins =
                plugins ?? PluginPlaces.standard(executables: executables, dataDirectory: dataDirectory)
            self.machineAddress = machineAddress
        }
    }

    /// Settings that are fixed once a worker runs: what is bound, and where files lie.
    static let fixedKeys = [
        "bindAddress", "listenPort", "fastListenPort", "haListenPort", "storePathRootDir", "storePathCommitLog",
        "mappedFileSizeCommitLog", "brokerName", "brokerClusterName", "brokerId", "brokerRole",
    ]

    /// - Throws: everything that contradicts itself or has no meaning, as text for the operator.
    package init(_ raw: RawConfiguration, _ surroundings: Surroundings) throws(ConfigurationError) {
        let (draft, problems) = Self.draft(raw, surroundings)
        guard problems.isEmpty else { throw ConfigurationError(problems) }
        self = draft
    }

    /// What a configuration comes to with everything left out that cannot be, and all of that. Nothing can be started
    /// with it while there are problems, but ports and folders can be looked at.
    package static func draft(
        _ raw: RawConfiguration, _ surroundings: Surroundings
    ) -> (PlatformConfiguration, [ConfigurationProblem]) {
        var problems: [ConfigurationProblem] = []
        let draft = PlatformConfiguration(raw, surroundings, problems: &problems)
        return (draft, problems)
    }

    private init(_ given: RawConfiguration, _ surroundings: Surroundings, problems: inout [ConfigurationProblem]) {
        var raw = given
        raw.spellRoles()
        table = surroundings.table
        let review = SettingReview(raw, table)
        problems += review.problems
        notes = review.notes.enumerated()
            .sorted { ($0.element.line ?? .max, $0.offset) < ($1.element.line ?? .max, $1.offset) }.map(\.element)
        dataDirectory = surroundings.dataDirectory
        machineAddress = surroundings.machineAddress
        logLevel = raw.common["logLevel"].flatMap { PlatformConfiguration.canonical(["logLevel": $0])["logLevel"] }
        do throws(ConfigurationError) {
            limits = try WorkerLimits(raw.limits, kinds: table.rows.map(\.kind))
        } catch {
            problems += error.problems
            limits = WorkerLimits()
        }
        let sources = ConfigurationSources(
            raw: raw, surroundings: surroundings, bindAddress: PlatformConfiguration.bindAddress(raw))
        let critical = table.rows.filter(\.critical)
        if !critical.contains(where: { sources.wants($0) }) {
            let titles = critical.map { "a \($0.title)" }.joined(separator: " nor ")
            problems.append(ConfigurationProblem("neither \(titles): nothing to run"))
        }
        for row in table.rows { row.rules.configure(&self, row, sources, problems: &problems) }
        problems += contradictions(raw)
    }

    /// As workers take them. What is not usable is a problem already and left out, like a text without letters, which
    /// means not set.
    static func canonical(_ values: [String: String]) -> [String: String] {
        var canonical: [String: String] = [:]
        for (key, value) in values {
            guard let text = try? SettingTable.canonical(key, value) else { continue }
            if text.isEmpty, SettingTable.setting(key) != nil { continue }
            canonical[key] = text
        }
        return canonical
    }

    static func absolute(_ path: String, in folder: String) -> String {
        path.hasPrefix("/") ? path : "\(folder)/\(path)"
    }

    /// Every setting of every worker as `key=value` lines, below the worker's name as a comment.
    package var listing: String {
        workers.filter { row(of: $0).settingsOf == nil }.map { worker in
            let lines = settings(of: worker).values.sorted { $0.key < $1.key }.map { key, value in
                "\(key)=\(SettingTable.shown(key, value))"
            }
            return (["# \(worker)"] + lines).joined(separator: "\n")
        }.joined(separator: "\n\n")
    }

    // MARK: - Workers

    /// The row of a worker's kind.
    package func row(of worker: WorkerID) -> WorkerRow { table.row(worker.kind) }

    /// What `setup` and `reload` send it.
    package func settings(of worker: WorkerID) -> Settings {
        let row = row(of: worker)
        var values = entry(of: worker).flatMap { settings[$0.kind]?[$0.position].settings } ?? Settings()
        if case .worker(let key) = row.memoryLimit, let memory = limits[worker.kind].memory {
            let megabytes = Int(memory >> 20)
            values[key] = String(min(megabytes, values.int(key, default: megabytes)))
        }
        table.row(row.settingsOf ?? row.kind).rules.refine(&values, of: worker, self)
        if let logLevel { values["logLevel"] = logLevel }
        return values
    }

    /// For one worker and those that read the same settings; used for ports once they are bound.
    package mutating func set(_ key: String, _ value: String, for worker: WorkerID) {
        guard let entry = entry(of: worker) else { return }
        settings[entry.kind]?[entry.position].settings[key] = value
    }

    /// Where a worker's settings are.
    private func entry(of worker: WorkerID) -> (kind: WorkerKind, position: Int)? {
        let kind = row(of: worker).settingsOf ?? worker.kind
        guard let position = settings[kind]?.firstIndex(where: { $0.indexes.contains(worker.index) }) else {
            return nil
        }
        return (kind, position)
    }

    /// The numbers of a kind's workers, ascending.
    private func indexes(of row: WorkerRow) -> [Int] {
        (settings[row.settingsOf ?? row.kind] ?? []).flatMap(\.indexes).sorted()
    }

    /// All of the platform, in the order they are shown.
    package var workers: [WorkerID] { table.rows.flatMap { row in indexes(of: row).map { WorkerID(row.kind, $0) } } }
}

/// Settings that some workers of one kind have in common.
package struct WorkerSettings: Hashable, Sendable {
    /// The workers' numbers.
    package internal(set) var indexes: [Int]
    /// What `setup` sends all of them.
    package internal(set) var settings: Settings
}

extension Set<String> {
    mutating func set(_ name: String, _ isMember: Bool) {
        if isMember { insert(name) } else { remove(name) }
    }
}

extension [String: String] {
    mutating func setDefault(_ key: String, _ value: String) { if self[key] == nil { self[key] = value } }
}
