import Glibc
package import WorkerProtocol

/// Which plugin files an operator has, for the supervisor, which looks at no plugin: the names in the folders.
package struct PluginFolder: Sendable {
    /// Absolute paths.
    package let folders: [String]
    private var changes: [String: Int] = [:]
    /// Names of plugin files at the last look.
    package private(set) var names: Set<String> = []

    package init(_ settings: Settings, executables: String) {
        folders = PluginPlaces.ofOperators(settings, beside: executables)
        _ = look()
    }

    /// Reads the names again where a folder changed, and answers whether they are others.
    package mutating func look() -> Bool {
        var times: [String: Int] = [:]
        for folder in folders {
            var status = stat()
            guard stat(folder, &status) == 0 else { continue }
            times[folder] = status.st_mtim.tv_sec &* 1_000_000_000 &+ status.st_mtim.tv_nsec
        }
        guard times != changes else { return false }
        changes = times
        let before = names
        names = folders.reduce(into: []) { $0.formUnion(PluginFolder.files(in: $1)) }
        return names != before
    }

    private static func files(in folder: String) -> [String] {
        guard let stream = opendir(folder) else { return [] }
        defer { closedir(stream) }
        var found: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if PluginPlaces.isOperators(name) { found.append(name) }
        }
        return found
    }
}
