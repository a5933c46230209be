internal import Glibc
package import Logging

/// The plugins of this process by the expression type they serve.
package final class FilterCatalogue {
    package private(set) var plugins: [FilterPlugin] = []
    /// The files that were looked at and not taken, with the reason: shown in the worker's status.
    package private(set) var refusals: [FilterPluginError] = []
    /// The files of the folders as they were when they were loaded.
    private var known: [String: FileIdentity] = [:]
    private let host: FilterHost
    private let logger: Logger

    private let conduct: PluginConduct?

    /// - Parameter conduct: guards the calls of the plugins and remembers their deeds; nil: they are trusted.
    package init(logger: Logger, conduct: PluginConduct? = nil) {
        self.logger = logger
        self.conduct = conduct
        host = FilterHost(logger: logger)
    }

    @discardableResult
    package func load(path: String) throws(FilterPluginError) -> FilterPlugin {
        do {
            let plugin = try FilterPlugin.load(path: path, host: host, after: plugins, conduct: conduct)
            plugins.append(plugin)
            if let history = plugin.history {
                let consequence = plugin.unavailability.map { ": \($0)" } ?? ""
                logger.error("filter plugin \(plugin.name): \(history)\(consequence)")
            }
            logger.info(
                "filter plugin loaded",
                metadata: ["plugin": "\(plugin.name)", "type": "\(plugin.type)", "path": "\(path)"])
            return plugin
        } catch {
            refusals.append(error)
            logger.error("filter plugin refused: \(error)")
            throw error
        }
    }

    /// Loads every plugin of a folder, in the order of the file names so that "loaded first" means the same on each start.
    /// A refused plugin does not stop the others.
    package func load(directory: String, names: (String) -> Bool = FilterCatalogue.isPluginName) {
        for (path, identity) in files(directory, names) {
            known[path] = identity
            loadNoted(path)
        }
    }

    /// What looking at the folders again has shown.
    package enum Change: Equatable {
        case nothing
        /// So many new files were loaded or refused.
        case new(Int)
        /// A file this process knows was replaced or removed: only a fresh process can take that.
        case stale(String)
    }

    /// Looks at a folder again, after files were put in or taken out.
    package func rescan(directory: String, names: (String) -> Bool = FilterCatalogue.isPluginName) -> Change {
        let present = files(directory, names)
        let paths = Set(present.map(\.path))
        for path in known.keys.sorted() where path.hasPrefix(directory + "/") && !paths.contains(path) {
            return .stale("\(path) was removed")
        }
        for (path, identity) in present {
            if let before = known[path], before != identity { return .stale("\(path) was replaced") }
        }
        let new = present.filter { known[$0.path] == nil }
        for (path, identity) in new {
            known[path] = identity
            loadNoted(path)
        }
        return new.isEmpty ? .nothing : .new(new.count)
    }

    /// Which file a path led to.
    private struct FileIdentity: Equatable {
        var inode: UInt64
        var size: Int64
        var seconds: Int
        var nanoseconds: Int
    }

    private func loadNoted(_ path: String) {
        do {
            try load(path: path)
        } catch {
            return  // Recorded and logged by load(path:).
        }
    }

    private func files(_ directory: String, _ names: (String) -> Bool) -> [(path: String, identity: FileIdentity)] {
        guard let folder = opendir(directory) else {
            let reason = String(cString: strerror(errno))
            logger.error("plugin folder \(directory) cannot be read (\(reason)): no filter plugins from there")
            return []
        }
        defer { closedir(folder) }
        var found: [(path: String, identity: FileIdentity)] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            let path = directory + "/" + name
            var status = stat()
            guard names(name), stat(path, &status) == 0 else { continue }
            found.append(
                (
                    path,
                    FileIdentity(
                        inode: UInt64(status.st_ino), size: Int64(status.st_size), seconds: status.st_mtim.tv_sec,
                        nanoseconds: status.st_mtim.tv_nsec)
                ))
        }
        return found.sorted { $0.path < $1.path }
    }

    /// `lib….so`, the form of every plugin file.
    package static func isPluginName(_ name: String) -> Bool { name.hasPrefix("lib") && name.hasSuffix(".so") }

    package func plugin(forType type: String) -> FilterPlugin? { plugins.first { $0.type == type } }
}
