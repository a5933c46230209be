import Foundation
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

@Suite("members of groups, and who is told of them")
struct MembershipTests {
    @Test("the table keyed by bytes against a dictionary: random puts and removals")
    func tableAgainstDictionary() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var random = SplitMix(state: seed)
        var table = BytesKeyedTable<Int>()
        var model: [String: Int] = [:]
        for step in 0..<20_000 {
            let key = "group-\(Int.random(in: 0..<200, using: &random))"
            if Int.random(in: 0..<2, using: &random) == 0 {
                table[key] = step
                model[key] = step
            } else {
                table[key] = nil
                model[key] = nil
            }
            if step % 97 == 0 {
                #expect(
                    table.count == model.count && Set(table.values) == Set(model.values), "seed \(seed), step \(step)")
                for number in 0..<200 where table["group-\(number)"] != model["group-\(number)"] {
                    Issue.record("seed \(seed), step \(step): group-\(number)")
                }
            }
        }
    }

    @Test("a large frame goes to fewer members in a slice")
    func membersPerSlice() {
        #expect(GroupNotifier.membersPerSlice(bytes: 0) == 256)
        #expect(GroupNotifier.membersPerSlice(bytes: 4096) == 256)
        #expect(GroupNotifier.membersPerSlice(bytes: 300_000) == 3)
        #expect(GroupNotifier.membersPerSlice(bytes: 2 << 20) == 1)
    }

    @Test("notices: the first at once, those of the next moments together, none forgotten")
    func notices() {
        var notices = MembershipNotices()
        var told: [String] = []
        func tell(_ now: Int64, members: Int = 2) -> Int64? {
            notices.tell(now: now) { name in
                told.append(name)
                return members
            }
        }
        #expect(tell(0) == nil)
        notices.changed("a")
        notices.changed("a")
        #expect(tell(1000) == nil)
        #expect(told == ["a"])
        notices.changed("a")
        notices.changed("b")
        #expect(tell(1001) == 1025)
        #expect(told == ["a", "b"])
        notices.changed("a")
        #expect(tell(1024) == 1025)
        #expect(tell(1025) == nil)
        #expect(told == ["a", "b", "a"])
        #expect(notices.isEmpty)
        // A thousand members wait 75 ms at most, ten thousand half a second.
        notices.changed("c")
        #expect(tell(2000, members: 1000) == nil)
        notices.changed("c")
        #expect(tell(2001) == 2075)
        #expect(MembershipNotices.interval(members: 10_000) == 525)
        // A clock that was set back a day does not silence the group.
        #expect(tell(2001 - 86_400_000) == nil)
        #expect(told.last == "c")
        // Groups that come and go leave nothing behind.
        for number in 0..<10_000 {
            notices.changed("g\(number)")
            _ = tell(10_000 + Int64(number))
        }
        #expect(notices.remembered < 200)
    }

    /// The members "a" and "b" of the group L, which know of each other.
    private func twoMembers(_ harness: BrokerHarness) throws -> (RawConnection, RawConnection) {
        let (first, second) = (try harness.connect(), try harness.connect())
        for (connection, name) in [(first, "a"), (second, "b")] {
            let data = ConsumerData(groupName: "L", subscriptionDataSet: [SubscriptionData(topic: "T")])
            try connection.post(.heartBeat, body: HeartbeatData(clientID: name, consumerDataSet: [data]).encoded())
        }
        while second.gets(.notifyConsumerIDsChanged, within: 200) {}
        return (first, second)
    }

    /// Locks or unlocks queues of T for a member of L.
    ///
    /// - Returns: what is locked then; nothing for unlocking.
    private func ask(
        _ code: RequestCode, _ connection: RawConnection, _ name: String, _ ids: [Int32]
    ) throws -> [Int32] {
        let queues = ids.map { MessageQueue(topic: "T", brokerName: "broker-a", queueID: $0) }
        let body = LockBatchRequestBody(consumerGroup: "L", clientID: name, mqSet: queues).encoded()
        let answer = try connection.invoke(code, body: body)
        #expect(answer.code == 0)
        guard code == .lockBatchMQ else { return [] }
        return try LockBatchResponseBody(body: answer.body).lockOKMQSet.map(\.queueID).sorted()
    }

    @Test("who was refused a queue's lock is told when it is given back, and no other client is told of anything")
    func wantedLocks() throws {
        let harness = try BrokerHarness([("rebalanceLockMaxLiveTime", "60000")])
        defer { try? harness.end() }
        let (first, second) = try twoMembers(harness)
        #expect(try ask(.lockBatchMQ, first, "a", [0, 1, 2, 3]) == [0, 1, 2, 3])
        _ = try ask(.unlockBatchMQ, first, "a", [2])
        #expect(!second.gets(.notifyConsumerIDsChanged, within: 200))
        #expect(try ask(.lockBatchMQ, second, "b", [1, 2]) == [2])
        // Renewing keeps the wish in mind; another queue's release is of no interest.
        #expect(try ask(.lockBatchMQ, first, "a", [0, 1]) == [0, 1])
        _ = try ask(.unlockBatchMQ, first, "a", [0])
        #expect(!second.gets(.notifyConsumerIDsChanged, within: 200))
        let start = ContinuousClock.now
        _ = try ask(.unlockBatchMQ, first, "a", [1])
        #expect(second.gets(.notifyConsumerIDsChanged, within: 1000))
        #expect(start.duration(to: .now) < .milliseconds(150))
        #expect(try ask(.lockBatchMQ, second, "b", [1, 2]) == [1, 2])
        #expect(!second.gets(.notifyConsumerIDsChanged, within: 200))
    }

    @Test(
        "who gives all its locks back seems to leave: none begins at its old offsets before it has said its last ones",
        arguments: [[0, 1, 2], [1, 2]])
    func leaving(_ named: [Int32]) throws {
        // RocketMQ's clients unlock, commit and unregister in this order (DefaultMQPushConsumerImpl.shutdown); the C++
        // client forgets the first queue. Apache frees the locks at once, and no client is told; one that asks in that
        // moment begins at the old offset.
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (first, second) = try twoMembers(harness)
        func offset(_ connection: RawConnection) throws -> String? {
            try connection.invoke(.queryConsumerOffset, ["topic": "T", "consumerGroup": "L", "queueId": "1"]).extFields[
                "offset"]
        }
        _ = try second.send(topic: "T", queueID: 1)
        #expect(try ask(.lockBatchMQ, first, "a", [0, 1, 2]) == [0, 1, 2])
        #expect(try ask(.lockBatchMQ, second, "b", [1]) == [])
        _ = try ask(.unlockBatchMQ, first, "a", named)
        // Neither told nor served: what it would begin at is old.
        #expect(try ask(.lockBatchMQ, second, "b", [1]) == [])
        #expect(!second.gets(.notifyConsumerIDsChanged, within: 50))
        let commit = ["topic": "T", "consumerGroup": "L", "queueId": "1", "commitOffset": "1"]
        #expect(try first.invoke(.updateConsumerOffset, commit).code == 0)
        _ = try first.invoke(.unregisterClient, ["clientID": "a", "consumerGroup": "L"])
        #expect(second.gets(.notifyConsumerIDsChanged, within: 200))
        #expect(try ask(.lockBatchMQ, second, "b", [0, 1, 2]) == [0, 1, 2])
        #expect(try offset(second) == "1")
        // Its heir's locks are not freed by what it had given back.
        #expect(!second.gets(.notifyConsumerIDsChanged, within: 400))
        #expect(try ask(.lockBatchMQ, first, "a", [0, 1, 2]) == [])
    }

    @Test("who gives its last lock back and stays is not waited for long; who takes it again keeps it")
    func staying() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (first, second) = try twoMembers(harness)
        #expect(try ask(.lockBatchMQ, first, "a", [0, 1]) == [0, 1])
        #expect(try ask(.lockBatchMQ, second, "b", [0, 1]) == [])
        _ = try ask(.unlockBatchMQ, first, "a", [0, 1])
        #expect(try ask(.lockBatchMQ, first, "a", [1]) == [1])
        #expect(second.gets(.notifyConsumerIDsChanged, within: 1000))
        #expect(try ask(.lockBatchMQ, second, "b", [0, 1]) == [0])
        // Another client's locks are not given back.
        _ = try ask(.unlockBatchMQ, second, "b", [1])
        #expect(!second.gets(.notifyConsumerIDsChanged, within: 400))
        #expect(try ask(.lockBatchMQ, second, "b", [0, 1]) == [0])
    }

    @Test("who unregisters holds no queue any more, also those the C++ client forgets to give back")
    func forgottenLocks() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (first, second) = try twoMembers(harness)
        #expect(try ask(.lockBatchMQ, first, "a", [0, 1]) == [0, 1])
        #expect(try ask(.lockBatchMQ, second, "b", [0, 1, 2]) == [2])
        // Its unlockAll names all queues of a broker but the first.
        _ = try ask(.unlockBatchMQ, first, "a", [1])
        _ = try first.invoke(.unregisterClient, ["clientID": "a", "producerGroup": "", "consumerGroup": "L"])
        #expect(second.gets(.notifyConsumerIDsChanged, within: 1000))
        #expect(try ask(.lockBatchMQ, second, "b", [0, 1, 2]) == [0, 1, 2])
        // Another group's locks, and another client's, are no concern of who leaves.
        _ = try first.invoke(.unregisterClient, ["clientID": "a", "consumerGroup": "L"])
        _ = try first.invoke(.unregisterClient, ["clientID": "b", "consumerGroup": "Other"])
        #expect(try ask(.lockBatchMQ, first, "a", [0, 1, 2]) == [])
    }

    @Test("a client that calls itself more than 255 bytes is refused in words, and is no member")
    func longIDs() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        func codes(_ id: String) throws -> [Int32] {
            let data = ConsumerData(groupName: "L", subscriptionDataSet: [SubscriptionData(topic: "T")])
            let queue = MessageQueue(topic: "T", brokerName: "broker-a", queueID: 0)
            let lock = LockBatchRequestBody(consumerGroup: "L", clientID: id, mqSet: [queue]).encoded()
            let beat = HeartbeatData(clientID: id, producerGroups: ["P"], consumerDataSet: [data]).encoded()
            let answers = [
                try connection.invoke(.heartBeat, body: beat), try connection.invoke(.lockBatchMQ, body: lock),
                try connection.invoke(.unlockBatchMQ, body: lock),
            ]
            for answer in answers where answer.code != 0 {
                #expect(answer.remark?.contains("at most 255") == true, "\(answer.remark ?? "")")
                #expect((answer.remark?.utf8.count ?? 0) < 300)
            }
            return answers.map(\.code)
        }
        let refused = ResponseCode.systemError.rawValue
        #expect(try codes(String(repeating: "x", count: 256)) == [refused, refused, refused])
        #expect(try harness.onLoop { $0.consumers.all.isEmpty && $0.tables.locks.isEmpty })
        #expect(try harness.onLoop { $0.producers.all.isEmpty })
        #expect(try codes(String(repeating: "x", count: 255)) == [0, 0, 0])
        #expect(try harness.onLoop { $0.consumers["L"]?.clients.count } == 1)
    }

    @Test("forty members that come at once are told a few times, not forty times each; who leaves is told of at once")
    func storm() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let count = 40
        let members = try (0..<count).map { _ in try harness.connect() }
        for (index, member) in members.enumerated() {
            let data = ConsumerData(groupName: "storm", subscriptionDataSet: [SubscriptionData(topic: "T")])
            try member.post(
                .heartBeat, body: HeartbeatData(clientID: "c\(index)", consumerDataSet: [data]).encoded())
        }
        try eventually("all are members") { try harness.onLoop { $0.consumers["storm"]?.clients.count } == count }
        // Time passes: notices of further changes are gathered for 27 ms, and do not show meanwhile.
        usleep(200_000)
        var notices = 0
        for member in members {
            while member.gets(.notifyConsumerIDsChanged, within: 1) { notices += 1 }
        }
        // Each change told to each member there is would be 820.
        #expect(notices >= count && notices < 500, "\(notices) notices")
        let list = try members[0].invoke(.getConsumerListByGroup, ["consumerGroup": "storm"])
        #expect(
            try Set(GetConsumerListByGroupResponseBody(body: list.body).consumerIDList)
                == Set((0..<count).map { "c\($0)" }))
        let start = ContinuousClock.now
        members[7].close()
        #expect(members[3].gets(.notifyConsumerIDsChanged, within: 1000))
        let elapsed = start.duration(to: .now)
        #expect(elapsed < .milliseconds(100), "told after \(elapsed)")
        let after = try members[0].invoke(.getConsumerListByGroup, ["consumerGroup": "storm"])
        #expect(
            try Set(GetConsumerListByGroupResponseBody(body: after.body).consumerIDList)
                == Set((0..<count).filter { $0 != 7 }.map { "c\($0)" }))
    }
}
