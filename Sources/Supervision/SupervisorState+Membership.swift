import Logging
import WorkerProtocol

/// Workers join and leave a platform that runs.
extension SupervisorState {
    mutating func change(added: [WorkerID], removed: [WorkerID], _ now: Int64) {
        guard !isStopping else { return }
        for id in removed {
            log(.notice, id, "taken out of the platform: draining")
            if worker(id) != nil { leaving.insert(id) }
        }
        advanceLeaving(now)
        let fresh = added.filter { worker($0) == nil }
        for id in added where !fresh.contains(id) {
            log(.error, id, "still draining: read the configuration again when it has ended")
        }
        guard !fresh.isEmpty else { return }
        workers += fresh.map { Worker(id: $0, row: table.row($0.kind)) }
        workers.sort { table.isBefore($0.id, $1.id) }
        for worker in workers where worker.isRunning && worker.row.segments.contains(where: \.isOfAll) {
            actions.append(.extend(worker.id))
        }
        for id in fresh {
            guard let index = workers.firstIndex(where: { $0.id == id }) else { continue }
            log(.notice, id, "new in the platform")
            launch(index, now)
        }
        introduce(Set(fresh))
        for id in fresh { actions.append(.send(id, .setupDone)) }
    }

    /// Whether it drains because it is no part of the platform any more, or will.
    func isLeaving(_ worker: Worker) -> Bool { leaving.contains(worker.id) || worker.phase.sequel == .leave }

    /// A worker that leaves drains after those of its number that drain before it.
    private mutating func advanceLeaving(_ now: Int64) {
        for id in workers.map(\.id) where leaving.contains(id) {
            guard let index = workers.firstIndex(where: { $0.id == id }) else { continue }
            let worker = workers[index]
            let waits = workers.contains {
                isLeaving($0) && $0.id.index == id.index && $0.row.drainStage < worker.row.drainStage
            }
            guard !waits else { continue }
            switch worker.phase {
            case .starting, .ready:
                workers[index].phase = .draining(since: now, then: .leave)
                actions.append(.removeListeners(id))
                actions.append(.send(id, .drain(.leave)))
            case .draining(let since, _): workers[index].phase = .draining(since: since, then: .leave)
            case .killed(let since, _): workers[index].phase = .killed(since: since, then: .leave)
            case .failing: continue
            case .waiting, .parked, .stopped:
                remove(id, now)
                return
            }
            leaving.remove(id)
        }
    }

    mutating func left(_ id: WorkerID, _ reason: ExitReason, _ now: Int64) {
        log(reason == .code(0) ? .notice : .warning, id, "out of the platform (\(reason))")
        remove(id, now)
        becomeReady()
    }

    /// Also the connections it has handed over are closed: no process will take them.
    private mutating func remove(_ id: WorkerID, _ now: Int64) {
        actions.append(.removeListeners(id))
        leaving.remove(id)
        workers.removeAll { $0.id == id }
        advanceLeaving(now)
    }
}
