import MessageModel

/// Ordered groups: a queue has one open batch, which the pop that made it may open again.
extension ClaimTable {
    /// Until when the queue is blocked by messages claimed by another attempt, steady milliseconds. The time is not
    /// late, but early when very many are claimed. Nil: the queue is free. It is free, too, for the attempt ID of the
    /// open batch: then `reopenBatch` comes before anything else is handed out.
    package func blockedUntil(attemptID: [UInt8]?, at now: ClaimTime) -> Int64? {
        guard claimedCount > 0, let open else { return nil }
        if isOpenBatch(attemptID) { return nil }
        if claimedCount + dueCount > 1024 { return open.earliest }
        var latest = Int64.min
        open.forEach { _, single in if !single.isDue { latest = max(latest, single.deadline) } }
        return latest
    }

    /// Whether `reopenBatch` has something to hand out again for a pop with this attempt ID.
    package func isOpenBatch(_ attemptID: [UInt8]?) -> Bool {
        guard let attemptID, !attemptID.isEmpty else { return false }
        return attemptID == self.attemptID && claimedCount + dueCount > 0
    }

    /// Hands everything in hand out again, whether due or not, without counting an attempt: the answer to the pop with
    /// this attempt ID was lost. Handles given out before are stale from now on.
    ///
    /// - Parameters:
    ///   - popTime: milliseconds since 1970, not below `popTimeMin` of the ordered table.
    ///   - invisible: as for `claim`.
    /// - Returns: offsets, ascending, and deliveries that count, this one included: that is 1 for messages that were
    ///   delivered the first time.
    package func reopenBatch(
        at now: ClaimTime, popTime: Int64, invisible: Int64, client: ClaimClient, attemptID: [UInt8]
    ) -> [(offset: Int64, attempts: Int32)] {
        precondition(isOrdered && attemptID == self.attemptID, "only the attempt of the open batch may open it again")
        precondition(popTime > popTimeMax, "pop time \(popTime) is not above that of the deliveries before")
        let invisible = Self.allowed(invisible)
        registry?.journal?.reopen(self, popTime: popTime, wall: now.wall, invisible: invisible, client: client)
        reopenWithoutJournal(
            popTime: popTime, wall: now.wall, deadline: Self.deadline(now.steady, invisible), invisible: invisible,
            client: client)
        var batch: [(offset: Int64, attempts: Int32)] = []
        open?.forEach { offset, single in batch.append((offset, single.attempt)) }
        return batch.sorted { $0.offset < $1.offset }
    }

    func reopenWithoutJournal(
        popTime: Int64, wall: Int64, deadline: Int64, invisible: Int64, client: ClaimClient
    ) {
        guard let open else { return }
        // As for first deliveries: a pop time ahead of the clock needs single claims.
        if popTime > wall { open.makeSingles() }
        popTimeMax = max(popTimeMax, popTime)
        count(claimed: dueCount, due: -dueCount)
        failedCount = 0
        open.due = DueQueue()
        open.runs.changeAll { run in
            run.popTime = popTime
            run.deadline = deadline
            run.client = client.number
        }
        open.singles.changeAll { single in
            single.popTime = popTime
            single.deadline = deadline
            single.dueNumber = 0
            single.hasFailed = false
            single.invisible = UInt32(invisible)
            single.client = client.number
            // Delivered now, if its only delivery was abandoned.
            single.attempt = max(single.attempt, 1)
        }
        settle()
    }
}
