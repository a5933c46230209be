import StoreFormat

/// Counts versions of edited messages over all queues, and how often they have changed. Confined to the store's thread.
final class EditTotal {
    /// Versions kept at most: each takes some 100 bytes, and a part of the file that is written with them.
    static let versionsMax = 100_000

    var versionsMax = EditTotal.versionsMax
    /// Versions kept.
    fileprivate(set) var versions = 0
    /// Grows with each change.
    fileprivate(set) var changes: Int64 = 0

    /// What is in the file is of no use any more.
    func noteChange() { changes += 1 }
}

/// Which records stand for the edited messages of one queue. The queue's own entries stay as they are: searches by time
/// and by physical offset, retention, recovery and the background check count on their order. Confined to the store's
/// thread.
final class QueueEdits {
    /// A newer version of a message, or the mark that it is deleted.
    struct Version: Equatable {
        let physicalOffset: PhysicalOffset
        /// Bytes.
        let recordSize: Int32
        let tagsCode: Int64
        let isDeleted: Bool

        var end: PhysicalOffset { physicalOffset + Int64(recordSize) }

        /// What readers of the queue get.
        var entry: ConsumeQueueEntry {
            isDeleted
                ? .deleted
                : ConsumeQueueEntry(physicalOffset: physicalOffset, recordSize: recordSize, tagsCode: tagsCode)
        }
    }

    /// A message of the queue that was edited.
    struct Message {
        let offset: QueueOffset
        var present: Version
        /// What stands for the message again when a power cut takes back what is newer; oldest first.
        var former: [Version] = []
    }

    /// By offset, ascending.
    private(set) var messages: [Message] = []
    private let total: EditTotal

    init(_ total: EditTotal) { self.total = total }

    deinit {
        total.versions -= messages.reduce(0) { $0 + 1 + $1.former.count }
        total.changes += 1
    }

    var isEmpty: Bool { messages.isEmpty }

    /// The first message at or behind an offset.
    @inline(__always)
    private func index(from offset: QueueOffset) -> Int {
        var low = 0
        var high = messages.count
        while low < high {
            let middle = low + (high - low) / 2
            if messages[middle].offset < offset { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The version that stands for the message at an offset; nil when it was never edited.
    subscript(offset: QueueOffset) -> Version? {
        let place = index(from: offset)
        return place < messages.count && messages[place].offset == offset ? messages[place].present : nil
    }

    func hasAny(_ range: Range<QueueOffset>) -> Bool {
        let place = index(from: range.lowerBound)
        return place < messages.count && messages[place].offset < range.upperBound
    }

    /// Puts what stands for messages into `count` encoded entries, of which the first is that at `start`.
    func put(into entries: UnsafeMutableRawPointer, from start: QueueOffset, count: Int) {
        var place = index(from: start)
        while place < messages.count, messages[place].offset < start + count {
            let position = Int(messages[place].offset - start)
            messages[place].present.entry.encode(entries + position * ConsumeQueueEntry.size)
            place += 1
        }
    }

    /// A version stands for the message from here on, unless one at least as new does: a replay meets versions again.
    /// - Returns: whether it does.
    func add(_ version: Version, at offset: QueueOffset) -> Bool {
        let place = index(from: offset)
        if place < messages.count, messages[place].offset == offset {
            guard messages[place].present.physicalOffset < version.physicalOffset else { return false }
            messages[place].former.append(messages[place].present)
            messages[place].present = version
        } else {
            messages.insert(Message(offset: offset, present: version), at: place)
        }
        total.versions += 1
        total.changes += 1
        return true
    }

    /// Forgets what a version below `flushed` has replaced: no power cut takes that version back.
    func removeFormer(below flushed: PhysicalOffset) {
        for place in messages.indices where !messages[place].former.isEmpty {
            let before = messages[place].former.count
            if messages[place].present.end <= flushed {
                messages[place].former = []
            } else if let last = messages[place].former.lastIndex(where: { $0.end <= flushed }) {
                messages[place].former.removeFirst(last)
            }
            total.versions -= before - messages[place].former.count
        }
    }

    /// Forgets the messages below `minimum`.
    func remove(below minimum: QueueOffset) { remove(0..<index(from: minimum)) }

    /// Forgets the messages from `maximum` on.
    func remove(from maximum: QueueOffset) { remove(index(from: maximum)..<messages.count) }

    private func remove(_ range: Range<Int>) {
        guard !range.isEmpty else { return }
        total.versions -= messages[range].reduce(0) { $0 + 1 + $1.former.count }
        total.changes += 1
        messages.removeSubrange(range)
    }
}
