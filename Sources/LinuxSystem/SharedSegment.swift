import CLinux
import Glibc

/// A mapping of a sealed memfd, seen as slots of 8 bytes. One process writes a slot, others read it; there are no
/// locks. A process that creates segments for others (the supervisor) uses `createDescriptor` and maps nothing.
package final class SharedSegment: @unchecked Sendable {
    // Safe to share between threads: the mapping never moves, its size is sealed, and every access is atomic.
    private let base: UnsafeMutableRawPointer
    /// Its size; it never changes.
    package let bytes: Int
    /// Whether this process is its one writer.
    package let writable: Bool
    private let descriptor: SharedDescriptor

    /// To pass on; stays this segment's.
    package var fd: Int32 { descriptor.raw }
    /// 8-byte slots it has.
    package var slots: Int { bytes / 8 }

    /// A new zeroed memfd that can neither shrink nor grow. `name` shows in /proc/PID/maps.
    /// - Throws: there is no memory or no free descriptor.
    package static func createDescriptor(name: String, bytes: Int) throws(SystemError) -> Descriptor {
        precondition(bytes > 0 && bytes.isMultiple(of: 8), "a segment is made of slots of 8 bytes")
        return Descriptor(owning: try check(apus_memfd(name, bytes), "memfd_create", name))
    }

    /// One that holds `contents`, of whole 8 bytes: for what is too much for a message.
    /// - Throws: there is no memory or no free descriptor.
    package static func createDescriptor(name: String, contents: [UInt8]) throws(SystemError) -> Descriptor {
        let descriptor = try createDescriptor(name: name, bytes: contents.count)
        var done = 0
        while done < contents.count {
            done += try call("pwrite", name) {
                contents.withUnsafeBytes {
                    pwrite(descriptor.raw, $0.baseAddress.map { $0 + done }, $0.count - done, off_t(done))
                }
            }
        }
        return descriptor
    }

    /// All bytes of such a segment.
    /// - Throws: it cannot be read.
    package static func contents(of descriptor: consuming Descriptor) throws(SystemError) -> [UInt8] {
        let raw = descriptor.raw
        var status = stat()
        try call("fstat", "segment") { fstat(raw, &status) }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var done = 0
        while done < bytes.count {
            let got = try call("pread", "segment") {
                bytes.withUnsafeMutableBytes {
                    pread(raw, $0.baseAddress.map { $0 + done }, $0.count - done, off_t(done))
                }
            }
            guard got > 0 else { break }
            done += got
        }
        return bytes
    }

    /// A second descriptor of the segment that can never be mapped for writing: what its readers are given.
    /// - Throws: there is no free descriptor.
    package static func readOnly(_ fd: Int32) throws(SystemError) -> Descriptor {
        Descriptor(owning: try check(apus_reopen_read_only(fd), "open", "segment descriptor \(fd)"))
    }

    /// Whether `fd` is what `createDescriptor` makes: writable, of that size, and sealed in it.
    package static func isSegment(_ fd: Int32, bytes: Int) -> Bool {
        var status = stat()
        return fstat(fd, &status) == 0 && status.st_size == bytes && apus_is_writable(fd) == 1 && apus_is_sealed(fd)
    }

    /// A new segment, mapped for writing in this process.
    /// - Throws: there is no memory or no free descriptor.
    package static func create(name: String, bytes: Int) throws(SystemError) -> SharedSegment {
        try SharedSegment(adopting: createDescriptor(name: name, bytes: bytes).release(), writable: true)
    }

    /// Takes over `fd` (also when it throws) and maps all of it. `writable` nil: as the descriptor was opened.
    /// - Throws: EINVAL below 8 bytes; `fd` cannot be mapped so, or there is no memory.
    package init(adopting fd: Int32, writable: Bool? = nil) throws(SystemError) {
        descriptor = SharedDescriptor(Descriptor(owning: fd))
        let opened = try check(apus_is_writable(fd), "fcntl", "segment") == 1
        self.writable = writable ?? opened
        var status = stat()
        try call("fstat", "segment") { fstat(fd, &status) }
        bytes = Int(status.st_size)
        guard bytes >= 8 else { throw SystemError(errno: EINVAL, call: "mmap", subject: "segment of \(bytes) bytes") }
        let protection = self.writable ? PROT_READ | PROT_WRITE : PROT_READ
        guard let base = mmap(nil, bytes, protection, MAP_SHARED, fd, 0), base != MAP_FAILED else {
            throw SystemError(errno: errno, call: "mmap", subject: "segment")
        }
        self.base = base
    }

    deinit { munmap(base, bytes) }

    /// Acquire: what its writer did before it stored this value is visible.
    package func atomicLoad(slot: Int) -> UInt64 {
        precondition(slot >= 0 && slot < slots, "slot \(slot) of \(slots)")
        return apus_load_acquire(base + slot &* 8)
    }

    /// Release: what this thread did before is visible to a thread that loads this value. Only the segment's one writer
    /// stores.
    package func atomicStore(slot: Int, _ value: UInt64) {
        precondition(writable, "this process only reads the segment")
        precondition(slot >= 0 && slot < slots, "slot \(slot) of \(slots)")
        apus_store_release(base + slot &* 8, value)
    }

    /// Orders this thread's stores so far before its loads to come, in any segment. Two processes that each store,
    /// fence and then look at the other's slot cannot both miss the other's store.
    package static func fence() { apus_fence() }

    /// Where a slot lies, for C code that stores there atomically; valid as long as the segment.
    func address(slot: Int) -> UnsafeMutablePointer<UInt64> {
        precondition(writable && slot >= 0 && slot < slots, "slot \(slot) of \(slots)")
        return (base + slot &* 8).assumingMemoryBound(to: UInt64.self)
    }
}
