import Foundation
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

/// A prepared message is its place in the half queue, however much it looks like another one.
@Suite("transactions that look alike") struct AlikeTransactionsTests {
    static let alike = [
        "TRAN_MSG=true;PGROUP=PG", "TRAN_MSG=true;PGROUP=PG;UNIQ_KEY=same;KEYS=k",
    ]

    /// All with the same body, in the same millisecond of birth, from one connection.
    private func prepare(_ connection: RawConnection, _ properties: String, count: Int) throws -> [RemotingCommand] {
        try (0..<count).map { _ in
            let sent = try connection.send(
                topic: "TX", body: "alike", properties: RawConnection.properties(properties), group: "PG")
            #expect(sent.code == 0)
            return sent
        }
    }

    @Test("400 of them, all committed, are 400 messages; rolled back ones stay away", arguments: alike)
    func commits(_ properties: String) throws {
        let harness = try BrokerHarness([("transactionTimeOut", "600000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let prepared = try prepare(connection, properties, count: 500)
        #expect(try harness.onLoop { $0.kinds.transactions.openCount } == 500)
        for (index, half) in prepared.enumerated() {
            #expect(try connection.end(half, index % 5 == 0 ? 12 : 8).code == 0)
        }
        #expect(try connection.all("TX").count == 400)
        #expect(try harness.onLoop { $0.kinds.transactions.openCount } == 0)
        // Said again, nothing changes.
        for half in prepared.prefix(20) { #expect(try connection.end(half).code == 0) }
        #expect(try connection.all("TX").count == 400)
    }

    @Test("asked for and put aside each for itself, and each outcome that comes too late holds once", arguments: alike)
    func checksAndLateOutcomes(_ properties: String) throws {
        let settings = [
            ("transactionTimeOut", "200"), ("transactionCheckInterval", "200"), ("transactionCheckMax", "2"),
        ]
        let harness = try BrokerHarness(settings)
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.heartbeat("c", producerGroup: "PG")
        let prepared = try prepare(connection, properties, count: 30)
        // The first ten have their outcome after the first check, said with their first place.
        var asked: [String: Int] = [:]
        for _ in 0..<30 {
            asked[try connection.request(.checkTransactionState).extFields["commitLogOffset"] ?? "", default: 0] += 1
        }
        #expect(asked.count == 30)
        for half in prepared.prefix(10) { #expect(try connection.end(half).code == 0) }
        let aside = try connection.wait("TRANS_CHECK_MAX_TIME_TOPIC", count: 20)
        #expect(aside.count == 20)
        #expect(try connection.all("TX").count == 10)
        guard properties.contains("UNIQ_KEY") else {
            #expect(try connection.end(prepared[15]).code == ResponseCode.systemError.rawValue)
            return
        }
        for half in prepared[10..<20] { for _ in 0..<2 { #expect(try connection.end(half).code == 0) } }
        #expect(try connection.all("TX").count == 20)
        for half in prepared { #expect(try connection.end(half).code == 0) }
        #expect(try connection.all("TX").count == 30)
        let killed = try harness.afterKill(settings)
        defer { try? killed.end() }
        let again = try killed.connect()
        for half in prepared { #expect(try again.end(half).code == 0) }
        #expect(try again.all("TX").count == 30)
        // None of what only the broker needs reaches a consumer.
        #expect(try again.all("TX").allSatisfy { $0.properties["APUS_HALF_OFFSET"] == nil })
    }

    @Test("over checks and kills each has its outcome once", arguments: [UInt64(77), 20_261_129])
    func kills(_ seed: UInt64) throws {
        print("transactions that look alike: seed \(seed)")
        var random = SplitMix(state: seed)
        // Often asked for, and never given up, however slow the machine is.
        let settings = [
            ("transactionTimeOut", "100"), ("transactionCheckInterval", "100"), ("transactionCheckMax", "1000000"),
        ]
        var harness = try BrokerHarness(settings)
        var committed = 0
        var open: [RemotingCommand] = []
        for _ in 0..<2 {
            let connection = try harness.connect()
            try connection.heartbeat("c", producerGroup: "PG")
            for _ in 0..<60 {
                switch random.next() % 4 {
                case 0, 1: open += try prepare(connection, Self.alike[Int(random.next() % 2)], count: 1)
                case 2 where !open.isEmpty:
                    let half = open.remove(at: Int(random.next() % UInt64(open.count)))
                    let isCommit = random.next() % 3 > 0
                    #expect(try connection.end(half, isCommit ? 8 : 12).code == 0)
                    if isCommit { committed += 1 }
                // Time passes: checks come between.
                default: usleep(20_000)
                }
            }
            // One that is asked for at this moment is stored again, and counts twice until that is dispatched.
            try eventually { try harness.onLoop { $0.kinds.transactions.openCount } == open.count }
            let next = try harness.afterKill(settings)
            try harness.end()
            harness = next
        }
        defer { try? harness.end() }
        let last = try harness.connect()
        for half in open { #expect(try last.end(half).code == 0) }
        #expect(try last.all("TX").count == committed + open.count)
    }
}
