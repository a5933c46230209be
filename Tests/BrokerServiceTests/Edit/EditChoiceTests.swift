import FastJSON
import Foundation
import MessageModel
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

@testable import BrokerService

/// Which message is meant, and what is refused for its sake.
@Suite("the message an edit names") struct EditChoiceTests {
    private func id(_ key: String, _ topic: String = "T") -> [String: String] { ["topic": topic, "msgId": key] }

    private func refuses(
        _ answer: RemotingCommand, _ words: String, _ location: SourceLocation = #_sourceLocation
    ) {
        #expect(answer.code != 0 && answer.remark?.contains(words) == true, "\(answer)", sourceLocation: location)
    }

    @Test("one id of several messages: refused, with their positions; named by position each is changed for itself")
    func several() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for body in ["first", "second"] { try connection.send("T", body, "UNIQ_KEY=u") }
        let due = String(RawConnection.nowMilliseconds + 3_600_000)
        for (operation, fields) in [
            ("edit", ["tags": "a"]), ("delete", [:]), ("cancel", [:]), ("reschedule", ["deliverAt": due]),
            ("retries", ["retries": "1"]),
        ] {
            let answer = try connection.edit(operation, id("u"), fields)
            refuses(answer, "2 messages have this id: ")
            #expect(answer.remark?.contains("T queue 0 offset 0") == true, "\(answer)")
            #expect(answer.remark?.contains("T queue 0 offset 1") == true, "\(answer)")
        }
        #expect(try connection.edit("delete", RawConnection.place("T", 0)).code == 0)
        // Now one is left.
        #expect(try connection.edit("edit", id("u"), body: "edited").code == 0)
        #expect(try connection.all("T", from: 1).map(\.body) == ["edited"])
        // One that waits counts, too; sent once more it may be anyway.
        try connection.send("T", "later", "UNIQ_KEY=u;TIMER_DELIVER_MS=\(due)")
        let mixed = try connection.edit("delete", id("u"))
        refuses(mixed, "2 messages have this id: ")
        #expect(mixed.remark?.contains("rmq_sys_wheel_timer queue 0 offset 0") == true, "\(mixed)")
        #expect(try connection.edit("resend", id("u")).code == 0)
    }

    @Test("two timer messages of one id and one time are stopped together: neither alone can be")
    func timerTwins() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let due = RawConnection.nowMilliseconds + 3_600_000
        for number in 0..<3 {
            try connection.send("T", "m", "UNIQ_KEY=u;TIMER_DELIVER_MS=\(number < 2 ? due : due + 1)")
        }
        for offset in 0..<2 {
            refuses(
                try connection.edit("cancel", RawConnection.place(TopicNames.timer, offset)),
                "2 messages have this id: ")
        }
        #expect(try connection.edit("cancel", RawConnection.place(TopicNames.timer, 2)).code == 0)
    }

    @Test("a position is one of the topic that is named with it, or nothing happens")
    func position() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1h")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let sent = try connection.send("T", "m", "DELAY=1;UNIQ_KEY=u")
        let offset = String(try #require(OffsetMessageID.parse(sent.extFields["msgId"] ?? "")?.physicalOffset))
        refuses(try connection.edit("cancel", ["topic": "Other", "offset": offset]), "not of Other")
        #expect(try connection.invoke(.getMessageStatus, ["topic": "Other", "offset": offset]).code != 0)
        #expect(try connection.edit("edit", ["topic": "T", "offset": offset], body: "e").code == 0)
        #expect(try connection.edit("cancel", ["offset": offset]).code == 0)
    }

    @Test("a broker that begins to stop while the message is looked for refuses the edit")
    func draining() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "m", "UNIQ_KEY=u")
        try harness.onLoop { broker in
            broker.slices.around = { slice in
                broker.storage.admission.isDraining = true
                return slice()
            }
        }
        let answer = try connection.edit("delete", id("u"))
        #expect(answer.code == ResponseCode.serviceNotAvailable.rawValue, "\(answer)")
        refuses(answer, "is being stopped")
        try harness.onLoop { broker in
            broker.slices.around = nil
            broker.storage.admission.isDraining = false
        }
        #expect(try connection.all("T").map(\.body) == ["m"])
        #expect(try connection.edit("delete", id("u")).code == 0)
    }

    @Test("deliveries are counted in the message for groups that pull, in claims for those that pop")
    func retries() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for body in ["m0", "m1"] { try connection.send("T", body) }
        #expect(try connection.pop(RawConnection.popFields(topic: "T", queueID: 0, count: 1)).bodies == ["m0"])
        refuses(try connection.edit("retries", RawConnection.place("T", 1), ["retries": "3"]), "group G pops it")
        #expect(try connection.makeTopic("Queue").code == 0)
        let attributes = [
            "topic": "Queue", "defaultTopic": "TBW102", "readQueueNums": "4", "writeQueueNums": "4", "perm": "6",
            "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false", "attributes": "+apus.mode=QUEUE",
        ]
        #expect(try connection.invoke(.updateAndCreateTopic, attributes).code == 0)
        try connection.send("Queue", "m")
        refuses(
            try connection.edit("retries", RawConnection.place("Queue", 0), ["retries": "3"]),
            "the topic is popped only")
        try connection.send("Pulled", "m")
        #expect(try connection.edit("retries", RawConnection.place("Pulled", 0), ["retries": "3"]).code == 0)
        #expect(try connection.all("Pulled").map(\.reconsumeTimes) == [3])
    }

    @Test("a group that is online and has committed nothing can still get it")
    func online() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "m")
        try connection.commit("Done", "T", 1)
        refuses(try connection.edit("edit", RawConnection.place("T", 0), body: "e"), "every group has consumed it")
        try connection.subscribe("c1", group: "New", topic: "T")
        let made = try connection.edit("edit", RawConnection.place("T", 0), body: "e")
        #expect(made.code == 0 && made.extFields["consumedBy"] == "Done", "\(made)")
    }

    @Test("a deletion keeps of a message what names it, and nothing else")
    func deletion() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "secret", "UNIQ_KEY=u;KEYS=k;TAGS=t;secret=s")
        let deleted = try connection.edit("delete", id("u"))
        let place = try #require(deleted.extFields["commitLogOffset"].flatMap { Int64($0) })
        let parts = try harness.onLoop { $0.store.storedMessage(at: place)?.parts.keys.sorted() }
        #expect(parts?.filter { !$0.hasPrefix("__CRC32") } == ["APUS_EDIT", "UNIQ_KEY"])
        // What a position names lies in the queue's file, not at its beginning.
        let entries = try connection.invoke(
            .queryConsumeQueue, ["topic": "T", "queueId": "0", "index": "0", "count": "1"])
        let entry = try JSONValue(parsing: entries.body)["queueData"]?.array?.first
        #expect(entry?["msg"]?.string == "the message is deleted" && entry?["physicSize"]?.integer == 0)
        #expect(entry?["tagsCode"]?.integer == 0)
    }

    @Test("a prepared message whose version cannot be read is neither committed as it was first sent nor lost")
    func unreadable() throws {
        let settings = [("transactionTimeOut", "600000"), ("transactionCheckInterval", "600000")]
        let first = try BrokerHarness(settings)
        let half = try first.connect().prepare("T", "u", body: "sent")
        #expect(try first.connect().edit("edit", id("u"), body: "edited").code == 0)
        try first.drain()
        // Entries of a queue that was written lately are in memory; after a start they are in its file.
        let disk = FailingDisk()
        let clock = ShiftedClock()
        let harness = try BrokerHarness(settings, folder: first.folder, disk: disk, clock: clock)
        defer { try? harness.end() }
        let connection = try harness.connect()
        let producer = try harness.connect()
        try producer.heartbeat("c1", producerGroup: "PG")
        func check(after milliseconds: Int64) throws -> Int {
            try harness.onLoop { broker in
                clock.shift += milliseconds
                broker.kinds.transactions.check()
                return broker.kinds.transactions.openCount
            }
        }
        disk.unreadable = "/consumequeue/\(TopicNames.half)"
        refuses(try connection.invoke(RawConnection.endCommand(half)), "Find prepared transaction message failed")
        #expect(try check(after: 700_000) == 1)
        disk.unreadable = nil
        _ = try check(after: 2000)
        let asked = try producer.request(.checkTransactionState)
        #expect(Consumed.all(asked.body).map(\.body) == ["edited"])
        #expect(try connection.invoke(RawConnection.endCommand(half)).code == 0)
        #expect(try connection.wait("T", count: 1).map(\.body) == ["edited"])
    }

    @Test("a transaction that was parked, resumed and withdrawn has no later outcome")
    func resumed() throws {
        let harness = try BrokerHarness([
            ("transactionTimeOut", "200"), ("transactionCheckInterval", "200"), ("transactionCheckMax", "1"),
        ])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let producer = try harness.connect()
        try producer.heartbeat("c1", producerGroup: "PG")
        let half = try connection.prepare("T", "u", body: "m")
        let aside = try #require(try connection.wait(TopicNames.transactionCheckMaxTime, count: 1).first)
        let position = OffsetMessageID.text(
            host: HostAddress(ipv4: 0x7F00_0002, port: 31911), physicalOffset: aside.physicalOffset)
        refuses(try connection.edit("cancel", id("u")), "has had its outcome")
        #expect(try connection.invoke(.resumeCheckHalfMessage, ["topic": "T", "msgId": position]).code == 0)
        try eventually("it is withdrawn") { try connection.edit("cancel", id("u")).code == 0 }
        // Its producer answers the first check at last.
        let late = try connection.invoke(RawConnection.endCommand(half))
        #expect(try connection.all("T").isEmpty, "\(late)")
    }

    // MARK: - Sending once more

    @Test("properties of clients lead no message into a foreign topic")
    func foreignTopics() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        for topic in ["Foreign", TopicNames.opHalf, "%DLQ%G"] {
            try connection.send("T", "m", "REAL_TOPIC=\(topic);REAL_QID=1;RETRY_TOPIC=\(topic)")
        }
        for offset in 0..<3 {
            let again = try connection.edit("resend", RawConnection.place("T", offset))
            #expect(again.code == 0 && again.extFields["topic"] == "T", "\(again)")
            #expect(again.extFields["queueId"] == "0")
        }
        _ = try connection.prepare("T", "half", body: "m")
        refuses(try connection.edit("resend", id("half")), "only its producer knows")
        // Those of the broker lead back: a delayed message, a timer message.
        let due = RawConnection.nowMilliseconds + 3_600_000
        try connection.send("T", "timed", "UNIQ_KEY=timed;TIMER_DELIVER_MS=\(due)")
        try connection.send("T", "delayed", "UNIQ_KEY=delayed;DELAY=18")
        for key in ["timed", "delayed"] {
            let again = try connection.edit("resend", id(key))
            #expect(again.code == 0 && again.extFields["topic"] == "T", "\(again)")
        }
        let bodies = try connection.all("T").map(\.body)
        #expect(bodies == ["m", "m", "m", "m", "m", "m", "timed", "delayed"], "\(bodies)")
        #expect(try connection.all("T").dropFirst(3).allSatisfy { $0.properties["REAL_TOPIC"] == nil })
    }

    @Test("an id of the broker's is none of a position: bytes 4 to 7 are no port")
    func uniqueKeys() throws {
        for _ in 0..<4096 {
            let key = UniqueKey.make(at: 1_700_000_000_000)
            let (host, _) = try #require(OffsetMessageID.parse(key))
            try #require(key.count == 32 && !(1...65_535).contains(host.port), "\(key)")
        }
    }
}
