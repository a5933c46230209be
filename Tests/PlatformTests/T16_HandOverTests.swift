import Foundation
import Testing

extension PlatformTests {
    /// `Tests/Scripts/handover`, a few rounds: members join, leave and die under load. The long form is the script
    /// itself.
    @Suite("T16 hand-over of queues", .serialized)
    struct T16_HandOver {
        private static func run(_ arguments: [String]) async throws {
            let seed = ProcessInfo.processInfo.environment["APUS_SEED"] ?? String(UInt32.random(in: 0...UInt32.max))
            print("T16 seed \(seed)")
            let outcome = try await Program.run(
                Binaries.packageRoot + "/Tests/Scripts/handover",
                ["4", seed, "--bin", Binaries.folder] + arguments
                    + (OfficialClient.isInstalled ? ["--official", "40"] : []), within: .seconds(280))
            let said = outcome.lines.suffix(60).joined(separator: "\n")
            #expect(outcome.status == 0, "seed \(seed): \(said)\(outcome.errorText)")
        }

        @Test("no message waits longer than a rebalance", .timeLimit(.minutes(5)))
        func concurrent() async throws { try await Self.run([]) }

        @Test(
            "with locks nothing that was finished comes again: who leaves says its offsets after it has given its locks back",
            .timeLimit(.minutes(5)))
        func orderly() async throws { try await Self.run(["--orderly"]) }
    }
}
