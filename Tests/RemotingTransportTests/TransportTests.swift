import Glibc
import Logging
import NIOCore
import NIOPosix
import RemotingProtocol
import Synchronization
import TestTools
import Testing

@testable import RemotingTransport

/// Answers every request with its body and counts what happens; confined to the event loop except for the counters.
final class EchoService: RemotingService, Sendable {
    let received = Atomic(0)
    let opened = Atomic(0)
    let closed = Atomic(0)
    let ticks = Atomic(0)
    /// Bytes of body to answer with instead of the request's own.
    let answerBytes = Atomic(0)
    /// Bytes of a frame at most.
    let largest = Atomic(RemotingLimits.frameBytes)

    var frameBytesMax: Int { self.largest.load(ordering: .relaxed) }

    func connectionOpened(_ connection: RemotingConnection) {
        self.opened.add(1, ordering: .relaxed)
    }

    func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        self.received.add(1, ordering: .relaxed)
        switch frame.code {
        case RequestCode.notifyConsumerIDsChanged.rawValue:
            // Turns the question round: asks the client, then answers with what it said.
            let address = frame.returnAddress
            let loopBound = NIOLoopBound(connection, eventLoop: connection.eventLoop)
            connection.request(RemotingCommand(.getConsumerRunningInfo), timeout: .milliseconds(300)).whenComplete {
                switch $0 {
                case .success(let answer):
                    loopBound.value.respond(to: address, .success, body: answer.body)
                case .failure(let error):
                    loopBound.value.respond(to: address, .consumeMessageTimeout, remark: "\(error)")
                }
            }
        case RequestCode.heartBeat.rawValue:
            let bytes = self.answerBytes.load(ordering: .relaxed)
            let body = bytes > 0 ? [UInt8](repeating: 1, count: bytes) : [UInt8](frame.body)
            connection.respond(
                to: frame.returnAddress, .success, fields: frame.extFields.dictionary().map { ($0.key, $0.value) },
                body: body)
        default: connection.respondNotSupported(to: frame)
        }
    }

    func connectionClosed(_ connection: RemotingConnection) {
        self.closed.add(1, ordering: .relaxed)
    }
}

/// An echo server on a free port of the loopback.
final class EchoServer: Sendable {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let service = EchoService()
    let log = LogLines()
    let port: Int
    private let server: NIOLoopBound<RemotingServer>

    init(_ configuration: RemotingServerConfiguration = RemotingServerConfiguration()) async throws {
        let eventLoop = self.group.next()
        let (service, log) = (self.service, self.log)
        let server = try await eventLoop.submit {
            let server = RemotingServer(
                eventLoop: eventLoop, service: service, configuration: configuration,
                logger: Logger(label: "echo", factory: { _ in log }),
                endOfTick: { service.ticks.add(1, ordering: .relaxed) })
            return NIOLoopBound(server, eventLoop: eventLoop)
        }.get()
        try await eventLoop.flatSubmit { server.value.bind(host: "127.0.0.1", port: 0) }.get()
        self.port = try await eventLoop.submit { server.value.localAddresses.first?.port ?? 0 }.get()
        self.server = server
    }

    func connectionCount() async throws -> Int {
        let server = self.server
        return try await self.group.next().submit { server.value.connectionCount }.get()
    }

    func listener() async throws -> any Channel {
        let server = self.server
        return try await self.group.next().submit { try #require(server.value.listeners.first) }.get()
    }

    func client(
        _ serialization: HeaderSerialization = .json, inbound: InboundRequestHandler? = nil
    ) async throws -> RemotingClient {
        try await RemotingClient.connect(
            host: "127.0.0.1", port: self.port, group: self.group, serialization: serialization, inbound: inbound)
    }

    func stop() async throws {
        let server = self.server
        try await self.group.next().flatSubmit { server.value.close() }.get()
        try await self.group.shutdownGracefully()
    }
}

/// Keeps what is logged.
final class LogLines: LogHandler, Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { self.lines.withLock { $0 } }
    func contains(_ text: String) -> Bool { self.all.contains { $0.contains(text) } }

    func log(event: LogEvent) {
        let fields = (event.metadata ?? [:]).map { "\($0.key)=\($0.value)" }.sorted().joined(separator: " ")
        self.lines.withLock { $0.append("\(event.message) \(fields)") }
    }

    subscript(metadataKey _: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }
    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    var logLevel: Logger.Level {
        get { .trace }
        set {}
    }
}

@Suite("requests and answers between server and client", .timeLimit(.minutes(2)))
struct TransportTests {
    static func request(_ body: [UInt8], _ fields: [String: String] = [:]) -> RemotingCommand {
        RemotingCommand(.heartBeat, extFields: fields, body: body)
    }

    @Test(
        "many requests at once find their answers, in both serializations",
        arguments: [
            HeaderSerialization.json, .rocketMQ,
        ])
    func concurrent(serialization: HeaderSerialization) async throws {
        let server = try await EchoServer()
        let client = try await server.client(serialization)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for index in 0..<500 {
                group.addTask {
                    let body = [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: index * 7)
                    let answer = try await client.invokeSuccessfully(Self.request(body, ["n": "\(index)\u{1}中\""]))
                    return answer.body == body && answer.extFields["n"] == "\(index)\u{1}中\""
                }
            }
            for try await isRight in group {
                #expect(isRight)
            }
        }
        // All frames of a read share a tick: far fewer ticks than requests.
        #expect(server.service.ticks.load(ordering: .relaxed) < 500)
        await client.close()
        try await eventually("the connection's end") { try await server.connectionCount() == 0 }
        #expect(server.service.closed.load(ordering: .relaxed) == 1)
        try await server.stop()
    }

    @Test("bodies up to the limit of a frame pass")
    func largeBodies() async throws {
        let server = try await EchoServer()
        let client = try await server.client()
        for count in [1, 65_536, 4 << 20, (16 << 20) - 1024] {
            let body = [UInt8](repeating: 0x61, count: count)
            #expect(try await client.invoke(Self.request(body), timeout: .seconds(20)).body.count == count)
        }
        await client.close()
        try await server.stop()
    }

    @Test("unknown codes are answered with 3, one-way requests not at all, and the connection stays")
    func unknownAndOneway() async throws {
        let server = try await EchoServer()
        let client = try await server.client()
        let unknown = try await client.invoke(RemotingCommand(code: 9999))
        #expect(unknown.code == 3)
        #expect(unknown.remark == " request type 9999 not supported")
        try await client.oneway(RemotingCommand(code: 9999))
        try await client.oneway(Self.request([1]))
        #expect(try await client.invoke(Self.request([2])).body == [2])
        #expect(server.service.received.load(ordering: .relaxed) == 4)
        #expect(client.isActive)
        await client.close()
        try await server.stop()
    }

    @Test("a server asks its client; a client that says nothing is a time-out")
    func inbound() async throws {
        let server = try await EchoServer()
        let talking = try await server.client { request in
            #expect(request.requestCode == .getConsumerRunningInfo)
            return .response(.success, body: [7, 7])
        }
        #expect(try await talking.invoke(RemotingCommand(.notifyConsumerIDsChanged)).body == [7, 7])
        let silent = try await server.client { _ in nil }
        let answer = try await silent.invoke(RemotingCommand(.notifyConsumerIDsChanged))
        #expect(answer.responseCode == .consumeMessageTimeout)
        #expect(answer.remark?.contains("did not answer request 307 within 300 ms") == true)
        // Without a handler the client answers for itself.
        let plain = try await server.client()
        #expect(try await plain.invoke(RemotingCommand(.notifyConsumerIDsChanged)).code == 0)
        await talking.close()
        await silent.close()
        await plain.close()
        try await server.stop()
    }

    @Test("a client learns of time-outs, of ended connections and of servers that are not there")
    func clientErrors() async throws {
        let server = try await EchoServer()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = try await RemotingClient.connect(to: "127.0.0.1:\(server.port)", group: group) { _ in nil }
        await #expect(throws: RemotingError.self) {
            try await client.invoke(RemotingCommand(.notifyConsumerIDsChanged), timeout: .milliseconds(1))
        }
        let asked = Task { try await client.invoke(RemotingCommand(.notifyConsumerIDsChanged)) }
        try await server.stop()
        _ = await asked.result
        await #expect(throws: RemotingError.self) { try await client.invoke(Self.request([])) }
        let silent = try PortWithoutListener()
        defer { close(silent.descriptor) }
        do {
            _ = try await RemotingClient.connect(to: "127.0.0.1:\(silent.port)", group: group)
            Issue.record("connected to nothing")
        } catch {
            #expect("\(error)".contains("cannot connect to 127.0.0.1:\(silent.port)"))
        }
        await #expect(throws: RemotingError.self) { try await RemotingClient.connect(to: "nonsense", group: group) }
        try await group.shutdownGracefully()
    }
}

/// A port of the loopback address that is taken and where nothing listens. The kernel chooses it: a port that another
/// socket has just given back may belong to another test by now.
private struct PortWithoutListener {
    let descriptor: Int32
    let port: Int

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let failed = withUnsafeMutableBytes(of: &address) {
            let pointer = $0.baseAddress?.assumingMemoryBound(to: sockaddr.self)
            return bind(descriptor, pointer, length) != 0 || getsockname(descriptor, pointer, &length) != 0
        }
        try #require(!failed, "no port can be bound on 127.0.0.1: errno \(errno)")
        port = Int(UInt16(bigEndian: address.sin_port))
    }
}
