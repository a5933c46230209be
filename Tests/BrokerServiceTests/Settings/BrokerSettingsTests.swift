import FastJSON
import Foundation
import Logging
import MessageStore
import RemotingProtocol
import StoreFormat
import Testing

@testable import BrokerService

/// Settings that operators change while the broker runs (25, 26), or in its file between two runs.
@Suite("settings of a running broker") struct BrokerSettingsTests {
    private func change(_ connection: RawConnection, _ text: String) throws -> RemotingCommand {
        try connection.invoke(.updateBrokerConfig, body: Array((text + "\n").utf8))
    }

    private func listed(_ connection: RawConnection, _ key: String) throws -> String? {
        let body = String(decoding: try connection.invoke(.getBrokerConfig).body, as: UTF8.self)
        return body.split(separator: "\n").first { $0.hasPrefix(key + "=") }.map { String($0.dropFirst(key.count + 1)) }
    }

    @Test(
        "what updateBrokerConfig changes holds at once in broker and store, and over a restart, until the file says something else"
    )
    func changes() throws {
        let harness = try BrokerHarness([("fileReservedTime", "70")])
        let connection = try harness.connect()
        #expect(try change(connection, "fileReservedTime=48").code == 0)
        #expect(try change(connection, "deleteWhen=01;02\nmaxMessageSize=1000\nsyncFlushTimeout=77").code == 0)
        let changed = try harness.onLoop { broker in
            (
                broker.store.configuration.fileReservedTime, broker.store.configuration.deleteWhen,
                broker.gate.conditions.flushTimeout
            )
        }
        #expect(changed == (48, "01;02", 77))
        let large = String(repeating: "x", count: 1001)
        #expect(try connection.send(topic: "Sized", body: large).code == ResponseCode.messageIllegal.rawValue)
        // The file was read again and says what it said before: that undoes nothing.
        try harness.onLoop { $0.reload(settings: [("fileReservedTime", "70")]) }
        #expect(try listed(connection, "fileReservedTime") == "48")
        try harness.drain()

        let next = try BrokerHarness([("fileReservedTime", "70")], folder: harness.folder)
        let again = try next.connect()
        #expect(try next.onLoop { $0.store.configuration.fileReservedTime } == 48)
        #expect(try listed(again, "deleteWhen") == "01;02")
        #expect(try again.send(topic: "Sized", body: large).code == ResponseCode.messageIllegal.rawValue)
        // Back to what the file says: nothing is left to keep.
        #expect(try change(again, "fileReservedTime=70").code == 0)
        #expect(try change(again, "fileReservedTime=47").code == 0)
        try next.drain()

        let log = LogLines()
        let last = try BrokerHarness([("fileReservedTime", "71")], folder: harness.folder, log: log)
        defer { try? last.end() }
        #expect(try last.onLoop { $0.store.configuration.fileReservedTime } == 71)
        #expect(try last.onLoop { $0.store.configuration.deleteWhen } == "01;02")
        // And so does a reload.
        try last.onLoop { $0.reload(settings: [("deleteWhen", "05"), ("listenPort", "1")]) }
        let reader = try last.connect()
        #expect(try listed(reader, "deleteWhen") == "05")
        #expect(try listed(reader, "listenPort") == "31911")
        #expect(log.lines.contains { $0.contains("take effect with its next start: listenPort") }, "\(log.lines)")
    }

    @Test("the record of a change names its client, the key, the old and the new value")
    func recorded() throws {
        var log = LogLines()
        log.logLevel = .notice
        let harness = try BrokerHarness([("fileReservedTime", "70")], log: log)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try change(connection, "fileReservedTime=48\ndeleteWhen=05").code == 0)
        #expect(try change(connection, "fileReservedTime=49").code == 0)
        let records = log.lines.filter { $0.contains("settings changed by 127.0.0.1:") }
        #expect(records.count == 2, "\(log.lines)")
        #expect(
            records.first?.hasSuffix("fileReservedTime from '70' to '48', deleteWhen from '04' to '05'") == true)
        #expect(records.last?.hasSuffix("fileReservedTime from '48' to '49'") == true)
    }

    @Test("a change that cannot hold is refused with the reason, and then nothing of it holds")
    func refusals() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for (text, reason) in [
            ("listenPort=1", "listenPort is read when the broker starts"),
            ("fileReservedTime=1\nmessageDelayLevel=1s", "messageDelayLevel is read when the broker starts"),
            ("fileReservedTime=soon", "fileReservedTime"), ("diskMaxUsedSpaceRatio=101", "0 to 100"),
            ("flushDiskType=NEVER", "ASYNC_FLUSH or SYNC_FLUSH"),
            ("autoCreateTopicEnable=yes", "autoCreateTopicEnable = yes is not what this setting takes: true or false"),
            ("brokerRole=SLAVE", "configuration file"),
            ("brokerPermission=9", "0 to 7"), ("deleteWhen=25", "hours from 00 to 23"),
            ("deleteWhen=x", "hours from 00 to 23"), ("defaultTopicQueueNums=0", "1 to 65535"),
            ("defaultTopicQueueNums=-4", "1 to 65535"), ("transactionTimeOut=-1", "a whole number from 1"),
            ("slaveTimeout=-1", "a whole number from 1"), ("maxMessageSize=4MB", "is 4194304 meant?"),
            ("fileReservedTime=48 # two days", "is 48 meant?"), ("fileReservedTime=4 8", "position 2"),
            ("somethingOfTheirs=1", "there is no setting somethingOfTheirs"),
            ("fileReservedtime=1", "is fileReservedTime meant?"),
            ("transientStorePoolEnable=true", "has no effect in Apus"),
            ("brokerFastFailureEnable=false", "has no effect in Apus"), ("aclEnable=true", "no access control"),
            ("kvConfigPath=/x", "is no setting of a broker"), ("filterSandbox=false", "is no setting of a broker"),
            ("logLevel=debug", "read when the broker starts"), ("diskSlot=1", "what the supervisor tells"),
            ("namesrvAddr=nowhere", "HOST:PORT"), ("x\\u0=1", "four hexadecimal digits"),
        ] {
            let answer = try change(connection, text)
            #expect(answer.code == ResponseCode.systemError.rawValue, "\(text)")
            #expect(answer.remark?.contains(reason) == true, "\(text): \(answer.remark ?? "")")
        }
        #expect(try listed(connection, "fileReservedTime") == "72")
        #expect(try listed(connection, "brokerRole") == "ASYNC_MASTER")
        #expect(try listed(connection, "autoCreateTopicEnable") == "true")
        #expect(try listed(connection, "mappedFileSizeCommitLog") == "16777216")
        #expect(!FileManager.default.fileExists(atPath: harness.folder.path + "/config/changedSettings.json"))
    }

    @Test("flushDiskType and the role of a master change while it runs")
    func durability() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try change(connection, "flushDiskType=SYNC_FLUSH").code == 0)
        let sent = try connection.send(topic: "Durable")
        #expect(sent.code == 0)
        let (flushed, written) = try harness.onLoop { broker in
            (broker.store.flushedOffset.rawValue, broker.store.writtenOffset.rawValue)
        }
        #expect(flushed == written && written > 0)
        #expect(try change(connection, "flushDiskType=ASYNC_FLUSH\nbrokerRole=SYNC_MASTER").code == 0)
        #expect(try connection.send(topic: "Durable").code == ResponseCode.slaveNotAvailable.rawValue)
        #expect(try change(connection, "brokerRole=ASYNC_MASTER").code == 0)
        #expect(try connection.send(topic: "Durable").code == 0)
    }

    @Test("what was accepted before maxMessageSize was lowered is still delivered, sent back and delivered again")
    func lowerLimit() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s 1s 1s")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let large = String(repeating: "x", count: 2000)
        #expect(try connection.send(topic: "Large", body: large, properties: "DELAY\u{01}1\u{02}").code == 0)
        let plain = try connection.send(topic: "Large", body: large)
        #expect(try change(connection, "maxMessageSize=1000").code == 0)
        #expect(try connection.wait("Large", count: 2).count == 2)
        let offset = try #require(OffsetMessageID.parse(plain.extFields["msgId"] ?? "")?.physicalOffset)
        #expect(
            try connection.invoke(
                .consumerSendMessageBack, ["group": "G", "offset": String(offset), "delayLevel": "1"]
            ).code == 0)
        #expect(try connection.wait("%RETRY%G", count: 1).count == 1)
    }

    @Test(
        "topics and groups come no more by themselves when that is switched off, though TBW102 is in the table of the run before"
    )
    func autoCreation() throws {
        let harness = try BrokerHarness()
        #expect(try harness.connect().send(topic: "Before").code == 0)
        try harness.drain()
        let next = try BrokerHarness(
            [("autoCreateTopicEnable", "false"), ("defaultTopicQueueNums", "3")], folder: harness.folder)
        defer { try? next.end() }
        let connection = try next.connect()
        #expect(try connection.send(topic: "Before").code == 0)
        #expect(try connection.send(topic: "After").code == ResponseCode.topicNotExist.rawValue)
        #expect(try change(connection, "autoCreateTopicEnable=true").code == 0)
        #expect(try connection.send(topic: "After").code == 0)
        #expect(try next.onLoop { $0.topics["After"]?.config.writeQueueNums } == 3)
        #expect(try change(connection, "autoCreateTopicEnable=false").code == 0)
        #expect(try connection.send(topic: "Later").code == ResponseCode.topicNotExist.rawValue)

        #expect(try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "After", group: "G1")).code != 26)
        #expect(try change(connection, "autoCreateSubscriptionGroup=false").code == 0)
        #expect(
            try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "After", group: "G2")).code
                == ResponseCode.subscriptionGroupNotExist.rawValue)
    }

    @Test("a topic that is made again begins anew for every group; a cloned group has the other's offsets and no more")
    func offsetsOfTopics() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        func commit(_ group: String, _ queueID: Int32, _ offset: Int64) throws {
            _ = try connection.invoke(
                .updateConsumerOffset,
                [
                    "topic": "Again", "consumerGroup": group, "queueId": String(queueID),
                    "commitOffset": String(offset),
                ])
        }
        func offset(_ group: String, _ queueID: Int32 = 0) throws -> String? {
            try connection.invoke(
                .queryConsumerOffset, ["topic": "Again", "consumerGroup": group, "queueId": String(queueID)]
            ).extFields["offset"]
        }
        for _ in 0..<5 { _ = try connection.send(topic: "Again") }
        try commit("G", 0, 5)
        try commit("D", 0, 1)
        try commit("D", 1, 9)
        _ = try connection.invoke(
            .cloneGroupOffset, ["srcGroup": "G", "destGroup": "D", "topic": "Again", "offline": "true"])
        #expect(try offset("D") == "5")
        #expect(try offset("D", 1) == "0")
        #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "Again"]).code == 0)
        for _ in 0..<5 { _ = try connection.send(topic: "Again") }
        #expect(try offset("G") == "0")
    }

    @Test("queryCq says what is not there: the index, the group")
    func consumeQueues() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.send(topic: "Queued")
        func ask(_ index: Int, group: String? = nil) throws -> RemotingCommand {
            var fields = ["topic": "Queued", "queueId": "0", "index": String(index), "count": "10"]
            fields["consumerGroup"] = group
            return try connection.invoke(.queryConsumeQueue, fields)
        }
        let all = try ask(0)
        #expect(try all.json()["queueData"]?.array?.count == 1)
        #expect(try all.json()["filterData"] == nil)
        #expect(try ask(0, group: "Nobody").json()["filterData"] == "Nobody@Queued is not online!")
        let none = try ask(1)
        #expect(none.code == 0 && none.body.isEmpty && none.remark == "Index 1 of 0@Queued is not exist!")
    }

    @Test("a key of 25 000 bytes, and a thousand values of one key, are one short answer")
    func longTexts() throws {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        for text in [
            String(repeating: "k", count: 25_000) + "=1", "traceOn=" + String(repeating: "k", count: 25_000),
        ] {
            let refused = try change(connection, text)
            #expect(refused.code == 1 && (refused.remark?.count ?? 1000) < 300, "\(refused.remark ?? "")")
            #expect(refused.remark?.hasSuffix("nothing was changed") == true, "\(refused.remark ?? "")")
        }
        let many = (1...1000).map { "fileReservedTime=\($0)" }.joined(separator: "\n")
        let version = try harness.onLoop { $0.settings.version.counter }
        #expect(try change(connection, many).code == 0)
        #expect(try harness.onLoop { $0.settings.version.counter } == version + 1)
        #expect(try listed(connection, "fileReservedTime") == "1000")
        try harness.end()
    }
}
