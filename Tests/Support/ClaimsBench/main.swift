import Claims
import Glibc
import LinuxSystem
import Logging
import MessageModel

// What claims cost: time, bytes of journal, memory. Usage: ClaimsBench FOLDER CASE, with the cases 1 to 5 below.
//
// FOLDER must not exist; it is left for a look at the files. Build it with optimization, and run nothing beside it.
// A case is a process, because the allocator keeps the memory of those before.

final class Silent: ClaimObserver, Sendable {
    func messagesDue(in table: ClaimTable) {}
    func floorMoved(of table: ClaimTable) {}
}

guard CommandLine.arguments.count == 3, let number = Int(CommandLine.arguments[2]) else {
    print("usage: ClaimsBench FOLDER 1...5")
    exit(2)
}
let root = CommandLine.arguments[1]
let disk = RealDisk()
let group = GroupName(constant: "bench-group")
let topic = TopicName(constant: "bench-topic")
let wall: Int64 = 1_800_000_000_000
let million = 1_000_000

func nanoseconds() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// Bytes of memory the process has, when the allocator has given back what it can.
func allocated() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    guard fgets(&line, 256, file) != nil else { return 0 }
    let fields = String(decoding: line.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: " ")
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4096 : 0
}

func time(_ milliseconds: Int) -> ClaimTime {
    ClaimTime(wall: wall + Int64(milliseconds), steady: Int64(milliseconds))
}

func report(_ what: String, _ value: Double, _ unit: String) {
    let tenths = Int64((value * 10).rounded())
    print("\(what): \(tenths / 10).\(tenths % 10) \(unit)")
}

func opened(_ name: String, at now: ClaimTime) throws -> ClaimStore {
    let store = ClaimStore(
        folder: "\(root)/\(name)", disk: disk, logger: Logger(label: "bench"), trailBytesMax: 1 << 30)
    try store.open(at: now, observer: observer) { _ in (0, .max) }
    return store
}

let observer = Silent()

/// Pops of `size`, each a tick; then everything is acknowledged, `size` in a tick.
func popAndAcknowledge(_ name: String, size: Int, tables count: Int) throws {
    let messages = 400_000
    let store = try opened(name, at: time(0))
    let tables = (0..<count).map {
        store.makeTable(group: group, topic: topic, queueID: Int32($0), at: 1_000_000)
    }
    let client = store.client("10.0.0.1@1234@bench")
    try store.commitTick()
    let before = store.statistics.writtenBytes
    var claiming: Int64 = 0
    var acknowledging: Int64 = 0
    var committing: Int64 = 0
    let pops = messages / size
    // 64 pops are under way at a time.
    for first in stride(from: 0, to: pops, by: 64) {
        for pop in first..<min(first + 64, pops) {
            let table = tables[pop % count]
            let offsets = (0..<Int64(size)).map { table.next + $0 }
            var start = nanoseconds()
            table.claim(
                offsets, next: table.next + Int64(size), at: time(pop), popTime: wall + Int64(pop), invisible: 60_000,
                client: client, attemptID: nil)
            claiming += nanoseconds() - start
            start = nanoseconds()
            try store.commitTick(at: time(pop))
            committing += nanoseconds() - start
        }
        for pop in first..<min(first + 64, pops) {
            let table = tables[pop % count]
            let floor = table.floor
            var start = nanoseconds()
            for offset in floor..<floor + Int64(size) {
                precondition(table.acknowledge(offset, popTime: wall + Int64(pop)) == .finished)
            }
            acknowledging += nanoseconds() - start
            start = nanoseconds()
            try store.commitTick(at: time(pop))
            committing += nanoseconds() - start
        }
        if let work = store.backgroundWork() { work() }
    }
    let count = Double(pops * size)
    let empty =
        (0..<1000).reduce(Int64(0)) { sum, _ in
            let start = nanoseconds()
            return sum + nanoseconds() - start
        } / 1000
    report("\(name): claim", (Double(claiming) - Double(empty) * Double(pops)) / count, "ns a message")
    report("\(name): acknowledge", (Double(acknowledging) - Double(empty) * Double(pops)) / count, "ns a message")
    report("\(name): commit", Double(committing) / Double(2 * pops), "ns a tick, pwrite included")
    report("\(name): journal", Double(store.statistics.writtenBytes - before) / count, "bytes a message")
    let question = store.trail(of: "bench-topic", groups: ["bench-group"], queueID: 0, offset: 1_000_100, at: wall)
    let start = nanoseconds()
    let trail = question()
    report("\(name): trail of one message", Double(nanoseconds() - start) / count, "ns for each message that is kept")
    precondition(trail.groups.first?.events.count == 2 && trail.failure == nil)
    try store.close()
}

/// A million messages in flight, all due, and read again by another store.
func inFlight(_ name: String, size: Int) throws {
    let store = try opened(name, at: time(0))
    let before = allocated()
    let table = store.makeTable(group: group, topic: topic, queueID: 0, at: 0)
    let client = store.client("10.0.0.1@1234@bench")
    var start = nanoseconds()
    for pop in 0..<million / size {
        let first = table.next
        table.claim(
            (0..<Int64(size)).map { first + $0 }, next: first + Int64(size), at: time(pop), popTime: wall + Int64(pop),
            invisible: 60_000, client: client, attemptID: nil)
        if pop % 1000 == 999 { try store.commitTick() }
    }
    try store.commitTick()
    report("\(name): 1 000 000 in flight", Double(allocated() - before) / 1_048_576, "MiB")
    report("\(name): claim, 1000 in a tick", Double(nanoseconds() - start) / Double(million), "ns a message")
    try store.close()
    start = nanoseconds()
    let later = ClaimTime(wall: wall + 10_000_000, steady: 5_000_000)
    let again = try opened(name, at: later)
    report("\(name): open", Double(nanoseconds() - start) / 1_000_000, "ms")
    report("\(name): snapshot", Double(again.statistics.snapshotBytes) / Double(million), "bytes a message")
    start = nanoseconds()
    while again.expire(at: later, limit: 1000) {}
    report("\(name): expire", Double(nanoseconds() - start) / Double(million), "ns a message")
    let base = allocated()
    guard let due = again.table(group: "bench-group", topic: "bench-topic", queueID: 0) else { return }
    start = nanoseconds()
    var popTime = again.popTimeMin
    while due.dueCount > 0 {
        for (offset, _) in due.due(limit: 32) {
            due.reclaim(offset, at: later, popTime: popTime, invisible: 60_000, client: client)
        }
        popTime += 1
        if popTime % 32 == 0 { try again.commitTick() }
    }
    report("\(name): due and reclaim", Double(nanoseconds() - start) / Double(million), "ns a message")
    report(
        "\(name): 1 000 000 redelivered", Double(allocated() - base) / 1_048_576, "MiB more")
}

/// Tables with nothing open.
func idleTables() throws {
    let store = try opened("idle", at: time(0))
    let before = allocated()
    let count = 100_000
    for number in 0..<count {
        let name = try TopicName("topic-with-a-name-\(number / 8)")
        let table = store.makeTable(group: group, topic: name, queueID: Int32(number % 8), at: 0)
        table.claim(
            [0], next: 1, at: time(0), popTime: wall, invisible: 1000, client: .unknown, attemptID: nil)
        precondition(table.acknowledge(0, popTime: wall) == .finished)
        if number % 1000 == 999 { try store.commitTick() }
    }
    report("a table with nothing open", Double(allocated() - before) / Double(count), "bytes")
}

switch number {
case 1: try popAndAcknowledge("pops of 1", size: 1, tables: 8)
case 2: try popAndAcknowledge("pops of 32", size: 32, tables: 8)
case 3: try inFlight("1 in a pop", size: 1)
case 4: try inFlight("32 in a pop", size: 32)
default: try idleTables()
}
