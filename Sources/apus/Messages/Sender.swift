import ArgumentParser
import Glibc
import NIOCore
import RemotingProtocol
import RemotingTransport
import Synchronization

/// A message before it has a place.
struct OutgoingMessage: Sendable {
    let topic: String
    let tag: String?
    let key: String?
    let body: [UInt8]
    /// In the form of the log, after those above: `\u{2}NAME\u{1}VALUE` each.
    var properties = ""
}

enum SendOutcome: Sendable {
    case stored(line: Int, size: Int, id: String, queue: MessageQueue, offset: Int64)
    /// - Parameter refusedSince: when all answers to a message said that no broker takes any (14), the time of its first
    ///   attempt.
    case failed(line: Int, reason: String, refusedSince: ContinuousClock.Instant? = nil)
}

/// Which columns of a line are what.
struct LineLayout: Sendable {
    private enum Column: String {
        case topic
        case tag
        case key
        case body
        case skipped = "_"
    }

    private let columns: [Column]
    private let separator: [UInt8]

    var hasTopic: Bool { columns.contains(.topic) }

    init(columns: String?, separator: String) throws {
        self.separator = Array(separator.utf8)
        self.columns = try (columns ?? "body").split(separator: ",").map { name in
            guard let column = Column(rawValue: String(name)) else {
                throw ValidationError("--columns knows topic, tag, key, body and _, not '\(name)'")
            }
            return column
        }
        guard self.columns.count(where: { $0 == .body }) == 1 else {
            throw ValidationError("--columns must name body once")
        }
        for column in [Column.topic, .tag, .key] where self.columns.count(where: { $0 == column }) > 1 {
            throw ValidationError("--columns names \(column.rawValue) twice")
        }
    }

    /// The message in a line, or nil when columns are missing. An empty tag or key column is no tag or key.
    func message(_ line: [UInt8], topic: String?, tag: String?, key: String?) -> OutgoingMessage? {
        if columns.count == 1, let topic { return OutgoingMessage(topic: topic, tag: tag, key: key, body: line) }
        var parts: [ArraySlice<UInt8>] = []
        var rest = line[...]
        for _ in 1..<max(1, columns.count) {
            guard let at = position(of: separator, in: rest) else { return nil }
            parts.append(rest[..<at])
            rest = rest[(at + separator.count)...]
        }
        parts.append(rest)
        func text(_ column: Column) -> String? {
            columns.firstIndex(of: column).map { String(decoding: parts[$0], as: UTF8.self) }
                .flatMap { $0.isEmpty ? nil : $0 }
        }
        guard let topic = text(.topic) ?? topic, let body = columns.firstIndex(of: .body) else { return nil }
        return OutgoingMessage(
            topic: topic, tag: text(.tag) ?? tag, key: text(.key) ?? key, body: Array(parts[body]))
    }

    private func position(of needle: [UInt8], in bytes: ArraySlice<UInt8>) -> Int? {
        guard needle.count > 1 else { return bytes.firstIndex(of: needle[0]) }
        var index = bytes.startIndex
        while index + needle.count <= bytes.endIndex {
            if bytes[index..<(index + needle.count)].elementsEqual(needle) { return index }
            index += 1
        }
        return nil
    }
}

/// Sends single messages, spreading them over the queues of their topic, and tries again elsewhere when a broker fails.
final class Sender: Sendable {
    private static let templateTopic = "TBW102"
    private static let firstPause = Duration.milliseconds(20)
    private static let longestPause = Duration.milliseconds(500)

    let cluster: Cluster
    private let group: String
    private let queue: Int?
    private let newTopicQueues: Int
    private let patience: Duration
    private let turn = Atomic<Int>(0)
    private let keys = UniqueKeys()

    /// - Parameters:
    ///   - queue: the only queue id to use, or nil for all in turn.
    ///   - newTopicQueues: queues a topic gets that the broker creates at its first message.
    ///   - patience: how long one message is tried.
    init(cluster: Cluster, group: String, queue: Int?, newTopicQueues: Int, patience: Duration) {
        self.cluster = cluster
        self.group = group
        self.queue = queue
        self.newTopicQueues = newTopicQueues
        self.patience = patience
    }

    /// Fails at once, in words, when there is no name server or no broker for a topic.
    func checkReachable(topic: String) async throws {
        _ = try await candidates(for: topic)
    }

    func send(_ message: OutgoingMessage, line: Int) async -> SendOutcome {
        let start = ContinuousClock.now
        let deadline = start + patience
        var isRefused = true
        var properties = "UNIQ_KEY\u{1}\(keys.next())\u{2}WAIT\u{1}true"
        if let tag = message.tag { properties += "\u{2}TAGS\u{1}\(tag)" }
        if let key = message.key { properties += "\u{2}KEYS\u{1}\(key)" }
        properties += message.properties
        let now = Clock.milliseconds
        var pause = Self.firstPause
        while true {
            let reason: String
            do {
                let (queues, route) = try await candidates(for: message.topic)
                let chosen = queues[
                    Int(UInt(bitPattern: turn.wrappingAdd(1, ordering: .relaxed).oldValue) % UInt(queues.count))]
                guard let address = route.masters[chosen.brokerName] else {
                    throw CommandFailure("broker \(chosen.brokerName) has no master at present")
                }
                let left = ContinuousClock.now.duration(to: deadline)
                let reply = try await cluster.connection(to: address).invoke(
                    request(message, properties: properties, queue: chosen, born: now),
                    timeout: .milliseconds(Int64(max(1, min(3, left.seconds)) * 1000)))
                switch reply.responseCode {
                case .success, .flushDiskTimeout, .flushSlaveTimeout, .slaveNotAvailable:
                    return .stored(
                        line: line, size: message.body.count, id: reply.extFields["msgId"] ?? "", queue: chosen,
                        offset: reply.extFields["queueOffset"].flatMap { Int64($0) } ?? -1)
                case .systemError, .systemBusy, .serviceNotAvailable:
                    reason = "\(address) answered \(words(of: reply))"
                    if reply.responseCode != .serviceNotAvailable { isRefused = false }
                default:
                    return .failed(line: line, reason: "\(address) answered \(words(of: reply))")
                }
            } catch {
                reason = "\(error)"
                isRefused = false
            }
            guard ContinuousClock.now + pause < deadline, !Task.isCancelled else {
                return .failed(line: line, reason: reason, refusedSince: isRefused ? start : nil)
            }
            try? await Task.sleep(for: pause)
            pause = min(pause * 2, Self.longestPause)
        }
    }

    /// The queues a message may go to; for a topic that does not exist yet, those it will get.
    private func candidates(for topic: String) async throws -> (queues: [MessageQueue], route: TopicRoute) {
        var route = try await cluster.route(of: topic)
        if route == nil {
            guard var template = try await cluster.route(of: Self.templateTopic), !template.writable.isEmpty else {
                throw CommandFailure(
                    "topic '\(topic)' does not exist and the brokers of \(cluster.nameServers.joined(separator: ", ")) do not "
                        + "create topics by themselves (no route of \(Self.templateTopic)); is a broker running?")
            }
            template.writable = template.writable.filter { $0.queueId < newTopicQueues }
                .map { MessageQueue(topic: topic, brokerName: $0.brokerName, queueId: $0.queueId) }
            route = template
        }
        guard let route else { throw CommandFailure("no route of topic '\(topic)'") }
        let queues = queue.map { wanted in route.writable.filter { $0.queueId == wanted } } ?? route.writable
        guard !queues.isEmpty else {
            throw CommandFailure(
                queue.map { "topic '\(topic)' has no writable queue \($0)" } ?? "topic '\(topic)' has no writable queue"
            )
        }
        return (queues, route)
    }

    private func request(
        _ message: OutgoingMessage, properties: String, queue: MessageQueue, born: Int64
    ) -> RemotingCommand {
        RemotingCommand(
            .sendMessageV2,
            extFields: [
                "a": group, "b": message.topic, "c": Self.templateTopic, "d": String(newTopicQueues),
                "e": String(queue.queueId), "f": "0", "g": String(born), "h": "0", "i": properties, "j": "0",
                "k": "false",
                "m": "false", "n": queue.brokerName,
            ],
            body: message.body)
    }
}

/// Message ids in the shape of RocketMQ's client ids: 32 hex digits, here 16 random ones for the process and a counter.
final class UniqueKeys: Sendable {
    private let prefix = hex(UInt64.random(in: .min ... .max))
    private let counter = Atomic<UInt64>(0)

    func next() -> String {
        prefix + hex(counter.wrappingAdd(1, ordering: .relaxed).newValue)
    }
}

private func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16, uppercase: true)
    return String(repeating: "0", count: 16 - digits.count) + digits
}

enum Clock {
    /// Milliseconds since 1970.
    static var milliseconds: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
