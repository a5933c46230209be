import SettingTable
package import WorkerProtocol

/// What the workers of a kind may use: `limits.KIND.KEY` in the settings, KIND as in `apus status` (`broker-store`,
/// `filter`, …).
package struct WorkerLimits: Hashable, Sendable {
    /// Of each worker of one kind; nil: none.
    package struct Limit: Hashable, Sendable {
        /// Bytes. By cgroup all memory counts, file pages that can be dropped last; else private writable memory only.
        package var memory: UInt64?
        /// Open descriptors.
        package var files: UInt64?
        /// Processes and threads; needs a cgroup.
        package var tasks: UInt64?
        /// 1 to 10000, 100 is the default of all workers: the share of processor time when there is too little of it.
        package var cpuWeight: Int?
        /// The same for the disk.
        package var ioWeight: Int?
        /// Percent of one processor at most; needs a cgroup.
        package var cpuPercent: Int?

        package init() {}

        /// No limit is set.
        package var isEmpty: Bool { self == Limit() }
    }

    /// The last part of `limits.KIND.KEY`.
    package static let keys = ["memory", "files", "tasks", "cpuWeight", "ioWeight", "cpu"]

    private var limits: [WorkerKind: Limit] = [:]

    /// No limits.
    package init() {}

    /// - Parameters:
    ///   - settings: `filter.memory` → `256M` and so on.
    ///   - kinds: the kinds of workers there can be.
    /// - Throws: all that cannot be.
    package init(_ settings: [String: String], kinds: [WorkerKind]) throws(ConfigurationError) {
        var problems: [ConfigurationProblem] = []
        for (key, value) in settings.sorted(by: { $0.key < $1.key }) {
            let parts = key.split(separator: ".").map(String.init)
            guard parts.count == 2, let kind = kinds.first(where: { $0.rawValue == parts[0] }),
                WorkerLimits.keys.contains(parts[1])
            else {
                problems.append(
                    ConfigurationProblem(
                        "there is no setting limits.\(key): it is limits.KIND.KEY with KIND one of "
                            + kinds.map(\.rawValue).joined(separator: ", ")
                            + " and KEY one of \(WorkerLimits.keys.joined(separator: ", "))"))
                continue
            }
            var limit = limits[kind] ?? Limit()
            guard limit.take(parts[1], value) else {
                problems.append(
                    ConfigurationProblem(
                        """
                        limits.\(key) = \(SettingRefusal.shown(value)) is not what this setting takes \
                        (\(Limit.help(parts[1])))
                        """
                    ))
                continue
            }
            limits[kind] = limit
        }
        guard problems.isEmpty else { throw ConfigurationError(problems) }
    }

    /// Of each worker of the kind; empty where none is set.
    package subscript(kind: WorkerKind) -> Limit { limits[kind] ?? Limit() }
    /// No kind has a limit.
    package var isEmpty: Bool { limits.isEmpty }
}

extension WorkerLimits.Limit {
    /// False when the value does not make sense.
    fileprivate mutating func take(_ key: String, _ value: String) -> Bool {
        let number = WorkerLimits.Limit.bytes(value)
        func within(_ range: ClosedRange<UInt64>) -> Int? { number.flatMap { range.contains($0) ? Int($0) : nil } }
        switch key {
        case "memory": memory = within(16 << 20...1 << 50).map(UInt64.init)
        case "files": files = within(64...1 << 30).map(UInt64.init)
        case "tasks": tasks = within(8...1 << 22).map(UInt64.init)
        case "cpuWeight": cpuWeight = within(1...10_000)
        case "ioWeight": ioWeight = within(1...10_000)
        default:
            cpuPercent = Int(value.hasSuffix("%") ? String(value.dropLast()) : value).flatMap {
                (1...100_000).contains($0) ? $0 : nil
            }
            return cpuPercent != nil
        }
        switch key {
        case "memory": return memory != nil
        case "files": return files != nil
        case "tasks": return tasks != nil
        case "cpuWeight": return cpuWeight != nil
        default: return ioWeight != nil
        }
    }

    fileprivate static func help(_ key: String) -> String {
        switch key {
        case "memory": "bytes from 16M on, such as 268435456, 256M or 2G"
        case "files": "a number from 64 on"
        case "tasks": "a number from 8 on"
        case "cpu": "percent of one processor, such as 150%"
        default: "1 to 10000; 100 is the default"
        }
    }

    /// `268435456`, `256M`, `2G`.
    private static func bytes(_ text: String) -> UInt64? {
        let shift: UInt64 =
            switch text.last {
            case "K", "k": 10
            case "M", "m": 20
            case "G", "g": 30
            default: 0
            }
        guard let number = UInt64(shift == 0 ? text : String(text.dropLast())), number < 1 << 33 || shift == 0 else {
            return nil
        }
        return number << shift
    }

    /// The nearest niceness for `cpuWeight` where there is no cgroup: a step of 1 is a factor of 1.25 in the kernel's
    /// scheduler. Never below 0, which needs a privilege.
    package var niceness: Int32 {
        guard let cpuWeight, cpuWeight < 100 else { return 0 }
        var nice: Int32 = 0
        var weight = 100.0
        while nice < 19, weight / 1.25 >= Double(cpuWeight) {
            weight /= 1.25
            nice += 1
        }
        return nice
    }

    /// The best-effort level of ioprio_set(2) for `ioWeight`, 0 (most) to 7; 4 is the default.
    package var ioLevel: Int32? {
        guard let ioWeight else { return nil }
        return switch ioWeight {
        case 800...: 0
        case 400...: 1
        case 200...: 2
        case 120...: 3
        case 80...: 4
        case 50...: 5
        case 25...: 6
        default: 7
        }
    }
}
