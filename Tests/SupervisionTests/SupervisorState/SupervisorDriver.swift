import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

let nameserver = WorkerID(.nameserver, 0)
let broker = WorkerID(.brokerStore, 0)
let replication = WorkerID(.replication, 0)
let filter = WorkerID(.filter, 0)
let everyone = [nameserver, broker, replication, filter]

/// Drives the state machine with a clock of its own.
struct Driver {
    var state: SupervisorState
    var now: Int64 = 1_000

    init(_ workers: [WorkerID] = everyone, watchdog: Int64? = nil) {
        var limits = SupervisorState.Limits()
        limits.watchdogMilliseconds = watchdog
        state = SupervisorState(workers: workers, limits: limits)
    }

    /// Without logs and status lines, which other tests look at.
    mutating func handle(_ event: SupervisorState.Event) -> [SupervisorState.Action] {
        state.handle(event, at: now).filter {
            switch $0 {
            case .log, .status: false
            default: true
            }
        }
    }

    mutating func ready(_ id: WorkerID) -> [SupervisorState.Action] { handle(.message(id, .ready(detail: ""))) }

    mutating func killed(_ id: WorkerID) -> [SupervisorState.Action] {
        handle(.exited(id, .signal(9, name: "SIGKILL")))
    }

    /// A running platform, long stable.
    static func running(_ workers: [WorkerID] = everyone, watchdog: Int64? = nil) -> Driver {
        var driver = Driver(workers, watchdog: watchdog)
        _ = driver.handle(.start)
        for worker in workers { _ = driver.ready(worker) }
        return driver
    }

    /// Lets time pass in steps, answering the heartbeats of all but `silent`.
    mutating func pass(_ milliseconds: Int64, silent: Set<WorkerID> = []) -> [SupervisorState.Action] {
        var all: [SupervisorState.Action] = []
        let end = now + milliseconds
        while now < end {
            now = min(end, max(now + 1, state.deadline))
            let actions = handle(.tick)
            all += actions
            for case .send(let id, .ping(let number)) in actions where !silent.contains(id) {
                all += handle(.message(id, .pong(number, status: "", trouble: "")))
            }
        }
        return all
    }
}
