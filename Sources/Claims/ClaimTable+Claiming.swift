import MessageModel

/// Handing out.
extension ClaimTable {
    /// First deliveries.
    ///
    /// - Parameters:
    ///   - offsets: queue offsets, ascending, none below `next`. What lies between them was filtered out: finished.
    ///   - newNext: above all of them; not below `next`.
    ///   - popTime: milliseconds since 1970, not below `popTimeMin`.
    ///   - invisible: milliseconds until they become due, 0 ... `Int64.claimInvisibleMax`; cut to these.
    ///   - attemptID: of the pop; remembered for ordered tables, up to 255 bytes.
    package func claim(
        _ offsets: [Int64], next newNext: Int64, at now: ClaimTime, popTime: Int64, invisible: Int64,
        client: ClaimClient, attemptID: [UInt8]?
    ) {
        precondition(newNext >= next, "claims up to \(newNext), but \(next) is the next offset")
        precondition(popTime >= popTimeMinUnordered, "pop time \(popTime) may be another delivery's")
        let invisible = Self.allowed(invisible)
        let attemptID = Self.kept(attemptID, isOrdered)
        registry?.journal?.claim(
            self, offsets, next: newNext, popTime: popTime, wall: now.wall, invisible: invisible, client: client,
            attemptID: attemptID)
        claimWithoutJournal(
            offsets, next: newNext, popTime: popTime, wall: now.wall, invisible: invisible,
            deadline: Self.deadline(now.steady, invisible), client: client)
        if isOrdered { self.attemptID = attemptID }
        settle()
    }

    /// Enters runs, or single claims; `settle` must follow.
    /// - Parameter wall: when they were claimed, milliseconds since 1970.
    func claimWithoutJournal(
        _ offsets: [Int64], next newNext: Int64, popTime: Int64, wall: Int64, invisible: Int64, deadline: Int64,
        client: ClaimClient
    ) {
        // A restart takes from a run's pop time and deadline how long it was given out for. A pop time that is ahead of
        // the clock (which was set back) would make that too short. The message would go into a second client's hands.
        guard popTime <= wall else {
            for offset in offsets {
                precondition(offset >= next && offset < newNext, "an offset of a claim is beyond it")
                put(
                    offset,
                    Single(
                        popTime: popTime, deadline: deadline, attempt: 1, invisible: UInt32(invisible),
                        client: client.number))
            }
            next = newNext
            return
        }
        var lowestAllowed = next
        var run = Run(start: 0, popTime: popTime, deadline: deadline, unfinished: 0, client: client.number)
        for offset in offsets {
            precondition(offset >= lowestAllowed && offset < newNext, "the offsets of a claim do not ascend")
            lowestAllowed = offset + 1
            if run.unfinished != 0, offset - run.start < Run.span {
                run.unfinished |= 1 << UInt32(offset - run.start)
                continue
            }
            if run.unfinished != 0 { openClaims().runs.append(run) }
            run.start = offset
            run.unfinished = 1
        }
        if run.unfinished != 0 { openClaims().runs.append(run) }
        next = newNext
        popTimeMax = max(popTimeMax, popTime)
        count(claimed: offsets.count, due: 0)
    }

    /// Up to `limit` due messages, the longest due first (ascending offsets in an ordered table), with their deliveries
    /// so far. They stay due until `reclaim` or `drop`.
    package func due(limit: Int) -> [(offset: Int64, attempts: Int32)] {
        guard dueCount > 0, limit > 0, let open else { return [] }
        // A table that has just become ordered may have many: its order is then that of the longest due ones.
        let wanted = isOrdered ? max(limit, 4096) : limit
        var found: [(offset: Int64, attempts: Int32)] = []
        open.due.forEach { entry in
            guard isValid(entry, in: open) else { return true }
            if entry.number != 0 {
                if let single = open.singles[entry.offset] { found.append((entry.offset, single.attempt)) }
            } else if let run = open.runs.run(startingAt: entry.offset)?.run {
                var bits = run.unfinished
                while bits != 0, found.count < wanted {
                    found.append((run.start + Int64(bits.trailingZeroBitCount), 1))
                    bits &= bits - 1
                }
            }
            return found.count < wanted
        }
        if isOrdered {
            found.sort { $0.offset < $1.offset }
            if found.count > limit { found.removeLast(found.count - limit) }
        }
        return found
    }

    /// Hands a due message out again: attempt + 1.
    ///
    /// - Parameters:
    ///   - popTime: milliseconds since 1970, above that of the delivery before (see `popTimeMin`).
    ///   - invisible: as for `claim`.
    ///   - attemptID: of the pop, for an ordered table, whose open batch these messages then are.
    package func reclaim(
        _ offset: Int64, at now: ClaimTime, popTime: Int64, invisible: Int64, client: ClaimClient,
        attemptID: [UInt8]? = nil
    ) {
        guard let single = take(offset), single.isDue else {
            preconditionFailure("offset \(offset) is not due and cannot be claimed again")
        }
        precondition(popTime > single.popTime, "pop time \(popTime) is not above that of the delivery before")
        let invisible = Self.allowed(invisible)
        let attemptID = Self.kept(attemptID, isOrdered)
        registry?.journal?.reclaim(
            self, offset, popTime: popTime, wall: now.wall, invisible: invisible, client: client,
            attemptID: attemptID)
        put(
            offset,
            Single(
                popTime: popTime, deadline: Self.deadline(now.steady, invisible), attempt: single.attempt +| 1,
                invisible: UInt32(invisible), client: client.number))
        if isOrdered { self.attemptID = attemptID }
        settle()
    }

    /// Finishes a due message that cannot be read any more, or went to the dead letters.
    package func drop(due offset: Int64) {
        guard let single = take(offset), single.isDue else {
            preconditionFailure("offset \(offset) is not due and cannot be dropped")
        }
        registry?.journal?.finish(self, offset, isWithdrawn: true)
        settle()
    }

    /// Finishes a message that was delivered before and waits to be delivered again, whether due or not yet after a
    /// failure. No client is to have it any more. One that is in a client's hands stays.
    /// - Returns: whether there was such a message.
    package func drop(waiting offset: Int64) -> Bool {
        guard let single = inHand(offset), single.isDue || single.waits else { return false }
        _ = take(offset)
        registry?.journal?.finish(self, offset, isWithdrawn: true)
        settle()
        return true
    }

    /// Takes back deliveries that were never answered, or that the client gave back before it worked on them. An answer
    /// is missing when the journal could not be written or the connection was gone. The messages are due at once, and
    /// the delivery does not count. The count of a message that was taken back before and prolonged does not fall below
    /// 0. Offsets that are not claimed are left alone.
    package func abandon(_ offsets: [Int64], at now: ClaimTime) {
        var isAny = false
        for offset in offsets {
            guard let single = inHand(offset), !single.isDue else { continue }
            registry?.journal?.abandon(self, offset, wall: now.wall)
            _ = take(offset)
            put(
                offset,
                Single(
                    popTime: single.popTime, deadline: Run.due, attempt: max(0, single.attempt -| 1), invisible: 0,
                    client: single.client))
            isAny = true
        }
        guard isAny else { return }
        settle()
        registry?.observer?.messagesDue(in: self)
    }

    // MARK: - Values

    static func allowed(_ invisible: Int64) -> Int64 { min(max(invisible, 0), .claimInvisibleMax) }

    /// Never `Run.due`.
    static func deadline(_ time: Int64, _ invisible: Int64) -> Int64 { min(time +| invisible, Run.due - 1) }

    private static func kept(_ attemptID: [UInt8]?, _ isOrdered: Bool) -> [UInt8]? {
        guard isOrdered, let attemptID, !attemptID.isEmpty, attemptID.count <= 255 else { return nil }
        return attemptID
    }
}
