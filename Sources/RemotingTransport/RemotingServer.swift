import Glibc
package import Logging
package import NIOCore
import NIOPosix
package import RemotingProtocol

/// What a server does with the frames of its connections. All calls come on the server's event loop.
package protocol RemotingService: AnyObject {
    func connectionOpened(_ connection: RemotingConnection)
    /// A request, valid inside this call only (see `RemotingFrame`). Responses to `RemotingConnection.request` do not
    /// come here.
    func received(_ frame: RemotingFrame, on connection: RemotingConnection)
    func connectionClosed(_ connection: RemotingConnection)
}

/// Bounds of a server. Times are RocketMQ's where RocketMQ has one.
package struct RemotingServerConfiguration: Sendable {
    /// Connections beyond this are closed at once.
    package var connectionsMax = 10_000
    /// A connection that says nothing for so long is closed (`serverChannelMaxIdleTimeSeconds`, 120).
    package var idleTimeout = TimeAmount.seconds(120)
    /// A frame that is not complete so long after its first byte closes its connection.
    package var frameTimeout = TimeAmount.seconds(30)
    /// Above so many bytes waiting to be sent a connection is no longer read from, until the peer has taken half.
    package var outboundHighWaterBytes = 4 << 20
    /// A peer that takes nothing for so long while bytes wait for it is closed.
    package var stallTimeout = TimeAmount.seconds(60)
    /// How often the three time-outs are looked at; they fire up to this much late.
    package var sweepInterval = TimeAmount.seconds(1)
    /// Connections the kernel keeps waiting for `accept`.
    package var backlog: Int32 = 4096

    package init() {}

    var writeBufferWaterMark: ChannelOptions.Types.WriteBufferWaterMark {
        .init(low: outboundHighWaterBytes / 2, high: outboundHighWaterBytes)
    }
}

/// A server for remoting frames on one event loop.
///
/// One tick of the loop is: all reads of one epoll round, each frame handed to the service as it is sliced out of the
/// read buffer; then `endOfTick`, once; then one flush for each connection something was written to. Writes outside a
/// read (timers, answers of another thread hopped onto the loop) start a tick of their own.
///
/// The server never lets a peer grow its memory: see `RemotingServerConfiguration`. Whatever it refuses it logs with
/// the reason, at most a few lines a second.
///
/// Confined to its event loop, `init` included.
package final class RemotingServer {
    /// The one it lives on, with all its connections.
    package let eventLoop: any EventLoop
    package let configuration: RemotingServerConfiguration
    let service: any RemotingService
    let logger: Logger
    private let endOfTick: () -> Void

    private(set) var connections: [UInt64: RemotingConnection] = [:]
    private var lastConnectionID: UInt64 = 0
    private var listeners: [any Channel] = []
    private var sweep: RepeatedTask?
    private var sweepPart: UInt64 = 0
    private(set) var refusals = RateLimit(perSecond: 10)

    let scratch = HeaderScratch()
    private var dirty: [RemotingConnection] = []
    private var flushing: [RemotingConnection] = []
    /// The time of the current tick's first read or write.
    private(set) var now = NIODeadline.now()
    /// When the last piece of this tick ended.
    private var pieceEnded = NIODeadline.now()
    private var tickIsScheduled = false
    private var runTick: @Sendable () -> Void = {}

    /// What one connection's read, or the end of a tick, has cost the event loop.
    package enum Piece {
        /// The code of its last request, and the client.
        case read(code: Int32, peer: HostAddress)
        case endOfTick
        case flush
    }

    /// A tick began.
    package var tickBegan: ((NIODeadline) -> Void)?
    /// A piece of a tick took longer than `longPiece`.
    package var pieceTookLong: ((Piece, TimeAmount) -> Void)?
    /// What is shorter is not told of.
    package static let longPiece = TimeAmount.milliseconds(1)

    /// `endOfTick` runs once per tick before connections are flushed; what it writes to connections goes out with
    /// the same flush.
    package init(
        eventLoop: any EventLoop, service: any RemotingService,
        configuration: RemotingServerConfiguration = RemotingServerConfiguration(), logger: Logger,
        endOfTick: @escaping () -> Void = {}
    ) {
        self.eventLoop = eventLoop
        self.service = service
        self.configuration = configuration
        self.logger = logger
        self.endOfTick = endOfTick
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        self.runTick = { this.value.tick() }
    }

    /// Open now, of all listeners.
    package var connectionCount: Int { self.connections.count }
    /// The addresses of its listeners, in the order they were added.
    package var localAddresses: [SocketAddress] { self.listeners.compactMap { $0.localAddress } }

    // MARK: listening

    /// Serves a socket that is bound and listening already (handed down by the supervisor); owns the descriptor.
    package func serve(listener descriptor: CInt) -> EventLoopFuture<Void> {
        let backlog = self.configuration.backlog
        return self.added(self.bootstrap().withBoundSocket(descriptor)).map {
            // NIO has listened again with its own 128: a burst of connects would wait for retransmissions of a second.
            _ = listen(descriptor, backlog)
        }
    }

    /// Binds and serves; port 0 takes a free one (see `localAddresses`).
    package func bind(host: String, port: Int) -> EventLoopFuture<Void> {
        self.added(self.bootstrap().bind(host: host, port: port))
    }

    private func added(_ channel: EventLoopFuture<any Channel>) -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: self.eventLoop)
        return channel.map { channel in
            this.value.listeners.append(channel)
            this.value.startSweeping()
        }
    }

    private func bootstrap() -> ServerBootstrap {
        self.eventLoop.preconditionInEventLoop()
        let this = NIOLoopBound(self, eventLoop: self.eventLoop)
        return ServerBootstrap(group: self.eventLoop)
            .serverChannelOption(.backlog, value: self.configuration.backlog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelOption(.writeBufferWaterMark, value: self.configuration.writeBufferWaterMark)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try this.value.accept(channel)
                }
            }
    }

    /// Takes no new connections; those there are go on.
    package func stopAccepting() -> EventLoopFuture<Void> {
        self.eventLoop.assertInEventLoop()
        let closing = self.listeners.map { $0.close() }
        self.listeners = []
        return EventLoopFuture.andAllComplete(closing, on: self.eventLoop)
    }

    /// Closes listeners and connections; what was written to them before is sent first, as far as the kernel takes it.
    package func close() -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: self.eventLoop)
        return self.stopAccepting().map {
            let server = this.value
            server.sweep?.cancel()
            server.sweep = nil
            server.tick()
            for connection in server.connections.values {
                connection.close(reason: "the server stops")
            }
        }
    }

    // MARK: connections

    func accept(_ channel: any Channel) throws {
        guard self.connections.count < self.configuration.connectionsMax else {
            self.refused("too many connections", channel.remoteAddress.map { "\($0)" } ?? "?")
            throw RemotingError.tooManyConnections(self.configuration.connectionsMax)
        }
        self.lastConnectionID += 1
        let connection = RemotingConnection(id: self.lastConnectionID, channel: channel, server: self)
        try channel.pipeline.syncOperations.addHandler(RemotingServerHandler(connection: connection, server: self))
    }

    func opened(_ connection: RemotingConnection) {
        self.connections[connection.id] = connection
        self.service.connectionOpened(connection)
    }

    func closed(_ connection: RemotingConnection) {
        guard self.connections.removeValue(forKey: connection.id) != nil else { return }
        self.service.connectionClosed(connection)
    }

    func refused(_ reason: String, _ peer: String) {
        switch self.refusals.take(now: .now()) {
        case .pass(let suppressed):
            self.logger.warning(
                "connection refused",
                metadata: [
                    "reason": "\(reason)", "peer": "\(peer)", "suppressed": "\(suppressed)",
                ])
        case .suppress: break
        }
    }

    // MARK: ticks

    /// Makes sure a tick ends after what runs now: `endOfTick` and flushes follow.
    package func scheduleTick() {
        guard !self.tickIsScheduled else { return }
        self.tickIsScheduled = true
        self.now = .now()
        self.pieceEnded = self.now
        self.tickBegan?(self.now)
        self.eventLoop.execute(self.runTick)
    }

    func markDirty(_ connection: RemotingConnection) {
        self.dirty.append(connection)
        self.scheduleTick()
    }

    /// Ends the tick now: what is written leaves.
    package func flush() { self.tick() }

    private func tick() {
        self.tickIsScheduled = false
        self.pieceEnded = .now()
        self.endOfTick()
        self.ended(.endOfTick)
        // A flush may resume a connection that was held back; what is written then belongs to the next tick.
        swap(&self.dirty, &self.flushing)
        for connection in self.flushing {
            connection.flush()
        }
        self.flushing.removeAll(keepingCapacity: true)
        self.ended(.flush)
    }

    /// To be called behind each piece: it began where the one before ended.
    func ended(_ piece: @autoclosure () -> Piece) {
        let now = NIODeadline.now()
        let took = now - self.pieceEnded
        self.pieceEnded = now
        if took > Self.longPiece { self.pieceTookLong?(piece(), took) }
    }

    private func startSweeping() {
        guard self.sweep == nil else { return }
        let this = NIOLoopBound(self, eventLoop: self.eventLoop)
        // A part of the connections at a time: to look at ten thousand at once would take milliseconds.
        let parts: UInt64 = 16
        let pause = TimeAmount.nanoseconds(self.configuration.sweepInterval.nanoseconds / Int64(parts))
        self.sweep = self.eventLoop.scheduleRepeatedTask(initialDelay: pause, delay: pause) { _ in
            let now = NIODeadline.now()
            let server = this.value
            server.sweepPart = (server.sweepPart + 1) % parts
            for connection in server.connections.values where connection.id % parts == server.sweepPart {
                connection.sweep(now: now)
            }
        }
    }
}

/// Lets a few events a second pass and counts the rest.
struct RateLimit {
    enum Decision: Equatable {
        /// With the number of events suppressed since the last that passed.
        case pass(suppressed: Int)
        case suppress
    }

    let perSecond: Int
    private var windowStart = NIODeadline.uptimeNanoseconds(0)
    private var passed = 0
    private var suppressed = 0

    init(perSecond: Int) {
        self.perSecond = perSecond
    }

    mutating func take(now: NIODeadline) -> Decision {
        if now - self.windowStart >= .seconds(1) {
            self.windowStart = now
            self.passed = 0
        }
        guard self.passed < self.perSecond else {
            self.suppressed += 1
            return .suppress
        }
        self.passed += 1
        defer { self.suppressed = 0 }
        return .pass(suppressed: self.suppressed)
    }
}
