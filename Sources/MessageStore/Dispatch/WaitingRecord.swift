import StoreFormat

/// A record that does not continue its queue, met in a replay. No checksum covers a record's queue id and queue offset,
/// so the queue's next record decides whether the queue really goes on there.
struct WaitingRecord {
    let queue: ConsumeQueue
    let entry: ConsumeQueueEntry
    /// The queue offset in the record.
    let offset: QueueOffset
    /// The queue's end when it was met.
    let maximum: QueueOffset

    /// What the queue's next record shows of it. A single wrong number is skipped: the queue goes on as if it did not
    /// exist, or lacks its one entry. A queue that began again, or lacks what was damaged, goes on after it.
    func isRefuted(by next: QueueOffset) -> Bool {
        next <= offset || (offset < maximum && next > maximum)
    }

    /// Whether it is trusted though its queue has no further record. Its message may have been acknowledged. What
    /// happens in order is: a topic made again, entries missing because their messages are damaged, a queue whose
    /// newest file was deleted. Anything else would take the queue's other messages with it.
    var isLikely: Bool {
        if offset > maximum { return offset - maximum <= queue.entriesPerFile }
        return offset.rawValue % queue.entriesPerFile == 0
    }
}
