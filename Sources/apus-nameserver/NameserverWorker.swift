import LinuxSystem
import NIOCore
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

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        let settings = environment.settings
        self.nameServer = try NameServer(
            configuration: Self.configuration(settings),
            storage: settings["kvConfigPath"].map { KVConfigFile(path: $0, disk: RealDisk()) },
            logger: environment.logger)
        var configuration = RemotingServerConfiguration()
        configuration.idleTimeout = .seconds(
            Int64(settings.int("serverChannelMaxIdleTimeSeconds", default: 120)))
        self.server = RemotingServer(
            eventLoop: environment.eventLoop, service: self.nameServer, configuration: configuration,
            logger: environment.logger)
    }

    private static func configuration(_ settings: Settings) -> NameServerConfiguration {
        NameServerConfiguration(settings.values)
    }

    func start() -> EventLoopFuture<String> {
        let listener: Int32
        do {
            listener = try self.environment.listener("remoting")
        } catch {
            return self.environment.eventLoop.makeFailedFuture(error)
        }
        self.nameServer.start(on: self.environment.eventLoop)
        let this = NIOLoopBound(self, eventLoop: self.environment.eventLoop)
        return self.server.serve(listener: listener).map {
            this.value.server.localAddresses.map { "\($0.ipAddress ?? "?"):\($0.port ?? 0)" }.joined(separator: " ")
        }
    }

    /// A name server has no peers: brokers reach it over TCP like any other.
    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        _ = Descriptor(owning: descriptor)
    }

    func drain() -> EventLoopFuture<Void> {
        self.nameServer.stop()
        return self.server.close()
    }

    func reload(settings: Settings) {
        self.nameServer.update(Self.configuration(settings))
    }

    func status() -> String {
        let tables = self.nameServer.tables
        return "\(tables.brokerCount) brokers, \(tables.topicCount) topics, \(self.server.connectionCount) connections"
    }
}

/// The KV configuration as a file, replaced as a whole: written beside it, synchronized, renamed over it.
final class KVConfigFile: NameServerStorage {
    private let path: String
    private let disk: any Disk

    /// A larger file is not ours.
    private static let bytesMax: Int64 = 64 << 20

    init(path: String, disk: any Disk) {
        self.path = path
        self.disk = disk
    }

    private var folder: String {
        self.path.lastIndex(of: "/").map { String(self.path[..<$0]) } ?? "."
    }

    func loadKVConfig() throws -> [UInt8]? {
        guard let information = try self.disk.information(self.path) else { return nil }
        guard information.size <= Self.bytesMax else {
            throw WorkerError(
                "\(self.path) has \(information.size) bytes and cannot be a KV configuration; move it away")
        }
        let file = try self.disk.open(self.path, .read)
        var bytes = [UInt8](repeating: 0, count: Int(information.size))
        let count = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: 0) }
        return Array(bytes.prefix(count))
    }

    func saveKVConfig(_ bytes: [UInt8]) throws {
        try self.disk.createDirectory(self.folder)
        let temporary = self.path + ".tmp"
        let file = try self.disk.open(temporary, .replace)
        try bytes.withUnsafeBytes { try file.write($0, at: 0) }
        try file.synchronize()
        try self.disk.rename(temporary, to: self.path)
        try self.disk.synchronizeDirectory(self.folder)
    }
}
