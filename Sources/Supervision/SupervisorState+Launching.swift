import Logging
import WorkerProtocol

/// Launches, and what workers report.
extension SupervisorState {
    mutating func start(_ now: Int64) {
        nextHeartbeat = now + limits.heartbeatMilliseconds
        nextWatchdog = limits.watchdogMilliseconds.map { now + $0 }
        for index in workers.indices { launch(index, now) }
        for pair in pairs { actions.append(.introduce(pair)) }
        for worker in workers { actions.append(.send(worker.id, .setupDone)) }
    }

    mutating func launch(_ index: Int, _ now: Int64) {
        workers[index].phase = .starting(since: now, absence: workers[index].absence)
        workers[index].launchedAt = now
        workers[index].status = ""
        workers[index].trouble = ""
        workers[index].report = ""
        actions.append(.spawn(workers[index].id))
    }

    /// Both ends of a link are made anew when one of the two starts again.
    mutating func relaunch(_ index: Int, _ now: Int64, isRestart: Bool = true) {
        if isRestart { workers[index].restarts += 1 }
        launch(index, now)
        let id = workers[index].id
        introduce([id])
        actions.append(.send(id, .setupDone))
    }

    var pairs: [WorkerPair] { table.pairs(among: workers.map(\.id)) }

    /// Links between `fresh` workers and all that run.
    mutating func introduce(_ fresh: Set<WorkerID>) {
        for pair in pairs where fresh.contains(pair.a) || fresh.contains(pair.b) {
            guard worker(pair.a)?.isRunning == true, worker(pair.b)?.isRunning == true else { continue }
            actions.append(.introduce(pair))
        }
    }

    // MARK: - Messages of workers

    /// Every message a worker may send to the supervisor. One that is none of its own is a fault of the worker: it is
    /// killed.
    mutating func received(_ message: WorkerMessage, from id: WorkerID, _ now: Int64) {
        switch message {
        case .ready(let detail): becameReady(id, detail, now)
        case .pong(_, let status, let trouble): answered(id, status: status, trouble: trouble)
        case .failed(let reason, let cause): failed(id, Refusal(reason: reason, cause: cause), now)
        case .drained: break  // its exit follows and is what counts
        case .renew(let reason): renew(id, reason, now)
        case .explained(let cause): explained(id, cause, now)
        case .report(let json): update(id) { $0.report = json }
        default:
            log(.error, id, "unexpected message; killed")
            kill(id, now)
        }
    }

    private mutating func becameReady(_ id: WorkerID, _ detail: String, _ now: Int64) {
        guard case .starting(let since, let absence)? = worker(id)?.phase else { return }
        update(id) {
            $0.phase = .ready(since: now, unanswered: 0)
            $0.detail = detail
            $0.note = ""
        }
        log(.info, id, "ready in \(now - since) ms\(detail.isEmpty ? "" : ": \(detail)")")
        if absence != nil { log(.notice, id, "its disk is back") }
        releaseParked(by: id, now)
        becomeReady()
    }

    /// The worker ends after this message.
    private mutating func failed(_ id: WorkerID, _ refusal: Refusal, _ now: Int64) {
        guard let index = workers.firstIndex(where: { $0.id == id }) else { return }
        noteStability(index, now)
        switch workers[index].phase {
        case .starting(_, let absence): workers[index].phase = .failing(since: now, refusal, absence: absence)
        case .ready: workers[index].phase = .failing(since: now, refusal, absence: nil)
        case .failing(let since, _, let absence):
            workers[index].phase = .failing(since: since, refusal, absence: absence)
        case .draining(let since, then: .crash):
            workers[index].phase = .draining(since: since, then: .crash(refusal))
        case .killed(let since, then: .crash): workers[index].phase = .killed(since: since, then: .crash(refusal))
        case .draining, .killed: log(.warning, id, "\(refusal.reason), while it was being ended")
        case .waiting, .parked, .stopped: break
        }
    }

    mutating func becomeReady() {
        guard mode == .starting else { return }
        guard workers.allSatisfy({ isSettled($0) }) else { return }
        mode = .running
        actions.append(.ready)
    }

    /// Whether READY need not wait for it. A worker whose disk is away, or that cannot start, holds READY back only
    /// when no other worker does its work.
    func isSettled(_ worker: Worker) -> Bool {
        if worker.isReady || worker.isParked { return true }
        let isLost = worker.absence != nil || worker.isCrashLoop
        return isLost && (!worker.row.critical || workers.contains { $0.id.kind == worker.id.kind && $0.isReady })
    }
}
