import Glibc
import Logging
import MessageModel
import NIOCore
import NIOPosix
import RemotingProtocol

/// Connections that outlive the process. They are given away open, and the server's next process serves them on.
/// Whatever their clients have sent meanwhile is still in the kernel. The client notices a pause, not an end. When a
/// connection closes with a request under way, the official C++ client learns it only by its own time-out of three
/// seconds.
extension RemotingServer {
    /// Reads nothing more from any client: requests stay in the kernel, unread. For ever: what follows is `handOver`
    /// and `close`.
    package func stopReading() {
        eventLoop.assertInEventLoop()
        for connection in connections.values { connection.stopReading() }
    }

    /// Gives away the connections that have nothing half read or half written, at most so many. They are closed here
    /// without their clients seeing it; the descriptors are the caller's. To be called after `stopReading`, with all
    /// answers written.
    ///
    /// - Parameters:
    ///   - fits: which of them.
    ///   - each: sees each connection that is given away, just before.
    package func handOver(
        atMost limit: Int, where fits: (RemotingConnection) -> Bool = { _ in true },
        each: (RemotingConnection) -> Void = { _ in }
    ) -> [Int32] {
        eventLoop.assertInEventLoop()
        let mine = connections.values.filter { $0.isClean && fits($0) }.prefix(max(0, limit))
        guard !mine.isEmpty else { return [] }
        let descriptors = OpenConnections.descriptors()
        var given: [Int32] = []
        for connection in mine {
            guard let descriptor = descriptors[.init(connection.localAddress, connection.remoteAddress)] else {
                continue
            }
            let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
            // Out of descriptors: the others end as they always did.
            guard copy >= 0 else { break }
            given.append(copy)
            each(connection)
            connection.abandon()
        }
        return given
    }

    private func acceptAdopted(_ channel: any Channel) throws {
        let address = HostAddress(channel.remoteAddress)
        if let reason = admission.admit(address) { throw RemotingError.connectionRefused(reason) }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        channel.closeFuture.whenComplete { _ in this.value.admission.left(address) }
        try accept(channel, hasSpoken: true)
    }

    /// Serves a connection that a former process gave away; owns the descriptor.
    package func adopt(connection descriptor: CInt) {
        eventLoop.assertInEventLoop()
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .channelOption(.writeBufferWaterMark, value: configuration.writeBufferWaterMark)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try this.value.acceptAdopted(channel) }
            }
            .withConnectedSocket(descriptor)
            .whenFailure { error in
                // Its client has closed it meanwhile.
                this.value.logger.debug("a connection was not taken over: \(error)")
            }
    }
}

/// The TCP connections of this process by their addresses: the event loop does not expose its descriptors.
private enum OpenConnections {
    struct Ends: Hashable {
        let local: HostAddress
        let remote: HostAddress

        init(_ local: HostAddress, _ remote: HostAddress) {
            self.local = local
            self.remote = remote
        }
    }

    static func descriptors() -> [Ends: Int32] {
        var found: [Ends: Int32] = [:]
        guard let folder = opendir("/proc/self/fd") else { return found }
        defer { closedir(folder) }
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let descriptor = Int32(name), let local = address(descriptor, getsockname),
                let remote = address(descriptor, getpeername)
            else { continue }
            found[Ends(local, remote)] = descriptor
        }
        return found
    }

    private typealias Getter = (Int32, UnsafeMutablePointer<sockaddr>?, UnsafeMutablePointer<socklen_t>?) -> Int32

    private static func address(_ descriptor: Int32, _ get: Getter) -> HostAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let outcome = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { get(descriptor, $0, &length) }
        }
        guard outcome == 0 else { return nil }
        return withUnsafePointer(to: storage) { pointer -> HostAddress? in
            switch Int32(pointer.pointee.ss_family) {
            case AF_INET:
                pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { HostAddress(SocketAddress($0.pointee)) }
            case AF_INET6:
                pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { HostAddress(SocketAddress($0.pointee)) }
            default: nil
            }
        }
    }
}
