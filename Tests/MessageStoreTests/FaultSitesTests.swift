import Glibc
import LinuxSystem
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore
@testable import MetadataStore

/// Every call that changes the disk fails once in its turn, with ENOSPC and with EIO, for a moment or for long: nothing
/// acknowledged is lost, nothing is half there, and service returns when the disk works again. And every kind of file
/// is met with every call the store makes on it.
@Suite struct FaultSitesTests {
    /// Counts the calls; fails those of a window.
    private final class Sites: Sendable {
        struct State {
            var count = 0
            var failing: Range<Int> = 0..<0
            var code: Int32 = 0
            var seen: Set<String> = []
            var failed: String?
        }

        let state = Mutex(State())

        func answer(_ call: String, _ path: String) -> Int32? {
            // Looking is no change.
            if call == "open" || call == "stat" { return nil }
            return state.withLock { state in
                state.count += 1
                state.seen.insert(call + " " + Self.kind(path))
                guard state.failing.contains(state.count) else { return nil }
                state.failed = state.failed ?? "\(call) \(path)"
                return state.code
            }
        }

        static func kind(_ path: String) -> String {
            for (part, name) in [
                (".apus-recovery", "recovery point"), ("commitlog", "log"), ("consumequeue", "queue"),
                ("index", "index"),
                ("checkpoint", "checkpoint"), ("config", "metadata"), ("abort", "abort"), ("lock", "lock"),
            ] where path.contains(part) { return name }
            return "folder"
        }
    }

    private struct World {
        let clock = TestClock()
        let disk: SimulatedDisk
        let sites = Sites()
        var configuration = StoreConfiguration.small("/store")

        init(_ flush: StoreConfiguration.FlushDiskType) {
            let clock = clock
            let sites = sites
            disk = SimulatedDisk(now: { clock.now })
            disk.fault.withLock { $0 = { sites.answer($0, $1) } }
            configuration.flushDiskType = flush
            configuration.mappedFileSizeCommitLog = 16 * 1024
            configuration.mappedFileSizeConsumeQueue = 400
            configuration.maxHashSlotNum = 50
            configuration.maxIndexNum = 60
            configuration.maxMessageSize = 4096
            configuration.allocateAheadBytes = 8192
            configuration.flushConsumeQueueThoroughInterval = 1000
        }

        /// The same work each time; what was acknowledged of it, by queue, and the metadata that was saved for certain.
        func work(_ harness: Harness, _ acknowledged: inout [String], _ saved: inout Int) {
            let metadata = MetadataFile(path: "/store/config/topics.json", disk: disk)
            var waiting: [(end: PhysicalOffset, bodies: [String])] = []
            for round in 0..<14 {
                var bodies: [String] = []
                for number in 0..<4 {
                    let body = "\(round) \(number) " + String(repeating: "f", count: 300 * (number % 3))
                    if case .appended = harness.send(
                        "T\(number % 2)", body: body, keys: "k\(round)", unique: "u\(body.prefix(5))")
                    {
                        bodies.append(body)
                    }
                }
                do {
                    try harness.store.commitTick()
                    waiting.append((harness.store.writtenOffset, bodies))
                } catch {
                    // The whole tick has failed, and its senders are told.
                }
                harness.maintain(600)
                if configuration.flushDiskType == .asyncFlush {
                    acknowledged += waiting.flatMap { $0.bodies }
                    waiting = []
                } else {
                    acknowledged += waiting.filter { $0.end <= harness.store.flushedOffset }.flatMap { $0.bodies }
                    waiting.removeAll { $0.end <= harness.store.flushedOffset }
                }
                do {
                    try metadata.save(Array("{\(round)}".utf8))
                    saved = round
                } catch {
                    // Tried again by the next round.
                }
            }
        }
    }

    /// Returns the number of calls, and what was met.
    private func run(
        _ flush: StoreConfiguration.FlushDiskType, failing: Range<Int>, code: Int32
    ) throws -> (count: Int, seen: Set<String>) {
        let world = World(flush)
        world.sites.state.withLock {
            $0.failing = failing
            $0.code = code
        }
        var acknowledged: [String] = []
        var saved = -1
        var harness = Harness(world.configuration, disk: world.disk, clock: world.clock)
        do {
            try harness.store.open()
        } catch {
            // A disk that fails at the start: refused with a message, and the next start works.
            world.sites.state.withLock { $0.failing = 0..<0 }
            harness.store.abandon()
            harness = Harness(world.configuration, disk: world.disk, clock: world.clock)
            try harness.store.open()
        }
        world.work(harness, &acknowledged, &saved)
        let (count, seen, site) = world.sites.state.withLock { state in
            defer { state.failing = 0..<0 }
            return (state.count, state.seen, state.failed ?? "")
        }
        let name: Comment = "\(flush), calls \(failing) fail with \(code == EIO ? "EIO" : "ENOSPC"), first \(site)"
        // The disk works again: so does the store, by itself.
        harness.maintain(5000)
        #expect(harness.store.notWritable == nil, name)
        func check(_ harness: Harness, _ what: String) {
            let found = harness.bodies("T0") + harness.bodies("T1")
            #expect(Set(acknowledged).isSubset(of: found), "\(name) \(what): acknowledged messages are lost")
            #expect(Set(found).count == found.count, "\(name) \(what): something is there twice")
            for body in acknowledged {
                let result = harness.store.queryMessage(
                    topic: "T\((Int(body.split(separator: " ")[1]) ?? 0) % 2)", key: "u\(body.prefix(5))", maxCount: 9,
                    begin: 0, end: .max)
                // An index that could not be written says so and is made anew by the next start.
                #expect(
                    result.records.count == 1 || harness.store.index?.failure != nil,
                    "\(name) \(what): \(body.prefix(5))")
            }
        }
        check(harness, "going on")
        let killed = Harness(world.configuration, disk: world.disk.afterKill(), clock: world.clock)
        try killed.store.open()
        check(killed, "after a kill")
        var random = SeededGenerator(seed: UInt64(failing.lowerBound))
        let cut = world.disk.afterPowerCut(&random)
        let afterCut = Harness(world.configuration, disk: cut, clock: world.clock, boot: 2)
        try afterCut.store.open()
        if flush == .syncFlush { check(afterCut, "after a power cut") }
        if saved >= 0 {
            let loaded = try MetadataFile(path: "/store/config/topics.json", disk: cut).load { $0.last == 125 }
            switch loaded {
            case .absent, .empty: Issue.record("\(name): the table is gone")
            case .current(let bytes), .backup(let bytes, _):
                #expect(Int(String(decoding: bytes.dropFirst().dropLast(), as: UTF8.self)) ?? -1 >= saved, name)
            }
        }
        return (count, seen)
    }

    @Test func everySiteIsMet() throws {
        let (_, seen) = try run(.syncFlush, failing: 0..<0, code: 0)
        for site in [
            "pwrite log", "fdatasync log", "ftruncate log", "rename log", "fsync log", "fallocate log", "pwrite queue",
            "fdatasync queue", "ftruncate queue", "mkdir queue", "fsync queue", "pwrite index", "fdatasync index",
            "ftruncate index", "fsync index", "pwrite checkpoint", "fdatasync checkpoint", "pwrite recovery point",
            "fdatasync recovery point", "pwrite metadata", "fdatasync metadata", "rename metadata", "fsync metadata",
            "pwrite lock", "fsync folder",
        ] {
            #expect(seen.contains(site), "no \(site) happened: the test does not cover it; seen \(seen.sorted())")
        }
    }

    /// Each in its turn, for one call and for the forty that follow it. `APUS_FAULT_SITES=all` takes every call instead
    /// of every seventh.
    @Test(arguments: [StoreConfiguration.FlushDiskType.asyncFlush, .syncFlush], [ENOSPC, EIO])
    func eachFails(_ flush: StoreConfiguration.FlushDiskType, _ code: Int32) throws {
        let (count, _) = try run(flush, failing: 0..<0, code: 0)
        #expect(count > 200)
        let step = CrashTests.environment("APUS_FAULT_SITES") == "all" ? 1 : 7
        for first in stride(from: 1 + (code == EIO ? 3 : 0), to: count, by: step) {
            for length in [1, 40] { _ = try run(flush, failing: first..<(first + length), code: code) }
        }
        print("fault sites: \(flush), \(code == EIO ? "EIO" : "ENOSPC") at \(count / step) of \(count) calls")
    }
}
