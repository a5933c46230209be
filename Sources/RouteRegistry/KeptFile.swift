import NIOCore

/// A file of the name server that is written anew as a whole after each change, on another thread. Changes that come
/// while it is written go into its next write together. Confined to the name server's event loop.
final class KeptFile {
    /// Takes what is to be written now, and gives what writes it.
    private let snapshot: () -> @Sendable () throws -> Void
    private var waiting: [(String?) -> Void] = []
    private var isBusy = false
    /// Writes begun; for tests.
    private(set) var writes = 0

    init(_ snapshot: @escaping () -> @Sendable () throws -> Void) { self.snapshot = snapshot }

    /// Writes it as it is now, or later than that.
    /// - Parameters:
    ///   - elsewhere: runs work on another thread; nil: it is written at once.
    ///   - then: gets why it could not be written, nil when it is on disk.
    func keep(
        elsewhere: ((@escaping @Sendable () -> Void) -> Void)?, _ eventLoop: (any EventLoop)?,
        then: @escaping (String?) -> Void
    ) {
        waiting.append(then)
        guard let elsewhere, let eventLoop else {
            writes += 1
            return settle(waiting, Self.run(snapshot()))
        }
        if !isBusy { write(elsewhere, eventLoop) }
    }

    private func write(_ elsewhere: @escaping (@escaping @Sendable () -> Void) -> Void, _ eventLoop: any EventLoop) {
        isBusy = true
        writes += 1
        let asked = waiting
        let work = snapshot()
        let done = NIOLoopBound(
            { [self] (failure: String?) in
                isBusy = false
                settle(asked, failure)
                if !waiting.isEmpty { write(elsewhere, eventLoop) }
            }, eventLoop: eventLoop)
        elsewhere {
            let failure = Self.run(work)
            eventLoop.execute { done.value(failure) }
        }
    }

    /// The first that wait are those that had asked when the write began.
    private func settle(_ asked: [(String?) -> Void], _ failure: String?) {
        waiting.removeFirst(asked.count)
        for then in asked { then(failure) }
    }

    private static func run(_ work: @Sendable () throws -> Void) -> String? {
        do {
            try work()
            return nil
        } catch {
            return "\(error)"
        }
    }
}
