import RocketMQClient
import Testing

import struct RemotingProtocol.BrokerData
import struct RemotingProtocol.QueueData
import struct RemotingProtocol.TopicRouteData

@testable import RocketMQClient

@Suite("RocketMQClient: queues and who has them")
struct QueueTests {
    private func queues(_ count: Int, brokers: Int = 2) -> [MessageQueue] {
        (0..<count).map { MessageQueue(topic: "T", brokerName: "b\($0 * brokers / count)", queueID: $0) }
    }

    @Test("queues are shared as AllocateMessageQueueAveragely does")
    func allocation() {
        let queues = (0..<8).map { MessageQueue(topic: "T", brokerName: $0 < 4 ? "a" : "b", queueID: $0 % 4) }
        let members = ["c", "a", "b"]
        func share(_ queues: [MessageQueue], _ members: [String], _ member: String) -> [MessageQueue] {
            QueueAllocation.averagely(queues, among: members, for: member)
        }
        let shares = ["a", "b", "c"].map { share(queues.shuffled(), members, $0) }
        #expect(shares.map(\.count) == [3, 3, 2])
        #expect(shares.flatMap { $0 } == queues)
        #expect(share(queues, members, "stranger").isEmpty)
        // More members than queues: the last get none.
        let many = (0..<10).map { String($0) }
        #expect(many.map { share(queues, many, $0).count } == [1, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    }

    @Test("a route that names a broker many times has its queues once")
    func repeatedBroker() {
        let broker = BrokerData(cluster: "c", brokerName: "a", brokerAddrs: [0: "a:1"])
        let queues = QueueData(brokerName: "a", readQueueNums: .max, writeQueueNums: 2, perm: 6)
        let data = TopicRouteData(queueDatas: Array(repeating: queues, count: 1000), brokerDatas: [broker])
        let route = QueueRoute(data, topic: "T")
        #expect(route.readable.count == 65_536 && route.writable.count == 2)
        #expect(TopicRoute(data, topic: "T").readableQueues.count == 65_536)
    }

    @Test("every queue has exactly one owner, whatever the counts", arguments: 1...12)
    func everyQueueOnce(memberCount: Int) {
        let members = (0..<memberCount).map { "m\($0)" }
        for count in 0...17 {
            let queues = queues(count)
            let shares = members.flatMap { QueueAllocation.averagely(queues, among: members.shuffled(), for: $0) }
            #expect(shares.sorted() == queues.sorted())
        }
    }

    @Test("object keys of RocketMQ's tables are queues")
    func queueKeys() {
        let queue = MessageQueue(key: #"{"brokerName":"a","queueId":3,"topic":"t"}"#)
        #expect(queue == MessageQueue(topic: "t", brokerName: "a", queueID: 3))
        #expect(MessageQueue(key: "{}") == nil && MessageQueue(key: "x") == nil)
    }

    @Test("a key always means the same queue, the one Java's producers choose")
    func orderingKey() {
        let queues = queues(8)
        // "order-1".hashCode() is -1207111310 in Java; its absolute value modulo 8 is 6.
        #expect(javaHash("order-1") == -1_207_111_310)
        #expect(QueueSelector.orderingKey("order-1").candidates(queues) == [queues[6]])
        // Java's Math.abs(Integer.MIN_VALUE) is negative; there queue 0 is taken.
        #expect(javaHash("polygenelubricants") == .min)
        #expect(QueueSelector.orderingKey("polygenelubricants").candidates(queues) == [queues[0]])
    }

    @Test("the caller's choice is taken modulo the queues, a fixed queue must be writable")
    func selectors() {
        let queues = queues(4)
        #expect(QueueSelector.custom { _ in 5 }.candidates(queues) == [queues[1]])
        #expect(QueueSelector.custom { _ in -1 }.candidates(queues) == [queues[3]])
        #expect(QueueSelector.queue(queues[2]).candidates(queues) == [queues[2]])
        let other = MessageQueue(topic: "T", brokerName: "elsewhere", queueID: 2)
        #expect(QueueSelector.queue(other).candidates(queues).isEmpty)
        #expect(QueueSelector.queueID(3).candidates(queues) == [queues[3]])
        #expect(
            QueueSelector.roundRobin.candidates([]).isEmpty && QueueSelector.orderingKey("k").candidates([]).isEmpty)
    }
}
