import FastJSON
import RocketMQClient
import Testing

@testable import apus

@Suite("apus message show: what the answer looks like")
struct MessageShowTests {
    /// - Parameters:
    ///   - rest: further members.
    ///   - groups: JSON objects, each without its group and mode.
    private func status(_ rest: String = "", groups: [String] = []) throws -> MessageStatus {
        let rows = groups.map { #"{"group":"G","mode":"POP",\#($0)}"# }.joined(separator: ",")
        let text = """
            {"topic":"Orders","queueId":1,"queueOffset":7,"msgId":"7F00000100002A9F0000000000000000",\
            "storeTimestamp":1700000000000,"trailBegins":1700000500000,\(rest)"groups":[\(rows)]}
            """
        return try MessageStatus(json: try JSONValue(parsing: Array(text.utf8)), brokerName: "b")
    }

    @Test("each state says what a person asks next")
    func states() throws {
        let until = AdminTime.milliseconds(1_700_000_060_000)
        let time = #""until":1700000060000"#
        let cases = [
            (#""status":"NEW""#, "G (POP): NEW"),
            (#""status":"NEW","client":"c""#, "the queue is locked by c"),
            (#""status":"WAITING",\#(time)"#, "WAITING until \(until)"),
            (
                #""status":"ING","client":"c","attempts":2,\#(time)"#, "ING c has it, until \(until) (delivery 2)"
            ),
            (#""status":"FAIL","attempts":2,"attemptsMax":16,\#(time)"#, "FAIL retry 2 of 16, due \(until)"),
            (#""status":"FAIL","attempts":1,"attemptsMax":16"#, "FAIL retry 1 of 16, due now"),
            (#""status":"FAIL""#, "FAIL given up: it is not delivered to this group any more"),
            (
                #""status":"FAIL","deadLetter":{"topic":"%DLQ%G","queueId":0,"queueOffset":3}"#,
                "FAIL dead letter %DLQ%G queue 0 offset 3"
            ),
        ]
        for (json, text) in cases {
            let lines = MessageShow.lines(try status(groups: [json]))
            #expect(lines.contains { $0.contains(text) }, "\(lines)")
        }
        #expect(MessageShow.lines(try status()).contains("  no group consumes its topic"))
        let waits = MessageShow.lines(try status(#""waits":true,"realTopic":"Paid","#))
        #expect(waits.contains("  waits for its transaction, then goes to Paid"), "\(waits)")
        let moded = try status(#""topicMode":"SERIAL_QUEUE","#)
        #expect(moded.topicMode == .serial && MessageShow.lines(moded).contains("  mode of the topic: SERIAL_QUEUE"))
        #expect(try status(#""topicMode":"NEWER","#).topicMode == nil)
        #expect(MessageShow.lines(try status()).last?.hasSuffix("are not kept any more") == true)
    }

    @Test("a message that will not come says why")
    func gone() throws {
        let cases = [
            ("delete", "deleted: it is not delivered any more"), ("cancel", "withdrawn: it will not be delivered"),
            ("reschedule", "rescheduled: not delivered from here"),
        ]
        for (action, words) in cases {
            let edit = #""deleted":true,"edits":[{"version":2,"action":"\#(action)","at":1,"by":"alice"}],"#
            let lines = MessageShow.lines(try status(edit, groups: [#""status":"DELETED""#]))
            #expect(lines.contains { $0.contains(words) }, "\(lines)")
            #expect(lines.contains("G (POP): DELETED"), "\(lines)")
        }
    }

    @Test("names that clients chose make no lines of their own")
    func hostileNames() throws {
        let row = #""status":"ING","trail":[{"at":1,"event":"DELIVERED","client":"a\nb\u001b[2J"}]"#
        let lines = MessageShow.lines(try status(groups: [row]))
        #expect(lines.contains { $0.contains("delivered to a") }, "\(lines)")
        #expect(lines.allSatisfy { !$0.contains("\n") && !$0.contains("\u{1B}") }, "\(lines)")
    }

    @Test("an answer that is none is an error")
    func noAnswer() {
        #expect(throws: (any Error).self) { try MessageStatus(json: .fields([]), brokerName: "b") }
    }
}
