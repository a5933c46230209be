import BrokerService
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

/// Which name servers hear of the broker, and when.
@Suite("the broker at its name servers") struct NameserverRegistrationTests {
    private func change(_ connection: RawConnection, _ text: String) throws -> RemotingCommand {
        try connection.invoke(.updateBrokerConfig, body: Array((text + "\n").utf8))
    }

    @Test("the broker registers at once, again when topics change, and takes itself off")
    func registration() throws {
        let nameServer = try NameServerDouble()
        let harness = try BrokerHarness([("namesrvAddr", "127.0.0.1:\(nameServer.port)")])
        try eventually { nameServer.requests.contains { $0.requestCode == .registerBroker } }
        let first = try #require(nameServer.requests.first)
        #expect(first.extFields["brokerName"] == "broker-a")
        #expect(first.extFields["brokerAddr"] == "127.0.0.2:31911")
        #expect(first.extFields["haServerAddr"] == "127.0.0.2:31912")
        #expect(
            first.extFields["bodyCrc32"] == String(first.body.withUnsafeBytes { CommitLogRecord.bodyCRC($0) }))
        let connection = try harness.connect()
        _ = try connection.send(topic: "Announced")
        try eventually {
            nameServer.requests.contains { request in
                (try? RegisterBrokerBody(body: request.body))?.topicConfigSerializeWrapper.topicConfigTable
                    .contains { $0.topicName == "Announced" } == true
            }
        }
        // A client that made a topic finds it announced when the answer is there.
        let topic = [
            "topic": "ByTool", "defaultTopic": "TBW102", "readQueueNums": "2", "writeQueueNums": "2", "perm": "6",
            "topicFilterType": "SINGLE_TAG", "order": "false",
        ]
        #expect(try connection.invoke(.updateAndCreateTopic, topic).code == 0)
        let last = try RegisterBrokerBody(body: nameServer.requests.last?.body ?? [])
        #expect(last.topicConfigSerializeWrapper.topicConfigTable.contains { $0.topicName == "ByTool" })
        try harness.end()
        #expect(nameServer.requests.last?.requestCode == .unregisterBroker)
        try nameServer.end()
    }

    @Test("namesrvAddr changed, also over a restart: new name servers are told of the broker, left ones that it left")
    func nameServers() throws {
        let (first, second) = (try NameServerDouble(), try NameServerDouble())
        func registered(_ server: NameServerDouble) -> Int {
            server.requests.count { $0.requestCode == .registerBroker }
        }
        let file = [("namesrvAddr", "127.0.0.1:\(first.port)")]
        let harness = try BrokerHarness(file)
        let connection = try harness.connect()
        try eventually { registered(first) > 0 }
        // By name, too.
        #expect(try change(connection, "namesrvAddr=localhost:\(second.port)").code == 0)
        try eventually { registered(second) > 0 && first.requests.last?.requestCode == .unregisterBroker }
        let count = first.requests.count
        _ = try connection.send(topic: "OnlyThere")
        try eventually { registered(second) > 1 }
        #expect(first.requests.count == count)
        try harness.drain()
        #expect(second.requests.last?.requestCode == .unregisterBroker && first.requests.count == count)

        let before = registered(second)
        let next = try BrokerHarness(file, folder: harness.folder)
        try eventually { registered(second) > before }
        // Both, one of them known already.
        let both = "namesrvAddr=127.0.0.1:\(first.port);localhost:\(second.port)"
        #expect(try change(try next.connect(), both).code == 0)
        try eventually { registered(first) > 1 }
        #expect(!second.requests.suffix(1).contains { $0.requestCode == .unregisterBroker })
        try next.end()
        try first.end()
        try second.end()
    }

    @Test("the platform's own name server is never left")
    func ownNameServer() throws {
        let (own, other) = (try NameServerDouble(), try NameServerDouble())
        let harness = try BrokerHarness([
            ("namesrvAddr", "127.0.0.1:\(own.port)"), ("ownNamesrvAddr", "127.0.0.1:\(own.port)"),
        ])
        #expect(try change(try harness.connect(), "namesrvAddr=127.0.0.1:\(other.port)").code == 0)
        try eventually { other.requests.contains { $0.requestCode == .registerBroker } }
        #expect(!own.requests.contains { $0.requestCode == .unregisterBroker })
        try harness.end()
        try own.end()
        try other.end()
    }
}
