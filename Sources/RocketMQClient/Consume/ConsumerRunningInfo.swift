package import FastJSON
package import RemotingProtocol
import Synchronization

/// What a consumer reports of itself when a broker asks for an operator (307, `mqadmin consumerStatus`; RocketMQ's
/// `ConsumerRunningInfo`). The consumer notes what it does; the question is answered at once, on the connection's loop.
package final class ConsumerRunningInfo: Sendable {
    private struct Queue {
        var offset: Int64 = 0
        var lastPull: Int64 = 0
        var lastConsume: Int64 = 0
    }

    private struct State {
        var queues: [MessageQueue: Queue] = [:]
        var topics: [String: ConsumeRates] = [:]
        var subscriptions: [Subscription]
    }

    private let group: String
    private let properties: [(String, String)]
    private let state: Mutex<State>

    /// - Parameter properties: settings of the consumer, by the names RocketMQ's push consumer has for them.
    package init(
        group: String, subscriptions: [Subscription], nameServers: String, isOrdered: Bool = false,
        parallelism: Int = 1, clientVersion: String, properties: [(String, String)]
    ) {
        self.group = group
        state = Mutex(State(subscriptions: subscriptions))
        self.properties =
            properties + [
                ("consumerGroup", group), ("PROP_CONSUME_TYPE", "CONSUME_PASSIVELY"),
                ("PROP_CONSUMEORDERLY", String(isOrdered)), ("PROP_THREADPOOL_CORE_SIZE", String(parallelism)),
                ("PROP_NAMESERVER_ADDR", nameServers), ("PROP_CLIENT_VERSION", clientVersion),
                ("PROP_CONSUMER_START_TIMESTAMP", String(WallClock.milliseconds)),
            ]
    }

    /// From now on these are reported. Any thread.
    package func subscribed(_ subscriptions: [Subscription]) {
        state.withLock { $0.subscriptions = subscriptions }
    }

    /// The queue is no longer this consumer's, and is not reported. Any thread.
    package func released(_ queue: MessageQueue) { state.withLock { $0.queues[queue] = nil } }

    /// The queue is this consumer's, and everything before `offset` is consumed.
    package func reached(_ offset: Int64, of queue: MessageQueue) {
        state.withLock { $0.queues[queue, default: Queue()].offset = offset }
    }

    /// A pull was answered.
    package func pulled(_ count: Int, from queue: MessageQueue, in time: Duration) {
        note(count, in: time, at: \.lastPull, of: queue, as: \.pulls)
    }

    /// Messages were consumed.
    package func consumed(_ count: Int, from queue: MessageQueue, in time: Duration) {
        note(count, in: time, at: \.lastConsume, of: queue, as: \.consumptions)
    }

    /// Consuming messages failed.
    package func failed(_ count: Int, from queue: MessageQueue, in time: Duration) {
        note(count, in: time, at: \.lastConsume, of: queue, as: \.failures)
    }

    private func note(
        _ count: Int, in time: Duration, at last: WritableKeyPath<Queue, Int64>, of queue: MessageQueue,
        as kind: WritableKeyPath<ConsumeRates.Second, ConsumeRates.Work>
    ) {
        let now = WallClock.milliseconds
        state.withLock {
            $0.queues[queue]?[keyPath: last] = now
            $0.topics[queue.topic, default: ConsumeRates()].note(now) { second in
                second[keyPath: kind].times += 1
                second[keyPath: kind].seconds += time.inSeconds
                second[keyPath: kind].messages += count
            }
        }
    }

    /// The answer to request 307, or to 221.
    package func answer(_ request: RemotingCommand) -> RemotingCommand {
        let asked = request.extFields["consumerGroup"] ?? request.extFields["group"] ?? ""
        guard asked == group else {
            return .response(.systemError, remark: "this consumer is of the group \(group), not of \(asked)")
        }
        var response = RemotingCommand.response(.success)
        if request.requestCode == .getConsumerStatusFromClient {
            var table = JSONObject()
            let topic = request.extFields["topic"]
            for (queue, info) in state.withLock({ $0.queues }).sorted(by: { $0.key < $1.key })
            where topic == nil || topic == queue.topic {
                table.append(rawKey: queue.wire.json.text(), .integer(info.offset))
            }
            response.body = JSONValue.fields([("messageQueueTable", .object(table))]).bytes()
        } else {
            response.body = json.bytes()
        }
        return response
    }

    /// The body of the answer to 307. Times are milliseconds since 1970; what is not counted is 0. Any thread.
    package var json: JSONValue {
        let now = WallClock.milliseconds
        let state = state.withLock { $0 }
        var queues = JSONObject()
        for (queue, info) in state.queues.sorted(by: { $0.key < $1.key }) {
            // Messages that wait in this process are few; they are not counted here.
            queues.append(
                rawKey: queue.wire.json.text(),
                .fields([
                    ("cachedMsgCount", 0), ("cachedMsgMaxOffset", 0), ("cachedMsgMinOffset", 0),
                    ("cachedMsgSizeInMiB", 0), ("commitOffset", .integer(info.offset)), ("droped", false),
                    ("lastConsumeTimestamp", .integer(info.lastConsume)), ("lastLockTimestamp", 0),
                    ("lastPullTimestamp", .integer(info.lastPull)), ("locked", false), ("transactionMsgCount", 0),
                    ("transactionMsgMaxOffset", 0), ("transactionMsgMinOffset", 0), ("tryUnlockTimes", 0),
                ]))
        }
        let topics = state.subscriptions.map { subscription in
            (subscription.topic, Optional((state.topics[subscription.topic] ?? ConsumeRates()).json(at: now)))
        }
        return .fields([
            ("mqTable", .object(queues)),
            ("properties", .fields(properties.map { ($0.0, .string($0.1)) })),
            ("statusTable", .fields(topics)),
            ("subscriptionSet", .array(state.subscriptions.map(\.wire.json))),
        ])
    }
}

/// Counts of the last minute by the second, for the rates RocketMQ's consumers report (`ConsumeStatus`).
package struct ConsumeRates: Sendable {
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
        var failures = Work()
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
        func total(_ kind: KeyPath<Second, Work>) -> Work { recent.reduce(Work()) { $0 + $1[keyPath: kind] } }
        let (pulls, consumptions, failures) = (total(\.pulls), total(\.consumptions), total(\.failures))
        func mean(_ work: Work) -> JSONValue { .number(work.times == 0 ? 0 : work.seconds * 1000 / Double(work.times)) }
        func rate(_ work: Work) -> JSONValue { .number(Double(work.messages) / Double(Self.span)) }
        return .fields([
            ("consumeFailedMsgs", .integer(failures.messages)), ("consumeFailedTPS", rate(failures)),
            ("consumeOKTPS", rate(consumptions)), ("consumeRT", mean(consumptions)), ("pullRT", mean(pulls)),
            ("pullTPS", rate(pulls)),
        ])
    }
}

extension Duration {
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
