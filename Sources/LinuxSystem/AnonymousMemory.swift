import Glibc

/// Zeroed memory straight from the kernel, for large tables that come and go: pages count only once touched. All of it
/// really goes back when the owner frees it (malloc keeps freed blocks of this size for later once it has seen one).
package final class AnonymousMemory {
    /// Zero at first; valid until the memory is released.
    package let bytes: UnsafeMutableRawBufferPointer

    /// - Parameter count: bytes, more than 0.
    /// - Throws: there is no memory.
    package init(byteCount count: Int) throws(SystemError) {
        let address = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let address, address != MAP_FAILED else {
            throw SystemError(errno: errno, call: "mmap", subject: "\(count) bytes of memory")
        }
        bytes = UnsafeMutableRawBufferPointer(start: address, count: count)
    }

    deinit {
        munmap(bytes.baseAddress, bytes.count)
    }
}
