import FastJSON
import LinuxSystem
import Logging
import MetadataStore
import NIOCore
import NIOPosix
import RemotingTransport
import RouteRegistry
import WorkerKit
import WorkerProtocol

/// The name server process: a `NameServer` behind a `RemotingServer` on the listener the supervisor gave it.
final class NameserverWorker: Worker {
    static var kind: WorkerKind { .nameserver }

    private let environment: WorkerEnvironment
    private let nameServer: NameServer
    private let server: RemotingServer
    /// Of clients, from the process before this one.
    private var adopted: [Int32] = []

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        let settings = environment.settings
        nameServer = try NameServer(
            configuration: Self.configuration(settings),
            storage: settings["kvConfigPath"].map {
                KVConfigFile(path: $0, disk: RealDisk(), logger: environment.logger)
            },
            logger: environment.logger)
        var configuration = RemotingServerConfiguration()
        configuration.idleTimeout = .seconds(
            Int64(settings.int("serverChannelMaxIdleTimeSeconds", default: 120)))
        server = RemotingServer(
            eventLoop: environment.eventLoop, service: nameServer, configuration: configuration,
            logger: environment.logger)
        let pool = NIOThreadPool(numberOfThreads: 1)
        pool.start()
        nameServer.elsewhere = { work in
            pool.submit { state in if case .active = state { work() } }
        }
        let turns = environment.turns
        server.tickBegan = { turns.began($0) }
        server.pieceTookLong = { piece, took in turns.note(took, "\(piece)") }
    }

    private static func configuration(_ settings: Settings) -> NameServerConfiguration {
        NameServerConfiguration(settings.values)
    }

    func start() -> EventLoopFuture<String> {
        let listener: Int32
        do {
            listener = try environment.listener("remoting")
        } catch {
            return environment.eventLoop.makeFailedFuture(error)
        }
        nameServer.start(on: environment.eventLoop)
        let bounds = environment.boundConnections(growth: 16, adopted: adopted.count)
        server.admission.connectionsMax = bounds.total
        server.admission.connectionsPerAddressMax = bounds.perAddress
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        return server.serve(listener: listener).map {
            for connection in this.value.adopted { this.value.server.adopt(connection: connection) }
            this.value.adopted = []
            return this.value.server.localAddresses.map { "\($0.ipAddress ?? "?"):\($0.port ?? 0)" }.joined(
                separator: " ")
        }
    }

    /// A name server has no peers: brokers reach it over TCP like any other.
    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        _ = Descriptor(owning: descriptor)
    }

    func adopt(connections: [Int32]) { adopted += connections }

    /// Clients keep their connections, so that none waits for an answer that does not come. Those of brokers close:
    /// they register with the next process at once.
    func drain(_ reason: DrainReason) -> EventLoopFuture<Void> {
        nameServer.stop()
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        return server.stopAccepting().flatMap {
            let worker = this.value
            worker.server.stopReading()
            worker.server.flush()
            let connections = worker.server.handOver(
                atMost: worker.environment.connectionsHandedOverMax, where: { !worker.nameServer.isBroker($0) })
            worker.environment.handOver(connections: connections)
            return worker.server.close()
        }
    }

    func reload(settings: Settings) {
        nameServer.update(Self.configuration(settings))
    }

    func status() -> String {
        let tables = nameServer.tables
        return [
            counted(tables.brokerCount, "broker"), counted(tables.topicCount, "topic"),
            counted(server.connectionCount, "connection"),
        ].joined(separator: ", ")
    }
}

/// The KV configuration as a file with its backup and checksums, like the tables of a broker (`MetadataFile`). Beside
/// that are the brokers that were registered last.
final class KVConfigFile: NameServerStorage, Sendable {
    private let path: String
    private let disk: any Disk
    private let logger: Logger

    /// A larger file is not ours. Each byte of the 8 MiB of a KV configuration (`KVConfigTable.bytesMax`) may be
    /// written as six. A short entry has as many around it.
    private static let bytesMax: Int64 = 256 << 20

    init(path: String, disk: any Disk, logger: Logger) {
        self.path = path
        self.disk = disk
        self.logger = logger
    }

    private var folder: String {
        path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    }

    private var brokersPath: String { folder + "/registeredBrokers.json" }

    private var file: MetadataFile { MetadataFile(path: path, disk: disk, bytesMax: Self.bytesMax) }

    /// - Throws: neither the file nor its backup can be read; the text names both and the remedy.
    func loadKVConfig() throws -> [UInt8]? {
        try load(file, what: "a KV configuration") { KVConfigTable.accepts($0) }
    }

    private func load(_ file: MetadataFile, what: String, isGood: ([UInt8]) -> Bool) throws -> [UInt8]? {
        switch try file.load(isGood: isGood) {
        case .absent: return nil
        case .empty(let reason):
            logger.error(
                """
                \(reason), and it has no backup: the name server begins without \(what); if there was one, stop the \
                name server and restore the file
                """
            )
            return nil
        case .current(let bytes): return bytes
        case .backup(let bytes, let reason):
            logger.error(
                "\(reason); its backup is used: what was changed after that is lost and has to be changed again")
            do {
                try file.restore(bytes)
            } catch {
                logger.error("\(file.path) could not be restored from its backup, which stays: \(error)")
            }
            return bytes
        }
    }

    func saveKVConfig(_ bytes: [UInt8]) throws { try file.save(bytes) }

    private var changedSettings: MetadataFile {
        MetadataFile(path: folder + "/changedNamesrvSettings.json", disk: disk, bytesMax: Self.bytesMax)
    }

    /// - Throws: as `loadKVConfig`.
    func loadChangedSettings() throws -> [UInt8]? {
        try load(changedSettings, what: "settings changed online") { (try? JSONValue(parsing: $0)) != nil }
    }

    func saveChangedSettings(_ bytes: [UInt8]) throws { try changedSettings.save(bytes) }

    /// A file that cannot be read costs the next start its patience and nothing else.
    func loadBrokers() -> [String] {
        guard let bytes = try? load(brokersPath), let list = try? JSONValue(parsing: bytes).array else {
            return []
        }
        return list.compactMap(\.string)
    }

    func saveBrokers(_ brokers: [String]) throws {
        try save(JSONValue.strings(brokers).bytes(), brokersPath)
    }

    private func load(_ path: String) throws -> [UInt8]? {
        guard let information = try disk.information(path), information.size <= Self.bytesMax else { return nil }
        let file = try disk.open(path, .read)
        var bytes = [UInt8](repeating: 0, count: Int(information.size))
        let count = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: 0) }
        return Array(bytes.prefix(count))
    }

    private func save(_ bytes: [UInt8], _ path: String) throws {
        try disk.createDirectory(folder)
        let temporary = path + ".tmp"
        let file = try disk.open(temporary, .replace)
        try bytes.withUnsafeBytes { try file.write($0, at: 0) }
        try disk.rename(temporary, to: path)
    }
}
