import Glibc
package import MessageModel
package import NIOCore
import NIOPosix
package import RemotingProtocol
import Synchronization

/// What a client answers when its server asks (39, 40, 220, 307, 309, …); nil: no answer. Called on the event loop.
package typealias InboundRequestHandler = @Sendable (RemotingCommand) -> RemotingCommand?

/// One connection to a name server or broker, for the control plane: registration, metadata, tools, tests.
///
/// Any number of requests may be under way; answers find theirs by `opaque`. The connection does not reconnect: when it
/// ends, every request under way fails, and the owner connects anew. The `async` calls may be made from any thread and
/// always return, also when the event loop has shut down. The futures are for callers that live on the client's event
/// loop.
package final class RemotingClient: Sendable {
    /// `host:port` as it was given.
    package let peer: String
    private let channel: any Channel
    private let state: NIOLoopBound<ClientState>
    private let ending: ConnectionEnding

    private init(peer: String, channel: any Channel, state: ClientState) {
        self.peer = peer
        self.channel = channel
        self.state = NIOLoopBound(state, eventLoop: channel.eventLoop)
        ending = state.ending
    }

    /// Connects; `group` may be a single event loop.
    /// - Throws: `RemotingError.connectFailed`.
    package static func connect(
        host: String, port: Int, group: any EventLoopGroup, serialization: HeaderSerialization = .json,
        timeout: TimeAmount = .seconds(3), inbound: InboundRequestHandler? = nil
    ) async throws -> RemotingClient {
        let eventLoop = group.next()
        let failure = RemotingError.connectFailed(address: "\(host):\(port)", cause: ConnectionEnding.ofLoop)
        return try await withCheckedThrowingContinuation { continuation in
            let answer = LoopAnswer(continuation, orElse: failure)
            eventLoop.execute {
                Self.connecting(
                    host: host, port: port, group: eventLoop, serialization: serialization, timeout: timeout,
                    inbound: inbound
                ).whenComplete { answer.give($0) }
            }
        }
    }

    /// Connects to `host:port`.
    /// - Throws: `RemotingError.connectFailed`, also for an `address` of another form.
    package static func connect(
        to address: String, group: any EventLoopGroup, serialization: HeaderSerialization = .json,
        timeout: TimeAmount = .seconds(3), inbound: InboundRequestHandler? = nil
    ) async throws -> RemotingClient {
        guard let colon = address.lastIndex(of: ":"), let port = Int(address[address.index(after: colon)...]) else {
            throw RemotingError.connectFailed(address: address, cause: "an address is host:port")
        }
        return try await Self.connect(
            host: String(address[..<colon]), port: port, group: group, serialization: serialization, timeout: timeout,
            inbound: inbound)
    }

    /// The same for callers that live on an event loop.
    package static func connecting(
        host: String, port: Int, group: any EventLoopGroup, serialization: HeaderSerialization = .json,
        timeout: TimeAmount = .seconds(3), inbound: InboundRequestHandler? = nil
    ) -> EventLoopFuture<RemotingClient> {
        let peer = "\(host):\(port)"
        let eventLoop = group.next()
        return ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.writeBufferWaterMark, value: Self.writeBufferWaterMark)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let state = ClientState(
                        peer: peer, channel: channel, serialization: serialization, inbound: inbound)
                    try channel.pipeline.syncOperations.addHandler(RemotingClientHandler(state: state))
                }
            }
            .connect(host: host, port: port)
            .flatMapThrowing { channel in
                let handler = try channel.pipeline.syncOperations.handler(type: RemotingClientHandler.self)
                return RemotingClient(peer: peer, channel: channel, state: handler.state)
            }
            .flatMapErrorThrowing { error in
                throw RemotingError.connectFailed(address: peer, cause: Self.words(of: error))
            }
    }

    /// Own requests may lie in it as well: one of the largest fits.
    private static let writeBufferWaterMark = ChannelOptions.Types.WriteBufferWaterMark(
        low: RemotingLimits.frameBytes, high: 2 * RemotingLimits.frameBytes)

    /// "Connection refused" instead of NIO's nested values.
    private static func words(of error: any Error) -> String {
        switch error {
        case let error as NIOConnectionError:
            if let first = error.connectionErrors.first { return Self.words(of: first.error) }
            if error.dnsAError != nil || error.dnsAAAAError != nil {
                return "the host name \(error.host) has no address"
            }
            return "\(error)"
        case let error as IOError: return String(cString: strerror(error.errnoCode))
        case ChannelError.connectTimeout(let time): return "no answer within \(time.nanoseconds / 1_000_000) ms"
        default: return "\(error)"
        }
    }

    /// Sends a request and gives its answer, whatever its code.
    /// - Throws: `RemotingError.timedOut`; `connectionClosed` and `badFrame` when the connection ended first.
    package func invoke(
        _ command: RemotingCommand, timeout: TimeAmount = .seconds(3)
    ) async throws -> RemotingCommand {
        try await onLoop { state, answer in state.invoke(command, timeout: timeout) { answer.give($0) } }
    }

    /// As `invoke`, for requests whose answer must be success.
    /// - Throws: as `invoke`; `RemotingError.refused` for any other answer.
    package func invokeSuccessfully(
        _ command: RemotingCommand, timeout: TimeAmount = .seconds(3)
    ) async throws -> RemotingCommand {
        let response = try await invoke(command, timeout: timeout)
        guard response.code == ResponseCode.success.rawValue else {
            throw RemotingError.refused(request: command.code, code: response.code, remark: response.remark)
        }
        return response
    }

    /// The same for callers that live on an event loop.
    package func invoking(
        _ command: RemotingCommand, timeout: TimeAmount = .seconds(3)
    ) -> EventLoopFuture<RemotingCommand> {
        let promise = channel.eventLoop.makePromise(of: RemotingCommand.self)
        let state = self.state
        if channel.eventLoop.inEventLoop {
            state.value.invoke(command, timeout: timeout) { promise.completeWith($0) }
        } else {
            channel.eventLoop.execute {
                state.value.invoke(command, timeout: timeout) { promise.completeWith($0) }
            }
        }
        return promise.futureResult
    }

    /// Sends a request that wants no answer; returns when the kernel has it.
    /// - Throws: `RemotingError.connectionClosed` when the connection ended first.
    package func oneway(_ command: RemotingCommand) async throws {
        try await onLoop { state, answer in state.oneway(command) { answer.give($0) } }
    }

    /// Runs `body` on the event loop and waits for the answer it is to give.
    private func onLoop<Value: Sendable>(
        _ body: @escaping @Sendable (ClientState, LoopAnswer<Value>) -> Void
    ) async throws -> Value {
        // Its event loop may have ended with it.
        if let reason = ending.reason { throw RemotingError.connectionClosed(peer: peer, reason: reason) }
        let failure = RemotingError.connectionClosed(peer: peer, reason: ConnectionEnding.ofLoop)
        let state = self.state
        return try await withCheckedThrowingContinuation { continuation in
            let answer = LoopAnswer(continuation, orElse: failure)
            channel.eventLoop.execute { body(state.value, answer) }
        }
    }

    /// False once it has ended. Any thread.
    package var isActive: Bool { channel.isActive }
    /// Of this end.
    package var localAddress: HostAddress { HostAddress(channel.localAddress) }
    /// Where its futures complete.
    package var eventLoop: any EventLoop { channel.eventLoop }
    /// Succeeds when the connection has ended, on either side.
    package var closeFuture: EventLoopFuture<Void> { channel.closeFuture }

    /// Closes, and returns when it is closed; requests under way fail.
    package func close() async {
        guard self.channel.isActive else { return }
        let channel = self.channel
        try? await onLoop { (state: ClientState, answer: LoopAnswer<Void>) in
            state.ended(ConnectionEnding.ofThisSide)
            channel.closeFuture.whenComplete { answer.give($0) }
            channel.close(promise: nil)
        }
    }

    /// Closes without waiting.
    package func closeNow() {
        ending.note(ConnectionEnding.ofThisSide)
        channel.close(promise: nil)
    }
}

/// Why a connection ended; the first reason stays. Any thread.
final class ConnectionEnding: Sendable {
    static let ofThisSide = "this side closed it"
    static let ofPeer = "the peer closed it"
    static let ofLoop = "its event loop has shut down"

    private let first = Mutex<String?>(nil)

    /// nil while it has not ended.
    var reason: String? { first.withLock { $0 } }

    /// The reason that counts.
    @discardableResult
    func note(_ reason: String) -> String {
        self.first.withLock { first in
            let counts = first ?? reason
            first = counts
            return counts
        }
    }
}

/// The requests under way of one client; confined to its event loop. An `Answer` is called once, on the event loop.
final class ClientState {
    typealias Answer<Value> = @Sendable (Result<Value, any Error>) -> Void

    private let peer: String
    private let channel: any Channel
    private let serialization: HeaderSerialization
    private let inbound: InboundRequestHandler?
    private var lastOpaque: Int32 = 0
    private var pending: [Int32: Pending] = [:]
    let ending = ConnectionEnding()

    private struct Pending {
        var answer: Answer<RemotingCommand>
        var timeout: Scheduled<Void>
    }

    init(
        peer: String, channel: any Channel, serialization: HeaderSerialization, inbound: InboundRequestHandler?
    ) {
        self.peer = peer
        self.channel = channel
        self.serialization = serialization
        self.inbound = inbound
    }

    private func encoded(_ command: RemotingCommand) -> ByteBuffer {
        var buffer = ByteBuffer()
        command.encode(into: &buffer, serialization: serialization)
        return buffer
    }

    func invoke(_ command: RemotingCommand, timeout: TimeAmount, answer: @escaping Answer<RemotingCommand>) {
        if let reason = ending.reason { return answer(.failure(closed(reason))) }
        var command = command
        lastOpaque &+= 1
        command.opaque = lastOpaque
        command.flag = 0
        let opaque = command.opaque
        let code = command.code
        let peer = self.peer
        let this = NIOLoopBound(self, eventLoop: channel.eventLoop)
        let scheduled = channel.eventLoop.scheduleTask(in: timeout) {
            guard let request = this.value.pending.removeValue(forKey: opaque) else { return }
            request.answer(
                .failure(
                    RemotingError.timedOut(
                        peer: peer, request: code, milliseconds: timeout.nanoseconds / 1_000_000)))
        }
        pending[opaque] = Pending(answer: answer, timeout: scheduled)
        // A failed write ends the connection, and that fails the request.
        channel.writeAndFlush(encoded(command), promise: nil)
    }

    func oneway(_ command: RemotingCommand, answer: @escaping Answer<Void>) {
        if let reason = ending.reason { return answer(.failure(closed(reason))) }
        var command = command
        lastOpaque &+= 1
        command.opaque = lastOpaque
        command.flag |= RemotingFrame.onewayFlag
        channel.writeAndFlush(encoded(command)).whenComplete(answer)
    }

    func received(_ frame: RemotingFrame) {
        if frame.isResponse {
            guard let request = pending.removeValue(forKey: frame.opaque) else { return }
            request.timeout.cancel()
            request.answer(.success(RemotingCommand(frame)))
            return
        }
        let request = RemotingCommand(frame)
        var response =
            inbound.map { $0(request) }
            ?? RemotingCommand.response(
                .requestCodeNotSupported, remark: " request type \(request.code) not supported")
        guard !request.isOneway, response != nil else { return }
        response?.opaque = request.opaque
        response?.flag |= RemotingFrame.responseFlag
        guard let response else { return }
        // A server that asks and takes no answers would fill this process's memory.
        guard channel.isWritable else {
            ended("it asks and takes no answers")
            return channel.close(promise: nil)
        }
        var buffer = ByteBuffer()
        response.encode(into: &buffer, serialization: frame.serialization)
        channel.writeAndFlush(buffer, promise: nil)
    }

    func ended(_ reason: String) {
        let reason = ending.note(reason)
        let unanswered = pending.values
        pending = [:]
        for request in unanswered {
            request.timeout.cancel()
            request.answer(.failure(closed(reason)))
        }
    }

    private func closed(_ reason: String) -> RemotingError { .connectionClosed(peer: peer, reason: reason) }
}

/// Slices frames out of what the server sends.
final class RemotingClientHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    let state: ClientState
    private let scratch = HeaderScratch()
    private var pending = ByteBuffer()

    init(state: ClientState) {
        self.state = state
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        pending.writeBuffer(&buffer)
        while let length = pending.getInteger(at: pending.readerIndex, as: Int32.self) {
            guard length >= 4, length <= RemotingLimits.frameBytes else {
                return end(context, RemotingDecodeError.badFrameLength(Int(length)).description)
            }
            let count = Int(length) + 4
            guard pending.readableBytes >= count else { break }
            let parsed = pending.withUnsafeReadableBytes { bytes in
                Result { () throws(RemotingDecodeError) in
                    state.received(
                        try RemotingFrame.parse(
                            UnsafeRawBufferPointer(rebasing: bytes[..<count]), scratch: scratch))
                }
            }
            if case .failure(let error) = parsed {
                return end(context, error.description)
            }
            pending.moveReaderIndex(forwardBy: count)
        }
        if pending.readableBytes == 0 {
            // A large answer's memory is not kept for the small ones that follow.
            if pending.capacity > 1 << 20 { pending = ByteBuffer() } else { pending.clear() }
        } else if pending.readerIndex > pending.readableBytes {
            pending.discardReadBytes()
        }
    }

    private func end(_ context: ChannelHandlerContext, _ reason: String) {
        state.ended(reason)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        state.ended(ConnectionEnding.ofPeer)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(context, "\(error)")
    }
}
