import BrokerService
import Foundation
import MessageStore
import RemotingProtocol
import StoreFormat
import TestFolders
import TestTools
import Testing

/// A folder Apache RocketMQ 5.3.3 has left, with timer messages: three that were delivered, one that was recalled, and
/// 110 of POP consumption's own.
@Suite("timer messages of a 5.3.3 folder") struct TimerTakeoverTests {
    static let settings = [
        ("mappedFileSizeCommitLog", "67108864"), ("mappedFileSizeConsumeQueue", "60000"),
        ("fileReservedTime", "1000000"), ("listenPort", "33911"),
    ]

    /// The golden folder, unpacked.
    static func folder() throws -> URL {
        let place = try TestFolder.make("broker")
        let tar = Process()
        tar.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        let archive = GoldenFlow.folder.deletingLastPathComponent().appendingPathComponent("store/golden-5.3.3.tar.gz")
        tar.arguments = ["tar", "-xzf", archive.path, "--strip-components=1", "-C", place.path]
        try tar.run()
        tar.waitUntilExit()
        #expect(tar.terminationStatus == 0)
        return place
    }

    private struct Counts: Equatable {
        var timers: Int
        var recalled: Int
        var pop: Int
    }

    private func counts(_ harness: BrokerHarness) throws -> Counts {
        try harness.onLoop { broker in
            func count(_ topic: String) -> Int {
                broker.store.consumeQueues.filter { $0.topic == topic }
                    .reduce(0) { $0 + Int($1.maxOffset.rawValue - $1.minOffset.rawValue) }
            }
            return Counts(
                timers: count("F5_timer_s1szo"), recalled: count("F5_recall_s29w0"),
                pop: count("rmq_sys_REVIVE_LOG_DefaultCluster"))
        }
    }

    @Test("what Apache has delivered or recalled does not come again, also right after its last delivery")
    func delivered() throws {
        let harness = try BrokerHarness(Self.settings, folder: try Self.folder())
        defer { try? harness.end() }
        // Time passes, in which they could come.
        usleep(1_500_000)
        #expect(try counts(harness) == Counts(timers: 3, recalled: 0, pop: 110))
        // A message of our own goes its way.
        let connection = try harness.connect()
        let sent = try connection.send(
            topic: "F5_timer_s1szo", queueID: 0, body: "ours",
            properties: RawConnection.properties("TIMER_DELAY_MS=300"))
        #expect(sent.code == 0)
        try eventually { try counts(harness).timers == 4 }
    }

    /// The log ends behind the three timers that were sent and before any was delivered, as `kill -9` would leave it.
    @Test("what Apache had not delivered is delivered, once, and not again by the next start")
    func pending() throws {
        let folder = try Self.folder()
        let log = folder.appendingPathComponent("commitlog/00000000000000000000")
        // All records from the first delivery on are gone; the note says that nothing due in 2026-11-21 07:45:25 was
        // read.
        let cut = try firstDelivery(log)
        let file = try FileHandle(forWritingTo: log)
        let size = try file.seekToEnd()
        try file.truncate(atOffset: cut)
        try file.truncate(atOffset: size)
        try file.close()
        try Data().write(to: folder.appendingPathComponent("abort"))
        try? FileManager.default.removeItem(at: folder.appendingPathComponent("checkpoint"))
        var note = Data(count: 4096)
        withUnsafeBytes(of: Int64(1_795_247_122_000).bigEndian) { note.replaceSubrange(0..<8, with: $0) }
        try note.write(to: folder.appendingPathComponent("config/timercheck"))
        var harness = try BrokerHarness(Self.settings, folder: folder)
        try eventually(within: .seconds(10)) { try counts(harness).timers == 3 }
        // Time passes, in which more could come.
        usleep(300_000)
        #expect(try counts(harness).timers == 3)
        #expect(
            try (1...3).flatMap { try harness.stored("F5_timer_s1szo", queueID: $0) }.map {
                $0.properties["TIMER_OUT_MS"]
            }
                == ["1795247125000", "1795247127000", "1795247130000"])
        try harness.drain()
        harness = try BrokerHarness(Self.settings, folder: folder)
        defer { try? harness.end() }
        // Time passes, in which they could come again.
        usleep(500_000)
        #expect(try counts(harness).timers == 3)
    }

    private func firstDelivery(_ log: URL) throws -> UInt64 {
        let data = try Data(contentsOf: log, options: .mappedIfSafe)
        return data.withUnsafeBytes { bytes in
            var offset = 0
            while case .record(let record) = CommitLogRecord.parse(UnsafeRawBufferPointer(rebasing: bytes[offset...])) {
                if String(decoding: record.topic, as: UTF8.self) == "F5_timer_s1szo" { break }
                offset += record.totalSize
            }
            return UInt64(offset)
        }
    }
}
