import Foundation
import LinuxSystem
import MessageModel
import StoreFormat
import StoreJudge
import TestDisk
import Testing

@testable import MessageStore

/// RocketMQ 5's checksum of whole records (`enabledAppendPropCRC`, `forceVerifyPropCRC`).
@Suite struct PropCRCTests {
    static let rules = {
        var rules = StoreJudge.Rules(log: 64 * 1024, queue: 2000, slots: 500, entries: 2000)
        rules.everyRecordHasChecksum = true
        return rules
    }()

    private static func enabled(_ path: String) -> StoreConfiguration {
        var configuration = StoreConfiguration.small(path)
        configuration.enabledAppendPropCRC = true
        return configuration
    }

    // MARK: - Bytes

    /// By RocketMQ's description of it: lowest digit first, ten digits, the sign bit cut off, no field left out.
    @Test func theBytesAreRocketMQs() throws {
        let folder = try TemporaryFolder()
        let harness = Harness(Self.enabled(folder.path + "/store"))
        try harness.store.open()
        var wanted: [String] = []
        for properties in ["", "TAGS\u{1}t", "TAGS\u{1}t\u{2}"] {
            let outcome = harness.send("Topic", 3, body: Array("body".utf8), properties: Array(properties.utf8))
            guard case .appended = outcome else {
                Issue.record("\(outcome)")
                return
            }
            wanted.append(properties.isEmpty || properties.hasSuffix("\u{2}") ? properties : properties + "\u{2}")
        }
        try harness.store.commitTick()
        try harness.store.close()
        let judge = try StoreJudge(folder.path + "/store", rules: Self.rules)
        #expect(judge.judge() == [])
        let log = try Data(
            contentsOf: URL(fileURLWithPath: folder.path + "/store/commitlog/" + StoreFileName.of(offset: 0)))
        for (record, wanted) in zip(judge.records, wanted) {
            let covered = [UInt8](log[record.physicalOffset..<(record.physicalOffset + record.size - 20)])
            var digits = String(CRC32.of(covered) & 0x7FFF_FFFF)
            digits = String(repeating: "0", count: 10 - digits.count) + digits
            #expect(record.propertyText == wanted + "__CRC32#\u{1}" + digits.reversed() + "\u{2}")
        }
        #expect(judge.records.count == 3)
    }

    /// Every shape of message, closed, killed, rebuilt: the judge computes each checksum by itself.
    @Test(arguments: [0, 1, 2])
    func everyShapeOfRecordHasOne(_ round: UInt64) throws {
        let seed = CrashTests.seed &+ 40 &+ round
        let folder = try TemporaryFolder()
        let path = folder.path + "/store"
        let harness = Harness(Self.enabled(path))
        try harness.store.open()
        var writer = StoreWriter(random: SeededGenerator(seed: seed))
        try writer.write(harness, messages: 2000)
        if round == 1 { harness.store.abandon() } else { try harness.store.close() }
        var rules = Self.rules
        rules.isClean = round != 1
        #expect(try StoreJudge(path, rules: rules).judge() == [], "APUS_SEED=\(seed)")
        if round == 2 {
            for part in ["consumequeue", "index"] { try FileManager.default.removeItem(atPath: path + "/" + part) }
        }
        let next = Harness(Self.enabled(path))
        try next.store.open()
        #expect(writer.places.allSatisfy { next.store.lookMessage(at: PhysicalOffset($0)) != nil })
        try writer.write(next, messages: 200)
        try next.store.close()
        let judge = try StoreJudge(path, rules: Self.rules)
        #expect(judge.judge() == [], "APUS_SEED=\(seed)")
        #expect(judge.records.contains { $0.bornHost.count == 20 } && judge.blanks > 3)
    }

    // MARK: - Copies

    /// A message that is stored again brings its old record's checksum along: it goes, wherever it stands, whatever the
    /// setting.
    @Test(arguments: [true, false])
    func anOldChecksumGoes(_ isEnabled: Bool) throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/store"
        let harness = Harness(isEnabled ? Self.enabled(path) : .small(path))
        try harness.store.open()
        let old = "__CRC32#\u{1}1234567890\u{2}"
        let atTheEnd = ["TAGS\u{1}t\u{2}" + old, old]
        let elsewhere = [old + "TAGS\u{1}t", "A\u{1}#\u{2}" + old + "TAGS\u{1}t\u{2}", old + old]
        for properties in atTheEnd + (isEnabled ? elsewhere : []) {
            _ = harness.send("Topic", 0, body: [1], properties: Array(properties.utf8))
            if isEnabled {
                _ = harness.send(
                    "Topic", 0, body: [1], properties: Array(properties.utf8), suffix: Array("B\u{1}b".utf8))
            }
        }
        try harness.store.commitTick()
        try harness.store.close()
        var rules = Self.rules
        rules.everyRecordHasChecksum = isEnabled
        let judge = try StoreJudge(path, rules: rules)
        #expect(judge.judge() == [])
        #expect(judge.records.count == (isEnabled ? 10 : 2))
        for record in judge.records {
            #expect(record.properties.filter { $0.name == "__CRC32#" }.count == (isEnabled ? 1 : 0))
            #expect(!record.propertyText.contains(old))
        }
    }

    /// 32 767 bytes are the limit with the checksum in them. A waiting message taken before the setting was made is
    /// delivered without one.
    @Test func theLimitCountsIt() throws {
        let folder = try TemporaryFolder()
        let harness = Harness(Self.enabled(folder.path + "/store"))
        try harness.store.open()
        defer { try? harness.store.close() }
        func send(_ count: Int, waiting: Bool) -> AppendOutcome {
            let properties = Array("P\u{1}".utf8) + Array(repeating: 120, count: count - 2)
            return properties.withUnsafeBytes { properties in
                Array("T".utf8).withUnsafeBytes { topic in
                    var draft = MessageDraft(
                        topic: topic, queueID: 0, bornHost: HostAddress(ipv4: 1, port: 2),
                        storeHost: HostAddress(ipv4: 1, port: 2), body: topic)
                    draft.properties = properties
                    draft.mayUseReserve = waiting
                    return harness.store.append(draft)
                }
            }
        }
        guard case .appended = send(32_767 - 21, waiting: false) else {
            Issue.record("the longest is refused")
            return
        }
        guard case .refused(.propertiesTooLarge) = send(32_767 - 20, waiting: false) else {
            Issue.record("one byte more is taken")
            return
        }
        guard case .appended(let result) = send(32_767, waiting: true) else {
            Issue.record("a waiting message is refused")
            return
        }
        try harness.store.commitTick()
        #expect(harness.store.lookMessage(at: result.physicalOffset) != nil)
        #expect(harness.records("T").count == 2)
    }

    // MARK: - Damage

    /// One bit in every byte of a record, one after the other: reported, served around, not delivered.
    @Test(arguments: [false, true])
    func everyByteIsCovered(_ isRebuilt: Bool) throws {
        let store = try ImageStore(settings: { $0.enabledAppendPropCRC = true }, rules: Self.rules)
        #expect(try store.flipEveryByte(isRebuilt: isRebuilt) > 150)
    }

    /// Damage in what a start believes is found by the check behind it.
    @Test func theCheckBehindTheStartFindsIt() throws {
        let store = try ImageStore(settings: { $0.enabledAppendPropCRC = true }, rules: Self.rules)
        // Flag, queue offset, physical offset, sys flag, born time, store time, reconsume times, and the checksum
        // itself.
        let bytes = [19, 27, 40, 44, 60, 74, 80, store.judge.records[30].size - 5]
        try store.theCheckFinds(flipsAt: bytes, sign: "CRC does not match")
    }

    // MARK: - forceVerifyPropCRC

    /// Older records have none: they are kept, reported and not delivered; without the key they are all back.
    @Test func forcedVerification() throws {
        let old = try ImageStore()
        let image = old.disk.afterKill()
        func open(_ settings: (inout StoreConfiguration) -> Void) throws -> (Harness, LogLines) {
            var configuration = old.configuration
            settings(&configuration)
            let log = LogLines()
            let harness = Harness(configuration, disk: image, clock: old.clock, log: log)
            try harness.store.open()
            return (harness, log)
        }
        let (forced, log) = try open {
            $0.forceVerifyPropCRC = true
            $0.enabledAppendPropCRC = true
        }
        #expect(forced.bodies("Topic", 0).isEmpty && forced.bodies("Topic", 1).isEmpty)
        #expect(!log.lines.isEmpty)
        forced.send("Topic", 0, body: "with")
        try forced.store.commitTick()
        forced.maintain()
        try forced.store.close()
        let (again, _) = try open {
            $0.forceVerifyPropCRC = true
            $0.enabledAppendPropCRC = true
        }
        #expect(again.bodies("Topic", 0) == ["with"])
        try again.store.close()
        // With queues to be made anew, too, nothing goes.
        image.removeTree("/store/consumequeue")
        let (rebuilt, _) = try open { $0.forceVerifyPropCRC = true }
        #expect(rebuilt.bodies("Topic", 0) == ["with"])
        try rebuilt.store.close()
        let (released, _) = try open { $0.enabledAppendPropCRC = true }
        #expect(Set(released.bodies("Topic", 0) + released.bodies("Topic", 1)) == old.everything.union(["with"]))
        try released.store.close()
    }
}
