import CLinux
import Glibc

/// A file's contents as they were at one moment, in sealed memory. Whatever is done to the file, no reader of the copy
/// gets SIGBUS or other bytes.
package struct FrozenFile: Sendable {
    /// Which file a path led to, and in which state.
    package struct Identity: Hashable, Sendable {
        /// `st_dev` of stat(2).
        package var device: UInt64
        /// `st_ino` of stat(2).
        package var inode: UInt64
        /// Bytes.
        package var size: Int64
        /// Of the last change of its contents, nanoseconds since 1970.
        package var modified: Int64

        init(_ status: stat) {
            device = UInt64(status.st_dev)
            inode = UInt64(status.st_ino)
            size = Int64(status.st_size)
            modified = FileTime.modified(status, perSecond: 1_000_000_000)
        }

        /// nil: there is no such regular file, or it cannot be seen.
        package static func of(_ path: String) -> Identity? {
            var status = stat()
            guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
            return Identity(status)
        }

        /// Whether `path`, which led to this file, can be opened for reading now, and the file is small enough for a
        /// copy.
        package func isReadable(_ path: String) -> Bool {
            guard size <= FrozenFile.bytesMax, let file = try? FrozenFile.open(path) else { return false }
            withExtendedLifetime(file) {}
            return true
        }
    }

    /// Empty memory files, made while a process may still make some. Confined to one thread.
    package final class Supply {
        private var reserve: [SharedDescriptor] = []
        private let isLimited: Bool

        /// - Parameter reserve: so many are made now, and there will be no others; 0: each is made when it is needed.
        /// - Throws: there is no free descriptor or no memory.
        package init(reserve count: Int = 0) throws(SystemError) {
            isLimited = count > 0
            for _ in 0..<count { reserve.append(try Self.make()) }
        }

        private static func make() throws(SystemError) -> SharedDescriptor {
            SharedDescriptor(
                Descriptor(owning: try check(apus_growing_memfd("apus-plugin"), "memfd_create", "copy of a plugin")))
        }

        fileprivate func take() throws(SystemError) -> SharedDescriptor {
            if let last = reserve.popLast() { return last }
            guard !isLimited else {
                throw SystemError(errno: ENFILE, call: "memfd_create", subject: "copy of a plugin")
            }
            return try Self.make()
        }

        /// No further copy can be made.
        package var isExhausted: Bool { isLimited && reserve.isEmpty }
    }

    /// The largest file that is copied.
    package static let bytesMax: Int64 = 256 << 20

    /// Of the file the copy was made of.
    package let identity: Identity
    /// CRC-32 of the contents.
    package let checksum: UInt32
    private let memory: SharedDescriptor

    /// What dlopen(3) takes, in this process, as long as it holds this value.
    package var path: String { "/proc/self/fd/\(memory.raw)" }

    /// Copies the file.
    /// - Throws: ESTALE when it changed meanwhile, EFBIG above `bytesMax`; it cannot be read, or there is no memory.
    package init(copying path: String, into supply: Supply) throws(SystemError) {
        let source = try Self.open(path)
        let before = try Self.identity(of: source.raw, path)
        guard before.size <= Self.bytesMax else { throw SystemError(errno: EFBIG, call: "copy", subject: path) }
        let memory = try supply.take()
        var checksum: UInt32 = 0
        var total: Int64 = 0
        try Self.read(source.raw, path) { bytes throws(SystemError) in
            checksum = apus_crc32_continue(checksum, bytes.baseAddress, bytes.count)
            total += Int64(bytes.count)
            guard total <= Self.bytesMax else { throw SystemError(errno: EFBIG, call: "copy", subject: path) }
            var done = 0
            while done < bytes.count {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
                done += try call("write", path) { write(memory.raw, rest.baseAddress, rest.count) }
            }
        }
        guard total == before.size, try Self.identity(of: source.raw, path) == before, Identity.of(path) == before
        else { throw SystemError(errno: ESTALE, call: "copy", subject: path) }
        try check(apus_seal(memory.raw), "fcntl", path)
        identity = before
        self.checksum = checksum
        self.memory = memory
    }

    /// CRC-32 of a file's contents.
    /// - Throws: EFBIG above `bytesMax`; it cannot be read.
    package static func checksum(of path: String) throws(SystemError) -> UInt32 {
        let source = try open(path)
        var checksum: UInt32 = 0
        var total: Int64 = 0
        try read(source.raw, path) { bytes throws(SystemError) in
            total += Int64(bytes.count)
            guard total <= Self.bytesMax else { throw SystemError(errno: EFBIG, call: "read", subject: path) }
            checksum = apus_crc32_continue(checksum, bytes.baseAddress, bytes.count)
        }
        return checksum
    }

    private static func open(_ path: String) throws(SystemError) -> SharedDescriptor {
        SharedDescriptor(
            Descriptor(owning: try call("open", path) { Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }))
    }

    private static func identity(of descriptor: Int32, _ path: String) throws(SystemError) -> Identity {
        var status = stat()
        try call("fstat", path) { fstat(descriptor, &status) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw SystemError(errno: EINVAL, call: "copy", subject: path) }
        return Identity(status)
    }

    private static func read(
        _ descriptor: Int32, _ path: String, _ body: (UnsafeRawBufferPointer) throws(SystemError) -> Void
    ) throws(SystemError) {
        try withUnsafeTemporaryAllocation(byteCount: 64 * 1024, alignment: 16) { buffer throws(SystemError) in
            while true {
                let count = try call("read", path) { Glibc.read(descriptor, buffer.baseAddress, buffer.count) }
                guard count > 0 else { return }
                try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            }
        }
    }
}

/// Times of files, which any program may set to anything (touch -d).
enum FileTime {
    /// Of the last change of its contents, since 1970, in parts of a second; the nearest number there is.
    ///
    /// - Parameter perSecond: 1000 for milliseconds, 10^9 for nanoseconds.
    static func modified(_ status: stat, perSecond: Int64) -> Int64 {
        let seconds = Int64(status.st_mtim.tv_sec)
        let (whole, isBeyond) = seconds.multipliedReportingOverflow(by: perSecond)
        let (time, isToo) = whole.addingReportingOverflow(Int64(status.st_mtim.tv_nsec) / (1_000_000_000 / perSecond))
        guard isBeyond || isToo else { return time }
        return seconds < 0 ? .min : .max
    }
}

/// Whether a shared library's file is complete, by its own headers.
package enum LibraryShape: Equatable, Sendable {
    case whole
    /// Ends before `bytes`, although its headers go on.
    case truncated(bytes: Int64)
    /// No ELF file of 64 bits, or its headers make no sense.
    case other

    /// Looks at the file's headers only. A file that cannot be read is `.other`.
    package static func of(_ path: String) -> LibraryShape {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return .other }
        let file = Descriptor(owning: descriptor)
        var status = stat()
        guard fstat(file.raw, &status) == 0 else { return .other }
        let size = Int64(status.st_size)
        var head = [UInt8](repeating: 0, count: 64)
        let count = pread(file.raw, &head, head.count, 0)
        // An empty file, or one whose first page is still zero, is on its way.
        guard count == head.count else { return .truncated(bytes: 64) }
        if head.allSatisfy({ $0 == 0 }) { return .truncated(bytes: size + 1) }
        guard head[0..<4] == [0x7F, 0x45, 0x4C, 0x46], head[4] == 2, head[5] == 1 else { return .other }
        func field<T: FixedWidthInteger>(_ at: Int, _ type: T.Type, _ bytes: [UInt8]) -> UInt64 {
            UInt64(truncatingIfNeeded: bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: at, as: T.self) })
        }
        var end: UInt64 = 0
        func reach(_ offset: UInt64, _ length: UInt64) -> Bool {
            let (partEnd, overflow) = offset.addingReportingOverflow(length)
            guard !overflow, partEnd <= UInt64(Int64.max) else { return false }
            end = max(end, partEnd)
            return true
        }
        let programs = field(32, UInt64.self, head)
        let programSize = field(54, UInt16.self, head)
        let programCount = field(56, UInt16.self, head)
        guard reach(field(40, UInt64.self, head), field(58, UInt16.self, head) * field(60, UInt16.self, head)),
            reach(programs, programSize * programCount)
        else { return .other }
        if end > UInt64(size) { return .truncated(bytes: Int64(end)) }
        guard programSize >= 56, programCount > 0 else { return .other }
        var header = [UInt8](repeating: 0, count: 56)
        for index in 0..<programCount {
            let at = programs + index * programSize
            guard pread(file.raw, &header, header.count, off_t(at)) == header.count,
                reach(field(8, UInt64.self, header), field(32, UInt64.self, header))
            else { return .other }
        }
        return end > UInt64(size) ? .truncated(bytes: Int64(end)) : .whole
    }
}
