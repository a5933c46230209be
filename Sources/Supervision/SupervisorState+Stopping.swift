import Logging
import WorkerProtocol

/// The platform stops in stages, and nothing waits without a limit of time.
extension SupervisorState {
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
            workers[index].phase = .draining(since: now, then: .stop)
            actions.append(.closeListeners(id))
            actions.append(.send(id, .drain(.stop)))
        case .waiting, .parked: workers[index].phase = .stopped
        case .failing: actions.append(.closeListeners(id))
        case .draining: workers[index].phase = .draining(since: now, then: .stop)
        case .killed(let since, _): workers[index].phase = .killed(since: since, then: .stop)
        case .stopped: break
        }
    }

    /// Goes on to the next stage when all workers of the present one have ended.
    mutating func advanceStages(_ now: Int64) {
        guard case .stopping(var stage, let hurry) = mode else { return }
        let last = workers.map(\.row.drainStage).max() ?? 0
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
        if case .stopping(_, hurry: true) = mode { limits.hurryMilliseconds } else { worker.row.drainMillisecondsMax }
    }

    /// - Parameter sequel: what its end is taken for; nil: what it would have been taken for without the kill.
    mutating func kill(_ id: WorkerID, _ now: Int64, then sequel: Sequel? = nil) {
        guard let index = workers.firstIndex(where: { $0.id == id }) else { return }
        switch workers[index].phase {
        case .waiting, .parked, .stopped: return
        case .killed: break
        case .starting, .ready, .failing, .draining:
            noteStability(index, now)
            let sequel = sequel ?? workers[index].phase.sequel
            workers[index].phase = .killed(since: now, then: sequel)
        }
        actions.append(.kill(id))
    }

    /// Before it leaves the phase `ready`: a long stable run makes the next crash a first one.
    mutating func noteStability(_ index: Int, _ now: Int64) {
        guard case .ready(let since, _) = workers[index].phase,
            now - since >= workers[index].row.restart.stableMilliseconds
        else { return }
        workers[index].crashes = 0
    }
}
