import FastJSON
import Foundation
import RemotingProtocol
import Testing

@testable import BrokerService

/// VIEW_BROKER_STATS_DATA and consumeTps: what `mqadmin statsAll`, `consumerProgress` and `clusterList -m` read.
@Suite struct StatisticsTests {
    private func snapshots(
        _ connection: RawConnection, _ name: String, _ key: String
    ) throws -> (minute: Double, sum: Int64, average: Double, day: Int64)? {
        let answer = try connection.invoke(.viewBrokerStatsData, ["statsName": name, "statsKey": key])
        guard answer.code == 0 else {
            #expect(answer.remark == "The stats <\(name)> <\(key)> not exist")
            return nil
        }
        let json = try answer.json()
        let minute = json["statsMinute"]
        return (
            minute?["tps"]?.double ?? -1, minute?["sum"]?.integer ?? -1, minute?["avgpt"]?.double ?? -1,
            json["statsDay"]?["sum"]?.integer ?? -1
        )
    }

    @Test("messages in and out by topic and group, in Apache's windows; consumeTps is the minute's rate")
    func counts() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try snapshots(connection, "TOPIC_PUT_NUMS", "Counted") == nil)
        var first: RemotingCommand?
        for _ in 0..<30 { first = try connection.send(topic: "Counted", body: "0123456789") }
        let record = try #require(first.flatMap { OffsetMessageID.parse($0.extFields["msgId"] ?? "") }?.physicalOffset)
        #expect(try connection.consume("Counted", count: 20).count == 20)
        #expect(try connection.consume("Counted", from: 20).count == 10)
        #expect(try connection.consume("Counted", from: 30).isEmpty)
        _ = try connection.invoke(
            .updateConsumerOffset, ["topic": "Counted", "consumerGroup": "G", "queueId": "0", "commitOffset": "30"])
        _ = try connection.invoke(
            .consumerSendMessageBack, ["group": "G", "offset": String(record), "delayLevel": "3"])
        // Ten seconds later, by the table's clock.
        try harness.onLoop { $0.storage.stats.sample(now: $0.environment.now() + 10_000) }
        let puts = try #require(try snapshots(connection, "TOPIC_PUT_NUMS", "Counted"))
        #expect(puts.sum == 30 && puts.average == 1 && puts.day == 0)
        #expect((2.5...3).contains(puts.minute), "\(puts.minute)")
        let size = try #require(try snapshots(connection, "TOPIC_PUT_SIZE", "Counted"))
        #expect(size.sum > 30 * 100 && size.sum % 30 == 0)
        let gets = try #require(try snapshots(connection, "GROUP_GET_NUMS", "Counted@G"))
        #expect(gets.sum == 30 && gets.average == 15)
        #expect(try snapshots(connection, "GROUP_GET_SIZE", "Counted@G")?.sum == size.sum)
        #expect(try snapshots(connection, "SNDBCK_PUT_NUMS", "Counted@G")?.sum == 1)
        // The retry waits in the schedule topic.
        #expect(try snapshots(connection, "TOPIC_PUT_NUMS", "SCHEDULE_TOPIC_XXXX")?.sum == 1)
        #expect(try snapshots(connection, "BROKER_PUT_NUMS", "DefaultCluster")?.sum == 31)
        #expect(try snapshots(connection, "BROKER_GET_NUMS", "DefaultCluster")?.sum == 30)
        #expect(try snapshots(connection, "GROUP_GET_NUMS", "Counted@Nobody") == nil)
        #expect(try snapshots(connection, "NO_SUCH_STATS", "Counted") == nil)

        let progress = try connection.invoke(.getConsumeStats, ["consumerGroup": "G"]).json()
        #expect(progress["consumeTps"]?.double == gets.minute)
        let all = try connection.invoke(.getBrokerConsumeStats, ["isOrder": "false"]).json()
        let tps = all["consumeStatsList"]?.array?.compactMap { $0["G"]?.array?.first?["consumeTps"]?.double }
        #expect(tps == [gets.minute])

        #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "Counted"]).code == 0)
        #expect(try snapshots(connection, "TOPIC_PUT_NUMS", "Counted") == nil)
        #expect(try snapshots(connection, "GROUP_GET_NUMS", "Counted@G") == nil)
        #expect(try snapshots(connection, "SNDBCK_PUT_NUMS", "Counted@G") == nil)
    }

    @Test("delay levels: what comes in and what is delivered, by Apache's keys")
    func delayLevels() throws {
        let harness = try BrokerHarness([("messageDelayLevel", "1s 1h")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let level1 = "DELAY\u{01}1\u{02}"
        for _ in 0..<3 { #expect(try connection.send(topic: "Late", properties: level1).code == 0) }
        #expect(try connection.send(topic: "Late", properties: "DELAY\u{01}2\u{02}").code == 0)
        #expect(try connection.wait("Late", count: 3).count == 3)
        try harness.onLoop { $0.storage.stats.sample(now: $0.environment.now() + 10_000) }
        #expect(try snapshots(connection, "QUEUE_PUT_NUMS", "SCHEDULE_TOPIC_XXXX@0")?.sum == 3)
        #expect(try snapshots(connection, "QUEUE_PUT_NUMS", "SCHEDULE_TOPIC_XXXX@1")?.sum == 1)
        #expect(try snapshots(connection, "QUEUE_GET_NUMS", "SCHEDULE_TOPIC_XXXX@0@SCHEDULE_CONSUMER")?.sum == 3)
        #expect(try snapshots(connection, "QUEUE_GET_NUMS", "SCHEDULE_TOPIC_XXXX@1@SCHEDULE_CONSUMER") == nil)
        #expect(try snapshots(connection, "GROUP_GET_NUMS", "SCHEDULE_TOPIC_XXXX@SCHEDULE_CONSUMER")?.sum == 3)
        let size = try snapshots(connection, "QUEUE_PUT_SIZE", "SCHEDULE_TOPIC_XXXX@0")?.sum
        #expect(try #require(size) > 300)
        #expect(try snapshots(connection, "GROUP_GET_SIZE", "SCHEDULE_TOPIC_XXXX@SCHEDULE_CONSUMER")?.sum ?? 0 > 300)
        #expect(try snapshots(connection, "QUEUE_PUT_NUMS", "Late@0") == nil)
        #expect(try snapshots(connection, "QUEUE_PUT_NUMS", "SCHEDULE_TOPIC_XXXX") == nil)
    }

    @Test("windows: seven samples of 10 s and 10 min, 25 of an hour; what is idle is forgotten and can come again")
    func windows() {
        let table = StatsTable(now: 0)
        let item = table.makeItem()
        #expect(item.snapshot(.minute, .count) == StatsItem.Snapshot())
        var now: Int64 = 0
        func pass(_ samplings: Int, counting: Int = 0) {
            for _ in 0..<samplings {
                if counting > 0 { item.add(counting, bytes: counting * 100) }
                now += StatsTable.sampleIntervalMilliseconds
                table.sample(now: now)
            }
        }
        pass(1, counting: 5)
        #expect(item.snapshot(.minute, .count) == StatsItem.Snapshot(sum: 5, tps: 0.5, average: 5))
        #expect(item.snapshot(.minute, .bytes).sum == 500)
        pass(5, counting: 5)
        // Six intervals lie between seven samples.
        #expect(item.snapshot(.minute, .count) == StatsItem.Snapshot(sum: 30, tps: 0.5, average: 5))
        pass(6, counting: 10)
        #expect(item.snapshot(.minute, .count).sum == 60)
        pass(7)
        #expect(item.snapshot(.minute, .count).sum == 0)
        #expect(item.snapshot(.hour, .count).sum == 0)
        pass(41)
        #expect(now == 600_000)
        #expect(item.snapshot(.hour, .count).sum == 90)
        pass(300)
        #expect(item.snapshot(.day, .count).sum == 90)
        #expect(item.snapshot(.hour, .count).sum == 90)
        pass(60)
        #expect(item.snapshot(.hour, .count).sum == 0)
        pass(1, counting: 7)
        #expect(item.snapshot(.minute, .count) == StatsItem.Snapshot(sum: 7, tps: 0.7, average: 7))
        // Twenty-four intervals of an hour.
        pass(360 * 24)
        #expect(item.snapshot(.day, .count).sum == 7)
        pass(360)
        #expect(item.snapshot(.day, .count).sum == 0)
        pass(1, counting: 3)
        #expect(item.snapshot(.minute, .count).sum == 3)
        pass(360)
        #expect(item.snapshot(.day, .count).sum == 3)
    }

    @Test("write times by Apache's classes, of the last whole minute; exporters read them from the runtime information")
    func putTimes() throws {
        var times = PutTimes()
        for (messages, milliseconds) in [(90, 0), (9, 5), (1, 60_000)] as [(Int64, Int64)] {
            times.add(messages, milliseconds: milliseconds)
        }
        #expect(times.distribution.hasPrefix("[<=0ms]:0 [0~10ms]:0 "))
        times.nextMinute()
        #expect(times.distribution.hasPrefix("[<=0ms]:90 [0~10ms]:9 [10~50ms]:0 "))
        #expect(times.distribution.hasSuffix("[5~10s]:0 [10s~]:1 "))
        #expect(times.longest == 60_000)
        #expect(times.percentile(0.5) == 0)
        #expect(times.percentile(0.99) == 10)
        #expect(times.percentile(0.999) == 10_000)
        times.nextMinute()
        #expect(times.percentile(0.99) == 0)

        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for _ in 0..<7 { #expect(try connection.send(topic: "Timed").code == 0) }
        try harness.onLoop { broker in
            for _ in 0..<6 { broker.storage.statistics.sample(now: broker.environment.now()) }
        }
        let table = try connection.invoke(.getBrokerRuntimeInfo).json()["table"]
        let counts = (table?["putMessageDistributeTime"]?.string ?? "").split(separator: " ")
            .compactMap { $0.split(separator: ":").last.flatMap { Int($0) } }
        #expect(counts.count == 13 && counts.reduce(0, +) == 7, "\(counts)")
        #expect(table?["putLatency99"]?.string.flatMap { Double($0) } != nil)
    }

    @Test("today and yesterday begin at midnight")
    func days() {
        var statistics = BrokerStatistics(bootMilliseconds: 1_700_000_000_000)
        statistics.put(messages: 5)
        statistics.get(messages: 3)
        statistics.sample(now: 1_700_000_000_000 + 86_400_000)
        #expect(statistics.todayMorning == (5, 3))
        statistics.put(messages: 2)
        statistics.sample(now: 1_700_000_000_000 + 2 * 86_400_000)
        #expect(statistics.todayMorning == (7, 3))
        #expect(statistics.yesterdayMorning == (5, 3))
    }
}
