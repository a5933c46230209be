import Glibc
import NIOCore
import NIOPosix
import RemotingProtocol
import TestTools
import Testing

@testable import RemotingTransport

@Suite("which connections give way to new ones", .serialized, .timeLimit(.minutes(1)))
struct GivingWayTests {
    @Test("of the oldest that have not spoken the one of the most crowded address, then who is idle; gone ones never")
    func order() {
        var givingWay = GivingWay()
        var crowds: [UInt64: Int] = [1: 1, 2: 1, 3: 5, 4: 5, 5: 1]
        for id in UInt64(1)...5 { givingWay.opened(id) { _ in false } }
        givingWay.becameIdle(9) { _ in false }
        func next() -> UInt64? {
            givingWay.next(
                stranger: { id in crowds[id].map { .candidate(connectionsOfItsAddress: $0) } ?? .gone },
                idle: { _ in .candidate(connectionsOfItsAddress: 1) })
        }
        #expect(next() == 3)
        crowds[4] = nil
        #expect(next() == 1)
        #expect(next() == 2)
        crowds[5] = nil
        #expect(next() == 9)
        #expect(next() == nil)
        givingWay.opened(6) { _ in false }
        #expect(givingWay.next(stranger: { _ in .spared }, idle: { _ in .gone }) == nil)
        crowds[6] = 1
        #expect(next() == 6)
    }

    @Test(
        "a model: always a candidate when one is among the oldest, each once, and nothing is kept of those that are gone"
    )
    func model() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("giving way: seed \(seed)")
        var state = seed
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        var givingWay = GivingWay()
        var there: [UInt64] = []
        var last: UInt64 = 0
        for _ in 0..<20_000 {
            switch random(5) {
            case 0, 1, 2:
                last += 1
                there.append(last)
                let now = Set(there)
                givingWay.opened(last) { !now.contains($0) }
            case 3:
                if !there.isEmpty { there.remove(at: random(there.count)) }
                if random(50) == 0 { there.removeAll() }
            default:
                let crowd = { (id: UInt64) in Int(id * 7 % 5) }
                let now = Set(there)
                let chosen = givingWay.next(
                    stranger: { now.contains($0) ? .candidate(connectionsOfItsAddress: crowd($0)) : .gone },
                    idle: { _ in .gone })
                let oldest = there.prefix(64)
                #expect(chosen == oldest.max { (crowd($0), $1) < (crowd($1), $0) })
                there.removeAll { $0 == chosen }
            }
        }
    }

    private static func raiseFileLimit() {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = min(max(limit.rlim_cur, 4096), limit.rlim_max)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// A client that came after 1000 that say nothing was refused for 120 s.
    @Test("connections that say nothing, from hundreds of addresses, shut out neither who is there nor who comes")
    func silentFromManyAddresses() async throws {
        Self.raiseFileLimit()
        var configuration = RemotingServerConfiguration()
        configuration.connectionsMax = 500
        let server = try await EchoServer(configuration)
        let request = bytes(TransportTests.request([1]))
        func works(_ raw: RawConnection) -> Bool { raw.send(request) && raw.read(count: 4).count == 4 && raw.drain() }
        let there = try (0..<20).map { _ in try RawConnection(port: server.port) }
        for raw in there { #expect(works(raw)) }
        let port = server.port
        let attack = Task.detached {
            func silent(_ index: Int) throws -> RawConnection {
                try RawConnection(port: port, source: 0x7f01_0000 + UInt32(index % 300))
            }
            var raws = try (0..<600).map(silent)
            var again = 0
            while !Task.isCancelled {
                for index in raws.indices where raws[index].isClosedByPeer {
                    raws[index] = try silent(index)
                    again += 1
                }
                try? await Task.sleep(for: .milliseconds(50))
            }
            return again
        }
        try await eventually("it is full") { try await server.connectionCount() >= 500 }
        let began = ContinuousClock.now
        var came: [RawConnection] = []
        var refused = 0
        while came.count < 40 {
            let raw = try RawConnection(port: port)
            if works(raw) {
                came.append(raw)
            } else {
                refused += 1
                try await Task.sleep(for: .milliseconds(2))
            }
            try #require(refused < 2000)
        }
        print("40 came in \(began.duration(to: .now)) and were refused \(refused) times")
        for raw in there + came { #expect(works(raw), "who works was closed") }
        #expect(try await server.connectionCount() <= 500)
        attack.cancel()
        #expect(try await attack.value > 0)
        withExtendedLifetime((there, came)) {}
        try await server.stop()
    }

    @Test("who has been silent for half of the idle time gives way, who has spoken meanwhile does not")
    func idle() async throws {
        var configuration = RemotingServerConfiguration()
        configuration.connectionsMax = 4
        // Far apart: on a busy machine a pause may take seconds longer.
        configuration.idleTimeout = .seconds(10)
        configuration.sweepInterval = .milliseconds(100)
        let server = try await EchoServer(configuration)
        let request = bytes(TransportTests.request([1]))
        func works(_ raw: RawConnection) -> Bool { raw.send(request) && raw.read(count: 4).count == 4 && raw.drain() }
        let raws = try (0..<4).map { _ in try RawConnection(port: server.port) }
        for raw in raws { #expect(works(raw)) }
        let refused = try RawConnection(port: server.port)
        #expect(refused.readToEnd().end == .closed)
        // Time passes: all but the first say something now and then.
        try await Task.sleep(for: .milliseconds(3500))
        for raw in raws[1...] { #expect(works(raw)) }
        try await Task.sleep(for: .milliseconds(2000))
        let new = try RawConnection(port: server.port)
        #expect(works(new))
        let rest = raws[0].readToEnd()
        #expect(rest.end == .closed, "\(rest.bytes.count) bytes")
        #expect(raws[1...].allSatisfy { !$0.isClosedByPeer })
        #expect(server.log.contains("its place is needed for a new connection, and it has said nothing for"))
        #expect(try RawConnection(port: server.port).readToEnd().end == .closed)
        try await server.stop()
    }
}

extension RawConnection {
    /// Reads what is there; the rest of an answer has come with its beginning.
    fileprivate func drain() -> Bool {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(self.descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        return count > 0
    }
}
