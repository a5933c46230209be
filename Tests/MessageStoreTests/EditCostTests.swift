import Foundation
import LinuxSystem
import StoreFormat
import TestDisk
import Testing

@testable import MessageStore

/// What 100 000 versions cost. Figures, no test: `APUS_EDIT_COST=1` prints them, `APUS_EDIT_VERSIONS` says how many.
@Suite struct EditCostTests {
    private static func number(_ name: String) -> Int? {
        ProcessInfo.processInfo.environment[name].flatMap { Int($0) }
    }

    private static var residentBytes: Int {
        let words = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ") ?? []
        return (words.count > 1 ? Int(words[1]) ?? 0 : 0) * 4096
    }

    private func measured<R>(_ what: String, _ body: () throws -> R) rethrows -> R {
        let before = Self.residentBytes
        let start = ContinuousClock.now
        let result = try body()
        let bytes = (Self.residentBytes - before) / 1024
        print("edit cost: \(what): \(ContinuousClock.now - start), \(bytes) KiB more")
        return result
    }

    @Test(.enabled(if: ProcessInfo.processInfo.environment["APUS_EDIT_COST"] != nil))
    func manyVersions() throws {
        let count = Self.number("APUS_EDIT_VERSIONS") ?? EditTotal.versionsMax
        let folder = try TemporaryFolder()
        var configuration = StoreConfiguration(storePathRootDir: folder.path)
        configuration.mappedFileSizeCommitLog = 256 << 20
        configuration.diskReservedBytes = 0
        configuration.flushConsumeQueueThoroughInterval = 3000
        let clock = TestClock()
        func opened() throws -> Harness {
            let harness = Harness(configuration, clock: clock)
            try harness.store.open()
            return harness
        }
        var harness = try opened()
        for number in 0..<count {
            harness.send("T", body: "sent \(number)", keys: "k\(number)")
            if number % 1000 == 999 { try harness.store.commitTick() }
        }
        try harness.store.commitTick()
        harness.maintain(5000)
        var random = SeededGenerator(seed: 1)
        let order = (0..<count).shuffled(using: &random)
        var longest = Duration.zero
        try measured("edits of \(count) messages in no order, ticks of 32") {
            for (place, offset) in order.enumerated() {
                harness.edit("T", at: Int64(offset), body: "edited", properties: "KEYS\u{1}e\u{2}")
                guard place % 32 == 31 else { continue }
                let start = ContinuousClock.now
                try harness.store.commitTick()
                longest = max(longest, ContinuousClock.now - start)
            }
            try harness.store.commitTick()
        }
        print("edit cost: the longest of these ticks: \(longest)")
        harness.store.edits.beginPass()
        let work = measured("a pass, on the loop") { harness.store.beginEditsWork() }
        let job = try #require(work)
        measured("a pass, on its thread") { job.join() }
        let file = try RealDisk().information(harness.store.editFile.path)
        print("edit cost: the file has \(file?.size ?? 0) bytes")
        var ranges: [LogRange] = []
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        measured("1000 reads of 32 messages") {
            for start in 0..<1000 {
                _ = harness.store.selectMessages(
                    queue, from: QueueOffset(Int64(start * (count / 1100))), maxCount: 32, into: &ranges)
            }
        }
        harness.maintain(5000)
        try measured("stop") { try harness.store.close() }
        harness = try measured("start, with the file") { try opened() }
        #expect(harness.store.edits.total.versions == count)
        try harness.store.close()
        try RealDisk().remove(configuration.consumeQueuePath + "/.apus-edits")
        harness = try measured("start, from the log") { try opened() }
        #expect(harness.store.edits.total.versions == count)
        var query = harness.store.beginQuery(topic: "T", key: "k5", maxCount: 32, begin: 0, end: .max)
        measured("a key of a former version") {
            while !query.isDone { harness.store.advance(&query, steps: .max, bytes: .max) }
        }
        try harness.store.close()
    }
}
