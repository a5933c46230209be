import Logging
import WorkerProtocol

/// Ends of processes, and what follows them.
extension SupervisorState {
    mutating func exited(_ id: WorkerID, _ reason: ExitReason, _ now: Int64) {
        guard let index = workers.firstIndex(where: { $0.id == id }) else { return }
        workers[index].pid = 0
        var refusal = workers[index].phase.refusal
        if refusal == nil, case .spawnFailed(let text) = reason { refusal = Refusal(reason: text, cause: .own) }
        if isStopping {
            workers[index].phase = .stopped
            if reason != .code(0) { log(.warning, id, "\(refusal?.reason ?? reason.description) while stopping") }
            advanceStages(now)
            return
        }
        if leaving.contains(id) { return left(id, reason, now) }
        switch workers[index].phase.sequel {
        case .leave: left(id, reason, now)
        case .restart: restarted(index, reason, counts: true, now)
        case .renewal: restarted(index, reason, counts: false, now)
        case .park:
            workers[index].phase = .parked
            becomeReady()
        case .crash, .stop: crashed(index, reason, refusal, now)
        }
    }

    private mutating func crashed(_ index: Int, _ reason: ExitReason, _ refusal: Refusal?, _ now: Int64) {
        let id = workers[index].id
        let text = refusal?.reason ?? reason.description
        workers[index].lastFailure = text
        let refusal = mode == .starting && refusesStart(id) ? refusal : nil
        if refusal == nil, workers[index].phase.refusal?.cause == .disk { return diskIsAway(index, text, now) }
        releaseParked(by: id, now)
        noteStability(index, now)
        workers[index].crashes += 1
        if let refusal { return giveUp(index, refusal, now) }
        let delay = workers[index].row.restart.delayMilliseconds(crashes: workers[index].crashes)
        let when = delay == 0 ? "at once" : "in \(delay) ms"
        log(
            workers[index].isCrashLoop ? .critical : .error, id,
            "\(text); restarting \(when)" + (workers[index].isCrashLoop ? " (crash loop, throttled)" : ""))
        workers[index].phase = .waiting(until: now + delay, why: .backOff)
        becomeReady()
    }

    /// The start has failed: everything ends, with the worker's reason.
    private mutating func giveUp(_ index: Int, _ refusal: Refusal, _ now: Int64) {
        log(.critical, workers[index].id, refusal.reason)
        failure = "\(workers[index].id): \(refusal.reason)"
        workers[index].phase = .stopped
        mode = .stopping(stage: 0, hurry: true)
        exitCode = refusal.cause == .settings ? SettingsCheck.unusable : 1
        actions.append(.stopping)
        drainAll(now)
        advanceStages(now)
    }

    /// A start in which every worker of a critical kind reports why it cannot serve is given up: the operator waits for
    /// that reason. With one broker-store of several refusing (one broken disk, for example) the others start.
    private func refusesStart(_ id: WorkerID) -> Bool {
        guard workers.first(where: { $0.id == id })?.row.refusesStart == true else { return false }
        return workers.allSatisfy { $0.id.kind != id.kind || $0.phase.refusal != nil || !$0.lastFailure.isEmpty }
    }
}
