import Foundation
import LinuxSystem
import StoreFormat
import StoreJudge
import TestDisk
import Testing

@testable import MessageStore

/// Zeros and garbage behind the last recovery point, where the log's end is looked for: what is damage, what is the
/// end.
@Suite struct DamagedTailTests {
    let clock = TestClock()
    let disk: SimulatedDisk
    var configuration = StoreConfiguration.small("/store")
    private static let log = "/store/commitlog/" + StoreFileName.of(offset: 0)

    init() {
        let clock = clock
        disk = SimulatedDisk(now: { clock.now })
    }

    /// Sends and answers where each message lies.
    private func send(_ harness: Harness, _ numbers: Range<Int>) throws -> [Range<Int64>] {
        var places: [Range<Int64>] = []
        for number in numbers {
            guard
                case .appended(let result) = harness.send(
                    "T", Int32(number % 2), body: "\(number) " + String(repeating: "b", count: 100),
                    unique: "U\(number)")
            else {
                Issue.record("\(number) was refused")
                continue
            }
            places.append(result.physicalOffset.rawValue..<result.end.rawValue)
            try harness.store.commitTick()
            harness.settle()
        }
        return places
    }

    private func numbers(_ harness: Harness) -> [Int] {
        (harness.bodies("T", 0) + harness.bodies("T", 1)).compactMap { Int($0.prefix { $0 != " " }) }.sorted()
    }

    private func makeZero(_ image: SimulatedDisk, _ range: Range<Int64>) throws {
        let zeros = [UInt8](repeating: 0, count: range.count)
        try zeros.withUnsafeBytes { try image.open(Self.log, .readWrite).write($0, at: range.lowerBound) }
    }

    /// A killed process wrote in order: a lost block costs what lay in it, and nothing behind it comes back later as
    /// something else.
    @Test(arguments: [1, 3])
    func zerosAreSteppedOverAfterAKill(_ lost: Int) throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        _ = try send(harness, 0..<5)
        harness.maintain(3000)
        let places = try send(harness, 5..<25)
        let image = disk.afterKill()
        try makeZero(image, places[6].lowerBound..<places[6 + lost - 1].upperBound)
        let left = (0..<25).filter { $0 < 11 || $0 >= 11 + lost }
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        #expect(numbers(next) == left)
        _ = try send(next, 25..<28)
        #expect(numbers(next) == left + [25, 26, 27])
        for boot: UInt8 in [1, 1, 1] {
            let again = Harness(configuration, disk: image.afterKill(), clock: clock, boot: boot)
            try again.store.open()
            #expect(numbers(again) == left + [25, 26, 27])
        }
    }

    /// Bytes behind the end that are no message become zeros before anything is written, whatever is found there.
    @Test func garbageIsCutOff() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        _ = try send(harness, 0..<5)
        harness.maintain(3000)
        let end = harness.store.writtenOffset.rawValue
        let image = disk.afterKill()
        let garbage = [UInt8](repeating: 0xA5, count: 300)
        try garbage.withUnsafeBytes { try image.open(Self.log, .readWrite).write($0, at: end + 2000) }
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        #expect(next.store.writtenOffset.rawValue == end)
        let bytes = try #require(image.bytes(Self.log))
        #expect(bytes.count == 64 * 1024 && bytes[Int(end)...].allSatisfy { $0 == 0 })
        _ = try send(next, 5..<40)
        let again = Harness(configuration, disk: image.afterKill(), clock: clock)
        try again.store.open()
        #expect(numbers(again) == Array(0..<40))
    }

    /// After a power cut zeros are the end, but never below what the last pass noted down as synchronized: those
    /// messages were promised.
    @Test func promisedMessagesBehindZerosSurviveAPowerCut() throws {
        var configuration = configuration
        configuration.flushDiskType = .syncFlush
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        _ = try send(harness, 0..<5)
        harness.maintain(3000)
        let hard = harness.store.checkpoint.dispatched
        let places = try send(harness, 5..<25)
        harness.maintain(2000)
        #expect(harness.store.checkpoint.dispatched == hard, "a checkpoint came too early for this test")
        // All was written back before the power went, and one block is lost.
        let image = disk.afterKill()
        try makeZero(image, places[6])
        let next = Harness(configuration, disk: image, clock: clock, boot: 2)
        try next.store.open()
        #expect(numbers(next) == (0..<25).filter { $0 != 11 })
    }

    /// The log's last messages are gone and an entry in the middle of a queue is damaged: the queue ends behind its
    /// last message all the same. It was cut at the damaged entry, and its next message got the number of one that lies
    /// in the log.
    @Test func aDamagedEntryDoesNotTakeThoseBehindItAlong() throws {
        let made = try ImageStore()
        let image = made.disk.afterKill()
        let end = Int64(made.judge.records[140].physicalOffset)
        let kept = made.judge.records[..<140].filter { $0.queueID == 0 }.count
        let log = try image.open("/store/commitlog/" + StoreFileName.of(offset: 0), .readWrite)
        try log.truncate(to: end)
        try log.truncate(to: 65_536)
        try image.remove("/store/consumequeue/.apus-recovery")
        // Where a search by halves looks first.
        image.flip("/store/consumequeue/Topic/0/" + StoreFileName.of(offset: 0), byte: 50 * 20, bit: 6)
        let next = Harness(made.configuration, disk: image, clock: made.clock)
        try next.store.open()
        #expect(next.store.consumeQueue(topic: "Topic", queueID: 0)?.maxOffset.rawValue == Int64(kept))
        #expect(next.bodies("Topic", 0).count == kept - 1)
        try next.store.close()
    }

    /// The last entry of a queue points behind the log, though its message lies there: its number is not given to
    /// another one.
    @Test(arguments: [false, true])
    func aLastEntryThatPointsBehindTheLogIsMadeAnew(withPoint: Bool) throws {
        let made = try ImageStore()
        let image = made.disk.afterKill()
        if !withPoint { try image.remove("/store/consumequeue/.apus-recovery") }
        image.flip("/store/consumequeue/Topic/0/" + StoreFileName.of(offset: 0), byte: 99 * 20 + 2, bit: 6)
        let next = Harness(made.configuration, disk: image, clock: made.clock)
        try next.store.open()
        #expect(next.store.consumeQueue(topic: "Topic", queueID: 0)?.maxOffset.rawValue == 100)
        #expect(next.bodies("Topic", 0).count == 100)
        guard case .appended(let result) = next.send("Topic", 0, body: "later") else {
            Issue.record("refused")
            return
        }
        #expect(result.queueOffset.rawValue == 100)
        try next.store.close()
    }

    /// A record without properties ends with zeros, which may begin a block of the disk: no write that a power cut
    /// tore.
    @Test func messagesWithoutPropertiesAreWhole() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        var bodies: [String] = []
        // The end of each record lies at another place of a block.
        for number in 0..<600 {
            bodies.append("\(number) " + String(repeating: "b", count: 300 + number % 7))
            harness.send("T", body: bodies[number])
            try harness.store.commitTick()
        }
        let ends = harness.records("T").map { ($0.physicalOffset + $0.total) % 512 }
        #expect(ends.contains(1) && ends.contains(2))
        let next = Harness(configuration, disk: disk.afterKill(), clock: clock, boot: 7)
        try next.store.open()
        #expect(next.bodies("T") == bodies)
        try next.store.close()
    }

    /// RocketMQ's store after a power cut: what its checkpoint covers is trusted, and an entry that is damaged
    /// there does not end its queue.
    @Test(arguments: [0, 95, 98, 99], [false, true])
    func aDamagedEntryWhereTheCheckpointIsBelieved(_ place: Int, theOneBeforeToo: Bool) throws {
        let made = try ImageStore()
        let image = made.disk.afterKill()
        let idle = Harness(made.configuration, disk: image, clock: made.clock)
        try idle.store.open()
        // Fills another file: the checkpoint covers the first one, where all messages of `Topic` lie.
        for number in 0..<60 {
            idle.send("Other", body: "\(number) " + String(repeating: "o", count: 3000))
            try idle.store.commitTick()
            idle.maintain(100)
        }
        idle.maintain(5000)
        try idle.store.close()
        _ = try image.open("/store/abort", .create)
        try image.remove("/store/consumequeue/.apus-recovery")
        image.flip("/store/consumequeue/Topic/0/" + StoreFileName.of(offset: 0), byte: place * 20 + 2, bit: 6)
        if theOneBeforeToo, place > 0 {
            // It points into the middle of a record.
            image.flip("/store/consumequeue/Topic/0/" + StoreFileName.of(offset: 0), byte: place * 20 - 13, bit: 0)
        }
        let next = Harness(made.configuration, disk: image, clock: made.clock, boot: 7)
        try next.store.open()
        #expect(next.store.consumeQueue(topic: "Topic", queueID: 0)?.maxOffset.rawValue == 100)
        next.maintain(5000)
        #expect(next.bodies("Topic", 0).count == 100)
        #expect(next.bodies("Topic", 1).count == 100)
        #expect(next.bodies("Other").count == 60)
        try next.store.close()
    }
}
