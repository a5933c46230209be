import Foundation
import LinuxSystem
import TestTools
import Testing
import WorkerProtocol

/// The real apusd over workers that do nothing but answer questions.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct PlatformProcessTests {
    private func with(
        _ options: [String] = [], environment: [String: String] = [:], heartbeatMilliseconds: Int = 100,
        _ body: (EchoPlatform) throws -> Void
    ) throws {
        let platform = try EchoPlatform(options, environment: environment, heartbeatMilliseconds: heartbeatMilliseconds)
        defer { platform.remove() }
        try body(platform)
    }

    @Test func everyoneIsReadyAndMeetsItsPeers() throws {
        try with(["--set", "myKey=my value"]) { (platform: EchoPlatform) throws in
            #expect(try platform.report().workers.map(\.state) == ["ready", "ready", "ready", "ready"])
            #expect(try platform.ask(platform.broker, "peers") == "filter-0= replication-0=")
            #expect(try platform.ask(platform.broker, "tell hello") == "told")
            #expect(try platform.ask(platform.broker, "setting myKey") == "my value")
            let ha = "x:\(try platform.ask(platform.broker, "setting haListenPort"))"
            try platform.eventually("the peer heard it") {
                (try? platform.ask(ha, "peers")) == "broker-store-0=hello"
            }
            #expect(
                platform.errors.contains("without effect in Apus: myKey: neither Apus nor RocketMQ has such a setting"))
            #expect(platform.stop() == 0)
            #expect(!FileManager.default.fileExists(atPath: "\(platform.folder)/run/apus.pid"))
        }
    }

    @Test("the longest turn of a worker's loop is in its status")
    func longestTurn() throws {
        try with(heartbeatMilliseconds: 1_000) { (platform: EchoPlatform) throws in
            #expect(try platform.ask(platform.broker, "busy 300") == "begins")
            let pattern = /loop max ([0-9]+) ms \(([0-9]+) in the last minute\)/
            try platform.eventually("its turn of 300 ms is shown") {
                let found = try platform.worker(.brokerStore).status.firstMatch(of: pattern)
                return (found.flatMap { Int($0.1) } ?? 0) >= 300
            }
            let other = try platform.worker(.filter).status.firstMatch(of: pattern)
            #expect(other.flatMap { Int($0.1) } ?? 0 < 300)
        }
    }

    /// The socket stays with the supervisor: a client that connects while no worker is there is served by the next one.
    /// The segment keeps its contents, and both ends of the links are new.
    @Test(arguments: ["kill", "trap"])
    func killedWorkerIsBackBeforeItsClientsNotice(how: String) throws {
        // On a machine that is busy elsewhere a worker may be silent for half a second without hanging.
        try with(heartbeatMilliseconds: 2_000) { (platform: EchoPlatform) throws in
            #expect(try platform.ask(platform.broker, "store 5 77") == "stored")
            let pid = try platform.worker(.brokerStore).pid
            if how == "kill" { kill(pid, SIGKILL) } else { _ = try? platform.ask(platform.broker, "crash") }
            // At once: the connect must never be refused.
            var answer = try platform.ask(platform.broker, "pid")
            if answer.isEmpty { answer = try platform.ask(platform.broker, "pid") }  // was accepted by the dying one
            // No restart waited before it: the log says so below. How long it took is the machine's affair.
            #expect(Int32(answer) != pid)
            #expect(try platform.ask(platform.broker, "slot 5") == "77")
            let ha = "x:\(try platform.ask(platform.broker, "setting haListenPort"))"
            #expect(try platform.ask(ha, "slot 5") == "77")
            #expect(try platform.ask(ha, "store 5 1") == "")  // a reader that writes traps: restarted, too
            try platform.eventually("links are new on both sides") {
                (try? platform.ask(platform.broker, "tell again")) == "told"
                    && (try? platform.ask(ha, "peers")) == "broker-store-0=again"
            }
            #expect(try platform.worker(.brokerStore).restarts == 1)
            #expect(platform.errors.contains("killed by \(how == "kill" ? "SIGKILL" : "SIGABRT"); restarting at once"))
        }
    }

    @Test func hangingWorkerIsKilledAndRestarted() throws {
        try with { (platform: EchoPlatform) throws in
            let pid = try platform.worker(.nameserver).pid
            _ = try platform.ask(platform.nameserver, "pid")
            kill(pid, SIGSTOP)
            try platform.eventually("another process serves") {
                guard let worker = try? platform.worker(.nameserver) else { return false }
                return worker.pid != pid && worker.state == "ready"
            }
            #expect(platform.errors.contains("nameserver-0: hangs: 5 heartbeats unanswered; killed"))
            #expect(try platform.worker(.brokerStore).restarts == 0)
        }
    }

    @Test func crashLoopIsThrottledAndTheOthersServe() throws {
        try with { (platform: EchoPlatform) throws in
            let ha = "x:\(try platform.ask(platform.broker, "setting haListenPort"))"
            for _ in 0..<4 { _ = try platform.ask(ha, "refuse no luck") }
            try platform.eventually("shown as a crash loop") {
                (try? platform.report().statusLine.contains("replication-0 crash loop")) == true
            }
            #expect(try platform.worker(.replication).lastFailure == "no luck")
            #expect(try platform.ask(platform.broker, "echo on") == "on")
        }
    }

    @Test func refusedStartSaysWhyAndLeavesNothing() throws {
        let platform = try EchoPlatform(
            ["--set", "echoRefuse=the disk is gone: mount it", "--set", "echoRefuseKind=broker-store"], waits: false)
        defer { platform.remove() }
        platform.process.waitUntilExit()
        #expect(platform.process.terminationStatus == 1)
        #expect(platform.errors.contains("broker-store-0: the disk is gone: mount it"))
    }

    @Test func secondStartOnTheSameDataIsRefused() throws {
        try with { (platform: EchoPlatform) throws in
            let second = try EchoPlatform(folder: platform.folder, waits: false)
            second.process.waitUntilExit()
            #expect(second.process.terminationStatus == 1)
            #expect(
                second.errors.contains(
                    "already runs on this data directory: apusd, pid \(platform.process.processIdentifier)"))
            #expect(try platform.ask(platform.broker, "echo still") == "still")
        }
    }

    @Test func portInUseIsRefusedWithARemedy() throws {
        try with { (platform: EchoPlatform) throws in
            let port = String(platform.broker.split(separator: ":")[1])
            let second = try EchoPlatform(["--broker-port", port], waits: false)
            defer { second.remove() }
            second.process.waitUntilExit()
            #expect(second.process.terminationStatus == 1)
            #expect(second.errors.contains("port \(port) is in use"))
            #expect(second.errors.contains("--broker-port"))
        }
    }

    /// kill -9 of the supervisor: everyone notices the closed channel, drains and goes.
    @Test func noOrphans() throws {
        try with { (platform: EchoPlatform) throws in
            let pids = try platform.report().workers.map(\.pid)
            kill(platform.process.processIdentifier, SIGKILL)
            platform.process.waitUntilExit()
            try platform.eventually("all workers ended") { pids.allSatisfy { !Self.runs($0) } }
        }
    }

    /// A worker that outlives its supervisor, for it still drains, still has the store and the port: the next platform
    /// waits.
    @Test func theNextPlatformWaitsForTheWorkersOfTheLast() throws {
        let platform = try EchoPlatform(["--set", "echoDrainMillis=1500"])
        defer { platform.remove() }
        let old = try platform.worker(.brokerStore).pid
        kill(platform.process.processIdentifier, SIGKILL)
        platform.process.waitUntilExit()
        let next = try EchoPlatform(folder: platform.folder, waits: false)
        defer { next.stop() }
        try next.eventually("it says that it waits") { next.errors.contains("waiting for the workers of the platform") }
        #expect(Self.runs(old))
        try next.eventually("it serves") { (try? next.report().workers.allSatisfy { $0.state == "ready" }) == true }
        #expect(!Self.runs(old))
        #expect(next.stop() == 0)
        #expect(!FileManager.default.fileExists(atPath: "\(platform.folder)/run/apus.workers"))
    }

    /// 78: the unit does not try again what cannot work (RestartPreventExitStatus=).
    @Test func unusableSettingsHaveAnExitStatusOfTheirOwn() throws {
        let platform = try EchoPlatform(["--set", "brokerRole=KING"], waits: false)
        defer { platform.remove() }
        platform.process.waitUntilExit()
        #expect(platform.process.terminationStatus == 78)
        #expect(
            platform.errors.contains(
                "brokerRole = KING is not what this setting takes: ASYNC_MASTER, SYNC_MASTER, SLAVE"))
    }

    /// Gone, or a zombie that is not reaped in a container without an init.
    private static func runs(_ pid: Int32) -> Bool {
        guard let status = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8) else { return false }
        return status.split(separator: ")").last?.split(separator: " ").first != "Z"
    }

    @Test func hangupReadsTheConfigurationAgain() throws {
        let folder = NSTemporaryDirectory() + "apus-conf-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let file = "\(folder)/apus.toml"
        func write(_ text: String) throws { try text.write(toFile: file, atomically: true, encoding: .utf8) }
        try write("maxMessageSize = 1000\nbrokerName = \"b\"\n[nameserver]\nmyKey = 1\n")
        try with(["--config", file]) { (platform: EchoPlatform) throws in
            #expect(try platform.ask(platform.broker, "setting maxMessageSize") == "1000")
            #expect(try platform.ask(platform.nameserver, "setting myKey") == "1")
            let port = try platform.ask(platform.broker, "setting listenPort")
            let namesrvAddr = try platform.ask(platform.broker, "setting namesrvAddr")

            try write("maxMessageSize = 2000\nbrokerName = \"other\"\n[nameserver]\nmyKey = 2\n")
            kill(platform.process.processIdentifier, SIGHUP)
            try platform.eventually("the new value") {
                (try? platform.ask(platform.broker, "setting maxMessageSize")) == "2000"
            }
            #expect(try platform.ask(platform.broker, "setting brokerName") == "b")
            #expect(try platform.ask(platform.broker, "setting listenPort") == port)
            #expect(try platform.ask(platform.broker, "setting namesrvAddr") == namesrvAddr)
            #expect(platform.errors.contains("without effect until a restart: brokerName: restart the platform"))

            // Who asks for the reload hears what needs a restart, and of what.
            try write("maxMessageSize = 2000\nbrokerName = \"other\"\nregionId = \"north\"\n[nameserver]\nmyKey = 2\n")
            let answer = try platform.admin("reload")
            #expect(answer.contains("\"pending\":[") && answer.contains("brokerName: restart the platform"))
            #expect(answer.contains("b.regionId: apus restart broker-store@0"), "\(answer)")

            // A mistake leaves everything as it is, and says where it is.
            try write("maxMessageSize = [")
            kill(platform.process.processIdentifier, SIGHUP)
            try platform.eventually("refused") { platform.errors.contains("reload refused") }
            #expect(platform.errors.contains(file))
            #expect(try platform.ask(platform.broker, "setting maxMessageSize") == "2000")
        }
    }

    /// `pkill -HUP`, `killall -USR1` and the like meant other programs: they ended workers and, all but the first, the
    /// platform.
    @Test func signalsMeantForOthersEndNobody() throws {
        try with { (platform: EchoPlatform) throws in
            let before = try platform.report().workers.map(\.pid)
            let strays =
                [SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT, SIGXFSZ]
                + [SIGTTIN, SIGTTOU, 34, 50, 64]
            for pid in before + [platform.process.processIdentifier] {
                for stray in strays { kill(pid, stray) }
            }
            try platform.eventually("the configuration is read again") {
                platform.errors.contains("configuration read again")
            }
            // A process that answers has taken its signals; that all answer a heartbeat, apusd sees a few heartbeats
            // later.
            let ha = "x:\(try platform.ask(platform.broker, "setting haListenPort"))"
            for address in [platform.broker, platform.nameserver, ha] {
                #expect(try platform.ask(address, "echo alive") == "alive")
            }
            let uptime = try #require(try platform.report().uptimeMillis)
            try platform.eventually("three heartbeats later") {
                try platform.report().uptimeMillis ?? 0 >= uptime + 300
            }
            let after = try platform.report().workers
            #expect(after.map(\.pid) == before && after.allSatisfy { $0.restarts == 0 })
            // The ones that are meant still are.
            kill(before[0], SIGTERM)
            try platform.eventually("a new worker") { try platform.report().workers[0].restarts == 1 }
        }
    }

    /// What runs in a filter worker may be a plugin's code, and it can write to the channel.
    @Test func aWorkerThatNeverStopsTalkingHoldsUpNobody() throws {
        try with(heartbeatMilliseconds: 1000) { (platform: EchoPlatform) throws in
            let ha = "x:\(try platform.ask(platform.broker, "setting haListenPort"))"
            #expect(try platform.ask(ha, "chatter") == "chattering")
            for _ in 0..<20 {
                let report = try platform.admin("status")
                try #require(report.contains("\"state\":\"running\""), "no answer: \(report)")
            }
            #expect(try platform.report().workers.allSatisfy { $0.restarts == 0 })
            #expect(platform.stop() == 0)
        }
    }

    /// What a worker says of itself may hold what a peer sent: it is a line of the log like any other.
    @Test func noWorkerForgesLines() throws {
        let platform = try EchoPlatform(
            ["--set", "echoRefuseKind=filter", "--set", "echoRefuse=x\u{1B}[2J\u{202E}y"], waits: false)
        defer { platform.remove() }
        try platform.eventually("the refusal is logged") { platform.errors.contains("x\\u001b[2J\\u202ey") }
        #expect(!platform.errors.contains("\u{1B}") && !platform.errors.contains("\u{202E}"))
    }

    @Test func secondInterruptHurries() throws {
        try with(["--set", "echoDrainMillis=50000"]) { (platform: EchoPlatform) throws in
            kill(platform.process.processIdentifier, SIGINT)
            try platform.eventually("draining") { (try? platform.worker(.brokerStore).state) == "draining" }
            try platform.eventually("connects are refused, not left waiting") {
                (try? EchoPlatform.connect(platform.broker)) == nil
            }
            #expect(try platform.ask(platform.nameserver, "echo still here") == "still here")
            kill(platform.process.processIdentifier, SIGINT)
            let start = MonotonicClock.milliseconds
            platform.process.waitUntilExit()
            #expect(MonotonicClock.milliseconds - start < 3000)
        }
    }

    @Test func adminSocketAnswersInWords() throws {
        try with { (platform: EchoPlatform) throws in
            #expect(
                try platform.admin("{\"command\":\"status\"}").hasPrefix(
                    "{\"pid\":\(platform.process.processIdentifier),"))
            #expect(try platform.admin("dance").contains("unknown command"))
            #expect(try platform.admin("reload") == "{\"ok\":true}")
            #expect(try platform.admin("{\"command\":\"stop\"}").contains("\"ok\":true"))
            platform.process.waitUntilExit()
            #expect(platform.process.terminationStatus == 0)
        }
    }
}
