import Foundation
import LinuxSystem
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// A synchronization fails on the flush thread, and the process ends before its owner hears of it. From then on the
/// kernel calls the lost pages clean, so the next process may trust only what it has written again.
@Suite struct UnheardFailureTests {
    let clock = TestClock()
    let disk: SimulatedDisk
    let fault = DiskFault()
    var configuration = StoreConfiguration.small("/store")

    init() {
        let clock = clock
        disk = SimulatedDisk(now: { clock.now })
        configuration.flushDiskType = .syncFlush
        configuration.flushConsumeQueueThoroughInterval = 5000
    }

    /// The next synchronization below a path is refused once; true in `failed` when it was.
    private func refuse(_ path: String, _ failed: Flag) {
        disk.fault.withLock {
            $0 = { call, at in
                guard call == "fdatasync" || call == "syncfs", at.contains(path), !failed.isSet else { return nil }
                failed.set()
                return EIO
            }
        }
    }

    final class Flag: Sendable {
        private let value = Mutex(false)
        var isSet: Bool { value.withLock { $0 } }
        func set() { value.withLock { $0 = true } }
    }

    private func send(_ harness: Harness, _ numbers: Range<Int>) throws {
        for number in numbers {
            harness.send("T", body: "\(number)", keys: "k\(number)")
            try harness.store.commitTick()
            harness.settle()
        }
    }

    /// A store of eight messages, five of them behind a checkpoint.
    private func eightMessages(_ configuration: StoreConfiguration) throws -> Harness {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        try send(harness, 0..<5)
        harness.maintain(3000)
        try send(harness, 5..<8)
        return harness
    }

    /// As above; another checkpoint's synchronization of a part has just been refused.
    private func withFailedCheckpoint(_ part: String, _ configuration: StoreConfiguration) throws -> Harness {
        let harness = try eightMessages(configuration)
        let failed = Flag()
        refuse(part, failed)
        for _ in 0..<200 where !failed.isSet {
            clock.advance(100)
            harness.store.runMaintenance()
            if !failed.isSet { harness.settle() }
        }
        #expect(failed.isSet)
        return harness
    }

    /// Power cuts of every kind leave all that `count` messages need.
    private func expectDurable(_ image: SimulatedDisk, _ count: Int) throws {
        var random = SeededGenerator(seed: 7)
        for _ in 0..<12 {
            let next = Harness(configuration, disk: image.afterPowerCut(&random), clock: clock, boot: 9)
            try next.store.open()
            #expect(next.bodies("T") == (0..<count).map { "\($0)" })
            for number in 0..<count {
                let found = next.store.queryMessage(topic: "T", key: "k\(number)", maxCount: 9, begin: 0, end: .max)
                #expect(found.records.count == 1, "k\(number)")
            }
        }
    }

    @Test func ofTheLogThenKilled() throws {
        let harness = try eightMessages(configuration)
        let failed = Flag()
        refuse("commitlog", failed)
        harness.send("T", body: "8", keys: "k8")
        try harness.store.commitTick()
        #expect(failed.isSet)
        // The loop has not run: nothing was reported and nothing noted.
        let image = disk.afterKill()
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        try send(next, 9..<11)
        next.maintain(8000)
        #expect(next.store.notWritable == nil && next.store.flushedOffset == next.store.writtenOffset)
        try expectDurable(image, 11)
    }

    /// Even in the first second of a store, before it has a recovery point of any kind.
    @Test func ofANewLogThenKilled() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        let failed = Flag()
        refuse("commitlog/", failed)
        harness.send("T", body: "0", keys: "k0")
        try harness.store.commitTick()
        #expect(failed.isSet)
        let image = disk.afterKill()
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        next.settle()
        #expect(next.store.flushedOffset == next.store.writtenOffset)
        try expectDurable(image, 1)
    }

    @Test(arguments: ["consumequeue/T", "index", "commitlog"])
    func ofACheckpointThenKilled(_ part: String) throws {
        var configuration = configuration
        configuration.flushDiskType = .asyncFlush
        configuration.flushIntervalCommitLog = 1_000_000
        configuration.flushCommitLogThoroughInterval = 1_000_000
        _ = try withFailedCheckpoint(part, configuration)
        let image = disk.afterKill()
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        #expect(next.store.notWritable == nil, "no failure is known of: messages are taken at once")
        try send(next, 8..<10)
        next.maintain(20_000)
        try expectDurable(image, 10)
    }

    @Test func ofTheLogThenClosed() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        try send(harness, 0..<5)
        let failed = Flag()
        refuse("commitlog", failed)
        harness.send("T", body: "5", keys: "k5")
        try harness.store.commitTick()
        #expect(failed.isSet)
        try harness.store.close()
        try expectDurable(disk, 6)
    }

    @Test(arguments: ["consumequeue/T", "index"])
    func ofACheckpointThenClosed(_ part: String) throws {
        let harness = try withFailedCheckpoint(part, configuration)
        try harness.store.close()
        try expectDurable(disk, 8)
    }

    /// A flush behind a checkpoint that was refused finds nothing left to synchronize: its success proves nothing.
    @Test func ofACheckpointBeforeAFlush() throws {
        let background = ManualBackground(immediate: false)
        let harness = Harness(configuration, disk: disk, clock: clock, background: background)
        try harness.store.open()
        try send(harness, 0..<5)
        harness.maintain(3000)
        harness.send("T", body: "5", keys: "k5")
        // A checkpoint waits on the flush thread, and the tick's flush behind it.
        harness.store.checkpoint.request()
        for _ in 0..<20 where !harness.store.checkpoint.isRunning {
            harness.store.runMaintenance()
            if !harness.store.checkpoint.isRunning { harness.settle() }
        }
        try #require(harness.store.checkpoint.isRunning)
        let before = harness.store.flushedOffset
        try harness.store.commitTick()
        let failed = Flag()
        refuse("commitlog", failed)
        background.run()
        #expect(failed.isSet)
        harness.loop.run()
        #expect(harness.store.flushedOffset == before && harness.store.notWritable != nil)
        harness.maintain(5000)
        #expect(harness.store.flushedOffset == harness.store.writtenOffset && harness.store.notWritable == nil)
        try expectDurable(disk, 6)
    }
}
