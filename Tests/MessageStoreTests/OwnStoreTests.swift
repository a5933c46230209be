import Foundation
import LinuxSystem
import StoreFormat
import StoreJudge
import TestDisk
import Testing

@testable import MessageStore

/// Directories we write, before the judge: closed, killed and recovered, rebuilt.
@Suite struct OwnStoreTests {
    static let rules = StoreJudge.Rules(log: 64 * 1024, queue: 2000, slots: 500, entries: 2000)

    private func write(_ folder: TemporaryFolder, seed: UInt64, messages: Int = 2500) throws -> (Harness, StoreWriter) {
        let harness = Harness(.small(folder.path + "/store"))
        try harness.store.open()
        var writer = StoreWriter(random: SeededGenerator(seed: seed))
        try writer.write(harness, messages: messages)
        return (harness, writer)
    }

    @Test(arguments: [0, 1, 2])
    func aClosedStoreIsRocketMQs(_ round: UInt64) throws {
        let seed = CrashTests.seed &+ round
        let folder = try TemporaryFolder()
        let (harness, writer) = try write(folder, seed: seed)
        try harness.store.close()
        let judge = try StoreJudge(folder.path + "/store", rules: Self.rules)
        #expect(judge.judge() == [], "APUS_SEED=\(seed)")
        let found = Set(judge.records.map { Int64($0.physicalOffset) })
        #expect(writer.places.allSatisfy { found.contains($0) })
        // The shapes that were to be met.
        #expect(judge.blanks > 3 && judge.queues.count == 20 && judge.keys.count > 2000)
        #expect(judge.records.contains { $0.bornHost.count == 20 && $0.storeHost.count == 8 })
        #expect(judge.records.contains { $0.bornHost.count == 8 && $0.storeHost.count == 20 })
        #expect(judge.records.contains { $0.propertyText.utf8.count == 32_767 })
        #expect(judge.records.contains { $0.topic.utf8.count == 127 })
        #expect(judge.records.contains { $0.transaction == 4 } && judge.records.contains { $0.transaction == 12 })
        #expect(judge.records.contains { $0.body.isEmpty })
        #expect(judge.queues.keys.contains { $0.topic == "SCHEDULE_TOPIC_XXXX" })
    }

    /// The last record of a file leaves 8 bytes for the blank, or more; never fewer.
    @Test func fileEnds() throws {
        for spare in 0...20 {
            let folder = try TemporaryFolder()
            let harness = Harness(.small(folder.path + "/store"))
            try harness.store.open()
            for _ in 0..<2 {
                guard case .appended = harness.send("T", 0, body: Array(repeating: 7, count: 32_000), properties: [])
                else {
                    Issue.record("refused")
                    return
                }
            }
            let left = 64 * 1024 - Int(harness.store.log.end.rawValue)
            let size = left - CommitLogRecord.minimumSize - 1 - spare
            _ = harness.send("T", 0, body: Array(repeating: 8, count: size), properties: [])
            _ = harness.send("T", body: "next")
            try harness.store.commitTick()
            try harness.store.close()
            let judge = try StoreJudge(folder.path + "/store", rules: Self.rules)
            #expect(judge.judge() == [], "\(spare) bytes to spare")
            #expect(judge.blanks == 1 && judge.records.count == 4)
            #expect((judge.records[2].physicalOffset < 65_536) == (spare >= 8), "\(spare)")
            #expect(judge.records[3].physicalOffset >= 65_536)
        }
    }

    /// Killed while it was working: log whole, queues and index hold nothing wrong; recovered and closed: everything.
    @Test(arguments: [10, 11, 12])
    func aKilledStoreIsRocketMQs(_ round: UInt64) throws {
        let seed = CrashTests.seed &+ round
        let folder = try TemporaryFolder()
        let path = folder.path + "/store"
        let (harness, _) = try write(folder, seed: seed)
        harness.store.abandon()
        var rules = Self.rules
        rules.isClean = false
        let killed = try StoreJudge(path, rules: rules)
        #expect(killed.judge() == [], "APUS_SEED=\(seed)")
        let next = Harness(.small(path))
        try next.store.open()
        try next.store.close()
        let closed = try StoreJudge(path, rules: Self.rules)
        #expect(closed.judge() == [], "APUS_SEED=\(seed)")
        #expect(closed.records == killed.records)
    }

    /// Queues and index deleted, one after the other and together: they come back byte for byte.
    @Test(arguments: [["consumequeue"], ["index"], ["consumequeue", "index"]])
    func deletedFoldersComeBackByteForByte(_ deleted: [String]) throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/store"
        let (harness, _) = try write(folder, seed: CrashTests.seed &+ 20)
        try harness.store.close()
        func files(_ part: String) throws -> [String: Data] {
            try GoldenStoreTests.files(path + "/" + part).filter { !$0.key.hasPrefix(".") }
        }
        let parts = ["commitlog", "consumequeue", "index"]
        let before = try parts.map { try files($0) }
        for wasClean in [true, false] {
            for part in deleted { try FileManager.default.removeItem(atPath: path + "/" + part) }
            if !wasClean { try Data().write(to: URL(fileURLWithPath: path + "/abort")) }
            let next = Harness(.small(path))
            try next.store.open()
            try next.store.close()
            for (part, wanted) in zip(parts, before) {
                let found = try files(part)
                #expect(found.keys.sorted() == wanted.keys.sorted(), "\(part)")
                for (name, bytes) in wanted { #expect(found[name] == bytes, "\(part)/\(name)") }
            }
        }
    }

    /// What another program put into the folders does not prevent a start, and stays.
    @Test func strayFilesAreLeftAlone() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/store"
        let (harness, _) = try write(folder, seed: CrashTests.seed &+ 30, messages: 300)
        try harness.store.close()
        let strays = [
            "consumequeue/notes.txt", "consumequeue/T/notes.txt", "consumequeue/T/0/notes.txt", "commitlog/notes.txt",
            "index/notes.txt", "notes.txt",
        ]
        for stray in strays { try Data("stray".utf8).write(to: URL(fileURLWithPath: path + "/" + stray)) }
        let next = Harness(.small(path))
        try next.store.open()
        try next.store.close()
        for stray in strays { #expect(FileManager.default.contents(atPath: path + "/" + stray) == Data("stray".utf8)) }
    }

    /// Found by fuzzing: an operator deletes a queue's newest file and the recovery point; the next message takes a
    /// place the log has given before. What is checked behind the start must not give that place back.
    @Test func whatIsSentAfterADeletionStays() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/store"
        let first = Harness(.small(path))
        try first.store.open()
        for number in 0..<250 { first.send("T", body: "\(number)") }
        try first.store.commitTick()
        try first.store.close()
        try FileManager.default.removeItem(atPath: path + "/consumequeue/T/0/" + StoreFileName.of(offset: 4000))
        try FileManager.default.removeItem(atPath: path + "/consumequeue/.apus-recovery")
        let next = Harness(.small(path))
        try next.store.open()
        guard case .appended(let result) = next.send("T", body: "fresh") else {
            Issue.record("refused")
            return
        }
        try next.store.commitTick()
        next.maintain(5000)
        let queue = try #require(next.store.consumeQueue(topic: "T", queueID: 0))
        #expect(
            next.store.entries(queue, from: result.queueOffset, maxCount: 1).first?.physicalOffset
                == result.physicalOffset)
        #expect(next.bodies("T").contains("fresh"))
        try next.store.close()
    }
}
