import Foundation
import LinuxSystem
import Logging
import MessageModel
import TestDisk
import TestTools
import Testing

@testable import Claims

@Suite("claims against an oracle, in simulated time")
struct ModelTests {
    static let base = ProcessInfo.processInfo.environment["APUS_SEED"].flatMap { UInt64($0) }
    static let count = ProcessInfo.processInfo.environment["APUS_CLAIM_SEEDS"].flatMap { UInt64($0) } ?? 20
    static let seeds: [UInt64] = {
        if let base { return [base] }
        let first = UInt64(Date().timeIntervalSince1970 * 1000)
        return (0..<count).map { first &+ $0 &* 7919 }
    }()

    @Test("never in two hands, none lost, none stuck, attempts and floor right", arguments: seeds)
    func model(seed: UInt64) throws {
        var run = try ModelRun(seed: seed)
        try run.play(steps: 600)
        if !run.faults.isEmpty {
            Issue.record("APUS_SEED=\(seed): \(run.faults.prefix(3).joined(separator: "\n"))")
        }
    }
}

/// One run: a broker, its clients, its disk and its clocks, played by chance.
struct ModelRun {
    var random: SeededGenerator
    var machine: Machine
    var oracle = Oracle()
    /// What is on disk: after each commit since the last synchronization, the oldest first.
    var committed = [Oracle()]
    /// How many of them a power cut cannot take: the first.
    var faults: [String] = []
    var step = 0
    var deliveries = 0
    var minimum: [Int32: Int64] = [:]
    var maximum: [Int32: Int64] = [:]
    let queues: [Int32] = [0, 1, 2, 3]

    init(seed: UInt64) throws {
        random = SeededGenerator(seed: seed)
        machine = try Machine()
    }

    mutating func play(steps: Int) throws {
        for _ in 0..<steps where faults.isEmpty {
            step += 1
            switch Int.random(in: 0..<100, using: &random) {
            case ..<30: pop(queue())
            case ..<58: acknowledge()
            case ..<66: change()
            case ..<78: advance(Int64.random(in: 0...3000, using: &random))
            case ..<80: machine.clock.wall += Int64.random(in: -5_000_000...5_000_000, using: &random)
            case ..<90: try commit()
            case ..<92: synchronize()
            case ..<93: retain(queue())
            case ..<94: reset(queue())
            case ..<95: recreate(queue())
            case ..<96: abandonOrDrop(queue())
            case ..<98: try kill()
            default: try powerCut()
            }
            check()
        }
        guard faults.isEmpty else { return }
        finish()
        check()
        try commit()
        try machine.store.close()
        let before = Picture(machine.store, at: machine.clock)
        try machine.restart()
        expect(Picture(machine.store, at: machine.clock) == before, "a clean stop loses something")
    }

    mutating func expect(_ truth: Bool, _ text: @autoclosure () -> String) {
        if !truth { faults.append("step \(step): \(text())") }
    }

    mutating func one(of times: [Int64]) -> Int64 { times.randomElement(using: &random) ?? 0 }

    mutating func queue() -> Int32 { queues.randomElement(using: &random) ?? 0 }

    // MARK: - The broker

    mutating func table(_ queue: Int32) -> ClaimTable {
        if let table = machine.store.table(group: "group", topic: "topic", queueID: queue) {
            expect(oracle.tables[queue] != nil, "queue \(queue) has a table")
            return table
        }
        expect(oracle.tables[queue] == nil, "queue \(queue) has no table")
        let offset = minimum[queue] ?? 0
        oracle.tables[queue] = Oracle.Table(isOrdered: queue == 3, next: offset)
        return machine.store.makeTable(group: group, topic: topic, queueID: queue, at: offset)
    }

    mutating func expire() {
        while machine.store.expire(at: machine.clock.now, limit: Int.random(in: 1...20, using: &random)) {}
        oracle.expire(steady: machine.clock.steady)
    }

    mutating func advance(_ milliseconds: Int64) {
        machine.clock.advance(milliseconds)
        if random.chance(70) { expire() }
    }

    mutating func pop(_ queue: Int32) {
        expire()
        let table = table(queue)
        table.isOrdered = queue == 3
        let client = "client-\(Int.random(in: 0..<5, using: &random))"
        let attemptID = random.chance(80) ? [UInt8.random(in: 0..<4, using: &random)] : nil
        let invisible = one(of: [0, 1, 500, 2000, 10_000, 60_000])
        if table.isOrdered {
            let open = oracle.tables[queue]?.messages.filter { !$0.value.isDue } ?? [:]
            let same = attemptID != nil && oracle.tables[queue]?.attemptID == attemptID
            let blocked = table.blockedUntil(attemptID: attemptID, at: machine.clock.now)
            expect(
                blocked == (open.isEmpty || same ? nil : open.values.map(\.until).max()),
                "queue \(queue) is blocked until \(blocked ?? -1)")
            if blocked != nil { return }
            if same, let attemptID {
                expect(table.isOpenBatch(attemptID), "the batch of \(attemptID) is not open")
                return reopen(queue, table, client, attemptID, invisible)
            }
        }
        let popTime = max(
            machine.clock.wall, random.chance(50) ? table.popTimeMin : max(table.popTimeMin, machine.store.popTimeMin))
        let number = machine.store.client(client)
        func message(_ attempt: Int32) -> Oracle.Message {
            Oracle.Message(
                delivery: deliveries, popTime: popTime, until: machine.clock.steady + invisible,
                untilWall: machine.clock.wall + invisible, attempt: attempt, client: client)
        }
        for (offset, attempts) in table.due(limit: Int.random(in: 0...10, using: &random)) {
            let known = oracle.tables[queue]?.messages[offset]
            expect(known?.isDue == true, "queue \(queue) hands out \(offset), which is not due")
            expect(known?.attempt == attempts, "queue \(queue): \(offset) had \(attempts) attempts")
            table.reclaim(
                offset, at: machine.clock.now, popTime: popTime, invisible: invisible, client: number,
                attemptID: attemptID)
            deliveries += 1
            oracle.tables[queue]?.messages[offset] = message(attempts + 1)
            oracle.tables[queue]?.messages[offset]?.given = invisible
            oracle.handles.append(.init(queue: queue, offset: offset, popTime: popTime, delivery: deliveries))
        }
        maximum[queue, default: 0] += Int64.random(in: 0...60, using: &random)
        maximum[queue] = max(maximum[queue] ?? 0, table.next)
        let next = min(table.next + Int64.random(in: 0...80, using: &random), maximum[queue] ?? 0)
        let percent = [100, 100, 60, 10].randomElement(using: &random) ?? 100
        let offsets = (table.next..<next).filter { _ in random.chance(percent) }
        table.claim(
            offsets, next: next, at: machine.clock.now, popTime: popTime, invisible: invisible, client: number,
            attemptID: attemptID)
        for offset in offsets {
            expect(oracle.tables[queue].map { $0.next <= offset } ?? false, "\(offset) was handed out before")
            deliveries += 1
            oracle.tables[queue]?.messages[offset] = message(1)
            oracle.handles.append(.init(queue: queue, offset: offset, popTime: popTime, delivery: deliveries))
        }
        oracle.tables[queue]?.next = next
        if table.isOrdered {
            let isOver = oracle.tables[queue]?.messages.isEmpty == true
            oracle.tables[queue]?.attemptID = isOver ? nil : attemptID
        }
    }

    mutating func reopen(
        _ queue: Int32, _ table: ClaimTable, _ client: String, _ attemptID: [UInt8], _ invisible: Int64
    ) {
        let popTime = max(machine.clock.wall, table.popTimeMin)
        let batch = table.reopenBatch(
            at: machine.clock.now, popTime: popTime, invisible: invisible, client: machine.store.client(client),
            attemptID: attemptID)
        let known = oracle.tables[queue]?.messages ?? [:]
        expect(batch.map(\.offset) == known.keys.sorted(), "a batch opened again has \(batch)")
        for (offset, attempts) in batch {
            let attempt = max(known[offset]?.attempt ?? 0, 1)
            expect(attempts == attempt, "\(offset) of an opened batch had \(attempts) attempts")
            deliveries += 1
            oracle.tables[queue]?.messages[offset] = Oracle.Message(
                delivery: deliveries, popTime: popTime, until: machine.clock.steady + invisible,
                untilWall: machine.clock.wall + invisible, attempt: attempt, client: client,
                given: known[offset]?.given == nil ? nil : invisible)
            oracle.handles.append(.init(queue: queue, offset: offset, popTime: popTime, delivery: deliveries))
        }
    }

    // MARK: - Clients

    /// A handle of now or before, or an invented one.
    mutating func handle() -> Oracle.Handle {
        if random.chance(95),
            let recent = oracle.handles.suffix(random.chance(80) ? 60 : 5000).randomElement(using: &random)
        {
            return recent
        }
        return Oracle.Handle(
            queue: queue(), offset: Int64.random(in: -5...200, using: &random),
            popTime: machine.clock.wall + Int64.random(in: 5_000_000...10_000_000, using: &random), delivery: -1)
    }

    mutating func acknowledge() {
        for _ in 0..<Int.random(in: 1...20, using: &random) {
            let handle = handle()
            guard let table = machine.store.table(group: "group", topic: "topic", queueID: handle.queue) else {
                continue
            }
            let outcome = table.acknowledge(handle.offset, popTime: handle.popTime)
            expect((outcome == .finished) == oracle.isCurrent(handle), "\(outcome) for \(handle)")
            if outcome == .finished { oracle.finish(handle.queue, handle.offset) }
        }
    }

    mutating func change() {
        let handle = handle()
        guard let table = machine.store.table(group: "group", topic: "topic", queueID: handle.queue) else { return }
        let invisible = one(of: [0, 100, 3000, 100_000])
        let isOrdered = table.isOrdered
        let popTime = table.change(handle.offset, popTime: handle.popTime, invisible: invisible, at: machine.clock.now)
        expect((popTime != nil) == oracle.isCurrent(handle), "changed \(handle)")
        guard let popTime, var message = oracle.tables[handle.queue]?.messages[handle.offset] else { return }
        expect(isOrdered ? popTime == message.popTime : popTime > message.popTime, "the new handle is the old one")
        if !isOrdered { deliveries += 1 }
        message.delivery = isOrdered ? message.delivery : deliveries
        message.popTime = popTime
        message.until = machine.clock.steady + invisible
        message.untilWall = machine.clock.wall + invisible
        message.isDue = invisible == 0
        message.given = invisible
        oracle.tables[handle.queue]?.messages[handle.offset] = message
        oracle.handles.append(
            .init(queue: handle.queue, offset: handle.offset, popTime: popTime, delivery: message.delivery))
    }

    // MARK: - What happens to queues

    mutating func retain(_ queue: Int32) {
        guard let next = oracle.tables[queue]?.next, random.chance(50) else { return }
        let bound = Int64.random(in: 0...next + 5, using: &random)
        guard bound > minimum[queue] ?? 0 else { return }
        minimum[queue] = bound
        maximum[queue] = max(maximum[queue] ?? 0, bound)
        machine.store.retain(table(queue), from: bound)
        if oracle.tables[queue].map({ $0.floor < bound }) == true {
            let left = oracle.tables[queue]?.messages.filter { $0.key >= bound } ?? [:]
            oracle.tables[queue]?.messages = left
            oracle.tables[queue]?.next = max(next, bound)
            if oracle.tables[queue]?.messages.isEmpty == true { oracle.tables[queue]?.attemptID = nil }
        }
    }

    mutating func reset(_ queue: Int32) {
        guard oracle.tables[queue] != nil, random.chance(50) else { return }
        let offset = Int64.random(
            in: (minimum[queue] ?? 0)...max(minimum[queue] ?? 0, maximum[queue] ?? 0), using: &random)
        table(queue).reset(to: offset)
        oracle.tables[queue]?.next = offset
        oracle.tables[queue]?.messages = [:]
        oracle.tables[queue]?.attemptID = nil
    }

    /// One queue's own topic would be simpler; here all queues of the topic go.
    mutating func recreate(_ queue: Int32) {
        guard random.chance(40) else { return }
        machine.store.removeTables(topic: "topic")
        oracle.tables = [:]
        minimum = [:]
        maximum = [:]
    }

    mutating func abandonOrDrop(_ queue: Int32) {
        guard oracle.tables[queue] != nil else { return }
        let table = table(queue)
        if random.chance(50) {
            expire()
            for (offset, _) in table.due(limit: 3) {
                table.drop(due: offset)
                oracle.finish(queue, offset)
            }
        } else if let (offset, message) = oracle.tables[queue]?.messages.filter({ !$0.value.isDue })
            .min(by: { $0.key < $1.key })
        {
            // Expiry may be behind: then it is due already, and stays as it is.
            guard table.inHand(offset)?.isDue == false else { return }
            table.abandon([offset], at: machine.clock.now)
            var message = message
            message.isDue = true
            message.attempt -= 1
            message.given = 0
            message.until = machine.clock.steady
            message.untilWall = machine.clock.wall
            oracle.tables[queue]?.messages[offset] = message
        }
    }

    // MARK: - Disk

    mutating func commit() throws {
        try machine.store.commitTick()
        committed.append(oracle)
        if random.chance(20), let files = machine.store.files { machine.store.beginNextJournal(files) }
    }

    mutating func synchronize() {
        guard let work = machine.store.backgroundWork() else { return }
        work()
        committed = [committed[committed.count - 1]]
    }

    mutating func kill() throws {
        oracle = committed[committed.count - 1]
        try restart(on: machine.disk.afterKill())
    }

    mutating func restart(on disk: SimulatedDisk) throws {
        if random.chance(30) { machine.clock.wall += Int64.random(in: -100_000...1_000_000, using: &random) }
        machine.clock.steady = Int64.random(in: 0...10_000_000, using: &random)
        try machine.restart(on: disk)
        oracle.restart(wall: machine.clock.wall, steady: machine.clock.steady)
        restoreBounds()
    }

    /// The queues are on the disk of another module, which has lost nothing.
    mutating func restoreBounds() {
        for (queue, table) in oracle.tables {
            maximum[queue] = max(maximum[queue] ?? 0, table.next)
            minimum[queue] = min(minimum[queue] ?? 0, table.floor)
        }
    }

    /// What is left is what one of the commits since the last synchronization left.
    mutating func powerCut() throws {
        machine.disk.writeSomeBack(&random)
        let disk = machine.disk.afterPowerCut(&random)
        let candidates = committed
        oracle = candidates[0]
        try restart(on: disk)
        for candidate in candidates.reversed() {
            oracle = candidate
            oracle.restart(wall: machine.clock.wall, steady: machine.clock.steady)
            if differences().isEmpty { break }
        }
        restoreBounds()
        committed = [oracle]
        let left = differences()
        let said = machine.book.lines.suffix(3)
        expect(left.isEmpty, "after a power cut: \(left.first ?? ""); \(said)")
        // Read once, it is read again after the next cut: what was read was on the disk.
        guard let work = machine.store.backgroundWork() else { return }
        work()
    }

    // MARK: - Checks

    mutating func check() {
        for text in differences() { expect(false, text) }
    }

    func differences() -> [String] {
        var found: [String] = []
        let tables = machine.store.tables(of: "topic")
        if tables.count != oracle.tables.count {
            found.append("\(tables.count) tables instead of \(oracle.tables.count)")
        }
        for table in tables {
            guard let known = oracle.tables[table.queueID] else {
                found.append("queue \(table.queueID) has a table")
                continue
            }
            if table.floor != known.floor || table.next != known.next {
                found.append(
                    "queue \(table.queueID): \(table.floor)..<\(table.next), not \(known.floor)..<\(known.next)")
                continue
            }
            if table.claimedCount + table.dueCount != known.messages.count {
                found.append(
                    "queue \(table.queueID): \(table.claimedCount) + \(table.dueCount), not \(known.messages.count)")
            }
            for (offset, message) in known.messages {
                let state = table.state(of: offset, at: machine.clock.now)
                // Expiry may be behind, here and there.
                let isDue = message.until <= machine.clock.steady
                switch state {
                case .due(message.attempt) where isDue: break
                case .claimed(let client, message.popTime, _, message.attempt)
                where machine.store.name(of: client) == message.client
                    && table.inHand(offset)?.deadline == message.until:
                    break
                default: found.append("queue \(table.queueID): \(offset) is \(state), not \(message)")
                }
            }
        }
        return found
    }

    /// Everybody acknowledges: everything gets finished, nothing is stuck.
    mutating func finish() {
        machine.clock.advance(200_000)
        expire()
        for queue in queues where oracle.tables[queue] != nil {
            let table = table(queue)
            table.isOrdered = queue == 3
            while table.dueCount > 0, faults.isEmpty {
                for (offset, popTime) in machine.store.pop(table, due: 20, machine.clock) {
                    expect(table.acknowledge(offset, popTime: popTime) == .finished, "\(offset) is stuck")
                    oracle.finish(queue, offset)
                }
            }
            expect(table.floor == table.next && table.claimedCount == 0, "queue \(queue) is stuck at \(table.floor)")
        }
    }
}
