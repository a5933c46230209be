import BrokerService
import FastJSON
import Foundation
import Logging
import MessageModel
import MessageStore
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import StoreFormat
import TestTools
import Testing
import WorkerProtocol

@Suite struct BrokerTests {
    private func heartbeat(_ clientID: String, group: String, topics: [String]) -> [UInt8] {
        HeartbeatData(
            clientID: clientID, producerGroups: ["P"],
            consumerDataSet: [
                ConsumerData(
                    groupName: group,
                    subscriptionDataSet: topics.map { SubscriptionData(topic: $0, subVersion: 1) })
            ]
        ).encoded()
    }

    @Test("an unknown request is answered with 3 and the connection stays")
    func unknownCode() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for serialization in [HeaderSerialization.json, .rocketMQ] {
            var command = RemotingCommand(code: 9999)
            command.opaque = 77
            var buffer = ByteBuffer()
            command.encode(into: &buffer, serialization: serialization)
            try connection.send(Array(buffer.readableBytesView))
            let answer = try connection.receive()
            #expect(answer.code == ResponseCode.requestCodeNotSupported.rawValue)
            #expect(answer.opaque == 77)
        }
        #expect(try connection.send(topic: "Still").code == 0)
    }

    @Test("refused sends: code and words")
    func refusals() throws {
        let harness = try BrokerHarness([("autoCreateTopicEnable", "false")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "Absent").code == ResponseCode.topicNotExist.rawValue)
        #expect(try connection.send(topic: "bad.name").code == ResponseCode.systemError.rawValue)
        #expect(try connection.send(topic: "SELF_TEST_TOPIC").code == ResponseCode.noPermission.rawValue)
        let incomplete = try connection.invoke(.sendMessageV2, ["a": "P", "b": "T"])
        #expect(incomplete.code == ResponseCode.systemError.rawValue)
        #expect(incomplete.remark?.contains("defaultTopic") == true)
    }

    @Test("a consumer's heartbeat makes its retry topic and tells the others of its group")
    func rebalanceNotification() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let first = try harness.connect()
        let second = try harness.connect()
        #expect(try first.invoke(.heartBeat, body: heartbeat("c1", group: "G", topics: ["T"])).code == 0)
        #expect(
            try first.invoke(.getConsumerListByGroup, ["consumerGroup": "G"]).json()["consumerIdList"]
                == .strings(["c1"]))
        try second.post(.heartBeat, body: heartbeat("c2", group: "G", topics: ["T"]))
        let notified = try next(first) { $0.requestCode == .notifyConsumerIDsChanged }
        #expect(notified.extFields["consumerGroup"] == "G")
        #expect(notified.isOneway)
        _ = try next(second) { $0.isResponse }
        let list = try first.invoke(.getConsumerListByGroup, ["consumerGroup": "G"])
        #expect(try list.json()["consumerIdList"] == .strings(["c1", "c2"]))
        let topics = try first.invoke(.getAllTopicConfig).json()
        #expect(topics["topicConfigTable"]?["%RETRY%G"]?["perm"] == 6)
        #expect(topics["topicConfigTable"]?["%RETRY%G"]?["readQueueNums"] == 1)
        second.close()
        _ = try next(first) { $0.requestCode == .notifyConsumerIDsChanged }
        let left = try first.invoke(.getConsumerListByGroup, ["consumerGroup": "G"])
        #expect(try left.json()["consumerIdList"] == .strings(["c1"]))
    }

    private func next(_ connection: RawConnection, _ isWanted: (RemotingCommand) -> Bool) throws -> RemotingCommand {
        while true {
            let frame = try connection.receive()
            if isWanted(frame) { return frame }
        }
    }

    @Test("a message sent back comes again by its retry topic, after the last time by the dead-letter topic")
    func sendBack() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s 1s 1s")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.invoke(.heartBeat, body: heartbeat("c1", group: "G", topics: ["Back", "%RETRY%G"]))
        let sent = try connection.send(topic: "Back", body: "again", properties: "KEYS\u{1}k")
        let id = try #require(sent.extFields["msgId"])
        let offset = try #require(OffsetMessageID.parse(id)?.physicalOffset)
        let back = try connection.invoke(
            .consumerSendMessageBack,
            [
                "group": "G", "offset": String(offset), "delayLevel": "1", "originTopic": "Back",
                "maxReconsumeTimes": "1",
            ])
        #expect(back.code == 0)
        var record = try retried(connection, topic: "%RETRY%G")
        #expect(record.body == "again")
        #expect(record.properties["RETRY_TOPIC"] == "Back")
        #expect(record.properties["ORIGIN_MESSAGE_ID"] == id)
        #expect(record.reconsumeTimes == 1)
        let final = try connection.invoke(
            .consumerSendMessageBack,
            [
                "group": "G", "offset": String(record.physicalOffset), "delayLevel": "0", "originTopic": "Back",
                "maxReconsumeTimes": "1",
            ])
        #expect(final.code == 0)
        record = try retried(connection, topic: "%DLQ%G")
        #expect(record.properties["ORIGIN_MESSAGE_ID"] == id)
        #expect(record.reconsumeTimes == 2)
    }

    private struct Retried {
        var body: String
        var properties: [String: String]
        var reconsumeTimes: Int32
        var physicalOffset: Int64
    }

    private func retried(_ connection: RawConnection, topic: String) throws -> Retried {
        let answer = try connection.invoke(
            .pullMessage, RawConnection.pullFields(topic: topic, group: "G", suspendMilliseconds: 5000))
        #expect(answer.code == 0)
        return try answer.body.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { throw RawConnection.Closed() }
            var properties: [String: String] = [:]
            MessageProperties.forEach(in: record.properties) {
                properties[String(decoding: $0, as: UTF8.self)] = String(decoding: $1, as: UTF8.self)
            }
            return Retried(
                body: String(decoding: record.body, as: UTF8.self), properties: properties,
                reconsumeTimes: record.reconsumeTimes, physicalOffset: record.physicalOffset.rawValue)
        }
    }

    @Test("a delayed message comes after its delay, also when the broker was stopped meanwhile")
    func delay() throws {
        var harness = try BrokerHarness([("messageDelayLevel", "1s 2s")])
        var connection = try harness.connect()
        let began = Date()
        let sent = try connection.send(topic: "Delayed", queueID: 2, body: "late", properties: "DELAY\u{1}1")
        #expect(sent.code == 0)
        #expect(sent.extFields["queueId"] == "2")
        _ = try connection.send(topic: "Delayed", queueID: 3, body: "later", properties: "DELAY\u{1}9")
        let answer = try connection.invoke(
            .pullMessage, RawConnection.pullFields(topic: "Delayed", queueID: 2, suspendMilliseconds: 5000))
        #expect(answer.code == 0)
        #expect((0.9...2).contains(Date().timeIntervalSince(began)))
        #expect(String(decoding: answer.body, as: UTF8.self).contains("late"))
        let folder = harness.folder
        try harness.drain()
        harness = try BrokerHarness([("messageDelayLevel", "1s 2s")], folder: folder)
        defer { try? harness.end() }
        connection = try harness.connect()
        let later = try connection.invoke(
            .pullMessage, RawConnection.pullFields(topic: "Delayed", queueID: 3, suspendMilliseconds: 5000))
        #expect(String(decoding: later.body, as: UTF8.self).contains("later"))
        let first = try connection.invoke(.getMaxOffset, ["topic": "Delayed", "queueId": "2"])
        #expect(first.extFields["offset"] == "1")
    }

    @Test("topics, groups, offsets and messages are there after a restart")
    func restart() throws {
        var harness = try BrokerHarness()
        var connection = try harness.connect()
        for number in 0..<5 { _ = try connection.send(topic: "Kept", body: "m\(number)") }
        _ = try connection.invoke(.heartBeat, body: heartbeat("c1", group: "G", topics: ["Kept"]))
        _ = try connection.invoke(
            .updateConsumerOffset, ["topic": "Kept", "consumerGroup": "G", "queueId": "0", "commitOffset": "4"])
        let folder = harness.folder
        try harness.drain()
        #expect(throws: RawConnection.Closed.self) { try connection.receive() }

        harness = try BrokerHarness(folder: folder)
        defer { try? harness.end() }
        connection = try harness.connect()
        let offset = try connection.invoke(
            .queryConsumerOffset, ["topic": "Kept", "consumerGroup": "G", "queueId": "0"])
        #expect(offset.extFields["offset"] == "4")
        let answer = try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "Kept", offset: 4))
        #expect(String(decoding: answer.body, as: UTF8.self).contains("m4"))
        let groups = try connection.invoke(.getAllSubscriptionGroupConfig).json()
        #expect(groups["subscriptionGroupTable"]?["G"] != nil)
        #expect(try connection.send(topic: "Kept", body: "next").extFields["queueOffset"] == "5")
    }

    @Test("tools: topic and group administration")
    func administration() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let topic = [
            "topic": "Admin", "defaultTopic": "TBW102", "readQueueNums": "2", "writeQueueNums": "2", "perm": "6",
            "topicFilterType": "SINGLE_TAG", "order": "false",
        ]
        #expect(try connection.invoke(.updateAndCreateTopic, topic).code == 0)
        _ = try connection.send(topic: "Admin", queueID: 1)
        let stats = try connection.invoke(.getTopicStatsInfo, ["topic": "Admin"]).json()
        let members = stats["offsetTable"]?.object?.members ?? []
        #expect(members.count == 2)
        #expect(members.last?.key == #"{"brokerName":"broker-a","queueId":1,"topic":"Admin"}"#)
        #expect(members.last?.value["maxOffset"] == 1)
        #expect(
            try connection.invoke(.updateAndCreateTopic, topic.merging(["topic": "TBW102"]) { $1 }).code
                == ResponseCode.systemError.rawValue)
        #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "Admin"]).code == 0)
        #expect(
            try connection.invoke(.getTopicStatsInfo, ["topic": "Admin"]).code == ResponseCode.topicNotExist.rawValue)
        #expect(
            try connection.invoke(.updateBrokerConfig, body: Array("brokerConfigPath=/x\n".utf8)).code
                == ResponseCode.noPermission.rawValue)
        #expect(try connection.invoke(.updateBrokerConfig, body: Array("fileReservedTime=71\n".utf8)).code == 0)
        let config = try connection.invoke(.getBrokerConfig)
        #expect(String(decoding: config.body, as: UTF8.self).contains("fileReservedTime=71\n"))
        let runtime = try connection.invoke(.getBrokerRuntimeInfo).json()["table"]
        #expect(runtime?["brokerVersionDesc"] == "V4_9_8")
        #expect(runtime?["putTps"]?.string?.split(separator: " ").count == 3)
    }

    @Test("a slave takes no messages, but its master's bytes and tables, and serves pulls")
    func slave() throws {
        let master = try BrokerHarness()
        defer { try? master.end() }
        let slave = try BrokerHarness([("brokerRole", "SLAVE"), ("brokerId", "1")])
        defer { try? slave.end() }
        let toMaster = try master.connect()
        for number in 0..<10 { _ = try toMaster.send(topic: "Copied", body: "m\(number)") }
        let folder = master.folder
        let bytes = try master.onLoop { broker in
            let log = try Data(contentsOf: folder.appendingPathComponent("commitlog/00000000000000000000"))
            return [UInt8](log.prefix(Int(broker.store.writtenOffset.rawValue)))
        }
        let toSlave = try slave.connect()
        let refused = try toSlave.send(topic: "Copied")
        #expect(refused.code == ResponseCode.serviceNotAvailable.rawValue)
        #expect(refused.remark?.contains("brokerRole=SLAVE") == true)
        let topics = try toMaster.invoke(.getAllTopicConfig).body
        try slave.onLoop { broker in
            broker.replicate(.topics, topics)
            // In pieces that end inside records, as they come from the wire.
            let first = broker.replicate(at: 0, Array(bytes[..<333]))
            #expect(first == .replicaPosition(next: 333))
            let second = broker.replicate(at: 333, Array(bytes[333...]))
            #expect(second == .replicaPosition(next: Int64(bytes.count)))
            if case .replicaRefused(let at, _) = broker.replicate(at: 5, [1, 2, 3]) {
                #expect(at == Int64(bytes.count))
            } else {
                Issue.record("bytes that do not fit were taken")
            }
        }
        let answer = try toSlave.invoke(.pullMessage, RawConnection.pullFields(topic: "Copied"))
        #expect(answer.code == 0)
        #expect(answer.body == (try toMaster.invoke(.pullMessage, RawConnection.pullFields(topic: "Copied")).body))
    }
}
