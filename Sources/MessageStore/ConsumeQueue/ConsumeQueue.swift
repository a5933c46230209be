package import StoreFormat

/// One queue of one topic: the positions of its messages in the log. Owned by a `MessageStore` and confined to its
/// thread.
///
/// Its newest entries are in memory (`tail`, encoded as on disk); `ConsumeQueueFiles` writes them behind and reads the
/// older ones.
package final class ConsumeQueue {
    /// The topic's name.
    package var topic: String { storedTopic.name }
    /// From 0 on.
    package let queueID: Int32
    /// Set while the owner waits for messages of this queue; `StoreEvents.arrival` is called only then.
    package var wantsArrival = false
    /// For the owner of the store: its suspended pulls.
    package var context: AnyObject?

    /// First readable entry.
    package internal(set) var minOffset = QueueOffset(0)
    /// Behind the last readable entry.
    package internal(set) var maxOffset = QueueOffset(0)

    let storedTopic: StoredTopic
    let entriesPerFile: Int64

    /// The offset the next appended message gets: ahead of `maxOffset` by what waits for `commitTick`.
    var nextOffset = QueueOffset(0)
    /// `nextOffset` before tick `tickNumber`'s first message.
    var rollbackOffset = QueueOffset(0)
    var tickNumber: UInt64 = 0

    /// Physical offset of entry `minOffset`, 0 when unknown: retention skips queues that begin late enough.
    var firstPhysicalOffset = PhysicalOffset(0)

    /// Of the newest entry's record, -1 when there is none: what is not newer is in the queue already.
    var lastPhysicalOffset = PhysicalOffset(-1)

    /// Entries below are in the files.
    var writtenOffset = QueueOffset(0)
    var isDirty = false
    /// Counts how often its files were cut or deleted, so that a file that is being made for it can become useless.
    var generation = 0
    /// Numbers of the first and last existing file (`entry / entriesPerFile`); `lastFile < firstFile` when there is
    /// none.
    var firstFile: Int64 = 0
    var lastFile: Int64 = -1
    /// The file used last, kept open by `ConsumeQueueFiles`.
    var openFile: ConsumeQueueFiles.OpenFile?
    /// Removed from the store: an object that is still referred to must not be written.
    package internal(set) var isRemoved = false

    /// Which records stand for its edited messages; nil in nearly all queues.
    var edits: QueueEdits? {
        didSet { editChanges += 1 }
    }
    /// Changes whenever another record may stand for a message than before: what was read from the queue and kept is
    /// of no use then.
    package internal(set) var editChanges = 0

    /// Entries `tailStart ..< maxOffset`, 20 bytes each.
    private(set) var tailStart = QueueOffset(0)
    private var tail: UnsafeMutableRawPointer?
    private var tailCapacity = 0

    init(topic: StoredTopic, queueID: Int32, entriesPerFile: Int) {
        storedTopic = topic
        self.queueID = queueID
        self.entriesPerFile = Int64(entriesPerFile)
    }

    deinit {
        tail?.deallocate()
    }

    /// Adds the entry `maxOffset`.
    @inline(__always)
    func add(_ entry: ConsumeQueueEntry) {
        let position = Int(maxOffset - tailStart)
        if position >= tailCapacity { makeRoom() }
        guard let tail else { fatalError("the tail of \(topic)-\(queueID) has no memory") }
        entry.encode(tail + Int(maxOffset - tailStart) * ConsumeQueueEntry.size)
        if maxOffset == minOffset { firstPhysicalOffset = entry.physicalOffset }
        maxOffset += 1
    }

    private func makeRoom() {
        let count = Int(maxOffset - tailStart)
        if tail == nil {
            tailStart = maxOffset
            tailCapacity = 8
            tail = .allocate(byteCount: tailCapacity * ConsumeQueueEntry.size, alignment: 8)
            return
        }
        // What is in the files may go once the tail is large: keep a quarter for the consumers that follow closely.
        let droppable = Int(min(writtenOffset, maxOffset - Int64(tailCapacity / 4)) - tailStart)
        if tailCapacity >= 256, droppable >= tailCapacity / 4, let tail {
            tail.copyMemory(
                from: tail + droppable * ConsumeQueueEntry.size, byteCount: (count - droppable) * ConsumeQueueEntry.size
            )
            tailStart += Int64(droppable)
            return
        }
        let capacity = tailCapacity * 2
        let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity * ConsumeQueueEntry.size, alignment: 8)
        if let tail {
            larger.copyMemory(from: tail, byteCount: count * ConsumeQueueEntry.size)
            tail.deallocate()
        }
        tail = larger
        tailCapacity = capacity
    }

    /// The entries of `range` that are in memory: a suffix of it. The pointer is valid until the queue changes.
    @inline(__always)
    func tailBytes(from start: QueueOffset, count: Int) -> UnsafeRawBufferPointer? {
        guard start >= tailStart, let tail, start + count <= maxOffset else { return nil }
        return UnsafeRawBufferPointer(
            start: tail + Int(start - tailStart) * ConsumeQueueEntry.size, count: count * ConsumeQueueEntry.size)
    }

    /// Releases the tail's memory once all of it is in the files.
    func releaseTail() {
        guard writtenOffset == maxOffset, let tail else { return }
        tail.deallocate()
        self.tail = nil
        tailCapacity = 0
        tailStart = maxOffset
    }

    /// The queue as found in its files, or emptied to begin again at `maximum`.
    func reset(minimum: QueueOffset, maximum: QueueOffset, written: QueueOffset) {
        tail?.deallocate()
        tail = nil
        tailCapacity = 0
        tailStart = maximum
        minOffset = minimum
        maxOffset = maximum
        nextOffset = maximum
        writtenOffset = written
    }

    /// Forgets the entries from `maximum` on.
    func cut(to maximum: QueueOffset) {
        removeEdits(from: maximum)
        maxOffset = maximum
        nextOffset = maximum
        writtenOffset = min(writtenOffset, maximum)
        if minOffset > maximum { minOffset = maximum }
        if tailStart > maximum { reset(minimum: minOffset, maximum: maximum, written: writtenOffset) }
    }

    /// What stood for messages from `maximum` on.
    private func removeEdits(from maximum: QueueOffset) {
        guard let edits else { return }
        edits.remove(from: maximum)
        if edits.isEmpty { self.edits = nil } else { editChanges += 1 }
    }

    /// What stands for messages that have expired.
    func removeExpiredEdits() {
        guard let edits else { return }
        edits.remove(below: minOffset)
        if edits.isEmpty { self.edits = nil }
    }

    /// Number of the file the entry lies in.
    @inline(__always)
    func fileNumber(of offset: QueueOffset) -> Int64 { offset.rawValue / entriesPerFile }

    /// The first entry of a file.
    @inline(__always)
    func firstOffset(ofFile number: Int64) -> QueueOffset { QueueOffset(number * entriesPerFile) }

    /// Where the entry lies in its file, bytes.
    @inline(__always)
    func filePosition(of offset: QueueOffset) -> Int64 {
        offset.rawValue % entriesPerFile * Int64(ConsumeQueueEntry.size)
    }

    var isEmpty: Bool { minOffset >= maxOffset }
}
