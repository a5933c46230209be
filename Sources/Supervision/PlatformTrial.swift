import Glibc
import LinuxSystem
import SettingTable
import WorkerProtocol

/// Whether a platform could start as configured, without starting it. Its ports are bound and closed again. Its folders
/// are looked at as its user would find them, in its unit's sandbox too.
package struct PlatformTrial {
    /// The user that will run it.
    package var account: Account
    /// Its unit; nil when none will run it.
    package var unit: UnitRules?
    /// The platform that runs on the same data directory, if one does: it holds the ports.
    package var running: Int32?
    /// Whether systemd holds the ports for it.
    package var hasSocketUnit = false

    package init(account: Account = .own, unit: UnitRules? = nil) {
        self.account = account
        self.unit = unit
    }

    /// For the file of a service (`/etc/apus/NAME.toml`) as the service meets it, else as the user of this program
    /// does.
    package init(file: String?, dataDirectory: String) {
        let unit = file.flatMap { UnitRules.unit(of: $0) }.flatMap { UnitRules(unit: $0) }
        self.init(account: unit?.user.flatMap { Account(named: $0) } ?? .own, unit: unit)
        running = RunDirectory.runningPid(path: "\(dataDirectory)/run")
        if let unit {
            var status = stat()
            let socket = unit.unit.replacing(".service", with: ".socket")
            hasSocketUnit = lstat("/run/systemd/units/invocation:\(socket)", &status) == 0
        }
    }

    /// Everything that would keep it from starting.
    /// - Parameter executables: the folder of the worker executables.
    package func problems(
        _ configuration: PlatformConfiguration, _ raw: RawConfiguration, executables: String
    ) -> [ConfigurationProblem] {
        folderProblems(configuration, raw) + portProblems(configuration, raw)
            + Self.pluginProblems(executables: executables)
    }

    // MARK: - Plugins

    /// A filter worker without one of the plugins that come with Apus ends the start.
    private static func pluginProblems(executables: String) -> [ConfigurationProblem] {
        let missing = PluginPlaces.findBuiltIns(beside: executables) { FrozenFile.Identity.of($0) != nil }.missing
        guard !missing.isEmpty else { return [] }
        return [ConfigurationProblem(PluginPlaces.complaint(missing: missing, beside: executables))]
    }

    // MARK: - Ports

    /// Why ports were not tried; nil when they were.
    package var portsNotTried: String? {
        if let running { return "ports are not tried: the platform of this data directory runs (pid \(running))" }
        return hasSocketUnit ? "ports are not tried: systemd holds them for the service (apus.socket)" : nil
    }

    /// Ports that cannot be bound. Empty when they were not tried.
    package func portProblems(_ configuration: PlatformConfiguration, _ raw: RawConfiguration) -> [ConfigurationProblem]
    {
        guard portsNotTried == nil else { return [] }
        var held: [SharedDescriptor] = []
        defer { withExtendedLifetime(held) {} }
        var tried: Set<Int> = []
        return configuration.ports(raw).compactMap { port in
            // The same port twice has been found already.
            guard port.isNeeded, port.number > 0, tried.insert(port.number).inserted else { return nil }
            if let text = privilegeProblem(port) { return ConfigurationProblem(text, line: port.line) }
            do throws(SystemError) {
                held.append(SharedDescriptor(try ListenSocket.tcp(address: port.address, port: port.number)))
                return nil
            } catch {
                return ConfigurationProblem(
                    "\(port.owner), \(port.key): \(Resources.explain(error, configuration))", line: port.line)
            }
        }
    }

    private func privilegeProblem(_ port: PlatformConfiguration.Port) -> String? {
        guard account.user != 0, account.user != geteuid(),
            let text = try? TextFile.read("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
            let first = SettingType.integer(text), port.number < first
        else { return nil }
        return
            "\(port.owner), \(port.key): port \(port.number) needs root or CAP_NET_BIND_SERVICE, and it runs as "
            + "\(account.name): choose one from \(first) on"
    }

    // MARK: - Folders

    /// Of stores, of the tables and of plugins.
    package func folderProblems(
        _ configuration: PlatformConfiguration, _ raw: RawConfiguration, disksToo: Bool = true
    ) -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        func check(_ path: String, _ key: String, _ table: RawConfiguration.Table, mustExist: Bool = false) {
            guard let text = refusal(of: path, mustExist: mustExist) else { return }
            problems.append(
                ConfigurationProblem(
                    "\(key): \(text)", line: raw.line(of: key, in: table) ?? raw.line(of: key, in: .common)))
        }
        check(configuration.dataDirectory, "data directory", .common)
        for row in configuration.table.rows {
            for folder in row.rules.folders(configuration, disksToo: disksToo) {
                check(folder.path, folder.key, folder.table, mustExist: folder.mustExist)
            }
        }
        for path in unit?.missing ?? [] {
            problems.append(
                ConfigurationProblem(
                    "there is no \(path), which \(unit?.unit ?? "") names in ReadWritePaths=: it would not start; make "
                        + "it, and give it to \(account.name) (install -d -o \(account.name) \(path))"))
        }
        return problems
    }

    /// Why nothing can be written to a folder that is there, or that has to be made; nil when it can be.
    private func refusal(of path: String, mustExist: Bool) -> String? {
        if let text = unit?.refusal(of: path) { return text }
        var existing = path
        var status = stat()
        while stat(existing, &status) != 0 {
            let reason = errno
            guard reason == ENOENT || reason == ENOTDIR, existing != "/" else {
                return "\(existing) cannot be looked at: \(SystemError.text(reason))"
            }
            if mustExist { return "there is no \(path): mount the disk there, or make the folder" }
            // systemd makes it, for its user.
            if unit?.isState(path) == true { return nil }
            existing = PlatformTrial.parent(of: existing)
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { return "\(existing) is no folder" }
        if (try? MountPoint.isReadOnly(existing)) == true {
            let what = existing == path ? "\(path) is read-only" : "there is no \(path), and \(existing) is read-only"
            guard StateFolder.ofUnit != nil else { return what }
            return
                "\(what) for the service: make the folder, give it to \(account.name), and add ReadWritePaths=\(path) "
                + "in a drop-in (systemctl edit; /usr/share/doc/apus/examples/data-disk.conf)"
        }
        let mayWrite =
            account.user == geteuid()
            ? faccessat(AT_FDCWD, existing, W_OK | X_OK, AT_EACCESS) == 0
            : account.mayWrite(in: status)
        guard mayWrite else {
            return existing == path
                ? "\(account.name) may not write to \(path): chown -R \(account.name) \(path)"
                : "there is no \(path), and \(account.name) may not make it in \(existing): "
                    + "install -d -o \(account.name) \(path)"
        }
        return nil
    }

    static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return "/" }
        return String(path[..<slash])
    }
}
