import BrokerService
import Foundation
import RemotingProtocol
import TestTools
import Testing

/// Prepared messages that were withdrawn or edited, read again by a start.
@Suite struct WithdrawnTransactionTests {
    /// Bytes this process has had resident at most.
    private static func peak() throws -> Int {
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") })
        return try #require(line.split(whereSeparator: { !$0.isNumber }).first.flatMap { Int($0) }) * 1024
    }

    @Test("after a kill a withdrawn one is skipped, an edited one committed as it was edited, others as they were")
    func afterKill() throws {
        let settings = [("transactionTimeOut", "60000")]
        let harness = try BrokerHarness(settings)
        defer { try? harness.end() }
        let connection = try harness.connect()
        func edit(_ operation: String, _ key: String, body: String? = nil) throws {
            var fields = ["topic": "Paid", "msgId": key, "operation": operation, "by": "alice"]
            if body != nil { fields["hasBody"] = "true" }
            let answer = try connection.invoke(.editMessage, fields, body: Array((body ?? "").utf8))
            #expect(answer.code == 0, "\(key): \(answer.remark ?? "")")
        }
        let prepared = try ["p0", "p1", "p2"].map { key in
            try connection.send(
                topic: "Paid", bytes: Array(key.utf8),
                properties: RawConnection.properties("TRAN_MSG=true;UNIQ_KEY=\(key);PGROUP=PG"))
        }
        try edit("edit", "p0", body: "edited")
        try edit("cancel", "p1")
        let before = try Self.peak()
        let next = try harness.afterKill()
        let again = try next.connect()
        for answer in [prepared[2], prepared[0]] { #expect(try again.end(answer).code == 0) }
        _ = try again.end(prepared[1])
        #expect(try again.wait("Paid", count: 2).map(\.body) == ["p2", "edited"])
        // A deleted entry names 2 GiB, which are not asked for.
        #expect(try Self.peak() - before < 1 << 30)
        #expect(try again.all("Paid").count == 2)
        try next.drain()
        let report = try StoreSurvey.read(next.folder.path)
        #expect(report.openTransactions == 0 && report.edits.deleted == 0, "\(report.edits)")
        try FileManager.default.removeItem(at: next.folder)
    }
}
