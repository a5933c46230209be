import FastJSON
import Foundation
import MessageStore
import NIOConcurrencyHelpers
import NIOCore
import RemotingProtocol
import StoreFormat
import Testing
import WorkerProtocol

@testable import BrokerService

/// What mqadmin and brokers of RocketMQ 5 ask that those of 4.9.8 do not.
@Suite("requests of RocketMQ 5's tools") struct RocketMQ5AdminTests {
    private static let group = "BG_GROUP"

    private func makeTopic(_ client: RawConnection, _ name: String, queues: Int, _ attributes: String? = nil) throws
        -> RemotingCommand
    {
        var fields = [
            "topic": name, "defaultTopic": "TBW102", "readQueueNums": String(queues), "writeQueueNums": String(queues),
            "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
        ]
        fields["attributes"] = attributes
        return try client.invoke(.updateAndCreateTopic, fields)
    }

    @Test("mqadmin 5.3.3, recorded: each answer has the code, the words and the form of Apache's")
    func recorded() throws {
        let harness = try BrokerHarness([("defaultTopicQueueNums", "8")])
        defer { try? harness.end() }
        let client = try harness.connect()
        #expect(try makeTopic(client, "BgTopic", queues: 4).code == 0)
        #expect(try makeTopic(client, "%RETRY%" + Self.group, queues: 1).code == 0)
        for (topic, queues) in [("BgTopic", 4), ("%RETRY%" + Self.group, 1)] {
            for queue in 0..<queues {
                _ = try client.send(topic: topic, queueID: Int32(queue))
                _ = try client.invoke(
                    .updateConsumerOffset,
                    ["topic": topic, "consumerGroup": Self.group, "queueId": String(queue), "commitOffset": "1"])
            }
        }
        let file = GoldenFlow.folder.appendingPathComponent("admin-5.3.3.txt")
        var compared = 0
        for section in try String(contentsOf: file, encoding: .utf8).split(separator: "# ") {
            let lines = section.split(separator: "\n")
            let flow = try GoldenFlow(lines: Array(lines.dropFirst()))
            let tool = try harness.connect()
            for frame in flow.frames where frame.isRequestOfClient {
                try tool.send(frame.bytes)
                let expected = try #require(flow.answer(to: frame))
                var answer = try tool.receive()
                while answer.opaque != frame.command.opaque || !answer.isResponse { answer = try tool.receive() }
                let place = "\(lines[0]): \(frame.command.code)"
                #expect(answer.code == expected.code, "\(place): \(answer.remark ?? "")")
                #expect(answer.body.isEmpty == expected.body.isEmpty, "\(place)")
                if !expected.body.isEmpty {
                    #expect(Form(try answer.json()) == Form(try expected.json()), "\(place)")
                }
                // Nothing in it depends on the run.
                if frame.command.requestCode == .getTopicConfig { #expect(answer.body == expected.body, "\(place)") }
                compared += 1
            }
        }
        #expect(compared == 9)
        #expect(try harness.onLoop { $0.topics["LT2"]?.config.writeQueueNums } == 4)
        #expect(try harness.onLoop { $0.groups["LG2"]?.config.retryMaxTimes } == 16)
    }

    /// What `mqadmin` makes of the answers to its questions: CONSUMED when the group's offset is behind the message
    /// (`DefaultMQAdminExtImpl.messageTrackDetail` of 5.3.3, for a push consumer of a cluster).
    private func isConsumed(_ answers: [Int32: RemotingCommand], queue: Int64, offset: Int64) throws -> Bool {
        let members = try #require(answers[203]).json()
        #expect(members["consumeType"]?.string == "CONSUME_PASSIVELY")
        #expect(members["messageModel"]?.string == "CLUSTERING")
        #expect(members["subscriptionTable"]?["BgTopic"]?["subString"]?.string == "*")
        let stats = try #require(answers[208]).json()
        let table = try #require(stats["offsetTable"]?.object)
        let row = try #require(
            try table.members.first { member in
                let key = try JSONValue(parsing: Array(member.key.utf8))
                return key["topic"]?.string == "BgTopic" && key["queueId"]?.integer == queue
            })
        return try #require(row.value["consumerOffset"]?.integer) > offset
    }

    @Test("mqadmin 5.3.3's whole message track, recorded: its questions, one after the other, end in CONSUMED")
    func track() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let client = try harness.connect()
        #expect(try makeTopic(client, "BgTopic", queues: 4).code == 0)
        #expect(try makeTopic(client, "%RETRY%" + Self.group, queues: 1).code == 0)
        let flow = try GoldenFlow("track-5.3.3")
        let query = try #require(flow.frames.first { $0.command.requestCode == .queryMessage })
        let properties = RawConnection.properties(
            "UNIQ_KEY=\(query.command.extFields["key"] ?? "");TAGS=T1;KEYS=bgkey3;WAIT=true")
        // As the 5.3.3 client that sent the recorded one.
        var send = RemotingCommand(
            .sendMessageV2,
            extFields: [
                "a": "P", "b": "BgTopic", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1795247152031", "h": "0",
                "i": properties, "j": "0", "k": "false", "m": "false",
            ], body: Array("bg-3".utf8))
        send.version = 479
        #expect(try client.invoke(send).code == 0)
        let consumer = ConsumerData(
            groupName: Self.group, consumeType: "CONSUME_PASSIVELY", messageModel: "CLUSTERING",
            consumeFromWhere: "CONSUME_FROM_FIRST_OFFSET",
            subscriptionDataSet: ["BgTopic", "%RETRY%" + Self.group].map { SubscriptionData(topic: $0, subString: "*") }
        )
        let heartbeat = HeartbeatData(clientID: "192.0.2.2@bgc", producerGroups: [], consumerDataSet: [consumer])
        #expect(try client.invoke(.heartBeat, body: heartbeat.encoded()).code == 0)
        for (topic, queues) in [("BgTopic", 4), ("%RETRY%" + Self.group, 1)] {
            for queue in 0..<queues {
                let offset = topic == "BgTopic" && queue == 0 ? "1" : "0"
                _ = try client.invoke(
                    .updateConsumerOffset,
                    [
                        "topic": topic, "consumerGroup": Self.group, "queueId": String(queue),
                        "commitOffset": offset,
                    ])
            }
        }
        let tool = try harness.connect()
        var answers: [Int32: RemotingCommand] = [:]
        for frame in flow.frames where frame.isRequestOfClient {
            try tool.send(frame.bytes)
            let expected = try #require(flow.answer(to: frame))
            var answer = try tool.receive()
            while answer.opaque != frame.command.opaque || !answer.isResponse { answer = try tool.receive() }
            answers[frame.command.code] = answer
            let place = "\(frame.command.code)"
            #expect(answer.code == expected.code, "\(place): \(answer.remark ?? "")")
            switch frame.command.requestCode {
            case .queryMessage:
                #expect(NormalizedAnswer.messages(answer.body) == NormalizedAnswer.messages(expected.body))
                #expect(answer.extFields.keys.sorted() == expected.extFields.keys.sorted())
            case .getTopicConfig: #expect(answer.body == expected.body, "\(place)")
            case .queryTopicConsumeByWho:
                #expect(try answer.json()["groupList"]?.array?.compactMap(\.string) == [Self.group])
            default:
                #expect(answer.body.isEmpty == expected.body.isEmpty, "\(place)")
                if !expected.body.isEmpty { #expect(Form(try answer.json()) == Form(try expected.json()), "\(place)") }
            }
        }
        #expect(answers.keys.sorted() == [12, 34, 35, 203, 208, 300, 351])
        #expect(try isConsumed(answers, queue: 0, offset: 0))
        // The next message of the queue has not been consumed yet.
        #expect(try !isConsumed(answers, queue: 0, offset: 1))
    }

    @Test("a topic or group that is not there has its code; asking for a group does not make it")
    func absent() throws {
        let harness = try BrokerHarness([("autoCreateSubscriptionGroup", "false")])
        defer { try? harness.end() }
        let client = try harness.connect()
        let topic = try client.invoke(.getTopicConfig, ["topic": "none", "lo": "true"])
        #expect(topic.code == ResponseCode.topicNotExist.rawValue)
        #expect(topic.remark == "No topic in this broker. topic: none")
        let group = try client.invoke(.getSubscriptionGroupConfig, ["group": "none"])
        #expect(group.code == ResponseCode.subscriptionGroupNotExist.rawValue)
        #expect(group.remark == "No group in this broker")
        #expect(try client.invoke(.getTopicConfig).code == ResponseCode.systemError.rawValue)
        _ = try client.invoke(
            .updateAndCreateSubscriptionGroup, body: Array(#"{"groupName":"G","retryMaxTimes":3}"#.utf8))
        let known = try client.invoke(.getSubscriptionGroupConfig, ["group": "G"]).json()
        #expect(known["groupName"]?.string == "G" && known["retryMaxTimes"]?.int32 == 3)
        #expect(known["groupRetryPolicy"]?["type"]?.string == "CUSTOMIZED")
        #expect(known["consumeTimeoutMinute"]?.int32 == 15 && known["attributes"]?.object?.isEmpty == true)

        let open = try BrokerHarness()
        defer { try? open.end() }
        let asked = try open.connect().invoke(.getSubscriptionGroupConfig, ["group": "misspelt"])
        #expect(asked.code == 0)
        #expect(try open.onLoop { $0.groups["misspelt"] == nil })
    }

    @Test("of a list nothing is changed when one of it is refused; one that is as before keeps nothing back")
    func lists() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let client = try harness.connect()
        func topics(_ names: [String], queues: Int = 2) -> [UInt8] {
            let list = names.map { #"{"topicName":"\#($0)","readQueueNums":\#(queues),"writeQueueNums":\#(queues)}"# }
            return Array(#"{"topicConfigList":[\#(list.joined(separator: ","))]}"#.utf8)
        }
        for (wrong, words) in [
            ("a b", "illegal characters"), ("TBW102", "conflict with system topic"),
            (String(repeating: "x", count: 128), "longer than"),
        ] {
            let refused = try client.invoke(.updateAndCreateTopicList, body: topics(["A", wrong]))
            #expect(refused.code == ResponseCode.invalidParameter.rawValue)
            #expect(refused.remark?.contains(words) == true, "\(refused.remark ?? "")")
        }
        let negative = try client.invoke(.updateAndCreateTopicList, body: topics(["A"], queues: -1))
        #expect(negative.code == ResponseCode.invalidParameter.rawValue)
        for body in ["", "{}", "[]", #"{"topicConfigList":7}"#, #"{"topicConfigList":[{}]}"#] {
            let answer = try client.invoke(.updateAndCreateTopicList, body: Array(body.utf8))
            #expect(answer.code == ResponseCode.systemError.rawValue, "\(body)")
        }
        #expect(try harness.onLoop { $0.topics["A"] == nil })
        #expect(try client.invoke(.updateAndCreateTopicList, body: topics(["A"])).code == 0)
        // Apache stops at the first that is as it was.
        #expect(try client.invoke(.updateAndCreateTopicList, body: topics(["A", "B"])).code == 0)
        #expect(try harness.onLoop { $0.topics["B"]?.config.readQueueNums } == 2)

        let groups = try client.invoke(
            .updateAndCreateSubscriptionGroupList,
            body: Array(#"{"groupConfigList":[{"groupName":"G1"},{"groupName":"a b"}]}"#.utf8))
        #expect(groups.code == ResponseCode.invalidParameter.rawValue)
        #expect(try harness.onLoop { $0.groups["G1"] == nil })
    }

    @Test("attributes are added, changed and removed by their signs; what would have no effect is refused")
    func attributes() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let client = try harness.connect()
        func attributes() throws -> String? {
            try client.invoke(.getTopicConfig, ["topic": "T"]).json()["attributes"]?.text()
        }
        #expect(try makeTopic(client, "T", queues: 1, "+message.type=DELAY").code == 0)
        #expect(try attributes() == #"{"message.type":"DELAY"}"#)
        #expect(try makeTopic(client, "T", queues: 2).code == 0)
        #expect(try attributes() == #"{"message.type":"DELAY"}"#)
        #expect(try makeTopic(client, "T", queues: 2, "+message.type=FIFO").code == 0)
        #expect(try attributes() == #"{"message.type":"FIFO"}"#)
        for (wrong, words) in [
            ("message.type=FIFO", "format is wrong"), ("+message.type=ODD", "not in set"),
            ("+message.type=MIXED", "not supported"), ("+queue.type=SimpleCQ", "unchangeable"),
            ("+no.such=1", "unsupported key"), ("-cleanup.policy", "nonexistent"),
            ("+message.type=FIFO,+message.type=DELAY", "duplication"), ("+reserve.time=x", "not in range"),
            ("+reserve.time=9", "not supported"), ("+", "delete attribute format"),
        ] {
            let answer = try makeTopic(client, "T", queues: 4, wrong)
            #expect(answer.code == ResponseCode.systemError.rawValue, "\(wrong)")
            #expect(answer.remark?.contains(words) == true, "\(wrong): \(answer.remark ?? "")")
        }
        #expect(try harness.onLoop { $0.topics["T"]?.config.readQueueNums } == 2)
        #expect(try makeTopic(client, "C", queues: 1, "+cleanup.policy=COMPACTION").code != 0)
        #expect(try makeTopic(client, "T", queues: 2, "-message.type").code == 0)
        #expect(try attributes() == "{}")
    }

    @Test(
        "a slave's broker asks for timers: how far they are delivered, and how many wait for each topic, over a restart"
    )
    func timers() throws {
        let harness = try BrokerHarness()
        let client = try harness.connect()
        func send(_ topic: String, _ delay: Int) throws {
            let answer = try client.send(
                topic: topic, properties: RawConnection.properties("TIMER_DELAY_MS=\(delay)"))
            #expect(answer.code == 0)
        }
        for delay in [300, 3_600_000, 7_200_000] { try send("A", delay) }
        try send("B", 90_000)
        func counts(_ client: RawConnection) throws -> [String: Int64] {
            let json = try client.invoke(.getTimerMetrics).json()
            #expect(json["dataVersion"]?["stateVersion"]?.integer == 0 && json["countedTo"] == nil)
            return Dictionary(
                uniqueKeysWithValues: (json["timingCount"]?.object?.members ?? []).map {
                    ($0.key, $0.value["count"]?.integer ?? -1)
                })
        }
        #expect(try client.wait("A", count: 1).count == 1)
        #expect(try counts(client) == ["A": 2, "B": 1])
        func checkpoint(_ client: RawConnection) throws -> [Int64] {
            let body = try client.invoke(.getTimerCheckPoint).body
            #expect(body.count == 56)
            return stride(from: 0, to: body.count, by: 8).map { at in
                body[at..<min(at + 8, body.count)].reduce(0) { $0 << 8 | Int64($1) }
            }
        }
        let now = RawConnection.nowMilliseconds
        let first = try checkpoint(client)
        #expect(first[0] <= now + 1000 && first[0] > now - 10_000)
        #expect(first[1] == 0 && first[2] == 4 && first[3] == 4)

        try harness.drain()
        let again = try BrokerHarness(folder: harness.folder)
        defer { try? again.end() }
        let after = try again.connect()
        #expect(try counts(after) == ["A": 2, "B": 1])
        // Time passes, in which they could be counted again.
        usleep(300_000)
        // Messages that were taken in again are not counted again.
        #expect(try counts(after) == ["A": 2, "B": 1])
    }

    @Test("a damaged file of timer counts keeps no broker from starting")
    func damagedCounts() throws {
        let first = try BrokerHarness()
        try first.drain()
        try FileManager.default.createDirectory(
            at: first.folder.appendingPathComponent("config"), withIntermediateDirectories: true)
        for text in ["", "{", #"{"timingCount":7}"#, #"{"timingCount":{"T":{"count":"x"}}}"#] {
            let file = first.folder.appendingPathComponent("config/timermetrics")
            try Data(text.utf8).write(to: file)
            let next = try BrokerHarness(folder: first.folder)
            let answer = try next.connect().invoke(.getTimerMetrics)
            #expect(answer.code == 0, "\(text)")
            try next.drain()
        }
        try FileManager.default.removeItem(at: first.folder)
    }

    @Test("who follows this master is what its replication worker says; silence is an error in time, not for ever")
    func slaves() throws {
        let harness = try BrokerHarness(onPlatform: { platform, broker in
            platform.replication = { [unowned broker] request in
                guard request == 1 else { return }
                broker.slavesReported(
                    request: request,
                    [
                        SlaveReport(address: "10.0.0.2:4711", acknowledged: 0, next: 10, bytesPerSecond: 7),
                        SlaveReport(address: "10.0.0.3:4711", acknowledged: -1, next: -1, bytesPerSecond: 0),
                    ])
            }
        })
        defer { try? harness.end() }
        let client = try harness.connect()
        let status = try client.invoke(.getBrokerHAStatus).json()
        #expect(status["master"]?.bool == true && status["inSyncSlaveNums"]?.int32 == 1)
        let slaves = status["haConnectionInfo"]?.array ?? []
        #expect(slaves.map { $0["addr"]?.string } == ["10.0.0.2:4711", "10.0.0.3:4711"])
        #expect(slaves.map { $0["inSync"]?.bool } == [true, false])
        #expect(slaves.first?["transferFromWhere"]?.integer == 10)
        #expect(slaves.first?["diff"]?.integer == status["masterCommitLogMaxOffset"]?.integer)
        #expect(slaves.first?["transferredByteInSecond"]?.integer == 7)
        let silent = try client.invoke(.getBrokerHAStatus)
        #expect(silent.code == ResponseCode.systemError.rawValue && silent.remark?.contains("has not answered") == true)
    }

    @Test("who asks for the slaves while the replication worker is asked gets the same answer, 64 at most")
    func slavesAskedTogether() throws {
        let questions = NIOLockedValueBox<[UInt64]>([])
        let harness = try BrokerHarness(onPlatform: { platform, _ in
            platform.replication = { request in questions.withLockedValue { $0.append(request) } }
        })
        defer { try? harness.end() }
        let client = try harness.connect()
        for round in 1...2 {
            for _ in 0..<70 { try client.post(.getBrokerHAStatus) }
            for _ in 0..<6 {
                #expect(try client.receive(timeoutMilliseconds: 1500).code == ResponseCode.systemBusy.rawValue)
            }
            let asked = questions.withLockedValue { $0 }
            #expect(asked.count == round)
            try harness.onLoop { broker in
                // One that nobody waits for any more changes nothing.
                broker.slavesReported(request: 0, [])
                broker.slavesReported(request: asked.last ?? 0, [])
            }
            for _ in 0..<64 { #expect(try client.receive(timeoutMilliseconds: 1500).code == 0) }
        }
    }

    @Test("on a slave: its master is named; a flush offset is refused with the reason")
    func slave() throws {
        let harness = try BrokerHarness([("brokerRole", "SLAVE"), ("brokerId", "1")])
        defer { try? harness.end() }
        try harness.onLoop { $0.replicaState(connected: true, master: "10.0.0.1:10912") }
        let client = try harness.connect()
        let status = try client.invoke(.getBrokerHAStatus).json()
        #expect(status["master"]?.bool == false)
        #expect(status["haClientRuntimeInfo"]?["masterAddr"]?.string == "10.0.0.1:10912")
        let refused = try client.invoke(.resetMasterFlushOffset, ["masterFlushOffset": "0"])
        #expect(refused.code == ResponseCode.systemError.rawValue)
        #expect(refused.remark?.contains("nothing was changed") == true)
    }

    @Test("region and trace switch are stored for producers of 5.x, and for all where a client traces")
    func region() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let client = try harness.connect()
        func stored(_ version: Int32, _ topic: String) throws -> [String: String] {
            var command = RemotingCommand(
                .sendMessageV2,
                extFields: [
                    "a": "P", "b": topic, "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "i": "",
                    "j": "0", "k": "false", "m": "false",
                ], body: Array("x".utf8))
            command.version = version
            #expect(try client.invoke(command).code == 0)
            let message = try #require(try client.wait(topic, count: 1).first)
            return message.properties
        }
        #expect(try stored(409, "old")["MSG_REGION"] == nil)
        let newer = try stored(479, "new")
        #expect(newer["MSG_REGION"] == "DefaultRegion" && newer["TRACE_ON"] == "true")
        _ = try client.send(topic: "RMQ_SYS_TRACE_TOPIC")
        #expect(try stored(409, "traced")["MSG_REGION"] == "DefaultRegion")
    }

    @Test("exports of both mqadmin find the settings and numbers they take apart")
    func exports() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let client = try harness.connect()
        let settings = String(decoding: try client.invoke(.getBrokerConfig).body, as: UTF8.self)
        // ExportConfigsCommand of 4.9.8: a missing one is a NullPointerException.
        for key in [
            "brokerClusterName", "brokerId", "brokerName", "brokerRole", "fileReservedTime", "filterServerNums",
            "flushDiskType", "maxMessageSize", "messageDelayLevel", "msgTraceTopicName", "slaveReadEnable", "traceOn",
            "traceTopicEnable", "useTLS", "autoCreateTopicEnable", "autoCreateSubscriptionGroup",
        ] {
            #expect(settings.contains(try Regex("(?m)^\(key)=.+$")), "\(key)")
        }
        let table = try client.invoke(.getBrokerRuntimeInfo).json()["table"]
        for key in [
            "putTps", "getTransferedTps", "getTransferredTps", "msgPutTotalTodayMorning", "msgPutTotalYesterdayMorning",
            "msgGetTotalTodayMorning", "msgGetTotalYesterdayMorning", "commitLogDiskRatio", "consumeQueueDiskRatio",
            "putMessageAverageSize",
        ] {
            #expect(table?[key]?.string?.isEmpty == false, "\(key)")
        }
    }
}

/// Members and types of a JSON value; tables keyed by queues are one member.
private struct Form: Equatable {
    var paths: Set<String> = []

    init(_ json: JSONValue) { walk(json, "") }

    private mutating func walk(_ json: JSONValue, _ path: String) {
        if let object = json.object {
            for member in object.members {
                walk(member.value, path + "." + (member.key.hasPrefix("{") ? "*" : member.key))
            }
            if object.isEmpty { paths.insert(path + ": empty") }
        } else if let array = json.array {
            for element in array { walk(element, path + "[]") }
        } else {
            paths.insert(path + (json.string != nil ? ": text" : json.double != nil ? ": number" : ": \(json.text())"))
        }
    }
}
