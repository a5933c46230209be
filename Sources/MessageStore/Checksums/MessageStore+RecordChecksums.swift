import LinuxSystem
import Logging
import StoreFormat
import StoreReader

/// Sums of whole records: where they meet the log.
extension MessageStore {
    /// After the log's end was found.
    func loadSums() throws(StoreError) {
        guard let sums else { return }
        try onDisk { () throws(SystemError) in
            try sums.cut(first: logFiles.first ?? log.written, end: log.written)
            if let stale = try firstStaleSum(sums.newest(16)) {
                // RocketMQ cut the log off below its end, as it does at damage, and went on writing.
                logger.warning(
                    "the sums in \(configuration.recordSumPath) from \(stale) on were made for another log than \(configuration.commitLogPath): deleted; records there are judged by their body's CRC"
                )
                try sums.cut(first: PhysicalOffset(0), end: stale)
            }
            sums.begin(dispatched: max(recoveredFrom, logFiles.first ?? log.written), end: log.written)
        }
    }

    /// Where the sums begin that are not of this log; nil when all are. A record that does not agree with its sum is damaged, if others behind it do, or
    /// if it is the log's last one; if the log goes on behind it without sums, it was written by somebody who does not make any.
    /// - Parameter newest: newest first.
    private func firstStaleSum(_ newest: [(stretch: PhysicalOffset, sum: UInt32)]) -> PhysicalOffset? {
        guard !newest.isEmpty else { return nil }
        let records = newest.map { record(in: $0.stretch) }
        let agreeing = zip(newest, records).enumerated().first { _, pair in
            guard let record = pair.1 else { return false }
            return windows.withBytes(at: record.offset, size: record.size) { RecordSum.of($0) } == pair.0.sum
        }
        switch agreeing?.offset {
        case nil: return PhysicalOffset(0)
        case 0?: return nil
        case let first?:
            if let record = records[0], record.offset + Int64(record.size) == log.written { return nil }
            return newest[first - 1].stretch
        }
    }

    /// The record that begins in these 64 bytes of the log.
    private func record(in stretch: PhysicalOffset) -> (offset: PhysicalOffset, size: Int)? {
        let last = min(stretch + RecordSum.stride, log.written - Int64(CommitLogRecord.minimumSize) + 1)
        var offset = stretch
        while offset < last {
            if let record = recordAt(offset), !record.isBlank { return (offset, record.size) }
            offset += 1
        }
        return nil
    }

    /// Whether a record that was found on the disk is the one its sum was made of, or has none.
    func agreesWithSum(_ record: CommitLogRecordView) -> Bool {
        guard let sums else { return true }
        do throws(SystemError) {
            return try sums.reader.damage(of: record) == nil
        } catch {
            if reported.isNewUnreadableChecksums() {
                logger.error(
                    "reading \(configuration.recordSumPath) failed: records found on the disk are judged by their body's CRC alone: \(error)"
                )
            }
            return true
        }
    }

    /// Of log files retention deleted.
    func expireSums() {
        do throws(SystemError) {
            try sums?.expire(before: logStart)
        } catch {
            logger.error("deleting sums of deleted log files failed: \(error)")
        }
    }
}
