import FastJSON
import Foundation
import MessageModel
import NIOConcurrencyHelpers
import RemotingProtocol
import StoreFormat
import TestTools
import Testing
import WorkerProtocol

@testable import BrokerService

/// An edit and something else that decides about the same message, in one tick. Whichever comes first: who is told that
/// the edit is made finds it made, and no message is lost.
@Suite("edits and what else happens in their tick") struct EditTickTests {
    private static let edited = RawConnection.editCommand("edit", RawConnection.place("T", 0), body: "edited")
    private static let deleted = RawConnection.editCommand("delete", RawConnection.place("T", 0))

    @Test("a pop and an edit: the client that has it is named", arguments: [true, false], ["edit", "delete"])
    func pop(_ isPopFirst: Bool, _ operation: String) throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "sent")
        let pop = RemotingCommand(
            .popMessage, extFields: RawConnection.popFields(topic: "T", queueID: 0, count: 1, invisible: 60_000))
        let edit = operation == "edit" ? Self.edited : Self.deleted
        let answers = try connection.together(isPopFirst ? [pop, edit] : [edit, pop])
        let popped = try PopReply(answers[isPopFirst ? 0 : 1])
        let made = answers[isPopFirst ? 1 : 0]
        #expect(popped.bodies == ["sent"])
        #expect(made.code != 0 && made.remark?.contains("group G consumes it at the moment") == true, "\(made)")
        #expect(try connection.all("T").map(\.body) == ["sent"])
    }

    @Test("END_TRANSACTION and an edit or its withdrawal", arguments: [true, false], ["edit", "cancel"])
    func endOfTransaction(_ isEndFirst: Bool, _ operation: String) throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let half = try connection.prepare("T", "u", body: "sent")
        let place = RawConnection.place(TopicNames.half, 0)
        let edit = RawConnection.editCommand(operation, place, body: operation == "edit" ? "edited" : nil)
        let end = RawConnection.endCommand(half)
        let answers = try connection.together(isEndFirst ? [end, edit] : [edit, end])
        let (ended, made) = (answers[isEndFirst ? 0 : 1], answers[isEndFirst ? 1 : 0])
        #expect(ended.code == 0, "\(ended)")
        #expect(made.code != 0 && made.remark?.contains("has had its outcome") == true, "\(made)")
        #expect(try connection.wait("T", count: 1).map(\.body) == ["sent"])
        #expect(try connection.all("T").count == 1)
    }

    @Test("two edits: the second is told of the first", arguments: ["edit", "delete", "reschedule"])
    func twoEdits(_ second: String) throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "sent")
        let due = String(RawConnection.nowMilliseconds + 3_600_000)
        let other = RawConnection.editCommand(
            second, RawConnection.place("T", 0), second == "reschedule" ? ["deliverAt": due] : [:],
            body: second == "edit" ? "other" : nil)
        let answers = try connection.together([Self.edited, other])
        #expect(answers[0].code == 0, "\(answers[0])")
        #expect(answers[1].code != 0 && answers[1].remark?.contains("edited meanwhile") == true, "\(answers[1])")
        #expect(try connection.all("T").map(\.body) == ["edited"])
        #expect(try harness.stored(TopicNames.timer).isEmpty)
        // Of two deletions one is made.
        let twice = try connection.together([Self.deleted, Self.deleted])
        #expect(twice[0].code == 0 && twice[1].code != 0, "\(twice)")
        #expect(try connection.consume("T").isEmpty)
    }

    @Test("a message that is given up is no longer edited: its dead letter is written in this tick")
    func deadLetter() throws {
        let harness = try BrokerHarness([("popDeadLetterEnable", "true")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "sent")
        let group = #"{"groupName":"G","retryMaxTimes":0,"retryQueueNums":1,"consumeEnable":true}"#
        #expect(try connection.invoke(.updateAndCreateSubscriptionGroup, body: Array(group.utf8)).code == 0)
        let fields = RawConnection.popFields(topic: "T", queueID: 0, count: 1, invisible: 60_000)
        let popped = try connection.pop(fields)
        #expect(try connection.change(try #require(popped.messages.first), topic: "T", invisible: 0).code == 0)
        // Due; nothing has become of it yet.
        try eventually("it is due") {
            try connection.row("G", ofMessage: RawConnection.place("T", 0))?["status"]?.string == "FAIL"
        }
        let answers = try connection.together([RemotingCommand(.popMessage, extFields: fields), Self.edited])
        #expect(
            answers[1].code != 0 && answers[1].remark?.contains("group G gives it up at the moment") == true,
            "\(answers[1])")
        let letters = try connection.wait("%DLQ%G", count: 1)
        #expect(letters.map(\.body) == ["sent"])
        // It is that group's no more: nothing hinders the edit for others.
        #expect(try connection.edit("resend", RawConnection.place("%DLQ%G", 0), body: "mended").code == 0)
    }

    @Test("a delay that is over in the same turn", arguments: ["edit", "cancel"])
    func delayed(_ operation: String) throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "sent", "DELAY=1;UNIQ_KEY=u")
        let edit = RawConnection.editCommand(
            operation, RawConnection.place(TopicNames.schedule, 0), body: operation == "edit" ? "edited" : nil)
        let made = try turn(harness, connection, edit, standing: 1100)
        try check(connection, operation, made)
    }

    /// Has the edit arrive while the broker stands still so long, milliseconds.
    private func turn(
        _ harness: BrokerHarness, _ connection: RawConnection, _ edit: RemotingCommand, standing milliseconds: UInt32
    ) throws -> RemotingCommand {
        try harness.whileItStands {
            try connection.send(RawConnection.bytes(edit))
            // Time passes, in which the message becomes due.
            usleep(milliseconds * 1000)
        }
        return try connection.receive()
    }

    private func check(_ connection: RawConnection, _ operation: String, _ made: RemotingCommand) throws {
        guard made.code == 0, operation == "cancel" else {
            #expect(try connection.wait("T", count: 1).map(\.body) == [made.code == 0 ? "edited" : "sent"], "\(made)")
            return
        }
        // Time passes, in which it could come.
        usleep(300_000)
        #expect(try connection.all("T").isEmpty)
    }

    @Test("a check of the producer that is due in the same turn stores the prepared message again: as it was edited")
    func checked() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "500"), ("transactionCheckInterval", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let producer = try harness.connect()
        try producer.heartbeat("c1", producerGroup: "PG")
        _ = try connection.prepare("T", "u", body: "sent")
        let edit = RawConnection.editCommand("edit", RawConnection.place(TopicNames.half, 0), body: "edited")
        let made = try turn(harness, connection, edit, standing: 700)
        let check = try producer.request(.checkTransactionState)
        let asked = try #require(Consumed.all(check.body).first)
        #expect(asked.body == (made.code == 0 ? "edited" : "sent"), "\(made)")
        let end = try connection.invoke(
            .endTransaction,
            [
                "producerGroup": "PG", "tranStateTableOffset": check.extFields["tranStateTableOffset"] ?? "",
                "commitLogOffset": check.extFields["commitLogOffset"] ?? "", "commitOrRollback": "8",
                "fromTransactionCheck": "true",
            ])
        #expect(end.code == 0, "\(end)")
        #expect(try connection.wait("T", count: 1).map(\.body) == [asked.body])
        // The copy is named by the same id, and only by that.
        #expect(try connection.status(ofMessage: ["topic": "T", "msgId": "u"])["topic"]?.string == "T")
    }

    @Test(
        "a pop that waits for the filter worker has read it already: the edit is to come again",
        arguments: [true, false])
    func filtered(_ isDue: Bool) throws {
        let compilations = NIOLockedValueBox<[UInt64]>([])
        let harness = try BrokerHarness { broker in
            broker.filters.connect { message in
                guard case .filterCompile(let request, _, _) = message else { return }
                compilations.withLockedValue { $0.append(request) }
            }
        }
        defer { try? harness.end() }
        let connection = try harness.connect()
        for body in ["m0", "m1"] { try connection.send("T", body, "TAGS=B") }
        if isDue {
            let first = try connection.pop(RawConnection.popFields(topic: "T", queueID: 0, count: 1, expression: ""))
            #expect(try connection.change(first.messages[0], topic: "T", invisible: 0).code == 0)
            try eventually("it is due") {
                try connection.row("G", ofMessage: RawConnection.place("T", 0))?["status"]?.string == "FAIL"
            }
        }
        let asking = try harness.connect()
        try asking.post(.popMessage, RawConnection.popFields(topic: "T", queueID: 0, poll: 10_000, expression: "B"))
        try eventually("the worker is asked") { !compilations.withLockedValue { $0.isEmpty } }
        for operation in ["edit", "delete"] {
            let made = try connection.edit(
                operation, RawConnection.place("T", 0), body: operation == "edit" ? "edited" : nil)
            #expect(made.code == ResponseCode.systemBusy.rawValue, "\(made)")
            #expect(made.remark?.contains("a client of group G is about to get it") == true, "\(made)")
        }
        try harness.onLoop { broker in
            for request in compilations.withLockedValue({ $0 }) {
                broker.filters.receive(.filterCompiled(request: request, result: .tagsCodes([TagsCode.of("B")])))
            }
        }
        #expect(try PopReply(asking.receive()).bodies == ["m0", "m1"])
        #expect(try connection.all("T").map(\.body) == ["m0", "m1"])
    }

    @Test("many edits at once are carried out over several ticks, and no more wait than may")
    func many() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let count = EditMessageProcessor.perTickMax * 2 + 3
        for number in 0..<count { try connection.send("T", "m\(number)") }
        let answers = try connection.together(
            (0..<count).map { RawConnection.editCommand("edit", RawConnection.place("T", $0), body: "e\($0)") })
        #expect(answers.allSatisfy { $0.code == 0 })
        #expect(try connection.all("T").map(\.body) == (0..<count).map { "e\($0)" })
        let more = EditMessageProcessor.waitingMax + 8
        let again = try connection.together(
            (0..<more).map { RawConnection.editCommand("edit", RawConnection.place("T", $0 % count), body: "x") })
        let busy = again.filter { $0.code == ResponseCode.systemBusy.rawValue }
        #expect(busy.count <= 8 && again.count == more, "\(busy.count)")
    }
}
