import LinuxSystem
import StoreFormat

/// Looks up record checksums (`RecordChecksum`), a page at a time. Confined to one thread at a time; several readers
/// may use the same files.
final class RecordChecksumReader {
    private let directory: String
    private let disk: any Disk
    private let fileSize: Int64
    private let page = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
    /// What `page` holds: as much of the table as there is, from `pageStart` on.
    private var pageBase = PhysicalOffset(-1)
    private var pageStart: Int64 = -1
    private var pageCount = 0
    /// Of the log file at `pageBase`; nil when it has no checksums.
    private var file: (any DiskFile)?

    /// - Parameter fileSize: of the log's files.
    init(directory: String, disk: any Disk, fileSize: Int64) {
        self.directory = directory
        self.disk = disk
        self.fileSize = fileSize
    }

    deinit { page.deallocate() }

    /// Closes the file and forgets what was read of it.
    func forget() {
        pageBase = PhysicalOffset(-1)
        file = nil
    }

    /// The checksum of the record that begins at `offset` of the log; 0 when it is not known.
    func checksum(at offset: PhysicalOffset) throws(SystemError) -> UInt32 {
        let base = PhysicalOffset(offset.rawValue / fileSize * fileSize)
        let position = RecordChecksum.position(offset - base)
        let start = position / Int64(page.count) * Int64(page.count)
        if base != pageBase || start != pageStart { try read(base, start) }
        let inPage = Int(position - start)
        guard inPage + RecordChecksum.size <= pageCount else { return 0 }
        return UInt32(bigEndian: page.loadUnaligned(fromByteOffset: inPage, as: UInt32.self))
    }

    private func read(_ base: PhysicalOffset, _ start: Int64) throws(SystemError) {
        if base != pageBase {
            forget()
            let path = directory + "/" + StoreFileName.of(offset: base.rawValue)
            file = try disk.information(path) == nil ? nil : disk.open(path, .read)
        }
        pageBase = PhysicalOffset(-1)
        pageCount = try file?.read(into: page, at: start) ?? 0
        pageBase = base
        pageStart = start
    }

    /// Damage when the record is not the one its checksum was made of; nil when it is, or has none.
    func damage(of record: CommitLogRecordView) throws(SystemError) -> CommitLogDamage? {
        let checksum = try checksum(at: record.physicalOffset)
        return checksum == 0 || checksum == RecordChecksum.of(record.bytes) ? nil : .recordChecksum
    }
}
