import Glibc

/// Work submitted to another thread whose result the submitter may need at once: then whoever comes first does it, and the other waits for it.
/// Subclasses say what the work is; what it leaves is read after `join`, or once its lane has run it.
class JoinableWork: @unchecked Sendable {
    private enum State {
        case waiting
        case running
        case done
    }

    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    /// Guarded by `mutex`.
    private var state = State.waiting

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Done once, by whichever thread calls `join` first.
    func work() {}

    /// Returns when the work is done.
    final func join() {
        pthread_mutex_lock(mutex)
        switch state {
        case .done:
            pthread_mutex_unlock(mutex)
        case .running:
            while state != .done { pthread_cond_wait(condition, mutex) }
            pthread_mutex_unlock(mutex)
        case .waiting:
            state = .running
            pthread_mutex_unlock(mutex)
            work()
            pthread_mutex_lock(mutex)
            state = .done
            pthread_cond_broadcast(condition)
            pthread_mutex_unlock(mutex)
        }
    }
}
