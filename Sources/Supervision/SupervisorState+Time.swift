import Logging
import WorkerProtocol

/// Stopping in order, limits of time, heartbeats.
extension SupervisorState {
    // MARK: stopping

    mutating func stop(_ reason: String, _ now: Int64) {
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

    mutating func drainAll(_ now: Int64) {
        for index in workers.indices { drain(index, now) }
    }

    mutating func drain(_ index: Int, _ now: Int64) {
        let id = workers[index].id
        switch workers[index].phase {
        case .starting, .ready:
            workers[index].phase = .draining(since: now)
            actions.append(.closeListeners(id))
            actions.append(.send(id, .drain(.stop)))
        case .waiting: workers[index].phase = .stopped
        case .draining: workers[index].phase = .draining(since: now)
        case .killed, .stopped: break
        }
    }

    /// Goes on to the next stage when nobody of the present one is left.
    mutating func advanceStages(_ now: Int64) {
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

    func drainLimit(_ worker: Worker) -> Int64 {
        if case .stopping(_, hurry: true) = mode { limits.hurryMillis } else { worker.row.drainMillisMax }
    }

    // MARK: time

    mutating func passTime(_ now: Int64) {
        if now >= nextHeartbeat && mode != .ended {
            nextHeartbeat = now + limits.heartbeatMillis
            beat(now)
        }
        for index in workers.indices {
            let worker = workers[index]
            switch worker.phase {
            case .waiting(let until) where now >= until && !isStopping && !worker.isParked && !worker.isLeaving:
                relaunch(index, now)
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
    mutating func beat(_ now: Int64) {
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

    /// Whether systemd may go on trusting us: of no critical kind do all workers hang, or survive their SIGKILL. One that crashes
    /// and is started again, or hangs in the kernel with its disk, is our business, not systemd's, which could only take all
    /// the others down with it.
    package var isHealthy: Bool {
        WorkerTable.rows.allSatisfy { row in
            guard row.critical else { return true }
            let members = workers.filter { $0.id.kind == row.kind }
            return members.isEmpty
                || members.contains { worker in
                    if case .killed = worker.phase { return false }
                    return worker.missed < 2
                }
        }
    }

    mutating func kill(_ id: WorkerID, _ now: Int64) {
        update(id) {
            if case .killed = $0.phase { return }
            // What it was matters when it is gone: a long stable run makes this a first crash.
            if case .ready(let since) = $0.phase, now - since >= $0.row.restart.stableMillis { $0.crashes = 0 }
            $0.phase = .killed(since: now)
        }
        actions.append(.kill(id))
    }
}
