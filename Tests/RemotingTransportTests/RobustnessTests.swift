import Glibc
import NIOCore
import RemotingProtocol
import RemotingTransport
import Synchronization
import TestTools
import Testing

let noSignal = Int32(MSG_NOSIGNAL)

/// A blocking TCP connection that sends what no client would.
final class RawConnection {
    let descriptor: Int32

    /// - Parameter source: where it comes from: any address of 127.0.0.0/8 is this machine's.
    init(port: Int, receiveBufferBytes: Int32? = nil, source: UInt32? = nil) throws {
        self.descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        try #require(self.descriptor >= 0)
        if var bytes = receiveBufferBytes {
            setsockopt(self.descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, socklen_t(MemoryLayout<Int32>.size))
        }
        var timeout = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(self.descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(self.descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        if let source {
            // Without a port of its own until it connects: so many addresses would use them up.
            var on: Int32 = 1
            setsockopt(self.descriptor, Int32(IPPROTO_IP), IP_BIND_ADDRESS_NO_PORT, &on, 4)
            try #require(Self.with(source, 0) { bind(self.descriptor, $0, $1) } == 0)
        }
        try #require(Self.with(0x7f00_0001, port) { connect(self.descriptor, $0, $1) } == 0)
    }

    private static func with(
        _ ip: UInt32, _ port: Int, _ call: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = ip.bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { call($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    /// The peer has closed; asks without waiting.
    var isClosedByPeer: Bool {
        var byte: UInt8 = 0
        let count = recv(self.descriptor, &byte, 1, Int32(MSG_DONTWAIT) | Int32(MSG_PEEK))
        return count == 0 || (count < 0 && errno == ECONNRESET)
    }

    deinit { close(self.descriptor) }

    /// False when the peer has closed.
    @discardableResult
    func send(_ bytes: [UInt8]) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(
                    self.descriptor, $0.baseAddress.map { $0 + offset }, bytes.count - offset,
                    noSignal)
            }
            guard count > 0 else { return false }
            offset += count
        }
        return true
    }

    enum End { case closed, silent }

    /// Reads until the peer closes or says nothing for 5 s.
    func readToEnd() -> (bytes: [UInt8], end: End) {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(self.descriptor, &buffer, buffer.count, 0)
            if count == 0 || (count < 0 && errno == ECONNRESET) { return (all, .closed) }
            if count < 0 { return (all, .silent) }
            all += buffer[..<count]
        }
    }

    func read(count: Int) -> [UInt8] {
        var all = [UInt8](repeating: 0, count: count)
        var offset = 0
        while offset < count {
            let got = all.withUnsafeMutableBytes {
                recv(self.descriptor, $0.baseAddress.map { $0 + offset }, count - offset, 0)
            }
            guard got > 0 else { break }
            offset += got
        }
        return Array(all[..<offset])
    }
}

func bytes(_ command: RemotingCommand) -> [UInt8] {
    var buffer = ByteBuffer()
    command.encode(into: &buffer)
    return Array(buffer: buffer)
}

/// Resident bytes of this process.
func residentBytes() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    guard fgets(&line, 256, file) != nil else { return 0 }
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
}

@Suite("peers that break the rules", .serialized, .timeLimit(.minutes(2)))
struct RobustnessTests {
    static func word(_ value: Int32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

    /// Bytes, and what the log says of them.
    static let notFrames: [(bytes: [UInt8], reason: String)] = [
        (word(0x7fff_ffff), "frame length 2147483647 is not within"),
        (word(-1) + [0, 0, 0, 0], "frame length -1 is not within"),
        (word(0), "frame length 0 is not within"),
        (Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), "looks like HTTP/1: no HTTP is served here"),
        (word(8) + [0, 0, 0xff, 0xff, 0, 0, 0, 0], "header length 65535 does not fit its frame"),
        (word(6) + [7, 0, 0, 2, 0x7b, 0x7d], "header serialization 7 is neither"),
        (word(6) + [0, 0, 0, 2, 0x7b, 0x7d], "the header cannot be read at its byte 2"),
    ]

    @Test("what is no frame closes the connection, with the reason logged", arguments: notFrames.indices)
    func refused(index: Int) async throws {
        let (bytes, reason) = Self.notFrames[index]
        let server = try await EchoServer()
        let raw = try RawConnection(port: server.port)
        raw.send(bytes)
        #expect(raw.readToEnd().end == .closed)
        try await eventually("a logged reason") { server.log.contains(reason) }
        #expect(server.log.contains("127.0.0.1:"))
        let client = try await server.client()
        #expect(try await client.invoke(TransportTests.request([5])).body == [5])
        await client.close()
        try await server.stop()
    }

    @Test("random bytes never harm the server")
    func randomBytes() async throws {
        let server = try await EchoServer()
        let seed = UInt64.random(in: 0...UInt64.max)
        print("random bytes: seed \(seed)")
        var state = seed
        for round in 0..<200 {
            let raw = try RawConnection(port: server.port)
            var junk: [UInt8] = []
            for _ in 0..<(1 + round * 5) {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                junk.append(UInt8(truncatingIfNeeded: state >> 33))
            }
            // Half of them have a plausible length, so that the header parser is reached.
            if round % 2 == 0 {
                junk =
                    Self.word(Int32(junk.count + 4)) + [UInt8(round / 2 % 2), 0]
                    + withUnsafeBytes(
                        of: UInt16(junk.count / 2).bigEndian
                    ) { Array($0) } + junk
            }
            raw.send(junk)
        }
        let client = try await server.client()
        #expect(try await client.invoke(TransportTests.request([5])).body == [5])
        await client.close()
        try await eventually("the end of all connections") { try await server.connectionCount() == 0 }
        try await server.stop()
    }

    @Test("frames cut at every byte are put together")
    func splits() async throws {
        let server = try await EchoServer()
        let one = bytes(TransportTests.request([1, 2, 3], ["k": "v"]))
        let raw = try RawConnection(port: server.port)
        raw.send(one)
        var reply = raw.read(count: 4)
        let replyBytes = 4 + reply.reduce(0) { $0 << 8 | Int($1) }
        reply += raw.read(count: replyBytes - 4)
        // The answers differ in nothing: the same opaque each time.
        for cut in stride(from: 1, to: one.count, by: 3) {
            raw.send(Array(one[..<cut]))
            // Time passes, so that the first part is read alone: what was read of a frame shows nowhere.
            try await Task.sleep(for: .milliseconds(2))
            raw.send(Array(one[cut...]) + one + one)
            #expect(raw.read(count: replyBytes * 3) == reply + reply + reply)
        }
        try await server.stop()
    }

    @Test("a frame that is not complete in time ends its connection, however the bytes trickle")
    func slowLoris() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.frameTimeout = .milliseconds(300)
        configuration.sweepInterval = .milliseconds(50)
        let server = try await EchoServer(configuration)
        let frame = bytes(TransportTests.request([UInt8](repeating: 0, count: 1000)))
        let raw = try RawConnection(port: server.port)
        let patient = try RawConnection(port: server.port)
        var sent = 0
        while sent < frame.count, raw.send([frame[sent]]) {
            sent += 1
            // Time passes: the bytes trickle.
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(sent < frame.count)
        #expect(server.log.contains("a frame was not complete in time"))
        // Who says nothing at all is idle, not slow.
        #expect(patient.send(frame))
        #expect(patient.read(count: 4).count == 4)
        try await server.stop()
    }

    @Test("an idle connection is closed after its time")
    func idle() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.idleTimeout = .milliseconds(200)
        configuration.sweepInterval = .milliseconds(50)
        let server = try await EchoServer(configuration)
        let raw = try RawConnection(port: server.port)
        #expect(raw.readToEnd().end == .closed)
        try await server.stop()
    }

    @Test("a client that never reads is read from no more, and closed after its time; memory stays bounded")
    func neverReads() async {
        // Alone in a process: what tests beside it take would be counted as well.
        await #expect(processExitsWith: .success) { try await RobustnessTests().neverReadsAlone() }
    }

    private func neverReadsAlone() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.outboundHighWaterBytes = 1 << 20
        configuration.stallTimeout = .milliseconds(1500)
        configuration.sweepInterval = .milliseconds(100)
        let server = try await EchoServer(configuration)
        server.service.answerBytes.store(100_000, ordering: .relaxed)
        let raw = try RawConnection(port: server.port, receiveBufferBytes: 4096)
        let requests = (0..<10_000).flatMap { _ in bytes(TransportTests.request([])) }
        let before = residentBytes()
        let descriptor = raw.descriptor
        // 10 000 requests ask for 1 GB of answers.
        let sender = Task.detached {
            _ = requests.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, noSignal) }
        }
        // Time passes, in which it could read on.
        try await Task.sleep(for: .milliseconds(800))
        #expect(residentBytes() - before < 256 << 20)
        #expect(server.service.received.load(ordering: .relaxed) < 500)
        // Others are served meanwhile.
        let client = try await server.client()
        #expect(try await client.invoke(TransportTests.request([])).body.count == 100_000)
        await client.close()
        try await eventually("the stalled connection's end") { try await server.connectionCount() == 0 }
        #expect(server.log.contains("takes no answers"))
        await sender.value
        try await server.stop()
    }

    @Test("a slow reader is held back and then gets every answer, in order")
    func slowReader() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.outboundHighWaterBytes = 256 << 10
        let server = try await EchoServer(configuration)
        server.service.answerBytes.store(10_000, ordering: .relaxed)
        let raw = try RawConnection(port: server.port, receiveBufferBytes: 8192)
        let count = 3000
        let requests = (0..<count).map { index in
            var request = TransportTests.request([])
            request.opaque = Int32(index)
            return bytes(request)
        }
        let descriptor = raw.descriptor
        let all = requests.flatMap { $0 }
        let sender = Task.detached {
            var offset = 0
            while offset < all.count {
                let sent = all.withUnsafeBytes {
                    Glibc.send(
                        descriptor, $0.baseAddress.map { $0 + offset }, all.count - offset, noSignal
                    )
                }
                guard sent > 0 else { return }
                offset += sent
            }
        }
        let scratch = HeaderScratch()
        for index in 0..<count {
            if index % 1000 == 0 {
                try await Task.sleep(for: .milliseconds(200))
            }
            var frame = raw.read(count: 4)
            try #require(frame.count == 4)
            frame += raw.read(count: frame.reduce(0) { $0 << 8 | Int($1) })
            let opaque = try frame.withUnsafeBytes { try RemotingFrame.parse($0, scratch: scratch).opaque }
            try #require(opaque == Int32(index))
        }
        await sender.value
        try await server.stop()
    }

    /// In a process of its own: others that run at the same time take memory as well.
    @Test("an idle connection takes less than 20 kB")
    func idleConnections() async {
        await #expect(processExitsWith: .success) {
            let server = try await EchoServer(RemotingServerConfiguration())
            let before = residentBytes()
            var connections: [RawConnection] = []
            for _ in 0..<300 { connections.append(try RawConnection(port: server.port)) }
            try await eventually("300 connections") { try await server.connectionCount() == 300 }
            let bytes = (residentBytes() - before) / 300
            print("an idle connection: \(bytes) bytes resident (both ends' bookkeeping in this process)")
            precondition(bytes < 20_000, "an idle connection takes \(bytes) bytes")
            withExtendedLifetime(connections) {}
            try await server.stop()
        }
    }

    @Test("a thousand connections are served, and one too many is refused")
    func manyConnections() async throws {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        if limit.rlim_cur < 4096 {
            limit.rlim_cur = min(4096, limit.rlim_max)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
        var configuration = RemotingServerConfiguration()
        configuration.connectionsMax = 1000
        let server = try await EchoServer(configuration)
        var connections: [RawConnection] = []
        for _ in 0..<1000 {
            connections.append(try RawConnection(port: server.port))
        }
        try await eventually("a thousand connections") { try await server.connectionCount() == 1000 }
        // Each can still speak. None of them gives way then: see GivingWayTests.
        let request = bytes(TransportTests.request([1]))
        for connection in connections { connection.send(request) }
        for connection in connections { #expect(connection.read(count: 4).count == 4) }
        let extra = try RawConnection(port: server.port)
        #expect(extra.readToEnd().end == .closed)
        #expect(server.log.contains("too many connections"))
        connections = []
        try await eventually("their end") { try await server.connectionCount() == 0 }
        try await server.stop()
    }
}
