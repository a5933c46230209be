internal import Glibc
package import Logging

/// The plugins of this process by the expression type they serve.
package final class FilterCatalogue {
    package private(set) var plugins: [FilterPlugin] = []
    /// The files that were looked at and not taken, with the reason: shown in the worker's status.
    package private(set) var refusals: [FilterPluginError] = []
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
        guard let folder = opendir(directory) else {
            let reason = String(cString: strerror(errno))
            logger.error("plugin folder \(directory) cannot be read (\(reason)): no filter plugins from there")
            return
        }
        defer { closedir(folder) }
        var files: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if names(name) { files.append(name) }
        }
        for name in files.sorted() {
            do {
                try load(path: directory + "/" + name)
            } catch {
                continue  // Recorded and logged by load(path:).
            }
        }
    }

    /// `lib….so`, the form of every plugin file.
    package static func isPluginName(_ name: String) -> Bool { name.hasPrefix("lib") && name.hasSuffix(".so") }

    package func plugin(forType type: String) -> FilterPlugin? { plugins.first { $0.type == type } }
}
