import Glibc

/// One non-blocking TCP connection that speaks length-prefixed frames, with nothing between it and the system calls.
///
/// A transport of its own, because the generator must cost less than what it measures: one `read` and one `write` a
/// turn.
final class WireConnection {
    let address: WireAddress
    private(set) var descriptor: Int32
    private var inbound = WireBuffer(capacity: 256 << 10)
    private var outbound = WireBuffer(capacity: 64 << 10)
    /// Bytes of the frame handed out last, removed when the next one is asked for.
    private var lent = 0

    /// Starts connecting; the result shows as writability (or as an error of the first read or write).
    init(to address: WireAddress) throws(BenchError) {
        self.address = address
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | O_NONBLOCK | O_CLOEXEC, 0)
        guard descriptor >= 0 else {
            throw BenchError("cannot make a socket: \(errnoText()); lower --connections or raise `ulimit -n`")
        }
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        var raw = address.socketAddress
        let outcome = withUnsafePointer(to: &raw) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if outcome != 0, errno != EINPROGRESS {
            let reason = errnoText()
            close()
            throw BenchError("cannot connect to \(address): \(reason)")
        }
    }

    deinit {
        close()
    }

    func close() {
        if descriptor >= 0 {
            Glibc.close(descriptor)
            descriptor = -1
        }
    }

    var hasUnsentBytes: Bool { outbound.count > 0 }

    /// Copies a frame after what waits to be sent and gives its bytes for patching.
    func append(_ frame: UnsafeRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        let room = outbound.reserve(frame.count)
        room.copyMemory(from: frame)
        outbound.commit(frame.count)
        return UnsafeMutableRawBufferPointer(rebasing: room[..<frame.count])
    }

    /// Writes what the socket takes now.
    func flush() throws(BenchError) {
        while outbound.count > 0 {
            let written = send(descriptor, outbound.bytes.baseAddress, outbound.count, Int32(MSG_NOSIGNAL))
            if written > 0 {
                outbound.consume(written)
            } else if errno == EAGAIN {
                return
            } else if errno != EINTR {
                throw BenchError("\(address) did not take a request: \(errnoText())")
            }
        }
    }

    /// Reads what has arrived. False when the peer has closed.
    func receive() throws(BenchError) -> Bool {
        settleLentFrame()
        while true {
            let room = inbound.reserve(64 << 10)
            let got = recv(descriptor, room.baseAddress, room.count, 0)
            if got > 0 {
                inbound.commit(got)
                // A short read means the socket is empty: one system call saved.
                if got < room.count { return true }
            } else if got == 0 {
                return false
            } else if errno == EAGAIN {
                return true
            } else if errno != EINTR {
                throw BenchError("lost the connection to \(address): \(errnoText())")
            }
        }
    }

    /// The next whole frame without its length field, valid until the next call of this connection.
    func nextFrame() throws(BenchError) -> UnsafeRawBufferPointer? {
        settleLentFrame()
        let bytes = inbound.bytes
        guard bytes.count >= 4 else { return nil }
        let length = Int(UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)))
        guard length >= 4, length <= 64 << 20 else {
            throw BenchError("\(address) sent a frame of \(length) bytes: is it a RocketMQ server?")
        }
        guard bytes.count >= 4 + length else { return nil }
        lent = 4 + length
        return UnsafeRawBufferPointer(rebasing: bytes[4..<(4 + length)])
    }

    private func settleLentFrame() {
        if lent > 0 {
            inbound.consume(lent)
            lent = 0
        }
    }
}

/// An IPv4 address and port in the forms the generator needs: text for people, bytes for the kernel.
struct WireAddress: CustomStringConvertible, Hashable {
    let host: String
    let port: UInt16
    private let ipv4: UInt32

    /// - Parameter text: `host:port`; a host name is resolved here, once.
    init(_ text: String) throws(BenchError) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0 else {
            throw BenchError("'\(text)' is not an address: write host:port, such as 127.0.0.1:9876")
        }
        host = String(text[..<colon])
        self.port = port
        var hints = addrinfo()
        hints.ai_family = AF_INET
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let outcome = getaddrinfo(host, nil, &hints, &found)
        defer { freeaddrinfo(found) }
        guard outcome == 0, let first = found?.pointee.ai_addr else {
            throw BenchError("host '\(host)' cannot be resolved: \(String(cString: gai_strerror(outcome)))")
        }
        ipv4 = first.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee.sin_addr.s_addr }
    }

    var description: String { "\(host):\(port)" }

    var socketAddress: sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = ipv4
        return address
    }
}

func errnoText() -> String {
    String(cString: strerror(errno))
}

/// Nanoseconds of the clock every latency is measured on.
func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Milliseconds since 1970: RocketMQ's timestamps.
func wallMilliseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
}
