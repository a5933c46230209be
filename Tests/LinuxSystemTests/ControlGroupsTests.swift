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
