import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

@Suite struct DiskAbsenceTests {
    private static let second = WorkerID(.brokerStore, 1)
    private static let secondReplication = WorkerID(.replication, 1)
    private static let two = [nameserver, broker, second, replication, secondReplication, filter]

    private func lose(_ driver: inout Driver, _ reason: String = "gone") -> [SupervisorState.Action] {
        _ = driver.handle(.message(Self.second, .failed(reason: reason, cause: .disk)))
        return driver.handle(.exited(Self.second, .code(1)))
    }

    /// Its worker and the one that shares its disk go, its ports refuse; no other worker is touched.
    @Test func diskThatGoesAwayTakesDownItsWorkersOnly() {
        var driver = Driver.running(Self.two)
        #expect(
            lose(&driver) == [
                .pauseListeners(Self.second), .pauseListeners(Self.secondReplication), .kill(Self.secondReplication),
            ])
        #expect(driver.killed(Self.secondReplication) == [])
        #expect(driver.state.statusLine == "4 of 6 workers ready; broker-store-1 waits for its disk (gone)")
        #expect(driver.state.worker(Self.secondReplication)?.phaseName == "disk away")
        #expect(driver.state.isHealthy)
    }

    @Test func comesBackByItselfAndIsNoCrashLoop() {
        var driver = Driver.running(Self.two)
        _ = lose(&driver)
        _ = driver.killed(Self.secondReplication)
        var tries = 0
        for _ in 0..<10 {
            let actions = driver.pass(6_000)
            #expect(!actions.contains(.spawn(Self.secondReplication)))
            tries += actions.count { $0 == .spawn(Self.second) }
            #expect(driver.state.worker(Self.second)?.isCrashLoop == false)
            _ = lose(&driver)
        }
        #expect(tries == 10)
        _ = driver.pass(6_000)
        // Back: with it the one that shares the disk, and links to all.
        let actions = driver.ready(Self.second)
        #expect(actions.contains(.spawn(Self.secondReplication)))
        #expect(actions.contains(.introduce(WorkerPair(a: Self.second, b: Self.secondReplication))))
        _ = driver.ready(Self.secondReplication)
        #expect(driver.state.statusLine == "6 of 6 workers ready")
    }

    @Test func missingAtTheStartHoldsNobodyBack() {
        var driver = Driver(Self.two)
        _ = driver.handle(.start)
        for id in [nameserver, broker, replication, filter] { _ = driver.ready(id) }
        #expect(lose(&driver).contains(.ready))
    }

    @Test func theOnlyDiskMissingAtTheStartIsSaidAtOnce() {
        var driver = Driver()
        _ = driver.handle(.start)
        _ = driver.handle(.message(broker, .failed(reason: "no disk", cause: .disk)))
        #expect(driver.handle(.exited(broker, .code(1))).contains(.stopping))
    }

    /// A restart asked for before the disk went away does not launch a worker that has no disk.
    @Test func aRestartWaitsForTheDisk() {
        var driver = Driver.running(Self.two)
        #expect(driver.handle(.restart(Self.secondReplication)) == [.send(Self.secondReplication, .drain(.restart))])
        #expect(lose(&driver).contains(.kill(Self.secondReplication)))
        #expect(driver.killed(Self.secondReplication) == [])
        #expect(driver.handle(.restart(Self.secondReplication)) == [])
        #expect(driver.state.worker(Self.secondReplication)?.phase == .parked)
        _ = driver.pass(600)
        #expect(driver.ready(Self.second).contains(.spawn(Self.secondReplication)))
    }

    /// Ended by SIGKILL for its disk's sake, and the disk is back before it has ended.
    @Test func aDiskThatIsBackSoonIsNoCrashOfThoseThatShareIt() {
        var driver = Driver.running(Self.two)
        _ = lose(&driver)
        _ = driver.pass(600)
        #expect(!driver.ready(Self.second).contains(.spawn(Self.secondReplication)))
        #expect(driver.killed(Self.secondReplication).contains(.spawn(Self.secondReplication)))
        #expect(driver.state.worker(Self.secondReplication)?.crashes == 0)
    }

    /// In the kernel with a disk that hangs: not even SIGKILL ends it.
    @Test func workerThatCannotDieDoesNotCostTheOthersTheirLife() {
        var driver = Driver.running(Self.two, watchdog: 1_000)
        #expect(driver.pass(7_000, silent: [Self.second]).contains(.kill(Self.second)))
        #expect(driver.pass(10_000, silent: [Self.second]).count { $0 == .watchdog } == 10)
    }
}
