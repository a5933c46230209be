import FastJSON
import RemotingProtocol
import Supervision
import Synchronization

/// What a consumer tells of itself when a broker asks for an operator (307, `mqadmin consumerStatus`; RocketMQ's
/// `ConsumerRunningInfo`). The consumer notes what it does; the question is answered at once, on the connection's event loop.
final class ConsumerRunningInfo: Sendable {
    private struct Queue {
        var offset: Int64 = 0
        var lastPull: Int64 = 0
        var lastConsume: Int64 = 0
    }

    private struct State {
        var queues: [MessageQueue: Queue] = [:]
        var topics: [String: ConsumeRates] = [:]
    }

    private let group: String
    private let subscriptions: [Subscription]
    private let properties: [(String, String)]
    private let state = Mutex(State())

    /// - Parameter properties: settings of the consumer, by the names RocketMQ's push consumer has for them.
    init(group: String, subscriptions: [Subscription], nameServers: String, properties: [(String, String)]) {
        self.group = group
        self.subscriptions = subscriptions
        self.properties =
            properties + [
                ("consumerGroup", group), ("PROP_CONSUME_TYPE", "CONSUME_PASSIVELY"), ("PROP_CONSUMEORDERLY", "false"),
                ("PROP_THREADPOOL_CORE_SIZE", "1"), ("PROP_NAMESERVER_ADDR", nameServers),
                ("PROP_CLIENT_VERSION", "apus \(ApusRelease.version)"),
                ("PROP_CONSUMER_START_TIMESTAMP", String(Clock.milliseconds)),
            ]
    }

    func gaveUp(_ queue: MessageQueue) { state.withLock { $0.queues[queue] = nil } }

    /// The queue is this consumer's, and it goes on with the message at `offset`.
    func reached(_ offset: Int64, of queue: MessageQueue) {
        state.withLock { $0.queues[queue, default: Queue()].offset = offset }
    }

    /// A pull was answered.
    func pulled(_ count: Int, from queue: MessageQueue, in time: Duration) {
        let now = Clock.milliseconds
        state.withLock {
            $0.queues[queue]?.lastPull = now
            $0.topics[queue.topic, default: ConsumeRates()].note(now) { second in
                second.pulls += 1
                second.pullSeconds += time.seconds
                second.pulled += count
            }
        }
    }

    /// Messages of one pull were written out.
    func consumed(_ count: Int, from queue: MessageQueue, in time: Duration) {
        let now = Clock.milliseconds
        state.withLock {
            $0.queues[queue]?.lastConsume = now
            $0.topics[queue.topic, default: ConsumeRates()].note(now) { second in
                second.consumptions += 1
                second.consumeSeconds += time.seconds
                second.consumed += count
            }
        }
    }

    /// The answer to request 307.
    func answer(_ request: RemotingCommand) -> RemotingCommand {
        let asked = request.extFields["consumerGroup"] ?? ""
        guard asked == group else {
            return .response(.systemError, remark: "this consumer is of the group \(group), not of \(asked)")
        }
        var response = RemotingCommand.response(.success)
        response.body = json.bytes()
        return response
    }

    var json: JSONValue {
        let now = Clock.milliseconds
        let state = state.withLock { $0 }
        var queues = JSONObject()
        for (queue, info) in state.queues.sorted(by: { $0.key < $1.key }) {
            // Nothing is ever cached, locked or half of a transaction here: a message is written out when it arrives.
            queues.append(
                rawKey: queue.json.text(),
                .fields([
                    ("cachedMsgCount", 0), ("cachedMsgMaxOffset", 0), ("cachedMsgMinOffset", 0),
                    ("cachedMsgSizeInMiB", 0), ("commitOffset", .integer(info.offset)), ("droped", false),
                    ("lastConsumeTimestamp", .integer(info.lastConsume)), ("lastLockTimestamp", 0),
                    ("lastPullTimestamp", .integer(info.lastPull)), ("locked", false), ("transactionMsgCount", 0),
                    ("transactionMsgMaxOffset", 0), ("transactionMsgMinOffset", 0), ("tryUnlockTimes", 0),
                ]))
        }
        let topics = subscriptions.map { subscription in
            (subscription.topic, Optional((state.topics[subscription.topic] ?? ConsumeRates()).json(at: now)))
        }
        return .fields([
            ("mqTable", .object(queues)),
            ("properties", .fields(properties.map { ($0.0, .string($0.1)) })),
            ("statusTable", .fields(topics)),
            ("subscriptionSet", .array(subscriptions.map(\.json))),
        ])
    }
}

/// Sums of the last minute by the second, for the rates RocketMQ's consumers tell (`ConsumeStatus`).
struct ConsumeRates: Sendable {
    struct Second: Sendable {
        var number: Int64 = 0
        var pulls = 0
        var pullSeconds = 0.0
        var pulled = 0
        var consumptions = 0
        var consumeSeconds = 0.0
        var consumed = 0
    }

    private static let span: Int64 = 60
    private var seconds: [Second] = []

    /// - Parameter now: milliseconds since 1970.
    mutating func note(_ now: Int64, _ change: (inout Second) -> Void) {
        if seconds.last?.number != now / 1000 {
            seconds.removeAll { $0.number <= now / 1000 - Self.span }
            seconds.append(Second(number: now / 1000))
        }
        change(&seconds[seconds.count - 1])
    }

    /// Mean times in milliseconds, messages a second over the minute before `now`.
    func json(at now: Int64) -> JSONValue {
        let recent = seconds.filter { $0.number > now / 1000 - Self.span }
        func mean(_ sum: Double, _ count: Int) -> JSONValue { .number(count == 0 ? 0 : sum * 1000 / Double(count)) }
        func rate(_ part: KeyPath<Second, Int>) -> JSONValue {
            .number(Double(recent.reduce(0) { $0 + $1[keyPath: part] }) / Double(Self.span))
        }
        return .fields([
            ("consumeFailedMsgs", 0), ("consumeFailedTPS", .number(0)), ("consumeOKTPS", rate(\.consumed)),
            (
                "consumeRT",
                mean(recent.reduce(0) { $0 + $1.consumeSeconds }, recent.reduce(0) { $0 + $1.consumptions })
            ),
            ("pullRT", mean(recent.reduce(0) { $0 + $1.pullSeconds }, recent.reduce(0) { $0 + $1.pulls })),
            ("pullTPS", rate(\.pulled)),
        ])
    }
}
