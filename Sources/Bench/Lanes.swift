import Glibc
import Histogram

/// What a run has seen so far. One writer: the generator's thread.
struct Tally {
    var messages = 0
    var bytes = 0
    var requests = 0
    /// Pulls that were answered without a message.
    var emptyPulls = 0
    var latency = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    var failures: [String: Int] = [:]

    mutating func fail(_ reason: String, _ count: Int = 1) {
        failures[reason, default: 0] += count
    }
}

/// One connection with its own little protocol on top: producing or consuming.
///
/// A lane that loses its connection opens it again, so a run goes on through a restart of the server.
class Lane {
    private static let reconnectNanoseconds: UInt64 = 20_000_000

    let address: WireAddress
    private(set) var connection: WireConnection?
    private(set) var reconnectAt: UInt64 = 0
    /// True while the poller must report writability.
    var watchesWrites = false
    var isConnected = false

    init(address: WireAddress) {
        self.address = address
    }

    func open() throws(BenchError) -> WireConnection {
        let fresh = try WireConnection(to: address)
        connection = fresh
        isConnected = false
        watchesWrites = true
        return fresh
    }

    /// Gives the connection up until `reconnectAt`.
    func drop(now: UInt64) {
        connection?.close()
        connection = nil
        isConnected = false
        watchesWrites = false
        reconnectAt = now + Self.reconnectNanoseconds
        connectionLost()
    }

    func connectionOpened(now: UInt64) {}
    func connectionLost() {}
    func answered(_ response: ResponseView, now: UInt64) throws(BenchError) {}
}

/// Sends pre-encoded messages and matches their answers.
final class ProduceLane: Lane {
    private let frames: ProduceFrames
    private let run: Run
    /// Intended start of the request in each slot; 0 = free. The slot's index is the request's opaque.
    private var startOf: [UInt64]
    private var freeSlots: [UInt32]
    private var turn: Int

    init(address: WireAddress, frames: ProduceFrames, run: Run, turn: Int) {
        self.frames = frames
        self.run = run
        self.turn = turn
        startOf = Array(repeating: 0, count: run.plan.inFlight)
        freeSlots = (0..<UInt32(run.plan.inFlight)).reversed()
        super.init(address: address)
    }

    var canSend: Bool { !freeSlots.isEmpty && isConnected }
    var unanswered: Int { startOf.count - freeSlots.count }

    /// - Parameter intended: when this request was due; its latency counts from here.
    func send(intended: UInt64, now: UInt64) {
        guard let connection, let slot = freeSlots.popLast() else { return }
        startOf[Int(slot)] = intended
        frames.append(turn: turn, opaque: 1_000_000_000 + slot, intended: intended, to: connection)
        turn &+= 1
        run.sent += run.plan.batch
    }

    override func connectionOpened(now: UInt64) {
        run.laneIsReady(self, now: now)
    }

    override func connectionLost() {
        if unanswered > 0 {
            run.produced.fail("connection to \(address) lost before the answer", unanswered * run.plan.batch)
        }
        for slot in startOf.indices where startOf[slot] != 0 {
            startOf[slot] = 0
            freeSlots.append(UInt32(slot))
        }
    }

    override func answered(_ response: ResponseView, now: UInt64) throws(BenchError) {
        guard !response.isRequest else { return }
        let slot = Int(Int64(response.opaque) - 1_000_000_000)
        guard startOf.indices.contains(slot), startOf[slot] != 0 else {
            throw BenchError("\(address) answered request \(response.opaque), which is not open")
        }
        let start = startOf[slot]
        startOf[slot] = 0
        freeSlots.append(UInt32(slot))
        switch response.code {
        case 0, 10, 11, 12:
            run.acknowledged += run.plan.batch
            if run.isMeasuring, start >= run.measureFrom {
                run.produced.messages += run.plan.batch
                run.produced.bytes += run.plan.batch * frames.averageBody
                run.produced.requests += 1
                run.produced.latency.record(now > start ? now - start : 0)
            }
        default:
            run.produced.fail("code \(response.code): \(response.remark)", run.plan.batch)
        }
        run.laneIsReady(self, now: now)
    }
}

/// Pulls from its queues, one long poll each, and counts what comes.
final class ConsumeLane: Lane {
    private struct QueueState {
        let template: FrameTemplate
        let offsetPosition: Int
        var next: Int64
        /// Where a run over stored messages ends.
        let target: Int64?
    }

    private let run: Run
    private var states: [QueueState] = []

    init(address: WireAddress, run: Run) {
        self.run = run
        super.init(address: address)
    }

    var hasReachedTargets: Bool {
        states.allSatisfy { state in state.target.map { state.next >= $0 } ?? false }
    }

    func add(_ queue: BenchQueue, from: Int64, target: Int64?) {
        let plan = run.plan
        let template = FrameTemplate(
            code: 11, form: plan.form,
            fields: [
                ("consumerGroup", plan.group), ("topic", plan.topic), ("queueId", String(queue.queueID)),
                ("queueOffset", String(repeating: "0", count: 19)), ("maxMsgNums", String(plan.pullSize)),
                // suspend | subscription inside the request
                ("sysFlag", "6"), ("commitOffset", "0"), ("suspendTimeoutMillis", "15000"),
                ("subscription", plan.filter),
                ("subVersion", "0"), ("expressionType", "TAG"),
            ],
            body: [])
        guard let position = template.fieldPositions["queueOffset"] else {
            preconditionFailure("the pull template has a queueOffset field")
        }
        states.append(QueueState(template: template, offsetPosition: position, next: from, target: target))
    }

    override func connectionOpened(now: UInt64) {
        for index in states.indices { pull(index) }
    }

    private func pull(_ index: Int) {
        guard let connection else { return }
        let state = states[index]
        let frame = state.template.bytes.withUnsafeBytes { connection.append($0) }
        state.template.patchOpaque(frame, 1_000_000_000 + UInt32(index))
        writeDigits(frame, at: state.offsetPosition, width: 19, UInt64(max(0, state.next)))
    }

    override func answered(_ response: ResponseView, now: UInt64) throws(BenchError) {
        guard !response.isRequest else { return }
        let index = Int(Int64(response.opaque) - 1_000_000_000)
        guard states.indices.contains(index) else {
            throw BenchError("\(address) answered request \(response.opaque), which is not open")
        }
        switch response.code {
        case 0:
            try take(response.body, now: now)
            if let next = response.number("nextBeginOffset") { states[index].next = next }
        case 19, 20, 21:
            run.consumed.emptyPulls += 1
            if let next = response.number("nextBeginOffset") { states[index].next = next }
        default:
            run.consumed.fail("code \(response.code): \(response.remark)")
        }
        if !run.isStopping { pull(index) }
    }

    /// Walks stored records:
    ///
    ///     total size 4 | magic 4 | CRC 4 | queue id 4 | flag 4 | queue offset 8 | physical offset 8 | system flag 4
    ///     | born 8 | born host 8 or 20 | stored 8 | store host 8 or 20 | … | body length 4 | body
    private func take(_ records: UnsafeRawBufferPointer, now: UInt64) throws(BenchError) {
        var position = 0
        var messages = 0
        while position + 88 <= records.count {
            let size = Int(UInt32(bigEndian: records.loadUnaligned(fromByteOffset: position, as: UInt32.self)))
            guard size >= 88, size <= records.count - position else { break }
            messages += 1
            let sysFlag = UInt32(bigEndian: records.loadUnaligned(fromByteOffset: position + 36, as: UInt32.self))
            let hosts = (sysFlag & 0x10 == 0 ? 8 : 20) + (sysFlag & 0x20 == 0 ? 8 : 20)
            let body = position + 40 + 8 + hosts + 8 + 4 + 8 + 4
            if body + 16 <= position + size,
                records.loadUnaligned(fromByteOffset: body + 8, as: UInt64.self) == ProduceFrames.stamp
            {
                let intended = records.loadUnaligned(fromByteOffset: body, as: UInt64.self)
                if run.isMeasuring, intended >= run.measureFrom, now > intended, run.plan.mode == .both {
                    run.consumed.latency.record(now - intended)
                }
            }
            position += size
        }
        guard position == records.count else {
            throw BenchError(
                "\(address) sent \(records.count) bytes of records that do not end with one (at \(position))")
        }
        run.received += messages
        if run.isMeasuring {
            run.consumed.messages += messages
            run.consumed.bytes += records.count
            run.consumed.requests += 1
        }
    }
}
