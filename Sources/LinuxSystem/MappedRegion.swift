import Glibc

/// A read-only view of a range of a file, unmapped when the last reference goes. The bytes change when the file does;
/// readers must stay below the published end of what was written.
package final class MappedRegion: @unchecked Sendable {
    /// Valid until the region is released.
    package let bytes: UnsafeRawBufferPointer
    private let release: (@Sendable (UnsafeRawBufferPointer) -> Void)?

    /// Adopts memory; `release` gets it back at the end (nil: nothing to do).
    package init(adopting bytes: UnsafeRawBufferPointer, release: (@Sendable (UnsafeRawBufferPointer) -> Void)?) {
        self.bytes = bytes
        self.release = release
    }

    deinit {
        release?(bytes)
    }

    /// Maps `length` bytes of the open file from `offset` (a multiple of the page size).
    /// - Throws: mmap(2) failed.
    package static func map(
        descriptor: Int32, path: String, from offset: Int64, length: Int
    ) throws(SystemError) -> MappedRegion {
        let address = mmap(nil, length, PROT_READ, MAP_SHARED, descriptor, Int(offset))
        guard let address, address != MAP_FAILED else {
            throw SystemError(errno: errno, call: "mmap", subject: path)
        }
        return MappedRegion(adopting: UnsafeRawBufferPointer(start: address, count: length)) { bytes in
            munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
        }
    }

    /// Gives the pages back to the page cache: they leave this process' resident memory and come back when touched.
    package func releasePages() {
        madvise(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count, MADV_DONTNEED)
    }
}
