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
        guard isReplay else {
            if canBeGap(before: entry, at: offset, queue) {
                moveEnd(of: queue, to: offset)
            } else {
                jump(queue, to: offset)
            }
            return true
        }
        if let earlier = waiting.removeValue(forKey: ObjectIdentifier(queue)) {
            decide(earlier, next: offset)
            if queue.maxOffset == offset { return true }
        }
        let maximum = queue.maxOffset
        // A queue's first message; a topic of one message made again, whose next message would refute this one.
        if (maximum.rawValue == 0 && queue.lastFile < queue.firstFile)
            || (offset.rawValue == 0 && maximum.rawValue == 1)
        {
            moveEnd(of: queue, to: offset)
            return true
        }
        waiting[ObjectIdentifier(queue)] = WaitingRecord(queue: queue, entry: entry, offset: offset, maximum: maximum)
        return false
    }

    /// Whether the entries the queue lacks may be filled with blanks, of which a master's wrong numbers could else ask
    /// for any count. Messages that are missing have lain between the queue's last one and this one.
    private func canBeGap(before entry: ConsumeQueueEntry, at offset: QueueOffset, _ queue: ConsumeQueue) -> Bool {
        let count = offset - queue.maxOffset
        guard count > 0, !queue.isEmpty, count <= queue.entriesPerFile else { return true }
        let room = (entry.physicalOffset - queue.lastPhysicalOffset) / Int64(CommitLogRecord.minimumSize)
        guard count <= max(room, Self.smallGap), count <= blanksLeft else { return false }
        blanksLeft -= count
        return true
    }

    /// Entries of a gap that is believed however little of the log lies in it.
    private static var smallGap: Int64 { 4096 }
    /// Blank entries one tick adds at most, 20 bytes each.
    static var blanksPerTick: Int64 { 1 << 20 }

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
        for record in waiting.values {
            if record.queue.maxOffset == record.maximum, record.isLikely {
                accept(record)
            } else {
                drop(record)
            }
        }
        waiting = [:]
        applyWaitingEdits()
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
        } else if offset - maximum > queue.entriesPerFile {
            jump(queue, to: offset)
        } else {
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
