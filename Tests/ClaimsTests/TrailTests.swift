import LinuxSystem
import MessageModel
import TestDisk
import Testing

@testable import Claims

@Suite("the trail of a message is what the journals have about it") struct TrailTests {
    private func trail(_ machine: Machine, _ offset: Int64, _ queueID: Int32 = 0) -> ClaimTrail {
        machine.store.trail(of: "topic", groups: ["group"], queueID: queueID, offset: offset, at: machine.clock.wall)()
    }

    private func events(_ machine: Machine, _ offset: Int64, _ queueID: Int32 = 0) -> [TrailEvent] {
        trail(machine, offset, queueID).groups.first?.events ?? []
    }

    @Test("every step is there, with time and client") func everyStepIsThere() throws {
        var machine = try Machine(trailBytesMax: 1 << 20)
        let begin = machine.clock.wall
        let first = machine.store.pop(machine.table(), new: [0, 1, 3], next: 5, machine.clock, invisible: 1000)
        try machine.store.commitTick(at: machine.clock.now)
        machine.clock.advance(10)
        #expect(machine.table().acknowledge(0, popTime: first[0] ?? 0) == .finished)
        try machine.store.commitTick(at: machine.clock.now)
        machine.clock.advance(10)
        _ = machine.table().change(1, popTime: first[1] ?? 0, invisible: 30, at: machine.clock.now)
        try machine.store.commitTick(at: machine.clock.now)
        machine.clock.advance(1500)
        _ = machine.store.expire(at: machine.clock.now, limit: 100)
        let again = machine.store.pop(machine.table(), due: 2, machine.clock, invisible: 2000, client: "other")
        #expect(again.count == 2)
        try machine.store.commitTick(at: machine.clock.now)
        machine.clock.advance(5)
        for (offset, popTime) in again {
            #expect(machine.table().acknowledge(offset, popTime: popTime) == .finished)
        }
        try machine.store.commitTick(at: machine.clock.now)

        #expect(
            events(machine, 0) == [
                TrailEvent(.delivered, at: begin, until: begin + 1000, client: "client"),
                TrailEvent(.acknowledged, at: begin + 10, client: "client"),
            ])
        #expect(
            events(machine, 1) == [
                TrailEvent(.delivered, at: begin, until: begin + 1000, client: "client"),
                TrailEvent(.rescheduled, at: begin + 20, until: begin + 50, client: "client"),
                TrailEvent(.timedOut, at: begin + 50, client: "client"),
                TrailEvent(.delivered, at: begin + 1520, until: begin + 3520, client: "other"),
                TrailEvent(.acknowledged, at: begin + 1525, client: "other"),
            ])
        #expect(events(machine, 3).map(\.kind) == [.delivered, .timedOut, .delivered, .acknowledged])
        #expect(events(machine, 2) == [TrailEvent(.filtered, at: begin)])
        #expect(events(machine, 4) == [TrailEvent(.filtered, at: begin)])
        #expect(events(machine, 5).isEmpty)
        #expect(trail(machine, 0).begins == begin && trail(machine, 0).failure == nil)
    }

    @Test("a message times out at its deadline and not before") func whatIsNotOverHasNotTimedOut() throws {
        var machine = try Machine()
        _ = machine.store.pop(machine.table(), new: [0], machine.clock, invisible: 100)
        try machine.store.commitTick(at: machine.clock.now)
        machine.clock.advance(99)
        #expect(events(machine, 0).map(\.kind) == [.delivered])
        machine.clock.advance(1)
        #expect(events(machine, 0).map(\.kind) == [.delivered, .timedOut])
    }

    @Test("resets, answers that could not leave, a group made anew") func resetsAndAnswersThatCouldNotLeave() throws {
        let machine = try Machine(trailBytesMax: 1 << 20)
        _ = machine.store.pop(machine.table(), new: [0, 1, 2], machine.clock)
        try machine.store.commitTick(at: machine.clock.now)
        machine.table().reset(to: 1)
        try machine.store.commitTick(at: machine.clock.now)
        #expect(events(machine, 0).map(\.kind) == [.delivered, .skipped])
        #expect(events(machine, 1).map(\.kind) == [.delivered, .reset])
        let handles = machine.store.pop(machine.table(), new: [1], machine.clock)
        machine.table().abandon(Array(handles.keys), at: machine.clock.now)
        try machine.store.commitTick(at: machine.clock.now)
        #expect(events(machine, 1).map(\.kind) == [.delivered, .reset, .delivered, .takenBack])
        // A group that begins again at the same place has no part in it.
        machine.store.removeTables(group: "group")
        _ = machine.table()
        #expect(events(machine, 1).isEmpty)
    }

    @Test(
        "journals that a snapshot replaces are kept, as many as the bound allows",
        arguments: [0, 16384, 1 << 30] as [Int64])
    func surviveRestartsWithinTheirBound(_ max: Int64) throws {
        var machine = try Machine(trailBytesMax: max)
        var handles: [Int64: Int64] = [:]
        for round in 0..<10 as Range<Int64> {
            handles.merge(machine.store.pop(machine.table(), new: [round], machine.clock)) { $1 }
            try machine.store.commitTick(at: machine.clock.now)
            machine.clock.advance(100)
            if round > 0 { _ = machine.table().acknowledge(round - 1, popTime: handles[round - 1] ?? 0) }
            try machine.store.close()
            machine.clock.advance(1)
            try machine.restart()
        }
        let kept = try machine.disk.list("/store/popState").filter { $0.hasPrefix("trail-") }.count
        // A file counts 4096 bytes at least.
        #expect(kept == (max == 0 ? 0 : max == 16384 ? 4 : 10))
        #expect(events(machine, 8).map(\.kind) == (max == 0 ? [] : [.delivered, .acknowledged]))
        #expect(events(machine, 0).map(\.kind) == (max > 16384 ? [.delivered, .acknowledged] : []))
        #expect((trail(machine, 0).begins == nil) == (max == 0))
    }

    @Test("of a message that is delivered for ever, the first steps and the last are kept")
    func boundedSteps() throws {
        var machine = try Machine(trailBytesMax: 1 << 20)
        var popTime = machine.store.pop(machine.table(), new: [0], machine.clock)[0] ?? 0
        let begin = machine.clock.wall
        for _ in 0..<5000 {
            machine.clock.advance(1)
            popTime = machine.table().change(0, popTime: popTime, invisible: 60_000, at: machine.clock.now) ?? 0
            try machine.store.commitTick(at: machine.clock.now)
        }
        let part = try #require(trail(machine, 0).groups.first)
        #expect(part.events.count <= 1000 && part.events.count + part.leftOut == 5001)
        #expect(part.events.first?.kind == .delivered && part.events[99].at == begin + 99)
        #expect(part.events.last?.at == machine.clock.wall)
    }

    @Test("damage ends the reading of a file and nothing else") func damagedFilesEndTheReadingAndNothingElse() throws {
        var machine = try Machine()
        try machine.everything()
        let path = "/store/popState/journal-00000001"
        let whole = events(machine, 5)
        #expect(whole.map(\.kind).starts(with: [.delivered, .acknowledged]))
        let bytes = try #require(try ClaimFile.read(path, machine.disk))
        for length in stride(from: 0, to: bytes.count, by: 3) {
            let disk = machine.disk.afterKill()
            try disk.open(path, .readWrite).truncate(to: Int64(length))
            var reader = TrailReader(groups: [machine.table().number: group], offset: 5)
            reader.read(TrailFiles("/store/popState", disk))
            let found = reader.trail(at: machine.clock.wall).groups.first?.events ?? []
            #expect(found.count <= whole.count + 1)
        }
        for place in stride(from: 0, to: bytes.count, by: 5) {
            let disk = machine.disk.afterKill()
            disk.flip(path, byte: place, bit: place % 8)
            var reader = TrailReader(groups: [machine.table().number: group], offset: 5)
            reader.read(TrailFiles("/store/popState", disk))
            #expect(reader.trail(at: machine.clock.wall).failure == nil)
        }
    }
}
