package import Logging
package import WorkerProtocol

/// What the supervisor decides, without doing any of it: events and the time go in, actions come out. Time is in
/// milliseconds of a monotonic clock. The runtime (`Platform`) carries the actions out in their order.
package struct SupervisorState: Sendable {
    /// What happened.
    package enum Event: Sendable {
        case start
        /// The process runs.
        case spawned(WorkerID, pid: Int32)
        /// A message from the worker: ready, pong, failed, drained.
        case message(WorkerID, WorkerMessage)
        case exited(WorkerID, ExitReason)
        /// The configuration was read again.
        case reload
        /// It names other workers now: these came, those went.
        case changed(added: [WorkerID], removed: [WorkerID])
        /// Drain and start anew; its listeners stay open, so that connects wait.
        case restart(WorkerID)
        /// A worker that runs is at one of its limits.
        case noticed(WorkerID, String)
        /// Stop in order; the second time: hurry.
        case stop(String)
        /// Time has passed: at the latest at `deadline`.
        case tick
    }

    /// How a worker's process ended.
    package enum ExitReason: Hashable, Sendable, CustomStringConvertible {
        case code(Int32)
        case signal(Int32, name: String)
        case spawnFailed(String)

        package var description: String {
            switch self {
            case .code(let code): "exit code \(code)"
            case .signal(_, let name): "killed by \(name)"
            case .spawnFailed(let reason): reason
            }
        }
    }

    /// What is to be done, in this order.
    package enum Action: Hashable, Sendable {
        /// Launch and send `setup`.
        case spawn(WorkerID)
        /// Make a socket pair and give one end to each of the two.
        case introduce(WorkerPair)
        case send(WorkerID, WorkerMessage)
        /// Send the settings as they are now.
        case reload(WorkerID)
        /// SIGKILL.
        case kill(WorkerID)
        /// From now on connects are refused.
        case closeListeners(WorkerID)
        /// Connects are refused until the worker listens again.
        case pauseListeners(WorkerID)
        /// It does not come back: its sockets are closed.
        case removeListeners(WorkerID)
        /// Give it the shared descriptors again: there are more.
        case extend(WorkerID)
        /// All that must serve serves, for the first time.
        case ready
        case watchdog
        case stopping
        case status(String)
        case log(Logger.Level, WorkerID?, String)
        case exit(Int32)
    }

    /// Times it decides by.
    package struct Limits: Sendable {
        /// Between two heartbeats of a worker, in milliseconds.
        package var heartbeatMilliseconds: Int64 = 1_000
        /// So many heartbeats in a row unanswered: the worker hangs.
        package var missedMax = 5
        /// nil: systemd does not watch us.
        package var watchdogMilliseconds: Int64?
        /// How long each worker may drain once there is hurry.
        package var hurryMilliseconds: Int64 = 1_000

        package init() {}
    }

    /// Of the whole platform.
    package enum Mode: Hashable, Sendable {
        case starting
        case running
        case stopping(stage: Int, hurry: Bool)
        case ended
    }

    /// In launch order.
    package internal(set) var workers: [Worker]
    /// Of the whole platform.
    package internal(set) var mode = Mode.starting
    /// Workers that are no part of the platform any more, and drain when those before them have ended.
    var leaving: Set<WorkerID> = []
    let limits: Limits
    let table: WorkerTable
    var nextHeartbeat: Int64 = 0
    var nextWatchdog: Int64?
    var pings: UInt64 = 0
    private var shownStatus = ""
    var exitCode: Int32 = 0
    /// Why the platform could not start, or ended by itself.
    var failure: String?
    var actions: [Action] = []

    /// All of them waiting; nothing happens before the event `start`.
    /// - Parameter table: a row for each kind of them.
    package init(workers ids: [WorkerID], limits: Limits = Limits(), table: WorkerTable = .standard) {
        self.table = table
        workers = ids.map { Worker(id: $0, row: table.row($0.kind)) }
        self.limits = limits
    }

    /// The one way in.
    /// - Parameter now: milliseconds of a monotonic clock, never less than before.
    /// - Returns: what is to be done, in this order.
    package mutating func handle(_ event: Event, at now: Int64) -> [Action] {
        actions = []
        switch event {
        case .start: start(now)
        case .spawned(let id, let pid): update(id) { $0.pid = pid }
        case .message(let id, let message): received(message, from: id, now)
        case .exited(let id, let reason): exited(id, reason, now)
        case .reload:
            for worker in workers where worker.isRunning { actions.append(.reload(worker.id)) }
        case .changed(let added, let removed): change(added: added, removed: removed, now)
        case .restart(let id): restart(id, now)
        case .noticed(let id, let text):
            update(id) { $0.note = text }
            log(.warning, id, text)
        case .stop(let reason): stop(reason, now)
        case .tick: break
        }
        passTime(now)
        showStatus(now)
        defer { actions = [] }
        return actions
    }

    /// When `tick` is due at the latest.
    package var deadline: Int64 {
        var earliest = nextHeartbeat
        if let nextWatchdog { earliest = min(earliest, nextWatchdog) }
        for worker in workers {
            switch worker.phase {
            case .waiting(let until, _):
                if !isStopping && !leaving.contains(worker.id) { earliest = min(earliest, until) }
            case .starting(let since, _): earliest = min(earliest, since + worker.row.startMillisecondsMax)
            case .failing(let since, _, _), .draining(let since, _):
                earliest = min(earliest, since + drainLimit(worker))
            case .parked, .ready, .killed, .stopped: break
            }
        }
        return earliest
    }

    /// No worker is launched any more.
    package var isStopping: Bool {
        switch mode {
        case .starting, .running: false
        case .stopping, .ended: true
        }
    }

    // MARK: - Status

    private mutating func showStatus(_ now: Int64) {
        let text = statusLine
        guard text != shownStatus else { return }
        shownStatus = text
        actions.append(.status(text))
    }

    /// One line for STATUS=.
    package var statusLine: String {
        let ready = workers.count(where: \.isReady)
        var parts: [String]
        switch mode {
        case .starting: parts = ["Starting: \(ready) of \(workers.count) workers ready"]
        case .running: parts = ["\(ready) of \(workers.count) workers ready"]
        case .stopping:
            let left = "\(workers.count(where: { $0.phase != .stopped })) of \(workers.count) workers left"
            parts = failure.map { ["Failed: \($0)", "stopping, \(left)"] } ?? ["Stopping: \(left)"]
        case .ended: parts = [failure.map { "Failed: \($0)" } ?? "Stopped"]
        }
        for worker in workers where !isStopping {
            if let absence = worker.absence, !worker.isReady {
                parts.append("\(worker.id) waits for its disk (\(absence.text))")
            } else if worker.isParked {
                continue
            } else if worker.isCrashLoop && !worker.isReady {
                parts.append("\(worker.id) crash loop, \(worker.restarts) restarts (\(worker.lastFailure))")
            } else if worker.isSilent || mode == .running && !worker.isReady {
                let reason = worker.isReady || worker.lastFailure.isEmpty ? "" : " (\(worker.lastFailure))"
                parts.append("\(worker.id) \(worker.phaseName)\(reason)")
            } else {
                parts += [worker.trouble, worker.note].filter { !$0.isEmpty }.map { "\(worker.id) \($0)" }
            }
        }
        return parts.joined(separator: "; ")
    }

    /// nil: it is no part of the platform.
    package func worker(_ id: WorkerID) -> Worker? { workers.first { $0.id == id } }

    mutating func update(_ id: WorkerID, _ body: (inout Worker) -> Void) {
        guard let index = workers.firstIndex(where: { $0.id == id }) else { return }
        body(&workers[index])
    }

    mutating func log(_ level: Logger.Level, _ id: WorkerID?, _ text: String) {
        actions.append(.log(level, id, text))
    }
}
