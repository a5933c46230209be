import LinuxSystem
import Logging
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import Synchronization
import TestTools
import Testing
import WorkerProtocol

@testable import Replication

@Suite("a slave's questions about claims go to its master")
struct ClaimRelayTests {
    /// Answers with the code its body begins with, and the rest of the body.
    private final class MasterDouble: RemotingService, Sendable {
        func connectionOpened(_ connection: RemotingConnection) {}
        func connectionClosed(_ connection: RemotingConnection) {}
        func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
            let code = ResponseCode(rawValue: Int32(frame.body.first ?? 0)) ?? .systemError
            let isExpected = frame.code == RequestCode.getClaims.rawValue
            connection.respond(
                to: frame.returnAddress, isExpected ? code : .systemError, remark: "a reason",
                body: Array(frame.body.dropFirst()))
        }
    }

    /// Keeps what the broker-store is sent.
    private final class StoreDouble: StoreLink, Sendable {
        let messages = Mutex<[WorkerMessage]>([])
        var isWritable: Bool { true }
        func send(_ message: WorkerMessage) { messages.withLock { $0.append(message) } }
    }

    @Test("answers, refusals, a master that does not know the question, and none at all, each by its number")
    func answers() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let store = StoreDouble()
        let relay = try await loop.submit {
            let relay = NIOLoopBound(ClaimRelay(eventLoop: loop), eventLoop: loop)
            relay.value.storeConnected(store)
            relay.value.ask(request: 1, question: [0])
            return relay
        }.get()
        let server = try await loop.submit {
            NIOLoopBound(
                RemotingServer(eventLoop: loop, service: MasterDouble(), logger: LogBook().logger, endOfTick: {}),
                eventLoop: loop)
        }.get()
        let port = try await loop.flatSubmit {
            server.value.bind(host: "127.0.0.1", port: 0).map { server.value.localAddresses.first?.port ?? 0 }
        }.get()
        try await loop.submit { relay.value.masterFound(host: "127.0.0.1", port: port) }.get()
        for (request, question) in [(2, [0, 7, 8]), (3, [3]), (4, [1]), (5, [0])] as [(UInt64, [UInt8])] {
            try await loop.submit { relay.value.ask(request: request, question: question) }.get()
            try await eventually("an answer to \(request)") { store.messages.withLock { $0.count } == request }
        }
        try await loop.flatSubmit { server.value.close() }.get()
        try await loop.submit { relay.value.ask(request: 6, question: [0]) }.get()
        try await eventually("the end is reported") { store.messages.withLock { $0.count } == 6 }
        let said = store.messages.withLock { $0 }
        #expect(said[1] == .claims(request: 2, .answered([7, 8])))
        #expect(said[2] == .claims(request: 3, .unknown))
        #expect(said[4] == .claims(request: 5, .answered([])))
        for index in [0, 3, 5] {
            guard case .claims(UInt64(index + 1), .failed(let reason)) = said[index] else {
                Issue.record("\(said[index])")
                continue
            }
            #expect(index != 3 || reason.contains("a reason"))
        }
        try await loop.submit { relay.value.stop() }.get()
    }
}
