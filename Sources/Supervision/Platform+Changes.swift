import LinuxSystem
import Logging
import Systemd
import WorkerProtocol

/// What changes while the platform runs: settings, brokers, one worker's process.
extension Platform {
    /// What became of new settings.
    struct Reloaded {
        /// Why nothing was taken over.
        var refusal: String?
        /// What did not take effect, each with what it needs.
        var pending: [String] = []

        var json: String {
            if let refusal { return JSONText.object([("error", JSONText.string(refusal))]) }
            guard !pending.isEmpty else { return JSONText.object([("ok", "true")]) }
            return JSONText.object([
                ("ok", "true"), ("pending", "[" + pending.map(JSONText.string).joined(separator: ",") + "]"),
            ])
        }
    }

    /// Workers get the new settings, brokers come and go. What cannot change while running keeps its value and is
    /// reported.
    @discardableResult
    func reload() -> Reloaded {
        var outcome = Reloaded()
        Notifier.send([.reloading(monotonicMicroseconds: MonotonicClock.nanoseconds / 1000)])
        defer { Notifier.send([.ready, .status(state.statusLine)]) }
        do {
            var fresh = try readAgain()
            var changes = fresh.keepRunning(configuration)
            outcome.pending += changes.kept.map { "\($0): restart the platform" }
            outcome.pending += fresh.readAtStart(since: configuration)
            for text in outcome.pending { logger.warning("reload: without effect until a restart: \(text)") }
            let workers = fresh.workers
            for index in changes.added {
                do {
                    try resources.add(workers.filter { $0.index == index && isPerBroker($0) }, &fresh)
                } catch {
                    let text = "broker \(index) is not added: \(error); correct that, then apus reload adds it"
                    logger.error("\(text)")
                    outcome.pending.append(text)
                    fresh.remove(broker: index)
                    changes.added.removeAll { $0 == index }
                }
            }
            configuration = fresh
            for text in limiter.update(fresh) { logger.warning("\(text)") }
            for (id, child) in children {
                for text in limiter.apply(to: child.process, id) { logger.warning("\(id): \(text)") }
            }
            logger.notice("configuration read again")
            handle(.reload)
            plugins = fresh.pluginFolder(executables: executables)
            growFilters()
            guard !changes.added.isEmpty || !changes.removed.isEmpty else { return outcome }
            handle(
                .changed(
                    added: configuration.workers.filter { isPerBroker($0) && changes.added.contains($0.index) },
                    removed: state.workers.map(\.id).filter { isPerBroker($0) && changes.removed.contains($0.index) }))
            return outcome
        } catch {
            logger.error("reload refused, the configuration stays as it was; correct it, then apus reload: \(error)")
            return Reloaded(refusal: "\(error)")
        }
    }

    /// `broker-store@1`, as units of systemd's are called, or `broker-store-1`, as the worker is called here. With one
    /// worker of the kind its number may be left out.
    func restart(_ name: String) -> String {
        func refused(_ reason: String) -> String {
            JSONText.object([("error", JSONText.string(reason))])
        }
        let plain = String(name.map { $0 == "@" ? "-" : $0 })
        let ids = state.workers.map(\.id)
        let ofKind = ids.filter { $0.kind.rawValue == plain }
        guard let id = ids.first(where: { $0.description == plain }) ?? (ofKind.count == 1 ? ofKind[0] : nil) else {
            let known = ids.map { "\($0.kind.rawValue)@\($0.index)" }.joined(separator: ", ")
            return refused("there is no worker \(name); there are \(known)")
        }
        guard !state.isStopping else { return refused("the platform is being stopped") }
        let pid = state.worker(id)?.pid ?? 0
        handle(.restart(id))
        return JSONText.object([
            ("ok", "true"), ("kind", JSONText.string(id.kind.rawValue)), ("index", String(id.index)),
            ("pid", String(pid)),
        ])
    }

    /// A broker serves from its disk: from now on the disk must be there, or the broker is not started.
    func remember(diskOf id: WorkerID) {
        let settings = configuration.settings(of: id)
        guard configuration.row(of: id).ownsDisk, let identity = settings["diskIdentity"],
            !settings.bool("diskServed", default: false)
        else { return }
        do {
            var register = try DiskRegister(dataDirectory: configuration.dataDirectory)
            try register.served(identity: identity)
            configuration.set("diskServed", "true", for: id)
        } catch {
            logger.error(
                """
                \(id): that its disk has been served was not saved, so that the broker would begin anew in an empty \
                folder if the disk were missing at its next start: \(error); \
                apus restart \(id.kind.rawValue)@\(id.index) saves it
                """)
        }
    }

    /// Comes and goes with a broker.
    private func isPerBroker(_ worker: WorkerID) -> Bool { configuration.row(of: worker).count == .perBroker }
}
