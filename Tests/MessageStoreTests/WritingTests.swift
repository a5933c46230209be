import Foundation
import LinuxSystem
import MessageModel
import StoreFormat
import StoreReader
import TestDisk
import Testing

@testable import MessageStore

@Suite struct WritingTests {
    let folder: TemporaryFolder
    let configuration: StoreConfiguration

    init() throws {
        folder = try TemporaryFolder()
        configuration = .small(folder.path + "/store")
    }

    /// The whole log through an independent reader: every byte of every file is accounted for.
    static func readLog(_ path: String, fileSize: Int) throws -> [Record] {
        var found: [Record] = []
        let names = try FileManager.default.contentsOfDirectory(atPath: path).sorted()
        for name in names {
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path + "/" + name)))
            #expect(name.count == 20 && bytes.count == fileSize)
            let base = try #require(Int(name))
            var position = 0
            while position + 8 <= bytes.count {
                let magic = bytes[(position + 4)..<(position + 8)].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
                let size = bytes[position..<(position + 4)].reduce(0) { $0 << 8 | Int($1) }
                if magic == 0xCBD4_3194 {
                    #expect(position + size == bytes.count, "a blank record ends the file")
                    #expect(bytes[(position + 8)...].allSatisfy { $0 == 0 })
                    break
                }
                guard magic == 0xDAA3_20A7 else {
                    #expect(bytes[position...].allSatisfy { $0 == 0 }, "behind the log's end there are zeros")
                    #expect(name == names.last || position == 0)
                    return found
                }
                let record = try #require(Record(bytes[position..<(position + size)]), "\(name) at \(position)")
                #expect(record.physicalOffset == base + position)
                found.append(record)
                position += size
            }
        }
        return found
    }

    @Test func messagesAreReadableAfterTheTick() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        var wanted: [String] = []
        for number in 0..<1000 {
            let body = "message \(number) " + String(repeating: "x", count: number % 400)
            guard
                case .appended(let result) = harness.send(
                    "T", 3, body: body, tags: number % 3 == 0 ? "A" : "B", keys: "k\(number) all", unique: "U\(number)",
                    ipv6: number % 5 == 0)
            else {
                Issue.record("refused")
                return
            }
            #expect(result.queueOffset.rawValue == Int64(number))
            wanted.append(body)
            #expect(harness.store.consumeQueue(topic: "T", queueID: 3)?.maxOffset.rawValue ?? 0 <= Int64(number))
            if number % 7 == 0 { try harness.store.commitTick() }
            harness.clock.advance(1)
        }
        try harness.store.commitTick()
        #expect(harness.bodies("T", 3) == wanted)
        let tagged = harness.bodies("T", 3, tagsCodes: [TagsCode.of("A")])
        #expect(tagged == wanted.enumerated().filter { $0.offset % 3 == 0 }.map { $0.element })
        let keyed = harness.store.queryMessage(topic: "T", key: "k77", maxCount: 10, begin: 0, end: .max)
        #expect(keyed.records.count == 1)
        #expect(
            harness.store.queryMessage(topic: "T", key: "all", maxCount: 1000, begin: 0, end: .max).records.count == 64)
        let unique = harness.store.queryMessage(topic: "T", key: "U999", maxCount: 10, begin: 0, end: .max)
        let last = try #require(unique.records.first)
        #expect(harness.store.withBytes(last) { Record(Array($0)[...])?.queueOffset } == 999)
        harness.maintain()
        try harness.store.close()

        let log = try Self.readLog(configuration.commitLogPath, fileSize: configuration.mappedFileSizeCommitLog)
        #expect(log.map { String(decoding: $0.body, as: UTF8.self) } == wanted)
        #expect(log.map { $0.queueOffset } == Array(0..<1000))
        #expect(log[0].sysFlag == 0x30 && log[1].sysFlag == 0)
        try checkQueueFiles(log, "T", 3)

        // And again after a clean stop.
        let again = Harness(configuration)
        try again.store.open()
        #expect(again.bodies("T", 3) == wanted)
        #expect(again.store.flushedOffset == again.store.writtenOffset)
        guard case .appended(let next) = again.send("T", 3, body: "next") else {
            Issue.record("refused")
            return
        }
        #expect(next.queueOffset.rawValue == 1000)
        try again.store.commitTick()
        #expect(again.bodies("T", 3).last == "next")
        try again.store.close()
    }

    /// Entry by entry, and the files have the length Apache insists on.
    func checkQueueFiles(_ log: [Record], _ topic: String, _ queueID: Int) throws {
        var entries: [UInt8] = []
        let path = configuration.consumeQueuePath + "/\(topic)/\(queueID)"
        for name in try FileManager.default.contentsOfDirectory(atPath: path).sorted() {
            #expect(Int(name) == entries.count)
            entries += [UInt8](try Data(contentsOf: URL(fileURLWithPath: path + "/" + name)))
            #expect(entries.count % configuration.mappedFileSizeConsumeQueue == 0)
        }
        for (index, record) in log.filter({ $0.topic == topic && $0.queueID == queueID }).enumerated() {
            let entry = entries[(index * 20)..<(index * 20 + 20)]
            #expect(entry.prefix(8).reduce(0) { $0 << 8 | Int($1) } == record.physicalOffset)
            #expect(entry.dropFirst(8).prefix(4).reduce(0) { $0 << 8 | Int($1) } == record.total)
            #expect(record.queueOffset == index)
        }
    }

    @Test func propertiesAreJoined() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        defer { try? harness.store.close() }
        for received in ["a\u{1}b", "a\u{1}b\u{2}", ""] {
            _ = harness.send("T", 0, body: [1], properties: Array(received.utf8), suffix: Array("CLUSTER\u{1}c".utf8))
        }
        try harness.store.commitTick()
        let records = harness.records("T")
        #expect(
            records.map { $0.properties } == [
                ["a": "b", "CLUSTER": "c"], ["a": "b", "CLUSTER": "c"], ["CLUSTER": "c"],
            ])
    }

    @Test func refusals() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        defer { try? harness.store.close() }
        #expect(
            harness.send("T", 0, body: Array(repeating: 1, count: 32 * 1024 + 1), properties: [])
                == .refused(.messageTooLarge(limit: 32 * 1024)))
        #expect(
            harness.send("T", 0, body: [1], properties: Array(repeating: 65, count: 32_768))
                == .refused(.propertiesTooLarge))
        #expect(harness.send("", body: "x") == .refused(.topicLength(0)))
        #expect(harness.send(String(repeating: "t", count: 128), body: "x") == .refused(.topicLength(128)))
        try harness.store.commitTick()
        #expect(harness.store.writtenOffset.rawValue == 0)
    }

    @Test func preparedAndRolledBackMessagesEnterNoQueue() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        defer { try? harness.store.close() }
        harness.send("T", body: "normal", unique: "n")
        harness.send("T", body: "prepared", unique: "p", sysFlag: SysFlag.transactionPreparedType)
        harness.send("T", body: "committed", unique: "c", sysFlag: SysFlag.transactionCommitType)
        harness.send("T", body: "rolled back", unique: "r", sysFlag: SysFlag.transactionRollbackType)
        try harness.store.commitTick()
        #expect(harness.bodies("T") == ["normal", "committed"])
        func found(_ key: String) -> Int {
            harness.store.queryMessage(topic: "T", key: key, maxCount: 9, begin: 0, end: .max).records.count
        }
        #expect(found("n") == 1 && found("p") == 1 && found("c") == 1 && found("r") == 0)
    }

    @Test func delayedMessagesCarryTheirDeliverTime() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        defer { try? harness.store.close() }
        harness.send("SCHEDULE_TOPIC_XXXX", 2, body: "x", extra: "DELAY\u{1}3")
        harness.send("SCHEDULE_TOPIC_XXXX", 17, body: "x", tags: "T", extra: "DELAY\u{1}99")
        try harness.store.commitTick()
        let first = try #require(harness.store.consumeQueue(topic: "SCHEDULE_TOPIC_XXXX", queueID: 2))
        #expect(
            harness.store.entries(first, from: QueueOffset(0), maxCount: 9).map { $0.tagsCode } == [
                harness.clock.now + 10_000
            ])
        let last = try #require(harness.store.consumeQueue(topic: "SCHEDULE_TOPIC_XXXX", queueID: 17))
        #expect(
            harness.store.entries(last, from: QueueOffset(0), maxCount: 9).map { $0.tagsCode } == [
                harness.clock.now + 7_200_000
            ])
    }

    @Test func batchesBecomeMessages() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        defer { try? harness.store.close() }
        func encoded(_ bodies: [String], _ properties: String) -> [UInt8] {
            var bytes: [UInt8] = []
            func put(_ value: Int, _ count: Int) {
                for shift in (0..<count).reversed() { bytes.append(UInt8(value >> (8 * shift) & 255)) }
            }
            for body in bodies {
                put(0, 4)
                put(0, 4)
                put(0, 4)
                put(5, 4)
                put(body.utf8.count, 4)
                bytes += Array(body.utf8)
                put(properties.utf8.count, 2)
                bytes += Array(properties.utf8)
            }
            return bytes
        }
        var offsets: [PhysicalOffset] = []
        func append(_ batch: [UInt8]) -> AppendOutcome {
            Array("B".utf8).withUnsafeBytes { topic in
                batch.withUnsafeBytes { batch in
                    Array("CLUSTER\u{1}c".utf8).withUnsafeBytes { properties in
                        var draft = MessageDraft(
                            topic: topic, queueID: 1, bornHost: HostAddress(ipv4: 1, port: 2),
                            storeHost: HostAddress(ipv4: 3, port: 4),
                            body: batch)
                        draft.properties = properties
                        return harness.store.appendBatch(draft, physicalOffsets: &offsets)
                    }
                }
            }
        }
        let good = encoded(["one", "", "three"], "TAGS\u{1}x")
        guard case .appended(let result) = append(good) else {
            Issue.record("refused")
            return
        }
        #expect(result.count == 3 && offsets.count == 3 && result.queueOffset.rawValue == 0)
        try harness.store.commitTick()
        let records = harness.records("B", 1)
        #expect(records.map { $0.physicalOffset } == offsets.map { Int($0.rawValue) })
        #expect(records.map { String(decoding: $0.body, as: UTF8.self) } == ["one", "", "three"])
        #expect(records.allSatisfy { $0.properties == ["TAGS": "x", "CLUSTER": "c"] && $0.flag == 5 })
        // Cut anywhere, it is refused as a whole or is a shorter batch of whole messages: never anything in between.
        for length in 0..<good.count {
            // The list belongs to the tick: a batch adds to what earlier ones put there.
            let before = offsets.count
            switch append(Array(good.prefix(length))) {
            case .appended(let part): #expect(offsets.count == before + part.count)
            case .refused(.malformedBatch): break
            case .refused(let other): Issue.record("\(other)")
            }
        }
        try harness.store.commitTick()
        #expect(harness.records("B", 1).enumerated().allSatisfy { $0.offset == $0.element.queueOffset })
    }

    @Test func aSecondOpenerIsRefused() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        #expect(throws: StoreError.self) { try Harness(configuration).store.open() }
        try harness.store.close()
        let next = Harness(configuration)
        try next.store.open()
        try next.store.close()
    }

    /// A blank record ends the file as soon as a slave has its 8 bytes; what a slave has dispatched lies never behind
    /// what it has.
    @Test func aSlaveWaitsForTheRestOfAFile() throws {
        let master = Harness(configuration)
        try master.store.open()
        var sent = 0
        while master.store.writtenOffset.rawValue <= 64 * 1024 {
            sent += 1
            master.send("T", body: String(repeating: "m", count: 3000))
            try master.store.commitTick()
        }
        let end = Int(master.store.writtenOffset.rawValue)
        try master.store.close()
        var bytes: [UInt8] = []
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path + "/store/commitlog").sorted() {
            bytes += try Data(contentsOf: URL(fileURLWithPath: folder.path + "/store/commitlog/" + name))
        }
        let blank = try #require(bytes.firstRange(of: [0xCB, 0xD4, 0x31, 0x94])).lowerBound - 4
        var slaveConfiguration = StoreConfiguration.small(folder.path + "/waiting")
        slaveConfiguration.isSlave = true
        let slave = Harness(slaveConfiguration)
        try slave.store.open()
        var position = 0
        for next in [blank, blank + 8, 64 * 1024, end] {
            let outcome = bytes[position..<next].withUnsafeBytes {
                slave.store.appendReplicated(at: PhysicalOffset(Int64(position)), $0)
            }
            #expect(outcome == .appended(next: PhysicalOffset(Int64(next))))
            try slave.store.commitTick()
            position = next
            // The blank record is dispatched with the last byte of its file.
            #expect(slave.store.dispatchedOffset.rawValue == Int64(next == blank + 8 ? blank : next))
            #expect(slave.store.runtimeInformation.dispatchBehindBytes >= 0)
        }
        #expect(slave.bodies("T").count == sent)
        try slave.store.close()
    }

    @Test func aSlaveStaysByteIdentical() throws {
        let master = Harness(configuration)
        try master.store.open()
        var slaveConfiguration = StoreConfiguration.small(folder.path + "/slave")
        slaveConfiguration.isSlave = true
        let slave = Harness(slaveConfiguration)
        try slave.store.open()
        let view = CommitLogView(
            directory: configuration.commitLogPath, fileSize: configuration.mappedFileSizeCommitLog, disk: RealDisk())
        var random = SystemRandomNumberGenerator()
        var position = 0
        for number in 0..<600 {
            master.send(
                "T\(number % 3)", body: "m\(number)" + String(repeating: "y", count: number), tags: "t",
                keys: "k\(number)")
            try master.store.commitTick()
            // Pieces of any size, cut anywhere.
            while position < Int(master.store.writtenOffset.rawValue), Bool.random(using: &random) || number == 599 {
                let size = min(
                    Int.random(in: 1...3000, using: &random), Int(master.store.writtenOffset.rawValue) - position)
                let outcome = view.withBytes(at: PhysicalOffset(Int64(position)), size: size) {
                    slave.store.appendReplicated(at: PhysicalOffset(Int64(position)), $0)
                }
                position += size
                #expect(outcome == .appended(next: PhysicalOffset(Int64(position))))
                if Bool.random(using: &random) { try slave.store.commitTick() }
            }
        }
        try slave.store.commitTick()
        let byte: [UInt8] = [1]
        byte.withUnsafeBytes {
            guard case .refused(let expected, _) = slave.store.appendReplicated(at: PhysicalOffset(5), $0) else {
                Issue.record("bytes at the wrong place were taken")
                return
            }
            #expect(expected.rawValue == Int64(position))
        }
        for topic in ["T0", "T1", "T2"] { #expect(master.records(topic) == slave.records(topic)) }
        try master.store.close()
        try slave.store.close()
        let left = try GoldenStoreTests.files(configuration.commitLogPath)
        let right = try GoldenStoreTests.files(slaveConfiguration.commitLogPath)
        #expect(left == right)
        var leftQueues = try GoldenStoreTests.files(configuration.consumeQueuePath)
        var rightQueues = try GoldenStoreTests.files(slaveConfiguration.consumeQueuePath)
        leftQueues[".apus-recovery"] = nil
        rightQueues[".apus-recovery"] = nil
        #expect(leftQueues == rightQueues)
    }

    @Test func offsetsByTime() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        defer { try? harness.store.close() }
        let start = harness.clock.now
        for number in 0..<300 {
            harness.send("T", body: "\(number)")
            try harness.store.commitTick()
            harness.clock.advance(10)
        }
        func offset(_ time: Int64, _ boundary: MessageStore.TimeBoundary = .nearest) -> Int64 {
            harness.store.offset(topic: "T", queueID: 0, byTimestamp: start + time, boundary: boundary).rawValue
        }
        #expect(offset(0) == 0 && offset(-100) == 0)
        #expect(offset(1000) == 100 && offset(1004) == 100 && offset(1006) == 101 && offset(1005) == 100)
        #expect(offset(1_000_000) == 299)
        #expect(offset(1001, .lower) == 101 && offset(1001, .upper) == 100 && offset(1000, .upper) == 100)
        #expect(offset(1_000_000, .lower) == 300 && offset(-5, .upper) == 0)
    }

    @Test func statusesAreThoseOfRocketMQ() throws {
        let harness = Harness(configuration)
        try harness.store.open()
        defer { try? harness.store.close() }
        func pull(_ topic: String, _ offset: Int64, _ maximum: Int = 32) -> GetMessageResult {
            Array(topic.utf8).withUnsafeBytes {
                harness.store.getMessages(topic: $0, queueID: 0, from: QueueOffset(offset), maxCount: maximum) { _ in }
            }
        }
        #expect(pull("T", 5).status == .noMatchedLogicQueue && pull("T", 5).nextBeginOffset.rawValue == 0)
        _ = harness.store.findConsumeQueue(topic: try TopicName("T"), queueID: 0)
        #expect(pull("T", 5).status == .noMessageInQueue)
        for number in 0..<100 { harness.send("T", body: "\(number)") }
        try harness.store.commitTick()
        #expect(pull("T", 100).status == .offsetOverflowOne && pull("T", 100).nextBeginOffset.rawValue == 100)
        #expect(pull("T", 170).status == .offsetOverflowBadly && pull("T", 170).nextBeginOffset.rawValue == 100)
        #expect(pull("T", -1).status == .offsetTooSmall && pull("T", -1).nextBeginOffset.rawValue == 0)
        let found = pull("T", 10, 7)
        #expect(
            found.status == .found && found.messageCount == 7 && found.nextBeginOffset.rawValue == 17
                && found.maxOffset.rawValue == 100)
        #expect(pull("T", 0, 1000).messageCount == 32)
        let none = Array("T".utf8).withUnsafeBytes {
            harness.store.getMessages(topic: $0, queueID: 0, from: QueueOffset(0), maxCount: 32, tagsCodes: [5]) { _ in
            }
        }
        #expect(none.status == .noMatchedMessage && none.nextBeginOffset.rawValue == 100)
    }
}
