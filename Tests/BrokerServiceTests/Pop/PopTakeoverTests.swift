import Claims
import Foundation
import LinuxSystem
import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat
import TestFolders
import TestTools
import Testing

@testable import BrokerService

/// A store in which RocketMQ's clients had messages in hand when it was stopped.
@Suite("popped messages of a store taken over") struct PopTakeoverTests {
    private static let reviveTopic = "rmq_sys_REVIVE_LOG_DefaultCluster"

    private static func logLines() -> LogLines {
        var log = LogLines()
        log.logLevel = .notice
        return log
    }

    // MARK: - A golden store

    @Test("the golden store of 5.3.3: all was acknowledged, nothing comes again, and it is read once")
    func golden() throws {
        let folder = try SurveyTests.unpack("golden-5.3.3")
        for start in 1...2 {
            let log = Self.logLines()
            let harness = try BrokerHarness(
                [("mappedFileSizeCommitLog", "67108864")], folder: folder, log: log
            ) { TagFilterDouble.attach(to: $0) }
            let read = log.lines.filter { $0.contains("of RocketMQ's revive log") }
            #expect(read.count == (start == 1 ? 1 : 0), "\(log.lines)")
            if start == 1 {
                #expect(read.first?.hasPrefix("100 records of RocketMQ's revive log were read: 0 popped") == true)
            }
            let connection = try harness.connect()
            let pop = RawConnection.popFields(topic: "F5_pop_s26p1", group: "C5Ps26p1")
            #expect(try connection.pop(pop).messages.isEmpty)
            let offsets = try (0..<8).map {
                try connection.committed(topic: "F5_pop_s26p1", queueID: $0, group: "C5Ps26p1")
            }
            #expect(offsets == [13, 13, 13, 13, 12, 12, 12, 12])
            let group = TopicNames.reviveGroup.text
            #expect(
                try harness.onLoop { $0.offsets.offsets(topic: Self.reviveTopic, group: group) }
                    == [0: 34, 1: 34, 2: 34, 3: 4])
            try harness.drain()
        }
        let report = try StoreSurvey.read(folder.path)
        #expect(report.foreign.contains(.pop(groups: ["BG_GROUP2", "C5Ps26p1"], unrevived: 0)))
        try FileManager.default.removeItem(at: folder)
    }

    // MARK: - Stores written by hand

    private struct Record {
        var tag = "ck"
        var body: String
        /// Among the timer messages, with so many milliseconds to go; nil: in the revive log.
        var waits: Int64?
    }

    private static func ck(
        _ start: Int64, _ count: Int, popTime: Int64, invisible: Int64 = 60_000, topic: String = "T",
        waits: Int64? = nil
    ) -> Record {
        let body =
            #"{"bm":0,"bn":"broker-a","c":"G","d":[\#((0..<count).map(String.init).joined(separator: ","))],"#
            + #""it":\#(invisible),"n":\#(count),"pt":\#(popTime),"q":0,"ro":0,"so":\#(start),"t":"\#(topic)"}"#
        return Record(body: body, waits: waits)
    }

    private static func ack(
        _ offset: Int64, of start: Int64, popTime: Int64, waits: Int64? = nil
    ) -> Record {
        let body =
            #"{"ao":\#(offset),"bn":"broker-a","c":"G","pt":\#(popTime),"q":0,"so":\#(start),"t":"T"}"#
        return Record(tag: "ack", body: body, waits: waits)
    }

    /// A store with ten messages of a topic, of which RocketMQ has handed out eight, and these records.
    private func store(_ records: [Record], offset: Int64 = 8) throws -> URL {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        for index in 0..<10 { _ = try connection.send(topic: "T", body: "m\(index)") }
        try harness.onLoop { _ = $0.groups.find("G") }
        let commit = try connection.invoke(
            .updateConsumerOffset,
            ["consumerGroup": "G", "topic": "T", "queueId": "0", "commitOffset": String(offset)])
        #expect(commit.code == 0)
        try harness.onLoop { broker in
            _ = broker.topics.findOrCreate(try TopicName(existing: Self.reviveTopic), queueNums: 8, perm: 6)
            let now = broker.environment.now()
            for record in records {
                var properties = PropertyList()
                properties[PropertyName.tags] = record.tag
                if let waits = record.waits {
                    properties.makeTimer(due: now + waits, topic: Self.reviveTopic, queueID: 0)
                }
                broker.storage.storeOwn(
                    topic: record.waits == nil ? Self.reviveTopic : TopicNames.timer, queueID: 0,
                    properties: properties, body: Array(record.body.utf8))
            }
        }
        try harness.drain()
        return harness.folder
    }

    private func start(_ folder: URL, log: LogLines? = nil, disk: any Disk = RealDisk()) throws -> BrokerHarness {
        try BrokerHarness(folder: folder, disk: disk, log: log) { TagFilterDouble.attach(to: $0) }
    }

    @Test("exactly what was not acknowledged comes again, at its time; RocketMQ's handles hold")
    func unacknowledged() throws {
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        let early = now - 58_000
        let folder = try store([
            // Its time is over in two seconds.
            Self.ck(0, 4, popTime: early), Self.ack(1, of: 0, popTime: early),
            // Among the timers still, for a minute.
            Self.ck(4, 4, popTime: now, waits: 59_000), Self.ack(4, of: 4, popTime: now, waits: 60_000),
            Self.ack(0, of: 0, popTime: early, waits: 60_000),
        ])
        let harness = try start(folder)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.committed(topic: "T") == 2)
        // Never handed out: at once.
        let fresh = try connection.pop(RawConnection.popFields(topic: "T"))
        #expect(fresh.bodies == ["m8", "m9"])
        for message in fresh.messages { try connection.acknowledge(message, topic: "T") }
        // A client that had it before the move acknowledges it now.
        let old = PoppedMessage(
            queueID: 0, offset: 5, body: "", reconsumeTimes: 0, handle: "4 \(now) 60000 0 0 broker-a 0 5")
        #expect(try connection.acknowledge(old, topic: "T") == 0)
        let due = try connection.pop(RawConnection.popFields(topic: "T", poll: 10_000))
        let waited = Int64(Date().timeIntervalSince1970 * 1000)
        #expect(due.bodies == ["m2", "m3"])
        #expect(due.messages.map(\.reconsumeTimes) == [1, 1])
        #expect(waited >= early + 60_000, "\(waited - early)")
        for message in due.messages { try connection.acknowledge(message, topic: "T") }
        #expect(try connection.committed(topic: "T") == 6)
        let states = try harness.onLoop { broker in
            let table = broker.claims.store.table(group: "G", topic: "T", queueID: 0)
            return (4..<8).map { table?.state(of: $0, at: broker.claims.time) }
        }
        #expect(states[0] == .finished && states[1] == .finished)
        for state in states[2...] {
            guard case .claimed(_, let since, let until, let attempt)? = state else {
                Issue.record("\(String(describing: state))")
                continue
            }
            #expect(since == now && attempt == 1)
            #expect(abs(until - (now + 60_000)) < 50, "\(until - now)")
        }
    }

    @Test("a second start does nothing again, nor do the records that were waiting for their time")
    func once() throws {
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        let folder = try store([
            Self.ck(0, 2, popTime: now - 60_000), Self.ck(2, 2, popTime: now, waits: 2500),
            Self.ack(3, of: 2, popTime: now, waits: 3000),
        ])
        var harness = try start(folder)
        var connection = try harness.connect()
        let due = try connection.pop(RawConnection.popFields(topic: "T", count: 2, poll: 3000))
        #expect(due.bodies.contains("m0"))
        let all = due.messages + (try connection.pop(RawConnection.popFields(topic: "T", poll: 500)).messages)
        #expect(Set(all.map(\.body)) == ["m0", "m1", "m8", "m9"])
        for message in all { try connection.acknowledge(message, topic: "T") }
        let log = Self.logLines()
        try harness.drain()
        // Time passes, in which the timers' records become due.
        Thread.sleep(forTimeInterval: max(0, Double(now + 3500) / 1000 - Date().timeIntervalSince1970))
        harness = try start(folder, log: log)
        connection = try harness.connect()
        #expect(!log.lines.contains { $0.contains("revive log") }, "\(log.lines)")
        #expect(try connection.pop(RawConnection.popFields(topic: "T", poll: 300)).messages.isEmpty)
        #expect(try connection.committed(topic: "T") == 2)
        // The two the timer had are not stored in the revive log.
        let end = try harness.onLoop { $0.store.consumeQueue(topic: Self.reviveTopic, queueID: 0)?.maxOffset.rawValue }
        #expect(end == 1)
        try harness.end()
    }

    @Test("killed before the offsets were written: the next start finds its own claims, and handles hold")
    func cutOff() throws {
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        let folder = try store([
            Self.ck(0, 4, popTime: now), Self.ack(1, of: 0, popTime: now),
            Self.ck(4, 4, popTime: now - 59_000, waits: 5000),
        ])
        let config = folder.appendingPathComponent("config")
        let before = try TestFolder.make("config").appendingPathComponent("config")
        try FileManager.default.copyItem(at: config, to: before)
        var harness = try start(folder)
        try harness.drain()
        try FileManager.default.removeItem(at: config)
        try FileManager.default.copyItem(at: before, to: config)
        harness = try start(folder)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.committed(topic: "T") == 0)
        for offset in [Int64(0), 2] {
            let old = PoppedMessage(
                queueID: 0, offset: offset, body: "", reconsumeTimes: 0,
                handle: "0 \(now) 60000 0 0 broker-a 0 \(offset)")
            #expect(try connection.acknowledge(old, topic: "T") == 0)
        }
        #expect(try connection.committed(topic: "T") == 3)
        var bodies = try connection.pop(RawConnection.popFields(topic: "T")).bodies
        while bodies.count < 6 {
            let more = try connection.pop(RawConnection.popFields(topic: "T", poll: 3000)).bodies
            guard !more.isEmpty else { break }
            bodies += more
        }
        #expect(bodies.sorted() == ["m4", "m5", "m6", "m7", "m8", "m9"])
    }

    @Test("an offsets table that cannot be written ends the start with cause and remedy")
    func diskRefuses() throws {
        let disk = FailingDisk()
        disk.failing = "consumerOffset"
        let harness = try start(try TestFolder.make("broker"), disk: disk)
        defer { try? harness.end() }
        disk.error = ENOSPC
        let text = try harness.onLoop { broker -> String in
            do throws(BrokerError) {
                try broker.keeper.keep(.consumerOffsets)
                return ""
            } catch {
                return "\(error)"
            }
        }
        #expect(text.contains("consumerOffset.json cannot be written") && text.contains("free the disk"), "\(text)")
        disk.error = nil
    }

    @Test("the store goes back to RocketMQ and returns: what is in flight by its records counts, not what was before")
    func returns() throws {
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        let folder = try store([Self.ck(0, 4, popTime: now)])
        var harness = try start(folder)
        // RocketMQ begins at the floor, hands out all ten, and gets acknowledgements of all but one.
        try harness.onLoop { broker in
            var properties = PropertyList()
            properties[PropertyName.tags] = "ck"
            broker.storage.storeOwn(
                topic: Self.reviveTopic, queueID: 0, properties: properties,
                body: Array(Self.ck(3, 1, popTime: now + 1, invisible: 1000).body.utf8))
        }
        try harness.drain()
        let file = folder.appendingPathComponent("config/consumerOffset.json")
        let table = try String(contentsOf: file, encoding: .utf8)
        let pattern = #/("T@G"\s*:\s*\{\s*"?0"?\s*:\s*)0/#
        let changed = table.replacing(pattern) { "\($0.output.1)10" }
        #expect(changed != table)
        for name in try FileManager.default.contentsOfDirectory(atPath: file.deletingLastPathComponent().path)
        where name.contains("consumerOffset") {
            try FileManager.default.removeItem(at: file.deletingLastPathComponent().appendingPathComponent(name))
        }
        try Data(changed.utf8).write(to: file)
        harness = try start(folder)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.pop(RawConnection.popFields(topic: "T", poll: 5000)).bodies == ["m3"])
        #expect(try connection.pop(RawConnection.popFields(topic: "T")).messages.isEmpty)
    }

    @Test("records that are none are counted and said once; topics and groups that are gone are left out")
    func broken() throws {
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        let gone = Self.ck(0, 2, popTime: now - 60_000, topic: "Gone")
        let beyond = Self.ck(100, 2, popTime: now - 60_000)
        let future = Self.ck(3, 1, popTime: 1 << 55, invisible: 0)
        let folder = try store([
            Record(body: "no JSON"), Record(body: "{}"), Record(tag: "x", body: "{}"), gone, beyond, future,
            Record(body: #"{"c":"G","t":"T","so":9223372036854775807,"n":127,"q":0}"#),
            Self.ck(0, 2, popTime: now - 60_000), Self.ack(0, of: 0, popTime: now - 60_000),
        ])
        let log = LogLines()
        let harness = try start(folder, log: log)
        defer { try? harness.end() }
        let warnings = log.lines.filter { $0.contains("revive log") }
        #expect(warnings.count == 1 && warnings[0].hasPrefix("4 records"), "\(log.lines)")
        #expect(warnings.first?.contains("it is no JSON") == true)
        let connection = try harness.connect()
        let popped = try connection.pop(RawConnection.popFields(topic: "T", poll: 2000))
        #expect(Set(popped.bodies).isSubset(of: ["m1", "m8", "m9"]))
        #expect(try connection.committed(topic: "T") == 1)
        let popTime = try #require(Int64(popped.fields["popTime"] ?? ""))
        #expect(popTime < now + 600_000)
    }
}
