import Logging
import WorkerProtocol

/// What is due with time: heartbeats, launches after a back-off, limits, systemd's watchdog.
extension SupervisorState {
    mutating func passTime(_ now: Int64) {
        if now >= nextHeartbeat && mode != .ended {
            nextHeartbeat = now + limits.heartbeatMilliseconds
            beat(now)
        }
        for index in workers.indices {
            let worker = workers[index]
            switch worker.phase {
            case .waiting(let until, _) where now >= until && !isStopping && !leaving.contains(worker.id):
                relaunch(index, now)
            case .starting(let since, _) where now - since >= worker.row.startMillisecondsMax:
                log(.error, worker.id, "not ready after \(worker.row.startMillisecondsMax / 1000) s; killed")
                kill(worker.id, now)
            case .failing(let since, _, _) where now - since >= drainLimit(worker):
                log(.error, worker.id, "not ended \(drainLimit(worker)) ms after it failed; killed")
                kill(worker.id, now)
            case .draining(let since, _) where now - since >= drainLimit(worker):
                log(.error, worker.id, "not drained after \(drainLimit(worker)) ms; killed")
                kill(worker.id, now)
            default: break
            }
        }
        if let due = nextWatchdog, let interval = limits.watchdogMilliseconds, now >= due {
            nextWatchdog = now + interval
            if isHealthy { actions.append(.watchdog) }
        }
    }

    /// Silence is counted in heartbeats, not in time: when this process or the machine was asleep, no worker is blamed.
    private mutating func beat(_ now: Int64) {
        pings += 1
        for index in workers.indices {
            guard case .ready(let since, let unanswered) = workers[index].phase else { continue }
            if unanswered >= limits.missedMax {
                log(.error, workers[index].id, "hangs: \(unanswered) heartbeats unanswered; killed")
                kill(workers[index].id, now)
            } else {
                workers[index].phase = .ready(since: since, unanswered: unanswered + 1)
                actions.append(.send(workers[index].id, .ping(pings)))
            }
        }
    }

    mutating func answered(_ id: WorkerID, status: String, trouble: String) {
        update(id) {
            if case .ready(let since, _) = $0.phase { $0.phase = .ready(since: since, unanswered: 0) }
            $0.status = status
            $0.trouble = trouble
        }
    }

    /// Whether systemd may go on trusting this process: false when all workers of a critical kind hang, or survive
    /// their SIGKILL. A worker that crashes, or hangs in the kernel with its disk, is the supervisor's task. Systemd
    /// could only take all the others down with it.
    package var isHealthy: Bool {
        Dictionary(grouping: workers.filter(\.row.critical), by: \.id.kind).values.allSatisfy { members in
            members.contains { worker in
                if case .killed = worker.phase { return false }
                return !worker.isSilent
            }
        }
    }
}
