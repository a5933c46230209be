package import WorkerProtocol

/// What the supervisor knows of one worker. Its process is described by one enum, so that states which exclude each
/// other cannot be combined.
extension SupervisorState {
    /// Where a worker stands. Times are those of `handle(_:at:)`, in milliseconds.
    package enum Phase: Hashable, Sendable {
        /// Without a process; launched at `until`.
        case waiting(until: Int64, why: Wait)
        /// Without a process until the worker whose disk it shares is ready.
        case parked
        /// Launched. `absence`: its disk was away at the try before.
        case starting(since: Int64, absence: DiskAbsence?)
        /// Serving. `unanswered`: heartbeats sent since its last answer.
        case ready(since: Int64, unanswered: Int)
        /// It has reported why it cannot serve, and is about to end. `absence`: as for `starting`.
        case failing(since: Int64, Refusal, absence: DiskAbsence?)
        /// It finishes its work and ends.
        case draining(since: Int64, then: Sequel)
        /// SIGKILL is sent.
        case killed(since: Int64, then: Sequel)
        /// Ended while the platform stops.
        case stopped
    }

    /// Why a worker without a process is launched only later.
    package enum Wait: Hashable, Sendable {
        /// It has not been launched yet.
        case launch
        /// It crashed, or nothing holds it back any more.
        case backOff
        case diskAway(DiskAbsence)
    }

    /// The disk a worker needs is not there.
    package struct DiskAbsence: Hashable, Sendable {
        /// What the worker reported at the last try.
        package var text: String
        /// Launches since the disk went away, at least 1.
        package var tries: Int
    }

    /// Why a worker cannot serve, as it reported with `failed`.
    package struct Refusal: Hashable, Sendable {
        /// For people: cause and remedy.
        package var reason: String
        /// What its end is to be taken for.
        package var cause: FailureCause
    }

    /// What the end of a process is taken for, and so what follows it.
    package enum Sequel: Hashable, Sendable {
        /// A crash: launched again after a back-off, or when its disk is back.
        case crash(Refusal?)
        /// Launched at once: an operator asked for it.
        case restart
        /// Launched at once, and not counted as a restart: the worker asked for a fresh process.
        case renewal
        /// Launched when the worker whose disk it shares is ready.
        case park
        /// It is no part of the platform any more.
        case leave
        /// The platform stops.
        case stop
    }

    /// All that is known of one worker.
    package struct Worker: Sendable {
        /// Kind and number.
        package let id: WorkerID
        let row: WorkerRow
        /// Its process.
        package var phase = Phase.waiting(until: 0, why: .launch)
        /// Of its process, 0 without one.
        package var pid: Int32 = 0
        /// When its present process was launched.
        package var launchedAt: Int64 = 0
        /// Since the platform's start.
        package var restarts = 0
        /// In a row, without a stable time in between.
        package var crashes = 0
        /// What it reported when it became ready, for people.
        package var detail = ""
        /// What it reported with its last heartbeat, for people.
        package var status = ""
        /// What keeps it from doing all its work, as reported with its last heartbeat; empty when it serves.
        package var trouble = ""
        /// Why it ended last, for people.
        package var lastFailure = ""
        /// Its ends that were not counted as crashes, and since when they are counted.
        var excuses = (since: Int64.min, count: 0)
        /// The last `report` of the worker: JSON, or nothing.
        package var report = ""
        /// The limit it is at, as text.
        package var note = ""

        init(id: WorkerID, row: WorkerRow) {
            self.id = id
            self.row = row
        }

        /// It has a process that is not ended by force.
        package var isRunning: Bool {
            switch phase {
            case .starting, .ready, .failing, .draining: true
            case .waiting, .parked, .killed, .stopped: false
            }
        }

        /// It serves.
        package var isReady: Bool { if case .ready = phase { true } else { false } }
        /// It crashed too often in a row: restarts are throttled.
        package var isCrashLoop: Bool { crashes >= row.restart.crashLoop }

        /// Heartbeats that should have been answered by now.
        package var missed: Int { if case .ready(_, let unanswered) = phase { max(0, unanswered - 1) } else { 0 } }

        /// It misses heartbeats; a late answer may still come.
        var isSilent: Bool { missed >= 2 }

        /// Its disk, while that is away.
        package var absence: DiskAbsence? {
            switch phase {
            case .waiting(_, .diskAway(let absence)), .starting(_, let absence?), .failing(_, _, let absence?): absence
            default: nil
            }
        }

        /// The disk it shares is another worker's, which waits for it.
        var isParked: Bool {
            switch phase {
            case .parked, .killed(_, then: .park): true
            default: false
            }
        }

        /// `restarting`, `starting`, `ready`, … and `crash loop`.
        package var phaseName: String {
            switch phase {
            case .waiting, .parked, .starting:
                if absence != nil || isParked {
                    "disk away"
                } else if isCrashLoop {
                    "crash loop"
                } else if case .starting = phase {
                    "starting"
                } else {
                    "restarting"
                }
            case .ready: isSilent ? "not answering" : "ready"
            case .failing: absence != nil ? "disk away" : "failing"
            case .draining(_, then: .restart), .draining(_, then: .renewal): "restarting"
            case .draining: "draining"
            case .killed(_, then: .park): "disk away"
            case .killed: "killed"
            case .stopped: "stopped"
            }
        }
    }
}

extension SupervisorState.Phase {
    /// What the end of the process in this phase is taken for.
    var sequel: SupervisorState.Sequel {
        switch self {
        case .failing(_, let refusal, _): .crash(refusal)
        case .draining(_, let sequel), .killed(_, let sequel): sequel
        case .waiting, .parked, .starting, .ready, .stopped: .crash(nil)
        }
    }

    /// What the process reported of why it cannot serve.
    var refusal: SupervisorState.Refusal? { if case .crash(let refusal) = sequel { refusal } else { nil } }
}
