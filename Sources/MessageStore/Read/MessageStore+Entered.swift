package import LinuxSystem
package import StoreFormat

/// What a queue was given when its messages were stored, whatever edits have made of them. Code that decides which part
/// of the log is still needed asks this. A failed read is an error here, and never "nothing".
extension MessageStore {
    /// Where the record lies that was stored for an offset of a queue, also if the message was edited or deleted since.
    /// What stands for it now lies behind it. On the store's thread.
    /// - Returns: nil when the queue does not hold the offset (any more).
    /// - Throws: the queue could not be read.
    package func enteredAt(
        _ queue: ConsumeQueue, _ offset: QueueOffset
    ) throws(SystemError) -> PhysicalOffset? {
        guard let entry = try queueFiles.entry(queue, at: offset), !entry.isEmpty, entry != .preBlank else {
            return nil
        }
        return entry.physicalOffset
    }

    /// The first offset of a queue whose message was stored at `time` (milliseconds since 1970) or later; the queue's
    /// end when all are older. One whose entry or record should be there and cannot be read counts as young. Reads
    /// about 20 entries and as many records. On the store's thread.
    /// - Throws: the queue could not be read.
    package func firstOffset(_ queue: ConsumeQueue, storedSince time: Int64) throws(SystemError) -> QueueOffset {
        var low = queue.minOffset
        var high = queue.maxOffset
        while low < high {
            let middle = low + (high - low) / 2
            let isOlder: Bool
            if let physical = try enteredAt(queue, middle) {
                let record = physical >= minPhysicalOffset ? recordAt(physical) : nil
                isOlder = physical < minPhysicalOffset || record.map { !$0.isBlank && $0.storeTimestamp < time } == true
            } else {
                isOlder = false
            }
            if isOlder { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
