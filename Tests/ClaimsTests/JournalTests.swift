import Glibc
import LinuxSystem
import Logging
import MessageModel
import Synchronization
import TestDisk
import TestTools
import Testing

@testable import Claims

/// What can be asked of a store, for comparing it with itself after a restart.
struct Picture: Equatable, CustomStringConvertible {
    var tables: [String: String] = [:]

    /// Deadlines that have passed and due messages look alike.
    init(_ store: ClaimStore, at clock: Clock) {
        for table in store.registry.tables {
            var lines = ["\(table.floor)..<\(table.next)"]
            for offset in table.floor..<min(table.next, table.floor + 5000) {
                guard let single = table.inHand(offset) else { continue }
                let until = single.isDue ? clock.steady : single.deadline
                lines.append(
                    until <= clock.steady
                        ? "\(offset) due \(single.popTime) #\(single.attempt)"
                        : "\(offset) \(single.popTime) #\(single.attempt) \(store.registry.clients[single.client] ?? "?") \(until - clock.steady)"
                )
            }
            lines.append("\(table.isOrdered) \(table.attemptID ?? [])")
            tables["\(table.group) \(table.topic) \(table.queueID)"] = lines.joined(separator: "\n")
        }
    }

    var description: String {
        tables.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: "\n")
    }
}

/// A store on a simulated disk.
struct Machine {
    var disk = SimulatedDisk()
    var store: ClaimStore
    let observer = Observer()
    let book = LogBook()
    var clock = Clock()
    private let trailBytesMax: Int64

    init(trailBytesMax: Int64 = 0) throws {
        self.trailBytesMax = trailBytesMax
        store = ClaimStore(
            folder: "/store/popState", disk: disk, logger: book.logger, trailBytesMax: trailBytesMax)
        try store.open(at: clock.now, observer: observer, bounds: anyBounds)
    }

    /// A new process on the same disk, or on another.
    mutating func restart(
        on disk: SimulatedDisk? = nil, bounds: (ClaimTable) -> (min: Int64, max: Int64)? = anyBounds
    ) throws {
        self.disk = disk ?? self.disk
        store = ClaimStore(
            folder: "/store/popState", disk: self.disk, logger: book.logger, trailBytesMax: trailBytesMax)
        try store.open(at: clock.now, observer: observer, bounds: bounds)
    }

    /// The next process after a kill reads the same claims.
    mutating func expectSameAfterKill(
        _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let before = Picture(store, at: clock)
        try restart(on: disk.afterKill())
        #expect(Picture(store, at: clock) == before, "\(what)", sourceLocation: sourceLocation)
    }

    func table(_ queueID: Int32 = 0) -> ClaimTable {
        store.table(group: "group", topic: "topic", queueID: queueID)
            ?? store.makeTable(group: group, topic: topic, queueID: queueID, at: 0)
    }

    /// A journal with entries of every kind.
    mutating func everything(committed: (ClaimStore) -> Void = { _ in }) throws {
        func commit() throws {
            try store.commitTick()
            committed(store)
        }
        let first = store.pop(table(0), new: Array(0..<40), clock, invisible: 1000)
        let second = store.pop(table(1), new: [0, 2, 3, 50], next: 60, clock, invisible: 2000, client: "other")
        try commit()
        for offset in [0, 1, 2, 5, 4, 33] as [Int64] {
            _ = table(0).acknowledge(offset, popTime: first[offset] ?? 0)
        }
        _ = table(1).change(2, popTime: second[2] ?? 0, invisible: 5000, at: clock.now)
        _ = table(1).change(3, popTime: second[3] ?? 0, invisible: 0, at: clock.now)
        try commit()
        clock.advance(1500)
        _ = store.expire(at: clock.now, limit: .max)
        let again = store.pop(table(0), due: 5, new: [40], clock, invisible: 700)
        _ = table(0).acknowledge(again.keys.min() ?? 0, popTime: again.values.max() ?? 0)
        if let due = table(1).due(limit: 1).first { table(1).drop(due: due.offset) }
        table(0).abandon([40], at: clock.now)
        try commit()
        table(2).isOrdered = true
        _ = store.pop(table(2), new: [0, 1, 2], clock, invisible: 9000, attemptID: [7, 8])
        try commit()
        clock.advance(5)
        _ = table(2).reopenBatch(
            at: clock.now, popTime: max(clock.wall, table(2).popTimeMin), invisible: 8000, client: store.client("x"),
            attemptID: [7, 8])
        store.retain(table(0), from: 10)
        _ = store.pop(table(3), new: [0, 1], clock)
        table(3).reset(to: 100)
        _ = store.makeTable(group: GroupName(constant: "gone"), topic: topic, queueID: 0, at: 3)
        store.removeTables(group: "gone")
        try commit()
    }
}

@Suite("the journal brings tables back")
struct JournalTests {
    @Test("all groups' tables of a queue are found by it, over restarts and removals")
    func tablesOfAQueue() throws {
        var machine = try Machine()
        let names = try (0..<3).map { try GroupName(existing: "g\($0)") }
        let topics = try ["topic", "other"].map { try TopicName(existing: $0) }
        for group in names {
            for topic in topics {
                for queueID: Int32 in 0..<2 {
                    let table = machine.store.makeTable(group: group, topic: topic, queueID: queueID, at: 0)
                    table.claim(
                        [0], next: 1, at: machine.clock.now, popTime: 1, invisible: 1000,
                        client: machine.store.client("c"), attemptID: nil)
                }
            }
        }
        func groups(_ topic: String, _ queueID: Int32) -> [String] {
            let tables = machine.store.tables(of: topic, queueID: queueID)
            #expect(tables.allSatisfy { $0.topic.text == topic && $0.queueID == queueID })
            return tables.map(\.group.text).sorted()
        }
        #expect(groups("topic", 1) == ["g0", "g1", "g2"])
        try machine.store.commitTick()
        try machine.restart()
        #expect(groups("topic", 0) == ["g0", "g1", "g2"] && groups("topic", 2).isEmpty)
        machine.store.removeTables(group: "g1")
        #expect(groups("topic", 0) == ["g0", "g2"])
        machine.store.removeTables(topic: "topic")
        #expect(groups("topic", 0).isEmpty && groups("other", 1) == ["g0", "g2"])
    }

    @Test("after a kill everything is as it was")
    func kill() throws {
        var machine = try Machine()
        try machine.everything()
        let before = Picture(machine.store, at: machine.clock)
        let statistics = machine.store.statistics
        try machine.restart(on: machine.disk.afterKill())
        #expect(Picture(machine.store, at: machine.clock) == before)
        #expect(machine.store.statistics.journalBytes == statistics.journalBytes)
        // And again, behind what was written then.
        let table = machine.table(0)
        _ = machine.store.pop(table, new: [41, 42], machine.clock)
        try machine.store.commitTick()
        try machine.expectSameAfterKill()
        #expect(machine.book.lines.filter { $0.hasPrefix("warning") }.count == 1, "\(machine.book.lines)")
    }

    @Test("after a clean stop there is a snapshot, and everything is as it was")
    func cleanStop() throws {
        var machine = try Machine()
        try machine.everything()
        let before = Picture(machine.store, at: machine.clock)
        try machine.store.close()
        #expect(machine.disk.paths == ["/store/popState/snapshot-00000002"])
        try machine.restart()
        #expect(Picture(machine.store, at: machine.clock) == before)
        _ = machine.store.pop(machine.table(0), new: [41, 42], machine.clock)
        try machine.store.commitTick()
        try machine.expectSameAfterKill()
    }

    @Test("nothing is written, and no folder made, before the first table")
    func nothing() throws {
        let machine = try Machine()
        try machine.store.commitTick()
        #expect(machine.store.backgroundWork() == nil)
        try machine.store.close()
        #expect(machine.disk.paths.isEmpty)
    }

    @Test("deadlines go on by the wall clock, but never beyond what was given")
    func deadlines() throws {
        var machine = try Machine()
        _ = machine.store.pop(machine.table(), new: [0], machine.clock, invisible: 10_000)
        _ = machine.store.pop(machine.table(), new: [1], machine.clock, invisible: 1000)
        try machine.store.commitTick()
        machine.clock.wall += 4000
        machine.clock.steady = 17
        let image = machine.disk.afterKill()
        try machine.restart(on: image)
        #expect(machine.store.nextDeadline ?? 0 <= 17)
        _ = machine.store.expire(at: machine.clock.now, limit: 9)
        #expect(machine.table().due(limit: 9).map(\.offset) == [1] && machine.store.nextDeadline == 6017)
        // The wall clock was put back by a day.
        machine.clock.wall -= 86_400_000
        try machine.restart(on: image.afterKill())
        #expect(machine.store.nextDeadline == 1017)
        #expect(machine.table().claimedCount == 2)
    }

    @Test("a run of a snapshot is not invisible for longer than a claim may be")
    func tooLong() throws {
        var machine = try Machine()
        _ = machine.store.pop(machine.table(), new: [0], machine.clock)
        machine.table().open?.runs.changeAll { $0.deadline = $0.popTime + (1 << 50) }
        let disk = SimulatedDisk()
        _ = try SnapshotFile.write(machine.store.registry, 1, machine.clock.wall, "/store/popState", disk)
        try machine.restart(on: disk)
        #expect(machine.table().claimedCount == 1)
        #expect(machine.store.nextDeadline == machine.clock.steady + .claimInvisibleMax)
    }

    @Test("a claim made after the wall clock was set back lasts over a restart as long as it was given out for")
    func deadlineAfterClockSetBack() throws {
        var machine = try Machine()
        machine.table().isOrdered = true
        _ = machine.store.pop(machine.table(), new: [0], machine.clock, invisible: 10_000)
        machine.clock.wall -= 3_600_000
        // Its pop time is above that of the first one, and an hour ahead of the clock.
        let popped = machine.store.pop(machine.table(), new: [1], machine.clock, invisible: 10_000)
        #expect(popped.values.allSatisfy { $0 > machine.clock.wall + 3_000_000 })
        try machine.store.commitTick()
        for _ in 0..<2 {
            // From the journal, then from a snapshot.
            machine.clock.wall += 1000
            try machine.restart()
            guard case .claimed(_, _, let until, 1) = machine.table().state(of: 1, at: machine.clock.now) else {
                return #expect(Bool(false), "\(machine.table().state(of: 1, at: machine.clock.now))")
            }
            #expect(until > machine.clock.wall + 7000)
        }
    }

    @Test("what the queues have not got any more is dropped")
    func bounds() throws {
        var machine = try Machine()
        for queueID in 0..<3 as Range<Int32> {
            _ = machine.store.pop(machine.table(queueID), new: Array(0..<10), machine.clock)
        }
        try machine.store.commitTick()
        let bounds: (ClaimTable) -> (min: Int64, max: Int64)? = { [nil, (4, 100), (0, 7)][Int($0.queueID)] }
        try machine.restart(on: machine.disk.afterKill(), bounds: bounds)
        #expect(machine.store.table(group: "group", topic: "topic", queueID: 0) == nil)
        #expect(machine.table(1).floor == 4 && machine.table(1).next == 10 && machine.table(1).claimedCount == 6)
        #expect(machine.table(2).floor == 0 && machine.table(2).next == 7 && machine.table(2).claimedCount == 7)
        #expect(machine.store.statistics.dropped == 17)
        #expect(machine.book.lines.filter { $0.hasPrefix("warning") }.count == 1)
        let before = Picture(machine.store, at: machine.clock)
        try machine.store.commitTick()
        try machine.restart(on: machine.disk.afterKill())
        #expect(Picture(machine.store, at: machine.clock) == before)
    }

    /// So many runs before those that are lost: these begin in the same chunk, with another, or are in several. So
    /// many new ones: few of them lie behind as many chunks of lost ones.
    @Test(
        "new messages at the offsets of lost ones are in hands like others", arguments: [1, 31, 32, 33, 64] as [Int64],
        [10, 70] as [Int64])
    func logLostItsEnd(runs: Int64, count: Int64) throws {
        var machine = try Machine()
        func pop(_ offset: Int64) {
            machine.clock.advance(1)
            _ = machine.store.pop(machine.table(), new: [offset], machine.clock)
        }
        func same(_ what: String) throws {
            try machine.expectSameAfterKill("\(what)")
        }
        for offset in 0..<runs { pop(offset) }
        for offset in 150..<200 as Range<Int64> { pop(offset) }
        try machine.store.commitTick()
        try machine.restart(on: machine.disk.afterKill(), bounds: { _ in (0, 120) })
        #expect(machine.table().next == 120 && machine.table().claimedCount == Int(runs))
        let next = 120 + count
        for offset in 120..<next { pop(offset) }
        try machine.store.commitTick()
        // Replayed, and from a snapshot.
        try same("replayed")
        try machine.store.close()
        try same("from a snapshot")
        #expect(machine.book.lines.allSatisfy { !$0.contains("damage") }, "\(machine.book.lines)")
        for offset in 120..<125 as Range<Int64> {
            let popTime = machine.table().inHand(offset)?.popTime ?? 0
            #expect(machine.table().acknowledge(offset, popTime: popTime) == .finished, "\(offset)")
        }
        machine.clock.advance(60_000)
        _ = machine.store.expire(at: machine.clock.now, limit: .max)
        #expect(machine.table().due(limit: 999).map(\.offset) == Array(0..<runs) + Array(125..<next))
        // Retention goes beyond them, and ends: live, and at a start.
        machine.store.retain(machine.table(), from: 127)
        #expect(machine.table().floor == 127 && machine.table().dueCount == Int(count) - 7)
        try machine.store.commitTick()
        try machine.restart(on: machine.disk.afterKill(), bounds: { _ in (128, next) })
        #expect(machine.table().floor == 128 && machine.table().claimedCount == Int(count) - 8)
        // The whole log is gone.
        try machine.restart(on: machine.disk.afterKill(), bounds: { _ in (0, 0) })
        #expect(machine.table().floor == 0 && machine.table().next == 0 && machine.table().open == nil)
    }

    @Test("a client that gives a message back and prolongs it in turns costs no attempts below 0, and no claims")
    func attemptsBelowZero() throws {
        var machine = try Machine()
        let handles = machine.store.pop(machine.table(), new: [0, 1], machine.clock)
        #expect(machine.table().acknowledge(1, popTime: handles[1] ?? 0) == .finished)
        var popTime = try #require(handles[0])
        for _ in 0..<3 {
            machine.table().abandon([0], at: machine.clock.now)
            #expect(machine.table().due(limit: 9).map(\.attempts) == [0])
            popTime = try #require(
                machine.table().change(0, popTime: popTime, invisible: 60_000, at: machine.clock.now))
        }
        try machine.store.commitTick()
        let before = Picture(machine.store, at: machine.clock)
        try machine.restart(on: machine.disk.afterKill())
        #expect(Picture(machine.store, at: machine.clock) == before)
        try machine.store.close()
        try machine.restart()
        #expect(Picture(machine.store, at: machine.clock) == before)
        #expect(machine.table().state(of: 0, at: machine.clock.now).attempts == 0 && machine.book.lines.isEmpty)
        // A former version may have written a negative number.
        var single = try #require(machine.table().inHand(0))
        single.attempt = -3
        machine.table().open?.singles.set(0, to: single)
        let disk = SimulatedDisk()
        _ = try SnapshotFile.write(machine.store.registry, 1, machine.clock.wall, "/store/popState", disk)
        try machine.restart(on: disk)
        #expect(machine.table().claimedCount == 1 && machine.book.lines.isEmpty, "\(machine.book.lines)")
        #expect(machine.table().state(of: 0, at: machine.clock.now).attempts == 0)
    }

    @Test("a refused write is tried again with the same bytes")
    func refused() throws {
        var machine = try Machine()
        _ = machine.store.pop(machine.table(), new: [0, 1], machine.clock)
        machine.disk.fault.withLock { $0 = { call, _ in call == "pwrite" ? ENOSPC : nil } }
        #expect(throws: ClaimError.self) { try machine.store.commitTick() }
        #expect(machine.store.hasUncommitted)
        machine.table().abandon([0, 1], at: machine.clock.now)
        #expect(throws: ClaimError.self) { try machine.store.commitTick() }
        machine.disk.fault.withLock { $0 = nil }
        try machine.store.commitTick()
        #expect(!machine.store.hasUncommitted)
        try machine.expectSameAfterKill()
        _ = machine.store.expire(at: machine.clock.now, limit: 9)
        #expect(machine.table().due(limit: 9).map(\.attempts) == [0, 0])
    }

    @Test("journals become a snapshot in the background, and go")
    func rotation() throws {
        var machine = try Machine()
        for queueID in 0..<20 as Range<Int32> { _ = machine.store.pop(machine.table(queueID), new: [0], machine.clock) }
        try machine.store.commitTick()
        for round in 0..<3 {
            let files = try #require(machine.store.files)
            machine.store.beginNextJournal(files)
            _ = machine.store.pop(machine.table(), new: [Int64(round) + 1], machine.clock)
            try machine.store.commitTick()
            let work = try #require(machine.store.backgroundWork())
            #expect(machine.store.backgroundWork() == nil)
            work()
            #expect(machine.store.backgroundWork() == nil)
            #expect(
                machine.disk.paths == [
                    "/store/popState/journal-0000000\(round + 2)", "/store/popState/snapshot-0000000\(round + 2)",
                ])
            #expect(machine.store.statistics.snapshotBytes > 100 && machine.store.statistics.journalBytes < 300)
        }
        try machine.expectSameAfterKill()
    }

    @Test("a disk that refuses for very long is given a snapshot instead of all that was refused")
    func refusedForLong() throws {
        var machine = try Machine()
        try machine.everything()
        machine.store.uncommittedMax = 1000
        machine.disk.fault.withLock { $0 = { call, _ in call == "pwrite" ? ENOSPC : nil } }
        let table = machine.table(0)
        for _ in 0..<100 {
            _ = machine.store.pop(table, new: [table.next], machine.clock)
            #expect(throws: ClaimError.self) { try machine.store.commitTick() }
            machine.clock.advance(30)
            _ = machine.store.expire(at: machine.clock.now, limit: .max)
        }
        #expect(machine.store.registry.journal?.sealed.count ?? 0 < 2000 && machine.store.hasUncommitted)
        machine.disk.fault.withLock { $0 = nil }
        machine.clock.advance(1000)
        _ = machine.store.expire(at: machine.clock.now, limit: .max)
        try machine.store.commitTick()
        #expect(!machine.store.hasUncommitted && machine.disk.paths == ["/store/popState/snapshot-00000002"])
        _ = machine.store.pop(table, new: [table.next], machine.clock)
        try machine.store.commitTick()
        try machine.expectSameAfterKill()
    }
}
