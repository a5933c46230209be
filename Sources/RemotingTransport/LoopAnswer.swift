import Synchronization

/// The answer a task waits for while an event loop works on it. It is given once. When the last owner releases this
/// value without having given it, it is the failure named at the start. An event loop that has shut down drops what it
/// is handed in silence, and a promise of such a loop never completes. What waited for one would wait for ever. Any
/// thread.
final class LoopAnswer<Value: Sendable>: Sendable {
    private let continuation: Mutex<CheckedContinuation<Value, any Error>?>
    private let failure: any Error

    /// - Parameter failure: what the waiting task is thrown when no answer comes.
    init(_ continuation: CheckedContinuation<Value, any Error>, orElse failure: any Error) {
        self.continuation = Mutex(continuation)
        self.failure = failure
    }

    deinit { give(.failure(failure)) }

    /// Only the first counts.
    func give(_ result: Result<Value, any Error>) {
        let waiting = self.continuation.withLock { continuation in
            defer { continuation = nil }
            return continuation
        }
        waiting?.resume(with: result)
    }
}
