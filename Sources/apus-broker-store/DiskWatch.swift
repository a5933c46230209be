import Glibc
import LinuxSystem
import NIOCore
import Synchronization

/// Looks once a second, on a thread of its own, whether the disk is still there. It must be the same file system at the
/// same path, not read-only, and answering. A hanging disk hangs that thread, which is noticed from the event loop.
final class DiskWatch: Sendable {
    private static let intervalMilliseconds: Int32 = 1_000
    /// A disk that has not answered for so long is lost.
    private static let silenceMilliseconds: Int64 = 20_000

    private let path: String
    private let folder: String
    private let device: UInt64?
    private let wake: SharedDescriptor
    private let report: @Sendable (String) -> Void
    private let mustStop = Atomic(false)
    private let mustWrite = Atomic(false)
    /// CLOCK_MONOTONIC milliseconds of the last look that came back.
    private let answered: Atomic<Int64>

    /// - Parameters:
    ///   - path: the mount point, or the store's own folder.
    ///   - folder: of the store: where a write is tried.
    ///   - report: called on that thread, once, with the reason.
    init(path: String, folder: String, report: @escaping @Sendable (String) -> Void) throws(SystemError) {
        self.path = path
        self.folder = folder
        self.report = report
        device = MountPoint.device(of: path)
        wake = SharedDescriptor(try EventFD.create())
        answered = Atomic(MonotonicClock.milliseconds)
        var thread = pthread_t()
        let failure = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                setCurrentThreadName("disk-watch")
                Unmanaged<DiskWatch>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
        guard failure == 0 else { throw SystemError(errno: failure, call: "pthread_create", subject: path) }
        pthread_detach(thread)
    }

    /// Something has failed: look now, and try to write.
    func lookNow() {
        mustWrite.store(true, ordering: .releasing)
        EventFD.signal(wake.raw)
    }

    func stop() {
        mustStop.store(true, ordering: .releasing)
        EventFD.signal(wake.raw)
    }

    /// For the event loop: why the disk is lost although its thread reports nothing.
    var silence: String? {
        let silent = MonotonicClock.milliseconds - answered.load(ordering: .acquiring)
        return silent > DiskWatch.silenceMilliseconds
            ? "the disk at \(path) has not answered for \(silent / 1000) s" : nil
    }

    private func run() {
        while !mustStop.load(ordering: .acquiring) {
            let writes = mustWrite.exchange(false, ordering: .acquiringAndReleasing)
            do throws(SystemError) {
                if let loss = try look(writes: writes) { return report(loss) }
            } catch {
                return report("the disk at \(path) has failed: \(error)")
            }
            answered.store(MonotonicClock.milliseconds, ordering: .releasing)
            var polled = pollfd(fd: wake.raw, events: Int16(POLLIN), revents: 0)
            if poll(&polled, 1, DiskWatch.intervalMilliseconds) == 1 { EventFD.take(wake.raw) }
        }
    }

    /// Why it is lost, nil when it is there. Throws what only a broken disk answers.
    private func look(writes: Bool) throws(SystemError) -> String? {
        guard let now = MountPoint.device(of: path) else {
            return "the disk at \(path) is gone: \(SystemError.text(errno))"
        }
        guard now == device else { return "another file system lies at \(path) now: the disk has been unmounted" }
        if try MountPoint.isReadOnly(path) { return "the disk at \(path) is read-only now" }
        try DiskProbe.read(in: path)
        if writes { try DiskProbe.write(in: folder) }
        return nil
    }
}
