import Foundation
import LinuxSystem
import StoreFormat
import TestDisk
import Testing

@testable import MessageStore

/// RocketMQ wrote a store and the power failed: its checkpoint hardly ever covers the newest index file. What is
/// left of that is used, so that the start reads a log file or two and not the whole log.
@Suite struct IndexSalvageTests {
    let clock = TestClock()
    let disk: SimulatedDisk
    let configuration = StoreConfiguration.small("/store")

    init() {
        let clock = clock
        disk = SimulatedDisk(now: { clock.now })
    }

    /// 400 messages in several log files, as RocketMQ would leave them: without anything of ours.
    private func leave() throws -> SimulatedDisk {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<400 {
            harness.send(
                "T", Int32(number % 2), body: "\(number) " + String(repeating: "b", count: 500), keys: "k\(number) x",
                unique: "U\(number)")
            try harness.store.commitTick()
            clock.advance(100)
            if number % 10 == 0 {
                harness.store.runMaintenance()
                harness.settle()
            }
        }
        harness.store.checkpoint.request()
        harness.maintain(3000)
        let image = disk.afterKill()
        try image.remove("/store/consumequeue/.apus-recovery")
        try image.open("/store/abort", .create).truncate(to: 0)
        return image
    }

    private func open(_ image: SimulatedDisk) throws -> Harness {
        let next = Harness(configuration, disk: image, clock: clock, boot: 2)
        try next.store.open()
        return next
    }

    /// The keys as made from the log alone.
    private func wanted(_ image: SimulatedDisk) throws -> [[Int64]] {
        let copy = image.afterKill()
        copy.removeTree("/store/consumequeue")
        copy.removeTree("/store/index")
        return try CrashWorld.keys(open(copy))
    }

    @Test func theWholeLogIsNotReadAgain() throws {
        let image = try leave()
        let wanted = try wanted(image)
        #expect(wanted.count == 1200)
        let next = try open(image)
        let end = next.store.writtenOffset.rawValue
        #expect(
            end > 3 * 65_536 && next.store.recoveredFrom.rawValue > end - 2 * 65_536,
            "\(next.store.recoveredFrom.rawValue) of \(end)")
        #expect(try CrashWorld.keys(next) == wanted)
        try next.store.close()
        let again = try open(image)
        #expect(try CrashWorld.keys(again) == wanted)
        for number in 0..<400 {
            let found = again.store.queryMessage(topic: "T", key: "k\(number)", maxCount: 9, begin: 0, end: .max)
            #expect(found.records.count == 1, "k\(number)")
        }
    }

    /// Blocks of the index that never reached the disk, wherever they lie: entries, slots, header.
    @Test func lostBlocksCostNoKey() throws {
        let image = try leave()
        let wanted = try wanted(image)
        let path = try #require(image.paths.first { $0.hasPrefix("/store/index/") })
        let size = try #require(image.bytes(path)?.count)
        var random = SeededGenerator(seed: CrashTests.seed)
        for round in 0..<40 {
            let cut = image.afterKill()
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let start = Int.random(in: 0..<(size / 512), using: &random) * 512
                let zeros = [UInt8](repeating: 0, count: min(512, size - start))
                try zeros.withUnsafeBytes { try cut.open(path, .readWrite).write($0, at: Int64(start)) }
            }
            let next = try open(cut)
            #expect(try CrashWorld.keys(next) == wanted, "APUS_SEED=\(CrashTests.seed) round \(round)")
            for number in stride(from: 0, to: 400, by: 7) {
                let found = next.store.queryMessage(topic: "T", key: "U\(number)", maxCount: 9, begin: 0, end: .max)
                #expect(found.records.count == 1, "round \(round): U\(number)")
            }
        }
    }

    /// Index files are named by the time of their first record. With a clock set back by a month (or a bit flipped in a
    /// record's time) that was tried millisecond by millisecond until it lay behind the last name: a start, or the
    /// loop, stood still.
    @Test(arguments: [0, 1])
    func aClockSetBack(_ rebuilt: Int) throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<3000 {
            if number == 1500 { clock.advance(-30 * 86_400_000) }
            harness.send("T", body: "\(number)", keys: "k\(number)", unique: "U\(number)")
            if number % 50 == 0 { try harness.store.commitTick() }
            clock.advance(1)
        }
        try harness.store.commitTick()
        try harness.store.close()
        let names = disk.paths.filter { $0.contains("/index/") }
        #expect(names.count == 4 && names.allSatisfy { $0.count == "/store/index/".count + 17 }, "\(names)")
        if rebuilt == 1 { disk.removeTree("/store/index") }
        let next = Harness(configuration, disk: disk, clock: clock)
        try next.store.open()
        for number in [0, 1499, 1500, 2999] {
            let found = next.store.queryMessage(topic: "T", key: "U\(number)", maxCount: 9, begin: 0, end: .max)
            #expect(found.records.count == 1, "\(number)")
        }
        try next.store.close()
        #expect(disk.paths.filter { $0.contains("/index/") } == names)
    }

    /// What a damaged record says of its time is no reason not to index it.
    @Test func timesNobodyHas() {
        #expect(IndexService.name(milliseconds: .max).count == 17)
        #expect(IndexService.name(milliseconds: .min) == "00000000000000001")
        #expect(IndexService.name(milliseconds: 1_800_000_000_123).hasSuffix("00123"))
    }
}
