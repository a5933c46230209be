import Foundation
import LinuxSystem
import Testing

/// Against a folder with the kernel's files in it: this needs no cgroup v2 with controllers.
@Suite struct ControlGroupsTests {
    private let folder = NSTemporaryDirectory() + "apus-cgroup-\(UUID().uuidString.prefix(8))"

    private func with(_ controllers: String, _ body: (ControlGroups) throws -> Void) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try put(controllers, in: "cgroup.controllers")
        try body(try #require(ControlGroups(path: folder)))
    }

    private func put(_ text: String, in name: String) throws {
        try text.write(toFile: "\(folder)/\(name)", atomically: false, encoding: .utf8)
    }

    private func text(_ name: String) throws -> String {
        try String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)
    }

    @Test func everyWorkerHasItsGroupAndItsLimits() throws {
        try with("cpuset cpu io memory pids\n") { (groups: ControlGroups) throws in
            #expect(groups.available == ["cpu", "io", "memory", "pids"])
            #expect(try text("supervisor/cgroup.procs") == String(getpid()))
            var limits = ControlGroups.Limits()
            limits.memory = 256 << 20
            limits.tasks = 64
            limits.cpuWeight = 200
            limits.cpuPercent = 150
            limits.ioWeight = 50
            #expect(groups.prepare("filter-0", limits) == [])
            #expect(try text("filter-0/memory.max") == "268435456")
            #expect(try text("filter-0/pids.max") == "64")
            #expect(try text("filter-0/cpu.weight") == "200")
            #expect(try text("filter-0/cpu.max") == "150000 100000")
            #expect(try text("filter-0/io.weight") == "default 50")
            try groups.place(4711, in: "filter-0")
            #expect(try text("filter-0/cgroup.procs") == "4711")
        }
    }

    @Test func whatIsNotDelegatedIsSaid() throws {
        try with("pids") { (groups: ControlGroups) throws in
            var limits = ControlGroups.Limits()
            limits.memory = 1 << 30
            limits.tasks = 8
            #expect(
                groups.prepare("x", limits) == [
                    "memory.max: the controller memory is not delegated to this service"
                ])
            #expect(try text("x/pids.max") == "8")
        }
    }

    @Test func refusalsOfTheKernelAreCounted() throws {
        try with("memory pids") { (groups: ControlGroups) throws in
            #expect(groups.prepare("x", .init()) == [])
            #expect(groups.refusals(of: "x").kills == 0)
            try put("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 0\n", in: "x/memory.events")
            try put("max 7\n", in: "x/pids.events")
            let refusals = groups.refusals(of: "x")
            #expect(refusals.kills == 2)
            #expect(refusals.tasks == 7)
        }
    }
}

@Suite struct DiskMarkTests {
    private let folder = NSTemporaryDirectory() + "apus-mark-\(UUID().uuidString.prefix(8))"

    private func with(_ body: () throws -> Void) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try body()
    }

    @Test func writtenAndReadAgain() throws {
        try with {
            #expect(try DiskMark.read(in: folder) == nil)
            let mark = DiskMark(identity: DiskMark.newIdentity(), slot: 3, brokerName: "broker-d")
            #expect(mark.identity.count == 32)
            try mark.write(in: folder)
            #expect(try DiskMark.read(in: folder) == mark)
            guard case .mark(mark) = DiskMark.read(in: folder, withinMillis: 5_000) else {
                Issue.record("not read in time")
                return
            }
            try DiskProbe.read(in: folder)
            try DiskProbe.write(in: folder)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [DiskMark.fileName])
        }
    }

    @Test func whatIsNoMarkIsAnError() throws {
        try with {
            try "hello".write(toFile: "\(folder)/\(DiskMark.fileName)", atomically: false, encoding: .utf8)
            #expect(throws: SystemError.self) { try DiskMark.read(in: folder) }
        }
        #expect(DiskMark(parsing: "slot=1\n") == nil)
    }

    /// A fifo nobody writes to: the read hangs as on a dead disk, the caller does not.
    @Test func aHangingDiskDoesNotHangTheCaller() throws {
        try with {
            #expect(mkfifo("\(folder)/\(DiskMark.fileName)", 0o600) == 0)
            let start = MonotonicClock.milliseconds
            guard case .noAnswer = DiskMark.read(in: folder, withinMillis: 100) else {
                Issue.record("an answer from nowhere")
                return
            }
            #expect(MonotonicClock.milliseconds - start < 5_000)
            // Lets the thread go.
            let end = open("\(folder)/\(DiskMark.fileName)", O_WRONLY | O_NONBLOCK)
            if end >= 0 { close(end) }
        }
    }

    @Test func aPausedListenerRefusesAndListensAgain() throws {
        let probe = try ListenSocket.tcp(address: "127.0.0.1", port: 0)
        let port = try ListenSocket.port(of: probe.raw)
        ListenSocket.pause(probe.raw)
        // Again, as with every try of a worker whose disk stays away.
        ListenSocket.pause(probe.raw)
        #expect(!ListenSocket.listens(probe.raw, address: "127.0.0.1", port: port))
        #expect(listen(probe.raw, 8) == 0)
        #expect(ListenSocket.listens(probe.raw, address: "127.0.0.1", port: port))
        let client = SharedDescriptor(Descriptor(owning: socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        let connected = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(client.raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        #expect(connected == 0)
        guard let accepted = try ListenSocket.accept(probe.raw) else {
            Issue.record("nobody to accept")
            return
        }
        var byte: UInt8 = 0
        let count = read(accepted.raw, &byte, 1)
        #expect(count == -1, "an accepted connection is open")
    }
}
