import LinuxSystem
import Logging
import StoreFormat

extension MessageStore {
    /// Decides about an entry whose offset is not its queue's end, seen only in replay and replication. True: the queue
    /// has been made to end there. False: it is in the queue already, cannot be, or waits for the queue's next record.
    func preparePut(
        _ entry: ConsumeQueueEntry, at offset: QueueOffset, _ queue: ConsumeQueue, isReplay: Bool
    ) -> Bool {
        guard (0..<ConsumeQueueEntry.queueOffsetLimit).contains(offset.rawValue) else {
            logger.error(
                """
                message at \(entry.physicalOffset) has queue offset \(offset), which no queue takes: it is in no queue \
                and not delivered
                """
            )
            return false
        }
        // Nothing newer than the queue's last message can be in it already; an older one is.
        if !queue.isEmpty, entry.physicalOffset <= queue.lastPhysicalOffset { return false }
        if let earlier = waiting.removeValue(forKey: ObjectIdentifier(queue)) {
            decide(earlier, next: offset)
            if queue.maxOffset == offset { return true }
        }
        if endsAtOnce(at: offset, queue, isReplay: isReplay) {
            moveEnd(of: queue, to: offset)
            return true
        }
        waiting[ObjectIdentifier(queue)] = WaitingRecord(
            queue: queue, entry: entry, offset: offset, maximum: queue.maxOffset)
        return false
    }

    /// Whether the queue goes on at the offset without a look at its next record. Nothing but blanks is lost by it if
    /// the number is wrong: the next record takes it back.
    private func endsAtOnce(at offset: QueueOffset, _ queue: ConsumeQueue, isReplay: Bool) -> Bool {
        let maximum = queue.maxOffset
        // A queue's first message; a topic of one message made again, whose next message would refute this one.
        if (maximum.rawValue == 0 && queue.lastFile < queue.firstFile)
            || (offset.rawValue == 0 && maximum.rawValue == 1)
        {
            return true
        }
        if isReplay { return false }
        if queue.isEmpty { return true }
        return offset > maximum ? hasBlanks(before: offset, queue) : onlyBlanksGo(from: offset, queue)
    }

    /// Whether the blanks up to the offset may be added. A master's wrong numbers could else ask for any count of them.
    private func hasBlanks(before offset: QueueOffset, _ queue: ConsumeQueue) -> Bool {
        offset - queue.maxOffset <= min(queue.entriesPerFile, blanksLeft)
    }

    /// As above. A replay makes room by writing the blanks there are. All its queues may lack what one damaged log file
    /// held, and together no more than that.
    private func makesRoom(before offset: QueueOffset, _ queue: ConsumeQueue) -> Bool {
        if hasBlanks(before: offset, queue) { return true }
        let gap = offset - queue.maxOffset
        guard !isOpen, gap <= min(queue.entriesPerFile, Self.blanksPerPass, skippedMessages) else { return false }
        skippedMessages -= gap
        do throws(SystemError) {
            try markOwned()
            while let next = dirtyQueues.last {
                if !next.isRemoved { try queueFiles.write(next) }
                next.isDirty = false
                dirtyQueues.removeLast()
            }
        } catch {
            logger.error("queues could not be written in a replay: \(error); free the disk, or look at it")
            return false
        }
        blanksLeft = Self.blanksPerPass
        return true
    }

    /// Whether a cut to the offset takes only the newest entry and the blanks before it. Its number was wrong then.
    private func onlyBlanksGo(from offset: QueueOffset, _ queue: ConsumeQueue) -> Bool {
        do throws(SystemError) {
            guard try queueFiles.entry(queue, at: queue.maxOffset - 2) == .preBlank else { return false }
            if offset == queue.maxOffset - 1 { return true }
            return try queueFiles.entry(queue, at: offset) == .preBlank
        } catch {
            return false
        }
    }

    /// Blank entries that may be added until a pass has written them, and in a replay; 20 bytes each.
    static var blanksPerPass: Int64 { 1 << 20 }

    /// A pass begins, after which no replay meets these records again. Gaps that waited for the pass before to write
    /// its blanks are filled, and a topic made again begins. What else goes backward waits for its next record.
    func fillWaitingGaps() {
        for (key, record) in waiting {
            let isOpen = record.queue.maxOffset == record.maximum && !record.queue.isRemoved
            let isLater = record.offset > record.maximum
            if isOpen, isLater ? !hasBlanks(before: record.offset, record.queue) : !record.isLikely { continue }
            waiting[key] = nil
            if isOpen { accept(record) } else { drop(record) }
        }
    }

    private func decide(_ record: WaitingRecord, next: QueueOffset) {
        let maximum = record.queue.maxOffset
        guard maximum == record.maximum, !record.isRefuted(by: next) else {
            drop(record)
            // Its own entry stays empty.
            if maximum == record.maximum, next == maximum + 1 { record.queue.add(.preBlank) }
            return
        }
        accept(record)
    }

    /// The replay has come to its end.
    func decideWaitingRecords() {
        decideWithoutNext()
        applyWaitingEdits()
    }

    /// No further record of their queues comes, in a replay or because the store closes.
    func decideWithoutNext() {
        for record in waiting.values {
            if record.queue.maxOffset == record.maximum, !record.queue.isRemoved, record.isLikely,
                record.offset < record.maximum || record.queue.isEmpty || makesRoom(before: record.offset, record.queue)
            {
                accept(record)
            } else {
                drop(record)
            }
        }
        waiting = [:]
    }

    private func accept(_ record: WaitingRecord) {
        moveEnd(of: record.queue, to: record.offset)
        add(record.entry, to: record.queue)
    }

    private func drop(_ record: WaitingRecord) {
        logger.error(
            """
            message at \(record.entry.physicalOffset) says it is number \(record.offset) of the queue \
            \(record.queue.topic)-\(record.queue.queueID), which was at \(record.maximum) and does not go on there: it \
            is in no queue and not delivered
            """
        )
    }

    private func moveEnd(of queue: ConsumeQueue, to offset: QueueOffset) {
        let name = "\(queue.topic)-\(queue.queueID)"
        let maximum = queue.maxOffset
        if offset < maximum {
            // The topic was deleted and made again: its offsets began anew.
            logger.notice("queue \(name) begins again at \(offset), it was at \(maximum)")
            restart(queue, at: offset)
        } else if maximum.rawValue == 0, queue.lastFile < queue.firstFile {
            queue.reset(minimum: offset, maximum: offset, written: offset)
        } else if queue.isEmpty || !makesRoom(before: offset, queue) {
            jump(queue, to: offset)
        } else {
            blanksLeft -= offset - maximum
            logger.error(
                "queue \(name) lacks the entries \(maximum) to \(offset - Int64(1)): their messages are not in the log")
            while queue.maxOffset < offset { queue.add(.preBlank) }
        }
    }

    private func jump(_ queue: ConsumeQueue, to offset: QueueOffset) {
        logger.error(
            """
            queue \(queue.topic)-\(queue.queueID) jumps from \(queue.maxOffset) to \(offset): it begins anew there, \
            entries before are removed
            """
        )
        restart(queue, at: offset)
    }

    private func restart(_ queue: ConsumeQueue, at offset: QueueOffset) {
        do throws(SystemError) {
            if offset > queue.minOffset, offset < queue.maxOffset {
                try queueFiles.cut(queue, to: offset)
            } else {
                queue.edits = nil
                try queueFiles.clear(queue)
                queue.reset(minimum: offset, maximum: offset, written: offset)
            }
        } catch {
            logger.error(
                """
                the files of queue \(queue.topic)-\(queue.queueID) could not be cut, it begins at \(offset) all the \
                same: \(error)
                """
            )
            queue.edits = nil
            queue.reset(minimum: offset, maximum: offset, written: offset)
        }
    }
}
