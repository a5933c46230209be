import Foundation
import LinuxSystem
import StoreFormat
import StoreJudge
import TestDisk
import Testing

@testable import MessageStore

/// One flipped bit in each kind of file, field by field: said in the log, served around, never delivered as good. What
/// no checksum of RocketMQ's covers without `enabledAppendPropCRC` is in `PropCRCTests`.
@Suite struct FlippedBitsTests {
    let made: ImageStore

    init() throws { made = try ImageStore() }

    private var disk: SimulatedDisk { made.disk }
    private var judge: StoreJudge { made.judge }
    private var everything: Set<String> { made.everything }

    /// Where a field of a record lies (IPv4 hosts), and whether it tells of itself that it flipped.
    static let fields: [(name: String, at: @Sendable (LogRecord) -> Int)] = [
        ("total size", { _ in 3 }), ("magic", { _ in 6 }), ("body CRC", { _ in 10 }), ("queue id", { _ in 15 }),
        ("queue offset", { _ in 27 }), ("physical offset", { _ in 34 }), ("body length", { _ in 87 }),
        ("body", { _ in 90 }), ("topic length", { 88 + $0.body.count }), ("topic", { 90 + $0.body.count }),
        ("properties length", { 88 + $0.body.count + 1 + 5 + 1 }),
    ]

    @Test(arguments: [0, 1, 7], [false, true])
    func aRecord(_ bit: Int, _ isRebuilt: Bool) throws {
        let record = judge.records[77]
        let (path, at) = made.path(record)
        for (name, place) in Self.fields {
            let image = disk.afterKill()
            image.flip(path, byte: at + place(record), bit: bit)
            // Met when it is read, or on the way when queues are made anew.
            if isRebuilt { image.removeTree("/store/consumequeue") }
            let opened = try made.open(image)
            #expect(!opened.bodies.contains { !everything.contains($0) }, "\(name): something else was delivered")
            #expect(!opened.bodies.contains(record.text), "\(name): the damaged message was delivered as good")
            #expect(opened.bodies.count == 199, "\(name): \(opened.bodies.count) of the other 199")
            #expect(!opened.log.lines.isEmpty, "\(name): nothing was said")
            #expect(
                opened.harness.store.lookMessage(at: PhysicalOffset(Int64(record.physicalOffset))) == nil
                    || ["queue id", "queue offset", "topic"].contains(name), "\(name): shown by its id")
            // The store goes on.
            guard case .appended = opened.harness.send("Topic", body: "next") else {
                Issue.record("\(name): refused")
                return
            }
            try opened.harness.store.commitTick()
        }
    }

    @Test(arguments: [false, true])
    func aQueueEntry(_ afterKill: Bool) throws {
        // Entry 20 of queue 0, in its first file.
        let path = "/store/consumequeue/Topic/0/" + StoreFileName.of(offset: 0)
        for byte in [2, 5, 7, 8, 11] {
            for bit in [0, 3, 7] {
                let image = disk.afterKill()
                image.flip(path, byte: 20 * 20 + byte, bit: bit)
                let opened = try made.open(image, afterKill: afterKill)
                #expect(Set(opened.bodies).isSubset(of: everything))
                #expect(
                    opened.bodies.count == 199 || opened.bodies.count == 200, "\(byte).\(bit): \(opened.bodies.count)")
                #expect(Set(opened.bodies).count == opened.bodies.count, "\(byte).\(bit): one was delivered twice")
                // A negative size or offset looks like the queue's end: then it was made anew.
                #expect(!opened.log.lines.isEmpty, "\(byte).\(bit): nothing was said")
            }
        }
    }

    /// An entry's offset before the log's beginning or far behind its end, in a file the start does not look into:
    /// reading it stopped the broker, again and again (found by fuzzing).
    @Test(arguments: [0, 1, 149, 150, 199], [Int64.min, Int64.min + 4711, -1, Int64.max - 10, Int64.max])
    func anImpossibleEntry(_ place: Int, _ offset: Int64) throws {
        let disk = SimulatedDisk()
        let harness = Harness(made.configuration, disk: disk, clock: TestClock())
        try harness.store.open()
        for number in 0..<250 { harness.send("T", body: "\(number)") }
        try harness.store.commitTick()
        harness.maintain(5000)
        try harness.store.close()
        let number = place / 100
        let path = "/store/consumequeue/T/0/" + StoreFileName.of(offset: Int64(number) * 2000)
        let file = try disk.open(path, .readWrite)
        try withUnsafeBytes(of: offset.bigEndian) { try file.write($0, at: Int64(place % 100 * 20)) }
        let next = Harness(made.configuration, disk: disk, clock: TestClock())
        try next.store.open()
        let others = (0..<250).filter { $0 != place }.map { "\($0)" }
        #expect(next.bodies("T") == others)
        let queue = try #require(next.store.consumeQueue(topic: "T", queueID: 0))
        let bitmap = [UInt8](repeating: 0xFF, count: 32)
        var ranges: [LogRange] = []
        let result = next.store.selectMessages(
            queue, from: queue.minOffset, verdicts: EntryVerdicts(start: 0, count: 250, bitmap: bitmap), maxCount: 250,
            into: &ranges)
        #expect(result.status == .found && result.messageCount > 0)
        try next.store.close()
    }

    @Test func theIndex() throws {
        let path = try #require(disk.paths.first { $0.hasPrefix("/store/index/") })
        let entry = 40 + 4 * 500 + 20 * 100
        var random = SeededGenerator(seed: CrashTests.seed)
        let places =
            (0..<40).map { $0 } + (0..<20).map { entry + $0 }
            + (0..<60).map { _ in Int.random(in: 40..<2040, using: &random) }
        for byte in places {
            for afterKill in [false, true] {
                let image = disk.afterKill()
                image.flip(path, byte: byte, bit: Int.random(in: 0..<8, using: &random))
                let opened = try made.open(image, afterKill: afterKill)
                #expect(opened.bodies.count == 200)
                var missing = 0
                for number in 0..<200 {
                    for key in ["U\(number)", "k\(number)"] {
                        let found = opened.harness.store.queryMessage(
                            topic: "Topic", key: key, maxCount: 32, begin: 0, end: .max)
                        if found.records.isEmpty { missing += 1 }
                        for range in found.records {
                            let text = opened.harness.store.withBytes(range) { try? StoreJudge.record(Array($0)).text }
                            #expect(text??.hasPrefix("\(number) ") == true, "\(byte): \(key) finds another message")
                        }
                    }
                }
                // A slot or an entry costs the keys of its chain; a header the file, which is made anew.
                #expect(missing <= 12, "\(byte): \(missing) of 400 keys are not found")
            }
        }
    }

    @Test func checkpointAndRecoveryPoint() throws {
        for (path, places) in [
            ("/store/checkpoint", Array(0..<24)),
            ("/store/consumequeue/.apus-recovery", [0, 4096, 8192].flatMap { start in (0..<128).map { start + $0 } }),
        ] {
            for byte in places where byte < disk.bytes(path)?.count ?? 0 {
                for afterKill in [false, true] {
                    let image = disk.afterKill()
                    image.flip(path, byte: byte, bit: byte % 8)
                    let opened = try made.open(image, afterKill: afterKill)
                    #expect(Set(opened.bodies) == everything && opened.bodies.count == 200, "\(path) \(byte)")
                    let found = opened.harness.store.queryMessage(
                        topic: "Topic", key: "U150", maxCount: 9, begin: 0, end: .max)
                    #expect(found.records.count == 1, "\(path) \(byte)")
                }
            }
        }
    }
}
