import FastJSON
import Foundation
import RemotingProtocol
import Synchronization
import TestFolders
import TestTools
import Testing
import WorkerProtocol

@testable import BrokerService

@Suite struct QueueAssignmentTests {
    private static func queues(_ count: Int32, brokers: [String] = ["a"]) -> [MessageQueue] {
        brokers.flatMap { broker in
            (0..<count).map { MessageQueue(topic: "T", brokerName: broker, queueID: $0) }
        }.shuffled()
    }

    private static func shares(
        _ queues: [MessageQueue], _ members: [String], isCircle: Bool = false, mode: MessageRequestMode = .pull,
        popShare: Int = -1
    ) -> [[Int32]] {
        let assignment = QueueAssignment(queues: queues, members: members, isCircle: isCircle)
        return members.map { assignment.queues(of: $0, mode: mode, popShare: popShare).map(\.queueID) }
    }

    @Test("pulling members share queues as RocketMQ's clients do among themselves")
    func pulling() {
        let members = ["c0", "c1", "c2"]
        #expect(Self.shares(Self.queues(8), members) == [[0, 1, 2], [3, 4, 5], [6, 7]])
        #expect(Self.shares(Self.queues(8), members, isCircle: true) == [[0, 3, 6], [1, 4, 7], [2, 5]])
        #expect(Self.shares(Self.queues(2), members) == [[0], [1], []])
        #expect(Self.shares([], members) == [[], [], []])
        let stranger = QueueAssignment(queues: Self.queues(8), members: members, isCircle: false)
        #expect(stranger.queues(of: "c9", mode: .pull, popShare: 0).isEmpty)
    }

    @Test("popping members read whole brokers, or some of each other's queues")
    func popping() {
        let members = ["c0", "c1", "c2", "c3"]
        let all = QueueAssignment(
            queues: Self.queues(4, brokers: ["a", "b"]), members: members, isCircle: false)
        for share in [-1, 0, 3, 99] {
            let queues = all.queues(of: "c2", mode: .pop, popShare: share)
            #expect(queues.map(\.brokerName) == ["a", "b"])
            #expect(queues.map(\.queueID) == [-1, -1])
        }
        #expect(
            Self.shares(Self.queues(8), members, mode: .pop, popShare: 1) == [
                [0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 0, 1],
            ])
        // More members than queues: each has one.
        #expect(Self.shares(Self.queues(3), members, mode: .pop, popShare: 1) == [[0], [1], [2], [0]])
    }

    private func heartbeat(_ clientID: String) -> [UInt8] {
        let subscription = JSONValue.fields([
            ("classFilterMode", .bool(false)), ("codeSet", .array([])), ("expressionType", .string("TAG")),
            ("subString", .string("*")), ("subVersion", .integer(1)), ("tagsSet", .array([])), ("topic", .string("T")),
        ])
        return JSONValue.fields([
            ("clientID", .string(clientID)),
            (
                "consumerDataSet",
                .array([
                    .fields([
                        ("consumeFromWhere", .string("CONSUME_FROM_FIRST_OFFSET")),
                        ("consumeType", .string("CONSUME_PASSIVELY")), ("groupName", .string("G")),
                        ("messageModel", .string("CLUSTERING")), ("subscriptionDataSet", .array([subscription])),
                        ("unitMode", .bool(false)),
                    ])
                ])
            ), ("producerDataSet", .array([])),
        ]).bytes()
    }

    @Test("an operator has a group pop a topic; the broker says so, also after a restart")
    func mode() throws {
        let folder = try TestFolder.make("assignment")
        defer { try? FileManager.default.removeItem(at: folder) }
        func assignment(_ connection: RawConnection, _ topic: String = "T") throws -> String {
            let body = JSONValue.fields([
                ("clientId", .string("c1")), ("consumerGroup", .string("G")), ("messageModel", .string("CLUSTERING")),
                ("strategyName", .string("AVG")), ("topic", .string(topic)),
            ])
            let answer = try connection.invoke(.queryAssignment, body: body.bytes())
            #expect(answer.code == 0)
            return String(decoding: answer.body, as: UTF8.self)
        }
        func set(_ connection: RawConnection, topic: String, group: String = "G", mode: String = "POP") throws -> Int32
        {
            let body = JSONValue.fields([
                ("consumerGroup", .string(group)), ("mode", .string(mode)), ("popShareQueueNum", .integer(8)),
                ("topic", .string(topic)),
            ])
            return try connection.invoke(.setMessageRequestMode, body: body.bytes()).code
        }
        let pops =
            #"{"messageQueueAssignments":[{"messageQueue":{"brokerName":"broker-a","queueId":-1,"topic":"T"},"mode":"POP"}]}"#
        do {
            let harness = try BrokerHarness(folder: folder)
            let connection = try harness.connect()
            _ = try connection.send(topic: "T")
            #expect(try assignment(connection) == "{}")
            #expect(try connection.invoke(.heartBeat, body: heartbeat("c1")).code == 0)
            let pulls = try assignment(connection)
            #expect(pulls.contains(#""queueId":3"#) && pulls.contains(#""mode":"PULL""#))
            #expect(try set(connection, topic: "T") == 0)
            #expect(try assignment(connection) == pops)
            #expect(try assignment(connection, "%RETRY%G").contains("PULL"))
            #expect(try set(connection, topic: "%RETRY%G") == ResponseCode.noPermission.rawValue)
            #expect(try set(connection, topic: "None") == ResponseCode.topicNotExist.rawValue)
            #expect(try set(connection, topic: "T", group: "None") == ResponseCode.subscriptionGroupNotExist.rawValue)
            #expect(try set(connection, topic: "T", mode: "PUSH") == ResponseCode.systemError.rawValue)
            try harness.drain()
        }
        let file = folder.appendingPathComponent("config/messageRequestMode.json")
        let json = try JSONValue(parsing: [UInt8](Data(contentsOf: file)))
        #expect(json["messageRequestModeMap"]?["T"]?["G"]?["mode"]?.string == "POP")
        let harness = try BrokerHarness(folder: folder)
        defer { try? harness.drain() }
        let connection = try harness.connect()
        #expect(try connection.invoke(.heartBeat, body: heartbeat("c1")).code == 0)
        #expect(try assignment(connection) == pops)
    }

    @Test("a slave takes over which groups pop, keeps it over a restart, and says what it could not use")
    func slaveTakesModes() throws {
        let folder = try TestFolder.make("assignment-slave")
        defer { try? FileManager.default.removeItem(at: folder) }
        func mode(_ topic: String, _ group: String, as mode: String = "POP") -> JSONValue {
            .fields([
                ("consumerGroup", .string(group)), ("mode", .string(mode)), ("popShareQueueNum", .integer(0)),
                ("topic", .string(topic)),
            ])
        }
        func answer(_ topics: [(String, JSONValue?)]) -> [UInt8] {
            JSONValue.fields([("messageRequestModeMap", .fields(topics))]).bytes()
        }
        let slaves = [("brokerRole", "SLAVE"), ("brokerId", "1")]
        let table = answer([("T", .fields([("G", mode("T", "G")), ("H", mode("T", "other"))]))])
        do {
            let log = LogLines()
            let slave = try BrokerHarness(slaves, folder: folder, log: log)
            let connection = try slave.connect()
            let former = answer([("Old", .fields([("G", mode("Old", "G"))]))])
            try slave.onLoop { broker in
                broker.replicate(.messageRequestMode, former)
                broker.replicate(.messageRequestMode, table)
            }
            let taken = try connection.invoke(.getAllMessageRequestMode)
            #expect(taken.body == answer([("T", .fields([("G", mode("T", "G"))]))]))
            #expect(log.lines.contains { $0.contains("T H") && $0.contains("calls itself T of other") }, "\(log.lines)")
            try slave.drain()
        }
        let slave = try BrokerHarness(slaves, folder: folder)
        defer { try? slave.drain() }
        let kept = try slave.connect().invoke(.getAllMessageRequestMode)
        #expect(kept.body == answer([("T", .fields([("G", mode("T", "G"))]))]))
    }

    @Test("a route with more queues than the broker divides is not built out")
    func hugeRoute() {
        func data(_ broker: String, _ queues: Int32, perm: Int32 = 6) -> QueueData {
            QueueData(brokerName: broker, readQueueNums: queues, writeQueueNums: queues, perm: perm)
        }
        func queues(_ datas: [QueueData]) -> KnownRoutes.Queues {
            NameserverRegistration.queues(of: "T", in: TopicRouteData(queueDatas: datas), besides: "own")
        }
        let max = KnownRoutes.dividedMax
        #expect(queues((0..<20_000).map { data("b\($0)", .max) }) == .tooMany)
        #expect(queues([data("a", 1), data("b", Int32(max))]) == .tooMany)
        #expect(queues([data("a", 1), data("b", Int32(max) - 1)]).count == max)
        let few = queues([data("own", 4), data("a", 2), data("b", -1), data("c", .min), data("d", 3, perm: 2)])
        #expect(few == .all((0..<2).map { MessageQueue(topic: "T", brokerName: "a", queueID: $0) }))
    }

    @Test("those who wait for one route are answered in slices; one connection does not wait for more than it may get")
    func waiters() throws {
        let nameServer = try NameServerDouble()
        let harness = try BrokerHarness([("namesrvAddr", "127.0.0.1:\(nameServer.port)")])
        let connection = try harness.connect()
        _ = try connection.send(topic: "T")
        try eventually { nameServer.requests.contains { $0.requestCode == .registerBroker } }
        func route(_ queues: Int32) -> TopicRouteData {
            TopicRouteData(
                queueDatas: ["b", "c"].map {
                    QueueData(brokerName: $0, readQueueNums: queues, writeQueueNums: queues, perm: 6)
                })
        }
        try nameServer.answer(route(4000), holding: true)
        let counts = Mutex((waits: 0, own: 0, all: 0))
        let waiters = KnownRoutes.waitersMax + 44
        let before = try harness.onLoop { broker in
            for _ in 0..<waiters {
                broker.registration.readableQueues(of: "T") { queues in
                    counts.withLock { if queues.count > 8000 { $0.all += 1 } else { $0.own += 1 } }
                }
            }
            return broker.slices.slices
        }
        #expect(counts.withLock { $0.own } == 44)
        try nameServer.answer(route(4000))
        try eventually { counts.withLock { $0.all } == KnownRoutes.waitersMax }
        #expect(try harness.onLoop { $0.slices.slices } - before >= KnownRoutes.waitersMax - 1)
        // Another topic, asked by one connection.
        _ = try connection.send(topic: "U")
        try nameServer.answer(route(2), holding: true)
        let body = JSONValue.fields([
            ("clientId", .string("c1")), ("consumerGroup", .string("G")), ("messageModel", .string("CLUSTERING")),
            ("strategyName", .string("AVG")), ("topic", .string("U")),
        ]).bytes()
        for _ in 0..<40 { try connection.post(.queryAssignment, body: body) }
        let max = QueryAssignmentProcessor.waitingMax
        try eventually { try harness.onLoop { $0.registration.routes.waiting(for: "U") } == max }
        // Another connection is served meanwhile.
        #expect(try harness.connect().send(topic: "V").code == 0)
        #expect(try harness.onLoop { $0.registration.routes.waiting(for: "U") } == max)
        try nameServer.answer(route(2))
        for _ in 0..<40 { #expect(try connection.receive().code == 0) }
        #expect(try connection.send(topic: "U").code == 0)
        try harness.end()
        try nameServer.end()
    }

    @Test("routes are kept for so many queues, and one of too many costs nothing")
    func keptRoutes() {
        var routes = KnownRoutes()
        let queues = (0..<8000).map { MessageQueue(topic: "T", brokerName: "a", queueID: $0) }
        for number in 0..<100 {
            _ = routes.answered("T\(number)", .all(queues), steady: 0)
            #expect(routes.queueCount <= KnownRoutes.queuesMax)
            #expect(routes.queues(of: "T\(number)", steady: 1)?.count == 8000)
        }
        let before = routes.queueCount
        _ = routes.answered("T99", .all(queues), steady: 0)
        #expect(routes.queueCount == before)
        _ = routes.answered("T99", .tooMany, steady: 0)
        #expect(routes.queueCount == before - 8000 && routes.queues(of: "T99", steady: 1) == .tooMany)
    }
}
