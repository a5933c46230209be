import Foundation

/// A TCP connection to misuse.
final class RawSocket: Sendable {
    let descriptor: Int32

    init(_ address: String) throws {
        let parts = address.split(separator: ":")
        guard parts.count == 2, let port = UInt16(parts[1]) else { throw ScenarioFailure("no address: \(address)") }
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw ScenarioFailure("no socket: \(String(cString: strerror(errno)))") }
        var raw = sockaddr_in()
        raw.sin_family = sa_family_t(AF_INET)
        raw.sin_port = port.bigEndian
        inet_pton(AF_INET, String(parts[0]), &raw.sin_addr)
        let outcome = withUnsafePointer(to: &raw) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard outcome == 0 else {
            let reason = String(cString: strerror(errno))
            close(descriptor)
            throw ScenarioFailure("cannot connect to \(address): \(reason)")
        }
    }

    deinit {
        close(descriptor)
    }

    /// Writes what the peer takes without waiting. False when it has closed.
    @discardableResult
    func write(_ bytes: [UInt8]) -> Bool {
        var done = 0
        while done < bytes.count {
            let written = bytes[done...].withUnsafeBytes {
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if written > 0 {
                done += written
            } else {
                return errno == EAGAIN
            }
        }
        return true
    }

    /// Writes what fits the kernel's buffers now; the number of bytes, negative when that was none.
    func writeSome(_ bytes: some Collection<UInt8>) -> Int {
        Array(bytes).withUnsafeBytes {
            send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
        }
    }

    /// Reads and drops so many bytes; how many came in time.
    func read(_ count: Int, within limit: Duration) -> Int {
        let deadline = ContinuousClock.now + limit
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        var done = 0
        while done < count, ContinuousClock.now < deadline {
            var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, 100) > 0 else { continue }
            let got = recv(descriptor, &chunk, min(chunk.count, count - done), Int32(MSG_DONTWAIT))
            guard got > 0 else { break }
            done += got
        }
        return done
    }

    /// Whether the peer has ended the connection (answers on the way are read and dropped).
    var isClosedByPeer: Bool {
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let got = recv(descriptor, &chunk, chunk.count, Int32(MSG_DONTWAIT))
            if got > 0 { continue }
            return got == 0 || errno != EAGAIN
        }
    }
}

/// Lets this process have as many descriptors as the system allows.
func raiseDescriptorLimit() {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}
