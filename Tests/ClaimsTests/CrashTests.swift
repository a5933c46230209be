import Glibc
import LinuxSystem
import Logging
import Synchronization
import TestDisk
import TestTools
import Testing

@testable import Claims

@Suite("a crash at any call of the disk")
struct CrashTests {
    /// Plays commits, new journals, snapshots and a clean stop; returns what each commit left, and how many of them
    /// must survive a power cut: `(calls of the disk before it, state)`.
    private func play(_ machine: inout Machine, calls: () -> Int) throws -> [(calls: Int, state: [String: String])] {
        var states: [(calls: Int, state: [String: String])] = [(0, [:])]
        func note(_ store: ClaimStore) { states.append((calls(), DamageTests.state(store))) }
        try machine.everything(committed: note)
        machine.store.backgroundWork()?()
        machine.store.beginNextJournal(try #require(machine.store.files))
        for round in 0..<6 as Range<Int64> {
            _ = machine.store.pop(machine.table(), new: [100 + round], machine.clock)
            try machine.store.commitTick()
            note(machine.store)
            if round % 2 == 0 { machine.store.backgroundWork()?() }
            if round == 3 { machine.store.beginNextJournal(try #require(machine.store.files)) }
        }
        try machine.store.close()
        return states
    }

    /// The machine as it is before call `number` of its disk, killed or without power.
    private func crashed(before number: Int, byPower: Bool, _ random: inout SeededGenerator) throws -> (
        SimulatedDisk, Clock, [(calls: Int, state: [String: String])]
    )? {
        var machine = try Machine()
        let disk = machine.disk
        let count = Mutex(0)
        let image = Mutex<SimulatedDisk?>(nil)
        let source = Mutex(random)
        disk.watcher.withLock {
            $0 = { write in
                let now = count.withLock { count in
                    count += 1
                    return count
                }
                guard now == number else { return }
                let copy =
                    byPower ? source.withLock { disk.afterPowerCut(&$0) } : disk.afterKill()
                // The write is torn where chance wants it.
                if !byPower, let write {
                    let part = source.withLock { Int.random(in: 0...write.bytes.count, using: &$0) }
                    copy.apply(write.path, offset: write.offset, bytes: write.bytes.prefix(part))
                }
                image.withLock { $0 = copy }
            }
        }
        let states = try play(&machine) { count.withLock { $0 } }
        disk.watcher.withLock { $0 = nil }
        random = source.withLock { $0 }
        return image.withLock { $0 }.map { ($0, machine.clock, states) }
    }

    private func opened(_ disk: SimulatedDisk, _ clock: Clock, _ observer: Observer) throws -> ClaimStore {
        let store = ClaimStore(folder: "/store/popState", disk: disk, logger: LogBook().logger)
        try store.open(at: clock.now, observer: observer, bounds: anyBounds)
        return store
    }

    @Test("after a kill what was committed is there, and no more than what was being written")
    func kill() throws {
        var random = SeededGenerator(seed: ModelTests.base ?? 5)
        var number = 1
        while let (disk, clock, states) = try crashed(before: number, byPower: false, &random) {
            let before = states.lastIndex { $0.calls < number } ?? 0
            let allowed = states[before...min(before + 1, states.count - 1)].map(\.state)
            let observer = Observer()
            let store = try opened(disk, clock, observer)
            #expect(allowed.contains(DamageTests.state(store)), "before call \(number)")
            number += 1
        }
        #expect(number > 30)
    }

    @Test("after a power cut the state is that of one commit, and a second cut in recovery changes nothing")
    func powerCut() throws {
        var random = SeededGenerator(seed: ModelTests.base ?? 6)
        for _ in 0..<4 {
            var number = 1
            while let (disk, clock, states) = try crashed(before: number, byPower: true, &random) {
                let observer = Observer()
                // What recovery writes is cut off as well, at each of its calls.
                let images = Mutex<[SimulatedDisk]>([])
                let source = Mutex(random)
                disk.watcher.withLock {
                    $0 = { _ in
                        let copy = source.withLock { disk.afterPowerCut(&$0) }
                        images.withLock { $0.append(copy) }
                    }
                }
                let found = DamageTests.state(try opened(disk, clock, observer))
                disk.watcher.withLock { $0 = nil }
                random = source.withLock { $0 }
                #expect(states.contains { $0.state == found }, "before call \(number): \(found)")
                for image in images.withLock({ $0 }) + [disk.afterPowerCut(&random)] {
                    #expect(DamageTests.state(try opened(image, clock, observer)) == found, "twice, call \(number)")
                }
                number += 1
            }
        }
    }

    @Test("a disk that refuses any one call costs a warning or a repeated call, and no claim")
    func faults() throws {
        for failing in 1..<200 {
            var machine = try Machine()
            let count = Mutex(0)
            machine.disk.fault.withLock {
                $0 = { call, _ in
                    guard call != "open", call != "pread" else { return nil }
                    return count.withLock { count in
                        count += 1
                        return count == failing ? EIO : nil
                    }
                }
            }
            for round in 0..<8 as Range<Int64> {
                _ = machine.store.pop(machine.table(), new: [round], machine.clock)
                do { try machine.store.commitTick() } catch { try machine.store.commitTick() }
                if round % 2 == 1 { machine.store.backgroundWork()?() }
                if round % 3 == 2 { machine.store.beginNextJournal(try #require(machine.store.files)) }
            }
            let before = Picture(machine.store, at: machine.clock)
            machine.disk.fault.withLock { $0 = nil }
            try machine.restart(on: machine.disk.afterKill())
            #expect(Picture(machine.store, at: machine.clock) == before, "call \(failing)")
            if count.withLock({ $0 }) < failing { return }
        }
        Issue.record("the disk is called without end")
    }
}
