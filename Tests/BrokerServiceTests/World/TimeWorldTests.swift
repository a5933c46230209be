import Foundation
import Testing

@Suite("time: delays, timers, transactions and locks in simulated time, against a plain model")
struct TimeWorldTests {
    private static func number(_ name: String) -> UInt64? {
        ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) }
    }

    /// `APUS_WORLD_SEEDS` says how many worlds are run (3), `APUS_SEED` the seed of the first; each next one has the
    /// next seed.
    @Test("nothing early, lost, twice, or other than its outcome, over jumps of the clock, restarts and kills")
    func world() async throws {
        let count = Self.number("APUS_WORLD_SEEDS") ?? 3
        let first = Self.number("APUS_SEED") ?? 3_206_129_889
        for round in 0..<count {
            let seed = first &+ round
            let world = try await TimeWorld(seed: seed)
            do {
                for _ in 0..<250 where world.wrong.isEmpty { try await world.step() }
                if world.wrong.isEmpty { try await world.finish() }
            } catch {
                Issue.record("\(Self.again(seed, world)): \(error)")
            }
            if !world.wrong.isEmpty {
                Issue.record("\(Self.again(seed, world)): \(world.wrong.prefix(10).joined(separator: "\n"))")
            }
            print("time world: seed \(seed), \(world.steps.count) steps, \(world.summary)")
            try await world.end()
        }
    }

    private static func again(_ seed: UInt64, _ world: TimeWorld) -> String {
        "seed \(seed) (again: APUS_SEED=\(seed) APUS_WORLD_SEEDS=1), steps \(world.steps.suffix(60).joined(separator: "; "))"
    }
}
