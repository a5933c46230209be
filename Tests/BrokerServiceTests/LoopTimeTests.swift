import FastJSON
import Foundation
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

@testable import BrokerService

/// What one client may cost the event loop: whatever concerns many things at once goes in slices, one a turn. Counted
/// in slices and steps, not in time.
@Suite("long work of the event loop goes in slices")
struct LoopTimeTests {
    @Test("an answer another thread works on is given before its connection goes to the next process")
    func handOver() throws {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        try harness.onLoop { broker in
            for number in 0..<6000 { try broker.topics.update(TopicConfig(topicName: "Table\(number)")) }
        }
        let opaque = try connection.post(.getAllTopicConfig)
        try eventually(within: .seconds(30)) { try harness.onLoop { $0.processors.answers.texts } == 1 }
        let given = try harness.handOver()
        defer { for descriptor in given.connections { close(descriptor) } }
        let answer = try connection.receive(timeoutMilliseconds: 30_000)
        #expect(answer.opaque == opaque)
        #expect(try TopicConfigSerializeWrapper(body: answer.body).topicConfigTable.count >= 6000)
        try FileManager.default.removeItem(at: harness.folder)
    }

    // MARK: - Heartbeats

    private func heartbeat(groups: Int, prefix: String, topics: Int = 1) -> [UInt8] {
        HeartbeatData(
            clientID: "c", producerGroups: [],
            consumerDataSet: (0..<groups).map { group in
                ConsumerData(
                    groupName: "\(prefix)\(group)",
                    subscriptionDataSet: (0..<topics).map { SubscriptionData(topic: "T\($0)", subVersion: 1) })
            }
        ).encoded()
    }

    @Test("a heartbeat names a bounded number of groups and topics, and is refused in words beyond")
    func heartbeatBounds() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for (body, word) in [
            (heartbeat(groups: 8000, prefix: "Far"), "bytes"), (heartbeat(groups: 2049, prefix: "Many"), "2049 groups"),
            (heartbeat(groups: 1, prefix: "Wide", topics: 1025), "1025 topics"),
        ] {
            let answer = try connection.invoke(.heartBeat, body: body)
            #expect(answer.code == ResponseCode.systemError.rawValue)
            #expect(answer.remark?.contains(word) == true, "\(answer.remark ?? "")")
        }
        #expect(try harness.onLoop { $0.consumers.all.count } == 0)
    }

    @Test("a heartbeat with many groups is taken in slices, is answered when all are in, and left in slices")
    func largeHeartbeat() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let before = try harness.onLoop { $0.slices.slices }
        let first = try connection.post(.heartBeat, body: heartbeat(groups: 2000, prefix: "G"))
        // Behind it on the same connection, and so answered behind it.
        let second = try connection.post(.getConsumerListByGroup, ["consumerGroup": "G1999"])
        func answer() throws -> RemotingCommand {
            while true {
                let frame = try connection.receive()
                // Others are notices that its groups have changed.
                if frame.isResponse { return frame }
            }
        }
        let beat = try answer()
        #expect(beat.opaque == first)
        #expect(beat.code == 0)
        #expect(try harness.onLoop { $0.consumers.all.count } == 2000)
        #expect(try harness.onLoop { $0.slices.slices } - before >= 2000 / ClientManageProcessor.groupsPerSlice - 1)
        let list = try answer()
        #expect(list.opaque == second)
        #expect(list.code == 0)
        // More groups on the same connection are too many; the same again is not.
        #expect(try connection.invoke(.heartBeat, body: heartbeat(groups: 49, prefix: "H")).code != 0)
        #expect(try connection.invoke(.heartBeat, body: heartbeat(groups: 2000, prefix: "G")).code == 0)
        connection.close()
        try eventually(within: .seconds(30)) { try harness.onLoop { $0.consumers.all.count } == 0 }
    }

    @Test("a connection that has leases of very many groups gives them back in slices, and idle ones are forgotten")
    func manyLeases() throws {
        let steady = ShiftedClock()
        let harness = try BrokerHarness(steady: steady)
        defer { try? harness.end() }
        let owner = try harness.connect()
        for topic in ["Leased", "Empty"] {
            let fields = [
                "topic": topic, "defaultTopic": "TBW102", "readQueueNums": "1", "writeQueueNums": "1", "perm": "6",
                "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
                "attributes": "+apus.mode=SERIAL_QUEUE,+apus.timeout=600",
            ]
            #expect(try owner.invoke(.updateAndCreateTopic, fields).code == 0)
        }
        #expect(try owner.send(topic: "Leased").code == 0)
        func pop(_ client: RawConnection, _ group: String, _ topic: String) throws -> Int32 {
            let fields = [
                "consumerGroup": group, "topic": topic, "queueId": "0", "maxMsgNums": "1",
                "invisibleTime": "-1", "pollTime": "0", "bornTime": "0", "initMode": "0",
            ]
            return try client.invoke(.popMessage, fields).code
        }
        let count = 3 * QueueLeases.looksPerSlice
        for number in 0..<count { #expect(try pop(owner, "Lease\(number)", "Leased") == 0) }
        #expect(try harness.onLoop { $0.claims.leases.count } == count)
        let before = try harness.onLoop { $0.slices.slices }
        owner.close()
        try eventually(within: .seconds(30)) { try harness.onLoop { $0.claims.leases.count } == 0 }
        #expect(try harness.onLoop { $0.slices.slices } - before >= 2)
        // What a client neither holds nor awaits is forgotten with its further ones.
        let idle = try harness.connect()
        for number in 0..<300 { #expect(try pop(idle, "Idle\(number)", "Empty") != 0) }
        #expect(try harness.onLoop { $0.claims.leases.count } == 300)
        try harness.onLoop { _ in steady.shift += 60_000 }
        for number in 0..<50 { _ = try pop(idle, "Further\(number)", "Empty") }
        #expect((250...260).contains(try harness.onLoop { $0.claims.leases.count }))
        _ = try idle.invoke(.unregisterClient, ["clientID": "idle", "consumerGroup": "Further49"])
        #expect((249...259).contains(try harness.onLoop { $0.claims.leases.count }))
        idle.close()
        try eventually { try harness.onLoop { $0.claims.leases.count } == 0 }
    }

    @Test("two thousand topics of one client that disagree with another's are compared by name")
    func wideSubscriptions() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let first = try harness.connect()
        let second = try harness.connect()
        #expect(try first.invoke(.heartBeat, body: heartbeat(groups: 1, prefix: "Wide", topics: 1000)).code == 0)
        #expect(try second.invoke(.heartBeat, body: heartbeat(groups: 1, prefix: "Wide", topics: 999)).code == 0)
        #expect(try harness.onLoop { $0.consumers["Wide0"]?.isConsistent } == false)
        #expect(try harness.onLoop { $0.consumers["Wide0"]?.subscriptions.count } == 1000)
        // The only one that wanted it drops it.
        #expect(try first.invoke(.heartBeat, body: heartbeat(groups: 1, prefix: "Wide", topics: 999)).code == 0)
        #expect(try harness.onLoop { $0.consumers["Wide0"]?.subscriptions.count } == 999)
        #expect(try harness.onLoop { $0.consumers["Wide0"]?.isConsistent } == true)
    }

    @Test("a control request with a large body is refused in words, whatever its code")
    func largeBodies() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let body = [UInt8](repeating: UInt8(ascii: " "), count: ControlBody.bytesMax + 1)
        let small = RequestTable.rows.filter { $0.bodyBytesMax == ControlBody.bytesMax }
        #expect(small.count > 50)
        for code in small.map(\.code) {
            let answer = try connection.invoke(code, body: body)
            #expect(answer.code == ResponseCode.systemError.rawValue)
            #expect(answer.remark?.contains("body of \(body.count) bytes") == true, "\(code): \(answer.remark ?? "")")
        }
    }

    @Test("a control request with a large header is refused in words, whatever its code")
    func largeHeaders() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let large = ["filterGroups": String(repeating: "a,", count: ControlBody.headerBytesMax / 2)]
        let small = RequestTable.rows.filter { $0.headerBytesMax == ControlBody.headerBytesMax }
        #expect(small.count > 50)
        #expect(
            Set(RequestTable.rows.filter { $0.headerBytesMax == .max }.map(\.code))
                == Set(RequestTable.rows.filter { $0.bodyBytesMax == .max }.map(\.code))
                .union([.pullMessage, .litePullMessage, .popMessage]))
        for code in small.map(\.code) {
            let answer = try connection.invoke(code, large)
            #expect(answer.code == ResponseCode.systemError.rawValue)
            #expect(answer.remark?.contains("a header of ") == true, "\(code): \(answer.remark ?? "")")
        }
    }

    @Test("many members of a group are told of a change in slices, each once")
    func notices() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let beat = heartbeat(groups: 1, prefix: "Told")
        let members = try (0..<300).map { _ in try harness.connect() }
        for member in members { try member.post(.heartBeat, body: beat) }
        try eventually(within: .seconds(30)) {
            try harness.onLoop { $0.consumers["Told0"]?.clients.count } == members.count
        }
        // Time passes: what tells of the joining is gathered for 40 ms, and does not show meanwhile.
        usleep(200_000)
        try eventually("the slices that tell of the joining are done") { try harness.onLoop { $0.slices.count } == 0 }
        let before = try harness.onLoop { $0.slices.slices }
        try harness.onLoop { $0.notifier.rebalance("Told0", $0.groups) }
        for member in members {
            var notices = 0
            while let frame = try? member.receive(timeoutMilliseconds: notices == 0 ? 3000 : 0) {
                if frame.code == RequestCode.notifyConsumerIDsChanged.rawValue { notices += 1 }
            }
            #expect(notices >= 1)
        }
        try eventually(within: .seconds(30)) { try harness.onLoop { $0.slices.slices } > before }
    }

    // MARK: - Answers

    @Test("messages by key fill a frame of RocketMQ's clients at most: the newest, in the order of the log")
    func largeQuery() throws {
        let harness = try BrokerHarness([("maxMessageSize", "1048576")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let body = String(repeating: "x", count: 900_000)
        for number in 0..<24 {
            #expect(
                try connection.send(topic: "Big", body: "\(number)|" + body, properties: "KEYS\u{1}k").code == 0)
        }
        let query = [
            "topic": "Big", "key": "k", "maxNum": "64", "beginTimestamp": "0", "endTimestamp": String(Int64.max),
        ]
        let before = try harness.onLoop { $0.slices.slices }
        try connection.post(.queryMessage, query)
        let opaque = try connection.post(.getMaxOffset, ["topic": "Big", "queueId": "0"])
        let answer = try connection.receive()
        #expect(answer.code == 0)
        #expect(answer.body.count <= QueryMessageProcessor.answerBytesMax)
        #expect(answer.body.count > QueryMessageProcessor.answerBytesMax - 1_000_000)
        let messages = NormalizedAnswer(answer, to: RemotingCommand(.pullMessage)).body
        let count = answer.body.count / 900_000
        #expect(messages.count == count)
        #expect(try harness.onLoop { $0.slices.slices } - before >= count / 2 - 2, "two messages a slice")
        #expect(String(decoding: answer.body.prefix(400), as: UTF8.self).contains("\(24 - count)|x"))
        // The next request of the connection was answered behind it.
        #expect(try connection.receive().opaque == opaque)
    }

    @Test("whole tables that are large are made a text of on another thread, in order with other answers")
    func largeTable() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try harness.onLoop { broker in
            for number in 0..<9000 { try broker.topics.update(TopicConfig(topicName: "Table\(number)")) }
        }
        let first = try connection.post(.getAllTopicConfig)
        let second = try connection.post(.getMaxOffset, ["topic": "Table1", "queueId": "0"])
        let third = try connection.post(.getAllTopicConfig)
        let answers = try (0..<3).map { _ in try connection.receive(timeoutMilliseconds: 60_000) }
        #expect(answers.map(\.opaque) == [first, second, third])
        let table = try TopicConfigSerializeWrapper(body: answers[0].body)
        #expect(table.topicConfigTable.count >= 9000)
        #expect(answers[0].body == answers[2].body)
        #expect(try harness.onLoop { $0.processors.answers.texts } == 2)
    }
}
