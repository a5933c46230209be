import LinuxSystem
import MessageModel
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// What becomes of edits over files that are damaged, missing or another release's, disks that fail, and logs an older
/// release has copied.
@Suite struct EditRepairTests {
    private let disk: SimulatedDisk
    private let clock = TestClock()
    private let configuration = StoreConfiguration.small("/store")
    private static let path = "/store/consumequeue/.apus-edits"
    private static let points = "/store/consumequeue/.apus-recovery"

    init() {
        let clock = clock
        disk = SimulatedDisk(now: { clock.now })
    }

    private func opened(
        _ image: SimulatedDisk, boot: UInt8 = 1, log: LogLines? = nil, _ configuration: StoreConfiguration? = nil
    ) throws -> Harness {
        let next = Harness(configuration ?? self.configuration, disk: image, clock: clock, boot: boot, log: log)
        try next.store.open()
        return next
    }

    /// 150 messages, more than a file of the queue has: the first lie in a file only. Number 1 is edited, number 2
    /// deleted, all is written.
    private func filled(_ log: LogLines? = nil) throws -> Harness {
        let harness = try opened(disk, log: log)
        for number in 0..<150 { harness.send("T", body: "sent \(number)", keys: "k\(number)") }
        try harness.store.commitTick()
        harness.edit("T", at: 1, body: "edited 1", properties: "KEYS\u{1}e1\u{2}")
        harness.edit("T", at: 2, body: nil)
        try harness.store.commitTick()
        harness.maintain(70_000)
        return harness
    }

    private static let wanted = ["sent 0", "edited 1"] + (3..<150).map { "sent \($0)" }
    private static let sent = (0..<150).map { "sent \($0)" }

    /// As a release leaves the recovery points that knows no edits.
    private func age(_ image: SimulatedDisk) throws {
        let bytes = try #require(image.bytes(Self.points))
        for slot in stride(from: 0, to: bytes.count, by: 4096) {
            guard var point = bytes[slot...].withUnsafeBytes({ RecoveryPoint($0) }) else { continue }
            point.edits = 0
            image.apply(Self.points, offset: Int64(slot), bytes: point.encoded()[...])
        }
    }

    private func point(_ image: SimulatedDisk) throws -> RecoveryPoint {
        let bytes = try #require(image.bytes(Self.points))
        let points = stride(from: 0, to: bytes.count, by: 4096).compactMap { slot in
            bytes[slot...].withUnsafeBytes { RecoveryPoint($0) }
        }
        return try #require(points.max { $0.sequence < $1.sequence })
    }

    private static func failing(_ part: String) -> (@Sendable (String, String) -> Int32?) {
        { call, path in call == "pread" && path.contains(part) ? 5 : nil }
    }

    @Test func aPointOfAnOlderReleaseCounts() throws {
        let harness = try filled()
        #expect(try point(disk).edits == harness.store.edits.sequence)
        // What a master of an older release leaves: the file is of the release before it.
        harness.edit("T", at: 3, body: "edited 3")
        try harness.store.commitTick()
        let image = disk.afterKill()
        try age(image)
        let log = LogLines()
        let next = try opened(image, log: log)
        #expect(next.bodies("T", from: 0).prefix(3) == ["sent 0", "edited 1", "edited 3"])
        #expect(log.lines.isEmpty, "\(log.lines)")
        // A store without edits says so, and is not read for them.
        let empty = SimulatedDisk(now: { [clock] in clock.now })
        let first = try opened(empty)
        first.send("T", body: "m")
        try first.store.commitTick()
        first.maintain(70_000)
        #expect(try point(empty).edits == EditFile.noFile && empty.bytes(Self.path) == nil)
        try first.store.close()
        let second = try opened(empty)
        #expect(second.store.recoveredFrom == second.store.writtenOffset && !second.store.edits.isUnknown)
        for harness in [harness, next, second] { try harness.store.close() }
    }

    /// A slave of an older release has copied edits and made nothing of them.
    @Test func whatAnOlderSlaveHasCopiedIsFoundInTheBackground() throws {
        var slave = configuration
        slave.isSlave = true
        let harness = try filled()
        try harness.store.close()
        for isKill in [false, true] {
            let image = disk.afterKill()
            try age(image)
            try image.remove(Self.path)
            if isKill { _ = try image.open("/store/abort", .create) }
            let log = LogLines()
            let next = try opened(image, log: log, slave)
            #expect(next.store.recoveredFrom > PhysicalOffset(0), "the start does not read the whole log")
            #expect(next.bodies("T") == Self.sent)
            // Killed before the check has ended: it begins anew.
            next.store.edits.beginPass()
            let again = try opened(image.afterKill(), slave)
            #expect(again.store.edits.isUnknown)
            // Started as the master before it has ended: what the old master has edited is found all the same.
            let promoted = try opened(image.afterKill())
            #expect(promoted.store.edits.isUnknown)
            promoted.maintain(70_000)
            #expect(promoted.bodies("T") == Self.wanted && !promoted.store.edits.isUnknown, "\(isKill)")
            try promoted.store.close()
            next.maintain(70_000)
            #expect(next.bodies("T") == Self.wanted, "\(isKill)")
            #expect(!next.store.edits.isUnknown)
            #expect(!log.lines.contains { $0.contains("index lacks") }, "\(log.lines)")
            try next.store.close()
            let last = try opened(image)
            #expect(last.bodies("T") == Self.wanted && last.store.recoveredFrom == last.store.writtenOffset)
            try last.store.close()
        }
    }

    @Test func aTopicMadeAgainHasNoneOfTheOldOne() throws {
        let harness = try filled()
        let old = try #require(disk.bytes(Self.path))
        harness.store.removeTopic("T")
        harness.settle()
        for number in 0..<5 { harness.send("T", body: "new \(number)") }
        try harness.store.commitTick()
        harness.maintain(2000)
        try harness.store.close()
        // RocketMQ does not note which topics it deletes, and leaves the file as it is.
        for name in try disk.list("/store/config") { try disk.remove("/store/config/" + name) }
        _ = try disk.open(Self.path, .replace)
        disk.apply(Self.path, offset: 0, bytes: old[...])
        let next = try opened(disk)
        #expect(next.bodies("T") == (0..<5).map { "new \($0)" })
        #expect(next.store.edits.total.versions == 0)
        try next.store.close()
    }

    @Test func versionsWaitForQueuesThatCannotBeRead() throws {
        let log = LogLines()
        let harness = try filled(log)
        for offset: Int64 in [0, 5, 6, 7] { harness.edit("T", at: offset, body: "late \(offset)") }
        disk.fault.withLock { $0 = Self.failing("consumequeue/T/") }
        try harness.store.commitTick()
        harness.maintain(3000)
        // Once, however many wait and however often they are tried.
        #expect(log.lines.count { $0.contains("are entered when it can be read") } == 1, "\(log.lines)")
        #expect(harness.store.edits.isIncomplete && harness.store.edits.waiting.count == 4)
        #expect(try point(disk).dispatched == PhysicalOffset(0))
        let image = disk.afterKill()
        disk.fault.withLock { $0 = nil }
        var wanted = Self.wanted
        for (place, offset) in [(0, 0), (4, 5), (5, 6), (6, 7)] { wanted[place] = "late \(offset)" }
        harness.maintain(3000)
        #expect(harness.bodies("T") == wanted && !harness.store.edits.isIncomplete)
        #expect(try point(disk).dispatched == harness.store.writtenOffset)
        // Killed while they waited: the whole log is read.
        let next = try opened(image)
        #expect(next.bodies("T") == wanted)
        for harness in [harness, next] { try harness.store.close() }
    }

    @Test func whatTheFileNamesWaitsToo() throws {
        let harness = try filled()
        try harness.store.close()
        let image = disk.afterKill()
        let isOpen = Mutex(false)
        // The queue's file, but for what a start looks at first.
        image.fault.withLock {
            $0 = { call, path in
                guard call == "pread", path.contains("consumequeue/T/0/00000000000000000000") else { return nil }
                return isOpen.withLock { $0 } ? 5 : nil
            }
        }
        let next = Harness(configuration, disk: image, clock: clock)
        isOpen.withLock { $0 = true }
        do {
            try next.store.open()
        } catch {
            // The start itself looks at the first file: then it fails, and nothing is forgotten.
            isOpen.withLock { $0 = false }
            #expect(try opened(image).bodies("T") == Self.wanted)
            return
        }
        next.maintain(3000)
        isOpen.withLock { $0 = false }
        next.maintain(3000)
        #expect(next.bodies("T") == Self.wanted)
        try next.store.close()
        #expect(try opened(image).bodies("T") == Self.wanted)
    }

    @Test func aFileThatCannotBeReadIsReadFromTheLog() throws {
        let harness = try filled()
        try harness.store.close()
        for what in ["EIO", "leftover"] {
            let image = disk.afterKill()
            if what == "EIO" {
                image.fault.withLock { $0 = Self.failing(".apus-edits") }
            } else {
                _ = try image.open(Self.path + ".tmp", .create)
            }
            let log = LogLines()
            let next = try opened(image, log: log)
            image.fault.withLock { $0 = nil }
            #expect(next.bodies("T") == Self.wanted, "\(what)")
            #expect(log.lines.count { $0.contains(".apus-edits") } == (what == "leftover" ? 0 : 1), "\(log.lines)")
            #expect(image.bytes(Self.path + ".tmp") == nil, "\(what)")
            next.maintain(2000)
            try next.store.close()
            let later = LogLines()
            #expect(try opened(image, log: later).bodies("T") == Self.wanted && later.lines.isEmpty, "\(later.lines)")
        }
        // So large that none of ours it can be: memory for it is not asked for.
        guard case .damaged(let reason) = try EditFile(path: Self.path, disk: disk, sizeMax: 60).load() else {
            Issue.record("it was read")
            return
        }
        #expect(reason.contains("bytes"))
        // A leftover that stays is no reason not to start.
        let image = disk.afterKill()
        _ = try image.open(Self.path + ".tmp", .create)
        image.fault.withLock { $0 = { call, path in call == "remove" && path.hasSuffix(".tmp") ? 5 : nil } }
        let last = try opened(image)
        #expect(last.bodies("T") == Self.wanted)
        try last.store.close()
    }

    @Test func sequencesLeaveOutWhatMeansSomethingElse() {
        var state = EditsState()
        #expect(state.pointSequence == EditFile.noFile)
        state.sequence = 0xFF_FFFD
        #expect(state.nextSequence == 0xFF_FFFE && state.pointSequence == 0xFF_FFFD)
        state.sequence = 0xFF_FFFE
        #expect(state.nextSequence == 1)
        state.noteUnknown()
        #expect(state.pointSequence == 0)
    }

    // MARK: - Bounds

    @Test func noRangeIsReadThatIsLargerThanAFile() throws {
        let harness = try filled()
        let entry = ConsumeQueueEntry.deleted
        let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
        #expect(harness.store.withBytes(range) { _ in 1 } == nil && !harness.store.holdsMessage(range))
        let file = Int(configuration.mappedFileSizeCommitLog)
        for length in [file + 1, Int.max] {
            let range = LogRange(start: PhysicalOffset(0), length: length, count: 1)
            #expect(harness.store.withBytes(range) { _ in 1 } == nil)
        }
        try harness.store.close()
    }

    /// A prepared message gets properties when it is delivered.
    @Test func whatGrowsLaterHasRoomForIt() throws {
        let harness = try filled()
        func edit(_ filler: Int, growth: Int?) -> AppendOutcome {
            let filler = "F\u{1}" + String(repeating: "f", count: filler) + "\u{2}"
            return harness.edit("T", at: 9, body: "b", properties: filler, growth: growth)
        }
        let note = EditNote(version: 2, deletes: false, action: .edit, at: clock.now, by: "tester").text.utf8.count
        let largest = Int(Int16.max) - note - "APUS_EDIT".utf8.count - 5
        #expect(edit(largest - 512 + 1, growth: 512) == .refused(.propertiesTooLarge))
        #expect(edit(largest + 1, growth: nil) == .refused(.propertiesTooLarge))
        guard case .appended = edit(largest - 512, growth: 512) else {
            Issue.record("refused")
            return
        }
        try harness.store.commitTick()
        try harness.store.close()
    }

    /// Nothing was read: no master is short of memory for it.
    @Test func deletedMessagesSendNoClientToTheSlave() throws {
        var small = configuration
        small.accessMessageInMemoryMaxRatio = 0
        let harness = try opened(disk, small)
        for number in 0..<4 { harness.send("T", body: "\(number)") }
        try harness.store.commitTick()
        for offset: Int64 in 0..<3 { harness.edit("T", at: offset, body: nil) }
        try harness.store.commitTick()
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        var ranges: [LogRange] = []
        harness.edit("T", at: 3, body: nil)
        let before = harness.store.selectMessages(queue, from: QueueOffset(0), maxCount: 9, into: &ranges)
        #expect(before.messageCount == 1 && before.suggestPullingFromSlave)
        try harness.store.commitTick()
        let after = harness.store.selectMessages(queue, from: QueueOffset(0), maxCount: 9, into: &ranges)
        #expect(after.messageCount == 0 && after.nextBeginOffset.rawValue == 4 && !after.suggestPullingFromSlave)
        try harness.store.close()
    }

    // MARK: - Index

    @Test func aMessageEditedOftenHidesNoOther() throws {
        var index = configuration
        // Its versions go over several files of the index.
        index.maxIndexNum = 120
        let harness = try opened(disk, index)
        for number in 0..<8 {
            harness.send("T", body: "\(number)", keys: "shared k\(number)", unique: "U\(number)")
            clock.advance(1000)
        }
        try harness.store.commitTick()
        let shared = "KEYS\u{1}shared\u{2}UNIQ_KEY\u{1}U3\u{2}"
        for version: Int64 in 2..<300 {
            harness.edit("T", at: 3, body: "version \(version)", properties: shared, version: version)
            try harness.store.commitTick()
            clock.advance(10)
        }
        harness.edit("T", at: 5, body: nil)
        try harness.store.commitTick()
        harness.maintain(2000)
        func bodies(_ key: String, steps: Int, _ maxCount: Int = 64, allVersions: Bool = false) -> [String] {
            var query = harness.store.beginQuery(
                topic: "T", key: key, maxCount: maxCount, begin: 0, end: .max, allVersions: allVersions)
            var slices = 0
            while !query.isDone {
                harness.store.advance(&query, steps: steps, bytes: .max)
                slices += 1
            }
            #expect(slices < 3 * 400 / min(steps, 400) + 40)
            return harness.store.result(of: query).records.map { range in
                let records = harness.store.withBytes(range) { Record.all(Array($0)) } ?? []
                return records.map { String(decoding: $0.body, as: UTF8.self) }.joined()
            }
        }
        for steps in [Int.max, 10] {
            #expect(bodies("shared", steps: steps) == ["0", "1", "2", "4", "6", "7", "version 299"], "\(steps)")
            #expect(bodies("shared", steps: steps, 3) == ["6", "7", "version 299"])
            #expect(bodies("U3", steps: steps) == ["version 299"])
            #expect(bodies("k5", steps: steps).isEmpty && bodies("k4", steps: steps) == ["4"])
            #expect(bodies("none", steps: steps).isEmpty)
            #expect(bodies("shared", steps: steps, allVersions: true).count == 64)
        }
        try harness.store.close()
    }

    /// After a kill the check compares what the start has trusted, edits among it.
    @Test func theCheckLooksForTheKeysOfEdits() throws {
        let harness = try filled()
        let (image, other) = (disk.afterKill(), disk.afterKill())
        try harness.store.close()
        let log = LogLines()
        let next = try opened(image, log: log)
        next.maintain(20_000)
        #expect(next.store.checkState.check == nil && log.lines.isEmpty, "\(log.lines)")
        // Its last entry is that of the edit's key.
        let name = try #require(try other.list("/store/index").first)
        let layout = try #require(harness.store.index).layout
        let count = try #require(harness.store.index?.files.last).header.indexCount
        other.flip("/store/index/" + name, byte: Int(layout.entryPosition(Int(count) - 1)) + 1, bit: 2)
        let later = LogLines()
        let damaged = try opened(other, log: later)
        damaged.maintain(20_000)
        #expect(later.lines.contains { $0.contains("the index lacks keys") }, "\(later.lines)")
        for harness in [next, damaged] { try harness.store.close() }
    }
}
