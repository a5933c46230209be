import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

@Suite struct StartTests {
    @Test func everyoneIsLaunchedAtOnceThenIntroducedThenLetLoose() {
        var driver = Driver()
        let actions = driver.handle(.start)
        #expect(
            actions == everyone.map { .spawn($0) } + [
                .introduce(WorkerPair(a: broker, b: replication)), .introduce(WorkerPair(a: broker, b: filter)),
            ] + everyone.map { .send($0, .setupDone) })
    }

    @Test func readyOnceWhenTheLastOneIs() {
        var driver = Driver()
        _ = driver.handle(.start)
        for worker in [filter, broker, nameserver] { #expect(driver.ready(worker) == []) }
        #expect(driver.ready(replication) == [.ready])
        // Never again, whichever worker is restarted.
        _ = driver.killed(broker)
        #expect(driver.ready(broker) == [])
    }

    /// A broken plug-in must not keep the platform from serving.
    @Test func crashLoopOfAnUncriticalWorkerDoesNotHoldBackReady() {
        var driver = Driver()
        _ = driver.handle(.start)
        for worker in [broker, nameserver, replication] { _ = driver.ready(worker) }
        #expect(!driver.killed(filter).contains(.ready))
        #expect(!driver.killed(filter).contains(.ready))
        #expect(driver.killed(filter).contains(.ready))
    }

    /// A crash whose cause the next process knows is dealt with: the crash after it is not throttled for it.
    @Test func anExplainedDeathIsNotThrottled() {
        var driver = Driver.running()
        for _ in 0..<10 {
            #expect(driver.killed(filter).contains(.spawn(filter)), "at once")
            _ = driver.handle(.message(filter, .explained(cause: "plugin x crashed")))
            _ = driver.ready(filter)
        }
        #expect(driver.state.worker(filter)?.restarts == 10)
        #expect(driver.state.worker(filter)?.isCrashLoop == false)
        // Unexplained ones are, as ever.
        _ = driver.killed(filter)
        #expect(!driver.killed(filter).contains(.spawn(filter)))
    }

    /// To take a plugin's new version is no failure.
    @Test func aRenewedWorkerIsNoRestartAndNoError() {
        var driver = Driver.running()
        let actions = driver.state.handle(.message(filter, .renew(reason: "libA.so was replaced")), at: driver.now)
        #expect(actions.contains(.send(filter, .drain(.restart))))
        for case .log(let level, _, _) in actions { #expect(level == .notice) }
        let anew = driver.state.handle(.exited(filter, .code(0)), at: driver.now)
        #expect(anew.contains(.spawn(filter)))
        for case .log(let level, _, let text) in anew { #expect(level < .warning, "\(text)") }
        _ = driver.ready(filter)
        #expect(driver.state.worker(filter)?.restarts == 0 && driver.state.worker(filter)?.lastFailure == "")
    }

    /// What explains or renews may be the code of a plugin: a process that does it all the time is throttled.
    @Test(arguments: [true, false])
    func whoExplainsOrRenewsWithoutEndIsThrottled(renews: Bool) {
        var driver = Driver.running()
        var launches = 0
        let end = driver.now + 30_000
        while driver.now < end {
            if renews {
                _ = driver.handle(.message(filter, .renew(reason: "again")))
                launches += driver.handle(.exited(filter, .code(0))).filter { $0 == .spawn(filter) }.count
            } else {
                launches += driver.killed(filter).filter { $0 == .spawn(filter) }.count
                _ = driver.handle(.message(filter, .explained(cause: "plugin x crashed")))
            }
            _ = driver.ready(filter)
            launches += driver.pass(1).filter { $0 == .spawn(filter) }.count
        }
        #expect((20...30).contains(launches), "\(launches)")
        #expect(driver.state.worker(filter)?.isCrashLoop == true)
        // A quiet time later it is believed again.
        _ = driver.pass(15_000)
        _ = driver.ready(filter)
        _ = driver.pass(60_000)
        _ = driver.handle(.message(filter, .renew(reason: "replaced")))
        #expect(driver.handle(.exited(filter, .code(0))).contains(.spawn(filter)))
    }

    /// Without the plugins that come with Apus nothing is served: the start says why and ends.
    @Test func aFilterWorkerThatRefusesEndsTheStart() {
        var driver = Driver()
        _ = driver.handle(.start)
        for worker in [broker, nameserver, replication] { _ = driver.ready(worker) }
        _ = driver.handle(.message(filter, .failed(reason: "without libApusTagFilter.so", cause: .settings)))
        let actions = driver.handle(.exited(filter, .code(1)))
        #expect(actions.contains(.stopping) && !actions.contains(.ready))
        for worker in [broker, nameserver] { _ = driver.handle(.exited(worker, .code(0))) }
        #expect(driver.handle(.exited(replication, .code(0))) == [.exit(78)])
    }

    /// Settings that cannot be used end it with what systemd does not try again.
    @Test(arguments: [(FailureCause.own, Int32(1)), (.settings, 78)])
    func refusalOfACriticalWorkerEndsTheStart(_ cause: FailureCause, _ status: Int32) {
        var driver = Driver()
        _ = driver.handle(.start)
        _ = driver.handle(.message(broker, .failed(reason: "the store is locked by pid 7", cause: cause)))
        let actions = driver.handle(.exited(broker, .code(1)))
        #expect(actions.contains(.stopping))
        for worker in [nameserver, replication, filter] { #expect(actions.contains(.send(worker, .drain(.stop)))) }
        _ = driver.handle(.exited(nameserver, .code(0)))
        _ = driver.handle(.exited(replication, .code(0)))
        #expect(driver.handle(.exited(filter, .code(0))) == [.exit(status)])
    }

    /// One broken disk of two: the other serves, the refusing one is tried again.
    @Test func oneRefusingBrokerOfTwoIsRestarted() {
        let second = WorkerID(.brokerStore, 1)
        var driver = Driver([nameserver, broker, second])
        _ = driver.handle(.start)
        _ = driver.handle(.message(second, .failed(reason: "disk", cause: .own)))
        #expect(driver.handle(.exited(second, .code(1))).contains(.spawn(second)))
    }

    @Test func notReadyInTimeIsKilled() {
        var driver = Driver()
        _ = driver.handle(.start)
        #expect(driver.pass(29_000).contains(.kill(nameserver)) == false)
        let actions = driver.pass(2_000)
        #expect(actions.contains(.kill(nameserver)))
        // Recovery of a store may take minutes.
        #expect(!actions.contains(.kill(broker)))
    }
}
