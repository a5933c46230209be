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
    /// It is a plugin that uses memory up: `PluginConduct` ends the process within the guilty call, and holds it against the plugin.
    static let endsBeforeMemoryDoes = false

    private let environment: WorkerEnvironment
    private let catalogue: FilterCatalogue
    private let service: FilterService
    private var links: [Int: PeerLink] = [:]
    private var releaseScheduled = false

    /// The folders plugins come from, and which of their files are plugins.
    private let folders: [(path: String, names: (String) -> Bool)]
    private var watches: [SharedDescriptor] = []
    private var watching: [EventWatch] = []
    private var rescanScheduled = false

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        let logger = environment.logger
        // The plugins that come with Apus lie beside the workers; one's own go to a folder of one's own.
        let own = try Self.ownFolder()
        let given = Self.pluginFolder(environment.settings)
        var folders: [(path: String, names: (String) -> Bool)] = [(own, Self.comesWithApus)]
        if !given.isEmpty, given != own { folders.append((given, FilterCatalogue.isPluginName)) }
        self.folders = folders
        for folder in folders {
            do throws(SystemError) {
                watches.append(SharedDescriptor(try FolderWatch.create(folder.path)))
            } catch {
                logger.warning("new plugins in \(folder.path) are not noticed before the next start: \(error)")
            }
        }
        catalogue = FilterCatalogue(logger: logger, conduct: try Self.isolate(environment))
        for folder in folders { catalogue.load(directory: folder.path, names: folder.names) }
        service = FilterService(catalogue: catalogue, disk: RealDisk(), logger: logger)
    }

    private static func comesWithApus(_ name: String) -> Bool {
        FilterCatalogue.isPluginName(name) && name.hasPrefix("libApus") && name.hasSuffix("Filter.so")
    }

    func start() -> EventLoopFuture<String> {
        let worker = NIOLoopBound(self, eventLoop: environment.eventLoop)
        let watching = watches.map { watch in
            EventWatch.start(watch.raw, on: environment.eventLoop) { worker.value.folderChanged() }
        }
        return EventLoopFuture.whenAllSucceed(watching, on: environment.eventLoop).map { watching in
            worker.value.watching = watching
            return worker.value.service.status
        }
    }

    /// One look for all changes of a moment: copying a file makes several.
    private func folderChanged() {
        guard !rescanScheduled else { return }
        rescanScheduled = true
        let worker = NIOLoopBound(self, eventLoop: environment.eventLoop)
        environment.eventLoop.scheduleTask(in: .milliseconds(100)) {
            worker.value.rescanScheduled = false
            worker.value.rescan()
        }
    }

    private func rescan() {
        for folder in folders {
            switch catalogue.rescan(directory: folder.path, names: folder.names) {
            case .nothing: continue
            case .new(let count): environment.logger.info("\(count) new plugin files in \(folder.path)")
            case .stale(let reason):
                // Batches under way are asked again by their broker-stores.
                return environment.fail("\(reason): a fresh filter worker takes over")
            }
        }
    }

    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        guard kind == .brokerStore else {
            environment.logger.error("introduced to \(kind.rawValue), which the filter worker does not talk to")
            close(descriptor)
            return
        }
        let log = Self.commitLogFolder(index == 0 ? "" : "#\(index)", environment.settings)
        // The folder may not be there yet; what counts is whether it can be read once it is.
        guard Self.mayRead(Self.existing(log)) else {
            close(descriptor)
            // A broker-store on a disk that came later than this process: what may be read was settled without it.
            return environment.fail("\(log) is new here: a fresh filter worker takes over")
        }
        links[index]?.close()
        service.storeReplaced(index: index)
        do {
            let watermarks = try environment.segment(index == 0 ? "watermarks" : "watermarks#\(index)")
            service.addStore(index: index, directory: log, watermarks: watermarks)
        } catch {
            environment.logger.error("broker-store \(index) cannot be served: \(error)")
            close(descriptor)
            return
        }
        links[index] = PeerLink.attach(descriptor, on: environment.eventLoop) { [weak self] message in
            self?.received(message, from: index)
        } closed: { [weak self] in
            self?.links[index] = nil
            self?.service.storeReplaced(index: index)
        }
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

    func status() -> String { service.status }

    private static func pluginFolder(_ settings: Settings) -> String { settings.string("pluginDirectory", default: "") }

    /// What may be read from now on: libraries, plugins, the logs, and what the operator names. Everything else of the
    /// machine is none of a plugin's business.
    static func confine(settings: Settings, logger: Logger) throws {
        // Others first: a plugin that computes all day takes what the broker leaves.
        if setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 5) != 0 {
            logger.warning("the filter worker keeps its priority: setpriority failed, errno \(errno)")
        }
        guard settings.bool("filterSandbox", default: true) else { return }
        var paths = Sandbox.foldersOfLibraries().union(["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"])
        paths.insert(try ownFolder())
        let named = settings.string("filterReadable", default: "").split(separator: ":").map(String.init)
        let own = ([pluginFolder(settings)] + commitLogFolders(settings) + named).filter { !$0.isEmpty }
        paths.formUnion(own.map(existing))
        do {
            guard let version = try Sandbox.restrictReading(to: paths.sorted()) else {
                logger.warning(
                    "this kernel has no Landlock (Linux 5.13, lsm=landlock): plugins can read every file that this user can"
                )
                return
            }
            logger.info(
                "plugins read libraries and \(own.joined(separator: ", ")), nothing else (Landlock, version \(version))"
            )
        } catch {
            throw WorkerError(
                "what plugins may read cannot be limited: \(error); filterSandbox=false does without, if you trust them"
            )
        }
    }

    /// The folder, or the nearest one above it that exists: the broker-store may not have made it yet.
    private static func existing(_ path: String) -> String {
        var path = path
        while access(path, F_OK) != 0, let slash = path.lastIndex(of: "/"), slash > path.startIndex {
            path = String(path[..<slash])
        }
        return path
    }

    /// Whether a folder can be listed, or is not there yet.
    private static func mayRead(_ folder: String) -> Bool {
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return errno != EACCES }
        close(descriptor)
        return true
    }

    private static func commitLogFolders(_ settings: Settings) -> [String] {
        let suffixes = settings.sorted.compactMap { key, _ -> String? in
            for name in ["storePathCommitLog", "storePathRootDir"] where key.hasPrefix(name) {
                let rest = key.dropFirst(name.count)
                if rest.isEmpty || rest.hasPrefix("#") { return String(rest) }
            }
            return nil
        }
        return Set((suffixes + [""]).map { commitLogFolder($0, settings) }).sorted()
    }

    /// `storePathCommitLog`, by default `commitlog` below `storePathRootDir`, both with `#N` for a further broker-store.
    private static func commitLogFolder(_ suffix: String, _ settings: Settings) -> String {
        if let path = settings["storePathCommitLog\(suffix)"], !path.isEmpty { return path }
        return settings.string("storePathRootDir\(suffix)", default: "store") + "/commitlog"
    }

    /// Shuts this process in, before the first foreign instruction runs in it.
    private static func isolate(_ environment: WorkerEnvironment) throws -> PluginConduct {
        let settings = environment.settings
        var limits = PluginConduct.Limits()
        limits.budgetMilliseconds = UInt32(clamping: max(1, settings.int("filterTimeBudgetMillis", default: 1000)))
        let megabytes = max(64, settings.int("filterMemoryMegabytes", default: 512))
        // Below the hard limit, so that the end comes with words.
        limits.memory = UInt64(megabytes) << 20 / 8 * 7
        let conduct = try PluginConduct(
            segment: try environment.segment("plugins"), limits: limits, logger: environment.logger
        ) {
            var time = timespec()
            clock_gettime(CLOCK_REALTIME, &time)
            return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
        }
        guard settings.bool("filterSandbox", default: true) else {
            environment.logger.warning("filterSandbox=false: plugins may open files and sockets")
            return conduct
        }
        // The journal's socket is made with the first line; afterwards there are no new sockets.
        environment.logger.info("plugins run without network and without writing, with at most \(megabytes) MB")
        do {
            try Sandbox.enter(memory: UInt64(megabytes) << 20)
        } catch {
            throw WorkerError(
                "the sandbox for plugins cannot be made: \(error); filterSandbox=false does without, if you trust them")
        }
        return conduct
    }

    private static func ownFolder() throws -> String {
        var path = [CChar](repeating: 0, count: Int(PATH_MAX))
        let length = readlink("/proc/self/exe", &path, path.count)
        guard length > 0 else { throw WorkerError("cannot tell where apus-filter lies: errno \(errno)") }
        let text = String(decoding: path[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return String(text[..<(text.lastIndex(of: "/") ?? text.endIndex)])
    }
}
