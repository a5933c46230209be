import LinuxSystem
import MessageModel
import StoreFormat

/// Finding out at the start what the queues' files hold. There may be 100 000 of them. Each costs one look into its
/// folder, one file opened, and one read of the block where its data ends.
extension ConsumeQueueFiles {
    /// A folder of one queue.
    struct QueueFolder {
        let topic: TopicName
        let queueID: Int32
    }

    /// Every queue folder there is.
    /// - Parameter odd: gets the names of folders that are no topic's and so left alone.
    func folders(odd: (NameError) -> Void) throws(SystemError) -> [QueueFolder] {
        var found: [QueueFolder] = []
        for folder in try disk.list(directory) where !folder.hasPrefix(".") {
            let topic: TopicName
            do throws(NameError) {
                topic = try TopicName(existing: folder)
            } catch {
                odd(error)
                continue
            }
            for name in try disk.list(directory + "/" + topic.text) {
                guard let queueID = Int32(name), queueID >= 0 else { continue }
                found.append(QueueFolder(topic: topic, queueID: queueID))
            }
        }
        return found
    }

    /// Finds the files of a queue and its range of entries, trusting only entries whose record begins below `trusted`.
    /// What lies after that range is removed from the disk, so that it can never come back.
    /// - Parameters:
    ///   - afterPowerLoss: unsynchronized writes may have left holes with entries after them.
    ///   - checksLast: the last entry is compared with its record by `isGenuine`, and dropped when it does not fit: it
    ///     may be torn.
    ///   - logStart: the log begins there. A queue all of whose messages have expired has nothing to be compared with
    ///     and keeps its number.
    ///   - asksWhatFollows: no recovery point has counted the entries, so what follows the end found is looked at.
    /// - Returns: whether the queue may have gone on after the end found, with entries that are damaged or stand
    ///   after damage: the log shows it.
    func load(
        _ queue: ConsumeQueue, trusted: PhysicalOffset, afterPowerLoss: Bool, checksLast: Bool,
        logStart: PhysicalOffset,
        asksWhatFollows: Bool, isGenuine: (ConsumeQueueEntry, QueueOffset) -> Bool
    ) throws(SystemError) -> Bool {
        queue.firstPhysicalOffset = PhysicalOffset(0)
        guard let (first, last) = try fileRange(queue) else {
            queue.firstFile = 0
            queue.lastFile = -1
            queue.reset(minimum: QueueOffset(0), maximum: QueueOffset(0), written: QueueOffset(0))
            return false
        }
        queue.firstFile = first
        queue.lastFile = last
        let start = queue.firstOffset(ofFile: first)
        let lastStart = queue.firstOffset(ofFile: last)
        let end = queue.firstOffset(ofFile: last + 1)
        // Open the whole range for reading while searching.
        queue.reset(minimum: start, maximum: end, written: end)
        // Entries are written without gaps, so none lies after the first hole; and reading holes would fill the page
        // cache with zeros.
        let newest = try file(queue, last, forWriting: false)
        let hole = newest.firstHole(from: 0)
        let used = hole / Int64(ConsumeQueueEntry.size) + 1
        let high = min(end, lastStart + max(0, min(used, queue.entriesPerFile)))
        // Nearly always the queue ends in the last block that has data.
        let block = try Block(self, queue, from: max(lastStart, high - Int64(205)), to: high, trusted: trusted)
        var low: QueueOffset
        if let found = block.end {
            low = found
        } else {
            low = try firstUntrusted(queue, from: start, to: block.start, trusted: trusted)
        }
        var isClean = block.end != nil && block.isZeroBehindEnd && newest.firstData(from: hole) == nil
        var mayGoOn = false
        if asksWhatFollows, !isClean, let entry = try rawEntry(queue, at: low) {
            // An entry whose message is not yet in the log's trusted part shows nothing; any other one was reached too
            // early.
            mayGoOn = entry.isEmpty || !isGenuine(entry, low)
        }
        if checksLast {
            // A torn entry can look older than it is and mislead the search.
            while low > start, let entry = try rawEntry(queue, at: low - 1), entry != .preBlank,
                try
                    !(entry.physicalOffset < logStart
                    ? isInOrder(entry, at: low - 1, of: queue, from: start) : isGenuine(entry, low - 1))
            {
                low = low - 1
                isClean = false
                mayGoOn = true
            }
        }
        if afterPowerLoss || !isClean {
            try discard(queue, from: low, always: afterPowerLoss || checksLast)
        } else if try newest.size() != fileBytes {
            try discard(queue, from: low, always: true)
        }
        queue.reset(minimum: min(start, low), maximum: low, written: low)
        queue.lastPhysicalOffset = PhysicalOffset(-1)
        guard low > start else { return mayGoOn }
        if let entry = try entry(queue, at: low - 1, in: block), entry != .preBlank {
            queue.lastPhysicalOffset = entry.physicalOffset
        }
        if let entry = try entry(queue, at: start, in: block) {
            queue.firstPhysicalOffset = entry.physicalOffset
        }
        return mayGoOn
    }

    /// Whether the entry's record lies after its predecessor's in the log: a torn one, some of whose bytes are zeros,
    /// does not.
    private func isInOrder(
        _ entry: ConsumeQueueEntry, at offset: QueueOffset, of queue: ConsumeQueue, from start: QueueOffset
    ) throws(SystemError) -> Bool {
        guard entry.recordSize > 0 else { return false }
        guard offset > start, let previous = try rawEntry(queue, at: offset - 1) else { return true }
        return previous == .preBlank || previous.physicalOffset < entry.physicalOffset
    }

    private func entry(_ queue: ConsumeQueue, at offset: QueueOffset, in block: Block) throws(SystemError)
        -> ConsumeQueueEntry?
    {
        if let entry = block.entry(offset) { return entry }
        return try rawEntry(queue, at: offset)
    }

    /// No queue's file begins behind it, bytes: no queue takes the offsets there.
    private static let lastBase = ConsumeQueueEntry.queueOffsetLimit * Int64(ConsumeQueueEntry.size)

    /// Numbers of the first and the last file: only the unbroken run up to the newest counts, what lies before a gap is
    /// removed.
    private func fileRange(_ queue: ConsumeQueue) throws(SystemError) -> (first: Int64, last: Int64)? {
        var numbers = try disk.list(queuePath(queue)).compactMap { StoreFileName.offset(of: $0) }
            .filter { $0 % fileBytes == 0 && $0 <= Self.lastBase }.map { $0 / fileBytes }
        if numbers.count > 1 { numbers.sort() }
        if let gap = numbers.indices.dropFirst().last(where: { numbers[$0] != numbers[$0 - 1] + 1 }) {
            for number in numbers[..<gap] { try disk.remove(path(queue, number)) }
            numbers.removeFirst(gap)
        }
        guard let first = numbers.first, let last = numbers.last else { return nil }
        return (first, last)
    }

    private func firstUntrusted(
        _ queue: ConsumeQueue, from start: QueueOffset, to end: QueueOffset, trusted: PhysicalOffset
    ) throws(SystemError) -> QueueOffset {
        var low = start
        var high = end
        while low < high {
            let middle = low + (high - low) / 2
            if let entry = try rawEntry(queue, at: middle), !entry.isEmpty, entry.physicalOffset < trusted {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }

    /// The last entries of a queue that may be there, read at once.
    private struct Block {
        let start: QueueOffset
        private var first: ConsumeQueueEntry?
        private var newest: ConsumeQueueEntry?
        /// The first entry that is empty or not trusted; nil when already the first one here is.
        let end: QueueOffset?
        /// All bytes from `end` on are zeros.
        let isZeroBehindEnd: Bool

        init(
            _ files: ConsumeQueueFiles, _ queue: ConsumeQueue, from start: QueueOffset, to end: QueueOffset,
            trusted: PhysicalOffset
        ) throws(SystemError) {
            self.start = start
            let size = ConsumeQueueEntry.size
            let bytes =
                end > start
                ? try files.readFile(queue, from: start, count: Int(end - start))
                : UnsafeRawBufferPointer(start: nil, count: 0)
            var good = 0
            while let base = bytes.baseAddress, (good + 1) * size <= bytes.count {
                let entry = ConsumeQueueEntry(base + good * size)
                if entry.isEmpty || entry.physicalOffset >= trusted { break }
                if good == 0 { first = entry }
                newest = entry
                good += 1
            }
            isZeroBehindEnd = isZero(UnsafeRawBufferPointer(rebasing: bytes[(good * size)...]))
            self.end = good > 0 || start == queue.firstOffset(ofFile: queue.firstFile) ? start + good : nil
        }

        func entry(_ offset: QueueOffset) -> ConsumeQueueEntry? {
            if offset == start { return first }
            return end.map { $0 - 1 } == offset ? newest : nil
        }
    }

    /// Makes the files hold nothing from entry `offset` on.
    func discard(_ queue: ConsumeQueue, from offset: QueueOffset, always: Bool) throws(SystemError) {
        let keep = queue.fileNumber(of: max(offset - 1, queue.firstOffset(ofFile: queue.firstFile)))
        while queue.lastFile > keep {
            if queue.openFile?.number == queue.lastFile { close(queue) }
            try disk.remove(path(queue, queue.lastFile))
            queue.lastFile -= 1
        }
        let inFile = (offset - queue.firstOffset(ofFile: queue.lastFile)) * Int64(ConsumeQueueEntry.size)
        guard inFile < fileBytes else { return }
        let file = try self.file(queue, queue.lastFile, forWriting: true)
        let size = try file.size()
        // Entries are written in order, so zeros right after the last one mean that nothing follows, but for holes
        // torn by a power cut.
        if !always, size == fileBytes, try isZeroBlock(file, at: inFile) { return }
        try file.truncate(to: inFile)
        try file.truncate(to: fileBytes)
        touch(file)
    }

    private func isZeroBlock(_ file: any DiskFile, at offset: Int64) throws(SystemError) -> Bool {
        guard let data = file.firstData(from: offset) else { return true }
        // A block beyond a hole is none that was written in order.
        if data > offset { return false }
        let hole = file.firstHole(from: offset)
        if let next = file.firstData(from: hole), next > hole { return false }
        let count = Int(min(4000, hole - offset))
        let got = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: scratch[0..<count]), at: offset)
        return isZero(UnsafeRawBufferPointer(rebasing: scratch[0..<got]))
    }
}

private func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var position = 0
    while position + 8 <= bytes.count {
        if bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self) != 0 { return false }
        position += 8
    }
    return bytes[position...].allSatisfy { $0 == 0 }
}
