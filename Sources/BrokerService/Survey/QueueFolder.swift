import LinuxSystem
import StoreFormat

/// The files of one consume queue, read without changing them. Each `entry` reads 20 bytes; a queue costs some twenty
/// of those.
struct QueueFolder {
    private let path: String
    private let disk: any Disk
    /// Bytes of a file; of the largest, should they differ.
    let fileSize: Int64
    /// Some file has another size, or none has room for an entry.
    let isDamaged: Bool
    /// Where the files of the unbroken run up to the newest begin, in bytes.
    private var bases: [Int64]
    private var files: [Int64: any DiskFile] = [:]

    private static let entrySize = Int64(ConsumeQueueEntry.size)

    /// Nil when the folder has no queue files.
    init?(_ path: String, _ disk: any Disk) throws(SystemError) {
        var bases = try disk.list(path).compactMap { StoreFileName.offset(of: $0) }
            .filter { $0 % Self.entrySize == 0 }.sorted()
        guard !bases.isEmpty else { return nil }
        var sizes: [Int64] = []
        for base in bases { sizes.append(try disk.information("\(path)/\(StoreFileName.of(offset: base))")?.size ?? 0) }
        let whole = max((sizes.max() ?? 0) / Self.entrySize * Self.entrySize, Self.entrySize)
        isDamaged = sizes.contains { $0 != whole }
        // What lies before a gap belongs to the queue no more: RocketMQ and Apus decide so when they open it.
        if let gap = bases.indices.dropFirst().last(where: { bases[$0] - bases[$0 - 1] != whole }) {
            bases.removeFirst(gap)
        }
        fileSize = whole
        self.path = path
        self.disk = disk
        self.bases = bases
    }

    /// The first offset a file has, and the one after the last.
    var range: Range<Int64> {
        let first = (bases.first ?? 0) / Self.entrySize
        return first..<first + Int64(bases.count) * (fileSize / Self.entrySize)
    }

    /// Nil where nothing was written.
    mutating func entry(_ offset: Int64) throws(SystemError) -> ConsumeQueueEntry? {
        guard range.contains(offset) else { return nil }
        let position = offset * Self.entrySize
        let base = position - (position - bases[0]) % fileSize
        let file: any DiskFile
        if let open = files[base] {
            file = open
        } else {
            file = try disk.open("\(path)/\(StoreFileName.of(offset: base))", .read)
            files = [base: file]
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: ConsumeQueueEntry.size, alignment: 8)
        defer { buffer.deallocate() }
        guard try file.read(into: buffer, at: position - base) == buffer.count, let start = buffer.baseAddress else {
            return nil
        }
        let entry = ConsumeQueueEntry(UnsafeRawPointer(start))
        return entry.isEmpty ? nil : entry
    }

    /// Behind the last entry: they are written without gaps.
    mutating func end() throws(SystemError) -> Int64 {
        try firstOffset { (queue: inout QueueFolder, offset) throws(SystemError) in try queue.entry(offset) == nil }
    }

    /// The first entry whose message is in a log that begins at `logStart`, up to `end`.
    mutating func first(in logStart: Int64, end: Int64) throws(SystemError) -> Int64 {
        let found = try firstOffset { (queue: inout QueueFolder, offset) throws(SystemError) in
            guard let entry = try queue.entry(offset) else { return true }
            return entry != .preBlank && entry.physicalOffset.rawValue >= logStart
        }
        return min(found, end)
    }

    /// By binary search: the predicate is false up to a place and true from there on.
    private mutating func firstOffset(
        _ isBehind: (inout QueueFolder, Int64) throws(SystemError) -> Bool
    ) throws(SystemError) -> Int64 {
        var low = range.lowerBound
        var high = range.upperBound
        while low < high {
            let middle = low + (high - low) / 2
            if try isBehind(&self, middle) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
