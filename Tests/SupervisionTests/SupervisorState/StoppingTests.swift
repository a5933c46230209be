import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

@Suite struct StoppingTests {
    @Test func brokersFirstThenReplicationAndFilterThenNameserver() {
        var driver = Driver.running()
        #expect(driver.handle(.stop("SIGTERM")) == [.stopping, .closeListeners(broker), .send(broker, .drain(.stop))])
        #expect(driver.handle(.message(broker, .drained)) == [])
        #expect(
            driver.handle(.exited(broker, .code(0))) == [
                .closeListeners(replication), .send(replication, .drain(.stop)), .closeListeners(filter),
                .send(filter, .drain(.stop)),
            ])
        #expect(driver.handle(.exited(filter, .code(0))) == [])
        #expect(
            driver.handle(.exited(replication, .code(0))) == [
                .closeListeners(nameserver), .send(nameserver, .drain(.stop)),
            ])
        #expect(driver.handle(.exited(nameserver, .code(0))) == [.exit(0)])
    }

    @Test func nobodyIsRestartedWhileStopping() {
        var driver = Driver.running()
        _ = driver.handle(.stop("SIGTERM"))
        #expect(!driver.killed(filter).contains(.spawn(filter)))
        #expect(!driver.pass(1_000).contains(.spawn(filter)))
        #expect(driver.killed(broker).contains(.send(replication, .drain(.stop))))
    }

    @Test func whoDoesNotDrainInTimeIsKilled() {
        var driver = Driver.running()
        _ = driver.handle(.stop("SIGTERM"))
        #expect(!driver.pass(59_000).contains(.kill(broker)))
        #expect(driver.pass(1_000).contains(.kill(broker)))
    }

    @Test func secondStopHurries() {
        var driver = Driver.running()
        _ = driver.handle(.stop("SIGINT"))
        let actions = driver.handle(.stop("SIGINT"))
        for worker in [nameserver, replication, filter] { #expect(actions.contains(.send(worker, .drain(.stop)))) }
        let killed = driver.pass(1_000)
        for worker in everyone { #expect(killed.contains(.kill(worker))) }
        for worker in everyone.dropLast() { #expect(driver.killed(worker) == []) }
        #expect(driver.killed(filter) == [.exit(0)])
    }

    @Test func stopDuringBackOffAndStart() {
        var driver = Driver()
        _ = driver.handle(.start)
        _ = driver.killed(broker)
        _ = driver.killed(broker)  // waits 100 ms now
        let actions = driver.handle(.stop("SIGTERM"))
        #expect(actions.contains(.send(replication, .drain(.stop))))
        #expect(driver.state.worker(broker)?.phase == .stopped)
    }
}

@Suite struct ReloadTests {
    @Test func goesToWhoeverRuns() {
        var driver = Driver.running()
        for _ in 0..<2 { _ = driver.killed(filter) }
        #expect(driver.handle(.reload) == [.reload(nameserver), .reload(broker), .reload(replication)])
    }
}
