import BrokerService
import Foundation
import NIOCore
import RemotingProtocol
import TestTools
import Testing
import WorkerProtocol

@Suite("a slave copies its master's claims")
struct ClaimsReplicaTests {
    private func journal(_ harness: BrokerHarness) -> Data? {
        try? Data(contentsOf: harness.folder.appendingPathComponent("popState/journal-00000001"))
    }

    private func slave(
        of link: Link, steady: ShiftedClock? = nil, log: LogLines? = nil
    ) throws -> BrokerHarness {
        try BrokerHarness(
            [("brokerRole", "SLAVE"), ("brokerId", "1")], steady: steady, log: log,
            onPlatform: { platform, broker in
                let loop = broker.eventLoop
                let slave = NIOLoopBound(broker, eventLoop: loop)
                platform.master = { request, question in link.ask(request, question, for: slave, on: loop) }
            })
    }

    @Test("it asks by its replication worker, has the master's files, and goes on when an answer is lost")
    func copies() throws {
        let master = try BrokerHarness { TagFilterDouble.attach(to: $0) }
        defer { try? master.end() }
        let connection = try master.connect()
        for number in 0..<20 { _ = try connection.send(topic: "Copied", queueID: 0, body: "\(number)") }
        let popped = try connection.pop(RawConnection.popFields(topic: "Copied"))
        #expect(popped.messages.count == 20)
        let link = Link(try master.connect())
        let slave = try slave(of: link)
        defer { try? slave.end() }
        try eventually("the slave has the journal", within: .seconds(20)) {
            journal(master) != nil && journal(slave) == journal(master)
        }
        for message in popped.messages.prefix(7) { try connection.acknowledge(message, topic: "Copied") }
        try eventually("the slave has what was acknowledged, too", within: .seconds(20)) {
            journal(slave) == journal(master)
        }
        #expect(try slave.connect().invoke(.getClaims).code == ResponseCode.systemError.rawValue)
        #expect(try connection.invoke(.getClaims, body: [9]).code == ResponseCode.systemError.rawValue)
    }

    @Test("a copy that does not get as far as the master is said to be late, once, and when it has caught up")
    func late() throws {
        let master = try BrokerHarness { TagFilterDouble.attach(to: $0) }
        defer { try? master.end() }
        let connection = try master.connect()
        _ = try connection.send(topic: "Copied", queueID: 0, body: "x")
        #expect(try connection.pop(RawConnection.popFields(topic: "Copied")).messages.count == 1)
        let (steady, log) = (ShiftedClock(), LogLines())
        let link = Link(try master.connect()) { if $0 == 1 { steady.shift = 61_000 } }
        let slave = try slave(of: link, steady: steady, log: log)
        defer { try? slave.end() }
        try eventually("it has caught up", within: .seconds(20)) {
            try journal(slave) == journal(master) && !slave.onLoop { $0.statusLine.contains("behind the master") }
        }
        #expect(log.lines.count { $0.contains("has been behind for 6") } == 1, "\(log.lines)")
        try slave.onLoop { broker in
            steady.shift = 200_000
            #expect(broker.statusLine.contains(", claims 1"), "\(broker.statusLine)")
        }
    }

    @Test("of a master that hands out no claims a slave is not said to be behind")
    func noClaims() throws {
        let other = try BrokerHarness([("brokerRole", "SLAVE"), ("brokerId", "2")])
        defer { try? other.end() }
        let steady = ShiftedClock()
        let link = Link(try other.connect()) { _ in steady.shift = 200_000 }
        let slave = try slave(of: link, steady: steady)
        defer { try? slave.end() }
        try eventually("it knows", within: .seconds(20)) {
            try steady.shift > 0 && !slave.onLoop { $0.statusLine.contains("behind the master") }
        }
    }

    /// Stands for the replication worker. The connection is touched on its queue only.
    private final class Link: @unchecked Sendable {
        private let connection: RawConnection
        private let queue = DispatchQueue(label: "replication")

        private let beforeAnswer: @Sendable (UInt64) -> Void

        init(_ connection: RawConnection, beforeAnswer: @escaping @Sendable (UInt64) -> Void = { _ in }) {
            self.connection = connection
            self.beforeAnswer = beforeAnswer
        }

        func ask(_ request: UInt64, _ question: [UInt8], for slave: NIOLoopBound<Broker>, on loop: any EventLoop) {
            queue.async { [self] in
                // The second time the master is away.
                let reply = request == 2 ? nil : try? connection.invoke(.getClaims, body: question)
                let answer: ClaimsAnswer =
                    switch reply?.code {
                    case nil: .failed(reason: "away")
                    case 0: .answered(reply?.body ?? [])
                    default: .unknown
                    }
                beforeAnswer(request)
                loop.execute { slave.value.claimsAnswered(request: request, answer) }
            }
        }
    }
}
