import Foundation
import NIOCore
import NIOPosix
import Testing

/// A master that plays what it was given to each connection after its first report, and keeps the reports.
final class RecordedMaster: @unchecked Sendable {
    private let lock = NSLock()
    private var heard: [Int64] = []
    private var accepted = 0
    private var server: (any Channel)?
    private(set) var port = 0

    var reports: [Int64] { lock.withLock { heard } }
    var connections: Int { lock.withLock { accepted } }

    init(pieces: [[UInt8]]) async throws {
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { [weak self] channel in
                channel.eventLoop.makeCompletedFuture {
                    self?.lock.withLock { self?.accepted += 1 }
                    try channel.pipeline.syncOperations.addHandler(
                        RecordedMasterHandler(pieces: pieces) { report in
                            self?.lock.withLock { self?.heard.append(report) }
                        })
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.server = server
        port = server.localAddress?.port ?? 0
    }

    func stop() async throws { try await server?.close() }
}

private final class RecordedMasterHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var pieces: [[UInt8]]
    private var input = ByteBuffer()
    private let report: (Int64) -> Void

    init(pieces: [[UInt8]], report: @escaping (Int64) -> Void) {
        self.pieces = pieces
        self.report = report
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        input.writeBuffer(&bytes)
        while let offset = input.readInteger(as: Int64.self) { report(offset) }
        for piece in pieces { context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: piece)), promise: nil) }
        pieces = []
    }
}

/// A plain blocking socket, for playing a slave.
final class BlockingClient {
    private let fd: Int32
    private var open = true

    init(port: Int) throws {
        fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        address.sin_port = UInt16(port).bigEndian
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(connected == 0, "connect: errno \(errno)")
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { end() }

    func write(_ bytes: [UInt8]) throws {
        try #require(send(fd, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
    }

    func read() throws -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        let count = recv(fd, &buffer, buffer.count, 0)
        try #require(count > 0, "the other side closed or was silent")
        return Array(buffer.prefix(count))
    }

    func end() {
        if open { close(fd) }
        open = false
    }
}
