import Foundation
import Testing

@Suite("claims against an oracle, in simulated time")
struct ModelTests {
    static let base = ProcessInfo.processInfo.environment["APUS_SEED"].flatMap { UInt64($0) }
    static let count = ProcessInfo.processInfo.environment["APUS_CLAIM_SEEDS"].flatMap { UInt64($0) } ?? 20
    static let seeds: [UInt64] = {
        if let base { return [base] }
        let first = UInt64(Date().timeIntervalSince1970 * 1000)
        return (0..<count).map { first &+ $0 &* 7919 }
    }()

    @Test("never in two hands, none lost, none stuck, attempts, floor and trails right", arguments: seeds)
    func model(seed: UInt64) throws {
        var run = try ModelRun(seed: seed)
        try run.play(steps: 600)
        if !run.faults.isEmpty {
            Issue.record("APUS_SEED=\(seed): \(run.faults.prefix(3).joined(separator: "\n"))")
        }
    }
}
