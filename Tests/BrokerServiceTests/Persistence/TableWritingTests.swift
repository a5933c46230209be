import FastJSON
import Foundation
import MessageModel
import MessageStore
import NIOCore
import NIOEmbedded
import RemotingProtocol
import RemotingTransport
import TestTools
import Testing

@testable import BrokerService

/// Tables are written by a thread of their own, and nothing is answered that is not on disk.
@Suite("tables on their way to disk")
struct TableWritingTests {
    private func topicsOnDisk(_ harness: BrokerHarness) throws -> Set<String> {
        let path = harness.folder.appendingPathComponent("config/topics.json")
        // Between two renames of the next write the file has the name of its backup.
        var data = Data()
        try eventually("the file has its name") {
            guard let found = try? Data(contentsOf: path) else { return false }
            data = found
            return true
        }
        let json = try JSONValue(parsing: [UInt8](data))
        return Set(json["topicConfigTable"]?.object?.members.map(\.key) ?? [])
    }

    @Test("topics made together are written together, and are on disk before the first message in one is confirmed")
    func together() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let before = try harness.onLoop { $0.keeper.writes }
        let fields = { (topic: String) -> [String: String] in
            [
                "a": "P", "b": topic, "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1700000000000", "h": "0",
                "i": "", "j": "0", "k": "false", "m": "false",
            ]
        }
        for number in 0..<400 { try connection.post(.sendMessageV2, fields("Made\(number)"), body: [1]) }
        for number in 0..<400 {
            #expect(try connection.receive().code == 0)
            if number % 100 == 0 { #expect(try topicsOnDisk(harness).contains("Made\(number)")) }
        }
        #expect(try topicsOnDisk(harness).isSuperset(of: (0..<400).map { "Made\($0)" }))
        // The table of topics and the list of those made by messages, each a few times.
        #expect(try harness.onLoop { $0.keeper.writes } - before < 100)
        // A message for a topic that is on disk waits for nothing.
        #expect(try harness.onLoop { $0.topics["Made1"]?.madeAt ?? .max } <= (try harness.onLoop { $0.topics.kept }))
    }

    @Test("a topic that cannot be put on disk is not confirmed; when the disk takes it again it is")
    func refusedByDisk() throws {
        let harness = try BrokerHarness([("flushConsumerOffsetInterval", "200")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "Before").code == 0)
        // Where the new file would be written lies a folder.
        let obstacle = harness.folder.appendingPathComponent("config/topics.json.tmp")
        try FileManager.default.createDirectory(at: obstacle, withIntermediateDirectories: false)
        let refused = try connection.send(topic: "New")
        #expect(refused.code == ResponseCode.serviceNotAvailable.rawValue)
        #expect(refused.remark?.contains("could not be put on disk") == true, "\(refused.remark ?? "")")
        #expect(try connection.send(topic: "Before").code == 0, "other topics are served")
        let update = try connection.invoke(
            .updateAndCreateTopic,
            ["topic": "ByHand", "readQueueNums": "1", "writeQueueNums": "1", "perm": "6", "defaultTopic": "TBW102"])
        #expect(update.code == ResponseCode.systemError.rawValue)
        #expect(update.remark?.contains("topics.json was not written") == true, "\(update.remark ?? "")")

        try FileManager.default.removeItem(at: obstacle)
        try eventually("it is confirmed") { try connection.send(topic: "New").code == 0 }
        #expect(try topicsOnDisk(harness).isSuperset(of: ["Before", "New", "ByHand"]))
    }

    @Test("one address makes so many topics and groups at once, then so many a second")
    func rates() {
        var now: Int64 = 1_000_000
        let buckets = TokenBuckets(CreationRates.topics, now: { now })
        func address(_ number: UInt32, port: Int32 = 1) -> HostAddress { HostAddress(ipv4: number, port: port) }
        func takes(_ count: Int, from address: (Int) -> HostAddress) -> Int {
            (0..<count).filter { buckets.take(address($0)) }.count
        }
        // Connections of one address share its bucket.
        #expect(takes(5000) { address(1, port: Int32($0)) } == Int(CreationRates.topics.burst))
        #expect(buckets.take(address(2)), "another address has its own")
        now += 2000
        #expect(takes(5000) { _ in address(1) } == Int(CreationRates.topics.perSecond) * 2)
        now -= 3_600_000
        #expect(!buckets.take(address(1)), "a clock set back gives nothing")
        // More addresses than are remembered: those that have not asked for long are forgotten.
        for number in 10..<UInt32(10 + TokenBuckets.addressesMax * 2) {
            #expect(buckets.take(address(number)))
            now += 100
        }
        #expect(buckets.count <= TokenBuckets.addressesMax)
    }

    @Test("topics beyond the rate are refused in words, and the sender may try again")
    func rateRefusal() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        // The connection's own context, through the group it is in.
        try connection.heartbeat("c", producerGroup: "P")
        try harness.onLoop { broker in
            let client = try #require(broker.producers.clients(of: "P")?.first?.client)
            for _ in 0..<5000 { _ = broker.tables.creations.mayMakeTopic(client.connection.remoteAddress) }
        }
        // All at once: the broker reads them in far less time than it takes to be allowed as many again.
        for number in 0..<400 {
            try connection.post(
                .sendMessageV2,
                [
                    "a": "P", "b": "Rate\(number)", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1700000000000",
                    "h": "0", "i": "", "j": "0", "k": "false", "m": "false",
                ], body: [1])
        }
        let answers = try (0..<400).map { _ in try connection.receive(timeoutMilliseconds: 30_000) }
        let refused = answers.first { $0.code != 0 }
        #expect(refused?.code == ResponseCode.systemBusy.rawValue)
        #expect(refused?.remark?.contains("a second") == true)
    }

    // MARK: - Offsets

    private func commit(
        _ connection: RawConnection, _ topic: String, _ group: String, queue: String = "0", offset: String = "1"
    ) throws -> RemotingCommand {
        try connection.invoke(
            .updateConsumerOffset,
            ["topic": topic, "consumerGroup": group, "queueId": queue, "commitOffset": offset])
    }

    @Test("an offset is kept for topics, groups and queues that are there, and for no others")
    func commits() throws {
        let harness = try BrokerHarness([("autoCreateSubscriptionGroup", "false")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.send(topic: "There")
        var group = SubscriptionGroupConfig(groupName: "G")
        group.retryQueueNums = 1
        #expect(try connection.invoke(.updateAndCreateSubscriptionGroup, body: group.encoded()).code == 0)
        #expect(try commit(connection, "Nowhere", "G").code == ResponseCode.topicNotExist.rawValue)
        #expect(try commit(connection, "There", "Nobody").code == ResponseCode.subscriptionGroupNotExist.rawValue)
        for queue in ["-1", "8", "2147483647"] {
            #expect(try commit(connection, "There", "G", queue: queue).code == ResponseCode.systemError.rawValue)
        }
        #expect(try harness.onLoop { $0.offsets.count } == 0)
        #expect(try commit(connection, "There", "G").code == 0)
        #expect(try harness.onLoop { $0.offsets.count } == 1)
        let clone = try connection.invoke(
            .cloneGroupOffset, ["srcGroup": "G", "destGroup": "Nobody", "topic": "There", "offline": "true"])
        #expect(clone.code == ResponseCode.subscriptionGroupNotExist.rawValue)
        // A topic that was deleted keeps no offsets, and takes none.
        #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "There"]).code == 0)
        #expect(try commit(connection, "There", "G", offset: "7").code == ResponseCode.topicNotExist.rawValue)
        #expect(try harness.onLoop { $0.offsets.count } == 0)
    }

    @Test("whose offsets they are is found without looking at all of them, whatever was removed")
    func offsetsByName() throws {
        var random = SplitMix(state: 20_261_129)
        let manager = ConsumerOffsetManager()
        // What was removed leaves some time later: it must not count meanwhile, nor take what has come in its place
        // along.
        var leaving: [ConsumerOffsetManager.Table] = []
        var model: [String: [String: Int64]] = [:]
        for step in 0..<4000 {
            let topic = "T\(Int.random(in: 0..<12, using: &random))"
            let group = "G\(Int.random(in: 0..<12, using: &random))"
            switch Int.random(in: 0..<20, using: &random) {
            case 0:
                leaving += manager.forget(topic: topic)
                model[topic] = nil
            case 1:
                leaving += manager.forget(group: group)
                for known in model.keys { model[known]?[group] = nil }
            case 2:
                manager.clone(from: group, to: try GroupName("G0"), topic: try TopicName(topic))
                if let offset = model[topic]?[group] { model[topic]?["G0"] = offset }
            default:
                manager.commit(
                    topic: try TopicName(topic), group: try GroupName(group), queueID: 0, offset: Int64(step))
                model[topic, default: [:]][group] = Int64(step)
            }
            if step % 7 == 0 { leaving.popLast().map { manager.remove($0) } }
            #expect(manager.groups(of: topic) == (model[topic] ?? [:]).keys.sorted())
            #expect(manager.topics(of: group) == model.filter { $0.value[group] != nil }.keys.sorted())
            #expect(
                Set(manager.tables(of: topic).map { "\($0.group) \($0.offsets[0] ?? -1)" })
                    == Set((model[topic] ?? [:]).map { "\($0.key) \($0.value)" }))
        }
        for table in leaving { manager.remove(table) }
        #expect(manager.count == model.values.map(\.count).reduce(0, +))
        let again = ConsumerOffsetManager()
        #expect(try again.load(manager.json).isEmpty)
        #expect(again.json == manager.json)
        #expect(again.topics(of: "G3") == manager.topics(of: "G3"))
    }

    // MARK: - Copies

    @Test("a large table is copied in slices; what is removed meanwhile is not in the copy, what was there before is")
    func copies() throws {
        let loop = EmbeddedEventLoop()
        defer { try? loop.syncShutdownGracefully() }
        let slices = SlicedWork(eventLoop: loop)
        var table = BytesKeyedTable<Int>()
        for number in 0..<20_000 { table["k\(number)"] = number }
        var copied: [Int]?
        TableCopy.make(in: slices, table: { table }, { $0 }) { copied = $0 }
        #expect(copied == nil)
        loop.advanceTime(by: SlicedWork.pause)
        table["k77"] = nil
        table["new"] = -1
        var turns = 1
        while copied == nil, turns < 100 {
            loop.advanceTime(by: SlicedWork.pause)
            turns += 1
        }
        #expect(Set(copied ?? []) == Set(0..<20_000).subtracting([77]).union([-1]))
        #expect(copied?.count == 20_000)
        #expect(turns >= 20_000 / TableCopy.entriesPerSlice)
        // A table from which entries are removed all the time is copied nevertheless.
        copied = nil
        TableCopy.make(in: slices, table: { table }, { $0 }) { copied = $0 }
        for number in 100..<200 where copied == nil {
            table["k\(number)"] = nil
            loop.advanceTime(by: SlicedWork.pause)
        }
        #expect(copied?.count == table.count)
        // A small one at once.
        copied = nil
        var small = BytesKeyedTable<Int>()
        small["a"] = 1
        TableCopy.make(in: slices, table: { small }, { $0 }) { copied = $0 }
        #expect(copied == [1])
    }

    @Test("jobs take turns, a slice each")
    func turns() throws {
        let loop = EmbeddedEventLoop()
        defer { try? loop.syncShutdownGracefully() }
        let slices = SlicedWork(eventLoop: loop)
        var order: [String] = []
        for (name, length) in [("a", 3), ("b", 1), ("c", 2)] {
            var left = length
            slices.add {
                order.append(name)
                left -= 1
                return left > 0
            }
        }
        // Never in the turn that asks for it.
        loop.run()
        #expect(order.isEmpty)
        for _ in 0..<10 { loop.advanceTime(by: SlicedWork.pause) }
        #expect(order == ["a", "b", "c", "a", "c", "a"])
        #expect(slices.count == 0)
        #expect(slices.slices == 6)
    }
}
