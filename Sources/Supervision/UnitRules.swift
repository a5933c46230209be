import Glibc

/// What a unit of systemd lets its service write: of its file and drop-ins the lines about folders.
package struct UnitRules: Hashable, Sendable {
    /// `apus.service`, `apus@NAME.service`.
    package let unit: String
    /// `User=`; nil: root.
    package private(set) var user: String?
    /// `ReadWritePaths=`, without the `-` and `+` in front.
    package private(set) var writable: [String] = []
    /// Those of them whose absence ends the start: without `-`.
    package private(set) var required: [String] = []
    /// Full paths of `StateDirectory=`.
    package private(set) var stateFolders: [String] = []
    /// `ProtectSystem=`.
    package private(set) var protectsSystem = ""
    /// `ProtectHome=`.
    package private(set) var protectsHome = ""
    /// `PrivateTmp=`.
    package private(set) var hasPrivateTemporary = false

    /// The unit that reads a file in /etc/apus: apus.toml is the service's, NAME.toml that of the instance NAME.
    package static func unit(of file: String) -> String? {
        let parts = file.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.dropLast() == ["", "etc", "apus"], let name = parts.last, name.hasSuffix(".toml") else {
            return nil
        }
        let instance = String(name.dropLast(5))
        return instance == "apus" ? "apus.service" : "apus@\(instance).service"
    }

    /// Reads unit and drop-ins below `root` (`/`, but for tests). nil: there is no such unit.
    package init?(unit: String, root: String = "") {
        self.unit = unit
        let parts = unit.split(separator: "@", maxSplits: 1).map(String.init)
        let template = parts.count == 2 ? parts[0] + "@.service" : nil
        let instance = parts.count == 2 ? String(parts[1].dropLast(".service".count)) : ""
        let folders = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"].map { "\(root)\($0)/systemd/system" }
        let names = [unit] + (template.map { [$0] } ?? [])
        let candidates: [String] = names.flatMap { name in folders.map { "\($0)/\(name)" } }
        guard let file = candidates.first(where: { (path: String) -> Bool in access(path, R_OK) == 0 }),
            let text = try? TextFile.read(file)
        else { return nil }
        take(text, instance)
        // A drop-in of one name in an earlier folder stands for those in later ones; all apply in the order of their
        // names.
        var dropIns: [String: String] = [:]
        for folder in folders.reversed() {
            for name in names.reversed() {
                for entry in UnitRules.entries("\(folder)/\(name).d") where entry.hasSuffix(".conf") {
                    dropIns[entry] = "\(folder)/\(name).d/\(entry)"
                }
            }
        }
        for (_, path) in dropIns.sorted(by: { $0.key < $1.key }) {
            if let text = try? TextFile.read(path) { take(text, instance) }
        }
    }

    private static func entries(_ folder: String) -> [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            names.append(name)
        }
        return names
    }

    private mutating func take(_ text: String, _ instance: String) {
        for raw in text.split(whereSeparator: \.isNewline) {
            let line = raw.drop { $0 == " " || $0 == "\t" }
            guard !line.hasPrefix("#"), !line.hasPrefix(";"), let equals = line.firstIndex(of: "=") else { continue }
            let value = line[line.index(after: equals)...].replacing("%i", with: instance)
            let items = value.split(separator: " ").map(String.init)
            switch line[..<equals].filter({ $0 != " " }) {
            case "User": user = items.first
            case "ReadWritePaths":
                if items.isEmpty { (writable, required) = ([], []) }
                for item in items {
                    let path = String(item.drop { "-+".contains($0) })
                    writable.append(path)
                    if !item.prefix(while: { "-+".contains($0) }).contains("-") { required.append(path) }
                }
            case "StateDirectory":
                if items.isEmpty { stateFolders = [] }
                stateFolders += items.map { "/var/lib/\($0.prefix { $0 != ":" })" }
            case "ProtectSystem": protectsSystem = items.first ?? ""
            case "ProtectHome": protectsHome = items.first ?? ""
            case "PrivateTmp": hasPrivateTemporary = ["yes", "true", "on", "1"].contains(items.first ?? "")
            default: break
            }
        }
    }

    /// Whether the folder is one of those, or lies below it.
    private static func lies(_ path: String, below folders: [String]) -> Bool {
        folders.contains { path == $0 || path.hasPrefix($0.hasSuffix("/") ? $0 : $0 + "/") }
    }

    func isState(_ path: String) -> Bool { UnitRules.lies(path, below: stateFolders) }

    /// Why systemd does not let the service write there, and what to do; nil when it does.
    func refusal(of path: String) -> String? {
        if isState(path) { return nil }
        if hasPrivateTemporary, UnitRules.lies(path, below: ["/tmp", "/var/tmp"]) {
            return
                "\(path) lies in a temporary folder, which \(unit) has to itself and loses when it stops "
                + "(PrivateTmp=): choose another"
        }
        if !["", "no", "false", "off", "0"].contains(protectsHome),
            UnitRules.lies(path, below: ["/home", "/root", "/run/user"])
        {
            return
                "\(path) lies in a home folder, which \(unit) does not see (ProtectHome=\(protectsHome)): choose "
                + "another, or set ProtectHome=no in a drop-in (systemctl edit \(unit))"
        }
        guard protectsSystem == "strict", !UnitRules.lies(path, below: writable) else { return nil }
        return
            "systemd does not let \(unit) write to \(path): add ReadWritePaths=\(path) in a drop-in (systemctl edit "
            + "\(unit); /usr/share/doc/apus/examples/data-disk.conf)"
    }

    /// Folders the unit names that are missing: it would not start.
    var missing: [String] { required.filter { access($0, F_OK) != 0 } }
}
