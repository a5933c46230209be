import LinuxSystem
import Logging
import StoreFormat
import StoreReader

/// Record checksums beside the log.
extension MessageStore {
    /// After the log's end was found.
    func loadRecordChecksums() throws(StoreError) {
        guard let checksums else { return }
        try onDisk { () throws(SystemError) in
            try checksums.cut(first: logFiles.first ?? log.written, end: log.written)
            if let stale = try firstStaleChecksum(checksums.newest(16)) {
                // RocketMQ cut the log off below its end, as it does at damage, and went on writing.
                logger.warning(
                    """
                    the record checksums in \(configuration.recordChecksumPath) from \(stale) on were made for another \
                    log than \(configuration.commitLogPath): deleted; records there are judged by their body's CRC
                    """
                )
                try checksums.cut(first: PhysicalOffset(0), end: stale)
            }
            checksums.begin(dispatched: max(recoveredFrom, logFiles.first ?? log.written), end: log.written)
        }
    }

    /// Where the checksums begin that are not of this log; nil when all are.
    ///
    /// A record that contradicts its checksum is damaged if records after it agree with theirs, or if it is the log's
    /// last one. If the log goes on after it without checksums, RocketMQ wrote it.
    /// - Parameter newest: newest first.
    private func firstStaleChecksum(_ newest: [(range: PhysicalOffset, checksum: UInt32)]) -> PhysicalOffset? {
        guard !newest.isEmpty else { return nil }
        let records = newest.map { record(in: $0.range) }
        let agreeing = zip(newest, records).enumerated().first { _, pair in
            guard let record = pair.1 else { return false }
            return windows.withBytes(at: record.offset, size: record.size) { RecordChecksum.of($0) } == pair.0.checksum
        }
        switch agreeing?.offset {
        case nil: return PhysicalOffset(0)
        case 0?: return nil
        case let first?:
            if let record = records[0], record.offset + Int64(record.size) == log.written { return nil }
            return newest[first - 1].range
        }
    }

    /// The record that begins in these 64 bytes of the log.
    private func record(in range: PhysicalOffset) -> (offset: PhysicalOffset, size: Int)? {
        let last = min(range + RecordChecksum.stride, log.written - Int64(CommitLogRecord.minimumSize) + 1)
        var offset = range
        while offset < last {
            if let record = recordAt(offset), !record.isBlank { return (offset, record.size) }
            offset += 1
        }
        return nil
    }

    /// Whether a record that was found on the disk is the one its checksum was made of, or has none.
    func agreesWithChecksum(_ record: CommitLogRecordView) -> Bool {
        guard let checksums else { return true }
        do throws(SystemError) {
            return try checksums.reader.damage(of: record) == nil
        } catch {
            if reported.isNewUnreadableChecksums() {
                logger.error(
                    """
                    reading \(configuration.recordChecksumPath) failed: records found on the disk are judged by their \
                    body's CRC alone: \(error)
                    """
                )
            }
            return true
        }
    }

    /// Of log files retention deleted.
    func expireRecordChecksums() {
        do throws(SystemError) {
            try checksums?.expire(before: logStart)
        } catch {
            logger.error(
                """
                deleting record checksums of deleted log files failed, they take room until the next log file is \
                deleted: \(error)
                """)
        }
    }
}
