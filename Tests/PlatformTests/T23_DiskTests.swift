import Foundation
import RemotingProtocol
import TestTools
import Testing

private let needsRoot = ConditionTrait.enabled(if: geteuid() == 0, "mounts and mount namespaces need root")

extension PlatformTests {
    /// One broker per disk: a disk that goes away and comes back, disks by reload, topics everywhere at once, one
    /// worker restarted, limits.
    @Suite("T23 disks", .serialized)
    struct T23_Disks {
        /// A platform with the disks d0, d1, … in its folder.
        private func start(
            _ count: Int, of total: Int? = nil, mounts: ((TemporaryFolder) -> String)? = nil, settings: String = ""
        ) async throws -> Platform {
            let folder = try TemporaryFolder()
            for index in 0..<(total ?? count) {
                try FileManager.default.createDirectory(
                    atPath: folder.file("d\(index)"), withIntermediateDirectories: true)
            }
            try write(folder, Array(0..<count), settings)
            // In a mount namespace of the platform's own.
            let launcher = mounts.map {
                ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", "set -e; \($0(folder)); exec \"$@\"", "sh"]
            }
            return try await Platform.start(
                in: folder, launcher: launcher ?? [], ["--config", folder.file("apus.toml")])
        }

        private func write(_ folder: TemporaryFolder, _ disks: [Int], _ settings: String = "") throws {
            let list = disks.map { "\"\(folder.file("d\($0)"))\"" }.joined(separator: ", ")
            let text = """
                disks = [\(list)]
                mappedFileSizeCommitLog = 1048576
                mappedFileSizeConsumeQueue = 60000
                maxHashSlotNum = 1000
                maxIndexNum = 4000
                diskReservedBytes = 1000000
                \(settings)

                """
            try text.write(toFile: folder.file("apus.toml"), atomically: true, encoding: .utf8)
        }

        /// Sends one message every 3 ms and does things meanwhile; every message must be acknowledged, by the client's
        /// own retries at most.
        private func underLoad(
            _ platform: Platform, topic: String, _ body: () async throws -> Void
        ) async throws -> [OfficialClient.Answer] {
            let producer = try await OfficialClient.producer(platform)
            producer.write(OfficialClient.text([.init(n: 0, topic: topic, body: "0")]))
            _ = try await producer.line { $0.contains("\"ok\": true") }
            let sender = Task {
                var number = 1
                while !Task.isCancelled {
                    producer.write(OfficialClient.text([.init(n: number, topic: topic, body: "\(number)")]))
                    number += 1
                    try? await Task.sleep(for: .milliseconds(3))
                }
                return number
            }
            do {
                try await body()
            } catch {
                sender.cancel()
                throw error
            }
            sender.cancel()
            let sent = await sender.value
            producer.closeInput()
            try await producer.finish(within: .seconds(60))
            let answers = OfficialClient.answers(of: producer)
            let failed = answers.filter { !$0.ok }
            #expect(failed.isEmpty, "\(failed.count) of \(sent) sends failed, the first: \(failed.first?.error ?? "")")
            #expect(Set(answers.map(\.n)).count == sent)
            return answers
        }

        // MARK: - A disk goes away

        enum Loss: String, CaseIterable {
            case unmounted
            /// As the kernel makes it after an error in the file system.
            case readOnly = "read-only"
            case failing = "answering with EIO"
        }

        @Test(
            "a disk that goes away takes down only its worker; routes are withdrawn; it comes back with its disk",
            .timeLimit(.minutes(2)), needsRoot, needsOfficialClient, arguments: Loss.allCases)
        func diskGoesAway(_ loss: Loss) async throws {
            let platform: Platform
            let image: String
            do {
                platform = try await start(2) { folder in
                    let image = folder.file("image")
                    return
                        "truncate -s 64M \(image) && mkfs.ext4 -q \(image) && mount -o loop \(image) \(folder.file("d1"))"
                        + " && mount -t tmpfs -o size=64m apus-test \(folder.file("d0"))"
                }
                image = platform.folder.file("image")
            } catch let error as ScenarioFailure where "\(error)".contains("mount: ") {
                print("T23 skipped: no loop mounts here: \(error)")
                return
            }
            let disk = platform.folder.file("d1")
            let before = try await platform.status().pids
            let answers = try await underLoad(platform, topic: "Disks") {
                try await eventually("both brokers have the topic") {
                    try await platform.route(of: "Disks") == ["broker-a", "broker-b"]
                }
                let began = ContinuousClock.now
                switch loss {
                case .unmounted: try await platform.inside("umount -l \(disk)")
                case .readOnly: try await platform.inside("mount -o remount,abort \(disk) || true")
                case .failing:
                    // EXT4_IOC_SHUTDOWN: from now on every access is an I/O error.
                    try await platform.inside(
                        "python3 -c 'import fcntl,os,struct; "
                            + "fcntl.ioctl(os.open(\"\(disk)\",os.O_RDONLY),0x8004587d,struct.pack(\"I\",2))'")
                }
                try await eventually("its routes are withdrawn", within: .seconds(10)) {
                    try await platform.route(of: "Disks") == ["broker-a"]
                }
                print("T23 disk \(loss.rawValue): routes withdrawn after \(began.duration(to: .now))")
                try await eventually("its worker waits", within: .seconds(10)) {
                    try await platform.status()["broker-store-1"]?.state == "disk away"
                }
                // Refused at once instead of waiting.
                #expect(throws: ScenarioFailure.self) { _ = try RawSocket(platform.brokers[1]) }
                let status = try await platform.status()
                #expect(status["replication-1"]?.state == "disk away")
                #expect(status.statusLine.contains("broker-store-1 waits for its disk"), "\(status.statusLine)")
                #expect(status.statusLine.contains(disk), "\(status.statusLine)")
                for (name, pid) in status.pids where !name.hasSuffix("-1") { #expect(pid == before[name], "\(name)") }
                // Time passes, in which something could be written.
                try await Task.sleep(for: .milliseconds(1_500))
                #expect(!FileManager.default.fileExists(atPath: "\(disk)/store"), "written to the disk below")

                let returned = ContinuousClock.now
                switch loss {
                case .unmounted: try await platform.inside("mount -o loop \(image) \(disk)")
                case .readOnly, .failing:
                    // Who looks whether the disk is back has it open for a moment.
                    try await platform.inside(
                        "for i in $(seq 50); do umount \(disk) && exit 0; sleep 0.1; done; fuser -vm \(disk); exit 1")
                    try await platform.inside("mount -o loop \(image) \(disk)")
                }
                try await eventually("it is back by itself", within: .seconds(20)) {
                    let route = try await platform.route(of: "Disks")
                    let now = try await platform.status()
                    return route == ["broker-a", "broker-b"] && now["replication-1"]?.state == "ready"
                }
                let answer = try await platform.ask(platform.brokers[1], RemotingCommand(.getBrokerRuntimeInfo))
                #expect(answer.code == 0, "it listens where it did")
                print("T23 disk \(loss.rawValue): served again \(returned.duration(to: .now)) after its return")
                // The filter worker may read only the disks it found at its start (Landlock): a fresh one takes over.
                for (name, pid) in try await platform.status().pids
                where !name.hasSuffix("-1") && name != "filter-0" {
                    #expect(pid == before[name], "\(name) was touched")
                }
            }
            let log = platform.log
            #expect(log.contains("broker-store-1: ") && log.contains(disk), "the log names the disk")
            #expect(log.contains("its disk is back"))
            print("T23 disk \(loss.rawValue): \(answers.count) sends of the official client, none failed")
            try await platform.stop()
        }

        @Test(
            "no broker starts on the folder below a disk that is not mounted; the others serve",
            .timeLimit(.minutes(1)),
            needsRoot)
        func emptyMountPoint() async throws {
            func mounts(_ folder: TemporaryFolder) -> String {
                "mount -t tmpfs -o size=64m apus-test \(folder.file("d1"))"
            }
            let first = try await start(2, mounts: mounts)
            try await first.stop()
            // The mark went with the tmpfs; what is left is an empty folder.
            let second = try await Platform.start(in: first.folder, ["--config", first.folder.file("apus.toml")])
            let status = try await second.status()
            #expect(status["broker-store-0"]?.state == "ready")
            #expect(status["broker-store-1"]?.state == "disk away")
            #expect(status["broker-store-1"]?.lastFailure.contains("mount the disk") == true)
            #expect(try FileManager.default.contentsOfDirectory(atPath: first.folder.file("d1")).isEmpty)
            try await second.stop()
        }

        @Test("disks under the hardened unit, in a real systemd", .timeLimit(.minutes(3)))
        func underSystemd() throws { try Systemd.run("disks") }

        // MARK: - Disks by reload

        @Test(
            "a disk that comes by reload is filtered, too: by a fresh filter worker where the old one may not read it",
            .timeLimit(.minutes(2)))
        func newDiskIsFiltered() async throws {
            let platform = try await start(1, of: 2)
            let before = try await platform.status().pids
            try await T09_Filters.fill(platform, 0..<40)
            let first = try await platform.queueSizes(topic: T09_Filters.topic, queues: T09_Filters.queues)
            let (old, _) = try await T09_Filters.consume(platform, type: "SQL92", "n < 30", upTo: first)
            #expect(old.sorted() == T09_Filters.names(0..<30))
            try write(platform.folder, [0, 1])
            let reload = try await Program.run(Binaries.apus, ["reload", "--data-dir", platform.data])
            #expect(reload.status == 0, "\(reload.errorText)")
            try await eventually("the new disk serves the topic") {
                try await platform.route(of: T09_Filters.topic) == ["broker-a", "broker-b"]
            }
            let added = try #require(try await platform.status().brokers.last)
            try await T09_Filters.fill(platform, 100..<140, broker: added)
            let ends = try await platform.queueSizes(
                topic: T09_Filters.topic, queues: T09_Filters.queues, broker: added)
            let (new, _) = try await T09_Filters.consume(
                platform, type: "SQL92", "n BETWEEN 110 AND 119", upTo: ends, broker: added)
            #expect(new.sorted() == T09_Filters.names(110..<120))
            // The first broker's consumers go on as well.
            let (again, _) = try await T09_Filters.consume(platform, type: "SQL92", "n >= 30", upTo: first)
            #expect(again.sorted() == T09_Filters.names(30..<40))
            let after = try await platform.status().pids
            if platform.log.contains("nothing else (Landlock, version") {
                #expect(platform.log.contains("d1/store/commitlog is new here: a fresh filter worker takes over"))
                #expect(after["filter-0"] != before["filter-0"])
            } else {
                #expect(after["filter-0"] == before["filter-0"])
            }
            #expect(after["broker-store-0"] == before["broker-store-0"])
            try await platform.stop()
        }

        @Test(
            "a disk comes and another goes by reload; no other worker is touched, no send fails",
            .timeLimit(.minutes(2)),
            needsOfficialClient)
        func disksByReload() async throws {
            let platform = try await start(2, of: 3)
            let before = try await platform.status().pids
            let answers = try await underLoad(platform, topic: "Growing") {
                let oracle = Oracle(broker: platform.brokers[1], topic: "Growing")
                try await eventually("traffic") { oracle.acknowledged.count > 100 }
                oracle.forgetGap()
                try write(platform.folder, [2, 1, 0])
                kill(platform.supervisorPid, SIGHUP)
                try await eventually("the new disk serves the topic") {
                    try await platform.route(of: "Growing") == ["broker-a", "broker-b", "broker-c"]
                }
                var status = try await platform.status()
                // The filter worker is replaced where it may not read the new disk (Landlock).
                for (name, pid) in before where name != "filter-0" {
                    #expect(status.pids[name] == pid, "\(name) was touched")
                }
                // A tag that only the filter worker can compile, on the new broker.
                let consumer = try await OfficialClient.push(
                    platform, topic: "Growing", group: "growing", ["--tags", "x||y"])
                try await consumer.stop()

                try write(platform.folder, [2, 1])
                let reload = try await Program.run(Binaries.apus, ["reload", "--data-dir", platform.data])
                #expect(reload.status == 0, "\(reload.errorText)")
                try await eventually("the other one has left") {
                    let gone = try await platform.status()["replication-0"] == nil
                    return try await platform.route(of: "Growing") == ["broker-b", "broker-c"] && gone
                }
                status = try await platform.status()
                for name in ["nameserver-0", "broker-store-1", "replication-1"] {
                    #expect(status.pids[name] == before[name], "\(name) was touched")
                }
                #expect(throws: ScenarioFailure.self) { _ = try RawSocket(platform.brokers[0]) }
                #expect(oracle.refusals.isEmpty && oracle.longestGap < .seconds(1), "pause \(oracle.longestGap)")
                print("T23 reload: longest pause of a broker that was not meant: \(oracle.longestGap)")
                await oracle.stop()
            }
            print("T23 reload: \(answers.count) sends of the official client, none failed")
            // Back again, it is who it was.
            try write(platform.folder, [0, 1, 2])
            kill(platform.supervisorPid, SIGHUP)
            try await eventually("the first disk is back under its name") {
                try await platform.route(of: "Growing") == ["broker-a", "broker-b", "broker-c"]
            }
            try await platform.stop()
        }

        // MARK: - Topics

        @Test(
            "the first message to a topic makes it on all brokers at once", .timeLimit(.minutes(1)), needsOfficialClient
        )
        func topicEverywhere() async throws {
            let platform = try await start(3)
            let topic = "Everywhere"
            let answers = try await OfficialClient.produce(platform, [.init(n: 0, topic: topic, body: "first")])
            #expect(answers.first?.ok == true)
            try await eventually("all brokers have it", within: .seconds(1)) {
                try await platform.route(of: topic) == ["broker-a", "broker-b", "broker-c"]
            }
            // A client that comes now knows only the route.
            let more = (1...60).map { OfficialClient.Outgoing(n: $0, topic: topic, body: "\($0)") }
            #expect(try await OfficialClient.produce(platform, more).filter(\.ok).count == 60)
            var total: Int64 = 0
            for broker in platform.brokers {
                var count: Int64 = 0
                for queue in 0..<4 {
                    let place = ["topic": topic, "queueId": String(queue)]
                    count += try await platform.ask(broker, RemotingCommand(.getMaxOffset, extFields: place))
                        .integer("offset")
                }
                #expect(count > 0, "nothing at \(broker)")
                total += count
            }
            #expect(total == 61)
            // One that was away when a topic was made has it when it is back.
            let worker = try #require(try await platform.status()["broker-store-2"])
            kill(worker.pid, SIGSTOP)
            _ = try await platform.ask(
                platform.brokers[0],
                RemotingCommand(
                    .sendMessageV2,
                    extFields: [
                        "a": "P", "b": "Later", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "0", "h": "0",
                        "i": "",
                        "j": "0", "k": "false", "m": "false",
                    ], body: [1]))
            kill(worker.pid, SIGKILL)
            try await eventually("the topic is there, too") {
                try await platform.route(of: "Later") == ["broker-a", "broker-b", "broker-c"]
            }
            try await platform.stop()
        }

        // MARK: - One worker

        @Test(
            "apus restart under load: only that process changes, no send fails, nothing acknowledged is lost",
            .timeLimit(.minutes(2)), needsOfficialClient, arguments: [1, 2])
        func restartOfOne(brokers: Int) async throws {
            let platform = try await start(brokers)
            let last = brokers - 1
            let topic = "Restarted"
            var acknowledged: Set<String> = []
            let answers = try await underLoad(platform, topic: topic) {
                let oracle = Oracle(broker: platform.brokers[last], topic: topic)
                try await eventually("traffic") { oracle.acknowledged.count > 300 }
                // Who asks for the route in the moment of a restart.
                let names = ["broker-a", "broker-b"].prefix(brokers)
                let watch = RouteWatch(platform.nameServer, topic: topic, brokers: Array(names))
                for worker in ["broker-store", "filter", "replication", "nameserver", "broker-store"] {
                    let index = ["filter", "nameserver"].contains(worker) ? 0 : last
                    let before = try await platform.status().pids
                    oracle.forgetGap()
                    let restart = try await Program.run(
                        Binaries.apus, ["restart", "\(worker)@\(index)", "--data-dir", platform.data])
                    #expect(restart.status == 0, "\(restart.errorText)")
                    // Time passes, in which another worker could end, too.
                    try await Task.sleep(for: .milliseconds(500))
                    let after = try await platform.status().pids
                    for (name, pid) in before {
                        #expect((after[name] != pid) == (name == "\(worker)-\(index)"), "\(name): \(pid)")
                    }
                    #expect(oracle.longestGap < .seconds(1))
                    print(
                        "T23 \(restart.lines.last ?? ""); \(brokers) brokers, longest pause of sends \(oracle.longestGap)"
                    )
                }
                let routes = await watch.stop()
                #expect(
                    routes.wrong.isEmpty,
                    "\(routes.wrong.count) of \(routes.answers), first \(routes.wrong.first ?? "")")
                #expect(routes.answers > 100)
                #expect(routes.reconnects == 0, "clients keep their connections to the name server")
                print("T23 \(routes.answers) questions for the route, longest wait for an answer \(routes.longest)")
                await oracle.stop()
                acknowledged = oracle.acknowledged
            }
            let stored = try await Oracle.stored(broker: platform.brokers[last], topic: topic, queues: 4)
            let lost = acknowledged.subtracting(stored)
            #expect(lost.isEmpty, "\(lost.count) of \(acknowledged.count) acknowledged messages are lost")
            print("T23 restart: \(answers.count) sends of the official client, none failed")
            let unknown = try await Program.run(Binaries.apus, ["restart", "king@0", "--data-dir", platform.data])
            #expect(unknown.status == 1 && unknown.errorText.contains("there is no worker king@0"))
            try await platform.stop()
        }

        @Test(
            "kill -9 of name server and broker under load: no client is told that there is no route, no send fails for good",
            .timeLimit(.minutes(2)), needsOfficialClient)
        func killedUnderLoad() async throws {
            let platform = try await start(1)
            let topic = "Killed"
            let answers = try await underLoad(platform, topic: topic) {
                // The official client asks for routes three seconds after its start and then every thirty. If it finds
                // its connection to the name server dead then, sends of other threads fail while it makes a new one
                // (its own lock, try-lock without patience): nothing a server could do anything about, so not within
                // this test.
                try await Task.sleep(for: .milliseconds(3_500))
                for round in 0..<2 {
                    let watch = RouteWatch(platform.nameServer, topic: topic, brokers: ["broker-a"])
                    for worker in ["nameserver-0", "broker-store-0"] {
                        let former = try #require(try await platform.status()[worker]?.pid)
                        kill(former, SIGKILL)
                        // A client that comes just now.
                        let fresh = try await OfficialClient.produce(
                            platform, [.init(n: 0, topic: topic, body: "fresh-\(round)-\(worker)")])
                        #expect(fresh.first?.ok == true, "\(worker): \(fresh.first?.error ?? "no answer")")
                        try await eventually("\(worker) is back") {
                            let now = try await platform.status()[worker]
                            return now?.state == "ready" && now?.pid != former
                        }
                    }
                    let routes = await watch.stop()
                    #expect(
                        routes.wrong.isEmpty,
                        "\(routes.wrong.count) of \(routes.answers), first \(routes.wrong.first ?? "")")
                    print(
                        "T23 kill -9, round \(round): \(routes.answers) questions for the route, \(routes.reconnects) connections"
                            + " ended, longest wait for an answer \(routes.longest)")
                    // A worker that has served for so long is started again at once.
                    try await Task.sleep(for: .milliseconds(2_100))
                }
            }
            print("T23 kill -9: \(answers.count) sends of the official client, none failed")
            try await platform.stop()
        }

        // MARK: - Limits

        @Test(
            "connections never take the descriptors that files need, and nothing spins while they try",
            .timeLimit(.minutes(1)))
        func limitOfFiles() async throws {
            let platform = try await Platform.start([
                "--set", "limits.broker-store.files=96", "--set", "limits.replication.files=64",
            ])
            try await eventually("status tells how many connections fit") {
                let broker = try await platform.status()["broker-store-0"]
                return broker?.status.contains("connections at most, not 10000 (connectionsMax)") == true
            }
            #expect(platform.log.contains("raise limits.broker-store.files or LimitNOFILE="))
            let pid = try #require(platform.pid(of: "broker-store"))
            var sockets: [RawSocket] = []
            for _ in 0..<300 { sockets.append(try RawSocket(platform.broker)) }
            try await eventually("those that do not fit are closed") {
                sockets.removeAll(where: \.isClosedByPeer)
                return sockets.count < 60
            }
            // Time passes, in which too many could be closed.
            try await Task.sleep(for: .milliseconds(200))
            let before = Platform.cpuMilliseconds(of: pid)
            sockets.removeAll(where: \.isClosedByPeer)
            #expect(sockets.count >= 5 && sockets.count < 60, "\(sockets.count) connections")
            // Time passes: what it uses in it is measured.
            try await Task.sleep(for: .seconds(2))
            let spent = Platform.cpuMilliseconds(of: pid) - before
            print("T23 at the limit of open files the broker used \(spent) ms of processor time in 2 s")
            #expect(spent < 500, "\(spent) ms in 2 s")
            #expect(try await platform.status().statusLine.hasPrefix("4 of 4 workers ready"))
            #expect(platform.log.contains("too many connections"))
            sockets.removeLast(3)
            // Each topic has queues of its own, and each queue a file.
            for queue in 0..<16 {
                let file = platform.folder.file("line")
                try "to queue \(queue)\n".write(toFile: file, atomically: false, encoding: .utf8)
                let sent = try await platform.apus(["send", "--topic", "Many\(queue)", file])
                try #require(sent.status == 0, "\(sent.errorText) \(platform.log.suffix(3000))")
            }
            sockets = []
            try await eventually("there is room again") {
                let reply = try? await platform.ask(platform.broker, RemotingCommand(.getBrokerRuntimeInfo))
                return reply?.code == 0
            }
            #expect(platform.pid(of: "broker-store") == pid)
            try await platform.stop()
        }

        @Test("a worker at its limit of memory is replaced, with the reason", .timeLimit(.minutes(1)))
        func limitOfMemory() async throws {
            let platform = try await Platform.start(["--set", "limits.nameserver.memory=64M"])
            let before = try #require(try await platform.status()["nameserver-0"]?.pid)
            // Frames that never end, of all of which together the name server keeps 64 MiB: as much as it may have.
            let beginning: [UInt8] = [0, 0xF0, 0, 0, 0, 0, 1, 0] + [UInt8](repeating: 0x20, count: 12 << 20)
            var sockets: [RawSocket] = []
            for _ in 0..<16 {
                guard let socket = try? RawSocket(platform.nameServer) else { break }
                sockets.append(socket)
                guard send(socket.descriptor, beginning, beginning.count, Int32(MSG_NOSIGNAL)) > 0 else { break }
            }
            try await eventually("it was replaced and says why", within: .seconds(20)) {
                let now = try await platform.status()["nameserver-0"]
                return now?.pid != before && now?.lastFailure.contains("limits.nameserver.memory") == true
            }
            sockets = []
            #expect(platform.log.contains("limits.nameserver.memory"))
            try await platform.stop()
        }
    }
}
