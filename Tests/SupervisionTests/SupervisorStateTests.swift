import Logging
import Supervision
import TestTools
import Testing
import WorkerProtocol

private let nameserver = WorkerID(.nameserver, 0)
private let broker = WorkerID(.brokerStore, 0)
private let replication = WorkerID(.replication, 0)
private let filter = WorkerID(.filter, 0)
private let everyone = [nameserver, broker, replication, filter]

/// Drives the state machine with a clock of its own.
private struct Driver {
    var state: SupervisorState
    var now: Int64 = 1_000

    init(_ workers: [WorkerID] = everyone, watchdog: Int64? = nil) {
        var limits = SupervisorState.Limits()
        limits.watchdogMillis = watchdog
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
    mutating func pass(_ millis: Int64, silent: Set<WorkerID> = []) -> [SupervisorState.Action] {
        var all: [SupervisorState.Action] = []
        let end = now + millis
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
        // Never again, whoever is restarted.
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

    /// A death whose cause the next life knows is dealt with: nobody waits for the one after it.
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
        var lives = 0
        let end = driver.now + 30_000
        while driver.now < end {
            if renews {
                _ = driver.handle(.message(filter, .renew(reason: "again")))
                lives += driver.handle(.exited(filter, .code(0))).filter { $0 == .spawn(filter) }.count
            } else {
                lives += driver.killed(filter).filter { $0 == .spawn(filter) }.count
                _ = driver.handle(.message(filter, .explained(cause: "plugin x crashed")))
            }
            _ = driver.ready(filter)
            lives += driver.pass(1).filter { $0 == .spawn(filter) }.count
        }
        #expect((20...30).contains(lives), "\(lives)")
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

    /// No link to somebody who is not there: it comes with that one's own restart.
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
            (1...10).map { rule.delayMillis(crashes: $0) } == [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000])
        #expect(rule.delayMillis(crashes: .max) == 10_000)
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

    /// The supervisor itself, or the machine, was asleep for an hour: nobody else hangs.
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

@Suite struct StopTests {
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

@Suite struct DiskTests {
    private static let second = WorkerID(.brokerStore, 1)
    private static let secondReplication = WorkerID(.replication, 1)
    private static let two = [nameserver, broker, second, replication, secondReplication, filter]

    private func lose(_ driver: inout Driver, _ reason: String = "gone") -> [SupervisorState.Action] {
        _ = driver.handle(.message(Self.second, .failed(reason: reason, cause: .disk)))
        return driver.handle(.exited(Self.second, .code(1)))
    }

    /// Its worker and the one that shares its disk go, its ports refuse; nobody else is touched.
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
        // Back: with it the one that shares the disk, and links to everybody.
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

@Suite struct ChangeTests {
    private static let second = WorkerID(.brokerStore, 1)
    private static let secondReplication = WorkerID(.replication, 1)

    @Test func aBrokerJoins() {
        var driver = Driver.running()
        #expect(
            driver.handle(.changed(added: [Self.second, Self.secondReplication], removed: [])) == [
                .extend(filter), .spawn(Self.second), .spawn(Self.secondReplication),
                .introduce(WorkerPair(a: broker, b: Self.second)),
                .introduce(WorkerPair(a: Self.second, b: Self.secondReplication)),
                .introduce(WorkerPair(a: Self.second, b: filter)), .send(Self.second, .setupDone),
                .send(Self.secondReplication, .setupDone),
            ])
        _ = driver.ready(Self.second)
        _ = driver.ready(Self.secondReplication)
        #expect(driver.state.statusLine == "6 of 6 workers ready")
    }

    @Test func aBrokerLeavesInOrder() {
        var driver = Driver.running([nameserver, broker, Self.second, replication, Self.secondReplication, filter])
        #expect(
            driver.handle(.changed(added: [], removed: [Self.second, Self.secondReplication])) == [
                .removeListeners(Self.second), .send(Self.second, .drain(.leave)),
            ])
        #expect(
            driver.handle(.exited(Self.second, .code(0))) == [
                .removeListeners(Self.second), .removeListeners(Self.secondReplication),
                .send(Self.secondReplication, .drain(.leave)),
            ])
        #expect(
            driver.handle(.exited(Self.secondReplication, .code(0))) == [.removeListeners(Self.secondReplication)])
        #expect(driver.state.statusLine == "4 of 4 workers ready")
        #expect(!driver.pass(60_000).contains(.spawn(Self.second)))
    }
}

/// Random events in random order: nothing traps, a stop always ends, and nobody is launched twice.
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
        apply(driver.handle(.start))
        for _ in 0..<300 {
            driver.now += Int64.random(in: 0...2_000, using: &random)
            let id = driver.state.workers.randomElement(using: &random)?.id ?? broker
            switch Int.random(in: 0..<10, using: &random) {
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
