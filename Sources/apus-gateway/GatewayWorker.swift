import Gateway
import LinuxSystem
import Logging
import NIOCore
import SettingTable
import WorkerKit
import WorkerProtocol

/// The gateway process: a `Gateway` behind HTTP on the listener the supervisor gave it.
final class GatewayWorker: Worker {
    static var kind: WorkerKind { .gateway }

    /// Answers on their way have so long before connections close.
    private static let drainLimit = TimeAmount.seconds(5)

    private let environment: WorkerEnvironment
    private let gateway: Gateway
    private var server: HTTPServer?

    init(environment: WorkerEnvironment) throws {
        self.environment = environment
        try Self.check(settings: environment.settings)
        gateway = try Gateway(Self.configuration(environment.settings), group: environment.group)
    }

    static func check(settings: Settings) throws {
        let configuration = configuration(settings)
        try Gateway.check(configuration)
        let address = settings.string("bindAddress", default: "127.0.0.1")
        guard AddressText.isLoopback(address) || !configuration.accessTokens.isEmpty else {
            throw WorkerError(
                """
                the gateway would listen on \(address) without an access token: set accessTokens in [gateway], or \
                leave bindAddress at 127.0.0.1
                """, cause: .settings)
        }
    }

    private static func configuration(_ settings: Settings) -> GatewayConfiguration {
        GatewayConfiguration(
            nameServers: settings.string("namesrvAddr", default: ""),
            accessTokens: settings.string("accessTokens", default: ""))
    }

    func start() -> EventLoopFuture<String> {
        let listener: Int32
        do {
            listener = try environment.listener("http")
        } catch {
            return environment.eventLoop.makeFailedFuture(error)
        }
        // Besides clients: connections to brokers.
        let bounds = environment.boundConnections(growth: 64)
        let server = HTTPServer(
            eventLoop: environment.eventLoop, gateway: gateway, connectionsMax: bounds.total,
            perAddressMax: bounds.perAddress, logger: environment.logger)
        self.server = server
        return server.serve(listener: listener).map { "HTTP on \($0?.ipAddress ?? "?"):\($0?.port ?? 0)" }
    }

    /// A gateway reaches brokers over TCP like any client.
    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        _ = Descriptor(owning: descriptor)
    }

    func drain(_ reason: DrainReason) -> EventLoopFuture<Void> {
        let (gateway, eventLoop) = (gateway, environment.eventLoop)
        let stopped = eventLoop.makeFutureWithTask { await gateway.stop() }
        guard let server else { return stopped }
        return server.drain(limit: Self.drainLimit).and(stopped).map { _ in }
    }

    func reload(settings: Settings) {
        let configuration = Self.configuration(settings)
        do {
            try gateway.update(accessTokens: configuration.accessTokens)
        } catch {
            environment.logger.error("\(error): the access tokens stay as they were")
        }
        if configuration.nameServers != gateway.nameServers.joined(separator: ";") {
            environment.logger.notice("namesrvAddr of [gateway] holds with its next start: apus restart gateway@0")
        }
    }

    func status() -> String {
        guard let server else { return "" }
        return [
            counted(server.connectionCount, "connection"), counted(server.waiting, "request") + " waiting for messages",
        ].joined(separator: ", ")
    }
}
