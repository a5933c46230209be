package import LinuxSystem
package import Logging
import WorkerProtocol

/// The plugins of this process by the expression type they serve.
package final class FilterCatalogue {
    /// In the order they were loaded.
    package private(set) var plugins: [FilterPlugin] = []
    /// The files that were looked at and not taken, with the reason.
    package private(set) var refusals: [String: FilterPluginError] = [:]
    private let host: FilterHost
    let logger: Logger
    let conduct: PluginConduct?
    private let supply: FrozenFile.Supply?

    /// - Parameters:
    ///   - conduct: guards the calls of the plugins and remembers their deeds; nil: they are trusted.
    ///   - supply: where copies of plugin files are made; nil: files are loaded as they lie.
    package init(logger: Logger, conduct: PluginConduct? = nil, supply: FrozenFile.Supply? = nil) {
        self.logger = logger
        self.conduct = conduct
        self.supply = supply
        host = FilterHost(logger: logger)
    }

    /// Loads a file as it lies: for plugins that are not replaced in place.
    /// - Throws: why the plugin is refused.
    @discardableResult
    package func load(path: String) throws(FilterPluginError) -> FilterPlugin {
        var checksum: UInt32 = 0
        // A file that cannot be read is reported by the loader.
        do { checksum = try FrozenFile.checksum(of: path) } catch { checksum = 0 }
        return try take(path, image: nil, file: PluginFile(path: path, checksum: checksum))
    }

    /// Loads a private copy of a file, where copies can be made: nothing that happens to the file reaches this process.
    @discardableResult
    func loadCopy(_ image: FrozenFile, path: String) throws(FilterPluginError) -> FilterPlugin {
        try take(path, image: image, file: PluginFile(path: path, checksum: image.checksum))
    }

    /// A copy of a file; nil: this catalogue loads files as they lie. Throws ESTALE for a file that is being changed.
    func copy(_ path: String) throws(SystemError) -> FrozenFile? {
        guard let supply else { return nil }
        return try FrozenFile(copying: path, into: supply)
    }

    /// Whether there is memory for a copy of one more plugin in a process that cannot make more.
    var canCopy: Bool { supply?.isExhausted != true }

    private func take(
        _ path: String, image: FrozenFile?, file: PluginFile
    ) throws(FilterPluginError) -> FilterPlugin {
        do {
            let plugin = try FilterPlugin.load(
                path: path, image: image, file: file, host: host, after: plugins, conduct: conduct)
            plugins.append(plugin)
            refusals[path] = nil
            if let history = plugin.history {
                let consequence = plugin.unavailability.map { ": \($0)" } ?? ""
                logger.error("filter plugin \(plugin.name): \(history)\(consequence)")
            }
            logger.info(
                "filter plugin loaded",
                metadata: ["plugin": "\(plugin.name)", "type": "\(plugin.type)", "path": "\(path)"])
            return plugin
        } catch {
            refuse(path, error)
            throw error
        }
    }

    func refuse(_ path: String, _ error: FilterPluginError) {
        guard refusals[path] != error else { return }
        refusals[path] = error
        logger.error("filter plugin refused, subscriptions that need it wait until the file is replaced: \(error)")
    }

    func forget(refusalOf path: String) { refusals[path] = nil }

    /// nil: no plugin serves the type.
    package func plugin(forType type: String) -> FilterPlugin? { plugins.first { $0.type == type } }
}

/// The plugins that come with Apus: they are always loaded, wherever operators put their own.
package enum BuiltInPlugins {
    /// Their paths, or the names of those that lie nowhere.
    package static func find(beside executables: String) -> (paths: [String], missing: [String]) {
        PluginPlaces.findBuiltIns(beside: executables) { FrozenFile.Identity.of($0) != nil }
    }
}
