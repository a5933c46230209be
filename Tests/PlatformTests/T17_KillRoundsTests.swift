import Foundation
import StoreJudge
import TestTools
import Testing

extension PlatformTests {
    /// `kill -9` of a running broker-store at random moments, again and again, under load of every kind.
    /// `APUS_BROKER_KILL_ROUNDS` and `APUS_SEED` set how often and with what; `Tests/Scripts/kill-rounds` runs the long
    /// version.
    @Suite("T17 kill rounds", .serialized)
    struct T17_KillRounds {
        static let rounds = ProcessInfo.processInfo.environment["APUS_BROKER_KILL_ROUNDS"].flatMap { Int($0) } ?? 20
        static let seed = ProcessInfo.processInfo.environment["APUS_SEED"].flatMap { UInt64($0) } ?? 20_261_121

        /// Small files, and everything that is written behind the log is written often: a kill meets all of it.
        static let settings = [
            "mappedFileSizeCommitLog=1048576", "mappedFileSizeConsumeQueue=20000", "maxHashSlotNum=1000",
            "maxIndexNum=20000", "flushConsumeQueueThoroughInterval=200", "flushIntervalConsumeQueue=50",
            "flushIntervalCommitLog=50", "messageDelayLevel=1s 2s", "diskMaxUsedSpaceRatio=99", "diskReservedBytes=0",
            "cleanFileForciblyEnable=false",
        ]

        @Test(
            "kill -9 at random moments: nothing acknowledged is lost or changed, no hole in any queue",
            .timeLimit(.minutes(60)), arguments: ["SYNC_FLUSH", "ASYNC_FLUSH"])
        func rounds(flush: String) async throws {
            let rounds = max(1, Self.rounds / 2)
            let seed = Self.seed
            var random = SplitMix(state: seed ^ UInt64(flush.count))
            let hasChecksums = flush == "SYNC_FLUSH"
            let settings = (Self.settings + ["flushDiskType=\(flush)", "enabledAppendPropCRC=\(hasChecksums)"])
                .flatMap { ["--set", $0] }
            let platform = try await Platform.start(settings)
            let load = LedgerLoad(broker: platform.broker, seed: seed)
            try await eventually("traffic") { load.count > 300 }
            for round in 1...rounds {
                try await Task.sleep(for: .milliseconds(Int.random(in: 5...500, using: &random)))
                let old = try #require(platform.pid(of: "broker-store"))
                let before = load.count
                kill(old, SIGKILL)
                _ = try await platform.newPid(of: "broker-store", after: old, within: .seconds(15))
                // Now and then killed again while it recovers.
                if Int.random(in: 0..<5, using: &random) > 0 {
                    try await eventually("it serves again", within: .seconds(20)) { load.count > before + 20 }
                    let problems = try await load.verify()
                    #expect(problems.isEmpty, "APUS_SEED=\(seed) \(flush) round \(round): \(problems.prefix(5))")
                    if !problems.isEmpty { break }
                    // Having served for two seconds it counts as sound: else the supervisor would hold it back longer
                    // each time.
                    try await Task.sleep(for: .milliseconds(2100))
                }
            }
            try await eventually("it serves again", within: .seconds(20)) { try await load.verify().isEmpty }
            await load.stop()
            #expect(try await load.verify(fromBeginning: true) == [], "APUS_SEED=\(seed) \(flush)")
            try await eventually("every delayed message is delivered", within: .seconds(30)) {
                try await load.undelivered().isEmpty
            }
            try await platform.stop()
            try Self.judge(platform, hasChecksums: hasChecksums)
            let ledger = load.snapshot
            print(
                "T17 \(flush): killed \(rounds) times, \(ledger.acknowledged.count) messages and \(ledger.delayed.count) delayed"
                    + " acknowledged, none lost, no hole; APUS_SEED=\(seed)")
        }

        private static func judge(_ platform: Platform, hasChecksums: Bool) throws {
            var rules = StoreJudge.Rules(log: 1_048_576, queue: 20_000, slots: 1000, entries: 20_000)
            rules.delayLevels = [1000, 2000]
            rules.everyRecordHasChecksum = hasChecksums
            let judge = try StoreJudge(platform.data + "/store", rules: rules)
            #expect(judge.judge() == [])
        }
    }
}
