import NIOCore
import NIOPosix

/// Where files and texts are worked on: one piece after the other, in the order asked for, the results back on the
/// loop.
package protocol BackgroundWork: AnyObject {
    /// To be called on the loop. `work` runs off it, `then` on it.
    func submit<Result: Sendable>(_ work: @escaping @Sendable () -> Result, then: @escaping (Result) -> Void)
    /// Work that has begun is finished, without a wait for it. The rest is dropped, and its `then` is not called.
    func stop()
}

/// A thread of its own, started when there is something to do for the first time.
final class BackgroundThread: BackgroundWork {
    private let eventLoop: any EventLoop
    private var pool: NIOThreadPool?

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func submit<Result: Sendable>(_ work: @escaping @Sendable () -> Result, then: @escaping (Result) -> Void) {
        let pool = started()
        let eventLoop = eventLoop
        let then = NIOLoopBound(then, eventLoop: eventLoop)
        pool.submit { state in
            // Cancelled work is not done and not answered: the broker is ending.
            guard case .active = state else { return }
            let result = work()
            eventLoop.execute { then.value(result) }
        }
    }

    private func started() -> NIOThreadPool {
        if let pool { return pool }
        let pool = NIOThreadPool(numberOfThreads: 1)
        pool.start()
        self.pool = pool
        return pool
    }

    /// Work that has begun is finished, the rest is not done: all of it is done again after a restart.
    func stop() {
        pool?.shutdownGracefully { _ in }
        pool = nil
    }
}
