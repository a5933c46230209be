import Foundation
import Logging
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport

/// Answers success to everything and remembers what came.
final class NameServerDouble: RemotingService, @unchecked Sendable {
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let lock = NSLock()
    private var received: [RemotingCommand] = []
    private var server: RemotingServer?
    private(set) var port = 0

    /// Answered to those who ask for one; on the loop.
    private var route: TopicRouteData?
    private var holdsRoutes = false
    private var held: [() -> Void] = []

    /// From now on routes are answered; or held until the next call.
    func answer(_ route: TopicRouteData, holding: Bool = false) throws {
        try group.next().submit { [self] in
            (self.route, holdsRoutes) = (route, holding)
            for answer in held { answer() }
            held = []
        }.wait()
    }

    init() throws {
        let loop = group.next()
        try loop.flatSubmit {
            let server = RemotingServer(eventLoop: loop, service: self, logger: Logger(label: "double"))
            self.server = server
            return server.bind(host: "127.0.0.1", port: 0)
        }.wait()
        port = try loop.submit { self.server?.localAddresses.first?.port ?? 0 }.wait()
    }

    var requests: [RemotingCommand] { lock.withLock { received } }

    func connectionOpened(_ connection: RemotingConnection) {}
    func connectionClosed(_ connection: RemotingConnection) {}
    func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        lock.withLock { received.append(RemotingCommand(frame)) }
        if RemotingCommand(frame).requestCode == .getRouteInfoByTopic, let route {
            let address = frame.returnAddress
            let answer = { connection.respond(to: address, .success, body: route.encoded()) }
            return holdsRoutes ? held.append(answer) : answer()
        }
        connection.respond(to: frame.returnAddress, .success)
    }

    func end() throws {
        try group.next().flatSubmit { self.server?.close() ?? self.group.next().makeSucceededVoidFuture() }.wait()
        try group.syncShutdownGracefully()
    }
}
