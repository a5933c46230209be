import LinuxSystem
import StoreFormat

/// What lies at an offset of the log.
enum LogWalkFinding {
    /// A record that holds this offset; valid during the call.
    case record(CommitLogRecordView)
    /// No record, or one of another offset. One damage may be met in several parts.
    case damage(CommitLogDamage, at: PhysicalOffset)
}

/// Reads log files record by record on threads that are not the owner's. It has reads of its own, a buffer at a time,
/// and goes on past whatever is damaged. Confined to one thread at a time.
final class LogWalk {
    private let fileSize: Int64
    private var buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)

    init(fileSize: Int64) {
        self.fileSize = fileSize
    }

    deinit { buffer.deallocate() }

    /// - Parameter files: all log files, in order.
    func file(
        at offset: PhysicalOffset, _ files: [(base: PhysicalOffset, file: any DiskFile)]
    ) -> (base: PhysicalOffset, file: any DiskFile)? {
        guard let first = files.first?.base, offset >= first else { return nil }
        let number = Int((offset - first) / fileSize)
        return number < files.count ? files[number] : nil
    }

    /// Visits one buffer's worth of what begins in `start ..< end`.
    /// - Parameter start: the beginning of a record.
    /// - Returns: where the next step begins; nil when the log file was deleted. It begins after the last record
    ///   visited and always behind `start`, unless the next one reads more at once.
    func step(
        from start: PhysicalOffset, to end: PhysicalOffset, _ files: [(base: PhysicalOffset, file: any DiskFile)],
        _ visit: (LogWalkFinding) throws(SystemError) -> Void
    ) throws(SystemError) -> PhysicalOffset? {
        guard let (base, file) = file(at: start, files) else { return nil }
        let fileEnd = base + fileSize
        let wanted = Int(min(Int64(buffer.count), fileEnd - start))
        let got = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[0..<wanted]), at: start - base)
        guard got > 0 else {
            try visit(.damage(.nothing, at: start))
            return min(fileEnd, end)
        }
        var used = 0
        while used < got, start + Int64(used) < end {
            let here = start + Int64(used)
            let rest = UnsafeRawBufferPointer(rebasing: buffer[used..<got])
            switch CommitLogRecord.parse(rest, maximumSize: Int(fileEnd - here)) {
            case .record(let record) where record.physicalOffset == here:
                try visit(.record(record))
                used += record.totalSize
            case .record(let record):
                try visit(.damage(.physicalOffset(found: record.physicalOffset.rawValue), at: here))
                used = search(from: used + 1, got)
            case .blank(let size):
                if here + Int64(size) == fileEnd { return fileEnd }
                try visit(.damage(.size(Int32(truncatingIfNeeded: size)), at: here))
                used = search(from: used + 1, got)
            case .incomplete(let needed):
                // The rest of a file may be too short even for a blank record.
                if here + Int64(needed) > fileEnd { return fileEnd }
                guard used == 0 else { return here }
                // The file was cut off: what is missing does not come with another look.
                guard got == wanted else {
                    try visit(.damage(.nothing, at: here))
                    return min(fileEnd, end)
                }
                grow(needed)
                return here
            case .invalid(let damage):
                try visit(.damage(damage, at: here))
                used = search(from: used + 1, got)
            }
        }
        return start + Int64(used)
    }

    private func grow(_ needed: Int) {
        guard needed > buffer.count else { return }
        buffer.deallocate()
        buffer = .allocate(byteCount: needed + (1 << 16), alignment: 16)
    }

    /// Where in the buffer the next record may begin: a magic number. What only looks like one is damage again.
    private func search(from start: Int, _ count: Int) -> Int {
        var position = start
        while position + 8 <= count {
            let magic = buffer.loadUnaligned(fromByteOffset: position + 4, as: Int32.self).bigEndian
            if magic == CommitLogRecord.magicV1 || magic == CommitLogRecord.magicV2
                || magic == CommitLogRecord.blankMagic
            {
                return position
            }
            position += 1
        }
        // The last bytes are looked at again with what follows them.
        return max(start, count - 7)
    }
}
