import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

@Suite struct HeartbeatTests {
    @Test func fiveUnansweredHeartbeatsKillAndItsExitRestarts() {
        var driver = Driver.running()
        let actions = driver.pass(7_000, silent: [broker])
        #expect(actions.count { $0 == .kill(broker) } == 1)
        #expect(actions.count { if case .send(broker, .ping) = $0 { true } else { false } } == 5)
        #expect(driver.state.worker(broker)?.isReady == false)
        #expect(driver.killed(broker).first == .spawn(broker))
    }

    @Test func lateAnswerIsForgiven() {
        var driver = Driver.running()
        #expect(driver.pass(4_500, silent: [broker]).contains(.kill(broker)) == false)
        _ = driver.handle(.message(broker, .pong(1, status: "late", trouble: "")))
        #expect(driver.pass(60_000).contains(.kill(broker)) == false)
        #expect(driver.state.worker(broker)?.status == "")
    }

    /// The supervisor itself, or the machine, was asleep for an hour: no worker hangs.
    @Test func ourOwnSleepBlamesNobody() {
        var driver = Driver.running()
        _ = driver.pass(1_000, silent: Set(everyone))
        driver.now += 3_600_000
        #expect(!driver.handle(.tick).contains { if case .kill = $0 { true } else { false } })
    }

    @Test func watchdogOnlyWhileTheCriticalAnswer() {
        var driver = Driver.running(watchdog: 1_000)
        #expect(driver.pass(10_000).count { $0 == .watchdog } == 10)
        // An uncritical worker does not matter, a critical one does, until it is restarted.
        #expect(driver.pass(3_500, silent: [filter]).contains(.watchdog))
        _ = driver.pass(2_000, silent: [broker])
        #expect(!driver.pass(20_000, silent: [broker]).contains(.watchdog))
        _ = driver.killed(broker)
        _ = driver.ready(broker)
        #expect(driver.pass(1_000).contains(.watchdog))
    }
}
