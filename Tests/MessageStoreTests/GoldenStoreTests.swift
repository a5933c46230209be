import Foundation
import LinuxSystem
import StoreFormat
import Testing

@testable import MessageStore

/// Stores that Apache RocketMQ wrote are served as Apache would serve them.
@Suite struct GoldenStoreTests {
    @Test(arguments: ["clean", "killed"])
    func everyMessageIsServed(_ kind: String) throws {
        let folder = try TemporaryFolder()
        let path = try folder.unpack("golden-4.9.8-\(kind).tar.gz", folder: "golden-\(kind)")
        let manifest = try Fixture.manifest("manifest-\(kind).json.gz")
        let harness = Harness(.golden(path))
        try harness.store.open()
        defer { try? harness.store.close() }
        var found = 0
        for message in manifest where !message.kind.hasPrefix("tx") {
            let at = try #require(message.commitLogOffset)
            // By offset id.
            let range = try #require(harness.store.lookMessage(at: PhysicalOffset(Int64(at))), "\(message)")
            let record = try #require(harness.store.withBytes(range) { Record(Array($0)[...]) } ?? nil)
            #expect(record.properties["UNIQ_KEY"] == message.msgID)
            #expect(record.flag == message.flag)
            if record.sysFlag & 1 == 0, let body = message.body {
                #expect(String(decoding: record.body, as: UTF8.self) == body)
            }
            // By queue.
            if !message.kind.hasPrefix("delay") {
                let queue = try #require(
                    harness.store.consumeQueue(topic: message.topic, queueID: Int32(message.queueID)))
                let entry = harness.store.entries(queue, from: QueueOffset(Int64(message.queueOffset)), maxCount: 1)
                #expect(entry.first?.physicalOffset.rawValue == Int64(at))
                #expect(entry.first?.tagsCode == TagsCode.of(message.tags ?? ""))
            }
            // By unique key, and by key, within the time window.
            let topic = record.topic
            let byUniqueKey = harness.store.queryMessage(
                topic: topic, key: message.msgID, maxCount: 32, begin: Int64(record.storeTime),
                end: Int64(record.storeTime))
            #expect(byUniqueKey.records.contains { $0.start.rawValue == Int64(at) }, "\(message)")
            for key in (message.keys ?? "").split(separator: " ") {
                let byKey = harness.store.queryMessage(
                    topic: topic, key: String(key), maxCount: 64, begin: Int64(record.storeTime),
                    end: Int64(record.storeTime))
                #expect(byKey.records.contains { $0.start.rawValue == Int64(at) }, "\(key) of \(message)")
            }
            found += 1
        }
        #expect(found == manifest.count - 12)
        // Half messages: their producer was not told where they lie.
        for message in manifest where message.kind.hasPrefix("tx") {
            let half = harness.store.queryMessage(
                topic: "RMQ_SYS_TRANS_HALF_TOPIC", key: message.msgID, maxCount: 32, begin: 0, end: .max)
            #expect(half.records.count == 1)
        }
    }

    /// Apache was killed and the machine has run on: nothing is replayed but what it had not dispatched, and queues and
    /// index are as it left them.
    @Test func killedApacheIsTakenOverAtOnce() throws {
        let folder = try TemporaryFolder()
        let path = try folder.unpack("golden-4.9.8-killed.tar.gz", folder: "golden-killed")
        let manifest = try Fixture.manifest("manifest-killed.json.gz")
        let configuration = StoreConfiguration.golden(path)
        let indexBefore = try Self.indexEntries(path, configuration)
        let queuesBefore = try Self.files(path + "/consumequeue")
        // Made when Apache was started, after the machine was.
        try FileManager.default.setAttributes([.modificationDate: Date()], ofItemAtPath: path + "/abort")
        let anHourAgo = Int64(Date().timeIntervalSince1970 * 1000) - 3_600_000
        let harness = Harness(configuration, machineStart: anHourAgo)
        try harness.store.open()
        let end = harness.store.writtenOffset.rawValue
        #expect(
            end > 0 && harness.store.recoveredFrom.rawValue > end - 100_000,
            "\(harness.store.recoveredFrom.rawValue) of \(end)")
        for message in manifest where !message.kind.hasPrefix("tx") {
            let at = Int64(try #require(message.commitLogOffset))
            let range = try #require(harness.store.lookMessage(at: PhysicalOffset(at)))
            let record = try #require(harness.store.withBytes(range) { Record(Array($0)[...]) } ?? nil)
            let found = harness.store.queryMessage(
                topic: record.topic, key: message.msgID, maxCount: 32, begin: Int64(record.storeTime),
                end: Int64(record.storeTime))
            #expect(found.records.contains { $0.start.rawValue == at })
        }
        // A second kill, now of Apus, before it has written anything: its queues are not in the order of the log, so
        // they are not trusted like Apache's.
        harness.store.abandon()
        let second = Harness(configuration, machineStart: anHourAgo)
        try second.store.open()
        #expect(second.store.recoveredFrom.rawValue > end - 100_000)
        second.maintain()
        second.store.abandon()
        try FileManager.default.removeItem(atPath: path + "/consumequeue/.apus-recovery")
        let third = Harness(configuration, machineStart: anHourAgo)
        try third.store.open()
        // RocketMQ's own rules: from the log file the checkpoint covers, and from where the index made good ends.
        #expect(third.store.recoveredFrom.rawValue <= 1_048_576)
        try third.store.close()
        #expect(try Self.indexEntries(path, configuration) == indexBefore)
        let queuesAfter = try Self.files(path + "/consumequeue")
        for (name, bytes) in queuesBefore { #expect(queuesAfter[name] == bytes, "\(name)") }
    }

    @Test func store5IsServed() throws {
        let folder = try TemporaryFolder()
        let path = try folder.unpack("golden-5.3.3.tar.gz", folder: "store-cap5")
        let harness = Harness(.golden5(path))
        try harness.store.open()
        defer { try? harness.store.close() }
        let queues = harness.store.consumeQueues
        #expect(queues.count > 40)
        for queue in queues {
            let records = harness.records(queue.topic, queue.queueID)
            #expect(
                Int64(records.count) == queue.maxOffset.rawValue - queue.minOffset.rawValue,
                "\(queue.topic)-\(queue.queueID)")
            for (index, record) in records.enumerated() {
                #expect(record.topic == queue.topic && record.queueID == Int(queue.queueID))
                #expect(record.queueOffset == index + Int(queue.minOffset.rawValue))
            }
        }
    }

    /// Queues and index deleted: the log alone brings them back, byte for byte what Apache had written.
    @Test(arguments: [("golden-4.9.8-clean.tar.gz", "golden-clean"), ("golden-5.3.3.tar.gz", "store-cap5")])
    func queuesComeBackIdentical(_ fixture: String, _ name: String) throws {
        let folder = try TemporaryFolder()
        let path = try folder.unpack(fixture, folder: name)
        let configuration: StoreConfiguration = name == "golden-clean" ? .golden(path) : .golden5(path)
        let before = try Self.files(path + "/consumequeue")
        try FileManager.default.removeItem(atPath: path + "/consumequeue")
        let indexBefore = try Self.indexEntries(path, configuration)
        try FileManager.default.removeItem(atPath: path + "/index")
        let harness = Harness(configuration)
        try harness.store.open()
        harness.maintain()
        try harness.store.close()
        var after = try Self.files(path + "/consumequeue")
        after[".apus-recovery"] = nil
        // Deleted by mqadmin: its messages are in the log still, and what the log holds comes back.
        after["AdmTopic/3/00000000000000000000"] = nil
        #expect(before.keys.sorted() == after.keys.sorted())
        for (file, bytes) in before { #expect(after[file] == bytes, "\(file)") }
        #expect(try Self.indexEntries(path, configuration) == indexBefore)
    }

    static func files(_ path: String) throws -> [String: Data] {
        var found: [String: Data] = [:]
        for name in try FileManager.default.subpathsOfDirectory(atPath: path) {
            var isDirectory: ObjCBool = false
            _ = FileManager.default.fileExists(atPath: path + "/" + name, isDirectory: &isDirectory)
            if !isDirectory.boolValue { found[name] = try Data(contentsOf: URL(fileURLWithPath: path + "/" + name)) }
        }
        return found
    }

    /// All (hash, physical offset) pairs of all index files, in order.
    static func indexEntries(_ path: String, _ configuration: StoreConfiguration) throws -> [[UInt8]] {
        var found: [[UInt8]] = []
        for name in try FileManager.default.contentsOfDirectory(atPath: path + "/index").sorted() {
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path + "/index/" + name)))
            let count = bytes[36..<40].reduce(0) { $0 << 8 | Int($1) }
            for index in 1..<max(1, count) {
                let at = 40 + 4 * configuration.maxHashSlotNum + 20 * index
                found.append(Array(bytes[at..<(at + 12)]))
            }
        }
        return found
    }
}
