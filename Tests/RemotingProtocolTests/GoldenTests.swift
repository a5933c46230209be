import FastJSON
import MessageModel
import NIOCore
import RemotingProtocol
import Testing

@Suite("frames between Apache RocketMQ's own programs are understood")
struct GoldenTests {
    @Test("the fixtures hold both serializations and the codes this platform answers")
    func fixtures() throws {
        #expect(GoldenFrame.v4.count > 300)
        #expect(GoldenFrame.v5.count > 150)
        #expect(GoldenFrame.all.contains { $0.bytes[4] == 1 })
        let codes = Set(try GoldenFrame.all.map { try $0.command() }.filter { !$0.isResponse }.map { $0.code })
        let needed: [RequestCode] = [
            .sendMessageV2, .sendBatchMessage, .pullMessage, .litePullMessage, .queryConsumerOffset,
            .updateConsumerOffset, .searchOffsetByTimestamp, .getMaxOffset, .getMinOffset,
            .getEarliestMessageStoreTime, .viewMessageByID, .heartBeat, .unregisterClient, .getConsumerListByGroup,
            .notifyConsumerIDsChanged, .lockBatchMQ, .unlockBatchMQ, .checkClientConfig, .registerBroker,
            .unregisterBroker, .getRouteInfoByTopic, .getBrokerClusterInfo,
        ]
        for code in needed {
            #expect(codes.contains(code.rawValue), "\(code)")
        }
    }

    @Test("every frame parses, and its encoding parses back equal in both serializations")
    func roundTrip() throws {
        for golden in GoldenFrame.all {
            let command = try golden.command()
            #expect(command.language == .java, "\(golden)")
            #expect([409, 479].contains(command.version), "\(golden)")
            for serialization in [HeaderSerialization.json, .rocketMQ] {
                // ROCKETMQ headers hold codes of 16 bits.
                if serialization == .rocketMQ, command.code > 0x7fff { continue }
                var expected = command
                if serialization == .rocketMQ, command.remark == "" { expected.remark = nil }
                var buffer = ByteBuffer()
                command.encode(into: &buffer, serialization: serialization)
                let back = try buffer.withUnsafeReadableBytes { try RemotingCommand(decoding: $0) }
                #expect(back == expected, "\(golden) as \(serialization)")
            }
        }
    }

    @Test("every code of a request is known by RocketMQ's name")
    func requestCodes() throws {
        // Codes that only 5.x's controller, cold data and pop tools use are answered with 3.
        let beyond: Set<Int32> = [1007, 200_056]
        for golden in GoldenFrame.all {
            let command = try golden.command()
            guard !command.isResponse, !beyond.contains(command.code) else { continue }
            #expect(command.requestCode != nil, "\(golden): \(command.code)")
        }
    }

    @Test("send headers give the values, whatever the serialization")
    func sendHeaders() throws {
        var count = 0
        for golden in GoldenFrame.all
        where golden.name == "SEND_MESSAGE_V2" || golden.name == "SEND_BATCH_MESSAGE"
            || golden.name == "SEND_REPLY_MESSAGE_V2"
        {
            let fields = try golden.command().extFields
            try withFrame(golden.bytes) { frame in
                let header = try SendMessageRequestHeader(frame)
                #expect(header.producerGroup.text == fields["a"])
                #expect(header.topic.text == fields["b"])
                #expect(header.defaultTopic.text == fields["c"])
                #expect(String(header.defaultTopicQueueNums) == fields["d"])
                #expect(String(header.queueID) == fields["e"])
                #expect(String(header.sysFlag) == fields["f"])
                #expect(String(header.bornTimestamp) == fields["g"])
                #expect(String(header.flag) == fields["h"])
                #expect(header.properties.text == fields["i"])
                #expect(String(header.reconsumeTimes) == fields["j"] ?? "0")
                #expect(String(header.unitMode) == fields["k"] ?? "false")
                #expect(header.maxReconsumeTimes.map { String($0) } == fields["l"])
                #expect(String(header.batch) == fields["m"] ?? "false")
                #expect(header.batch == (golden.name == "SEND_BATCH_MESSAGE"))
            }
            count += 1
        }
        #expect(count >= 6)
    }

    @Test("pull headers give the values, whatever the serialization")
    func pullHeaders() throws {
        var count = 0
        for golden in GoldenFrame.all where golden.name == "PULL_MESSAGE" || golden.name == "LITE_PULL_MESSAGE" {
            let fields = try golden.command().extFields
            try withFrame(golden.bytes) { frame in
                let header = try PullMessageRequestHeader(frame)
                #expect(header.consumerGroup.text == fields["consumerGroup"])
                #expect(header.topic.text == fields["topic"])
                #expect(String(header.queueID) == fields["queueId"])
                #expect(String(header.queueOffset) == fields["queueOffset"])
                #expect(String(header.maxMessageNums) == fields["maxMsgNums"])
                #expect(String(header.sysFlag) == fields["sysFlag"])
                #expect(String(header.commitOffset) == fields["commitOffset"])
                #expect(String(header.suspendTimeoutMilliseconds) == fields["suspendTimeoutMillis"])
                #expect(header.subscription?.text == fields["subscription"])
                #expect(String(header.subVersion) == fields["subVersion"])
                #expect(header.expressionType?.text == fields["expressionType"])
                #expect(header.maxMessageBytes.map { String($0) } == fields["maxMsgBytes"])
            }
            count += 1
        }
        #expect(count >= 5)
    }

    @Test("our answers to sends and pulls carry what Apache's carry")
    func responses() throws {
        var sends = 0
        for golden in try GoldenFrame.commands("RESP:SEND_MESSAGE_V2") where golden.code == 0 {
            let ids = try #require(golden.extFields["msgId"])
            let (host, physicalOffset) = try #require(OffsetMessageID.parse(ids))
            let queueID = try Int32(golden.integer("queueId"))
            let queueOffset = try golden.integer("queueOffset")
            for serialization in [HeaderSerialization.json, .rocketMQ] {
                var buffer = ByteBuffer()
                ResponseEncoder.encodeSendResponse(
                    into: &buffer,
                    ReturnAddress(opaque: golden.opaque, serialization: serialization, isOneway: false),
                    storeHost: host, physicalOffset: physicalOffset, queueID: queueID, queueOffset: queueOffset)
                let ours = try buffer.withUnsafeReadableBytes { try RemotingCommand(decoding: $0) }
                var expected = golden
                expected.version = RemotingVersion.current
                expected.extFields["transactionId"] = nil
                expected.extFields["recallHandle"] = nil
                #expect(ours == expected)
            }
            sends += 1
        }
        #expect(sends >= 2)
        var pulls = 0
        for golden in try GoldenFrame.commands("RESP:PULL_MESSAGE") where golden.code == 0 {
            for serialization in [HeaderSerialization.json, .rocketMQ] {
                var buffer = ByteBuffer()
                let open = ResponseEncoder.beginPullResponse(
                    into: &buffer,
                    ReturnAddress(opaque: golden.opaque, serialization: serialization, isOneway: false), .success,
                    remark: "FOUND", nextBeginOffset: try golden.integer("nextBeginOffset"),
                    minOffset: try golden.integer("minOffset"), maxOffset: try golden.integer("maxOffset"),
                    suggestWhichBrokerID: try golden.integer("suggestWhichBrokerId"))
                buffer.writeBytes(golden.body)
                ResponseEncoder.finish(open, in: &buffer)
                let ours = try buffer.withUnsafeReadableBytes { try RemotingCommand(decoding: $0) }
                var expected = golden
                expected.version = RemotingVersion.current
                expected.extFields = expected.extFields.filter {
                    ["nextBeginOffset", "minOffset", "maxOffset", "suggestWhichBrokerId"].contains($0.key)
                }
                #expect(ours == expected)
            }
            pulls += 1
        }
        #expect(pulls >= 2)
    }

    @Test("JSON bodies mean the same after a round through our types")
    func bodies() throws {
        func check<Body: JSONBody>(_ name: String, _: Body.Type, dropping: Set<String> = []) throws {
            let commands = try GoldenFrame.commands(name).filter { !$0.body.isEmpty && $0.body[0] == 0x7b }
            #expect(!commands.isEmpty, "\(name)")
            for command in commands {
                let body = try Body(body: command.body)
                #expect(try Body(body: body.encoded()) == body, "\(name)")
                #expect(
                    Self.dropping(dropping, body.json) == Self.dropping(dropping, try command.json()), "\(name)")
            }
        }
        // Dropped are fields only 5.x writes, or that 4.9.8 does not have.
        let five: Set<String> = [
            "enableActingMaster", "heartbeatFingerprint", "withoutSub", "stateVersion", "topicQueueMappingByBroker",
            "mappingDataVersion", "topicQueueMappingDetailMap", "topicQueueMappingInfoMap", "zoneName",
            "forbiddenTable", "pullOffsetTable", "onlyThisBroker",
        ]
        try check("HEART_BEAT", HeartbeatData.self, dropping: five)
        try check("REGISTER_BROKER", RegisterBrokerBody.self, dropping: five)
        try check("RESP:GET_ROUTEINFO_BY_TOPIC", TopicRouteData.self, dropping: five)
        try check("RESP:GET_BROKER_CLUSTER_INFO", ClusterInfo.self, dropping: five)
        try check("LOCK_BATCH_MQ", LockBatchRequestBody.self, dropping: five)
        try check("UNLOCK_BATCH_MQ", UnlockBatchRequestBody.self, dropping: five)
        try check("RESP:LOCK_BATCH_MQ", LockBatchResponseBody.self)
        try check("RESP:GET_CONSUMER_LIST_BY_GROUP", GetConsumerListByGroupResponseBody.self)
        try check("CHECK_CLIENT_CONFIG", CheckClientRequestBody.self, dropping: five)
        try check("RESP:GET_ALL_TOPIC_CONFIG", TopicConfigSerializeWrapper.self, dropping: five)
        try check("RESP:GET_ALL_SUBSCRIPTIONGROUP_CONFIG", SubscriptionGroupWrapper.self, dropping: five)
        try check("RESP:GET_ALL_CONSUMER_OFFSET", ConsumerOffsetSerializeWrapper.self, dropping: five)
        try check("RESP:GET_ALL_TOPIC_LIST_FROM_NAMESERVER", TopicList.self)
        try check("RESP:GET_BROKER_RUNTIME_INFO", KVTable.self)
    }

    /// The value without the members of these names, lists of names in order: sets have none in Java.
    static func dropping(_ names: Set<String>, _ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let object):
            return .object(
                JSONObject(
                    members: object.members.filter { !names.contains($0.key) }.map {
                        JSONObject.Member(key: $0.key, isRaw: $0.isRaw, value: Self.dropping(names, $0.value))
                    }))
        case .array(let elements):
            return .array(
                elements.map { Self.dropping(names, $0) }.sorted { $0.text([.sorted]) < $1.text([.sorted]) })
        default: return value
        }
    }

    @Test("a heartbeat gives its groups and subscriptions")
    func heartbeat() throws {
        let all = try GoldenFrame.commands("HEART_BEAT").map { try HeartbeatData(body: $0.body) }
        let consumer = try #require(all.flatMap { $0.consumerDataSet }.first)
        #expect(["CONSUME_PASSIVELY", "CONSUME_ACTIVELY"].contains(consumer.consumeType))
        #expect(["CLUSTERING", "BROADCASTING"].contains(consumer.messageModel))
        #expect(consumer.subscriptionDataSet.contains { $0.topic == "%RETRY%" + consumer.groupName })
        #expect(all.allSatisfy { $0.clientID.contains("@") })
    }

    @Test("messages of a pull are decoded, and their ids are what the broker said")
    func messages() throws {
        var count = 0
        for command in try GoldenFrame.commands("RESP:PULL_MESSAGE") where command.code == 0 {
            let messages = try MessageExt.decodeAll(command.body)
            #expect(!messages.isEmpty)
            #expect(messages.reduce(0) { $0 + Int($1.storeSize) } == command.body.count)
            for (previous, next) in zip(messages, messages.dropFirst()) {
                #expect(next.queueOffset > previous.queueOffset || next.queueID != previous.queueID)
            }
            for message in messages {
                #expect(!message.topic.isEmpty)
                #expect(message.storeHost.hostText == "127.0.0.2")
                let crc = message.body.withUnsafeBytes { Zlib.crc32($0) }
                #expect(crc == message.bodyCRC || message.sysFlag & MessageExt.compressedFlag != 0)
                #expect(OffsetMessageID.parse(message.offsetMessageID)?.physicalOffset == message.physicalOffset)
                count += 1
            }
        }
        #expect(count >= 4)
    }
}
