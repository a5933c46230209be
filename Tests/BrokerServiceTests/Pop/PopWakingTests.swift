import Claims
import Foundation
import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat
import TestTools
import Testing
import WorkerProtocol

@testable import BrokerService

/// What a waiting pop must not sleep in front of, and what others do to claims meanwhile.
@Suite("popping beside resets, questions, filters and closed connections") struct PopWakingTests {
    private static let heartbeat = HeartbeatData(
        clientID: "member", producerGroups: [],
        consumerDataSet: [
            ConsumerData(groupName: "G", subscriptionDataSet: [SubscriptionData(topic: "T", subString: "*")])
        ])

    private func withTopic(_ body: (BrokerHarness, RawConnection) throws -> Void) throws {
        let harness = try BrokerHarness { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        try body(harness, try harness.connect())
    }

    @Test("an offset of -1, which says that there is none, changes no claims: as a commit, with a pull, and as a reset")
    func negativeOffsets() throws {
        try withTopic { (_, connection) throws in
            for number in 0..<5 { _ = try connection.send(topic: "T", body: "m\(number)") }
            func next() throws -> [String] { try connection.pop(RawConnection.popFields(topic: "T", count: 1)).bodies }
            #expect(try next() == ["m0"])
            let commit = ["topic": "T", "consumerGroup": "G", "queueId": "0", "commitOffset": "-1"]
            // From outside the group it counts at once, as a tool's.
            #expect(try connection.invoke(.updateConsumerOffset, commit).code == 0)
            #expect(try next() == ["m1"])
            #expect(try connection.invoke(.heartBeat, body: Self.heartbeat.encoded()).code == 0)
            #expect(try connection.invoke(.updateConsumerOffset, commit).code == 0)
            #expect(try next() == ["m2"])
            var pull = RawConnection.pullFields(topic: "T")
            (pull["sysFlag"], pull["commitOffset"]) = ("5", "-7")
            #expect(try connection.invoke(.pullMessage, pull).code == 0)
            #expect(try next() == ["m3"])
            let reset = [
                "topic": "T", "group": "G", "queueId": "0", "offset": "-1", "timestamp": "-1", "isForce": "true",
            ]
            _ = try connection.invoke(.invokeBrokerToResetOffset, reset)
            #expect(try connection.send(topic: "T", body: "last").code == 0)
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies.last == "last")
        }
    }

    @Test("a pop that waits goes on behind thousands of messages its filter does not want")
    func behindUnwanted() throws {
        try withTopic { (_, connection) throws in
            let unwanted = RawConnection.properties("TAGS=A")
            for _ in 0..<2500 { _ = try connection.send(topic: "T", body: "no", properties: unwanted) }
            _ = try connection.send(topic: "T", body: "yes", properties: RawConnection.properties("TAGS=B"))
            let fields = RawConnection.popFields(topic: "T", poll: 4000, expression: "B")
            #expect(try connection.pop(fields).bodies == ["yes"])
        }
    }

    @Test("a message wakes a pop, not the question in front of it; the question is answered by the next one")
    func questionInFront() throws {
        try withTopic { (harness, connection) throws in
            _ = try connection.send(topic: "T", body: "first")
            #expect(try connection.pop(RawConnection.popFields(topic: "T")).bodies == ["first"])
            let (asking, popping) = (try harness.connect(), try harness.connect())
            func waiting(_ count: Int) throws {
                try eventually("\(count) wait") { try harness.onLoop { $0.popWaiters.count } == count }
            }
            try asking.post(
                .notification,
                ["consumerGroup": "G", "topic": "T", "queueId": "-1", "pollTime": "10000", "bornTime": "0"])
            try waiting(1)
            try popping.post(.popMessage, RawConnection.popFields(topic: "T", poll: 10_000))
            try waiting(2)
            _ = try connection.send(topic: "T", body: "second")
            #expect(try PopReply(popping.receive()).bodies == ["second"])
            try waiting(1)
            _ = try connection.send(topic: "T", body: "third")
            #expect(try asking.receive().extFields["hasMsg"] == "true")
        }
    }

    /// Holds the questions of pops for a compiled filter.
    private final class SlowFilter: @unchecked Sendable {
        // Touched on the event loop only.
        var request: UInt64?

        func attach(to broker: Broker) {
            broker.filters.connect { [self] message in
                if case .filterCompile(let request, _, _) = message { self.request = request }
            }
        }
    }

    @Test(
        "a message that comes into a queue another pop reads wakes who waits when that pop is done",
        arguments: [true, false])
    func readMeanwhile(isRefused: Bool) throws {
        let filter = SlowFilter()
        let harness = try BrokerHarness { filter.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.send(topic: "T", body: "due")
        #expect(try connection.pop(RawConnection.popFields(topic: "T", invisible: 50)).bodies == ["due"])
        try eventually("its time is over") {
            try harness.onLoop { $0.claims.store.table(group: "G", topic: "T", queueID: 0)?.dueCount } == 1
        }
        _ = try connection.send(topic: "T", queueID: 1, body: "other", properties: RawConnection.properties("TAGS=B"))
        // It begins with queue 0, takes what is due there, and waits for the filter before queue 1.
        try harness.onLoop { $0.processors.pop.ring = 3 }
        let reading = try harness.connect()
        try reading.post(.popMessage, RawConnection.popFields(topic: "T", expression: "B"))
        try eventually("the filter is asked") { try harness.onLoop { _ in filter.request } != nil }
        let waiting = try harness.connect()
        try waiting.post(.popMessage, RawConnection.popFields(topic: "T", queueID: 0, poll: 10_000))
        try eventually("a pop waits") { try harness.onLoop { $0.popWaiters.count } == 1 }
        _ = try connection.send(topic: "T", body: "new")
        #expect(throws: RawConnection.TimedOut.self) { try waiting.receive(timeoutMilliseconds: 100) }
        try harness.onLoop { broker in
            let request = try #require(filter.request)
            let result: FilterCompilation =
                isRefused ? .refused(position: 1, reason: "no") : .tagsCodes([TagsCode.of("B")])
            broker.filters.receive(.filterCompiled(request: request, result: result))
        }
        let first = try PopReply(reading.receive())
        #expect(isRefused ? first.code != 0 : first.bodies == ["due", "other"])
        #expect(try PopReply(waiting.receive()).bodies.last == "new")
    }

    @Test("a pop in order that is repeated gets its batch again, not all that was left in hand")
    func leftInHand() throws {
        try withTopic { (harness, connection) throws in
            for number in 0..<40 { _ = try connection.send(topic: "T", body: "m\(number)") }
            for count in [32, 8] {
                #expect(try connection.pop(RawConnection.popFields(topic: "T", invisible: 50)).messages.count == count)
            }
            try eventually("their time is over") {
                try harness.onLoop { $0.claims.store.table(group: "G", topic: "T", queueID: 0)?.dueCount } == 40
            }
            let ordered = RawConnection.popFields(topic: "T", invisible: 300, isOrdered: true, attempt: "X")
            let batch = try connection.pop(ordered).bodies
            #expect(batch == (0..<32).map { "m\($0)" })
            #expect(try connection.pop(ordered).code == ResponseCode.pollingTimeout.rawValue)
            var later = ordered
            later["pollTime"] = "5000"
            #expect(try connection.pop(later).bodies == batch)
        }
    }

    @Test(
        "records for a connection that has closed are not sent, and keep the loop from nothing", .timeLimit(.minutes(1))
    )
    func closedConnection() throws {
        try withTopic { (harness, connection) throws in
            for number in 0..<3 { _ = try connection.send(topic: "T", body: "m\(number)") }
            #expect(try connection.invoke(.heartBeat, body: Self.heartbeat.encoded()).code == 0)
            try harness.onLoop { broker in
                var ranges: [LogRange] = []
                _ = Array("T".utf8).withUnsafeBytes {
                    broker.store.selectMessages(topic: $0, queueID: 0, from: QueueOffset(0), maxCount: 3, into: &ranges)
                }
                #expect(!ranges.isEmpty)
                let client = try #require(broker.consumers["G"]?.client("member")?.client)
                let sender = RecordSender(broker.environment, broker.store)
                client.connection.close(reason: "test")
                sender.send(ranges + ranges, on: client.connection)
                #expect(client.connection.isClosed)
            }
            #expect(try harness.connect().send(topic: "T").code == 0)
        }
    }

    @Test("a deleted topic with leases leaves nothing of its consumers in memory")
    func forgotten() throws {
        try withTopic { (harness, connection) throws in
            #expect(
                try connection.invoke(
                    .updateAndCreateTopic,
                    [
                        "topic": "S", "defaultTopic": "TBW102", "readQueueNums": "1", "writeQueueNums": "1",
                        "perm": "6",
                        "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
                        "attributes": "+apus.mode=SERIAL_QUEUE",
                    ]
                ).code == 0)
            _ = try connection.send(topic: "S", body: "m")
            let consumer = try harness.connect()
            #expect(try consumer.invoke(.heartBeat, body: Self.heartbeat.encoded()).code == 0)
            #expect(try consumer.pop(RawConnection.popFields(topic: "S")).bodies == ["m"])
            let memory = WeakClient()
            try harness.onLoop { memory.client = try #require($0.consumers["G"]?.client("member")?.client) }
            #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "S"]).code == 0)
            consumer.close()
            try eventually("its context is gone") { try harness.onLoop { _ in memory.client == nil } }
        }
    }

    private final class WeakClient: @unchecked Sendable {
        // Touched on the event loop only.
        weak var client: ClientContext?
    }
}
