import Foundation
import LinuxSystem
import StoreFormat
import StoreJudge
import TestDisk
import Testing

@testable import MessageStore

/// Directories Apache wrote and directories we wrote before the same judge, which shares no code with the store.
@Suite struct JudgeTests {
    static let apache = StoreJudge.Rules(log: 1_048_576, queue: 2000, slots: 500, entries: 2000)
    static let apache5 = StoreJudge.Rules(log: 67_108_864, queue: 60_000, slots: 5000, entries: 20_000)

    enum Golden: String, CaseIterable, CustomTestStringConvertible {
        case clean, killed, store5

        var testDescription: String { rawValue }

        func unpack(_ folder: TemporaryFolder) throws -> String {
            switch self {
            case .clean: try folder.unpack("golden-4.9.8-clean.tar.gz", folder: "golden-clean")
            case .killed: try folder.unpack("golden-4.9.8-killed.tar.gz", folder: "golden-killed")
            case .store5: try folder.unpack("golden-5.3.3.tar.gz", folder: "store-cap5")
            }
        }

        var rules: StoreJudge.Rules {
            var rules = self == .store5 ? apache5 : apache
            rules.isClean = self != .killed
            // mqadmin deleted it while the messages were in the log.
            rules.deletedQueues = ["AdmTopic/3"]
            return rules
        }

        func configuration(_ path: String) -> StoreConfiguration { self == .store5 ? .golden5(path) : .golden(path) }
    }

    /// First of all the judge itself: it accepts what Apache wrote.
    @Test(arguments: Golden.allCases)
    func apachesStoresPass(_ golden: Golden) throws {
        let folder = try TemporaryFolder()
        let judge = try StoreJudge(try golden.unpack(folder), rules: golden.rules)
        #expect(judge.judge() == [])
        #expect(judge.records.count > 500 && judge.keys.count > 500 && judge.queues.count > 20)
        if golden != .store5 { #expect(judge.blanks == 1) }
    }

    /// … and objects to every planted fault.
    @Test func theJudgeObjects() throws {
        let folder = try TemporaryFolder()
        let root = try Golden.clean.unpack(folder)
        let index = try #require(try FileManager.default.contentsOfDirectory(atPath: root + "/index").first)
        let good = try StoreJudge(root, rules: Golden.clean.rules)
        good.judge()
        let newest = try #require(good.records.last)
        let entryOne = 40 + 4 * 500 + 20
        let places: [(String, Int, UInt8)] = [
            ("commitlog/00000000000000000000", 5, 1),
            ("commitlog/00000000000000000000", 15, 1),
            ("commitlog/00000000000000000000", 30, 1),
            ("commitlog/00000000000000000000", 90, 1),
            ("commitlog/00000000000001048576", newest.physicalOffset - 1_048_576 + newest.size + 100, 1),
            ("consumequeue/GoldenNormal/1/00000000000000000000", 7, 4),
            ("consumequeue/GoldenNormal/1/00000000000000000000", 11, 1),
            ("consumequeue/GoldenNormal/1/00000000000000000000", 19, 1),
            ("consumequeue/GoldenNormal/1/00000000000000000000", 1999, 1),
            ("index/\(index)", 7, 1), ("index/\(index)", 15, 1), ("index/\(index)", 31, 1), ("index/\(index)", 35, 1),
            ("index/\(index)", 39, 1), ("index/\(index)", entryOne + 3, 1), ("index/\(index)", entryOne + 11, 1),
            ("index/\(index)", entryOne + 20 + 15, 1), ("index/\(index)", entryOne + 19, 4),
            ("index/\(index)", 42_039, 1),
            ("checkpoint", 0, 1), ("checkpoint", 4095, 1), ("lock", 0, 1),
        ]
        for (path, byte, bits) in places {
            let url = URL(fileURLWithPath: root + "/" + path)
            let bytes = try Data(contentsOf: url)
            var bad = bytes
            bad[byte] ^= bits
            try bad.write(to: url)
            #expect(!(try StoreJudge(root, rules: Golden.clean.rules).judge().isEmpty), "\(path) \(byte)")
            try bytes.write(to: url)
        }
        for path in ["consumequeue/GoldenMany/0/00000000000000002000", "index/\(index)", "checkpoint"] {
            try FileManager.default.moveItem(atPath: root + "/" + path, toPath: folder.path + "/aside")
            #expect(!(try StoreJudge(root, rules: Golden.clean.rules).judge().isEmpty), "\(path) is missing")
            try FileManager.default.moveItem(atPath: folder.path + "/aside", toPath: root + "/" + path)
        }
    }

    /// Everything in a store of Apache's is found by queue, by offset id, by unique key, by key within its time and by
    /// time: the judge says what there is.
    @Test(arguments: Golden.allCases)
    func everythingIsFoundEveryWay(_ golden: Golden) throws {
        let folder = try TemporaryFolder()
        let root = try golden.unpack(folder)
        let judge = try StoreJudge(root, rules: golden.rules)
        judge.judge()
        let harness = Harness(golden.configuration(root))
        try harness.store.open()
        defer { try? harness.store.close() }
        let store = harness.store
        var checked = (queue: 0, unique: 0, keys: 0)
        for record in judge.records {
            let place = PhysicalOffset(Int64(record.physicalOffset))
            let range = try #require(store.lookMessage(at: place), "\(place)")
            #expect(range.length == record.size)
            #expect(try store.withBytes(range) { try StoreJudge.record(Array($0)) } == record)
            if record.entersQueue {
                let isDeleted = golden.rules.deletedQueues.contains("\(record.topic)/\(record.queueID)")
                let queue = store.consumeQueue(topic: record.topic, queueID: Int32(record.queueID))
                if !isDeleted {
                    let queue = try #require(queue)
                    let entry = try #require(
                        store.entries(queue, from: QueueOffset(Int64(record.queueOffset)), maxCount: 1).first)
                    #expect(entry.physicalOffset == place && Int(entry.recordSize) == record.size)
                    checked.queue += 1
                }
            }
            let time = Int64(record.storeTime)
            func isFound(_ key: String, _ begin: Int64, _ end: Int64) -> Bool {
                let found = store.queryMessage(topic: record.topic, key: key, maxCount: 64, begin: begin, end: end)
                // A query returns no more than 64: narrower windows show the others.
                return found.records.count == 64 || found.records.contains { $0.start == place }
            }
            guard record.transaction != 12 else { continue }
            if let unique = record.property("UNIQ_KEY") {
                #expect(isFound(unique, time, time) && isFound(unique, 0, .max))
                #expect(!isFound(unique, time + 1, .max) && !isFound(unique, 0, time - 1))
                checked.unique += 1
            }
            for key in (record.property("KEYS") ?? "").split(separator: " ") {
                #expect(isFound(String(key), time, time), "\(key)")
                #expect(!isFound(String(key), time + 1, time + 1))
                checked.keys += 1
            }
        }
        #expect(checked.queue > 500 && checked.unique > 400 && checked.keys > 50)
        for (name, entries) in judge.queues where !entries.isEmpty {
            let times = entries.keys.sorted().compactMap { offset in
                judge.records.first { $0.physicalOffset == entries[offset]?.physicalOffset }.map {
                    (offset, $0.storeTime)
                }
            }
            for (_, time) in times {
                let lower = try #require(times.first { $0.1 >= time }).0
                let upper = try #require(times.last { $0.1 <= time }).0
                func search(_ boundary: MessageStore.TimeBoundary) -> Int64 {
                    store.offset(
                        topic: name.topic, queueID: Int32(name.queueID), byTimestamp: Int64(time), boundary: boundary
                    ).rawValue
                }
                #expect(search(.lower) == Int64(lower) && search(.upper) == Int64(upper), "\(name) at \(time)")
                #expect(search(.nearest) >= Int64(lower) && search(.nearest) <= Int64(upper))
            }
        }
    }

    /// A store of Apache's that we went on with is still one RocketMQ accepts, and what Apache wrote is untouched.
    @Test(arguments: Golden.allCases)
    func goingOnWithApachesStore(_ golden: Golden) throws {
        let folder = try TemporaryFolder()
        let root = try golden.unpack(folder)
        let before = try StoreJudge(root, rules: golden.rules)
        before.judge()
        let harness = Harness(golden.configuration(root), clock: TestClock(1_900_000_000_000))
        try harness.store.open()
        var writer = StoreWriter(random: SeededGenerator(seed: CrashTests.seed))
        try writer.write(harness, messages: 600)
        harness.maintain()
        try harness.store.close()
        var rules = golden.rules
        rules.isClean = true
        let after = try StoreJudge(root, rules: rules)
        #expect(after.judge() == [])
        #expect(Array(after.records.prefix(before.records.count)) == before.records)
        #expect(after.records.count >= before.records.count + 500)
    }
}

extension StoreJudge {
    /// One record as read from a store.
    static func record(_ bytes: [UInt8]) throws -> LogRecord { try LogRecord(bytes, at: 0) }
}
