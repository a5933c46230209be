import BrokerService
import Foundation
import MessageStore
import RemotingProtocol
import Testing

@Suite("messages that wait for their time hold the log they lie in")
struct RetentionHoldTests {
    /// Deletes what may be deleted; returns how many files that were.
    private func deleteAll(_ harness: BrokerHarness) throws -> Int {
        try harness.onLoop { broker in
            var deleted = 0
            while broker.store.deleteOldestFile() { deleted += 1 }
            return deleted
        }
    }

    @Test(
        "disk pressure just before a timer or a delayed message is due does not lose it",
        arguments: ["TIMER_DELAY_MS=2500", "DELAY=1"])
    func held(_ kind: String) throws {
        let harness = try BrokerHarness([("mappedFileSizeCommitLog", "65536"), ("maxMessageSize", "32768")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<3 {
            let answer = try connection.send(
                topic: "Due", body: "\(index)", properties: RawConnection.properties("\(kind);UNIQ_KEY=u\(index)"))
            #expect(answer.code == 0, "\(answer.remark ?? "")")
        }
        let filler = String(repeating: "f", count: 16_000)
        for _ in 0..<20 { #expect(try connection.send(topic: "Filler", body: filler).code == 0) }
        // Only what is flushed may go at all.
        try harness.onLoop { $0.store.requestFlush() }
        usleep(200_000)
        #expect(try deleteAll(harness) == 0)
        let delivered = try connection.wait("Due", count: 3)
        #expect(delivered.map(\.body) == ["0", "1", "2"])
        // Delivered, and noted so that a crash does not need them again: now the log goes.
        let deadline = Date().addingTimeInterval(45)
        var deleted = 0
        while deleted == 0, Date() < deadline {
            usleep(200_000)
            deleted = try deleteAll(harness)
        }
        #expect(deleted > 0)
    }
}
