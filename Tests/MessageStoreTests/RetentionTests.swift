import LinuxSystem
import MessageModel
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// What retention may not delete, and how it gets there all the same.
@Suite struct RetentionTests {
    let disk = SimulatedDisk()
    let clock = TestClock()

    /// Every hour is one of deletion, and a file may go as soon as it is full.
    private var expiring: StoreConfiguration {
        var configuration = StoreConfiguration.small("/store")
        configuration.fileReservedTime = 0
        configuration.deleteWhen = (0..<24).map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: ";")
        return configuration
    }

    /// Messages of 3000 bytes, then an hour.
    private func fill(_ harness: Harness, _ count: Int) throws {
        for number in 0..<count {
            harness.send("T", body: "\(number) " + String(repeating: "r", count: 3000))
            try harness.store.commitTick()
            harness.maintain(100)
        }
        harness.clock.advance(3_600_000)
    }

    @Test func aFileThatIsStillNeededStays() throws {
        let harness = Harness(expiring, disk: disk, clock: clock)
        try harness.store.open()
        // A read waits for the first message of the third file.
        var needed: PhysicalOffset? = PhysicalOffset(2 * 65_536 + 10)
        harness.store.retentionHolds = [RetentionHold("waiting messages", neededFrom: { needed })]
        try fill(harness, 200)
        harness.maintain(60_000)
        #expect(harness.store.minPhysicalOffset.rawValue == 2 * 65_536)
        #expect(!harness.store.deleteOldestFile())
        needed = PhysicalOffset(3 * 65_536)
        harness.maintain(30_000)
        #expect(harness.store.minPhysicalOffset.rawValue == 3 * 65_536)
        needed = nil
        harness.maintain(60_000)
        #expect(harness.store.minPhysicalOffset.rawValue > 4 * 65_536)
        try harness.store.close()
    }

    /// A queue all of whose messages have expired goes on counting where it was, however the broker or the machine
    /// stopped: from 0 its groups would be ahead of it and skip what comes next (found by the time world).
    @Test func anExpiredQueueKeepsItsNumbers() throws {
        let harness = Harness(expiring, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<7 { harness.send("Idle", body: "\(number)") }
        try harness.store.commitTick()
        try fill(harness, 100)
        harness.maintain(120_000)
        harness.maintain(120_000)
        let first = harness.store.minPhysicalOffset.rawValue
        #expect(first >= 2 * 65_536)
        var images = [("kill", disk.afterKill(), UInt8(1))]
        for seed in 0..<20 as Range<UInt64> {
            var random = SeededGenerator(seed: seed)
            images.append(("power cut, seed \(seed)", disk.afterPowerCut(&random), 2))
        }
        var expired = 0
        for (how, image, boot) in images {
            let next = Harness(expiring, disk: image, clock: clock, boot: boot)
            try next.store.open()
            let queue = try #require(next.store.consumeQueue(topic: "Idle", queueID: 0))
            // A power cut may bring deleted files back.
            let isExpired = next.store.minPhysicalOffset.rawValue > 0
            #expect(queue.maxOffset.rawValue == 7 && queue.minOffset.rawValue == (isExpired ? 7 : 0), "\(how)")
            guard case .appended(let result) = next.send("Idle", body: "later") else {
                Issue.record("\(how): refused")
                continue
            }
            #expect(result.queueOffset.rawValue == 7, "\(how)")
            try next.store.commitTick()
            #expect(next.bodies("Idle") == (isExpired ? [] : (0..<7).map { "\($0)" }) + ["later"], "\(how)")
            expired += isExpired ? 1 : 0
            try next.store.close()
        }
        #expect(expired > 10)
    }

    /// Of several holds the oldest counts, and the journal names it.
    @Test func theOldestHoldKeepsTheLog() throws {
        let log = LogLines()
        let harness = Harness(expiring, disk: disk, clock: clock, log: log)
        try harness.store.open()
        harness.store.retentionHolds = [
            RetentionHold("young messages", neededFrom: { PhysicalOffset(5 * 65_536) }),
            RetentionHold("old messages", neededFrom: { PhysicalOffset(2 * 65_536 + 10) }),
            RetentionHold("no messages", neededFrom: { nil }),
        ]
        try fill(harness, 200)
        harness.maintain(60_000)
        #expect(harness.store.minPhysicalOffset.rawValue == 2 * 65_536)
        #expect(log.lines.filter { $0.contains("but old messages at \(2 * 65_536 + 10)") }.count == 1, "\(log.lines)")
        #expect(!log.lines.contains { $0.contains("young messages") })
        try harness.store.close()
    }

    /// The new beginning of a queue is found by halving. An entry that points nowhere near its message does not take
    /// good messages along.
    @Test(arguments: [Int64(5), 1 << 40])
    func aDamagedEntryDoesNotExpireOthers(_ wrong: Int64) throws {
        let harness = Harness(expiring, disk: disk, clock: clock)
        try harness.store.open()
        harness.store.retentionHolds = [RetentionHold("waiting messages", neededFrom: { PhysicalOffset(0) })]
        try fill(harness, 200)
        let before = harness.bodies("T").map { $0.prefix { $0 != " " } }
        #expect(before.count == 200)
        harness.maintain(5000)
        try harness.store.close()
        // The entry in the middle of the queue, looked at first.
        let file = try disk.open("/store/consumequeue/T/0/" + StoreFileName.of(offset: 2000), .readWrite)
        try withUnsafeBytes(of: wrong.bigEndian) { try file.write($0, at: 0) }
        let next = Harness(expiring, disk: disk, clock: clock)
        try next.store.open()
        next.store.retentionHolds = [RetentionHold("waiting messages", neededFrom: { PhysicalOffset(65_536) })]
        next.maintain(120_000)
        let first = next.store.minPhysicalOffset.rawValue
        #expect(first == 65_536)
        let left = next.bodies("T").map { $0.prefix { $0 != " " } }
        // An entry behind the log's end is seen by the start, and made anew.
        #expect(left == before.filter { (Int($0) ?? 0) >= 21 && (wrong > 5 || $0 != "100") })
        try next.store.close()
    }

    /// A full disk costs messages whose time is not over: an error that says how many, of how many topics, and what to
    /// do. It was one line of no importance with a number of files.
    @Test func messagesAFullDiskCostsAreCounted() throws {
        var configuration = StoreConfiguration.small("/store")
        configuration.fileReservedTime = 72
        let log = LogLines()
        let clock = clock
        let disk = SimulatedDisk(now: { clock.now })
        let harness = Harness(configuration, disk: disk, clock: clock, log: log)
        try harness.store.open()
        for number in 0..<120 {
            harness.send(number % 3 == 0 ? "Third" : "Others", body: String(repeating: "r", count: 3000))
            try harness.store.commitTick()
            harness.maintain(100)
        }
        let before = harness.bodies("Third").count + harness.bodies("Others").count
        #expect(before == 120 && log.lines.isEmpty)
        disk.capacity.withLock { $0 = 400 * 1024 }
        var full = StoreConfiguration.small("/store")
        full.diskSpaceCleanForciblyRatio = 0.5
        try harness.store.close()
        full.fileReservedTime = 72
        let next = Harness(full, disk: disk, clock: clock, log: log)
        try next.store.open()
        for _ in 0..<5 {
            next.clock.advance(20_000)
            next.maintain(100)
        }
        let left = next.bodies("Third").count + next.bodies("Others").count
        #expect(left < before)
        let errors = log.lines.filter { $0.contains("before their time was over") }
        let lost = errors.compactMap { $0.split(separator: " ").dropFirst().first.flatMap { Int($0) } }.reduce(0, +)
        #expect(lost == before - left, "\(errors)")
        #expect(
            errors.first?.contains("of 2 topics") == true && errors.first?.contains("cleanFileForciblyEnable") == true)
        // Each of them is an error and names the topics.
        let named = log.errors.filter { $0.line.contains("before their time was over") }.map { "\($0.metadata)" }
        #expect(named.count == errors.count && named.first?.contains("Others Third") == true, "\(named)")
        try next.store.close()
    }

    /// A disk that is too full is known when the store opens: what is sent before the first maintenance is refused
    /// too.
    @Test func fullDiskIsKnownAtTheStart() throws {
        var configuration = StoreConfiguration.small("/store")
        configuration.diskReservedBytes = 100 * 1024
        disk.capacity.withLock { $0 = 90 * 1024 }
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        guard case .diskFull(let remark) = harness.store.notWritable else {
            Issue.record("taken: \(harness.store.notWritable.map { "\($0)" } ?? "writable")")
            return
        }
        #expect(remark.contains("diskReservedBytes"))
        disk.capacity.withLock { $0 = 1000 * 1024 }
        harness.clock.advance(1100)
        harness.maintain(100)
        #expect(harness.store.notWritable == nil)
        try harness.store.close()
    }

    /// A disk above the warning level refuses senders, says what holds the log, and takes the waiting messages that let
    /// go of it.
    @Test func waitingMessagesMayUseTheReserve() throws {
        var configuration = StoreConfiguration.small("/store")
        configuration.diskReservedBytes = 100 * 1024
        disk.capacity.withLock { $0 = 1000 * 1024 }
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        var needed: PhysicalOffset? = PhysicalOffset(0)
        harness.store.retentionHolds = [RetentionHold("waiting messages", neededFrom: { needed })]
        var number = 0
        while harness.store.notWritable == nil, number < 2000 {
            harness.send("T", body: String(repeating: "r", count: 3000))
            try harness.store.commitTick()
            harness.clock.advance(10_000)
            harness.maintain(100)
            number += 1
        }
        guard case .diskFull(let remark) = harness.store.notWritable else {
            Issue.record("not full after \(number)")
            return
        }
        #expect(remark.contains("diskReservedBytes"))
        harness.clock.advance(11_000)
        harness.maintain(100)
        guard case .diskFull(let later) = harness.store.notWritable else {
            Issue.record("the held files were deleted")
            return
        }
        #expect(later.contains("hold the log from 0 on"), "\(later)")
        #expect(harness.store.minPhysicalOffset.rawValue == 0)
        // A delivery goes on; then the log is let go and all are served again.
        let topic = Array("T".utf8)
        let outcome = topic.withUnsafeBytes { topic in
            var draft = MessageDraft(
                topic: topic, queueID: 0, bornHost: HostAddress(ipv4: 1, port: 1),
                storeHost: HostAddress(ipv4: 1, port: 1), body: UnsafeRawBufferPointer(start: nil, count: 0))
            draft.mayUseReserve = true
            return harness.store.append(draft)
        }
        guard case .appended = outcome else {
            Issue.record("\(outcome)")
            return
        }
        try harness.store.commitTick()
        needed = nil
        for _ in 0..<3 {
            harness.clock.advance(10_000)
            harness.maintain(1100)
        }
        #expect(harness.store.minPhysicalOffset.rawValue > 0)
        #expect(harness.store.notWritable == nil)
        try harness.store.close()
    }
}
