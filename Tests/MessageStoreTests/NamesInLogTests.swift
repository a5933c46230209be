import Foundation
import LinuxSystem
import StoreFormat
import Testing

@testable import MessageStore

/// Names and numbers in records that no broker has checked: a foreign master's, or a damaged log's. The store opens nothing
/// outside of its folder, and the messages behind are served.
@Suite struct NamesInLogTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func append(_ harness: Harness, _ topic: String, queueId: Int32 = 0) -> AppendOutcome {
        Array(topic.utf8).withUnsafeBytes { topic in
            [UInt8](repeating: 7, count: 9).withUnsafeBytes { body in
                harness.store.append(
                    MessageDraft(
                        topic: topic, queueId: queueId, bornHost: HostAddress(ipv4: 1, port: 1),
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
        guard case .refused(.queueId(-1)) = append(harness, "T", queueId: -1) else {
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
        let file = try #require(view.file(base: 0))
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
                BigEndian.store(Int32(-1), base, begin + CommitLogRecord.queueIdPosition)
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
