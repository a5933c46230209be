import BrokerService
import RemotingProtocol
import StoreFormat
import Testing
import WorkerProtocol

/// The requests of official clients, replayed frame for frame, are answered as Apache RocketMQ 4.9.8 answered them.
@Suite struct GoldenReplayTests {
    @Test(
        "every answer to a recorded client equals Apache's",
        arguments: [
            "sync", "sync.bin", "batch", "batch.bin", "pull", "pull.bin", "order", "errors", "query", "litepull", "tag.bin",
        ])
    func replay(_ name: String) throws {
        let flow = try GoldenFlow(name)
        let harness = try BrokerHarness([("defaultTopicQueueNums", "8")]) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        var connections: [Int: RawConnection] = [:]
        var compared = 0
        for frame in flow.frames where frame.isRequestOfClient {
            let request = frame.command
            let connection = try connections[frame.connection] ?? harness.connect()
            connections[frame.connection] = connection
            if request.isResponse { continue }
            try connection.send(frame.bytes)
            if request.isOneway { continue }
            guard let expected = flow.answer(to: frame), !isHeld(request) else { continue }
            let answer = try response(to: request.opaque, on: connection)
            compared += 1
            #expect(
                NormalizedAnswer(answer, to: request) == NormalizedAnswer(expected, to: request),
                "\(name): request \(request.code) \(request.extFields)")
        }
        #expect(compared > 5)
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
