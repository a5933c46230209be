import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

/// Random events in random order: nothing traps, a stop always ends, and no worker is launched twice.
@Suite struct SupervisorFuzzTests {
    @Test(arguments: 0..<200) func anyOrderOfEvents(seed: UInt64) {
        var random = SplitMix(state: seed)
        var driver = Driver(everyone + [WorkerID(.brokerStore, 1), WorkerID(.replication, 1)], watchdog: 700)
        var alive: Set<WorkerID> = []
        func apply(_ actions: [SupervisorState.Action]) {
            for action in actions {
                if case .spawn(let id) = action { #expect(alive.insert(id).inserted, "\(id) launched twice") }
            }
        }
        /// A process runs where the state says so, and nowhere else.
        func check() {
            for worker in driver.state.workers {
                let hasProcess =
                    switch worker.phase {
                    case .waiting, .parked, .stopped: false
                    case .starting, .ready, .failing, .draining, .killed: true
                    }
                #expect(hasProcess == alive.contains(worker.id), "\(worker.id): \(worker.phase)")
            }
        }
        apply(driver.handle(.start))
        for _ in 0..<300 {
            check()
            driver.now += Int64.random(in: 0...2_000, using: &random)
            let id = driver.state.workers.randomElement(using: &random)?.id ?? broker
            switch Int.random(in: 0..<12, using: &random) {
            case 0...1 where alive.contains(id): apply(driver.ready(id))
            case 2...3 where alive.contains(id):
                alive.remove(id)
                apply(driver.killed(id))
            case 4 where alive.contains(id): apply(driver.handle(.message(id, .pong(1, status: "", trouble: ""))))
            case 5 where alive.contains(id):
                apply(
                    driver.handle(.message(id, .failed(reason: "x", cause: Bool.random(using: &random) ? .own : .disk)))
                )
            case 6: apply(driver.handle(.reload))
            case 9 where alive.contains(id): apply(driver.handle(.message(id, .renew(reason: "x"))))
            case 10 where alive.contains(id): apply(driver.handle(.message(id, .explained(cause: "x"))))
            case 7: apply(driver.handle(.restart(id)))
            case 8:
                let broker = WorkerID(.brokerStore, Int.random(in: 1...2, using: &random))
                let both = [broker, WorkerID(.replication, broker.index)]
                if Bool.random(using: &random) {
                    apply(driver.handle(.changed(added: both, removed: [])))
                } else {
                    apply(driver.handle(.changed(added: [], removed: both)))
                }
            default: apply(driver.handle(.tick))
            }
        }
        var last = driver.handle(.stop("SIGTERM"))
        for _ in 0..<100 where !last.contains(where: { if case .exit = $0 { true } else { false } }) {
            driver.now += 61_000
            last = driver.handle(.tick)
            if let id = alive.popFirst() { last += driver.killed(id) }
        }
        #expect(driver.state.mode == .ended)
    }
}
