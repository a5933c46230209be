import Claims
import LinuxSystem
import Logging
import MessageModel
import TestDisk
import TestTools
import Testing

@Suite("a claim table says which messages are in whose hands")
struct ClaimTableTests {
    let observer = Observer()
    let store: ClaimStore
    let table: ClaimTable
    var clock = Clock()

    init() throws {
        store = ClaimStore(folder: "/popState", disk: SimulatedDisk(), logger: LogBook().logger)
        try store.open(at: clock.now, observer: observer, bounds: anyBounds)
        table = store.makeTable(group: group, topic: topic, queueID: 3, at: 10)
    }

    @Test("acknowledged messages move the floor past what was filtered out")
    func floor() {
        let handles = store.pop(table, new: [10, 12, 13, 50], next: 60, clock)
        #expect(table.next == 60 && table.floor == 10 && table.claimedCount == 4)
        #expect(table.acknowledge(12, popTime: handles[12] ?? 0) == .finished)
        #expect(table.acknowledge(12, popTime: handles[12] ?? 0) == .stale)
        #expect(table.acknowledge(11, popTime: clock.wall) == .stale)
        #expect(table.floor == 10 && observer.floors.isEmpty)
        #expect(table.acknowledge(10, popTime: clock.wall) == .finished)
        #expect(table.floor == 13)
        #expect(table.acknowledge(13, popTime: clock.wall) == .finished)
        #expect(table.floor == 50)
        #expect(table.acknowledge(50, popTime: clock.wall) == .finished)
        #expect(table.floor == 60 && table.claimedCount == 0)
        #expect(observer.floors == [13, 50, 60])
        #expect(store.nextDeadline == nil && store.statistics.claimed == 0)
    }

    @Test("acknowledgements at once finish what they finish one by one, and move the floor once")
    mutating func manyAtOnce() {
        let single = store.makeTable(group: group, topic: topic, queueID: 4, at: 10)
        for queue in [table, single] {
            _ = store.pop(queue, new: Array(10..<40) + [44, 75], next: 80, clock, invisible: 1000)
            // One of them is due, one was handed out again: another delivery.
            _ = queue.change(12, popTime: clock.wall, invisible: 0, at: clock.now)
            _ = queue.change(13, popTime: clock.wall, invisible: 5000, at: clock.now)
        }
        observer.floors.removeAll()
        // 9 was never handed out, 41 was filtered out, 73 lies at the last bit.
        let bits: UInt64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 20 | 1 << 32 | 1 << 35 | 1 << 63
        #expect(table.acknowledge(from: 9, bits: bits, popTime: clock.wall) == 4)
        #expect(observer.floors == [12])
        var finished = 0
        for bit in 0..<64 where bits & 1 << UInt64(bit) != 0 {
            if single.acknowledge(9 + Int64(bit), popTime: clock.wall) == .finished { finished += 1 }
        }
        #expect(finished == 4 && single.floor == table.floor && single.claimedCount == table.claimedCount)
        for offset in Int64(9)..<81 {
            #expect(single.state(of: offset, at: clock.now) == table.state(of: offset, at: clock.now))
        }
        #expect(store.statistics.stale == 10)
        // Offsets beyond all numbers are none of the queue's.
        #expect(table.acknowledge(from: .max, bits: .max, popTime: clock.wall) == 0)
        #expect(table.acknowledge(from: 9, bits: .max, popTime: clock.wall) == 25)
        #expect(table.acknowledge(from: 73, bits: 0b100, popTime: clock.wall) == 1)
        #expect(table.floor == 12 && table.claimedCount == 1 && table.dueCount == 1)
    }

    /// Runs of messages are finished a run at a time: here without single claims, in any pieces and more than once.
    @Test(
        "pieces of runs finish what their messages finish one by one, also after a restart", arguments: UInt64(1)...20)
    mutating func piecesOfRuns(seed: UInt64) throws {
        var random = SplitMix(state: seed)
        let disk = SimulatedDisk()
        let store = ClaimStore(folder: "/popState", disk: disk, logger: LogBook().logger)
        try store.open(at: clock.now, observer: observer, bounds: anyBounds)
        let pieces = store.makeTable(group: group, topic: topic, queueID: 5, at: 0)
        let single = store.makeTable(group: group, topic: topic, queueID: 6, at: 0)
        var next: Int64 = 0
        var popTimes: [Int64] = []
        for _ in 0..<6 {
            clock.advance(Int64.random(in: 0...20, using: &random))
            let end = next + Int64.random(in: 1...70, using: &random)
            // What is left out was filtered out.
            let offsets = (next..<end).filter { _ in Int.random(in: 0..<5, using: &random) > 0 }
            for queue in [pieces, single] { _ = store.pop(queue, new: offsets, next: end, clock, invisible: 50) }
            popTimes.append(clock.wall)
            next = end
        }
        for round in 0..<60 {
            if round % 20 == 10 {
                clock.advance(25)
                _ = store.expire(at: clock.now, limit: .max)
            }
            let start = Int64.random(in: -3..<next, using: &random)
            let bits = UInt64.random(in: 0...(.max), using: &random) & UInt64.random(in: 0...(.max), using: &random)
            let popTime = try #require(popTimes.randomElement(using: &random))
            var finished = 0
            for bit in 0..<64 where bits & 1 << UInt64(bit) != 0 {
                if single.acknowledge(start + Int64(bit), popTime: popTime) == .finished { finished += 1 }
            }
            #expect(pieces.acknowledge(from: start, bits: bits, popTime: popTime) == finished)
            #expect(
                pieces.floor == single.floor && pieces.claimedCount == single.claimedCount
                    && pieces.dueCount == single.dueCount)
        }
        for offset in -3..<next {
            #expect(pieces.state(of: offset, at: clock.now) == single.state(of: offset, at: clock.now))
        }
        try store.commitTick(at: clock.now)
        let again = ClaimStore(folder: "/popState", disk: disk, logger: LogBook().logger)
        try again.open(at: clock.now, observer: observer, bounds: anyBounds)
        _ = again.expire(at: clock.now, limit: .max)
        let read = try #require(again.table(group: group.text, topic: topic.text, queueID: 5))
        for offset in -3..<next {
            let isFinished = read.state(of: offset, at: clock.now) == .finished
            #expect(isFinished == (single.state(of: offset, at: clock.now) == .finished))
        }
    }

    @Test("a pop that found nothing fit moves floor and next")
    func nothingFit() {
        _ = store.pop(table, next: 20, clock)
        #expect(table.floor == 20 && table.next == 20 && observer.floors == [20])
    }

    @Test("after its deadline a message is due, at its deadline and not before")
    mutating func deadline() {
        let handles = store.pop(table, new: [10, 11], clock, invisible: 1000)
        #expect(store.nextDeadline == clock.steady + 1000)
        #expect(table.acknowledge(11, popTime: handles[11] ?? 0) == .finished)
        clock.advance(999)
        #expect(!store.expire(at: clock.now, limit: 10) && table.dueCount == 0)
        clock.advance(1)
        #expect(!store.expire(at: clock.now, limit: 10))
        #expect(table.dueCount == 1 && table.claimedCount == 0 && observer.due == [ObjectIdentifier(table)])
        #expect(store.nextDeadline == nil && store.statistics.expired == 1)
        #expect(table.due(limit: 5).map(\.offset) == [10] && table.due(limit: 5).map(\.attempts) == [1])
        #expect(table.state(of: 10, at: clock.now) == .due(attempts: 1))

        // Again, with a handle of its own: the former one is stale.
        let again = store.pop(table, due: 5, clock, invisible: 500, client: "other")
        #expect(again.keys.sorted() == [10] && again[10] != handles[10])
        #expect(table.acknowledge(10, popTime: handles[10] ?? 0) == .stale)
        #expect(
            table.state(of: 10, at: clock.now)
                == .claimed(
                    client: store.client("other"), since: again[10] ?? 0, until: clock.wall + 500, attempt: 2))
        clock.advance(500)
        _ = store.expire(at: clock.now, limit: 10)
        #expect(table.due(limit: 5).map(\.attempts) == [2])
        // A late handle whose message was not handed out again finishes it.
        #expect(table.acknowledge(10, popTime: again[10] ?? 0) == .finished)
        #expect(table.floor == 12 && table.dueCount == 0 && table.due(limit: 5).isEmpty)
        #expect(table.state(of: 10, at: clock.now) == .finished && table.state(of: 12, at: clock.now) == .new)
    }

    @Test("what was due longest comes first, whatever its offset, and a limit is kept")
    mutating func order() {
        _ = store.pop(table, new: [10], clock, invisible: 3000)
        _ = store.pop(table, new: [11], clock, invisible: 1000)
        _ = store.pop(table, new: [12, 13, 14], clock, invisible: 2000)
        clock.advance(5000)
        #expect(store.expire(at: clock.now, limit: 2))
        #expect(table.due(limit: 9).map(\.offset) == [11, 12, 13, 14])
        #expect(!store.expire(at: clock.now, limit: 2))
        #expect(table.due(limit: 9).map(\.offset) == [11, 12, 13, 14, 10])
        #expect(table.due(limit: 2).map(\.offset) == [11, 12])
        table.drop(due: 11)
        #expect(table.due(limit: 2).map(\.offset) == [12, 13])
        table.isOrdered = true
        #expect(table.due(limit: 2).map(\.offset) == [10, 12])
    }

    @Test("what waits for its next delivery is dropped, due or after a failure; what a client has is not")
    mutating func dropsWaiting() throws {
        let handles = store.pop(table, new: [10, 11, 12], clock, invisible: 1000)
        let failed = try #require(handles[11])
        #expect(table.change(11, popTime: failed, invisible: 60_000, at: clock.now, hasFailed: true) != nil)
        #expect(!table.drop(waiting: 10) && table.drop(waiting: 11) && !table.drop(waiting: 11))
        #expect(!table.drop(waiting: 13))
        #expect(table.claimedCount == 2 && table.failedCount == 0)
        clock.advance(1000)
        _ = store.expire(at: clock.now, limit: 10)
        #expect(table.drop(waiting: 10) && table.drop(waiting: 12))
        #expect(table.dueCount == 0 && table.floor == 13 && store.nextDeadline == nil)
    }

    @Test("change gives a new handle and a new deadline; 0 makes due at once")
    mutating func change() throws {
        let handles = store.pop(table, new: [10, 11, 12], clock, invisible: 1000)
        let old = try #require(handles[11])
        let changed = try #require(table.change(11, popTime: old, invisible: 5000, at: clock.now))
        #expect(changed > old && table.change(11, popTime: old, invisible: 1, at: clock.now) == nil)
        clock.advance(1000)
        _ = store.expire(at: clock.now, limit: 10)
        #expect(table.due(limit: 9).map(\.offset) == [10, 12])
        observer.due = []
        #expect(table.change(11, popTime: changed, invisible: 0, at: clock.now) != nil)
        #expect(observer.due.count == 1 && table.due(limit: 9).map(\.offset) == [10, 12, 11])
        // Due, and not handed out again: the handle still prolongs.
        #expect(table.change(10, popTime: try #require(handles[10]), invisible: 1000, at: clock.now) != nil)
        #expect(table.due(limit: 9).map(\.offset) == [12, 11] && table.floor == 10)
    }

    @Test("abandoned deliveries do not count")
    func abandon() {
        _ = store.pop(table, new: [10, 11], clock)
        table.abandon([10, 11, 99], at: clock.now)
        #expect(table.due(limit: 9).map(\.attempts) == [0, 0])
        _ = store.pop(table, due: 1, clock)
        guard case .claimed(_, _, _, 1) = table.state(of: 10, at: clock.now) else {
            Issue.record("10 is \(table.state(of: 10, at: clock.now))")
            return
        }
    }

    @Test("reset forgets what is in hand, and no handle of before names a delivery of after")
    func reset() {
        let before = store.pop(table, new: [10, 11], clock)
        table.reset(to: 10)
        #expect(table.floor == 10 && table.next == 10 && table.claimedCount == 0)
        let after = store.pop(table, new: [10, 11], clock)
        #expect(table.acknowledge(10, popTime: before[10] ?? 0) == .stale)
        #expect(table.acknowledge(10, popTime: after[10] ?? 0) == .finished)
    }

    @Test("a table made anew does not know the handles of the removed one")
    func madeAnew() {
        let before = store.pop(table, new: [10], clock)
        store.removeTables(topic: "topic")
        #expect(store.table(group: "group", topic: "topic", queueID: 3) == nil && table.isRemoved)
        #expect(store.statistics == ClaimStatistics())
        let anew = store.makeTable(group: group, topic: topic, queueID: 3, at: 10)
        _ = store.pop(anew, new: [10], clock)
        #expect(anew.acknowledge(10, popTime: before[10] ?? 0) == .stale)
        #expect(table.acknowledge(10, popTime: before[10] ?? 0) == .stale)
    }

    @Test("retention drops what is below, claimed, due or never handed out")
    mutating func retention() {
        _ = store.pop(table, new: [10, 11, 12], clock, invisible: 10)
        clock.advance(10)
        _ = store.expire(at: clock.now, limit: 9)
        _ = store.pop(table, due: 1, clock)
        store.retain(table, from: 12)
        #expect(table.floor == 12 && table.due(limit: 9).map(\.offset) == [12] && store.statistics.dropped == 2)
        store.retain(table, from: 40)
        #expect(table.floor == 40 && table.next == 40 && store.statistics.dropped == 3)
    }

    @Test("an ordered queue is blocked for others until its batch is over")
    mutating func ordered() {
        table.isOrdered = true
        let first = store.pop(table, new: [10, 11], clock, invisible: 1000, attemptID: [1])
        #expect(table.blockedUntil(attemptID: [2], at: clock.now) == clock.steady + 1000)
        #expect(table.blockedUntil(attemptID: nil, at: clock.now) == clock.steady + 1000)
        #expect(table.blockedUntil(attemptID: [1], at: clock.now) == nil && table.isOpenBatch([1]))
        #expect(table.acknowledge(10, popTime: first[10] ?? 0) == .finished)
        let popTime = max(clock.wall, table.popTimeMin)
        let batch = table.reopenBatch(
            at: clock.now, popTime: popTime, invisible: 2000, client: .unknown, attemptID: [1])
        #expect(batch.map(\.offset) == [11] && batch.map(\.attempts) == [1])
        #expect(table.acknowledge(11, popTime: first[11] ?? 0) == .stale)
        // An ordered table keeps the pop time.
        #expect(table.change(11, popTime: popTime, invisible: 3000, at: clock.now) == popTime)
        clock.advance(3000)
        _ = store.expire(at: clock.now, limit: 9)
        #expect(table.blockedUntil(attemptID: [2], at: clock.now) == nil)
        _ = store.pop(table, due: 9, clock, attemptID: [2])
        #expect(table.isOpenBatch([2]) && !table.isOpenBatch([1]))
        #expect(table.acknowledge(11, popTime: max(clock.wall, table.popTimeMin - 1)) == .finished)
        #expect(table.blockedUntil(attemptID: [3], at: clock.now) == nil && !table.isOpenBatch([2]))
    }
}
