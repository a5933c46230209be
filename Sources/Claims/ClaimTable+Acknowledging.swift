import MessageModel

/// What clients do with handles, and what the broker does to a queue.
extension ClaimTable {
    /// What an acknowledgement has done.
    package enum AckOutcome: Sendable {
        /// The message is finished by it.
        case finished
        /// Another delivery's handle: the message was handed out again, is finished, or never was claimed.
        case stale
    }

    /// Finishes a message. Stale handles change nothing. A handle whose claim is due, but not handed out again yet,
    /// finishes it. Allocates nothing.
    /// - Parameter popTime: the handle's, milliseconds since 1970.
    package func acknowledge(_ offset: Int64, popTime: Int64) -> AckOutcome {
        guard let mustSettle = finish(offset, popTime: popTime) else {
            stale()
            return .stale
        }
        if mustSettle { settle() }
        return .finished
    }

    /// Finishes several messages of one delivery, each as `acknowledge(_:popTime:)` does; floor and deadlines move
    /// once, at the end. Allocates nothing.
    /// - Parameters:
    ///   - bits: bit i stands for the offset `start + i`; offsets the queue has not got are stale.
    ///   - popTime: the handles', milliseconds since 1970.
    /// - Returns: how many messages were finished.
    package func acknowledge(from start: Int64, bits: UInt64, popTime: Int64) -> Int {
        var rest = bits
        var finished = 0
        var mustSettle = false
        while rest != 0 {
            let place = rest.trailingZeroBitCount
            let offset = start +| Int64(place)
            // Of the run the rest's first message lies in.
            if let (taken, must) = finishRun(offset, bits: rest >> UInt64(place), popTime: popTime) {
                finished += taken.nonzeroBitCount
                mustSettle = mustSettle || must
                rest &= ~(UInt64(taken) << UInt64(place))
                continue
            }
            if let must = finish(offset, popTime: popTime) {
                finished += 1
                mustSettle = mustSettle || must
            } else {
                stale()
            }
            rest &= rest - 1
        }
        if mustSettle { settle() }
        return finished
    }

    /// Finishes several messages of one run at once.
    /// - Parameters:
    ///   - offset: of the first of them.
    ///   - bits: bit i stands for `offset + i`; the first is set.
    /// - Returns: those that are finished by it, as `bits` has them, and whether `settle` must follow. Nil when the
    ///   first one lies in no run, or belongs to another delivery.
    private func finishRun(_ offset: Int64, bits: UInt64, popTime: Int64) -> (bits: UInt32, mustSettle: Bool)? {
        guard let open, open.singles.isEmpty, let position = open.runs.find(offset) else { return nil }
        let run = position.run
        guard run.popTime == popTime else { return nil }
        let shift = UInt32(truncatingIfNeeded: offset - run.start)
        let taken = UInt32(truncatingIfNeeded: bits << UInt64(shift)) & run.unfinished
        open.runs.finish(bits: taken, at: position)
        let number = taken.nonzeroBitCount
        count(claimed: run.isDue ? 0 : -number, due: run.isDue ? -number : 0)
        registry?.journal?.finish(self, offset, bits: taken >> shift)
        return (taken >> shift, run.isDue || offset == floor || claimedCount + dueCount == 0)
    }

    /// Whether `settle` must follow; nil for a stale handle.
    private func finish(_ offset: Int64, popTime: Int64) -> Bool? {
        guard let open else { return nil }
        let wasDue: Bool
        if !open.singles.isEmpty, let single = open.singles[offset] {
            guard single.popTime == popTime else { return nil }
            open.singles.remove(offset)
            wasDue = single.isDue
            if single.waits { failedCount -= 1 }
        } else if let position = open.runs.find(offset) {
            let run = position.run
            guard run.popTime == popTime else { return nil }
            open.runs.finish(offset, at: position)
            wasDue = run.isDue
        } else {
            return nil
        }
        count(claimed: wasDue ? 0 : -1, due: wasDue ? -1 : 0)
        registry?.journal?.finish(self, offset)
        // Other acknowledgements move neither floor nor deadlines, which may be early.
        return wasDue || offset == floor || claimedCount + dueCount == 0
    }

    private func stale() { registry?.statistics.stale += 1 }

    /// Sets a new deadline. A handle whose claim has become due, but was not handed out again, may still change it.
    ///
    /// - Parameters:
    ///   - popTime: the handle's, milliseconds since 1970.
    ///   - invisible: milliseconds from now on, as for `claim`; 0: due at once.
    ///   - hasFailed: the client gives it back: until the deadline it is in no client's hands.
    /// - Returns: the pop time of the new handle (ordered tables keep the old one), nil when the handle is stale.
    package func change(
        _ offset: Int64, popTime: Int64, invisible: Int64, at now: ClaimTime, hasFailed: Bool = false
    ) -> Int64? {
        guard let single = inHand(offset), single.popTime == popTime else {
            stale()
            return nil
        }
        let newPopTime = isOrdered ? popTime : max(now.wall, popTimeMinUnordered, popTime +| 1)
        let invisible = Self.allowed(invisible)
        registry?.journal?.change(
            self, offset, popTime: newPopTime, wall: now.wall, invisible: invisible, hasFailed: hasFailed)
        _ = take(offset)
        put(
            offset,
            Single(
                popTime: newPopTime,
                deadline: invisible == 0 ? Run.due : Self.deadline(now.steady, invisible), attempt: single.attempt,
                invisible: UInt32(invisible), client: single.client, hasFailed: hasFailed))
        settle()
        if invisible == 0 { registry?.observer?.messagesDue(in: self) }
        return newPopTime
    }

    /// Forgets everything in hand; `floor` and `next` are `offset` (reset, foreign commit, queue created anew).
    package func reset(to offset: Int64) {
        precondition(offset >= 0, "offset \(offset) is negative")
        registry?.journal?.reset(self, to: offset)
        resetWithoutJournal(to: offset)
    }

    func resetWithoutJournal(to offset: Int64) {
        forgetAll()
        next = offset
        noteDue(popTimeMax)
        settle()
    }

    /// Drops what is claimed or due below `min`; returns how many messages that were.
    func retainWithoutJournal(from min: Int64) -> Int {
        guard floor < min else { return 0 }
        var dropped = 0
        // A message that could not be taken would be the lowest for ever.
        while let lowest = open?.lowest(), lowest < min, take(lowest) != nil { dropped += 1 }
        next = max(next, min)
        settle()
        return dropped
    }

    /// Drops what is claimed or due from `max` on, offsets the queue has not got (any more), and lowers `next` to it.
    /// Returns how many messages were dropped.
    func lowerWithoutJournal(to max: Int64) -> Int {
        guard next > max else { return 0 }
        var beyond: [Int64] = []
        open?.forEach { offset, _ in if offset >= max { beyond.append(offset) } }
        for offset in beyond { _ = take(offset) }
        // Messages with these offsets will be handed out again, as other ones.
        open?.runs.truncate(to: max)
        open?.due.truncate(to: max)
        next = max
        noteDue(popTimeMax)
        settle()
        return beyond.count
    }
}

extension OpenClaims {
    /// Makes every message of a run a single claim, as it is; the entries of due ones are left to the caller.
    func makeSingles() {
        var messages: [(Int64, Single)] = []
        forEach { offset, single in messages.append((offset, single)) }
        runs = RunList()
        for (offset, single) in messages { singles.set(offset, to: single) }
    }

    /// Calls `body` with each message that is claimed or due: those of runs ascending, then the others in no order.
    func forEach(_ body: (Int64, Single) -> Void) {
        runs.forEach { run in
            var bits = run.unfinished
            while bits != 0 {
                body(
                    run.start + Int64(bits.trailingZeroBitCount),
                    Single(
                        popTime: run.popTime, deadline: run.deadline, dueNumber: run.isDue ? .max : 0, attempt: 1,
                        invisible: 0, client: run.client))
                bits &= bits - 1
            }
        }
        for (offset, single) in singles.byOffset { body(offset, single) }
    }
}
