import BrokerService
import Foundation
import MessageModel
import RemotingProtocol
import StoreFormat
import TestFolders
import TestTools
import Testing

@Suite("popped messages that are given up") struct PopDeadLetterTests {
    private static let isOn = ("popDeadLetterEnable", "true")

    /// A topic with messages, and a group that may try twice again.
    private func withTopic(
        _ topic: String, messages: Int, settings: [(String, String)] = [isOn], disk: FailingDisk = FailingDisk(),
        log: LogLines? = nil, _ body: (BrokerHarness, RawConnection) throws -> Void
    ) throws {
        let harness = try BrokerHarness(settings, disk: disk, log: log) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<messages {
            _ = try connection.send(topic: topic, body: "m\(index)", properties: "KEYS\u{1}k\(index)\u{2}DELAY\u{1}0")
        }
        let group = #"{"groupName":"G","retryMaxTimes":2,"retryQueueNums":1,"consumeEnable":true}"#
        #expect(try connection.invoke(.updateAndCreateSubscriptionGroup, body: Array(group.utf8)).code == 0)
        try body(harness, connection)
    }

    /// Pops all messages so often, and has them come again at once.
    private func popInVain(
        _ connection: RawConnection, _ topic: String, times: Int, isOrdered: Bool = false
    ) throws -> [[Int32]] {
        try (0..<times).map { _ in
            let popped = try connection.pop(
                RawConnection.popFields(topic: topic, invisible: 60_000, isOrdered: isOrdered))
            for message in popped.messages { _ = try connection.change(message, topic: topic, invisible: 0) }
            return popped.messages.map(\.reconsumeTimes)
        }
    }

    private func letters(_ connection: RawConnection) throws -> [[String: String]] {
        let answer = try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "%DLQ%G", group: "Reader"))
        guard answer.code == 0 else { return [] }
        var letters: [[String: String]] = []
        answer.body.withUnsafeBytes { bytes in
            var place = 0
            while place < bytes.count,
                case .record(let record) = CommitLogRecord.parse(.init(rebasing: bytes[place...]))
            {
                var letter = MessageProperties.decode(record.properties)
                letter["body"] = String(decoding: record.body, as: UTF8.self)
                letter["times"] = String(record.reconsumeTimes)
                letters.append(letter)
                place += record.totalSize
            }
        }
        return letters
    }

    @Test("after retryMaxTimes deliveries more it is a dead letter with the reason, and finished")
    func givenUp() throws {
        let log = LogLines()
        try withTopic("Poison", messages: 2, log: log) { (_, connection) throws in
            #expect(try popInVain(connection, "Poison", times: 3) == [[0, 0], [1, 1], [2, 2]])
            #expect(try connection.committed(topic: "Poison") == 0)
            #expect(try letters(connection).isEmpty)
            #expect(try connection.pop(RawConnection.popFields(topic: "Poison", poll: 300)).messages.isEmpty)
            let found = try letters(connection)
            #expect(found.map { $0["body"] } == ["m0", "m1"])
            #expect(found.map { $0["times"] } == ["3", "3"])
            for letter in found {
                #expect(letter["RETRY_TOPIC"] == "Poison")
                #expect(letter["ORIGIN_MESSAGE_ID"]?.count == 32)
                #expect(letter["DELAY"] == "0")
                #expect(letter["DEAD_LETTER_REASON"]?.contains("popped 3 times") == true)
                #expect(letter["DEAD_LETTER_REASON"]?.contains("retryMaxTimes of the group is 2") == true)
            }
            #expect(found.map { $0["KEYS"] } == ["k0", "k1"])
            #expect(try connection.committed(topic: "Poison") == 2)
            // Others go on.
            _ = try connection.send(topic: "Poison", body: "next")
            #expect(try connection.pop(RawConnection.popFields(topic: "Poison")).bodies == ["next"])
            #expect(try letters(connection).count == 2)
        }
        let isSaid = log.lines.contains { $0.contains("was given up after 3 deliveries and lies in %DLQ%G") }
        #expect(isSaid, "\(log.lines)")
    }

    @Test("off unless it is set, and set while the broker runs")
    func isOff() throws {
        try withTopic("Off", messages: 1, settings: []) { (_, connection) throws in
            #expect(try popInVain(connection, "Off", times: 5) == [[0], [1], [2], [3], [4]])
            let change = try connection.invoke(.updateBrokerConfig, body: Array("popDeadLetterEnable=true".utf8))
            #expect(change.code == 0, "\(change.remark ?? "")")
            #expect(try popInVain(connection, "Off", times: 1) == [[]])
            #expect(try letters(connection).map { $0["times"] } == ["5"])
        }
    }

    @Test("an ordered group goes on behind it")
    func ordered() throws {
        try withTopic("Order", messages: 2) { (_, connection) throws in
            let fields = RawConnection.popFields(topic: "Order", count: 1, isOrdered: true)
            for _ in 0..<3 {
                let popped = try connection.pop(fields)
                #expect(popped.bodies == ["m0"])
                _ = try connection.change(popped.messages[0], topic: "Order", invisible: 0)
            }
            var waiting = fields
            waiting["pollTime"] = "5000"
            #expect(try connection.pop(waiting).bodies == ["m1"])
            #expect(try letters(connection).map { $0["body"] } == ["m0"])
        }
    }

    @Test("while the disk refuses the dead letter the message stays in the claims, and moves when it takes it")
    func diskRefuses() throws {
        let disk = FailingDisk()
        try withTopic("Full", messages: 1, disk: disk) { (_, connection) throws in
            #expect(try popInVain(connection, "Full", times: 3) == [[0], [1], [2]])
            disk.error = ENOSPC
            let refused = try connection.pop(RawConnection.popFields(topic: "Full", poll: 300))
            // Delivered once more, for its dead letter is not taken.
            for message in refused.messages { _ = try connection.change(message, topic: "Full", invisible: 0) }
            #expect(try connection.committed(topic: "Full") == 0)
            disk.error = nil
            // The store looks at the disk anew within moments.
            try eventually("the dead letter is written", within: .seconds(20)) {
                _ = try popInVain(connection, "Full", times: 1)
                return try !letters(connection).isEmpty
            }
            #expect(try letters(connection).count == 1)
            try eventually("the message is finished") { try connection.committed(topic: "Full") == 1 }
        }
    }

    @Test("a message acknowledged at the last moment is no dead letter; the next start makes no second one")
    func restart() throws {
        let harness = try BrokerHarness([Self.isOn]) { TagFilterDouble.attach(to: $0) }
        var connection = try harness.connect()
        for index in 0..<2 { _ = try connection.send(topic: "Start", body: "m\(index)") }
        let group = #"{"groupName":"G","retryMaxTimes":0,"retryQueueNums":1,"consumeEnable":true}"#
        #expect(try connection.invoke(.updateAndCreateSubscriptionGroup, body: Array(group.utf8)).code == 0)
        let popped = try connection.pop(RawConnection.popFields(topic: "Start", invisible: 1))
        #expect(popped.messages.count == 2)
        try connection.acknowledge(popped.messages[1], topic: "Start")
        // Its time passes.
        #expect(try connection.pop(RawConnection.popFields(topic: "Start", poll: 400)).messages.isEmpty)
        #expect(try letters(connection).map { $0["body"] } == ["m0"])
        try harness.drain()
        let next = try BrokerHarness([Self.isOn], folder: harness.folder) { TagFilterDouble.attach(to: $0) }
        defer { try? next.end() }
        connection = try next.connect()
        #expect(try connection.pop(RawConnection.popFields(topic: "Start", poll: 300)).messages.isEmpty)
        #expect(try letters(connection).count == 1)
        #expect(try connection.committed(topic: "Start") == 2)
    }

    @Test("the journal's end is lost behind a dead letter: there is a second one, and nothing is lost")
    func journalLost() throws {
        let harness = try BrokerHarness([Self.isOn]) { TagFilterDouble.attach(to: $0) }
        var connection = try harness.connect()
        _ = try connection.send(topic: "Lost", body: "m")
        let group = #"{"groupName":"G","retryMaxTimes":0,"retryQueueNums":1,"consumeEnable":true}"#
        #expect(try connection.invoke(.updateAndCreateSubscriptionGroup, body: Array(group.utf8)).code == 0)
        #expect(try connection.pop(RawConnection.popFields(topic: "Lost", invisible: 1)).bodies == ["m"])
        try harness.drain()
        let kept = try TestFolder.make("kept")
        // The offsets are written every few seconds.
        let parts =
            try FileManager.default.contentsOfDirectory(atPath: harness.folder.path + "/config")
            .filter { $0.contains("consumerOffset") }.map { "config/" + $0 } + ["popState"]
        func copy(from source: URL, to target: URL) throws {
            for part in parts {
                let place = target.appendingPathComponent(part)
                try? FileManager.default.removeItem(at: place)
                try FileManager.default.copyItem(at: source.appendingPathComponent(part), to: place)
            }
        }
        try FileManager.default.createDirectory(
            at: kept.appendingPathComponent("config"), withIntermediateDirectories: true)
        try copy(from: harness.folder, to: kept)
        for expected in 1...2 {
            let next = try BrokerHarness([Self.isOn], folder: harness.folder) { TagFilterDouble.attach(to: $0) }
            connection = try next.connect()
            #expect(try connection.pop(RawConnection.popFields(topic: "Lost", poll: 400)).messages.isEmpty)
            #expect(try connection.committed(topic: "Lost") == 1)
            try next.drain()
            try copy(from: kept, to: harness.folder)
            let queues = try StoreSurvey.read(harness.folder.path).queues(of: "%DLQ%G")
            #expect(queues.map(\.end) == [Int64(expected)])
        }
        try FileManager.default.removeItem(at: harness.folder)
    }
}
