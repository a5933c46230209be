import Foundation
import NIOCore
import RemotingProtocol
import RemotingTransport
import RouteRegistry
import Testing

/// No client meets a moment without a route because a broker or the name server is restarted.
@Suite("routes over restarts", .timeLimit(.minutes(2)))
struct RouteGapTests {
    private static let topics = [TopicConfig(topicName: "T")]
    private static let unregister = RemotingCommand(
        .unregisterBroker,
        extFields: ["brokerName": "a", "brokerAddr": "a:10911", "clusterName": "C", "brokerId": "0"])

    @Test("a broker that comes back by another connection within its grace was never away, whatever closes later")
    func comesBack() async throws {
        let server = try await RunningNameServer()
        let client = try await server.connect()
        let former = try await server.connect()
        _ = try await former.invokeSuccessfully(NameServerTests.register("a", topics: Self.topics))
        await former.close()
        try await server.settle()
        #expect(try await client.invoke(NameServerTests.route("T")).code == 0)
        let next = try await server.connect()
        // The same version of its topics: nothing to be sent, all the same it is here.
        let asked = try await next.invokeSuccessfully(
            RemotingCommand(
                .queryDataVersion,
                extFields: ["brokerName": "a", "brokerAddr": "a:10911", "clusterName": "C", "brokerId": "0"],
                body: DataVersion(timestamp: 9, counter: 1).encoded()))
        #expect(asked.extFields["changed"] == "false")
        try await server.advance(milliseconds: RouteTables.graceMilliseconds)
        #expect(try await client.invoke(NameServerTests.route("T")).code == 0)

        // The new connection first, then the end of the old one.
        let third = try await server.connect()
        _ = try await third.invokeSuccessfully(NameServerTests.register("a", topics: Self.topics))
        await next.close()
        try await server.advance(milliseconds: RouteTables.graceMilliseconds)
        #expect(try await client.invoke(NameServerTests.route("T")).code == 0)
        await third.close()
        await client.close()
        try await server.stop()
    }

    @Test("a broker that unregisters is gone at once")
    func unregisters() async throws {
        let server = try await RunningNameServer()
        let client = try await server.connect()
        let broker = try await server.connect()
        _ = try await broker.invokeSuccessfully(NameServerTests.register("a", topics: Self.topics))
        _ = try await broker.invokeSuccessfully(Self.unregister)
        #expect(try await client.invoke(NameServerTests.route("T")).code == 17)
        await broker.close()
        await client.close()
        try await server.stop()
    }

    @Test("after a start a question waits for the brokers known before, and is answered by the registration")
    func heldUntilRegistered() async throws {
        let storage = MemoryStorage()
        storage.brokers = ["a/0", "b/0"]
        let server = try await RunningNameServer(storage: storage)
        let (client, broker, other) = (
            try await server.connect(), try await server.connect(), try await server.connect()
        )
        // Asked on one connection in this order: what is not held is answered first.
        async let route = client.invoke(NameServerTests.route("T"))
        async let unknown = client.invoke(NameServerTests.route("Nowhere"))
        async let cluster = client.invoke(RemotingCommand(.getBrokerClusterInfo))
        #expect(try await client.invoke(RemotingCommand(.getAllTopicListFromNameServer)).code == 0)
        _ = try await broker.invokeSuccessfully(NameServerTests.register("a", topics: Self.topics))
        #expect(storage.brokers == ["a/0", "b/0"], "b is still worth waiting for")
        _ = try await other.invokeSuccessfully(NameServerTests.register("b", topics: Self.topics))
        let both = try TopicRouteData(body: try await route.body)
        #expect(both.brokerDatas.map(\.brokerName) == ["a", "b"], "not half of the route")
        #expect(try await unknown.code == 17)
        let answer = try await cluster
        #expect(try ClusterInfo(body: answer.body).brokerAddrTable.keys.sorted() == ["a", "b"])
        #expect(try await client.invoke(NameServerTests.route("Nowhere")).code == 17, "nothing is held any more")
        _ = try await broker.invokeSuccessfully(Self.unregister)
        #expect(storage.brokers == ["b/0"])
        for connection in [client, broker, other] { await connection.close() }
        try await server.stop()
    }

    @Test("who does not come back is not waited for any longer, nor by the next start")
    func heldNoLonger() async throws {
        let storage = MemoryStorage()
        storage.brokers = ["gone/0"]
        let server = try await RunningNameServer(storage: storage)
        let client = try await server.connect()
        async let route = client.invoke(NameServerTests.route("T"))
        _ = try await client.invoke(RemotingCommand(.getAllTopicListFromNameServer))
        try await server.endStartHold()
        #expect(try await route.code == 17)
        #expect(storage.brokers == [])
        await client.close()
        try await server.stop()
    }

    @Test("a broker that comes back without a topic has it no more, and with its own permissions")
    func anotherLife() {
        var tables = RouteTables()
        func broker(_ topics: [TopicConfig]) -> BrokerRegistration {
            BrokerRegistration(
                clusterName: "C", brokerAddr: "a:1", brokerName: "a", brokerID: 0, haServerAddr: "",
                topics: TopicConfigSerializeWrapper(
                    topicConfigTable: topics, dataVersion: DataVersion(timestamp: 5, counter: 1)))
        }
        _ = tables.register(broker([TopicConfig(topicName: "T"), TopicConfig(topicName: "U")]), connection: 1, now: 0)
        _ = tables.wipeWritePermission(of: "a")
        let closed1 = tables.connectionClosed(1, now: 0)
        #expect(closed1)
        let closed2 = tables.connectionClosed(1, now: 5)
        #expect(!closed2)
        _ = tables.register(broker([TopicConfig(topicName: "T")]), connection: 2, now: 10)
        #expect(tables.topics == ["T"])
        #expect(tables.route(of: "T")?.queueDatas.first?.perm == 6)
        let expired3 = tables.expire(now: RouteTables.graceMilliseconds + 10)
        #expect(expired3.isEmpty && tables.brokerCount == 1)
    }
}
