import Glibc
import LinuxSystem
import Supervision

/// Platforms of this machine, also of other users, by their processes; and the state of the service.
enum MachinePlatforms {
    /// One supervisor.
    struct Found: Equatable {
        let pid: Int32
        let user: String
        /// Its data directory; nil when only its user can see that.
        var directory: String?
        /// The unit it runs in.
        var unit: String?

        var description: String {
            let place = directory ?? unit ?? "a folder only its user can see"
            let service = unit.map { directory == nil ? "" : ", \($0)" } ?? ""
            return "\(place) (pid \(pid), user \(user)\(service))"
        }
    }

    /// The answer to an operator who asked about a folder where nothing runs.
    static func remarks(besides path: String, isDefault: Bool) -> [String] {
        var remarks: [String] = []
        if isDefault, let text = ServiceUnit.remark(state: ServiceUnit.state(), isAllowed: ServiceUnit.isReadable) {
            remarks.append(text)
        }
        let others = all().filter { $0.directory != path && ($0.unit != ServiceUnit.name || !isDefault) }
        if !others.isEmpty {
            remarks.append("running on this machine: " + others.map(\.description).joined(separator: "; "))
            if let own = others.first(where: { $0.directory != nil }), let directory = own.directory {
                remarks.append("ask with --data-dir \(directory)")
            }
        }
        return remarks
    }

    /// Every supervisor that runs, by pid.
    static func all() -> [Found] {
        let names = (try? RealDisk().list("/proc")) ?? []
        return names.compactMap { Int32($0) }.sorted().compactMap(found)
    }

    static func found(_ pid: Int32) -> Found? {
        guard let name = text("/proc/\(pid)/comm")?.split(separator: "\n").first, name == "apusd" else { return nil }
        let arguments = strings("/proc/\(pid)/cmdline")
        let environment = strings("/proc/\(pid)/environ")
        var status = stat()
        let user = stat("/proc/\(pid)", &status) == 0 ? userName(status.st_uid) : "?"
        return Found(
            pid: pid, user: user, directory: directory(arguments, environment), unit: unit(text("/proc/\(pid)/cgroup")))
    }

    /// As apusd itself chooses it (`PlatformOptions`).
    static func directory(_ arguments: [String], _ environment: [String]) -> String? {
        for (index, argument) in arguments.enumerated() {
            if argument == "--data-dir", index + 1 < arguments.count { return arguments[index + 1] }
            if argument.hasPrefix("--data-dir=") { return String(argument.dropFirst("--data-dir=".count)) }
        }
        func variable(_ name: String) -> String? {
            environment.first { $0.hasPrefix("\(name)=") }.map { String($0.dropFirst(name.count + 1)) }
                .flatMap { $0.isEmpty ? nil : $0 }
        }
        if let unit = variable("STATE_DIRECTORY") { return unit.split(separator: ":").first.map(String.init) }
        return variable("XDG_STATE_HOME").map { "\($0)/apus" } ?? variable("HOME").map { "\($0)/.local/state/apus" }
    }

    /// `…/apus.slice/apus.service` → `apus.service`; nil for what runs in a session.
    static func unit(_ cgroup: String?) -> String? {
        guard let line = cgroup?.split(separator: "\n").first else { return nil }
        return line.split(separator: "/").last { $0.hasSuffix(".service") && !$0.hasPrefix("user@") }.map(String.init)
    }

    private static func text(_ path: String) -> String? {
        bytes(path).map { String(decoding: $0, as: UTF8.self) }
    }

    private static func strings(_ path: String) -> [String] {
        (bytes(path) ?? []).split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Files of /proc have no size. nil when it cannot be read.
    private static func bytes(_ path: String) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16 << 10)
        while all.count < 1 << 20 {
            let count = read(file, &chunk, chunk.count)
            guard count > 0 else { break }
            all += chunk[..<count]
        }
        return all
    }

    private static func userName(_ uid: uid_t) -> String {
        guard let entry = getpwuid(uid) else { return String(uid) }
        return String(cString: entry.pointee.pw_name)
    }
}

/// `apus.service`, as systemd sees it.
enum ServiceUnit {
    static let name = "apus.service"

    /// `ActiveState` of the unit; nil without systemd, or when there is no such unit.
    static func state() -> String? {
        guard access("/run/systemd/system", F_OK) == 0,
            let (ending, text) = try? WaitedProgram.output(
                of: "/usr/bin/env", ["systemctl", "show", name, "--property=LoadState", "--property=ActiveState"]),
            ending == .code(0)
        else { return nil }
        return state(from: text)
    }

    static func state(from text: String) -> String? {
        var values: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            let pair = line.split(separator: "=", maxSplits: 1)
            if pair.count == 2 { values[pair[0]] = pair[1] }
        }
        guard values["LoadState"] == "loaded" else { return nil }
        return values["ActiveState"].map(String.init)
    }

    static var isReadable: Bool {
        access(StateFolder.ofService, F_OK) != 0 || access(StateFolder.ofService, R_OK | X_OK) == 0
    }

    /// - Parameter isAllowed: whether this user may look into the service's folder.
    static func remark(state: String?, isAllowed: Bool) -> String? {
        switch state {
        case "inactive": "\(name) is inactive: systemctl start apus"
        case "failed": "\(name) has failed: systemctl status apus; journalctl -u apus -p err"
        case "activating": "\(name) is starting: systemctl status apus"
        case "deactivating": "\(name) is stopping: systemctl status apus"
        case nil where isAllowed: nil
        case nil: "not allowed to look at \(StateFolder.ofService): only root and its user may (sudo apus status)"
        default: isAllowed ? nil : "\(name) is active; not allowed to ask it: sudo apus status"
        }
    }
}
