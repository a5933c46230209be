import Foundation
import LinuxSystem
import Supervision
import TestFolders
import TestTools
import Testing
import WorkerProtocol

/// A platform of the real apusd with `EchoWorker` as every worker, in a folder of its own on free ports.
final class EchoPlatform {
    let folder: String
    let process = Process()
    private(set) var nameserver = ""
    private(set) var broker = ""

    static let build: String = {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return (own as NSString).deletingLastPathComponent
    }()

    init(
        _ options: [String] = [], environment: [String: String] = [:], folder: String? = nil, waits: Bool = true,
        heartbeatMilliseconds: Int = 100
    ) throws {
        self.folder = try folder ?? TestFolder.make("echo").path
        let workers = try Self.makeWorkers(in: self.folder, of: .standard)
        process.executableURL = URL(fileURLWithPath: "\(Self.build)/apusd")
        process.arguments =
            [
                "--worker-directory", workers, "--data-dir", self.folder, "--nameserver-port", "0", "--broker-port",
                "0", "--no-console",
                "--heartbeat-millis", String(heartbeatMilliseconds),
            ] + options
        process.environment = ["PATH": "/usr/bin:/bin", "SWIFT_BACKTRACE": "enable=no"].merging(environment) { $1 }
        let output = Pipe()
        process.standardOutput = output
        try Data().write(to: URL(fileURLWithPath: "\(self.folder)/stderr"))
        process.standardError = FileHandle(forWritingAtPath: "\(self.folder)/stderr")
        try process.run()
        guard waits else { return }
        let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
        for field in line.split(whereSeparator: \.isWhitespace) {
            if field.hasPrefix("nameserver=") { nameserver = String(field.dropFirst(11)) }
            if field.hasPrefix("broker=") { broker = String(field.dropFirst(7)) }
        }
        try #require(line.hasPrefix("ready nameserver=127.0.0.1:"), "\(line)\(errors)")
        #expect(line.hasSuffix(" data=\(self.folder) pid=\(process.processIdentifier)\n"))
    }

    /// A folder of programs, one for each kind of the table, all of which are `EchoWorker`.
    static func makeWorkers(in folder: String, of table: WorkerTable) throws -> String {
        let workers = "\(folder)/bin"
        try FileManager.default.createDirectory(atPath: workers, withIntermediateDirectories: true)
        for kind in table.rows.map(\.kind) {
            try? FileManager.default.createSymbolicLink(
                atPath: "\(workers)/apus-\(kind.rawValue)", withDestinationPath: "\(build)/EchoWorker")
        }
        return workers
    }

    var errors: String { (try? String(contentsOfFile: "\(folder)/stderr", encoding: .utf8)) ?? "" }

    /// SIGTERM, then the exit status.
    @discardableResult
    func stop() -> Int32 {
        if process.isRunning { kill(process.processIdentifier, SIGTERM) }
        process.waitUntilExit()
        return process.terminationStatus
    }

    func remove() {
        stop()
        try? FileManager.default.removeItem(atPath: folder)
    }

    func admin(_ command: String) throws -> String { try Self.admin(command, folder) }

    /// One command to the platform of a data directory, and its answer.
    static func admin(_ command: String, _ folder: String) throws -> String {
        let run = try RunDirectory.open("\(folder)/run")
        let socket = SharedDescriptor(try ListenSocket.connectUnix(name: "apus.sock", inDirectory: run.raw))
        let line = command + "\n"
        write(socket.raw, line, line.utf8.count)
        return try readLine(socket.raw)
    }

    func report() throws -> PlatformReport {
        try JSONDecoder().decode(PlatformReport.self, from: Data(admin("status").utf8))
    }

    func worker(_ kind: WorkerKind) throws -> PlatformReport.Worker {
        try #require(try report().workers.first { $0.kind == kind.rawValue })
    }

    /// One line to a worker's listener and its answer.
    func ask(_ address: String, _ line: String, seconds: Double = 10) throws -> String {
        try Self.ask(address, line, seconds: seconds)
    }

    static func ask(_ address: String, _ line: String, seconds: Double = 10) throws -> String {
        let socket = try EchoPlatform.connect(address)
        let text = line + "\n"
        write(socket.raw, text, text.utf8.count)
        return try readLine(socket.raw, seconds: seconds)
    }

    static func connect(_ address: String) throws -> SharedDescriptor {
        let port = try #require(UInt16(address.split(separator: ":").last ?? ""))
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_port = port.bigEndian
        target.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        let socket = SharedDescriptor(
            Descriptor(owning: Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)))
        let result = withUnsafePointer(to: target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(socket.raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if result < 0 { throw SystemError(errno: errno, call: "connect", subject: address) }
        return socket
    }

    private static func readLine(_ fd: Int32, seconds: Double = 10) throws -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while bytes.last != UInt8(ascii: "\n") {
            var polled = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
            try #require(poll(&polled, 1, Int32(seconds * 1000)) == 1, "no answer in \(seconds) s")
            let count = read(fd, &buffer, buffer.count)
            if count <= 0 { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes.last == UInt8(ascii: "\n") ? bytes.dropLast() : bytes[...], as: UTF8.self)
    }

    /// Waits until it holds; the error has what the platform said.
    func eventually(
        _ what: String, within limit: Duration = .seconds(10), file: String = #fileID, line: Int = #line,
        _ condition: () throws -> Bool
    ) throws {
        do {
            try TestTools.eventually(what, within: limit, file: file, line: line, condition)
        } catch let late as NotInTime {
            Issue.record("\(errors)")
            throw late
        }
    }
}
