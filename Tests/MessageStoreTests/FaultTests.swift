import Foundation
import LinuxSystem
import MessageModel
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// Disks that refuse: what was acknowledged stays, nothing is half there, service returns.
@Suite struct FaultTests {
    let clock = TestClock()
    let disk: SimulatedDisk
    let fault = DiskFault()
    let configuration: StoreConfiguration

    init() {
        let clock = clock
        disk = SimulatedDisk(now: { clock.now })
        let fault = fault
        disk.fault.withLock { $0 = { fault.answer($0, $1) } }
        configuration = .small("/store")
    }

    @Test(arguments: [ENOSPC, EIO], [0, 1, 2])
    func aFailedWriteLeavesNothing(_ code: Int32, _ after: Int) throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        harness.send("T", body: "one")
        try harness.store.commitTick()
        fault.set("pwrite", path: "commitlog", code: code, after: after)
        // Enough for several files in one tick: some of the writes succeed.
        var failed = false
        for round in 0..<3 where !failed {
            for number in 0..<40 {
                harness.send("T", body: "lost \(round) \(number) " + String(repeating: "l", count: 4000))
            }
            do {
                try harness.store.commitTick()
            } catch {
                failed = true
            }
        }
        #expect(failed)
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        let before = queue.maxOffset
        // Refused with a message, not with silence; reads go on.
        guard case .refused(let refusal) = harness.send("T", body: "refused") else {
            Issue.record("a message was taken")
            return
        }
        if code == ENOSPC {
            guard case .diskFull(let remark) = refusal else {
                Issue.record("\(refusal)")
                return
            }
            #expect(remark.contains("/store/commitlog") && remark.contains("%") && remark.contains("fileReservedTime"))
        }
        #expect(harness.bodies("T").first == "one")
        fault.clear()
        harness.maintain()
        #expect(harness.store.notWritable == nil)
        guard case .appended(let result) = harness.send("T", body: "two") else {
            Issue.record("service did not return")
            return
        }
        #expect(result.queueOffset == before)
        try harness.store.commitTick()
        #expect(harness.bodies("T").last == "two")
        let wanted = harness.bodies("T")
        // Nothing of the failed tick comes back after a crash of either kind.
        for boot: UInt8 in [1, 2] {
            let next = Harness(configuration, disk: disk.afterKill(), clock: clock, boot: boot)
            try next.store.open()
            #expect(next.bodies("T") == wanted)
        }
    }

    @Test func afterAFailedSynchronizationNothingIsTakenUntilVerified() throws {
        var configuration = configuration
        configuration.flushDiskType = .syncFlush
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        var failures = 0
        harness.store.events.flushFailed = { _ in failures += 1 }
        harness.send("T", body: "one")
        try harness.store.commitTick()
        harness.settle()
        #expect(harness.store.flushedOffset == harness.store.writtenOffset)
        fault.set("fdatasync", path: "commitlog", code: EIO)
        harness.send("T", body: "two")
        try harness.store.commitTick()
        harness.settle()
        #expect(failures == 1 && harness.store.flushedOffset < harness.store.writtenOffset)
        guard case .refused = harness.send("T", body: "three") else {
            Issue.record("a message was taken")
            return
        }
        harness.maintain()
        #expect(harness.store.notWritable != nil, "the disk still fails")
        fault.clear()
        harness.maintain(3000)
        #expect(harness.store.notWritable == nil && harness.store.flushedOffset == harness.store.writtenOffset)
        harness.send("T", body: "three")
        try harness.store.commitTick()
        harness.settle()
        var random = SeededGenerator(seed: 3)
        let next = Harness(configuration, disk: disk.afterPowerCut(&random), clock: clock, boot: 2)
        try next.store.open()
        #expect(next.bodies("T") == ["one", "two", "three"])
    }

    /// Queues and index that cannot be written lose nothing: the log has it.
    @Test(arguments: ["consumequeue", "index"])
    func queuesThatCannotBeWritten(_ part: String) throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<50 { harness.send("T", body: "\(number)", keys: "k\(number)") }
        try harness.store.commitTick()
        fault.set("pwrite", path: part, code: ENOSPC)
        harness.maintain()
        #expect(harness.bodies("T").count == 50)
        let image = disk.afterKill()
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        #expect(next.bodies("T").count == 50)
        #expect(next.store.queryMessage(topic: "T", key: "k17", maxCount: 9, begin: 0, end: .max).records.count == 1)
        fault.clear()
        harness.maintain(3000)
        #expect(harness.store.notWritable == nil)
        #expect(harness.store.queryMessage(topic: "T", key: "k49", maxCount: 9, begin: 0, end: .max).records.count == 1)
        try harness.store.close()
    }

    @Test func aFullDiskFillsToTheLastByteAndRecovers() throws {
        var configuration = configuration
        configuration.fileReservedTime = 1
        disk.capacity.withLock { $0 = 200 * 1024 }
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        var acknowledged: [String] = []
        var number = 0
        var isFull = false
        while !isFull, number < 2000 {
            let body = "\(number) " + String(repeating: "f", count: 900)
            number += 1
            if case .appended = harness.send("T", body: body) {
                do {
                    try harness.store.commitTick()
                    acknowledged.append(body)
                } catch {
                    isFull = true
                }
            } else {
                isFull = true
            }
        }
        #expect(isFull && acknowledged.count > 50)
        #expect(harness.bodies("T") == acknowledged)
        // Time passes, old files expire, messages are taken again.
        harness.clock.advance(7_200_000)
        harness.maintain(30_000)
        #expect(harness.store.minPhysicalOffset.rawValue > 0 || harness.store.deleteOldestFile())
        harness.maintain(30_000)
        #expect(harness.store.notWritable == nil)
        guard case .appended = harness.send("T", body: "again") else {
            Issue.record("service did not return")
            return
        }
        try harness.store.commitTick()
        let left = harness.bodies("T")
        #expect(left.last == "again")
        #expect(Array(left.dropLast()) == Array(acknowledged.suffix(left.count - 1)))
        try harness.store.close()
    }

    /// Flipped bits anywhere in the store: the broker starts, says so, and never delivers a damaged body as good.
    @Test func flippedBits() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        var bodies: Set<String> = []
        for number in 0..<300 {
            let body = "\(number) " + String(repeating: "body", count: number % 60)
            bodies.insert(body)
            harness.send("T", Int32(number % 2), body: body, keys: "k\(number)")
            if number % 10 == 0 { try harness.store.commitTick() }
        }
        try harness.store.commitTick()
        harness.maintain(5000)
        try harness.store.close()
        var random = SeededGenerator(seed: 17)
        let paths = disk.paths.filter { !$0.hasSuffix("/lock") }
        for round in 0..<200 {
            let image = disk.afterKill()
            let path = try #require(paths.randomElement(using: &random))
            let size = image.bytes(path)?.count ?? 0
            guard size > 0 else { continue }
            image.flip(path, byte: Int.random(in: 0..<size, using: &random), bit: Int.random(in: 0..<8, using: &random))
            let isKill = random.chance(50)
            if isKill { _ = try image.open("/store/abort", .create) }
            let next = Harness(configuration, disk: image, clock: clock, boot: isKill ? 1 : 2)
            try next.store.open()
            var found = 0
            for queueID: Int32 in 0..<2 {
                for body in next.bodies("T", queueID) {
                    found += 1
                    #expect(bodies.contains(body), "round \(round): \(path) delivered a message that was never sent")
                }
            }
            // One bit costs one message at most, or a few entries of a queue file that lost its place.
            #expect(found >= 290, "round \(round): \(path): \(found) of 300")
            guard case .appended = next.send("T", body: "still taken") else {
                Issue.record("round \(round): no more messages taken")
                return
            }
            try next.store.commitTick()
        }
    }

    /// No checksum covers a record's queue offset: any number may stand there, and costs that message its place at
    /// most.
    @Test(arguments: [Int64.max, Int64.max - 1, Int64.min, -1, Int64.max / 20, ConsumeQueueEntry.queueOffsetLimit])
    func impossibleQueueOffsets(_ offset: Int64) throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<6 { harness.send("T", body: "\(number)") }
        try harness.store.commitTick()
        try harness.store.close()
        let log = try #require(disk.paths.first { $0.contains("/commitlog/") })
        // The last record's queue offset: after total size, magic, CRC, queue id and flag (4 bytes each).
        let start = Int(harness.store.writtenOffset.rawValue) / 6 * 5
        let image = disk.afterKill()
        for path in disk.paths where path.contains("/consumequeue/") { try image.remove(path) }
        let file = try image.open(log, .readWrite)
        try withUnsafeBytes(of: offset.bigEndian) { try file.write($0, at: Int64(start + 20)) }
        let next = Harness(configuration, disk: image, clock: clock, boot: 1)
        try next.store.open()
        #expect(next.bodies("T") == ["0", "1", "2", "3", "4"])
        guard case .appended = next.send("T", body: "still taken") else {
            Issue.record("no more messages taken")
            return
        }
        try next.store.commitTick()
        #expect(next.bodies("T").last == "still taken")
    }

    @Test func topicsNoFolderCanBeNamedAfter() {
        func isUsable(_ topic: [UInt8]) -> Bool { topic.withUnsafeBytes { TopicName.canExist($0) } }
        #expect(isUsable(Array("T".utf8)) && isUsable(Array("Tée".utf8)))
        #expect(isUsable([UInt8](repeating: 65, count: 255)) && !isUsable([UInt8](repeating: 65, count: 256)))
        for bad in [[], Array(".".utf8), Array("..".utf8), Array("a/b".utf8), [65, 0], [65, 0xFF], [0xC3]] {
            #expect(!isUsable(bad), "\(bad)")
        }
    }

    @Test func retentionDeletesOldestFirst() throws {
        var configuration = configuration
        configuration.fileReservedTime = 1
        configuration.deleteWhen = (0..<24).map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: ";")
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<200 {
            harness.send("T", body: "\(number) " + String(repeating: "r", count: 3000), keys: "k\(number)")
            harness.send("Quiet\(number / 100)", body: "\(number)")
            try harness.store.commitTick()
            harness.clock.advance(36_000)
            harness.maintain(100)
        }
        harness.maintain(30_000)
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        #expect(harness.store.minPhysicalOffset.rawValue > 0 && queue.minOffset.rawValue > 0)
        let bodies = harness.bodies("T")
        #expect(bodies.count == 200 - Int(queue.minOffset.rawValue))
        #expect(bodies.last?.hasPrefix("199 ") == true)
        // A queue all of whose messages are gone keeps its place.
        let quiet = try #require(harness.store.consumeQueue(topic: "Quiet0", queueID: 0))
        #expect(quiet.isEmpty && quiet.maxOffset.rawValue == 100)
        guard case .appended(let result) = harness.send("Quiet0", body: "more") else {
            Issue.record("refused")
            return
        }
        #expect(result.queueOffset.rawValue == 100)
        try harness.store.commitTick()
        try harness.store.close()
        let again = Harness(configuration, disk: disk, clock: clock)
        try again.store.open()
        #expect(again.bodies("T") == bodies)
        #expect(again.bodies("Quiet0") == ["more"])
        #expect(again.store.earliestMessageTime >= clock.now - 7_300_000)
    }

    @Test func aTopicRemovedAndMadeAgainBeginsAnew() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<150 { harness.send("T", body: "old \(number)") }
        try harness.store.commitTick()
        harness.maintain()
        harness.store.removeTopic("T")
        #expect(harness.store.consumeQueue(topic: "T", queueID: 0) == nil)
        harness.send("T", body: "new 0")
        try harness.store.commitTick()
        #expect(harness.bodies("T") == ["new 0"])
        harness.maintain()
        let next = Harness(configuration, disk: disk.afterKill(), clock: clock)
        try next.store.open()
        #expect(next.bodies("T") == ["new 0"])
        // Even from the log alone.
        let image = disk.afterKill()
        image.removeTree("/store/consumequeue")
        let rebuilt = Harness(configuration, disk: image, clock: clock)
        try rebuilt.store.open()
        #expect(rebuilt.bodies("T") == ["new 0"])
    }
}
