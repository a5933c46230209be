import LinuxSystem
import Logging
import MessageModel
import TestDisk
import TestTools
import Testing

@testable import Claims

/// One run: a broker, its clients, its disk and its clocks, played by chance.
struct ModelRun {
    var random: SeededGenerator
    var machine: Machine
    var oracle = Oracle()
    /// After each commit since the last synchronization, the oldest first: a power cut leaves one of them.
    var committed = [Oracle()]
    var faults: [String] = []
    var step = 0
    var deliveries = 0
    var minimum: [Int32: Int64] = [:]
    var maximum: [Int32: Int64] = [:]
    let queues: [Int32] = [0, 1, 2, 3]

    /// Half of the runs. A power cut leaves one of several states, which different steps may have led to: then trails
    /// are not compared.
    let hasPowerCuts: Bool

    init(seed: UInt64) throws {
        hasPowerCuts = seed % 2 == 1
        random = SeededGenerator(seed: seed)
        machine = try Machine(trailBytesMax: 1 << 30)
    }

    mutating func play(steps: Int) throws {
        for _ in 0..<steps where faults.isEmpty {
            step += 1
            switch Int.random(in: 0..<100, using: &random) {
            case ..<30: pop(queue())
            case ..<58: acknowledge()
            case ..<62: change()
            case ..<66: fail()
            case ..<78: advance(Int64.random(in: 0...3000, using: &random))
            case ..<80: machine.clock.wall += Int64.random(in: -5_000_000...5_000_000, using: &random)
            case ..<90: try commit()
            case ..<92: synchronize()
            case ..<93: retain(queue())
            case ..<94: reset(queue())
            case ..<95: recreate(queue())
            case ..<96: abandonOrDrop(queue())
            case ..<97: try kill()
            case ..<98: try loseEnds()
            default: if hasPowerCuts { try powerCut() } else { try kill() }
            }
            if oracle.handles.count > 2000 { oracle.handles.removeFirst(1000) }
            check()
        }
        guard faults.isEmpty else { return }
        finish()
        check()
        try commit()
        checkTrails()
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
                untilWall: machine.clock.wall + invisible, attempt: attempt, client: client, given: invisible)
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
            oracle.note(.delivered, queue, offset, at: machine.clock.wall)
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
            oracle.note(.delivered, queue, offset, at: machine.clock.wall)
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
                untilWall: machine.clock.wall + invisible, attempt: attempt, client: client, given: invisible)
            oracle.note(.deliveredAgain, queue, offset, at: machine.clock.wall)
            oracle.handles.append(.init(queue: queue, offset: offset, popTime: popTime, delivery: deliveries))
        }
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
            let failed = known.messages.values.filter { $0.hasFailed && !$0.isDue }
            // One whose time is over may be due already.
            if !(failed.filter { $0.until > machine.clock.steady }.count...failed.count).contains(table.failedCount) {
                found.append("queue \(table.queueID): \(table.failedCount) have failed, not \(failed.count)")
            }
            for (offset, message) in known.messages {
                let state = table.state(of: offset, at: machine.clock.now)
                // Expiry may be behind, here and there.
                let isDue = message.until <= machine.clock.steady
                switch state {
                case .due(message.attempt) where isDue: break
                case .claimed(let client, message.popTime, _, message.attempt)
                where machine.store.name(of: client) == message.client
                    && table.inHand(offset)?.deadline == message.until && (isDue || !message.hasFailed):
                    break
                case .failed(let until, message.attempt)
                where message.hasFailed && table.inHand(offset)?.deadline == message.until
                    && until - machine.clock.wall == message.until - machine.clock.steady:
                    break
                default: found.append("queue \(table.queueID): \(offset) is \(state), not \(message)")
                }
            }
        }
        return found
    }

    /// The trails of some messages of each queue, from files, after a commit.
    mutating func checkTrails() {
        guard !hasPowerCuts else { return }
        for queue in queues where oracle.tables[queue] != nil {
            let steps = oracle.trails[queue] ?? [:]
            for offset in steps.keys.sorted().shuffled(using: &random).prefix(8) {
                let trail = machine.store.trail(
                    of: "topic", groups: ["group"], queueID: queue, offset: offset, at: machine.clock.wall)()
                let events = trail.groups.first?.events ?? []
                let found = events.filter { Oracle.Step.kinds.contains($0.kind) }.map {
                    // When it was acknowledged is known to the tick.
                    Oracle.Step(kind: $0.kind, at: Oracle.Step.ends.contains($0.kind) ? 0 : $0.at, client: $0.client)
                }
                expect(
                    found == steps[offset],
                    "the trail of \(offset) in queue \(queue) is \(events), not \(steps[offset] ?? [])")
            }
        }
    }

    /// All acknowledge: everything gets finished, nothing is stuck.
    mutating func finish() {
        machine.clock.advance(200_000)
        expire()
        for queue in queues where oracle.tables[queue] != nil {
            let table = table(queue)
            table.isOrdered = queue == 3
            while table.dueCount > 0, faults.isEmpty {
                for (offset, popTime) in machine.store.pop(table, due: 20, machine.clock) {
                    oracle.tables[queue]?.messages[offset]?.client = "client"
                    oracle.note(.delivered, queue, offset, at: machine.clock.wall)
                    oracle.note(.acknowledged, queue, offset, at: machine.clock.wall)
                    expect(table.acknowledge(offset, popTime: popTime) == .finished, "\(offset) is stuck")
                    oracle.finish(queue, offset)
                }
            }
            expect(table.floor == table.next && table.claimedCount == 0, "queue \(queue) is stuck at \(table.floor)")
        }
    }
}
