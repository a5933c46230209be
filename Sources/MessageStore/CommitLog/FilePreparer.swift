import LinuxSystem
import StoreFormat

/// Hands the next log file from the preparing thread to the writer. The two never create the same file: a writer that
/// gets there while it is being made waits for it.
final class FilePreparer: @unchecked Sendable {
    private enum State {
        case idle
        case running(base: PhysicalOffset)
        case ready(base: PhysicalOffset, file: any DiskFile)
    }

    private let monitor = Monitor()
    /// Guarded by `monitor`.
    private var state = State.idle

    /// True when the caller shall now start making the file and call `finish`; false when it is ready or being made.
    func begin(base: PhysicalOffset) -> Bool {
        monitor.lock()
        defer { monitor.unlock() }
        switch state {
        case .running: return false
        case .ready(let ready, _) where ready == base: return false
        case .idle, .ready: break
        }
        state = .running(base: base)
        return true
    }

    func finish(base: PhysicalOffset, file: (any DiskFile)?) {
        monitor.lock()
        if let file { state = .ready(base: base, file: file) } else { state = .idle }
        monitor.wakeAll()
        monitor.unlock()
    }

    /// The prepared file, if it is the one; waits while any is being made.
    func take(base: PhysicalOffset) -> (any DiskFile)? {
        monitor.lock()
        defer { monitor.unlock() }
        while case .running = state { monitor.wait() }
        if case .ready(let ready, let file) = state, ready == base {
            state = .idle
            return file
        }
        return nil
    }
}
