package import Foundation

/// Folders of tests that are gone when the test process is: also when the object that made one was still referenced
/// then, or was in an exit test's child, which ends without cleaning up.
package enum TestFolder {
    private static let removesAtExit: Void = {
        atexit { TestFolder.removeAll() }
    }()

    /// Makes `apus-NAME-…` in the folder for temporary files.
    package static func make(_ name: String) throws -> URL {
        removesAtExit
        let url = FileManager.default.temporaryDirectory.appendingPathComponent(
            "apus-\(name)-\(getppid())-\(getpid())-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        return url
    }

    private static func removeAll() {
        let folder = FileManager.default.temporaryDirectory
        for name in (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [] {
            let parts = name.split(separator: "-")
            // This process's own and those of its children.
            guard parts.count == 5, parts[0] == "apus", parts[2...3].contains(Substring(String(getpid()))) else {
                continue
            }
            try? FileManager.default.removeItem(at: folder.appendingPathComponent(name))
        }
    }
}
