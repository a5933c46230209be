import Glibc
import LinuxSystem
import TestTools
import Testing

@testable import BrokerService

/// A folder that goes when the test does.
final class TemporaryFolder {
    let path: String

    init() {
        var template = Array("/tmp/apus-kinds-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { fatalError("no temporary folder: errno \(errno)") }
        path = String(cString: made)
    }

    deinit { Self.remove(path) }

    private static func remove(_ path: String) {
        let disk = RealDisk()
        for name in (try? disk.list(path)) ?? [] {
            let inner = path + "/" + name
            if (try? disk.information(inner))??.isDirectory == true { remove(inner) } else { unlink(inner) }
        }
        rmdir(path)
    }
}

/// A queue of timer messages, a wheel and its files, with a clock that only moves when told: what `TimerMessageStore`
/// does, without a broker. The body of a message is its sequence.
final class TimerSimulation {
    let folder = TemporaryFolder()
    var files: TimerFiles
    var wheel: TimerWheel
    /// Due times by sequence; `nil` key: an ordinary message, else what it cancels.
    var queue: [(due: Int64, cancelling: String?)] = []
    var delivered: [(sequence: Int64, at: Int64)] = []
    var collected: [TimerBucket: [UInt8]] = [:]
    var progress: TimerWheel.Progress?
    var now: Int64

    init(now: Int64) throws {
        self.now = now
        files = TimerFiles(disk: RealDisk(), storePath: folder.path)
        wheel = TimerWheel(
            progress: TimerWheel.Progress(ingested: 0, watermark: .lowest), replayFrom: 0, files: try files.scan())
    }

    func send(due: Int64, cancelling: String? = nil) { queue.append((due, cancelling)) }

    /// Everything that can be done now is done.
    func run(deliverMax: Int = Int.max, takeInMax: Int = Int.max) throws {
        var budget = deliverMax
        var takeInBudget = takeInMax
        while true {
            if wheel.wantsJob(now: now) {
                try write()
                switch wheel.nextJob(now: now) {
                case .split(let bucket): wheel.finishedSplit(into: try files.split(bucket))
                case .load(let bucket):
                    let loaded = try files.load(bucket)
                    #expect(loaded.damaged == 0)
                    _ = wheel.finishedLoad(
                        bucket, entries: loaded.entries, cancelling: loaded.cancelling.map { ($0.due, $0.key) })
                case nil: break
                }
                continue
            }
            _ = wheel.nextJob(now: now)
            if takeInBudget > 0, wheel.ingested < queue.count, wheel.canTakeIn(now: now) {
                takeInBudget -= 1
                takeIn(wheel.ingested)
                continue
            }
            guard budget > 0, let entry = wheel.next(now: now) else { break }
            budget -= 1
            #expect(entry.due <= now)
            if !wheel.mayBeCancelled(due: entry.due) || !wheel.isCancelled(key(entry.sequence), due: entry.due) {
                inFlight.append((entry.sequence, now))
            }
        }
    }

    var inFlight: [(sequence: Int64, at: Int64)] = []

    func key(_ sequence: Int64) -> String { "topic+\(sequence)" }

    func commit() throws {
        delivered += inFlight
        inFlight = []
        let finished = wheel.commit()
        progress = wheel.progress
        try files.remove(finished.map(\.bucket))
    }

    func rollBack() {
        inFlight = []
        wheel.rollBack()
    }

    func takeIn(_ sequence: Int64) {
        let (due, cancelling) = queue[Int(sequence)]
        let entry = TimerEntry(
            due: due, sequence: sequence, position: sequence, size: cancelling == nil ? 8 : 0,
            source: TimerEntry.commitLog)
        guard case .bucket(let bucket) = wheel.takeIn(entry, cancelling: cancelling) else { return }
        let kind = cancelling == nil ? TimerFrame.message : TimerFrame.cancellation
        let payload = cancelling.map { Array($0.utf8) } ?? withUnsafeBytes(of: sequence.bigEndian) { Array($0) }
        payload.withUnsafeBytes {
            TimerFrame.append(kind: kind, entry.key, $0, to: &collected[bucket, default: []])
        }
    }

    func write() throws {
        try files.append(collected)
        collected = [:]
    }

    func checkpoint() throws {
        try write()
        try files.save(TimerFiles.Checkpoint(replayFrom: wheel.replayFrom, progress: wheel.progress))
    }

    /// `kill -9`: memory is gone, what was written stays.
    /// - Parameter knowsProgress: false as after power loss, when only the checkpoint is believed.
    func crash(knowsProgress: Bool = true) throws {
        collected = [:]
        inFlight = []
        files = TimerFiles(disk: RealDisk(), storePath: folder.path)
        let found = try files.scan()
        let checkpoint = try files.loadCheckpoint()
        let known =
            (knowsProgress ? progress : nil) ?? checkpoint?.progress
            ?? TimerWheel.Progress(ingested: 0, watermark: .lowest)
        wheel = TimerWheel(progress: known, replayFrom: checkpoint?.replayFrom ?? 0, files: found)
    }

    /// At the next thing to do, or when nothing is.
    func wake() -> Bool {
        guard let wake = wheel.nextWake(now: now) else { return false }
        now = max(now + 1, wake)
        return true
    }
}

@Suite("timer messages: the wheel")
struct TimerWheelTests {
    static let start: Int64 = 1_795_246_565_123

    @Test("delivers to the millisecond, near and a year ahead, and files go when everything in them is delivered")
    func exact() throws {
        let world = try TimerSimulation(now: Self.start)
        let delays: [Int64] = [
            1, 999, 1000, 59_999, 60_000, 119_999, 120_001, 3_600_000, 7_200_500, 86_400_000, 90_061_001,
            31_536_000_000,
        ]
        for delay in delays { world.send(due: Self.start + delay) }
        try world.run()
        try world.commit()
        try world.checkpoint()
        #expect(world.delivered.isEmpty)
        while world.wake() {
            try world.run()
            try world.commit()
            if world.delivered.count == delays.count { break }
        }
        #expect(world.delivered.map(\.sequence) == Array(0..<Int64(delays.count)))
        #expect(world.delivered.map(\.at) == delays.map { Self.start + $0 })
        #expect(try world.files.scan().isEmpty)
    }

    @Test("a message whose time is over when it comes in goes at once, and only once over a crash")
    func late() throws {
        let world = try TimerSimulation(now: Self.start)
        world.send(due: Self.start + 10)
        try world.run()
        world.now += 10
        try world.run()
        try world.commit()
        world.send(due: Self.start + 5)
        try world.run()
        try world.crash()
        try world.run()
        try world.commit()
        #expect(world.delivered.map(\.sequence) == [0, 1])
        try world.crash()
        try world.run()
        try world.commit()
        #expect(world.delivered.count == 2)
    }

    @Test("a cancelled message is not delivered, wherever it waits", arguments: [500, 100_000, 5_000_000, 400_000_000])
    func cancel(delay: Int64) throws {
        let world = try TimerSimulation(now: Self.start)
        world.send(due: Self.start + delay)
        world.send(due: Self.start + delay)
        try world.run()
        try world.checkpoint()
        try world.crash()
        world.send(due: Self.start + delay, cancelling: world.key(0))
        try world.run()
        try world.commit()
        try world.checkpoint()
        while world.now < Self.start + delay, world.wake() {
            try world.run()
            try world.commit()
        }
        #expect(world.delivered.map(\.sequence) == [1])
    }

    @Test("what the log did not take goes again")
    func rollBack() throws {
        let world = try TimerSimulation(now: Self.start)
        for index in 0..<10 { world.send(due: Self.start + 200_000 + Int64(index)) }
        try world.run()
        try world.checkpoint()
        world.now = Self.start + 200_005
        try world.run()
        world.rollBack()
        try world.run(deliverMax: 3)
        try world.commit()
        #expect(world.delivered.map(\.sequence) == [0, 1, 2])
        try world.run()
        world.rollBack()
        world.now += 100
        try world.run()
        try world.commit()
        #expect(world.delivered.map(\.sequence) == Array(0..<10))
        #expect(try world.files.scan().isEmpty)
    }

    @Test("random sends, cancellations, time, crashes: each message once, none early, none missing", arguments: 0..<20)
    func random(seed: Int) throws {
        var random = SplitMix(state: UInt64(seed) &* 7919 &+ 1)
        let world = try TimerSimulation(now: Self.start)
        var cancelled: Set<Int64> = []
        for _ in 0..<120 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0...3:
                for _ in 0..<Int.random(in: 1...20, using: &random) {
                    let spans: [Int64] = [1000, 60_000, 600_000, 10_000_000, 200_000_000]
                    let span = spans[Int.random(in: 0..<spans.count, using: &random)]
                    world.send(due: world.now + Int64.random(in: -5...span, using: &random))
                }
            case 4:
                guard let sequence = world.queue.indices.randomElement(using: &random) else { continue }
                let (due, cancelling) = world.queue[sequence]
                guard cancelling == nil, due > world.now + 1 else { continue }
                world.send(due: due, cancelling: world.key(Int64(sequence)))
                try world.run()
                cancelled.insert(Int64(sequence))
            case 5: try world.checkpoint()
            case 6: try world.crash()
            case 7:
                try world.run(deliverMax: Int.random(in: 0...5, using: &random))
                world.rollBack()
            default:
                let spans: [Int64] = [100, 30_000, 600_000, 40_000_000]
                world.now += Int64.random(
                    in: 0...spans[Int.random(in: 0..<spans.count, using: &random)], using: &random)
            }
            let takeInMax = Bool.random(using: &random) ? Int.max : Int.random(in: 0...10, using: &random)
            try world.run(deliverMax: Int.random(in: 0...50, using: &random), takeInMax: takeInMax)
            try world.commit()
        }
        world.now += 300_000_000
        try world.run()
        try world.commit()
        let expected = world.queue.indices.filter { world.queue[$0].cancelling == nil }
            .map(Int64.init).filter { !cancelled.contains($0) }
        #expect(world.delivered.map(\.sequence).sorted() == expected)
        for (sequence, at) in world.delivered { #expect(at >= world.queue[Int(sequence)].due) }
        try world.checkpoint()
        #expect(try world.files.scan().isEmpty)
    }

    @Test("after power loss only the checkpoint is believed: nothing is missing, some may come twice")
    func powerLoss() throws {
        let world = try TimerSimulation(now: Self.start)
        for index in 0..<50 { world.send(due: Self.start + Int64(index) * 10_000) }
        try world.run()
        try world.checkpoint()
        world.now += 100_000
        try world.run()
        try world.commit()
        try world.crash(knowsProgress: false)
        world.now += 1_000_000
        try world.run()
        try world.commit()
        #expect(Set(world.delivered.map(\.sequence)) == Set(0..<50))
    }

    @Test("bytes that are no frame are passed over, the frames behind them are found")
    func damaged() throws {
        let world = try TimerSimulation(now: Self.start)
        var bytes: [UInt8] = []
        let payload = Array("hello".utf8)
        func append(_ sequence: Int64) {
            payload.withUnsafeBytes {
                TimerFrame.append(
                    kind: TimerFrame.message, TimerKey(due: Self.start, sequence: sequence), $0, to: &bytes)
            }
        }
        append(1)
        append(2)
        let torn = bytes.count
        append(3)
        bytes[torn + 20] ^= 1
        append(4)
        let bucket = TimerBucket(level: .minute, of: Self.start)
        try world.files.append([bucket: bytes])
        let loaded = try world.files.load(bucket)
        #expect(loaded.entries.map(\.sequence) == [1, 2, 4])
        #expect(loaded.damaged == TimerFrame.size(payload: payload.count))
    }
}
