import ArgumentParser
import FastJSON
import RocketMQClient
import Testing

@testable import apus

@Suite("apus message edit, cancel, reschedule, retries, resend, delete") struct MessageEditTests {
    private static let id = "7F00000100002A9F0000000000000000"

    private func edited(
        _ status: SendStatus = .ok, deliverAt: Int64? = nil, consumedBy: [String] = [], leftOut: Int = 0
    ) -> EditedMessage {
        EditedMessage(
            version: 3,
            place: MessageStatus.MessagePlace(
                queue: MessageQueue(topic: "Orders", brokerName: "b", queueID: 1), offset: 7),
            offsetMessageID: Self.id, uniqueID: "u\u{1B}1", deliverAt: deliverAt, consumedBy: consumedBy,
            consumedByLeftOut: leftOut, status: status)
    }

    private func lines(_ operation: MessageEdit.Operation, _ edited: EditedMessage) -> [String] {
        EditedMessageOptions.lines(MessageEdit(operation, by: "alice"), edited)
    }

    @Test("each says what was done, fit for a terminal")
    func lines() {
        let due: Int64 = 1_700_000_060_000
        let time = AdminTime.milliseconds(due)
        #expect(lines(.edit, edited()) == ["edited: version 3 at Orders queue 1 offset 7"])
        #expect(lines(.edit, edited(deliverAt: due)).first?.hasSuffix("; it waits until \(time)") == true)
        #expect(lines(.retries(2), edited()) == ["2 deliveries count as made: version 3 at Orders queue 1 offset 7"])
        #expect(lines(.cancel, edited()) == ["withdrawn: it will not be delivered"])
        #expect(lines(.delete, edited()) == ["deleted: it will not be delivered"])
        #expect(lines(.reschedule(at: due), edited(deliverAt: due)) == ["rescheduled; it waits until \(time)"])
        let again = lines(.resend, edited())
        #expect(again.count == 1 && again[0].hasPrefix("sent once more, as u") && !again[0].contains("\u{1B}"))
    }

    @Test("what disk or slave have not confirmed is done, and said not to be confirmed")
    func unconfirmed() {
        let late: [(SendStatus, String)] = [
            (.flushDiskTimeout, "stored, and not confirmed on disk"),
            (.flushSlaveTimeout, "stored, and not confirmed by a slave (FLUSH_SLAVE_TIMEOUT)"),
            (.slaveNotAvailable, "stored, and not confirmed by a slave (SLAVE_NOT_AVAILABLE)"),
        ]
        for (status, words) in late {
            let said = lines(.delete, edited(status))
            #expect(said.first == "deleted: it will not be delivered" && said.last?.contains(words) == true, "\(said)")
            let json = EditedMessageOptions.json(edited(status))
            #expect(json["status"]?.string == status.rawValue && json["version"]?.integer == 3)
        }
        #expect(EditedMessageOptions.json(edited())["status"]?.string == "SEND_OK")
    }

    @Test("groups that have consumed it are named, and how many more there are")
    func consumed() {
        #expect(
            lines(.edit, edited(consumedBy: ["A", "B"])).last
                == "consumed already by A, B: these groups notice nothing of it")
        let many = edited(consumedBy: ["A"], leftOut: 4)
        #expect(lines(.delete, many).last == "consumed already by A and 4 more: these groups notice nothing of it")
        #expect(EditedMessageOptions.json(many)["consumedByLeftOut"]?.integer == 4)
    }

    @Test("the six commands are understood")
    func understood() throws {
        let all = [Self.id, "--topic", "Orders", "--by", "bob", "--if-version", "2", "--json"]
        let edit = try MessageEditCommand.parse(all + ["--body", "b", "--tags", "", "--property", "a=b"])
        #expect(edit.message.topic == "Orders" && edit.message.by == "bob" && edit.message.version == 2)
        var wanted = MessageEdit(.edit, by: "bob")
        edit.content.put(into: &wanted)
        #expect(wanted.body == Array("b".utf8) && wanted.tags == "" && wanted.keys == nil)
        #expect(wanted.properties == ["a": "b"])
        #expect(try MessageCancel.parse(all).message.json)
        #expect(try MessageDelete.parse([Self.id]).message.topic == nil)
        #expect(try MessageRetries.parse(all + ["--count", "0"]).count == 0)
        #expect(try MessageReschedule.parse(all + ["--in", "2h"]).delay?.milliseconds == 7_200_000)
        #expect(try MessageReschedule.parse(all + ["--at", "1700000000000"]).time == "1700000000000")
        #expect(try MessageResend.parse(all + ["--keys", "k"]).content.keys == "k")
    }

    @Test("what makes no sense is refused before a broker is asked")
    func refused() {
        #expect(throws: (any Error).self) { try MessageEditCommand.parse([Self.id]) }
        #expect(throws: (any Error).self) { try MessageRetries.parse([Self.id]) }
        #expect(throws: (any Error).self) { try MessageRetries.parse([Self.id, "--count", "-1"]) }
        #expect(throws: (any Error).self) { try MessageReschedule.parse([Self.id]) }
        #expect(throws: (any Error).self) { try MessageReschedule.parse([Self.id, "--in", "1h", "--at", "5"]) }
        #expect(throws: (any Error).self) { try MessageReschedule.parse([Self.id, "--at", "tomorrow"]) }
        #expect(throws: (any Error).self) { try MessageCancel.parse([]) }
        #expect(throws: (any Error).self) { try MessageDelete.parse([Self.id, "--body", "x"]) }
    }
}
