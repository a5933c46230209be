package import Logging
package import WorkerProtocol

/// What the supervisor decides, without doing any of it: events and the time go in, actions come out. Time is in
/// milliseconds of a monotonic clock. The runtime (`Platform`) carries the actions out in their order.
package struct SupervisorState: Sendable {
    package enum Event: Sendable {
        case start
        /// The process runs.
        case spawned(WorkerID, pid: Int32)
        /// A message from the worker: ready, pong, failed, drained.
        case message(WorkerID, WorkerMessage)
        case exited(WorkerID, ExitReason)
        /// The configuration was read again.
        case reload
        /// Stop in order; the second time: hurry.
        case stop(String)
        /// Time has passed: at the latest at `deadline`.
        case tick
    }

    package enum ExitReason: Hashable, Sendable, CustomStringConvertible {
        case code(Int32)
        case signal(Int32, name: String)
        case spawnFailed(String)

        package var description: String {
            switch self {
            case .code(let code): "exit code \(code)"
            case .signal(_, let name): "killed by \(name)"
            case .spawnFailed(let reason): reason
            }
        }
    }

    package enum Action: Hashable, Sendable {
        /// Launch and send `setup`.
        case spawn(WorkerID)
        /// Make a socket pair and give one end to each of the two.
        case introduce(WorkerPair)
        case send(WorkerID, WorkerMessage)
        /// Send the settings as they are now.
        case reload(WorkerID)
        /// SIGKILL.
        case kill(WorkerID)
        /// From now on connects are refused.
        case closeListeners(WorkerID)
        /// All that must serve serves, for the first time.
        case ready
        case watchdog
        case stopping
        case status(String)
        case log(Logger.Level, WorkerID?, String)
        case exit(Int32)
    }

    package struct Limits: Sendable {
        package var heartbeatMillis: Int64 = 1_000
        /// So many heartbeats in a row unanswered: the worker hangs.
        package var missedMax = 5
        /// nil: systemd does not watch us.
        package var watchdogMillis: Int64?
        /// How long each worker may drain once there is hurry.
        package var hurryMillis: Int64 = 1_000

        package init() {}
    }

    package enum Phase: Hashable, Sendable {
        case waiting(until: Int64)
        case starting(since: Int64)
        case ready(since: Int64)
        case draining(since: Int64)
        /// SIGKILL is sent.
        case killed(since: Int64)
        case stopped
    }

    package struct Worker: Sendable {
        package let id: WorkerID
        let row: WorkerRow
        package var phase = Phase.waiting(until: 0)
        package var pid: Int32 = 0
        package var launchedAt: Int64 = 0
        package var restarts = 0
        /// In a row, without a stable time in between.
        package var crashes = 0
        /// Heartbeats unanswered in a row.
        package var missed = 0
        var awaitsPong = false
        package var detail = ""
        package var status = ""
        /// Why it ended last, for people.
        package var lastFailure = ""
        /// What it said with `failed` in this life.
        var refusal: String?

        package var isRunning: Bool {
            switch phase {
            case .starting, .ready, .draining: true
            case .waiting, .killed, .stopped: false
            }
        }

        package var isReady: Bool { if case .ready = phase { true } else { false } }
        package var isCrashLoop: Bool { crashes >= row.restart.crashLoop }

        /// `waiting`, `starting`, `ready`, … and `crash loop`.
        package var phaseName: String {
            switch phase {
            case .waiting: isCrashLoop ? "crash loop" : "restarting"
            case .starting: isCrashLoop ? "crash loop" : "starting"
            case .ready: missed >= 2 ? "not answering" : "ready"
            case .draining: "draining"
            case .killed: "killed"
            case .stopped: "stopped"
            }
        }
    }

    package enum Mode: Hashable, Sendable {
        case starting
        case running
        case stopping(stage: Int, hurry: Bool)
        case ended
    }

    package private(set) var workers: [Worker]
    package private(set) var mode = Mode.starting
    let pairs: [WorkerPair]
    let limits: Limits
    private var nextHeartbeat: Int64 = 0
    private var nextWatchdog: Int64?
    private var pings: UInt64 = 0
    private var shownStatus = ""
    var actions: [Action] = []

    package init(workers ids: [WorkerID], limits: Limits = Limits()) {
        workers = ids.map { Worker(id: $0, row: WorkerTable.row($0.kind)) }
        pairs = WorkerTable.pairs(among: ids)
        self.limits = limits
    }

    package mutating func handle(_ event: Event, at now: Int64) -> [Action] {
        actions = []
        switch event {
        case .start: start(now)
        case .spawned(let id, let pid): update(id) { $0.pid = pid }
        case .message(let id, let message): received(message, from: id, now)
        case .exited(let id, let reason): exited(id, reason, now)
        case .reload:
            for worker in workers where worker.isRunning { actions.append(.reload(worker.id)) }
        case .stop(let reason): stop(reason, now)
        case .tick: break
        }
        passTime(now)
        showStatus(now)
        defer { actions = [] }
        return actions
    }

    /// When `tick` is due at the latest.
    package var deadline: Int64 {
        var earliest = nextHeartbeat
        if let nextWatchdog { earliest = min(earliest, nextWatchdog) }
        for worker in workers {
            switch worker.phase {
            case .waiting(let until): if !isStopping { earliest = min(earliest, until) }
            case .starting(let since): earliest = min(earliest, since + worker.row.startMillisMax)
            case .draining(let since): earliest = min(earliest, since + drainLimit(worker))
            case .ready, .killed, .stopped: break
            }
        }
        return earliest
    }

    package var isStopping: Bool {
        switch mode {
        case .starting, .running: false
        case .stopping, .ended: true
        }
    }

    // MARK: launching

    private mutating func start(_ now: Int64) {
        nextHeartbeat = now + limits.heartbeatMillis
        nextWatchdog = limits.watchdogMillis.map { now + $0 }
        for index in workers.indices { launch(index, now) }
        for pair in pairs { actions.append(.introduce(pair)) }
        for worker in workers { actions.append(.send(worker.id, .setupDone)) }
    }

    private mutating func launch(_ index: Int, _ now: Int64) {
        workers[index].phase = .starting(since: now)
        workers[index].launchedAt = now
        workers[index].missed = 0
        workers[index].awaitsPong = false
        workers[index].refusal = nil
        workers[index].status = ""
        actions.append(.spawn(workers[index].id))
    }

    /// Both ends of a link are made anew when one of the two starts again.
    private mutating func relaunch(_ index: Int, _ now: Int64) {
        workers[index].restarts += 1
        launch(index, now)
        let id = workers[index].id
        for pair in pairs {
            guard let other = pair.other(than: id), worker(other)?.isRunning == true else { continue }
            actions.append(.introduce(pair))
        }
        actions.append(.send(id, .setupDone))
    }

    // MARK: what workers say

    private mutating func received(_ message: WorkerMessage, from id: WorkerID, _ now: Int64) {
        switch message {
        case .ready(let detail):
            guard case .starting(let since)? = worker(id)?.phase else { return }
            update(id) {
                $0.phase = .ready(since: now)
                $0.detail = detail
            }
            log(.info, id, "ready in \(now - since) ms\(detail.isEmpty ? "" : ": \(detail)")")
            becomeReady()
        case .pong(_, let status):
            update(id) {
                $0.awaitsPong = false
                $0.missed = 0
                $0.status = status
            }
        case .failed(let reason):
            update(id) { $0.refusal = reason }
        case .drained:
            break  // its exit follows and is what counts
        default:
            log(.error, id, "unexpected message; killed")
            kill(id, now)
        }
    }

    private mutating func becomeReady() {
        guard mode == .starting else { return }
        let settled = workers.allSatisfy { $0.isReady || (!$0.row.critical && $0.isCrashLoop) }
        guard settled else { return }
        mode = .running
        actions.append(.ready)
    }

    // MARK: ends of workers

    private mutating func exited(_ id: WorkerID, _ reason: ExitReason, _ now: Int64) {
        guard let index = workers.firstIndex(where: { $0.id == id }) else { return }
        let worker = workers[index]
        var refusal = worker.refusal
        if refusal == nil, case .spawnFailed(let text) = reason { refusal = text }
        let text = refusal ?? reason.description
        workers[index].pid = 0
        if isStopping {
            workers[index].phase = .stopped
            if reason != .code(0) { log(.warning, id, "\(text) while stopping") }
            advanceStages(now)
            return
        }
        var readyFor: Int64 = 0
        if case .ready(let since) = worker.phase { readyFor = now - since }
        workers[index].crashes = readyFor >= worker.row.restart.stableMillis ? 1 : worker.crashes + 1
        workers[index].lastFailure = text
        if mode == .starting, let refusal, refusesStart(id) {
            log(.critical, id, refusal)
            workers[index].phase = .stopped
            mode = .stopping(stage: 0, hurry: true)
            exitCode = 1
            actions.append(.stopping)
            drainAll(now)
            advanceStages(now)
            return
        }
        let delay = worker.row.restart.delayMillis(crashes: workers[index].crashes)
        let when = delay == 0 ? "at once" : "in \(delay) ms"
        log(
            workers[index].isCrashLoop ? .critical : .error, id,
            "\(text); restarting \(when)" + (workers[index].isCrashLoop ? " (crash loop, throttled)" : ""))
        workers[index].phase = .waiting(until: now + delay)
        becomeReady()
    }

    /// A start-up in which every worker of a critical kind says why it cannot serve is given up: the operator is waiting
    /// for that reason. With one broker-store of several refusing (say, one broken disk) the others start.
    private func refusesStart(_ id: WorkerID) -> Bool {
        guard WorkerTable.row(id.kind).critical else { return false }
        return workers.allSatisfy { $0.id.kind != id.kind || $0.refusal != nil || !$0.lastFailure.isEmpty }
    }

    // MARK: stopping

    private(set) var exitCode: Int32 = 0

    private mutating func stop(_ reason: String, _ now: Int64) {
        switch mode {
        case .starting, .running:
            log(.notice, nil, "\(reason): stopping")
            mode = .stopping(stage: -1, hurry: false)
            actions.append(.stopping)
            advanceStages(now)
        case .stopping(let stage, hurry: false):
            log(.notice, nil, "\(reason) again: hurrying")
            mode = .stopping(stage: stage, hurry: true)
            drainAll(now)
            advanceStages(now)
        case .stopping(_, hurry: true), .ended: break
        }
    }

    private mutating func drainAll(_ now: Int64) {
        for index in workers.indices { drain(index, now) }
    }

    private mutating func drain(_ index: Int, _ now: Int64) {
        let id = workers[index].id
        switch workers[index].phase {
        case .starting, .ready:
            workers[index].phase = .draining(since: now)
            actions.append(.closeListeners(id))
            actions.append(.send(id, .drain))
        case .waiting: workers[index].phase = .stopped
        case .draining: workers[index].phase = .draining(since: now)
        case .killed, .stopped: break
        }
    }

    /// Goes on to the next stage when nobody of the present one is left.
    private mutating func advanceStages(_ now: Int64) {
        guard case .stopping(var stage, let hurry) = mode else { return }
        let last = WorkerTable.rows.map(\.drainStage).max() ?? 0
        while !workers.contains(where: { $0.phase != .stopped && (hurry || $0.row.drainStage <= stage) }) {
            if stage >= last || workers.allSatisfy({ $0.phase == .stopped }) {
                mode = .ended
                actions.append(.exit(exitCode))
                return
            }
            stage += 1
            mode = .stopping(stage: stage, hurry: hurry)
            for index in workers.indices where workers[index].row.drainStage == stage { drain(index, now) }
        }
    }

    private func drainLimit(_ worker: Worker) -> Int64 {
        if case .stopping(_, hurry: true) = mode { limits.hurryMillis } else { worker.row.drainMillisMax }
    }

    // MARK: time

    private mutating func passTime(_ now: Int64) {
        if now >= nextHeartbeat && mode != .ended {
            nextHeartbeat = now + limits.heartbeatMillis
            beat(now)
        }
        for index in workers.indices {
            let worker = workers[index]
            switch worker.phase {
            case .waiting(let until) where now >= until && !isStopping: relaunch(index, now)
            case .starting(let since) where now - since >= worker.row.startMillisMax:
                log(.error, worker.id, "not ready after \(worker.row.startMillisMax / 1000) s; killed")
                kill(worker.id, now)
            case .draining(let since) where now - since >= drainLimit(worker):
                log(.error, worker.id, "not drained after \(drainLimit(worker)) ms; killed")
                kill(worker.id, now)
            default: break
            }
        }
        if let due = nextWatchdog, let interval = limits.watchdogMillis, now >= due {
            nextWatchdog = now + interval
            if isHealthy { actions.append(.watchdog) }
        }
    }

    /// Counted in heartbeats, not in time: when it is this process (or the machine) that was asleep, nobody is blamed.
    private mutating func beat(_ now: Int64) {
        pings += 1
        for index in workers.indices where workers[index].isReady {
            if workers[index].awaitsPong { workers[index].missed += 1 }
            if workers[index].missed >= limits.missedMax {
                log(
                    .error, workers[index].id,
                    "hangs: \(workers[index].missed) heartbeats unanswered; killed")
                kill(workers[index].id, now)
            } else {
                workers[index].awaitsPong = true
                actions.append(.send(workers[index].id, .ping(pings)))
            }
        }
    }

    /// Whether systemd may go on trusting us: no critical worker hangs, or survives its SIGKILL. One that crashes and is
    /// started again is our business, not systemd's, which could only take all the others down with it.
    package var isHealthy: Bool {
        workers.allSatisfy { worker in
            guard worker.row.critical else { return true }
            if case .killed = worker.phase { return false }
            return worker.missed < 2
        }
    }

    private mutating func kill(_ id: WorkerID, _ now: Int64) {
        update(id) {
            if case .killed = $0.phase { return }
            // What it was matters when it is gone: a long stable run makes this a first crash.
            if case .ready(let since) = $0.phase, now - since >= $0.row.restart.stableMillis { $0.crashes = 0 }
            $0.phase = .killed(since: now)
        }
        actions.append(.kill(id))
    }

    // MARK: telling

    private mutating func showStatus(_ now: Int64) {
        let text = statusLine
        guard text != shownStatus else { return }
        shownStatus = text
        actions.append(.status(text))
    }

    /// One line for STATUS=.
    package var statusLine: String {
        let ready = workers.count(where: \.isReady)
        var parts: [String]
        switch mode {
        case .starting: parts = ["Starting: \(ready) of \(workers.count) workers ready"]
        case .running: parts = ["\(ready) of \(workers.count) workers ready"]
        case .stopping:
            parts = ["Stopping: \(workers.count(where: { $0.phase != .stopped })) of \(workers.count) workers left"]
        case .ended: parts = ["Stopped"]
        }
        for worker in workers where !isStopping {
            if worker.isCrashLoop && !worker.isReady {
                parts.append("\(worker.id) crash loop, \(worker.restarts) restarts (\(worker.lastFailure))")
            } else if worker.missed >= 2 || mode == .running && !worker.isReady {
                parts.append("\(worker.id) \(worker.phaseName)")
            }
        }
        return parts.joined(separator: "; ")
    }

    package func worker(_ id: WorkerID) -> Worker? { workers.first { $0.id == id } }

    private mutating func update(_ id: WorkerID, _ body: (inout Worker) -> Void) {
        guard let index = workers.firstIndex(where: { $0.id == id }) else { return }
        body(&workers[index])
    }

    private mutating func log(_ level: Logger.Level, _ id: WorkerID?, _ text: String) {
        actions.append(.log(level, id, text))
    }
}
