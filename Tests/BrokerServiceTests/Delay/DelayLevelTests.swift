import LinuxSystem
import Testing

@testable import BrokerService

@Suite("delay levels: when, and how far")
struct DelayLevelTests {
    @Test("an entry is due when it says")
    func usual() {
        var level = DelayLevel(delay: 1000)
        #expect(level.due(5000, at: 0, queueEnd: 1, now: 4000) == 5000)
        #expect(level.due(5000, at: 0, queueEnd: 1, now: 9000) == 5000)
    }

    @Test("the clock was set back: what was there goes one delay later, in one go, and never early")
    func clockSetBack() {
        var level = DelayLevel(delay: 1000)
        let first = level.due(100_000, at: 0, queueEnd: 3, now: 50_000)
        #expect(first == 51_000)
        level.advance()
        // The second is not put off once more.
        #expect(level.due(100_100, at: 1, queueEnd: 3, now: 51_000) == 51_000)
        level.advance()
        #expect(level.due(100_200, at: 2, queueEnd: 3, now: 51_000) == 51_000)
        level.advance()
        // One that came later waits from when it was first seen.
        #expect(level.due(100_300, at: 3, queueEnd: 4, now: 51_000) == 52_000)
    }

    @Test("what the log did not take goes again")
    func rollBack() {
        var level = DelayLevel(delay: 1000, offset: 5)
        level.advance()
        level.advance()
        #expect(level.committed == 5)
        level.rollBack()
        #expect(level.next == 5)
        level.advance()
        level.commit()
        #expect(level.committed == 6)
    }

    @Test("the progress record comes back; one from beyond the log's end, a torn or a foreign one does not")
    func progress() throws {
        let folder = TemporaryFolder()
        let file = try DeliveryProgressFile(disk: RealDisk(), storePath: folder.path)
        #expect(try file.load(logEnd: 100) == nil)
        let progress = DeliveryProgress(
            logEnd: 100,
            timer: TimerWheel.Progress(ingested: 7, watermark: TimerKey(due: 1_795_246_565_123, sequence: 3)),
            levels: [1, 2, 3] + [Int64](repeating: 0, count: 14) + [9])
        try file.save(progress)
        #expect(try file.load(logEnd: 100) == progress)
        #expect(try file.load(logEnd: 99) == nil)
        let path = folder.path + "/apus-timer/progress"
        try RealDisk().open(path, .readWrite).truncate(to: 300)
        #expect(try file.load(logEnd: 100) == nil)
        var bytes = [UInt8](repeating: 0, count: DeliveryProgress.size)
        bytes.withUnsafeMutableBytes { progress.encode(into: $0) }
        for index in stride(from: 0, to: bytes.count, by: 7) {
            var damaged = bytes
            damaged[index] ^= 0x10
            #expect(damaged.withUnsafeBytes { DeliveryProgress($0) } == nil)
        }
    }
}
