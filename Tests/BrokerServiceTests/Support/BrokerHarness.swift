import BrokerService
import Foundation
import LinuxSystem
import Logging
import MessageStore
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import TestFolders
import TestTools
import WorkerProtocol

/// A broker on a store of its own in a temporary folder, behind a server on a free loopback port.
final class BrokerHarness: @unchecked Sendable {
    // Broker and server are touched only on the event loop, through `onLoop`.
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let folder: URL
    let platform = TestPlatform()
    private var hosted: Broker?
    private var hostedServer: RemotingServer?
    private(set) var port = 0
    private var hasEnded = false

    static let golden: [(String, String)] = [
        ("brokerName", "broker-a"), ("brokerIP1", "127.0.0.2"), ("brokerIP2", "127.0.0.2"), ("listenPort", "31911"),
        ("haListenPort", "31912"),
    ]

    init(
        _ settings: [(String, String)] = [], folder: URL? = nil, disk: any Disk = RealDisk(),
        clock: ShiftedClock? = nil, steady: ShiftedClock? = nil,
        log: LogLines? = nil, beforeOpen: (@Sendable (Broker) -> Void)? = nil,
        prepare: (@Sendable (Broker) -> Void)? = nil,
        onPlatform: (@Sendable (TestPlatform, Broker) -> Void)? = nil
    ) throws {
        self.folder = try folder ?? TestFolder.make("broker")
        let pairs =
            Self.golden + [("storePathRootDir", self.folder.path), ("mappedFileSizeCommitLog", "16777216")] + settings
        let loop = group.next()
        let serving: EventLoopFuture<Void> = loop.flatSubmit { [self] in
            do {
                var logger = Logger(label: "broker-test")
                logger.logLevel = .critical
                if let log { logger = Logger(label: "broker-test") { _ in log } }
                let table = Dictionary(pairs, uniquingKeysWith: { $1 })
                let store = MessageStore(
                    configuration: try StoreConfiguration(storePathRootDir: self.folder.path) { table[$0] }, disk: disk,
                    logger: logger, executor: { loop.execute($0) })
                let broker = try Broker(
                    configuration: try BrokerConfiguration(pairs), store: store, disk: disk, eventLoop: loop,
                    logger: logger,
                    now: clock.map { clock in { Clock.nowMilliseconds() + clock.shift } } ?? Clock.nowMilliseconds,
                    steady: steady.map { steady in { Clock.steadyMilliseconds() + steady.shift } }
                        ?? Clock.steadyMilliseconds)
                hosted = broker
                let server = RemotingServer(
                    eventLoop: loop, service: broker, logger: logger, endOfTick: { broker.endOfTick() })
                hostedServer = server
                platform.server = server
                beforeOpen?(broker)
                try broker.open(on: platform)
                prepare?(broker)
                onPlatform?(platform, broker)
                broker.start()
                return server.bind(host: "127.0.0.1", port: 0)
            } catch {
                return loop.makeFailedFuture(error)
            }
        }
        try serving.wait()
        port = try loop.submit { self.server.localAddresses.first?.port ?? 0 }.wait()
    }

    private var broker: Broker {
        guard let hosted else { preconditionFailure("the broker has not started") }
        return hosted
    }

    private var server: RemotingServer {
        guard let hostedServer else { preconditionFailure("the server has not started") }
        return hostedServer
    }

    func onLoop<Value: Sendable>(_ work: @escaping @Sendable (Broker) throws -> Value) throws -> Value {
        try group.next().submit { try work(self.broker) }.wait()
    }

    /// As the worker does on SIGTERM; the folder stays. Once: its loop has ended then.
    func drain() throws {
        guard !hasEnded else { return }
        hasEnded = true
        try group.next().flatSubmit { self.broker.drain { self.server.close() } }.wait()
        try group.syncShutdownGracefully()
    }

    /// Drains it and gives its clients' connections away, with what they said; the folder stays.
    func handOver() throws -> (connections: [Int32], clients: [UInt8]?) {
        hasEnded = true
        let given = NIOLockedValueBox<([Int32], [UInt8]?)>(([], nil))
        try group.next().flatSubmit { [self] in
            broker.drain(
                stopReading: { self.server.stopReading() },
                close: {
                    self.server.flush()
                    var clients = ClientHandOver()
                    let connections = self.server.handOver(atMost: 100, each: { clients.add($0) })
                    given.withLockedValue { $0 = (connections, clients.bytes) }
                    return self.server.close()
                })
        }.wait()
        try group.syncShutdownGracefully()
        return given.withLockedValue { $0 }
    }

    func adopt(_ given: (connections: [Int32], clients: [UInt8]?)) throws {
        try group.next().submit { [self] in
            if let clients = given.clients { broker.expect(clients: clients) }
            for connection in given.connections { server.adopt(connection: connection) }
        }.wait()
    }

    /// Waits until all messages are on disk.
    func flush() throws {
        try onLoop { $0.store.requestFlush() }
        try eventually("all messages are on disk") { try onLoop { $0.store.flushedOffset >= $0.store.writtenOffset } }
    }

    /// Ends it and removes the folder.
    func end() throws {
        try drain()
        try FileManager.default.removeItem(at: folder)
    }

    func connect() throws -> RawConnection { try RawConnection(port: port) }
}

/// A broker's clock that the test moves. Touched only on the event loop.
final class ShiftedClock: @unchecked Sendable {
    /// Milliseconds the broker believes it is later than it is.
    var shift: Int64 = 0
}

/// Keeps what is logged from `warning` on.
struct LogLines: LogHandler {
    private final class Lines: @unchecked Sendable {
        let lock = NSLock()
        var lines: [String] = []
    }

    private let kept = Lines()
    var logLevel = Logger.Level.warning
    var metadata = Logger.Metadata()

    var lines: [String] { kept.lock.withLock { kept.lines } }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        kept.lock.withLock { kept.lines.append("\(event.message)") }
    }
}

/// A blocking connection that sends and receives whole frames as bytes.
final class RawConnection {
    private let descriptor: Int32
    private var received: [UInt8] = []
    private var opaque: Int32 = 0

    struct TimedOut: Error {}
    struct Closed: Error {}

    init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw Closed() }
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4)
    }

    deinit { Foundation.close(descriptor) }

    func close() { shutdown(descriptor, Int32(SHUT_RDWR)) }

    func send(_ bytes: [UInt8]) throws {
        var offset = 0
        while offset < bytes.count {
            let count = bytes[offset...].withUnsafeBytes {
                Foundation.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw Closed() }
            offset += count
        }
    }

    /// The next frame, whichever request it answers.
    func receive(timeoutMilliseconds: Int32 = 5000) throws -> RemotingCommand {
        while true {
            if received.count >= 4 {
                let length = received[0..<4].reduce(0) { $0 << 8 | Int($1) } + 4
                if received.count >= length {
                    let frame = Array(received[..<length])
                    received.removeFirst(length)
                    return try frame.withUnsafeBytes { try RemotingCommand(decoding: $0) }
                }
            }
            var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard Foundation.poll(&poll, 1, timeoutMilliseconds) > 0 else { throw TimedOut() }
            var chunk = [UInt8](repeating: 0, count: 65_536)
            let count = recv(descriptor, &chunk, chunk.count, 0)
            guard count > 0 else { throw Closed() }
            received.append(contentsOf: chunk[..<count])
        }
    }

    /// Sends a request without waiting; returns its opaque.
    @discardableResult
    func post(
        _ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = [], oneway: Bool = false,
        serialization: HeaderSerialization = .json
    ) throws -> Int32 {
        opaque += 1
        var command = RemotingCommand(code, extFields: fields, body: body)
        command.opaque = opaque
        command.language = .java
        if oneway { command.flag = RemotingFrame.onewayFlag }
        var buffer = ByteBuffer()
        command.encode(into: &buffer, serialization: serialization)
        try send(Array(buffer.readableBytesView))
        return opaque
    }

    /// A request as it goes over the wire.
    static func bytes(_ command: RemotingCommand) -> [UInt8] {
        var buffer = ByteBuffer()
        command.encode(into: &buffer, serialization: .json)
        return Array(buffer.readableBytesView)
    }

    /// The same for a request that is made up otherwise.
    func invoke(_ command: RemotingCommand) throws -> RemotingCommand {
        opaque += 1
        var command = command
        command.opaque = opaque
        var buffer = ByteBuffer()
        command.encode(into: &buffer, serialization: .json)
        try send(Array(buffer.readableBytesView))
        while true {
            let answer = try receive()
            if answer.isResponse, answer.opaque == command.opaque { return answer }
        }
    }

    /// Sends a request and gives its answer; frames for others (broker to client requests) are passed over.
    func invoke(
        _ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = [],
        serialization: HeaderSerialization = .json
    ) throws -> RemotingCommand {
        let opaque = try post(code, fields, body: body, serialization: serialization)
        while true {
            let answer = try receive()
            if answer.isResponse, answer.opaque == opaque { return answer }
        }
    }

    // MARK: - Shorthands

    func send(
        topic: String, queueID: Int32 = 0, body: String = "hello", properties: String = "", group: String = "P",
        defaultTopic: String = "TBW102"
    ) throws -> RemotingCommand {
        try invoke(
            .sendMessageV2,
            [
                "a": group, "b": topic, "c": defaultTopic, "d": "4", "e": String(queueID), "f": "0",
                "g": "1700000000000", "h": "0", "i": properties, "j": "0", "k": "false", "m": "false",
            ], body: Array(body.utf8))
    }

    static func pullFields(
        topic: String, queueID: Int32 = 0, offset: Int64 = 0, group: String = "G", subscription: String = "*",
        type: String = "TAG", suspendMilliseconds: Int64 = 0, count: Int = 32
    ) -> [String: String] {
        [
            "consumerGroup": group, "topic": topic, "queueId": String(queueID), "queueOffset": String(offset),
            "maxMsgNums": String(count), "sysFlag": suspendMilliseconds > 0 ? "6" : "4", "commitOffset": "0",
            "suspendTimeoutMillis": String(suspendMilliseconds), "subscription": subscription, "subVersion": "0",
            "expressionType": type,
        ]
    }
}
