import BrokerService
import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

@Suite struct MessageStatusTests {
    private struct NotFound: Error { let code: Int32 }

    private func status(_ connection: RawConnection, _ fields: [String: String]) throws -> JSONValue {
        let answer = try connection.invoke(.getMessageStatus, fields)
        guard answer.code == 0 else { throw NotFound(code: answer.code) }
        return try JSONValue(parsing: answer.body)
    }

    private func group(
        _ connection: RawConnection, _ name: String, _ fields: [String: String]
    ) throws -> JSONValue {
        let groups = try status(connection, fields)["groups"]?.array ?? []
        return try #require(groups.first { $0["group"]?.string == name }, "\(groups)")
    }

    private func events(_ group: JSONValue) -> [String] {
        (group["trail"]?.array ?? []).compactMap { $0["event"]?.string }
    }

    private func place(_ topic: String, _ offset: Int) -> [String: String] {
        ["topic": topic, "queueId": "0", "queueOffset": String(offset)]
    }

    @Test("a group that pops: new, in hand, failed, consumed, each with its steps")
    func popped() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<4 { _ = try connection.send(topic: "Popped", body: "m\(index)") }
        let first = try connection.pop(RawConnection.popFields(topic: "Popped", count: 3, invisible: 60_000))
        #expect(first.messages.count == 3)
        #expect(try connection.acknowledge(first.messages[0], topic: "Popped") == 0)
        #expect(try connection.change(first.messages[1], topic: "Popped", invisible: 50).code == 0)
        try eventually("its time is over") {
            try group(connection, "G", place("Popped", 1))["status"]?.string == "FAIL"
        }
        let consumed = try group(connection, "G", place("Popped", 0))
        #expect(consumed["status"]?.string == "SUCCESS" && consumed["mode"]?.string == "POP")
        #expect(events(consumed) == ["DELIVERED", "ACKNOWLEDGED"])
        let failed = try group(connection, "G", place("Popped", 1))
        #expect(events(failed) == ["DELIVERED", "RESCHEDULED", "TIMED_OUT"] && failed["attempts"]?.integer == 1)
        let held = try group(connection, "G", place("Popped", 2))
        #expect(held["status"]?.string == "ING" && held["attempts"]?.integer == 1)
        let since = try #require(held["since"]?.integer)
        #expect(held["until"]?.integer.map { abs($0 - since - 60_000) < 2000 } == true)
        #expect(held["client"]?.string?.isEmpty == false && events(held) == ["DELIVERED"])
        let new = try group(connection, "G", place("Popped", 3))
        #expect(new["status"]?.string == "NEW" && events(new).isEmpty)
        let again = try connection.pop(RawConnection.popFields(topic: "Popped", count: 1))
        #expect(again.messages.map(\.offset) == [1])
        let second = try group(connection, "G", place("Popped", 1))
        #expect(second["status"]?.string == "ING" && second["attempts"]?.integer == 2)
        #expect(events(second) == ["DELIVERED", "RESCHEDULED", "TIMED_OUT", "DELIVERED"])
        // Another group has not had it; asked for by the offset in the log.
        let physical = try #require(try status(connection, place("Popped", 0))["commitLogOffset"]?.integer)
        let other = try group(connection, "H", ["offset": String(physical), "group": "H"])
        #expect(other["status"]?.string == "NEW" && other["mode"]?.string == "PULL")
    }

    @Test("what is known survives a restart, as far as the setting allows", arguments: [67_108_864, 0])
    func restart(_ bytesMax: Int) throws {
        let settings = [("messageTrailBytesMax", String(bytesMax))]
        let harness = try BrokerHarness(settings)
        let connection = try harness.connect()
        _ = try connection.send(topic: "Kept", body: "m")
        let popped = try connection.pop(RawConnection.popFields(topic: "Kept"))
        #expect(try connection.acknowledge(popped.messages[0], topic: "Kept") == 0)
        try harness.drain()
        let next = try BrokerHarness(settings, folder: harness.folder)
        defer { try? next.end() }
        let found = try group(try next.connect(), "G", place("Kept", 0))
        #expect(found["status"]?.string == "SUCCESS")
        #expect(events(found) == (bytesMax > 0 ? ["DELIVERED", "ACKNOWLEDGED"] : []))
    }

    @Test("a group that pulls: new, consumed, sent back, tried again, dead letter")
    func pulled() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s 1h")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeGroup("G", retryQueues: 1).code == 0)
        let sent = try connection.send(
            topic: "Pulled", body: "m", properties: RawConnection.properties("UNIQ_KEY=key-1"))
        let offset = try #require(OffsetMessageID.parse(sent.extFields["msgId"] ?? "")?.physicalOffset)
        let byID = ["topic": "Pulled", "msgId": "key-1", "group": "G"]
        #expect(try group(connection, "G", byID)["status"]?.string == "NEW")
        func commit(_ topic: String, _ to: Int) throws {
            let fields = ["consumerGroup": "G", "topic": topic, "queueId": "0", "commitOffset": String(to)]
            #expect(try connection.invoke(.updateConsumerOffset, fields).code == 0)
        }
        try commit("Pulled", 1)
        #expect(try group(connection, "G", byID)["status"]?.string == "SUCCESS")
        #expect(try connection.sendBack("G", offset: offset, delayLevel: 2).code == 0)
        let waits = try group(connection, "G", byID)
        #expect(waits["status"]?.string == "FAIL" && waits["attempts"]?.integer == 1)
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        #expect(waits["until"]?.integer.map { abs($0 - now - 3_600_000) < 60_000 } == true)
        #expect(waits["attemptsMax"]?.integer == 16 && events(waits) == ["SENT_BACK"])
        #expect(try connection.sendBack("G", offset: offset, delayLevel: 1).code == 0)
        #expect(try connection.wait("%RETRY%G", count: 1).count == 1)
        let due = try group(connection, "G", byID)
        #expect(due["status"]?.string == "FAIL" && events(due) == ["SENT_BACK", "SENT_BACK", "RETRIED"])
        try commit("%RETRY%G", 1)
        #expect(try group(connection, "G", byID)["status"]?.string == "SUCCESS")
        #expect(try connection.sendBack("G", offset: offset, delayLevel: -1).code == 0)
        let dead = try group(connection, "G", byID)
        #expect(dead["status"]?.string == "FAIL" && dead["deadLetter"]?["topic"]?.string == "%DLQ%G")
        #expect(events(dead).last == "DEAD_LETTER")
    }

    @Test("a delayed message waits until it is there")
    func delayed() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s 1h")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        for (level, key) in [("1", "soon"), ("2", "late")] {
            let properties = RawConnection.properties("DELAY=\(level);UNIQ_KEY=\(key)")
            #expect(try connection.send(topic: "Delayed", body: key, properties: properties).code == 0)
        }
        let late = try status(connection, ["topic": "Delayed", "msgId": "late", "group": "G"])
        #expect(late["waits"]?.bool == true && late["realTopic"]?.string == "Delayed")
        #expect(late["groups"]?.array?.first?["status"]?.string == "WAITING")
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        #expect(late["until"]?.integer.map { abs($0 - now - 3_600_000) < 60_000 } == true)
        #expect(try connection.wait("Delayed", count: 1).map(\.body) == ["soon"])
        let soon = try status(connection, ["topic": "Delayed", "msgId": "soon", "group": "G"])
        #expect(soon["waits"]?.bool == false && soon["topic"]?.string == "Delayed")
        #expect(soon["groups"]?.array?.first?["status"]?.string == "NEW")
    }

    @Test("what is not there is answered with 22, what is no question with 1")
    func refused() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.send(topic: "There", body: "m")
        for fields in [
            ["offset": "1"], ["offset": "-9223372036854775808"], ["offset": "9223372036854775807"],
            place("There", 1), place("There", -1), place("Elsewhere", 0), ["topic": "There", "msgId": "none"],
        ] {
            #expect(try connection.invoke(.getMessageStatus, fields).code == ResponseCode.queryNotFound.rawValue)
        }
        for fields in [[:], ["topic": "There"], ["offset": "x"], ["topic": "There", "queueId": "0"]] {
            #expect(try connection.invoke(.getMessageStatus, fields).code == ResponseCode.systemError.rawValue)
        }
    }
}
