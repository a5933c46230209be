/// Decides where timer messages wait and when they go: no clock, no file, no store in here; time comes as an argument.
///
/// A message on its way has first been stored in queue 0 of the system topic `rmq_sys_wheel_timer` (RocketMQ 5's name),
/// as durable as any other. Its offset there is its *sequence*. From there it is taken in:
///
/// * due within the next one or two minutes: kept in memory (32 bytes), the record stays in the commit log.
/// * later: copied into the bucket file of its minute, hour or day, so that the log may forget it.
///
/// A day's file is split into hours shortly before it begins, an hour's into minutes; a minute's is loaded (its index,
/// not its bodies). A message is so copied at most three times, memory holds two minutes, and a year has at most 450
/// files.
///
/// Exactly what has been delivered is known by two numbers: everything taken in below `ingested` whose key is not above
/// `watermark`. Messages that come in when their time is already over go before everything else and hold `ingested`
/// back until they are delivered. After a crash, messages are taken in again from an earlier point on. Whatever then
/// appears twice (in a file and from the log, in a file and its half-made split) has the same key and is skipped.
final class TimerWheel {
    /// Loaded entries that are not yet due for delivery but overdue already: above this no further bucket is loaded.
    static let loadedEntriesMax = 500_000
    /// An hour is split this long before its first minute is loaded, a day this long before its first hour is split.
    static let splitAheadMilliseconds: Int64 = 600_000

    /// What was delivered, as of the last commit.
    struct Progress: Equatable, Sendable {
        /// Everything below it has been taken in, and delivered if its key is not above `watermark`.
        var ingested: Int64
        var watermark: TimerKey
    }

    enum Placement: Equatable {
        /// Kept in memory.
        case near
        /// Its time is over: goes first.
        case late
        /// Copy it into this file.
        case bucket(TimerBucket)
        /// Delivered before the restart.
        case delivered
    }

    enum Job: Equatable, Sendable {
        /// Distribute the file into files of the next finer level.
        case split(TimerBucket)
        /// Read its index.
        case load(TimerBucket)
    }

    private struct Run {
        let number: Int32
        let bucket: TimerBucket
        let entries: [TimerEntry]
        var next = 0
    }

    /// Messages due before it are kept in memory.
    private(set) var loadedEnd = Int64.min
    /// Hours up to here have been split …
    private var hoursSplitEnd = Int64.min
    /// … and days.
    private var daysSplitEnd = Int64.min
    /// Buckets that have a file (or will have one when what is being collected is written) and are not loaded.
    private(set) var buckets: [TimerBucket.Level: Set<Int64>] = [:]
    private(set) var isBusy = false

    private var watermark: TimerKey
    private var committedWatermark: TimerKey
    /// The sequence to take in next.
    private(set) var ingested: Int64
    /// Below it a key not above `recovered.watermark` means delivered.
    private let recovered: Progress
    /// The sequence up to which messages were stored before this start.
    private let replayEnd: Int64

    private var late: [TimerEntry] = []
    private var lateNext = 0
    private var heap = TimerHeap()
    private var runs: [Run] = []
    private var nextRunNumber: Int32 = 0
    /// In the order of sequence: what of `heap` lies only in the commit log. Delivered ones leave lazily from the
    /// front.
    private var onlyInLog: [TimerKey] = []
    private var onlyInLogNext = 0
    /// By due time, then key.
    private var cancelled: [Int64: [String: TimerCancellation]] = [:]
    /// Cancellations whose records this tick has appended: few. They count already, and are forgotten when it cannot be
    /// written.
    private var cancelledInTick: [(due: Int64, cancellation: TimerCancellation)] = []
    /// Messages of which RocketMQ 5 has stored copies: by due time and key, where the youngest stands.
    private var rolled: [Int64: [String: Int64]] = [:]
    /// Handed out since the last commit, late ones apart: those are the first `lateNext` of `late`.
    private var inFlight: [TimerEntry] = []

    /// - Parameters:
    ///   - progress: what was delivered before the restart.
    ///   - replayFrom: the sequence from which messages are taken in again; those below are delivered or in files.
    ///   - replayEnd: the end of the queue: nothing is delivered before all below it is taken in.
    ///   - files: the buckets found on disk.
    init(progress: Progress, replayFrom: Int64, replayEnd: Int64, files: [TimerBucket]) {
        recovered = progress
        self.replayEnd = max(progress.ingested, replayEnd)
        watermark = progress.watermark
        committedWatermark = progress.watermark
        ingested = min(progress.ingested, replayFrom)
        for bucket in files { buckets[bucket.level, default: []].insert(bucket.start) }
    }

    /// Entries in memory that have not been handed out.
    var nearCount: Int {
        heap.count + late.count - lateNext + runs.reduce(0) { $0 + $1.entries.count - $1.next }
    }

    /// True once everything overdue at the start has been loaded, or as much of it as memory allows.
    func canTakeIn(now: Int64) -> Bool { loadedEnd > now || (!isBusy && nearCount > Self.loadedEntriesMax) }

    // MARK: - Taking in

    /// Takes the next message of the queue. The caller does what the placement demands.
    /// - Parameters:
    ///   - cancellation: what the entry stops, if it is a cancellation.
    ///   - copyKey: that of the messages of which this one is a younger copy.
    func takeIn(
        _ entry: TimerEntry, cancelling cancellation: TimerCancellation? = nil, rolled copyKey: String? = nil
    ) -> Placement {
        precondition(entry.sequence >= ingested, "timer messages are taken in in the order of their queue")
        ingested = entry.sequence + 1
        if entry.key <= watermark {
            if entry.key <= recovered.watermark, entry.sequence < recovered.ingested { return .delivered }
            // A cancellation that late has nothing to stop any more. What was not delivered then had heard of it in the
            // turn that stored it, or is not taken in.
            if !entry.isCancellation { late.append(entry) }
            return .late
        }
        if let cancellation {
            // In a file it lies beside what it stops.
            if entry.due < loadedEnd {
                keep(cancellation, due: entry.due)
            } else {
                forget(cancellation, due: entry.due)
            }
        }
        if let copyKey, entry.due < loadedEnd { replace(copyKey, by: entry.key) }
        if entry.due < loadedEnd {
            heap.push(entry)
            onlyInLog.append(entry.key)
            return .near
        }
        let level: TimerBucket.Level =
            entry.due < hoursSplitEnd ? .minute : entry.due < daysSplitEnd ? .hour : .day
        let bucket = TimerBucket(level: level, of: entry.due)
        buckets[level, default: []].insert(bucket.start)
        return .bucket(bucket)
    }

    /// A message of the queue that is none (its record was deleted) is skipped.
    func skip(_ sequence: Int64) { ingested = max(ingested, sequence + 1) }

    // MARK: - Cancellations

    /// What has become of a message, as far as delivery goes.
    enum Standing: Equatable {
        /// It has not been handed out: what stops it now stops it for good.
        case waits
        /// It was handed out, if only in this tick.
        case handedOut
    }

    /// By what was handed out, whatever a clock says: it goes back, deliveries lag behind it, and the disk may be full.
    func standing(due: Int64, sequence: Int64) -> Standing {
        let key = TimerKey(due: due, sequence: sequence)
        if key > watermark { return .waits }
        // Delivered before the restart: taken in again it is skipped.
        if key <= recovered.watermark, sequence < recovered.ingested { return .handedOut }
        if sequence >= ingested { return .waits }
        // Its time was over when it was taken in.
        return late[lateNext...].contains { $0.key == key } ? .waits : .handedOut
    }

    /// A cancellation whose record was appended in this tick: it counts from now on. Its record is taken in later as
    /// others are.
    func cancel(_ cancellation: TimerCancellation, due: Int64) { cancelledInTick.append((due, cancellation)) }

    private func keep(_ cancellation: TimerCancellation, due: Int64) {
        if cancelled[due]?[cancellation.key]?.merge(cancellation) == nil {
            cancelled[due, default: [:]][cancellation.key] = cancellation
        }
    }

    private func forget(_ cancellation: TimerCancellation, due: Int64) {
        guard cancelled[due]?[cancellation.key] == cancellation else { return }
        cancelled[due]?[cancellation.key] = nil
        if cancelled[due]?.isEmpty == true { cancelled[due] = nil }
    }

    /// Whether a cancellation may have come for messages due then: only such messages' keys are looked at. A handle
    /// made by Apache names the millisecond after the due time.
    func mayBeCancelled(due: Int64) -> Bool {
        cancelled[due] != nil || cancelled[due + 1] != nil || !cancelledInTick.isEmpty
    }

    func isCancelled(_ target: TimerTarget) -> Bool {
        func stops(_ cancellation: TimerCancellation, due: Int64) -> Bool {
            (due == target.due || (due == target.due + 1 && cancellation.isRecall)) && cancellation.key == target.key
                && cancellation.stops(target.sequence, isEdited: target.isEdited)
        }
        for due in [target.due, target.due + 1] {
            if let found = cancelled[due]?[target.key], stops(found, due: due) { return true }
        }
        return cancelledInTick.contains { stops($0.cancellation, due: $0.due) }
    }

    private func replace(_ copyKey: String, by key: TimerKey) {
        rolled[key.due, default: [:]][copyKey, default: key.sequence] = max(
            key.sequence, rolled[key.due]?[copyKey] ?? key.sequence)
    }

    /// Whether there are copies of messages due then: only such messages' keys are looked at.
    func mayBeReplaced(due: Int64) -> Bool { rolled[due] != nil }

    /// Whether a younger copy is the one to deliver.
    func isReplaced(_ copyKey: String, _ key: TimerKey) -> Bool {
        rolled[key.due]?[copyKey].map { key.sequence < $0 } ?? false
    }

    // MARK: - Files

    /// Up to where minutes should be loaded, hours split and days split now.
    private struct Ends {
        let minutes: Int64
        let hours: Int64
        let days: Int64

        init(now: Int64) {
            let minute = TimerBucket.Level.minute.width
            let hour = TimerBucket.Level.hour.width
            let day = TimerBucket.Level.day.width
            minutes = now.roundedDown(to: minute) + 2 * minute
            hours = (minutes + splitAheadMilliseconds).roundedDown(to: hour) + hour
            days = (hours + splitAheadMilliseconds).roundedDown(to: day) + day
        }
    }

    private func wantedJob(_ ends: Ends) -> Job? {
        if let bucket = first(.day, before: ends.days) { return .split(bucket) }
        if let bucket = first(.hour, before: ends.hours) { return .split(bucket) }
        if let bucket = first(.minute, before: ends.minutes), nearCount <= Self.loadedEntriesMax {
            return .load(bucket)
        }
        return nil
    }

    /// A file waits to be split or loaded. Before `nextJob` the caller must write everything it has collected for
    /// files.
    func wantsJob(now: Int64) -> Bool { !isBusy && wantedJob(Ends(now: now)) != nil }

    /// What has to be done with files now; the caller does it, then calls `finished…`. There is one job at a time.
    func nextJob(now: Int64) -> Job? {
        guard !isBusy else { return nil }
        let ends = Ends(now: now)
        guard let job = wantedJob(ends) else {
            daysSplitEnd = max(daysSplitEnd, ends.days)
            hoursSplitEnd = max(hoursSplitEnd, ends.hours)
            if first(.minute, before: ends.minutes) == nil { loadedEnd = max(loadedEnd, ends.minutes) }
            return nil
        }
        isBusy = true
        switch job {
        case .split(let bucket): buckets[bucket.level]?.remove(bucket.start)
        case .load(let bucket):
            buckets[bucket.level]?.remove(bucket.start)
            // From here on its messages stay in memory: nothing is appended to a file that is loaded.
            loadedEnd = max(loadedEnd, bucket.end)
        }
        return job
    }

    private func first(_ level: TimerBucket.Level, before end: Int64) -> TimerBucket? {
        guard let start = buckets[level]?.min(), start < end else { return nil }
        return TimerBucket(level: level, start: start)
    }

    /// A split is done: these files exist now.
    func finishedSplit(into children: [TimerBucket]) {
        isBusy = false
        for bucket in children { buckets[bucket.level, default: []].insert(bucket.start) }
    }

    /// A bucket's index has been read.
    /// - Parameter entries: in the order of their keys, cancellations among them; `source` is set here.
    /// - Returns: the number by which entries of this bucket name it.
    func finishedLoad(
        _ bucket: TimerBucket, entries: [TimerEntry], cancelling: [(due: Int64, cancellation: TimerCancellation)],
        rolled: [(key: TimerKey, copyKey: String)] = []
    ) -> Int32 {
        isBusy = false
        let number = nextRunNumber
        nextRunNumber &+= 1
        for (due, cancellation) in cancelling { keep(cancellation, due: due) }
        for (key, copyKey) in rolled { replace(copyKey, by: key) }
        let entries = entries.map { entry in
            var entry = entry
            entry.source = number
            return entry
        }
        runs.append(Run(number: number, bucket: bucket, entries: entries))
        return number
    }

    // MARK: - Delivering

    private enum Head {
        case late
        case heap
        case run(Int)
    }

    private func head() -> (TimerEntry, Head)? {
        if lateNext < late.count { return (late[lateNext], .late) }
        var best = heap.top.map { ($0, Head.heap) }
        for (index, run) in runs.enumerated() where run.next < run.entries.count {
            let entry = run.entries[run.next]
            if let found = best?.0, found.key <= entry.key { continue }
            best = (entry, .run(index))
        }
        return best
    }

    private func advance(_ head: Head) {
        switch head {
        case .late: lateNext += 1
        case .heap: heap.pop()
        case .run(let index): runs[index].next += 1
        }
    }

    /// The next message whose time has come; cancellations and what was delivered already are skipped.
    func next(now: Int64) -> TimerEntry? {
        // What was taken in before a crash is complete again first: the watermark must not pass a message not seen yet.
        // And what had been stored by then: it may stop one that lies in a file and whose time is over.
        guard ingested >= replayEnd else { return nil }
        while let (entry, head) = head() {
            if case .late = head {
                advance(head)
                return entry
            }
            if entry.due > now { return nil }
            advance(head)
            // In a file and from the log, or delivered before the restart.
            if entry.key <= watermark { continue }
            watermark = entry.key
            inFlight.append(entry)
            if !entry.isCancellation { return entry }
        }
        return nil
    }

    /// Puts back the last one handed out: the store did not take it.
    func putBack(_ entry: TimerEntry) {
        if inFlight.last == entry {
            inFlight.removeLast()
            watermark = inFlight.last?.key ?? committedWatermark
            returnToSource(entry)
        } else {
            precondition(
                lateNext > 0 && late[lateNext - 1] == entry, "only the last entry handed out can be put back")
            lateNext -= 1
        }
    }

    /// A loaded bucket is read again from there, so that its file stays until everything in it is delivered.
    private func returnToSource(_ entry: TimerEntry) {
        if let index = runs.firstIndex(where: { $0.number == entry.source }) {
            var position = min(runs[index].next, runs[index].entries.count)
            while position > 0, runs[index].entries[position - 1].key >= entry.key { position -= 1 }
            runs[index].next = position
        } else {
            heap.push(entry)
        }
    }

    /// What was handed out is in the log.
    /// - Returns: the buckets of which everything is delivered now, with the numbers their entries had.
    func commit() -> [(bucket: TimerBucket, number: Int32)] {
        inFlight.removeAll(keepingCapacity: true)
        late.removeFirst(lateNext)
        lateNext = 0
        committedWatermark = watermark
        while onlyInLogNext < onlyInLog.count, onlyInLog[onlyInLogNext] <= watermark { onlyInLogNext += 1 }
        if onlyInLogNext > 4096, onlyInLogNext * 2 > onlyInLog.count {
            onlyInLog.removeFirst(onlyInLogNext)
            onlyInLogNext = 0
        }
        for (due, cancellation) in cancelledInTick { keep(cancellation, due: due) }
        cancelledInTick.removeAll()
        // What is late is looked for below the watermark.
        if !cancelled.isEmpty, late.isEmpty {
            for due in cancelled.keys where due < watermark.due { cancelled[due] = nil }
        }
        if !rolled.isEmpty {
            for due in rolled.keys where due < watermark.due { rolled[due] = nil }
        }
        guard runs.contains(where: { $0.next == $0.entries.count }) else { return [] }
        let finished = runs.filter { $0.next == $0.entries.count }.map { ($0.bucket, $0.number) }
        runs.removeAll { $0.next == $0.entries.count }
        return finished
    }

    /// What was handed out since the last commit did not get into the log: it goes again.
    func rollBack() {
        cancelledInTick.removeAll()
        let lost = inFlight
        inFlight.removeAll(keepingCapacity: true)
        lateNext = 0
        watermark = committedWatermark
        for entry in lost.reversed() { returnToSource(entry) }
    }

    /// Something has been handed out (or skipped) that a commit must make final.
    var awaitsCommit: Bool { !inFlight.isEmpty || lateNext > 0 }

    /// Nothing waits, neither in memory nor in files.
    var isEmpty: Bool { nearCount == 0 && !isBusy && buckets.values.allSatisfy { $0.isEmpty } }

    /// Milliseconds: what is due before it and was taken in has been delivered.
    func deliveredBefore(now: Int64) -> Int64 {
        guard ingested >= recovered.ingested, lateNext >= late.count else { return max(0, committedWatermark.due) }
        let waiting = [inFlight.first?.due, head()?.0.due].compactMap { $0 }.min() ?? Int64.max
        return max(0, min(waiting, loadedEnd, now))
    }

    // MARK: - What must survive

    /// Of the last commit.
    var progress: Progress {
        guard ingested >= recovered.ingested else { return recovered }
        return Progress(ingested: late.first?.sequence ?? ingested, watermark: committedWatermark)
    }

    /// After a crash messages must be taken in again from here. That requires that everything placed in buckets is in
    /// their files, and everything delivered is in the log.
    var replayFrom: Int64 {
        var first = late.first?.sequence ?? ingested
        if onlyInLogNext < onlyInLog.count { first = min(first, onlyInLog[onlyInLogNext].sequence) }
        return first
    }

    /// When something has to be done next; `nil` when nothing waits.
    func nextWake(now: Int64) -> Int64? {
        if let (entry, head) = head() {
            if case .late = head { return now }
            // The next minute's bucket must be loaded in time, whatever is waiting before it.
            return min(entry.due, nextBoundary(now) ?? Int64.max)
        }
        return nextBoundary(now)
    }

    private func nextBoundary(_ now: Int64) -> Int64? {
        guard buckets.values.contains(where: { !$0.isEmpty }) else { return nil }
        return now.roundedDown(to: TimerBucket.Level.minute.width) + TimerBucket.Level.minute.width
    }
}
