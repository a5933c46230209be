import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

/// Answers no client could take, and requests that would have many of them made: refused in words, not made.
@Suite("answers have a bound")
struct AnswerBoundsTests {
    private func beat(
        _ connection: RawConnection, _ clientID: String, producers: [String] = [], consumers: [String] = [],
        _ subscription: SubscriptionData? = nil
    ) throws {
        let data = HeartbeatData(
            clientID: clientID, producerGroups: producers,
            consumerDataSet: consumers.map {
                ConsumerData(groupName: $0, subscriptionDataSet: [subscription ?? SubscriptionData(topic: "T")])
            })
        let answer = try connection.invoke(.heartBeat, body: data.encoded())
        #expect(answer.code == 0, "\(answer.remark ?? "")")
    }

    private func refused(_ answer: RemotingCommand, _ words: String, _ code: ResponseCode = .systemError) {
        #expect(answer.code == code.rawValue && answer.body.isEmpty)
        #expect(answer.remark?.contains(words) == true, "\(answer.remark ?? "")")
    }

    @Test("317 and 208 with more queues than an answer has room for")
    func consumeStats() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try harness.onLoop { broker in
            var config = TopicConfig(topicName: "Wide")
            (config.readQueueNums, config.writeQueueNums) = (QueueCounts.maximum, QueueCounts.maximum)
            let topic = try broker.topics.update(config)
            for number in 0...RowBounds.rowsMax / Int(QueueCounts.maximum) {
                let group = try #require(broker.groups.find("G\(number)"))
                broker.offsets.commit(topic: topic, group: group, queueID: 0, offset: 0)
            }
        }
        let before = try harness.onLoop { $0.slices.slices }
        try connection.post(.getBrokerConsumeStats, ["isOrder": "false"])
        refused(try connection.receive(timeoutMilliseconds: 60_000), "150000 queues")
        #expect(try harness.onLoop { $0.slices.slices } - before <= RowBounds.rowsMax / 128 + 10)
        #expect(try harness.onLoop { $0.processors.answers.rows.count } == 0)
        let one = try connection.invoke(.getConsumeStats, ["consumerGroup": "G0"])
        #expect(try JSONValue(parsing: one.body)["offsetTable"]?.object?.count == Int(QueueCounts.maximum))
        #expect(try harness.onLoop { $0.processors.answers.rows.count } == 0)
    }

    @Test("rows of all answers: large ones wait for others, small ones do not, those of clients that are gone end")
    func rowsOfAll() throws {
        final class Client { var isGone = false }
        let bounds = RowBounds()
        let client = Client()
        let all = try (0..<RowBounds.answersMax).map { _ in try #require(bounds.begin { client.isGone }) }
        #expect(bounds.begin { false } == nil)
        for rows in all[0...1] { for _ in 0..<RowBounds.rowsMax { rows.note() } }
        #expect(bounds.refusal(of: all[0]) == nil && bounds.refusal(of: all[1]) == nil)
        for _ in 0..<RowBounds.rowsAlways { all[2].note() }
        #expect(bounds.refusal(of: all[2]) == nil)
        all[2].note()
        #expect(bounds.refusal(of: all[2])?.0 == .systemBusy)
        bounds.end(all[0])
        #expect(bounds.refusal(of: all[2]) == nil && bounds.count == RowBounds.answersMax - 1)
        all[1].note()
        #expect(bounds.refusal(of: all[1])?.0 == .systemError)
        all[5].isMadeToText = true
        client.isGone = true
        #expect(bounds.count == 1)
    }

    @Test("328 of more memberships than an answer has room for")
    func producers() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let tool = try harness.connect()
        let groups = (0..<2000).map { "P\($0)" }
        func named(_ filler: String, _ number: Int) -> String {
            "\(number)" + String(repeating: filler, count: ClientContext.idBytesMax - 2)
        }
        // Six bytes of text for each of the name: known only when the text is made.
        let escaped = try (0..<7).map { number in
            let connection = try harness.connect()
            try beat(connection, named("\u{1}", number), producers: groups)
            return connection
        }
        refused(try tool.invoke(.getAllProducerInfo), "16711680 bytes")
        #expect(try tool.invoke(.getProducerConnectionList, ["producerGroup": "P7"]).code == 0)
        for connection in escaped { connection.close() }
        try eventually("they have left") { try harness.onLoop { $0.producers.all.isEmpty } }
        let plain = try (0..<30).map { number in
            let connection = try harness.connect()
            try beat(connection, named("c", number), producers: groups)
            return connection
        }
        refused(try tool.invoke(.getAllProducerInfo), "clients")
        #expect(try harness.onLoop { $0.processors.answers.rows.count } == 0)
        for connection in plain { connection.close() }
    }

    @Test("38 of a group that names more than a frame holds; 345 of one topic of a group")
    func consumers() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let tool = try harness.connect()
        let members = try (0..<18).map { number in
            let member = try harness.connect()
            try beat(
                member, "\(number)" + String(repeating: "c", count: 200), consumers: ["Named"],
                SubscriptionData(topic: "T\(number)", subString: "*"))
            return member
        }
        #expect(try harness.onLoop { $0.consumers["Named"]?.clientList(atMost: 18 * 200) } == nil)
        let list = try tool.invoke(.getConsumerListByGroup, ["consumerGroup": "Named"])
        #expect(try list.json()["consumerIdList"]?.array?.count == 18)
        let one = try tool.invoke(.querySubscriptionByConsumer, ["group": "Named", "topic": "T3"])
        #expect(try one.json()["subscriptionData"]?.array?.count == 1)
        for member in members { member.close() }
    }

    // MARK: - Members that are asked

    @Test("223 is one at a time for a connection, and takes no large answer of a member")
    func status() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (tool, member) = (try harness.connect(), try harness.connect())
        try beat(member, "c", consumers: ["G"])
        let fields = ["topic": "T", "group": "G", "clientAddr": ""]
        for _ in 0..<2 { try tool.post(.invokeBrokerToGetConsumerStatus, fields) }
        let first = try member.request(.getConsumerStatusFromClient)
        #expect(!member.gets(.getConsumerStatusFromClient, within: 300))
        let large = (0..<20_000).map { #""\#($0)":1"# }.joined(separator: ",")
        #expect(large.utf8.count < ClientRelayProcessor.statusBytesMax)
        try member.answer(first, body: #"{"messageQueueTable":{\#(large)}}"#)
        #expect(try tool.receive().json()["consumerTable"]?["c"]?.object?.count == 20_000)
        let second = try member.request(.getConsumerStatusFromClient)
        let tooLarge = String(repeating: " ", count: ClientRelayProcessor.statusBytesMax)
        try member.answer(second, body: #"{"messageQueueTable":{"0":1}}"# + tooLarge)
        let answer = try tool.receive()
        #expect(answer.code == 0)
        #expect(try answer.json()["consumerTable"]?.object?.isEmpty == true)
    }

    @Test("223 of a group with more members than are asked names one")
    func manyMembers() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let tool = try harness.connect()
        let members = try (0...ClientRelayProcessor.membersMax).map { number in
            let member = try harness.connect()
            try beat(member, "c\(number)", consumers: ["G"])
            return member
        }
        let all = try tool.invoke(.invokeBrokerToGetConsumerStatus, ["topic": "T", "group": "G", "clientAddr": ""])
        refused(all, "name one")
        try tool.post(.invokeBrokerToGetConsumerStatus, ["topic": "T", "group": "G", "clientAddr": "c5"])
        try members[5].answer(try members[5].request(.getConsumerStatusFromClient), body: "{}")
        #expect(try tool.receive().code == 0)
        for member in members { member.close() }
    }

    @Test("307: an asker has 16 questions under way, one of which does not hold up what else it asks")
    func relayOfOneAsker() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let members = try ["c", "d"].map { id in
            let member = try harness.connect()
            try beat(member, id, consumers: ["G"])
            return member
        }
        let tool = try harness.connect()
        func ask(_ id: String) throws {
            try tool.post(.getConsumerRunningInfo, ["consumerGroup": "G", "clientId": id])
        }
        try ask("c")
        var asked = [try members[0].request(.getConsumerRunningInfo)]
        let topics = try tool.post(.getAllTopicConfig, [:])
        #expect(try tool.receive().opaque == topics)
        for _ in 1..<10 { try ask("c") }
        for _ in 10..<ClientRelayProcessor.waitingMax { try ask("d") }
        for _ in 1..<10 { asked.append(try members[0].request(.getConsumerRunningInfo)) }
        for _ in 10..<ClientRelayProcessor.waitingMax { _ = try members[1].request(.getConsumerRunningInfo) }
        try ask("d")
        #expect(!members[1].gets(.getConsumerRunningInfo, within: 200))
        try members[0].answer(asked[0])
        _ = try members[1].request(.getConsumerRunningInfo)
        for connection in members + [tool] { connection.close() }
    }

    @Test("307: a member with many unanswered requests is asked nothing more")
    func relay() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let member = try harness.connect()
        try beat(member, "c", consumers: ["G"])
        let fields = ["consumerGroup": "G", "clientId": "c"]
        let tools = try (0..<ClientRelayProcessor.unansweredMax).map { _ in
            let tool = try harness.connect()
            try tool.post(.getConsumerRunningInfo, fields)
            return tool
        }
        let asked = try tools.map { _ in try member.request(.getConsumerRunningInfo) }
        let late = try harness.connect()
        refused(try late.invoke(.getConsumerRunningInfo, fields), "ask again", .systemBusy)
        refused(
            try late.invoke(.invokeBrokerToGetConsumerStatus, ["topic": "T", "group": "G", "clientAddr": ""]),
            "ask again", .systemBusy)
        try member.answer(asked[0])
        #expect(try tools[0].receive().code == 0)
        try late.post(.getConsumerRunningInfo, fields)
        _ = try member.request(.getConsumerRunningInfo)
        for tool in tools { tool.close() }
    }

    @Test("307: a member that asks about itself is answered")
    func relayToItself() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let member = try harness.connect()
        try beat(member, "c", consumers: ["G"])
        let opaque = try member.post(.getConsumerRunningInfo, ["consumerGroup": "G", "clientId": "c"])
        try member.answer(try member.request(.getConsumerRunningInfo))
        let answer = try member.receive()
        #expect(answer.isResponse && answer.opaque == opaque && answer.code == 0)
    }

    // MARK: - Lists

    @Test("18 takes 2000 topics, none in two ways, and looks for copies of all of them")
    func topicList() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        func make(_ names: [String], _ attributes: [String: String]? = nil) throws -> RemotingCommand {
            let list = names.map { name in
                // A name with a mark is the same topic with another number of queues.
                var config = TopicConfig(
                    topicName: name.replacing("!", with: ""), readQueueNums: name.hasSuffix("!") ? 2 : 1,
                    writeQueueNums: 1)
                config.attributes = attributes
                return config
            }
            return try connection.invoke(
                .updateAndCreateTopicList, body: CreateTopicListRequestBody(topicConfigList: list).encoded())
        }
        let many = (0...1999).map { "T\($0)" }
        refused(try make(many + ["T"]), "at most 2000", .invalidParameter)
        refused(try make(["T0", "T1", "T0!"]), "twice", .invalidParameter)
        #expect(try harness.onLoop { $0.topics["T0"] == nil })
        #expect(try make(["T0", "T1", "T0"]).code == 0)
        #expect(try make(many).code == 0)
        // A group that popped under RocketMQ has a copy of a message of one of them.
        try harness.onLoop { _ = $0.groups.find("G_1") }
        #expect(try make(["%RETRY%G_1_T_7", "T_7", "T_8"]).code == 0)
        try harness.onLoop { broker in
            broker.storage.storeOwn(topic: "%RETRY%G_1_T_7", queueID: 0, properties: PropertyList(), body: [1])
        }
        try harness.onLoop { _ in }
        let serial = ["+apus.mode": "SERIAL_QUEUE"]
        refused(try make(["T_8", "T_7"], serial), "%RETRY%G_1_T_7 has messages")
        let answer = try make(["T_8"], serial)
        #expect(answer.code == 0, "\(answer.remark ?? "")")
    }
}
