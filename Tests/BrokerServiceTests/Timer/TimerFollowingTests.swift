import BrokerService
import Foundation
import MessageStore
import RemotingProtocol
import StoreFormat
import TestTools
import Testing
import WorkerProtocol

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
