import Glibc
import LinuxSystem
import Logging
import NIOCore
import RemotingTransport
import Replication
import WorkerKit
import WorkerProtocol

/// The replication process of one broker-store: serves slaves from its log, and fetches from the master when it is one.
/// Never writes the log; killed and restarted at will.
final class ReplicationWorker: Worker {
    static let kind = WorkerKind.replication

    private let environment: WorkerEnvironment
    private let master: ReplicationMaster
    private let slave: ReplicationSlave
    private let metadata: MetadataSync
    private let claims: ClaimRelay
    private var isSlave: Bool
    private var link: PeerLink?
    private var watch: EventWatch?

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        let settings = environment.settings
        let loop = environment.eventLoop
        let logger = environment.logger
        let times = HATimes(
            heartbeatMilliseconds: settings.int("haSendHeartbeatInterval", default: 5_000),
            housekeepingMilliseconds: settings.int("haHousekeepingInterval", default: 20_000))
        isSlave = BrokerRole(name: settings.string("brokerRole", default: "ASYNC_MASTER")) == .slave
        master = ReplicationMaster(
            eventLoop: loop,
            log: MasterLog(
                directory: settings.commitLogFolder(), disk: RealDisk(),
                watermarks: try environment.segment("watermarks")),
            times: times, batchSize: settings.int("haTransferBatchSize", default: 32 * 1024),
            publisher: AckPublisher(
                segment: try environment.segment("replication"), event: try environment.event("replication")),
            logger: logger)
        let slave = ReplicationSlave(eventLoop: loop, times: times, logger: logger)
        self.slave = slave
        let claims = ClaimRelay(eventLoop: loop)
        self.claims = claims
        metadata = MetadataSync(
            eventLoop: loop,
            configuration: MetadataSync.Configuration(
                brokerName: settings.string("brokerName", default: "broker-a"),
                nameServers: settings.string("namesrvAddr", default: ""),
                haMasterAddress: settings.string("haMasterAddress", default: "")),
            logger: logger, found: { slave.masterFound(host: $0, port: $1) },
            located: { claims.masterFound(host: $0, port: $1) })
    }

    func start() -> EventLoopFuture<String> {
        let worker = NIOLoopBound(self, eventLoop: environment.eventLoop)
        let watching: EventLoopFuture<Void>
        do {
            let event = try environment.event("watermarks")
            watching = EventWatch.start(event, on: environment.eventLoop) { worker.value.master.logMoved() }
                .assumeIsolated().map { worker.value.watch = $0 }.nonisolated()
        } catch {
            return environment.eventLoop.makeFailedFuture(error)
        }
        guard let listener = environment.takeListener("ha") else {
            return watching.map { "no HA listener: this broker serves no slaves" }
        }
        let bounds = environment.boundConnections(growth: 64)
        master.admission.connectionsMax = min(bounds.total, ReplicationMaster.slavesMax)
        master.admission.connectionsPerAddressMax = min(bounds.perAddress, ReplicationMaster.slavesPerAddressMax)
        return watching.flatMap { worker.value.master.start(listener: listener) }.map { "HA \($0)" }
    }

    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        guard kind == .brokerStore else {
            environment.logger.error("introduced to \(kind.rawValue), which replication does not talk to")
            close(descriptor)
            return
        }
        link?.close()
        let link = PeerLink.attach(descriptor, on: environment.eventLoop) { [weak self] message in
            self?.received(message)
        } closed: { [weak self] in
            guard let self else { return }
            self.link = nil
            slave.storeDisconnected()
            metadata.storeDisconnected()
            claims.storeDisconnected()
        }
        link.writable = { [weak self] in self?.slave.storeWritable() }
        self.link = link
        if isSlave { serveAsSlave(link) }
        master.logMoved()
    }

    private func serveAsSlave(_ link: PeerLink) {
        slave.storeConnected(link)
        metadata.storeConnected(link)
        claims.storeConnected(link)
    }

    private func received(_ message: WorkerMessage) {
        switch message {
        case .replicaPosition(let next) where isSlave: slave.storePosition(next)
        case .replicaRefused(let at, let reason) where isSlave: slave.storeRefused(at: at, reason: reason)
        case .replicaPosition, .replicaRefused: break  // A master's log goes its own way.
        case .claimsWanted(let request, let question) where isSlave: claims.ask(request: request, question: question)
        case .brokerRole(let role, let masterAddress): roleIs(role, masterAddress)
        case .slavesWanted(let request):
            // It asks again after a while; answers it does not take would fill this process.
            if let link, link.isWritable { link.send(.slaves(request: request, master.slaveReports)) }
        default: environment.logger.error("broker-store sent a message that is not for replication: it is dropped")
        }
    }

    private func roleIs(_ role: BrokerRole, _ masterAddress: String) {
        if role == .slave, !isSlave, let link {
            isSlave = true
            serveAsSlave(link)
        } else if role != .slave, isSlave {
            isSlave = false
            slave.storeDisconnected()
            metadata.storeDisconnected()
            claims.storeDisconnected()
        }
        if isSlave, !masterAddress.isEmpty { metadata.learned(haAddress: masterAddress) }
    }

    func drain(_ reason: DrainReason) -> EventLoopFuture<Void> {
        slave.stop()
        metadata.stop()
        claims.stop()
        watch?.stop()
        return master.stop()
    }

    func status() -> String {
        if isSlave {
            let address = slave.masterAddress ?? "unknown"
            let position = slave.stored.map { ", log ends at \($0)" } ?? ""
            return (slave.isConnected ? "slave of \(address)" : "slave, master \(address) not connected") + position
        }
        return "master of \(master.slaveCount) slaves, acknowledged up to \(master.acknowledged)"
    }
}

extension PeerLink: StoreLink {}
