import Glibc
import Logging
import MessageModel
import NIOCore
import NIOPosix
import RemotingProtocol
import Synchronization
import TestTools
import Testing

@testable import RemotingTransport

/// Counts what it was granted.
private final class Member: FramePoolMember {
    var granted = 0
    func framePoolGranted() { self.granted += 1 }
}

@Suite("memory that connections share")
struct FramePoolTests {
    private static func network(_ number: UInt32) -> RemoteNetwork {
        RemoteNetwork(HostAddress(ipv4: 0x0a00_0000 + number, port: 1))
    }

    @Test("in the order of asking, never more than there is, and one frame always fits")
    func order() {
        let pool = FramePool(capacity: 100)
        let one = Self.network(1)
        #expect(pool.reserve(60))
        let members = (0..<4).map { _ in Member() }
        _ = pool.wait(members[0], for: 50, of: one)
        let second = pool.wait(members[1], for: 10, of: one)
        _ = pool.wait(members[2], for: 10, of: one)
        // Ten would fit; but who came first is first.
        #expect(!pool.reserve(10) && pool.isContended)
        pool.cancel(second)
        pool.release(60, of: one, after: .zero)
        #expect(members.map(\.granted) == [1, 0, 1, 0])
        #expect(pool.reserved == 60 && !pool.isContended)
        // Larger than all of it: when it is alone.
        _ = pool.wait(members[3], for: 1000, of: one)
        pool.release(50, of: one, after: .zero)
        #expect(members[3].granted == 0)
        pool.release(10, of: one, after: .zero)
        #expect(members[3].granted == 1 && pool.reserved == 1000)
        pool.release(1000, of: one, after: .zero)
        #expect(pool.reserve(5000))
    }

    @Test("one network's many frames wait for each other, not the others' for them")
    func fairness() {
        let pool = FramePool(capacity: 100)
        #expect(pool.reserve(100))
        let (greedy, modest, late) = (Self.network(1), Self.network(2), Self.network(3))
        let many = (0..<50).map { _ in Member() }
        let (one, other) = (Member(), Member())
        for member in many { _ = pool.wait(member, for: 10, of: greedy) }
        _ = pool.wait(one, for: 10, of: modest)
        pool.release(20, of: greedy, after: .zero)
        #expect(many.filter { $0.granted > 0 }.count == 1 && one.granted == 1)
        // Ten more have had their turn; who comes new is next all the same.
        for _ in 0..<10 { pool.release(10, of: greedy, after: .zero) }
        _ = pool.wait(other, for: 10, of: late)
        pool.release(10, of: greedy, after: .zero)
        #expect(many.filter { $0.granted > 0 }.count == 11 && other.granted == 1)
    }

    @Test("what a network has kept for long delays its next frames")
    func slowFramesCost() {
        let pool = FramePool(capacity: 100)
        let (slow, quick) = (Self.network(1), Self.network(2))
        #expect(pool.reserve(100))
        let first = Member()
        _ = pool.wait(first, for: 100, of: slow)
        let quicks = (0..<5).map { _ in Member() }
        for member in quicks { _ = pool.wait(member, for: 100, of: quick) }
        pool.release(100, of: quick, after: .zero)
        #expect(first.granted == 1)
        // It keeps them for 3 s: its next frame comes behind those up to 400, not behind the first.
        pool.release(100, of: slow, after: .seconds(3))
        let again = Member()
        _ = pool.wait(again, for: 100, of: slow)
        var order: [Int] = []
        for _ in 0..<6 {
            order.append(again.granted)
            pool.release(100, of: quick, after: .zero)
        }
        #expect(quicks.allSatisfy { $0.granted == 1 } && order == [0, 0, 0, 0, 0, 1], "\(order)")
    }

    /// Also those that were waiting before: a place in line is no way round it.
    @Test("frames that never come to their end delay their network's next ones most")
    func falseFramesCost() {
        let pool = FramePool(capacity: 100)
        let (hostile, honest) = (Self.network(1), Self.network(2))
        #expect(pool.reserve(100))
        let late = Member()
        _ = pool.wait(late, for: 100, of: hostile)
        let honests = (0..<9).map { _ in Member() }
        for member in honests { _ = pool.wait(member, for: 100, of: honest) }
        pool.release(100, of: hostile, after: .zero, isWhole: false)
        for _ in 0..<7 { pool.release(100, of: honest, after: .zero) }
        #expect(honests.map(\.granted) == [1, 1, 1, 1, 1, 1, 1, 1, 0] && late.granted == 0)
        pool.release(100, of: honest, after: .zero)
        #expect(late.granted == 1 && honests[8].granted == 0)
        pool.release(100, of: hostile, after: .zero)
        #expect(honests[8].granted == 1)
    }

    @Test("whatever comes and goes, none waits while all are gone, and the sum is right")
    func random() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("frame pool: seed \(seed)")
        var state = seed
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let pool = FramePool(capacity: 1000)
        final class Client: FramePoolMember {
            var holds = 0
            var wants: (bytes: Int, ticket: UInt64)?
            let network: RemoteNetwork
            init(_ network: RemoteNetwork) { self.network = network }
            func framePoolGranted() {
                self.holds = self.wants?.bytes ?? 0
                self.wants = nil
            }
        }
        let clients = (0..<40).map { Client(Self.network(UInt32($0 % 7))) }
        for _ in 0..<20_000 {
            let client = clients[next(clients.count)]
            if client.holds > 0 {
                let bytes = client.holds
                client.holds = 0
                pool.release(
                    bytes, of: client.network, after: .milliseconds(Int64(next(3000))), isWhole: next(2) == 0)
            } else if let wants = client.wants {
                if next(4) == 0 {
                    client.wants = nil
                    pool.cancel(wants.ticket)
                }
            } else {
                let bytes = 1 + next(next(10) == 0 ? 3000 : 300)
                if pool.reserve(bytes) {
                    client.holds = bytes
                } else {
                    client.wants = (bytes, pool.wait(client, for: bytes, of: client.network))
                }
            }
            #expect(pool.reserved == clients.map(\.holds).reduce(0, +))
            #expect(pool.reserved <= 1000 || clients.filter { $0.holds > 0 }.count == 1)
        }
        for _ in 0..<1000 {
            for client in clients where client.holds > 0 {
                let bytes = client.holds
                client.holds = 0
                pool.release(bytes, of: client.network, after: .zero)
            }
        }
        #expect(clients.allSatisfy { $0.wants == nil } && pool.reserved == 0)
    }
}

@Suite("what many peers together cost", .serialized, .timeLimit(.minutes(2)))
struct SharedMemoryTests {
    /// Writes what the peer takes without waiting.
    private func push(_ bytes: [UInt8], from offset: inout Int, to raw: RawConnection) {
        while offset < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(
                    raw.descriptor, $0.baseAddress.map { $0 + offset }, bytes.count - offset,
                    noSignal | Int32(MSG_DONTWAIT))
            }
            guard count > 0 else { return }
            offset += count
        }
    }

    /// 40 peers send 4 MB each, all but the last byte: 160 MB were kept. Who is honest is served meanwhile.
    @Test("frames without their last byte share a bound, and those that stand still make room")
    func unfinishedFrames() async {
        // Alone in a process: what tests beside it take would be counted as well.
        await #expect(processExitsWith: .success) { try await SharedMemoryTests().unfinishedFramesAlone() }
    }

    private func unfinishedFramesAlone() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.unfinishedFrameBytesMax = 16 << 20
        configuration.trickleTime = .milliseconds(300)
        configuration.sweepInterval = .milliseconds(100)
        let server = try await EchoServer(configuration)
        let frame = Array(bytes(TransportTests.request([UInt8](repeating: 7, count: 4 << 20))).dropLast())
        let before = residentBytes()
        let raws = try (0..<40).map { _ in try RawConnection(port: server.port) }
        var offsets = [Int](repeating: 0, count: raws.count)
        var most = 0
        let client = try await server.client()
        let honest = Task {
            // Waits in line behind them, and is served all the same.
            try await client.invoke(
                TransportTests.request([UInt8](repeating: 1, count: 1 << 20)), timeout: .seconds(60))
        }
        try await eventually("few are left", within: .seconds(60)) {
            for index in raws.indices { push(frame, from: &offsets[index], to: raws[index]) }
            most = max(most, residentBytes() - before)
            // The last few do no harm: none waits for what they have.
            return try await server.connectionCount() <= 4
        }
        print("40 unfinished frames of 4 MB: \(most >> 20) MB more")
        // Of this process, with its own part of all that; what was freed may be kept for the next.
        #expect(most < 120 << 20, "\(most >> 20) MB")
        #expect(server.log.contains("comes too slowly while others wait"))
        #expect(try await honest.value.body.count == 1 << 20)
        await client.close()
        try await server.stop()
    }

    /// Frames of one length follow each other without a gap, as a busy producer's do, while others wait all the time.
    @Test("who sends steadily is not taken for slow")
    func steadySender() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.unfinishedFrameBytesMax = 1 << 20
        configuration.trickleTime = .milliseconds(300)
        configuration.sweepInterval = .milliseconds(100)
        let server = try await EchoServer(configuration)
        // A loop of their own: one that also serves would keep them from sending.
        let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let port = server.port
        let clients = try await withThrowingTaskGroup(of: RemotingClient.self) { group in
            for _ in 0..<16 {
                group.addTask { try await RemotingClient.connect(host: "127.0.0.1", port: port, group: loops) }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for client in clients {
                group.addTask {
                    for _ in 0..<20 {
                        let answer = try await client.invoke(
                            TransportTests.request([UInt8](repeating: 1, count: 300_000)), timeout: .seconds(30))
                        #expect(answer.body.count == 300_000)
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(!server.log.contains("too slowly"))
        for client in clients { await client.close() }
        try await loops.shutdownGracefully()
        try await server.stop()
    }

    /// Each of 16 addresses has three frames of 4 MiB announced, of which one sixty-fourth comes a second, and comes
    /// back when it is closed. In the order of asking an honest frame waited behind all of them, 30 s for each four.
    @Test("frames that trickle from many addresses hold up an honest one for a bounded time only")
    func trickleFromManyAddresses() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.unfinishedFrameBytesMax = 16 << 20
        configuration.trickleTime = .milliseconds(300)
        configuration.contendedFrameTime = .seconds(2)
        configuration.sweepInterval = .milliseconds(100)
        let server = try await EchoServer(configuration)
        let port = server.port
        let attack = Task.detached {
            let head = RobustnessTests.word(4 << 20) + [UInt8](repeating: 0x20, count: 100)
            let piece = [UInt8](repeating: 0x20, count: 6554)
            var closed = 0
            func one(_ index: Int) throws -> RawConnection {
                let raw = try RawConnection(port: port, source: 0x7f00_0200 + UInt32(index % 16))
                raw.send(head)
                return raw
            }
            var raws = try (0..<48).map(one)
            while !Task.isCancelled {
                for index in raws.indices {
                    if raws[index].isClosedByPeer {
                        raws[index] = try one(index)
                        closed += 1
                    }
                    _ = Glibc.send(raws[index].descriptor, piece, piece.count, noSignal | Int32(MSG_DONTWAIT))
                }
                try? await Task.sleep(for: .milliseconds(100))
            }
            return closed
        }
        try await eventually("all of them hold or wait") { try await server.connectionCount() >= 48 }
        let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = try await RemotingClient.connect(host: "127.0.0.1", port: port, group: loops)
        var waits: [Duration] = []
        for _ in 0..<5 {
            let began = ContinuousClock.now
            let answer = try await client.invoke(
                TransportTests.request([UInt8](repeating: 1, count: 4 << 20)), timeout: .seconds(20))
            #expect(answer.body.count == 4 << 20)
            waits.append(began.duration(to: .now))
        }
        print("honest frames of 4 MiB among those that trickle: \(waits)")
        attack.cancel()
        let closed = try await attack.value
        #expect(closed > 0 && server.log.contains("comes too slowly while others wait"))
        await client.close()
        try await loops.shutdownGracefully()
        try await server.stop()
    }

    @Test("a frame larger than all that memory passes, when it comes steadily")
    func largestFrame() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.unfinishedFrameBytesMax = 1 << 20
        let server = try await EchoServer(configuration)
        let clients = try await [server.client(), server.client(), server.client()]
        try await withThrowingTaskGroup(of: Int.self) { group in
            for client in clients {
                group.addTask {
                    try await client.invoke(
                        TransportTests.request([UInt8](repeating: 1, count: 15 << 20)), timeout: .seconds(30)
                    ).body.count
                }
            }
            for try await count in group { #expect(count == 15 << 20) }
        }
        for client in clients { await client.close() }
        try await server.stop()
    }

    @Test("a frame the service does not take is refused at its first four bytes")
    func tooLarge() async throws {
        let server = try await EchoServer()
        server.service.largest.store(2 << 20, ordering: .relaxed)
        let raw = try RawConnection(port: server.port)
        raw.send(RobustnessTests.word((2 << 20) + 1))
        #expect(raw.readToEnd().end == .closed)
        try await eventually("a logged reason") {
            server.log.contains("a frame of 2097153 bytes is announced and 2097152 are taken here")
        }
        let client = try await server.client()
        #expect(
            try await client.invoke(TransportTests.request([UInt8](repeating: 1, count: 1 << 20))).body.count == 1 << 20
        )
        await client.close()
        try await server.stop()
    }

    /// 100 peers ask for 4 MB each and read nothing: 400 MB were kept for a minute.
    @Test("answers that are not read share a bound, and others are served")
    func unreadAnswers() async {
        // Alone in a process: what tests beside it take would be counted as well.
        await #expect(processExitsWith: .success) { try await SharedMemoryTests().unreadAnswersAlone() }
    }

    private func unreadAnswersAlone() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.outboundBytesMax = 8 << 20
        configuration.sweepInterval = .milliseconds(200)
        let server = try await EchoServer(configuration)
        server.service.answerBytes.store(1 << 20, ordering: .relaxed)
        let before = residentBytes()
        let request = bytes(TransportTests.request([]))
        let raws = try (0..<100).map { _ in try RawConnection(port: server.port, receiveBufferBytes: 4096) }
        var most = 0
        for raw in raws { for _ in 0..<4 { raw.send(request) } }
        let client = try await server.client()
        for _ in 0..<100 {
            most = max(most, residentBytes() - before)
            #expect(try await client.invoke(TransportTests.request([]), timeout: .seconds(10)).body.count == 1 << 20)
            try await Task.sleep(for: .milliseconds(20))
        }
        print("400 unread answers of 1 MB: \(most >> 20) MB more")
        #expect(most < 100 << 20, "\(most >> 20) MB")
        #expect(server.log.contains("takes no answers"))
        await client.close()
        withExtendedLifetime(raws) {}
        try await server.stop()
    }
}

@Suite("which connections are taken", .timeLimit(.minutes(1)))
struct AdmissionTests {
    private static func admission(_ total: Int, _ perAddress: Int) -> ConnectionAdmission {
        let log = LogLines()
        return ConnectionAdmission(
            connectionsMax: total, connectionsPerAddressMax: perAddress,
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            logger: .init(label: "admission", factory: { _ in log }))
    }

    private static func v6(_ high: UInt64, _ low: UInt64) -> HostAddress {
        HostAddress(ipv6High: high, low: low, port: 1)
    }

    @Test("so many from one address, of IPv6 from one network; this machine's own only count in all")
    func perAddress() {
        let admission = Self.admission(20, 3)
        let one = HostAddress(ipv4: 0x0a00_0001, port: 1)
        for port in 0..<3 { #expect(admission.admit(HostAddress(ipv4: 0x0a00_0001, port: Int32(port))) == nil) }
        #expect(admission.admit(one)?.contains("from this address: 3 are open (connectionsPerAddressMax)") == true)
        #expect(admission.admit(HostAddress(ipv4: 0x0a00_0002, port: 1)) == nil)
        admission.left(one)
        #expect(admission.admit(one) == nil)
        #expect(admission.admit(one) != nil)
        for low in 1...3 { #expect(admission.admit(Self.v6(0x2001_0db8_0000_0001, UInt64(low))) == nil) }
        #expect(admission.admit(Self.v6(0x2001_0db8_0000_0001, 99)) != nil)
        #expect(admission.admit(Self.v6(0x2001_0db8_0000_0002, 1)) == nil)
        // 8 so far.
        for _ in 0..<6 {
            #expect(admission.admit(HostAddress(ipv4: 0x7f00_0001, port: 1)) == nil)
            #expect(admission.admit(Self.v6(0, 1)) == nil)
        }
        #expect(admission.admit(HostAddress(ipv4: 0x7f00_0001, port: 1)) == "too many connections: 20 are open")
        admission.left(Self.v6(0, 1))
        #expect(admission.admit(HostAddress(ipv4: 0x7f00_0001, port: 1)) == nil)
    }

    /// accept(2) fails for want of descriptors and the listener stays readable: it was asked again at once, for ever.
    @Test("without descriptors accepting pauses, says so once, and goes on", arguments: [EMFILE, ENFILE])
    func pauses(error: Int32) async throws {
        let server = try await EchoServer()
        let listener = try await server.listener()
        for _ in 0..<1000 { listener.pipeline.fireErrorCaught(IOError(errnoCode: error, reason: "accept")) }
        try await eventually("a logged pause") { server.log.contains("no more connections are accepted for now") }
        // Comes meanwhile: waits in the kernel, and is served.
        let client = try await server.client()
        #expect(try await client.invoke(TransportTests.request([1])).body == [1])
        try await eventually("a logged end") { server.log.contains("connections are accepted again") }
        #expect(server.log.all.filter { $0.contains("no more connections are accepted") }.count < 20)
        await client.close()
        try await server.stop()
    }
}
