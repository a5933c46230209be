import FilterEngine
import Glibc
import LinuxSystem
import Logging
import NIOCore
import WorkerKit
import WorkerProtocol

/// The filter process: loads the plugins, answers the broker-stores, owns nothing. Killed and restarted at will.
final class FilterWorker: Worker {
    static let kind = WorkerKind.filter
    /// It is a plugin that uses memory up: `PluginConduct` ends the process within the guilty call, and holds it
    /// against the plugin.
    static let endsBeforeMemoryDoes = false

    private let environment: WorkerEnvironment
    private let catalogue: FilterCatalogue
    private let service: FilterService
    private let conduct: PluginConduct
    private let folders: PluginFolders
    private var links: [Int: PeerLink] = [:]
    private var releaseScheduled = false
    private var role: FilterRole

    private var watched: Set<String> = []
    private var watches: [SharedDescriptor] = []
    private var watching: [EventWatch] = []
    private var lookScheduled = false
    private var isRenewing = false
    private var served: [String] = []
    private var reported = ""

    /// A look at the folders when no change of them was reported: for folders that were not there, and for records that
    /// are forgotten.
    private static let lookSeconds: Int64 = 1

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        let logger = environment.logger
        role = FilterRole(index: environment.index, environment.settings)
        let executables = try OwnProgram.folder()
        let builtIns = BuiltInPlugins.find(beside: executables)
        guard builtIns.missing.isEmpty else { throw Self.incomplete(builtIns.missing, executables) }
        // Memory for copies of plugins is made here: in the sandbox there is no more of it.
        let supply = try FrozenFile.Supply(reserve: role == .builtIns ? 0 : PluginFolders.filesMax)
        conduct = try FilterSandbox.enter(environment)
        catalogue = FilterCatalogue(logger: logger, conduct: conduct, supply: supply)
        for path in builtIns.paths {
            do {
                try catalogue.load(path: path)
            } catch {
                throw WorkerError(
                    "a plugin that comes with Apus cannot be used: \(error) Install Apus again.", cause: .settings)
            }
        }
        folders = PluginFolders(
            PluginPlaces.ofOperators(environment.settings, beside: executables), catalogue: catalogue)
        service = FilterService(catalogue: catalogue, disk: RealDisk(), logger: logger)
        if let explanation = conduct.explanation { environment.send(.explained(cause: explanation)) }
        if role != .builtIns { lookAtStart() }
    }

    /// A file written a moment ago may still grow. Its consumers would get an error if this worker reported before that
    /// no worker serves its type.
    private func lookAtStart() {
        let end = MonotonicClock.milliseconds + 500
        var look = folders.look(role.share)
        while look.isPending, look.stale == nil, MonotonicClock.milliseconds < end {
            usleep(50_000)
            look = folders.look(role.share)
        }
        if look.isPending { lookSoon(inMilliseconds: 100) }
    }

    private static func incomplete(_ missing: [String], _ executables: String) -> WorkerError {
        WorkerError(PluginPlaces.complaint(missing: missing, beside: executables), cause: .settings)
    }

    func start() -> EventLoopFuture<String> {
        let worker = NIOLoopBound(self, eventLoop: environment.eventLoop)
        if role != .builtIns { watchFolders() }
        environment.eventLoop.scheduleRepeatedTask(
            initialDelay: .seconds(Self.lookSeconds), delay: .seconds(Self.lookSeconds)
        ) { _ in worker.value.tick() }
        report()
        return environment.eventLoop.makeSucceededFuture("\(role.title): \(service.status)")
    }

    // MARK: - The folders

    private func watchFolders() {
        for folder in folders.folders where !watched.contains(folder) && access(folder, F_OK) == 0 {
            do throws(SystemError) {
                let watch = SharedDescriptor(try FolderWatch.create(folder))
                watches.append(watch)
                watched.insert(folder)
                let worker = NIOLoopBound(self, eventLoop: environment.eventLoop)
                EventWatch.start(watch.raw, on: environment.eventLoop) { worker.value.lookSoon(inMilliseconds: 50) }
                    .whenSuccess { worker.value.watching.append($0) }
            } catch {
                // Looked at every second all the same.
                watched.insert(folder)
                environment.logger.info("changes in \(folder) are noticed within a second: \(error)")
            }
        }
    }

    private func tick() {
        if role != .builtIns {
            conduct.others = FilterSandbox.others(environment)
            watchFolders()
            look()
            serve()
        }
        report()
    }

    /// One look for all changes of a moment: copying a file makes several.
    private func lookSoon(inMilliseconds delay: Int64) {
        guard !lookScheduled else { return }
        lookScheduled = true
        let worker = NIOLoopBound(self, eventLoop: environment.eventLoop)
        environment.eventLoop.scheduleTask(in: .milliseconds(delay)) {
            worker.value.lookScheduled = false
            worker.value.look()
            worker.value.serve()
            worker.value.report()
        }
    }

    private func look() {
        guard !isRenewing else { return }
        let look = folders.look(role.share)
        if look.new > 0 {
            environment.logger.info(
                "\(counted(look.new, "new plugin file")) in \(folders.folders.joined(separator: ", "))")
        }
        if let reason = look.stale { return renew(reason) }
        if look.isPending { lookSoon(inMilliseconds: 100) }
    }

    /// Batches under way are asked again by their broker-stores.
    private func renew(_ reason: String) {
        guard !isRenewing else { return }
        isRenewing = true
        environment.send(.renew(reason: "\(reason): a fresh filter worker takes over"))
    }

    func reload(settings: Settings) {
        let executables = (try? OwnProgram.folder()) ?? ""
        guard PluginPlaces.ofOperators(settings, beside: executables) == folders.folders else {
            // What may be read was settled without the new ones.
            if role != .builtIns { renew("pluginDirectory is another one now") }
            return
        }
        let fresh = FilterRole(index: environment.index, settings)
        guard fresh != role else { return }
        role = fresh
        look()
        serve()
        report()
    }

    func pardon(name: String) {
        guard folders.pardon(name) else { return }
        environment.logger.notice("plugin \(name) is pardoned, as asked: its faults are forgotten")
        look()
        serve()
        report()
    }

    // MARK: - Broker-stores

    private var types: [String] {
        role == .builtIns ? catalogue.plugins.map(\.type) : folders.types(role.share)
    }

    /// Reports to the broker-stores what is served here, when that has changed.
    private func serve() {
        let types = types
        guard types != served else { return }
        served = types
        for link in links.values { link.send(.filterServes(rank: role.rank, types: types)) }
    }

    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        guard kind == .brokerStore else {
            environment.logger.error("introduced to \(kind.rawValue), which the filter worker does not talk to")
            close(descriptor)
            return
        }
        let log = environment.settings.commitLogFolder(suffix: index == 0 ? "" : "#\(index)")
        // The folder may not be there yet; what counts is whether it can be read once it is.
        guard FilterSandbox.mayRead(FilterSandbox.existing(log)) else {
            close(descriptor)
            // A broker-store on a disk that came later than this process: what may be read was settled without it.
            return renew("\(log) is new here")
        }
        links[index]?.close()
        service.storeReplaced(index: index)
        do {
            let watermarks = try environment.segment("watermarks", of: WorkerID(.brokerStore, index))
            service.addStore(index: index, directory: log, watermarks: watermarks)
        } catch {
            environment.logger.error("broker-store \(index) cannot be served, its filtered consumers wait: \(error)")
            close(descriptor)
            return
        }
        links[index] = PeerLink.attach(descriptor, on: environment.eventLoop) { [weak self] message in
            self?.received(message, from: index)
        } closed: { [weak self] in
            self?.links[index] = nil
            self?.service.storeReplaced(index: index)
        }
        serve()
        links[index]?.send(.filterServes(rank: role.rank, types: served))
    }

    private func received(_ message: WorkerMessage, from index: Int) {
        if let answer = service.answer(message, store: index) { links[index]?.send(answer) }
        guard case .filterBatch = message, !releaseScheduled else { return }
        releaseScheduled = true
        let worker = NIOLoopBound(self, eventLoop: environment.eventLoop)
        environment.eventLoop.scheduleTask(in: .seconds(1)) {
            worker.value.releaseScheduled = false
            worker.value.service.releaseWindows()
        }
    }

    func drain(_ reason: DrainReason) -> EventLoopFuture<Void> {
        // Answers already made leave with the links' last flush; a question without an answer is asked again.
        environment.eventLoop.makeSucceededVoidFuture()
    }

    func status() -> String { "\(role.title): \(service.status)" }

    func trouble() -> String { service.trouble }

    static func confine(settings: Settings, logger: Logger) throws {
        try FilterSandbox.confine(settings: settings, logger: logger)
    }

    /// What `apus plugin status` shows, when it has changed.
    private func report() {
        let report = FilterReport.json(role: role, folders: folders, catalogue: catalogue, service: service)
        guard report != reported else { return }
        reported = report
        environment.send(.report(json: report))
    }
}
