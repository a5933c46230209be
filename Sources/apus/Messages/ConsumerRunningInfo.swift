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
        note(count, in: time, at: \.lastPull, of: queue, as: \.pulls)
    }

    /// Messages of one pull were written out.
    func consumed(_ count: Int, from queue: MessageQueue, in time: Duration) {
        note(count, in: time, at: \.lastConsume, of: queue, as: \.consumptions)
    }

    private func note(
        _ count: Int, in time: Duration, at last: WritableKeyPath<Queue, Int64>, of queue: MessageQueue,
        as kind: WritableKeyPath<ConsumeRates.Second, ConsumeRates.Work>
    ) {
        let now = Clock.milliseconds
        state.withLock {
            $0.queues[queue]?[keyPath: last] = now
            $0.topics[queue.topic, default: ConsumeRates()].note(now) { second in
                second[keyPath: kind].times += 1
                second[keyPath: kind].seconds += time.seconds
                second[keyPath: kind].messages += count
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
    struct Work: Sendable {
        var times = 0
        var seconds = 0.0
        var messages = 0

        static func + (one: Work, other: Work) -> Work {
            Work(
                times: one.times + other.times, seconds: one.seconds + other.seconds,
                messages: one.messages + other.messages)
        }
    }

    struct Second: Sendable {
        var number: Int64 = 0
        var pulls = Work()
        var consumptions = Work()
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
        let pulls = recent.reduce(Work()) { $0 + $1.pulls }
        let consumptions = recent.reduce(Work()) { $0 + $1.consumptions }
        func mean(_ work: Work) -> JSONValue { .number(work.times == 0 ? 0 : work.seconds * 1000 / Double(work.times)) }
        func rate(_ work: Work) -> JSONValue { .number(Double(work.messages) / Double(Self.span)) }
        return .fields([
            ("consumeFailedMsgs", 0), ("consumeFailedTPS", .number(0)), ("consumeOKTPS", rate(consumptions)),
            ("consumeRT", mean(consumptions)), ("pullRT", mean(pulls)), ("pullTPS", rate(pulls)),
        ])
    }
}
