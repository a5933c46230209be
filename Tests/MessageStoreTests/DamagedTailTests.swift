import Foundation
import LinuxSystem
import StoreFormat
import Testing

@testable import MessageStore

/// Zeros and garbage behind the last recovery point, where the log's end is looked for: what is damage, what is the end.
@Suite struct DamagedTailTests {
    let clock = TestClock()
    let disk: SimulatedDisk
    var configuration = StoreConfiguration.small("/store")
    private static let log = "/store/commitlog/" + StoreFileName.of(offset: 0)

    init() {
        let clock = clock
        disk = SimulatedDisk(now: { clock.now })
    }

    /// Sends and answers where each message lies.
    private func send(_ harness: Harness, _ numbers: Range<Int>) throws -> [Range<Int64>] {
        var places: [Range<Int64>] = []
        for number in numbers {
            guard
                case .appended(let result) = harness.send(
                    "T", Int32(number % 2), body: "\(number) " + String(repeating: "b", count: 100),
                    unique: "U\(number)")
            else {
                Issue.record("\(number) was refused")
                continue
            }
            places.append(result.physicalOffset.rawValue..<result.end.rawValue)
            try harness.store.commitTick()
            harness.settle()
        }
        return places
    }

    private func numbers(_ harness: Harness) -> [Int] {
        (harness.bodies("T", 0) + harness.bodies("T", 1)).compactMap { Int($0.prefix { $0 != " " }) }.sorted()
    }

    private func makeZero(_ image: SimulatedDisk, _ range: Range<Int64>) throws {
        let zeros = [UInt8](repeating: 0, count: range.count)
        try zeros.withUnsafeBytes { try image.open(Self.log, .readWrite).write($0, at: range.lowerBound) }
    }

    /// A killed process wrote in order: a lost block costs what lay in it, and nothing behind it comes back later as something else.
    @Test(arguments: [1, 3])
    func zerosAreSteppedOverAfterAKill(_ lost: Int) throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        _ = try send(harness, 0..<5)
        harness.maintain(3000)
        let places = try send(harness, 5..<25)
        let image = disk.afterKill()
        try makeZero(image, places[6].lowerBound..<places[6 + lost - 1].upperBound)
        let left = (0..<25).filter { $0 < 11 || $0 >= 11 + lost }
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        #expect(numbers(next) == left)
        _ = try send(next, 25..<28)
        #expect(numbers(next) == left + [25, 26, 27])
        for boot: UInt8 in [1, 1, 1] {
            let again = Harness(configuration, disk: image.afterKill(), clock: clock, boot: boot)
            try again.store.open()
            #expect(numbers(again) == left + [25, 26, 27])
        }
    }

    /// Bytes behind the end that are no message become zeros before anything is written, whatever is found there.
    @Test func garbageIsCutOff() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        _ = try send(harness, 0..<5)
        harness.maintain(3000)
        let end = harness.store.writtenOffset.rawValue
        let image = disk.afterKill()
        let garbage = [UInt8](repeating: 0xA5, count: 300)
        try garbage.withUnsafeBytes { try image.open(Self.log, .readWrite).write($0, at: end + 2000) }
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        #expect(next.store.writtenOffset.rawValue == end)
        let bytes = try #require(image.bytes(Self.log))
        #expect(bytes.count == 64 * 1024 && bytes[Int(end)...].allSatisfy { $0 == 0 })
        _ = try send(next, 5..<40)
        let again = Harness(configuration, disk: image.afterKill(), clock: clock)
        try again.store.open()
        #expect(numbers(again) == Array(0..<40))
    }

    /// After a power cut zeros are the end, but never below what the last pass noted down as synchronized: those messages were promised.
    @Test func promisedMessagesBehindZerosSurviveAPowerCut() throws {
        var configuration = configuration
        configuration.flushDiskType = .syncFlush
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        _ = try send(harness, 0..<5)
        harness.maintain(3000)
        let hard = harness.store.maintenance.checkpointDispatched
        let places = try send(harness, 5..<25)
        harness.maintain(2000)
        #expect(harness.store.maintenance.checkpointDispatched == hard, "a checkpoint came too early for this test")
        // All was written back before the power went, and one block is lost.
        let image = disk.afterKill()
        try makeZero(image, places[6])
        let next = Harness(configuration, disk: image, clock: clock, boot: 2)
        try next.store.open()
        #expect(numbers(next) == (0..<25).filter { $0 != 11 })
    }
}
