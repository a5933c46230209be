import Foundation
import Synchronization

/// A real filesystem of a few megabytes over a platform's data folder, in a mount namespace of its own: the machine's
/// other processes never see it, and it goes with the process that holds it.
final class SmallDisk: Sendable {
    enum Kind: String, CaseIterable, Sendable {
        case tmpfs, ext4
    }

    /// Why there can be none here, or nil.
    static let whyNot: String? = {
        guard geteuid() == 0 else { return "mounting a small filesystem needs root" }
        for tool in ["/usr/bin/unshare", "/usr/bin/nsenter", "/sbin/mkfs.ext4"] {
            if !FileManager.default.isExecutableFile(atPath: tool) { return "\(tool) is not installed" }
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/unshare")
        process.arguments = ["--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "probe", "/mnt"]
        process.standardError = FileHandle.nullDevice
        do { try process.run() } catch { return "unshare: \(error)" }
        process.waitUntilExit()
        return process.terminationStatus == 0 ? nil : "this machine does not allow mount namespaces"
    }()

    private let holder: Program
    private let mountPoint: String
    private let image: String

    /// Mounted at `data` in the folder.
    init(_ kind: Kind, megabytes: Int, in folder: TemporaryFolder) async throws {
        mountPoint = folder.file("data")
        image = folder.file("image")
        try FileManager.default.createDirectory(atPath: mountPoint, withIntermediateDirectories: true)
        let mount: String
        switch kind {
        case .tmpfs: mount = "mount -t tmpfs -o size=\(megabytes)m small '\(mountPoint)'"
        case .ext4:
            mount =
                "truncate -s \(megabytes)M '\(image)' && mkfs.ext4 -q -m 0 '\(image)' && "
                + "mount -t ext4 -o loop '\(image)' '\(mountPoint)'"
        }
        holder = try Program(
            "/usr/bin/unshare", ["--mount", "/bin/sh", "-c", "\(mount) && echo mounted && exec cat"], input: .pipe)
        _ = try await holder.line { $0 == "mounted" }
    }

    /// To be put before a command that shall see the disk.
    var launcher: [String] { ["/usr/bin/nsenter", "--mount", "--target", String(holder.pid), "--"] }

    /// How a path inside the disk is reached from outside.
    func outside(_ path: String) -> String { "/proc/\(holder.pid)/root\(path)" }

    private var filler: String { outside(mountPoint + "/filler") }

    /// Takes every byte that is left.
    func fill() throws {
        let descriptor = open(filler, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw ScenarioFailure("\(filler): \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        let bytes = [UInt8](repeating: 1, count: 1 << 20)
        for piece in [1 << 20, 4096, 1] {
            while write(descriptor, bytes, piece) > 0 {}
            guard errno == ENOSPC else { throw ScenarioFailure("filling: \(String(cString: strerror(errno)))") }
        }
    }

    func free() throws { try FileManager.default.removeItem(atPath: filler) }

    /// Bytes that are free.
    var available: Int {
        var space = statvfs()
        return statvfs(outside(mountPoint), &space) == 0 ? Int(space.f_bavail) * Int(space.f_frsize) : -1
    }

    /// When no process uses it any more.
    func unmount() async throws {
        holder.closeInput()
        try await holder.finish()
    }
}
