import LinuxSystem
import Logging
import WorkerProtocol

/// Operators' plugins come and go: with the first of them come workers for plugins. No plugin is looked at here, only
/// names in folders.
extension Platform {
    func lookForPlugins() {
        let now = MonotonicClock.milliseconds
        guard now >= nextPluginLook else { return }
        nextPluginLook = now + 500
        guard !state.isStopping, plugins.look() else { return }
        growFilters()
    }

    /// Starts the workers that the plugins there are now need; those that are there stay, and keep what they have.
    func growFilters() {
        var fresh = configuration
        let omitted = fresh.setPlugins(plugins.names)
        if let first = omitted.first {
            logger.error(
                """
                \(counted(omitted.count, "plugin file")) too many, not loaded: \
                \(first)\(omitted.count > 1 ? ", …" : ""); take some out of \(plugins.folders.joined(separator: ", "))
                """
            )
        }
        let added = fresh.workers.filter { !configuration.workers.contains($0) }
        guard !added.isEmpty || fresh.filter != configuration.filter else { return }
        do {
            if !added.isEmpty { try resources.add(added, &fresh) }
        } catch {
            logger.error("no filter workers can be started for new plugins, which are not loaded: \(error)")
            return
        }
        configuration = fresh
        for worker in state.workers where worker.id.kind == .filter && worker.isRunning {
            send(.reload(settings: configuration.settings(of: worker.id)), to: worker.id)
        }
        if !added.isEmpty { handle(.changed(added: added, removed: [])) }
    }

    /// What filter workers hold against a plugin is forgotten.
    func pardon(_ name: String) {
        for id in children.keys where id.kind == .filter { send(.pardon(name: name), to: id) }
    }

    /// Below what a socket takes at once, see `ControlSocket`.
    private static let reportBytesMax = 128 << 10

    /// What filter workers reported of plugins, and broker-stores of the groups that depend on them, as one line of
    /// JSON. Each report is a text in it, which the reader parses. So a plugin that has taken its worker over can forge
    /// its own worker's report, and no other. With very many brokers the last ones' reports are left out (`null`).
    var pluginReport: String {
        var left = Self.reportBytesMax
        func rows(_ kind: WorkerKind) -> String {
            let rows = state.workers.filter { $0.id.kind == kind }.map { worker in
                let report = JSONText.string(worker.report)
                left -= report.utf8.count
                return JSONText.object([
                    ("index", String(worker.id.index)), ("state", JSONText.string(worker.phaseName)),
                    ("restarts", String(worker.restarts)), ("lastFailure", JSONText.string(worker.lastFailure)),
                    ("report", worker.report.isEmpty || left < 0 ? "null" : report),
                ])
            }
            return "[" + rows.joined(separator: ",") + "]"
        }
        return JSONText.object([
            ("folder", JSONText.string(configuration.filter.string("pluginDirectory", default: ""))),
            ("folders", "[" + plugins.folders.map(JSONText.string).joined(separator: ",") + "]"),
            ("builtIns", JSONText.string(executables)), ("workers", rows(.filter)), ("brokers", rows(.brokerStore)),
        ])
    }
}
