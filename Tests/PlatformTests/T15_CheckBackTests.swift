import Foundation
import ModelClients
import RemotingProtocol
import Synchronization
import TestTools
import Testing

extension PlatformTests {
    /// Prepared messages whose producer has said nothing when the broker ends: the broker's next process asks for
    /// them.
    @Suite("T15 check-backs over restarts", .serialized)
    struct T15_CheckBacks {
        /// What the producer is asked, and what it answers: the outcome stands in the message.
        final class Ledger: Sendable {
            private let state = Mutex<(isTalking: Bool, asked: [String: Int])>((false, [:]))

            var asked: Set<String> { state.withLock { Set($0.asked.keys) } }

            /// What was asked so far is forgotten.
            func forget(thenTalk isTalking: Bool) { state.withLock { $0 = (isTalking, [:]) } }

            func answer(_ message: MessageExt) -> ModelTransactionOutcome? {
                let body = String(decoding: message.body, as: UTF8.self)
                let isTalking = state.withLock { state in
                    state.asked[body, default: 0] += 1
                    return state.isTalking
                }
                guard isTalking else { return nil }
                return body.hasPrefix("commit") ? .commit : .rollback
            }
        }

        static let topic = "Undecided"
        static let settings = [
            "--set", "transactionTimeOut=1500", "--set", "transactionCheckInterval=500", "--set",
            "transactionCheckMax=60",
        ]

        private func send(_ producer: ModelProducer, stage: String) async throws -> Set<String> {
            var sent: Set<String> = []
            for index in 0..<3 {
                for outcome in ["commit", "rollback"] {
                    let body = "\(outcome) \(stage) \(index)"
                    let result = await producer.sendTransaction(
                        Self.topic, queue: 0, body: Array(body.utf8), properties: ["UNIQ_KEY": body], end: nil)
                    guard case .acknowledged = result else { throw ScenarioFailure("\(body): \(result)") }
                    sent.insert(body)
                }
            }
            return sent
        }

        private func restart(_ platform: Platform) async throws {
            let outcome = try await Program.run(
                Binaries.apus, ["restart", "broker-store@0", "--data-dir", platform.data])
            #expect(outcome.status == 0, "\(outcome.errorText)")
        }

        private func killStore(_ platform: Platform) async throws {
            let old = try #require(platform.pid(of: "broker-store"))
            kill(old, SIGKILL)
            _ = try await platform.newPid(of: "broker-store", after: old)
        }

        @Test(
            "kill -9, a kill while it asks, a restart of the broker, one of everything: the producer that comes back is asked, and each outcome holds once",
            .timeLimit(.minutes(2)))
        func checkBacks() async throws {
            var platform = try await Platform.start(Self.settings)
            func port(_ address: String) -> Int { address.split(separator: ":").last.flatMap { Int($0) } ?? 0 }
            let ports = (port(platform.nameServer), port(platform.broker))
            let ledger = Ledger()
            let producer = ModelProducer(
                group: "PG", clientID: "producer",
                link: ModelLink(nameServer: platform.nameServer, broker: platform.broker)
            ) { ledger.answer($0) }
            await producer.start(topics: [])
            var commits = 0
            for stage in ["kill", "kill while asking", "restart", "everything"] {
                ledger.forget(thenTalk: false)
                let sent = try await send(producer, stage: stage)
                commits += sent.count / 2
                switch stage {
                case "kill": try await killStore(platform)
                case "kill while asking":
                    try await eventually("all are asked for") { ledger.asked.isSuperset(of: sent) }
                    try await killStore(platform)
                case "restart": try await restart(platform)
                default:
                    try await platform.stop()
                    platform = try await Platform.start(in: platform.folder, ports: ports, Self.settings)
                }
                ledger.forget(thenTalk: false)
                // Silence once more, so that it is asked again, too.
                try await eventually("\(stage): all are asked for by the next process", within: .seconds(20)) {
                    ledger.asked.isSuperset(of: sent)
                }
                ledger.forget(thenTalk: true)
                try await eventually("\(stage): what was committed is there", within: .seconds(20)) {
                    ((try? await platform.queueSizes(topic: Self.topic, queues: 1)) ?? [0])[0] >= Int64(commits)
                }
                // Rolled back is over, too, when no producer is asked any more.
                try await eventually("\(stage): none is asked any more", within: .seconds(20)) {
                    ledger.forget(thenTalk: true)
                    // Time passes, in which it could be asked for.
                    try await Task.sleep(for: .milliseconds(1200))
                    return ledger.asked.isEmpty
                }
                #expect(try await platform.queueSizes(topic: Self.topic, queues: 1) == [Int64(commits)], "\(stage)")
            }
            await producer.end()
            try await platform.stop()
        }
    }
}
