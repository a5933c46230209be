import Foundation
import Testing

extension PlatformTests {
    /// All of units/, as it lies in the package (`Tests/Support/systemd/scenarios`).
    @Suite("T21 units", .serialized)
    struct T21_SystemdUnits {
        @Test("sockets and segments outlive the supervisor and the service", .timeLimit(.minutes(3)))
        func sockets() throws { try Systemd.run("sockets") }

        @Test("unit files: verified, hardened, instances, roles, boot, mounts, every example", .timeLimit(.minutes(3)))
        func unitFiles() throws { try Systemd.run("unit-files") }

        @Test(
            "restart under load: nothing lost, no send failed, clients keep their connections", .timeLimit(.minutes(3)))
        func load() throws {
            let environment = OfficialClient.python.map { ($0 as NSString).deletingLastPathComponent }
            try Systemd.run("load", clients: environment.map { ($0 as NSString).deletingLastPathComponent })
        }
    }
}
