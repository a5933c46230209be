import BrokerService
import FastJSON
import Foundation
import RemotingProtocol
import Testing

/// Where a group begins and how operators move it: done as clients and `mqadmin` do it, and then really consumed.
@Suite("where consumption begins, rewinding, skipping, cloning") struct ConsumerOffsetTests {
    /// Three parts of five messages, the second and third a while after the one before.
    private struct Parts {
        var second: Int64 = 0
        var third: Int64 = 0
    }

    private static let count: Int64 = 15

    private func produce(_ connection: RawConnection, _ topic: String) throws -> Parts {
        var parts = Parts()
        for number in 0..<Int(Self.count) {
            if number == 5 || number == 10 {
                // Time passes: the moments lie clearly between the messages.
                usleep(60_000)
                if number == 5 {
                    parts.second = RawConnection.nowMilliseconds
                } else {
                    parts.third = RawConnection.nowMilliseconds
                }
                usleep(20_000)
            }
            #expect(try connection.send(topic: topic, body: "m\(number)").code == 0)
        }
        return parts
    }

    private enum From {
        case first, last
        case time(Int64)
    }

    /// RebalancePushImpl.computePullFromWhere.
    private func begin(_ connection: RawConnection, _ topic: String, _ group: String, _ from: From) throws -> Int64 {
        let fields = ["topic": topic, "queueId": "0"]
        let known = try connection.invoke(.queryConsumerOffset, fields.merging(["consumerGroup": group]) { $1 })
        if known.code == 0 { return Int64(known.extFields["offset"] ?? "") ?? -1 }
        #expect(known.code == ResponseCode.queryNotFound.rawValue)
        switch from {
        case .first: return 0
        case .last: return Int64(try connection.invoke(.getMaxOffset, fields).extFields["offset"] ?? "") ?? -1
        case .time(let time):
            let found = try connection.invoke(
                .searchOffsetByTimestamp, fields.merging(["timestamp": String(time)]) { $1 })
            return Int64(found.extFields["offset"] ?? "") ?? -1
        }
    }

    /// Consumes everything from there on, committing with the pulls as a client does; gives the numbers.
    private func consume(
        _ connection: RawConnection, _ topic: String, _ group: String, from start: Int64
    ) throws -> [Int] {
        var offset = start
        var found: [Int] = []
        while true {
            var fields = RawConnection.pullFields(topic: topic, offset: offset, group: group, count: 4)
            fields["sysFlag"] = "5"
            fields["commitOffset"] = String(offset)
            let answer = try connection.invoke(.pullMessage, fields)
            guard answer.code == 0 else { break }
            found += Consumed.all(answer.body).compactMap { Int($0.body.dropFirst()) }
            offset = Int64(answer.extFields["nextBeginOffset"] ?? "") ?? offset
        }
        try commit(connection, topic, group, offset)
        return found
    }

    private func commit(_ connection: RawConnection, _ topic: String, _ group: String, _ offset: Int64) throws {
        let answer = try connection.invoke(
            .updateConsumerOffset,
            ["topic": topic, "consumerGroup": group, "queueId": "0", "commitOffset": String(offset)])
        #expect(answer.code == 0)
    }

    @Test("a new group begins at the first, the last, or a moment; with a young topic always at its beginning")
    func fromWhere() throws {
        // With this the first message counts as old (checkInDiskByConsumeOffset), and the client's wish is asked for.
        let harness = try BrokerHarness([("accessMessageInMemoryMaxRatio", "0")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let parts = try produce(connection, "Old")
        func consumed(_ group: String, _ from: From) throws -> [Int] {
            try consume(connection, "Old", group, from: try begin(connection, "Old", group, from))
        }
        #expect(try consumed("first", .first) == Array(0..<15))
        #expect(try consumed("last", .last) == [])
        #expect(try consumed("then", .time(parts.third)) == Array(10..<15))
        #expect(try consumed("future", .time(RawConnection.nowMilliseconds + 60_000)).count <= 1)
        _ = try connection.send(topic: "Old", body: "m15")
        // What was committed goes before any wish.
        #expect(try consumed("last", .first) == [15])
        #expect(try consumed("then", .last) == [15])
        let young = try BrokerHarness()
        defer { try? young.end() }
        let other = try young.connect()
        _ = try produce(other, "Young")
        #expect(try consume(other, "Young", "last", from: try begin(other, "Young", "last", .last)).count == 15)
    }

    @Test("rewinding an offline group: 222 says it is offline, the tool sets offsets itself, forward and backward")
    func offline() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let parts = try produce(connection, "Topic")
        #expect(try consume(connection, "Topic", "G", from: 0).count == 15)
        // The group must have been in all queues, or RocketMQ takes it for one that does not exist.
        for queueID in 1..<4 {
            _ = try connection.invoke(
                .updateConsumerOffset,
                ["topic": "Topic", "consumerGroup": "G", "queueId": String(queueID), "commitOffset": "0"])
        }
        func reset(to time: Int64) throws {
            let refused = try connection.invoke(
                .invokeBrokerToResetOffset,
                ["topic": "Topic", "group": "G", "timestamp": String(time), "isForce": "true"])
            #expect(refused.code == ResponseCode.consumerNotOnline.rawValue)
            // DefaultMQAdminExtImpl.resetOffsetByTimestampOld.
            let stats = try connection.invoke(.getConsumeStats, ["consumerGroup": "G", "topic": "Topic"]).json()
            for member in stats["offsetTable"]?.object?.members ?? [] {
                let queueID = try JSONValue(parsing: Array(member.key.utf8))["queueId"]?.integer ?? -1
                let fields = ["topic": "Topic", "queueId": String(queueID)]
                let found = try connection.invoke(
                    .searchOffsetByTimestamp, fields.merging(["timestamp": String(time)]) { $1 })
                let answer = try connection.invoke(
                    .updateConsumerOffset,
                    fields.merging(["consumerGroup": "G", "commitOffset": found.extFields["offset"] ?? ""]) { $1 })
                #expect(answer.code == 0)
            }
        }
        func rest() throws -> [Int] {
            try consume(connection, "Topic", "G", from: try begin(connection, "Topic", "G", .first))
        }
        try reset(to: parts.second)
        #expect(try rest() == Array(5..<15))
        try commit(connection, "Topic", "G", 2)
        try reset(to: parts.third)
        #expect(try rest() == Array(10..<15))
    }

    @Test(
        "rewinding an online group: every member is told its new offsets and goes on there", arguments: [true, false])
    func online(_ isCpp: Bool) throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (tool, consumer) = (try harness.connect(), try harness.connect())
        let parts = try produce(tool, "Topic")
        #expect(try consume(consumer, "Topic", "G", from: 0).count == 15)
        // Of the topic's four queues three were never consumed: RocketMQ refuses to move a group that is nowhere in
        // one.
        for queueID in 1..<4 {
            _ = try tool.invoke(
                .updateConsumerOffset,
                ["topic": "Topic", "consumerGroup": "G", "queueId": String(queueID), "commitOffset": "0"])
        }
        let data = ConsumerData(groupName: "G", subscriptionDataSet: [SubscriptionData(topic: "Topic", subVersion: 1)])
        var heartbeat = RemotingCommand(
            .heartBeat, body: HeartbeatData(clientID: "c", producerGroups: [], consumerDataSet: [data]).encoded())
        heartbeat.language = isCpp ? .cpp : .java
        #expect(try consumer.invoke(heartbeat).code == 0)
        func reset(to time: Int64, force: Bool) throws -> [Int] {
            let answer = try tool.invoke(
                .invokeBrokerToResetOffset,
                ["topic": "Topic", "group": "G", "timestamp": String(time), "isForce": String(force)])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
            let told = try consumer.request(.resetConsumerClientOffset)
            #expect(told.isOneway && told.extFields["topic"] == "Topic" && told.extFields["group"] == "G")
            let body = try told.json()["offsetTable"]
            let offset: Int64?
            if isCpp {
                // ResetOffsetBodyForC: a list, for clients that cannot read objects as keys.
                offset = body?.array?.first { $0["queueId"] == 0 }?["offset"]?.integer
            } else {
                offset = body?.object?.members.first { $0.key.contains("\"queueId\":0") }?.value.integer
            }
            let start = try #require(offset)
            // ClientManageProcessor.resetOffset: the consumer takes it for its own and commits it.
            try commit(consumer, "Topic", "G", start)
            return try consume(consumer, "Topic", "G", from: start)
        }
        #expect(try reset(to: parts.second, force: false) == Array(5..<15))
        // Forward only with force.
        try commit(consumer, "Topic", "G", 3)
        #expect(try reset(to: parts.third, force: false) == Array(3..<15))
        try commit(consumer, "Topic", "G", 3)
        #expect(try reset(to: parts.third, force: true) == Array(10..<15))
        // mqadmin skipAccumulatedMessage: to the end.
        try commit(consumer, "Topic", "G", 3)
        #expect(try reset(to: -1, force: true) == [])
        _ = try tool.send(topic: "Topic", body: "m15")
        #expect(try consume(consumer, "Topic", "G", from: try begin(consumer, "Topic", "G", .first)) == [15])
    }

    @Test("where members are: asked of them, one by one or all (223, 221)")
    func status() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (tool, consumer) = (try harness.connect(), try harness.connect())
        let none = try tool.invoke(.invokeBrokerToGetConsumerStatus, ["topic": "T", "group": "G", "clientAddr": ""])
        #expect(none.code == ResponseCode.systemError.rawValue)
        #expect(none.remark?.contains("No Any Consumer online in the consumer group: [G]") == true)
        let data = ConsumerData(groupName: "G", subscriptionDataSet: [SubscriptionData(topic: "T", subVersion: 1)])
        _ = try consumer.invoke(
            .heartBeat, body: HeartbeatData(clientID: "c", producerGroups: [], consumerDataSet: [data]).encoded())
        try tool.post(.invokeBrokerToGetConsumerStatus, ["topic": "T", "group": "G", "clientAddr": "c"])
        let asked = try consumer.request(.getConsumerStatusFromClient)
        #expect(asked.extFields == ["topic": "T", "group": "G"])
        try consumer.answer(
            asked, body: #"{"messageQueueTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:7}}"#)
        let answer = try tool.receive()
        #expect(answer.code == 0)
        let table = try answer.json()["consumerTable"]?["c"]?.object
        #expect(table?.members.first?.value == 7)
    }

    @Test("a cloned group goes on where the other was: by the broker (314) and by the tool")
    func clone() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try produce(connection, "Topic")
        try commit(connection, "Topic", "Source", 9)
        let cloned = try connection.invoke(
            .cloneGroupOffset, ["srcGroup": "Source", "destGroup": "Copy", "topic": "Topic", "offline": "true"])
        #expect(cloned.code == 0)
        func rest(_ group: String) throws -> [Int] {
            try consume(connection, "Topic", group, from: try begin(connection, "Topic", group, .first))
        }
        #expect(try rest("Copy") == Array(9..<15))
        // CloneGroupOffsetCommand: what 208 says of the one is written for the other.
        let stats = try connection.invoke(.getConsumeStats, ["consumerGroup": "Source"]).json()
        let place = stats["offsetTable"]?.object?.members.first { $0.key.contains("\"queueId\":0") }?.value
        try commit(connection, "Topic", "ByTool", try #require(place?["consumerOffset"]?.integer))
        #expect(try rest("ByTool") == Array(9..<15))
        // What is behind all groups but those left out (308).
        let corrected = try connection.invoke(
            .queryCorrectionOffset, ["topic": "Topic", "compareGroup": "Copy", "filterGroups": "Copy,ByTool"]
        ).json()
        #expect(corrected["correctionOffsets"]?["0"] == 9)
    }
}
