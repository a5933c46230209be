import FastJSON
import Foundation
import RemotingProtocol
import Testing

@Suite("delayed and timed messages, through a broker")
struct DelayTests {
    private func send(_ connection: RawConnection, _ topic: String, _ properties: String, body: String = "b") throws
        -> RemotingCommand
    {
        let answer = try connection.send(topic: topic, body: body, properties: RawConnection.properties(properties))
        #expect(answer.code == 0, "\(answer.remark ?? "")")
        return answer
    }

    @Test("level 1 arrives one second later, within 100 ms, with everything RocketMQ leaves in its properties")
    func levelOne() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<5 {
            _ = try send(
                connection, "D", "KEYS=k\(index);UNIQ_KEY=U\(index);WAIT=true;DELAY=1;TAGS=T", body: "\(index)")
            // Time passes: each is due at a moment of its own.
            usleep(37_000)
        }
        let stored = try connection.consume("SCHEDULE_TOPIC_XXXX")
        let delivered = try connection.wait("D", count: 5)
        #expect(delivered.map(\.body) == ["0", "1", "2", "3", "4"])
        for (before, after) in zip(stored, delivered) {
            let waited = after.storeTimestamp - before.storeTimestamp
            #expect(waited >= 1000 && waited <= 1100, "waited \(waited) ms")
            #expect(after.bornTimestamp == before.bornTimestamp)
            #expect(
                after.properties.filter { $0.key != "WAIT" } == [
                    "REAL_TOPIC": "D", "REAL_QID": "0", "KEYS": "k\(after.body)", "UNIQ_KEY": "U\(after.body)",
                    "CLUSTER": "DefaultCluster", "DELAY": "1", "TAGS": "T",
                ])
        }
    }

    @Test("after kill -9 each delayed message comes once: delivered ones not again, waiting ones in time")
    func levelsAfterKill() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<20 { _ = try send(connection, "D", "DELAY=1", body: "first \(index)") }
        #expect(try connection.wait("D", count: 20).count == 20)
        for index in 0..<20 { _ = try send(connection, "D", "DELAY=1", body: "second \(index)") }
        let killed = try harness.afterKill()
        defer { try? killed.end() }
        let after = try killed.connect()
        let all = try after.wait("D", count: 40)
        #expect(all.map(\.body) == (0..<20).map { "first \($0)" } + (0..<20).map { "second \($0)" })
        // Time passes, in which one could come twice.
        usleep(300_000)
        #expect(try after.consume("D", from: 40).isEmpty)
    }

    /// Stored again it would get a CRC that says it is good.
    @Test(
        "a waiting message whose bits have flipped is not delivered, and those beside it are",
        arguments: ["DELAY=5", "TIMER_DELAY_MS=60000"])
    func aDamagedWaitingMessage(_ properties: String) throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<3 { _ = try send(connection, "D", properties, body: "waiting \(index)") }
        // None is due before the kill, however long it takes to get there, and all are for the next broker.
        let clock = ShiftedClock()
        clock.shift = 61_000
        let killed = try harness.afterKill(clock: clock) { folder in
            let path = folder.path + "/commitlog/" + String(repeating: "0", count: 20)
            var log = try Data(contentsOf: URL(fileURLWithPath: path))
            let place = try #require(log.range(of: Data("waiting 1".utf8)))
            log[place.upperBound - 1] ^= 8
            try log.write(to: URL(fileURLWithPath: path))
        }
        defer { try? killed.end() }
        let after = try killed.connect()
        _ = try after.wait("D", count: 2)
        // Time passes, in which the third could come.
        usleep(300_000)
        let bodies = try after.consume("D").map(\.body)
        // A timer message may lie in a file of its own by then, where nothing has flipped.
        #expect(
            bodies == ["waiting 0", "waiting 2"]
                || (properties.hasPrefix("TIMER") && bodies.sorted() == ["waiting 0", "waiting 1", "waiting 2"]))
    }

    @Test("after a clean stop delayOffset.json counts exactly what was delivered")
    func delayOffsetFile() throws {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        for _ in 0..<3 { _ = try send(connection, "D", "DELAY=1") }
        _ = try send(connection, "D", "DELAY=18")
        #expect(try connection.wait("D", count: 3).count == 3)
        try harness.drain()
        let text = try String(
            contentsOf: harness.folder.appendingPathComponent("config/delayOffset.json"), encoding: .utf8)
        #expect(text.filter { !$0.isWhitespace } == "{\"offsetTable\":{1:3}}")
        try FileManager.default.removeItem(at: harness.folder)
    }

    @Test("timer messages come to the millisecond, in the order of their times")
    func timers() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let now = RawConnection.nowMilliseconds
        _ = try send(connection, "T", "TIMER_DELIVER_MS=\(now + 900)", body: "900")
        _ = try send(connection, "T", "TIMER_DELAY_MS=400", body: "400")
        _ = try send(connection, "T", "TIMER_DELAY_SEC=1", body: "1000")
        _ = try send(connection, "T", "TIMER_DELIVER_MS=\(now - 5)", body: "past")
        let delivered = try connection.wait("T", count: 4)
        #expect(delivered.map(\.body) == ["past", "400", "900", "1000"])
        for message in delivered.dropFirst() {
            let due = try #require(message.properties["TIMER_OUT_MS"].flatMap { Int64($0) })
            #expect(message.storeTimestamp >= due)
            #expect(message.storeTimestamp - due < 100, "\(message.storeTimestamp - due) ms late")
            #expect(message.properties["REAL_TOPIC"] == "T")
            // When it was taken in and when it left, as RocketMQ 5 notes it.
            let enqueued = try #require(message.properties["TIMER_ENQUEUE_MS"].flatMap { Int64($0) })
            let dequeued = try #require(message.properties["TIMER_DEQUEUE_MS"].flatMap { Int64($0) })
            #expect(enqueued >= now && enqueued < due && dequeued >= due && dequeued <= message.storeTimestamp)
        }
        let far = try connection.send(
            topic: "T", properties: RawConnection.properties("TIMER_DELAY_SEC=\(400 * 86_400)"))
        #expect(far.code == ResponseCode.messageIllegal.rawValue)
        #expect(
            try send(connection, "T", "TIMER_DELAY_SEC=\(365 * 86_400);UNIQ_KEY=X").extFields["recallHandle"] != nil)
    }

    @Test("a recalled message does not come; answers as 5.3.3")
    func recall() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        var handles: [String] = []
        for index in 0..<4 {
            let answer = try send(connection, "R", "TIMER_DELAY_MS=700;UNIQ_KEY=U\(index)", body: "\(index)")
            handles.append(try #require(answer.extFields["recallHandle"]))
        }
        let recalled = try connection.invoke(
            .recallMessage, ["topic": "R", "recallHandle": handles[1], "producerGroup": "P"])
        #expect(recalled.code == 0)
        #expect(recalled.extFields == ["msgId": "U1", "MSG_REGION": "DefaultRegion"])
        let delivered = try connection.wait("R", count: 3)
        // Time passes, in which the recalled one could come.
        usleep(200_000)
        #expect(delivered.map(\.body) == ["0", "2", "3"])
        #expect(try connection.consume("R", from: 3).isEmpty)
        func refused(_ fields: [String: String]) throws -> (Int32, String?) {
            let answer = try connection.invoke(.recallMessage, fields)
            return (answer.code, answer.remark)
        }
        #expect(try refused(["topic": "R", "recallHandle": handles[0]]) == (604, "recall failed, timestamp invalid"))
        #expect(try refused(["topic": "R", "recallHandle": "x"]) == (604, "recall handle is invalid"))
        #expect(try refused(["topic": "No", "recallHandle": "x"]).0 == ResponseCode.topicNotExist.rawValue)
    }

    @Test("timer messages over kill -9: none lost, none twice, none early; far ones wait in files")
    func timersAfterKill() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        let now = RawConnection.nowMilliseconds
        for index in 0..<30 {
            _ = try send(connection, "T", "TIMER_DELIVER_MS=\(now + Int64(index) * 60)", body: "\(index)")
        }
        _ = try send(connection, "T", "TIMER_DELAY_SEC=7200", body: "far")
        // Some are delivered, some are not.
        _ = try connection.wait("T", count: 15)
        let killed = try harness.afterKill()
        defer { try? killed.end() }
        let after = try killed.connect()
        let all = try after.wait("T", count: 30)
        #expect(Set(all.map(\.body)) == Set((0..<30).map(String.init)))
        #expect(all.count == 30)
        for message in all {
            if let due = message.properties["TIMER_OUT_MS"].flatMap({ Int64($0) }) {
                #expect(message.storeTimestamp >= due)
            }
        }
        // Time passes, in which one could come twice.
        usleep(300_000)
        #expect(try after.consume("T", from: 30).isEmpty)
        let files = try FileManager.default.contentsOfDirectory(
            atPath: harness.folder.appendingPathComponent("apus-timer").path)
        #expect(files.contains { $0.hasPrefix("h-") || $0.hasPrefix("d-") || $0.hasPrefix("m-") })
    }
}

@Suite("waiting messages in the broker's own figures")
struct WaitingFiguresTests {
    @Test("runtime information counts them: levels as RocketMQ does, timers and transactions besides")
    func runtimeInformation() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        for properties in [
            "DELAY=1", "DELAY=18", "TIMER_DELAY_SEC=30", "TRAN_MSG=true;PGROUP=P;UNIQ_KEY=u",
        ] {
            #expect(try connection.send(topic: "W", properties: RawConnection.properties(properties)).code == 0)
        }
        #expect(try connection.wait("W", count: 1).count == 1)
        let table = try connection.invoke(.getBrokerRuntimeInfo).json()["table"]
        #expect(table?["scheduleMessageOffset_1"]?.string == "1,1")
        #expect(table?["scheduleMessageOffset_18"] == nil)
        #expect(table?["openTransactions"]?.string == "1")
        #expect(table?["timerMessagesInMemory"]?.string == "1")
    }
}
