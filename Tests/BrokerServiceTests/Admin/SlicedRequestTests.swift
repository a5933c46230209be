import FastJSON
import Foundation
import MessageModel
import MessageStore
import NIOCore
import NIOEmbedded
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

/// Requests and tables that concern thousands of queues, topics or groups: nothing of them takes one turn of the event
/// loop as a whole. Counted in slices and steps, not in time.
@Suite("requests about thousands of queues go in slices")
struct SlicedRequestTests {
    private static let queues = Int(QueueCounts.maximum)

    /// A topic as wide as topics may be, with a message in each thousandth queue, and offsets of the group G in all of
    /// them.
    private func wideTopic(_ name: String, _ harness: BrokerHarness, _ connection: RawConnection) throws {
        let made = try connection.invoke(
            .updateAndCreateTopic,
            [
                "topic": name, "readQueueNums": "\(Self.queues)", "writeQueueNums": "\(Self.queues)", "perm": "6",
                "defaultTopic": "TBW102",
            ])
        #expect(made.code == 0, "\(made.remark ?? "")")
        for queue in stride(from: 0, to: Self.queues, by: 1000) {
            #expect(try connection.send(topic: name, queueID: Int32(queue)).code == 0)
        }
        try harness.onLoop { broker in
            let topic = try #require(broker.topics[name])
            let group = try #require(broker.groups.find("G"))
            for queue in 0..<Int32(Self.queues) {
                broker.offsets.commit(topic: topic, group: group, queueID: queue, offset: queue % 1000 == 0 ? 1 : 0)
            }
        }
    }

    /// Asks, and counts the slices that took.
    private func slices(_ harness: BrokerHarness, _ ask: () throws -> Void) throws -> Int {
        let before = try harness.onLoop { $0.slices.slices }
        try ask()
        return try harness.onLoop { $0.slices.slices } - before
    }

    @Test("a topic with one queue more is refused in words, whichever number says so")
    func tooWide() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let (bound, header) = ("at most \(Self.queues)", "must be within 0...65536")
        for (read, write, reason) in [
            (Self.queues + 1, 4, bound), (4, Self.queues + 1, bound), (Int(Int32.max), 1, header),
        ] {
            let fields = [
                "topic": "TooWide", "readQueueNums": "\(read)", "writeQueueNums": "\(write)", "perm": "6",
                "defaultTopic": "TBW102",
            ]
            let answer = try connection.invoke(.updateAndCreateTopic, fields)
            #expect(answer.code == ResponseCode.systemError.rawValue)
            #expect(answer.remark?.contains(reason) == true, "\(answer.remark ?? "")")
            #expect(try harness.onLoop { $0.topics["TooWide"] == nil })
        }
    }

    @Test("202, 208, 303 and 317 about one topic of 4096 queues")
    func oneTopic() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try wideTopic("Wide", harness, connection)
        var body: [UInt8] = []
        func ask(_ code: RequestCode, _ fields: [String: String]) throws -> Int {
            try slices(harness) {
                let answer = try connection.invoke(code, fields)
                #expect(answer.code == 0, "\(code): \(answer.remark ?? "")")
                body = answer.body
            }
        }
        #expect(try ask(.getTopicStatsInfo, ["topic": "Wide"]) >= Self.queues / 128 - 1)
        let topicTable = try #require(try JSONValue(parsing: body)["offsetTable"]?.object)
        #expect(topicTable.count == Self.queues)
        #expect(topicTable.members.compactMap { $0.value["maxOffset"]?.integer }.reduce(0, +) == 5)
        #expect(topicTable.members.allSatisfy { ($0.value["lastUpdateTimestamp"]?.integer ?? -1) >= 0 })

        #expect(try ask(.getConsumeStats, ["consumerGroup": "G", "topic": "Wide"]) >= Self.queues / 128 - 1)
        let groupTable = try #require(try JSONValue(parsing: body)["offsetTable"]?.object)
        #expect(groupTable.count == Self.queues)
        #expect(groupTable.members.compactMap { $0.value["consumerOffset"]?.integer }.reduce(0, +) == 5)

        #expect(try ask(.queryConsumeTimeSpan, ["topic": "Wide", "group": "G"]) >= Self.queues / 48 - 1)
        let spans = try #require(try JSONValue(parsing: body)["consumeTimeSpanSet"]?.array)
        #expect(spans.count == Self.queues)
        #expect(spans.compactMap { $0["messageQueue"]?["queueId"]?.integer } == (0..<Int64(Self.queues)).map { $0 })

        #expect(try ask(.getBrokerConsumeStats, ["isOrder": "false"]) >= Self.queues / 128 - 1)
        let all = try #require(try JSONValue(parsing: body)["consumeStatsList"]?.array)
        let group = all.compactMap { $0["G"]?.array }.first
        #expect(group?.first?["offsetTable"]?.object?.count == Self.queues)
    }

    @Test("222 resets 4096 queues in slices, and tells each member once in its own form")
    func reset() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try wideTopic("Reset", harness, connection)
        let members = try [LanguageCode.java, .cpp].map { language in
            let member = try harness.connect()
            let data = HeartbeatData(
                clientID: "\(language.name)", producerGroups: [],
                consumerDataSet: [ConsumerData(groupName: "G", subscriptionDataSet: [SubscriptionData(topic: "Reset")])]
            )
            var beat = RemotingCommand(.heartBeat, body: data.encoded())
            beat.language = language
            #expect(try member.invoke(beat).code == 0)
            return member
        }
        let count = try slices(harness) {
            let answer = try connection.invoke(
                .invokeBrokerToResetOffset,
                ["topic": "Reset", "group": "G", "timestamp": "1000", "isForce": "true"])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
            let table = try JSONValue(parsing: answer.body)["offsetTable"]?.object
            #expect(table?.count == Self.queues)
        }
        #expect(count >= Self.queues / 24 - 1)
        for (index, member) in members.enumerated() {
            var resets: [RemotingCommand] = []
            while let frame = try? member.receive(timeoutMilliseconds: resets.isEmpty ? 5000 : 100) {
                if frame.code == RequestCode.resetConsumerClientOffset.rawValue { resets.append(frame) }
            }
            #expect(resets.count == 1)
            let table = try resets.first.map { try JSONValue(parsing: $0.body)["offsetTable"] } ?? nil
            #expect((index == 0 ? table?.object?.count : table?.array?.count) == Self.queues)
            #expect(resets.first?.extFields["isForce"] == "false")
        }
        // Where the group has never committed nothing is reset.
        let unknown = try connection.invoke(
            .invokeBrokerToResetOffset, ["topic": "Reset", "group": "Nobody", "timestamp": "1000", "isForce": "true"])
        #expect(unknown.code == ResponseCode.systemError.rawValue)
    }

    @Test("who asks and is gone is asked about nothing any more")
    func gone() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try wideTopic("Gone", harness, connection)
        let asker = try harness.connect()
        for _ in 0..<3 { try asker.post(.queryConsumeTimeSpan, ["topic": "Gone", "group": "G"]) }
        asker.close()
        try eventually("no slices are left") { try harness.onLoop { $0.slices.count } == 0 }
        #expect(try connection.send(topic: "Gone").code == 0)
    }

    // MARK: - Deleting

    @Test("a deleted topic of 4096 queues is gone at once for all requests, and from the disk when that is answered")
    func deletion() throws {
        let harness = try BrokerHarness([("flushIntervalConsumeQueue", "100")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try wideTopic("Deleted", harness, connection)
        let folder = harness.folder.appendingPathComponent("consumequeue").path
        try eventually("its queues are on disk") { FileManager.default.fileExists(atPath: folder + "/Deleted/4000") }
        #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "Deleted"]).code == 0)
        #expect(!FileManager.default.fileExists(atPath: folder + "/Deleted"))
        let note = harness.folder.appendingPathComponent("config/deletedTopics.json")
        #expect(try JSONValue(parsing: [UInt8](Data(contentsOf: note)))["Deleted"]?.integer ?? 0 > 0)
        #expect(try harness.onLoop { $0.offsets.offset(topic: "Deleted", group: "G", queueID: 0) } == nil)
        // A new one begins anew.
        let again = try connection.send(topic: "Deleted")
        #expect(again.code == 0 && again.extFields["queueOffset"] == "0")
        try eventually("nothing of the old one is left") {
            try !FileManager.default.contentsOfDirectory(atPath: folder).contains { $0.hasPrefix(".removed") }
        }
    }

    @Test("cleaning up after topics that are no more goes in slices and spares those that are")
    func unused() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "Stays").code == 0)
        try harness.onLoop { broker in
            for number in 0..<3000 {
                for queue in 0..<Int32(2) {
                    _ = broker.store.findConsumeQueue(topic: try TopicName("Unused\(number)"), queueID: queue)
                }
            }
        }
        var code: Int32 = -1
        let count = try slices(harness) { code = try connection.invoke(.cleanUnusedTopic).code }
        #expect(code == 0)
        #expect(count >= 6)
        let topics = Set(try harness.onLoop { $0.store.topicsWithQueues })
        #expect(topics.contains("Stays") && !topics.contains { $0.hasPrefix("Unused") })
    }

    // MARK: - A master's tables

    @Test("a master's table replaces a slave's in slices, a later one ends an earlier one")
    func replacement() throws {
        var random = SplitMix(state: 77)
        let loop = EmbeddedEventLoop()
        defer { try? loop.syncShutdownGracefully() }
        let slices = SlicedWork(eventLoop: loop)
        let manager = ConsumerOffsetManager()
        func master(_ groups: Int, _ offset: Int64) throws -> JSONValue {
            let master = ConsumerOffsetManager()
            for number in 0..<groups where Int.random(in: 0..<4, using: &random) > 0 {
                master.commit(
                    topic: try TopicName("T\(number % 100)"), group: try GroupName("G\(number)"), queueID: 1,
                    offset: offset)
            }
            return master.json
        }
        func sorted(_ json: JSONValue) -> [String] {
            (json["offsetTable"]?.object?.members ?? []).map { "\($0.key) \($0.value.text())" }.sorted()
        }
        var ended: [Int] = []
        let first = try master(9000, 5)
        manager.replace(by: try ConsumerOffsetManager.read(first), in: slices) { ended.append(1) }
        #expect(ended.isEmpty && manager.count == TableReplacement.entriesPerSlice)
        for _ in 0..<4 { loop.advanceTime(by: SlicedWork.pause) }
        let second = try master(6000, 7)
        manager.replace(by: try ConsumerOffsetManager.read(second), in: slices) { ended.append(2) }
        for _ in 0..<40 { loop.advanceTime(by: SlicedWork.pause) }
        #expect(ended == [2])
        #expect(sorted(manager.json) == sorted(second))
        // What was there goes; what a consumer says meanwhile is the master's to keep.
        let third = try master(50, 9)
        manager.replace(by: try ConsumerOffsetManager.read(third), in: slices) { ended.append(3) }
        for _ in 0..<40 { loop.advanceTime(by: SlicedWork.pause) }
        #expect(ended == [2, 3])
        #expect(sorted(manager.json) == sorted(third))
        #expect(manager.topics(of: "G5999").isEmpty)
        #expect(slices.count == 0)
    }

    // MARK: - Messages whose time comes together

    @Test("timer and delayed messages that are due together are delivered in slices, all of them")
    func dueTogether() throws {
        let clock = ShiftedClock()
        let harness = try BrokerHarness(clock: clock)
        defer { try? harness.end() }
        let connection = try harness.connect()
        let due = String(RawConnection.nowMilliseconds + 60_000)
        for number in 0..<600 {
            for properties in ["TIMER_DELIVER_MS=\(due)", "DELAY=5"] {
                try connection.post(
                    .sendMessageV2,
                    [
                        "a": "P", "b": "Together", "c": "TBW102", "d": "1", "e": "0", "f": "0", "g": "1700000000000",
                        "h": "0", "i": RawConnection.properties(properties), "j": "0", "k": "false", "m": "false",
                    ], body: Array("\(number)".utf8))
            }
        }
        for _ in 0..<1200 { #expect(try connection.receive().code == 0) }
        final class Most: @unchecked Sendable { var appended: Int64 = 0 }
        let most = Most()
        @Sendable func stored(_ broker: Broker) -> Int64 { broker.store.runtimeInformation.putMessageTimesTotal }
        let before = try harness.onLoop { broker in
            broker.slices.around = { [unowned broker] slice in
                let before = stored(broker)
                defer { most.appended = max(most.appended, stored(broker) - before) }
                return slice()
            }
            clock.shift = 120_000
            return broker.slices.slices
        }
        // The services look at the clock when something comes in.
        _ = try connection.send(topic: "Together", body: "now", properties: RawConnection.properties("DELAY=1"))
        _ = try connection.send(topic: "Together", properties: RawConnection.properties("TIMER_DELIVER_MS=\(due)0"))
        let found = try connection.wait("Together", count: 1200, seconds: 60)
        #expect(Set(found.map(\.body)).count >= 600)
        #expect(found.count >= 1200)
        #expect(try harness.onLoop { $0.slices.slices } - before >= 2)
        #expect(try harness.onLoop { _ in most.appended } <= Int64(ScheduleMessageService.deliverBatch))
    }

    // MARK: - Groups

    /// What is wrong with what a group says of its clients; empty when nothing is.
    @Sendable private static func mistakes(_ broker: Broker, _ name: String) -> [String] {
        guard let group = broker.consumers[name] else { return [] }
        var found: [String] = []
        let clients = group.clients
        let wanted = Dictionary(grouping: clients.flatMap(\.subscriptions), by: \.topic)
        if Set(group.subscriptions.values.map(\.topic)) != Set(wanted.keys) { found.append("topics") }
        for (topic, all) in wanted where group.subscriptions[topic]?.subVersion != all.map(\.subVersion).max() {
            found.append("newest of \(topic)")
        }
        let pairs = clients.flatMap { left in clients.filter { $0.client !== left.client }.map { (left, $0) } }
        if group.isConsistent != pairs.allSatisfy({ SubscriptionConflict($0, $1) == nil }) { found.append("agreement") }
        for own in clients where !group.isConsistent {
            for topic in wanted.keys {
                let mine = own.subscriptions.first { $0.topic == topic }?.data.subString
                let others = Set(clients.flatMap(\.subscriptions).filter { $0.topic == topic }.map(\.data.subString))
                let told = group.others(than: own.client, topic: topic).map(\.data.subString)
                if Set(told) != others.subtracting([mine].compactMap { $0 }) || told.count != Set(told).count {
                    found.append("others of \(topic)")
                }
            }
        }
        return found
    }

    @Test("a group wants what its clients want, whatever they say and whichever leaves")
    func groups() throws {
        let seed: UInt64 = 20_261_130
        var random = SplitMix(state: seed)
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        var connections = try (0..<5).map { _ in try harness.connect() }
        for step in 0..<200 {
            let index = Int.random(in: 0..<5, using: &random)
            if Int.random(in: 0..<8, using: &random) == 0 {
                connections[index].close()
                connections[index] = try harness.connect()
            }
            let topics = (0..<4).filter { _ in Int.random(in: 0..<5, using: &random) > 0 }
            let expressions = Bool.random(using: &random) ? ["A"] : ["A", "B", "*"]
            let data = ConsumerData(
                groupName: "M",
                subscriptionDataSet: topics.map {
                    SubscriptionData(
                        topic: "T\($0)", subString: expressions.randomElement(using: &random) ?? "A",
                        subVersion: Int64(step))
                } + (step % 3 == 0 ? [SubscriptionData(topic: "%RETRY%M")] : []))
            let beat = HeartbeatData(clientID: "c\(index)", consumerDataSet: [data])
            #expect(try connections[index].invoke(.heartBeat, body: beat.encoded()).code == 0)
            let mistakes = try harness.onLoop { Self.mistakes($0, "M") }
            #expect(mistakes == [], "seed \(seed) step \(step)")
        }
    }

    // MARK: - What is acknowledged

    @Test("a list of topics that cannot be put on disk is not acknowledged")
    func listNotKept() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let obstacle = harness.folder.appendingPathComponent("config/topics.json.tmp")
        try FileManager.default.createDirectory(at: obstacle, withIntermediateDirectories: true)
        let list = CreateTopicListRequestBody(topicConfigList: [TopicConfig(topicName: "Listed")])
        let refused = try connection.invoke(.updateAndCreateTopicList, body: list.encoded())
        #expect(refused.code == ResponseCode.systemError.rawValue)
        #expect(refused.remark?.contains("topics.json was not written") == true, "\(refused.remark ?? "")")
        try FileManager.default.removeItem(at: obstacle)
    }
}
