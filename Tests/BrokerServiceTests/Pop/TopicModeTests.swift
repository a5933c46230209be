import FastJSON
import Foundation
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

@testable import BrokerService

/// Topics with `apus.mode` and what belongs to it.
@Suite("modes of topics") struct TopicModeTests {
    private func withTopic(
        _ attributes: String, queues: Int = 1, messages: Int = 0, clock: ShiftedClock? = nil,
        _ body: (BrokerHarness, RawConnection) throws -> Void
    ) throws {
        let harness = try BrokerHarness(clock: clock) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.makeTopic("T", queues: queues, attributes)
        for index in 0..<messages { #expect(try connection.send(topic: "T", body: "m\(index)").code == 0) }
        try body(harness, connection)
    }

    @Test("attributes are kept, changed and refused in words; SERIAL_QUEUE needs one queue")
    func attributes() throws {
        try withTopic("+apus.mode=QUEUE,+apus.timeout=5", queues: 4) { (harness, connection) throws in
            func attributes() throws -> String? {
                try connection.invoke(.getTopicConfig, ["topic": "T"]).json()["attributes"]?.text()
            }
            #expect(try attributes() == #"{"apus.mode":"QUEUE","apus.timeout":"5"}"#)
            #expect(try harness.onLoop { $0.topics["T"]?.policy.timeoutMilliseconds } == 5000)
            let refused = try connection.topicRequest("T", queues: 4, "+apus.timeout=0")
            #expect(refused.remark?.contains("apus.timeout=0: it is a whole number, 1 to 86400 seconds") == true)
            let serial = try connection.topicRequest("T", queues: 1, "+apus.mode=SERIAL_QUEUE")
            #expect(serial.code == 1 && serial.remark?.contains("needs one queue, topic T has 4") == true)
            #expect(try attributes() == #"{"apus.mode":"QUEUE","apus.timeout":"5"}"#)
            try connection.makeTopic("T", queues: 1, "-apus.timeout")
            try connection.makeTopic("T", queues: 1, "+apus.mode=SERIAL_QUEUE")
            let wide = try connection.topicRequest("T", queues: 2, "")
            #expect(wide.code == 1 && wide.remark?.contains("SERIAL_QUEUE needs one queue") == true)
            let retry = try connection.topicRequest("%RETRY%G", queues: 1, "+apus.mode=QUEUE")
            #expect(retry.code == 1 && retry.remark?.contains("belongs to a consumer group") == true)
            let short = try connection.topicRequest("T", queues: 1, "+apus.archive=2d")
            #expect(short.code == 1 && short.remark?.contains("set at least 3d") == true)
            #expect(try connection.topicRequest("T", queues: 1, "+apus.archive=3d").code == 0)
            // It is there after a restart.
            try harness.drain()
            let next = try BrokerHarness(folder: harness.folder)
            #expect(try next.onLoop { $0.topics["T"]?.policy.mode } == .serial)
            try next.drain()
        }
    }

    @Test("a QUEUE topic is popped only, and QUERY_ASSIGNMENT says so")
    func poppedOnly() throws {
        try withTopic("+apus.mode=QUEUE", messages: 2) { (_, connection) throws in
            let refused = try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "T", group: "Pullers"))
            #expect(refused.code == ResponseCode.noPermission.rawValue)
            #expect(refused.remark?.contains("apus.mode=QUEUE") == true && refused.remark?.contains("pop it") == true)
            let tool = try connection.invoke(
                .pullMessage, RawConnection.pullFields(topic: "T", group: "TOOLS_CONSUMER"))
            #expect(tool.code == 0)
            try connection.join("G")
            let question = QueryAssignmentRequestBody.text(topic: "T", group: "G", client: "c")
            #expect(
                String(decoding: try connection.invoke(.queryAssignment, body: question).body, as: UTF8.self)
                    .contains(#""mode":"POP""#))
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies == ["m0", "m1"])
        }
    }

    @Test("offsets of members that have pulled before do not tear claims apart; tools may reset the group")
    func offsetsOfPullers() throws {
        try withTopic("+apus.mode=QUEUE", messages: 4) { (harness, connection) throws in
            let puller = try harness.connect()
            try puller.join("G")
            func commit(_ connection: RawConnection, _ offset: Int) throws -> RemotingCommand {
                try connection.invoke(
                    .updateConsumerOffset,
                    ["topic": "T", "consumerGroup": "G", "queueId": "0", "commitOffset": String(offset)])
            }
            let popped = try connection.pop(RawConnection.popFields(topic: "T", count: 3))
            #expect(popped.bodies == ["m0", "m1", "m2"])
            try connection.acknowledge(popped.messages[0], topic: "T")
            for offset in [0, 4] {
                let refused = try commit(puller, offset)
                #expect(refused.code == ResponseCode.noPermission.rawValue)
                #expect(refused.remark?.contains("cannot be pulled") == true)
            }
            #expect(try connection.committed(topic: "T") == 1)
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies == ["m3"])
            let tool = try harness.connect()
            #expect(try commit(tool, 0).code == 0)
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies == ["m0", "m1", "m2", "m3"])
        }
    }

    @Test("a tool's reset counts at once, whatever is in hands, and with members online, who know nothing of it")
    func resets() throws {
        try withTopic("+apus.mode=QUEUE", messages: 4) { (harness, connection) throws in
            let (member, tool) = (try harness.connect(), try harness.connect())
            try member.join("G")
            let popped = try connection.pop(RawConnection.popFields(topic: "T", count: 3))
            try connection.acknowledge(popped.messages[0], topic: "T")
            let set = ["topic": "T", "consumerGroup": "G", "queueId": "0", "commitOffset": "0"]
            #expect(try tool.invoke(.updateConsumerOffset, set).code == 0)
            // It was in hands before: what it says now is over.
            try connection.acknowledge(popped.messages[1], topic: "T")
            let again = try connection.pop(RawConnection.popFields(topic: "T"))
            #expect(again.bodies == ["m0", "m1", "m2", "m3"])
            for message in again.messages { try connection.acknowledge(message, topic: "T") }
            #expect(try connection.committed(topic: "T") == 4)
            let fields = ["topic": "T", "group": "G", "timestamp": "0", "isForce": "true"]
            #expect(try tool.invoke(.invokeBrokerToResetOffset, fields).code == 0)
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies == ["m0", "m1", "m2", "m3"])
        }
    }

    /// A connection whose pull of the empty topic waits.
    private func waitingPull(_ harness: BrokerHarness) throws -> RawConnection {
        let waiting = try harness.connect()
        try waiting.post(
            .pullMessage, RawConnection.pullFields(topic: "T", group: "Pullers", suspendMilliseconds: 20_000))
        try eventually("the pull waits") { try harness.onLoop { $0.heldPulls == 1 } }
        return waiting
    }

    @Test("a suspended pull does not get what arrives after its broker has learnt that the topic is popped only")
    func suspendedPull() throws {
        try withTopic("+apus.retry.count=2") { (harness, connection) throws in
            let waiting = try waitingPull(harness)
            // As a slave takes it from its master's table: nothing is answered because of it.
            try harness.onLoop { broker in
                var config = try #require(broker.topics["T"]).config
                config.attributes = ["apus.mode": "QUEUE"]
                _ = try broker.topics.update(config)
            }
            _ = try connection.send(topic: "T", body: "m")
            #expect(try waiting.receive().code == ResponseCode.pullNotFound.rawValue)
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies == ["m"])
        }
    }

    @Test("apus.retry.count is shown for groups that pop; what is sent back knows the group's number alone")
    func attemptsShown() throws {
        try withTopic("+apus.retry.count=2", messages: 1) { (_, connection) throws in
            let commit = ["topic": "T", "consumerGroup": "Pullers", "queueId": "0", "commitOffset": "0"]
            #expect(try connection.invoke(.updateConsumerOffset, commit).code == 0)
            _ = try connection.pop(RawConnection.popFields(topic: "T"))
            let answer = try connection.invoke(
                .getMessageStatus, ["topic": "T", "queueId": "0", "queueOffset": "0"])
            var shown: [String: Int64] = [:]
            for row in try answer.json()["groups"]?.array ?? [] {
                shown[row["group"]?.string ?? ""] = row["attemptsMax"]?.integer
            }
            #expect(shown == ["G": 2, "Pullers": 16])
        }
    }

    @Test("a message given back is with others at once, uncounted: none becomes a dead letter of it")
    func givenBack() throws {
        for mode in ["QUEUE", "SERIAL_QUEUE"] {
            try withTopic("+apus.mode=\(mode),+apus.retry.count=0", messages: 1) { (_, connection) throws in
                for _ in 0..<3 {
                    let popped = try connection.pop(RawConnection.popFields(topic: "T", poll: 2000))
                    #expect(popped.bodies == ["m0"] && popped.messages[0].reconsumeTimes == 0)
                    #expect(try connection.change(popped.messages[0], topic: "T", invisible: 0).code == 0)
                    // Said again, it changes nothing.
                    #expect(try connection.change(popped.messages[0], topic: "T", invisible: 0).code == 0)
                    let status = try connection.status(topic: "T")
                    #expect(status["status"]?.string == "NEW" && status["attempts"]?.integer == 0)
                }
                let last = try connection.pop(RawConnection.popFields(topic: "T", poll: 2000))
                let failed = try connection.fail(try #require(last.messages.first), topic: "T", reason: "no")
                #expect(failed.extFields["deadLetter"] == "true")
            }
        }
        // Without a mode RocketMQ's rule holds: each delivery counts, whatever its end is.
        try withTopic("", messages: 1) { (_, connection) throws in
            let popped = try connection.pop(RawConnection.popFields(topic: "T"))
            #expect(try connection.change(popped.messages[0], topic: "T", invisible: 0).code == 0)
            let again = try connection.pop(RawConnection.popFields(topic: "T", poll: 2000))
            #expect(again.messages.map(\.reconsumeTimes) == [1])
        }
    }

    @Test("a message given back and prolonged in turns has no attempts below 0; the next start knows all claims")
    func givenBackInTurns() throws {
        try withTopic("+apus.mode=QUEUE", messages: 3) { (harness, connection) throws in
            let popped = try connection.pop(RawConnection.popFields(topic: "T", count: 2))
            #expect(popped.bodies == ["m0", "m1"])
            try connection.acknowledge(popped.messages[1], topic: "T")
            var message = popped.messages[0]
            for _ in 0..<3 {
                for invisible in [0, 60_000] as [Int64] {
                    let (code, changed) = try connection.change(message, topic: "T", invisible: invisible)
                    #expect(code == 0)
                    #expect(try connection.status(topic: "T")["attempts"]?.integer == 0)
                    message = changed
                }
            }
            try harness.drain()
            let next = try BrokerHarness(folder: harness.folder) { TagFilterDouble.attach(to: $0) }
            let client = try next.connect()
            // The first is in hands, the second is done.
            #expect(try client.pop(RawConnection.popFields(topic: "T")).bodies == ["m2"])
            #expect(try client.status(topic: "T")["attempts"]?.integer == 0)
            #expect(try client.acknowledge(message, topic: "T") == 0)
            #expect(try client.committed(topic: "T") == 2)
            try next.drain()
        }
    }

    @Test("a renewal that comes after the failure of an ordered message does not revive it")
    func lateRenewal() throws {
        try withTopic("+apus.mode=SERIAL_QUEUE,+apus.retry.interval=1", messages: 1) { (_, connection) throws in
            let message = try #require(try connection.pop(RawConnection.popFields(topic: "T")).messages.first)
            #expect(try connection.fail(message, topic: "T").code == 0)
            for invisible in [60_000, 0] as [Int64] {
                #expect(try connection.change(message, topic: "T", invisible: invisible).code == 0)
                #expect(try connection.status(topic: "T")["status"]?.string == "FAIL")
                #expect(try connection.pop(RawConnection.popFields(topic: "T")).messages.isEmpty)
            }
            let again = try connection.pop(RawConnection.popFields(topic: "T", poll: 5000))
            #expect(again.messages.map(\.reconsumeTimes) == [1])
        }
    }

    @Test("a pull and a pop that wait are answered when the topic's mode changes")
    func changes() throws {
        try withTopic("") { (harness, connection) throws in
            let waiting = try waitingPull(harness)
            try connection.makeTopic("T", queues: 1, "+apus.mode=QUEUE")
            #expect(try waiting.receive().code == ResponseCode.pullNotFound.rawValue)
            _ = try connection.send(topic: "T", body: "m")
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies == ["m"])
        }
    }

    @Test("a pop without a time has the topic's, a failed message comes again by the strategy")
    func failures() throws {
        try withTopic(
            "+apus.mode=QUEUE,+apus.timeout=2,+apus.retry.strategy=linear,+apus.retry.interval=1", messages: 1
        ) { (_, connection) throws in
            let popped = try connection.pop(RawConnection.popFields(topic: "T", invisible: 0))
            #expect(popped.fields["invisibleTime"] == "2000")
            #expect(try connection.pop(RawConnection.popFields(topic: "T", invisible: -1)).messages.isEmpty)
            let (code, failed) = try connection.change(popped.messages[0], topic: "T", invisible: -1)
            #expect(code == 0 && Self.seconds(failed) == 1)
            let status = try connection.status(topic: "T")
            #expect(status["status"]?.string == "FAIL" && status["attempts"]?.integer == 1)
            #expect(status["attemptsMax"]?.integer == 16 && status["until"]?.integer != nil)
            let whole = try connection.invoke(
                .getMessageStatus, ["topic": "T", "queueId": "0", "queueOffset": "0"])
            #expect(try whole.json()["topicMode"]?.string == "QUEUE")
            #expect((status["trail"]?.array ?? []).map { $0["event"]?.string } == ["DELIVERED", "FAILED"])
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).messages.isEmpty)
            let again = try connection.pop(RawConnection.popFields(topic: "T", invisible: -1, poll: 5000))
            #expect(again.messages.map(\.reconsumeTimes) == [1])
            let (_, second) = try connection.change(again.messages[0], topic: "T", invisible: -1)
            #expect(Self.seconds(second) == 2)
            // A failure by another delivery's handle changes nothing.
            let stale = try connection.change(popped.messages[0], topic: "T", invisible: -1)
            #expect(stale.code == 0 && stale.message.handle == popped.messages[0].handle)
            let last = try connection.pop(RawConnection.popFields(topic: "T", invisible: 60_000, poll: 5000))
            try connection.acknowledge(last.messages[0], topic: "T")
            let done = try connection.status(topic: "T")
            #expect(done["status"]?.string == "SUCCESS")
            #expect(
                (done["trail"]?.array ?? []).map { $0["event"]?.string }
                    == ["DELIVERED", "FAILED", "DELIVERED", "FAILED", "DELIVERED", "ACKNOWLEDGED"])
        }
    }

    /// Until it comes again, as its handle says: from its pop time on, which is later than now where two handles would
    /// be alike.
    private static func seconds(_ message: PoppedMessage) -> Int64 {
        let milliseconds = message.handle.split(separator: " ").dropFirst(2).first.flatMap { Int64($0) } ?? 0
        return (milliseconds + 50) / 1000
    }

    @Test("after retry.count deliveries more it is a dead letter at once, with the reason")
    func deadLetters() throws {
        try withTopic(
            "+apus.mode=QUEUE,+apus.retry.count=1,+apus.retry.interval=0", messages: 2
        ) { (_, connection) throws in
            let first = try connection.pop(RawConnection.popFields(topic: "T", count: 1))
            #expect(first.bodies == ["m0"])
            let once = try connection.fail(first.messages[0], topic: "T", reason: "no money")
            #expect(once.code == 0 && once.extFields["deadLetter"] == nil && once.extFields["strategy"] == "true")
            let again = try connection.pop(RawConnection.popFields(topic: "T", count: 1))
            #expect(again.messages.map(\.reconsumeTimes) == [1] && again.bodies == ["m0"])
            let answer = try connection.fail(again.messages[0], topic: "T", reason: "no\u{1}money\u{2}X\u{1}y")
            #expect(answer.code == 0 && answer.extFields["deadLetter"] == "true")
            #expect(answer.extFields["strategy"] == "true")
            let letters = try connection.invoke(
                .pullMessage, RawConnection.pullFields(topic: "%DLQ%G", group: "Reader"))
            let text = String(decoding: letters.body, as: UTF8.self)
            #expect(text.contains("failed (no money X y), popped 2 times; apus.retry.count of topic T is 1"))
            #expect(try connection.committed(topic: "T") == 1)
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies == ["m1"])
            // Who says nothing is given up by the next pop. Without a unique key its dead letter is not found.
            let status = try connection.status(topic: "T")
            #expect(status["status"]?.string == "FAIL" && status["deadLetter"] == nil, "\(status.text())")
            let keyed = try connection.send(topic: "T", body: "m2", properties: "UNIQ_KEY\u{1}m2")
            #expect(keyed.code == 0)
            for _ in 0..<2 {
                let popped = try connection.pop(RawConnection.popFields(topic: "T", count: 1, poll: 2000))
                #expect(try connection.fail(#require(popped.messages.first), topic: "T").code == 0)
            }
            let found = try connection.status(topic: "T", offset: 2)
            #expect(found["status"]?.string == "FAIL" && found["deadLetter"]?["topic"]?.string == "%DLQ%G")
            #expect(found["until"] == nil && found["attempts"]?.integer == 2)
        }
    }

    @Test("a dead letter that is left to another tick is not promised, and has the client's reason all the same")
    func laterDeadLetter() throws {
        try withTopic("+apus.mode=QUEUE,+apus.retry.count=0,+apus.retry.interval=0", messages: 1) {
            harness, connection in
            let popped = try connection.pop(RawConnection.popFields(topic: "T"))
            try harness.onLoop { $0.processors.popped.deadLetters.bytesMax = 0 }
            let failed = try connection.fail(try #require(popped.messages.first), topic: "T", reason: "no money")
            #expect(failed.code == 0 && failed.extFields["deadLetter"] == nil)
            try harness.onLoop { $0.processors.popped.deadLetters.bytesMax = 4 << 20 }
            #expect(try connection.pop(RawConnection.popFields(topic: "T", poll: 300)).messages.isEmpty)
            let letters = try connection.invoke(
                .pullMessage, RawConnection.pullFields(topic: "%DLQ%G", group: "Reader"))
            #expect(String(decoding: letters.body, as: UTF8.self).contains("failed (no money), popped 1 times"))
            #expect(try connection.committed(topic: "T") == 1)
        }
    }

    @Test("messages of one shard key lie in one queue; batches are refused")
    func shards() throws {
        try withTopic("+apus.mode=QUEUE,+apus.shard=true", queues: 4) { (_, connection) throws in
            var queues: [String: Set<String>] = [:]
            for index in 0..<40 {
                let key = "order-\(index % 10)"
                let answer = try connection.send(
                    topic: "T", queueID: Int32(index % 4), body: "\(index)", properties: "__SHARDINGKEY\u{1}\(key)")
                #expect(answer.code == 0)
                queues[key, default: []].insert(answer.extFields["queueId"] ?? "")
            }
            #expect(queues.values.allSatisfy { $0.count == 1 })
            #expect(Set(queues.values.flatMap { $0 }).count > 1)
            let other = try connection.send(topic: "T", queueID: 2, body: "without a key")
            #expect(other.extFields["queueId"] == "2")
            let batch = try connection.send(topic: "T", bytes: [0, 0, 0, 0], properties: "", batch: "true")
            #expect(batch.code == ResponseCode.messageIllegal.rawValue && batch.remark?.contains("one by one") == true)
        }
    }
}

extension RawConnection {
    /// The connection is a member of the group from now on.
    func join(_ group: String) throws {
        let heartbeat = JSONValue.fields([
            ("clientID", .string("c")),
            (
                "consumerDataSet",
                .array([
                    .fields([
                        ("groupName", .string(group)), ("consumeType", .string("CONSUME_PASSIVELY")),
                        ("messageModel", .string("CLUSTERING")),
                        ("consumeFromWhere", .string("CONSUME_FROM_FIRST_OFFSET")),
                        ("subscriptionDataSet", .array([])), ("unitMode", .bool(false)),
                    ])
                ])
            ), ("producerDataSet", .array([])),
        ])
        #expect(try invoke(.heartBeat, body: heartbeat.bytes()).code == 0)
    }

    func topicRequest(_ topic: String, queues: Int, _ attributes: String) throws -> RemotingCommand {
        try invoke(
            .updateAndCreateTopic,
            [
                "topic": topic, "defaultTopic": "TBW102", "readQueueNums": String(queues),
                "writeQueueNums": String(queues), "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0",
                "order": "false", "attributes": attributes,
            ])
    }

    func makeTopic(_ topic: String, queues: Int, _ attributes: String) throws {
        let answer = try topicRequest(topic, queues: queues, attributes)
        #expect(answer.code == 0, "\(answer.remark ?? "")")
    }

    /// The answer to a reported failure.
    func fail(
        _ message: PoppedMessage, topic: String, group: String = "G", reason: String? = nil
    ) throws -> RemotingCommand {
        var fields = [
            "consumerGroup": group, "topic": topic, "queueId": String(message.queueID),
            "offset": String(message.offset), "extraInfo": message.handle, "invisibleTime": "-1",
        ]
        fields["reason"] = reason
        return try invoke(.changeMessageInvisibleTime, fields)
    }

    /// Group G's row of a message's status.
    func status(topic: String, offset: Int64 = 0) throws -> JSONValue {
        let answer = try invoke(
            .getMessageStatus, ["topic": topic, "queueId": "0", "queueOffset": String(offset), "group": "G"])
        return try #require(try answer.json()["groups"]?.array?.first)
    }
}

extension QueryAssignmentRequestBody {
    static func text(topic: String, group: String, client: String) -> [UInt8] {
        Array(
            (#"{"clientId":""# + client + #"","consumerGroup":""# + group
                + #"","messageModel":"CLUSTERING","strategyName":"AVG","topic":""# + topic + #""}"#).utf8)
    }
}
