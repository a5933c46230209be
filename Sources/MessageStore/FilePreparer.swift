import Glibc
import LinuxSystem

/// Hands the next log file from the preparing thread to the writer. The two never create the same file: a writer that gets there while
/// it is being made waits for it.
final class FilePreparer: @unchecked Sendable {
    private enum State {
        case idle
        case running(base: Int64)
        case ready(base: Int64, file: any DiskFile)
    }

    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    /// Guarded by `mutex`.
    private var state = State.idle

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

    /// True when the caller shall now start making the file and call `finish`; false when it is ready or being made.
    func begin(base: Int64) -> Bool {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        switch state {
        case .running: return false
        case .ready(let ready, _) where ready == base: return false
        case .idle, .ready: break
        }
        state = .running(base: base)
        return true
    }

    func finish(base: Int64, file: (any DiskFile)?) {
        pthread_mutex_lock(mutex)
        if let file { state = .ready(base: base, file: file) } else { state = .idle }
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }

    /// The prepared file, if it is the one; waits while any is being made.
    func take(base: Int64) -> (any DiskFile)? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while case .running = state { pthread_cond_wait(condition, mutex) }
        if case .ready(let ready, let file) = state, ready == base {
            state = .idle
            return file
        }
        return nil
    }
}
