import BrokerService
import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

/// APUS_EDIT_MESSAGE (31002): what becomes of one message, and what is refused.
@Suite struct EditMessageTests {
    private func edit(
        _ connection: RawConnection, _ operation: String, _ message: [String: String], _ fields: [String: String] = [:],
        body: String? = nil
    ) throws -> RemotingCommand { try connection.edit(operation, message, fields, body: body) }

    private func place(_ topic: String, _ offset: Int) -> [String: String] { RawConnection.place(topic, offset) }

    private func status(_ connection: RawConnection, _ message: [String: String]) throws -> JSONValue {
        try connection.status(ofMessage: message)
    }

    private func edits(_ connection: RawConnection, _ message: [String: String]) throws -> [String] {
        try connection.edits(message)
    }

    private func send(
        _ connection: RawConnection, _ topic: String, _ body: String, _ properties: String = ""
    ) throws -> RemotingCommand { try connection.send(topic, body, properties) }

    private func commit(_ connection: RawConnection, _ group: String, _ topic: String, _ to: Int) throws {
        try connection.commit(group, topic, to)
    }

    private static func time() -> Int64 { Int64(Date().timeIntervalSince1970 * 1000) }

    @Test("a stored message is edited, twice, and deleted; its trail says so; a kill changes nothing of it")
    func stored() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for number in 0..<4 {
            _ = try send(connection, "Edited", "sent \(number)", "UNIQ_KEY=u\(number);KEYS=k\(number);TAGS=a")
        }
        let id = ["topic": "Edited", "msgId": "u1"]
        let first = try edit(connection, "edit", id, ["tags": "b"], body: "second")
        #expect(first.code == 0, "\(first.remark ?? "")")
        #expect(first.extFields["version"] == "2" && first.extFields["queueOffset"] == "1")
        #expect(first.extFields["consumedBy"] == nil && first.extFields["uniqueKey"] == "u1")
        let properties = RawConnection.properties("region=eu")
        let second = try edit(
            connection, "edit", place("Edited", 1), ["version": "2", "properties": properties, "keys": "", "by": "bob"])
        #expect(second.extFields["version"] == "3", "\(second.remark ?? "")")
        #expect(try edit(connection, "delete", place("Edited", 2)).code == 0)
        func check(_ connection: RawConnection) throws {
            let messages = try connection.consume("Edited")
            #expect(messages.map(\.body) == ["sent 0", "second", "sent 3"])
            #expect(messages.map(\.queueOffset) == [0, 1, 3])
            #expect(try edits(connection, id) == ["edit alice (body tags)", "edit bob (keys region)"])
            let deleted = try status(connection, ["topic": "Edited", "msgId": "u2"])
            #expect(deleted["deleted"]?.bool == true)
            #expect(try edits(connection, place("Edited", 2)) == ["delete alice ()"])
        }
        try check(connection)
        let next = try harness.afterKill()
        defer { try? next.end() }
        try check(try next.connect())
        // Each refusal says why.
        let version = try edit(connection, "edit", id, ["version": "2"], body: "x")
        #expect(version.code != 0 && version.remark?.contains("version 3 stands") == true, "\(version.remark ?? "")")
        let gone = try edit(connection, "edit", place("Edited", 2), body: "x")
        #expect(gone.remark?.contains("deleted, by alice") == true, "\(gone.remark ?? "")")
        let waits = try edit(connection, "cancel", place("Edited", 0))
        #expect(waits.remark?.contains("delete it instead") == true, "\(waits.remark ?? "")")
    }

    @Test("what makes no sense is refused in words")
    func refusals() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try send(connection, "T", "m", "UNIQ_KEY=u")
        let message = place("T", 0)
        let separated = "UNIQ_KEY\u{1}x\u{2}"
        let cases: [(String, [String: String], String)] = [
            ("burn", [:], "no operation 'burn'"), ("edit", [:], "nothing is to be changed"),
            ("edit", ["tags": "a", "by": ""], "by names who"), ("edit", ["tags": "a", "by": "a\nb"], "by names who"),
            ("edit", ["tags": "a", "by": String(repeating: "b", count: 65)], "by names who"),
            ("edit", ["tags": "a\u{2}b"], "separates properties"),
            ("edit", ["properties": separated], "UNIQ_KEY cannot"),
            ("edit", ["properties": "nothing"], "one of them is not"), ("reschedule", [:], "deliverAt is missing"),
            ("reschedule", ["deliverAt": "5"], "deliverAt is over"),
            ("reschedule", ["deliverAt": String(Int64.max)], "timerMaxDelaySec"),
            ("retries", [:], "retries is missing"), ("retries", ["retries": "-1"], "retries is missing"),
            ("delete", ["tags": "a"], "no content to be changed"),
            ("retries", ["retries": "1", "tags": "a"], "changes no content"),
            ("delete", ["deliverAt": "5"], "deliverAt belongs to"),
            ("edit", ["tags": "a", "retries": "1"], "retries belongs"),
        ]
        for (operation, fields, reason) in cases {
            let answer = try edit(connection, operation, message, fields)
            #expect(answer.code != 0 && answer.remark?.contains(reason) == true, "\(operation): \(answer.remark ?? "")")
        }
        #expect(try edit(connection, "delete", place("T", 9)).code == ResponseCode.queryNotFound.rawValue)
        #expect(try edit(connection, "delete", ["offset": "77"]).code == ResponseCode.queryNotFound.rawValue)
        #expect(try connection.all("T").map(\.body) == ["m"])
    }

    @Test("a client that has it is named; a group that has consumed it is, too")
    func consumers() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for number in 0..<2 { _ = try send(connection, "Popped", "m\(number)") }
        let popped = try connection.pop(RawConnection.popFields(topic: "Popped", count: 1, invisible: 60_000))
        let held = try edit(connection, "edit", place("Popped", 0), body: "x")
        #expect(held.code != 0 && held.remark?.contains("group G consumes it at the moment") == true)
        try commit(connection, "Pulling", "Popped", 1)
        #expect(try connection.acknowledge(popped.messages[0], topic: "Popped") == 0)
        // Both have it behind them.
        try eventually("the acknowledgement counts") {
            try edit(connection, "edit", place("Popped", 0), body: "x").remark?.contains("every group has consumed")
                == true
        }
        // One has not.
        try commit(connection, "Late", "Popped", 0)
        let edited = try edit(connection, "edit", place("Popped", 0), body: "for Late")
        #expect(edited.code == 0 && edited.extFields["consumedBy"] == "G,Pulling", "\(edited)")
        #expect(try connection.all("Popped").map(\.body) == ["for Late", "m1"])
        // What is edited before its pop is popped so; what is deleted is not popped.
        #expect(try edit(connection, "edit", place("Popped", 1), body: "edited").code == 0)
        _ = try send(connection, "Popped", "m2")
        _ = try send(connection, "Popped", "m3")
        #expect(try edit(connection, "delete", place("Popped", 2)).code == 0)
        let next = try connection.pop(RawConnection.popFields(topic: "Popped", count: 8, invisible: 60_000))
        #expect(next.messages.map(\.offset) == [1, 3])
    }

    @Test("a delayed message is edited, cancelled and rescheduled where it waits")
    func delayed() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "2s 1h")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        for number in 0..<3 { _ = try send(connection, "Later", "sent \(number)", "DELAY=1;UNIQ_KEY=d\(number)") }
        _ = try send(connection, "Later", "far", "DELAY=2;UNIQ_KEY=far")
        func id(_ key: String) -> [String: String] { ["topic": "Later", "msgId": key] }
        #expect(try edit(connection, "edit", id("d0"), ["tags": "t"], body: "edited 0").code == 0)
        #expect(try edit(connection, "cancel", id("d1")).code == 0)
        let due = Self.time() + 1500
        let far = try edit(connection, "reschedule", id("far"), ["deliverAt": String(due), "by": "carol"])
        #expect(far.code == 0 && far.extFields["deliverAt"] == String(due), "\(far.remark ?? "")")
        let waits = try status(connection, id("far"))
        #expect(waits["waits"]?.bool == true && waits["until"]?.integer == due)
        let found = try connection.wait("Later", count: 3)
        #expect(Set(found.map(\.body)) == ["edited 0", "sent 2", "far"])
        #expect(try edits(connection, id("d0")) == ["edit alice (body tags)"])
        #expect(try edits(connection, id("d1")) == ["cancel alice ()"])
        #expect(try edits(connection, id("far")).first?.hasPrefix("reschedule carol") == true)
        // Time passes, in which the withdrawn one could come.
        usleep(500_000)
        #expect(try connection.all("Later").count == 3)
    }

    @Test("a timer message is edited, cancelled and rescheduled in the wheel; a stored one waits again")
    func timer() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let start = Self.time()
        for (key, delay) in [("t0", 2500), ("t1", 2500), ("t2", 3_600_000)] {
            _ = try send(connection, "Timed", key, "TIMER_DELIVER_MS=\(start + Int64(delay));UNIQ_KEY=\(key)")
        }
        _ = try send(connection, "Timed", "stored", "UNIQ_KEY=s")
        func id(_ key: String) -> [String: String] { ["topic": "Timed", "msgId": key] }
        #expect(try edit(connection, "edit", id("t0"), body: "edited").code == 0)
        #expect(try edit(connection, "edit", id("t0"), ["by": "bob"], body: "edited twice").code == 0)
        #expect(try edit(connection, "cancel", id("t1")).code == 0)
        let due = String(start + 2000)
        #expect(try edit(connection, "reschedule", id("t2"), ["deliverAt": due]).code == 0)
        #expect(try edit(connection, "reschedule", id("s"), ["deliverAt": due]).code == 0)
        #expect(try connection.all("Timed").isEmpty)
        try eventually("all that is due has come") { try connection.consume("Timed").count >= 3 }
        // Time passes, in which what was stopped could come.
        usleep(1_000_000)
        let found = try connection.consume("Timed").map(\.body)
        #expect(found.count == 3 && Set(found) == ["edited twice", "t2", "stored"], "\(found)")
        #expect(try edits(connection, id("t0")) == ["edit alice (body)", "edit bob (body)"])
    }

    @Test("a prepared message is committed as it was edited; a withdrawn one never appears")
    func prepared() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        func prepare(_ key: String) throws -> RemotingCommand {
            try connection.send(
                topic: "Paid", bytes: Array(key.utf8),
                properties: RawConnection.properties("TRAN_MSG=true;UNIQ_KEY=\(key);PGROUP=PG"))
        }
        let first = try prepare("p0")
        let second = try prepare("p1")
        func id(_ key: String) -> [String: String] { ["topic": "Paid", "msgId": key] }
        #expect(try edit(connection, "edit", id("p0"), body: "edited").code == 0)
        #expect(try edit(connection, "cancel", id("p1")).code == 0)
        let later = try edit(connection, "reschedule", id("p0"), ["deliverAt": String(Self.time() + 60_000)])
        #expect(later.code != 0 && later.remark?.contains("outcome of its transaction") == true)
        #expect(try connection.end(first).code == 0)
        _ = try connection.end(second)
        #expect(try connection.wait("Paid", count: 1).map(\.body) == ["edited"])
        #expect(try connection.all("Paid").count == 1)
        #expect(try edits(connection, id("p0")).count == 1)
    }

    @Test("deliveries that count as made, and sending once more")
    func retriesAndResend() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s 1h")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeGroup("G", retryQueues: 1).code == 0)
        let sent = try send(connection, "Tried", "m", "UNIQ_KEY=u;TAGS=a")
        let offset = try #require(OffsetMessageID.parse(sent.extFields["msgId"] ?? "")?.physicalOffset)
        #expect(try connection.sendBack("G", offset: offset, delayLevel: 2).code == 0)
        let waiting = ["topic": "%RETRY%G", "msgId": "u"]
        #expect(try status(connection, waiting)["waits"]?.bool == true)
        let changed = try edit(connection, "retries", waiting, ["retries": "7"])
        #expect(changed.code == 0, "\(changed.remark ?? "")")
        #expect(try edits(connection, waiting) == ["retries alice (retries)"])
        #expect(try connection.sendBack("G", offset: offset, delayLevel: -1).code == 0)
        let letters = ["topic": "%DLQ%G", "queueId": "0", "queueOffset": "0"]
        let again = try edit(connection, "resend", letters, body: "mended")
        #expect(again.code == 0 && again.extFields["topic"] == "Tried", "\(again.remark ?? "")")
        let queueID = try #require(again.extFields["queueId"].flatMap { Int32($0) })
        let found = try connection.all("Tried", queueID: queueID)
        let copy = try #require(found.first { $0.body == "mended" })
        #expect(copy.properties["APUS_RESENT_FROM"] == "u" && copy.properties["TAGS"] == "a")
        #expect(copy.properties["UNIQ_KEY"] == again.extFields["uniqueKey"] && copy.properties["RETRY_TOPIC"] == nil)
        #expect(again.extFields["uniqueKey"]?.count == 32 && copy.properties["ORIGIN_MESSAGE_ID"] == nil)
    }
}
