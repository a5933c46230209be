import Glibc

/// The bitmap plugins write into. It ends exactly where a page without access begins. A plugin that writes past the end
/// dies there and then, instead of spoiling this process's memory.
final class GuardedBitmap {
    private let region: UnsafeMutableRawPointer
    private let page: Int

    /// - Parameter maximumBytes: rounded up to whole pages.
    init(maximumBytes: Int) {
        let pageSize = Int(getpagesize())
        page = (maximumBytes + pageSize - 1) / pageSize * pageSize
        guard
            let region = mmap(nil, page + pageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            region != MAP_FAILED, mprotect(region + page, pageSize, PROT_NONE) == 0
        else { fatalError("no memory for the filter bitmap (\(page + pageSize) bytes): errno \(errno)") }
        self.region = region
    }

    deinit { munmap(region, page + Int(getpagesize())) }

    /// `bytes` zeroed bytes whose end is the end of the accessible memory.
    func zeroed(_ bytes: Int) -> UnsafeMutableBufferPointer<UInt8> {
        precondition(bytes <= page, "a bitmap of \(bytes) bytes; \(page) are there")
        let start = (region + (page - bytes)).assumingMemoryBound(to: UInt8.self)
        let bitmap = UnsafeMutableBufferPointer(start: start, count: bytes)
        bitmap.update(repeating: 0)
        return bitmap
    }
}
