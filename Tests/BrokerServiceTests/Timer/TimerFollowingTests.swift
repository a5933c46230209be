import Foundation
import LinuxSystem
import MessageStore
import RemotingProtocol
import StoreFormat
import TestTools
import Testing
import WorkerProtocol

@testable import BrokerService

@Suite("timer messages in a folder that another program wrote")
struct TimerFollowingTests {
    @Test("without notes of ours, what was due long before the log's last message counts as delivered, the rest comes")
    func takenOver() throws {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        let sent = try connection.send(
            topic: "T", body: "b", properties: RawConnection.properties("TIMER_DELAY_MS=300;UNIQ_KEY=a"))
        #expect(sent.code == 0)
        #expect(try connection.wait("T", count: 1).count == 1)
        _ = try connection.send(topic: "T", body: "c", properties: RawConnection.properties("TIMER_DELAY_MS=3000"))
        try harness.drain()
        // As if a slave's or an older broker's folder: no notes about deliveries.
        try FileManager.default.removeItem(at: harness.folder.appendingPathComponent("apus-timer"))
        let next = try BrokerHarness(folder: harness.folder)
        defer { try? next.end() }
        let again = try next.connect()
        // What was due within the last minute comes again rather than never.
        #expect(try again.wait("T", count: 3).map(\.body) == ["b", "b", "c"])
    }

    @Test("times that are not yet, in a record or in RocketMQ's note, end nothing", arguments: [false, true])
    func timesToCome(_ isNoted: Bool) throws {
        let folder = TemporaryFolder()
        let disk = RealDisk()
        let files = TimerFiles(disk: disk, storePath: folder.path)
        if isNoted {
            try disk.createDirectory(folder.path + "/config")
            let note = try disk.open(folder.path + "/config/timercheck", .create)
            try [UInt8](repeating: 0x7F, count: 32).withUnsafeBytes { try note.write($0, at: 0) }
        }
        let now: Int64 = 1_800_000_000_000
        let standing = try TimerStanding(
            files, progress: nil, first: 0, end: 5, follower: .wasOne, lastStored: { Int64.max }, now: now)
        #expect(standing.progress.watermark.due == (isNoted ? now : now - TimerStanding.deliveryLagMilliseconds))
    }

    @Test("a queue that cannot be read is asked again each second, and goes on where it was")
    func unreadable() throws {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        let sent = try connection.send(
            topic: "T", body: "b", properties: RawConnection.properties("TIMER_DELAY_MS=2000;UNIQ_KEY=a"))
        #expect(sent.code == 0)
        try harness.drain()
        try FileManager.default.removeItem(at: harness.folder.appendingPathComponent("apus-timer"))
        let disk = FailingDisk()
        let log = LogLines()
        let next = try BrokerHarness(
            folder: harness.folder, disk: disk, log: log,
            prepare: { _ in disk.unreadable = "consumequeue/rmq_sys_wheel_timer" })
        defer { try? next.end() }
        let again = try next.connect()
        usleep(2_500_000)
        let attempts = log.lines.filter { $0.contains("rmq_sys_wheel_timer") }.count
        #expect((1...8).contains(attempts), "\(attempts)")
        disk.unreadable = nil
        #expect(try again.wait("T", count: 1).map(\.body) == ["b"])
    }

    @Test("a slave keeps timer messages without delivering them; as master it delivers what is left")
    func promoted() throws {
        let master = try BrokerHarness()
        defer { try? master.end() }
        let connection = try master.connect()
        for (body, delay) in [("b", 300), ("c", 4000), ("far", 7_200_000)] {
            let answer = try connection.send(
                topic: "T", body: body, properties: RawConnection.properties("TIMER_DELAY_MS=\(delay);UNIQ_KEY=\(body)")
            )
            #expect(answer.code == 0)
        }
        #expect(try connection.wait("T", count: 1).map(\.body) == ["b"])
        let end = try master.onLoop { $0.store.writtenOffset.rawValue }
        let log = try Data(
            contentsOf: master.folder.appendingPathComponent("commitlog/00000000000000000000")
        ).prefix(Int(end))
        let slave = try BrokerHarness([("brokerRole", "SLAVE"), ("brokerId", "1")])
        let bytes = [UInt8](log)
        let answer = try slave.onLoop { $0.replicate(at: 0, bytes) }
        #expect(answer == .replicaPosition(next: end))
        let folder = slave.folder.appendingPathComponent("apus-timer")
        func files() -> [String] { (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [] }
        try eventually("files of timers") { files().contains { $0.hasPrefix("h-") || $0.hasPrefix("d-") } }
        #expect(files().contains("follower"))
        #expect(try slave.stored("T").count == 1)
        try slave.drain()
        let promoted = try BrokerHarness(folder: slave.folder)
        defer { try? promoted.end() }
        // What was due within the last minute of the master comes again rather than never.
        try eventually("three messages") { try promoted.stored("T").count >= 3 }
        #expect(try promoted.stored("T").map(\.body) == ["b", "b", "c"])
        #expect(!files().contains("follower"))
    }
}
