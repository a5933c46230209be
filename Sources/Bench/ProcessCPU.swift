import Glibc

/// CPU time of processes by name or number, read from the kernel without their help.
struct ProcessCPU {
    struct Target {
        let pid: Int32
        let name: String
        var nanosecondsAtStart: UInt64
    }

    private(set) var targets: [Target] = []

    /// - Parameter names: pids, executable names or Java main classes; every process that matches counts.
    init(_ names: [String]) throws(BenchError) {
        guard !names.isEmpty else { return }
        let processes = Self.processes()
        for name in names {
            let matching: [Int32]
            if let pid = Int32(name) {
                matching = processes.contains { $0.pid == pid } ? [pid] : []
            } else {
                matching = processes.filter { $0.isCalled(name) }.map(\.pid)
            }
            guard !matching.isEmpty else { throw BenchError("no process '\(name)' is running (--cpu-of)") }
            for pid in matching {
                targets.append(Target(pid: pid, name: name, nanosecondsAtStart: Self.nanoseconds(of: pid) ?? 0))
            }
        }
    }

    /// Starts counting anew.
    mutating func reset() {
        for index in targets.indices {
            targets[index].nanosecondsAtStart = Self.nanoseconds(of: targets[index].pid) ?? 0
        }
    }

    /// CPU nanoseconds of each target since `reset`; nil when it has ended meanwhile.
    func used() -> [UInt64?] {
        targets.map { target in
            Self.nanoseconds(of: target.pid).map {
                $0 >= target.nanosecondsAtStart ? $0 - target.nanosecondsAtStart : 0
            }
        }
    }

    /// User and system time of all threads so far, by the process's CPU clock.
    static func nanoseconds(of pid: Int32) -> UInt64? {
        var clock = clockid_t()
        guard clock_getcpuclockid(pid, &clock) == 0 else { return nil }
        var time = timespec()
        guard clock_gettime(clock, &time) == 0 else { return nil }
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    private struct Process {
        let pid: Int32
        let arguments: [String]

        func isCalled(_ name: String) -> Bool {
            guard let command = arguments.first else { return false }
            if command == name || command.hasSuffix("/" + name) { return true }
            // A Java process is known by its main class: org.apache.rocketmq.broker.BrokerStartup.
            return command.hasSuffix("java") && arguments.contains { $0 == name || $0.hasSuffix("." + name) }
        }
    }

    private static func processes() -> [Process] {
        guard let folder = opendir("/proc") else { return [] }
        defer { closedir(folder) }
        var found: [Process] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let pid = Int32(name), pid != getpid() else { continue }
            found.append(Process(pid: pid, arguments: arguments(of: pid)))
        }
        return found
    }

    private static func arguments(of pid: Int32) -> [String] {
        let file = open("/proc/\(pid)/cmdline", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return [] }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = read(file, &bytes, bytes.count)
        guard count > 0 else { return [] }
        return bytes[..<count].split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }
}
