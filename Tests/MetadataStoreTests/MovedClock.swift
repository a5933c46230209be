import Synchronization

/// Milliseconds since 1970, moved by the test.
final class MovedClock: Sendable {
    private let value = Mutex<Int64>(1_800_000_000_000)

    var now: Int64 { value.withLock { $0 } }
    func advance(_ milliseconds: Int64) { value.withLock { $0 += milliseconds } }
}
