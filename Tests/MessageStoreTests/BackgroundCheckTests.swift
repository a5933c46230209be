import Foundation
import LinuxSystem
import MessageModel
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// What a start believes is looked at behind it.
@Suite struct BackgroundCheckTests {
    let disk = SimulatedDisk()
    let clock = TestClock()
    let configuration = StoreConfiguration.small("/store")

    /// 300 messages in two queues and several log files, written behind; then a kill. Returns where each lies.
    private func killed() throws -> (image: SimulatedDisk, places: [PhysicalOffset]) {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        var places: [PhysicalOffset] = []
        for number in 0..<300 {
            let outcome = harness.send(
                "T", Int32(number % 2), body: "\(number) " + String(repeating: "body", count: 200), tags: "t",
                keys: "k\(number) shared", unique: "u\(number)")
            guard case .appended(let result) = outcome else { continue }
            places.append(result.physicalOffset)
            if number % 10 == 9 { try harness.store.commitTick() }
        }
        try harness.store.commitTick()
        harness.maintain(5000)
        return (disk.afterKill(), places)
    }

    private func logFile(_ offset: PhysicalOffset) -> (path: String, place: Int) {
        let base = offset.rawValue / 65_536 * 65_536
        return ("/store/commitlog/" + StoreFileName.of(offset: base), Int(offset.rawValue - base))
    }

    private func overwrite(_ image: SimulatedDisk, _ path: String, at offset: Int64, _ bytes: [UInt8]) throws {
        let file = try image.open(path, .readWrite)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        defer { buffer.deallocate() }
        buffer.copyBytes(from: bytes)
        try file.write(UnsafeRawBufferPointer(buffer), at: offset)
    }

    @Test func aSoundStoreHasNoFindings() throws {
        let (image, _) = try killed()
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        #expect(next.store.recoveredFrom.rawValue > 200_000)
        #expect(next.store.runtimeInformation.checkRemainingBytes == next.store.recoveredFrom.rawValue)
        next.maintain()
        let information = next.store.runtimeInformation
        #expect(information.checkRemainingBytes == 0 && next.store.checkState.records == 300)
        #expect(information.checkDamaged == 0 && information.checkWrongEntries == 0)
        #expect(information.checkRepairedEntries == 0 && information.checkUnindexed == 0)
        // After a clean stop there is nothing to doubt.
        try next.store.close()
        let again = Harness(configuration, disk: image, clock: clock)
        try again.store.open()
        #expect(again.store.runtimeInformation.checkRemainingBytes == 0)
    }

    @Test(arguments: ["body", "size", "magic", "zeros"])
    func damageInTheOldLogIsFoundAndNotDelivered(_ kind: String) throws {
        let (image, places) = try killed()
        let (path, place) = logFile(places[17])
        switch kind {
        case "body": image.flip(path, byte: place + 200, bit: 3)
        case "size": image.flip(path, byte: place + 3, bit: 2)
        case "magic": image.flip(path, byte: place + 5, bit: 0)
        default: try overwrite(image, path, at: Int64(place), Array(repeating: 0, count: 500))
        }
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        next.maintain()
        #expect(next.store.runtimeInformation.checkRemainingBytes == 0)
        #expect(next.store.runtimeInformation.checkDamaged >= 1)
        #expect(next.store.checkState.records >= 298)
        let found = next.bodies("T", 0) + next.bodies("T", 1)
        #expect(found.count == 299 && !found.contains { $0.hasPrefix("17 ") })
    }

    @Test func wrongQueueEntriesArePutRight() throws {
        let (image, _) = try killed()
        // 100 entries a file: one entry empty, one that points elsewhere, one with another tag.
        let second = "/store/consumequeue/T/1/" + StoreFileName.of(offset: 0)
        try overwrite(image, second, at: 40 * 20, Array(repeating: 0, count: 20))
        try overwrite(image, second, at: 60 * 20 + 7, [99])
        image.flip(second, byte: 80 * 20 + 19, bit: 1)
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        next.maintain()
        #expect(next.store.runtimeInformation.checkRepairedEntries == 3)
        #expect(next.store.runtimeInformation.checkWrongEntries == 0)
        #expect(next.store.runtimeInformation.checkDamaged == 0)
        let found = next.bodies("T", 1, tagsCodes: [TagsCode.of("t")])
        #expect(found.count == 150)
        // The same on the disk.
        let third = Harness(configuration, disk: image.afterKill(), clock: clock)
        try third.store.open()
        #expect(third.bodies("T", 1).count == 150)
    }

    @Test func missingKeysAreSaid() throws {
        let (image, _) = try killed()
        let name = try #require(image.paths.first { $0.hasPrefix("/store/index/") })
        // The third entry's hash.
        image.flip(name, byte: 40 + 4 * configuration.maxHashSlotNum + 3 * 20 + 2, bit: 5)
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        next.maintain()
        #expect(next.store.runtimeInformation.checkUnindexed == 1)
    }

    /// Queues that began again, expired files, transactions, batches: nothing to find fault with.
    @Test func historiesThatLookOdd() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for life in 0..<3 {
            for number in 0..<(60 - 20 * life) { harness.send("T", body: "\(life) \(number)", keys: "k") }
            for number in 0..<30 {
                harness.send("Half", body: "\(number)", unique: "u\(number)", sysFlag: number % 3 == 0 ? 4 : 12)
                harness.send("SCHEDULE_TOPIC_XXXX", 2, body: "\(number)", extra: "DELAY\u{1}3\u{2}")
                harness.send("L", body: String(repeating: "l", count: 9000))
            }
            try harness.store.commitTick()
            harness.maintain()
            if life < 2 { harness.store.removeTopic("T") }
        }
        #expect(harness.store.deleteOldestFile())
        harness.maintain(5000)
        let next = Harness(configuration, disk: disk.afterKill(), clock: clock)
        try next.store.open()
        next.maintain(5000)
        let information = next.store.runtimeInformation
        #expect(next.store.checkState.records > 100)
        #expect(information.checkRemainingBytes == 0 && information.checkDamaged == 0)
        #expect(information.checkWrongEntries == 0 && information.checkRepairedEntries == 0)
        #expect(information.checkUnindexed == 0)
        #expect(next.bodies("T").count == 20)
    }

    /// More of them than a slice keeps of damages: none may be counted or left unrepaired unseen.
    @Test func manyMessagesOfDeletedTopicsHideNothing() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        func send(_ topic: String, _ count: Int, _ rest: String = "") throws {
            for number in 0..<count {
                harness.send(topic, body: "\(number)" + rest)
                if number % 10 == 9 { try harness.store.commitTick() }
            }
            try harness.store.commitTick()
        }
        for topic in ["Gone", "Again"] {
            try send(topic, 250)
            harness.store.removeTopic(topic)
        }
        try send("Again", 3)
        try send("T", 200)
        try send("L", 40, String(repeating: "l", count: 9000))
        harness.maintain(5000)
        let image = disk.afterKill()
        try overwrite(
            image, "/store/consumequeue/T/0/" + StoreFileName.of(offset: 0), at: 5 * 20, Array(repeating: 0, count: 20))
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        next.maintain(5000)
        let information = next.store.runtimeInformation
        #expect(next.store.checkState.records > 500 && information.checkRemainingBytes == 0)
        #expect(information.checkWrongEntries == 0 && information.checkRepairedEntries == 1)
        #expect(next.bodies("T").count == 200 && next.bodies("Again").count == 3)
    }

    /// A consumer that waits for the first message of a topic made again makes its queue, empty, while the check is on
    /// its way (stateful fuzzing, seed 11: nine "wrong entries" in a sound store).
    @Test(arguments: [true, false])
    func waitingForATopicMadeAgainIsNoFinding(_ deletionIsKnown: Bool) throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for topic in ["Gone", "Half"] {
            for number in 0..<9 { harness.send(topic, body: "\(number)") }
            try harness.store.commitTick()
            harness.store.removeTopic(topic)
        }
        for number in 0..<2 { harness.send("Half", body: "again \(number)") }
        for number in 0..<100 { harness.send("T", body: "\(number)" + String(repeating: "l", count: 900)) }
        try harness.store.commitTick()
        harness.maintain(5000)
        let image = disk.afterKill()
        // As RocketMQ leaves it.
        if !deletionIsKnown {
            for name in ["deletedTopics.json", "deletedTopics.json.bak"] { try? image.remove("/store/config/" + name) }
        }
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        #expect(next.store.findConsumeQueue(topic: try TopicName(existing: "Gone"), queueID: 0).maxOffset.rawValue == 0)
        next.maintain(5000)
        let information = next.store.runtimeInformation
        #expect(next.store.checkState.records == 120 && information.checkRemainingBytes == 0)
        #expect(information.checkWrongEntries == 0 && information.checkRepairedEntries == 0)
        #expect(next.bodies("Gone").isEmpty && next.bodies("Half").count == 2 && next.bodies("T").count == 100)
    }

    /// What is read again after a failure counts once; a topic's files may be moved away while they are looked at
    /// (stateful fuzzing, seed 26009: 63 messages of a sound store "lacked keys").
    @Test(arguments: [EIO, ENOENT])
    func aRangeThatIsReadAgainHasNoFindings(_ code: Int32) throws {
        let (image, _) = try killed()
        let next = Harness(configuration, disk: image, clock: clock)
        try next.store.open()
        let calls = Mutex(0)
        image.fault.withLock {
            $0 = { call, path in
                guard call == "open", path.contains("/consumequeue/") else { return nil }
                return calls.withLock { count in
                    count += 1
                    return count == 2 ? code : nil
                }
            }
        }
        next.maintain()
        #expect(calls.withLock { $0 } > 2)
        let information = next.store.runtimeInformation
        #expect(information.checkRemainingBytes == 0 && next.store.checkState.records == 300)
        #expect(information.checkDamaged == 0 && information.checkUnindexed == 0)
        #expect(information.checkWrongEntries == 0 && information.checkRepairedEntries == 0)
    }

    @Test(arguments: [("golden-4.9.8-clean.tar.gz", "golden-clean"), ("golden-5.3.3.tar.gz", "store-cap5")])
    func apachesStoresAreSound(_ fixture: String, _ name: String) throws {
        let folder = try TemporaryFolder()
        let path = try folder.unpack(fixture, folder: name)
        let harness = Harness(name == "golden-clean" ? .golden(path) : .golden5(path))
        try harness.store.open()
        harness.maintain(3000)
        let information = harness.store.runtimeInformation
        #expect(harness.store.checkState.records > 100 && information.checkRemainingBytes == 0)
        #expect(information.checkDamaged == 0 && information.checkUnindexed == 0)
        #expect(information.checkWrongEntries == 0 && information.checkRepairedEntries == 0)
        try harness.store.close()
    }
}
