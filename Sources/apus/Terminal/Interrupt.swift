import Dispatch
import Glibc
import Synchronization

/// Turns Ctrl-C and SIGTERM into a flag and a callback, so that a command can finish what it has begun.
///
/// A second signal ends the process at once, for the person who does not want to wait.
final class Interrupt: Sendable {
    private let raised = Mutex(false)
    /// Written once in `init`; kept so that the sources live.
    nonisolated(unsafe) private let sources: [any DispatchSourceSignal]

    var isRaised: Bool { raised.withLock { $0 } }

    /// - Parameter onSignal: called once, on a queue of its own.
    init(_ onSignal: @escaping @Sendable () -> Void = {}) {
        signal(SIGPIPE, SIG_IGN)
        sources = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            return DispatchSource.makeSignalSource(signal: number, queue: .global())
        }
        for source in sources {
            source.setEventHandler { [self] in
                let isFirst = raised.withLock { raised in
                    defer { raised = true }
                    return !raised
                }
                if isFirst {
                    onSignal()
                } else {
                    _exit(130)
                }
            }
            source.resume()
        }
    }
}
