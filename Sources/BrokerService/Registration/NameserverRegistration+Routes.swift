import MessageModel
import NIOCore
import RemotingProtocol
import RemotingTransport

/// Who knows the queues of a topic at all brokers.
protocol TopicRoutes: AnyObject {
    /// Hands over the queues that may be read, in no order; at once, or after name servers were asked. Those of this
    /// broker alone when none answers.
    func readableQueues(of topic: String, _ then: @escaping (KnownRoutes.Queues) -> Void)
}

/// Routes of topics that have queues at other brokers too, for QUERY_ASSIGNMENT. They are asked of a name server and
/// kept for some time, as RocketMQ's `TopicRouteInfoManager` does.
struct KnownRoutes {
    /// Milliseconds a route holds; RocketMQ's broker asks each 30 s.
    static let validMilliseconds: Int64 = 20_000
    /// Topics, at most.
    static let countMax = 10_000
    /// Queues of all of them, at most: some 10 MB.
    static let queuesMax = 200_000

    /// Queues of all brokers that are divided in one turn of the loop, at most.
    static let dividedMax = 8192

    /// Queues of a topic at other brokers.
    enum Queues: Equatable {
        case all([MessageQueue])
        /// More than are divided.
        case tooMany

        var count: Int { if case .all(let queues) = self { queues.count } else { 0 } }
    }

    private var known: [String: (queues: Queues, untilSteady: Int64)] = [:]
    /// Of all topics that are known.
    private(set) var queueCount = 0
    private var waiters: [String: [(Queues) -> Void]] = [:]

    func queues(of topic: String, steady: Int64) -> Queues? {
        guard let known = known[topic], known.untilSteady > steady else { return nil }
        return known.queues
    }

    /// Requests that wait for the route of one topic, at most; more are answered with what is known.
    static let waitersMax = 1024

    func isFull(_ topic: String) -> Bool { waiting(for: topic) >= Self.waitersMax }

    func waiting(for topic: String) -> Int { waiters[topic]?.count ?? 0 }

    /// True for the first of those who wait for a topic's route: it asks.
    mutating func wait(for topic: String, _ then: @escaping (Queues) -> Void) -> Bool {
        waiters[topic, default: []].append(then)
        return waiters[topic]?.count == 1
    }

    /// A name server has answered, or none has: nil.
    /// - Returns: who waits for it.
    mutating func answered(
        _ topic: String, _ found: Queues?, steady: Int64
    ) -> [(Queues) -> Void] {
        if let found {
            queueCount -= known.removeValue(forKey: topic)?.queues.count ?? 0
            if known.count >= Self.countMax || queueCount + found.count > Self.queuesMax {
                (known, queueCount) = ([:], 0)
            }
            known[topic] = (found, steady + Self.validMilliseconds)
            queueCount += found.count
        }
        return waiters.removeValue(forKey: topic) ?? []
    }
}

extension NameserverRegistration: TopicRoutes {
    private static let routeTimeout = TimeAmount.seconds(3)

    func readableQueues(of topic: String, _ then: @escaping (KnownRoutes.Queues) -> Void) {
        let steady = environment.steady()
        if let others = routes.queues(of: topic, steady: steady) { return then(withOwn(others, of: topic)) }
        // Of topics that are not here clients ask brokers that have them.
        guard tables.topics[topic] != nil, !routes.isFull(topic),
            let server = servers.first(where: { !$0.hasLeft && $0.client?.isActive == true }),
            let client = server.client
        else { return then(withOwn(.all([]), of: topic)) }
        guard routes.wait(for: topic, then) else { return }
        let request = RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic])
        client.invoking(request, timeout: Self.routeTimeout).assumeIsolated().whenComplete { [self] result in
            var others: KnownRoutes.Queues?
            if case .success(let answer) = result, answer.responseCode == .success,
                let route = try? TopicRouteData(body: answer.body)
            {
                others = Self.queues(of: topic, in: route, besides: environment.configuration.brokerName)
            }
            // Without an answer this broker's own queues are what is known.
            let all = withOwn(others ?? .all([]), of: topic)
            answer(routes.answered(topic, others, steady: environment.steady()), with: all)
        }
    }

    /// In slices: each answer sorts all queues.
    private func answer(_ waiters: [(KnownRoutes.Queues) -> Void], with all: KnownRoutes.Queues) {
        let atOnce = max(1, KnownRoutes.dividedMax / max(1, all.count))
        var rest = waiters[...]
        let slice = { [self] in
            for waiter in rest.prefix(atOnce) { waiter(all) }
            rest = rest.dropFirst(atOnce)
            environment.scheduleTick()
            return !rest.isEmpty
        }
        if slice() { environment.slices.add(slice) }
    }

    /// Those of other brokers; not built when they are too many to be divided.
    static func queues(of topic: String, in route: TopicRouteData, besides own: String) -> KnownRoutes.Queues {
        func count(_ data: QueueData) -> Int32 { max(0, min(data.readQueueNums, QueueLimits.queuesPerTopic)) }
        let datas = route.queueDatas.filter { $0.perm & Permission.read != 0 && $0.brokerName != own }
        guard datas.reduce(0, { $0 + Int(count($1)) }) <= KnownRoutes.dividedMax else { return .tooMany }
        return .all(
            datas.flatMap { data in
                (0..<count(data)).map { MessageQueue(topic: topic, brokerName: data.brokerName, queueID: $0) }
            })
    }

    private func withOwn(_ others: KnownRoutes.Queues, of topic: String) -> KnownRoutes.Queues {
        guard case .all(let others) = others else { return .tooMany }
        let all = others + ownQueues(of: topic)
        return all.count <= KnownRoutes.dividedMax ? .all(all) : .tooMany
    }

    /// As the topic is now, whatever name servers have received.
    private func ownQueues(of topic: String) -> [MessageQueue] {
        guard let config = tables.topics[topic]?.config, config.perm & Permission.read != 0 else { return [] }
        return (0..<max(0, config.readQueueNums)).map {
            MessageQueue(topic: topic, brokerName: environment.configuration.brokerName, queueID: $0)
        }
    }
}
