import BrokerService
import Foundation
import NIOCore
import RemotingProtocol
import StoreFormat
import Testing
import WorkerProtocol

/// The requests of official clients, replayed frame for frame, are answered as Apache RocketMQ 4.9.8 answered them.
@Suite struct GoldenReplayTests {
    @Test(
        "every answer to a recorded client equals Apache's",
        arguments: [
            "sync", "sync.bin", "batch", "batch.bin", "pull", "pull.bin", "order", "errors", "query", "litepull",
            "tag.bin",
        ])
    func replay(_ name: String) throws {
        let flow = try GoldenFlow(name)
        let harness = try BrokerHarness([("defaultTopicQueueNums", "8")]) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        var connections: [Int: RawConnection] = [:]
        var compared = 0
        // Where Apache stored a message → where we did.
        var offsets: [String: Int64] = [:]
        for frame in flow.frames where frame.isRequestOfClient {
            let request = frame.command
            let connection = try connections[frame.connection] ?? harness.connect()
            connections[frame.connection] = connection
            if request.isResponse { continue }
            try connection.send(adapted(frame, offsets))
            if request.isOneway { continue }
            guard let expected = flow.answer(to: frame), !isHeld(request) else { continue }
            let answer = try response(to: request.opaque, on: connection)
            compared += 1
            for (theirs, ours) in zip(expected.storedOffsets, answer.storedOffsets) { offsets[String(theirs)] = ours }
            let wanted = NormalizedAnswer(expected, to: request)
            #expect(
                NormalizedAnswer(answer, to: request).shortened(to: wanted) == wanted,
                "\(name): request \(request.code) \(request.extFields)")
        }
        #expect(compared > 5)
    }

    /// The frame as it was, but for times and places of the recording.
    private func adapted(_ frame: GoldenFlow.Frame, _ offsets: [String: Int64]) -> [UInt8] {
        var command = frame.command
        switch command.requestCode {
        case .viewMessageByID: command.extFields["offset"] = offsets[command.extFields["offset"] ?? ""].map(String.init)
        case .queryMessage: command.extFields["endTimestamp"] = String(Int64.max)
        case .searchOffsetByTimestamp where command.extFields["timestamp"] != "0":
            command.extFields["timestamp"] = String(Int64(Date().timeIntervalSince1970 * 1000) + 1000)
        default: return frame.bytes
        }
        var buffer = ByteBuffer()
        command.encode(into: &buffer, serialization: frame.serialization)
        return Array(buffer.readableBytesView)
    }

    /// Push consumers' pulls wait for messages: how many a wake-up brings depends on timing.
    private func isHeld(_ request: RemotingCommand) -> Bool {
        guard request.requestCode == .pullMessage || request.requestCode == .litePullMessage else { return false }
        return (Int32(request.extFields["sysFlag"] ?? "") ?? 0) & 2 != 0
    }

    private func response(to opaque: Int32, on connection: RawConnection) throws -> RemotingCommand {
        while true {
            let answer = try connection.receive()
            if answer.isResponse, answer.opaque == opaque { return answer }
        }
    }
}

extension RemotingCommand {
    /// Physical offsets in the message identifiers of an answer to a send.
    fileprivate var storedOffsets: [Int64] {
        (extFields["msgId"] ?? "").split(separator: ",").compactMap {
            OffsetMessageID.parse(String($0))?.physicalOffset
        }
    }
}

/// A filter worker that answers TAG expressions as the tag plugin does and refuses everything else.
enum TagFilterDouble {
    static func attach(to broker: Broker) {
        let filters = broker.filters
        filters.connect { [unowned filters] message in
            guard case .filterCompile(let request, let type, let expression) = message else { return }
            let result: FilterCompilation
            if type == "TAG" {
                let tags = expression.split(separator: "|").map { $0.trimmingPrefix(while: \.isWhitespace) }
                result = .tagsCodes(tags.map { TagsCode.of(String($0).filter { !$0.isWhitespace }) })
            } else {
                result = .refused(position: 3, reason: "no plugin for \(type)")
            }
            filters.receive(.filterCompiled(request: request, result: result))
        }
    }
}
