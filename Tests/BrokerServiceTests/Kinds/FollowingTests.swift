import Foundation
import RemotingProtocol
import Testing

@Suite("timer messages in a folder somebody else wrote")
struct FollowingTests {
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
}
