import CLinux
import Glibc

/// What /proc knows of a process.
package struct ProcessStatistics: Sendable, Hashable {
    /// Resident memory, bytes; mapped file pages count.
    package var residentBytes: Int
    /// Resident memory that is not backed by files or shared: heap and stacks.
    package var anonymousBytes: Int
    /// User and system time since its start, milliseconds.
    package var cpuMilliseconds: Int

    /// nil when there is no such process.
    package init?(pid: Int32) {
        guard let memory = ProcessStatistics.read("/proc/\(pid)/statm"),
            let status = ProcessStatistics.read("/proc/\(pid)/stat")
        else { return nil }
        let pages = memory.split(separator: " ").compactMap { Int($0) }
        // The command in parentheses may hold anything; the fields counted from `state` follow its last parenthesis.
        guard pages.count >= 3, let end = status.lastIndex(of: ")") else { return nil }
        let fields = status[status.index(after: end)...].split(separator: " ")
        guard fields.count > 12, let user = Int(fields[11]), let system = Int(fields[12]) else { return nil }
        let page = sysconf(Int32(_SC_PAGESIZE))
        residentBytes = pages[1] * page
        anonymousBytes = (pages[1] - pages[2]) * page
        cpuMilliseconds = (user + system) * 1000 / sysconf(Int32(_SC_CLK_TCK))
    }

    private static func read(_ path: String) -> String? {
        let fd = apus_open(path, O_RDONLY, 0)
        guard fd >= 0 else { return nil }
        let file = Descriptor(owning: fd)
        return withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
            let count = Glibc.read(file.raw, buffer.baseAddress, buffer.count)
            guard count > 0 else { return nil }
            return String(decoding: buffer[..<count], as: UTF8.self)
        }
    }
}

/// CLOCK_MONOTONIC.
package enum MonotonicClock {
    /// Since an arbitrary moment; never goes back (CLOCK_MONOTONIC).
    package static var nanoseconds: Int64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
    }

    /// The same.
    package static var milliseconds: Int64 { nanoseconds / 1_000_000 }
}
