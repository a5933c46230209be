import LinuxSystem
import Logging
import StoreFormat

/// The consume queues' files, `consumequeue/TOPIC/QUEUE/OFFSET`: written behind, in batches, by `pwrite` into sparse
/// files of full length.
final class ConsumeQueueFiles {
    /// A file kept open for its queue.
    final class OpenFile {
        let number: Int64
        let file: any DiskFile

        init(number: Int64, file: any DiskFile) {
            self.number = number
            self.file = file
        }
    }

    let directory: String
    let disk: any Disk
    let fileBytes: Int64
    private let maximumOpen: Int
    /// Queues with an open file, oldest first; a ring so that closing the oldest is cheap.
    private var open: [ConsumeQueue] = []
    private var nextToClose = 0
    /// Files written since the last checkpoint, by path; nil when there were too many to remember.
    private var touched: [String: any DiskFile]? = [:]
    private let maximumTouched = 256
    var scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 16_000, alignment: 16)
    /// Entries copied at once to put edits into them.
    private static let editedMax = 800
    private var presentEntries = GrowableBytes()

    init(directory: String, disk: any Disk, entriesPerFile: Int, maximumOpen: Int = 256) {
        self.directory = directory
        self.disk = disk
        fileBytes = Int64(entriesPerFile) * Int64(ConsumeQueueEntry.size)
        self.maximumOpen = maximumOpen
    }

    deinit {
        scratch.deallocate()
        presentEntries.deallocate()
    }

    func queuePath(_ queue: ConsumeQueue) -> String { "\(directory)/\(queue.topic)/\(queue.queueID)" }

    func path(_ queue: ConsumeQueue, _ number: Int64) -> String {
        queuePath(queue) + "/" + StoreFileName.of(offset: number * fileBytes)
    }

    // MARK: - Writing

    /// Writes the entries that are only in memory.
    func write(_ queue: ConsumeQueue) throws(SystemError) {
        while queue.writtenOffset < queue.maxOffset {
            let start = queue.writtenOffset
            let number = queue.fileNumber(of: start)
            let end = min(queue.maxOffset, queue.firstOffset(ofFile: number + 1))
            guard let bytes = queue.tailBytes(from: start, count: Int(end - start)) else {
                fatalError("entries of \(queue.topic)-\(queue.queueID) left memory before they were written")
            }
            let file = try self.file(queue, number, forWriting: true)
            try file.write(bytes, at: queue.filePosition(of: start))
            touch(file)
            queue.writtenOffset = end
        }
    }

    /// Replaces one entry that is in a file.
    func overwrite(_ queue: ConsumeQueue, at offset: QueueOffset, _ entry: ConsumeQueueEntry) throws(SystemError) {
        let number = queue.fileNumber(of: offset)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: scratch[0..<ConsumeQueueEntry.size])
        guard offset < queue.writtenOffset, let base = bytes.baseAddress else { return }
        entry.encode(base)
        let file = try self.file(queue, number, forWriting: true)
        try file.write(UnsafeRawBufferPointer(bytes), at: queue.filePosition(of: offset))
        touch(file)
    }

    func touch(_ file: any DiskFile) {
        touched?[file.path] = file
        if let count = touched?.count, count > maximumTouched { touched = nil }
    }

    /// The next checkpoint synchronizes the whole filesystem.
    func touchEverything() { touched = nil }

    /// What to synchronize for a checkpoint: these files, or the whole filesystem when nil.
    func takeTouched() -> [any DiskFile]? {
        let files = touched.map { Array($0.values) }
        touched = [:]
        return files
    }

    func file(_ queue: ConsumeQueue, _ number: Int64, forWriting: Bool) throws(SystemError) -> any DiskFile {
        if let open = queue.openFile, open.number == number { return open.file }
        let path = path(queue, number)
        let file: any DiskFile
        if number > queue.lastFile || queue.lastFile < queue.firstFile {
            guard forWriting else { return try disk.open(path, .read) }
            let isFirst = queue.lastFile < queue.firstFile
            file = try Self.make(
                path, folder: queuePath(queue), bytes: fileBytes,
                blanks: isFirst ? queue.writtenOffset - queue.firstOffset(ofFile: number) : 0, disk: disk)
            if isFirst { queue.firstFile = number }
            queue.lastFile = number
        } else {
            file = try disk.open(path, .readWrite)
        }
        keepOpen(queue, OpenFile(number: number, file: file))
        return file
    }

    func keepOpen(_ queue: ConsumeQueue, _ file: OpenFile) {
        let wasOpen = queue.openFile != nil
        queue.openFile = file
        if wasOpen { return }
        if open.count < maximumOpen {
            open.append(queue)
        } else {
            open[nextToClose].openFile = nil
            open[nextToClose] = queue
            nextToClose = (nextToClose + 1) % maximumOpen
        }
    }

    func close(_ queue: ConsumeQueue) {
        queue.openFile = nil
        if let index = open.firstIndex(where: { $0 === queue }) {
            open.remove(at: index)
            nextToClose = 0
        }
    }

    // MARK: - Reading

    /// Entries from `start` on, up to `count` and up to the end of the file they begin in. The pointer is valid until
    /// the next call. `start` lies in the queue's range.
    @inline(__always)
    func read(_ queue: ConsumeQueue, from start: QueueOffset, count: Int) throws(SystemError) -> UnsafeRawBufferPointer
    {
        let available = Int(min(Int64(count), queue.maxOffset - start))
        if let bytes = queue.tailBytes(from: start, count: available) { return bytes }
        return try readFile(queue, from: start, count: available)
    }

    /// As `read`, with the records that stand for edited messages, and `ConsumeQueueEntry.deleted` for deleted ones.
    /// Those are not in the order of the log: searches in a queue use `read`.
    @inline(__always)
    func readPresent(
        _ queue: ConsumeQueue, from start: QueueOffset, count: Int
    ) throws(SystemError) -> UnsafeRawBufferPointer {
        let bytes = try read(queue, from: start, count: count)
        guard let edits = queue.edits else { return bytes }
        return edited(bytes, from: start, edits)
    }

    @inline(never)
    private func edited(
        _ bytes: UnsafeRawBufferPointer, from start: QueueOffset, _ edits: QueueEdits
    ) -> UnsafeRawBufferPointer {
        let count = bytes.count / ConsumeQueueEntry.size
        guard edits.hasAny(start..<start + count) else { return bytes }
        // The others come with the next call: a copy of a long tail would take long.
        let part = UnsafeRawBufferPointer(rebasing: bytes.prefix(min(count, Self.editedMax) * ConsumeQueueEntry.size))
        presentEntries.removeAll()
        presentEntries.append(part)
        edits.put(into: presentEntries.extend(0) - part.count, from: start, count: part.count / ConsumeQueueEntry.size)
        return presentEntries.bytes
    }

    func readFile(_ queue: ConsumeQueue, from start: QueueOffset, count: Int) throws(SystemError)
        -> UnsafeRawBufferPointer
    {
        let number = queue.fileNumber(of: start)
        let size = ConsumeQueueEntry.size
        let inFile = min(Int64(count), queue.writtenOffset - start, queue.firstOffset(ofFile: number + 1) - start)
        let wanted = min(Int(inFile) * size, scratch.count / size * size)
        guard wanted > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let file = try self.file(queue, number, forWriting: false)
        let target = UnsafeMutableRawBufferPointer(rebasing: scratch[0..<wanted])
        let got = try file.read(into: target, at: queue.filePosition(of: start))
        return UnsafeRawBufferPointer(rebasing: scratch[0..<(got / size * size)])
    }

    func entry(_ queue: ConsumeQueue, at offset: QueueOffset) throws(SystemError) -> ConsumeQueueEntry? {
        guard offset >= queue.minOffset, offset < queue.maxOffset else { return nil }
        return try rawEntry(queue, at: offset)
    }

    func rawEntry(_ queue: ConsumeQueue, at offset: QueueOffset) throws(SystemError) -> ConsumeQueueEntry? {
        let bytes = try read(queue, from: offset, count: 1)
        guard bytes.count >= ConsumeQueueEntry.size, let base = bytes.baseAddress else { return nil }
        return ConsumeQueueEntry(base)
    }

    // MARK: - Shortening

    /// Behind the last entry that points below `physical`. Sought from the queue's end, which is near: a damaged entry
    /// further up does not take those after it along.
    func endOfEntries(_ queue: ConsumeQueue, below physical: PhysicalOffset) throws(SystemError) -> QueueOffset {
        var end = queue.maxOffset
        while end > queue.minOffset, let entry = try rawEntry(queue, at: end - 1),
            entry == .preBlank || entry.physicalOffset >= physical
        {
            end = end - 1
        }
        return end
    }

    /// Cuts the entries from `offset` on, in memory and on disk.
    func cut(_ queue: ConsumeQueue, to offset: QueueOffset) throws(SystemError) {
        let written = queue.writtenOffset
        queue.generation += 1
        queue.cut(to: offset)
        if offset < written, queue.lastFile >= queue.firstFile { try discard(queue, from: offset, always: true) }
        let last = try entry(queue, at: offset - 1)
        queue.lastPhysicalOffset = last.flatMap { $0 == .preBlank ? nil : $0.physicalOffset } ?? PhysicalOffset(-1)
    }

    // MARK: - Retention

    /// The first entry that points at or after `physical`, by binary search; the queue's end when none does. Places
    /// that point at nothing count as their successor does. A damaged entry the search meets is seen by what lies
    /// beyond it and does not mislead it.
    func firstEntry(_ queue: ConsumeQueue, atOrAfter physical: PhysicalOffset) throws(SystemError) -> QueueOffset {
        var low = queue.minOffset
        var high = queue.maxOffset
        while true {
            let found = try firstEntry(queue, atOrAfter: physical, from: low, to: high)
            if found - 2 >= low, let earlier = try pointer(queue, at: found - 2), earlier >= physical {
                high = found - 2
            } else if found + 1 < high, let later = try pointer(queue, at: found + 1), later < physical {
                low = found + 1
            } else {
                return found
            }
        }
    }

    private func firstEntry(
        _ queue: ConsumeQueue, atOrAfter physical: PhysicalOffset, from start: QueueOffset, to end: QueueOffset
    ) throws(SystemError) -> QueueOffset {
        var low = start
        var high = end
        while low < high {
            let middle = low + (high - low) / 2
            var real = middle
            var place = try pointer(queue, at: real)
            while place == nil, real + 1 < high {
                real += 1
                place = try pointer(queue, at: real)
            }
            if let place, place >= physical {
                if real > middle, middle == low { return real }
                high = middle
            } else {
                low = real + 1
            }
        }
        return low
    }

    /// Where the entry's record begins; nil when it points at nothing.
    private func pointer(_ queue: ConsumeQueue, at offset: QueueOffset) throws(SystemError) -> PhysicalOffset? {
        guard let entry = try rawEntry(queue, at: offset), entry != .preBlank else { return nil }
        return entry.physicalOffset
    }

    /// Moves the queue's beginning after messages that are no longer in the log, deletes files that hold nothing else
    /// (`deleteExpiredFile`, `correctMinOffset`). The file with the queue's end stays, so that its offsets go on.
    func expire(_ queue: ConsumeQueue, before physical: PhysicalOffset) throws(SystemError) {
        guard !queue.isEmpty, queue.firstPhysicalOffset < physical || queue.firstPhysicalOffset.rawValue == 0 else {
            return
        }
        let minimum = try firstEntry(queue, atOrAfter: physical)
        queue.minOffset = minimum
        queue.firstPhysicalOffset = try rawEntryIfAny(queue, minimum)
        let firstNeeded = queue.fileNumber(of: minimum)
        while queue.firstFile < firstNeeded, queue.firstFile < queue.lastFile {
            if queue.openFile?.number == queue.firstFile { close(queue) }
            try disk.remove(path(queue, queue.firstFile))
            queue.firstFile += 1
        }
    }

    private func rawEntryIfAny(_ queue: ConsumeQueue, _ offset: QueueOffset) throws(SystemError) -> PhysicalOffset {
        try entry(queue, at: offset)?.physicalOffset ?? PhysicalOffset(0)
    }

    /// Deletes the queue's files; the queue goes on.
    func clear(_ queue: ConsumeQueue) throws(SystemError) {
        close(queue)
        queue.generation += 1
        let folder = queuePath(queue)
        for name in try disk.list(folder) { try disk.remove(folder + "/" + name) }
        queue.firstFile = 0
        queue.lastFile = -1
    }

    /// Deletes the queue's files and folder.
    func remove(_ queue: ConsumeQueue) throws(SystemError) {
        close(queue)
        queue.isRemoved = true
        let folder = queuePath(queue)
        for name in try disk.list(folder) { try disk.remove(folder + "/" + name) }
        try disk.remove(folder)
        if try disk.list("\(directory)/\(queue.topic)").isEmpty { try disk.remove("\(directory)/\(queue.topic)") }
    }
}
