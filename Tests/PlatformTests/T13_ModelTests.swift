import Foundation
import Testing

extension PlatformTests {
    /// Random sends, consumers, failures, restarts and rebalances against a real platform, judged by an oracle.
    ///
    /// `APUS_SEED` runs one seed, `APUS_MODEL_SECONDS` says how long faults are made (20), `APUS_MODEL_ROUNDS` how many
    /// seeds are run (2). `Tests/Scripts/model-run` runs many.
    @Suite("T13 model", .serialized)
    struct T13_Model {
        private static func number(_ name: String) -> UInt64? {
            ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) }
        }

        @Test(
            "random clients and faults: acknowledged is delivered, in order, in time, once, by its outcome",
            .timeLimit(.minutes(240)))
        func model() async throws {
            let seconds = Self.number("APUS_MODEL_SECONDS") ?? 20
            let rounds = Self.number("APUS_MODEL_ROUNDS") ?? 2
            for round in 0..<rounds {
                let seed = (Self.number("APUS_SEED") ?? 20_261_121) &+ round
                print("T13 seed \(seed), \(seconds) s (again: APUS_SEED=\(seed) APUS_MODEL_ROUNDS=1)")
                let run = try await ModelRun(seed: seed, duration: .seconds(seconds))
                do {
                    try await run.run()
                } catch {
                    await run.abandon()
                    Issue.record("seed \(seed): \(error)")
                }
                print("T13 seed \(seed): \(await run.summary)")
                let violations = run.oracle.violations
                if !violations.isEmpty {
                    Issue.record(
                        "seed \(seed): \(violations.count) violations:\n\(violations.prefix(40).joined(separator: "\n"))"
                    )
                    print("T13 seed \(seed), files and log: \(await run.keepEvidence())")
                    print("T13 seed \(seed), events: \(await run.events.joined(separator: "; "))")
                }
            }
        }
    }
}
