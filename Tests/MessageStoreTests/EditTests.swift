import LinuxSystem
import MessageModel
import StoreFormat
import Synchronization
import TestDisk
import Testing

@testable import MessageStore

/// Newer versions of messages, and deletions: what stands for a message, and what of it survives.
@Suite struct EditTests {
    let disk: SimulatedDisk
    let clock = TestClock()
    let configuration = StoreConfiguration.small("/store")

    init() {
        let clock = clock
        disk = SimulatedDisk(now: { clock.now })
    }

    /// Ten messages in a queue, tags `even` and `odd`.
    private func filled(_ log: LogLines? = nil) throws -> Harness {
        let harness = Harness(configuration, disk: disk, clock: clock, log: log)
        try harness.store.open()
        for number in 0..<10 {
            harness.send(
                "T", body: "sent \(number)", tags: number % 2 == 0 ? "even" : "odd", keys: "k\(number)",
                unique: "U\(number)")
            try harness.store.commitTick()
            clock.advance(10)
        }
        return harness
    }

    private func reopened(
        _ image: SimulatedDisk, boot: UInt8 = 1, log: LogLines? = nil
    ) throws -> Harness {
        let next = Harness(configuration, disk: image, clock: clock, boot: boot, log: log)
        try next.store.open()
        return next
    }

    private static let sent = (0..<10).map { "sent \($0)" }

    private func edited(_ changes: [Int: String?]) -> [String] {
        (0..<10).compactMap { changes[$0] ?? "sent \($0)" }
    }

    private func starts(_ harness: Harness, _ key: String, allVersions: Bool = false) -> [Int64] {
        var query = harness.store.beginQuery(
            topic: "T", key: key, maxCount: 9, begin: 0, end: .max, allVersions: allVersions)
        while !query.isDone { harness.store.advance(&query, steps: .max, bytes: .max) }
        return harness.store.result(of: query).records.map(\.start.rawValue)
    }

    @Test func aNewerVersionStandsForTheMessageAtItsPlace() throws {
        let log = LogLines()
        let harness = try filled(log)
        let first = try #require(harness.records("T").first { $0.queueOffset == 4 })
        let outcome = harness.edit(
            "T", at: 4, body: "edited 4", properties: "TAGS\u{1}odd\u{2}KEYS\u{1}new\u{2}UNIQ_KEY\u{1}U4\u{2}")
        guard case .appended(let result) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(result.queueOffset.rawValue == 4)
        #expect(harness.bodies("T") == Self.sent, "it stands there before the tick is written")
        try harness.store.commitTick()
        #expect(harness.bodies("T") == edited([4: "edited 4"]))
        let record = try #require(harness.records("T").first { $0.queueOffset == 4 })
        #expect(record.physicalOffset == Int(result.physicalOffset.rawValue) && record.sysFlag == 12)
        #expect(record.properties["APUS_EDIT"] == "v,2,edit,\(clock.now),tester")
        // By its new tag and keys, and by no old ones.
        let (odd, even) = ("odd", "even")
        func code(_ tag: String) -> Int64 { Array(tag.utf8).withUnsafeBytes { TagsCode.of($0) } }
        #expect(harness.records("T", tagsCodes: [code(odd)]).map(\.queueOffset) == [1, 3, 4, 5, 7, 9])
        #expect(harness.records("T", tagsCodes: [code(even)]).map(\.queueOffset) == [0, 2, 6, 8])
        #expect(starts(harness, "new") == [result.physicalOffset.rawValue])
        #expect(starts(harness, "U4") == [result.physicalOffset.rawValue])
        #expect(starts(harness, "k4").isEmpty)
        #expect(starts(harness, "U4", allVersions: true).count == 2)
        // RocketMQ's files are as they were.
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        #expect(queue.maxOffset.rawValue == 10)
        let entry = try harness.store.queueFiles.entry(queue, at: QueueOffset(4))
        #expect(entry?.physicalOffset.rawValue == Int64(first.physicalOffset))
        #expect(harness.store.firstPlace(queue, at: QueueOffset(4))?.rawValue == Int64(first.physicalOffset))
        #expect(
            harness.store.offset(topic: "T", queueID: 0, byTimestamp: Int64(first.storeTime)).rawValue == 4)
        #expect(log.lines.isEmpty, "\(log.lines)")
        try harness.store.close()
    }

    @Test func aDeletedMessageIsLeftOutQuietly() throws {
        let log = LogLines()
        let harness = try filled(log)
        for offset: Int64 in [0, 3, 4, 9] { harness.edit("T", at: offset, body: nil) }
        try harness.store.commitTick()
        #expect(harness.bodies("T") == edited([0: nil, 3: nil, 4: nil, 9: nil]))
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        #expect(harness.store.entries(queue, from: QueueOffset(3), maxCount: 2) == [.deleted, .deleted])
        #expect(harness.store.currentVersion(queue, at: QueueOffset(3))?.isDeleted == true)
        var ranges: [LogRange] = []
        // One read goes over what is left out, and does not stop at it.
        var result = harness.store.selectMessages(queue, from: QueueOffset(2), maxCount: 32, into: &ranges)
        #expect(result.status == .found && result.messageCount == 5 && result.nextBeginOffset.rawValue == 10)
        result = harness.store.selectMessages(queue, from: QueueOffset(9), maxCount: 32, into: &ranges)
        #expect(result.status == .noMatchedMessage && result.nextBeginOffset.rawValue == 10)
        #expect(!result.suggestPullingFromSlave)
        let verdicts = EntryVerdicts(start: 0, count: 10, bitmap: [0xFF, 0xFF])
        result = harness.store.selectMessages(
            queue, from: QueueOffset(0), verdicts: verdicts, maxCount: 32, into: &ranges)
        #expect(result.messageCount == 6 && result.nextBeginOffset.rawValue == 10)
        var entries: [UInt8] = []
        harness.store.appendEntries(queue, from: QueueOffset(0), maxCount: 10, to: &entries)
        #expect(entries.withUnsafeBytes { ConsumeQueueEntry($0.baseAddress!) } == .deleted)
        #expect(log.lines.isEmpty, "\(log.lines)")
        try harness.store.close()
    }

    @Test func onlyThePresentVersionIsReplaced() throws {
        let harness = try filled()
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        let first = try #require(harness.store.currentVersion(queue, at: QueueOffset(2))).physicalOffset
        guard case .appended(let second) = harness.edit("T", at: 2, body: "second") else {
            Issue.record("refused")
            return
        }
        // In the same tick, too.
        #expect(
            harness.edit("T", at: 2, replacing: first.rawValue, body: "other")
                == .refused(.editedMeanwhile(present: second.physicalOffset)))
        harness.edit("T", at: 2, replacing: second.physicalOffset.rawValue, body: "third", version: 3)
        guard case .appended(let deletion) = harness.edit("T", at: 5, body: nil) else {
            Issue.record("refused")
            return
        }
        #expect(
            harness.edit("T", at: 5, replacing: deletion.physicalOffset.rawValue, body: "back")
                == .refused(.noSuchMessage(QueueOffset(5))))
        try harness.store.commitTick()
        #expect(harness.bodies("T") == edited([2: "third", 5: nil]))
        #expect(harness.edit("T", at: 5, body: "back") == .refused(.noSuchMessage(QueueOffset(5))))
        #expect(harness.edit("T", at: 10, body: "early") == .refused(.noSuchMessage(QueueOffset(10))))
        #expect(harness.edit("T", at: -1, body: "early") == .refused(.noSuchMessage(QueueOffset(-1))))
        #expect(harness.edit("U", at: 0, body: "early") == .refused(.noSuchMessage(QueueOffset(0))))
        #expect(
            harness.edit("T", at: 2, replacing: first.rawValue, body: "late")
                == .refused(
                    .editedMeanwhile(
                        present: try #require(harness.store.currentVersion(queue, at: QueueOffset(2))).physicalOffset)))
        #expect(!harness.store.edits.total.versions.isMultiple(of: 2))
        try harness.store.close()
    }

    @Test func noClientMakesAVersion() throws {
        let harness = try filled()
        let note = "APUS_EDIT\u{1}d,2,delete,1,mallory\u{2}"
        #expect(harness.send("T", body: "", sysFlag: 12, extra: note) == .refused(.unreadable))
        // The property alone makes none.
        harness.send("T", body: "sent 10", extra: note)
        try harness.store.commitTick()
        #expect(harness.bodies("T") == Self.sent + ["sent 10"])
        // The copy of a version is a message as others are.
        harness.edit("T", at: 1, body: "edited 1")
        try harness.store.commitTick()
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        let version = try #require(harness.store.currentVersion(queue, at: QueueOffset(1)))
        let bytes = try #require(
            harness.store.withBytes(LogRange(start: version.physicalOffset, length: version.size, count: 1)) {
                Array($0)
            })
        bytes.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else {
                Issue.record("no record")
                return
            }
            #expect(record.isEdit && record.editNote?.by == "tester" && record.deletesMessage == false)
            let topic: StaticString = "U"
            let draft = MessageDraft(
                copyOf: record, topic: UnsafeRawBufferPointer(start: topic.utf8Start, count: 1), queueID: 0,
                properties: record.properties)
            #expect(draft.sysFlag == 0)
            guard case .appended = harness.store.append(draft) else {
                Issue.record("refused")
                return
            }
        }
        try harness.store.commitTick()
        #expect(harness.bodies("U") == ["edited 1"])
        try harness.store.close()
    }

    @Test func aFailedTickLeavesTheFormerVersion() throws {
        let harness = try filled()
        harness.edit("T", at: 6, body: "edited")
        try harness.store.commitTick()
        harness.edit("T", at: 6, body: "lost")
        harness.edit("T", at: 7, body: nil)
        disk.fault.withLock { $0 = { call, path in call == "pwrite" && path.contains("commitlog") ? 28 : nil } }
        #expect(throws: StoreError.self) { try harness.store.commitTick() }
        disk.fault.withLock { $0 = nil }
        #expect(harness.bodies("T") == edited([6: "edited"]))
        harness.maintain(3000)
        #expect(harness.store.notWritable == nil)
        harness.edit("T", at: 6, body: "again", version: 3)
        try harness.store.commitTick()
        #expect(harness.bodies("T") == edited([6: "again"]))
        try harness.store.close()
    }

    @Test func versionsSurviveStopKillAndPowerCut() throws {
        let harness = try filled()
        harness.maintain(5000)
        harness.edit("T", at: 1, body: "edited 1")
        harness.edit("T", at: 2, body: nil)
        try harness.store.commitTick()
        let wanted = edited([1: "edited 1", 2: nil])
        // Before the pass, after it, and after a checkpoint of it.
        #expect(try reopened(disk.afterKill()).bodies("T") == wanted)
        harness.maintain(1500)
        #expect(disk.bytes("/store/consumequeue/.apus-edits") != nil)
        #expect(try reopened(disk.afterKill()).bodies("T") == wanted)
        harness.maintain(70_000)
        var random = SeededGenerator(seed: 5)
        #expect(try reopened(disk.afterPowerCut(&random), boot: 2).bodies("T") == wanted)
        // One more version, whose tick a power cut takes back: the one before it counts.
        harness.edit("T", at: 1, body: "third", version: 3)
        try harness.store.commitTick()
        #expect(try reopened(disk.afterKill()).bodies("T") == edited([1: "third", 2: nil]))
        for seed: UInt64 in 0..<20 {
            var random = SeededGenerator(seed: seed)
            let next = try reopened(disk.afterPowerCut(&random), boot: 3)
            let isThere = next.store.writtenOffset == harness.store.writtenOffset
            #expect(next.bodies("T") == edited([1: isThere ? "third" : "edited 1", 2: nil]), "seed \(seed)")
        }
        try harness.store.close()
        let again = try reopened(disk)
        #expect(again.bodies("T") == edited([1: "third", 2: nil]))
        #expect(again.store.recoveredFrom == again.store.writtenOffset, "a clean start reads no log again")
        try again.store.close()
    }

    /// The file is missing or damaged, or the whole folder is gone: the log says it all.
    @Test func whatTheFileLacksIsReadFromTheLog() throws {
        let harness = try filled()
        harness.edit("T", at: 1, body: "edited 1")
        harness.edit("T", at: 2, body: nil)
        try harness.store.commitTick()
        harness.maintain(70_000)
        try harness.store.close()
        let wanted = edited([1: "edited 1", 2: nil])
        let path = "/store/consumequeue/.apus-edits"
        let size = try #require(disk.bytes(path)).count
        for damage in ["missing", "damaged"] {
            for byte in damage == "missing" ? [0] : [0, 9, 14, 23, 30, size - 1] {
                let image = disk.afterKill()
                if damage == "missing" { try image.remove(path) } else { image.flip(path, byte: byte, bit: 3) }
                let log = LogLines()
                let next = try reopened(image, log: log)
                #expect(next.bodies("T") == wanted, "\(damage) \(byte)")
                #expect(log.lines.count { $0.contains(".apus-edits") } == 1, "\(damage) \(byte): \(log.lines)")
                // It is written again at once.
                next.maintain(2000)
                let later = LogLines()
                #expect(try reopened(image.afterKill(), log: later).bodies("T") == wanted)
                #expect(!later.lines.contains { $0.contains(".apus-edits") })
            }
        }
        let image = disk.afterKill()
        image.removeTree("/store/consumequeue")
        #expect(try reopened(image).bodies("T") == wanted)
        // As a broker of RocketMQ leaves the folder: without a recovery point.
        let apache = disk.afterKill()
        try apache.remove("/store/consumequeue/.apus-recovery")
        #expect(try reopened(apache).bodies("T") == wanted)
    }

    @Test func aSlaveServesTheSame() throws {
        let harness = try filled()
        harness.edit("T", at: 1, body: "edited 1")
        harness.edit("T", at: 2, body: nil)
        try harness.store.commitTick()
        harness.edit("T", at: 1, body: "third", version: 3)
        try harness.store.commitTick()
        var configuration = StoreConfiguration.small("/store")
        configuration.isSlave = true
        let slave = Harness(configuration, disk: SimulatedDisk(), clock: clock)
        try slave.store.open()
        let end = Int(harness.store.writtenOffset.rawValue)
        let bytes = try #require(
            harness.store.withBytes(LogRange(start: PhysicalOffset(0), length: end, count: 13)) { Array($0) })
        var position = 0
        while position < end {
            let size = min(97, end - position)
            _ = bytes[position..<position + size].withUnsafeBytes {
                slave.store.appendReplicated(at: PhysicalOffset(Int64(position)), $0)
            }
            try slave.store.commitTick()
            position += size
        }
        #expect(slave.records("T") == harness.records("T"))
        #expect(slave.bodies("T") == edited([1: "third", 2: nil]))
        try slave.store.close()
        try harness.store.close()
    }

    /// In the delay levels' queues the tags code is the time a message is due.
    @Test func aWaitingMessageKeepsItsTime() throws {
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        let level = "DELAY\u{1}3\u{2}REAL_TOPIC\u{1}T\u{2}REAL_QID\u{1}0\u{2}"
        for number in 0..<3 {
            harness.send("SCHEDULE_TOPIC_XXXX", 2, body: "\(number)", extra: level)
            clock.advance(50)
        }
        try harness.store.commitTick()
        let queue = try #require(harness.store.consumeQueue(topic: "SCHEDULE_TOPIC_XXXX", queueID: 2))
        let before = harness.store.entries(queue, from: QueueOffset(0), maxCount: 3)
        clock.advance(5000)
        harness.edit("SCHEDULE_TOPIC_XXXX", 2, at: 1, body: "edited", properties: level)
        try harness.store.commitTick()
        let after = harness.store.entries(queue, from: QueueOffset(0), maxCount: 3)
        #expect(after.map(\.tagsCode) == before.map(\.tagsCode) && after[1] != before[1])
        #expect(try reopened(disk.afterKill()).store.entries(queue, from: QueueOffset(1), maxCount: 1) == [after[1]])
        try harness.store.close()
    }

    @Test func versionsGoWithTheirMessages() throws {
        var configuration = configuration
        configuration.fileReservedTime = 0
        configuration.deleteWhen = (0..<24).map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: ";")
        let harness = Harness(configuration, disk: disk, clock: clock)
        try harness.store.open()
        for number in 0..<60 {
            harness.send("T", body: "\(number) " + String(repeating: "r", count: 3000))
            harness.send("Gone", body: "\(number)")
            try harness.store.commitTick()
        }
        for offset: Int64 in [0, 1, 58] { harness.edit("T", at: offset, body: "edited \(offset)") }
        harness.edit("T", at: 2, body: nil)
        harness.edit("Gone", at: 3, body: nil)
        try harness.store.commitTick()
        harness.maintain(2000)
        #expect(harness.store.edits.total.versions == 5)
        harness.store.removeTopic("Gone")
        #expect(harness.store.edits.total.versions == 4)
        clock.advance(3_600_000)
        harness.maintain(60_000)
        let queue = try #require(harness.store.consumeQueue(topic: "T", queueID: 0))
        #expect(queue.minOffset.rawValue > 2 && queue.minOffset.rawValue < 58)
        #expect(harness.store.edits.total.versions == 1)
        #expect(harness.bodies("T", from: 58).first == "edited 58")
        // The topic made again has nothing of the old one.
        for number in 0..<5 { harness.send("Gone", body: "new \(number)") }
        try harness.store.commitTick()
        harness.maintain(2000)
        #expect(harness.bodies("Gone") == (0..<5).map { "new \($0)" })
        let next = Harness(configuration, disk: disk.afterKill(), clock: clock)
        try next.store.open()
        #expect(next.bodies("Gone") == (0..<5).map { "new \($0)" })
        #expect(next.bodies("T", from: 58).first == "edited 58" && next.store.edits.total.versions == 1)
        try harness.store.close()
    }

    @Test func thereIsALimit() throws {
        let harness = try filled()
        harness.store.edits.total.versionsMax = 3
        for offset: Int64 in 0..<3 { harness.edit("T", at: offset, body: "edited") }
        #expect(harness.edit("T", at: 3, body: "edited") == .refused(.tooManyEdits(limit: 3)))
        try harness.store.commitTick()
        let outcome = harness.edit("T", at: 3, body: "edited")
        #expect(outcome == .refused(.tooManyEdits(limit: 3)))
        guard case .refused(let refusal) = outcome else { return }
        #expect("\(refusal)".contains("fileReservedTime"))
        // What was replaced and is safe on the disk does not count.
        harness.store.edits.total.versionsMax = 4
        harness.edit("T", at: 0, body: "again", version: 3)
        try harness.store.commitTick()
        harness.maintain(2000)
        #expect(harness.store.flushedOffset == harness.store.writtenOffset)
        guard case .appended = harness.edit("T", at: 4, body: "edited") else {
            Issue.record("refused")
            return
        }
        try harness.store.commitTick()
        try harness.store.close()
    }

    @Test func theFileIsReadWhateverItHolds() throws {
        var random = SeededGenerator(seed: 77)
        func version() -> QueueEdits.Version {
            QueueEdits.Version(
                physicalOffset: PhysicalOffset(Int64.random(in: 0...1 << 40, using: &random)),
                recordSize: Int32.random(in: 1...5000, using: &random), tagsCode: Int64(bitPattern: random.next()),
                isDeleted: random.chance(30))
        }
        for _ in 0..<200 {
            let queues = (0..<Int.random(in: 0...4, using: &random)).map { number in
                EditFile.Queue(
                    topic: Array("topic \(number) ü".utf8), queueID: Int32(number),
                    rows: (0..<Int.random(in: 0...9, using: &random)).map {
                        EditFile.Row(offset: QueueOffset(Int64($0)), version: version())
                    })
            }
            let bytes = EditFile.encode(
                EditFile.Table(sequence: 0xFF_FFFE, covered: PhysicalOffset(77), queues: queues))
            let read = try #require(bytes.withUnsafeBytes { EditFile.decode($0) })
            #expect(read.sequence == 0xFF_FFFE && read.covered.rawValue == 77)
            #expect(read.queues.map(\.topic) == queues.map(\.topic) && read.queues.map(\.rows) == queues.map(\.rows))
            // Cut anywhere; and with another CRC that fits, so that the numbers inside are met.
            let cut = Array(bytes.prefix(Int.random(in: 0..<bytes.count, using: &random)))
            #expect(cut.withUnsafeBytes { EditFile.decode($0) } == nil)
            var changed = bytes
            for _ in 0..<3 {
                changed[Int.random(in: 16..<changed.count - 4, using: &random)] = UInt8(random.next() & 0xFF)
            }
            let crc = changed.dropLast(4).withUnsafeBytes { CommitLogRecord.bodyCRC($0) }
            withUnsafeBytes(of: crc.bigEndian) { changed.replaceSubrange((changed.count - 4)..., with: $0) }
            _ = changed.withUnsafeBytes { EditFile.decode($0) }
        }
    }

    @Test func notesAreReadAsTheyAreWritten() {
        let note = EditNote(version: 7, deletes: false, action: .retries, at: 1_700_000_000_000, by: "a, b,c")
        func read(_ text: String) -> EditNote? { Array(text.utf8).withUnsafeBytes { EditNote($0) } }
        #expect(note.text == "v,7,retries,1700000000000,a, b,c" && read(note.text) == note)
        for text in ["", "v", "v,", "x,2,edit,1,a", "v,1,edit,1,a", "v,2,other,1,a", "v,2,edit,z,a", "v,2,edit,1"] {
            #expect(read(text) == nil, "\(text)")
        }
        for action in EditNote.Action.allCases {
            let note = EditNote(version: 2, deletes: true, action: action, at: 0, by: "")
            #expect(read(note.text) == note)
        }
    }
}
