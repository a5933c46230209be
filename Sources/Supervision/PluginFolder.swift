import Glibc
package import WorkerProtocol

/// How many plugin files an operator has, for the supervisor, which looks at no plugin: the names in the folders.
package struct PluginFolder: Sendable {
    package let folders: [String]
    private var changes: [String: Int] = [:]
    /// Plugin files at the last look.
    package private(set) var count = 0

    package init(_ settings: Settings, executables: String) {
        folders = PluginPlaces.ofOperators(settings, beside: executables)
        _ = look()
    }

    /// Counts again where a folder changed, and says whether the count is another one.
    package mutating func look() -> Bool {
        var times: [String: Int] = [:]
        for folder in folders {
            var status = stat()
            guard stat(folder, &status) == 0 else { continue }
            times[folder] = status.st_mtim.tv_sec &* 1_000_000_000 &+ status.st_mtim.tv_nsec
        }
        guard times != changes else { return false }
        changes = times
        let before = count
        count = folders.reduce(0) { $0 + PluginFolder.files(in: $1) }
        return count != before
    }

    private static func files(in folder: String) -> Int {
        guard let stream = opendir(folder) else { return 0 }
        defer { closedir(stream) }
        var count = 0
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if PluginPlaces.isOperators(name) { count += 1 }
        }
        return count
    }
}
