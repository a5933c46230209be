import Glibc
import LinuxSystem
import MessageStore
import WorkerKit
import WorkerProtocol

/// Whether the disk this broker is set to work on is there, before anything is written to it. A mount point without its
/// disk is a folder like any other, of the disk below.
struct DiskGuard {
    let path: String
    private let mark: DiskMark?
    private let hasServed: Bool
    private let store: String

    init(_ settings: Settings, storePathRootDir: String) {
        path = settings["diskPath"] ?? storePathRootDir
        store = storePathRootDir
        hasServed = settings.bool("diskServed", default: false)
        mark = settings["diskIdentity"].map {
            DiskMark(
                identity: $0, slot: settings["diskSlot"].flatMap { Int($0) },
                brokerName: settings.string("brokerName", default: ""))
        }
    }

    /// Throws a `WorkerError` of the cause `disk` when the disk is not there. A new disk gets its mark.
    /// - Parameter warn: called with what an operator may not want.
    func admit(warn: (String) -> Void) throws(WorkerError) {
        guard let mark else { return }
        do throws(SystemError) {
            guard let found = try DiskMark.read(in: path) else {
                return try admitWithoutMark(mark, warn)
            }
            guard found.identity == mark.identity else {
                throw SystemError(errno: ESTALE, call: found.brokerName, subject: path)
            }
        } catch {
            throw WorkerError(explain(error, mark), cause: .disk)
        }
    }

    private func admitWithoutMark(_ mark: DiskMark, _ warn: (String) -> Void) throws(SystemError) {
        if mark.slot == nil { try RunDirectory.makeDirectories(path) }
        guard MountPoint.device(of: path) != nil else { throw SystemError(errno: ENOENT, call: "stat", subject: path) }
        let disk = RealDisk()
        let hasStore = try !disk.list("\(store)/commitlog").isEmpty
        if hasServed && !hasStore {
            let names = try disk.list(path)
            let isEmpty = names.allSatisfy { $0 == "lost+found" || $0.hasPrefix(DiskMark.fileName) }
            guard isEmpty && MountPoint.isMounted(at: path) else {
                throw SystemError(errno: ENODEV, call: "mark", subject: path)
            }
            warn("an empty disk is mounted at \(path), where \(mark.brokerName) had another: it begins anew there")
        } else if mark.slot != nil && !MountPoint.isMounted(at: path) {
            warn("\(path) is a folder and not the mount point of a disk of its own")
        }
        try mark.write(in: path)
    }

    private func explain(_ error: SystemError, _ mark: DiskMark) -> String {
        switch error.errno {
        case ENODEV:
            "\(path) is not the disk of \(mark.brokerName): no \(DiskMark.fileName) and no messages are there; mount "
                + "the disk (to begin anew without it, mount an empty one, or remove its line from the file 'disks' in "
                + "the data directory)"
        case ENOENT: "there is no \(path): mount the disk of \(mark.brokerName) there"
        case ESTALE:
            "the disk at \(path) is that of \(error.call), not of \(mark.brokerName): mount each at its place, or "
                + "restart the platform if they have moved for good"
        default: "the disk of \(mark.brokerName) cannot be used: \(error)"
        }
    }
}
