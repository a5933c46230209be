import CLinux
import Glibc

/// The process that holds the lock of a file, asked without taking it: `Disk.lock` of another process, or Java's
/// `FileChannel.tryLock`.
package enum FileLock {
    /// A lock that is held.
    package struct Holder: Equatable, Sendable {
        /// Nil: a process of another user or another namespace, which only root can see.
        package let pid: Int32?
        /// The program's name as the kernel has it, at most 15 bytes.
        package let program: String?

        package init(pid: Int32?, program: String?) {
            self.pid = pid
            self.program = program
        }
    }

    /// Nil when no process holds it, also when there is no such file.
    /// - Throws: the file cannot be opened for reading, or its filesystem has no locks.
    package static func holder(of path: String) throws(SystemError) -> Holder? {
        let opened = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        if opened < 0, errno == ENOENT || errno == ENOTDIR { return nil }
        let file = Descriptor(owning: try check(opened < 0 ? -errno : opened, "open", path))
        let found = apus_lock_holder(file.raw)
        if found == 0 { return nil }
        if found < -1 { throw SystemError(errno: -found - 1, call: "fcntl(F_GETLK)", subject: path) }
        var status = stat()
        let pid = found > 0 ? found : fstat(file.raw, &status) == 0 ? process(holding: status) : nil
        return Holder(pid: pid, program: pid.flatMap(program))
    }

    /// The process that has the file open. A lock of an open file description names no process, so /proc is searched.
    private static func process(holding file: stat) -> Int32? {
        let own = getpid()
        return names("/proc").compactMap { Int32($0) }.filter { $0 != own }.first { pid in
            let folder = "/proc/\(pid)/fd"
            return names(folder).contains { name in
                var status = stat()
                return stat("\(folder)/\(name)", &status) == 0 && status.st_ino == file.st_ino
                    && status.st_dev == file.st_dev
            }
        }
    }

    private static func program(_ pid: Int32) -> String? {
        guard let text = fopen("/proc/\(pid)/comm", "r") else { return nil }
        defer { fclose(text) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = fread(&bytes, 1, bytes.count, text)
        return String(decoding: bytes[..<count].prefix { $0 != 10 }, as: UTF8.self)
    }

    /// What another user's process has open may not be listed: it has no names.
    private static func names(_ folder: String) -> [String] {
        guard let stream = opendir(folder) else { return [] }
        defer { closedir(stream) }
        var found: [String] = []
        while let entry = readdir(stream) {
            found.append(
                withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        return found
    }
}
