import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

@Suite struct RestartTests {
    @Test func firstCrashRestartsAtOnceWithNewLinks() {
        var driver = Driver.running()
        _ = driver.pass(5_000)
        #expect(
            driver.killed(broker) == [
                .spawn(broker), .introduce(WorkerPair(a: broker, b: replication)),
                .introduce(WorkerPair(a: broker, b: filter)), .send(broker, .setupDone),
            ])
        #expect(
            driver.killed(filter) == [
                .spawn(filter), .introduce(WorkerPair(a: broker, b: filter)), .send(filter, .setupDone),
            ])
    }

    /// No link to a worker that is not there: it comes with that one's own restart.
    @Test func noLinkToADeadPeer() {
        var driver = Driver.running()
        for _ in 0..<2 { _ = driver.killed(replication) }
        #expect(driver.state.worker(replication)?.isRunning == false)
        #expect(!driver.killed(broker).contains(.introduce(WorkerPair(a: broker, b: replication))))
        #expect(driver.pass(200).contains(.introduce(WorkerPair(a: broker, b: replication))))
    }

    @Test func backOffDoublesToTenSeconds() {
        let rule = RestartRule()
        #expect(
            (1...10).map { rule.delayMilliseconds(crashes: $0) } == [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000,
            ])
        #expect(rule.delayMilliseconds(crashes: .max) == 10_000)
    }

    @Test func crashLoopIsThrottledShownAndHarmsNobodyElse() {
        var driver = Driver.running()
        var launches = 0
        for _ in 0..<8 {
            var actions = driver.killed(filter)
            if !actions.contains(.spawn(filter)) { actions += driver.pass(20_000) }
            launches += actions.count { $0 == .spawn(filter) }
            for other in [nameserver, broker, replication] {
                #expect(driver.state.worker(other)?.isReady == true)
                #expect(!actions.contains(.kill(other)))
            }
        }
        #expect(launches == 8)
        #expect(driver.state.statusLine.contains("filter-0 crash loop, 8 restarts (killed by SIGKILL)"))
        #expect(driver.state.isHealthy)
    }

    @Test("systemctl status has the reason of a failed start, and what a ready worker cannot do")
    func reasons() {
        var driver = Driver()
        _ = driver.handle(.start)
        _ = driver.handle(.message(broker, .failed(reason: "port 10911 is taken", cause: .own)))
        _ = driver.handle(.exited(broker, .code(1)))
        #expect(driver.state.statusLine.hasPrefix("Failed: broker-store-0: port 10911 is taken; stopping, "))
        for other in [nameserver, replication, filter] { _ = driver.handle(.exited(other, .code(0))) }
        #expect(driver.state.statusLine == "Failed: broker-store-0: port 10911 is taken")

        driver = Driver.running()
        _ = driver.handle(
            .message(
                broker,
                .pong(1, status: "broker-a put 1; longest turn 3 ms", trouble: "takes no messages: disk full")))
        #expect(driver.state.statusLine == "4 of 4 workers ready; broker-store-0 takes no messages: disk full")
        _ = driver.handle(.message(broker, .pong(2, status: "broker-a put 1; longest turn 3 ms", trouble: "")))
        #expect(driver.state.statusLine == "4 of 4 workers ready")
        _ = driver.handle(.stop("SIGTERM"))
        #expect(driver.state.statusLine.hasPrefix("Stopping: "))
    }

    @Test func stableRunMakesTheNextCrashAFirstOne() {
        var driver = Driver.running()
        for _ in 0..<4 {
            _ = driver.killed(broker)
            _ = driver.pass(20_000)
        }
        _ = driver.ready(broker)
        _ = driver.pass(2_000)
        #expect(driver.killed(broker).first == .spawn(broker))
    }

    @Test func whoSaysThatItFailsAndDoesNotEndIsKilled() {
        var driver = Driver.running()
        _ = driver.handle(.message(filter, .failed(reason: "no memory", cause: .own)))
        #expect(driver.state.worker(filter)?.phaseName == "failing")
        #expect(!driver.pass(4_000).contains(.kill(filter)))
        #expect(driver.pass(1_000).contains(.kill(filter)))
        #expect(driver.killed(filter).contains(.spawn(filter)))
        #expect(driver.state.worker(filter)?.lastFailure == "no memory")
    }

    @Test func aFailureWhileItDrainsIsLogged() {
        var driver = Driver.running()
        _ = driver.handle(.stop("SIGTERM"))
        let actions = driver.state.handle(
            .message(broker, .failed(reason: "cannot flush", cause: .own)), at: driver.now)
        #expect(actions.contains(.log(.warning, broker, "cannot flush, while it was being ended")))
    }

    @Test func launchThatFailsIsACrashLikeAnother() {
        var driver = Driver.running()
        _ = driver.killed(filter)
        _ = driver.handle(.exited(filter, .spawnFailed("no such file")))
        #expect(driver.pass(100).contains(.spawn(filter)))
        #expect(driver.state.worker(filter)?.lastFailure == "no such file")
    }
}

@Suite struct RestartOfOneTests {
    @Test func drainsWithOpenListenersAndStartsAnew() {
        var driver = Driver.running()
        #expect(driver.handle(.restart(broker)) == [.send(broker, .drain(.restart))])
        #expect(driver.state.worker(broker)?.phaseName == "restarting")
        #expect(
            driver.handle(.exited(broker, .code(0))) == [
                .spawn(broker), .introduce(WorkerPair(a: broker, b: replication)),
                .introduce(WorkerPair(a: broker, b: filter)), .send(broker, .setupDone),
            ])
        _ = driver.ready(broker)
        #expect(driver.state.worker(broker)?.restarts == 1)
        // It was no crash: the next one is a first one.
        #expect(driver.killed(broker).first == .spawn(broker))
    }

    @Test func whoDoesNotDrainIsKilledAndComesBackAllTheSame() {
        var driver = Driver.running()
        _ = driver.handle(.restart(nameserver))
        #expect(driver.pass(5_000).contains(.kill(nameserver)))
        #expect(driver.killed(nameserver).first == .spawn(nameserver))
    }

    @Test func oneInACrashLoopIsTriedAtOnce() {
        var driver = Driver.running()
        for _ in 0..<6 { if !driver.killed(filter).contains(.spawn(filter)) { _ = driver.pass(20_000) } }
        _ = driver.killed(filter)
        #expect(driver.handle(.restart(filter)).contains(.spawn(filter)))
    }
}
