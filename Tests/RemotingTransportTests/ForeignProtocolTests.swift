import NIOCore
import RemotingProtocol
import RemotingTransport
import TestTools
import Testing

@Suite("peers that speak something else", .timeLimit(.minutes(1)))
struct ForeignProtocolTests {
    /// First bytes as the programs send them.
    static let openings: [(bytes: [UInt8], name: String)] = [
        (Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), "HTTP/1"), (Array("POST /x HTTP/1.0\r\n\r\n".utf8), "HTTP/1"),
        (Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8), "HTTP/2 or gRPC"),
        ([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], "TLS"), (Array("AMQP\0\0\u{9}\u{1}".utf8), "AMQP"),
        (Array("*1\r\n$4\r\nPING\r\n".utf8), "Redis"), (Array("PING\r\n".utf8), "Redis"),
        // ApiVersions 3 of a Kafka client: length, key 18, version 3, correlation 0, client id "rdkafka".
        ([0, 0, 0, 24, 0, 18, 0, 3, 0, 0, 0, 1, 0, 7] + Array("rdkafka".utf8) + [0, 2, 0x61, 2, 0x31, 0, 0], "Kafka"),
        ([0x10, 16, 0, 4] + Array("MQTT".utf8) + [4, 2, 0, 60, 0, 4] + Array("test".utf8), "MQTT"),
        (Array("SSH-2.0-OpenSSH_9.6\r\n".utf8), "SSH"), (Array("CONNECT {\"verbose\":false}\r\n".utf8), "NATS"),
        (Array("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".utf8), "the PROXY protocol"),
        (
            [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0, 12],
            "the PROXY protocol"
        ),
    ]

    @Test("is closed, and the log says what it looks like and what to do", arguments: openings.indices)
    func told(index: Int) async throws {
        let (bytes, name) = Self.openings[index]
        let server = try await EchoServer()
        let raw = try RawConnection(port: server.port)
        raw.send(bytes)
        #expect(raw.readToEnd().end == .closed)
        try await eventually("a logged protocol") { server.log.contains("looks like \(name)") }
        try await server.stop()
    }

    @Test("a client that has spoken already is told what is wrong with its frame")
    func notAfterAFrame() async throws {
        let server = try await EchoServer()
        let raw = try RawConnection(port: server.port)
        let one = bytes(TransportTests.request([1]))
        raw.send(one)
        #expect(raw.read(count: 4).count == 4)
        raw.send(Array("GET / HTTP/1.1\r\n".utf8))
        try await eventually("a logged reason") { server.log.contains("frame length 1195725856 is not within") }
        #expect(!server.log.contains("looks like"))
        try await server.stop()
    }

    @Test("no request of a client's is taken for something else", arguments: [HeaderSerialization.json, .rocketMQ])
    func notFrames(serialization: HeaderSerialization) {
        for count in [0, 1, 10, 100, 70_000] {
            var buffer = ByteBuffer()
            TransportTests.request([UInt8](repeating: 0, count: count), ["topic": "T"]).encode(
                into: &buffer, serialization: serialization)
            #expect(buffer.withUnsafeReadableBytes { ForeignProtocol.advice($0) } == nil)
        }
    }
}
