import Glibc
package import LinuxSystem
package import Logging
package import NIOCore
import NIOPosix
package import RemotingTransport
package import WorkerProtocol

/// The master side: serves the commit log to any number of slaves and publishes what they have.
///
/// Confined to one event loop. Slaves are woken by `logMoved`, never by a timer; the heartbeat only keeps a silent
/// connection alive.
package final class ReplicationMaster {
    private let eventLoop: any EventLoop
    private let log: MasterLog
    private let times: HATimes
    private let batchSize: Int
    private let publisher: AckPublisher
    let logger: Logger
    /// Which connections are taken: slaves are few.
    package let admission: ConnectionAdmission
    private var listener: (any Channel)?
    private var slaves: [ObjectIdentifier: MasterConnection] = [:]
    private var isStopped = false
    /// Of the broker-store whose log the slaves were compared with last.
    private var generation: UInt64
    /// Also at the start: slaves may have reported before the store was open.
    private var mustRecount = true

    package init(
        eventLoop: any EventLoop, log: MasterLog, times: HATimes = HATimes(), batchSize: Int = 32 * 1024,
        publisher: AckPublisher, logger: Logger
    ) {
        self.eventLoop = eventLoop
        self.log = log
        generation = log.generation
        self.times = times
        self.batchSize = batchSize
        self.publisher = publisher
        self.logger = logger
        admission = ConnectionAdmission(
            connectionsMax: Self.slavesMax, connectionsPerAddressMax: Self.slavesPerAddressMax, eventLoop: eventLoop,
            logger: logger)
        admission.refused = { logger.warning("connection to the HA port refused: \($0)", metadata: ["peer": "\($1)"]) }
        admission.makesWay = { [unowned self] in closeOneThatSaysNothing() }
    }

    /// A slave reports as soon as it is connected.
    private static let firstReport = TimeAmount.seconds(2)

    /// For a new connection when all places are taken: the oldest that has not reported.
    private func closeOneThatSaysNothing() -> Bool {
        let limit = NIODeadline.now() - Self.firstReport
        let silent = slaves.values.filter { $0.hasNotReported && $0.opened < limit }
        guard let oldest = silent.min(by: { $0.opened < $1.opened }) else { return false }
        oldest.giveWay()
        return true
    }

    /// Slaves of one master; then those from one address: a machine may carry several, or a gateway hide them.
    package static let slavesMax = 64
    /// Connections from one remote address at most.
    package static let slavesPerAddressMax = 16

    /// Takes over the listening socket and serves slaves on it. The text is the address.
    package func start(listener descriptor: Int32) -> EventLoopFuture<String> {
        let master = NIOLoopBound(self, eventLoop: eventLoop)
        return ServerBootstrap(group: eventLoop)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(master.value.admission.gate())
                }
            }
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.writeBufferWaterMark, value: .init(low: 64 * 1024, high: 256 * 1024))
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let connection = MasterConnection(master: master.value, channel: channel)
                    try channel.pipeline.syncOperations.addHandler(connection)
                }
            }
            .withBoundSocket(descriptor)
            .map { channel in
                master.value.listener = channel
                return channel.localAddress.map { "\($0.ipAddress ?? "?"):\($0.port ?? 0)" } ?? "?"
            }
    }

    /// The broker-store's watermarks moved, or it opened its store.
    package func logMoved() {
        if log.generation != generation {
            generation = log.generation
            // The log may have lost its end; until it is open again nothing is known of it.
            mustRecount = true
            publisher.publishUnknown()
        }
        for slave in slaves.values { slave.pump() }
        guard let state = log.state, mustRecount || publisher.acknowledged > state.written else { return }
        mustRecount = false
        publisher.recount(slaves.values.compactMap(\.judged).max() ?? 0)
    }

    /// Stops listening and parts with the slaves.
    package func stop() -> EventLoopFuture<Void> {
        isStopped = true
        let closing = (slaves.values.map(\.channel) + (listener.map { [$0] } ?? [])).map { $0.close() }
        return EventLoopFuture.andAllComplete(closing, on: eventLoop)
    }

    /// Connected now.
    package var slaveCount: Int { slaves.count }
    /// The connected slaves, in the order of their addresses.
    package var slaveReports: [SlaveReport] { slaves.values.map(\.report).sorted { $0.address < $1.address } }
    /// Physical offset the fastest slave has, or 0.
    package var acknowledged: Int64 { publisher.acknowledged }

    // MARK: - For the connections

    var state: HASession.Log? { log.state }
    var heartbeat: TimeAmount { times.heartbeat }
    var housekeeping: TimeAmount { times.housekeeping }

    func newSession() -> HASession { HASession(batchSize: batchSize) }

    func file(at offset: Int64, fileSize: Int64) -> LogFile? { log.file(at: offset, fileSize: fileSize) }

    func opened(_ connection: MasterConnection) {
        // Accepted while the listener was being closed: nothing would close it later.
        guard !isStopped else { return connection.channel.close(promise: nil) }
        slaves[ObjectIdentifier(connection)] = connection
    }

    /// Its report fits the log: from now on it is a slave.
    func judged() { publisher.connected(judgedCount) }

    /// A connection that has not reported is none that a sender may wait for.
    private var judgedCount: Int { slaves.values.count { $0.judged != nil } }

    func reported(_ offset: Int64) {
        publisher.reported(offset)
    }

    func closed(_ connection: MasterConnection) {
        guard slaves.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
        publisher.connected(judgedCount)
        if slaves.isEmpty { log.release() }
    }
}

/// Writes the segment `replication` and signals its event.
package final class AckPublisher {
    private let segment: SharedSegment
    private let event: Int32
    /// The most any slave has reported of the present log: a physical offset.
    package private(set) var acknowledged: Int64 = 0

    /// - Parameter event: eventfd the broker-store waits on; stays the caller's.
    package init(segment: SharedSegment, event: Int32) {
        self.segment = segment
        self.event = event
        // What the worker before this one knew is no longer true of any slave.
        segment.atomicStore(slot: ReplicationSlot.connectedSlaves, 0)
        segment.atomicStore(slot: ReplicationSlot.slaveAckOffset, 0)
        segment.atomicStore(slot: ReplicationSlot.lastAckMilliseconds, 0)
        segment.atomicStore(slot: ReplicationSlot.magic, ReplicationSlot.magicValue)
        EventFD.signal(event)
    }

    func connected(_ slaves: Int) {
        segment.atomicStore(slot: ReplicationSlot.connectedSlaves, UInt64(slaves))
        // A slave is first sent to after this: either that finds what was written, or broker-store sees the slave.
        SharedSegment.fence()
        EventFD.signal(event)
    }

    /// The log is another one, and what slaves have of it is not known: an offset that no log reaches says so.
    func publishUnknown() {
        acknowledged = 0
        segment.atomicStore(slot: ReplicationSlot.slaveAckOffset, UInt64(Int64.max))
        EventFD.signal(event)
    }

    /// The log is another one: this much of it is acknowledged, and may be less than before.
    func recount(_ offset: Int64) {
        acknowledged = offset
        segment.atomicStore(slot: ReplicationSlot.slaveAckOffset, UInt64(offset))
        EventFD.signal(event)
    }

    func reported(_ offset: Int64) {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let milliseconds = UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
        segment.atomicStore(slot: ReplicationSlot.lastAckMilliseconds, milliseconds)
        guard offset > acknowledged else { return }
        acknowledged = offset
        segment.atomicStore(slot: ReplicationSlot.slaveAckOffset, UInt64(offset))
        EventFD.signal(event)
    }
}
