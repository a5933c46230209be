import Foundation
import RemotingProtocol
import Testing

@testable import BrokerService

@Suite("the table of requests")
struct RequestTableTests {
    private static let readme = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Sources/BrokerService/README.md")

    @Test("the README's table of request codes is the one the broker works with")
    func readme() throws {
        let text = try String(contentsOf: Self.readme, encoding: .utf8)
        #expect(
            text.contains(RequestTable.markdown),
            "replace the table in Sources/BrokerService/README.md by this one:\n\(RequestTable.markdown)")
    }

    @Test("each code has one row, found by its code; others have none")
    func index() {
        for row in RequestTable.rows { #expect(RequestTable.byCode[row.code.rawValue] === row) }
        #expect(Set(RequestTable.rows.map(\.name)).count == RequestTable.rows.count)
        for code: Int32 in [-1, 0, 1023, 1024, 105, Int32.min, Int32.max] { #expect(RequestTable.byCode[code] == nil) }
    }

    @Test("what stores or claims messages is refused where that is impossible, else only tables and claims on slaves")
    func refusals() {
        let stores: Set<RequestCode> = [
            .sendMessage, .sendMessageV2, .sendBatchMessage, .consumerSendMessageBack, .endTransaction,
            .sendReplyMessage, .sendReplyMessageV2, .recallMessage, .popMessage, .editMessage,
        ]
        let refusedBySlaves: Set<RequestCode> = [
            .updateAndCreateTopic, .updateAndCreateTopicList, .deleteTopicInBroker, .updateAndCreateSubscriptionGroup,
            .updateAndCreateSubscriptionGroupList, .deleteSubscriptionGroup, .setMessageRequestMode,
            .ackMessage, .batchAckMessage, .changeMessageInvisibleTime, .getMessageStatus,
        ]
        for row in RequestTable.rows {
            if stores.contains(row.code) {
                #expect(row.refusedIn.isSuperset(of: [.withdrawn, .draining, .slave]), "\(row.name)")
            } else {
                #expect(row.refusedIn == (refusedBySlaves.contains(row.code) ? [.slave] : []), "\(row.name)")
            }
        }
    }

    @Test("every row is answered by a broker, and no processor is called for a code of another")
    func everyRowIsAnswered() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        for row in RequestTable.rows.sorted(by: { $0.code.rawValue < $1.code.rawValue }) {
            let answer = try connection.invoke(row.code)
            #expect(answer.code != ResponseCode.requestCodeNotSupported.rawValue, "\(row.name)")
        }
    }

    @Test("a slave refuses messages and changes of tables, each with its own code and reason")
    func slave() throws {
        let harness = try BrokerHarness([("brokerRole", "SLAVE"), ("brokerId", "1")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let expected: [(RequestCode, ResponseCode, String)] = [
            (.sendMessageV2, .serviceNotAvailable, "this broker is a slave"),
            (.consumerSendMessageBack, .serviceNotAvailable, "this broker is a slave"),
            (.endTransaction, .slaveNotAvailable, "this broker is a slave"),
            (.recallMessage, .slaveNotAvailable, "recall failed, service not available now. this broker is a slave"),
            (.updateAndCreateTopic, .systemError, "Can't modify topic or subscription group from slave broker"),
        ]
        for (code, wanted, reason) in expected {
            let answer = try connection.invoke(code)
            #expect(answer.code == wanted.rawValue, "\(code)")
            #expect(answer.remark?.contains(reason) == true, "\(code): \(answer.remark ?? "")")
        }
    }
}
