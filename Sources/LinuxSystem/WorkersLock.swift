import CLinux
import Glibc

/// A lock that every worker of a platform inherits as an open descriptor. It is held as long as one of them runs, also
/// beyond their supervisor's end: the next supervisor on the same data waits for them. It does not start a second
/// writer of a store, or a second listener of a port.
package final class WorkersLock: Sendable {
    /// Why the lock cannot be taken.
    package enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case held(by: String, seconds: Int)
        case system(SystemError)

        package var description: String {
            switch self {
            case .held(let pids, let seconds):
                "workers of the platform that ran on this data directory before do not end within \(seconds) s "
                    + "(processes \(pids)): end them with kill -9, then start again"
            case .system(let error): error.description
            }
        }
    }

    /// Longer than a worker without its supervisor may drain.
    package static let secondsMax = 15
    /// The file in the run directory.
    package static let name = "apus.workers"

    /// What workers inherit. flock(2) belongs to the open file, which all of them share.
    package let descriptor: SharedDescriptor
    private let directory: SharedDescriptor

    /// Waits until no worker of an earlier platform is left. The caller holds `run`, so no other supervisor starts any.
    /// - Throws: `held` when workers still run after `secondsMax`; `system` when the file cannot be opened.
    package init(in run: RunDirectory, waiting: () -> Void = {}) throws(Failure) {
        directory = run.directory
        let file = Glibc.openat(directory.raw, WorkersLock.name, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        do throws(SystemError) {
            descriptor = SharedDescriptor(
                Descriptor(owning: try check(file < 0 ? -errno : file, "open", WorkersLock.name)))
        } catch {
            throw .system(error)
        }
        let end = MonotonicClock.milliseconds + Int64(WorkersLock.secondsMax) * 1000
        var reported = false
        while flock(descriptor.raw, LOCK_EX | LOCK_NB) != 0 {
            if !reported { waiting() }
            reported = true
            guard MonotonicClock.milliseconds < end else {
                throw .held(by: pids, seconds: WorkersLock.secondsMax)
            }
            usleep(2_000)
        }
    }

    /// Which processes hold the lock now, for the message to the operator who waits.
    package func note(workers: [Int32]) {
        let text = workers.sorted().map(String.init).joined(separator: " ") + "\n"
        _ = ftruncate(descriptor.raw, 0)
        _ = pwrite(descriptor.raw, text, text.utf8.count, 0)
    }

    /// Removes the file of a platform whose workers have all ended.
    package func remove() { unlinkat(directory.raw, WorkersLock.name, 0) }

    private var pids: String {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
            let count = max(0, pread(descriptor.raw, buffer.baseAddress, buffer.count, 0))
            return String(decoding: buffer[..<count].prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
        }
    }
}
