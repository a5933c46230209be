import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import StoreFormat
import Synchronization

/// Keeps sending numbered messages over several connections and remembers which were acknowledged: what a broker may
/// never lose.
final class Oracle: Sendable {
    struct Memory {
        var acknowledged: Set<String> = []
        var refusals: [String] = []
        var lastAcknowledgement = ContinuousClock.now
        /// The longest time without any acknowledgement, and when it ended.
        var longestGap = Duration.zero
        var mustStop = false
    }

    /// What the senders share with the test that started them. They must not hold the oracle itself: a test that failed
    /// half-way lets go of it, and then they must end, or they would hammer the ports of the tests that follow.
    private final class Ledger: Sendable {
        let memory = Mutex(Memory())

        func note(_ body: String) {
            memory.withLock { memory in
                let now = ContinuousClock.now
                let gap = memory.lastAcknowledgement.duration(to: now)
                if !memory.acknowledged.isEmpty, gap > memory.longestGap { memory.longestGap = gap }
                memory.lastAcknowledgement = now
                memory.acknowledged.insert(body)
            }
        }
    }

    private let ledger: Ledger
    private let tasks: [Task<Void, Never>]

    /// - Parameter pause: of each sender between two messages.
    init(broker: String, topic: String, queues: Int = 4, senders: Int = 4, pause: Duration = .milliseconds(1)) {
        // Whole before the first sender starts: it may run before this initializer has returned.
        let ledger = Ledger()
        self.ledger = ledger
        tasks = (0..<senders).map { sender in
            Task.detached {
                var client: RemotingClient?
                var number = 0
                while !ledger.memory.withLock({ $0.mustStop }) {
                    let body = "oracle-\(sender)-\(number)"
                    do {
                        if client?.isActive != true {
                            client = try await RemotingClient.connect(
                                to: broker, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(2))
                        }
                        guard let connection = client else { continue }
                        let reply = try await connection.invoke(
                            Self.request(topic: topic, queue: number % queues, body: body), timeout: .seconds(2))
                        if reply.code == 0 {
                            ledger.note(body)
                            number += 1
                        } else {
                            let words = "code \(reply.code) \(reply.remark ?? "")"
                            ledger.memory.withLock { $0.refusals.append(words) }
                        }
                    } catch {
                        client?.closeNow()
                        client = nil
                    }
                    try? await Task.sleep(for: client == nil ? .milliseconds(2) : pause)
                }
                await client?.close()
            }
        }
    }

    deinit { ledger.memory.withLock { $0.mustStop = true } }

    var acknowledged: Set<String> { ledger.memory.withLock { $0.acknowledged } }
    var refusals: [String] { ledger.memory.withLock { $0.refusals } }
    var longestGap: Duration { ledger.memory.withLock { $0.longestGap } }

    func forgetGap() {
        ledger.memory.withLock { memory in
            memory.longestGap = .zero
            memory.lastAcknowledgement = .now
        }
    }

    func stop() async {
        ledger.memory.withLock { $0.mustStop = true }
        for task in tasks { await task.value }
    }

    private static func request(topic: String, queue: Int, body: String) -> RemotingCommand {
        RemotingCommand(
            .sendMessageV2,
            extFields: [
                "a": "ORACLE", "b": topic, "c": "TBW102", "d": "4", "e": String(queue), "f": "0",
                "g": String(Int64(Date().timeIntervalSince1970 * 1000)), "h": "0", "i": "WAIT\u{1}true", "j": "0",
                "k": "false", "m": "false",
            ],
            body: Array(body.utf8))
    }

    /// All bodies a topic holds, each as often as it is stored, read by plain pulls.
    static func stored(broker: String, topic: String, queues: Int) async throws -> [String] {
        let client = try await RemotingClient.connect(to: broker, group: MultiThreadedEventLoopGroup.singleton)
        var bodies: [String] = []
        for queue in 0..<queues {
            for answer in try await QueueReader.read(client, topic: topic, queue: queue).bodies {
                answer.withUnsafeBytes { bytes in
                    var position = 0
                    while position < bytes.count,
                        case .record(let record) = CommitLogRecord.parse(
                            UnsafeRawBufferPointer(rebasing: bytes[position...]))
                    {
                        bodies.append(String(decoding: record.body, as: UTF8.self))
                        position += record.totalSize
                    }
                }
            }
        }
        await client.close()
        return bodies
    }
}
