import Foundation
import LinuxSystem
import Logging
import MessageModel
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// A log that seems empty beside queues, index, checkpoint or offsets is a wrong mount: the store does not open, and
/// nothing is deleted.
@Suite("an empty log beside what knows of messages") struct EmptyLogTests {
    private final class Folder {
        let path = NSTemporaryDirectory() + "apus-empty-log-\(UUID().uuidString)"
        deinit { try? FileManager.default.removeItem(atPath: path) }

        func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: "\(path)/\(name)") }
        func make(_ name: String, _ text: String = "") throws {
            try FileManager.default.createDirectory(
                atPath: ("\(path)/\(name)" as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try text.write(toFile: "\(path)/\(name)", atomically: false, encoding: .utf8)
        }
        /// Every file below with its bytes, but for the lock.
        var contents: [String: Data] {
            var found: [String: Data] = [:]
            for case let name as String in FileManager.default.enumerator(atPath: path) ?? .init() where name != "lock"
            {
                found[name] = FileManager.default.contents(atPath: "\(path)/\(name)")
            }
            return found
        }
    }

    private func store(_ folder: Folder, log: String? = nil, isSlave: Bool = false) throws -> MessageStore {
        let settings = [
            "mappedFileSizeCommitLog": "65536", "mappedFileSizeConsumeQueue": "2000", "maxHashSlotNum": "100",
            "maxIndexNum": "400", "storePathCommitLog": log ?? "", "brokerRole": isSlave ? "SLAVE" : "ASYNC_MASTER",
        ]
        var logger = Logger(label: "empty-log")
        logger.logLevel = .critical
        return MessageStore(
            configuration: try StoreConfiguration(storePathRootDir: folder.path) { settings[$0] }, disk: RealDisk(),
            logger: logger, executor: { $0() })
    }

    @Test("the very first message could not be written: a start does not miss it")
    func firstMessageFailed() throws {
        let clock = TestClock()
        let disk = SimulatedDisk(now: { clock.now })
        let harness = Harness(.small("/store"), disk: disk, clock: clock)
        try harness.store.open()
        disk.fault.withLock { $0 = { call, path in call == "pwrite" && path.contains("commitlog") ? 28 : nil } }
        harness.send("T", body: "lost")
        #expect(throws: StoreError.self) { try harness.store.commitTick() }
        disk.fault.withLock { $0 = nil }
        harness.maintain(70_000)
        try harness.store.close()
        let next = Harness(.small("/store"), disk: disk, clock: clock)
        try next.store.open()
        next.send("T", body: "first")
        try next.store.commitTick()
        #expect(next.bodies("T") == ["first"])
        try next.store.close()
    }

    /// Ten messages with keys, an orderly end.
    private func filled() throws -> Folder {
        let folder = Folder()
        let store = try store(folder)
        try store.open()
        for number in 0..<10 {
            let body = Array("message \(number)".utf8)
            let properties = Array("KEYS\u{1}k\(number)\u{2}".utf8)
            let host = HostAddress(ipv4: 0x7F00_0001, port: 1)
            let outcome = Array("T".utf8).withUnsafeBytes { topic in
                body.withUnsafeBytes { body in
                    properties.withUnsafeBytes { properties in
                        var draft = MessageDraft(topic: topic, queueID: 0, bornHost: host, storeHost: host, body: body)
                        draft.properties = properties
                        return store.append(draft)
                    }
                }
            }
            guard case .appended = outcome else {
                Issue.record("\(outcome)")
                continue
            }
        }
        try store.commitTick()
        try store.close()
        return folder
    }

    private func refusal(_ folder: Folder, log: String? = nil, isSlave: Bool = false) throws -> String? {
        let store = try store(folder, log: log, isSlave: isSlave)
        do throws(StoreError) {
            try store.open()
        } catch {
            return "\(error)"
        }
        try store.close()
        return nil
    }

    @Test("the log's disk is not mounted: refused with a message, and every file is as it was")
    func missingLog() throws {
        let folder = try filled()
        let kept = folder.path + "-log"
        try FileManager.default.moveItem(atPath: folder.path + "/commitlog", toPath: kept)
        defer { try? FileManager.default.removeItem(atPath: kept) }
        let before = folder.contents
        #expect(before.keys.contains { $0.hasPrefix("consumequeue/T/0/") })
        let text = try #require(try refusal(folder))
        #expect(text.contains("the queue T/0 has entries") && text.contains("\(folder.path)/commitlog"))
        #expect(text.contains("is its disk mounted") && text.contains("\(folder.path)/begin-anew"))
        #expect(folder.contents == before)
        // With its disk back everything is there, and the end before counts as orderly.
        try FileManager.default.moveItem(atPath: kept, toPath: folder.path + "/commitlog")
        let store = try store(folder)
        try store.open()
        #expect(store.findConsumeQueue(topic: try TopicName("T"), queueID: 0).maxOffset == QueueOffset(10))
        try store.close()
    }

    @Test("a wrong storePathCommitLog: the same, after a kill, too")
    func otherFolder() throws {
        let folder = try filled()
        try folder.make("abort")
        let before = folder.contents
        #expect(try refusal(folder, log: folder.path + "/elsewhere")?.contains("T/0 has entries") == true)
        #expect(folder.contents == before)
        #expect(try refusal(folder) == nil)
    }

    @Test("a first file of zeros, as Java makes it on a wrong mount, is an empty log as well")
    func zeros() throws {
        let folder = try filled()
        let file = "commitlog/00000000000000000000"
        let size = try #require(folder.contents[file]?.count)
        try Data(count: size).write(to: URL(fileURLWithPath: "\(folder.path)/\(file)"))
        let before = folder.contents
        #expect(try refusal(folder)?.contains("T/0 has entries") == true)
        #expect(folder.contents == before)
    }

    @Test(
        "without queues the index, the checkpoint or consumers' offsets tell; offsets of 0 and a slave's tell nothing")
    func otherEvidence() throws {
        let folder = try filled()
        for name in ["commitlog", "consumequeue"] { try folder.remove(name) }
        #expect(try refusal(folder)?.contains("index file") == true)
        try folder.remove("index")
        #expect(try refusal(folder)?.contains("checkpoint") == true)
        try folder.remove("checkpoint")
        try folder.make("config/consumerOffset.json", #"{"offsetTable":{"T@G":{0:5}}}"#)
        #expect(try refusal(folder)?.contains("T@G in consumerOffset.json") == true)
        #expect(try refusal(folder, isSlave: true) == nil)
        // A table of many offsets, as deep as a start reads it.
        let padding = String(repeating: "x", count: 65 << 20)
        let deep = String(repeating: "[", count: 68) + String(repeating: "]", count: 68)
        try folder.make("config/consumerOffset.json", #"{"y":\#(deep),"x":"\#(padding)","offsetTable":{"T@G":{0:5}}}"#)
        #expect(try refusal(folder)?.contains("T@G in consumerOffset.json") == true)
        try folder.make("config/consumerOffset.json", #"{"offsetTable":{"T@G":{0:0}}}"#)
        #expect(try refusal(folder) == nil)
    }

    @Test("begin-anew is the operator's word: the store begins at 0, offsets go with the messages, and it counts once")
    func beginAnew() throws {
        let folder = try filled()
        try folder.remove("commitlog")
        try folder.make("config/consumerOffset.json", #"{"offsetTable":{"T@G":{0:5}}}"#)
        try folder.make("config/topics.json", "{}")
        try folder.make("begin-anew")
        let store = try store(folder)
        try store.open()
        #expect(store.findConsumeQueue(topic: try TopicName("T"), queueID: 0).maxOffset == QueueOffset(0))
        try store.close()
        let names = Set(folder.contents.keys)
        #expect(!names.contains("begin-anew") && !names.contains("config/consumerOffset.json"))
        #expect(names.contains("config/topics.json"))
        #expect(try refusal(folder) == nil)
    }

    @Test("beside a log with messages begin-anew removes nothing but itself")
    func beginAnewBesideMessages() throws {
        let folder = try filled()
        try folder.make("begin-anew")
        try folder.make("config/consumerOffset.json", #"{"offsetTable":{"T@G":{0:5}}}"#)
        let store = try store(folder)
        try store.open()
        #expect(store.findConsumeQueue(topic: try TopicName("T"), queueID: 0).maxOffset == QueueOffset(10))
        try store.close()
        #expect(folder.contents["begin-anew"] == nil && folder.contents["config/consumerOffset.json"] != nil)
    }

    @Test("a store that never had a message opens again and again, after a kill as well")
    func neverUsed() throws {
        let folder = Folder()
        for _ in 0..<3 { #expect(try refusal(folder) == nil) }
        try folder.make("abort")
        #expect(try refusal(folder) == nil)
    }
}
