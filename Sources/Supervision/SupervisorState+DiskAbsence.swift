import Logging
import WorkerProtocol

/// A worker whose disk is away is launched again until the disk is back. Workers that share the disk are parked
/// meanwhile.
extension SupervisorState {
    /// How soon after its end a worker looks for its disk again, in milliseconds: doubled from try to try up to the
    /// second.
    static let absenceMilliseconds: ClosedRange<Int64> = 500...5_000

    mutating func diskIsAway(_ index: Int, _ text: String, _ now: Int64) {
        let id = workers[index].id
        let before = workers[index].absence
        let tries = before?.tries ?? 0
        let range = SupervisorState.absenceMilliseconds
        let delay = min(range.lowerBound << Int64(min(tries, 10)), range.upperBound)
        workers[index].crashes = 0
        workers[index].phase = .waiting(until: now + delay, why: .diskAway(DiskAbsence(text: text, tries: tries + 1)))
        // The same line every few seconds would hide everything else.
        log(
            before?.text == text ? .debug : .critical, id,
            "\(text); not served meanwhile, looked for again every few seconds")
        actions.append(.pauseListeners(id))
        for other in sharers(of: id) {
            workers[other].lastFailure = text
            actions.append(.pauseListeners(workers[other].id))
            park(other, now)
        }
        becomeReady()
    }

    private func sharers(of id: WorkerID) -> [Int] {
        workers.indices.filter { workers[$0].row.sharesDiskOf == id.kind && workers[$0].id.index == id.index }
    }

    /// A process that runs may hold on to a file system that is unmounted: it is killed.
    private mutating func park(_ index: Int, _ now: Int64) {
        switch workers[index].phase {
        case .waiting: workers[index].phase = .parked
        case .draining(_, then: .leave): kill(workers[index].id, now)
        case .starting, .ready, .failing, .draining: kill(workers[index].id, now, then: .park)
        case .killed(_, then: .leave), .killed(_, then: .stop): break
        case .killed(let since, _): workers[index].phase = .killed(since: since, then: .park)
        case .parked, .stopped: break
        }
    }

    /// The worker serves, or ended for another reason than its disk: those that share the disk are launched.
    mutating func releaseParked(by id: WorkerID, _ now: Int64) {
        for other in sharers(of: id) {
            switch workers[other].phase {
            case .parked: workers[other].phase = .waiting(until: now, why: .backOff)
            case .killed(let since, then: .park): workers[other].phase = .killed(since: since, then: .restart)
            default: break
            }
        }
    }
}
