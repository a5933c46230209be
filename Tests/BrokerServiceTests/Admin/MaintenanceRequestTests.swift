import FastJSON
import Foundation
import LinuxSystem
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

@testable import BrokerService
@testable import MessageStore

/// What is answered with success has happened.
@Suite("success has an effect") struct MaintenanceRequestTests {
    /// Fills more than three log files of 64 KiB with messages of queue 0.
    private func fill(_ connection: RawConnection, _ topic: String, _ count: Int = 60) throws {
        for number in 0..<count {
            let body = "\(number) " + String(repeating: "x", count: 4000)
            #expect(try connection.send(topic: topic, body: body).code == 0)
        }
    }

    private func logFiles(_ harness: BrokerHarness) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: harness.folder.path + "/commitlog").filter {
            $0.count == 20
        }.sorted()
    }

    /// Ages the log's files and waits until they are flushed.
    private func age(_ harness: BrokerHarness, hours: Double) throws {
        try harness.flush()
        for name in try logFiles(harness) {
            try FileManager.default.setAttributes(
                [.modificationDate: Date(timeIntervalSinceNow: -hours * 3600)],
                ofItemAtPath: harness.folder.path + "/commitlog/" + name)
        }
    }

    private static let small = [
        ("mappedFileSizeCommitLog", "65536"), ("mappedFileSizeConsumeQueue", "200"), ("fileReservedTime", "10"),
        ("allocateAheadBytes", "0"), ("flushIntervalCommitLog", "10"), ("flushCommitLogThoroughInterval", "20"),
    ]

    /// An hour of the day that is not now.
    private static var otherHour: (String, String) {
        let hour = Calendar.current.component(.hour, from: Date())
        return ("deleteWhen", String(format: "%02d", (hour + 12) % 24))
    }

    @Test("deleteExpiredCommitLog deletes what is expired at any hour, and only that; queues and offsets follow")
    func deleteExpired() throws {
        let harness = try BrokerHarness(Self.small + [Self.otherHour])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try fill(connection, "T")
        let before = try logFiles(harness)
        #expect(before.count >= 4)
        #expect(try connection.invoke(.deleteExpiredCommitLog).code == 0)
        // Time passes, in which a file could go.
        usleep(300_000)
        #expect(try logFiles(harness).first == before.first, "nothing has expired yet")
        try age(harness, hours: 11)
        #expect(try connection.invoke(.deleteExpiredCommitLog).code == 0)
        let after = try logFiles(harness)
        #expect(after.count < before.count && after.first != before.first, "\(before) became \(after)")
        try eventually("the queue follows") {
            let fields = try connection.invoke(.getMinOffset, ["topic": "T", "queueId": "0"]).extFields
            return fields["offset"].flatMap { Int64($0) } ?? 0 > 0
        }
    }

    @Test("cleanExpiredConsumeQueue shortens the queues to what the log holds")
    func cleanQueues() throws {
        let harness = try BrokerHarness(Self.small + [Self.otherHour])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try fill(connection, "T")
        try harness.flush()
        // The queue's first files are written by the pass.
        let queue = harness.folder.path + "/consumequeue/T/0"
        try eventually("the queue's files") {
            (try? FileManager.default.contentsOfDirectory(atPath: queue).count) ?? 0 >= 5
        }
        func minimum() throws -> Int64 {
            try harness.onLoop { $0.store.consumeQueue(topic: "T", queueID: 0)?.minOffset.rawValue ?? -1 }
        }
        #expect(try minimum() == 0)
        try harness.onLoop { broker in
            #expect(broker.store.deleteOldestFile())
            // As if the work behind had not come to it yet.
            while broker.store.retention.nextQueue() != nil {}
        }
        // Time passes, in which the queue could be shortened unasked.
        usleep(300_000)
        #expect(try minimum() == 0)
        #expect(try connection.invoke(.cleanExpiredConsumeQueue).code == 0)
        #expect(try minimum() > 0)
    }

    @Test("cleanUnusedTopic removes the queues of topics that are gone, and no others")
    func cleanUnused() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for (topic, properties) in [
            ("Kept", ""), ("Gone", ""), ("Kept", "TIMER_DELAY_SEC\u{1}100"), ("Kept", "DELAY\u{1}9"),
        ] {
            #expect(try connection.send(topic: topic, properties: properties).code == 0)
        }
        try harness.onLoop { _ = $0.topics.delete("Gone") }
        #expect(try connection.invoke(.cleanUnusedTopic).code == 0)
        let topics = Set(try harness.onLoop { $0.store.consumeQueues.map(\.topic) })
        #expect(
            topics.isSuperset(of: ["Kept", "rmq_sys_wheel_timer", "SCHEDULE_TOPIC_XXXX"]) && !topics.contains("Gone"))
    }

    /// RocketMQ refuses messages for ordered topics only; producers of the others are to follow their routes.
    @Test(
        "brokerPermission=4 stops producers: those that follow routes without an error, the others when routes have spread"
    )
    func withoutWrite() throws {
        let clock = ShiftedClock()
        let harness = try BrokerHarness(clock: clock)
        defer { try? harness.end() }
        let connection = try harness.connect()
        func set(_ permission: Int) throws {
            let body = Array("brokerPermission=\(permission)\n".utf8)
            #expect(try connection.invoke(.updateBrokerConfig, body: body).code == 0)
        }
        #expect(try connection.send(topic: "T").code == 0)
        try set(4)
        #expect(try connection.send(topic: "T").code == 0)
        try harness.onLoop { _ in clock.shift += 30_000 }
        try set(4)
        try harness.onLoop { _ in clock.shift += 30_001 }
        let refused = try connection.send(topic: "T")
        #expect(refused.code == ResponseCode.noPermission.rawValue)
        #expect(refused.remark?.contains("brokerPermission has no write") == true)
        #expect(try connection.all("T").count == 2)
        try set(6)
        #expect(try connection.send(topic: "T").code == 0)
        try set(2)
        #expect(
            try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "T")).code
                == ResponseCode.noPermission.rawValue)
        // A broker that starts without write was never in a route with it.
        let closed = try BrokerHarness([("brokerPermission", "4")])
        defer { try? closed.end() }
        #expect(try closed.connect().send(topic: "T").code == ResponseCode.noPermission.rawValue)
    }

    @Test("time search in a queue that was emptied gives its beginning, and a reset by time sets no group back")
    func emptiedQueue() throws {
        let harness = try BrokerHarness(Self.small + [Self.otherHour])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try fill(connection, "Old", 40)
        // The log goes on, so that all of it can go.
        try fill(connection, "New", 40)
        try age(harness, hours: 11)
        for _ in 0..<5 { #expect(try connection.invoke(.deleteExpiredCommitLog).code == 0) }
        try eventually("the queue is empty, from 40 to 40") {
            try harness.onLoop { broker in
                let queue = broker.store.consumeQueue(topic: "Old", queueID: 0)
                return queue?.minOffset.rawValue == 40 && queue?.maxOffset.rawValue == 40
            }
        }
        for time in [0, RawConnection.nowMilliseconds, 4_000_000_000_000] {
            let found = try connection.invoke(
                .searchOffsetByTimestamp, ["topic": "Old", "queueId": "0", "timestamp": String(time)])
            #expect(found.extFields["offset"] == "40")
        }
        // Of a queue that was never written, and of one that is not there.
        for topic in ["New", "Absent"] {
            let found = try connection.invoke(
                .searchOffsetByTimestamp, ["topic": topic, "queueId": "3", "timestamp": "1"])
            #expect(found.extFields["offset"] == "0")
        }
        try join(connection, "Old")
        for queueID in 0..<4 { try commit(connection, "Old", queueID, queueID == 0 ? 40 : 0) }
        let reset = try connection.invoke(
            .invokeBrokerToResetOffset, ["topic": "Old", "group": "G", "timestamp": "1", "isForce": "true"])
        #expect(reset.code == 0, "\(reset.remark ?? "")")
        #expect(try offsets(reset)[0] == 40)
    }

    private func join(_ connection: RawConnection, _ topic: String) throws {
        let data = ConsumerData(groupName: "G", subscriptionDataSet: [SubscriptionData(topic: topic, subVersion: 1)])
        let body = HeartbeatData(clientID: "c", producerGroups: [], consumerDataSet: [data]).encoded()
        #expect(try connection.invoke(.heartBeat, body: body).code == 0)
    }

    private func commit(_ connection: RawConnection, _ topic: String, _ queueID: Int, _ offset: Int64) throws {
        let fields = [
            "topic": topic, "consumerGroup": "G", "queueId": String(queueID), "commitOffset": String(offset),
        ]
        #expect(try connection.invoke(.updateConsumerOffset, fields).code == 0)
    }

    /// By queue.
    private func offsets(_ answer: RemotingCommand) throws -> [Int64: Int64] {
        var found: [Int64: Int64] = [:]
        for member in try answer.json()["offsetTable"]?.object?.members ?? [] {
            let queue = try JSONValue(parsing: Array(member.key.utf8))
            found[queue["queueId"]?.integer ?? -1] = member.value.integer ?? member.value["maxOffset"]?.integer
        }
        return found
    }

    @Test(
        "queues that are only read, or only written, are seen by statistics, reset and time span",
        arguments: [
            (Int32(4), Int32(2)), (2, 4),
        ])
    func unevenQueues(_ read: Int32, _ write: Int32) throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeTopic("U").code == 0)
        for queueID in Int32(0)..<4 { #expect(try connection.send(topic: "U", queueID: queueID).code == 0) }
        #expect(try connection.makeTopic("U", read: read, write: write).code == 0)
        try join(connection, "U")
        for queueID in 0..<4 { try commit(connection, "U", queueID, 1) }
        let stats = try connection.invoke(.getTopicStatsInfo, ["topic": "U"])
        #expect(try offsets(stats) == [0: 1, 1: 1, 2: 1, 3: 1])
        let span = try connection.invoke(.queryConsumeTimeSpan, ["topic": "U", "group": "G"])
        #expect(try span.json()["consumeTimeSpanSet"]?.array?.count == 4)
        let reset = try connection.invoke(
            .invokeBrokerToResetOffset, ["topic": "U", "group": "G", "timestamp": "1", "isForce": "true"])
        #expect(try offsets(reset) == [0: 0, 1: 0, 2: 0, 3: 0])
        let all = try connection.invoke(.getBrokerConsumeStats, ["isOrder": "false"])
        #expect(try all.json()["totalDiff"]?.integer == 0)
    }

    @Test("a group that never began in a queue that is only read can be reset in the others")
    func resetOfSome() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeTopic("U", read: 4, write: 2).code == 0)
        try join(connection, "U")
        let fields = ["topic": "U", "group": "G", "timestamp": "-1", "isForce": "true"]
        #expect(try connection.invoke(.invokeBrokerToResetOffset, fields).code == ResponseCode.systemError.rawValue)
        for queueID in 0..<2 { try commit(connection, "U", queueID, 0) }
        #expect(try offsets(try connection.invoke(.invokeBrokerToResetOffset, fields)) == [0: 0, 1: 0])
    }

    /// The log has room that was reserved ahead; the tables have none.
    @Test("a topic, group or setting that cannot be written is not acknowledged, and neither is what is sent to it")
    func tablesWithoutRoom() throws {
        let disk = FailingDisk()
        let log = LogLines()
        let harness = try BrokerHarness(disk: disk, log: log)
        defer { try? harness.end() }
        let connection = try harness.connect()
        let sent = try connection.send(topic: "Old", body: "before")
        #expect(sent.code == 0)
        let offset = try #require(OffsetMessageID.parse(sent.extFields["msgId"] ?? "")?.physicalOffset)
        disk.failing = "/config/"
        disk.error = ENOSPC
        for _ in 0..<3 {
            let refused = try connection.send(topic: "New", body: "lost")
            #expect(refused.code == ResponseCode.serviceNotAvailable.rawValue)
            #expect(refused.remark?.contains("is new and could not be put on disk") == true, "\(refused.remark ?? "")")
        }
        #expect(try connection.sendBack("G", offset: offset).code == ResponseCode.serviceNotAvailable.rawValue)
        #expect(
            try connection.sendBack("G", offset: offset, delayLevel: -1).code
                == ResponseCode.serviceNotAvailable.rawValue)
        for answer in [
            try connection.makeTopic("Made"), try connection.makeGroup("G2", retryQueues: 1),
            try connection.invoke(.updateBrokerConfig, body: Array("fileReservedTime=7\n".utf8)),
            try connection.invoke(.deleteTopicInBroker, ["topic": "Old"]),
        ] {
            #expect(answer.code == ResponseCode.systemError.rawValue)
            #expect(answer.remark?.contains("not kept for the next start") == true, "\(answer.remark ?? "")")
            #expect(answer.remark?.hasSuffix("; free the disk; then say it again") == true, "\(answer.remark ?? "")")
        }
        #expect(log.lines.filter { $0.contains("topics.json was not written") }.count == 1)
        let killed = try harness.afterKill()
        defer { try? killed.end() }
        let after = try killed.connect()
        #expect(try after.all("Old").map(\.body) == ["before"])
        #expect(try killed.onLoop { $0.topics["New"] == nil })
        // There is room again.
        disk.error = nil
        // What was refused is tried again in a moment, and then taken.
        try eventually("it is taken") { try connection.send(topic: "New", body: "stored").code == 0 }
        let next = try harness.afterKill()
        defer { try? next.end() }
        // The first of the refused ones may be in the log: no client was told that it is.
        let bodies = try next.connect().all("New").map(\.body)
        #expect(bodies == ["stored"] || bodies == ["lost", "stored"])
    }
}
