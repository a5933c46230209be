import LinuxSystem
import Logging
import StoreFormat

/// A record that does not continue its queue, met in a replay. No checksum covers a record's queue id and queue offset,
/// so the queue's next record decides whether the queue really goes on there.
struct WaitingRecord {
    let queue: ConsumeQueue
    let entry: ConsumeQueueEntry
    /// The queue offset in the record.
    let offset: Int64
    /// The queue's end when it was met.
    let maximum: Int64

    /// What the queue's next record tells of it. A single wrong number is skipped: the queue goes on as if it did not
    /// exist, or lacks its one entry. A queue that began again, or lacks what was damaged, goes on behind it.
    func isRefuted(by next: Int64) -> Bool {
        next <= offset || (offset < maximum && next > maximum)
    }

    /// Whether it is trusted though its queue has no further record. Its message may have been acknowledged. What
    /// happens in order is: a topic made again, entries missing because their messages are damaged, a queue whose
    /// newest file was deleted. Anything else would take the queue's other messages with it.
    var isLikely: Bool {
        if offset > maximum { return offset - maximum <= queue.entriesPerFile }
        return offset % queue.entriesPerFile == 0
    }
}

extension MessageStore {
    /// Decides about an entry whose offset is not its queue's end, seen only in replay and replication. True: the queue
    /// has been made to end there. False: it is in the queue already, cannot be, or waits for the queue's next record.
    func preparePut(
        _ entry: ConsumeQueueEntry, at offset: Int64, _ queue: ConsumeQueue, isReplay: Bool
    ) -> Bool {
        guard (0..<ConsumeQueueEntry.queueOffsetLimit).contains(offset) else {
            logger.error("message at \(entry.physicalOffset) has queue offset \(offset): it is in no queue")
            return false
        }
        // Nothing newer than the queue's last message can be in it already; an older one is.
        if !queue.isEmpty, entry.physicalOffset <= queue.lastPhysicalOffset { return false }
        guard isReplay else {
            moveEnd(of: queue, to: offset)
            return true
        }
        if let earlier = waiting.removeValue(forKey: ObjectIdentifier(queue)) {
            decide(earlier, next: offset)
            if queue.maxOffset.rawValue == offset { return true }
        }
        let maximum = queue.maxOffset.rawValue
        // A queue's first message; a topic of one message made again, whose next message would refute this one.
        if (maximum == 0 && queue.lastFile < queue.firstFile) || (offset == 0 && maximum == 1) {
            moveEnd(of: queue, to: offset)
            return true
        }
        waiting[ObjectIdentifier(queue)] = WaitingRecord(queue: queue, entry: entry, offset: offset, maximum: maximum)
        return false
    }

    private func decide(_ record: WaitingRecord, next: Int64) {
        let maximum = record.queue.maxOffset.rawValue
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
            if record.queue.maxOffset.rawValue == record.maximum, record.isLikely {
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
            "message at \(record.entry.physicalOffset) says it is number \(record.offset) of the queue \(record.queue.topic)-\(record.queue.queueId), which was at \(record.maximum) and does not go on there: it is in no queue"
        )
    }

    private func moveEnd(of queue: ConsumeQueue, to offset: Int64) {
        let name = "\(queue.topic)-\(queue.queueId)"
        let maximum = queue.maxOffset.rawValue
        if offset < maximum {
            // The topic was deleted and made again: its offsets began anew.
            logger.notice("queue \(name) begins again at \(offset), it was at \(maximum)")
            restart(queue, at: offset)
        } else if maximum == 0, queue.lastFile < queue.firstFile {
            queue.reset(minimum: offset, maximum: offset, written: offset)
        } else if offset - maximum > queue.entriesPerFile {
            logger.error("queue \(name) jumps from \(maximum) to \(offset): it begins again there")
            restart(queue, at: offset)
        } else {
            logger.error(
                "queue \(name) lacks the entries \(maximum) to \(offset - 1): their messages are not in the log")
            while queue.maxOffset.rawValue < offset { queue.add(.preBlank) }
        }
    }

    private func restart(_ queue: ConsumeQueue, at offset: Int64) {
        do throws(SystemError) {
            if offset > queue.minOffset.rawValue, offset < queue.maxOffset.rawValue {
                try queueFiles.cut(queue, to: offset)
            } else {
                try queueFiles.clear(queue)
                queue.reset(minimum: offset, maximum: offset, written: offset)
            }
        } catch {
            logger.error("cutting the queue \(queue.topic)-\(queue.queueId) failed: \(error)")
            queue.reset(minimum: offset, maximum: offset, written: offset)
        }
    }
}
