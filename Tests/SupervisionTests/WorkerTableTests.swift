import Foundation
import LinuxSystem
import Logging
import SettingTable
import Systemd
import TestFolders
import Testing
import WorkerProtocol

@testable import Supervision

/// A sixth kind of worker is a row and a program: no file of `Supervision` is changed for it.
@Suite(.timeLimit(.minutes(2))) struct WorkerTableTests {
    private static let exporter = WorkerKind(rawValue: "exporter")

    /// The platform that ships, and one kind more.
    private static let table = WorkerTable(
        WorkerTable.standard.rows + [
            WorkerRow(
                kind: exporter, shortName: "e", title: "exporter", count: .one, table: "exporter", isOptional: true,
                readers: .nameserver, defaults: { ["listenPort": "8080", "greeting": "from \($0.dataDirectory)"] },
                critical: false, refusesStart: false,
                listeners: [
                    .init(
                        name: "remoting", portKey: "listenPort", socketUnitName: "exporter", option: "--exporter-port")
                ],
                // Called as the filter workers' is, and another one.
                segments: [.writes("plugins", bytes: 8192), .readsAll("watermarks", of: .brokerStore)],
                peers: [.all(.brokerStore)],
                startMillisecondsMax: 30_000, drainMillisecondsMax: 5_000, drainStage: 2)
        ])

    private func configuration(
        data: String = "/data", change: (inout RawConfiguration) -> Void = { _ in }
    ) throws -> PlatformConfiguration {
        var raw = RawConfiguration()
        raw.common["listenPort"] = "0"
        raw.nameserver["listenPort"] = "0"
        // Its default port may be another platform's.
        raw.absent = ["gateway"]
        raw.tables["exporter"] = ["listenPort": "0"]
        change(&raw)
        var surroundings = PlatformConfiguration.Surroundings(dataDirectory: data, executables: "/x")
        surroundings.table = Self.table
        return try PlatformConfiguration(raw, surroundings)
    }

    @Test func aRowBringsSettingsLimitsAndListeners() throws {
        let worker = WorkerID(Self.exporter, 0)
        var platform = try configuration {
            $0.tables["exporter"]?["colour"] = "red"
            $0.limits = ["exporter.memory": "64M"]
        }
        #expect(platform.workers.last == worker && platform.workers.count == 5)
        #expect(platform.settings(of: worker)["colour"] == "red")
        #expect(platform.settings(of: worker)["greeting"] == "from /data")
        #expect(platform.limits[Self.exporter].memory == 64 << 20)
        #expect(platform.unknownKeys == ["exporter.colour"])
        #expect(platform.listing.contains("# exporter-0\n"))

        let resources = try Resources(&platform, activated: [])
        #expect(platform.settings(of: worker).int("listenPort", default: 0) > 0)
        let given = resources.descriptors(for: worker)
        #expect(
            given.map(\.name) == ["listener:remoting", "segment:plugins", "segment:watermarks@broker-store-0"])
        func bytes(_ worker: WorkerID) -> Int {
            let segment = resources.descriptors(for: worker).first { $0.name == "segment:plugins" }
            var status = stat()
            fstat(segment?.fd ?? -1, &status)
            return status.st_size
        }
        // Two segments of one name, each of its own size.
        #expect(bytes(worker) == 8192 && bytes(WorkerID(.filter, 0)) == 4096)
    }

    @Test func aRowIsCheckedLikeTheOthers() throws {
        #expect(
            try configuration {
                $0.absent.insert("exporter"); $0.tables["exporter"] = nil
            }.workers.count == 4)
        let contradiction = #expect(throws: ConfigurationError.self) {
            try configuration { $0.absent.insert("exporter") }
        }
        #expect(contradiction?.description == "exporter = false and settings of [exporter]: keep one of them")
        let wrong = #expect(throws: ConfigurationError.self) {
            try configuration { $0.tables["exporter"] = ["listenPort": "70000"] }
        }
        #expect(wrong?.description.hasPrefix("[exporter] listenPort = 70000 is not what this setting takes") == true)
        let twice = #expect(throws: ConfigurationError.self) {
            try configuration {
                $0.nameserver["listenPort"] = "9876"
                $0.tables["exporter"] = ["listenPort": "9876"]
            }
        }
        #expect(
            twice?.description
                == "the name server (listenPort) and the exporter (listenPort) both listen on port 9876: give one of them another"
        )
        #expect(TOMLLines.lines(of: "[exporter]\nlistenPort = 1", kinds: Self.table) == ["exporter.listenPort": 2])
    }

    @Test func aReloadKeepsWhatIsFixedOfIt() throws {
        var running = try configuration()
        _ = try Resources(&running, activated: [])
        var fresh = try configuration {
            $0.tables["exporter"] = ["listenPort": "1", "greeting": "new"]
        }
        let worker = WorkerID(Self.exporter, 0)
        let changes = fresh.keepRunning(running)
        #expect(changes.kept.contains("exporter.listenPort"))
        #expect(fresh.settings(of: worker)["listenPort"] == running.settings(of: worker)["listenPort"])
        #expect(fresh.settings(of: worker)["greeting"] == "new")
    }

    @Test func itIsLaunchedDrainedAndIntroducedByItsRow() {
        let workers = [WorkerID(.brokerStore, 0), WorkerID(Self.exporter, 0)]
        var state = SupervisorState(workers: workers, table: Self.table)
        let start = state.handle(.start, at: 0)
        #expect(start.contains(.spawn(workers[1])))
        #expect(start.contains(.introduce(WorkerPair(a: workers[1], b: workers[0]))))
        for worker in workers { _ = state.handle(.message(worker, .ready(detail: "")), at: 1) }
        #expect(!state.handle(.stop("SIGTERM"), at: 2).contains(.send(workers[1], .drain(.stop))))
        #expect(state.handle(.exited(workers[0], .code(0)), at: 3).contains(.send(workers[1], .drain(.stop))))
    }

    /// The real supervisor over real processes, six kinds of them.
    @Test func itServesInAPlatformThatRuns() async throws {
        let folder = try TestFolder.make("sixth")
        defer { try? FileManager.default.removeItem(at: folder) }
        let (ready, announce) = AsyncStream.makeStream(of: PlatformConfiguration.self)
        async let ended = withCheckedThrowingContinuation { (done: CheckedContinuation<Int32, any Error>) in
            // Its workers end with the thread that started them.
            Thread.detachNewThread {
                done.resume(with: Result { try self.runPlatform(in: folder.path) { announce.yield($0) } })
                announce.finish()
            }
        }
        for await platform in ready {
            // Also when a question fails: `ended` is waited for.
            defer { _ = try? EchoPlatform.admin("stop", folder.path) }
            let address = "127.0.0.1:\(platform.settings(of: WorkerID(Self.exporter, 0)).int("listenPort", default: 0))"
            let broker = platform.announcedBrokers[0]
            #expect(try EchoPlatform.ask(address, "echo hello") == "hello")
            #expect(try EchoPlatform.ask(address, "setting greeting") == "from \(folder.path)")
            #expect(try EchoPlatform.ask(address, "peers") == "broker-store-0=")
            #expect(try EchoPlatform.ask(broker, "peers") == "exporter-0= filter-0= replication-0=")
            let pid = try EchoPlatform.ask(address, "pid")
            let answer = try EchoPlatform.admin("restart exporter@0", folder.path)
            #expect(answer.hasPrefix("{\"ok\":true,\"kind\":\"exporter\",\"index\":0"))
            // A connection the draining process has accepted ends without an answer; all others wait for the next
            // process.
            var now = ""
            while now.isEmpty || now == pid { now = try EchoPlatform.ask(address, "pid") }
        }
        #expect(try await ended == 0)
    }

    private func runPlatform(in folder: String, announce: (PlatformConfiguration) -> Void) throws -> Int32 {
        let workers = try EchoPlatform.makeWorkers(in: folder, of: Self.table)
        var configuration = try configuration(data: folder)
        let signals = try Signals(Platform.signalNumbers)
        let runDirectory = try RunDirectory(path: "\(folder)/run")
        let lock = try WorkersLock(in: runDirectory) {}
        let resources = try Resources(&configuration, activated: [])
        configuration.introduceNameserver()
        let platform = Platform(
            configuration, executables: workers, resources: resources, runDirectory: runDirectory, workersLock: lock,
            signals: signals, logger: Logger(label: "sixth"), readAgain: { [configuration] in configuration })
        // Connects wait in the listeners until the workers serve.
        announce(configuration)
        return try platform.run()
    }
}
