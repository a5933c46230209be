import CLinux
import Glibc

/// Listening sockets, non-blocking and close-on-exec.
package enum ListenSocket {
    /// Connections that have finished their handshake and wait to be accepted, e.g. while a worker restarts. The kernel
    /// cuts it to net.core.somaxconn.
    package static let backlog: Int32 = 4096

    /// Binds TCP `port` (0: any free one) at a numeric IPv4 or IPv6 `address`.
    /// - Throws: the call `bind` with EADDRINUSE, EADDRNOTAVAIL or EACCES, or another that failed.
    package static func tcp(address: String, port: Int) throws(SystemError) -> Descriptor {
        guard port == 0 else { return try bound(address, port) }
        // A port the kernel chose is given up by `pause`, one that was asked for is not: so it is asked for.
        for _ in 0..<16 {
            let free = try freePort(address)
            do throws(SystemError) { return try bound(address, free) } catch {
                guard error.errno == EADDRINUSE else { throw error }
            }
        }
        return try bound(address, 0)
    }

    private static func freePort(_ address: String) throws(SystemError) -> Int {
        let probe = SharedDescriptor(try bound(address, 0))
        let port = try ListenSocket.port(of: probe.raw)
        // Until here it had to be open.
        withExtendedLifetime(probe) {}
        return port
    }

    private static func bound(_ address: String, _ port: Int) throws(SystemError) -> Descriptor {
        let subject = "\(address):\(port)"
        guard let found = resolve(address, port) else {
            throw SystemError(errno: EINVAL, call: "bind", subject: subject)
        }
        defer { freeaddrinfo(found) }
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let socket = Descriptor(
            owning: try call("socket", subject) { Glibc.socket(found.pointee.ai_family, type, 0) })
        var on: Int32 = 1
        try call("setsockopt", subject) {
            setsockopt(socket.raw, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        }
        try call("bind", subject) { bind(socket.raw, found.pointee.ai_addr, found.pointee.ai_addrlen) }
        try call("listen", subject) { listen(socket.raw, backlog) }
        return socket
    }

    private static func resolve(_ address: String, _ port: Int) -> UnsafeMutablePointer<addrinfo>? {
        var hints = addrinfo()
        hints.ai_flags = AI_NUMERICHOST | AI_PASSIVE
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard (0...65535).contains(port), getaddrinfo(address, String(port), &hints, &found) == 0 else { return nil }
        return found
    }

    /// The port a socket is bound to.
    /// - Throws: it is no socket of the internet.
    package static func port(of socket: Int32) throws(SystemError) -> Int {
        let (storage, _) = try boundAddress(of: socket)
        return withUnsafeBytes(of: storage) { bytes in
            // sin_port and sin6_port have the same offset: after the family.
            Int(UInt16(bigEndian: bytes.load(fromByteOffset: 2, as: UInt16.self)))
        }
    }

    /// Connects are refused at once, also those that wait; the port stays taken. listen(2) by any process that has the
    /// socket ends it.
    package static func pause(_ socket: Int32) {
        var listening: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        // Of a socket that does not listen the same call would shut down every connection it ever accepts afterwards.
        guard getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0, listening == 1 else { return }
        _ = shutdown(socket, Int32(SHUT_RD))
    }

    /// Whether `socket` is a TCP socket that listens at a numeric `address` and `port` (0: whatever port).
    package static func listens(_ socket: Int32, address: String, port: Int) -> Bool {
        var listening: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0, listening == 1,
            let (bound, size) = try? boundAddress(of: socket),
            let bare = try? ListenSocket.port(of: socket), port == 0 || port == bare,
            let wanted = resolve(address, bare)
        else { return false }
        defer { freeaddrinfo(wanted) }
        let bytes = UnsafeRawBufferPointer(start: wanted.pointee.ai_addr, count: Int(wanted.pointee.ai_addrlen))
        return withUnsafeBytes(of: bound) { $0.prefix(Int(size)).elementsEqual(bytes) }
    }

    /// Whether the descriptor is a socket of any kind.
    package static func isSocket(_ descriptor: Int32) -> Bool {
        var status = stat()
        return fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
    }

    /// `address:port` of a socket, for people; a text for what is none.
    package static func description(of socket: Int32) -> String {
        guard let (bound, size) = try? boundAddress(of: socket) else { return "no socket" }
        var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        var port = [CChar](repeating: 0, count: 32)
        let known = withUnsafePointer(to: bound) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                getnameinfo(
                    $0, size, &host, socklen_t(host.count), &port, socklen_t(port.count),
                    NI_NUMERICHOST | NI_NUMERICSERV)
            }
        }
        guard known == 0 else { return "no TCP socket" }
        return [host, port].map { String(decoding: $0.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self) }
            .joined(separator: ":")
    }

    private static func boundAddress(of socket: Int32) throws(SystemError) -> (sockaddr_storage, socklen_t) {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        try withUnsafeMutableBytes(of: &storage) { bytes throws(SystemError) in
            let address = bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self)
            _ = try call("getsockname", "socket") { getsockname(socket, address, &length) }
        }
        return (storage, length)
    }

    /// A unix stream socket `name` in an open directory, for its owner only; a leftover of that name is replaced. The
    /// detour by the directory's descriptor lifts the 107-byte limit of socket paths.
    /// - Throws: the socket cannot be bound.
    package static func unix(name: String, inDirectory directory: Int32) throws(SystemError) -> Descriptor {
        let socket = try unixSocket(Int32(SOCK_NONBLOCK.rawValue))
        _ = unlinkat(directory, name, 0)
        let path = "/proc/self/fd/\(directory)/\(name)"
        let mask = umask(0o177)
        defer { umask(mask) }
        _ = try call("bind", name) { withUnixAddress(path) { bind(socket.raw, $0, $1) } }
        try call("listen", name) { listen(socket.raw, 16) }
        return socket
    }

    /// Connects to such a socket; blocking.
    /// - Throws: no process listens there, or the caller may not connect.
    package static func connectUnix(name: String, inDirectory directory: Int32) throws(SystemError) -> Descriptor {
        let socket = try unixSocket(0)
        let path = "/proc/self/fd/\(directory)/\(name)"
        _ = try call("connect", name) { withUnixAddress(path) { connect(socket.raw, $0, $1) } }
        return socket
    }

    /// The next waiting connection, non-blocking; nil when none waits.
    /// - Throws: there is no free descriptor: the connection stays where it waits.
    package static func accept(_ listener: Int32) throws(SystemError) -> Descriptor? {
        let socket = apus_accept(listener)
        if [EAGAIN, ECONNABORTED, EINTR].contains(-socket) { return nil }
        return Descriptor(owning: try check(socket, "accept", "socket"))
    }

    /// Whether the other end of a unix socket is a process of this user's or root's.
    package static func isOwnUser(_ socket: Int32) -> Bool {
        let user = apus_peer_user(socket)
        return user == 0 || user == Int64(geteuid())
    }

    private static func unixSocket(_ flags: Int32) throws(SystemError) -> Descriptor {
        Descriptor(
            owning: try call("socket", "unix") {
                socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue) | flags, 0)
            })
    }

    private static func withUnixAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let fits = withUnsafeMutableBytes(of: &address.sun_path) { buffer in
            guard buffer.count > path.utf8.count else { return false }
            buffer.copyBytes(from: path.utf8)
            return true
        }
        precondition(fits, "a socket path of \(path.utf8.count) bytes")
        return withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
