import Foundation
import LinuxSystem
import Supervision
import Testing
import WorkerProtocol

@Suite struct DiskConfigurationTests {
    private func configuration(
        _ common: [String: String] = [:], disks: [String]?, brokers: [[String: String]] = [],
        entries: [DiskRegister.Entry] = [], change: (inout RawConfiguration) -> Void = { _ in }
    ) throws -> PlatformConfiguration {
        var raw = RawConfiguration()
        raw.common = common
        raw.disks = disks
        raw.brokers = brokers
        change(&raw)
        raw.sortOut()
        var surroundings = PlatformConfiguration.Surroundings(dataDirectory: "/data", executables: "/usr/lib/apus")
        surroundings.disks = entries
        return try PlatformConfiguration(raw, surroundings)
    }

    private func entry(_ slot: Int, _ path: String, served: Bool = true) -> DiskRegister.Entry {
        DiskRegister.Entry(
            slot: slot, identity: "id\(slot)", served: served,
            brokerName: PlatformConfiguration.brokerName(nil, index: slot), path: path)
    }

    @Test func numbersPortsAndFoldersAreTheDisksOwn() throws {
        let platform = try configuration(
            disks: ["/d1", "/d0/"], entries: [entry(3, "/d1"), entry(0, "/d0", served: false)])
        #expect(platform.brokerIndexes == [0, 3])
        #expect(
            platform.workers.map(\.description) == [
                "nameserver-0", "broker-store-0", "broker-store-3", "replication-0", "replication-3", "filter-0",
                "gateway-0",
            ])
        let broker = platform.settings(of: WorkerID(.brokerStore, 3))
        for (key, value) in [
            "brokerName": "broker-d", "listenPort": "10941", "fastListenPort": "10939", "haListenPort": "10942",
            "storePathRootDir": "/d1/store", "diskPath": "/d1", "diskIdentity": "id3", "diskServed": "true",
        ] {
            #expect(broker[key] == value, "\(key)")
        }
        #expect(platform.settings(of: WorkerID(.brokerStore, 0))["diskServed"] == "false")
        #expect(platform.settings(of: WorkerID(.filter, 0))["storePathCommitLog#3"] == "/d1/store/commitlog")
    }

    @Test func listInABrokerConf() throws {
        let platform = try configuration(["disks": "/a, /b"], disks: nil)
        #expect(platform.brokers.map { $0["storePathRootDir"] } == ["/a/store", "/b/store"])
    }

    @Test(arguments: [
        (["storePathRootDir": "/x"], "storePathRootDir cannot hold for all of disks"),
        (["brokerRole": "SLAVE", "brokerId": "1", "haMasterAddress": "h:1"], "follows the master of its own name"),
    ])
    func whatCannotHoldForAllDisks(_ common: [String: String], _ words: String) {
        let error = #expect(throws: ConfigurationError.self) { try configuration(common, disks: ["/a", "/b"]) }
        #expect(error?.description.contains(words) == true)
    }

    @Test func contradictionsAreRefusedInWords() {
        func refusal(
            _ common: [String: String] = [:], disks: [String]? = nil, brokers: [[String: String]] = [],
            _ change: (inout RawConfiguration) -> Void = { _ in }
        ) -> String {
            do {
                _ = try configuration(common, disks: disks, brokers: brokers, change: change)
                return ""
            } catch {
                return "\(error)"
            }
        }
        #expect(refusal(disks: ["/a"], brokers: [["brokerName": "b"]]).contains("keep one of them"))
        #expect(refusal(disks: []).contains("disks is empty"))
        #expect(refusal(disks: ["a"]).contains("absolute paths"))
        #expect(refusal(disks: ["/a", "/a/"]).contains("twice"))
        #expect(refusal(disks: ["/a"]) { $0.withoutBroker = true }.contains("disks are a broker's"))
        #expect(refusal(["brokerRole": "SLAVE"]) { $0.withoutBroker = true }.contains("brokerRole is a broker's"))
        #expect(refusal(brokers: [[:]]) { $0.withoutBroker = true }.contains("[[broker]] is a broker's"))
        #expect(refusal { $0.withoutNameserver = true }.contains("namesrvAddr"))
        #expect(
            refusal(["namesrvAddr": "h:1"]) {
                $0.withoutNameserver = true
                $0.nameserver["listenPort"] = "1"
            }.contains("nameserver = false and settings of [nameserver]"))
        #expect(
            refusal(
                ["brokerRole": "SLAVE", "brokerId": "1", "haMasterAddress": "h:1"],
                brokers: [["storePathRootDir": "/a"], ["storePathRootDir": "/b"]]
            ).contains("follow the same haMasterAddress"))
    }

    @Test func limitsByKind() throws {
        let limits = try configuration(
            [
                "limits.filter.memory": "256M", "limits.broker-store.files": "4096",
                "limits.replication.cpuWeight": "20",
            ],
            disks: nil
        ).limits
        #expect(limits[.filter].memory == 256 << 20)
        #expect(limits[.brokerStore].files == 4096)
        #expect(limits[.replication].niceness == 7)
        #expect(limits[.nameserver].isEmpty)
        for (key, value) in [
            ("limits.filter.memory", "lots"), ("limits.filter.memory", "1M"), ("limits.king.files", "100"),
            ("limits.filter.heat", "1"), ("limits.filter.cpuWeight", "0"), ("limits.filter.cpu", "x"),
        ] {
            #expect(throws: ConfigurationError.self) { try configuration([key: value], disks: nil) }
        }
    }

    /// From the settings to the kernel's files and back to the words, with a folder for the group systemd would hand
    /// over.
    @Test func limitsReachTheGroupOfTheirWorker() throws {
        let folder = try Folder()
        func put(_ text: String, _ name: String) throws {
            try text.write(toFile: "\(folder.path)/\(name)", atomically: false, encoding: .utf8)
        }
        func text(_ name: String) throws -> String {
            try String(contentsOfFile: "\(folder.path)/filter-0/\(name)", encoding: .utf8)
        }
        try put("cpuset cpu io memory pids\n", "cgroup.controllers")
        let limits = ["limits.filter.memory": "256M", "limits.filter.tasks": "64", "limits.filter.cpu": "150"]
        var limiter = Limiter(try configuration(limits, disks: nil)) { ControlGroups(path: folder.path) }
        #expect(limiter.complaints == [])
        let filter = WorkerID(.filter, 0)
        let child = try ChildProcess.spawn(
            path: "/bin/sleep", arguments: ["sleep", "60"], environment: [], descriptors: [],
            parentDeathSignal: SIGKILL,
            ownProcessGroup: false)
        // A child that is not waited for would keep the test library from noticing the ends of its own.
        defer {
            kill(child.pid, SIGKILL)
            waitpid(child.pid, nil, 0)
        }
        #expect(limiter.apply(to: child, filter) == [])
        #expect(try text("memory.max") == "268435456")
        #expect(try text("pids.max") == "64")
        #expect(try text("cpu.max") == "150000 100000")
        #expect(try text("cgroup.procs") == String(child.pid))

        try put("max 7\n", "filter-0/pids.events")
        #expect(limiter.noticed(filter) == "no more threads: all 64 of limits.filter.tasks are there")
        #expect(limiter.noticed(filter) == nil)
        try put("oom_kill 1\n", "filter-0/memory.events")
        #expect(limiter.explain(signal: SIGKILL, of: filter) == ", out of memory: limits.filter.memory is 256 MB")
        // Where systemd has handed over nothing, those that need it say so.
        #expect(Limiter(try configuration(limits, disks: nil)) { nil }.complaints.count == 2)
    }
}
