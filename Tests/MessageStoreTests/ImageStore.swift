import Foundation
import LinuxSystem
import StoreFormat
import StoreJudge
import TestDisk
import Testing

@testable import MessageStore

/// A closed store of 200 messages in two queues on a simulated disk, and the judge's knowledge of where everything
/// lies: what tests damage.
struct ImageStore {
    let clock: TestClock
    let disk: SimulatedDisk
    let configuration: StoreConfiguration
    let judge: StoreJudge

    init(
        settings: (inout StoreConfiguration) -> Void = { _ in },
        rules: StoreJudge.Rules = StoreJudge.Rules(log: 64 * 1024, queue: 2000, slots: 500, entries: 2000)
    ) throws {
        var configuration = StoreConfiguration.small("/store")
        settings(&configuration)
        let clock = TestClock()
        let disk = SimulatedDisk(now: { clock.now })
        self.clock = clock
        self.disk = disk
        self.configuration = configuration
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
        let judge = StoreJudge(files: Dictionary(uniqueKeysWithValues: files), rules: rules)
        #expect(judge.judge() == [])
        self.judge = judge
    }

    struct Opened {
        var harness: Harness
        var log: LogLines
        var bodies: [String]
    }

    /// Opens an image, reads everything, and once more after the check behind the start.
    func open(_ image: SimulatedDisk, afterKill: Bool = false) throws -> Opened {
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

    /// Damage where the recovery point is trusted is found by the check behind a start: one bit in each of these bytes
    /// of message 30, one after the other. `sign`: what the log says of it.
    func theCheckFinds(flipsAt bytes: [Int], sign: String) throws {
        let (path, at) = self.path(judge.records[30])
        for byte in bytes {
            let image = disk.afterKill()
            image.flip(path, byte: at + byte, bit: 0)
            _ = try image.open("/store/abort", .create)
            let log = LogLines()
            let next = Harness(configuration, disk: image, clock: clock, log: log)
            try next.store.open()
            next.maintain(3000)
            let information = next.store.runtimeInformation
            #expect(information.checkRemainingBytes == 0 && information.checkDamaged == 1, "\(byte)")
            #expect(log.lines.contains { $0.contains(sign) }, "\(byte): \(log.lines)")
            #expect(next.bodies("Topic", 0).count + next.bodies("Topic", 1).count == 199, "\(byte)")
        }
    }

    /// One bit in every byte of message 77, one after the other: reported, served around, not delivered. Returns how
    /// many bytes were flipped.
    func flipEveryByte(isRebuilt: Bool) throws -> Int {
        let record = judge.records[77]
        let (path, at) = self.path(record)
        var met = 0
        for byte in 0..<record.size {
            // A body of x after x proves nothing after its first bytes.
            if byte > 96, byte < 80 + record.body.count { continue }
            let image = disk.afterKill()
            image.flip(path, byte: at + byte, bit: (byte * 5 + byte / 8) % 8)
            if isRebuilt { image.removeTree("/store/consumequeue") }
            let opened = try open(image)
            #expect(!opened.bodies.contains { !everything.contains($0) }, "\(byte): something else")
            #expect(!opened.bodies.contains(record.text), "\(byte): the damaged message was delivered as good")
            #expect(opened.bodies.count == 199, "\(byte): \(opened.bodies.count) of the other 199")
            #expect(!opened.log.lines.isEmpty, "\(byte): nothing was said")
            #expect(
                opened.harness.store.lookMessage(at: PhysicalOffset(Int64(record.physicalOffset))) == nil,
                "\(byte): shown by its id")
            let found = opened.harness.store.queryMessage(topic: "Topic", key: "U77", maxCount: 9, begin: 0, end: .max)
            #expect(found.records.isEmpty, "\(byte): shown by its key")
            met += 1
        }
        return met
    }

    /// All bodies.
    var everything: Set<String> { Set(judge.records.map(\.text)) }

    /// The log file of a record, and where in it.
    func path(_ record: LogRecord) -> (path: String, at: Int) {
        let base = record.physicalOffset / 65_536 * 65_536
        return ("/store/commitlog/" + StoreFileName.of(offset: Int64(base)), record.physicalOffset - base)
    }
}
