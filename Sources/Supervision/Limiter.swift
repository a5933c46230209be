package import LinuxSystem
package import WorkerProtocol

/// Puts `limits.*` into effect and reports when one of them is hit. It uses cgroups where systemd has handed this
/// service its own (Delegate=yes), resource limits of the process otherwise.
package struct Limiter {
    private var limits: WorkerLimits
    private let table: WorkerTable
    private let groups: ControlGroups?
    /// What does not hold here, as text.
    package private(set) var complaints: [String] = []
    private var refusals: [WorkerID: ControlGroups.Refusals] = [:]
    private var ownKills: UInt64

    /// - Parameter own: the group this service may divide, if there is one. Asked for only when there is something to
    ///   divide: a limit, or more than one disk.
    package init(_ configuration: PlatformConfiguration, own: () -> ControlGroups? = { ControlGroups() }) {
        limits = configuration.limits
        table = configuration.table
        let disks = configuration.workers.count { configuration.row(of: $0).ownsDisk }
        groups = limits.isEmpty && disks < 2 ? nil : own()
        ownKills = ControlGroups.ownKills() ?? 0
        complaints = unmet
    }

    /// Limits that only a cgroup can hold; the others have something of the process's own to fall back on.
    private var unmet: [String] {
        table.rows.map(\.kind).flatMap { kind in
            let limit = limits[kind]
            return [("tasks", limit.tasks != nil, "pids"), ("cpu", limit.cpuPercent != nil, "cpu")]
                .filter { $0.1 && groups?.available.contains($0.2) != true }
                .map {
                    "limits.\(kind.rawValue).\($0.0) does not hold: this service has no cgroup v2 with the controller "
                        + "\($0.2) to divide (Delegate=yes)"
                }
        }
    }

    /// New settings. Answers what does not hold.
    mutating func update(_ configuration: PlatformConfiguration) -> [String] {
        guard limits != configuration.limits else { return [] }
        limits = configuration.limits
        return unmet
    }

    /// For a worker that has just been launched, or whose limits have changed. Answers what could not be set.
    package mutating func apply(to child: ChildProcess, _ id: WorkerID) -> [String] {
        let limit = limits[id.kind]
        guard let groups else {
            let memory = limitsItself(id) ? nil : limit.memory
            return child.limit(files: limit.files, memory: memory, nice: limit.niceness, ioLevel: limit.ioLevel)
        }
        func has(_ controller: String) -> Bool { groups.available.contains(controller) }
        var group = ControlGroups.Limits()
        if has("memory") { group.memory = limit.memory }
        if has("pids") { group.tasks = limit.tasks }
        // All workers have the same share unless set otherwise: a busy disk does not starve the others.
        if has("cpu") { (group.cpuWeight, group.cpuPercent) = (limit.cpuWeight ?? 100, limit.cpuPercent) }
        if has("io") { group.ioWeight = limit.ioWeight ?? 100 }
        var failures = groups.prepare("\(id)", group)
        do throws(SystemError) { try groups.place(child.pid, in: "\(id)") } catch { failures.append("\(error)") }
        let memory = has("memory") || limitsItself(id) ? nil : limit.memory
        let nice = has("cpu") ? 0 : limit.niceness
        let ioLevel = has("io") ? nil : limit.ioLevel
        failures += child.limit(files: limit.files, memory: memory, nice: nice, ioLevel: ioLevel)
        refusals[id] = groups.refusals(of: "\(id)")
        return failures
    }

    /// Whether the worker keeps itself below its limit of memory.
    private func limitsItself(_ id: WorkerID) -> Bool {
        if case .worker = table.row(id.kind).memoryLimit { true } else { false }
    }

    /// Looked at with every heartbeat: what the kernel has refused a worker that runs.
    package mutating func noticed(_ id: WorkerID) -> String? {
        guard let groups, let before = refusals[id] else { return nil }
        let now = groups.refusals(of: "\(id)")
        refusals[id] = now
        guard now.tasks > before.tasks else { return nil }
        return "no more threads: all \(limits[id.kind].tasks ?? 0) of limits.\(id.kind.rawValue).tasks are there"
    }

    /// What a signal of the kernel's means, where that can be known; begins with a separator.
    package mutating func explain(signal: Int32, of id: WorkerID) -> String {
        guard signal == 9 else {
            // How a process ends that asked for more than RLIMIT_DATA allows: by a trap, mostly.
            let byTrap = [4, 5, 6, 11].contains(signal) && groups?.available.contains("memory") != true
            guard byTrap, let memory = limits[id.kind].memory else { return "" }
            return ", perhaps out of memory: limits.\(id.kind.rawValue).memory is \(memory >> 20) MB"
        }
        if let groups, let before = refusals[id] {
            let now = groups.refusals(of: "\(id)")
            refusals[id] = now
            if now.kills > before.kills, let memory = limits[id.kind].memory {
                return ", out of memory: limits.\(id.kind.rawValue).memory is \(memory >> 20) MB"
            }
        }
        let kills = ControlGroups.ownKills() ?? 0
        defer { ownKills = kills }
        return kills > ownKills
            ? ", out of memory: raise MemoryMax= of the service, or limit what the other workers take" : ""
    }
}
