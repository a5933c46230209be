import FastJSON
import MessageModel
import NIOCore
import NIOPosix
package import RemotingProtocol
import RemotingTransport

/// A topic's queues and the addresses of its brokers, as producers and consumers need them.
package struct QueueRoute: Sendable {
    package var writable: [MessageQueue] = []
    package var readable: [MessageQueue] = []
    /// Broker name → broker ID → address; 0 is the master's ID.
    package var addresses: [String: [Int64: String]] = [:]

    init() {}

    /// Only queues of brokers with a master can be written; a slave serves readers alone, too.
    init(_ data: TopicRouteData, topic: String) {
        for broker in data.brokerDatas where !broker.brokerAddrs.isEmpty {
            addresses[broker.brokerName] = broker.brokerAddrs
        }
        for entry in data.queueDatas {
            guard let servers = addresses[entry.brokerName] else { continue }
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

    private static let routeLifetime = Duration.seconds(30)
    /// A topic that does not exist may be created at any time: by a first message, or a group's first heartbeat.
    private static let absenceLifetime = Duration.seconds(1)

    package nonisolated let nameServers: [String]
    nonisolated let requestTimeout: Duration
    private let inbound: Inbound?
    private var connections: [String: Task<RemotingClient, any Error>] = [:]
    private var routes: [String: (route: QueueRoute?, at: ContinuousClock.Instant)] = [:]
    private var isClosed = false
    /// Connections that were made, and their numbers.
    private var made: [String: (client: RemotingClient, epoch: Int)] = [:]
    private var epochs = 0

    /// - Throws: `invalidArgument` without a name server.
    package init(_ settings: ClientSettings, inbound: Inbound? = nil) throws(RocketMQClientError) {
        try settings.check()
        nameServers = settings.nameServers
        requestTimeout = settings.requestTimeout
        self.inbound = inbound
    }

    /// The brokers of all routes known so far.
    var knownBrokers: Set<String> {
        routes.values.reduce(into: []) { brokers, known in brokers.formUnion(known.route?.brokers ?? []) }
    }

    /// A topic's route; nil when no name server knows the topic.
    ///
    /// - Parameter maxAge: a route that was asked for within this time is not asked for again.
    /// - Throws: `noNameServer` when none answers and no earlier route is known; `refused`.
    package func route(
        of topic: String, maxAge: Duration = ServerConnections.routeLifetime
    ) async throws(RocketMQClientError) -> QueueRoute? {
        if let known = routes[topic],
            known.at.duration(to: .now) < (known.route == nil ? min(maxAge, Self.absenceLifetime) : maxAge)
        {
            return known.route
        }
        let reply: (address: String, reply: RemotingCommand)
        do throws(RocketMQClientError) {
            reply = try await askNameServers(
                RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic]), timeout: .seconds(5))
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
            routes[topic] = (route, .now)
            return route
        case .topicNotExist:
            routes[topic] = (nil, .now)
            return nil
        default:
            if let known = routes[topic], known.route != nil { return known.route }
            throw .refused(ServerRefusal(address: reply.address, reply: reply.reply))
        }
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
            let inbound = inbound
            let pending = Task {
                try await RemotingClient.connect(
                    to: address, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(3),
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
        let open = connections.values
        connections = [:]
        made = [:]
        for pending in open {
            await (try? pending.value)?.close()
        }
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

    package var wire: RemotingProtocol.MessageQueue {
        RemotingProtocol.MessageQueue(
            topic: topic, brokerName: brokerName, queueID: Int32(clamping: queueID))
    }
}
