import Foundation
import RemotingProtocol
import Testing

@testable import BrokerService

/// Clients go on committing for a while after a topic was deleted.
@Suite("a topic that is made again") struct TopicMadeAgainTests {
    @Test("begins at its first message for every group, whatever was committed meanwhile")
    func beginsAtTheBeginning() throws {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        for number in 0..<5 { #expect(try connection.send(topic: "T", body: "old \(number)").code == 0) }
        func commit(_ offset: Int64) throws -> RemotingCommand {
            try connection.invoke(
                .updateConsumerOffset,
                ["topic": "T", "consumerGroup": "G", "queueId": "0", "commitOffset": String(offset)])
        }
        #expect(try connection.all("T").count == 5)
        #expect(try commit(3).code == 0)
        #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "T"]).code == 0)
        // By itself, and with a pull. What is answered says whether it counts.
        let late = try commit(5)
        #expect(late.code != 0, "a commit for a topic that is not there was taken")
        var pull = RawConnection.pullFields(topic: "T", offset: 5)
        pull["sysFlag"] = "5"
        pull["commitOffset"] = "5"
        #expect(try connection.invoke(.pullMessage, pull).code == ResponseCode.topicNotExist.rawValue)
        for number in 0..<8 { #expect(try connection.send(topic: "T", body: "new \(number)").code == 0) }
        let query = ["topic": "T", "consumerGroup": "G", "queueId": "0"]
        let begin = try connection.invoke(.queryConsumerOffset, query)
        #expect(begin.code == 0 && begin.extFields["offset"] == "0", "\(begin.extFields)")
        #expect(try connection.consume("T").map(\.body) == (0..<8).map { "new \($0)" })
        try harness.drain()
        let next = try BrokerHarness(folder: harness.folder)
        defer { try? next.end() }
        #expect(try next.connect().invoke(.queryConsumerOffset, query).extFields["offset"] == "0")
    }
}
