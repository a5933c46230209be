import CLinux
import Glibc

/// A folder that holds `apus.pid`, locked until the platform that runs on the data directory ends, and the control
/// socket.
package final class RunDirectory: Sendable {
    /// Why the folder cannot be taken.
    package enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case running(pid: Int32, path: String)
        case system(SystemError)

        package var description: String {
            switch self {
            case .running(let pid, let path):
                "a platform already runs on this data directory: apusd, pid \(pid) (\(path)); "
                    + "stop it with 'apus down' or choose another --data-dir"
            case .system(let error): "the data directory cannot be used: \(error); choose another with --data-dir"
            }
        }
    }

    /// The two files in it.
    package static let pidName = "apus.pid"
    /// Of the supervisor's control socket in the folder.
    package static let socketName = "apus.sock"

    /// The folder, opened.
    package let directory: SharedDescriptor
    private let pidFile: SharedDescriptor

    /// Makes the folder, takes the lock and writes our pid into its file.
    /// - Throws: `running` when another platform holds the lock; `system` when the folder cannot be made or written.
    package init(path: String) throws(Failure) {
        do throws(SystemError) {
            try RunDirectory.makeDirectories(path)
            directory = SharedDescriptor(try RunDirectory.open(path))
            let file = Glibc.openat(directory.raw, RunDirectory.pidName, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            pidFile = SharedDescriptor(
                Descriptor(owning: try check(file < 0 ? -errno : file, "open", "\(path)/\(RunDirectory.pidName)")))
        } catch {
            throw .system(error)
        }
        // With the lock file's end the lock ends, however this process ends. `runningPid` of a program that looks just
        // now holds it for a moment.
        var attempts = 20
        while flock(pidFile.raw, LOCK_EX | LOCK_NB) != 0 {
            attempts -= 1
            guard attempts > 0 else {
                throw .running(pid: RunDirectory.pid(in: pidFile.raw) ?? 0, path: "\(path)/\(RunDirectory.pidName)")
            }
            usleep(5_000)
        }
        let text = "\(getpid())\n"
        _ = ftruncate(pidFile.raw, 0)
        _ = pwrite(pidFile.raw, text, text.utf8.count, 0)
    }

    /// Removes what is of no use after a clean stop.
    package func remove() {
        unlinkat(directory.raw, RunDirectory.socketName, 0)
        unlinkat(directory.raw, RunDirectory.pidName, 0)
    }

    /// The pid of the platform that holds the lock in `path`; nil when none does.
    package static func runningPid(path: String) -> Int32? {
        let fd = apus_open("\(path)/\(pidName)", O_RDONLY, 0)
        guard fd >= 0 else { return nil }
        let file = Descriptor(owning: fd)
        if flock(file.raw, LOCK_SH | LOCK_NB) == 0 { return nil }
        return pid(in: file.raw)
    }

    /// A folder, as a descriptor.
    /// - Throws: it is no folder, or may not be opened.
    package static func open(_ path: String) throws(SystemError) -> Descriptor {
        Descriptor(owning: try check(apus_open(path, O_RDONLY | O_DIRECTORY, 0), "open", path))
    }

    /// /dev/null, for reading and writing.
    /// - Throws: there is no free descriptor.
    package static func openNull() throws(SystemError) -> SharedDescriptor {
        SharedDescriptor(Descriptor(owning: try check(apus_open("/dev/null", O_RDWR, 0), "open", "/dev/null")))
    }

    /// As `mkdir -p`.
    /// - Throws: a folder cannot be made.
    package static func makeDirectories(_ path: String) throws(SystemError) {
        var made = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            made += "/\(part)"
            if mkdir(made, 0o755) < 0 && errno != EEXIST {
                throw SystemError(errno: errno, call: "mkdir", subject: made)
            }
        }
    }

    private static func pid(in file: Int32) -> Int32? {
        withUnsafeTemporaryAllocation(byteCount: 32, alignment: 1) { buffer in
            let count = pread(file, buffer.baseAddress, buffer.count, 0)
            guard count > 0 else { return nil }
            return Int32(String(decoding: buffer[..<count], as: UTF8.self).prefix { $0.isNumber })
        }
    }
}
