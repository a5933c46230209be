import RemotingProtocol
import RouteRegistry
import Testing

@Suite("the name server's tables")
struct RouteTablesTests {
    static func broker(
        _ name: String, id: Int64 = 0, addr: String, cluster: String = "C", topics: [TopicConfig] = [],
        version: Int64 = 1
    ) -> BrokerRegistration {
        BrokerRegistration(
            clusterName: cluster, brokerAddr: addr, brokerName: name, brokerID: id, haServerAddr: addr + "-ha",
            topics: TopicConfigSerializeWrapper(
                topicConfigTable: topics, dataVersion: DataVersion(timestamp: 5, counter: version)))
    }

    static let topic = TopicConfig(topicName: "T", readQueueNums: 4, writeQueueNums: 4)

    @Test("a topic is found on all brokers that have it, ordered by name")
    func route() throws {
        var tables = RouteTables()
        #expect(tables.route(of: "T") == nil)
        _ = tables.register(Self.broker("b", addr: "b:1", topics: [Self.topic]), connection: 1, now: 0)
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [Self.topic]), connection: 2, now: 0)
        let route = try #require(tables.route(of: "T"))
        #expect(route.brokerDatas.map { $0.brokerName } == ["a", "b"])
        #expect(route.queueDatas.map { $0.brokerName } == ["a", "b"])
        #expect(route.brokerDatas[0].brokerAddrs == [0: "a:1"])
        #expect(tables.clusterInfo.clusterAddrTable == ["C": ["a", "b"]])
    }

    @Test("a slave learns its master, registers no topics, and keeps the route when the master goes")
    func slave() throws {
        var tables = RouteTables()
        #expect(tables.register(Self.broker("a", id: 1, addr: "a:2"), connection: 2, now: 0) == nil)
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [Self.topic]), connection: 1, now: 0)
        let other = TopicConfig(topicName: "OnlySlave")
        let master = tables.register(
            Self.broker("a", id: 1, addr: "a:2", topics: [other], version: 2), connection: 2, now: 0)
        #expect(master?.masterAddr == "a:1")
        #expect(master?.haServerAddr == "a:1-ha")
        #expect(tables.route(of: "OnlySlave") == nil)
        let closed1 = tables.connectionClosed(1, now: 0)
        #expect(closed1)
        let expired5 = tables.expire(now: RouteTables.graceMilliseconds - 1)
        #expect(expired5.isEmpty)
        #expect(tables.route(of: "T")?.brokerDatas.first?.brokerAddrs.count == 2)
        let expired6 = tables.expire(now: RouteTables.graceMilliseconds)
        #expect(expired6.isEmpty)
        #expect(tables.route(of: "T")?.brokerDatas.first?.brokerAddrs == [1: "a:2"])
        let closed2 = tables.connectionClosed(2, now: 0)
        #expect(closed2)
        let expired7 = tables.expire(now: RouteTables.graceMilliseconds)
        #expect(expired7.isEmpty)
        #expect(tables.route(of: "T") == nil)
        #expect(tables.topics == [])
        #expect(tables.clusterInfo == ClusterInfo())
    }

    @Test("a slave that becomes master has one id only")
    func promotion() {
        var tables = RouteTables()
        _ = tables.register(Self.broker("a", id: 1, addr: "a:2"), connection: 2, now: 0)
        _ = tables.register(Self.broker("a", id: 0, addr: "a:2", topics: [Self.topic]), connection: 2, now: 0)
        #expect(tables.brokerData("a")?.brokerAddrs == [0: "a:2"])
    }

    @Test("topics are taken over only when the version changed")
    func versions() throws {
        var tables = RouteTables()
        var topic = Self.topic
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [topic]), connection: 1, now: 0)
        #expect(!tables.hasChanged("a:1", dataVersion: DataVersion(timestamp: 5, counter: 1)))
        #expect(tables.hasChanged("a:1", dataVersion: DataVersion(timestamp: 5, counter: 2)))
        #expect(tables.hasChanged("x:1", dataVersion: DataVersion(timestamp: 5, counter: 1)))
        topic.perm = 4
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [topic]), connection: 1, now: 0)
        #expect(tables.route(of: "T")?.queueDatas.first?.perm == 6)
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [topic], version: 2), connection: 1, now: 0)
        #expect(tables.route(of: "T")?.queueDatas.first?.perm == 4)
        // A registration that names one topic leaves the others.
        _ = tables.register(
            Self.broker("a", addr: "a:1", topics: [TopicConfig(topicName: "U")], version: 3), connection: 1, now: 0)
        #expect(tables.topics == ["T", "U"])
    }

    @Test("a broker expires 120 s after its last registration or question about its version")
    func expiry() {
        var tables = RouteTables()
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [Self.topic]), connection: 7, now: 1000)
        #expect(tables.expire(now: 121_000).isEmpty)
        tables.touch("a:1", connection: 7, now: 50_000)
        #expect(tables.expire(now: 170_000).isEmpty)
        #expect(tables.expire(now: 170_001) == [7])
        #expect(tables.route(of: "T") == nil)
        #expect(tables.brokerCount == 0)
        _ = tables.register(Self.broker("b", addr: "b:1"), connection: 8, now: 0, expiresAfter: 1000)
        #expect(tables.expire(now: 1001) == [8])
    }

    @Test("a connection that closes takes its brokers with it after their grace, unless they came back by another")
    func connections() {
        var tables = RouteTables()
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [Self.topic]), connection: 1, now: 0)
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [Self.topic]), connection: 2, now: 1)
        let closed3 = tables.connectionClosed(1, now: 1)
        #expect(!closed3)
        let expired8 = tables.expire(now: RouteTables.graceMilliseconds + 1)
        #expect(expired8.isEmpty)
        #expect(tables.route(of: "T") != nil)
        let closed4 = tables.connectionClosed(2, now: 1)
        #expect(closed4)
        let expired9 = tables.expire(now: RouteTables.graceMilliseconds + 1)
        #expect(expired9.isEmpty)
        #expect(tables.route(of: "T") == nil)
        #expect(
            tables.takeEvents().contains(
                .brokerRemoved(address: "a:1", name: "a", reason: .connectionClosed)))
    }

    @Test("unregistering removes name, cluster and topics with the last address")
    func unregister() {
        var tables = RouteTables()
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [Self.topic]), connection: 1, now: 0)
        _ = tables.register(Self.broker("a", id: 1, addr: "a:2"), connection: 2, now: 0)
        tables.unregister(clusterName: "C", brokerAddr: "a:1", brokerName: "a", brokerID: 0)
        #expect(tables.route(of: "T")?.brokerDatas.first?.brokerAddrs == [1: "a:2"])
        tables.unregister(clusterName: "C", brokerAddr: "a:2", brokerName: "a", brokerID: 1)
        #expect(tables.clusterInfo == ClusterInfo())
        #expect(tables.topicCount == 0)
        tables.unregister(clusterName: "C", brokerAddr: "never", brokerName: "seen", brokerID: 0)
    }

    @Test("names, brokers, addresses and clusters have bounds, and who is known may come again")
    func bounds() {
        var tables = RouteTables()
        let long = String(repeating: "x", count: RouteTables.nameBytesMax + 1)
        for broker in [
            Self.broker(long, addr: "a:1"), Self.broker("a", addr: long), Self.broker("a", addr: "a:1", cluster: long),
        ] {
            #expect(tables.refusal(of: broker)?.contains("256") == true || broker.haServerAddr.utf8.count > 256)
            #expect(tables.refusal(of: broker) != nil)
        }
        #expect(tables.refusal(of: Self.broker(String(long.dropLast()), addr: "a:1")) == nil)
        for number in 0..<RouteTables.clustersMax {
            _ = tables.register(Self.broker("b\(number)", addr: "b:1", cluster: "C\(number)"), connection: 1, now: 0)
        }
        #expect(tables.refusal(of: Self.broker("b0", addr: "b:1", cluster: "more"))?.contains("1024 clusters") == true)
        for number in RouteTables.clustersMax..<RouteTables.brokersMax {
            _ = tables.register(Self.broker("b\(number)", addr: "b:1", cluster: "C1"), connection: 1, now: 0)
        }
        #expect(tables.refusal(of: Self.broker("more", addr: "b:1", cluster: "C1"))?.contains("4096 brokers") == true)
        for id in 1...Int64(RouteTables.addressesMax - RouteTables.brokersMax) {
            _ = tables.register(Self.broker("b0", id: id, addr: "c:\(id)", cluster: "C1"), connection: 1, now: 0)
        }
        #expect(tables.refusal(of: Self.broker("b1", id: 7, addr: "d:1", cluster: "C1"))?.contains("8192") == true)
        #expect(tables.refusal(of: Self.broker("b1", addr: "new:1", cluster: "C1")) == nil)
    }

    @Test("topics of a broker have bounds; with a thousand it leaves in several turns, at once for who asks")
    func manyTopics() {
        var tables = RouteTables()
        var topics = (0..<RouteTables.topicsOfBrokerMax).map { TopicConfig(topicName: "t\($0)") }
        let long = TopicConfig(topicName: String(repeating: "x", count: RouteTables.topicBytesMax + 1))
        topics.insert(long, at: 0)
        topics.append(TopicConfig(topicName: "one more"))
        _ = tables.register(Self.broker("a", addr: "a:1", topics: topics), connection: 1, now: 0)
        #expect(tables.topicCount == RouteTables.topicsOfBrokerMax)
        #expect(tables.takeEvents().contains(.topicsRefused(broker: "a", count: 2)))
        // The same version again: there may be room now for what was refused.
        var broker = Self.broker("a", addr: "a:1", topics: topics)
        #expect(tables.hasChanged("a:1", dataVersion: broker.topics.dataVersion))
        #expect(tables.wipeWritePermission(of: "a") == RouteTables.topicsOfBrokerMax)
        tables.delete(topic: "t9")
        broker.topics.topicConfigTable.removeAll { ["t9", long.topicName].contains($0.topicName) }
        _ = tables.register(broker, connection: 1, now: 0)
        #expect(!tables.hasChanged("a:1", dataVersion: broker.topics.dataVersion))
        #expect(tables.route(of: "t5")?.queueDatas.first?.perm == 4)
        #expect(tables.route(of: "one more") != nil && tables.topicCount == RouteTables.topicsOfBrokerMax)
        _ = tables.register(Self.broker("b", addr: "b:1", topics: [topics[1]]), connection: 2, now: 0)
        tables.unregister(clusterName: "C", brokerAddr: "a:1", brokerName: "a", brokerID: 0)
        #expect(tables.isForgetting && tables.topicCount == RouteTables.topicsOfBrokerMax)
        #expect(tables.route(of: "t5") == nil)
        #expect(tables.route(of: "t0")?.queueDatas.map(\.brokerName) == ["b"])
        tables.forgetSome()
        #expect(tables.topicCount >= RouteTables.topicsOfBrokerMax - RouteTables.forgottenAtOnce)
        // It is back before all are forgotten, with two of them.
        _ = tables.register(
            Self.broker("a", addr: "a:1", topics: [topics[2], topics[3]], version: 2), connection: 3, now: 0)
        #expect(!tables.isForgetting)
        #expect(Set(tables.topics) == ["t0", "t1", "t2"])
        tables.unregister(clusterName: "C", brokerAddr: "a:1", brokerName: "a", brokerID: 0)
        #expect(!tables.isForgetting && tables.topics == ["t0"])
    }

    @Test("write permission is wiped and given back, the inherit bit of TBW102 stays")
    func permissions() {
        var tables = RouteTables()
        let template = TopicConfig(topicName: "TBW102", perm: 7)
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [Self.topic, template]), connection: 1, now: 0)
        #expect(tables.wipeWritePermission(of: "a") == 2)
        #expect(tables.route(of: "T")?.queueDatas.first?.perm == 4)
        #expect(tables.route(of: "TBW102")?.queueDatas.first?.perm == 5)
        #expect(tables.addWritePermission(of: "a") == 2)
        #expect(tables.route(of: "T")?.queueDatas.first?.perm == 6)
        #expect(tables.route(of: "TBW102")?.queueDatas.first?.perm == 7)
        #expect(tables.wipeWritePermission(of: "nobody") == 0)
    }

    @Test("topics are deleted everywhere or in one cluster, listed by cluster and by flag")
    func topicLists() {
        var tables = RouteTables()
        let unit = TopicConfig(topicName: "Unit", topicSysFlag: 1)
        let sub = TopicConfig(topicName: "Sub", topicSysFlag: 2)
        _ = tables.register(Self.broker("a", addr: "a:1", topics: [Self.topic, unit, sub]), connection: 1, now: 0)
        _ = tables.register(Self.broker("b", addr: "b:1", cluster: "D", topics: [Self.topic]), connection: 1, now: 0)
        #expect(tables.topics(of: "C") == ["Sub", "T", "Unit"])
        #expect(tables.topics(of: "D") == ["T"])
        #expect(tables.topics(of: "none") == [])
        #expect(tables.topics { $0 & 1 != 0 } == ["Unit"])
        #expect(tables.systemTopics == TopicList(topicList: ["C", "a", "D", "b"], brokerAddr: "a:1"))
        tables.delete(topic: "T", in: "D")
        #expect(tables.route(of: "T")?.queueDatas.map { $0.brokerName } == ["a"])
        tables.delete(topic: "T", in: "C")
        #expect(tables.route(of: "T") == nil)
        tables.delete(topic: "Unit")
        #expect(tables.topics == ["Sub"])
        tables.register(
            topic: "New",
            queues: [
                QueueData(brokerName: "a", readQueueNums: 1, writeQueueNums: 1, perm: 6),
                QueueData(brokerName: "unknown", readQueueNums: 1, writeQueueNums: 1, perm: 6),
            ])
        #expect(tables.route(of: "New")?.queueDatas.count == 1)
    }

    @Test("filter servers are named in the route of their broker")
    func filterServers() {
        var tables = RouteTables()
        var broker = Self.broker("a", addr: "a:1", topics: [Self.topic])
        broker.filterServers = ["f:1"]
        _ = tables.register(broker, connection: 1, now: 0)
        #expect(tables.route(of: "T")?.filterServerTable == ["a:1": ["f:1"]])
        broker.filterServers = []
        _ = tables.register(broker, connection: 1, now: 0)
        #expect(tables.route(of: "T")?.filterServerTable == [:])
    }
}

@Suite("a name server's settings")
struct NameServerConfigurationTests {
    @Test("keys that name files or the black list are never changed over the wire")
    func blackList() {
        var configuration = NameServerConfiguration(["kvConfigPath": "/x"])
        for key in ["kvConfigPath", "configStorePath", "rocketmqHome", "configBlackList"] {
            #expect(configuration.update(["orderMessageEnable": "true", key: "/tmp/evil"]) == .forbidden(key: key))
        }
        #expect(!configuration.orderMessageEnable)
        #expect(configuration.update(["orderMessageEnable": "True"]) == .changed(["orderMessageEnable": "true"]))
        #expect(configuration.orderMessageEnable)
        #expect(configuration.text.contains("orderMessageEnable=true\n"))
        #expect(!configuration.text.contains("unknown"))
    }

    @Test("what RocketMQ answers success to and does not do is refused in words, and nothing is changed")
    func refusals() {
        for (key, value, words) in [
            ("unknown", "1", "there is no setting unknown"),
            ("orderMessageEnabled", "true", "is orderMessageEnable meant?"),
            ("orderMessageEnable", "yes", "true or false"), ("productEnvName", "x", "no effect"),
            ("listenPort", "1", "read when the name server starts"),
            ("fileReservedTime", "1", "no setting of a name server"),
            ("serverWorkerThreads", "8", "has no effect in Apus"),
        ] {
            var configuration = NameServerConfiguration()
            guard
                case .refused(let text) = configuration.update(
                    ["orderMessageEnable": "true"].merging([key: value]) { $1 })
            else {
                Issue.record("\(key) was taken")
                continue
            }
            #expect(text.contains(words) && text.hasSuffix("nothing was changed"), "\(text)")
            #expect(!configuration.orderMessageEnable)
        }
    }
}

/// The tables against a model that looks at everything each time.
@Suite("the name server's tables keep which broker has what")
struct RouteTablesModelTests {
    @Test(
        "brokers come, change their topics, leave and come back: the routes are those of a plain list", arguments: 0..<6
    )
    func model(round: Int) {
        var random = Seeded(seed: UInt64(round) &* 7919 + 1)
        var tables = RouteTables()
        /// topic → brokers
        var model: [String: Set<String>] = [:]
        var registered: Set<String> = []
        var version: Int64 = 0
        func forget(_ broker: String) {
            for topic in model.keys { model[topic]?.remove(broker) }
            registered.remove(broker)
        }
        for step in 0..<600 {
            let broker = "b\(Int.random(in: 0..<5, using: &random))"
            let topic = "T\(Int.random(in: 0..<9, using: &random))"
            switch Int.random(in: 0..<8, using: &random) {
            case 0:
                tables.unregister(clusterName: "C", brokerAddr: broker + ":1", brokerName: broker, brokerID: 0)
                forget(broker)
            case 1:
                tables.delete(topic: topic)
                model[topic] = nil
            case 2:
                tables.delete(topic: topic, in: "C")
                if !registered.isEmpty { model[topic]?.subtract(registered) }
            case 3:
                let count = tables.wipeWritePermission(of: broker)
                #expect(count == model.values.filter { $0.contains(broker) }.count)
            case 4:
                // Its connection closes, and it is back as another life that has only what it names.
                guard registered.contains(broker) else { continue }
                _ = tables.connectionClosed(UInt64(broker.dropFirst()) ?? 0, now: 0)
                forget(broker)
                fallthrough
            default:
                version += 1
                let names = (0..<9).filter { _ in Bool.random(using: &random) }.map { "T\($0)" }
                let said = RouteTablesTests.broker(
                    broker, addr: broker + ":1", topics: names.map { TopicConfig(topicName: $0) }, version: version)
                // At once, or a few topics at a time.
                var (_, topics) = tables.beginRegistration(
                    said, connection: UInt64(broker.dropFirst()) ?? 0, now: 0, expiresAfter: 1000)
                let limit = Bool.random(using: &random) ? Int.max : 2
                var parts = 0
                while !topics.isDone {
                    tables.apply(&topics, atMost: limit)
                    parts += 1
                }
                #expect(parts <= 20)
                registered.insert(broker)
                for name in names { model[name, default: []].insert(broker) }
            }
            let expected = model.filter { !$0.value.isEmpty }
            #expect(tables.topics == expected.keys.sorted(), "round \(round) step \(step)")
            #expect(tables.topics(of: "C") == expected.keys.sorted())
            for (name, brokers) in expected {
                #expect(tables.route(of: name)?.queueDatas.map(\.brokerName) == brokers.sorted())
            }
        }
    }

    @Test("topics that are still being entered when their broker says something newer, or leaves, are dropped")
    func overtaken() {
        var tables = RouteTables()
        func broker(_ names: [String], version: Int64) -> BrokerRegistration {
            RouteTablesTests.broker(
                "a", addr: "a:1", topics: names.map { TopicConfig(topicName: $0) }, version: version)
        }
        var (_, old) = tables.beginRegistration(
            broker(["Old1", "Old2", "Both"], version: 1), connection: 1, now: 0, expiresAfter: 1000)
        tables.apply(&old, atMost: 1)
        #expect(tables.topics == ["Old1"])
        #expect(!old.isDone)
        #expect(!tables.takeEvents().contains(.brokerRegistered(address: "a:1", name: "a")))
        _ = tables.register(broker(["New", "Both"], version: 2), connection: 1, now: 0)
        tables.apply(&old, atMost: .max)
        #expect(old.isDone)
        #expect(tables.topics == ["Both", "New", "Old1"])

        var (_, last) = tables.beginRegistration(
            broker(["Last1", "Last2"], version: 3), connection: 1, now: 0, expiresAfter: 1000)
        tables.apply(&last, atMost: 1)
        tables.unregister(clusterName: "C", brokerAddr: "a:1", brokerName: "a", brokerID: 0)
        tables.apply(&last, atMost: 1)
        #expect(last.isDone)
        #expect(tables.topics == [])
        #expect(tables.route(of: "Last2") == nil)
    }

    private struct Seeded: RandomNumberGenerator {
        var state: UInt64
        init(seed: UInt64) { state = seed }

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 31
        }
    }
}
