import BrokerService
import Foundation
import MessageStore
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

@Suite("messages that wait for their time hold the log they lie in")
struct RetentionHoldTests {
    /// Deletes what may be deleted; returns how many files that were.
    private func deleteAll(_ harness: BrokerHarness) throws -> Int {
        try harness.onLoop { broker in
            var deleted = 0
            while broker.store.deleteOldestFile() { deleted += 1 }
            return deleted
        }
    }

    @Test(
        "disk pressure just before a timer or a delayed message is due does not lose it",
        arguments: ["TIMER_DELAY_MS=2500", "DELAY=1"])
    func held(_ kind: String) throws {
        let harness = try BrokerHarness([("mappedFileSizeCommitLog", "65536"), ("maxMessageSize", "32768")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<3 {
            let answer = try connection.send(
                topic: "Due", body: "\(index)", properties: RawConnection.properties("\(kind);UNIQ_KEY=u\(index)"))
            #expect(answer.code == 0, "\(answer.remark ?? "")")
        }
        let filler = String(repeating: "f", count: 16_000)
        for _ in 0..<20 { #expect(try connection.send(topic: "Filler", body: filler).code == 0) }
        // Only what is flushed may go at all.
        try harness.flush()
        #expect(try deleteAll(harness) == 0)
        let delivered = try connection.wait("Due", count: 3)
        #expect(delivered.map(\.body) == ["0", "1", "2"])
        // Delivered, and noted so that a crash does not need them again: now the log goes.
        try eventually("the log goes", within: .seconds(45)) { try deleteAll(harness) > 0 }
    }

    private static let small = [("mappedFileSizeCommitLog", "65536"), ("maxMessageSize", "32768")]
    /// No producer is asked for an outcome while a test lasts; the disk is looked at all the time.
    private static let patient = small + [("transactionTimeOut", "600000"), ("cleanResourceInterval", "100")]

    private func prepare(_ connection: RawConnection, _ key: String) throws -> (place: String, queueOffset: String) {
        let answer = try connection.send(
            topic: "Due", body: key, properties: RawConnection.properties("TRAN_MSG=true;PGROUP=PG;UNIQ_KEY=\(key)"),
            group: "PG")
        #expect(answer.code == 0, "\(answer.remark ?? "")")
        let id = try #require(OffsetMessageID.parse(answer.extFields["msgId"] ?? ""))
        return (String(id.physicalOffset), answer.extFields["queueOffset"] ?? "")
    }

    private func end(
        _ connection: RawConnection, _ prepared: (place: String, queueOffset: String), _ outcome: Int
    ) throws -> RemotingCommand {
        try connection.invoke(
            .endTransaction,
            [
                "producerGroup": "PG", "tranStateTableOffset": prepared.queueOffset,
                "commitLogOffset": prepared.place, "commitOrRollback": String(outcome),
                "fromTransactionCheck": "false",
            ])
    }

    private func fill(_ harness: BrokerHarness, _ connection: RawConnection) throws {
        let filler = String(repeating: "f", count: 16_000)
        for _ in 0..<20 { #expect(try connection.send(topic: "Filler", body: filler).code == 0) }
        try harness.flush()
    }

    @Test("a prepared message holds its log file until its outcome is known")
    func preparedIsHeld() throws {
        let harness = try BrokerHarness(Self.small + [("transactionTimeOut", "600000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let committed = try prepare(connection, "committed")
        let rolledBack = try prepare(connection, "rolled back")
        try fill(harness, connection)
        #expect(try deleteAll(harness) == 0)
        #expect(try end(connection, committed, 8).code == 0)
        try fill(harness, connection)
        #expect(try deleteAll(harness) == 0)
        #expect(try end(connection, rolledBack, 12).code == 0)
        #expect(try connection.wait("Due", count: 1).map(\.body) == ["committed"])
        try fill(harness, connection)
        try eventually("the log goes", within: .seconds(30)) { try deleteAll(harness) > 0 }
    }

    @Test("on a disk too full for producers an outcome is stored all the same, with what it says of its message")
    func outcomeOnAFullDisk() throws {
        let disk = FailingDisk()
        let harness = try BrokerHarness(Self.patient, disk: disk)
        defer { try? harness.end() }
        let connection = try harness.connect()
        let committed = try prepare(connection, "committed")
        let rolledBack = try prepare(connection, "rolled back")
        disk.usedRatio = 0.95
        try eventually("sends are refused", within: .seconds(30)) {
            try connection.send(topic: "Filler", body: "f").code != 0
        }
        #expect(try connection.send(topic: "Filler", body: "f").code == ResponseCode.serviceNotAvailable.rawValue)
        // What `apus status` shows.
        #expect(try harness.onLoop { $0.trouble }?.contains("is full (above diskSpaceWarningLevelRatio") == true)
        #expect(try end(connection, committed, 8).code == 0)
        #expect(try end(connection, rolledBack, 12).code == 0)
        let outcomes = try harness.onLoop {
            $0.store.consumeQueue(topic: "RMQ_SYS_TRANS_OP_HALF_TOPIC", queueID: 0)?.maxOffset.rawValue
        }
        #expect(outcomes == 2)
        #expect(try connection.wait("Due", count: 1).map(\.body) == ["committed"])
    }

    @Test(
        "on a disk that must be emptied a prepared message moves with the log's end, and its producer is asked for it")
    func moved() throws {
        let disk = FailingDisk()
        let harness = try BrokerHarness(Self.patient, disk: disk)
        defer { try? harness.end() }
        let connection = try harness.connect()
        let first = try prepare(connection, "moved")
        try connection.heartbeat("c", producerGroup: "PG")
        try fill(harness, connection)
        disk.usedRatio = 0.87
        // Its file goes although it is open and no producer has been asked.
        try eventually("its file goes", within: .seconds(30)) {
            try harness.onLoop { broker in
                // What has moved counts when it survives power loss.
                broker.store.requestFlush()
                return broker.store.runtimeInformation.commitLogMinOffset > 0
            }
        }
        disk.usedRatio = nil
        try harness.onLoop { $0.reload(settings: [("transactionTimeOut", "100")]) }
        let check = try connection.request(.checkTransactionState, timeoutMilliseconds: 20_000)
        #expect(check.extFields["msgId"] == "moved")
        let message = try #require(Consumed.all(check.body).first)
        #expect(message.body == "moved")
        #expect(message.properties["TRANSACTION_CHECK_TIMES"] == "1")
        // The old place is gone, the one it is asked with is good.
        #expect(try end(connection, first, 8).code == ResponseCode.systemError.rawValue)
        let place = check.extFields["commitLogOffset"] ?? ""
        #expect(try end(connection, (place, check.extFields["tranStateTableOffset"] ?? ""), 8).code == 0)
        #expect(try connection.wait("Due", count: 1).map(\.body) == ["moved"])
    }
}
