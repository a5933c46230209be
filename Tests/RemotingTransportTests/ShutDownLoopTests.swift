import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import Testing

/// A tool may end its event loops while another of its tasks still wants something of a connection: that task is told,
/// and does not wait for ever.
@Suite(.timeLimit(.minutes(1)))
struct ShutDownLoopTests {
    @Test("every call on a client whose event loop has shut down returns, with the reason")
    func client() async throws {
        let server = try await EchoServer()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = try await RemotingClient.connect(host: "127.0.0.1", port: server.port, group: group)
        _ = try await client.invoke(RemotingCommand(.heartBeat))
        try await group.shutdownGracefully()

        let sent = await #expect(throws: RemotingError.self) { try await client.invoke(RemotingCommand(.heartBeat)) }
        guard case .connectionClosed = sent else { return #expect(Bool(false), "\(String(describing: sent))") }
        await #expect(throws: RemotingError.self) { try await client.oneway(RemotingCommand(.heartBeat)) }
        #expect(!client.isActive)
        await client.close()
        try await server.stop()
    }

    @Test("connecting on an event loop that has shut down fails, with the reason")
    func connecting() async throws {
        let server = try await EchoServer()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        try await group.shutdownGracefully()
        let error = await #expect(throws: RemotingError.self) {
            try await RemotingClient.connect(host: "127.0.0.1", port: server.port, group: group)
        }
        #expect("\(try #require(error))".contains("its event loop has shut down"))
        try await server.stop()
    }

    @Test("a request under way when the event loop shuts down fails")
    func underWay() async throws {
        let silentGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let silent = try await ServerBootstrap(group: silentGroup).bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(silent.localAddress?.port)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = try await RemotingClient.connect(host: "127.0.0.1", port: port, group: group)
        let request = Task { try await client.invoke(RemotingCommand(.heartBeat), timeout: .seconds(3600)) }
        try await group.shutdownGracefully()
        let ended = await #expect(throws: RemotingError.self) { try await request.value }
        guard case .connectionClosed = ended else { return #expect(Bool(false), "\(String(describing: ended))") }
        try await silentGroup.shutdownGracefully()
    }

    @Test("what closes a connection is named in the error of later calls")
    func closed() async throws {
        let server = try await EchoServer()
        let client = try await RemotingClient.connect(host: "127.0.0.1", port: server.port, group: server.group)
        await client.close()
        let error = await #expect(throws: RemotingError.self) { try await client.invoke(RemotingCommand(.heartBeat)) }
        #expect("\(try #require(error))".contains("this side closed it"))
        try await server.stop()
    }
}
