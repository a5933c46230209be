import BrokerService
import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

/// Orderly consumers as RocketMQ's clients are: they divide queues among themselves, consume only what they have
/// locked, and commit behind what they have done.
@Suite("orderly consumption") struct OrderlyTests {
    private static let queues: Int32 = 4

    private final class Member {
        let id: String
        let connection: RawConnection
        /// Queues it holds the lock of, and the offset it goes on with.
        var held: [Int32: Int64] = [:]

        init(_ id: String, _ connection: RawConnection) {
            self.id = id
            self.connection = connection
        }

        func heartbeat() throws {
            let data = ConsumerData(
                groupName: "G", subscriptionDataSet: [SubscriptionData(topic: "Orderly", subVersion: 1)])
            let body = HeartbeatData(clientID: id, producerGroups: [], consumerDataSet: [data]).encoded()
            #expect(try connection.invoke(.heartBeat, body: body).code == 0)
        }

        func lock(_ queueIDs: [Int32]) throws -> Set<Int32> {
            let body = LockBatchRequestBody(
                consumerGroup: "G", clientID: id,
                mqSet: queueIDs.map { MessageQueue(topic: "Orderly", brokerName: "broker-a", queueID: $0) })
            let answer = try connection.invoke(.lockBatchMQ, body: body.encoded())
            #expect(answer.code == 0)
            return Set(try LockBatchResponseBody(body: answer.body).lockOKMQSet.map(\.queueID))
        }

        func unlock(_ queueIDs: [Int32]) throws {
            let body = UnlockBatchRequestBody(
                consumerGroup: "G", clientID: id,
                mqSet: queueIDs.map { MessageQueue(topic: "Orderly", brokerName: "broker-a", queueID: $0) })
            #expect(try connection.invoke(.unlockBatchMQ, body: body.encoded()).code == 0)
        }

        /// RocketMQ's AllocateMessageQueueAveragely over what 38 answers.
        func rebalance() throws {
            let answer = try connection.invoke(.getConsumerListByGroup, ["consumerGroup": "G"])
            let all = (try answer.json()["consumerIdList"]?.array ?? []).compactMap(\.string).sorted()
            guard let index = all.firstIndex(of: id) else { return }
            let (count, queues) = (all.count, Int(OrderlyTests.queues))
            let share = queues <= count ? 1 : queues / count + (index < queues % count ? 1 : 0)
            let start = queues <= count ? index : index * (queues / count) + min(index, queues % count)
            let mine = Set((start..<min(start + share, queues)).map { Int32($0) })
            let given = held.keys.filter { !mine.contains($0) }
            // As the client does: what is committed first, then the lock.
            for queueID in given {
                try commit(queueID)
                held[queueID] = nil
            }
            if !given.isEmpty { try unlock(given) }
            let wanted = mine.subtracting(held.keys).sorted()
            for queueID in try lock(wanted) {
                let answer = try connection.invoke(
                    .queryConsumerOffset, ["topic": "Orderly", "consumerGroup": "G", "queueId": String(queueID)])
                held[queueID] = Int64(answer.extFields["offset"] ?? "") ?? 0
            }
        }

        func commit(_ queueID: Int32) throws {
            guard let offset = held[queueID] else { return }
            let fields = [
                "topic": "Orderly", "consumerGroup": "G", "queueId": String(queueID), "commitOffset": String(offset),
            ]
            #expect(try connection.invoke(.updateConsumerOffset, fields).code == 0)
        }

        /// Consumes one message of a queue it holds.
        func consume(_ queueID: Int32) throws -> Consumed? {
            guard let offset = held[queueID] else { return nil }
            let found = try connection.consume("Orderly", queueID: queueID, from: offset, count: 1).first
            if found != nil { held[queueID] = offset + 1 }
            return found
        }
    }

    /// The official C++ client waits for that answer with all its threads before it pulls from such a queue again.
    @Test("a client that gives a queue's lock back is answered what it waits for there, and nothing else")
    func pullsOfQueuesGivenBack() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        _ = try harness.connect().send(topic: "Orderly")
        let member = Member("m1", try harness.connect())
        let other = try harness.connect()
        try member.heartbeat()
        #expect(try member.lock([0, 1]) == [0, 1])
        func pull(_ connection: RawConnection, _ queueID: Int32, group: String = "G") throws -> Int32 {
            try connection.post(
                .pullMessage,
                RawConnection.pullFields(
                    topic: "Orderly", queueID: queueID, offset: queueID == 0 ? 1 : 0, group: group,
                    suspendMilliseconds: 15_000))
        }
        let given = try pull(member.connection, 0)
        for (connection, queueID, group) in [
            (member.connection, Int32(1), "G"), (member.connection, 0, "H"), (other, 0, "G"),
        ] {
            _ = try pull(connection, queueID, group: group)
        }
        try eventually { try harness.onLoop { $0.heldPulls } == 4 }
        let body = UnlockBatchRequestBody(
            consumerGroup: "G", clientID: "m1",
            mqSet: [MessageQueue(topic: "Orderly", brokerName: "broker-a", queueID: 0)])
        let unlock = try member.connection.post(.unlockBatchMQ, body: body.encoded())
        let answers = [try member.connection.receive(), try member.connection.receive()]
        #expect(answers.map(\.opaque) == [given, unlock])
        #expect(answers.map(\.code) == [ResponseCode.pullNotFound.rawValue, 0])
        #expect(answers[0].extFields["nextBeginOffset"] == "1")
        #expect(try harness.onLoop { $0.heldPulls } == 3)
    }

    @Test("no inversion while members join, leave, say nothing and are cut off", arguments: [UInt64(4711), 20_261_121])
    func inversion(_ seed: UInt64) throws {
        print("orderly rebalances: seed \(seed)")
        var random = SplitMix(state: seed)
        let clock = ShiftedClock()
        let harness = try BrokerHarness(clock: clock)
        defer { try? harness.end() }
        let producer = try harness.connect()
        var sent = [Int](repeating: 0, count: Int(Self.queues))
        var members: [Member] = []
        var born = 0
        // Per queue the highest message done. Consumption may repeat, but never goes ahead of what is not done.
        var done = [Int](repeating: -1, count: Int(Self.queues))
        func join() throws {
            born += 1
            let member = Member("m\(born)", try harness.connect())
            try member.heartbeat()
            members.append(member)
        }
        try join()
        for step in 0..<600 {
            let queue = Int32(random.below(UInt64(Self.queues)))
            switch random.below(100) {
            case 0..<35:
                let body = String(sent[Int(queue)])
                #expect(try producer.send(topic: "Orderly", queueID: queue, body: body).code == 0)
                sent[Int(queue)] += 1
            case 35..<40 where members.count < 4: try join()
            case 40..<44 where members.count > 1:
                // Leaves as it should: commits, unlocks, says goodbye.
                let member = members.remove(at: Int(random.below(UInt64(members.count))))
                for queueID in member.held.keys { try member.commit(queueID) }
                if !member.held.isEmpty { try member.unlock(Array(member.held.keys)) }
                _ = try member.connection.invoke(.unregisterClient, ["clientID": member.id, "consumerGroup": "G"])
                member.connection.close()
            case 44..<46 where members.count > 1:
                // Cut off without a word; what it had done since its last commit is done again.
                let member = members.remove(at: Int(random.below(UInt64(members.count))))
                member.connection.close()
            case 46..<47:
                // The dead one's locks end; the living have renewed theirs meanwhile.
                try harness.onLoop { _ in clock.shift += 40_000 }
                for member in members where !member.held.isEmpty {
                    #expect(
                        try member.lock(Array(member.held.keys)) == Set(member.held.keys), "a renewal at step \(step)")
                }
                try harness.onLoop { _ in clock.shift += 21_000 }
                for member in members {
                    try member.heartbeat()
                    if !member.held.isEmpty { _ = try member.lock(Array(member.held.keys)) }
                }
            case 47..<60: try members[Int(random.below(UInt64(members.count)))].rebalance()
            default:
                let member = members[Int(random.below(UInt64(members.count)))]
                guard let message = try member.consume(queue) else { break }
                let number = Int(message.body) ?? -1
                #expect(number <= done[Int(queue)] + 1, "step \(step): \(member.id) runs ahead in queue \(queue)")
                done[Int(queue)] = max(done[Int(queue)], number)
                if random.below(3) == 0 { try member.commit(queue) }
            }
            // No queue is held twice.
            let holders = members.flatMap { member in member.held.keys.map { ($0, member.id) } }
            #expect(Set(holders.map(\.0)).count == holders.count, "step \(step): \(holders)")
        }
        // In the end everything is done by the clients that are left.
        try harness.onLoop { _ in clock.shift += 61_000 }
        for _ in 0..<3 { for member in members { try member.rebalance() } }
        for queue in 0..<Self.queues {
            let holder = try #require(members.first { $0.held[queue] != nil })
            while let message = try holder.consume(queue) {
                let number = Int(message.body) ?? -1
                #expect(number <= done[Int(queue)] + 1)
                done[Int(queue)] = max(done[Int(queue)], number)
            }
        }
        #expect(done == sent.map { $0 - 1 })
    }

    @Test(
        "a holder that dies keeps its locks for 60 s since it last renewed them: it may still be at work; then they go")
    func holderDies() throws {
        let clock = ShiftedClock()
        let harness = try BrokerHarness(clock: clock)
        defer { try? harness.end() }
        let (cut, silent) = (Member("cut", try harness.connect()), Member("silent", try harness.connect()))
        let heir = Member("heir", try harness.connect())
        _ = try heir.connection.send(topic: "Orderly")
        for member in [cut, silent, heir] { try member.heartbeat() }
        #expect(try cut.lock([0]) == [0])
        #expect(try silent.lock([1]) == [1])
        #expect(try heir.lock([0, 1, 2]) == [2])
        cut.connection.close()
        try eventually { try heir.lock([2]) == [2] }
        #expect(try heir.lock([0, 1]) == [])
        try harness.onLoop { _ in clock.shift = 30_000 }
        // Renewed: its minute begins again.
        #expect(try silent.lock([1]) == [1])
        try harness.onLoop { _ in clock.shift = 61_000 }
        #expect(try heir.lock([0, 1]) == [0])
        // Who was silent too long gets its queue back only when it is free.
        try harness.onLoop { _ in clock.shift = 91_000 }
        #expect(try heir.lock([1]) == [1])
        #expect(try silent.lock([1]) == [])
        // Another client's lock cannot be taken off.
        try silent.unlock([1])
        #expect(try silent.lock([1]) == [])
        try heir.unlock([1])
        #expect(try silent.lock([1]) == [1])
    }

    @Test(
        "an orderly consumer that gives up sends to the retry topic itself: delayed, counted, in the end a dead letter")
    func suspension() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s 1s 1s 1s 1s")])
        defer { try? harness.end() }
        let consumer = try harness.connect()
        func giveUp(after retries: Int) throws {
            // ConsumeMessageOrderlyService.sendMessageBack: level 3 + times, RETRY_TOPIC, the consumer's own maximum.
            let answer = try consumer.invoke(
                .sendMessageV2,
                [
                    "a": "CLIENT_INNER_PRODUCER", "b": "%RETRY%G", "c": "TBW102", "d": "4", "e": "0", "f": "0",
                    "g": "1",
                    "h": "0",
                    "i": RawConnection.properties("DELAY=\(3 + retries);RETRY_TOPIC=Orderly;RECONSUME_TIME=\(retries)"),
                    "j": String(retries), "k": "false", "l": "2", "m": "false",
                ], body: Array("m\(retries)".utf8))
            #expect(answer.code == 0, "\(answer.remark ?? "")")
        }
        try giveUp(after: 1)
        #expect(try harness.stored("%RETRY%G").isEmpty)
        let again = try consumer.wait("%RETRY%G", count: 1)
        #expect(again.first?.properties["RETRY_TOPIC"] == "Orderly")
        #expect(again.first?.reconsumeTimes == 1)
        try giveUp(after: 2)
        // At once, as RocketMQ 5 does: 4.9 leaves it the delay it was sent with, which may be hours.
        let dead = try consumer.consume("%DLQ%G")
        #expect(dead.map(\.body) == ["m2"])
        #expect(dead.first?.properties["DELAY"] == nil)
    }
}

extension SplitMix {
    fileprivate mutating func below(_ bound: UInt64) -> UInt64 { next() % bound }
}
