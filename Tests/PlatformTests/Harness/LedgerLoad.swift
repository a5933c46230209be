import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import StoreJudge
import Synchronization
import TestTools

/// Load of every kind over the wire with a ledger of what was acknowledged and where it must lie: single messages,
/// batches and delayed ones, to several topics and queues. Same seed, same messages.
final class LedgerLoad: Sendable {
    static let topics = ["LedgerA", "LedgerB", "LedgerC"]
    static let queues = 4
    static let delayedTopic = "LedgerDelayed"

    struct Place: Hashable, Sendable {
        var topic: String
        var queue: Int
    }

    struct Entry: Sendable {
        var place: Place
        var offset: Int64
        var body: String
    }

    struct Ledger: Sendable {
        var acknowledged: [Entry] = []
        var delayed: Set<String> = []
        var mustStop = false
    }

    private let broker: String
    private let ledger = Mutex(Ledger())
    private let tasks = Mutex<[Task<Void, Never>]>([])
    /// What has been read so far, by queue: must never change.
    private let contents = Mutex<[Place: [String]]>([:])

    init(broker: String, seed: UInt64, senders: Int = 6) {
        self.broker = broker
        let work = (0..<senders).map { sender in
            Task.detached { [weak self] in
                var random = SplitMix(state: seed &+ UInt64(sender) &* 7919)
                var client: RemotingClient?
                var number = 0
                while let load = self, !load.ledger.withLock({ $0.mustStop }) {
                    do {
                        if client?.isActive != true {
                            client = try await RemotingClient.connect(
                                to: broker, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(2))
                        }
                        guard let connection = client else { continue }
                        try await load.send(connection, "\(sender)-\(number)", &random)
                    } catch {
                        client?.closeNow()
                        client = nil
                        try? await Task.sleep(for: .milliseconds(2))
                    }
                    number += 1
                }
                await client?.close()
            }
        }
        tasks.withLock { $0 = work }
    }

    var snapshot: Ledger { ledger.withLock { $0 } }
    var count: Int { ledger.withLock { $0.acknowledged.count + $0.delayed.count } }

    func stop() async {
        ledger.withLock { $0.mustStop = true }
        for task in tasks.withLock({ $0 }) { await task.value }
    }

    /// One request; what it acknowledges goes into the ledger.
    private func send(_ client: RemotingClient, _ name: String, _ random: inout SplitMix) async throws {
        let place = Place(
            topic: Self.topics.randomElement(using: &random) ?? "",
            queue: Int.random(in: 0..<Self.queues, using: &random))
        func body(_ part: Int) -> String {
            "\(name)-\(part)-" + String(repeating: "l", count: Int.random(in: 0...700, using: &random))
        }
        let kind = Int.random(in: 0..<100, using: &random)
        if kind < 10 {
            let text = body(0)
            let reply = try await client.invoke(
                Self.request(
                    Place(topic: Self.delayedTopic, queue: place.queue), properties: "DELAY\u{1}1", Array(text.utf8)),
                timeout: .seconds(5))
            if reply.code == 0 { ledger.withLock { _ = $0.delayed.insert(text) } }
            return
        }
        let bodies = (0..<(kind < 30 ? Int.random(in: 2...8, using: &random) : 1)).map(body)
        let bytes = bodies.count == 1 ? Array(bodies[0].utf8) : Self.batch(bodies)
        let reply = try await client.invoke(
            Self.request(place, properties: "WAIT\u{1}true", bytes, isBatch: bodies.count > 1), timeout: .seconds(5))
        guard reply.code == 0 else { return }
        let first = try reply.integer("queueOffset")
        ledger.withLock { ledger in
            for (index, body) in bodies.enumerated() {
                ledger.acknowledged.append(Entry(place: place, offset: first + Int64(index), body: body))
            }
        }
    }

    private static func request(
        _ place: Place, properties: String, _ body: [UInt8], isBatch: Bool = false
    ) -> RemotingCommand {
        RemotingCommand(
            isBatch ? .sendBatchMessage : .sendMessageV2,
            extFields: [
                "a": "LEDGER", "b": place.topic, "c": "TBW102", "d": String(queues), "e": String(place.queue), "f": "0",
                "g": String(Int64(Date().timeIntervalSince1970 * 1000)), "h": "0", "i": properties, "j": "0",
                "k": "false", "m": isBatch ? "true" : "false",
            ],
            body: body)
    }

    private static func batch(_ bodies: [String]) -> [UInt8] {
        var bytes: [UInt8] = []
        func put(_ value: Int, _ count: Int) {
            for shift in (0..<count).reversed() { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * shift))) }
        }
        for body in bodies {
            for value in [0, 0, 0, 0, body.utf8.count] { put(value, 4) }
            bytes += Array(body.utf8)
            put(0, 2)
        }
        return bytes
    }

    // MARK: - Reading

    /// Reads every queue to its end, from where the last reading ended or from its beginning, and compares: no hole,
    /// nothing changed, everything acknowledged by then in its place. Returns what is wrong.
    func verify(fromBeginning: Bool = false) async throws -> [String] {
        let wanted = snapshot.acknowledged
        var problems: [String] = []
        let client = try await RemotingClient.connect(to: broker, group: MultiThreadedEventLoopGroup.singleton)
        for topic in Self.topics {
            for queue in 0..<Self.queues {
                let place = Place(topic: topic, queue: queue)
                var known = contents.withLock { $0[place] ?? [] }
                let before = known
                if fromBeginning { known = [] }
                for record in try await Self.read(client, place, from: Int64(known.count)) {
                    if record.queueOffset != known.count || record.topic != topic || record.queueID != queue {
                        problems.append(
                            "\(place): \(record.topic) \(record.queueID) \(record.queueOffset) at \(known.count)")
                        break
                    }
                    known.append(record.text)
                }
                if !known.starts(with: before) { problems.append("\(place): what was read before has changed") }
                let now = known
                contents.withLock { $0[place] = now }
            }
        }
        await client.close()
        let found = contents.withLock { $0 }
        for entry in wanted {
            let bodies = found[entry.place] ?? []
            if entry.offset >= Int64(bodies.count) || bodies[Int(entry.offset)] != entry.body {
                problems.append(
                    "\(entry.place) \(entry.offset): \(entry.body.prefix(20)) was acknowledged and is not there")
            }
        }
        return problems
    }

    /// Delayed messages that were acknowledged and have not been delivered.
    func undelivered() async throws -> Set<String> {
        var waiting = snapshot.delayed
        let client = try await RemotingClient.connect(to: broker, group: MultiThreadedEventLoopGroup.singleton)
        for queue in 0..<Self.queues {
            for record in try await Self.read(client, Place(topic: Self.delayedTopic, queue: queue), from: 0) {
                waiting.remove(record.text)
            }
        }
        await client.close()
        return waiting
    }

    private static func read(_ client: RemotingClient, _ place: Place, from start: Int64) async throws -> [LogRecord] {
        try await QueueReader.read(client, topic: place.topic, queue: place.queue, from: start).bodies
            .flatMap { try LogRecord.all($0) }
    }
}
