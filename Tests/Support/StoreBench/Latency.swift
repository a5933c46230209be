import Glibc
import LinuxSystem
import MessageStore
import StoreFormat

/// Durations in nanoseconds, of which only the distribution is wanted.
struct Distribution {
    private var values: [Int64] = []

    init(capacity: Int = 0) { values.reserveCapacity(capacity) }

    mutating func add(_ value: Int64) { values.append(value) }

    private func part(_ sorted: [Int64], _ part: Double) -> String {
        sorted.isEmpty ? "-" : fixed(Double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * part))]) / 1000, 0)
    }

    /// Microseconds.
    var text: String {
        let sorted = values.sorted()
        return "p50 \(part(sorted, 0.5)) us, p99 \(part(sorted, 0.99)) us, p99.9 \(part(sorted, 0.999)) us, max "
            + "\(part(sorted, 1)) us (\(sorted.count) samples)"
    }
}

/// The floor of the same disk at the same time: a file written beside the store, with blocks reserved as the log's are.
final class Floor: @unchecked Sendable {
    private let file: any DiskFile
    private let size: Int64 = 1 << 30
    private var position: Int64 = 0
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 8 << 20, alignment: 4096)
    private var thread = pthread_t()
    private var mutex = pthread_mutex_t()
    private var isStopping = false
    /// Guarded by `mutex`.
    private var synchronizations = Distribution()

    init(_ path: String) throws {
        buffer.initializeMemory(as: UInt8.self, repeating: 1)
        file = try disk.open(path, .replace)
        try file.truncate(to: size)
        _ = try file.allocate(from: 0, length: size)
        try file.synchronize()
    }

    deinit { buffer.deallocate() }

    /// Nanoseconds one `pwrite` of so many bytes takes.
    func write(_ count: Int) throws -> Int64 {
        let count = min(count, buffer.count)
        if position + Int64(count) > size { position = 0 }
        let before = nanoseconds(CLOCK_MONOTONIC)
        try file.write(UnsafeRawBufferPointer(rebasing: buffer[0..<count]), at: position)
        let took = nanoseconds(CLOCK_MONOTONIC) - before
        position += Int64(count)
        return took
    }

    /// Ten times a second, on a thread of its own: 20 KiB written and synchronized.
    func startSynchronizing() {
        let context = Unmanaged.passRetained(self).toOpaque()
        pthread_create(
            &thread, nil,
            { context in
                if let context { Unmanaged<Floor>.fromOpaque(context).takeRetainedValue().synchronizeUntilStopped() }
                return nil
            }, context)
    }

    private func synchronizeUntilStopped() {
        while true {
            usleep(100_000)
            let before = nanoseconds(CLOCK_MONOTONIC)
            guard let _ = try? write(20_480), let _ = try? file.synchronize() else { fatalError("the floor failed") }
            let took = nanoseconds(CLOCK_MONOTONIC) - before
            pthread_mutex_lock(&mutex)
            synchronizations.add(took)
            let stop = isStopping
            pthread_mutex_unlock(&mutex)
            if stop { return }
        }
    }

    func stopSynchronizing() -> Distribution {
        pthread_mutex_lock(&mutex)
        isStopping = true
        pthread_mutex_unlock(&mutex)
        pthread_join(thread, nil)
        return synchronizations
    }
}

/// 20 000 messages of 1 KiB a second. What is told, each weighed by messages:
///
/// * from the moment a message was due until it is readable (asynchronous) or synchronized: all a client would wait
/// for;
/// * how late the loop came to it: the machine's share, with nothing of the store in it;
/// * append, write and dispatch of its tick, and beside it a bare `pwrite` of the same bytes right after it.
func measureLatency(seconds: Int, sync: Bool) throws {
    removeFolder()
    let floor = try Floor(folder + "/floor")
    var message = Message(topic: "BenchTopic", bytes: 1024)
    let rate: Int64 = 20_000
    let total = Int64(seconds) * rate
    var latencies = Distribution(capacity: Int(total))
    var lateness = Distribution(capacity: Int(total))
    var service = Distribution(capacity: Int(total))
    var bare = Distribution(capacity: Int(total))
    var maintenance = Distribution()
    var waiting: [(end: Int64, due: Int64)] = []
    var flushes = 0
    var events = StoreEvents.ignored
    events.flushed = { end in
        flushes += 1
        guard sync else { return }
        let now = nanoseconds(CLOCK_MONOTONIC)
        var done = 0
        while done < waiting.count, waiting[done].end <= end.rawValue {
            latencies.add(now - waiting[done].due)
            done += 1
        }
        waiting.removeFirst(done)
    }
    let store = try open(events) { $0.flushDiskType = sync ? .syncFlush : .asyncFlush }
    if sync { floor.startSynchronizing() }
    let start = nanoseconds(CLOCK_MONOTONIC)
    var sent: Int64 = 0
    var lastMaintenance = start
    // The bare write of a tick is the bench's own: what it takes is taken out of the clock the messages are due by.
    var taken: Int64 = 0
    while sent < total || (sync && !waiting.isEmpty) {
        let now = nanoseconds(CLOCK_MONOTONIC)
        let due = min(total, (now - start - taken) * rate / 1_000_000_000)
        let first = sent
        func dueTime(_ number: Int64) -> Int64 { start + taken + number * 1_000_000_000 / rate }
        let before = store.writtenOffset.rawValue
        while sent < due {
            message.number(Int(sent))
            guard case .appended(let result) = message.append(to: store, queueID: Int32(sent & 7)) else {
                fatalError("refused")
            }
            if sync { waiting.append((result.end.rawValue, dueTime(sent))) }
            sent += 1
        }
        if sent > first {
            try store.commitTick()
            let after = nanoseconds(CLOCK_MONOTONIC)
            let bytes = Int(store.writtenOffset.rawValue - before)
            let floorTime = sync ? 0 : try floor.write(bytes)
            for number in first..<sent {
                if !sync { latencies.add(after - dueTime(number)) }
                lateness.add(now - dueTime(number))
                service.add(after - now)
                if !sync { bare.add(floorTime) }
            }
            taken += floorTime
        }
        loop.run()
        if now - lastMaintenance > 100_000_000 {
            lastMaintenance = now
            let began = nanoseconds(CLOCK_MONOTONIC)
            store.runMaintenance()
            maintenance.add(nanoseconds(CLOCK_MONOTONIC) - began)
        }
        if sent == first { usleep(20) }
    }
    print(
        "latency at \(rate)/s, 1 KiB, \(sync ? "SYNC_FLUSH" : "ASYNC_FLUSH"), \(seconds) s, RSS \(residentKiB() / 1024) MiB"
    )
    print("  due until \(sync ? "synchronized" : "readable"): \(latencies.text)")
    print("  the loop came late by: \(lateness.text)")
    print("  append, write, dispatch of the tick: \(service.text)")
    if sync {
        print("  bare pwrite and fdatasync of 20 KiB: \(floor.stopSynchronizing().text)")
    } else {
        print("  bare pwrite of the tick's bytes: \(bare.text)")
    }
    print("  maintenance calls: \(maintenance.text)")
    print("  \(flushes) flushes, \(sent / Int64(max(1, flushes))) messages each")
    try store.close()
    removeFolder()
}
