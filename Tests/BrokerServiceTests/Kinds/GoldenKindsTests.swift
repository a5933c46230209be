import Foundation
import NIOCore
import RemotingProtocol
import StoreFormat
import Testing

/// Flows in which the broker speaks by itself: what official clients got from Apache's broker, late or unasked, in that
/// order.
@Suite("recorded flows of delayed, transactional, retried messages and replies")
struct GoldenKindsTests {
    /// Times of the recording made shorter; the order of what happens stays.
    static let settings = [
        ("messageDelayLevel", "1s 2s 3s"), ("transactionTimeOut", "700"), ("transactionCheckInterval", "5000"),
    ]

    @Test(
        "every frame of Apache's broker has its counterpart",
        arguments: [
            "delay", "tx", "tx.bin", "rpc", "retry", "async", "async.bin", "oneway", "oneway.bin", "broadcast",
            "broadcast.bin", "rebalance", "rebalance.bin", "trace", "trace.bin", "order.bin", "litepull.bin",
            "errors.bin", "query.bin", "delay.bin", "retry.bin", "rpc.bin", "tag",
        ])
    func replay(_ name: String) throws { try play(name, Self.settings) }

    @Test(
        "the same for 5.3.3: what 4.9 clients see is the same, lite pull is 361, timers and recall are answered",
        arguments: [
            "batch", "delay", "litepull", "order", "pull", "query", "retry", "sync", "tx", "trace", "rebalance",
            "recall", "timer",
        ])
    func replayNewer(_ name: String) throws {
        try play(name + "-5.3.3", Self.settings + [("listenPort", "33911"), ("haListenPort", "33912")])
    }

    private func play(_ name: String, _ settings: [(String, String)]) throws {
        let flow = try GoldenFlow(name)
        let harness = try BrokerHarness(settings) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let player = Player(harness, name)
        for frame in flow.frames {
            if frame.isRequestOfClient {
                try player.clientSays(frame, flow)
            } else {
                try player.brokerSays(frame)
            }
        }
        #expect(player.compared > 5)
        // What one side's long polls found and the other's had not asked for yet is there all the same.
        let stored = try player.stored()
        #expect(player.consumed.theirs.subtracting(player.consumed.mine).isSubset(of: stored))
        #expect(player.consumed.mine.subtracting(player.consumed.theirs).isSubset(of: stored))
        switch name {
        case "tx", "tx.bin": #expect(player.unasked[.checkTransactionState] == 2)
        case "rpc": #expect(player.unasked[.pushReplyMessageToClient] == 1)
        default: break
        }
    }
}

extension RemotingCommand {
    /// A pull the broker may hold until there is something.
    fileprivate var isLongPoll: Bool {
        (requestCode == .pullMessage || requestCode == .litePullMessage)
            && (Int32(extFields["sysFlag"] ?? "") ?? 0) & 2 != 0
    }
}

/// Plays the clients' side of a flow.
private final class Player {
    let harness: BrokerHarness
    var connections: [Int: RawConnection] = [:]
    /// Frames of our broker that were not looked at yet.
    var received: [Int: [RemotingCommand]] = [:]
    /// Requests whose answers come later, by connection and opaque.
    var held: [String: RemotingCommand] = [:]
    /// Apache's places in the log and the half queue → ours.
    var places: [String: String] = [:]
    /// Opaques of Apache's requests to clients → ours.
    var opaques: [Int32: RemotingCommand] = [:]
    var compared = 0
    /// What long polls brought, whichever of them: how many messages one of them finds is a matter of microseconds.
    var consumed: (mine: Set<String>, theirs: Set<String>) = ([], [])
    var unasked: [RequestCode: Int] = [:]
    private var pulled: [(topic: String, queueID: Int32)] = []

    /// The client sent without waiting for answers.
    private let isAsynchronous: Bool

    /// Milliseconds, where the recording waits for the end of a long poll.
    private let suspendMax: Int64
    /// The recording is of 5.3.3.
    private let isNewer: Bool

    init(_ harness: BrokerHarness, _ name: String) {
        self.harness = harness
        isAsynchronous = name.hasPrefix("async") || name.hasPrefix("oneway")
        isNewer = name.hasSuffix("5.3.3")
        suspendMax = name == "retry-5.3.3" ? 2000 : 0
    }

    private func placeless(_ message: String) -> String {
        let message = isNewer ? NormalizedAnswer.older(message) : message
        return isAsynchronous ? message.replacing(/:\d+ flag/, with: " flag") : message
    }

    /// All there is now in the queues the clients have pulled from.
    func stored() throws -> Set<String> {
        let connection = try harness.connect()
        var all: Set<String> = []
        for (topic, queueID) in pulled {
            let answer = try connection.invoke(
                .pullMessage, RawConnection.pullFields(topic: topic, queueID: queueID, group: "Auditor", count: 1000))
            all.formUnion(NormalizedAnswer.messages(answer.body).map(placeless))
        }
        return all
    }

    func clientSays(_ frame: GoldenFlow.Frame, _ flow: GoldenFlow) throws {
        let connection = try connections[frame.connection] ?? harness.connect()
        connections[frame.connection] = connection
        if frame.command.isResponse {
            if let request = opaques[frame.command.opaque] { try connection.answer(request) }
            return
        }
        try connection.send(adapted(frame))
        if frame.command.isLongPoll, let topic = frame.command.extFields["topic"],
            let queueID = frame.command.extFields["queueId"].flatMap({ Int32($0) }),
            !pulled.contains(where: { $0 == (topic, queueID) })
        {
            pulled.append((topic, queueID))
        }
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
            if let handle = expected.extFields["recallHandle"] { places[handle] = answer.extFields["recallHandle"] }
            if request.requestCode == .pullMessage {
                for (theirs, mine) in zip(Consumed.all(expected.body), Consumed.all(answer.body)) {
                    places[String(theirs.physicalOffset)] = String(mine.physicalOffset)
                }
            }
            var wanted = NormalizedAnswer(expected, to: request)
            var got = NormalizedAnswer(answer, to: request).shortened(to: wanted)
            if isNewer { (got, wanted) = (got.older(than: wanted), wanted.older(than: got)) }
            if request.isLongPoll, expected.code == 0, answer.code == 0 {
                consumed.mine.formUnion(got.body.map(placeless))
                consumed.theirs.formUnion(wanted.body.map(placeless))
                (got.body, wanted.body) = ([], [])
                for name in ["nextBeginOffset", "maxOffset"] { (got.fields[name], wanted.fields[name]) = (nil, nil) }
            }
            if request.requestCode == .sendMessageV2, isAsynchronous {
                // Apache's threads overtake each other.
                (got.fields["queueOffset"], wanted.fields["queueOffset"]) = (nil, nil)
            }
            #expect(
                got == wanted,
                "request \(request.code) \(request.extFields)")
            return
        }
        guard let code = expected.requestCode, code != .notifyConsumerIDsChanged else { return }
        let request = try next(frame.connection) { !$0.isResponse && $0.requestCode == code }
        compared += 1
        unasked[code, default: 0] += 1
        opaques[expected.opaque] = request
        #expect(request.isOneway == expected.isOneway)
        let newer: Set<String> = isNewer && code == .checkTransactionState ? ["bname", "topic"] : []
        #expect(Set(request.extFields.keys) == Set(expected.extFields.keys).subtracting(newer))
        for name in ["msgId", "transactionId", "tranStateTableOffset", "topic", "producerGroup", "queueId", "sysFlag"]
        where !newer.contains(name) {
            #expect(request.extFields[name] == expected.extFields[name])
        }
        if code == .checkTransactionState {
            places[expected.extFields["commitLogOffset"] ?? ""] = request.extFields["commitLogOffset"]
            let mine = Consumed.all(request.body)
            let theirs = Consumed.all(expected.body)
            #expect(mine.count == 1 && theirs.count == 1)
            for (mine, theirs) in zip(mine, theirs) {
                #expect(mine.topic == theirs.topic && mine.queueID == theirs.queueID && mine.body == theirs.body)
                #expect(mine.queueOffset == theirs.queueOffset && mine.sysFlag == theirs.sysFlag)
                let left = ["WAIT"] + (isNewer ? ["__transactionId__"] : [])
                func kept(_ message: Consumed) -> [String: String] {
                    message.properties.filter { !left.contains($0.key) }
                }
                #expect(kept(mine) == kept(theirs))
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
        case .consumerSendMessageBack, .viewMessageByID: name = "offset"
        case .searchOffsetByTimestamp where command.extFields["timestamp"] != "0":
            name = "timestamp"
            places[command.extFields[name] ?? ""] = String(RawConnection.nowMilliseconds + 1000)
        case .recallMessage: name = "recallHandle"
        case .pullMessage where suspendMax > 0:
            name = "suspendTimeoutMillis"
            places[command.extFields[name] ?? ""] = String(suspendMax)
        case .sendMessageV2 where isNewer && command.extFields["i"]?.contains("TIMER_DELIVER_MS") == true:
            // As far ahead as it was then.
            let properties = command.extFields["i"] ?? ""
            let born = Int64(command.extFields["g"] ?? "") ?? 0
            command.extFields["i"] = properties.replacing(/TIMER_DELIVER_MS\x{1}(\d+)/) { match in
                "TIMER_DELIVER_MS\u{1}\(RawConnection.nowMilliseconds + (Int64(match.1) ?? 0) - born)"
            }
            var buffer = ByteBuffer()
            command.encode(into: &buffer, serialization: frame.serialization)
            return Array(buffer.readableBytesView)
        case .queryMessage:
            name = "endTimestamp"
            places[command.extFields[name] ?? ""] = String(Int64.max)
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
            let frame = try open.receive(timeoutMilliseconds: 10_000)
            if isWanted(frame) { return frame }
            received[connection, default: []].append(frame)
        }
    }
}

extension NormalizedAnswer {
    /// What 5.3.3 says and 4.9 does not, taken out of both.
    fileprivate func older(than other: NormalizedAnswer) -> NormalizedAnswer {
        var result = self
        for name in ["transactionId", "IS_SUB_CHANGE", "IS_SUPPORT_HEART_BEAT_V2", "groupSysFlag", "topicSysFlag"] {
            result.fields[name] = nil
        }
        if fields["recallHandle"] != nil { result.fields["queueOffset"] = "of all timers" }
        // 5.3.3 delivers timers at whole seconds.
        if let handle = fields["recallHandle"].flatMap({ Data(base64Encoded: $0) }) {
            var words = String(decoding: handle, as: UTF8.self).split(separator: " ")
            if words.count == 5 { words[3] = "*" }
            result.fields["recallHandle"] = words.joined(separator: " ")
        }
        result.body = body.map(Self.older)
        // The end of time: 4.9.8 finds the last message, 5.3.3 the place behind it.
        if fields.keys.sorted() == ["offset"],
            other.fields["offset"] == fields["offset"].map({ String((Int64($0) ?? 0) - 1) })
        {
            return other
        }
        // A queue nothing was ever stored in: 4.9.8 begins at 0, 5.3.3 lets the client decide.
        if code == ResponseCode.queryNotFound.rawValue, other.fields["offset"] == "0", other.code == 0 {
            return other
        }
        return result
    }

    /// A message without the one property only 5.3.3 stores, and without the times of timers.
    fileprivate static func older(_ message: String) -> String {
        message.replacing(#/"__transactionId__=[^"]*", /#, with: "")
            .replacing(#/, "__transactionId__=[^"]*"/#, with: "")
            .replacing(#/"(TIMER_(?:DELIVER|ENQUEUE|DEQUEUE|OUT)_MS)=\d+"/#) { "\"\($0.1)=*\"" }
    }
}
