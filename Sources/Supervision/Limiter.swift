import LinuxSystem
import WorkerProtocol

/// Puts `limits.*` into effect and tells when one of them is hit: by cgroups where systemd has handed this service its own
/// (Delegate=yes), by resource limits of the process otherwise.
struct Limiter {
    private var limits: WorkerLimits
    private let groups: ControlGroups?
    /// What does not hold here, in words.
    private(set) var complaints: [String] = []
    private var refusals: [WorkerID: ControlGroups.Refusals] = [:]
    private var ownKills: UInt64

    init(_ configuration: PlatformConfiguration) {
        limits = configuration.limits
        // Without limits and with one disk there is nothing to divide.
        groups = limits.isEmpty && configuration.brokers.count < 2 ? nil : ControlGroups()
        ownKills = ControlGroups.ownKills() ?? 0
        complaints = unmet
    }

    private var unmet: [String] {
        guard groups == nil else { return [] }
        return WorkerKind.allCases.flatMap { kind in
            let limit = limits[kind]
            return [("tasks", limit.tasks != nil), ("cpu", limit.cpuPercent != nil)].filter(\.1).map {
                "limits.\(kind.rawValue).\($0.0) does not hold: it needs cgroups of this service's own (cgroup v2, Delegate=yes)"
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
    mutating func apply(to child: ChildProcess, _ id: WorkerID) -> [String] {
        let limit = limits[id.kind]
        guard let groups else {
            // The filter worker puts itself under its limit of memory, which it can explain by plugin.
            let memory = id.kind == .filter ? nil : limit.memory
            return child.limit(files: limit.files, memory: memory, nice: limit.niceness, ioLevel: limit.ioLevel)
        }
        var group = ControlGroups.Limits()
        group.memory = limit.memory
        group.tasks = limit.tasks
        group.cpuPercent = limit.cpuPercent
        // Everybody's share is the same unless told otherwise: a busy disk does not starve the others.
        group.cpuWeight = limit.cpuWeight ?? (groups.available.contains("cpu") ? 100 : nil)
        group.ioWeight = limit.ioWeight ?? (groups.available.contains("io") ? 100 : nil)
        var failures = groups.prepare("\(id)", group)
        do throws(SystemError) { try groups.place(child.pid, in: "\(id)") } catch { failures.append("\(error)") }
        let nice = groups.available.contains("cpu") ? 0 : limit.niceness
        let ioLevel = groups.available.contains("io") ? nil : limit.ioLevel
        let memory = groups.available.contains("memory") || id.kind == .filter ? nil : limit.memory
        failures += child.limit(files: limit.files, memory: memory, nice: nice, ioLevel: ioLevel)
        refusals[id] = groups.refusals(of: "\(id)")
        return failures
    }

    /// Looked at with every heartbeat: what the kernel has refused a worker that runs.
    mutating func noticed(_ id: WorkerID) -> String? {
        guard let groups, let before = refusals[id] else { return nil }
        let now = groups.refusals(of: "\(id)")
        refusals[id] = now
        guard now.tasks > before.tasks else { return nil }
        return "no more threads: all \(limits[id.kind].tasks ?? 0) of limits.\(id.kind.rawValue).tasks are there"
    }

    /// What a signal of the kernel's means, where that can be known; begins with a separator.
    mutating func explain(signal: Int32, of id: WorkerID) -> String {
        guard signal == 9 else { return "" }
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
