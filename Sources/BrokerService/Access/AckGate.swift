import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat
import WorkerProtocol

/// A message that is in the store's write buffer and whose sender waits for an answer.
struct PendingAck {
    enum Kind {
        /// 10, 310, 320: the answer names message and queue offset.
        case send
        /// 36: the answer is a bare success.
        case sendBack
        /// As a send, with more fields than those.
        case sendWith([(String, String)])
        /// With just these fields, and a success also where disk or slave are late: RocketMQ's RECALL_MESSAGE.
        case fields([(String, String)])
        /// With just these fields, and the code of a send: 10, 11 and 12 where disk or slave are late.
        case stored([(String, String)])
    }

    let client: ClientContext
    let address: ReturnAddress
    let kind: Kind
    let queueID: Int32
    let queueOffset: Int64
    let physicalOffset: Int64
    /// Where the record ends in the log: this much must be flushed or replicated.
    let end: Int64
    /// The sender wants to wait for disk and slave (`WAIT`).
    let waits: Bool
    /// `TopicEntry.madeAt` of the newest topic it needs: the answer waits until that is on disk.
    var topicMadeAt: Int64 = 0
    /// Messages of a batch; their physical offsets are the gate's next so many `batchOffsets`. 0 for a single message.
    var batchCount: Int32 = 0
}

/// Holds acknowledgements until what they promise is true. With ASYNC_FLUSH that is when the tick's one write has
/// succeeded. With SYNC_FLUSH the flushed watermark must have passed, with SYNC_MASTER a slave must have the bytes.
/// Entries live in arrays that are reused; nothing is allocated per message.
final class AckGate {
    /// What the gate needs to know of disk and slaves.
    struct Conditions {
        var syncFlush: Bool
        var syncMaster: Bool
        /// Milliseconds.
        var flushTimeout: Int64
        var slaveTimeout: Int64
        /// A slave further behind than this counts as not there (bytes).
        var slaveFallBehindMax: Int64

        init(_ configuration: BrokerConfiguration) {
            syncFlush = configuration.syncFlush
            syncMaster = configuration.brokerRole == .syncMaster
            flushTimeout = configuration.syncFlushTimeoutMilliseconds
            slaveTimeout = configuration.slaveTimeoutMilliseconds
            slaveFallBehindMax = configuration.haSlaveFallbehindMax
        }
    }

    /// Acknowledgements of one connection that may wait for disk or slave before no more of its requests are read. They
    /// are read again when half of them are answered.
    static let waitingPerConnectionMax = 1024

    /// What is waiting already goes on waiting for what held when it came.
    var conditions: Conditions
    private let storeHost: HostAddress
    private let eventLoop: any EventLoop
    private let now: () -> Int64
    /// Set when region or trace switch are not RocketMQ's defaults, which the fast encoder knows.
    private let responseFields: [(String, String)]?

    /// Appended in this tick, not yet written.
    private var pending: [PendingAck] = []
    var batchOffsets: [PhysicalOffset] = []
    /// Written, waiting for disk or slave: in the order of their ends, from `firstWaiting` on.
    private var waiting: [Waiting] = []
    private var firstWaiting = 0
    private var timer: Scheduled<Void>?
    /// Written, waiting for their topics to be on disk.
    private var awaitingTopics: [(ack: PendingAck, offsets: [PhysicalOffset])] = []
    private var topicsKept: Int64 = 0

    fileprivate struct Waiting {
        var ack: PendingAck
        var offsets: [PhysicalOffset]
        var needsFlush: Bool
        var needsSlave: Bool
        var flushDeadline: Int64
        var slaveDeadline: Int64
    }

    private var flushedOffset: Int64 = 0
    private var slaveAckOffset: Int64 = 0

    private let environment: BrokerEnvironment
    private let store: MessageStore

    /// - Parameters:
    ///   - store: asked for a flush when a tick has messages that wait for the disk.
    ///   - storeHost: the address in message identifiers.
    init(_ environment: BrokerEnvironment, _ store: MessageStore, storeHost: HostAddress) {
        self.environment = environment
        self.store = store
        self.storeHost = storeHost
        let configuration = environment.configuration
        conditions = Conditions(configuration)
        let isUsual = configuration.regionID == "DefaultRegion" && configuration.traceOn
        responseFields = isUsual ? nil : environment.sendResponseFields
        eventLoop = environment.eventLoop
        now = environment.now
        pending.reserveCapacity(1024)
    }

    var isEmpty: Bool { pending.isEmpty && firstWaiting == waiting.count && awaitingTopics.isEmpty }
    var waitingCount: Int { waiting.count - firstWaiting + awaitingTopics.count }

    @inline(__always)
    func add(_ ack: PendingAck) {
        // Also a one-way batch keeps its entry: its offsets must be taken off the list.
        if ack.address.isOneway && ack.batchCount == 0 { return }
        pending.append(ack)
    }

    // MARK: - End of a tick

    /// The tick's bytes are in the file: `written` is the log's end.
    func committed(written: Int64) {
        guard !pending.isEmpty else { return }
        let mayWait = conditions.syncFlush || conditions.syncMaster
        var offsets = 0
        var mustFlush = false
        for ack in pending {
            let count = Int(ack.batchCount)
            defer { offsets += count }
            if ack.address.isOneway { continue }
            if ack.topicMadeAt > topicsKept {
                awaitingTopics.append((ack, Array(batchOffsets[offsets..<offsets + count])))
                beginsWaiting(ack.client)
            } else if mayWait && ack.waits {
                mustFlush = wait(ack, Array(batchOffsets[offsets..<offsets + count]), written) || mustFlush
            } else {
                answer(ack, .success, offsets: batchOffsets[offsets..<offsets + count])
            }
        }
        pending.removeAll(keepingCapacity: true)
        batchOffsets.removeAll(keepingCapacity: true)
        if mustFlush { store.requestFlush() }
        arm()
    }

    // MARK: - Topics

    /// The first so many topics are on disk: the answers that waited for them leave.
    func topicsKept(to made: Int64) {
        topicsKept = max(topicsKept, made)
        let mayWait = conditions.syncFlush || conditions.syncMaster
        var mustFlush = false
        for (ack, offsets) in takeAwaiting(upTo: topicsKept) {
            endsWaiting(ack.client)
            if mayWait && ack.waits {
                mustFlush = wait(ack, offsets, ack.end) || mustFlush
            } else {
                answer(ack, .success, offsets: offsets[...])
            }
        }
        if mustFlush { store.requestFlush() }
        arm()
    }

    /// They could not be put there: a message that is confirmed must be found after the next start.
    func topicsNotKept(upTo made: Int64, _ reason: String) {
        for (ack, _) in takeAwaiting(upTo: made) {
            endsWaiting(ack.client)
            ack.client.answer(
                ack.address, .serviceNotAvailable,
                remark: "service not available now. the message's topic is new and could not be put on disk: \(reason)")
        }
    }

    private func takeAwaiting(upTo made: Int64) -> [(ack: PendingAck, offsets: [PhysicalOffset])] {
        guard !awaitingTopics.isEmpty else { return [] }
        let ready = awaitingTopics.filter { $0.ack.topicMadeAt <= made }
        awaitingTopics.removeAll { $0.ack.topicMadeAt <= made }
        return ready
    }

    private func beginsWaiting(_ client: ClientContext) {
        client.waitingAcknowledgements += 1
        if client.waitingAcknowledgements >= Self.waitingPerConnectionMax { client.connection.readsAreHeld = true }
    }

    private func endsWaiting(_ client: ClientContext) {
        client.waitingAcknowledgements -= 1
        if client.waitingAcknowledgements <= Self.waitingPerConnectionMax / 2 { client.connection.readsAreHeld = false }
    }

    /// The tick's write failed: nothing of it is in the log.
    func failed(_ reason: String) {
        for ack in pending where !ack.address.isOneway {
            ack.client.answer(
                ack.address, .serviceNotAvailable,
                remark: "service not available now. the message was not stored: \(reason)")
        }
        pending.removeAll(keepingCapacity: true)
        batchOffsets.removeAll(keepingCapacity: true)
    }

    /// `true` if a flush is needed for it.
    private func wait(_ ack: PendingAck, _ offsets: [PhysicalOffset], _ written: Int64) -> Bool {
        let time = now()
        var entry = Waiting(
            ack: ack, offsets: offsets, needsFlush: conditions.syncFlush && ack.end > flushedOffset,
            needsSlave: conditions.syncMaster, flushDeadline: time + conditions.flushTimeout,
            slaveDeadline: time + conditions.slaveTimeout)
        if conditions.syncMaster {
            let slaves = environment.platform.slaves
            let replicated = known(slaves.ackOffset)
            slaveAckOffset = max(slaveAckOffset, replicated ?? 0)
            // What slaves have is not known in the first moments after a restart: then it waits.
            let areBehind = replicated.map { written - $0 > conditions.slaveFallBehindMax } ?? false
            if slaves.count == 0 || areBehind {
                // The message is stored; its sender learns that no slave has it.
                answer(ack, .slaveNotAvailable, offsets: offsets[...])
                return entry.needsFlush
            }
            entry.needsSlave = ack.end > slaveAckOffset
        }
        if entry.needsFlush || entry.needsSlave {
            waiting.append(entry)
            beginsWaiting(ack.client)
        } else {
            answer(ack, .success, offsets: offsets[...])
        }
        return entry.needsFlush
    }

    // MARK: - Watermarks

    /// The disk refused a flush: what waits for it will not be on disk for certain. Its senders learn it at once.
    func flushFailed() {
        for entry in waiting[firstWaiting...] { settle(entry, .flushDiskTimeout) }
        firstWaiting = waiting.count
        trim()
    }

    func flushed(to offset: Int64) {
        flushedOffset = max(flushedOffset, offset)
        release()
    }

    func replicated(to offset: Int64) {
        slaveAckOffset = max(slaveAckOffset, known(offset) ?? 0)
        release()
    }

    /// What slaves have of this log; nil: that is not known yet. An offset beyond the log's end is of another log: the
    /// replication worker has not yet seen that this one is shorter, or says that it looks.
    private func known(_ acknowledged: Int64) -> Int64? {
        acknowledged <= store.writtenOffset.rawValue ? acknowledged : nil
    }

    private func release() {
        while firstWaiting < waiting.count {
            let entry = waiting[firstWaiting]
            let done =
                (!entry.needsFlush || entry.ack.end <= flushedOffset)
                && (!entry.needsSlave || entry.ack.end <= slaveAckOffset)
            guard done else { break }
            settle(entry, .success)
            firstWaiting += 1
        }
        trim()
    }

    private func trim() {
        if firstWaiting == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            firstWaiting = 0
            timer?.cancel()
            timer = nil
        } else if firstWaiting > 4096 {
            waiting.removeFirst(firstWaiting)
            firstWaiting = 0
        }
    }

    private func arm() {
        guard timer == nil, firstWaiting < waiting.count else { return }
        let entry = waiting[firstWaiting]
        let deadline = entry.deadline(flushedOffset, slaveAckOffset)
        let gate = NIOLoopBound(self, eventLoop: eventLoop)
        timer = eventLoop.scheduleTask(in: .milliseconds(max(1, deadline - now()))) { gate.value.expire() }
    }

    private func expire() {
        timer = nil
        let time = now()
        while firstWaiting < waiting.count {
            let entry = waiting[firstWaiting]
            guard entry.deadline(flushedOffset, slaveAckOffset) <= time else { break }
            let flushIsLate = entry.needsFlush && entry.ack.end > flushedOffset
            // As in RocketMQ the slave's state wins when both are late.
            let slaveIsLate = entry.needsSlave && entry.ack.end > slaveAckOffset
            let code: ResponseCode =
                slaveIsLate ? .flushSlaveTimeout : flushIsLate ? .flushDiskTimeout : .success
            settle(entry, code)
            firstWaiting += 1
        }
        trim()
        arm()
    }

    /// The broker stops: what still waits learns what is not certain.
    func close() {
        for entry in waiting[firstWaiting...] {
            let flushIsLate = entry.needsFlush && entry.ack.end > flushedOffset
            settle(entry, flushIsLate ? .flushDiskTimeout : .flushSlaveTimeout)
        }
        waiting.removeAll()
        firstWaiting = 0
        timer?.cancel()
        timer = nil
        topicsNotKept(upTo: .max, "the broker stops")
    }

    // MARK: - Answers

    /// Answers one that waited, and lets its connection be read again when few enough are left.
    private func settle(_ entry: Waiting, _ code: ResponseCode) {
        endsWaiting(entry.ack.client)
        answer(entry.ack, code, offsets: entry.offsets[...])
    }

    private func answer(_ ack: PendingAck, _ code: ResponseCode, offsets: ArraySlice<PhysicalOffset>) {
        switch ack.kind {
        case .sendBack: ack.client.answer(ack.address, .success)
        case .fields(let fields): ack.client.answer(ack.address, .success, fields: fields)
        case .stored(let fields): ack.client.answer(ack.address, code, fields: fields)
        case .sendWith(let fields): answerSlowly(ack, code, offsets, fields)
        case .send:
            if let responseFields { return answerSlowly(ack, code, offsets, responseFields) }
            ack.client.connection.write { buffer in
                if ack.batchCount == 0 {
                    ResponseEncoder.encodeSendResponse(
                        into: &buffer, ack.address, code, storeHost: storeHost, physicalOffset: ack.physicalOffset,
                        queueID: ack.queueID, queueOffset: ack.queueOffset)
                } else {
                    offsets.withUnsafeBytes { raw in
                        // PhysicalOffset is nothing but its Int64.
                        let offsets = raw.bindMemory(to: Int64.self)
                        ResponseEncoder.encodeSendResponse(
                            into: &buffer, ack.address, code, storeHost: storeHost, physicalOffsets: offsets,
                            queueID: ack.queueID, queueOffset: ack.queueOffset)
                    }
                }
            }
        }
    }

    private func answerSlowly(
        _ ack: PendingAck, _ code: ResponseCode, _ offsets: ArraySlice<PhysicalOffset>, _ fields: [(String, String)]
    ) {
        let all = ack.batchCount == 0 ? [ack.physicalOffset] : offsets.map(\.rawValue)
        let ids = all.map { OffsetMessageID.text(host: storeHost, physicalOffset: $0) }.joined(separator: ",")
        ack.client.answer(
            ack.address, code,
            fields: [("msgId", ids), ("queueId", String(ack.queueID)), ("queueOffset", String(ack.queueOffset))]
                + fields)
    }
}

extension AckGate.Waiting {
    /// When the first of the things it still waits for is late.
    fileprivate func deadline(_ flushed: Int64, _ slave: Int64) -> Int64 {
        var deadline = Int64.max
        if needsFlush, ack.end > flushed { deadline = flushDeadline }
        if needsSlave, ack.end > slave { deadline = min(deadline, slaveDeadline) }
        return deadline
    }
}
