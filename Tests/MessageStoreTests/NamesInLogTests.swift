import Foundation
import LinuxSystem
import MessageModel
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// Names and numbers in records that no broker has checked: a foreign master's, or a damaged log's. The store opens
/// nothing outside of its folder, and the messages behind are served.
@Suite struct NamesInLogTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func append(_ harness: Harness, _ topic: String, queueID: Int32 = 0) -> AppendOutcome {
        Array(topic.utf8).withUnsafeBytes { topic in
            [UInt8](repeating: 7, count: 9).withUnsafeBytes { body in
                harness.store.append(
                    MessageDraft(
                        topic: topic, queueID: queueID, bornHost: HostAddress(ipv4: 1, port: 1),
                        storeHost: HostAddress(ipv4: 1, port: 1), body: body))
            }
        }
    }

    @Test func appendRefuses() throws {
        let harness = Harness(.small(folder.path + "/a/store"))
        try harness.store.open()
        for topic in ["../../evil", "..", ".", "a/b", "/tmp/evil", "a\u{0}b", ".evil"] {
            guard case .refused(.topicName) = append(harness, topic) else {
                Issue.record("\(topic) was taken")
                continue
            }
        }
        guard case .refused(.queueID(-1)) = append(harness, "T", queueID: -1) else {
            Issue.record("queue -1 was taken")
            return
        }
        guard case .appended(let first) = append(harness, "T") else {
            Issue.record("nothing is taken any more")
            return
        }
        #expect(first.physicalOffset.rawValue == 0, "a refused message has left something in the log")
        try harness.store.commitTick()
        #expect(harness.bodies("T").count == 1)
        try harness.store.close()
        #expect(outside(folder.path + "/a").isEmpty)
    }

    /// What is below `path` without belonging to the store.
    private func outside(_ path: String) -> [String] {
        (FileManager.default.subpaths(atPath: path) ?? []).filter {
            $0 != "store" && !$0.hasPrefix("store/") || $0.contains("evil") || $0.contains("/-1")
        }
    }

    /// A master's log whose middle message has another topic, or another queue.
    private func foreignLog(_ patch: (UnsafeMutableRawPointer, Int) -> Void) throws -> [UInt8] {
        let master = Harness(.small(folder.path + "/\(UUID().uuidString)"))
        try master.store.open()
        for topic in ["T", "xxyxxyevil", "T"] { _ = append(master, topic) }
        try master.store.commitTick()
        let end = Int(master.store.writtenOffset.rawValue)
        let view = CommitLogFiles(
            directory: master.store.configuration.commitLogPath,
            fileSize: master.store.configuration.mappedFileSizeCommitLog, disk: RealDisk())
        try view.load(wasClean: true)
        let file = try #require(view.file(base: PhysicalOffset(0)))
        var bytes = [UInt8](repeating: 0, count: end)
        try bytes.withUnsafeMutableBytes { buffer in
            let result: Result<Int, SystemError> = Result { () throws(SystemError) in try file.read(into: buffer, at: 0)
            }
            #expect(try result.get() == end)
            let base = try #require(buffer.baseAddress)
            let place = try #require(
                (0..<end - 10).first {
                    UnsafeRawBufferPointer(rebasing: buffer[$0..<$0 + 10]).elementsEqual("xxyxxyevil".utf8)
                })
            patch(base, place)
        }
        try master.store.close()
        return bytes
    }

    private static let patches: [(String, @Sendable (UnsafeMutableRawPointer, Int) -> Void)] = [
        ("a topic", { base, place in memcpy(base + place, "../../evil", 10) }),
        (
            "a queue",
            { base, place in
                // The record before has the topic "T" of one byte: this one begins behind it.
                let begin = Int((base + 0).loadUnaligned(as: Int32.self).bigEndian)
                BigEndian.store(Int32(-1), base, begin + CommitLogRecord.queueIDPosition)
            }
        ),
    ]

    @Test("a master's record", arguments: [0, 1]) func replicated(_ number: Int) throws {
        let bytes = try foreignLog(Self.patches[number].1)
        var configuration = StoreConfiguration.small(folder.path + "/b/store")
        configuration.isSlave = true
        let slave = Harness(configuration)
        try slave.store.open()
        let outcome = bytes.withUnsafeBytes { slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
        #expect(outcome == .appended(next: PhysicalOffset(Int64(bytes.count))))
        try slave.store.commitTick()
        #expect(slave.bodies("T").count == 2 && slave.store.withoutQueue == 1)
        for _ in 0..<30 { slave.store.runMaintenance() }
        try slave.store.close()
        #expect(outside(folder.path + "/b").isEmpty)
        // And the log that holds it, read again: by its queues, and without them.
        for round in 0..<2 {
            if round == 1 { try FileManager.default.removeItem(atPath: configuration.consumeQueuePath) }
            let next = Harness(configuration)
            try next.store.open()
            #expect(next.bodies("T").count == 2)
            try next.store.close()
            #expect(outside(folder.path + "/b").isEmpty)
        }
    }

    /// Times, which no checksum covers: delayed messages, keys and searches by time calculate with them.
    @Test("a master's times", arguments: [Int64.min, -1, 0, Int64.max])
    func foreignTimes(_ time: Int64) throws {
        let master = Harness(.small(folder.path + "/master\(time)"))
        try master.store.open()
        for topic in ["T", "SCHEDULE_TOPIC_XXXX", "SCHEDULE_TOPIC_XXXX", "T"] {
            let properties = Array("DELAY\u{1}2\u{2}KEYS\u{1}k\u{2}UNIQ_KEY\u{1}u".utf8)
            let outcome = Array(topic.utf8).withUnsafeBytes { topic in
                properties.withUnsafeBytes { properties in
                    var draft = MessageDraft(
                        topic: topic, queueID: 0, bornHost: HostAddress(ipv4: 1, port: 1),
                        storeHost: HostAddress(ipv4: 1, port: 1), body: UnsafeRawBufferPointer(start: nil, count: 0))
                    draft.properties = properties
                    return master.store.append(draft)
                }
            }
            guard case .appended = outcome else { throw CancellationError() }
        }
        try master.store.commitTick()
        let end = Int(master.store.writtenOffset.rawValue)
        var bytes: [UInt8] = []
        var position = 0
        while position < end, let range = master.store.lookMessage(at: PhysicalOffset(Int64(position))) {
            var record = master.store.withBytes(range) { Array($0) } ?? []
            position += record.count
            // Behind the born host, 8 bytes of IPv4.
            record.withUnsafeMutableBytes {
                $0.storeBytes(of: time.bigEndian, toByteOffset: CommitLogRecord.bornHostPosition + 8, as: Int64.self)
            }
            bytes += record
        }
        #expect(bytes.count == end)
        try master.store.close()
        var configuration = StoreConfiguration.small(folder.path + "/slave\(time)")
        configuration.isSlave = true
        for round in 0..<3 {
            let slave = Harness(configuration)
            try slave.store.open()
            if round == 0 {
                _ = bytes.withUnsafeBytes { slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
                try slave.store.commitTick()
            }
            #expect(slave.bodies("T").count == 2)
            for wanted in [Int64.min, -1, 0, 1_700_000_000_000, .max] {
                for boundary in [MessageStore.TimeBoundary.nearest, .lower, .upper] {
                    _ = slave.store.offset(topic: "T", queueID: 0, byTimestamp: wanted, boundary: boundary)
                }
                _ = slave.store.queryMessage(topic: "T", key: "k", maxCount: 9, begin: wanted, end: .max)
                _ = slave.store.queryMessage(topic: "T", key: "u", maxCount: 9, begin: .min, end: wanted)
            }
            for _ in 0..<5 { slave.store.runMaintenance() }
            try slave.store.close()
            if round == 1 { try FileManager.default.removeItem(atPath: configuration.consumeQueuePath) }
        }
    }

    @Test func aLogThatBeginsNowhere() throws {
        var configuration = StoreConfiguration.small(folder.path + "/d/store")
        configuration.isSlave = true
        let slave = Harness(configuration)
        try slave.store.open()
        let size = configuration.mappedFileSizeCommitLog
        for offset in [Int64.max / Int64(size) * Int64(size), Int64.min, -1, (1 << 61) / Int64(size) * Int64(size)] {
            let outcome = [UInt8](repeating: 1, count: 8).withUnsafeBytes {
                slave.store.appendReplicated(at: PhysicalOffset(offset), $0)
            }
            guard case .refused = outcome else {
                Issue.record("\(offset) was taken")
                continue
            }
        }
        try slave.store.close()
    }

    @Test func foldersThatAreNoTopics() throws {
        let configuration = StoreConfiguration.small(folder.path + "/c/store")
        let first = Harness(configuration)
        try first.store.open()
        _ = append(first, "T")
        try first.store.commitTick()
        try first.store.close()
        let odd = configuration.consumeQueuePath + "/odd\nname/0"
        try FileManager.default.createDirectory(atPath: odd, withIntermediateDirectories: true)
        let next = Harness(configuration)
        try next.store.open()
        #expect(next.bodies("T").count == 1 && next.store.consumeQueues.count == 1)
        try next.store.close()
        #expect(FileManager.default.fileExists(atPath: odd), "what is not ours stays")
    }
}

/// Queues of deleted topics, when queues are built anew from a log that still has their messages.
@Suite struct DeletedTopicsTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    @Test("a deleted topic's queues do not come back when they are built anew", arguments: [false, true])
    func rebuild(_ isMadeAgain: Bool) throws {
        let configuration = StoreConfiguration.small(folder.path + "/store")
        let first = Harness(configuration)
        try first.store.open()
        for number in 0..<5 {
            first.send("Gone", body: "old \(number)")
            first.send("Stays", body: "\(number)")
        }
        try first.store.commitTick()
        // In the tick in which it is deleted, too.
        first.send("Gone", body: "late")
        first.store.removeTopic("Gone")
        try first.store.commitTick()
        #expect(first.store.consumeQueue(topic: "Gone", queueID: 0) == nil)
        if isMadeAgain {
            for number in 0..<2 { first.send("Gone", body: "new \(number)") }
            try first.store.commitTick()
        }
        let expected = isMadeAgain ? ["new 0", "new 1"] : []
        try first.store.close()
        for _ in 0..<2 {
            try FileManager.default.removeItem(atPath: configuration.consumeQueuePath)
            let next = Harness(configuration)
            try next.store.open()
            #expect(next.bodies("Gone") == expected)
            #expect(next.bodies("Stays") == (0..<5).map { "\($0)" })
            #expect(next.store.withoutQueue == 0)
            try next.store.close()
        }
        let last = Harness(configuration)
        try last.store.open()
        guard case .appended(let result) = last.send("Gone", body: "newer") else {
            Issue.record("refused")
            return
        }
        #expect(result.queueOffset.rawValue == Int64(expected.count), "a new topic begins at 0")
        try last.store.commitTick()
        try last.store.close()
    }

    @Test("what is known of another log hides nothing: an empty log begins without it")
    func anotherLog() throws {
        let configuration = StoreConfiguration.small(folder.path + "/store")
        let first = Harness(configuration)
        try first.store.open()
        for number in 0..<50 { first.send("T", body: "old \(number)") }
        try first.store.commitTick()
        first.store.removeTopic("T")
        try first.store.close()
        try FileManager.default.removeItem(atPath: configuration.commitLogPath)
        try Data().write(to: URL(fileURLWithPath: folder.path + "/store/begin-anew"))
        let second = Harness(configuration)
        try second.store.open()
        second.send("T", body: "new")
        try second.store.commitTick()
        try second.store.close()
        try FileManager.default.removeItem(atPath: configuration.consumeQueuePath)
        let third = Harness(configuration)
        try third.store.open()
        #expect(third.bodies("T") == ["new"])
        try third.store.close()
    }

    @Test(
        "a kill at any moment of a removal leaves all of the topic's queues or none, and none once the removal is done")
    func killsWithinARemoval() throws {
        final class Images: @unchecked Sendable { var all: [SimulatedDisk] = [] }
        let clock = TestClock()
        let disk = SimulatedDisk(now: { clock.now })
        let background = ManualBackground(immediate: false)
        let first = Harness(.small("/store"), disk: disk, clock: clock, background: background)
        try first.store.open()
        for queue in 0..<20 {
            first.send("Gone", Int32(queue), body: "old \(queue)")
            first.send("Stays", Int32(queue), body: "\(queue)")
        }
        try first.store.commitTick()
        first.maintain(5000)
        let images = Images()
        disk.watcher.withLock { $0 = { _ in images.all.append(disk.afterKill()) } }
        #expect(first.store.removeTopic("Gone").count == 20)
        #expect(first.store.topicsWithQueues == ["Stays"])
        var isDone = false
        first.store.whenRemoved { isDone = true }
        #expect(!isDone)
        first.settle()
        #expect(isDone)
        images.all.append(disk.afterKill())
        disk.watcher.withLock { $0 = nil }
        #expect(images.all.count > 10)
        for (step, image) in images.all.enumerated() {
            let next = Harness(.small("/store"), disk: image, clock: clock)
            try next.store.open()
            let left = (0..<20).map { next.bodies("Gone", Int32($0)) }
            let isGone = left.allSatisfy { $0.isEmpty }
            #expect(isGone || left == (0..<20).map { ["old \($0)"] }, "step \(step): \(left)")
            if step == images.all.count - 1 { #expect(isGone) }
            for queue in 0..<20 { #expect(next.bodies("Stays", Int32(queue)) == ["\(queue)"]) }
            next.settle()
            #expect(!image.paths.contains { $0.contains("/.removed-") })
            next.store.abandon()
        }
    }

    @Test("a topic that is made again while another one's folder is moved keeps its new files")
    func madeAgainWhileAnotherMoves() throws {
        let clock = TestClock()
        let disk = SimulatedDisk(now: { clock.now })
        let background = ManualBackground(immediate: false)
        let first = Harness(.small("/store"), disk: disk, clock: clock, background: background)
        try first.store.open()
        for number in 0..<150 {
            first.send("Other", body: "other \(number)")
            first.send("Again", body: "old \(number)")
        }
        try first.store.commitTick()
        first.maintain(5000)
        first.store.removeTopic("Other")
        // Waits for the first.
        first.store.removeTopic("Again")
        for number in 0..<3 { first.send("Again", body: "new \(number)") }
        try first.store.commitTick()
        clock.advance(5000)
        first.store.runMaintenance()
        first.maintain(5000)
        #expect(first.bodies("Again") == ["new 0", "new 1", "new 2"])
        #expect(disk.paths.contains { $0.hasPrefix("/store/consumequeue/Again/0/") })
        let next = Harness(.small("/store"), disk: disk.afterKill(), clock: clock)
        try next.store.open()
        #expect(next.bodies("Again") == ["new 0", "new 1", "new 2"])
        #expect(next.bodies("Other").isEmpty)
        try next.store.close()
    }

    @Test("removed and made again without end: every queue is found, and none that was removed")
    func table() throws {
        var random = SeededGenerator(seed: 8)
        var table = QueueTable()
        var model: [TopicName: [Int32: ObjectIdentifier]] = [:]
        for _ in 0..<6000 {
            let topic = try TopicName("T\(Int.random(in: 0..<60, using: &random))")
            if random.chance(5) {
                #expect(Set(table.remove(topic).map(\.queueID)) == Set((model[topic] ?? [:]).keys))
                model[topic] = nil
            } else {
                let id = Int32.random(in: 0..<40, using: &random)
                guard model[topic]?[id] == nil else { continue }
                model[topic, default: [:]][id] = ObjectIdentifier(table.make(topic, id, entriesPerFile: 10))
            }
            let asked = try TopicName("T\(Int.random(in: 0..<60, using: &random))")
            for id in Int32(0)..<40 {
                let found = Array(asked.text.utf8).withUnsafeBytes { table.find($0, id) }
                #expect(found.map { ObjectIdentifier($0) } == model[asked]?[id])
            }
        }
        #expect(table.queues.count == model.values.map(\.count).reduce(0, +))
        #expect(Set(table.topicNames) == Set(model.keys))
    }
}
