import BrokerService
import Glibc
import LinuxSystem
import Logging
import MessageStore
import NIOCore
import RemotingTransport
import SettingTable
import StoreFormat
import WorkerKit
import WorkerProtocol

/// The broker process: a `Broker` on its store, behind a `RemotingServer` on the listeners `remoting` and `vip`. It has
/// links to the filter workers and to its replication worker. The only writer of its store.
final class BrokerStoreWorker: Worker {
    static var kind: WorkerKind { .brokerStore }

    let environment: WorkerEnvironment
    let broker: Broker
    private let disk: RealDisk
    let server: RemotingServer
    let watermarks: Watermarks
    private var slaveWatch: EventWatch?
    var filters: [Int: PeerLink] = [:]
    var replication: PeerLink?
    /// The other brokers of this platform.
    var brokers: [Int: PeerLink] = [:]
    /// Received before the store was open.
    var earlyTopics: [AutoCreatedTopic] = []
    private let diskGuard: DiskGuard
    private var diskWatch: DiskWatch?
    private var diskLook: RepeatedTask?
    private var wasRefusing = false
    var isOpen = false
    private var isLeaving = false
    /// What was reported to the supervisor last.
    private var reported: [PluginSubscription] = []
    /// Of clients, from the process before this one.
    var adopted: [Int32] = []

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        let eventLoop = environment.eventLoop
        let settings = environment.settings
        let storeConfiguration = try Self.storeConfiguration(settings)
        diskGuard = DiskGuard(settings, storePathRootDir: storeConfiguration.storePathRootDir)
        try diskGuard.admit { environment.logger.warning("\($0)") }
        let disk = RealDisk()
        self.disk = disk
        let store = MessageStore(
            configuration: storeConfiguration, disk: disk, logger: environment.logger,
            executor: { eventLoop.execute($0) })
        let configuration = try Self.brokerConfiguration(settings)
        let broker = try Broker(
            configuration: configuration, store: store, disk: disk, eventLoop: eventLoop, logger: environment.logger)
        broker.filters.builtInWorkers = max(1, settings.int("filterBuiltIns", default: 1))
        self.broker = broker
        var limits = RemotingServerConfiguration()
        limits.idleTimeout = .seconds(Int64(settings.int("serverChannelMaxIdleTimeSeconds", default: 120)))
        server = RemotingServer(
            eventLoop: eventLoop, service: broker, configuration: limits, logger: environment.logger,
            endOfTick: { broker.endOfTick() })
        watermarks = Watermarks(
            segment: try environment.segment("watermarks"), replication: try environment.segment("replication"),
            event: try environment.event("watermarks"), fileSize: store.configuration.mappedFileSizeCommitLog)
        let turns = environment.turns
        server.tickBegan = { turns.began($0) }
        server.pieceTookLong = { piece, took in turns.note(took, "\(piece)") }
    }

    static func check(settings: Settings) throws {
        do {
            _ = try storeConfiguration(settings)
            _ = try brokerConfiguration(settings)
        } catch {
            throw WorkerError("\(settings.string("brokerName", default: "broker")): \(error)", cause: .settings)
        }
    }

    private static func storeConfiguration(_ settings: Settings) throws -> StoreConfiguration {
        guard let root = settings["storePathRootDir"], !root.isEmpty else {
            throw WorkerError(
                "storePathRootDir is not set: name the folder this broker keeps its messages in", cause: .settings)
        }
        do throws(StoreError) {
            return try StoreConfiguration(storePathRootDir: root) { settings[$0] }
        } catch {
            throw WorkerError("\(error)", cause: .settings)
        }
    }

    private static func brokerConfiguration(_ settings: Settings) throws -> BrokerConfiguration {
        do throws(SettingRefusal) {
            return try BrokerConfiguration(settings.sorted.map { ($0.key, $0.value) })
        } catch {
            throw WorkerError("\(error)", cause: .settings)
        }
    }

    func start() -> EventLoopFuture<String> {
        let eventLoop = environment.eventLoop
        do {
            try open()
            watermarks.open(
                written: broker.store.writtenOffset, flushed: broker.store.flushedOffset,
                minimum: broker.store.minPhysicalOffset)
            isOpen = true
            startReplication()
            for link in brokers.values { shareTopics(with: link) }
            for topic in earlyTopics { broker.create(topic) }
            earlyTopics = []
            try watchDisk()
            let this = NIOLoopBound(self, eventLoop: eventLoop)
            let watching = EventWatch.start(try environment.event("replication"), on: eventLoop) {
                this.value.broker.slavesMoved()
            }
            // Consume queues, log and index files, and what is written beside them.
            let bounds = environment.boundConnections(
                growth: MessageStore.openQueueFilesMax + 64, adopted: adopted.count)
            server.admission.connectionsMax = bounds.total
            server.admission.connectionsPerAddressMax = bounds.perAddress
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
                this.value.serveAdopted()
                this.value.reportPluginSubscriptions()
                let configuration = this.value.broker.configuration
                return "\(configuration.brokerName) \(configuration.address) store \(configuration.storePathRootDir)"
            }
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
    }

    /// A store that cannot be opened because its disk does not work is no crash.
    private func open() throws {
        do {
            try broker.open(on: self)
            disk.expect(directory: broker.configuration.storePathRootDir)
        } catch {
            let root = broker.configuration.storePathRootDir
            do throws(SystemError) {
                if try MountPoint.isReadOnly(root) { throw SystemError(errno: EROFS, call: "open", subject: root) }
                try DiskProbe.read(in: diskGuard.path)
                try DiskProbe.write(in: root)
            } catch let failure {
                throw WorkerError("the disk at \(diskGuard.path) cannot be used: \(failure); \(error)", cause: .disk)
            }
            throw error
        }
    }

    // MARK: - The disk

    private func watchDisk() throws {
        let eventLoop = environment.eventLoop
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        let watch = try DiskWatch(path: diskGuard.path, folder: broker.configuration.storePathRootDir) { reason in
            eventLoop.execute { this.value.diskIsLost(reason) }
        }
        diskWatch = watch
        let interval = TimeAmount.milliseconds(100)
        diskLook = eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
            // The store has failed to write and tries again by itself; the disk itself shows whether that is of any
            // use.
            let refusal = this.value.broker.store.notWritable
            if case .notWritable = refusal { watch.lookNow() }
            if refusal != nil && !this.value.wasRefusing { watch.lookNow() }
            this.value.wasRefusing = refusal != nil
            if let reason = watch.silence { this.value.diskIsLost(reason) }
        }
    }

    /// Takes the broker off its name servers, so that clients go elsewhere, and ends. Nothing more is written.
    private func diskIsLost(_ reason: String) {
        guard !isLeaving else { return }
        isLeaving = true
        diskLook?.cancel()
        let name = broker.configuration.brokerName
        let text = "\(reason); \(name) serves again by itself when the disk is there"
        environment.logger.critical("\(text)")
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        broker.withdraw(because: "\(name): \(reason)").assumeIsolated().whenComplete { _ in
            this.value.environment.fail(text, cause: .disk)
        }
    }

    // MARK: - Plugins

    /// Reports to the supervisor which groups depend on filter plugins, for `apus plugin status`, when that has
    /// changed.
    private func reportPluginSubscriptions() {
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        environment.eventLoop.scheduleRepeatedTask(
            initialDelay: Self.pluginReportInterval, delay: Self.pluginReportInterval
        ) { _ in
            this.value.broker.reportPluginSubscriptions { found in
                let worker = this.value
                guard found != worker.reported, !worker.isLeaving else { return }
                worker.reported = found
                let json = PluginSubscriptionReport.json(found, bytesMax: WorkerMessage.reportBytesMax)
                worker.environment.send(.report(json: json))
            }
        }
    }

    private static let pluginReportInterval = TimeAmount.seconds(1)

    // MARK: - Worker

    func reload(settings: Settings) {
        broker.reload(settings: settings.sorted.map { ($0.key, $0.value) })
    }

    func status() -> String {
        broker.statusLine + ", " + counted(server.connectionCount, "connection")
    }

    func trouble() -> String { broker.trouble ?? "" }

    func drain(_ reason: DrainReason) -> EventLoopFuture<Void> {
        guard isOpen else { return environment.eventLoop.makeSucceededVoidFuture() }
        isLeaving = true
        diskLook?.cancel()
        diskWatch?.stop()
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        return server.stopAccepting().flatMap {
            this.value.broker.drain(
                reason, stopReading: { this.value.server.stopReading() },
                close: {
                    let worker = this.value
                    worker.watermarks.close()
                    // All answers are written, and leave first.
                    worker.server.flush()
                    worker.handOverConnections()
                    return worker.server.close()
                })
        }
    }
}
