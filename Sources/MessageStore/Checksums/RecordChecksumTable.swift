import LinuxSystem
import Logging
import StoreFormat

/// The record checksums (`RecordChecksum`) as their writer sees them. They follow the log in passes. A checksum is
/// written once, from what was written to the log. A log that is cut off loses its checksums, durably, before anything
/// is written in their place. So a checksum belongs to the record that was written there last.
final class RecordChecksumTable {
    private let directory: String
    private let disk: any Disk
    private let fileSize: Int64
    private let logger: Logger
    /// For the owner.
    let reader: RecordChecksumReader
    /// Records from here on have no checksum yet, or not all of them.
    private var next = PhysicalOffset(0)
    /// Below it there may be checksums from before the start.
    private var knownEnd = PhysicalOffset(0)
    /// Files written since the last checkpoint.
    private var touched: [any DiskFile] = []
    private var reportedReadFailure = false
    /// They could not be written: reported once, and tried again with the next pass. The write gate stays open:
    /// messages may use the last bytes of a disk before checksums do.
    private var writeFailed = false
    private var restsUntilNextPass = false

    /// Bytes of the log for one job.
    private static let chunkBytes: Int64 = 64 << 20
    /// Of the log that a start dispatched again, this much gets the checksums it lacks.
    private static let caughtUpMax: Int64 = 512 << 20

    init(directory: String, disk: any Disk, fileSize: Int64, logger: Logger) {
        self.directory = directory
        self.disk = disk
        self.fileSize = fileSize
        self.logger = logger
        reader = RecordChecksumReader(directory: directory, disk: disk, fileSize: fileSize)
    }

    /// A reader for another thread.
    func makeReader() -> RecordChecksumReader {
        RecordChecksumReader(directory: directory, disk: disk, fileSize: fileSize)
    }

    private func bases() throws(SystemError) -> [PhysicalOffset] {
        try disk.list(directory).compactMap { StoreFileName.offset(of: $0) }.sorted().map { PhysicalOffset($0) }
    }

    private func path(_ base: PhysicalOffset) -> String { directory + "/" + StoreFileName.of(offset: base.rawValue) }

    // MARK: - Starting

    /// Cuts off, durably, what belongs to no record of the log `first ..< end`.
    func cut(first: PhysicalOffset, end: PhysicalOffset) throws(SystemError) {
        var removed = false
        for base in try bases() {
            if base + fileSize <= first || base >= end {
                try disk.remove(path(base))
                removed = true
            } else if end < base + fileSize {
                let file = try disk.open(path(base), .readWrite)
                let kept = RecordChecksum.position(end - base)
                guard try file.size() > kept else { continue }
                try file.truncate(to: kept)
                try file.synchronize()
            }
        }
        if removed { try disk.synchronizeDirectory(directory) }
    }

    /// The newest checksums, newest first, each with the first of the 64 bytes in which its record begins.
    func newest(_ count: Int) throws(SystemError) -> [(range: PhysicalOffset, checksum: UInt32)] {
        var found: [(range: PhysicalOffset, checksum: UInt32)] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { buffer.deallocate() }
        // Messages of a megabyte have a checksum every 64 KiB.
        var budget = 32
        for base in try bases().reversed() where budget > 0 && found.count < count {
            let file = try disk.open(path(base), .read)
            var end = try file.size() / Int64(RecordChecksum.size) * Int64(RecordChecksum.size)
            while end > 0, budget > 0, found.count < count {
                budget -= 1
                let start = max(0, end - Int64(buffer.count))
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[0..<Int(end - start)])
                let got = try file.read(into: part, at: start) / RecordChecksum.size * RecordChecksum.size
                for place in stride(from: got - RecordChecksum.size, through: 0, by: -RecordChecksum.size)
                where found.count < count {
                    let checksum = UInt32(bigEndian: part.loadUnaligned(fromByteOffset: place, as: UInt32.self))
                    let number = (start + Int64(place)) / Int64(RecordChecksum.size)
                    if checksum != 0 { found.append((base + number * RecordChecksum.stride, checksum)) }
                }
                end = start
            }
        }
        return found
    }

    /// From here on the log gets its checksums.
    /// - Parameters:
    ///   - dispatched: where the start began to dispatch again.
    ///   - end: of the log.
    func begin(dispatched: PhysicalOffset, end: PhysicalOffset) {
        next = end - dispatched <= Self.caughtUpMax ? dispatched : end
        knownEnd = end
    }

    // MARK: - Following the log

    func beginPass() { restsUntilNextPass = false }

    /// Makes the next checksums: `join` it on the `writeBehind` thread, then `end` it here. Nil when there are none to
    /// be made below `end`, which is the end of a record.
    func beginWork(to end: PhysicalOffset, logFiles: [(base: PhysicalOffset, file: any DiskFile)])
        -> RecordChecksumWork?
    {
        next = max(next, logFiles.first?.base ?? end)
        guard next < end, !restsUntilNextPass else { return nil }
        return RecordChecksumWork(
            directory: directory, disk: disk, fileSize: fileSize, logFiles: logFiles, from: next,
            to: min(end, next + Self.chunkBytes), knownEnd: knownEnd)
    }

    /// - Parameter end: as it was given to `beginWork`.
    func end(_ work: RecordChecksumWork, to end: PhysicalOffset) {
        for file in work.files where touched.last?.path != file.path { touched.append(file) }
        if let failure = work.failure {
            restsUntilNextPass = true
            if !writeFailed { logger.error("record checksums could not be written, tried again: \(failure)") }
            writeFailed = true
            return
        }
        writeFailed = false
        next = work.next
        guard let failure = work.readFailure else { return }
        // Reading it for a consumer fails as well; what comes later has its checksums.
        next = end
        guard !reportedReadFailure else { return }
        reportedReadFailure = true
        logger.error("records from \(work.next) on get no checksums, because the log cannot be read there: \(failure)")
    }

    /// What to synchronize for a checkpoint.
    func takeTouched() -> [any DiskFile] {
        defer { touched = [] }
        return touched
    }

    /// Deletes the checksums of log files that were deleted.
    func expire(before first: PhysicalOffset) throws(SystemError) {
        for base in try bases() where base + fileSize <= first {
            touched.removeAll { $0.path == path(base) }
            try disk.remove(path(base))
        }
        reader.forget()
    }
}
