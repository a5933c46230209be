import Logging
import WorkerProtocol

/// Launches, what workers say, and their ends.
extension SupervisorState {
    // MARK: launching

    mutating func start(_ now: Int64) {
        nextHeartbeat = now + limits.heartbeatMillis
        nextWatchdog = limits.watchdogMillis.map { now + $0 }
        for index in workers.indices { launch(index, now) }
        for pair in pairs { actions.append(.introduce(pair)) }
        for worker in workers { actions.append(.send(worker.id, .setupDone)) }
    }

    mutating func launch(_ index: Int, _ now: Int64) {
        workers[index].phase = .starting(since: now)
        workers[index].launchedAt = now
        workers[index].missed = 0
        workers[index].awaitsPong = false
        workers[index].refusal = nil
        workers[index].refusalCause = .own
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

    var pairs: [WorkerPair] { WorkerTable.pairs(among: workers.map(\.id)) }

    /// Links between `fresh` workers and everybody who runs.
    mutating func introduce(_ fresh: Set<WorkerID>) {
        for pair in pairs where fresh.contains(pair.a) || fresh.contains(pair.b) {
            guard worker(pair.a)?.isRunning == true, worker(pair.b)?.isRunning == true else { continue }
            actions.append(.introduce(pair))
        }
    }

    // MARK: what workers say

    mutating func received(_ message: WorkerMessage, from id: WorkerID, _ now: Int64) {
        switch message {
        case .ready(let detail):
            guard case .starting(let since)? = worker(id)?.phase else { return }
            update(id) {
                $0.phase = .ready(since: now)
                $0.detail = detail
                $0.note = ""
            }
            log(.info, id, "ready in \(now - since) ms\(detail.isEmpty ? "" : ": \(detail)")")
            diskIsBack(id)
            becomeReady()
        case .pong(_, let status, let trouble):
            update(id) {
                $0.awaitsPong = false
                $0.missed = 0
                $0.status = status
                $0.trouble = trouble
            }
        case .failed(let reason, let cause):
            update(id) {
                $0.refusal = reason
                $0.refusalCause = cause
            }
        case .drained:
            break  // its exit follows and is what counts
        case .renew(let reason): renew(id, reason, now)
        case .explained(let cause):
            guard let index = workers.firstIndex(where: { $0.id == id }) else { return }
            // Whoever did it is dealt with: the others need not wait for the next start.
            let isExcused = excuse(index, now)
            log(.warning, id, "its last end is explained: \(cause)" + (isExcused ? "" : "; \(Self.unexcused)"))
            if isExcused { workers[index].crashes = 0 }
        case .report(let json): update(id) { $0.report = json }
        default:
            log(.error, id, "unexpected message; killed")
            kill(id, now)
        }
    }

    mutating func becomeReady() {
        guard mode == .starting else { return }
        guard workers.allSatisfy({ isSettled($0) }) else { return }
        mode = .running
        actions.append(.ready)
    }

    /// Nobody has to wait for it any longer: a disk that is away, or a worker that cannot start, holds back READY only when
    /// nobody else does its work.
    func isSettled(_ worker: Worker) -> Bool {
        if worker.isReady || worker.isParked { return true }
        let isLost = worker.absence != nil || worker.isCrashLoop
        return isLost && (!worker.row.critical || workers.contains { $0.id.kind == worker.id.kind && $0.isReady })
    }

    // MARK: ends of workers

    mutating func exited(_ id: WorkerID, _ reason: ExitReason, _ now: Int64) {
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
        if worker.isLeaving { return left(id, reason, now) }
        if worker.restartAsked { return restarted(index, reason, now) }
        if worker.isParked { return parked(index, now) }
        if worker.refusal != nil, worker.refusalCause == .disk, !(mode == .starting && refusesStart(id)) {
            return diskIsAway(index, text, now)
        }
        forgetAbsence(id)
        var readyFor: Int64 = 0
        if case .ready(let since) = worker.phase { readyFor = now - since }
        workers[index].crashes = readyFor >= worker.row.restart.stableMillis ? 1 : worker.crashes + 1
        workers[index].lastFailure = text
        if mode == .starting, let refusal, refusesStart(id) {
            log(.critical, id, refusal)
            failure = "\(id): \(refusal)"
            workers[index].phase = .stopped
            mode = .stopping(stage: 0, hurry: true)
            exitCode = worker.refusalCause == .settings ? SettingsCheck.unusable : 1
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
    func refusesStart(_ id: WorkerID) -> Bool {
        guard WorkerTable.row(id.kind).refusesStart else { return false }
        return workers.allSatisfy { $0.id.kind != id.kind || $0.refusal != nil || !$0.lastFailure.isEmpty }
    }
}
