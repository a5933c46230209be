import BrokerService
import Foundation
import MessageStore
import RemotingProtocol
import Testing

@Suite("pulls whose bodies leave by sendfile")
struct LogFileTransferTests {
    private func body(_ number: Int, _ size: Int) -> String {
        "\(number) " + String(repeating: Character(UnicodeScalar(UInt8(97 + number % 26))), count: size)
    }

    @Test("runs of one topic between those of another, long ones and short ones, arrive whole and in order")
    func mixed() throws {
        let harness = try BrokerHarness([("sendfileBytesMin", "4096")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        var sent: [String] = []
        for number in 0..<60 {
            let text = body(number, number % 3 == 0 ? 3000 : 100)
            #expect(try connection.send(topic: "A", body: text).code == 0)
            sent.append(text)
            // Breaks the run now and then.
            if number % 7 == 6 { #expect(try connection.send(topic: "B", body: "between").code == 0) }
        }
        #expect(try connection.wait("A", count: 60).map(\.body) == sent)
        // Several answers on one connection, unread until all are asked for; small ones between.
        let again = try harness.connect()
        var asked: [Int32: Int64] = [:]
        for offset: Int64 in [0, 59, 20, 58, 33] {
            let opaque = try again.post(
                .pullMessage, RawConnection.pullFields(topic: "A", queueID: 0, offset: offset, count: 32))
            asked[opaque] = offset
        }
        for _ in 0..<5 {
            let answer = try again.receive()
            let offset = Int(try #require(asked[answer.opaque]))
            let found = Consumed.all(answer.body).map(\.body)
            #expect(found == Array(sent[offset..<min(60, offset + found.count)]) && !found.isEmpty)
        }
    }

    @Test("a log file deleted while it is being sent arrives whole")
    func deletedWhileSent() throws {
        let harness = try BrokerHarness([("mappedFileSizeCommitLog", "2097152"), ("maxMessageSize", "65536")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        var sent: [String] = []
        for number in 0..<160 {
            let text = body(number, 30_000)
            #expect(try connection.send(topic: "A", body: text).code == 0)
            sent.append(text)
        }
        try harness.flush()
        // More than sockets hold, unread.
        let slow = try harness.connect()
        for number in 0..<120 {
            _ = try slow.post(
                .pullMessage, RawConnection.pullFields(topic: "A", queueID: 0, offset: Int64(number % 40), count: 8))
        }
        // Time passes, in which the kernel fills the sockets: how much it has taken of a file shows nowhere.
        usleep(300_000)
        let deleted = try harness.onLoop { broker in
            var deleted = 0
            while broker.store.deleteOldestFile() { deleted += 1 }
            return deleted
        }
        #expect(deleted > 0)
        for _ in 0..<120 {
            let answer = try slow.receive()
            guard answer.code == 0 else { continue }
            for message in Consumed.all(answer.body) { #expect(message.body == sent[Int(message.queueOffset)]) }
        }
        // The connection is in order, and the broker serves on.
        #expect(try slow.consume("A", from: 159).map(\.body) == [sent[159]])
    }
}
