import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import StoreFormat
import Synchronization

/// Clients that pop and acknowledge, and what they saw, for a judge: a popped message is no other client's until its
/// time is over, and one whose acknowledgement was confirmed in time never comes again, whatever is killed meanwhile.
final class PopLoad: Sendable {
    /// A message as one client got it.
    struct Delivery: Sendable {
        let body: String
        /// Queue and offset: a producer whose connection ended sends a body twice.
        let place: String
        /// When its pop was sent, and when the answer was there.
        let asked: ContinuousClock.Instant
        let got: ContinuousClock.Instant
        let attempt: Int32
        /// When its acknowledgement was confirmed.
        var acknowledged: ContinuousClock.Instant?
    }

    static let invisible = Duration.seconds(3)
    static let group = "poppers"

    private struct Memory {
        var deliveries: [Delivery] = []
        var finished: Set<String> = []
        /// Acknowledged, and not finished as far as the client knows: the answer may have been lost.
        var unsure: Set<String> = []
        var mustStop = false
    }

    private final class Ledger: Sendable {
        let memory = Mutex(Memory())
    }

    private let ledger: Ledger
    private let tasks: [Task<Void, Never>]

    init(broker: String, topic: String, clients: Int) {
        let ledger = Ledger()
        self.ledger = ledger
        tasks = (0..<clients).map { _ in
            Task.detached {
                var client: RemotingClient?
                while !ledger.memory.withLock({ $0.mustStop }) {
                    do {
                        if client?.isActive != true {
                            client = try await RemotingClient.connect(
                                to: broker, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(2))
                        }
                        guard let connection = client else { continue }
                        try await Self.popAndAcknowledge(connection, topic, ledger)
                    } catch {
                        client?.closeNow()
                        client = nil
                        // Time passes until the broker is back.
                        try? await Task.sleep(for: .milliseconds(5))
                    }
                }
                await client?.close()
            }
        }
    }

    deinit { ledger.memory.withLock { $0.mustStop = true } }

    var deliveries: [Delivery] { ledger.memory.withLock { $0.deliveries } }
    /// Messages whose acknowledgement was confirmed.
    var finished: Set<String> { ledger.memory.withLock { $0.finished } }

    /// Messages no acknowledgement of which can have arrived.
    func unfinished(of sent: Set<String>) -> Set<String> {
        ledger.memory.withLock { sent.subtracting($0.finished).subtracting($0.unsure) }
    }

    func stop() async {
        ledger.memory.withLock { $0.mustStop = true }
        for task in tasks { await task.value }
    }

    private static func popAndAcknowledge(
        _ client: RemotingClient, _ topic: String, _ ledger: Ledger
    ) async throws {
        let asked = ContinuousClock.now
        let answer = try await client.invoke(
            RemotingCommand(
                .popMessage,
                extFields: [
                    "consumerGroup": group, "topic": topic, "queueId": "-1", "maxMsgNums": "16",
                    "invisibleTime": String(invisible.components.seconds * 1000), "pollTime": "500", "bornTime": "0",
                    "initMode": "0", "expType": "TAG", "exp": "*", "order": "false",
                ]), timeout: .seconds(4))
        guard answer.code == 0 else { return }
        let got = ContinuousClock.now
        for message in try messages(answer) {
            let index = ledger.memory.withLock { memory in
                memory.deliveries.append(
                    Delivery(
                        body: message.body, place: "\(message.queueID):\(message.offset)", asked: asked, got: got,
                        attempt: message.attempt + 1))
                return memory.deliveries.count - 1
            }
            // One of eight is not consumed at first.
            if message.attempt == 0, message.offset % 8 == 0 { continue }
            ledger.memory.withLock { _ = $0.unsure.insert(message.body) }
            let reply = try await client.invoke(
                RemotingCommand(
                    .ackMessage,
                    extFields: [
                        "consumerGroup": group, "topic": topic, "queueId": String(message.queueID),
                        "offset": String(message.offset), "extraInfo": message.handle,
                    ]), timeout: .seconds(4))
            guard reply.code == 0 else {
                ledger.memory.withLock { _ = $0.unsure.remove(message.body) }
                continue
            }
            ledger.memory.withLock { memory in
                memory.deliveries[index].acknowledged = .now
                memory.finished.insert(message.body)
            }
        }
    }

    struct Message: Sendable {
        let body: String
        let queueID: Int32
        let offset: Int64
        let attempt: Int32
        let handle: String
    }

    static func messages(_ answer: RemotingCommand) throws -> [Message] {
        var starts: [Int32: Substring] = [:]
        for entry in (answer.extFields["startOffsetInfo"] ?? "").split(separator: ";") {
            let parts = entry.split(separator: " ")
            if parts.count == 3, let queueID = Int32(parts[1]) { starts[queueID] = parts[2] }
        }
        let (popTime, time) = (answer.extFields["popTime"] ?? "", answer.extFields["invisibleTime"] ?? "")
        return answer.body.withUnsafeBytes { bytes in
            var messages: [Message] = []
            var place = 0
            while place < bytes.count {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[place...])
                guard case .record(let record) = CommitLogRecord.parse(rest) else { return messages }
                let (queueID, offset) = (record.queueID, record.queueOffset.rawValue)
                messages.append(
                    Message(
                        body: String(decoding: record.body, as: UTF8.self), queueID: queueID, offset: offset,
                        attempt: record.reconsumeTimes,
                        handle: "\(starts[queueID] ?? "") \(popTime) \(time) 0 0 broker-a \(queueID) \(offset)"))
                place += record.totalSize
            }
            return messages
        }
    }

    /// What was not as promised; empty when all was.
    /// - Parameter sent: messages whose sends were confirmed.
    func judge(sent: Set<String>) -> [String] {
        var faults = unfinished(of: sent).sorted().map { "\($0) was never acknowledged" }
        for (place, deliveries) in Dictionary(grouping: deliveries, by: \.place) {
            let body = "\(deliveries[0].body) at \(place)"
            let ordered = deliveries.sorted { $0.asked < $1.asked }
            for (earlier, later) in zip(ordered, ordered.dropFirst()) {
                // The claim begins after the pop was sent, and the next delivery is there after it has ended.
                // Brokers count whole milliseconds.
                if later.got < earlier.asked + Self.invisible - .milliseconds(2) {
                    faults.append("\(body) was in two hands: again \(earlier.asked.duration(to: later.got)) later")
                }
                if let done = earlier.acknowledged, done < earlier.asked + Self.invisible {
                    faults.append("\(body) came again though its acknowledgement was confirmed")
                }
            }
        }
        return faults
    }
}
