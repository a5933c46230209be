import FastJSON
import MessageModel
import NIOCore
import NIOPosix
package import RemotingProtocol
import RemotingTransport

/// A topic's queues and the addresses of its brokers, as producers and consumers need them.
package struct QueueRoute: Sendable {
    /// Sorted; only of brokers with a master. At most `QueueLimits.queuesPerTopic` of each broker.
    package var writable: [MessageQueue] = []
    /// Sorted; also of brokers with a slave alone. At most `QueueLimits.queuesPerTopic` of each broker.
    package var readable: [MessageQueue] = []
    /// Broker name → broker ID → address; 0 is the master's ID.
    package var addresses: [String: [Int64: String]] = [:]

    init() {}

    /// Only queues of brokers with a master can be written; a slave serves readers alone, too.
    init(_ data: TopicRouteData, topic: String) {
        for broker in data.brokerDatas where !broker.brokerAddrs.isEmpty {
            addresses[broker.brokerName] = broker.brokerAddrs
        }
        var seen: Set<String> = []
        for entry in data.queueDatas {
            guard let servers = addresses[entry.brokerName], seen.insert(entry.brokerName).inserted else { continue }
            func queues(_ count: Int32) -> [MessageQueue] {
                (0..<Int(min(max(0, count), QueueLimits.queuesPerTopic))).map {
                    MessageQueue(topic: topic, brokerName: entry.brokerName, queueID: $0)
                }
            }
            if entry.perm & Permission.write != 0, servers[0] != nil { writable += queues(entry.writeQueueNums) }
            if entry.perm & Permission.read != 0 { readable += queues(entry.readQueueNums) }
        }
        writable.sort()
        readable.sort()
    }

    /// `host:port`; nil while the broker has no master or does not have the topic.
    package func master(of broker: String) -> String? { addresses[broker]?[0] }

    /// The server of this ID, else the master, else the slave of the lowest ID.
    package func server(of broker: String, preferredID: Int64 = 0) -> String? {
        guard let servers = addresses[broker] else { return nil }
        return servers[preferredID] ?? servers[0] ?? servers.min { $0.key < $1.key }?.value
    }

    /// One server of each broker: where a client announces itself.
    package var brokers: Set<String> { Set(addresses.keys.compactMap { server(of: $0) }) }
}

/// A cluster as a client sees it: routes from its name servers, one connection to each server, opened when needed.
package actor ServerConnections {
    /// Answers what a server asks of this client; gets the server's address. Called on an event loop.
    package typealias Inbound = @Sendable (String, RemotingCommand) -> RemotingCommand?

    private let routeLifetime: Duration
    private let missingRouteLifetime: Duration
    /// A topic that does not exist may be created at any time: by a first message, or a group's first heartbeat.
    private static let absenceLifetime = Duration.seconds(1)
    /// A route may be old where a broker just failed; but all callers together ask only so often.
    package static let routeAgeAfterFailure = Duration.seconds(1)
    /// A name server that did not answer is not asked for a second opinion for so long.
    private static let silenceLifetime = Duration.seconds(10)

    /// `host:port` of each.
    package nonisolated let nameServers: [String]
    nonisolated let requestTimeout: Duration
    private let inbound: Inbound?
    private let group: any EventLoopGroup
    private var connections: [String: Task<RemotingClient, any Error>] = [:]
    private var routes: [String: KnownRoute] = [:]
    /// Name servers that did not answer, and when.
    private var silent: [String: ContinuousClock.Instant] = [:]
    private var isClosed = false
    /// Connections that were made, and their numbers.
    private var made: [String: (client: RemotingClient, epoch: Int)] = [:]
    private var epochs = 0

    private struct KnownRoute {
        var route: QueueRoute?
        var at = ContinuousClock.now
        /// Since when no name server has known the topic, whose last route is kept.
        var missingSince: ContinuousClock.Instant?
    }

    /// - Throws: `invalidArgument` without a name server.
    package init(_ settings: ClientSettings, inbound: Inbound? = nil) throws(RocketMQClientError) {
        try settings.check()
        nameServers = settings.nameServers
        requestTimeout = settings.requestTimeout
        routeLifetime = settings.routeLifetime
        missingRouteLifetime = settings.missingRouteLifetime
        self.inbound = inbound
        group = settings.eventLoopGroup ?? MultiThreadedEventLoopGroup.singleton
    }

    /// The brokers of all routes known so far.
    var knownBrokers: Set<String> {
        routes.values.reduce(into: []) { brokers, known in brokers.formUnion(known.route?.brokers ?? []) }
    }

    /// A topic's route; nil when no name server knows the topic. One that was known counts for a minute more.
    ///
    /// - Parameter maxAge: a route that was asked for within this time is not asked for again; nil: 30 s.
    /// - Throws: `noNameServer` when none answers and no earlier route is known; `refused`.
    package func route(
        of topic: String, maxAge: Duration? = nil
    ) async throws(RocketMQClientError) -> QueueRoute? {
        if let known = routes[topic] {
            let isDoubtful = known.route == nil || known.missingSince != nil
            let lifetime = maxAge ?? routeLifetime
            guard known.at.duration(to: .now) >= (isDoubtful ? min(lifetime, Self.absenceLifetime) : lifetime) else {
                return known.route
            }
        }
        let reply: (address: String, reply: RemotingCommand)
        do throws(RocketMQClientError) {
            reply = try await askForRoute(of: topic)
        } catch {
            if let known = routes[topic], known.route != nil { return known.route }
            throw error
        }
        switch reply.reply.responseCode {
        case .success:
            let data = try decoded(reply.address) { () throws(RemotingDecodeError) in
                try TopicRouteData(body: reply.reply.body)
            }
            let route = QueueRoute(data, topic: topic)
            routes[topic] = KnownRoute(route: route)
            return route
        case .topicNotExist:
            guard let known = routes[topic], let route = known.route else {
                routes[topic] = KnownRoute()
                return nil
            }
            let since = known.missingSince ?? .now
            let isKept = since.duration(to: .now) < missingRouteLifetime
            routes[topic] = isKept ? KnownRoute(route: route, missingSince: since) : KnownRoute()
            return isKept ? route : nil
        default:
            if let known = routes[topic], known.route != nil { return known.route }
            throw .refused(ServerRefusal(address: reply.address, reply: reply.reply))
        }
    }

    /// The answer of the first name server that knows the topic; else that one does not.
    ///
    /// - Throws: `noNameServer`, `closed`.
    private func askForRoute(
        of topic: String
    ) async throws(RocketMQClientError) -> (address: String, reply: RemotingCommand) {
        let command = RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic])
        var absent: (address: String, reply: RemotingCommand)?
        var cause = "none is given"
        for address in nameServers {
            // One that is away is not worth waiting for, where another has answered.
            if absent != nil, let since = silent[address], since.duration(to: .now) < Self.silenceLifetime { continue }
            do throws(RocketMQClientError) {
                let reply = try await invoke(address, command, timeout: .seconds(5))
                silent[address] = nil
                guard reply.responseCode == .topicNotExist else { return (address, reply) }
                absent = absent ?? (address, reply)
            } catch {
                if case .closed = error { throw error }
                silent[address] = .now
                cause = error.description
            }
        }
        if let absent { return absent }
        throw .noNameServer(addresses: nameServers, cause: cause)
    }

    /// The answer of the first name server that gives one, whatever its code.
    ///
    /// - Throws: `noNameServer`.
    package nonisolated func askNameServers(
        _ command: RemotingCommand, timeout: Duration
    ) async throws(RocketMQClientError) -> (address: String, reply: RemotingCommand) {
        var cause = "none is given"
        for address in nameServers {
            do throws(RocketMQClientError) {
                return (address, try await invoke(address, command, timeout: timeout))
            } catch {
                if case .closed = error { throw error }
                cause = error.description
            }
        }
        throw .noNameServer(addresses: nameServers, cause: cause)
    }

    /// The answer of one server, whatever its code.
    ///
    /// - Throws: `connectionFailed`, `connectionClosed`, `timedOut`, `malformedAnswer`, `closed`.
    package nonisolated func invoke(
        _ address: String, _ command: RemotingCommand, timeout: Duration? = nil
    ) async throws(RocketMQClientError) -> RemotingCommand {
        let client = try await connection(to: address)
        do {
            return try await client.invoke(command, timeout: TimeAmount(timeout ?? requestTimeout))
        } catch {
            throw RocketMQClientError(error, address: address)
        }
    }

    /// The answer of one server, which must be success.
    ///
    /// - Throws: as `invoke`, and `refused`.
    package nonisolated func demand(
        _ address: String, _ command: RemotingCommand, timeout: Duration? = nil
    ) async throws(RocketMQClientError) -> RemotingCommand {
        let reply = try await invoke(address, command, timeout: timeout)
        guard reply.responseCode == .success else {
            throw .refused(ServerRefusal(address: address, reply: reply))
        }
        return reply
    }

    /// Sends a request that wants no answer; returns when the kernel has it.
    ///
    /// - Throws: `connectionFailed`, `connectionClosed`, `closed`.
    package nonisolated func oneway(_ address: String, _ command: RemotingCommand) async throws(RocketMQClientError) {
        let client = try await connection(to: address)
        do {
            try await client.oneway(command)
        } catch {
            throw RocketMQClientError(error, address: address)
        }
    }

    /// The open connection to an address, or a new one.
    private func connection(to address: String) async throws(RocketMQClientError) -> RemotingClient {
        guard !isClosed else { throw .closed }
        do {
            if let pending = connections[address] {
                if let client = try? await pending.value, client.isActive { return client }
                // Another caller may have replaced the broken connection while this one waited.
                if connections[address] == pending { connections[address] = nil }
                if let newer = connections[address] { return try await newer.value }
                guard !isClosed else { throw RocketMQClientError.closed }
            }
            let (inbound, group) = (inbound, group)
            let pending = Task {
                try await RemotingClient.connect(
                    to: address, group: group, timeout: .seconds(3),
                    inbound: inbound.map { inbound in { @Sendable request in inbound(address, request) } })
            }
            connections[address] = pending
            do {
                let client = try await pending.value
                epochs += 1
                made[address] = (client, epochs)
                return client
            } catch {
                if connections[address] == pending { connections[address] = nil }
                throw error
            }
        } catch {
            throw RocketMQClientError(error, address: address)
        }
    }

    /// Which connection to a server is open; nil: none. What a server granted on another one may not hold any more.
    func epoch(of address: String) -> Int? {
        guard let known = made[address], known.client.isActive else { return nil }
        return known.epoch
    }

    /// Closes all connections. Requests under way fail, later ones throw `closed`.
    package func close() async {
        isClosed = true
        let (pending, open) = (connections, made)
        connections = [:]
        made = [:]
        for (address, connection) in pending where open[address] == nil {
            // Nothing waits for a server that may be away.
            Task { await (try? connection.value)?.close() }
        }
        for connection in open.values { await connection.client.close() }
    }
}

/// Reads an answer; an answer that cannot be read is the server's failure.
///
/// - Throws: `malformedAnswer`.
func decoded<Value>(
    _ address: String, _ read: () throws(RemotingDecodeError) -> Value
) throws(RocketMQClientError) -> Value {
    do {
        return try read()
    } catch {
        throw .malformedAnswer(address: address, reason: error.description)
    }
}

extension MessageQueue {
    /// An object key of RocketMQ's tables: `{"brokerName":"a","queueId":0,"topic":"t"}`.
    package init?(key: String) {
        guard let queue = try? RemotingProtocol.MessageQueue(text: key) else { return nil }
        self.init(queue)
    }

    package init(_ queue: RemotingProtocol.MessageQueue) {
        self.init(topic: queue.topic, brokerName: queue.brokerName, queueID: Int(queue.queueID))
    }

    /// The queue as RocketMQ's bodies name it; a larger queue ID becomes the largest of 32 bits.
    package var wire: RemotingProtocol.MessageQueue {
        RemotingProtocol.MessageQueue(
            topic: topic, brokerName: brokerName, queueID: Int32(clamping: queueID))
    }
}
