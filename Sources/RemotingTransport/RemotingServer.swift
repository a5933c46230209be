import Glibc
package import Logging
package import MessageModel
package import NIOCore
import NIOPosix
package import RemotingProtocol

/// What a server does with the frames of its connections. All calls come on the server's event loop.
package protocol RemotingService: AnyObject {
    /// Before the connection's first frame.
    func connectionOpened(_ connection: RemotingConnection)
    /// A request, valid inside this call only (see `RemotingFrame`). Responses to `RemotingConnection.request` do not
    /// come here.
    func received(_ frame: RemotingFrame, on connection: RemotingConnection)
    /// After the connection's last frame; what is written to it now is dropped.
    func connectionClosed(_ connection: RemotingConnection)
    /// A frame with more bytes after its length word is refused as soon as that is read. Asked for large frames only;
    /// at least 1 MiB.
    var frameBytesMax: Int { get }
    /// Requests of this code are many and take microseconds each. Several are measured as one piece.
    func isLight(code: Int32) -> Bool
}

extension RemotingService {
    /// RocketMQ's 16 MiB. Its broker reads a message above `maxMessageSize` and answers 13, which gives the producer
    /// the reason. Its name server gets all topics of a broker in one frame. What unfinished frames take together is
    /// bounded anyway.
    package var frameBytesMax: Int { RemotingLimits.frameBytes }
    package func isLight(code: Int32) -> Bool { false }
}

/// Bounds of a server. Times are RocketMQ's where RocketMQ has one.
package struct RemotingServerConfiguration: Sendable {
    /// Connections beyond this are closed at once.
    package var connectionsMax = 10_000
    /// The same for one remote address, or one /64 network of IPv6; the loopback addresses are not bounded by it. A
    /// quarter of all: many clients may share the address of their gateway, and no single one can shut out the others.
    package var connectionsPerAddressMax = 2_500
    /// What frames of more than 64 KiB that are not complete yet may take together, in bytes. Smaller ones have half of
    /// that, requests of peers that are held back or wait four times as much. A peer that finds nothing left is not
    /// read until it is his turn.
    package var unfinishedFrameBytesMax = 64 << 20
    /// While others wait for that memory, a frame that has reserved some and grows slower is closed, in bytes a second.
    package var trickleBytesPerSecond = 32 << 10
    /// How long a frame is watched before it is called slow.
    package var trickleTime = TimeAmount.seconds(1)
    /// While others wait for that memory, a frame must also keep to a pace that completes it in this time. For 64 MiB
    /// in 8 s the pace is 67 Mbit/s. Honest peers of a slower network that send more than 64 MiB at once are out of
    /// time with or without it.
    package var contendedFrameTime = TimeAmount.seconds(8)
    /// A connection that sends nothing for so long is closed (`serverChannelMaxIdleTimeSeconds`, 120).
    package var idleTimeout = TimeAmount.seconds(120)
    /// A frame that is not complete so long after its first byte closes its connection.
    package var frameTimeout = TimeAmount.seconds(30)
    /// Above so many bytes waiting to be sent a connection is no longer read from, until the peer has taken half.
    package var outboundHighWaterBytes = 4 << 20
    /// Answers that peers have not taken yet, of all connections together, in bytes. Above it a peer gets one answer at
    /// a time, and those that take nothing are closed. Above three times as much the largest are closed at once.
    package var outboundBytesMax = 128 << 20
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
/// One tick of the loop begins with all reads of one epoll round. Each frame is handed to the service as it is sliced
/// out of the read buffer. Then comes `endOfTick`, once, then one flush for each connection something was written to.
/// Writes outside a read (timers, answers of another thread hopped onto the loop) start a tick of their own.
///
/// The server never lets a peer grow its memory: see `RemotingServerConfiguration`. Whatever it refuses it logs with
/// the reason, at most a few lines a second.
///
/// Confined to its event loop, `init` included.
package final class RemotingServer {
    /// The one it runs on, with all its connections.
    package let eventLoop: any EventLoop
    /// As it was given; the bounds hold for the server's whole time.
    package let configuration: RemotingServerConfiguration
    /// Which connections are taken.
    package let admission: ConnectionAdmission
    let frameMemory: FrameMemory
    let service: any RemotingService
    let logger: Logger
    private let endOfTick: () -> Void

    private(set) var connections: [UInt64: RemotingConnection] = [:]
    private var lastConnectionID: UInt64 = 0
    private(set) var listeners: [any Channel] = []
    private var sweep: RepeatedTask?
    private var sweepPart: UInt64 = 0
    private var lastSweep = NIODeadline.now()
    private(set) var refusals = RateLimit(perSecond: 10)

    let scratch = HeaderScratch()
    /// Answers written and not taken yet, in bytes; of connections with little to send as of the last look at them.
    private(set) var outboundBytes = 0
    /// Peers whose requests wait until others have taken their answers.
    private var waitingForRoom: [UInt64: RemotingConnection] = [:]
    var givingWay = GivingWay()
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
    /// What is shorter is not reported.
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
        frameMemory = FrameMemory(configuration)
        admission = ConnectionAdmission(
            connectionsMax: configuration.connectionsMax,
            connectionsPerAddressMax: configuration.connectionsPerAddressMax, eventLoop: eventLoop, logger: logger)
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        runTick = { this.value.tick() }
        admission.refused = { [unowned self] in refused($0, $1) }
        admission.shed = { [unowned self] in freeDescriptors($0) }
        admission.makesWay = { [unowned self] in closeOne("its place is needed for a new connection") }
    }

    /// Open now, of all listeners.
    package var connectionCount: Int { connections.count }
    /// The addresses of its listeners, in the order they were added.
    package var localAddresses: [SocketAddress] { listeners.compactMap { $0.localAddress } }

    // MARK: - Listening

    /// Serves a socket that is bound and listening already (handed down by the supervisor); owns the descriptor.
    package func serve(listener descriptor: CInt) -> EventLoopFuture<Void> {
        let backlog = configuration.backlog
        return added(bootstrap().withBoundSocket(descriptor)).map {
            // NIO has listened again with its own 128: a burst of connects would wait for retransmissions of a second.
            _ = listen(descriptor, backlog)
        }
    }

    /// Binds and serves; port 0 takes a free one (see `localAddresses`).
    package func bind(host: String, port: Int) -> EventLoopFuture<Void> {
        added(bootstrap().bind(host: host, port: port))
    }

    private func added(_ channel: EventLoopFuture<any Channel>) -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        return channel.map { channel in
            this.value.listeners.append(channel)
            this.value.startSweeping()
        }
    }

    private func bootstrap() -> ServerBootstrap {
        eventLoop.preconditionInEventLoop()
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(this.value.admission.gate())
                }
            }
            .serverChannelOption(.backlog, value: configuration.backlog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelOption(.writeBufferWaterMark, value: configuration.writeBufferWaterMark)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try this.value.accept(channel)
                }
            }
    }

    /// Takes no new connections; those there are go on.
    package func stopAccepting() -> EventLoopFuture<Void> {
        eventLoop.assertInEventLoop()
        let closing = listeners.map { $0.close() }
        listeners = []
        return EventLoopFuture.andAllComplete(closing, on: eventLoop)
    }

    /// Closes listeners and connections; what was written to them before is sent first, as far as the kernel takes it.
    package func close() -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        return stopAccepting().map {
            let server = this.value
            server.sweep?.cancel()
            server.sweep = nil
            server.tick()
            for connection in server.connections.values {
                connection.close(reason: "the server stops")
            }
        }
    }

    // MARK: - Connections

    /// - Parameter hasSpoken: its client has completed requests with a former process of this server.
    func accept(_ channel: any Channel, hasSpoken: Bool = false) throws {
        lastConnectionID += 1
        let connection = RemotingConnection(id: lastConnectionID, channel: channel, server: self)
        try channel.pipeline.syncOperations.addHandler(
            RemotingServerHandler(connection: connection, server: self, hasSpoken: hasSpoken))
    }

    func opened(_ connection: RemotingConnection) {
        connections[connection.id] = connection
        if !connection.hasSpoken {
            givingWay.opened(connection.id) { connections[$0]?.hasSpoken ?? true }
        }
        service.connectionOpened(connection)
    }

    func closed(_ connection: RemotingConnection) {
        waitingForRoom[connection.id] = nil
        guard connections.removeValue(forKey: connection.id) != nil else { return }
        service.connectionClosed(connection)
    }

    func refused(_ reason: String, _ peer: String) {
        switch refusals.take(now: .now()) {
        case .pass(let suppressed):
            logger.warning(
                "connection refused",
                metadata: [
                    "reason": "\(reason)", "peer": "\(peer)", "suppressed": "\(suppressed)",
                ])
        case .suppress: break
        }
    }

    // MARK: - Ticks

    /// Makes sure a tick ends after what runs now: `endOfTick` and flushes follow.
    package func scheduleTick() {
        guard !tickIsScheduled else { return }
        tickIsScheduled = true
        now = .now()
        pieceEnded = now
        tickBegan?(now)
        eventLoop.execute(runTick)
    }

    func markDirty(_ connection: RemotingConnection) {
        dirty.append(connection)
        scheduleTick()
    }

    /// Ends the tick now: what is written leaves.
    package func flush() { tick() }

    private func tick() {
        tickIsScheduled = false
        pieceEnded = .now()
        endOfTick()
        ended(.endOfTick)
        // A flush may resume a connection that was held back; what is written then belongs to the next tick.
        swap(&dirty, &flushing)
        for connection in flushing {
            connection.flush()
        }
        flushing.removeAll(keepingCapacity: true)
        if outboundBytes > outboundBytesLimit { makeRoom() }
        if !waitingForRoom.isEmpty, outboundBytes <= configuration.outboundBytesMax {
            resumeThoseThatWait()
        }
        ended(.flush)
    }

    /// Reads of requests that cost little by themselves, since the clock was last looked at.
    private var lightReads = 0
    /// So many of them are one piece: to look at the clock costs as much as to read a frame's header.
    private static let lightReadsMax = 8

    /// Behind each read; `code` is that of its last request.
    @inline(__always)
    func readEnded(code: Int32, peer: @autoclosure () -> HostAddress) {
        if service.isLight(code: code), lightReads < Self.lightReadsMax {
            lightReads += 1
            return
        }
        lightReads = 0
        ended(.read(code: code, peer: peer()))
    }

    /// To be called after each piece: it began where the one before ended.
    func ended(_ piece: @autoclosure () -> Piece) {
        let now = NIODeadline.now()
        let took = now - pieceEnded
        pieceEnded = now
        if took > Self.longPiece { pieceTookLong?(piece(), took) }
    }

    private func startSweeping() {
        guard sweep == nil else { return }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        // A part of the connections at a time: to look at ten thousand at once would take milliseconds.
        let parts: UInt64 = 16
        let pause = TimeAmount.nanoseconds(configuration.sweepInterval.nanoseconds / Int64(parts))
        sweep = eventLoop.scheduleRepeatedTask(initialDelay: pause, delay: pause) { _ in
            let now = NIODeadline.now()
            let server = this.value
            server.sweepPart = (server.sweepPart + 1) % parts
            server.sweepConnections(now: now, part: server.sweepPart, of: parts)
        }
    }

    private func sweepConnections(now: NIODeadline, part: UInt64, of parts: UInt64) {
        // A loop that stood still has not read: then no peer is slow, only the loop.
        let isLate = now - lastSweep > configuration.sweepInterval
        lastSweep = now
        for connection in connections.values where connection.id % parts == part {
            connection.sweep(now: now, judgesSlow: !isLate)
            noticeIdle(connection, now: now)
        }
        if outboundBytes > configuration.outboundBytesMax { closeStalled(now: now) }
        resumeThoseThatWait()
    }

    // MARK: - Room for answers

    /// More is never kept, for any peer.
    private var outboundBytesLimit: Int { configuration.outboundBytesMax * 3 }

    /// Whether requests of a peer with `unsent` bytes of answers must wait.
    func mustWaitForRoom(unsent: Int) -> Bool {
        outboundBytes > configuration.outboundBytesMax
            && (unsent > FrameMemory.smallBytesMax || outboundBytes > outboundBytesLimit)
    }

    /// Its requests go on when there is room, which is looked at with each sweep.
    func waitsForRoom(_ connection: RemotingConnection) { waitingForRoom[connection.id] = connection }

    private func resumeThoseThatWait() {
        let waiting = waitingForRoom.values
        waitingForRoom = [:]
        for connection in waiting { connection.resume() }
    }

    func outboundMoved(by change: Int) { outboundBytes += change }

    /// Those that have taken nothing for a second while they owe the most, until a quarter is free again.
    private func closeStalled(now: NIODeadline) {
        let stalled = connections.values.filter { $0.isStalled(since: now - .seconds(1)) }
        close(stalled, downTo: configuration.outboundBytesMax / 4 * 3)
    }

    private func makeRoom() {
        for connection in connections.values { connection.countOutbound() }
        guard outboundBytes > outboundBytesLimit else { return }
        close(Array(connections.values), downTo: configuration.outboundBytesMax)
    }

    private func close(_ some: [RemotingConnection], downTo goal: Int) {
        for connection in some.sorted(by: { $0.countedOutbound > $1.countedOutbound }) {
            guard outboundBytes > goal, connection.countedOutbound > 0 else { return }
            refused(
                "takes no answers: \(connection.countedOutbound) bytes wait for it, and \(outboundBytes) for all",
                connection.remoteAddress.text)
            connection.abandon()
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
        if now - windowStart >= .seconds(1) {
            windowStart = now
            passed = 0
        }
        guard passed < perSecond else {
            suppressed += 1
            return .suppress
        }
        passed += 1
        defer { suppressed = 0 }
        return .pass(suppressed: suppressed)
    }
}
