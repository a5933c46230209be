import MessageModel
import NIOCore
import RemotingProtocol
import RemotingTransport

/// Routes of topics that have queues at other brokers too, for QUERY_ASSIGNMENT. They are asked of a name server and
/// kept for some time, as RocketMQ's `TopicRouteInfoManager` does.
struct KnownRoutes {
    /// Milliseconds a route holds; RocketMQ's broker asks each 30 s.
    static let validMilliseconds: Int64 = 20_000
    /// Topics, at most.
    static let countMax = 10_000

    private var queues: [String: (queues: [MessageQueue], untilSteady: Int64)] = [:]
    private var waiters: [String: [([MessageQueue]) -> Void]] = [:]

    func queues(of topic: String, steady: Int64) -> [MessageQueue]? {
        guard let known = queues[topic], known.untilSteady > steady else { return nil }
        return known.queues
    }

    /// Requests that wait for the route of one topic, at most; more are answered with what is known.
    static let waitersMax = 1024

    func isFull(_ topic: String) -> Bool { waiters[topic]?.count ?? 0 >= Self.waitersMax }

    /// True for the first of those who wait for a topic's route: it asks.
    mutating func wait(for topic: String, _ then: @escaping ([MessageQueue]) -> Void) -> Bool {
        waiters[topic, default: []].append(then)
        return waiters[topic]?.count == 1
    }

    /// A name server has answered, or none has: nil.
    /// - Returns: who waits for it.
    mutating func answered(
        _ topic: String, _ found: [MessageQueue]?, steady: Int64
    ) -> [([MessageQueue]) -> Void] {
        if let found {
            if queues.count >= Self.countMax { queues = [:] }
            queues[topic] = (found, steady + Self.validMilliseconds)
        }
        return waiters.removeValue(forKey: topic) ?? []
    }
}

extension NameserverRegistration: TopicRoutes {
    private static let routeTimeout = TimeAmount.seconds(3)

    func readableQueues(of topic: String, _ then: @escaping ([MessageQueue]) -> Void) {
        let steady = environment.steady()
        if let others = routes.queues(of: topic, steady: steady) { return then(others + ownQueues(of: topic)) }
        // Of topics that are not here clients ask brokers that have them.
        guard tables.topics[topic] != nil, !routes.isFull(topic),
            let server = servers.first(where: { !$0.hasLeft && $0.client?.isActive == true }),
            let client = server.client
        else { return then(ownQueues(of: topic)) }
        guard routes.wait(for: topic, then) else { return }
        let request = RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic])
        client.invoking(request, timeout: Self.routeTimeout).assumeIsolated().whenComplete { [self] result in
            var others: [MessageQueue]?
            if case .success(let answer) = result, answer.responseCode == .success,
                let route = try? TopicRouteData(body: answer.body)
            {
                others = Self.queues(of: topic, in: route, besides: environment.configuration.brokerName)
            }
            // Without an answer this broker's own queues are what is known.
            let all = (others ?? []) + ownQueues(of: topic)
            for waiter in routes.answered(topic, others, steady: environment.steady()) { waiter(all) }
            environment.scheduleTick()
        }
    }

    /// Those of other brokers; no more than show that they are too many to be divided.
    static func queues(of topic: String, in route: TopicRouteData, besides own: String) -> [MessageQueue] {
        var queues: [MessageQueue] = []
        for data in route.queueDatas where data.perm & Permission.read != 0 && data.brokerName != own {
            let room = QueryAssignmentProcessor.queuesMax + 1 - queues.count
            guard room > 0 else { break }
            for id in 0..<max(0, min(Int(data.readQueueNums), Int(QueueLimits.queuesPerTopic), room)) {
                queues.append(MessageQueue(topic: topic, brokerName: data.brokerName, queueID: Int32(id)))
            }
        }
        return queues
    }

    /// As the topic is now, whatever name servers have received.
    private func ownQueues(of topic: String) -> [MessageQueue] {
        guard let config = tables.topics[topic]?.config, config.perm & Permission.read != 0 else { return [] }
        return (0..<max(0, config.readQueueNums)).map {
            MessageQueue(topic: topic, brokerName: environment.configuration.brokerName, queueID: $0)
        }
    }
}
