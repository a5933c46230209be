import Glibc

/// A generator at work: its lanes, its clock and what it has counted. Lives on one thread.
///
/// Phases: warm-up (nothing counts), measured window, drain (nothing new is sent; answers still under way are awaited
/// so that `acknowledged` is what the broker has).
final class Run {
    private static let drainNanoseconds: UInt64 = 5_000_000_000
    /// How late the loop may look at the clock when nothing happens.
    private static let longestWait: UInt64 = 100_000_000

    let plan: BenchPlan
    var produced = Tally()
    var consumed = Tally()
    /// Messages sent, acknowledged and received in all phases together.
    var sent = 0
    var acknowledged = 0
    var received = 0
    private(set) var isMeasuring = false
    private(set) var isStopping = false
    private(set) var measureFrom: UInt64 = .max
    private(set) var measuredNanoseconds: UInt64 = 0
    /// Unanswered messages at the very end.
    private(set) var unanswered = 0

    private let poller: Poller
    private var lanes: [Lane] = []
    private var producers: [ProduceLane] = []
    private var consumers: [ConsumeLane] = []
    private var nextIntended: UInt64 = 0
    private var nextProducer = 0
    private var cpu: ProcessCPU
    private var ownCPUAtStart: UInt64 = 0
    private let progress: (BenchProgress) -> Void

    init(plan: BenchPlan, progress: @escaping (BenchProgress) -> Void) throws(BenchError) {
        self.plan = plan
        self.progress = progress
        poller = try Poller()
        cpu = try ProcessCPU(plan.cpuOf)
    }

    func start() throws(BenchError) {
        let control = ControlPlane(plan: plan)
        if plan.produces {
            let queues = try control.queues(writable: true)
            var addresses: [WireAddress] = []
            for queue in queues where !addresses.contains(queue.address) { addresses.append(queue.address) }
            let frames = addresses.enumerated().map { index, address in
                ProduceFrames(
                    plan: plan, queues: queues.filter { $0.address == address },
                    firstKey: wallMilliseconds() << 22 + UInt64(index) << 58)
            }
            for index in 0..<plan.produceConnections {
                let broker = index % addresses.count
                producers.append(
                    ProduceLane(address: addresses[broker], frames: frames[broker], run: self, turn: index))
            }
        }
        if plan.consumes {
            let queues = try control.queues(writable: false)
            consumers = (0..<min(plan.consumeConnections, queues.count)).map { index in
                ConsumeLane(address: queues[index].address, run: self)
            }
            for (index, queue) in queues.enumerated() {
                let candidates = consumers.filter { $0.address == queue.address }
                let lane: ConsumeLane
                if candidates.isEmpty {
                    lane = ConsumeLane(address: queue.address, run: self)
                    consumers.append(lane)
                } else {
                    lane = candidates[index % candidates.count]
                }
                let first = plan.mode == .consume || plan.fromFirst
                lane.add(
                    queue, from: try control.bound(of: queue, largest: !first),
                    target: plan.mode == .consume ? try control.bound(of: queue, largest: true) : nil)
            }
        }
        lanes = producers + consumers
        for index in lanes.indices {
            try poller.add(try lanes[index].open().descriptor, tag: index)
        }
    }

    /// A producing lane has a free slot.
    func laneIsReady(_ lane: ProduceLane, now: UInt64) {
        guard plan.rate == nil, !isStopping else { return }
        while lane.canSend, mayStillSend { lane.send(intended: now, now: now) }
    }

    private var mayStillSend: Bool {
        plan.count.map { !isMeasuring || produced.messages + unansweredNow < $0 } ?? true
    }

    private var unansweredNow: Int {
        plan.count == nil ? 0 : producers.reduce(0) { $0 + $1.unanswered * plan.batch }
    }

    func loop() throws(BenchError) {
        let began = monotonicNanoseconds()
        let warmUntil = began + UInt64((plan.mode == .consume ? 0 : plan.warmUpSeconds) * 1e9)
        var end = warmUntil + UInt64(plan.seconds * 1e9)
        let interval = plan.rate.map { UInt64(max(1, 1e9 * Double(plan.batch) / $0)) }
        nextIntended = began
        var nextProgress = began + 1_000_000_000
        var now = began
        while true {
            if !isMeasuring, !isStopping, now >= warmUntil { beginMeasuring(now) }
            if isMeasuring, now >= end || isComplete {
                stopMeasuring(now)
                end = now + Self.drainNanoseconds
            }
            if isStopping, now >= end || producers.allSatisfy({ $0.unanswered == 0 }) { break }
            if let interval, !isStopping { sendDue(now, interval: interval) }
            for index in lanes.indices where lanes[index].connection != nil { flush(index, now: now) }
            reopenLanes(now)
            if now >= nextProgress {
                progress(snapshot(now, began: began))
                nextProgress += 1_000_000_000
            }
            var wake = min(now + Self.longestWait, end)
            if !isMeasuring, !isStopping { wake = min(wake, warmUntil) }
            if interval != nil, !isStopping, producers.contains(where: \.canSend) { wake = min(wake, nextIntended) }
            for lane in lanes where lane.connection == nil { wake = min(wake, lane.reconnectAt) }
            poller.wait(untilNanoseconds: wake, now: monotonicNanoseconds()) { tag, events in
                serve(tag, events)
            }
            now = monotonicNanoseconds()
        }
        unanswered = producers.reduce(0) { $0 + $1.unanswered * plan.batch }
    }

    private var isComplete: Bool {
        if plan.mode == .consume {
            if let count = plan.count, consumed.messages >= count { return true }
            return consumers.allSatisfy(\.hasReachedTargets)
        }
        return plan.count.map { produced.messages >= $0 } ?? false
    }

    private func beginMeasuring(_ now: UInt64) {
        isMeasuring = true
        measureFrom = now
        cpu.reset()
        ownCPUAtStart = ProcessCPU.nanoseconds(of: getpid()) ?? 0
    }

    private func stopMeasuring(_ now: UInt64) {
        usedCPU = cpu.used()
        ownCPU = (ProcessCPU.nanoseconds(of: getpid()) ?? 0) - ownCPUAtStart
        measuredNanoseconds = now - measureFrom
        isMeasuring = false
        isStopping = true
    }

    private(set) var usedCPU: [UInt64?] = []
    private(set) var ownCPU: UInt64 = 0
    var cpuTargets: [ProcessCPU.Target] { cpu.targets }

    /// Open loop: sends what is due by the clock, whatever the answers do. A request that finds no free slot keeps its
    /// intended time, so the wait counts as its latency.
    private func sendDue(_ now: UInt64, interval: UInt64) {
        while nextIntended <= now, mayStillSend {
            var tried = 0
            while tried < producers.count, !producers[nextProducer].canSend {
                nextProducer = (nextProducer + 1) % producers.count
                tried += 1
            }
            guard tried < producers.count else { return }
            producers[nextProducer].send(intended: nextIntended, now: now)
            nextProducer = (nextProducer + 1) % producers.count
            nextIntended += interval
        }
    }

    private func serve(_ tag: Int, _ events: Poller.Events) {
        let lane = lanes[tag]
        guard let connection = lane.connection else { return }
        do throws(BenchError) {
            if events.contains(.writable), !lane.isConnected {
                lane.isConnected = true
                lane.connectionOpened(now: monotonicNanoseconds())
            }
            if events.contains(.readable) {
                let isOpen = try connection.receive()
                let now = monotonicNanoseconds()
                while let frame = try connection.nextFrame() {
                    try lane.answered(try ResponseView(frame), now: now)
                }
                if !isOpen { throw BenchError("\(lane.address) closed the connection") }
            } else if events.contains(.failed) {
                throw BenchError("cannot reach \(lane.address)")
            }
            try connection.flush()
            updateInterest(tag)
        } catch {
            give(up: lane, because: error)
        }
    }

    private func flush(_ tag: Int, now: UInt64) {
        let lane = lanes[tag]
        guard lane.isConnected, let connection = lane.connection, connection.hasUnsentBytes, !lane.watchesWrites else {
            return
        }
        do throws(BenchError) {
            try connection.flush()
            updateInterest(tag)
        } catch {
            give(up: lane, because: error)
        }
    }

    /// Asks to be notified of writability only while something waits to be written.
    private func updateInterest(_ tag: Int) {
        let lane = lanes[tag]
        guard let connection = lane.connection else { return }
        let wanted = connection.hasUnsentBytes || !lane.isConnected
        if wanted != lane.watchesWrites {
            lane.watchesWrites = wanted
            poller.watch(connection.descriptor, tag: tag, writes: wanted)
        }
    }

    private func give(up lane: Lane, because error: BenchError) {
        let tally = lane is ProduceLane ? \Run.produced : \Run.consumed
        if lane.isConnected { self[keyPath: tally].fail(error.description, 0) }
        lane.drop(now: monotonicNanoseconds())
    }

    private func reopenLanes(_ now: UInt64) {
        for index in lanes.indices where lanes[index].connection == nil && now >= lanes[index].reconnectAt {
            do throws(BenchError) {
                try poller.add(try lanes[index].open().descriptor, tag: index)
            } catch {
                give(up: lanes[index], because: error)
            }
        }
    }

    private func snapshot(_ now: UInt64, began: UInt64) -> BenchProgress {
        BenchProgress(
            phase: isStopping ? .draining : isMeasuring ? .measuring : .warmingUp,
            seconds: Double(now - began) / 1e9, acknowledged: acknowledged, received: received,
            failures: produced.failures.values.reduce(0, +) + consumed.failures.values.reduce(0, +))
    }
}

/// What a run reports about itself once a second.
package struct BenchProgress: Sendable {
    /// Where a run is.
    package enum Phase: String, Sendable {
        case warmingUp = "warm-up"
        case measuring = "measuring"
        case draining = "draining"
    }

    /// Only `measuring` counts for the report.
    package let phase: Phase
    /// Since the run began, warm-up included.
    package let seconds: Double
    /// Messages acknowledged so far, in all phases.
    package let acknowledged: Int
    /// Messages received so far, in all phases.
    package let received: Int
    /// Failures so far, of both sides.
    package let failures: Int
}
