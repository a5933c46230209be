import Foundation
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

@testable import BrokerService
@testable import MessageStore

/// Pulls that wait: who is woken, in which order, until when, and in slices where they are many.
@Suite("pulls that wait for messages") struct PullRequestHoldTests {
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
        let fields = RawConnection.pullFields(topic: topic, offset: 1, suspendMilliseconds: 60_000)
        for _ in 0..<count { try consumer.post(.pullMessage, fields) }
        try eventually(within: .seconds(30)) { try harness.onLoop { $0.hold.count } == count }
        return consumer
    }

    // MARK: - One by one

    private static func queue(_ broker: Broker, _ topic: String) throws -> ConsumeQueue {
        try #require(broker.store.consumeQueue(topic: topic, queueID: 0))
    }

    @Test("pulls of a queue are woken in the order they came; after the last one nothing waits for arrivals in it")
    func order() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let producer = try harness.connect()
        _ = try producer.send(topic: "Order", body: "first")
        let consumer = try hold(5, topic: "Order", harness)
        #expect(try harness.onLoop { try Self.queue($0, "Order").wantsArrival })
        _ = try producer.send(topic: "Order", body: "second")
        #expect(try (0..<5).map { _ in try consumer.receive().opaque } == [1, 2, 3, 4, 5])
        #expect(try harness.onLoop { try !Self.queue($0, "Order").wantsArrival && $0.hold.count == 0 })
    }

    @Test("a pull woken for a message that is not for it is held again, until its first deadline")
    func heldAgain() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        _ = try harness.connect().send(topic: "Again", body: "first")
        let consumer = try hold(1, topic: "Again", harness)
        func state() throws -> (deadline: Int64, timeLeft: Int64) {
            try harness.onLoop { broker in
                let queue = try Self.queue(broker, "Again")
                let pull = try #require(QueueWatch.of(queue).pulls.first)
                return (pull.deadlineMilliseconds, pull.listKey)
            }
        }
        let before = try state()
        // Time passes, by which a deadline counted anew would be later.
        usleep(20_000)
        try harness.onLoop { broker in
            let arrival = MessageArrival(
                physicalOffset: PhysicalOffset(0), size: 0, maxOffset: QueueOffset(1), tagsCode: 0, storeTimestamp: 0)
            broker.hold.arrived(try Self.queue(broker, "Again"), arrival)
            broker.hold.runWoken()
        }
        let after = try state()
        #expect(after.deadline == before.deadline)
        // It was woken: it waits in the list of the time that is left now.
        #expect(after.timeLeft < before.timeLeft)
        consumer.close()
        try eventually { try harness.onLoop { $0.hold.count } == 0 }
    }

    @Test("taken from where it waits: what was asked for, and nothing else")
    func taken() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        _ = try harness.connect().send(topic: "Taken", body: "first")
        let consumer = try hold(2, topic: "Taken", harness)
        let opaque = try consumer.post(
            .pullMessage, RawConnection.pullFields(topic: "Taken", queueID: 1, offset: 0, suspendMilliseconds: 60_000))
        try eventually { try harness.onLoop { $0.hold.count } == 3 }
        let taken = try harness.onLoop { broker in
            let queue = try Self.queue(broker, "Taken")
            let client = try #require(QueueWatch.of(queue).pulls.first).client
            let taken = broker.hold.takeHeld(by: client) { $0.queueID == 1 }
            #expect(broker.hold.takeHeld(by: client) { $0.queueID == 1 }.isEmpty)
            #expect(taken.allSatisfy { !$0.isHeld && $0.queue == nil })
            for pull in taken { pull.resume(expired: true) }
            return taken.count
        }
        #expect(taken == 1)
        #expect(try consumer.receive().opaque == opaque)
        #expect(try harness.onLoop { $0.hold.count } == 2)
        #expect(try harness.onLoop { $0.store.consumeQueue(topic: "Taken", queueID: 1)?.wantsArrival } == false)
    }

    @Test("when the broker ends, all that wait are answered before, however many")
    func ending() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        _ = try harness.connect().send(topic: "Ending", body: "first")
        let count = 2 * PullRequestHold.runsPerSlice + 1
        let consumer = try hold(count, topic: "Ending", harness)
        try harness.drain()
        for _ in 0..<count { #expect(try consumer.receive().code == ResponseCode.pullNotFound.rawValue) }
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
        #expect(tags.mayWake(.all), "too many to remember wake all")
    }

    // MARK: - Very many

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
        // None waits any more: the next message finds nothing to do, and a new pull is woken as ever.
        try consumer.post(.pullMessage, RawConnection.pullFields(topic: "Many", offset: 2, suspendMilliseconds: 60_000))
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
        let fields = RawConnection.pullFields(topic: "Bound", offset: 1, suspendMilliseconds: 60_000)
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
        let fields = RawConnection.pullFields(topic: "Over", offset: 1, suspendMilliseconds: 1500)
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
}
