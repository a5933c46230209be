import FastJSON
import Foundation
import MessageModel
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

/// Copies of popped messages RocketMQ has stored in its retry topics, in a store taken over.
@Suite("retry topics of RocketMQ's popping groups") struct PopRetryTopicTests {
    private func withCopies(
        v1: Int = 0, v2: Int = 0, of topic: String, messages: Int, group: String = "G",
        settings: [(String, String)] = [], _ body: (BrokerHarness, RawConnection) throws -> Void
    ) throws {
        let harness = try BrokerHarness(settings) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<messages { _ = try connection.send(topic: topic, queueID: 0, body: "m\(index)") }
        for (name, count) in [("%RETRY%\(group)_\(topic)", v1), ("%RETRY%\(group)+\(topic)", v2)] where count > 0 {
            for index in 0..<count {
                try Self.store(
                    name, "\(name.contains("+") ? "w" : "v")\(index)",
                    ["1ST_POP_TIME": "17", "TAGS": index == 0 ? "A" : "B", "POP_CK": "old"], in: harness)
            }
        }
        try body(harness, connection)
    }

    /// As RocketMQ's broker stores it: a client's send would make a group of that name.
    private static func store(
        _ topic: String, _ body: String, _ properties: [String: String] = [:], in harness: BrokerHarness
    ) throws {
        try harness.onLoop { broker in
            _ = broker.topics.findOrCreate(try TopicName(existing: topic), queueNums: 1, perm: 6)
            var list = PropertyList()
            for (name, value) in properties.sorted(by: { $0.key < $1.key }) { list[name] = value }
            broker.storage.storeOwn(topic: topic, queueID: 0, properties: list, body: Array(body.utf8))
        }
        // A later turn, in which the tick's messages are written.
        try harness.onLoop { _ in }
    }

    @Test("copies come first, under the topic that was asked for, with a handle; they are acknowledged by it")
    func come() throws {
        try withCopies(v1: 3, v2: 2, of: "Copied", messages: 4) { (harness, connection) throws in
            let popped = try connection.pop(RawConnection.popFields(topic: "Copied"))
            #expect(popped.bodies == ["v0", "v1", "v2", "w0", "w1", "m0", "m1", "m2", "m3"])
            #expect(popped.rest == 0)
            #expect(popped.fields["startOffsetInfo"] == "1 0 0;2 0 0;0 0 0")
            #expect(popped.fields["msgOffsetInfo"] == "1 0 0,1,2;2 0 0,1;0 0 0,1,2,3")
            #expect(Set(popped.messages.map(\.topic)) == ["Copied"])
            #expect(try connection.pop(RawConnection.popFields(topic: "Copied")).messages.isEmpty)
            // RocketMQ's clients name the retry topic; the topic itself does as well.
            #expect(try connection.acknowledge(popped.messages[0], topic: "%RETRY%G_Copied") == 0)
            #expect(try connection.acknowledge(popped.messages[1], topic: "Copied") == 0)
            #expect(try connection.committed(topic: "%RETRY%G_Copied") == 2)
            #expect(try connection.committed(topic: "Copied") == 0)
            #expect(try connection.acknowledge(popped.messages[3], topic: "%RETRY%G+Copied") == 0)
            #expect(try connection.committed(topic: "%RETRY%G+Copied") == 1)
            let popTime = try #require(Int64(popped.fields["popTime"] ?? ""))
            let entries = ["1": 0b100, "2": 0b10].map { kind, bits in
                JSONValue.fields([
                    ("b", .string(Data([UInt8(bits)]).base64EncodedString())), ("c", .string("G")),
                    ("it", .integer(60_000)), ("pt", .integer(popTime)), ("q", .integer(0)), ("r", .string(kind)),
                    ("rq", .integer(0)), ("so", .integer(0)), ("t", .string("Copied")),
                ])
            }
            let body = JSONValue.fields([("acks", .array(entries)), ("brokerName", .string("broker-a"))])
            #expect(try connection.invoke(.batchAckMessage, body: body.bytes()).code == 0)
            #expect(try connection.committed(topic: "%RETRY%G_Copied") == 3)
            #expect(try connection.committed(topic: "%RETRY%G+Copied") == 2)
            #expect(try connection.committed(topic: "Copied") == 0)
        }
    }

    @Test("they take half of an answer while there are others, and none of an ordered one")
    func share() throws {
        try withCopies(v1: 20, of: "Share", messages: 10) { (_, connection) throws in
            let fields = RawConnection.popFields(topic: "Share", count: 8)
            let first = try connection.pop(fields)
            #expect(first.bodies == ["v0", "v1", "v2", "v3", "m0", "m1", "m2", "m3"])
            #expect(first.rest == 22)
            #expect(try connection.pop(fields).bodies.count { $0.hasPrefix("v") } == 4)
            #expect(try connection.pop(fields).bodies.count { $0.hasPrefix("v") } == 4)
            #expect(try connection.pop(fields).bodies == (12..<20).map { "v\($0)" })
            let ordered = RawConnection.popFields(topic: "Share", isOrdered: true)
            #expect(try connection.pop(ordered).messages.isEmpty)
            let question = ["consumerGroup": "G", "topic": "Share", "queueId": "-1", "pollTime": "0", "bornTime": "0"]
            func hasMessage(_ isOrdered: String) throws -> String? {
                try connection.invoke(.notification, question.merging(["order": isOrdered]) { $1 }).extFields["hasMsg"]
            }
            #expect(try hasMessage("false") == "false")
            for message in first.messages.prefix(2) {
                _ = try connection.change(message, topic: "Share", invisible: 0)
            }
            #expect(try hasMessage("false") == "true")
            #expect(try hasMessage("true") == "false")
        }
    }

    @Test("a copy that is not acknowledged comes again, counted, to a client that waits; its time can be changed")
    func comesAgain() throws {
        try withCopies(v1: 2, of: "Late", messages: 0) { (harness, connection) throws in
            _ = try connection.send(topic: "Late", body: "m")
            let popped = try connection.pop(RawConnection.popFields(topic: "Late", invisible: 300))
            #expect(popped.bodies == ["v0", "v1", "m"])
            let (code, longer) = try connection.change(popped.messages[0], topic: "Late", invisible: 60_000)
            #expect(code == 0)
            #expect(longer.handle.split(separator: " ")[4] == "1")
            try connection.acknowledge(popped.messages[2], topic: "Late")
            let question = try connection.invoke(
                .notification,
                ["consumerGroup": "G", "topic": "Late", "queueId": "-1", "pollTime": "5000", "bornTime": "0"])
            #expect(question.extFields["hasMsg"] == "true")
            let again = try connection.pop(RawConnection.popFields(topic: "Late", poll: 5000))
            #expect(again.bodies == ["v1"])
            #expect(again.messages.map(\.reconsumeTimes) == [1])
            #expect(try connection.acknowledge(longer, topic: "%RETRY%G_Late") == 0)
            #expect(try connection.committed(topic: "%RETRY%G_Late") == 1)
        }
    }

    @Test("a topic gets no leases while copies wait, which a pop in order would never bring")
    func leases() throws {
        try withCopies(v1: 1, of: "Led", messages: 1) { (_, connection) throws in
            #expect(try connection.makeGroup("G", retryQueues: 1).code == 0)
            let refused = try connection.topicRequest("Led", queues: 4, "+apus.mode=QUEUE,+apus.shard=true")
            #expect(refused.code == 1 && refused.remark?.contains("%RETRY%G_Led has messages") == true)
            #expect(try connection.topicRequest("Led", queues: 4, "+apus.mode=QUEUE").code == 0)
            let popped = try connection.pop(RawConnection.popFields(topic: "Led"))
            #expect(popped.bodies == ["v0", "m0"])
            #expect(try connection.topicRequest("Led", queues: 4, "+apus.shard=true").code == 0)
            // In hands still: they come again, but not to a pop in order, and the question knows that.
            for message in popped.messages { _ = try connection.change(message, topic: "Led", invisible: 1) }
            for message in try connection.pop(RawConnection.popFields(topic: "Led", poll: 2000)).messages {
                try connection.acknowledge(message, topic: "Led")
            }
            let question = try connection.invoke(
                .notification,
                ["consumerGroup": "G", "topic": "Led", "queueId": "-1", "pollTime": "0", "bornTime": "0"])
            #expect(question.extFields["hasMsg"] == "false")
        }
    }

    @Test("the filter of the pop is theirs, too; what it does not want is finished")
    func filtered() throws {
        try withCopies(v1: 3, of: "Tags", messages: 0) { (_, connection) throws in
            _ = try connection.send(topic: "Tags", body: "m", properties: "TAGS\u{1}C")
            let wanted = RawConnection.popFields(topic: "Tags", expression: "A || C")
            #expect(try connection.pop(wanted).bodies == ["v0", "m"])
            #expect(try connection.pop(RawConnection.popFields(topic: "Tags")).messages.isEmpty)
        }
    }

    @Test("the retry topic of a for topic b is that of group a_b as well: what a_b was given back is not a's")
    func shared() throws {
        try withCopies(v1: 1, of: "b", messages: 1, group: "a") { (harness, connection) throws in
            try harness.onLoop { _ = $0.groups.find("a_b") }
            try Self.store("%RETRY%a_b", "given back", ["RETRY_TOPIC": "c"], in: harness)
            try Self.store("%RETRY%a_b", "copy", ["1ST_POP_TIME": "5"], in: harness)
            let popped = try connection.pop(RawConnection.popFields(topic: "b", group: "a"))
            #expect(popped.bodies == ["v0", "copy", "m0"])
            #expect(popped.fields["msgOffsetInfo"] == "1 0 0,2;0 0 0")
            for message in popped.messages.prefix(2) {
                try connection.acknowledge(message, topic: "%RETRY%a_b", group: "a")
            }
            #expect(try connection.committed(topic: "%RETRY%a_b", group: "a") == 3)
        }
    }

    @Test("a copy that is given up is a dead letter of the topic the message was sent to")
    func deadLetter() throws {
        let isOn = ("popDeadLetterEnable", "true")
        try withCopies(v1: 1, of: "Poison", messages: 1, settings: [isOn]) { (_, connection) throws in
            let group = #"{"groupName":"G","retryMaxTimes":0,"retryQueueNums":1,"consumeEnable":true}"#
            #expect(try connection.invoke(.updateAndCreateSubscriptionGroup, body: Array(group.utf8)).code == 0)
            let popped = try connection.pop(RawConnection.popFields(topic: "Poison"))
            #expect(popped.bodies == ["v0", "m0"])
            _ = try connection.change(popped.messages[0], topic: "Poison", invisible: 0)
            try connection.acknowledge(popped.messages[1], topic: "Poison")
            #expect(try connection.pop(RawConnection.popFields(topic: "Poison", poll: 300)).messages.isEmpty)
            #expect(try connection.committed(topic: "%RETRY%G_Poison") == 1)
            let letters = try connection.invoke(
                .pullMessage, RawConnection.pullFields(topic: "%DLQ%G", group: "Reader"))
            #expect(String(decoding: letters.body, as: UTF8.self).contains("RETRY_TOPIC\u{1}Poison\u{2}"))
        }
    }

    @Test("a retry topic made later is found, and one deleted is not looked into any more")
    func changes() throws {
        try withCopies(of: "Change", messages: 1) { (harness, connection) throws in
            #expect(try connection.pop(RawConnection.popFields(topic: "Change")).bodies == ["m0"])
            try Self.store("%RETRY%G_Change", "copy", in: harness)
            #expect(try connection.pop(RawConnection.popFields(topic: "Change")).bodies == ["copy"])
            #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "%RETRY%G_Change"]).code == 0)
            #expect(try connection.pop(RawConnection.popFields(topic: "Change")).messages.isEmpty)
        }
    }
}
