import Foundation
import LinuxSystem
import StoreFormat
import StoreJudge
import Testing

@testable import MessageStore

/// One flipped bit in each kind of file, field by field: said in the log, served around, never delivered as good.
@Suite struct FlippedBitsTests {
    let clock = TestClock()
    let disk: SimulatedDisk
    let configuration = StoreConfiguration.small("/store")
    let judge: StoreJudge

    /// A closed store of 200 messages in two queues, and the judge's knowledge of where everything lies.
    init() throws {
        let clock = clock
        let disk = SimulatedDisk(now: { clock.now })
        self.disk = disk
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<200 {
            harness.send(
                "Topic", Int32(number % 2), body: "\(number) " + String(repeating: "body", count: 10 + number % 50),
                tags: "TagA", keys: "k\(number)", unique: "U\(number)")
            try harness.store.commitTick()
            clock.advance(10)
        }
        harness.maintain(5000)
        try harness.store.close()
        let files = disk.paths.map { ($0.replacing("/store/", with: ""), disk.bytes($0) ?? []) }
        let judge = StoreJudge(
            files: Dictionary(uniqueKeysWithValues: files),
            rules: StoreJudge.Rules(log: 64 * 1024, queue: 2000, slots: 500, entries: 2000))
        #expect(judge.judge() == [])
        self.judge = judge
    }

    private struct Opened {
        var harness: Harness
        var log: LogLines
        var bodies: [String]
    }

    private func open(_ image: SimulatedDisk, afterKill: Bool = false) throws -> Opened {
        let log = LogLines()
        if afterKill { _ = try image.open("/store/abort", .create) }
        let next = Harness(configuration, disk: image, clock: clock, log: log)
        try next.store.open()
        let bodies = next.bodies("Topic", 0) + next.bodies("Topic", 1)
        // What is checked behind the start is read by other rules, and queue entries are put right: nothing gets worse.
        next.maintain(5000)
        let later = next.bodies("Topic", 0) + next.bodies("Topic", 1)
        #expect(
            Set(later).isSuperset(of: bodies) && Set(later).isSubset(of: everything) && Set(later).count == later.count)
        return Opened(harness: next, log: log, bodies: bodies)
    }

    private var everything: Set<String> { Set(judge.records.map(\.text)) }

    private func path(_ record: LogRecord) -> (path: String, at: Int) {
        let base = record.physicalOffset / 65_536 * 65_536
        return ("/store/commitlog/" + StoreFileName.of(offset: Int64(base)), record.physicalOffset - base)
    }

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
        let (path, at) = path(record)
        for (name, place) in Self.fields {
            let image = disk.afterKill()
            image.flip(path, byte: at + place(record), bit: bit)
            // Met when it is read, or on the way when queues are made anew.
            if isRebuilt { image.removeTree("/store/consumequeue") }
            let opened = try open(image)
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
                let opened = try open(image, afterKill: afterKill)
                #expect(Set(opened.bodies).isSubset(of: everything))
                #expect(
                    opened.bodies.count == 199 || opened.bodies.count == 200, "\(byte).\(bit): \(opened.bodies.count)")
                #expect(Set(opened.bodies).count == opened.bodies.count, "\(byte).\(bit): one was delivered twice")
                // A negative size or offset looks like the queue's end: then it was made anew.
                #expect(!opened.log.lines.isEmpty, "\(byte).\(bit): nothing was said")
            }
        }
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
                let opened = try open(image, afterKill: afterKill)
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
                    let opened = try open(image, afterKill: afterKill)
                    #expect(Set(opened.bodies) == everything && opened.bodies.count == 200, "\(path) \(byte)")
                    let found = opened.harness.store.queryMessage(
                        topic: "Topic", key: "U150", maxCount: 9, begin: 0, end: .max)
                    #expect(found.records.count == 1, "\(path) \(byte)")
                }
            }
        }
    }
}
