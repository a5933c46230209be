import Logging
import WorkerProtocol

/// While it runs: workers come and go, one is restarted, a disk goes away and returns.
extension SupervisorState {
    /// How soon after its end a worker looks for its disk again: doubled from time to time up to the second.
    static let absenceMillis: ClosedRange<Int64> = 500...5_000

    // MARK: restart of one

    mutating func restart(_ id: WorkerID, _ now: Int64) {
        guard !isStopping, let index = workers.firstIndex(where: { $0.id == id }), !workers[index].isLeaving else {
            return
        }
        log(.notice, id, "restarting as asked")
        switch workers[index].phase {
        case .starting, .ready:
            workers[index].restartAsked = true
            workers[index].phase = .draining(since: now)
            actions.append(.send(id, .drain(.restart)))
        case .draining, .killed: workers[index].restartAsked = true
        case .waiting:
            // Whoever asks may have mended what made it crash.
            workers[index].crashes = 0
            workers[index].phase = .waiting(until: now)
        case .stopped: break
        }
    }

    mutating func restarted(_ index: Int, _ reason: ExitReason, _ now: Int64) {
        workers[index].restartAsked = false
        let isRenewed = workers[index].isRenewed
        workers[index].isRenewed = false
        if reason != .code(0) { log(.warning, workers[index].id, "\(reason) while it was being restarted") }
        relaunch(index, now, isRestart: !isRenewed)
    }

    /// It asks for a fresh process in its place.
    mutating func renew(_ id: WorkerID, _ reason: String, _ now: Int64) {
        guard !isStopping, let index = workers.firstIndex(where: { $0.id == id }), !workers[index].isLeaving else {
            return
        }
        switch workers[index].phase {
        case .starting, .ready:
            let isExcused = excuse(index, now)
            log(isExcused ? .notice : .error, id, isExcused ? reason : "\(reason); too often: \(Self.unexcused)")
            workers[index].restartAsked = isExcused
            workers[index].isRenewed = isExcused
            workers[index].phase = .draining(since: now)
            actions.append(.send(id, .drain(.restart)))
        case .waiting, .draining, .killed, .stopped: break
        }
    }

    /// Ends of one worker that are no crashes because it says so, in a minute. It may be a plugin's code that says it.
    static let excusesMax = 20
    static let excuseMillis: Int64 = 60_000
    static let unexcused = "more than \(excusesMax) in a minute are throttled as crashes are"

    /// Whether the worker is still believed.
    mutating func excuse(_ index: Int, _ now: Int64) -> Bool {
        let (since, count) = workers[index].excuses
        let isOld = since == .min || now - since >= Self.excuseMillis
        workers[index].excuses = isOld ? (now, 1) : (since, min(count + 1, Self.excusesMax + 1))
        return workers[index].excuses.count <= Self.excusesMax
    }

    // MARK: workers come and go

    mutating func change(added: [WorkerID], removed: [WorkerID], _ now: Int64) {
        guard !isStopping else { return }
        for id in removed { update(id) { $0.isLeaving = true } }
        for id in removed { log(.notice, id, "taken out of the platform: draining") }
        advanceLeaving(now)
        let fresh = added.filter { worker($0) == nil }
        for id in added where !fresh.contains(id) {
            log(.error, id, "still draining: read the configuration again when it has ended")
        }
        guard !fresh.isEmpty else { return }
        workers += fresh.map { Worker(id: $0, row: WorkerTable.row($0.kind)) }
        workers.sort { $0.id < $1.id }
        for worker in workers where worker.isRunning && worker.row.segments.contains(where: { $0.sharing == .all }) {
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

    /// Who leaves drains after those of its number that drain before it.
    private mutating func advanceLeaving(_ now: Int64) {
        for id in workers.filter(\.isLeaving).map(\.id) {
            guard let worker = worker(id) else { continue }
            let waits = workers.contains {
                $0.isLeaving && $0.id.index == id.index && $0.row.drainStage < worker.row.drainStage
            }
            guard !waits else { continue }
            switch worker.phase {
            case .starting, .ready:
                update(id) { $0.phase = .draining(since: now) }
                actions.append(.removeListeners(id))
                actions.append(.send(id, .drain(.leave)))
            case .waiting, .stopped:
                actions.append(.removeListeners(id))
                workers.removeAll { $0.id == id }
                advanceLeaving(now)
                return
            case .draining, .killed: break
            }
        }
    }

    mutating func left(_ id: WorkerID, _ reason: ExitReason, _ now: Int64) {
        log(reason == .code(0) ? .notice : .warning, id, "out of the platform (\(reason))")
        // Also the connections it has handed over: there is no next life to take them.
        actions.append(.removeListeners(id))
        workers.removeAll { $0.id == id }
        advanceLeaving(now)
        becomeReady()
    }

    // MARK: disks

    /// The worker ended because its disk is away: it is started again until the disk is back, and who shares it waits with it.
    mutating func diskIsAway(_ index: Int, _ text: String, _ now: Int64) {
        let id = workers[index].id
        // The same words every few seconds would hide everything else.
        let isNew = workers[index].absence != text
        let range = SupervisorState.absenceMillis
        let delay = min(range.lowerBound << Int64(min(workers[index].absences, 10)), range.upperBound)
        workers[index].absence = text
        workers[index].absences += 1
        workers[index].lastFailure = text
        workers[index].crashes = 0
        workers[index].phase = .waiting(until: now + delay)
        log(isNew ? .critical : .debug, id, "\(text); not served meanwhile, looked for again every few seconds")
        actions.append(.pauseListeners(id))
        for other in workers where other.row.sharesDiskOf == id.kind && other.id.index == id.index {
            update(other.id) {
                $0.isParked = true
                $0.lastFailure = text
            }
            actions.append(.pauseListeners(other.id))
            // It may hold on to a file system that is unmounted.
            if other.isRunning { kill(other.id, now) }
        }
        becomeReady()
    }

    /// Ended by ourselves; started again by `diskIsBack`.
    mutating func parked(_ index: Int, _ now: Int64) {
        workers[index].phase = .waiting(until: now)
        becomeReady()
    }

    mutating func diskIsBack(_ id: WorkerID) {
        guard worker(id)?.absence != nil else { return }
        log(.notice, id, "its disk is back")
        forgetAbsence(id)
    }

    mutating func forgetAbsence(_ id: WorkerID) {
        guard worker(id)?.absence != nil else { return }
        update(id) {
            $0.absence = nil
            $0.absences = 0
        }
        for other in workers where other.row.sharesDiskOf == id.kind && other.id.index == id.index {
            update(other.id) { $0.isParked = false }
        }
    }
}
