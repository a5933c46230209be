import FastJSON
import Foundation
import MessageModel
import NIOCore
import NIOEmbedded
import RemotingProtocol
import SettingTable
import TestTools
import Testing
import WorkerProtocol

@testable import BrokerService

@Suite struct TableManagersTests {
    private func golden(_ name: String) throws -> JSONValue {
        try JSONValue(
            parsing: [UInt8](Data(contentsOf: GoldenFlow.folder.appendingPathComponent(name + ".json"))))
    }

    private func topics(_ settings: [(String, String)] = []) throws -> TopicConfigManager {
        try TopicConfigManager(try BrokerConfiguration(settings), now: { 1000 })
    }

    @Test("a new broker has Apache's system topics, with its queues and permissions")
    func systemTopics() throws {
        let ours = try topics([("brokerName", "golden-a")])
        let theirs = try TopicConfigSerializeWrapper(json: try golden("topics")).topicConfigTable
        // What clients made begins otherwise.
        let system = theirs.filter { !$0.topicName.hasPrefix("Golden") && !$0.topicName.hasPrefix("%") }
        let made = ["RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "RMQ_SYS_TRACE_TOPIC"]
        for topic in system where !made.contains(topic.topicName) {
            #expect(ours[topic.topicName]?.config == topic)
        }
        #expect(try topics([("autoCreateTopicEnable", "false")])["TBW102"] == nil)
        #expect(try topics([("traceTopicEnable", "true")])["RMQ_SYS_TRACE_TOPIC"] != nil)
    }

    @Test("a topic made by a send takes the client's queues, one to the default topic's, and its permission")
    func createForSend() throws {
        let topics = try topics()
        #expect(
            try topics.createForSend(TopicName("A"), defaultTopic: "TBW102", clientQueueNums: 4, topicSysFlag: 0)?
                .config
                == TopicConfig(topicName: "A", readQueueNums: 4, writeQueueNums: 4, perm: 6))
        #expect(
            try topics.createForSend(TopicName("B"), defaultTopic: "TBW102", clientQueueNums: 99, topicSysFlag: 0)?
                .config
                .writeQueueNums == 8)
        #expect(try topics.createForSend(TopicName("C"), defaultTopic: "A", clientQueueNums: 4, topicSysFlag: 0) == nil)
        #expect(
            try topics.createForSend(TopicName("C"), defaultTopic: "none", clientQueueNums: 4, topicSysFlag: 0) == nil)
        #expect(topics.dataVersion.counter == 2)
        #expect(topics.isDirty)
        for wanted in [0, -1, Int32.min] {
            let name = try TopicName("D\(wanted.magnitude)")
            let made = topics.createForSend(name, defaultTopic: "TBW102", clientQueueNums: wanted, topicSysFlag: 0)
            #expect(made?.config.readQueueNums == 1 && made?.config.writeQueueNums == 1)
        }
    }

    @Test("tables Apache wrote are read, and written back the same")
    func tablesRoundTrip() throws {
        let topics = try topics([("brokerName", "golden-a")])
        let json = try golden("topics")
        #expect(try topics.load(json).isEmpty)
        #expect(topics.json["dataVersion"] == json["dataVersion"])
        for member in json["topicConfigTable"]?.object?.members ?? [] {
            #expect(topics.json["topicConfigTable"]?[member.key] == member.value)
        }
        let groups = SubscriptionGroupManager(BrokerConfiguration(), rates: CreationRates(now: { 1 }), now: { 1 })
        #expect(try groups.load(try golden("subscriptionGroup")).isEmpty)
        #expect(groups.json == (try golden("subscriptionGroup")))
        let offsets = ConsumerOffsetManager()
        #expect(try offsets.load(try golden("consumerOffset")).isEmpty)
        #expect(offsets.json == (try golden("consumerOffset")))
        #expect(offsets.offset(topic: "GoldenNormal", group: "G_GOLDEN_TagA", queueID: 3) == 22)
        #expect(offsets.offset(topic: "GoldenNormal", group: "none", queueID: 3) == nil)
    }

    @Test("a slave's table becomes its master's; its own system topics stay")
    func replaceTopics() throws {
        let slave = try topics()
        try slave.update(TopicConfig(topicName: "OnlyHere"))
        let master = try topics()
        try master.update(TopicConfig(topicName: "OnlyThere"))
        master.bump(nil)
        let loop = EmbeddedEventLoop()
        defer { try? loop.syncShutdownGracefully() }
        let read = try TopicConfigManager.read(master.json)
        #expect(read.refused.isEmpty)
        slave.replace(by: read, in: SlicedWork(eventLoop: loop)) {}
        #expect(slave["OnlyHere"] == nil)
        #expect(slave["OnlyThere"] != nil)
        #expect(slave["TBW102"] != nil)
        #expect(slave.dataVersion == master.dataVersion)
    }

    @Test("groups make themselves known, unless that is off")
    func groups() throws {
        let open = SubscriptionGroupManager(BrokerConfiguration(), rates: CreationRates(now: { 1 }), now: { 1 })
        #expect(open.find("G")?.config.retryMaxTimes == 16)
        #expect(open.find("") == nil)
        #expect(open.find(String(repeating: "g", count: 256)) == nil)
        let closed = SubscriptionGroupManager(
            try BrokerConfiguration([("autoCreateSubscriptionGroup", "false")]), rates: CreationRates(now: { 1 }),
            now: { 1 })
        #expect(closed.find("G") == nil)
        #expect(closed.find("CID_RMQ_SYS_x") != nil)
        #expect(closed.find("TOOLS_CONSUMER") != nil)
    }

    private func smallest(_ offsets: ConsumerOffsetManager, but group: String = "", begin: Int64) -> [Int32: Int64] {
        var found: [Int32: Int64] = [:]
        for table in offsets.tables(of: "T") where table.group != group { table.lower(&found) { _ in begin } }
        return found
    }

    @Test("offsets: commit, clone, remove, minimum over groups")
    func offsets() throws {
        let offsets = ConsumerOffsetManager()
        let topic = try TopicName("T")
        let groups = (a: try GroupName("A"), b: try GroupName("B"))
        offsets.commit(topic: topic, group: groups.a, queueID: 0, offset: 5)
        offsets.commit(topic: topic, group: groups.a, queueID: 0, offset: 3)
        #expect(offsets.offset(topic: "T", group: "A", queueID: 0) == 3)
        offsets.clone(from: "A", to: groups.b, topic: topic)
        offsets.commit(topic: topic, group: groups.b, queueID: 0, offset: 9)
        #expect(smallest(offsets, begin: 3) == [0: 3])
        #expect(smallest(offsets, begin: 4) == [0: 9])
        #expect(smallest(offsets, but: "A", begin: 0) == [0: 9])
        #expect(offsets.groups(of: "T").sorted() == ["A", "B"])
        for table in offsets.forget(group: "A") { offsets.remove(table) }
        #expect(offsets.topics(of: "A") == [])
    }

    @Test("so many locks are held and no more, and those given back or expired make room")
    func lockBound() {
        var random = SplitMix(state: 5)
        let locks = RebalanceLockManager(bounds: .init(locks: 40))
        var now: Int64 = 0
        for _ in 0..<3000 {
            let group = "G\(Int.random(in: 0..<4, using: &random))"
            let asker = RebalanceLockManager.Owner(clientID: "c\(Int.random(in: 0..<3, using: &random))")
            let queues = (0..<Int.random(in: 1..<8, using: &random)).map { _ in
                MessageQueue(topic: "T", brokerName: "b", queueID: Int32.random(in: 0..<30, using: &random))
            }
            now += Int64.random(in: 0..<4000, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0: _ = locks.unlock(group: group, queues: queues, by: asker)
            case 1: _ = locks.unlockSome(group: group, by: asker)
            case 2:
                var left = locks.groups[...]
                _ = locks.removeExpired(in: &left, now: now)
            default: _ = locks.tryLock(group: group, queues: queues, by: asker, now: now)
            }
            let held = locks.groups.flatMap { group in
                (0..<3).map { locks.heldCount(group: group, by: .init(clientID: "c\($0)")) }
            }
            #expect(locks.count == held.reduce(0, +) && locks.count <= 40)
        }
        #expect(locks.count > 0)
    }

    private func queues(_ count: Int, topic: String = "T", broker: String = "b") -> [MessageQueue] {
        (0..<count).map { MessageQueue(topic: topic, brokerName: broker, queueID: Int32($0)) }
    }

    @Test("locks of one group, and the bytes of their names, have bounds; another group has what is left")
    func lockBoundsOfGroup() {
        let locks = RebalanceLockManager(bounds: .init(locks: 100, locksOfGroup: 60, nameBytes: 240))
        let owner = RebalanceLockManager.Owner(clientID: "a")
        #expect(locks.tryLock(group: "G", queues: queues(100), by: owner, now: 0).count == 60)
        // Three bytes each: topic, broker, client.
        #expect(locks.nameBytes == 180)
        #expect(locks.tryLock(group: "H", queues: queues(100), by: owner, now: 0).count == 20)
        #expect(locks.nameBytes == 240)
        // Those it holds are renewed all the same.
        #expect(locks.tryLock(group: "G", queues: queues(100), by: owner, now: 1).count == 60)
        #expect(!locks.unlock(group: "G", queues: queues(100), by: owner))
        #expect(locks.tryLock(group: "H", queues: queues(100), by: owner, now: 1).count == 60)
        #expect(!locks.unlockSome(group: "H", by: owner))
        #expect(locks.isEmpty && locks.count == 0 && locks.nameBytes == 0)
    }

    @Test("queues no topic or broker can have are not locked")
    func lockNames() {
        let locks = RebalanceLockManager()
        func locked(_ topic: String, _ broker: String) -> Int {
            locks.tryLock(group: "G", queues: queues(1, topic: topic, broker: broker), by: .init(clientID: "a"), now: 0)
                .count
        }
        let long = String(repeating: "x", count: 256)
        #expect(locked(long, "b") == 0 && locked("a/b", "b") == 0 && locked("", "b") == 0 && locked("T", long) == 0)
        #expect(locks.isEmpty)
        #expect(locked("%RETRY%G", "") == 1 && locked("T", String(long.dropFirst())) == 1)
    }

    @Test("what leaves many locks is freed in slices, and what one client does costs not what others hold")
    func manyLocks() {
        let locks = RebalanceLockManager()
        let (many, few) = (RebalanceLockManager.Owner(clientID: "many"), RebalanceLockManager.Owner(clientID: "few"))
        let slice = RebalanceLockManager.locksPerSlice
        #expect(locks.tryLock(group: "G", queues: queues(3 * slice), by: many, now: 0).count == 3 * slice)
        #expect(locks.tryLock(group: "G", queues: queues(1, topic: "U"), by: few, now: 60_000).count == 1)
        let isWanted = locks.tryLock(group: "G", queues: queues(1), by: few, now: 1) == []
        #expect(isWanted)
        // 20 000 looks at all locks would take minutes in a debug build.
        let start = ContinuousClock.now
        for _ in 0..<20_000 {
            #expect(locks.heldCount(group: "G", by: few) == 1)
            #expect(locks.held(group: "G", of: queues(1), by: few).isEmpty)
        }
        #expect(start.duration(to: .now) < .seconds(20))
        #expect(locks.unlockSome(group: "G", by: many))
        #expect(locks.count == 2 * slice + 1)
        var left = locks.groups[...]
        _ = locks.removeExpired(in: &left, now: 60_001)
        #expect(locks.count == slice + 1 && left == ["G"])
        _ = locks.removeExpired(in: &left, now: 60_001)
        _ = locks.removeExpired(in: &left, now: 60_001)
        #expect(locks.count == 1 && left.isEmpty)
        #expect(locks.heldCount(group: "G", by: few) == 1)
    }

    @Test("a queue's lock is one client's for 60 s since it was last renewed")
    func locks() {
        let locks = RebalanceLockManager()
        let queue = MessageQueue(topic: "T", brokerName: "b", queueID: 0)
        #expect(locks.tryLock(group: "G", queues: [queue], by: .init(clientID: "a"), now: 0) == [queue])
        #expect(locks.tryLock(group: "G", queues: [queue], by: .init(clientID: "b"), now: 59_000) == [])
        #expect(locks.tryLock(group: "H", queues: [queue], by: .init(clientID: "b"), now: 0) == [queue])
        // Not its own; the wish for it stays.
        let strangersWish = locks.unlock(group: "G", queues: [queue], by: .init(clientID: "b"))
        #expect(!strangersWish)
        #expect(locks.tryLock(group: "G", queues: [queue], by: .init(clientID: "a"), now: 59_000) == [queue])
        #expect(locks.tryLock(group: "G", queues: [queue], by: .init(clientID: "b"), now: 119_000) == [])
        #expect(locks.tryLock(group: "G", queues: [queue], by: .init(clientID: "b"), now: 119_001) == [queue])
        let ownWish = locks.unlock(group: "G", queues: [queue], by: .init(clientID: "b"))
        #expect(!ownWish)
        #expect(locks.tryLock(group: "G", queues: [queue], by: .init(clientID: "a"), now: 119_001) == [queue])
        #expect(locks.tryLock(group: "G", queues: [queue], by: .init(clientID: "b"), now: 119_002) == [])
        #expect(locks.tryLock(group: "G", queues: [queue], by: .init(clientID: "a"), now: 120_000) == [queue])
        let wished = [180_000, 180_001, 1_000_000].map { (now: Int64) in
            var left = locks.groups[...]
            return locks.removeExpired(in: &left, now: now)
        }
        #expect(wished == [[], ["G"], []])
    }

    @Test("properties: WAIT goes, CLUSTER comes, what is no pair is dropped, the rest stays as it is")
    func storedProperties() {
        var properties = StoredProperties(cluster: "C", region: "R", traceOn: true)
        func take(_ text: String) -> String {
            Array(text.utf8).withUnsafeBytes { properties.take($0, region: false) }
            return String(decoding: properties.bytes, as: UTF8.self)
        }
        #expect(take("") == "CLUSTER\u{1}C")
        #expect(take("K\u{1}v\u{2}WAIT\u{1}true\u{2}TAGS\u{1}t") == "K\u{1}v\u{2}TAGS\u{1}t\u{2}CLUSTER\u{1}C")
        #expect(properties.waitStoreMsgOK)
        #expect(take("WAIT\u{1}false\u{2}") == "CLUSTER\u{1}C")
        #expect(!properties.waitStoreMsgOK)
        #expect(take("\u{1}v\u{2}k\u{1}\u{2}novalue\u{2}CLUSTER\u{1}other\u{2}a\u{1}1") == "a\u{1}1\u{2}CLUSTER\u{1}C")
        _ = take("DELAY\u{1}99\u{2}TRAN_MSG\u{1}TRUE")
        let given = Array("TRACE_ON\u{1}false\u{2}K\u{1}v\u{2}MSG_REGION\u{1}elsewhere".utf8)
        given.withUnsafeBytes { properties.take($0, region: true) }
        #expect(
            String(decoding: properties.bytes, as: UTF8.self)
                == "K\u{1}v\u{2}CLUSTER\u{1}C\u{2}MSG_REGION\u{1}R\u{2}TRACE_ON\u{1}true")
        // Without a region of its own the broker leaves the message's.
        #expect(
            take("MSG_REGION\u{1}r\u{2}TRACE_ON\u{1}true") == "MSG_REGION\u{1}r\u{2}TRACE_ON\u{1}true\u{2}CLUSTER\u{1}C"
        )
        _ = take("DELAY\u{1}99\u{2}TRAN_MSG\u{1}TRUE")
        #expect(properties.delayLevel == 99)
        #expect(properties.isPreparedTransaction)
        properties.normalizeDelay(largest: 18)
        #expect(
            String(decoding: properties.bytes, as: UTF8.self) == "DELAY\u{1}18\u{2}TRAN_MSG\u{1}TRUE\u{2}CLUSTER\u{1}C")
    }

    @Test("the table keyed by bytes finds, replaces and forgets")
    func bytesKeyedTable() {
        var table = BytesKeyedTable<Int>()
        for number in 0..<1000 { table["topic-\(number)"] = number }
        table["topic-7"] = -7
        table["topic-8"] = nil
        #expect(table.count == 999)
        #expect(table["topic-7"] == -7)
        #expect(table["topic-8"] == nil)
        for number in 9..<1000 where table["topic-\(number)"] != number { Issue.record("topic-\(number) is lost") }
        #expect(table[""] == nil)
        table[""] = 1
        let empty = UnsafeRawBufferPointer(start: nil, count: 0)
        #expect(table[empty] == 1)
    }

    @Test("settings: RocketMQ's keys and defaults; what does not parse changes nothing")
    func configuration() throws {
        var configuration = try BrokerConfiguration([
            ("brokerRole", "SLAVE"), ("namesrvAddr", "a:1;b:2"), ("flushDiskType", "SYNC_FLUSH"), ("other", "kept"),
            ("traceOn", "False"), ("autoCreateTopicEnable", " FALSE "), ("longPollingEnable", "TRUE"),
            ("brokerIP1", ""),
        ])
        #expect(!configuration.traceOn && !configuration.autoCreateTopicEnable && configuration.longPollingEnable)
        #expect(configuration.raw("traceOn") == "false" && configuration.brokerIP1 == "127.0.0.1")
        #expect(configuration.isSlave)
        #expect(configuration.namesrvAddr == ["a:1", "b:2"])
        #expect(configuration.syncFlush)
        #expect(configuration.raw("other") == "kept")
        #expect(throws: SettingRefusal.self) { try configuration.set("brokerId", "x") }
        #expect(throws: SettingRefusal.self) { try BrokerConfiguration([("traceOn", "no")]) }
        #expect(configuration.raw("brokerId") == nil)
        #expect(configuration.brokerID == 0)
        #expect(configuration.delayLevels.count == 18)
        #expect(configuration.delayLevels.last == 7_200_000)
        #expect(configuration.address == "127.0.0.1:10911")
    }
}
