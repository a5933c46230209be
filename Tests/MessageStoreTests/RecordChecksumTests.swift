import Foundation
import LinuxSystem
import StoreFormat
import StoreJudge
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// Checksums of whole records beside the log: no flipped bit in a record goes unnoticed, and no checksum is ever held
/// against a record it was not made of.
@Suite struct RecordChecksumTests {
    static let rules = {
        var rules = StoreJudge.Rules(log: 64 * 1024, queue: 2000, slots: 500, entries: 2000)
        rules.everyRecordHasSum = true
        return rules
    }()

    // MARK: - Damage

    /// One bit in every byte of a record, one after the other: reported, served around, not delivered.
    @Test(arguments: [false, true])
    func everyByteIsCovered(_ isRebuilt: Bool) throws {
        let store = try ImageStore(rules: Self.rules)
        #expect(try store.flipEveryByte(isRebuilt: isRebuilt) > 130)
    }

    /// Damage in what a start believes is found by the check behind it.
    @Test func theCheckBehindTheStartFindsIt() throws {
        let store = try ImageStore(rules: Self.rules)
        // Flag, sys flag, born time, store time, reconsume times, the properties' text.
        let bytes = [19, 38, 44, 60, 74, store.judge.records[30].size - 5]
        try store.theCheckFinds(flipsAt: bytes, sign: "recordsums")
    }

    /// A flipped bit in a checksum costs its message, reported and not delivered, and none other: which of the two
    /// flipped cannot be known.
    @Test func aFlippedSum() throws {
        let store = try ImageStore(rules: Self.rules)
        let record = store.judge.records[50]
        let (log, at) = store.path(record)
        let image = store.disk.afterKill()
        image.flip(log.replacing("commitlog", with: "recordsums"), byte: at / 64 * 4 + 2, bit: 6)
        let opened = try store.open(image)
        #expect(opened.bodies.count == 199 && !opened.bodies.contains(record.text))
        #expect(opened.log.lines.contains { $0.contains("\(record.physicalOffset)") && $0.contains("damaged") })
    }

    // MARK: - Following the log

    /// Every shape of message, closed, killed, queues rebuilt: the judge computes each checksum by itself.
    @Test(arguments: [0, 1, 2])
    func everyShapeOfRecordHasOne(_ round: UInt64) throws {
        let seed = CrashTests.seed &+ 60 &+ round
        let folder = try TemporaryFolder()
        let path = folder.path + "/store"
        let harness = Harness(.small(path))
        try harness.store.open()
        var writer = StoreWriter(random: SeededGenerator(seed: seed))
        try writer.write(harness, messages: 2000)
        if round == 1 { harness.store.abandon() } else { try harness.store.close() }
        if round != 1 { #expect(try StoreJudge(path, rules: Self.rules).judge() == [], "APUS_SEED=\(seed)") }
        if round == 2 {
            for part in ["consumequeue", "index"] { try FileManager.default.removeItem(atPath: path + "/" + part) }
        }
        let log = LogLines()
        let next = Harness(.small(path), log: log)
        try next.store.open()
        #expect(writer.places.allSatisfy { next.store.lookMessage(at: PhysicalOffset($0)) != nil })
        try writer.write(next, messages: 200)
        next.maintain()
        #expect(next.store.runtimeInformation.checkDamaged == 0 && !log.lines.contains { $0.contains("recordsums") })
        try next.store.close()
        #expect(try StoreJudge(path, rules: Self.rules).judge() == [], "APUS_SEED=\(seed)")
    }

    /// Checksums that were on their way when the machine stopped are made again, and those that were there stay.
    @Test func afterAPowerCut() throws {
        var lacking = 0
        for number in 0..<20 {
            var random = SeededGenerator(seed: CrashTests.seed &+ 300 &+ UInt64(number))
            let clock = TestClock()
            let disk = SimulatedDisk(now: { clock.now })
            var configuration = StoreConfiguration.small("/store")
            configuration.flushDiskType = .syncFlush
            let harness = Harness(configuration, disk: disk, clock: clock)
            try harness.store.open()
            var writer = StoreWriter(random: random)
            try writer.write(harness, messages: 150)
            disk.writeSomeBack(&random)
            let image = disk.afterPowerCut(&random)
            let next = Harness(configuration, disk: image, clock: clock, boot: 2)
            try next.store.open()
            let end = next.store.writtenOffset.rawValue
            let places = writer.places.filter { $0 < end }
            #expect(places.allSatisfy { next.store.lookMessage(at: PhysicalOffset($0)) != nil }, "\(number)")
            try writer.write(next, messages: 20)
            try next.store.close()
            let files = image.paths.map { ($0.replacing("/store/", with: ""), image.bytes($0) ?? []) }
            let judge = StoreJudge(files: Dictionary(uniqueKeysWithValues: files), rules: Self.rules)
            let problems = judge.judge()
            #expect(problems == [], "\(number)")
            lacking += writer.places.count - places.count
        }
        print("messages that were never promised and are gone: \(lacking)")
    }

    /// A store that has none, RocketMQ's or an older release's: what it holds is judged as RocketMQ judges it, what
    /// comes has its checksum.
    @Test func aStoreWithoutSums() throws {
        let store = try ImageStore(settings: { $0.recordSumEnable = false })
        #expect(!store.disk.paths.contains { $0.contains("recordsums") })
        let harness = Harness(.small("/store"), disk: store.disk, clock: store.clock)
        try harness.store.open()
        #expect(harness.bodies("Topic", 0).count == 100)
        harness.send("Topic", 0, body: "next", tags: "t")
        try harness.store.commitTick()
        try harness.store.close()
        let checksums = try #require(store.disk.bytes("/store/recordsums/" + StoreFileName.of(offset: 0)))
        let places = stride(from: 0, to: checksums.count, by: 4).filter {
            checksums[$0..<($0 + 4)].contains { $0 != 0 }
        }
        #expect(places == [store.judge.logEnd / 64 * 4])
    }

    /// With large messages a table is all holes, and with the log's files their tables go.
    @Test func roomOnTheDisk() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/store"
        var configuration = StoreConfiguration.small(path)
        configuration.mappedFileSizeCommitLog = 8 << 20
        configuration.maxMessageSize = 2 << 20
        let harness = Harness(configuration)
        try harness.store.open()
        for _ in 0..<20 {
            harness.send("Topic", 0, body: String(repeating: "x", count: 1 << 20))
            try harness.store.commitTick()
            harness.maintain(100)
        }
        harness.maintain()
        func tables() throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: path + "/recordsums").sorted()
        }
        #expect(try tables() == [0, 8 << 20, 16 << 20].map { StoreFileName.of(offset: $0) })
        for name in try tables() {
            var status = stat()
            #expect(stat(path + "/recordsums/" + name, &status) == 0)
            #expect(status.st_size > 60_000 && status.st_blocks * 512 <= 8 * 4096, "\(name): \(status.st_blocks)")
        }
        #expect(harness.store.deleteOldestFile())
        #expect(try tables() == [8 << 20, 16 << 20].map { StoreFileName.of(offset: $0) })
        try harness.store.close()
        // A table whose log file has gone meanwhile goes with the next start.
        _ = FileManager.default.createFile(atPath: path + "/recordsums/" + StoreFileName.of(offset: 0), contents: nil)
        let next = Harness(configuration)
        try next.store.open()
        #expect(try tables() == [8 << 20, 16 << 20].map { StoreFileName.of(offset: $0) })
        try next.store.close()
    }

    // MARK: - Checksums of another log

    /// RocketMQ cut the log off below its end, wrote on, and gave it back: the checksums are of records that are no
    /// more.
    @Test(arguments: [20, 120, 199])
    func aLogThatWasCutAndGoesOn(_ kept: Int) throws {
        let store = try ImageStore(rules: Self.rules)
        let disk = store.disk
        let old = disk.paths.filter { $0.contains("recordsums") }.map { ($0, disk.bytes($0) ?? []) }
        // Another program that does that knows nothing of the folder.
        disk.removeTree("/store/recordsums")
        let cut = store.judge.records[kept].physicalOffset
        for (number, path) in disk.paths.filter({ $0.contains("commitlog/") }).enumerated() {
            let file = try disk.open(path, .readWrite)
            try file.truncate(to: min(65_536, max(0, Int64(cut - number * 65_536))))
            try file.truncate(to: 65_536)
        }
        disk.removeTree("/store/consumequeue")
        disk.removeTree("/store/index")
        var foreign = store.configuration
        foreign.recordSumEnable = false
        let other = Harness(foreign, disk: disk, clock: store.clock)
        try other.store.open()
        for number in 0..<300 { other.send("Topic", 0, body: "other \(number)", tags: "TagB", unique: "O\(number)") }
        try other.store.commitTick()
        try other.store.close()
        try disk.createDirectory("/store/recordsums")
        for (path, bytes) in old {
            let file = try disk.open(path, .create)
            try bytes.withUnsafeBytes { (bytes) throws in try file.write(bytes, at: 0) }
        }
        let log = LogLines()
        let next = Harness(store.configuration, disk: disk, clock: store.clock, log: log)
        try next.store.open()
        let bodies = next.bodies("Topic", 0) + next.bodies("Topic", 1)
        #expect(bodies.count == kept + 300)
        #expect(log.lines.contains { $0.contains("made for another log") }, "\(log.lines)")
        try next.store.close()
        // Those of the records before the cut stay.
        let files = disk.paths.map { ($0.replacing("/store/", with: ""), disk.bytes($0) ?? []) }
        var rules = Self.rules
        rules.everyRecordHasSum = false
        #expect(StoreJudge(files: Dictionary(uniqueKeysWithValues: files), rules: rules).judge() == [])
        #expect(disk.paths.contains { $0.contains("recordsums") } == (kept == 199))
    }

    // MARK: - A disk that fails

    /// Checksums that cannot be written are made later, all of them; messages do not wait for that.
    @Test(arguments: [ENOSPC, EIO])
    func aFailingDisk(_ code: Int32) throws {
        let clock = TestClock()
        let disk = SimulatedDisk(now: { clock.now })
        let log = LogLines()
        let harness = Harness(.small("/store"), disk: disk, clock: clock, log: log)
        try harness.store.open()
        disk.fault.withLock { $0 = { call, path in call == "pwrite" && path.contains("recordsums") ? code : nil } }
        for number in 0..<50 {
            harness.send("Topic", 0, body: "\(number)")
            try harness.store.commitTick()
        }
        harness.maintain(5000)
        #expect(harness.store.notWritable == nil && harness.bodies("Topic", 0).count == 50)
        #expect(log.lines.filter { $0.contains("record checksums could not be written") }.count == 1, "\(log.lines)")
        disk.fault.withLock { $0 = nil }
        harness.maintain(3000)
        harness.send("Topic", 0, body: "next")
        try harness.store.commitTick()
        try harness.store.close()
        let files = disk.paths.map { ($0.replacing("/store/", with: ""), disk.bytes($0) ?? []) }
        #expect(StoreJudge(files: Dictionary(uniqueKeysWithValues: files), rules: Self.rules).judge() == [])
    }

    /// Checksums that cannot be read are no reason to withhold messages whose bodies are good.
    @Test func unreadableSums() throws {
        let store = try ImageStore(rules: Self.rules)
        let image = store.disk.afterKill()
        let log = LogLines()
        let next = Harness(store.configuration, disk: image, clock: store.clock, log: log)
        try next.store.open()
        image.fault.withLock { $0 = { call, path in call == "pread" && path.contains("recordsums") ? EIO : nil } }
        #expect(next.bodies("Topic", 0).count + next.bodies("Topic", 1).count == 200)
        #expect(log.lines.filter { $0.contains("recordsums failed") }.count == 1, "\(log.lines)")
    }
}
