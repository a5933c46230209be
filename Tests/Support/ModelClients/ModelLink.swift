import NIOCore
import NIOPosix
package import RemotingProtocol
package import RemotingTransport
import RocketMQClient

/// Why a model client could not do something; never a fault of the model.
package struct ModelError: Error, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// Model clients speak the wire form; the library has a public type of the same name.
package typealias MessageQueue = RemotingProtocol.MessageQueue

package enum ModelClock {
    /// Milliseconds since 1970.
    package static var nowMilliseconds: Int64 { WallClock.milliseconds }
}

/// A client's connection to a broker, made anew when it has ended, and what name servers say about topics.
package actor ModelLink {
    private let nameServer: String
    private let fixedBroker: String?
    private var brokerAddress: String?
    private var connection: RemotingClient?
    private var lookup: RemotingClient?
    private var connecting: Task<RemotingClient, any Error>?
    private var inbound: InboundRequestHandler?
    private var routes: [String: (queues: Int32, at: ContinuousClock.Instant)] = [:]
    private var isClosed = false
    /// Counts connections: what was learned on an earlier one (locks, a heartbeat) may hold no longer.
    package private(set) var generation = 0

    package init(nameServer: String, broker: String? = nil) {
        self.nameServer = nameServer
        fixedBroker = broker
    }

    /// Nothing has ended the connection, as far as is known.
    package var isConnected: Bool { connection?.isActive == true }

    package func setInbound(_ handler: @escaping InboundRequestHandler) { inbound = handler }

    /// The connection to the broker.
    package func client() async throws -> RemotingClient {
        if isClosed { throw ModelError("this client has ended") }
        if let connection, connection.isActive { return connection }
        if let connecting { return try await connecting.value }
        let task = Task { () throws -> RemotingClient in
            let address = try await broker()
            return try await RemotingClient.connect(
                to: address, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(2), inbound: inbound)
        }
        connecting = task
        defer { connecting = nil }
        let made = try await task.value
        if isClosed {
            made.closeNow()
            throw ModelError("this client has ended")
        }
        connection = made
        generation += 1
        return made
    }

    private func broker() async throws -> String {
        if let known = fixedBroker ?? brokerAddress { return known }
        throw ModelError("no route looked up yet")
    }

    /// The queues of a topic; what was known before, if the name server does not answer.
    package func queues(of topic: String, maxAge: Duration = .seconds(1)) async throws -> Int32 {
        if let known = routes[topic], known.at.duration(to: .now) < maxAge { return known.queues }
        do {
            if lookup?.isActive != true {
                lookup = try await RemotingClient.connect(
                    to: nameServer, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(1))
            }
            guard let lookup else { throw ModelError("no name server") }
            let reply = try await lookup.invoke(
                RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic]), timeout: .seconds(1))
            guard reply.code == 0 else { throw ModelError("no route of \(topic): \(reply.remark ?? "")") }
            let route = try TopicRouteData(body: reply.body)
            guard let queue = route.queueDatas.first, let broker = route.brokerDatas.first?.preferredAddress else {
                throw ModelError("an empty route of \(topic)")
            }
            brokerAddress = broker
            routes[topic] = (queue.readQueueNums, .now)
            return queue.readQueueNums
        } catch {
            if let known = routes[topic] { return known.queues }
            throw error
        }
    }

    package func invoke(_ command: RemotingCommand, seconds: Int64 = 3) async throws -> RemotingCommand {
        try await client().invoke(command, timeout: .seconds(seconds))
    }

    package func oneway(_ command: RemotingCommand) async throws { try await client().oneway(command) }

    /// The connection breaks; the next use makes another one.
    package func disconnect() {
        connection?.closeNow()
        connection = nil
    }

    /// Ends for good.
    package func close() {
        isClosed = true
        connection?.closeNow()
        lookup?.closeNow()
    }
}
