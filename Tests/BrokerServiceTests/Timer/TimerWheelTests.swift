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
/// does, without a broker. The body of a message is its sequence. A message has its own key, or one it is given: then
/// an edit has stored it.
final class TimerSimulation {
    let folder = TemporaryFolder()
    var files: TimerFiles
    var wheel: TimerWheel
    /// Due times by sequence; no cancellation: an ordinary message.
    var queue: [(due: Int64, cancelling: TimerCancellation?)] = []
    /// Keys of messages that edits have stored.
    var edited: [Int64: String] = [:]
    var delivered: [(sequence: Int64, at: Int64)] = []
    var collected: [TimerBucket: [UInt8]] = [:]
    var progress: TimerWheel.Progress?
    var now: Int64

    init(now: Int64) throws {
        self.now = now
        files = TimerFiles(disk: RealDisk(), storePath: folder.path)
        wheel = TimerWheel(
            progress: TimerWheel.Progress(ingested: 0, watermark: .lowest), replayFrom: 0, replayEnd: 0,
            files: try files.scan())
    }

    func send(due: Int64, cancelling: String? = nil) {
        queue.append(
            (due, cancelling.map { TimerCancellation(recalling: $0, sequence: Int64(queue.count)) }))
    }

    /// As an edit does it: the new one, then the cancellation of the one before, which the wheel obeys at once.
    /// - Parameter due: nil: it is withdrawn.
    /// - Returns: the new message's sequence.
    @discardableResult
    func edit(_ sequence: Int64, due: Int64?) -> Int64 {
        let (old, key) = (queue[Int(sequence)].due, key(sequence))
        let new = Int64(queue.count)
        if let due {
            queue.append((due, nil))
            edited[new] = key
        }
        let own = Int64(queue.count)
        let cancellation =
            due == nil
            ? TimerCancellation(recalling: key, sequence: own)
            : TimerCancellation(key: key, before: new, isRecall: false)
        queue.append((old, cancellation))
        wheel.cancel(cancellation, due: old)
        return new
    }

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
                        bucket, entries: loaded.entries,
                        cancelling: loaded.cancelling.map { ($0.due, $0.cancellation) })
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
            if !wheel.mayBeCancelled(due: entry.due) || !wheel.isCancelled(target(entry.sequence)) {
                inFlight.append((entry.sequence, now))
            }
        }
    }

    var inFlight: [(sequence: Int64, at: Int64)] = []

    func key(_ sequence: Int64) -> String { edited[sequence] ?? "topic+\(sequence)" }

    func target(_ sequence: Int64) -> TimerTarget {
        TimerTarget(
            key: key(sequence), due: queue[Int(sequence)].due, sequence: sequence, isEdited: edited[sequence] != nil)
    }

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
        if let cancelling {
            return TimerFrame.append(cancelling, entry.key, to: &collected[bucket, default: []])
        }
        withUnsafeBytes(of: sequence.bigEndian) {
            TimerFrame.append(kind: TimerFrame.message, entry.key, $0, to: &collected[bucket, default: []])
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
        wheel = TimerWheel(
            progress: known, replayFrom: checkpoint?.replayFrom ?? 0, replayEnd: Int64(queue.count), files: found)
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

    /// Where messages wait: in memory, in a minute's, an hour's and a day's file.
    private static let distances: [Int64] = [500, 100_000, 5_000_000, 400_000_000]

    private enum Interruption: CaseIterable { case none, commit, kill, checkpointAndKill, powerLoss }

    private func interrupt(_ world: TimerSimulation, _ how: Interruption) throws {
        if how != .none { try world.commit() }
        switch how {
        case .none, .commit: break
        case .kill: try world.crash()
        case .checkpointAndKill:
            try world.run()
            try world.checkpoint()
            try world.crash()
        case .powerLoss: try world.crash(knowsProgress: false)
        }
        try world.run()
    }

    private func pass(_ world: TimerSimulation, to end: Int64) throws {
        while world.now < end, world.wake() {
            try world.run()
            try world.commit()
        }
        world.now = max(world.now, end)
        try world.run()
        try world.commit()
    }

    @Test("rescheduled and set back, a message comes once, at its first time", arguments: distances)
    func setBack(delay: Int64) throws {
        for other in Self.distances where other != delay {
            for how in Interruption.allCases {
                let world = try TimerSimulation(now: Self.start)
                let first = Self.start + delay
                world.send(due: first)
                world.send(due: first)
                try interrupt(world, how)
                let second = world.edit(0, due: Self.start + other)
                try interrupt(world, how)
                let third = world.edit(second, due: first)
                try interrupt(world, how)
                try pass(world, to: Self.start + max(delay, other) + 200_000)
                #expect(world.delivered.map(\.sequence) == [1, third], "\(other) \(how)")
                #expect(world.delivered.allSatisfy { $0.at == first }, "\(other) \(how)")
                try world.checkpoint()
                #expect(try world.files.scan().isEmpty)
            }
        }
    }

    @Test("edited several times without another time, the last one comes; withdrawn, none", arguments: distances)
    func editedInPlace(delay: Int64) throws {
        for how in Interruption.allCases {
            let world = try TimerSimulation(now: Self.start)
            let due = Self.start + delay
            world.send(due: due)
            world.send(due: due)
            var (last, other) = (Int64(0), Int64(1))
            for _ in 0..<3 {
                try interrupt(world, how)
                last = world.edit(last, due: due)
                other = world.edit(other, due: due)
            }
            try interrupt(world, how)
            world.edit(other, due: nil)
            try interrupt(world, how)
            try pass(world, to: due + 200_000)
            #expect(world.delivered.map(\.sequence) == [last], "\(how)")
        }
    }

    @Test("delivered, and postponed to a time that was cancelled before, it comes again", arguments: distances)
    func postponedToACancelledTime(delay: Int64) throws {
        for how in Interruption.allCases {
            let world = try TimerSimulation(now: Self.start)
            let due = Self.start + delay + 1_000_000
            world.send(due: due)
            try world.run()
            let second = world.edit(0, due: Self.start + 100)
            try interrupt(world, how)
            try pass(world, to: Self.start + 200)
            #expect(world.delivered.map(\.sequence) == [second])
            // As `postpone` does it: nothing waits that would be cancelled.
            let third = Int64(world.queue.count)
            world.queue.append((due, nil))
            world.edited[third] = world.key(0)
            try interrupt(world, how)
            try pass(world, to: due + 200_000)
            // What only the checkpoint knows comes twice after a power cut.
            if how == .powerLoss {
                #expect(Set(world.delivered.map(\.sequence)) == [second, third])
            } else {
                #expect(world.delivered.map(\.sequence) == [second, third], "\(how)")
            }
        }
    }

    @Test("a recall stops what was stored before and a producer's later copy, and nothing an edit has stored later")
    func recallAndEdit() throws {
        for (delay, how) in Self.distances.flatMap({ delay in Interruption.allCases.map { (delay, $0) } }) {
            let world = try TimerSimulation(now: Self.start)
            let due = Self.start + delay
            world.send(due: due)
            // A handle of Apache's names the millisecond after.
            world.send(due: due + 1, cancelling: world.key(0))
            let later = Int64(world.queue.count)
            world.queue.append((due, nil))
            world.edited[later] = world.key(0)
            let recalled = Int64(world.queue.count)
            world.queue.append((due, nil))
            world.edited[recalled] = "topic+x"
            world.send(due: due, cancelling: "topic+x")
            try interrupt(world, how)
            try pass(world, to: due + 200_000)
            #expect(world.delivered.map(\.sequence) == [later], "\(delay) \(how)")
        }
    }

    @Test("a cancellation counts from its own turn on, and a tick that fails takes it back")
    func atOnce() throws {
        let world = try TimerSimulation(now: Self.start)
        for _ in 0..<3 { world.send(due: Self.start + 50) }
        try world.run()
        #expect(world.wheel.standing(due: Self.start + 50, sequence: 0) == .waits)
        // Its time comes in this very turn, before the cancellation's record is taken in.
        world.now += 60
        #expect(world.wheel.standing(due: Self.start + 50, sequence: 0) == .waits)
        world.edit(0, due: nil)
        try world.run(takeInMax: 0)
        #expect(world.inFlight.map(\.sequence) == [1, 2])
        #expect(world.wheel.standing(due: Self.start + 50, sequence: 1) == .handedOut)
        world.queue.removeLast()
        world.rollBack()
        #expect(world.wheel.standing(due: Self.start + 50, sequence: 1) == .waits)
        try world.run()
        #expect(world.inFlight.map(\.sequence) == [0, 1, 2])
        try world.commit()
        #expect(world.wheel.standing(due: Self.start + 50, sequence: 2) == .handedOut)
        // Late ones wait, too, until they are handed out; so does what is not taken in yet.
        world.send(due: Self.start)
        world.send(due: Self.start)
        #expect(world.wheel.standing(due: Self.start, sequence: 3) == .waits)
        try world.run(deliverMax: 0)
        world.edit(3, due: nil)
        try world.commit()
        #expect(world.wheel.standing(due: Self.start, sequence: 4) == .waits)
        try world.run(deliverMax: 1)
        try world.commit()
        #expect(world.wheel.standing(due: Self.start, sequence: 3) == .handedOut)
        try world.run()
        try world.commit()
        #expect(world.delivered.map(\.sequence) == [0, 1, 2, 4])
        try world.crash()
        #expect(world.wheel.standing(due: Self.start, sequence: 4) == .handedOut)
        #expect(world.wheel.standing(due: Self.start + 50, sequence: 1) == .handedOut)
        #expect(world.wheel.standing(due: Self.start + 50_000, sequence: 1) == .waits)
    }

    @Test("a cancellation for a file that is being read counts", arguments: [200_000, 5_000_000])
    func whileLoading(delay: Int64) throws {
        let world = try TimerSimulation(now: Self.start)
        let due = Self.start + delay
        world.send(due: due)
        world.send(due: due)
        try world.run()
        try world.write()
        world.now = due - 30_000
        while true {
            guard let job = world.wheel.nextJob(now: world.now) else { break }
            switch job {
            case .split(let bucket): world.wheel.finishedSplit(into: try world.files.split(bucket))
            case .load(let bucket):
                let loaded = try world.files.load(bucket)
                // Between the read and its end.
                if bucket.start <= due, due < bucket.end { world.edit(0, due: nil) }
                _ = world.wheel.finishedLoad(
                    bucket, entries: loaded.entries,
                    cancelling: loaded.cancelling.map { ($0.due, $0.cancellation) })
            }
        }
        world.now = due
        try world.run(takeInMax: 0)
        try world.commit()
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
                let standing = world.wheel.standing(due: due, sequence: Int64(sequence))
                guard standing == .waits, !world.wheel.isCancelled(world.target(Int64(sequence))),
                    !cancelled.contains(Int64(sequence))
                else { continue }
                switch Int.random(in: 0..<3, using: &random) {
                case 0: world.send(due: due, cancelling: world.key(Int64(sequence)))
                case 1: world.edit(Int64(sequence), due: nil)
                default:
                    // Back to a time it had before, as often as not.
                    let times = world.queue.indices.filter {
                        world.queue[$0].cancelling == nil && world.key(Int64($0)) == world.key(Int64(sequence))
                    }.map { world.queue[$0].due }.filter { $0 > world.now }
                    let other = times.randomElement(using: &random) ?? due
                    let span = Int64.random(in: 1...100_000_000, using: &random)
                    world.edit(Int64(sequence), due: Bool.random(using: &random) ? other : world.now + span)
                }
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
        let cancellation = TimerCancellation(key: "t+ü", before: 7, isRecall: false)
        TimerFrame.append(cancellation, TimerKey(due: Self.start, sequence: 9), to: &bytes)
        append(1)
        append(2)
        let torn = bytes.count
        append(3)
        bytes[torn + 20] ^= 1
        append(4)
        // Whole, and of times and places no broker has.
        let impossible = [
            TimerKey(due: .min, sequence: 5), TimerKey(due: -1, sequence: 5), TimerKey(due: .max, sequence: 5),
            TimerKey(due: Self.start, sequence: -1), TimerKey(due: Self.start, sequence: .max),
        ]
        for key in impossible {
            payload.withUnsafeBytes { TimerFrame.append(kind: TimerFrame.message, key, $0, to: &bytes) }
        }
        let bucket = TimerBucket(level: .minute, of: Self.start)
        try world.files.append([bucket: bytes])
        let loaded = try world.files.load(bucket)
        #expect(loaded.entries.map(\.sequence) == [1, 2, 4, 9])
        #expect(loaded.cancelling.map(\.cancellation) == [cancellation])
        #expect(loaded.damaged == (1 + impossible.count) * TimerFrame.size(payload: payload.count))
        // The same in the file of a day, which is divided among those of hours.
        let day = TimerBucket(level: .day, of: Self.start)
        try world.files.append([day: bytes])
        #expect(try world.files.split(day) == [TimerBucket(level: .hour, of: Self.start)])
    }

    @Test("names of files for times no broker has are none of the wheel's")
    func fileNames() {
        #expect(TimerBucket(fileName: "m-60000") == TimerBucket(level: .minute, start: 60_000))
        let width = TimerBucket.Level.day.width
        for start in [Int64.max / width * width, Int64.min / width * width, -width] {
            #expect(TimerBucket(fileName: "d-\(start)") == nil, "\(start)")
        }
    }
}
