import Foundation
import MessageStore
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

/// What `apus.archive` keeps when everything may go that is needed no more.
@Suite("topics with apus.archive keep their messages")
struct ArchivedMessagesTests {
    private static let small = [("mappedFileSizeCommitLog", "65536"), ("maxMessageSize", "32768")]
    /// What was found holds that long, not longer.
    private static let age = ArchivedMessages.ageMax + 100
    private static let day: Int64 = 86_400_000

    private final class Stage {
        let clock = ShiftedClock()
        let steady = ShiftedClock()
        private(set) var harness: BrokerHarness
        private(set) var connection: RawConnection

        init(archive: String, queues: Int = 1) throws {
            harness = try BrokerHarness(ArchivedMessagesTests.small, clock: clock, steady: steady) {
                TagFilterDouble.attach(to: $0)
            }
            connection = try harness.connect()
            try connection.makeTopic("Kept", queues: queues, "+apus.archive=\(archive)")
            for index in 0..<4 {
                let sent = try connection.send(topic: "Kept", queueID: Int32(index % queues), body: "m\(index)")
                #expect(sent.code == 0)
            }
            try fill()
        }

        /// Several log files of messages that may go.
        func fill() throws {
            let filler = String(repeating: "f", count: 16_000)
            for _ in 0..<12 { #expect(try connection.send(topic: "Filler", body: filler).code == 0) }
            try harness.flush()
        }

        /// Deletes what may be deleted; how many files that were.
        func deleteAll() throws -> Int {
            let steady = steady
            try harness.onLoop { _ in steady.shift += ArchivedMessagesTests.age }
            // Nothing is deleted while it is not known; that it was asked for begins the search.
            try eventually("it is known what is needed") { try harness.onLoop { $0.kinds.archive.isKnown } }
            return try harness.onLoop { broker in
                var deleted = 0
                while broker.store.deleteOldestFile() { deleted += 1 }
                return deleted
            }
        }

        func set(_ attributes: String, queues: Int = 1) throws {
            try connection.makeTopic("Kept", queues: queues, attributes)
        }

        func group(_ name: String) throws {
            #expect(try connection.makeGroup(name, retryQueues: 1).code == 0)
        }

        func commit(_ group: String, _ offset: Int64, queue: Int32 = 0) throws {
            let answer = try connection.invoke(
                .updateConsumerOffset,
                [
                    "topic": "Kept", "consumerGroup": group, "queueId": String(queue), "commitOffset": String(offset),
                ])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
        }

        func restart(_ settings: [(String, String)] = []) throws {
            try harness.drain()
            harness = try BrokerHarness(
                ArchivedMessagesTests.small + settings, folder: harness.folder, clock: clock, steady: steady
            ) { TagFilterDouble.attach(to: $0) }
            connection = try harness.connect()
        }
    }

    private func withStage(_ archive: String, queues: Int = 1, _ body: (Stage) throws -> Void) throws {
        let stage = try Stage(archive: archive, queues: queues)
        defer { try? stage.harness.end() }
        try body(stage)
    }

    @Test("nothing is deleted while it is not known what is needed, which takes slices, not one turn")
    func slices() throws {
        try withStage("forever", queues: 4) { stage in
            try stage.set("+apus.archive=1000d", queues: 1000)
            try stage.group("A")
            let steps = try stage.harness.onLoop { broker in
                let before = broker.environment.slices.slices
                #expect(!broker.kinds.archive.isKnown)
                #expect(broker.kinds.archive.neededFrom == broker.store.minPhysicalOffset)
                #expect(!broker.store.deleteOldestFile())
                return before
            }
            #expect(try stage.deleteAll() == 0)
            #expect(try stage.harness.onLoop { $0.environment.slices.slices } > steps)
        }
    }

    @Test("what lies in queues the topic has no longer is kept, too")
    func fewerQueues() throws {
        try withStage("consumed", queues: 4) { stage in
            try stage.group("G")
            for queue in 0..<3 as Range<Int32> { try stage.commit("G", 1, queue: queue) }
            try stage.set("", queues: 1)
            #expect(try stage.deleteAll() == 0)
            try stage.set("", queues: 4)
            try stage.commit("G", 1, queue: 3)
            #expect(try stage.deleteAll() > 0)
        }
    }

    @Test("for ever: whatever is consumed, over a restart, on a slave")
    func forever() throws {
        try withStage("forever", queues: 4) { stage in
            try stage.group("G")
            for queue in 0..<4 as Range<Int32> { try stage.commit("G", 1, queue: queue) }
            #expect(try stage.deleteAll() == 0)
            stage.clock.shift = 4000 * Self.day
            #expect(try stage.deleteAll() == 0)
            try stage.restart()
            #expect(try stage.deleteAll() == 0)
            try stage.restart([("brokerRole", "SLAVE"), ("brokerId", "1")])
            #expect(try stage.deleteAll() == 0)
            try stage.restart()
            stage.clock.shift = 0
            try stage.set("-apus.archive")
            #expect(try stage.deleteAll() > 0)
            #expect(try stage.connection.invoke(.getMinOffset, ["topic": "Kept", "queueId": "0"]).code == 0)
        }
    }

    @Test("n days: until the last message of the file is as old")
    func days() throws {
        try withStage("5d") { stage in
            stage.clock.shift = 5 * Self.day - 60_000
            #expect(try stage.deleteAll() == 0)
            try stage.restart()
            #expect(try stage.deleteAll() == 0)
            stage.clock.shift = 5 * Self.day + 60_000
            // What came since is young by the store's clock, not by this one; but a longer time can be set before.
            try stage.set("+apus.archive=7d")
            #expect(try stage.deleteAll() == 0)
            try stage.set("+apus.archive=5d")
            #expect(try stage.deleteAll() > 0)
        }
    }

    @Test("until consumed by all: each group that has an offset, those that pop until nothing is in hands")
    func consumed() throws {
        try withStage("consumed") { stage in
            // No group has consumed it yet.
            #expect(try stage.deleteAll() == 0)
            for group in ["A", "B", "G"] { try stage.group(group) }
            try stage.commit("A", 4)
            try stage.commit("B", 3)
            #expect(try stage.deleteAll() == 0)
            let popped = try stage.connection.pop(RawConnection.popFields(topic: "Kept", count: 4))
            #expect(popped.messages.count == 4)
            try stage.commit("B", 4)
            #expect(try stage.deleteAll() == 0)
            for message in popped.messages.dropLast() { try stage.connection.acknowledge(message, topic: "Kept") }
            #expect(try stage.deleteAll() == 0)
            try stage.restart()
            #expect(try stage.deleteAll() == 0)
            try stage.restart([("brokerRole", "SLAVE"), ("brokerId", "1")])
            #expect(try stage.deleteAll() == 0)
            try stage.restart()
            try stage.connection.acknowledge(#require(popped.messages.last), topic: "Kept")
            #expect(try stage.deleteAll() > 0)
        }
    }

    @Test("what cannot be read is kept: a queue's file that has lost its entries")
    func unreadable() throws {
        try withStage("5d") { stage in
            try stage.set("", queues: 4)
            stage.clock.shift = 6 * Self.day
            try stage.restart()
            let file = stage.harness.folder.appendingPathComponent("consumequeue/Kept/0/00000000000000000000")
            let handle = try FileHandle(forWritingTo: file)
            try handle.truncate(atOffset: 0)
            try handle.close()
            #expect(try stage.deleteAll() == 0)
        }
    }

    @Test("what is edited or deleted holds what lies behind it all the same, and not for ever")
    func edited() throws {
        try withStage("consumed") { stage in
            try stage.group("A")
            try stage.commit("A", 1)
            func edit(_ operation: String, _ offset: Int) throws {
                let answer = try stage.connection.invoke(
                    .editMessage,
                    [
                        "topic": "Kept", "queueId": "0", "queueOffset": String(offset), "operation": operation,
                        "by": "alice", "hasBody": operation == "edit" ? "true" : "false",
                    ], body: Array((operation == "edit" ? "another" : "").utf8))
                #expect(answer.code == 0, "\(answer.remark ?? "")")
            }
            // The new version lies at the log's end; messages 2 and 3 do not.
            try edit("edit", 1)
            try stage.fill()
            #expect(try stage.deleteAll() == 0)
            try edit("delete", 1)
            #expect(try stage.deleteAll() == 0)
            try stage.commit("A", 4)
            #expect(try stage.deleteAll() > 0)
        }
        try withStage("consumed") { stage in
            try stage.group("A")
            try stage.commit("A", 4)
            // Message 4 lies far behind the first files, and is deleted: those may go, it may not.
            #expect(try stage.connection.send(topic: "Kept", body: "m4").code == 0)
            let answer = try stage.connection.invoke(
                .editMessage,
                ["topic": "Kept", "queueId": "0", "queueOffset": "4", "operation": "delete", "by": "alice"])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
            try stage.fill()
            #expect(try stage.deleteAll() > 0)
        }
    }

    @Test("a group that is deleted holds nothing; the tools of RocketMQ never do", arguments: [true, false])
    func deletedGroup(cleansOffsets: Bool) throws {
        try withStage("consumed") { stage in
            try stage.group("A")
            try stage.group("Old")
            try stage.commit("A", 4)
            try stage.commit("Old", 1)
            try stage.commit("TOOLS_CONSUMER", 0)
            #expect(try stage.deleteAll() == 0)
            let answer = try stage.connection.invoke(
                .deleteSubscriptionGroup, ["groupName": "Old", "cleanOffset": String(cleansOffsets)])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
            #expect(try stage.deleteAll() > 0)
        }
    }
}
