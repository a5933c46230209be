import Foundation
import LinuxSystem
import Logging
import MessageStore
import NIOCore
import NIOEmbedded
import RemotingProtocol
import Synchronization

@testable import BrokerService
@testable import RemotingTransport

/// The time a simulated broker lives in: that of its event loop, which stands still between steps, and jumps of the
/// wall clock, which the event loop does not see.
final class SimulatedClock: Sendable {
    /// In the year 2027.
    static let start: Int64 = 1_800_000_000_000

    private let jump = Mutex<Int64>(0)
    /// How far earlier loops had come.
    private let past = Mutex<Int64>(0)
    private let loop = Mutex<NIOAsyncTestingEventLoop?>(nil)

    var now: Int64 {
        let passed = loop.withLock { $0.map { Int64($0.now.uptimeNanoseconds / 1_000_000) } ?? 0 }
        return Self.start + past.withLock { $0 } + jump.withLock { $0 } + passed
    }

    /// Milliseconds that no jump changes.
    var steady: Int64 { now - jump.withLock { $0 } }

    func jump(_ milliseconds: Int64) { jump.withLock { $0 += milliseconds } }

    /// Goes on with a new loop, whose own time begins at zero.
    func attach(_ new: NIOAsyncTestingEventLoop) {
        let now = self.now
        loop.withLock { $0 = new }
        past.withLock { $0 = now - Self.start - jump.withLock { $0 } }
    }
}

/// The store's threads, simulated: done when it is asked for.
private final class DoneAtOnce: StoreBackground {
    func submit(_ thread: StoreBackgroundThread, _ work: @escaping @Sendable () -> Void) { work() }
    func stop() {}
}

/// The timer files' thread, simulated: done when it is asked for, the answer comes with a turn of the loop of its own.
private final class TimerFilesDoneAtOnce: BackgroundWork {
    private let loop: NIOAsyncTestingEventLoop

    init(_ loop: NIOAsyncTestingEventLoop) { self.loop = loop }

    func submit<Result: Sendable>(_ work: @escaping @Sendable () -> Result, then: @escaping (Result) -> Void) {
        let result = work()
        let then = NIOLoopBound(then, eventLoop: loop)
        loop.execute { then.value(result) }
    }

    func stop() {}
}

/// A broker in simulated time on a real store: no socket, no waiting; a step of the loop's time runs exactly what is
/// due in it.
final class SimulatedBroker: @unchecked Sendable {
    // Broker and server are touched on the loop only.
    let loop = NIOAsyncTestingEventLoop()
    let folder: URL
    let clock: SimulatedClock
    private let platform = TestPlatform()
    private var hosted: Broker?
    private var server: RemotingServer?
    private var connections: UInt64 = 0
    private let channels = Mutex<[NIOAsyncTestingChannel]>([])

    struct NotStarted: Error {}

    init(_ settings: [(String, String)], folder: URL, clock: SimulatedClock) async throws {
        self.folder = folder
        self.clock = clock
        clock.attach(loop)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let pairs =
            BrokerHarness.golden + [("storePathRootDir", folder.path), ("mappedFileSizeCommitLog", "16777216")]
            + settings
        let loop = loop
        try await loop.executeInContext { [self] in
            var logger = Logger(label: "simulated-broker")
            logger.logLevel = .critical
            let table = Dictionary(pairs, uniquingKeysWith: { $1 })
            let store = MessageStore(
                configuration: try StoreConfiguration(storePathRootDir: folder.path) { table[$0] }, disk: RealDisk(),
                logger: logger, background: DoneAtOnce(), clock: { clock.now },
                executor: { loop.execute($0) })
            let broker = try Broker(
                configuration: try BrokerConfiguration(pairs), store: store, disk: RealDisk(), eventLoop: loop,
                logger: logger, work: TimerFilesDoneAtOnce(loop), now: { clock.now }, steady: { clock.steady })
            let server = RemotingServer(
                eventLoop: loop, service: broker, logger: logger, endOfTick: { broker.endOfTick() })
            platform.server = server
            try broker.open(on: platform)
            broker.start()
            self.hosted = broker
            self.server = server
        }
        await loop.run()
    }

    func onLoop<Value: Sendable>(_ work: @escaping @Sendable (Broker) throws -> Value) async throws -> Value {
        try await loop.executeInContext {
            guard let broker = self.hosted else { throw NotStarted() }
            return try work(broker)
        }
    }

    func connect() async throws -> SimulatedClient {
        connections += 1
        let id = connections
        let channel = NIOAsyncTestingChannel(loop: loop)
        try await loop.executeInContext {
            guard let server = self.server else { throw NotStarted() }
            let connection = RemotingConnection(id: id, channel: channel, server: server)
            try channel.pipeline.syncOperations.addHandler(
                RemotingServerHandler(connection: connection, server: server))
        }
        channels.withLock { $0.append(channel) }
        try await channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 20_000 + Int(id))).get()
        return SimulatedClient(channel: channel, loop: loop)
    }

    /// What store and timer files have done comes back to the loop, and what follows from it. Nothing here is a matter
    /// of speed: there are no other threads.
    func settle() async {
        for _ in 0..<3 { await loop.run() }
    }

    /// As `kill -9` leaves it, or a clean stop. The broker is of no use afterwards.
    func end(cleanly: Bool) async throws {
        let loop = loop
        let drained = try await onLoop { broker in broker.drain { loop.makeSucceededVoidFuture() } }
        let done = Mutex(false)
        drained.whenComplete { _ in done.withLock { $0 = true } }
        for _ in 0..<2000 where !done.withLock({ $0 }) {
            await loop.advanceTime(by: .milliseconds(5))
        }
        // A connection that outlived its loop would have something to do on it.
        for channel in channels.withLock({ $0 }) { try? await channel.close().get() }
        await settle()
        try await loop.executeInContext {
            self.hosted = nil
            self.server = nil
        }
    }
}

/// A client of a simulated broker: whole frames in, whole frames out, at a standstill of time.
final class SimulatedClient: @unchecked Sendable {
    private let channel: NIOAsyncTestingChannel
    private let loop: NIOAsyncTestingEventLoop
    private var opaque: Int32 = 0
    private var bytes = ByteBuffer()
    /// Requests of the broker that came.
    private(set) var requests: [RemotingCommand] = []
    private var answers: [Int32: RemotingCommand] = [:]

    struct NoAnswer: Error {}

    init(channel: NIOAsyncTestingChannel, loop: NIOAsyncTestingEventLoop) {
        self.channel = channel
        self.loop = loop
    }

    /// Whether the broker has not ended the connection.
    var isOpen: Bool { channel.isActive }

    func close() async { try? await channel.close().get() }

    private func frames() async throws -> [RemotingCommand] {
        await loop.run()
        while let data: IOData = try await channel.readOutbound() {
            if case .byteBuffer(var buffer) = data { bytes.writeBuffer(&buffer) }
        }
        var frames: [RemotingCommand] = []
        while let length = bytes.getInteger(at: bytes.readerIndex, as: Int32.self),
            let frame = bytes.readBytes(length: Int(length) + 4)
        {
            frames.append(try frame.withUnsafeBytes { try RemotingCommand(decoding: $0) })
        }
        return frames
    }

    /// Takes what the broker has asked since.
    func takeRequests() async throws -> [RemotingCommand] {
        requests += try await frames().filter { !$0.isResponse }
        defer { requests = [] }
        return requests
    }

    func oneway(_ code: RequestCode, _ fields: [String: String]) async throws {
        var command = RemotingCommand(code, extFields: fields)
        command.flag = RemotingFrame.onewayFlag
        var buffer = ByteBuffer()
        command.encode(into: &buffer)
        try await channel.writeInbound(buffer)
        await loop.run()
    }

    /// Sends a request whose answer may take long; its number.
    func post(_ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = []) async throws -> Int32 {
        opaque += 1
        var command = RemotingCommand(code, extFields: fields, body: body)
        command.opaque = opaque
        command.language = .java
        var buffer = ByteBuffer()
        command.encode(into: &buffer)
        try await channel.writeInbound(buffer)
        return opaque
    }

    /// Sends a request and is gone before the tick it has come in ends: nothing can be answered.
    func postAndClose(_ code: RequestCode, _ fields: [String: String]) async throws {
        opaque += 1
        var command = RemotingCommand(code, extFields: fields)
        command.opaque = opaque
        command.language = .java
        var buffer = ByteBuffer()
        command.encode(into: &buffer)
        let (channel, request) = (channel, buffer)
        try await loop.executeInContext {
            channel.pipeline.fireChannelRead(request)
            channel.pipeline.fireChannelInactive()
        }
        await loop.run()
    }

    /// Takes answers to posted requests that have come since, by number.
    func takeAnswers() async throws -> [Int32: RemotingCommand] {
        for frame in try await frames() {
            if frame.isResponse { answers[frame.opaque] = frame } else { requests.append(frame) }
        }
        defer { answers = [:] }
        return answers
    }

    func invoke(_ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = []) async throws
        -> RemotingCommand
    {
        let opaque = try await post(code, fields, body: body)
        for _ in 0..<200 {
            var answer: RemotingCommand?
            for frame in try await frames() {
                if !frame.isResponse {
                    requests.append(frame)
                } else if frame.opaque == opaque {
                    answer = frame
                } else {
                    answers[frame.opaque] = frame
                }
            }
            if let answer { return answer }
            // An answer that waits for what the store does in turns of its own.
            await loop.run()
        }
        throw NoAnswer()
    }

    /// A request that is worked on in slices: a millisecond passes before each.
    func invokeSliced(
        _ code: RequestCode, _ fields: [String: String], body: [UInt8] = []
    ) async throws -> RemotingCommand {
        let opaque = try await post(code, fields, body: body)
        for _ in 0..<200 {
            if let answer = try await takeAnswers()[opaque] { return answer }
            await loop.advanceTime(by: .milliseconds(1))
        }
        throw NoAnswer()
    }

    func send(_ topic: String, queue: Int32 = 0, body: String, _ properties: [String: String], group: String = "P")
        async throws -> RemotingCommand
    {
        let text = properties.sorted { $0.key < $1.key }.map { "\($0.key)\u{1}\($0.value)" }.joined(separator: "\u{2}")
        return try await invoke(
            .sendMessageV2,
            [
                "a": group, "b": topic, "c": "TBW102", "d": "4", "e": String(queue), "f": "0", "g": "1700000000000",
                "h": "0", "i": text, "j": "0", "k": "false", "m": "false",
            ], body: Array(body.utf8))
    }

    func pull(_ topic: String, queue: Int32 = 0, from offset: Int64) async throws -> [MessageExt] {
        let answer = try await invoke(
            .pullMessage, RawConnection.pullFields(topic: topic, queueID: queue, offset: offset))
        return answer.code == 0 ? try MessageExt.decodeAll(answer.body) : []
    }
}
