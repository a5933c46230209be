/// Work submitted to another thread whose result the submitter may need at once. The thread that comes first does it,
/// and the other waits for it. Subclasses define the work; its result is read after `join`, or once its thread has run
/// it.
class JoinableWork: @unchecked Sendable {
    private enum State {
        case waiting
        case running
        case done
    }

    private let monitor = Monitor()
    /// Guarded by `monitor`.
    private var state = State.waiting

    /// Done once, by whichever thread calls `join` first.
    func work() {}

    /// Returns when the work is done.
    final func join() {
        monitor.lock()
        switch state {
        case .done:
            monitor.unlock()
        case .running:
            while state != .done { monitor.wait() }
            monitor.unlock()
        case .waiting:
            state = .running
            monitor.unlock()
            work()
            monitor.lock()
            state = .done
            monitor.wakeAll()
            monitor.unlock()
        }
    }
}
