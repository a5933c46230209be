import BrokerService
import Foundation
import RemotingProtocol
import Testing

/// What a broker refuses: RocketMQ 4.9.8's code for each, RocketMQ's words first, then cause and remedy.
@Suite("refusals, one by one, over the wire")
struct RefusedRequestTests {
    struct Row: CustomTestStringConvertible, Sendable {
        var name: String
        /// Where Apache 4.9.8 decides it.
        var source: String
        var settings: [(String, String)] = []
        /// Makes what the request meets.
        var prepare: @Sendable (RawConnection) throws -> Void = { _ in }
        var request: @Sendable (RawConnection) throws -> RemotingCommand
        var code: ResponseCode
        /// Parts of the remark: RocketMQ's words, cause, remedy.
        var says: [String] = []

        var testDescription: String { name }
    }

    private static func topic(
        _ name: String, queues: Int32 = 4, perm: Int32 = 6
    ) -> @Sendable (RawConnection) throws -> Void {
        { connection in
            let answer = try connection.invoke(
                .updateAndCreateTopic,
                [
                    "topic": name, "defaultTopic": "TBW102", "readQueueNums": String(queues),
                    "writeQueueNums": String(queues), "perm": String(perm), "topicFilterType": "SINGLE_TAG",
                    "order": "false",
                ])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
        }
    }

    private static func group(
        _ name: String, _ change: @escaping @Sendable (inout SubscriptionGroupConfig) -> Void = { _ in }
    ) -> @Sendable (RawConnection) throws -> Void {
        { connection in
            var config = SubscriptionGroupConfig(groupName: name)
            change(&config)
            let answer = try connection.invoke(.updateAndCreateSubscriptionGroup, body: config.encoded())
            #expect(answer.code == 0)
        }
    }

    private static func both(
        _ first: @escaping @Sendable (RawConnection) throws -> Void,
        _ second: @escaping @Sendable (RawConnection) throws -> Void
    ) -> @Sendable (RawConnection) throws -> Void {
        { connection in
            try first(connection)
            try second(connection)
        }
    }

    private static func sent(
        _ topic: String, queueID: Int32 = 0, body: String = "b", properties: String = "", retries: String = "0",
        batch: Bool = false, bytes: [UInt8]? = nil, maxRetries: String? = nil, sysFlag: String = "0"
    ) -> @Sendable (RawConnection) throws -> RemotingCommand {
        { connection in
            var fields = [
                "a": "P", "b": topic, "c": "TBW102", "d": "4", "e": String(queueID), "f": sysFlag, "g": "1", "h": "0",
                "i": RawConnection.properties(properties), "j": retries, "k": "false", "m": String(batch),
            ]
            fields["l"] = maxRetries
            return try connection.invoke(
                batch ? .sendBatchMessage : .sendMessageV2, fields, body: bytes ?? Array(body.utf8))
        }
    }

    private static func pulled(
        _ topic: String, queueID: Int32 = 0, group: String = "G", flag: String = "4"
    ) -> @Sendable (RawConnection) throws -> RemotingCommand {
        { connection in
            var fields = RawConnection.pullFields(topic: topic, queueID: queueID, group: group)
            fields["sysFlag"] = flag
            return try connection.invoke(.pullMessage, fields)
        }
    }

    private static func heartbeat(_ group: String, topic: String, broadcast: Bool = false)
        -> @Sendable (RawConnection)
        throws -> Void
    {
        { connection in
            var data = ConsumerData(
                groupName: group, subscriptionDataSet: [SubscriptionData(topic: topic, subVersion: 1)])
            if broadcast { data.messageModel = "BROADCASTING" }
            _ = try connection.invoke(
                .heartBeat,
                body: HeartbeatData(clientID: "c", producerGroups: [], consumerDataSet: [data]).encoded())
        }
    }

    private static let batch: [UInt8] = {
        var body: [UInt8] = []
        MessageBatch.append(body: [1], properties: [], to: &body)
        return body
    }()

    static let sends: [Row] = [
        Row(
            name: "a blank topic", source: "TopicValidator.validateTopic", request: sent(" "), code: .systemError,
            says: ["The specified topic is blank."]),
        Row(
            name: "a topic with other characters", source: "TopicValidator.isTopicOrGroupIllegal",
            request: sent("a.b"), code: .systemError, says: ["illegal characters", "^[%|a-zA-Z0-9_-]+$"]),
        Row(
            name: "a topic of 128 bytes", source: "TopicValidator.TOPIC_MAX_LENGTH",
            request: sent(String(repeating: "t", count: 128)), code: .systemError,
            says: ["longer than topic max length", "128 bytes, at most 127"]),
        Row(
            name: "a topic of 127 bytes is taken", source: "TopicValidator.TOPIC_MAX_LENGTH",
            request: sent(String(repeating: "t", count: 127)), code: .success),
        Row(
            name: "the broker's own topic", source: "TopicValidator.isNotAllowedSendTopic",
            request: sent("RMQ_SYS_TRANS_HALF_TOPIC"), code: .noPermission,
            says: ["Sending message to topic[RMQ_SYS_TRANS_HALF_TOPIC] is forbidden.", "choose another topic"]),
        Row(
            name: "the schedule topic", source: "TopicValidator.isNotAllowedSendTopic",
            request: sent("SCHEDULE_TOPIC_XXXX"), code: .noPermission, says: ["is forbidden"]),
        Row(
            name: "a topic that does not exist", source: "AbstractSendMessageProcessor.msgCheck",
            settings: [("autoCreateTopicEnable", "false")], request: sent("Absent"), code: .topicNotExist,
            says: ["topic[Absent] not exist, apply first please!", "mqadmin updateTopic", "autoCreateTopicEnable"]),
        Row(
            name: "a queue beyond the topic's", source: "AbstractSendMessageProcessor.msgCheck",
            prepare: topic("Queues"), request: sent("Queues", queueID: 4), code: .systemError,
            says: ["request queueId[4] is illegal", "writeQueueNums=4", "numbered from 0"]),
        Row(
            name: "queue -1 is any queue", source: "SendMessageProcessor.randomQueueId", prepare: topic("Queues"),
            request: sent("Queues", queueID: -1), code: .success),
        Row(
            name: "a topic without write permission is taken: producers learn it from the route",
            source: "AbstractSendMessageProcessor.msgCheck looks at the broker's permission only",
            prepare: topic("ReadOnly", perm: 4), request: sent("ReadOnly"), code: .success),
        Row(
            name: "a body over maxMessageSize", source: "CommitLog.MessageExtEncoder",
            settings: [("maxMessageSize", "1000")], request: sent("Big", body: String(repeating: "x", count: 1001)),
            code: .messageIllegal,
            says: ["the message is illegal", "length limit 1000B", "larger than maxMessageSize, 1000 bytes"]),
        Row(
            name: "an empty body is taken", source: "CommitLog.MessageExtEncoder", request: sent("Empty", body: ""),
            code: .success),
        Row(
            name: "properties over 32 767 bytes", source: "DefaultMessageStore.checkMessage",
            request: sent("Wide", properties: "K=" + String(repeating: "v", count: 32_760)), code: .messageIllegal,
            says: ["the message is illegal", "properties are larger than 32767 bytes"]),
        Row(
            name: "32 000 bytes of properties are taken", source: "DefaultMessageStore.checkMessage",
            request: sent("Wide", properties: "K=" + String(repeating: "v", count: 32_000)), code: .success),
        Row(
            name: "a broker that is a slave", source: "DefaultMessageStore.checkStoreStatus",
            settings: [("brokerRole", "SLAVE"), ("brokerId", "1")], request: sent("Any"), code: .serviceNotAvailable,
            says: ["service not available now", "brokerRole=SLAVE", "send to the master"]),
        Row(
            name: "before startAcceptSendRequestTimeStamp", source: "SendMessageProcessor.preSend",
            settings: [("startAcceptSendRequestTimeStamp", "9999999999999")], request: sent("Any"),
            code: .systemError, says: ["broker unable to service, until 9999999999999"]),
        Row(
            name: "a broker without write permission, an ordered topic",
            source: "AbstractSendMessageProcessor.msgCheck",
            settings: [("brokerPermission", "4")],
            prepare: { connection in
                _ = try connection.invoke(
                    .updateAndCreateTopic,
                    [
                        "topic": "Ordered", "defaultTopic": "TBW102", "readQueueNums": "4", "writeQueueNums": "4",
                        "perm": "6", "topicFilterType": "SINGLE_TAG", "order": "true",
                    ])
            }, request: sent("Ordered"), code: .noPermission,
            says: ["sending message is forbidden", "brokerPermission"]),
        Row(
            name: "transactions where they are off", source: "SendMessageProcessor.asyncSendMessage",
            settings: [("rejectTransactionMessage", "true")], request: sent("Tx", properties: "TRAN_MSG=true;PGROUP=P"),
            code: .noPermission, says: ["sending transaction message is forbidden"]),
        Row(
            name: "a timer further away than allowed", source: "5.3.3 TimerMessageStore, WHEEL_TIMER_MSG_ILLEGAL",
            settings: [("timerMaxDelaySec", "60")], request: sent("Far", properties: "TIMER_DELAY_SEC=61"),
            code: .messageIllegal, says: ["60"]),
    ]

    static let batches: [Row] = [
        Row(
            name: "a batch", source: "SendMessageProcessor.asyncSendBatchMessage",
            request: sent("Batch", batch: true, bytes: batch), code: .success),
        Row(
            name: "a delayed batch", source: "CommitLog.asyncPutMessages",
            request: sent(
                "Batch", properties: "DELAY=3", batch: true, bytes: batch), code: .messageIllegal,
            says: ["the message is illegal", "neither delayed nor transactional"]),
        Row(
            name: "a transactional batch", source: "CommitLog.asyncPutMessages",
            request: sent(
                "Batch", batch: true, bytes: batch, sysFlag: "4"), code: .messageIllegal,
            says: ["the message is illegal", "a batch cannot be transactional"]),
        Row(
            name: "a batch for a retry topic is taken: only clients refuse it",
            source: "SendMessageProcessor.asyncSendBatchMessage", prepare: group("G"),
            request: sent("%RETRY%G", batch: true, bytes: batch), code: .success),
        Row(
            name: "a batch over maxMessageSize", source: "DefaultMessageStore.checkMessages",
            settings: [("maxMessageSize", "1000")],
            request: { connection in
                var body: [UInt8] = []
                for _ in 0..<10 {
                    MessageBatch.append(body: [UInt8](repeating: 1, count: 100), properties: [], to: &body)
                }
                return try sent("Batch", batch: true, bytes: body)(connection)
            }, code: .messageIllegal, says: ["larger than maxMessageSize, 1000 bytes"]),
        Row(
            name: "a batch that ends inside a message", source: "CommitLog.MessageExtEncoder",
            request: sent("Batch", batch: true, bytes: Array(batch.dropLast())), code: .messageIllegal,
            says: ["the batch is malformed"]),
    ]

    static let groups: [Row] = [
        Row(
            name: "pull: a group that does not exist", source: "PullMessageProcessor.processRequest",
            settings: [("autoCreateSubscriptionGroup", "false")], prepare: topic("T"),
            request: pulled("T", group: "Absent"), code: .subscriptionGroupNotExist,
            says: ["subscription group [Absent] does not exist", "mqadmin updateSubGroup"]),
        Row(
            name: "pull: a group of 256 bytes", source: "Validators.CHARACTER_MAX_LENGTH (Apache: the client)",
            prepare: topic("T"), request: pulled("T", group: String(repeating: "g", count: 256)),
            code: .subscriptionGroupNotExist, says: ["1 to 255 bytes"]),
        Row(
            name: "pull: a group of 255 bytes is served", source: "Validators.CHARACTER_MAX_LENGTH",
            prepare: topic("T"), request: pulled("T", group: String(repeating: "g", count: 255)),
            code: .pullNotFound),
        Row(
            name: "pull: a blank group", source: "Validators.checkGroup (Apache: the client)", prepare: topic("T"),
            request: pulled("T", group: " "), code: .subscriptionGroupNotExist, says: ["no blanks"]),
        Row(
            name: "making a group of 256 bytes", source: "Validators.checkGroup (Apache: the client)",
            request: { connection in
                let config = SubscriptionGroupConfig(groupName: String(repeating: "g", count: 256))
                return try connection.invoke(.updateAndCreateSubscriptionGroup, body: config.encoded())
            }, code: .systemError, says: ["1 to 255 bytes"]),
        Row(
            name: "pull: a group that may not consume", source: "PullMessageProcessor: isConsumeEnable",
            prepare: both(topic("T"), group("G") { $0.consumeEnable = false }), request: pulled("T"),
            code: .noPermission, says: ["subscription group no permission, G", "consumeEnable=false"]),
        Row(
            name: "pull: a topic that does not exist", source: "PullMessageProcessor", request: pulled("Absent"),
            code: .topicNotExist, says: ["topic[Absent] not exist, apply first please!", "mqadmin updateTopic"]),
        Row(
            name: "pull: a topic without read permission", source: "PullMessageProcessor",
            prepare: topic("WriteOnly", perm: 2), request: pulled("WriteOnly"), code: .noPermission,
            says: ["the topic[WriteOnly] pulling message is forbidden", "mqadmin updateTopicPerm"]),
        Row(
            name: "pull: a broker without read permission", source: "PullMessageProcessor",
            settings: [("brokerPermission", "2")], prepare: topic("T"), request: pulled("T"), code: .noPermission,
            says: ["pulling message is forbidden", "brokerPermission"]),
        Row(
            name: "pull: a queue beyond the topic's", source: "PullMessageProcessor", prepare: topic("T"),
            request: pulled("T", queueID: 4), code: .systemError,
            says: ["queueId[4] is illegal", "readQueueNums:[4]", "numbered from 0"]),
        Row(
            name: "pull: queue -1", source: "PullMessageProcessor", prepare: topic("T"),
            request: pulled("T", queueID: -1), code: .systemError, says: ["queueId[-1] is illegal"]),
        Row(
            name: "pull without subscription, no client of the group known", source: "PullMessageProcessor",
            prepare: topic("T"), request: pulled("T", flag: "0"), code: .subscriptionNotExist,
            says: ["the consumer's group info not exist", "heartbeat"]),
        Row(
            name: "pull without subscription, another topic subscribed", source: "PullMessageProcessor",
            prepare: both(topic("T"), heartbeat("G", topic: "Other")), request: pulled("T", flag: "0"),
            code: .subscriptionNotExist, says: ["the consumer's subscription not exist", "subscribe to the same"]),
        Row(
            name: "pull by broadcast where that is off", source: "PullMessageProcessor",
            prepare: both(
                topic("T"),
                both(group("G") { $0.consumeBroadcastEnable = false }, heartbeat("G", topic: "T", broadcast: true))),
            request: pulled("T", flag: "0"), code: .noPermission,
            says: ["can not consume by broadcast way", "consumeBroadcastEnable=false"]),
        Row(
            name: "send-back of a message that is not there", source: "SendMessageProcessor.asyncConsumerSendMsgBack",
            request: { connection in
                try connection.invoke(
                    .consumerSendMessageBack, ["group": "G", "offset": "123456", "delayLevel": "0"])
            }, code: .systemError, says: ["look message by offset failed, 123456"]),
        Row(
            name: "send-back of an unknown group", source: "SendMessageProcessor.asyncConsumerSendMsgBack",
            settings: [("autoCreateSubscriptionGroup", "false")],
            request: { connection in
                try connection.invoke(
                    .consumerSendMessageBack, ["group": "Absent", "offset": "0", "delayLevel": "0"])
            }, code: .subscriptionGroupNotExist,
            says: ["subscription group not exist, Absent", "mqadmin updateSubGroup"]),
        Row(
            name: "send-back of a group without retries is accepted and forgotten",
            source: "SendMessageProcessor: retryQueueNums <= 0", prepare: group("G") { $0.retryQueueNums = 0 },
            request: { connection in
                try connection.invoke(.consumerSendMessageBack, ["group": "G", "offset": "9", "delayLevel": "0"])
            }, code: .success),
        Row(
            name: "making a system topic", source: "TopicValidator.isSystemTopic",
            request: { connection in
                try connection.invoke(
                    .updateAndCreateTopic,
                    [
                        "topic": "rmq_sys_mine", "defaultTopic": "TBW102", "readQueueNums": "1", "writeQueueNums": "1",
                        "perm": "6",
                    ])
            }, code: .systemError, says: ["The topic[rmq_sys_mine] is conflict with system topic."]),
        Row(
            name: "a topic of a slave", source: "AdminBrokerProcessor.validateSlave",
            settings: [("brokerRole", "SLAVE"), ("brokerId", "1")],
            request: { connection in
                try connection.invoke(.deleteTopicInBroker, ["topic": "T"])
            }, code: .systemError, says: ["from slave broker", "from master broker"]),
        Row(
            name: "consumers of a group without any", source: "ConsumerManageProcessor",
            request: { connection in
                try connection.invoke(.getConsumerListByGroup, ["consumerGroup": "Nobody"])
            }, code: .systemError, says: ["no consumer for this group, Nobody"]),
        Row(
            name: "a request without a field it needs", source: "RemotingCommand.decodeCommandCustomHeader",
            request: { connection in try connection.invoke(.getMaxOffset, ["topic": "T"]) }, code: .systemError,
            says: ["queueId"]),
        Row(
            name: "a number that is none", source: "RemotingCommand.decodeCommandCustomHeader",
            request: { connection in try connection.invoke(.getMaxOffset, ["topic": "T", "queueId": "x"]) },
            code: .systemError, says: ["queueId"]),
    ]

    @Test("sends", arguments: sends) func send(_ row: Row) throws { try check(row) }
    @Test("batches", arguments: batches) func batch(_ row: Row) throws { try check(row) }
    @Test("groups, pulls, tools", arguments: groups) func group(_ row: Row) throws { try check(row) }

    private func check(_ row: Row) throws {
        let harness = try BrokerHarness(row.settings)
        defer { try? harness.end() }
        let connection = try harness.connect()
        try row.prepare(connection)
        let answer = try row.request(connection)
        #expect(answer.code == row.code.rawValue, "\(row.source): \(answer.remark ?? "")")
        for part in row.says { #expect(answer.remark?.contains(part) == true, "\(answer.remark ?? "no remark")") }
        // Whatever was refused, the connection serves on.
        #expect(try connection.invoke(.getBrokerConfig).code == 0)
    }

    @Test("the count of retries a consumer wants is heard of clients from 3.4.9 on")
    func version() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        // A message sent to its retry topic with as many retries as wanted goes to the dead letters.
        let modern = try Self.sent("%RETRY%G", retries: "2", maxRetries: "2")(connection)
        #expect(modern.code == 0)
        #expect(try harness.stored("%DLQ%G").count == 1)
        #expect(try harness.stored("%RETRY%G").isEmpty)
        var old = RemotingCommand(
            .sendMessageV2,
            extFields: [
                "a": "P", "b": "%RETRY%G", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "j": "2",
                "l": "2",
            ], body: [1])
        old.version = 0
        #expect(try connection.invoke(old).code == 0)
        #expect(try harness.stored("%RETRY%G").count == 1)
    }

    @Test("a prepared message that wants a delay waits for its outcome first; official producers take the delay off")
    func delayedTransaction() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let answer = try Self.sent("Tx", properties: "TRAN_MSG=true;PGROUP=P;DELAY=1;UNIQ_KEY=u")(connection)
        #expect(answer.code == 0)
        #expect(try harness.stored("RMQ_SYS_TRANS_HALF_TOPIC").count == 1)
        #expect(try harness.stored("SCHEDULE_TOPIC_XXXX").isEmpty)
    }
}
