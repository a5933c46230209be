import Foundation
import LinuxSystem
import Testing

@Suite struct ListenSocketTests {
    private func temporaryFolder() -> String {
        let path = NSTemporaryDirectory() + "apus-\(UUID().uuidString)"
        return path
    }

    private func hasConnection(_ listener: Int32) throws -> Bool {
        if let connection = try ListenSocket.accept(listener) { connection.raw >= 0 } else { false }
    }

    @Test func portInUse() throws {
        let first = try ListenSocket.tcp(address: "127.0.0.1", port: 0)
        let port = try ListenSocket.port(of: first.raw)
        #expect(port > 0)
        #expect {
            _ = try ListenSocket.tcp(address: "127.0.0.1", port: port)
        } throws: { ($0 as? SystemError)?.errno == EADDRINUSE && "\($0)".contains("127.0.0.1:\(port)") }
    }

    @Test func ipv6Too() throws {
        let socket = try ListenSocket.tcp(address: "::1", port: 0)
        #expect(try ListenSocket.port(of: socket.raw) > 0)
    }

    /// Longer than the 107 bytes of a socket address.
    @Test func unixSocketInADeepFolder() throws {
        let base = temporaryFolder()
        let folder = base + "/" + String(repeating: "deep/", count: 40)
        try RunDirectory.makeDirectories(folder)
        defer { try? FileManager.default.removeItem(atPath: base) }
        let directory = try RunDirectory.open(folder)
        let listener = try ListenSocket.unix(name: "s", inDirectory: directory.raw)
        let client = try ListenSocket.connectUnix(name: "s", inDirectory: directory.raw)
        #expect(client.raw >= 0)
        if try hasConnection(listener.raw) == false { Issue.record("the connection is not there") }
        let mode = try FileManager.default.attributesOfItem(atPath: folder + "s")[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }

    @Test func secondLockNamesTheFirst() throws {
        let folder = temporaryFolder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        #expect(RunDirectory.runningPid(path: folder) == nil)
        var first: RunDirectory? = try RunDirectory(path: folder)
        #expect(RunDirectory.runningPid(path: folder) == getpid())
        #expect(throws: RunDirectory.Failure.running(pid: getpid(), path: "\(folder)/apus.pid")) {
            try RunDirectory(path: folder)
        }
        _ = first?.directory
        first = nil
        // A process that a test beside this one has just begun holds the lock until its own program runs.
        var left = 500
        while RunDirectory.runningPid(path: folder) != nil, left > 0 {
            usleep(10_000)
            left -= 1
        }
        #expect(RunDirectory.runningPid(path: folder) == nil)
        // A file left by a kill -9 is no obstacle.
        _ = try RunDirectory(path: folder)
    }
}
