import LinuxSystem
import Logging
import MessageModel
import TestDisk
import TestTools
import Testing

@testable import Claims

@Suite("the values claims are made of")
struct ValueTests {
    @Test("numbers come back from bytes, and no other bytes are numbers")
    func numbers() throws {
        let unsigned: [UInt64] = [0, 1, 127, 128, 16_383, 16_384, 1 << 32, 1 << 63, .max]
        let signed: [Int64] = [0, -1, 1, -64, 64, .min, .max]
        var bytes = EntryBytes()
        for number in unsigned { bytes.number(number) }
        for number in signed { bytes.signed(number) }
        bytes.text("Größe")
        bytes.fixed32(0xDEAD_BEEF)
        bytes.fixed64(.min)
        try bytes.bytes.withUnsafeBytes { buffer throws in
            var reader = EntryReader(buffer)
            for number in unsigned { #expect(try reader.number() == number) }
            for number in signed { #expect(try reader.signed() == number) }
            #expect(String(decoding: try reader.block(), as: UTF8.self) == "Größe")
            #expect(try reader.fixed32() == 0xDEAD_BEEF)
            #expect(try reader.fixed64() == .min)
            #expect(reader.isAtEnd)
            #expect(throws: JournalDamage.self) { _ = try reader.byte() }
        }
        for wrong in [[0x80], Array(repeating: 0xFF, count: 11), Array(repeating: 0x80, count: 9) + [2]] as [[UInt8]] {
            wrong.withUnsafeBytes { buffer in
                var reader = EntryReader(buffer)
                #expect(throws: JournalDamage.self) { _ = try reader.number() }
            }
        }
    }

    @Test("a header comes back, and is that of its file alone")
    func header() throws {
        let header = ClaimFile.Header(kind: .journal, number: 7, previousEnd: 99, time: 1_700_000_000_000)
        let bytes = header.encoded.bytes
        #expect(bytes.count == ClaimFile.Header.size)
        try bytes.withUnsafeBytes { buffer throws in
            var reader = EntryReader(buffer)
            #expect(try ClaimFile.Header(&reader, kind: .journal, number: 7) == header)
            for (kind, number) in [(ClaimFile.Kind.snapshot, 7), (.journal, 8)] as [(ClaimFile.Kind, UInt32)] {
                var reader = EntryReader(buffer)
                #expect(throws: JournalDamage.self) { _ = try ClaimFile.Header(&reader, kind: kind, number: number) }
            }
        }
        #expect(ClaimFile.name(.snapshot, 7) == "snapshot-00000007")
        #expect(ClaimFile.parse("journal-00000012")?.number == 12)
        for name in ["journal-12", "journal-00000000", "snapshot-00000007.new", "journal-0000001x", "x"] {
            #expect(ClaimFile.parse(name) == nil, "\(name)")
        }
    }

    private final class Item: HeapElement {
        var heapKey: Int64
        var heapIndex: Int32 = -1
        init(_ key: Int64) { heapKey = key }
    }

    @Test("heaps give the smallest first, whatever happens in between")
    func heaps() {
        var random = SeededGenerator(seed: 3)
        var heap = IndexedHeap<Item>()
        var items: [Item] = []
        for _ in 0..<3000 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0, 1:
                let item = Item(Int64.random(in: 0..<100, using: &random))
                items.append(item)
                heap.insert(item)
            case 2:
                guard let item = items.randomElement(using: &random) else { continue }
                heap.setKey(Int64.random(in: 0..<100, using: &random), of: item)
            default:
                guard !items.isEmpty else { continue }
                heap.remove(items.remove(at: Int.random(in: items.indices, using: &random)))
            }
            #expect(heap.first?.heapKey == items.map(\.heapKey).min())
        }
        var values = MinimumHeap<Int64>()
        let numbers = (0..<500).map { _ in Int64.random(in: 0..<200, using: &random) }
        for number in numbers { values.insert(number) }
        for number in numbers.sorted() {
            #expect(values.first == number)
            values.removeFirst()
        }
    }

    @Test("a run has 32 bytes, and pops of one millisecond share it")
    func runs() {
        #expect(MemoryLayout<Run>.stride == 32)
        var list = RunList()
        for offset in 0..<40 as Range<Int64> {
            list.append(Run(start: offset, popTime: 5, deadline: 9, unfinished: 1, client: 1))
        }
        var starts: [Int64] = []
        list.forEach { starts.append($0.start) }
        #expect(starts == [0, 32] && list.lowest() == 0 && list.earliest == 9)
        for offset in 0..<32 as Range<Int64> {
            guard let position = list.find(offset) else {
                Issue.record("\(offset) is gone")
                return
            }
            list.finish(offset, at: position)
            #expect(list.find(offset) == nil && list.lowest() == offset + 1)
        }
        #expect(list.expireFirst(at: 8) == nil)
        #expect(list.expireFirst(at: 9)?.start == 32 && list.expireFirst(at: .max) == nil)
    }

    /// A run of two offsets, found by none but its own: deadlines and pop times differ.
    private static func append(_ start: Int64, to list: inout RunList, _ open: inout [Int64: Int64]) {
        let deadline = 10_000 + start * 7 % 1000
        list.append(Run(start: start, popTime: start, deadline: deadline, unfinished: 3, client: 1))
        (open[start], open[start + 1]) = (deadline, deadline)
    }

    private static func finish(_ offset: Int64, in list: inout RunList, _ open: inout [Int64: Int64]) throws {
        open[offset] = nil
        list.finish(offset, at: try #require(list.find(offset), "\(offset) is lost"))
    }

    @Test("runs may begin lower again when what they replace is finished, also at the bounds of chunks")
    func truncated() throws {
        for bound in [0, 1, 2, 3, 62, 63, 64, 65, 66, 100, 126, 128, 130, 198, 199, 200, 300] as [Int64] {
            for finished in [0, 1, 31, 32, 33, 64, 99] as [Int64] {
                var list = RunList()
                var open: [Int64: Int64] = [:]
                for index in 0..<100 as Range<Int64> { Self.append(2 * index, to: &list, &open) }
                for offset in 0..<2 * finished { try Self.finish(offset, in: &list, &open) }
                // One chunk in the middle is finished, too.
                for offset in (64..<128 as Range<Int64>).reversed() where open[offset] != nil {
                    try Self.finish(offset, in: &list, &open)
                }
                for offset in open.keys.sorted() where offset >= bound { try Self.finish(offset, in: &list, &open) }
                list.truncate(to: bound)
                #expect(list.isEmpty == open.isEmpty && list.lowest() == open.keys.min())
                for index in 0..<70 as Range<Int64> { Self.append(bound + 2 * index, to: &list, &open) }
                var starts: [Int64] = []
                list.forEach { starts.append($0.start) }
                let what = "bound \(bound), \(finished) finished"
                #expect(zip(starts, starts.dropFirst()).allSatisfy { $0 < $1 }, "\(what): \(starts)")
                for offset in 0..<500 as Range<Int64> {
                    #expect(list.find(offset)?.run.deadline == open[offset], "\(what): \(offset)")
                }
                #expect(list.lowest() == open.keys.min() && list.earliest <= open.values.min() ?? 0, "\(what)")
                var deadlines: [Int64] = []
                while let run = list.expireFirst(at: .max - 1) { deadlines.append(run.deadline) }
                #expect(deadlines.count == starts.count && deadlines == deadlines.sorted(), "\(what)")
                for offset in open.keys.sorted() { try Self.finish(offset, in: &list, &open) }
                #expect(list.isEmpty && list.lowest() == nil, "\(what)")
            }
        }
    }

    @Test("a due run that is gone lends its place in the queue of due messages to no later run")
    func dueAgain() throws {
        var machine = try Machine()
        let table = machine.table()
        for offset in [10, 50] as [Int64] {
            _ = machine.store.pop(table, new: [offset], machine.clock, invisible: 100)
            machine.clock.advance(10)
        }
        machine.clock.advance(100)
        _ = machine.store.expire(at: machine.clock.now, limit: .max)
        #expect(table.due(limit: 9).map(\.offset) == [10, 50])
        #expect(table.lowerWithoutJournal(to: 40) == 1 && table.next == 40)
        for offset in [40, 50] as [Int64] {
            machine.clock.advance(10)
            _ = machine.store.pop(table, new: [offset], machine.clock, invisible: 100)
        }
        machine.clock.advance(100)
        _ = machine.store.expire(at: machine.clock.now, limit: .max)
        #expect(table.due(limit: 9).map(\.offset) == [10, 40, 50])
    }

    @Test("names of clients without claims are forgotten, their numbers not given again")
    func clients() {
        var names = ClientNames()
        let numbers = (0..<10).map { names.number(of: "client \($0)") }
        #expect(Set(numbers).count == 10 && names.number(of: "client 3") == numbers[3])
        names.keep([numbers[3]])
        #expect(names[numbers[3]] == "client 3" && names[numbers[4]] == nil)
        #expect(!numbers.contains(names.number(of: "client 4")))
    }

    @Test("47 bytes of journal suffice for a pop and an acknowledgement, each a tick; 5 a message in pops of 32")
    func bytes() throws {
        for (size, most) in [(1, 47), (32, 5)] as [(Int64, Int64)] {
            var machine = try Machine()
            let tables = (0..<8).map { machine.store.makeTable(group: group, topic: topic, queueID: $0, at: 5_000_000) }
            _ = machine.store.pop(tables[0], new: [5_000_000], machine.clock)
            try machine.store.commitTick()
            let before = machine.store.statistics.writtenBytes
            for round in 0..<800 {
                let table = tables[round % 8]
                let handles = machine.store.pop(table, new: Array(table.next..<table.next + size), machine.clock)
                try machine.store.commitTick()
                machine.clock.advance(Int64(round % 90))
                for (offset, popTime) in handles { _ = table.acknowledge(offset, popTime: popTime) }
                try machine.store.commitTick()
            }
            let written = machine.store.statistics.writtenBytes - before
            #expect(written <= most * 800 * size, "\(Double(written) / Double(800 * size)) bytes in pops of \(size)")
        }
    }

    @Test("what is emptied gives its memory back")
    func emptied() throws {
        var machine = try Machine()
        let handles = machine.store.pop(machine.table(), new: Array(0..<10_000), machine.clock)
        machine.clock.advance(60_000)
        _ = machine.store.expire(at: machine.clock.now, limit: .max)
        for offset in handles.keys.shuffled() {
            #expect(machine.table().acknowledge(offset, popTime: handles[offset] ?? 0) == .finished)
        }
        #expect(machine.table().open == nil && machine.table().floor == 10_000)
    }
}
