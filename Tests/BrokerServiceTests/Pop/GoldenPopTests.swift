import BrokerService
import Foundation
import NIOCore
import RemotingProtocol
import StoreFormat
import Testing

/// What the official Java client 5.3.3 said while two members of a group popped a hundred messages of eight queues,
/// said to Apus. Handles and the order of queues are those of this run; everything else is as Apache answered it.
@Suite struct GoldenPopTests {
    private static let ofPop: Set<RequestCode> = [
        .popMessage, .ackMessage, .queryAssignment, .setMessageRequestMode,
    ]

    @Test("the Java client's pops, acknowledgements and assignments are answered as Apache answered them")
    func replay() throws {
        let flow = try GoldenFlow("pop-5.3.3")
        let harness = try BrokerHarness([("defaultTopicQueueNums", "8")]) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        var connections: [Int: RawConnection] = [:]
        var unacknowledged: [PoppedMessage] = []
        var compared: [RequestCode: Int] = [:]
        var (ours, theirs): ([String], [String]) = ([], [])
        for frame in flow.frames where frame.isRequestOfClient && !frame.command.isResponse {
            var request = frame.command
            let code = try #require(request.requestCode)
            let connection = try connections[frame.connection] ?? harness.connect()
            connections[frame.connection] = connection
            // The last pops wait until their client goes.
            guard let expected = flow.answer(to: frame) else { continue }
            switch code {
            case .popMessage: request.extFields["bornTime"] = "0"
            case .ackMessage:
                let message = unacknowledged.removeFirst()
                request.extFields["queueId"] = String(message.queueID)
                request.extFields["offset"] = String(message.offset)
                request.extFields["extraInfo"] = message.handle
            case .pullMessage: continue
            default: break
            }
            let answer = try connection.invoke(request)
            compared[code, default: 0] += 1
            // What else a client says is compared elsewhere (GoldenReplayTests).
            guard Self.ofPop.contains(code) else { continue }
            #expect(answer.code == expected.code, "\(code): \(answer.remark ?? "")")
            #expect(Set(answer.extFields.keys) == Set(expected.extFields.keys), "\(code)")
            switch code {
            case .popMessage:
                #expect(answer.remark == expected.remark)
                for name in ["restNum", "invisibleTime"] {
                    #expect(answer.extFields[name] == expected.extFields[name], "\(name)")
                }
                let (reply, recorded) = (try PopReply(answer), try PopReply(expected))
                #expect(reply.messages.count == recorded.messages.count)
                unacknowledged += reply.messages
                ours += NormalizedAnswer.messages(answer.body)
                theirs += NormalizedAnswer.messages(expected.body)
            case .queryAssignment, .setMessageRequestMode:
                #expect(String(decoding: answer.body, as: UTF8.self) == String(decoding: expected.body, as: UTF8.self))
            default: break
            }
        }
        #expect(compared[.popMessage] == 4)
        #expect(compared[.ackMessage] == 100)
        #expect(compared[.queryAssignment] == 4)
        #expect(compared[.setMessageRequestMode] == 1)
        #expect(unacknowledged.isEmpty)
        #expect(ours.count == 100)
        #expect(ours.sorted() == theirs.sorted())
        let connection = try harness.connect()
        let offsets = try (0..<8).map {
            try connection.committed(topic: "F5_pop_s26p1", queueID: $0, group: "C5Ps26p1")
        }
        #expect(offsets == [13, 13, 13, 13, 12, 12, 12, 12])
    }
}
