import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing
import WorkerProtocol

@testable import BrokerService

/// Clients of one group that subscribe to different things: told once, and each served what it asks for.
@Suite("a consumer group whose clients disagree")
struct SubscriptionConflictTests {
    private func heartbeat(
        _ connection: RawConnection, _ clientID: String, _ subscriptions: [(topic: String, expression: String)],
        version: Int64 = 1, model: String = "CLUSTERING", group: String = "G"
    ) throws {
        var data = ConsumerData(
            groupName: group,
            subscriptionDataSet: subscriptions.map {
                SubscriptionData(topic: $0.topic, subString: $0.expression, subVersion: version)
            } + [SubscriptionData(topic: "%RETRY%\(group)", subVersion: version)])
        data.messageModel = model
        let answer = try connection.invoke(
            .heartBeat,
            body: HeartbeatData(clientID: clientID, producerGroups: [], consumerDataSet: [data]).encoded())
        #expect(answer.code == 0)
    }

    @Test("an expression above 64 KiB is refused to reads, with the remedy; the client's other groups are served")
    func longExpression() throws {
        let harness = try BrokerHarness([("enablePropertyFilter", "true")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try sends(connection, "T")
        let long = String(repeating: "x", count: 64 << 10 | 1)
        let data = [long, "*"].enumerated().map { number, expression in
            ConsumerData(
                groupName: "G\(number)",
                subscriptionDataSet: [SubscriptionData(topic: "T", subString: expression, subVersion: 1)])
        }
        let heartbeat = try connection.invoke(
            .heartBeat, body: HeartbeatData(clientID: "c", producerGroups: [], consumerDataSet: data).encoded())
        #expect(heartbeat.code == 0)
        for group in ["G0", "G1"] {
            var fields = RawConnection.pullFields(topic: "T")
            fields["sysFlag"] = "0"
            fields["subVersion"] = "1"
            fields["consumerGroup"] = group
            let answer = try connection.invoke(.pullMessage, fields)
            guard group == "G0" else {
                #expect(answer.code == 0)
                continue
            }
            #expect(answer.code == ResponseCode.subscriptionParseFailed.rawValue)
            #expect(answer.remark?.contains("at most 65536: shorten it") == true)
        }
        try harness.onLoop { broker in
            let kept = broker.tables.consumers["G0"]?.clients.first?.subscriptions.first
            #expect(kept?.data.subString.utf8.count ?? .max < 64 && kept?.data.tagsSet.isEmpty == true)
        }
        for type in ["TAG", "SQL92"] {
            let fields = RawConnection.pullFields(topic: "T", subscription: long, type: type)
            let answer = try connection.invoke(.pullMessage, fields)
            #expect(answer.code == ResponseCode.subscriptionParseFailed.rawValue)
            #expect(answer.remark?.contains("at most 65536: shorten it") == true)
            #expect(answer.remark?.utf8.count ?? .max < 1000)
        }
    }

    /// A pull as the official push consumer makes it: without its expression, which the broker knows from heartbeats.
    private func pull(
        _ connection: RawConnection, _ topic: String, from offset: Int64 = 0, version: Int64 = 1
    ) throws -> (answer: RemotingCommand, bodies: [String]) {
        var fields = RawConnection.pullFields(topic: topic, offset: offset)
        fields["sysFlag"] = "0"
        fields["subVersion"] = String(version)
        let answer = try connection.invoke(.pullMessage, fields)
        return (answer, answer.code == 0 ? Consumed.all(answer.body).map(\.body) : [])
    }

    private func sends(_ connection: RawConnection, _ topic: String) throws {
        for number in 0..<3 {
            for tag in ["A", "B"] {
                _ = try connection.send(topic: topic, body: "\(tag)\(number)", properties: "TAGS\u{1}\(tag)")
            }
        }
    }

    /// As rocketmq-client-cpp 2.0 (PyPI `rocketmq` 0.4.4) writes it: enums are numbers, the version is text, and the
    /// codes of tags are the tags read as numbers, 0 for a word (findings/cpp-client-heartbeat-numbers.sh).
    @Test("a heartbeat of the C++ client, whose codes of tags are none: its tags count")
    func heartbeatOfTheCPlusPlusClient() throws {
        let harness = try BrokerHarness { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        try sends(connection, "T")
        let beat = #"""
            {"clientID":"c@1","consumerDataSet":[{"consumeFromWhere":0,"consumeType":1,"groupName":"G","messageModel":1,\#
            "subscriptionDataSet":[{"codeSet":[0],"subString":"B","subVersion":"7","tagsSet":["B"],"topic":"T"}]}]}
            """#
        #expect(try connection.invoke(.heartBeat, body: Array(beat.utf8)).code == 0)
        #expect(try pull(connection, "T", version: 7).bodies == ["B0", "B1", "B2"])
        #expect(try harness.onLoop { $0.consumers["G"]?.messageModel } == "CLUSTERING")
        #expect(try harness.onLoop { $0.consumers["G"]?.consumeType } == "CONSUME_PASSIVELY")
    }

    @Test("different tags: each client gets its own, heartbeats change nothing, one line names both sides")
    func differentTags() throws {
        let log = LogLines()
        let harness = try BrokerHarness(log: log) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let (first, second) = (try harness.connect(), try harness.connect())
        try sends(first, "T")
        for round in 0..<3 {
            try heartbeat(first, "client-a", [("T", "A")], version: 1)
            try heartbeat(second, "client-b", [("T", "B")], version: 2)
            #expect(try pull(first, "T").bodies == ["A0", "A1", "A2"], "round \(round)")
            #expect(try pull(second, "T", version: 2).bodies == ["B0", "B1", "B2"], "round \(round)")
        }
        // A client whose newest word has not arrived is told to wait for it, as with RocketMQ.
        #expect(
            try pull(first, "T", version: 2).answer.code == ResponseCode.subscriptionNotLatest.rawValue)
        let told = log.lines.filter { $0.contains("is inconsistent") }
        #expect(told.count == 1, "\(told)")
        let line = try #require(told.first)
        for part in ["group G", "client-a", "client-b", "topic T", "tags \"A\"", "tags \"B\"", "127.0.0.1:"] {
            #expect(line.contains(part), "\(part) in \(line)")
        }
        // What a queue's own client does not want and the other does is counted and said, not skipped in silence.
        let passed = log.lines.filter { $0.contains("has skipped") }
        #expect(passed.count == 1, "\(passed)")
        #expect(passed.first?.contains("skipped 3 messages of topic T") == true, "\(passed)")
        let runtime = try first.invoke(.getBrokerRuntimeInfo).json()["table"]
        #expect(runtime?["inconsistentGroup_G"]?.string == "skipped 18 messages another client may want")
    }

    @Test("when they agree again all is as usual; a new disagreement is told again")
    func agreeingAgain() throws {
        let log = LogLines()
        let harness = try BrokerHarness(log: log) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let (first, second, third) = (try harness.connect(), try harness.connect(), try harness.connect())
        try sends(first, "T")
        func told() -> Int { log.lines.filter { $0.contains("is inconsistent") }.count }
        try heartbeat(first, "a", [("T", "A")], version: 1)
        try heartbeat(third, "c", [("T", "A")], version: 3)
        #expect(told() == 0)
        try heartbeat(second, "b", [("T", "B")], version: 2)
        #expect(told() == 1)
        // The other way round it is the same disagreement.
        try heartbeat(third, "c", [("T", "A")], version: 4)
        #expect(told() == 1)
        try heartbeat(second, "b", [("T", "A")], version: 5)
        #expect(try pull(second, "T", version: 5).bodies == ["A0", "A1", "A2"])
        #expect(try first.invoke(.getBrokerRuntimeInfo).json()["table"]?["inconsistentGroup_G"] == nil)
        try heartbeat(second, "b", [("T", "B")], version: 6)
        #expect(told() == 2)
        // It leaves: what is left agrees.
        second.close()
        try eventually { try pull(first, "T", version: 1).bodies == ["A0", "A1", "A2"] }
        let connections = try first.invoke(.getConsumerConnectionList, ["consumerGroup": "G"]).json()
        #expect(connections["connectionSet"]?.array?.count == 2)
        #expect(connections["subscriptionTable"]?["T"]?["subString"] == "A")
    }

    @Test("different topics: no client's subscription is taken away, and heartbeats cause no rebalance")
    func differentTopics() throws {
        let log = LogLines()
        let harness = try BrokerHarness(log: log)
        defer { try? harness.end() }
        let (first, second) = (try harness.connect(), try harness.connect())
        try sends(first, "T1")
        try sends(first, "T2")
        try heartbeat(first, "a", [("T1", "*")])
        try heartbeat(second, "b", [("T2", "*")])
        // Told of both joins, of the second a moment later.
        _ = try first.request(.notifyConsumerIDsChanged)
        while first.gets(.notifyConsumerIDsChanged, within: 200) {}
        for _ in 0..<3 {
            try heartbeat(first, "a", [("T1", "*")])
            try heartbeat(second, "b", [("T2", "*")])
            #expect(try pull(first, "T1").bodies.count == 6)
            #expect(try pull(second, "T2").bodies.count == 6)
        }
        #expect(!first.gets(.notifyConsumerIDsChanged, within: 200))
        // What it never asked for it does not get.
        #expect(try pull(first, "T2").answer.code == ResponseCode.subscriptionNotExist.rawValue)
        let table = try first.invoke(.getConsumerConnectionList, ["consumerGroup": "G"]).json()["subscriptionTable"]
        #expect(Set(table?.object?.members.map(\.key) ?? []) == ["T1", "T2", "%RETRY%G"])
        #expect(log.lines.filter { $0.contains("is inconsistent") && $0.contains("nothing of it") }.count == 1)
    }

    @Test("clustering and broadcasting in one group are told too")
    func differentModels() throws {
        let log = LogLines()
        let harness = try BrokerHarness(log: log)
        defer { try? harness.end() }
        let (first, second) = (try harness.connect(), try harness.connect())
        try heartbeat(first, "a", [("T", "*")])
        try heartbeat(second, "b", [("T", "*")], model: "BROADCASTING")
        let line = try #require(log.lines.first { $0.contains("is inconsistent") })
        #expect(line.contains("a at") && line.contains("CLUSTERING") && line.contains("BROADCASTING"))
    }

    @Test("of very many expressions some are told apart; each client gets its own, and they may agree again")
    func manyExpressions() throws {
        let harness = try BrokerHarness { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let count = ConsumerGroup.expressionsMax + 6
        let clients = try (0..<count).map { _ in try harness.connect() }
        for number in 0..<count {
            _ = try clients[0].send(topic: "T", body: "m\(number)", properties: "TAGS\u{1}t\(number)")
        }
        func beat(_ tag: (Int) -> String, version: Int64) throws {
            for (number, client) in clients.enumerated() {
                try heartbeat(client, "c\(number)", [("T", tag(number))], version: version + Int64(number))
            }
        }
        func others(than clientID: String) throws -> Int? {
            try harness.onLoop { broker in
                guard let group = broker.consumers["G"], let client = group.client(clientID)?.client else { return nil }
                return group.others(than: client, topic: "T").count
            }
        }
        try beat({ "t\($0)" }, version: 1)
        for number in 0..<count {
            #expect(try pull(clients[number], "T", version: Int64(number + 1)).bodies == ["m\(number)"])
        }
        #expect(try others(than: "c0") == ConsumerGroup.expressionsMax - 1)
        #expect(try others(than: "c\(count - 1)") == ConsumerGroup.expressionsMax)
        // The newest one is shown, and the one before it when that leaves.
        func shown() throws -> String? {
            try harness.onLoop { $0.consumers["G"]?.subscriptions["T"]?.data.subString }
        }
        #expect(try shown() == "t\(count - 1)")
        try beat({ _ in "t1" }, version: 1000)
        // Those that were beyond have been told apart since the others' places are free.
        #expect(try harness.onLoop { $0.consumers["G"]?.isConsistent } == true)
        #expect(try shown() == "t1")
        try beat({ "t\($0)" }, version: 2000)
        for client in clients.dropLast() { client.close() }
        try eventually { try harness.onLoop { $0.consumers["G"]?.clients.count } == 1 }
        // The last one wants the topic, told apart or not.
        #expect(try shown() != nil)
        let last = clients[count - 1]
        try heartbeat(last, "c\(count - 1)", [("T", "t\(count - 1)")], version: 3000)
        #expect(try harness.onLoop { $0.consumers["G"]?.isConsistent } == true)
        #expect(try shown() == "t\(count - 1)")
        last.close()
        try eventually { try harness.onLoop { $0.consumers["G"] == nil } }
    }

    @Test("an expression that looks at properties beside a tag: each by its own, over the filter worker")
    func tagAndProgram() throws {
        let harness = try BrokerHarness { broker in
            broker.filters.connect { [unowned filters = broker.filters] message in
                switch message {
                case .filterCompile(let request, "TAG", let expression):
                    filters.receive(
                        .filterCompiled(request: request, result: .tagsCodes([Int64(expression.utf8.first ?? 0)])))
                case .filterCompile(let request, _, _):
                    filters.receive(.filterCompiled(request: request, result: .program(1)))
                case .filterBatch(let request, _, let entries):
                    // The last entry of those looked at.
                    let count = entries.count / WorkerMessage.filterEntryBytes
                    var bitmap = [UInt8](repeating: 0, count: (count + 7) / 8)
                    bitmap[(count - 1) / 8] |= 1 << UInt8((count - 1) % 8)
                    filters.receive(.filterMatched(request: request, bitmap: bitmap))
                default: break
                }
            }
        }
        defer { try? harness.end() }
        let (first, second) = (try harness.connect(), try harness.connect())
        try sends(first, "T")
        try heartbeat(first, "a", [("T", "A")])
        let sql = SubscriptionData(topic: "T", subString: "x > 1", subVersion: 1, expressionType: "SQL92")
        _ = try second.invoke(
            .heartBeat,
            body: HeartbeatData(
                clientID: "b", producerGroups: [],
                consumerDataSet: [ConsumerData(groupName: "G", subscriptionDataSet: [sql])]
            ).encoded())
        for _ in 0..<2 {
            #expect(try pull(first, "T").bodies == ["A0", "A1", "A2"])
            #expect(try pull(second, "T").bodies == ["B2"])
            try heartbeat(first, "a", [("T", "A")])
        }
    }
}
