import Foundation
import LinuxSystem
import MessageModel
import StoreFormat
import StoreJudge
import TestDisk
import Testing

@testable import MessageStore
@testable import StoreReader

/// Numbers in files and names that no broker writes: none may stop a start or the broker, or keep it busy for ever.
@Suite struct ImpossibleNumbersTests {
    let clock = TestClock()

    private func put(_ value: some FixedWidthInteger, _ disk: SimulatedDisk, _ path: String, at offset: Int) throws {
        let file = try disk.open(path, .create)
        try withUnsafeBytes(of: value.bigEndian) { try file.write($0, at: Int64(offset)) }
    }

    private static let offsets: [Int64] = [Int64.min, -1, Int64.max - 10, Int64.max, (1 << 60) + 5]

    // MARK: - Queues

    enum Start: CaseIterable {
        case clean
        case killed
        /// RocketMQ was killed in the folder.
        case rocketMQKilled
        case powerCut
    }

    /// The last entry of a queue leads a start without a recovery point to the log's end.
    @Test(arguments: Start.allCases, [false, true])
    func theLastEntry(_ start: Start, _ hasPoint: Bool) throws {
        for offset in Self.offsets {
            let disk = SimulatedDisk()
            let harness = Harness(.small("/store"), disk: disk, clock: clock)
            try harness.store.open()
            for number in 0..<250 { harness.send("T", body: "\(number)") }
            try harness.store.commitTick()
            harness.maintain(5000)
            try harness.store.close()
            let path = "/store/consumequeue/T/0/" + StoreFileName.of(offset: 4000)
            try put(offset, disk, path, at: 49 * 20)
            try put(Int32(100), disk, path, at: 49 * 20 + 8)
            if !hasPoint { try disk.remove("/store/consumequeue/.apus-recovery") }
            if start != .clean {
                let abort = try disk.open("/store/abort", .create)
                if start != .rocketMQKilled {
                    try Array("apus".utf8).withUnsafeBytes { try abort.write($0, at: 0) }
                }
            }
            let next = Harness(
                .small("/store"), disk: disk, clock: clock, boot: start == .powerCut ? 2 : 1,
                machineStart: start == .rocketMQKilled ? 1 : 0)
            try next.store.open()
            let wanted = (0..<250).map { "\($0)" }
            let bodies = next.bodies("T")
            #expect(bodies == wanted || bodies == wanted.dropLast(), "\(start) \(hasPoint) \(offset): \(bodies.count)")
            let queue = try #require(next.store.consumeQueue(topic: "T", queueID: 0))
            _ = try next.store.firstOffset(queue, storedSince: clock.now)
            #expect(next.store.offset(topic: "T", queueID: 0, byTimestamp: clock.now).rawValue >= 0)
            next.send("T", body: "next")
            try next.store.commitTick()
            #expect(next.bodies("T").last == "next")
            next.maintain(5000)
            try next.store.close()
        }
    }

    /// What an archive asks for at run time: a search that meets the entry in the middle.
    @Test func aSearchForATime() throws {
        for offset in Self.offsets {
            let disk = SimulatedDisk()
            let harness = Harness(.small("/store"), disk: disk, clock: clock)
            try harness.store.open()
            for number in 0..<250 { harness.send("T", body: "\(number)") }
            try harness.store.commitTick()
            harness.maintain(5000)
            try put(offset, disk, "/store/consumequeue/T/0/" + StoreFileName.of(offset: 2000), at: 25 * 20)
            let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
            #expect(queue.minOffset.rawValue == 0 && queue.maxOffset.rawValue == 250)
            #expect(try harness.store.firstOffset(queue, storedSince: .max).rawValue >= 125)
            try harness.store.close()
        }
    }

    /// An entry's size has one wrong bit: what is read for it is no larger than the record, even where the log has as
    /// much.
    @Test(arguments: [22, 23, 28, 30])
    func theSizeOfAnEntry(_ bit: Int) throws {
        let folder = try TemporaryFolder()
        var configuration = StoreConfiguration.small(folder.path + "/store")
        configuration.mappedFileSizeCommitLog = 16 << 20
        configuration.maxMessageSize = 1 << 20
        let harness = Harness(configuration, clock: clock)
        try harness.store.open()
        for number in 0..<130 {
            harness.send("T", body: "\(number) " + String(repeating: "b", count: 100_000))
            try harness.store.commitTick()
        }
        harness.maintain(5000)
        try harness.store.close()
        let next = Harness(configuration, clock: clock)
        try next.store.open()
        let queue = try #require(next.store.consumeQueue(topic: "T", queueID: 0))
        let entry = try #require(try next.store.queueFiles.entry(queue, at: QueueOffset(30)))
        let size = Int(entry.recordSize) ^ 1 << bit
        #expect(!next.store.belongs(entry.physicalOffset, size, queue, QueueOffset(30)))
        #expect(!next.store.isReadable(entry.physicalOffset, size, in: queue, at: QueueOffset(30)))
        #expect(!next.store.holdsRecord(at: entry.physicalOffset, size: size, .body))
        #expect(next.store.windows.scratch.count < 1 << 20)
        #expect(next.store.isReadable(entry.physicalOffset, Int(entry.recordSize), in: queue, at: QueueOffset(30)))
        try next.store.close()
    }

    // MARK: - The index

    /// The header and the last entry agree on an offset no log has.
    @Test(arguments: [false, true])
    func theIndexLeadsNowhere(_ afterKill: Bool) throws {
        let made = try ImageStore()
        let path = try #require(made.disk.paths.first { $0.hasPrefix("/store/index/") })
        for offset in Self.offsets {
            for isFirst in [false, true] {
                let image = made.disk.afterKill()
                try put(offset, image, path, at: isFirst ? 16 : 24)
                try put(offset, image, path, at: 40 + 4 * 500 + 20 * (isFirst ? 1 : 400) + 4)
                let opened = try made.open(image, afterKill: afterKill)
                #expect(opened.bodies.count == 200)
                opened.harness.send("Topic", body: "new", unique: "new")
                try opened.harness.store.commitTick()
                for key in ["U0", "U150", "U199", "new"] {
                    let found = opened.harness.store.queryMessage(
                        topic: "Topic", key: key, maxCount: 9, begin: 0, end: .max)
                    #expect(found.records.count == 1, "\(offset) \(isFirst) \(key)")
                }
                try opened.harness.store.close()
            }
        }
    }

    /// A count of slots that is as high as it gets stopped the broker with the next key, after each start again.
    @Test(arguments: [Int32.max, -1, Int32.min])
    func theIndexCountsTooManySlots(_ count: Int32) throws {
        let made = try ImageStore()
        let path = try #require(made.disk.paths.first { $0.hasPrefix("/store/index/") })
        let image = made.disk.afterKill()
        try put(count, image, path, at: 32)
        for round in 0..<2 {
            let next = Harness(made.configuration, disk: image, clock: clock)
            try next.store.open()
            for number in 0..<20 { next.send("Topic", body: "\(number)", unique: "new\(round)-\(number)") }
            try next.store.commitTick()
            for key in ["U150", "new\(round)-7"] {
                let found = next.store.queryMessage(topic: "Topic", key: key, maxCount: 9, begin: 0, end: .max)
                #expect(found.records.count == 1, "\(key)")
            }
            next.maintain(5000)
            try next.store.close()
        }
    }

    // MARK: - Names

    private static let beyond = ["09223372036854775807", "09223372035781033984", "09223372036854000000"]

    /// Files whose names are numbers no store comes to are left alone.
    @Test(arguments: beyond, [false, true])
    func names(_ name: String, _ afterKill: Bool) throws {
        let made = try ImageStore()
        let image = made.disk.afterKill()
        let odd = ["recordsums", "commitlog", "consumequeue/Topic/0", "consumequeue/Other/0"].map {
            "/store/\($0)/\(name)"
        }
        for path in odd {
            try image.createDirectory(String(path.dropLast(21)))
            try put(Int64(1), image, path, at: 0)
        }
        if afterKill { _ = try image.open("/store/abort", .create) }
        for _ in 0..<2 {
            let log = LogLines()
            let next = Harness(made.configuration, disk: image, clock: clock, log: log)
            try next.store.open()
            #expect(next.bodies("Topic", 0).count == 100 && next.bodies("Topic", 1).count == 100)
            next.maintain(5000)
            #expect(log.lines.contains { $0.contains(name) && $0.contains("/store/commitlog") }, "\(log.lines)")
            try next.store.close()
        }
        for path in odd { #expect(image.paths.contains(path), "\(path)") }
        // Nor do they make an empty log look used, or the other way round.
        let configuration = made.configuration
        #expect(try EmptyLogEvidence(configuration: configuration, disk: image).find() == nil)
    }

    /// What a kill has left of a removed topic, with a number none was given.
    @Test(arguments: [".removed-9223372036854775807", ".removed--9223372036854775808", ".removed-x"])
    func aLeftFolder(_ name: String) throws {
        let disk = SimulatedDisk(now: { clock.now })
        let harness = Harness(.small("/store"), disk: disk, clock: clock)
        try harness.store.open()
        for topic in ["A", "B"] { harness.send(topic, body: topic) }
        try harness.store.commitTick()
        harness.maintain(5000)
        try harness.store.close()
        try disk.createDirectory("/store/consumequeue/\(name)/0")
        try put(Int64(1), disk, "/store/consumequeue/\(name)/0/00000000000000000000", at: 0)
        let next = Harness(.small("/store"), disk: disk, clock: clock, background: ManualBackground(immediate: false))
        try next.store.open()
        for topic in ["A", "B"] { #expect(next.store.removeTopic(topic).count == 1) }
        next.settle()
        next.maintain(1000)
        #expect(!disk.paths.contains { $0.contains("/.removed-") || $0.contains("/consumequeue/A") }, "\(disk.paths)")
        try next.store.close()
    }

    // MARK: - The recovery point

    @Test(arguments: [Int64.max, Int64.min, -1])
    func aSequenceNoneHas(_ sequence: Int64) throws {
        let made = try ImageStore()
        let path = "/store/consumequeue/" + RecoveryPoint.fileName
        let bytes = try #require(made.disk.bytes(path))
        for slot in 0..<3 {
            let part = bytes.dropFirst(slot * 4096).prefix(RecoveryPoint.size)
            guard var point = Array(part).withUnsafeBytes({ RecoveryPoint($0) }) else { continue }
            point.sequence = sequence
            let image = made.disk.afterKill()
            let file = try image.open(path, .readWrite)
            try point.encoded().withUnsafeBytes { try file.write($0, at: Int64(slot * 4096)) }
            let opened = try made.open(image)
            #expect(opened.bodies.count == 200)
            opened.harness.send("Topic", body: "more")
            try opened.harness.store.commitTick()
            opened.harness.maintain(70_000)
            try opened.harness.store.close()
        }
    }

    // MARK: - A log file cut off

    /// Cut off anywhere while the broker runs: a walk over the log comes to its end.
    @Test func aWalkComesToItsEnd() throws {
        let made = try ImageStore()
        let end = PhysicalOffset(Int64(made.judge.records.last.map { $0.physicalOffset + $0.size } ?? 0))
        let path = "/store/commitlog/" + StoreFileName.of(offset: 0)
        let first = made.judge.records[0].size
        for cut in [0, 3, 8, first - 1, first, first + 5, first + 60, 20_000, 65_000] {
            let image = made.disk.afterKill()
            try image.open(path, .readWrite).truncate(to: Int64(cut))
            let walk = LogWalk(fileSize: 65_536)
            let file = (base: PhysicalOffset(0), file: try image.open(path, .read) as any DiskFile)
            var position = PhysicalOffset(0)
            var steps = 0
            var records = 0
            var damages = 0
            while position < end, steps < 50 {
                steps += 1
                let next = try walk.step(from: position, to: end, [file]) {
                    if case .record = $0 { records += 1 } else { damages += 1 }
                }
                guard let next else { break }
                position = next
            }
            #expect(steps < 50, "cut at \(cut): the walk stays at \(position)")
            #expect(damages > 0 || cut >= end.rawValue)
            #expect(records == made.judge.records.count { $0.physicalOffset + $0.size <= cut })
        }
    }

    /// The check behind a start ends, and says what it met.
    @Test func theCheckComesToItsEnd() throws {
        let made = try ImageStore()
        let image = made.disk.afterKill()
        _ = try image.open("/store/abort", .create)
        let log = LogLines()
        let next = Harness(made.configuration, disk: image, clock: clock, log: log)
        try next.store.open()
        let record = made.judge.records[100]
        let (path, at) = made.path(record)
        try image.open(path, .readWrite).truncate(to: Int64(at + 30))
        next.maintain(5000)
        #expect(next.store.runtimeInformation.checkRemainingBytes == 0)
        #expect(next.store.runtimeInformation.checkDamaged > 0)
        next.store.abandon()
    }

    // MARK: - A master's queue offsets

    /// The records of a master, each with the queue offset that `number` makes of its own and its queue.
    private func log(
        queues: Int, messages: Int, folder: String, _ number: (_ queue: Int, _ offset: Int64) -> Int64
    ) throws -> [UInt8] {
        var configuration = StoreConfiguration.small(folder + "/master")
        configuration.mappedFileSizeCommitLog = 1 << 20
        let master = Harness(configuration)
        try master.store.open()
        for message in 0..<messages {
            for queue in 0..<queues { master.send("T", Int32(queue), body: "\(message)") }
        }
        try master.store.commitTick()
        var bytes: [UInt8] = []
        while Int64(bytes.count) < master.store.writtenOffset.rawValue {
            let range = try #require(master.store.lookMessage(at: PhysicalOffset(Int64(bytes.count))))
            var record = try #require(master.store.withBytes(range) { Array($0) })
            record.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                let queue = BigEndian.load(base, CommitLogRecord.queueIDPosition, as: Int32.self)
                let offset = BigEndian.load(base, CommitLogRecord.queueOffsetPosition, as: Int64.self)
                BigEndian.store(number(Int(queue), offset), base, CommitLogRecord.queueOffsetPosition)
            }
            bytes += record
        }
        try master.store.close()
        return bytes
    }

    private func slave(_ folder: String, blanks: Int64 = MessageStore.blanksPerPass) throws -> Harness {
        var configuration = StoreConfiguration.small(folder + "/slave")
        configuration.mappedFileSizeCommitLog = 1 << 20
        // RocketMQ's own size: 300 000 entries.
        configuration.mappedFileSizeConsumeQueue = 6_000_000
        configuration.isSlave = true
        let slave = Harness(configuration)
        slave.store.blanksLeft = blanks
        try slave.store.open()
        return slave
    }

    /// Each record lies one file's entries behind the one before: filled with blanks that was 6 MB a record. At a start
    /// that makes the queue anew from the log as well.
    @Test(arguments: [false, true])
    func manyGaps(_ isReplay: Bool) throws {
        let folder = try TemporaryFolder()
        let bytes = try log(queues: 1, messages: 300, folder: folder.path) { _, offset in offset * 300_000 }
        var slave = try slave(folder.path)
        _ = bytes.withUnsafeBytes { slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
        try slave.store.commitTick()
        if isReplay {
            try slave.store.close()
            try FileManager.default.removeItem(atPath: folder.path + "/slave/consumequeue")
            slave = try self.slave(folder.path)
        }
        let queue = try #require(slave.store.consumeQueue(topic: "T", queueID: 0))
        #expect(queue.maxOffset.rawValue == 298 * 300_000 + 1 && queue.minOffset.rawValue == 298 * 300_000)
        #expect(slave.bodies("T") == ["298"])
        // A pass has written the blanks: there is room for others.
        for _ in 0..<3 { slave.maintain(2000) }
        #expect(slave.bodies("T") == (isReplay ? ["298"] : ["298", "299"]))
        try slave.store.close()
    }

    /// Gaps are filled and the entries before them stay. Not more at once than a pass writes; the others wait for it.
    @Test func gapsThatCanBe() throws {
        let folder = try TemporaryFolder()
        let bytes = try log(queues: 300, messages: 2, folder: folder.path) { _, offset in offset * 4097 }
        let slave = try slave(folder.path)
        _ = bytes.withUnsafeBytes { slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
        try slave.store.commitTick()
        let queues = try (0..<300).map { try #require(slave.store.consumeQueue(topic: "T", queueID: Int32($0))) }
        #expect(queues.allSatisfy { $0.minOffset.rawValue == 0 })
        #expect(queues.count { $0.maxOffset.rawValue == 4098 } == 256)
        #expect(slave.bodies("T", 0) == ["0", "1"] && slave.bodies("T", 299) == ["0"])
        for _ in 0..<3 { slave.maintain(2000) }
        #expect(queues.allSatisfy { $0.minOffset.rawValue == 0 && $0.maxOffset.rawValue == 4098 })
        #expect(slave.bodies("T", 299) == ["0", "1"])
        try slave.store.close()
    }

    /// A damaged range of the log held messages of all queues, more than are filled with blanks at once: a replay whose
    /// queues are gone keeps what lies before, in each of them.
    @Test(arguments: [1, 30]) func gapsInAReplay(_ behind: Int) throws {
        let folder = try TemporaryFolder()
        let (queues, before, lost) = (20, 10, 20)
        let bytes = try log(queues: queues, messages: before + lost + behind, folder: folder.path) { $1 }
        let slave = try slave(folder.path)
        _ = bytes.withUnsafeBytes { slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
        try slave.store.commitTick()
        for _ in 0..<3 { slave.maintain(2000) }
        let queue = try #require(slave.store.consumeQueue(topic: "T", queueID: 0))
        let ends = try [before, before + lost].map { number in
            try #require(try slave.store.queueFiles.entry(queue, at: QueueOffset(Int64(number)))).physicalOffset
                .rawValue
        }
        try slave.store.close()
        try FileManager.default.removeItem(atPath: folder.path + "/slave/consumequeue")
        let file = try FileHandle(forUpdating: URL(filePath: folder.path + "/slave/commitlog/00000000000000000000"))
        try file.seek(toOffset: UInt64(ends[0]))
        try file.write(contentsOf: [UInt8](repeating: 0xFF, count: Int(ends[1] - ends[0])))
        try file.close()
        let again = try self.slave(folder.path, blanks: 50)
        let all = try (0..<queues).map { try #require(again.store.consumeQueue(topic: "T", queueID: Int32($0))) }
        let end = Int64(before + lost + behind)
        #expect(all.allSatisfy { $0.minOffset.rawValue == 0 && $0.maxOffset.rawValue == end })
        let bodies = (0..<before).map { "\($0)" } + (before + lost..<Int(end)).map { "\($0)" }
        #expect((0..<queues).allSatisfy { again.bodies("T", Int32($0)) == bodies })
        try again.store.close()
    }

    /// One record's queue offset has one wrong bit, which no checksum of RocketMQ's covers: its own entry is lost and
    /// no other, whether the slave goes on, writes queues or starts in between.
    @Test(arguments: [0, 1, 5, 8, 9, 12, 13, 18, 19, 30, 40], [300, 301, 511, 512])
    func oneWrongBit(_ bit: Int, _ wrong: Int64) throws {
        let folder = try TemporaryFolder()
        let bytes = try log(queues: 1, messages: 600, folder: folder.path) { _, offset in
            offset == wrong ? offset ^ (1 << Int64(bit)) : offset
        }
        let expected = (0..<600).filter { $0 != wrong }.map { "\($0)" }
        for part in [bytes.count, 1000, 40_000] {
            try? FileManager.default.removeItem(atPath: folder.path + "/slave")
            let slave = try slave(folder.path)
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + part)
                bytes[start..<end].withUnsafeBytes {
                    _ = slave.store.appendReplicated(at: PhysicalOffset(Int64(start)), $0)
                }
                try slave.store.commitTick()
                if part == 1000 { slave.maintain(2000) }
                start = end
            }
            let queue = try #require(slave.store.consumeQueue(topic: "T", queueID: 0))
            #expect(queue.minOffset.rawValue == 0 && queue.maxOffset.rawValue == 600, "\(part)")
            #expect(slave.bodies("T") == expected, "\(part)")
            try slave.store.close()
        }
    }

    /// A queue that begins anew, or goes on far ahead: its second message there shows that it does.
    @Test(arguments: [0, 7, 600_000])
    func theQueueMoves(_ to: Int64) throws {
        let folder = try TemporaryFolder()
        let bytes = try log(queues: 1, messages: 40, folder: folder.path) { _, offset in
            offset < 20 ? offset : to + offset - 20
        }
        let slave = try slave(folder.path)
        _ = bytes.withUnsafeBytes { slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
        try slave.store.commitTick()
        let before = to == 7 ? Array(0..<7) : []
        #expect(slave.bodies("T") == (before + Array(20..<40)).map { "\($0)" })
        let queue = try #require(slave.store.consumeQueue(topic: "T", queueID: 0))
        #expect(queue.maxOffset.rawValue == to + 20)
        try slave.store.close()
    }

    /// The first message of a queue that begins anew waits for the next one; a slave that ends before that enters it.
    @Test func theSlaveEndsBeforeTheNext() throws {
        let folder = try TemporaryFolder()
        let bytes = try log(queues: 1, messages: 21, folder: folder.path) { _, offset in offset < 20 ? offset : 0 }
        var slave = try slave(folder.path)
        _ = bytes.withUnsafeBytes { slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
        try slave.store.commitTick()
        #expect(slave.bodies("T").count == 20)
        try slave.store.close()
        slave = try self.slave(folder.path)
        #expect(slave.bodies("T") == ["20"])
        try slave.store.close()
    }

    /// What waits is in its queue before a recovery point lies behind it: a kill loses nothing.
    @Test func aPassDecides() throws {
        let folder = try TemporaryFolder()
        let bytes = try log(queues: 1, messages: 21, folder: folder.path) { _, offset in offset < 20 ? offset : 0 }
        let slave = try slave(folder.path)
        _ = bytes.withUnsafeBytes { slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
        try slave.store.commitTick()
        #expect(slave.bodies("T").count == 20)
        slave.maintain(5000)
        #expect(slave.bodies("T") == ["20"])
        try slave.store.close()
    }

    /// A queue whose messages have all expired needs no blanks to go on further ahead.
    @Test func anEmptyQueueGoesOn() throws {
        let folder = try TemporaryFolder()
        let bytes = try log(queues: 1, messages: 40, folder: folder.path) { _, offset in
            offset < 20 ? offset : offset + 200_000
        }
        let slave = try slave(folder.path)
        let half = bytes.count / 2
        bytes[..<half].withUnsafeBytes { _ = slave.store.appendReplicated(at: PhysicalOffset(0), $0) }
        try slave.store.commitTick()
        slave.maintain(2000)
        let queue = try #require(slave.store.consumeQueue(topic: "T", queueID: 0))
        queue.minOffset = queue.maxOffset
        let blanks = slave.store.blanksLeft
        bytes[half...].withUnsafeBytes { _ = slave.store.appendReplicated(at: PhysicalOffset(Int64(half)), $0) }
        try slave.store.commitTick()
        #expect(queue.minOffset.rawValue == 200_020 && queue.maxOffset.rawValue == 200_040)
        #expect(slave.store.blanksLeft == blanks)
        try slave.store.close()
    }
}
