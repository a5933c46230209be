import LinuxSystem
import Logging
import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import StoreFormat

/// Timer messages (`TIMER_DELAY_SEC`, `TIMER_DELAY_MS`, `TIMER_DELIVER_MS`), to the millisecond and up to a year ahead.
///
/// `SendMessageProcessor` stores them in queue 0 of `rmq_sys_wheel_timer`. From there they are taken in here and wait
/// in memory or in files of their own (`TimerWheel` decides, `TimerFiles` does). When their time has come they are
/// stored again in the queue they were sent to. One scheduled task stands at the next thing to do; an arrival sets it.
final class TimerMessageStore: WaitingObserver {
    static let topic = TopicName.timer.text
    /// Taken in or delivered in one slice, and bytes after which it ends.
    static let takeInBatch = 256
    static let takeInBytes = 4 << 20
    static let deliverBatch = 256
    static let deliverBytes = 4 << 20
    /// Frames collected for files before they are handed to the file thread, and how much may be on its way at most.
    /// Beyond that, messages stay in their queue.
    static let collectBytes = 1 << 20
    static let collectBytesMax = 64 << 20
    static let collectMilliseconds: Int64 = 500
    static let retryMilliseconds: Int64 = 1000
    static let checkpointMilliseconds: Int64 = 10_000
    static let sleepMaxMilliseconds: Int64 = 30_000
    /// A master is taken to have delivered what was due this long before the last message it stored.
    static let deliveryLagMilliseconds = TimerStanding.deliveryLagMilliseconds

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let files: TimerFiles
    private let work: any BackgroundWork
    private var copier: RecordCopier
    private(set) var wheel: TimerWheel?
    private var queue: ConsumeQueue?

    /// Bytes of loaded buckets, by the number their entries name.
    private var regions: [Int32: MappedRegion] = [:]
    /// Frames not yet handed to the file thread, and those it is writing.
    private var collected: [TimerBucket: [UInt8]] = [:]
    private var collectedBytes = 0
    private var writing: [TimerBucket: [UInt8]]?
    private var writingBytes = 0
    private var isWriteFailing = false
    /// Delivered buckets: their files go when the deliveries survive power loss.
    private var retired: [(bucket: TimerBucket, logEnd: Int64)] = []

    private var candidate: (checkpoint: TimerFiles.Checkpoint, logEnd: Int64)?
    private var saved: TimerFiles.Checkpoint?
    /// Of the checkpoint that is on disk for sure.
    private var durableReplayFrom: Int64?
    private var isSaving = false
    private var checkpointTask: Scheduled<Void>?
    private var collectTask: Scheduled<Void>?

    private var task: Scheduled<Void>?
    private var taskAtMilliseconds = Int64.max
    private var turnIsDue = false
    private let catchUp = CatchUp()
    private var isRunning = false
    /// On a slave: messages are taken in, so that they outlive the log here too, and dropped when the master has
    /// delivered them. Time is then what the master's log contains.
    private let isFollowing: Bool
    private var followedMilliseconds: Int64 = 0
    /// The queue could not be read, which the store has logged: it is tried again later.
    private var isTakingInPaused = false
    private(set) var deliveredCount: Int64 = 0
    let metrics: TimerMetrics

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess,
        _ undeliverable: UndeliverableMessages
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        metrics = TimerMetrics(tables.topics)
        files = TimerFiles(disk: environment.disk, storePath: storage.store.configuration.storePathRootDir)
        work = environment.makeWork()
        copier = RecordCopier(tables, storage, undeliverable)
        isFollowing = environment.configuration.isSlave
    }

    /// Reads where things stand, after the store has been opened.
    /// - Parameter progress: what was delivered, if that is known exactly.
    func prepare(progress: TimerWheel.Progress?) throws(SystemError) {
        let buckets = try files.scan()
        let queue = storage.store.findConsumeQueue(topic: .timer, queueID: 0)
        let wasFollower = try files.isFollower()
        if isFollowing, !wasFollower { try files.setFollower(true) }
        let standing = try TimerStanding(
            files, progress: progress, first: queue.minOffset.rawValue, end: queue.maxOffset.rawValue,
            follower: isFollowing ? .isOne : wasFollower ? .wasOne : .never, lastStored: lastStoreTimestamp,
            now: environment.now())
        wheel = TimerWheel(
            progress: standing.progress, replayFrom: standing.replayFrom, replayEnd: queue.maxOffset.rawValue,
            files: buckets)
        saved = standing.checkpoint
        durableReplayFrom = standing.checkpoint?.replayFrom
        self.queue = queue
        metrics.assumeCounted(to: queue.maxOffset.rawValue)
    }

    /// When the last message of the log was stored; far in the past when there is none.
    private func lastStoreTimestamp() -> Int64 {
        storage.store.consumeQueues.filter { $0.maxOffset > $0.minOffset }
            .map { storage.store.storeTimestamp($0, at: QueueOffset($0.maxOffset.rawValue - 1)) }.max() ?? 0
    }

    /// A time out of a record, which no checksum covers, as one buckets can be counted in. It is not before 1970, and
    /// not so late that adding to it overflows.
    private static func plausible(_ milliseconds: Int64) -> Int64 { min(max(0, milliseconds), TimerFrame.dueMax) }

    /// A record's time, which no checksum of RocketMQ covers: a later one than now would end what is not due yet.
    private func past(_ milliseconds: Int64) -> Int64 { min(Self.plausible(milliseconds), environment.now()) }

    private func clock() -> Int64 { isFollowing ? followedMilliseconds : environment.now() }

    /// From now on this broker delivers, and what it has delivered has been noted.
    func becameMaster() throws(SystemError) {
        if try files.isFollower() { try files.setFollower(false) }
    }

    /// Begins to take in and to deliver.
    func start() {
        guard !isRunning, let queue else { return }
        isRunning = true
        if queue.maxOffset.rawValue > 0, !isFollowing { makeTopic() }
        if isFollowing { followedMilliseconds = past(lastStoreTimestamp()) }
        QueueWatch.observe(queue, by: self)
        scheduleTurn()
    }

    func waitingArrived(in queueID: Int32, _ arrival: MessageArrival) {
        followedMilliseconds = max(followedMilliseconds, past(arrival.storeTimestamp))
        scheduleTurn()
    }

    /// The topic is there as soon as it is used, so that no clean-up takes its queue for a leftover.
    @discardableResult
    func makeTopic() -> TopicEntry {
        tables.topics.findOrCreate(.timer, queueNums: 1, perm: Permission.read | Permission.write)
    }

    func stop() {
        isRunning = false
        for task in [task, checkpointTask, collectTask] { task?.cancel() }
        task = nil
        checkpointTask = nil
        collectTask = nil
        work.stop()
    }

    var progress: TimerWheel.Progress? { wheel?.progress }

    /// Where the oldest message lies that is neither delivered for good nor safe in a file of ours. After a crash it is
    /// taken in again from the log.
    var neededFrom: PhysicalOffset? {
        guard let queue, let wheel else { return nil }
        let from = max(min(durableReplayFrom ?? 0, wheel.replayFrom), queue.minOffset.rawValue)
        return storage.store.firstPlace(queue, at: QueueOffset(from))
    }

    /// What GET_TIMER_CHECK_POINT (60) answers (RocketMQ's `TimerCheckpoint`): seven numbers of 8 bytes, big-endian.
    /// There is no timer log here, so its position is 0.
    var checkpointBytes: [UInt8] {
        let now = isFollowing ? followedMilliseconds - Self.deliveryLagMilliseconds : environment.now()
        let taken = wheel?.progress.ingested ?? 0
        let version = metrics.dataVersion
        return [
            wheel?.deliveredBefore(now: now) ?? 0, 0, taken, taken, version.stateVersion, version.timestamp,
            version.counter,
        ].flatMap { value in withUnsafeBytes(of: value.bigEndian) { Array($0) } }
    }

    /// How many messages wait in memory; those in files are not counted.
    var nearCount: Int { wheel?.nearCount ?? 0 }

    // MARK: - Turns

    /// At the next turn of the loop, after whatever runs now.
    private func scheduleTurn() {
        guard isRunning, !turnIsDue else { return }
        turnIsDue = true
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        environment.eventLoop.execute { this.value.turn() }
    }

    private func arm(at milliseconds: Int64) {
        guard isRunning, task == nil || milliseconds < taskAtMilliseconds else { return }
        task?.cancel()
        taskAtMilliseconds = milliseconds
        let sleep = min(max(0, milliseconds -| environment.now()), Self.sleepMaxMilliseconds)
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        task = environment.eventLoop.scheduleTask(in: .milliseconds(sleep)) {
            this.value.task = nil
            this.value.taskAtMilliseconds = Int64.max
            this.value.turn()
        }
    }

    private func turn() {
        turnIsDue = false
        catchUp.run(in: environment.slices, { [unowned self] in doSome() }, then: {})
    }

    /// One slice; `true` when there is more to do now.
    private func doSome() -> Bool {
        guard isRunning else { return false }
        let now = clock()
        runFileJob(now)
        takeIn(now)
        let isMoreDue = isFollowing ? drop(now -| Self.deliveryLagMilliseconds) : deliver(now)
        guard let wheel else { return false }
        if wheel.awaitsCommit { storage.scheduleTick() }
        if isMoreDue || (hasMoreToTakeIn && mayTakeIn(now)) { return true }
        if !isFollowing, let wake = wheel.nextWake(now: now) { arm(at: wake) }
        return false
    }

    // MARK: - Taking in

    private var hasMoreToTakeIn: Bool {
        guard let queue, let wheel else { return false }
        return wheel.ingested < queue.maxOffset.rawValue
    }

    private func mayTakeIn(_ now: Int64) -> Bool {
        guard let wheel, !isTakingInPaused else { return false }
        return wheel.canTakeIn(now: now) && !wheel.wantsJob(now: now)
            && collectedBytes + writingBytes < Self.collectBytesMax
    }

    private func takeIn(_ now: Int64) {
        guard hasMoreToTakeIn, mayTakeIn(now), let queue, let wheel else { return }
        let from = max(wheel.ingested, queue.minOffset.rawValue)
        if from > wheel.ingested {
            environment.logger.error(
                """
                timer messages \(wheel.ingested) to \(from - 1) were deleted with the log before the timer had read \
                them: they are lost
                """
            )
            wheel.skip(from - 1)
        }
        let entries = storage.store.entries(queue, from: QueueOffset(from), maxCount: Self.takeInBatch)
        guard !entries.isEmpty else {
            isTakingInPaused = true
            return later(Self.retryMilliseconds) {
                $0.isTakingInPaused = false
                $0.scheduleTurn()
            }
        }
        var bytes = 0
        for (index, entry) in entries.enumerated() {
            let sequence = from + Int64(index)
            if entry == .deleted {
                wheel.skip(sequence)
                continue
            }
            bytes += Int(entry.recordSize)
            let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
            let isTaken: Bool? =
                !storage.store.holdsMessage(range)
                ? false
                : storage.store.withBytes(range) { bytes in
                    guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
                    take(record, sequence, entry, wheel)
                    return true
                }
            if isTaken != true {
                environment.logger.error(
                    """
                    the timer message at \(entry.physicalOffset) cannot be read from the log: skipped, it will not be \
                    delivered
                    """
                )
                wheel.skip(sequence)
            }
            if bytes >= Self.takeInBytes || collectedBytes + writingBytes >= Self.collectBytesMax { break }
        }
        if collectedBytes >= Self.collectBytes { writeCollected() } else { scheduleCollected() }
        touched()
    }

    private func take(
        _ record: CommitLogRecordView, _ sequence: Int64, _ entry: ConsumeQueueEntry, _ wheel: TimerWheel
    ) {
        // Without a time it is overdue: RocketMQ writes none of those.
        let due = Self.plausible(
            record.property(PropertyName.timerOutMilliseconds).flatMap(TimerProperties.integer) ?? 0)
        let isCancellation = record.property(PropertyName.timerDeleteUniqueKey) != nil
        let cancelling = TimerCancellation(record, sequence: sequence)
        let waiting = TimerEntry(
            due: due, sequence: sequence, position: entry.physicalOffset.rawValue,
            size: isCancellation ? 0 : entry.recordSize, source: TimerEntry.commitLog)
        let copyKey =
            !isCancellation && TimerProperties.isRolled(record) ? TimerProperties.copyKey(record) : nil
        let placement = wheel.takeIn(waiting, cancelling: cancelling, rolled: copyKey)
        if placement != .delivered, !isCancellation {
            let topic = record.property(PropertyName.realTopic).flatMap { tables.topics[$0] }
            metrics.tookIn(topic, sequence: sequence, now: environment.now())
        }
        guard case .bucket(let bucket) = placement else { return }
        let before = collected[bucket]?.count ?? 0
        if let cancelling {
            TimerFrame.append(cancelling, waiting.key, to: &collected[bucket, default: []])
        } else if isCancellation {
            // It names nothing.
            return
        } else {
            TimerFrame.append(
                kind: TimerFrame.message, waiting.key, record.bytes, to: &collected[bucket, default: []])
        }
        collectedBytes += (collected[bucket]?.count ?? 0) - before
    }

    // MARK: - Files

    private func scheduleCollected() {
        guard collectTask == nil, !collected.isEmpty else { return }
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        collectTask = environment.eventLoop.scheduleTask(in: .milliseconds(Self.collectMilliseconds)) {
            this.value.collectTask = nil
            this.value.writeCollected()
        }
    }

    /// Hands what was collected to the file thread. What it cannot write is tried again until it can.
    private func writeCollected() {
        guard isRunning, writing == nil, !collected.isEmpty else { return }
        let pieces = collected
        writing = pieces
        writingBytes = collectedBytes
        collected.removeAll(keepingCapacity: true)
        collectedBytes = 0
        write(pieces)
    }

    private func write(_ pieces: [TimerBucket: [UInt8]]) {
        let files = files
        work.submit({ Result { () throws(SystemError) in try files.append(pieces) } }) { [self] result in
            guard isRunning else { return }
            if case .failure(let error) = result {
                if !isWriteFailing {
                    environment.logger.error(
                        """
                        timer messages could not be written to \(files.directory): \(error); it is tried again every \
                        second, until then they stay in the log
                        """
                    )
                }
                isWriteFailing = true
                return later(Self.retryMilliseconds) { $0.write(pieces) }
            }
            isWriteFailing = false
            writing = nil
            writingBytes = 0
            if collectedBytes >= Self.collectBytes { writeCollected() } else { scheduleCollected() }
            scheduleTurn()
        }
    }

    private func later(_ milliseconds: Int64, _ body: @escaping (TimerMessageStore) -> Void) {
        let this = NIOLoopBound((self, body), eventLoop: environment.eventLoop)
        environment.eventLoop.scheduleTask(in: .milliseconds(milliseconds)) {
            guard this.value.0.isRunning else { return }
            this.value.1(this.value.0)
        }
    }

    private func runFileJob(_ now: Int64) {
        guard let wheel else { return }
        if wheel.wantsJob(now: now), writing != nil || !collected.isEmpty {
            // What was collected belongs in before the file is read; the turn after that comes back here.
            writeCollected()
            return
        }
        guard let job = wheel.nextJob(now: now) else { return }
        run(job)
    }

    private func run(_ job: TimerWheel.Job) {
        let files = files
        switch job {
        case .split(let bucket):
            work.submit({ Result { () throws(SystemError) in try files.split(bucket) } }) { [self] result in
                guard isRunning else { return }
                switch result {
                case .success(let children): wheel?.finishedSplit(into: children)
                case .failure(let error): return retry(job, bucket, error)
                }
                scheduleTurn()
            }
        case .load(let bucket):
            work.submit({ Result { () throws(SystemError) in try files.load(bucket) } }) { [self] result in
                guard isRunning else { return }
                switch result {
                case .success(let loaded): finish(loaded)
                case .failure(let error): return retry(job, bucket, error)
                }
                scheduleTurn()
            }
        }
    }

    private func retry(_ job: TimerWheel.Job, _ bucket: TimerBucket, _ error: SystemError) {
        environment.logger.error(
            "\(files.directory)/\(bucket.fileName) could not be read, its timer messages wait; tried again: \(error)")
        later(Self.retryMilliseconds) { $0.run(job) }
    }

    private func finish(_ loaded: TimerFiles.Loaded) {
        if loaded.damaged > 0 {
            environment.logger.error(
                """
                \(files.directory)/\(loaded.bucket.fileName): \(loaded.damaged) bytes are no timer messages and were \
                skipped
                """)
        }
        let number = wheel?.finishedLoad(
            loaded.bucket, entries: loaded.entries, cancelling: loaded.cancelling.map { ($0.due, $0.cancellation) },
            rolled: loaded.rolled.map { ($0.key, $0.copyKey) })
        if let number, let region = loaded.region { regions[number] = region }
        // An empty or already delivered bucket retires with the next commit.
        storage.scheduleTick()
    }

    // MARK: - Delivering

    /// What the master has delivered. `true` when there is more of it.
    private func drop(_ now: Int64) -> Bool {
        guard let wheel else { return false }
        for _ in 0..<Self.takeInBatch where wheel.next(now: now) == nil { return false }
        return true
    }

    /// `true` when more is due already.
    private func deliver(_ now: Int64) -> Bool {
        guard let wheel else { return false }
        var bytes = 0
        var count = 0
        while let entry = wheel.next(now: now) {
            switch deliver(entry, wheel, now) {
            case .appended(let result):
                bytes += result.size
                deliveredCount += 1
            case .putAside(let result): bytes += result.size
            case nil: break
            case .undeliverable(let reason):
                environment.logger.error(
                    "the timer message \(entry.sequence) is skipped, it will not be delivered: \(reason)")
            case .refused:
                wheel.putBack(entry)
                later(RecordCopier.retryMilliseconds) { $0.scheduleTurn() }
                return false
            }
            count += 1
            if count >= Self.deliverBatch || bytes >= Self.deliverBytes { return true }
        }
        return false
    }

    private func deliver(
        _ entry: TimerEntry, _ wheel: TimerWheel, _ now: Int64
    ) -> RecordCopier.Outcome? {
        var topic: TopicEntry?
        let outcome = copy(entry, wheel, now) { record in
            topic = record.property(PropertyName.realTopic).flatMap { tables.topics[$0] }
        }
        if case .refused = outcome { return outcome }
        metrics.left(topic, now: now)
        return outcome
    }

    private func copy(
        _ entry: TimerEntry, _ wheel: TimerWheel, _ now: Int64, _ found: (CommitLogRecordView) -> Void
    ) -> RecordCopier.Outcome? {
        // Known from a start's first moment on, before the cancellation is taken in.
        let isTakenAway = queue.map { storage.store.isDeleted($0, at: QueueOffset(entry.sequence)) } ?? false
        let isWanted = { (record: CommitLogRecordView) -> Bool in
            found(record)
            if isTakenAway { return false }
            // RocketMQ's notes of pops: `PopTakeover` has read them.
            if let topic = record.property(PropertyName.realTopic), TopicNames.isRevive(topic) { return false }
            if wheel.mayBeReplaced(due: entry.due), wheel.isReplaced(TimerProperties.copyKey(record), entry.key) {
                return false
            }
            guard wheel.mayBeCancelled(due: entry.due) else { return true }
            guard let topic = record.property(PropertyName.realTopic),
                let unique = record.property(PropertyName.uniqueKey)
            else { return true }
            return !wheel.isCancelled(
                TimerTarget(
                    key: TimerProperties.deleteKey(topic: topic, uniqueKey: unique), due: entry.due,
                    sequence: entry.sequence, isEdited: record.editNote != nil))
        }
        if entry.source == TimerEntry.commitLog {
            let range = LogRange(start: PhysicalOffset(entry.position), length: Int(entry.size), count: 1)
            return copier.deliver(range, dequeued: now, isWanted: isWanted)
        }
        guard let region = regions[entry.source], Int(entry.position) + Int(entry.size) <= region.bytes.count else {
            return .undeliverable("its file is gone")
        }
        let end = Int(entry.position) + Int(entry.size)
        return copier.deliver(
            UnsafeRawBufferPointer(rebasing: region.bytes[Int(entry.position)..<end]), dequeued: now,
            isWanted: isWanted)
    }

    // MARK: - Stopping messages

    /// What can be done about a timer message.
    enum Standing {
        /// It has not been handed to delivery, whatever the clock says: `stop` stops it.
        case waits
        /// It was handed to delivery, perhaps in this very tick.
        case delivered
        /// Nothing is known yet: the broker has not started, or is a slave.
        case unknown
    }

    /// - Parameters:
    ///   - due: its TIMER_OUT_MS, milliseconds since 1970.
    ///   - sequence: its offset in the timer queue.
    func standing(due: Int64, sequence: Int64) -> Standing {
        guard isRunning, !isFollowing, let wheel else { return .unknown }
        return wheel.standing(due: Self.plausible(due), sequence: sequence) == .waits ? .waits : .delivered
    }

    /// Whether a producer has recalled the message or an edit has withdrawn it, as far as memory knows. A cancellation
    /// for later lies in a file beside its message.
    /// - Parameter isEdited: the message has an `EditNote`.
    func isStopped(topic: String, uniqueKey: String, due: Int64, sequence: Int64, isEdited: Bool) -> Bool {
        wheel?.isCancelled(
            TimerTarget(
                key: topic + "+" + uniqueKey, due: Self.plausible(due), sequence: sequence, isEdited: isEdited))
            ?? false
    }

    /// Stores a cancellation, and has the wheel obey it from this turn on: a message that `waits` is not delivered any
    /// more. When the tick cannot be written both are undone.
    /// - Parameters:
    ///   - topic: where the message was sent to.
    ///   - due: its TIMER_OUT_MS, milliseconds since 1970.
    ///   - replacement: offset in the timer queue of what an edit has stored for it before, at whatever time; nil when
    ///     it is withdrawn.
    func stop(
        topic: String, uniqueKey: String, due: Int64, bornHost: HostAddress, replacedBy replacement: Int64?
    ) -> AppendOutcome {
        let due = Self.plausible(due)
        let key = topic + "+" + uniqueKey
        var properties = PropertyList()
        if let replacement {
            properties[PropertyName.timerDeleteUniqueKey] = TimerCancellation.namesNothing
            properties[PropertyName.cancels] =
                TimerCancellation(key: key, before: replacement, isRecall: false).text
        } else {
            properties[PropertyName.timerDeleteUniqueKey] = key
        }
        properties[PropertyName.timerOutMilliseconds] = String(due)
        properties[PropertyName.realTopic] = topic
        properties[PropertyName.realQueueID] = "0"
        let outcome = Array(Self.topic.utf8).withUnsafeBytes { name in
            properties.bytes.withUnsafeBytes { properties in
                Array("0".utf8).withUnsafeBytes { body in
                    var draft = MessageDraft(
                        topic: name, queueID: 0, bornHost: bornHost, storeHost: environment.storeHost, body: body)
                    draft.bornTimestamp = environment.now()
                    draft.properties = properties
                    draft.mayUseReserve = true
                    return storage.store.append(draft)
                }
            }
        }
        if case .appended(let result) = outcome {
            let sequence = result.queueOffset.rawValue
            obey(
                replacement.map { TimerCancellation(key: key, before: $0, isRecall: false) }
                    ?? TimerCancellation(recalling: key, sequence: sequence), due: due)
        }
        return outcome
    }

    /// A cancellation was appended in this tick: the wheel obeys it at once.
    /// - Parameter due: milliseconds since 1970.
    func obey(_ cancellation: TimerCancellation, due: Int64) { wheel?.cancel(cancellation, due: Self.plausible(due)) }

    // MARK: - End of a tick

    /// The tick's bytes are in the log. `true` if deliveries were among them.
    func committed() -> Bool {
        guard let wheel else { return false }
        let hasDelivered = wheel.awaitsCommit
        let finished = wheel.commit()
        let logEnd = storage.store.writtenOffset.rawValue
        for (bucket, number) in finished {
            regions[number] = nil
            retired.append((bucket, logEnd))
        }
        if hasDelivered || !finished.isEmpty { touched() }
        if hasDelivered, wheel.isEmpty { metrics.reset(now: environment.now()) }
        return hasDelivered
    }

    func failed() {
        guard let wheel else { return }
        let hadDelivered = wheel.awaitsCommit
        wheel.rollBack()
        guard hadDelivered else { return }
        later(RecordCopier.retryMilliseconds) { $0.scheduleTurn() }
    }

    // MARK: - Checkpoint

    /// Something has changed that a checkpoint should know.
    private func touched() {
        guard checkpointTask == nil, isRunning else { return }
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        checkpointTask = environment.eventLoop.scheduleTask(in: .milliseconds(Self.checkpointMilliseconds)) {
            this.value.checkpointTask = nil
            this.value.checkpoint()
        }
    }

    /// A state is noted first and saved later, when the log is flushed up to where it was then and the files are
    /// written.
    private func checkpoint() {
        guard isRunning, !isSaving, let wheel, !wheel.awaitsCommit else { return touched() }
        let flushed = storage.store.flushedOffset.rawValue
        if let candidate, candidate.logEnd <= flushed, writing == nil {
            self.candidate = nil
            let gone = retired.filter { $0.logEnd <= flushed }.map(\.bucket)
            retired.removeAll { $0.logEnd <= flushed }
            save(candidate.checkpoint, removing: gone)
        }
        if candidate == nil {
            writeCollected()
            let state = TimerFiles.Checkpoint(replayFrom: wheel.replayFrom, progress: wheel.progress)
            if collected.isEmpty {
                if state != saved { candidate = (state, storage.store.writtenOffset.rawValue) }
            } else {
                return touched()
            }
        }
        if candidate != nil || !retired.isEmpty { touched() }
    }

    private func save(_ checkpoint: TimerFiles.Checkpoint, removing gone: [TimerBucket]) {
        isSaving = true
        saved = checkpoint
        let files = files
        work.submit({
            Result { () throws(SystemError) in
                try files.save(checkpoint)
                try files.remove(gone)
            }
        }) { [self] result in
            isSaving = false
            guard case .failure(let error) = result else {
                durableReplayFrom = checkpoint.replayFrom
                return
            }
            guard isRunning else { return }
            environment.logger.error(
                """
                the checkpoint of the timer messages was not written, tried again; a start until then reads more of \
                the log: \(error)
                """
            )
            saved = nil
            for bucket in gone { retired.append((bucket, 0)) }
            touched()
        }
    }
}
