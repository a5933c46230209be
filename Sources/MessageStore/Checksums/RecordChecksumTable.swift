import LinuxSystem
import Logging
import StoreFormat

/// The sums of records (`RecordSum`) as their writer sees them. They follow the log in passes and vouch for themselves: a sum is written once, from
/// what was written to the log, and a log that is cut off loses its sums, durably, before anything else is written in their place. So a sum that is
/// there belongs to the record that was written there last.
final class RecordSums {
    private let directory: String
    private let disk: any Disk
    private let fileSize: Int64
    private let logger: Logger
    /// For the owner.
    let reader: RecordSumReader
    /// Records from here on have no sum yet, or not all of them.
    private var next = PhysicalOffset(0)
    /// Below it there may be sums from before the start.
    private var knownEnd = PhysicalOffset(0)
    /// Files written since the last checkpoint.
    private var touched: [any DiskFile] = []
    private var saidReadFailure = false
    /// They could not be written: said once, and tried again with the next pass. A full disk is other people's business: messages that may use its
    /// last bytes go before sums.
    private var writeFailed = false
    private var restsUntilNextPass = false

    /// A stretch: of the log, bytes.
    private static let stretch: Int64 = 64 << 20
    /// Of the log that a start dispatched again, this much gets the sums it lacks.
    private static let caughtUpMax: Int64 = 512 << 20

    init(directory: String, disk: any Disk, fileSize: Int64, logger: Logger) {
        self.directory = directory
        self.disk = disk
        self.fileSize = fileSize
        self.logger = logger
        reader = RecordSumReader(directory: directory, disk: disk, fileSize: fileSize)
    }

    /// A reader for another thread.
    func makeReader() -> RecordSumReader { RecordSumReader(directory: directory, disk: disk, fileSize: fileSize) }

    private func bases() throws(SystemError) -> [PhysicalOffset] {
        try disk.list(directory).compactMap { StoreFileName.offset(of: $0) }.sorted().map { PhysicalOffset($0) }
    }

    private func path(_ base: PhysicalOffset) -> String { directory + "/" + StoreFileName.of(offset: base.rawValue) }

    // MARK: Starting

    /// Cuts off, durably, what belongs to no record of the log `first ..< end`.
    func cut(first: PhysicalOffset, end: PhysicalOffset) throws(SystemError) {
        var removed = false
        for base in try bases() {
            if base + fileSize <= first || base >= end {
                try disk.remove(path(base))
                removed = true
            } else if end < base + fileSize {
                let file = try disk.open(path(base), .readWrite)
                let kept = RecordSum.position(end - base)
                guard try file.size() > kept else { continue }
                try file.truncate(to: kept)
                try file.synchronize()
            }
        }
        if removed { try disk.synchronizeDirectory(directory) }
    }

    /// The newest sums, newest first, each with the first of the 64 bytes in which its record begins.
    func newest(_ count: Int) throws(SystemError) -> [(stretch: PhysicalOffset, sum: UInt32)] {
        var found: [(stretch: PhysicalOffset, sum: UInt32)] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { buffer.deallocate() }
        // Messages of a megabyte have a sum every 64 KiB.
        var budget = 32
        for base in try bases().reversed() where budget > 0 && found.count < count {
            let file = try disk.open(path(base), .read)
            var end = try file.size() / Int64(RecordSum.size) * Int64(RecordSum.size)
            while end > 0, budget > 0, found.count < count {
                budget -= 1
                let start = max(0, end - Int64(buffer.count))
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[0..<Int(end - start)])
                let got = try file.read(into: part, at: start) / RecordSum.size * RecordSum.size
                for place in stride(from: got - RecordSum.size, through: 0, by: -RecordSum.size)
                where found.count < count {
                    let sum = UInt32(bigEndian: part.loadUnaligned(fromByteOffset: place, as: UInt32.self))
                    let number = (start + Int64(place)) / Int64(RecordSum.size)
                    if sum != 0 { found.append((base + number * RecordSum.stride, sum)) }
                }
                end = start
            }
        }
        return found
    }

    /// From here on the log gets its sums.
    /// - Parameters:
    ///   - dispatched: where the start began to dispatch again.
    ///   - end: of the log.
    func begin(dispatched: PhysicalOffset, end: PhysicalOffset) {
        next = end - dispatched <= Self.caughtUpMax ? dispatched : end
        knownEnd = end
    }

    // MARK: Following the log

    func beginPass() { restsUntilNextPass = false }

    /// What makes the next sums; `join` it on the lane `behind`, then `end` it here. Nil when there are none to be made below `end`, which is the end of
    /// a record.
    func beginWork(to end: PhysicalOffset, logFiles: [(base: PhysicalOffset, file: any DiskFile)]) -> RecordSumWork? {
        next = max(next, logFiles.first?.base ?? end)
        guard next < end, !restsUntilNextPass else { return nil }
        return RecordSumWork(
            directory: directory, disk: disk, fileSize: fileSize, logFiles: logFiles, from: next,
            to: min(end, next + Self.stretch), knownEnd: knownEnd)
    }

    /// - Parameter end: as it was given to `beginWork`.
    func end(_ work: RecordSumWork, to end: PhysicalOffset) {
        for file in work.files where touched.last?.path != file.path { touched.append(file) }
        if let failure = work.failure {
            restsUntilNextPass = true
            if !writeFailed { logger.error("sums of records could not be written, tried again: \(failure)") }
            writeFailed = true
            return
        }
        writeFailed = false
        next = work.next
        guard let failure = work.readFailure else { return }
        // Reading it for a consumer fails as well; what comes later has its sums.
        next = end
        guard !saidReadFailure else { return }
        saidReadFailure = true
        logger.error("records from \(work.next) on get no sums, because the log cannot be read there: \(failure)")
    }

    /// What to synchronize for a checkpoint.
    func takeTouched() -> [any DiskFile] {
        defer { touched = [] }
        return touched
    }

    /// Deletes the sums of log files that are gone.
    func expire(before first: PhysicalOffset) throws(SystemError) {
        for base in try bases() where base + fileSize <= first {
            touched.removeAll { $0.path == path(base) }
            try disk.remove(path(base))
        }
        reader.forget()
    }
}
