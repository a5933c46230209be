import FastJSON
import MessageModel
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport

/// One queue of a topic, in the order consumers sort them by: topic, broker name, queue id (`MessageQueue.compareTo`).
struct MessageQueue: Hashable, Comparable, CustomStringConvertible, Sendable {
    let topic: String
    let brokerName: String
    let queueId: Int

    static func < (left: MessageQueue, right: MessageQueue) -> Bool {
        (left.topic, left.brokerName, left.queueId) < (right.topic, right.brokerName, right.queueId)
    }

    var description: String { "\(topic) \(brokerName)/\(queueId)" }
}

/// Where a topic lives.
struct TopicRoute: Sendable {
    var writable: [MessageQueue] = []
    var readable: [MessageQueue] = []
    /// Broker name → address of its master.
    var masters: [String: String] = [:]
}

/// A cluster as a client sees it: routes from its name servers, one connection to each broker, opened when needed.
actor Cluster {
    private static let routeLifetime = Duration.seconds(30)

    nonisolated let nameServers: [String]
    private let inbound: InboundRequestHandler?
    private var connections: [String: Task<RemotingClient, any Error>] = [:]
    private var routes: [String: (route: TopicRoute?, at: ContinuousClock.Instant)] = [:]

    /// - Parameter nameServers: addresses separated by `;` or `,`.
    init(nameServers: String, inbound: InboundRequestHandler? = nil) throws {
        self.nameServers = nameServers.split { $0 == ";" || $0 == "," }.map(String.init)
        self.inbound = inbound
        guard !self.nameServers.isEmpty else {
            throw CommandFailure("--name-server is empty: give its address, such as 127.0.0.1:9876")
        }
    }

    /// A topic's route; nil when no name server knows the topic. Remembered for 30 s.
    func route(of topic: String, refresh: Bool = false) async throws -> TopicRoute? {
        if !refresh, let known = routes[topic], known.at.duration(to: .now) < Self.routeLifetime { return known.route }
        var failure: (any Error)?
        for address in nameServers {
            do {
                let reply = try await connection(to: address).invoke(
                    RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic]), timeout: .seconds(5))
                switch reply.responseCode {
                case .success:
                    let route = try Self.route(of: topic, from: reply.json())
                    routes[topic] = (route, .now)
                    return route
                case .topicNotExist:
                    routes[topic] = (nil, .now)
                    return nil
                default:
                    failure = CommandFailure("name server \(address) refused the route: \(words(of: reply))")
                }
            } catch {
                failure = error
            }
        }
        if let known = routes[topic], known.route != nil { return known.route }
        guard let failure else { return nil }
        if let failure = failure as? CommandFailure { throw failure }
        throw CommandFailure(
            "no name server answers at \(nameServers.joined(separator: ", ")): \(failure)\n"
                + "Start a platform with `apus up`, or say where one runs with --name-server.")
    }

    /// The open connection to an address, or a fresh one.
    func connection(to address: String) async throws -> RemotingClient {
        if let pending = connections[address] {
            if let client = try? await pending.value, client.isActive { return client }
            // Another caller may have replaced the broken connection while this one waited.
            if connections[address] == pending { connections[address] = nil }
            if let newer = connections[address] { return try await newer.value }
        }
        let inbound = inbound
        let pending = Task {
            try await RemotingClient.connect(
                to: address, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(3), inbound: inbound)
        }
        connections[address] = pending
        do {
            return try await pending.value
        } catch {
            if connections[address] == pending { connections[address] = nil }
            throw error
        }
    }

    func close() async {
        let open = connections.values
        connections = [:]
        for pending in open {
            await (try? pending.value)?.close()
        }
    }

    private static func route(of topic: String, from json: JSONValue) -> TopicRoute {
        var route = TopicRoute()
        for broker in json["brokerDatas"]?.array ?? [] {
            if let name = broker["brokerName"]?.string, let master = broker["brokerAddrs"]?["0"]?.string {
                route.masters[name] = master
            }
        }
        for queue in json["queueDatas"]?.array ?? [] {
            guard let name = queue["brokerName"]?.string, route.masters[name] != nil else { continue }
            let permission = queue["perm"]?.integer ?? 0
            func queues(_ count: JSONValue?) -> [MessageQueue] {
                (0..<Int(min(max(0, count?.integer ?? 0), Int64(QueueLimits.queuesPerTopic)))).map {
                    MessageQueue(topic: topic, brokerName: name, queueId: $0)
                }
            }
            if permission & 2 != 0 { route.writable += queues(queue["writeQueueNums"]) }
            if permission & 4 != 0 { route.readable += queues(queue["readQueueNums"]) }
        }
        route.writable.sort()
        route.readable.sort()
        return route
    }
}

/// An answer's code and remark for people.
func words(of reply: RemotingCommand) -> String {
    let name = reply.responseCode.map { "\(reply.code) \($0)" } ?? "\(reply.code)"
    // The first line: Apache's remarks go on with Java stack hints.
    let remark = reply.remark?.split(separator: "\n").first.map { ": \($0)" } ?? ""
    return "code \(name)\(remark)"
}
