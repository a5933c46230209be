import Logging
import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// Transactions, in RocketMQ 4.9.8's formats. Prepared messages wait in `RMQ_SYS_TRANS_HALF_TOPIC`, their outcomes
/// stand in `RMQ_SYS_TRANS_OP_HALF_TOPIC`. How far both are done with is the consumer offset of `CID_RMQ_SYS_TRANS`.
/// Memory holds the open ones only; it is rebuilt from the two queues.
///
/// Unlike Apache's, a check is made at its very time and not at the next round. It is counted only if there was a
/// producer to ask, and is made up for as soon as one connects.
final class TransactionalMessageService: WaitingObserver {
    static let group = GroupName(constant: "CID_RMQ_SYS_TRANS")
    static let checkMaxTimeQueues: Int32 = 1
    /// Checked in one slice, and bytes after which it ends; and postponed in one.
    static let checkBatch = 128
    static let checkBytes = 4 << 20
    static let postponeBatch = 2048
    static let readBatch = 1000
    /// More than the log is written in one tick.
    static let tornWriteMax: Int64 = 64 << 20
    static let retryMilliseconds: Int64 = 1000
    static let sleepMaxMilliseconds: Int64 = 30_000
    /// Moved to the log's end between two looks at the disk.
    static let moveBytesMax = 16 << 20

    let environment: BrokerEnvironment
    let tables: BrokerTables
    let storage: StoreAccess
    let undeliverable: UndeliverableMessages
    var open: OpenTransactions?
    private var half: ConsumeQueue?
    private var op: ConsumeQueue?
    /// Read and looked at up to here.
    private var nextHalf: Int64 = 0
    private var nextOp: Int64 = 0
    private var hasArrivals = false
    /// Op messages that could not be stored although what they stand for was.
    var owedOps: [(halfOffset: Int64, late: LateOutcome?)] = []
    var hasAppended = false
    /// Parked by this tick, and ended by it after that, by origin: what the index does not know yet.
    var justPutAside: Set<Int64> = []
    private var justEnded: Set<Int64> = []

    /// Half messages whose producers cannot be asked because none is connected, by group.
    var waiting: [String: Set<Int64>] = [:]
    let catchUp = CatchUp()
    var nextProducer = 0

    private var candidate: (logEnd: Int64, half: Int64, op: Int64)?
    private var durable: (half: Int64, op: Int64) = (-1, -1)

    var task: Scheduled<Void>?
    var taskAtMilliseconds = Int64.max
    var scratch: [UInt8] = []
    private(set) var isRunning = false

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess,
        _ undeliverable: UndeliverableMessages
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.undeliverable = undeliverable
    }

    /// The broker's settings have changed; time-outs run by the new ones from their beginning on.
    func settingsChanged() {
        guard isRunning else { return }
        open?.apply(OpenTransactions.Settings(environment.configuration))
        arm()
    }

    /// Begins, after store and offsets have been loaded.
    func start() {
        guard !isRunning else { return }
        isRunning = true
        let half = storage.store.findConsumeQueue(topic: .half, queueID: 0)
        let op = storage.store.findConsumeQueue(topic: .opHalf, queueID: 0)
        func begin(_ queue: ConsumeQueue) -> Int64 {
            let stored = tables.offsets.offset(topic: queue.topic, group: Self.group.text, queueID: 0)
            return min(max(stored ?? queue.minOffset.rawValue, queue.minOffset.rawValue), queue.maxOffset.rawValue)
        }
        (nextHalf, nextOp) = (begin(half), begin(op))
        durable = (nextHalf, nextOp)
        if half.maxOffset.rawValue > 0 { makeTopics() }
        open = OpenTransactions(
            settings: OpenTransactions.Settings(environment.configuration), halfOffset: nextHalf, opOffset: nextOp)
        (self.half, self.op) = (half, op)
        rebuild()
        for queue in [half, op] { QueueWatch.observe(queue, by: self) }
        arm()
    }

    func waitingArrived(in queueID: Int32, _ arrival: MessageArrival) { hasArrivals = true }

    /// The topic of half messages is there as soon as it is used, as with Apache.
    @discardableResult
    func makeTopics() -> TopicEntry {
        tables.topics.findOrCreate(.half, queueNums: 1, perm: Permission.read | Permission.write)
    }

    /// The store is closed: all of the log survives power loss.
    func closed() {
        guard let open else { return }
        candidate = nil
        commitOffsets(half: open.halfOffset, op: open.opOffset)
    }

    private func commitOffsets(half: Int64, op: Int64) {
        guard durable != (half, op) else { return }
        durable = (half, op)
        for (topic, offset) in [(TopicName.half, half), (TopicName.opHalf, op)] {
            tables.offsets.commit(topic: topic, group: Self.group, queueID: 0, offset: offset)
        }
    }

    /// More of the log survives power loss.
    func flushed() {
        guard candidate != nil else { return }
        noteOffsets()
    }

    func stop() {
        isRunning = false
        task?.cancel()
        task = nil
    }

    /// How many prepared messages have no outcome.
    var openCount: Int { open?.count ?? 0 }

    // MARK: - What the log must keep

    /// Where the oldest prepared message lies that is open, or would be after power loss: without it no producer could
    /// commit it. It is bounded: the one that is not decided about within `fileReservedTime` is parked, which stores it
    /// again.
    var neededFrom: PhysicalOffset? {
        guard isRunning, let half else { return nil }
        let from = max(durable.half, half.minOffset.rawValue)
        return storage.store.firstPlace(half, at: QueueOffset(from))
    }

    /// The disk is so full that the log before this offset must go, whatever its age: what is open there moves to the
    /// log's end. No producer is asked for it, and no check is counted.
    func move(before place: PhysicalOffset) {
        guard isRunning, let open else { return }
        var bytes = 0
        for half in open.lying(before: place.rawValue) {
            guard bytes < Self.moveBytesMax, readRecord(at: half.physicalOffset) != nil,
                storeAgain(topic: TopicNames.half, checks: half.checks, origin: half.origin)
            else { break }
            storeOp(half.queueOffset)
            bytes += Int(half.size)
        }
        if hasAppended { storage.scheduleTick() }
    }

    // MARK: - Reading the two queues

    /// What was open when the broker ended: half messages no op message names.
    private func rebuild() {
        var ended: Set<Int64> = []
        readOps { offsets in ended.formUnion(offsets) }
        readHalves { half in
            ended.contains(half.queueOffset) || half.preparedQueueOffset.map { ended.contains($0) } == true
        }
        open?.rebuilt()
        open?.commit()
        guard let count = open?.count, count > 0 else { return }
        environment.logger.info("\(count) transactions are open since before the start")
        settleTornCommits()
    }

    /// A commit is stored as two records in one write, the message and the op message after it. A kill can cut that
    /// write between them; then the message is found at the log's end and its transaction is over.
    private func settleTornCommits() {
        let end = storage.store.writtenOffset.rawValue
        // Beginnings of records near the end: the last of each queue.
        let begins = storage.store.consumeQueues.compactMap { queue -> Int64? in
            guard queue.maxOffset > queue.minOffset else { return nil }
            let last = QueueOffset(queue.maxOffset.rawValue - 1)
            return storage.store.firstPlace(queue, at: last)?.rawValue
        }
        let lastOp = op.flatMap { op in
            storage.store.entries(op, from: QueueOffset(op.maxOffset.rawValue - 1), maxCount: 1).first
        }
        let floor = max(end - Self.tornWriteMax, lastOp?.physicalOffset.rawValue ?? 0)
        guard var place = begins.filter({ $0 >= floor }).min() else { return }
        let fileSize = Int64(storage.store.configuration.mappedFileSizeCommitLog)
        while place < end {
            guard let range = storage.store.lookMessage(at: PhysicalOffset(place)) else {
                // The unused rest of a file.
                place = place.roundedDown(to: fileSize) + fileSize
                continue
            }
            let prepared: Int64?? = storage.store.withBytes(range) { bytes in
                guard case .record(let record) = CommitLogRecord.parse(bytes),
                    SysFlag.transactionValue(record.sysFlag) == SysFlag.transactionCommitType
                else { return nil }
                return record.preparedTransactionOffset
            }
            if case .some(.some(let physicalOffset)) = prepared, let half = readHalf(at: physicalOffset),
                let ended = openOne(lyingAt: physicalOffset, numbered: half.queueOffset)
            {
                storeOp(ended.queueOffset)
            }
            place += Int64(range.length)
        }
        if hasAppended { storage.scheduleTick() }
    }

    /// The open transaction whose record, or a version of it, lies at an offset of the log.
    /// - Parameter halfOffset: what the record says of its place in the queue, which may be wrong.
    private func openOne(lyingAt physicalOffset: Int64, numbered halfOffset: Int64) -> HalfMessage? {
        if let one = open?.find(halfOffset), one.physicalOffset <= physicalOffset {
            let isVersion = { [storage] in
                storage.store.lookMessage(at: PhysicalOffset(physicalOffset)).flatMap { range in
                    storage.store.withBytes(range) { bytes in
                        guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
                        return record.isEdit
                    }
                } ?? false
            }
            if one.physicalOffset == physicalOffset || isVersion() { return one }
        }
        return open?.lying(before: physicalOffset +| 1).last { $0.physicalOffset == physicalOffset }
    }

    private func readOps(_ see: ([Int64]) -> Void = { _ in }) {
        guard let op else { return }
        read(op, &nextOp) { record, _ in
            // A number that no half message has would keep all op messages behind it from being done with.
            let end = half?.maxOffset.rawValue ?? 0
            let offsets = (record.map { OpMessage.halfOffsets($0.body) } ?? []).filter { (0..<end).contains($0) }
            open?.opArrived(naming: offsets)
            see(offsets)
        }
    }

    /// - Returns: those whose producers are to be asked now.
    @discardableResult
    private func readHalves(isEnded: (HalfMessage) -> Bool = { _ in false }) -> [HalfMessage] {
        guard let half else { return [] }
        var toAsk: [HalfMessage] = []
        read(half, &nextHalf) { record, offset in
            guard let record else {
                open?.skipped(offset)
                return
            }
            var half = HalfMessage(record, at: offset)
            // They are kept in the order of the log.
            if record.isEdit, let queue = self.half,
                let place = storage.store.firstPlace(queue, at: QueueOffset(offset))
            {
                half.physicalOffset = place.rawValue
            }
            if open?.arrived(half, isEnded: isEnded(half)) == true { toAsk.append(half) }
        }
        return toAsk
    }

    private func read(_ queue: ConsumeQueue, _ next: inout Int64, _ body: (CommitLogRecordView?, Int64) -> Void) {
        while next < queue.maxOffset.rawValue {
            let entries = storage.store.entries(queue, from: QueueOffset(next), maxCount: Self.readBatch)
            guard !entries.isEmpty else { return }
            for entry in entries {
                // Withdrawn, or its place was never filled.
                guard entry != .deleted, entry != .preBlank else {
                    body(nil, next)
                    next += 1
                    continue
                }
                let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
                let isThere: Bool? = storage.store.withBytes(range) { bytes in
                    guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
                    body(record, next)
                    return true
                }
                if isThere != true { body(nil, next) }
                next += 1
            }
        }
    }

    // MARK: - Outcomes

    enum Outcome {
        case done(end: Int64)
        /// It has had its outcome before.
        case endedBefore
        case refused(ResponseCode, String)
    }

    /// END_TRANSACTION: the producer decides what becomes of its prepared message.
    func end(producerGroup: String, physicalOffset: Int64, queueOffset: Int64, isCommit: Bool) -> Outcome {
        let failed = "Find prepared transaction message failed"
        guard let found = readRecord(at: physicalOffset) else { return .refused(.systemError, failed) }
        let checked: Outcome? = scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes),
                record.topic.matches(KnownTopic.half)
            else { return .refused(.systemError, failed) }
            guard record.property(PropertyName.producerGroup)?.elementsEqual(producerGroup.utf8) == true else {
                return .refused(.systemError, "The producer group wrong")
            }
            guard record.queueOffset.rawValue == queueOffset else {
                return .refused(.systemError, "The transaction state table offset wrong")
            }
            return nil
        }
        if let checked { return checked }
        // The producer may answer a check older than the last one: its message has been stored again since.
        guard let half = open?.find(queueOffset) ?? open?.find(copyOf: found) else {
            return endLate(found, isCommit: isCommit)
        }
        if half.physicalOffset != physicalOffset, readRecord(at: half.physicalOffset) == nil {
            return .refused(.systemError, failed)
        }
        return finish(half, isCommit: isCommit)
    }

    /// It is not open. If it was parked, its producer's outcome is accepted all the same: it cannot learn of it, since
    /// producers do not wait for the answer.
    private func endLate(_ found: HalfMessage, isCommit: Bool) -> Outcome {
        guard !justEnded.contains(found.origin) else { return .endedBefore }
        let (uniqueKey, topic) = scratchNames()
        let standing =
            justPutAside.contains(found.origin)
            ? .putAside
            : EndedTransactions(storage).standing(of: found, uniqueKey: uniqueKey, realTopic: topic)
        switch standing {
        case .ended: return .endedBefore
        case .unknown:
            return .refused(
                .systemError,
                """
                the prepared message lies in \(TopicNames.transactionCheckMaxTime); without an index \
                (messageIndexEnable) and a unique key that few share it cannot be told whether it has had an outcome \
                since: RESUME_CHECK_HALF_MESSAGE has it asked for again
                """
            )
        case .putAside:
            environment.logger.notice(
                """
                the prepared message at \(found.physicalOffset), given up after its last check, has got its outcome \
                after all: \(isCommit ? "committed" : "rolled back")
                """
            )
            let late = uniqueKey.map { LateOutcome(uniqueKey: $0, origin: found.origin) }
            let outcome = finish(found, isCommit: isCommit, late: late)
            if case .done = outcome { justEnded.insert(found.origin) }
            return outcome
        }
    }

    /// Unique key and real topic of the message in `scratch`.
    func scratchNames() -> (uniqueKey: String?, topic: String) {
        scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return (nil, "") }
            let key = record.property(PropertyName.uniqueKey).map { String(decoding: $0, as: UTF8.self) }
            return (key, record.property(PropertyName.realTopic).map { String(decoding: $0, as: UTF8.self) } ?? "")
        }
    }

    /// Stores the outcome of the message in `scratch`.
    private func finish(_ half: HalfMessage, isCommit: Bool, late: LateOutcome? = nil) -> Outcome {
        var end = Int64(0)
        if isCommit {
            switch deliver(half) {
            case .appended(let result): end = result.end.rawValue
            case .refused(let refusal):
                switch refusal {
                case .diskFull, .notWritable:
                    return .refused(.serviceNotAvailable, "Service not available now. \(refusal)")
                default: return .refused(.messageIllegal, "\(refusal)")
                }
            }
        }
        return .done(end: max(end, storeOp(half.queueOffset, late: late)))
    }

    /// A half message. Copies of committed ones, as for a retry, are marked as committed too and point to the log's
    /// first record, whatever that is.
    private func readHalf(at physicalOffset: Int64) -> HalfMessage? {
        guard let half = readRecord(at: physicalOffset) else { return nil }
        let isHalf = scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
            return record.topic.matches(KnownTopic.half)
        }
        return isHalf ? half : nil
    }

    /// What came of the look for a record.
    enum RecordLook {
        /// It is in `scratch`.
        case found(HalfMessage)
        /// The log does not hold it (any more).
        case gone
        /// It was withdrawn.
        case deleted
        /// Which version stands for it could not be read, which the store has logged: later it may.
        case unreadable
    }

    /// Copies the record into `scratch`, or what stands for it, if it is a prepared message that was edited.
    func readRecord(at physicalOffset: Int64) -> HalfMessage? {
        if case .found(let half) = lookAtRecord(at: physicalOffset) { half } else { nil }
    }

    func lookAtRecord(at physicalOffset: Int64) -> RecordLook {
        let place = PhysicalOffset(physicalOffset)
        guard copyRecord(at: place) else { return .gone }
        switch presentVersion(of: place) {
        case .itself: break
        case .other(let present): if !copyRecord(at: present) { return .gone }
        case .deleted: return .deleted
        case .unreadable: return .unreadable
        }
        return scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return .gone }
            return .found(HalfMessage(record))
        }
    }

    private func copyRecord(at place: PhysicalOffset) -> Bool {
        scratch.removeAll(keepingCapacity: true)
        guard let range = storage.store.lookMessage(at: place) else { return false }
        let isThere: Void? = storage.store.withBytes(range) { scratch.append(contentsOf: $0) }
        return isThere != nil
    }

    private enum PresentVersion {
        case itself
        case other(PhysicalOffset)
        case deleted
        case unreadable
    }

    /// What stands for the record in `scratch`.
    private func presentVersion(of place: PhysicalOffset) -> PresentVersion {
        guard let half else { return .itself }
        let record: (offset: QueueOffset, isEdit: Bool)? = scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes), record.topic.matches(KnownTopic.half) else {
                return nil
            }
            return (record.queueOffset, record.isEdit)
        }
        // What the queue has no entry of any more, or not yet, no edit can have reached.
        guard let record, record.offset >= half.minOffset, record.offset < half.maxOffset else { return .itself }
        guard let first = storage.store.firstPlace(half, at: record.offset) else { return .unreadable }
        // It lay before the queue began anew, or its number is another message's: no checksum of RocketMQ covers it.
        guard record.isEdit ? first < place : first == place else { return .itself }
        guard let version = storage.store.currentVersion(half, at: record.offset) else { return .unreadable }
        guard version.physicalOffset > place else { return .itself }
        return version.isDeleted ? .deleted : .other(version.physicalOffset)
    }

    /// Stores the message in `scratch` where it was sent to, delayed if it asks for it. If it cannot be delivered any
    /// more, it is stored as undeliverable.
    private func deliver(_ half: HalfMessage) -> AppendOutcome {
        scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes),
                let name = record.property(PropertyName.realTopic),
                let queueID = record.property(PropertyName.realQueueID).flatMap({
                    Int32(String(decoding: $0, as: UTF8.self))
                })
            else { return .refused(.malformedBatch("the prepared message does not say where it belongs")) }
            switch tables.deliveryPlace(topic: name, queueID: queueID) {
            case .nowhere(let reason): return undeliverable.putAside(record, because: reason)
            case .queue(let topic, let queueID):
                var properties = PropertyList(record.properties)
                properties[PropertyName.halfOffset] = nil
                return storage.append(record, to: topic.name, queueID: queueID, properties: properties) { draft in
                    draft.sysFlag =
                        record.sysFlag & ~SysFlag.transactionRollbackType | SysFlag.transactionCommitType
                    draft.preparedTransactionOffset = half.physicalOffset
                    draft.mayUseReserve = true
                }
            }
        }
    }

    /// The outcome is known from here on. Returns where the op message ends.
    @discardableResult
    func storeOp(_ halfOffset: Int64, late: LateOutcome? = nil) -> Int64 {
        open?.end(halfOffset)
        hasAppended = true
        let time = environment.now()
        let properties = Array((OpMessage.properties + (late?.properties ?? "")).utf8)
        let outcome = Array(TopicNames.opHalf.utf8).withUnsafeBytes { topic in
            properties.withUnsafeBytes { properties in
                OpMessage.body(halfOffset).withUnsafeBytes { body in
                    var draft = MessageDraft(
                        topic: topic, queueID: 0, bornHost: environment.storeHost, storeHost: environment.storeHost,
                        body: body)
                    draft.bornTimestamp = time
                    draft.properties = properties
                    // An outcome releases the log, and its message may have been delivered in this tick.
                    draft.mayUseReserve = true
                    return storage.store.append(draft)
                }
            }
        }
        switch outcome {
        case .appended(let result): return result.end.rawValue
        case .refused(let refusal):
            environment.logger.error(
                "the outcome of half message \(halfOffset) was not stored, tried again: \(refusal)")
            owedOps.append((halfOffset, late))
            later(Self.retryMilliseconds)
            return 0
        }
    }

    // MARK: - End of a tick

    /// The tick's bytes are in the log. Half messages among them are open from now on. Those that are copies made for
    /// asking have their producers asked.
    func committed() {
        guard isRunning, hasArrivals || hasAppended else { return }
        hasArrivals = false
        hasAppended = false
        forgetTick()
        readOps()
        let toAsk = readHalves()
        open?.commit()
        for half in toAsk where open?.find(half.queueOffset) != nil { ask(half) }
        noteOffsets()
        arm()
    }

    func failed() {
        guard isRunning, hasAppended else { return }
        hasAppended = false
        forgetTick()
        open?.rollBack(now: environment.now())
        arm()
    }

    private func forgetTick() {
        justPutAside.removeAll(keepingCapacity: true)
        justEnded.removeAll(keepingCapacity: true)
    }

    /// What is done with is committed when the log is flushed up to here. After power loss nothing is taken for done
    /// that the log has forgotten.
    private func noteOffsets() {
        guard let open else { return }
        if let candidate, candidate.logEnd <= storage.store.flushedOffset.rawValue {
            self.candidate = nil
            commitOffsets(half: candidate.half, op: candidate.op)
        }
        if candidate == nil, durable != (open.halfOffset, open.opOffset) {
            candidate = (storage.store.writtenOffset.rawValue, open.halfOffset, open.opOffset)
        }
    }
}
