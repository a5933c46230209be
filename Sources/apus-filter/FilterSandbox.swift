import FilterEngine
import Glibc
import LinuxSystem
import Logging
import WorkerKit
import WorkerProtocol

/// How a filter worker shuts itself in, before the first foreign instruction runs in it.
enum FilterSandbox {
    /// What may be read from now on: libraries, plugins, the logs, and what the operator names. Everything else of the
    /// machine is none of a plugin's business.
    static func confine(settings: Settings, logger: Logger) throws {
        // Others first: a plugin that computes all day takes what the broker leaves.
        if setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 5) != 0 {
            logger.warning(
                """
                the filter worker keeps its priority, plugins compete with the broker for processors: setpriority \
                failed, errno \(errno)
                """
            )
        }
        guard settings.bool("filterSandbox", default: true) else { return }
        var paths = Sandbox.foldersOfLibraries().union(["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"])
        let executables = try OwnProgram.folder()
        paths.formUnion(PluginPlaces.ofBuiltIns(beside: executables))
        let named = settings.string("filterReadable", default: "").split(separator: ":").map(String.init)
        // A plugin folder that is not there is not widened to the one above it, which may be the data directory.
        let plugins = PluginPlaces.ofOperators(settings, beside: executables).filter { access($0, F_OK) == 0 }
        let others = (commitLogFolders(settings) + named).filter { !$0.isEmpty }
        let own = plugins + others
        paths.formUnion(plugins + others.map(existing))
        do {
            guard let version = try Sandbox.restrictReading(to: paths.sorted()) else {
                logger.warning(
                    """
                    this kernel has no Landlock (Linux 5.13, lsm=landlock): plugins can read every file that this user \
                    can
                    """
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
    static func existing(_ path: String) -> String {
        var path = path
        while access(path, F_OK) != 0, let slash = path.lastIndex(of: "/"), slash > path.startIndex {
            path = String(path[..<slash])
        }
        return path
    }

    /// Whether a folder can be listed, or is not there yet.
    static func mayRead(_ folder: String) -> Bool {
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
        return Set((suffixes + [""]).map { settings.commitLogFolder(suffix: $0) }).sorted()
    }

    /// Shuts this process in, before the first foreign instruction runs in it.
    static func enter(_ environment: WorkerEnvironment) throws -> PluginConduct {
        let settings = environment.settings
        var limits = PluginConduct.Limits()
        limits.budgetMilliseconds = UInt32(clamping: max(1, settings.int("filterTimeBudgetMillis", default: 1000)))
        let megabytes = max(64, settings.int("filterMemoryMegabytes", default: 512))
        // Below the hard limit, so that the end has a reason.
        limits.memory = UInt64(megabytes) << 20 / 8 * 7
        let conduct = try PluginConduct(
            segment: try environment.segment("plugins"), others: others(environment), limits: limits,
            logger: environment.logger
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

    /// What the other filter workers remember, as far as it was given to this one.
    static func others(_ environment: WorkerEnvironment) -> [SharedSegment] {
        environment.segments("plugins", of: .filter).filter { $0.index != environment.index }.map(\.segment)
    }
}
