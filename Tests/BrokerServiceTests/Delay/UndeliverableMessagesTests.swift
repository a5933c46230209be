import Foundation
import MessageStore
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

/// What is acknowledged and waits is delivered, or lies where an operator finds it.
@Suite("messages that wait: refused at the door, delivered, or put aside")
struct UndeliverableMessagesTests {
    static let aside = "rmq_sys_UNDELIVERABLE"
    static let levels = [("messageDelayLevel", "1s 1s 1s 1s"), ("transactionTimeOut", "600000")]

    @Test("a group whose retry topic would be too long consumes, and its send-back is refused with words")
    func longGroups() throws {
        let harness = try BrokerHarness(Self.levels)
        defer { try? harness.end() }
        let connection = try harness.connect()
        let sent = try connection.send(topic: "T", body: "again")
        let offset = try #require(OffsetMessageID.parse(sent.extFields["msgId"] ?? "")?.physicalOffset)
        let longest = String(repeating: "g", count: 120)
        for (group, isTaken) in [
            (longest, true), (longest + "g", false), (longest + String(longest.prefix(100)), false),
        ] {
            let data = ConsumerData(
                groupName: group, subscriptionDataSet: [SubscriptionData(topic: "T", subVersion: 1)])
            let body = HeartbeatData(clientID: "c", producerGroups: [], consumerDataSet: [data]).encoded()
            #expect(try connection.invoke(.heartBeat, body: body).code == 0)
            let pulled = try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "T", group: group))
            #expect(Consumed.all(pulled.body).map(\.body) == ["again"])
            let back = try connection.sendBack(group, offset: offset)
            if isTaken {
                #expect(back.code == 0)
                #expect(try connection.wait("%RETRY%" + group, count: 1).map(\.body) == ["again"])
            } else {
                #expect(back.code == ResponseCode.messageIllegal.rawValue)
                #expect(back.remark?.contains("at most 120") == true, "\(back.remark ?? "")")
                // Also when it is a dead letter, whose topic would just fit.
                #expect(try connection.sendBack(group, offset: offset, delayLevel: -1).code == 13)
            }
        }
    }

    @Test(
        "DELAY that is no number is refused with 1, as RocketMQ's broker does, for each kind of send",
        arguments: [
            "3 ", "1s", "x", "99999999999", "1.5", "0x1",
        ])
    func illegalDelay(_ text: String) throws {
        let harness = try BrokerHarness(Self.levels)
        defer { try? harness.end() }
        let connection = try harness.connect()
        for more in ["", "\u{2}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG", "\u{2}TIMER_DELAY_MS\u{1}500"] {
            let answer = try connection.send(topic: "T", properties: "DELAY\u{1}\(text)\(more)")
            #expect(answer.code == ResponseCode.systemError.rawValue)
            #expect(answer.remark?.contains("DELAY is no number") == true)
        }
        #expect(try connection.consume("T").isEmpty)
        // What Java's Integer.parseInt takes is taken, and kept as plain digits.
        #expect(try connection.send(topic: "T", properties: "DELAY\u{1}+02").code == 0)
        #expect(try connection.wait("T", count: 1).first?.properties["DELAY"] == "2")
    }

    @Test(
        "a broker does not start with a messageDelayLevel that names no level",
        arguments: [
            "", " ", "1x", "s", "1s 5", "9223372036854775807d", "-1s",
        ])
    func noLevels(_ text: String) {
        #expect {
            try BrokerHarness([("messageDelayLevel", text)]).end()
        } throws: { error in
            "\(error)".contains("messageDelayLevel = ") && "\(error)".contains("is not what this setting takes")
        }
    }

    @Test("a message marked as prepared that belongs to no transaction is refused: no consumer would ever see it")
    func markedAsPrepared() throws {
        let harness = try BrokerHarness(Self.levels)
        defer { try? harness.end() }
        let connection = try harness.connect()
        for (flag, properties) in [
            (4, ""), (12, ""), (4, "TRAN_MSG\u{1}false"), (4, "DELAY\u{1}1"), (12, "TAGS\u{1}a"),
        ] {
            let answer = try connection.send(
                topic: "T", bytes: [1], properties: properties, sysFlag: Int32(flag))
            #expect(answer.code == ResponseCode.messageIllegal.rawValue)
            #expect(answer.remark?.contains("TRAN_MSG") == true)
        }
        // Clients before 4.6.1 retry a committed message like this.
        let retried = try connection.send(
            topic: "%RETRY%G", bytes: Array("old".utf8), properties: RawConnection.properties("TRAN_MSG=true;DELAY=1"),
            sysFlag: 4, retries: 1)
        #expect(retried.code == 0)
        #expect(try connection.wait("%RETRY%G", count: 1).map(\.body) == ["old"])
        #expect(try harness.stored("RMQ_SYS_TRANS_HALF_TOPIC").isEmpty)
    }

    @Test(
        "a dead letter arrives at once, whatever it says about delays, times and transactions",
        arguments: [
            "DELAY=4", "TIMER_DELAY_SEC=1000", "TIMER_DELIVER_MS=99999999999999", "TRAN_MSG=true;PGROUP=PG", "DELAY=x",
        ])
    func deadLetters(_ text: String) throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s 1s 1s 2h")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let sent = try connection.send(
            topic: "%RETRY%G", bytes: Array("dead".utf8), properties: RawConnection.properties("KEYS=k;" + text),
            retries: 3, maxRetries: 3)
        #expect(sent.code == 0, "\(sent.remark ?? "")")
        let dead = try connection.consume("%DLQ%G")
        #expect(dead.map(\.body) == ["dead"])
        #expect(dead.first?.properties.filter { !["CLUSTER", "PGROUP"].contains($0.key) } == ["KEYS": "k"])
    }

    static let kinds = ["DELAY=1", "TIMER_DELAY_MS=800", "TRAN_MSG=true;PGROUP=PG;UNIQ_KEY=u"]

    /// Sends one that waits, and lets its transaction be committed when `then` has been done.
    private func wait(
        _ connection: RawConnection, _ topic: String, _ kind: String, queueID: Int32 = 0,
        then: () throws -> RemotingCommand
    ) throws {
        let sent = try connection.send(
            topic: topic, queueID: queueID, body: "waits", properties: RawConnection.properties(kind), group: "PG")
        #expect(sent.code == 0, "\(sent.remark ?? "")")
        #expect(try then().code == 0)
        if kind.hasPrefix("TRAN") { #expect(try connection.end(sent).code == 0) }
    }

    @Test(
        "its topic was deleted and may not be made again: it is put aside, with all it had, said and counted",
        arguments: kinds)
    func deletedTopic(_ kind: String) throws {
        let log = LogLines()
        let harness = try BrokerHarness(Self.levels + [("autoCreateTopicEnable", "false")], log: log)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeTopic("Gone").code == 0)
        try wait(connection, "Gone", kind, queueID: 2) {
            try connection.invoke(.deleteTopicInBroker, ["topic": "Gone"])
        }
        let aside = try connection.wait(Self.aside, count: 1)
        #expect(aside.map(\.body) == ["waits"])
        let message = try #require(aside.first)
        #expect(message.properties["REAL_TOPIC"] == "Gone")
        #expect(message.properties["REAL_QID"] == "2")
        #expect(message.properties["UNDELIVERABLE_REASON"]?.contains("topic Gone is not there") == true)
        #expect(log.lines.contains { $0.contains("topic Gone is not there") && $0.contains(Self.aside) })
        #expect(try harness.onLoop { $0.processors.admin.runtime.information["undeliverableMessages"] } == "1")
        // No client may write there, or delete it.
        #expect(try connection.send(topic: Self.aside).code == ResponseCode.noPermission.rawValue)
        #expect(try connection.invoke(.deleteTopicInBroker, ["topic": Self.aside]).code == 1)
        // Made again, it does not hold what could not have been found there.
        #expect(try connection.makeTopic("Gone").code == 0)
        #expect(try connection.consume("Gone", queueID: 2).isEmpty)
    }

    @Test("its topic was deleted and a send would make it again: so does the delivery", arguments: kinds)
    func topicMadeAgain(_ kind: String) throws {
        let harness = try BrokerHarness(Self.levels)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeTopic("Again", read: 6, write: 6).code == 0)
        try wait(connection, "Again", kind, queueID: 5) {
            try connection.invoke(.deleteTopicInBroker, ["topic": "Again"])
        }
        #expect(try connection.wait("Again", queueID: 5, count: 1).map(\.body) == ["waits"])
        #expect(try harness.stored(Self.aside).isEmpty)
    }

    @Test("its topic lost queues meanwhile: it comes in one that is there", arguments: kinds)
    func fewerQueues(_ kind: String) throws {
        let harness = try BrokerHarness(Self.levels)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeTopic("Shrunk", read: 8, write: 8).code == 0)
        try wait(connection, "Shrunk", kind, queueID: 7) {
            try connection.makeTopic("Shrunk", read: 2, write: 2)
        }
        #expect(try connection.wait("Shrunk", queueID: 1, count: 1).map(\.body) == ["waits"])
    }

    /// RocketMQ's broker has this fault: it stores into queues no consumer knows.
    @Test("retryQueueNums is raised when the retry topic is there: all that is sent back lies in queues that are read")
    func raisedRetryQueues() throws {
        let harness = try BrokerHarness(Self.levels)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeGroup("G", retryQueues: 1).code == 0)
        let sent = try connection.send(topic: "T", body: "m")
        let offset = try #require(OffsetMessageID.parse(sent.extFields["msgId"] ?? "")?.physicalOffset)
        #expect(try connection.sendBack("G", offset: offset).code == 0)
        #expect(try harness.onLoop { $0.topics["%RETRY%G"]?.config.readQueueNums } == 1)
        #expect(try connection.makeGroup("G", retryQueues: 6).code == 0)
        let queues = try harness.onLoop {
            $0.topics["%RETRY%G"].map { [$0.config.readQueueNums, $0.config.writeQueueNums] }
        }
        #expect(queues == [6, 6])
        for _ in 0..<40 { #expect(try connection.sendBack("G", offset: offset).code == 0) }
        // Raised by an older build, which left the topic as it was; or shrunk by hand.
        #expect(try connection.makeTopic("%RETRY%H", read: 2, write: 3).code == 0)
        try harness.onLoop { broker in
            var config = SubscriptionGroupConfig(groupName: "H")
            config.retryQueueNums = 8
            _ = try broker.groups.update(config)
        }
        for _ in 0..<40 { #expect(try connection.sendBack("H", offset: offset).code == 0) }
        func found(_ group: String, _ queues: Int32) throws -> Int {
            try (0..<queues).reduce(0) { try $0 + connection.all("%RETRY%\(group)", queueID: $1).count }
        }
        try eventually("all have come again") { try found("G", 6) >= 41 && found("H", 8) >= 40 }
        // Time passes, in which one could come twice.
        usleep(200_000)
        for (group, queues, count) in [("G", Int32(6), 41), ("H", 8, 40)] {
            #expect(try found(group, queues) == count)
            #expect(try harness.onLoop { $0.topics["%RETRY%\(group)"]?.config.readQueueNums } == queues)
        }
    }

    /// Stateful fuzzing, seed 9002: dead letters lay in a queue that no consumer could read. RocketMQ has this fault.
    @Test("dead letters are read, whatever queues a client or an operator gave their topic", arguments: [true, false])
    func deadLetterTopicWithoutQueues(_ isMadeByClient: Bool) throws {
        let harness = try BrokerHarness(Self.levels)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeGroup("G", retryQueues: 1).code == 0)
        let sent = try connection.send(topic: "T", body: "m")
        let offset = try #require(OffsetMessageID.parse(sent.extFields["msgId"] ?? "")?.physicalOffset)
        if isMadeByClient {
            let fields = [
                "a": "PG", "b": "%DLQ%G", "c": "TBW102", "d": "0", "e": "0", "f": "0", "g": "1700000000000", "h": "0",
                "i": "", "j": "0", "k": "false", "m": "false",
            ]
            #expect(try connection.invoke(.sendMessageV2, fields, body: Array("own".utf8)).code == 0)
        } else {
            try harness.onLoop {
                _ = try $0.topics.update(
                    TopicConfig(topicName: "%DLQ%G", readQueueNums: 0, writeQueueNums: 0, perm: 6))
            }
        }
        #expect(try connection.sendBack("G", offset: offset, delayLevel: -1).code == 0)
        #expect(
            try connection.send(topic: "%RETRY%G", bytes: Array("tried".utf8), properties: "", retries: 16).code == 0)
        let own = isMadeByClient ? ["own"] : []
        #expect(try connection.wait("%DLQ%G", queueID: 0, count: own.count + 2).map(\.body) == own + ["m", "tried"])
        #expect(try harness.onLoop { $0.topics["%DLQ%G"]?.config.readQueueNums } == 1)
    }

    @Test("a record that fits while it waits and not where it is delivered is refused with 13")
    func tooLargeLater() throws {
        // The schedule topic has 19 bytes, this one 127: delivered, the record is 108 bytes larger.
        let topic = String(repeating: "t", count: 127)
        let harness = try BrokerHarness(
            Self.levels + [("mappedFileSizeCommitLog", "65536"), ("maxMessageSize", "65536")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        var taken = 0
        for size in stride(from: 64_800, to: 65_100, by: 7) {
            for kind in Self.kinds {
                let body = String(repeating: "b", count: size)
                let sent = try connection.send(
                    topic: topic, body: body, properties: RawConnection.properties(kind), group: "PG")
                guard sent.code == 0 else {
                    #expect(sent.code == ResponseCode.messageIllegal.rawValue)
                    continue
                }
                taken += 1
                if kind.hasPrefix("TRAN") { #expect(try connection.end(sent).code == 0) }
            }
        }
        #expect(taken > 20)
        #expect(try connection.wait(topic, count: taken, seconds: 20).count == taken)
        #expect(try harness.stored(Self.aside).isEmpty)
    }

    @Test(
        "any properties, any topic, any queue: answered 0 is delivered, retried or put aside",
        arguments: [UInt64(12), 20_261_129])
    func anything(_ seed: UInt64) throws {
        print("waiting messages: seed \(seed)")
        var random = SplitMix(state: seed)
        func below(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }
        let harness = try BrokerHarness(Self.levels)
        defer { try? harness.end() }
        let connection = try harness.connect()
        let topics = ["a", "Short", String(repeating: "x", count: 126), String(repeating: "y", count: 127)]
        for topic in topics { #expect(try connection.makeTopic(topic, read: 8, write: 8).code == 0) }
        var expected: Set<String> = []
        var refused = 0
        for number in 0..<300 {
            var properties = ["n=\(number)"]
            for _ in 0..<below(3) {
                properties.append(
                    [
                        "DELAY=\(below(6))", "DELAY=9999", "TIMER_DELAY_MS=\(below(900))", "TIMER_DELAY_SEC=1",
                        "TIMER_OUT_MS=5", "TRAN_MSG=true;PGROUP=PG", "REAL_TOPIC=../../evil", "REAL_QID=-7",
                        "REAL_TOPIC=RMQ_SYS_TRANS_OP_HALF_TOPIC", "APUS_HALF_OFFSET=0", "TRANSACTION_CHECK_TIMES=99",
                        "TRAN_PREPARED_QUEUE_OFFSET=0", "RETRY_TOPIC=q", "UNIQ_KEY=same", "WAIT=false",
                        "CHECK_IMMUNITY_TIME_IN_SECONDS=9", "__CRC32#=12345", "TIMER_ROLL_TIMES=1",
                    ][below(18)])
            }
            // Around the limit of 32 767 bytes.
            if below(3) == 0 { properties.append("FILL=" + String(repeating: "f", count: 32_000 + below(767))) }
            let body = "m\(number)"
            let sent = try connection.send(
                topic: topics[below(topics.count)], queueID: Int32(below(8)), body: body,
                properties: RawConnection.properties(properties.joined(separator: ";")), group: "PG")
            guard sent.code == 0 else {
                refused += 1
                // A topic that a send has made again has four queues only.
                let isQueueGone = sent.code == 1 && sent.remark?.contains("request queueId[") == true
                #expect(isQueueGone || sent.code == 13, "\(properties.map { $0.prefix(40) })")
                continue
            }
            expected.insert(body)
            // An ordinary one is not there, and says so.
            if properties.contains("TRAN_MSG=true;PGROUP=PG") { _ = try connection.end(sent) }
            if below(40) == 0 {
                #expect(try connection.invoke(.deleteTopicInBroker, ["topic": topics[below(2)]]).code == 0)
            }
        }
        print("refused \(refused) of 300")
        func found() throws -> [String] {
            var found = try harness.stored(Self.aside).map(\.body)
            for topic in topics {
                for queueID in Int32(0)..<8 { found += try connection.all(topic, queueID: queueID).map(\.body) }
            }
            return found
        }
        // Deleted with their topic: what had arrived there.
        try eventually("all have come", within: .seconds(20)) {
            try missing(expected.subtracting(found()), harness).isEmpty
        }
        // Time passes, in which one could come twice.
        usleep(200_000)
        let all = try found()
        let kept = Set(all)
        #expect(kept.isSubset(of: expected))
        #expect(all.count == kept.count, "a message came twice")
        #expect(refused > 5 && expected.count > 200)
    }

    /// Those that were not delivered before their topic was deleted either: the log shows it.
    private func missing(_ bodies: Set<String>, _ harness: BrokerHarness) throws -> Set<String> {
        guard !bodies.isEmpty else { return [] }
        let path = harness.folder.path + "/commitlog/" + String(repeating: "0", count: 20)
        let log = try Data(contentsOf: URL(fileURLWithPath: path))
        let delivered = Set(
            log.withUnsafeBytes { LogRecords.all($0) }.filter { ["a", "Short"].contains($0.topic) }.map(\.body))
        return bodies.subtracting(delivered)
    }
}

private enum LogRecords {
    static func all(_ bytes: UnsafeRawBufferPointer) -> [Consumed] { Consumed.all(Array(bytes)) }
}
