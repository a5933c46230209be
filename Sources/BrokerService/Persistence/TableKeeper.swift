import FastJSON
import Glibc
import LinuxSystem
import Logging
import MessageModel
import MessageStore
import MetadataStore
import NIOCore
import RemotingProtocol

/// Writes the broker's tables to their files on a thread of its own. The event loop copies a table; the thread makes a
/// text of the copy, writes and synchronizes it. Changes that come while a table is written go into its next write
/// together. The one that must not answer before a change is on disk waits with `whenKept`; messages for new topics
/// wait in `AckGate`.
///
/// Confined to the broker's event loop.
final class TableKeeper {
    typealias File = ConfigurationFile

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

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let files: TableFiles
    private let work: any BackgroundWork
    /// When the topics were last written because of a send that was refused (`reasonNotKept`); milliseconds since 1970.
    private var topicsTriedMilliseconds: Int64 = 0
    private var states: [File: State] = [:]
    private var waiters: [Waiter] = []
    private var finished: EventLoopPromise<Void>?
    /// The thread has ended: what is asked for now is done at once.
    private var isStopped = false
    /// Writes begun since the start; for tests.
    private(set) var writes = 0
    /// Of the texts that are written; for tests, too.
    var limits = JSONReader.Limits.tables

    init(_ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ files: TableFiles) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.files = files
        work = environment.makeWork()
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
        let made = tables.topics.made
        let path = files.path(file)
        let (disk, limits) = (environment.disk, limits)
        files[file].copied(in: environment.slices) { [self] text in
            let save = { [self] in
                (file == .consumerOffsets ? environment.offsetWork : work).submit(
                    { () -> String? in Self.save(text(), path, disk, limits) },
                    then: { [self] failure in ended(file, upTo, made, failure) })
            }
            // A deleted topic that is on disk again must not find its former queues there after a kill.
            if file == .topics { storage.store.whenRemoved(save) } else { save() }
        }
    }

    /// A table that a start could not read never takes the place of one it can, nor of its backup.
    private static func save(
        _ json: JSONValue, _ path: String, _ disk: any Disk, _ limits: JSONReader.Limits
    ) -> String? {
        do {
            let text = try json.bytes(.pretty, within: limits)
            try MetadataFile(path: path, disk: disk).save(text)
            return nil
        } catch let error as JSONError {
            return """
                its \(error.offset) bytes could not be read again by a start (\(error.reason.rawValue)); the former \
                file stays; delete topics and groups that are not used any more
                """
        } catch {
            guard case .disk(let cause) = error as? MetadataError else { return "\(error)" }
            return "\(error); \([ENOSPC, EDQUOT].contains(cause.errno) ? "free" : "look at") the disk"
        }
    }

    private func ended(_ file: File, _ upTo: Int64, _ made: Int64, _ failure: String?) {
        let hadFailed = states[file]?.failure != nil
        states[file]?.isBusy = false
        states[file]?.failure = failure
        if let failure {
            if !hadFailed {
                environment.logger.error(
                    """
                    \(files.path(file)) was not written, tried again; a crash until then loses its last changes: \
                    \(failure)
                    """
                )
            }
        } else {
            states[file]?.kept = upTo
            if hadFailed { environment.logger.notice("\(files.path(file)) is written again") }
        }
        if file == .topics { topicsWritten(made, failure) }
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
        for waiter in done { waiter.completion(failure.map { "\(files.path(file)) was not written: \($0)" }) }
        if !done.isEmpty { environment.scheduleTick() }
    }

    // MARK: - The end

    /// Succeeds when nothing is written any more. What is asked for afterwards is written at once, on the event loop.
    func finish() -> EventLoopFuture<Void> {
        let promise = environment.eventLoop.makePromise(of: Void.self)
        finished = promise
        stopIfDone()
        return promise.futureResult
    }

    private func stopIfDone() {
        guard let finished, !states.values.contains(where: \.isBusy) else { return }
        self.finished = nil
        isStopped = true
        work.stop()
        environment.offsetWork.stop()
        for file in failed { writeNow(file) }
        finished.succeed()
    }

    /// Writes a table now, on this thread: while the broker opens.
    /// - Throws: it was not written.
    func keep(_ file: File) throws(BrokerError) {
        if let failure = Self.save(files[file].fileJSON, files.path(file), environment.disk, limits) {
            throw .notKept(path: files.path(file), reason: failure)
        }
        files[file].markWritten()
    }

    private func writeNow(_ file: File) {
        let path = files.path(file)
        if let failure = Self.save(files[file].fileJSON, path, environment.disk, limits) {
            states[file]?.failure = failure
            environment.logger.error("\(path) was not written, its last changes are lost: \(failure)")
        } else {
            var state = states[file] ?? State()
            state.failure = nil
            state.kept = state.requested
            states[file] = state
        }
    }
}

// MARK: - What is written when

extension TableKeeper {
    /// Changes of one tick go to disk together; the answers that depend on them wait (`whenKept`, `AckGate`).
    func persistChanges() {
        if tables.topics.isDirty { persist(.topics) }
        if tables.groups.isDirty { persist(.subscriptionGroups) }
        if files[.changedSettings].isDirty { persist(.changedSettings) }
        if tables.requestModes.isDirty { persist(.messageRequestModes) }
    }

    /// Groups that come one after the other are written together. So is the list of topics for the platform's other
    /// brokers, for which nothing waits.
    func persistNewGroups() {
        if tables.autoCreated.isDirty { persist(.autoCreatedTopics) }
        if tables.topics.isDirtyLater { persist(.topics) }
        if tables.groups.isDirtyLater { persist(.subscriptionGroups) }
    }

    /// What the timer of `flushConsumerOffsetInterval` writes: with it whatever could not be written before.
    func persistPeriodic() {
        persist(.consumerOffsets)
        persist(.timerMetrics)
        for file in failed where file != .consumerOffsets { persist(file) }
    }

    /// Has a table written; one of those that change all the time only if it has changed. A failure is logged and tried
    /// again every few seconds until it works.
    func persist(_ file: ConfigurationFile) {
        let table = files[file]
        if file.isPeriodic {
            guard table.isDirty || failure(file) != nil, !isBusy(file) else { return }
        }
        table.markWritten()
        write(file)
    }

    /// Answers once every change of a table so far is on disk; a failure is answered in its place.
    func answerWhenKept(_ asker: Asker, _ answer: @escaping () -> Void) {
        persistChanges()
        whenKept { failure in
            guard let failure else { return answer() }
            asker.answer(
                .systemError,
                remark: "changed in memory, but not kept for the next start: \(failure); then say it again"
            )
        }
    }

    /// The first so many topics are on disk, or could not be put there.
    private func topicsWritten(_ made: Int64, _ failure: String?) {
        if let failure {
            storage.gate.topicsNotKept(upTo: made, failure)
        } else {
            tables.topics.keptOnDisk(made)
            storage.gate.topicsKept(to: tables.topics.kept)
        }
        environment.scheduleTick()
    }

    /// Milliseconds between two tries of writing the topics because a producer sends to a new one.
    private static let topicsRetryMilliseconds: Int64 = 500

    /// Why nothing may be promised of a topic: it is new, and its table could not be written. `nil` when the topic is
    /// on disk, or on its way there: then the acknowledgement waits (`AckGate`).
    func reasonNotKept(_ topic: TopicEntry) -> String? {
        guard topic.madeAt > tables.topics.kept, let failure = failure(.topics) else { return nil }
        // There may be room again: the sender's next try shall find the topic on disk.
        let time = environment.now()
        if abs(time -| topicsTriedMilliseconds) >= Self.topicsRetryMilliseconds, !isBusy(.topics) {
            topicsTriedMilliseconds = time
            persist(.topics)
        }
        return "the topic[\(topic.name)] is new and could not be put on disk: \(failure)"
    }
}
