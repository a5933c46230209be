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

    /// Messages by their offset divided by `blockSize`, in each block ascending: an edit moves a block's messages at
    /// most, however many there are.
    typealias Blocks = [Int64: [Message]]
    static let blockSize: Int64 = 512

    private(set) var blocks: Blocks = [:]
    /// Messages with former versions, some of which may be gone by now.
    private var withFormer: [QueueOffset] = []
    /// Versions in here.
    private var count = 0
    private let total: EditTotal

    init(_ total: EditTotal) { self.total = total }

    deinit {
        total.versions -= count
        total.changes += 1
    }

    var isEmpty: Bool { blocks.isEmpty }

    /// By offset, ascending: what the file holds.
    static func messages(_ blocks: Blocks) -> [Message] { blocks.keys.sorted().flatMap { blocks[$0] ?? [] } }

    @inline(__always)
    private static func block(of offset: QueueOffset) -> Int64 { offset.rawValue / blockSize }

    /// The first message at or behind an offset.
    @inline(__always)
    private static func index(from offset: QueueOffset, _ messages: [Message]) -> Int {
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
        guard let messages = blocks[Self.block(of: offset)] else { return nil }
        let place = Self.index(from: offset, messages)
        return place < messages.count && messages[place].offset == offset ? messages[place].present : nil
    }

    /// The blocks of a range that have messages, in no order.
    @inline(__always)
    private func forEachBlock(_ range: Range<QueueOffset>, _ body: ([Message]) -> Bool) {
        guard !range.isEmpty else { return }
        let numbers = Self.block(of: range.lowerBound)...Self.block(of: range.upperBound - 1)
        if numbers.count <= blocks.count {
            for number in numbers { if let messages = blocks[number], !body(messages) { return } }
        } else {
            for (number, messages) in blocks where numbers.contains(number) { if !body(messages) { return } }
        }
    }

    func hasAny(_ range: Range<QueueOffset>) -> Bool {
        var has = false
        forEachBlock(range) { messages in
            let place = Self.index(from: range.lowerBound, messages)
            has = place < messages.count && messages[place].offset < range.upperBound
            return !has
        }
        return has
    }

    /// Puts what stands for messages into `count` encoded entries, of which the first is that at `start`.
    func put(into entries: UnsafeMutableRawPointer, from start: QueueOffset, count: Int) {
        forEachBlock(start..<start + count) { messages in
            var place = Self.index(from: start, messages)
            while place < messages.count, messages[place].offset < start + count {
                let position = Int(messages[place].offset - start)
                messages[place].present.entry.encode(entries + position * ConsumeQueueEntry.size)
                place += 1
            }
            return true
        }
    }

    /// A version stands for the message from here on, unless one at least as new does: a replay meets versions again.
    /// - Returns: whether it does.
    func add(_ version: Version, at offset: QueueOffset) -> Bool {
        let number = Self.block(of: offset)
        let place = Self.index(from: offset, blocks[number] ?? [])
        if let messages = blocks[number], place < messages.count, messages[place].offset == offset {
            let present = messages[place].present
            guard present.physicalOffset < version.physicalOffset else { return false }
            if messages[place].former.isEmpty { withFormer.append(offset) }
            blocks[number]?[place].former.append(present)
            blocks[number]?[place].present = version
        } else {
            blocks[number, default: []].insert(Message(offset: offset, present: version), at: place)
        }
        change(by: 1)
        return true
    }

    private func change(by versions: Int) {
        count += versions
        total.versions += versions
        total.changes += 1
    }

    /// Forgets what a version below `flushed` has replaced: no power cut takes that version back.
    func removeFormer(below flushed: PhysicalOffset) {
        guard !withFormer.isEmpty else { return }
        withFormer.removeAll { offset in
            let number = Self.block(of: offset)
            guard var messages = blocks[number] else { return true }
            let place = Self.index(from: offset, messages)
            guard place < messages.count, messages[place].offset == offset else { return true }
            let before = messages[place].former.count
            if messages[place].present.end <= flushed {
                messages[place].former = []
            } else if let last = messages[place].former.lastIndex(where: { $0.end <= flushed }) {
                messages[place].former.removeFirst(last)
            }
            let left = messages[place].former.count
            guard left < before else { return left == 0 }
            blocks[number] = messages
            count -= before - left
            total.versions -= before - left
            return left == 0
        }
    }

    /// Forgets the messages below `minimum`.
    func remove(below minimum: QueueOffset) { remove { $0 < minimum } }

    /// Forgets the messages from `maximum` on.
    func remove(from maximum: QueueOffset) { remove { $0 >= maximum } }

    private func remove(where isGone: (QueueOffset) -> Bool) {
        var gone = 0
        for (number, messages) in blocks {
            guard let first = messages.first, let last = messages.last, isGone(first.offset) || isGone(last.offset)
            else { continue }
            let left = messages.filter { !isGone($0.offset) }
            gone += messages.reduce(0) { $0 + 1 + $1.former.count } - left.reduce(0) { $0 + 1 + $1.former.count }
            blocks[number] = left.isEmpty ? nil : left
        }
        if gone > 0 { change(by: -gone) }
    }
}
