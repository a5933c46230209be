import FastJSON
import LinuxSystem
import Logging
import MessageStore
import NIOCore

/// Writes the broker's tables to their files on a thread of its own: the event loop copies a table, the thread makes a text of the
/// copy, writes and synchronizes it. Changes that come while a table is written go into its next write together. Whoever must not
/// answer before a change is on disk waits with `whenKept`; messages for new topics wait in `AckGate`.
///
/// Confined to the broker's event loop.
final class TableKeeper {
    typealias File = Broker.ConfigurationFile

    private struct State {
        /// Writes asked for; how many of them are done.
        var requested: Int64 = 0
        var kept: Int64 = 0
        var isBusy = false
        /// Why the last write failed.
        var failure: String?
    }

    private struct Waiter {
        var needs: [File: Int64]
        let completion: (String?) -> Void
    }

    private unowned let broker: Broker
    private let work: any TimerFileWork
    private var states: [File: State] = [:]
    private var waiters: [Waiter] = []
    private var finished: EventLoopPromise<Void>?
    /// The thread has ended: what is asked for now is done at once.
    private var isStopped = false
    /// Writes begun since the start; for tests.
    private(set) var writes = 0

    /// - Parameter work: where texts are made and files written.
    init(_ broker: Broker, work: any TimerFileWork) {
        self.broker = broker
        self.work = work
    }

    /// Tables whose last write failed: they are to be written again.
    var failed: [File] { states.filter { $0.value.failure != nil }.map(\.key) }

    func failure(_ file: File) -> String? { states[file]?.failure }

    func isBusy(_ file: File) -> Bool { states[file]?.isBusy ?? false }

    /// Writes a table as it is now, or later than that.
    func write(_ file: File) {
        states[file, default: State()].requested += 1
        guard !isStopped else { return writeNow(file) }
        if states[file]?.isBusy != true { begin(file) }
    }

    /// Tables operators change and wait for.
    private static let operators: Set<File> = [.topics, .subscriptionGroups, .changedSettings]

    /// Calls back when all writes of those asked for so far are done: with nil, or with the reason why one failed.
    func whenKept(_ completion: @escaping (String?) -> Void) {
        let needs = states.filter { Self.operators.contains($0.key) && $0.value.requested > $0.value.kept }
            .mapValues(\.requested)
        guard !needs.isEmpty else { return completion(nil) }
        waiters.append(Waiter(needs: needs, completion: completion))
    }

    private func begin(_ file: File) {
        guard let upTo = states[file]?.requested else { return }
        states[file]?.isBusy = true
        writes += 1
        let made = broker.topics.made
        let path = broker.path(file)
        let disk = broker.disk
        broker.copy(file) { [self] text in
            let save = { [self] in
                (file == .consumerOffsets ? broker.offsetWork : work).submit(
                    { () -> String? in Self.save(text(), path, disk) },
                    then: { [self] failure in ended(file, upTo, made, failure) })
            }
            // A deleted topic that is on disk again must not find its former queues there after a kill.
            if file == .topics { broker.store.whenRemoved(save) } else { save() }
        }
    }

    private static func save(_ json: JSONValue, _ path: String, _ disk: any Disk) -> String? {
        do throws(StoreError) {
            try MetadataFile(path: path, disk: disk).save(json.bytes(.pretty))
            return nil
        } catch {
            return "\(error)"
        }
    }

    private func ended(_ file: File, _ upTo: Int64, _ made: Int64, _ failure: String?) {
        let hadFailed = states[file]?.failure != nil
        states[file]?.isBusy = false
        states[file]?.failure = failure
        if let failure {
            if !hadFailed {
                broker.logger.error("\(broker.path(file)) was not written and is tried again: \(failure)")
            }
        } else {
            states[file]?.kept = upTo
            if hadFailed { broker.logger.notice("\(broker.path(file)) is written again") }
        }
        if file == .topics { broker.topicsWritten(made, failure) }
        settle(file, failure)
        // What was asked for meanwhile; what has failed comes again with the broker's timer.
        if let state = states[file], state.requested > upTo { begin(file) }
        stopIfDone()
    }

    private func settle(_ file: File, _ failure: String?) {
        guard !waiters.isEmpty else { return }
        let kept = states[file]?.kept ?? 0
        var done: [Waiter] = []
        waiters = waiters.compactMap { waiter in
            var waiter = waiter
            guard let need = waiter.needs[file] else { return waiter }
            if failure == nil {
                guard need <= kept else { return waiter }
                waiter.needs[file] = nil
                guard waiter.needs.isEmpty else { return waiter }
            }
            done.append(waiter)
            return nil
        }
        for waiter in done { waiter.completion(failure.map { "\(broker.path(file)) was not written: \($0)" }) }
        if !done.isEmpty { broker.scheduleTick() }
    }

    // MARK: The end

    /// Succeeds when nothing is written any more. What is asked for afterwards is written at once, on the event loop.
    func finish() -> EventLoopFuture<Void> {
        let promise = broker.eventLoop.makePromise(of: Void.self)
        finished = promise
        stopIfDone()
        return promise.futureResult
    }

    private func stopIfDone() {
        guard let finished, !states.values.contains(where: \.isBusy) else { return }
        self.finished = nil
        isStopped = true
        work.stop()
        broker.offsetWork.stop()
        for file in failed { writeNow(file) }
        finished.succeed()
    }

    private func writeNow(_ file: File) {
        let path = broker.path(file)
        if let failure = Self.save(broker.json(file), path, broker.disk) {
            states[file]?.failure = failure
            broker.logger.error("\(path) was not written: \(failure)")
        } else {
            var state = states[file] ?? State()
            state.failure = nil
            state.kept = state.requested
            states[file] = state
        }
    }
}
