import Foundation
import LinuxSystem
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// What is written behind the log, when something comes in between.
@Suite struct WriteBehindTests {
    let clock = TestClock()

    private func query(_ harness: Harness, _ key: String) -> Int {
        harness.store.queryMessage(topic: "T", key: key, maxCount: 9, begin: 0, end: .max).records.count
    }

    /// A pass writes the header it began with; keys that came later must be in the index all the same.
    @Test(arguments: [0, 1, 2, 3]) func keysSurviveAStopInTheMiddleOfAPass(_ steps: Int) throws {
        let folder = try TemporaryFolder()
        var configuration = StoreConfiguration.small(folder.path)
        configuration.maxHashSlotNum = 1_500_000
        configuration.maxIndexNum = 20_000
        let background = ManualBackground(immediate: false)
        let harness = Harness(configuration, clock: clock, background: background)
        try harness.store.open()
        harness.settle()
        for number in 0..<4000 {
            harness.send("T", body: "\(number)", keys: "k\(number)")
            if number % 100 == 0 { try harness.store.commitTick() }
        }
        try harness.store.commitTick()
        clock.advance(2000)
        harness.store.runMaintenance()
        for _ in 0..<steps {
            background.runOnce()
            harness.loop.runOnce()
        }
        for number in 4000..<4100 { harness.send("T", body: "\(number)", keys: "k\(number)") }
        try harness.store.commitTick()
        #expect(query(harness, "k4099") == 1 && query(harness, "k5") == 1)
        try harness.store.close()
        let next = Harness(configuration, clock: clock)
        try next.store.open()
        for number in stride(from: 0, to: 4100, by: 7) { #expect(query(next, "k\(number)") == 1, "k\(number)") }
        for number in 4000..<4100 { #expect(query(next, "k\(number)") == 1, "k\(number)") }
        try next.store.close()
    }

    /// Files for new queues are made on another thread: a topic that goes away, or begins again, meanwhile.
    @Test func topicsThatGoWhileTheirFilesAreMade() throws {
        let folder = try TemporaryFolder()
        let background = ManualBackground(immediate: false)
        let configuration = StoreConfiguration.small(folder.path)
        let harness = Harness(configuration, clock: clock, background: background)
        try harness.store.open()
        harness.settle()
        for number in 0..<40 { harness.send(number % 2 == 0 ? "Stay" : "Go", Int32(number), body: "old \(number)") }
        try harness.store.commitTick()
        clock.advance(2000)
        harness.store.runMaintenance()
        // The files are being made now.
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/consumequeue/Stay"))
        harness.store.removeTopic("Go")
        harness.send("Go", 1, body: "new")
        try harness.store.commitTick()
        #expect(harness.bodies("Go", 1) == ["new"] && harness.bodies("Stay", 4) == ["old 4"])
        harness.maintain(5000)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path + "/consumequeue/Go") == ["1"])
        harness.store.abandon()
        let next = Harness(configuration, clock: clock)
        try next.store.open()
        #expect(next.bodies("Go", 1) == ["new"] && next.bodies("Go", 3).isEmpty)
        for number in stride(from: 0, to: 40, by: 2) {
            #expect(next.bodies("Stay", Int32(number)) == ["old \(number)"])
        }
        try next.store.close()
    }

    /// The files cannot be made: messages are refused, nothing is lost, and it goes on when they can.
    @Test func aFullDiskWhileFilesAreMade() throws {
        let disk = SimulatedDisk()
        let harness = Harness(.small("/store"), disk: disk, clock: clock)
        try harness.store.open()
        harness.maintain(2000)
        disk.fault.withLock {
            $0 = { call, path in call == "mkdir" && path.contains("/consumequeue/T") ? ENOSPC : nil }
        }
        for number in 0..<20 { harness.send("T", Int32(number), body: "\(number)") }
        try harness.store.commitTick()
        var refusals = 0
        for _ in 0..<30 {
            harness.maintain(100)
            if harness.store.notWritable != nil { refusals += 1 }
        }
        #expect(refusals > 0)
        for number in 0..<20 { #expect(harness.bodies("T", Int32(number)) == ["\(number)"]) }
        disk.fault.withLock { $0 = nil }
        harness.maintain(5000)
        #expect(harness.store.notWritable == nil)
        let next = Harness(.small("/store"), disk: disk.afterKill(), clock: clock)
        try next.store.open()
        for number in 0..<20 { #expect(next.bodies("T", Int32(number)) == ["\(number)"]) }
    }
}
