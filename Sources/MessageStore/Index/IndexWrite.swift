import Glibc
import LinuxSystem
import StoreFormat

/// A part of an index file on its way to the disk, in the order entries, slots, header. A kill in between leaves a
/// header that promises nothing that is not there.
final class IndexWrite: JoinableWork, @unchecked Sendable {
    private let file: any DiskFile
    /// Not changed while the write is under way: the index reads entries here.
    var entries: GrowableBytes
    let entryCount: Int32
    private let entryPosition: Int64
    /// Slot pages, copied: the index goes on changing its own.
    private(set) var pages: [Range<Int>] = []
    private var chunks: [(position: Int64, start: Int, count: Int)] = []
    private var slots = GrowableBytes()
    /// Ends a pass; nil when pages are left for the next write.
    var header: IndexHeader?
    /// Read after `join`.
    private(set) var failure: SystemError?

    init(file: any DiskFile, entries: GrowableBytes, entryPosition: Int64, entryCount: Int32) {
        self.file = file
        self.entries = entries
        self.entryPosition = entryPosition
        self.entryCount = entryCount
    }

    deinit {
        entries.deallocate()
        slots.deallocate()
    }

    func add(pages range: Range<Int>, _ bytes: UnsafeRawBufferPointer, at position: Int64) {
        pages.append(range)
        chunks.append((position, slots.count, bytes.count))
        slots.append(bytes)
    }

    /// Hands the entries over.
    func takeEntries() -> GrowableBytes {
        defer { entries = GrowableBytes() }
        return entries
    }

    override func work() {
        do throws(SystemError) {
            if entries.count > 0 { try file.write(entries.bytes, at: entryPosition) }
            let all = slots.bytes
            for chunk in chunks {
                try file.write(
                    UnsafeRawBufferPointer(rebasing: all[chunk.start..<(chunk.start + chunk.count)]), at: chunk.position
                )
            }
            guard let header else { return }
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: IndexLayout.headerSize, alignment: 8)
            defer { bytes.deallocate() }
            guard let base = bytes.baseAddress else { return }
            header.encode(base)
            try file.write(UnsafeRawBufferPointer(bytes), at: 0)
        } catch {
            failure = error
        }
    }
}
