import Foundation
import RemotingProtocol
import Testing

@testable import BrokerService

/// QUERY_MESSAGE (12) as tools send it.
@Suite("messages by key") struct QueryTests {
    @Test("a unique key finds its message also when tools read a later time from it; a key keeps its time window")
    func timeReadFromAKey() throws {
        // mqadmin asks for a unique key from the time on that it reads there. In keys of the official C++ client 2.0
        // that time may be days late (findings/cpp-client-message-id-time.sh); Apache's broker then finds nothing.
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "T", properties: "KEYS\u{1}order\u{2}UNIQ_KEY\u{1}U1\u{2}").code == 0)
        let tomorrow = Int64(Date().timeIntervalSince1970 * 1000) + 86_400_000
        func query(_ key: String, from begin: Int64, to end: Int64 = .max, isUnique: Bool) throws -> Int32 {
            try connection.invoke(
                .queryMessage,
                [
                    "topic": "T", "key": key, "maxNum": "8", "beginTimestamp": String(begin),
                    "endTimestamp": String(end), "_UNIQUE_KEY_QUERY": String(isUnique),
                ]
            ).code
        }
        let notFound = ResponseCode.queryNotFound.rawValue
        #expect(try query("U1", from: 0, isUnique: true) == 0)
        #expect(try query("U1", from: tomorrow, isUnique: true) == 0)
        #expect(try query("U2", from: tomorrow, isUnique: true) == notFound)
        // A question that names an end means a window.
        #expect(try query("U1", from: tomorrow, to: tomorrow + 1, isUnique: true) == notFound)
        #expect(try query("order", from: 0, isUnique: false) == 0)
        #expect(try query("order", from: tomorrow, isUnique: false) == notFound)
    }
}
