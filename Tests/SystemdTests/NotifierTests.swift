import Foundation
import Logging
import Testing

@testable import Systemd

/// A datagram socket plays systemd.
@Suite(.serialized) struct NotifierTests {
    /// A process without systemd must not notice.
    @Test func withoutSystemdNothingHappens() {
        #expect(!Notifier.send([.ready, .status("x")]))
        #expect(Notifier.watchdogMicroseconds == nil)
        #expect(SocketActivation.take().isEmpty)
    }

    @Test func oneDatagramWithAllAssignments() throws {
        let path = "/tmp/apus-notify-\(getpid())"
        let fd = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        defer {
            close(fd)
            unlink(path)
            unsetenv("NOTIFY_SOCKET")
        }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(fd, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        #expect(bound == 0)
        setenv("NOTIFY_SOCKET", path, 1)
        #expect(Notifier.send([.ready, .status("two\nlines"), .watchdog, .reloading(monotonicMicroseconds: 5)]))
        var buffer = [UInt8](repeating: 0, count: 1000)
        let count = read(fd, &buffer, buffer.count)
        #expect(
            String(decoding: buffer[..<max(count, 0)], as: UTF8.self)
                == "READY=1\nSTATUS=two lines\nWATCHDOG=1\nRELOADING=1\nMONOTONIC_USEC=5")
    }
}
