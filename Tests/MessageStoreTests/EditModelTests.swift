import Foundation
import LinuxSystem
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// Random appends, edits, deletions, removals of topics, retention, restarts and kills against a model that knows
/// nothing of overlays and files: a list of texts for each queue. `APUS_SEED` repeats a run, `APUS_EDIT_SEEDS` makes
/// more.
@Suite struct EditModelTests {
    private final class World {
        var random: SeededGenerator
        var disk: SimulatedDisk
        let clock = TestClock()
        let configuration: StoreConfiguration
        var harness: Harness
        /// By topic and queue; nil where a message is deleted.
        var model: [String: [String?]] = [:]
        private var counter = 0

        init(seed: UInt64) throws {
            random = SeededGenerator(seed: seed)
            let clock = clock
            disk = SimulatedDisk(now: { clock.now })
            var configuration = StoreConfiguration.small("/store")
            configuration.mappedFileSizeCommitLog = 16 * 1024
            configuration.mappedFileSizeConsumeQueue = 400
            configuration.maxMessageSize = 8 * 1024
            configuration.flushConsumeQueueThoroughInterval = 3000
            self.configuration = configuration
            harness = Harness(configuration, disk: disk, clock: clock)
            try harness.store.open()
        }

        private static func key(_ topic: String, _ queueID: Int32) -> String { "\(topic)-\(queueID)" }

        func step() throws {
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<70: try tick()
            case 70..<84: harness.maintain(Int64.random(in: 100...2500, using: &random))
            case 84..<88:
                _ = harness.store.deleteOldestFile()
                harness.maintain(300)
            case 88..<90:
                let topic = "T\(Int.random(in: 0..<2, using: &random))"
                harness.store.removeTopic(topic)
                harness.settle()
                for queueID: Int32 in 0..<2 { model[Self.key(topic, queueID)] = nil }
            case 90..<95: try restart(disk, isKill: false)
            default: try restart(disk.afterKill(), isKill: true)
            }
        }

        private func restart(_ image: SimulatedDisk, isKill: Bool) throws {
            if !isKill { try harness.store.close() }
            disk = image
            harness = Harness(configuration, disk: disk, clock: clock)
            try harness.store.open()
        }

        private func tick() throws {
            var next = model
            var appended = 0
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let topic = "T\(Int.random(in: 0..<2, using: &random))"
                let queueID = Int32.random(in: 0..<2, using: &random)
                let key = Self.key(topic, queueID)
                counter += 1
                let body = "\(counter) " + String(repeating: "b", count: Int.random(in: 0..<500, using: &random))
                guard random.chance(50), let queue = harness.store.consumeQueue(topic: topic, queueID: queueID),
                    queue.maxOffset > queue.minOffset
                else {
                    guard case .appended(let result) = harness.send(topic, queueID, body: body) else { continue }
                    #expect(Int(result.queueOffset.rawValue) == next[key]?.count ?? 0)
                    next[key, default: []].append(body)
                    appended += 1
                    continue
                }
                let offset = Int64.random(in: queue.minOffset.rawValue..<queue.maxOffset.rawValue, using: &random)
                let present = harness.store.currentVersion(queue, at: QueueOffset(offset))
                let deletes = random.chance(25)
                let outcome = harness.edit(topic, queueID, at: offset, body: deletes ? nil : body)
                switch outcome {
                case .appended:
                    appended += 1
                    #expect((next[key]?[Int(offset)] ?? nil) != nil && present?.isDeleted == false)
                    next[key]?[Int(offset)] = deletes ? nil : body
                case .refused(.noSuchMessage): #expect((next[key]?[Int(offset)] ?? nil) == nil)
                case .refused(.editedMeanwhile): break
                case .refused(let refusal): Issue.record("\(refusal)")
                }
            }
            if appended > 0, random.chance(10) {
                disk.fault.withLock { $0 = { call, path in call == "pwrite" && path.contains("commitlog") ? 28 : nil } }
                #expect(throws: StoreError.self) { try harness.store.commitTick() }
                disk.fault.withLock { $0 = nil }
                harness.maintain(2500)
            } else if (try? harness.store.commitTick()) != nil {
                model = next
            }
        }

        func check(_ words: String) {
            for (key, texts) in model {
                let topic = String(key.prefix(2))
                let queueID = Int32(key.suffix(1)) ?? 0
                guard let queue = harness.store.consumeQueue(topic: topic, queueID: queueID) else {
                    #expect(texts.isEmpty, "\(words): \(key) is gone")
                    continue
                }
                let first = Int(queue.minOffset.rawValue)
                #expect(Int(queue.maxOffset.rawValue) == texts.count, "\(words): \(key)")
                let wanted = texts.dropFirst(first).compactMap { $0 }
                #expect(harness.bodies(topic, queueID) == wanted, "\(words): \(key) from \(first)")
                for (index, entry) in harness.store.entries(queue, from: queue.minOffset, maxCount: .max).enumerated() {
                    #expect((entry == .deleted) == (texts[first + index] == nil), "\(words): \(key) \(first + index)")
                }
            }
            let versions = harness.store.consumeQueues.reduce(0) { sum, queue in
                sum + QueueEdits.messages(queue.edits?.blocks ?? [:]).reduce(0) { $0 + 1 + $1.former.count }
            }
            #expect(harness.store.edits.total.versions == versions, "\(words)")
        }
    }

    @Test func readersSeeWhatTheModelHolds() throws {
        let environment = ProcessInfo.processInfo.environment
        let seeds = environment["APUS_EDIT_SEEDS"].flatMap { UInt64($0) } ?? 20
        for seed in CrashTests.seed..<CrashTests.seed + seeds {
            let world = try World(seed: seed)
            for number in 0..<120 {
                try world.step()
                world.check("APUS_SEED=\(seed) step \(number)")
            }
            try world.harness.store.close()
        }
        print("edits agree with the model: seeds \(CrashTests.seed) and \(seeds - 1) more")
    }
}
