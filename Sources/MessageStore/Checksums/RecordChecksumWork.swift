import LinuxSystem
import StoreFormat

/// Makes the checksums of a range of the log from what lies there, and writes them to their files, on the `writeBehind`
/// thread.
final class RecordChecksumWork: JoinableWork, @unchecked Sendable {
    private let directory: String
    private let disk: any Disk
    private let fileSize: Int64
    private let logFiles: [(base: PhysicalOffset, file: any DiskFile)]
    private let start: PhysicalOffset
    private let end: PhysicalOffset
    /// Checksums of records below are kept where they exist: whatever the record looks like now, it was written like
    /// that.
    private let knownEnd: PhysicalOffset

    /// Written at once: a megabyte of checksums, 16 MiB of the log.
    private static let pendingMax = 1 << 20

    // Checksums not written yet: of the log file at `pendingBase`, to be written at `pendingStart`.
    private var pending = GrowableBytes()
    private var pendingBase = PhysicalOffset(-1)
    private var pendingStart: Int64 = 0

    // Read after `join`.

    /// Where the next range begins.
    private(set) var next: PhysicalOffset
    /// Files written.
    private(set) var files: [any DiskFile] = []
    /// The log could not be read from `next` on.
    private(set) var readFailure: SystemError?
    /// The checksums could not be written: the range is to be tried again.
    private(set) var failure: SystemError?

    /// - Parameters:
    ///   - fileSize: of the log's files.
    ///   - logFiles: all of them, in order.
    ///   - start: the beginning of a record.
    init(
        directory: String, disk: any Disk, fileSize: Int64, logFiles: [(base: PhysicalOffset, file: any DiskFile)],
        from start: PhysicalOffset, to end: PhysicalOffset, knownEnd: PhysicalOffset
    ) {
        self.directory = directory
        self.disk = disk
        self.fileSize = fileSize
        self.logFiles = logFiles
        self.start = start
        self.end = end
        self.knownEnd = knownEnd
        next = start
    }

    deinit { pending.deallocate() }

    override func work() {
        let walk = LogWalk(fileSize: fileSize)
        var position = start
        do throws(SystemError) {
            while position < end {
                var writeFailure: SystemError?
                do throws(SystemError) {
                    let reached = try walk.step(from: position, to: end, logFiles) { found throws(SystemError) in
                        // What is damaged already has no checksum: it is judged by what RocketMQ's format has.
                        guard case .record(let record) = found else { return }
                        do throws(SystemError) {
                            try take(record)
                        } catch {
                            writeFailure = error
                            throw error
                        }
                    }
                    // The log file was deleted.
                    position = reached ?? end
                } catch {
                    if let writeFailure { throw writeFailure }
                    readFailure = error
                    break
                }
            }
            try writePending()
            next = position
        } catch {
            failure = error
        }
    }

    private func take(_ record: CommitLogRecordView) throws(SystemError) {
        let offset = record.physicalOffset
        let base = PhysicalOffset(offset.rawValue / fileSize * fileSize)
        let place = RecordChecksum.position(offset - base)
        if base != pendingBase || pending.count >= Self.pendingMax {
            try writePending()
            pendingBase = base
            pendingStart = place
        }
        let gap = Int(place - pendingStart) - pending.count
        // Far apart, what lies between stays a hole.
        if gap >= 4096 {
            try writePending()
            pendingBase = base
            pendingStart = place
        } else if gap > 0 {
            pending.extend(gap).initializeMemory(as: UInt8.self, repeating: 0, count: gap)
        }
        pending.extend(RecordChecksum.size).storeBytes(of: RecordChecksum.of(record.bytes).bigEndian, as: UInt32.self)
    }

    private func writePending() throws(SystemError) {
        guard pending.count > 0 else { return }
        let file = try opened(pendingBase)
        if pendingBase + pendingStart / Int64(RecordChecksum.size) * RecordChecksum.stride < knownEnd {
            try keepKnown(file)
        }
        try file.write(pending.bytes, at: pendingStart)
        pending.removeAll()
    }

    /// Puts the checksums that exist over those about to be written.
    private func keepKnown(_ file: any DiskFile) throws(SystemError) {
        let known = UnsafeMutableRawBufferPointer.allocate(byteCount: pending.count, alignment: 16)
        defer { known.deallocate() }
        let got = try file.read(into: known, at: pendingStart)
        var merged = GrowableBytes(capacity: pending.count)
        for place in stride(from: 0, to: pending.count, by: RecordChecksum.size) {
            let old =
                place + RecordChecksum.size <= got ? known.loadUnaligned(fromByteOffset: place, as: UInt32.self) : 0
            let new = pending.bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self)
            merged.extend(RecordChecksum.size).storeBytes(of: old == 0 ? new : old, as: UInt32.self)
        }
        pending.deallocate()
        pending = merged
    }

    private func opened(_ base: PhysicalOffset) throws(SystemError) -> any DiskFile {
        let path = directory + "/" + StoreFileName.of(offset: base.rawValue)
        if let last = files.last, last.path == path { return last }
        try disk.createDirectory(directory)
        let file = try disk.open(path, .create)
        files.append(file)
        return file
    }
}
