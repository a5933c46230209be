import CLinux
import Glibc

/// The part of the cgroup v2 tree that systemd has handed to this service (Delegate=yes), with a group for each worker.
/// Files of the kernel: nothing here waits.
package final class ControlGroups {
    /// What the processes of one group may use; nil: as much as the machine has.
    package struct Limits: Sendable, Hashable {
        /// Bytes.
        package var memory: UInt64?
        /// Processes and threads.
        package var tasks: UInt64?
        /// 1 to 10000.
        package var cpuWeight: Int?
        /// 1 to 10000.
        package var ioWeight: Int?
        /// Of one processor.
        package var cpuPercent: Int?

        package init() {}
    }

    /// How often the kernel has refused so far.
    package struct Refusals: Sendable, Hashable {
        /// Processes killed for memory.
        package var kills: UInt64 = 0
        /// Processes or threads not made.
        package var tasks: UInt64 = 0
    }

    private static let controllers = ["memory", "pids", "cpu", "io"]

    /// Full path of our own group, whose children we make.
    package let path: String
    /// What can be limited here.
    package let available: Set<String>

    /// Our own group if systemd has delegated it to us; nil otherwise.
    package convenience init?() {
        guard let own = ControlGroups.ownPath(), ControlGroups.isDelegated(own) else { return nil }
        self.init(path: own)
    }

    /// - Parameter path: a folder like that of a delegated group. This process moves into a group of its own below,
    ///   because only groups without processes can hand controllers on. nil when that cannot be done.
    package init?(path: String) {
        self.path = path
        do throws(SystemError) {
            try ControlGroups.make("\(path)/supervisor")
            try ControlGroups.write(String(getpid()), to: "\(path)/supervisor/cgroup.procs")
        } catch {
            return nil
        }
        let offered = Set(
            (ControlGroups.read("\(path)/cgroup.controllers") ?? "").split { $0.isWhitespace }.map(String.init))
        var available: Set<String> = []
        for controller in ControlGroups.controllers where offered.contains(controller) {
            do throws(SystemError) {
                try ControlGroups.write("+\(controller)", to: "\(path)/cgroup.subtree_control")
                available.insert(controller)
            } catch {
                // Not handed down to us: the limit is reported as one that does not hold.
                continue
            }
        }
        self.available = available
    }

    // MARK: - Workers

    /// Makes the group of a worker, or finds it, and sets its limits. Answers what could not be set, as text.
    package func prepare(_ name: String, _ limits: Limits) -> [String] {
        let group = "\(path)/\(name)"
        var failures: [String] = []
        func set(_ controller: String, _ file: String, _ value: String?) {
            guard let value else { return }
            guard available.contains(controller) else {
                failures.append("\(file): the controller \(controller) is not delegated to this service")
                return
            }
            do throws(SystemError) { try ControlGroups.write(value, to: "\(group)/\(file)") } catch {
                failures.append("\(error)")
            }
        }
        do throws(SystemError) { try ControlGroups.make(group) } catch { return ["\(error)"] }
        set("memory", "memory.max", limits.memory.map { String($0) })
        set("pids", "pids.max", limits.tasks.map { String($0) })
        set("cpu", "cpu.weight", limits.cpuWeight.map { String($0) })
        set("cpu", "cpu.max", limits.cpuPercent.map { "\($0 * 1000) 100000" })
        set("io", "io.weight", limits.ioWeight.map { "default \($0)" })
        return failures
    }

    /// Moves a process into the group of a worker.
    /// - Throws: the kernel refused, or the process has ended.
    package func place(_ pid: Int32, in name: String) throws(SystemError) {
        try ControlGroups.write(String(pid), to: "\(path)/\(name)/cgroup.procs")
    }

    /// Counted by the kernel since the group was made; zeros when there is no such group.
    package func refusals(of name: String) -> Refusals {
        Refusals(
            kills: ControlGroups.field("oom_kill", of: "\(path)/\(name)/memory.events") ?? 0,
            tasks: ControlGroups.field("max", of: "\(path)/\(name)/pids.events") ?? 0)
    }

    /// Takes away the group of a worker that has ended for good.
    package func remove(_ name: String) { rmdir("\(path)/\(name)") }

    // MARK: - Where we are

    /// Processes killed for memory in this service's own group, whatever its limit is; cgroup v2 and v1.
    package static func ownKills() -> UInt64? {
        if let own = ownPath(), let kills = field("oom_kill", of: "\(own)/memory.events") { return kills }
        guard let own = path(controller: "memory") else { return nil }
        return field("oom_kill", of: "\(own)/memory.oom_control")
    }

    /// The group this process was in when it was asked first.
    private static func ownPath() -> String? { path(controller: "") }

    /// - Parameter controller: of a v1 hierarchy; empty: the unified one.
    private static func path(controller: String) -> String? {
        guard let groups = read("/proc/self/cgroup"), let mounts = read("/proc/self/mountinfo") else { return nil }
        var own: Substring?
        for line in groups.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let names = parts[1].split(separator: ",", omittingEmptySubsequences: false)
            if controller.isEmpty ? parts[0] == "0" : names.contains(where: { $0 == controller }) { own = parts[2] }
        }
        guard var own else { return nil }
        // The service's group, also when this process has moved into a part of it.
        if own.hasSuffix("/supervisor") { own = own.dropLast("/supervisor".count) }
        for line in mounts.split(separator: "\n") {
            // ID PARENT MAJ:MIN ROOT POINT OPTIONS … - TYPE SOURCE SUPER
            guard let dash = line.firstRange(of: " - ") else { continue }
            let front = line[..<dash.lowerBound].split(separator: " ")
            let back = line[dash.upperBound...].split(separator: " ")
            guard front.count > 4, let type = back.first, let options = back.last else { continue }
            let fits =
                controller.isEmpty
                ? type == "cgroup2"
                : type == "cgroup" && options.split(separator: ",").contains(where: { $0 == controller })
            guard fits else { continue }
            let root = front[3]
            let inside = root != "/" && own.hasPrefix(root) ? own.dropFirst(root.count) : own
            return "\(front[4])\(inside == "/" ? "" : inside)"
        }
        return nil
    }

    /// systemd marks what is ours to divide.
    private static func isDelegated(_ path: String) -> Bool {
        for name in ["user.delegate", "trusted.delegate"] {
            var value = [CChar](repeating: 0, count: 8)
            if apus_attribute(path, name, &value, value.count) == 1, value[0] == 0x31 {
                return access("\(path)/cgroup.subtree_control", W_OK) == 0 && access(path, W_OK) == 0
            }
        }
        return false
    }

    // MARK: - Files

    private static func make(_ path: String) throws(SystemError) {
        if mkdir(path, 0o755) != 0 && errno != EEXIST { throw SystemError(errno: errno, call: "mkdir", subject: path) }
    }

    private static func write(_ text: String, to path: String) throws(SystemError) {
        let file = Descriptor(owning: try check(apus_open(path, O_WRONLY | O_CREAT, 0o644), "open", path))
        try call("write", path) { Glibc.write(file.raw, text, text.utf8.count) }
    }

    private static func read(_ path: String) -> String? { (try? DurableFile.read(path)) ?? nil }

    /// A line `NAME VALUE`.
    private static func field(_ name: String, of path: String) -> UInt64? {
        guard let text = read(path) else { return nil }
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ")
            if parts.count == 2, parts[0] == name { return UInt64(parts[1]) }
        }
        return nil
    }
}

/// What this process uses of what it may.
package enum OwnLimits {
    /// Private writable memory and its limit, bytes; nil without a limit.
    package static func memory() -> (used: UInt64, limit: UInt64)? {
        let limit = apus_data_limit()
        guard limit > 0, let used = try? Sandbox.memoryInUse() else { return nil }
        return (used, limit)
    }

    /// The number of descriptors when all that it may have are open; nil when more can be opened.
    package static func filesExhausted() -> UInt64? { apus_can_open_more() ? nil : apus_files_limit() }
}

extension ChildProcess {
    /// For a child that has just been launched and has one thread yet. Answers what could not be set, as text.
    package func limit(files: UInt64?, memory: UInt64?, nice: Int32, ioLevel: Int32?) -> [String] {
        var failures: [String] = []
        func attempt(_ name: String, _ body: () -> Int32) {
            let result = body()
            // It has ended already: then there is nothing to limit.
            if result < 0 && result != -ESRCH { failures.append("\(name): \(SystemError.text(-result))") }
        }
        if let files { attempt("RLIMIT_NOFILE") { apus_limit_files(pid, files) } }
        if let memory { attempt("RLIMIT_DATA") { apus_limit_data(pid, memory) } }
        if nice > 0 { attempt("nice") { apus_nice(pid, nice) } }
        if let ioLevel { attempt("ioprio_set") { apus_io_level(pid, ioLevel) } }
        return failures
    }
}
