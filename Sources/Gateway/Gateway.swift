import FastJSON
import MessageModel
package import NIOCore
import RemotingProtocol
package import RocketMQClient
import Synchronization

/// Answers requests of HTTP by calls to name servers and brokers. Has no message itself. Any thread.
package final class Gateway: Sendable {
    /// A request that may go on: its body is read next.
    package struct Admitted: Sendable {
        let match: RouteTable.Match
        /// Bytes of a body that are taken.
        package let bodyBytesMax: Int
        /// The request may wait for messages: it ends with its connection.
        package let mayWait: Bool
    }

    /// What a request is answered with.
    package enum Reply: Sendable {
        case answer(GatewayAnswer)
        /// Messages, which are given back when the answer cannot be written.
        case deliveries(GatewayAnswer, [DeliveryHandle])
        /// Events until the client leaves.
        case events(Stream)
    }

    /// A stream of events: `nextEvents` has those behind the first ones.
    package struct Stream: Sendable {
        /// What its client asks for.
        package let request: ReceiveRequest
        /// Written first.
        package let first: [Event]
    }

    private static let producerGroup = "APUS_GATEWAY"
    /// So long a message is tried before its sender hears that no broker takes it.
    private static let sendTimeout = Duration.seconds(5)
    /// A stream is silent so long at most, so that its client and proxies know that it is there.
    private static let eventWait = Duration.seconds(15)

    /// `HOST:PORT` of each.
    package let nameServers: [String]
    private let access: Mutex<AccessRules>
    private let producer: Producer
    private let receiver: MessageReceiver
    private let connections: ServerConnections

    /// Checks the access tokens as `init` does.
    /// - Throws: `Problem` for tokens that are none.
    package static func check(_ settings: GatewayConfiguration) throws {
        _ = try AccessRules(tokens: settings.accessTokens)
    }

    /// - Parameter group: where connections to brokers live.
    /// - Throws: as `check`; `RocketMQClientError` without a name server.
    package init(_ settings: GatewayConfiguration, group: any EventLoopGroup) throws {
        var client = ClientSettings(nameServers: settings.nameServers)
        client.eventLoopGroup = group
        nameServers = client.nameServers
        access = Mutex(try AccessRules(tokens: settings.accessTokens))
        var options = Producer.Options()
        options.sendTimeout = Self.sendTimeout
        producer = try Producer(client, group: Self.producerGroup, options: options)
        receiver = try MessageReceiver(client)
        connections = try ServerConnections(client)
    }

    /// From now on these tokens count.
    /// - Throws: `Problem` for tokens that are none.
    package func update(accessTokens: String) throws(Problem) {
        let rules = try AccessRules(tokens: accessTokens)
        access.withLock { $0 = rules }
    }

    /// Requests that wait for messages are answered; new ones do not wait.
    package func stop() async { await receiver.stop() }

    /// Stops, and closes connections to brokers.
    package func close() async {
        await receiver.close()
        await producer.close()
        await connections.close()
    }

    // MARK: - Requests

    /// Whether a request may go on, before its body is read.
    /// - Throws: whom it is refused to, what is not served, or what its body cannot be.
    package func admit(_ head: RequestHead) throws(Problem) -> Admitted {
        let match = try RouteTable.find(head.method, head.target)
        try access.withLock { $0 }.check(head, match.route)
        let length = head.contentLength ?? 0
        guard length <= Shapes.requestBytesMax else { throw Self.tooLarge }
        let hasBody = length > 0 || head["transfer-encoding"] != nil
        if match.route.body != nil, hasBody || match.route.needsBody, !head.isJSON {
            throw Problem(
                415, "not-json", "Content-Type is \(Shape.shown(head["content-type"] ?? "missing"))",
                remedy: "send Content-Type: application/json")
        }
        return Admitted(
            match: match, bodyBytesMax: match.route.body == nil ? 0 : Shapes.requestBytesMax,
            mayWait: match.route.operation == .receiveMessages || match.route.operation == .streamMessages)
    }

    /// The body has more than `bodyBytesMax` bytes.
    package static let tooLarge = Problem(
        413, "too-large", "the body has more than \(Shapes.requestBytesMax) bytes",
        remedy: "send fewer messages in one request; larger messages by RocketMQ's own clients")

    /// The answer to a request.
    /// - Throws: why there is none.
    package func reply(to request: Admitted, body: [UInt8]) async throws(Problem) -> Reply {
        let match = request.match
        let (topic, group) = (match.parameters["topic"] ?? "", match.parameters["group"] ?? "")
        let value: JSONValue
        if let shape = match.route.body, match.route.needsBody || !body.isEmpty {
            value = try RequestBodies.object(body, shape)
        } else {
            value = .fields([])
        }
        switch match.route.operation {
        case .start: return .answer(.text(Self.startPage))
        case .health: return .answer(try await health())
        case .openAPI:
            return .answer(
                GatewayAnswer(status: 200, headers: [("content-type", "application/json")], body: OpenAPI.bytes))
        case .nameServers: return .answer(.text(nameServers.joined(separator: ";")))
        case .sendMessages: return .answer(try await send(value, topic))
        case .receiveMessages:
            return try await receive(RequestBodies.receiving({ value[$0] }, topic: topic, group: group))
        case .acknowledge, .fail, .extend:
            let handles = try RequestBodies.handles(value, topic: topic, group: group)
            return .answer(try await settle(match.route.operation, handles, value))
        case .streamMessages:
            let request = RequestBodies.receiving({ match.query[$0] }, topic: topic, group: group)
            // What cannot be asked for is answered by a status, which a stream that has begun cannot have.
            return .events(Stream(request: request, first: try await nextEvents(request, wait: .zero)))
        }
    }

    private static let startPage = """
        Apus gateway: topics and groups of RocketMQ and Apus over HTTP.

        \(RouteTable.routes.map { "\($0.method) \($0.path)\n    \($0.summary)" }.joined(separator: "\n"))

        """

    private func health() async throws(Problem) -> GatewayAnswer {
        do throws(RocketMQClientError) {
            let answer = try await connections.askNameServers(
                RemotingCommand(.getBrokerClusterInfo), timeout: .seconds(2))
            return .json(.fields([("status", "ok"), ("nameServer", .string(answer.address))]))
        } catch {
            throw Problem(error)
        }
    }

    // MARK: - Sending

    private func send(_ value: JSONValue, _ topic: String) async throws(Problem) -> GatewayAnswer {
        let sending = try RequestBodies.sending(value, topic: topic)
        let invalidName = TopicName.problem(topic)
        do throws(RocketMQClientError) {
            // A topic of such a name may exist, and none can be made.
            if let invalidName, try await connections.route(of: topic) == nil {
                throw RocketMQClientError.invalidArgument("\(invalidName)")
            }
            // A topic that does not exist is said at once.
            try await producer.checkReachable(topic: topic, selector: sending.selector)
            if sending.isBatch {
                return .json(AnswerBodies.sent(try await producer.send(sending.messages, selector: sending.selector)))
            }
            return .json(AnswerBodies.sent([try await producer.send(sending.messages[0], selector: sending.selector)]))
        } catch {
            throw Problem(error)
        }
    }

    // MARK: - Receiving

    private func receive(_ request: ReceiveRequest) async throws(Problem) -> Reply {
        let deliveries = try await deliveries(request)
        let handles = deliveries.map(\.handle)
        if Task.isCancelled {
            await receiver.giveBack(handles)
            return .deliveries(.json(AnswerBodies.received([])), [])
        }
        return .deliveries(.json(AnswerBodies.received(deliveries)), handles)
    }

    private func deliveries(_ request: ReceiveRequest) async throws(Problem) -> [ReceivedDelivery] {
        do throws(RocketMQClientError) {
            return try await receiver.receive(request)
        } catch {
            throw Problem(error)
        }
    }

    /// The next events of a stream, waited for a while. None came: a comment, which keeps the connection.
    /// - Throws: why no broker can be asked.
    package func nextEvents(_ request: ReceiveRequest) async throws(Problem) -> [Event] {
        let events = try await nextEvents(request, wait: Self.eventWait)
        return events.isEmpty ? [Event(bytes: Array(": nothing new\n\n".utf8), handle: nil)] : events
    }

    private func nextEvents(_ request: ReceiveRequest, wait: Duration) async throws(Problem) -> [Event] {
        var request = request
        request.wait = wait
        request.messagesMax = Self.eventsMax
        let deliveries = try await deliveries(request)
        if Task.isCancelled {
            await receiver.giveBack(deliveries.map(\.handle))
            return []
        }
        return deliveries.map { Event(bytes: AnswerBodies.event($0), handle: $0.handle) }
    }

    /// Messages of a stream that wait to be written.
    private static let eventsMax = 8

    /// A part of a stream.
    package struct Event: Sendable {
        /// What is written.
        package let bytes: [UInt8]
        /// The message to give back if it is not.
        package let handle: DeliveryHandle?
    }

    /// Why there are no events at present.
    package static func event(_ problem: Problem) -> Event {
        Event(
            bytes: Array("event: problem\ndata: ".utf8) + problem.answer.body + Array("\n\n".utf8), handle: nil)
    }

    /// Messages whose client has left: others get them at once.
    package func giveBack(_ handles: [DeliveryHandle]) async { await receiver.giveBack(handles) }

    // MARK: - Settling

    private func settle(
        _ operation: Operation, _ handles: [DeliveryHandle], _ value: JSONValue
    ) async throws(Problem) -> GatewayAnswer {
        let pause = value["delayMilliseconds"]?.integer.map { Duration.milliseconds($0) }
        let time = Duration.milliseconds(value["invisibleMilliseconds"]?.integer ?? 0)
        let reason = value["reason"]?.string
        let receiver = receiver
        func settle(_ handle: DeliveryHandle) async -> AnswerBodies.Outcome {
            var outcome = AnswerBodies.Outcome(handle: handle.text)
            do throws(RocketMQClientError) {
                switch operation {
                case .fail: outcome.isOver = !(try await receiver.fail(handle, retryAfter: pause, reason: reason))
                case .extend:
                    outcome.next = try await receiver.renew(handle, for: time)
                    outcome.isOver = outcome.next == nil
                default: try await receiver.acknowledge(handle)
                }
            } catch {
                outcome.problem = Problem(error)
            }
            return outcome
        }
        if handles.count == 1, let handle = handles.first {
            return .json(try AnswerBodies.outcomes([await settle(handle)]))
        }
        let outcomes = await withTaskGroup(of: (Int, AnswerBodies.Outcome).self) { tasks in
            for (number, handle) in handles.enumerated() { tasks.addTask { (number, await settle(handle)) } }
            var outcomes: [(Int, AnswerBodies.Outcome)] = []
            for await outcome in tasks { outcomes.append(outcome) }
            return outcomes.sorted { $0.0 < $1.0 }.map(\.1)
        }
        return .json(try AnswerBodies.outcomes(outcomes))
    }
}

/// Settings of a gateway as its worker was given them.
package struct GatewayConfiguration: Sendable {
    /// `HOST:PORT`, separated by `;`.
    package var nameServers: String
    /// Separated by `;`; empty: none are needed.
    package var accessTokens: String

    package init(nameServers: String, accessTokens: String) {
        self.nameServers = nameServers
        self.accessTokens = accessTokens
    }
}
