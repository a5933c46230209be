import BrokerService
import Foundation
import MessageModel
import RemotingProtocol
import StoreFormat
import Testing

@Suite("transactions, through a broker")
struct TransactionTests {
    static let settings = [
        ("transactionTimeOut", "300"), ("transactionCheckInterval", "300"), ("transactionCheckMax", "2"),
    ]

    private struct Prepared {
        var physicalOffset: Int64
        var queueOffset: Int64
        var queueID: String?
    }

    private func prepare(
        _ connection: RawConnection, _ key: String, body: String = "b", more: String = "", group: String = "PG"
    ) throws -> Prepared {
        let properties = "KEYS=\(key);TRAN_MSG=true;UNIQ_KEY=\(key);WAIT=true;PGROUP=\(group);TAGS=TX" + more
        let answer = try connection.send(
            topic: "TX", queueID: 1, body: body, properties: RawConnection.properties(properties), group: group)
        #expect(answer.code == 0, "\(answer.remark ?? "")")
        let id = try #require(OffsetMessageID.parse(answer.extFields["msgId"] ?? ""))
        return Prepared(
            physicalOffset: id.physicalOffset, queueOffset: Int64(answer.extFields["queueOffset"] ?? "") ?? -1,
            queueID: answer.extFields["queueId"])
    }

    private func end(
        _ connection: RawConnection, _ prepared: Prepared, _ outcome: Int32, group: String = "PG", check: Bool = false
    ) throws -> RemotingCommand {
        try connection.invoke(
            .endTransaction,
            [
                "producerGroup": group, "tranStateTableOffset": String(prepared.queueOffset),
                "commitLogOffset": String(prepared.physicalOffset), "commitOrRollback": String(outcome),
                "fromTransactionCheck": String(check), "msgId": "x",
            ])
    }

    @Test("a committed message appears as Apache stores it, a rolled back one never; op messages in 4.9.8's form")
    func outcomes() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let first = try prepare(connection, "tx-commit")
        #expect(first.queueOffset == 0)
        #expect(first.queueID == "1")
        let second = try prepare(connection, "tx-rollback")
        #expect(try connection.consume("TX", queueID: 1).isEmpty)
        #expect(try end(connection, first, 8).code == 0)
        #expect(try end(connection, second, 12).code == 0)
        // The same again changes nothing.
        #expect(try end(connection, first, 8).code == 0)
        let delivered = try connection.consume("TX", queueID: 1)
        #expect(delivered.count == 1)
        let message = try #require(delivered.first)
        #expect(message.sysFlag == 8)
        #expect(message.preparedTransactionOffset == first.physicalOffset)
        #expect(
            message.properties.filter { $0.key != "WAIT" } == [
                "REAL_TOPIC": "TX", "REAL_QID": "1", "KEYS": "tx-commit", "TRAN_MSG": "true", "UNIQ_KEY": "tx-commit",
                "CLUSTER": "DefaultCluster", "PGROUP": "PG", "TAGS": "TX",
            ])
        let half = try connection.consume("RMQ_SYS_TRANS_HALF_TOPIC")
        #expect(half.map(\.sysFlag) == [0, 0])
        let op = try harness.stored("RMQ_SYS_TRANS_OP_HALF_TOPIC")
        #expect(op.map(\.body) == ["0", "1"])
        #expect(op.allSatisfy { $0.properties == ["WAIT": "true", "TAGS": "d"] && $0.sysFlag == 0 })
    }

    @Test("what Apache refuses is refused in its words")
    func refusals() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let prepared = try prepare(connection, "k")
        func remark(_ prepared: Prepared, group: String = "PG") throws -> String? {
            let answer = try end(connection, prepared, 8, group: group)
            #expect(answer.code == ResponseCode.systemError.rawValue)
            return answer.remark
        }
        #expect(try remark(prepared, group: "Other") == "The producer group wrong")
        var wrong = prepared
        wrong.queueOffset = 7
        #expect(try remark(wrong) == "The transaction state table offset wrong")
        wrong.physicalOffset = 1_000_000
        #expect(try remark(wrong) == "Find prepared transaction message failed")
        let rejecting = try BrokerHarness([("rejectTransactionMessage", "true")])
        defer { try? rejecting.end() }
        let refused = try rejecting.connect().send(
            topic: "TX", properties: RawConnection.properties("TRAN_MSG=true;PGROUP=PG"))
        #expect(refused.code == ResponseCode.noPermission.rawValue)
    }

    @Test("the producer is asked after the time-out and at each interval, then the message is put aside")
    func checks() throws {
        let harness = try BrokerHarness(Self.settings)
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.heartbeat("c1", producerGroup: "PG")
        let start = RawConnection.nowMilliseconds
        let prepared = try prepare(connection, "unknown", body: "who knows")
        _ = try connection.post(
            .endTransaction,
            [
                "producerGroup": "PG", "tranStateTableOffset": "0", "commitLogOffset": String(prepared.physicalOffset),
                "commitOrRollback": "0",
            ], oneway: true)
        let check = try connection.request(.checkTransactionState)
        let waited = RawConnection.nowMilliseconds - start
        #expect(waited >= 300 && waited < 600, "first check after \(waited) ms")
        #expect(check.isOneway)
        #expect(check.extFields["msgId"] == "unknown")
        #expect(check.extFields["transactionId"] == "unknown")
        #expect(check.extFields["tranStateTableOffset"] == "1")
        let message = try #require(Consumed.all(check.body).first)
        #expect(message.topic == "TX")
        #expect(message.queueID == 1)
        #expect(message.body == "who knows")
        #expect(message.properties["TRANSACTION_CHECK_TIMES"] == "1")
        let physical = try #require(check.extFields["commitLogOffset"].flatMap { Int64($0) })
        #expect(message.physicalOffset == physical)
        let second = try connection.request(.checkTransactionState)
        #expect(second.extFields["tranStateTableOffset"] == "2")
        let aside = try connection.wait("TRANS_CHECK_MAX_TIME_TOPIC", count: 1)
        #expect(aside.first?.body == "who knows")
        #expect(!connection.gets(.checkTransactionState, within: 600))
        // An operator has it asked again.
        let id = OffsetMessageID.text(
            host: HostAddress(ipv4: 0x7F00_0002, port: 31911),
            physicalOffset: try #require(aside.first?.physicalOffset))
        #expect(try connection.invoke(.resumeCheckHalfMessage, ["topic": "TX", "msgId": id]).code == 0)
        let again = try connection.request(.checkTransactionState)
        let offset = try #require(again.extFields["tranStateTableOffset"].flatMap { Int64($0) })
        let place = try #require(again.extFields["commitLogOffset"].flatMap { Int64($0) })
        #expect(
            try end(connection, Prepared(physicalOffset: place, queueOffset: offset), 8, check: true).code == 0)
        #expect(try connection.wait("TX", queueID: 1, count: 1).map(\.body) == ["who knows"])
    }

    @Test("a prepared message whose record has another's number is asked for as itself", arguments: [Int64(1), 0])
    func numberOfAnother(_ number: Int64) throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        let connection = try harness.connect()
        let prepared = [try prepare(connection, "first"), try prepare(connection, "second")]
        #expect(prepared.map(\.queueOffset) == [0, 1])
        try harness.drain()
        // No checksum of RocketMQ covers the number.
        try? FileManager.default.removeItem(at: harness.folder.appendingPathComponent("recordsums"))
        let log = try FileHandle(
            forUpdating: harness.folder.appendingPathComponent("commitlog/00000000000000000000"))
        let wrong = prepared[Int(1 - number)]
        try log.seek(toOffset: UInt64(wrong.physicalOffset) + UInt64(CommitLogRecord.queueOffsetPosition))
        try log.write(contentsOf: withUnsafeBytes(of: number.bigEndian) { Data($0) })
        try log.close()
        let next = try BrokerHarness([("transactionTimeOut", "300")], folder: harness.folder)
        defer { try? next.end() }
        let producer = try next.connect()
        try producer.heartbeat("c", producerGroup: "PG")
        let asked = try (0..<2).map { _ in try producer.request(.checkTransactionState) }
        #expect(asked.compactMap { $0.extFields["transactionId"] }.sorted() == ["first", "second"])
        for question in asked {
            let place = Prepared(
                physicalOffset: try #require(question.extFields["commitLogOffset"].flatMap { Int64($0) }),
                queueOffset: try #require(question.extFields["tranStateTableOffset"].flatMap { Int64($0) }))
            #expect(try end(producer, place, 8, check: true).code == 0)
        }
        let delivered = try producer.wait("TX", queueID: 1, count: 2)
        #expect(delivered.compactMap { $0.properties["UNIQ_KEY"] }.sorted() == ["first", "second"])
    }

    @Test("an answer to an older check decides the transaction, once")
    func lateAnswer() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "200"), ("transactionCheckInterval", "200")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.heartbeat("c1", producerGroup: "PG")
        let prepared = try prepare(connection, "slow")
        let first = try connection.request(.checkTransactionState)
        _ = try connection.request(.checkTransactionState)
        let offset = try #require(first.extFields["tranStateTableOffset"].flatMap { Int64($0) })
        let place = try #require(first.extFields["commitLogOffset"].flatMap { Int64($0) })
        #expect(try end(connection, Prepared(physicalOffset: place, queueOffset: offset), 8, check: true).code == 0)
        #expect(try end(connection, prepared, 8).code == 0)
        #expect(!connection.gets(.checkTransactionState, within: 700))
        #expect(try connection.consume("TX", queueID: 1).count == 1)
    }

    @Test("no producer there: none is asked, nothing is counted; the first that connects is asked at once")
    func absentProducer() throws {
        let harness = try BrokerHarness(Self.settings)
        defer { try? harness.end() }
        let sender = try harness.connect()
        _ = try prepare(sender, "alone")
        // Time passes, in which it could be asked for.
        usleep(1_500_000)
        #expect(try sender.consume("RMQ_SYS_TRANS_HALF_TOPIC").count == 1)
        let producer = try harness.connect()
        try producer.post(
            .heartBeat,
            body: HeartbeatData(clientID: "c2", producerGroups: ["PG"], consumerDataSet: []).encoded())
        let check = try producer.request(.checkTransactionState)
        #expect(Consumed.all(check.body).first?.properties["TRANSACTION_CHECK_TIMES"] == "1")
    }

    @Test("immunity in seconds takes the place of the time-out")
    func immunity() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "100"), ("transactionCheckInterval", "100000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.heartbeat("c1", producerGroup: "PG")
        let start = RawConnection.nowMilliseconds
        _ = try prepare(connection, "immune", more: ";CHECK_IMMUNITY_TIME_IN_SECONDS=1")
        _ = try connection.request(.checkTransactionState)
        #expect(RawConnection.nowMilliseconds - start >= 1000)
    }

    @Test("over kill -9: ended ones stay ended, open ones are asked for, each delivered by its outcome once")
    func afterKill() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "600000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        var expected: Set<String> = []
        for index in 0..<30 {
            let prepared = try prepare(connection, "k\(index)", body: "\(index)")
            if index % 3 == 0 {
                #expect(try end(connection, prepared, 8).code == 0)
                expected.insert("\(index)")
            } else if index % 3 == 1 {
                #expect(try end(connection, prepared, 12).code == 0)
            }
        }
        let killed = try harness.afterKill(Self.settings)
        defer { try? killed.end() }
        let producer = try killed.connect()
        try producer.post(
            .heartBeat, body: HeartbeatData(clientID: "c", producerGroups: ["PG"], consumerDataSet: []).encoded())
        var asked: Set<String> = []
        for _ in 0..<10 {
            let check = try producer.request(.checkTransactionState)
            asked.insert(check.extFields["msgId"] ?? "")
            let offset = try #require(check.extFields["tranStateTableOffset"].flatMap { Int64($0) })
            let place = try #require(check.extFields["commitLogOffset"].flatMap { Int64($0) })
            _ = try producer.post(
                .endTransaction,
                [
                    "producerGroup": "PG", "tranStateTableOffset": String(offset), "commitLogOffset": String(place),
                    "commitOrRollback": "8", "fromTransactionCheck": "true",
                ], oneway: true)
            if let body = Consumed.all(check.body).first?.body { expected.insert(body) }
        }
        #expect(asked == Set((0..<30).filter { $0 % 3 == 2 }.map { "k\($0)" }))
        let delivered = try producer.wait("TX", queueID: 1, count: 20)
        #expect(Set(delivered.map(\.body)) == expected)
        #expect(delivered.count == 20)
        #expect(!producer.gets(.checkTransactionState, within: 700))
        #expect(try producer.consume("TX", queueID: 1, from: 20).isEmpty)
    }

    @Test("immunity and the count of checks survive kill -9; put aside is put aside, also over the next one")
    func checksOverKills() throws {
        let settings = [
            ("transactionTimeOut", "200"), ("transactionCheckInterval", "1000"), ("transactionCheckMax", "3"),
        ]
        let harness = try BrokerHarness(settings)
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.heartbeat("c", producerGroup: "PG")
        _ = try prepare(connection, "asked")
        let sent = RawConnection.nowMilliseconds
        _ = try prepare(connection, "immune", more: ";CHECK_IMMUNITY_TIME_IN_SECONDS=4")
        var asked: [String: [String]] = [:]
        var immuneAt: Int64?
        func take(_ connection: RawConnection) throws {
            let check = try connection.request(.checkTransactionState, timeoutMilliseconds: 10_000)
            let id = check.extFields["msgId"] ?? ""
            if id == "immune", immuneAt == nil { immuneAt = RawConnection.nowMilliseconds }
            let times = Consumed.all(check.body).first?.properties["TRANSACTION_CHECK_TIMES"]
            asked[id, default: []].append(times ?? "?")
        }
        func producer(_ harness: BrokerHarness) throws -> RawConnection {
            let connection = try harness.connect()
            let body = HeartbeatData(clientID: "c", producerGroups: ["PG"], consumerDataSet: []).encoded()
            try connection.post(.heartBeat, body: body)
            return connection
        }
        try take(connection)
        #expect(asked == ["asked": ["1"]])
        let second = try harness.afterKill(settings)
        defer { try? second.end() }
        let again = try producer(second)
        while asked["immune"] == nil { try take(again) }
        #expect(try #require(immuneAt) - sent >= 4000)
        let third = try second.afterKill(settings)
        defer { try? third.end() }
        let last = try producer(third)
        while asked["asked"]?.last != "3" || asked["immune"]?.last != "3" { try take(last) }
        // A check of a broker that is about to be killed may reach no producer; none is counted anew.
        for times in asked.values {
            #expect(times.first == "1" && times == Array(Set(times)).sorted(), "\(asked)")
        }
        #expect(try last.wait("TRANS_CHECK_MAX_TIME_TOPIC", count: 2).count == 2)
        #expect(!last.gets(.checkTransactionState, within: 1500))
        // And over one more.
        let fourth = try third.afterKill(settings)
        defer { try? fourth.end() }
        #expect(!(try producer(fourth)).gets(.checkTransactionState, within: 1500))
        let aside = try fourth.stored("TRANS_CHECK_MAX_TIME_TOPIC").compactMap { $0.properties["UNIQ_KEY"] }
        #expect(aside.sorted() == ["asked", "immune"])
    }

    @Test("changed settings hold at once, for what waits already too")
    func reload() throws {
        let harness = try BrokerHarness([
            ("transactionTimeOut", "600000"), ("transactionCheckInterval", "600000"), ("transactionCheckMax", "9"),
        ])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.heartbeat("c", producerGroup: "PG")
        _ = try prepare(connection, "waiting")
        _ = try prepare(connection, "immune", more: ";CHECK_IMMUNITY_TIME_IN_SECONDS=3600")
        #expect(!connection.gets(.checkTransactionState, within: 300))
        // As `apus reload` does.
        try harness.onLoop { $0.reload(settings: [("transactionTimeOut", "100")]) }
        let check = try connection.request(.checkTransactionState)
        #expect(check.extFields["msgId"] == "waiting")
        #expect(!connection.gets(.checkTransactionState, within: 300))
        // As mqadmin updateBrokerConfig does; the answer waits for the disk, the check does not.
        let changed = try harness.connect().invoke(
            .updateBrokerConfig, body: Array("transactionCheckInterval=200\ntransactionCheckMax=2\n".utf8))
        #expect(changed.code == 0)
        #expect(try connection.request(.checkTransactionState).extFields["msgId"] == "waiting")
        #expect(try connection.wait("TRANS_CHECK_MAX_TIME_TOPIC", count: 1).count == 1)
    }

    @Test("a committed message that is to be delayed is delayed from its commit on")
    func delayed() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let level = try prepare(connection, "level", body: "level", more: ";DELAY=1")
        let timer = try prepare(connection, "timer", body: "timer", more: ";TIMER_DELAY_MS=500")
        let start = RawConnection.nowMilliseconds
        #expect(try end(connection, level, 8).code == 0)
        #expect(try end(connection, timer, 8).code == 0)
        #expect(try connection.consume("TX", queueID: 1).isEmpty)
        let delivered = try connection.wait("TX", queueID: 1, count: 2)
        #expect(delivered.map(\.body) == ["timer", "level"])
        #expect(delivered.allSatisfy { $0.storeTimestamp - start >= 490 })
    }

    @Test("over kill -9: a retry of a committed message ends no other transaction")
    func retryOverKill() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        // The log's first record has the queue offset of the first half message.
        #expect(try connection.send(topic: "Other", body: "first").code == 0)
        _ = try prepare(connection, "open")
        let prepared = try prepare(connection, "committed")
        #expect(try end(connection, prepared, 8).code == 0)
        let delivered = try #require(try connection.consume("TX", queueID: 1).first)
        let back = try connection.invoke(
            .consumerSendMessageBack,
            ["group": "G", "offset": String(delivered.physicalOffset), "delayLevel": "0", "originTopic": "TX"])
        #expect(back.code == 0)
        let killed = try harness.afterKill(Self.settings)
        defer { try? killed.end() }
        let producer = try killed.connect()
        try producer.post(
            .heartBeat, body: HeartbeatData(clientID: "c", producerGroups: ["PG"], consumerDataSet: []).encoded())
        let check = try producer.request(.checkTransactionState)
        #expect(check.extFields["msgId"] == "open")
    }

    @Test("a kill between the two records of a commit: the message stays delivered, no producer is asked")
    func tornCommit() throws {
        let harness = try BrokerHarness([("transactionTimeOut", "60000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try prepare(connection, "open")
        let prepared = try prepare(connection, "committed", body: "once")
        #expect(try end(connection, prepared, 8).code == 0)
        let op = try #require(try harness.stored("RMQ_SYS_TRANS_OP_HALF_TOPIC").first)
        let killed = try harness.afterKill(Self.settings) { folder in
            let log = try FileHandle(
                forWritingTo: folder.appendingPathComponent("commitlog/00000000000000000000"))
            let size = try log.seekToEnd()
            try log.truncate(atOffset: UInt64(op.physicalOffset))
            try log.truncate(atOffset: size)
            try log.close()
        }
        defer { try? killed.end() }
        let producer = try killed.connect()
        try producer.post(
            .heartBeat, body: HeartbeatData(clientID: "c", producerGroups: ["PG"], consumerDataSet: []).encoded())
        let check = try producer.request(.checkTransactionState)
        #expect(check.extFields["msgId"] == "open")
        let next = try producer.request(.checkTransactionState)
        #expect(next.extFields["msgId"] == "open")
        #expect(try producer.consume("TX", queueID: 1).map(\.body) == ["once"])
        #expect(try killed.stored("RMQ_SYS_TRANS_OP_HALF_TOPIC").first?.body == "1")
    }

    /// Apache, too, delivers what is committed after it was put aside; here it counts once.
    @Test("an outcome that comes after the message was put aside still holds, once, also over kill -9")
    func lateOutcome() throws {
        let settings = [
            ("transactionTimeOut", "100"), ("transactionCheckInterval", "100"), ("transactionCheckMax", "1"),
        ]
        let harness = try BrokerHarness(settings)
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.heartbeat("c", producerGroup: "PG")
        let committed = try prepare(connection, "committed", body: "committed")
        let rolledBack = try prepare(connection, "rolled back", body: "rolled back")
        let resumed = try prepare(connection, "resumed", body: "resumed")
        let later = try prepare(connection, "later", body: "later")
        let aside = try connection.wait("TRANS_CHECK_MAX_TIME_TOPIC", count: 4)
        #expect(aside.map(\.body).sorted() == ["committed", "later", "resumed", "rolled back"])
        for _ in 0..<2 { #expect(try end(connection, committed, 8).code == 0) }
        #expect(try end(connection, rolledBack, 12).code == 0)
        #expect(try end(connection, rolledBack, 8).code == 0)
        #expect(try connection.wait("TX", queueID: 1, count: 1).map(\.body) == ["committed"])
        // An operator has one asked for again, and one that is over not.
        func resume(_ body: String) throws -> ResponseCode? {
            let place = try #require(aside.first { $0.body == body }).physicalOffset
            let id = OffsetMessageID.text(
                host: HostAddress(ipv4: 0x7F00_0002, port: 31911), physicalOffset: place)
            return try connection.invoke(.resumeCheckHalfMessage, ["topic": "TX", "msgId": id]).responseCode
        }
        #expect(try resume("resumed") == .success)
        #expect(try resume("rolled back") == .systemError)
        for _ in 0..<2 { #expect(try end(connection, resumed, 8).code == 0) }
        #expect(try connection.wait("TX", queueID: 1, count: 2).map(\.body) == ["committed", "resumed"])
        let killed = try harness.afterKill(settings)
        defer { try? killed.end() }
        let again = try killed.connect()
        for prepared in [committed, rolledBack, resumed, later, later] {
            #expect(try end(again, prepared, 8).code == 0)
        }
        let delivered = try again.wait("TX", queueID: 1, count: 3)
        #expect(delivered.map(\.body) == ["committed", "resumed", "later"])
        // What was never prepared does not become so.
        let other = OffsetMessageID.text(
            host: HostAddress(ipv4: 0x7F00_0002, port: 31911), physicalOffset: delivered[0].physicalOffset)
        #expect(
            try again.invoke(.resumeCheckHalfMessage, ["topic": "TX", "msgId": other]).responseCode == .systemError)
        #expect(delivered.allSatisfy { $0.sysFlag == 8 })
        // Time passes, in which more could come.
        usleep(100_000)
        #expect(try again.consume("TX", queueID: 1, from: 3).isEmpty)
    }

    @Test("without an index an outcome that comes too late is refused, with the remedy")
    func lateOutcomeWithoutIndex() throws {
        let harness = try BrokerHarness([
            ("transactionTimeOut", "100"), ("transactionCheckInterval", "100"), ("transactionCheckMax", "1"),
            ("messageIndexEnable", "false"),
        ])
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.heartbeat("c", producerGroup: "PG")
        let prepared = try prepare(connection, "late")
        _ = try connection.wait("TRANS_CHECK_MAX_TIME_TOPIC", count: 1)
        let answer = try end(connection, prepared, 8)
        #expect(answer.code == ResponseCode.systemError.rawValue)
        #expect(answer.remark?.contains("RESUME_CHECK_HALF_MESSAGE") == true)
        #expect(try connection.consume("TX", queueID: 1).isEmpty)
    }
}
