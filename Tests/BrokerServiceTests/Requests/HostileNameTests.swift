import FastJSON
import Foundation
import MessageModel
import RemotingProtocol
import TestFolders
import Testing
import WorkerProtocol

@testable import BrokerService

/// No name that comes from outside becomes a path that leads elsewhere: by no request, no table, no master, no setting.
@Suite struct HostileNameTests {
    static let evil = ["../../evil", "..", "/tmp/apus-evil", "a/../../../evil", "x\u{0}y", "evil\n", ".evil"]

    /// All files and folders below, relative.
    private func tree(_ url: URL) -> Set<String> {
        Set(FileManager.default.subpaths(atPath: url.path) ?? [])
    }

    /// A broker two folders deep, so that `../../` would be seen.
    private func harness(_ outer: URL, log: LogLines? = nil) throws -> BrokerHarness {
        let folder = outer.appendingPathComponent("deep/store")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        return try BrokerHarness([("timerWheelEnable", "true")], folder: folder, log: log)
    }

    private func expectNothingOutside(_ outer: URL) {
        for path in tree(outer) {
            #expect(!path.contains("evil") || path.hasSuffix(".refused"), "\(path)")
            #expect(path == "deep" || path.hasPrefix("deep/store"), "\(path) lies outside of the store")
        }
        #expect(!FileManager.default.fileExists(atPath: "/tmp/apus-evil"))
    }

    @Test("requests: every entry point refuses a name that leads elsewhere", arguments: evil)
    func requests(_ name: String) throws {
        let outer = try TestFolder.make("names")
        defer { try? FileManager.default.removeItem(at: outer) }
        let harness = try harness(outer)
        let connection = try harness.connect()
        #expect(try connection.send(topic: "T").code == 0)
        func refused(_ what: String, _ answer: RemotingCommand) {
            #expect(answer.code != 0, "\(what): \(answer)")
            #expect(answer.remark?.isEmpty == false, "\(what): \(answer)")
        }
        refused("send", try connection.send(topic: name))
        refused("send to its retry topic", try connection.send(topic: "%RETRY%" + name))
        refused(
            "send back",
            try connection.invoke(
                .consumerSendMessageBack,
                ["group": name, "offset": "0", "delayLevel": "0", "originMsgId": "", "originTopic": "T"]))
        refused(
            "heartbeat",
            try connection.invoke(
                .heartBeat,
                body: HeartbeatData(clientID: "c", consumerDataSet: [ConsumerData(groupName: name)]).encoded()))
        refused(
            "heartbeat of a producer",
            try connection.invoke(.heartBeat, body: HeartbeatData(clientID: "c", producerGroups: [name]).encoded()))
        refused("pull", try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "T", group: name)))
        refused("pull of it", try connection.invoke(.pullMessage, RawConnection.pullFields(topic: name)))
        for (topic, group) in [("T", name), (name, "G"), (name, name)] {
            refused(
                "commit",
                try connection.invoke(
                    .updateConsumerOffset,
                    ["consumerGroup": group, "topic": topic, "queueId": "0", "commitOffset": "1"]))
        }
        let lock = LockBatchRequestBody(
            consumerGroup: name, clientID: "c", mqSet: [MessageQueue(topic: "T", brokerName: "b", queueID: 0)])
        refused("lock", try connection.invoke(.lockBatchMQ, body: lock.encoded()))
        refused(
            "create topic",
            try connection.invoke(
                .updateAndCreateTopic,
                ["topic": name, "readQueueNums": "4", "writeQueueNums": "4", "perm": "6", "defaultTopic": "TBW102"]))
        refused(
            "create group",
            try connection.invoke(
                .updateAndCreateSubscriptionGroup, body: SubscriptionGroupConfig(groupName: name).encoded()))
        refused("clone", try connection.invoke(.cloneGroupOffset, ["srcGroup": "G", "destGroup": name, "topic": "T"]))
        // What only looks something up finds nothing, and makes nothing.
        for request in [RequestCode.deleteTopicInBroker, .getTopicStatsInfo, .queryTopicConsumeByWho] {
            _ = try connection.invoke(request, ["topic": name, "group": name])
        }
        for request in [RequestCode.getMaxOffset, .getMinOffset, .queryConsumerOffset, .getEarliestMessageStoreTime] {
            _ = try connection.invoke(request, ["topic": name, "queueId": "0", "consumerGroup": name])
        }
        _ = try connection.invoke(.unlockBatchMQ, body: lock.encoded())
        _ = try connection.invoke(.unregisterClient, ["clientID": "c", "consumerGroup": name, "producerGroup": name])
        // A message that says itself where it belongs is stored where it was sent to.
        #expect(try connection.send(topic: "T", properties: "REAL_TOPIC\u{1}\(name)\u{2}REAL_QID\u{1}0\u{2}").code == 0)
        #expect(
            try connection.send(
                topic: "T", properties: "DELAY\u{1}1\u{2}REAL_TOPIC\u{1}\(name)\u{2}REAL_QID\u{1}9\u{2}"
            )
            .code == 0)
        try harness.onLoop { broker in
            for topic in broker.topics.names + broker.groups.all.map(\.name) { #expect(!topic.contains("evil")) }
            #expect(broker.offsets.topics(of: name).isEmpty && broker.offsets.groups(of: name).isEmpty)
        }
        try harness.drain()
        expectNothingOutside(outer)
        let next = try self.harness(outer)
        #expect(try next.connect().send(topic: "T").code == 0)
        try next.drain()
    }

    @Test("tables: a name that leads elsewhere is put aside, named and counted; the others serve")
    func tables() throws {
        let outer = try TestFolder.make("names")
        defer { try? FileManager.default.removeItem(at: outer) }
        let config = outer.appendingPathComponent("deep/store/config")
        try FileManager.default.createDirectory(at: config, withIntermediateDirectories: true)
        let topics = TopicConfigSerializeWrapper(
            topicConfigTable: [TopicConfig(topicName: "Good"), TopicConfig(topicName: "my.odd topic")]
                + Self.evil.map { TopicConfig(topicName: $0) })
        let groups = SubscriptionGroupWrapper(
            subscriptionGroupTable: (["good", "my.group"] + Self.evil).map { SubscriptionGroupConfig(groupName: $0) })
        let offsets = ConsumerOffsetSerializeWrapper(
            offsetTable: [
                "Good@good": [0: 7], "Good@../../evil": [0: 1], "../../evil@good": [0: 1], "Good@my.group": [0: 3],
            ])
        for (name, bytes) in [
            ("topics", topics.encoded()), ("subscriptionGroup", groups.encoded()),
            ("consumerOffset", offsets.encoded()),
        ] {
            try Data(bytes).write(to: config.appendingPathComponent(name + ".json"))
        }
        // The log is empty, as its operator means it to be.
        try Data().write(to: outer.appendingPathComponent("deep/store/begin-anew"))
        let log = LogLines()
        let harness = try harness(outer, log: log)
        let connection = try harness.connect()
        #expect(try connection.send(topic: "Good").code == 0)
        // An odd name RocketMQ has let in is served on.
        #expect(try connection.send(topic: "my.odd topic").code == 0)
        #expect(
            try connection.invoke(
                .updateConsumerOffset,
                ["consumerGroup": "my.group", "topic": "Good", "queueId": "0", "commitOffset": "4"]
            ).code == 0)
        for name in ["topics", "subscriptionGroup", "consumerOffset"] {
            let count = name == "consumerOffset" ? 2 : Self.evil.count
            #expect(
                log.lines.contains { $0.contains("\(count) entries of") && $0.contains(name + ".json") }, "\(log.lines)"
            )
            let aside = try JSONValue(
                parsing: [UInt8](Data(contentsOf: config.appendingPathComponent(name + ".json.refused"))))
            #expect(aside.array?.count == count)
        }
        #expect(!log.lines.contains { $0.contains("\n") || $0.contains("\u{0}") }, "a name forges a line")
        // What a master sends is no better.
        let slave = try BrokerHarness([("brokerRole", "SLAVE"), ("brokerId", "1")])
        defer { try? slave.end() }
        try slave.onLoop { broker in
            broker.replicate(.topics, topics.encoded())
            broker.replicate(.subscriptionGroup, groups.encoded())
            broker.replicate(.consumerOffset, offsets.encoded())
            #expect(broker.topics["Good"] != nil && broker.groups["good"] != nil)
            for topic in broker.topics.names + broker.groups.all.map(\.name) { #expect(!topic.contains("evil")) }
            #expect(broker.offsets.offset(topic: "Good", group: "good", queueID: 0) == 7)
        }
        try harness.drain()
        expectNothingOutside(outer)
        let next = try self.harness(outer)
        #expect(try next.connect().send(topic: "my.odd topic").code == 0)
        try next.drain()
    }

    @Test(
        "settings: a broker or cluster whose name leads elsewhere does not start",
        arguments: evil.filter { $0 != "evil\n" })
    func settings(_ name: String) {
        for key in ["brokerName", "brokerClusterName"] {
            do {
                let settings = try BrokerConfiguration([(key, name)])
                _ = try TopicConfigManager(settings, now: { 1 })
                Issue.record("\(key)=\(name) was taken")
            } catch {
                #expect("\(error)".contains(key))
            }
        }
        #expect(throws: Never.self) {
            try TopicConfigManager(BrokerConfiguration([("brokerName", "host.example.org")]), now: { 1 })
        }
    }
}
