import TestDisk
import TestTools
import Testing

@testable import Claims

/// Commits, synchronizations, kills and power cuts.
extension ModelRun {
    mutating func commit() throws {
        try machine.store.commitTick(at: machine.clock.now)
        committed.append(oracle)
        if random.chance(10) { checkTrails() }
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

    /// Logs have lost their ends: new messages get the offsets of those that are gone.
    mutating func loseEnds() throws {
        oracle = committed[committed.count - 1]
        var ends: [Int32: Int64] = [:]
        for (queue, table) in oracle.tables.sorted(by: { $0.key < $1.key }) where random.chance(70) {
            ends[queue] = Int64.random(in: max(0, table.floor - 2)...table.next, using: &random)
        }
        try restart(on: machine.disk.afterKill(), ends: ends)
        for (queue, end) in ends {
            maximum[queue] = end
            minimum[queue] = min(minimum[queue] ?? 0, end)
            guard let table = oracle.tables[queue], table.next > end else { continue }
            let left = table.messages.filter { $0.key < end }
            oracle.tables[queue]?.messages = left
            oracle.tables[queue]?.next = end
            if left.isEmpty { oracle.tables[queue]?.attemptID = nil }
            // What the queue gets there is another message.
            oracle.trails[queue] = oracle.trails[queue]?.filter { $0.key < end }
        }
        for queue in ends.keys.sorted() where random.chance(70) { pop(queue) }
    }

    /// - Parameter ends: where queues end; others have everything.
    mutating func restart(on disk: SimulatedDisk, ends: [Int32: Int64] = [:]) throws {
        if random.chance(30) { machine.clock.wall += Int64.random(in: -100_000...1_000_000, using: &random) }
        machine.clock.steady = Int64.random(in: 0...10_000_000, using: &random)
        try machine.restart(on: disk, bounds: { (0, ends[$0.queueID] ?? .max) })
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
        // Deliveries that were lost with the journal's end may have had pop times that are given again.
        let oracle = oracle
        self.oracle.handles.removeAll { !oracle.isCurrent($0) }
        committed = [self.oracle]
        let left = differences()
        let said = machine.book.lines.suffix(3)
        expect(left.isEmpty, "after a power cut: \(left.first ?? ""); \(said)")
        // Read once, it is read again after the next cut: what was read was on the disk.
        guard let work = machine.store.backgroundWork() else { return }
        work()
    }
}
