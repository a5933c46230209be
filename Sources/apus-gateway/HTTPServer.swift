import Gateway
import HTTPTypes
import HummingbirdCore
import Logging
import NIOCore
import NIOPosix
import RemotingTransport
import RocketMQClient

/// HTTP/1.1 of hummingbird on the listener the supervisor gave. Confined to the event loop, on which its tasks run.
final class HTTPServer: @unchecked Sendable {
    /// A connection may be silent so long between requests, or in the midst of one.
    private static let idleTimeout = TimeAmount.seconds(120)
    /// A body may take so long.
    private static let bodyTimeout = TimeAmount.seconds(60)
    /// A client that takes nothing of an answer for so long is gone.
    private static let writeTimeout = TimeAmount.seconds(10)
    /// Bodies of requests that are read or under way, together.
    private static let bytesInFlightMax = 64 << 20
    private static let headerBytesMax = 16 << 10
    /// So much of a body that is not wanted is read and dropped.
    private static let bodyBytesDropped = 64 << 10
    /// Between an answer that ends a connection and its end.
    private static let lingerTime = TimeAmount.seconds(1)

    private let eventLoop: any EventLoop
    private let gateway: Gateway
    private let logger: Logger
    private let executor: LoopExecutor
    let admission: ConnectionAdmission
    private var listener: (any Channel)?
    private var connections: [ObjectIdentifier: any Channel] = [:]
    private var bytesInFlight = 0
    private(set) var waiting = 0
    private var isDraining = false
    private var whenEmpty: EventLoopPromise<Void>?

    init(eventLoop: any EventLoop, gateway: Gateway, connectionsMax: Int, perAddressMax: Int, logger: Logger) {
        self.eventLoop = eventLoop
        self.gateway = gateway
        self.logger = logger
        executor = LoopExecutor(eventLoop)
        admission = ConnectionAdmission(
            connectionsMax: connectionsMax, connectionsPerAddressMax: perAddressMax, eventLoop: eventLoop,
            logger: logger)
    }

    var connectionCount: Int { connections.count }

    // MARK: - Connections

    /// - Parameter listener: a listening socket; taken over.
    func serve(listener descriptor: Int32) -> EventLoopFuture<SocketAddress?> {
        var decoder = HTTP1Channel.Configuration.DecoderConfiguration()
        decoder.maxHeaderFieldSize = Self.headerBytesMax
        decoder.maxHeaderListSize = Self.headerBytesMax
        decoder.maxHeaderFieldCount = 100
        let http = HTTP1Channel(
            responder: { try await self.respond($0, $1, $2) },
            configuration: .init(
                additionalChannelHandlers: [ConnectionWatch()], idleTimeout: Self.idleTimeout,
                httpDecoderConfiguration: decoder))
        let (executor, logger) = (executor, logger)
        return ServerBootstrap(group: eventLoop)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(self.admission.gate())
                }
            }
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                http.setup(channel: channel, logger: logger).map { connection in
                    self.opened(channel)
                    Task(executorPreference: executor) { await http.handle(value: connection, logger: logger) }
                }
            }
            .withBoundSocket(descriptor).map { channel in
                self.listener = channel
                return channel.localAddress
            }
    }

    private func opened(_ channel: any Channel) {
        let id = ObjectIdentifier(channel)
        connections[id] = channel
        channel.closeFuture.whenComplete { _ in
            self.connections[id] = nil
            if self.connections.isEmpty { self.whenEmpty?.succeed() }
        }
    }

    /// Takes no more connections. Those there are close when what was asked on them is answered, or after `limit`.
    func drain(limit: TimeAmount) -> EventLoopFuture<Void> {
        isDraining = true
        listener?.close(promise: nil)
        let promise = eventLoop.makePromise(of: Void.self)
        whenEmpty = promise
        for channel in connections.values {
            channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        }
        if connections.isEmpty {
            promise.succeed()
        } else {
            eventLoop.scheduleTask(in: limit) {
                for channel in self.connections.values { channel.close(promise: nil) }
            }
        }
        return promise.futureResult
    }

    // MARK: - Requests

    private func respond(
        _ request: Request, _ writer: consuming ResponseWriter, _ channel: any Channel
    ) async throws {
        eventLoop.assertInEventLoop()
        let head = Self.head(request)
        let admitted: Gateway.Admitted
        do throws(Problem) {
            admitted = try gateway.admit(head)
        } catch {
            // A large body is not read to its end: the connection cannot go on.
            let length = head["content-length"].flatMap { Int($0) } ?? (head["transfer-encoding"] == nil ? 0 : .max)
            return try await write(error.answer, writer, channel, closes: length > Self.bodyBytesDropped)
        }
        if head["expect"]?.lowercased() == "100-continue" {
            try await writer.writeInformationalHead(HTTPResponse(status: .continue))
        }
        var body: [UInt8] = []
        defer { bytesInFlight -= body.count }
        if admitted.bodyBytesMax > 0 {
            let slow = eventLoop.scheduleTask(in: Self.bodyTimeout) { channel.close(promise: nil) }
            defer { slow.cancel() }
            for try await buffer in request.body {
                let count = buffer.readableBytes
                guard body.count + count <= admitted.bodyBytesMax else {
                    return try await write(Gateway.tooLarge.answer, writer, channel, closes: true)
                }
                guard bytesInFlight + count <= Self.bytesInFlightMax else {
                    return try await write(Self.tooMuch.answer, writer, channel, closes: true)
                }
                body += buffer.readableBytesView
                bytesInFlight += count
            }
        }
        let reply: Gateway.Reply
        do throws(Problem) {
            reply = try await self.reply(to: admitted, body: body, channel)
        } catch {
            return try await write(error.answer, writer, channel, closes: false)
        }
        switch reply {
        case .answer(let answer): try await write(answer, writer, channel, closes: false)
        case .deliveries(let answer, let handles):
            try await write(answer, writer, channel, closes: false, handles: handles)
        case .events(let stream): try await write(stream, writer, channel)
        }
    }

    private static func head(_ request: Request) -> RequestHead {
        var headers = request.headers.map { (name: $0.name.canonicalName, value: $0.value) }
        if let host = request.head.authority { headers.append(("host", host)) }
        return RequestHead(method: request.method.rawValue, target: request.head.path ?? "", headers: headers)
    }

    private static let tooMuch = Problem.unavailable(
        "too-much", "bodies of other requests take all the room there is for them",
        remedy: "send the request again later")

    /// One that waits ends when its client leaves.
    private func reply(
        to request: Gateway.Admitted, body: [UInt8], _ channel: any Channel
    ) async throws(Problem) -> Gateway.Reply {
        guard request.mayWait else { return try await gateway.reply(to: request, body: body) }
        let gateway = gateway
        return try await whileConnected(channel) { () async throws(Problem) in
            try await gateway.reply(to: request, body: body)
        }
    }

    private func whileConnected<Value: Sendable>(
        _ channel: any Channel, _ work: @escaping @Sendable () async throws(Problem) -> Value
    ) async throws(Problem) -> Value {
        let task = Task(executorPreference: executor) { () async -> Result<Value, Problem> in
            do throws(Problem) {
                return .success(try await work())
            } catch {
                return .failure(error)
            }
        }
        let watch = try? channel.pipeline.syncOperations.handler(type: ConnectionWatch.self)
        watch?.onEnd = { task.cancel() }
        if !channel.isActive { task.cancel() }
        waiting += 1
        let result = await task.value
        waiting -= 1
        watch?.onEnd = nil
        return try result.get()
    }

    // MARK: - Answers

    /// - Parameter handles: of the messages in it, which are given back if it cannot be written.
    private func write(
        _ answer: GatewayAnswer, _ writer: consuming ResponseWriter, _ channel: any Channel, closes: Bool,
        handles: [DeliveryHandle] = []
    ) async throws {
        var head = HTTPResponse(status: .init(code: answer.status))
        for (name, value) in answer.headers {
            if let name = HTTPField.Name(name) { head.headerFields[name] = value }
        }
        head.headerFields[.contentLength] = String(answer.body.count)
        // Nothing that a page of another site loads as a script or a frame.
        head.headerFields[.xContentTypeOptions] = "nosniff"
        if closes { head.headerFields[.connection] = "close" }
        let slow = eventLoop.scheduleTask(in: Self.writeTimeout) { channel.close(promise: nil) }
        defer { slow.cancel() }
        do {
            try await writer.write(response: head, body: ResponseBody(byteBuffer: ByteBuffer(bytes: answer.body)))
            guard channel.isActive else { throw ChannelError.alreadyClosed }
        } catch {
            if !handles.isEmpty { await gateway.giveBack(handles) }
            throw error
        }
        if closes {
            // What the client still sends is read and dropped for a while: a reset could overtake the answer.
            channel.close(mode: .output, promise: nil)
            eventLoop.scheduleTask(in: Self.lingerTime) { channel.close(promise: nil) }
        }
    }

    /// Until the client leaves, or this process drains.
    private func write(
        _ stream: Gateway.Stream, _ writer: consuming ResponseWriter, _ channel: any Channel
    ) async throws {
        var head = HTTPResponse(status: .ok)
        head.headerFields[.contentType] = "text/event-stream"
        head.headerFields[.cacheControl] = "no-store"
        head.headerFields[.xContentTypeOptions] = "nosniff"
        var events = stream.first
        do {
            var body = try await writer.writeHead(head)
            try await body.write(ByteBuffer(string: ": messages follow\n\n"))
            while true {
                while let event = events.first {
                    let slow = eventLoop.scheduleTask(in: Self.writeTimeout) { channel.close(promise: nil) }
                    defer { slow.cancel() }
                    try await body.write(ByteBuffer(bytes: event.bytes))
                    guard channel.isActive else { throw ChannelError.alreadyClosed }
                    events.removeFirst()
                }
                guard !isDraining else { break }
                events = await next(stream, channel)
            }
            try await body.finish(nil)
        } catch {
            await gateway.giveBack(events.compactMap(\.handle))
            throw error
        }
    }

    /// A failure is said, and tried again after a while: the stream goes on when its brokers are back.
    private func next(_ stream: Gateway.Stream, _ channel: any Channel) async -> [Gateway.Event] {
        let gateway = gateway
        do throws(Problem) {
            return try await whileConnected(channel) { () async throws(Problem) in
                try await gateway.nextEvents(stream.request)
            }
        } catch {
            try? await Task.sleep(for: .seconds(1))
            return [Gateway.event(error)]
        }
    }
}
