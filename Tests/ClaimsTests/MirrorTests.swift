import Glibc
import LinuxSystem
import Logging
import Synchronization
import TestDisk
import TestTools
import Testing

@testable import Claims

/// A slave that copies claims onto a disk of its own.
struct Slave {
    static let folder = "/store/popState"

    var disk = SimulatedDisk()
    let book = LogBook()
    var mirror: ClaimMirror
    var step: ClaimMirror.Step

    init(on disk: SimulatedDisk? = nil) {
        if let disk { self.disk = disk }
        mirror = ClaimMirror(folder: Self.folder, disk: self.disk, logger: book.logger)
        step = mirror.begin()
    }

    static func answer(_ feed: ClaimFeed, _ question: [UInt8]) throws -> [UInt8] {
        switch question.withUnsafeBytes({ feed.reply(to: $0) }) {
        case .ready(let bytes): return bytes
        case .read(let read): return try read().get()
        case .refused(let reason): throw JournalDamage(reason)
        }
    }

    /// One question and its answer.
    mutating func exchange(_ feed: ClaimFeed) throws {
        step = mirror.take(try Self.answer(feed, step.question), synchronize: true)
    }

    /// Until there is no more.
    mutating func follow(_ feed: ClaimFeed) throws {
        for _ in 0..<10_000 {
            try exchange(feed)
            if case .soon = step.pace { return }
        }
        Issue.record("the slave never has all")
    }

    /// What a store opens here.
    static func state(_ disk: SimulatedDisk, _ clock: Clock) throws -> [String: String] {
        let store = ClaimStore(folder: folder, disk: disk, logger: LogBook().logger)
        let observer = Observer()
        try store.open(at: clock.now, observer: observer, bounds: anyBounds)
        return DamageTests.state(store)
    }
}

/// A master with everything in its journal, and the states it had.
struct Master {
    var machine: Machine
    var states: [[String: String]] = [[:]]
    private var offset: Int64 = 1000

    init() throws {
        machine = try Machine()
        try machine.everything { states.append(DamageTests.state($0)) }
    }

    /// In small pieces, so that there are many.
    func feed() -> ClaimFeed { ClaimFeed(machine.store, disk: machine.disk, pieceMax: 64) }

    mutating func pop() throws {
        _ = machine.store.pop(machine.table(), new: [offset], machine.clock)
        offset += 1
        machine.clock.advance(3)
        try machine.store.commitTick()
        states.append(DamageTests.state(machine.store))
    }

    /// The next journal begins, and the ones before become a snapshot.
    func rotate() throws {
        machine.store.beginNextJournal(try #require(machine.store.files))
        machine.store.backgroundWork()?()
        // Takes the results.
        machine.store.backgroundWork()?()
    }
}

@Suite("a slave copies the journal of claims")
struct MirrorTests {
    @Test("it has what the master has, follows it over new journals, and keeps no more files than it")
    func follows() throws {
        var master = try Master()
        let feed = master.feed()
        var slave = Slave()
        try slave.follow(feed)
        #expect(try Slave.state(slave.disk.afterKill(), master.machine.clock) == master.states.last)
        for round in 0..<30 {
            try master.pop()
            if round % 7 == 3 { try master.rotate() }
            try slave.follow(feed)
            #expect(try Slave.state(slave.disk.afterKill(), master.machine.clock) == master.states.last, "\(round)")
            let names = slave.disk.paths.filter { !$0.hasSuffix(".lock") && !$0.hasSuffix("/mirrored") }
            #expect(names.count <= 2 && names.allSatisfy { $0.hasPrefix("/store/popState/") }, "\(names)")
        }
        // With deadlines, attempts and clients.
        let copy = ClaimStore(folder: Slave.folder, disk: slave.disk.afterKill(), logger: LogBook().logger)
        let observer = Observer()
        try copy.open(at: master.machine.clock.now, observer: observer, bounds: anyBounds)
        #expect(
            Picture(copy, at: master.machine.clock) == Picture(master.machine.store, at: master.machine.clock))
        #expect(!slave.book.lines.contains { $0.hasPrefix("warning") }, "\(slave.book.lines)")
    }

    @Test("a master without claims: what the slave had is forgotten")
    func nothing() throws {
        var master = try Master()
        var slave = Slave()
        try slave.follow(master.feed())
        master.machine = try Machine()
        try slave.follow(master.feed())
        #expect(try Slave.state(slave.disk.afterKill(), master.machine.clock).isEmpty)
    }

    @Test("what was copied is marked until the broker has taken it; a master that has no claims empties it")
    func marked() throws {
        let master = try Master()
        var slave = Slave()
        try slave.follow(master.feed())
        for (start, isMirrored) in [true, true, false].enumerated() {
            let store = ClaimStore(folder: Slave.folder, disk: slave.disk, logger: LogBook().logger)
            try store.open(at: master.machine.clock.now, observer: master.machine.observer, bounds: anyBounds)
            #expect(store.isMirrored == isMirrored && store.statistics.tables > 0)
            // The first start ends before it has written its offsets.
            if start == 1 { try store.mirrorTaken() }
        }
        var other = Slave(on: slave.disk)
        other.step = other.mirror.forget()
        #expect(try Slave.state(other.disk.afterKill(), master.machine.clock).isEmpty)
        try other.follow(master.feed())
        #expect(try Slave.state(other.disk.afterKill(), master.machine.clock) == master.states.last)
    }

    @Test("a journal that a snapshot replaces while it is copied is read to its end, or all is copied anew")
    func rotatesMeanwhile() throws {
        for releases in [false, true] {
            for steps in 1...12 {
                var master = try Master()
                for _ in 0..<5 { try master.pop() }
                let feed = master.feed()
                var slave = Slave()
                for _ in 0..<steps { try slave.exchange(feed) }
                try master.rotate()
                try master.pop()
                if releases { for _ in 0..<ClaimFeed.idleSeconds { feed.secondPassed()?() } }
                try slave.follow(feed)
                // It may have begun anew, with the snapshot.
                try slave.follow(feed)
                #expect(
                    try Slave.state(slave.disk.afterKill(), master.machine.clock) == master.states.last,
                    "\(releases) \(steps)")
            }
        }
    }

    @Test("killed or without power at any call of the disk, it has a state of the master's, and goes on")
    func crashes() throws {
        var random = SeededGenerator(seed: 7)
        for byPower in [false, true] {
            var number = 1
            while true {
                var master = try Master()
                let feed = master.feed()
                var slave = Slave()
                let image = Mutex<SimulatedDisk?>(nil)
                let count = Mutex(0)
                let source = Mutex(random)
                let disk = slave.disk
                let wanted = number
                disk.watcher.withLock {
                    $0 = { write in
                        let now = count.withLock { count in
                            count += 1
                            return count
                        }
                        guard now == wanted else { return }
                        let copy = byPower ? source.withLock { disk.afterPowerCut(&$0) } : disk.afterKill()
                        if !byPower, let write {
                            copy.apply(
                                write.path, offset: write.offset, bytes: write.bytes.dropLast(write.bytes.count / 2))
                        }
                        image.withLock { $0 = copy }
                    }
                }
                // What the slave has for certain after so many calls.
                var least: [(calls: Int, state: Int)] = [(0, 0)]
                func follow(_ feed: ClaimFeed) throws {
                    try slave.follow(feed)
                    least.append((count.withLock { $0 }, master.states.count - 1))
                }
                try follow(feed)
                try master.pop()
                try master.rotate()
                try master.pop()
                try follow(feed)
                // Another history, with what the first had.
                try master.machine.restart()
                try master.pop()
                try follow(master.feed())
                disk.watcher.withLock { $0 = nil }
                random = source.withLock { $0 }
                guard let crashed = image.withLock({ $0 }) else { break }
                let found = try Slave.state(crashed.afterKill(), master.machine.clock)
                let known = least.last { $0.calls < number }?.state ?? 0
                #expect(
                    master.states.lastIndex(of: found) ?? -1 >= known, "call \(number), power \(byPower): \(found)")
                var again = Slave(on: crashed)
                try again.follow(master.feed())
                #expect(
                    try Slave.state(again.disk.afterKill(), master.machine.clock) == master.states.last,
                    "call \(number), power \(byPower)")
                number += 1
            }
            #expect(number > 20)
        }
    }

    @Test("another history is copied beside; the former state counts until it is whole")
    func anotherHistory() throws {
        let first = try Master()
        var slave = Slave()
        try slave.follow(first.feed())
        var second = try Master()
        for _ in 0..<3 { try second.pop() }
        try second.rotate()
        try second.pop()
        let feed = second.feed()
        var steps = 0
        repeat {
            #expect(try Slave.state(slave.disk.afterKill(), first.machine.clock) == first.states.last, "\(steps)")
            try slave.exchange(feed)
            steps += 1
        } while slave.step.pace != .soon
        #expect(steps > 5)
        #expect(try Slave.state(slave.disk.afterKill(), second.machine.clock) == second.states.last)
        // The same master has lost the end of its journal, and goes on from there.
        var random = SeededGenerator(seed: 3)
        try second.pop()
        try slave.follow(feed)
        try second.machine.restart(on: second.machine.disk.afterPowerCut(&random))
        try second.pop()
        try slave.follow(second.feed())
        #expect(try Slave.state(slave.disk.afterKill(), second.machine.clock) == second.states.last)
    }

    @Test("a journal the master could not write begins another history")
    func rewritten() throws {
        var master = try Master()
        let feed = master.feed()
        var slave = Slave()
        try slave.follow(feed)
        master.machine.store.uncommittedMax = 0
        master.machine.disk.fault.withLock { $0 = { call, _ in call == "pwrite" ? EIO : nil } }
        #expect(throws: ClaimError.self) { try master.pop() }
        try slave.follow(feed)
        master.machine.disk.fault.withLock { $0 = nil }
        master.machine.clock.advance(2000)
        _ = master.machine.store.expire(at: master.machine.clock.now, limit: .max)
        try master.pop()
        try slave.follow(feed)
        #expect(try Slave.state(slave.disk.afterKill(), master.machine.clock) == master.states.last)
    }

    @Test("lost, repeated and late answers change nothing")
    func cutTransfers() throws {
        var master = try Master()
        let feed = master.feed()
        var slave = Slave()
        var answers: [[UInt8]] = []
        var random = SeededGenerator(seed: 11)
        for round in 0..<400 {
            let answer = try Slave.answer(feed, slave.step.question)
            answers.append(answer)
            if random.chance(30) { continue }
            if random.chance(30), let late = answers.randomElement(using: &random), late.count > 20, late[1] == 1 {
                slave.step = slave.mirror.take(late, synchronize: false)
            }
            slave.step = slave.mirror.take(try Slave.answer(feed, slave.step.question), synchronize: random.chance(20))
            if round % 50 == 0 { try master.pop() }
        }
        try slave.follow(feed)
        #expect(try Slave.state(slave.disk.afterKill(), master.machine.clock) == master.states.last)
    }

    @Test("garbage is not used, and said once: every byte of every answer changed, cut or added to")
    func garbage() throws {
        let master = try Master()
        let feed = master.feed()
        var first = try Master()
        try first.pop()
        var plain = Slave()
        var questions = 0
        repeat {
            try plain.exchange(feed)
            questions += 1
        } while plain.step.pace != .soon
        for place in 0..<questions {
            var before = Slave()
            try before.follow(first.feed())
            let state = first.states.last
            for _ in 0..<place { try before.exchange(feed) }
            let good = try Slave.answer(feed, before.step.question)
            let image = before.disk.afterKill()
            var bad: [[UInt8]] = good.indices.map { index in
                var bytes = good
                bytes[index] ^= index % 2 == 0 ? 0xFF : 1
                return bytes
            }
            bad += good.indices.map { Array(good.prefix($0)) } + [good + [0]]
            for bytes in bad {
                let step = before.mirror.take(bytes, synchronize: false)
                #expect(step.question.count == before.step.question.count)
            }
            // Whatever it made of that, it has not touched what it had.
            #expect(try Slave.state(before.disk.afterKill(), first.machine.clock) == state, "\(place)")
            var again = Slave(on: image)
            try again.follow(feed)
            #expect(try Slave.state(again.disk.afterKill(), master.machine.clock) == master.states.last)
        }
    }

    @Test("a damaged file of the master's never takes a good state's place")
    func damagedFile() throws {
        var first = try Master()
        try first.pop()
        var slave = Slave()
        try slave.follow(first.feed())
        let second = try Master()
        let path = "/store/popState/journal-00000001"
        second.machine.disk.flip(path, byte: 60, bit: 2)
        let feed = second.feed()
        for _ in 0..<100 { try slave.exchange(feed) }
        #expect(try Slave.state(slave.disk.afterKill(), first.machine.clock) == first.states.last)
        #expect(slave.book.lines.count { $0.hasPrefix("warning") } == 1, "\(slave.book.lines)")
        second.machine.disk.flip(path, byte: 60, bit: 2)
        try slave.follow(feed)
        #expect(try Slave.state(slave.disk.afterKill(), second.machine.clock) == second.states.last)
    }

    @Test("a disk that refuses for a while", arguments: ["pwrite", "rename", "fdatasync", "fsync", "remove", "mkdir"])
    func refusals(call: String) throws {
        var first = try Master()
        try first.pop()
        var slave = Slave()
        try slave.follow(first.feed())
        var second = try Master()
        let feed = second.feed()
        for round in 0..<30 {
            if round % 3 == 0 {
                slave.disk.fault.withLock { $0 = { [call] asked, _ in asked == call ? ENOSPC : nil } }
                for _ in 0..<3 { try slave.exchange(feed) }
                slave.disk.fault.withLock { $0 = nil }
            }
            let found = try Slave.state(slave.disk.afterKill(), second.machine.clock)
            #expect(found == first.states.last || (second.states.contains(found) && !found.isEmpty), "\(round)")
            try slave.exchange(feed)
            if round == 15 { try second.pop() }
            if round == 20 { try second.rotate() }
        }
        try slave.follow(feed)
        #expect(try Slave.state(slave.disk.afterKill(), second.machine.clock) == second.states.last)
    }

    @Test("a slave's store answers no slave, and no question is answered with a file of another name")
    func refused() throws {
        let disk = SimulatedDisk()
        let closed = ClaimStore(folder: Slave.folder, disk: disk, logger: LogBook().logger)
        #expect(throws: JournalDamage.self) {
            try Slave.answer(ClaimFeed(closed, disk: disk), FeedQuestion().encoded.bytes)
        }
        let master = try Master()
        let feed = master.feed()
        let begin = try Slave.answer(feed, FeedQuestion().encoded.bytes)
        guard case .begin(let history, 0) = try FeedAnswer(begin) else {
            Issue.record("no beginning")
            return
        }
        for (number, offset) in [(0, 0), (2, 0), (1 << 29, 5), (1, .max)] as [(UInt32, Int64)] {
            let question = FeedQuestion(history: history, kind: .journal, number: number, offset: offset)
            #expect(try Slave.answer(feed, question.encoded.bytes) == begin, "\(number) \(offset)")
        }
        for wrong in [[], [1], [UInt8](repeating: 0xFF, count: 22), FeedQuestion().encoded.bytes + [0]] {
            #expect(throws: JournalDamage.self) { try Slave.answer(feed, wrong) }
        }
    }
}
