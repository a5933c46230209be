import CLinux
import Glibc
import Synchronization

/// The kernel's files behind the `Disk` seam.
package final class RealDisk: Disk {
    private let found = Mutex<Set<String>>([])

    package init() {}

    /// From now on `createDirectory` never makes this folder again: it was there, so when it is absent its disk is
    /// missing. What would be made is a folder below the mount point.
    package func expect(directory: String) {
        found.withLock { _ = $0.insert(directory) }
    }

    package func open(_ path: String, _ mode: DiskOpenMode) throws(SystemError) -> any DiskFile {
        let flags: Int32 =
            switch mode {
            case .read: O_RDONLY
            case .readWrite: O_RDWR
            case .create: O_RDWR | O_CREAT
            case .replace: O_RDWR | O_CREAT | O_TRUNC
            }
        return RealDiskFile(descriptor: try openDescriptor(path, flags), path: path)
    }

    private func openDescriptor(_ path: String, _ flags: Int32) throws(SystemError) -> Int32 {
        while true {
            let descriptor = Glibc.open(path, flags | O_CLOEXEC, 0o644)
            if descriptor >= 0 { return descriptor }
            if errno == EINTR || Self.mayRetry(errno) { continue }
            throw SystemError(errno: errno, call: "open", subject: path)
        }
    }

    /// Whether a descriptor was short and the reserve has just freed one.
    private static func mayRetry(_ error: Int32) -> Bool {
        (error == EMFILE || error == ENFILE) && DescriptorReserve.shared.lend()
    }

    package func information(_ path: String) throws(SystemError) -> DiskFileInformation? {
        var status = stat()
        guard stat(path, &status) == 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw SystemError(errno: errno, call: "stat", subject: path)
        }
        let modified = FileTime.modified(status, perSecond: 1000)
        return DiskFileInformation(
            size: Int64(status.st_size), modified: modified, isDirectory: status.st_mode & S_IFMT == S_IFDIR)
    }

    package func list(_ directory: String) throws(SystemError) -> [String] {
        var stream = opendir(directory)
        while stream == nil, Self.mayRetry(errno) { stream = opendir(directory) }
        guard let stream else {
            // A stray file where a folder is looked for has no names in it either.
            if errno == ENOENT || errno == ENOTDIR { return [] }
            throw SystemError(errno: errno, call: "opendir", subject: directory)
        }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }

    package func createDirectory(_ path: String) throws(SystemError) {
        if found.withLock({ $0.contains(path) }) {
            var status = stat()
            try call("stat", path) { stat(path, &status) }
            return
        }
        if mkdir(path, 0o755) == 0 || errno == EEXIST { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex else {
            throw SystemError(errno: errno, call: "mkdir", subject: path)
        }
        try createDirectory(String(path[..<slash]))
        if mkdir(path, 0o755) != 0 && errno != EEXIST {
            throw SystemError(errno: errno, call: "mkdir", subject: path)
        }
    }

    package func remove(_ path: String) throws(SystemError) {
        // Glibc's remove() chooses between unlink and rmdir.
        if Glibc.remove(path) != 0 && errno != ENOENT {
            throw SystemError(errno: errno, call: "remove", subject: path)
        }
    }

    package func rename(_ source: String, to target: String) throws(SystemError) {
        if Glibc.rename(source, target) != 0 {
            throw SystemError(errno: errno, call: "rename", subject: "\(source) to \(target)")
        }
    }

    package func synchronizeDirectory(_ path: String) throws(SystemError) {
        let descriptor = try openDescriptor(path, O_RDONLY | O_DIRECTORY)
        defer { close(descriptor) }
        if fsync(descriptor) != 0 { throw SystemError(errno: errno, call: "fsync", subject: path) }
    }

    package func synchronizeAll(_ path: String) throws(SystemError) {
        let descriptor = try openDescriptor(path, O_RDONLY)
        defer { close(descriptor) }
        try check(apus_sync_filesystem(descriptor), "syncfs", path)
    }

    package func space(_ path: String) throws(SystemError) -> DiskSpace {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else {
            throw SystemError(errno: errno, call: "statvfs", subject: path)
        }
        // Java's File.getTotalSpace counts the blocks reserved for root as space; RocketMQ's ratio is built on it.
        let block = Int64(status.f_frsize)
        return DiskSpace(total: Int64(status.f_blocks) * block, available: Int64(status.f_bavail) * block)
    }

    package func lock(_ path: String) throws(SystemError) -> (any DiskFile)? {
        let file = RealDiskFile(descriptor: try openDescriptor(path, O_RDWR | O_CREAT), path: path)
        let result = apus_try_lock(file.descriptor)
        if result == 0 { return file }
        if result == -EAGAIN || result == -EACCES { return nil }
        throw SystemError(errno: -result, call: "fcntl(F_OFD_SETLK)", subject: path)
    }
}

/// An open file of the kernel.
final class RealDiskFile: DiskFile {
    let descriptor: Int32
    let path: String

    init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit {
        close(descriptor)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            let written = pwrite(
                descriptor, bytes.baseAddress?.advanced(by: done), bytes.count - done, Int(offset) + done)
            if written > 0 {
                done += written
            } else if written == 0 {
                throw SystemError(errno: ENOSPC, call: "pwrite", subject: path)
            } else if errno != EINTR {
                throw SystemError(errno: errno, call: "pwrite", subject: path)
            }
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        var done = 0
        while done < buffer.count {
            let count = pread(
                descriptor, buffer.baseAddress?.advanced(by: done), buffer.count - done, Int(offset) + done)
            if count > 0 {
                done += count
            } else if count == 0 {
                break
            } else if errno != EINTR {
                throw SystemError(errno: errno, call: "pread", subject: path)
            }
        }
        return done
    }

    func synchronize() throws(SystemError) {
        while fdatasync(descriptor) != 0 {
            if errno != EINTR { throw SystemError(errno: errno, call: "fdatasync", subject: path) }
        }
    }

    func startWriteback(from offset: Int64, length: Int64) {
        _ = apus_start_writeback(descriptor, offset, length)
    }

    func size() throws(SystemError) -> Int64 {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw SystemError(errno: errno, call: "fstat", subject: path)
        }
        return Int64(status.st_size)
    }

    func truncate(to size: Int64) throws(SystemError) {
        while ftruncate(descriptor, Int(size)) != 0 {
            if errno != EINTR { throw SystemError(errno: errno, call: "ftruncate", subject: path) }
        }
    }

    func allocate(from offset: Int64, length: Int64) throws(SystemError) -> Bool {
        while true {
            let result = apus_allocate(descriptor, offset, length)
            if result == 0 { break }
            switch -result {
            case EINTR: continue
            case EOPNOTSUPP, ENOSYS: return false
            default: throw SystemError(errno: -result, call: "fallocate", subject: path)
            }
        }
        return true
    }

    // lseek moves a position that is not used: all reads and writes here carry their offset.
    func firstHole(from offset: Int64) -> Int64 {
        let seekHole: Int32 = 4
        let found = lseek(descriptor, Int(offset), seekHole)
        return found >= 0 ? Int64(found) : .max
    }

    func firstData(from offset: Int64) -> Int64? {
        let seekData: Int32 = 3
        let found = lseek(descriptor, Int(offset), seekData)
        if found >= 0 { return Int64(found) }
        return errno == ENXIO ? nil : offset
    }

    func map(from offset: Int64, length: Int) throws(SystemError) -> MappedRegion {
        try MappedRegion.map(descriptor: descriptor, path: path, from: offset, length: length)
    }
}
