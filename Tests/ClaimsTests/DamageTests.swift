import Foundation
import LinuxSystem
import Logging
import MessageModel
import Synchronization
import TestDisk
import TestTools
import Testing

@testable import Claims

@Suite("foreign bytes are taken without a trap, and give back no more than was written")
struct DamageTests {
    /// What one commit left: floors and all that is in hand.
    static func state(_ store: ClaimStore) -> [String: String] {
        var state: [String: String] = [:]
        for table in store.registry.tables {
            var text = "\(table.floor)..<\(table.next)"
            for offset in table.floor..<min(table.next, table.floor +| 5000) {
                guard let single = table.inHand(offset) else { continue }
                text += " \(offset):\(single.popTime)#\(single.attempt)"
            }
            state["\(table.group) \(table.queueID)"] = text
        }
        return state
    }

    /// A disk with these files in the folder.
    static func disk(_ files: [String: [UInt8]]) throws -> SimulatedDisk {
        let disk = SimulatedDisk()
        try disk.createDirectory("/store/popState")
        for (path, bytes) in files {
            let file = try disk.open(path, .replace)
            try bytes.withUnsafeBytes { try file.write($0, at: 0) }
        }
        return disk
    }

    static func opened(_ files: [String: [UInt8]], _ clock: Clock, _ observer: Observer) throws -> (
        ClaimStore, SimulatedDisk
    ) {
        let disk = try disk(files)
        let store = ClaimStore(folder: "/store/popState", disk: disk, logger: LogBook().logger)
        try store.open(at: clock.now, observer: observer, bounds: anyBounds)
        return (store, disk)
    }

    /// A journal of all kinds, a snapshot and a second journal; all states there ever were; the clock behind them.
    static func written() throws -> (files: [String: [UInt8]], states: [[String: String]], clock: Clock) {
        var machine = try Machine()
        var states: [[String: String]] = [[:]]
        try machine.everything { states.append(state($0)) }
        machine.store.beginNextJournal(try #require(machine.store.files))
        _ = machine.store.pop(machine.table(0), new: [41, 42], machine.clock)
        _ = machine.store.pop(machine.table(1), new: [61, 63], machine.clock)
        try machine.store.commitTick()
        states.append(state(machine.store))
        let table = machine.table(2)
        _ = table.change(0, popTime: table.inHand(0)?.popTime ?? 0, invisible: 5, at: machine.clock.now)
        try machine.store.commitTick()
        states.append(state(machine.store))
        let files = Dictionary(uniqueKeysWithValues: machine.disk.paths.map { ($0, machine.disk.bytes($0) ?? []) })
        return (files, states, machine.clock)
    }

    /// Opens, uses and opens again what is damaged.
    func survives(_ files: [String: [UInt8]], _ states: [[String: String]], _ clock: Clock, _ what: String) throws {
        let observer = Observer()
        let (store, disk) = try Self.opened(files, clock, observer)
        let found = Self.state(store)
        #expect(states.contains(found), "\(what): \(found)")
        _ = store.expire(at: clock.now, limit: .max)
        let table =
            store.table(group: "group", topic: "topic", queueID: 0)
            ?? store.makeTable(group: group, topic: topic, queueID: 0, at: 0)
        _ = store.pop(table, due: 3, new: [table.next], clock)
        try store.commitTick()
        let before = Picture(store, at: clock)
        let again = ClaimStore(folder: "/store/popState", disk: disk.afterKill(), logger: LogBook().logger)
        try again.open(at: clock.now, observer: observer, bounds: anyBounds)
        #expect(Picture(again, at: clock) == before, "\(what), and opened again")
    }

    @Test("a file that states more than any has is damaged, and of a hole next to nothing is read")
    func sparse() throws {
        let (files, states, clock) = try Self.written()
        let root = FileManager.default.temporaryDirectory.appendingPathComponent("apus-claims-\(UUID().uuidString)")
        let folder = root.path
        defer { try? FileManager.default.removeItem(at: root) }
        for size in [ClaimFile.sizeMax, ClaimFile.sizeMax + 1] {
            var damaged = 0
            for path in files.keys {
                try? FileManager.default.removeItem(at: root)
                try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
                for (path, bytes) in files {
                    let name = String(path.split(separator: "/").last ?? "")
                    try Data(bytes).write(to: root.appendingPathComponent(name))
                }
                let name = folder + "/" + (path.split(separator: "/").last ?? "")
                #expect(truncate(name, Int(size)) == 0)
                let read = try ClaimFile.read(name, RealDisk())
                #expect(size > ClaimFile.sizeMax ? read == nil : (read?.count ?? .max) < 1 << 20)
                let recovery = try ClaimRecovery(folder, RealDisk())
                damaged += recovery.damage.isEmpty ? 0 : 1
                let log = LogBook()
                let store = ClaimStore(folder: folder, disk: RealDisk(), logger: log.logger)
                try store.open(at: clock.now, observer: Observer(), bounds: anyBounds)
                #expect(states.contains(Self.state(store)))
            }
            #expect(damaged > 0)
        }
    }

    @Test("every truncation of every file")
    func truncations() throws {
        let (files, states, clock) = try Self.written()
        for (path, bytes) in files {
            for count in 0..<bytes.count {
                var cut = files
                cut[path] = Array(bytes.prefix(count))
                try survives(cut, states, clock, "\(path) cut to \(count)")
                cut[path] = Array(bytes.prefix(count)) + [UInt8](repeating: 0, count: bytes.count - count)
                // Zeros in place of zeros are no damage.
                try survives(cut, states, clock, "\(path) zeroed from \(count)")
            }
        }
    }

    @Test("every flipped byte of every file, and a missing one")
    func flips() throws {
        let (files, states, clock) = try Self.written()
        for (path, bytes) in files {
            var missing = files
            missing[path] = nil
            try survives(missing, states, clock, "\(path) is missing")
            for index in bytes.indices {
                for change in [1 << (index % 8), 0xFF] as [UInt8] {
                    var flipped = files
                    flipped[path]?[index] ^= change
                    try survives(flipped, states, clock, "\(path) flipped at \(index)")
                }
            }
        }
    }

    @Test("the same with a snapshot")
    func snapshots() throws {
        var (files, states, clock) = try Self.written()
        let (store, disk) = try Self.opened(files, clock, Observer())
        try store.close()
        files = Dictionary(uniqueKeysWithValues: disk.paths.map { ($0, disk.bytes($0) ?? []) })
        #expect(files.count == 1)
        for (path, bytes) in files {
            for index in bytes.indices {
                files[path] = bytes
                files[path]?[index] ^= 1 << UInt8(index % 8)
                try survives(files, states, clock, "\(path) flipped at \(index)")
                files[path] = Array(bytes.prefix(index))
                try survives(files, states, clock, "\(path) cut to \(index)")
            }
        }
    }

    /// Blocks whose checksums are right and whose entries are anything: nothing traps, whatever it is then.
    @Test("forged entries with right checksums")
    func forged() throws {
        let (files, _, clock) = try Self.written()
        let (store, disk) = try Self.opened(files, clock, Observer())
        try store.close()
        var all = files
        for path in disk.paths { all[path] = disk.bytes(path) }
        var random = SeededGenerator(seed: ModelTests.base ?? 11)
        for (path, bytes) in all.sorted(by: { $0.key < $1.key }) {
            for _ in 0..<3000 {
                var forged = bytes
                Self.forge(&forged, &random)
                let (store, _) = try Self.opened([path: forged], clock, Observer())
                _ = store.expire(at: clock.now, limit: .max)
                for table in store.registry.byNumber.values {
                    for (offset, _) in table.due(limit: 50).prefix(2) { table.drop(due: offset) }
                    _ = table.acknowledge(table.floor, popTime: 0)
                    store.retain(table, from: table.floor +| 3)
                }
                try store.commitTick()
            }
        }
    }

    /// A journal of one block.
    static func journal(_ write: (inout EntryBytes) -> Void) -> [String: [UInt8]] {
        var payload = EntryBytes()
        payload.signed(0)
        write(&payload)
        var bytes = ClaimFile.Header(kind: .journal, number: 1, time: 0).encoded
        bytes.number(UInt64(payload.count))
        let checksum = bytes.count
        bytes.fixed32(0)
        bytes.append(payload)
        bytes.setChecksum(at: checksum, from: checksum + 4, to: bytes.count)
        return ["/store/popState/journal-00000001": bytes.bytes]
    }

    /// A store with a client and a table of this number; what the log says of them.
    private static func numbered(client: UInt32, table: UInt32) throws -> (Machine, damages: [String]) {
        let files = journal { entries in
            entries.byte(EntryKind.client.rawValue)
            entries.number(client)
            entries.text("known")
            entries.byte(EntryKind.define.rawValue)
            entries.number(table)
            entries.text("group")
            entries.text("topic")
            entries.signed(7)
            entries.signed(3)
        }
        var machine = try Machine()
        try machine.restart(on: try disk(files))
        return (machine, machine.book.lines.filter { $0.contains("damaged") })
    }

    @Test("numbers after which there are no further ones are damage", arguments: [1 << 31, .max - 1, .max] as [UInt32])
    func largestNumbers(number: UInt32) throws {
        for (client, table) in [(number, 1), (1, number)] as [(UInt32, UInt32)] {
            let (found, damages) = try Self.numbered(client: client, table: table)
            var machine = found
            #expect(damages.count == 1 && machine.store.table(group: "group", topic: "topic", queueID: 7) == nil)
            let clients = (0..<3).map { machine.store.client("new \($0)") }
            #expect(Set(clients).count == 3 && !clients.contains(.unknown))
            for queueID in 0..<3 as Range<Int32> {
                _ = machine.store.pop(machine.table(queueID), new: [0], machine.clock)
            }
            try machine.store.commitTick()
            try machine.expectSameAfterKill()
        }
    }

    @Test("after the last number clients are unknown, and tables have numbers that are free; both are read again")
    func lastNumbers() throws {
        let last = ClaimFile.entryNumberLimit - 1
        let (found, damages) = try Self.numbered(client: last, table: last)
        var machine = found
        #expect(damages.isEmpty && machine.table(7).floor == 3 && machine.table(7).number == last)
        #expect(machine.store.client("known").number == last && machine.store.client("new") == .unknown)
        #expect([0, 1, 2].map { machine.table($0).number } == [1, 2, 3])
        machine.store.removeTables(topic: "topic")
        for queueID in 3..<6 as Range<Int32> {
            _ = machine.store.pop(machine.table(queueID), new: [0, 1], machine.clock, client: "new")
        }
        #expect([3, 4, 5].map { machine.table($0).number } == [1, 2, 3])
        try machine.store.commitTick()
        let before = Picture(machine.store, at: machine.clock)
        try machine.restart(on: machine.disk.afterKill())
        #expect(Picture(machine.store, at: machine.clock) == before)
        try machine.store.close()
        try machine.restart()
        #expect(Picture(machine.store, at: machine.clock) == before && machine.book.lines.isEmpty)
    }

    /// Changes a few bytes of a block's entries and corrects its checksum.
    static func forge(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
        var blocks: [(checksum: Int, payload: Range<Int>)] = []
        bytes.withUnsafeBytes { buffer in
            var reader = EntryReader(buffer)
            _ = try? reader.take(ClaimFile.Header.size)
            while let length = try? reader.number(), length > 0 {
                let checksum = reader.position
                guard (try? reader.take(4 + Int(length))) != nil else { return }
                blocks.append((checksum, checksum + 4..<reader.position))
            }
        }
        guard let block = blocks.randomElement(using: &random) else { return }
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            let index = Int.random(in: block.payload, using: &random)
            let interesting: [UInt8] = [0, 1, 0x7F, 0x80, 0xFF, UInt8.random(in: 0...255, using: &random)]
            bytes[index] = interesting.randomElement(using: &random) ?? 0
            if random.chance(20) {
                // A very large number.
                for place in index..<min(index + 9, block.payload.upperBound) { bytes[place] |= 0x80 }
            }
        }
        let checksum = bytes.withUnsafeBytes {
            ClaimFile.checksum(UnsafeRawBufferPointer(rebasing: $0[block.payload]))
        }
        withUnsafeBytes(of: checksum.littleEndian) {
            bytes.replaceSubrange(block.checksum..<block.checksum + 4, with: $0)
        }
    }
}
