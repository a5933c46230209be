import FastJSON
import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import Synchronization
import TestTools

/// A folder of one test, removed at its end.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/apus-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw ScenarioFailure("no temporary folder") }
        path = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }
}

/// Where the programs under test lie.
enum Binaries {
    /// `APUS_BIN_DIR`, or the folder of this test program, where `swift build` puts the executables of the same build.
    static let folder = ProcessInfo.processInfo.environment["APUS_BIN_DIR"] ?? ofTests
    /// The folder of this test program, with the executables of `Tests/Support`.
    static let ofTests: String = {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return (own as NSString).deletingLastPathComponent
    }()

    static var apus: String { folder + "/apus" }

    static let packageRoot: String = {
        var url = URL(fileURLWithPath: #filePath)
        for _ in 0..<4 { url.deleteLastPathComponent() }
        return url.path
    }()
}

/// A whole platform: `apus up` in the foreground, stopped (or at least ended) when the test is over.
final class Platform: Sendable {
    let folder: TemporaryFolder
    let program: Program
    let nameServer: String
    let broker: String
    let supervisorPid: pid_t
    /// `http://HOST:PORT` of the gateway; nil without one.
    let console: String?
    /// From the start of `apus up` to its `ready` line.
    let startTime: Duration

    static let workerKinds = ["nameserver", "broker-store", "replication", "filter"]

    private init(
        folder: TemporaryFolder, program: Program, nameServer: String, broker: String, console: String?, pid: pid_t,
        startTime: Duration
    ) {
        self.folder = folder
        self.program = program
        self.nameServer = nameServer
        self.broker = broker
        self.console = console
        supervisorPid = pid
        self.startTime = startTime
    }

    /// - Parameters:
    ///   - folder: the data folder of an earlier run, or nil for a fresh one.
    ///   - ports: name server and broker, 0 for free ones.
    ///   - consolePort: of the gateway, 0 for a free one; nil: no gateway.
    ///   - launcher: a command that becomes the one behind it, such as `nsenter`.
    static func start(
        in folder: TemporaryFolder? = nil, ports: (Int, Int) = (0, 0), consolePort: Int? = nil, launcher: [String] = [],
        _ arguments: [String] = []
    ) async throws -> Platform {
        let folder = try folder ?? TemporaryFolder()
        let began = ContinuousClock.now
        let console = consolePort.map { ["--console-port", String($0)] } ?? ["--no-console"]
        let program = try Program(
            launcher.first ?? Binaries.apus,
            launcher.dropFirst() + (launcher.isEmpty ? [] : [Binaries.apus]) + [
                "up", "--data-dir", folder.file("data"), "--nameserver-port", String(ports.0), "--broker-port",
                String(ports.1),
            ] + console + arguments)
        let line = try await program.line(within: .seconds(30)) { $0.hasPrefix("ready ") }
        let startTime = began.duration(to: .now)
        var fields: [String: String] = [:]
        for part in line.split(separator: " ").dropFirst() {
            let pair = part.split(separator: "=", maxSplits: 1).map(String.init)
            if pair.count == 2 { fields[pair[0]] = pair[1] }
        }
        guard let nameServer = fields["nameserver"], let broker = fields["broker"],
            let pid = fields["pid"].flatMap({ Int32($0) })
        else { throw ScenarioFailure("the ready line lacks a field: \(line)") }
        return Platform(
            folder: folder, program: program, nameServer: nameServer, broker: broker, console: fields["console"],
            pid: pid, startTime: startTime)
    }

    deinit {
        // A test that failed half-way: nothing may stay behind.
        guard program.status == nil else { return }
        let workers = Self.children(of: supervisorPid)
        program.send(signal: SIGKILL)
        for worker in workers { kill(worker, SIGKILL) }
    }

    var data: String { folder.file("data") }
    /// Of all its brokers, by their numbers.
    var brokers: [String] { broker.split(separator: ",").map(String.init) }

    /// Runs shell commands in the platform's mount namespace.
    func inside(_ script: String) async throws {
        let outcome = try await Program.run(
            "/usr/bin/nsenter", ["--target", String(supervisorPid), "--mount", "/bin/sh", "-ec", script])
        guard outcome.status == 0 else { throw ScenarioFailure("\(script): \(outcome.errorText)") }
    }

    /// What `apus status --json` says.
    func status() async throws -> PlatformReport {
        let outcome = try await Program.run(Binaries.apus, ["status", "--json", "--data-dir", data])
        return try JSONDecoder().decode(PlatformReport.self, from: Data(outcome.lines.joined().utf8))
    }

    /// The names of the brokers that have a topic, as the name server says.
    func route(of topic: String) async throws -> [String] {
        let reply = try await ask(
            nameServer, RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic]))
        guard reply.code == 0 else { return [] }
        return try reply.json()["brokerDatas"]?.array?.compactMap { $0["brokerName"]?.string }.sorted() ?? []
    }
    var log: String { program.errorText }

    /// A clean stop by SIGTERM; the platform must end by itself with status 0 and leave no process.
    @discardableResult
    func stop() async throws -> Duration {
        let began = ContinuousClock.now
        let workers = Self.children(of: supervisorPid)
        program.send(signal: SIGTERM)
        let status = try await program.finish(within: .seconds(30))
        guard status == 0 else {
            throw ScenarioFailure("apus up ended with \(status) after SIGTERM; its log ends: \(log.suffix(2000))")
        }
        let elapsed = began.duration(to: .now)
        for worker in workers where kill(worker, 0) == 0 {
            throw ScenarioFailure("worker \(worker) is still there after the platform stopped")
        }
        return elapsed
    }

    /// The worker's present process.
    func pid(of kind: String) -> pid_t? {
        Self.children(of: supervisorPid).first { Self.executable(of: $0) == "apus-\(kind)" }
    }

    /// Waits for a process of this kind other than `old`.
    func newPid(of kind: String, after old: pid_t, within limit: Duration = .seconds(5)) async throws -> pid_t {
        try await eventually("a new \(kind) after pid \(old)", within: limit) {
            self.pid(of: kind).map { $0 != old } ?? false
        }
        return pid(of: kind) ?? 0
    }

    /// `apus` with this platform's name server.
    func apus(
        _ arguments: [String], input: Program.Input = .nothing, within limit: Duration = .seconds(60)
    ) async throws -> (status: Int32, lines: [String], errorText: String) {
        try await Program.run(
            Binaries.apus, arguments + ["--name-server", nameServer], input: input, within: limit)
    }

    /// One request straight to the broker or name server.
    func ask(_ address: String, _ command: RemotingCommand) async throws -> RemotingCommand {
        let client = try await RemotingClient.connect(to: address, group: MultiThreadedEventLoopGroup.singleton)
        do {
            let reply = try await client.invoke(command, timeout: .seconds(5))
            await client.close()
            return reply
        } catch {
            await client.close()
            throw error
        }
    }

    /// Largest queue offset + 1 of each queue of a topic: how many messages it has.
    func queueSizes(topic: String, queues: Int, broker: String? = nil) async throws -> [Int64] {
        var sizes: [Int64] = []
        for queue in 0..<queues {
            let reply = try await ask(
                broker ?? self.broker,
                RemotingCommand(.getMaxOffset, extFields: ["topic": topic, "queueId": String(queue)]))
            sizes.append(try reply.integer("offset"))
        }
        return sizes
    }

    /// Resident bytes of a process.
    static func residentBytes(of pid: pid_t) -> Int {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8)) ?? ""
        let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
    }

    /// Processor time since its start.
    static func cpuMilliseconds(of pid: pid_t) -> Int {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
        let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 12, let user = Int(fields[11]), let system = Int(fields[12]) else { return 0 }
        return (user + system) * 1000 / Int(sysconf(Int32(_SC_CLK_TCK)))
    }

    static func children(of parent: pid_t) -> [pid_t] {
        let text = (try? String(contentsOfFile: "/proc/\(parent)/task/\(parent)/children", encoding: .utf8)) ?? ""
        var found = text.split(separator: " ").compactMap { pid_t($0) }
        // A child belongs to the thread that made it.
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(parent)/task")) ?? []
        for thread in threads where thread != String(parent) {
            let text = (try? String(contentsOfFile: "/proc/\(parent)/task/\(thread)/children", encoding: .utf8)) ?? ""
            found += text.split(separator: " ").compactMap { pid_t($0) }
        }
        return found
    }

    private static func executable(of pid: pid_t) -> String {
        let path = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/exe")) ?? ""
        return (path as NSString).lastPathComponent
    }
}
