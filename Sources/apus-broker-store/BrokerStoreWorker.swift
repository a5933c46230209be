import BrokerService
import LinuxSystem
import Logging
import MessageStore
import NIOCore
import RemotingTransport
import StoreFormat
import WorkerKit
import WorkerProtocol

/// The broker process: a `Broker` on its store, behind a `RemotingServer` on the listeners `remoting` and `vip`, with
/// links to the filter workers and to its replication worker. The only writer of its store.
final class BrokerStoreWorker: Worker {
    static var kind: WorkerKind { .brokerStore }

    private let environment: WorkerEnvironment
    private let broker: Broker
    private let server: RemotingServer
    private let watermarks: Watermarks
    private var slaveWatch: EventWatch?
    private var filters: [Int: PeerLink] = [:]
    private var replication: PeerLink?
    private var isOpen = false

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        let eventLoop = environment.eventLoop
        let settings = environment.settings
        guard let root = settings["storePathRootDir"], !root.isEmpty else {
            throw WorkerError("storePathRootDir is not set: name the folder this broker keeps its messages in")
        }
        let disk = RealDisk()
        let store = MessageStore(
            configuration: try StoreConfiguration(storePathRootDir: root) { settings[$0] }, disk: disk,
            logger: environment.logger, executor: { eventLoop.execute($0) })
        let configuration = BrokerConfiguration(settings.sorted.map { ($0.key, $0.value) })
        let broker = try Broker(
            configuration: configuration, store: store, disk: disk, eventLoop: eventLoop, logger: environment.logger)
        self.broker = broker
        var limits = RemotingServerConfiguration()
        limits.idleTimeout = .seconds(Int64(settings.int("serverChannelMaxIdleTimeSeconds", default: 120)))
        server = RemotingServer(
            eventLoop: eventLoop, service: broker, configuration: limits, logger: environment.logger,
            endOfTick: { broker.endOfTick() })
        watermarks = Watermarks(
            segment: try environment.segment("watermarks"), replication: try environment.segment("replication"),
            event: try environment.event("watermarks"), fileSize: store.configuration.mappedFileSizeCommitLog)
        broker.requestTick = { [unowned server] in server.scheduleTick() }
        broker.writtenMoved = { [watermarks] in watermarks.publish(written: $0) }
        broker.flushedMoved = { [watermarks] in watermarks.publish(flushed: $0) }
        broker.minimumMoved = { [watermarks] in watermarks.publish(minimum: $0) }
    }

    func start() -> EventLoopFuture<String> {
        let eventLoop = environment.eventLoop
        do {
            try broker.open()
            watermarks.open(
                written: broker.store.writtenOffset, flushed: broker.store.flushedOffset,
                minimum: broker.store.minPhysicalOffset)
            isOpen = true
            greetReplication()
            let slaves = try environment.segment("replication")
            broker.slaves = {
                (
                    slaves.atomicLoad(slot: ReplicationSlot.connectedSlaves),
                    Int64(bitPattern: slaves.atomicLoad(slot: ReplicationSlot.slaveAckOffset))
                )
            }
            let this = NIOLoopBound(self, eventLoop: eventLoop)
            let watching = EventWatch.start(try environment.event("replication"), on: eventLoop) {
                this.value.broker.slavesMoved()
            }
            let remoting = try environment.listener("remoting")
            let vip = environment.takeListener("vip")
            return watching.flatMap { watch in
                this.value.slaveWatch = watch
                return this.value.server.serve(listener: remoting)
            }.flatMap {
                guard let vip else { return eventLoop.makeSucceededVoidFuture() }
                return this.value.server.serve(listener: vip)
            }.map {
                this.value.broker.start()
                let configuration = this.value.broker.configuration
                return "\(configuration.brokerName) \(configuration.address) store \(configuration.storePathRootDir)"
            }
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
    }

    // MARK: Peers

    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        switch kind {
        case .filter: connectFilter(index, descriptor)
        case .replication: connectReplication(descriptor)
        case .nameserver, .brokerStore:
            _ = Descriptor(owning: descriptor)
            environment.logger.error("introduced to \(kind.rawValue), which a broker does not talk to")
        }
    }

    private func connectFilter(_ index: Int, _ descriptor: Int32) {
        filters[index]?.close()
        let link = PeerLink.attach(descriptor, on: environment.eventLoop) { [unowned self] message in
            broker.filters.receive(message)
        } closed: { [unowned self] in
            filters[index] = nil
            environment.logger.warning("the link to filter-\(index) closed; subscriptions that need it wait")
            broker.filters.disconnect(index)
        }
        filters[index] = link
        broker.filters.connect(index) { link.send($0) }
    }

    private func connectReplication(_ descriptor: Int32) {
        replication?.close()
        replication = PeerLink.attach(descriptor, on: environment.eventLoop) { [unowned self] message in
            received(message)
        } closed: { [unowned self] in
            replication = nil
        }
        greetReplication()
    }

    /// Replication learns the role, and on a slave where the log goes on; not before the store is open.
    private func greetReplication() {
        guard isOpen, let replication else { return }
        let master = environment.settings.string("haMasterAddress", default: "")
        replication.send(.brokerRole(broker.configuration.brokerRole, masterAddress: master))
        if broker.configuration.isSlave {
            replication.send(.replicaPosition(next: broker.store.writtenOffset.rawValue))
        }
    }

    private func received(_ message: WorkerMessage) {
        switch message {
        case .replicaBytes(let at, let bytes): replication?.send(broker.replicate(at: at, bytes))
        case .replicaMetadata(let kind, let json): broker.replicate(kind, json)
        case .replicaState(let connected, let master):
            environment.logger.notice("\(connected ? "following" : "lost") the master \(master)")
        default: environment.logger.error("replication sent what is not meant for a broker")
        }
    }

    // MARK: Life

    func reload(settings: Settings) {
        let changed = settings.sorted.filter { broker.configuration.raw($0.key) != $0.value }
        broker.update(settings: changed.map { ($0.key, $0.value) })
    }

    func status() -> String { broker.statusLine + ", \(server.connectionCount) connections" }

    func drain() -> EventLoopFuture<Void> {
        guard isOpen else { return environment.eventLoop.makeSucceededVoidFuture() }
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        return server.stopAccepting().flatMap {
            this.value.broker.drain {
                this.value.watermarks.close()
                return this.value.server.close()
            }
        }
    }
}
