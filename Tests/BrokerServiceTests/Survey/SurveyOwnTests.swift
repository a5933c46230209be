import BrokerService
import Foundation
import RemotingProtocol
import TestFolders
import Testing

/// The same for stores Apus has run on, before the way back.
@Suite("a store of Apus's looked at before it goes back") struct SurveyOwnTests {
    private static func decisions(_ report: StoreReport, _ target: StoreTarget) -> [String] {
        StoreFindings(report).concerning([target]).filter { $0.weight == .decide }.map(\.text)
    }

    /// Two ordinary messages, one in delay level 18, a timer message that is delivered and two that wait for an hour
    /// and two; a setting changed online.
    private func filled() throws -> BrokerHarness {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        func send(_ body: String, _ properties: String = "WAIT=true") throws {
            let sent = try connection.send(
                topic: "Way", queueID: 0, body: body, properties: RawConnection.properties(properties))
            #expect(sent.code == 0)
        }
        try send("one")
        try send("two")
        try send("late", "DELAY=18")
        try send("soon", "TIMER_DELAY_MS=200;UNIQ_KEY=A0")
        try send("hour", "TIMER_DELAY_MS=3600000;UNIQ_KEY=A1")
        try send("hours", "TIMER_DELAY_MS=7200000;UNIQ_KEY=A2")
        let changed = try connection.invoke(
            .updateBrokerConfig, [:], body: Array("fileReservedTime=48\n".utf8))
        #expect(changed.code == 0)
        #expect(try connection.wait("Way", count: 3).map(\.body) == ["one", "two", "soon"])
        return harness
    }

    @Test("counts, timers by who would deliver them, settings, files of its own")
    func facts() throws {
        let harness = try filled()
        try harness.drain()
        defer { try? FileManager.default.removeItem(at: harness.folder) }
        let report = try StoreSurvey.read(harness.folder.path)
        #expect(report.writer == .apus && report.isClean, "\(report.writerSign)")
        #expect(report.topics.first { $0.name == "Way" }?.messages == 3)
        #expect(report.delays.map { [Int64($0.level), $0.pending, $0.uncounted] } == [[18, 1, 0]])
        #expect(report.timers.pending == 2 && report.timers.onlyInApus == 0)
        #expect(report.timers.lastDueMilliseconds - report.timers.firstDueMilliseconds > 3_500_000)
        #expect(report.timers.deliveredAgain == 1)
        #expect(report.settings.map { "\($0.key)=\($0.value) \($0.file ?? "-")" } == ["fileReservedTime=48 -"])
        #expect(
            Set(report.ownFiles.map(\.name)).isSuperset(of: [
                "apus-timer", "consumequeue/.apus-recovery", "config/changedSettings.json",
            ]))
        #expect(Self.decisions(report, .apus).isEmpty)
        let four = Self.decisions(report, .rocketMQ4)
        #expect(
            four.count == 2 && four.contains { $0.contains("2 timer messages; RocketMQ 4.x delivers none") }, "\(four)")
        let five = Self.decisions(report, .rocketMQ5)
        #expect(five.count == 2 && five.contains { $0.contains("deliver 1 of them once more") }, "\(five)")
        #expect(StoreFindings.usualTargets(report.writer) == [.rocketMQ4, .rocketMQ5])
    }

    @Test("edited, deleted and rescheduled messages: what RocketMQ would deliver of them, and whether anyone waits")
    func edits() throws {
        let harness = try BrokerHarness()
        defer { try? FileManager.default.removeItem(at: harness.folder) }
        let connection = try harness.connect()
        func send(_ body: String, _ properties: String) throws {
            let sent = try connection.send(
                topic: "Way", queueID: 0, body: body, properties: RawConnection.properties(properties))
            #expect(sent.code == 0)
        }
        func edit(_ operation: String, _ key: String, _ fields: [String: String] = [:], body: String? = nil) throws {
            var all = fields.merging(["topic": "Way", "msgId": key, "operation": operation, "by": "alice"]) { $1 }
            if body != nil { all["hasBody"] = "true" }
            let answer = try connection.invoke(.editMessage, all, body: Array((body ?? "").utf8))
            #expect(answer.code == 0, "\(operation) \(key): \(answer.remark ?? "")")
        }
        for number in 0..<5 { try send("\(number)", "UNIQ_KEY=u\(number)") }
        try send("level", "DELAY=18;UNIQ_KEY=level")
        let hour = String(Int64(Date().timeIntervalSince1970 * 1000) + 3_600_000)
        for key in ["t0", "t1", "t2", "t3"] { try send(key, "TIMER_DELIVER_MS=\(hour);UNIQ_KEY=\(key)") }
        #expect(try connection.makeGroup("G", retryQueues: 1).code == 0)
        func commit(_ offset: Int) throws {
            let fields = ["consumerGroup": "G", "topic": "Way", "queueId": "0", "commitOffset": String(offset)]
            #expect(try connection.invoke(.updateConsumerOffset, fields).code == 0)
        }
        try edit("edit", "u0", body: "twice")
        try edit("edit", "u0", body: "edited")
        try edit("delete", "u3")
        try edit("edit", "u4", body: "edited")
        try commit(1)
        try edit("cancel", "level")
        // Away and back again, edited in place, withdrawn: one waits as it was sent.
        try edit("reschedule", "t0", ["deliverAt": String((Int64(hour) ?? 0) + 60_000)])
        try edit("reschedule", "t0", ["deliverAt": hour])
        try edit("edit", "t1", body: "edited")
        try edit("cancel", "t2")
        try harness.drain()
        let report = try StoreSurvey.read(harness.folder.path)
        #expect(report.edits.changed == 1 && report.edits.deleted == 2 && report.edits.behind == 1, "\(report.edits)")
        #expect(report.edits.topics == ["SCHEDULE_TOPIC_XXXX", "Way"] && report.edits.problem == nil)
        #expect(report.timers.pending == 3 && report.timers.restored == 3, "\(report.timers)")
        for target in [StoreTarget.rocketMQ4, .rocketMQ5] {
            let texts = Self.decisions(report, target)
            let words = "1 edited message, 2 deleted or withdrawn ones (SCHEDULE_TOPIC_XXXX, Way)"
            #expect(texts.contains { $0.contains(words) }, "\(texts)")
        }
        #expect(Self.decisions(report, .rocketMQ5).contains { $0.contains("3 timer messages; RocketMQ 5.x") })
        #expect(Self.decisions(report, .apus).isEmpty)
        // Damaged, it is not known; a start puts it right.
        let file = harness.folder.appendingPathComponent("consumequeue/.apus-edits")
        try Data("nonsense".utf8).write(to: file)
        let damaged = try StoreSurvey.read(harness.folder.path)
        let words = "it is not known which messages were edited"
        #expect(Self.decisions(damaged, .rocketMQ4).contains { $0.contains(words) })
        #expect(Self.decisions(damaged, .apus).isEmpty)
        let next = try BrokerHarness(folder: harness.folder)
        try next.drain()
        let again = try StoreSurvey.read(harness.folder.path)
        // The delay level's queue has been looked at from its beginning, and the withdrawn message is behind.
        #expect(again.edits.changed == 1 && again.edits.deleted == 1 && again.edits.behind == 2, "\(again.edits)")
        #expect(again.edits.problem == nil)
    }

    @Test("killed: it says so, and how to end it in order")
    func killed() throws {
        let harness = try filled()
        // As `kill -9` leaves it: the lock is gone with the process, everything else is there.
        let copy = try TestFolder.make("survey").appendingPathComponent("store")
        try FileManager.default.copyItem(at: harness.folder, to: copy)
        try harness.end()
        let report = try StoreSurvey.read(copy.path)
        #expect(!report.isClean)
        #expect(Self.decisions(report, .rocketMQ4).contains { $0.contains("not stopped in order") })
    }

    @Test("RocketMQ ran on it since: the log goes on, or only its tables are another's")
    func ranSince() throws {
        let harness = try filled()
        try harness.drain()
        defer { try? FileManager.default.removeItem(at: harness.folder) }
        let table = harness.folder.appendingPathComponent("config/topics.json")
        let text = try String(contentsOf: table, encoding: .utf8)
        try (text + "\n").write(to: table, atomically: false, encoding: .utf8)
        let report = try StoreSurvey.read(harness.folder.path)
        #expect(report.writer == .rocketMQ4, "\(report.writerSign)")
        #expect(report.writerSign.contains("topics.json is another's"))
    }

    /// What RocketMQ 5 notes of its wheel: the next second to be read, and how far it has taken the queue in.
    private func note(_ folder: URL, read: Int64, taken: Int64) throws {
        var bytes = Data(count: 4096)
        for (place, number) in [(0, read), (16, taken), (24, taken)] {
            withUnsafeBytes(of: number.bigEndian) { bytes.replaceSubrange(place..<(place + 8), with: $0) }
        }
        try bytes.write(to: folder.appendingPathComponent("config/timercheck"))
    }

    @Test("there and back and there again: what RocketMQ 5 delivered meanwhile, Apus does not deliver once more")
    func backAgain() throws {
        let harness = try filled()
        try harness.drain()
        // RocketMQ 5 ran for an hour and a half and delivered the first of the two.
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        try note(harness.folder, read: now + 5_400_000, taken: 3)
        // By this machine's clock that is not yet: a note of what is to come is no note of deliveries.
        #expect(try StoreSurvey.read(harness.folder.path).timers.pending == 2)
        let clock = ShiftedClock()
        clock.shift = 7_300_000
        let again = try BrokerHarness(folder: harness.folder, clock: clock)
        defer { try? again.end() }
        let connection = try again.connect()
        let bodies = try connection.wait("Way", count: 5, seconds: 3).map(\.body)
        // Level 18 has come as well.
        #expect(bodies.sorted() == ["hours", "late", "one", "soon", "two"])
    }
}
