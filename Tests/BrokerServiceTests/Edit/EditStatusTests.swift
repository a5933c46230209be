import BrokerService
import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

/// What `apus message show` is told of edited messages.
@Suite("the status of edited messages") struct EditStatusTests {
    private func id(_ key: String, _ topic: String = "T") -> [String: String] { ["topic": topic, "msgId": key] }

    @Test(
        "what was withdrawn where it waited waits for nothing",
        arguments: ["DELAY=1", "timer", "TRAN_MSG=true;PGROUP=P"])
    func withdrawn(_ kind: String) throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1h"), ("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let properties = kind == "timer" ? "TIMER_DELIVER_MS=\(RawConnection.nowMilliseconds + 3_600_000)" : kind
        try connection.send("T", "m", "UNIQ_KEY=u;" + properties)
        #expect(try connection.row("G", ofMessage: id("u"))?["status"]?.string == "WAITING")
        #expect(try connection.edit("cancel", id("u")).code == 0)
        let status = try connection.status(ofMessage: id("u").merging(["group": "G"]) { $1 })
        #expect(status["waits"]?.bool == false && status["until"]?.integer == nil && status["realTopic"] == nil)
        #expect(status["deleted"]?.bool == true)
        #expect(status["groups"]?.array?.first?["status"]?.string == "DELETED", "\(status)")
    }

    @Test("a deleted message is none that a group has still to get")
    func deleted() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for body in ["m0", "m1"] { try connection.send("T", body) }
        let place = RawConnection.place("T", 0)
        try connection.commit("Pull", "T", 0)
        #expect(try connection.edit("delete", place).code == 0)
        #expect(try connection.row("Pull", ofMessage: place)?["status"]?.string == "DELETED")
        #expect(try connection.pop(RawConnection.popFields(topic: "T", queueID: 0)).bodies == ["m1"])
        #expect(try connection.row("G", ofMessage: place)?["status"]?.string != "SUCCESS")
        // It may have been consumed before: offsets do not say.
        try connection.commit("Pull", "T", 2)
        #expect(try connection.row("Pull", ofMessage: place)?["status"]?.string == "UNKNOWN")
    }

    @Test("a group's copies are those of whichever version it had")
    func copies() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1h")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeGroup("G", retryQueues: 1).code == 0)
        func offset(_ answer: RemotingCommand) throws -> Int64 {
            try #require(OffsetMessageID.parse(answer.extFields["msgId"] ?? "")?.physicalOffset)
        }
        let first = try offset(connection.send("T", "m", "UNIQ_KEY=u"))
        func state() throws -> (String?, [String]) {
            let row = try connection.row("G", ofMessage: RawConnection.place("T", 0))
            return (row?["status"]?.string, (row?["trail"]?.array ?? []).compactMap { $0["event"]?.string })
        }
        #expect(try connection.sendBack("G", offset: first, delayLevel: 1).code == 0)
        #expect(try state() == ("FAIL", ["SENT_BACK"]))
        // The copy is older than the version that stands now.
        let second = try offset(connection.edit("edit", RawConnection.place("T", 0), body: "edited"))
        #expect(try state() == ("FAIL", ["SENT_BACK"]))
        #expect(try connection.sendBack("G", offset: second, delayLevel: 1).code == 0)
        #expect(try connection.edit("edit", RawConnection.place("T", 0), body: "again").code == 0)
        #expect(try state() == ("FAIL", ["SENT_BACK", "SENT_BACK"]))
        // A copy with another time waits among the timer messages.
        let due = RawConnection.nowMilliseconds + 7_200_000
        let copy = RawConnection.place("SCHEDULE_TOPIC_XXXX", 1)
        #expect(try connection.edit("reschedule", copy, ["deliverAt": String(due)]).code == 0)
        let row = try connection.row("G", ofMessage: RawConnection.place("T", 0))
        #expect(row?["status"]?.string == "FAIL" && row?["until"]?.integer == due, "\(String(describing: row))")
    }
}
