/// First deliveries that one pop made: up to 32 consecutive offsets, a bit each. 32 bytes.
struct Run {
    /// Offsets a run covers at most.
    static let span: Int64 = 32
    /// The deadline of a run whose deadline has passed.
    static let due = Int64.max

    /// Queue offset of bit 0.
    var start: Int64
    /// Milliseconds since 1970; with an offset it names the delivery.
    var popTime: Int64
    /// Milliseconds of the store's axis of time (`ClaimTable`), or `due`.
    var deadline: Int64
    /// Bit i: the message at `start + i` is not finished.
    var unfinished: UInt32
    /// A `ClaimClient`'s number.
    var client: UInt32

    var isDue: Bool { deadline == Self.due }
    /// The lowest offset that is not finished; only while there is one.
    var lowest: Int64 { start + Int64(unfinished.trailingZeroBitCount) }

    /// The bit of an offset if it is not finished.
    func bit(of offset: Int64) -> UInt32? {
        guard offset >= start, offset - start < Self.span else { return nil }
        let bit = UInt32(1) << UInt32(offset - start)
        return unfinished & bit != 0 ? bit : nil
    }
}

/// Up to 32 runs. It is freed when all of them are finished; until then finished runs stay in their places.
final class RunChunk: HeapElement {
    static let size = 32

    /// Of its first run.
    let start: Int64
    var runs: [Run] = []
    /// Runs with unfinished messages.
    var openRuns = 0
    /// Runs before it are finished.
    var firstOpen = 0
    /// At most the earliest deadline of its runs; `Run.due` when all are due.
    var heapKey = Run.due
    var heapIndex: Int32 = -1

    init(start: Int64) { self.start = start }
}

/// The runs of a table, in order of their offsets, found by binary search. Chunks are also in a heap by their earliest
/// deadline.
struct RunList {
    /// Where a run lies; valid until runs are appended or finished.
    struct Position {
        let chunk: RunChunk
        let index: Int

        var run: Run { chunk.runs[index] }
    }

    /// From `head` on; those without runs are finished.
    private var chunks: [RunChunk] = []
    private var head = 0
    /// Finished chunks from `head` on.
    private var finishedChunks = 0
    private var byDeadline = IndexedHeap<RunChunk>()

    /// At most the earliest deadline; `Run.due` when there is none.
    var earliest: Int64 { byDeadline.first?.heapKey ?? Run.due }
    var isEmpty: Bool { chunks.count - head == finishedChunks }

    /// The highest offset that is not finished in the last run, if no message of its chunk is.
    var lastOffset: Int64? {
        guard let run = chunks.last?.runs.last, run.unfinished != 0 else { return nil }
        return run.start + Int64(31 - run.unfinished.leadingZeroBitCount)
    }

    /// Enters a run with unfinished messages after all others, finished ones included: it begins above them.
    mutating func append(_ run: Run) {
        if let last = chunks.last, !last.runs.isEmpty, head < chunks.count {
            if last.openRuns > 0, Self.extend(&last.runs[last.runs.count - 1], by: run) { return }
            if last.runs.count < RunChunk.size {
                add(run, to: last)
                return
            }
        }
        let chunk = RunChunk(start: run.start)
        chunks.append(chunk)
        byDeadline.insert(chunk)
        add(run, to: chunk)
    }

    private mutating func add(_ run: Run, to chunk: RunChunk) {
        chunk.runs.append(run)
        chunk.openRuns += 1
        if run.deadline < chunk.heapKey { byDeadline.setKey(run.deadline, of: chunk) }
    }

    /// Pops of the same client in the same millisecond share a run.
    private static func extend(_ last: inout Run, by run: Run) -> Bool {
        let distance = run.start - last.start
        guard last.unfinished != 0, last.popTime == run.popTime, last.deadline == run.deadline,
            last.client == run.client,
            distance > 0, distance < Run.span, run.unfinished.leadingZeroBitCount >= Int(distance)
        else { return false }
        last.unfinished |= run.unfinished << UInt32(distance)
        return true
    }

    /// The run with this offset, if the message is not finished.
    func find(_ offset: Int64) -> Position? {
        guard let position = lastStarting(at: offset), position.run.bit(of: offset) != nil else { return nil }
        return position
    }

    /// The run that begins at this offset, if any message of it is not finished.
    func run(startingAt start: Int64) -> Position? {
        guard let position = lastStarting(at: start), position.run.start == start, position.run.unfinished != 0 else {
            return nil
        }
        return position
    }

    /// The last run that begins at `offset` or before.
    private func lastStarting(at offset: Int64) -> Position? {
        var low = head
        var high = chunks.count
        while low < high {
            let middle = (low + high) / 2
            if chunks[middle].start <= offset { low = middle + 1 } else { high = middle }
        }
        guard low > head else { return nil }
        let chunk = chunks[low - 1]
        low = 0
        high = chunk.runs.count
        while low < high {
            let middle = (low + high) / 2
            if chunk.runs[middle].start <= offset { low = middle + 1 } else { high = middle }
        }
        return low > 0 ? Position(chunk: chunk, index: low - 1) : nil
    }

    /// Finishes a message that `find` has found.
    mutating func finish(_ offset: Int64, at position: Position) {
        guard let bit = position.run.bit(of: offset) else {
            preconditionFailure("offset \(offset) is finished already")
        }
        finish(bits: bit, at: position)
    }

    /// Finishes messages of a run that `find` has found.
    /// - Parameter bits: as `Run.unfinished`, a part of it.
    mutating func finish(bits: UInt32, at position: Position) {
        let chunk = position.chunk
        let unfinished = chunk.runs[position.index].unfinished
        precondition(bits & ~unfinished == 0, "a message of the run at \(position.run.start) is finished already")
        chunk.runs[position.index].unfinished = unfinished & ~bits
        guard unfinished == bits else { return }
        chunk.openRuns -= 1
        guard chunk.openRuns == 0 else { return }
        chunk.runs = []
        byDeadline.remove(chunk)
        finishedChunks += 1
        dropFinishedChunks()
    }

    private mutating func dropFinishedChunks() {
        while head < chunks.count, chunks[head].runs.isEmpty {
            head += 1
            finishedChunks -= 1
        }
        if head == chunks.count {
            chunks = []
            head = 0
        } else if finishedChunks > 64, finishedChunks > (chunks.count - head) / 2 {
            chunks = chunks[head...].filter { !$0.runs.isEmpty }
            head = 0
            finishedChunks = 0
        } else if head > 64, head > chunks.count / 2 {
            chunks.removeFirst(head)
            head = 0
        }
    }

    /// Forgets finished runs that begin at `bound` or beyond, and chunks of such runs. Every message from there on is
    /// finished. Runs with lower offsets than theirs are appended next: behind them they would not be found.
    mutating func truncate(to bound: Int64) {
        while chunks.count > head, let last = chunks.last {
            guard last.start >= bound else {
                // Its first run begins below the bound and stays.
                while let run = last.runs.last, run.start >= bound {
                    precondition(run.unfinished == 0, "a run from \(bound) on is not finished")
                    last.runs.removeLast()
                }
                break
            }
            precondition(last.openRuns == 0, "a run from \(bound) on is not finished")
            chunks.removeLast()
            finishedChunks -= 1
        }
        dropFinishedChunks()
    }

    /// The lowest offset that is not finished.
    func lowest() -> Int64? {
        guard head < chunks.count else { return nil }
        let chunk = chunks[head]
        while chunk.runs[chunk.firstOpen].unfinished == 0 { chunk.firstOpen += 1 }
        return chunk.runs[chunk.firstOpen].lowest
    }

    /// Makes the run with the earliest deadline due if it has passed; nil when none has.
    mutating func expireFirst(at time: Int64) -> Run? {
        while let chunk = byDeadline.first, chunk.heapKey <= time, chunk.heapKey != Run.due {
            var first = Run.due
            var second = Run.due
            var index = 0
            for (candidate, run) in chunk.runs.enumerated() where run.unfinished != 0 {
                if run.deadline < first {
                    second = first
                    first = run.deadline
                    index = candidate
                } else if run.deadline < second {
                    second = run.deadline
                }
            }
            guard first == chunk.heapKey else {
                // Its earliest run was finished meanwhile: another chunk's may be earlier than what is left.
                byDeadline.setKey(first, of: chunk)
                continue
            }
            let run = chunk.runs[index]
            chunk.runs[index].deadline = Run.due
            byDeadline.setKey(second, of: chunk)
            return run
        }
        return nil
    }

    /// Calls `body` with every run that has unfinished messages, in order.
    func forEach(_ body: (Run) -> Void) {
        for chunk in chunks[head...] { for run in chunk.runs where run.unfinished != 0 { body(run) } }
    }

    /// Changes time and client of every run with unfinished messages, not their offsets.
    mutating func changeAll(_ body: (inout Run) -> Void) {
        for chunk in chunks[head...] where !chunk.runs.isEmpty {
            var earliest = Run.due
            for index in chunk.runs.indices where chunk.runs[index].unfinished != 0 {
                body(&chunk.runs[index])
                earliest = min(earliest, chunk.runs[index].deadline)
            }
            byDeadline.setKey(earliest, of: chunk)
        }
    }
}
