import Foundation
import LinuxSystem
import Logging
import NIOCore
import NIOPosix
import Testing
import WorkerKit
import WorkerProtocol

/// Two ends of one socket pair on one event loop.
private final class Pair {
    let loop: any EventLoop
    private(set) var first: PeerLink?
    private(set) var second: PeerLink?
    private(set) var received: [WorkerMessage] = []
    private(set) var closed: [String] = []
    var onReceive: (WorkerMessage) -> Void = { _ in }

    init(_ loop: any EventLoop) throws {
        self.loop = loop
        let pair = try SocketPair.create(sequencedPackets: false)
        let (a, b) = pair.ends()
        first = PeerLink.attach(
            try Pair.copy(a.raw), on: loop, receive: { _ in }, closed: { [weak self] in self?.closed.append("first") })
        second = PeerLink.attach(
            try Pair.copy(b.raw), on: loop,
            receive: { [weak self] message in
                self?.received.append(message)
                self?.onReceive(message)
            }, closed: { [weak self] in self?.closed.append("second") })
    }

    static func copy(_ fd: Int32) throws -> Int32 {
        let copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)
        return try #require(copy >= 0 ? copy : nil)
    }
}

@Suite struct PeerLinkTests {
    private let loop = MultiThreadedEventLoopGroup.singleton.next()

    /// Runs `body` on the loop with a fresh pair; ends when it fulfils the promise.
    private func run(_ body: @escaping @Sendable (Pair, EventLoopPromise<Void>) -> Void) async throws {
        let loop = loop
        try await loop.flatSubmit { () -> EventLoopFuture<Void> in
            let done = loop.makePromise(of: Void.self)
            do {
                let pair = NIOLoopBound(try Pair(loop), eventLoop: loop)
                body(pair.value, done)
                // Keeps the pair alive until then.
                return done.futureResult.map { _ = pair.value }
            } catch {
                done.fail(error)
                return done.futureResult
            }
        }.get()
    }

    /// Sent before the channels are up, in one tick, up to several megabytes: all arrive, whole and in order.
    @Test func messagesArriveInOrder() async throws {
        try await run { pair, done in
            let sent: [WorkerMessage] = (0..<40).map { number in
                .replicaBytes(
                    at: Int64(number), bytes: [UInt8](repeating: UInt8(number), count: number * number * 100))
            }
            pair.onReceive = { [unowned pair] _ in
                guard pair.received.count == sent.count else { return }
                #expect(pair.received == sent)
                done.succeed()
            }
            for message in sent { pair.first?.send(message) }
        }
    }

    @Test func theOtherEndHearsOfAClose() async throws {
        try await run { pair, done in
            pair.onReceive = { [unowned pair] _ in
                pair.first?.close()
                pair.loop.assumeIsolated().scheduleTask(in: .milliseconds(50)) {
                    #expect(pair.closed == ["second"])
                    #expect(pair.second?.isClosed == true)
                    pair.second?.send(.drained)  // into the void, without harm
                    done.succeed()
                }
            }
            pair.first?.send(.ping(1))
        }
    }

    /// Bytes that are no message, and a length beyond the limit: the link closes instead of guessing.
    @Test(arguments: [[0, 0, 0, 2, 1, 250], [255, 255, 255, 255, 1], [0, 0, 0, 1, 9]] as [[UInt8]])
    func garbageClosesTheLink(_ bytes: [UInt8]) async throws {
        let loop = loop
        let ends = try SocketPair.create(sequencedPackets: false).ends()
        let copy = try Pair.copy(ends.first.raw)
        let closed = loop.makePromise(of: Void.self)
        let link = try await loop.submit {
            NIOLoopBound(
                PeerLink.attach(
                    copy, on: loop, receive: { Issue.record("received \($0)") }, closed: { closed.succeed() }),
                eventLoop: loop)
        }.get()
        write(ends.second.raw, bytes, bytes.count)
        try await closed.futureResult.get()
        try await loop.submit { #expect(link.value.isClosed) }.get()
    }
}
