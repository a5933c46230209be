package import Logging
package import NIOCore
import NIOPosix
package import WorkerProtocol

/// The way to the local broker-store, which alone writes the log. `PeerLink` of WorkerKit is one.
package protocol StoreLink: AnyObject {
    /// False while so much waits to be sent that no more should be added.
    var isWritable: Bool { get }
    /// Queues it and returns; also taken while `isWritable` is false. On the event loop.
    func send(_ message: WorkerMessage)
}

/// The slave side: fetches the log from the master and hands it to the broker-store, piece by piece.
///
/// Two offsets are kept apart. `stored` is the end of the log that the broker-store reported. Only `stored` is reported
/// to the master. `HAReceiver.next` is what has been handed over. Between them lie at most `inFlightMaximum` bytes:
/// above that the master's socket is not read. Whenever either side is replaced, everything in flight is forgotten and
/// fetched again from `stored` on. So nothing can be written twice or at a wrong offset. Confined to one event loop.
package final class ReplicationSlave {
    /// Bytes handed to the broker-store and not yet confirmed.
    static let inFlightMaximum: Int64 = 8 * 1024 * 1024
    /// Bytes of one message to the broker-store.
    static let pieceMaximum = 256 * 1024
    private static let firstBackOff = TimeAmount.milliseconds(100)
    private static let longestBackOff = TimeAmount.seconds(5)
    /// The same complaint is repeated this often, not at every attempt.
    private static let complaintInterval = TimeAmount.seconds(60)

    private let eventLoop: any EventLoop
    private let times: HATimes
    private let logger: Logger
    private var store: (any StoreLink)?
    /// End of the slave's log, as its broker-store reported; nil while there is no broker-store.
    package private(set) var stored: Int64?
    /// End of the last bytes handed to this broker-store that it has not answered; a new connection waits for the
    /// answer.
    private var unanswered: Int64?
    /// Where the master's HA port is; nil: not known yet.
    private var master: (host: String, port: Int)?
    private var connection: SlaveConnection?
    /// Attempt under way or waiting; counts up so that late ones know they are late.
    private var attempt: UInt64 = 0
    private var backOff = ReplicationSlave.firstBackOff
    private var retry: Scheduled<Void>?
    private var lastComplaint: (text: String, at: NIODeadline)?
    private var stopped = false

    package init(eventLoop: any EventLoop, times: HATimes = HATimes(), logger: Logger) {
        self.eventLoop = eventLoop
        self.times = times
        self.logger = logger
    }

    /// The master has accepted the connection.
    package var isConnected: Bool { connection?.isUp ?? false }
    /// `host:port`; nil before the master was found.
    package var masterAddress: String? { master.map { "\($0.host):\($0.port)" } }

    // MARK: - From the owner

    /// A new broker-store process: nothing is known of its log until it reports where it ends.
    package func storeConnected(_ link: any StoreLink) {
        disconnect()
        store = link
        stored = nil
        unanswered = nil
    }

    /// The broker-store ended: nothing is fetched until the next one reports its offset.
    package func storeDisconnected() {
        disconnect()
        store = nil
        stored = nil
        unanswered = nil
    }

    /// `replicaPosition`: the log ends at `next`, after a start or an append.
    package func storePosition(_ next: Int64) {
        let before = stored
        stored = next
        if let end = unanswered, next >= end { unanswered = nil }
        guard let connection else { return connectIfPossible() }
        if let before, next < before {
            complain("the local log went back from \(before) to \(next): fetching again from there")
            disconnect()
            return connectIfPossible()
        }
        guard next <= connection.receiver.next || connection.receiver.next == 0 else {
            complain(
                "the local log ends at \(next), beyond the \(connection.receiver.next) that was fetched: fetching again"
            )
            disconnect()
            return connectIfPossible()
        }
        connection.progress()
    }

    /// `replicaRefused`: the broker-store did not take bytes.
    package func storeRefused(at offset: Int64, reason: String) {
        unanswered = nil
        // Bytes that followed the refused ones are refused as well: one complaint is enough.
        guard connection != nil else { return }
        failed("the broker-store refused the master's bytes at \(offset): \(reason)")
    }

    /// Its link takes data again.
    package func storeWritable() { connection?.progress() }

    /// The master's HA address. A changed one is used at once.
    package func masterFound(host: String, port: Int) {
        if let master, master.host == host, master.port == port { return }
        logger.info("master is \(host):\(port)")
        master = (host, port)
        disconnect()
        backOff = Self.firstBackOff
        connectIfPossible()
    }

    /// On the event loop; no new attempt follows.
    package func stop() {
        stopped = true
        disconnect()
    }

    // MARK: - Connecting

    private func connectIfPossible() {
        guard !stopped, connection == nil, retry == nil, unanswered == nil, let master, let stored, store != nil else {
            return
        }
        attempt += 1
        let number = attempt
        let slave = NIOLoopBound(self, eventLoop: eventLoop)
        let new = SlaveConnection(slave: self, next: stored)
        connection = new
        let bound = NIOLoopBound(new, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(.seconds(3))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(bound.value) }
            }
            .connect(host: master.host, port: master.port)
            .whenFailure { error in
                guard slave.value.attempt == number else { return }
                slave.value.failed("cannot connect to the master \(master.host):\(master.port): \(error)")
            }
    }

    /// Ends the connection without a log line and without a new attempt.
    private func disconnect() {
        attempt += 1
        retry?.cancel()
        retry = nil
        guard let old = connection else { return }
        connection = nil
        let wasUp = old.isUp
        old.abandon()
        if wasUp { store?.send(.replicaState(connected: false, master: masterAddress ?? "")) }
    }

    // MARK: - From the connection

    var heartbeat: TimeAmount { times.heartbeat }
    var housekeeping: TimeAmount { times.housekeeping }

    func up(_ up: SlaveConnection) {
        guard up === connection else { return up.abandon() }
        logger.info("connected to the master \(masterAddress ?? "?"), asking from \(stored ?? 0) on")
        store?.send(.replicaState(connected: true, master: masterAddress ?? ""))
    }

    /// The master answered as it should.
    func healthy() {
        backOff = Self.firstBackOff
        lastComplaint = nil
    }

    var mayTakeMore: Bool {
        guard let connection, let store, let stored else { return false }
        return store.isWritable && connection.inFlight(stored: stored) < Self.inFlightMaximum
    }

    func take(at offset: Int64, _ bytes: [UInt8]) {
        unanswered = offset + Int64(bytes.count)
        store?.send(.replicaBytes(at: offset, bytes: bytes))
    }

    func ended(_ ended: SlaveConnection, _ reason: String) {
        guard ended === connection else { return }
        failed(reason)
    }

    private func failed(_ reason: String) {
        disconnect()
        complain(reason)
        guard !stopped else { return }
        let slave = NIOLoopBound(self, eventLoop: eventLoop)
        retry = eventLoop.scheduleTask(in: backOff) {
            slave.value.retry = nil
            slave.value.connectIfPossible()
        }
        backOff = min(backOff * 2, Self.longestBackOff)
    }

    private func complain(_ text: String) {
        let now = NIODeadline.now()
        if let last = lastComplaint, last.text == text, now < last.at + Self.complaintInterval { return }
        lastComplaint = (text, now)
        logger.error("replication from the master was interrupted and begins again: \(text)")
    }
}
