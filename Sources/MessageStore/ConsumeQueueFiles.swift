import LinuxSystem
import Logging
import StoreFormat

/// The consume queues' files, `consumequeue/TOPIC/QUEUE/OFFSET`: written behind, in batches, by `pwrite` into sparse files of full length.
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

    private let directory: String
    private let disk: any Disk
    private let fileBytes: Int64
    private let maximumOpen: Int
    /// Queues with an open file, oldest first; a ring so that closing the oldest is cheap.
    private var open: [ConsumeQueue] = []
    private var nextToClose = 0
    /// Files written since the last checkpoint, by path; nil when there were too many to remember.
    private var touched: [String: any DiskFile]? = [:]
    private let maximumTouched = 256
    private var scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 16_000, alignment: 16)

    init(directory: String, disk: any Disk, entriesPerFile: Int, maximumOpen: Int = 256) {
        self.directory = directory
        self.disk = disk
        self.fileBytes = Int64(entriesPerFile) * Int64(ConsumeQueueEntry.size)
        self.maximumOpen = maximumOpen
    }

    deinit {
        scratch.deallocate()
    }

    func queuePath(_ queue: ConsumeQueue) -> String { "\(directory)/\(queue.topic)/\(queue.queueId)" }

    private func path(_ queue: ConsumeQueue, _ number: Int64) -> String {
        queuePath(queue) + "/" + StoreFileName.of(offset: number * fileBytes)
    }

    // MARK: Writing

    /// Writes the entries that are only in memory.
    func write(_ queue: ConsumeQueue) throws(SystemError) {
        while queue.writtenOffset < queue.maxOffset.rawValue {
            let start = queue.writtenOffset
            let number = start / queue.entriesPerFile
            let end = min(queue.maxOffset.rawValue, (number + 1) * queue.entriesPerFile)
            guard let bytes = queue.tailBytes(from: start, count: Int(end - start)) else {
                fatalError("entries of \(queue.topic)-\(queue.queueId) left memory before they were written")
            }
            let file = try self.file(queue, number, forWriting: true)
            try file.write(bytes, at: (start - number * queue.entriesPerFile) * Int64(ConsumeQueueEntry.size))
            touch(file)
            queue.writtenOffset = end
        }
    }

    private func touch(_ file: any DiskFile) {
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

    private func file(_ queue: ConsumeQueue, _ number: Int64, forWriting: Bool) throws(SystemError) -> any DiskFile {
        if let open = queue.openFile, open.number == number { return open.file }
        let path = path(queue, number)
        let file: any DiskFile
        if number > queue.lastFile || queue.lastFile < queue.firstFile {
            guard forWriting else { return try disk.open(path, .read) }
            try disk.createDirectory(queuePath(queue))
            file = try disk.open(path, .replace)
            try file.truncate(to: fileBytes)
            if queue.lastFile < queue.firstFile {
                queue.firstFile = number
                try fillPreBlank(queue, file, until: queue.writtenOffset - number * queue.entriesPerFile)
            }
            queue.lastFile = number
        } else {
            file = try disk.open(path, .readWrite)
        }
        keepOpen(queue, OpenFile(number: number, file: file))
        return file
    }

    /// A queue that does not begin at 0 has its first file filled with entries that point at nothing, as `ConsumeQueue.fillPreBlank` does.
    private func fillPreBlank(_ queue: ConsumeQueue, _ file: any DiskFile, until count: Int64) throws(SystemError) {
        guard count > 0 else { return }
        let size = ConsumeQueueEntry.size
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(count) * size, alignment: 8)
        defer { bytes.deallocate() }
        guard let base = bytes.baseAddress else { return }
        for index in 0..<Int(count) { ConsumeQueueEntry.preBlank.encode(base + index * size) }
        try file.write(UnsafeRawBufferPointer(bytes), at: 0)
    }

    private func keepOpen(_ queue: ConsumeQueue, _ file: OpenFile) {
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

    // MARK: Reading

    /// Entries from `start` on, up to `count` and up to the end of the file they begin in; the pointer is valid until the next call. `start` lies in
    /// the queue's range.
    @inline(__always)
    func read(_ queue: ConsumeQueue, from start: Int64, count: Int) throws(SystemError) -> UnsafeRawBufferPointer {
        let available = Int(min(Int64(count), queue.maxOffset.rawValue - start))
        if let bytes = queue.tailBytes(from: start, count: available) { return bytes }
        return try readFile(queue, from: start, count: available)
    }

    private func readFile(_ queue: ConsumeQueue, from start: Int64, count: Int) throws(SystemError)
        -> UnsafeRawBufferPointer
    {
        let number = start / queue.entriesPerFile
        let size = ConsumeQueueEntry.size
        let inFile = min(Int64(count), queue.writtenOffset - start, (number + 1) * queue.entriesPerFile - start)
        let wanted = min(Int(inFile) * size, scratch.count / size * size)
        guard wanted > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let file = try self.file(queue, number, forWriting: false)
        let target = UnsafeMutableRawBufferPointer(rebasing: scratch[0..<wanted])
        let got = try file.read(into: target, at: (start - number * queue.entriesPerFile) * Int64(size))
        return UnsafeRawBufferPointer(rebasing: scratch[0..<(got / size * size)])
    }

    func entry(_ queue: ConsumeQueue, at offset: Int64) throws(SystemError) -> ConsumeQueueEntry? {
        guard offset >= queue.minOffset.rawValue, offset < queue.maxOffset.rawValue else { return nil }
        return try rawEntry(queue, at: offset)
    }

    private func rawEntry(_ queue: ConsumeQueue, at offset: Int64) throws(SystemError) -> ConsumeQueueEntry? {
        let bytes = try read(queue, from: offset, count: 1)
        guard bytes.count >= ConsumeQueueEntry.size, let base = bytes.baseAddress else { return nil }
        return ConsumeQueueEntry(base)
    }

    // MARK: Loading

    /// Every queue folder there is.
    func folders() throws(SystemError) -> [(topic: String, queueId: Int32)] {
        var found: [(topic: String, queueId: Int32)] = []
        for topic in try disk.list(directory) where !topic.hasPrefix(".") {
            for name in try disk.list(directory + "/" + topic) {
                if let queueId = Int32(name), queueId >= 0 { found.append((topic, queueId)) }
            }
        }
        return found
    }

    /// Finds the files of a queue and its range of entries, trusting only entries whose record begins below `trusted`. What lies behind is
    /// removed from the disk, so that it can never come back.
    /// - Parameter afterPowerLoss: unsynchronized writes may have left holes with entries behind them.
    ///   Then `isGenuine` compares the last entry with its record.
    func load(
        _ queue: ConsumeQueue, trusted: Int64, afterPowerLoss: Bool, isGenuine: (ConsumeQueueEntry, Int64) -> Bool
    ) throws(SystemError) {
        let folder = queuePath(queue)
        var numbers = try disk.list(folder).compactMap { StoreFileName.offset(of: $0) }
            .filter { $0 % fileBytes == 0 }.map { $0 / fileBytes }.sorted()
        // Only the unbroken run up to the newest file counts.
        if let gap = numbers.indices.dropFirst().last(where: { numbers[$0] != numbers[$0 - 1] + 1 }) {
            for number in numbers[..<gap] { try disk.remove(path(queue, number)) }
            numbers.removeFirst(gap)
        }
        guard let first = numbers.first, let last = numbers.last else {
            queue.firstFile = 0
            queue.lastFile = -1
            queue.reset(minimum: 0, maximum: 0, written: 0)
            return
        }
        queue.firstFile = first
        queue.lastFile = last
        let start = first * queue.entriesPerFile
        let end = (last + 1) * queue.entriesPerFile
        // Open the whole range for reading while searching.
        queue.reset(minimum: start, maximum: end, written: end)
        var low = start
        // Entries are written without gaps, so none lies behind the first hole; and reading holes would fill the page cache with zeros.
        let newest = try self.file(queue, last, forWriting: false)
        let used = newest.firstHole(from: 0) / Int64(ConsumeQueueEntry.size) + 1
        var high = min(end, last * queue.entriesPerFile + max(0, min(used, queue.entriesPerFile)))
        while low < high {
            let middle = low + (high - low) / 2
            if let entry = try rawEntry(queue, at: middle), !entry.isEmpty, entry.physicalOffset.rawValue < trusted {
                low = middle + 1
            } else {
                high = middle
            }
        }
        if afterPowerLoss {
            // A torn entry can look older than it is and mislead the search.
            while low > start, let entry = try rawEntry(queue, at: low - 1), entry != .preBlank,
                !isGenuine(entry, low - 1)
            {
                low -= 1
            }
        }
        try discard(queue, from: low, always: afterPowerLoss)
        queue.reset(minimum: min(start, low), maximum: low, written: low)
        queue.lastPhysicalOffset = -1
        if low > start, let entry = try rawEntry(queue, at: low - 1), entry != .preBlank {
            queue.lastPhysicalOffset = entry.physicalOffset.rawValue
        }
    }

    /// Makes the files hold nothing from entry `offset` on.
    private func discard(_ queue: ConsumeQueue, from offset: Int64, always: Bool) throws(SystemError) {
        let keep = max(offset - 1, queue.firstFile * queue.entriesPerFile) / queue.entriesPerFile
        while queue.lastFile > keep {
            if queue.openFile?.number == queue.lastFile { close(queue) }
            try disk.remove(path(queue, queue.lastFile))
            queue.lastFile -= 1
        }
        let inFile = (offset - queue.lastFile * queue.entriesPerFile) * Int64(ConsumeQueueEntry.size)
        guard inFile < fileBytes else { return }
        let file = try self.file(queue, queue.lastFile, forWriting: true)
        let size = try file.size()
        // Entries are written in order, so zeros right behind the last one mean that nothing follows, but for holes torn by a power cut.
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
        var word = 0
        while word + 8 <= got {
            if scratch.loadUnaligned(fromByteOffset: word, as: UInt64.self) != 0 { return false }
            word += 8
        }
        return scratch[word..<got].allSatisfy { $0 == 0 }
    }

    /// Cuts the entries from `offset` on, in memory and on disk.
    func cut(_ queue: ConsumeQueue, to offset: Int64) throws(SystemError) {
        let written = queue.writtenOffset
        queue.cut(to: offset)
        if offset < written, queue.lastFile >= queue.firstFile { try discard(queue, from: offset, always: true) }
        let last = try entry(queue, at: offset - 1)
        queue.lastPhysicalOffset = last.map { $0 == .preBlank ? -1 : $0.physicalOffset.rawValue } ?? -1
    }

    // MARK: Retention

    /// The first entry that points at or behind `physical`, by binary search; the queue's end when none does. Places that point at nothing
    /// count as their successor does.
    func firstEntry(_ queue: ConsumeQueue, atOrAfter physical: Int64) throws(SystemError) -> Int64 {
        var low = queue.minOffset.rawValue
        var high = queue.maxOffset.rawValue
        while low < high {
            let middle = low + (high - low) / 2
            var real = middle
            var entry = try rawEntry(queue, at: real)
            while entry == .preBlank, real + 1 < high {
                real += 1
                entry = try rawEntry(queue, at: real)
            }
            if let entry, entry != .preBlank, entry.physicalOffset.rawValue >= physical {
                if real > middle, middle == low { return real }
                high = middle
            } else {
                low = real + 1
            }
        }
        return low
    }

    /// Moves the queue's beginning behind messages that are gone from the log, deletes files that hold nothing else (`deleteExpiredFile`,
    /// `correctMinOffset`). The file with the queue's end stays, so that its offsets go on.
    func expire(_ queue: ConsumeQueue, before physical: Int64) throws(SystemError) {
        guard !queue.isEmpty, queue.firstPhysicalOffset < physical || queue.firstPhysicalOffset == 0 else { return }
        let minimum = try firstEntry(queue, atOrAfter: physical)
        queue.minOffset = QueueOffset(minimum)
        queue.firstPhysicalOffset = try rawEntryIfAny(queue, minimum)
        let firstNeeded = minimum / queue.entriesPerFile
        while queue.firstFile < firstNeeded, queue.firstFile < queue.lastFile {
            if queue.openFile?.number == queue.firstFile { close(queue) }
            try disk.remove(path(queue, queue.firstFile))
            queue.firstFile += 1
        }
    }

    private func rawEntryIfAny(_ queue: ConsumeQueue, _ offset: Int64) throws(SystemError) -> Int64 {
        try entry(queue, at: offset)?.physicalOffset.rawValue ?? 0
    }

    /// Deletes the queue's files; the queue goes on.
    func clear(_ queue: ConsumeQueue) throws(SystemError) {
        close(queue)
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
