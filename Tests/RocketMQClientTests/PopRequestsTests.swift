import FastJSON
import RemotingProtocol
import Testing

@testable import RocketMQClient

@Suite("RocketMQClient: pops and acknowledgements as bytes")
struct PopRequestsTests {
    private func answer(_ fields: [String: String]) -> RemotingCommand {
        var reply = RemotingCommand.response(.success)
        reply.extFields = ["popTime": "1000", "invisibleTime": "60000", "reviveQid": "3"].merging(fields) { $1 }
        return reply
    }

    private func record(
        topic: String = "T", queueID: Int32, offset: Int64, attempts: Int32 = 0, properties: [String: String] = [:]
    ) -> [UInt8] {
        TestRecord.bytes(
            topic: topic, queueID: queueID, offset: offset, attempts: attempts, body: "x", properties: properties)
    }

    private func deliveries(_ reply: RemotingCommand) throws(RocketMQClientError) -> [PopDelivery] {
        try PopDelivery.decode(reply, group: "g", brokerName: "broker-a", address: "h:1")
    }

    @Test("the fields of a pop")
    func query() {
        var query = PopQuery(group: "g", topic: "T")
        query.messagesMax = 7
        query.wait = .seconds(2)
        query.isOrdered = true
        query.attemptID = "a1"
        query.beginsAtEnd = true
        query.bornTime = 1_700_000_000_000
        let fields = query.command.extFields
        #expect(query.command.code == 200_050)
        #expect(
            fields == [
                "consumerGroup": "g", "topic": "T", "queueId": "-1", "maxMsgNums": "7", "invisibleTime": "60000",
                "pollTime": "2000", "bornTime": "1700000000000", "initMode": "1", "expType": "TAG", "exp": "*",
                "order": "true", "attemptId": "a1",
            ])
    }

    @Test("handles are made of the answer's strings, by queue")
    func handles() throws {
        var reply = answer(["startOffsetInfo": "0 2 6;0 3 0", "msgOffsetInfo": "0 2 6,8;0 3 0"])
        reply.body =
            record(queueID: 2, offset: 6) + record(queueID: 2, offset: 8, attempts: 2) + record(queueID: 3, offset: 0)
        let found = try deliveries(reply)
        #expect(
            found.map(\.handle.text) == [
                "6 1000 60000 3 0 broker-a 2 6", "6 1000 60000 3 0 broker-a 2 8", "0 1000 60000 3 0 broker-a 3 0",
            ])
        #expect(found.map(\.attempt) == [1, 3, 1])
    }

    @Test("the deliveries of an ordered group are counted by message, or by queue")
    func orderedCounts() throws {
        var reply = answer([
            "startOffsetInfo": "0 0 5;0 1 1", "orderCountInfo": "0 0 1;0 qo0%6 4;0 1 2;nonsense;0 0 x",
        ])
        reply.body = record(queueID: 0, offset: 5) + record(queueID: 0, offset: 6) + record(queueID: 1, offset: 1)
        #expect(try deliveries(reply).map(\.attempt) == [2, 5, 3])
    }

    @Test("copies in retry topics have their own handle, or the name of their topic says which they are")
    func copies() throws {
        let own = "4 900 60000 2 2 broker-a 0 4"
        var reply = answer(["startOffsetInfo": "1 0 7;2 0 9"])
        reply.body =
            record(queueID: 0, offset: 4, properties: ["POP_CK": own])
            + record(topic: "%RETRY%g_T", queueID: 0, offset: 7) + record(topic: "%RETRY%g+T", queueID: 0, offset: 9)
        let found = try deliveries(reply)
        #expect(found[0].handle.text == own)
        #expect(found.dropFirst().map(\.handle.kind) == [.retryV1, .retryV2])
        // A message whose producer has copied the properties of another one, as they are when it is popped.
        for copied in [own, "4 900 60000 2 0 broker-a 0 4", "4 900 60000 2 2 broker-b 0 5", "nonsense"] {
            var normal = answer(["startOffsetInfo": "0 0 5"])
            normal.body = record(queueID: 0, offset: 5, properties: ["POP_CK": copied])
            #expect(try deliveries(normal)[0].handle.text == "5 1000 60000 3 0 broker-a 0 5", "\(copied)")
        }
        let message = Message(topic: "T", body: [], properties: ["POP_CK": own, "a": "b"])
        #expect(try message.encodedProperties(id: "1").hasSuffix("true\u{2}a\u{1}b"))
        let claim = PopClaim(group: "g", topic: "T", handle: found[1].handle)
        #expect(claim.acknowledgement.extFields["topic"] == "%RETRY%g_T")
    }

    @Test(
        "answers that do not fit their records are the broker's failure",
        arguments: [
            [:], ["startOffsetInfo": "0 1 0"], ["startOffsetInfo": "0 0"],
            ["startOffsetInfo": "0 0 0", "popTime": "x"],
        ])
    func malformed(fields: [String: String]) {
        var reply = answer(fields)
        reply.body = record(queueID: 0, offset: 0)
        let error = #expect(throws: RocketMQClientError.self) { try deliveries(reply) }
        guard case .malformedAnswer? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    private func claim(_ offset: Int64, start: Int64 = 0, popTime: Int64 = 1, queueID: Int32 = 0) -> PopClaim {
        PopClaim(
            group: "g", topic: "T",
            handle: PopHandle(
                startOffset: start, popTime: popTime, invisibleTime: 5, reviveQueue: 6, kind: .normal,
                brokerName: "broker-a", queueID: queueID, queueOffset: offset))
    }

    @Test("a batch has an entry for each pop of a queue, a bit for each message")
    func batch() throws {
        let command = PopClaim.batch(
            [claim(3), claim(0), claim(9, start: 9, popTime: 2), claim(9), claim(9, queueID: 1)], brokerName: "broker-a"
        )
        #expect(command.code == 200_151)
        let body = try command.body.withUnsafeBytes { bytes throws(RemotingDecodeError) in try BatchAckBody(bytes) }
        #expect(body.entries.map(\.bits) == [[0b1001, 0b10], [0b1], [0, 0b10]])
        #expect(body.entries.map(\.startOffset) == [0, 9, 0] && body.entries.map(\.queueID) == [0, 0, 1])
        #expect(body.entries.map(\.popTime) == [1, 2, 1])
        #expect(body.entries.allSatisfy { $0.group == "g" && $0.topic == "T" && $0.kind == .normal })
        #expect(body.entries.allSatisfy { $0.reviveQueue == 6 && $0.invisibleTime == 5 })
        #expect(try JSONValue(parsing: command.body)["brokerName"]?.string == "broker-a")
    }

    @Test("what has no bit travels alone")
    func batchBounds() {
        #expect(claim(65_535).fitsBatch && !claim(65_536).fitsBatch && !claim(1, start: 2).fitsBatch)
        #expect(!claim(.max, start: .min).fitsBatch)
    }

    @Test("a changed time makes a new handle that begins with its message")
    func changed() {
        let claim = claim(17, start: 12)
        #expect(
            claim.change(to: -1).extFields == [
                "consumerGroup": "g", "topic": "T", "queueId": "0", "offset": "17", "extraInfo": claim.handle.text,
                "invisibleTime": "-1",
            ])
        let handle = claim.handle(after: answer([:]))
        #expect(handle?.text == "17 1000 60000 3 0 broker-a 0 17")
        // The delivery was over.
        #expect(claim.handle(after: .response(.success)) == nil)
    }

    @Test("pauses are RocketMQ's, for any number of attempts")
    func pauses() {
        #expect(PopRetryPause.milliseconds(afterAttempt: 1) == 10_000)
        #expect(PopRetryPause.milliseconds(afterAttempt: 2) == 30_000)
        #expect([16, 17, Int.max].map(PopRetryPause.milliseconds) == [7_200_000, 7_200_000, 7_200_000])
        #expect(PopRetryPause.milliseconds(afterAttempt: .min) == 10_000)
    }

    @Test("options that cannot work are refused")
    func options() {
        func refused(_ change: (inout PopConsumer.Options) -> Void) -> Bool {
            var options = PopConsumer.Options()
            change(&options)
            do throws(RocketMQClientError) {
                try options.check()
                return false
            } catch {
                return true
            }
        }
        #expect(!refused { _ in })
        #expect(refused { $0.heldMax = 0 } && refused { $0.heldMax = 4097 } && !refused { $0.heldMax = 4096 })
        #expect(refused { $0.timeout = .milliseconds(999) } && !refused { $0.timeout = .seconds(1) })
        #expect(refused { $0.timeout = .seconds(86_401) } && !refused { $0.timeout = .seconds(86_400) })
        #expect(refused { $0.pollWait = .seconds(101) } && refused { $0.pollWait = .zero })
        #expect(refused { $0.start = .time(milliseconds: 1) } && !refused { $0.start = .last })
    }
}

@Suite("RocketMQClient: policies of topics")
struct DeliveryPolicyTests {
    @Test("every value goes to its attribute and back")
    func roundTrip() throws {
        var policy = DeliveryPolicy(mode: .serial, timeout: .seconds(90))
        policy.retryCount = 3
        policy.retryStrategy = .exponential
        policy.retryInterval = .zero
        policy.retryJitter = 20
        policy.isSharded = true
        policy.priority = 9
        policy.archive = .days(7)
        policy.owner = "Ann"
        policy.alarm = "https://a/b?c=d"
        let attributes = try policy.attributes()
        #expect(
            attributes == [
                "apus.mode": "SERIAL_QUEUE", "apus.timeout": "90", "apus.retry.count": "3",
                "apus.retry.strategy": "exponential", "apus.retry.interval": "0", "apus.retry.jitter": "20",
                "apus.shard": "true", "apus.priority": "9", "apus.archive": "7d", "apus.owner": "Ann",
                "apus.alarm": "https://a/b?c=d",
            ])
        #expect(DeliveryPolicy(attributes: attributes) == policy)
        for archive in [DeliveryPolicy.Archive.consumed, .forever] {
            policy.archive = archive
            #expect(DeliveryPolicy(attributes: try policy.attributes()) == policy)
        }
        #expect(try DeliveryPolicy().attributes().isEmpty)
    }

    @Test("what brokers would refuse is refused here")
    func bounds() {
        func refused(_ change: (inout DeliveryPolicy) -> Void) -> Bool {
            var policy = DeliveryPolicy()
            change(&policy)
            do throws(RocketMQClientError) {
                _ = try policy.attributes()
                return false
            } catch {
                return true
            }
        }
        #expect(refused { $0.timeout = .zero } && refused { $0.timeout = .milliseconds(1500) })
        #expect(refused { $0.timeout = .seconds(86_401) } && !refused { $0.timeout = .seconds(86_400) })
        #expect(refused { $0.retryCount = 1001 } && refused { $0.retryCount = -1 } && !refused { $0.retryCount = 0 })
        #expect(refused { $0.retryInterval = .seconds(-1) } && refused { $0.retryJitter = 101 })
        #expect(refused { $0.priority = 10 } && refused { $0.archive = .days(0) })
        #expect(refused { $0.archive = .days(3651) } && !refused { $0.archive = .days(3650) })
        #expect(refused { $0.owner = "a,b" } && refused { $0.owner = "" } && refused { $0.owner = "a\u{1B}" })
        #expect(refused { $0.alarm = String(repeating: "a", count: 513) })
    }

    @Test("attributes that cannot be read count as absent")
    func unreadable() {
        let policy = DeliveryPolicy(attributes: [
            "apus.mode": "BOTH", "apus.timeout": "9999999999", "apus.retry.count": "many", "apus.archive": "0d",
            "apus.shard": "perhaps", "message.type": "DELAY",
        ])
        #expect(policy == DeliveryPolicy())
        #expect(DeliveryPolicy(attributes: ["apus.mode": "queue"]).mode == .queue)
    }
}
