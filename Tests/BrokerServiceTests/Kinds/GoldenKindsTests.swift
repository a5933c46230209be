import Foundation
import NIOCore
import RemotingProtocol
import StoreFormat
import Testing

/// Flows in which the broker speaks by itself: what official clients got from Apache's broker, late or unasked, in that order.
@Suite("recorded flows of delayed, transactional, retried messages and replies")
struct GoldenKindsTests {
    /// Times of the recording made shorter; the order of what happens stays.
    static let settings = [
        ("messageDelayLevel", "1s 2s 3s"), ("transactionTimeOut", "700"), ("transactionCheckInterval", "5000"),
    ]

    @Test("every frame of Apache's broker has its counterpart", arguments: ["delay", "tx", "tx.bin", "rpc", "retry"])
    func replay(_ name: String) throws {
        let flow = try GoldenFlow(name)
        let harness = try BrokerHarness(Self.settings)
        defer { try? harness.end() }
        let player = Player(harness)
        for frame in flow.frames {
            if frame.isRequestOfClient {
                try player.clientSays(frame, flow)
            } else {
                try player.brokerSays(frame)
            }
        }
        #expect(player.compared > 10)
        switch name {
        case "tx", "tx.bin": #expect(player.unasked[.checkTransactionState] == 2)
        case "rpc": #expect(player.unasked[.pushReplyMessageToClient] == 1)
        default: break
        }
    }
}

/// Plays the clients' side of a flow.
private final class Player {
    let harness: BrokerHarness
    var connections: [Int: RawConnection] = [:]
    /// Frames of our broker nobody has looked at yet.
    var received: [Int: [RemotingCommand]] = [:]
    /// Requests whose answers come later, by connection and opaque.
    var held: [String: RemotingCommand] = [:]
    /// Apache's places in the log and the half queue → ours.
    var places: [String: String] = [:]
    /// Opaques of Apache's requests to clients → ours.
    var opaques: [Int32: RemotingCommand] = [:]
    var compared = 0
    var unasked: [RequestCode: Int] = [:]

    init(_ harness: BrokerHarness) { self.harness = harness }

    func clientSays(_ frame: GoldenFlow.Frame, _ flow: GoldenFlow) throws {
        let connection = try connections[frame.connection] ?? harness.connect()
        connections[frame.connection] = connection
        if frame.command.isResponse {
            if let request = opaques[frame.command.opaque] { try connection.answer(request) }
            return
        }
        try connection.send(adapted(frame))
        guard !frame.command.isOneway else { return }
        held["\(frame.connection) \(frame.command.opaque)"] = frame.command
    }

    func brokerSays(_ frame: GoldenFlow.Frame) throws {
        let expected = frame.command
        if expected.isResponse {
            guard let request = held["\(frame.connection) \(expected.opaque)"] else { return }
            // A heartbeat and a pull that crossed on different threads of Apache's.
            guard expected.code != ResponseCode.subscriptionNotLatest.rawValue else { return }
            let answer = try next(frame.connection) { $0.isResponse && $0.opaque == expected.opaque }
            compared += 1
            note(expected.extFields["msgId"], answer.extFields["msgId"])
            if request.requestCode == .pullMessage {
                for (theirs, mine) in zip(Consumed.all(expected.body), Consumed.all(answer.body)) {
                    places[String(theirs.physicalOffset)] = String(mine.physicalOffset)
                }
            }
            let wanted = NormalizedAnswer(expected, to: request)
            #expect(
                NormalizedAnswer(answer, to: request).shortened(to: wanted) == wanted,
                "request \(request.code) \(request.extFields)")
            return
        }
        guard let code = expected.requestCode, code != .notifyConsumerIDsChanged else { return }
        let request = try next(frame.connection) { !$0.isResponse && $0.requestCode == code }
        compared += 1
        unasked[code, default: 0] += 1
        opaques[expected.opaque] = request
        #expect(request.isOneway == expected.isOneway)
        #expect(Set(request.extFields.keys) == Set(expected.extFields.keys))
        for name in ["msgId", "transactionId", "tranStateTableOffset", "topic", "producerGroup", "queueId", "sysFlag"] {
            #expect(request.extFields[name] == expected.extFields[name])
        }
        if code == .checkTransactionState {
            places[expected.extFields["commitLogOffset"] ?? ""] = request.extFields["commitLogOffset"]
            let mine = Consumed.all(request.body)
            let theirs = Consumed.all(expected.body)
            #expect(mine.count == 1 && theirs.count == 1)
            for (mine, theirs) in zip(mine, theirs) {
                #expect(mine.topic == theirs.topic && mine.queueId == theirs.queueId && mine.body == theirs.body)
                #expect(mine.queueOffset == theirs.queueOffset && mine.sysFlag == theirs.sysFlag)
                #expect(mine.properties.filter { $0.key != "WAIT" } == theirs.properties.filter { $0.key != "WAIT" })
            }
        } else {
            #expect(request.body == expected.body)
        }
    }

    private func note(_ theirs: String?, _ mine: String?) {
        guard let theirs = theirs.flatMap({ OffsetMessageID.parse($0) }),
            let mine = mine.flatMap({ OffsetMessageID.parse($0) })
        else { return }
        places[String(theirs.physicalOffset)] = String(mine.physicalOffset)
    }

    private func adapted(_ frame: GoldenFlow.Frame) -> [UInt8] {
        var command = frame.command
        let name: String
        switch command.requestCode {
        case .endTransaction: name = "commitLogOffset"
        case .consumerSendMessageBack: name = "offset"
        default: return frame.bytes
        }
        command.extFields[name] = places[command.extFields[name] ?? ""]
        var buffer = ByteBuffer()
        command.encode(into: &buffer, serialization: frame.serialization)
        return Array(buffer.readableBytesView)
    }

    private func next(_ connection: Int, _ isWanted: (RemotingCommand) -> Bool) throws -> RemotingCommand {
        if let index = received[connection]?.firstIndex(where: isWanted), let found = received[connection]?[index] {
            received[connection]?.remove(at: index)
            return found
        }
        let open = try #require(connections[connection])
        while true {
            let frame = try open.receive(timeoutMillis: 10_000)
            if isWanted(frame) { return frame }
            received[connection, default: []].append(frame)
        }
    }
}
