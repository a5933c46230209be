import Logging
import WorkerProtocol

/// A worker gets a fresh process because an operator or the worker itself asks for one.
extension SupervisorState {
    mutating func restart(_ id: WorkerID, _ now: Int64) {
        guard !isStopping, let index = workers.firstIndex(where: { $0.id == id }), !isLeaving(workers[index]) else {
            return
        }
        log(.notice, id, "restarting as asked")
        switch workers[index].phase {
        case .starting, .ready:
            workers[index].phase = .draining(since: now, then: .restart)
            actions.append(.send(id, .drain(.restart)))
        case .draining(let since, _): workers[index].phase = .draining(since: since, then: .restart)
        case .killed(let since, let sequel):
            if sequel != .park { workers[index].phase = .killed(since: since, then: .restart) }
        // The operator may have removed the cause of its crashes.
        case .failing: workers[index].crashes = 0
        case .waiting(_, let why):
            workers[index].crashes = 0
            workers[index].phase = .waiting(until: now, why: why)
        case .parked, .stopped: break
        }
    }

    mutating func restarted(_ index: Int, _ reason: ExitReason, counts: Bool, _ now: Int64) {
        if reason != .code(0) { log(.warning, workers[index].id, "\(reason) while it was being restarted") }
        relaunch(index, now, isRestart: counts)
    }

    /// The worker asks for a fresh process in its place.
    mutating func renew(_ id: WorkerID, _ reason: String, _ now: Int64) {
        guard !isStopping, let index = workers.firstIndex(where: { $0.id == id }), !isLeaving(workers[index]) else {
            return
        }
        switch workers[index].phase {
        case .starting, .ready:
            let isExcused = excuse(index, now)
            log(isExcused ? .notice : .error, id, isExcused ? reason : "\(reason); too often: \(Self.unexcused)")
            workers[index].phase = .draining(since: now, then: isExcused ? .renewal : .crash(nil))
            actions.append(.send(id, .drain(.restart)))
        case .waiting, .parked, .failing, .draining, .killed, .stopped: break
        }
    }

    // MARK: - Excused ends

    /// Ends of one worker in `excuseMilliseconds` that are no crashes because the worker reports so. A plugin may forge
    /// reports.
    static let excusesMax = 20
    static let excuseMilliseconds: Int64 = 60_000
    static let unexcused = "more than \(excusesMax) in a minute are throttled as crashes are"

    /// The worker reports what its last process died of: that is dealt with, and the next start need not be throttled.
    mutating func explained(_ id: WorkerID, _ cause: String, _ now: Int64) {
        guard let index = workers.firstIndex(where: { $0.id == id }) else { return }
        let isExcused = excuse(index, now)
        log(.warning, id, "its last end is explained: \(cause)" + (isExcused ? "" : "; \(Self.unexcused)"))
        if isExcused { workers[index].crashes = 0 }
    }

    /// Whether the worker's report is still trusted.
    private mutating func excuse(_ index: Int, _ now: Int64) -> Bool {
        let (since, count) = workers[index].excuses
        let isOld = since == .min || now - since >= Self.excuseMilliseconds
        workers[index].excuses = isOld ? (now, 1) : (since, min(count + 1, Self.excusesMax + 1))
        return workers[index].excuses.count <= Self.excusesMax
    }
}
