import Foundation
import MessageStore
import RemotingProtocol
import StoreFormat
import Testing

@testable import BrokerService

/// Numbers that are taken and hurt later: a client that stores one of them is followed by every question a tool asks,
/// by the broker's own scans, and by two restarts.
@Suite("numbers that poison what is stored") struct StoredExtremeNumberTests {
    private static let extremes = [
        "-9223372036854775808", "9223372036854775807", "-1", "2147483647", "36028797018963968",
    ]

    /// A question changes nothing.
    private static let questions: Set<RequestCode> = [
        .getAllTopicConfig, .getAllSubscriptionGroupConfig, .getAllConsumerOffset, .getAllDelayOffset, .getBrokerConfig,
        .getBrokerRuntimeInfo, .getTopicStatsInfo, .getConsumeStats, .queryTopicConsumeByWho, .queryConsumeTimeSpan,
        .getBrokerConsumeStats, .queryConsumeQueue, .getConsumerConnectionList, .getProducerConnectionList,
        .getConsumerListByGroup, .queryConsumerOffset, .getMaxOffset, .getMinOffset, .searchOffsetByTimestamp,
        .getEarliestMessageStoreTime, .viewBrokerStatsData, .queryCorrectionOffset, .viewMessageByID, .queryMessage,
        .cleanUnusedTopic, .queryTopicsByConsumer, .querySubscriptionByConsumer, .getAllProducerInfo,
    ]

    private func recorded() throws -> [RemotingCommand] {
        var frames = try ["sync", "batch", "pull", "query", "delay", "retry", "tx", "rebalance", "timer-5.3.3"].flatMap
        {
            try GoldenFlow($0).frames
        }
        let admin = try GoldenFlow.packed("admin").split(separator: "\n").filter { !$0.hasPrefix("# ") }
        frames += try GoldenFlow(lines: admin).frames
        var known: Set<String> = []
        return frames.filter(\.isRequestOfClient).map(\.command).filter { command in
            !command.isResponse && known.insert("\(command.code) \(command.extFields.keys.sorted())").inserted
        }
    }

    private func isQuestion(_ command: RemotingCommand) -> Bool {
        RequestCode(rawValue: command.code).map(Self.questions.contains) ?? false
    }

    private func poisoned(_ request: RemotingCommand) -> [RemotingCommand] {
        request.extFields.keys.sorted().filter { Int64(request.extFields[$0] ?? "") != nil }.flatMap { name in
            // Twice: sums of two are what overflows.
            (Self.extremes + Self.extremes).map { extreme in
                var changed = request
                changed.extFields[name] = extreme
                changed.flag = 0
                return changed
            }
        }
    }

    /// All of them on one connection, and then one that is answered.
    private func put(_ commands: [RemotingCommand], to harness: BrokerHarness, _ what: String) throws {
        let connection = try harness.connect()
        for var command in commands {
            command.opaque = 1_000_000
            try connection.send(RawConnection.bytes(command))
        }
        let opaque = try connection.post(.getBrokerConfig)
        while true {
            let answer = try connection.receive(timeoutMilliseconds: 30_000)
            if answer.isResponse, answer.opaque == opaque { return }
        }
    }

    @Test("each poisoned request, then every question, the scans, and restarts", .timeLimit(.minutes(3)))
    func pairs() throws {
        let settings = [("defaultTopicQueueNums", "8"), ("timerWheelEnable", "true"), ("messageDelayLevel", "1s 2s")]
        var harness = try BrokerHarness(settings)
        let folder = harness.folder
        defer { try? FileManager.default.removeItem(at: folder) }
        let all = try recorded()
        let questions = all.filter(isQuestion)
        let others = all.filter { !isQuestion($0) }
        #expect(questions.count > 20 && others.count > 15)
        for request in others {
            try put([request] + poisoned(request), to: harness, "\(request.code)")
            try put(questions, to: harness, "questions after \(request.code)")
            try harness.onLoop { broker in
                broker.store.runMaintenance()
                for file in ConfigurationFile.allCases { broker.keeper.persist(file) }
            }
        }
        for _ in 0..<2 {
            try harness.drain()
            harness = try BrokerHarness(settings, folder: folder)
            try put(questions, to: harness, "questions after a restart")
            #expect(try harness.connect().send(topic: "StillThere").code == 0)
        }
        try harness.drain()
    }

    @Test("a message with the most retries there can be is sent back: into the dead letters, again and again")
    func reconsumeTimes() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        var fields = [
            "a": "P", "b": "T", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1700000000000", "h": "0", "i": "",
            "j": "2147483647", "k": "false", "m": "false",
        ]
        let sent = try connection.invoke(.sendMessageV2, fields, body: [1])
        #expect(sent.code == 0)
        let id = try #require(sent.extFields["msgId"].flatMap { OffsetMessageID.parse($0) })
        for level in ["0", "3", "-1"] {
            for most in ["16", "2147483647"] {
                let back = try connection.invoke(
                    .consumerSendMessageBack,
                    [
                        "group": "G", "offset": String(id.physicalOffset), "delayLevel": level,
                        "maxReconsumeTimes": most, "originMsgId": "", "originTopic": "T",
                    ])
                #expect(back.code == 0, "\(back)")
            }
        }
        let end = try connection.invoke(.getMaxOffset, ["topic": "%DLQ%G", "queueId": "0"])
        #expect(Int64(end.extFields["offset"] ?? "") ?? 0 >= 3)
        fields["b"] = "%RETRY%G"
        #expect(try connection.invoke(.sendMessageV2, fields, body: [1]).code == 0)
    }

    @Test("offsets: what no queue has is refused with its bounds; the largest serve every question")
    func offsets() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "T").code == 0)
        func commit(_ queue: String, _ offset: String, topic: String = "T") throws -> RemotingCommand {
            try connection.invoke(
                .updateConsumerOffset,
                ["consumerGroup": "G", "topic": topic, "queueId": queue, "commitOffset": offset])
        }
        for (queue, offset) in [
            ("-1", "0"), ("-2147483648", "0"), ("0", "9223372036854775807"), ("0", "-2"), ("0", "36028797018963969"),
            ("2147483647", "0"), ("77", "1"),
        ] {
            let refused = try commit(queue, offset)
            #expect(refused.code == 1, "\(queue) \(offset): \(refused)")
            #expect(refused.remark?.isEmpty == false)
        }
        #expect(try commit("0", "1", topic: "Nowhere").code == 17)
        #expect(try commit("0", "9223372036854775807").remark?.contains("-1...36028797018963968") == true)
        for queue in 0..<4 { #expect(try commit(String(queue), "36028797018963968").code == 0) }
        for code in [RequestCode.getConsumeStats, .getBrokerConsumeStats, .queryConsumeTimeSpan] {
            let answer = try connection.invoke(
                code, ["consumerGroup": "G", "group": "G", "topic": "T", "isOrder": "false"])
            #expect(answer.code == 0, "\(code): \(answer)")
        }
        let huge = try connection.invoke(
            .updateAndCreateTopic,
            [
                "topic": "Wide", "readQueueNums": "2147483647", "writeQueueNums": "1", "perm": "6",
                "defaultTopic": "TBW102",
            ])
        #expect(huge.code == 1 && huge.remark?.contains("0...65536") == true, "\(huge)")
    }
}
