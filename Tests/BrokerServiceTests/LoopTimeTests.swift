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
    /// How many held pulls left in one slice at most.
    private final class Departures: @unchecked Sendable {
        // Touched on the event loop only.
        var most = 0
        var slices = 0
    }

    private func watch(_ harness: BrokerHarness) throws -> Departures {
        let departures = Departures()
        try harness.onLoop { broker in
            broker.slices.around = { [unowned broker] slice in
                let before = broker.hold.count
                defer {
                    departures.most = max(departures.most, before - broker.hold.count)
                    departures.slices += 1
                }
                return slice()
            }
        }
        return departures
    }

    private func hold(_ count: Int, topic: String, _ harness: BrokerHarness) throws -> RawConnection {
        let consumer = try harness.connect()
        let fields = RawConnection.pullFields(topic: topic, offset: 1, suspendMillis: 60_000)
        for _ in 0..<count { try consumer.post(.pullMessage, fields) }
        try eventually(within: .seconds(30)) { try harness.onLoop { $0.hold.count } == count }
        return consumer
    }

    @Test("an answer another thread works on is given before its connection goes to the next life")
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
        let answer = try connection.receive(timeoutMillis: 30_000)
        #expect(answer.opaque == opaque)
        #expect(try TopicConfigSerializeWrapper(body: answer.body).topicConfigTable.count >= 6000)
        try FileManager.default.removeItem(at: harness.folder)
    }

    // MARK: Held pulls

    @Test("one message for 5000 pulls held in one queue: all are answered, a few in each turn")
    func manyHeld() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let producer = try harness.connect()
        _ = try producer.send(topic: "Many", body: "first")
        let consumer = try hold(5000, topic: "Many", harness)
        let departures = try watch(harness)
        #expect(try producer.send(topic: "Many", body: "second").code == 0)
        var answered: Set<Int32> = []
        for _ in 0..<5000 {
            let answer = try consumer.receive()
            #expect(answer.code == 0)
            answered.insert(answer.opaque)
        }
        #expect(answered.count == 5000)
        let (count, most, slices) = try harness.onLoop { ($0.hold.count, departures.most, departures.slices) }
        #expect(count == 0)
        #expect(most <= PullRequestHold.runsPerSlice)
        // The tick that sends a slice's answers wakes as many again.
        #expect(slices >= 5000 / (2 * PullRequestHold.runsPerSlice) - 2)
        // Nobody waits any more: the next message finds nothing to do, and a new pull is woken as ever.
        try consumer.post(.pullMessage, RawConnection.pullFields(topic: "Many", offset: 2, suspendMillis: 60_000))
        _ = try producer.send(topic: "Many", body: "third")
        #expect(try consumer.receive().extFields["nextBeginOffset"] == "3")
    }

    @Test("a connection holds 16 384 pulls; one more is answered at once, and those of others are held as ever")
    func heldBound() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let producer = try harness.connect()
        _ = try producer.send(topic: "Bound", body: "first")
        let bound = MessageReader.heldPerConnectionMax
        let consumer = try hold(bound, topic: "Bound", harness)
        let fields = RawConnection.pullFields(topic: "Bound", offset: 1, suspendMillis: 60_000)
        #expect(try consumer.invoke(.pullMessage, fields).code == ResponseCode.pullNotFound.rawValue)
        #expect(try harness.onLoop { $0.hold.count } == bound)
        try producer.post(.pullMessage, fields)
        try eventually { try harness.onLoop { $0.hold.count } == bound + 1 }
    }

    @Test("a connection with very many held pulls closes in slices")
    func closing() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let producer = try harness.connect()
        _ = try producer.send(topic: "Closing", body: "first")
        let consumer = try hold(6000, topic: "Closing", harness)
        let departures = try watch(harness)
        consumer.close()
        try eventually(within: .seconds(30)) { try harness.onLoop { $0.hold.count } == 0 }
        #expect(try harness.onLoop { _ in departures.most } <= PullRequestHold.looksPerSlice)
        #expect(try harness.onLoop { _ in departures.slices } >= 2)
        #expect(try producer.send(topic: "Closing").code == 0)
    }

    @Test("pulls whose time is over together are answered in slices; so are those of a deleted topic")
    func expiring() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let producer = try harness.connect()
        for topic in ["Over", "Deleted"] { _ = try producer.send(topic: topic, body: "first") }
        let departures = try watch(harness)
        let consumer = try harness.connect()
        let fields = RawConnection.pullFields(topic: "Over", offset: 1, suspendMillis: 1500)
        for _ in 0..<700 { try consumer.post(.pullMessage, fields) }
        for _ in 0..<700 { #expect(try consumer.receive().code == ResponseCode.pullNotFound.rawValue) }
        #expect(try harness.onLoop { _ in departures.most } <= PullRequestHold.runsPerSlice)

        let other = try hold(700, topic: "Deleted", harness)
        #expect(try producer.invoke(.deleteTopicInBroker, ["topic": "Deleted"]).code == 0)
        for _ in 0..<700 {
            let answer = try other.receive()
            #expect(answer.code == ResponseCode.pullNotFound.rawValue)
            // Not sent back to where a new topic of that name would begin.
            #expect(answer.extFields["nextBeginOffset"] == "1")
        }
        #expect(try harness.onLoop { _ in departures.most } <= PullRequestHold.runsPerSlice)
    }

    @Test("a message only wakes pulls that may want it, whatever arrives while they are looked through")
    func tags() {
        var tags = ArrivedTags()
        #expect(tags.isEmpty)
        for code in 0..<16 { tags.insert(Int64(code)) }
        tags.insert(3)
        let mine = CompiledSubscription(type: "TAG", expression: "A")
        #expect(tags.mayWake(.all))
        #expect(tags.mayWake(.compiled(mine)), "what is not compiled yet must look")
        tags.insert(99)
        #expect(!tags.isEmpty)
        #expect(tags.mayWake(.all), "too many to remember wake everybody")
    }

    // MARK: Heartbeats

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
        // Time passes: what the joining was told of is over.
        usleep(200_000)
        let before = try harness.onLoop { $0.slices.slices }
        try harness.onLoop { $0.notifier.rebalance("Told0", $0.groups) }
        for member in members {
            var notices = 0
            while let frame = try? member.receive(timeoutMillis: notices == 0 ? 3000 : 0) {
                if frame.code == RequestCode.notifyConsumerIDsChanged.rawValue { notices += 1 }
            }
            #expect(notices >= 1)
        }
        try eventually(within: .seconds(30)) { try harness.onLoop { $0.slices.slices } > before }
    }

    // MARK: Answers

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
        let answers = try (0..<3).map { _ in try connection.receive(timeoutMillis: 60_000) }
        #expect(answers.map(\.opaque) == [first, second, third])
        let table = try TopicConfigSerializeWrapper(body: answers[0].body)
        #expect(table.topicConfigTable.count >= 9000)
        #expect(answers[0].body == answers[2].body)
        #expect(try harness.onLoop { $0.processors.answers.texts } == 2)
    }
}
