import Foundation
import LinuxSystem
import Supervision
import Testing
import WorkerProtocol

/// A folder of one test.
private final class Folder {
    let path = NSTemporaryDirectory() + "apus-disks-\(UUID().uuidString.prefix(8))"
    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func disk(_ name: String) throws -> String {
        let disk = "\(path)/\(name)"
        try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
        return disk
    }

    func register() throws -> DiskRegister { try DiskRegister(dataDirectory: "\(path)/data") }

    /// What the settings say, and what a start with them makes of it.
    func entries(_ disks: [String]) throws -> [DiskRegister.Entry] {
        var register = try register()
        return try register.places(for: disks) { PlatformConfiguration.brokerName(nil, index: $0) }
    }

    /// As a broker does when it has become ready on its disk.
    func serve(_ entry: DiskRegister.Entry) throws {
        try DiskMark(identity: entry.identity, slot: entry.slot, brokerName: entry.brokerName).write(in: entry.path)
        var register = try register()
        try register.served(identity: entry.identity)
    }
}

@Suite struct DiskRegisterTests {
    @Test func namesStayWithTheirDisksHoweverTheyAreListed() throws {
        let folder = try Folder()
        let (a, b, c) = (try folder.disk("a"), try folder.disk("b"), try folder.disk("c"))
        let first = try folder.entries([a, b])
        #expect(first.map(\.brokerName) == ["broker-a", "broker-b"])
        for entry in first { try folder.serve(entry) }
        #expect(try folder.entries([b, a]).map(\.brokerName) == ["broker-b", "broker-a"])
        // One goes: its number stays its own.
        #expect(try folder.entries([b]).map(\.slot) == [1])
        #expect(try folder.entries([c, b]).map(\.brokerName) == ["broker-c", "broker-b"])
        #expect(try folder.entries([a, b, c]).map(\.slot) == [0, 1, 2])
        #expect(try folder.entries([a]).map(\.served) == [true])
    }

    /// Mounted at the other's place: the mark says who is who.
    @Test func disksThatHaveMovedKeepTheirNames() throws {
        let folder = try Folder()
        let (a, b) = (try folder.disk("a"), try folder.disk("b"))
        for entry in try folder.entries([a, b]) { try folder.serve(entry) }
        try FileManager.default.moveItem(atPath: a, toPath: "\(folder.path)/x")
        try FileManager.default.moveItem(atPath: b, toPath: a)
        try FileManager.default.moveItem(atPath: "\(folder.path)/x", toPath: b)
        #expect(try folder.entries([a, b]).map(\.brokerName) == ["broker-b", "broker-a"])
        // The platform's memory is gone, the disks' own is not.
        try FileManager.default.removeItem(atPath: "\(folder.path)/data/disks")
        #expect(try folder.entries([a, b]).map(\.brokerName) == ["broker-b", "broker-a"])
    }

    @Test func missingDiskKeepsItsPlace() throws {
        let folder = try Folder()
        let (a, b) = (try folder.disk("a"), try folder.disk("b"))
        for entry in try folder.entries([a, b]) { try folder.serve(entry) }
        try FileManager.default.removeItem(atPath: a)
        let entries = try folder.entries([a, b])
        #expect(entries.map(\.brokerName) == ["broker-a", "broker-b"])
        #expect(entries.map(\.served) == [true, true])
    }

    @Test func aCopiedDiskIsRefusedInWords() throws {
        let folder = try Folder()
        let (a, b) = (try folder.disk("a"), try folder.disk("b"))
        for entry in try folder.entries([a]) { try folder.serve(entry) }
        try FileManager.default.copyItem(atPath: "\(a)/.apus-disk", toPath: "\(b)/.apus-disk")
        let error = #expect(throws: ConfigurationError.self) { try folder.entries([a, b]) }
        #expect(error?.description.contains("both carry the mark of broker-a") == true)
    }

    @Test func damagedRegisterNamesItsLine() throws {
        let folder = try Folder()
        _ = try folder.entries([try folder.disk("a")])
        try "nonsense\n".write(toFile: "\(folder.path)/data/disks", atomically: true, encoding: .utf8)
        let error = #expect(throws: ConfigurationError.self) { try folder.register() }
        #expect(error?.description.contains("line 1") == true)
    }
}

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

    /// From the settings to the kernel's files and back to the words, with a folder for the group systemd would hand over.
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
        // A child nobody waits for would keep the test library from noticing the ends of its own.
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
