import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

/// Containers with one process number behind one address: their clients call themselves the same.
@Suite("instances with one client identifier") struct SharedClientIDTests {
    private static let id = "10.0.0.1@1"

    private final class Instance {
        let connection: RawConnection

        init(_ harness: BrokerHarness, registers: Bool = true) throws {
            connection = try harness.connect()
            if registers { try heartbeat() }
        }

        func heartbeat(producer: String? = nil) throws {
            let data = ConsumerData(
                groupName: "G", subscriptionDataSet: [SubscriptionData(topic: "Orderly", subVersion: 1)])
            let body = HeartbeatData(
                clientID: SharedClientIDTests.id, producerGroups: producer.map { [$0] } ?? [], consumerDataSet: [data])
            #expect(try connection.invoke(.heartBeat, body: body.encoded()).code == 0)
        }

        private func queues(_ ids: [Int32]) -> [MessageQueue] {
            ids.map { MessageQueue(topic: "Orderly", brokerName: "broker-a", queueID: $0) }
        }

        func lock(_ ids: [Int32]) throws -> Set<Int32> {
            let body = LockBatchRequestBody(
                consumerGroup: "G", clientID: SharedClientIDTests.id, mqSet: queues(ids))
            let answer = try connection.invoke(.lockBatchMQ, body: body.encoded())
            return Set(try LockBatchResponseBody(body: answer.body).lockOKMQSet.map(\.queueID))
        }

        func unlock(_ ids: [Int32]) throws {
            let body = UnlockBatchRequestBody(
                consumerGroup: "G", clientID: SharedClientIDTests.id, mqSet: queues(ids))
            #expect(try connection.invoke(.unlockBatchMQ, body: body.encoded()).code == 0)
        }

        func leave() throws {
            let fields = ["clientID": SharedClientIDTests.id, "consumerGroup": "G"]
            #expect(try connection.invoke(.unregisterClient, fields).code == 0)
        }
    }

    @Test("one leaves: the locks of the other stay, and no third one gets its queues")
    func leaving() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (first, second) = (try Instance(harness), try Instance(harness))
        #expect(try first.lock([0, 1]) == [0, 1])
        // RocketMQ's broker gives both the same lock.
        #expect(try second.lock([0, 1, 2]) == [2])
        try second.unlock([0, 2])
        #expect(try second.lock([0]).isEmpty)
        try second.leave()
        let stranger = try harness.connect()
        let body = LockBatchRequestBody(
            consumerGroup: "G", clientID: "other",
            mqSet: (0..<3).map { MessageQueue(topic: "Orderly", brokerName: "broker-a", queueID: $0) })
        let answer = try stranger.invoke(.lockBatchMQ, body: body.encoded())
        #expect(try LockBatchResponseBody(body: answer.body).lockOKMQSet.map(\.queueID) == [2])
        // The first one renews what it holds, and gives it back when it leaves.
        #expect(try first.lock([0, 1]) == [0, 1])
        try first.leave()
        let then = try stranger.invoke(.lockBatchMQ, body: body.encoded())
        #expect(Set(try LockBatchResponseBody(body: then.body).lockOKMQSet.map(\.queueID)) == [0, 1, 2])
    }

    @Test("one is cut off: the other one waits for its locks to end, the same one come back has them at once")
    func cutOff() throws {
        let clock = ShiftedClock()
        let harness = try BrokerHarness(clock: clock)
        defer { try? harness.end() }
        let (first, second) = (try Instance(harness), try Instance(harness))
        #expect(try first.lock([0]) == [0])
        first.connection.close()
        try eventually { try harness.onLoop { $0.consumers["G"]?.clients.count } == 1 }
        #expect(try second.lock([0]).isEmpty)
        let again = try Instance(harness)
        #expect(try again.lock([0]) == [0])
        #expect(try second.lock([0]).isEmpty)
        try harness.onLoop { _ in clock.shift += 61_000 }
        #expect(try second.lock([0]) == [0])
    }

    @Test("a client that locks on another connection than its heartbeats come on is one instance")
    func twoConnections() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (member, side) = (try Instance(harness), try Instance(harness, registers: false))
        #expect(try side.lock([0]) == [0])
        #expect(try member.lock([0]) == [0])
        #expect(try side.lock([0]) == [0])
        try member.leave()
        #expect(try harness.onLoop { $0.tables.locks.isEmpty })
    }

    @Test("307 and 309 name a client by its id: one of the two is asked, and the other when that has left")
    func relayed() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (first, second) = (try Instance(harness), try Instance(harness))
        let tool = try harness.connect()
        let sent = try tool.send(topic: "Orderly", body: "for one of them")
        let id = try #require(sent.extFields["msgId"])
        let fields = ["consumerGroup": "G", "clientId": Self.id, "topic": "Orderly", "msgId": id]

        /// Exactly one is asked; its answer comes back.
        func ask(_ code: RequestCode, _ one: Instance, notThe other: Instance?) throws {
            let opaque = try tool.post(code, fields)
            var asked = try one.connection.receive()
            // That the group's members have changed.
            while asked.code == RequestCode.notifyConsumerIDsChanged.rawValue { asked = try one.connection.receive() }
            #expect(!asked.isResponse && asked.code == code.rawValue)
            if code == .consumeMessageDirectly {
                #expect(try MessageExt.decodeAll(asked.body).first?.body == Array("for one of them".utf8))
            }
            if let other {
                // Answers and requests are in order on a connection: what comes next is the answer to this.
                #expect(try other.lock([]) == [])
            }
            var answer = RemotingCommand.response(.success, remark: "by one")
            answer.opaque = asked.opaque
            try one.connection.send(RawConnection.bytes(answer))
            let answered = try tool.receive()
            #expect(answered.opaque == opaque && answered.code == 0 && answered.remark == "by one")
        }
        for code in [RequestCode.getConsumerRunningInfo, .consumeMessageDirectly] {
            try ask(code, first, notThe: second)
        }
        try first.leave()
        for code in [RequestCode.getConsumerRunningInfo, .consumeMessageDirectly] { try ask(code, second, notThe: nil) }
        try second.leave()
        #expect(try tool.invoke(.getConsumerRunningInfo, fields).remark?.contains("not online") == true)
    }

    @Test("any order of locks, goodbyes and cuts: never two holders of a queue", arguments: [UInt64(5), 20_261_129])
    func oneHolder(_ seed: UInt64) throws {
        print("instances with one client identifier: seed \(seed)")
        var random = SplitMix(state: seed)
        func below(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        var instances = [try Instance(harness), try Instance(harness)]
        var held: [Set<Int32>] = [[], []]
        var gone: Set<Int32> = []
        for _ in 0..<300 {
            let index = below(instances.count)
            switch below(12) {
            case 0 where instances.count < 4:
                instances.append(try Instance(harness))
                held.append([])
            case 1 where instances.count > 1:
                try instances[index].leave()
                instances.remove(at: index)
                held.remove(at: index)
            case 2 where instances.count > 2:
                instances[index].connection.close()
                let count = instances.count - 1
                instances.remove(at: index)
                gone.formUnion(held.remove(at: index))
                try eventually { try harness.onLoop { $0.consumers["G"]?.clients.count ?? 0 } == count }
            case 3:
                let queue = Int32(below(6))
                try instances[index].unlock([queue])
                held[index].remove(queue)
            default:
                let got = try instances[index].lock([Int32(below(6)), Int32(below(6))])
                held[index].formUnion(got)
                for (other, queues) in held.enumerated() where other != index {
                    #expect(queues.isDisjoint(with: got), "\(got) have two holders")
                }
                gone.subtract(got)
            }
        }
    }

    @Test("a reply reaches the producer that asked, also when the other one registered later or has left")
    func replies() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (first, second) = (try Instance(harness), try Instance(harness))
        try first.heartbeat(producer: "PG")
        try second.heartbeat(producer: "PG")
        let replier = try harness.connect()
        func reply() throws {
            try replier.post(
                .sendReplyMessageV2,
                [
                    "a": "RG", "b": "DefaultCluster_REPLY_TOPIC", "c": "TBW102", "d": "4", "e": "0", "f": "0",
                    "g": "1", "h": "0",
                    "i": RawConnection.properties("MSG_TYPE=reply;REPLY_TO_CLIENT=\(Self.id);CORRELATION_ID=c"),
                    "j": "0", "k": "false", "m": "false",
                ], body: Array("reply".utf8))
        }
        try reply()
        for instance in [first, second] {
            try instance.connection.answer(try instance.connection.request(.pushReplyMessageToClient))
        }
        #expect(try replier.receive().code == 0)
        second.connection.close()
        try eventually { try harness.onLoop { $0.producers.clients(of: "PG")?.count } == 1 }
        try reply()
        try first.connection.answer(try first.connection.request(.pushReplyMessageToClient))
        #expect(try replier.receive().code == 0)
        first.connection.close()
        try eventually { try harness.onLoop { $0.producers.clients(of: "PG") == nil } }
        #expect(try harness.onLoop { $0.producers.clients(withID: Self.id).isEmpty })
    }
}
