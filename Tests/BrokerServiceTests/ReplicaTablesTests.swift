import Foundation
import RemotingProtocol
import Testing
import WorkerProtocol

@testable import BrokerService

@Suite("tables a slave is sent")
struct ReplicaTablesTests {
    @Test("a master's tables count also when they arrive before the store is open; a master takes none")
    func earlyTables() throws {
        @Sendable func table(_ name: String, _ version: Int64) -> [UInt8] {
            TopicConfigSerializeWrapper(
                topicConfigTable: [TopicConfig(topicName: name)], dataVersion: DataVersion(counter: version)
            ).encoded()
        }
        let slave = [("brokerRole", "SLAVE"), ("brokerId", "1")]
        let first = try BrokerHarness(slave)
        try first.onLoop { $0.replicate(.topics, table("Old", 1)) }
        try first.drain()
        let next = try BrokerHarness(
            slave, folder: first.folder,
            beforeOpen: { broker in
                broker.replicate(.topics, table("Older", 2))
                broker.replicate(.topics, table("New", 3))
                guard case .replicaRefused(at: 0, let reason) = broker.replicate(at: 0, [1]) else {
                    Issue.record("bytes were taken before the store was open")
                    return
                }
                #expect(reason.contains("not opened"))
            })
        defer { try? next.end() }
        try next.onLoop { broker in
            let names = broker.topics.names
            #expect(names.contains("New"))
            #expect(!names.contains("Old"))
            #expect(!names.contains("Older"))
        }
        let master = try BrokerHarness()
        defer { try? master.end() }
        try master.onLoop { broker in
            broker.replicate(.topics, table("New", 3))
            #expect(!broker.topics.names.contains("New"))
            guard case .replicaRefused(at: 0, let reason) = broker.replicate(at: 0, [1]) else {
                Issue.record("a master took another's bytes")
                return
            }
            #expect(reason.contains("not a slave"))
        }
    }
}
